//! [`Token`]: proves the login of a device in place of a password.
//!
//! ```text
//!   origin   user  device  serial  expires  HMAC-SHA256 of all before it
//!   1        4     8       16      8        32                             69 bytes, 92 characters
//! ```
//! Numbers are big-endian, the whole is base64url without padding. The key is the cluster's, so a
//! token is valid on every node. The signature proves only that a node has made the token. Whether
//! it is still valid depends on the row of its device, which is found by its key and must have the
//! token's serial ([`Token::is_of`]). A device that logs out or is forgotten has no row, and a
//! password change gives the rows new serials.
//!
//! Only one text is accepted for a token: with other bits in the last character, padding, blanks or
//! the other base64 alphabet it is refused. A token is never logged.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;

use crate::base::ids::UserId;

/// The key that all nodes of a cluster sign with.
pub struct TokenKey(hmac::Key);

/// The content of a token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// Its user.
    pub user: UserId,
    /// The key of the device's row.
    pub device: i64,
    /// The random bytes of that row.
    pub serial: [u8; SERIAL_BYTES],
    /// The time at which it expires, in ms since 1970.
    pub expires: i64,
    /// The login from which it descends.
    pub origin: TokenOrigin,
}

/// The login from which a token descends. A login with a token brings a token of the same origin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokenOrigin {
    /// A password, or an administrator's order.
    Password,
    /// A JSON web token: no token that descends from it expires later than it.
    Jwt,
}

/// The bytes of a device's serial.
pub const SERIAL_BYTES: usize = 16;

/// The length of every token, in characters.
pub const TOKEN_CHARS: usize = TOKEN_BYTES * 4 / 3;

