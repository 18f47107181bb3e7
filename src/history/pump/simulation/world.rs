//! The schedule: what happens next, and whether it ended well.

use super::client::{LEFT, ME, Stored};
use super::device::{Connection, Device};
use super::random::Random;
use super::store::Store;
use crate::base::conversation::{ConversationId, Seq};
use crate::history::pump::{PumpEvent, SendAnswer, Submission};
use crate::protocol::level2::frames::{Committed, Refusal};
use crate::protocol::{GroupId, UserId};

const OTHER: UserId = UserId(9);
const DEVICES: usize = 2;
/// The faults that the simulation adds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Faults {
    pub(super) lose_pushes: bool,
    pub(super) sweep: bool,
    pub(super) lose_history: bool,
}

impl Default for Faults {
    fn default() -> Faults {
        Faults { lose_pushes: true, sweep: true, lose_history: false }
    }
}

pub(super) struct World {
    random: Random,
    faults: Faults,
    store: Store,
    devices: Vec<Device>,
    next_cid: u32,
    /// Whether nothing new is sent any more.
    is_finishing: bool,
}

impl World {
    pub(super) fn new(seed: u64, faults: Faults) -> World {
        let mut world = World {
            random: Random::new(seed),
            faults,
            store: Store::default(),
            devices: (0..DEVICES).map(|_| Device::default()).collect(),
            next_cid: 0,
            is_finishing: false,
        };
        for group in [3, 5] {
            let conv = ConversationId::of_group(GroupId(group));
            world.store.begin_group(conv);
        }
        for _ in 0..world.random.below(60) {
            let conv = world.some_conv();
            world.commit_by_other(conv);
        }
        world
    }

    fn some_conv(&mut self) -> ConversationId {
        match self.random.below(5) {
            0 => ConversationId::of_group(GroupId(3)),
            1 => ConversationId::of_group(GroupId(5)),
            2 => ConversationId::between(ME, UserId(11)),
            3 => ConversationId::between(ME, ME),
            _ => ConversationId::between(ME, OTHER),
        }
    }

    pub(super) fn step(&mut self) {
        let device = self.random.below(DEVICES as u64) as usize;
        match self.random.below(100) {
            0..10 => {
                let conv = self.some_conv();
                for _ in 0..=self.random.below(3) {
                    self.commit_by_other(conv);
                }
            }
            10..13 if self.devices[device].connection.is_none() => self.connect(device),
            10..12 if self.random.below(4) == 0 => self.devices[device].connection = None,
            13..15 => self.membership(),
            15..16 => self.raise_floor(),
            16..17 if self.faults.lose_history && self.random.below(4) == 0 => self.lose_history(),
            17..19 if self.faults.sweep => self.sweep(),
            19..33 => self.send(device),
            33..35 => self.devices[device].ask_again(),
            35..50 => self.run_job(device),
            50..60 => self.deliver_result(device),
            60..70 => self.deliver_push(device),
            70..73 => self.with_connection(device, Connection::deliver_membership),
            73..83 => self.commit_own(device),
            83..90 => self.with_connection(device, Connection::deliver_answer),
            _ => self.read_output(device),
        }
    }

    /// Lets everything come to rest, and compares what the clients have with the history.
    pub(super) fn finish(&mut self) {
        self.is_finishing = true;
        self.rest();
        if self.store.has_lost {
            // A loss shows when another message gets the lost numbers.
            let mine: Vec<ConversationId> = self.store.mine().map(|(conv, _)| conv).collect();
            mine.into_iter().for_each(|conv| self.commit_by_other(conv));
            self.rest();
        }
        for device in 0..DEVICES {
            self.check(device);
        }
        self.check_order_of_sending();
    }

    /// Continues until nothing is on its way.
    fn rest(&mut self) {
        let mut rounds = 0;
        loop {
            for device in 0..DEVICES {
                if self.devices[device].connection.as_ref().is_none_or(|connection| connection.is_closed) {
                    self.connect(device);
                }
                for _ in 0..30 {
                    self.send(device);
                    self.with_connection(device, Connection::deliver_membership);
                    self.run_job(device);
                    self.deliver_result(device);
                    self.deliver_push(device);
                    self.commit_own(device);
                    self.with_connection(device, Connection::deliver_answer);
                    self.read_output(device);
                }
            }
            let is_resting = self.devices.iter().all(|device| {
                let connection = device.connection.as_ref().expect("it is connected");
                connection.is_resting() && device.disk.outbox.is_empty()
            });
            if is_resting {
                break;
            }
            rounds += 1;
            assert!(rounds < 200, "the world does not come to rest: {}", self.unrest());
            if self.faults.sweep {
                self.sweep();
            }
        }
        if self.faults.sweep {
            self.sweep();
            for device in 0..DEVICES {
                for _ in 0..200 {
                    self.run_job(device);
                    self.deliver_result(device);
                    self.deliver_push(device);
                    self.read_output(device);
                }
            }
        }
    }

