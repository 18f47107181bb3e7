//! Where messages go. [`server`](crate::server) calls it, and so does the bus, through
//! [`Node`](crate::bus::Node).
//!
//! - [`router`] hands a message to a connection, or puts it into its recipient's lane.
//!   [`fan_out`] does so for the members of a group; a frame for a large one gets on piece by
//!   piece: [`spreading`].
//! - [`presence`] is the only table that loops share: user -> connections. [`attendance`] changes
//!   it as users come and go, and hands on what a connection did not deliver.
//! - [`routed`] is what became of a message then. What other nodes say comes through
//!   `from_nodes`. A `label` says whose message a connection returns.
//! - [`ways`] are the lanes out of this node.
//! - [`outbox`] offers messages from the lanes to other nodes, and holds them until they are
//!   confirmed.
//! - [`backlog`] stores the others: in the store, or in the spool while the store is unavailable.
//! - [`quotas`] limits how much is stored for one user, [`mailboxes`] lets one connection at a time
//!   fetch it.
//! - [`recorder`] commits messages of conversations and hands them to devices of level 2;
//!   [`audience`] says who uses it, [`level1_seen`] who of these uses level 1 as well, [`blocks`] who
//!   has blocked whom.
//! - [`watchers`] hear which users come and go.
//! - [`services`] says which parts each of them uses, and [`assembly`] puts them together.
//! - [`groups`] caches the members of groups, [`states`] writes `User.state`.

pub mod assembly;
pub mod attendance;
pub mod audience;
pub mod backlog;
pub mod blocks;
pub mod fan_out;
mod from_nodes;
pub mod groups;
mod label;
pub mod level1_seen;
pub mod mailboxes;
pub mod outbox;
pub mod presence;
pub mod quotas;
pub mod recorder;
pub mod routed;
pub mod router;
pub mod services;
pub mod spreading;
pub mod states;
pub mod watchers;
pub mod ways;
