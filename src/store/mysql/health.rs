//! [`DatabaseHealth`]: whether the database is alive, so that each call need not find out itself.
//!
//! A call to a database that was stopped or cut off waits for its whole timeout, and so does the
//! next one: soon all workers would only wait. So one thread, `mysql-sign`, asks for a sign of life
//! on its own connection, and while there is none every call fails at once.
//!
//! ```text
//!   up ──── no answer to the check or to a call ────▶ down      calls fail at once
//!   up ◀─── the check is answered, again every 500 ms ─ down
//! ```
//! A database that answers may still be unusable: read-only, full, or without a right or table that
//! this server needs. Calls may still try, but the node is not ready. The check finds this by
//! storing a message for user 0 every few seconds (`probe.rs`), and a failing call finds it too.
//! Trouble that a call has met is over when such a message can be stored on a connection of the
//! pool.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mysql::Conn;
use parking_lot::{Condvar, Mutex};
use pool::{ConnectionPool, Outage};

use super::error::{self, Trouble};
use super::patrol::Patrol;
use super::probe::Probe;
use super::servers::MysqlServers;
use crate::store::StoreCallback;

/// The known state of the database. Dropping it ends the thread.
pub(super) struct DatabaseHealth {
    shared: Arc<HealthCore>,
    probe: Probe,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct HealthCore {
    /// A leaf lock.
    state: Mutex<Signs>,
    news: Condvar,
    /// The callback for the beginning of trouble. Locked during the call, so the callback must not
    /// call back.
    on_trouble: Mutex<Option<StoreCallback>>,
}

#[derive(Default)]
struct Signs {
    /// The time since which the database has not answered, and the reason.
    down: Option<(Instant, Arc<str>)>,
    /// The reason why the database answers, but refuses what this server needs.
    refusal: Option<Arc<str>>,
    /// The current refusal and its beginning, for the log.
    refusing: Outage,
    /// A refusal that a call has met since the last check.
    met: Option<Arc<str>>,
    /// The time at which the current check began. It may wait for a name server, for example.
    looking_since: Option<Instant>,
    /// Whether a call has met something unusual, so that the database must be checked now.
    is_suspect: bool,
    is_closing: bool,
}

impl DatabaseHealth {
    /// Starts the thread. `connection` was opened by `servers`, whose timeouts bound a check.
    pub(super) fn watch(
        connection: Conn,
        servers: MysqlServers,
        pool: Arc<ConnectionPool<Conn>>,
        name: String,
        probe: Probe,
    ) -> io::Result<DatabaseHealth> {
        let shared = Arc::new(HealthCore::default());
        let connection = Some(connection);
        let mut watcher = Watcher {
            connection,
            moves: servers.moves(),
            patrol: Patrol::default(),
            servers,
            pool,
            name,
            probe,
            was_barred: false,
            was_unclear: false,
            written: None,
            stalls: None,
            waits: None,
        };
        let watched = shared.clone();
        let run = move || watched.run(&mut watcher);
        let thread = thread::Builder::new().name("mysql-sign".to_owned()).spawn(run)?;
        Ok(DatabaseHealth { shared, probe, thread: Some(thread) })
    }

    /// Has `look` called, from any thread, when the database can no longer be used.
    pub(super) fn on_trouble(&self, look: StoreCallback) {
        *self.shared.on_trouble.lock() = Some(look);
    }

    /// Whether a message can be stored through this connection, tried with a message for nobody.
    pub(super) fn probe(&self, connection: &mut Conn) -> mysql::Result<()> {
        self.probe.write(connection)
    }

    /// The reason why the database cannot be used, if any.
    pub(super) fn outage(&self) -> Option<Arc<str>> {
        let state = self.shared.state.lock();
        let is_late = || state.looking_since.is_some_and(|since| since.elapsed() > LOOK_PATIENCE);
        let down = state.down.as_ref().map(|(_, cause)| cause.clone());
        down.or_else(|| is_late().then(|| "no answer in time".into()))
    }

