//! The coordinator behind its HTTP face.

mod answers;
mod hostile;
mod lab;
mod leases;
mod openapi;
mod paging;
mod security;
