//! Acquire, run a child process, renew, report, repeat.
