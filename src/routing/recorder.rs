//! [`Recorder`]: commits messages of conversations, and then hands them to everybody.
//!
//! ```text
//!   loops ──▶ lane of the conversation ──▶ one transaction ──▶ devices of level 2, connections of level 1
//!                                                          └─▶ the answer to the sender
//! ```
//! All messages of a conversation pass one lane, so those of one sender keep their order. A push is
//! only a hint to its connection, which reads what it has missed; so nothing is kept for devices
//! here.
//!
//! # Failures
//! While the database is away, sends of level 2 are refused, and their clients repeat them. After a
//! refusal, later sends of the same connection to the same conversation are refused too, until the
//! first one comes again: they were read before their client knew. A message of level 1 goes on
//! without being recorded, as if nobody used level 2.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use net::Turn;
use pool::{Again, Lanes, LanesWatch, Standing};
use rustc_hash::FxHashMap;

use super::audience::Audience;
use super::groups::GroupCache;
use super::level1_seen::Level1Seen;
use super::router::{Keeps, Router};
use crate::admission::berths::Berth;
use crate::base::clock::Clock;
use crate::base::conversation::ConversationId;
use crate::base::ending::Undelivered;
use crate::base::threads::Threads;
use crate::bus::news::CommittedFrame;
use crate::bus::{DeviceNews, Exchange};
use crate::delivery::{Acknowledgement, ClientLink, Owed, Posted};
use crate::history::pump::{PumpEvent, Row, SendAnswer, Submission};
use crate::protocol::level2::frames::{self, Message, Refusal};
use crate::protocol::{GroupId, UserId};
use crate::session::Recipients;
use crate::store::history::{Committed, EntryPlace, EntryRefusal, HistoryRole, NewEntry};
use crate::store::outages::Outages;
use crate::store::{Contacts, Role, StoreError};

/// A message to be committed.
#[derive(Debug)]
pub struct Recording {
    /// What is stored.
    pub entry: NewEntry,
    /// Its recipients, but for the sender. The members of a group are read if they are not known.
    pub to: RecordedFor,
    /// What recipients at level 1 get, if anything.
    pub forward: Option<Arc<str>>,
    /// The sender, which is told what became of it.
    pub owner: RecordOwner,
    /// Its room.
    pub berth: Berth,
}

/// The recipients of a recorded message.
#[derive(Debug)]
pub enum RecordedFor {
    /// These.
    Known(Recipients),
    /// Those who are in its conversation.
    Conversation,
}

/// The sender of a recorded message.
#[derive(Debug)]
pub enum RecordOwner {
    /// At level 2.
    Member(SendOwed),
    /// At level 1.
    Session(Owed),
}

/// The answer that a send of level 2 is owed. Dropped, it is refused: no client waits for ever for a
/// send that was lost in a panic.
#[derive(Debug)]
pub struct SendOwed {
    link: Option<Arc<ClientLink>>,
    conv: ConversationId,
    submission: Submission,
}

impl SendOwed {
    /// The answer to a send of this connection.
    pub fn new(link: &Arc<ClientLink>, conv: ConversationId, submission: Submission) -> SendOwed {
        SendOwed { link: Some(link.clone()), conv, submission }
    }

    /// The connection, and what to tell it.
    fn settle(mut self, answer: SendAnswer) -> Option<(Arc<ClientLink>, Posted)> {
        let link = self.link.take()?;
        let event = PumpEvent::Answered { conv: self.conv, id: self.submission.id, answer };
        Some((link, Posted::Pump(event)))
    }
}

impl Drop for SendOwed {
    fn drop(&mut self) {
        if let Some(link) = self.link.take() {
            let (conv, id, answer) = (self.conv, self.submission.id, SendAnswer::Refused(AWAY));
            link.post(Posted::Pump(PumpEvent::Answered { conv, id, answer }));
        }
    }
}

