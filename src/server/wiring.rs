//! Puts the parts of a server together: for the program, with threads, and for the simulation,
//! without.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use net::{Settings, Tls};
use pool::Workers;

use super::accounts::CheckerParts;
use super::dispatch::Dispatch;
use super::error::StartError;
use super::fetching::Fetching;
use super::hashing::Hashing;
use super::jobs::{
    ArrangementParts, Arrangements, CommunityRules, ConversationParts, Conversations, DeviceRules, Directory,
    GroupDoor, GroupRoom, Jobs, JwtLogins, Limits, LoginJobs, Mail, Postbox,
};
use super::plaintext::PlainPasswords;
use super::retention::{self, RetirerParts};
use super::stamps::AccountStamps;
use super::sweep::SweepBell;
use crate::admission::requests::Requests;
use crate::admission::{self, Admission};
use crate::base::threads::Threads;
use crate::base::trace::Tracer;
use crate::bus::ReferenceNodes;
use crate::config::{Auth, Config, FriendsBecome, GroupHistory, GroupJoin, Paced, RecordingScope};
use crate::history::pump::PumpLimits;
use crate::hooks::poster::{HookSettings, Poster, PosterParts};
use crate::metrics::Metrics;
use crate::protocol::{self, level2};
use crate::routing::assembly::Routes;
use crate::routing::audience::Audience;
use crate::routing::blocks::Blocks;
use crate::routing::groups::GroupCache;
use crate::routing::level1_seen::Level1Seen;
use crate::routing::recorder::{HookedMessages, Recorder, RecorderParts};
use crate::routing::router::Router;
use crate::routing::services::Services;
use crate::session::jwt::JwtVerifier;
use crate::session::password::Passwords;
use crate::store::Database;
use crate::store::community::{FriendPolicy, Visible};
use crate::store::history::{CommitRules, HistoryRole};
use crate::store::hooks::HookRole;
use crate::store::spool::Spool;
use crate::web::site::WebSettings;

/// The parts of a server that all loops share.
pub(super) struct ServerParts {
    pub(super) auth: Auth,
    pub(super) pace: Duration,
    pub(super) metrics: Arc<Metrics>,
    /// Traces the ways of messages.
    pub(super) tracer: Arc<Tracer>,
    pub(super) groups: Arc<GroupCache>,
    pub(super) reference_nodes: Arc<dyn ReferenceNodes>,
    pub(super) database: Arc<dyn Database>,
    /// The conversations in the database.
    pub(super) history: HistoryRole,
    /// The queue of the hook.
    pub(super) hooks: HookRole,
    pub(super) spool: Arc<dyn Spool>,
    pub(super) jobs: Arc<Jobs>,
    pub(super) router: Arc<Router>,
    pub(super) admission: Arc<Admission>,
    pub(super) dispatch: Dispatch,
    /// The users of level 2.
    pub(super) audience: Arc<Audience>,
    /// The pairs of a user and one whom the user has blocked.
    pub(super) blocks: Arc<Blocks>,
    /// The users who still use level 1.
    pub(super) level1_seen: Arc<Level1Seen>,
    /// Carries out the requests of connections of level 2.
    pub(super) conversations: Arc<Conversations>,
    /// Commits messages; `None` if the tables have no conversations.
    pub(super) recorder: Option<Arc<Recorder>>,
    /// The settings of HTTP.
    pub(super) site: WebSettings,
    /// The limits of a connection of level 2.
    pub(super) pump_limits: PumpLimits,
    /// The TLS of the port, if it uses TLS.
    pub(super) tls: Option<PortTls>,
    /// The number of connections that were opened. It is in separate memory, because every frame
    /// reads the other fields, which nobody writes.
    pub(super) connections_opened: Box<AtomicU32>,
}

/// The TLS of the port.
pub(super) struct PortTls {
    pub(super) tls: Arc<Tls>,
    /// Whether clients of other machines must use it.
    pub(super) is_required: bool,
}

/// The parts that an assembly gets besides its services.
pub(super) struct Equipment {
    /// The TLS of the port, if it uses TLS.
    pub(super) tls: Option<PortTls>,
    /// The number of descriptors for clients.
    pub(super) descriptors: usize,
    /// The workers that upgrade stored passwords, if any.
    pub(super) upgrader: Option<Workers>,
    /// Checks JSON web tokens, if users may log in with them.
    pub(super) jwt: Option<Arc<JwtVerifier>>,
    /// The most text in one envelope to another node.
    pub(super) envelope_bytes_max: usize,
}

