//! A client of level 2: everything that a program needs to take part in conversations, even on a
//! bad network.
//!
//! - A message that the application has sent is in the *outbox*, a table of the data file, and
//!   reaches the server exactly once, even if the network, the server or this program fails
//!   meanwhile.
//! - A message that arrives is stored together with its cursor in one transaction, so each message
//!   is stored once, in order. After a pause the server sends exactly the missing messages.
//! - The client reconnects by itself with a backoff of 1 second, then 2, up to 60.
//!
//! ```
//! use std::time::Duration;
//! use raybox_client::{Client, Conv, Options};
//!
//! # fn main() -> raybox_client::Result<()> {
//! // Nothing listens here, so the message waits.
//! let client = Client::open(Options::new("127.0.0.1:1").password("ann", "secret-a"))?;
//! let ticket = client.send(Conv::User(2), "hello bob")?;
//! assert_eq!(client.pending_count()?, 1);
//! assert!(ticket.wait(Duration::from_millis(1)).is_err(), "not committed yet");
//! # Ok(())
//! # }
//! ```
//!
//! With a server and a data file, a program that answers everybody:
//!
//! ```no_run
//! use std::time::Duration;
//! use raybox_client::{Client, Content, Event, Options, register};
//!
//! # fn main() -> raybox_client::Result<()> {
//! let server = "127.0.0.1:6000";
//! register(server, "echo", "a long password")?;
//! let client = Client::open(Options::new(server).file("echo.db").password("echo", "a long password"))?;
//! client.wait_online(Duration::from_secs(10))?;
//! let (me, _) = client.user()?.expect("logged in");
//! loop {
//!     let Some(Event::Message { conv, seq }) = client.events().next_within(Duration::from_secs(60)) else { continue };
//!     for message in client.after(conv, seq - 1, 1)? {
//!         if let (Content::Text(text), true) = (message.content(), message.from != me) {
//!             client.send(conv, &format!("you said: {text}"))?;
//!             client.mark_read(conv, seq)?;
//!         }
//!     }
//! }
//! # }
//! ```
//!
//! # Memory
//!
//! Messages are in the file, never all in memory. The queue of [`Events`] holds 1,024; an
//! application that does not take them finds one [`Event::Missed`] instead of the rest, and reads
//! the store again. One read of the socket is at most 256 KiB and one transaction; unread bytes
//! wait in the kernel. At most 16 frames of the outbox are read at a time, when there is room to
//! write them.
//!
//! # Structure
//!
//! `machine` is the protocol without sockets, files and clocks; `store` is the SQLite file;
//! `worker` is the thread that joins them. [`Client`] reads the store itself, so a list of messages
//! needs no request to the thread.

mod body;
mod change;
mod cid;
mod client;
mod conv;
mod dial;
mod error;
mod event;
mod frame;
mod machine;
mod requests;
mod server;
mod store;
mod ticket;
mod tls;
mod transport;
mod view;
mod wire;
mod worker;

pub use client::{Client, Options};
pub use conv::{Conv, NotAConv};
pub use error::{Error, Result};
pub use event::{End, Event, Events, State};
pub use requests::{Device, Found, Friendship, Member, Named, Proof, register};
pub use ticket::Ticket;
pub use view::{Content, Conversation, History, Message, Pending};
