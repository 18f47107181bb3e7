//! [`Session`]: one connection of level 2, as a client that trusts nothing sees it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::frame::{Ack, Frame, Page, Peer, Read, Welcome};
use super::messages::Step;
use super::replies::Replies;
use super::sends::Sends;
use super::sync::Places;
use super::{Checked, Mistake, PAGE_MAX, Store, TEXT_MAX, ensure};

/// The state of a connection: the frames it has received, and those that must come next.
#[derive(Debug)]
pub struct Session {
    stage: Stage,
    /// The login request.
    login: Value,
    places: Places,
    sends: Sends,
    replies: Replies,
    /// The user's own read marks.
    reads: BTreeMap<String, u64>,
    peers: BTreeMap<String, (u64, u64)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// The login is not answered yet.
    Login,
    Live,
    /// The server has sent its farewell.
    Over,
}

impl Session {
    /// The session of a connection on which this login was sent.
    pub fn new(login: &Value) -> Session {
        Session {
            stage: Stage::Login,
            login: login.clone(),
            places: Places::default(),
            sends: Sends::default(),
            replies: Replies::default(),
            reads: BTreeMap::new(),
            peers: BTreeMap::new(),
        }
    }

    /// Whether every synchronisation has ended.
    pub fn is_synced(&self) -> bool {
        self.stage == Stage::Live && self.places.is_synced()
    }

    /// The number of sends that are not answered.
    pub fn unanswered(&self) -> usize {
        self.sends.unanswered()
    }

    /// The number of other requests that are not answered, 46s among them.
    pub fn unreplied(&self) -> usize {
        self.replies.unanswered() + self.places.unsynced()
    }

    /// Whether the server has sent its farewell.
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// Notes a frame that is sent. A text that is not JSON is answered as at level 1.
    pub fn on_sent(&mut self, text: &str, store: &mut Store) {
        let request: Value = serde_json::from_str(text).unwrap_or(Value::Null);
        match request["msgType"].as_i64() {
            Some(kind @ (4 | 5 | 9)) => {
                let (prefix, to) = if kind == 9 { ("g", &request["GROUPID"]) } else { ("u", &request["TOID"]) };
                let conv = format!("{prefix}{to}");
                let cid = request["cid"].as_str().filter(|cid| is_printable(cid));
                self.sends.on_sent(&conv, cid, text);
                if let Some(cid) = cid {
                    store.post(&conv, cid, text);
                }
            }
            Some(46) if is_sync(&request) => self.places.on_sync(&request),
            Some(1) if self.stage == Stage::Login => self.login = request,
            kind => {
                if let (Some(47), Some(recv)) = (kind, request["recv"].as_object()) {
                    let reported = recv.iter().filter_map(|(conv, seq)| Some((conv.clone(), seq.as_u64()?)));
                    for (conv, seq) in reported.filter(|(conv, _)| store.logs.contains_key(conv)) {
                        let known = store.reported.entry(conv.clone()).or_default();
                        *known = (*known).max(seq.min(store.logs[&conv].cursor));
                    }
                }
                self.replies.on_sent(request);
            }
        }
    }

    /// Checks a frame that has arrived, and puts its content into the store.
    ///
    /// # Errors
    /// The mistake in the frame. The session cannot be used after that.
    pub fn on_frame(&mut self, text: &str, store: &mut Store) -> Checked<Frame> {
        let frame = Frame::read(text)?;
        self.look_at(&frame, store)?;
        Ok(frame)
    }

    fn look_at(&mut self, frame: &Frame, store: &mut Store) -> Checked<()> {
        match (self.stage, frame) {
            (Stage::Over, _) => Err(Mistake("something after the 55".to_owned())),
            (_, Frame::Farewell(farewell)) => {
                self.stage = Stage::Over;
                let is_right = farewell.reason != "logout" || self.replies.is_logged_out();
                ensure(is_right, || "logged out without the reply to a 3".to_owned())
            }
            (Stage::Login, Frame::Welcome(welcome)) => self.on_welcome(welcome, store),
            (Stage::Login, Frame::Reply(reply)) if reply["msgType"] == 40 => self.check_refused_login(reply),
            (Stage::Login, _) => Err(Mistake("something before the 40".to_owned())),
            (Stage::Live, frame) => self.look_at_live(frame, store),
        }
    }

