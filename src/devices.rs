//! Connections of level 2: one user on one device. Above them are the sessions, which opt in, and
//! the server, which carries out what they want.
//!
//! - [`entry`] is a login until it is complete, [`token`] what a device logs in with instead of a
//!   password.
//! - [`member`] is the state machine of a connection that is logged in. It has a pump for the
//!   messages of conversations, and beside it: `reply_order` for everything that is answered but
//!   sends, `in_turn` for what threads do of it, `outlet` for what is written, `reports` for 47s,
//!   `typing` for 51s, `watch` for 52s and `heart` for the heartbeat.
//! - [`effects`] are what it wants done. [`tasks`] are those that threads do, and what comes back.

pub mod effects;
pub mod entry;
mod heart;
mod in_turn;
mod marks;
pub mod member;
mod outlet;
mod reply_order;
mod reports;
pub mod tasks;
pub mod token;
mod typing;
mod watch;
