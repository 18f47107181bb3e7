//! The program: reads the settings, assembles the parts, and turns their result into an exit code.
//!
//! 0: stopped as requested, or the command succeeded. 1: stopped, but not everything could be
//! stored in time, or because a database file was removed; not healthy; a command begun, but not
//! completed. 2: not started, one line on stderr says why. 3: stopped as requested, and messages
//! wait in the spool for the next start. 130 and 143: a second SIGINT or SIGTERM came before all
//! work was finished (signals.rs).

use std::env;
use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, Write};
use std::iter;
use std::net::SocketAddr;
use std::panic;
use std::path::Path;
use std::process::{self, ExitCode};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use log::{Level, error, info, log_enabled, warn};
use raybox::base::memory::AddressSpace;
use raybox::bus::Bus;
use raybox::bus::local::LocalBus;
use raybox::bus::redis::{ClusterBus, RedisBus};
use raybox::config::{Auth, Config, Invocation, LogTarget, RedisPlace};
use raybox::operation::admin::Admin;
use raybox::operation::admin::api::Administrator;
use raybox::operation::admin::guard::AccessGuard;
use raybox::operation::commands::{
    CommandError, admin as admin_command, backup, check, compact, copy, health, migrate,
};
use raybox::operation::health::{Checks, Health};
use raybox::operation::logging::{self, LogGuard};
use raybox::operation::reload::{Reloadable, Reloader};
use raybox::operation::resources::{self, Descriptors};
use raybox::operation::signals;
use raybox::operation::status::Board;
use raybox::operation::supervisor::Supervisor;
use raybox::server::offline::OfflineAdministration;
use raybox::server::{Server, Stopped};
use raybox::store::Store;
use raybox::store::mysql::{MysqlStore, open_later};
use raybox::store::spool::{NoSpool, Spool};
use raybox::store::sqlite::{SpoolFile, SqliteStore};
use raybox::web;

fn main() -> ExitCode {
    match env::args_os().nth(1).as_deref().and_then(OsStr::to_str) {
        Some("health") => return check_health(),
        Some("trace" | "explain") => return administer(iter::once("server".into()).chain(env::args_os().skip(1))),
        Some("admin") => return administer(env::args_os().skip(1)),
        Some("check") => return end(check::run(env::args_os(), env::vars_os(), Path::new("."))),
        Some("backup") => return end(backup::back_up(env::args_os().skip(1), env::vars_os(), Path::new("."))),
        Some("restore") => return end(backup::restore(env::args_os().skip(1), env::vars_os(), Path::new("."))),
        Some("migrate") => return end(migrate::run(env::args_os().skip(1), env::vars_os(), Path::new("."))),
        Some("compact") => return end(compact::run(env::args_os().skip(1), Path::new("."))),
        Some("copy") => return end(copy::run(env::args_os().skip(1), env::vars_os(), Path::new("."))),
        _ => {}
    }
    match Config::load(env::args_os(), env::vars_os(), Path::new(".")) {
        Ok(Invocation::Run(config)) => match serve(&config) {
            Ok(Stopped::Clean) => ExitCode::SUCCESS,
            Ok(Stopped::Left(_)) => ExitCode::FAILURE,
            Ok(Stopped::Lost) => {
                complain(
                    "a database file was moved, replaced or deleted under the server; the server's log says where the data is now",
                );
                ExitCode::FAILURE
            }
            Ok(Stopped::Spooled(_)) => ExitCode::from(3),
            Err(error) => refuse(&*error),
        },
        Ok(Invocation::Print(text)) => {
            print(&text);
            ExitCode::SUCCESS
        }
        Err(error) => refuse(&error),
    }
}