    /// Checks a frame that comes after the 40.
    fn look_at_live(&mut self, frame: &Frame, store: &mut Store) -> Checked<()> {
        match frame {
            Frame::Welcome(_) => Err(Mistake("a second 40".to_owned())),
            Frame::Ack(ack) => self.on_ack(ack, store),
            Frame::SendRefused(refusal) => {
                let sent = self.sends.on_refused(refusal)?;
                if let (None, Some(cid)) = (refusal.retry_after, sent.cid) {
                    store.give_up(&cid);
                }
                Ok(())
            }
            Frame::Push(push) => {
                let place = (push.message.seq.0, push.message.tag.0.as_str());
                let step = self.places.on_number(&push.conv.0, place, Some(&push.message))?;
                store.take(&push.conv.0, push.message.clone(), step)
            }
            Frame::Overview(overview) => {
                for line in &overview.convs {
                    self.reads.insert(line.conv.0.clone(), line.read.0);
                    if let (Some(read), Some(recv)) = (line.peer_read, line.peer_recv) {
                        self.peers.insert(line.conv.0.clone(), (read.0, recv.0));
                    }
                }
                self.places.on_overview(overview, store)
            }
            Frame::Run(run) => {
                self.places.on_run(run, store)?;
                if run.reset.0 {
                    // A 49 and a 50 follow and tell the current marks, unless a 43 has told them.
                    self.reads.remove(&run.conv.0);
                    self.peers.remove(&run.conv.0);
                }
                Ok(())
            }
            Frame::RunRefused(refusal) => self.places.on_run_refused(refusal, store),
            Frame::Synced(rid) => self.places.on_synced(rid.as_ref()),
            Frame::Page(page) => self.on_page(page, store),
            Frame::Read(read) => self.on_read(read, store),
            Frame::Peer(peer) => self.on_peer(peer, store),
            Frame::Typing(typing) => {
                let is_right = typing.event == "typing" && typing.from != store.me;
                ensure(is_right, || format!("{typing:?} for {}", store.me))
            }
            Frame::Presence(_) | Frame::Ping => Ok(()),
            Frame::Pong(rid) => self
                .replies
                .on_reply(54, rid.as_ref())
                .and_then(|asked| ensure(asked.kind == 53, || format!("a 54 for {}", asked.request))),
            Frame::Reply(reply) if reply["msgType"] == 46 && self.places.unsynced() > 0 => {
                self.places.on_sync_refused(reply)
            }
            Frame::Reply(reply) => self.on_reply(reply),
            Frame::Farewell(_) => Ok(()),
        }
    }

    fn on_ack(&mut self, ack: &Ack, store: &mut Store) -> Checked<()> {
        let sent = self.sends.on_ack(ack)?;
        let step = match ack.again.0 {
            true => Step::Next,
            // The news that the group is no longer the user's came before this answer.
            false if store.allowed.closes && self.places.has_ended(&ack.conv.0) => Step::Forget,
            false => self.places.on_number(&ack.conv.0, (ack.seq.0, &ack.tag.0), None)?,
        };
        store.acknowledge(ack, &sent.text, step)
    }

    fn on_welcome(&mut self, welcome: &Welcome, store: &mut Store) -> Checked<()> {
        let login = &self.login;
        if store.me == Store::NEW_USER && login.get("jwt").is_some() {
            store.me = welcome.user;
        }
        ensure(welcome.user == store.me, || format!("logged in as {}, who is not {}", welcome.user, store.me))?;
        ensure(login["device"] == welcome.device.as_str(), || format!("the device is {}", welcome.device))?;
        let ping = login["ping"].as_i64().unwrap_or(60).clamp(15, 300);
        ensure(welcome.ping == ping, || format!("ping is {} and not {ping}", welcome.ping))?;
        ensure(welcome.rid == super::replies::rid_of(login), || format!("rid is {:?}", welcome.rid))?;
        ensure(welcome.level >= 2 && welcome.limits.page == PAGE_MAX, || "level or limits".to_owned())?;
        ensure(!welcome.token.is_empty() && welcome.token_expires > 1_000_000_000_000, || "token".to_owned())?;
        self.places = Places::on_login(store.me, login, store);
        self.stage = Stage::Live;
        Ok(())
    }

    fn on_reply(&mut self, reply: &Value) -> Checked<()> {
        let kind = reply["msgType"].as_i64().unwrap_or(0);
        if kind == 61 && reply["more"] == true {
            let is_reply = self.replies.awaits(61, reply.get("rid"));
            return ensure(is_reply, || "a part of a 61 where another reply is next".to_owned());
        }
        let asked = self.replies.on_reply(kind, reply.get("rid"))?;
        if asked.kind == 3 && reply["errno"] == 200 {
            self.replies.log_out();
        }
        Ok(())
    }

    fn check_refused_login(&self, reply: &Value) -> Checked<()> {
        let rid = super::replies::rid_of(&self.login);
        // Before the login succeeds, replies need not repeat a rid.
        ensure(reply.get("rid").is_none() || reply.get("rid") == rid.as_ref(), || "rid".to_owned())
    }

    fn on_page(&mut self, page: &Page, store: &mut Store) -> Checked<()> {
        let asked = self.replies.on_reply(48, page.rid.as_ref())?;
        let request = &asked.request;
        check_page(page, request).map_err(|Mistake(mistake)| Mistake(format!("{mistake}, asked {request}")))?;
        let floor = self.places.floor(&page.conv.0);
        ensure(page.floor.0 >= floor, || format!("the floor falls from {floor}"))?;
        page.msgs.iter().try_for_each(|message| store.keep(&page.conv.0, message.clone()))
    }

