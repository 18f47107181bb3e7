//! [`Places`]: the number that comes next in each conversation of a connection, and the runs that
//! must come before it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::Value;

use super::frame::{Body, Message, Overview, OverviewLine, Refusal, Rid, Run};
use super::messages::{Peek, Step};
use super::replies::rid_of;
use super::{Checked, Mistake, PAGE_MAX, Store, TEXT_MAX, ensure};

/// The places of one connection.
#[derive(Debug, Default)]
pub(super) struct Places {
    me: i64,
    /// The conversations as the 43s have shown them.
    heads: BTreeMap<String, Head>,
    has_overview: bool,
    /// The number that comes next. A conversation that has not begun is not in the map.
    next: BTreeMap<String, u64>,
    /// Runs that are not complete: the first number and the last.
    runs: BTreeMap<String, (u64, u64)>,
    /// Synchronisations that have not ended with a 45; the login's is the first.
    syncs: VecDeque<Sync>,
    /// Conversations in which the client lacks messages that it has not asked for.
    behind: BTreeSet<String>,
    /// Conversations that have ended for the user.
    ended: BTreeSet<String>,
    /// The last message that was shown of each conversation.
    shown: BTreeMap<String, (u64, String)>,
    /// Runs of resets that answer no request: no 45 waits for them.
    loose: BTreeSet<String>,
}

/// A conversation of a 43.
#[derive(Clone, Debug)]
struct Head {
    head: u64,
    floor: u64,
    tag: Option<String>,
}

/// The synchronisation of a login or a 46, until its 45.
#[derive(Debug)]
struct Sync {
    is_login: bool,
    rid: Option<Rid>,
    have: BTreeMap<String, Cursor>,
    /// Login only: `"have":"device"`.
    by_device: bool,
    resume: u64,
    /// Conversations whose 44 has come.
    answered: BTreeSet<String>,
    /// Conversations that had messages after the client's cursor when it asked.
    due: BTreeSet<String>,
    /// Conversations that the client has dropped since it asked. Their 44 may differ from the reset
    /// that made the client drop them.
    dropped: BTreeSet<String>,
}

/// The messages that the client says it holds, as cursors.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Cursor {
    At(u64, String),
    /// At most this number. The device's last report may not have arrived.
    Reported(u64),
    Malformed,
}

impl Places {
    pub(super) fn on_login(me: i64, request: &Value, store: &Store) -> Places {
        let mut places = Places { me, ..Places::default() };
        let mut sync = Sync::new(request, true);
        if request["have"] == "device" {
            sync.by_device = true;
            sync.have = store.reported.iter().map(|(conv, seq)| (conv.clone(), Cursor::Reported(*seq))).collect();
        }
        places.syncs.push_back(sync);
        places
    }

    /// Notes that a 46 is sent.
    pub(super) fn on_sync(&mut self, request: &Value) {
        let mut sync = Sync::new(request, false);
        let behind = |(conv, cursor): (&String, &Cursor)| match cursor {
            Cursor::At(seq, _) => {
                // Before the 43 the client does not know whether there are messages after its
                // cursor.
                let next = self.next.get(conv);
                let is_due = next.map_or(self.has_overview, |next| next - 1 > *seq);
                is_due.then(|| conv.clone())
            }
            Cursor::Reported(_) | Cursor::Malformed => Some(conv.clone()),
        };
        sync.due = sync.have.iter().filter_map(behind).collect();
        self.syncs.push_back(sync);
    }

    pub(super) fn is_synced(&self) -> bool {
        self.has_overview && self.syncs.is_empty()
    }

    /// The number of synchronisations that have not ended.
    pub(super) fn unsynced(&self) -> usize {
        self.syncs.len()
    }

