//! The acts of devices and of clients of level 1: they connect, write, request, and read.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use testkit::level2::{Frame, Mistake, Session};

use super::device::{Device, DeviceLink, Wire};
use super::old::OldReply;
use super::world::{Ghost, Kind, USERS, World};
use crate::base::conversation::{ConversationId, ConversationName};
use crate::protocol::{BAD_REQUEST, GroupId, UserId};

impl World {
    pub(super) fn act(&mut self) {
        let no = self.dice.range(0..self.devices.len());
        if self.devices[no].link.is_none() {
            if self.dice.one_in(2) {
                self.connect(no);
            }
            return;
        }
        match self.dice.range(0..10) {
            0..3 => self.deliver(no, false),
            3..6 => self.receive(no, false),
            _ => self.ask(no),
        }
    }

    /// Logs a device in on some node.
    pub(super) fn connect(&mut self, no: usize) {
        let node = self.dice.range(0..self.nodes.len());
        let Some(wire) = self.connect_to(node) else { return };
        let may_use_reports = self.kind < Kind::Restored && self.dice.one_in(8);
        let resume = 1 + self.dice.range(0..6);
        let gives_resume = self.dice.one_in(3);
        let Device { user, name, store, token, .. } = &self.devices[no];
        let mut login = json!({"msgType": 1, "level": 2, "device": name, "have": store.have()});
        match token {
            Some(token) => login["token"] = json!(token),
            None => (login["USERID"], login["password"]) = (json!(user.0), json!("secret")),
        }
        if may_use_reports {
            login["have"] = json!("device");
        }
        if gives_resume {
            login["resume"] = json!(resume);
        }
        let session = Session::new(&login);
        let (in_flight, failed) = (BTreeMap::new(), BTreeSet::new());
        let mut link = DeviceLink { wire, session, is_in: false, in_flight, failed };
        link.wire.send(&login.to_string());
        self.devices[no].link = Some(link);
        self.note(|_| format!("device {no} connects to node {node}"));
    }

    /// Makes a device send something.
    fn ask(&mut self, no: usize) {
        let Some(link) = self.devices[no].link.as_ref().filter(|link| link.is_in) else { return };
        if link.session.unreplied() > 8 || link.session.unanswered() > 12 {
            return;
        }
        match self.dice.range(0..20) {
            0..10 => {
                for _ in 0..1 + self.dice.range(0..4) {
                    self.write(no);
                }
            }
            10 => self.change(no),
            11 => self.report(no),
            12 => self.mark_read(no),
            13 => self.catch_up(no),
            // A page that was read before a loss may come after it.
            14 if self.kind == Kind::FailedOver => {}
            14 => self.page(no),
            15 => self.come_or_go(no),
            16 => self.request(no, json!({"msgType": 53})),
            17 => self.request_silently(no, json!({"msgType": 51, "conv": "g1"})),
            _ => drop(self.resend(no)),
        }
    }

    /// Retries the next message of the outbox, or sends a new one. Returns whether there was one.
    pub(super) fn resend(&mut self, no: usize) -> bool {
        let Some(text) = self.devices[no].next_of_outbox() else { return false };
        let outgoing = self.devices[no].store.outbox.iter().find(|outgoing| outgoing.text == text).cloned();
        let Some(outgoing) = outgoing else { return false };
        if let Some(link) = &mut self.devices[no].link {
            link.failed.remove(&outgoing.conv);
        }
        self.devices[no].send_message(&outgoing.conv, &outgoing.cid, &text);
        self.note(|_| format!("device {no} sends {} again", outgoing.cid));
        true
    }

    fn write(&mut self, no: usize) {
        let me = self.devices[no].user;
        let conv = match self.dice.range(0..8) {
            0 => format!("u{me}"),
            1 | 2 => "g1".to_owned(),
            3 if me.0 < 3 => "g2".to_owned(),
            // Somebody, and sometimes one who does not exist.
            _ => {
                let strangers = usize::from(self.dice.one_in(10));
                format!("u{}", 1 + self.dice.range(0..USERS + strangers))
            }
        };
        let pad = "x".repeat(self.dice.range(0..60));
        self.write_to(no, &conv, json!({"msg": pad}));
    }

