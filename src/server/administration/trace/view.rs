//! [`View`]: all known facts about a message, from all nodes and the database.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use super::ask::TraceRequest;
use super::gather::AskedNode;
use super::node::NodeAnswer;
use crate::base::trace::{Hop, Step};
use crate::server::jobs::{MessageFacts, Sought};

/// See the [module](self).
pub(super) struct View<'a> {
    pub(super) asked: &'a TraceRequest,
    pub(super) facts: Result<MessageFacts, String>,
    pub(super) nodes: Vec<NodeView>,
    /// The steps of the message, oldest first.
    pub(super) steps: Vec<SeenStep>,
}

/// A node, and its name for people.
pub(super) struct NodeView {
    pub(super) label: String,
    pub(super) answer: Result<NodeAnswer, String>,
}

/// A step, and the index of the node that remembers it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SeenStep {
    pub(super) node: usize,
    pub(super) step: Step,
}

impl<'a> View<'a> {
    pub(super) fn new(asked: &'a TraceRequest, facts: Result<MessageFacts, String>, nodes: Vec<AskedNode>) -> View<'a> {
        let nodes = labelled(nodes);
        let mut view = View { asked, facts, nodes, steps: Vec::new() };
        view.steps = view.select();
        view
    }

    /// The steps of the message. On the recipient's node, a message of level 1 has no number of its
    /// own, and is identified by its envelope.
    fn select(&self) -> Vec<SeenStep> {
        let mut all: Vec<SeenStep> = Vec::new();
        for (node, of) in self.nodes.iter().enumerate() {
            let steps = of.answer.iter().flat_map(|answer| &answer.steps);
            all.extend(steps.map(|step| SeenStep { node, step: *step }));
        }
        all.sort_by_key(|seen| (seen.step.at, seen.step.hop));
        if matches!(self.asked.sought, Sought::To(_)) {
            return all;
        }
        let place = self.place();
        let is_at = |step: &Step| place == Some((step.conv, step.seq));
        let stored_as = all.iter().map(|seen| seen.step).filter(is_at).find(|step| step.cid != 0);
        let stored_as = stored_as.map(|step| (step.from, step.cid));
        // Only together with its sender is a cid unique.
        let cid = self.asked.cid.map(|cid| (self.asked.user.0, cid)).or(stored_as);
        let is_of_it = |seen: &&SeenStep| {
            let step = seen.step;
            let is_report =
                step.hop == Hop::Reported && place.is_some_and(|(conv, seq)| step.conv == conv && step.seq >= seq);
            // A message that a connection of level 1 has returned has no number.
            let is_unnumbered = place.is_some_and(|(conv, _)| step.conv == conv) && step.seq == 0 && step.cid == 0;
            is_at(&step) || is_report || is_unnumbered || cid == Some((step.from, step.cid))
        };
        let own: HashSet<usize> =
            all.iter().enumerate().filter(|(_, seen)| is_of_it(seen)).map(|(index, _)| index).collect();
        let envelopes = self.envelopes(own.iter().map(|index| all[*index]));
        let keep = |(index, seen): &(usize, &SeenStep)| {
            own.contains(index) || envelopes.contains_key(&(seen.step.node, seen.step.envelope, seen.step.nth))
        };
        all.iter().enumerate().filter(keep).map(|(_, seen)| *seen).collect()
    }

    /// The envelopes in which these were published, named as by the receiving nodes.
    pub(super) fn envelopes(&self, steps: impl Iterator<Item = SeenStep>) -> HashMap<(u64, u64, u32), SeenStep> {
        let published = steps.filter(|seen| seen.step.hop == Hop::Published && seen.step.envelope != 0);
        published.map(|seen| ((self.bus(seen.node), seen.step.envelope, seen.step.nth), seen)).collect()
    }

    /// The column of its conversation, and its number.
    pub(super) fn place(&self) -> Option<(i64, i64)> {
        let known = self.facts.as_ref().ok().and_then(|facts| facts.place);
        let known = known.map(|(conv, seq)| (conv.column(), seq));
        known.or(match &self.asked.sought {
            Sought::Place(_, conv, seq) => Some((conv.column(), *seq)),
            Sought::Cid(..) | Sought::To(_) => None,
        })
    }

    fn bus(&self, node: usize) -> u64 {
        self.nodes[node].answer.as_ref().map_or(0, |answer| answer.bus)
    }

    pub(super) fn label(&self, node: usize) -> &str {
        &self.nodes[node].label
    }

    /// The name of the node with this number in the steps of others.
    pub(super) fn label_of_bus(&self, bus: u64) -> Option<&str> {
        let is_it = |node: &&NodeView| node.answer.as_ref().is_ok_and(|answer| answer.bus == bus);
        self.nodes.iter().find(is_it).filter(|_| bus != 0).map(|node| &*node.label)
    }

    /// The nodes to which this device is connected, and what each connection has not acknowledged.
    pub(super) fn connections(&self, user: i32, device: i64) -> impl Iterator<Item = (usize, u64)> {
        self.nodes.iter().enumerate().flat_map(move |(index, node)| {
            let places = node.answer.iter().flat_map(|answer| &answer.places);
            let places = places.filter(move |place| place.user == user && place.device == device);
            places.map(move |place| (index, place.unread_bytes))
        })
    }

    /// Whether a node remembers every step of the conversation since this time, so that a step that
    /// is missing was not taken.
    pub(super) fn remembers(&self, node: usize, time: i64) -> bool {
        let since = self.nodes[node].answer.as_ref().ok().and_then(|answer| answer.complete_since);
        since.is_some_and(|since| since <= time)
    }

    /// The nodes that do not, or do not answer.
    pub(super) fn forgetful(&self, time: i64) -> Vec<&str> {
        (0..self.nodes.len()).filter(|node| !self.remembers(*node, time)).map(|node| self.label(node)).collect()
    }

    /// Whether a node has not answered.
    pub(super) fn is_partial(&self) -> bool {
        self.nodes.iter().any(|node| node.answer.is_err())
    }

    pub(super) fn with(&self, hop: Hop) -> impl Iterator<Item = &SeenStep> {
        self.steps.iter().filter(move |seen| seen.step.hop == hop)
    }

    /// The name of a device.
    pub(super) fn device(&self, device: i64) -> String {
        let devices = self.facts.iter().flat_map(|facts| &facts.recipients).flat_map(|user| &user.devices);
        let name = devices.filter(|known| known.id.0 == device).map(|known| known.name.clone()).next();
        name.unwrap_or_else(|| format!("number {device}"))
    }

    pub(super) fn nodes_json(&self) -> Vec<Value> {
        let shown = |node: &NodeView| {
            let answer = node.answer.as_ref().ok();
            json!({
                "answered": answer.is_some(),
                "more": answer.is_some_and(|answer| answer.more),
                "node": node.label,
                "trace": answer.map(|answer| answer.sampling.to_string()),
                "trouble": node.answer.as_ref().err(),
            })
        };
        self.nodes.iter().map(shown).collect()
    }
}

/// Nodes of one machine may have one name.
fn labelled(nodes: Vec<AskedNode>) -> Vec<NodeView> {
    let mut names: HashMap<String, usize> = HashMap::new();
    for name in nodes.iter().filter_map(|node| node.answer.as_ref().ok()).map(|answer| answer.name.clone()) {
        *names.entry(name).or_default() += 1;
    }
    let label = |node: &AskedNode| match (&node.answer, node.address) {
        (Ok(answer), Some(address)) if names[&answer.name] > 1 => format!("{} ({address})", answer.name),
        (Ok(answer), _) => answer.name.clone(),
        (Err(_), address) => address.map_or_else(String::new, |address| address.to_string()),
    };
    nodes.into_iter().map(|node| NodeView { label: label(&node), answer: node.answer }).collect()
}
