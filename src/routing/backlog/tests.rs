mod refusals;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;

use super::drain::{FIRST_PAUSE, LONGEST_PAUSE, REFUSALS_MAX};
use super::*;
use crate::admission::berths::Berths;
use crate::admission::{Holder, Payer, Source};
use crate::base::clock::Clock;
use crate::base::folder::Folder;
use crate::base::ids::FrameId;
use crate::bus::local::LocalBus;
use crate::delivery::{Comeback, Fan, Owed, Provenance};
use crate::metrics::Metrics;
use crate::protocol::GroupId;
use crate::routing::quotas::Quotas;
use crate::store::spool::{MESSAGE_BYTES, PIECE_MAX, Part, SpoolId, SpoolLoad, Spooled};
use crate::store::sqlite::SpoolFile;
use crate::store::{Database, KeptMessage, MessageId, Messages, NewMessage, Role, States, UserState};

/// A store that can be unreachable or refuse, and records what it was given.
#[derive(Default)]
struct Script {
    /// The errors of the next appends; after them all succeed, or none if it is unreachable.
    failures: Mutex<VecDeque<Option<StoreError>>>,
    is_away: Mutex<bool>,
    kept: Mutex<Vec<(i32, String)>>,
    /// How often it was given something.
    appends: AtomicU32,
}

impl Script {
    /// Makes the append after this number of appends fail.
    fn fail_after(&self, appends: usize) {
        self.failures.lock().extend((0..appends).map(|_| None).chain([Some(away())]));
    }
}

fn away() -> StoreError {
    StoreError::Unavailable("it is away".into())
}

impl Messages for Script {
    fn append(&self, messages: &[NewMessage]) -> Result<Vec<AppendOutcome>, StoreError> {
        self.appends.fetch_add(1, Ordering::Relaxed);
        match self.failures.lock().pop_front() {
            Some(Some(error)) => return Err(error),
            Some(None) => {}
            None if *self.is_away.lock() => return Err(away()),
            None => {}
        }
        if messages.iter().any(|message| message.text.starts_with("poison")) {
            return Err(StoreError::Failed("it does not like one".into()));
        }
        let keep = |message: &NewMessage| {
            if message.to == NOBODY {
                return AppendOutcome::NoSuchUser;
            }
            if message.text.starts_with("long") {
                return AppendOutcome::TooLong;
            }
            self.kept.lock().push((message.to.0, message.text.to_string()));
            AppendOutcome::Stored
        };
        Ok(messages.iter().map(keep).collect())
    }
    fn fits(&self, text: &str) -> bool {
        text.len() <= LONGEST
    }
    fn fetch(&self, _: UserId, _: usize) -> Result<Vec<KeptMessage>, StoreError> {
        unreachable!("lanes do not ask")
    }
    fn delete(&self, _: UserId, _: &[MessageId]) -> Result<(), StoreError> {
        unreachable!("lanes do not ask")
    }
}

impl States for Script {
    fn online(&self, _: &[UserId]) -> Result<Vec<UserId>, StoreError> {
        self.check().map(|()| Vec::new())
    }
    fn online_after(&self, _: UserId, _: usize) -> Result<Vec<UserId>, StoreError> {
        unreachable!("lanes do not ask")
    }
    fn set_states(&self, _: &[(UserId, UserState)]) -> Result<(), StoreError> {
        unreachable!("lanes do not ask")
    }
    fn set_all_offline(&self) -> Result<(), StoreError> {
        unreachable!("lanes do not ask")
    }
}

impl Database for Script {
    fn describe(&self) -> String {
        "a script".into()
    }
    fn check(&self) -> Result<(), StoreError> {
        if *self.is_away.lock() { Err(away()) } else { Ok(()) }
    }
}

/// A spool whose disk can fail.
struct Disk {
    file: SpoolFile,
    is_broken: Mutex<bool>,
}

impl Disk {
    fn try_out(&self) -> Result<(), StoreError> {
        if *self.is_broken.lock() { Err(StoreError::Unavailable("no space left".into())) } else { Ok(()) }
    }
}

