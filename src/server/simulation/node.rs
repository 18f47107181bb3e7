//! [`Machine`]: a server without threads, which does its work step by step when it is told to.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use net::Preface;
use net::simulation::{ManualLoop, Readiness};
use parking_lot::Mutex;
use pool::{Again, BatchMax, Lanes, ManualLane, Workers, WorkersWatch};

use super::bus::SimBus;
use super::dice::Dice;
use super::socket::Pipe;
use super::spool::{Disk, NodeSpool};
use super::store::{NodeStore, Tables};
use super::wires::Wires;
use crate::admission::berths::Berths;
use crate::base::clock::Clock;
use crate::base::threads::Threads;
use crate::config::Config;
use crate::delivery::LaneItem;
use crate::routing::assembly::Routes;
use crate::routing::outbox::OutItem;
use crate::routing::router::Router;
use crate::routing::services::Services;
use crate::server::STORE_GRACE;
use crate::server::shell::Shell;
use crate::server::sweep::{SweepBell, Sweeps};
use crate::server::wiring::{Equipment, ServerParts, settings};
use crate::store::Store;

type Job = Box<dyn FnOnce() + Send>;

pub(super) struct Machine {
    shared: Arc<ServerParts>,
    /// The room in the lanes, all of it free when nothing is on its way.
    berths: Arc<Berths>,
    loops: Vec<ManualLoop<Shell>>,
    lanes: Vec<Lane>,
    /// The number of lanes that lead to other nodes; they come first.
    outboxes: usize,
    /// The number of lanes that commit messages of conversations; they come next.
    recorders: usize,
    /// The state of the sweeping thread, and the time of its next turn; if there are conversations.
    sweeps: Option<(Sweeps, Arc<SweepBell>, Instant)>,
    /// The queue in which the router puts the items of these lanes.
    outbox: Arc<Lanes<OutItem>>,
    keepers: Arc<Lanes<LaneItem>>,
    /// The queues of workers and hashers.
    queues: Vec<WorkersWatch>,
    /// Jobs that a worker has begun.
    jobs: Vec<Job>,
    pub(super) bus: Arc<SimBus>,
    clock: Clock,
    stage: MachineStage,
}

struct Lane {
    by_hand: Box<dyn ManualLane>,
    due: Option<Instant>,
}

impl Lane {
    fn new(by_hand: Box<dyn ManualLane>, now: Instant) -> Lane {
        let mut lane = Lane { by_hand, due: None };
        lane.set_due(now);
        lane
    }

    fn set_due(&mut self, now: Instant) {
        self.due = self.by_hand.again().map(|again| match again {
            Again::After(pause) | Again::UnlessClosing(pause) => now + pause,
        });
    }
}

/// Starts no thread: the machine handles the lanes and takes the jobs of the workers.
#[derive(Default)]
struct ByHand {
    lanes: Vec<Box<dyn ManualLane>>,
    queues: Vec<WorkersWatch>,
}

impl Threads for ByHand {
    fn lanes<T: Send + 'static, S: Send + 'static>(
        &mut self,
        _: &str,
        count: usize,
        batch_max: impl Into<BatchMax>,
        begin: impl Fn(usize, Option<S>) -> (S, Option<Again>) + Send + Sync + 'static,
        handle: impl Fn(&mut S, Vec<T>) -> Option<Again> + Send + Sync + 'static,
    ) -> io::Result<Lanes<T>> {
        let (lanes, by_hand) = Lanes::manual(count, batch_max, begin, handle);
        self.lanes.extend(by_hand);
        Ok(lanes)
    }

    fn workers(&mut self, name: &str, _: usize, waiting_max: usize) -> io::Result<Workers> {
        let workers = Workers::start(name, 0, waiting_max)?;
        self.queues.push(workers.watch());
        Ok(workers)
    }

    fn workers_in_background(&mut self, name: &str, count: usize, waiting_max: usize) -> io::Result<Workers> {
        self.workers(name, count, waiting_max)
    }

    fn one(&mut self, _: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        Ok(())
    }
}

/// The progress of a machine's shutdown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum MachineStage {
    Running,
    /// The loops finish.
    Draining,
    /// Messages of conversations are committed, until then.
    Recording(Instant),
    /// Messages on their way to other nodes are finished, until then.
    Publishing(Instant),
    Hushing(Instant),
    /// Messages on their way to the store are finished.
    Keeping(Instant),
    Saying(Instant),
    Stopped,
}

/// A step of a machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    Loop(usize),
    Lane(usize),
    Job,
    Bus,
    Redis,
    Sweep,
    Stop,
}

