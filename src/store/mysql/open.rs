//! Opening the database: connect, look at the tables, and tell the operator what is wrong.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mysql::prelude::Queryable;
use mysql::{Conn, Opts, OptsBuilder, SslOpts};
use pool::{MysqlPool, MysqlSizes};

use super::calls::Calls;
use super::error;
use super::health::Health;
use super::schema::Schema;
use crate::config::{MysqlSettings, Tls};

/// What [`open`] has found and started.
pub(super) struct Opened {
    pub(super) calls: Calls,
    pub(super) schema: Schema,
    /// The longest text in one statement, in bytes.
    pub(super) packet_bytes_max: usize,
    /// Product, address and database.
    pub(super) name: String,
}

pub(super) fn open(settings: &MysqlSettings) -> Result<Opened, OpenError> {
    let at = Site::of(settings);
    let failed = |error: mysql::Error| at.explain(&error);
    let check_opts = Opts::from(check_options(settings));
    let mut connection = Conn::new(check_opts.clone()).map_err(failed)?;
    let version: Option<(String, u64)> =
        connection.exec_first("SELECT VERSION(), @@max_allowed_packet", ()).map_err(failed)?;
    let (version, packet) = version.unwrap_or_default();
    let schema =
        Schema::detect(&mut connection).map_err(failed)?.map_err(|missing| at.error(Fault::MissingTables(missing)))?;
    let name = name(&version, &at);
    let sizes = MysqlSizes {
        initial: settings.initial_size,
        max: settings.max_size,
        idle_timeout: settings.idle_timeout,
        wait_timeout: settings.wait_timeout,
        connect_timeout: settings.connect_timeout,
    };
    let pool = Arc::new(MysqlPool::new(options(settings), sizes));
    let health = Health::watch(connection, check_opts, pool.clone(), name.clone())
        .map_err(|cause| at.error(Fault::Resources(cause)))?;
    let packet_bytes_max = usize::try_from(packet).unwrap_or(usize::MAX).saturating_sub(PACKET_OVERHEAD);
    Ok(Opened { calls: Calls::new(pool, health), schema, packet_bytes_max, name })
}

/// One connection whose statements may take as long as they take, and wait for locks for `lock_wait`.
pub(super) fn connect_for_maintenance(
    settings: &MysqlSettings,
    lock_wait: Duration,
) -> Result<(Conn, Site, String), OpenError> {
    let at = Site::of(settings);
    let options = options(settings)
        .read_timeout(None)
        .write_timeout(None)
        .tcp_keepalive_time_ms(Some(KEEPALIVE_MILLIS))
        .init(session(lock_wait.as_secs()));
    let mut connection = Conn::new(options).map_err(|error| at.explain(&error))?;
    let version: Option<String> = connection.query_first("SELECT VERSION()").map_err(|error| at.explain(&error))?;
    let name = name(&version.unwrap_or_default(), &at);
    Ok((connection, at, name))
}

/// Product, address and database.
fn name(version: &str, at: &Site) -> String {
    format!("{} at {}:{}/{}", product(version), at.host, at.port, at.database)
}

/// `MariaDB 10.11.6` of `10.11.6-MariaDB-0+deb12u1`, `MySQL 8.0.36` of `8.0.36`.
fn product(version: &str) -> String {
    let number = version.split('-').next().unwrap_or_default();
    let name = if version.contains("MariaDB") { "MariaDB" } else { "MySQL" };
    format!("{name} {number}")
}

/// How the connections of the pool are opened.
fn options(settings: &MysqlSettings) -> OptsBuilder {
    OptsBuilder::new()
        .ip_or_hostname(Some(&settings.host))
        .tcp_port(settings.port)
        .user(Some(&settings.username))
        .pass(Some(settings.password.expose()))
        .db_name(Some(&settings.database))
        .tcp_connect_timeout(Some(settings.connect_timeout))
        .read_timeout(Some(settings.read_timeout))
        .write_timeout(Some(settings.write_timeout))
        // Otherwise the driver asks a server on this machine for its socket, and takes a path that was not configured.
        .prefer_socket(false)
        .stmt_cache_size(STATEMENTS_MAX)
        .ssl_opts(ssl_options(settings))
        .init(session((settings.read_timeout.as_secs() / 2).clamp(1, LOCK_WAIT_MAX_SECONDS)))
}

/// The same with the short timeouts of a check.
fn check_options(settings: &MysqlSettings) -> OptsBuilder {
    // A lock that somebody holds is given up well before the time in which a sign of life is expected.
    options(settings)
        .init(session(1))
        .tcp_connect_timeout(Some(settings.connect_timeout.min(CHECK_TIMEOUT)))
        .read_timeout(Some(settings.read_timeout.min(CHECK_TIMEOUT)))
        .write_timeout(Some(settings.write_timeout.min(CHECK_TIMEOUT)))
}

fn ssl_options(settings: &MysqlSettings) -> Option<SslOpts> {
    let trusting = |trusting| {
        SslOpts::default()
            .with_root_cert_path(settings.ca.clone())
            .with_danger_accept_invalid_certs(trusting)
            .with_danger_skip_domain_validation(trusting)
    };
    match settings.tls {
        Tls::Off => None,
        Tls::On => Some(trusting(true)),
        Tls::Verify => Some(trusting(false)),
    }
}