    /// Checks a 43.
    pub(super) fn on_overview(&mut self, overview: &Overview, store: &mut Store) -> Checked<()> {
        ensure(!self.has_overview, || "a 43 after the last one".to_owned())?;
        ensure(overview.convs.len() as u64 <= PAGE_MAX, || format!("{} conversations in a 43", overview.convs.len()))?;
        ensure(!overview.convs.is_empty() || !overview.more, || "an empty 43, and more".to_owned())?;
        let lasts = overview.convs.iter().filter_map(|line| line.last.as_ref());
        let bytes: usize = lasts.clone().map(|last| last.m.0.len()).sum();
        ensure(bytes <= TEXT_MAX || overview.convs.len() == 1, || format!("a 43 with {bytes} bytes of last"))?;
        let times: Vec<i64> = lasts.map(|last| last.time.0).collect();
        let is_sorted = times.is_sorted_by(|one, other| one >= other);
        ensure(is_sorted, || "43: most recently active first".to_owned())?;
        for line in &overview.convs {
            self.on_line(line, store).map_err(|Mistake(mistake)| Mistake(format!("{}: {mistake}", line.conv.0)))?;
        }
        if !overview.more {
            self.has_overview = true;
            self.find_due(store)?;
        }
        Ok(())
    }

    fn on_line(&mut self, line: &OverviewLine, store: &mut Store) -> Checked<()> {
        let conv = &line.conv.0;
        let (floor, head) = (line.floor.0, line.head.0);
        let kind = if conv.starts_with('u') { "user" } else { "group" };
        ensure(line.kind == kind, || format!("kind {}", line.kind))?;
        ensure(floor <= head && line.read.0 <= head, || "floor or read beyond head".to_owned())?;
        ensure(line.unread.0 <= head - line.read.0, || format!("{} unread", line.unread.0))?;
        ensure(line.tag.is_some() == (head > 0), || "a tag exactly if head > 0".to_owned())?;
        ensure(head > 0 || kind == "group", || "a conversation of two without a message".to_owned())?;
        let marks = [line.peer_read, line.peer_recv];
        ensure(marks.iter().flatten().count() != 1, || "one mark of the partner".to_owned())?;
        ensure(kind == "user" || marks[0].is_none(), || "marks of a partner in a group".to_owned())?;
        ensure(marks.iter().flatten().all(|mark| mark.0 <= head), || "a mark beyond head".to_owned())?;
        let tag = line.tag.as_ref().map(|tag| tag.0.clone());
        let known = Head { head, floor, tag: tag.clone() };
        ensure(self.heads.insert(conv.clone(), known).is_none(), || "twice in the 43s".to_owned())?;
        self.next.insert(conv.clone(), head + 1);
        self.shown.extend(tag.clone().map(|tag| (conv.clone(), (head, tag))));
        let last = line.last()?;
        let (is_asked, by_device) = match self.syncs.front() {
            Some(login) => (login.have.contains_key(conv), login.by_device),
            None => (false, false),
        };
        ensure(by_device || last.is_some() == (!is_asked && head > floor), || {
            "last is for conversations that are not in have".to_owned()
        })?;
        if let Some(last) = last.as_ref() {
            ensure(last.seq == line.head && Some(&last.tag) == line.tag.as_ref(), || "last is not head".to_owned())?;
        }
        let held = store.cursor(conv);
        let is_void = store.log(conv).is_none_or(|log| log.tag.is_none() || log.closed.is_some());
        match (is_asked || by_device, is_void) {
            (true, _) => Ok(()),
            (false, true) => store.adopt(conv, head, tag.as_deref(), last),
            (false, false) => {
                if held != head {
                    self.behind.insert(conv.clone());
                }
                Ok(())
            }
        }
    }