impl Spool for Disk {
    fn add(&self, messages: Vec<Addition>) -> Result<Vec<bool>, StoreError> {
        self.try_out()?;
        self.file.add(messages)
    }
    fn oldest(&self, part: Part) -> Result<Vec<Spooled>, StoreError> {
        self.file.oldest(part)
    }
    fn remove(&self, ids: &[SpoolId]) -> Result<(), StoreError> {
        self.try_out()?;
        self.file.remove(ids)
    }
    fn set_aside(&self, ids: &[SpoolId]) -> Result<(), StoreError> {
        self.try_out()?;
        self.file.set_aside(ids)
    }
    fn load(&self) -> SpoolLoad {
        self.file.load()
    }
}

/// One run of a node, with this number of lanes and a clock of its own.
struct Node {
    lanes: Vec<Backlog>,
    parts: StoreLaneParts,
    store: Arc<Script>,
    disk: Arc<Disk>,
    now: Instant,
}

impl Node {
    fn start(folder: &Folder, store: &Arc<Script>, lanes: usize, bytes_max: usize) -> Node {
        let file = SpoolFile::open(&folder.0, bytes_max).unwrap();
        let disk = Arc::new(Disk { file, is_broken: Mutex::new(false) });
        let parts = StoreLaneParts {
            messages: Role::of(store.clone()),
            states: Role::of(store.clone()),
            database: store.clone(),
            spool: disk.clone(),
            reference_nodes: Arc::new(LocalBus),
            clock: Clock::default(),
            quotas: Arc::new(Quotas::new(1 << 20)),
            metrics: Arc::new(Metrics::new(1)),
            outages: Arc::default(),
            tracer: Arc::default(),
        };
        let lanes = (0..lanes).map(|nth| Backlog::new(nth, lanes, &*disk)).collect();
        Node { lanes, parts, store: store.clone(), disk, now: Instant::now() }
    }

    /// Gives each item to its lane, one batch for each lane.
    fn handle(&mut self, items: Vec<LaneItem>) {
        let mut batches: Vec<Vec<LaneItem>> = self.lanes.iter().map(|_| Vec::new()).collect();
        for item in items {
            let lane = crate::store::spool::lane_of(item.user(), self.lanes.len() as u64);
            batches[usize::try_from(lane).unwrap()].push(item);
        }
        for (lane, batch) in self.lanes.iter_mut().zip(batches) {
            if !batch.is_empty() {
                lane.handle(batch, self.now, &self.parts);
            }
        }
    }

    /// Lets every lane work until none asks to be called again, or until this time is over.
    fn work_for(&mut self, time: Duration) {
        let end = self.now + time;
        let mut again: Vec<Option<Again>> = self.lanes.iter().map(Backlog::begins).collect();
        while again.iter().any(Option::is_some) && self.now <= end {
            let mut next = LONGEST_PAUSE;
            for (lane, again) in self.lanes.iter_mut().zip(&mut again) {
                *again = lane.handle(Vec::new(), self.now, &self.parts);
                if let Some(Again::After(time) | Again::UnlessClosing(time)) = again {
                    next = next.min(*time);
                }
            }
            self.now += next;
        }
    }

    fn send(&mut self, messages: &[(i32, &str)]) {
        self.handle(messages.iter().map(|(to, text)| message(*to, text)).collect());
    }

    /// The result of a fetch of this user.
    fn fetch(&mut self, user: i32) -> MailboxState {
        let told = Arc::new(Mutex::new(None));
        let tell = told.clone();
        self.handle(vec![LaneItem::Work(UserId(user), Box::new(move |mailbox| *tell.lock() = Some(mailbox)))]);
        told.lock().take().expect("the work was done")
    }

    fn kept_for(&self, user: i32) -> Vec<String> {
        let kept = self.store.kept.lock();
        kept.iter().filter(|(to, _)| *to == user).map(|(_, text)| text.clone()).collect()
    }

    fn spooled(&self) -> usize {
        self.disk.load().messages
    }

