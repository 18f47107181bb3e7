//! The chat server as a library.

pub mod protocol;
pub mod store;
