//! [`Spread`]: a frame that is delivered to the members of a large group in pieces.
//!
//! Delivering a frame to thousands of members takes a loop far longer than any other frame. So a
//! loop delivers it to some of them, serves other connections, and continues in its next turn. The
//! sender's later frames wait meanwhile: they must not overtake it. Once begun, the frame is
//! delivered completely, even if its sender's connection has closed.

use std::sync::Arc;

use crate::admission::Holder;
use crate::base::ids::FrameId;
use crate::delivery::{ClientLink, Fan, Provenance};
use crate::protocol::{GroupId, UserId};

/// See the [module](self).
#[derive(Debug)]
pub struct Spread {
    /// The frame.
    pub id: FrameId,
    /// The group.
    pub group: GroupId,
    /// All of its members, ascending.
    pub members: Arc<[UserId]>,
    /// The sender, who does not get the frame.
    pub except: UserId,
    /// The frame's JSON text.
    pub text: Arc<str>,
    /// The sender's connection, whose share it uses.
    pub sender: Arc<ClientLink>,
    /// The owner of that share.
    pub holder: Holder,
    /// The number of members that are done.
    pub(crate) done: usize,
    pub(crate) so_far: SoFar,
}

/// The progress of a frame for many members.
#[derive(Debug, Default)]
pub(crate) struct SoFar {
    /// Set when the first member is not on this node: the data that the lanes share, or `None` in
    /// it if there is no room.
    pub(crate) shared: Option<Option<(Arc<Fan>, Arc<str>)>>,
    /// The number of members who got it on this node.
    pub(crate) delivered: usize,
    /// The number of members for whom there was no room in the lanes.
    pub(crate) refused: usize,
}

impl Spread {
    /// A spread that has not begun.
    pub fn new(
        (group, members): (GroupId, Arc<[UserId]>),
        except: UserId,
        text: &str,
        &Provenance { sender, id, holder }: &Provenance<'_>,
    ) -> Spread {
        let sender = sender.clone();
        Spread { id, group, members, except, text: text.into(), sender, holder, done: 0, so_far: SoFar::default() }
    }
}
