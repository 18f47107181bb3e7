//! Refusals of sends, on connections and of `POST /v2/send`.

use crate::protocol::level2::frames::Refusal;

/// 404 for a recipient who does not exist.
pub const NO_SUCH_USER: Refusal = Refusal::forever(404, "there is no such user");
/// 404 for a group that does not exist.
pub const NO_SUCH_GROUP: Refusal = Refusal::forever(404, "there is no such group");
/// 403 for a message in another user's name.
pub const NOT_YOU: Refusal = Refusal::forever(403, "FROMID must be your id");
