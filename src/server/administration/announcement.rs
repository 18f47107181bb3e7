//! An announcement: a text to every user, as a chat message of one account.
//!
//! Each user gets a separate message of type 4, which is committed and delivered like any other
//! message of that account. So clients of both levels show it without special support.
//!
//! A thread named `announcement` goes through the users. At most [`UNDER_WAY_MAX`] of its messages
//! wait to be committed or for a mailbox, in the share that the account has of the lanes: so it
//! takes little memory, and chats of other accounts do not wait for more than one batch. While the
//! database is unavailable, the thread waits. An announcement ends with the server.
//!
//! # Repeats
//! The first message is the sender's own copy, which only devices of level 2 show. The copy binds
//! the id to this text: the same id with another text is refused, on any node. It also holds the
//! time of the first order, so that a repeat sends the same bytes, and the lanes know which users
//! have them. A node that has died may have committed messages that it did not forward. So a repeat
//! forwards them again to users at level 1, unless this node knows that they were forwarded, or the
//! mailbox has them.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Condvar, Mutex};
use serde_json::{Value, json};

use crate::admission::{Holder, Payer, Source};
use crate::base::conversation::ConversationId;
use crate::base::disabled::is_disabled;
use crate::history::pump::SendAnswer;
use crate::operation::health::Health;
use crate::protocol::UserId;
use crate::routing::recorder::{OperatorOwed, RECORDING_BYTES, RecordOwner, RecordedFor, Recorder, Recording};
use crate::routing::router::Router;
use crate::server::jobs::Jobs;
use crate::store::StoreError;
use crate::store::history::{Cid, EntryKind, FrameHash, History, NewEntry, SenderCheck};

/// The current or the last announcement.
#[derive(Default)]
pub struct Announcements(Mutex<Option<Arc<Announcement>>>);

/// The order for an announcement.
pub(super) struct AnnouncementOrder {
    /// Its id.
    pub(super) id: String,
    /// The account that sends it.
    pub(super) from: UserId,
    pub(super) text: String,
    /// Whether users who are not logged in get it as well.
    pub(super) to_away: bool,
    /// Whether nobody could log in as the sender when it was ordered.
    pub(super) was_disabled: bool,
    /// The time of the first order under this id, ms since 1970, if there was one.
    pub(super) first: Option<u64>,
}

/// The reason why an announcement does not begin.
pub(super) enum NotBegun {
    /// Another one is under way.
    Another,
    NoThread(io::Error),
}

/// One announcement.
struct Announcement {
    order: AnnouncementOrder,
    /// When it was ordered for the first time, ms since 1970.
    time: u64,
    is_stopped: AtomicBool,
    tally: Mutex<Tally>,
    changed: Condvar,
}

/// The results of its messages.
#[derive(Default)]
struct Tally {
    is_over: bool,
    /// Why it has ended before its time.
    reason: Option<&'static str>,
    under_way: usize,
    sent: u64,
    already: u64,
    blocked: u64,
    failed: u64,
    /// Accounts that were deleted meanwhile.
    gone: u64,
    /// They could not be committed now.
    again: Vec<UserId>,
}

/// The work of the thread.
struct Announcing {
    announcement: Arc<Announcement>,
    senders: Senders,
}

/// The parts that send. References to parts that end with the server are weak.
pub(super) struct Senders {
    pub(super) jobs: Weak<Jobs>,
    pub(super) router: Weak<Router>,
    pub(super) recorder: Weak<Recorder>,
    pub(super) health: Arc<Health>,
}

impl Announcements {
    /// The current or the last announcement, as administrators see it.
    pub(super) fn shown(&self) -> Option<Value> {
        self.0.lock().as_ref().map(|last| last.shown())
    }

