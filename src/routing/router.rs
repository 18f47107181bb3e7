//! [`Router`]: finds a recipient and sends a message there.

use std::sync::Arc;
use std::time::Instant;

use net::{Fate, Link, Turn};
use pool::{Lanes, Standing};
use smallvec::SmallVec;

use crate::admission::Holder;
use crate::bus::{Node, Place, Receipt};
use crate::delivery::spread::{SoFar, Spread};
use crate::delivery::{ClientLink, Delivery, Fan, LaneItem, Origin, Owed, Posted, Work};
use crate::metrics::{Hit, Metrics};
use crate::protocol::{GroupId, UserId};
use crate::routing::outbox::OutItem;
use crate::routing::presence::{Added, Presence, Removed, Shard};
use crate::routing::services::Services;
use crate::routing::states::StateWriter;
use crate::session::{MEMBER_WORK, Settled, members_at_once};
use crate::store::UserState;
use crate::store::spool::lane_key;

/// Knows which users are online, and forwards messages: to a connection of this node, or into the
/// recipient's lane.
pub struct Router {
    services: Arc<Services>,
    presence: Arc<Presence<Posted>>,
    /// The lanes to other nodes, if there can be any. Messages that no node takes go on to
    /// `keepers`.
    outbox: Option<Arc<Lanes<OutItem>>>,
    /// The lanes to the store.
    keepers: Arc<Lanes<LaneItem>>,
    states: StateWriter,
}

/// The fate of a forwarded frame, as far as it is known immediately.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Routed {
    /// Settled.
    Settled {
        /// It could neither be delivered nor stored for some recipient.
        failed: bool,
        /// It has failed because a recipient's mailbox is full.
        full: bool,
    },
    /// On its way; the sender's session will be notified.
    OnItsWay,
}

impl Routed {
    const DONE: Routed = Routed::Settled { failed: false, full: false };
    const FAILED: Routed = Routed::Settled { failed: true, full: false };

    /// What the sender's session hears of its frame of so many bytes, if it is settled.
    pub fn settled(self, bytes: usize) -> Option<Settled> {
        let Routed::Settled { failed, full } = self else { return None };
        Some(Settled { frames: 1, bytes, failed: failed.into(), full: full.into() })
    }
}

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

impl Router {
    /// A router for a node without users yet.
    pub fn new(
        services: Arc<Services>,
        outbox: Option<Arc<Lanes<OutItem>>>,
        keepers: Arc<Lanes<LaneItem>>,
        states: StateWriter,
    ) -> Router {
        Router { services, presence: Arc::default(), outbox, keepers, states }
    }

    /// Forwards a frame to one user. Its room in the lanes counts for the holder's share.
    pub fn deliver(
        &self,
        turn: &mut Turn<Posted>,
        to: UserId,
        text: &str,
        sender: &Arc<ClientLink>,
        holder: Holder,
    ) -> Routed {
        if to.0 <= 0 {
            self.services.metrics.unknown_recipients(1);
            return Routed::DONE;
        }
        let parked = self.route(turn, to, text.as_bytes(), || {
            let berth = self.services.berths.take(holder, text.len() + DELIVERY_BYTES)?;
            let origin = Origin::Sender(Owed::to(sender, text.len()), berth);
            Some(Delivery { to, text: text.into(), origin, was_refused: false })
        });
        match parked {
            Parked::No => {
                self.services.metrics.delivered_locally(1);
                Routed::DONE
            }
            Parked::Yes => Routed::OnItsWay,
            Parked::Refused(delivery) => {
                self.services.metrics.failed(1);
                // The caller tells the sender.
                if let Origin::Sender(owed, _) = delivery.origin {
                    owed.settle();
                }
                Routed::FAILED
            }
            Parked::NoRoom => {
                self.no_room(1, holder);
                Routed::FAILED
            }
        }
    }

