//! Databases for tests: new ones in the MariaDB that `./test.sh` started, and whole servers that a
//! test may kill.

use std::env;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use mysql::prelude::{FromRow, Queryable};
use mysql::{Conn, Opts, OptsBuilder};

use super::process::{Process, start_again, start_on_free_ports};
use crate::leaks::connection_leak;
use crate::{LONG_PATIENCE, PATIENCE, output_within, text_of, wait_within, watchdog};

/// One database with the server's tables. Clones share the database; dropping the last one deletes
/// it.
#[derive(Clone)]
pub struct Database(Arc<Inner>);

struct Inner {
    account: Account,
    name: String,
    /// The number of running servers that use it.
    nodes: AtomicUsize,
    /// A connection for queries, which is opened again after the database server was unreachable.
    connection: Mutex<Option<Conn>>,
}

/// The address of a MariaDB, and an account with all rights there.
#[derive(Clone)]
struct Account {
    address: SocketAddr,
    user: String,
    password: String,
    /// Whether the test has killed or frozen it.
    is_away: Arc<AtomicBool>,
}

impl Database {
    /// A new database in the shared MariaDB, with the tables of a new installation.
    pub fn create() -> Database {
        Database::create_at(&Account::shared(), NEW_SCHEMA)
    }

    /// A new database in the shared MariaDB, with the tables as the reference server has them.
    pub fn create_reference() -> Database {
        Database::create_at(&Account::shared(), REFERENCE_SCHEMA)
    }

    /// A new database in the shared MariaDB, without any table.
    pub fn create_empty() -> Database {
        Database::create_with(&Account::shared(), "")
    }

    fn create_at(account: &Account, schema: &str) -> Database {
        Database::create_with(account, &text_of(schema))
    }