impl TokenKey {
    /// The key with these random bytes.
    pub fn new(bytes: &[u8; 32]) -> TokenKey {
        TokenKey(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// The token as a text.
    pub fn sign(&self, token: &Token) -> String {
        let mut bytes = token.bytes().to_vec();
        bytes.extend(hmac::sign(&self.0, &bytes).as_ref());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The token in `text`, if this key has signed it and it has not expired at `now` (ms since
    /// 1970). The duration does not depend on where a wrong signature differs. The caller must then
    /// read the device's row.
    pub fn verify(&self, text: &str, now: i64) -> Option<Token> {
        if text.len() != TOKEN_CHARS {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (signed, signature) = bytes.split_at_checked(SIGNED_BYTES)?;
        hmac::verify(&self.0, signed, signature).ok()?;
        Token::read(signed).filter(|token| now < token.expires)
    }
}

impl Token {
    /// Whether the row of the device still matches: it belongs to this user and has this serial.
    pub fn is_of(&self, user: UserId, serial: &[u8; SERIAL_BYTES]) -> bool {
        let difference = self.serial.iter().zip(serial).fold(0, |all, (own, other)| all | (own ^ other));
        self.user == user && std::hint::black_box(difference) == 0
    }

    fn bytes(&self) -> [u8; SIGNED_BYTES] {
        let mut bytes = [0; SIGNED_BYTES];
        bytes[0] = match self.origin {
            TokenOrigin::Password => OF_PASSWORD,
            TokenOrigin::Jwt => OF_JWT,
        };
        bytes[1..5].copy_from_slice(&self.user.0.to_be_bytes());
        bytes[5..13].copy_from_slice(&self.device.to_be_bytes());
        bytes[13..29].copy_from_slice(&self.serial);
        bytes[29..].copy_from_slice(&self.expires.to_be_bytes());
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Token> {
        let origin = match *bytes.first()? {
            OF_PASSWORD => TokenOrigin::Password,
            OF_JWT => TokenOrigin::Jwt,
            _ => return None,
        };
        Some(Token {
            origin,
            user: UserId(i32::from_be_bytes(bytes.get(1..5)?.try_into().ok()?)),
            device: i64::from_be_bytes(bytes.get(5..13)?.try_into().ok()?),
            serial: bytes.get(13..29)?.try_into().ok()?,
            expires: i64::from_be_bytes(bytes.get(29..37)?.try_into().ok()?),
        })
    }
}

/// Leaves out the serial.
impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Token { user, device, expires, origin, .. } = self;
        f.debug_struct("Token")
            .field("user", user)
            .field("device", device)
            .field("expires", expires)
            .field("origin", origin)
            .finish()
    }
}

const OF_PASSWORD: u8 = 1;
const OF_JWT: u8 = 2;
const SIGNED_BYTES: usize = 1 + 4 + 8 + SERIAL_BYTES + 8;
const TOKEN_BYTES: usize = SIGNED_BYTES + 32;
// The last character has no unused bits, so there is only one spelling.
const _: () = assert!(TOKEN_BYTES.is_multiple_of(3));

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TOKEN: Token = Token {
        user: UserId(7),
        device: 41,
        serial: *b"sixteen bytes ok",
        expires: 1_790_600_000_000,
        origin: TokenOrigin::Password,
    };

    fn key() -> TokenKey {
        TokenKey::new(&[7; 32])
    }

    #[test]
    fn a_token_says_what_was_signed_until_it_expires() {
        let text = key().sign(&TOKEN);
        assert_eq!(text.len(), TOKEN_CHARS);
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')));
        assert_eq!(key().verify(&text, TOKEN.expires - 1), Some(TOKEN));
        assert_eq!(key().verify(&text, TOKEN.expires), None);
        assert_eq!(TokenKey::new(&[8; 32]).verify(&text, 0), None);
        // Computed by another implementation. An update of the server must not log out every
        // device.
        let expected = "AQAAAAcAAAAAAAAAKXNpeHRlZW4gYnl0ZXMgb2sAAAGg6BOyAHxvb2M1ZtwftcBZijkJiifcU0Ba1lmFp8GHgBlktM0m";
        assert_eq!(text, expected);
        assert!(!format!("{TOKEN:?}").contains("serial"));
    }

    #[test]
    fn a_token_of_an_unknown_origin_is_none() {
        let mut bytes = TOKEN.bytes().to_vec();
        bytes[0] = OF_JWT + 1;
        bytes.extend(hmac::sign(&key().0, &bytes).as_ref());
        assert_eq!(key().verify(&URL_SAFE_NO_PAD.encode(bytes), 0), None);
    }

    #[test]
    fn another_spelling_is_not_a_token() {
        let text = key().sign(&TOKEN);
        let others = [
            format!("{text}="),
            format!("{text} "),
            format!(" {text}"),
            format!("{text}\n"),
            text[..text.len() - 1].to_owned(),
            text[..text.len() - 4].to_owned(),
            format!("{text}AAAA"),
            format!("{}\n{}", &text[..45], &text[46..]),
            String::new(),
            "你".repeat(TOKEN_CHARS / 3),
        ];
        for other in others {
            assert_eq!(key().verify(&other, 0), None, "{other:?}");
        }
        let standard = base64::engine::general_purpose::STANDARD;
        let (mut token, mut differed) = (TOKEN, 0);
        for device in 0..20 {
            token.device = device;
            let text = key().sign(&token);
            let other = standard.encode(URL_SAFE_NO_PAD.decode(&text).expect("it was encoded so"));
            if other != text {
                differed += 1;
                assert_eq!(key().verify(&other, 0), None);
            }
        }
        assert!(differed > 0);
    }

    #[test]
    fn the_row_of_the_device_decides() {
        assert!(TOKEN.is_of(UserId(7), b"sixteen bytes ok"));
        assert!(!TOKEN.is_of(UserId(8), b"sixteen bytes ok"));
        assert!(!TOKEN.is_of(UserId(7), b"sixteen bytes oK"));
        assert!(!TOKEN.is_of(UserId(7), b"Sixteen bytes ok"));
    }

    proptest! {
        #[test]
        fn no_changed_character_passes(at in 0..TOKEN_CHARS, to in "[A-Za-z0-9_-]") {
            let mut text = key().sign(&TOKEN);
            prop_assume!(text[at..=at] != to);
            text.replace_range(at..=at, &to);
            prop_assert_eq!(key().verify(&text, 0), None);
        }

        #[test]
        fn anything_that_is_signed_is_read_again(user: i32, device: i64, serial: [u8; 16], expires in 1..i64::MAX, of_jwt: bool) {
            let origin = if of_jwt { TokenOrigin::Jwt } else { TokenOrigin::Password };
            let token = Token { user: UserId(user), device, serial, expires, origin };
            prop_assert_eq!(key().verify(&key().sign(&token), 0), Some(token));
        }

        #[test]
        fn any_text_is_looked_at_without_a_panic(text in ".{0,200}") {
            prop_assert_eq!(key().verify(&text, 0), None);
        }
    }
}