impl ServerParts {
    /// Starts the lanes, the bus and the workers.
    ///
    /// # Errors
    /// When the system has no thread left, or passwords cannot be hashed at this cost.
    pub(super) fn assemble(
        config: &Config,
        services: Services,
        equipment: Equipment,
        threads: &mut impl Threads,
    ) -> Result<(ServerParts, Routes), StartError> {
        let passwords = passwords(config)?;
        let conversations = Arc::new(conversations(config, &services, &passwords));
        let jobs = jobs(config, &services, (equipment.upgrader, equipment.jwt), (&conversations, passwords));
        let routes = Routes::start(&services, equipment.envelope_bytes_max, threads).map_err(StartError::Resources)?;
        let router = routes.router.clone();
        let workers = threads.workers("worker", config.workers, config.requests_max + config.workers);
        let requests = Requests::new(workers.map_err(StartError::Resources)?, config.workers, config.requests_max);
        let requests = Arc::new(requests);
        let hashers = threads.workers_in_background("hasher", config.hashers, admission::places(config));
        let hashing = Hashing::new(hashers.map_err(StartError::Resources)?, config.hashers);
        conversations.attach(&router);
        jobs.arrangements.attach(&router);
        let recorder = recorder(config, &services, &router, threads).map_err(StartError::Resources)?;
        let Services { store, spool, bus, clock, groups, audience, blocks, level1_seen, metrics, tracer, .. } =
            services;
        let admission = Admission::new(config, equipment.descriptors, metrics.clone(), clock).traced_by(tracer.clone());
        let admission = Arc::new(admission);
        attach_logins(&jobs.logins, &router);
        let shared = ServerParts {
            auth: config.auth,
            pace: config.pace,
            dispatch: Dispatch {
                jobs: jobs.clone(),
                metrics: metrics.clone(),
                admission: admission.clone(),
                fetching: Fetching::new(config, router.clone(), requests.clone(), jobs.clone(), metrics.clone()),
                requests,
                hashing,
                paced: config.paced,
                plain_passwords: PlainPasswords::default(),
            },
            metrics,
            tracer,
            groups,
            audience,
            blocks,
            level1_seen,
            conversations,
            recorder,
            site: WebSettings::new(config),
            pump_limits: PumpLimits { output_high: config.output_bytes_max / 4, inflight: config.inflight_max },
            reference_nodes: bus,
            database: store.database,
            history: store.history,
            hooks: store.hooks,
            spool,
            jobs,
            router,
            admission,
            tls: equipment.tls,
            connections_opened: Box::default(),
        };
        Ok((shared, routes))
    }

    /// The bell that wakes the sweeper.
    pub(super) fn bell(&self) -> Arc<SweepBell> {
        let bell = Arc::new(SweepBell::default());
        let ringing = bell.clone();
        self.router.when_missed(move || ringing.ring());
        bell
    }

    /// The parts of the thread that compares accounts.
    pub(super) fn of_checker(&self) -> CheckerParts {
        let Jobs { logins, outages, metrics, .. } = &*self.jobs;
        CheckerParts {
            store: logins.store.clone(),
            stamps: logins.stamps.clone(),
            passwords: logins.passwords.clone(),
            outages: outages.clone(),
            metrics: metrics.clone(),
        }
    }

    /// The parts of the thread that deletes old messages, if there is such a thread.
    pub(super) fn of_retirer(&self, config: &Config) -> Option<RetirerParts> {
        let rules = retention::rules(config)?;
        Some(RetirerParts {
            history: self.history.clone(),
            rules,
            outages: self.jobs.outages.clone(),
            metrics: self.metrics.clone(),
        })
    }

    /// Starts the thread that posts to the hook, if there is a hook.
    pub(super) fn start_poster(&self, config: &Config) -> io::Result<Option<Poster>> {
        let Some(settings) = HookSettings::of(config) else { return Ok(None) };
        if let Ok(None) = self.hooks.get() {
            log::warn!(
                "the tables have no queue for the hook: nothing is posted until the tables are migrated and this server \
                 is started again"
            );
        }
        let parts = PosterParts {
            hooks: self.hooks.clone(),
            history: self.history.clone(),
            outages: self.jobs.outages.clone(),
            metrics: self.metrics.clone(),
        };
        Poster::start(parts, settings).map(Some)
    }

