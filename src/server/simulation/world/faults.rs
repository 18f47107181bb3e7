//! Faults: of nodes, the database, Redis, disks and connections.

use std::time::Duration;

use super::client::Life;
use super::{Kind, World};

impl World {
    pub(super) fn fail(&mut self) {
        if self.kind == Kind::Calm {
            return;
        }
        if self.kind == Kind::Connections || self.dice.one_in(2) {
            self.fail_connection();
            return;
        }
        let node = self.dice.range(0..self.nodes.len());
        self.faults += 1;
        match self.dice.range(0..13) {
            0 => self.crash(node),
            1 | 2 => {
                let within = Duration::from_secs(10);
                if let Some(machine) = self.nodes[node].machine.as_mut().filter(|machine| machine.is_running()) {
                    machine.stop(within);
                    self.tear();
                    self.ledger.note_stop();
                    self.note(|_| format!("node {node} is told to stop"));
                }
            }
            3..5 if self.nodes[node].machine.is_none() => self.start_node(node),
            5 | 6 => self.fail_database(),
            7 | 8 => self.fail_redis(),
            9 => {
                if let Some(machine) = &self.nodes[node].machine {
                    machine.bus.wires().cut_off(machine.bus.name());
                    self.tear();
                    self.note(|_| format!("node {node} hears nothing any more"));
                }
            }
            10 => self.wires.lock().forget_cut_off(),
            12 => {
                if let Some(machine) = &self.nodes[node].machine {
                    machine.bus.doubt();
                    self.tear();
                    self.note(|_| format!("node {node} gives its connection to Redis up"));
                }
            }
            11 => {
                let is_broken = {
                    let mut disk = self.nodes[node].disk.lock();
                    disk.is_broken = !disk.is_broken;
                    disk.is_broken
                };
                self.note(|_| format!("the disk of node {node} is full: {is_broken}"));
            }
            _ => {}
        }
    }

    fn fail_database(&mut self) {
        if self.dice.one_in(2) {
            let is_up = {
                let mut tables = self.tables.lock();
                tables.is_up = !tables.is_up;
                tables.is_up
            };
            return self.note(|_| format!("the database is up: {is_up}"));
        }
        let once_in = if self.tables.lock().fails_once_in == 0 { 3 + self.dice.range(0..8) } else { 0 };
        self.tables.lock().fails_once_in = once_in;
        self.note(|_| format!("the database fails once in {once_in}"));
    }

    fn fail_redis(&mut self) {
        self.tear();
        if self.dice.one_in(2) {
            let is_up = self.wires.lock().is_up;
            if is_up {
                self.wires.lock().end()
            } else {
                self.wires.lock().is_up = true
            }
            return self.note(|_| format!("Redis is up: {}", !is_up));
        }
        let once_in = if self.wires.lock().fails_once_in == 0 { 3 + self.dice.range(0..8) } else { 0 };
        self.wires.lock().fails_once_in = once_in;
        self.note(|_| format!("Redis fails once in {once_in}"));
    }

    /// Messages may be kept that would have been confirmed in time, and logins answered before the
    /// other nodes know of them.
    pub(super) fn disturb(&mut self) {
        self.disturbed_at = self.step;
        self.ledger.owe_no_more(|_, _, _| true);
    }

    /// A node or Redis fails: who is where may be unknown from now on.
    pub(super) fn tear(&mut self) {
        self.disturb();
        self.is_torn = true;
        self.clients.iter_mut().for_each(|client| client.placed.clear());
    }

    fn fail_connection(&mut self) {
        if self.clients.is_empty() {
            return;
        }
        let no = self.dice.range(0..self.clients.len());
        match (self.dice.range(0..6), self.clients[no].state) {
            (_, Life::Over) => {}
            (_, Life::Silent) | (0, _) => {
                self.note(|_| format!("client {no} is reset"));
                self.clients[no].pipe.break_off();
                self.end_client(no, Life::Over);
            }
            (1, Life::Open) => {
                self.note(|_| format!("client {no} closes its side"));
                self.end_client(no, Life::HalfClosed);
            }
            (2, Life::Open) => {
                self.note(|_| format!("client {no} closes"));
                self.end_client(no, Life::Closed);
            }
            (3, Life::Open) => {
                self.note(|_| format!("client {no} falls silent"));
                self.end_client(no, Life::Silent);
            }
            _ => {
                let client = &mut self.clients[no];
                client.stalled = !client.stalled;
                let stalled = client.stalled;
                self.note(|_| format!("client {no} reads: {}", !stalled));
            }
        }
    }

    /// Messages that it was sent and has not got may come to its user on another way as well.
    pub(super) fn end_client(&mut self, no: usize, state: Life) {
        let client = &mut self.clients[no];
        client.state = state;
        client.ended_at.get_or_insert(self.step);
        client.placed.clear();
        let users = client.ever.clone();
        self.faults += 1;
        self.ledger.owe_no_more(|_, _, owed| owed == no);
        for message in &mut self.ledger.messages {
            for (user, copy) in &mut message.copies {
                copy.in_doubt |= users.contains(user);
            }
        }
    }
}
