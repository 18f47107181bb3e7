//! The real server as a child process.

mod builder;

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension};

pub use self::builder::Builder;
use self::builder::Launched;
use crate::leaks::{Footprint, Margin, wait_given_back};
use crate::services::{Database, RedisUse};
use crate::{LONG_PATIENCE, PATIENCE, freeze, signal, wait_until, wait_within, watchdog};

/// A server in a folder of its own, which holds its settings, its logs and, unless it uses MySQL,
/// its database.
///
/// Dropping it first checks the process, unless the test has killed it or asked it to exit: it must
/// still run, and must have released what its clients used. Then the process is killed and the
/// folder removed. Make the clients after the server, because values are dropped in reverse order.
pub struct TestServer {
    builder: Builder,
    folder: PathBuf,
    child: Child,
    address: SocketAddr,
    output: Arc<Mutex<String>>,
    /// The resources that the process held right after its start.
    footprint: Footprint,
    /// Whether the test has killed the process or asked it to exit.
    end_expected: bool,
}

impl TestServer {
    fn launched(builder: Builder, folder: PathBuf, launched: Launched, footprint: Footprint) -> TestServer {
        let (child, address, output) = launched;
        TestServer { builder, folder, child, address, output, footprint, end_expected: false }
    }

    /// Starts a server with the tests' usual options: as shipped, but with passwords that cost next
    /// to nothing.
    pub fn start() -> TestServer {
        TestServer::builder().start()
    }

    /// The tests' usual options, to which a test can add more.
    pub fn builder() -> Builder {
        Builder::usual()
    }

    /// The address that clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether `/readyz` of the admin port answers 200. Start the server with the option `admin`,
    /// `127.0.0.1:0`.
    pub fn is_ready(&self) -> bool {
        let answer = self.ask_admin("/readyz");
        match answer.split(' ').nth(1) {
            Some("200") => true,
            Some("503") => false,
            _ => panic!("/readyz answers {answer:?}"),
        }
    }

    /// Whether `/healthz` answers 200, which says that the event loops turn.
    pub fn is_alive(&self) -> bool {
        let answer = self.ask_admin("/healthz");
        match answer.split(' ').nth(1) {
            Some("200") => true,
            Some("503") => false,
            _ => panic!("/healthz answers {answer:?}"),
        }
    }

    /// The value of a metric without labels.
    pub fn metric(&self, name: &str) -> f64 {
        let answer = self.ask_admin("/metrics");
        let value = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = value.unwrap_or_else(|| panic!("no {name} in {answer}"));
        value.parse().unwrap_or_else(|_| panic!("{name} is {value:?}"))
    }

    /// The number of open connections of clients, on all loops.
    pub fn open_connections(&self) -> usize {
        let answer = self.metrics();
        let loops = answer.lines().filter_map(|line| line.strip_prefix("raybox_connections_open{")?.rsplit_once(' '));
        let open: f64 = loops.map(|(_, open)| open.parse::<f64>().expect("a number")).sum();
        open as usize
    }

    /// The whole text of `/metrics`.
    pub fn metrics(&self) -> String {
        self.ask_admin("/metrics")
    }