    /// Finds the conversations of the login's `have` that need a 44.
    fn find_due(&mut self, store: &mut Store) -> Checked<()> {
        let Some(login) = self.syncs.front_mut() else { return Ok(()) };
        if login.by_device {
            login.have.retain(|conv, _| self.heads.contains_key(conv));
            for conv in self.heads.keys() {
                login.have.entry(conv.clone()).or_insert(Cursor::Reported(0));
            }
        }
        for (conv, cursor) in &login.have {
            let is_due = match (self.heads.get(conv), cursor) {
                (None, _) | (_, Cursor::Malformed) => true,
                (Some(head), Cursor::Reported(seq)) => head.head > (*seq).max(head.floor),
                (Some(head), Cursor::At(seq, tag)) => {
                    let is_other = *seq == head.head && *seq > head.floor && head.tag.as_ref() != Some(tag);
                    *seq > head.head || is_other || head.head > (*seq).max(head.floor)
                }
            };
            if is_due {
                login.due.insert(conv.clone());
            } else if store.cursor(conv) < self.heads[conv].head {
                // All the messages that it missed have been deleted.
                store.adopt(conv, self.heads[conv].head, self.heads[conv].tag.as_deref(), None)?;
            }
        }
        Ok(())
    }

    /// Checks a 44.
    pub(super) fn on_run(&mut self, run: &Run, store: &mut Store) -> Checked<()> {
        let conv = run.conv.0.clone();
        ensure(self.has_overview, || "a 44 before the last 43".to_owned())?;
        let holds_lost = store.holds_lost(&conv)
            || self.shown.get(&conv).is_some_and(|(seq, tag)| store.losses.has(&conv, *seq, tag))
            // Messages that a 44 has announced may be lost.
            || self.runs.get(&conv).is_some_and(|(_, to)| store.losses.has_number(&conv, *to));
        if run.reset.0 && holds_lost && !self.is_owed_by_login(&conv) {
            return self.on_loss(run, store);
        }
        let (index, cursor, was_dropped) = self.answer(&conv)?;
        let (is_login, resume) = (self.syncs[index].is_login, self.syncs[index].resume);
        let head = self.heads.get(&conv).cloned();
        let reach = self.next.get(&conv).map_or(0, |next| next - 1);
        let floor = head.as_ref().map_or(0, |head| head.floor);
        if is_login {
            ensure(run.to.0 == reach, || format!("{conv}: to {} where head is {reach}", run.to.0))?;
        } else {
            // After a reset the messages come again, those above the run live.
            ensure(run.reset.0 || run.to.0 >= reach, || format!("{conv}: to {} after {reach} was shown", run.to.0))?;
        }
        let is_foreign = match &cursor {
            Cursor::Malformed => return Err(Mistake(format!("{conv}: a run for a malformed cursor"))),
            Cursor::Reported(_) => Some(false),
            _ if was_dropped => None,
            // The server may have read its heads before the loss.
            Cursor::At(seq, tag) if store.losses.has(&conv, *seq, tag) => None,
            // At and below the floor the server does not compare the tag.
            Cursor::At(seq, _) if *seq <= floor => Some(false),
            Cursor::At(seq, _) if *seq > run.to.0 => Some(true),
            Cursor::At(seq, tag) => {
                let of_head = head.filter(|head| head.head == *seq).and_then(|head| head.tag);
                let held = store.log(&conv).and_then(|log| log.messages.get(seq)).map(|message| message.tag.0.clone());
                of_head.or(held).map(|known| known != *tag)
            }
        };
        if let Some(is_foreign) = is_foreign {
            ensure(run.reset.0 == is_foreign, || format!("{conv}: reset is {} for {cursor:?}", run.reset.0))?;
        }
        let start = match &cursor {
            _ if run.reset.0 => floor,
            Cursor::At(seq, _) | Cursor::Reported(seq) => (*seq).max(floor),
            Cursor::Malformed => floor,
        } + 1;
        let may_begin_earlier = matches!(cursor, Cursor::Reported(_)) || was_dropped;
        // The user may have left the group and come back since the client has asked.
        let may_be_another = !is_login && store.allowed.closes && conv.starts_with('g');
        check_bounds(run, start, resume, store.allowed.trims || may_be_another, may_begin_earlier)
            .map_err(|Mistake(mistake)| Mistake(format!("{conv} from {start}: {mistake}")))?;
        self.loose.remove(&conv);
        self.begin(run, store)
    }

