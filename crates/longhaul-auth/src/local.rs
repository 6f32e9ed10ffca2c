//! Local identity: accounts of one machine, and the key by which tokens for them are signed.
//!
//! Owns the formats of both files (the server's and Google's service-account file), the exchange of an
//! assertion for a token, and what such tokens say. Files are read and written by others.

mod grant;
mod keys;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{Jwk, JwkSet};
pub use longhaul_core::Timestamp;
use longhaul_core::{Error, Reason};
use serde::{Deserialize, Serialize};

pub use crate::local::grant::{Grant, GrantError};
pub use crate::local::keys::SigningKey;
use crate::secret::Secret;

/// Who issues local tokens, and whom they are for.
pub const ISSUER: &str = "longhaul-local";
/// How long a token is good that the token endpoint gives, as Google's are.
pub const TOKEN_LIFE: Duration = Duration::from_secs(3600);

/// The server's file: everything that local identity is made of. It holds a private key.
#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityFile {
    /// Who tokens of this server come from; [`ISSUER`].
    pub issuer: String,
    /// The server's own key, PKCS#8 PEM.
    pub private_key: String,
    /// The account that the metadata server speaks for.
    pub default_account: String,
    /// The accounts.
    pub accounts: Vec<Account>,
}

impl fmt::Debug for IdentityFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentityFile").field("accounts", &self.accounts).finish_non_exhaustive()
    }
}

/// One account, as far as everybody may know it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// Its address, such as `admin@my-project.iam.gserviceaccount.com`.
    pub client_email: String,
    /// Its number, 21 digits.
    pub client_id: String,
    /// Its project.
    pub project_id: String,
    /// The project's number.
    pub project_number: String,
    /// Where its file sends assertions.
    pub token_uri: String,
    /// Its public keys.
    pub keys: Vec<Jwk>,
}

/// Google's service-account file. It holds a private key.
#[derive(Clone, Deserialize, Serialize)]
pub struct ServiceAccountFile {
    /// Always `service_account`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The project.
    pub project_id: String,
    /// Names the key.
    pub private_key_id: String,
    /// The key, PKCS#8 PEM.
    pub private_key: String,
    /// The address.
    pub client_email: String,
    /// The number.
    pub client_id: String,
    /// Where people would sign in; nothing of ours answers there.
    pub auth_uri: String,
    /// Where an assertion is exchanged for a token.
    pub token_uri: String,
    /// The domain of the APIs, as clients check it.
    pub universe_domain: String,
}

impl fmt::Debug for ServiceAccountFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let email = &self.client_email;
        f.debug_struct("ServiceAccountFile").field("client_email", email).finish_non_exhaustive()
    }
}

/// What a server in `local` mode signs and checks with.
pub struct LocalIdentity {
    key: SigningKey,
    default_account: usize,
    accounts: Vec<Arc<Account>>,
    /// Key id, its account, the key.
    keys: Vec<(String, usize, DecodingKey)>,
}

impl fmt::Debug for LocalIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalIdentity").field("accounts", &self.accounts).finish_non_exhaustive()
    }
}

impl IdentityFile {
    /// A file for one account, with a new key.
    pub fn new(account: Account) -> Result<Self, Error> {
        Ok(Self {
            issuer: ISSUER.to_owned(),
            private_key: SigningKey::generate()?.pem().expose().to_owned(),
            default_account: account.client_email.clone(),
            accounts: vec![account],
        })
    }
}

impl Account {
    /// A new account with a key of its own, and its file.
    ///
    /// `name` is the part before the `@`. Numbers are drawn from the key, so that they need no registry.
    pub fn generate(
        name: &str,
        project: &str,
        token_uri: &str,
    ) -> Result<(Self, ServiceAccountFile), Error> {
        let key = SigningKey::generate()?;
        let client_email = format!("{name}@{project}.iam.gserviceaccount.com");
        let digits = key.digits();
        let account = Self {
            client_email: client_email.clone(),
            client_id: format!("1{}", &digits[..20]),
            project_id: project.to_owned(),
            project_number: project_number(project),
            token_uri: token_uri.to_owned(),
            keys: vec![key.public().clone()],
        };
        let file = ServiceAccountFile {
            kind: "service_account".to_owned(),
            project_id: project.to_owned(),
            private_key_id: key.id().to_owned(),
            private_key: key.pem().expose().to_owned(),
            client_email,
            client_id: account.client_id.clone(),
            auth_uri: token_uri.replace("/token", "/auth"),
            token_uri: token_uri.to_owned(),
            universe_domain: "googleapis.com".to_owned(),
        };
        Ok((account, file))
    }
}

