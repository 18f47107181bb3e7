//! [`Conductor`]: causes the faults of a schedule, and waits until everything works again.

use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crate::books::{self, Books, Fate, Members, Moment, Place, Wrong};
use crate::caused::{Caused, Part, Party};
use crate::devices::{self, Desk, Device};
use crate::parts::Member;
use crate::person::Person;
use crate::progress::Progress;
use crate::pulse;
use crate::schedule::{EARLY, FENCED_AFTER, Fault, Kind, Schedule, USER_TIMEOUT};
use crate::stage::{NODES, Stage};
use crate::world::{Order, Phase, Post, World};
use testkit::{LONG_PATIENCE, TestServer, wait_within};

/// Causes the faults of a schedule, and waits until everything works again.
pub struct Conductor<'a> {
    stage: &'a mut Stage,
    world: &'a World,
    persons: &'a [Person],
    posts: &'a [Post],
    devices: &'a [Device],
    desks: &'a [Desk],
    /// The number of unacknowledged messages of devices when a node was killed.
    caught: usize,
    caused: &'a Mutex<Vec<Caused>>,
    /// The parts that the current fault has hit.
    failing: Vec<Part>,
    /// The number of messages in the spool of the node that was killed.
    spooled: usize,
    progress: Progress,
    /// The delay of the remaining schedule. All later faults shift by it, so their intervals stay
    /// the same.
    shift: Duration,
    watch: &'a mut dyn FnMut(&Stage),
    next_watch: Moment,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// A node that was killed is started again.
    NodeUp,
    /// The other failed parts serve again.
    Back,
    /// Everything should work again.
    End,
    Begin,
    NodeDown,
}

