//! [`JwtKeys`]: the keys that verify JSON web tokens, from the content of a file.
//!
//! ```text
//!   JWKS     {"keys":[{"kty":"RSA","kid":"a1","n":…,"e":…}, …]}          RFC 7517; any algorithm
//!   PEM      -----BEGIN PUBLIC KEY----- …, one or more                   RS256, ES256, EdDSA
//!   secret   anything else, without the blanks around it                 HS256
//! ```
//! A JWKS may contain keys for other purposes, which are skipped. A PEM file names no keys, so each
//! of its keys may have signed any token.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use rustls::pki_types::pem::{PemObject, SectionKind};

use crate::base::der::{INTEGER, SEQUENCE, element};
use crate::config::JwtAlgorithm;

/// The keys for one algorithm; at least one.
#[derive(Debug)]
pub struct JwtKeys(Vec<JwtKey>);

#[derive(Debug)]
struct JwtKey {
    /// The name of the key (`kid`), if it has one.
    id: Option<String>,
    key: DecodingKey,
}

/// The reason why a file has no usable keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum JwtKeyError {
    /// It is empty, or its only keys are of these other kinds.
    NoKey(JwtAlgorithm, Vec<&'static str>),
    /// It is not a JWKS, but looks like JSON.
    NotJwks(String),
    /// A PEM block cannot be read.
    BadPem,
    /// It has a private key.
    PrivateKey,
    /// It has public keys, but HS256 needs a secret.
    PublicKeyAsSecret,
    /// It is not text.
    NotText,
    /// The secret has this number of bytes, which is too few.
    ShortSecret(usize),
    /// The RSA key has this number of bits, which is too few or too many.
    RsaBits(usize),
    /// The key with this name, if it has one, cannot be used.
    BadKey(Option<String>),
    /// There are this number of keys, which is too many.
    TooMany(usize),
}

impl JwtKeys {
    /// The keys for this algorithm in the content of a file.
    ///
    /// # Errors
    /// [`JwtKeyError`].
    pub fn parse(content: &[u8], algorithm: JwtAlgorithm) -> Result<JwtKeys, JwtKeyError> {
        let text = std::str::from_utf8(content).map_err(|_| JwtKeyError::NotText)?.trim();
        let keys = if text.starts_with('{') {
            of_jwks(text, algorithm)?
        } else if text.contains("-----BEGIN ") {
            of_pem(text, algorithm)?
        } else if algorithm == JwtAlgorithm::Hs256 && !text.is_empty() {
            vec![JwtKey { id: None, key: secret(text.as_bytes())? }]
        } else {
            Vec::new()
        };
        match keys.len() {
            0 => Err(JwtKeyError::NoKey(algorithm, Vec::new())),
            1..=KEYS_MAX => Ok(JwtKeys(keys)),
            count => Err(JwtKeyError::TooMany(count)),
        }
    }

    /// The number of keys.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The keys that may have signed a token that names its key so: those of this name and those
    /// without a name, or all of them if the token names none.
    pub(super) fn candidates(&self, id: Option<&str>) -> impl Iterator<Item = &DecodingKey> {
        let may_be = move |key: &&JwtKey| match (&key.id, id) {
            (Some(own), Some(id)) => own == id,
            (None, _) | (_, None) => true,
        };
        self.0.iter().filter(may_be).map(|key| &key.key)
    }
}

/// The algorithm as `jsonwebtoken` names it.
pub(super) fn algorithm(algorithm: JwtAlgorithm) -> Algorithm {
    match algorithm {
        JwtAlgorithm::Rs256 => Algorithm::RS256,
        JwtAlgorithm::Es256 => Algorithm::ES256,
        JwtAlgorithm::EdDsa => Algorithm::EdDSA,
        JwtAlgorithm::Hs256 => Algorithm::HS256,
    }
}

fn of_jwks(text: &str, wanted: JwtAlgorithm) -> Result<Vec<JwtKey>, JwtKeyError> {
    let set: JwkSet = serde_json::from_str(text).map_err(|error| JwtKeyError::NotJwks(error.to_string()))?;
    let (mut keys, mut others) = (Vec::new(), Vec::new());
    for jwk in &set.keys {
        let id = jwk.common.key_id.clone();
        match of_jwk(jwk, wanted) {
            Ok(Some(key)) => keys.push(JwtKey { id, key }),
            Ok(None) => others.push(kind(jwk)),
            Err(JwtKeyError::BadKey(_)) => return Err(JwtKeyError::BadKey(id)),
            Err(error) => return Err(error),
        }
    }
    if keys.is_empty() { Err(JwtKeyError::NoKey(wanted, others)) } else { Ok(keys) }
}

