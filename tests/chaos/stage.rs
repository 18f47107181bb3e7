//! A cluster with nginx in front of it and its services behind it, and the conductor that makes its
//! parts fail.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::books::{self, Books, Caused, Fate, Members, Moment, Part, Party, Place, Target, Wrong};
use crate::network::Network;
use crate::person::{Actor, Habit, Order, PERSONS_MAX, Person, Phase, Post, World};
use crate::report;
use crate::schedule::{EARLY, Fault, Kind, Schedule, USER_TIMEOUT};
use testkit::tls::{Certificate, trusting};
use testkit::{Cluster, LONG_PATIENCE, MariaDb, Nginx, Redis, TestServer};
use testkit::{login, offline_user, wait_within};

/// The servers.
pub struct Stage {
    pub cluster: Cluster,
    pub nginx: Nginx,
    pub mariadb: MariaDb,
    certificate: Certificate,
}

/// The events of a run.
pub struct Run {
    pub seed: u64,
    pub network: String,
    pub length: Duration,
    pub books: Vec<Books>,
    pub members: Members,
    pub caused: Vec<Caused>,
    /// The persons who are logged in all the time, so that a silence means something.
    pub steady: BTreeSet<i64>,
}

impl Stage {
    /// Starts everything, with the nodes where the clients of `network` reach them.
    pub fn start(network: &Network) -> Stage {
        let mariadb = MariaDb::start();
        let database = mariadb.create_database();
        let certificate = Certificate::of("localhost");
        // Pools grow while the database is frozen; their idle connections are closed soon after the
        // run.
        let cnf = format!("{}maxIdleTime=5\n", database.cnf());
        let options = |builder: testkit::Builder| {
            // Clients and nginx expect a restarted node at its old port.
            let builder = builder.file("mysql.cnf", cnf.clone());
            let builder = builder.file("cert.pem", certificate.in_one_file()).option("tls_cert", "cert.pem");
            let builder = builder.host(network.host().to_string().leak()).fixed_port();
            let builder = builder.option("admin", "127.0.0.1:0").option("output_max", "512k");
            let builder = builder.option("user_timeout", &format!("{}s", USER_TIMEOUT.as_secs()));
            builder.option("proxy_protocol", "on").option("proxy_from", Nginx::COMES_FROM)
        };
        let cluster = Cluster::start_on(database, Redis::start(), NODES, options);
        let nginx = Nginx::as_shipped_on(network.host(), &cluster.addresses());
        Stage { cluster, nginx, mariadb, certificate }
    }

    /// Registers the persons of a run, and puts some of them into groups.
    pub fn populate(&self) -> (Vec<Person>, Members) {
        let mut persons = Vec::new();
        let node = &self.cluster.nodes[0];
        let mut add = |name: String, habit: Habit, places: Vec<Place>| {
            let index = persons.len();
            let id = offline_user(node, &name);
            let (lines, tls, small_buffer) = (index.is_multiple_of(3), !index.is_multiple_of(2), false);
            persons.push(Person { index, id, name, habit, lines, tls, small_buffer, places, targets: Vec::new() });
            index
        };
        // A person stays at a place as long as that serves.
        let around = |home: usize| (0..NODES).map(|step| Place::Node((home + step) % NODES)).collect::<Vec<_>>();
        let mut pairs = Vec::new();
        for home in 0..NODES {
            let next = (home + 1) % NODES;
            let here = [
                add(format!("here {home}"), Habit::Stays, around(home)),
                add(format!("there {home}"), Habit::Stays, around(home)),
            ];
            let across = [
                add(format!("left {home}"), Habit::Stays, around(home)),
                add(format!("right {home}"), Habit::Stays, around(next)),
            ];
            pairs.extend([here, across]);
        }
        for number in 0..2 {
            let one = add(format!("front {number}"), Habit::Stays, vec![Place::Nginx]);
            let other = if number == 0 { vec![Place::Nginx] } else { around(number) };
            pairs.push([one, add(format!("back {number}"), Habit::Stays, other)]);
        }
        let mut visitors = Vec::new();
        for home in 0..NODES {
            visitors.push(add(format!("guest {home}"), Habit::ComesAndGoes, around(home)));
            visitors.push(add(format!("rover {home}"), Habit::Moves, around(home)));
        }
        let slow = [0, 1].map(|home| add(format!("slow {home}"), Habit::Stays, around(home)));
        assert!(persons.len() <= PERSONS_MAX, "{} persons", persons.len());

        let ids: Vec<i64> = persons.iter().map(|person| person.id).collect();
        for [one, other] in &pairs {
            persons[*one].targets.push((Target::User(ids[*other]), 20));
            persons[*other].targets.push((Target::User(ids[*one]), 20));
        }
        for (number, visitor) in visitors.iter().enumerate() {
            let [one, other] = pairs[number % pairs.len()];
            // One whose barriers need the database, and one whose do not.
            for writer in [one, other] {
                persons[writer].targets.push((Target::User(ids[*visitor]), 100));
            }
            persons[*visitor].targets.push((Target::User(ids[one]), 20));
        }
        for (number, slow) in slow.iter().enumerate() {
            persons[*slow].small_buffer = true;
            for [_, other] in &pairs[2 * number..2 * number + 3] {
                persons[*other].targets.push((Target::User(ids[*slow]), 5_000));
            }
        }
        let mut members = Members::default();
        for (number, wanted) in
            [vec![0, 3, 6, 9, 12, visitors[0]], vec![1, 4, 7, 13, visitors[1], slow[0]]].iter().enumerate()
        {
            let founder = &persons[wanted[0]];
            let mut client = login(node, &founder.name, founder.id);
            let group = client.create_group(founder.id, &format!("group {number}"));
            for member in &wanted[1..] {
                let member = &persons[*member];
                login(node, &member.name, member.id).join_group(member.id, group);
            }
            for member in &wanted[..3] {
                persons[*member].targets.push((Target::Group(group), 20));
            }
            members.0.insert(group, wanted.iter().map(|member| ids[*member]).collect());
        }
        (persons, members)
    }

