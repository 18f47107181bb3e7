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
use crate::routing::blocks::Blocks;
use crate::routing::groups::GroupCache;
use crate::routing::level1_seen::Level1Seen;
use crate::routing::router::Router;
use crate::server::jobs::conversations::Conversations;
use crate::server::stamps::AccountStamps;
use crate::session::password::Passwords;
use crate::store::community::{Community, CommunityRole, FriendPolicy, Visible};
use crate::store::outages::Outages;
use crate::store::{Accounts, Role, StoreError};

/// The parts that it uses.
pub struct ArrangementParts {
    /// Accounts and groups of level 2.
    pub community: CommunityRole,
    /// Passwords as they are stored.
    pub accounts: Role<dyn Accounts>,
    /// Hashes passwords, and remembers verified ones.
    pub passwords: Arc<Passwords>,
    /// The stored passwords of connected users.
    pub stamps: Arc<AccountStamps>,
    /// The devices of users.
    pub conversations: Arc<Conversations>,
    /// The members that this node has cached.
    pub groups: Arc<GroupCache>,
    /// The pairs of a user and one whom the user has blocked.
    pub blocks: Arc<Blocks>,
    /// The users of level 2.
    pub audience: Arc<Audience>,
    /// Tells which users still use level 1.
    pub level1_seen: Arc<Level1Seen>,
    /// Other nodes cache members as well.
    pub bus: Arc<dyn Exchange>,
    /// The time.
    pub clock: Clock,
    /// The failing kinds of calls.
    pub outages: Arc<Outages>,
    /// Counts refusals.
    pub metrics: Arc<Metrics>,
    /// What users may do.
    pub rules: CommunityRules,
}

/// What users may do with each other.
#[derive(Clone, Copy, Debug)]
pub struct CommunityRules {
    /// The most members of a group.
    pub members_max: usize,
    /// The user that becomes a friend.
    pub friends: FriendPolicy,
    /// Whether users join groups by themselves.
    pub groups: GroupDoor,
    /// What a new member sees of what was sent before.
    pub history: Visible,
}

/// How a user becomes a member of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GroupDoor {
    /// By asking.
    Open,
    /// The creator adds new members.
    Closed,
}

/// Does 60 to 69, and what of level 1 changes groups and friendships.
pub struct Arrangements {
    pub(super) parts: ArrangementParts,
    router: OnceLock<Weak<Router>>,
}

/// The user and device that ask for one of 60 to 69.
#[derive(Clone, Debug)]
pub struct Asker {
    /// The user.
    pub user: UserId,
    /// The connection.
    pub link: Arc<ClientLink>,
    /// The device, at level 2.
    pub device: Option<Identity>,
    /// What the reply repeats.
    pub rid: Option<Rid>,
}

/// What became of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Arranged {
    /// The reply.
    pub reply: String,
    /// Whether the proof was right, if there was one.
    pub proof: Option<ProofVerdict>,
    /// What follows the reply.
    pub after: AfterReply,
}

/// Whether a proof was right.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProofVerdict {
    /// It was.
    Right,
    /// It was not.
    Wrong,
}

/// What follows a reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AfterReply {
    /// Nothing.
    Nothing,
    /// The connection ends, because its device or its user is logged out.
    End,
}

impl Arranged {
    /// One that is not even looked at.
    pub fn refused(reply: String) -> Arranged {
        Arranged::of(reply)
    }

    pub(super) fn of(reply: String) -> Arranged {
        Arranged { reply, proof: None, after: AfterReply::Nothing }
    }
}

impl Arrangements {
    /// Without a way to connections before [`Arrangements::attach`].
    pub fn new(parts: ArrangementParts) -> Arrangements {
        Arrangements { parts, router: OnceLock::new() }
    }

    /// Tells connections of this node from now on.
    pub fn attach(&self, router: &Arc<Router>) {
        let _ = self.router.set(Arc::downgrade(router));
    }

    /// Whether the tables have level 2; as long as they are not known, this is assumed.
    pub fn are_there(&self) -> bool {
        !matches!(self.parts.community.get(), Ok(None))
    }

    pub(super) fn community(&self) -> Result<&dyn Community, StoreError> {
        self.parts.community.get()?.ok_or_else(|| StoreError::Failed("the tables have no level 2".into()))
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