    /// The reason why the database cannot be used although calls may try: it is read-only,
    /// for example, or a table is missing.
    pub(super) fn refusal(&self) -> Option<Arc<str>> {
        let state = self.shared.state.lock();
        state.met.clone().or_else(|| state.refusal.clone())
    }

    /// Notes that a call was refused for a reason other than its values.
    pub(super) fn met(&self, cause: &str) {
        let mut state = self.shared.state.lock();
        let begins = state.met.is_none() && state.refusal.is_none();
        state.met.get_or_insert_with(|| cause.into());
        state.is_suspect = true;
        self.shared.news.notify_one();
        drop(state);
        self.shared.tell_trouble(begins);
    }

    /// Notes that a call got no answer. Other calls need not try until a check is answered.
    pub(super) fn fell_silent(&self, cause: &str) {
        let mut state = self.shared.state.lock();
        let begins = state.down.is_none();
        state.down.get_or_insert_with(|| (Instant::now(), cause.into()));
        state.is_suspect = true;
        self.shared.news.notify_one();
        drop(state);
        self.shared.tell_trouble(begins);
    }

    /// Notes that a call has lost its connection or got none: the next check is made at once.
    pub(super) fn suspect(&self) {
        self.shared.state.lock().is_suspect = true;
        self.shared.news.notify_one();
    }
}

impl Drop for DatabaseHealth {
    fn drop(&mut self) {
        self.shared.state.lock().is_closing = true;
        self.shared.news.notify_one();
        // A check under way is not waited for; its bounds are seconds.
        drop(self.thread.take());
    }
}

impl HealthCore {
    fn tell_trouble(&self, begins: bool) {
        if begins && let Some(look) = &*self.on_trouble.lock() {
            look();
        }
    }

    fn run(&self, watcher: &mut Watcher) {
        let mut outage = Outage::default();
        loop {
            let mut state = self.state.lock();
            if !state.is_suspect && !state.is_closing {
                self.news.wait_for(&mut state, CHECK_EVERY);
            }
            if state.is_closing {
                return;
            }
            state.is_suspect = false;
            let has_met = state.met.is_some() || state.refusal.is_some();
            let is_down = state.down.is_some();
            state.looking_since = Some(Instant::now());
            drop(state);
            // Without this thread nobody would notice that the database is gone, or back.
            let found = catch_unwind(AssertUnwindSafe(|| watcher.look(has_met, is_down)));
            self.state.lock().looking_since = None;
            match found.unwrap_or_else(|_| Err("the driver panicked".to_owned())) {
                Ok(LookResult::Unclear) => {}
                Ok(LookResult::Answers { refusal }) => {
                    self.note_refusal(refusal, has_met, &watcher.name);
                    let was_down = self.state.lock().down.take();
                    if was_down.is_some() {
                        // The servers of all open connections may be gone, or still be executing an
                        // old statement.
                        watcher.pool.renew();
                        watcher.pool.try_now();
                        if let Some(lasted) = outage.end() {
                            log::warn!("{} answers again after {lasted}", watcher.name);
                        }
                    }
                    if has_met {
                        // A call that meets the trouble again would otherwise cause another check
                        // at once.
                        self.pause();
                    }
                }
                Err(cause) => {
                    if outage.begin() {
                        log::error!("{} does not answer: {cause}; trying again every {CHECK_EVERY:?}", watcher.name);
                    }
                    let mut state = self.state.lock();
                    let begins = state.down.is_none();
                    let since = state.down.take().map_or_else(Instant::now, |(since, _)| since);
                    state.down = Some((since, cause.into()));
                    drop(state);
                    self.tell_trouble(begins);
                    // A refusal comes at once, and would otherwise be checked again at once.
                    self.pause();
                }
            }
        }
    }

