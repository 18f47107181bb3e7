use serde_json::{Value, json};
use testkit::jwt::{JwtIssuer, in_seconds, jwks};

use super::keys::JwtKeyError;
use super::*;
use crate::config::JwtAlgorithm;

const SECRET: &[u8] = b"a secret of at least 32 bytes, for HS256";

fn issuers() -> [(JwtAlgorithm, JwtIssuer); 4] {
    [
        (JwtAlgorithm::Hs256, JwtIssuer::hs256(SECRET)),
        (JwtAlgorithm::Rs256, JwtIssuer::rs256()),
        (JwtAlgorithm::Es256, JwtIssuer::es256()),
        (JwtAlgorithm::EdDsa, JwtIssuer::eddsa()),
    ]
}

fn settings(algorithm: JwtAlgorithm) -> JwtSettings {
    JwtSettings { algorithm, ..JwtSettings::default() }
}

fn verifier(settings: &JwtSettings, file: &str) -> JwtVerifier {
    JwtVerifier::new(settings, JwtKeys::parse(file.as_bytes(), settings.algorithm).expect("usable keys"))
}

fn ann() -> Value {
    json!({"sub": "ann", "exp": in_seconds(3600)})
}

fn with(member: &str, value: Value) -> Value {
    let mut claims = ann();
    claims[member] = value;
    claims
}

#[test]
fn each_algorithm_is_accepted_from_each_kind_of_file() {
    for (algorithm, issuer) in issuers() {
        let text = match algorithm {
            JwtAlgorithm::Hs256 => String::from_utf8(SECRET.to_vec()).expect("text"),
            _ => issuer.pem(),
        };
        for file in [jwks(&[&issuer]), text] {
            let claims = ann();
            let verified = verifier(&settings(algorithm), &file).verify(&issuer.sign(&claims)).expect("it is right");
            let expires = claims["exp"].as_i64().expect("a number") * 1000;
            assert_eq!(verified, VerifiedJwt { user: JwtUser::Name("ann".to_owned()), expires });
        }
    }
}

#[test]
fn a_changed_token_is_refused_whichever_byte_changes() {
    for (algorithm, issuer) in issuers() {
        let verifier = verifier(&settings(algorithm), &jwks(&[&issuer]));
        let token = issuer.sign(&ann());
        for at in 0..token.len() {
            let other = if token.as_bytes()[at] == b'A' { "B" } else { "A" };
            let changed = format!("{}{other}{}", &token[..at], &token[at + 1..]);
            assert!(verifier.verify(&changed).is_err(), "{algorithm:?}, byte {at}");
        }
    }
}

#[test]
fn only_the_algorithm_of_the_settings_is_accepted() {
    for (algorithm, issuer) in issuers() {
        let verifier = verifier(&settings(algorithm), &jwks(&[&issuer]));
        for (_, other) in issuers().iter().filter(|(other, _)| *other != algorithm) {
            assert_eq!(verifier.verify(&other.sign(&ann())), Err(JwtRefusal::OtherAlgorithm), "{algorithm:?}");
            // The header lies.
            let header = json!({"alg": issuer.algorithm()});
            let lie = other.sign_with(&header, &ann());
            assert_eq!(verifier.verify(&lie), Err(JwtRefusal::WrongSignature), "{algorithm:?}");
        }
        for alg in ["none", "None", "", "HS384", "RS512", "PS256", "ES384"] {
            for token in [
                issuer.sign_with(&json!({"alg": alg}), &ann()),
                JwtIssuer::hs256(b"").sign_with(&json!({"alg": alg}), &ann()),
            ] {
                let unsigned = format!("{}.", token.rsplit_once('.').expect("a signature").0);
                assert!(verifier.verify(&token).is_err() && verifier.verify(&unsigned).is_err(), "{algorithm:?} {alg}");
            }
        }
    }
}

#[test]
fn the_public_key_is_not_a_secret() {
    let issuer = JwtIssuer::rs256();
    for file in [issuer.pem(), jwks(&[&issuer])] {
        let rs256 = verifier(&settings(JwtAlgorithm::Rs256), &file);
        let forger = JwtIssuer::hs256(file.trim().as_bytes());
        assert_eq!(rs256.verify(&forger.sign(&ann())), Err(JwtRefusal::OtherAlgorithm));
        let hs256 = JwtKeys::parse(file.as_bytes(), JwtAlgorithm::Hs256);
        assert!(hs256.is_err(), "an operator who sets HS256 with a public key is told");
    }
}

