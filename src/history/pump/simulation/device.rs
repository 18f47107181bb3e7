//! A device: its client's disk, and its connection with everything on the way between the client,
//! the pump and the store.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use super::client::{Client, Disk, ME};
use super::store::{PageWanted, Store};
use crate::base::conversation::{ConversationId, Cursor, HeldTag, Tag};
use crate::history::cursor::Extent;
use crate::history::pump::{Command, Commands, Pump, PumpEvent, PumpLimits, Submission};
use crate::protocol::level2::Rid;
use crate::protocol::level2::frames::{self, ConversationSummary};

const OUTPUT_HIGH: usize = 2_000;

#[derive(Default)]
pub(super) struct Device {
    pub(super) disk: Disk,
    pub(super) connection: Option<Connection>,
}

pub(super) struct Connection {
    pub(super) pump: Pump,
    pub(super) client: Client,
    /// Frames written and not read by the client.
    output: VecDeque<Arc<str>>,
    /// The results of jobs on their way back.
    jobs: VecDeque<Job>,
    results: Vec<PumpEvent>,
    /// Pushes on their way.
    pub(super) pushes: Vec<PumpEvent>,
    /// Membership events, in order.
    pub(super) memberships: VecDeque<PumpEvent>,
    /// Sends on their way to a commit, and answers on their way back, in order.
    pub(super) lane: VecDeque<(ConversationId, String, Submission)>,
    /// Conversations in which a send failed, until one resumes.
    pub(super) lane_failed: HashSet<ConversationId>,
    pub(super) answers: VecDeque<PumpEvent>,
    takes_requests: bool,
    overview: VecDeque<(ConversationId, Extent)>,
    syncs: u32,
    pub(super) is_closed: bool,
}

enum Job {
    Heads { rid: Option<Rid>, have: Vec<(ConversationId, Cursor)> },
    Overview,
    Read(PageWanted),
}

impl Device {
    /// Connects the client, with the cursors on its disk.
    pub(super) fn connect(&mut self, store: &Store) {
        let mut have = Vec::new();
        for (conv, stored) in &self.disk.convs {
            // A tag that is not known: the number was in a gap or below a floor.
            let Some(cursor) = stored.cursor else { continue };
            let known = stored.messages.contains_key(&cursor.seq) || store.has_lost;
            let there = || HeldTag::Tag(store.tag(*conv, cursor.seq).unwrap_or(Tag(0)));
            let tag = if known { cursor.tag } else { there() };
            have.push((*conv, Cursor { seq: cursor.seq, tag }));
        }
        self.connection = Some(Connection::new(have));
    }