/// The parts that it uses.
pub struct RecorderParts {
    /// Conversations.
    pub history: HistoryRole,
    /// The members of groups as they are stored.
    pub contacts: Role<dyn Contacts>,
    /// The members that this node has cached.
    pub groups: Arc<GroupCache>,
    /// The users of level 2.
    pub audience: Arc<Audience>,
    /// The users who still use level 1.
    pub level1_seen: Arc<Level1Seen>,
    /// Connections.
    pub router: Arc<Router>,
    /// The other nodes.
    pub bus: Arc<dyn Exchange>,
    /// The failing kinds of calls.
    pub outages: Arc<Outages>,
    /// The time.
    pub clock: Clock,
    /// How long after its time a message may be edited or recalled.
    pub edit_window: Duration,
}

impl RecorderParts {
    /// Whether a recorded message waits for a user whom no connection of level 1 takes here. One who
    /// uses both levels finds it at either; in a cluster another node may have the connection.
    fn keeps(&self, user: UserId) -> Keeps {
        let is_here = || self.router.is_alone() && !self.router.devices(user, |_| true).is_empty();
        let has_it = self.audience.has(user) && (is_here() || !self.level1_seen.uses(user));
        if has_it { Keeps::No } else { Keeps::Yes }
    }
}

/// The lanes. Any loop submits.
pub struct Recorder {
    lanes: Arc<Lanes<RecorderItem>>,
}

/// An item of a lane.
#[derive(Debug)]
pub enum RecorderItem {
    /// Commit this.
    Commit(Box<Recording>),
    /// Another node has committed this in a group.
    Heard(CommittedFrame),
}

impl Recorder {
    /// Starts the lanes.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start(parts: RecorderParts, lanes: usize, threads: &mut impl Threads) -> io::Result<Recorder> {
        let (router, heard) = (parts.router.clone(), Arc::<AtomicUsize>::default());
        let (parts, waiting) = (Arc::new(parts), heard.clone());
        let begin = |_, panicked: Option<RecorderLane>| (panicked.unwrap_or_default(), None);
        let handle = move |lane: &mut RecorderLane, batch: Vec<RecorderItem>| {
            let heard = batch.iter().filter(|item| matches!(item, RecorderItem::Heard(_))).count();
            waiting.fetch_sub(heard, Relaxed);
            lane.handle(batch, &parts)
        };
        let lanes = Arc::new(threads.lanes("recorder", lanes, BATCH_MAX, begin, handle)?);
        let recorder = Recorder { lanes: lanes.clone() };
        router.give_group_messages_to(move |messages| hear(&lanes, &heard, messages));
        Ok(recorder)
    }

    /// Commits a message. If the server stops, its sender is told that it has failed.
    pub fn submit(&self, recording: Recording) {
        let (key, bytes) = (recording.entry.conv.column() as u64, recording.entry.text.len() + RECORDING_BYTES);
        let standing = Standing::of(recording.berth.holder().payer.share());
        let item = RecorderItem::Commit(Box::new(recording));
        // Dropped, it has failed, and its sender is told so.
        drop(self.lanes.submit(key, standing, item, bytes));
    }

    /// How another thread sees the lanes.
    pub fn watch(&self) -> LanesWatch<RecorderItem> {
        self.lanes.watch()
    }

    /// Finishes what was submitted, until `by` at most. Returns how much is left.
    pub fn close(&self, by: std::time::Instant) -> usize {
        self.lanes.close(by)
    }
}

/// Queues messages that another node has committed in groups. Beyond a number of them, the sweep finds
/// them.
fn hear(lanes: &Lanes<RecorderItem>, waiting: &AtomicUsize, messages: Vec<CommittedFrame>) {
    for message in messages {
        if waiting.fetch_add(1, Relaxed) >= HEARD_MAX {
            waiting.fetch_sub(1, Relaxed);
            return;
        }
        let (key, bytes) = (message.conv.column() as u64, message.frame.len());
        if lanes.submit(key, Standing::of(key), RecorderItem::Heard(message), bytes).is_err() {
            waiting.fetch_sub(1, Relaxed);
        }
    }
}