#[test]
fn keys_in_the_token_are_ignored() {
    let (issuer, forger) = (JwtIssuer::es256(), JwtIssuer::es256().named("f"));
    let verifier = verifier(&settings(JwtAlgorithm::Es256), &jwks(&[&issuer]));
    let header = json!({"alg": "ES256", "jwk": forger.jwk(), "jku": "https://example.org/jwks", "x5u": "x"});
    assert_eq!(verifier.verify(&forger.sign_with(&header, &ann())), Err(JwtRefusal::WrongSignature));
    for header in [json!({"alg": "ES256", "crit": ["exp"]}), json!({"alg": "ES256", "b64": false, "crit": ["b64"]})] {
        assert_eq!(verifier.verify(&issuer.sign_with(&header, &ann())), Err(JwtRefusal::Malformed), "{header}");
    }
}

#[test]
fn times_have_a_leeway_of_a_minute() {
    let claim = |name: &str| JwtRefusal::Claim(name.to_owned());
    let table = [
        ("exp", json!(in_seconds(-55)), None),
        ("exp", json!(in_seconds(-65)), Some(JwtRefusal::Expired)),
        ("exp", json!(0), Some(JwtRefusal::Expired)),
        ("exp", json!(-1), Some(claim("exp"))),
        ("exp", json!(in_seconds(3600).to_string()), Some(claim("exp"))),
        ("exp", json!(null), Some(claim("exp"))),
        ("exp", json!(true), Some(claim("exp"))),
        ("exp", json!(1e300), Some(claim("exp"))),
        ("exp", json!(in_seconds(3600) as f64 + 0.5), None),
        ("exp", json!(i64::MAX), None),
        ("nbf", json!(in_seconds(55)), None),
        ("nbf", json!(in_seconds(65)), Some(JwtRefusal::NotYet)),
        ("nbf", json!("soon"), Some(claim("nbf"))),
        ("nbf", json!(0), None),
        ("iat", json!("never"), None),
    ];
    let issuer = JwtIssuer::hs256(SECRET);
    let verifier = verifier(&settings(JwtAlgorithm::Hs256), &jwks(&[&issuer]));
    for (member, value, refusal) in table {
        let verified = verifier.verify(&issuer.sign(&with(member, value.clone())));
        assert_eq!(verified.err(), refusal, "{member}: {value}");
    }
    assert_eq!(verifier.verify(&issuer.sign(&json!({"sub": "ann"}))), Err(claim("exp")));
}

#[test]
fn issuer_and_audience_are_needed_if_they_are_set() {
    let key = JwtIssuer::hs256(SECRET);
    let issuer = Some("https://id.example.org".to_owned());
    let checks_issuer = JwtSettings { issuer, ..settings(JwtAlgorithm::Hs256) };
    let checks_audience = JwtSettings { audience: Some("chat".to_owned()), ..settings(JwtAlgorithm::Hs256) };
    let (no_issuer, no_audience) = (Some(JwtRefusal::OtherIssuer), Some(JwtRefusal::OtherAudience));
    let table = [
        (&checks_issuer, "iss", json!("https://id.example.org"), None),
        (&checks_issuer, "iss", json!("https://id.example.org/"), no_issuer.clone()),
        (&checks_issuer, "iss", json!(7), no_issuer.clone()),
        (&checks_issuer, "aud", json!("chat"), no_issuer),
        (&checks_audience, "aud", json!("chat"), None),
        (&checks_audience, "aud", json!(["account", "chat"]), None),
        (&checks_audience, "aud", json!(["account"]), no_audience.clone()),
        (&checks_audience, "aud", json!([]), no_audience.clone()),
        (&checks_audience, "aud", json!("chats"), no_audience.clone()),
        (&checks_audience, "aud", json!({"chat": 1}), no_audience.clone()),
        (&checks_audience, "iss", json!("chat"), no_audience),
    ];
    for (settings, member, value, refusal) in table {
        let verified = verifier(settings, &jwks(&[&key])).verify(&key.sign(&with(member, value.clone())));
        assert_eq!(verified.err(), refusal, "{member}: {value}");
    }
    let neither = verifier(&settings(JwtAlgorithm::Hs256), &jwks(&[&key]));
    assert!(neither.verify(&key.sign(&with("aud", json!("other")))).is_ok(), "without jwt_audience, any will do");
}