    /// Begins a run, to which the messages that follow belong.
    fn begin(&mut self, run: &Run, store: &mut Store) -> Checked<()> {
        let conv = run.conv.0.clone();
        if run.reset.0 {
            store.drop_all(&conv);
            self.shown.remove(&conv);
            if run.from > run.to {
                store.adopt(&conv, run.to.0, None, None)?;
            }
        }
        self.behind.remove(&conv);
        self.ended.remove(&conv);
        self.next.insert(conv.clone(), run.from.0);
        if run.from <= run.to {
            self.runs.insert(conv, (run.from.0, run.to.0));
        } else {
            self.runs.remove(&conv);
        }
        Ok(())
    }

    /// Checks a 44 after the client was found to hold lost messages. It may answer a 46, or come
    /// unasked.
    fn on_loss(&mut self, run: &Run, store: &mut Store) -> Checked<()> {
        let conv = &run.conv.0;
        let resumes = self.syncs.iter().filter(|sync| sync.have.contains_key(conv)).map(|sync| sync.resume);
        let resumes: Vec<u64> = resumes.chain([RESUMED_AFTER_LOSS]).collect();
        let start = self.floor(conv) + 1;
        let bounds = |resume: &u64| check_bounds(run, start, *resume, store.allowed.trims, false);
        let checked: Vec<_> = resumes.iter().map(bounds).collect();
        let is_right = checked.iter().any(Result::is_ok);
        ensure(is_right, || format!("{conv} from {start}, after a loss: {:?}", checked[checked.len() - 1]))?;
        for sync in self.syncs.iter_mut().filter(|sync| sync.have.contains_key(conv)) {
            sync.due.remove(conv);
            if !sync.answered.contains(conv) {
                sync.dropped.insert(conv.clone());
            }
        }
        self.loose.insert(conv.clone());
        self.begin(run, store)
    }

    /// Whether the login's 44 of a conversation has not come.
    fn is_owed_by_login(&self, conv: &str) -> bool {
        self.syncs.iter().any(|sync| sync.is_login && sync.have.contains_key(conv) && !sync.answered.contains(conv))
    }

    /// Checks a 44 with an error.
    pub(super) fn on_run_refused(&mut self, refusal: &Refusal, store: &mut Store) -> Checked<()> {
        let conv = refusal.conv.clone().unwrap_or_default();
        ensure(self.has_overview, || "a 44 before the last 43".to_owned())?;
        let is_awaited = self.syncs.iter().any(|sync| sync.have.contains_key(&conv) && !sync.answered.contains(&conv));
        let is_mine = self.next.contains_key(&conv) && !self.ended.contains(&conv);
        if store.allowed.closes && is_mine && is_awaited && matches!(refusal.errno, 403 | 404) {
            self.answer(&conv)?;
            self.runs.remove(&conv);
            store.close(&conv, refusal.errno);
            self.next.remove(&conv);
            self.ended.insert(conv);
            return Ok(());
        }
        let (_, cursor, _) = self.answer(&conv)?;
        ensure(refusal.retry_after.is_none(), || "a 44 with retryAfter".to_owned())?;
        let is_malformed = cursor == Cursor::Malformed;
        let fits = if is_malformed { refusal.errno == 400 } else { matches!(refusal.errno, 403 | 404) };
        ensure(fits, || format!("{conv}: errno {} for {cursor:?}", refusal.errno))?;
        let is_mine = self.next.contains_key(&conv) && !self.ended.contains(&conv);
        ensure(is_malformed || !is_mine, || format!("{conv}: errno {}, and it is the user's", refusal.errno))?;
        if !is_malformed {
            store.close(&conv, refusal.errno);
            self.ended.insert(conv);
        }
        Ok(())
    }

