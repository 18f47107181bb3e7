//! [`Reloader`]: reloads the settings, the certificates and the keys of JSON web tokens, after a
//! signal or at an administrator's request. If anything is wrong, nothing changes, and one line
//! states the reason.
//!
//! Its thread, named `settings`, also checks the certificates and the keys by itself, and then
//! reloads only them.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::admin::guard::AccessGuard;
use super::certificates::{CertificateFiles, Looked};
use super::jwt_key_file::{JwtFileError, JwtKeyFile};
use super::logging::LogControl;
use super::supervisor::Supervisor;
use crate::config::Config;
use crate::hooks::poster::{HookControl, HookSettings};

/// The way to the thread. Cloning shares it.
#[derive(Clone)]
pub struct Reloader {
    orders: Sender<ReloadOrder>,
    log: LogControl,
    supervisor: Supervisor,
}

/// The receiver of the result; `None`: it goes into the log only.
type ReloadOrder = Option<Sender<Result<Reloaded, ReloadError>>>;

/// The parts of the server whose settings can change while it runs.
pub struct Reloadable {
    /// The log.
    pub log: LogControl,
    /// The certificates of the client port, if it uses TLS.
    pub certificates: Option<Arc<CertificateFiles>>,
    /// The keys of JSON web tokens, if users may log in with them.
    pub jwt_keys: Option<Arc<JwtKeyFile>>,
    /// The key of administrators, if there is an admin port.
    pub guard: Option<Arc<AccessGuard>>,
    /// The hook, if there is one.
    pub hook: Option<Arc<HookControl>>,
    /// The service manager, which is notified.
    pub supervisor: Supervisor,
}

/// The result of a reload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reloaded {
    /// The keys that have changed since the last reload, and take effect now.
    pub applied: Vec<&'static str>,
    /// The keys that have changed, and take effect at the next start.
    pub waiting: Vec<&'static str>,
    /// The result of checking the certificates, if there are any.
    pub certificates: Option<Looked>,
    /// The result of checking the keys of JSON web tokens, if there are any.
    pub jwt_keys: Option<Looked>,
}

/// The reason why a reload has failed: the server keeps the previous settings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReloadError {
    /// The settings or the certificates are wrong: one line with the place.
    Wrong(String),
    /// Too many reloads are waiting; nothing is read for this one.
    Full,
    /// The thread is blocked: its disk does not answer.
    Late,
}

impl Reloader {
    /// Starts the thread. `before` are the settings of the start, which `load` reads again.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(
        before: Config,
        parts: Reloadable,
        load: impl Fn() -> Result<Config, String> + Send + 'static,
    ) -> io::Result<Reloader> {
        let (orders, ordered) = bounded(ORDERS_MAX);
        let (log, supervisor) = (parts.log.clone(), parts.supervisor.clone());
        let reading = Reading { now: before.clone(), before, parts };
        thread::Builder::new().name("settings".to_owned()).spawn(move || reading.run(&ordered, load))?;
        Ok(Reloader { orders, log, supervisor })
    }

    /// Has the log file reopened, and the settings reloaded soon. Never blocks.
    pub fn ask(&self) {
        self.supervisor.reloading();
        self.log.reopen();
        // If the channel is full, a reload follows anyway.
        let _ = self.orders.try_send(None);
    }

    /// The same, but waits for the result.
    ///
    /// # Errors
    /// [`ReloadError`].
    pub fn reload(&self) -> Result<Reloaded, ReloadError> {
        self.supervisor.reloading();
        self.log.reopen();
        let (result, answer) = bounded(1);
        self.orders.try_send(Some(result)).map_err(|_| ReloadError::Full)?;
        answer.recv_timeout(PATIENCE).unwrap_or(Err(ReloadError::Late))
    }
}

/// The work of the thread.
struct Reading {
    /// The settings of the start.
    before: Config,
    /// The settings in effect: those of the start with later changes.
    now: Config,
    parts: Reloadable,
}

