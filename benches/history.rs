//! The rate at which history commits messages, and the longest commits, by how many messages are
//! committed together and over how many conversations they are spread.
//!
//! The folder is `HISTORY_BENCH_DIR`, or a temporary one: a folder in memory would measure no disk.

use std::path::PathBuf;
use std::time::{Duration, Instant};
use std::{env, fs, process};

use raybox::base::conversation::ConversationId;
use raybox::protocol::UserId;
use raybox::store::Accounts as _;
use raybox::store::history::{Cid, EntryKind, FrameHash, History, NewEntry};
use raybox::store::sqlite::SqliteStore;

fn main() {
    println!(
        "{:>14} {:>9} {:>11} {:>9} {:>9} {:>9}",
        "conversations", "together", "messages/s", "p50 ms", "p99 ms", "max ms"
    );
    for (conversations, together) in [(2_000, 1), (2_000, 32), (2_000, 512), (50, 32), (50, 512)] {
        let folder = Folder::new();
        let store = SqliteStore::open(&folder.0).expect("a new store opens");
        let users: Vec<UserId> =
            (0..101).map(|nth| store.register(&format!("user {nth}"), "x").expect("a new user")).collect();
        let mut pairs = (0..users.len()).flat_map(|a| (a + 1..users.len()).map(move |b| (a, b)));
        let pairs: Vec<(UserId, UserId)> =
            (0..conversations).map_while(|_| pairs.next()).map(|(a, b)| (users[a], users[b])).collect();
        let (begun, mut times, mut count) = (Instant::now(), Vec::new(), 0);
        while begun.elapsed() < EACH {
            let batch: Vec<NewEntry> = (0..together).map(|nth| entry(&pairs, count + nth)).collect();
            count += together;
            let commit = Instant::now();
            store.commit(&batch, 0).expect("it is committed");
            times.push(commit.elapsed());
        }
        let rate = count as f64 / begun.elapsed().as_secs_f64();
        times.sort();
        let at = |part: usize| times[(times.len() - 1) * part / 1000].as_secs_f64() * 1000.0;
        println!("{conversations:>14} {together:>9} {rate:>11.0} {:>9.2} {:>9.2} {:>9.2}", at(500), at(990), at(1000));
    }
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
        is_unchecked: true,
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

const EACH: Duration = Duration::from_secs(5);
