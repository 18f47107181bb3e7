//! Reads the facts for a batch, under the locks that are held until its commit.

use mysql::prelude::Queryable;
use mysql::{Conn, from_row_opt};

use super::moments::NOW;
use super::script::{LIST_MAX, Script, list, named_pairs, pairs};
use crate::base::conversation::ConversationId;
use crate::protocol::{GroupId, UserId};
use crate::store::history::head::RecalledBlock;
use crate::store::history::plan::{
    self, BatchFacts, ConvRow, EntryTarget, Known, LAST_GROUP, PlanQuestions, RoomQuestions,
};
use crate::store::history::{Cid, FrameHash, NewEntry};

/// A query to the database.
#[derive(Clone, Copy)]
enum FactQuery {
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

/// Whether repeats are searched for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Repeats {
    /// Repeats are not searched for.
    Unlikely,
    /// Repeats are searched for.
    Likely,
}

/// Begins a transaction, locks the conversations by ascending ids, so that all nodes lock in one
/// order, and reads the facts.
pub(super) fn read(
    db: &mut Conn,
    wanted: &PlanQuestions,
    batch: &[NewEntry],
    repeats: Repeats,
    bytes_max: usize,
) -> mysql::Result<BatchFacts> {
    let mut script = Script::new(bytes_max);
    script.add(FactQuery::Begin, "START TRANSACTION");
    ask(script, db, wanted, (batch, repeats))
}

/// The same, within a transaction.
pub(in crate::store::mysql) fn read_within(
    db: &mut impl Queryable,
    wanted: &PlanQuestions,
    batch: &[NewEntry],
    bytes_max: usize,
) -> mysql::Result<BatchFacts> {
    ask(Script::new(bytes_max), db, wanted, (batch, Repeats::Likely))
}

fn ask(
    mut script: Script<FactQuery>,
    db: &mut impl Queryable,
    wanted: &PlanQuestions,
    (batch, repeats): (&[NewEntry], Repeats),
) -> mysql::Result<BatchFacts> {
    for convs in wanted.convs.chunks(LIST_MAX) {
        let ids = list(convs.iter().map(|conv| conv.column()));
        script.add(
            FactQuery::Convs,
            format!(
                "SELECT id, head, head_tag, count, recalled, floor, touched FROM Conversation FORCE INDEX (PRIMARY)
                 WHERE id IN ({ids}) ORDER BY id FOR UPDATE"
            ),
        );
    }
    let mut names: Vec<(i32, &[u8])> = match repeats {
        Repeats::Likely => batch.iter().map(|entry| (entry.sender.0, entry.cid.bytes())).collect(),
        Repeats::Unlikely => Vec::new(),
    };
    names.sort_unstable();
    names.dedup();
    for names in names.chunks(LIST_MAX) {
        let names = named_pairs(names.iter().copied());
        script.add(
            FactQuery::Known,
            format!(
                "SELECT sender, cid, conv, seq, time, hash FROM {names}
                 STRAIGHT_JOIN Message FORCE INDEX (cid) ON sender = pair.one AND cid = UNHEX(pair.two)"
            ),
        );
    }
    ask_for_rights(&mut script, wanted);
    ask_for_targets(&mut script, wanted);
    let mut facts = BatchFacts::default();
    script.run(db, |question, row| take(&mut facts, question, row))?;
    Ok(facts)
}

/// The time, the recipients and the blocked users are read by one statement while they are few,
/// because each statement has a fixed cost.
fn ask_for_rights(script: &mut Script<FactQuery>, wanted: &PlanQuestions) {
    let mut users = wanted.users.chunks(LIST_MAX);
    let mut senders = wanted.pairs.chunks(LIST_MAX);
    // The database now holds the locks that it had to wait for.
    let mut first = Some(format!("SELECT {TIME}, {NOW}, 0"));
    loop {
        let recipients = users.next().map(|users| {
            let ids = list(users.iter().map(|user| user.0));
            format!("SELECT {RECIPIENT}, id, 0 FROM User WHERE id IN ({ids})")
        });
        let blocked = senders.next().map(|senders| {
            let senders = pairs(senders.iter().map(|(user, other)| (user.0, other.0)));
            format!(
                "SELECT {BLOCKED}, user, blocked FROM {senders}
                 STRAIGHT_JOIN Blocked ON user = pair.one AND blocked = pair.two"
            )
        });
        let all: Vec<String> = first.take().into_iter().chain(recipients).chain(blocked).collect();
        if all.is_empty() {
            break;
        }
        script.add(FactQuery::Rights, all.join(" UNION ALL "));
    }
    for members in wanted.members.chunks(LIST_MAX) {
        let groups = list(members.chunk_by(|one, other| one.0 == other.0).map(|same| same[0].0));
        let members = pairs(members.iter().map(|(group, user)| (group.0, user.0)));
        script.add(
            FactQuery::Members,
            format!(
                "SELECT groupid, userid FROM {members}
                 STRAIGHT_JOIN GroupUser ON groupid = pair.one AND userid = pair.two"
            ),
        );
        script.add(FactQuery::Groups, format!("SELECT id FROM AllGroup WHERE id IN ({groups})"));
    }
}