/// One lane.
#[derive(Default)]
struct RecorderLane {
    /// Connections with a send that failed and has not come again, and its conversation.
    failed: FxHashMap<FailedKey, Weak<ClientLink>>,
    /// Entries of connections that have ended are dropped when there are this many.
    tidy_at: usize,
    turn: Option<Turn<Posted>>,
}

/// What the connections are told of a batch.
#[derive(Default)]
struct Posts {
    news: Vec<(Arc<ClientLink>, Posted)>,
    /// For other nodes: messages of groups, and of conversations of two by recipient.
    groups: Vec<CommittedFrame>,
    users: FxHashMap<UserId, Vec<CommittedFrame>>,
}

/// A recording without its entry.
struct Pending {
    to: RecordedFor,
    forward: Option<Arc<str>>,
    owner: RecordOwner,
    berth: Berth,
}

impl RecorderLane {
    fn handle(&mut self, batch: Vec<RecorderItem>, parts: &RecorderParts) -> Option<Again> {
        let now = parts.clock.now();
        let mut turn = self.turn.take().unwrap_or_else(|| Turn::at(now));
        turn.begin(now);
        turn.run_errands();
        let mut posts = Posts::default();
        let (entries, pending) = self.accept(batch, &mut posts, parts);
        if !entries.is_empty() {
            match commit(&entries, &pending, parts) {
                Ok(outcomes) => {
                    for ((entry, pending), outcome) in entries.iter().zip(pending).zip(outcomes) {
                        conclude(entry, pending, outcome, &mut turn, &mut posts, parts);
                    }
                }
                Err(error) => self.fail(entries, pending, &error, &mut turn, &mut posts, parts),
            }
        }
        turn.flush();
        posts.send(&*parts.bus);
        let next = turn.next_errand().map(|due| Again::UnlessClosing(due.saturating_duration_since(parts.clock.now())));
        self.turn = Some(turn);
        next
    }

    /// Refuses the sends behind one that has failed, and hands on what other nodes have committed.
    fn accept(
        &mut self,
        batch: Vec<RecorderItem>,
        posts: &mut Posts,
        parts: &RecorderParts,
    ) -> (Vec<NewEntry>, Vec<Pending>) {
        let (mut entries, mut accepted) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
        for item in batch {
            let recording = match item {
                RecorderItem::Commit(recording) => *recording,
                RecorderItem::Heard(message) => {
                    posts.hear(&message, parts);
                    continue;
                }
            };
            let Recording { entry, to, forward, owner, berth } = recording;
            let owner = match owner {
                RecordOwner::Member(owed) if !self.may_send(&owed) => {
                    posts.news.extend(owed.settle(SendAnswer::Refused(AWAY)));
                    continue;
                }
                owner => owner,
            };
            // Read before the commit: what is committed must reach everybody.
            let to = match (to, entry.conv.group(), owner) {
                (RecordedFor::Conversation, Some(group), owner) => match members(group, parts) {
                    Ok(members) => (RecordedFor::Known(Recipients::Group(group, members)), owner),
                    Err(_) => {
                        if let RecordOwner::Member(owed) = owner {
                            self.note_failed(&owed);
                            posts.news.extend(owed.settle(SendAnswer::Refused(AWAY)));
                        }
                        continue;
                    }
                },
                (to, _, owner) => (to, owner),
            };
            let (to, owner) = to;
            entries.push(entry);
            accepted.push(Pending { to, forward, owner, berth });
        }
        (entries, accepted)
    }

    /// Whether no earlier send of the connection to the conversation has failed and not come again.
    fn may_send(&mut self, owed: &SendOwed) -> bool {
        if self.failed.is_empty() {
            return true;
        }
        let Some(key) = failed_key(owed) else { return true };
        if owed.submission.resumes {
            self.failed.remove(&key);
        }
        !self.failed.contains_key(&key)
    }

