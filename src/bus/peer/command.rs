//! [`PeerCommand`]: a peer's command to its driver, and [`Consignment`]: the messages that it hands
//! over.

use super::envelope::Frames;
use super::topic::Topic;
use super::transport::PeerNews;
use crate::bus::Receipt;
use crate::bus::news::DeviceNews;
use crate::protocol::{GroupId, UserId};

/// Commands, to be executed in this order.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum PeerCommand<W> {
    /// To the transport: subscribe to these topics.
    Listen(Vec<Topic<Box<str>>>),
    /// To the transport: unsubscribe these users.
    Ignore(Vec<UserId>),
    /// To the transport: unsubscribe everything, and report when no more messages arrive.
    IgnoreAll,
    /// To the transport: publish this.
    Say(Topic<Box<str>>, Vec<u8>),
    /// To the transport and its node.
    News(PeerNews),
    /// To the node: no more messages arrive for the user.
    Left(UserId),
    /// To the node: the user has logged in at another place.
    Elsewhere(UserId),
    /// To the node: this number of messages of the envelope were delivered, and the rest was not.
    Refused(u64, usize),
    /// To the node: the members of a group have changed.
    GroupChanged(GroupId),
    /// To the node: news for connections of level 2.
    Devices(DeviceNews),
    /// These waiters need not wait any longer.
    Placed(Vec<W>),
}

/// Messages that have arrived for a user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Consignment<'b> {
    /// Their recipient.
    pub(crate) to: UserId,
    pub(crate) frames: Frames<'b>,
    /// Whether a dead connection of another node has returned them, see
    /// [`Node::on_returned`](crate::bus::Node::on_returned).
    pub(crate) is_returned: bool,
}

/// Takes messages for a user; false if not all are written to the user's connection.
pub(crate) type Deliver<'d> = dyn FnMut(Consignment<'_>, &dyn Fn() -> Receipt) -> bool + 'd;
