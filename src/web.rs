//! What the port says in HTTP: the web client's files, the upgrade to a WebSocket, and what a POST
//! of a message must look like. The reactor finds the requests, and the shell sends the answers.
//!
//! - `request` reads a head.
//! - [`site`] decides about it: a file, an upgrade, a message, or an error.
//! - `files` are the web client's, compiled in.
//! - `upgrade` checks the handshake of a WebSocket, [`post`] a message without a connection.
//! - [`answer`] composes answers.
//!
//! Nothing here executes anything: a page of another site can make a browser send any request, but
//! only a token in a header, or a login inside of a WebSocket, does something.

pub mod answer;
mod files;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub mod post;
mod request;
pub mod site;
mod upgrade;