    pub(super) fn write_to(&mut self, no: usize, conv: &str, members: Value) {
        let is_impatient = self.dice.one_in(4);
        let device = &mut self.devices[no];
        let Some(link) = device.link.as_ref() else { return };
        let is_on_its_way = |cid: &String| link.in_flight.get(conv).is_some_and(|cids| cids.contains(cid));
        let waits = device.store.outbox.iter().any(|outgoing| outgoing.conv == conv && !is_on_its_way(&outgoing.cid));
        // A message after a failure is refused. Messages that were not retried yet come first.
        if waits && !(is_impatient && link.failed.contains(conv)) {
            self.resend(no);
            return;
        }
        device.written += 1;
        let cid = format!("d{no}-{}", device.written);
        let to: i64 = conv[1..].parse().expect("the name of a conversation");
        let mut frame = match conv.starts_with('g') {
            true => json!({"msgType": 9, "FROMID": device.user.0, "GROUPID": to, "cid": cid}),
            false => json!({"msgType": 4, "FROMID": device.user.0, "TOID": to, "cid": cid}),
        };
        for (key, member) in members.as_object().into_iter().flatten() {
            frame[key] = member.clone();
        }
        device.send_message(conv, &cid, &frame.to_string());
        self.note(|_| format!("device {no} sends {cid} to {conv}"));
    }

    /// Edits or recalls one of the messages that it holds.
    fn change(&mut self, no: usize) {
        let targets = self.devices[no].own_messages();
        if targets.is_empty() {
            return;
        }
        let (conv, seq) = self.dice.pick(&targets).clone();
        let members = if self.dice.one_in(2) { json!({"edit": seq, "msg": "edited"}) } else { json!({"recall": seq}) };
        self.write_to(no, &conv, members);
    }

    fn report(&mut self, no: usize) {
        let store = &self.devices[no].store;
        let logs = store.logs.iter().filter(|(_, log)| log.cursor > 0 && log.closed.is_none());
        let recv: serde_json::Map<String, Value> = logs.map(|(conv, log)| (conv.clone(), json!(log.cursor))).collect();
        self.request_silently(no, json!({"msgType": 47, "recv": recv}));
    }

    fn mark_read(&mut self, no: usize) {
        if let Some((conv, cursor)) = self.some_log(no) {
            // A mark that a request would lower stays in place.
            let lower = self.dice.range(0..cursor as usize + 1);
            self.request(no, json!({"msgType": 49, "conv": conv, "read": cursor}));
            self.request(no, json!({"msgType": 49, "conv": conv, "read": lower}));
        }
    }

    fn catch_up(&mut self, no: usize) {
        let have = self.devices[no].store.have();
        self.request(no, json!({"msgType": 46, "have": have}));
    }

    fn page(&mut self, no: usize) {
        if let Some((conv, cursor)) = self.some_log(no) {
            let before = 1 + self.dice.range(0..cursor as usize + 1);
            let limit = 1 + self.dice.range(0..5);
            self.request(no, json!({"msgType": 48, "conv": conv, "before": before, "limit": limit}));
        }
    }

    /// Leaves the group, or joins it again. The news for other nodes must not be lost, or the
    /// connections there learn of it late.
    fn come_or_go(&mut self, no: usize) {
        if self.kind > Kind::Connections || self.broken.is_some() {
            return;
        }
        let me = self.devices[no].user;
        let (is_member, alone) = {
            let tables = self.tables.lock();
            // The last member who leaves dissolves the group.
            let Some(group) = tables.people().groups.get(&GroupId(1)) else { return };
            (group.members.contains(&me), group.members.len() < 2)
        };
        self.tally.memberships += usize::from(!alone || !is_member);
        match is_member {
            true if alone => {}
            true => self.request(no, json!({"msgType": 62, "GROUPID": 1})),
            false => self.request(no, json!({"msgType": 10, "FROMID": me.0, "GROUPID": 1})),
        }
    }

