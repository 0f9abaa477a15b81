//! The daemon: HTTP API, scheduler, web pages, metrics.
