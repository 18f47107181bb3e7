//! [`FrameKind`] and [`ReplyKind`]: the kinds by which frames and replies are counted, and
//! [`WrittenKind`], that of frames to clients of level 2.

use std::sync::LazyLock;

use memchr::memmem;

/// The kind of a frame: a number of the protocol, another number, or not a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameKind(u8);

/// The kind of a reply: its errno.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplyKind(u8);

/// The kind of a frame to a client of level 2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WrittenKind {
    /// A pushed message (42).
    Push,
    /// The answer to a send (41).
    Answer(SendOutcome),
    /// Anything else.
    Other,
}

/// The outcome of a send of level 2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SendOutcome(u8);

impl WrittenKind {
    /// The kind of a frame that this server composed. Its keys are in byte order, so the first ones
    /// tell its kind.
    pub fn of(frame: &str) -> WrittenKind {
        // The refusal of a send without an id has no id.
        if frame.starts_with("{\"cid\":\"") || frame.starts_with("{\"errmsg\":") && frame.ends_with("\"msgType\":41}") {
            return WrittenKind::Answer(SendOutcome::of(ReplyKind::of(frame)));
        }
        if frame.starts_with("{\"again\":") {
            return WrittenKind::Answer(SendOutcome(1));
        }
        let after_name =
            frame.strip_prefix("{\"conv\":\"").and_then(|rest| rest.split_once('"')).map_or("", |(_, rest)| rest);
        if after_name.starts_with(",\"from\"") || after_name.starts_with(",\"edited\"") {
            return WrittenKind::Push;
        }
        WrittenKind::Other
    }
}

impl SendOutcome {
    /// The names, by index.
    pub const NAMES: [&'static str; 9] = ["new", "again", "400", "403", "404", "409", "500", "503", "other"];

    fn of(reply: ReplyKind) -> SendOutcome {
        let name = ReplyKind::NAMES[reply.place()];
        let place = SendOutcome::NAMES.iter().position(|known| *known == name);
        SendOutcome(match place {
            None if name == "200" => 0,
            place => place.unwrap_or(SendOutcome::NAMES.len() - 1) as u8,
        })
    }

    /// Its errno, if it is an error of a known kind.
    pub fn refusal(self) -> Option<u16> {
        if self.0 <= 1 { None } else { Self::NAMES[self.place()].parse().ok() }
    }

    /// Its index in [`SendOutcome::NAMES`].
    pub fn place(self) -> usize {
        self.0.into()
    }
}

impl FrameKind {
    /// The names of the kinds, by index.
    pub const NAMES: [&'static str; 22] = [
        "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "100", "200", "401", "404",
        "500", "other", "invalid",
    ];
    /// Not JSON, or not a request.
    pub const INVALID: FrameKind = FrameKind(21);

    /// A number that level 1 does not know.
    pub const OTHER: FrameKind = FrameKind(20);

    /// 1, a login.
    pub const LOGIN: FrameKind = FrameKind(0);
    /// 5, a friend request.
    pub const FRIEND_REQUEST: FrameKind = FrameKind(4);

    /// A request with this msgType.
    pub fn of(msg_type: i64) -> FrameKind {
        FrameKind(match msg_type {
            1..=15 => msg_type as u8 - 1,
            100 => 15,
            200 => 16,
            401 => 17,
            404 => 18,
            500 => 19,
            _ => 20,
        })
    }

    /// Its index in [`FrameKind::NAMES`].
    pub fn place(self) -> usize {
        self.0.into()
    }
}

impl ReplyKind {
    /// The names of the kinds, by index.
    pub const NAMES: [&'static str; 12] =
        ["200", "302", "400", "401", "403", "404", "409", "413", "429", "500", "503", "other"];

    /// The kind of a reply that this server composed. Only constant text and numbers precede its
    /// errno, since keys are in byte order.
    pub fn of(reply: &str) -> ReplyKind {
        let after_key = reply.strip_prefix(FIRST_KEY).or_else(|| {
            let at = ERRNO.find(reply.as_bytes())?;
            Some(&reply[at + KEY.len()..])
        });
        let digits = after_key.and_then(|rest| rest.get(..3)).unwrap_or_default();
        let other = Self::NAMES.len() - 1;
        ReplyKind(Self::NAMES.iter().position(|name| *name == digits).unwrap_or(other) as u8)
    }

    /// Its errno, if it is an error of a known kind.
    pub fn refusal(self) -> Option<u16> {
        if self.0 == 0 { None } else { Self::NAMES[self.place()].parse().ok() }
    }

    /// Its index in [`ReplyKind::NAMES`].
    pub fn place(self) -> usize {
        self.0.into()
    }
}

const FIRST_KEY: &str = "{\"errno\":";
const KEY: &str = "\"errno\":";
/// Prepared once, because preparing the search costs more than searching a reply.
static ERRNO: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(KEY));

#[cfg(test)]
mod tests {
    use super::super::*;
    use super::*;