    /// Has the metrics show the lanes, the spool and the queues.
    pub(super) fn show(&self) {
        let metrics = &self.metrics;
        self.router.watched_by(metrics);
        if let Some(recorder) = &self.recorder {
            metrics.watch_lanes("recorder", recorder.watch());
        }
        let router = Arc::downgrade(&self.router);
        metrics.watch_devices(move || router.upgrade().map_or(0, |router| router.attendance().device_count()));
        let spool = Arc::downgrade(&self.spool);
        metrics.watch_spool(move || spool.upgrade().map(|spool| spool.load()).unwrap_or_default());
        metrics.watch_queue("worker", self.dispatch.requests.watch());
        let watch = self.dispatch.hashing.watch();
        metrics.watch_queue("hasher", move || watch.waiting());
    }
}

fn passwords(config: &Config) -> Result<Arc<Passwords>, StartError> {
    let cost = config.password_cost;
    let passwords = Passwords::new(cost.memory_kib, cost.passes, cost.lanes, config.password_memory);
    Ok(Arc::new(passwords.map_err(StartError::PasswordCost)?))
}

/// The work on the database without connected users.
///
/// # Errors
/// Passwords cannot be hashed at this cost.
pub(super) fn jobs_alone(config: &Config, services: &Services) -> Result<Arc<Jobs>, StartError> {
    let passwords = passwords(config)?;
    let conversations = Arc::new(conversations(config, services, &passwords));
    Ok(jobs(config, services, (None, None), (&conversations, passwords)))
}

/// When another node logs a user out of everything, this node no longer accepts the remembered
/// password.
fn attach_logins(logins: &LoginJobs, router: &Arc<Router>) {
    logins.stamps.attach(router);
    let (passwords, stamps) = (logins.passwords.clone(), logins.stamps.clone());
    router.when_logged_out(move |user| {
        passwords.forget(user);
        stamps.log_out(user);
    });
}

fn jobs(
    config: &Config,
    services: &Services,
    (upgrader, jwt): (Option<Workers>, Option<Arc<JwtVerifier>>),
    (conversations, passwords): (&Arc<Conversations>, Arc<Passwords>),
) -> Arc<Jobs> {
    let Services { store, bus, clock, groups, audience, level1_seen, quotas, metrics, outages, .. } = services;
    let limits = Limits { search_results_max: config.search_results_max, group_members_max: config.group_members_max };
    let proofs = (passwords, conversations.stamps().clone());
    let logins = LoginJobs::new(store.accounts.clone(), bus.clone(), clock.clone(), proofs, upgrader);
    let roles = (store.accounts.clone(), store.history.clone());
    let jwt = Arc::new(JwtLogins::new(jwt, roles));
    let group_room =
        GroupRoom { contacts: store.contacts.clone(), metrics: metrics.clone(), groups_max: config.groups_max };
    let arrangements = ArrangementParts {
        group_room: group_room.clone(),
        jwt: jwt.clone(),
        community: store.community.clone(),
        accounts: store.accounts.clone(),
        passwords: logins.passwords.clone(),
        stamps: logins.stamps.clone(),
        conversations: conversations.clone(),
        groups: groups.clone(),
        audience: audience.clone(),
        level1_seen: level1_seen.clone(),
        bus: bus.clone(),
        clock: clock.clone(),
        outages: outages.clone(),
        metrics: metrics.clone(),
        hooked: hooked_messages(config, store),
        rules: CommunityRules {
            members_max: config.group_members_max,
            conversations_max: config.conversations_max,
            friends: match config.friends {
                FriendsBecome::Open => FriendPolicy::Open,
                FriendsBecome::Ask => FriendPolicy::Ask,
            },
            groups: match config.group_join {
                GroupJoin::Open => GroupDoor::Open,
                GroupJoin::Closed => GroupDoor::Closed,
            },
            history: match config.group_history {
                GroupHistory::Joined => Visible::Hidden,
                GroupHistory::All => Visible::Shown,
            },
        },
    };
    Arc::new(Jobs {
        logins,
        jwt,
        group_room,
        arrangements: Arc::new(Arrangements::new(arrangements)),
        directory: Directory {
            accounts: store.accounts.clone(),
            contacts: store.contacts.clone(),
            groups: groups.clone(),
            bus: bus.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
            limits,
        },
        mail: Mail::new(store.messages.clone(), quotas.clone(), config.fetch_bytes_max),
        outages: outages.clone(),
        metrics: metrics.clone(),
    })
}

