//! `[auth]`: how a server finds out who calls.

use std::path::PathBuf;

use longhaul_auth::Mode;
use longhaul_core::Error;
use serde::{Deserialize, Deserializer};

use super::invalid;

/// How a server finds out who calls.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// `off`, `local`, `jwt`, `mtls` or `jwt+mtls`. A configuration file must choose.
    #[serde(deserialize_with = "mode")]
    pub mode: Option<Mode>,
    /// For mode `local`: the `server.json` that `longhaul auth init` makes.
    pub local: Option<PathBuf>,
}

impl Auth {
    /// Nobody is asked: for `longhaul dev` and tests.
    #[must_use]
    pub fn off() -> Self {
        Self { mode: Some(Mode::Off), local: None }
    }

    /// The mode, once [`Self::check`] has passed; before, the strictest.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode.unwrap_or(Mode::JwtAndMtls)
    }

    /// Fails with `CONFIG_INVALID` when no mode was chosen.
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.mode.is_none() {
            return Err(invalid(
                "how callers are identified must be chosen: under [auth] write mode = \"off\" (nobody is asked; \
                 loopback only), \"local\", \"jwt\", \"mtls\" or \"jwt+mtls\"; docs/access.md describes them"
                    .into(),
            ));
        }
        Ok(())
    }
}

fn mode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Mode>, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(serde::de::Error::custom)
}
