//! [`Server`]: a server that listens, from its start to its end. Only `main.rs` calls it.
//!
//! - `shell` is the handler of an event loop: it feeds events to the sessions and carries out their
//!   effects. `facts` are the facts that sessions may read at once.
//! - `dispatch` chooses the thread of a job: `hashing` has the queue of passwords, `fetching` the
//!   mailboxes. [`jobs`] is the work of the threads, and `answer` returns results to sessions.
//! - `wiring` puts the parts together, for the simulation too.
//! - [`administration`] carries out administrators' requests on the admin port, [`offline`] on the
//!   database of a server that does not run.
//! - `sweep` finds news that the bus has lost, and `retention` deletes old messages.
//! - [`accounts`] logs out users whose accounts were changed, by the `stamps` that logins note.
//!   [`foreign`] answers clients that speak another protocol.

pub mod accounts;
pub mod administration;
mod answer;
mod dispatch;
mod error;
mod facts;
mod fetching;
pub mod foreign;
mod hashing;
mod http_client;
mod importing;
pub mod jobs;
mod jwt_attempt;
mod members;
pub mod offline;
mod places;
mod plaintext;
mod posting;
mod retention;
mod shell;
mod stamps;
mod sweep;
mod traced;
mod wiring;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use net::{Acceptor, ListenSettings, LoopGroup, Preface, Stopper};
use pool::Workers;

use self::accounts::Checker;
use self::administration::{Administration, AdministrationParts, Announcements, NodeParts, TraceParts};
pub use self::error::StartError;
use self::retention::Retirer;
use self::shell::Shell;
use self::sweep::Sweeper;
use self::wiring::{Equipment, PortTls, ServerParts, settings};
use crate::base::clock::Clock;
use crate::base::threads::SystemThreads;
use crate::bus::{Bus, CONFIRMED_WITHIN};
use crate::config::{Config, Networks, TlsUse};
use crate::delivery::Posted;
use crate::hooks::poster::{HookControl, Poster};
use crate::metrics::Metrics;
use crate::operation::certificates::CertificateFiles;
use crate::operation::health::Health;
use crate::operation::jwt_key_file::JwtKeyFile;
use crate::operation::logging::{self, LogControl};
use crate::operation::reload::Reloader;
use crate::operation::resources;
use crate::routing::outbox::ENVELOPE_BYTES_MAX;
use crate::routing::services::Services;
use crate::store::Store;
use crate::store::spool::Spool;

/// A listening server.
pub struct Server {
    acceptor: Acceptor,
    local_addr: SocketAddr,
    /// The peers that must begin with a PROXY header, if any.
    proxies: Option<Networks>,
    loops: LoopGroup<Posted>,
    shared: Arc<ServerParts>,
    checker: Checker,
    sweeper: Sweeper,
    /// The thread that deletes old messages.
    retirer: Option<Retirer>,
    /// The thread that posts to the hook.
    poster: Option<Poster>,
    certificates: Option<Arc<CertificateFiles>>,
    jwt_keys: Option<Arc<JwtKeyFile>>,
    drain_rate: u32,
    drain_timeout: Duration,
}

/// The manner in which a server has stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Stopped {
    /// Everything accepted was delivered or stored.
    Clean,
    /// This number of messages wait in the spool for the next start, because the database is
    /// unavailable. Everything else was delivered or stored.
    Spooled(usize),
    /// This number of messages could not be stored in time.
    Left(usize),
    /// The server stopped by itself: the file of the store or of the spool was moved, replaced or
    /// deleted. Its content was saved beside it, if that was possible.
    Lost,
}

