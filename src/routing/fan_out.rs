//! [`FanOut`]: hands a frame to the members of a group.

use std::sync::Arc;

use net::Turn;

use super::routed::{Parked, Routed};
use super::router::Router;
use super::ways::DELIVERY_BYTES;
use crate::delivery::spread::SoFar;
use crate::delivery::{Delivery, Fan, Origin, Posted, Provenance};
use crate::protocol::{GroupId, UserId};
use crate::session::Settled;

/// A frame for the members of a group except its sender.
#[derive(Debug)]
pub struct GroupFrame<'f> {
    /// The group.
    pub group: GroupId,
    /// All members, ascending.
    pub members: &'f [UserId],
    /// The sender.
    pub except: UserId,
    /// Its JSON text.
    pub text: &'f str,
}

/// The way of one sender's frame to the members of a group.
pub(super) struct FanOut<'a> {
    pub(super) router: &'a Router,
    pub(super) provenance: Provenance<'a>,
}

impl FanOut<'_> {
    /// Hands the frame to connections of this node, or to the lanes. Its text takes up room once,
    /// however many members are not on this node.
    pub(super) fn hand_out(&self, turn: &mut Turn<Posted>, frame: &GroupFrame<'_>, so_far: &mut SoFar) {
        let &GroupFrame { group, members, except, text } = frame;
        let FanOut { router, provenance } = *self;
        let Provenance { id, holder, .. } = provenance;
        // Most groups are online, so data for the lanes is made only when the first member is not.
        let SoFar { shared, delivered, refused } = so_far;
        let mut held = None;
        for &to in members.iter().filter(|to| **to != except) {
            let parked = router.route(turn, (to, id), text.as_bytes(), || {
                let (fan, text) = shared
                    .get_or_insert_with(|| {
                        let berth = router.parts.berths.take(holder, text.len())?;
                        Some((Fan::new(&provenance, group, text.len(), berth), Arc::<str>::from(text)))
                    })
                    .as_ref()?;
                held.get_or_insert_with(|| router.ways.hold());
                let share = fan.add(DELIVERY_BYTES)?;
                Some(Delivery { id, to, text: text.clone(), origin: Origin::Group(share), was_refused: false })
            });
            match parked {
                Parked::No => *delivered += 1,
                // Dropped, it has failed.
                Parked::Refused(_) => router.parts.metrics.failed(1),
                Parked::NoRoom => *refused += 1,
                Parked::Yes => {}
            }
            turn.relieve();
        }
    }

    /// Concludes the frame after its last member.
    pub(super) fn conclude(&self, so_far: SoFar) -> Routed {
        let SoFar { shared, delivered, refused } = so_far;
        self.router.parts.metrics.delivered_locally(delivered);
        if refused > 0 {
            self.router.no_room(refused, self.provenance.holder);
        }
        match shared.flatten().map(|(fan, _)| fan.all_under_way(refused > 0, delivered > 0)) {
            None if refused > 0 => Routed::FAILED,
            None => Routed::DONE,
            Some(Some(Settled { failures, .. })) => match failures.first() {
                None => Routed::DONE,
                Some(failure) => Routed::Settled { failed: true, full: failure.is_full },
            },
            Some(None) => Routed::OnItsWay,
        }
    }
}
