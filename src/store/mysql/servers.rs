//! [`MysqlServers`]: the servers that `mysql.cnf` lists, and the one of them in use.
//!
//! With one server, every connection leads there, whatever it reports (`dial.rs`). With several,
//! all connections lead to one of them that takes writes:
//!
//! ```text
//!   in use ── no connection, no answer, takes no writes ──▶ sought ── all are asked at once (choice.rs) ──▶ in use
//! ```
//! Scouts ask: a thread for each server, within the short timeouts of a check. So a frozen server
//! delays nobody longer than the others need. When another server comes into use, the connections
//! to the old one are given up: it may still answer, but lag.
//!
//! While the server in use works, all servers are asked every ten seconds. If another one takes
//! writes too, that is reported, because the data of two primaries diverge. A Galera node is left
//! for an earlier one of the list that has worked for a while, so that all nodes of this server
//! meet on the same one: writes through two of them conflict.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use mysql::{Conn, OptsBuilder};
use parking_lot::Mutex;

use super::choice::{self, ServerAnswer};
use super::dial::{MysqlDialer, PacketLimits};
use super::{error, probe};
use crate::config::ServerAddress;

/// The way to the database. Clones share what is known about the servers.
#[derive(Clone)]
pub(super) struct MysqlServers {
    /// The dialers, in the order of the list.
    dialers: Vec<MysqlDialer>,
    shared: Arc<ServersCore>,
}

struct ServersCore {
    names: Vec<String>,
    scouts: Vec<Scout>,
    /// A leaf lock.
    used: Mutex<Used>,
    /// Held during a search, for seconds at most, so that the next caller finds its result.
    seeking: Mutex<()>,
    /// Called when another server comes into use, while only this lock is held.
    on_move: Mutex<Option<Box<dyn Fn() + Send>>>,
}

/// A way to ask one of the servers.
struct Scout {
    dialer: MysqlDialer,
    /// The receivers of the report of the scout under way, if there is one. It may wait long for a
    /// name server, and then no second scout is sent: the next caller gets the same report.
    awaited: Arc<Mutex<Option<Vec<Sender<ScoutReport>>>>>,
}

#[derive(Clone, Copy, Default)]
struct Used {
    /// The server that connections lead to; `None` during a search.
    server: Option<usize>,
    /// The previous server, or the same.
    last: Option<usize>,
    /// The number of times that another server came into use.
    moves: u64,
    /// The number of times that a server could not be used any more.
    losses: u64,
}

/// The scouts under way.
pub(super) struct Scouting {
    reports: Receiver<ScoutReport>,
    answers: Vec<Option<ServerAnswer>>,
    /// Errors that say more than that a server cannot be used: the password is wrong, say.
    telling: Vec<mysql::Error>,
    since: Instant,
}

/// A scout's findings about a server.
struct ScoutReport {
    server: usize,
    answer: ServerAnswer,
    telling: Option<mysql::Error>,
}

impl MysqlServers {
    /// The ways to these servers, with `opts` for connections. Scouts use `opts` too, so these must
    /// have short timeouts.
    pub(super) fn new(servers: &[ServerAddress], opts: &OptsBuilder, limits: &PacketLimits) -> MysqlServers {
        let dialer = |server| MysqlDialer::new(opts.clone(), server, limits.clone());
        let dialers: Vec<MysqlDialer> = match servers {
            [only] => vec![dialer(only)],
            several => several.iter().map(|server| dialer(server).one_of_several()).collect(),
        };
        let scouts = dialers.iter().map(|dialer| Scout { dialer: dialer.clone(), awaited: Arc::default() }).collect();
        let shared = ServersCore {
            names: servers.iter().map(ServerAddress::to_string).collect(),
            scouts,
            used: Mutex::default(),
            seeking: Mutex::default(),
            on_move: Mutex::default(),
        };
        MysqlServers { dialers, shared: Arc::new(shared) }
    }

    /// The same servers with other options.
    pub(super) fn with(&self, opts: &OptsBuilder) -> MysqlServers {
        let dialers = self.dialers.iter().map(|dialer| dialer.with(opts.clone())).collect();
        MysqlServers { dialers, shared: self.shared.clone() }
    }

    /// Has `moved` called when another server comes into use: connections to the old one must not
    /// be used any more.
    pub(super) fn on_move(&self, moved: impl Fn() + Send + 'static) {
        *self.shared.on_move.lock() = Some(Box::new(moved));
    }

    pub(super) fn are_several(&self) -> bool {
        self.dialers.len() > 1
    }

    /// The number of times that another server came into use.
    pub(super) fn moves(&self) -> u64 {
        self.shared.used.lock().moves
    }

    /// The number of times that one of several servers could not be used any more, so that another
    /// one was taken. Later answers of such a server may be about lost data.
    pub(super) fn losses(&self) -> u64 {
        if self.are_several() { self.shared.used.lock().losses } else { 0 }
    }

