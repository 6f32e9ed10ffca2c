//! An assertion for a token. Source: RFC 7523, and Google's OAuth 2.0 for service accounts.

use jsonwebtoken::{Algorithm, Validation};
use longhaul_core::{Error, Timestamp};
use serde::Deserialize;

use super::{LocalIdentity, TOKEN_LIFE};
use crate::secret::Secret;

/// How far clocks may differ, in seconds.
const LEEWAY: i64 = 60;
/// Longest life of an assertion, in seconds; Google's limit.
const LIFE_MAX: i64 = 3600;
/// Longest assertion that is looked at, in bytes.
const BYTES_MAX: usize = 16 << 10;
/// Google's own endpoints: some clients write one of these as the audience, wherever they send it to.
const GOOGLE: [&str; 4] = [
    "https://oauth2.googleapis.com/token",
    "https://accounts.google.com/o/oauth2/token",
    "https://www.googleapis.com/oauth2/v3/token",
    "https://www.googleapis.com/oauth2/v4/token",
];

/// What an assertion was good for.
#[derive(Debug)]
pub enum Grant {
    /// A token for calls.
    Access {
        /// The token.
        token: Secret,
        /// Its life, in seconds.
        expires_in: u64,
    },
    /// A token that says who the account is, for another service.
    Identity {
        /// The token.
        token: Secret,
    },
}

/// Why there is no token. Source: RFC 6749, 5.2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantError {
    /// Such as `invalid_grant`.
    pub error: &'static str,
    /// For people; never quotes what was sent.
    pub description: String,
}

#[derive(Deserialize)]
struct Assertion {
    iss: String,
    aud: String,
    iat: i64,
    exp: i64,
    sub: Option<String>,
    #[serde(default)]
    scope: String,
    target_audience: Option<String>,
}

fn refused(description: &str) -> GrantError {
    GrantError { error: "invalid_grant", description: description.to_owned() }
}

impl LocalIdentity {
    /// Exchanges an assertion that an account signed for a token.
    pub fn grant(&self, assertion: &str, now: Timestamp) -> Result<Grant, GrantError> {
        let (account, claims) = self.check(assertion, now.seconds())?;
        let account = &self.accounts[account];
        let broken = |error: Error| GrantError {
            error: "temporarily_unavailable",
            description: error.message,
        };
        if let Some(audience) = &claims.target_audience {
            let token = self.identity_token(account, audience, now).map_err(broken)?;
            return Ok(Grant::Identity { token });
        }
        if claims.scope.split_ascii_whitespace().next().is_none() {
            return Err(GrantError {
                error: "invalid_scope",
                description: "the assertion asks for no scope; its claim scope lists them".into(),
            });
        }
        let token = self.access_token(account, &claims.scope, now, TOKEN_LIFE).map_err(broken)?;
        Ok(Grant::Access { token, expires_in: TOKEN_LIFE.as_secs() })
    }

    fn check(&self, assertion: &str, now: i64) -> Result<(usize, Assertion), GrantError> {
        if assertion.len() > BYTES_MAX {
            return Err(refused("the assertion is too long"));
        }
        let header = jsonwebtoken::decode_header(assertion)
            .map_err(|_| refused("the assertion is no signed JWT"))?;
        if header.alg != Algorithm::RS256 {
            return Err(refused("the assertion is not signed with RS256"));
        }
        let kid = header.kid.unwrap_or_default();
        let mut validation = Validation::new(Algorithm::RS256);
        // The time is the server's, and the audience may be one of several: both are checked below.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let fitting = self.keys.iter().filter(|(id, ..)| kid.is_empty() || *id == kid);
        let (account, claims) = fitting
            .filter_map(|(_, account, key)| {
                let decoded = jsonwebtoken::decode::<Assertion>(assertion, key, &validation);
                Some((*account, decoded.ok()?.claims))
            })
            .next()
            .ok_or_else(|| refused("no account of this server has signed the assertion so"))?;
        let of = &self.accounts[account];
        if claims.iss != of.client_email {
            return Err(refused("iss is not the account whose key signed the assertion"));
        }
        if claims.sub.is_some_and(|ref sub| *sub != of.client_email && *sub != of.client_id) {
            return Err(GrantError {
                error: "unauthorized_client",
                description: "sub names another account, and none may act for another here".into(),
            });
        }
        if claims.aud != of.token_uri && !GOOGLE.contains(&claims.aud.as_str()) {
            return Err(refused("aud is not the token_uri of the account's file"));
        }
        if claims.iat > now + LEEWAY {
            return Err(refused("iat lies ahead; check the clock"));
        }
        if claims.exp <= now - LEEWAY {
            return Err(refused("the assertion has expired; check the clock"));
        }
        if claims.exp.saturating_sub(claims.iat) > LIFE_MAX + LEEWAY {
            return Err(refused("the assertion is meant to live for more than an hour"));
        }
        Ok((account, Assertion { sub: None, ..claims }))
    }
}