/// Twelve digits that are the same for the same project.
fn project_number(project: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, project.as_bytes());
    let number =
        digest.as_ref().iter().take(8).fold(0_u64, |all, byte| all << 8 | u64::from(*byte));
    format!("{}", 100_000_000_000 + number % 900_000_000_000)
}

impl LocalIdentity {
    /// Reads the server's file. Fails with `CONFIG_INVALID`; `origin` names it in messages, which never
    /// quote it.
    pub fn parse(text: &str, origin: &str) -> Result<Self, Error> {
        let wrong = |what: String| {
            Error::new(
                Reason::ConfigInvalid,
                format!("{origin}: {what}; \"longhaul auth init\" makes such a file"),
            )
        };
        // The text of serde's errors may quote values, and one of them is a private key.
        let file: IdentityFile = serde_json::from_str(text).map_err(|error| {
            wrong(format!("is no identity file (line {}, column {})", error.line(), error.column()))
        })?;
        if file.issuer != ISSUER {
            return Err(wrong(format!("its issuer is {:?} instead of {ISSUER:?}", file.issuer)));
        }
        let key = SigningKey::from_pem(&Secret::new(file.private_key))
            .map_err(|_| wrong("private_key is no RSA key in PKCS#8 PEM".to_owned()))?;
        let mut keys = Vec::new();
        for (index, account) in file.accounts.iter().enumerate() {
            for jwk in &account.keys {
                let id = jwk.common.key_id.clone().unwrap_or_default();
                let key = DecodingKey::from_jwk(jwk).map_err(|_| {
                    wrong(format!("a key of {} cannot be used", account.client_email))
                })?;
                keys.push((id, index, key));
            }
        }
        let is_default = |account: &Account| account.client_email == file.default_account;
        let default_account = file
            .accounts
            .iter()
            .position(is_default)
            .ok_or_else(|| wrong("default_account is none of its accounts".to_owned()))?;
        let accounts = file.accounts.into_iter().map(Arc::new).collect();
        Ok(Self { key, default_account, accounts, keys })
    }

    /// The account that the metadata server speaks for.
    #[must_use]
    pub fn default_account(&self) -> &Arc<Account> {
        &self.accounts[self.default_account]
    }

    /// All accounts.
    #[must_use]
    pub fn accounts(&self) -> &[Arc<Account>] {
        &self.accounts
    }

    /// The keys that check what this server signs.
    #[must_use]
    pub fn issued_by(&self) -> JwkSet {
        JwkSet { keys: vec![self.key.public().clone()] }
    }

    /// An access token for an account; `scopes` are divided by blanks.
    pub fn access_token(
        &self,
        account: &Account,
        scopes: &str,
        now: Timestamp,
        life: Duration,
    ) -> Result<Secret, Error> {
        self.key.sign(&serde_json::json!({
            "iss": ISSUER,
            "aud": ISSUER,
            "sub": account.client_id,
            "azp": account.client_id,
            "email": account.client_email,
            "email_verified": true,
            "scope": scopes,
            "iat": now.seconds(),
            "exp": (now + life).seconds(),
        }))
    }

    /// A token that says who an account is to `audience`, and opens nothing here.
    pub fn identity_token(
        &self,
        account: &Account,
        audience: &str,
        now: Timestamp,
    ) -> Result<Secret, Error> {
        self.key.sign(&serde_json::json!({
            "iss": ISSUER,
            "aud": audience,
            "sub": account.client_id,
            "azp": account.client_id,
            "email": account.client_email,
            "email_verified": true,
            "iat": now.seconds(),
            "exp": (now + TOKEN_LIFE).seconds(),
        }))
    }
}

impl ServiceAccountFile {
    /// A token that this account signs for itself, as Google's clients do, for APIs that take its scopes.
    pub fn self_signed(
        &self,
        scopes: &str,
        now: Timestamp,
        life: Duration,
    ) -> Result<Secret, Error> {
        let key = SigningKey::from_pem(&Secret::new(self.private_key.as_str()))?;
        key.named(&self.private_key_id).sign(&serde_json::json!({
            "iss": self.client_email,
            "sub": self.client_email,
            "scope": scopes,
            "iat": now.seconds(),
            "exp": (now + life).seconds(),
        }))
    }
}

#[cfg(test)]
mod tests;