    /// The server in use, if there are several and it is not being looked for.
    pub(super) fn in_use(&self) -> Option<&str> {
        let server = self.shared.used.lock().server?;
        Some(&self.shared.names[server])
    }

    /// Opens a connection. Blocks, within the bounds of the options for each address, and of
    /// scouts.
    ///
    /// # Errors
    /// That of the server, or [`NoChoice`](super::choice::NoChoice) in an [`io::Error`] if none of
    /// several can be used.
    pub(super) fn connect(&self) -> mysql::Result<Conn> {
        if let [only] = &self.dialers[..] {
            return only.connect();
        }
        let mut is_again = false;
        loop {
            let server = self.shared.server_in_use()?;
            match self.dialers[server].connect() {
                Err(error) if error::is_of_server(&error) && !is_again => self.shared.leave(server),
                done => return done,
            }
            is_again = true;
        }
    }

    /// Notes that the server in use cannot do what is needed: the next call searches for another
    /// one, or for another address of the only one.
    pub(super) fn move_on(&self) {
        if let [only] = &self.dialers[..] {
            return only.move_on();
        }
        self.shared.used.lock().server = None;
    }

    /// Begins to ask all servers, if there are several. [`MysqlServers::review`] takes the answers.
    pub(super) fn scout(&self) -> Option<Scouting> {
        self.are_several().then(|| self.shared.scout())
    }

    /// The result of the answers while the server in use works: the other servers that take writes,
    /// and an earlier node of its Galera cluster, if any. `None`: some may still answer.
    pub(super) fn review(&self, scouting: &mut Scouting) -> Option<Review> {
        scouting.take_reports();
        if !scouting.is_over() {
            return None;
        }
        let Some(used) = self.shared.used.lock().server else { return Some(Review::default()) };
        let answers = scouting.answers();
        Some(Review {
            rivals: choice::rivals(&self.shared.names, &answers, used),
            home: choice::home(&answers, used),
            refuge: choice::refuge(&answers, used),
        })
    }

    /// Uses this server from now on, which is another one of the same cluster.
    pub(super) fn change_over(&self, server: usize, why: &str) {
        self.shared.take(server, why);
    }
}

/// See [`MysqlServers::review`].
#[derive(Default)]
pub(super) struct Review {
    pub(super) rivals: Vec<String>,
    pub(super) home: Option<usize>,
    /// Another node of the cluster, if the one in use is behind.
    pub(super) refuge: Option<usize>,
}

impl ServersCore {
    /// The server in use; searches for one if there is none.
    fn server_in_use(&self) -> mysql::Result<usize> {
        let used = || self.used.lock().server;
        if let Some(server) = used() {
            return Ok(server);
        }
        let seeking = self.seeking.lock();
        // The previous caller may have found one.
        if let Some(server) = used() {
            return Ok(server);
        }
        let last = self.used.lock().last;
        let mut scouting = self.scout();
        scouting.wait(last);
        let answers = scouting.answers();
        let found = choice::choose(&self.names, &answers, last);
        if let Ok(server) = found {
            self.take(server, last.map_or("", |last| answers[last].cause()));
            // Counted after the move: a caller that has read the new number gets no connection from
            // before the move.
            self.used.lock().losses += u64::from(last.is_some_and(|last| last != server));
        }
        drop(seeking);
        found.map_err(|none| {
            // If one is down, another one's error must not hide that.
            let is_told_by_all = scouting.telling.len() == self.names.len();
            match scouting.telling.into_iter().next() {
                Some(telling) if is_told_by_all => telling,
                _ => io::Error::other(none).into(),
            }
        })
    }

    /// Gives up the server, unless another one is in use already.
    fn leave(&self, server: usize) {
        let mut used = self.used.lock();
        used.server = used.server.filter(|now| *now != server);
    }

    fn take(&self, server: usize, why: &str) {
        let mut used = self.used.lock();
        let before = used.last.replace(server);
        used.server = Some(server);
        let moves = before.is_some_and(|before| before != server);
        used.moves += u64::from(moves);
        drop(used);
        let Some(before) = before.filter(|_| moves) else { return };
        log::warn!("the database is {} from now on; {} is left: {why}", self.names[server], self.names[before]);
        if let Some(moved) = &*self.on_move.lock() {
            moved();
        }
    }

    fn scout(&self) -> Scouting {
        let (tell, reports) = bounded(self.scouts.len());
        let answers = self.scouts.iter().enumerate().map(|(server, scout)| scout.send(server, &tell).err()).collect();
        Scouting { reports, answers, telling: Vec::new(), since: Instant::now() }
    }
}

