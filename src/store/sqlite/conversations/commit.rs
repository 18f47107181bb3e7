//! Storing messages. The writer thread is the lock under which numbers are assigned.

use rusqlite::{Connection, OptionalExtension, params};

use super::moments::now;
use crate::base::conversation::ConversationId;
use crate::protocol::UserId;
use crate::store::history::head::RecalledBlock;
use crate::store::history::plan::{
    self, BatchFacts, ConvRow, EntryTarget, Known, LAST_GROUP, Plan, PlanQuestions, PlannedMemberChange, RoomQuestions,
    SenderMark, partner_of,
};
use crate::store::history::{CommitOutcome, CommitRules, FrameHash, MemberChange, NewEntry};

/// Stores the messages that are not refused, within the writer's transaction.
pub(in crate::store::sqlite) fn commit(
    db: &Connection,
    batch: &[NewEntry],
    rules: CommitRules,
) -> rusqlite::Result<Vec<CommitOutcome>> {
    let mut facts = facts(db, batch)?;
    read_room(db, &RoomQuestions::of(batch, &facts), &mut facts, rules.conversations_max)?;
    let plan = plan::plan(batch, facts, rules);
    write(db, batch, &plan)?;
    Ok(plan.outcomes)
}

fn facts(db: &Connection, batch: &[NewEntry]) -> rusqlite::Result<BatchFacts> {
    let wanted = PlanQuestions::of(batch);
    let mut facts = BatchFacts { now: now(), ..BatchFacts::default() };
    read_convs(db, &wanted, &mut facts)?;
    read_known(db, batch, &mut facts)?;
    read_rights(db, &wanted, &mut facts)?;
    if !wanted.targets.is_empty() {
        read_targets(db, &wanted, &mut facts)?;
    }
    Ok(facts)
}

fn read_convs(db: &Connection, wanted: &PlanQuestions, facts: &mut BatchFacts) -> rusqlite::Result<()> {
    let mut query =
        db.prepare_cached("SELECT head, head_tag, count, recalled, floor, touched FROM Conversation WHERE id = ?1")?;
    for conv in &wanted.convs {
        let row = query.query_row([conv.column()], |row| {
            Ok(ConvRow {
                head: row.get(0)?,
                head_tag: row.get(1)?,
                count: row.get(2)?,
                recalled: row.get(3)?,
                floor: row.get(4)?,
                touched: row.get(5)?,
            })
        });
        if let Some(row) = row.optional()? {
            facts.convs.insert(*conv, row);
        }
    }
    Ok(())
}

fn read_known(db: &Connection, batch: &[NewEntry], facts: &mut BatchFacts) -> rusqlite::Result<()> {
    let mut query = db.prepare_cached("SELECT conv, seq, time, hash FROM Message WHERE sender = ?1 AND cid = ?2")?;
    for entry in batch {
        let known = query.query_row(params![entry.sender.0, entry.cid.bytes()], |row| {
            Ok(Known {
                conv: ConversationId::from_column(row.get(0)?),
                seq: row.get(1)?,
                time: row.get(2)?,
                hash: FrameHash::stored(row.get_ref(3)?.as_blob()?),
            })
        });
        if let Some(known) = known.optional()? {
            facts.known.insert((entry.sender, entry.cid.clone()), known);
        }
    }
    Ok(())
}

fn read_rights(db: &Connection, wanted: &PlanQuestions, facts: &mut BatchFacts) -> rusqlite::Result<()> {
    let mut exists = db.prepare_cached("SELECT 1 FROM User WHERE id = ?1")?;
    for user in &wanted.users {
        if exists.exists([user.0])? {
            facts.users.insert(*user);
        }
    }
    let mut blocked = db.prepare_cached("SELECT 1 FROM Blocked WHERE user = ?1 AND blocked = ?2")?;
    for (user, other) in &wanted.pairs {
        if blocked.exists([user.0, other.0])? {
            facts.blocked.insert((*user, *other));
        }
    }
    let mut member = db.prepare_cached("SELECT 1 FROM GroupUser WHERE groupid = ?1 AND userid = ?2")?;
    let mut group_exists = db.prepare_cached("SELECT 1 FROM AllGroup WHERE id = ?1")?;
    for (group, user) in &wanted.members {
        if member.exists([group.0, user.0])? {
            facts.members.insert((*group, *user));
        } else if group_exists.exists([group.0])? {
            facts.groups.insert(*group);
        }
    }
    Ok(())
}

