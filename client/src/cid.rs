//! Ids of messages: UUIDs of version 7 (RFC 9562), which are unique without a central authority.

use std::fmt::Write as _;

/// An id from the time and random bytes: 48 bits of milliseconds, and 74 random bits.
pub(crate) fn new(unix_ms: i64, random: [u8; 10]) -> String {
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&unix_ms.to_be_bytes()[2..]);
    bytes[6..].copy_from_slice(&random);
    bytes[6] = bytes[6] & 0x0f | 0x70;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.into_iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_uuid_of_version_7_and_sorts_by_time() {
        let one = new(0x0198_c5a0_7b1f, [0xff; 10]);
        assert_eq!(one, "0198c5a0-7b1f-7fff-bfff-ffffffffffff");
        assert_eq!(new(0x0198_c5a0_7b1f, [0; 10]), "0198c5a0-7b1f-7000-8000-000000000000");
        assert!(new(0x0198_c5a0_7b20, [0; 10]) > one);
    }
}