#[test]
fn an_integer_is_an_id_and_a_text_is_a_name() {
    let issuer = JwtIssuer::hs256(SECRET);
    let uid = JwtSettings { claim: Some("uid".to_owned()), ..settings(JwtAlgorithm::Hs256) };
    let verifier = verifier(&uid, &jwks(&[&issuer]));
    let name = |name: &str| Ok(JwtUser::Name(name.to_owned()));
    let missing = || Err(JwtRefusal::Claim("uid".to_owned()));
    let table = [
        (json!(7), Ok(JwtUser::Id(Id(7)))),
        (json!(-7), Ok(JwtUser::Id(Id(-7)))),
        (json!("7"), name("7")),
        (json!("ann"), name("ann")),
        (json!(""), name("")),
        (json!(7.0), missing()),
        (json!(1e3), missing()),
        (json!(u64::MAX), missing()),
        (json!(true), missing()),
        (json!(["ann"]), missing()),
        (json!(null), missing()),
    ];
    for (value, user) in table {
        let token = issuer.sign(&with("uid", value.clone()));
        assert_eq!(verifier.verify(&token).map(|verified| verified.user), user, "{value}");
        assert_eq!(verifier.claimed(&token), user.ok(), "{value}");
    }
    assert_eq!(verifier.verify(&issuer.sign(&ann())).map(|verified| verified.user), missing(), "sub is another claim");
}

#[test]
fn a_text_that_is_not_a_token_is_refused() {
    let issuer = JwtIssuer::hs256(SECRET);
    let verifier = verifier(&settings(JwtAlgorithm::Hs256), &jwks(&[&issuer]));
    let right = issuer.sign(&ann());
    let (header, rest) = right.split_once('.').expect("three parts");
    let garbage = [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "...".to_owned(),
        "x".to_owned(),
        "e30.e30.x".to_owned(),
        "你.好.吗".to_owned(),
        header.to_owned(),
        format!("{right}."),
        format!("{right}=="),
        format!(" {right}"),
        format!("{right}\n"),
        format!("{header}..{}", rest.split_once('.').expect("two parts").1),
        format!("{header}.{header}.{header}.{rest}"),
    ];
    for token in garbage {
        assert!(verifier.verify(&token).is_err(), "{token:?}");
        let _ = verifier.claimed(&token);
    }
    for claims in [json!([]), json!("ann"), json!(7), json!(null)] {
        assert_eq!(verifier.verify(&issuer.sign(&claims)), Err(JwtRefusal::Malformed), "{claims}");
    }
    let mut claims = ann();
    claims["x"] = json!("x".repeat(10_000));
    assert!(verifier.verify(&issuer.sign(&claims)).is_ok(), "a long one within the bound");
    let deep = (0..500).fold(json!(0), |inner, _| Value::Array(vec![inner]));
    for token in [issuer.sign(&with("x", deep.clone())), issuer.sign_with(&json!({"alg": "HS256", "x": deep}), &ann())]
    {
        assert_eq!(verifier.verify(&token), Err(JwtRefusal::Malformed), "nesting has a bound");
        let _ = verifier.claimed(&token);
    }
    claims["x"] = json!("x".repeat(JWT_BYTES_MAX));
    let huge = issuer.sign(&claims);
    assert_eq!((verifier.verify(&huge), verifier.claimed(&huge)), (Err(JwtRefusal::TooLong), None));
}

