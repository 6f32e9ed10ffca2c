//! Tokens, good and hostile, against real keys.

#![allow(clippy::unwrap_used, reason = "a failed expectation ends the test")]

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use longhaul_auth::token::{Accounts, Fault, Issuer, KeySet, Rules, Shown, Verifier};
use longhaul_auth::{Identity, Scopes};
use longhaul_core::Timestamp;
use serde_json::{Value, json};

const NOW: i64 = 1_795_316_400;
const ISSUER: &str = "https://issuer.example";
const ACCOUNT: &str = "ci@p.iam.gserviceaccount.com";
const CLOUD: &str = "https://www.googleapis.com/auth/cloud-platform";

/// A private key, its algorithm, and its public half.
struct Signer {
    key: EncodingKey,
    algorithm: Algorithm,
    public: Value,
}

/// RSA keys take a second each to make, so there are three for all tests.
fn rsa(which: usize) -> &'static Signer {
    static KEYS: [OnceLock<Signer>; 3] = [const { OnceLock::new() }; 3];
    KEYS[which].get_or_init(|| {
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
        let body = STANDARD.encode(der.as_ref());
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n");
        let key = EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap();
        let public = Jwk::from_encoding_key(&key, Algorithm::RS256).unwrap();
        let public = serde_json::to_value(public).unwrap();
        Signer { key, algorithm: Algorithm::RS256, public }
    })
}

fn ecdsa() -> Signer {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let der = pair.to_pkcs8v1().unwrap();
    let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
    let public = json!({
        "kty": "EC", "crv": "P-256", "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
    });
    Signer { key: EncodingKey::from_ec_der(der.as_ref()), algorithm: Algorithm::ES256, public }
}

fn eddsa() -> Signer {
    let der = Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new()).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(der.as_ref()).unwrap();
    let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
    let public = json!({"kty": "OKP", "crv": "Ed25519", "x": x});
    Signer { key: EncodingKey::from_ed_der(der.as_ref()), algorithm: Algorithm::EdDSA, public }
}

impl Signer {
    fn jwk(&self, kid: &str) -> Value {
        let mut jwk = self.public.clone();
        jwk["kid"] = json!(kid);
        jwk
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        self.sign_text(&header.to_string(), &claims.to_string())
    }

    fn sign_text(&self, header: &str, claims: &str) -> String {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &self.key, self.algorithm);
        format!("{signed}.{}", signature.unwrap())
    }
}

fn set(keys: &[Value]) -> KeySet {
    KeySet::parse(&json!({ "keys": keys }).to_string()).unwrap()
}

fn rules() -> Rules {
    Rules {
        issuers: vec![Issuer {
            name: ISSUER.into(),
            audiences: vec!["longhaul".into()],
            groups_claim: "groups".into(),
            scopes_default: Vec::new(),
        }],
        host_of: Arc::new(|host| {
            (host == "clouddeploy.googleapis.com").then(|| Arc::from("clouddeploy.googleapis.com"))
        }),
        leeway: Duration::from_secs(30),
        token_bytes_max: 8 << 10,
        remembered_max: 1_000,
    }
}

fn verifier() -> Verifier {
    let verifier = Verifier::new(rules());
    verifier.set_keys(0, set(&[rsa(0).jwk("a")]));
    let accounts = json!({"accounts": [{"email": ACCOUNT, "keys": [rsa(1).jwk("sa")]}]});
    verifier.set_accounts(Accounts::parse(&accounts.to_string()).unwrap());
    verifier
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000)
}

fn header() -> Value {
    json!({"alg": "RS256", "typ": "JWT", "kid": "a"})
}

fn claims() -> Value {
    json!({
        "iss": ISSUER, "sub": "42", "aud": "longhaul", "email": "Ann@Example.com",
        "scope": format!("openid {CLOUD}"), "exp": NOW + 600, "groups": ["ops@example.com"],
    })
}

/// The claims with one of them set, or taken out.
fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    if value.is_null() {
        claims.as_object_mut().unwrap().remove(name);
    } else {
        claims[name] = value;
    }
    claims
}