    /// Forwards a frame to a group. Its text takes up room once, however many members are not on
    /// this node.
    pub fn deliver_all(
        &self,
        turn: &mut Turn<Posted>,
        frame: &GroupFrame<'_>,
        sender: &Arc<ClientLink>,
        holder: Holder,
    ) -> Routed {
        let mut so_far = SoFar::default();
        self.hand_out(turn, frame, sender, holder, &mut so_far);
        self.conclude(so_far, holder)
    }

    /// Like [`Router::deliver_all`], for a very large group: some of the members at each call.
    /// Returns the frame's fate after the last ones.
    pub fn spread(&self, turn: &mut Turn<Posted>, spread: &mut Spread) -> Option<Routed> {
        let Spread { group, except, holder, done, .. } = *spread;
        let end = spread.members.len().min(done + members_at_once(spread.text.len()));
        let frame = GroupFrame { group, members: &spread.members[done..end], except, text: &spread.text };
        self.hand_out(turn, &frame, &spread.sender, holder, &mut spread.so_far);
        turn.spend((end - done) * MEMBER_WORK);
        spread.done = end;
        (end == spread.members.len()).then(|| self.conclude(std::mem::take(&mut spread.so_far), holder))
    }

    /// Hands a frame to connections of this node, or to the lanes.
    fn hand_out(
        &self,
        turn: &mut Turn<Posted>,
        frame: &GroupFrame<'_>,
        sender: &Arc<ClientLink>,
        holder: Holder,
        so_far: &mut SoFar,
    ) {
        let &GroupFrame { group, members, except, text } = frame;
        // Most groups are online, so data for the lanes is made only when the first member is not.
        let SoFar { shared, delivered, refused } = so_far;
        let mut held = None;
        for &to in members.iter().filter(|to| **to != except) {
            let parked = self.route(turn, to, text.as_bytes(), || {
                let (fan, text) = shared
                    .get_or_insert_with(|| {
                        let berth = self.services.berths.take(holder, text.len())?;
                        Some((Fan::new(sender.clone(), group, text.len(), berth), Arc::<str>::from(text)))
                    })
                    .as_ref()?;
                // Holding the lanes lets the messages for each other node share one publication.
                held.get_or_insert_with(|| self.outbox.as_deref().map(Lanes::hold));
                let share = fan.add(DELIVERY_BYTES)?;
                Some(Delivery { to, text: text.clone(), origin: Origin::Group(share), was_refused: false })
            });
            match parked {
                Parked::No => *delivered += 1,
                // Dropped, it has failed.
                Parked::Refused(_) => self.services.metrics.failed(1),
                Parked::NoRoom => *refused += 1,
                Parked::Yes => {}
            }
            turn.relieve();
        }
    }

    /// Concludes a frame after its last member.
    fn conclude(&self, so_far: SoFar, holder: Holder) -> Routed {
        let SoFar { shared, delivered, refused } = so_far;
        self.services.metrics.delivered_locally(delivered);
        if refused > 0 {
            self.no_room(refused, holder);
        }
        match shared.flatten().map(|(fan, _)| fan.all_under_way(refused > 0, delivered > 0)) {
            None if refused > 0 => Routed::FAILED,
            None => Routed::DONE,
            Some(Some(Settled { failed, full, .. })) => Routed::Settled { failed: failed > 0, full: full > 0 },
            Some(None) => Routed::OnItsWay,
        }
    }

    /// Counts a frame that is refused for this number of recipients, because the holder has its
    /// share of the lanes.
    fn no_room(&self, recipients: usize, holder: Holder) {
        let metrics = &self.services.metrics;
        metrics.failed(recipients);
        metrics.refused(Hit::LaneMax);
        log::debug!("{} has used up its share of the lanes: a message is refused", holder.payer);
    }

    /// Whether messages of other nodes for `user` already arrive here, or never need to.
    pub fn is_here(&self, user: UserId) -> bool {
        self.outbox.is_none() || self.is_connected(user)
    }