#[test]
fn the_key_is_chosen_by_its_name() {
    let [first, second, nameless] = ["a", "b", ""].map(|_| JwtIssuer::es256());
    let (first, second) = (first.named("a"), second.named("b"));
    let settings = settings(JwtAlgorithm::Es256);
    let verifier = verifier(&settings, &jwks(&[&first]));
    let accepts = |issuer: &JwtIssuer, header: Value| verifier.verify(&issuer.sign_with(&header, &ann()));
    let named = |kid: &str| json!({"alg": "ES256", "kid": kid});
    let refused = |why| Err::<VerifiedJwt, _>(why);
    assert!(accepts(&first, named("a")).is_ok());
    assert!(accepts(&first, json!({"alg": "ES256"})).is_ok(), "without a name, all are tried");
    assert_eq!(accepts(&first, named("b")), refused(JwtRefusal::UnknownKey));
    assert_eq!(accepts(&second, named("a")), refused(JwtRefusal::WrongSignature));
    let both = jwks(&[&first, &second]);
    verifier.renew(JwtKeys::parse(both.as_bytes(), settings.algorithm).expect("usable keys"));
    for header in [named("b"), json!({"alg": "ES256"})] {
        assert!(accepts(&second, header).is_ok(), "both keys during the rotation");
    }
    assert!(accepts(&first, named("a")).is_ok());
    assert_eq!(accepts(&first, named("b")), refused(JwtRefusal::WrongSignature));
    verifier.renew(JwtKeys::parse(jwks(&[&second]).as_bytes(), settings.algorithm).expect("usable keys"));
    assert_eq!(accepts(&first, named("a")), refused(JwtRefusal::UnknownKey), "the first key is gone");
    // Keys of a PEM file have no names.
    let pem = nameless.pem() + &second.pem();
    verifier.renew(JwtKeys::parse(pem.as_bytes(), settings.algorithm).expect("usable keys"));
    assert!(accepts(&nameless, named("any")).is_ok() && accepts(&second, named("other")).is_ok());
    assert_eq!(accepts(&first, named("a")), refused(JwtRefusal::WrongSignature));
}

#[test]
fn a_jwks_may_have_keys_for_other_purposes() {
    let (rsa, ec) = (JwtIssuer::rs256().named("r"), JwtIssuer::es256().named("e"));
    // Each differs in one member.
    let other = |member: &str, value: Value| {
        let mut jwk = rsa.jwk();
        jwk[member] = value;
        jwk
    };
    let encrypts = other("use", json!("enc"));
    let (other_alg, signs) = (other("alg", json!("RS512")), other("key_ops", json!(["sign"])));
    let odd = json!({"kty": "new", "kid": "n", "crv": "X448", "x": "AA"});
    let file = json!({"keys": [encrypts, other_alg, signs, odd, rsa.jwk(), ec.jwk()]}).to_string();
    for (algorithm, issuer) in [(JwtAlgorithm::Rs256, &rsa), (JwtAlgorithm::Es256, &ec)] {
        let keys = JwtKeys::parse(file.as_bytes(), algorithm).expect("one of them");
        assert_eq!(keys.count(), 1);
        assert!(JwtVerifier::new(&settings(algorithm), keys).verify(&issuer.sign(&ann())).is_ok());
    }
    assert!(JwtKeys::parse(file.as_bytes(), JwtAlgorithm::EdDsa).is_err());
    assert!(JwtKeys::parse(file.as_bytes(), JwtAlgorithm::Hs256).is_err());
}