    /// Logs one line when the database begins to refuse, and one when it no longer does. `has_met`:
    /// whether this check also repeated what calls had been refused.
    fn note_refusal(&self, refusal: Option<String>, has_met: bool, name: &str) {
        let mut state = self.state.lock();
        let begins = refusal.is_some() && state.refusing.begin();
        let lasted = if refusal.is_none() { state.refusing.end() } else { None };
        // This check has repeated what calls had been refused before it. Refusals during the check
        // are left for the next one.
        if has_met {
            state.met = None;
        }
        state.refusal = refusal.as_deref().map(Arc::from);
        drop(state);
        if let Some(cause) = refusal.as_ref().filter(|_| begins) {
            log::error!("{name} cannot be used: {cause}");
        }
        if let Some(lasted) = lasted {
            log::warn!("{name} can be used again after {lasted}");
        }
        self.tell_trouble(begins);
    }

    /// Waits for the time of the next check, even if a call asks for one earlier.
    fn pause(&self) {
        let until = Instant::now() + CHECK_EVERY;
        let mut state = self.state.lock();
        while !state.is_closing && !self.news.wait_until(&mut state, until).timed_out() {}
        state.is_suspect = true;
    }
}

/// The data of the thread.
struct Watcher {
    connection: Option<Conn>,
    servers: MysqlServers,
    /// The number of moves between servers when the connection was opened.
    moves: u64,
    patrol: Patrol,
    pool: Arc<ConnectionPool<Conn>>,
    name: String,
    probe: Probe,
    /// The time of the last attempt to store a message for nobody on this thread's connection.
    written: Option<Instant>,
    /// The error of the last such message, if it was not stored in time although the database
    /// answers.
    stalls: Option<String>,
    /// The beginning of the checks, up to the last one, that another program's locks have kept
    /// waiting, and the error of the last one.
    waits: Option<(Instant, String)>,
    /// Whether the last connection led to a server that takes no writes, or its user had no right.
    was_barred: bool,
    /// Whether the last check had no result.
    was_unclear: bool,
}

/// The result of a look.
enum LookResult {
    /// The database answers, and may refuse what this server needs.
    Answers { refusal: Option<String> },
    /// No result. Every connection was closed during the check, perhaps by a person who kills
    /// connections. The state stays as it was, and the next check decides.
    Unclear,
}

impl From<Option<String>> for LookResult {
    fn from(refusal: Option<String>) -> LookResult {
        LookResult::Answers { refusal }
    }
}

impl Watcher {
    /// Whether the database answers, and what it refuses. `has_met`: it refused something before,
    /// to this thread or to a call. `is_down`: it did not answer before.
    ///
    /// # Errors
    /// The database does not answer, and why.
    fn look(&mut self, has_met: bool, is_down: bool) -> Result<LookResult, String> {
        let may_be_unclear = !is_down && !std::mem::take(&mut self.was_unclear);
        let found = self.look_here(may_be_unclear)?;
        if let LookResult::Answers { refusal: None } = found {
            self.patrol.go(&self.servers);
        }
        match found {
            LookResult::Answers { refusal: None } if has_met => Ok(self.look_as_a_call().into()),
            found => {
                self.was_unclear = matches!(found, LookResult::Unclear);
                Ok(found)
            }
        }
    }

    /// Checks on this thread's own connection.
    fn look_here(&mut self, may_be_unclear: bool) -> Result<LookResult, String> {
        if self.moves != self.servers.moves() {
            self.connection = None;
        }
        let Some(mut connection) = self.connection.take() else { return self.look_anew(may_be_unclear) };
        if let Err(error) = self.probe(&mut connection) {
            match error::trouble(&error) {
                // Another program works on a table, which is trouble only if it goes on for long.
                Trouble::Locked | Trouble::Waited => {}
                // The connection may have been closed alone. If the database was restarted, all
                // others are closed too. If the server no longer takes writes, a new connection may
                // lead to one that does.
                trouble @ (Trouble::Lost | Trouble::Barred) => {
                    self.pool.renew();
                    if trouble == Trouble::Barred && self.servers.are_several() {
                        self.servers.move_on();
                    }
                    return self.look_anew(may_be_unclear);
                }
                // Another of several servers may answer.
                Trouble::Silent if self.servers.are_several() && self.stalls.is_none() => {
                    self.servers.move_on();
                    return self.look_anew(may_be_unclear);
                }
                // Another attempt would take as long again. The connection still waits for its
                // answer, so it is closed.
                Trouble::Silent => return self.silence(&error),
                Trouble::Busy | Trouble::TooLarge | Trouble::Refused | Trouble::Unknown => {
                    self.connection = Some(connection);
                    return Ok(Some(error::text(&error)).into());
                }
            }
        }
        self.connection = Some(connection);
        Ok(self.stall().into())
    }

