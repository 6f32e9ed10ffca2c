//! Service accounts that sign tokens for themselves, and the public keys that they may sign with.
//!
//! Owns the file in which they are registered; private keys are never in it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::KeySet;

/// Registered service accounts, by address.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    by_email: BTreeMap<String, KeySet>,
}

/// The file: `{"accounts": [{"email": …, "keys": […], "public_keys": {…}}]}`.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    accounts: Vec<Account>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Account {
    email: String,
    /// JSON Web Keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    keys: Vec<serde_json::Value>,
    /// Public keys in PEM, by key id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    public_keys: BTreeMap<String, String>,
}

impl Accounts {
    /// Reads the text of an accounts file. Fails, in words, on an unknown member, an address given twice, an
    /// account without keys and a malformed key.
    pub fn parse(text: &str) -> Result<Self, String> {
        let document: Document =
            serde_json::from_str(text).map_err(|error| format!("it cannot be read: {error}"))?;
        let mut by_email = BTreeMap::new();
        for account in document.accounts {
            let email = account.email.to_ascii_lowercase();
            let of = |error: String| format!("account {email}: {error}");
            if !email.contains('@') {
                return Err(of("that is no e-mail address".into()));
            }
            let mut keys = KeySet::of_jwks(&account.keys).map_err(of)?;
            keys.add(KeySet::of_pems(&account.public_keys).map_err(of)?);
            if keys.is_empty() {
                return Err(of("it has no keys".into()));
            }
            if by_email.insert(email.clone(), keys).is_some() {
                return Err(of("it is there twice".into()));
            }
        }
        Ok(Self { by_email })
    }

    /// The text of an accounts file after `email` got one more public key, in PEM. `text` is the file so far,
    /// empty for none.
    pub fn with_key(text: &str, email: &str, kid: &str, pem: &str) -> Result<String, String> {
        let mut document = match text.trim() {
            "" => Document::default(),
            text => {
                serde_json::from_str(text).map_err(|error| format!("it cannot be read: {error}"))?
            }
        };
        let keys = BTreeMap::from([(kid.to_owned(), pem.to_owned())]);
        match document.accounts.iter_mut().find(|account| account.email.eq_ignore_ascii_case(email))
        {
            Some(account) => account.public_keys.extend(keys),
            None => document.accounts.push(Account {
                email: email.to_owned(),
                keys: Vec::new(),
                public_keys: keys,
            }),
        }
        let text = serde_json::to_string_pretty(&document).map_err(|error| error.to_string())?;
        Self::parse(&text)?;
        Ok(text + "\n")
    }

    /// The keys of an account, if it is registered.
    pub(super) fn keys(&self, email: &str) -> Option<&KeySet> {
        self.by_email.get(email)
    }

    /// Whether it is registered.
    #[must_use]
    pub fn has(&self, email: &str) -> bool {
        self.by_email.contains_key(email)
    }

    /// These and those of `other`, whose keys go before for an address in both.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.by_email.extend(other.by_email);
        self
    }
}