    fn count(&self, series: &str) -> u64 {
        let shown = self.parts.metrics.render();
        let value = shown.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {series} in {shown}")).parse().unwrap()
    }

    fn failed(&self) -> u64 {
        self.count(r#"raybox_deliveries_total{path="failed"}"#)
    }
}

fn message(to: i32, text: &str) -> LaneItem {
    from(DeliveryOrigin::Spooled(SpoolId(1), None), to, text)
}

fn from(origin: DeliveryOrigin, to: i32, text: &str) -> LaneItem {
    LaneItem::Delivery(Delivery::new(UserId(to), text.into(), origin))
}

const NOBODY: UserId = UserId(404);
const LONGEST: usize = 50;
const LONG: Duration = Duration::from_secs(60);
const ROOM: usize = 1 << 20;

/// Messages that a dead connection has returned.
fn returned(text: &str) -> LaneItem {
    from(DeliveryOrigin::Returned(FrameId::UNNAMED, Comeback::InOrder), 1, text)
}

#[test]
fn messages_of_an_outage_are_stored_in_order_after_it() {
    let (folder, store) = (Folder::new("backlog"), Arc::new(Script::default()));
    let mut node = Node::start(&folder, &store, 2, ROOM);
    node.send(&[(1, "a"), (2, "b")]);
    *store.is_away.lock() = true;
    node.send(&[(1, "c"), (2, "d"), (1, "e")]);
    node.send(&[(1, "f")]);
    assert_eq!((node.spooled(), node.failed()), (4, 0));
    node.work_for(LONG);
    assert_eq!(node.kept_for(1), ["a"], "the store is still away");
    *store.is_away.lock() = false;
    // It is not asked again yet: new messages must not overtake waiting ones.
    node.send(&[(1, "g")]);
    assert_eq!(node.kept_for(1), ["a"]);
    node.work_for(LONG);
    assert_eq!((node.kept_for(1), node.kept_for(2)), (strings("acefg"), strings("bd")));
    assert_eq!((node.spooled(), node.failed()), (0, 0));
    node.send(&[(1, "h")]);
    assert_eq!(node.kept_for(1), strings("acefgh"), "past the spool");
    assert_eq!(node.count(r#"raybox_spool_total{what="spooled"}"#), 5);
    assert_eq!(node.count(r#"raybox_spool_total{what="drained"}"#), 5);
}

#[test]
fn a_store_that_fails_in_the_middle_goes_on_where_it_was() {
    let (folder, store) = (Folder::new("backlog"), Arc::new(Script::default()));
    let mut node = Node::start(&folder, &store, 1, 10 * ROOM);
    *store.is_away.lock() = true;
    let texts: Vec<String> = (0..3 * PIECE_MAX).map(|n| n.to_string()).collect();
    node.send(&texts.iter().map(|text| (1, text.as_str())).collect::<Vec<_>>());
    *store.is_away.lock() = false;
    store.fail_after(1);
    node.work_for(Duration::ZERO);
    assert_eq!((node.kept_for(1).len(), node.spooled()), (PIECE_MAX, 2 * PIECE_MAX));
    node.send(&[(1, "last")]);
    node.work_for(LONG);
    let expected: Vec<String> = texts.into_iter().chain(["last".to_owned()]).collect();
    assert_eq!(node.kept_for(1), expected);
}

#[test]
fn a_steady_stream_does_not_keep_the_spool_from_draining() {
    let (folder, store) = (Folder::new("backlog"), Arc::new(Script::default()));
    let mut node = Node::start(&folder, &store, 1, 100 * ROOM);
    *store.is_away.lock() = true;
    let batch: Vec<(i32, &str)> = vec![(1, "x"); 2 * PIECE_MAX];
    (0..10).for_each(|_| node.send(&batch));
    *store.is_away.lock() = false;
    node.now += LONG;
    let mut batches = 0;
    while node.spooled() > 0 {
        node.send(&batch);
        node.now += FIRST_PAUSE;
        batches += 1;
        assert!(batches < 10, "more is drained than comes in");
    }
}

#[test]
fn a_restart_with_other_lanes_drains_without_traffic() {
    let (folder, store) = (Folder::new("backlog"), Arc::new(Script::default()));
    let mut node = Node::start(&folder, &store, 4, ROOM);
    *store.is_away.lock() = true;
    for text in ["a", "b", "c"] {
        node.send(&[(1, text), (2, text), (3, text), (6, text), (-5, text)]);
    }
    drop(node);
    let mut node = Node::start(&folder, &store, 3, ROOM);
    assert_eq!(node.spooled(), 15);
    node.send(&[(6, "d")]);
    node.work_for(LONG);
    assert_eq!(node.spooled(), 16);
    *store.is_away.lock() = false;
    node.work_for(LONG);
    assert_eq!((node.spooled(), node.kept_for(6)), (0, strings("abcd")));
    for user in [1, 2, 3, -5] {
        assert_eq!(node.kept_for(user), strings("abc"), "{user}");
    }
}

#[test]
fn a_fetch_is_preceded_by_what_is_spooled_for_its_user() {
    let (folder, store) = (Folder::new("backlog"), Arc::new(Script::default()));
    let mut node = Node::start(&folder, &store, 1, ROOM);
    assert_eq!(node.fetch(1), MailboxState::Whole);
    *store.is_away.lock() = true;
    node.send(&[(1, "a"), (2, "b"), (1, "c")]);
    assert_eq!(node.fetch(1), MailboxState::InParts);
    *store.is_away.lock() = false;
    assert_eq!(node.fetch(1), MailboxState::Whole);
    assert_eq!((node.kept_for(1), node.kept_for(2)), (strings("ac"), vec![]), "the other's waits for its time");
    node.send(&[(1, "d"), (2, "e")]);
    node.work_for(LONG);
    assert_eq!((node.kept_for(1), node.kept_for(2)), (strings("acd"), strings("be")));
    store.fail_after(0);
    node.handle(vec![message(1, "e"), returned("f")]);
    *node.disk.is_broken.lock() = true;
    assert_eq!(node.fetch(1), MailboxState::InParts, "it may be stored, and stored again");
    *node.disk.is_broken.lock() = false;
    assert_eq!(node.fetch(1), MailboxState::Whole);
    assert_eq!(node.kept_for(1), strings("acdef"), "and is not");
}

#[test]
fn a_full_spool_refuses_only_messages_that_have_a_sender() {
    let (folder, store) = (Folder::new("backlog"), Arc::new(Script::default()));
    let mut node = Node::start(&folder, &store, 1, 2 * (MESSAGE_BYTES + 1));
    *store.is_away.lock() = true;
    node.send(&[(1, "a"), (1, "b"), (1, "c")]);
    node.handle(vec![returned("d"), message(1, "e")]);
    assert_eq!((node.spooled(), node.failed()), (3, 2));
    *store.is_away.lock() = false;
    node.now += LONG;
    node.send(&[(1, "f")]);
    node.work_for(LONG);
    assert_eq!((node.kept_for(1), node.failed()), (strings("abdf"), 2));
}

#[test]
fn without_room_or_disk_the_senders_hear_of_it_and_what_has_none_waits() {
    for bytes_max in [0, ROOM] {
        let (folder, store) = (Folder::new("backlog"), Arc::new(Script::default()));
        let mut node = Node::start(&folder, &store, 1, bytes_max);
        *node.disk.is_broken.lock() = bytes_max > 0;
        *store.is_away.lock() = true;
        node.handle(vec![message(1, "a"), returned("b")]);
        assert_eq!((node.failed(), node.spooled()), (1, 0));
        assert_eq!(node.count("raybox_unstored_messages"), 1);
        assert_eq!(node.fetch(1), MailboxState::InParts);
        *store.is_away.lock() = false;
        node.send(&[(1, "c")]);
        assert_eq!(node.kept_for(1), strings("bc"));
        assert_eq!(node.count("raybox_unstored_messages"), 0);
    }
}

#[test]
fn the_store_is_left_alone_for_longer_and_longer() {
    let (folder, store) = (Folder::new("backlog"), Arc::new(Script::default()));
    let mut node = Node::start(&folder, &store, 1, ROOM);
    *store.is_away.lock() = true;
    let mut pauses = Vec::new();
    let mut batch = vec![message(1, "a")];
    for _ in 0..7 {
        let again = node.lanes[0].handle(std::mem::take(&mut batch), node.now, &node.parts);
        let Some(Again::UnlessClosing(pause)) = again else { panic!("it is tried again, but not at the end") };
        pauses.push(pause.as_millis());
        node.now += pause;
    }
    assert_eq!(pauses, [50, 50, 100, 200, 400, 800, 1000]);
}

#[test]
fn a_stored_message_that_cannot_be_removed_from_the_spool_is_not_stored_again() {
    let (folder, store) = (Folder::new("backlog"), Arc::new(Script::default()));
    let mut node = Node::start(&folder, &store, 1, ROOM);
    *store.is_away.lock() = true;
    node.send(&[(1, "a"), (1, "b")]);
    *store.is_away.lock() = false;
    *node.disk.is_broken.lock() = true;
    node.work_for(LONG);
    assert_eq!((node.kept_for(1), node.spooled()), (strings("ab"), 2));
    *node.disk.is_broken.lock() = false;
    node.work_for(LONG);
    assert_eq!((node.kept_for(1), node.spooled()), (strings("ab"), 0));
}

#[test]
fn the_second_half_of_a_batch_does_not_overtake_the_first() {
    let (folder, store) = (Folder::new("backlog"), Arc::new(Script::default()));
    let mut node = Node::start(&folder, &store, 1, ROOM);
    store.failures.lock().push_back(Some(StoreError::Failed("for whatever reason".into())));
    store.fail_after(0);
    node.send(&[(1, "a"), (1, "b"), (1, "c"), (1, "d")]);
    assert_eq!(node.spooled(), 4);
    node.work_for(LONG);
    assert_eq!(node.kept_for(1), strings("abcd"));
}

fn strings(letters: &str) -> Vec<String> {
    letters.chars().map(String::from).collect()
}

#[test]
fn messages_without_a_place_before_an_answer_are_placed_before_those_after_it() {
    let (folder, store) = (Folder::new("backlog"), Arc::new(Script::default()));
    let mut node = Node::start(&folder, &store, 1, ROOM);
    *node.disk.is_broken.lock() = true;
    store.fail_after(0);
    let answer = LaneItem::Answer(UserId(1), Box::new(|| ()));
    node.handle(vec![returned("a"), answer, message(1, "b")]);
    assert_eq!(node.kept_for(1), strings("ab"));
}

#[test]
fn the_end_waits_for_what_can_be_stored_and_for_what_nobody_would_send_again() {
    let (folder, store) = (Folder::new("backlog"), Arc::new(Script::default()));
    let mut node = Node::start(&folder, &store, 1, 10 * ROOM);
    *store.is_away.lock() = true;
    node.send(&vec![(1, "x"); 4 * PIECE_MAX]);
    *store.is_away.lock() = false;
    // From here on the time counts.
    node.send(&[(1, "x")]);
    node.now += LONG;
    let half: Vec<LaneItem> = (0..PIECE_MAX / 2).map(|_| message(1, "y")).collect();
    let again = node.lanes[0].handle(half, node.now, &node.parts);
    assert_eq!(again, Some(Again::After(Duration::ZERO)), "the store takes it");
    assert_eq!(node.spooled(), 2 * PIECE_MAX + 1 + PIECE_MAX / 2, "more than twice what has come");
    node.work_for(LONG);

    *node.disk.is_broken.lock() = true;
    *store.is_away.lock() = true;
    let again = node.lanes[0].handle(vec![returned("a")], node.now, &node.parts);
    assert_eq!(again, Some(Again::After(RETRY_AFTER)));
}