fn ask_for_targets(script: &mut Script<FactQuery>, wanted: &PlanQuestions) {
    for targets in wanted.targets.chunks(LIST_MAX) {
        let targets = pairs(targets.iter().map(|(conv, seq)| (conv.column(), *seq)));
        script.add(
            FactQuery::Targets,
            format!(
                "SELECT conv, seq, sender, time, kind, recalled FROM {targets}
                 STRAIGHT_JOIN Message ON conv = pair.one AND seq = pair.two"
            ),
        );
    }
    for changers in wanted.changers.chunks(LIST_MAX) {
        let changers = pairs(changers.iter().map(|(conv, user)| (conv.column(), user.0)));
        script.add(
            FactQuery::Joined,
            format!(
                "SELECT conv, user, joined FROM {changers}
                 STRAIGHT_JOIN Member ON conv = pair.one AND user = pair.two"
            ),
        );
    }
    for blocks in wanted.blocks.chunks(LIST_MAX) {
        let blocks = pairs(blocks.iter().map(|(conv, block)| (conv.column(), *block)));
        script.add(
            FactQuery::Blocks,
            format!(
                "SELECT conv, block, count, bits FROM {blocks}
                 STRAIGHT_JOIN Recalled ON conv = pair.one AND block = pair.two"
            ),
        );
    }
}

/// Whether `sender` may open this conversation of two, or it has messages.
pub(in crate::store::mysql) fn has_room(
    db: &mut impl Queryable,
    conv: ConversationId,
    sender: UserId,
    max: usize,
    bytes_max: usize,
) -> mysql::Result<bool> {
    let mut facts = BatchFacts::default();
    let head = db.exec_first("SELECT head FROM Conversation WHERE id = ?", (conv.column(),))?;
    facts.convs.extend(head.map(|head| (conv, ConvRow { head, ..ConvRow::default() })));
    read_room(db, &RoomQuestions::of_senders([(conv, sender)], &facts), &mut facts, max, bytes_max)?;
    Ok(plan::has_room(conv, sender, &facts, max))
}

/// Counts conversations of two, up to `max`, and looks for friends. Most batches ask nothing.
pub(super) fn read_room(
    db: &mut impl Queryable,
    wanted: &RoomQuestions,
    facts: &mut BatchFacts,
    max: usize,
    bytes_max: usize,
) -> mysql::Result<()> {
    let mut script = Script::new(bytes_max);
    for users in wanted.users.chunks(COUNTED_AT_ONCE) {
        let count = |user: &UserId| {
            format!(
                "(SELECT {COUNTED}, {user}, COUNT(*) FROM (SELECT 1 FROM Member FORCE INDEX (user)
                  WHERE user = {user} AND conv > {LAST_GROUP} LIMIT {max}) AS some)"
            )
        };
        script.add(FactQuery::Rights, users.iter().map(count).collect::<Vec<_>>().join(" UNION ALL "));
    }
    for friends in wanted.friends.chunks(LIST_MAX) {
        let friends = pairs(friends.iter().map(|(user, other)| (user.0, other.0)));
        script.add(
            FactQuery::Rights,
            format!(
                "SELECT {FRIENDS}, userid, friendid FROM {friends}
                 STRAIGHT_JOIN Friend ON userid = pair.one AND friendid = pair.two"
            ),
        );
    }
    script.run(db, |question, row| take(facts, question, row))
}

fn take(facts: &mut BatchFacts, question: FactQuery, row: mysql::Row) -> mysql::Result<()> {
    match question {
        FactQuery::Begin => {}
        FactQuery::Convs => {
            let (id, head, head_tag, count, recalled, floor, touched) = from_row_opt(row)?;
            let row = ConvRow { head, head_tag, count, recalled, floor, touched };
            facts.convs.insert(ConversationId::from_column(id), row);
        }
        FactQuery::Known => {
            let (sender, cid, conv, seq, time, hash): (_, Vec<u8>, _, _, _, Vec<u8>) = from_row_opt(row)?;
            let conv = ConversationId::from_column(conv);
            let known = Known { conv, seq, time, hash: FrameHash::stored(&hash) };
            facts.known.insert((UserId(sender), Cid::stored(cid)), known);
        }
        FactQuery::Rights => {
            let (what, one, other): (i64, i64, i64) = from_row_opt(row)?;
            match what {
                TIME => facts.now = one,
                RECIPIENT => _ = facts.users.insert(UserId(one as i32)),
                COUNTED => _ = facts.opened.insert(UserId(one as i32), other as usize),
                FRIENDS => _ = facts.friends.insert((UserId(one as i32), UserId(other as i32))),
                _ => _ = facts.blocked.insert((UserId(one as i32), UserId(other as i32))),
            }
        }
        FactQuery::Members => {
            let (group, user) = from_row_opt(row)?;
            facts.members.insert((GroupId(group), UserId(user)));
        }
        FactQuery::Groups => {
            facts.groups.insert(GroupId(from_row_opt(row)?));
        }
        FactQuery::Targets => {
            let (conv, seq, sender, time, kind, recalled) = from_row_opt(row)?;
            let found = EntryTarget { sender: UserId(sender), time, kind, recalled };
            facts.targets.insert((ConversationId::from_column(conv), seq), found);
        }
        FactQuery::Joined => {
            let (conv, user, joined) = from_row_opt(row)?;
            facts.joined.insert((ConversationId::from_column(conv), UserId(user)), joined);
        }
        FactQuery::Blocks => {
            let (conv, block, count, bits) = from_row_opt(row)?;
            let found = RecalledBlock::stored(conv, block, count, bits);
            facts.blocks.insert((ConversationId::from_column(conv), block), found);
        }
    }
    Ok(())
}

/// The users whose conversations one statement counts.
const COUNTED_AT_ONCE: usize = 64;
// The kinds of rows in the queries of rights and room.
const TIME: i64 = 0;
const RECIPIENT: i64 = 1;
const BLOCKED: i64 = 2;
const COUNTED: i64 = 3;
const FRIENDS: i64 = 4;