    /// Stores the logs of the nodes, for the investigation of a failure.
    pub fn keep_logs(&self, seed: u64) {
        for (number, node) in self.cluster.nodes.iter().enumerate() {
            let path = report::folder().join(format!("seed-{seed}-node-{number}.log"));
            fs::write(&path, format!("{}\n{}", node.logs(), node.output())).expect("keep the logs");
        }
    }

    /// Runs the persons while the schedule of a seed is carried out.
    pub fn run(&mut self, network: Network, seed: u64, length: Duration) -> Run {
        let schedule = Schedule::new(seed, length, NODES, 1_000);
        self.carry_out(network, seed, length, &schedule, &mut |_| ())
    }

    /// Like [`Stage::run`], with the caller's own schedule. `watch` looks at the servers once a
    /// second.
    pub fn carry_out(
        &mut self,
        network: Network,
        seed: u64,
        length: Duration,
        schedule: &Schedule,
        watch: &mut dyn FnMut(&Stage),
    ) -> Run {
        let (persons, members) = self.populate();
        let kind_of_network = network.to_string();
        let tls = trusting(&[&self.certificate]);
        let world = World::new(network, self.cluster.addresses(), self.nginx.addresses()[0], seed, tls);
        let posts: Vec<Post> = persons.iter().map(|_| Post::default()).collect();
        let caused = Mutex::new(Vec::new());
        thread::scope(|scope| {
            // If this panics, the other threads must end as well.
            let end = EndOnDrop(&world);
            for (person, post) in persons.iter().zip(&posts) {
                let actor = Actor::new(person, &world, post);
                let name = person.name.clone();
                thread::Builder::new().name(name).spawn_scoped(scope, move || actor.run()).expect("start a thread");
            }
            let conductor = Conductor {
                stage: self,
                world: &world,
                persons: &persons,
                posts: &posts,
                caused: &caused,
                failing: Vec::new(),
                spooled: 0,
                progress: Progress::new(seed, length),
                shift: Duration::ZERO,
                watch,
                next_watch: Duration::ZERO,
            };
            conductor.carry_out(schedule, length, &members);
            drop(end);
        });
        let mut caused = caused.into_inner().expect("what was caused");
        for (person, post) in persons.iter().zip(&posts) {
            for (order, begun, over) in post.obeyed.lock().expect("what was obeyed").iter() {
                let kind = match order {
                    Order::Vanish(_) => Kind::BlackHole,
                    Order::Reset => Kind::Reset,
                    Order::StopReading(_) => Kind::StopsReading,
                };
                let (begun, over) = (*begun, *over);
                // It may take so long until its node gives up what it has sent there.
                let part = Part { party: Party::Client(person.id), begun, well: over + USER_TIMEOUT };
                caused.push(Caused {
                    kind,
                    begun,
                    complete: begun,
                    over,
                    ready_after: None,
                    parts: vec![part],
                    spooled: 0,
                });
            }
        }
        caused.sort_by_key(|caused| caused.begun);
        let is_steady = |person: &&Person| person.habit == Habit::Stays && !person.small_buffer;
        Run {
            seed,
            network: kind_of_network,
            length: world.now(),
            books: posts.into_iter().map(|post| post.books.into_inner().expect("books")).collect(),
            members,
            caused,
            steady: persons.iter().filter(is_steady).map(|person| person.id).collect(),
        }
    }
}

