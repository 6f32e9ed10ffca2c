//! What a server can be told, with every limit, its unit and its reason.
//!
//! Owns parsing and checking of the configuration file; the command line changes single values of
//! [`Config`] afterwards.

mod auth;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use longhaul_auth::Mode;
use longhaul_core::{Error, Reason};
use longhaul_wire::api::{Api, ApiSource};
use longhaul_wire::bundled;
use serde::{Deserialize, Deserializer};

use crate::audit::AuditConfig;
pub use crate::cells::CellConfig;
pub(crate) use crate::config::auth::is_loopback;
pub use crate::config::auth::{Auth, CancelRule, IssuerConfig};
use crate::shares::SharesConfig;
pub use crate::store::{Durability, PostgresConfig, StoreConfig};
use crate::tls::{ClientAuth, TlsConfig};

/// Everything a server can be told.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where to listen. Only loopback, unless `allow_remote`.
    pub listen: SocketAddr,
    /// Further addresses, each given to one API: what comes in there is for that API alone.
    #[serde(rename = "listener")]
    pub listeners: Vec<ApiListener>,
    /// Listen beyond loopback without TLS, as behind a proxy that ends it. Tokens then cross the network
    /// as they are.
    pub allow_remote: bool,
    /// TLS at every port; absent: plain text.
    pub tls: Option<TlsConfig>,
    /// How the server finds out who calls.
    #[serde(default)]
    pub auth: Auth,
    /// The folder of the embedded store; absent: memory, gone at the end.
    pub data: Option<PathBuf>,
    /// What to serve.
    #[serde(rename = "api")]
    pub apis: Vec<ApiConfig>,
    /// The address of a database, or how the embedded store treats the disk.
    #[serde(deserialize_with = "crate::store::address_or_table")]
    pub store: StoreConfig,
    /// How a PostgreSQL store is used.
    pub postgres: PostgresConfig,
    /// Servers of other locations, for lists over all of them.
    #[serde(rename = "cell")]
    pub cells: Vec<CellConfig>,
    /// Every limit.
    pub limits: Limits,
    /// How calls are shared out among callers.
    pub shares: SharesConfig,
    /// The audit log.
    pub audit: AuditConfig,
    /// Leases of workers.
    pub workers: Workers,
    /// How long a stopping server still takes calls while readiness says no, so that load balancers notice
    /// before the port closes. Zero where nothing stands in front.
    #[serde(deserialize_with = "duration")]
    pub lame_duck: Duration,
    /// How long a stopping server waits for calls under way, then ends them.
    #[serde(deserialize_with = "duration")]
    pub drain_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7151)),
            listeners: Vec::new(),
            allow_remote: false,
            tls: None,
            auth: Auth::off(),
            data: None,
            apis: bundled::names().map(ApiConfig::bundled).collect(),
            store: StoreConfig::default(),
            postgres: PostgresConfig::default(),
            cells: Vec::new(),
            limits: Limits::default(),
            shares: SharesConfig::default(),
            audit: AuditConfig::default(),
            workers: Workers::default(),
            lame_duck: Duration::ZERO,
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// A port that belongs to one API.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiListener {
    /// Where.
    pub listen: SocketAddr,
    /// The API's host or prefix, such as `clouddeploy`.
    pub api: String,
}

/// One API to serve: a bundled one, a descriptor set, or a folder of `.proto` files.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiConfig {
    /// Name of a bundled API, such as `clouddeploy`.
    pub bundle: Option<String>,
    /// A compiled `FileDescriptorSet` with its imports.
    pub descriptor_set: Option<PathBuf>,
    /// A folder of `.proto` files, compiled at start.
    pub proto: Option<PathBuf>,
    /// `google.api.Service` as YAML.
    pub service_config: Option<PathBuf>,
    /// Longhaul's own settings for the API, as YAML.
    pub settings: Option<PathBuf>,
}

impl ApiConfig {
    /// A bundled API.
    #[must_use]
    pub fn bundled(name: &str) -> Self {
        Self { bundle: Some(name.to_owned()), ..Self::default() }
    }
}

