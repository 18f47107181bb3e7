//! [`Tally`]: counts of the events in a world, so that an uneventful world is not taken for a
//! proof.

/// Counts of one world.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Tally {
    /// Sends of devices that were acknowledged.
    pub(super) acknowledged: usize,
    /// Messages that devices were shown.
    pub(super) shown: usize,
    /// Logins of devices.
    pub(super) logins: usize,
    /// Runs that told a device that its history is lost.
    pub(super) resets: usize,
    /// Starts of nodes.
    pub(super) starts: usize,
    /// Nodes that died between a commit and its publication.
    pub(super) mute_crashes: usize,
    /// Devices that asked to leave a group, or to join it.
    pub(super) memberships: usize,
    /// Nodes that died between a commit and its acknowledgement.
    pub(super) crashes_in_commit: usize,
}

/// The counts of many worlds.
#[derive(Default)]
pub(super) struct Tallies(Vec<Tally>);

impl Tallies {
    pub(super) fn add(&mut self, tally: Tally) {
        self.0.push(tally);
    }

    /// Panics if too little has happened to prove anything.
    pub(super) fn check_that_enough_has_happened(&self) {
        let worlds = self.0.len();
        let sum = |count: fn(&Tally) -> usize| self.0.iter().map(count).sum::<usize>();
        let mut acknowledged: Vec<usize> = self.0.iter().map(|tally| tally.acknowledged).collect();
        acknowledged.sort_unstable();
        let at = |percent: usize| acknowledged[(worlds - 1) * percent / 100];
        let silent = self.0.iter().filter(|tally| tally.acknowledged == 0 || tally.shown == 0).count();
        println!(
            "{worlds} worlds, {silent} of them silent; acknowledged {} (5 %: {}, half: {}, 95 %: {}), shown {}, logins {}, \
             resets {}, starts {}, deaths between commit and publication {}, and before the acknowledgement {}",
            sum(|tally| tally.acknowledged),
            at(5),
            at(50),
            at(95),
            sum(|tally| tally.shown),
            sum(|tally| tally.logins),
            sum(|tally| tally.resets),
            sum(|tally| tally.starts),
            sum(|tally| tally.mute_crashes),
            sum(|tally| tally.crashes_in_commit),
        );
        if worlds < WORLDS_MIN {
            return;
        }
        let floors = [
            ("worlds in which something is sent and shown", worlds - silent, worlds * 95 / 100),
            ("acknowledged sends", sum(|tally| tally.acknowledged), worlds * 20),
            ("shown messages", sum(|tally| tally.shown), worlds * 40),
            ("logins", sum(|tally| tally.logins), worlds * 8),
            ("resets", sum(|tally| tally.resets), worlds / 10),
            ("changes of members", sum(|tally| tally.memberships), worlds / 2),
            ("deaths between commit and publication", sum(|tally| tally.mute_crashes), worlds / 100),
            ("deaths before the acknowledgement", sum(|tally| tally.crashes_in_commit), worlds / 100),
        ];
        for (what, count, floor) in floors {
            assert!(count >= floor, "the worlds prove little: {what}: {count} of at least {floor}");
        }
    }
}

/// The number of worlds below which nothing is checked.
const WORLDS_MIN: usize = 200;
