//! Publishes posts at the primaries that have their slots.

use std::collections::BTreeMap;
use std::time::Instant;

use pool::RedisFailure;
use redis::{ConnectionLike as _, RedisResult, Value};

use super::core::{ClusterCore, ClusterPrimary};
use super::slots::{MovedSlot, slot_of};
use crate::bus::peer::{NotSent, Publication, Reached};
use crate::bus::redis::dial::{CALL_TIMEOUT, CommandConnection};
use crate::bus::redis::ended::Loss;
use crate::bus::redis::host::POOL_PATIENCE;

/// Publishes all posts, and returns the result of each. Blocks, for a few seconds at most.
///
/// The posts for one primary are pipelined. A post whose slot has just moved follows it. When a
/// primary fails, nothing more is sent, because later posts must not overtake earlier ones.
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
    'rounds: for _ in 0..ROUNDS {
        let mut of_primaries: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for index in rest.drain(..) {
            let owner = shards.owner(slot_of(channels[index].as_bytes()));
            of_primaries.entry(owner).or_default().push(index);
        }
        for (owner, indices) in of_primaries {
            let primary = &shards.primaries[owner];
            let batch = || indices.iter().map(|index| (&*channels[*index], &*posts[*index].payload));
            let answers = match publish(core, primary, by, &batch) {
                Ok(answers) => answers,
                Err(failure) => {
                    if let RedisFailure::InDoubt(_) = failure {
                        indices.iter().for_each(|index| reached[*index] = Some(Reached::Unknown));
                    }
                    break 'rounds;
                }
            };
            for (index, answer) in indices.into_iter().zip(answers) {
                reached[index] = Some(match result(core, primary, session, answer) {
                    Answered::Reached(nodes) => Reached::Nodes(nodes),
                    Answered::Refused => Reached::Unknown,
                    Answered::Moved(moved) => {
                        match shards.move_slot(&moved) {
                            Some(_) => rest.push(index),
                            None => core.state.lose(session, Loss::Reshaped),
                        }
                        Reached::Unknown
                    }
                });
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

/// The answer to one post.
enum Answered {
    Reached(u32),
    Moved(MovedSlot),
    Refused,
}

fn result(core: &ClusterCore, primary: &ClusterPrimary, session: u64, answer: Value) -> Answered {
    match answer {
        Value::Int(nodes) => Answered::Reached(u32::try_from(nodes).unwrap_or(0)),
        Value::ServerError(error) => {
            let moved = || MovedSlot::read(error.details()?, &primary.at);
            match (error.code() == "MOVED").then(moved).flatten() {
                Some(moved) => Answered::Moved(moved),
                None => {
                    core.on_refusal(error.code(), session);
                    Answered::Refused
                }
            }
        }
        _ => Answered::Refused,
    }
}

/// Publishes at one primary, and waits for a connection longer than other commands do.
fn publish<'p, P: Iterator<Item = (&'p str, &'p [u8])>>(
    core: &ClusterCore,
    primary: &ClusterPrimary,
    by: Instant,
    batch: &dyn Fn() -> P,
) -> Result<Vec<Value>, RedisFailure> {
    let mut pipeline = redis::pipe();
    for (channel, payload) in batch() {
        pipeline.cmd("SPUBLISH").arg(channel).arg(payload);
    }
    let (packed, count) = (pipeline.get_packed_pipeline(), batch().count());
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