    /// Begins an announcement, and returns it as administrators see it.
    pub(super) fn begin(&self, order: AnnouncementOrder, senders: Senders) -> Result<Value, NotBegun> {
        let mut last = self.0.lock();
        if last.as_ref().is_some_and(|last| !last.tally.lock().is_over) {
            return Err(NotBegun::Another);
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let announcement = Arc::new(Announcement {
            time: order.first.unwrap_or_else(|| u64::try_from(now.as_millis()).unwrap_or_default()),
            order,
            is_stopped: AtomicBool::new(false),
            tally: Mutex::default(),
            changed: Condvar::new(),
        });
        let work = Announcing { announcement: announcement.clone(), senders };
        thread::Builder::new().name("announcement".to_owned()).spawn(move || work.run()).map_err(NotBegun::NoThread)?;
        let shown = announcement.shown();
        *last = Some(announcement);
        Ok(shown)
    }

    /// Stops the current announcement. Returns whether there was one.
    pub(super) fn stop(&self) -> bool {
        let last = self.0.lock();
        let running = last.as_ref().filter(|last| !last.tally.lock().is_over);
        if let Some(running) = running {
            running.is_stopped.store(true, Ordering::Release);
            running.changed.notify_all();
        }
        running.is_some()
    }
}

impl Announcement {
    fn shown(&self) -> Value {
        let tally = self.tally.lock();
        let state = match (tally.is_over, self.is_stopped.load(Ordering::Acquire)) {
            (false, _) => "under way",
            (true, true) => "stopped",
            (true, false) => "done",
        };
        json!({
            "already": tally.already,
            "away": self.order.to_away,
            "blocked": tally.blocked,
            "failed": tally.failed,
            "from": self.order.from.0,
            "gone": tally.gone,
            "id": self.order.id,
            "reason": tally.reason,
            "sent": tally.sent,
            "state": state,
        })
    }

    /// The message to this user.
    fn entry(&self, user: UserId) -> Option<NewEntry> {
        let cid = cid_of(&self.order.id, user);
        let frame = json!({
            "FROMID": self.order.from.0,
            "TOID": user.0,
            "cid": cid,
            "msg": self.order.text,
            "msgType": 4,
            "sendTime": self.time,
        });
        let text: Arc<str> = frame.to_string().into();
        Some(NewEntry {
            conv: ConversationId::between(self.order.from, user),
            sender: self.order.from,
            cid: Cid::of_client(&cid)?,
            hash: FrameHash::of(text.as_bytes()),
            kind: EntryKind::Message,
            is_imported: false,
            check: SenderCheck::Rights,
            is_hooked: false,
            change: None,
            text,
        })
    }

