//! [`Server`]: the shell around the sessions. It feeds them what happens and carries out what they want.

pub mod accounts;
mod fetching;
pub mod foreign;
pub mod jobs;

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use net::{
    Acceptor, CloseReason, Fate, Flow, Foreign, Handler, Incoming, ListenSettings, LoopGroup, Preface, Settings,
    Stopper, Turn,
};
use parking_lot::Mutex;
use pool::{Again, Lanes, Workers, WorkersWatch};

use self::accounts::Checker;
use self::fetching::Fetcher;
use self::jobs::{Directory, Jobs, Limits, Logins, Mail};
use crate::admission::berths::Berths;
use crate::admission::fetches::Fetches;
use crate::admission::requests::{self, Kind, Requests};
use crate::admission::{self, Admission, Excess, Holder, Meter, Pace, Payer, Refusal, Seat, Source, Turns};
use crate::base::clock::Clock;
use crate::bus::Bus;
use crate::config::{Auth, Config, Networks, Paced};
use crate::delivery::spread::Spread;
use crate::delivery::{self, ClientLink, LaneItem, Posted};
use crate::metrics::{Hit, Login, LoopTally, Metrics, Stage};
use crate::operation::health::Health;
use crate::operation::resources;
use crate::protocol::{self, FrameKind, GroupId, Id, ReplyKind, UserId};
use crate::routing::backlog::Backlog;
use crate::routing::groups::GroupCache;
use crate::routing::mailboxes::Mailboxes;
use crate::routing::outbox::{self, ENVELOPE_BYTES_MAX, OutItem, Outbox};
use crate::routing::quotas::Quotas;
use crate::routing::router::{self, GroupFrame, Routed, Router};
use crate::routing::services::Services;
use crate::routing::states::StateWriter;
use crate::session::password::{self, PasswordError, Passwords};
use crate::session::{Effect, Effects, Input, Job, Known, Outcome, STATE_PATIENCE, Session, Settled, members_at_once};
use crate::store::outages::Outages;
use crate::store::spool::Spool;
use crate::store::{States, Store};

/// A server that listens.
pub struct Server {
    acceptor: Acceptor,
    local_addr: SocketAddr,
    /// The peers that must begin with a PROXY header, if any.
    proxies: Option<Networks>,
    loops: LoopGroup<Posted>,
    shared: Arc<Shared>,
    checker: Checker,
    drain_rate: u32,
    drain_timeout: Duration,
}

/// Why a server cannot start.
#[derive(Debug)]
pub enum StartError {
    /// It cannot listen on this address.
    Listen(SocketAddr, io::Error),
    /// The system has no descriptors or threads left.
    Resources(io::Error),
    /// The cost of password hashing is not one that argon2 allows.
    PasswordCost(PasswordError),
}

/// How a server has stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Stopped {
    /// Everything accepted was delivered or stored.
    Clean,
    /// So many messages wait in the spool for the next start: the database is away. Everything else was delivered or
    /// stored.
    Spooled(usize),
    /// So many messages could not be stored in time.
    Left(usize),
    /// By itself: the file of the store or of the spool was moved, replaced or deleted. What was in it was saved beside it,
    /// if that was possible.
    Lost,
}

/// What all loops share.
struct Shared {
    auth: Auth,
    paced: Paced,
    pace: Duration,
    services: Arc<Services>,
    jobs: Arc<Jobs>,
    router: Arc<Router>,
    mailboxes: Mailboxes<Fetcher>,
    /// A connection that has claimed a mailbox, and memory for what is in it.
    fetches: Fetches<Fetcher>,
    admission: Arc<Admission>,
    requests: Arc<Requests>,
    hashers: Workers,
    hashers_queue: WorkersWatch,
    /// Passwords waiting to be hashed, one queue per address, served round-robin. A leaf lock.
    turns: Arc<Mutex<Turns<Source, Work>>>,
    /// How long the hashers take.
    hashing: Arc<Pace>,
}

/// A password to be hashed, and what is to be done then.
type Work = Box<dyn FnOnce() + Send>;

/// The handler of one loop.
struct Shell {
    shared: Arc<Shared>,
    tally: Arc<LoopTally>,
}

/// One connection.
struct Client {
    session: Session,
    meter: Meter,
    seat: Seat,
}

