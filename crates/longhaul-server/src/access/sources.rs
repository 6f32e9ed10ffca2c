//! Where keys, accounts and policies come from: files that are looked at again and again, and URLs.
//!
//! All or nothing, each for itself: what cannot be read changes nothing, and is told loudly once. A key set
//! that was had once goes on counting while its URL cannot be reached.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use longhaul_auth::policy::Decider;
use longhaul_auth::policy::{Policies, Roles};
use longhaul_auth::token::{Accounts, KeySet, Verifier};
use longhaul_core::{Error, Reason, Timestamp};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::Auth;

/// Largest file or answer that is read, in bytes.
const BYTES_MAX: u64 = 16 << 20;
/// Longest time that a request for keys may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Everything that access is decided by, and where it comes from.
pub(crate) struct Sources {
    config: Auth,
    /// Those of a local identity, which are in no file of `auth.service_accounts`.
    accounts: Accounts,
    roles: Roles,
    verifier: Arc<Verifier>,
    decider: Arc<Decider>,
    clock: Arc<dyn Clock>,
    /// What each source held when it was read last, and what was wrong with it.
    seen: Mutex<Seen>,
    /// One for each issuer with a URL: when it was asked last.
    asked: Vec<tokio::sync::Mutex<Option<Timestamp>>>,
    client: reqwest::Client,
}

#[derive(Default)]
struct Seen {
    policy: Option<String>,
    accounts: Option<Vec<String>>,
    keys: Vec<Option<String>>,
    /// What is wrong now, by the name of its key; told in readiness.
    faults: std::collections::BTreeMap<String, String>,
}

impl Sources {
    pub(crate) fn new(
        config: Auth,
        accounts: Accounts,
        roles: Roles,
        verifier: Arc<Verifier>,
        decider: Arc<Decider>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        let client = reqwest::Client::builder()
            .timeout(FETCH_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| {
                Error::new(Reason::Internal, "no HTTP client could be made").caused_by(error)
            })?;
        let issuers = config.issuers.len();
        Ok(Self {
            asked: config.issuers.iter().map(|_| tokio::sync::Mutex::new(None)).collect(),
            seen: Mutex::new(Seen { keys: vec![None; issuers], ..Seen::default() }),
            config,
            accounts,
            roles,
            verifier,
            decider,
            clock,
            client,
        })
    }

    /// Reads everything for the first time. A file that is wrong is `CONFIG_INVALID`; a URL may come later.
    pub(crate) async fn load(&self) -> Result<(), Error> {
        self.look();
        let first = self.faults().into_iter().next();
        if let Some(fault) = first {
            return Err(Error::new(Reason::ConfigInvalid, fault));
        }
        for place in 0..self.config.issuers.len() {
            self.fetch(place).await;
        }
        Ok(())
    }

    /// What is wrong now: what is configured cannot be read, and what was read before still counts.
    pub(crate) fn faults(&self) -> Vec<String> {
        self.seen.lock().faults.values().cloned().collect()
    }

    /// Looks for changes until the server stops.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = self.clock.sleep(self.config.reload_every) => {}
                () = stop.cancelled() => return,
            }
            let looking = self.clone();
            // Files may be on a slow disk.
            if let Err(error) = tokio::task::spawn_blocking(move || looking.look()).await {
                tracing::error!(%error, "looking at the files of [auth] broke off");
            }
            for (place, issuer) in self.config.issuers.iter().enumerate() {
                let last = *self.asked[place].lock().await;
                let since = last.map(|last| self.clock.now().since(last));
                if since.is_none_or(|since| since >= issuer.jwks_refresh) {
                    self.fetch(place).await;
                }
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

    fn look_at_accounts(&self) {
        let files = &self.config.service_accounts;
        let texts: Result<Vec<_>, _> = files.iter().map(|file| read(file)).collect();
        let taken = texts.and_then(|texts| {
            if self.seen.lock().accounts.as_ref() == Some(&texts) {
                return Ok(());
            }
            let mut all = self.accounts.clone();
            for (text, file) in texts.iter().zip(files) {
                let accounts = Accounts::parse(text);
                all = all.and(accounts.map_err(|why| format!("{}: {why}", file.display()))?);
            }
            self.verifier.set_accounts(all);
            self.seen.lock().accounts = Some(texts);
            tracing::info!("the files of auth.service_accounts were read");
            Ok(())
        });
        self.note("auth.service_accounts", taken);
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

    /// Asks for an issuer's keys again because a token names one that is not there. However many ask, the
    /// issuer is asked once in `refetch_wait`; the others wait for that answer. False when nothing was asked.
    pub(crate) async fn refetch(&self, place: usize) -> bool {
        let Some(issuer) = self.config.issuers.get(place) else { return false };
        if issuer.jwks_url.is_none() {
            return false;
        }
        let called = self.clock.now();
        let mut last = self.asked[place].lock().await;
        match *last {
            // Somebody asked while this one waited for its turn.
            Some(last) if last >= called => true,
            Some(last) if called.since(last) < self.config.refetch_wait => false,
            Some(_) | None => {
                self.fetch_in_turn(place, &mut last).await;
                true
            }
        }
    }

    async fn fetch(&self, place: usize) {
        let mut asked = self.asked[place].lock().await;
        self.fetch_in_turn(place, &mut asked).await;
    }

    async fn fetch_in_turn(&self, place: usize, asked: &mut Option<Timestamp>) {
        let issuer = &self.config.issuers[place];
        let Some(url) = &issuer.jwks_url else { return };
        let fetched = self.get(url).await.and_then(|text| {
            let keys = KeySet::parse(&text)?;
            self.verifier.set_keys(place, keys);
            Ok(())
        });
        *asked = Some(self.clock.now());
        let fetched = fetched.map_err(|why| format!("{url}: {why}"));
        self.note(&format!("auth.issuer {}", issuer.name), fetched);
    }

    async fn get(&self, url: &str) -> Result<String, String> {
        let words = |error: reqwest::Error| error.without_url().to_string();
        let mut response = self.client.get(url).send().await.map_err(words)?;
        if !response.status().is_success() {
            return Err(format!("it answers {}", response.status()));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(words)? {
            if (bytes.len() + chunk.len()) as u64 > BYTES_MAX {
                return Err(format!("it has more than {BYTES_MAX} bytes"));
            }
            bytes.extend_from_slice(&chunk);
        }
        String::from_utf8(bytes).map_err(|_| "it is no text".into())
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
