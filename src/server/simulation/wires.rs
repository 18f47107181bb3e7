//! [`Wires`]: a Redis between simulated nodes.
//!
//! As in the real one, a node has a connection that hears, one that says, and others that publish
//! and wait for the answer. Messages through one of them keep their order; between them nothing
//! does. This file decides only what wires lose and how long they take: they do not know what they
//! carry, unless they are broken on purpose.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Mutation;
use super::dice::Dice;
use crate::bus::peer::Topic;
use crate::bus::peer::envelope::{self, PeerMessage};
use crate::protocol::UserId;

pub(super) type SimTopic = Topic<Box<str>>;

/// The content of Redis: its subscriptions, and the messages on their way.
pub(super) struct Wires {
    pub(super) is_up: bool,
    /// One publication in this number fails in the middle; none if 0.
    pub(super) fails_once_in: usize,
    pub(super) faults: usize,
    /// The number of times that a node has given up its connection.
    pub(super) given_up: usize,
    pub(super) hearers: BTreeMap<String, Hearer>,
    /// The number of connections that Redis has held for longer than their nodes.
    left: u64,
    pub(super) dice: Dice,
    pub(super) mutation: Option<Mutation>,
    /// The faults of news for devices, which nobody confirms.
    pub(super) weather: Weather,
    /// If present: the messages for devices of a user that nodes were told of.
    pub(super) overheard: Option<Vec<(UserId, String)>>,
}

/// One in this number is lost, comes twice, or comes before the one that was sent before it; none
/// if 0.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Weather {
    pub(super) loses: usize,
    pub(super) doubles: usize,
    pub(super) reorders: usize,
}

/// A node, as Redis knows it.
#[derive(Default)]
pub(super) struct Hearer {
    wanted: BTreeSet<SimTopic>,
    /// Requests of the node: on the connection that hears, and on the one that says.
    pub(super) orders: VecDeque<Order>,
    pub(super) said: VecDeque<(SimTopic, Vec<u8>)>,
    /// Events for the node.
    pub(super) heard: VecDeque<Heard>,
    /// Whether nothing reaches the node any more, without Redis knowing it.
    pub(super) is_cut_off: bool,
}

/// A request of a node to Redis.
pub(super) enum Order {
    Listen(SimTopic),
    Ignore(UserId),
    IgnoreAll,
    Ping,
}

/// An event that Redis sends to a node.
pub(super) enum Heard {
    Said(SimTopic, Vec<u8>),
    Listening(SimTopic),
    Ignoring(UserId),
    Pong,
}

impl Wires {
    pub(super) fn new(seed: u64, mutation: Option<Mutation>) -> Wires {
        let dice = Dice::new(seed ^ 0xb05);
        let hearers = BTreeMap::new();
        Wires {
            is_up: true,
            fails_once_in: 0,
            faults: 0,
            given_up: 0,
            hearers,
            left: 0,
            dice,
            mutation,
            weather: Weather::default(),
            overheard: None,
        }
    }

    /// Redis ends: everything that is on its way is gone.
    pub(super) fn end(&mut self) {
        self.is_up = false;
        self.hearers.clear();
        self.faults += 1;
    }

    /// Cuts off a node: nothing reaches it any more, but Redis continues to send to it.
    pub(super) fn cut_off(&mut self, node: &str) {
        if let Some(hearer) = self.hearers.get_mut(node) {
            (hearer.is_cut_off, hearer.heard) = (true, VecDeque::new());
            self.faults += 1;
        }
    }

    /// Closes a node's connection. Redis may notice that late: until then it accepts messages for
    /// the node, and they are lost.
    pub(super) fn leave(&mut self, node: &str) {
        self.given_up += 1;
        let Some(Hearer { wanted, .. }) = self.hearers.remove(node) else { return };
        if self.dice.one_in(2) {
            self.left += 1;
            let hearer = Hearer { wanted, is_cut_off: true, ..Hearer::default() };
            self.hearers.insert(format!("{node}, left as number {}", self.left), hearer);
        }
    }

    /// Redis notices that a node is gone.
    pub(super) fn forget(&mut self, node: &str) {
        self.hearers.remove(node);
    }

    pub(super) fn forget_cut_off(&mut self) {
        self.hearers.retain(|_, hearer| !hearer.is_cut_off);
    }

    /// Whether something is on its way from this node.
    pub(super) fn has_work(&self, node: &str) -> bool {
        self.hearers.get(node).is_some_and(|hearer| !hearer.orders.is_empty() || !hearer.said.is_empty())
    }

    pub(super) fn has_heard(&self, node: &str) -> bool {
        self.hearers.get(node).is_some_and(|hearer| !hearer.heard.is_empty())
    }