#[test]
fn an_unusable_file_is_refused_with_the_reason() {
    let (rsa, ec) = (JwtIssuer::rs256(), JwtIssuer::es256());
    let short = json!({"keys": [{"kty": "oct", "k": "c2hvcnQ"}]}).to_string();
    let mut weak = rsa.jwk();
    weak["n"] = json!("_".repeat(172));
    let weak = json!({"keys": [weak]}).to_string();
    let mut unsigned = rsa.jwk();
    (unsigned["e"], unsigned["kid"]) = (json!("AQ"), json!("e1"));
    let unsigned = json!({"keys": [unsigned]}).to_string();
    let mut bad = ec.jwk();
    (bad["x"], bad["kid"]) = (json!("AA"), json!("k1"));
    let bad = json!({"keys": [bad]}).to_string();
    let private = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let many: Vec<JwtIssuer> = (0..17).map(|_| JwtIssuer::es256()).collect();
    let many = jwks(&many.iter().collect::<Vec<_>>());
    let (rs256, es256, hs256) = (JwtAlgorithm::Rs256, JwtAlgorithm::Es256, JwtAlgorithm::Hs256);
    let table = [
        (rs256, "", JwtKeyError::NoKey(rs256, vec![]), "PEM format"),
        (rs256, "hello", JwtKeyError::NoKey(rs256, vec![]), "RS256"),
        (rs256, "{}", JwtKeyError::NotJwks("missing field `keys` at line 1 column 2".into()), "not a JWKS"),
        (rs256, r#"{"keys":[]}"#, JwtKeyError::NoKey(rs256, vec![]), "JWKS"),
        (rs256, &ec.pem(), JwtKeyError::NoKey(rs256, vec!["an EC key on P-256"]), "but an EC key on P-256"),
        (rs256, &jwks(&[&ec]), JwtKeyError::NoKey(rs256, vec!["an EC key"]), "but an EC key"),
        (es256, &rsa.pem(), JwtKeyError::NoKey(es256, vec!["an RSA key"]), "but an RSA key"),
        (rs256, private, JwtKeyError::PrivateKey, "openssl pkey -pubout"),
        (rs256, &weak, JwtKeyError::RsaBits(1032), "2048"),
        (rs256, &unsigned, JwtKeyError::BadKey(Some("e1".into())), "e1"),
        (es256, &bad, JwtKeyError::BadKey(Some("k1".into())), "k1"),
        (es256, &many, JwtKeyError::TooMany(17), "16"),
        (hs256, "a short secret", JwtKeyError::ShortSecret(14), "14 bytes"),
        (hs256, &short, JwtKeyError::ShortSecret(5), "32"),
        (hs256, &rsa.pem(), JwtKeyError::PublicKeyAsSecret, "jwt_algorithm"),
    ];
    for (algorithm, file, error, says) in table {
        let found = JwtKeys::parse(file.as_bytes(), algorithm).expect_err(says);
        assert_eq!(found, error, "{file}");
        let text = found.to_string();
        assert!(text.contains(says) && !text.contains('\n'), "{text}");
    }
    assert_eq!(JwtKeys::parse(&[0xff, 0xfe], rs256).expect_err("no text"), JwtKeyError::NotText);
}

/// Made with OpenSSL, in the form of an identity provider's access token.
#[test]
fn a_recorded_token_of_the_usual_form_is_accepted() {
    let settings = JwtSettings {
        claim: Some("preferred_username".to_owned()),
        issuer: Some("https://id.example.org/realms/work".to_owned()),
        audience: Some("chat".to_owned()),
        ..settings(JwtAlgorithm::Rs256)
    };
    let verifier = verifier(&settings, include_str!("../../../tests/data/jwt/jwks.json"));
    let token = include_str!("../../../tests/data/jwt/token.txt").trim();
    let expected = VerifiedJwt { user: JwtUser::Name("ann".to_owned()), expires: 4_102_444_800_000 };
    assert_eq!((verifier.count(), verifier.verify(token)), (1, Ok(expected)));
}

/// The ID token of OpenID Connect Core 1.0, appendix A.2, with the key of appendix A.7. It was
/// valid for 1,000 seconds in July 2011.
#[test]
fn the_published_example_of_openid_connect_is_accepted_in_its_time() {
    let settings = JwtSettings {
        issuer: Some("https://server.example.com".to_owned()),
        audience: Some("s6BhdRkqt3".to_owned()),
        ..settings(JwtAlgorithm::Rs256)
    };
    let token = include_str!("../../../tests/data/jwt/openid-token.txt").trim();
    let at = |time: i64, settings: &JwtSettings| {
        let mut verifier = verifier(settings, include_str!("../../../tests/data/jwt/openid-jwks.json"));
        // The checks compare with the present time minus this.
        verifier.validation.leeway = u64::try_from(in_seconds(-time)).expect("in the past");
        verifier.verify(token)
    };
    let expected = VerifiedJwt { user: JwtUser::Name("248289761001".to_owned()), expires: 1_311_281_970_000 };
    assert_eq!(at(1_311_281_000, &settings), Ok(expected));
    assert_eq!(at(1_311_282_000, &settings), Err(JwtRefusal::Expired));
    let other = JwtSettings { audience: Some("chat".to_owned()), ..settings };
    assert_eq!(at(1_311_281_000, &other), Err(JwtRefusal::OtherAudience));
}