#[track_caller]
fn good(verifier: &Verifier, token: &str) -> Arc<Identity> {
    let identity = verifier.verify(token, at(NOW)).unwrap();
    // What is remembered must say the same, in the table and on a connection.
    assert_eq!(verifier.verify(token, at(NOW)).unwrap(), identity);
    let shown = Shown::default();
    for _ in 0..2 {
        assert_eq!(verifier.verify_shown(token, &shown, at(NOW)).unwrap(), identity);
    }
    identity
}

#[track_caller]
fn bad(verifier: &Verifier, token: &str, want: &str) {
    let shown = Shown::default();
    for _ in 0..2 {
        for answer in
            [verifier.verify(token, at(NOW)), verifier.verify_shown(token, &shown, at(NOW))]
        {
            match answer {
                Err(Fault::Invalid(why)) => assert!(why.contains(want), "{why}"),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn a_good_token_says_who_and_for_what_and_until_when() {
    let identity = good(&verifier(), &rsa(0).sign(&header(), &claims()));
    assert_eq!(identity.principal.to_string(), "user:ann@example.com");
    assert_eq!(&*identity.subject, "42");
    assert_eq!(
        identity.groups.iter().map(|group| &**group).collect::<Vec<_>>(),
        ["ops@example.com"]
    );
    assert!(identity.scopes.allow(&[CLOUD.into()], "any"));
    assert_eq!(identity.expires_at, Some(at(NOW + 630)));
}

#[test]
fn every_algorithm_and_every_way_to_write_scopes_is_taken() {
    let (ec, ed) = (ecdsa(), eddsa());
    let verifier = verifier();
    verifier.set_keys(0, set(&[rsa(0).jwk("a"), ec.jwk("e"), ed.jwk("d")]));
    for (signer, alg, kid) in [(rsa(0), "RS256", "a"), (&ec, "ES256", "e"), (&ed, "EdDSA", "d")] {
        let header = json!({"alg": alg, "kid": kid});
        good(&verifier, &signer.sign(&header, &claims()));
        // Without a key id the only key of the algorithm is meant.
        good(&verifier, &signer.sign(&json!({"alg": alg}), &claims()));
    }
    for name in ["scope", "scp"] {
        for value in [json!(CLOUD), json!([CLOUD, "x"]), json!(format!("x {CLOUD}"))] {
            let mut claims = with("scope", Value::Null);
            claims[name] = value;
            let identity = good(&verifier, &rsa(0).sign(&header(), &claims));
            assert!(identity.scopes.allow(&[CLOUD.into()], "any"), "{claims}");
        }
    }
    let none = good(&verifier, &rsa(0).sign(&header(), &with("scope", Value::Null)));
    assert!(!none.scopes.allow(&[CLOUD.into()], "any"));
}

#[test]
fn a_token_without_a_good_address_is_a_subject_of_its_issuer() {
    let verifier = verifier();
    for claims in [with("email", Value::Null), with("email_verified", json!(false))] {
        let identity = good(&verifier, &rsa(0).sign(&header(), &claims));
        assert_eq!(identity.principal.to_string(), "principal://issuer.example/subject/42");
        assert!(identity.sets.iter().any(|set| &**set == "principalSet://issuer.example/*"));
    }
    let robot = good(&verifier, &rsa(0).sign(&header(), &with("email", json!(ACCOUNT))));
    assert_eq!(robot.principal.to_string(), format!("serviceAccount:{ACCOUNT}"));
}

#[test]
fn hostile_tokens_are_refused() {
    let verifier = verifier();
    let sign = |header: &Value, claims: &Value| rsa(0).sign(header, claims);
    let good = sign(&header(), &claims());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    // No algorithm, in every spelling, with and without a signature.
    for alg in ["none", "None", "NONE", ""] {
        let header = part(&json!({"alg": alg, "kid": "a"}).to_string());
        let body = part(&claims().to_string());
        bad(&verifier, &format!("{header}.{body}."), "algorithm");
        bad(&verifier, &format!("{header}.{body}.{signature}"), "algorithm");
    }
    // An HMAC whose secret is the public key.
    let public = rsa(0).jwk("a").to_string();
    let header_hs = part(r#"{"alg":"HS256","kid":"a"}"#);
    let body = format!("{header_hs}.{}", part(&claims().to_string()));
    let secret = EncodingKey::from_secret(public.as_bytes());
    let hmac = jsonwebtoken::crypto::sign(body.as_bytes(), &secret, Algorithm::HS256).unwrap();
    bad(&verifier, &format!("{body}.{hmac}"), "algorithm");
    // Signed by somebody else, changed after signing, cut.
    bad(&verifier, &rsa(2).sign(&header(), &claims()), "signature");
    let other = part(&with("email", json!("eve@example.com")).to_string());
    let head = signed.split('.').next().unwrap();
    bad(&verifier, &format!("{head}.{other}.{signature}"), "signature");
    bad(&verifier, &format!("{signed}."), "signature");
    bad(&verifier, &format!("{signed}.{}", &signature[..40]), "signature");
    bad(&verifier, &format!("{good}.{signature}"), "dots");
    // For others, from others, not now.
    bad(&verifier, &sign(&header(), &with("aud", json!("else"))), "audience");
    bad(&verifier, &sign(&header(), &with("aud", json!(["else", "longhaul2"]))), "audience");
    bad(&verifier, &sign(&header(), &with("aud", Value::Null)), "audience");
    bad(&verifier, &sign(&header(), &with("iss", json!("https://issuer.example/"))), "issuer");
    bad(&verifier, &sign(&header(), &with("nbf", json!(NOW + 31))), "not valid yet");
    bad(&verifier, &sign(&header(), &with("exp", Value::Null)), "no end");
    bad(&verifier, &sign(&header(), &with("exp", json!("never"))), "moment");
    // Not what they seem.
    bad(
        &verifier,
        &sign(&json!({"alg": "RS256", "kid": "a", "crit": ["x"]}), &claims()),
        "extensions",
    );
    let twice =
        r#"{"iss":"https://issuer.example","aud":"longhaul","exp":9999999999,"sub":"a","sub":"b"}"#;
    bad(&verifier, &rsa(0).sign_text(&header().to_string(), twice), "cannot be read");
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(1_000), "]".repeat(1_000));
    bad(&verifier, &rsa(0).sign_text(&header().to_string(), &deep), "cannot be read");
    let header_twice = r#"{"alg":"RS256","alg":"none","kid":"a"}"#;
    bad(&verifier, &rsa(0).sign_text(header_twice, &claims().to_string()), "cannot be read");
    bad(&verifier, &sign(&header(), &with("pad", json!("x".repeat(8 << 10)))), "longer");
    for text in ["", ".", "..", "a.b", "a.b.c", "....", "é.é.é", "Bearer"] {
        assert!(matches!(verifier.verify(text, at(NOW)), Err(Fault::Invalid(_))), "{text}");
    }
}

#[test]
fn a_key_id_of_one_kind_does_not_lead_to_a_key_of_another() {
    let ec = ecdsa();
    let verifier = verifier();
    verifier.set_keys(0, set(&[rsa(0).jwk("same"), ec.jwk("same")]));
    good(&verifier, &rsa(0).sign(&json!({"alg": "RS256", "kid": "same"}), &claims()));
    good(&verifier, &ec.sign(&json!({"alg": "ES256", "kid": "same"}), &claims()));
    bad(&verifier, &rsa(0).sign(&json!({"alg": "ES256", "kid": "same"}), &claims()), "signature");
}

#[test]
fn time_is_kept_with_leeway_and_never_by_memory() {
    let verifier = verifier();
    let token = rsa(0).sign(&header(), &with("nbf", json!(NOW)));
    assert!(verifier.verify(&token, at(NOW - 31)).is_err());
    assert!(verifier.verify(&token, at(NOW - 30)).is_ok());
    assert!(verifier.verify(&token, at(NOW + 629)).is_ok());
    assert_eq!(verifier.verify(&token, at(NOW + 630)), Err(Fault::Expired));
    // The clock of tests goes back; the remembered token is looked at all the same.
    assert!(verifier.verify(&token, at(NOW)).is_ok());
    // Only what was good once is called expired.
    let forged = rsa(2).sign(&header(), &with("exp", json!(NOW - 600)));
    bad(&verifier, &forged, "signature");
}

#[test]
fn a_connection_remembers_no_longer_than_the_token_and_its_key_are_good() {
    let (verifier, shown) = (verifier(), Shown::default());
    let token = rsa(0).sign(&header(), &with("nbf", json!(NOW)));
    let verify = |token: &str, second| verifier.verify_shown(token, &shown, at(second));
    assert!(verify(&token, NOW - 31).is_err());
    let ann = verify(&token, NOW - 30).unwrap();
    assert_eq!(verify(&token, NOW + 629), Ok(ann.clone()));
    assert_eq!(verify(&token, NOW + 630), Err(Fault::Expired));
    assert!(verify(&token, NOW - 31).is_err(), "it is not valid yet");
    // Another caller on the same connection is somebody else, and the first comes back as who it was.
    let mut claims = with("nbf", json!(NOW));
    claims["email"] = json!("bob@example.com");
    let other = rsa(0).sign(&header(), &claims);
    assert_eq!(other.len(), token.len());
    assert_eq!(verify(&other, NOW).unwrap().principal.to_string(), "user:bob@example.com");
    assert_eq!(verify(&token, NOW), Ok(ann));
    assert!(verify(&token[..token.len() - 2], NOW).is_err(), "it lacks its end");
    verifier.set_keys(0, set(&[rsa(2).jwk("b")]));
    assert_eq!(verify(&token, NOW), Err(Fault::UnknownKey(0)));
}

#[test]
fn what_was_verified_with_a_key_that_goes_is_good_no_more() {
    let verifier = verifier();
    let token = rsa(0).sign(&header(), &claims());
    good(&verifier, &token);
    verifier.set_keys(0, set(&[rsa(0).jwk("a"), rsa(2).jwk("b")]));
    good(&verifier, &token);
    verifier.set_keys(0, set(&[rsa(2).jwk("b")]));
    assert_eq!(verifier.verify(&token, at(NOW)), Err(Fault::UnknownKey(0)));
    // The same key id with another key behind it is another key.
    verifier.set_keys(0, set(&[rsa(2).jwk("a")]));
    bad(&verifier, &token, "signature");
}

#[test]
fn unknown_key_ids_are_told_apart_and_never_remembered() {
    let verifier = verifier();
    for n in 0..2_000 {
        let header = json!({"alg": "RS256", "kid": format!("k{n}")});
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let token = format!("{}.{}.AAAA", part(&header), part(&claims()));
        assert_eq!(verifier.verify(&token, at(NOW)), Err(Fault::UnknownKey(0)));
    }
}

/// The header and claims of an account's own token.
fn own(changes: Value) -> (Value, Value) {
    let mut claims = json!({"iss": ACCOUNT, "sub": ACCOUNT, "iat": NOW, "exp": NOW + 3_600});
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    (json!({"alg": "RS256", "typ": "JWT", "kid": "sa"}), claims)
}

#[test]
fn accounts_sign_for_themselves_by_audience_or_by_scope() {
    let verifier = verifier();
    let (header, claims) = own(json!({"aud": "https://clouddeploy.googleapis.com/"}));
    let by_audience = good(&verifier, &rsa(1).sign(&header, &claims));
    assert_eq!(by_audience.principal.to_string(), format!("serviceAccount:{ACCOUNT}"));
    assert_eq!(by_audience.scopes, Scopes::Host("clouddeploy.googleapis.com".into()));
    let (header, claims) = own(json!({"scope": CLOUD}));
    let by_scope = good(&verifier, &rsa(1).sign(&header, &claims));
    assert!(by_scope.scopes.allow(&[CLOUD.into()], "any"));
}

/// Google's Python clients ask every API for its operations with this one, and for all the rest from then on.
#[test]
fn a_token_for_operations_is_good_for_those_of_every_api() {
    let verifier = verifier();
    let audience = "https://longrunning.googleapis.com/";
    let (header, claims) = own(json!({"aud": audience}));
    let identity = good(&verifier, &rsa(1).sign(&header, &claims));
    for api in ["clouddeploy.googleapis.com", "dataproc.googleapis.com"] {
        assert!(identity.scopes.allow(&[CLOUD.into()], api), "{api}");
    }
    // A scope that it names is all that it has.
    let (header, claims) = own(json!({"aud": audience, "scope": "openid"}));
    let identity = good(&verifier, &rsa(1).sign(&header, &claims));
    assert!(!identity.scopes.allow(&[CLOUD.into()], "clouddeploy.googleapis.com"));
    for other in
        ["https://longrunning.googleapis.com.example.com/", "http://longrunning.googleapis.com/"]
    {
        let (header, claims) = own(json!({"aud": other}));
        bad(&verifier, &rsa(1).sign(&header, &claims), "audience");
    }
}

#[test]
fn accounts_cannot_sign_for_others_nor_for_ever() {
    let verifier = verifier();
    let refused = [
        (json!({"aud": "https://oauth2.googleapis.com/token", "scope": CLOUD}), "audience"),
        (json!({"aud": "http://clouddeploy.googleapis.com/"}), "audience"),
        (json!({"aud": ["https://clouddeploy.googleapis.com/", "b"]}), "one audience"),
        (json!({}), "neither audience nor scope"),
        (json!({"scope": CLOUD, "sub": "eve@example.com"}), "sub is not iss"),
        (json!({"scope": CLOUD, "iss": "no@p.iam.gserviceaccount.com"}), "registered"),
        (json!({"scope": CLOUD, "exp": NOW + 7_200}), "an hour"),
    ];
    for (changes, why) in refused {
        let (header, claims) = own(changes);
        bad(&verifier, &rsa(1).sign(&header, &claims), why);
    }
    let (header, claims) = own(json!({"scope": CLOUD}));
    bad(&verifier, &rsa(0).sign(&header, &claims), "signature");
    // The issuer's key is no key of the account, nor the other way round.
    let mut claims = self::claims();
    claims["iss"] = json!(ISSUER);
    let token = rsa(1).sign(&json!({"alg": "RS256", "kid": "sa"}), &claims);
    assert_eq!(verifier.verify(&token, at(NOW)), Err(Fault::UnknownKey(0)));
}

#[test]
fn key_sets_that_are_wrong_are_refused_in_words() {
    for (text, why) in [
        ("", "JSON Web Key Set"),
        ("{}", "no key"),
        (r#"{"keys": []}"#, "no key"),
        (r#"{"keys": [{"kty": "oct", "k": "AAAA", "kid": "x"}]}"#, "no key"),
        (r#"{"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}]}"#, "2048"),
        (r#"{"keys": [{"kty": "EC", "crv": "P-256", "x": "AA"}]}"#, "no y"),
        (r#"{"a": "-----BEGIN PUBLIC KEY-----"}"#, "PEM"),
    ] {
        let error = KeySet::parse(text).unwrap_err();
        assert!(error.contains(why), "{text}: {error}");
    }
}

#[test]
fn an_accounts_file_grows_by_a_key_at_a_time() {
    let pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
    let one = Accounts::with_key("", "a@b.c", "k1", pem).unwrap();
    let two = Accounts::with_key(&one, "a@b.c", "k2", pem).unwrap();
    let two = Accounts::with_key(&two, "d@e.f", "k3", pem).unwrap();
    let accounts = Accounts::parse(&two).unwrap();
    assert!(accounts.has("a@b.c") && accounts.has("d@e.f") && !accounts.has("x@y.z"));
    for wrong in [r#"{"accounts": [{"email": "a@b"}]}"#, r#"{"account": []}"#] {
        assert!(Accounts::parse(wrong).is_err(), "{wrong}");
    }
}
