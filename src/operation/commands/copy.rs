//! `server copy`: copies the data of an embedded store into the database of a cluster.
//!
//! Ids, hashed passwords, roles and the order of messages are preserved; all users are offline. The
//! order of the tables makes it safe to repeat:
//!
//! ```text
//!   messages, members, friends, groups      batch by batch: after an interruption, the beginning of the source's rows
//!   users                                   last, and in one transaction: all or none
//! ```
//! As long as there are no users, no user can log in, so no data can have changed: the target must
//! be a prefix of the same source, and the copy continues after it. Once there are users, the copy
//! is complete and is only compared.

use std::ffi::OsString;
use std::path::Path;
use std::time::Instant;

use clap::Arg;

use super::progress::CommandProgress;
use super::{CommandError, grouped, say};
use crate::config::Config;
use crate::operation::resources;
use crate::store::mysql::Maintenance;
use crate::store::mysql::maintenance::TablesState;
use crate::store::mysql::target::{SameName, size};
use crate::store::sqlite::CopySource;
use crate::store::tables::{RowFields, RowKey, Sum, TABLES, Table, USERS};

/// Runs the command with its arguments, which begin with its name.
///
/// # Errors
/// [`CommandError`], one line for the operator.
pub fn run(
    arguments: impl IntoIterator<Item = OsString>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
    working_dir: &Path,
) -> Result<(), CommandError> {
    let Some(matches) = super::arguments(command(), USAGE, arguments)? else { return Ok(()) };
    resources::check_threads_of_command().map_err(CommandError::refused)?;
    let file = |name: &str| matches.get_one::<String>(name).map_or("", String::as_str);
    let config = Config::for_command(Some(file("to")), None, env, working_dir).map_err(CommandError::refused)?;
    let settings = config.mysql.ok_or_else(|| CommandError::refused("copy: --to needs the name of a file"))?;
    let source = CopySource::open(&working_dir.join(file("from"))).map_err(CommandError::refused)?;
    let waits = || say("another server migrate or copy works on this database: waiting for its end");
    let target = Maintenance::begin(&settings, waits).map_err(CommandError::refused)?;
    let mut copy = Copy { source, target, from: file("from").to_owned(), to: file("to").to_owned() };
    copy.check_tables()?;
    copy.run()
}

struct Copy {
    source: CopySource,
    target: Maintenance,
    /// Source and target, as named on the command line.
    from: String,
    to: String,
}

/// A table in both databases.
struct Pair {
    table: &'static Table,
    source: Sum,
    target: Sum,
}

impl Pair {
    fn is_equal(&self) -> bool {
        self.source == self.target
    }
}

impl Copy {
    fn check_tables(&mut self) -> Result<(), CommandError> {
        let need = match self.target.state().map_err(CommandError::refused)? {
            TablesState::UpToDate => return Ok(()),
            TablesState::Empty => "has no tables; make them",
            TablesState::Behind(_) => "has tables of the reference server; bring them up to date",
            TablesState::Newer(_) | TablesState::Foreign(_) => "has tables of another kind; see what is wrong",
        };
        let (name, to) = (self.target.name(), &self.to);
        Err(CommandError::refused(format_args!("copy: {name} {need} with: server migrate --mysql {to}")))
    }

    fn run(&mut self) -> Result<(), CommandError> {
        let begun = Instant::now();
        let pairs = self.compare().map_err(|error| CommandError::Refused(error.to_string()))?;
        if pairs.iter().all(Pair::is_equal) {
            self.show(&pairs);
            say(format_args!("nothing to do: all of {} is copied already", self.from));
            return Ok(());
        }
        self.check_beginnings(&pairs)?;
        self.check_sizes()?;
        self.check_names()?;
        for pair in pairs.iter().filter(|pair| pair.table.name != USERS.name) {
            self.copy_table(pair.table, pair.target.last)?;
        }
        for pair in &pairs {
            self.set_number(pair)?;
        }
        self.target.begin_transaction().map_err(unfinished)?;
        self.copy_table(&USERS, RowKey::FIRST)?;
        self.target.commit().map_err(unfinished)?;
        let pairs = self.compare()?;
        self.show(&pairs);
        if !pairs.iter().all(Pair::is_equal) {
            return Err(CommandError::unfinished(format_args!(
                "copy: the copy in {} differs from {}, do not use it: make the database anew and copy again",
                self.target.name(),
                self.from
            )));
        }
        let seconds = begun.elapsed().as_secs_f64();
        say(format_args!(
            "done in {seconds:.1} s. Start the servers with {}, and keep {} as a backup.",
            self.to, self.from
        ));
        Ok(())
    }

