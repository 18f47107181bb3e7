//! [`Router`]: where a recipient is, and how a message gets there.

use std::sync::Arc;
use std::time::Instant;

use net::{Fate, Link, Turn};
use pool::{Lanes, Standing};
use smallvec::SmallVec;

use crate::admission::Holder;
use crate::bus::{Node, Place, Receipt};
use crate::delivery::spread::{SoFar, Spread};
use crate::delivery::{ClientLink, Delivery, Fan, LaneItem, Origin, Posted, Work};
use crate::metrics::{Hit, Metrics};
use crate::protocol::{GroupId, UserId};
use crate::routing::outbox::OutItem;
use crate::routing::presence::{Added, Presence, Removed, Shard};
use crate::routing::services::Services;
use crate::routing::states::StateWriter;
use crate::session::{MEMBER_WORK, Settled, members_at_once};
use crate::store::UserState;
use crate::store::spool::lane_key;

/// Knows who is online, and sends messages on: to a connection of this node, or into the recipient's lane.
pub struct Router {
    services: Arc<Services>,
    presence: Arc<Presence<Posted>>,
    /// To other nodes, when there can be any. What none of them takes goes on to `keepers`.
    outbox: Option<Arc<Lanes<OutItem>>>,
    /// To the store.
    keepers: Arc<Lanes<LaneItem>>,
    states: StateWriter,
}

/// What became of a forwarded frame, as far as is known at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Routed {
    /// Settled.
    Settled {
        /// It could neither be delivered nor stored for some recipient.
        failed: bool,
        /// It has failed because a recipient's mailbox is full.
        full: bool,
    },
    /// On its way; the sender's session hears of it.
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

/// A frame for the members of a group, but for its sender.
#[derive(Debug)]
pub struct GroupFrame<'f> {
    /// The group.
    pub group: GroupId,
    /// All of them, ascending.
    pub members: &'f [UserId],
    /// The sender.
    pub except: UserId,
    /// Its JSON text.
    pub text: &'f str,
}

impl Router {
    /// A router for a node where nobody is online yet.
    pub fn new(
        services: Arc<Services>,
        outbox: Option<Arc<Lanes<OutItem>>>,
        keepers: Arc<Lanes<LaneItem>>,
        states: StateWriter,
    ) -> Router {
        Router { services, presence: Arc::default(), outbox, keepers, states }
    }

