//! [`Mailboxes`]: allows one fetch of a user's stored messages at a time.
//!
//! A fetch returns messages, and deletes them once they have arrived. If two connections of one
//! user fetched at the same time, both would get them. So a fetch claims the mailbox, and others
//! wait in order until it is released.

use std::collections::VecDeque;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use crate::protocol::UserId;

/// The claimed mailboxes and their queues. `W` is a connection that fetches.
#[derive(Debug)]
pub struct Mailboxes<W> {
    claimed: Mutex<FxHashMap<UserId, Claim<W>>>,
}

#[derive(Debug)]
struct Claim<W> {
    holder: W,
    waiting: VecDeque<W>,
}

impl<W: Clone + PartialEq> Mailboxes<W> {
    /// Starts without claimed mailboxes.
    pub fn new() -> Mailboxes<W> {
        Mailboxes { claimed: Mutex::new(FxHashMap::default()) }
    }

    /// Claims the mailbox of `user` for `who`, or queues it; true if it has the mailbox now. The
    /// queue is bounded by the user's connections, each with one request at a time.
    pub fn claim(&self, user: UserId, who: &W) -> bool {
        let mut claimed = self.claimed.lock();
        match claimed.get_mut(&user) {
            Some(claim) => {
                claim.waiting.push_back(who.clone());
                false
            }
            None => {
                claimed.insert(user, Claim { holder: who.clone(), waiting: VecDeque::new() });
                true
            }
        }
    }

    /// The holder of the mailbox of `user`, if that is not `who`.
    pub fn other_holder(&self, user: UserId, who: &W) -> Option<W> {
        self.claimed.lock().get(&user).map(|claim| claim.holder.clone()).filter(|holder| holder != who)
    }

    /// Releases the mailbox of `user`, or removes `who` from its queue. Returns the next holder, if
    /// one has waited.
    pub fn release(&self, user: UserId, who: &W) -> Option<W> {
        let mut claimed = self.claimed.lock();
        let claim = claimed.get_mut(&user)?;
        if claim.holder != *who {
            claim.waiting.retain(|waiting| waiting != who);
            return None;
        }
        match claim.waiting.pop_front() {
            Some(next) => {
                claim.holder = next.clone();
                Some(next)
            }
            None => {
                claimed.remove(&user);
                None
            }
        }
    }
}

impl<W: Clone + PartialEq> Default for Mailboxes<W> {
    fn default() -> Mailboxes<W> {
        Mailboxes::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mailbox_goes_from_one_to_the_next() {
        let mailboxes = Mailboxes::new();
        let (user, other) = (UserId(1), UserId(2));
        assert!(mailboxes.claim(user, &'a'));
        assert!(!mailboxes.claim(user, &'b'));
        assert!(!mailboxes.claim(user, &'c'));
        assert!(mailboxes.claim(other, &'d'));
        assert_eq!((mailboxes.other_holder(user, &'b'), mailboxes.other_holder(user, &'a')), (Some('a'), None));
        assert_eq!(mailboxes.release(user, &'b'), None, "one who waited leaves");
        assert_eq!(mailboxes.release(user, &'a'), Some('c'));
        assert_eq!(mailboxes.release(user, &'a'), None, "it was released before");
        assert_eq!(mailboxes.release(user, &'c'), None);
        assert!(mailboxes.claim(user, &'e'));
    }
}
