//! A strict client: the messages that it stores, those not acknowledged yet, and the frames that it
//! expects next.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use serde_json::Value;

use crate::base::conversation::{ConversationId, ConversationName, Cursor, HeldTag, Seq, Tag};
use crate::protocol::{GroupId, UserId};

/// The user whose connections are simulated.
pub(super) const ME: UserId = UserId(7);
/// The beginning of the message that ends the user's membership.
pub(super) const LEFT: &str = "left";

/// The client's database, which outlives connections.
#[derive(Debug, Default)]
pub(super) struct Disk {
    pub(super) convs: BTreeMap<ConversationId, Stored>,
    /// Messages that are not acknowledged, in the order sent.
    pub(super) outbox: Vec<(ConversationId, String)>,
}

#[derive(Debug, Default)]
pub(super) struct Stored {
    pub(super) cursor: Option<Cursor>,
    /// The cid of each message.
    pub(super) messages: BTreeMap<Seq, String>,
    pub(super) gaps: Vec<(Seq, Seq)>,
    /// Whether the user is no longer in it.
    pub(super) is_closed: bool,
}

/// A connection of the client, and the frames that it expects.
#[derive(Debug, Default)]
pub(super) struct Client {
    stage: Stage,
    /// The heads of the 43s.
    heads: HashMap<ConversationId, Seq>,
    /// The conversations of these with nothing above their floor.
    empty: HashSet<ConversationId>,
    /// The next number of each conversation.
    places: HashMap<ConversationId, Seq>,
    /// Conversations whose 44 must come before anything else of them, and 45.
    awaited: HashSet<ConversationId>,
    /// The runs in progress, each with its last number.
    runs: HashMap<ConversationId, Seq>,
    /// Messages that were sent on this connection and have no 41.
    sent: HashMap<ConversationId, VecDeque<String>>,
    /// Conversations whose first failed send was not retried yet.
    pub(super) failed: HashMap<ConversationId, String>,
    /// Groups that the user left, with the number that said so.
    ended: HashMap<ConversationId, Seq>,
    /// The cursors that the client gave in `have`.
    have: HashMap<ConversationId, Seq>,
    /// The 46s without their 45, and the conversations that they named.
    syncs: VecDeque<(String, HashSet<ConversationId>)>,
    pub(super) synced: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Stage {
    #[default]
    Overview,
    Live,
}

/// The truth of the model, for the client to check a frame against.
pub(super) trait Truth {
    fn cid(&self, conv: ConversationId, seq: Seq) -> Option<String>;
    fn may_reset(&self) -> bool;
    fn floor(&self, conv: ConversationId) -> Seq;
    fn floor_was(&self, conv: ConversationId, seq: Seq) -> bool;
}

impl Client {
    /// A connection that gives these cursors.
    pub(super) fn new(have: HashMap<ConversationId, Seq>) -> Client {
        Client { have, ..Client::default() }
    }

    /// Asks with a 46.
    pub(super) fn on_sync(&mut self, rid: String, convs: impl Iterator<Item = ConversationId>) {
        self.syncs.push_back((rid, convs.collect()));
    }

    /// Notes that a send leaves.
    pub(super) fn on_sent(&mut self, conv: ConversationId, cid: &str) {
        if self.failed.get(&conv).is_some_and(|failed| failed == cid) {
            self.failed.remove(&conv);
        }
        self.sent.entry(conv).or_default().push_back(cid.to_owned());
    }

    pub(super) fn unanswered(&self) -> usize {
        self.sent.values().map(VecDeque::len).sum()
    }

    pub(super) fn is_sent(&self, conv: ConversationId, cid: &str) -> bool {
        self.sent.get(&conv).is_some_and(|sent| sent.iter().any(|sent| sent == cid))
    }

    pub(super) fn has_answers_of(&self, conv: ConversationId) -> bool {
        self.sent.get(&conv).is_none_or(VecDeque::is_empty)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.synced && self.syncs.is_empty() && self.unanswered() == 0
    }

    pub(super) fn on_frame(&mut self, text: &str, disk: &mut Disk, truth: &dyn Truth) {
        let frame: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        match frame["msgType"].as_i64() {
            Some(41) => self.on_ack(&frame, disk, truth),
            Some(42) => self.on_message(&frame, disk, truth),
            Some(43) => self.on_overview(&frame, disk),
            Some(44) => self.on_run(&frame, disk, truth),
            Some(45) => self.on_synced(&frame, truth),
            other => panic!("{other:?}: {text}"),
        }
    }