/// Asks another process of this program whether it is ready: 0 if it is, 1 if not.
fn check_health() -> ExitCode {
    let arguments: Vec<String> = env::args_os().skip(2).map(|text| text.to_string_lossy().into_owned()).collect();
    let outcome = match arguments.as_slice() {
        [help] if help == "--help" || help == "-h" => {
            print(health::HELP);
            return ExitCode::SUCCESS;
        }
        [] => health::run(&env::var("RAYBOX_ADMIN").unwrap_or_else(|_| health::DEFAULT_ADDRESS.to_owned())),
        [address] => health::run(address),
        _ => {
            complain("health takes one address; usage: server health [ADDRESS], see --help");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(answer) => {
            print(&answer);
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(error);
            ExitCode::FAILURE
        }
    }
}

/// Runs `server admin` with its arguments.
fn administer(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let offline = |config: &Config, store| match OfflineAdministration::of(config, store) {
        Ok(offline) => Ok(Box::new(offline) as Box<dyn Administrator>),
        Err(error) => Err(error.to_string()),
    };
    end(admin_command::run(arguments, env::vars_os(), Path::new("."), offline))
}

/// The exit code of a command that has reported its work itself.
fn end(outcome: Result<(), CommandError>) -> ExitCode {
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    complain(&error);
    match error {
        CommandError::Unfinished(_) => ExitCode::FAILURE,
        CommandError::Refused(_) => ExitCode::from(2),
    }
}

/// Runs a server until a signal stops it. An error is one of the start.
fn serve(config: &Config) -> Result<Stopped, Box<dyn Error>> {
    let descriptors = Descriptors::raise();
    resources::return_large_blocks();
    let space = AddressSpace::of_process();
    space.into_iter().for_each(resources::bound_allocator);
    // Before the threads: without room for their stacks, the system would not start them either.
    space.map(|space| resources::check_address_space(space, config)).transpose()?;
    resources::check_threads(config)?;
    let signals = signals::catch()?;
    let log = logging::init(config)?;
    log_panics();
    let supervisor = Supervisor::of(|name| env::var_os(name)).unwrap_or_else(|error| {
        warn!("{error}");
        Supervisor::default()
    });
    let admin = config.admin.0.map(Admin::bind).transpose()?;
    let store = open_store(config)?;
    let bus: Arc<dyn Bus> = match &config.redis {
        Some(settings) => match &settings.place {
            RedisPlace::Cluster(servers) => Arc::new(ClusterBus::open(settings, servers)?),
            RedisPlace::Server(_) | RedisPlace::Sentinels(_) => Arc::new(RedisBus::open(settings)?),
        },
        None => Arc::new(LocalBus),
    };
    let spool = open_spool(config)?;
    let (store_line, bus_line) = (store.database.describe(), bus.describe());
    let server = Server::bind(config, store.clone(), spool.clone(), bus.clone())?;
    server.metrics().name_node(logging::node_name(config));
    let admin_address = admin.as_ref().map(Admin::address);
    let health = Arc::new(server.health());
    let guard = AccessGuard::new(&config.admin_key, &config.admin_hosts, server.metrics())?;
    let guard = admin.is_some().then(|| Arc::new(guard));
    let (certificates, told) = (server.certificates(), supervisor.clone());
    let (jwt_keys, hook) = (server.jwt_keys(), server.hook());
    let guarded = guard.clone();
    let reloadable = Reloadable { log: log.control(), certificates, jwt_keys, guard: guarded, hook, supervisor: told };
    let reloader = Reloader::start(config.clone(), reloadable, load_again)?;
    let administration = server.administration(config, health.clone(), log.control(), reloader.clone());
    let checks = match admin.zip(guard) {
        Some((admin, guard)) => {
            let checks = show(&server, &health, &log, &store, &spool, &bus)?;
            let board = Board::start(server.metrics(), health.clone(), &config.admin_nodes)?;
            admin.serve(health.clone(), server.metrics(), guard, Arc::new(administration), board)?;
            Some(checks)
        }
        None => None,
    };
    let _watchdog = supervisor.watch(health.clone())?;
    let stop = shut_down(config.drain_delay, &server, health, &supervisor);
    signals.handle(stop, move || reloader.ask())?;
    announce(config, server.local_addr(), admin_address, &store_line, &bus_line);
    tell_of(descriptors);
    supervisor.ready(&format!("listening on {}", server.local_addr()));
    let stopped = server.run();
    if let Some(checks) = checks {
        checks.close(Instant::now() + CHECKS_GRACE);
    }
    drop((store, spool));
    info!("stopped");
    Ok(stopped)
}

/// Arranges the shutdown. The server stops when a file of its database is lost, or when the
/// returned function is called, at a signal.
fn shut_down(
    delay: Duration,
    server: &Server,
    health: Arc<Health>,
    supervisor: &Supervisor,
) -> impl Fn() + Send + 'static {
    let limit = server.shutdown_limit();
    let (of_lost, at_once, told, within) = (health.clone(), server.stopper(), supervisor.clone(), limit.clone());
    server.when_lost(move || {
        of_lost.drain();
        told.stopping(within() + EXIT_GRACE);
        at_once.stop_after(Duration::ZERO);
    });
    let (stopper, supervisor) = (server.stopper(), supervisor.clone());
    move || {
        // Load balancers must stop sending clients here before the port closes.
        health.drain();
        stopper.stop_after(delay);
        supervisor.stopping(delay + limit() + EXIT_GRACE);
        limit_shutdown(delay, limit.clone(), supervisor.clone());
    }
}