    /// A conversation of which the device holds something, and its cursor.
    fn some_log(&mut self, no: usize) -> Option<(String, u64)> {
        let logs = self.devices[no].store.logs.iter().filter(|(_, log)| log.cursor > 0 && log.closed.is_none());
        let logs: Vec<(String, u64)> = logs.map(|(conv, log)| (conv.clone(), log.cursor)).collect();
        (!logs.is_empty()).then(|| self.dice.pick(&logs).clone())
    }

    pub(super) fn request(&mut self, no: usize, mut request: Value) {
        self.devices[no].asked += 1;
        request["rid"] = json!(format!("r{}", self.devices[no].asked));
        self.request_silently(no, request);
    }

    fn request_silently(&mut self, no: usize, request: Value) {
        self.devices[no].send(&request.to_string());
        self.note(|_| format!("device {no} asks {}", request["msgType"]));
    }

    /// Delivers bytes to the node.
    pub(super) fn deliver(&mut self, no: usize, all: bool) {
        let most = self.some_bytes(all);
        if let Some(link) = &mut self.devices[no].link {
            let count = link.wire.deliver(most);
            if count > 0 {
                self.note(|_| format!("device {no}: bytes come to the node"));
            }
        }
    }

    /// Delivers bytes to the device, which reads all frames among them.
    pub(super) fn receive(&mut self, no: usize, all: bool) {
        let most = self.some_bytes(all);
        let Some(link) = &mut self.devices[no].link else { return };
        if link.wire.is_stalled && !all {
            return;
        }
        link.wire.pipe.acknowledge(most);
        let frames = link.wire.frames();
        let is_over = link.wire.pipe.is_at_end();
        for text in frames {
            self.on_frame(no, &text);
        }
        let was_told = self.devices[no].link.as_ref().is_some_and(|link| link.session.is_over());
        if is_over || was_told {
            self.note(|_| format!("device {no} is at its end"));
            self.give_up(no, false);
        }
    }

    pub(super) fn some_bytes(&mut self, all: bool) -> usize {
        if all || self.dice.one_in(2) { usize::MAX } else { 1 + self.dice.range(0..200) }
    }

    /// Ends the device's connection. `is_silent`: nobody else knows.
    pub(super) fn give_up(&mut self, no: usize, is_silent: bool) {
        if let Some(DeviceLink { wire, .. }) = self.devices[no].link.take() {
            self.bury(wire, is_silent);
        }
    }

    pub(super) fn bury(&mut self, mut wire: Wire, is_silent: bool) {
        if !is_silent {
            wire.deliver(usize::MAX);
            wire.pipe.end();
        }
        self.ghosts.push(Ghost { wire, is_silent });
    }

