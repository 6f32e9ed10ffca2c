//! What can be said about fair shares in the configuration.

use serde::Deserialize;

/// How calls are shared out. Zero means no limit, everywhere.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SharesConfig {
    /// What each known caller may have of each API.
    pub per_principal: Share,
    /// What each address may have of each API where callers are not known.
    pub per_peer: Share,
    /// What all callers together may have of each API.
    pub per_api: Share,
    /// What single callers or APIs may have instead; the first that fits is taken.
    #[serde(rename = "share")]
    pub shares: Vec<ShareOf>,
    /// Callers remembered at a time, each about 200 bytes. Beyond that, new ones share one budget until
    /// others have been quiet long enough to be forgotten without loss.
    pub principals_max: usize,
}

impl Default for SharesConfig {
    fn default() -> Self {
        Self {
            per_principal: Share {
                calls_per_second: 2_000,
                calls_burst: 4_000,
                cancels_per_second: 10_000,
                cancels_burst: 20_000,
                held_max: 20_000,
            },
            per_peer: Share::default(),
            per_api: Share::default(),
            shares: Vec::new(),
            principals_max: 100_000,
        }
    }
}

/// What one caller or one API may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Share {
    /// Calls in a second, cancels apart.
    pub calls_per_second: u32,
    /// Calls at once after a quiet time. Zero: as many as in a second.
    pub calls_burst: u32,
    /// Cancels in a second. Should be more than calls: stopping what runs away is the last thing to refuse.
    pub cancels_per_second: u32,
    /// Cancels at once after a quiet time. Zero: as many as in a second.
    pub cancels_burst: u32,
    /// Calls held open at a time: waits, watches.
    pub held_max: u32,
}

/// A share of somebody's own; zero means no limit here, too.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShareOf {
    /// Whose: a caller's address as records have it, or a peer's. Unset: every caller's.
    pub principal: Option<String>,
    /// Of which API, by its name. Unset: of each.
    pub api: Option<String>,
    /// What all callers together have of the API, rather than each of them.
    pub total: bool,
    /// As in [`Share`].
    pub calls_per_second: u32,
    /// As in [`Share`].
    pub calls_burst: u32,
    /// As in [`Share`].
    pub cancels_per_second: u32,
    /// As in [`Share`].
    pub cancels_burst: u32,
    /// As in [`Share`].
    pub held_max: u32,
}

impl ShareOf {
    const fn share(&self) -> Share {
        Share {
            calls_per_second: self.calls_per_second,
            calls_burst: self.calls_burst,
            cancels_per_second: self.cancels_per_second,
            cancels_burst: self.cancels_burst,
            held_max: self.held_max,
        }
    }

    fn fits(&self, principal: &str, api: &str) -> bool {
        self.principal.as_deref().is_none_or(|only| only == principal)
            && self.api.as_deref().is_none_or(|only| only == api)
    }
}

impl Share {
    /// Whether anything is limited.
    #[must_use]
    pub fn limits(&self) -> bool {
        *self != Self::default()
    }
}

impl SharesConfig {
    /// Whether anything is counted for callers who are known, or who are not.
    pub(crate) fn counts(&self, peer: bool) -> bool {
        let each = if peer { &self.per_peer } else { &self.per_principal };
        each.limits() || self.per_api.limits() || !self.shares.is_empty()
    }

    /// What one caller may have of an API.
    pub(crate) fn of_principal(&self, peer: bool, principal: &str, api: &str) -> Share {
        let own = self.shares.iter().find(|own| !own.total && own.fits(principal, api));
        let each = if peer { self.per_peer } else { self.per_principal };
        own.map_or(each, ShareOf::share)
    }

    /// What all callers together may have of an API.
    pub(crate) fn of_api(&self, api: &str) -> Share {
        let own = self.shares.iter().find(|own| own.total && own.fits("", api));
        own.map_or(self.per_api, ShareOf::share)
    }
}
