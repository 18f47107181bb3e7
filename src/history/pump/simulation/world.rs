//! The model of the store, the lanes and the network, and the schedule.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use super::client::{Client, Disk, Stored, Truth};
use crate::base::conversation::{ConversationId, Cursor, Seq, Tag};
use crate::history::cursor::{self, Extent, HeldCursor};
use crate::history::pump::{
    Command, Commands, FoundCursor, Heads, Pump, PumpEvent, PumpLimits, Row, RowPage, SendAnswer, Submission,
};
use crate::protocol::level2::Rid;
use crate::protocol::level2::frames::{self, Committed, Message, Overview, Refusal};
use crate::protocol::{GroupId, UserId};

/// The user whose connections are simulated.
pub(super) const ME: UserId = UserId(7);
const OTHER: UserId = UserId(9);
/// What the message that ends the user's membership begins with.
pub(super) const LEFT: &str = "left";
const DEVICES: usize = 2;
const OUTPUT_HIGH: usize = 2_000;

/// What is against the pump.
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
    /// Nothing new is sent any more.
    is_finishing: bool,
}

/// The model of the store.
#[derive(Default)]
struct Store {
    convs: BTreeMap<ConversationId, Conversation>,
    time: i64,
    has_lost: bool,
}

#[derive(Default, Clone)]
struct Conversation {
    rows: Vec<Stored1>,
    floor: Seq,
    /// Of a group: the first number of the membership, 0 if the user is not a member.
    joined: Option<Seq>,
    /// Every floor that the user had.
    floors: Vec<Seq>,
}

#[derive(Clone, Debug)]
struct Stored1 {
    from: UserId,
    cid: String,
    at: Committed,
}

#[derive(Default)]
struct Device {
    disk: Disk,
    connection: Option<Connection>,
}

struct Connection {
    pump: Pump,
    client: Client,
    /// Written and not read by the client.
    output: VecDeque<Arc<str>>,
    /// Jobs: what was read, and is on its way back.
    jobs: VecDeque<Job>,
    results: Vec<PumpEvent>,
    /// Pushes on their way.
    pushes: Vec<PumpEvent>,
    /// Membership events, in order.
    memberships: VecDeque<PumpEvent>,
    /// Sends on their way to a commit, and answers on their way back, in order.
    lane: VecDeque<(ConversationId, String, Submission)>,
    /// Conversations in which a send failed, until one resumes.
    lane_failed: HashSet<ConversationId>,
    answers: VecDeque<PumpEvent>,
    takes_requests: bool,
    overview: VecDeque<(ConversationId, Extent)>,
    syncs: u32,
    is_closed: bool,
}

enum Job {
    Heads { rid: Option<Rid>, have: Vec<(ConversationId, Cursor)> },
    Overview,
    Read { conv: ConversationId, from: Seq, to: Option<Seq> },
}

impl World {
    pub(super) fn new(seed: u64, faults: Faults) -> World {
        let mut world = World {
            random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            faults,
            store: Store::default(),
            devices: (0..DEVICES).map(|_| Device::default()).collect(),
            next_cid: 0,
            is_finishing: false,
        };
        for group in [3, 5] {
            let conv = ConversationId::of_group(GroupId(group));
            world.store.convs.entry(conv).or_default().joined = Some(1);
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
            33..35 => self.ask_again(device),
            35..50 => self.run_job(device),
            50..60 => self.deliver_result(device),
            60..70 => self.deliver_push(device),
            70..73 => self.deliver_membership(device),
            73..83 => self.commit_own(device),
            83..90 => self.deliver_answer(device),
            _ => self.read_output(device),
        }
    }

