//! The frames of conversations: 41 to 45, pages and marks. Keys are in byte order, and `m` is the
//! sender's frame as it came.

use super::object::Object;
use super::{PAGE_BYTES_MAX, PAGE_MAX, Rid};
use crate::base::conversation::{ConversationName, Cursor, HeldTag, Seq, Tag};
use crate::protocol::UserId;

/// The place of a committed message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Committed {
    /// Its number.
    pub seq: Seq,
    /// Its tag.
    pub tag: Tag,
    /// The time, in ms since 1970.
    pub time: i64,
}

/// An error: its number, advice for the client, and the time after which a retry may succeed, if
/// ever.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Refusal {
    /// The `errno`.
    pub errno: u16,
    /// Constant text without quotes and backslashes.
    pub errmsg: &'static str,
    /// The time until a retry may succeed, in milliseconds.
    pub retry_after: Option<u32>,
}

/// A message as a member of its conversation sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message<'m> {
    /// Its place.
    pub at: Committed,
    /// The sender; for an imported message, the sender that its frame claims.
    pub from: UserId,
    /// The frame: its own or that of its newest edit; `None` if it is recalled.
    pub frame: Option<&'m str>,
    /// The number of its newest edit.
    pub edited: Option<Seq>,
    /// The number of its recall.
    pub recalled: Option<Seq>,
    /// Whether it waited for a user of level 1 before.
    pub imported: bool,
}

/// A conversation in a 43.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConversationSummary<'o> {
    /// The conversation.
    pub conv: ConversationName,
    /// The partner's or the group's name; `None` if the account is deleted.
    pub name: Option<&'o str>,
    /// The floor: messages with this number or a lower one are gone.
    pub floor: Seq,
    /// The number of the last message; 0 if there is none.
    pub head: Seq,
    /// The tag of that message.
    pub tag: Option<Tag>,
    /// The last message, for a conversation that the client holds nothing of.
    pub last: Option<Message<'o>>,
    /// The user's own read mark.
    pub read: Seq,
    /// The partner's marks, unless receipts are off.
    pub peer: Option<Marks>,
    /// The number of unread messages.
    pub unread: i64,
}

/// The last numbers that a user has read and received.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Marks {
    /// Read up to here.
    pub read: Seq,
    /// Received up to here.
    pub recv: Seq,
}

/// Marks of one conversation that have risen, as one of its users sees them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MarkNews {
    /// The user's own marks.
    Own {
        /// Read up to here.
        read: Seq,
        /// The last number at that moment.
        head: Seq,
        /// The number of messages that were unread.
        unread: i64,
    },
    /// The partner's marks.
    Partner(Marks),
}

impl MarkNews {
    /// Whether these marks are newer than `other`, if both are of the same kind.
    pub fn is_above(&self, other: &MarkNews) -> bool {
        match (self, other) {
            (MarkNews::Own { read, head, .. }, MarkNews::Own { read: than, head: at, .. }) => (read, head) > (than, at),
            (MarkNews::Partner(Marks { read, recv }), MarkNews::Partner(than)) => {
                *read > than.read || *recv > than.recv
            }
            _ => false,
        }
    }

    /// The 49 or 50 for `user`.
    pub fn frame(&self, conv: ConversationName, user: UserId) -> String {
        match (*self, conv) {
            (MarkNews::Partner(marks), ConversationName::User(partner)) => peer_marks(conv, partner, marks),
            // A group has no partner.
            (MarkNews::Partner(marks), ConversationName::Group(_)) => peer_marks(conv, user, marks),
            (MarkNews::Own { read, head, unread }, _) => self::read(conv, user, read, head, unread, None),
        }
    }
}

/// The head of a run (44).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RunHead {
    /// The first number that follows.
    pub from: Seq,
    /// The last one; `from - 1` if the run is empty.
    pub to: Seq,
    /// The first and last number of the messages that are left out.
    pub gap: Option<(Seq, Seq)>,
    /// Whether the client's cursor is not of this history.
    pub reset: bool,
}

/// 41: `cid` is committed. `again`: it had been committed before.
pub fn acknowledged(cid: &str, conv: ConversationName, at: Committed, again: bool) -> String {
    let object = Object::new().flag("again", again).text("cid", cid).plain("conv", conv).value("errno", 200);
    object.value("msgType", 41).value("seq", at.seq).plain("tag", at.tag).value("time", at.time).end()
}

/// 41: a send failed. Without a usable `cid`, the reply has none.
pub fn send_refused(cid: Option<&str>, refusal: Refusal) -> String {
    let object = match cid {
        Some(cid) => Object::new().text("cid", cid),
        None => Object::new(),
    };
    let object = object.plain("errmsg", refusal.errmsg).value("errno", refusal.errno).value("msgType", 41);
    object.maybe("retryAfter", refusal.retry_seconds()).end()
}

/// 42: a pushed message.
pub fn pushed(conv: ConversationName, message: &Message<'_>) -> String {
    let capacity = message.frame.map_or(0, str::len) + 160;
    let object = Object::with_capacity(capacity).plain("conv", conv).maybe("edited", message.edited);
    let object = object.value("from", message.from).flag("imported", message.imported);
    let object = object.json("m", message.frame.unwrap_or("null")).value("msgType", 42);
    message.place(object.maybe("recalled", message.recalled)).end()
}

/// A message within another frame, which names its conversation.
fn listed(message: &Message<'_>) -> String {
    let object = Object::with_capacity(message.frame.map_or(0, str::len) + 128);
    let object = object.maybe("edited", message.edited).value("from", message.from);
    let object = object.flag("imported", message.imported).json("m", message.frame.unwrap_or("null"));
    message.place(object.maybe("recalled", message.recalled)).end()
}

