//! [`PeerRules`]: what depends on the transport.

use std::time::Duration;

use super::places::PLACE_LEASE;

/// How a peer uses its transport, and how long it relies on what it knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerRules {
    /// How long a user who has logged in at another place counts as being there.
    pub(crate) elsewhere_for: Duration,
    /// Whether confirmations name the place of a user, so that others address it. A transport must
    /// keep the order of a user's topic and the place's topic for this: otherwise a message could
    /// overtake an earlier one, or the announcement of a login at another place.
    pub(crate) names_places: bool,
}

impl Default for PeerRules {
    fn default() -> PeerRules {
        // Longer than any node relies on a place that has confirmed before the user logged in
        // elsewhere.
        PeerRules { elsewhere_for: PLACE_LEASE.saturating_mul(2), names_places: true }
    }
}
