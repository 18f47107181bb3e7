//! The end of a world: everything is mended, and comes to rest.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use super::world::{Kind, World};
use crate::server::simulation::node::{Machine, Part};
use crate::server::simulation::wires::Weather;

impl World {
    pub(super) fn come_to_rest(&mut self) {
        self.mend();
        self.settle(QUIET, false);
        if self.kind == Kind::FailedOver {
            // A loss shows when another message gets the lost numbers.
            self.settle(SWEPT, self.may_sweep());
            self.write_everywhere();
            self.settle(QUIET, false);
        }
        if self.kind == Kind::Calm {
            self.check_shown_unasked("though nothing was lost");
        } else {
            // Two sweeps, and what they lead to.
            self.settle(SWEPT, self.may_sweep());
            self.check_shown_unasked("after the sweeps");
            self.check_nothing_lost_is_held();
        }
        (0..self.devices.len()).for_each(|no| self.give_up(no, false));
        // A token that the restored database does not know is refused once.
        for _ in 0..2 {
            for no in 0..self.devices.len() {
                if self.devices[no].link.is_none() {
                    self.connect(no);
                }
            }
            self.settle(QUIET, false);
        }
        self.fill_gaps();
        for no in 0..self.olds.len() {
            if self.olds[no].is_in {
                self.barrier(no);
            }
        }
        self.settle(QUIET, false);
        self.check_end();
        for no in 0..self.devices.len() {
            self.give_up(no, false);
        }
        (0..self.olds.len()).for_each(|no| self.give_up_old(no, false));
        for seat in &mut self.nodes {
            if let Some(machine) = &mut seat.machine {
                machine.stop(Duration::from_secs(10));
            }
        }
        self.settle_until_stopped(|_| false);
        for (node, seat) in self.nodes.iter().enumerate() {
            assert!(seat.machine.is_none(), "node {node} does not stop");
        }
    }

    fn mend(&mut self) {
        self.note(|_| "everything is mended".to_owned());
        {
            let mut tables = self.tables.lock();
            (tables.is_up, tables.fails_once_in) = (true, 0);
            while tables.history.in_flight() > 0 {
                tables.land_one();
            }
            let mut wires = self.wires.lock();
            (wires.is_up, wires.fails_once_in, wires.weather) = (true, 0, Weather::default());
            wires.forget_cut_off();
        }
        self.start_nodes();
        // Those that are already stopping finish first.
        self.settle_until_stopped(|machine| machine.is_running());
        self.start_nodes();
        for ghost in &self.ghosts {
            if ghost.is_silent {
                ghost.wire.pipe.break_off();
            }
        }
        for device in &mut self.devices {
            if let Some(link) = &mut device.link {
                link.wire.is_stalled = false;
            }
        }
    }

    fn start_nodes(&mut self) {
        for node in 0..self.nodes.len() {
            if self.nodes[node].machine.is_none() {
                self.start_node(node);
            }
        }
    }

    /// Continues until all machines have stopped, except those that may stay.
    fn settle_until_stopped(&mut self, may_stay: impl Fn(&Machine) -> bool) {
        let until = self.now + STOPPED;
        self.settle(Duration::ZERO, false);
        while self.now < until && self.nodes.iter().filter_map(|seat| seat.machine.as_ref()).any(|node| !may_stay(node))
        {
            self.settle(Duration::from_secs(1), false);
        }
    }

    /// Writes to each conversation, beyond the numbers that were lost.
    fn write_everywhere(&mut self) {
        for no in (0..self.devices.len()).filter(|no| self.devices[*no].is_synced()).collect::<Vec<_>>() {
            let user = self.devices[no].user;
            // Also to those that are lost as a whole.
            let held = self.devices[no].store.logs.keys().cloned();
            let there = self.convs_of(user).into_iter().map(|(conv, _)| conv.name_for(user).to_string());
            for name in held.chain(there).collect::<BTreeSet<String>>() {
                self.write_to(no, &name, json!({"msg": "after the loss"}));
            }
        }
    }

