//! Fair shares: how many calls a second, and how many held ones, each caller and each API may have.
//!
//! Owns the counting and its bounds in memory. Who calls is decided before; the limits of the whole server
//! stay where they are, in `call.rs` and `watch.rs`. Cancels have a budget of their own and never pay for
//! other calls.

mod bucket;
mod calls;
mod config;
mod table;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use longhaul_core::{Error, QuotaViolation, Reason, Timestamp};

pub use self::config::{Share, ShareOf, SharesConfig};
use self::table::{Denied, Table};

/// What a call counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An ordinary call.
    Call,
    /// A request to stop something: by its own budget.
    Cancel,
}

/// Who a call is counted for.
#[derive(Clone, Copy, Debug)]
pub enum Payer<'a> {
    /// Somebody known, by the name that records use.
    Principal(&'a str),
    /// Nobody known, from this address.
    Peer(IpAddr),
}

/// The counters of a server.
pub struct Shares {
    config: SharesConfig,
    principals: Arc<Table>,
    apis: Arc<Table>,
}

/// The place of one held call, given back when dropped.
#[derive(Debug)]
pub struct Place {
    _places: [Option<table::Held>; 2],
}

impl Shares {
    /// Nobody has called yet.
    #[must_use]
    pub fn new(config: &SharesConfig) -> Self {
        Self {
            config: config.clone(),
            principals: Arc::new(Table::new(config.principals_max)),
            apis: Arc::new(Table::new(config.principals_max)),
        }
    }

    /// Whether anything is counted for such callers.
    #[must_use]
    pub fn counts(&self, payer: Payer<'_>) -> bool {
        self.config.counts(matches!(payer, Payer::Peer(_)))
    }

    /// Counts one call to `api`, and takes a place for it when it is `held`.
    ///
    /// Fails with `RATE_LIMIT_EXCEEDED`; then nothing is counted.
    pub fn take(
        &self,
        payer: Payer<'_>,
        api: &str,
        kind: Kind,
        held: bool,
        now: Timestamp,
    ) -> Result<Place, Error> {
        let name = name_of(payer);
        let of_one = self.config.of_principal(matches!(payer, Payer::Peer(_)), &name, api);
        let of_api = self.config.of_api(api);
        let one = self.principals.take(&name, api, &of_one, kind, held, now);
        let one = one.map_err(|denied| refused(&denied, &name, api, kind))?;
        let whole = match self.apis.take("", api, &of_api, kind, held, now) {
            Ok(whole) => whole,
            Err(denied) => {
                self.principals.give_back(&name, api, &of_one, kind);
                return Err(refused(&denied, "", api, kind));
            }
        };
        Ok(Place { _places: [one, whole] })
    }
}

/// The name that a caller is counted under: of an address of IPv6 the network that one customer has.
fn name_of(payer: Payer<'_>) -> Cow<'_, str> {
    match payer {
        Payer::Principal(name) => name.into(),
        Payer::Peer(address) => match address.to_canonical() {
            IpAddr::V4(address) => address.to_string().into(),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                format!("{a:x}:{b:x}:{c:x}:{d:x}::/64").into()
            }
        },
    }
}

/// The answer to one call too many, in Google's form. Source: google/api/error_reason.proto,
/// `RATE_LIMIT_EXCEEDED`; google/rpc/error_details.proto, `QuotaFailure`.
fn refused(denied: &Denied, name: &str, api: &str, kind: Kind) -> Error {
    let (metric, what) = match (denied, kind) {
        (Denied::Held { .. }, _) => ("held_calls", "calls held open"),
        (Denied::Rate { .. }, Kind::Call) => ("calls", "calls"),
        (Denied::Rate { .. }, Kind::Cancel) => ("cancels", "cancels"),
    };
    let whose = if name.is_empty() { "PerApi" } else { "PerPrincipal" };
    let (limit, unit, wait) = match denied {
        Denied::Rate { per_second, wait } => (per_second.to_string(), "1/s", *wait),
        Denied::Held { max } => (max.to_string(), "1", Duration::from_secs(1)),
    };
    let per = if unit == "1/s" { " a second" } else { "" };
    let subject = if name.is_empty() { format!("api:{api}") } else { format!("principal:{name}") };
    let message = format!(
        "quota exceeded for {what} of {api}: {subject} has {limit}{per}; wait as long as RetryInfo says"
    );
    Error::new(Reason::RateLimitExceeded, message.clone())
        .from_domain("googleapis.com")
        .with("service", api)
        .with("consumer", subject.clone())
        .with("quota_metric", format!("{api}/{metric}"))
        .with("quota_limit", format!("{metric}{whose}"))
        .with("quota_limit_value", limit)
        .with("quota_unit", unit)
        .with("quota_location", "global")
        .over_quota(QuotaViolation { subject, description: message })
        .retry_after(wait)
}
