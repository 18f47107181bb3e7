//! What each request means: decisions only, as methods of [`Session`](crate::session::Session). They see no socket,
//! thread, clock or pool.

mod account;
mod chat;
mod friend;
mod group;
mod offline;