impl Machine {
    pub(super) fn start(
        name: String,
        config: &Config,
        clock: &Clock,
        tables: &Arc<Mutex<Tables>>,
        disk: &Arc<Mutex<Disk>>,
        wires: &Arc<Mutex<Wires>>,
    ) -> Machine {
        let bus = Arc::new(SimBus::new(&name, wires.clone(), clock.clone()));
        let store = Store::of(Arc::new(NodeStore { tables: tables.clone() }));
        disk.lock().restart();
        let spool = Arc::new(NodeSpool(disk.clone()));
        let services = Services::new(config, store, spool, bus.clone(), clock.clone());
        let berths = services.berths.clone();
        let equipment = Equipment {
            tls: None,
            descriptors: usize::MAX,
            upgrader: None,
            jwt: None,
            envelope_bytes_max: ENVELOPE_BYTES_MAX,
        };
        // As many jobs are at work at once.
        let config = &Config { workers: JOBS_AT_ONCE, ..config.clone() };
        let mut by_hand = ByHand::default();
        let assembled = ServerParts::assemble(config, services, equipment, &mut by_hand);
        let (shared, Routes { outbox, keepers, .. }) = assembled.expect("a good configuration, and no thread");
        let (shared, outbox) = (Arc::new(shared), outbox.expect("there may be other nodes"));
        // Those to the store were made first.
        let stores = keepers.watch().loads().len();
        by_hand.lanes.rotate_left(stores);
        let recorders = shared.recorder.as_ref().map_or(0, |recorder| recorder.watch().loads().len());
        let sweeps = (recorders > 0).then(|| (Sweeps::default(), shared.bell(), clock.now()));
        let make_loop = |nth| {
            let shell = Shell::new(shared.clone(), shared.metrics.of_loop(nth));
            ManualLoop::new(shell, settings(config), clock.now()).expect("descriptors")
        };
        Machine {
            loops: (0..config.loops).map(make_loop).collect(),
            shared,
            berths,
            outboxes: by_hand.lanes.len() - stores - recorders,
            recorders,
            sweeps,
            lanes: by_hand.lanes.into_iter().map(|by_hand| Lane::new(by_hand, clock.now())).collect(),
            outbox,
            keepers,
            queues: by_hand.queues,
            jobs: Vec::new(),
            bus,
            clock: clock.clone(),
            stage: MachineStage::Running,
        }
    }

    /// The handler of one more loop.
    pub(super) fn shell(&self) -> Shell {
        Shell::new(self.shared.clone(), self.shared.metrics.of_loop(0))
    }

    pub(super) fn router(&self) -> &Router {
        &self.shared.router
    }

    pub(super) fn is_running(&self) -> bool {
        self.stage == MachineStage::Running
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stage == MachineStage::Stopped
    }

    pub(super) fn parts(&self) -> Vec<Part> {
        let loops = (0..self.loops.len()).map(Part::Loop);
        let lanes = (0..self.lanes.len()).map(Part::Lane);
        let sweep = self.sweeps.as_ref().map(|_| Part::Sweep);
        loops.chain(lanes).chain([Part::Job, Part::Bus, Part::Redis, Part::Stop]).chain(sweep).collect()
    }

    /// Whether this part commits messages of conversations, and has some in its hands.
    pub(super) fn is_about_to_commit(&self, part: Part) -> bool {
        let recorders = self.outboxes..self.outboxes + self.recorders;
        matches!(part, Part::Lane(nth) if recorders.contains(&nth) && self.lanes[nth].by_hand.has_taken())
    }

    pub(super) fn assign(&self, nth: usize, pipe: &Arc<Pipe>, peer: SocketAddr) {
        self.loops[nth].assign(pipe.clone(), peer, Preface::None);
    }

    pub(super) fn loops(&self) -> usize {
        self.loops.len()
    }

    /// Does one step, if there is something to do. `pipes` are the connections of the machine's
    /// loops.
    pub(super) fn step(&mut self, part: Part, pipes: &dyn Fn(usize) -> Vec<Arc<Pipe>>, dice: &mut Dice) -> bool {
        let now = self.clock.now();
        match part {
            Part::Loop(nth) => self.step_loop(nth, &pipes(nth)),
            Part::Lane(nth) => self.step_lane(nth, now, dice),
            Part::Job => self.step_job(dice),
            Part::Bus => {
                let has_work = self.bus.has_work();
                if has_work {
                    self.bus.turn();
                }
                has_work
            }
            Part::Redis => {
                let mut wires = self.bus_wires();
                let has_work = wires.has_work(self.bus.name());
                if has_work {
                    wires.step(self.bus.name());
                }
                has_work
            }
            Part::Sweep => self.step_sweep(now),
            Part::Stop => self.step_stop(now),
        }
    }

    fn step_sweep(&mut self, now: Instant) -> bool {
        let is_running = self.is_running();
        let Some((sweeps, bell, due)) = self.sweeps.as_mut().filter(|_| is_running) else { return false };
        let rings = bell.take_ring();
        if rings {
            sweeps.rang();
        }
        if !rings && *due > now {
            return false;
        }
        *due = now + sweeps.turn(&self.shared.conversations);
        true
    }

    /// The time of its next sweep, if nothing happens.
    pub(super) fn next_sweep(&self) -> Option<Instant> {
        self.sweeps.as_ref().filter(|_| self.is_running()).map(|(_, _, due)| *due)
    }