    /// Redis does one thing for this node.
    pub(super) fn step(&mut self, node: &str) {
        let Some(hearer) = self.hearers.get_mut(node) else { return };
        let says = !hearer.said.is_empty() && (hearer.orders.is_empty() || self.dice.one_in(2));
        if says {
            let (topic, payload) = hearer.said.pop_front().expect("it is there");
            self.publish(node, &topic, &payload);
            return;
        }
        let Some(order) = hearer.orders.pop_front() else { return };
        let answers = match order {
            Order::Listen(topic) => {
                hearer.wanted.insert(topic.clone());
                vec![Heard::Listening(topic)]
            }
            Order::Ignore(user) => {
                hearer.wanted.remove(&Topic::User(user));
                vec![Heard::Ignoring(user)]
            }
            Order::IgnoreAll => std::mem::take(&mut hearer.wanted).into_iter().filter_map(ignoring).collect(),
            Order::Ping => vec![Heard::Pong],
        };
        answers.into_iter().for_each(|answer| self.send(node, answer));
    }

    /// Sometimes serves a node between two commands of a pipeline.
    pub(super) fn step_between(&mut self) {
        let nodes: Vec<_> = self.hearers.keys().cloned().collect();
        if !nodes.is_empty() && self.dice.one_in(2) {
            let node = self.dice.pick(&nodes).clone();
            self.step(&node);
        }
    }

    fn send(&mut self, node: &str, heard: Heard) {
        let Some(hearer) = self.hearers.get_mut(node).filter(|hearer| !hearer.is_cut_off) else { return };
        hearer.heard.push_back(heard);
        let len = hearer.heard.len();
        if self.mutation == Some(Mutation::BusReorders) && len > 1 && self.dice.one_in(2) {
            hearer.heard.swap(len - 1, len - 2);
        }
    }

    /// Sends a message to all nodes that listen, and returns their number.
    pub(super) fn publish(&mut self, from: &str, topic: &SimTopic, payload: &[u8]) -> u32 {
        let listens = |hearer: &Hearer| hearer.wanted.contains(topic);
        let nodes: Vec<String> =
            self.hearers.iter().filter(|(_, hearer)| listens(hearer)).map(|(node, _)| node.clone()).collect();
        let message = PeerMessage::parse(topic.as_ref(), payload);
        if self.mutation == Some(Mutation::ConfirmsEarly)
            && let Some(PeerMessage::Envelope { sender, sequence, .. }) = message
            && !nodes.is_empty()
            && self.dice.one_in(4)
        {
            self.send(from, Heard::Said(Topic::Node(sender.into()), envelope::confirmations(None, &[sequence])));
            return nodes.len() as u32;
        }
        let is_hello = matches!(message, Some(PeerMessage::Hello { .. } | PeerMessage::Hellos { .. }));
        let is_lost = is_hello && self.mutation == Some(Mutation::LosesHellos);
        if let Some(PeerMessage::Devices { to, payload }) = message {
            self.tell_devices(&nodes, topic, (to, payload));
            return nodes.len() as u32;
        }
        for node in nodes.iter().filter(|node| !is_lost || *node == from) {
            let topic = self.misdelivered(node, topic).unwrap_or_else(|| topic.clone());
            self.send(node, Heard::Said(topic, payload.to_vec()));
        }
        nodes.len() as u32
    }

    fn tell_devices(&mut self, nodes: &[String], topic: &SimTopic, (to, payload): (Option<UserId>, &str)) {
        let Weather { loses, doubles, reorders } = self.weather;
        for node in nodes {
            let times = match () {
                () if loses > 0 && self.dice.one_in(loses) => 0,
                () if doubles > 0 && self.dice.one_in(doubles) => 2,
                () => 1,
            };
            for _ in 0..times {
                self.send(node, Heard::Said(topic.clone(), payload.as_bytes().to_vec()));
                self.reorder(node, reorders);
            }
        }
        if let (Some(overheard), Some(user), true) = (&mut self.overheard, to, payload.starts_with('m')) {
            overheard.push((user, payload.to_owned()));
        }
    }

    /// Swaps the last message with the one before it, perhaps.
    fn reorder(&mut self, node: &str, once_in: usize) {
        let swaps = once_in > 0 && self.dice.one_in(once_in);
        let Some(heard) = self.hearers.get_mut(node).map(|hearer| &mut hearer.heard).filter(|_| swaps) else { return };
        if let [.., Heard::Said(..), Heard::Said(..)] = heard.make_contiguous() {
            let len = heard.len();
            heard.swap(len - 1, len - 2);
        }
    }

    /// Another user of the node, if this is broken.
    fn misdelivered(&mut self, node: &str, topic: &SimTopic) -> Option<SimTopic> {
        if self.mutation != Some(Mutation::BusMisdelivers) || !matches!(topic, Topic::User(_)) || !self.dice.one_in(4) {
            return None;
        }
        let wanted = &self.hearers.get(node)?.wanted;
        wanted.iter().find(|other| matches!(other, Topic::User(_)) && *other != topic).cloned()
    }
}

fn ignoring(topic: SimTopic) -> Option<Heard> {
    if let Topic::User(user) = topic { Some(Heard::Ignoring(user)) } else { None }
}

pub(super) fn owned(topic: Topic<&str>) -> SimTopic {
    match topic {
        Topic::User(user) => Topic::User(user),
        Topic::Place(place) => Topic::Place(place.into()),
        Topic::Node(node) => Topic::Node(node.into()),
        Topic::Hellos => Topic::Hellos,
        Topic::Groups => Topic::Groups,
        Topic::Level2 => Topic::Level2,
    }
}
