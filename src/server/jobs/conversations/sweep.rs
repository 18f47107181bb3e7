//! The sweep: finds news that this node has missed, and passes it to the connections concerned.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::devices::end_of_login;
use super::parts::Conversations;
use crate::base::conversation::ConversationId;
use crate::delivery::{ClientLink, Posted};
use crate::devices::tasks::MemberNews;
use crate::history::pump::PumpEvent;
use crate::metrics::SweepEvent;
use crate::protocol::level2::frames::Committed;
use crate::protocol::{GroupId, UserId};
use crate::routing::attendance::DeviceLogin;
use crate::routing::router::Router;
use crate::store::history::{DeviceId, History, Touched};
use crate::store::{Contacts, StoreError};

/// Whether a sweep notes that the devices of this node are seen now. Other nodes may have to forget
/// the device that was not seen for longest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SeenDevices {
    /// It notes that.
    Written,
    /// It was noted recently.
    Known,
}

impl Conversations {
    /// Looks for news that this node has missed within this time. Returns whether that was
    /// possible. Blocks.
    pub fn sweep(&self, within: Duration, sees: SeenDevices) -> bool {
        let knows_blocks = self.read_blocks();
        let Some(router) = self.router().filter(|_| !self.is_alone()) else { return knows_blocks };
        let swept = self.try_sweep(&router, within, sees);
        let swept = swept.and_then(|()| self.look_at_watched());
        self.parts.outages.note("sweeping conversations", swept.as_ref().err());
        self.parts.metrics.sweep(if swept.is_ok() { SweepEvent::Done } else { SweepEvent::Failed }, 1);
        swept.is_ok() && knows_blocks
    }

    /// Whether there can be no other node, so that this one misses nothing.
    pub fn is_alone(&self) -> bool {
        self.parts.bus.is_alone()
    }

    fn try_sweep(&self, router: &Router, within: Duration, sees: SeenDevices) -> Result<(), StoreError> {
        let Some(history) = self.parts.history.get()? else { return Ok(()) };
        let logins = router.attendance().logins();
        if logins.is_empty() {
            return Ok(());
        }
        // A login written after this list was made is not checked.
        self.parts.metrics.sweep(SweepEvent::Ended, check_logins(&logins, history, router)?);
        if sees == SeenDevices::Written {
            logins.chunks(LOGINS_AT_ONCE).try_for_each(|some| history.seen(&ids(some)))?;
        }
        let window = i64::try_from(within.as_millis()).unwrap_or(i64::MAX);
        let (mut posts, mut hinted, mut last) = (Vec::new(), Ok(()), None);
        loop {
            let page = history.touched(window, last, TOUCHED_AT_ONCE)?;
            let mut strange = FxHashMap::default();
            for touched in &page {
                let Touched { conv, head, tag, at } = *touched;
                let last = PumpEvent::Last { conv, at: Committed { seq: head, tag, time: at } };
                match self.known_users(conv) {
                    Some(users) => self.tell_devices(router, users.iter(), &last, &mut posts),
                    None => drop(conv.group().map(|group| strange.insert(group, last))),
                }
            }
            // A failure must not hide the other conversations.
            hinted = hinted.and(self.tell_members_here(router, &strange, &logins, &mut posts));
            self.parts.metrics.sweep(SweepEvent::Told, posts.len());
            ClientLink::post_all(std::mem::take(&mut posts));
            // Pages are read many times faster than messages are committed, so there is a last
            // page.
            if page.len() < TOUCHED_AT_ONCE {
                return hinted;
            }
            last = page.last().copied();
        }
    }

    /// Tells the devices in a conversation its head.
    pub(super) fn tell_devices_in(
        &self,
        router: &Router,
        conv: ConversationId,
        how_far: &PumpEvent,
        posts: &mut Vec<(Arc<ClientLink>, Posted)>,
    ) -> Result<(), StoreError> {
        let users = match (self.known_users(conv), conv.group()) {
            (Some(users), _) => users,
            (None, Some(group)) => self.parts.groups.load(group, self.parts.clock.now(), self.parts.contacts.get()?)?,
            (None, None) => [].into(),
        };
        self.tell_devices(router, users.iter(), how_far, posts);
        Ok(())
    }

