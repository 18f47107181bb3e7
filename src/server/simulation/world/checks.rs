//! Checks of the state after every step.

use std::collections::BTreeSet;

use super::client::{Client, Expected, Frame, Life};
use super::{CLIENTS_MAX, Kind, USERS, World};
use crate::protocol::{
    ACK, BAD_REQUEST, BUSY, LOGIN_FIRST, NO_METHOD, NOT_A_MEMBER, NOT_KEPT, NOT_YOU, SERVER_ERROR, UserId, WRONG_LOGIN,
};
use crate::server::simulation::ledger::SentMessage;
use crate::server::simulation::spool::Change;
use crate::server::simulation::store::News;
use crate::server::simulation::{Mutation, number_of};

impl World {
    pub(super) fn observe(&mut self) {
        self.note_news();
        let given_up = self.wires.lock().given_up;
        if std::mem::replace(&mut self.given_up, given_up) != given_up {
            // A node has found itself deaf, when nothing was done for it for long, or its
            // connection was broken.
            self.tear();
        }
        for client in self.clients.iter_mut().filter(|client| client.pipe.is_closed()) {
            client.gone_at.get_or_insert(self.step);
        }
        let parsed: Vec<_> = self.clients.iter_mut().map(Client::new_frames).collect();
        // All pushes are noted before any reply is checked: a push that came before a reply counts
        // for it.
        for (no, frames) in parsed.iter().enumerate() {
            for (_, text) in frames {
                if let Some(number) = pushed(text) {
                    for user in self.clients[no].may_receive() {
                        if let Some(copy) = self
                            .ledger
                            .messages
                            .get_mut(number as usize)
                            .and_then(|message| message.copies.get_mut(&user))
                        {
                            copy.written.insert(no);
                        }
                    }
                }
            }
        }
        for (no, frames) in parsed.into_iter().enumerate() {
            for (end, text) in frames {
                let frame = self.on_written(no, text);
                self.clients[no].frames.push_back((end, frame));
            }
            self.take_received(no);
        }
        self.check_deletions();
        self.check_bounds();
    }

    fn on_written(&mut self, no: usize, text: String) -> Frame {
        self.note(|_| format!("client {no} is sent {text}"));
        if let Some(number) = pushed(&text) {
            self.on_push(no, number);
            return if self.mutation == Some(Mutation::LosesWritten) && self.dice.one_in(8) {
                Frame::Nothing
            } else {
                Frame::Push(number)
            };
        }
        if text.contains(r#""new":true"#) {
            return Frame::Friend;
        }
        self.on_reply(no, text)
    }

    fn on_push(&mut self, no: usize, number: u32) {
        let forged = self.ledger.messages.get(number as usize).is_some_and(|message| message.forged);
        assert!(!forged, "somebody was let in: message {number}, sent in another's name, was let through");
        let client = &mut self.clients[no];
        let copies =
            self.ledger.messages.get(number as usize).map(|message| message.copies.keys().copied().collect::<Vec<_>>());
        let copies = copies.unwrap_or_default();
        let user = copies.iter().copied().find(|user| client.receives.contains(user));
        let Some(user) = user else {
            panic!(
                "client {no}, who is {:?}, is sent message {number} for {copies:?}: a stranger to it",
                client.receives
            );
        };
        let SentMessage { from, nth, .. } = self.ledger.messages[number as usize];
        assert!(client.seen.insert((number, user)), "message {number} came twice to user {user} on client {no}");
        let last = client.last.entry((from, user)).or_insert(0);
        assert!(*last < nth, "message {number} came out of order to client {no}: {nth} after {last} of client {from}");
        *last = nth;
    }