    pub(super) fn step_loop(&mut self, nth: usize, pipes: &[Arc<Pipe>]) -> bool {
        let now = self.clock.now();
        let Some(event_loop) = self.loops.get_mut(nth) else { return false };
        let is_due = event_loop.sleep(now).is_some_and(|left| left.is_zero());
        if event_loop.is_over() || (!is_due && !pipes.iter().any(|pipe| pipe.has_event())) {
            return false;
        }
        let events: Vec<Readiness> = pipes.iter().filter_map(|pipe| pipe.take_event()).collect();
        event_loop.turn(now, &events);
        true
    }

    fn bus_wires(&self) -> parking_lot::MutexGuard<'_, Wires> {
        self.bus.wires()
    }

    fn step_lane(&mut self, nth: usize, now: Instant, dice: &mut Dice) -> bool {
        let lane = &mut self.lanes[nth];
        if !lane.by_hand.has_taken() {
            let is_due = lane.due.is_some_and(|due| due <= now);
            if !lane.by_hand.take(is_due) {
                return false;
            }
            // The store takes its time.
            if dice.one_in(2) {
                return true;
            }
        }
        lane.by_hand.handle();
        lane.set_due(now);
        true
    }

    fn step_job(&mut self, dice: &mut Dice) -> bool {
        if self.jobs.len() < JOBS_AT_ONCE
            && let Some(job) = self.queues.iter().find_map(WorkersWatch::take_job)
        {
            self.jobs.push(job);
            return true;
        }
        if self.jobs.is_empty() {
            return false;
        }
        let job = self.jobs.swap_remove(dice.range(0..self.jobs.len()));
        job();
        true
    }

    /// Tells it to stop, as a signal does.
    pub(super) fn stop(&mut self, within: Duration) {
        if self.is_running() {
            self.stage = MachineStage::Draining;
            self.loops.iter().for_each(|event_loop| event_loop.drain(Duration::ZERO, within));
        }
    }

    /// The steps of `Server::run` and `Router::close` after the acceptor has ended.
    fn step_stop(&mut self, now: Instant) -> bool {
        let next = match self.stage {
            MachineStage::Running | MachineStage::Stopped => return false,
            MachineStage::Draining if self.loops.iter().all(ManualLoop::is_over) => {
                self.loops.drain(..).for_each(ManualLoop::end);
                let by = now + STORE_GRACE;
                match &self.shared.recorder {
                    Some(recorder) => recorder.close(now),
                    None => self.outbox.close(now),
                };
                if self.recorders > 0 { MachineStage::Recording(by) } else { MachineStage::Publishing(by) }
            }
            MachineStage::Recording(by)
                if end(&mut self.lanes[self.outboxes..self.outboxes + self.recorders]) || by <= now =>
            {
                self.outbox.close(now);
                MachineStage::Publishing(by)
            }
            MachineStage::Publishing(by) if end(&mut self.lanes[..self.outboxes]) || by <= now => {
                self.bus.begin_to_hush();
                MachineStage::Hushing(by)
            }
            MachineStage::Hushing(by) if self.bus.is_hushed() => {
                self.keepers.close(now);
                MachineStage::Keeping(by)
            }
            MachineStage::Keeping(by) if end(&mut self.lanes[self.outboxes + self.recorders..]) || by <= now => {
                MachineStage::Saying(by)
            }
            MachineStage::Saying(by) if self.bus.is_silent() || by <= now => {
                self.bus.end(false);
                MachineStage::Stopped
            }
            MachineStage::Draining
            | MachineStage::Recording(_)
            | MachineStage::Publishing(_)
            | MachineStage::Hushing(_)
            | MachineStage::Keeping(_)
            | MachineStage::Saying(_) => {
                return false;
            }
        };
        self.stage = next;
        true
    }

    /// Whether everything that it accepted was finished when it had stopped.
    pub(super) fn is_clean(&self) -> bool {
        self.lanes.iter().all(|lane| lane.by_hand.waiting() == 0 && !lane.by_hand.has_taken())
    }

    /// The time of its next work if nothing happens.
    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        let loops = self.loops.iter().filter_map(|event_loop| event_loop.sleep(now).map(|left| now + left));
        let lanes = self.lanes.iter().filter_map(|lane| lane.due);
        loops.chain(lanes).chain(self.bus.next_due()).filter(|due| *due > now).min()
    }

    /// Whether nothing holds room in its lanes.
    pub(super) fn has_all_room(&self, lane_bytes_max: usize) -> bool {
        self.berths.free() == lane_bytes_max
    }

    /// The most that its lanes hold, in bytes.
    pub(super) fn lane_bytes(&self) -> usize {
        let loads = self.outbox.watch().loads();
        loads.into_iter().chain(self.keepers.watch().loads()).map(|load| load.bytes).max().unwrap_or(0)
    }

    pub(super) fn letters(&self) -> usize {
        self.loops.iter().map(|event_loop| event_loop.watch().letters()).sum()
    }
}

fn end(lanes: &mut [Lane]) -> bool {
    lanes.iter_mut().fold(true, |all, lane| lane.by_hand.end() & all)
}

/// Little text in one envelope, so that some users have several.
const ENVELOPE_BYTES_MAX: usize = 200;

/// Jobs that are begun and not done.
const JOBS_AT_ONCE: usize = 4;
