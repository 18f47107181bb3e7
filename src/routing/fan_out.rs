//! Hands a frame to the members of a group: at once, or in pieces if they are many.

use std::sync::Arc;

use net::Turn;

use super::routed::{Parked, Routed};
use super::router::Router;
use super::traced;
use super::ways::DELIVERY_BYTES;
use crate::base::ending::Undelivered;
use crate::delivery::{Delivery, DeliveryOrigin, Fan, Posted, Provenance, SoFar, Spread};
use crate::protocol::{GroupId, UserId};
use crate::session::{MEMBER_WORK, members_at_once};

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

/// Hands a frame to all members.
pub fn deliver_all(
    router: &Router,
    turn: &mut Turn<Posted>,
    frame: &GroupFrame<'_>,
    provenance: Provenance<'_>,
) -> Routed {
    let (fan_out, mut so_far) = (FanOut { router, provenance }, SoFar::default());
    fan_out.hand_out(turn, frame, &mut so_far);
    fan_out.conclude(so_far)
}

/// Like [`deliver_all`], for a very large group: each call serves some of the members. Returns the
/// frame's fate after the last ones.
pub fn spread(router: &Router, turn: &mut Turn<Posted>, spread: &mut Spread) -> Option<Routed> {
    let Spread { id, group, except, holder, done, .. } = *spread;
    let end = spread.members.len().min(done + members_at_once(spread.text.len()));
    let frame = GroupFrame { group, members: &spread.members[done..end], except, text: &spread.text };
    let provenance = Provenance { sender: &spread.sender, id, holder };
    let fan_out = FanOut { router, provenance };
    fan_out.hand_out(turn, &frame, &mut spread.so_far);
    turn.spend((end - done) * MEMBER_WORK);
    spread.done = end;
    (end == spread.members.len()).then(|| fan_out.conclude(std::mem::take(&mut spread.so_far)))
}

/// The delivery of one sender's frame to the members of a group.
struct FanOut<'a> {
    router: &'a Router,
    provenance: Provenance<'a>,
}

impl FanOut<'_> {
    /// Hands the frame to connections of this node, or to the lanes. Its text takes up room only
    /// once, however many members are not on this node.
    fn hand_out(&self, turn: &mut Turn<Posted>, frame: &GroupFrame<'_>, so_far: &mut SoFar) {
        let &GroupFrame { group, members, except, text } = frame;
        let FanOut { router, provenance } = *self;
        let Provenance { id, holder, .. } = provenance;
        // Most members are usually online, so data for the lanes is made only for the first member
        // who is not.
        let SoFar { shared, delivered, refused } = so_far;
        let (mut held, is_traced) = (None, router.parts.tracer.is_on());
        for &to in members.iter().filter(|to| **to != except) {
            let parked = router.route(turn, (to, id), text.as_bytes(), || {
                let (fan, text) = shared
                    .get_or_insert_with(|| {
                        let berth = router.parts.berths.take(holder, text.len())?;
                        Some((Fan::new(&provenance, group, text.len(), berth), Arc::<str>::from(text)))
                    })
                    .as_ref()?;
                held.get_or_insert_with(|| router.attendance.ways.hold());
                let share = fan.add(DELIVERY_BYTES)?;
                Some(Delivery::new(to, text.clone(), DeliveryOrigin::Group(share)))
            });
            if is_traced {
                traced::frame(&router.parts.tracer, to, text.len(), provenance, traced::hop_of(&parked));
            }
            match parked {
                Parked::No => *delivered += 1,
                // The refused delivery is dropped, which reports a failure.
                Parked::Refused(_) => router.parts.metrics.failed(1),
                Parked::NoRoom => *refused += 1,
                Parked::Yes => {}
            }
            turn.relieve();
        }
    }

    /// Concludes the frame after its last member.
    fn conclude(&self, so_far: SoFar) -> Routed {
        let SoFar { shared, delivered, refused } = so_far;
        self.router.parts.metrics.delivered_locally(delivered);
        if refused > 0 {
            self.router.no_room(refused, self.provenance.holder);
        }
        let here = [(delivered > 0).then_some(Ok(())), (refused > 0).then_some(Err(Undelivered::Unstored))];
        match shared.flatten().map(|(fan, _)| fan.all_under_way(here.into_iter().flatten())) {
            None if refused > 0 => Routed::FAILED,
            None => Routed::DONE,
            Some(Some(ending)) => Routed::Settled(ending),
            Some(None) => Routed::OnItsWay,
        }
    }
}