impl Server {
    /// Starts everything and listens; connections are accepted by [`Server::run`].
    ///
    /// # Errors
    /// [`StartError`]; nothing goes on running then but threads that wait for work.
    pub fn bind(config: &Config, store: Store, spool: Arc<dyn Spool>, bus: Arc<dyn Bus>) -> Result<Server, StartError> {
        let listen = ListenSettings { backlog: config.backlog, user_timeout: config.user_timeout };
        let mut acceptor =
            Acceptor::bind(config.listen, listen).map_err(|error| StartError::Listen(config.listen, error))?;
        let local_addr = acceptor.local_addr().map_err(StartError::Resources)?;
        let (clients, sockets) = resources::descriptors_for_clients(config);
        acceptor.set_sockets_max(sockets);
        let shared = Arc::new(Shared::start(config, clients, store, spool, bus)?);
        let metrics = &shared.services.metrics;
        let shell = |nth| Shell { shared: shared.clone(), tally: metrics.of_loop(nth) };
        let loops = LoopGroup::start(config.loops, settings(config), shell).map_err(StartError::Resources)?;
        metrics.watch_loops(loops.watches());
        let checker = Checker::start(shared.jobs.clone(), &shared.router, config.account_check);
        let checker = checker.map_err(StartError::Resources)?;
        let proxies = config.proxy_protocol.then(|| config.proxy_from.clone());
        let (drain_rate, drain_timeout) = (config.drain_rate, config.drain_timeout);
        Ok(Server { acceptor, local_addr, proxies, loops, shared, checker, drain_rate, drain_timeout })
    }

    /// The address it listens on, with the port that the system chose if none was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// What it counts.
    pub fn metrics(&self) -> Arc<Metrics> {
        self.shared.services.metrics.clone()
    }

    /// What is known of its health; who starts [`Checks`](crate::operation::health::Checks) has it known.
    pub fn health(&self) -> Health {
        Health::new(self.loops.watches())
    }

    /// Has `stop` called when the store's or the spool's file is taken away.
    pub fn when_lost(&self, stop: impl Fn() + Clone + Send + Sync + 'static) {
        self.shared.services.store.database.on_lost(Box::new(stop.clone()));
        self.shared.services.spool.on_lost(Box::new(stop));
    }

    /// Ends [`Server::run`] from any thread.
    pub fn stopper(&self) -> Stopper {
        self.acceptor.stopper()
    }

    /// Tells how long [`Server::run`] may take from when it stops accepting: the time in which the connections of the fullest
    /// loop are closed, `drain_timeout`, what the last messages may take, and a grace.
    pub fn shutdown_limit(&self) -> impl Fn() -> Duration + Clone + Send + 'static {
        let (loops, rate, timeout) = (self.loops.watches(), self.drain_rate, self.drain_timeout);
        move || {
            let fullest = loops.iter().map(|watch| watch.stats().open()).max().unwrap_or(0);
            let seconds = (fullest * loops.len() as u64).div_ceil(rate.into());
            Duration::from_secs(seconds) + timeout + STORE_GRACE + SHUTDOWN_GRACE
        }
    }

    /// Accepts and serves until stopped. Then closes the connections one after the other, finishes what has been received,
    /// writes and stores everything, marks the users offline, and returns, at the latest about the drain timeout after the
    /// last connection was told.
    pub fn run(mut self) -> Stopped {
        let proxies = self.proxies;
        self.acceptor.run(|stream, peer| self.loops.assign(stream, peer, preface(proxies.as_ref(), peer)));
        let by = Instant::now() + self.drain_timeout;
        log::info!(
            "stopping: connections are closed, at most {} a second; what was received is finished within {:?}",
            self.drain_rate,
            self.drain_timeout
        );
        self.loops.drain(self.drain_rate, self.drain_timeout);
        let shared = Arc::into_inner(self.shared).expect("only loops shared it, and they have ended");
        let unknown = shared.services.metrics.unknown_recipients_so_far();
        log::info!("messages for unknown recipients: {unknown}");
        let by = by.max(Instant::now() + STORE_GRACE);
        let left = shared.router.close(by) + shared.services.metrics.unstored_now();
        // The client that asked is gone.
        if let Some(upgrader) = shared.jobs.logins.upgrader.lock().take() {
            upgrader.close(by);
        }
        self.checker.close(by);
        shared.requests.close(by);
        shared.hashers.close(by);
        let spooled = shared.services.spool.load();
        if spooled.messages > 0 {
            log::warn!("{spooled} wait in the spool for the database: start the server again in the same folder");
        }
        let is_lost = shared.services.store.database.is_lost() || shared.services.spool.is_lost();
        match (left, spooled.messages) {
            (0, _) if is_lost => Stopped::Lost,
            (0, 0) => Stopped::Clean,
            (0, spooled) => Stopped::Spooled(spooled),
            (left, _) => {
                log::error!("about {left} messages could not be stored before the drain timeout was over");
                if is_lost { Stopped::Lost } else { Stopped::Left(left) }
            }
        }
    }
}

/// What a connection from this address begins with. Clients may come past the proxy too, under their own address.
fn preface(proxies: Option<&Networks>, peer: SocketAddr) -> Preface {
    match proxies {
        None => Preface::None,
        Some(proxies) if proxies.contains(peer.ip()) => Preface::ProxyHeader,
        Some(_) => Preface::NoProxyHeader,
    }
}