    /// Checks a 45.
    pub(super) fn on_synced(&mut self, rid: Option<&Rid>) -> Checked<()> {
        ensure(self.has_overview, || "a 45 before the last 43".to_owned())?;
        let index = self.syncs.iter().position(|sync| sync.rid.as_ref() == rid);
        let index = index.ok_or_else(|| Mistake(format!("a 45 with rid {rid:?} that nobody has asked for")))?;
        let sync = &self.syncs[index];
        // One 44 may answer two 46s.
        let left_out: Vec<_> = sync.due.difference(&sync.answered).collect();
        ensure(left_out.is_empty(), || format!("a 45 without the 44 of {left_out:?}"))?;
        let is_open = |conv: &&String| self.runs.contains_key(*conv) && !self.loose.contains(*conv);
        let open: Vec<_> = sync.answered.iter().filter(is_open).collect();
        ensure(open.is_empty(), || format!("a 45 before the end of the run of {open:?}"))?;
        self.syncs.remove(index);
        Ok(())
    }

    /// Checks a 46 with an error: no frame of its synchronisation follows.
    pub(super) fn on_sync_refused(&mut self, reply: &Value) -> Checked<()> {
        let rid = rid_of(reply);
        let index = self.syncs.iter().position(|sync| !sync.is_login && sync.rid == rid);
        let index = index.ok_or_else(|| Mistake(format!("{reply} for nothing")))?;
        ensure(self.syncs[index].answered.is_empty(), || format!("{reply} after 44s"))?;
        self.syncs.remove(index);
        Ok(())
    }

    /// Checks the number that the server shows next in a conversation, with a 42 or with the answer
    /// to an own send.
    pub(super) fn on_number(&mut self, conv: &str, (seq, tag): (u64, &str), shown: Option<&Message>) -> Checked<Step> {
        let event = shown.map(|message| Event::of(&message.m, self.me)).unwrap_or(Event::Other);
        let is_asked = |sync: &Sync| sync.is_login && sync.have.contains_key(conv);
        ensure(self.has_overview || (self.next.contains_key(conv) && !self.syncs.iter().any(is_asked)), || {
            format!("{conv} {seq} before its 43")
        })?;
        let owed = |sync: &Sync| sync.is_login && sync.due.contains(conv) && !sync.answered.contains(conv);
        ensure(!self.syncs.iter().any(owed), || format!("{conv} {seq} before its 44"))?;
        let is_new = event == Event::Begins && (self.ended.contains(conv) || !self.next.contains_key(conv));
        ensure(is_new || !self.ended.contains(conv), || format!("{conv} {seq}, which is not the user's any more"))?;
        let next = if is_new { seq } else { *self.next.get(conv).unwrap_or(&1) };
        ensure(seq == next, || format!("{conv} {seq} where {next} is next"))?;
        self.ended.remove(conv);
        self.next.insert(conv.to_owned(), seq + 1);
        self.shown.insert(conv.to_owned(), (seq, tag.to_owned()));
        if let (true, Some(message)) = (is_new, shown) {
            let head = Head { head: seq, floor: seq - 1, tag: Some(message.tag.0.clone()) };
            self.heads.insert(conv.to_owned(), head);
        }
        if event == Event::Ends {
            // No more messages of its run follow.
            self.runs.remove(conv);
            self.next.remove(conv);
            self.ended.insert(conv.to_owned());
        }
        let begins_run = self.runs.get(conv).is_some_and(|(from, _)| *from == seq);
        if self.runs.get(conv).is_some_and(|(_, to)| *to == seq) {
            self.runs.remove(conv);
        }
        Ok(match () {
            () if self.behind.contains(conv) => Step::Forget,
            () if begins_run || is_new => Step::Jump,
            () => Step::Next,
        })
    }

    /// Whether the user has been notified that the conversation has ended.
    pub(super) fn has_ended(&self, conv: &str) -> bool {
        self.ended.contains(conv)
    }

    /// The floor of a conversation, as far as it is known.
    pub(super) fn floor(&self, conv: &str) -> u64 {
        self.heads.get(conv).map_or(0, |head| head.floor)
    }