    fn on_reply(&mut self, no: usize, text: String) -> Frame {
        let seat = &self.nodes[self.clients[no].home.node];
        if text == BAD_REQUEST && seat.machine.as_ref().is_none_or(|machine| !machine.is_running()) {
            // A node that stops waits for the rest of no frame.
            return Frame::Nothing;
        }
        let client = &mut self.clients[no];
        let run = client.expected.iter().take_while(|expected| matches!(expected, Expected::Message(_))).count();
        let is_error = [NOT_KEPT, BUSY, SERVER_ERROR, NOT_A_MEMBER].contains(&text.as_str());
        if run > 0 && is_error {
            let window = client.expected.iter().find_map(|expected| match expected {
                Expected::Message(number) => Some(self.ledger.messages[*number as usize].window),
                _ => None,
            });
            let window = window.expect("there is a message");
            *self.ledger.errors.entry(window).or_default() += 1;
            assert!(
                self.kind != Kind::Calm || text == NOT_A_MEMBER || self.config.lane_bytes_max < 1 << 20,
                "client {no} is told {text}, though nothing has failed"
            );
            return Frame::Nothing;
        }
        let numbers: Vec<u32> = client
            .expected
            .drain(..run)
            .map(|expected| match expected {
                Expected::Message(number) => number,
                _ => unreachable!("a run of messages"),
            })
            .collect();
        let Some(expected) = client.expected.pop_front() else {
            panic!("client {no} is told {text} without having asked")
        };
        let matches = match &expected {
            Expected::Message(_) => unreachable!("it was taken before"),
            Expected::Forged => [NOT_YOU, LOGIN_FIRST].contains(&text.as_str()),
            Expected::WrongLogin => text == WRONG_LOGIN || has_failed(&text),
            Expected::Login(_) | Expected::Logout(_) => text == ACK || has_failed(&text),
            Expected::Fetch(_) => text.contains(r#""msgType":14"#) || has_failed(&text),
            Expected::Barrier(_) => text == NO_METHOD,
            Expected::Answer => ![NO_METHOD, BAD_REQUEST, NOT_YOU].contains(&text.as_str()),
        };
        if matches!(expected, Expected::Forged) && !matches {
            panic!("somebody was let in: client {no} is told {text}, and had asked in another's name");
        }
        assert!(matches, "client {no} is told {text}, and expected {expected:?}");
        self.check_settled(no, &numbers, &text);
        self.on_expected(no, expected, &text)
    }

    /// A client gets the reply that it has expected.
    fn on_expected(&mut self, no: usize, expected: Expected, text: &str) -> Frame {
        let failed = has_failed(text);
        let client = &mut self.clients[no];
        match expected {
            Expected::Login(user) if !failed => {
                client.receives.insert(user);
                client.ever.insert(user);
                if client.asked_at > self.disturbed_at && !self.is_torn && client.state == Life::Open {
                    client.placed.insert(user);
                } else {
                    client.placed.remove(&user);
                }
                Frame::LoggedIn(user)
            }
            Expected::Logout(user) => {
                client.receives.remove(&user);
                Frame::Nothing
            }
            Expected::Fetch(user) if !failed => {
                let reply: serde_json::Value = serde_json::from_str(text).expect("it was parsed before");
                let texts = reply["msgs"].as_array().expect("a list").iter().map(|text| text.as_str().expect("a text"));
                let texts: Vec<&str> = texts.collect();
                Frame::Fetched(user, texts.into_iter().filter_map(number_of).collect())
            }
            Expected::Barrier(window) => Frame::Settled(window),
            _ => Frame::Nothing,
        }
    }

    /// A reply was written: everything before it must be settled.
    fn check_settled(&mut self, no: usize, numbers: &[u32], reply: &str) {
        let Some(first) = numbers.first() else { return };
        let window = self.ledger.messages[*first as usize].window;
        let errors = self.ledger.errors.get(&window).copied().unwrap_or(0);
        let unsettled: Vec<u32> = numbers.iter().copied().filter(|number| !self.is_settled(*number)).collect();
        assert!(
            unsettled.len() <= errors,
            "client {no} is told {reply} early: messages {unsettled:?} are nowhere (lost, or not settled), {errors} errors"
        );
    }

    fn is_settled(&self, number: u32) -> bool {
        let message = &self.ledger.messages[number as usize];
        message.copies.iter().all(|(user, copy)| {
            copy.stored + copy.ever_spooled > 0
                || !copy.written.is_empty()
                || copy.excused
                || self.clients.iter().any(|client| client.may_hold(*user, message.sent_at))
                || self.may_be_given_up(*user, message.sent_at)
        })
    }

    /// Whether a connection that acknowledges nothing may have been given up for another one of its
    /// user. Messages that it was sent and had not written are on their way to the store then.
    fn may_be_given_up(&self, user: UserId, sent_at: usize) -> bool {
        let on: Vec<_> = self.clients.iter().filter(|client| client.was_on(user, sent_at)).collect();
        on.len() > 1 && on.iter().any(|client| client.pipe.outstanding() > 0)
    }

    /// The bytes that have come to the client's kernel.
    fn take_received(&mut self, no: usize) {
        let acknowledged = self.clients[no].pipe.acknowledged();
        while let Some((end, _)) = self.clients[no].frames.front()
            && *end <= acknowledged
        {
            let (_, frame) = self.clients[no].frames.pop_front().expect("it is there");
            let client = &mut self.clients[no];
            match frame {
                Frame::Push(number) => {
                    for user in client.ever.clone() {
                        if let Some(copy) = self.ledger.messages[number as usize].copies.get_mut(&user) {
                            copy.received.insert(no);
                        }
                    }
                }
                Frame::LoggedIn(user) => {
                    client.users.retain(|other| *other != user);
                    if client.receives.contains(&user) && !client.leaves(user) {
                        client.users.push(user);
                    }
                }
                Frame::Fetched(user, numbers) => self.ledger.fetched(user, &numbers, self.kind == Kind::Calm),
                Frame::Settled(window) => {
                    let its = self.ledger.messages.iter_mut().filter(|message| message.window == (no, window));
                    its.for_each(|message| message.acknowledged = true);
                }
                Frame::Friend | Frame::Nothing => {}
            }
        }
    }

    fn note_news(&mut self) {
        let mut tables = self.tables.lock();
        let (news, fails) = (std::mem::take(&mut tables.news), tables.is_failing());
        drop(tables);
        if fails {
            self.ledger.note_outage();
        }
        for node in 0..self.nodes.len() {
            let news = std::mem::take(&mut self.nodes[node].disk.lock().news);
            for (user, number, change) in news {
                self.note(|_| format!("message {number} for user {user} {change:?} on the disk of node {node}"));
                if user.0 > USERS as i32 {
                    // Nobody knows yet that there is no such user.
                    continue;
                }
                let copy = self.ledger.copy(number, user);
                match change {
                    Change::Came => (copy.spooled, copy.ever_spooled) = (copy.spooled + 1, copy.ever_spooled + 1),
                    Change::Went => copy.spooled -= 1,
                }
            }
        }
        for news in news {
            match news {
                News::Stored { to, number } => {
                    self.note(|_| format!("message {number} is stored for user {to}"));
                    let clients = &self.clients;
                    let on_other_node = |no: usize, other: usize| clients[no].home.node != clients[other].home.node;
                    let is_apart = |no: usize, known_by: &BTreeSet<usize>| {
                        clients[no].gone_at.is_none() || known_by.iter().all(|other| on_other_node(no, *other))
                    };
                    self.ledger.note_stored(number, to, self.now, is_apart, on_other_node);
                }
                News::Refused { to, number } => {
                    self.note(|_| format!("message {number} for user {to} is refused for ever"));
                    if to.0 <= USERS as i32 {
                        self.ledger.copy(number, to).excused = true;
                    }
                }
                News::Deleted { of, number } => {
                    self.note(|_| format!("message {number} of user {of} is deleted"));
                    self.ledger.copy(number, of).deleted += 1;
                }
            }
        }
    }

    /// Deleted messages must have been fetched.
    fn check_deletions(&self) {
        for (number, message) in self.ledger.messages.iter().enumerate() {
            for (user, copy) in &message.copies {
                assert!(
                    copy.deleted <= copy.fetched,
                    "message {number} of user {user} was deleted before a client had it"
                );
            }
        }
    }

    fn check_bounds(&self) {
        for seat in &self.nodes {
            if let Some(machine) = &seat.machine {
                // Messages that are accepted already may exceed the bound by what connections had.
                let bound = self.config.lane_bytes_max + CLIENTS_MAX * (self.config.output_bytes_max + 64 * 1024);
                assert!(machine.lane_bytes() <= bound, "a lane holds {} bytes", machine.lane_bytes());
            }
        }
    }
}

/// The number of the message, if it is one.
fn pushed(text: &str) -> Option<u32> {
    let is_message = text.starts_with(r#"{"msgType":4,"#) || text.starts_with(r#"{"msgType":9,"#);
    is_message.then(|| number_of(text).expect("every message has a number"))
}

/// Whether a reply says that the database or a thread has failed.
fn has_failed(text: &str) -> bool {
    text == BUSY || text == SERVER_ERROR
}
