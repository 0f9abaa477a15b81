//! Versioned messages and the client that speaks them. Does not know sled, candle or scheduling.

pub mod api;
pub mod child;
pub mod client;
pub mod orders;

pub use client::{Absence, Client, ClientError, install_tls};
