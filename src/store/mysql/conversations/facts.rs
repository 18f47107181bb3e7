//! Reading what a batch needs to know, under the locks that last to its commit.

use mysql::prelude::Queryable;
use mysql::{Conn, from_row_opt};

use super::moments::NOW;
use super::script::{LIST_MAX, Script, bytes, list, pairs_in};
use crate::base::conversation::ConversationId;
use crate::protocol::{GroupId, UserId};
use crate::store::history::head::RecalledBlock;
use crate::store::history::plan::{BatchFacts, ConvRow, EntryTarget, Known, Wanted};
use crate::store::history::{Cid, FrameHash, NewEntry};

/// What is asked.
#[derive(Clone, Copy)]
enum Question {
    Begin,
    Convs,
    Known,
    Rights,
    Members,
    Groups,
    Targets,
    Joined,
    Blocks,
}

/// Whether messages of a batch may be stored already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Repeats {
    /// They are not looked for.
    Unlikely,
    /// They are.
    Likely,
}

/// Begins a transaction, locks the conversations by ascending ids, so that nodes lock in one order,
/// and reads the facts.
pub(super) fn read(
    db: &mut Conn,
    wanted: &Wanted,
    batch: &[NewEntry],
    repeats: Repeats,
    bytes_max: usize,
) -> mysql::Result<BatchFacts> {
    let mut script = Script::new(bytes_max);
    script.add(Question::Begin, "START TRANSACTION");
    ask(script, db, wanted, (batch, repeats))
}

/// The same within a transaction.
pub(in crate::store::mysql) fn read_within(
    db: &mut impl Queryable,
    wanted: &Wanted,
    batch: &[NewEntry],
    bytes_max: usize,
) -> mysql::Result<BatchFacts> {
    ask(Script::new(bytes_max), db, wanted, (batch, Repeats::Likely))
}

fn ask(
    mut script: Script<Question>,
    db: &mut impl Queryable,
    wanted: &Wanted,
    (batch, repeats): (&[NewEntry], Repeats),
) -> mysql::Result<BatchFacts> {
    for convs in wanted.convs.chunks(LIST_MAX) {
        let ids = list(convs.iter().map(|conv| conv.column()));
        script.add(
            Question::Convs,
            format!(
                "SELECT id, head, head_tag, count, recalled, floor, touched FROM Conversation FORCE INDEX (PRIMARY)
                 WHERE id IN ({ids}) ORDER BY id FOR UPDATE"
            ),
        );
    }
    let mut names: Vec<(i32, String)> = match repeats {
        Repeats::Likely => batch.iter().map(|entry| (entry.sender.0, bytes(entry.cid.bytes()))).collect(),
        Repeats::Unlikely => Vec::new(),
    };
    names.sort_unstable();
    for names in names.chunks(LIST_MAX) {
        let condition = pairs_in(["sender", "cid"], names);
        script.add(
            Question::Known,
            format!("SELECT sender, cid, conv, seq, time, hash FROM Message FORCE INDEX (cid) WHERE {condition}"),
        );
    }
    ask_for_rights(&mut script, wanted);
    ask_for_targets(&mut script, wanted);
    let mut facts = BatchFacts::default();
    script.run(db, |question, row| take(&mut facts, question, row))?;
    Ok(facts)
}

/// The time, the recipients and who has blocked whom are one statement, as long as they are few: each
/// statement has a cost of its own.
fn ask_for_rights(script: &mut Script<Question>, wanted: &Wanted) {
    let mut users = wanted.users.chunks(LIST_MAX);
    let pairs: Vec<(i32, i32)> = wanted.pairs.iter().map(|(user, other)| (user.0, other.0)).collect();
    let mut pairs = pairs.chunks(LIST_MAX);
    // Locks that the database had to wait for are there now.
    let mut first = Some(format!("SELECT {TIME}, {NOW}, 0"));
    loop {
        let recipients = users.next().map(|users| {
            let ids = list(users.iter().map(|user| user.0));
            format!("SELECT {RECIPIENT}, id, 0 FROM User WHERE id IN ({ids})")
        });
        let blocked = pairs.next().map(|pairs| {
            let condition = pairs_in(["user", "blocked"], pairs);
            format!("SELECT {BLOCKED}, user, blocked FROM Blocked WHERE {condition}")
        });
        let all: Vec<String> = first.take().into_iter().chain(recipients).chain(blocked).collect();
        if all.is_empty() {
            break;
        }
        script.add(Question::Rights, all.join(" UNION ALL "));
    }
    let members: Vec<(i32, i32)> = wanted.members.iter().map(|(group, user)| (group.0, user.0)).collect();
    for members in members.chunks(LIST_MAX) {
        let condition = pairs_in(["groupid", "userid"], members);
        script.add(Question::Members, format!("SELECT groupid, userid FROM GroupUser WHERE {condition}"));
        let groups = list(members.chunk_by(|one, other| one.0 == other.0).map(|same| same[0].0));
        script.add(Question::Groups, format!("SELECT id FROM AllGroup WHERE id IN ({groups})"));
    }
}