/// A server whose database is unreachable can do little, so an operator who starts one, perhaps
/// with a wrong address, gets an error. A server that has run before starts nevertheless: it may
/// have messages for the database.
fn open_store(config: &Config) -> Result<Store, Box<dyn Error>> {
    let Some(settings) = &config.mysql else { return Ok(Store::of(Arc::new(SqliteStore::open(&config.data_dir)?))) };
    match MysqlStore::open(settings) {
        Ok(store) => Ok(Store::of(Arc::new(store))),
        Err(error) if error.fault.may_pass() && SpoolFile::is_there(&config.data_dir) => {
            Ok(open_later(settings, &error)?)
        }
        Err(error) => Err(error.into()),
    }
}

/// The spool, in which messages wait while an external store is unreachable. The embedded store has
/// none, because its file is on the same disk.
fn open_spool(config: &Config) -> Result<Arc<dyn Spool>, Box<dyn Error>> {
    let is_wanted = config.spool_bytes_max > 0 || SpoolFile::is_there(&config.data_dir);
    if config.mysql.is_none() || !is_wanted {
        return Ok(Arc::new(NoSpool));
    }
    Ok(Arc::new(SpoolFile::open(&config.data_dir, config.spool_bytes_max)?))
}

/// Has the metrics and the health of the server shown on the admin port.
fn show(
    server: &Server,
    health: &Arc<Health>,
    log: &LogGuard,
    store: &Store,
    spool: &Arc<dyn Spool>,
    bus: &Arc<dyn Bus>,
) -> Result<Checks, Box<dyn Error>> {
    let metrics = server.metrics();
    let (ready, probe) = (health.clone(), health.clone());
    metrics.watch_readiness(move || ready.readiness());
    metrics.watch_probe(move || probe.probe_age());
    metrics.watch_log(log.dropped_lines());
    if store.database.connections().is_some() {
        let store = Arc::downgrade(&store.database);
        metrics.watch_pool("mysql", move || store.upgrade().and_then(|store| store.connections()).unwrap_or_default());
    }
    if bus.connections().is_some() {
        let bus = Arc::downgrade(bus);
        metrics.watch_pool("redis", move || bus.upgrade().and_then(|bus| bus.connections()).unwrap_or_default());
    }
    Ok(Checks::start(health, store.database.clone(), spool.clone(), bus.clone())?)
}

/// Announces in the log and on stdout that clients may connect, with the main settings.
fn announce(config: &Config, address: SocketAddr, admin: Option<SocketAddr>, store: &str, bus: &str) {
    let (auth, log) = (config.auth, log_place(config));
    info!("raybox {VERSION} listening on {address}");
    info!("event loops {}, workers {}, hashers {}", config.loops, config.workers, config.hashers);
    info!("store {store}");
    info!("bus {bus}");
    config.notes.iter().for_each(|note| warn!("{note}"));
    if config.web && web::is_refused_by_browsers(address.port()) {
        info!("browsers refuse port {}; for the web client, listen on another one, such as 8080", address.port());
    }
    match auth {
        Auth::Strict => info!("auth {auth}"),
        Auth::Compat => warn!("auth {auth}: anyone may act as anyone"),
    }
    let admin = admin.map_or_else(String::new, |admin| {
        info!("admin http://{admin}/metrics, /healthz, /readyz, and a page at /");
        if !admin.ip().to_canonical().is_loopback() {
            warn!("key admin: every client that reaches {admin} can read the numbers of this server; keep others out by a firewall, or use admin={}", admin.port());
        }
        format!(", admin {admin}")
    });
    if config.log.to.has_stdout() {
        // The lines above say the same, in the form of the log.
        return;
    }
    print(&format!(
        "raybox {VERSION} listening on {address}, store {store}, bus {bus}, auth {auth}, log {log}{admin}\n"
    ));
}

