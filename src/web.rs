//! What the port says in HTTP: the web client's files, and the upgrade to a WebSocket. The reactor
//! finds the requests, and the shell sends the answers.
//!
//! - `request` reads a head.
//! - [`site`] decides about it: a file, an upgrade, or an error.
//! - `files` are the web client's, compiled in.
//! - `upgrade` checks the handshake of a WebSocket.
//! - [`answer`] composes answers.
//!
//! Nothing here executes anything: a page of another site can make a browser send any request, but
//! only a login inside of a WebSocket does something.

pub mod answer;
mod files;
mod request;
pub mod site;
mod upgrade;