    /// Checks on a new connection. If it is closed during the check, another one is opened, because
    /// somebody may have killed the first.
    fn look_anew(&mut self, may_be_unclear: bool) -> Result<LookResult, String> {
        let mut closed = String::new();
        for _ in 0..LOOK_CONNECTIONS_MAX {
            match self.look_on_new_connection() {
                Ok(found) => return found,
                Err(error) => closed = error::text(&error),
            }
        }
        if may_be_unclear { Ok(LookResult::Unclear) } else { Err(closed) }
    }

    /// Checks on one new connection.
    ///
    /// # Errors
    /// The connection was closed during the check.
    fn look_on_new_connection(&mut self) -> mysql::Result<Result<LookResult, String>> {
        self.moves = self.servers.moves();
        let mut connection = match self.servers.connect() {
            Ok(connection) => connection,
            // The database runs, but has no free connection for this thread, and perhaps for no
            // other one.
            Err(error) if matches!(error::trouble(&error), Trouble::Busy | Trouble::Barred) => {
                let (open, _) = self.pool.size();
                return Ok(Ok((open == 0).then(|| error::text(&error)).into()));
            }
            Err(error) if error::is_closed(&error) => return Err(error),
            Err(error) => return Ok(Err(error::text(&error))),
        };
        if let Err(error) = self.probe(&mut connection) {
            match error::trouble(&error) {
                Trouble::Locked | Trouble::Waited => {}
                Trouble::Silent => return Ok(self.silence(&error)),
                Trouble::Lost => return Err(error),
                // The next check uses a new connection again, which may lead elsewhere.
                Trouble::Barred => {
                    self.was_barred = true;
                    self.servers.move_on();
                    return Ok(Ok(Some(error::text(&error)).into()));
                }
                Trouble::Busy | Trouble::TooLarge | Trouble::Refused | Trouble::Unknown => {
                    self.connection = Some(connection);
                    return Ok(Ok(Some(error::text(&error)).into()));
                }
            }
        }
        if std::mem::take(&mut self.was_barred) {
            self.pool.renew();
        }
        self.connection = Some(connection);
        Ok(Ok(self.stall().into()))
    }

    fn probe(&mut self, connection: &mut Conn) -> mysql::Result<()> {
        let began = Instant::now();
        let done = self.look_or_write(connection);
        let waited = done.as_ref().err().filter(|error| error::trouble(error) == Trouble::Waited);
        let since = self.waits.take().map_or(began, |(since, _)| since);
        self.waits = waited.map(|error| (since, error::text(error)));
        done
    }

    /// Usually does the least, because every node checks twice a second, and a write costs the
    /// database a sync and an entry in its binary log.
    fn look_or_write(&mut self, connection: &mut Conn) -> mysql::Result<()> {
        if self.written.is_some_and(|at| at.elapsed() < WRITE_EVERY) {
            return self.probe.look(connection);
        }
        // A database that does not answer this is down. One that answers, but stores nothing in
        // time, can still be read.
        self.probe.look(connection)?;
        let done = self.probe.write_after_look(connection);
        self.stalls = match &done {
            Err(error) if error::trouble(error) == Trouble::Silent => Some(error::text(error)),
            _ => None,
        };
        if done.is_ok() || self.stalls.is_some() {
            self.written = Some(Instant::now());
        }
        done
    }

