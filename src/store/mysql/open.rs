//! Opens the database: connects, inspects the tables, and tells the operator what is wrong.

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
use super::choice::NoChoice;
use super::dial::PacketLimits;
use super::error::{self, Trouble};
use super::health::DatabaseHealth;
use super::schema::{Misfit, Schema};
use super::servers::MysqlServers;
use crate::config::servers::in_words;
use crate::config::{DatabaseTls, MysqlSettings, ServerAddress};

/// The result of [`open`]: the database as it is, and the calls to it.
pub(super) struct OpenedDatabase {
    pub(super) calls: Calls,
    pub(super) schema: Schema,
    pub(super) limits: PacketLimits,
    /// The product, address and database.
    pub(super) name: String,
}

pub(super) fn open(settings: &MysqlSettings) -> Result<OpenedDatabase, MysqlOpenError> {
    let at = DatabaseAddress::of(settings);
    let failed = |error: mysql::Error| at.explain(&error);
    let limits = PacketLimits::new();
    let check = MysqlServers::new(&settings.servers, &check_options(settings), &limits);
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
    let servers = check.with(&options(settings));
    let no_thread = |cause| at.error(Fault::Resources(cause));
    let pool = ConnectionPool::new(name.clone(), sizes, move || servers.connect().map_err(|error| failure(&error)));
    let pool = Arc::new(pool.map_err(no_thread)?);
    let moved = Arc::downgrade(&pool);
    check.on_move(move || {
        if let Some(pool) = moved.upgrade() {
            pool.renew();
        }
    });
    let health = DatabaseHealth::watch(connection, check.clone(), pool.clone(), name.clone(), schema.probe());
    let calls = Calls::new(pool, health.map_err(no_thread)?, check);
    Ok(OpenedDatabase { calls, schema, limits, name })
}

/// The failure of the database itself, or a missing answer, which others notice.
fn failure(error: &mysql::Error) -> OpenFailure {
    OpenFailure { cause: error::text(error), is_refusal: error::code(error).is_some() }
}

/// Opens a connection whose statements may take any time, and wait for locks for `lock_wait`.
pub(super) fn connect_for_maintenance(
    settings: &MysqlSettings,
    lock_wait: Duration,
) -> Result<(Conn, DatabaseAddress, String), MysqlOpenError> {
    let at = DatabaseAddress::of(settings);
    let options = options(settings)
        .read_timeout(None)
        .write_timeout(None)
        .tcp_keepalive_time_ms(Some(KEEPALIVE_MILLIS))
        .init(session(lock_wait.as_secs(), ""));
    let servers = MysqlServers::new(&settings.servers, &check_options(settings), &PacketLimits::new());
    let mut connection = servers.with(&options).connect().map_err(|error| at.explain(&error))?;
    let version: Option<String> = connection.query_first("SELECT VERSION()").map_err(|error| at.explain(&error))?;
    let name = name(&version.unwrap_or_default(), &at);
    Ok((connection, at, name))
}

/// The product, address and database.
fn name(version: &str, at: &DatabaseAddress) -> String {
    format!("{} at {}/{}", product(version), at.servers(), at.database)
}

/// `MariaDB 10.11.6` of `10.11.6-MariaDB-0+deb12u1`, `MySQL 8.0.36` of `8.0.36`.
fn product(version: &str) -> String {
    let number = version.split('-').next().unwrap_or_default();
    let name = if version.contains("MariaDB") { "MariaDB" } else { "MySQL" };
    format!("{name} {number}")
}

/// The options for opening the connections of the pool.
fn options(settings: &MysqlSettings) -> OptsBuilder {
    OptsBuilder::new()
        .user(Some(&settings.username))
        .pass(Some(settings.password.expose()))
        .db_name(Some(&settings.database))
        .tcp_connect_timeout(Some(settings.connect_timeout))
        .read_timeout(Some(settings.read_timeout))
        .write_timeout(Some(settings.write_timeout))
        // Otherwise the driver asks a server on this machine for its socket, and uses a path that
        // was not configured.
        .prefer_socket(false)
        .stmt_cache_size(STATEMENTS_MAX)
        .ssl_opts(ssl_options(settings))
        .init(session((settings.read_timeout.as_secs() / 2).clamp(1, LOCK_WAIT_MAX_SECONDS), IDLE_TRANSACTION))
}