    /// Computes the checksum of every table in both databases.
    fn compare(&mut self) -> Result<Vec<Pair>, CommandError> {
        let progress = CommandProgress::of_unknown("comparing");
        let mut pairs = Vec::new();
        for table in TABLES {
            let source = self.source.sum(table, RowKey::LAST)?;
            let target = self.target.sum(table).map_err(unfinished)?;
            pairs.push(Pair { table, source, target });
        }
        progress.finish("both are compared");
        Ok(pairs)
    }

    /// Refuses a target that contains anything other than a prefix of this source, without users.
    fn check_beginnings(&self, pairs: &[Pair]) -> Result<(), CommandError> {
        let has_users = pairs.iter().any(|pair| pair.table.name == USERS.name && pair.target.rows > 0);
        let mut others = Vec::new();
        for pair in pairs.iter().filter(|pair| !pair.is_equal()) {
            let Pair { table, target, .. } = pair;
            if has_users || (target.rows > 0 && self.source.sum(table, target.last)? != *target) {
                others.push(table.name);
            }
        }
        if others.is_empty() {
            return Ok(());
        }
        self.show(pairs);
        Err(CommandError::refused(format_args!(
            "copy: {} holds other data, or a copy that is in use: what differs from {} is in {}; name an empty database \
             by the key dbname in {}",
            self.target.name(),
            self.from,
            others.join(", "),
            self.to
        )))
    }

    fn check_sizes(&mut self) -> Result<(), CommandError> {
        let (longest, limit) = (self.source.longest_message()?, self.target.longest_text().map_err(unfinished)?);
        if longest <= limit {
            return Ok(());
        }
        Err(CommandError::refused(format_args!(
            "copy: {} holds a message of {} bytes, and {} takes at most {}; raise its max_allowed_packet",
            self.from,
            grouped(longest),
            self.target.name(),
            grouped(limit)
        )))
    }

    /// Tests whether the database accepts all users, and rolls back: it may treat names as equal
    /// that this server distinguishes.
    fn check_names(&mut self) -> Result<(), CommandError> {
        let refused = |error| CommandError::refused(format_args!("copy: the users do not fit: {error}"));
        let mut same = Vec::new();
        let mut progress = CommandProgress::of_rows("trying names", self.source.count(&USERS, RowKey::FIRST)?);
        let (source, target) = (&self.source, &mut self.target);
        target.begin_transaction().map_err(unfinished)?;
        in_batches(source, &USERS, RowKey::FIRST, |rows| {
            target.insert_users(rows, &mut same).map_err(refused)?;
            progress.advance(rows.len() as u64);
            Ok(())
        })?;
        target.roll_back().map_err(unfinished)?;
        progress.finish("the names of all users are checked");
        if same.is_empty() { Ok(()) } else { Err(self.same_names(&same)) }
    }

    fn same_names(&self, same: &[SameName]) -> CommandError {
        let user = |(id, name): &(i64, String)| format!("{id} {name:?}");
        let mut pairs: Vec<String> = same
            .iter()
            .take(NAMES_SHOWN)
            .map(|one| format!("{} and {}", user(&one.first), user(&one.second)))
            .collect();
        if same.len() > NAMES_SHOWN {
            pairs.push(format!("and {} more", same.len() - NAMES_SHOWN));
        }
        CommandError::refused(format_args!(
            "copy: to {} these users have the same name: {}; nothing was copied; give one of each another name in {} \
             (columns name and name_key of the table User)",
            self.target.name(),
            pairs.join("; "),
            self.from
        ))
    }