    #[test]
    fn frames_have_the_name_of_their_number() {
        for name in FrameKind::NAMES {
            let Ok(number) = name.parse() else { continue };
            assert_eq!(FrameKind::NAMES[FrameKind::of(number).place()], name);
        }
        for number in [i64::MIN, -1, 0, 16, 99, 101, 403, 413, i64::MAX] {
            assert_eq!(FrameKind::NAMES[FrameKind::of(number).place()], "other");
        }
        assert_eq!(FrameKind::NAMES[FrameKind::INVALID.place()], "invalid");
    }

    #[test]
    fn frames_to_clients_of_level_2_are_told_apart() {
        use crate::base::conversation::{ConversationName, Tag};
        use crate::protocol::level2::frames::{self, Committed, Message, Refusal};
        let outcome = |frame: &str| match WrittenKind::of(frame) {
            WrittenKind::Answer(outcome) => SendOutcome::NAMES[outcome.place()],
            WrittenKind::Push => "push",
            WrittenKind::Other => "-",
        };
        let at = Committed { seq: 42, tag: Tag(7), time: 1 };
        let conv = ConversationName::User(UserId(9));
        for cid in ["c", "\"errno\":404", "\\"] {
            assert_eq!(outcome(&frames::acknowledged(cid, conv, at, false)), "new", "{cid}");
            assert_eq!(outcome(&frames::acknowledged(cid, conv, at, true)), "again", "{cid}");
            for (errno, name) in [(400, "400"), (403, "403"), (404, "404"), (409, "409"), (500, "500"), (429, "other")]
            {
                let refused = frames::send_refused(Some(cid), Refusal::forever(errno, "no"));
                assert_eq!(outcome(&refused), name, "{refused}");
            }
        }
        assert_eq!(outcome(&frames::send_refused(None, Refusal::forever(400, "no"))), "400");
        let away = Refusal { errno: 503, errmsg: "away", retry_after: Some(1000) };
        assert_eq!(outcome(&frames::send_refused(Some("c"), away)), "503");
        let message = Message { at, from: UserId(9), frame: Some("{}"), edited: None, recalled: None, imported: false };
        for message in [
            message,
            Message { edited: Some(50), ..message },
            Message { frame: None, recalled: Some(50), imported: true, ..message },
        ] {
            assert_eq!(outcome(&frames::pushed(conv, &message)), "push");
        }
        for other in ["", "{", "{\"conv\":\"u9", "{\"conv\":\"u9\",\"event\":\"typing\"}", "{\"convs\":[]}", ACK] {
            assert_eq!(outcome(other), "-", "{other}");
        }
    }

    #[test]
    fn replies_have_the_name_of_their_errno() {
        let name = |reply: &str| ReplyKind::NAMES[ReplyKind::of(reply).place()];
        let fixed = [
            (ACK, "200"),
            (WRONG_LOGIN, "302"),
            (BAD_REQUEST, "401"),
            (NOT_YOU, "403"),
            (LOGIN_FIRST, "403"),
            (NOT_A_MEMBER, "403"),
            (BLOCKED, "403"),
            (NO_METHOD, "404"),
            (TOO_LONG, "413"),
            (TOO_LONG_TO_RECORD, "413"),
            (TURNED_AWAY, "429"),
            (SLOW_DOWN, "429"),
            (HAD_ENOUGH, "429"),
            (SERVER_ERROR, "500"),
            (BUSY, "503"),
            (NOT_KEPT, "503"),
            (MAILBOX_FULL, "503"),
        ];
        for (reply, expected) in fixed {
            assert_eq!(name(reply), expected, "{reply}");
        }
        assert_eq!((name(&login_later(1)), name(&register_later(1)), name(&busy_for(60))), ("429", "429", "503"));
        assert_eq!(name(&registered(UserId(5))), "200");
        assert_eq!(name(&group_created(GroupId(3), "\"errno\":500")), "200");
        assert_eq!(name(&no_such_user(Id(9).into())), "404");
        assert_eq!(name(&not_yourself(Id(9).into())), "400");
        for odd in ["", "{}", "{\"errno\":", "{\"errno\":2", "{\"errno\":299}", "{\"errno\":é"] {
            assert_eq!(name(odd), "other", "{odd}");
        }
    }
}
