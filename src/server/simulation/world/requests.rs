//! The acts of clients: they connect, log in and out, write messages, ask for something, and read.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use super::client::{Client, Expected, Home, Life};
use super::{CLIENTS_MAX, Kind, NodeSlot, USERS, World};
use crate::protocol::UserId;
use crate::server::simulation::Mutation;
use crate::server::simulation::ledger::{Copy, SentMessage};
use crate::server::simulation::socket::Pipe;

impl World {
    pub(super) fn act(&mut self) {
        let open = self.clients.iter().filter(|client| client.state == Life::Open).count();
        if open == 0 || (open < CLIENTS_MAX && self.dice.one_in(12)) {
            let node = self.dice.range(0..self.nodes.len());
            if self.connect(node).is_some() {
                self.login(self.clients.len() - 1);
            }
            return;
        }
        let no = self.dice.range(0..self.clients.len());
        match self.dice.range(0..10) {
            0..3 => self.deliver(no, false),
            3..6 => self.receive(no, false),
            _ => self.ask(no),
        }
    }

    /// Connects a client to a node, if that runs.
    pub(super) fn connect(&mut self, node: usize) -> Option<usize> {
        let NodeSlot { machine: Some(machine), life, .. } = &self.nodes[node] else { return None };
        if !machine.is_running() {
            return None;
        }
        let (no, life) = (self.clients.len(), *life);
        let of_loop = self.dice.range(0..machine.loops());
        let room = *self.dice.pick(&[200, 1000, 64 * 1024]);
        let peer = SocketAddr::from(([127, 0, 0, 1], 1000 + no as u16));
        let pipe = Arc::new(Pipe::new(peer, room, self.mutation == Some(Mutation::AcknowledgesEarly)));
        machine.assign(of_loop, &pipe, peer);
        let line = self.dice.one_in(2);
        // A user on several nodes is often written to from another one.
        let home = if node == 0 { 0..USERS / 2 } else { USERS / 2..USERS };
        let users = if self.dice.one_in(2) { home } else { 0..USERS };
        let first = UserId(1 + self.dice.range(users) as i32);
        self.clients.push(Client::new(pipe, Home { node, life, of_loop }, line, first));
        self.note(|_| format!("client {no} connects to node {node}"));
        Some(no)
    }

