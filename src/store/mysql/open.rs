//! Opening the database: connect, look at the tables, and tell the operator what is wrong.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mysql::prelude::Queryable;
use mysql::{Conn, DriverError, OptsBuilder, SslOpts};
use pool::{ConnectionPool, OpenFailure, PoolSizes};

use super::calls::Calls;
use super::dial::{MysqlDialer, PacketLimits};
use super::error::{self, Trouble};
use super::health::DatabaseHealth;
use super::schema::{Misfit, Schema};
use crate::config::{MysqlSettings, Tls};

/// The result of [`open`]: the database as it is, and the calls to it.
pub(super) struct OpenedDatabase {
    pub(super) calls: Calls,
    pub(super) schema: Schema,
    pub(super) limits: PacketLimits,
    /// Product, address and database.
    pub(super) name: String,
}

pub(super) fn open(settings: &MysqlSettings) -> Result<OpenedDatabase, MysqlOpenError> {
    let at = Site::of(settings);
    let failed = |error: mysql::Error| at.explain(&error);
    let limits = PacketLimits::new();
    let check = MysqlDialer::new(check_options(settings), &settings.host, settings.port, limits.clone());
    let mut connection = check.connect().map_err(failed)?;
    let version: Option<String> = connection.query_first("SELECT VERSION()").map_err(failed)?;
    let schema = Schema::detect(&mut connection).map_err(failed)?.map_err(|misfit| at.error(misfit.into()))?;
    let name = name(&version.unwrap_or_default(), &at);
    let sizes = PoolSizes {
        initial: settings.initial_size,
        max: settings.max_size,
        idle_timeout: settings.idle_timeout,
        wait_timeout: settings.wait_timeout,
        connect_timeout: settings.connect_timeout,
    };
    let dialer = check.with(options(settings));
    let no_thread = |cause| at.error(Fault::Resources(cause));
    let pool = ConnectionPool::new(name.clone(), sizes, move || dialer.connect().map_err(|error| failure(&error)));
    let pool = Arc::new(pool.map_err(no_thread)?);
    let health =
        DatabaseHealth::watch(connection, check, pool.clone(), name.clone(), schema.probe()).map_err(no_thread)?;
    Ok(OpenedDatabase { calls: Calls::new(pool, health), schema, limits, name })
}

/// The database itself says no, or nobody answers, which others notice.
fn failure(error: &mysql::Error) -> OpenFailure {
    OpenFailure { cause: error::text(error), is_refusal: error::code(error).is_some() }
}

/// One connection whose statements may take as long as they take, and wait for locks for
/// `lock_wait`.
pub(super) fn connect_for_maintenance(
    settings: &MysqlSettings,
    lock_wait: Duration,
) -> Result<(Conn, Site, String), MysqlOpenError> {
    let at = Site::of(settings);
    let options = options(settings)
        .read_timeout(None)
        .write_timeout(None)
        .tcp_keepalive_time_ms(Some(KEEPALIVE_MILLIS))
        .init(session(lock_wait.as_secs()));
    let dialer = MysqlDialer::new(options, &settings.host, settings.port, PacketLimits::new());
    let mut connection = dialer.connect().map_err(|error| at.explain(&error))?;
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
        // Otherwise the driver asks a server on this machine for its socket, and takes a path that
        // was not configured.
        .prefer_socket(false)
        .stmt_cache_size(STATEMENTS_MAX)
        .ssl_opts(ssl_options(settings))
        .init(session((settings.read_timeout.as_secs() / 2).clamp(1, LOCK_WAIT_MAX_SECONDS)))
}

