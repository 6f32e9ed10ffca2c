//! Where keys, accounts and policies come from: files that are looked at again and again, and URLs.
//!
//! All or nothing, each for itself: what cannot be read changes nothing, and is told loudly once. A key set
//! that was had once goes on counting while its URL cannot be reached, and files are looked at meanwhile.

mod accounts;
mod urls;

use std::path::Path;
use std::sync::Arc;

use futures_util::future::join_all;
use longhaul_auth::policy::Decider;
use longhaul_auth::policy::{Policies, Roles};
use longhaul_auth::token::{Accounts, KeySet, Verifier};
use longhaul_core::{Error, Reason};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::access::sources::urls::Url;
use crate::clock::Clock;
use crate::config::Auth;
use crate::local::Current;

/// Largest file that is read, in bytes.
const BYTES_MAX: u64 = 16 << 20;

/// Everything that access is decided by, and where it comes from.
pub(crate) struct Sources {
    config: Auth,
    /// The local identity, where there is one.
    local: Option<Current>,
    roles: Roles,
    verifier: Arc<Verifier>,
    decider: Arc<Decider>,
    clock: Arc<dyn Clock>,
    /// What each source held when it was read last, and what was wrong with it.
    seen: Mutex<Seen>,
    /// One for each issuer, in their order.
    urls: Vec<Url>,
}

#[derive(Default)]
struct Seen {
    policy: Option<String>,
    accounts: Option<Vec<String>>,
    local: Option<String>,
    /// The accounts that are read from files, and those of the local identity.
    registered: Accounts,
    own: Accounts,
    keys: Vec<Option<String>>,
    /// What is wrong now, by the name of its key; told in readiness.
    faults: std::collections::BTreeMap<String, String>,
}

impl Sources {
    pub(crate) fn new(
        config: Auth,
        local: Option<Current>,
        roles: Roles,
        verifier: Arc<Verifier>,
        decider: Arc<Decider>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        let urls = config.issuers.iter().map(|issuer| Url::new(issuer, config.jwks_timeout));
        let issuers = config.issuers.len();
        Ok(Self {
            urls: urls.collect::<Result<_, _>>()?,
            seen: Mutex::new(Seen { keys: vec![None; issuers], ..Seen::default() }),
            config,
            local,
            roles,
            verifier,
            decider,
            clock,
        })
    }

    /// Reads everything for the first time. A file that is wrong is `CONFIG_INVALID`; a URL may come later.
    pub(crate) async fn load(&self) -> Result<(), Error> {
        self.look();
        let first = self.faults().into_iter().next();
        if let Some(fault) = first {
            return Err(Error::new(Reason::ConfigInvalid, fault));
        }
        join_all((0..self.urls.len()).map(|place| self.fetch(place))).await;
        Ok(())
    }

    /// What is wrong now: what is configured cannot be read, and what was read before still counts.
    pub(crate) fn faults(&self) -> Vec<String> {
        self.seen.lock().faults.values().cloned().collect()
    }

    /// Looks for changes until the server stops.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.clone().watch_files() => {}
            // A slow issuer must not keep a new policy from being read.
            () = self.keep_keys_fresh() => {}
        }
    }

    async fn watch_files(self: Arc<Self>) {
        loop {
            self.clock.sleep(self.config.reload_every).await;
            let looking = self.clone();
            // Files may be on a slow disk.
            if let Err(error) = tokio::task::spawn_blocking(move || looking.look()).await {
                tracing::error!(%error, "looking at the files of [auth] broke off");
            }
        }
    }

    /// Reads what has changed in the files.
    fn look(&self) {
        if let Some(file) = &self.config.policy {
            let read = read(file);
            self.take(
                "auth.policy",
                file,
                read,
                |seen| &mut seen.policy,
                |text| {
                    let policies = Policies::parse(text, self.roles.clone())?;
                    self.decider.replace(policies);
                    Ok(())
                },
            );
        }
        self.look_at_identity();
        if !self.config.service_accounts.is_empty() {
            self.look_at_accounts();
        }
        for (place, issuer) in self.config.issuers.iter().enumerate() {
            let Some(file) = &issuer.jwks_file else { continue };
            let key = format!("auth.issuer {}", issuer.name);
            self.take(
                &key,
                file,
                read(file),
                |seen| &mut seen.keys[place],
                |text| {
                    self.verifier.set_keys(place, KeySet::parse(text)?);
                    Ok(())
                },
            );
        }
    }

    /// Takes a file's text if it has changed since it was taken last.
    fn take(
        &self,
        key: &str,
        file: &Path,
        text: Result<String, String>,
        slot: impl Fn(&mut Seen) -> &mut Option<String>,
        accept: impl Fn(&str) -> Result<(), String>,
    ) {
        let taken = text.and_then(|text| {
            if slot(&mut self.seen.lock()).as_ref() == Some(&text) {
                return Ok(());
            }
            accept(&text).map_err(|why| format!("{}: {why}", file.display()))?;
            *slot(&mut self.seen.lock()) = Some(text);
            tracing::info!(file = %file.display(), "{key} was read");
            Ok(())
        });
        self.note(key, taken);
    }

    /// Keeps what is wrong, and tells it when it is new.
    fn note(&self, key: &str, taken: Result<(), String>) {
        let mut seen = self.seen.lock();
        match taken {
            Ok(()) => {
                if seen.faults.remove(key).is_some() {
                    tracing::info!("{key} is good again");
                }
            }
            Err(why) => {
                let fault = format!("{key}: {why}");
                if seen.faults.get(key) != Some(&fault) {
                    tracing::error!("{fault}; what was read before still counts");
                    seen.faults.insert(key.to_owned(), fault);
                }
            }
        }
    }
}

fn read(file: &Path) -> Result<String, String> {
    let of = |why: String| format!("{}: {why}", file.display());
    let about = std::fs::metadata(file).map_err(|error| of(error.to_string()))?;
    if about.len() > BYTES_MAX {
        return Err(of(format!("it has more than {BYTES_MAX} bytes")));
    }
    std::fs::read_to_string(file).map_err(|error| of(error.to_string()))
}
