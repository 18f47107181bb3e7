//! Frames of level 2 as the generator writes and expects them, byte for byte.

use serde_json::Value;

use crate::wire::To;

/// A client's id of a message: a UUID of version 7 that identifies the message within the run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Cid {
    /// When the id was made, in ms since 1970.
    pub(crate) ms: u64,
    /// Different in each run.
    pub(crate) salt: u16,
    pub(crate) line: u32,
    pub(crate) number: u64,
}

/// The greatest salt.
pub(crate) const SALT_MAX: u16 = 0xfff;
/// The length of a [`Cid`] in characters.
const CID_LEN: usize = 36;

impl Cid {
    fn write(self, out: &mut [u8]) {
        // 48 bits of the time, 12 of the salt, 20 of the line and 40 of the number. The bits of
        // version and variant stand between them.
        let high = self.ms << 16 | 0x7000 | u64::from(self.salt & SALT_MAX);
        let low = 0x8 << 60 | u64::from(self.line & 0xf_ffff) << 40 | self.number & 0xff_ffff_ffff;
        let nibbles = (0..16).rev().map(|n| high >> (4 * n)).chain((0..16).rev().map(|n| low >> (4 * n)));
        let mut at = 0;
        for nibble in nibbles {
            if matches!(at, 8 | 13 | 18 | 23) {
                out[at] = b'-';
                at += 1;
            }
            out[at] = b"0123456789abcdef"[(nibble & 0xf) as usize];
            at += 1;
        }
    }

    fn read(text: &[u8]) -> Option<Cid> {
        let mut bits: u128 = 0;
        for (at, byte) in text.get(..CID_LEN)?.iter().enumerate() {
            match at {
                8 | 13 | 18 | 23 => (*byte == b'-').then_some(())?,
                _ => bits = bits << 4 | u128::from(hex(*byte)?),
            }
        }
        let (high, low) = ((bits >> 64) as u64, bits as u64);
        let (salt, line) = (high as u16 & SALT_MAX, (low >> 40 & 0xf_ffff) as u32);
        (high >> 12 & 0xf == 7 && low >> 60 == 8).then_some(())?;
        Some(Cid { ms: high >> 16, salt, line, number: low & 0xff_ffff_ffff })
    }
}

fn hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

/// A send in which only the `cid` changes.
#[derive(Clone, Debug)]
pub(crate) struct SendTemplate {
    bytes: Vec<u8>,
    cid_at: usize,
    /// The conversation as the sender names it.
    own_name: Vec<u8>,
    /// The bytes before the frame in the push that others get.
    push_head: Vec<u8>,
}

