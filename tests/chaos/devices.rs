//! [`Device`]: a client of level 2 with a data file. It writes numbered messages, whatever happens
//! to the servers, to its connections and to itself. It is the shipped client library, so the store
//! and the outbox of the library are checked as well.
//!
//! The schedule makes servers fail. Besides, each device has accidents of its own
//! ([`Keeper::suffer`]).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use raybox_client::{Client, Conv, End, Error, Options, State, Ticket};

use crate::books::{Moment, Place};
use crate::ledger::{Ledger, Sent, text};
use crate::network::Source;
use crate::person::SOURCES;
use crate::schedule::Dice;
use crate::wire::{Carrier, Wire};
use crate::world::{Phase, World};
use testkit::{PATIENCE, password};

/// The plan of one device.
pub struct Device {
    /// The number of this client, which determines its addresses and its random choices.
    pub index: usize,
    pub id: i64,
    pub name: String,
    pub tls: bool,
    pub carrier: Carrier,
    /// The places to which it connects. When one does not serve, it goes on to the next.
    pub places: Vec<Place>,
    /// Whether it has no accidents of its own.
    pub is_calm: bool,
    /// The conversations in which it writes, each with the length of its texts.
    pub targets: Vec<(Conv, usize)>,
    /// The path of its data file.
    pub file: PathBuf,
    /// The CA certificate that it trusts.
    pub ca: PathBuf,
}

/// The state that the conductor and one device share.
#[derive(Default)]
pub struct Desk {
    pub ledger: Mutex<Ledger>,
    /// Whether everything that the device sent is acknowledged.
    is_idle: AtomicBool,
    /// The number of messages that are not acknowledged.
    pub in_flight: AtomicUsize,
    /// The last number of each conversation in the device's store.
    held: Mutex<BTreeMap<Conv, u64>>,
    /// When the store of a calm device has reached which numbers.
    arrivals: Mutex<BTreeMap<Conv, Vec<(Moment, u64)>>>,
}

/// The place and the address that the wire uses for its next connection.
#[derive(Default)]
struct Route {
    place: AtomicUsize,
    source: AtomicU8,
}

/// A device at work, on a thread of its own.
struct Keeper<'a> {
    device: &'a Device,
    world: &'a World,
    desk: &'a Desk,
    dice: Dice,
    route: &'a Route,
    wire: Wire,
    /// The client; `None` only while it is opened again.
    client: Option<Client>,
    in_flight: Vec<Flight>,
    next_lot: Instant,
    next_target: usize,
    next_accident: Instant,
    next_hurry: Instant,
    stalled_until: Option<Instant>,
    /// The address that is cut off, the time at which the wire is reset, and the time at which the
    /// address is restored.
    cut: Option<(Source, Instant, Instant)>,
    /// Whether it has sent its last messages.
    has_closed: bool,
}

/// A message in flight.
struct Flight {
    ticket: Ticket,
    conv: Conv,
    number: usize,
    since: Instant,
}

/// Whether every message of level 2 is acknowledged, and all stores of a conversation reach the
/// same number.
pub fn are_settled(devices: &[Device], desks: &[Desk]) -> bool {
    if !desks.iter().all(|desk| desk.is_idle.load(Ordering::Relaxed)) {
        return false;
    }
    let mut heads: BTreeMap<Conv, Vec<u64>> = BTreeMap::new();
    for (device, desk) in devices.iter().zip(desks) {
        let held = desk.held.lock().expect("what is held");
        let ledger = desk.ledger.lock().expect("a ledger");
        for conv in &ledger.convs {
            // A pair gets one name here, made of both ids, the smaller one first.
            let room = match conv {
                Conv::User(other) if *other > device.id => (*other << 32) + device.id,
                Conv::User(other) => (device.id << 32) + other,
                Conv::Group(_) => 0,
            };
            let room = if room == 0 { *conv } else { Conv::User(room) };
            let told = ledger.sent.get(conv).into_iter().flatten().filter_map(|sent| sent.acknowledged).max();
            let held = held.get(conv).copied().unwrap_or(0);
            if told > Some(held) {
                return false;
            }
            heads.entry(room).or_default().push(held);
        }
    }
    heads.values().all(|heads| heads.iter().all(|head| *head == heads[0]))
}