/// Whether `sender` may open this conversation of two, or it has messages.
pub(in crate::store::sqlite) fn has_room(
    db: &Connection,
    conv: ConversationId,
    sender: UserId,
    max: usize,
) -> rusqlite::Result<bool> {
    let mut facts = BatchFacts::default();
    read_convs(db, &PlanQuestions { convs: vec![conv], ..PlanQuestions::default() }, &mut facts)?;
    read_room(db, &RoomQuestions::of_senders([(conv, sender)], &facts), &mut facts, max)?;
    Ok(plan::has_room(conv, sender, &facts, max))
}

/// Counts conversations of two, up to `max`, and looks for friends. Most batches ask nothing.
fn read_room(db: &Connection, wanted: &RoomQuestions, facts: &mut BatchFacts, max: usize) -> rusqlite::Result<()> {
    if wanted.users.is_empty() {
        return Ok(());
    }
    let mut count = db.prepare_cached(
        "SELECT count(*) FROM (SELECT 1 FROM Member INDEXED BY Member_user WHERE user = ?1 AND conv > ?2 LIMIT ?3)",
    )?;
    let limit = i64::try_from(max).unwrap_or(i64::MAX);
    for user in &wanted.users {
        let counted: i64 = count.query_row(params![user.0, LAST_GROUP, limit], |row| row.get(0))?;
        facts.opened.insert(*user, usize::try_from(counted).unwrap_or_default());
    }
    let mut friend = db.prepare_cached("SELECT 1 FROM Friend WHERE userid = ?1 AND friendid = ?2")?;
    for (user, other) in &wanted.friends {
        if friend.exists([user.0, other.0])? {
            facts.friends.insert((*user, *other));
        }
    }
    Ok(())
}

fn read_targets(db: &Connection, wanted: &PlanQuestions, facts: &mut BatchFacts) -> rusqlite::Result<()> {
    let mut target =
        db.prepare_cached("SELECT sender, time, kind, recalled FROM Message WHERE conv = ?1 AND seq = ?2")?;
    for (conv, seq) in &wanted.targets {
        let found = target.query_row([conv.column(), *seq], |row| {
            let sender = UserId(row.get(0)?);
            Ok(EntryTarget { sender, time: row.get(1)?, kind: row.get(2)?, recalled: row.get(3)? })
        });
        if let Some(found) = found.optional()? {
            facts.targets.insert((*conv, *seq), found);
        }
    }
    let mut joined = db.prepare_cached("SELECT joined FROM Member WHERE conv = ?1 AND user = ?2")?;
    for (conv, user) in &wanted.changers {
        if let Some(number) = joined.query_row(params![conv.column(), user.0], |row| row.get(0)).optional()? {
            facts.joined.insert((*conv, *user), number);
        }
    }
    let mut block = db.prepare_cached("SELECT count, bits FROM Recalled WHERE conv = ?1 AND block = ?2")?;
    for (conv, number) in &wanted.blocks {
        let found = block.query_row([conv.column(), *number], |row| {
            Ok(RecalledBlock::stored(conv.column(), *number, row.get(0)?, row.get(1)?))
        });
        if let Some(found) = found.optional()? {
            facts.blocks.insert((*conv, *number), found);
        }
    }
    Ok(())
}

fn write(db: &Connection, batch: &[NewEntry], plan: &Plan) -> rusqlite::Result<()> {
    write_rows(db, batch, plan)?;
    for conv in &plan.fresh {
        add_members(db, *conv)?;
    }
    write_heads(db, plan)?;
    write_edits(db, plan)?;
    plan.changes.iter().try_for_each(|change| write_change(db, change))?;
    for (from, to) in &plan.asked {
        note_asked(db, *from, *to)?;
    }
    Ok(())
}

pub(in crate::store::sqlite) fn note_asked(db: &Connection, from: UserId, to: UserId) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT INTO Asked (userid, friendid) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
        .execute([from.0, to.0])
        .map(drop)
}

fn write_rows(db: &Connection, batch: &[NewEntry], plan: &Plan) -> rusqlite::Result<()> {
    let mut insert = db.prepare_cached(
        "INSERT INTO Message (conv, seq, nth, sender, time, kind, ref, edited, recalled, cid, hash, text)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, 0, ?8, ?9, ?10)",
    )?;
    for row in &plan.rows {
        let entry = &batch[row.entry];
        insert.execute(params![
            entry.conv.column(),
            row.seq,
            row.nth,
            entry.sender.0,
            row.time,
            row.kind,
            row.target,
            entry.cid.bytes(),
            entry.hash.0,
            &*entry.text,
        ])?;
    }
    for row in plan.rows.iter().filter(|row| batch[row.entry].is_hooked) {
        let entry = &batch[row.entry];
        db.prepare_cached("INSERT INTO HookQueue (sender, conv, seq, time, member) VALUES (?1, ?2, ?3, ?4, 0)")?
            .execute(params![entry.sender.0, entry.conv.column(), row.seq, row.time])?;
    }
    Ok(())
}

