//! The inside of a token, read strictly: no duplicate member, no surprise in a type, no more than a bound.
//!
//! Nothing here is believed until the signature has been checked. Source: RFC 7515, RFC 7519.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use longhaul_core::Timestamp;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Most entries of a list that are read: scopes, audiences, groups.
const LIST_MAX: usize = 1_000;

/// A token taken apart.
#[derive(Debug)]
pub(super) struct Parts<'t> {
    pub algorithm: Algorithm,
    /// Which of the issuer's keys.
    pub kid: Option<String>,
    /// What is signed: header and claims, as they came.
    pub signed: &'t str,
    pub signature: &'t str,
    pub claims: Claims,
}

/// A JSON object whose members each occur once.
pub(super) struct Members(BTreeMap<String, Value>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Once;
        impl<'de> Visitor<'de> for Once {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if members.insert(name, value).is_some() {
                        return Err(A::Error::custom("a member occurs twice"));
                    }
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Once)
    }
}

impl Members {
    fn text(&self, name: &str) -> Result<Option<&str>, &'static str> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
                Err("a claim that must be text is not")
            }
        }
    }

    /// A moment in seconds since 1970, whole or not.
    fn moment(&self, name: &str) -> Result<Option<Timestamp>, &'static str> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Number(number)) => {
                let seconds = number.as_f64().filter(|seconds| seconds.is_finite());
                let seconds = seconds.ok_or("a moment is out of range")?;
                // The cast saturates, and so does the moment.
                Ok(Some(Timestamp::from_micros((seconds * 1e6) as i64)))
            }
            Some(Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_)) => {
                Err("a claim that must be a moment is not")
            }
        }
    }

    /// Words: a text split at spaces, or a list of texts.
    fn words(&self, name: &str, split: bool) -> Result<Option<Vec<Arc<str>>>, &'static str> {
        let wrong = "a claim that must be text or a list of texts is not";
        let words: Vec<Arc<str>> = match self.0.get(name) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::String(text)) if split => text.split_whitespace().map(Arc::from).collect(),
            Some(Value::String(text)) => vec![Arc::from(text.as_str())],
            Some(Value::Array(values)) => {
                let texts = values.iter().map(|value| value.as_str().map(Arc::from).ok_or(wrong));
                texts.collect::<Result<_, _>>()?
            }
            Some(Value::Bool(_) | Value::Number(_) | Value::Object(_)) => return Err(wrong),
        };
        if words.len() > LIST_MAX {
            return Err("a claim has more than 1000 entries");
        }
        Ok(Some(words))
    }
}

/// What a token claims.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Claims {
    pub issuer: Arc<str>,
    pub subject: Arc<str>,
    pub audiences: Vec<Arc<str>>,
    pub expires_at: Option<Timestamp>,
    pub not_before: Option<Timestamp>,
    /// `scope` or `scp`; `None` when there is neither.
    pub scopes: Option<Vec<Arc<str>>>,
    pub email: Option<Arc<str>>,
    pub email_verified: Option<bool>,
    pub groups: Vec<Arc<str>>,
}

impl Claims {
    fn of(members: &Members, groups_claim: &str) -> Result<Self, &'static str> {
        let email_verified = match members.0.get("email_verified") {
            None | Some(Value::Null) => None,
            Some(Value::Bool(yes)) => Some(*yes),
            Some(Value::String(text)) => Some(text == "true"),
            Some(Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
                return Err("email_verified is neither true nor false");
            }
        };
        let scopes = match members.words("scope", true)? {
            Some(scopes) => Some(scopes),
            None => members.words("scp", true)?,
        };
        Ok(Self {
            issuer: members.text("iss")?.unwrap_or_default().into(),
            subject: members.text("sub")?.unwrap_or_default().into(),
            audiences: members.words("aud", false)?.unwrap_or_default(),
            expires_at: members.moment("exp")?,
            not_before: members.moment("nbf")?,
            scopes,
            email: members.text("email")?.map(Into::into),
            email_verified,
            groups: match groups_claim {
                "" => Vec::new(),
                name => members.words(name, false)?.unwrap_or_default(),
            },
        })
    }
}

/// Takes a token apart. The error says why not, for our own log.
pub(super) fn parse<'t>(
    token: &'t str,
    bytes_max: usize,
    groups_claim: &str,
) -> Result<Parts<'t>, &'static str> {
    if token.len() > bytes_max {
        return Err("the token is longer than auth.token_bytes_max");
    }
    let (signed, signature) =
        token.rsplit_once('.').ok_or("the token is no JWT: it has no dots")?;
    let (header, claims) = signed.split_once('.').ok_or("the token is no JWT: it has one dot")?;
    if claims.contains('.') {
        return Err("the token is no JWT: it has more than two dots");
    }
    let header = members(header).map_err(|()| "the token's header cannot be read")?;
    let algorithm = match header.text("alg")? {
        Some("RS256") => Algorithm::RS256,
        Some("ES256") => Algorithm::ES256,
        Some("EdDSA") => Algorithm::EdDSA,
        Some(_) => return Err("the token's algorithm is not RS256, ES256 or EdDSA"),
        None => return Err("the token names no algorithm"),
    };
    if header.0.contains_key("crit") {
        return Err("the token demands extensions that are not known here");
    }
    let claims = members(claims).map_err(|()| "the token's claims cannot be read")?;
    let claims = Claims::of(&claims, groups_claim)?;
    let kid = header.text("kid")?.map(str::to_owned);
    Ok(Parts { algorithm, kid, signed, signature, claims })
}

fn members(part: &str) -> Result<Members, ()> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| ())?;
    // serde_json refuses what is nested more than 128 deep.
    serde_json::from_slice(&bytes).map_err(|_| ())
}
