//! The process's heap: how much it took, and how glibc should give it out. Nothing else of the operating system.

/// Largest resident size of this process so far; 0 where the system does not say.
pub(crate) fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

/// Keeps large blocks in the heap instead of returning each to the system: candle allocates anew for every operation,
/// and without this 40 % of its time goes into page faults (measured: 1.7 times the tokens per second).
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(
    unsafe_code,
    reason = "mallopt is a foreign function; it takes plain integers and is safe to call at any time"
)]
pub(crate) fn keep_blocks() {
    const GIB: i32 = 1 << 30;
    // SAFETY: no pointers are passed; glibc takes its own lock.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, GIB);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
    }
}

/// Other allocators need no such help, or have no such knob.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn keep_blocks() {}
