//! [`Arrangements`]: the parts that its tasks share.

use std::sync::{Arc, OnceLock, Weak};

use crate::base::clock::Clock;
use crate::bus::Exchange;
use crate::delivery::ClientLink;
use crate::devices::tasks::Identity;
use crate::metrics::Metrics;
use crate::protocol::UserId;
use crate::protocol::level2::frames::Refusal;
use crate::protocol::level2::{Account, Rid, replies};
use crate::routing::audience::Audience;
use crate::routing::groups::GroupCache;
use crate::routing::level1_seen::Level1Seen;
use crate::routing::recorder::HookedMessages;
use crate::routing::router::Router;
use crate::server::jobs::conversations::Conversations;
use crate::server::jobs::group_room::GroupRoom;
use crate::server::jobs::jwt_logins::JwtLogins;
use crate::server::stamps::AccountStamps;
use crate::session::password::Passwords;
use crate::store::community::{Community, CommunityRole, FriendPolicy, Visible};
use crate::store::hooks::Hooked;
use crate::store::outages::Outages;
use crate::store::{Accounts, Role, StoreError};

/// The parts that the tasks use.
pub struct ArrangementParts {
    /// Accounts and groups of level 2.
    pub community: CommunityRole,
    /// Passwords as they are stored.
    pub accounts: Role<dyn Accounts>,
    /// Whether a user may be added to another group.
    pub group_room: GroupRoom,
    /// The accounts that JSON web tokens open.
    pub jwt: Arc<JwtLogins>,
    /// Hashes passwords, and remembers verified ones.
    pub passwords: Arc<Passwords>,
    /// The stored passwords of connected users.
    pub stamps: Arc<AccountStamps>,
    /// The devices of users.
    pub conversations: Arc<Conversations>,
    /// The members that this node has cached.
    pub groups: Arc<GroupCache>,
    /// The users of level 2.
    pub audience: Arc<Audience>,
    /// The users who still use level 1.
    pub level1_seen: Arc<Level1Seen>,
    /// The bus to other nodes, which cache members as well.
    pub bus: Arc<dyn Exchange>,
    /// The time.
    pub clock: Clock,
    /// The failing kinds of calls.
    pub outages: Arc<Outages>,
    /// Counts refusals.
    pub metrics: Arc<Metrics>,
    /// The rule for the messages that join the hook's queue.
    pub hooked: HookedMessages,
    /// The rules for users.
    pub rules: CommunityRules,
}

/// The rules for what users may do with each other.
#[derive(Clone, Copy, Debug)]
pub struct CommunityRules {
    /// The most members of a group.
    pub members_max: usize,
    /// The most conversations of two of a user.
    pub conversations_max: usize,
    /// The condition for becoming a friend.
    pub friends: FriendPolicy,
    /// Whether users may join groups themselves.
    pub groups: GroupDoor,
    /// Whether a new member sees earlier messages.
    pub history: Visible,
}

/// The way in which a user becomes a member of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GroupDoor {
    /// By asking.
    Open,
    /// The creator adds new members.
    Closed,
}

/// Carries out 60 to 69, and the requests of level 1 that change groups and friendships.
pub struct Arrangements {
    pub(super) parts: ArrangementParts,
    router: OnceLock<Weak<Router>>,
}

/// The user and device that send one of 60 to 69.
#[derive(Clone, Debug)]
pub struct Asker {
    /// The user.
    pub user: UserId,
    /// The connection.
    pub link: Arc<ClientLink>,
    /// The device, at level 2.
    pub device: Option<Identity>,
    /// The client's id of the request, which the reply repeats.
    pub rid: Option<Rid>,
}

/// The outcome of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Arranged {
    /// The reply.
    pub reply: String,
    /// Whether the proof was right, if there was one.
    pub proof: Option<ProofVerdict>,
    /// The step after the reply.
    pub after: AfterReply,
}

/// Whether a proof was right.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProofVerdict {
    /// It was right.
    Right,
    /// It was wrong.
    Wrong,
}

/// A step after a reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AfterReply {
    /// Nothing.
    Nothing,
    /// The connection ends, because its device or its user is logged out.
    End,
}

impl Arranged {
    /// The outcome of a request that is refused without a check.
    pub fn refused(reply: String) -> Arranged {
        Arranged::of(reply)
    }

    pub(super) fn of(reply: String) -> Arranged {
        Arranged { reply, proof: None, after: AfterReply::Nothing }
    }
}

impl Arrangements {
    /// Has no way to connections before [`Arrangements::attach`] is called.
    pub fn new(parts: ArrangementParts) -> Arrangements {
        Arrangements { parts, router: OnceLock::new() }
    }

    /// Notifies connections of this node from now on.
    pub fn attach(&self, router: &Arc<Router>) {
        let _ = self.router.set(Arc::downgrade(router));
    }

    /// Whether the tables have level 2. While they are unknown, this is assumed.
    pub fn are_there(&self) -> bool {
        !matches!(self.parts.community.get(), Ok(None))
    }

    pub(super) fn community(&self) -> Result<&dyn Community, StoreError> {
        self.parts.community.get()?.ok_or_else(|| StoreError::Failed("the tables have no level 2".into()))
    }

    /// Whether events join the queue of the hook. An event of a group joins without a look at the
    /// members, because they are read when it is due.
    pub(super) fn hooked(&self) -> Hooked {
        if self.parts.hooked.are_any() { Hooked::Yes } else { Hooked::No }
    }

    pub(super) fn router(&self) -> Option<Arc<Router>> {
        self.router.get().and_then(Weak::upgrade)
    }
}

/// The reply to a request that is refused.
pub fn refused(asker: &Asker, request: &Account<'_>, refusal: Refusal) -> String {
    replies::refused(request.msg_type(), refusal, asker.rid.as_ref())
}

/// 16 random bytes.
pub(super) fn nonce() -> Result<[u8; 16], StoreError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| StoreError::Failed(error.to_string().into()))?;
    Ok(bytes)
}
