//! [`Router`]: finds a recipient and sends a message there.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use net::{Label, Turn};
use smallvec::SmallVec;

use crate::admission::Holder;
use crate::admission::berths::Berth;
use crate::base::ending::Undelivered;
use crate::base::ids::FrameId;
use crate::bus::news::CommittedFrame;
use crate::delivery::{
    Acknowledgement, ClientLink, Comeback, Delivery, LaneItem, Origin, Owed, Posted, Provenance, Work,
};
use crate::metrics::{Hit, Metrics};
use crate::protocol::UserId;
use crate::routing::label::{Returned, is_for, or_back, user_of};
use crate::routing::presence::{Added, DeviceLink, Presence, Removed, Shard};
use crate::routing::routed::{Parked, Routed};
use crate::routing::services::RouterParts;
use crate::routing::states::StateWriter;
use crate::routing::ways::{DELIVERY_BYTES, Ways};
use crate::store::UserState;
use crate::store::history::DeviceId;

/// Knows which users are online, and forwards messages: to a connection of this node, or into the
/// recipient's lane.
pub struct Router {
    pub(super) parts: RouterParts,
    pub(super) presence: Arc<Presence<Posted>>,
    pub(super) ways: Ways,
    pub(super) states: StateWriter,
    /// Takes messages that other nodes have committed in groups.
    pub(super) group_messages: OnceLock<GroupMessages>,
    /// Called when messages of other nodes may have been missed.
    pub(super) missed: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

/// Takes messages of groups. Never blocks.
type GroupMessages = Box<dyn Fn(Vec<CommittedFrame>) + Send + Sync>;

impl Router {
    /// A router for a node without users yet.
    pub fn new(parts: RouterParts, ways: Ways, states: StateWriter) -> Router {
        Router {
            parts,
            presence: Arc::default(),
            ways,
            states,
            group_messages: OnceLock::new(),
            missed: OnceLock::new(),
        }
    }

    /// Forwards a frame to one user. Its room in the lanes counts for the holder's share.
    pub fn deliver(&self, turn: &mut Turn<Posted>, to: UserId, text: &str, provenance: Provenance<'_>) -> Routed {
        let Provenance { id, holder, .. } = provenance;
        if to.0 <= 0 {
            self.parts.metrics.unknown_recipients(1);
            return Routed::DONE;
        }
        let parked = self.route(turn, (to, id), text.as_bytes(), || {
            let berth = self.parts.berths.take(holder, text.len() + DELIVERY_BYTES)?;
            let origin = Origin::Sender(Owed::to(&provenance, text.len()), berth);
            Some(Delivery::new(to, text.into(), origin))
        });
        match parked {
            Parked::No => {
                self.parts.metrics.delivered_locally(1);
                Routed::DONE
            }
            Parked::Yes => Routed::OnItsWay,
            Parked::Refused(delivery) => {
                self.parts.metrics.failed(1);
                // The caller tells the sender.
                if let Origin::Sender(owed, _) = delivery.origin {
                    let _ = owed.settle(Err(Undelivered::Unstored));
                }
                Routed::FAILED
            }
            Parked::NoRoom => {
                self.no_room(1, holder);
                Routed::FAILED
            }
        }
    }

    /// Counts a frame that is refused for this number of recipients, because the holder has its
    /// share of the lanes.
    pub(super) fn no_room(&self, recipients: usize, holder: Holder) {
        let metrics = &self.parts.metrics;
        metrics.failed(recipients);
        metrics.refused(Hit::LaneMax);
        log::debug!("{} has used up its share of the lanes: a message is refused", holder.payer);
    }

    /// Whether messages of other nodes for `user` already arrive here, or never need to.
    pub fn is_here(&self, user: UserId) -> bool {
        !self.ways.lead_to_nodes() || self.is_connected(user)
    }

