//! Faults: of nodes, the database, Redis and connections.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Broken;
use super::world::{Kind, World};
use crate::base::conversation::{ConversationId, Tag};
use crate::protocol::UserId;
use crate::server::simulation::node::Part;
use crate::server::simulation::store::Backup;
use crate::server::simulation::wires::Weather;
use crate::store::history::Cid;

impl World {
    pub(super) fn fail(&mut self) {
        match self.kind {
            Kind::Calm => {}
            _ if self.broken == Some(Broken::NobodySweeps) => {
                self.wires.lock().weather = Weather { loses: 2, ..Weather::default() };
            }
            Kind::Connections => self.fail_connection(),
            Kind::Everything | Kind::Restored | Kind::FailedOver => match self.dice.range(0..6) {
                // No fault lasts for the rest of a world.
                0 | 1 if self.mend_something() => {}
                0..3 => self.fail_somewhere(),
                _ => self.fail_connection(),
            },
        }
    }

    /// Ends a lasting fault: an outage of the database or of Redis, or the absence of a node.
    /// Returns whether there was one.
    fn mend_something(&mut self) -> bool {
        let is_down = self.nodes.iter().position(|seat| seat.machine.is_none());
        if !std::mem::replace(&mut self.tables.lock().is_up, true) {
            self.note(|_| "the database is up again".to_owned());
        } else if !std::mem::replace(&mut self.wires.lock().is_up, true) {
            self.note(|_| "Redis is up again".to_owned());
        } else if let Some(node) = is_down {
            self.start_node(node);
        } else {
            return false;
        }
        true
    }

    fn fail_somewhere(&mut self) {
        let node = self.dice.range(0..self.nodes.len());
        match self.dice.range(0..16) {
            0 => self.crash(node),
            1..4 => self.crash_in_a_commit(node),
            4 => {
                if let Some(machine) = self.nodes[node].machine.as_mut().filter(|machine| machine.is_running()) {
                    machine.stop(Duration::from_secs(10));
                    self.note(|_| format!("node {node} is told to stop"));
                }
            }
            5..8 if self.nodes[node].machine.is_none() => self.start_node(node),
            8 => {
                let is_up = {
                    let mut tables = self.tables.lock();
                    tables.is_up = !tables.is_up;
                    tables.is_up
                };
                self.database_failed = true;
                self.note(|_| format!("the database is up: {is_up}"));
            }
            9 => {
                let once_in = if self.tables.lock().fails_once_in == 0 { 3 + self.dice.range(0..8) } else { 0 };
                self.tables.lock().fails_once_in = once_in;
                self.database_failed = true;
                self.note(|_| format!("the database fails once in {once_in}"));
            }
            10 => {
                let is_up = self.wires.lock().is_up;
                if is_up {
                    self.wires.lock().end()
                } else {
                    self.wires.lock().is_up = true
                }
                self.note(|_| format!("Redis is up: {}", !is_up));
            }
            11 => {
                let once_in = if self.wires.lock().fails_once_in == 0 { 3 + self.dice.range(0..8) } else { 0 };
                self.wires.lock().fails_once_in = once_in;
                self.note(|_| format!("Redis fails once in {once_in}"));
            }
            12 => {
                if let Some(machine) = &self.nodes[node].machine {
                    machine.bus.wires().cut_off(machine.bus.name());
                    self.note(|_| format!("node {node} hears nothing any more"));
                }
            }
            13 => self.wires.lock().forget_cut_off(),
            14 | 15 => {
                let mut chance = || *self.dice.pick(&[0, 2, 3, 6]);
                let weather = Weather { loses: chance(), doubles: chance(), reorders: chance() };
                self.wires.lock().weather = weather;
                self.note(|_| format!("the bus: {weather:?}"));
            }
            _ => {}
        }
    }

    fn fail_connection(&mut self) {
        let no = self.dice.range(0..self.devices.len() + self.olds.len());
        let how = self.dice.range(0..5);
        if no >= self.devices.len() {
            let no = no - self.devices.len();
            if let Some(wire) = self.olds[no].wire.as_ref() {
                if how == 0 {
                    wire.pipe.break_off();
                }
                self.note(|_| format!("client {no} ends in way {how}"));
                self.give_up_old(no, how == 1);
            }
            return;
        }
        let Some(link) = &mut self.devices[no].link else { return };
        match how {
            0 => {
                link.wire.pipe.break_off();
                self.note(|_| format!("device {no} is reset"));
                self.give_up(no, false);
            }
            1 => {
                self.note(|_| format!("device {no} falls silent"));
                self.give_up(no, true);
            }
            2 | 3 => {
                self.note(|_| format!("device {no} closes"));
                self.give_up(no, false);
            }
            _ => {
                link.wire.is_stalled = !link.wire.is_stalled;
                self.note(|_| format!("device {no} reads, or reads no more"));
            }
        }
    }

    /// A node dies: everything in its memory, and on its way to it, is lost.
    pub(super) fn crash(&mut self, node: usize) {
        let life = self.nodes[node].life;
        let Some(machine) = self.nodes[node].machine.take() else { return };
        let silently = self.dice.one_in(2);
        machine.bus.end(silently);
        self.note(|_| format!("node {node} crashes, silently: {silently}"));
        for no in 0..self.devices.len() {
            let is_here = |home: super::world::Home| home.node == node && home.life == life;
            if self.devices[no].link.as_ref().is_some_and(|link| is_here(link.wire.home)) {
                self.devices[no].link = None;
            }
        }
        for no in 0..self.olds.len() {
            let wire = self.olds[no].wire.as_ref();
            if wire.is_some_and(|wire| wire.home.node == node && wire.home.life == life) {
                self.give_up_old(no, true);
            }
        }
        self.ghosts.retain(|ghost| ghost.wire.home.node != node || ghost.wire.home.life != life);
        drop(machine);
    }

