//! A cluster with two nginx in front, its services behind it, and the clients of a run.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use raybox_client::Conv;

use crate::books::{Books, Members, Place, Target};
use crate::caused::{Caused, Part, Party};
use crate::conductor::Conductor;
use crate::devices::{Desk, Device, Folder};
use crate::ledger::Ledger;
use crate::network::Network;
use crate::parts::Deployment;
use crate::person::{Actor, CLIENTS_MAX, Habit, Person};
use crate::progress::Progress;
use crate::report;
use crate::schedule::{Kind, Schedule, USER_TIMEOUT};
use crate::services::Services;
use crate::wire::Carrier;
use crate::world::{Order, Phase, Post, World};
use testkit::tls::{Certificate, trusting};
use testkit::{Nginx, TestServer, login, offline_user};

/// The servers and services.
pub struct Stage {
    deployment: Deployment,
    // Dropped first: servers exit before the services they use.
    pub nodes: Vec<TestServer>,
    pub nginx: [Nginx; 2],
    pub services: Services,
    certificate: Certificate,
}

/// The record of a run.
pub struct Run {
    pub deployment: Deployment,
    pub seed: u64,
    pub network: String,
    pub length: Duration,
    pub books: Vec<Books>,
    /// The ledgers of the clients of level 2.
    pub devices: Vec<Ledger>,
    /// The number of unacknowledged messages of level 2 at the kills of nodes, all kills together.
    pub caught: usize,
    pub members: Members,
    pub caused: Vec<Caused>,
    /// The persons who are logged in all the time, so that a silence means a failure.
    pub steady: BTreeSet<i64>,
}

impl Stage {
    /// Starts everything. The nodes listen where the clients of `network` reach them.
    pub fn start(deployment: Deployment, network: &Network) -> Stage {
        let services = Services::start(deployment, NODES);
        let certificate = Certificate::of("localhost");
        let node = |number| {
            let builder = services.connect(TestServer::builder(), number);
            let builder = builder.file("cert.pem", certificate.in_one_file()).option("tls_cert", "cert.pem");
            // Clients and nginx expect a restarted node at its old port.
            let builder = builder.host(network.host().to_string().leak()).fixed_port();
            let builder = builder.option("admin", "127.0.0.1:0").option("output_max", "512k");
            let builder = builder.option("user_timeout", &format!("{}s", USER_TIMEOUT.as_secs()));
            builder.option("proxy_protocol", "on").option("proxy_from", Nginx::COMES_FROM).start()
        };
        let nodes: Vec<TestServer> = (0..NODES).map(node).collect();
        let addresses: Vec<SocketAddr> = nodes.iter().map(TestServer::address).collect();
        let nginx = [0, 1].map(|_| Nginx::as_shipped_on(network.host(), &addresses));
        Stage { deployment, nodes, nginx, services, certificate }
    }

    /// Whether it has a service of several processes.
    pub fn has_several(&self) -> bool {
        self.deployment.has_several()
    }