    /// Whether `user` is on a connection of this node.
    pub fn is_connected(&self, user: UserId) -> bool {
        self.presence.read(user).newest(user).is_some()
    }

    /// Removes `user` from all connections of this node, and returns these. `waiter` is posted the
    /// outcome when `User.state` is correct.
    pub fn log_out(
        &self,
        turn: &mut Turn<Posted>,
        user: UserId,
        waiter: Option<&Arc<ClientLink>>,
    ) -> Vec<Arc<ClientLink>> {
        if let Some(waiter) = waiter {
            self.states.tell(user, UserState::Offline, waiter);
        }
        let (mut left, mut removed) = (Vec::new(), Removed::Nothing);
        while let Some(link) = self.newest(user) {
            removed = self.leave(turn, user, &link);
            left.push(link);
        }
        if removed != Removed::Last {
            self.states.tell_at_once(user);
        }
        left
    }

    /// Whether `user` is on any connection of this node, or will be soon.
    pub fn has(&self, user: UserId) -> bool {
        self.presence.read(user).has(user)
    }

    /// Whether messages for `user` may come to `link`. A connection that others have logged out is
    /// on no list any more, unless its client has logged in again.
    pub fn is_on(&self, user: UserId, link: &ClientLink) -> bool {
        self.presence.read(user).is_on(user, link)
    }

    fn newest(&self, user: UserId) -> Option<Arc<ClientLink>> {
        self.presence.read(user).newest(user).cloned()
    }

    /// Makes the other nodes send messages for `user` here; `link` is posted the outcome, and must
    /// then be attached.
    pub fn join(&self, user: UserId, link: &Arc<ClientLink>) {
        // The bus gets logins and logouts in their order, because the shard is held.
        let mut shard = self.presence.write(user);
        shard.join(user, link);
        self.services.bus.subscribe(user, Some(link));
    }

    /// Registers the lanes and the number of users with the metrics.
    pub fn watched_by(&self, metrics: &Metrics) {
        let presence = self.presence.clone();
        metrics.watch_users(move || presence.users());
        metrics.watch_lanes("lane", self.keepers.watch());
        if let Some(outbox) = &self.outbox {
            metrics.watch_lanes("lane-out", outbox.watch());
        }
    }

    /// Makes `link` the connection that receives for `user`. If the previous one acknowledges
    /// nothing, now or within the next seconds, it is given up: most likely the same client has
    /// lost that connection and come back, and should not wait for its messages until the system
    /// notices.
    pub fn attach(&self, turn: &mut Turn<Posted>, user: UserId, link: &Arc<ClientLink>) {
        let mut shard = self.presence.write(user);
        let before = shard.newest(user).filter(|before| *before != link).cloned();
        // The messages of the newest connection so far are newer than those received by a
        // connection that was older until now.
        let may_follow =
            before.as_ref().is_some_and(|before| shard.holds_newest(user, before)) && shard.is_on(user, link);
        let added = shard.add(user, link);
        if added == Added::First && self.outbox.is_some() {
            self.services.bus.subscribe(user, None);
        }
        if added != Added::Another {
            self.states.note(user, UserState::Online);
        }
        if added != Added::Another {
            return;
        }
        // The oldest first, so that all of them may hand on their messages.
        let others: SmallVec<[Arc<ClientLink>; 2]> =
            shard.links(user).filter(|other| *other != link).cloned().collect();
        for other in others {
            if other.doubt(turn) {
                log::debug!("a connection of user {user} acknowledges nothing and is given up for a new one");
                other.hang_up();
                let follows = may_follow && before.as_ref() == Some(&other);
                self.take_from(turn, &mut shard, user, &other, follows);
            }
        }
    }

    /// Sets `User.state` of `user` to online; `link` is posted the outcome.
    pub fn show(&self, user: UserId, link: &Arc<ClientLink>) {
        self.states.note_and_tell(user, UserState::Online, link);
    }