fn conversations(config: &Config, services: &Services, passwords: &Arc<Passwords>) -> Conversations {
    let Services { store, bus, clock, groups, quotas, audience, blocks, watchers, outages, metrics, tracer, .. } =
        services;
    let parts = ConversationParts {
        history: store.history.clone(),
        accounts: store.accounts.clone(),
        passwords: passwords.clone(),
        stamps: Arc::new(AccountStamps::new(clock.clone())),
        contacts: store.contacts.clone(),
        groups: groups.clone(),
        community: store.community.clone(),
        blocks: blocks.clone(),
        audience: audience.clone(),
        watchers: watchers.clone(),
        states: store.states.clone(),
        bus: bus.clone(),
        clock: clock.clone(),
        outages: outages.clone(),
        metrics: metrics.clone(),
        tracer: tracer.clone(),
        postbox: Postbox::new(store.messages.clone(), quotas.clone()),
    };
    let rules = DeviceRules {
        devices_max: config.devices_max,
        token_lifetime: days(config.token_days),
        inflight: config.inflight_max,
        frame_max: config.frame_bytes_max.min(level2::FRAME_MAX),
        receipts: config.receipts,
        presence: config.presence,
        is_off: config.recorded == RecordingScope::Nothing,
    };
    if config.friends == FriendsBecome::Ask {
        // Every friend request is noted, even between users of level 1.
        audience.look_at_all();
    }
    let conversations = Conversations::new(parts, rules);
    // If the database does not answer yet, the sweeper tries again.
    let _ = conversations.read_audience();
    let _ = conversations.read_blocks();
    conversations
}

/// The lanes of conversations; `None` if there can be none.
fn recorder(
    config: &Config,
    services: &Services,
    router: &Arc<Router>,
    threads: &mut impl Threads,
) -> io::Result<Option<Arc<Recorder>>> {
    let Services { store, bus, clock, groups, audience, level1_seen, outages, metrics, tracer, .. } = services;
    if let Ok(None) = store.history.get() {
        log::warn!(
            "the tables have no conversations: logins at level 2 get 501 until the tables are migrated and this \
             server is started again"
        );
        return Ok(None);
    }
    let parts = RecorderParts {
        history: store.history.clone(),
        contacts: store.contacts.clone(),
        groups: groups.clone(),
        audience: audience.clone(),
        level1_seen: level1_seen.clone(),
        router: router.clone(),
        bus: bus.clone(),
        outages: outages.clone(),
        clock: clock.clone(),
        hooked: hooked_messages(config, store),
        rules: CommitRules {
            edit_window: i64::try_from(config.edit_window.as_millis()).unwrap_or(i64::MAX),
            conversations_max: config.conversations_max,
        },
        metrics: metrics.clone(),
        tracer: tracer.clone(),
    };
    let recorder = Recorder::start(parts, store.database.appenders().min(RECORDERS_MAX), threads)?;
    Ok(Some(Arc::new(recorder)))
}

/// The messages for the hook: none without conversations, because nothing would be posted then.
fn hooked_messages(config: &Config, store: &crate::store::Store) -> HookedMessages {
    let is_posted = config.hook_url.0.is_some() && config.recorded != RecordingScope::Nothing;
    HookedMessages::new(is_posted, &store.hooks)
}

/// The settings of the reactor.
pub(super) fn settings(config: &Config) -> Settings {
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

/// The duration of `n` days.
fn days(n: u32) -> Duration {
    Duration::from_hours(24 * u64::from(n))
}

/// The most lanes of conversations. While one waits for the disk, the other prepares. More lanes
/// would split the same messages into more and smaller transactions, each of which costs a dozen
/// statements.
const RECORDERS_MAX: usize = 2;