/// Every limit; at one the answer is `RESOURCE_EXHAUSTED` or `UNAVAILABLE` with `RetryInfo`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of one request body. 4 MiB is what gRPC clients expect of a server.
    pub body_bytes_max: usize,
    /// Bytes of the operations in one answer to a claim; further ones wait for the next. 4 MiB is what gRPC
    /// clients read. No operation is let grow beyond, for it could never be given to a worker.
    pub claim_bytes_max: usize,
    /// Bytes of the headers of one request. Google's front ends take about as much.
    pub header_bytes_max: u32,
    /// Open connections. Each takes about 20 KiB.
    pub connections_max: usize,
    /// Calls under way on one HTTP/2 connection; a client that wants more waits.
    pub streams_per_connection_max: u32,
    /// Calls under way in all, held ones apart. Bounds memory under a flood.
    pub calls_max: usize,
    /// Calls held open: waits, hanging claims and reports. At the limit a wait answers at once.
    pub held_calls_max: usize,
    /// Longest time a wait is held, the wire's "server cap".
    #[serde(deserialize_with = "duration")]
    pub wait_max: Duration,
    /// Longest time a claim or a report hangs; below common idle timeouts of proxies.
    #[serde(deserialize_with = "duration")]
    pub hang_max: Duration,
    /// Longest time a client may take to send its headers or its body; slower ones are cut off.
    #[serde(deserialize_with = "duration")]
    pub read_timeout: Duration,
    /// Rows one list call looks at before it returns a page with a token, however few fit the filter.
    pub list_scan_max: usize,
    /// Operations that one bulk cancel asks to stop in a second, so that other calls keep their share.
    pub bulk_cancels_per_second: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 4 << 20,
            claim_bytes_max: 4 << 20,
            header_bytes_max: 64 << 10,
            connections_max: 10_000,
            streams_per_connection_max: 1_024,
            calls_max: 20_000,
            held_calls_max: 100_000,
            wait_max: Duration::from_secs(600),
            hang_max: Duration::from_secs(60),
            read_timeout: Duration::from_secs(30),
            list_scan_max: 20_000,
            bulk_cancels_per_second: 500,
        }
    }
}

/// Leases of workers.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Workers {
    /// Silence after which a worker counts as lost, unless it asks for another span.
    #[serde(deserialize_with = "duration")]
    pub lease: Duration,
    /// Longest span it may ask for.
    #[serde(deserialize_with = "duration")]
    pub lease_max: Duration,
    /// How far this machine's clock may be from the clock of a store that several servers share; beyond, this
    /// server is not ready and ends no lease. Workers stop a sixth of a lease before it ends.
    #[serde(deserialize_with = "duration")]
    pub clock_skew_max: Duration,
    /// Operations one claim may take, and items one report may have.
    pub batch_max: usize,
    /// Bytes of one checkpoint.
    pub checkpoint_bytes_max: usize,
    /// Bytes of metadata, or of a progress message, in one report.
    pub progress_bytes_max: usize,
}

impl Default for Workers {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(30),
            lease_max: Duration::from_secs(3600),
            clock_skew_max: Duration::from_secs(2),
            batch_max: 1000,
            checkpoint_bytes_max: 1 << 20,
            progress_bytes_max: 1 << 20,
        }
    }
}

impl Config {
    /// Reads a configuration file's text; `origin` names it in messages. Fails with `CONFIG_INVALID`.
    pub fn parse(text: &str, origin: &str) -> Result<Self, Error> {
        let config: Self = toml::from_str(text)
            .map_err(|error| invalid(format!("{origin}: {}", error.to_string().trim_end())))?;
        config.check()?;
        Ok(config)
    }

    /// Checks what single values cannot show. Fails with `CONFIG_INVALID`.
    pub fn check(&self) -> Result<(), Error> {
        self.auth.check()?;
        let addresses = self.listeners.iter().map(|listener| listener.listen).chain([self.listen]);
        for address in addresses {
            if address.ip().is_loopback() {
                continue;
            }
            if self.auth.mode() == Mode::Off {
                return Err(invalid(format!(
                    "listen = \"{address}\" is reachable from other machines, and with auth.mode = \"off\" nobody is asked who they are; \
                     use a loopback address such as 127.0.0.1, or another mode"
                )));
            }
            if !self.allow_remote && self.tls.is_none() {
                return Err(invalid(format!(
                    "listen = \"{address}\" is reachable from other machines, and tokens would cross the network readable; \
                     configure [tls], use a loopback address such as 127.0.0.1, or set allow_remote = true if a proxy in front speaks TLS"
                )));
            }
        }
        if let Some(tls) = &self.tls {
            tls.check()?;
        }
        self.store.check(self.data.as_deref())?;
        if self.audit.queue_max < 8 || self.audit.rotate_bytes == 0 {
            return Err(invalid(
                "audit.queue_max must be at least 8 and audit.rotate_bytes above zero".into(),
            ));
        }
        if self.shares.principals_max == 0 {
            return Err(invalid("shares.principals_max must be above zero".into()));
        }
        let asks = |tls: &TlsConfig| tls.client_auth == ClientAuth::Required;
        if self.auth.mode().needs_certificates() && !self.tls.as_ref().is_some_and(asks) {
            return Err(invalid(format!(
                "auth.mode = \"{}\" needs [tls] with client_auth = \"required\": callers are known by their certificates",
                self.auth.mode()
            )));
        }
        if self.apis.is_empty() {
            return Err(invalid("no API is configured; add [[api]] with bundle = \"clouddeploy\" or with your own descriptor_set".into()));
        }
        for api in &self.apis {
            let ways = [api.bundle.is_some(), api.descriptor_set.is_some(), api.proto.is_some()];
            if ways.iter().filter(|way| **way).count() != 1 {
                return Err(invalid(
                    "each [[api]] takes exactly one of bundle, descriptor_set and proto".into(),
                ));
            }
        }
        if self.workers.lease.is_zero() || self.workers.lease > self.workers.lease_max {
            return Err(invalid(
                "workers.lease must be above zero and at most workers.lease_max".into(),
            ));
        }
        Ok(())
    }
}