    /// The synchronisation that a 44 of `conv` belongs to, the cursor that it answers, and whether
    /// the client has dropped since then what it held.
    fn answer(&mut self, conv: &str) -> Checked<(usize, Cursor, bool)> {
        let waits = |sync: &Sync| sync.have.contains_key(conv) && !sync.answered.contains(conv);
        let index = self.syncs.iter().position(waits);
        let index = index.ok_or_else(|| Mistake(format!("a 44 of {conv} that nobody has asked for")))?;
        let sync = &mut self.syncs[index];
        sync.answered.insert(conv.to_owned());
        Ok((index, sync.have[conv].clone(), sync.dropped.contains(conv)))
    }
}

/// The number of newest messages that follow a reset which answers no request.
const RESUMED_AFTER_LOSS: u64 = 100;

/// Checks the bounds of a run that may begin at `start`.
fn check_bounds(run: &Run, start: u64, resume: u64, may_trim: bool, may_begin_earlier: bool) -> Checked<()> {
    let (from, to) = (run.from.0, run.to.0);
    let begins = run.gap.map_or(from, |(first, _)| first.0);
    ensure(begins == start || (may_trim && begins > start) || (may_begin_earlier && begins < start), || {
        format!("it begins at {begins}")
    })?;
    ensure(run.complete == run.gap.is_none(), || "complete, or a gap".to_owned())?;
    ensure(from <= to || (run.reset.0 && from == to + 1), || format!("nothing is behind the cursor: {from} to {to}"))?;
    ensure((to + 1).saturating_sub(from) <= resume, || format!("more than {resume}: {from} to {to}"))?;
    if let Some((first, last)) = run.gap {
        ensure(first <= last && last.0 + 1 == from, || format!("the gap {first:?} to {last:?} before {from}"))?;
        ensure(to + 1 - from == resume, || format!("a gap, and {} of {resume} follow", to + 1 - from))?;
    }
    Ok(())
}

/// The meaning of a group's event for one user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Event {
    /// The group's conversation begins here for the user.
    Begins,
    /// The group's conversation ends here for the user.
    Ends,
    Other,
}

impl Event {
    fn of(m: &Body, me: i64) -> Event {
        let peek = Peek::at(m);
        if peek.msg_type != Some(Value::from(57)) {
            return Event::Other;
        }
        let is_mine = peek.user == Some(Value::from(me));
        match peek.event.as_ref().and_then(Value::as_str) {
            Some("joined" | "created") if is_mine => Event::Begins,
            Some("left" | "removed") if is_mine => Event::Ends,
            Some("dissolved") => Event::Ends,
            _ => Event::Other,
        }
    }
}

impl Sync {
    fn new(request: &Value, is_login: bool) -> Sync {
        let have = request["have"].as_object().into_iter().flatten();
        let have = have.map(|(conv, cursor)| (conv.clone(), Cursor::read(conv, cursor))).collect();
        let resume = request["resume"].as_i64().unwrap_or(100).clamp(1, 5000).unsigned_abs();
        // The 40 repeats the login's own rid.
        let rid = if is_login { None } else { rid_of(request) };
        let [answered, due, dropped] = [const { BTreeSet::new() }; 3];
        Sync { is_login, rid, have, by_device: false, resume, answered, due, dropped }
    }
}

impl Cursor {
    fn read(conv: &str, cursor: &Value) -> Cursor {
        let is_name = super::frame::Conv::try_from(conv.to_owned()).is_ok();
        let parts = cursor.as_str().and_then(|cursor| cursor.split_once(':'));
        let parts = parts.and_then(|(seq, tag)| {
            let number: u64 = seq.parse().ok().filter(|number: &u64| number.to_string() == seq && *number < 1 << 53)?;
            // A client may send any text as a tag, and needs none for number 0.
            (!tag.is_empty() || number == 0).then(|| (number, tag.to_owned()))
        });
        match parts {
            Some((seq, tag)) if is_name => Cursor::At(seq, tag),
            _ => Cursor::Malformed,
        }
    }
}