impl Shared {
    fn start(
        config: &Config,
        descriptors: usize,
        store: Store,
        spool: Arc<dyn Spool>,
        bus: Arc<dyn Bus>,
    ) -> Result<Shared, StartError> {
        let upgrader = Workers::start_in_background("upgrader", 1, UPGRADES_MAX).map_err(StartError::Resources)?;
        let services = services(config, store.clone(), spool.clone(), bus.clone(), Clock::default());
        let jobs = jobs(config, &services, Some(upgrader))?;
        let start = || -> io::Result<Shared> {
            let keepers = start_keepers(&services)?;
            let outbox = if bus.is_alone() { None } else { Some(start_outbox(services.clone(), keepers.clone())?) };
            let states = StateWriter::new(store.states.clone(), bus.clone());
            states.start()?;
            let router = Arc::new(Router::new(services.clone(), outbox, keepers, states));
            if bus.is_first()
                && let Err(error) = store.states.get().and_then(States::set_all_offline)
            {
                log::error!("users of an earlier run may still be marked online: {error}");
            }
            bus.start(router.clone())?;
            let workers = Workers::start("worker", config.workers, config.requests_max + config.workers)?;
            let hashers = Workers::start_in_background("hasher", config.hashers, admission::places(config))?;
            Ok(Shared {
                auth: config.auth,
                paced: config.paced,
                pace: config.pace,
                router,
                mailboxes: Mailboxes::new(),
                fetches: fetching::fetches(config),
                admission: Arc::new(Admission::new(
                    config,
                    descriptors,
                    services.metrics.clone(),
                    services.clock.clone(),
                )),
                requests: Arc::new(Requests::new(workers, config.workers, config.requests_max)),
                hashers_queue: hashers.watch(),
                hashers,
                turns: Arc::default(),
                hashing: Arc::new(Pace::new(config.hashers)),
                jobs,
                services: services.clone(),
            })
        };
        let shared = start().map_err(StartError::Resources)?;
        shared.router.watched_by(&services.metrics);
        let spool = Arc::downgrade(&spool);
        services.metrics.watch_spool(move || spool.upgrade().map(|spool| spool.load()).unwrap_or_default());
        services.metrics.watch_queue("worker", shared.requests.watch());
        let watch = shared.hashers.watch();
        services.metrics.watch_queue("hasher", move || watch.waiting());
        Ok(shared)
    }

    /// Has a job done for a client who comes from there; its outcome is posted to the session.
    fn submit(&self, job: Job, link: &Arc<ClientLink>, holder: Holder, now: Instant) {
        let (jobs, source) = (self.jobs.clone(), holder.source);
        match job {
            Job::Fetch { user } => {
                let fetcher = Fetcher { link: link.clone(), holder };
                if self.mailboxes.claim(user, &fetcher) {
                    self.fetch(user, &fetcher);
                }
            }
            Job::Delete { .. } => {
                let answer = Answer::to(link);
                self.requests.submit_anyway(holder, move || answer.send(jobs.run(job)));
            }
            Job::CheckPassword { id, .. } => {
                // A password that is remembered would have been recognised.
                let differs = id.user().is_some_and(|user| jobs.logins.passwords.remembers(user, now));
                let attempt = self.admission.attempt(id, source, differs, now);
                // Before the answer: who hears that it was wrong finds it counted.
                let (link_to_pace, paced) = (link.clone(), self.paced);
                let note = move |outcome: &Outcome| match outcome {
                    Outcome::Password(right) => {
                        attempt.end(right.is_some());
                        if let Some(client) = right {
                            paced.begin(*client, &link_to_pace);
                        }
                    }
                    _ => drop(attempt),
                };
                if !self.hash(job, link, source, now, note) {
                    self.services.metrics.login(Login::Refused);
                }
            }
            Job::Register { .. } => match self.admission.register(source, now) {
                Ok(registration) => {
                    let note = move |outcome: &Outcome| match outcome {
                        Outcome::Reply(_) => registration.end(),
                        _ => drop(registration),
                    };
                    self.hash(job, link, source, now, note);
                }
                Err(seconds) => Answer::to(link).send(Outcome::Refused(protocol::register_later(seconds).into())),
            },
            _ => {
                let answer = Answer::to(link);
                let kind = match job {
                    Job::Search { .. } | Job::GroupsNamed { .. } => Kind::Search,
                    _ => Kind::Short,
                };
                // Without a place the answer is dropped: the session hears that the server is busy.
                if let Some(place) = self.place(holder) {
                    self.requests.submit(kind, place, move || answer.send(jobs.run(job)));
                }
            }
        }
    }

    /// Has a job done that hashes a password. False if there is no room; the session hears then when to come again.
    fn hash(
        &self,
        job: Job,
        link: &Arc<ClientLink>,
        source: Source,
        now: Instant,
        note: impl FnOnce(&Outcome) + Send + 'static,
    ) -> bool {
        let seconds = self.hashing.seconds_for(self.hashers_queue.waiting());
        let answer = Answer::or_else(link, protocol::busy_for(seconds));
        let Some(place) = self.admission.queue(source) else {
            // The answer is dropped, and tells the client so.
            self.admission.no_room(source, now);
            return false;
        };
        let (jobs, hashing, turns) = (self.jobs.clone(), self.hashing.clone(), self.turns.clone());
        let work = move || {
            let begun = Instant::now();
            let outcome = jobs.run(job);
            hashing.note(begun.elapsed());
            note(&outcome);
            drop(place);
            answer.send(outcome);
        };
        self.turns.lock().push(source, Box::new(work));
        let next = move || {
            let (_, work) = turns.lock().take().expect("a hasher is told of each once");
            work();
        };
        self.hashers.submit(next).expect("there is room for whoever has a place");
        true
    }