    fn login(&mut self, no: usize) {
        // The last user is in no group, so that what comes for two users of one connection can be
        // told apart.
        let Client { users, first, .. } = &self.clients[no];
        let user = if users.contains(first) { UserId(USERS as i32) } else { *first };
        if self.dice.one_in(12) {
            self.send(no, &format!(r#"{{"msgType":1,"USERID":{user},"password":"wrong"}}"#), Expected::WrongLogin);
        } else {
            self.login_as(no, user);
        }
    }

    pub(super) fn login_as(&mut self, no: usize, user: UserId) {
        // From now on it may be the newest of its node, and what is sent from there need not leave
        // it.
        let (clients, node) = (&self.clients, self.clients[no].home.node);
        self.ledger.owe_no_more(|message, to, owed| {
            let is_sent_here = clients[message.from].home.node == node && !message.acknowledged;
            to == user && ((clients[owed].home.node == node && owed != no) || is_sent_here)
        });
        self.clients[no].asked_at = self.step;
        self.send(no, &format!(r#"{{"msgType":1,"USERID":{user},"password":"secret"}}"#), Expected::Login(user));
    }

    pub(super) fn logout(&mut self, no: usize, user: UserId) {
        self.clients[no].users.retain(|other| *other != user);
        self.clients[no].placed.remove(&user);
        self.ledger.owe_no_more(|_, to, owed| to == user && owed == no);
        self.send(no, &format!(r#"{{"msgType":3,"USERID":{user}}}"#), Expected::Logout(user));
    }

    fn send(&mut self, no: usize, frame: &str, expected: Expected) {
        self.clients[no].send(frame, expected);
        self.note(|_| format!("client {no} sends {frame}"));
    }

    /// Sends something.
    fn ask(&mut self, no: usize) {
        let client = &self.clients[no];
        if client.state != Life::Open || client.expected.len() > 30 {
            return;
        }
        let waits =
            client.expected.iter().any(|expected| !matches!(expected, Expected::Message(_) | Expected::Barrier(_)));
        let user = client.users.first().copied();
        let Some(user) = user else {
            if !waits {
                self.login(no);
            }
            return;
        };
        match self.dice.range(0..20) {
            // Messages and barriers are not held up by a fetch that has not been answered.
            _ if waits
                && !matches!(
                    client.expected.back(),
                    Some(Expected::Fetch(_) | Expected::Message(_) | Expected::Barrier(_))
                ) => {}
            0..10 => {
                for _ in 0..1 + self.dice.range(0..4) {
                    self.write_message(no, user);
                }
            }
            10..13 => self.barrier(no),
            _ if waits => {}
            13..16 => {
                self.close_window(no);
                self.fetchers.entry(user).or_default().insert(self.clients[no].home.node);
                if self.fetchers[&user].len() > 1 {
                    let copies = self.ledger.messages.iter_mut().filter_map(|message| message.copies.get_mut(&user));
                    copies.for_each(|copy| copy.in_doubt = true);
                }
                self.send(no, &format!(r#"{{"msgType":14,"FROMID":{user}}}"#), Expected::Fetch(user));
            }
            16 => {
                self.close_window(no);
                let user = *self.dice.pick(&self.clients[no].users.clone());
                self.logout(no, user);
            }
            17 => {
                self.close_window(no);
                self.login(no);
            }
            _ => self.ask_something(no, user),
        }
    }

    fn ask_something(&mut self, no: usize, user: UserId) {
        self.close_window(no);
        let request = *self.dice.pick(&[
            r#""msgType":8,"FROMID":"#,
            r#""msgType":11,"FROMID":"#,
            r#""msgType":10,"GROUPID":1,"FROMID":"#,
            r#""msgType":6,"U2":2,"U1":"#,
            r#""msgType":7,"TOID":2,"FROMID":"#,
        ]);
        // Only members join: the recipients of a message are known from the start.
        if !request.contains(":10,") || user.0 <= 3 {
            self.send(no, &format!("{{{request}{user}}}"), Expected::Answer);
        }
    }

    fn write_message(&mut self, no: usize, user: UserId) {
        let number = self.ledger.messages.len() as u32;
        let forged = self.dice.one_in(15);
        let users: Vec<UserId> = (1..=USERS as i32).map(UserId).collect();
        let from = if forged {
            let its = self.clients[no].may_receive();
            let others: Vec<_> = users.iter().filter(|other| !its.contains(other)).collect();
            **self.dice.pick(&others)
        } else {
            user
        };
        let pad = "x".repeat(self.dice.range(0..60));
        let group = self.dice.one_in(4) && !forged;
        let (frame, to) = if group {
            let (group, members) = if self.dice.one_in(2) { (1, 3) } else { (2, 2) };
            let is_member = user.0 <= members;
            let to = if is_member { (1..=members).map(UserId).filter(|to| *to != user).collect() } else { Vec::new() };
            (format!(r#"{{"msgType":9,"FROMID":{from},"GROUPID":{group},"n":{number},"msg":"{pad}"}}"#), to)
        } else {
            let to = UserId(1 + self.dice.range(0..USERS + 1) as i32);
            let known = to.0 <= USERS as i32;
            let frame = format!(r#"{{"msgType":4,"FROMID":{from},"TOID":{to},"n":{number},"msg":"{pad}"}}"#);
            (frame, if known { vec![to] } else { Vec::new() })
        };
        self.send_message(no, &frame, &to, forged);
    }

    /// Sends a message that has a number of its own.
    pub(super) fn send_message(&mut self, no: usize, frame: &str, to: &[UserId], forged: bool) {
        let number = self.ledger.messages.len() as u32;
        let copies = to.iter().map(|to| (*to, self.begin_copy(no, *to))).collect();
        let client = &mut self.clients[no];
        client.messages += 1;
        self.ledger.messages.push(SentMessage {
            from: no,
            nth: client.messages,
            window: (no, client.windows),
            ends_at: client.sent + frame.len(),
            sent_at: self.step,
            sent: self.now,
            forged,
            acknowledged: false,
            copies,
        });
        let expected = if forged { Expected::Forged } else { Expected::Message(number) };
        if forged {
            self.close_window(no);
            self.ledger.messages[number as usize].ends_at = usize::MAX;
        }
        self.send(no, frame, expected);
    }

    fn begin_copy(&self, from: usize, to: UserId) -> Copy {
        let is_fetched_twice = self.fetchers.get(&to).is_some_and(|nodes| nodes.len() > 1);
        let in_doubt = self.kind == Kind::Everything || is_fetched_twice;
        Copy { in_doubt, owed: self.owed(from, to), ..Copy::default() }
    }

    /// The connections that a message must come to: those of every other node that has the user,
    /// unless the sender's has.
    pub(super) fn owed(&self, from: usize, to: UserId) -> BTreeSet<usize> {
        let here = &self.clients[from];
        let on_node = |node: usize| {
            let life = self.nodes[node].life;
            (0..self.clients.len()).filter(move |no| self.is_of(*no, node, life) && self.clients[*no].may_be_here(to))
        };
        if self.is_torn || on_node(here.home.node).next().is_some() {
            return BTreeSet::new();
        }
        // It is not known which of two of one node is the newer.
        let alone = |node: usize| on_node(node).next().filter(|_| on_node(node).count() == 1);
        (0..self.nodes.len()).filter_map(alone).filter(|no| self.clients[*no].placed.contains(&to)).collect()
    }

    /// A request with more than one possible reply comes after a barrier.
    fn close_window(&mut self, no: usize) {
        if matches!(self.clients[no].expected.back(), Some(Expected::Message(_))) {
            self.barrier(no);
        }
    }

    pub(super) fn barrier(&mut self, no: usize) {
        let window = self.clients[no].windows;
        self.clients[no].windows += 1;
        self.send(no, r#"{"msgType":404}"#, Expected::Barrier(window));
    }

    /// Bytes come to the node.
    pub(super) fn deliver(&mut self, no: usize, all: bool) {
        let most = if all || self.dice.one_in(2) { usize::MAX } else { 1 + self.dice.range(0..80) };
        let client = &mut self.clients[no];
        match client.state {
            Life::Silent | Life::Over => return,
            Life::HalfClosed | Life::Closed if client.outgoing.is_empty() => {
                client.pipe.end();
                return;
            }
            Life::Open | Life::HalfClosed | Life::Closed => {}
        }
        let count = most.min(client.outgoing.len());
        if count > 0 {
            let bytes: Vec<u8> = client.outgoing.drain(..count).collect();
            client.pipe.arrive(&bytes);
            self.note(|_| format!("client {no}: {count} bytes come to the node"));
        }
    }

    /// Bytes come to the client's kernel, which acknowledges them.
    pub(super) fn receive(&mut self, no: usize, all: bool) {
        let most = if all || self.dice.one_in(2) { usize::MAX } else { 1 + self.dice.range(0..80) };
        let client = &mut self.clients[no];
        let outstanding = client.pipe.outstanding();
        match client.state {
            Life::Silent | Life::Over => {}
            Life::Closed if outstanding > 0 => {
                client.pipe.break_off();
                client.state = Life::Over;
                self.note(|_| format!("client {no}, closed, answers with a reset"));
            }
            Life::Closed => {}
            Life::Open | Life::HalfClosed if client.stalled && !all => {}
            Life::Open | Life::HalfClosed if outstanding > 0 => {
                client.pipe.acknowledge(most);
                self.note(|_| format!("client {no} gets {} of {outstanding} bytes", most.min(outstanding)));
            }
            Life::Open | Life::HalfClosed => {
                if client.pipe.is_at_end() && client.state == Life::Open {
                    self.note(|_| format!("client {no} is at its end"));
                    self.end_client(no, Life::HalfClosed);
                }
            }
        }
    }
}