/// The devices that have no answer to something they have sent, or are not online.
pub fn busy<'d>(devices: &'d [Device], desks: &'d [Desk]) -> impl Iterator<Item = &'d str> {
    let devices = devices.iter().zip(desks);
    devices.filter(|(_, desk)| !desk.is_idle.load(Ordering::Relaxed)).map(|(device, _)| &*device.name)
}

impl Desk {
    /// The numbers of the messages that the device has sent since then, as far as they are
    /// acknowledged.
    pub fn acknowledged_since(&self, conv: Conv, since: Moment) -> Vec<u64> {
        let ledger = self.ledger.lock().expect("a ledger");
        let sent = ledger.sent.get(&conv).map_or(&[][..], Vec::as_slice);
        sent.iter().rev().take_while(|sent| sent.at >= since).filter_map(|sent| sent.acknowledged).collect()
    }

    /// When the message with this number was in the store of a calm device.
    pub fn arrival(&self, conv: Conv, seq: u64) -> Option<Moment> {
        let arrivals = self.arrivals.lock().expect("arrivals");
        let arrivals = arrivals.get(&conv)?;
        arrivals.get(arrivals.partition_point(|(_, held)| *held < seq)).map(|(at, _)| *at)
    }
}

impl Device {
    pub fn writes_to(&self, conv: Conv) -> bool {
        self.targets.iter().any(|(target, _)| *target == conv)
    }

    /// Runs until the end of the run, and then reads its store and the history.
    pub fn run(&self, world: &World, desk: &Desk) {
        let route = Route::default();
        thread::scope(|scope| {
            let wire = Wire::open(scope, self.carrier, || self.dial(world, &route));
            let client = self.open(&wire, true).expect("a new data file opens");
            let now = Instant::now();
            let keeper = Keeper {
                device: self,
                world,
                desk,
                dice: Dice::new(world.seed ^ (self.index as u64 + 1).wrapping_mul(0xA5A5_5A5A_1234_4321)),
                route: &route,
                wire,
                client: Some(client),
                in_flight: Vec::new(),
                next_lot: now,
                next_target: 0,
                next_accident: now + Duration::from_secs(3),
                next_hurry: now,
                stalled_until: None,
                cut: None,
                has_closed: false,
            };
            keeper.run();
        });
    }

    fn dial(&self, world: &World, route: &Route) -> std::io::Result<std::net::TcpStream> {
        let place = self.places[route.place.load(Ordering::Relaxed) % self.places.len()];
        let source = Source(1 + self.index as u8 * SOURCES + route.source.load(Ordering::Relaxed) % SOURCES);
        world.network.connect(source, world.address(place), None)
    }

    /// Opens the data file, or a new device without one.
    fn open(&self, wire: &Wire, with_file: bool) -> raybox_client::Result<Client> {
        let port = wire.address.port();
        let options = match self.tls {
            true => Options::new(format!("tls://localhost:{port}")).ca(&self.ca),
            false => Options::new(format!("127.0.0.1:{port}")),
        };
        if !with_file {
            return Client::open(options.password(&self.name, password(&self.name)));
        }
        // A file that was logged in before holds a token.
        match Client::open(options.clone().file(&self.file)) {
            Err(Error::NoAccount) => Client::open(options.file(&self.file).password(&self.name, password(&self.name))),
            opened => opened,
        }
    }
}

