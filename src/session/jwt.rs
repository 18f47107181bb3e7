//! JSON web tokens (RFC 7519), with which users of level 2 may log in: their check, and the user
//! that one names.
//!
//! [`JwtVerifier`] accepts the one algorithm that the operator has set, and looks for the key among
//! those of the operator's file. So a token chooses neither its algorithm nor a key from elsewhere:
//! `jwk`, `jku` and `x5u` of its header are ignored.

pub mod keys;
mod provider;

use std::fmt;
use std::sync::Arc;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Validation, dangerous, decode, decode_header};
use parking_lot::RwLock;
use serde_json::{Map, Value};

use self::keys::JwtKeys;
use crate::config::JwtSettings;
use crate::protocol::Id;

/// Checks tokens with the current keys. Any thread may use it; a check takes up to a millisecond of
/// processor time for each key.
#[derive(Debug)]
pub struct JwtVerifier {
    claim: String,
    validation: Validation,
    /// Whether a token makes the account of a user who has none.
    registers: bool,
    /// A leaf lock, held to copy the pointer.
    keys: RwLock<Arc<JwtKeys>>,
}

/// A token that is right.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifiedJwt {
    /// The user.
    pub user: JwtUser,
    /// The time at which it expires, in ms since 1970.
    pub expires: i64,
}

/// The user whom a token names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum JwtUser {
    /// The user with this id.
    Id(Id),
    /// The user with exactly this name.
    Name(String),
}

/// The reason why a token is refused. The operator reads it in the log; the client does not learn
/// it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum JwtRefusal {
    /// It is longer than [`JWT_BYTES_MAX`].
    TooLong,
    /// It is not a signed JSON web token, or of an unknown algorithm.
    Malformed,
    /// It has another algorithm than the operator has set.
    OtherAlgorithm,
    /// It names a key that is not in the file.
    UnknownKey,
    /// No key has signed it.
    WrongSignature,
    /// It has expired.
    Expired,
    /// It is not valid yet.
    NotYet,
    /// It is from another issuer, or from none.
    OtherIssuer,
    /// It is for another audience, or for none.
    OtherAudience,
    /// It lacks this claim, or the claim has another form.
    Claim(String),
    /// It does not open the account that the client names, or that its user has.
    OtherAccount,
}

impl JwtVerifier {
    /// Accepts tokens according to these settings, which one of these keys has signed.
    pub fn new(settings: &JwtSettings, keys: JwtKeys) -> JwtVerifier {
        provider::install();
        let mut validation = Validation::new(keys::algorithm(settings.algorithm));
        validation.leeway = LEEWAY_SECONDS;
        validation.validate_nbf = true;
        validation.validate_aud = settings.audience.is_some();
        if let Some(audience) = &settings.audience {
            validation.set_audience(&[audience]);
            validation.required_spec_claims.insert("aud".to_owned());
        }
        if let Some(issuer) = &settings.issuer {
            validation.set_issuer(&[issuer]);
            validation.required_spec_claims.insert("iss".to_owned());
        }
        JwtVerifier {
            claim: settings.claim.clone().unwrap_or_else(|| "sub".to_owned()),
            validation,
            registers: settings.registers,
            keys: RwLock::new(Arc::new(keys)),
        }
    }

    /// Uses other keys from now on.
    pub fn renew(&self, keys: JwtKeys) {
        *self.keys.write() = Arc::new(keys);
    }

    /// The number of keys.
    pub fn count(&self) -> usize {
        self.keys.read().count()
    }

    /// Whether a token makes the account of a user who has none, and opens no other accounts.
    pub fn registers(&self) -> bool {
        self.registers
    }

    /// The user and the expiry of a token that is right.
    ///
    /// # Errors
    /// The reason why it is refused.
    pub fn verify(&self, token: &str) -> Result<VerifiedJwt, JwtRefusal> {
        if token.len() > JWT_BYTES_MAX {
            return Err(JwtRefusal::TooLong);
        }
        let header = decode_header(token).map_err(|_| JwtRefusal::Malformed)?;
        if !self.validation.algorithms.contains(&header.alg) {
            return Err(JwtRefusal::OtherAlgorithm);
        }
        let keys = self.keys.read().clone();
        let mut refusal = JwtRefusal::UnknownKey;
        for key in keys.candidates(header.kid.as_deref()) {
            match decode::<Map<String, Value>>(token, key, &self.validation) {
                Ok(decoded) => return self.read(&decoded.claims),
                Err(error) => refusal = self.refusal_of(error.kind()),
            }
            if refusal != JwtRefusal::WrongSignature {
                break;
            }
        }
        Err(refusal)
    }