/// The same with the short timeouts of a check.
fn check_options(settings: &MysqlSettings) -> OptsBuilder {
    // Waiting for a lock ends well before the time in which a sign of life is expected.
    options(settings)
        .init(session(1, IDLE_TRANSACTION))
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
        DatabaseTls::Off => None,
        DatabaseTls::On => Some(trusting(true)),
        DatabaseTls::Verify => Some(trusting(false)),
    }
}

/// The first statement of every connection. It sets what the server, or its `init_connect`, may
/// have set otherwise.
///
/// - Strict mode, so that a text that does not fit is an error and not cut off.
/// - `completion_type`, so that a commit neither begins another transaction nor closes the
///   connection.
/// - The limits that protect a database from people (`mysql --safe-updates` sets them, too): with
///   `sql_select_limit` the members of a group, for example, would be cut off without an error.
/// - The timeout for locks is shorter than that for answers, so that a held lock is not mistaken
///   for a database that is gone.
/// - `more` are further variables.
fn session(lock_seconds: u64, more: &str) -> Vec<String> {
    vec![format!(
        "SET NAMES utf8mb4, sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', autocommit = 1,
         completion_type = 'NO_CHAIN', sql_select_limit = {ROWS_MAX}, sql_safe_updates = 0, sql_big_selects = 1,
         innodb_lock_wait_timeout = {lock_seconds}, lock_wait_timeout = {lock_seconds}{more}"
    )]
}

/// The address of a database, in the operator's terms.
#[derive(Clone, Debug)]
pub struct DatabaseAddress {
    file: PathBuf,
    servers: Vec<ServerAddress>,
    database: String,
    username: String,
    tls: DatabaseTls,
}

impl DatabaseAddress {
    fn of(settings: &MysqlSettings) -> DatabaseAddress {
        DatabaseAddress {
            file: settings.file.clone(),
            servers: settings.servers.clone(),
            database: settings.database.clone(),
            username: settings.username.clone(),
            tls: settings.tls,
        }
    }

    fn servers(&self) -> String {
        in_words(&self.servers)
    }