    /// The address that clients of each node connect to.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(TestServer::address).collect()
    }

    /// Registers the persons of a run, and puts some of them into groups.
    pub fn populate(&self) -> (Vec<Person>, Members) {
        let mut persons = Vec::new();
        let node = &self.nodes[0];
        let mut add = |name: String, habit: Habit, places: Vec<Place>| {
            let index = persons.len();
            let id = offline_user(node, &name);
            let (lines, tls, small_buffer) = (index.is_multiple_of(3), !index.is_multiple_of(2), false);
            persons.push(Person { index, id, name, habit, lines, tls, small_buffer, places, targets: Vec::new() });
            index
        };
        // The places of a person in order; the person stays at one as long as that serves.
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

        let ids: Vec<i64> = persons.iter().map(|person| person.id).collect();
        for [one, other] in &pairs {
            persons[*one].targets.push((Target::User(ids[*other]), 20));
            persons[*other].targets.push((Target::User(ids[*one]), 20));
        }
        for (number, visitor) in visitors.iter().enumerate() {
            let [one, other] = pairs[number % pairs.len()];
            // The barriers of one writer need the database; those of the other one do not.
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

    /// Registers users of level 2, each with a device. They write to each other in pairs and in a
    /// group. `index` is the number of the first one among all clients.
    fn equip(&self, index: usize, folder: &Path) -> (Vec<Device>, Vec<Desk>) {
        let node = &self.nodes[0];
        let ca = folder.join("ca.pem");
        fs::write(&ca, &self.certificate.chain).expect("write the certificate");
        let around = |home: usize| (0..NODES).map(|step| Place::Node((home + step) % NODES)).collect::<Vec<_>>();
        let kinds = [
            (around(0), Carrier::Bytes, false),
            (around(1), Carrier::Bytes, true),
            (around(2), Carrier::WebSocket, false),
            (vec![Place::Nginx], Carrier::Bytes, true),
            (vec![Place::Nginx], Carrier::WebSocket, false),
            (around(0), Carrier::Bytes, true),
        ];
        let mut devices = Vec::new();
        for (number, (places, carrier, tls)) in kinds.into_iter().enumerate() {
            let name = format!("device {number}");
            let (id, file) = (offline_user(node, &name), folder.join(format!("{number}.db")));
            let (targets, ca, index) = (Vec::new(), ca.clone(), index + number);
            // Where delivery is timed, some have no accidents.
            let is_calm = self.deployment.has_several() && number < CALM;
            devices.push(Device { index, id, name, tls, carrier, places, is_calm, targets, file, ca });
        }
        assert!(index + devices.len() <= CLIENTS_MAX, "{} clients", index + devices.len());
        let mut founder = login(node, &devices[0].name, devices[0].id);
        let group = founder.create_group(devices[0].id, "devices");
        for device in &devices[1..] {
            login(node, &device.name, device.id).join_group(device.id, group);
        }
        let desks: Vec<Desk> = devices.iter().map(|_| Desk::default()).collect();
        let ids: Vec<i64> = devices.iter().map(|device| device.id).collect();
        // The pairs form a circle, so each device has two partners.
        for number in 0..devices.len() {
            let (next, length) = ((number + 1) % devices.len(), if number == 0 { 2_000 } else { 20 });
            devices[number].targets.push((Conv::User(ids[next]), length));
            devices[next].targets.push((Conv::User(ids[number]), 20));
        }
        for (number, device) in devices.iter_mut().enumerate() {
            if number % 2 == 0 {
                device.targets.push((Conv::Group(group), 20));
            }
            let mut ledger = desks[number].ledger.lock().expect("a ledger");
            ledger.user = device.id;
            ledger.convs = device.targets.iter().map(|(conv, _)| *conv).chain([Conv::Group(group)]).collect();
        }
        (devices, desks)
    }

    /// Saves the logs of the nodes, to investigate a failure.
    pub fn keep_logs(&self, seed: u64) {
        for (number, node) in self.nodes.iter().enumerate() {
            let path = report::folder().join(format!("{}seed-{seed}-node-{number}.log", self.deployment.prefix()));
            fs::write(&path, format!("{}\n{}", node.logs(), node.output())).expect("keep the logs");
        }
    }

    /// Carries out the schedule of a seed while the persons run.
    pub fn run(&mut self, network: Network, seed: u64, length: Duration) -> Run {
        let schedule = Schedule::new(self.deployment, seed, length, NODES, 1_000);
        self.carry_out(network, seed, length.max(schedule.end()), &schedule, &mut |_| ())
    }

    /// Like [`Stage::run`], with the caller's own schedule. `watch` is called once a second to look
    /// at the servers.
    pub fn carry_out(
        &mut self,
        network: Network,
        seed: u64,
        length: Duration,
        schedule: &Schedule,
        watch: &mut dyn FnMut(&Stage),
    ) -> Run {
        let (persons, members) = self.populate();
        let folder = Folder::new();
        let (devices, desks) = self.equip(persons.len(), &folder.0);
        let kind_of_network = network.to_string();
        let tls = trusting(&[&self.certificate]);
        let nginx = self.nginx.iter().map(|nginx| nginx.addresses()[0]).collect();
        let world = World::new(network, self.addresses(), nginx, seed, tls);
        let posts: Vec<Post> = persons.iter().map(|_| Post::default()).collect();
        let caused = Mutex::new(Vec::new());
        let mut caught = 0;
        thread::scope(|scope| {
            // If this panics, the other threads must end as well.
            let end = EndOnDrop(&world);
            for (person, post) in persons.iter().zip(&posts) {
                let actor = Actor::new(person, &world, post);
                let name = person.name.clone();
                thread::Builder::new().name(name).spawn_scoped(scope, move || actor.run()).expect("start a thread");
            }
            for (device, desk) in devices.iter().zip(&desks) {
                let (name, world) = (device.name.clone(), &world);
                let at_work = move || device.run(world, desk);
                thread::Builder::new().name(name).spawn_scoped(scope, at_work).expect("start a thread");
            }
            let progress = Progress::new(seed, length);
            let conductor =
                Conductor::new(self, &world, (&persons, &posts), (&devices, &desks), &caused, progress, watch);
            caught = conductor.carry_out(schedule, length, &members);
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
                // The client's node may take so long to give up the bytes that it has sent there.
                let part = Part { party: Party::Client(person.id), begun, well: over + USER_TIMEOUT };
                caused.push(Caused {
                    kind,
                    begun,
                    complete: begun,
                    over,
                    delivered_after: None,
                    ready_after: None,
                    parts: vec![part],
                    spooled: 0,
                });
            }
        }
        caused.sort_by_key(|caused| caused.begun);
        let is_steady = |person: &&Person| person.habit == Habit::Stays && !person.small_buffer;
        Run {
            deployment: self.deployment,
            seed,
            network: kind_of_network,
            length: world.now(),
            books: posts.into_iter().map(|post| post.books.into_inner().expect("books")).collect(),
            devices: desks.into_iter().map(|desk| desk.ledger.into_inner().expect("a ledger")).collect(),
            caught,
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

/// The number of nodes.
pub const NODES: usize = 3;

/// The number of devices by which delivery is timed: one at each node and one behind nginx.
const CALM: usize = 4;