/// The key for this algorithm, or `None` if it is for another purpose.
fn of_jwk(jwk: &Jwk, wanted: JwtAlgorithm) -> Result<Option<DecodingKey>, JwtKeyError> {
    let common = &jwk.common;
    let verifies = common.key_operations.as_ref().is_none_or(|uses| uses.contains(&KeyOperations::Verify));
    let signs = common.public_key_use.as_ref().is_none_or(|purpose| *purpose == PublicKeyUse::Signature);
    let is_named = common.key_algorithm.is_none_or(|named| named == KeyAlgorithm::from(algorithm(wanted)));
    if !(verifies && signs && is_named) {
        return Ok(None);
    }
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| JwtKeyError::BadKey(None));
    match (wanted, &jwk.algorithm) {
        (JwtAlgorithm::Rs256, AlgorithmParameters::RSA(key)) => rsa(&decode(&key.n)?, &decode(&key.e)?).map(Some),
        (JwtAlgorithm::Es256, AlgorithmParameters::EllipticCurve(key)) if key.curve == EllipticCurve::P256 => {
            let point = [&[UNCOMPRESSED][..], &decode(&key.x)?, &decode(&key.y)?].concat();
            ec(&point).map(Some)
        }
        (JwtAlgorithm::EdDsa, AlgorithmParameters::OctetKeyPair(key)) if key.curve == EllipticCurve::Ed25519 => {
            ed(&decode(&key.x)?).map(Some)
        }
        (JwtAlgorithm::Hs256, AlgorithmParameters::OctetKey(key)) => secret(&decode(&key.value)?).map(Some),
        _ => Ok(None),
    }
}

fn of_pem(text: &str, wanted: JwtAlgorithm) -> Result<Vec<JwtKey>, JwtKeyError> {
    let (mut keys, mut others) = (Vec::new(), Vec::new());
    for block in <(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes()) {
        match block.map_err(|_| JwtKeyError::BadPem)? {
            (SectionKind::PublicKey, _) if wanted == JwtAlgorithm::Hs256 => return Err(JwtKeyError::PublicKeyAsSecret),
            (SectionKind::PublicKey, der) => match of_spki(&der, wanted)? {
                Ok(key) => keys.push(JwtKey { id: None, key }),
                Err(other) => others.push(other),
            },
            (SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey, _) => {
                return Err(JwtKeyError::PrivateKey);
            }
            (SectionKind::Certificate, _) => others.push("a certificate"),
            _ => others.push("another block"),
        }
    }
    // Nothing is skipped: the operator has put each key there for this purpose.
    if others.is_empty() && !keys.is_empty() { Ok(keys) } else { Err(JwtKeyError::NoKey(wanted, others)) }
}

/// The key in a SubjectPublicKeyInfo (RFC 5280, 4.1), or the kind of another key.
fn of_spki(der: &[u8], wanted: JwtAlgorithm) -> Result<Result<DecodingKey, &'static str>, JwtKeyError> {
    let bad = JwtKeyError::BadKey(None);
    let parts = || {
        let (info, _) = element(SEQUENCE, der)?;
        let (algorithm, rest) = element(SEQUENCE, info)?;
        let (bits, _) = element(BIT_STRING, rest)?;
        // The first byte is the number of unused bits.
        Some((algorithm, bits.strip_prefix(&[0])?))
    };
    let (algorithm, key) = parts().ok_or(bad.clone())?;
    let is = |oids: &[&[u8]]| {
        let mut rest = algorithm;
        oids.iter().all(|oid| match element(OID, rest) {
            Some((found, behind)) => {
                rest = behind;
                found == *oid
            }
            None => false,
        })
    };
    match wanted {
        JwtAlgorithm::Rs256 if is(&[RSA_ENCRYPTION]) => {
            let numbers = || {
                let (numbers, _) = element(SEQUENCE, key)?;
                let (n, rest) = element(INTEGER, numbers)?;
                Some((n, element(INTEGER, rest)?.0))
            };
            let (n, e) = numbers().ok_or(bad)?;
            rsa(n, e).map(Ok)
        }
        JwtAlgorithm::Es256 if is(&[EC_PUBLIC_KEY, P256]) => ec(key).map(Ok),
        JwtAlgorithm::EdDsa if is(&[ED25519]) => ed(key).map(Ok),
        _ if is(&[RSA_ENCRYPTION]) => Ok(Err("an RSA key")),
        _ if is(&[EC_PUBLIC_KEY, P256]) => Ok(Err("an EC key on P-256")),
        _ if is(&[EC_PUBLIC_KEY]) => Ok(Err("an EC key on another curve")),
        _ if is(&[ED25519]) => Ok(Err("an Ed25519 key")),
        _ => Ok(Err("a key of an unknown kind")),
    }
}

fn rsa(n: &[u8], e: &[u8]) -> Result<DecodingKey, JwtKeyError> {
    let (n, e) = (without_zeros(n), without_zeros(e));
    let bits = n.len() * 8 - n.first().map_or(0, |first| first.leading_zeros() as usize);
    if !RSA_BITS.contains(&bits) {
        return Err(JwtKeyError::RsaBits(bits));
    }
    let is_odd = |number: &[u8]| number.last().is_some_and(|last| last % 2 == 1);
    if !is_odd(n) || !is_odd(e) || e == [1] || e.len() > RSA_EXPONENT_BYTES {
        return Err(JwtKeyError::BadKey(None));
    }
    Ok(DecodingKey::from_rsa_raw_components(n, e))
}

