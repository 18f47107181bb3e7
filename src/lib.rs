//! The chat server as a library.

pub mod config;
pub mod protocol;
pub mod store;