    fn note_failed(&mut self, owed: &SendOwed) {
        if self.failed.len() >= self.tidy_at {
            self.failed.retain(|_, link| link.strong_count() > 0);
            self.tidy_at = (2 * self.failed.len()).max(FAILED_MIN);
        }
        if let (Some(key), Some(link)) = (failed_key(owed), &owed.link) {
            self.failed.insert(key, Arc::downgrade(link));
        }
    }

    fn fail(
        &mut self,
        entries: Vec<NewEntry>,
        pending: Vec<Pending>,
        error: &StoreError,
        turn: &mut Turn<Posted>,
        posts: &mut Posts,
        parts: &RecorderParts,
    ) {
        let refusal = if matches!(error, StoreError::Unavailable(_)) { AWAY } else { BROKEN };
        for (entry, pending) in entries.into_iter().zip(pending) {
            let Pending { to, forward, owner, berth } = pending;
            match owner {
                RecordOwner::Member(owed) => {
                    if refusal.retry_after.is_some() {
                        self.note_failed(&owed);
                    }
                    posts.news.extend(owed.settle(SendAnswer::Refused(refusal)));
                }
                RecordOwner::Session(owed) => {
                    unrecorded(&entry, (to, forward), (owed, berth), turn, posts, parts);
                }
            }
        }
    }
}

/// Commits a batch. An answer that was lost is settled by the same batch again; clients of level 1
/// cannot do that themselves.
fn commit(entries: &[NewEntry], pending: &[Pending], parts: &RecorderParts) -> Result<Vec<Committed>, StoreError> {
    let window = i64::try_from(parts.edit_window.as_millis()).unwrap_or(i64::MAX);
    let once = || match parts.history.get()? {
        Some(history) => history.commit(entries, window),
        None => Err(StoreError::Unavailable("the tables have no conversations".into())),
    };
    let is_of_session = |pending: &Pending| matches!(pending.owner, RecordOwner::Session(_));
    let committed = match once() {
        Err(StoreError::Unavailable(_)) if pending.iter().any(is_of_session) => once(),
        committed => committed,
    };
    parts.outages.note("recording messages", committed.as_ref().err());
    committed
}

/// Hands a committed message to everybody, and answers its sender.
fn conclude(
    entry: &NewEntry,
    pending: Pending,
    outcome: Committed,
    turn: &mut Turn<Posted>,
    posts: &mut Posts,
    parts: &RecorderParts,
) {
    let Pending { to, forward, owner, berth } = pending;
    let answer = match outcome {
        Committed::New(place) => SendAnswer::New(committed(place)),
        Committed::Again(place) => SendAnswer::Again(committed(place)),
        Committed::Refused(refusal) => SendAnswer::Refused(refusal_of(refusal)),
    };
    // Nobody repeats the id of a message of level 1, so a repeat is the one whose answer was lost.
    let is_new = matches!(outcome, Committed::New(_)) || matches!(owner, RecordOwner::Session(_));
    let (origin, told) = match owner {
        RecordOwner::Member(owed) => (owed.link.clone(), owed.settle(answer)),
        RecordOwner::Session(owed) => (None, settled(owed, outcome)),
    };
    let Some((link, told)) = told else { return };
    let answer = Acknowledgement::new(link, told, Some(entry.conv), berth);
    if let Committed::New(place) | Committed::Again(place) = outcome {
        let recipients = recipients(&to, entry, parts);
        // Of a repeat, the first word may have been lost with its answer. Who has it passes it over.
        posts.push(entry, place, &recipients, origin.as_ref(), parts);
        if let Some(text) = forward.filter(|_| is_new) {
            for user in recipients.iter().filter(|user| entry.conv.group().is_none() || **user != entry.sender) {
                parts.router.forward(turn, *user, &text, parts.keeps(*user), &answer);
                turn.relieve();
            }
        }
    }
    posts.news.extend(answer.take());
}