    /// Copies the rows after `after`.
    fn copy_table(&mut self, table: &'static Table, after: RowKey) -> Result<(), CommandError> {
        let rows = self.source.count(table, after)?;
        let mut progress = CommandProgress::of_rows(table.name, rows);
        let target = &mut self.target;
        in_batches(&self.source, table, after, |rows| {
            target.insert(table, rows).map_err(unfinished)?;
            progress.advance(rows.len() as u64);
            Ok(())
        })?;
        let before = if after == RowKey::FIRST { "" } else { ", which were missing" };
        progress.finish(&format!("{}: {} rows are copied{before}", table.name, grouped(rows)));
        Ok(())
    }

    /// Ensures that no id is used again, including ids of deleted rows.
    fn set_number(&mut self, pair: &Pair) -> Result<(), CommandError> {
        if !pair.table.numbers_itself {
            return Ok(());
        }
        let highest = self.source.highest_ever(pair.table)?;
        if highest > pair.source.last.0 {
            self.target.number_after(pair.table, highest).map_err(unfinished)?;
        }
        Ok(())
    }

    fn show(&self, pairs: &[Pair]) {
        say(format_args!(
            "\n{:14} {:>12} {:>12}  {:16}  checksum here",
            "table", "rows there", "rows here", "checksum there"
        ));
        for Pair { table, source, target } in pairs {
            let verdict = if source == target { "equal" } else { "DIFFERENT" };
            say(format_args!(
                "{:14} {:>12} {:>12}  {:16}  {:16}  {verdict}",
                table.name,
                grouped(source.rows),
                grouped(target.rows),
                source.checksum.to_string(),
                target.checksum.to_string()
            ));
        }
        say(format_args!("there: {}, here: {}\n", self.from, self.target.name()));
    }
}

/// Passes `each` the rows after `after` in batches: many rows, or fewer if they are long.
fn in_batches(
    source: &CopySource,
    table: &Table,
    after: RowKey,
    mut each: impl FnMut(&[RowFields]) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    source.for_each(table, after, RowKey::LAST, |row| {
        bytes += size(&row);
        batch.push(row);
        if batch.len() == BATCH_ROWS || bytes >= BATCH_BYTES {
            each(&batch)?;
            batch.clear();
            bytes = 0;
        }
        Ok::<(), CommandError>(())
    })?;
    if batch.is_empty() { Ok(()) } else { each(&batch) }
}

fn unfinished(error: impl std::fmt::Display) -> CommandError {
    CommandError::unfinished(format_args!(
        "copy: not finished: {error}; then run the same command again, which goes on"
    ))
}

fn command() -> clap::Command {
    let file =
        |name: &'static str, help: &'static str| Arg::new(name).long(name).value_name("FILE").required(true).help(help);
    clap::Command::new("server copy")
        .about(
            "Copies accounts, friends, groups and stored messages of a single server into the database of a \
            cluster.",
        )
        .override_usage(USAGE)
        .after_help(AFTER_HELP)
        .arg(file("from", "The single server's database, raybox.db, or its folder; the server must be stopped"))
        .arg(file("to", "The settings of the database, as in mysql.cnf"))
}

const USAGE: &str = "server copy --from FILE --to FILE";
const AFTER_HELP: &str = "\
The database must hold the tables (server migrate --mysql FILE makes them), and
no data other than an interrupted copy of the same file: if a copy was
interrupted, run the command again. A complete copy is compared and left as it
is. The file of --from is not changed. Users are copied last, so nobody can log
in before everything else is there. It needs the rights SELECT, INSERT, CREATE
and ALTER on the database.

Exit code: 0 done or nothing to do, 1 not finished, 2 refused and nothing
copied.";

const BATCH_ROWS: usize = 512;
const BATCH_BYTES: usize = 1 << 20;
const NAMES_SHOWN: usize = 20;
