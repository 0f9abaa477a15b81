//! A second tether of a child to its worker, beside the end of input: the kernel kills it when the worker's thread that
//! started it is gone. It does not replace the first, which also works where the kernel cannot do this.

/// Called by the child at its start. Not for the guard, which must outlive the worker by the time it takes to kill.
pub fn die_with_parent() {
    #[cfg(target_os = "linux")]
    if let Err(error) = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL) {
        tracing::debug!(%error, "the kernel does not end this process with its parent");
    }
}