fn ask_for_targets(script: &mut Script<Question>, wanted: &Wanted) {
    let targets: Vec<(i64, i64)> = wanted.targets.iter().map(|(conv, seq)| (conv.column(), *seq)).collect();
    for targets in targets.chunks(LIST_MAX) {
        let condition = pairs_in(["conv", "seq"], targets);
        script.add(
            Question::Targets,
            format!("SELECT conv, seq, sender, time, kind, recalled FROM Message WHERE {condition}"),
        );
    }
    let changers: Vec<(i64, i32)> = wanted.changers.iter().map(|(conv, user)| (conv.column(), user.0)).collect();
    for changers in changers.chunks(LIST_MAX) {
        let condition = pairs_in(["conv", "user"], changers);
        script.add(Question::Joined, format!("SELECT conv, user, joined FROM Member WHERE {condition}"));
    }
    let blocks: Vec<(i64, i64)> = wanted.blocks.iter().map(|(conv, block)| (conv.column(), *block)).collect();
    for blocks in blocks.chunks(LIST_MAX) {
        let condition = pairs_in(["conv", "block"], blocks);
        script.add(Question::Blocks, format!("SELECT conv, block, count, bits FROM Recalled WHERE {condition}"));
    }
}

fn take(facts: &mut BatchFacts, question: Question, row: mysql::Row) -> mysql::Result<()> {
    match question {
        Question::Begin => {}
        Question::Convs => {
            let (id, head, head_tag, count, recalled, floor, touched) = from_row_opt(row)?;
            let row = ConvRow { head, head_tag, count, recalled, floor, touched };
            facts.convs.insert(ConversationId::from_column(id), row);
        }
        Question::Known => {
            let (sender, cid, conv, seq, time, hash): (_, Vec<u8>, _, _, _, Vec<u8>) = from_row_opt(row)?;
            let conv = ConversationId::from_column(conv);
            let known = Known { conv, seq, time, hash: FrameHash::stored(&hash) };
            facts.known.insert((UserId(sender), Cid::stored(cid)), known);
        }
        Question::Rights => {
            let (what, one, other): (i64, i64, i64) = from_row_opt(row)?;
            match what {
                TIME => facts.now = one,
                RECIPIENT => _ = facts.users.insert(UserId(one as i32)),
                _ => _ = facts.blocked.insert((UserId(one as i32), UserId(other as i32))),
            }
        }
        Question::Members => {
            let (group, user) = from_row_opt(row)?;
            facts.members.insert((GroupId(group), UserId(user)));
        }
        Question::Groups => {
            facts.groups.insert(GroupId(from_row_opt(row)?));
        }
        Question::Targets => {
            let (conv, seq, sender, time, kind, recalled) = from_row_opt(row)?;
            let found = EntryTarget { sender: UserId(sender), time, kind, recalled };
            facts.targets.insert((ConversationId::from_column(conv), seq), found);
        }
        Question::Joined => {
            let (conv, user, joined) = from_row_opt(row)?;
            facts.joined.insert((ConversationId::from_column(conv), UserId(user)), joined);
        }
        Question::Blocks => {
            let (conv, block, count, bits) = from_row_opt(row)?;
            let found = RecalledBlock::stored(conv, block, count, bits);
            facts.blocks.insert((ConversationId::from_column(conv), block), found);
        }
    }
    Ok(())
}

// What a row of the rights is.
const TIME: i64 = 0;
const RECIPIENT: i64 = 1;
const BLOCKED: i64 = 2;