/// The destination of the log, as text.
fn log_place(config: &Config) -> String {
    let dir = config.log_dir();
    match config.log.to {
        LogTarget::File => dir.display().to_string(),
        LogTarget::Stdout => "stdout".to_owned(),
        LogTarget::Both => format!("{} and stdout", dir.display()),
    }
}

/// Logs how many clients there can be.
fn tell_of(descriptors: Descriptors) {
    info!("{descriptors}");
    if descriptors.are_few() {
        warn!(
            "{descriptors}: each connection needs one; for more, raise the hard limit (ulimit -Hn, LimitNOFILE in systemd, \
             --ulimit nofile of a container)"
        );
    }
}

/// Exits the process if the shutdown takes longer than its limit, whatever delays it: a driver, a
/// name server, a disk. `limit` is called when no more clients are accepted.
fn limit_shutdown(delay: Duration, limit: impl FnOnce() -> Duration + Send + 'static, supervisor: Supervisor) {
    let wait = move || {
        thread::sleep(delay);
        let limit = limit();
        // More clients may have come in the meantime, and each takes its time to close.
        supervisor.stopping(limit + EXIT_GRACE);
        thread::sleep(limit);
        error!("shutdown has not finished within {limit:?}; the process exits now");
        log::logger().flush();
        process::exit(1);
    };
    // The thread ends with the process.
    if let Err(error) = thread::Builder::new().name("stop-limit".to_owned()).spawn(wait) {
        warn!("the shutdown has no limit: {error}");
    }
}

