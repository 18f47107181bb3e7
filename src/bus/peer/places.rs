//! [`KnownPlaces`]: the only place of each user on another node, as learned from confirmations.
//!
//! A place that was the only one to confirm an envelope is trusted for [`PLACE_LEASE`]. A place
//! that was wrong is not trusted again for [`UNKNOWN_FOR`].

use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use crate::bus::Place;
use crate::protocol::UserId;

/// See the [module](self).
#[derive(Default, Debug)]
pub(crate) struct KnownPlaces(FxHashMap<UserId, KnownPlace>);

/// The place of one user, or a mark that the last guess was wrong.
#[derive(Debug)]
enum KnownPlace {
    /// The place, valid until this time, because a login elsewhere may have been missed there.
    At(Place, Instant),
    /// The place was wrong. Until this time, offering to all nodes is better than another wrong
    /// guess.
    UnknownUntil(Instant),
}

impl KnownPlaces {
    /// The only place of the user, if it is known.
    pub(crate) fn of(&mut self, user: UserId, now: Instant) -> Option<Place> {
        match self.0.get(&user)? {
            KnownPlace::At(place, until) if *until > now => return Some(place.clone()),
            KnownPlace::UnknownUntil(then) if *then > now => {}
            KnownPlace::At(..) | KnownPlace::UnknownUntil(_) => drop(self.0.remove(&user)),
        }
        None
    }

    /// Notes that a place has confirmed an envelope that was offered to all nodes at this time, and
    /// that only one of them took.
    pub(crate) fn learn(&mut self, user: UserId, place: &Place, offered: Instant) {
        if self.0.len() >= PLACES_MAX {
            self.0.clear();
        }
        // A place that was wrong is not used again immediately.
        self.0.entry(user).or_insert_with(|| KnownPlace::At(place.clone(), offered + PLACE_LEASE));
    }

    /// Notes that the place was wrong: a node has refused an envelope at this time, or the place no
    /// longer exists.
    pub(crate) fn forget(&mut self, user: UserId, refused: Option<Instant>) {
        match (refused, self.0.get_mut(&user)) {
            (Some(now), Some(known)) => *known = KnownPlace::UnknownUntil(now + UNKNOWN_FOR),
            (None, Some(KnownPlace::At(..))) => drop(self.0.remove(&user)),
            (_, None) | (None, Some(KnownPlace::UnknownUntil(_))) => {}
        }
    }

    /// Notes that a place has confirmed nothing for this user. Other messages sent there would wait
    /// in vain as well.
    pub(crate) fn forget_all(&mut self, user: UserId, place: &Place) {
        let is_there = |known: &KnownPlace| matches!(known, KnownPlace::At(there, _) if there == place);
        // Many users may have this place, and many messages may be on their way there, which become
        // late one after the other. So all users are visited only once, unless the place was
        // learned again.
        if self.0.get(&user).is_some_and(is_there) {
            self.0.retain(|_, known| !is_there(known));
        }
    }
}

/// The lease of a place: how long a sender trusts that a user is at one place alone, counted from
/// the offer to all nodes.
pub const PLACE_LEASE: Duration = Duration::from_secs(30);

/// How long messages are offered to all nodes after a user's place was wrong.
pub(crate) const UNKNOWN_FOR: Duration = Duration::from_secs(60);
/// The most users whose places are remembered; some tens of megabytes.
const PLACES_MAX: usize = 1 << 20;