    /// Stops `link` from receiving for `user`; it is posted the outcome when `User.state` is
    /// correct.
    pub fn detach_and_show(&self, turn: &mut Turn<Posted>, user: UserId, link: &Arc<ClientLink>) {
        // From now on the logout may be noted and written at any moment.
        self.states.tell(user, UserState::Offline, link);
        if self.leave(turn, user, link) != Removed::Last {
            self.states.tell_at_once(user);
        }
    }

    /// Stops `link` from receiving for `user`. Messages that it was sent and did not take go to
    /// where the user is now.
    pub fn detach(&self, turn: &mut Turn<Posted>, user: UserId, link: &Arc<ClientLink>) {
        self.leave(turn, user, link);
    }

    /// Stores a message that a connection which has ended did not deliver; `label` is the one it
    /// was sent under. It is stored, because the user's current connection may have received newer
    /// ones.
    pub fn give_back(&self, label: u32, frame: Box<[u8]>) {
        let to = UserId((label & !EARLIER).cast_signed());
        self.services.metrics.returned(1);
        let _shard = self.presence.write(to);
        self.keep(to, vec![frame], KEPT_LATE);
    }

    /// Submits work on a user's stored messages, to be done after everything on its way to them.
    /// The caller must limit the amount of such work.
    pub fn submit(&self, user: UserId, work: Work) {
        self.queue_anyway(user, LaneItem::Work(user, work), WORK_BYTES);
    }

    /// Finishes the messages on their way to other nodes and to the store, until `by` at most.
    /// Returns how many are left.
    pub fn close(&self, by: Instant) -> usize {
        let bus = &self.services.bus;
        // The bus stays until the last envelope is confirmed, so that no message that has arrived
        // is stored. Messages that the bus delivers until it hushes are stored or answered, so it
        // may be stopped only after the lanes.
        let left = self.outbox.as_ref().map_or(0, |outbox| outbox.close(by));
        bus.hush();
        let left = left + self.keepers.close(by);
        bus.stop(by);
        if self.states.close(by) {
            bus.say_goodbye();
        }
        left
    }

    fn queue(&self, user: UserId, item: LaneItem, bytes: usize) -> Result<(), LaneItem> {
        let key = lane_key(user);
        let Some(outbox) = &self.outbox else {
            return self.keepers.submit(key, item.standing(), item, bytes).map_err(|closed| closed.0);
        };
        outbox.submit(key, item.standing(), OutItem::Lane(item), bytes).map_err(|closed| match closed.0 {
            OutItem::Lane(item) => item,
            OutItem::Confirmed(..) | OutItem::Refused(..) => unreachable!("it comes back as it was"),
        })
    }

    fn queue_anyway(&self, user: UserId, item: LaneItem, bytes: usize) {
        if let Err(LaneItem::Delivery(delivery)) = self.queue_late(user, item, bytes) {
            log::error!("a message for user {} came back after everything was stored, and is lost", delivery.to);
        }
    }

    /// Returns the item if the lanes have ended.
    fn queue_late(&self, user: UserId, item: LaneItem, bytes: usize) -> Result<(), LaneItem> {
        let key = lane_key(user);
        let item = match &self.outbox {
            None => item,
            Some(outbox) => match outbox.submit_late(key, item.standing(), OutItem::Lane(item), bytes) {
                Ok(()) => return Ok(()),
                Err(pool::LanesClosed(OutItem::Lane(item))) => item,
                Err(_) => unreachable!("it comes back as it was"),
            },
        };
        self.keepers.submit_late(key, item.standing(), item, bytes).map_err(|closed| closed.0)
    }