    /// The clients that still wait, and the frames that they wait for.
    fn unrest(&self) -> String {
        let show = |device: &Device| {
            let connection = device.connection.as_ref();
            connection
                .map(|connection| format!("{:?} {:?} {:?}", device.disk.outbox, connection.client, connection.pump))
        };
        self.devices.iter().filter_map(show).collect::<Vec<_>>().join("\n")
    }

    /// Checks that the client has stored the history.
    fn check(&mut self, device: usize) {
        let store = &self.store;
        for (conv, conversation) in &store.convs {
            if !conversation.is_mine(*conv) {
                continue;
            }
            let extent = conversation.extent();
            let nothing = Stored::default();
            let stored = self.devices[device].disk.convs.get(conv).unwrap_or(&nothing);
            // A conversation of which it holds nothing is known from its 43.
            let Some(cursor) = stored.cursor else { continue };
            let in_gap = |seq: Seq| stored.gaps.iter().any(|(first, last)| (*first..=*last).contains(&seq));
            assert_eq!(cursor.seq.max(extent.floor), extent.head, "device {device} has all of {conv:?}");
            for row in &conversation.rows {
                let own = stored.messages.get(&row.at.seq);
                if row.at.seq > extent.floor && !in_gap(row.at.seq) {
                    assert_eq!(own, Some(&row.cid), "{} of {conv:?} on device {device}", row.at.seq);
                }
                // A cursor below the floor counts as the floor, whatever was lost there.
                assert!(own.is_none_or(|own| *own == row.cid) || row.at.seq <= extent.floor);
            }
        }
    }

    /// Checks that each cid exists once, and those of a device are in the order of sending.
    fn check_order_of_sending(&self) {
        for conversation in self.store.convs.values() {
            for device in 0..DEVICES {
                let own: Vec<u32> = conversation.rows.iter().filter_map(|row| number(&row.cid, device)).collect();
                assert!(own.is_sorted_by(|a, b| a < b) || self.store.has_lost, "device {device}: {own:?}");
            }
        }
    }

    fn connect(&mut self, device: usize) {
        self.devices[device].connect(&self.store);
    }

    fn commit_by_other(&mut self, conv: ConversationId) {
        self.next_cid += 1;
        let cid = format!("x{}", self.next_cid);
        // Notes to oneself come from another client of the user, at level 1 say.
        let from = if conv == ConversationId::between(ME, ME) || self.random.below(5) == 0 { ME } else { OTHER };
        self.commit(conv, from, cid);
    }

    /// Commits a message, and may tell all connections.
    fn commit(&mut self, conv: ConversationId, from: UserId, cid: String) -> Committed {
        let at = self.store.append(conv, from, cid);
        if self.store.is_mine(conv) {
            self.publish(conv, at.seq);
        }
        at
    }

    fn publish(&mut self, conv: ConversationId, seq: Seq) {
        let (row, before) = (self.store.row(conv, seq), self.store.tag(conv, seq - 1));
        for device in &mut self.devices {
            let Some(connection) = &mut device.connection else { continue };
            let times = match self.random.below(10) {
                0 | 1 if self.faults.lose_pushes => 0,
                2 => 2,
                _ => 1,
            };
            for _ in 0..times {
                connection.pushes.push(PumpEvent::Push { conv, row: row.clone(), before });
            }
        }
    }

    fn membership(&mut self) {
        let conv = ConversationId::of_group(GroupId(5));
        self.next_cid += 1;
        let event = if self.store.is_mine(conv) {
            let at = self.store.append(conv, OTHER, format!("{LEFT}{}", self.next_cid));
            self.publish(conv, at.seq);
            let seen = self.store.leave(conv).filter(|_| self.random.below(4) > 0).map(|first| (first, at.seq));
            PumpEvent::Left { conv, seen }
        } else {
            let at = self.store.append(conv, OTHER, format!("joined{}", self.next_cid));
            self.store.join(conv, at.seq);
            self.publish(conv, at.seq);
            PumpEvent::Joined { conv, from: at.seq }
        };
        for device in &mut self.devices {
            let is_lost = self.faults.lose_pushes && self.random.below(10) == 0;
            if let Some(connection) = device.connection.as_mut().filter(|_| !is_lost) {
                connection.memberships.push_back(event.clone());
            }
        }
    }

