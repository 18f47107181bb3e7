//! The chat server as a library.

pub mod bus;
pub mod collation;
pub mod config;
pub mod delivery;
pub mod groups;
mod handlers;
pub mod jobs;
pub mod logging;
pub mod mailboxes;
pub mod password;
pub mod presence;
pub mod protocol;
pub mod router;
pub mod server;
pub mod session;
pub mod states;
pub mod store;
