//! Sets of public keys, as issuers publish them. Source: RFC 7517, RFC 7518, RFC 8037.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;

/// Most bytes of a key set; Google's has about 2,000.
const BYTES_MAX: usize = 1 << 20;
/// Most keys of a set.
const KEYS_MAX: usize = 1_000;
/// Fewest bytes of an RSA modulus: 2048 bits.
const RSA_BYTES_MIN: usize = 256;
/// Most bytes of an RSA modulus: 8192 bits. Larger ones only make checking slow.
const RSA_BYTES_MAX: usize = 1_024;

/// The public keys of one issuer or account.
#[derive(Clone, Default)]
pub struct KeySet {
    keys: Vec<Key>,
}

#[derive(Clone)]
struct Key {
    kid: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
    /// What it was made of, to see whether two sets are the same.
    text: String,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    alg: Option<String>,
    #[serde(default, rename = "use")]
    purpose: Option<String>,
    #[serde(default)]
    crv: Option<String>,
    #[serde(default)]
    n: Option<String>,
    #[serde(default)]
    e: Option<String>,
    #[serde(default)]
    x: Option<String>,
    #[serde(default)]
    y: Option<String>,
}

impl KeySet {
    /// Reads a JSON Web Key Set, or an object from key ids to public keys in PEM.
    ///
    /// Keys of other kinds and for other purposes are passed over. Fails, in words, when the text is neither
    /// or no usable key is left.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > BYTES_MAX {
            return Err(format!("the key set has more than {BYTES_MAX} bytes"));
        }
        let set = match serde_json::from_str::<Document>(text) {
            Ok(document) => Self::of_jwks(&document.keys)?,
            Err(wrong) => match serde_json::from_str::<BTreeMap<String, String>>(text) {
                Ok(pems) => Self::of_pems(&pems)?,
                Err(_) => return Err(format!("it is no JSON Web Key Set: {wrong}")),
            },
        };
        if set.keys.is_empty() {
            return Err("it has no key for RS256, ES256 or EdDSA".into());
        }
        Ok(set)
    }

    /// The usable ones of these JSON Web Keys.
    pub(super) fn of_jwks(values: &[serde_json::Value]) -> Result<Self, String> {
        if values.len() > KEYS_MAX {
            return Err(format!("it has more than {KEYS_MAX} keys"));
        }
        let mut keys = Vec::new();
        for value in values {
            let jwk =
                Jwk::deserialize(value).map_err(|error| format!("a key is wrong: {error}"))?;
            keys.extend(Key::of_jwk(jwk, value.to_string())?);
        }
        Ok(Self { keys })
    }

    /// Public keys in PEM by key id: RSA, P-256 or Ed25519.
    pub(super) fn of_pems(pems: &BTreeMap<String, String>) -> Result<Self, String> {
        if pems.len() > KEYS_MAX {
            return Err(format!("it has more than {KEYS_MAX} keys"));
        }
        let mut keys = Vec::new();
        for (kid, pem) in pems {
            let bytes = pem.as_bytes();
            let found = DecodingKey::from_rsa_pem(bytes)
                .map(|key| (Algorithm::RS256, key))
                .or_else(|_| DecodingKey::from_ec_pem(bytes).map(|key| (Algorithm::ES256, key)))
                .or_else(|_| DecodingKey::from_ed_pem(bytes).map(|key| (Algorithm::EdDSA, key)));
            let (algorithm, key) =
                found.map_err(|_| format!("key {kid:?} is no public key in PEM"))?;
            keys.push(Key { kid: Some(kid.clone()), algorithm, key, text: pem.clone() });
        }
        Ok(Self { keys })
    }

    /// Takes the keys of another set, too.
    pub(super) fn add(&mut self, other: Self) {
        self.keys.extend(other.keys);
    }

    /// The one that may have signed a token: of its key id where it names one; otherwise all of its
    /// algorithm, if there is but one.
    pub(super) fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<&DecodingKey> {
        let mut fitting = self.keys.iter().filter(|key| {
            key.algorithm == algorithm
                && kid.is_none_or(|kid| key.kid.as_deref().is_none_or(|own| own == kid))
        });
        let named = fitting.clone().find(|key| key.kid.as_deref() == kid && kid.is_some());
        if let Some(named) = named {
            return Some(&named.key);
        }
        let only = fitting.next()?;
        fitting.next().is_none().then_some(&only.key)
    }

    /// Whether every key of `self` is in `other`, too.
    pub(super) fn all_in(&self, other: &Self) -> bool {
        self.keys.iter().all(|key| {
            other.keys.iter().any(|found| found.kid == key.kid && found.text == key.text)
        })
    }

    /// Number of keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kids = self.keys.iter().map(|key| key.kid.as_deref().unwrap_or("-"));
        f.debug_list().entries(kids).finish()
    }
}

impl Key {
    /// The key, if it is one that we check signatures with.
    fn of_jwk(jwk: Jwk, text: String) -> Result<Option<Self>, String> {
        if jwk.purpose.as_deref().is_some_and(|purpose| purpose != "sig") {
            return Ok(None);
        }
        let shown = jwk.kid.clone().unwrap_or_default();
        let wrong = |what: &str| format!("key {shown:?} {what}");
        let part = |part: &Option<String>, name: &str| {
            part.clone().ok_or_else(|| wrong(&format!("has no {name}")))
        };
        let wants = |name: &str| jwk.alg.as_deref().is_none_or(|alg| alg == name);
        let (algorithm, key) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) if wants("RS256") => {
                let (n, e) = (part(&jwk.n, "n")?, part(&jwk.e, "e")?);
                let bytes = URL_SAFE_NO_PAD.decode(&n).map_err(|_| wrong("has a malformed n"))?;
                let bits = bytes.iter().skip_while(|byte| **byte == 0).count();
                if !(RSA_BYTES_MIN..=RSA_BYTES_MAX).contains(&bits) {
                    return Err(wrong("has fewer than 2048 or more than 8192 bits"));
                }
                (Algorithm::RS256, DecodingKey::from_rsa_components(&n, &e))
            }
            ("EC", Some("P-256")) if wants("ES256") => {
                let (x, y) = (part(&jwk.x, "x")?, part(&jwk.y, "y")?);
                (Algorithm::ES256, DecodingKey::from_ec_components(&x, &y))
            }
            ("OKP", Some("Ed25519")) if wants("EdDSA") || wants("Ed25519") => {
                (Algorithm::EdDSA, DecodingKey::from_ed_components(&part(&jwk.x, "x")?))
            }
            _ => return Ok(None),
        };
        let key = key.map_err(|_| wrong("is malformed"))?;
        Ok(Some(Self { kid: jwk.kid, algorithm, key, text }))
    }
}
