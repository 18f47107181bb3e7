//! Level 2 of the protocol from the client's side.
//!
//! - [`Frame`] is a frame of the server. Reading one checks its form: members, key order, length.
//! - [`Store`] is the client's database: each message once, with a cursor and a tag for each
//!   conversation. It outlives connections.
//! - [`Session`] is one connection. It checks every frame against what must come next, and keeps
//!   the messages in the store. Neither reads a socket or a clock.
//! - [`Level2Client`] has a socket and feeds a session from it.

mod client;
mod frame;
mod losses;
mod messages;
mod replies;
mod sends;
mod session;
mod shape;
mod store;
mod sync;

pub use client::{Level2Client, LoginAs, Refused};
pub use frame::{Ack, Body, Frame, Message, Overview, OverviewLine, Page, Push, Rid, Run};
pub use losses::Losses;
pub use messages::{Log, assert_agree};
pub use session::Session;
pub use store::{Allowed, Outgoing, Store};

/// A mistake of a server, in words for a failed test.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mistake(pub String);

/// The result of looking at a frame.
pub type Checked<T> = Result<T, Mistake>;

/// The length that no frame of a server reaches, in bytes.
pub const SERVER_FRAME_END: usize = 512 * 1024;

/// The most conversations in a 43, and messages in a page.
pub const PAGE_MAX: u64 = 200;

/// The most text in a page, and of `last` in a 43, in bytes.
pub const TEXT_MAX: usize = 256 * 1024;

/// Returns the mistake unless the condition holds.
fn ensure(holds: bool, mistake: impl FnOnce() -> String) -> Checked<()> {
    if holds { Ok(()) } else { Err(Mistake(mistake())) }
}
