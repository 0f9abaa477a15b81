//! Processes of a child that have left its process group: found by a mark in the environment that they were started
//! with. One that was started with an environment of its own is not found here; the guard, whose descendant it is, ends it.

use std::collections::BTreeSet;
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

/// Whether a guard watches over its command and nothing else: no other process descends from it or carries `mark`. Zombies
/// are gone. No, where there is no `/proc`.
pub(crate) fn is_alone(guard: Pid, mark: &str) -> bool {
    let Ok(entries) = std::fs::read_dir("/proc") else { return false };
    let process = |entry: std::fs::DirEntry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        // The name in parentheses may hold anything; state and parent follow the last one.
        let mut words = stat.rsplit_once(')')?.1.split_whitespace();
        let (state, parent) = (words.next()?, words.next()?.parse::<i32>().ok()?);
        (state != "Z").then_some((pid, parent))
    };
    let processes: Vec<(i32, i32)> = entries.flatten().filter_map(process).collect();
    let mut own: BTreeSet<i32> = marked(mark).into_iter().map(Pid::as_raw).chain([guard.as_raw()]).collect();
    loop {
        let before = own.len();
        let children: Vec<i32> =
            processes.iter().filter(|(_, parent)| own.contains(parent)).map(|(pid, _)| *pid).collect();
        own.extend(children);
        if own.len() == before {
            return before == 2;
        }
    }
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
