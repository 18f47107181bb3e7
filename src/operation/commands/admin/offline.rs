//! `server admin --offline`: administers users and groups of a stopped server, on its database.
//!
//! A server remembers accounts, devices and groups, so nobody changes them behind its back: the
//! file of a single server is locked while it runs, and on MySQL the command asks the database, and
//! Redis if there is one, whether others use it.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::ArgMatches;
use log::{LevelFilter, Log, Metadata, Record};
use serde_json::Value;

use super::client::AdminRequest;
use crate::admission::audit;
use crate::bus::redis::{Survey, survey};
use crate::config::{Config, LogTarget, MysqlSettings, Secret};
use crate::operation::admin::api::{Administrator, ApiCall, decoded};
use crate::operation::commands::CommandError;
use crate::operation::logging::{self, LogGuard};
use crate::store::Store;
use crate::store::mysql::{Maintenance, MysqlStore};
use crate::store::sqlite::SqliteStore;

/// The settings from the options.
pub(super) struct OfflineOptions {
    data: Option<PathBuf>,
    is_forced: bool,
}

impl OfflineOptions {
    /// `None` if the request is for a running server.
    ///
    /// # Errors
    /// Options that have no meaning in that case.
    pub(super) fn of(matches: &ArgMatches) -> Result<Option<OfflineOptions>, CommandError> {
        let data = matches.get_one::<String>("data").map(PathBuf::from);
        let (is_offline, is_forced) = (matches.get_flag("offline"), matches.get_flag("force"));
        match is_offline {
            true if matches.contains_id("address") => {
                Err(refused("--offline asks no server: leave --address out, or --offline"))
            }
            true => Ok(Some(OfflineOptions { data, is_forced })),
            false if data.is_some() || is_forced => Err(refused("--data and --force go with --offline")),
            false => Ok(None),
        }
    }

    /// Carries out the request, and notes it in the log.
    ///
    /// # Errors
    /// [`CommandError`]. Nothing was changed if it is a refusal.
    pub(super) fn answer(
        self,
        request: &AdminRequest,
        env: Vec<(OsString, OsString)>,
        working_dir: &Path,
        assemble: impl FnOnce(&Config, Store) -> Result<Box<dyn Administrator>, String>,
    ) -> Result<Value, CommandError> {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        if !OF_DATABASE.iter().any(|beginning| path.starts_with(beginning)) {
            return Err(refused(
                "this is about a server that runs: leave --offline out, which is for users and groups",
            ));
        }
        let mut config = Config::for_command(None, None, env, working_dir).map_err(refused)?;
        if let Some(data) = &self.data {
            config.data_dir.clone_from(data);
        }
        config.data_dir = working_dir.join(&config.data_dir);
        let only_reads = request.method == "GET";
        // Kept until the end: a migration that begins meanwhile waits for the change.
        let mut _alone = None;
        let store = match &config.mysql {
            None => open_file(&config, only_reads)?,
            Some(settings) => {
                if !only_reads && !self.is_forced {
                    _alone = Some(check_unused(&config, settings)?);
                }
                Store::of(Arc::new(MysqlStore::open(settings).map_err(refused)?))
            }
        };
        let _log = log_to(&config);
        let administrator = assemble(&config, store).map_err(refused)?;
        let call = ApiCall {
            method: request.method.to_owned(),
            path: path.to_owned(),
            query: decoded(query).unwrap_or_default(),
            body: request.body.clone(),
            from: None,
            key: Secret::new(""),
        };
        let answer = administrator.answer(&call);
        match answer.is_done() {
            true => Ok(answer.body),
            false => {
                let why = answer.body["error"].as_str().unwrap_or("without a reason");
                Err(CommandError::unfinished(format_args!("admin: refused ({}): {why}", answer.status)))
            }
        }
    }
}

/// Opens the database of a single server, which no server uses.
fn open_file(config: &Config, only_reads: bool) -> Result<Store, CommandError> {
    let file = config.data_dir.join("raybox.db");
    if !file.exists() {
        let why = "is not there: run this in the folder of server.cnf, or name the folder of the data with --data";
        return Err(refused(format_args!("{} {why}", file.display())));
    }
    let hint = "a server that runs is asked without --offline";
    let open = if only_reads { SqliteStore::open_to_read } else { SqliteStore::open };
    let store = open(&config.data_dir).map_err(|error| refused(format_args!("{error}; {hint}")))?;
    Ok(Store::of(Arc::new(store)))
}

/// Refuses while servers use the database, or may. Otherwise nobody else works on the tables until
/// the result is dropped.
///
/// Redis alone does not know: nodes may have lost it, it may have been started empty, or it may be
/// another one than theirs.
fn check_unused(config: &Config, settings: &MysqlSettings) -> Result<Maintenance, CommandError> {
    let object = |why: &str| {
        Err(refused(format_args!(
            "{why}: leave --offline out and ask one that runs, stop them, or go on nevertheless with --force"
        )))
    };
    if let Some(redis) = &config.redis {
        match survey(redis) {
            Ok(Survey { nodes: 0, has_reference_nodes: false, .. }) => {}
            Ok(Survey { nodes: 0, .. }) => return object("nodes of the reference server use this database"),
            Ok(Survey { nodes, .. }) => return object(&format!("servers that use this database: {nodes}")),
            Err(error) => return object(&format!("servers may use this database: {error}")),
        }
    }
    let waits = || super::say("another server migrate or copy works on this database: waiting for its end");
    let mut database = Maintenance::begin(settings, waits).map_err(refused)?;
    match database.others().map_err(refused)? {
        0 => Ok(database),
        others => object(&format!("a server may use this database, which has {others} other connections")),
    }
}

/// Writes the audit line to the server's log; stdout has the answer.
fn log_to(config: &Config) -> Option<LogGuard> {
    if config.log.to.has_files() {
        let mut config = config.clone();
        config.log.to = LogTarget::File;
        return logging::init(&config).ok();
    }
    static AUDIT: AuditToStderr = AuditToStderr;
    if log::set_logger(&AUDIT).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
    None
}

/// Writes the lines of the audit log to stderr.
struct AuditToStderr;

impl Log for AuditToStderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == audit::TARGET
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let _ = writeln!(io::stderr(), "{}: {}", audit::TARGET, record.args());
        }
    }

    fn flush(&self) {}
}

fn refused(why: impl std::fmt::Display) -> CommandError {
    CommandError::refused(format_args!("admin: {why}"))
}

/// The prefixes of paths that need no server.
const OF_DATABASE: [&str; 2] = ["/v1/users", "/v1/groups"];
