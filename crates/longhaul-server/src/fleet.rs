//! This server among others on the same store: says that it is there, and gives leases their time back
//! after nobody was.
//!
//! Owns no list of servers and elects none. The store keeps when any of them was last there; who finds
//! that too long ago has found an outage, and until its leases are given back nobody ends one. So it
//! does not matter whether the servers or the store had been away, nor which server comes back first.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use longhaul_core::{Command, Error, Operation, Refusal, Timestamp, apply};
use longhaul_store::{Due, OUTAGE_MIN, Store};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config;

/// How often a server says that it is there; several times in what would count as an outage.
const SAY_EVERY: Duration = Duration::from_millis(500);
/// How many leases are given their time back in one commit.
const BATCH: usize = 10_000;

/// One server's part in the fleet.
pub struct Fleet {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    lease: Duration,
    lease_max: Duration,
    skew_max: Duration,
    /// When it last began to say so and was heard, with no outage to make up for.
    heard_micros: AtomicI64,
    /// By how much this machine's clock is ahead of the store's; negative when behind.
    ahead_micros: AtomicI64,
}

impl Fleet {
    /// A server that has not yet said that it is there.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, workers: &config::Workers) -> Self {
        Self {
            store,
            clock,
            lease: workers.lease,
            lease_max: workers.lease_max,
            skew_max: workers.clock_skew_max,
            heard_micros: AtomicI64::new(i64::MIN),
            ahead_micros: AtomicI64::new(0),
        }
    }

    /// Before the first request is taken: leases get the time back in which no server was there.
    pub async fn join(&self) -> Result<(), Error> {
        if self.store.was_unattended() {
            self.recover().await?;
        }
        self.say().await
    }

    /// Says that this server is there until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        if !self.store.is_shared() {
            return;
        }
        while !stop.is_cancelled() {
            if let Err(error) = self.say().await {
                tracing::warn!(%error, "the store does not hear that this server is there");
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.clock.sleep(SAY_EVERY) => {}
            }
        }
    }

    /// Says so once, and makes up for an outage if there was one.
    pub async fn say(&self) -> Result<(), Error> {
        let began = self.clock.now();
        let presence = self.store.present(began).await?;
        if let Some(theirs) = presence.clock {
            // The answer was on its way for a part of the time; half of it is the best guess.
            let ours = began + self.clock.now().since(began) / 2;
            let ahead = ours.as_micros().saturating_sub(theirs.as_micros());
            self.ahead_micros.store(ahead, Ordering::Relaxed);
        }
        if let Some(outage) = presence.outage {
            let renewed = self.recover().await?;
            self.store.recovered(outage).await?;
            tracing::warn!(renewed, "no server was there for a while; leases were renewed");
        }
        self.heard_micros.store(began.as_micros(), Ordering::Release);
        Ok(())
    }

    /// Gives every holder of a lease a whole new one: after an outage, and after the calendar jumped.
    pub async fn recover(&self) -> Result<usize, Error> {
        let (now, lease) = (self.clock.now(), self.lease);
        let decide = Arc::new(move |operation: Option<&Operation>| {
            apply(operation.ok_or(Refusal::NotFound)?, Command::Recover { lease }, now)
        });
        let mut renewed = 0;
        loop {
            let due = Due::Timer { now: now + self.lease_max };
            let batch = self.store.update_due(due, BATCH, decide.clone()).await?.len();
            renewed += batch;
            if batch < BATCH {
                return Ok(renewed);
            }
        }
    }

    /// Whether at `now` no outage can have gone unnoticed, so that a silent worker is one that is gone.
    #[must_use]
    pub fn may_end_leases(&self, now: Timestamp) -> bool {
        let heard = Timestamp::from_micros(self.heard_micros.load(Ordering::Acquire));
        let heard_lately = now.since(heard) < OUTAGE_MIN;
        !self.store.is_shared() || (heard_lately && self.trouble().is_none())
    }

    /// Why this server should not take part now, if it should not.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let ahead = self.ahead_micros.load(Ordering::Relaxed);
        let apart = Duration::from_micros(ahead.unsigned_abs());
        let side = if ahead > 0 { "ahead of" } else { "behind" };
        (apart > self.skew_max).then(|| {
            let (apart, most) = (apart.as_millis(), self.skew_max.as_millis());
            format!("this machine's clock is {apart} ms {side} the database's; {most} ms at most are allowed, set it by NTP")
        })
    }
}