    /// Devices page through what their runs have left out.
    fn fill_gaps(&mut self) {
        for _ in 0..PAGES_MAX {
            let mut asks = false;
            for no in 0..self.devices.len() {
                let user = self.devices[no].user;
                for (conv, _) in self.convs_of(user) {
                    let floor = {
                        let tables = self.tables.lock();
                        tables.history.head(tables.people(), user, conv).map_or(0, |head| head.floor)
                    };
                    let name = conv.name_for(user).to_string();
                    let missing = self.devices[no].store.log(&name).map(|log| log.missing(floor as u64));
                    if let Some(last) = missing.and_then(|missing| missing.last().copied()) {
                        asks = true;
                        self.request(no, json!({"msgType": 48, "conv": name, "before": last + 1, "limit": 50}));
                    }
                }
            }
            if !asks {
                return;
            }
            self.settle(Duration::ZERO, false);
        }
    }

    /// Continues until nothing happens for this time. `sweeps`: whether nodes sweep when it is due.
    pub(super) fn settle(&mut self, quiet: Duration, sweeps: bool) {
        let until = self.now + quiet;
        let mut rounds = 0;
        loop {
            let mut goes_on = self.go_on_as_clients();
            for node in 0..self.nodes.len() {
                let parts = self.nodes[node].machine.as_ref().map(Machine::parts).unwrap_or_default();
                for part in parts.into_iter().filter(|part| *part != Part::Sweep || sweeps) {
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
                rounds += 1;
                assert!(rounds < 20_000, "it comes to no rest");
                continue;
            }
            let machines = self.nodes.iter().filter_map(|seat| seat.machine.as_ref());
            let due = machines.flat_map(|machine| {
                let sweep = machine.next_sweep().filter(|due| sweeps && *due > self.now);
                [machine.next_due(self.now), sweep]
            });
            match due.flatten().min() {
                Some(due) if due <= until => self.set_time(due),
                Some(_) | None => {
                    self.set_time(until.max(self.now));
                    return;
                }
            }
        }
    }

    /// Makes clients deliver, read, and send what waits in their outboxes. Returns whether anything
    /// has happened.
    fn go_on_as_clients(&mut self) -> bool {
        let mut goes_on = false;
        for no in 0..self.devices.len() {
            goes_on |= self.resend(no);
            let Some(link) = &self.devices[no].link else { continue };
            let is_over = link.wire.pipe.is_at_end();
            if !link.wire.outgoing.is_empty() || link.wire.pipe.outstanding() > 0 || is_over {
                goes_on = true;
                self.deliver(no, true);
                self.receive(no, true);
            }
        }
        for no in 0..self.olds.len() {
            let Some(wire) = &self.olds[no].wire else { continue };
            if !wire.outgoing.is_empty() || wire.pipe.outstanding() > 0 || wire.pipe.is_at_end() {
                goes_on = true;
                self.deliver_old(no, true);
                self.receive_as_old(no, true);
            }
        }
        // The kernel of a client that has closed answers with a reset.
        for ghost in self.ghosts.iter().filter(|ghost| !ghost.is_silent) {
            if ghost.wire.pipe.outstanding() > 0 && !ghost.wire.pipe.is_broken() {
                ghost.wire.pipe.break_off();
                goes_on = true;
            }
        }
        self.ghosts.retain(|ghost| !ghost.wire.pipe.is_closed());
        goes_on
    }
}

/// The time for which nothing may be due: longer than a pump pauses after a failure.
const QUIET: Duration = Duration::from_secs(3);
/// The time of two sweeps, one of which may have failed.
const SWEPT: Duration = Duration::from_secs(35);
/// The time within which a node stops.
const STOPPED: Duration = Duration::from_secs(13);
const PAGES_MAX: usize = 200;
