//! `[auth]`: how a server finds out who calls, and what decides what they may do.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use longhaul_auth::{Mode, Principal};
use longhaul_core::Error;
use serde::{Deserialize, Deserializer};

use super::{duration, invalid};

/// How a server finds out who calls, and what decides what they may do.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// `off`, `local`, `jwt`, `mtls` or `jwt+mtls`. A configuration file must choose.
    #[serde(deserialize_with = "mode")]
    pub mode: Option<Mode>,
    /// For mode `local`: the `server.json` that `longhaul auth init` makes.
    pub local: Option<PathBuf>,
    /// The policy file, YAML or JSON. Without one nobody may do anything, unless the mode is `off`.
    pub policy: Option<PathBuf>,
    /// Whose tokens are taken.
    #[serde(rename = "issuer")]
    pub issuers: Vec<IssuerConfig>,
    /// Files of service accounts that sign tokens for themselves, with their public keys.
    pub service_accounts: Vec<PathBuf>,
    /// Members by a certificate's name, such as `"dns:worker-7.example" = "serviceAccount:w@example.com"`.
    pub certificates: BTreeMap<String, String>,
    /// Who may cancel.
    pub cancel: CancelRule,
    /// How far the clocks of issuers may be off.
    #[serde(deserialize_with = "duration")]
    pub leeway: Duration,
    /// How often the files named here are looked at for a change.
    #[serde(deserialize_with = "duration")]
    pub reload_every: Duration,
    /// Shortest time between two requests for the keys of one issuer, however many tokens name unknown ones.
    #[serde(deserialize_with = "duration")]
    pub refetch_wait: Duration,
    /// Longest time that a request for the keys of an issuer may take.
    #[serde(deserialize_with = "duration")]
    pub jwks_timeout: Duration,
    /// Bytes of a token.
    pub token_bytes_max: usize,
    /// Verified tokens that are remembered until they end, about 500 bytes each.
    pub tokens_remembered_max: usize,
    /// Decisions that are remembered until the policies change, about 200 bytes each.
    pub decisions_remembered_max: usize,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            mode: None,
            local: None,
            policy: None,
            issuers: Vec::new(),
            service_accounts: Vec::new(),
            certificates: BTreeMap::new(),
            cancel: CancelRule::Permission,
            leeway: Duration::from_secs(60),
            reload_every: Duration::from_secs(5),
            refetch_wait: Duration::from_secs(10),
            jwks_timeout: Duration::from_secs(10),
            token_bytes_max: 16 << 10,
            tokens_remembered_max: 20_000,
            decisions_remembered_max: 100_000,
        }
    }
}

/// Who may cancel an operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CancelRule {
    /// Whoever has the permission.
    #[default]
    Permission,
    /// Of those, who started it and who has `longhaul.operations.cancelAny` beside.
    Owner,
}

/// Somebody whose tokens are taken.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerConfig {
    /// `iss` of its tokens.
    pub name: String,
    /// `aud` must have one of these.
    pub audiences: Vec<String>,
    /// Its keys: a JSON Web Key Set in a file.
    #[serde(default)]
    pub jwks_file: Option<PathBuf>,
    /// Or the URL where it publishes them.
    #[serde(default)]
    pub jwks_url: Option<String>,
    /// How long keys from the URL are taken for current. Old ones go on counting while it cannot be reached.
    #[serde(default = "an_hour", deserialize_with = "duration")]
    pub jwks_refresh: Duration,
    /// The claim that lists groups; empty for none.
    #[serde(default)]
    pub groups_claim: String,
    /// Scopes of a token that names none, for issuers that know no scopes.
    #[serde(default)]
    pub scopes_default: Vec<String>,
}

fn an_hour() -> Duration {
    Duration::from_secs(3600)
}

impl Auth {
    /// Nobody is asked: for `longhaul dev` and tests.
    #[must_use]
    pub fn off() -> Self {
        Self { mode: Some(Mode::Off), ..Self::default() }
    }

    /// The mode, once [`Self::check`] has passed; before, the strictest.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode.unwrap_or(Mode::JwtAndMtls)
    }

    /// Fails with `CONFIG_INVALID` when no mode was chosen, or the rest does not go with it.
    pub(super) fn check(&self) -> Result<(), Error> {
        let Some(mode) = self.mode else {
            return Err(invalid(
                "how callers are identified must be chosen: under [auth] write mode = \"off\" (nobody is asked; \
                 loopback only), \"local\", \"jwt\", \"mtls\" or \"jwt+mtls\"; docs/access.md describes them"
                    .into(),
            ));
        };
        if matches!(mode, Mode::Jwt | Mode::JwtAndMtls)
            && self.issuers.is_empty()
            && self.service_accounts.is_empty()
        {
            return Err(invalid(format!(
                "auth.mode = \"{mode}\" needs somebody whose tokens are taken: add [[auth.issuer]] or auth.service_accounts"
            )));
        }
        if self.reload_every.is_zero() || self.jwks_timeout.is_zero() {
            return Err(invalid(
                "auth.reload_every and auth.jwks_timeout must be above zero".into(),
            ));
        }
        for (position, issuer) in self.issuers.iter().enumerate() {
            let name = &issuer.name;
            let wrong = |what: &str| Err(invalid(format!("auth.issuer {name:?} {what}")));
            if self.issuers[..position].iter().any(|other| other.name == *name) {
                return wrong("is there twice");
            }
            if name.is_empty() || issuer.audiences.is_empty() {
                return wrong("needs a name and audiences: tokens for others must not count here");
            }
            if issuer.jwks_file.is_some() == issuer.jwks_url.is_some() {
                return wrong("takes exactly one of jwks_file and jwks_url");
            }
            if let Some(url) = &issuer.jwks_url
                && !url.starts_with("https://")
                && !(url.starts_with("http://") && is_loopback(url))
            {
                return wrong(
                    "has a jwks_url that is not https; anybody on the way could give it keys",
                );
            }
        }
        for (name, member) in &self.certificates {
            if Principal::from_member(member).is_none() {
                return Err(invalid(format!(
                    "auth.certificates {name:?} is for {member:?}, which is no user:, serviceAccount: or principal://"
                )));
            }
        }
        Ok(())
    }
}

/// Whether a URL leads to this machine.
pub(crate) fn is_loopback(url: &str) -> bool {
    let url = reqwest::Url::parse(url);
    url.is_ok_and(|url| matches!(url.host_str(), Some("127.0.0.1" | "[::1]" | "localhost")))
}

fn mode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Mode>, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::is_loopback;

    #[test]
    fn a_url_is_of_this_machine_by_its_host_alone() {
        for near in
            ["http://127.0.0.1:1/k", "http://[::1]/k", "http://localhost", "https://LOCALHOST/k"]
        {
            assert!(is_loopback(near), "{near}");
        }
        for far in [
            "http://localhost:80@issuer.example/k",
            "http://127.0.0.1@issuer.example/k",
            "http://localhost.issuer.example/k",
            "http://issuer.example/127.0.0.1",
            "localhost",
            "",
        ] {
            assert!(!is_loopback(far), "{far}");
        }
    }
}
