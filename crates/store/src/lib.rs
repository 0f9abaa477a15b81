//! Durable runs, leases and outcomes: journal as record of truth, sled as its index.