    pub(super) fn explain(&self, error: &mysql::Error) -> MysqlOpenError {
        if let Some(none) = NoChoice::of(error) {
            return self.error(Fault::NoServer(none.clone()));
        }
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
            Some(1184) if cause.contains("init_connect") => Fault::Account(cause, INIT_CONNECT),
            Some(3159) => Fault::Tls(cause),
            // The database is not available yet, or no longer, for anybody.
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

/// Whether a retry may succeed although nobody changes anything.
fn is_passing(error: &mysql::Error) -> bool {
    matches!(error::trouble(error), Trouble::Busy | Trouble::Lost | Trouble::Silent | Trouble::Locked | Trouble::Waited)
}

/// Whether the database requires a kind of login that is not supported here.
fn is_about_login(error: &mysql::Error, text: &str) -> bool {
    match error {
        mysql::Error::DriverError(
            DriverError::UnknownAuthPlugin(_)
            | DriverError::CleartextPluginDisabled
            | DriverError::OldMysqlPasswordDisabled,
        ) => true,
        // The driver panics at a plugin that it knows but was not built with.
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

/// The reason why the database cannot be used. `Display` is one line with advice.
#[derive(Debug)]
pub struct MysqlOpenError {
    /// The database.
    pub at: Box<DatabaseAddress>,
    /// The fault there.
    pub fault: Fault,
}

impl Fault {
    /// Whether it may pass by itself, or when the database is started.
    pub fn may_pass(&self) -> bool {
        matches!(self, Fault::Unreachable(_) | Fault::NoServer(_) | Fault::Busy(_))
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
    /// None of several servers can be used.
    NoServer(NoChoice),
    /// The user or the password is wrong.
    WrongPassword(String),
    /// The user may not log in with the present settings; the second text is advice.
    Account(String, &'static str),
    /// The user may not use the database.
    NoRights(String),
    /// There is no such database.
    NoDatabase,
    /// The database lacks these tables, or columns of existing ones.
    MissingTables(Vec<String>),
    /// Tables whose names differ only in case from the needed ones, which come second.
    TableNames(Vec<(String, &'static str)>),
    /// The database answers, but cannot accept this connection now.
    Busy(String),
    /// The connection cannot be encrypted as configured.
    Tls(String),
    /// The system has no thread left.
    Resources(io::Error),
    /// Any other error of the database.
    Failed(String),
}

impl fmt::Display for MysqlOpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MysqlOpenError { at, fault } = self;
        let DatabaseAddress { username, database, .. } = &**at;
        write!(f, "{at}: ")?;
        match fault {
            Fault::Unreachable(cause) => {
                write!(f, "no database answers: {cause}; start it, or correct the keys ip and port")
            }
            Fault::NoServer(none) => write!(f, "{none}; {}", none.advice()),
            Fault::WrongPassword(cause) => {
                write!(f, "user {username} is refused: {cause}; correct the keys username and password")?;
                // The database does not tell this from a wrong password.
                if at.tls == DatabaseTls::Off {
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

fn tls_advice(tls: DatabaseTls) -> &'static str {
    match tls {
        DatabaseTls::Off => "set ssl=on",
        DatabaseTls::On => "set up TLS in the database, or set ssl=off",
        DatabaseTls::Verify => {
            "let ssl_ca name the certificate of the authority that signed the database's, and ip be a name in it, or set \
             ssl=on"
        }
    }
}

impl Error for MysqlOpenError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.fault {
            Fault::Resources(cause) => Some(cause),
            Fault::NoServer(none) => Some(none),
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

impl fmt::Display for DatabaseAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.file.display(), self.servers())
    }
}

/// A check must notice a stopped database within 4 s, together with the time between two checks.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// The statements that one connection keeps prepared: all of fixed shape and the usual ones with
/// lists. By default, the database allows 16382 for all connections.
const STATEMENTS_MAX: usize = 64;

const LOCK_WAIT_MAX_SECONDS: u64 = 2;

/// No limit, see `sql_select_limit` in the manual.
const ROWS_MAX: u64 = u64::MAX;

/// MariaDB undoes a transaction for which its node has sent nothing for this number of seconds, and
/// closes the connection. Otherwise a node that freezes, is cut off or loses power in a transaction
/// would keep its rows locked, and no other node could write to these conversations. A node that
/// goes on later tries the transaction again, as after any lost connection. MySQL has no such
/// variable, and takes this for a comment.
const IDLE_TRANSACTION: &str = " /*M!100300 , idle_transaction_timeout = 3 */";

/// The time of silence after which the system checks whether the other end is alive
/// (`TCP_KEEPIDLE`, tcp(7)).
const KEEPALIVE_MILLIS: u32 = 60_000;

const NEW_PASSWORD: &str = "give it a new password by ALTER USER ... IDENTIFIED BY, and correct the key password";
const UNLOCK: &str = "unlock it by ALTER USER ... ACCOUNT UNLOCK, or correct the key username";
const UNLOCK_OR_WAIT: &str = "wait, or unlock it by ALTER USER ... ACCOUNT UNLOCK, and correct the key password";
const OTHER_LOGIN: &str = "give it a password by ALTER USER ... IDENTIFIED BY, or correct the key username";
const UNBLOCK: &str = "run FLUSH HOSTS (in MySQL: TRUNCATE TABLE performance_schema.host_cache) in the database, and look for \
                       what connects to it from this machine and gives up";
const INIT_CONNECT: &str = "correct the statements of init_connect in the database (SHOW GLOBAL VARIABLES LIKE 'init_connect'), \
                            or grant what they need";
const OTHER_HOST: &str =
    "let it log in from this machine (CREATE USER ...@'this machine'), or correct the key username";