    /// A place for a request that a worker is to answer.
    fn place(&self, holder: Holder) -> Option<requests::Place> {
        let place = self.requests.place(holder);
        if place.is_none() {
            self.services.metrics.refused(Hit::RequestsMax);
            log::debug!("too many requests of {} wait", holder.payer);
        }
        place
    }
}

fn settings(config: &Config) -> Settings {
    Settings {
        frame_bytes_max: config.frame_bytes_max,
        frame_timeout: config.frame_timeout,
        idle_timeout: config.idle_timeout,
        output_bytes_max: config.output_bytes_max,
        drain_timeout: config.drain_timeout,
        pace: (config.paced != Paced::Off).then_some(net::Pace {
            each: config.pace,
            everybody: config.paced == Paced::On,
            shows: protocol::messages_shown,
            joins: protocol::len_as_kept,
            join: protocol::as_kept,
        }),
    }
}

/// What routing works with.
fn services(config: &Config, store: Store, spool: Arc<dyn Spool>, bus: Arc<dyn Bus>, clock: Clock) -> Arc<Services> {
    Arc::new(Services {
        groups: GroupCache::new((!bus.is_alone()).then_some(GROUP_LIFETIME)),
        store,
        spool,
        bus,
        clock,
        berths: Berths::new(config.lane_bytes_max),
        quotas: Quotas::new(config.mailbox_bytes_max),
        metrics: Arc::new(Metrics::new(config.loops)),
        outages: Outages::default(),
    })
}

/// What jobs work with.
fn jobs(config: &Config, services: &Arc<Services>, upgrader: Option<Workers>) -> Result<Arc<Jobs>, StartError> {
    let cost = config.password_cost;
    let passwords = Passwords::new(cost.memory_kib, cost.passes, cost.lanes, config.password_memory);
    let passwords = passwords.map_err(StartError::PasswordCost)?;
    let Services { store, bus, clock, .. } = &**services;
    let limits = Limits { search_results_max: config.search_results_max, group_members_max: config.group_members_max };
    Ok(Arc::new(Jobs {
        logins: Logins::new(store.accounts.clone(), bus.clone(), clock.clone(), passwords, upgrader),
        directory: Directory::new(services.clone(), limits),
        mail: Mail::new(services.clone(), config.fetch_bytes_max),
        services: services.clone(),
    }))
}

/// The lanes to the store.
fn start_keepers(services: &Arc<Services>) -> io::Result<Arc<Lanes<LaneItem>>> {
    let (lanes, keeping) = (services.store.database.appenders(), services.clone());
    let keep = move |backlog: &mut Backlog, batch| backlog.handle(batch, keeping.clock.now(), &keeping);
    let begin = |nth| {
        let backlog = Backlog::new(nth, lanes, &*services.spool);
        let first = backlog.begins();
        (backlog, first)
    };
    Lanes::start("lane", lanes, LANE_BATCH_MAX, begin, keep).map(Arc::new)
}

/// The lane to other nodes.
fn start_outbox(services: Arc<Services>, keepers: Arc<Lanes<LaneItem>>) -> io::Result<Arc<Lanes<OutItem>>> {
    let publish = move |outbox: &mut Outbox, batch| publish(outbox, batch, &services, &keepers);
    let begin = |_| (Outbox::new(ENVELOPE_BYTES_MAX), None);
    Lanes::start("lane-out", OUTBOXES, LANE_BATCH_MAX, begin, publish).map(Arc::new)
}

/// One batch of the lane to other nodes.
fn publish(outbox: &mut Outbox, batch: Vec<OutItem>, services: &Services, keepers: &Lanes<LaneItem>) -> Option<Again> {
    let sorted = outbox.handle(batch, &services.clock, &*services.bus);
    let metrics = &services.metrics;
    metrics.published(sorted.published);
    metrics.confirmed(sorted.delivered.len());
    metrics.unconfirmed(sorted.unconfirmed);
    if sorted.published > 0 {
        metrics.batch(Stage::Publish, sorted.published);
    }
    for item in sorted.keep {
        // It has its room already, and keeps it.
        let (key, bytes) = router::weight(&item);
        if keepers.submit_late(key, item, bytes).is_err() {
            log::error!("the server has stopped before a message could be stored");
        }
    }
    delivery::settle(sorted.delivered.into_iter().map(|delivery| (delivery, false)));
    sorted.again.map(Again::After)
}

