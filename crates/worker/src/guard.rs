//! A small process between a worker and a foreign command that knows nothing of end of input: it passes its stdin on
//! and, when that ends (the worker stopped it, or was killed), kills the command with all its descendants, also those
//! that left its process group. It reads and writes no lines itself: stdout and stderr are the command's own.

use std::ffi::OsString;
use std::io;
use std::process::Stdio;
use std::time::Duration;

use isoloss_wire::child::EXIT_RETRY;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

/// Runs `command` until it ends or this process's stdin does, and returns the exit code to end with.
pub fn guard(command: &[OsString]) -> io::Result<i32> {
    go_first();
    keep(command)
}

/// The same for a service of the worker's, which is not to go before the worker when memory runs out.
pub fn keep(command: &[OsString]) -> io::Result<i32> {
    adopt_orphans();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let code = runtime.block_on(watch(command));
    kill_descendants();
    // The thread that reads stdin may still wait there.
    runtime.shutdown_background();
    code
}

/// The command stays in this process's group: a signal to the group reaches both, and a SIGKILL leaves neither.
async fn watch(command: &[OsString]) -> io::Result<i32> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no command to guard"));
    };
    // SIGTERM is for the command, which answers with its last checkpoint; the guard lives until that is written.
    let _ignored = signal(SignalKind::terminate())?;
    let mut child = Command::new(program).args(arguments).stdin(Stdio::piped()).spawn()?;
    let mut sink = child.stdin.take().expect("stdin was asked for as a pipe");
    let forward = async move {
        let mut source = tokio::io::stdin();
        // A command that does not read its input still has to end with it.
        if tokio::io::copy(&mut source, &mut sink).await.is_err() {
            let _ = tokio::io::copy(&mut source, &mut tokio::io::sink()).await;
        }
    };
    tokio::select! {
        status = child.wait() => status.map(told),
        () = forward => Ok(EXIT_RETRY),
    }
}

/// A command that a signal ended is told as shells tell it: 128 and the signal, which is no word of the protocol.
fn told(status: std::process::ExitStatus) -> i32 {
    let signal = || std::os::unix::process::ExitStatusExt::signal(&status).map(|signal| 128 + signal);
    status.code().or_else(signal).unwrap_or(EXIT_RETRY)
}

/// From now on descendants whose parents end become children of this process, where they can be found.
fn adopt_orphans() {
    #[cfg(target_os = "linux")]
    if let Err(error) = nix::sys::prctl::set_child_subreaper(true) {
        tracing::warn!(%error, "cannot adopt orphans: a command that leaves its process group may outlive its worker");
    }
}

/// When memory runs out the kernel is to take the command before the worker that started it. Inherited by all that the
/// command starts.
fn go_first() {
    // Raising one's own score needs no privilege (proc(5), oom_score_adj); where it cannot be done nothing is lost.
    let _refused = std::fs::write("/proc/self/oom_score_adj", "500");
}

/// Kills children until none is left; each round makes grandchildren children. Bounded, because a process that sits in
/// the kernel does not die.
fn kill_descendants() {
    let me = std::process::id();
    for _ in 0..50 {
        let children = children_of(me);
        if children.is_empty() {
            return;
        }
        for child in children {
            let _ = kill(child, Signal::SIGKILL);
            let _ = nix::sys::wait::waitpid(child, Some(nix::sys::wait::WaitPidFlag::WNOHANG));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Processes whose parent is `parent`, zombies included; none where there is no `/proc`.
fn children_of(parent: u32) -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let child = |entry: std::fs::DirEntry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        // The name in parentheses may hold anything; state and parent follow the last one.
        let parent_of: u32 = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
        (parent_of == parent).then(|| Pid::from_raw(pid))
    };
    entries.flatten().filter_map(child).collect()
}
