//! [`Frame`]: a frame of a server, checked when it is read. Input that does not have its form is
//! not a frame.

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::conv::Conv;

/// A frame from a server.
#[derive(Debug)]
pub(crate) enum Frame {
    /// 40 with 200.
    Welcome(Welcome),
    /// 40 with an error, or an error of level 1 where a 40 was expected.
    LoginRefused(Refusal),
    /// The login reply of a server without level 2.
    LevelOne,
    /// 41 with 200.
    Ack(Ack),
    /// 41 with an error.
    SendRefused { cid: Option<String>, refusal: Refusal },
    /// 42.
    Push(Push),
    /// 43.
    Overview(Overview),
    /// 44 of a run, whose messages follow.
    Run(Run),
    /// 44 with an error.
    RunRefused { conv: Conv, errno: i64 },
    /// 45.
    Synced { rid: Option<String> },
    /// 48.
    Page { rid: Option<String>, page: Page },
    /// 49, in reply to a request or not.
    Read { rid: Option<String>, read: Read },
    /// 50.
    Peer(Peer),
    /// 51.
    Typing { conv: Conv, from: i64 },
    /// 52 about one user.
    Presence { user: i64, online: bool },
    /// 53.
    Ping,
    /// 54.
    Pong,
    /// 55.
    Farewell { reason: String, refusal: Refusal },
    /// The reply to a request with a `rid`.
    Reply { rid: String, reply: Value },
    /// An error without a request, such as one before the server closes.
    Unasked(Refusal),
    /// A type that this client does not know, which is ignored.
    Other,
}

/// The answer to a login.
#[derive(Deserialize, Debug)]
pub(crate) struct Welcome {
    pub(crate) user: i64,
    pub(crate) name: String,
    pub(crate) token: String,
    #[serde(rename = "tokenExpires")]
    pub(crate) token_expires: i64,
    pub(crate) limits: Limits,
}

/// Limits that a client must keep to.
#[derive(Deserialize, Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) frame: usize,
    pub(crate) inflight: usize,
}

/// Why the server refuses something.
#[derive(Deserialize, Clone, PartialEq, Default, Debug)]
pub(crate) struct Refusal {
    #[serde(default)]
    pub(crate) errno: i64,
    #[serde(default)]
    pub(crate) errmsg: String,
    #[serde(default, rename = "retryAfter")]
    pub(crate) retry_after: Option<f64>,
}

/// A committed send.
#[derive(Deserialize, Debug)]
pub(crate) struct Ack {
    pub(crate) cid: String,
    pub(crate) conv: Conv,
    #[serde(deserialize_with = "number")]
    pub(crate) seq: u64,
    #[serde(deserialize_with = "tag")]
    pub(crate) tag: String,
    pub(crate) time: i64,
    #[serde(default)]
    pub(crate) again: bool,
}

/// A message in its place.
#[derive(Debug)]
pub(crate) struct Push {
    pub(crate) conv: Conv,
    pub(crate) message: Message,
}

/// A message as a page, a run or `last` shows it.
#[derive(Deserialize, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Message {
    #[serde(deserialize_with = "number")]
    pub(crate) seq: u64,
    pub(crate) from: i64,
    pub(crate) time: i64,
    #[serde(deserialize_with = "tag")]
    pub(crate) tag: String,
    /// The sender's frame; `None` if the message was recalled.
    #[serde(deserialize_with = "body")]
    pub(crate) m: Option<String>,
    #[serde(default)]
    pub(crate) edited: Option<u64>,
    #[serde(default)]
    pub(crate) recalled: Option<u64>,
}

/// Some of the user's conversations.
#[derive(Deserialize, Debug)]
pub(crate) struct Overview {
    pub(crate) convs: Vec<Line>,
}

/// A conversation in an overview.
#[derive(Deserialize, Clone, Debug)]
pub(crate) struct Line {
    pub(crate) conv: Conv,
    #[serde(deserialize_with = "number")]
    pub(crate) head: u64,
    #[serde(deserialize_with = "number")]
    pub(crate) floor: u64,
    #[serde(default)]
    pub(crate) tag: Option<String>,
    #[serde(default)]
    pub(crate) name: Option<String>,
    #[serde(default)]
    pub(crate) read: u64,
    #[serde(default)]
    pub(crate) unread: u64,
    #[serde(default, rename = "peerRead")]
    pub(crate) peer_read: u64,
    #[serde(default, rename = "peerRecv")]
    pub(crate) peer_recv: u64,
    #[serde(default)]
    pub(crate) last: Option<Message>,
}

/// The beginning of a run.
#[derive(Deserialize, Debug)]
pub(crate) struct Run {
    pub(crate) conv: Conv,
    #[serde(deserialize_with = "number")]
    pub(crate) from: u64,
    #[serde(default, deserialize_with = "number")]
    pub(crate) to: u64,
    #[serde(default)]
    pub(crate) reset: bool,
}

/// A page of history.
#[derive(Deserialize, Clone, Debug)]
pub(crate) struct Page {
    pub(crate) conv: Conv,
    pub(crate) complete: bool,
    #[serde(deserialize_with = "number")]
    pub(crate) floor: u64,
    pub(crate) msgs: Vec<Message>,
}

