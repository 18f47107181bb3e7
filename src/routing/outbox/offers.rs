//! [`Offers`]: messages that are gathered before they are published.

use rustc_hash::FxHashMap;

use crate::bus::Envelope;
use crate::delivery::Delivery;
use crate::protocol::UserId;

/// Messages to be published together: one envelope for each user, or several for a user with many
/// messages.
pub(super) struct Offers {
    envelope_bytes_max: usize,
    pub(super) envelopes: Vec<Envelope>,
    /// The last envelope of each user, and its length.
    by_user: FxHashMap<UserId, (usize, usize)>,
}

impl Offers {
    pub(super) fn new(envelope_bytes_max: usize) -> Offers {
        Offers { envelope_bytes_max, envelopes: Vec::new(), by_user: FxHashMap::default() }
    }

    pub(super) fn add(&mut self, delivery: Delivery) {
        let (to, bytes, is_returned) = (delivery.to, delivery.text.len(), delivery.follows_its_user());
        let is_recorded = delivery.is_recorded();
        let (at, held) = self.by_user.entry(to).or_insert((usize::MAX, 0));
        let fits = |envelope: &Envelope| {
            let is_alike = (envelope.is_returned, envelope.is_recorded) == (is_returned, is_recorded);
            is_alike && *held + bytes <= self.envelope_bytes_max
        };
        if !self.envelopes.get(*at).is_some_and(fits) {
            (*at, *held) = (self.envelopes.len(), 0);
            let deliveries = Vec::new();
            self.envelopes.push(Envelope { to, place: None, sequence: 0, is_returned, is_recorded, deliveries });
        }
        *held += bytes;
        self.envelopes[*at].deliveries.push(delivery);
    }

    pub(super) fn has(&self, user: UserId) -> bool {
        self.by_user.contains_key(&user)
    }

    /// Whether the newest gathered message for this user comes from a sender, and not from a dead
    /// connection.
    pub(super) fn ends_sent(&self, user: UserId) -> bool {
        self.by_user.get(&user).is_some_and(|(at, _)| !self.envelopes[*at].is_returned)
    }
}