impl SendTemplate {
    /// A template of exactly `size` bytes, the newline included.
    pub(crate) fn new(from: i64, to: To, size: usize) -> Result<SendTemplate, String> {
        let (member, msg_type, own_name, name) = match to {
            To::User(id) => (format!(r#""TOID":{id}"#), 4, format!("u{id}"), format!("u{from}")),
            To::Group(id) => (format!(r#""GROUPID":{id}"#), 9, format!("g{id}"), format!("g{id}")),
        };
        let head = format!(r#"{{"FROMID":{from},{member},"cid":""#);
        let middle = r#"","msg":""#;
        let tail = format!("\",\"msgType\":{msg_type}}}\n");
        let least = head.len() + CID_LEN + middle.len() + tail.len();
        let Some(filling) = size.checked_sub(least) else {
            return Err(format!("a frame needs at least {least} bytes: give --size {least} or more"));
        };
        let cid_at = head.len();
        let mut bytes = head.into_bytes();
        bytes.extend([b'0'; CID_LEN]);
        bytes.extend(middle.as_bytes());
        bytes.extend((0..filling).map(|n| b'a' + (n % 26) as u8));
        bytes.extend(tail.as_bytes());
        let push_head = format!(r#"{{"conv":"{name}","from":{from},"m":"#).into_bytes();
        Ok(SendTemplate { bytes, cid_at, own_name: own_name.into_bytes(), push_head })
    }

    /// Appends the message with this id.
    pub(crate) fn write(&self, cid: Cid, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        cid.write(&mut out[start + self.cid_at..][..CID_LEN]);
    }

    /// The place that a push assigns to a message of this template, if the rest of the frame is
    /// right. The caller has checked the `cid`.
    pub(crate) fn place_in_push(&self, frame: &[u8]) -> Option<NumberedMessage> {
        let mut scan = Scan(frame);
        scan.skip(&self.push_head)?;
        scan.skip(&self.bytes[..self.cid_at])?;
        scan.take(CID_LEN)?;
        // A newline is not part of a frame.
        scan.skip(&self.bytes[self.cid_at + CID_LEN..self.bytes.len() - 1])?;
        scan.skip(br#","msgType":42"#)?;
        scan.place()
    }

    /// Whether this is the sender's name of the conversation.
    pub(crate) fn is_named(&self, name: &[u8]) -> bool {
        self.own_name == name
    }
}

/// The number of a message in its conversation, and the members that come with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NumberedMessage {
    pub(crate) seq: u64,
    pub(crate) tag: u32,
    pub(crate) time: u64,
}

/// A frame that the server may send.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Heard<'f> {
    /// A 41 that says that the message is committed. `again`: it was committed before.
    Committed {
        cid: Cid,
        conv: &'f [u8],
        again: bool,
        place: NumberedMessage,
    },
    /// A 41 that says that the message is not committed now.
    Refused {
        cid: Cid,
        retry_after: f64,
    },
    /// A 42 with the message that has this `cid`.
    Pushed(Cid),
    Ping,
}

pub(crate) const PONG: &[u8] = b"{\"msgType\":54}\n";

/// Recognises a frame; `None` if the server must not send it.
pub(crate) fn hear(frame: &[u8]) -> Option<Heard<'_>> {
    if frame.starts_with(br#"{"conv":"#) {
        let at = memchr::memmem::find(frame, CID_KEY)? + CID_KEY.len();
        return Cid::read(&frame[at..]).map(Heard::Pushed);
    }
    if frame == b"{\"msgType\":53}\n" {
        return Some(Heard::Ping);
    }
    committed(frame).or_else(|| refused(frame))
}

const CID_KEY: &[u8] = br#""cid":""#;

fn committed(frame: &[u8]) -> Option<Heard<'_>> {
    let mut scan = Scan(frame);
    let again = scan.skip(br#"{"again":true,"#).is_some();
    if !again {
        scan.skip(b"{")?;
    }
    scan.skip(CID_KEY)?;
    let cid = Cid::read(scan.take(CID_LEN)?)?;
    scan.skip(br#"","conv":""#)?;
    let conv = scan.take(memchr::memchr(b'"', scan.0)?)?;
    scan.skip(br#"","errno":200,"msgType":41"#)?;
    Some(Heard::Committed { cid, conv, again, place: scan.place()? })
}

fn refused(frame: &[u8]) -> Option<Heard<'_>> {
    let reply: Value = serde_json::from_slice(frame).ok()?;
    let cid = Cid::read(reply["cid"].as_str()?.as_bytes())?;
    let retry_after = reply["retryAfter"].as_f64().filter(|after| (0.0..=3600.0).contains(after))?;
    (reply["msgType"] == 41).then_some(Heard::Refused { cid, retry_after })
}

/// The rest of a frame.
struct Scan<'f>(&'f [u8]);

impl<'f> Scan<'f> {
    fn skip(&mut self, expected: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(expected)?;
        Some(())
    }

    fn take(&mut self, len: usize) -> Option<&'f [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u64> {
        let len = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        str::from_utf8(self.take(len)?).ok()?.parse().ok()
    }

    /// The last members of a 41 and of a 42.
    fn place(&mut self) -> Option<NumberedMessage> {
        self.skip(br#","seq":"#)?;
        let seq = self.number()?;
        self.skip(br#","tag":""#)?;
        let tag = self.take(8)?.iter().try_fold(0, |tag: u32, byte| hex(*byte).map(|hex| tag << 4 | u32::from(hex)))?;
        self.skip(br#"","time":"#)?;
        let time = self.number()?;
        self.skip(b"}\n")?;
        self.0.is_empty().then_some(NumberedMessage { seq, tag, time })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CID: Cid = Cid { ms: 0x0198_c5a0_7b1f, salt: 0xabc, line: 0xf_1234, number: 0x12_3456_789a };
    const TEXT: &str = "0198c5a0-7b1f-7abc-8f12-34123456789a";

    #[test]
    fn an_id_is_a_uuid_and_identifies_its_message() {
        let mut text = [0; CID_LEN];
        CID.write(&mut text);
        assert_eq!(str::from_utf8(&text), Ok(TEXT));
        assert_eq!(Cid::read(&text), Some(CID));
        for wrong in [&TEXT[1..], &TEXT.replace('-', "0"), &TEXT.replace("-7", "-4"), &TEXT.to_uppercase()] {
            assert_eq!(Cid::read(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn a_send_has_its_size_and_is_known_again_when_it_is_pushed() {
        let template = SendTemplate::new(7, To::User(9), 120).expect("it fits");
        let mut send = Vec::new();
        template.write(CID, &mut send);
        assert_eq!((send.len(), send.last()), (120, Some(&b'\n')));
        let value: Value = serde_json::from_slice(&send).expect("JSON");
        assert_eq!((&value["cid"], &value["msgType"]), (&Value::from(TEXT), &Value::from(4)));
        let m = str::from_utf8(send.trim_ascii_end()).expect("text");
        let push =
            format!(r#"{{"conv":"u7","from":7,"m":{m},"msgType":42,"seq":43,"tag":"77aa01fe","time":1789}}"#) + "\n";
        assert_eq!(hear(push.as_bytes()), Some(Heard::Pushed(CID)));
        let place = NumberedMessage { seq: 43, tag: 0x77aa_01fe, time: 1789 };
        assert_eq!(template.place_in_push(push.as_bytes()), Some(place));
        for at in 0..push.len() {
            let mut wrong = push.clone().into_bytes();
            wrong[at] ^= 1;
            let heard = hear(&wrong) == Some(Heard::Pushed(CID)) && template.place_in_push(&wrong) == Some(place);
            assert!(!heard, "byte {at}");
        }
    }

    #[test]
    fn answers_are_understood() {
        let text = format!(
            r#"{{"cid":"{TEXT}","conv":"u9","errno":200,"msgType":41,"seq":42,"tag":"5be0717c","time":1789}}{}"#,
            "\n"
        );
        let place = NumberedMessage { seq: 42, tag: 0x5be0_717c, time: 1789 };
        let heard = |again| Some(Heard::Committed { cid: CID, conv: b"u9", again, place });
        assert_eq!(hear(text.as_bytes()), heard(false));
        assert_eq!(hear(text.replace("{\"cid", "{\"again\":true,\"cid").as_bytes()), heard(true));
        assert_eq!(hear(text.replace("200", "201").as_bytes()), None);
        let refused = format!(r#"{{"cid":"{TEXT}","errmsg":"away","errno":503,"msgType":41,"retryAfter":2.5}}"#);
        assert_eq!(hear(refused.as_bytes()), Some(Heard::Refused { cid: CID, retry_after: 2.5 }));
        assert_eq!(hear(refused.replace(",\"retryAfter\":2.5", "").as_bytes()), None, "it will never succeed");
    }

    #[test]
    fn a_size_too_small_says_what_to_give() {
        let error = SendTemplate::new(7, To::Group(9), 10).expect_err("too small");
        assert!(error.contains("--size 91"), "{error}");
    }
}
