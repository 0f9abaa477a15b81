//! The daemon: HTTP API, scheduler, web pages, metrics.

pub mod authority;
pub mod schedule;