    /// Sends the first message of the outbox that may go. `is_impatient`: even after a failure.
    pub(super) fn send(&mut self, is_impatient: bool) {
        let Device { disk, connection: Some(connection) } = self else { return };
        if !connection.takes_requests {
            return;
        }
        // The first of each conversation that is not on its way; behind a failure, or into the
        // failure, as an impatient client would.
        let next = disk.outbox.iter().find(|(conv, cid)| {
            let may_go = match connection.client.failed.get(conv) {
                None => true,
                // It is retried when everything after it has failed.
                Some(failed) if failed == cid => connection.client.has_answers_of(*conv),
                Some(_) => is_impatient,
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
        connection.carry_out(out);
    }

    /// Sends a 46 with all cursors of the client.
    pub(super) fn ask_again(&mut self) {
        let Device { disk, connection: Some(connection) } = self else { return };
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
        connection.carry_out(out);
    }

    /// Makes the client read up to this number of frames.
    pub(super) fn read_output(&mut self, count: u64, store: &Store) {
        let Device { disk, connection: Some(connection) } = self else { return };
        for _ in 0..count {
            if let Some(frame) = connection.output.pop_front() {
                connection.client.on_frame(&frame, disk, store);
            }
        }
        let waiting = connection.waiting();
        connection.feed(PumpEvent::Output(waiting));
    }
}

impl Connection {
    fn new(have: Vec<(ConversationId, Cursor)>) -> Connection {
        let cursors = have.iter().map(|(conv, cursor)| (*conv, cursor.seq)).collect();
        let limits = PumpLimits { output_high: OUTPUT_HIGH, inflight: 6 };
        Connection {
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
        }
    }

    fn waiting(&self) -> usize {
        self.output.iter().map(|frame| frame.len()).sum()
    }

    /// Whether nothing is on its way.
    pub(super) fn is_resting(&self) -> bool {
        let on_their_way = self.jobs.len() + self.results.len() + self.pushes.len() + self.memberships.len();
        on_their_way + self.lane.len() + self.answers.len() + self.output.len() == 0 && self.client.is_idle()
    }

    /// Makes a job read the store; its result is then on its way. `limit`: the most messages, and
    /// the most lines of a 43.
    pub(super) fn run_job(&mut self, store: &Store, fails: bool, limit: usize) {
        // Heads are read one at a time.
        let has_heads = self.results.iter().any(|event| matches!(event, PumpEvent::Heads(_)));
        let may_run = |job: &Job| !has_heads || !matches!(job, Job::Heads { .. });
        let Some(job) = self.jobs.iter().position(may_run).and_then(|at| self.jobs.remove(at)) else { return };
        let event = match job {
            Job::Read(_) if fails => PumpEvent::PageFailed,
            Job::Read(wanted) => store.read(&wanted, limit),
            Job::Overview => {
                let count = limit.min(self.overview.len());
                let lines: Vec<_> = self.overview.drain(..count).collect();
                let convs: Vec<_> = lines.iter().map(|(conv, extent)| overview_line(*conv, *extent)).collect();
                let more = !self.overview.is_empty();
                PumpEvent::Overview { frame: frames::overview(&convs, more).0.into(), more }
            }
            Job::Heads { rid, have } => {
                let heads = store.heads(rid, have);
                if heads.rid.is_none() {
                    self.overview = heads.convs.iter().map(|(conv, extent, _)| (*conv, *extent)).collect();
                }
                PumpEvent::Heads(heads)
            }
        };
        self.results.push(event);
    }

    /// Delivers a result, which may overtake others.
    pub(super) fn deliver_result(&mut self, at: usize) {
        if !self.results.is_empty() {
            let event = self.results.remove(at % self.results.len());
            self.feed(event);
        }
    }

    /// Delivers a push, which may overtake others.
    pub(super) fn deliver_push(&mut self, at: usize) {
        if !self.pushes.is_empty() {
            let event = self.pushes.remove(at % self.pushes.len());
            self.feed(event);
        }
    }

    /// Delivers the next change of a membership.
    pub(super) fn deliver_membership(&mut self) {
        if let Some(event) = self.memberships.pop_front() {
            self.feed(event);
        }
    }

    /// Delivers the next answer to a send.
    pub(super) fn deliver_answer(&mut self) {
        if let Some(event) = self.answers.pop_front() {
            self.feed(event);
        }
    }

    /// Passes an event to the pump.
    pub(super) fn feed(&mut self, event: PumpEvent) {
        let mut out = Commands::new();
        self.pump.on(event, &mut out);
        self.carry_out(out);
    }

    fn carry_out(&mut self, out: Commands) {
        let mut pauses = false;
        for command in out {
            match command {
                Command::Write(frame) => self.output.push_back(frame),
                Command::Overview => self.jobs.push_back(Job::Overview),
                Command::Read { conv, from, to, written, .. } => {
                    self.jobs.push_back(Job::Read(PageWanted { conv, from, to, written }));
                }
                // The marks are not simulated here.
                Command::Lost(_) => {}
                Command::Pause => pauses = true,
                Command::StopRequests => self.takes_requests = false,
                Command::TakeRequests => self.takes_requests = true,
                Command::Close(_) => self.is_closed = true,
            }
        }
        // A page has at most four messages here, and a 43 four conversations.
        assert!(self.waiting() < OUTPUT_HIGH + 3_000, "{} bytes wait", self.waiting());
        if pauses {
            self.results.push(PumpEvent::Retry);
        }
    }
}

fn overview_line(conv: ConversationId, extent: Extent) -> ConversationSummary<'static> {
    ConversationSummary {
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
