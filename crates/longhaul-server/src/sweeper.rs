//! Time passing: leases, deadlines, cleanup budgets, retention. One path for an ordinary second and for
//! the first one after a restart, which is only a late sweep.

use std::sync::Arc;
use std::time::Duration;

use longhaul_core::{Command, Timestamp, apply};
use longhaul_store::{Due, Store};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::fleet::Fleet;
use crate::watch::Watch;

/// Longest pause between two looks. A wake-up lost to a bug would cost this much, not an operation.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Pause after the store failed, so that a full disk does not become a busy loop as well.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(250);
/// Most operations acted on in one commit; the rest follow at once.
const BATCH: usize = 1000;

/// What the sweeper works with.
pub struct Sweeper {
    /// Rows.
    pub store: Arc<dyn Store>,
    /// Who hears of changes.
    pub watch: Arc<Watch>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The other servers on the store.
    pub fleet: Arc<Fleet>,
}

impl Sweeper {
    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            // Where others share the store, their workers were not silent while this machine slept.
            if self.clock.follow_calendar() > Duration::ZERO
                && !self.store.is_shared()
                && let Err(error) = self.fleet.recover().await
            {
                tracing::error!(%error, "leases could not be renewed after a jump of the clock");
            }
            let pause = match self.sweep().await {
                Ok(Some(true)) => continue,
                Ok(Some(false)) => self.pause(),
                Ok(None) => PAUSE_AFTER_FAILURE,
                Err(error) => {
                    tracing::error!(%error, "a sweep failed; trying again");
                    PAUSE_AFTER_FAILURE
                }
            };
            let at = self.clock.now() + pause;
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.clock.sleep(pause) => {}
                () = self.watch.due_before(at) => {}
            }
        }
    }

    fn pause(&self) -> Duration {
        let now = self.clock.now();
        let backed_off = self.watch.wake_backed_off(now);
        match self.store.next_due().into_iter().chain(backed_off).min() {
            Some(next) => next.since(now).clamp(Duration::from_millis(1), PAUSE_MAX),
            None => PAUSE_MAX,
        }
    }

    /// One look. True when there may be more at once, `None` when it is not ours to look now.
    async fn sweep(&self) -> Result<Option<bool>, longhaul_core::Error> {
        let now = self.clock.now();
        if !self.fleet.may_end_leases(now) {
            return Ok(None);
        }
        let decide = Arc::new(move |operation: Option<&longhaul_core::Operation>| {
            let operation = operation.ok_or(longhaul_core::Refusal::NotFound)?;
            apply(operation, Command::Tick { jitter: jitter(operation.uid, now) }, now)
        });
        let applied = self.store.update_due(Due::Timer { now }, BATCH, decide).await?;
        for change in &applied {
            for event in &change.events {
                tracing::info!(
                    operation = %change.operation.name,
                    event = event.kind.name(),
                    "due"
                );
            }
        }
        Ok(Some(applied.len() == BATCH))
    }
}

/// 0 to 255, different for each operation and moment, and the same when a decision is taken twice.
pub(crate) fn jitter(uid: u128, now: Timestamp) -> u8 {
    let mixed = (uid as u64 ^ (uid >> 64) as u64 ^ now.as_micros().cast_unsigned())
        .wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 56) as u8
}