    fn create_with(account: &Account, sql: &str) -> Database {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("raybox_test_{}_{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Database::create_named(account, name, sql)
    }

    fn create_named(account: &Account, name: String, sql: &str) -> Database {
        let mut connection = account.connect(None).expect("connect to MariaDB");
        connection.query_drop(format!("DROP DATABASE IF EXISTS {name}")).expect("drop an old database");
        connection.query_drop(format!("CREATE DATABASE {name} CHARACTER SET utf8mb4")).expect("create a database");
        let database = Database(Arc::new(Inner {
            account: account.clone(),
            name,
            nodes: AtomicUsize::new(0),
            connection: Mutex::new(None),
        }));
        if !sql.is_empty() {
            database.run(sql);
        }
        database
    }

    /// The number of connections to the database, without the one that counts them.
    pub fn connections(&self) -> usize {
        self.count(&format!(
            "SELECT count(*) FROM information_schema.processlist WHERE db = '{}' AND id <> CONNECTION_ID()",
            self.0.name
        ))
    }

    /// Whether the test has killed or frozen its database server.
    pub fn is_away(&self) -> bool {
        self.0.account.is_away.load(Ordering::Relaxed)
    }

    /// Notes that a server begins to use the database.
    pub(crate) fn joined(&self) {
        self.0.nodes.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that a server that used the database has exited.
    pub(crate) fn left(&self) {
        self.0.nodes.fetch_sub(1, Ordering::Relaxed);
    }

    /// Describes connections that servers have kept although their clients have gone.
    pub(crate) fn leak(&self) -> Option<String> {
        connection_leak("MariaDB", self.0.nodes.load(Ordering::Relaxed), self.is_away(), || self.connections())
    }

    /// The name of the database.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The address of the database server.
    pub fn address(&self) -> SocketAddr {
        self.0.account.address
    }

    /// The account that may use the database.
    pub fn user(&self) -> &str {
        &self.0.account.user
    }

    /// That user's password.
    pub fn password(&self) -> &str {
        &self.0.account.password
    }

    /// The `mysql.cnf` of a server that is to use the database.
    pub fn cnf(&self) -> String {
        let Account { address, user, password, .. } = &self.0.account;
        let (ip, port) = (address.ip(), address.port());
        format!(
            "ip={ip}\nport={port}\nusername={user}\npassword={password}\ndbname={}\ncharset=utf8mb4\ninitSize=2\n",
            self.0.name
        )
    }

    /// Writes the `mysql.cnf` into the working directory of a server.
    pub fn write_cnf(&self, folder: &Path) {
        fs::write(folder.join("mysql.cnf"), self.cnf()).expect("write mysql.cnf");
    }

    /// Closes the shared connection for queries. The next query opens another one.
    pub fn leave(&self) {
        *self.0.connection.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = None;
    }

    /// A new connection to the database.
    pub fn connect(&self) -> Conn {
        self.0.account.connect(Some(&self.0.name)).expect("connect to MariaDB")
    }

    /// Runs statements as they stand in a file, separated by semicolons.
    pub fn run(&self, sql: &str) {
        self.with_connection(|connection| {
            let mut results = connection.query_iter(sql)?;
            while results.iter().is_some() {}
            Ok(())
        });
    }

    /// Kills a connection of the database server. A connection that has ended by itself is not an
    /// error.
    pub fn kill(&self, connection_id: u64) {
        self.with_connection(|connection| match connection.query_drop(format!("KILL {connection_id}")) {
            Err(mysql::Error::MySqlError(error)) if error.code == UNKNOWN_THREAD => Ok(()),
            killed => killed,
        });
    }

    /// The rows that a query returns.
    pub fn rows<T: FromRow>(&self, query: &str) -> Vec<T> {
        self.with_connection(|connection| connection.query(query))
    }

    /// The number that a query returns.
    pub fn count(&self, query: &str) -> usize {
        let count: Option<u64> = self.with_connection(|connection| connection.query_first(query));
        usize::try_from(count.expect("a query that counts returns a row")).expect("a count")
    }

    /// A counter of the whole server, such as `Questions` or `Com_select`.
    pub fn status(&self, name: &str) -> u64 {
        let rows: Vec<(String, String)> = self.rows(&format!("SHOW GLOBAL STATUS LIKE '{name}'"));
        let (_, value) = rows.first().unwrap_or_else(|| panic!("MariaDB has no counter {name}"));
        value.parse().unwrap_or_else(|_| panic!("{name} is no number: {value}"))
    }

    /// `User.state`; `None` for an unknown user.
    pub fn state_of(&self, user: i64) -> Option<String> {
        self.rows(&format!("SELECT state FROM User WHERE id = {user}")).into_iter().next()
    }

    /// Runs a query on the shared connection. If that connection fails, retries once on a new one.
    fn with_connection<T>(&self, mut query: impl FnMut(&mut Conn) -> mysql::Result<T>) -> T {
        let mut kept = self.0.connection.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(connection) = kept.as_mut() {
            match query(connection) {
                Err(mysql::Error::MySqlError(error)) => panic!("MariaDB refused: {error}"),
                Err(_) => *kept = None,
                Ok(result) => return result,
            }
        }
        let connection = kept.insert(self.connect());
        query(connection).expect("query the database")
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // If the test has killed the database server, the database is gone as well.
        if let Ok(mut connection) = self.account.connect(None) {
            let _ = connection.query_drop(format!("DROP DATABASE IF EXISTS {}", self.name));
        }
    }
}

impl Account {
    fn new(address: SocketAddr, user: &str, password: &str) -> Account {
        let (user, password) = (user.to_owned(), password.to_owned());
        Account { address, user, password, is_away: Arc::new(AtomicBool::new(false)) }
    }

    /// The account of the MariaDB that `./test.sh` started for all tests.
    fn shared() -> Account {
        let text = env::var("TEST_MYSQL").unwrap_or_else(|_| {
            panic!("this test needs a MariaDB and finds none in TEST_MYSQL: run ./test.sh, with the same arguments")
        });
        let parse = || {
            let (credentials, address) = text.rsplit_once('@')?;
            let (user, password) = credentials.split_once(':')?;
            Some(Account::new(address.parse().ok()?, user, password))
        };
        parse().unwrap_or_else(|| panic!("TEST_MYSQL must be user:password@ip:port, not {text:?}"))
    }

    fn connect(&self, database: Option<&str>) -> mysql::Result<Conn> {
        let patience = Some(PATIENCE);
        let options = OptsBuilder::new()
            .ip_or_hostname(Some(self.address.ip().to_string()))
            .tcp_port(self.address.port())
            .user(Some(&self.user))
            .pass(Some(&self.password))
            .db_name(database)
            .prefer_socket(false)
            .tcp_connect_timeout(patience)
            .read_timeout(patience)
            .write_timeout(patience);
        Conn::new(Opts::from(options))
    }
}

/// A MariaDB for one test, which may kill, freeze and restart it. Dropping it kills it.
///
/// Commits survive a kill; only a power failure would lose the last second.
pub struct MariaDb {
    process: Process,
    account: Account,
    folder: PathBuf,
    options: Vec<String>,
}

impl MariaDb {
    /// Creates a data folder and starts a server on a free port; this takes some seconds.
    pub fn start() -> MariaDb {
        MariaDb::start_with(&[])
    }

    /// Like [`MariaDb::start`], with more command-line options.
    pub fn start_with(options: &[&str]) -> MariaDb {
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let folder = watchdog::new_folder();
        install(&folder);
        fs::write(folder.join("users.sql"), USERS).expect("write the users of MariaDB");
        let (process, ports) = start_on_free_ports(
            1,
            |ports| launch(&folder, ports[0], &options),
            |process, ports| answers(process, &account(ports[0])),
        );
        MariaDb { process, account: account(ports[0]), folder, options }
    }

    /// A server on an existing data folder; it may not answer yet.
    pub(super) fn launched(folder: PathBuf, port: u16, options: &[String]) -> MariaDb {
        let process = launch(&folder, port, options);
        MariaDb { process, account: account(port), folder, options: options.to_vec() }
    }

    /// Waits until the server answers; false if it has exited because one of its ports is in use.
    pub(super) fn wait_for_start(&mut self) -> bool {
        let mut has_ended = false;
        wait_within(LONG_PATIENCE, "MariaDB answers", || {
            has_ended = self.process.status().is_some();
            has_ended || answers(&self.process, &self.account)
        });
        let printed = self.process.printed();
        assert!(!has_ended || printed.contains("already in use"), "MariaDB ended: {printed}");
        !has_ended
    }

    /// Sets the options for the next start.
    pub(super) fn set_options(&mut self, options: Vec<String>) {
        self.options = options;
    }

    /// Runs the stopped server with options that make it exit by itself. Returns its output.
    pub(super) fn run_to_end(&self, options: &[&str]) -> String {
        let options = [self.options.clone(), options.iter().map(|option| (*option).to_owned()).collect()].concat();
        let ran = output_within(LONG_PATIENCE, &mut command(&self.folder, self.address().port(), &options));
        let ran = ran.expect("run mariadbd");
        String::from_utf8_lossy(&ran.stderr).into_owned() + &String::from_utf8_lossy(&ran.stdout)
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.account.address
    }

    /// A new connection, as a user with all rights.
    ///
    /// # Errors
    /// If the server does not answer.
    pub fn connect(&self) -> mysql::Result<Conn> {
        self.account.connect(None)
    }

    /// The number of connections to this database; 0 if the server does not answer.
    pub fn connections_to(&self, database: &Database) -> usize {
        let query = format!("SELECT count(*) FROM information_schema.processlist WHERE db = '{}'", database.name());
        let count = self.connect().and_then(|mut connection| connection.query_first(query));
        count.unwrap_or_default().unwrap_or_default()
    }

    /// Runs a statement in it.
    pub fn run(&self, statement: &str) {
        self.connect().and_then(|mut connection| connection.query_drop(statement)).expect("run a statement");
    }

    /// A new database in it, with the tables of a new installation.
    pub fn create_database(&self) -> Database {
        Database::create_at(&self.account, NEW_SCHEMA)
    }

    /// A new database in it, with the tables as the reference server has them.
    pub fn create_reference(&self) -> Database {
        Database::create_at(&self.account, REFERENCE_SCHEMA)
    }

    /// A new database in it, without any table.
    pub fn create_empty(&self) -> Database {
        Database::create_with(&self.account, "")
    }

    /// A new database with the name of one in another MariaDB, and with the tables of a new
    /// installation.
    pub fn create_namesake(&self, of: &Database) -> Database {
        Database::create_named(&self.account, of.name().to_owned(), &text_of(NEW_SCHEMA))
    }

    /// Kills it, as a crash would.
    pub fn kill(&mut self) {
        self.set_away(true);
        self.process.kill();
    }

    /// Freezes it with SIGSTOP: connections stay open and take bytes, but nothing answers.
    pub fn stop(&self) {
        self.set_away(true);
        self.process.freeze();
    }

    /// Resumes it after [`MariaDb::stop`].
    pub fn cont(&self) {
        self.process.signal("CONT");
        self.set_away(false);
    }

    /// Starts it again on the same port with the same data.
    pub fn restart(&mut self) {
        self.restart_with(&[]);
    }

    /// Like [`MariaDb::restart`], with more options for this start.
    pub fn restart_with(&mut self, options: &[&str]) {
        self.process.kill();
        let (folder, account) = (&self.folder, &self.account);
        let options = &[self.options.clone(), options.iter().map(|option| (*option).to_owned()).collect()].concat();
        let launch = || launch(folder, account.address.port(), options);
        self.process = start_again(launch, |process| answers(process, account));
        self.set_away(false);
    }

    /// Whether the test has killed or frozen it.
    pub fn is_away(&self) -> bool {
        self.account.is_away.load(Ordering::Relaxed)
    }

    fn set_away(&self, is_away: bool) {
        self.account.is_away.store(is_away, Ordering::Relaxed);
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        self.set_away(true);
        self.process.kill();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The `mysql.cnf` of a server that may use the database at any of these addresses.
pub(super) fn cnf_at(addresses: &[SocketAddr], database: &Database) -> String {
    let addresses: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
    let one = format!("ip={}\n", database.address().ip());
    let user = format!("username={}\n", database.user());
    database.cnf().replace(&one, &format!("ip={}\n", addresses.join(","))).replace(&user, "username=node\n")
}

fn account(port: u16) -> Account {
    Account::new(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), "test", "of this test alone")
}

pub(super) fn install(folder: &Path) {
    let mut command = Command::new("mariadb-install-db");
    settings(&mut command, folder);
    command.arg(format!("--datadir={}", data(folder).display()));
    command.args(["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"]);
    let output = output_within(LONG_PATIENCE, &mut command);
    let output = output.unwrap_or_else(|error| panic!("cannot run mariadb-install-db ({error}): run ./test.sh"));
    assert!(output.status.success(), "mariadb-install-db failed:\n{}", String::from_utf8_lossy(&output.stderr));
}

fn launch(folder: &Path, port: u16, options: &[String]) -> Process {
    Process::spawn(command(folder, port, options), &folder.join("mariadb.log"))
}

pub(super) fn command(folder: &Path, port: u16, options: &[String]) -> Command {
    let mut command = Command::new("mariadbd");
    // A Galera node looks for a program of the testkit in PATH.
    let path = env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:{}", env!("CARGO_MANIFEST_DIR")));
    settings(&mut command, folder);
    command.arg(format!("--datadir={}", data(folder).display())).arg(format!("--port={port}"));
    command.arg(format!("--socket={}", folder.join("mariadb.sock").display()));
    command.arg(format!("--pid-file={}", folder.join("mariadb.pid").display()));
    command.arg(format!("--init-file={}", folder.join("users.sql").display()));
    // Tests kill this server and then look for every row. So unlike the shared one, it writes its
    // log at each commit.
    command.arg("--innodb-flush-log-at-trx-commit=2").args(options);
    command
}

/// The common settings, which must come first. MariaDB runs as root, as in a container, only with
/// an explicit user.
fn settings(command: &mut Command, folder: &Path) {
    command.arg(concat!("--defaults-file=", env!("CARGO_MANIFEST_DIR"), "/mariadb.cnf"));
    // A starting MariaDB deletes the temporary tables in this folder, so no two servers may share
    // it.
    command.arg(format!("--tmpdir={}", folder.display()));
    let user = output_within(PATIENCE, Command::new("id").arg("-u")).expect("run id");
    if user.stdout.trim_ascii() == b"0" {
        command.arg("--user=root");
    }
}

/// Whether the process that answers at the address is this one.
fn answers(process: &Process, account: &Account) -> bool {
    let pid_file = account.connect(None).and_then(|mut connection| connection.query_first("SELECT @@pid_file"));
    let Ok(Some(pid_file)) = pid_file.map(|path: Option<String>| path) else { return false };
    fs::read_to_string(pid_file).is_ok_and(|pid| pid.trim() == process.pid().to_string())
}

fn data(folder: &Path) -> PathBuf {
    folder.join("data")
}

/// The account of tests, and one for servers, which may not write while MariaDB is read-only.
/// Neither account is replicated.
pub(super) const USERS: &str = "SET sql_log_bin = 0;\n\
                                CREATE OR REPLACE USER test@'%' IDENTIFIED BY 'of this test alone';\n\
                                GRANT ALL PRIVILEGES ON *.* TO test@'%' WITH GRANT OPTION;\n\
                                CREATE OR REPLACE USER node@'%' IDENTIFIED BY 'of this test alone';\n\
                                GRANT SELECT, INSERT, UPDATE, DELETE ON *.* TO node@'%';\n";

/// The schema of a new installation.
const NEW_SCHEMA: &str = "sql/chat.sql";

/// The schema of the reference server.
const REFERENCE_SCHEMA: &str = "testkit/reference.sql";

/// ER_NO_SUCH_THREAD.
const UNKNOWN_THREAD: u16 = 1094;