impl Paced {
    /// A user has logged in on a connection, to an account of such a client: the usual one has to be paced. It is known by
    /// the form of the password that this login sends or that the account was made or used with before, because its automatic
    /// relogin sends the other form. A connection that reads lines never is.
    fn begin(self, client: password::Client, link: &ClientLink) {
        if self == Paced::Auto && client == password::Client::Usual {
            link.use_pace();
        }
    }
}

/// Posts the outcome of a job to a session. If the job is dropped or panics, the session hears that the server is busy.
struct Answer {
    link: Option<Arc<ClientLink>>,
    or_else: Cow<'static, str>,
}

impl Answer {
    fn to(link: &Arc<ClientLink>) -> Answer {
        Answer::or_else(link, protocol::BUSY)
    }

    fn or_else(link: &Arc<ClientLink>, reply: impl Into<Cow<'static, str>>) -> Answer {
        Answer { link: Some(link.clone()), or_else: reply.into() }
    }

    fn send(mut self, outcome: Outcome) {
        if let Some(link) = self.link.take() {
            link.post(Posted::Outcome(outcome));
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(link) = self.link.take() {
            link.post(Posted::Outcome(Outcome::Refused(std::mem::take(&mut self.or_else))));
        }
    }
}

impl Shell {
    fn feed(&self, turn: &mut Turn<Posted>, link: &Arc<ClientLink>, client: &mut Client, input: Input<'_>) -> Flow {
        let Client { session, seat, .. } = client;
        let source = seat.source();
        // An account that logs in with this input pays for what comes after.
        let holder = Holder { payer: session.payer(source), source };
        let known = Facts { shared: &self.shared, link, source, now: turn.now() };
        let mut effects = Effects::new();
        let flow = session.on(input, &known, &mut effects);
        while !effects.is_empty() {
            let settled = self.carry_out(turn, link, session, holder, &mut effects);
            if settled.frames > 0 {
                session.on(Input::Settled(settled), &known, &mut effects);
            }
        }
        if session.is_logged_in() != seat.is_users() {
            note_login(turn, link, session, seat);
        }
        flow
    }

    /// Counts what asks for no answer; there is one only when it is too much.
    fn count_blanks(&self, turn: &mut Turn<Posted>, link: &Arc<ClientLink>, client: &mut Client, len: usize) -> Flow {
        match client.meter.check_blanks(turn.now(), self.shared.admission.rates()) {
            Ok(()) => {
                client.meter.pay_blanks(len);
                Flow::Taken
            }
            Err(refusal) => self.refuse(turn, link, client, refusal),
        }
    }

    /// Answers a client that speaks another protocol; nothing of what it has sent was looked at.
    fn turn_down(&self, turn: &mut Turn<Posted>, link: &Arc<ClientLink>, client: &Client, foreign: Foreign) -> Flow {
        self.shared.admission.speaks(foreign, client.seat.source(), turn.now());
        let answer = foreign::answer(foreign);
        if !answer.is_empty() {
            // Refused only if the client is gone.
            let _ = link.send(turn, answer, Fate::Drop);
        }
        Flow::Taken
    }

    /// What becomes of a frame, or of something that is none, that is beyond what the connection may send.
    fn refuse(&self, turn: &mut Turn<Posted>, link: &Arc<ClientLink>, client: &mut Client, refusal: Refusal) -> Flow {
        let flow = self.feed(turn, link, client, Input::Excess { last: refusal.last });
        if flow != Flow::Later {
            client.meter.refused();
            self.shared.services.metrics.refused(match refusal.excess {
                Excess::Frames => Hit::Frames,
                Excess::Bytes => Hit::Bytes,
            });
        }
        flow
    }

    /// Carries out the effects, all of them; returns which frames were settled by that.
    fn carry_out(
        &self,
        turn: &mut Turn<Posted>,
        link: &Arc<ClientLink>,
        session: &Session,
        holder: Holder,
        effects: &mut Effects<'_>,
    ) -> Settled {
        let Shared { router, .. } = &*self.shared;
        let mut settled = Settled::default();
        let mut count = |routed: Routed, bytes| {
            if let Some(one) = routed.settled(bytes) {
                settled.frames += one.frames;
                settled.bytes += one.bytes;
                settled.failed += one.failed;
                settled.full += one.full;
            }
        };
        for effect in effects.drain(..) {
            match effect {
                Effect::Reply(reply) => self.send(turn, link, &reply, Fate::Drop),
                Effect::Deliver { to, text } => {
                    count(router.deliver(turn, to, &text, link, holder), text.len());
                }
                Effect::DeliverAll { group, to, except, text } if to.len() <= members_at_once(text.len()) => {
                    let frame = GroupFrame { group, members: &to, except, text: &text };
                    count(router.deliver_all(turn, &frame, link, holder), text.len());
                }
                effect => self.carry_out_seldom(turn, link, session, holder, effect),
            }
        }
        settled
    }

