//! That a frame is guessed changes nothing: two servers hear the same, one that guesses and one that counts braces.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::dice::Dice;
use super::node::Machine;
use super::socket::Pipe;
use super::store::Tables;
use super::wires::Wires;
use crate::base::clock::Clock;
use crate::config::{Auth, Config, PasswordCost, PerSecond, Rate};

/// A server with one client.
struct Server {
    machine: Machine,
    pipe: Arc<Pipe>,
    clock: Clock,
    dice: Dice,
}

impl Server {
    fn start(config: &Config, start: Instant, guesses: bool) -> Server {
        let clock = Clock::standing_at(start);
        let tables = Arc::new(Mutex::new(Tables::new(2, &[], 0, None)));
        let (disk, wires) = (Arc::default(), Arc::new(Mutex::new(Wires::new(0, None))));
        let machine = Machine::start("n".into(), config, &clock, &tables, &disk, &wires, guesses);
        let peer = ([127, 0, 0, 1], 1).into();
        let pipe = Arc::new(Pipe::new(peer, 1 << 20, false));
        machine.assign(0, &pipe, peer);
        Server { machine, pipe, clock, dice: Dice::new(0) }
    }

    fn listen(&mut self) {
        while self.machine.step_loop(0, std::slice::from_ref(&self.pipe)) {}
    }

    /// Whatever it has begun gets done, and what follows from that.
    fn work(&mut self) {
        for _ in 0..4 {
            for part in self.machine.parts() {
                let pipe = self.pipe.clone();
                self.machine.step(part, &|_| vec![pipe.clone()], &mut self.dice);
            }
        }
        self.listen();
    }

    fn seen(&self) -> (String, bool, String) {
        let metrics = self.machine.metrics();
        let counts = metrics.lines().filter(|line| {
            ["raybox_frames_total", "raybox_replies_total", "raybox_refused_total"]
                .iter()
                .any(|name| line.starts_with(name))
                && !line.ends_with(" 0")
        });
        let counts = counts.collect::<Vec<_>>().join("\n");
        (String::from_utf8_lossy(&self.pipe.written_after(0)).into_owned(), self.pipe.is_closed(), counts)
    }
}

fn rate(dice: &mut Dice, per_second: u32, burst: u32) -> Rate {
    Rate(dice.one_in(2).then_some(PerSecond { per_second, burst }))
}

fn piece(dice: &mut Dice) -> Vec<u8> {
    let long = |len: usize| format!("{{\"msgType\":200,\"x\":[{}{{}}]}}", "{},".repeat(len)).into_bytes();
    match dice.range(0..40) {
        0 => long(dice.range(0..10)),
        1 => long(dice.range(0..700)),
        2 => b"\n".repeat(dice.range(1..40)),
        3 if dice.one_in(4) => b" ".repeat(dice.range(4000..5000)),
        _ => dice.pick(PIECES).as_bytes().to_vec(),
    }
}

fn run(seed: u64) {
    let mut dice = Dice::new(seed);
    let config = Config {
        loops: 1,
        auth: Auth::Compat,
        password_cost: PasswordCost { memory_kib: 8, passes: 1, lanes: 1 },
        frame_bytes_max: *dice.pick(&[24, 64, 1024, 4096]),
        frame_timeout: Duration::from_secs(1),
        frames_per_second: rate(&mut dice, 10, 5),
        bytes_per_second: rate(&mut dice, 500, 200),
        ..Config::with_defaults(([127, 0, 0, 1], 1).into())
    };
    let start = Instant::now();
    let mut servers = [true, false].map(|guesses| Server::start(&config, start, guesses));
    let (mut now, mut heard) = (start, Vec::new());
    for _ in 0..dice.range(1..30) {
        let mut bytes: Vec<u8> = (0..dice.range(0..6)).flat_map(|_| piece(&mut dice)).collect();
        match bytes.iter().rposition(|byte| *byte == b'}') {
            Some(at) if dice.one_in(2) => bytes.truncate(at + 1),
            _ if dice.one_in(2) => bytes.truncate(dice.range(0..bytes.len() + 1)),
            _ => {}
        }
        now += Duration::from_millis(*dice.pick(&[0, 0, 50, 300, 3000]));
        let (works, ends) = (dice.one_in(2), dice.one_in(40));
        heard.push((bytes.clone().escape_ascii().to_string(), now - start, works, ends));
        for server in &mut servers {
            server.clock.set(now);
            server.pipe.arrive(&bytes);
            if ends {
                server.pipe.end();
            }
            server.listen();
            if works {
                server.work();
            }
            server.pipe.acknowledge(usize::MAX);
        }
        let [guessed, counted] = servers.each_ref().map(Server::seen);
        assert_eq!(guessed, counted, "seed {seed}, at most {} bytes: {heard:#?}", config.frame_bytes_max);
    }
}

#[test]
fn a_guess_changes_nothing() {
    if let Some(seed) = super::variable("SIM_SEED") {
        return run(seed);
    }
    (0..super::variable("SIM_SEEDS").unwrap_or(SEEDS)).for_each(run);
}

const SEEDS: u64 = 500;
const PIECES: &[&str] = &[
    r#"{"msgType":200}"#,
    r#"{"msgType":200}"#,
    "{\"msgType\":200}\n",
    "{\"msgType\":200}\r\n",
    "{\"msgType\":200}\r \n",
    r#"{"msgType":15,"keyword":"x"}"#,
    "{\"msgType\":15,\"keyword\":\"x\"}\n",
    r#"{"msgType":4,"TOID":2,"a":{},"b":{"c":{}}}"#,
    r#"{"msgType":4,"TOID":9,"msg":"}{"}"#,
    r#"{"msgType":500,"x":{"y":{}"#,
    r#"{"x":{}"#,
    "{\n\"msgType\":401,\n\"x\":{\n}\n}\n",
    r#"{"msgType":200,}"#,
    r#"{"msgType":200 {}"#,
    r#"{"x" 1 {}"#,
    r#"{x}"#,
    "{}",
    "{",
    "}",
    "}}",
    "[",
    "]",
    "\"",
    "\\",
    ",",
    " ",
    "\n",
    "\r",
    "\r\n",
    "\0",
    "x",
];
