//! [`Attendance`]: the connections of this node's users, at both levels, and the messages of a
//! connection that a user leaves.

use std::sync::Arc;

use net::{Label, Turn};
use smallvec::SmallVec;

use crate::base::trace::{Hop, Incident, Tracer};
use crate::bus::Exchange;
use crate::delivery::{ClientLink, Comeback, LaneItem, Posted};
use crate::metrics::Metrics;
use crate::protocol::UserId;
use crate::routing::label::{Returned, is_for, or_back};
use crate::routing::presence::{Added, DeviceLink, Presence, Removed, Shard};
use crate::routing::states::StateWriter;
use crate::routing::traced;
use crate::routing::ways::Ways;
use crate::store::UserState;
use crate::store::history::DeviceId;

/// Notes logins and logouts of users, and passes them on to the other nodes and to `User.state`.
pub struct Attendance {
    pub(super) presence: Arc<Presence<Posted>>,
    pub(super) ways: Ways,
    pub(super) states: StateWriter,
    bus: Arc<dyn Exchange>,
    metrics: Arc<Metrics>,
    tracer: Arc<Tracer>,
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

/// A user on a connection of this node.
pub struct Attendee {
    /// The user.
    pub user: UserId,
    /// The connection.
    pub link: Arc<ClientLink>,
    /// Its device, at level 2.
    pub device: Option<DeviceId>,
}

/// The outcome of [`Attendance::enter`].
#[derive(Debug)]
pub struct Entered {
    /// Whether messages of other nodes arrive already, or never need to.
    pub is_placed: bool,
    /// Whether a later login of the device is here already.
    pub is_replaced: bool,
    /// The connections that it replaces.
    pub replaced: Vec<Arc<ClientLink>>,
}

impl Attendance {
    /// The attendance of a node without users.
    pub(super) fn new(
        bus: Arc<dyn Exchange>,
        metrics: Arc<Metrics>,
        tracer: Arc<Tracer>,
        ways: Ways,
        states: StateWriter,
    ) -> Attendance {
        Attendance { presence: Arc::default(), ways, states, bus, metrics, tracer }
    }

    /// Whether messages of other nodes for `user` already arrive here, or never need to.
    pub fn is_here(&self, user: UserId) -> bool {
        !self.ways.lead_to_nodes() || self.is_connected(user)
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

    /// Whether `user` is on any connection of this node, or soon will be.
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
        // The shard is held, so that the bus gets logins and logouts in their order.
        let mut shard = self.presence.write(user);
        shard.join(user, link);
        self.bus.subscribe(user, Some(link));
    }

