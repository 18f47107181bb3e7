//! A clustered instant-messaging server: JSON objects over long-lived TCP connections. `main.rs`
//! puts it together.
//!
//! # Where things are
//! ```text
//!   main ─▶ server ─▶ session ─▶ protocol                     what clients say and hear
//!              │  └─▶ routing ─▶ delivery, bus                where messages go
//!              └────▶ jobs ─▶ store, password, groups         what is asked of the database
//! ```
//! From the top down:
//! - [`server`] is the shell: it implements the reactor's [`Handler`](net::Handler), feeds the
//!   sessions and carries out their effects. It is the only module that sees threads, sockets and
//!   jobs together. [`server::jobs`] is the work of its threads.
//! - [`operation`] is for the operator: [`operation::admin`] is the HTTP port for the metrics and
//!   the health of all parts ([`operation::health`]), [`operation::logging`] has one writer thread,
//!   [`operation::signals`] stop the server, or make it read settings again.
//!   [`operation::commands`] are the commands other than serving, and [`operation::resources`] are
//!   the limits of the system: descriptors, address space, threads.
//! - [`routing`] decides where messages go. [`routing::router`] hands a message to a connection, or
//!   to its recipient's lane, whose batches are offered to the other nodes ([`routing::outbox`])
//!   and stored ([`routing::backlog`]). [`routing::presence`] is the only table that loops share:
//!   user -> connections.
//! - [`bus`] is the path to other nodes. `bus::peer` is the protocol between nodes, without I/O;
//!   [`bus::redis`] is its transport, replaced by simulated wires in tests.
//! - [`delivery`] is one message on its way, and the progress of one for a large group.
//! - [`session`] is one client's state machine without I/O; its `handlers` implement each request.
//! - [`devices`] are the connections of level 2: one user on one device.
//! - [`history`] decides, without I/O, which messages a connection of level 2 is shown:
//!   [`history::pump`] knows what was written and what is to be read.
//! - [`hooks`] posts messages that no device has received to a web server.
//! - [`store`] speaks SQL. Messages wait in [`store::spool`] while the database is unavailable.
//! - [`admission`] has the limits on clients: on connections, on rates, and on the room of each.
//! - [`metrics`] are the counters of all of these.
//! - [`web`] is HTTP on the client port.
//! - [`protocol`] reads and writes the JSON of clients; `net` and the bus over Redis poll with mio.
//! - [`config`] is read once.
//! - [`base`] may be used by all of them.
//!
//! # One message, end to end
//! 1. The sender's loop reads its socket, and `net`'s codec finds the frame in the loop's own
//!    buffer.
//! 2. `Shell::on_incoming` gives it to the session, which parses it once into a
//!    [`Request`](protocol::Request) that borrows those bytes, decides, and answers with effects:
//!    deliver this to that user.
//! 3. The router looks the recipient up. If the recipient is online here, the bytes go into the
//!    output of that connection, whichever loop owns it, and this loop writes them at the end of
//!    its turn. No other thread is woken.
//! 4. On another node: the message goes into the lane to the bus, and stays in its
//!    [`outbox`](routing::outbox) until that node confirms it. Offline: it goes on to the
//!    recipient's lane, whose thread stores everything that waits as one batch. The outcome is
//!    posted to the sender's session.
//! 5. The connection holds the message until the client's kernel has acknowledged it. A connection
//!    that ends before that returns the message, which takes step 3 or 4 again.
//!
//! # Threads and locks
//! `docs/architecture.md` lists the threads, what each does and what it may wait for.
//!
//! Most locks are leaves (lock, copy or push, unlock). A shard of [`presence`](routing::presence)
//! is held while a message is handed to a connection's output or a lane. The section about locks in
//! `docs/architecture.md` lists the other locks that are held for longer.

pub mod admission;
pub mod base;
pub mod bus;
pub mod config;
pub mod delivery;
pub mod devices;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod history;
pub mod hooks;
pub mod metrics;
pub mod operation;
pub mod protocol;
pub mod routing;
pub mod server;
pub mod session;
pub mod store;
pub mod web;
