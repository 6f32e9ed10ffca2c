//! Key sets that issuers publish: fetched at the start, again and again, and when a token names a key that is
//! not there.
//!
//! Owns how long and how much is read at most, and how often an issuer is asked. Redirects are not followed:
//! the address in the configuration is the one that is trusted.

use std::time::Duration;

use futures_util::future::join_all;
use longhaul_auth::token::KeySet;
use longhaul_core::{Error, Reason, Timestamp};

use super::Sources;
use crate::config::{IssuerConfig, is_loopback};

/// Longest answer that is read, in bytes. Google's key sets have about 2,000.
const BYTES_MAX: usize = 1 << 20;

/// How an issuer is asked, and when it was last. Whoever asks holds the lock.
pub(super) struct Url {
    client: reqwest::Client,
    asked: tokio::sync::Mutex<Option<Asked>>,
}

#[derive(Clone, Copy)]
struct Asked {
    at: Timestamp,
    /// Whether keys came that can be used.
    well: bool,
}

impl Asked {
    /// Whether it is time to ask again: soon where keys did not come, for one that was withdrawn counts until
    /// then.
    fn is_old(self, issuer: &IssuerConfig, refetch_wait: Duration, now: Timestamp) -> bool {
        let refresh = issuer.jwks_refresh;
        let wait = if self.well { refresh } else { refresh.min(refetch_wait) };
        now.since(self.at) >= wait
    }
}

impl Url {
    /// Asks within this time, and nowhere else than where it is told to.
    pub(super) fn new(issuer: &IssuerConfig, timeout: Duration) -> Result<Self, Error> {
        let mut client =
            reqwest::Client::builder().timeout(timeout).redirect(reqwest::redirect::Policy::none());
        if issuer.jwks_url.as_deref().is_some_and(is_loopback) {
            // What the environment says of proxies is not about this machine.
            client = client.no_proxy();
        }
        let client = client.build().map_err(|error| {
            Error::new(Reason::Internal, "no HTTP client could be made").caused_by(error)
        })?;
        Ok(Self { client, asked: tokio::sync::Mutex::default() })
    }
}

impl Sources {
    /// Fetches keys that are no longer current, for ever.
    pub(super) async fn keep_keys_fresh(&self) {
        loop {
            self.clock.sleep(self.config.reload_every).await;
            join_all((0..self.urls.len()).map(|place| self.freshen(place))).await;
        }
    }

    async fn freshen(&self, place: usize) {
        let mut asked = self.urls[place].asked.lock().await;
        let (issuer, wait) = (&self.config.issuers[place], self.config.refetch_wait);
        if asked.is_none_or(|asked| asked.is_old(issuer, wait, self.clock.now())) {
            self.fetch_in_turn(place, &mut asked).await;
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
        let mut asked = self.urls[place].asked.lock().await;
        match *asked {
            // Somebody asked while this one waited for its turn.
            Some(last) if last.at >= called => true,
            Some(last) if called.since(last.at) < self.config.refetch_wait => false,
            Some(_) | None => {
                self.fetch_in_turn(place, &mut asked).await;
                true
            }
        }
    }

    pub(super) async fn fetch(&self, place: usize) {
        let mut asked = self.urls[place].asked.lock().await;
        self.fetch_in_turn(place, &mut asked).await;
    }

    async fn fetch_in_turn(&self, place: usize, asked: &mut Option<Asked>) {
        let issuer = &self.config.issuers[place];
        let Some(url) = &issuer.jwks_url else { return };
        let fetched = get(&self.urls[place].client, url).await.and_then(|text| {
            let keys = KeySet::parse(&text)?;
            self.verifier.set_keys(place, keys);
            Ok(())
        });
        *asked = Some(Asked { at: self.clock.now(), well: fetched.is_ok() });
        let fetched = fetched.map_err(|why| format!("{url}: {why}"));
        self.note(&format!("auth.issuer {}", issuer.name), fetched);
    }
}

async fn get(client: &reqwest::Client, url: &str) -> Result<String, String> {
    let mut response = client.get(url).send().await.map_err(words)?;
    if !response.status().is_success() {
        return Err(format!("it answers {}", response.status()));
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(words)? {
        if bytes.len() + chunk.len() > BYTES_MAX {
            return Err(format!("it has more than {BYTES_MAX} bytes"));
        }
        bytes.extend_from_slice(&chunk);
    }
    String::from_utf8(bytes).map_err(|_| "it is no text".into())
}

/// What went wrong, with what is below it: the outermost error says no more than that a request failed.
fn words(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut below = std::error::Error::source(&error);
    while let Some(error) = below {
        text = format!("{text}: {error}");
        below = error.source();
    }
    text
}