    /// Makes `link` the connection that receives for `user`. If the previous one acknowledges
    /// nothing, now or within the next seconds, it is given up: most likely the same client has
    /// lost that connection and reconnected, and should not wait for its messages until the system
    /// notices.
    pub fn attach(&self, turn: &mut Turn<Posted>, user: UserId, link: &Arc<ClientLink>) {
        let mut shard = self.presence.write(user);
        let before = shard.newest(user).filter(|before| *before != link).cloned();
        // The connection that was the newest until now has newer messages than those received by a
        // connection that was older.
        let may_follow =
            before.as_ref().is_some_and(|before| shard.holds_newest(user, before)) && shard.is_on(user, link);
        let added = shard.add(user, link);
        if added == Added::First && self.ways.lead_to_nodes() {
            self.bus.subscribe(user, None);
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
        // The logout may be noted and written at any moment from here on.
        self.states.tell(user, UserState::Offline, link);
        if self.leave(turn, user, link) != Removed::Last {
            self.states.tell_at_once(user);
        }
    }

    /// Stops `link` from receiving for `user`. Messages that `link` was sent and did not take go to
    /// the user's current place.
    pub fn detach(&self, turn: &mut Turn<Posted>, user: UserId, link: &Arc<ClientLink>) {
        self.leave(turn, user, link);
    }

    /// The number of connections of level 2 of this node.
    pub fn device_count(&self) -> usize {
        self.presence.shards().map(|shard| shard.all_devices().count()).sum()
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

    /// Calls `visit` for every connection of this node, or for those of one user. No lock is held
    /// during a call.
    pub fn visit(&self, user: Option<UserId>, mut visit: impl FnMut(Attendee)) {
        let old = |user, link: &Arc<ClientLink>| Attendee { user, link: link.clone(), device: None };
        let new = |user, other: &DeviceLink<Posted>| {
            let (link, device) = (other.link.clone(), Some(other.device));
            Attendee { user, link, device }
        };
        match user {
            Some(user) => {
                let shard = self.presence.read(user);
                let level1 = shard.links(user).map(|link| old(user, link));
                let level2 = shard.devices(user).iter().map(|other| new(user, other));
                let attendees: Vec<Attendee> = level1.chain(level2).collect();
                drop(shard);
                attendees.into_iter().for_each(visit);
            }
            None => {
                for shard in self.presence.shards() {
                    let level1 = shard.all_links().map(|(user, link)| old(user, link));
                    let level2 = shard.all_devices().map(|(user, other)| new(user, other));
                    let attendees: Vec<Attendee> = level1.chain(level2).collect();
                    drop(shard);
                    attendees.into_iter().for_each(&mut visit);
                }
            }
        }
    }

    /// Registers a connection of level 2. Unless it is placed, `link` is posted
    /// [`Placed`](crate::session::Outcome::Placed) when other nodes know of it, and
    /// [`Attendance::device_is_placed`] follows.
    pub fn enter(&self, user: UserId, link: &Arc<ClientLink>, device: DeviceId, login: i64) -> Entered {
        let mut shard = self.presence.write(user);
        let same_device = || shard.devices(user).iter().filter(|other| other.device == device);
        let is_replaced = same_device().any(|other| other.login > login);
        let earlier = same_device().filter(|other| other.login < login);
        let replaced = earlier.map(|other| other.link.clone()).collect();
        if !shard.has(user) {
            self.states.note(user, UserState::Online);
        }
        // Another connection's wait for the other nodes may not be over.
        let is_known = shard.newest(user).is_some() || shard.devices(user).iter().any(|other| other.is_placed);
        let is_placed = is_known || !self.ways.lead_to_nodes();
        shard.add_device(user, DeviceLink { link: link.clone(), device, login, is_placed });
        if !is_placed {
            self.bus.subscribe(user, Some(link));
        }
        Entered { is_placed, is_replaced, replaced }
    }

    /// Messages of other nodes arrive for this connection of level 2.
    pub fn device_is_placed(&self, user: UserId, link: &ClientLink) {
        self.presence.write(user).place_device(user, link);
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

    /// The devices of `user` that are connected to this node.
    pub fn connected_devices(&self, user: UserId) -> Vec<DeviceId> {
        self.presence.read(user).devices(user).iter().map(|other| other.device).collect()
    }

    /// Gives up a slow consumer. It is removed first, so that the messages it did not take go
    /// before the one that it could not take.
    pub(super) fn give_up(&self, turn: &mut Turn<Posted>, user: UserId, link: &Arc<ClientLink>) {
        log::warn!("a connection of user {user} does not take its messages and is closed");
        self.metrics.slow_consumer();
        self.tracer.happened(user, Incident::SlowConsumer);
        link.hang_up();
        self.leave(turn, user, link);
    }

    /// Removes a user from a connection, with the user's messages that it will not deliver. They go
    /// to the user's current connection, unless that has already received newer ones.
    fn leave(&self, turn: &mut Turn<Posted>, user: UserId, link: &Arc<ClientLink>) -> Removed {
        let mut shard = self.presence.write(user);
        let may_follow = shard.holds_newest(user, link);
        let (removed, came_back) = self.take_from(turn, &mut shard, user, link, may_follow);
        if removed == Removed::Last {
            self.gone(user, came_back);
        }
        removed
    }

    /// Removes a user from a connection, as [`Attendance::leave`] does, but tells no other node.
    /// `follows`: its messages are newer than those that the next connection has received. Returns
    /// whether messages came back.
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
        // Messages that the connection has written may still arrive. Until it is known whether they
        // did, others may send newer messages, even on this connection if the user logs in on it
        // again.
        let mut may_come_back = false;
        link.relabel(|label| {
            let is_affected = is_for(label, user);
            label.user_has_left |= is_affected;
            may_come_back |= is_affected;
        });
        if may_come_back {
            self.ways.part_before_and_after(user);
        }
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
        self.take_back_if(user, link, |label| is_for(label, user) && !label.user_has_left)
    }

    /// Stores messages that a connection was sent before the user last left it, and that it will
    /// not deliver, ahead of those it was sent since. Returns whether there were any. The user's
    /// shard is held.
    fn keep_earlier(&self, user: UserId, link: &ClientLink) -> bool {
        let frames = self.take_back_if(user, link, |label| is_for(label, user) && label.user_has_left);
        let came_back = !frames.is_empty();
        self.ways.keep(user, frames, Comeback::Late);
        came_back
    }

    fn take_back_if(&self, user: UserId, link: &ClientLink, wanted: impl Fn(&Label) -> bool) -> Vec<Returned> {
        let frames: Vec<_> = link.take_back(wanted).into_iter().map(Returned::of).collect();
        self.metrics.returned(frames.len());
        if !frames.is_empty() {
            frames.iter().for_each(|frame| traced::returned(&self.tracer, Hop::Returned, user, frame));
            self.tracer.happened(user, Incident::Returned(frames.len() as u32));
        }
        frames
    }

    /// Gives frames that have no sender to the user's connection, or to the lane.
    pub(super) fn hand_in(&self, turn: &mut Turn<Posted>, user: UserId, frames: Vec<Returned>) {
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
            self.metrics.delivered_locally(taken);
            frames[..taken].iter().for_each(|frame| traced::returned(&self.tracer, Hop::Written, user, frame));
            let rest = frames.split_off(taken);
            if rest.is_empty() {
                return;
            }
            // This connection is full as well, so all its messages move on, before the rest.
            self.metrics.slow_consumer();
            self.tracer.happened(user, Incident::SlowConsumer);
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

    /// Notes that the user has left this node. If there are other nodes, the bus reports when no
    /// more messages arrive. Messages that came back from the last connection must be stored before
    /// other nodes learn that the user is not here: messages that they store afterwards are newer.
    /// The user's shard is held.
    fn gone(&self, user: UserId, came_back: bool) {
        if !self.ways.lead_to_nodes() {
            self.states.note(user, UserState::Offline);
            return;
        }
        if came_back {
            let (bus, presence) = (self.bus.clone(), self.presence.clone());
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
        self.bus.unsubscribe(user);
    }
}
