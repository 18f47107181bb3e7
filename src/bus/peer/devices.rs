//! The format of news for connections of level 2, see [`DeviceNews`].
//!
//! ```text
//! topic      payload
//! u:<user>   m <node>\n<conv> <from> <place> <frame>[\n…]    messages of conversations of two; a place is
//!                                                          <number>:<tag>:<time>:<tag before it, or ->
//! u:<user>   s <node>\n<frame>                               a frame
//! u:<user>   r <node> <conv> <read> <head> <unread>          the user's own mark
//! u:<user>   p <node> <conv> <read> <received>               the partner's marks
//! u:<user>   x <node> <device> <login>                       that device has logged in elsewhere; without a login: out
//! u:<user>   j <node> <conv> <number>                        the user is in this group, from this message on
//! u:<user>   l <node> <conv> <number>                        the user is not in it any more, this was the last message
//! l          m <node>\n<conv> <from> <place> <frame>[\n…]    messages of groups
//! l          u <node> <user>                                 the user uses level 2
//! l          o <node> <user>                                 the user is logged out of everything
//! l          b <node> <user> <other> <1 or 0>                the user has blocked the other (1), or no longer does (0)
//! ```
//! A node passes over what it cannot read, such as a place in another form: then its sweep finds
//! the messages.

use std::fmt::Write as _;

use super::Topic;
use crate::base::conversation::{ConversationId, SEQ_END, Tag};
use crate::bus::news::{CommittedFrame, DeviceEnd, DeviceNews};
use crate::protocol::UserId;
use crate::protocol::level2::frames::{Committed, MarkNews, Marks};
use crate::store::history::DeviceId;

/// The topic and the payload of news of this node.
pub(super) fn write(node: &str, news: &DeviceNews) -> (Topic<&'static str>, Vec<u8>) {
    let (topic, payload) = match news {
        DeviceNews::Messages(to, messages) => (Topic::User(*to), lines(node, messages)),
        DeviceNews::GroupMessages(messages) => (Topic::Level2, lines(node, messages)),
        DeviceNews::Show(to, frame) => (Topic::User(*to), format!("s {node}\n{frame}")),
        DeviceNews::Marks(to, conv, marks) => (Topic::User(*to), write_marks(node, *conv, *marks)),
        DeviceNews::End(to, device, DeviceEnd::Replaced(login)) => {
            (Topic::User(*to), format!("x {node} {} {login}", device.0))
        }
        DeviceNews::End(to, device, DeviceEnd::Revoked) => (Topic::User(*to), format!("x {node} {}", device.0)),
        DeviceNews::Joined(to, conv, from) => (Topic::User(*to), format!("j {node} {} {from}", conv.column())),
        DeviceNews::Left(to, conv, last) => (Topic::User(*to), format!("l {node} {} {last}", conv.column())),
        DeviceNews::UsesLevel2(user) => (Topic::Level2, format!("u {node} {user}")),
        DeviceNews::LoggedOut(user) => (Topic::Level2, format!("o {node} {user}")),
        DeviceNews::Blocked(user, other, is_blocked) => {
            (Topic::Level2, format!("b {node} {user} {other} {}", u8::from(*is_blocked)))
        }
    };
    (topic, payload.into_bytes())
}

fn write_marks(node: &str, conv: ConversationId, marks: MarkNews) -> String {
    match marks {
        MarkNews::Own { read, head, unread } => format!("r {node} {} {read} {head} {unread}", conv.column()),
        MarkNews::Partner(Marks { read, recv }) => format!("p {node} {} {read} {recv}", conv.column()),
    }
}

fn lines(node: &str, messages: &[CommittedFrame]) -> String {
    let bytes: usize = messages.iter().map(|message| message.frame.len() + 48).sum();
    let mut text = String::with_capacity(bytes + 48);
    let _ = write!(text, "m {node}");
    for CommittedFrame { conv, at, before, from, frame } in messages {
        let Committed { seq, tag, time } = at;
        let _ = write!(text, "\n{} {from} {seq}:{tag}:{time}:", conv.column());
        let _ = match before {
            Some(before) => write!(text, "{before} {frame}"),
            None => write!(text, "{NO_TAG} {frame}"),
        };
    }
    text
}

/// Reads news of another node, for this user or for all. `None` for this node's own news, and for
/// text that no node writes.
pub(super) fn read(own: &str, to: Option<UserId>, payload: &str) -> Option<DeviceNews> {
    let (head, body) = payload.split_once('\n').map_or((payload, None), |(head, body)| (head, Some(body)));
    let mut words = head.split(' ');
    let (kind, node) = (words.next()?, words.next()?);
    if node == own {
        return None;
    }
    match (kind, to) {
        ("m", Some(to)) => Some(DeviceNews::Messages(to, messages(body?)?)),
        ("m", None) => Some(DeviceNews::GroupMessages(messages(body?)?)),
        ("s", Some(to)) => Some(DeviceNews::Show(to, body?.into())),
        ("x", Some(to)) => {
            let device = DeviceId(words.next()?.parse().ok()?);
            let end = match words.next() {
                Some(login) => DeviceEnd::Replaced(login.parse().ok()?),
                None => DeviceEnd::Revoked,
            };
            Some(DeviceNews::End(to, device, end))
        }
        ("j" | "l", Some(to)) => {
            let (conv, seq) = (ConversationId::from_column(words.next()?.parse().ok()?), words.next()?.parse().ok()?);
            Some(if kind == "j" { DeviceNews::Joined(to, conv, seq) } else { DeviceNews::Left(to, conv, seq) })
        }
        ("r" | "p", Some(to)) => {
            let mut number = || words.next()?.parse::<i64>().ok();
            let (conv, read) = (ConversationId::from_column(number()?), number()?);
            let marks = match kind {
                "r" => MarkNews::Own { read, head: number()?, unread: number()? },
                _ => MarkNews::Partner(Marks { read, recv: number()? }),
            };
            Some(DeviceNews::Marks(to, conv, marks))
        }
        ("u", None) => Some(DeviceNews::UsesLevel2(UserId(words.next()?.parse().ok()?))),
        ("o", None) => Some(DeviceNews::LoggedOut(UserId(words.next()?.parse().ok()?))),
        ("b", None) => {
            let mut user = || words.next()?.parse().ok().map(UserId);
            let (user, other) = (user()?, user()?);
            let is_blocked = match words.next()? {
                "1" => true,
                "0" => false,
                _ => return None,
            };
            Some(DeviceNews::Blocked(user, other, is_blocked))
        }
        _ => None,
    }
}

