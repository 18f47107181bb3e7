//! [`Spread`]: a frame on its way to the many members of a group, some of them at a time.
//!
//! To hand a frame to thousands of members takes a loop many times as long as any other frame. So a loop hands it to some of
//! them, serves the others who wait, and goes on in its next turn. The sender's later frames wait meanwhile: they must not
//! overtake it. Once begun it is brought to its end, also when its sender's connection is gone.

use std::sync::Arc;

use crate::admission::Holder;
use crate::delivery::{ClientLink, Fan};
use crate::protocol::{GroupId, UserId};

/// See the [module](self).
#[derive(Debug)]
pub struct Spread {
    /// The group.
    pub group: GroupId,
    /// All of its members, ascending.
    pub members: Arc<[UserId]>,
    /// The sender, who does not get it.
    pub except: UserId,
    /// The frame's JSON text.
    pub text: Arc<str>,
    /// Its sender, whose share it takes up.
    pub sender: Arc<ClientLink>,
    /// The owner of that share.
    pub holder: Holder,
    /// How many members were looked at.
    pub(crate) done: usize,
    pub(crate) so_far: SoFar,
}

/// What has become of a frame for many so far.
#[derive(Debug, Default)]
pub(crate) struct SoFar {
    /// Once a member is not on this node: what the lanes share, unless there is no room for it.
    pub(crate) shared: Option<Option<(Arc<Fan>, Arc<str>)>>,
    /// How many members have it on this node.
    pub(crate) delivered: usize,
    /// For how many there was no room in the lanes.
    pub(crate) refused: usize,
}

impl Spread {
    /// Nothing of it is done.
    pub fn new(
        (group, members): (GroupId, Arc<[UserId]>),
        except: UserId,
        text: &str,
        sender: Arc<ClientLink>,
        holder: Holder,
    ) -> Spread {
        Spread { group, members, except, text: text.into(), sender, holder, done: 0, so_far: SoFar::default() }
    }
}