/// Loads one configured API. Fails with `CONFIG_INVALID` for an unreadable file and `API_INVALID` for its
/// contents.
pub fn load_api(config: &ApiConfig) -> Result<Arc<Api>, Error> {
    if let Some(name) = &config.bundle {
        return bundled::load(name);
    }
    let service_config = text_of(config.service_config.as_deref())?;
    let settings = text_of(config.settings.as_deref())?;
    let (descriptor_set, origin) = match (&config.descriptor_set, &config.proto) {
        (Some(file), _) => (read(file)?, file),
        (None, Some(folder)) => (longhaul_wire::protos::compile_protos(folder)?, folder),
        (None, None) => return Err(invalid("an API needs bundle, descriptor_set or proto".into())),
    };
    let shown = |file: &Option<PathBuf>| {
        file.as_ref().map_or(String::new(), |file| file.display().to_string())
    };
    Api::load(&ApiSource {
        descriptor_set: &descriptor_set,
        descriptor_set_file: &origin.display().to_string(),
        service_config: &service_config,
        service_config_file: &shown(&config.service_config),
        settings: &settings,
        settings_file: &shown(&config.settings),
        native: false,
    })
}

fn text_of(file: Option<&Path>) -> Result<String, Error> {
    let Some(file) = file else { return Ok(String::new()) };
    String::from_utf8(read(file)?)
        .map_err(|_| invalid(format!("{} is not UTF-8 text", file.display())))
}

fn read(file: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(file).map_err(|error| invalid(format!("cannot read {}: {error}", file.display())))
}

pub(crate) fn invalid(message: String) -> Error {
    Error::new(Reason::ConfigInvalid, message)
}

/// Reads a span such as `500ms`, `10s`, `2m`, `1h` or `30d`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || {
        format!(
            "{text:?} is not a span of time; write a number and ms, s, m, h or d, such as \"500ms\" or \"10s\""
        )
    };
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit.trim() {
        "ms" => number / 1e3,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        "d" => number * 86_400.0,
        _ => return Err(wrong()),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

pub(crate) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("30d"), Ok(Duration::from_secs(30 * 86_400)));
        for wrong in ["", "10", "s", "-1s", "1e9s", "10 parsecs", "99999999999999999999d", "1.2.3s"]
        {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[track_caller]
    fn check_refused(text: &str, word: &str) {
        let text = format!("{text}\n[auth]\nmode = \"off\"\n");
        let error = Config::parse(&text, "test.toml").unwrap_err();
        assert_eq!(error.reason, Reason::ConfigInvalid);
        assert!(error.message.contains(word), "{}", error.message);
    }

    #[test]
    fn a_wrong_configuration_is_refused_with_its_key() {
        check_refused("lisen = \"127.0.0.1:1\"", "lisen");
        check_refused("listen = \"0.0.0.0:7151\"", "auth.mode");
        check_refused("[limits]\nwait_max = \"10\"", "span of time");
        check_refused("[tls]\ncert = \"c.pem\"", "key");
        check_refused("[tls]\ncert = \"c\"\nkey = \"k\"\nclient_auth = \"required\"", "client_ca");
        check_refused("[tls]\ncert = \"c\"\nkey = \"k\"\nclient_ca = \"a\"", "client_auth");
        check_refused("[tls]\nmin_version = \"1.1\"", "1.2");
        check_refused("api = []", "no API");
        check_refused("[audit]\nqueue_max = 1", "queue_max");
        check_refused("[audit]\ndestination = \"syslog\"", "file:");
        check_refused("[shares]\nprincipals_max = 0", "principals_max");
        check_refused("[[api]]\nbundle = \"a\"\nproto = \"b\"", "exactly one");
        check_refused("[workers]\nlease = \"2h\"", "lease_max");
    }

    #[test]
    fn a_file_must_choose_how_callers_are_identified() {
        let error = Config::parse("", "test.toml").unwrap_err();
        assert!(error.message.contains("[auth]"), "{}", error.message);
        let error = Config::parse("[auth]\nmode = \"none\"", "test.toml").unwrap_err();
        assert!(error.message.contains("jwt+mtls"), "{}", error.message);
        let remote =
            "listen = \"0.0.0.0:1\"\n[auth]\nmode = \"jwt\"\nservice_accounts = [\"a.json\"]";
        let error = Config::parse(remote, "test.toml").unwrap_err();
        assert!(error.message.contains("allow_remote"), "{}", error.message);
        assert_eq!(Config::default().auth.mode(), Mode::Off);
        let error = Config::parse("[auth]\nmode = \"mtls\"", "test.toml").unwrap_err();
        assert!(error.message.contains("client_auth"), "{}", error.message);
    }

    #[test]
    fn the_mode_is_all_that_a_file_must_say() {
        let config = Config::parse("[auth]\nmode = \"off\"", "test.toml").unwrap();
        assert!(config.listen.ip().is_loopback());
        assert_eq!(config.apis.len(), bundled::names().count());
    }
}