/// The same with the short timeouts of a check.
fn check_options(settings: &MysqlSettings) -> OptsBuilder {
    // A lock that somebody holds is given up well before the time in which a sign of life is
    // expected.
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

/// The first statements of every connection.
///
/// Strict, so that a text that does not fit is an error and not cut off, whatever the server's own
/// mode. A lock is waited for less long than an answer, so that one that is held is not taken for a
/// database that is gone.
fn session(lock_seconds: u64) -> Vec<String> {
    vec![format!(
        "SET NAMES utf8mb4, sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', autocommit = 1,
         innodb_lock_wait_timeout = {lock_seconds}, lock_wait_timeout = {lock_seconds}"
    )]
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

    pub(super) fn explain(&self, error: &mysql::Error) -> MysqlOpenError {
        let cause = error::text(error);
        self.error(match error::code(error) {
            Some(1045 | 1698) => Fault::WrongPassword(cause),
            Some(1044) => Fault::NoRights(cause),
            Some(1049) => Fault::NoDatabase,
            Some(1820 | 1862) => Fault::Account(cause, NEW_PASSWORD),
            Some(3118 | 4151) => Fault::Account(cause, UNLOCK),
            Some(3955) => Fault::Account(cause, UNLOCK_OR_WAIT),
            Some(1524) => Fault::Account(cause, OTHER_LOGIN),
            Some(1129) => Fault::Account(cause, UNBLOCK),
            Some(1130) => Fault::Account(cause, OTHER_HOST),
            Some(3159) => Fault::Tls(cause),
            // It is not there yet, or not there any more, for anybody.
            Some(1047 | 1290 | 1836 | 3032) => Fault::Busy(cause),
            Some(_) if is_passing(error) => Fault::Busy(cause),
            Some(_) => Fault::Failed(cause),
            None if is_about_login(error, &cause) => Fault::Account(cause, OTHER_LOGIN),
            None if is_about_tls(error, &cause) => Fault::Tls(cause),
            None => Fault::Unreachable(cause),
        })
    }

    pub(super) fn error(&self, fault: Fault) -> MysqlOpenError {
        MysqlOpenError { at: Box::new(self.clone()), fault }
    }
}

/// The same may work later, though nobody changes anything.
fn is_passing(error: &mysql::Error) -> bool {
    matches!(error::trouble(error), Trouble::Busy | Trouble::Lost | Trouble::Silent | Trouble::Locked | Trouble::Waited)
}

/// The database wants another kind of login than there is here.
fn is_about_login(error: &mysql::Error, text: &str) -> bool {
    match error {
        mysql::Error::DriverError(
            DriverError::UnknownAuthPlugin(_)
            | DriverError::CleartextPluginDisabled
            | DriverError::OldMysqlPasswordDisabled,
        ) => true,
        // For one that it knows and has not been built with, the driver panics.
        _ => text.contains("authentication plugin"),
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
pub struct MysqlOpenError {
    /// Where.
    pub at: Box<Site>,
    /// The fault there.
    pub fault: Fault,
}

impl Fault {
    /// It may pass by itself, or when somebody starts the database.
    pub fn may_pass(&self) -> bool {
        matches!(self, Fault::Unreachable(_) | Fault::Busy(_))
    }
}

impl From<Misfit> for Fault {
    fn from(misfit: Misfit) -> Fault {
        match misfit {
            Misfit::Missing(missing) => Fault::MissingTables(missing),
            Misfit::Names(names) => Fault::TableNames(names),
        }
    }
}

/// The fault of a database, mostly in its own words.
#[derive(Debug)]
pub enum Fault {
    /// Nobody answers at the address.
    Unreachable(String),
    /// The user or the password is wrong.
    WrongPassword(String),
    /// The user may not log in as things are, and what to do.
    Account(String, &'static str),
    /// The user may not use the database.
    NoRights(String),
    /// There is no such database.
    NoDatabase,
    /// The database lacks these tables, and columns of those that are there.
    MissingTables(Vec<String>),
    /// Tables whose names differ from those needed, which stand behind them, in case alone.
    TableNames(Vec<(String, &'static str)>),
    /// The database answers, and cannot take this connection now.
    Busy(String),
    /// The connection cannot be encrypted as asked for.
    Tls(String),
    /// The system has no thread left.
    Resources(io::Error),
    /// Anything else that the database says.
    Failed(String),
}

impl fmt::Display for MysqlOpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MysqlOpenError { at, fault } = self;
        let Site { username, database, .. } = &**at;
        write!(f, "{at}: ")?;
        match fault {
            Fault::Unreachable(cause) => {
                write!(f, "no database answers: {cause}; start it, or correct the keys ip and port")
            }
            Fault::WrongPassword(cause) => {
                write!(f, "user {username} is refused: {cause}; correct the keys username and password")?;
                // The database does not tell this from a wrong password.
                if at.tls == Tls::Off {
                    f.write_str(", or set ssl=on if the account requires encryption")
                } else {
                    Ok(())
                }
            }
            Fault::Account(cause, advice) => write!(f, "user {username} cannot log in: {cause}; {advice}"),
            Fault::Busy(cause) => {
                write!(f, "the database takes no connection now: {cause}; start again when it does")
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
            Fault::TableNames(names) => {
                let list =
                    |text: &dyn Fn(&(String, &str)) -> String| names.iter().map(text).collect::<Vec<_>>().join(", ");
                write!(
                    f,
                    "this database tells upper from lower case in names of tables, and has {} where {} is needed; run \
                     RENAME TABLE {}",
                    list(&|(found, _)| found.clone()),
                    list(&|(_, needed)| (*needed).to_owned()),
                    list(&|(found, needed)| format!("`{found}` TO `{needed}`")),
                )
            }
            Fault::Tls(cause) => write!(f, "the connection cannot be encrypted: {cause}; {}", tls_advice(at.tls)),
            Fault::Resources(cause) => write!(f, "the system has no threads left: {cause}"),
            Fault::Failed(cause) => write!(f, "{cause}; put that right and start again"),
        }
    }
}

fn tls_advice(tls: Tls) -> &'static str {
    match tls {
        Tls::Off => "set ssl=on",
        Tls::On => "set up TLS in the database, or set ssl=off",
        Tls::Verify => {
            "let ssl_ca name the certificate of the authority that signed the database's, and ip be a name in it, or set \
             ssl=on"
        }
    }
}

impl Error for MysqlOpenError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.fault {
            Fault::Resources(cause) => Some(cause),
            Fault::Unreachable(_)
            | Fault::WrongPassword(_)
            | Fault::Account(..)
            | Fault::Busy(_)
            | Fault::TableNames(_)
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

/// Statements that one connection keeps prepared: all of fixed shape and the usual ones of those
/// with lists. The database allows 16382 for all connections unless told otherwise.
const STATEMENTS_MAX: usize = 64;

const LOCK_WAIT_MAX_SECONDS: u64 = 2;

/// After this time without a word the system asks whether the other end is still there
/// (`TCP_KEEPIDLE`, tcp(7)).
const KEEPALIVE_MILLIS: u32 = 60_000;

const NEW_PASSWORD: &str = "give it a new password by ALTER USER ... IDENTIFIED BY, and correct the key password";
const UNLOCK: &str = "unlock it by ALTER USER ... ACCOUNT UNLOCK, or correct the key username";
const UNLOCK_OR_WAIT: &str = "wait, or unlock it by ALTER USER ... ACCOUNT UNLOCK, and correct the key password";
const OTHER_LOGIN: &str = "give it a password by ALTER USER ... IDENTIFIED BY, or correct the key username";
const UNBLOCK: &str = "run FLUSH HOSTS (in MySQL: TRUNCATE TABLE performance_schema.host_cache) in the database, and look for \
                       what connects to it from this machine and gives up";
const OTHER_HOST: &str =
    "let it log in from this machine (CREATE USER ...@'this machine'), or correct the key username";