    /// Whether there can be no other node.
    pub fn is_alone(&self) -> bool {
        !self.ways.lead_to_nodes()
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

    /// Removes `user` from all connections of level 1 of this node but one, and returns these.
    pub fn log_out_others(
        &self,
        turn: &mut Turn<Posted>,
        user: UserId,
        except: &Arc<ClientLink>,
    ) -> Vec<Arc<ClientLink>> {
        let links = |shard: &Shard<Posted>| shard.links(user).filter(|link| *link != except).cloned().collect();
        let others: Vec<Arc<ClientLink>> = links(&self.presence.read(user));
        for link in &others {
            self.leave(turn, user, link);
        }
        others
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
        self.parts.bus.subscribe(user, Some(link));
    }

    /// Registers the lanes and the number of users with the metrics.
    pub fn watched_by(&self, metrics: &Metrics) {
        let presence = self.presence.clone();
        metrics.watch_users(move || presence.users());
        self.ways.watched_by(metrics);
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
        if added == Added::First && self.ways.lead_to_nodes() {
            self.parts.bus.subscribe(user, None);
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

    /// Has messages that other nodes have committed in groups handed to `take`, which never blocks.
    pub fn give_group_messages_to(&self, take: impl Fn(Vec<CommittedFrame>) + Send + Sync + 'static) {
        let _ = self.group_messages.set(Box::new(take));
    }

    /// Has `sweep` called when messages of other nodes may have been missed. It must not block.
    pub fn when_missed(&self, sweep: impl Fn() + Send + Sync + 'static) {
        let _ = self.missed.set(Box::new(sweep));
    }

    /// The logins of all connections of level 2 of this node.
    pub fn logins(&self) -> Vec<DeviceLogin> {
        let mut logins = Vec::new();
        for shard in self.presence.shards() {
            for (user, DeviceLink { device, login, .. }) in shard.all_devices() {
                logins.push(DeviceLogin { user, device: *device, login: *login });
            }
        }
        logins
    }

    /// Room in the lanes for a message to be recorded; `None` if the holder has its share.
    pub fn take_berth(&self, holder: Holder, bytes: usize) -> Option<Berth> {
        let berth = self.parts.berths.take(holder, bytes);
        if berth.is_none() {
            self.no_room(1, holder);
        }
        berth
    }

    /// Registers a connection of level 2. `link` is posted
    /// [`Placed`](crate::session::Outcome::Placed) when other nodes know of it.
    pub fn enter(&self, user: UserId, link: &Arc<ClientLink>, device: DeviceId, logins: (i64, Option<i64>)) -> Entered {
        let (login, replaces) = logins;
        let mut shard = self.presence.write(user);
        let same_device = || shard.devices(user).iter().filter(|other| other.device == device);
        let is_replaced = same_device().any(|other| other.replaces == Some(login));
        let replaced = if is_replaced { Vec::new() } else { same_device().map(|other| other.link.clone()).collect() };
        let was_here = shard.has(user);
        shard.add_device(user, DeviceLink { link: link.clone(), device, login, replaces });
        if !was_here {
            self.states.note(user, UserState::Online);
        }
        let is_placed = was_here || !self.ways.lead_to_nodes();
        if !is_placed {
            self.parts.bus.subscribe(user, Some(link));
        }
        Entered { is_placed, is_replaced, replaced }
    }

    /// Removes a connection of level 2.
    pub fn leave_device(&self, user: UserId, link: &ClientLink) {
        let mut shard = self.presence.write(user);
        if shard.remove_device(user, link) && !shard.has(user) {
            self.gone(user, false);
        }
    }

    /// The connections of level 2 of `user` on this node that are wanted.
    pub fn devices(
        &self,
        user: UserId,
        wanted: impl Fn(&DeviceLink<Posted>) -> bool,
    ) -> SmallVec<[Arc<ClientLink>; 2]> {
        let shard = self.presence.read(user);
        shard.devices(user).iter().filter(|device| wanted(device)).map(|device| device.link.clone()).collect()
    }

    /// Hands a message that is in its conversation to the user's connection of level 1, or puts it
    /// into the user's lane if `keeps` says so.
    pub fn forward(
        &self,
        turn: &mut Turn<Posted>,
        to: UserId,
        text: &Arc<str>,
        keeps: Keeps,
        answer: &Arc<Acknowledgement>,
    ) {
        let id = answer.frame();
        if keeps == Keeps::No {
            self.deliver_here(turn, (to, id), text.as_bytes());
            return;
        }
        let parked = self.route(turn, (to, id), text.as_bytes(), || {
            let origin = Origin::Recorded(answer.clone());
            answer.widen(DELIVERY_BYTES).then(|| Delivery::new(to, text.clone(), origin))
        });
        match parked {
            Parked::No => self.parts.metrics.delivered_locally(1),
            Parked::Yes => {}
            Parked::Refused(_) | Parked::NoRoom => self.parts.metrics.failed(1),
        }
    }

    /// Stores a message that a connection which has ended did not deliver, and does not hand it to
    /// the user's current connection, which may have received newer ones.
    pub fn give_back(&self, label: Label, frame: Box<[u8]>) {
        let to = user_of(&label);
        self.parts.metrics.returned(1);
        let _shard = self.presence.write(to);
        self.ways.keep(to, vec![Returned::of((label, frame))], Comeback::Late);
    }

    /// Submits work on a user's stored messages, to be done after everything on its way to them.
    /// The caller must limit the amount of such work.
    pub fn submit(&self, user: UserId, work: Work) {
        self.ways.submit_anyway(LaneItem::Work(user, work));
    }

    /// Finishes the messages on their way to other nodes and to the store, until `by` at most.
    /// Returns how many are left.
    pub fn close(&self, by: Instant) -> usize {
        let bus = &self.parts.bus;
        // The bus stays until the last envelope is confirmed, so that no message that has arrived
        // is stored. Messages that the bus delivers until it hushes are stored or answered, so it
        // may be stopped only after the lanes.
        let left = self.ways.close_to_nodes(by);
        bus.hush();
        let left = left + self.ways.close_to_store(by);
        bus.stop(by);
        self.states.close(by);
        left
    }

    /// Hands a message to the user's connection, or puts it into the user's lane if there is none.
    pub(super) fn route(
        &self,
        turn: &mut Turn<Posted>,
        (to, id): (UserId, FrameId),
        frame: &[u8],
        park: impl FnOnce() -> Option<Delivery>,
    ) -> Parked {
        loop {
            let shard = self.presence.read(to);
            let Some(link) = shard.newest(to) else {
                // Still under the lock: a later login finds the message in the lane before its
                // fetch.
                let Some(delivery) = park() else { return Parked::NoRoom };
                return match self.ways.submit(LaneItem::Delivery(delivery)) {
                    Ok(()) => Parked::Yes,
                    Err(LaneItem::Delivery(delivery)) => Parked::Refused(delivery),
                    Err(LaneItem::Work(..) | LaneItem::Answer(..)) => unreachable!("it comes back as it was"),
                };
            };
            if link.send(turn, frame, or_back(to, id)).is_ok() {
                return Parked::No;
            }
            let link = link.clone();
            drop(shard);
            self.give_up(turn, to, &link);
        }
    }

    /// Hands a message to the user's connection; false if there is none.
    pub fn deliver_here(&self, turn: &mut Turn<Posted>, (to, id): (UserId, FrameId), frame: &[u8]) -> bool {
        loop {
            let shard = self.presence.read(to);
            let Some(link) = shard.newest(to) else { return false };
            if link.send(turn, frame, or_back(to, id)).is_ok() {
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
        self.parts.metrics.slow_consumer();
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

    /// Removes a user from a connection, as [`Router::leave`] does, but tells no other node.
    /// `follows`: its messages are newer than those that the next connection has received. Returns whether messages came
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
        link.relabel(|label| label.user_has_left |= is_for(label, user));
        if follows || goes_first {
            let receiver = shard.newest(user).cloned();
            self.hand_on(turn, shard, user, frames, elsewhere);
            if goes_first && was_oldest && shard.newest(user) == receiver.as_ref() {
                shard.was_given_the_oldest(user);
            }
        } else {
            self.ways.keep(user, frames, Comeback::InOrder);
        }
        (removed, came_back)
    }

    fn take_back(&self, user: UserId, link: &ClientLink) -> Vec<Returned> {
        self.take_back_if(link, |label| is_for(label, user) && !label.user_has_left)
    }

    /// Stores messages that a connection was sent before the user last left it, and that it will
    /// not deliver, ahead of those it was sent since. Returns whether there were any. The user's
    /// shard is held.
    fn keep_earlier(&self, user: UserId, link: &ClientLink) -> bool {
        let frames = self.take_back_if(link, |label| is_for(label, user) && label.user_has_left);
        let came_back = !frames.is_empty();
        self.ways.keep(user, frames, Comeback::Late);
        came_back
    }

    fn take_back_if(&self, link: &ClientLink, wanted: impl Fn(&Label) -> bool) -> Vec<Returned> {
        let frames: Vec<_> = link.take_back(wanted).into_iter().map(Returned::of).collect();
        self.parts.metrics.returned(frames.len());
        frames
    }

    pub(super) fn route_anyway(&self, turn: &mut Turn<Posted>, user: UserId, frames: Vec<Returned>) {
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
        mut frames: Vec<Returned>,
        mut elsewhere: bool,
    ) {
        let mut is_gone = false;
        while let Some(next) = shard.newest(user).filter(|_| !frames.is_empty()).cloned() {
            let send =
                |turn: &mut _, Returned { id, frame }: &Returned| next.send(turn, frame, or_back(user, *id)).is_ok();
            let taken = frames.iter().take_while(|returned| send(turn, returned)).count();
            self.parts.metrics.delivered_locally(taken);
            let rest = frames.split_off(taken);
            if rest.is_empty() {
                return;
            }
            // This one is full as well, so all its messages go on, ahead of the rest.
            self.parts.metrics.slow_consumer();
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
        let comeback = if elsewhere { Comeback::Elsewhere } else { Comeback::InOrder };
        self.ways.keep(user, frames, comeback);
        if is_gone {
            self.gone(user, true);
        }
    }

    /// The user has left this node. If there are other nodes, the bus reports when no more messages
    /// arrive. Messages that came back from the last connection must be stored before other nodes
    /// learn that the user is not here: what they store afterwards is newer. The user's shard is
    /// held.
    fn gone(&self, user: UserId, came_back: bool) {
        if !self.ways.lead_to_nodes() {
            self.states.note(user, UserState::Offline);
            return;
        }
        if came_back {
            let (bus, presence) = (self.parts.bus.clone(), self.presence.clone());
            let leave = Box::new(move || {
                // The user may have logged in again.
                let shard = presence.read(user);
                if !shard.has(user) {
                    bus.unsubscribe(user);
                }
            });
            if self.ways.submit_late(LaneItem::Answer(user, leave)).is_ok() {
                return;
            }
        }
        self.parts.bus.unsubscribe(user);
    }
}

/// A login at level 2 on this node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceLogin {
    /// Its user.
    pub user: UserId,
    /// Its device.
    pub device: DeviceId,
    /// Its number.
    pub login: i64,
}

/// What became of [`Router::enter`].
#[derive(Debug)]
pub struct Entered {
    /// Messages of other nodes arrive already, or never need to.
    pub is_placed: bool,
    /// A later login of the device is here already.
    pub is_replaced: bool,
    /// The connections that it replaces.
    pub replaced: Vec<Arc<ClientLink>>,
}

/// Whether a recorded message waits for a user who is on no connection of level 1 here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keeps {
    /// It is offered to other nodes, and stored if they do not take it.
    Yes,
    /// The user has it in the conversation.
    No,
}

#[cfg(test)]
mod tests;