    /// Hands a message to the user's connection, or puts it into the user's lane if there is none.
    fn route(
        &self,
        turn: &mut Turn<Posted>,
        to: UserId,
        frame: &[u8],
        park: impl FnOnce() -> Option<Delivery>,
    ) -> Parked {
        loop {
            let shard = self.presence.read(to);
            let Some(link) = shard.newest(to) else {
                // Still under the lock: a later login finds the message in the lane before its
                // fetch.
                let Some(delivery) = park() else { return Parked::NoRoom };
                let bytes = delivery.text.len() + DELIVERY_BYTES;
                return match self.queue(to, LaneItem::Delivery(delivery), bytes) {
                    Ok(()) => Parked::Yes,
                    Err(LaneItem::Delivery(delivery)) => Parked::Refused(delivery),
                    Err(LaneItem::Work(..) | LaneItem::Answer(..)) => unreachable!("it comes back as it was"),
                };
            };
            if link.send(turn, frame, label(to)).is_ok() {
                return Parked::No;
            }
            let link = link.clone();
            drop(shard);
            self.give_up(turn, to, &link);
        }
    }

    /// Hands a message to the user's connection; false if there is none.
    fn deliver_here(&self, turn: &mut Turn<Posted>, to: UserId, frame: &[u8]) -> bool {
        loop {
            let shard = self.presence.read(to);
            let Some(link) = shard.newest(to) else { return false };
            if link.send(turn, frame, label(to)).is_ok() {
                return true;
            }
            let link = link.clone();
            drop(shard);
            self.give_up(turn, to, &link);
        }
    }

    /// Gives up a slow consumer. It is removed first, so that the messages it did not take go ahead
    /// of the one it could not take.
    fn give_up(&self, turn: &mut Turn<Posted>, user: UserId, link: &Arc<ClientLink>) {
        log::warn!("a connection of user {user} does not take its messages and is closed");
        self.services.metrics.slow_consumer();
        link.hang_up();
        self.leave(turn, user, link);
    }

    /// Removes a user from a connection, with the user's messages that it will not deliver. These
    /// go to the user's current connection, unless that has already received newer ones.
    fn leave(&self, turn: &mut Turn<Posted>, user: UserId, link: &Arc<ClientLink>) -> Removed {
        let mut shard = self.presence.write(user);
        let may_follow = shard.holds_newest(user, link);
        let (removed, came_back) = self.take_from(turn, &mut shard, user, link, may_follow);
        if removed == Removed::Last {
            self.gone(user, came_back);
        }
        removed
    }

    /// The same, without notifying others if it was the last connection. `follows`: its messages
    /// are newer than those that the next connection has received. Returns whether messages came
    /// back.
    fn take_from(
        &self,
        turn: &mut Turn<Posted>,
        shard: &mut Shard<Posted>,
        user: UserId,
        link: &Arc<ClientLink>,
        follows: bool,
    ) -> (Removed, bool) {
        let (goes_first, was_oldest) = (shard.goes_first(user, link), shard.is_oldest(user, link));
        let elsewhere = shard.is_elsewhere(user, link);
        let removed = shard.remove(user, link);
        let earlier_came_back = self.keep_earlier(user, link);
        let frames = self.take_back(user, link);
        let came_back = earlier_came_back || !frames.is_empty();
        // Messages that it has written may still arrive. If they do not, others may have sent newer
        // messages until that is known, even on this connection, if the user logs in on it again.
        link.relabel(label_of(user), label_of(user) | EARLIER);
        if follows || goes_first {
            let receiver = shard.newest(user).cloned();
            self.hand_on(turn, shard, user, frames, elsewhere);
            if goes_first && was_oldest && shard.newest(user) == receiver.as_ref() {
                shard.was_given_the_oldest(user);
            }
        } else {
            self.keep(user, frames, KEPT);
        }
        (removed, came_back)
    }

    fn take_back(&self, user: UserId, link: &ClientLink) -> Vec<Box<[u8]>> {
        self.take_back_labelled(label_of(user), link)
    }

    /// Stores messages that a connection was sent before the user last left it, and that it will
    /// not deliver, ahead of those it was sent since. Returns whether there were any. The user's
    /// shard is held.
    fn keep_earlier(&self, user: UserId, link: &ClientLink) -> bool {
        let frames = self.take_back_labelled(label_of(user) | EARLIER, link);
        let came_back = !frames.is_empty();
        self.keep(user, frames, KEPT_LATE);
        came_back
    }