    /// The whole answer of the admin port to a request with this key and without a body.
    pub fn administer(&self, method: &str, path: &str, key: &str) -> String {
        self.talk_to_admin(&format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n\r\n"
        ))
    }

    fn ask_admin(&self, path: &str) -> String {
        self.talk_to_admin(&format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"))
    }

    fn talk_to_admin(&self, request: &str) -> String {
        let printed = self.output();
        let address =
            printed.split_once(" admin ").map(|(_, rest)| rest.split([',', ' ', '\n']).next().unwrap_or(rest));
        let address = address.unwrap_or_else(|| panic!("no admin port in what the server said: {printed}"));
        let ask = || {
            let mut stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(LONG_PATIENCE))?;
            stream.write_all(request.as_bytes())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            io::Result::Ok(answer)
        };
        ask().unwrap_or_else(|error| panic!("ask {address} with {request:?}: {error}"))
    }

    /// The PID, for /proc and for kill.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The working directory of the server.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The number of descriptors that the process has open.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("list /proc/PID/fd").count()
    }

    /// The number of descriptors that are sockets.
    pub fn sockets(&self) -> usize {
        let entries = fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("list /proc/PID/fd");
        // A descriptor that was closed since the listing is not counted.
        let targets = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
    }

    /// The memory that the process occupies, in bytes.
    pub fn resident_bytes(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("read /proc/PID/status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a resident size");
        line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number of kB") * 1024
    }

    /// Kills the process with SIGKILL.
    pub fn kill9(&mut self) {
        self.end_expected = true;
        self.child.kill().expect("kill the server");
        self.child.wait().expect("wait for the server");
    }

    /// Freezes the process with SIGSTOP: its connections stay open and take bytes, but nothing
    /// answers.
    pub fn stop(&self) {
        freeze(self.pid());
    }

    /// Resumes the process after [`TestServer::stop`].
    pub fn cont(&self) {
        signal(self.pid(), "CONT");
    }

    /// Kills the process, if it has not exited before.
    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        watchdog::release(&self.child, false);
    }

    /// Describes the errors of the process at the end of its test.
    fn trouble(&mut self) -> Option<String> {
        if let Some(status) = self.child.try_wait().expect("wait for the server") {
            return (!self.end_expected)
                .then(|| format!("has ended by itself ({status}), which the test did not expect"));
        }
        // The descriptors of a process that has exited are closed with it.
        if self.end_expected {
            return None;
        }
        let Margin(mut margin) = Margin::AFTER_A_TEST;
        margin.resident += self.builder.keeps;
        let leak = wait_given_back(self.pid(), self.footprint, Margin(margin)).err();
        let leak = leak.or_else(|| self.builder.database.as_ref()?.leak());
        let leak = leak.or_else(|| self.builder.redis.as_ref()?.leak());
        leak.map(|leak| format!("has leaked: {leak}"))
    }

    /// Asks the process to exit (SIGTERM) and does not wait.
    pub fn terminate(&mut self) {
        self.end_expected = true;
        signal(self.pid(), "TERM");
    }

    /// Notes that the test makes the process exit by itself.
    pub fn expect_exit(&mut self) {
        self.end_expected = true;
    }

    /// Returns the exit status; panics if the process does not exit within `patience`. The
    /// [output](Self::output) is complete then.
    pub fn wait_exit(&mut self, patience: Duration) -> ExitStatus {
        wait_within(patience, "the server's end", || self.has_exited());
        // The threads that read the output may be behind.
        wait_until("the rest of its output is read", || Arc::strong_count(&self.output) == 1);
        self.child.wait().expect("wait for the server")
    }

    /// Whether the process has exited.
    pub fn has_exited(&mut self) -> bool {
        self.child.try_wait().expect("wait for the server").is_some()
    }

    /// Starts the server again on the same folder; kills the process first if it still runs. The
    /// port is a new one unless the builder has set a fixed one.
    pub fn restart(&mut self) {
        self.end();
        (self.child, self.address, self.output) = self.builder.launch(&self.folder);
        self.footprint = self.builder.footprint(&self.child);
        self.end_expected = false;
    }

    /// The output of the server to stdout and stderr since its start.
    pub fn output(&self) -> String {
        self.output.lock().expect("output").clone()
    }

    /// The text of all its log files.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        let Ok(entries) = fs::read_dir(self.folder.join("logs")) else { return text };
        for entry in entries {
            let mut bytes = Vec::new();
            let path = entry.expect("list the logs").path();
            fs::File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes)).expect("read a log");
            text.push_str(&String::from_utf8_lossy(&bytes));
        }
        text
    }

    /// Waits until the logs contain this text, and returns them. A thread of its own writes log
    /// lines, so an answer may arrive before its line is in the file.
    pub fn logs_with(&self, text: &str) -> String {
        let mut logs = String::new();
        wait_until(&format!("the log says {text:?}"), || {
            logs = self.logs();
            logs.contains(text)
        });
        logs
    }

    /// The server's embedded database, read only.
    pub fn database(&self) -> Connection {
        let connection = Connection::open_with_flags(self.database_path(), OpenFlags::SQLITE_OPEN_READ_ONLY);
        let connection = connection.expect("open the database");
        connection.busy_timeout(PATIENCE).expect("set the busy timeout");
        connection
    }

    /// The number of messages stored for `user`.
    pub fn stored_for(&self, user: i64) -> usize {
        self.count(&format!("SELECT count(*) FROM OfflineMessage WHERE userid = {user}"))
    }

    /// The number of stored messages.
    pub fn stored(&self) -> usize {
        self.count("SELECT count(*) FROM OfflineMessage")
    }

    /// Returns the number that a query returns, on either kind of database.
    pub fn count(&self, query: &str) -> usize {
        if let Some(database) = &self.builder.database {
            return database.count(query);
        }
        let count: i64 = self.database().query_row(query, [], |row| row.get(0)).expect("query the database");
        usize::try_from(count).expect("a count")
    }

    /// Every row of every table, in hexadecimal digits, so that no byte is hidden. `User.state` is
    /// left out, because it is written off the hot path.
    pub fn dump(&self) -> Vec<String> {
        let mut rows = Vec::new();
        for (table, columns) in [
            ("User", "HEX(id), HEX(name), HEX(password)"),
            ("Friend", "HEX(userid), HEX(friendid)"),
            ("AllGroup", "HEX(id), HEX(groupname), HEX(groupdesc)"),
            ("GroupUser", "HEX(groupid), HEX(userid), HEX(grouprole)"),
            ("OfflineMessage", "HEX(userid), HEX(message)"),
        ] {
            let query = format!("SELECT CONCAT_WS(' ', '{table}', {columns}) FROM {table} ORDER BY 1");
            match &self.builder.database {
                Some(database) => rows.extend(database.rows::<String>(&query)),
                None => {
                    let connection = self.database();
                    let mut statement = connection.prepare(&query).expect("a table");
                    let texts = statement.query_map([], |row| row.get::<_, String>(0)).expect("rows of text");
                    rows.extend(texts.map(|text| text.expect("text")));
                }
            }
        }
        rows
    }

    /// Changes the database behind the server's back, on either kind of database.
    pub fn run_sql(&self, sql: &str) {
        if let Some(database) = &self.builder.database {
            return database.run(sql);
        }
        let connection = Connection::open(self.database_path()).expect("open the database");
        connection.busy_timeout(PATIENCE).expect("set the busy timeout");
        connection.execute_batch(sql).expect("change the database");
    }

    /// `User.state` as C++ neighbours see it.
    pub fn state_of(&self, user: i64) -> String {
        let state = match &self.builder.database {
            Some(database) => database.state_of(user),
            None => {
                let query = "SELECT state FROM User WHERE id = ?1";
                let state = self.database().query_row(query, [user], |row| row.get(0));
                state.optional().expect("read a user's state")
            }
        };
        state.unwrap_or_else(|| panic!("no user {user}"))
    }

    /// Waits until `User.state` is `state`: it is written off the hot path.
    pub fn wait_state(&self, user: i64, state: &str) {
        wait_until(&format!("user {user} becomes {state}"), || self.state_of(user) == state);
    }

    fn database_path(&self) -> PathBuf {
        self.folder.join("raybox.db")
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        let trouble = if thread::panicking() { None } else { self.trouble() };
        self.end();
        self.builder.database.iter().for_each(Database::left);
        self.builder.redis.iter().for_each(RedisUse::left);
        if thread::panicking() || trouble.is_some() {
            eprintln!("the server said:\n{}\nits logs:\n{}", self.output(), tail(&self.logs(), 4_000));
        }
        let _ = fs::remove_dir_all(&self.folder);
        if let Some(trouble) = trouble {
            panic!("the server {trouble}");
        }
    }
}

/// Holds the write lock of the server's database until dropped, so that the server cannot write.
pub struct StoreLock(Connection);

impl StoreLock {
    /// Waits for the lock and takes it.
    pub fn take(server: &TestServer) -> StoreLock {
        let connection = Connection::open(server.database_path()).expect("open the database");
        connection.busy_timeout(PATIENCE).expect("set the busy timeout");
        connection.execute_batch("BEGIN IMMEDIATE").expect("take the write lock");
        StoreLock(connection)
    }

    /// Changes the database and releases the lock, so that nothing else can change in between.
    pub fn change(self, sql: &str) {
        self.0.execute_batch(&format!("{sql}; COMMIT")).expect("change the database");
    }
}

impl Drop for StoreLock {
    fn drop(&mut self) {
        let _ = self.0.execute_batch("ROLLBACK");
    }
}

/// At most the last `length` bytes of `text`; they begin with a whole line.
fn tail(text: &str, length: usize) -> &str {
    let mut start = text.len().saturating_sub(length);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    if start == 0 { text } else { text[start..].split_once('\n').map_or("", |(_, rest)| rest) }
}