    /// Forwards a frame to one user. What it takes up on its way is of the holder's share.
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
            let origin = Origin::Sender(sender.clone(), berth);
            Some(Delivery { to, text: text.into(), origin, was_refused: false })
        });
        match parked {
            Parked::No => {
                self.services.metrics.delivered_locally(1);
                Routed::DONE
            }
            Parked::Yes => Routed::OnItsWay,
            Parked::Refused(_) => {
                self.services.metrics.failed(1);
                Routed::FAILED
            }
            Parked::NoRoom => {
                self.no_room(1, holder);
                Routed::FAILED
            }
        }
    }

    /// Forwards a frame to a group. Its text takes up room once, however many members are not here.
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

    /// The same for a group with very many members: some of them at each call. What became of the frame, when that was all.
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
        // Most groups are online: what only the lanes need is made when the first member is not.
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
                // What is for other nodes goes to each of them in one message.
                held.get_or_insert_with(|| self.outbox.as_deref().map(Lanes::hold));
                let is_added = fan.add(DELIVERY_BYTES);
                is_added.then(|| Delivery {
                    to,
                    text: text.clone(),
                    origin: Origin::Group(fan.clone()),
                    was_refused: false,
                })
            });
            match parked {
                Parked::No => *delivered += 1,
                Parked::Refused(Delivery { origin: Origin::Group(fan), .. }) => {
                    self.services.metrics.failed(1);
                    fan.one_failed();
                }
                Parked::NoRoom => *refused += 1,
                Parked::Yes | Parked::Refused(_) => {}
            }
            turn.relieve();
        }
    }

    /// All members were looked at.
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

    /// The holder has its share of the lanes: a frame is refused, for so many recipients.
    fn no_room(&self, recipients: usize, holder: Holder) {
        let metrics = &self.services.metrics;
        metrics.failed(recipients);
        metrics.refused(Hit::LaneMax);
        log::debug!("{} has used up its share of the lanes: a message is refused", holder.payer);
    }

    /// Whether messages that others send to `user` come to this node already, or never need to.
    pub fn is_here(&self, user: UserId) -> bool {
        self.outbox.is_none() || self.is_connected(user)
    }

    /// Whether `user` is on a connection of this node.
    pub fn is_connected(&self, user: UserId) -> bool {
        self.presence.read(user).newest(user).is_some()
    }

    /// Takes `user` from all connections of this node; returns these. `waiter` is posted the outcome when `User.state` says
    /// what is true then.
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

    /// Whether `user` is on any connection of this node, or about to be.
    pub fn has(&self, user: UserId) -> bool {
        self.presence.read(user).has(user)
    }

    /// Whether messages for `user` may come to `link`. A connection that others have logged out is on no list any more, unless
    /// its client has logged in again.
    pub fn is_on(&self, user: UserId, link: &ClientLink) -> bool {
        self.presence.read(user).is_on(user, link)
    }

    fn newest(&self, user: UserId) -> Option<Arc<ClientLink>> {
        self.presence.read(user).newest(user).cloned()
    }

    /// Has the other nodes send here what is for `user`; `link` is posted the outcome, and is attached then.
    pub fn join(&self, user: UserId, link: &Arc<ClientLink>) {
        // The bus hears of arrivals and departures in their order, because the shard is held.
        let mut shard = self.presence.write(user);
        shard.join(user, link);
        self.services.bus.subscribe(user, Some(link));
    }

    /// Shows who waits where.
    pub fn watched_by(&self, metrics: &Metrics) {
        let presence = self.presence.clone();
        metrics.watch_users(move || presence.users());
        metrics.watch_lanes("lane", self.keepers.watch());
        if let Some(outbox) = &self.outbox {
            metrics.watch_lanes("lane-out", outbox.watch());
        }
    }

    /// Makes `link` the connection that receives for `user`. One that received before is given up if its peer acknowledges
    /// nothing, now or in the next seconds: most likely it is the same client, which has lost that connection and come back,
    /// and shall not wait for its messages until the system notices.
    pub fn attach(&self, turn: &mut Turn<Posted>, user: UserId, link: &Arc<ClientLink>) {
        let mut shard = self.presence.write(user);
        let before = shard.newest(user).filter(|before| *before != link).cloned();
        // What the newest so far holds is newer than what a connection has got that was older until now.
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
        // The oldest first: so all of them may hand on what they hold.
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

    /// Has `User.state` say that `user` is here; `link` is posted the outcome.
    pub fn show(&self, user: UserId, link: &Arc<ClientLink>) {
        self.states.note_and_tell(user, UserState::Online, link);
    }

    /// `link` no longer receives for `user`, and is posted the outcome when `User.state` says what is true then.
    pub fn detach_and_show(&self, turn: &mut Turn<Posted>, user: UserId, link: &Arc<ClientLink>) {
        // The departure may be noted, and written, at any moment from now on.
        self.states.tell(user, UserState::Offline, link);
        if self.leave(turn, user, link) != Removed::Last {
            self.states.tell_at_once(user);
        }
    }

    /// `link` no longer receives for `user`; what it was sent for the user and did not take goes where the user is now.
    pub fn detach(&self, turn: &mut Turn<Posted>, user: UserId, link: &Arc<ClientLink>) {
        self.leave(turn, user, link);
    }

    /// A message that a connection which has ended did not bring to its client, and the label it was sent under. It is kept:
    /// whatever connection the user has now may have got newer ones.
    pub fn give_back(&self, label: u32, frame: Box<[u8]>) {
        let to = UserId((label & !EARLIER).cast_signed());
        self.services.metrics.returned(1);
        let _shard = self.presence.write(to);
        self.keep(to, vec![frame], KEPT_LATE);
    }

    /// Has work done on a user's kept messages, after all that is on its way to them. Whoever asks bounds how much of it
    /// there can be.
    pub fn submit(&self, user: UserId, work: Work) {
        self.queue_anyway(user, LaneItem::Work(user, work), WORK_BYTES);
    }

    /// Finishes what is on its way to other nodes and to the store, but not after `by`; returns how many messages were
    /// left.
    pub fn close(&self, by: Instant) -> usize {
        let bus = &self.services.bus;
        // The bus stays until the last envelope is confirmed: nothing is stored that has arrived. What it brings until it
        // hushes is kept or answered for, and so it may go only after the lanes.
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

    /// The item, if the lanes have ended.
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

    /// Hands a message to the user's connection, or parks it in the user's lane if there is none.
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
                // Still under the lock: whoever logs in after this finds the message in the lane before its fetch.
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

    /// A slow consumer. It loses its place first, so that what it did not take goes ahead of what it could not take.
    fn give_up(&self, turn: &mut Turn<Posted>, user: UserId, link: &Arc<ClientLink>) {
        log::warn!("a connection of user {user} does not take its messages and is closed");
        self.services.metrics.slow_consumer();
        link.hang_up();
        self.leave(turn, user, link);
    }

    /// Takes a user from a connection, and the user's messages that it will not bring to its client. They go to the
    /// connection that the user has now, unless that has got newer ones already.
    fn leave(&self, turn: &mut Turn<Posted>, user: UserId, link: &Arc<ClientLink>) -> Removed {
        let mut shard = self.presence.write(user);
        let may_follow = shard.holds_newest(user, link);
        let (removed, came_back) = self.take_from(turn, &mut shard, user, link, may_follow);
        if removed == Removed::Last {
            self.gone(user, came_back);
        }
        removed
    }

    /// The same without telling others when it was the last. `follows`: what the connection holds is newer than what the next
    /// one has got. Whether something came back.
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
        // What it has written may still arrive. If it does not, others may have sent newer messages until that is known, even
        // on this connection, when the user logs in on it again.
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

    /// Has what a connection was sent before the user left it the last time, and will not bring to its client, kept before
    /// what it was sent since; whether there was something. The user's shard is held.
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

    /// Gives frames, in order, to the connection that the user has now, or to the lane; `elsewhere`: the connection that had
    /// them was there before the user came to another node.
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
            // This one is full as well, so all it has goes on, ahead of the rest.
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

    /// Has frames that a connection has given back kept, in order. The user's shard is held.
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

    /// The user has left this node. If there are others, the bus says when nothing comes any more. When messages came back
    /// from the last connection, they must be kept before others hear that nobody is here: what they keep then is newer.
    /// The user's shard is held.
    fn gone(&self, user: UserId, came_back: bool) {
        if self.outbox.is_none() {
            self.states.note(user, UserState::Offline);
            return;
        }
        if came_back {
            let (bus, presence) = (self.services.bus.clone(), self.presence.clone());
            let leave = Box::new(move || {
                // The user may have come again.
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
                // When this node stops and its lanes have ended, everything is kept already.
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
            // It need not wait for what is kept here: the order of what is kept now is not promised.
            self.services.bus.refuse(receipt, delivered);
        }
        is_all
    }

    fn on_bare(&self, turn: &mut Turn<Posted>, to: UserId, frame: &str) {
        // A line is a frame for those who read lines.
        let frame = if frame.contains(['\n', '\r']) { frame.replace(['\n', '\r'], " ") } else { frame.to_owned() };
        self.route_anyway(turn, to, vec![frame.into_bytes().into()]);
    }

    fn on_confirmed(&self, place: Option<Place>, sequences: Vec<u64>) {
        if let Some(outbox) = &self.outbox {
            // Only after the end, when nothing is in flight any more, it is not taken.
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
                // Its loop takes back what it holds.
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

/// Whether a message went into its lane; it need not if the user's connection has it.
enum Parked {
    No,
    Yes,
    /// The lanes are being closed.
    Refused(Delivery),
    /// Its sender has its share of them.
    NoRoom,
}

/// In which lane an item travels, and what it weighs there.
pub fn weight(item: &LaneItem) -> (u64, usize) {
    match item {
        LaneItem::Delivery(delivery) => (lane_key(delivery.to), delivery.text.len() + DELIVERY_BYTES),
        LaneItem::Work(user, _) | LaneItem::Answer(user, _) => (lane_key(*user), WORK_BYTES),
    }
}

/// A user's messages are told apart in a connection's output by the user's id.
fn label(user: UserId) -> Fate {
    Fate::Return(label_of(user))
}

fn label_of(user: UserId) -> u32 {
    user.0.cast_unsigned()
}

/// Added to the label of messages whose user has left the connection since. No user's id is that high.
const EARLIER: u32 = 1 << 31;

/// What a connection has given back and is to be stored; and what it has after the user had left it.
const KEPT: Origin = Origin::Returned { late: false, elsewhere: false };
const KEPT_LATE: Origin = Origin::Returned { late: true, elsewhere: false };

/// The flow of what other nodes say: no payer has this number.
const NODES: u64 = u64::MAX;

/// What a delivery weighs beside its text, and other work at all.
const DELIVERY_BYTES: usize = size_of::<LaneItem>() + size_of::<Link<Posted>>();
const WORK_BYTES: usize = 256;
