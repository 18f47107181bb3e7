//! [`Device`]: a client of level 2 with a database of its own, and its connection.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use testkit::level2::{Log, Message, Session, Store};

use super::world::Home;
use crate::protocol::UserId;
use crate::server::simulation::socket::Pipe;

/// A device: its state, which outlives connections, and its present connection.
pub(super) struct Device {
    pub(super) user: UserId,
    pub(super) name: String,
    pub(super) store: Store,
    pub(super) token: Option<String>,
    pub(super) link: Option<DeviceLink>,
    /// The numbers of messages it has written and of requests it has sent.
    pub(super) written: u32,
    pub(super) asked: u32,
}

/// A connection, as the device sees it.
pub(super) struct DeviceLink {
    pub(super) wire: Wire,
    pub(super) session: Session,
    /// Whether the login was accepted.
    pub(super) is_in: bool,
    /// The ids of unanswered sends, by conversation.
    pub(super) in_flight: BTreeMap<String, BTreeSet<String>>,
    /// Conversations with a failed send that was not retried yet.
    pub(super) failed: BTreeSet<String>,
}

/// A connection of any client: the bytes on their way, and those that the client has read.
pub(super) struct Wire {
    pub(super) pipe: Arc<Pipe>,
    pub(super) home: Home,
    pub(super) outgoing: VecDeque<u8>,
    read: usize,
    partial: Vec<u8>,
    pub(super) is_stalled: bool,
}

impl Device {
    pub(super) fn new(user: UserId, name: &str) -> Device {
        let mut store = Store::new(user.0.into());
        store.allowed.closes = true;
        Device { user, name: name.to_owned(), store, token: None, link: None, written: 0, asked: 0 }
    }

    /// Whether it is logged in and has been shown everything that was promised at the login.
    pub(super) fn is_synced(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.session.is_synced() && link.session.unreplied() == 0)
    }

    /// The oldest message of its outbox that may be sent now: those of a conversation leave in
    /// their order, and after a failure the first one leaves when nothing of the conversation is on
    /// its way.
    pub(super) fn next_of_outbox(&self) -> Option<String> {
        let link = self.link.as_ref().filter(|link| link.session.is_synced())?;
        let mut seen = BTreeSet::new();
        for outgoing in &self.store.outbox {
            let on_their_way = link.in_flight.get(&outgoing.conv);
            if on_their_way.is_some_and(|cids| cids.contains(&outgoing.cid)) {
                continue;
            }
            let is_first = seen.insert(outgoing.conv.as_str());
            let overtakes = on_their_way.is_some_and(|cids| {
                let behind = self.store.outbox.iter().skip_while(|other| other.cid != outgoing.cid);
                behind.filter(|other| other.conv == outgoing.conv).any(|other| cids.contains(&other.cid))
            });
            if is_first && !overtakes {
                return Some(outgoing.text.clone());
            }
        }
        None
    }

    /// The messages of its own that it holds: their conversations and numbers.
    pub(super) fn own_messages(&self) -> Vec<(String, u64)> {
        let own = |(conv, log): (&String, &Log)| {
            let is_own = |m: &&Message| m.from == i64::from(self.user.0) && m.m.0.contains(r#""cid":"d"#);
            let own = log.messages.values().filter(is_own);
            own.map(|message| (conv.clone(), message.seq.0)).collect::<Vec<_>>()
        };
        self.store.logs.iter().flat_map(own).collect()
    }

    /// Sends a frame, and notes what is expected for it.
    pub(super) fn send(&mut self, text: &str) {
        let Some(link) = &mut self.link else { return };
        link.session.on_sent(text, &mut self.store);
        link.wire.send(text);
    }

    /// Sends a message to a conversation.
    pub(super) fn send_message(&mut self, conv: &str, cid: &str, text: &str) {
        self.send(text);
        if let Some(link) = &mut self.link {
            link.in_flight.entry(conv.to_owned()).or_default().insert(cid.to_owned());
        }
    }
}

impl DeviceLink {
    /// Notes that a send is answered. Returns its conversation.
    pub(super) fn take_from_flight(&mut self, cid: &str) -> Option<String> {
        let found = self.in_flight.iter_mut().find_map(|(conv, cids)| cids.remove(cid).then(|| conv.clone()));
        self.in_flight.retain(|_, cids| !cids.is_empty());
        found
    }
}

/// The objects of a line. The reply to a request whose newline comes later has none.
fn objects(line: &str) -> Vec<String> {
    if !line.contains("}{") {
        return vec![line.to_owned()];
    }
    let objects = serde_json::Deserializer::from_str(line).into_iter::<&serde_json::value::RawValue>();
    objects.map(|object| object.expect("JSON").get().to_owned()).collect()
}

impl Wire {
    pub(super) fn new(pipe: Arc<Pipe>, home: Home) -> Wire {
        Wire { pipe, home, outgoing: VecDeque::new(), read: 0, partial: Vec::new(), is_stalled: false }
    }

    pub(super) fn send(&mut self, text: &str) {
        self.outgoing.extend(text.as_bytes());
        self.outgoing.push_back(b'\n');
    }

    /// Delivers bytes to the node. Returns their number.
    pub(super) fn deliver(&mut self, most: usize) -> usize {
        let count = most.min(self.outgoing.len());
        if count > 0 {
            let bytes: Vec<u8> = self.outgoing.drain(..count).collect();
            self.pipe.arrive(&bytes);
        }
        count
    }

    /// The frames that have come to the client's kernel since this was last asked, a line each.
    pub(super) fn frames(&mut self) -> Vec<String> {
        let (acknowledged, written) = (self.pipe.acknowledged(), self.pipe.written());
        if acknowledged == self.read {
            return Vec::new();
        }
        let mut new = self.pipe.written_after(self.read);
        new.truncate(new.len() - (written - acknowledged));
        self.read = acknowledged;
        self.partial.extend(new);
        let end = self.partial.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let whole: Vec<u8> = self.partial.drain(..end).collect();
        let whole = String::from_utf8(whole).expect("the server writes text");
        whole.lines().filter(|line| !line.is_empty()).flat_map(objects).collect()
    }
}