    fn on_frame(&mut self, no: usize, text: &str) {
        self.show(format!("device {no} gets {text}"));
        let home = self.devices[no].link.as_ref().map(|link| link.wire.home);
        // The node may have been started again since.
        let seat = home.map(|home| (&self.nodes[home.node], home.life)).filter(|(seat, life)| seat.life == *life);
        let machine = seat.and_then(|(seat, _)| seat.machine.as_ref());
        if text == BAD_REQUEST && machine.is_none_or(|machine| !machine.is_running()) {
            // A node that stops waits for the rest of no frame.
            return;
        }
        let Device { link: Some(link), store, .. } = &mut self.devices[no] else { return };
        let frame = match link.session.on_frame(text, store) {
            Ok(frame) => frame,
            Err(Mistake(mistake)) => panic!("device {no} gets {text}: {mistake}"),
        };
        self.note(|_| format!("device {no} gets {}", kind_of(&frame)));
        match frame {
            Frame::Welcome(welcome) => {
                self.tally.logins += 1;
                let device = &mut self.devices[no];
                device.token = Some(welcome.token);
                if let Some(link) = &mut device.link {
                    link.is_in = true;
                }
            }
            Frame::Ack(ack) => {
                self.tally.acknowledged += 1;
                self.check_acknowledged(no, &ack);
                if let Some(link) = &mut self.devices[no].link {
                    link.take_from_flight(&ack.cid);
                }
            }
            Frame::SendRefused(refusal) => {
                let cid = refusal.cid.clone().unwrap_or_default();
                assert!(refusal.errno != 409, "B: device {no} is told that {cid} is another message: {text}");
                if let Some(link) = &mut self.devices[no].link
                    && let (Some(conv), Some(_)) = (link.take_from_flight(&cid), refusal.retry_after)
                {
                    link.failed.insert(conv);
                }
            }
            Frame::Push(push) => {
                self.tally.shown += 1;
                self.check_shown(no, &push.conv.0, &push.message);
            }
            Frame::Run(run) if run.reset.0 => self.tally.resets += 1,
            Frame::Ping => self.devices[no].send(r#"{"msgType":54}"#),
            // A refused login: the token is no longer valid, or the node has no place.
            Frame::Reply(reply) if reply["msgType"] == 40 => {
                if reply["errno"] == 302 {
                    self.devices[no].token = None;
                }
                self.give_up(no, false);
            }
            _ => {}
        }
    }

    // Clients of level 1

    pub(super) fn act_of_old(&mut self) {
        let no = self.dice.range(0..self.olds.len());
        if self.olds[no].wire.is_none() {
            let node = self.dice.range(0..self.nodes.len());
            if let Some(wire) = self.connect_to(node) {
                let user = self.olds[no].user;
                self.olds[no].wire = Some(wire);
                let login = format!(r#"{{"msgType":1,"USERID":{user},"password":"secret"}}"#);
                self.send_as_old(no, &login, Some(OldReply::Login));
            }
            return;
        }
        match self.dice.range(0..10) {
            0..3 => self.deliver_old(no, false),
            3..6 => self.receive_as_old(no, false),
            _ if !self.olds[no].is_in || self.olds[no].expected.len() > 8 => {}
            6..8 => self.write_as_old(no),
            8 => {
                let user = self.olds[no].user;
                self.send_as_old(no, &format!(r#"{{"msgType":14,"FROMID":{user}}}"#), Some(OldReply::Fetch));
            }
            _ => self.barrier(no),
        }
    }

    fn send_as_old(&mut self, no: usize, frame: &str, expected: Option<OldReply>) {
        let old = &mut self.olds[no];
        old.expected.extend(expected);
        if let Some(wire) = &mut old.wire {
            wire.send(frame);
        }
        self.note(|_| format!("client {no} sends {frame}"));
    }

    fn write_as_old(&mut self, no: usize) {
        let from = self.olds[no].user;
        let (conv, to) = if self.dice.one_in(4) {
            let group = if from.0 == 3 { 1 } else { 2 };
            (ConversationId::of_group(GroupId(group)), format!(r#""msgType":9,"GROUPID":{group}"#))
        } else {
            let to = UserId(1 + self.dice.range(0..USERS) as i32);
            (ConversationId::between(from, to), format!(r#""msgType":4,"TOID":{to}"#))
        };
        let number = self.old_messages.add(from, conv);
        self.send_as_old(no, &format!(r#"{{{to},"FROMID":{from},"n":{number},"msg":""}}"#), None);
    }

    /// Sends a request whose answer means that everything before it is settled.
    pub(super) fn barrier(&mut self, no: usize) {
        let from = self.olds[no].user;
        let asked = self.olds[no].asked();
        let numbers = self.old_messages.unsettled_of(from).filter(|number| !asked.contains(number)).collect();
        self.send_as_old(no, r#"{"msgType":404}"#, Some(OldReply::Barrier(numbers)));
    }

    pub(super) fn deliver_old(&mut self, no: usize, all: bool) {
        let most = self.some_bytes(all);
        if let Some(wire) = &mut self.olds[no].wire {
            wire.deliver(most);
        }
    }

    pub(super) fn receive_as_old(&mut self, no: usize, all: bool) {
        let most = self.some_bytes(all);
        let Some(wire) = &mut self.olds[no].wire else { return };
        if wire.is_stalled && !all {
            return;
        }
        wire.pipe.acknowledge(most);
        let frames = wire.frames();
        let is_over = wire.pipe.is_at_end();
        for text in frames {
            self.on_frame_of_old(no, &text);
        }
        if is_over {
            self.give_up_old(no, false);
        }
    }

    /// A message that it was not told of is not settled for good: no later connection tells of it.
    pub(super) fn give_up_old(&mut self, no: usize, is_silent: bool) {
        let from = self.olds[no].user;
        self.old_messages.forget_unsettled_of(from);
        if let Some(wire) = self.olds[no].disconnect() {
            self.bury(wire, is_silent);
        }
    }

    fn on_frame_of_old(&mut self, no: usize, text: &str) {
        self.show(format!("client {no} gets {text}"));
        let frame: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let is_message = frame.get("FROMID").is_some() && matches!(frame["msgType"].as_i64(), Some(4 | 5 | 9));
        if is_message {
            self.note_received(no, &frame);
            return;
        }
        let is_error = frame["errno"].as_i64().is_some_and(|errno| errno != 200) && frame["msgType"] != 404;
        match self.olds[no].expected.front().cloned() {
            Some(OldReply::Login) => {
                self.olds[no].expected.pop_front();
                if frame["errno"] == 200 {
                    self.olds[no].is_in = true;
                } else {
                    self.give_up_old(no, false);
                }
            }
            Some(OldReply::Fetch) if frame["msgType"] == 14 => {
                self.olds[no].expected.pop_front();
                for message in frame["msgs"].as_array().into_iter().flatten() {
                    let message: Value = serde_json::from_str(message.as_str().unwrap_or("{}")).unwrap_or_default();
                    self.note_received(no, &message);
                }
            }
            Some(OldReply::Barrier(numbers)) if frame["msgType"] == 404 => {
                self.olds[no].expected.pop_front();
                self.old_messages.settle(numbers);
            }
            // An error does not tell which message failed, so none of them counts as settled.
            expected => {
                let from = self.olds[no].user;
                self.old_messages.forget_unsettled_of(from);
                if expected == Some(OldReply::Fetch) && is_error {
                    self.olds[no].expected.pop_front();
                }
            }
        }
    }

    /// Notes a received message, which must be one for its user.
    fn note_received(&mut self, no: usize, message: &Value) {
        let user = self.olds[no].user;
        let name = match (message.get("cid").and_then(Value::as_str), message.get("n").and_then(Value::as_u64)) {
            (Some(cid), _) => cid.to_owned(),
            (None, Some(number)) => format!("n{number}"),
            (None, None) => panic!("client {no} gets what nobody has sent: {message}"),
        };
        let id = |key: &str| message[key].as_i64().and_then(|id| i32::try_from(id).ok()).unwrap_or_default();
        let is_for_user = match message["msgType"].as_i64() {
            Some(9) => {
                let tables = self.tables.lock();
                let group = tables.people().groups.get(&GroupId(id("GROUPID")));
                group.is_some_and(|group| group.members.contains(&user))
            }
            _ => id("TOID") == user.0,
        };
        let is_here = self.kind <= Kind::Connections && message["GROUPID"] == 1;
        assert!(is_for_user || is_here, "client {no} holds what is not for user {user}: {message}");
        *self.olds[no].got.entry(name.clone()).or_default() += 1;
        self.note(|_| format!("client {no} gets {name}"));
    }
}

/// The conversation that a device calls by this name.
pub(super) fn conversation(user: UserId, name: &str) -> ConversationId {
    let name = ConversationName::parse(name).unwrap_or_else(|| panic!("no conversation: {name}"));
    name.for_user(user)
}

/// A frame without its random parts.
fn kind_of(frame: &Frame) -> String {
    match frame {
        Frame::Welcome(_) => "40".to_owned(),
        Frame::Ack(ack) => format!("41 {} {} {}", ack.cid, ack.conv.0, ack.seq.0),
        Frame::SendRefused(refusal) => format!("41 {:?} {}", refusal.cid, refusal.errno),
        Frame::Push(push) => format!("42 {} {}", push.conv.0, push.message.seq.0),
        Frame::Run(run) => format!("44 {} {} {}", run.conv.0, run.from.0, run.to.0),
        Frame::Page(page) => format!("48 {} {}", page.conv.0, page.msgs.len()),
        Frame::Farewell(farewell) => format!("55 {}", farewell.reason),
        Frame::Reply(reply) => format!("{} {}", reply["msgType"], reply["errno"]),
        Frame::Overview(_) => "43".to_owned(),
        Frame::Synced(_) => "45".to_owned(),
        _ => "something else".to_owned(),
    }
}
