//! [`Peer`]: a node that only records its events.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use net::Turn;
use raybox::base::ids::FrameId;
use raybox::bus::redis::{ClusterBus, RedisBus};
use raybox::bus::{Bus, DeviceNews, Envelope, Frames, Node, Place, Published, Receipt};
use raybox::config::{RedisPlace, RedisSettings};
use raybox::delivery::{Comeback, Delivery, DeliveryOrigin, Posted};
use raybox::protocol::{GroupId, UserId};
use testkit::{LONG_PATIENCE, Redis, wait_until};

/// Records the events of its node.
#[derive(Default)]
pub(crate) struct Notes {
    /// The users who are at this node. Messages for any other user reach nobody.
    pub(crate) here: Mutex<HashSet<UserId>>,
    pub(crate) heard: Mutex<Vec<Heard>>,
    pub(crate) refused: Mutex<Vec<Receipt>>,
    /// The user's place in the last confirmation.
    pub(crate) place: Mutex<Option<Place>>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Heard {
    Envelope(UserId, String),
    Returned(UserId, String),
    Bare(UserId, String),
    Confirmed(u64),
    Refused(u64, usize),
    Left(UserId),
    Elsewhere(UserId),
    Group(GroupId),
    Rejoined,
}

impl Notes {
    pub(crate) fn note(&self, heard: Heard) {
        self.heard.lock().expect("notes").push(heard);
    }

    pub(crate) fn wait_for(&self, heard: &Heard) {
        wait_until(&format!("{heard:?}"), || self.heard.lock().expect("notes").contains(heard));
    }

    pub(crate) fn last_place(&self) -> Option<Place> {
        self.place.lock().expect("notes").clone()
    }

    pub(crate) fn count(&self, heard: &Heard) -> usize {
        self.heard.lock().expect("notes").iter().filter(|other| *other == heard).count()
    }
}

impl Node for Notes {
    fn on_envelope(&self, _: &mut Turn<Posted>, to: UserId, frames: Frames<'_>, receipt: &dyn Fn() -> Receipt) -> bool {
        self.note(Heard::Envelope(to, frames.collect::<Vec<_>>().join("\n")));
        let is_here = self.here.lock().expect("notes").contains(&to);
        if !is_here {
            self.refused.lock().expect("notes").push(receipt());
        }
        is_here
    }

    fn on_returned(&self, _: &mut Turn<Posted>, to: UserId, frames: Frames<'_>, _: &dyn Fn() -> Receipt) -> bool {
        self.note(Heard::Returned(to, frames.collect::<Vec<_>>().join("\n")));
        true
    }

    fn on_bare(&self, _: &mut Turn<Posted>, to: UserId, frame: &str) {
        self.note(Heard::Bare(to, frame.to_owned()));
    }

    fn on_confirmed(&self, place: Option<Place>, sequences: Vec<u64>) {
        *self.place.lock().expect("notes") = place;
        sequences.into_iter().for_each(|sequence| self.note(Heard::Confirmed(sequence)));
    }

    fn on_refused(&self, sequence: u64, delivered: usize) {
        self.note(Heard::Refused(sequence, delivered));
    }

    fn on_left(&self, user: UserId) {
        self.note(Heard::Left(user));
    }

    fn on_elsewhere(&self, _: &mut Turn<Posted>, user: UserId) {
        self.note(Heard::Elsewhere(user));
    }

    fn on_died(&self, users: &[UserId]) -> bool {
        users.iter().for_each(|user| self.note(Heard::Left(*user)));
        true
    }

    fn online_after(&self, _: UserId, _: usize) -> Option<Vec<UserId>> {
        Some(Vec::new())
    }

    fn on_device_news(&self, _: DeviceNews) {}

    fn on_group_changed(&self, group: GroupId) {
        self.note(Heard::Group(group));
    }

    fn on_rejoined(&self) -> Vec<UserId> {
        self.note(Heard::Rejoined);
        self.here.lock().expect("notes").iter().copied().collect()
    }
}

/// A node that has started.
pub(crate) struct Peer {
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) notes: Arc<Notes>,
}