    fn on_ack(&mut self, frame: &Value, disk: &mut Disk, truth: &dyn Truth) {
        let cid = frame["cid"].as_str().expect("a cid");
        // 41s come in the order sent in each conversation.
        let (conv, sent) = self.sent.iter_mut().find(|(_, sent)| sent.contains(&cid.to_owned())).expect("it was sent");
        let conv = *conv;
        assert_eq!(sent.pop_front().as_deref(), Some(cid), "41s come in the order sent");
        match frame["errno"].as_u64() {
            Some(200) => {
                assert!(!self.failed.contains_key(&conv), "what is behind a failure fails: {frame}");
                let seq = frame["seq"].as_i64().expect("a number");
                if !truth.may_reset() {
                    assert_eq!(truth.cid(conv, seq).as_deref(), Some(cid), "what is acknowledged is there: {frame}");
                }
                disk.outbox.retain(|(_, other)| other != cid);
                if frame["again"].as_bool() != Some(true) {
                    self.take_place(conv, seq, "a 41", truth);
                    disk.store(conv, frame, cid);
                }
            }
            Some(503) => {
                assert!(frame["retryAfter"].is_number());
                self.failed.entry(conv).or_insert_with(|| cid.to_owned());
            }
            Some(409) => {
                if self.failed.contains_key(&conv) {
                    panic!("a refusal for good after a failure: {frame}");
                }
                disk.outbox.retain(|(_, other)| other != cid);
            }
            other => panic!("{other:?}: {frame}"),
        }
    }

    fn on_message(&mut self, frame: &Value, disk: &mut Disk, truth: &dyn Truth) {
        let conv = conv(frame);
        let seq = frame["seq"].as_i64().expect("a number");
        let cid = frame["m"]["cid"].as_str().expect("a cid");
        if !truth.may_reset() {
            assert_eq!(truth.cid(conv, seq).as_deref(), Some(cid), "{frame}");
        }
        self.take_place(conv, seq, "a 42", truth);
        disk.store(conv, frame, cid);
        if cid.starts_with(LEFT) {
            // The last of it, unless the user has come back: then a 44 or the next number follows.
            self.ended.insert(conv, seq);
        }
    }

    /// The numbers of 42s and own 41s ascend without a hole.
    fn take_place(&mut self, conv: ConversationId, seq: Seq, what: &str, truth: &dyn Truth) {
        assert_eq!(self.stage, Stage::Live, "{what} before the last 43");
        assert!(!self.awaited.contains(&conv), "{what} with {seq} in {conv:?} before its run");
        let has_ended = self.ended.remove(&conv).is_some_and(|last| self.places.get(&conv) == Some(&last));
        let place = self.places.get_mut(&conv).filter(|place| !has_ended || seq == **place + 1);
        let Some(place) = place else {
            // A conversation that was in no 43 begins with 1, or where the membership does.
            assert!(seq == 1 || truth.floor_was(conv, seq - 1), "{what}: {conv:?} begins with {seq}");
            self.places.insert(conv, seq);
            return;
        };
        assert_eq!(seq, *place + 1, "{what} in {conv:?} is not the next");
        *place = seq;
    }

    fn on_overview(&mut self, frame: &Value, disk: &Disk) {
        assert_eq!(self.stage, Stage::Overview, "43s are over");
        for line in frame["convs"].as_array().expect("a list") {
            let head = line["head"].as_i64().expect("a number");
            let was = self.heads.insert(conv(line), head);
            assert_eq!(was, None, "each conversation is in one 43");
            self.places.insert(conv(line), head);
            if line["floor"].as_i64() == Some(head) {
                self.empty.insert(conv(line));
            }
        }
        if frame["more"].as_bool() == Some(false) {
            self.stage = Stage::Live;
            for (conv, seq) in &self.have {
                let head = self.heads.get(conv).copied();
                let is_behind = head.is_none_or(|head| *seq > head || *seq < head && !self.empty.contains(conv));
                if is_behind || disk.convs.get(conv).is_some_and(|stored| stored.is_closed) {
                    self.awaited.insert(*conv);
                }
            }
        }
    }

