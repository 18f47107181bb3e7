//! The expiry of a certificate. rustls checks a server's certificate for its clients, but does not
//! return its expiry.
//!
//! ```text
//! Certificate     SEQUENCE { TBSCertificate, … }                                   (RFC 5280, 4.1)
//! TBSCertificate  SEQUENCE { [0] version?, serial INTEGER, algorithm SEQUENCE, issuer SEQUENCE,
//!                            validity SEQUENCE { notBefore Time, notAfter Time }, … }
//! ```

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::base::der::{INTEGER, SEQUENCE, any_element, element};

/// The expiry of this certificate, in DER; `None` if it cannot be read.
pub(super) fn end_of(der: &[u8]) -> Option<SystemTime> {
    let (certificate, _) = element(SEQUENCE, der)?;
    let (mut fields, _) = element(SEQUENCE, certificate)?;
    if let Some((_, rest)) = element(VERSION, fields) {
        fields = rest;
    }
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        fields = element(tag, fields)?.1;
    }
    let (validity, _) = element(SEQUENCE, fields)?;
    let end = any_element(any_element(validity)?.rest)?;
    time(end.tag, str::from_utf8(end.content).ok()?)
}

/// `YYMMDDHHMMSSZ` up to 2049, `YYYYMMDDHHMMSSZ` from then on (RFC 5280, 4.1.2.5).
fn time(tag: u8, text: &str) -> Option<SystemTime> {
    let digits = text.strip_suffix('Z').filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    let (year, rest) = match tag {
        UTC_TIME => {
            let (year, rest) = digits.split_at_checked(2)?;
            let year: i16 = year.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = digits.split_at_checked(4)?;
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    let two = |at: usize| rest.get(at..at + 2)?.parse::<i8>().ok();
    let at = DateTime::new(year, two(0)?, two(2)?, two(4)?, two(6)?, two(8)?, 0).ok()?;
    let seconds = u64::try_from(TimeZone::UTC.to_timestamp(at).ok()?.as_second()).ok()?;
    (rest.len() == 10).then(|| UNIX_EPOCH + Duration::from_secs(seconds))
}

const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const VERSION: u8 = 0xa0;

#[cfg(test)]
mod tests {
    use super::*;

    fn made(year: i32, month: u8, day: u8) -> Vec<u8> {
        let key = rcgen::KeyPair::generate().expect("random bytes");
        let mut params = rcgen::CertificateParams::new(["a".to_owned(), "b".to_owned()]).expect("names");
        params.not_after = rcgen::date_time_ymd(year, month, day);
        params.self_signed(&key).expect("a certificate").der().to_vec()
    }

    #[test]
    fn both_forms_of_time_are_read() {
        for ((year, month, day), seconds) in [((2033, 5, 18), 1_999_987_200), ((2050, 1, 1), 2_524_608_000)] {
            assert_eq!(end_of(&made(year, month, day)), Some(UNIX_EPOCH + Duration::from_secs(seconds)));
        }
    }

    #[test]
    fn bytes_that_are_not_a_certificate_have_no_end() {
        let whole = made(2033, 5, 18);
        for end in 0..whole.len() {
            let _ = end_of(&whole[..end]);
        }
        assert_eq!(end_of(b""), None);
        assert_eq!(end_of(&whole[..40]), None);
        for text in ["330518000000", "3305180000Z", "331318000000Z", "33051800000éZ", "Z"] {
            assert_eq!(time(UTC_TIME, text), None, "{text}");
        }
    }
}