impl Peer {
    pub(crate) fn start(redis: &Redis) -> Peer {
        Peer::start_with(&settings(redis))
    }

    pub(crate) fn start_with(settings: &RedisSettings) -> Peer {
        let peer = Peer::start_as(settings, Notes::default());
        assert!(peer.bus.is_ready(), "a start waits for the first probe");
        peer
    }

    /// Starts with these users. With many, it may be ready only later.
    pub(crate) fn start_as(settings: &RedisSettings, notes: Notes) -> Peer {
        let bus: Arc<dyn Bus> = match &settings.place {
            RedisPlace::Cluster(named) => Arc::new(ClusterBus::open(settings, named).expect("the cluster is there")),
            _ => Arc::new(RedisBus::open(settings).expect("Redis is there")),
        };
        let notes = Arc::new(notes);
        bus.start(notes.clone()).expect("threads");
        Peer { bus, notes }
    }

    /// Logs `user` in at this node, and waits until the other nodes know.
    pub(crate) fn welcome(&self, user: UserId) {
        self.notes.here.lock().expect("notes").insert(user);
        self.bus.subscribe(user, None);
        wait_until("a subscription", || self.bus.elsewhere(&[user]) == Ok(vec![user]));
    }

    pub(crate) fn publish(&self, to: UserId, sequence: u64, texts: &[&str]) -> Published {
        self.publish_at(None, to, sequence, texts)
    }

    pub(crate) fn publish_at(&self, place: Option<Place>, to: UserId, sequence: u64, texts: &[&str]) -> Published {
        self.bus.publish(&[envelope(to, place, sequence, texts)])[0]
    }

    /// Publishes a message for each of these users in one call.
    pub(crate) fn publish_to_all(&self, users: &[UserId]) -> Vec<Published> {
        let envelopes: Vec<_> = (1..).zip(users).map(|(sequence, to)| envelope(*to, None, sequence, &["{}"])).collect();
        self.bus.publish(&envelopes)
    }

    /// The user's place, which the confirmation of a message tells.
    pub(crate) fn find(&self, user: UserId, sequence: u64) -> Place {
        assert_eq!(self.publish(user, sequence, &["{}"]), Published::ToOne);
        self.notes.wait_for(&Heard::Confirmed(sequence));
        self.notes.last_place().expect("a node says where it is")
    }

    /// Logs `user` out from this node.
    pub(crate) fn leave(&self, user: UserId) {
        self.notes.here.lock().expect("notes").remove(&user);
        let left = self.notes.count(&Heard::Left(user));
        self.bus.unsubscribe(user);
        wait_until("nothing comes any more", || self.notes.count(&Heard::Left(user)) > left);
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.bus.stop(Instant::now() + LONG_PATIENCE);
    }
}

pub(crate) fn settings(redis: &Redis) -> RedisSettings {
    settings_at(redis.address())
}

pub(crate) fn settings_at(address: SocketAddr) -> RedisSettings {
    let wait_timeout = Duration::from_secs(1);
    RedisSettings { wait_timeout, ..RedisSettings::at(&address.ip().to_string(), address.port()) }
}

fn envelope(to: UserId, place: Option<Place>, sequence: u64, texts: &[&str]) -> Envelope {
    let deliveries = texts.iter().map(|text| delivery(to, text)).collect();
    Envelope { to, place, sequence, is_returned: false, is_recorded: false, deliveries }
}

pub(crate) fn delivery(to: UserId, text: &str) -> Delivery {
    Delivery::new(to, text.into(), DeliveryOrigin::Returned(FrameId::UNNAMED, Comeback::InOrder))
}

pub(crate) fn wait_until_both_want_ann(redis: &Redis) {
    wait_until("both want them", || listeners(redis, "raybox:u:7") == 2);
}

/// The number of subscribers to a channel.
pub(crate) fn listeners(redis: &Redis, channel: &str) -> u32 {
    let ask = redis::cmd("PUBSUB").arg("NUMSUB").arg(channel).query::<(String, u32)>(&mut redis.connect());
    ask.expect("ask").1
}

pub(crate) const ANN: UserId = UserId(7);

pub(crate) const BOB: UserId = UserId(8);
