//! The messages and answers of other nodes, as the bus brings them to the [`Router`].

use std::time::Instant;

use net::Turn;

use super::label::{Returned, or_back};
use super::presence::DeviceLink;
use super::router::Router;
use super::traced;
use crate::base::ids::FrameId;
use crate::bus::news::{CommittedFrame, DeviceEnd};
use crate::bus::{DeviceNews, Frames, Node, Place, Receipt};
use crate::delivery::{ClientLink, LaneItem, Posted};
use crate::devices::tasks::MemberNews;
use crate::history::pump::PumpEvent;
use crate::protocol::level2::replies::Reason;
use crate::protocol::{self, GroupId, UserId};
use crate::store::UserState;

impl Node for Router {
    fn on_envelope(
        &self,
        turn: &mut Turn<Posted>,
        to: UserId,
        frames: Frames<'_>,
        receipt: &dyn Fn() -> Receipt,
    ) -> bool {
        let id = frames.id();
        for (delivered, frame) in frames.enumerate() {
            if !self.deliver_here(turn, (to, id), frame.as_bytes()) {
                let (bus, receipt) = (self.parts.bus.clone(), receipt());
                if self.parts.tracer.is_on() {
                    traced::envelope(&self.parts.tracer, to, &receipt, delivered, true);
                }
                let refuse = Box::new(move || bus.refuse(receipt, delivered));
                // If the lanes of a node that shuts down have ended, everything is stored already.
                if let Err(LaneItem::Answer(_, refuse)) = self.attendance.ways.submit_late(LaneItem::Answer(to, refuse))
                {
                    refuse();
                }
                return false;
            }
        }
        if self.parts.tracer.is_on() {
            traced::envelope(&self.parts.tracer, to, &receipt(), frames.count(), false);
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
        let (receipt, id) = (receipt(), frames.id());
        let mut shard = self.attendance.presence.write(to);
        let mut delivered = 0;
        if let Some(link) = shard.follows_elsewhere(to, &receipt.node).cloned() {
            let send = |frame: &&str| link.send(turn, frame.as_bytes(), or_back(to, id)).is_ok();
            delivered = frames.take_while(send).count();
            if delivered > 0 {
                shard.was_given(to, &receipt.node);
            }
        }
        drop(shard);
        let is_all = delivered == frames.count();
        if self.parts.tracer.is_on() {
            traced::envelope(&self.parts.tracer, to, &receipt, delivered, !is_all);
        }
        if !is_all {
            // The refusal is sent at once: no order with messages being stored here is promised.
            self.parts.bus.refuse(receipt, delivered);
        }
        is_all
    }

    fn on_bare(&self, turn: &mut Turn<Posted>, to: UserId, frame: &str) {
        // Any program may publish on this channel, and a client may fail on bytes that are no
        // frame.
        if !protocol::is_object(frame) {
            log::debug!("another program published bytes for user {to} that are no frame; they are dropped");
            self.parts.metrics.no_frame();
            return;
        }
        // For clients that read lines, a line is a frame.
        let frame = if frame.contains(['\n', '\r']) { frame.replace(['\n', '\r'], " ") } else { frame.to_owned() };
        let returned = Returned { id: FrameId::UNNAMED, frame: frame.into_bytes().into() };
        self.attendance.hand_in(turn, to, vec![returned]);
    }

    fn on_confirmed(&self, place: Option<Place>, sequences: Vec<u64>) {
        self.attendance.ways.confirmed(place, sequences);
    }

    fn on_refused(&self, sequence: u64, delivered: usize) {
        self.attendance.ways.refused(sequence, delivered);
    }

    fn on_left(&self, user: UserId) {
        let shard = self.attendance.presence.read(user);
        match shard.has(user) {
            false => self.attendance.states.note(user, UserState::Offline),
            true => self.attendance.states.tell_at_once(user),
        }
    }

    fn on_elsewhere(&self, turn: &mut Turn<Posted>, user: UserId) {
        let mut shard = self.attendance.presence.write(user);
        shard.went_elsewhere(user);
        for link in shard.links(user) {
            if link.doubt(turn) {
                // Its loop takes the messages back.
                link.hang_up();
            }
        }
    }

    fn on_died(&self, users: &[UserId]) -> bool {
        let gone: Vec<UserId> =
            users.iter().copied().filter(|user| !self.attendance.presence.read(*user).has(*user)).collect();
        self.attendance.states.write_offline(&gone)
    }

    fn online_after(&self, user: UserId, limit: usize) -> Option<Vec<UserId>> {
        self.parts.states.get().ok()?.online_after(user, limit).ok()
    }

    fn on_group_changed(&self, group: GroupId) {
        self.parts.groups.changed(group);
    }

    fn on_device_news(&self, news: DeviceNews) {
        match news {
            DeviceNews::Messages(user, messages) => {
                let links = self.attendance.devices(user, |_| true);
                traced::news(&self.parts.tracer, user, &messages, links.len());
                for link in links {
                    post(&link, MemberNews::Pump(messages.iter().map(CommittedFrame::push).collect()));
                }
            }
            DeviceNews::GroupMessages(messages) => {
                if let Some(take) = self.group_messages.get() {
                    take(messages);
                }
            }
            DeviceNews::Marks(user, conv, marks) => {
                for link in self.attendance.devices(user, |_| true) {
                    post(&link, MemberNews::Marks(conv, marks));
                }
            }
            DeviceNews::Show(user, frame) => {
                let links = self.attendance.devices(user, |_| true);
                let is_shown = !links.is_empty() && self.shows_typing(user, &frame, Instant::now());
                for link in links.into_iter().filter(|_| is_shown) {
                    post(&link, MemberNews::Show(frame.clone()));
                }
            }
            DeviceNews::End(user, device, DeviceEnd::Replaced(login)) => {
                let is_older = |other: &DeviceLink<Posted>| other.login < login;
                for link in self.attendance.devices(user, |other| other.device == device && is_older(other)) {
                    post(&link, MemberNews::End(Reason::Replaced));
                }
            }
            DeviceNews::End(user, device, DeviceEnd::Revoked) => {
                for link in self.attendance.devices(user, |other| other.device == device) {
                    post(&link, MemberNews::End(Reason::Revoked));
                }
            }
            DeviceNews::Joined(user, conv, from) => {
                for link in self.attendance.devices(user, |_| true) {
                    post(&link, MemberNews::Pump(vec![PumpEvent::Joined { conv, from }]));
                }
            }
            DeviceNews::Left(user, conv, last) => {
                for link in self.attendance.devices(user, |_| true) {
                    post(&link, MemberNews::Pump(vec![PumpEvent::Left { conv, seen: Some((1, last)) }]));
                }
            }
            DeviceNews::UsesLevel2(user) => self.parts.audience.add(user),
            DeviceNews::Blocked(user, other, true) => {
                self.parts.blocks.add(user, other);
                self.parts.watchers.part(user, other);
            }
            DeviceNews::Blocked(user, other, false) => self.parts.blocks.remove(user, other),
            DeviceNews::LoggedOut(user) => {
                if let Some(log_out) = self.logged_out.get() {
                    log_out(user);
                }
            }
        }
    }

    fn on_rejoined(&self) -> Vec<UserId> {
        self.parts.groups.forget();
        if let Some(sweep) = self.missed.get() {
            sweep();
        }
        let mut all = Vec::new();
        for shard in self.attendance.presence.shards() {
            for user in shard.users() {
                self.attendance.states.note(user, UserState::Online);
                all.push(user);
            }
            all.extend(shard.joining());
        }
        all
    }
}

fn post(link: &ClientLink, news: MemberNews) {
    link.post(Posted::Member(Box::new(news)));
}