/// The user's own read mark in a conversation.
#[derive(Deserialize, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Read {
    pub(crate) conv: Conv,
    #[serde(deserialize_with = "number")]
    pub(crate) head: u64,
    #[serde(deserialize_with = "number")]
    pub(crate) read: u64,
    #[serde(deserialize_with = "number")]
    pub(crate) unread: u64,
}

/// A partner's marks.
#[derive(Deserialize, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Peer {
    pub(crate) conv: Conv,
    #[serde(deserialize_with = "number")]
    pub(crate) read: u64,
    #[serde(deserialize_with = "number")]
    pub(crate) recv: u64,
}

#[derive(Deserialize)]
struct Head {
    #[serde(rename = "msgType")]
    kind: i64,
    #[serde(default)]
    errno: Option<i64>,
    #[serde(default)]
    rid: Option<Value>,
}

#[derive(Deserialize)]
struct Presence {
    user: i64,
    online: bool,
}

#[derive(Deserialize)]
struct Typing {
    conv: Conv,
    from: i64,
}

#[derive(Deserialize)]
struct OfConv {
    conv: Conv,
}

#[derive(Deserialize)]
struct OfCid {
    #[serde(default)]
    cid: Option<String>,
}

#[derive(Deserialize)]
struct Reason {
    #[serde(default)]
    reason: String,
}

impl Frame {
    /// Reads a frame.
    ///
    /// # Errors
    /// If the frame does not have the form of its type. The text names the fault, and quotes
    /// nothing of the frame's content.
    pub(crate) fn read(text: &[u8]) -> Result<Frame, String> {
        Frame::parse(text).map_err(|error| {
            // serde_json names a position and a kind of fault. Text that it may quote is left out.
            format!("the server's frame is not understood: {:?} at byte {}", error.classify(), error.column())
        })
    }

    fn parse(text: &[u8]) -> serde_json::Result<Frame> {
        let head: Head = serde_json::from_slice(text)?;
        let rid = head.rid.as_ref().and_then(Value::as_str).map(str::to_owned);
        let is_fine = head.errno.is_none_or(|errno| errno == 200);
        Ok(match head.kind {
            40 if is_fine => Frame::Welcome(serde_json::from_slice(text)?),
            40 => Frame::LoginRefused(serde_json::from_slice(text)?),
            41 if is_fine => Frame::Ack(serde_json::from_slice(text)?),
            41 => {
                let OfCid { cid } = serde_json::from_slice(text)?;
                Frame::SendRefused { cid, refusal: serde_json::from_slice(text)? }
            }
            42 => {
                let OfConv { conv } = serde_json::from_slice(text)?;
                Frame::Push(Push { conv, message: serde_json::from_slice(text)? })
            }
            43 => Frame::Overview(serde_json::from_slice(text)?),
            44 if is_fine => Frame::Run(serde_json::from_slice(text)?),
            44 => {
                let OfConv { conv } = serde_json::from_slice(text)?;
                Frame::RunRefused { conv, errno: head.errno.unwrap_or(0) }
            }
            45 => Frame::Synced { rid },
            48 if is_fine => {
                let page: Page = serde_json::from_slice(text)?;
                if !page.msgs.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq) {
                    return Err(serde_json::Error::custom("a page with a hole"));
                }
                Frame::Page { rid, page }
            }
            49 if is_fine => Frame::Read { rid, read: serde_json::from_slice(text)? },
            50 => Frame::Peer(serde_json::from_slice(text)?),
            51 if rid.is_none() => {
                let Typing { conv, from } = serde_json::from_slice(text)?;
                Frame::Typing { conv, from }
            }
            52 if head.errno.is_none() => {
                let Presence { user, online } = serde_json::from_slice(text)?;
                Frame::Presence { user, online }
            }
            53 => Frame::Ping,
            54 => Frame::Pong,
            55 => {
                let Reason { reason } = serde_json::from_slice(text)?;
                Frame::Farewell { reason, refusal: serde_json::from_slice(text)? }
            }
            _ => match rid {
                Some(rid) => Frame::Reply { rid, reply: serde_json::from_slice(text)? },
                None if !is_fine => Frame::Unasked(serde_json::from_slice(text)?),
                None if head.kind == 200 => Frame::LevelOne,
                None => Frame::Other,
            },
        })
    }
}

impl Refusal {
    /// The refusal in a reply; `None` if the reply is not an error.
    pub(crate) fn of(reply: &Value) -> Option<Refusal> {
        let errno = reply["errno"].as_i64().unwrap_or(0);
        if matches!(errno, 200 | 202) {
            return None;
        }
        let text = reply["errmsg"].as_str().or_else(|| reply["msg"].as_str()).unwrap_or_default().to_owned();
        Some(Refusal { errno, errmsg: text, retry_after: reply["retryAfter"].as_f64() })
    }

    /// The number of seconds after which a retry may succeed, within sensible bounds.
    pub(crate) fn wait(&self) -> Option<f64> {
        self.retry_after.map(|seconds| if seconds.is_finite() { seconds.clamp(0.1, 86_400.0) } else { 60.0 })
    }
}