fn messages(body: &str) -> Option<Vec<CommittedFrame>> {
    body.split('\n').map(message).collect()
}

fn message(line: &str) -> Option<CommittedFrame> {
    let mut parts = line.splitn(4, ' ');
    let mut number = || parts.next()?.parse::<i64>().ok();
    let (conv, from) = (ConversationId::from_column(number()?), number()?);
    let from = UserId(i32::try_from(from).ok()?);
    let (at, before) = place(parts.next()?)?;
    Some(CommittedFrame { conv, at, before, from, frame: parts.next()?.into() })
}

fn place(text: &str) -> Option<(Committed, Option<Tag>)> {
    let mut parts = text.split(':');
    let seq = parts.next()?.parse().ok().filter(|seq| (1..SEQ_END).contains(seq))?;
    let (tag, time) = (Tag::parse(parts.next()?)?, parts.next()?.parse().ok()?);
    let before = match parts.next()? {
        NO_TAG => None,
        tag => Some(Tag::parse(tag)?),
    };
    parts.next().is_none().then_some((Committed { seq, tag, time }, before))
}

/// Stands for an unknown tag.
const NO_TAG: &str = "-";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::peer::envelope::PeerMessage;

    #[test]
    fn news_that_are_written_are_read_by_other_nodes_only() {
        let message = |seq| CommittedFrame {
            conv: ConversationId::between(UserId(3), UserId(7)),
            at: Committed { seq, tag: Tag(0x9f3a), time: 1_789_891_200_123 },
            before: (seq > 1).then_some(Tag(u32::MAX)),
            from: UserId(7),
            frame: format!(r#"{{"m":{{"msg":"a b  c {seq}"}}}}"#).into(),
        };
        let all = [
            DeviceNews::Messages(UserId(3), vec![message(1), message(2)]),
            DeviceNews::GroupMessages(vec![message(9)]),
            DeviceNews::Marks(UserId(3), ConversationId::from_column(9), MarkNews::Own { read: 4, head: 6, unread: 2 }),
            DeviceNews::Marks(UserId(3), ConversationId::from_column(9), MarkNews::Partner(Marks { read: 4, recv: 6 })),
            DeviceNews::Show(UserId(3), "{\"x\":1}".into()),
            DeviceNews::End(UserId(3), DeviceId(5), DeviceEnd::Replaced(-6)),
            DeviceNews::End(UserId(3), DeviceId(5), DeviceEnd::Revoked),
            DeviceNews::Joined(UserId(3), ConversationId::from_column(9), 5),
            DeviceNews::Left(UserId(3), ConversationId::from_column(9), 6),
            DeviceNews::UsesLevel2(UserId(3)),
            DeviceNews::LoggedOut(UserId(3)),
            DeviceNews::Blocked(UserId(3), UserId(7), true),
            DeviceNews::Blocked(UserId(3), UserId(7), false),
        ];
        for news in all {
            let (topic, payload) = write("a1", &news);
            // As it comes from the bus, which must tell it from messages of level 1.
            let Some(PeerMessage::Devices { to, payload }) = PeerMessage::parse(topic, &payload) else {
                panic!("{news:?} is taken for something else");
            };
            let payload = payload.to_owned();
            assert_eq!(read("b2", to, &payload), Some(news));
            assert_eq!(read("a1", to, &payload), None);
        }
    }

    #[test]
    fn news_that_no_node_writes_are_passed_over() {
        for payload in [
            "",
            "m",
            "m a1",
            "m a1\n1 2",
            "m a1\n1 2 x {}",
            "m a1\n1 2 5 {}",
            "m a1\n1 2 5:00009f3a:7 {}",
            "m a1\n1 2 5:9f3a:7:- {}",
            "m a1\n1 2 0:00009f3a:7:- {}",
            "m a1\n1 2 5:00009f3a:7:-:- {}",
            "x a1",
            "x a1 z",
            "u a1",
            "o a1",
            "s a1",
            "r a1 1 2",
            "p a1 1",
            "z a1 1",
        ] {
            assert_eq!(read("b2", Some(UserId(1)), payload), None, "{payload}");
            assert_eq!(read("b2", None, payload), None, "{payload}");
        }
        assert_eq!(read("b2", None, "x a1 5"), None);
        assert_eq!(read("b2", Some(UserId(1)), "u a1 5"), None);
    }
}