/// What every connection says first.
///
/// Strict, so that a text that does not fit is an error and not cut off, whatever the server's own mode. Read committed,
/// so that a statement locks the rows it changes and not those between them. A lock is waited for less long than an
/// answer, so that one that is held is not taken for a database that is gone.
fn session(lock_seconds: u64) -> Vec<String> {
    vec![
        format!(
            "SET NAMES utf8mb4, sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', autocommit = 1,
             innodb_lock_wait_timeout = {lock_seconds}, lock_wait_timeout = {lock_seconds}"
        ),
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED".to_owned(),
    ]
}

/// Where a database is, in the operator's words.
#[derive(Clone, Debug)]
pub struct Site {
    file: PathBuf,
    host: String,
    port: u16,
    database: String,
    username: String,
    tls: Tls,
}

impl Site {
    fn of(settings: &MysqlSettings) -> Site {
        Site {
            file: settings.file.clone(),
            host: settings.host.clone(),
            port: settings.port,
            database: settings.database.clone(),
            username: settings.username.clone(),
            tls: settings.tls,
        }
    }

    pub(super) fn explain(&self, error: &mysql::Error) -> OpenError {
        let cause = error::text(error);
        self.error(match error::code(error) {
            Some(1045 | 1698) => Fault::WrongPassword(cause),
            Some(1044) => Fault::NoRights(cause),
            Some(1049) => Fault::NoDatabase,
            Some(_) => Fault::Failed(cause),
            None if is_about_tls(error, &cause) => Fault::Tls(cause),
            None => Fault::Unreachable(cause),
        })
    }

    fn error(&self, fault: Fault) -> OpenError {
        OpenError { at: Box::new(self.clone()), fault }
    }
}

fn is_about_tls(error: &mysql::Error, text: &str) -> bool {
    match error {
        mysql::Error::TlsError(_) | mysql::Error::DriverError(mysql::DriverError::TlsNotSupported) => true,
        // The handshake happens while the first packet is written, and fails as an I/O error.
        mysql::Error::IoError(error) => error.kind() == io::ErrorKind::InvalidData,
        _ => text.contains("certificate"),
    }
}

/// Why the database cannot be used. `Display` is one line that says what to do.
#[derive(Debug)]
pub struct OpenError {
    /// Where.
    pub at: Box<Site>,
    /// What is wrong there.
    pub fault: Fault,
}

/// What is wrong with a database, mostly in its own words.
#[derive(Debug)]
pub enum Fault {
    /// Nobody answers at the address.
    Unreachable(String),
    /// The user or the password is wrong.
    WrongPassword(String),
    /// The user may not use the database.
    NoRights(String),
    /// There is no such database.
    NoDatabase,
    /// The database lacks these tables, and columns of those that are there.
    MissingTables(Vec<String>),
    /// The connection cannot be encrypted as asked for.
    Tls(String),
    /// The system has no thread left.
    Resources(io::Error),
    /// Anything else that the database says.
    Failed(String),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OpenError { at, fault } = self;
        let Site { username, database, .. } = &**at;
        write!(f, "{at}: ")?;
        match fault {
            Fault::Unreachable(cause) => {
                write!(f, "no database answers: {cause}; start it, or correct the keys ip and port")
            }
            Fault::WrongPassword(cause) => {
                write!(f, "user {username} is refused: {cause}; correct the keys username and password")
            }
            Fault::NoRights(cause) => write!(
                f,
                "user {username} may not use the database {database}: {cause}; grant all rights on it, or correct the \
                 keys username and dbname"
            ),
            Fault::NoDatabase => write!(
                f,
                "there is no database {database}; create it and load sql/chat.sql into it, or correct the key dbname"
            ),
            Fault::MissingTables(missing) => write!(
                f,
                "the database {database} lacks {}; run server migrate (or load sql/chat.sql) on an empty database, or correct \
                 the key dbname",
                missing.join(", ")
            ),
            Fault::Tls(cause) => {
                let advice = match at.tls {
                    Tls::Off => "set ssl=on",
                    Tls::On => "set up TLS in the database, or set ssl=off",
                    Tls::Verify => {
                        "let ssl_ca name the certificate of the authority that signed the database's, and ip be a name \
                         in it, or set ssl=on"
                    }
                };
                write!(f, "the connection cannot be encrypted: {cause}; {advice}")
            }
            Fault::Resources(cause) => write!(f, "the system has no threads left: {cause}"),
            Fault::Failed(cause) => write!(f, "{cause}; put that right and start again"),
        }
    }
}

impl Error for OpenError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.fault {
            Fault::Resources(cause) => Some(cause),
            Fault::Unreachable(_)
            | Fault::WrongPassword(_)
            | Fault::NoRights(_)
            | Fault::NoDatabase
            | Fault::MissingTables(_)
            | Fault::Tls(_)
            | Fault::Failed(_) => None,
        }
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}:{}", self.file.display(), self.host, self.port)
    }
}

/// A check must notice a stopped database within 4 s, together with the time between two checks.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// Statements that one connection keeps prepared: all of fixed shape and the usual ones of those with lists. The database
/// allows 16382 for all connections unless told otherwise.
const STATEMENTS_MAX: usize = 64;

const LOCK_WAIT_MAX_SECONDS: u64 = 2;

/// After so long without a word it is asked whether the other end is still there (`TCP_KEEPIDLE`, tcp(7)).
const KEEPALIVE_MILLIS: u32 = 60_000;

/// What a packet holds besides the text.
const PACKET_OVERHEAD: usize = 1024;