/// Reads the settings of this process again.
fn load_again() -> Result<Config, String> {
    match Config::load(env::args_os(), env::vars_os(), Path::new(".")) {
        Ok(Invocation::Run(config)) => Ok(*config),
        Ok(Invocation::Print(_)) => Err("the arguments ask for help".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Logs every panic. A panic in [vital](pool::vital) work, such as an event loop or the bus, exits
/// the process, because half a server is worse than none. A lane loses one batch, whose senders get
/// an error, and goes on; a worker loses one request.
fn log_panics() {
    panic::set_hook(Box::new(|panic| {
        let thread = thread::current();
        let name = thread.name().unwrap_or("-");
        let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        let line = format!("thread {name} panicked at {place}: {}", panic.payload_as_str().unwrap_or("no text"));
        if log_enabled!(Level::Error) {
            error!("{line}");
        } else {
            complain(&line);
        }
        if pool::is_vital() {
            log::logger().flush();
            process::abort();
        }
    }));
}

fn refuse(error: &dyn Error) -> ExitCode {
    complain(error);
    ExitCode::from(2)
}

/// Unlike `eprintln`, it survives a closed stderr.
fn complain(line: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "server: {line}");
}

/// Unlike `print`, it survives a closed stdout: an operator who does not read the banner may still
/// want the server.
fn print(text: &str) {
    let mut stdout = io::stdout();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// How long to wait for a last check of the store.
const CHECKS_GRACE: Duration = Duration::from_secs(1);
/// The time beyond the limit of the shutdown that is announced to the service manager. The process
/// exits by itself before that.
const EXIT_GRACE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    use std::io::{BufRead, BufReader};
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, Command, Stdio};
    use std::sync::mpsc;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// Starts a test again in a process of its own, where [`is_child`] is true.
    fn child(test: &str) -> Child {
        Command::new(env::current_exe().unwrap())
            .args(["--exact", "--nocapture", test])
            .env(CHILD, "1")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn is_child() -> bool {
        env::var_os(CHILD).is_some()
    }

    const CHILD: &str = "TEST_IS_CHILD";

    /// Panics at the first connection.
    struct Panics;

    impl net::Handler for Panics {
        type Conn = ();
        type Arrival = ();
        type Message = ();

        fn on_start(&mut self) {
            pool::become_vital();
        }

        fn on_arrival(&mut self, _: &mut net::Turn<()>, _: SocketAddr, _: net::Preface) -> Result<(), &'static [u8]> {
            panic!("no way");
        }

        fn on_open(&mut self, _: &mut net::Turn<()>, _: &Arc<net::Link<()>>, (): ()) {}

        fn on_incoming(
            &mut self,
            _: &mut net::Turn<()>,
            _: &Arc<net::Link<()>>,
            (): &mut (),
            _: net::Incoming<'_>,
        ) -> net::Flow {
            net::Flow::Taken
        }
    }

    #[test]
    fn a_panic_in_a_loop_ends_the_process() {
        if is_child() {
            log_panics();
            let time = Duration::from_secs(60);
            let settings = net::Settings {
                frame_bytes_max: 1024,
                frame_timeout: time,
                idle_timeout: time,
                output_bytes_max: 1024,
                drain_timeout: time,
                pace: None,
            };
            let mut group = net::LoopGroup::start(1, settings, |_| Panics).unwrap();
            let listen = net::ListenSettings { backlog: 1, user_timeout: time };
            let acceptor = net::Acceptor::bind(([127, 0, 0, 1], 0).into(), listen).unwrap();
            let _client = std::net::TcpStream::connect(acceptor.local_addr().unwrap()).unwrap();
            acceptor.run(|stream, peer| group.assign(stream, peer, net::Preface::None));
            unreachable!("the process has ended");
        }
        let output = child("tests::a_panic_in_a_loop_ends_the_process").wait_with_output().unwrap();
        assert_eq!(output.status.signal(), Some(signal_hook::consts::SIGABRT));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains("server: thread loop-0 panicked at src/main.rs:"), "{stderr}");
    }

    #[test]
    fn a_panic_in_vital_work_ends_the_process() {
        if is_child() {
            log_panics();
            let start = |name: &str, work: fn()| thread::Builder::new().name(name.to_owned()).spawn(work).unwrap();
            let _ = start("worker-0", || panic!("only one job")).join();
            let _ = start("lane-0", || panic!("only one batch")).join();
            let _ = start("bus", || pool::vital(|| panic!("no {}", "way"))).join();
            unreachable!("the process has ended");
        }
        let output = child("tests::a_panic_in_vital_work_ends_the_process").wait_with_output().unwrap();
        assert_eq!(output.status.signal(), Some(signal_hook::consts::SIGABRT));
        let stderr = String::from_utf8(output.stderr).unwrap();
        let lines: Vec<&str> = stderr.lines().filter(|line| line.starts_with("server: ")).collect();
        assert_eq!(lines.len(), 3, "{stderr}");
        assert!(lines[0].starts_with("server: thread worker-0 panicked at src/main.rs:"), "{stderr}");
        assert!(lines[0].ends_with(": only one job"), "{stderr}");
        assert!(lines[1].ends_with(": only one batch"), "{stderr}");
        assert!(lines[2].starts_with("server: thread bus panicked at src/main.rs:"), "{stderr}");
        assert!(lines[2].ends_with(": no way"), "{stderr}");
    }

    #[test]
    fn a_second_signal_ends_the_process_at_once() {
        if is_child() {
            signals::catch().unwrap().handle(|| println!("child: stopping"), || ()).unwrap();
            println!("child: ready");
            thread::park_timeout(PATIENCE);
            return;
        }
        for (signal, code) in [("INT", 130), ("TERM", 143)] {
            let mut child = child("tests::a_second_signal_ends_the_process_at_once");
            let (lines, seen) = mpsc::channel();
            let stdout = BufReader::new(child.stdout.take().unwrap());
            thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| lines.send(line)));
            let send = |signal| {
                let kill = format!("kill -s {signal} {}", child.id());
                assert!(testkit::succeeds(Command::new("sh").args(["-c", &kill])));
            };
            let wait_for = |text| while !seen.recv_timeout(PATIENCE).unwrap().contains(text) {};

            wait_for("child: ready");
            send("TERM");
            wait_for("child: stopping");
            send(signal);
            assert_eq!(child.wait().unwrap().code(), Some(code));
        }
    }

    #[test]
    fn a_shutdown_that_does_not_come_to_its_end_is_ended() {
        if is_child() {
            limit_shutdown(Duration::ZERO, || Duration::from_millis(1), Supervisor::default());
            thread::park_timeout(PATIENCE);
            return;
        }
        let output = child("tests::a_shutdown_that_does_not_come_to_its_end_is_ended").wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1));
    }
}