    /// Carries out an effect that no chat message has. It is apart so that chat messages do not pay for what
    /// this needs.
    #[inline(never)]
    fn carry_out_seldom(
        &self,
        turn: &mut Turn<Posted>,
        link: &Arc<ClientLink>,
        session: &Session,
        holder: Holder,
        effect: Effect<'_>,
    ) {
        let Shared { router, .. } = &*self.shared;
        match effect {
            Effect::Reply(_) | Effect::Deliver { .. } => unreachable!("carried out above"),
            Effect::DeliverAll { group, to, except, text } => {
                let mut spread = Box::new(Spread::new((group, to), except, &text, link.clone(), holder));
                // More than that are left.
                router.spread(turn, &mut spread);
                link.post(Posted::Spread(spread));
            }
            Effect::ReplyAndReport(reply) => {
                self.shared.fetched(&Fetcher { link: link.clone(), holder }, reply.len());
                self.send(turn, link, &reply, Fate::Report(0));
            }
            Effect::Submit(job) => self.shared.submit(job, link, holder, turn.now()),
            Effect::Join(user) => router.join(user, link),
            Effect::Attach(user) => {
                link.set_share(session.payer(holder.source).share());
                router.attach(turn, user, link);
            }
            Effect::Detach(user) => {
                link.set_share(session.payer(holder.source).share());
                router.detach(turn, user, link);
            }
            Effect::DetachAndShow(user) => {
                link.set_share(session.payer(holder.source).share());
                router.detach_and_show(turn, user, link);
            }
            Effect::Show(user) => router.show(user, link),
            Effect::LogOut { user, shows } => {
                for other in router.log_out(turn, user, shows.then_some(link)) {
                    other.post(Posted::LoggedOut(user));
                }
            }
            Effect::ReleaseMailbox(user) => {
                self.shared.release_mailbox(user, &Fetcher { link: link.clone(), holder });
            }
            Effect::WantMailbox(user) => {
                self.shared.ask_for_mailbox(user, &Fetcher { link: link.clone(), holder });
            }
            Effect::Remind(after) => turn.remind(link, after),
            Effect::HangUp => link.hang_up(),
        }
    }

    /// Hands a frame to more members of a large group.
    fn spread_on(&self, turn: &mut Turn<Posted>, link: &Arc<ClientLink>, client: &mut Client, mut spread: Box<Spread>) {
        // Others open their letters between two of an account, however many groups it writes to at once.
        if !turn.has_left(link) {
            return link.post(Posted::Spread(spread));
        }
        let Some(routed) = self.shared.router.spread(turn, &mut spread) else {
            return link.post(Posted::Spread(spread));
        };
        self.feed(turn, link, client, Input::Spread);
        if let Some(settled) = routed.settled(spread.text.len()) {
            self.feed(turn, link, client, Input::Settled(settled));
        }
    }

    /// Closes a connection that is not logged in, with a last word.
    fn turn_away(&self, turn: &mut Turn<Posted>, link: &Arc<ClientLink>, reply: &str) {
        self.send(turn, link, reply, Fate::Drop);
        turn.turn_away(link);
    }

    /// The account of a user of this connection was changed or deleted. A connection that is nobody else's is closed, so that
    /// its client notices.
    fn log_out(&self, turn: &mut Turn<Posted>, link: &Arc<ClientLink>, client: &mut Client, user: UserId) {
        if !client.session.is(Id(user.0.into())) || self.shared.router.is_on(user, link) {
            return;
        }
        self.feed(turn, link, client, Input::LoggedOut(user));
        if client.session.is_logged_in() {
            self.send(turn, link, protocol::ACCOUNT_CHANGED, Fate::Drop);
        } else {
            self.turn_away(turn, link, protocol::ACCOUNT_CHANGED);
        }
    }

    /// A reply is refused only when the client is gone, and then nobody misses it.
    fn send(&self, turn: &mut Turn<Posted>, link: &Arc<ClientLink>, reply: &str, fate: Fate) {
        self.tally.reply(ReplyKind::of(reply));
        let _ = link.send(turn, reply.as_bytes(), fate);
    }
}

/// A session has logged in, has logged out, or has begun.
fn note_login(turn: &mut Turn<Posted>, link: &Arc<ClientLink>, session: &Session, seat: &mut Seat) {
    if session.is_logged_in() {
        seat.becomes_users();
    } else if !session.has_ended()
        && let Some(timeout) = seat.becomes_strangers(Arc::downgrade(link) as _, turn.now())
    {
        turn.remind(link, timeout);
    }
}

impl Handler for Shell {
    type Conn = Client;
    type Arrival = Seat;
    type Message = Posted;

    fn on_arrival(
        &mut self,
        turn: &mut Turn<Posted>,
        peer: SocketAddr,
        preface: Preface,
    ) -> Result<Seat, &'static [u8]> {
        let admission = &self.shared.admission;
        let entered = match preface {
            Preface::ProxyHeader => admission.enter_through(peer, turn.now()),
            Preface::None | Preface::NoProxyHeader => admission.enter(peer, turn.now()),
        };
        entered.map_err(|_| protocol::TURNED_AWAY.as_bytes())
    }

