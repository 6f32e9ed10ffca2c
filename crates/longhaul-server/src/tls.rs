//! TLS at every port: certificates, their change while the server runs, and the handshake.
//!
//! Owns files, versions and limits of TLS, and who a client certificate speaks for. Whether that one may
//! do anything is the gate's business.

mod files;
mod handshakes;
mod peer;
mod plaintext;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use longhaul_core::{Error, Reason, Timestamp};
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::duration;
use crate::tls::files::{Files, Loaded};
use crate::tls::handshakes::Handshakes;
pub use crate::tls::peer::{CertificateName, ClientCertificate, NameKind, Peer};
use crate::tls::plaintext::Plain;

/// A handshake that went wrong is told at most this often; the rest is counted.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// A certificate that ends sooner than this is told of.
const ENDS_SOON: Duration = Duration::from_secs(7 * 24 * 3600);

/// How the ports speak TLS.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// The server's certificate and those between it and its authority, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM; nobody else should be able to read the file.
    pub key: PathBuf,
    /// The authorities whose client certificates are believed, PEM.
    pub client_ca: Option<PathBuf>,
    /// Whether clients show a certificate.
    pub client_auth: ClientAuth,
    /// Which name of a client certificate says who it is; the first kind that it has counts.
    pub client_name: Vec<NameKind>,
    /// The oldest version of TLS that is spoken.
    pub min_version: MinVersion,
    /// Longest time from a connection to the end of its handshake; slower ones are cut off.
    #[serde(deserialize_with = "duration")]
    pub handshake_timeout: Duration,
    /// Handshakes under way, about 40 KiB each; for one more the oldest is cut off.
    pub handshakes_max: usize,
    /// How often the files are looked at for a change.
    #[serde(deserialize_with = "duration")]
    pub reload_every: Duration,
}

impl Default for TlsConfig {
    fn default() -> Self {
        Self {
            cert: PathBuf::new(),
            key: PathBuf::new(),
            client_ca: None,
            client_auth: ClientAuth::None,
            client_name: vec![NameKind::Email, NameKind::Uri, NameKind::Dns, NameKind::CommonName],
            min_version: MinVersion::V1_2,
            handshake_timeout: Duration::from_secs(10),
            handshakes_max: 1_000,
            reload_every: Duration::from_secs(5),
        }
    }
}

/// Whether clients show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// They are not asked.
    #[default]
    None,
    /// They are asked, and may go on without; a certificate that is shown must be good.
    Optional,
    /// Without one there is no connection.
    Required,
}

/// The oldest version of TLS that is spoken. Anything below 1.2 is never spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum MinVersion {
    /// 1.2 and 1.3.
    #[default]
    #[serde(rename = "1.2")]
    V1_2,
    /// 1.3 only.
    #[serde(rename = "1.3")]
    V1_3,
}

impl TlsConfig {
    /// Checks what single values cannot show. Fails with `CONFIG_INVALID`.
    pub fn check(&self) -> Result<(), Error> {
        let wrong = |message: &str| Err(invalid(message.to_owned()));
        if self.cert.as_os_str().is_empty() || self.key.as_os_str().is_empty() {
            return wrong(
                "[tls] needs cert and key, two PEM files; \"longhaul tls init\" makes them",
            );
        }
        match (self.client_auth, &self.client_ca) {
            (ClientAuth::None, Some(_)) => wrong(
                "[tls] client_ca has no effect with client_auth = \"none\"; set it to \"optional\" or \"required\"",
            ),
            (ClientAuth::Optional | ClientAuth::Required, None) => wrong(
                "[tls] client_auth needs client_ca, the PEM file of the authorities that are believed",
            ),
            (ClientAuth::None, None) | (ClientAuth::Optional | ClientAuth::Required, Some(_)) => {
                if self.client_name.is_empty() {
                    return wrong(
                        "[tls] client_name names at least one of email, uri, dns and common_name",
                    );
                }
                if self.handshake_timeout.is_zero()
                    || self.handshakes_max == 0
                    || self.reload_every.is_zero()
                {
                    return wrong(
                        "[tls] handshake_timeout, handshakes_max and reload_every must be above zero",
                    );
                }
                Ok(())
            }
        }
    }
}

/// What is shown to clients now, and the place for what comes after.
pub(crate) struct Tls {
    config: TlsConfig,
    clock: Arc<dyn Clock>,
    now: ArcSwap<Loaded>,
    handshakes: Handshakes,
    failures: Mutex<Failures>,
}

/// A connection after its handshake.
pub(crate) struct Shaken {
    pub(crate) stream: TlsStream<TcpStream>,
    pub(crate) certificate: Option<Arc<ClientCertificate>>,
}

/// Handshakes that went wrong, told one in a while.
#[derive(Default)]
struct Failures {
    told_at: Option<Timestamp>,
    untold: u64,
}

/// Changed files that cannot be used, by what they hold; `None` when they cannot even be read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Doubt {
    /// Seen once: they may be half written.
    Fresh(Option<u64>),
    /// Seen again, and told.
    Told(Option<u64>),
}

/// How near the end of the server's own certificate is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Life {
    Long,
    EndsSoon,
    Over,
}