/// A message of level 1 that could not be recorded.
fn unrecorded(
    entry: &NewEntry,
    (to, forward): (RecordedFor, Option<Arc<str>>),
    (owed, berth): (Owed, Berth),
    turn: &mut Turn<Posted>,
    posts: &mut Posts,
    parts: &RecorderParts,
) {
    let Some((link, told)) = owed.done() else { return };
    let answer = Acknowledgement::new(link, told, None, berth);
    let text = forward.unwrap_or_else(|| entry.text.clone());
    for user in
        recipients(&to, entry, parts).iter().filter(|user| entry.conv.group().is_none() || **user != entry.sender)
    {
        parts.router.forward(turn, *user, &text, Keeps::Yes, &answer);
        turn.relieve();
    }
    posts.news.extend(answer.take());
}

/// The members of a group: as far as they are cached or can be read.
fn members(group: GroupId, parts: &RecorderParts) -> Result<Arc<[UserId]>, StoreError> {
    let now = parts.clock.now();
    match parts.groups.members(group, now) {
        Some(members) => Ok(members),
        None => parts.groups.load(group, now, parts.contacts.get()?),
    }
}

/// The recipients: of a conversation of two the partner alone, of a group all members.
fn recipients(to: &RecordedFor, entry: &NewEntry, parts: &RecorderParts) -> Arc<[UserId]> {
    match to {
        RecordedFor::Known(Recipients::User(user)) => [*user].into(),
        RecordedFor::Known(Recipients::Group(_, members)) => members.clone(),
        RecordedFor::Conversation => match (entry.conv.group(), entry.conv.users()) {
            (Some(group), _) => members(group, parts).unwrap_or_default(),
            (None, Some((low, high))) => [if low == entry.sender { high } else { low }].into(),
            (None, None) => [].into(),
        },
    }
}

/// What a sender of level 1 is told. A recipient who does not exist is no failure there.
fn settled(owed: Owed, outcome: Committed) -> Option<(Arc<ClientLink>, Posted)> {
    match outcome {
        Committed::New(_) | Committed::Again(_) => owed.done(),
        Committed::Refused(EntryRefusal::NoSuchUser | EntryRefusal::NoSuchGroup) => owed.done(),
        Committed::Refused(_) => {
            owed.settle(Err(Undelivered::Unstored)).map(|(link, settled)| (link, Posted::Settled(settled)))
        }
    }
}

/// A connection and a conversation.
type FailedKey = (usize, ConversationId);

fn failed_key(owed: &SendOwed) -> Option<FailedKey> {
    owed.link.as_ref().map(|link| (Arc::as_ptr(link) as usize, owed.conv))
}

impl Posts {
    /// Tells the devices of a message: of the sender, but for the connection that sent it, and of
    /// the recipients.
    fn push(
        &mut self,
        entry: &NewEntry,
        place: EntryPlace,
        recipients: &[UserId],
        origin: Option<&Arc<ClientLink>>,
        parts: &RecorderParts,
    ) {
        let message = Message {
            at: committed(place),
            from: entry.sender,
            frame: Some(&entry.text),
            edited: None,
            recalled: None,
            imported: entry.is_imported,
        };
        let (conv, seq, from) = (entry.conv, place.seq, entry.sender);
        // All members of a group call it by the same name.
        let mut shared: Option<Arc<str>> = None;
        let is_listed = recipients.contains(&from);
        let is_alone = parts.bus.is_alone();
        for user in recipients.iter().copied().chain((!is_listed).then_some(from)) {
            if !parts.audience.has(user) {
                continue;
            }
            let links = parts.router.devices(user, |device| origin.is_none_or(|origin| device.link != *origin));
            if links.is_empty() && is_alone {
                continue;
            }
            let compose = || Arc::<str>::from(frames::pushed(conv.name_for(user), &message));
            let frame = match conv.group() {
                Some(_) => shared.get_or_insert_with(compose).clone(),
                None => compose(),
            };
            if !is_alone && conv.group().is_none() {
                self.users.entry(user).or_default().push(CommittedFrame { conv, seq, from, frame: frame.clone() });
            }
            for link in links {
                let event = PumpEvent::Push { conv, row: Row { seq, from, frame: frame.clone() } };
                self.news.push((link, Posted::Pump(event)));
            }
        }
        if let Some(frame) = shared.filter(|_| !is_alone) {
            self.groups.push(CommittedFrame { conv, seq, from, frame });
        }
    }

