//! What is exchanged, what is refused, and that no key is printed.

use super::*;

const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);
const URI: &str = "http://127.0.0.1:7151/token";
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

fn made() -> (LocalIdentity, ServiceAccountFile) {
    let (account, file) = Account::generate("admin", "p", URI).unwrap();
    let identity = IdentityFile::new(account).unwrap();
    let text = serde_json::to_string(&identity).unwrap();
    (LocalIdentity::parse(&text, "server.json").unwrap(), file)
}

fn assertion(file: &ServiceAccountFile, change: impl FnOnce(&mut serde_json::Value)) -> Secret {
    let now = NOW.seconds();
    let mut claims = serde_json::json!({
        "iss": file.client_email, "aud": URI, "scope": SCOPE, "iat": now, "exp": now + 3600,
    });
    change(&mut claims);
    SigningKey::from_pem(&Secret::new(file.private_key.as_str())).unwrap().sign(&claims).unwrap()
}

fn claims_of(token: &Secret, keys: &JwkSet) -> serde_json::Value {
    let key = DecodingKey::from_jwk(&keys.keys[0]).unwrap();
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::RS256);
    validation.validate_exp = false;
    validation.validate_aud = false;
    jsonwebtoken::decode::<serde_json::Value>(token.expose(), &key, &validation).unwrap().claims
}

#[test]
fn an_assertion_is_exchanged_for_a_token_of_its_account_and_scopes() {
    let (identity, file) = made();
    let Grant::Access { token, expires_in } =
        identity.grant(assertion(&file, |_| {}).expose(), NOW).unwrap()
    else {
        panic!("an access token")
    };
    let claims = claims_of(&token, &identity.issued_by());
    assert_eq!((expires_in, &claims["scope"]), (3600, &SCOPE.into()));
    assert_eq!(claims["email"], "admin@p.iam.gserviceaccount.com");
    assert_eq!((&claims["iss"], &claims["aud"]), (&ISSUER.into(), &ISSUER.into()));
    assert_eq!(claims["exp"], NOW.seconds() + 3600);

    let asked = assertion(&file, |claims| claims["target_audience"] = "https://a".into());
    let Grant::Identity { token } = identity.grant(asked.expose(), NOW).unwrap() else {
        panic!("an identity token")
    };
    let claims = claims_of(&token, &identity.issued_by());
    assert_eq!((&claims["aud"], claims.get("scope")), (&"https://a".into(), None));
    for google in ["https://oauth2.googleapis.com/token", URI] {
        let asked = assertion(&file, |claims| claims["aud"] = google.into());
        assert!(identity.grant(asked.expose(), NOW).is_ok(), "{google}");
    }
}

#[test]
fn a_wrong_assertion_is_exchanged_for_nothing() {
    let (identity, file) = made();
    let now = NOW.seconds();
    let check = |assertion: &Secret, error: &str, word: &str| {
        let refused = identity.grant(assertion.expose(), NOW).unwrap_err();
        assert_eq!(refused.error, error, "{refused:?}");
        assert!(refused.description.contains(word), "{refused:?}");
        assert!(!refused.description.contains(assertion.expose()));
    };
    let with = |key: &'static str, value: serde_json::Value| {
        assertion(&file, move |claims| claims[key] = value)
    };
    check(&with("iss", "other@p.iam.gserviceaccount.com".into()), "invalid_grant", "iss");
    check(&with("aud", "https://elsewhere/token".into()), "invalid_grant", "aud");
    check(&with("exp", (now - 61).into()), "invalid_grant", "expired");
    check(&with("iat", (now + 61).into()), "invalid_grant", "iat");
    check(&with("exp", (now + 7200).into()), "invalid_grant", "hour");
    check(&with("sub", "boss@p".into()), "unauthorized_client", "another account");
    check(&with("scope", " ".into()), "invalid_scope", "scope");
    check(&Secret::new("a.b.c"), "invalid_grant", "JWT");
    check(&Secret::new("x".repeat(20_000)), "invalid_grant", "long");

    let (_, stranger) = Account::generate("admin", "p", URI).unwrap();
    check(&assertion(&stranger, |_| {}), "invalid_grant", "no account");
    // The right name, signed by HMAC with what everybody may know of the key.
    let public = serde_json::to_vec(&identity.accounts()[0].keys[0]).unwrap();
    let claims = serde_json::json!({
        "iss": file.client_email, "aud": URI, "scope": SCOPE, "iat": now, "exp": now + 60,
    });
    let key = jsonwebtoken::EncodingKey::from_secret(&public);
    let forged = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap();
    check(&Secret::new(forged), "invalid_grant", "RS256");
}

#[test]
fn a_file_that_does_not_fit_is_refused_without_quoting_it() {
    let (account, _) = Account::generate("admin", "p", URI).unwrap();
    let good = serde_json::to_value(IdentityFile::new(account).unwrap()).unwrap();
    for (key, value, word) in [
        ("private_key", "SECRET".into(), "private_key"),
        ("default_account", "x".into(), "default_account"),
        ("issuer", "x".into(), "issuer"),
        ("accounts", serde_json::json!("SECRET"), "line"),
    ] {
        let mut file = good.clone();
        file[key] = value;
        let error = LocalIdentity::parse(&file.to_string(), "server.json").unwrap_err();
        assert!(error.message.contains(word), "{}", error.message);
        assert!(!error.message.contains("SECRET"), "{}", error.message);
    }
}

#[test]
fn nothing_that_is_printed_holds_a_key() {
    let (identity, file) = made();
    let shown = format!("{identity:?} {file:?} {:?}", SigningKey::generate().unwrap());
    assert!(!shown.contains("PRIVATE") && !shown.contains(&file.private_key[40..80]), "{shown}");
    assert_eq!(file.client_id.len(), 21);
    assert_eq!(project_number("p"), project_number("p"));
    assert_eq!(project_number("p").len(), 12);
}

/// Google numbers its keys as it likes, and so may whoever registers one.
#[test]
fn an_account_signs_by_the_name_that_its_file_gives_the_key() {
    let (_, mut file) = made();
    for name in ["KEY_ID", "0123456789abcdef0123456789abcdef01234567"] {
        file.private_key_id = name.to_owned();
        let token = file.self_signed(SCOPE, NOW, TOKEN_LIFE).unwrap();
        let header = jsonwebtoken::decode_header(token.expose()).unwrap();
        assert_eq!(header.kid.as_deref(), Some(name));
    }
}