/// A number of a message, below 2^53.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let number = u64::deserialize(deserializer)?;
    if number < 1 << 53 { Ok(number) } else { Err(D::Error::custom("no number of a message")) }
}

fn tag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let tag = String::deserialize(deserializer)?;
    let is_tag = (1..=16).contains(&tag.len()) && tag.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_tag { Ok(tag) } else { Err(D::Error::custom("no tag")) }
}

/// A sender's frame, byte for byte.
fn body<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let raw = Option::<Box<RawValue>>::deserialize(deserializer)?;
    match raw {
        None => Ok(None),
        Some(raw) if raw.get().starts_with('{') => Ok(Some(raw.get().to_owned())),
        Some(_) => Err(D::Error::custom("a message that is no object")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Frame {
        Frame::read(text.as_bytes()).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    #[test]
    fn the_examples_of_the_contract_are_understood() {
        let welcome = r#"{"device":"d","errno":200,"level":2,"limits":{"frame":65536,"inflight":256,"page":200},"msgType":40,"name":"ann","ping":25,"token":"t","tokenExpires":1790600000000,"user":7}"#;
        assert!(
            matches!(read(welcome), Frame::Welcome(welcome) if welcome.user == 7 && welcome.limits.inflight == 256)
        );
        let ack = r#"{"cid":"c","conv":"u9","errno":200,"msgType":41,"seq":42,"tag":"5be0717c","time":1789891200123}"#;
        assert!(matches!(read(ack), Frame::Ack(ack) if ack.seq == 42 && !ack.again && ack.conv == Conv::User(9)));
        let push = r#"{"conv":"u9","from":9,"m":{"msgType":4,"n":[1,2.50],"msg":"hi"},"msgType":42,"seq":43,"tag":"77aa01fe","time":1}"#;
        let Frame::Push(push) = read(push) else { panic!("a 42") };
        assert_eq!(push.message.m.as_deref(), Some(r#"{"msgType":4,"n":[1,2.50],"msg":"hi"}"#), "byte for byte");
        let recalled =
            r#"{"conv":"u9","from":9,"m":null,"msgType":42,"recalled":44,"seq":43,"tag":"77aa01fe","time":1}"#;
        assert!(
            matches!(read(recalled), Frame::Push(push) if push.message.m.is_none() && push.message.recalled == Some(44))
        );
        let refused = r#"{"conv":"g3","errmsg":"no","errno":403,"msgType":44}"#;
        assert!(matches!(read(refused), Frame::RunRefused { conv: Conv::Group(3), errno: 403 }));
        let farewell = r#"{"errmsg":"x","errno":503,"msgType":55,"reason":"drain","retryAfter":1.7}"#;
        assert!(matches!(read(farewell), Frame::Farewell { refusal, .. } if refusal.wait() == Some(1.7)));
        assert!(matches!(read(r#"{"errno":200,"msgType":200}"#), Frame::LevelOne));
        assert!(matches!(read(r#"{"errno":200,"msgType":52}"#), Frame::Other));
        assert!(matches!(read(r#"{"msgType":99,"x":1}"#), Frame::Other));
        let busy = r#"{"errmsg":"too many connections, try again later","errno":429,"msgType":429}"#;
        assert!(matches!(read(busy), Frame::Unasked(refusal) if refusal.errno == 429));
    }

    #[test]
    fn input_without_the_form_is_not_a_frame() {
        for wrong in [
            "",
            "[]",
            "{}",
            "null",
            r#"{"msgType":"42"}"#,
            r#"{"conv":"u9","from":9,"m":"text","msgType":42,"seq":43,"tag":"77aa01fe","time":1}"#,
            r#"{"conv":"x9","from":9,"m":{},"msgType":42,"seq":43,"tag":"77aa01fe","time":1}"#,
            r#"{"conv":"u9","from":9,"m":{},"msgType":42,"seq":-1,"tag":"77aa01fe","time":1}"#,
            r#"{"conv":"u9","from":9,"m":{},"msgType":42,"seq":9007199254740992,"tag":"77aa01fe","time":1}"#,
            r#"{"conv":"u9","from":9,"m":{},"msgType":42,"seq":1,"tag":"no tag","time":1}"#,
            r#"{"conv":"u9","from":9,"m":{},"msgType":42,"seq":1,"tag":"0a"}"#,
            r#"{"errno":200,"msgType":40}"#,
        ] {
            let error = Frame::read(wrong.as_bytes()).expect_err(wrong);
            assert!(!error.contains("no tag"), "{error} quotes the frame");
        }
    }

    #[test]
    fn a_wait_makes_sense() {
        let wait = |retry_after| Refusal { retry_after, ..Refusal::default() }.wait();
        assert_eq!(wait(None), None);
        assert_eq!(wait(Some(-3.0)), Some(0.1));
        assert_eq!(wait(Some(1e300)), Some(86_400.0));
        assert_eq!(wait(Some(f64::NAN)), Some(60.0));
    }
}