impl Server {
    /// Starts everything and listens; [`Server::run`] accepts connections.
    ///
    /// # Errors
    ///
    /// [`StartError`]; then nothing keeps running except threads that wait for work.
    pub fn bind(config: &Config, store: Store, spool: Arc<dyn Spool>, bus: Arc<dyn Bus>) -> Result<Server, StartError> {
        let files = config.tls_files();
        let certificates = match files.is_empty() {
            true => None,
            false => Some(Arc::new(CertificateFiles::open(&files).map_err(StartError::Certificates)?)),
        };
        let jwt_keys = JwtKeyFile::open(&config.jwt).map_err(StartError::JwtKeys)?.map(Arc::new);
        let jwt = jwt_keys.as_ref().map(|file| file.verifier());
        let listen = ListenSettings { backlog: config.backlog, user_timeout: config.user_timeout };
        let mut acceptor =
            Acceptor::bind(config.listen.0, listen).map_err(|error| StartError::Listen(config.listen.0, error))?;
        let local_addr = acceptor.local_addr().map_err(StartError::Resources)?;
        let (clients, sockets) = resources::descriptors_for_clients(config);
        acceptor.set_sockets_max(sockets);
        let upgrader = Workers::start_in_background("upgrader", 1, UPGRADES_MAX).map_err(StartError::Resources)?;
        let tls =
            certificates.as_ref().map(|files| PortTls { tls: files.tls(), is_required: config.tls == TlsUse::Require });
        let equipment = Equipment {
            tls,
            descriptors: clients,
            upgrader: Some(upgrader),
            jwt,
            envelope_bytes_max: ENVELOPE_BYTES_MAX,
        };
        let services = Services::new(config, store, spool, bus, Clock::default());
        let (shared, _) = ServerParts::assemble(config, services, equipment, &mut SystemThreads)?;
        shared.show();
        let shared = Arc::new(shared);
        let metrics = &shared.metrics;
        let shell = |nth| Shell::new(shared.clone(), metrics.of_loop(nth));
        let loops = LoopGroup::start(config.loops, settings(config), shell).map_err(StartError::Resources)?;
        metrics.watch_loops(loops.watches());
        if let Some(files) = certificates.clone() {
            metrics.watch_tls(files.tls(), move || files.left(SystemTime::now()));
        }
        let checker = Checker::start(shared.of_checker(), config.account_check).map_err(StartError::Resources)?;
        let sweeper = Sweeper::start(shared.conversations.clone(), shared.bell()).map_err(StartError::Resources)?;
        let retirer = shared.of_retirer(config).map(Retirer::start).transpose().map_err(StartError::Resources)?;
        let poster = shared.start_poster(config).map_err(StartError::Resources)?;
        let proxies = config.proxy_protocol.then(|| config.proxy_from.clone());
        let (drain_rate, drain_timeout) = (config.drain_rate, config.drain_timeout);
        Ok(Server {
            acceptor,
            local_addr,
            proxies,
            loops,
            shared,
            checker,
            sweeper,
            retirer,
            poster,
            certificates,
            jwt_keys,
            drain_rate,
            drain_timeout,
        })
    }

    /// The address on which it listens, with the port that the system chose if 0 was requested.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The certificates of the client port, to be reloaded, if it uses TLS.
    pub fn certificates(&self) -> Option<Arc<CertificateFiles>> {
        self.certificates.clone()
    }

    /// The keys of JSON web tokens, to be reloaded, if users may log in with them.
    pub fn jwt_keys(&self) -> Option<Arc<JwtKeyFile>> {
        self.jwt_keys.clone()
    }

    /// The way to change the settings of the hook, if there is one.
    pub fn hook(&self) -> Option<Arc<HookControl>> {
        self.poster.as_ref().map(Poster::control)
    }

    /// The counters.
    pub fn metrics(&self) -> Arc<Metrics> {
        self.shared.metrics.clone()
    }

    /// The health, without results until [`Checks`](crate::operation::health::Checks) are started.
    pub fn health(&self) -> Health {
        Health::new(self.loops.watches(), self.shared.recorder.as_ref().map(|recorder| recorder.watch()))
    }