    fn on_introduced(
        &mut self,
        turn: &mut Turn<Posted>,
        seat: Seat,
        client: SocketAddr,
    ) -> Result<Seat, &'static [u8]> {
        seat.for_client(client, turn.now()).map_err(|_| protocol::TURNED_AWAY.as_bytes())
    }

    fn on_open(&mut self, turn: &mut Turn<Posted>, link: &Arc<ClientLink>, mut seat: Seat) -> Client {
        log::debug!("connected: {:?}", link.peer());
        link.set_share(Payer::Address(seat.source()).share());
        let session = Session::new(self.shared.auth);
        note_login(turn, link, &session, &mut seat);
        Client { session, meter: Meter::default(), seat }
    }

    fn on_incoming(
        &mut self,
        turn: &mut Turn<Posted>,
        link: &Arc<ClientLink>,
        client: &mut Client,
        incoming: Incoming<'_>,
    ) -> Flow {
        let (input, len) = match incoming {
            Incoming::Frame(frame) => (Input::Frame(frame), Some(frame.len())),
            Incoming::Likely(frame) => (Input::Likely(frame), Some(frame.len())),
            Incoming::Garbage { len } => (Input::Garbage, Some(len)),
            Incoming::Blanks { len } => return self.count_blanks(turn, link, client, len),
            Incoming::Oversize => (Input::Oversize, None),
            Incoming::Foreign(foreign) => return self.turn_down(turn, link, client, foreign),
            Incoming::End => (Input::End, None),
            Incoming::Stop => (Input::Stop, None),
            Incoming::Crowded => (Input::Crowded, None),
        };
        if let Incoming::Likely(_) = incoming {
            // A refusal would stay one, also if this is but the beginning of a frame that ends when it may pass.
            if !client.meter.has_some() {
                return Flow::NoFrame;
            }
        } else if len.is_some()
            && let Err(refusal) = client.meter.check(turn.now(), self.shared.admission.rates())
        {
            return self.refuse(turn, link, client, refusal);
        }
        let flow = self.feed(turn, link, client, input);
        if let Some(len) = len.filter(|_| matches!(flow, Flow::Taken | Flow::Last)) {
            client.meter.pay(len);
        }
        match (flow, incoming) {
            (Flow::Taken | Flow::Last, Incoming::Frame(_) | Incoming::Likely(_)) => {
                self.tally.frame(client.session.frame_kind());
            }
            (Flow::Taken | Flow::Last, Incoming::Garbage { .. }) => self.tally.frame(FrameKind::INVALID),
            (Flow::Taken, Incoming::Crowded) => client.seat.complain_of_kept(turn.now()),
            (_, Incoming::Blanks { .. } | Incoming::Foreign(_) | Incoming::Oversize | Incoming::End)
            | (_, Incoming::Stop | Incoming::Crowded)
            | (Flow::Later | Flow::NoFrame, _) => {}
        }
        flow
    }

    fn on_kept(&mut self, client: &mut Client, bytes: usize) -> bool {
        client.seat.keep(bytes)
    }

    fn on_sent(&mut self, turn: &mut Turn<Posted>, link: &Arc<ClientLink>, client: &mut Client, _: u32) {
        self.feed(turn, link, client, Input::Sent);
    }

    fn on_message(&mut self, turn: &mut Turn<Posted>, link: &Arc<ClientLink>, client: &mut Client, message: Posted) {
        let input = match message {
            Posted::Outcome(outcome) => Input::Outcome(outcome),
            Posted::Settled(settled) => Input::Settled(settled),
            Posted::Spread(spread) => return self.spread_on(turn, link, client, spread),
            // The client has logged in again since: the logout was of an earlier login.
            Posted::LoggedOut(user) if self.shared.router.is_on(user, link) => return,
            Posted::LoggedOut(user) => Input::LoggedOut(user),
            Posted::AccountChanged(user) => return self.log_out(turn, link, client, user),
            Posted::MailboxWanted => {
                Input::MailboxWanted { now: turn.now(), undelivered_bytes: link.undelivered_bytes() }
            }
            Posted::MakeRoom if client.seat.is_users() => return,
            Posted::MakeRoom => return self.turn_away(turn, link, protocol::MAKE_ROOM),
        };
        self.feed(turn, link, client, input);
    }

    fn on_reminder(&mut self, turn: &mut Turn<Posted>, link: &Arc<ClientLink>, client: &mut Client) {
        if client.seat.is_late(turn.now()) {
            return self.turn_away(turn, link, protocol::LOGIN_LATE);
        }
        self.feed(turn, link, client, Input::Reminder { now: turn.now() });
    }

    fn on_hang_up(&mut self, turn: &mut Turn<Posted>, link: &Arc<ClientLink>, client: &mut Client) {
        self.feed(turn, link, client, Input::HangUp);
    }

    fn on_close(&mut self, turn: &mut Turn<Posted>, link: &Arc<ClientLink>, mut client: Client, reason: CloseReason) {
        log::debug!("closing: {reason:?}");
        self.feed(turn, link, &mut client, Input::Closed);
    }

    fn on_unsent(&mut self, _: &mut Turn<Posted>, label: u32, frame: Box<[u8]>) {
        self.shared.router.give_back(label, frame);
    }

    /// A frame that was begun to be handed out is brought to its end. Of anything else nothing is to be done: a session gives up
    /// its claims before it closes.
    fn on_stray(&mut self, turn: &mut Turn<Posted>, message: Posted) {
        if let Posted::Spread(mut spread) = message {
            // A piece at a time, as if the sender were there.
            if self.shared.router.spread(turn, &mut spread).is_none() {
                let sender = spread.sender.clone();
                sender.post(Posted::Spread(spread));
            }
        }
    }
}

