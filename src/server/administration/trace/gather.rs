//! Queries the database and all nodes, each for a bounded time.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::AcqRel};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, bounded};
use serde_json::Value;

use super::node::{NodeAnswer, Question, own};
use crate::base::conversation::ConversationId;
use crate::base::trace::Step;
use crate::config::Secret;
use crate::operation::admin::api::ApiAnswer;
use crate::operation::admin::peers::ask_all;
use crate::server::administration::call::{AdministrationParts, NodeParts};
use crate::store::StoreError;

/// A node's answer, or the reason why there is none. The first node is this one.
pub(super) struct AskedNode {
    pub(super) address: Option<SocketAddr>,
    pub(super) answer: Result<NodeAnswer, String>,
}

/// All nodes, each once.
pub(super) fn all(parts: &AdministrationParts, question: &Question, key: &Secret) -> Result<Vec<AskedNode>, ApiAnswer> {
    let mut nodes = vec![AskedNode { address: None, answer: Ok(own(parts, question)?) }];
    for (address, answer) in other_nodes(parts.node()?, &question.path(), key) {
        let answer =
            answer.and_then(|answer| NodeAnswer::read(&answer).ok_or_else(|| "its answer is not understood".into()));
        nodes.push(AskedNode { address: Some(address), answer });
    }
    Ok(nodes)
}

/// The place where the message with this id was stored, as a node remembers it.
pub(super) fn place_of(question: &Question, nodes: &[AskedNode]) -> Option<(ConversationId, i64)> {
    let cid = question.wanted.cid.filter(|_| question.wanted.place.is_none())?;
    let steps = nodes.iter().filter_map(|node| node.answer.as_ref().ok()).flat_map(|answer| &answer.steps);
    let is_it = |step: &&Step| step.cid == cid && question.wanted.from.is_none_or(|from| step.from == from.0);
    let stored = steps.filter(is_it).find(|step| step.conv != 0 && step.seq > 0)?;
    Some((ConversationId::from_column(stored.conv), stored.seq))
}

/// The answers of the other nodes to a request for this path.
pub(in crate::server::administration) fn other_nodes(
    parts: &NodeParts,
    path: &str,
    key: &Secret,
) -> Vec<(SocketAddr, Result<Value, String>)> {
    let addresses = &parts.trace.nodes;
    let (mut seen, mut nodes) = (vec![parts.trace.instance.clone()], Vec::new());
    for (address, answer) in addresses.iter().zip(ask_all(addresses, key, path)) {
        if let Ok(answer) = &answer {
            let instance = answer["instance"].as_str().unwrap_or_default().to_owned();
            if seen.contains(&instance) {
                continue;
            }
            seen.push(instance);
        }
        nodes.push((*address, answer));
    }
    nodes
}

/// Asks the database, and waits for the answer for a bounded time. `ask` is told when to begin
/// nothing more. A database that hangs holds few threads.
pub(in crate::server::administration) fn within<T: Send + 'static>(
    ask: impl FnOnce(Instant) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, String> {
    static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);
    let Some(turn) = Turn::take(&UNDER_WAY) else { return Err("the database does not answer".to_owned()) };
    let (found, answer) = bounded(1);
    let by = Instant::now() + STORE_READS;
    let work = move || {
        // Variables are dropped in reverse order: the turn is released before the caller gets the
        // answer.
        let found = found;
        let turn = turn;
        let answer = ask(by);
        drop(turn);
        let _ = found.send(answer);
    };
    if let Err(error) = thread::Builder::new().name("admin-store".to_owned()).spawn(work) {
        return Err(format!("the system has no threads left: {error}"));
    }
    match answer.recv_timeout(STORE_PATIENCE) {
        Ok(found) => found.map_err(|error| error.to_string()),
        Err(RecvTimeoutError::Timeout) => Err(format!("the database does not answer within {STORE_PATIENCE:?}")),
        Err(RecvTimeoutError::Disconnected) => Err("the question to the database has failed".to_owned()),
    }
}

/// One of the questions that may wait for the database. It ends with the thread that asks, even by
/// a panic.
struct Turn<'a>(&'a AtomicUsize);

impl<'a> Turn<'a> {
    fn take(under_way: &'a AtomicUsize) -> Option<Turn<'a>> {
        let turn = Turn(under_way);
        (under_way.fetch_add(1, AcqRel) < UNDER_WAY_MAX).then_some(turn)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, AcqRel);
    }
}

/// How long the database may take, for how long something more is asked of it, and how many
/// questions may wait for it.
const STORE_PATIENCE: Duration = Duration::from_secs(3);
const STORE_READS: Duration = Duration::from_secs(2);
const UNDER_WAY_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_that_panics_gives_its_turn_back() {
        for _ in 0..=UNDER_WAY_MAX {
            let answer = within(|_| -> Result<(), StoreError> { panic!("a bug") });
            assert_eq!(answer, Err("the question to the database has failed".to_owned()));
        }
    }

    #[test]
    fn the_number_of_waiting_questions_is_bounded() {
        let under_way = AtomicUsize::new(0);
        let turns: Vec<_> = (0..UNDER_WAY_MAX).map_while(|_| Turn::take(&under_way)).collect();
        assert_eq!(turns.len(), UNDER_WAY_MAX);
        assert!(Turn::take(&under_way).is_none());
        drop(turns);
        assert!(Turn::take(&under_way).is_some());
    }
}