impl Tls {
    /// Reads the files. Fails with `CONFIG_INVALID` and names the file.
    pub(crate) fn load(config: &TlsConfig, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let loaded = Files::read(config)?.load(config)?;
        Ok(Self {
            config: config.clone(),
            clock,
            now: ArcSwap::from_pointee(loaded),
            handshakes: Handshakes::new(config.handshakes_max),
            failures: Mutex::default(),
        })
    }

    /// Shows a changed certificate from the next handshake on, until `stop`. Connections that there are
    /// go on. Files that do not fit together are told loudly and change nothing.
    pub(crate) async fn keep_fresh(self: Arc<Self>, stop: CancellationToken) {
        let mut seen = self.now.load().fingerprint;
        let (mut doubted, mut life) = (None, self.tell_life(Life::Long));
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.clock.sleep(self.config.reload_every) => {}
            }
            let read = Files::read(&self.config);
            let found = read.as_ref().ok().map(Files::fingerprint);
            if found != Some(seen) || doubted.is_some() {
                match read.and_then(|files| files.load(&self.config)) {
                    Ok(loaded) => {
                        let changed = loaded.fingerprint != seen;
                        (seen, doubted) = (loaded.fingerprint, None);
                        if changed {
                            self.now.store(Arc::new(loaded));
                            life = Life::Long;
                            tracing::info!(cert = %self.config.cert.display(), "a new certificate is shown");
                        }
                    }
                    // Certificate and key are rarely changed in one step: a second look decides.
                    Err(_) if doubted.is_none() => doubted = Some(Doubt::Fresh(found)),
                    Err(error) => doubted = self.doubt(doubted, found, &error),
                }
            }
            life = self.tell_life(life);
        }
    }

    /// Tells of files that cannot be used, once for each state of theirs.
    fn doubt(&self, before: Option<Doubt>, found: Option<u64>, error: &Error) -> Option<Doubt> {
        if before == Some(Doubt::Fresh(found)) {
            tracing::error!(
                reason = error.reason.name(),
                message = %error.message,
                "THE NEW CERTIFICATE IS NOT USED; the one before it is still shown"
            );
            return Some(Doubt::Told(found));
        }
        if before == Some(Doubt::Told(found)) { before } else { Some(Doubt::Fresh(found)) }
    }

    /// Tells when the server's own certificate comes to its end, once for each step.
    fn tell_life(&self, before: Life) -> Life {
        let left = self.now.load().expires_at.since(self.clock.now());
        let life = match left {
            Duration::ZERO => Life::Over,
            left if left < ENDS_SOON => Life::EndsSoon,
            _ => Life::Long,
        };
        if life != before {
            let cert = self.config.cert.display();
            match life {
                Life::Long => {}
                Life::EndsSoon => {
                    tracing::warn!(%cert, hours = left.as_secs() / 3600, "the certificate ends soon; renew it");
                }
                Life::Over => {
                    tracing::error!(%cert, "THE CERTIFICATE HAS EXPIRED; clients refuse it until it is renewed");
                }
            }
        }
        life
    }

    /// The handshake of one connection, within its time. `None`: there is no connection, and the other
    /// end was told what TLS can tell it.
    pub(crate) async fn accept(&self, stream: TcpStream, from: SocketAddr) -> Option<Shaken> {
        let limit = self.config.handshake_timeout;
        let place = self.handshakes.begin();
        let why = tokio::select! {
            shaken = tokio::time::timeout(limit, self.shake(stream)) => match shaken {
                Ok(Ok(shaken)) => return shaken,
                Ok(Err(why)) => why,
                Err(_) => format!("it was not over within {limit:?}"),
            },
            () = place.gone.cancelled() => "too many are under way, and it was the oldest".to_owned(),
        };
        self.tell_failure(from, &why);
        None
    }

    /// `None`: the other end left without a word, as port checks do.
    async fn shake(&self, stream: TcpStream) -> Result<Option<Shaken>, String> {
        let mut first = [0; 4];
        let seen = stream.peek(&mut first).await.map_err(|error| error.to_string())?;
        if seen == 0 {
            return Ok(None);
        }
        if let Some(plain) = Plain::of(&first[..seen]) {
            plain.refuse(stream).await;
            return Err("the other end does not speak TLS".to_owned());
        }
        let config = self.now.load().config.clone();
        let accepting = tokio_rustls::TlsAcceptor::from(config).accept(stream);
        let stream = accepting.await.map_err(|error| error.to_string())?;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let certificate = shown
            .map(|der| ClientCertificate::read(der, &self.config.client_name, self.clock.now()))
            .transpose()?;
        Ok(Some(Shaken { stream, certificate: certificate.map(Arc::new) }))
    }

    /// Tells of a handshake that went wrong, but never of each in a flood.
    fn tell_failure(&self, from: SocketAddr, why: &str) {
        let mut failures = self.failures.lock();
        let now = self.clock.now();
        if failures.told_at.is_some_and(|told_at| now < told_at + TELL_EVERY) {
            failures.untold += 1;
            return;
        }
        let untold = std::mem::take(&mut failures.untold);
        failures.told_at = Some(now);
        drop(failures);
        tracing::warn!(%from, why, untold, "a TLS handshake failed");
    }
}

fn invalid(message: String) -> Error {
    Error::new(Reason::ConfigInvalid, message)
}