impl<'a> Conductor<'a> {
    pub fn new(
        stage: &'a mut Stage,
        world: &'a World,
        (persons, posts): (&'a [Person], &'a [Post]),
        (devices, desks): (&'a [Device], &'a [Desk]),
        caused: &'a Mutex<Vec<Caused>>,
        progress: Progress,
        watch: &'a mut dyn FnMut(&Stage),
    ) -> Conductor<'a> {
        Conductor {
            stage,
            world,
            persons,
            posts,
            devices,
            desks,
            caught: 0,
            caused,
            failing: Vec::new(),
            spooled: 0,
            progress,
            shift: Duration::ZERO,
            watch,
            next_watch: Duration::ZERO,
        }
    }

    pub fn carry_out(mut self, schedule: &Schedule, length: Duration, members: &Members) -> usize {
        let mut steps: Vec<(Duration, Step, &Fault)> = Vec::new();
        for fault in &schedule.faults {
            steps.push((fault.begin, Step::Begin, fault));
            if !fault.kind.is_of_client() {
                steps.push((fault.begin + fault.length, Step::Back, fault));
                steps.push((fault.end(), Step::End, fault));
            }
            if let Some(down) = &fault.node_down {
                steps.push((down.start, Step::NodeDown, fault));
                steps.push((down.end, Step::NodeUp, fault));
            }
        }
        steps.sort_by_key(|(at, step, _)| (*at, *step));
        let (mut begun, mut complete, mut over) = (Moment::ZERO, Moment::ZERO, Moment::ZERO);
        let mut delivered = None;
        for (at, step, fault) in steps {
            self.wait_until(at + self.shift);
            if matches!(step, Step::NodeUp | Step::Back) && self.stage.has_several() && delivered.is_none() {
                delivered = self.wait_delivered(complete);
            }
            self.shift = self.shift.max(self.world.now().saturating_sub(at));
            match step {
                Step::Begin if fault.kind.is_of_client() => self.tell_client(fault),
                Step::Begin => {
                    begun = self.world.now();
                    self.progress.begin(fault.kind);
                    self.cause(fault);
                    complete = self.world.now();
                }
                Step::NodeDown => {
                    self.kill_node(fault, at);
                    complete = self.world.now();
                }
                Step::NodeUp => {
                    over = self.world.now();
                    self.stage.nodes[fault.target].restart();
                }
                Step::Back => {
                    over = self.world.now();
                    self.bring_back(fault);
                }
                Step::End => {
                    let delivered_after = delivered.take().map(|at| at - begun);
                    self.recover(fault, (begun, complete, over), delivered_after);
                    self.progress.end();
                }
            }
        }
        self.wait_until(length + self.shift);
        self.settle(members);
        self.caught
    }

    fn wait_until(&mut self, at: Moment) {
        while self.world.now() < at {
            self.progress.show(self.world.now(), self.posts);
            if self.world.now() >= self.next_watch {
                self.next_watch += Duration::from_secs(1);
                (self.watch)(self.stage);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn tell_client(&self, fault: &Fault) {
        let may = |person: &&Person| match fault.kind {
            Kind::StopsReading => person.small_buffer,
            // A client behind nginx is no target: nginx is the peer of the servers.
            _ => !person.places.contains(&Place::Nginx),
        };
        let persons: Vec<&Person> = self.persons.iter().filter(may).collect();
        let person = persons[fault.target % persons.len()];
        let order = match fault.kind {
            Kind::BlackHole => Order::Vanish(fault.length),
            Kind::Reset => Order::Reset,
            _ => Order::StopReading(fault.length),
        };
        self.posts[person.index].order(order);
    }

    /// Records that this part fails from now on.
    fn fails(&mut self, party: Party) {
        self.failing.push(Part { party, begun: self.world.now(), well: Moment::MAX });
    }

    fn cause(&mut self, fault: &Fault) {
        match fault.kind {
            Kind::NodeFrozen => self.fails(Party::Node(fault.target)),
            Kind::DatabaseKilled
            | Kind::DatabaseFrozen
            | Kind::NodeKilledDatabaseKilled
            | Kind::NodeKilledDatabaseFrozen => self.fails(Party::Database),
            Kind::RedisKilled | Kind::RedisFrozen => self.fails(Party::Redis),
            Kind::ServicesKilled | Kind::ServicesFrozen => {
                self.fails(Party::Database);
                self.fails(Party::Redis);
            }
            Kind::NginxKilled | Kind::NginxFrozen | Kind::NginxReloaded => self.fails(Party::Nginx),
            Kind::Killed(member) | Kind::Frozen(member) | Kind::CutOff(member) => self.fails(member.party()),
            // The requests of the node's clients wait, and clients give their connections up.
            Kind::NodeCutOff => {
                self.fails(Party::Database);
                self.fails(Party::Node(fault.target));
            }
            Kind::RolesChanged => self.fails(Party::Database),
            // The nodes of these faults are handled one by one.
            Kind::NodeKilled | Kind::RollingRestart => (),
            Kind::BlackHole | Kind::Reset | Kind::StopsReading => unreachable!("a client does that"),
        }
        let Stage { nodes, nginx, services, .. } = &mut *self.stage;
        let nginx = &mut nginx[fault.target % 2];
        match fault.kind {
            Kind::NodeFrozen => nodes[fault.target].stop(),
            Kind::DatabaseKilled | Kind::NodeKilledDatabaseKilled => services.mariadb().kill(),
            Kind::DatabaseFrozen | Kind::NodeKilledDatabaseFrozen => services.mariadb().stop(),
            Kind::RedisKilled => services.redis().kill(),
            Kind::RedisFrozen => services.redis().stop(),
            Kind::ServicesKilled => {
                services.mariadb().kill();
                services.redis().kill();
            }
            Kind::ServicesFrozen => {
                services.mariadb().stop();
                services.redis().stop();
            }
            Kind::NginxKilled => nginx.kill(),
            Kind::NginxFrozen => nginx.stop(),
            Kind::NginxReloaded => nginx.reload(),
            Kind::RollingRestart => self.restart_all(),
            Kind::Frozen(Member::Primary) => {
                services.harm(fault.kind, fault.target);
                self.wait_until(self.world.now() + FENCED_AFTER);
                self.stage.services.fence();
            }
            Kind::Killed(_) | Kind::Frozen(_) | Kind::CutOff(_) | Kind::NodeCutOff | Kind::RolesChanged => {
                services.harm(fault.kind, fault.target);
            }
            Kind::NodeKilled | Kind::BlackHole | Kind::Reset | Kind::StopsReading => (),
        }
    }

    /// Kills a node. Late in a database outage, it first waits a limited time until the node's
    /// spool holds something.
    fn kill_node(&mut self, fault: &Fault, at: Duration) {
        let is_late = fault.begin + EARLY < at && at < fault.begin + fault.length;
        let latest = self.world.now() + if is_late { SPOOL_PATIENCE } else { Duration::ZERO };
        loop {
            self.spooled = self.stage.nodes[fault.target].metric("raybox_spool_messages") as usize;
            let now = self.world.now();
            if self.spooled > 0 || now >= latest {
                break;
            }
            self.wait_until(now + Duration::from_millis(50));
        }
        self.fails(Party::Node(fault.target));
        self.caught += self.desks.iter().map(|desk| desk.in_flight.load(Ordering::Relaxed)).sum::<usize>();
        self.stage.nodes[fault.target].kill9();
    }

    fn restart_all(&mut self) {
        for number in 0..NODES {
            self.fails(Party::Node(number));
            let node = &mut self.stage.nodes[number];
            node.terminate();
            // Exit code 3: the node's spool holds messages for the database, which was unreachable
            // a moment ago.
            let code = node.wait_exit(LONG_PATIENCE).code();
            assert!(matches!(code, Some(0 | 3)), "it ends in order, not with {code:?}: {}", node.output());
            node.restart();
            wait_within(LONG_PATIENCE, "the new node is ready", || node.is_ready());
            if let Some(part) = self.failing.last_mut() {
                part.well = self.world.now();
            }
        }
    }

    fn bring_back(&mut self, fault: &Fault) {
        let Stage { nodes, nginx, services, .. } = &mut *self.stage;
        let nginx = &mut nginx[fault.target % 2];
        match fault.kind {
            Kind::NodeFrozen => nodes[fault.target].cont(),
            Kind::DatabaseKilled | Kind::NodeKilledDatabaseKilled => services.mariadb().restart(),
            Kind::DatabaseFrozen | Kind::NodeKilledDatabaseFrozen => services.mariadb().cont(),
            Kind::RedisKilled => services.redis().restart(),
            Kind::RedisFrozen => services.redis().cont(),
            Kind::ServicesKilled => {
                services.mariadb().restart();
                services.redis().restart();
            }
            Kind::ServicesFrozen => {
                services.mariadb().cont();
                services.redis().cont();
            }
            Kind::NginxKilled => nginx.restart(),
            Kind::NginxFrozen => nginx.cont(),
            Kind::Killed(_) | Kind::Frozen(_) | Kind::CutOff(_) | Kind::NodeCutOff | Kind::RolesChanged => {
                services.heal(fault.kind, fault.target);
            }
            Kind::NodeKilled
            | Kind::NginxReloaded
            | Kind::RollingRestart
            | Kind::BlackHole
            | Kind::Reset
            | Kind::StopsReading => (),
        }
    }

    /// Waits until messages of level 2 arrive that were sent after this moment. Returns when they
    /// did; `None` if that takes too long.
    fn wait_delivered(&mut self, since: Moment) -> Option<Moment> {
        let until = self.world.now() + LONG_PATIENCE;
        while self.world.now() < until {
            if let Some(at) = pulse::delivered(self.devices, self.desks, since) {
                return Some(at);
            }
            self.wait_until(self.world.now() + Duration::from_millis(20));
        }
        None
    }

    /// Waits until the nodes concerned are ready, and records the fault.
    fn recover(
        &mut self,
        fault: &Fault,
        (begun, complete, over): (Moment, Moment, Moment),
        delivered_after: Option<Duration>,
    ) {
        let nodes: Vec<&TestServer> = match fault.kind {
            Kind::NodeKilled | Kind::NodeFrozen => vec![&self.stage.nodes[fault.target]],
            _ => self.stage.nodes.iter().collect(),
        };
        wait_within(LONG_PATIENCE, &format!("all are ready after: {}", fault.kind), || {
            nodes.iter().all(|node| node.is_ready())
        });
        // A node that goes on is ready before it has read the ends of all connections that ended
        // meanwhile. Until then it still writes to them.
        let backlog = if fault.kind == Kind::NodeFrozen { AFTER_THAW } else { Duration::ZERO };
        let ready_after = Some(self.world.now() - over);
        let well = self.world.now() + backlog;
        let mut parts = std::mem::take(&mut self.failing);
        parts.iter_mut().for_each(|part| part.well = part.well.min(well));
        let spooled = std::mem::take(&mut self.spooled);
        let caused = Caused { kind: fault.kind, begun, complete, over, delivered_after, ready_after, parts, spooled };
        self.caused.lock().expect("what was caused").push(caused);
    }

    /// Waits until every message is settled and has arrived, or can no longer arrive.
    fn settle(&mut self, members: &Members) {
        self.world.enter(Phase::Settling);
        let begun = Instant::now();
        // The servers recognise a connection whose peer has gone as dead only after this time.
        let earliest = USER_TIMEOUT + Duration::from_secs(2);
        while begun.elapsed() < SETTLE_PATIENCE {
            self.progress.show(self.world.now(), self.posts);
            thread::sleep(Duration::from_millis(200));
            if begun.elapsed() >= earliest && self.is_settled(members) {
                return;
            }
        }
        let persons = self.persons.iter().zip(self.posts);
        let persons =
            persons.filter(|(_, post)| !post.is_idle.load(Ordering::Relaxed)).map(|(person, _)| &*person.name);
        let busy: Vec<&str> = persons.chain(devices::busy(self.devices, self.desks)).collect();
        self.progress.say(&format!("not settled within {SETTLE_PATIENCE:?}; still busy: {busy:?}"));
    }

    fn is_settled(&self, members: &Members) -> bool {
        if !self.posts.iter().all(|post| post.is_idle.load(Ordering::Relaxed)) {
            return false;
        }
        if !devices::are_settled(self.devices, self.desks) {
            return false;
        }
        if self.stage.services.database.count("SELECT count(*) FROM OfflineMessage") > 0 {
            return false;
        }
        let guards: Vec<_> = self.posts.iter().map(Post::books).collect();
        let books: Vec<&Books> = guards.iter().map(|books| &**books).collect();
        let is_open = |books: &&Books| books.lots.iter().any(|lot| lot.fate == Fate::Open);
        let caused = self.caused.lock().expect("what was caused");
        !books.iter().any(is_open) && books::check(&books, members, &caused).count(Wrong::Lost) == 0
    }
}

/// The longest wait until a message for an offline user is in the spool.
const SPOOL_PATIENCE: Duration = Duration::from_secs(3);

/// How long a node that was frozen needs at most to read what has come meanwhile.
const AFTER_THAW: Duration = Duration::from_secs(1);

/// Messages that have not arrived this long after everything works again are lost.
const SETTLE_PATIENCE: Duration = Duration::from_secs(40);
