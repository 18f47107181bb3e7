//! Storing messages. The rows of their conversations are locked until the commit, and under these
//! locks numbers are given.
//!
//! Hardly a message is a repeat, and the unique key of ids finds those that are. So they are not
//! looked for before anything is written; only if the key finds one, or if a message is refused that
//! may be a repeat, the batch is tried again with a look for them.

use mysql::Conn;
use mysql::prelude::Queryable;
use rustc_hash::FxHashSet;

use super::facts::{self, Repeats};
use super::script::{Script, or_undone, text};
use super::writing;
use crate::base::conversation::ConversationId;
use crate::store::StoreError;
use crate::store::history::plan::{self, BatchFacts, Wanted};
use crate::store::history::{Committed, EntryRefusal, NewEntry};
use crate::store::mysql::base::Base;
use crate::store::mysql::error;

/// An attempt at a batch.
enum CommitAttempt {
    /// It is stored.
    Done(Vec<Committed>),
    /// Nothing is stored, and what was missing is there now.
    Prepared,
}

/// Stores what is not refused, and refuses messages that are longer than the database takes: it
/// would close the connection.
pub(super) fn commit(base: &Base, batch: &[NewEntry], edit_window: i64) -> Result<Vec<Committed>, StoreError> {
    let limit = base.limits.text_bytes();
    // Escaping at most doubles a text.
    let is_sendable = |entry: &NewEntry| entry.text.len() <= limit / 2 || text(&entry.text).len() <= limit;
    if batch.iter().all(is_sendable) {
        return commit_whole(base, batch, edit_window);
    }
    let sendable: Vec<NewEntry> = batch.iter().filter(|entry| is_sendable(entry)).cloned().collect();
    let mut outcomes = commit_whole(base, &sendable, edit_window)?.into_iter();
    let each = batch.iter().map(|entry| if is_sendable(entry) { outcomes.next() } else { None });
    Ok(each.map(|outcome| outcome.unwrap_or(Committed::Refused(EntryRefusal::Unstorable))).collect())
}

/// Stores a batch in one transaction. After a deadlock or a lost connection it begins
/// from the top.
fn commit_whole(base: &Base, batch: &[NewEntry], edit_window: i64) -> Result<Vec<Committed>, StoreError> {
    if batch.is_empty() {
        return Ok(Vec::new());
    }
    let wanted = Wanted::of(batch);
    // What the latest attempt wanted to answer. If the connection was lost when it was committed,
    // it may be stored.
    let mut planned: Option<Vec<Committed>> = None;
    let mut repeats = Repeats::Unlikely;
    base.calls.call(|db, _| {
        for _ in 0..PREPARED_MAX {
            let attempted =
                or_undone(db, |db| attempt(db, base, batch, &wanted, edit_window, (&mut planned, &mut repeats)))?;
            match attempted {
                CommitAttempt::Done(outcomes) => return Ok(outcomes),
                CommitAttempt::Prepared => {}
            }
        }
        Err(error::removed_meanwhile())
    })
}

fn attempt(
    db: &mut Conn,
    base: &Base,
    batch: &[NewEntry],
    wanted: &Wanted,
    edit_window: i64,
    (planned, repeats): (&mut Option<Vec<Committed>>, &mut Repeats),
) -> mysql::Result<CommitAttempt> {
    let bytes_max = base.script_bytes();
    if planned.is_some() {
        *repeats = Repeats::Likely;
    }
    let facts = facts::read(db, wanted, batch, *repeats, bytes_max)?;
    if let Some(outcomes) = planned.as_ref().filter(|planned| is_stored(batch, planned, &facts)) {
        let outcomes = outcomes.clone();
        db.query_drop("ROLLBACK")?;
        return Ok(CommitAttempt::Done(outcomes));
    }
    let locked: FxHashSet<ConversationId> = facts.convs.keys().copied().collect();
    let plan = plan::plan(batch, facts, edit_window);
    // Rows that are not there cannot be locked. They are made without a message, in a transaction
    // of their own: others that wait for an insert of this one would get into each other's way.
    let missing: Vec<i64> = plan.convs.keys().filter(|conv| !locked.contains(conv)).map(|conv| conv.column()).collect();
    if !missing.is_empty() {
        db.query_drop("ROLLBACK")?;
        let mut script = Script::new(bytes_max);
        let rows = missing.iter().map(|conv| format!("({conv},0,0,0,0)"));
        script.insert(
            (),
            "Conversation (id, head, head_tag, count, touched)",
            rows,
            " ON DUPLICATE KEY UPDATE id = id",
        );
        script.run(db, |(), _| Ok(()))?;
        return Ok(CommitAttempt::Prepared);
    }
    let may_be_repeat = |outcome: &Committed| matches!(outcome, Committed::Refused(_));
    if *repeats == Repeats::Unlikely && plan.outcomes.iter().any(may_be_repeat) {
        *repeats = Repeats::Likely;
        db.query_drop("ROLLBACK")?;
        return Ok(CommitAttempt::Prepared);
    }
    if plan.rows.is_empty() {
        db.query_drop("ROLLBACK")?;
        return Ok(CommitAttempt::Done(plan.outcomes));
    }
    *planned = Some(plan.outcomes.clone());
    match writing::write(db, batch, &plan, bytes_max) {
        Ok(()) => Ok(CommitAttempt::Done(plan.outcomes)),
        Err(error) if *repeats == Repeats::Unlikely && error::is_duplicate(&error) => {
            (*planned, *repeats) = (None, Repeats::Likely);
            db.query_drop("ROLLBACK")?;
            Ok(CommitAttempt::Prepared)
        }
        // Another conversation may have got a message of the same id, which only its own lock guards.
        Err(error) => Err(error::duplicate_as_deadlock(error)),
    }
}

/// Whether all that an earlier attempt planned to store is stored where it was planned to be. Then
/// that attempt was committed and its answer lost: what it planned is new, and no repeat.
fn is_stored(batch: &[NewEntry], planned: &[Committed], facts: &BatchFacts) -> bool {
    batch.iter().zip(planned).all(|(entry, outcome)| match outcome {
        Committed::New(place, _) => {
            let known = facts.known.get(&(entry.sender, entry.cid.clone()));
            known.is_some_and(|known| (known.conv, known.seq, known.time) == (entry.conv, place.seq, place.time))
        }
        Committed::Again(_) | Committed::Refused(_) => true,
    })
}

/// Rows of conversations are never deleted, and repeats are looked for from the second time on, so
/// twice is enough.
const PREPARED_MAX: usize = 5;