    fn on_run(&mut self, frame: &Value, disk: &mut Disk, truth: &dyn Truth) {
        assert_eq!(self.stage, Stage::Live);
        let conv = conv(frame);
        let was_awaited = self.awaited.remove(&conv);
        if frame.get("errno").is_some() {
            disk.convs.entry(conv).or_default().is_closed = true;
            self.places.remove(&conv);
            self.runs.remove(&conv);
            return;
        }
        let number = |key: &str| frame[key].as_i64().expect("a number");
        let (from, to) = (number("from"), number("to"));
        assert!(from <= to + 1, "{frame}");
        if was_awaited && !self.synced {
            assert!(self.heads.get(&conv).copied().unwrap_or(0) <= to, "the run ends with the head: {frame}");
        }
        let stored = disk.convs.entry(conv).or_default();
        stored.is_closed = false;
        let gap = frame["gap"].as_array().map(|gap| (gap[0].as_i64().unwrap(), gap[1].as_i64().unwrap()));
        assert_eq!(frame["complete"].as_bool(), Some(gap.is_none()));
        if frame["reset"].as_bool() == Some(true) {
            assert!(truth.may_reset(), "nothing was lost: {frame}");
            *stored = Stored::default();
        }
        let cursor = stored.cursor.map_or(0, |cursor| cursor.seq);
        let behind = gap.map_or(from, |gap| gap.0);
        assert!(gap.is_none_or(|gap| gap.0 <= gap.1 && gap.1 == from - 1), "the gap is the rest: {frame}");
        // All numbers after the cursor follow, or are in the gap, or below the floor.
        assert!(behind <= cursor + 1 || behind - 1 <= truth.floor(conv), "a silent hole after {cursor}: {frame}");
        if let Some(gap) = gap {
            stored.gaps.push(gap);
        }
        // The client now holds everything that exists up to here.
        if from - 1 > cursor {
            stored.cursor = Some(Cursor { seq: from - 1, tag: HeldTag::Tag(Tag(0)) });
        }
        self.places.insert(conv, from - 1);
        // A run that nobody requested continues as a live conversation.
        if was_awaited || self.syncs.iter().any(|(_, convs)| convs.contains(&conv)) {
            self.runs.insert(conv, to);
        } else {
            self.runs.remove(&conv);
        }
    }

    fn on_synced(&mut self, frame: &Value, truth: &dyn Truth) {
        if !self.synced {
            self.synced = true;
            assert_eq!(frame.get("rid"), None, "the login's 45 is the first");
            assert!(self.awaited.is_empty(), "no run came for {:?}", self.awaited);
        } else {
            let at = self.syncs.iter().position(|(rid, _)| frame["rid"].as_str() == Some(rid));
            let (_, convs) = self.syncs.remove(at.expect("it was asked for")).expect("it is there");
            for conv in convs {
                // A 44 for a floor that rose meanwhile, or for a lost history, is not a run of this
                // 46.
                if truth.may_reset() || conv == ConversationId::of_group(GroupId(5)) || truth.floor(conv) > 0 {
                    continue;
                }
                let (place, to) = (self.places.get(&conv), self.runs.get(&conv));
                assert!(place >= to, "45 before the end of the run of {conv:?}");
            }
        }
        for (conv, to) in &self.runs {
            // A run for an ended membership or a lost history is over.
            if truth.may_reset() {
                continue;
            }
            if self.have.contains_key(conv) && *conv != ConversationId::of_group(GroupId(5)) {
                assert!(self.places.get(conv).is_none_or(|place| place >= to), "45 before the end of a run");
            }
        }
    }
}

impl Disk {
    /// Stores the message and the cursor in one transaction.
    fn store(&mut self, conv: ConversationId, frame: &Value, cid: &str) {
        let stored = self.convs.entry(conv).or_default();
        stored.is_closed = false;
        let seq = frame["seq"].as_i64().expect("a number");
        let tag = Tag::parse(frame["tag"].as_str().expect("a tag")).expect("a tag");
        let cursor = stored.cursor.map_or(0, |cursor| cursor.seq);
        if seq <= cursor {
            return;
        }
        if seq > cursor + 1 && stored.cursor.is_none() && stored.messages.is_empty() {
            // The conversation was in a 43 and not in `have`: earlier history is paged on demand.
            stored.gaps.push((1, seq - 1));
        } else if seq > cursor + 1 {
            // A conversation that was left out of `have`.
            stored.gaps.push((cursor + 1, seq - 1));
        }
        stored.messages.insert(seq, cid.to_owned());
        stored.cursor = Some(Cursor { seq, tag: HeldTag::Tag(tag) });
    }
}

fn conv(frame: &Value) -> ConversationId {
    let name = frame["conv"].as_str().expect("a name");
    ConversationName::parse(name).unwrap_or_else(|| panic!("{name}")).for_user(ME)
}
