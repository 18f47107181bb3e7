//! Hooks: messages that no device of a recipient has received are posted to a web server, so that
//! it can wake a phone or run a bot. `docs/hooks.md` has what the web server sees. The server
//! starts the thread; the status page and the commands (`operation`) read its settings and state.
//!
//! - `store::hooks` is the queue in the database. A message joins it in its own transaction.
//! - [`poster`] is the thread. It takes messages from the queue, posts them, and deletes them. Only
//!   this thread waits for the web server, and it holds no connection to the database meanwhile.
//! - `turns.rs` decides whose messages come next, `pace.rs` how many and when, and `resting.rs`
//!   how long senders of refused messages wait: all without I/O.
//! - `assembled.rs` puts rows, recipients and texts together, and `batch.rs` writes the body.
//! - `post.rs` is one request: it chooses the address, checks that it is allowed, and bounds time
//!   and size of the answer. `trust.rs` has the authorities of certificates.

mod assembled;
mod batch;
mod pace;
mod post;
pub mod poster;
mod resting;
pub mod trust;
mod turns;
