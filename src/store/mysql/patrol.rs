//! [`Patrol`]: checks all servers of the list while the one in use works.

use std::time::{Duration, Instant};

use pool::Outage;

use super::servers::{MysqlServers, Review, Scouting};

/// See the [module](self). It never waits: answers are read when the next check is due.
#[derive(Default)]
pub(super) struct Patrol {
    scouting: Option<Scouting>,
    last: Option<Instant>,
    rivals: Outage,
    /// An earlier server of the list, and the time at which it was first seen to work.
    home: Option<(usize, Instant)>,
}

impl Patrol {
    /// Called while the server in use is well.
    pub(super) fn go(&mut self, servers: &MysqlServers) {
        let Some(scouting) = &mut self.scouting else {
            if self.last.is_none_or(|last| last.elapsed() >= EVERY) {
                (self.last, self.scouting) = (Some(Instant::now()), servers.scout());
            }
            return;
        };
        let Some(Review { rivals, home, refuge }) = servers.review(scouting) else { return };
        self.scouting = None;
        if rivals.is_empty() {
            if let Some(lasted) = self.rivals.end() {
                log::warn!("no other server of the list takes writes any more, after {lasted}");
            }
        } else if self.rivals.begin() {
            log::error!(
                "{} takes writes although {} is in use, and neither gets the writes of the other; make the one that is \
                 not the primary read-only (SET GLOBAL read_only = 1)",
                rivals.join(" and "),
                servers.in_use().unwrap_or_default()
            );
        }
        if let Some(refuge) = refuge {
            self.home = None;
            return servers.change_over(refuge, "it helps another node of its cluster, or is behind");
        }
        self.home = home.map(|home| match self.home {
            Some((before, since)) if before == home => (home, since),
            _ => (home, Instant::now()),
        });
        if let Some((home, since)) = self.home
            && since.elapsed() >= HOME_AFTER
        {
            self.home = None;
            servers.change_over(home, "an earlier server of the list is back");
        }
    }
}

const EVERY: Duration = Duration::from_secs(10);

/// How long an earlier node of a cluster must have worked before it is used again.
const HOME_AFTER: Duration = Duration::from_secs(30);
