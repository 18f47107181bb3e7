//! What the sweep asks, and whom it tells.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::devices::end_of_login;
use super::parts::Conversations;
use crate::base::conversation::ConversationId;
use crate::delivery::{ClientLink, Posted};
use crate::devices::tasks::MemberNews;
use crate::history::pump::PumpEvent;
use crate::metrics::SweepEvent;
use crate::protocol::UserId;
use crate::protocol::level2::frames::Committed;
use crate::routing::attendance::DeviceLogin;
use crate::routing::router::Router;
use crate::store::StoreError;
use crate::store::history::{DeviceId, History, Touched};

/// Whether a sweep writes that the devices of this node are seen now. Other nodes may have to forget
/// the one that was not seen for longest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SeenDevices {
    /// It does.
    Written,
    /// They were not long ago.
    Known,
}

impl Conversations {
    /// Looks for what this node was not told within this time. Returns whether that was possible.
    /// Blocks.
    pub fn sweep(&self, within: Duration, sees: SeenDevices) -> bool {
        let knows_blocks = self.read_blocks();
        let Some(router) = self.router().filter(|_| !self.is_alone()) else { return knows_blocks };
        let swept = self.try_sweep(&router, within, sees);
        let swept = swept.and_then(|()| self.look_at_watched());
        self.parts.outages.note("sweeping conversations", swept.as_ref().err());
        self.parts.metrics.sweep(if swept.is_ok() { SweepEvent::Done } else { SweepEvent::Failed }, 1);
        swept.is_ok() && knows_blocks
    }

    /// Whether there can be no other node, so that this one hears of everything.
    pub fn is_alone(&self) -> bool {
        self.parts.bus.is_alone()
    }

    fn try_sweep(&self, router: &Router, within: Duration, sees: SeenDevices) -> Result<(), StoreError> {
        let Some(history) = self.parts.history.get()? else { return Ok(()) };
        let logins = router.attendance().logins();
        if logins.is_empty() {
            return Ok(());
        }
        // A login that is written after they were listed is not looked at.
        self.parts.metrics.sweep(SweepEvent::Ended, check_logins(&logins, history, router)?);
        if sees == SeenDevices::Written {
            logins.chunks(LOGINS_AT_ONCE).try_for_each(|some| history.seen(&ids(some)))?;
        }
        let window = i64::try_from(within.as_millis()).unwrap_or(i64::MAX);
        let (mut posts, mut hinted, mut last) = (Vec::new(), Ok(()), None);
        loop {
            let page = history.touched(window, last, TOUCHED_AT_ONCE)?;
            for touched in &page {
                // One group that cannot be read does not hide the others.
                let Touched { conv, head, tag, at } = *touched;
                let last = PumpEvent::Last { conv, at: Committed { seq: head, tag, time: at } };
                hinted = hinted.and(self.tell_devices_in(router, conv, &last, &mut posts));
            }
            self.parts.metrics.sweep(SweepEvent::Told, posts.len());
            ClientLink::post_all(std::mem::take(&mut posts));
            // A page is read many times faster than as many messages are committed, so there is a last one.
            if page.len() < TOUCHED_AT_ONCE {
                return hinted;
            }
            last = page.last().copied();
        }
    }

    /// Tells the devices in a conversation how far it goes.
    pub(super) fn tell_devices_in(
        &self,
        router: &Router,
        conv: ConversationId,
        how_far: &PumpEvent,
        posts: &mut Vec<(Arc<ClientLink>, Posted)>,
    ) -> Result<(), StoreError> {
        let users: Arc<[UserId]> = match (conv.group(), conv.users()) {
            (Some(group), _) => {
                let now = self.parts.clock.now();
                match self.parts.groups.members(group, now) {
                    Some(members) => members,
                    None => self.parts.groups.load(group, now, self.parts.contacts.get()?)?,
                }
            }
            (None, Some((low, high))) if low == high => [low].into(),
            (None, Some((low, high))) => [low, high].into(),
            (None, None) => [].into(),
        };
        for user in users.iter().filter(|user| self.parts.audience.has(**user)) {
            let hint = |link| (link, news(MemberNews::Pump(vec![how_far.clone()])));
            posts.extend(router.attendance().devices(*user, |_| true).into_iter().map(hint));
        }
        Ok(())
    }
}

fn ids(logins: &[DeviceLogin]) -> Vec<DeviceId> {
    logins.iter().map(|login| login.device).collect()
}

/// Ends connections whose device has logged in or out elsewhere since. Returns how many.
fn check_logins(logins: &[DeviceLogin], history: &dyn History, router: &Router) -> Result<usize, StoreError> {
    let mut ended = 0;
    for some in logins.chunks(LOGINS_AT_ONCE) {
        let last: HashMap<DeviceId, i64> = history.logins(&ids(some))?.into_iter().collect();
        for DeviceLogin { user, device, login } in some {
            let Some(reason) = end_of_login(*login, last.get(device).copied()) else { continue };
            for link in router.attendance().devices(*user, |other| other.device == *device && other.login == *login) {
                link.post(news(MemberNews::End(reason)));
                ended += 1;
            }
        }
    }
    Ok(ended)
}

fn news(news: MemberNews) -> Posted {
    Posted::Member(Box::new(news))
}

/// The conversations of one query.
const TOUCHED_AT_ONCE: usize = 20_000;
/// The devices of one statement.
const LOGINS_AT_ONCE: usize = 512;
