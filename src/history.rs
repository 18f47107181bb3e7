//! Decides, without I/O, which messages a connection of level 2 is shown of its user's
//! conversations.
//!
//! - [`pump`] is one connection's state machine: the messages that were written, those that exist,
//!   and the next reads and writes.
//! - [`cursor`] finds the messages that a returning client is missing.
//! - [`sends`] are the sends of a connection that are not acknowledged yet, and the order of their
//!   acknowledgements.
//! - `syncs` are the synchronisations of a connection: its missing messages, run by run.
//! - [`answers`] keeps answers in the order of their requests.
//! - `places` is the table of a pump: the last message written in each conversation.
//!
//! Nothing here knows sockets, threads or the store. The member of a connection (`devices`) feeds
//! events to its pump; the server carries out the pump's commands, and reports what became of them.
//! The lanes that commit messages (`routing`) and the bus make some of these events.

pub mod answers;
pub mod cursor;
mod places;
pub mod pump;
pub mod sends;
mod syncs;
