//! The meaning of each request: decisions only, as methods of [`Session`](crate::session::Session).
//! They use no socket, thread, clock or pool.

mod account;
mod chat;
mod friend;
mod group;
mod level2;
mod offline;

pub use self::account::{NAME_MAX, PASSWORD_MAX};
pub use self::group::DESCRIPTION_MAX;