    fn on_read(&mut self, read: &Read, store: &Store) -> Checked<()> {
        let me = store.me;
        let is_reply = self.replies.awaits(49, read.rid.as_ref());
        ensure(is_reply || read.rid.is_none(), || "a 49 with a rid of nothing".to_owned())?;
        ensure(read.user == me, || format!("the mark of {}", read.user))?;
        ensure(read.read <= read.head && read.unread.0 <= read.head.0 - read.read.0, || format!("{read:?}"))?;
        let known = self.reads.entry(read.conv.0.clone()).or_default();
        // A reply tells the mark as it is now. It may be lower if the database has lost a higher
        // one.
        let may_fall = is_reply && store.losses.has_mark(&read.conv.0, *known);
        ensure(read.read.0 >= *known || may_fall, || format!("a mark falls from {known}: {read:?}"))?;
        *known = read.read.0;
        if is_reply {
            let asked = self.replies.on_reply(49, read.rid.as_ref())?;
            let wanted = asked.request["read"].as_u64().unwrap_or(0).min(read.head.0);
            ensure(read.read.0 >= wanted && asked.request["conv"] == read.conv.0.as_str(), || {
                format!("{read:?} for {}", asked.request)
            })?;
        }
        Ok(())
    }

    fn on_peer(&mut self, peer: &Peer, store: &Store) -> Checked<()> {
        let me = store.me;
        let is_partner = peer.conv.0 == format!("u{}", peer.user) && peer.user != me;
        ensure(is_partner, || format!("{peer:?} for {me}"))?;
        let (read, recv) = (peer.read.0, peer.recv.0);
        let known = self.peers.insert(peer.conv.0.clone(), (read, recv));
        // After a reset the first 50 may report marks of zero.
        let rises = known.is_none_or(|known| read >= known.0 && recv >= known.1 && (read, recv) != known);
        ensure(rises, || format!("marks of a partner do not rise from {known:?}: {peer:?}"))?;
        Ok(())
    }
}

/// Checks that a page is what was asked for.
fn check_page(page: &Page, request: &Value) -> Checked<()> {
    ensure(request["conv"] == page.conv.0.as_str(), || format!("a page of {}", page.conv.0))?;
    let limit = request["limit"].as_i64().unwrap_or(50).clamp(1, 200).unsigned_abs();
    let count = page.msgs.len() as u64;
    ensure(count <= limit, || format!("{count} messages"))?;
    let bytes: usize = page.msgs.iter().map(|message| message.m.0.len()).sum();
    ensure(bytes <= TEXT_MAX || count == 1, || format!("{bytes} bytes"))?;
    let (floor, head) = (page.floor.0, page.head.0);
    ensure(floor <= head, || "floor beyond head".to_owned())?;
    let seqs: Vec<u64> = page.msgs.iter().map(|message| message.seq.0).collect();
    let ends = (seqs.first().copied(), seqs.last().copied());
    ensure(ends == (page.from.map(|from| from.0), page.to.map(|to| to.0)), || "from and to".to_owned())?;
    ensure(seqs.windows(2).all(|pair| pair[0] + 1 == pair[1]), || format!("a hole or no order: {seqs:?}"))?;
    let (down, up) = (ends.0 == Some(floor + 1), ends.1 == Some(head));
    let number = |key: &str| request[key].as_i64();
    let (is_right, complete) = if let Some(after) = number("after") {
        let after = u64::try_from(after).unwrap_or(0).max(floor);
        (ends.0.is_none_or(|from| from == after + 1), up || after >= head)
    } else if let Some(around) = number("around") {
        let around = u64::try_from(around).unwrap_or(0);
        let is_there = around <= floor || around > head || seqs.contains(&around);
        (is_there, (down && up) || floor == head)
    } else {
        let before = number("before").map_or(head + 1, |before| u64::try_from(before).unwrap_or(0)).min(head + 1);
        (ends.1.is_none_or(|to| to + 1 == before), down || before <= floor + 1)
    };
    ensure(is_right, || format!("not the messages asked for: {seqs:?}"))?;
    ensure(page.complete == complete, || format!("complete is {}, floor {floor}, head {head}", page.complete))?;
    ensure(complete || count == limit || bytes > TEXT_MAX * 3 / 4, || format!("only {count}, though there are more"))
}

/// Whether the server can understand a 46.
fn is_sync(request: &Value) -> bool {
    let resume = request.get("resume");
    request["have"].is_object() && resume.is_none_or(|resume| resume.is_i64() || resume.is_u64())
}

/// Whether the text may be a `cid` or a device.
fn is_printable(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| (0x21..=0x7e).contains(&byte))
}
