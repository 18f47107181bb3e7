//! The end of a world: everything is mended, and comes to rest.

use std::time::Duration;

use super::client::Life;
use super::{Kind, LONG_PAUSE, USERS, World};
use crate::bus::PLACE_LEASE;
use crate::protocol::UserId;
use crate::server::simulation::ledger::SentMessage;
use crate::server::simulation::node::{Machine, Part};
use crate::server::simulation::number_of;

impl World {
    pub(super) fn come_to_rest(&mut self) {
        self.mend();
        self.settle();
        for no in 0..self.clients.len() {
            if self.clients[no].state == Life::Open {
                self.barrier(no);
            }
        }
        self.settle();
        for (no, client) in self.clients.iter().enumerate() {
            let waits = client.state == Life::Open && !client.expected.is_empty();
            assert!(!waits, "client {no} waits in vain for {:?}", client.expected);
        }
        for no in 0..self.clients.len() {
            if self.clients[no].state == Life::Open {
                self.clients[no].state = Life::HalfClosed;
            }
        }
        self.settle();
        self.check_recovery();
        for node in 0..self.nodes.len() {
            let waiting = self.nodes[node].disk.lock().waiting();
            if let Some(machine) = &mut self.nodes[node].machine {
                assert!(waiting == 0 || !machine.is_running(), "{waiting} messages stay on the disk of node {node}");
                assert!(machine.has_all_room(self.config.lane_bytes_max), "node {node} does not give room back");
                machine.stop(Duration::from_secs(10));
            }
        }
        self.settle();
        for (node, seat) in self.nodes.iter().enumerate() {
            assert!(seat.machine.is_none(), "node {node} does not stop");
        }
        for user in (1..=USERS as i32).map(UserId) {
            let tables = self.tables.lock();
            self.ledger.check_kept(user, tables.kept(user).filter_map(number_of));
        }
        let (clients, kind) = (&self.clients, self.kind);
        let may_be_refused = self.config.lane_bytes_max < 1 << 20;
        let is_required = |message: &SentMessage| {
            let sender = &clients[message.from];
            let was_read = sender.pipe.bytes_read() >= message.ends_at;
            // A sender who has gone cannot be told that there was no room.
            let would_be_told = sender.ended_at.is_none() || !may_be_refused;
            message.acknowledged || (was_read && kind != Kind::Everything && would_be_told)
        };
        self.ledger.check_end(is_required, self.kind == Kind::Calm);
    }

    fn mend(&mut self) {
        self.note(|_| "everything is mended".to_owned());
        {
            let mut tables = self.tables.lock();
            (tables.is_up, tables.fails_once_in) = (true, 0);
            let mut wires = self.wires.lock();
            (wires.is_up, wires.fails_once_in) = (true, 0);
            wires.forget_cut_off();
        }
        for node in 0..self.nodes.len() {
            self.nodes[node].disk.lock().is_broken = false;
            // The messages on its disk must find their way.
            if self.nodes[node].machine.is_none() {
                self.start_node(node);
            }
        }
        for no in 0..self.clients.len() {
            self.clients[no].stalled = false;
            if self.clients[no].state == Life::Silent {
                self.clients[no].pipe.break_off();
                self.end_client(no, Life::Over);
            }
        }
    }

