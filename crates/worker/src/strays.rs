//! Processes of an attempt that have left its process group: found by a mark in the environment that they were started
//! with. One that was started with an environment of its own is not found here; the guard, whose descendant it is, ends it.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Where the mark stands.
pub(crate) const MARK: &str = "ISOLOSS_ATTEMPT";

/// Kills what carries `mark` until nothing does. Bounded, because a process that sits in the kernel does not die, and
/// one that starts others faster than they are killed is not to hold up the worker.
pub(crate) fn end(mark: &str) {
    for round in 0..100 {
        let found = marked(mark);
        if found.is_empty() {
            return;
        }
        tracing::debug!(mark, round, count = found.len(), "processes outlive their attempt");
        for stray in found {
            // Gone already is as good.
            let _ = kill(stray, Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    tracing::warn!(mark, "processes of an attempt cannot be ended");
}

/// None where there is no `/proc`. Zombies have no environment any more.
fn marked(mark: &str) -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let wanted = format!("{MARK}={mark}");
    let carries = |entry: std::fs::DirEntry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let environment = std::fs::read(entry.path().join("environ")).ok()?;
        environment.split(|byte| *byte == 0).any(|word| word == wanted.as_bytes()).then(|| Pid::from_raw(pid))
    };
    entries.flatten().filter_map(carries).collect()
}