impl Keeper<'_> {
    fn run(mut self) {
        while !self.world.is_in(Phase::Over) {
            let now = Instant::now();
            if self.world.is_in(Phase::Talking) {
                self.suffer(now);
                self.send_lot(now);
            } else {
                self.send_last();
            }
            self.recover(now);
            self.take_answers();
            self.connect(now);
            self.show();
            // Events only wake the thread; the messages are in the store.
            let has_news = self.client().events().next_within(TURN).is_some();
            while self.client().events().next_now().is_some() {}
            if has_news && self.device.is_calm {
                self.note_arrivals();
            }
        }
        self.close();
    }

    fn client(&self) -> &Client {
        self.client.as_ref().expect("it is open")
    }

    // Sending

    fn send_lot(&mut self, now: Instant) {
        if now < self.next_lot || self.in_flight.len() >= IN_FLIGHT_MAX {
            return;
        }
        self.next_lot = now + Duration::from_millis(self.dice.between(200, 400));
        let (conv, length) = self.device.targets[self.next_target % self.device.targets.len()];
        self.next_target += 1;
        let count = if self.dice.below(10) == 0 { IN_FLIGHT_MAX } else { 1 + self.dice.below(6) };
        (0..count).for_each(|_| self.send(conv, length));
    }

    /// Sends one last message to each conversation: it shows a client whether it lacks earlier
    /// ones.
    fn send_last(&mut self) {
        if !std::mem::replace(&mut self.has_closed, true) {
            for (conv, length) in &self.device.targets {
                self.send(*conv, *length);
            }
        }
    }

    fn send(&mut self, conv: Conv, length: usize) {
        let mut ledger = self.desk.ledger.lock().expect("a ledger");
        let sent = ledger.sent.entry(conv).or_default();
        let number = sent.len();
        match self.client().send(conv, &text(self.device.id, number, length)) {
            Ok(ticket) => {
                sent.push(Sent { at: self.world.now(), acknowledged: None });
                self.in_flight.push(Flight { ticket, conv, number, since: Instant::now() });
            }
            Err(error) => ledger.troubles.push(format!("the outbox does not take a message: {error}")),
        }
    }

    fn take_answers(&mut self) {
        let mut ledger = self.desk.ledger.lock().expect("a ledger");
        self.in_flight.retain(|flight| match flight.ticket.wait(Duration::ZERO) {
            Ok(seq) => {
                let sent = ledger.sent.get_mut(&flight.conv).and_then(|sent| sent.get_mut(flight.number));
                sent.expect("it was sent").acknowledged = Some(seq);
                false
            }
            Err(Error::NoAnswer) => true,
            Err(error) => {
                ledger.troubles.push(format!("message {} to {} was refused: {error}", flight.number, flight.conv));
                false
            }
        });
        self.desk.in_flight.store(self.in_flight.len(), Ordering::Relaxed);
    }

    // The connection

    /// Goes to another place if the current one does not serve.
    fn connect(&mut self, now: Instant) {
        match self.client().state() {
            State::Ended(end) => {
                // A node that was frozen may finish an old login of this device after a newer one.
                if end != End::Replaced {
                    self.trouble(format!("the client has ended: {end}"));
                }
                self.restart();
            }
            State::Waiting { .. } if now >= self.next_hurry => {
                self.next_hurry = now + Duration::from_millis(self.dice.between(200, 600));
                self.move_on();
                let _ = self.client().hurry();
            }
            _ => (),
        }
        let is_stuck = self.in_flight.first().is_some_and(|first| now > first.since + GIVE_UP_AFTER);
        if is_stuck && self.cut.is_none() && self.stalled_until.is_none() {
            self.in_flight.iter_mut().for_each(|flight| flight.since = now);
            self.move_on();
            self.wire.reset();
        }
    }

    fn move_on(&self) {
        self.route.place.fetch_add(1, Ordering::Relaxed);
    }

    // Accidents

    fn suffer(&mut self, now: Instant) {
        if self.device.is_calm || now < self.next_accident || self.cut.is_some() || self.stalled_until.is_some() {
            return;
        }
        self.next_accident = now + Duration::from_millis(self.dice.between(2_000, 6_000));
        match self.dice.below(5) {
            0 => self.wire.reset(),
            1 => {
                self.move_on();
                self.wire.reset();
            }
            2 => self.restart(),
            3 => {
                self.stalled_until = Some(now + Duration::from_millis(self.dice.between(300, 2_500)));
                self.wire.stall(true);
            }
            _ => self.vanish(now),
        }
    }

    /// Cuts the device's address off. The device notices after a while, and comes back from another
    /// address.
    fn vanish(&mut self, now: Instant) {
        let source =
            Source(1 + self.device.index as u8 * SOURCES + self.route.source.load(Ordering::Relaxed) % SOURCES);
        let noticed = now + Duration::from_millis(self.dice.between(300, 1_500));
        self.cut = Some((source, noticed, now + Duration::from_millis(self.dice.between(2_000, 5_000))));
        if self.world.network.can_cut() {
            self.world.network.cut(source);
        } else {
            self.wire.stall(true);
        }
    }

    fn recover(&mut self, now: Instant) {
        let is_over = !self.world.is_in(Phase::Talking);
        if self.stalled_until.is_some_and(|until| now >= until || is_over) {
            self.stalled_until = None;
            self.wire.stall(false);
        }
        let Some((source, noticed, until)) = self.cut else { return };
        if now >= noticed && self.route.source.load(Ordering::Relaxed) % SOURCES == (source.0 - 1) % SOURCES {
            self.route.source.fetch_add(1, Ordering::Relaxed);
            self.wire.reset();
        }
        if now >= until || is_over {
            self.cut = None;
            if self.world.network.can_cut() {
                self.world.network.mend(source);
            } else {
                self.wire.stall(false);
            }
        }
    }

    /// Ends the client, whatever is in flight, and opens it again from its file.
    fn restart(&mut self) {
        self.in_flight.clear();
        // Only one client may use the file, so the old one must go first.
        self.client = None;
        self.client = Some(self.device.open(&self.wire, true).expect("its file opens again"));
        self.desk.ledger.lock().expect("a ledger").restarts += 1;
    }

    fn note_arrivals(&self) {
        let now = self.world.now();
        let mut arrivals = self.desk.arrivals.lock().expect("arrivals");
        for line in self.client().conversations().unwrap_or_default() {
            let known = arrivals.entry(line.conv).or_default();
            if known.last().is_none_or(|(_, held)| *held < line.held) {
                known.push((now, line.held));
            }
        }
    }

    // The end

    fn show(&self) {
        if self.world.is_in(Phase::Talking) {
            return;
        }
        let waiting = self.client().pending_count().unwrap_or(u64::MAX);
        let is_idle = self.has_closed && waiting == 0 && self.in_flight.is_empty();
        let convs = self.client().conversations().unwrap_or_default();
        *self.desk.held.lock().expect("what is held") = convs.iter().map(|line| (line.conv, line.held)).collect();
        self.desk.is_idle.store(is_idle && self.client().state() == State::Online, Ordering::Relaxed);
    }

    fn close(mut self) {
        self.recover(Instant::now());
        let mut ledger = self.desk.ledger.lock().expect("a ledger");
        ledger.connections = self.wire.connections();
        let read = self.client().wait_online(PATIENCE).and_then(|()| ledger.read_store(self.client()));
        if let Err(error) = read {
            ledger.troubles.push(format!("its store cannot be read: {error}"));
        }
        let read = self.device.open(&self.wire, false).and_then(|fresh| {
            fresh.wait_online(PATIENCE)?;
            ledger.read_history(&fresh)
        });
        if let Err(error) = read {
            ledger.troubles.push(format!("the history cannot be read: {error}"));
        }
    }

    fn trouble(&self, what: String) {
        self.desk.ledger.lock().expect("a ledger").troubles.push(what);
    }
}

/// A folder for data files; removed when dropped.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Folder {
        // Several tests run at the same time, so each folder has its own number.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("chaos-devices-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("a folder for data files");
        Folder(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// How long a device waits for the next event.
const TURN: Duration = Duration::from_millis(20);

/// The most messages in flight of a device before it waits with the next lot.
const IN_FLIGHT_MAX: usize = 32;

/// How long a device waits for an answer before it tries another place.
const GIVE_UP_AFTER: Duration = Duration::from_secs(4);
