//! [`JwtIssuer`]: an identity provider that signs JSON web tokens.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use ring::{hmac, rand};
use serde_json::{Value, json};

/// A key that signs tokens.
pub struct JwtIssuer {
    kind: Kind,
    id: Option<String>,
}

enum Kind {
    Hs256(Vec<u8>),
    Rs256(RsaKeyPair),
    Es256(EcdsaKeyPair),
    EdDsa(Ed25519KeyPair),
}

impl JwtIssuer {
    /// Signs with this secret.
    pub fn hs256(secret: &[u8]) -> JwtIssuer {
        JwtIssuer { kind: Kind::Hs256(secret.to_vec()), id: None }
    }

    /// Signs with a fixed key, because new RSA keys take long.
    pub fn rs256() -> JwtIssuer {
        let key = RsaKeyPair::from_pkcs8(include_bytes!("jwt_rsa.der")).expect("a key");
        JwtIssuer { kind: Kind::Rs256(key), id: None }
    }

    /// Signs with a new key.
    pub fn es256() -> JwtIssuer {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("random bytes");
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random);
        JwtIssuer { kind: Kind::Es256(key.expect("a key")), id: None }
    }

    /// Signs with a new key.
    pub fn eddsa() -> JwtIssuer {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("random bytes");
        JwtIssuer { kind: Kind::EdDsa(Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).expect("a key")), id: None }
    }

    /// The same key with this name (`kid`).
    #[must_use]
    pub fn named(mut self, id: &str) -> JwtIssuer {
        self.id = Some(id.to_owned());
        self
    }

    /// Its algorithm, as `alg` names it.
    pub fn algorithm(&self) -> &'static str {
        match self.kind {
            Kind::Hs256(_) => "HS256",
            Kind::Rs256(_) => "RS256",
            Kind::Es256(_) => "ES256",
            Kind::EdDsa(_) => "EdDSA",
        }
    }

    /// A token with these claims.
    pub fn sign(&self, claims: &Value) -> String {
        let mut header = json!({"alg": self.algorithm(), "typ": "JWT"});
        if let Some(id) = &self.id {
            header["kid"] = json!(id);
        }
        self.sign_with(&header, claims)
    }

    /// A token with this header, which need not be true.
    pub fn sign_with(&self, header: &Value, claims: &Value) -> String {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", encode(header), encode(claims));
        let signature = self.signature(message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn signature(&self, message: &[u8]) -> Vec<u8> {
        let random = rand::SystemRandom::new();
        match &self.kind {
            Kind::Hs256(secret) => hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message).as_ref().to_vec(),
            Kind::Rs256(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).expect("it fits");
                signature
            }
            Kind::Es256(key) => key.sign(&random, message).expect("random bytes").as_ref().to_vec(),
            Kind::EdDsa(key) => key.sign(message).as_ref().to_vec(),
        }
    }

    /// The key that verifies, as a JWK.
    pub fn jwk(&self) -> Value {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = match &self.kind {
            Kind::Hs256(secret) => json!({"kty": "oct", "k": encode(secret)}),
            Kind::Rs256(key) => {
                let parts = ring::rsa::PublicKeyComponents::<Vec<u8>>::from(key.public());
                json!({"kty": "RSA", "n": encode(&parts.n), "e": encode(&parts.e)})
            }
            Kind::Es256(key) => {
                let (x, y) = key.public_key().as_ref()[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y)})
            }
            Kind::EdDsa(key) => json!({"kty": "OKP", "crv": "Ed25519", "x": encode(key.public_key().as_ref())}),
        };
        jwk["alg"] = json!(self.algorithm());
        jwk["use"] = json!("sig");
        if let Some(id) = &self.id {
            jwk["kid"] = json!(id);
        }
        jwk
    }

    /// The public key in PEM format.
    pub fn pem(&self) -> String {
        let (algorithm, key): (&[u8], &[u8]) = match &self.kind {
            Kind::Hs256(_) => panic!("a secret is not public"),
            Kind::Rs256(key) => (RSA, key.public().as_ref()),
            Kind::Es256(key) => (P256, key.public_key().as_ref()),
            Kind::EdDsa(key) => (ED25519, key.public_key().as_ref()),
        };
        let bits = element(3, &[&[0], key].concat());
        let info = element(0x30, &[element(0x30, algorithm), bits].concat());
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(info))
    }
}

/// The set of the keys of these issuers.
pub fn jwks(issuers: &[&JwtIssuer]) -> String {
    json!({"keys": issuers.iter().map(|issuer| issuer.jwk()).collect::<Vec<_>>()}).to_string()
}

/// The time in this number of seconds, in seconds since 1970.
pub fn in_seconds(seconds: i64) -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_secs()).expect("a time") + seconds
}

/// An element of DER.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut bytes = vec![tag];
    match length {
        0..128 => bytes.push(length as u8),
        _ => bytes.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    bytes.extend(content);
    bytes
}

/// The algorithms of public keys in DER.
const RSA: &[u8] = &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0];
const P256: &[u8] = &[6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const ED25519: &[u8] = &[6, 3, 0x2b, 0x65, 0x70];