    /// A node dies within a lane's work: before the commit, between the commit and its publication,
    /// or before the acknowledgement.
    fn crash_in_a_commit(&mut self, node: usize) {
        let about_to_commit = |node: usize| {
            let machine = self.nodes[node].machine.as_ref()?;
            let part = machine.parts().into_iter().find(|part| machine.is_about_to_commit(*part))?;
            Some((node, part))
        };
        let count = self.nodes.len();
        let Some((node, part)) = (0..count).find_map(|nth| about_to_commit((node + nth) % count)) else { return };
        match self.dice.range(0..3) {
            0 => {}
            1 => {
                self.tally.mute_crashes += 1;
                self.note(|_| format!("node {node} dies between its commit and the publication"));
                if let Some(machine) = &self.nodes[node].machine {
                    machine.bus.say_no_more();
                }
                self.step_part(node, part);
            }
            _ => {
                self.tally.crashes_in_commit += 1;
                self.note(|_| format!("node {node} dies before it acknowledges"));
                self.step_part(node, part);
            }
        }
        debug_assert!(matches!(part, Part::Lane(_)));
        self.crash(node);
    }

    /// A backup is made, and later restored: as an operator does it, the nodes being down
    /// meanwhile, or as a failover to a replica that is behind does it, while nodes and connections
    /// stay.
    pub(super) fn back_up_or_restore(&mut self) {
        let Some(backup) = self.backup.take() else {
            self.backup = Some(self.tables.lock().back_up());
            self.note(|_| "a backup is made".to_owned());
            return;
        };
        if self.kind == Kind::FailedOver {
            return self.fail_over(backup);
        }
        (0..self.nodes.len()).for_each(|node| self.crash(node));
        // Earlier messages of stopped nodes may be of the history that is lost.
        self.devices.iter_mut().for_each(|device| device.link = None);
        (0..self.olds.len()).for_each(|no| self.give_up_old(no, true));
        self.ghosts.clear();
        let lost = self.lose(backup);
        self.lost.numbers.extend(lost.into_keys().map(|(conv, seq, _)| (conv, seq)));
        self.was_restored = true;
        self.acknowledged.clear();
        self.looked_at = 0;
        self.note(|_| "the database is restored".to_owned());
        (0..self.nodes.len()).for_each(|node| self.start_node(node));
    }

    /// Makes the database fall back to an older state. Messages on their way may be from the lost
    /// one.
    fn fail_over(&mut self, backup: Backup) {
        // None of these steps takes time.
        self.set_time(self.now + Duration::from_secs(1));
        for (place, id) in self.lose(backup) {
            self.lost.places.insert(place);
            self.lost.numbers.insert((place.0, place.1));
            self.lost.ids.insert(id);
        }
        if self.broken == Some(Broken::TagsAreRemembered) {
            let lost = self.lost.places.iter().map(|(conv, seq, tag)| ((*conv, *seq), Tag(*tag)));
            self.tables.lock().remembered_tags = lost.collect();
        }
        (self.was_restored, self.looked_at) = (true, 0);
        let lost = &self.lost.ids;
        self.acknowledged.retain(|(no, cid, ..)| {
            let cid = Cid::of_client(cid).expect("an id");
            !lost.contains(&(self.devices[*no].user, cid))
        });
        self.note(|world| format!("the database falls back, and {} messages are lost", world.lost.places.len()));
    }

    /// Restores an earlier state of the database. Returns the messages that it has lost, of which
    /// the devices' checks are told.
    fn lose(&mut self, backup: Backup) -> Messages {
        let before = self.places();
        let marks: Vec<_> = (0..self.devices.len()).map(|no| self.read_marks(no)).collect();
        self.tables.lock().restore(backup);
        let left = self.places();
        let lost: Messages = before.into_iter().filter(|(place, _)| !left.contains_key(place)).collect();
        for (device, marks) in self.devices.iter_mut().zip(marks) {
            let losses = &mut device.store.losses;
            for (conv, seq, tag) in lost.keys() {
                losses.lose(&conv.name_for(device.user).to_string(), *seq as u64, &Tag(*tag).to_string());
            }
            marks.iter().for_each(|(conv, read)| losses.lose_mark(conv, *read));
        }
        lost
    }

    /// The read marks of the user of a device.
    fn read_marks(&self, no: usize) -> Vec<(String, u64)> {
        let user = self.devices[no].user;
        let convs = self.convs_of(user);
        let tables = self.tables.lock();
        let mark = |(conv, _): (ConversationId, i64)| {
            let head = tables.history.head(tables.people(), user, conv).ok()?;
            Some((conv.name_for(user).to_string(), head.read as u64))
        };
        convs.into_iter().filter_map(mark).collect()
    }

    /// The existing messages: their places and tags, and their senders and ids.
    fn places(&self) -> Messages {
        let tables = self.tables.lock();
        let of_conv = |(conv, _)| {
            let history = &tables.history;
            let messages = history.stored(conv);
            messages.filter_map(move |(seq, sender, cid, _)| {
                Some(((conv, seq, history.tag(conv, seq)?.0), (sender, cid.clone())))
            })
        };
        tables.history.extents().flat_map(of_conv).collect()
    }
}

/// Messages: their places and tags, and their senders and ids.
type Messages = BTreeMap<(ConversationId, i64, u32), (UserId, Cid)>;
