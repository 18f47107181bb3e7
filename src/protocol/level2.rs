//! Level 2 of the protocol: requests and frames of clients that opted in. Level 1 does not depend
//! on it.
//!
//! - [`Frame`] is a client's frame; `login` is its login, `members` reads them.
//! - `object` composes JSON with its keys in byte order.
//! - [`frames`] are the frames of a conversation: messages, acknowledgements, runs and pages.
//! - [`replies`] are all others.

pub mod frames;
mod login;
mod members;
mod object;
pub mod replies;
mod request;
mod rid;

pub use self::login::{Have, HaveItem, Login, Proof, Who};
pub use self::request::{
    Account, AccountProof, ForLevel1, Frame, Level2Request, MemberAction, MessageChange, PageAsk, Send, finds_by_name,
    for_level1,
};
pub use self::rid::Rid;

/// The level that this server speaks.
pub const LEVEL: u8 = 2;
/// The longest frame of a client, in bytes (`limits.frame`).
pub const FRAME_MAX: usize = 64 * 1024;
/// The most messages in a page, and the most conversations in a 43 (`limits.page`).
pub const PAGE_MAX: usize = 200;
/// The most text in a page, and the most of `last` in a 43, in bytes. At least one message always
/// fits.
pub const PAGE_BYTES_MAX: usize = 256 * 1024;
/// The longest message that is recorded, in bytes. Those of level 2 are shorter anyway
/// ([`FRAME_MAX`]); at level 1 `max_frame` may allow longer ones.
pub const RECORDED_MAX: usize = PAGE_BYTES_MAX;
/// Frames of the server are shorter than this: a page of [`PAGE_BYTES_MAX`] and [`PAGE_MAX`] times
/// what the server adds to a message or a conversation, which is below 1 KiB.
pub const SERVER_FRAME_END: usize = 512 * 1024;

#[cfg(test)]
mod tests;