    /// The part of the admin port that carries out administrators' requests.
    pub fn administration(
        &self,
        config: &Config,
        health: Arc<Health>,
        log: LogControl,
        reloader: Reloader,
    ) -> Administration {
        Administration::new(AdministrationParts {
            jobs: Arc::downgrade(&self.shared.jobs),
            node: Some(NodeParts {
                router: Arc::downgrade(&self.shared.router),
                recorder: self.shared.recorder.as_ref().map(Arc::downgrade),
                loops: self.loops.watches(),
                name: logging::node_name(config),
                health,
                log,
                reloader,
                announcements: Announcements::default(),
                trace: TraceParts {
                    tracer: self.shared.tracer.clone(),
                    spool: Arc::downgrade(&self.shared.spool),
                    nodes: config.admin_nodes.0.clone(),
                    instance: (0..2).map(|_| format!("{:016x}", getrandom::u64().unwrap_or_default())).collect(),
                },
            }),
        })
    }

    /// Has `stop` called if the store's or the spool's file is removed.
    pub fn when_lost(&self, stop: impl Fn() + Clone + Send + Sync + 'static) {
        self.shared.database.on_lost(Box::new(stop.clone()));
        self.shared.spool.on_lost(Box::new(stop));
    }

    /// Stops [`Server::run`] from any thread.
    pub fn stopper(&self) -> Stopper {
        self.acceptor.stopper()
    }

    /// Returns a function for the longest time that [`Server::run`] may take after it stops
    /// accepting: the time for closing the connections of the fullest loop, `drain_timeout`, the
    /// time for the last messages, and a grace.
    pub fn shutdown_limit(&self) -> impl Fn() -> Duration + Clone + Send + 'static {
        let (loops, rate, timeout) = (self.loops.watches(), self.drain_rate, self.drain_timeout);
        move || {
            let fullest = loops.iter().map(|watch| watch.stats().open()).max().unwrap_or(0);
            let seconds = (fullest * loops.len() as u64).div_ceil(rate.into());
            Duration::from_secs(seconds) + timeout + STORE_GRACE + SHUTDOWN_GRACE
        }
    }

    /// Accepts and serves until stopped. Then closes the connections one after the other, finishes
    /// everything received, writes and stores everything, marks the users offline, and returns. It
    /// returns at most about the drain timeout after the last connection was told to close.
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
        let unknown = shared.metrics.unknown_recipients_so_far();
        log::info!("messages for unknown recipients: {unknown}");
        let by = by.max(Instant::now() + STORE_GRACE);
        let unrecorded = shared.recorder.as_ref().map_or(0, |recorder| recorder.close(by));
        let left = unrecorded + shared.router.close(by) + shared.metrics.unstored_now();
        // The client that sent the request has gone.
        if let Some(upgrader) = shared.jobs.logins.upgrader.lock().take() {
            upgrader.close(by);
        }
        self.checker.close(by);
        self.sweeper.close(by);
        if let Some(retirer) = self.retirer {
            retirer.close(by);
        }
        if let Some(poster) = self.poster {
            poster.close(by);
        }
        shared.dispatch.close(by);
        let spooled = shared.spool.load();
        if spooled.messages > 0 {
            log::warn!("{spooled} wait in the spool for the database: start the server again in the same folder");
        }
        let is_lost = shared.database.is_lost() || shared.spool.is_lost();
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

/// Whether a connection from this address begins with a header. Clients may also bypass the proxy,
/// under their own address.
fn preface(proxies: Option<&Networks>, peer: SocketAddr) -> Preface {
    match proxies {
        None => Preface::None,
        Some(proxies) if proxies.contains(peer.ip()) => Preface::ProxyHeader,
        Some(_) => Preface::NoProxyHeader,
    }
}

/// The most stored passwords that wait to be upgraded; at a few dozen per second, about half a
/// minute.
const UPGRADES_MAX: usize = 1000;
/// The time for the last messages after the loops have used all of theirs: until they are
/// confirmed, or late and stored.
const STORE_GRACE: Duration = CONFIRMED_WITHIN.saturating_add(Duration::from_secs(5));
/// The time that shutdown may take beyond all other bounds before the process exits without
/// completing it.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod simulation;
