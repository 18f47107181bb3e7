//! The messages and answers of other nodes, as the bus brings them to the [`Router`].

use net::Turn;

use super::label::{Returned, or_back};
use super::router::Router;
use crate::base::ids::FrameId;
use crate::bus::{Frames, Node, Place, Receipt};
use crate::delivery::{LaneItem, Posted};
use crate::protocol::{GroupId, UserId};
use crate::store::UserState;

impl Node for Router {
    fn on_envelope(
        &self,
        turn: &mut Turn<Posted>,
        to: UserId,
        frames: Frames<'_>,
        receipt: &dyn Fn() -> Receipt,
    ) -> bool {
        for (delivered, frame) in frames.enumerate() {
            if !self.deliver_here(turn, to, frame.as_bytes()) {
                let (bus, receipt) = (self.parts.bus.clone(), receipt());
                let refuse = Box::new(move || bus.refuse(receipt, delivered));
                // If this node shuts down and its lanes have ended, everything is stored already.
                if let Err(LaneItem::Answer(_, refuse)) = self.ways.submit_late(LaneItem::Answer(to, refuse)) {
                    refuse();
                }
                return false;
            }
        }
        true
    }

    fn on_returned(
        &self,
        turn: &mut Turn<Posted>,
        to: UserId,
        frames: Frames<'_>,
        receipt: &dyn Fn() -> Receipt,
    ) -> bool {
        let receipt = receipt();
        let mut shard = self.presence.write(to);
        let mut delivered = 0;
        if let Some(link) = shard.follows_elsewhere(to, &receipt.node).cloned() {
            let send = |frame: &&str| link.send(turn, frame.as_bytes(), or_back(to, FrameId::UNNAMED)).is_ok();
            delivered = frames.take_while(send).count();
            if delivered > 0 {
                shard.was_given(to, &receipt.node);
            }
        }
        drop(shard);
        let is_all = delivered == frames.count();
        if !is_all {
            // The refusal is sent at once: no order with messages being stored here is promised.
            self.parts.bus.refuse(receipt, delivered);
        }
        is_all
    }

    fn on_bare(&self, turn: &mut Turn<Posted>, to: UserId, frame: &str) {
        // For clients that read lines, a line is a frame.
        let frame = if frame.contains(['\n', '\r']) { frame.replace(['\n', '\r'], " ") } else { frame.to_owned() };
        let returned = Returned { id: FrameId::UNNAMED, frame: frame.into_bytes().into() };
        self.route_anyway(turn, to, vec![returned]);
    }

    fn on_confirmed(&self, place: Option<Place>, sequences: Vec<u64>) {
        self.ways.confirmed(place, sequences);
    }

    fn on_refused(&self, sequence: u64, delivered: usize) {
        self.ways.refused(sequence, delivered);
    }

    fn on_left(&self, user: UserId) {
        let shard = self.presence.read(user);
        match shard.has(user) {
            false => self.states.note(user, UserState::Offline),
            true => self.states.tell_at_once(user),
        }
    }

    fn on_elsewhere(&self, turn: &mut Turn<Posted>, user: UserId) {
        let mut shard = self.presence.write(user);
        shard.went_elsewhere(user);
        for link in shard.links(user) {
            if link.doubt(turn) {
                // Its loop takes the messages back.
                link.hang_up();
            }
        }
    }

    fn on_died(&self, users: &[UserId]) -> bool {
        let gone: Vec<UserId> = users.iter().copied().filter(|user| !self.presence.read(*user).has(*user)).collect();
        self.states.write_offline(&gone)
    }

    fn online_after(&self, user: UserId, limit: usize) -> Option<Vec<UserId>> {
        self.parts.states.get().ok()?.online_after(user, limit).ok()
    }

    fn on_group_changed(&self, group: GroupId) {
        self.parts.groups.changed(group);
    }

    fn on_rejoined(&self) -> Vec<UserId> {
        self.parts.groups.forget();
        let mut all = Vec::new();
        for shard in self.presence.shards() {
            for user in shard.users() {
                self.states.note(user, UserState::Online);
                all.push(user);
            }
            all.extend(shard.joining());
        }
        all
    }
}
