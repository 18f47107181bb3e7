//! Publishes posts at the primaries that have their slots.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::thread;
use std::time::Instant;

use pool::RedisFailure;
use redis::{ConnectionLike as _, RedisResult, Value};

use super::core::{ClusterCore, ClusterPrimary, Shards};
use super::slots::{MovedSlot, slot_of};
use crate::bus::peer::{NotSent, Publication, Reached};
use crate::bus::redis::dial::{CALL_TIMEOUT, CommandConnection};
use crate::bus::redis::ended::Loss;
use crate::bus::redis::host::POOL_PATIENCE;

/// Publishes all posts, and returns the result of each. Blocks, for a few seconds at most.
///
/// The posts for one primary are pipelined. A post whose slot has just moved follows it. Posts for
/// other primaries do not wait for one that fails, because a user's posts are all at one. Only the
/// caller does, for [`CALL_TIMEOUT`] at most.
///
/// # Errors
///
/// If none of them was sent.
pub(super) fn post(core: &ClusterCore, posts: &[Publication<'_>]) -> Result<Vec<Reached>, NotSent> {
    let (shards, session) = (core.shards(), core.state.session());
    let channels: Vec<String> = posts.iter().map(|post| core.names.channel(post.topic)).collect();
    let mut reached: Vec<Option<Reached>> = vec![None; posts.len()];
    let mut rest: Vec<usize> = (0..posts.len()).collect();
    let by = Instant::now() + CALL_TIMEOUT;
    for _ in 0..ROUNDS {
        let mut batches: BTreeMap<usize, Batch> = BTreeMap::new();
        for index in rest.drain(..) {
            let owner = shards.owner(slot_of(channels[index].as_bytes()));
            let batch = batches.entry(owner).or_default();
            batch.pipeline.cmd("SPUBLISH").arg(&channels[index]).arg(&posts[index].payload);
            batch.indices.push(index);
        }
        for ((owner, batch), answers) in batches.iter().zip(publish_at_all(core, &shards, by, &batches)) {
            let answers = match answers {
                Ok(answers) => answers,
                Err(RedisFailure::InDoubt(_)) => {
                    batch.indices.iter().for_each(|index| reached[*index] = Some(Reached::Unknown));
                    continue;
                }
                Err(_) => continue,
            };
            for (&index, answer) in batch.indices.iter().zip(answers) {
                reached[index] = match result(core, &shards.primaries[*owner], session, answer) {
                    PostOutcome::Reached(nodes) => Some(Reached::Nodes(nodes)),
                    PostOutcome::Refused => Some(Reached::Unknown),
                    PostOutcome::Moved(moved) => {
                        match shards.move_slot(&moved) {
                            Some(_) => rest.push(index),
                            None => core.state.lose(session, Loss::Reshaped),
                        }
                        None
                    }
                };
            }
        }
        if rest.is_empty() {
            break;
        }
    }
    if reached.iter().all(Option::is_none) {
        return Err(NotSent);
    }
    Ok(reached.into_iter().map(|reached| reached.unwrap_or(Reached::Unsent)).collect())
}

/// The posts for one primary.
#[derive(Default)]
struct Batch {
    pipeline: redis::Pipeline,
    indices: Vec<usize>,
}

/// Publishes these batches at the same time, each at its primary, so that none waits for another.
fn publish_at_all(
    core: &ClusterCore,
    shards: &Shards,
    by: Instant,
    batches: &BTreeMap<usize, Batch>,
) -> Vec<Result<Vec<Value>, RedisFailure>> {
    let run = |(owner, batch): (&usize, &Batch)| publish(core, &shards.primaries[*owner], by, batch);
    thread::scope(|scope| {
        let mut batches = batches.iter();
        let Some(first) = batches.next() else { return Vec::new() };
        let named = || thread::Builder::new().name("post".to_owned());
        let spawn = |batch| (batch, named().spawn_scoped(scope, move || run(batch)));
        let others: Vec<_> = batches.map(spawn).collect();
        let mut answers = vec![run(first)];
        answers.extend(others.into_iter().map(|(batch, thread)| match thread {
            Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
            // The system has no thread left.
            Err(_) => run(batch),
        }));
        answers
    })
}

/// The answer to one post.
enum PostOutcome {
    Reached(u32),
    Moved(MovedSlot),
    Refused,
}

fn result(core: &ClusterCore, primary: &ClusterPrimary, session: u64, answer: Value) -> PostOutcome {
    match answer {
        Value::Int(nodes) => PostOutcome::Reached(u32::try_from(nodes).unwrap_or(0)),
        Value::ServerError(error) => {
            let moved = || MovedSlot::read(error.details()?, &primary.at);
            match (error.code() == "MOVED").then(moved).flatten() {
                Some(moved) => PostOutcome::Moved(moved),
                None => {
                    core.on_refusal(error.code(), session);
                    PostOutcome::Refused
                }
            }
        }
        _ => PostOutcome::Refused,
    }
}

/// Publishes at one primary, and waits for a connection longer than other commands do.
fn publish(
    core: &ClusterCore,
    primary: &ClusterPrimary,
    by: Instant,
    batch: &Batch,
) -> Result<Vec<Value>, RedisFailure> {
    let (packed, count) = (batch.pipeline.get_packed_pipeline(), batch.indices.len());
    let work = |connection: &mut CommandConnection| -> RedisResult<Vec<Value>> {
        connection.req_packed_commands(&packed, 0, count)
    };
    let patience = Instant::now() + POOL_PATIENCE;
    loop {
        match core.run_at(primary, by, work) {
            Err(RedisFailure::Busy) if core.peer.gate().is_open() && Instant::now() < patience => {}
            result => return result,
        }
    }
}

/// How often a post follows its slot.
const ROUNDS: usize = 3;