/// What the sessions of a loop may know at once.
struct Facts<'a> {
    shared: &'a Shared,
    link: &'a ClientLink,
    source: Source,
    now: Instant,
}

impl Known for Facts<'_> {
    fn members(&self, group: GroupId) -> Option<Arc<[UserId]>> {
        self.shared.services.groups.members(group, self.now)
    }

    fn is_stranger(&self, user: UserId, group: GroupId) -> bool {
        self.shared.services.groups.is_stranger(user, group, self.now)
    }

    fn groups_change_elsewhere(&self) -> bool {
        self.shared.services.groups.may_be_stale()
    }

    fn login_wait(&self, id: Id) -> Option<u32> {
        let wait = self.shared.admission.login_wait(id, self.source, self.now);
        if wait.is_some() {
            self.shared.services.metrics.login(Login::Delayed);
        }
        wait
    }

    fn recognises(&self, user: UserId, password: &str) -> bool {
        let recognised = self.shared.jobs.logins.passwords.recognises(user, password, self.now);
        if let Some((client, stamp)) = recognised {
            self.shared.jobs.logins.accounts.remembered(user, stamp);
            self.shared.paced.begin(client, self.link);
            self.shared.services.metrics.login(Login::Remembered);
            self.shared.admission.recognised(Id(user.0.into()), self.source);
        }
        recognised.is_some()
    }

    fn is_connected(&self, user: UserId) -> bool {
        self.shared.router.is_connected(user)
    }

    fn is_here(&self, user: UserId) -> bool {
        self.shared.router.is_here(user)
    }

    fn pace(&self) -> Option<Duration> {
        self.link.is_paced().then_some(self.shared.pace)
    }

    fn shown_by(&self) -> Option<Instant> {
        self.shared.services.bus.has_neighbours().then(|| self.now + STATE_PATIENCE)
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Listen(address, error) => {
                write!(f, "cannot listen on {address}: {error}; ")?;
                match error.kind() {
                    io::ErrorKind::AddrInUse => f.write_str("stop the program that uses the port, or choose another"),
                    io::ErrorKind::PermissionDenied => f.write_str("choose a port above 1023"),
                    _ if is_without_ipv6(*address, error) => {
                        f.write_str("this machine has IPv6 switched off: listen on 0.0.0.0, or switch it on")
                    }
                    _ => f.write_str("choose an address of this machine, such as 0.0.0.0"),
                }
            }
            StartError::Resources(error) => write!(f, "the system has no threads or descriptors left: {error}"),
            StartError::PasswordCost(error) => write!(f, "argon2: {error}"),
        }
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            StartError::Listen(_, error) | StartError::Resources(error) => Some(error),
            StartError::PasswordCost(error) => Some(error),
        }
    }
}

/// Whether the kernel has no IPv6 at all, or no IPv6 address.
fn is_without_ipv6(address: SocketAddr, error: &io::Error) -> bool {
    let is_there_always = address.ip().is_unspecified() || address.ip().is_loopback();
    match error.raw_os_error() {
        Some(libc::EAFNOSUPPORT) => address.is_ipv6(),
        Some(libc::EADDRNOTAVAIL) => address.is_ipv6() && is_there_always,
        _ => false,
    }
}

/// One connection to Redis takes more than a node can send; more lanes would only make its batches smaller.
const OUTBOXES: usize = 1;
/// Stored passwords that wait to be replaced; at a few dozen a second, for half a minute or so.
const UPGRADES_MAX: usize = 1000;
/// How long members of a group are believed when nodes of the reference server may change them without a word.
const GROUP_LIFETIME: Duration = Duration::from_secs(5);
/// Messages that one transaction of a lane holds.
const LANE_BATCH_MAX: usize = 4096;
/// What the last messages may still take when the loops have needed all the time there was: until they are confirmed, or
/// late and stored.
const STORE_GRACE: Duration = outbox::CONFIRMED_WITHIN.saturating_add(Duration::from_secs(5));

/// What the shutdown may take beyond all other bounds before the process ends without what it waits for.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod simulation;
