//! Connections of level 2: one user on one device. Above them are the sessions, which opt in, and
//! the server, which carries out what they want.
//!
//! - [`entry`] is a login until it is complete, [`token`] what a device logs in with instead of a
//!   password.
//! - [`member`] is the state machine of a connection that is logged in. It has a pump for the
//!   messages of conversations, and everything else beside it.
//! - [`tasks`] are what threads do for a member, and what comes back. `heart` is its heartbeat.

pub mod entry;
mod heart;
pub mod member;
pub mod tasks;
pub mod token;