    /// Tells the devices of a message of a group that another node has committed.
    fn hear(&mut self, message: &CommittedFrame, parts: &RecorderParts) {
        let CommittedFrame { conv, seq, from, frame } = message;
        let Some(group) = conv.group() else { return };
        for user in members(group, parts).unwrap_or_default().iter().filter(|user| parts.audience.has(**user)) {
            for link in parts.router.devices(*user, |_| true) {
                let row = Row { seq: *seq, from: *from, frame: frame.clone() };
                self.news.push((link, Posted::Pump(PumpEvent::Push { conv: *conv, row })));
            }
        }
    }

    /// Posts everything, with one wake-up per loop, and tells the other nodes.
    fn send(self, bus: &dyn Exchange) {
        ClientLink::post_all(self.news);
        let mut news: Vec<DeviceNews> = Vec::new();
        for (user, messages) in self.users {
            news.extend(parcels(messages).map(|messages| DeviceNews::Messages(user, messages)));
        }
        news.extend(parcels(self.groups).map(DeviceNews::GroupMessages));
        if !news.is_empty() {
            bus.tell_devices(&news);
        }
    }
}

/// Messages in pieces that one publication can hold.
fn parcels(messages: Vec<CommittedFrame>) -> impl Iterator<Item = Vec<CommittedFrame>> {
    let mut rest = messages.into_iter().peekable();
    std::iter::from_fn(move || {
        let (mut parcel, mut bytes) = (vec![rest.next()?], 0);
        while let Some(next) = rest.next_if(|next| {
            bytes += next.frame.len();
            bytes < PARCEL_BYTES_MAX
        }) {
            parcel.push(next);
        }
        Some(parcel)
    })
}

fn committed(place: EntryPlace) -> frames::Committed {
    frames::Committed { seq: place.seq, tag: place.tag, time: place.time }
}

fn refusal_of(refusal: EntryRefusal) -> Refusal {
    match refusal {
        EntryRefusal::Conflict => Refusal::forever(409, "this cid was used for another message"),
        EntryRefusal::NoSuchUser => Refusal::forever(404, "there is no such user"),
        EntryRefusal::NoSuchGroup => Refusal::forever(404, "there is no such group"),
        EntryRefusal::NotMember => Refusal::forever(403, "you are not a member of this group"),
        EntryRefusal::Blocked => Refusal::forever(403, "this user does not take messages from you"),
        EntryRefusal::NoSuchTarget => Refusal::forever(404, "there is no such message to edit or recall"),
        EntryRefusal::NotYours => Refusal::forever(403, "only own messages that are not recalled can be changed"),
        EntryRefusal::TooLate => Refusal::forever(403, "the message is too old to be changed"),
        EntryRefusal::Unstorable => Refusal::forever(500, "the database does not take this message"),
    }
}

/// The database is away, or the server stops.
pub const AWAY: Refusal = Refusal { errno: 503, errmsg: "the database is away, try again", retry_after: Some(1000) };
const BROKEN: Refusal = Refusal::forever(500, "the database refuses, see the log of the server");
/// The most messages of other nodes that wait.
const HEARD_MAX: usize = 10_000;
/// The most text in one publication, unless a single one is longer.
const PARCEL_BYTES_MAX: usize = 256 * 1024;
/// The most messages of one transaction.
const BATCH_MAX: usize = 2048;
/// The fewest failures after which those of ended connections are dropped.
const FAILED_MIN: usize = 1024;
/// What a recording weighs beside its text.
pub const RECORDING_BYTES: usize = size_of::<Recording>();
