//! Takes work for one session, as many operations as it has room for.
//!
//! Owns the count of what it took; the session owns what became of it. What was taken and cannot be
//! handed over any more is given back, so that no operation waits out a lease that nobody knows of.

use std::sync::Arc;
use std::time::Duration;

use longhaul_core::{Applied, Changes, Command, Error, Operation, Refusal, apply};
use longhaul_store::{Key, Priority};
use tokio::sync::{mpsc, watch};

use crate::workers::{Claimant, Workers};

/// How often a session with free slots looks for work by itself, should a wake-up be lost.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What one claim of a session brought.
pub(super) type Taken = Result<Vec<Applied>, Error>;

/// Takes work for one session whenever it has free slots.
pub(super) struct Claimer {
    pub(super) workers: Arc<Workers>,
    pub(super) claimant: Claimant,
    /// How many operations may be taken in the whole life of the session, as far as it is known. A sum
    /// rather than a number of free slots: what was taken and has not arrived yet is counted once.
    pub(super) allowed: watch::Receiver<usize>,
    pub(super) taken: mpsc::Sender<Taken>,
}

impl Claimer {
    /// Runs until the session ends.
    pub(super) async fn run(mut self) {
        let mut taken_so_far = 0_usize;
        loop {
            match self.workers.access.claimable(&self.claimant.identity, &self.claimant.asked) {
                Ok(filter) => self.claimant.filter = filter,
                Err(error) => {
                    // The session hears it and ends; what the worker holds it can still report on.
                    let _ = self.taken.send(Err(error)).await;
                    return;
                }
            }
            let claims = self.workers.watch.claims(self.claimant.filter.clone());
            let free = self.allowed.borrow_and_update().saturating_sub(taken_so_far);
            if free > 0 {
                let max = free.min(self.workers.config.batch_max);
                let taken = self.workers.take(&self.claimant, max).await;
                let found = taken.as_ref().map_or(0, Vec::len);
                taken_so_far += found;
                if (found > 0 || taken.is_err())
                    && let Err(unheard) = self.taken.send(taken).await
                {
                    give_back(&self.workers, unheard.0.unwrap_or_default());
                    return;
                }
                if found > 0 {
                    continue;
                }
            }
            tokio::select! {
                () = claims.claimable(), if free > 0 => {}
                () = self.workers.clock.sleep(LOOK_EVERY), if free > 0 => {}
                changed = self.allowed.changed() => if changed.is_err() { return },
                () = self.taken.closed() => return,
            }
        }
    }
}

/// Releases operations that were taken for a worker that can no longer be told; no attempt is counted.
pub(super) fn give_back(workers: &Arc<Workers>, taken: Vec<Applied>) {
    if taken.is_empty() {
        return;
    }
    let (store, now) = (workers.store.clone(), workers.clock.now());
    tokio::spawn(async move {
        let releasing = taken.into_iter().map(|one| {
            let (name, epoch) = (one.operation.name, one.operation.epoch);
            let decide = Arc::new(move |operation: Option<&Operation>| {
                let release = Command::Release { epoch, changes: Changes::default() };
                apply(operation.ok_or(Refusal::NotFound)?, release, now)
            });
            store.update(Key::Name(name), Priority::Normal, decide)
        });
        // A release that fails costs the operation the rest of its lease, nothing else.
        futures_util::future::join_all(releasing).await;
    });
}