    /// The users of a conversation; `None` if it is a group that is not cached.
    fn known_users(&self, conv: ConversationId) -> Option<Arc<[UserId]>> {
        match (conv.group(), conv.users()) {
            (Some(group), _) => self.parts.groups.members(group, self.parts.clock.now()),
            (None, Some((low, high))) if low == high => Some([low].into()),
            (None, Some((low, high))) => Some([low, high].into()),
            (None, None) => Some([].into()),
        }
    }

    fn tell_devices<'u>(
        &self,
        router: &Router,
        users: impl Iterator<Item = &'u UserId>,
        how_far: &PumpEvent,
        posts: &mut Vec<(Arc<ClientLink>, Posted)>,
    ) {
        for user in users.filter(|user| self.parts.audience.has(**user)) {
            let hint = |link| (link, news(MemberNews::Pump(vec![how_far.clone()])));
            posts.extend(router.attendance().devices(*user, |_| true).into_iter().map(hint));
        }
    }

    /// Tells the users of this node the heads of these groups, which are not cached.
    fn tell_members_here(
        &self,
        router: &Router,
        groups: &FxHashMap<GroupId, PumpEvent>,
        logins: &[DeviceLogin],
        posts: &mut Vec<(Arc<ClientLink>, Posted)>,
    ) -> Result<(), StoreError> {
        let members = members_here(groups, logins, self.parts.contacts.get()?)?;
        for (group, user) in &members {
            if let Some(how_far) = groups.get(group) {
                self.tell_devices(router, std::iter::once(user), how_far, posts);
            }
        }
        Ok(())
    }
}

/// The members of these groups who have a device on this node. Most groups of a cluster have none,
/// so their members are not loaded: the cost depends on who is here.
fn members_here<T>(
    groups: &FxHashMap<GroupId, T>,
    logins: &[DeviceLogin],
    contacts: &dyn Contacts,
) -> Result<Vec<(GroupId, UserId)>, StoreError> {
    if groups.is_empty() {
        return Ok(Vec::new());
    }
    let mut users: Vec<UserId> = logins.iter().map(|login| login.user).collect();
    users.sort_unstable();
    users.dedup();
    contacts.memberships(&groups.keys().copied().collect::<Vec<_>>(), &users)
}

fn ids(logins: &[DeviceLogin]) -> Vec<DeviceId> {
    logins.iter().map(|login| login.device).collect()
}

/// Ends connections whose device has since logged in or out elsewhere. Returns their number.
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

/// The conversations that one query reads.
const TOUCHED_AT_ONCE: usize = 20_000;
/// The devices that one statement reads.
const LOGINS_AT_ONCE: usize = 512;

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;
    use crate::store::Group;
    use crate::store::some_contacts::SomeContacts;

    /// Groups that nobody may load. Each user is in the group of the same number, and in group 1.
    #[derive(Default)]
    struct ManyGroups {
        asked: Mutex<Vec<UserId>>,
    }

    impl SomeContacts for ManyGroups {
        fn groups_of(&self, user: UserId) -> Result<Vec<Group>, StoreError> {
            self.asked.lock().push(user);
            let group = |id| Group { id: GroupId(id), name: String::new(), description: String::new() };
            Ok([1, user.0].map(group).into())
        }
    }

    #[test]
    fn a_sweep_asks_about_the_users_who_are_here_and_loads_no_group() {
        let contacts = ManyGroups::default();
        let login = |user| DeviceLogin { user: UserId(user), device: DeviceId(1), login: 1 };
        let logins = [login(7), login(9), login(7)];
        let none = members_here(&FxHashMap::<GroupId, ()>::default(), &logins, &contacts).unwrap();
        assert_eq!((none, contacts.asked.lock().len()), (Vec::new(), 0), "nothing has happened in groups");
        let touched: FxHashMap<GroupId, ()> = (2..10_000).map(|group| (GroupId(group), ())).collect();
        let mut here = members_here(&touched, &logins, &contacts).unwrap();
        here.sort_unstable();
        assert_eq!(here, [(GroupId(7), UserId(7)), (GroupId(9), UserId(9))]);
        assert_eq!(*contacts.asked.lock(), [UserId(7), UserId(9)]);
    }
}