    fn take_back_labelled(&self, label: u32, link: &ClientLink) -> Vec<Box<[u8]>> {
        let frames = link.take_back(label);
        self.services.metrics.returned(frames.len());
        frames
    }

    fn route_anyway(&self, turn: &mut Turn<Posted>, user: UserId, frames: Vec<Box<[u8]>>) {
        let mut shard = self.presence.write(user);
        self.hand_on(turn, &mut shard, user, frames, false);
    }

    /// Gives frames, in order, to the user's current connection, or to the lane. `elsewhere`: the
    /// connection that had them existed before the user logged in at another node.
    fn hand_on(
        &self,
        turn: &mut Turn<Posted>,
        shard: &mut Shard<Posted>,
        user: UserId,
        mut frames: Vec<Box<[u8]>>,
        mut elsewhere: bool,
    ) {
        let mut is_gone = false;
        while let Some(next) = shard.newest(user).filter(|_| !frames.is_empty()).cloned() {
            let taken = frames.iter().take_while(|frame| next.send(turn, frame, label(user)).is_ok()).count();
            self.services.metrics.delivered_locally(taken);
            let rest = frames.split_off(taken);
            if rest.is_empty() {
                return;
            }
            // This one is full as well, so all its messages go on, ahead of the rest.
            self.services.metrics.slow_consumer();
            next.hang_up();
            let was_newest = shard.holds_newest(user, &next);
            elsewhere &= was_newest && shard.is_elsewhere(user, &next);
            is_gone = shard.remove(user, &next) == Removed::Last;
            self.keep_earlier(user, &next);
            frames = self.take_back(user, &next);
            frames.extend(rest);
            if !was_newest {
                break;
            }
        }
        self.keep(user, frames, Origin::Returned { late: false, elsewhere });
        if is_gone {
            self.gone(user, true);
        }
    }

    /// Stores frames that a connection has returned, in order. The user's shard is held.
    fn keep(&self, user: UserId, frames: Vec<Box<[u8]>>, origin: Origin) {
        let Origin::Returned { late, elsewhere } = origin else { unreachable!("nobody waits for it") };
        for frame in frames {
            let Ok(text) = String::from_utf8(frame.into_vec()) else { unreachable!("it was text when it was sent") };
            let bytes = text.len() + DELIVERY_BYTES;
            let origin = Origin::Returned { late, elsewhere };
            let delivery = Delivery { to: user, text: text.into(), origin, was_refused: false };
            self.queue_anyway(user, LaneItem::Delivery(delivery), bytes);
        }
    }

    /// The user has left this node. If there are other nodes, the bus reports when no more messages
    /// arrive. Messages that came back from the last connection must be stored before other nodes
    /// learn that the user is not here: what they store afterwards is newer. The user's shard is
    /// held.
    fn gone(&self, user: UserId, came_back: bool) {
        if self.outbox.is_none() {
            self.states.note(user, UserState::Offline);
            return;
        }
        if came_back {
            let (bus, presence) = (self.services.bus.clone(), self.presence.clone());
            let leave = Box::new(move || {
                // The user may have logged in again.
                let shard = presence.read(user);
                if !shard.has(user) {
                    bus.unsubscribe(user);
                }
            });
            if self.queue_late(user, LaneItem::Answer(user, leave), WORK_BYTES).is_ok() {
                return;
            }
        }
        self.services.bus.unsubscribe(user);
    }
}

impl Node for Router {
    fn on_envelope(&self, turn: &mut Turn<Posted>, to: UserId, frames: &str, receipt: &dyn Fn() -> Receipt) -> bool {
        for (delivered, frame) in frames.split('\n').enumerate() {
            if !self.deliver_here(turn, to, frame.as_bytes()) {
                let (bus, receipt) = (self.services.bus.clone(), receipt());
                let refuse = Box::new(move || bus.refuse(receipt, delivered));
                // If this node shuts down and its lanes have ended, everything is stored already.
                if let Err(LaneItem::Answer(_, refuse)) = self.queue_late(to, LaneItem::Answer(to, refuse), WORK_BYTES)
                {
                    refuse();
                }
                return false;
            }
        }
        true
    }

