//! Writes a plan, and commits it.

use mysql::Conn;
use mysql::prelude::Queryable;

use super::script::{LIST_MAX, Script, bytes, list, text};
use crate::base::conversation::ConversationId;
use crate::store::history::plan::{Plan, PlannedMemberChange, SenderMark, partner_of};
use crate::store::history::{MemberChange, NewEntry};

/// Writes all changes of a plan and commits them, usually in one round trip.
pub(super) fn write(db: &mut Conn, batch: &[NewEntry], plan: &Plan, bytes_max: usize) -> mysql::Result<()> {
    let mut script = of_plan(batch, plan, bytes_max);
    script.add((), "COMMIT");
    script.run(db, |(), _| Ok(()))
}

/// The same without the commit.
pub(in crate::store::mysql) fn write_within(
    db: &mut impl Queryable,
    batch: &[NewEntry],
    plan: &Plan,
    bytes_max: usize,
) -> mysql::Result<()> {
    of_plan(batch, plan, bytes_max).run(db, |(), _| Ok(()))
}

fn of_plan(batch: &[NewEntry], plan: &Plan, bytes_max: usize) -> Script<()> {
    let mut script = Script::new(bytes_max);
    add_rows(&mut script, batch, plan);
    add_members(&mut script, &plan.fresh);
    add_heads(&mut script, plan);
    add_edits(&mut script, plan);
    plan.changes.iter().for_each(|change| add_change(&mut script, change));
    let asked = plan.asked.iter().map(|(from, to)| format!("({},{})", from.0, to.0));
    script.insert((), "Asked (userid, friendid)", asked, " ON DUPLICATE KEY UPDATE userid = userid");
    script
}

fn add_rows(script: &mut Script<()>, batch: &[NewEntry], plan: &Plan) {
    let rows = plan.rows.iter().map(|row| {
        let entry = &batch[row.entry];
        format!(
            "({},{},{},{},{},{},{},0,0,{},{},{})",
            entry.conv.column(),
            row.seq,
            row.nth,
            entry.sender.0,
            row.time,
            row.kind,
            row.target,
            bytes(entry.cid.bytes()),
            bytes(&entry.hash.0),
            text(&entry.text),
        )
    });
    let into = "Message (conv, seq, nth, sender, time, kind, ref, edited, recalled, cid, hash, text)";
    script.insert((), into, rows, "");
    let hooked = plan.rows.iter().filter(|row| batch[row.entry].is_hooked).map(|row| {
        let entry = &batch[row.entry];
        format!("({},{},{},{},0)", entry.sender.0, entry.conv.column(), row.seq, row.time)
    });
    script.insert((), "HookQueue (sender, conv, seq, time, member)", hooked, "");
}

/// Adds the rows of the users who are in a conversation from its first message on.
fn add_members(script: &mut Script<()>, fresh: &[ConversationId]) {
    let users = fresh.iter().filter_map(|conv| Some((conv.column(), conv.users()?)));
    let rows = users.flat_map(|(conv, (low, high))| {
        let both = (low != high).then(|| format!("({conv},{})", high.0));
        std::iter::once(format!("({conv},{})", low.0)).chain(both)
    });
    script.insert((), "Member (conv, user)", rows, " ON DUPLICATE KEY UPDATE conv = conv");
    let groups: Vec<i32> = fresh.iter().filter_map(|conv| conv.group()).map(|group| group.0).collect();
    for groups in groups.chunks(LIST_MAX) {
        let groups = list(groups);
        script.add(
            (),
            format!(
                "INSERT INTO Member (conv, user) SELECT groupid, userid FROM GroupUser WHERE groupid IN ({groups})
                 ON DUPLICATE KEY UPDATE joined = Member.joined"
            ),
        );
    }
}

