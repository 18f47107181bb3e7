//! The one port, from outside: what tells HTTP from JSON, the files, and WebSockets, with
//! `tungstenite` as the other end.

mod autobahn;
mod files;
mod first_bytes;
mod limits;
mod people;
mod posts;
mod sockets;