    /// Checks that the cluster has recovered from all faults. A user logs in and out on all nodes
    /// but one, and is reached from that node, wherever the user is. Nodes may still give up their
    /// connections to Redis, and are back before a message to the user is sent.
    fn check_recovery(&mut self) {
        for node in 0..self.nodes.len() {
            if self.nodes[node].machine.is_none() {
                self.start_node(node);
            }
        }
        self.settle();
        (self.is_torn, self.disturbed_at) = (false, self.step);
        self.step += 1;
        let (sender, recipient) = (UserId(1), UserId(USERS as i32));
        let clients: Vec<_> = (0..self.nodes.len()).map(|node| self.connect(node).expect("it runs")).collect();
        let from = clients[self.dice.range(0..clients.len())];
        self.login_as(from, sender);
        for _ in 0..ROAMING_STEPS {
            let pause = *self.dice.pick(&[LONG_PAUSE, PLACE_LEASE]);
            let reconnects = self.kind == Kind::Everything && self.dice.one_in(3);
            if reconnects {
                let node = self.dice.range(0..self.nodes.len());
                self.give_up_connection(node);
            }
            match *self.dice.pick(&clients) {
                no if no == from => self.set_time(self.now + pause),
                no if self.clients[no].receives.contains(&recipient) => self.logout(no, recipient),
                no => self.login_as(no, recipient),
            }
            self.settle();
            if reconnects {
                self.note_all_placed(&clients, recipient);
            }
            if self.dice.one_in(2) {
                let number = self.ledger.messages.len();
                let frame = format!(r#"{{"msgType":4,"FROMID":{sender},"TOID":{recipient},"n":{number},"msg":""}}"#);
                self.send_message(from, &frame, &[recipient], false);
                let owed = self.ledger.messages[number].copies[&recipient].owed.len();
                let there = clients.iter().filter(|no| self.clients[**no].receives.contains(&recipient)).count();
                assert_eq!(owed, there, "of those who are logged in");
                self.settle();
            }
        }
        self.barrier(from);
        self.settle();
        clients.iter().for_each(|no| self.clients[*no].state = Life::HalfClosed);
        self.settle();
    }

    /// Makes a node give up its connection to Redis, which notices at once. The node receives
    /// nothing until it has another one.
    fn give_up_connection(&mut self, node: usize) {
        let machine = self.nodes[node].machine.as_ref().expect("it runs");
        machine.bus.doubt();
        self.note(|_| format!("node {node} gives its connection to Redis up"));
        self.step_part(node, Part::Bus);
        self.wires.lock().forget_cut_off();
    }

    /// Notes that all nodes are connected, and know where the user is.
    fn note_all_placed(&mut self, clients: &[usize], user: UserId) {
        (self.is_torn, self.disturbed_at) = (false, self.step);
        self.step += 1;
        for no in clients {
            if self.clients[*no].receives.contains(&user) {
                self.clients[*no].placed.insert(user);
            }
        }
    }

    /// Continues until nothing happens any more.
    fn settle(&mut self) {
        let until = self.now + REST;
        loop {
            let mut goes_on = false;
            self.step += 1;
            for no in 0..self.clients.len() {
                let before = (self.clients[no].outgoing.len(), self.clients[no].pipe.outstanding());
                if before != (0, 0)
                    || self.clients[no].state == Life::Closed
                    || self.clients[no].state == Life::HalfClosed
                {
                    self.deliver(no, true);
                    self.receive(no, true);
                    goes_on |= before != (self.clients[no].outgoing.len(), self.clients[no].pipe.outstanding());
                }
            }
            for node in 0..self.nodes.len() {
                let parts = self.nodes[node].machine.as_ref().map(Machine::parts).unwrap_or_default();
                for part in parts {
                    for _ in 0..4 {
                        if !self.step_part(node, part) {
                            break;
                        }
                        goes_on = true;
                    }
                }
            }
            self.observe();
            if goes_on {
                assert!(self.step < 100_000, "it comes to no rest");
                continue;
            }
            let machines = self.nodes.iter().filter_map(|seat| seat.machine.as_ref());
            match machines.filter_map(|machine| machine.next_due(self.now)).min() {
                Some(due) if due <= until => self.set_time(due),
                Some(_) | None => return,
            }
        }
    }
}

/// The number of logins and logouts of the user in the check of recovery.
const ROAMING_STEPS: usize = 8;
/// The longest time in which a world comes to rest: longer than anything in it may take.
const REST: Duration = Duration::from_secs(13);
