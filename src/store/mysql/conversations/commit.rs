//! Storing messages. The rows of their conversations are locked until the commit, and numbers are
//! assigned under these locks.
//!
//! Repeats are rare, and the unique key of ids finds them. So the batch is first written without a
//! search for repeats. Only if the key finds one, or if a message is refused that may be a repeat,
//! is the batch tried again with a search.

use mysql::Conn;
use mysql::prelude::Queryable;
use rustc_hash::FxHashSet;

use super::facts::{self, Repeats};
use super::script::{Script, or_undone, text};
use super::writing;
use crate::base::conversation::ConversationId;
use crate::store::StoreError;
use crate::store::history::plan::{self, BatchFacts, PlanQuestions, RoomQuestions};
use crate::store::history::{CommitOutcome, CommitRules, EntryRefusal, NewEntry};
use crate::store::mysql::base::Base;
use crate::store::mysql::error;

/// An attempt at a batch.
enum CommitAttempt {
    /// The batch is stored.
    Done(Vec<CommitOutcome>),
    /// Nothing is stored, but the missing rows are there now.
    Prepared,
}

/// Stores the messages that are not refused. Refuses messages that are longer than the database
/// accepts, because it would close the connection.
pub(super) fn commit(base: &Base, batch: &[NewEntry], rules: CommitRules) -> Result<Vec<CommitOutcome>, StoreError> {
    let limit = base.limits.text_bytes();
    // Escaping doubles a text at most.
    let is_sendable = |entry: &NewEntry| entry.text.len() <= limit / 2 || text(&entry.text).len() <= limit;
    if batch.iter().all(is_sendable) {
        return commit_whole(base, batch, rules);
    }
    let sendable: Vec<NewEntry> = batch.iter().filter(|entry| is_sendable(entry)).cloned().collect();
    let mut outcomes = commit_whole(base, &sendable, rules)?.into_iter();
    let each = batch.iter().map(|entry| if is_sendable(entry) { outcomes.next() } else { None });
    Ok(each.map(|outcome| outcome.unwrap_or(CommitOutcome::Refused(EntryRefusal::Unstorable))).collect())
}

/// Stores a batch in one transaction. After a deadlock or a lost connection it starts again.
fn commit_whole(base: &Base, batch: &[NewEntry], rules: CommitRules) -> Result<Vec<CommitOutcome>, StoreError> {
    if batch.is_empty() {
        return Ok(Vec::new());
    }
    let wanted = PlanQuestions::of(batch);
    // The outcomes of the latest attempt. If the connection was lost during its commit, the attempt
    // may be stored.
    let mut planned: Option<Vec<CommitOutcome>> = None;
    let mut repeats = Repeats::Unlikely;
    base.calls.call(|db, _| {
        for _ in 0..PREPARED_MAX {
            let attempted = or_undone(db, |db| attempt(db, base, batch, &wanted, rules, (&mut planned, &mut repeats)))?;
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
    wanted: &PlanQuestions,
    rules: CommitRules,
    (planned, repeats): (&mut Option<Vec<CommitOutcome>>, &mut Repeats),
) -> mysql::Result<CommitAttempt> {
    let bytes_max = base.script_bytes();
    if planned.is_some() {
        *repeats = Repeats::Likely;
    }
    let mut facts = facts::read(db, wanted, batch, *repeats, bytes_max)?;
    facts::read_room(db, &RoomQuestions::of(batch, &facts), &mut facts, rules.conversations_max, bytes_max)?;
    if let Some(outcomes) = planned.as_ref().filter(|planned| is_stored(batch, planned, &facts)) {
        let outcomes = outcomes.clone();
        db.query_drop("ROLLBACK")?;
        return Ok(CommitAttempt::Done(outcomes));
    }
    let locked: FxHashSet<ConversationId> = facts.convs.keys().copied().collect();
    let plan = plan::plan(batch, facts, rules);
    // Missing rows cannot be locked. They are inserted without a message, in a separate
    // transaction, because callers that wait for this insert would otherwise block each other.
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
    let may_be_repeat = |outcome: &CommitOutcome| matches!(outcome, CommitOutcome::Refused(_));
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
        // Another conversation may have got a message with the same id, which only its own lock
        // guards.
        Err(error) => Err(error::duplicate_as_deadlock(error)),
    }
}

/// Whether everything that an earlier attempt planned to store is stored in its planned place. Then
/// that attempt was committed and its answer lost, so its messages are new and not repeats.
fn is_stored(batch: &[NewEntry], planned: &[CommitOutcome], facts: &BatchFacts) -> bool {
    batch.iter().zip(planned).all(|(entry, outcome)| match outcome {
        CommitOutcome::New(place, _) => {
            let known = facts.known.get(&(entry.sender, entry.cid.clone()));
            known.is_some_and(|known| (known.conv, known.seq, known.time) == (entry.conv, place.seq, place.time))
        }
        CommitOutcome::Again(_) | CommitOutcome::Refused(_) => true,
    })
}

/// Rows of conversations are never deleted, and repeats are searched for from the second attempt
/// on, so two attempts are enough.
const PREPARED_MAX: usize = 5;