    /// Lets everything come to rest, and compares what the clients have with the history.
    pub(super) fn finish(&mut self) {
        self.is_finishing = true;
        let mut rounds = 0;
        loop {
            for device in 0..DEVICES {
                if self.devices[device].connection.as_ref().is_none_or(|connection| connection.is_closed) {
                    self.connect(device);
                }
                for _ in 0..30 {
                    self.send(device);
                    self.deliver_membership(device);
                    self.run_job(device);
                    self.deliver_result(device);
                    self.deliver_push(device);
                    self.commit_own(device);
                    self.deliver_answer(device);
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
        for device in 0..DEVICES {
            self.check(device);
        }
        self.check_order_of_sending();
    }

    /// The clients that still wait, and what for.
    fn unrest(&self) -> String {
        let show = |device: &Device| {
            let connection = device.connection.as_ref();
            connection
                .map(|connection| format!("{:?} {:?} {:?}", device.disk.outbox, connection.client, connection.pump))
        };
        self.devices.iter().filter_map(show).collect::<Vec<_>>().join("\n")
    }

    /// What the client has stored is the history.
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

    /// Each cid is there once, and those of a device in the order of sending.
    fn check_order_of_sending(&self) {
        for conversation in self.store.convs.values() {
            for device in 0..DEVICES {
                let own: Vec<u32> = conversation.rows.iter().filter_map(|row| number(&row.cid, device)).collect();
                assert!(own.is_sorted_by(|a, b| a < b) || self.store.has_lost, "device {device}: {own:?}");
            }
        }
    }

    fn connect(&mut self, device: usize) {
        let disk = &self.devices[device].disk;
        let mut have = Vec::new();
        for (conv, stored) in &disk.convs {
            // A tag that is not known: the number was in a gap or below a floor.
            let Some(cursor) = stored.cursor else { continue };
            let known = stored.messages.contains_key(&cursor.seq) || self.store.has_lost;
            let tag = if known { cursor.tag } else { self.store.tag(*conv, cursor.seq).unwrap_or(Tag(0)) };
            have.push((*conv, Cursor { seq: cursor.seq, tag }));
        }
        let cursors = have.iter().map(|(conv, cursor)| (*conv, cursor.seq)).collect();
        let limits = PumpLimits { output_high: OUTPUT_HIGH, inflight: 6 };
        let connection = Connection {
            pump: Pump::new(ME, limits),
            client: Client::new(cursors),
            output: VecDeque::new(),
            jobs: VecDeque::from([Job::Heads { rid: None, have }]),
            results: Vec::new(),
            pushes: Vec::new(),
            memberships: VecDeque::new(),
            lane: VecDeque::new(),
            lane_failed: HashSet::new(),
            answers: VecDeque::new(),
            takes_requests: false,
            overview: VecDeque::new(),
            syncs: 0,
            is_closed: false,
        };
        self.devices[device].connection = Some(connection);
    }

    fn commit_by_other(&mut self, conv: ConversationId) {
        self.next_cid += 1;
        let cid = format!("x{}", self.next_cid);
        // Notes to oneself come from another client of the user, at level 1 say.
        let from = if conv == ConversationId::between(ME, ME) || self.random.below(5) == 0 { ME } else { OTHER };
        self.commit(conv, from, cid);
    }

    /// Commits, and tells all connections, perhaps.
    fn commit(&mut self, conv: ConversationId, from: UserId, cid: String) -> Committed {
        let at = self.store.append(conv, from, cid);
        if self.store.convs[&conv].is_mine(conv) {
            self.publish(conv, at.seq);
        }
        at
    }

    fn publish(&mut self, conv: ConversationId, seq: Seq) {
        let row = self.store.row(conv, seq);
        for device in &mut self.devices {
            let Some(connection) = &mut device.connection else { continue };
            let times = match self.random.below(10) {
                0 | 1 if self.faults.lose_pushes => 0,
                2 => 2,
                _ => 1,
            };
            for _ in 0..times {
                connection.pushes.push(PumpEvent::Push { conv, row: row.clone() });
            }
        }
    }

    fn membership(&mut self) {
        let conv = ConversationId::of_group(GroupId(5));
        self.next_cid += 1;
        let event = if self.store.convs[&conv].joined.is_some() {
            let at = self.store.append(conv, OTHER, format!("{LEFT}{}", self.next_cid));
            self.publish(conv, at.seq);
            let first = self.store.convs.get_mut(&conv).and_then(|conversation| conversation.joined.take());
            let seen = first.filter(|_| self.random.below(4) > 0).map(|first| (first, at.seq));
            PumpEvent::Left { conv, seen }
        } else {
            let at = self.store.append(conv, OTHER, format!("joined{}", self.next_cid));
            let conversation = self.store.convs.get_mut(&conv).expect("it is there");
            conversation.joined = Some(at.seq);
            conversation.note_floor();
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
        if let Some(conversation) = self.store.convs.get_mut(&conv) {
            let head = conversation.rows.len() as Seq;
            conversation.floor = (conversation.floor + steps).min(head);
            conversation.note_floor();
        }
    }

    fn lose_history(&mut self) {
        let conv = self.some_conv();
        let count = self.random.below(4) as usize;
        let Some(conversation) = self.store.convs.get_mut(&conv) else { return };
        let left = conversation.rows.len().saturating_sub(count).max(conversation.floor as usize);
        let is_member_since = conversation.joined.unwrap_or(1) as usize;
        conversation.rows.truncate(left.max(is_member_since));
        self.store.has_lost = true;
        // What is lost while a connection is open is noticed only if nothing else takes its numbers
        // before the next read. Hence the server ends connections when its database was restored.
        for device in &mut self.devices {
            device.connection = None;
        }
    }

    fn sweep(&mut self) {
        let heads: Vec<_> = self.store.mine().map(|(conv, extent)| (conv, extent.head)).collect();
        for device in 0..DEVICES {
            for (conv, head) in &heads {
                self.feed(device, PumpEvent::Hint { conv: *conv, head: *head });
            }
        }
    }

    /// The client sends something new, or again.
    fn send(&mut self, device: usize) {
        let new = (self.random.below(3) > 0).then(|| self.some_conv());
        if let Some(conv) = new
            && !self.is_finishing
            && self.devices[device].disk.outbox.len() < 9
            && self.store.convs.get(&conv).is_none_or(|conversation| conversation.is_mine(conv))
            && conv != ConversationId::of_group(GroupId(5))
        {
            self.next_cid += 1;
            let cid = format!("d{device}-{}", self.next_cid);
            self.devices[device].disk.outbox.push((conv, cid));
        }
        let Device { disk, connection: Some(connection) } = &mut self.devices[device] else { return };
        if !connection.takes_requests {
            return;
        }
        // The first of each conversation that is not on its way; behind a failure, or into the
        // failure, as an impatient client would.
        let next = disk.outbox.iter().find(|(conv, cid)| {
            let may_go = match connection.client.failed.get(conv) {
                None => true,
                // Again, when all that was behind it has failed.
                Some(failed) if failed == cid => connection.client.has_answers_of(*conv),
                Some(_) => self.next_cid.is_multiple_of(3),
            };
            !connection.client.is_sent(*conv, cid) && may_go
        });
        let Some((conv, cid)) = next.cloned() else { return };
        // Order of sending: nothing before it in its conversation is to be sent still.
        let earlier = disk.outbox.iter().take_while(|(_, other)| *other != cid);
        let is_next = earlier
            .filter(|(other, _)| *other == conv)
            .all(|(_, other)| connection.client.is_sent(conv, other) || connection.client.failed.contains_key(&conv));
        if !is_next {
            return;
        }
        connection.client.on_sent(conv, &cid);
        let mut out = Commands::new();
        if let Some(submission) = connection.pump.on_send(conv, &cid, &mut out) {
            connection.lane.push_back((conv, cid, submission));
        }
        self.carry_out(device, out);
    }

    fn ask_again(&mut self, device: usize) {
        let Device { disk, connection: Some(connection) } = &mut self.devices[device] else { return };
        if !connection.takes_requests || !connection.client.synced {
            return;
        }
        let have: Vec<_> = disk
            .convs
            .iter()
            .filter(|(_, stored)| !stored.is_closed)
            .filter_map(|(conv, stored)| {
                let cursor = stored.cursor.filter(|cursor| stored.messages.contains_key(&cursor.seq))?;
                Some((*conv, cursor))
            })
            .collect();
        connection.syncs += 1;
        let rid = format!("s{}", connection.syncs);
        connection.client.on_sync(rid.clone(), have.iter().map(|(conv, _)| *conv));
        connection.jobs.push_back(Job::Heads { rid: Rid::text(&rid), have });
        let mut out = Commands::new();
        connection.pump.on_sync(&mut out);
        self.carry_out(device, out);
    }

    /// A job reads the store; what it read is on its way.
    fn run_job(&mut self, device: usize) {
        let fails = self.random.below(12) == 0;
        let limit = 1 + self.random.below(4);
        let Some(connection) = &mut self.devices[device].connection else { return };
        // Heads are read one at a time.
        let has_heads = connection.results.iter().any(|event| matches!(event, PumpEvent::Heads(_)));
        let may_run = |job: &Job| !has_heads || !matches!(job, Job::Heads { .. });
        let Some(job) = connection.jobs.iter().position(may_run).and_then(|at| connection.jobs.remove(at)) else {
            return;
        };
        let event = match job {
            Job::Read { .. } if fails => PumpEvent::PageFailed,
            Job::Read { conv, from, to } => self.store.read(conv, from, to, limit as usize),
            Job::Overview => {
                let count = (limit as usize).min(connection.overview.len());
                let lines: Vec<_> = connection.overview.drain(..count).collect();
                let convs: Vec<_> = lines.iter().map(|(conv, extent)| overview_line(*conv, *extent)).collect();
                let more = !connection.overview.is_empty();
                PumpEvent::Overview { frame: frames::overview(&convs, more).0.into(), more }
            }
            Job::Heads { rid, have } => {
                let heads = self.store.heads(rid, have);
                if heads.rid.is_none() {
                    connection.overview = heads.convs.iter().copied().collect();
                }
                PumpEvent::Heads(heads)
            }
        };
        connection.results.push(event);
    }

    fn deliver_result(&mut self, device: usize) {
        let at = self.random.below(8) as usize;
        let Some(connection) = &mut self.devices[device].connection else { return };
        if connection.results.is_empty() {
            return;
        }
        let event = connection.results.remove(at % connection.results.len());
        self.feed(device, event);
    }

    fn deliver_push(&mut self, device: usize) {
        let at = self.random.below(100) as usize;
        let Some(connection) = &mut self.devices[device].connection else { return };
        if connection.pushes.is_empty() {
            return;
        }
        let event = connection.pushes.remove(at % connection.pushes.len());
        self.feed(device, event);
    }

    fn deliver_membership(&mut self, device: usize) {
        let Some(connection) = &mut self.devices[device].connection else { return };
        if let Some(event) = connection.memberships.pop_front() {
            self.feed(device, event);
        }
    }

    fn deliver_answer(&mut self, device: usize) {
        let Some(connection) = &mut self.devices[device].connection else { return };
        if let Some(event) = connection.answers.pop_front() {
            self.feed(device, event);
        }
    }

    /// The lane commits the oldest send of a connection, or fails.
    fn commit_own(&mut self, device: usize) {
        let Some(connection) = &mut self.devices[device].connection else { return };
        let Some((conv, cid, Submission { id, resumes })) = connection.lane.pop_front() else { return };
        let failure = Refusal { errno: 503, errmsg: "the database is away, try again", retry_after: Some(1500) };
        if resumes {
            connection.lane_failed.remove(&conv);
        }
        // Those behind a failure fail with it.
        let is_behind = connection.lane_failed.contains(&conv);
        if is_behind || self.random.below(10) == 0 {
            connection.lane_failed.insert(conv);
            connection.answers.push_back(PumpEvent::Answered { conv, id, answer: SendAnswer::Refused(failure) });
            // In doubt: it is there, and nobody knows.
            let is_in_doubt = self.faults.sweep && !is_behind && !is_refused(&cid) && self.random.below(2) == 0;
            if is_in_doubt && self.store.find(conv, &cid).is_none() {
                self.store.append(conv, ME, cid);
            }
            return;
        }
        let answer = match self.store.find(conv, &cid) {
            Some(at) => SendAnswer::Again(at),
            None if is_refused(&cid) => SendAnswer::Refused(Refusal::forever(409, "use a new cid")),
            None => SendAnswer::New(self.commit(conv, ME, cid)),
        };
        let Some(connection) = &mut self.devices[device].connection else { return };
        connection.answers.push_back(PumpEvent::Answered { conv, id, answer });
    }

    fn read_output(&mut self, device: usize) {
        let count = self.random.below(6);
        let Device { disk, connection: Some(connection) } = &mut self.devices[device] else { return };
        for _ in 0..count {
            if let Some(frame) = connection.output.pop_front() {
                connection.client.on_frame(&frame, disk, &self.store);
            }
        }
        let waiting = connection.waiting();
        self.feed(device, PumpEvent::Output(waiting));
    }

    fn feed(&mut self, device: usize, event: PumpEvent) {
        let Some(connection) = &mut self.devices[device].connection else { return };
        let mut out = Commands::new();
        connection.pump.on(event, &mut out);
        self.carry_out(device, out);
    }

    fn carry_out(&mut self, device: usize, out: Commands) {
        let Some(connection) = &mut self.devices[device].connection else { return };
        let mut pauses = false;
        for command in out {
            match command {
                Command::Write(frame) => connection.output.push_back(frame),
                Command::Overview => connection.jobs.push_back(Job::Overview),
                Command::Read { conv, from, to } => connection.jobs.push_back(Job::Read { conv, from, to }),
                Command::Pause => pauses = true,
                Command::StopRequests => connection.takes_requests = false,
                Command::TakeRequests => connection.takes_requests = true,
                Command::Close(_) => connection.is_closed = true,
            }
        }
        // A page has at most four messages here, and a 43 four conversations.
        assert!(connection.waiting() < OUTPUT_HIGH + 3_000, "{} bytes wait", connection.waiting());
        if pauses {
            connection.results.push(PumpEvent::Retry);
        }
    }
}

impl Connection {
    fn waiting(&self) -> usize {
        self.output.iter().map(|frame| frame.len()).sum()
    }

    fn is_resting(&self) -> bool {
        let on_their_way = self.jobs.len() + self.results.len() + self.pushes.len() + self.memberships.len();
        on_their_way + self.lane.len() + self.answers.len() + self.output.len() == 0 && self.client.is_idle()
    }
}

impl Store {
    fn append(&mut self, conv: ConversationId, from: UserId, cid: String) -> Committed {
        self.time += 1;
        let conversation = self.convs.entry(conv).or_default();
        let seq = conversation.rows.len() as Seq + 1;
        let at = Committed { seq, tag: Tag(self.time as u32 * 7), time: self.time };
        conversation.rows.push(Stored1 { from, cid, at });
        at
    }

    fn find(&self, conv: ConversationId, cid: &str) -> Option<Committed> {
        self.convs.get(&conv)?.rows.iter().find(|row| row.cid == cid).map(|row| row.at)
    }

    fn tag(&self, conv: ConversationId, seq: Seq) -> Option<Tag> {
        self.convs.get(&conv)?.rows.get(usize::try_from(seq - 1).ok()?).map(|row| row.at.tag)
    }

    fn row(&self, conv: ConversationId, seq: Seq) -> Row {
        let row = &self.convs[&conv].rows[seq as usize - 1];
        let frame = format!(r#"{{"msgType":4,"cid":"{}","msg":"hi"}}"#, row.cid);
        let message =
            Message { at: row.at, from: row.from, frame: Some(&frame), edited: None, recalled: None, imported: false };
        Row { seq, from: row.from, frame: frames::pushed(conv.name_for(ME), &message).into() }
    }

    /// The conversations of the user.
    fn mine(&self) -> impl Iterator<Item = (ConversationId, Extent)> {
        let mine = self.convs.iter().filter(|(conv, conversation)| conversation.is_mine(**conv));
        mine.map(|(conv, conversation)| (*conv, conversation.extent()))
    }

    fn heads(&self, rid: Option<Rid>, have: Vec<(ConversationId, Cursor)>) -> Heads {
        let is_login = rid.is_none();
        let named = |conv: &ConversationId| is_login || have.iter().any(|(other, _)| other == conv);
        let convs: Vec<_> = self.mine().filter(|(conv, _)| named(conv)).collect();
        let cursors = have.iter().map(|(conv, cursor)| {
            let is_mine = self.convs.get(conv).is_none_or(|conversation| conversation.is_mine(*conv));
            if !is_mine {
                let refusal = Refusal::forever(403, "you are not in this conversation");
                return FoundCursor::Refused(conv.name_for(ME).to_string().into(), refusal);
            }
            let extent = self.convs.get(conv).map_or(Extent { head: 0, floor: 0 }, Conversation::extent);
            let stored = cursor::needs_tag(cursor.seq, extent).then(|| self.tag(*conv, cursor.seq)).flatten();
            FoundCursor::Own(*conv, HeldCursor { seq: cursor.seq, tag: Some(cursor.tag), stored })
        });
        Heads { rid, cursors: cursors.collect(), convs, resume: 3 }
    }

    fn read(&self, conv: ConversationId, from: Seq, to: Option<Seq>, limit: usize) -> PumpEvent {
        let nothing = Conversation::default();
        let conversation = self.convs.get(&conv).unwrap_or(&nothing);
        // What a member may see, it may see to the end of the membership.
        if !conversation.is_mine(conv) && to.is_none() {
            return PumpEvent::PageDenied(Refusal::forever(403, "you are not in this conversation"));
        }
        let mut extent = conversation.extent();
        if conversation.joined.is_none() && conv.group().is_some() {
            extent.floor = conversation.floor;
        }
        let end = to.unwrap_or(Seq::MAX).min(extent.head);
        let numbers = (from.max(extent.floor + 1)..=end).take(limit);
        PumpEvent::Page(RowPage { extent, rows: numbers.map(|seq| self.row(conv, seq)).collect() })
    }
}

impl Conversation {
    fn is_mine(&self, conv: ConversationId) -> bool {
        conv.group().is_none() || self.joined.is_some()
    }

    fn extent(&self) -> Extent {
        let head = self.rows.len() as Seq;
        Extent { head, floor: self.floor.max(self.joined.unwrap_or(1) - 1).min(head) }
    }

    fn note_floor(&mut self) {
        self.floors.push(self.extent().floor);
    }
}

impl Truth for Store {
    fn cid(&self, conv: ConversationId, seq: Seq) -> Option<String> {
        self.convs.get(&conv)?.rows.get(seq as usize - 1).map(|row| row.cid.clone())
    }

    fn may_reset(&self) -> bool {
        self.has_lost
    }

    fn floor(&self, conv: ConversationId) -> Seq {
        let conversation = &self.convs[&conv];
        conversation.floors.iter().copied().max().unwrap_or(0).max(conversation.extent().floor)
    }

    fn floor_was(&self, conv: ConversationId, seq: Seq) -> bool {
        self.convs[&conv].floors.contains(&seq)
    }
}

fn overview_line(conv: ConversationId, extent: Extent) -> Overview<'static> {
    Overview {
        conv: conv.name_for(ME),
        name: Some("somebody"),
        floor: extent.floor,
        head: extent.head,
        tag: None,
        last: None,
        read: 0,
        peer: None,
        unread: 0,
    }
}

/// The number of a cid of this device.
fn number(cid: &str, device: usize) -> Option<u32> {
    cid.strip_prefix(&format!("d{device}-"))?.parse().ok()
}

/// Some sends are refused for good, however often they come.
fn is_refused(cid: &str) -> bool {
    (0..DEVICES).filter_map(|device| number(cid, device)).any(|number| number % 11 == 3)
}

/// A small generator: the schedule must be the same for a seed on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end.max(1)
    }
}