    fn raise_floor(&mut self) {
        let conv = self.some_conv();
        let steps = self.random.below(5) as Seq;
        self.store.raise_floor(conv, steps);
    }

    fn lose_history(&mut self) {
        let conv = self.some_conv();
        let count = self.random.below(4) as usize;
        if !self.store.lose_end(conv, count) {
            return;
        }
        // Where the user comes and goes, the membership may be lost as well. News of that are not
        // part of this.
        if self.random.below(3) == 0 || conv == ConversationId::of_group(GroupId(5)) {
            for device in &mut self.devices {
                device.connection = None;
            }
        }
    }

    fn sweep(&mut self) {
        let lasts: Vec<_> = self.store.mine().filter_map(|(conv, _)| Some((conv, self.store.last(conv)?))).collect();
        for connection in self.devices.iter_mut().filter_map(|device| device.connection.as_mut()) {
            for (conv, at) in &lasts {
                connection.feed(PumpEvent::Last { conv: *conv, at: *at });
            }
        }
    }

    /// Makes the client send something new, or retry.
    fn send(&mut self, device: usize) {
        let new = (self.random.below(3) > 0).then(|| self.some_conv());
        if let Some(conv) = new
            && !self.is_finishing
            && self.devices[device].disk.outbox.len() < 9
            && self.store.is_mine(conv)
            && conv != ConversationId::of_group(GroupId(5))
        {
            self.next_cid += 1;
            let cid = format!("d{device}-{}", self.next_cid);
            self.devices[device].disk.outbox.push((conv, cid));
        }
        self.devices[device].send(self.next_cid.is_multiple_of(3));
    }

    fn run_job(&mut self, device: usize) {
        let fails = self.random.below(12) == 0;
        let limit = 1 + self.random.below(4) as usize;
        if let Some(connection) = &mut self.devices[device].connection {
            connection.run_job(&self.store, fails, limit);
        }
    }

    fn deliver_result(&mut self, device: usize) {
        let at = self.random.below(8) as usize;
        self.with_connection(device, |connection| connection.deliver_result(at));
    }

    fn deliver_push(&mut self, device: usize) {
        let at = self.random.below(100) as usize;
        self.with_connection(device, |connection| connection.deliver_push(at));
    }

    fn read_output(&mut self, device: usize) {
        let count = self.random.below(6);
        self.devices[device].read_output(count, &self.store);
    }

    fn with_connection(&mut self, device: usize, act: impl FnOnce(&mut Connection)) {
        if let Some(connection) = &mut self.devices[device].connection {
            act(connection);
        }
    }

    /// Commits the oldest send of a connection, or makes it fail.
    fn commit_own(&mut self, device: usize) {
        let Some(connection) = &mut self.devices[device].connection else { return };
        let Some((conv, cid, Submission { id, resumes })) = connection.lane.pop_front() else { return };
        let failure = Refusal { errno: 503, errmsg: "the database is away, try again", retry_after: Some(1500) };
        if resumes {
            connection.lane_failed.remove(&conv);
        }
        // Sends after a failure fail with it.
        let is_behind = connection.lane_failed.contains(&conv);
        if is_behind || self.random.below(10) == 0 {
            connection.lane_failed.insert(conv);
            connection.answers.push_back(PumpEvent::Answered { conv, id, answer: SendAnswer::Refused(failure) });
            // The outcome is in doubt: the message is stored, and nobody knows.
            let is_in_doubt = self.faults.sweep && !is_behind && !is_refused(&cid) && self.random.below(2) == 0;
            if is_in_doubt && self.store.find(conv, &cid).is_none() {
                self.store.append(conv, ME, cid);
            }
            return;
        }
        let answer = match self.store.find(conv, &cid) {
            Some(at) => SendAnswer::Again(at),
            None if is_refused(&cid) => SendAnswer::Refused(Refusal::forever(409, "use a new cid")),
            None => {
                let before = self.store.last(conv).map(|last| last.tag);
                SendAnswer::New(self.commit(conv, ME, cid), before)
            }
        };
        let Some(connection) = &mut self.devices[device].connection else { return };
        connection.answers.push_back(PumpEvent::Answered { conv, id, answer });
    }
}

/// The number of a cid of this device.
fn number(cid: &str, device: usize) -> Option<u32> {
    cid.strip_prefix(&format!("d{device}-"))?.parse().ok()
}

/// Some sends are permanently refused, however often they are retried.
fn is_refused(cid: &str) -> bool {
    (0..DEVICES).filter_map(|device| number(cid, device)).any(|number| number % 11 == 3)
}