struct EndOnDrop<'a>(&'a World);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.enter(Phase::Over);
    }
}

/// Causes the faults, and waits until everything works again.
struct Conductor<'a> {
    stage: &'a mut Stage,
    world: &'a World,
    persons: &'a [Person],
    posts: &'a [Post],
    caused: &'a Mutex<Vec<Caused>>,
    /// The parts that the current fault has hit.
    failing: Vec<Part>,
    /// The number of messages in the spool of the node that was killed.
    spooled: usize,
    progress: Progress,
    /// How much later than planned the remaining schedule is, so that its intervals stay the same.
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

impl Conductor<'_> {
    fn carry_out(mut self, schedule: &Schedule, length: Duration, members: &Members) {
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
        for (at, step, fault) in steps {
            self.wait_until(at + self.shift);
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
                }
                Step::NodeUp => {
                    over = self.world.now();
                    self.stage.cluster.nodes[fault.target].restart();
                }
                Step::Back => {
                    over = self.world.now();
                    self.bring_back(fault);
                }
                Step::End => {
                    self.recover(fault, (begun, complete), over);
                    self.progress.end();
                }
            }
        }
        self.wait_until(length + self.shift);
        self.settle(members);
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
            // For a client behind nginx, the servers' peer is nginx.
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
            Kind::NginxKilled | Kind::NginxReloaded => self.fails(Party::Nginx),
            // The nodes of these faults are handled one by one.
            Kind::NodeKilled | Kind::RollingRestart => (),
            Kind::BlackHole | Kind::Reset | Kind::StopsReading => unreachable!("a client does that"),
        }
        let Stage { cluster, nginx, mariadb, .. } = &mut *self.stage;
        match fault.kind {
            Kind::NodeFrozen => cluster.nodes[fault.target].stop(),
            Kind::DatabaseKilled | Kind::NodeKilledDatabaseKilled => mariadb.kill(),
            Kind::DatabaseFrozen | Kind::NodeKilledDatabaseFrozen => mariadb.stop(),
            Kind::RedisKilled => cluster.redis.kill(),
            Kind::RedisFrozen => cluster.redis.stop(),
            Kind::ServicesKilled => {
                mariadb.kill();
                cluster.redis.kill();
            }
            Kind::ServicesFrozen => {
                mariadb.stop();
                cluster.redis.stop();
            }
            Kind::NginxKilled => nginx.kill(),
            Kind::NginxReloaded => nginx.reload(),
            Kind::RollingRestart => self.restart_all(),
            Kind::NodeKilled | Kind::BlackHole | Kind::Reset | Kind::StopsReading => (),
        }
    }

    /// Kills a node; late in a database outage it first waits until the node's spool holds
    /// something, for a limited time.
    fn kill_node(&mut self, fault: &Fault, at: Duration) {
        let is_late = fault.begin + EARLY < at && at < fault.begin + fault.length;
        let latest = self.world.now() + if is_late { SPOOL_PATIENCE } else { Duration::ZERO };
        loop {
            self.spooled = self.stage.cluster.nodes[fault.target].metric("raybox_spool_messages") as usize;
            let now = self.world.now();
            if self.spooled > 0 || now >= latest {
                break;
            }
            self.wait_until(now + Duration::from_millis(50));
        }
        self.fails(Party::Node(fault.target));
        self.stage.cluster.nodes[fault.target].kill9();
    }

    fn restart_all(&mut self) {
        for number in 0..NODES {
            self.fails(Party::Node(number));
            let node = &mut self.stage.cluster.nodes[number];
            node.terminate();
            // Exit code 3: messages wait in its spool for the database, which was unreachable a
            // moment ago.
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
        let Stage { cluster, nginx, mariadb, .. } = &mut *self.stage;
        match fault.kind {
            Kind::NodeFrozen => cluster.nodes[fault.target].cont(),
            Kind::DatabaseKilled | Kind::NodeKilledDatabaseKilled => mariadb.restart(),
            Kind::DatabaseFrozen | Kind::NodeKilledDatabaseFrozen => mariadb.cont(),
            Kind::RedisKilled => cluster.redis.restart(),
            Kind::RedisFrozen => cluster.redis.cont(),
            Kind::ServicesKilled => {
                mariadb.restart();
                cluster.redis.restart();
            }
            Kind::ServicesFrozen => {
                mariadb.cont();
                cluster.redis.cont();
            }
            Kind::NginxKilled => nginx.restart(),
            Kind::NodeKilled
            | Kind::NginxReloaded
            | Kind::RollingRestart
            | Kind::BlackHole
            | Kind::Reset
            | Kind::StopsReading => (),
        }
    }

    /// Waits until the nodes concerned are ready, and records the fault.
    fn recover(&mut self, fault: &Fault, (begun, complete): (Moment, Moment), over: Moment) {
        let nodes: Vec<&TestServer> = match fault.kind {
            Kind::NodeKilled | Kind::NodeFrozen => vec![&self.stage.cluster.nodes[fault.target]],
            _ => self.stage.cluster.nodes.iter().collect(),
        };
        wait_within(LONG_PATIENCE, &format!("all are ready after: {}", fault.kind), || {
            nodes.iter().all(|node| node.is_ready())
        });
        let well = self.world.now();
        let mut parts = std::mem::take(&mut self.failing);
        parts.iter_mut().for_each(|part| part.well = part.well.min(well));
        let spooled = std::mem::take(&mut self.spooled);
        let ready_after = Some(well - over);
        let caused = Caused { kind: fault.kind, begun, complete, over, ready_after, parts, spooled };
        self.caused.lock().expect("what was caused").push(caused);
    }

    /// Waits until everything that was sent is settled and has arrived, or can no longer arrive.
    fn settle(&mut self, members: &Members) {
        self.world.enter(Phase::Settling);
        let begun = Instant::now();
        // Only after this time are connections whose peer has gone recognized as dead.
        let earliest = USER_TIMEOUT + Duration::from_secs(2);
        while begun.elapsed() < SETTLE_PATIENCE {
            self.progress.show(self.world.now(), self.posts);
            thread::sleep(Duration::from_millis(200));
            if begun.elapsed() >= earliest && self.is_settled(members) {
                return;
            }
        }
        self.progress.say(&format!("not settled within {SETTLE_PATIENCE:?}"));
    }

    fn is_settled(&self, members: &Members) -> bool {
        use std::sync::atomic::Ordering;
        if !self.posts.iter().all(|post| post.is_idle.load(Ordering::Relaxed)) {
            return false;
        }
        if self.stage.cluster.database.count("SELECT count(*) FROM OfflineMessage") > 0 {
            return false;
        }
        let guards: Vec<_> = self.posts.iter().map(Post::books).collect();
        let books: Vec<&Books> = guards.iter().map(|books| &**books).collect();
        let is_open = |books: &&Books| books.lots.iter().any(|lot| lot.fate == Fate::Open);
        let caused = self.caused.lock().expect("what was caused");
        !books.iter().any(is_open) && books::check(&books, members, &caused).count(Wrong::Lost) == 0
    }
}