    fn on_returned(&self, turn: &mut Turn<Posted>, to: UserId, frames: &str, receipt: &dyn Fn() -> Receipt) -> bool {
        let receipt = receipt();
        let mut shard = self.presence.write(to);
        let mut delivered = 0;
        if let Some(link) = shard.follows_elsewhere(to, &receipt.node).cloned() {
            let taken = frames.split('\n').take_while(|frame| link.send(turn, frame.as_bytes(), label(to)).is_ok());
            delivered = taken.count();
            if delivered > 0 {
                shard.was_given(to, &receipt.node);
            }
        }
        drop(shard);
        let is_all = delivered == frames.split('\n').count();
        if !is_all {
            // It need not wait for messages being stored here: no order with them is promised.
            self.services.bus.refuse(receipt, delivered);
        }
        is_all
    }

    fn on_bare(&self, turn: &mut Turn<Posted>, to: UserId, frame: &str) {
        // For clients that read lines, a line is a frame.
        let frame = if frame.contains(['\n', '\r']) { frame.replace(['\n', '\r'], " ") } else { frame.to_owned() };
        self.route_anyway(turn, to, vec![frame.into_bytes().into()]);
    }

    fn on_confirmed(&self, place: Option<Place>, sequences: Vec<u64>) {
        if let Some(outbox) = &self.outbox {
            // It is refused only after the shutdown of the lanes, when nothing is in flight.
            let _ = outbox.submit_late(0, Standing::of(NODES), OutItem::Confirmed(place, sequences), 0);
        }
    }

    fn on_refused(&self, sequence: u64, delivered: usize) {
        if let Some(outbox) = &self.outbox {
            let _ = outbox.submit_late(0, Standing::of(NODES), OutItem::Refused(sequence, delivered), 0);
        }
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
        self.services.store.states.get().ok()?.online_after(user, limit).ok()
    }

    fn on_group_changed(&self, group: GroupId) {
        self.services.groups.changed(group);
    }

    fn on_rejoined(&self) -> Vec<UserId> {
        self.services.groups.forget();
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

/// Whether a message was put into its lane; not needed if the user's connection has it.
enum Parked {
    No,
    Yes,
    /// The lanes are shut down.
    Refused(Delivery),
    /// Its sender has its share of the lanes.
    NoRoom,
}

/// The key of an item's lane, and its weight there.
pub fn weight(item: &LaneItem) -> (u64, usize) {
    match item {
        LaneItem::Delivery(delivery) => (lane_key(delivery.to), delivery.text.len() + DELIVERY_BYTES),
        LaneItem::Work(user, _) | LaneItem::Answer(user, _) => (lane_key(*user), WORK_BYTES),
    }
}

/// The user's id labels the user's messages in a connection's output.
fn label(user: UserId) -> Fate {
    Fate::Return(label_of(user))
}

fn label_of(user: UserId) -> u32 {
    user.0.cast_unsigned()
}

/// Added to the label of messages whose user has since left the connection. No user's id is that
/// high.
const EARLIER: u32 = 1 << 31;

/// The origin of messages that a connection has returned and that are to be stored; and of those
/// that it returned after the user had left it.
const KEPT: Origin = Origin::Returned { late: false, elsewhere: false };
const KEPT_LATE: Origin = Origin::Returned { late: true, elsewhere: false };

/// The flow of what other nodes say: no payer has this number.
const NODES: u64 = u64::MAX;

/// The weight of a delivery besides its text, and of other work.
const DELIVERY_BYTES: usize = size_of::<LaneItem>() + size_of::<Link<Posted>>();
const WORK_BYTES: usize = 256;

#[cfg(test)]
mod tests;
