//! Where messages go. [`server`](crate::server) calls it, and so does the bus, through [`Node`](crate::bus::Node).
//!
//! - [`router`] hands a message to a connection, or puts it into its recipient's lane.
//! - [`presence`] is the only table that loops share: user -> connections.
//! - [`outbox`] offers what is in the lanes to other nodes, and keeps it until one of them confirms it.
//! - [`backlog`] stores what none of them takes: in the store, or in the spool while that is unavailable.
//! - [`quotas`] bounds what waits for one user, [`mailboxes`] lets one connection at a time fetch it.
//! - [`services`] is what they all work with, and [`assembly`] puts them together.
//! - [`groups`] remembers who is in which group, [`states`] writes `User.state`.

pub mod assembly;
pub mod backlog;
pub mod groups;
pub mod mailboxes;
pub mod outbox;
pub mod presence;
pub mod quotas;
pub mod router;
pub mod services;
pub mod states;