    /// Notes the result of the message to this user.
    fn note(&self, user: UserId, answer: SendAnswer) {
        let mut tally = self.tally.lock();
        tally.under_way -= 1;
        match answer {
            SendAnswer::New(..) => tally.sent += 1,
            SendAnswer::Again(_) => tally.already += 1,
            SendAnswer::Refused(refusal) if refusal.retry_after.is_some() => tally.again.push(user),
            SendAnswer::Refused(refusal) => match refusal.errno {
                403 => tally.blocked += 1,
                404 => tally.gone += 1,
                _ => tally.failed += 1,
            },
        }
        drop(tally);
        self.changed.notify_all();
    }
}

/// The announcement ends before its time: it was stopped, or the server stops.
struct Ended(&'static str);

impl Announcing {
    fn run(self) {
        let AnnouncementOrder { id, from, .. } = &self.announcement.order;
        log::info!("announcement {id} of user {from} begins");
        // After a panic, the next one may begin.
        let outcome = catch_unwind(AssertUnwindSafe(|| self.to_all())).unwrap_or(Err(Ended("it has failed")));
        let Err(Ended(reason)) = outcome else { return self.end(None) };
        self.announcement.is_stopped.store(true, Ordering::Release);
        self.settle();
        self.end(Some(reason));
    }

    fn end(&self, reason: Option<&'static str>) {
        let AnnouncementOrder { id, from, .. } = &self.announcement.order;
        let mut tally = self.announcement.tally.lock();
        (tally.is_over, tally.reason) = (true, reason);
        let Tally { sent, already, blocked, failed, gone, under_way, .. } = &*tally;
        let counts = format!(
            "{sent} sent, {already} had it already, {blocked} have blocked the sender, {gone} do not exist any more, \
             {failed} failed"
        );
        match reason {
            None => log::info!("announcement {id} of user {from} has reached everybody: {counts}"),
            Some(reason) => log::warn!(
                "announcement {id} of user {from} was stopped, because {reason}: {counts}, {under_way} are under way; to \
                 go on, send the same text again with --id {id}"
            ),
        }
    }

    /// Waits for the messages that are under way, so that they are counted. If the server stops,
    /// its lanes may end before them.
    fn settle(&self) {
        let until = Instant::now() + SETTLE_MAX;
        let mut tally = self.announcement.tally.lock();
        while tally.under_way > 0 && Instant::now() < until && !self.senders.health.is_draining() {
            self.announcement.changed.wait_for(&mut tally, LOOK_EVERY);
        }
    }

    fn to_all(&self) -> Result<(), Ended> {
        self.claim_id()?;
        let mut after = UserId(0);
        loop {
            self.check_sender()?;
            let page = self.page(after)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = *last;
            self.to_these(page)?;
        }
    }

    /// Commits the sender's own copy. That another node does so with another text at the same time
    /// is seen here.
    fn claim_id(&self) -> Result<(), Ended> {
        loop {
            self.check()?;
            let (tell, told) = mpsc::channel();
            let told_by = OperatorOwed::new(move |answer| {
                let _ = tell.send(answer);
            });
            let entry = self.announcement.entry(self.announcement.order.from).ok_or(Ended("the id is too long"))?;
            self.submit(entry, None, told_by)?;
            let answer = loop {
                match told.recv_timeout(LOOK_EVERY) {
                    Ok(answer) => break answer,
                    Err(mpsc::RecvTimeoutError::Timeout) => self.check()?,
                    Err(mpsc::RecvTimeoutError::Disconnected) => return Err(Ended(STOPS)),
                }
            };
            match answer {
                SendAnswer::New(..) | SendAnswer::Again(_) => return Ok(()),
                SendAnswer::Refused(refusal) if refusal.retry_after.is_some() => self.pause(RETRY_AFTER)?,
                SendAnswer::Refused(refusal) if refusal.errno == 409 => {
                    return Err(Ended("another node has begun another announcement with its id"));
                }
                SendAnswer::Refused(refusal) if refusal.errno == 404 => return Err(Ended(DELETED)),
                SendAnswer::Refused(_) => return Err(Ended("the database refuses it")),
            }
        }
    }

    /// The announcement ends when somebody deletes or disables its sender.
    fn check_sender(&self) -> Result<(), Ended> {
        let AnnouncementOrder { from, was_disabled, .. } = &self.announcement.order;
        let stored = self.ask("looking at the sender of an announcement", |jobs| {
            let accounts = jobs.logins.store.get()?;
            Ok(accounts.user(*from)?.map(|_| accounts.credential(*from)).transpose()?.flatten())
        })?;
        match stored {
            None => Err(Ended(DELETED)),
            Some(stored) if is_disabled(&stored) && !was_disabled => Err(Ended("the sender was disabled")),
            Some(_) => Ok(()),
        }
    }

    /// The next users.
    fn page(&self, after: UserId) -> Result<Vec<UserId>, Ended> {
        self.ask("listing users for an announcement", |jobs| {
            if !self.announcement.order.to_away {
                return jobs.arrangements.logged_in_after(after, PAGE);
            }
            let accounts = jobs.logins.store.get()?.accounts_after(after, PAGE)?;
            Ok(accounts.into_iter().map(|(user, _)| user.id).collect())
        })
    }

    /// Asks the database, and waits while the database is unavailable.
    fn ask<T>(&self, what: &'static str, ask: impl Fn(&Jobs) -> Result<T, StoreError>) -> Result<T, Ended> {
        loop {
            let jobs = self.senders.jobs.upgrade().ok_or(Ended(STOPS))?;
            let found = ask(&jobs);
            jobs.outages.note(what, found.as_ref().err());
            drop(jobs);
            match found {
                Ok(found) => return Ok(found),
                Err(_) => self.pause(RETRY_AFTER)?,
            }
        }
    }

    /// Whether the user's mailbox has it: a repeat does not put it there twice.
    fn waits(&self, user: UserId, text: &str) -> Result<bool, Ended> {
        if self.announcement.order.first.is_none() {
            return Ok(false);
        }
        self.ask("looking for an announcement in mailboxes", |_| {
            let Some(recorder) = self.senders.recorder.upgrade() else { return Ok(false) };
            recorder.history().get()?.map_or(Ok(false), |history| history.waits(user, text))
        })
    }

    fn to_these(&self, users: Vec<UserId>) -> Result<(), Ended> {
        let mut waiting = VecDeque::from(users);
        loop {
            while let Some(user) = waiting.pop_front() {
                self.wait_for(UNDER_WAY_MAX - 1)?;
                if user != self.announcement.order.from {
                    self.send(user)?;
                }
            }
            self.wait_for(0)?;
            waiting.extend(std::mem::take(&mut self.announcement.tally.lock().again));
            if waiting.is_empty() {
                return Ok(());
            }
            self.pause(RETRY_AFTER)?;
        }
    }

    fn send(&self, user: UserId) -> Result<(), Ended> {
        let announcement = &self.announcement;
        let Some(entry) = announcement.entry(user) else {
            announcement.tally.lock().failed += 1;
            return Ok(());
        };
        if self.waits(user, &entry.text)? {
            announcement.tally.lock().already += 1;
            return Ok(());
        }
        let (noted, forward) = (announcement.clone(), Some(entry.text.clone()));
        announcement.tally.lock().under_way += 1;
        self.submit(entry, forward, OperatorOwed::new(move |answer| noted.note(user, answer)))
    }

    fn submit(&self, entry: NewEntry, forward: Option<Arc<str>>, owed: OperatorOwed) -> Result<(), Ended> {
        let payer = Payer::Account(self.announcement.order.from);
        let holder = Holder { payer, source: Source::of([127, 0, 0, 1].into()) };
        let berth = loop {
            let router = self.senders.router.upgrade().ok_or(Ended(STOPS))?;
            if let Some(berth) = router.take_berth(holder, entry.text.len() + RECORDING_BYTES) {
                break berth;
            }
            drop(router);
            self.pause(RETRY_AFTER)?;
        };
        let owner = RecordOwner::Operator(owed);
        let recording = Recording { entry, to: RecordedFor::Conversation, forward, owner, berth };
        self.senders.recorder.upgrade().ok_or(Ended(STOPS))?.submit(recording);
        Ok(())
    }

    /// Waits until at most this number of messages are under way. A message that must be sent again
    /// makes all others wait, because the database is unavailable.
    fn wait_for(&self, under_way: usize) -> Result<(), Ended> {
        loop {
            self.check()?;
            let mut tally = self.announcement.tally.lock();
            let under_way = if tally.again.is_empty() { under_way } else { 0 };
            if tally.under_way <= under_way {
                return Ok(());
            }
            self.announcement.changed.wait_for(&mut tally, LOOK_EVERY);
        }
    }

    fn pause(&self, time: Duration) -> Result<(), Ended> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.check()?;
            let mut tally = self.announcement.tally.lock();
            self.announcement.changed.wait_until(&mut tally, until.min(Instant::now() + LOOK_EVERY));
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Ended> {
        if self.senders.health.is_draining() {
            return Err(Ended(STOPS));
        }
        if self.announcement.is_stopped.load(Ordering::Acquire) {
            Err(Ended("an administrator wants it"))
        } else {
            Ok(())
        }
    }
}

/// The sender's id of the message to this user.
fn cid_of(id: &str, user: UserId) -> String {
    format!("{id}-{}", user.0)
}

/// The text that was announced under this id, and the time of the first order.
pub(super) fn first_order(
    history: &dyn History,
    from: UserId,
    id: &str,
) -> Result<Option<(Option<String>, u64)>, StoreError> {
    let Some(cid) = Cid::of_client(&cid_of(id, from)) else { return Ok(None) };
    let Some((conv, seq, _)) = history.place_of(from, &cid)? else { return Ok(None) };
    let own = history.messages_at(&[(conv, seq)])?.pop().flatten();
    let frame: Value = own.and_then(|own| serde_json::from_str(&own.text?).ok()).unwrap_or_default();
    let text = frame["msg"].as_str().map(str::to_owned);
    Ok(Some((text, frame["sendTime"].as_u64().unwrap_or_default())))
}

const STOPS: &str = "the server stops";
const DELETED: &str = "the sender was deleted";
/// Messages that wait to be committed, or for a mailbox, at the same time.
const UNDER_WAY_MAX: usize = 64;
/// The number of users that are read at once.
const PAGE: usize = 500;
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long an announcement that ends waits for messages that are under way.
const SETTLE_MAX: Duration = Duration::from_secs(5);
/// The interval at which a waiting thread checks whether the server stops.
const LOOK_EVERY: Duration = Duration::from_millis(200);
