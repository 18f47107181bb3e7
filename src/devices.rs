//! Connections of level 2: one user on one device. Above them are the sessions, which opt in, and
//! the server, which carries out what they want.
//!
//! - [`entry`] is a login until it is complete, [`token`] the proof by which a device logs in
//!   without a password.
//! - [`member`] is the state machine of a connection that is logged in. It has a pump for the
//!   messages of conversations, and beside it: `reply_order` for all replies except those to sends,
//!   `in_turn` for the requests that threads do, `for_session` for those of level 1, `outlet` for
//!   the output, `reports` for 47s, `marks` and `void_marks` for 49s and 50s, `typing` for 51s,
//!   `watch` for 52s and `heart` for the heartbeat.
//! - [`effects`] are the work that it wants done. [`tasks`] are the blocking part, and its results.
//!   [`refusals`] are the answers to refused sends.

pub mod effects;
pub mod entry;
mod for_session;
mod heart;
mod in_turn;
mod mark_table;
mod marks;
pub mod member;
mod outlet;
pub mod refusals;
mod reply_order;
mod reports;
mod stage;
pub mod tasks;
pub mod token;
pub mod typing;
mod void_marks;
mod watch;