/// 43, with as many of these conversations as fit, and the number of them: at most [`PAGE_MAX`]
/// and [`PAGE_BYTES_MAX`] of `last`, but at least one if there is any. `more_follow`: others come
/// after these.
pub fn overview(convs: &[ConversationSummary<'_>], more_follow: bool) -> (String, usize) {
    let mut bytes = 0;
    let fits = convs.iter().take(PAGE_MAX).take_while(|conv| {
        bytes += conv.last.and_then(|last| last.frame).map_or(0, str::len);
        bytes <= PAGE_BYTES_MAX
    });
    let count = fits.count().max(1).min(convs.len());
    let object = Object::with_capacity(bytes.min(PAGE_BYTES_MAX) + 256 * count);
    let object = object.list("convs", convs[..count].iter().map(overview_line));
    (object.value("more", more_follow || count < convs.len()).value("msgType", 43).end(), count)
}

fn overview_line(conv: &ConversationSummary<'_>) -> String {
    let kind = match conv.conv {
        ConversationName::User(_) => "user",
        ConversationName::Group(_) => "group",
    };
    let object = Object::new().plain("conv", conv.conv).value("floor", conv.floor).value("head", conv.head);
    let object = object.plain("kind", kind);
    let object = match &conv.last {
        Some(last) => object.json("last", &listed(last)),
        None => object,
    };
    let object = match conv.name {
        Some(name) => object.text("name", name),
        None => object.json("name", "null"),
    };
    let object = object.maybe("peerRead", conv.peer.map(|marks| marks.read));
    let object = object.maybe("peerRecv", conv.peer.map(|marks| marks.recv)).value("read", conv.read);
    let object = match conv.tag {
        Some(tag) if conv.head > 0 => object.plain("tag", tag),
        Some(_) | None => object,
    };
    object.value("unread", conv.unread).end()
}

/// 44: the head of a run for a conversation.
pub fn run(conv: ConversationName, run: &RunHead) -> String {
    let object = Object::new().value("complete", run.gap.is_none()).plain("conv", conv).value("from", run.from);
    let object = object.maybe("gap", run.gap.map(|(first, last)| format!("[{first},{last}]")));
    object.value("msgType", 44).flag("reset", run.reset).value("to", run.to).end()
}

/// 44: no run follows, because the conversation is not the client's or no longer exists, or its
/// cursor is malformed. `conv` is the name that the client used.
pub fn run_refused(conv: &str, refusal: Refusal) -> String {
    let object = Object::new().text("conv", conv).plain("errmsg", refusal.errmsg).value("errno", refusal.errno);
    object.value("msgType", 44).end()
}

/// 45: the end of a synchronisation.
pub fn synced(rid: Option<&Rid>) -> String {
    Object::new().value("msgType", 45).maybe("rid", rid).value("synced", true).end()
}

/// 48: a page. Its messages are at most [`PAGE_MAX`], with [`PAGE_BYTES_MAX`] of text unless it is
/// a single one.
pub fn page(
    conv: ConversationName,
    messages: &[Message<'_>],
    complete: bool,
    floor: Seq,
    head: Seq,
    rid: Option<&Rid>,
) -> String {
    let seq = |message: Option<&Message<'_>>| message.map(|message| message.at.seq);
    let object = Object::with_capacity(len(messages)).value("complete", complete).plain("conv", conv);
    let object = object.value("errno", 200).value("floor", floor).maybe("from", seq(messages.first()));
    let object = object.value("head", head).value("msgType", 48);
    let object = object.list("msgs", messages.iter().map(listed)).maybe("rid", rid);
    object.maybe("to", seq(messages.last())).end()
}

/// 49: the own read mark of `user`. Other devices get it without `rid`.
pub fn read(conv: ConversationName, user: UserId, read: Seq, head: Seq, unread: i64, rid: Option<&Rid>) -> String {
    let object = Object::new().plain("conv", conv).value("errno", 200).value("head", head).value("msgType", 49);
    object.value("read", read).maybe("rid", rid).value("unread", unread).value("user", user).end()
}

/// 50: the marks of the partner `user`.
pub fn peer_marks(conv: ConversationName, user: UserId, marks: Marks) -> String {
    let object = Object::new().plain("conv", conv).value("msgType", 50).value("read", marks.read);
    object.value("recv", marks.recv).value("user", user).end()
}

fn len(messages: &[Message<'_>]) -> usize {
    messages.iter().map(|message| message.frame.map_or(0, str::len) + 160).sum()
}

impl Message<'_> {
    fn place(&self, object: Object) -> Object {
        object.value("seq", self.at.seq).plain("tag", self.at.tag).value("time", self.at.time)
    }

    /// The cursor of a client that has received this message and all before it.
    pub fn cursor(&self) -> Cursor {
        Cursor { seq: self.at.seq, tag: HeldTag::Tag(self.at.tag) }
    }
}

impl Refusal {
    /// A permanent refusal: a retry cannot succeed.
    pub const fn forever(errno: u16, errmsg: &'static str) -> Refusal {
        Refusal { errno, errmsg, retry_after: None }
    }

    /// `retryAfter`: the seconds as the shortest decimal fraction.
    pub(super) fn retry_seconds(&self) -> Option<f64> {
        self.retry_after.map(|milliseconds| f64::from(milliseconds) / 1000.0)
    }
}
