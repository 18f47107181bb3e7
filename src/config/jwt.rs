//! [`JwtSettings`]: the settings of logins with JSON web tokens.

use std::fmt;
use std::path::PathBuf;

/// The settings of logins with JSON web tokens.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct JwtSettings {
    /// The file with the keys that verify tokens; without it, no token is accepted.
    pub key_file: Option<PathBuf>,
    /// The only accepted algorithm.
    pub algorithm: JwtAlgorithm,
    /// The claim that names the user; without it, `sub`.
    pub claim: Option<String>,
    /// The issuer that every token must name.
    pub issuer: Option<String>,
    /// The audience to which every token must be addressed.
    pub audience: Option<String>,
    /// Whether a token makes the account of a user who has none.
    pub registers: bool,
}

/// One line for each setting, also if the caller asks for many.
impl fmt::Debug for JwtSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let JwtSettings { key_file, algorithm, claim, issuer, audience, registers } = self;
        f.debug_struct("JwtSettings")
            .field("key_file", &format_args!("{key_file:?}"))
            .field("algorithm", algorithm)
            .field("claim", &format_args!("{claim:?}"))
            .field("issuer", &format_args!("{issuer:?}"))
            .field("audience", &format_args!("{audience:?}"))
            .field("registers", registers)
            .finish()
    }
}

/// An algorithm that signs JSON web tokens (RFC 7518, 3.1; RFC 8037, 3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum JwtAlgorithm {
    /// RSA (PKCS #1 v1.5) with SHA-256.
    #[default]
    Rs256,
    /// ECDSA on the curve P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
    /// HMAC with SHA-256: the signer and this server have the same secret.
    Hs256,
}