/// The progress of a run: one line that is rewritten on a terminal, otherwise a line now and then.
struct Progress {
    seed: u64,
    length: Duration,
    bar: Option<ProgressBar>,
    next: Instant,
    now: Option<Kind>,
}

impl Progress {
    fn new(seed: u64, length: Duration) -> Progress {
        let bar = io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner} {msg}").expect("the template is right");
            ProgressBar::new_spinner().with_style(style)
        });
        Progress { seed, length, bar, next: Instant::now(), now: None }
    }

    fn begin(&mut self, kind: Kind) {
        self.now = Some(kind);
        self.next = Instant::now();
    }

    fn end(&mut self) {
        self.now = None;
    }

    fn show(&mut self, now: Moment, posts: &[Post]) {
        if Instant::now() < self.next {
            return;
        }
        self.next += if self.bar.is_some() { Duration::from_millis(200) } else { Duration::from_secs(3) };
        let (mut sent, mut come, mut here) = (0, 0, 0);
        for post in posts {
            let books = post.books();
            sent += books.lots.iter().map(|lot| lot.numbers.len()).sum::<usize>();
            come += books.arrivals.len();
            here += usize::from(books.connections.last().is_some_and(|connection| connection.ended.is_none()));
        }
        let what = self.now.map_or("all is well".to_owned(), |kind| kind.to_string());
        self.say(&format!(
            "chaos: {:.0} of {} s, seed {}: {sent} sent, {come} came, {here} of {} are there; {what}",
            now.as_secs_f64(),
            self.length.as_secs(),
            self.seed,
            posts.len()
        ));
    }

    fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(line.to_owned()),
            // Written to stderr directly, so that the output of a passing test is not captured.
            None => writeln!(io::stderr(), "{line}").expect("print the progress"),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The number of nodes.
pub const NODES: usize = 3;

/// How long to wait until somebody has written to an offline user.
const SPOOL_PATIENCE: Duration = Duration::from_secs(3);

/// Messages that have not arrived this long after everything works again are lost.
const SETTLE_PATIENCE: Duration = Duration::from_secs(40);
