//! The one port for clients, from outside: how the server tells HTTP from JSON, the files, and
//! WebSockets. The client is `tungstenite`.

mod autobahn;
mod files;
mod first_bytes;
mod limits;
mod people;
mod posts;
mod sockets;
