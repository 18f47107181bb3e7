//! Records entries within the transaction of a change.

use mysql::Conn;
use mysql::prelude::Queryable;

use crate::base::conversation::ConversationId;
use crate::protocol::UserId;
use crate::store::community::{Recorded, recorded};
use crate::store::history::plan::{self, PlanQuestions};
use crate::store::history::{CommitRules, NewEntry};
use crate::store::mysql::base::Base;
use crate::store::mysql::conversations::script::{LIST_MAX, list};
use crate::store::mysql::conversations::{facts, writing};
use crate::store::mysql::error;

/// The answer that the latest attempt planned to give, and its first entry. If the connection was
/// lost at its commit, it may be stored.
pub(super) struct Attempts<T>(Option<(NewEntry, T)>);

impl<T> Default for Attempts<T> {
    fn default() -> Attempts<T> {
        Attempts(None)
    }
}

impl<T: Clone> Attempts<T> {
    /// The answer of the latest attempt, if the attempt is stored.
    pub(super) fn stored(&self, db: &mut impl Queryable) -> mysql::Result<Option<T>> {
        let Some((entry, answer)) = &self.0 else { return Ok(None) };
        let query = "SELECT seq FROM Message WHERE sender = ? AND cid = ?";
        let found: Option<i64> = db.exec_first(query, (entry.sender.0, entry.cid.bytes()))?;
        Ok(found.map(|_| answer.clone()))
    }

    /// Commits an attempt.
    pub(super) fn commit(&mut self, db: &mut Conn, first: Option<&NewEntry>, answer: T) -> mysql::Result<T> {
        self.0 = first.map(|entry| (entry.clone(), answer.clone()));
        db.query_drop("COMMIT")?;
        Ok(answer)
    }
}

/// The kind of conversation that is locked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Locked {
    /// Groups; one that does not exist has no row to lock.
    Groups,
    /// A conversation of two users.
    Pair,
}

/// Begins a transaction and locks these conversations, by ascending ids. Missing rows are inserted
/// first, in a separate transaction.
pub(super) fn begin(db: &mut Conn, convs: &[ConversationId], what: Locked) -> mysql::Result<()> {
    if lock(db, convs)? {
        return Ok(());
    }
    db.query_drop("ROLLBACK")?;
    for convs in convs.chunks(LIST_MAX) {
        let rows = match what {
            Locked::Groups => {
                let groups = list(convs.iter().map(|conv| conv.column()));
                format!("SELECT id, 0, 0, 0, 0 FROM AllGroup WHERE id IN ({groups})")
            }
            Locked::Pair => {
                let each: Vec<String> = convs.iter().map(|conv| format!("({},0,0,0,0)", conv.column())).collect();
                format!("VALUES {}", each.join(","))
            }
        };
        db.query_drop(format!(
            "INSERT INTO Conversation (id, head, head_tag, count, touched) {rows}
             ON DUPLICATE KEY UPDATE Conversation.head = Conversation.head"
        ))?;
    }
    lock(db, convs).map(drop)
}

/// Locks the rows. Returns whether all of them exist.
fn lock(db: &mut Conn, convs: &[ConversationId]) -> mysql::Result<bool> {
    db.query_drop("START TRANSACTION")?;
    let mut locked = 0;
    for convs in convs.chunks(LIST_MAX) {
        let ids = list(convs.iter().map(|conv| conv.column()));
        let rows: Vec<i64> = db.query(format!(
            "SELECT id FROM Conversation FORCE INDEX (PRIMARY) WHERE id IN ({ids}) ORDER BY id FOR UPDATE"
        ))?;
        locked += rows.len();
    }
    Ok(locked == convs.len())
}

/// Records entries of one conversation that is locked, or not known to anybody else yet.
pub(super) fn record(
    db: &mut Conn,
    base: &Base,
    entries: &[NewEntry],
    members: Vec<UserId>,
    gone: Vec<UserId>,
) -> mysql::Result<Option<Recorded>> {
    if entries.is_empty() {
        return Ok(None);
    }
    let bytes_max = base.script_bytes();
    let facts = facts::read_within(db, &PlanQuestions::of(entries), entries, bytes_max)?;
    let plan = plan::plan(entries, facts, CommitRules::OF_SERVER);
    writing::write_within(db, entries, &plan, bytes_max).map_err(error::duplicate_as_deadlock)?;
    Ok(recorded(entries, &plan.outcomes, members, gone))
}