    fn read(&self, claims: &Map<String, Value>) -> Result<VerifiedJwt, JwtRefusal> {
        let user = self.user_in(claims).ok_or_else(|| JwtRefusal::Claim(self.claim.clone()))?;
        let exp = claims.get("exp").and_then(|exp| exp.as_i64().or_else(|| exp.as_f64().map(|exp| exp as i64)));
        let exp = exp.ok_or_else(|| JwtRefusal::Claim("exp".to_owned()))?;
        Ok(VerifiedJwt { user, expires: exp.saturating_mul(1000) })
    }

    fn user_in(&self, claims: &Map<String, Value>) -> Option<JwtUser> {
        match claims.get(&self.claim)? {
            Value::String(name) => Some(JwtUser::Name(name.clone())),
            Value::Number(id) => id.as_i64().map(|id| JwtUser::Id(Id(id))),
            _ => None,
        }
    }

    /// The user whom a token claims to be for. Nothing is checked: use it only to count failures.
    pub fn claimed(&self, token: &str) -> Option<JwtUser> {
        if token.len() > JWT_BYTES_MAX {
            return None;
        }
        self.user_in(&dangerous::insecure_decode_claims(token).ok()?)
    }

    fn refusal_of(&self, error: &ErrorKind) -> JwtRefusal {
        match error {
            ErrorKind::InvalidSignature => JwtRefusal::WrongSignature,
            ErrorKind::ExpiredSignature => JwtRefusal::Expired,
            ErrorKind::ImmatureSignature => JwtRefusal::NotYet,
            ErrorKind::InvalidAlgorithm => JwtRefusal::OtherAlgorithm,
            ErrorKind::InvalidIssuer => JwtRefusal::OtherIssuer,
            ErrorKind::InvalidAudience => JwtRefusal::OtherAudience,
            ErrorKind::MissingRequiredClaim(claim) | ErrorKind::InvalidClaimFormat(claim) => match &**claim {
                "iss" => JwtRefusal::OtherIssuer,
                "aud" => JwtRefusal::OtherAudience,
                claim => JwtRefusal::Claim(claim.to_owned()),
            },
            _ => JwtRefusal::Malformed,
        }
    }
}

impl fmt::Display for JwtRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JwtRefusal::TooLong => write!(f, "it has more than {JWT_BYTES_MAX} characters"),
            JwtRefusal::Malformed => f.write_str("it is not a signed JWT, or its algorithm is unknown"),
            JwtRefusal::OtherAlgorithm => f.write_str("its algorithm (alg) is not jwt_algorithm"),
            JwtRefusal::UnknownKey => f.write_str("the file of jwt_key has no key with its kid"),
            JwtRefusal::WrongSignature => f.write_str("no key of jwt_key has signed it"),
            JwtRefusal::Expired => f.write_str("it has expired"),
            JwtRefusal::NotYet => f.write_str("it is not valid yet (nbf)"),
            JwtRefusal::OtherIssuer => f.write_str("its issuer (iss) is not jwt_issuer"),
            JwtRefusal::OtherAudience => f.write_str("its audience (aud) does not contain jwt_audience"),
            JwtRefusal::Claim(claim) => write!(f, "its claim {} is missing or malformed", claim.escape_debug()),
            JwtRefusal::OtherAccount => {
                f.write_str("its user has no account, or one that it does not open, or the client names another user")
            }
        }
    }
}

/// The longest token. Those of common identity providers have 1 to 4 KiB.
pub const JWT_BYTES_MAX: usize = 16 * 1024;
/// How much the clocks of the issuer and of this server may differ.
const LEEWAY_SECONDS: u64 = 60;

#[cfg(test)]
mod tests;
