//! Routes messages. [`server`](crate::server) calls it, and so does the bus, through
//! [`Node`](crate::bus::Node).
//!
//! - [`router`] hands a message to a connection, or puts it into its recipient's lane.
//!   [`fan_out`] does so for the members of a group; a frame for a large one gets on piece by
//!   piece: [`spreading`].
//! - [`presence`] is the only table that loops share: user -> connections. [`attendance`] changes
//!   it as users come and go, and hands on what a connection has not delivered.
//! - [`routed`] is the fate of a message, as far as it is known then. Messages of other nodes come
//!   through `from_nodes`. A `label` names the user of a returned message.
//! - [`ways`] are the lanes out of this node.
//! - [`outbox`] offers messages from the lanes to other nodes, and holds them until they are
//!   confirmed.
//! - [`backlog`] stores the others: in the store, or in the spool while the store is unavailable.
//! - [`quotas`] limits how much is stored for one user, [`mailboxes`] lets one connection at a time
//!   fetch it.
//! - [`recorder`] commits messages of conversations and hands them to devices of level 2.
//!   [`audience`] are the users of level 2, [`level1_seen`] those of them who also use level 1, and
//!   [`blocks`] the blocked users.
//! - [`watchers`] are the connections that watch which users come and go.
//! - [`services`] groups the parts by their callers, and [`assembly`] puts them together.
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
mod traced;
pub mod watchers;
pub mod ways;
