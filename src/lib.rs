//! The chat server as a library.

pub mod collation;
pub mod password;
pub mod protocol;
pub mod store;
