//! The wish to stop: Ctrl-C, SIGTERM, or the end of the terminal.

use std::sync::OnceLock;

use tokio::signal::unix::{SignalKind, signal};

/// Returns at the first of the three. A process that cannot listen for signals never returns from here.
pub(crate) async fn wait() {
    // Asked before a handler replaces what was inherited.
    static IGNORED: OnceLock<bool> = OnceLock::new();
    let ignored = *IGNORED.get_or_init(hangup_is_ignored);
    let (Ok(mut term), Ok(mut hangup)) = (signal(SignalKind::terminate()), signal(SignalKind::hangup())) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = term.recv() => {}
        _ = hangup.recv(), if !ignored => {}
    }
}

/// Whether this process was started to outlive its terminal, as `nohup` does it. Elsewhere than on Linux: no.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}