    /// The reason why nothing is stored although the database answers, until the next
    /// attempt.
    fn stall(&self) -> Option<String> {
        if let Some(why) = &self.stalls {
            return Some(format!("the database answers, but stores nothing in time: {why}"));
        }
        let (_, why) = self.waits.as_ref().filter(|(since, _)| since.elapsed() > LOCK_PATIENCE)?;
        Some(format!(
            "another program keeps a table of this server locked, for a backup (FLUSH TABLES WITH READ LOCK), a change \
             (ALTER TABLE) or in a transaction, and everything waits for it: {why}"
        ))
    }

    /// Handles a check without an answer in time: the database is down, unless only writes are
    /// stalled.
    fn silence(&self, error: &mysql::Error) -> Result<LookResult, String> {
        self.stall().map(|stall| Some(stall).into()).ok_or_else(|| error::text(error))
    }

    /// Checks on a connection of the pool, with the statements of calls: these may be refused what
    /// this thread's own connection is not.
    fn look_as_a_call(&self) -> Option<String> {
        let mut was_lost = false;
        loop {
            let mut connection = match self.pool.connection() {
                Ok(connection) => connection,
                Err(error) => return Some(error.to_string()),
            };
            let error = self.probe.write(&mut connection).err()?;
            match error::trouble(&error) {
                Trouble::Locked | Trouble::Waited => return None,
                // As a call does.
                Trouble::Lost if !was_lost => {
                    connection.mark_broken();
                    self.pool.renew_since(&connection);
                    was_lost = true;
                }
                Trouble::Lost | Trouble::Silent | Trouble::Barred => {
                    connection.mark_broken();
                    return Some(error::text(&error));
                }
                _ => return Some(error::text(&error)),
            }
        }
    }
}

/// A check that takes longer than this has failed.
const LOOK_PATIENCE: Duration = Duration::from_secs(3);
const CHECK_EVERY: Duration = Duration::from_millis(500);
/// The most connections that one check opens if each is closed at once. After two such checks in a
/// row, the database counts as down.
const LOOK_CONNECTIONS_MAX: usize = 3;
/// How long other programs may keep checks waiting. One such check takes as long as a connection
/// waits for locks, so this is two of them.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);
/// The interval at which a message for nobody is stored while the database works.
const WRITE_EVERY: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::super::probe::ProbedRow;
    use super::*;

    const NO_PROBE: Probe = Probe { row: ProbedRow::Nothing, has_history: false };

    #[test]
    fn a_look_that_never_ends_is_an_outage() {
        let health = DatabaseHealth { shared: Arc::default(), probe: NO_PROBE, thread: None };
        assert_eq!(health.outage(), None);
        let begin = |ago: Duration| health.shared.state.lock().looking_since = Instant::now().checked_sub(ago);
        begin(Duration::ZERO);
        assert_eq!(health.outage(), None);
        begin(LOOK_PATIENCE * 2);
        assert_eq!(health.outage().as_deref(), Some("no answer in time"));
    }

    #[test]
    fn an_error_met_by_a_call_counts_as_a_refusal_until_the_next_check() {
        let health = DatabaseHealth { shared: Arc::default(), probe: NO_PROBE, thread: None };
        let (tell, told) = std::sync::mpsc::channel();
        health.on_trouble(Box::new(move || tell.send(()).unwrap()));
        health.met("full");
        health.met("something else");
        assert_eq!(told.try_iter().count(), 1, "once, when it begins");
        assert_eq!(health.refusal().as_deref(), Some("full"));
        assert_eq!(health.outage(), None, "calls may try");
        health.shared.note_refusal(None, false, "a database");
        assert_eq!(health.refusal().as_deref(), Some("full"), "the look had begun before, and did not look for it");
        health.shared.note_refusal(Some("full".to_owned()), true, "a database");
        assert_eq!(health.refusal().as_deref(), Some("full"));
        health.shared.note_refusal(None, true, "a database");
        assert_eq!(health.refusal(), None);
    }
}
