//! Where messages go. [`server`](crate::server) calls it, and so does the bus, through
//! [`Node`](crate::bus::Node).
//!
//! - [`router`] hands a message to a connection, or puts it into its recipient's lane.
//!   A frame for a large group gets on piece by piece: [`spreading`].
//! - [`presence`] is the only table that loops share: user -> connections.
//! - [`outbox`] offers messages from the lanes to other nodes, and holds them until they are
//!   confirmed.
//! - [`backlog`] stores the others: in the store, or in the spool while the store is unavailable.
//! - [`quotas`] limits how much is stored for one user, [`mailboxes`] lets one connection at a time
//!   fetch it.
//! - [`services`] is what they all work with, and [`assembly`] puts them together.
//! - [`groups`] caches the members of groups, [`states`] writes `User.state`.

pub mod assembly;
pub mod backlog;
pub mod groups;
pub mod mailboxes;
pub mod outbox;
pub mod presence;
pub mod quotas;
pub mod router;
pub mod services;
pub mod spreading;
pub mod states;
