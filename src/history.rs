//! What a connection of level 2 is shown of its user's conversations, without I/O.
//!
//! - [`pump`] is one connection's state machine: which messages have been written, which exist, and
//!   what is to be read or written next.
//! - [`cursor`] decides what a client that comes back is missing.
//! - [`sends`] are the sends of a connection that are not acknowledged yet, and the order of their
//!   acknowledgements.
//! - `syncs` are the synchronisations of a connection: what it is missing, run by run.
//! - [`answers`] keeps answers in the order of their questions.
//! - `places` is the table of a pump: how far each conversation has been written.
//!
//! Nothing here knows sockets, threads or the store. The caller feeds events, carries out commands,
//! and reports what became of them.

pub mod answers;
pub mod cursor;
mod places;
pub mod pump;
pub mod sends;
mod syncs;