impl Scout {
    /// Starts a thread that asks the server.
    ///
    /// # Errors
    /// No thread could be started, so the server counts as unfit.
    fn send(&self, server: usize, tell: &Sender<ScoutReport>) -> Result<(), ServerAnswer> {
        {
            let mut awaited = self.awaited.lock();
            if let Some(receivers) = &mut *awaited {
                // Earlier ones than these have stopped waiting.
                if receivers.len() >= RECEIVERS_MAX {
                    receivers.remove(0);
                }
                receivers.push(tell.clone());
                return Ok(());
            }
            *awaited = Some(vec![tell.clone()]);
        }
        let (dialer, awaited) = (self.dialer.clone(), self.awaited.clone());
        let run = move || {
            let asked = catch_unwind(AssertUnwindSafe(|| ask(&dialer)));
            let mut receivers = awaited.lock().take().unwrap_or_default();
            let (answer, telling) =
                asked.unwrap_or_else(|_| (ServerAnswer::Unfit("the driver panicked".to_owned()), None));
            // Receivers may have stopped waiting. An error has no copies: the newest one gets it.
            let newest = receivers.pop();
            for receiver in receivers {
                let _ = receiver.send(ScoutReport { server, answer: answer.clone(), telling: None });
            }
            let _ = newest.map(|newest| newest.send(ScoutReport { server, answer, telling }));
        };
        let spawned = thread::Builder::new().name("mysql-scout".to_owned()).spawn(run);
        spawned.map(drop).map_err(|error| {
            *self.awaited.lock() = None;
            ServerAnswer::Unfit(format!("the system has no thread left: {error}"))
        })
    }
}

fn ask(dialer: &MysqlDialer) -> (ServerAnswer, Option<mysql::Error>) {
    let asked = dialer.connect_and_ask().and_then(|(mut connection, duty)| {
        match probe::look(&mut connection) {
            // Errors of the tables or the rights are the same on every server, and are reported
            // elsewhere.
            Err(error) if error::is_of_server(&error) => Err(error),
            _ => Ok(duty),
        }
    });
    match asked {
        Ok(duty) => (ServerAnswer::Fit(duty), None),
        Err(error) => {
            let cause = error::text(&error);
            (ServerAnswer::Unfit(cause), Some(error).filter(|error| !error::is_of_server(error)))
        }
    }
}

impl Scouting {
    fn is_over(&self) -> bool {
        self.since.elapsed() >= ANSWER_PATIENCE || self.answers.iter().all(Option::is_some)
    }

    fn take_reports(&mut self) {
        while let Ok(report) = self.reports.try_recv() {
            self.note(report);
        }
    }

    fn note(&mut self, ScoutReport { server, answer, telling }: ScoutReport) {
        self.answers[server] = Some(answer);
        self.telling.extend(telling);
    }

    /// Waits until the choice is clear. If the previous server is not chosen, that is when all have
    /// answered, or shortly after the first one that takes writes.
    fn wait(&mut self, last: Option<usize>) {
        let mut until = self.since + ANSWER_PATIENCE;
        while !self.is_over() {
            let Ok(report) = self.reports.recv_deadline(until) else { return };
            if matches!(report.answer, ServerAnswer::Fit(_)) {
                if Some(report.server) == last && !report.answer.is_behind() {
                    until = Instant::now();
                }
                until = until.min(Instant::now() + OTHERS_PATIENCE);
            }
            self.note(report);
        }
    }

    /// The answers so far. A server without an answer is unfit.
    fn answers(&self) -> Vec<ServerAnswer> {
        let silent = || ServerAnswer::Unfit(NO_ANSWER.to_owned());
        self.answers.iter().map(|answer| answer.clone().unwrap_or_else(silent)).collect()
    }
}

/// The longest wait for the answers of all servers.
const ANSWER_PATIENCE: Duration = Duration::from_millis(2500);

/// The wait for the others after one takes writes. A second one that does so too is noticed in time
/// then.
const OTHERS_PATIENCE: Duration = Duration::from_millis(500);

/// The most receivers of one report: a review of all servers, a search, and searches that may have
/// stopped waiting.
const RECEIVERS_MAX: usize = 8;

const NO_ANSWER: &str = "no answer in time";

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_search_hears_the_scout_that_is_under_way_already() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let server = || ServerAddress { host: "127.0.0.1".to_owned(), port };
        let servers = MysqlServers::new(&[server(), server()], &OptsBuilder::new(), &PacketLimits::new());
        let mut scoutings = [(); 3].map(|()| servers.scout().expect("there are several servers"));
        // The scouts wait for a greeting until their connections end.
        let accepted = [(); 2].map(|()| listener.accept().expect("a scout comes"));
        drop((listener, accepted));
        scoutings[1..].iter_mut().for_each(|scouting| scouting.wait(None));
        for scouting in &scoutings[1..] {
            let answers = scouting.answers();
            let is_told = |answer: &ServerAnswer| matches!(answer, ServerAnswer::Unfit(cause) if cause != NO_ANSWER);
            assert!(answers.iter().all(is_told), "{answers:?}");
        }
    }
}