impl Reading {
    fn run(mut self, ordered: &Receiver<ReloadOrder>, load: impl Fn() -> Result<Config, String>) {
        loop {
            let order = match ordered.recv_timeout(FILES_EVERY) {
                Ok(order) => Some(order),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let Some(waiter) = order else {
                if let Some(files) = &self.parts.certificates {
                    files.look_again(SystemTime::now());
                }
                if let Some(file) = &self.parts.jwt_keys {
                    file.look_again();
                }
                continue;
            };
            let read = self.read(&load);
            if let Err(error) = &read {
                log::error!("nothing was reloaded: {error}");
            }
            self.parts.supervisor.reloaded();
            if let Some(waiter) = waiter {
                // The caller may have stopped waiting.
                let _ = waiter.send(read);
            }
        }
    }

    /// Reads everything. On an error nothing changes. Only the certificates can still fail when
    /// they are used, so the rest is used after them.
    fn read(&mut self, load: impl Fn() -> Result<Config, String>) -> Result<Reloaded, ReloadError> {
        let read = load().map_err(ReloadError::Wrong)?;
        let wrong = |error: JwtFileError| ReloadError::Wrong(error.to_string());
        let jwt_keys = self.parts.jwt_keys.as_ref().map(|file| file.read()).transpose().map_err(wrong)?;
        let renewed = self.parts.certificates.as_ref().map(|files| files.renew_now(SystemTime::now()));
        let certificates = renewed.transpose().map_err(|error| ReloadError::Wrong(error.to_string()))?;
        let jwt_keys = self.parts.jwt_keys.as_ref().zip(jwt_keys).map(|(file, new)| file.renew(new));
        Ok(self.apply(read, certificates, jwt_keys))
    }

    /// Names changed settings that take effect only at the next start.
    fn apply(&mut self, read: Config, certificates: Option<Looked>, jwt_keys: Option<Looked>) -> Reloaded {
        let hook = self.parts.hook.as_ref().zip(HookSettings::of(&read));
        // Whether there is a hook at all is decided at the start.
        let at_once = |key: &&'static str| AT_ONCE.contains(key) || hook.is_some() && OF_HOOK.contains(key);
        let applied: Vec<_> = read.differences(&self.now).into_iter().filter(at_once).collect();
        let waiting: Vec<_> = read.differences(&self.before).into_iter().filter(|key| !at_once(key)).collect();
        self.parts.log.set_levels(&read.log.level);
        if let Some(guard) = &self.parts.guard {
            guard.change(&read.admin_key, &read.admin_hosts);
        }
        if let Some((control, settings)) = hook {
            control.change(settings);
        }
        self.now = read;
        for key in applied.iter().filter(|key| **key != "log_level") {
            log::info!("{key} has changed and is in effect");
        }
        if waiting.is_empty() {
            log::info!("the log file was opened again, and log_level was read again");
        } else {
            log::warn!(
                "log_level was read again; other settings have changed and take effect when the server starts again: {}",
                waiting.join(", ")
            );
        }
        Reloaded { applied, waiting, certificates, jwt_keys }
    }
}

impl fmt::Display for ReloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReloadError::Wrong(error) => {
                write!(f, "settings and certificates from before stay in effect: {error}")
            }
            ReloadError::Full => write!(f, "{ORDERS_MAX} reloads wait already, try again when they are done"),
            ReloadError::Late => {
                f.write_str("the settings were not read in time: does the disk answer? the log says when they are")
            }
        }
    }
}

/// The settings that take effect at once, in addition to the contents of the certificates.
const AT_ONCE: [&str; 3] = ["log_level", "admin_key", "admin_hosts"];
/// The settings that take effect at once if there was a hook at the start.
const OF_HOOK: [&str; 5] = ["hook_url", "hook_key", "hook_delay", "hook_private", "hook_waiting"];
/// The most requests that wait for the thread.
const ORDERS_MAX: usize = 4;
/// How long an administrator waits for the result.
const PATIENCE: Duration = Duration::from_secs(10);
/// The interval between checks of the certificates and keys. A program that renews them need not
/// send a signal.
const FILES_EVERY: Duration = Duration::from_secs(60);