fn add_heads(script: &mut Script<()>, plan: &Plan) {
    let heads = plan.convs.iter().map(|(conv, row)| {
        format!("({},{},{},{},{},{})", conv.column(), row.head, row.head_tag, row.count, row.recalled, row.touched)
    });
    script.insert(
        (),
        "Conversation (id, head, head_tag, count, recalled, touched)",
        heads,
        " ON DUPLICATE KEY UPDATE head = VALUES(head), head_tag = VALUES(head_tag), count = VALUES(count),
          recalled = VALUES(recalled), touched = VALUES(touched)",
    );
    // A stranger whom the caller allows to send gets no row in a conversation of two others.
    let members =
        plan.marks.iter().filter(|((conv, user), _)| conv.group().is_some() || partner_of(*conv, *user).is_some());
    let marks = members.map(|((conv, user), row)| {
        let SenderMark { read, read_nth, own, joined, joined_nth } = row;
        format!("({},{},{read},{read_nth},{own},{joined},{joined_nth})", conv.column(), user.0)
    });
    script.insert(
        (),
        "Member (conv, user, `read`, read_nth, own, joined, joined_nth)",
        marks,
        " ON DUPLICATE KEY UPDATE own = IF(VALUES(`read`) > 0, VALUES(own), own + VALUES(own)),
          read_nth = GREATEST(read_nth, VALUES(read_nth)), `read` = GREATEST(`read`, VALUES(`read`))",
    );
}

fn add_edits(script: &mut Script<()>, plan: &Plan) {
    let edits = plan.edits.iter().map(|(conv, target, seq)| format!("({},{seq},{target})", conv.column()));
    script.insert((), "Edit (conv, seq, target)", edits, "");
    for (conv, target, seq) in &plan.edits {
        let conv = conv.column();
        script.add((), format!("UPDATE Message SET edited = {seq} WHERE conv = {conv} AND seq = {target}"));
    }
    for (conv, target, seq) in &plan.recalls {
        let conv = conv.column();
        script
            .add((), format!("UPDATE Message SET text = '', recalled = {seq} WHERE conv = {conv} AND seq = {target}"));
        script.add(
            (),
            format!(
                "UPDATE Edit STRAIGHT_JOIN Message ON Message.conv = Edit.conv AND Message.seq = Edit.seq
                 SET Message.text = '', Message.recalled = {seq} WHERE Edit.conv = {conv} AND Edit.target = {target}"
            ),
        );
    }
    let blocks = plan
        .blocks
        .iter()
        .map(|((conv, number), block)| format!("({},{number},{},{})", conv.column(), block.count, bytes(block.bits())));
    let end = " ON DUPLICATE KEY UPDATE count = VALUES(count), bits = VALUES(bits)";
    script.insert((), "Recalled (conv, block, count, bits)", blocks, end);
}

fn add_change(script: &mut Script<()>, change: &PlannedMemberChange) {
    let PlannedMemberChange { conv, change, joined, joined_nth, read, read_nth } = *change;
    let conv = conv.column();
    match change {
        MemberChange::Joins { user, .. } => {
            script.add(
                (),
                format!(
                    "INSERT INTO GroupUser (groupid, userid, grouprole) VALUES ({conv},{user},'normal')
                     ON DUPLICATE KEY UPDATE userid = userid"
                ),
            );
            script.add(
                (),
                format!(
                    "INSERT INTO Member (conv, user, joined, joined_nth, `read`, read_nth)
                     VALUES ({conv},{user},{joined},{joined_nth},{read},{read_nth})
                     ON DUPLICATE KEY UPDATE joined = VALUES(joined), joined_nth = VALUES(joined_nth),
                         own = IF(VALUES(`read`) > `read`, 0, own), read_nth = GREATEST(read_nth, VALUES(read_nth)),
                         `read` = GREATEST(`read`, VALUES(`read`))"
                ),
            );
        }
        MemberChange::Leaves(user) => {
            script.add((), format!("DELETE FROM GroupUser WHERE groupid = {conv} AND userid = {user}"));
            script.add((), format!("DELETE FROM Member WHERE conv = {conv} AND user = {user}"));
        }
    }
}
