//! Frames for a large group beside a quiet client, one turn of the loop after the other: how many
//! members each turn serves, and who is served in between. Bytes bound each turn here, not the
//! clock, so the numbers are the same on every machine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use net::Turn;
use parking_lot::Mutex;

use super::dice::Dice;
use super::node::{Machine, Part};
use super::socket::Pipe;
use super::store::Tables;
use super::wires::Wires;
use crate::base::clock::Clock;
use crate::config::{Config, PasswordCost};
use crate::delivery::ClientLink;
use crate::protocol::UserId;

const GREEDY: UserId = UserId(1);
const QUIET: UserId = UserId(2);
const MEMBERS: usize = 5000;
/// Text of a message to the group.
const LENGTH: usize = 2000;

struct Scene {
    machine: Machine,
    pipes: Vec<Arc<Pipe>>,
    dice: Dice,
    /// Has all members but the first two.
    members: Arc<ClientLink>,
}

impl Scene {
    fn new() -> Scene {
        let clock = Clock::standing_at(Instant::now());
        let group = (1..=MEMBERS as i32).map(UserId).collect();
        let tables = Arc::new(Mutex::new(Tables::new(MEMBERS, &[group], 1, None)));
        let (disk, wires) = (Arc::default(), Arc::new(Mutex::new(Wires::new(0, None))));
        let config = Config {
            loops: 1,
            password_cost: PasswordCost { memory_kib: 8, passes: 1, lanes: 1 },
            password_memory: Duration::from_secs(3600),
            ..Config::with_defaults(([127, 0, 0, 1], 1).into())
        };
        let machine = Machine::start("n".into(), &config, &clock, &tables, &disk, &wires);
        let members = net::simulation::link_to_nowhere().expect("descriptors");
        let mut turn = Turn::at(clock.now());
        for user in (3..=MEMBERS as i32).map(UserId) {
            machine.router().attendance().attach(&mut turn, user, &members);
        }
        Scene { machine, pipes: Vec::new(), dice: Dice::new(0), members }
    }

    fn log_in(&mut self, user: UserId) -> Arc<Pipe> {
        let peer = ([127, 0, 0, 1], 1).into();
        let pipe = Arc::new(Pipe::new(peer, usize::MAX / 2, false));
        self.machine.assign(0, &pipe, peer);
        self.pipes.push(pipe.clone());
        self.turn();
        pipe.arrive(format!(r#"{{"msgType":1,"USERID":{user},"password":"secret"}}"#).as_bytes());
        self.rest();
        assert!(pipe.written() > 0, "it is logged in");
        pipe
    }

    /// Runs one turn of the loop. Returns the number of members to whom it has handed a frame.
    fn turn(&mut self) -> usize {
        let before = self.members.pushes();
        self.machine.step_loop(0, &self.pipes);
        (self.members.pushes() - before) as usize
    }

    /// Runs everything but the loop.
    fn others(&mut self) {
        let parts = || [Part::Lane(0), Part::Lane(1), Part::Job, Part::Bus, Part::Redis];
        while parts().into_iter().fold(false, |any, part| any | self.machine.step(part, &|_| vec![], &mut self.dice)) {}
    }

    /// Runs everything until nothing is left to do.
    fn rest(&mut self) {
        loop {
            self.others();
            if !self.machine.step_loop(0, &self.pipes) {
                return;
            }
        }
    }
}

fn to_group(from: UserId) -> String {
    format!(r#"{{"msgType":9,"FROMID":{from},"GROUPID":1,"msg":"{}"}}"#, "x".repeat(LENGTH))
}

/// A scene in which `connections` connections of one account have sent a frame to the group, whose
/// members are all known and online; and the connection of a quiet client.
fn greedy(connections: usize) -> (Scene, Arc<Pipe>) {
    let mut scene = Scene::new();
    let first = scene.log_in(GREEDY);
    let pipes: Vec<_> = (1..connections).map(|_| scene.log_in(GREEDY)).chain([first]).collect();
    let quiet = scene.log_in(QUIET);
    pipes[0].arrive(to_group(GREEDY).as_bytes());
    scene.rest();
    assert_eq!(scene.members.pushes() as usize, MEMBERS - 2, "the node knows the members");
    pipes.iter().for_each(|pipe| pipe.arrive(to_group(GREEDY).as_bytes()));
    (scene, quiet)
}

#[test]
fn a_frame_for_5000_members_takes_many_turns_and_a_quiet_client_is_served_in_each() {
    let (mut scene, quiet) = greedy(1);
    let (mut turns, mut most) = (0, 0);
    let mut handed = 0;
    while handed < MEMBERS - 2 {
        quiet.arrive(br#"{"msgType":404}"#);
        let before = quiet.written();
        let count = scene.turn();
        assert!(quiet.written() > before, "the quiet one is answered in every turn");
        (turns, most, handed) = (turns + 1, most.max(count), handed + count);
        assert!(turns <= MEMBERS, "it comes to its end");
    }
    println!("{MEMBERS} members in {turns} turns, at most {most} in one");
    assert!(most * (LENGTH + 512) <= 512 * 1024, "{most} members in one turn");
}

/// The number of turns until a quiet client gets the answer to a request that a worker handles. The
/// answer reaches the loop as a letter, behind the letters of `connections` connections of one
/// account that write to the group.
fn turns_of_quiet(connections: usize) -> usize {
    let (mut scene, quiet) = greedy(connections);
    let mut most = 0;
    // Each has begun.
    for _ in 0..connections {
        most = most.max(scene.turn());
    }
    let before = quiet.written();
    quiet.arrive(br#"{"msgType":8,"FROMID":2}"#);
    let mut turns = 0;
    while quiet.written() == before {
        most = most.max(scene.turn());
        scene.others();
        turns += 1;
        assert!(turns < 1000, "it is answered");
    }
    println!("beside {connections} connections: answered in turn {turns}; at most {most} members in one turn");
    assert!(most * (LENGTH + 512) <= 512 * 1024, "{most} members in one turn");
    turns
}

#[test]
fn messages_of_one_account_to_a_group_share_one_share_whatever_the_connection() {
    assert!(turns_of_quiet(40) <= turns_of_quiet(1) + 1);
}

/// A frame whose delivery has begun is delivered completely, one piece after the other, even if its
/// sender has gone.
#[test]
fn a_frame_whose_sender_has_gone_is_handed_out_to_its_end() {
    let (mut scene, quiet) = greedy(1);
    scene.turn();
    scene.pipes[0].break_off();
    let (mut turns, mut handed) = (0, scene.members.pushes() as usize - (MEMBERS - 2));
    while handed < MEMBERS - 2 {
        quiet.arrive(br#"{"msgType":404}"#);
        let before = quiet.written();
        let count = scene.turn();
        assert!(quiet.written() > before, "the quiet one is answered in every turn");
        assert!(count * (LENGTH + 512) <= 512 * 1024, "{count} members in one turn");
        (turns, handed) = (turns + 1, handed + count);
        assert!(turns <= MEMBERS, "it comes to its end");
    }
    assert!(turns > 5);
}