/// Adds the rows of the users who are in a conversation from its first message on.
fn add_members(db: &Connection, conv: ConversationId) -> rusqlite::Result<()> {
    let Some((low, high)) = conv.users() else {
        return db
            .prepare_cached(
                "INSERT INTO Member (conv, user) SELECT groupid, userid FROM GroupUser WHERE groupid = ?1
                 ON CONFLICT DO NOTHING",
            )?
            .execute([conv.column()])
            .map(drop);
    };
    let mut insert = db.prepare_cached("INSERT INTO Member (conv, user) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?;
    [low, high].iter().try_for_each(|user| insert.execute(params![conv.column(), user.0]).map(drop))
}

fn write_heads(db: &Connection, plan: &Plan) -> rusqlite::Result<()> {
    let mut head = db.prepare_cached(
        "INSERT INTO Conversation (id, head, head_tag, count, recalled, touched) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT DO UPDATE SET head = excluded.head, head_tag = excluded.head_tag, count = excluded.count,
             recalled = excluded.recalled, touched = excluded.touched",
    )?;
    for (conv, row) in &plan.convs {
        head.execute([conv.column(), row.head, row.head_tag, row.count, row.recalled, row.touched])?;
    }
    let mut mark = db.prepare_cached(
        "INSERT INTO Member (conv, user, read, read_nth, own, joined, joined_nth) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT DO UPDATE SET own = iif(excluded.read > 0, excluded.own, own + excluded.own),
             read_nth = max(read_nth, excluded.read_nth), read = max(read, excluded.read)",
    )?;
    for ((conv, user), row) in &plan.marks {
        // A stranger whom the caller allows to send gets no row in a conversation of two others.
        if conv.group().is_some() || partner_of(*conv, *user).is_some() {
            let SenderMark { read, read_nth, own, joined, joined_nth } = *row;
            mark.execute(params![conv.column(), user.0, read, read_nth, own, joined, joined_nth])?;
        }
    }
    Ok(())
}

fn write_edits(db: &Connection, plan: &Plan) -> rusqlite::Result<()> {
    for (conv, target, seq) in &plan.edits {
        db.prepare_cached("INSERT INTO Edit (conv, seq, target) VALUES (?1, ?2, ?3)")?.execute([
            conv.column(),
            *seq,
            *target,
        ])?;
        db.prepare_cached("UPDATE Message SET edited = ?3 WHERE conv = ?1 AND seq = ?2")?.execute([
            conv.column(),
            *target,
            *seq,
        ])?;
    }
    for (conv, target, seq) in &plan.recalls {
        db.prepare_cached("UPDATE Message SET text = '', recalled = ?3 WHERE conv = ?1 AND seq = ?2")?.execute([
            conv.column(),
            *target,
            *seq,
        ])?;
        db.prepare_cached(
            "UPDATE Message SET text = '', recalled = ?3
             WHERE conv = ?1 AND seq IN (SELECT seq FROM Edit WHERE conv = ?1 AND target = ?2)",
        )?
        .execute([conv.column(), *target, *seq])?;
    }
    for ((conv, number), block) in &plan.blocks {
        db.prepare_cached("INSERT OR REPLACE INTO Recalled (conv, block, count, bits) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![conv.column(), number, block.count, block.bits()])?;
    }
    Ok(())
}

fn write_change(db: &Connection, change: &PlannedMemberChange) -> rusqlite::Result<()> {
    let PlannedMemberChange { conv, change, joined, joined_nth, read, read_nth } = *change;
    match change {
        MemberChange::Joins { user, .. } => {
            db.prepare_cached(
                "INSERT INTO GroupUser (groupid, userid, grouprole, since) VALUES (?1, ?2, 'normal', ?3)
                 ON CONFLICT DO NOTHING",
            )?
            .execute(params![conv.column(), user.0, now()])?;
            db.prepare_cached(
                "INSERT INTO Member (conv, user, joined, joined_nth, read, read_nth) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT DO UPDATE SET joined = excluded.joined, joined_nth = excluded.joined_nth,
                     own = iif(excluded.read > read, 0, own), read_nth = max(read_nth, excluded.read_nth),
                     read = max(read, excluded.read)",
            )?
            .execute(params![conv.column(), user.0, joined, joined_nth, read, read_nth])?;
        }
        MemberChange::Leaves(user) => {
            db.prepare_cached("DELETE FROM GroupUser WHERE groupid = ?1 AND userid = ?2")?
                .execute(params![conv.column(), user.0])?;
            db.prepare_cached("DELETE FROM Member WHERE conv = ?1 AND user = ?2")?
                .execute(params![conv.column(), user.0])?;
        }
    }
    Ok(())
}