fn ec(point: &[u8]) -> Result<DecodingKey, JwtKeyError> {
    let is_good = point.len() == EC_POINT_BYTES && point.first() == Some(&UNCOMPRESSED);
    if is_good { Ok(DecodingKey::from_ec_der(point)) } else { Err(JwtKeyError::BadKey(None)) }
}

fn ed(key: &[u8]) -> Result<DecodingKey, JwtKeyError> {
    if key.len() == 32 { Ok(DecodingKey::from_ed_der(key)) } else { Err(JwtKeyError::BadKey(None)) }
}

fn secret(bytes: &[u8]) -> Result<DecodingKey, JwtKeyError> {
    if bytes.len() < SECRET_BYTES_MIN {
        return Err(JwtKeyError::ShortSecret(bytes.len()));
    }
    DecodingKey::from_secret(bytes).map_err(|_| JwtKeyError::BadKey(None))
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

/// The kind of a key that is not used, for the error.
fn kind(jwk: &Jwk) -> &'static str {
    match (&jwk.algorithm, &jwk.common.public_key_use) {
        (_, Some(PublicKeyUse::Encryption)) => "a key for encryption",
        (AlgorithmParameters::RSA(_), _) => "an RSA key",
        (AlgorithmParameters::EllipticCurve(_), _) => "an EC key",
        (AlgorithmParameters::OctetKey(_), _) => "a secret",
        (AlgorithmParameters::OctetKeyPair(_), _) => "an Ed25519 key",
        _ => "a key of an unknown kind",
    }
}

/// The name of an algorithm, as `alg` has it.
pub fn name(algorithm: JwtAlgorithm) -> &'static str {
    match algorithm {
        JwtAlgorithm::Rs256 => "RS256",
        JwtAlgorithm::Es256 => "ES256",
        JwtAlgorithm::EdDsa => "EdDSA",
        JwtAlgorithm::Hs256 => "HS256",
    }
}

impl fmt::Display for JwtKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JwtKeyError::NoKey(algorithm, others) => {
                let algorithm = name(*algorithm);
                write!(f, "there is no key for {algorithm} (jwt_algorithm)")?;
                match others.first() {
                    None => f.write_str(", neither PUBLIC KEY in PEM format nor a JWKS ({\"keys\":[…]})"),
                    Some(other) => write!(f, ", but {other}"),
                }
            }
            JwtKeyError::NotJwks(error) => write!(f, "this is not a JWKS ({{\"keys\":[…]}}): {error}"),
            JwtKeyError::BadPem => f.write_str("a block of PEM cannot be read"),
            JwtKeyError::PrivateKey => {
                f.write_str("there is a private key; give this server only the public one (openssl pkey -pubout)")
            }
            JwtKeyError::PublicKeyAsSecret => {
                f.write_str("there is a public key, but HS256 needs a secret; set jwt_algorithm to that of the key")
            }
            JwtKeyError::NotText => f.write_str("this is not text; convert the key to PEM or JWKS"),
            JwtKeyError::ShortSecret(bytes) => {
                write!(f, "the secret has {bytes} bytes; HS256 needs {SECRET_BYTES_MIN} (openssl rand -hex 32)")
            }
            JwtKeyError::RsaBits(bits) => {
                write!(f, "the RSA key has {bits} bits; use {} to {}", RSA_BITS.start(), RSA_BITS.end())
            }
            JwtKeyError::BadKey(Some(id)) => write!(f, "the key {:?} is malformed", id),
            JwtKeyError::BadKey(None) => f.write_str("a key is malformed"),
            JwtKeyError::TooMany(count) => write!(f, "there are {count} keys; at most {KEYS_MAX} are used"),
        }
    }
}

impl std::error::Error for JwtKeyError {}

/// The most keys, each of which may have to be tried for one token.
const KEYS_MAX: usize = 16;
/// The least length of a secret: the output of SHA-256 (RFC 7518, 3.2).
const SECRET_BYTES_MIN: usize = 32;
/// The sizes of RSA keys that `ring` uses.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// `ring` accepts exponents of up to 33 bits.
const RSA_EXPONENT_BYTES: usize = 4;
const EC_POINT_BYTES: usize = 65;
/// The first byte of a point whose coordinates are both given (SEC 1, 2.3.3).
const UNCOMPRESSED: u8 = 4;
const BIT_STRING: u8 = 0x03;
const OID: u8 = 0x06;
/// 1.2.840.113549.1.1.1
const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// 1.2.840.10045.2.1
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// 1.2.840.10045.3.1.7
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// 1.3.101.112
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
