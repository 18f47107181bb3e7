//! The steps and incidents of connections, for the [`Tracer`].

use net::CloseReason;

use crate::base::conversation::{ConversationId, ConversationName};
use crate::base::trace::{Hop, Incident, Step, Tracer, hash};
use crate::devices::tasks::Identity;
use crate::metrics::reason_name;
use crate::protocol::{ReplyKind, UserId};
use crate::store::history::Cid;

/// Notes that a message for a conversation was read from its sender.
pub(super) fn received(tracer: &Tracer, (conv, cid): (ConversationId, &Cid), from: UserId, frame: u64, bytes: usize) {
    tracer.note(|| {
        let (conv, cid) = (conv.column(), hash(cid.bytes()));
        Step { conv, cid, from: from.0, frame, number: bytes as u32, ..Step::of(Hop::Received) }
    });
}

/// Notes that a frame was written to a device: a message (42), or the answer to a send (41), which
/// may be a refusal with this errno.
pub(super) fn written(tracer: &Tracer, to: &Identity, frame: &str, refused: Option<u16>) {
    if let Some(errno) = refused {
        tracer.happened(to.user, Incident::Refused(errno));
    }
    if tracer.is_on()
        && let Some(step) = step_of(to, frame)
    {
        tracer.note(|| step);
    }
}

/// Notes that a user was sent a reply of this kind.
pub(super) fn replied(tracer: &Tracer, user: Option<UserId>, kind: ReplyKind) {
    if let (Some(user), Some(errno)) = (user, kind.refusal()) {
        tracer.happened(user, Incident::Refused(errno));
    }
}

/// Notes that a connection of this user has ended. `is_told`: whether its end was noted before.
pub(super) fn closed(tracer: &Tracer, user: Option<UserId>, reason: CloseReason, is_told: bool) {
    if let Some(user) = user.filter(|_| !is_told) {
        tracer.happened(user, Incident::Closed(reason_name(reason)));
    }
}

/// The step of such a frame. Its keys are in byte order, and only `cid` and `m` contain text of a
/// client, so everything is searched for before or after these.
#[cold]
fn step_of(to: &Identity, frame: &str) -> Option<Step> {
    let tail = &frame[frame.rfind(",\"msgType\":")?..];
    let own = Step { device: to.device.0, ..Step::of(Hop::Written) };
    if tail.starts_with(",\"msgType\":42") {
        let conv = named(frame.strip_prefix("{\"conv\":\"")?, to.user)?;
        return Some(Step { conv, seq: number(tail, "\"seq\":")?, to: to.user.0, ..own });
    }
    if !tail.starts_with(",\"msgType\":41") {
        return None;
    }
    let own = Step { hop: Hop::Answered, from: to.user.0, ..own };
    let cid = frame.split_once("\"cid\":\"").filter(|(before, _)| before.len() <= AGAIN.len());
    let cid = cid.and_then(|(_, rest)| text(rest)).and_then(|cid| Cid::of_client(&cid));
    let own = Step { cid: cid.map_or(0, |cid| hash(cid.bytes())), ..own };
    let head = &frame[..frame.len() - tail.len()];
    let errno = head.rsplit_once("\"errno\":")?.1.parse().ok()?;
    if errno != 200 {
        return Some(Step { number: errno, ..own });
    }
    let conv = named(head.rsplit_once("\"conv\":\"")?.1, to.user)?;
    Some(Step { conv, seq: number(tail, "\"seq\":")?, number: errno, ..own })
}

/// The conversation whose name ends with a quote.
fn named(rest: &str, user: UserId) -> Option<i64> {
    ConversationName::parse(rest.split('"').next()?).map(|name| name.for_user(user).column())
}

fn number(text: &str, key: &str) -> Option<i64> {
    let digits = text.split_once(key)?.1;
    digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The text that ends with the next quote that is not escaped.
fn text(rest: &str) -> Option<String> {
    let mut is_escaped = false;
    let end = rest.bytes().position(|byte| {
        let is_end = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_end
    })?;
    serde_json::from_str(&format!("\"{}\"", &rest[..end])).ok()
}

/// The prefix that may come before the sender's id.
const AGAIN: &str = "{\"again\":true,";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::conversation::Tag;
    use crate::base::trace::Sampling;
    use crate::protocol::level2::frames::{self, Committed, Message, Refusal};
    use crate::store::history::DeviceId;

    fn device() -> Identity {
        Identity { user: UserId(9), device: DeviceId(5), device_name: "phone".into(), login: 1 }
    }

    #[test]
    fn a_written_message_is_known_by_its_place() {
        let at = Committed { seq: 43, tag: Tag(7), time: 8 };
        let tricky = r#"{"msgType":4,"msg":"\",\"msgType\":41,\"seq\":99","seq":1,"msgType":41,"conv":"u1"}"#;
        let message =
            Message { at, from: UserId(7), frame: Some(tricky), edited: None, recalled: None, imported: false };
        let frame = frames::pushed(ConversationName::User(UserId(7)), &message);
        let step = step_of(&device(), &frame).expect("a message");
        let conv = ConversationId::between(UserId(7), UserId(9)).column();
        assert_eq!((step.hop, step.conv, step.seq, step.device, step.to), (Hop::Written, conv, 43, 5, 9));
    }

    #[test]
    fn an_answer_is_known_by_its_cid() {
        let at = Committed { seq: 43, tag: Tag(7), time: 8 };
        let name = ConversationName::User(UserId(7));
        for cid in ["a", r#"","errno":9,"conv":"u1"#, "\\\\\"", "0198c5aa-0000-7000-8000-000000000001"] {
            let expected = hash(Cid::of_client(cid).expect("a cid").bytes());
            for again in [false, true] {
                let step = step_of(&device(), &frames::acknowledged(cid, name, at, again)).expect("an answer");
                assert_eq!((step.cid, step.seq, step.number), (expected, 43, 200), "{cid}");
            }
            let refusal = Refusal { errno: 403, errmsg: "no", retry_after: Some(5) };
            let step = step_of(&device(), &frames::send_refused(Some(cid), refusal)).expect("an answer");
            assert_eq!((step.hop, step.cid, step.conv, step.number), (Hop::Answered, expected, 0, 403));
        }
    }

    #[test]
    fn other_frames_are_not_steps() {
        for frame in ["", "{}", r#"{"convs":[],"more":false,"msgType":43}"#, r#"{"errno":200,"msgType":14}"#] {
            assert_eq!(step_of(&device(), frame), None, "{frame}");
        }
        let tracer = Tracer::new(Sampling::OFF, 0);
        written(&tracer, &device(), "{}", None);
    }
}
