//! The rate at which history commits messages, and the longest commits, by how many messages are
//! committed together and over how many conversations they are spread.
//!
//! On SQLite, in the folder `HISTORY_BENCH_DIR` or a temporary one: a folder in memory would
//! measure no disk. If `HISTORY_BENCH_MYSQL` names a `mysql.cnf`, on that database too; it gets new
//! users and keeps them. `HISTORY_BENCH_ROUNDS` is how often each case is measured (1), both
//! databases in turn; the line then is that of the median rate.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

use raybox::base::conversation::ConversationId;
use raybox::config::Config;
use raybox::protocol::UserId;
use raybox::store::Accounts;
use raybox::store::history::{Cid, CommitRules, EntryKind, FrameHash, History, NewEntry, SenderCheck};
use raybox::store::mysql::MysqlStore;
use raybox::store::sqlite::SqliteStore;

fn main() {
    let mysql = env::var("HISTORY_BENCH_MYSQL").ok().map(|file| {
        let folder = env::current_dir().expect("a folder to work in");
        let config = Config::for_command(Some(&file), None, [], &folder).expect("settings of a database");
        MysqlStore::open(&config.mysql.expect("mysql.cnf names a database")).expect("the database opens")
    });
    let rounds = env::var("HISTORY_BENCH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1);
    println!(
        "{:>8} {:>14} {:>9} {:>8} {:>11} {:>9} {:>9} {:>9}",
        "", "conversations", "together", "threads", "messages/s", "p50 ms", "p99 ms", "max ms"
    );
    for case in CASES {
        let (mut embedded, mut shared) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let folder = Folder::new();
            // One thread writes into a file, so more would only wait for each other.
            if case.threads == 1 {
                embedded.push(measure(&SqliteStore::open(&folder.0).expect("a new store opens"), case));
            }
            shared.extend(mysql.as_ref().map(|store| measure(store, case)));
        }
        show("SQLite", case, embedded);
        show("MySQL", case, shared);
    }
}

const RULES: CommitRules = CommitRules { edit_window: 0, conversations_max: 20_000 };

/// A load to measure.
#[derive(Clone, Copy)]
struct Case {
    conversations: usize,
    together: u64,
    /// Each has its own part of the conversations.
    threads: usize,
}

const CASES: [Case; 7] = [
    Case { conversations: 2_000, together: 1, threads: 1 },
    Case { conversations: 2_000, together: 32, threads: 1 },
    Case { conversations: 2_000, together: 512, threads: 1 },
    Case { conversations: 50, together: 32, threads: 1 },
    Case { conversations: 50, together: 512, threads: 1 },
    Case { conversations: 2_000, together: 128, threads: 4 },
    Case { conversations: 50, together: 128, threads: 4 },
];

/// The result: messages a second, and the times of commits in order.
struct Measured {
    rate: f64,
    commits: Vec<Duration>,
}

fn measure<S: History + Accounts>(store: &S, case: Case) -> Measured {
    let run = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_nanos();
    let users: Vec<UserId> =
        (0..101).map(|nth| store.register(&format!("user {run} {nth}"), "x").expect("a new user")).collect();
    let mut pairs = (0..users.len()).flat_map(|a| (a + 1..users.len()).map(move |b| (a, b)));
    let pairs: Vec<(UserId, UserId)> =
        (0..case.conversations).map_while(|_| pairs.next()).map(|(a, b)| (users[a], users[b])).collect();
    let count = AtomicU64::new(0);
    let begun = Instant::now();
    let mut commits: Vec<Duration> = thread::scope(|scope| {
        let parts = pairs.chunks(pairs.len().div_ceil(case.threads));
        let writers: Vec<_> = parts
            .map(|pairs| {
                let count = &count;
                scope.spawn(move || {
                    let mut times = Vec::new();
                    while begun.elapsed() < EACH {
                        let from = count.fetch_add(case.together, Ordering::Relaxed);
                        let batch: Vec<NewEntry> = (0..case.together).map(|nth| entry(pairs, from + nth)).collect();
                        let commit = Instant::now();
                        store.commit(&batch, RULES).expect("it is committed");
                        times.push(commit.elapsed());
                    }
                    times
                })
            })
            .collect();
        writers.into_iter().flat_map(|writer| writer.join().expect("it ends")).collect()
    });
    let rate = count.into_inner() as f64 / begun.elapsed().as_secs_f64();
    commits.sort();
    Measured { rate, commits }
}

fn show(database: &str, case: Case, mut measured: Vec<Measured>) {
    measured.sort_by(|one, other| one.rate.total_cmp(&other.rate));
    let Some(Measured { rate, commits }) = measured.get(measured.len() / 2) else { return };
    let at = |part: usize| commits[(commits.len() - 1) * part / 1000].as_secs_f64() * 1000.0;
    let Case { conversations, together, threads } = case;
    let (p50, p99, max) = (at(500), at(990), at(1000));
    println!(
        "{database:>8} {conversations:>14} {together:>9} {threads:>8} {rate:>11.0} {p50:>9.2} {p99:>9.2} {max:>9.2}"
    );
}

/// The `nth` message, in a conversation that looks random, with an id that ascends with the time.
fn entry(pairs: &[(UserId, UserId)], nth: u64) -> NewEntry {
    let mixed = nth.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let (a, b) = pairs[(mixed % pairs.len() as u64) as usize];
    let (sender, recipient) = if mixed & 1 << 30 == 0 { (a, b) } else { (b, a) };
    let cid = format!("{nth:08x}-7b1f-7cc2-9d3e-{:012x}", mixed & 0xffff_ffff_ffff);
    let text = format!(
        r#"{{"FROMID":{sender},"TOID":{recipient},"msgType":4,"cid":"{cid}","sendTime":1789891200000,"msg":"how are you?"}}"#
    );
    NewEntry {
        conv: ConversationId::between(a, b),
        sender,
        cid: Cid::of_client(&cid).expect("an id"),
        hash: FrameHash::of(text.as_bytes()),
        kind: EntryKind::Message,
        is_imported: false,
        check: SenderCheck::Whole,
        is_hooked: false,
        change: None,
        text: text.into(),
    }
}

struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        let parent = env::var_os("HISTORY_BENCH_DIR").map_or_else(env::temp_dir, PathBuf::from);
        Folder(parent.join(format!("raybox-history-bench-{}", process::id())))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const EACH: Duration = Duration::from_secs(3);
