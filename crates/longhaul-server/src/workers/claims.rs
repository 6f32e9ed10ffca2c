//! Claims: what a worker is given, and that a repeat of a claim is given the same.
//!
//! A repeat is answered from the leases themselves, whichever server gave them and whatever has become of
//! that since.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use longhaul_auth::Identity;
use longhaul_core::{Applied, Command, Error, Operation, Reason, Refusal, apply};
use longhaul_store::{ClaimFilter, Due};
use longhaul_wire::{convert, v1};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::words::desired_state;
use super::{Workers, invalid, worker_name};
use crate::call::overloaded;

/// How often a hanging claim looks by itself. Costs nothing when nothing waits, and bounds what a lost
/// wake-up can cost.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Longest `claim_id`, in bytes; it is kept with every lease.
const CLAIM_ID_BYTES_MAX: usize = 128;
/// Most methods, and most queues, that a worker may name; each is compared with what waits.
const WANTED_MAX: usize = 1000;
/// Longest name of a method or queue, in bytes.
const WANTED_BYTES_MAX: usize = 512;

/// Worker and claim id.
type ClaimKey = (Arc<str>, Arc<str>);

/// Claims with an id that are being made. Of those under one id only the newest goes on: whoever repeats a claim
/// has given up the one before, which must not take anything more into a lost answer.
#[derive(Debug, Default)]
pub struct Turns(Mutex<HashMap<ClaimKey, Arc<Line>>>);

/// All claims under one id.
#[derive(Debug, Default)]
struct Line {
    newest: AtomicU64,
    /// Held while one of them takes.
    taking: tokio::sync::Mutex<()>,
    replaced: Notify,
}

/// One claim in the line of its id, for as long as this lives.
struct Turn {
    turns: Arc<Turns>,
    key: ClaimKey,
    line: Arc<Line>,
    number: u64,
}

impl Turns {
    fn join(self: Arc<Self>, key: ClaimKey) -> Turn {
        let line = self.0.lock().entry(key.clone()).or_default().clone();
        let number = line.newest.fetch_add(1, Ordering::AcqRel) + 1;
        line.replaced.notify_waiters();
        Turn { turns: self, key, line, number }
    }
}

impl Turn {
    fn is_newest(&self) -> bool {
        self.line.newest.load(Ordering::Acquire) == self.number
    }

    /// Ends when the claim was repeated.
    async fn replaced(turn: Option<&Self>) {
        let Some(turn) = turn else { return std::future::pending().await };
        loop {
            let replaced = turn.line.replaced.notified();
            if !turn.is_newest() {
                return;
            }
            replaced.await;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut lines = self.turns.0.lock();
        // The table's own and this one.
        if Arc::strong_count(&self.line) == 2 {
            lines.remove(&self.key);
        }
    }
}

/// Who claims what.
#[derive(Clone)]
pub(crate) struct Claimant {
    /// Whose credential the worker shows.
    pub(crate) identity: Arc<Identity>,
    /// As the worker calls itself.
    pub(crate) worker: Arc<str>,
    /// As the worker calls the claim; empty for none.
    pub(crate) claim_id: Arc<str>,
    /// What it asks for.
    pub(crate) asked: ClaimFilter,
    /// What it may take of that.
    pub(crate) filter: ClaimFilter,
    /// How long it may be silent.
    pub(crate) lease: Duration,
}

impl Claimant {
    /// What the operations keep of the identity.
    fn holder(&self) -> Arc<str> {
        self.identity.actor()
    }

    /// Two workers of the same name are two, if their credentials are.
    fn holder_and_worker(&self) -> Arc<str> {
        format!("{}/{}", self.identity.actor(), self.worker).into()
    }
}

impl Workers {
    pub(super) async fn claim(
        self: &Arc<Self>,
        request: v1::ClaimRequest,
        identity: Arc<Identity>,
    ) -> Result<v1::ClaimResponse, Error> {
        let worker = worker_name(&request.worker)?;
        if request.claim_id.len() > CLAIM_ID_BYTES_MAX {
            let bytes = request.claim_id.len();
            let what = format!("has {bytes} bytes; at most {CLAIM_ID_BYTES_MAX} are allowed");
            return Err(invalid("claim_id", what));
        }
        let max = self.batch("max", i64::from(request.max))?.max(1);
        let lease = self.lease(request.lease.as_ref())?;
        let until = self.clock.now() + self.hang("wait", request.wait.as_ref())?;
        let filter = filter(&request.methods, &request.queues)?;
        let asked = filter;
        let filter = self.access.claimable(&identity, &asked)?;
        let claim_id = request.claim_id.into();
        let mut claimant = Claimant { identity, worker, claim_id, asked, filter, lease };
        let turn = (!claimant.claim_id.is_empty()).then(|| {
            let key = (claimant.holder_and_worker(), claimant.claim_id.clone());
            Arc::new(self.turns.clone().join(key))
        });
        let _place = self
            .watch
            .hold(self.limits.held_calls_max)
            .ok_or_else(|| overloaded("too many calls are held open; claim again shortly"))?;
        loop {
            let claims = self.watch.claims(claimant.filter.clone());
            let given = self.give(&claimant, turn.as_ref(), max).await?;
            let left = until.since(self.clock.now());
            let over = left.is_zero() || self.draining.is_cancelled();
            if over || !given.is_empty() || turn.as_ref().is_some_and(|turn| !turn.is_newest()) {
                let assignments = given.iter().map(|one| self.assignment(one)).collect();
                return Ok(v1::ClaimResponse { assignments });
            }
            tokio::select! {
                () = claims.claimable() => {}
                () = Turn::replaced(turn.as_deref()) => {}
                () = self.clock.sleep(left.min(LOOK_EVERY)) => {}
                () = self.draining.cancelled() => {}
            }
            claimant.filter = self.access.claimable(&claimant.identity, &claimant.asked)?;
        }
    }

    /// What an earlier claim under the same id holds, else what there is to take.
    async fn give(
        self: &Arc<Self>,
        claimant: &Claimant,
        turn: Option<&Arc<Turn>>,
        max: usize,
    ) -> Result<Vec<Arc<Operation>>, Error> {
        let (workers, claimant, turn) = (self.clone(), claimant.clone(), turn.cloned());
        to_its_end(async move {
            let taking = match &turn {
                Some(turn) => Some(turn.line.taking.lock().await),
                None => None,
            };
            if let Some(turn) = &turn {
                if !turn.is_newest() {
                    return Ok(Vec::new());
                }
                let (worker, claim_id) = (&claimant.worker, &claimant.claim_id);
                let mut again = workers.store.claimed(worker, claim_id).await?;
                let holder = claimant.holder();
                again.retain(|one| one.holder == holder);
                if !again.is_empty() {
                    return Ok(again);
                }
            }
            let taken = workers.take_now(&claimant, max).await?;
            drop(taking);
            Ok(taken.into_iter().map(|one| Arc::new(one.operation)).collect())
        })
        .await
    }

    /// Takes what there is, even if the caller is gone by then.
    pub(crate) async fn take(
        self: &Arc<Self>,
        claimant: &Claimant,
        max: usize,
    ) -> Result<Vec<Applied>, Error> {
        let (workers, claimant) = (self.clone(), claimant.clone());
        to_its_end(async move { workers.take_now(&claimant, max).await }).await
    }

    async fn take_now(&self, claimant: &Claimant, max: usize) -> Result<Vec<Applied>, Error> {
        let now = self.clock.now();
        let holder = claimant.holder();
        let Claimant { worker, claim_id, filter, lease, .. } = claimant.clone();
        let bytes_max = self.limits.claim_bytes_max;
        let decide = Arc::new(move |operation: Option<&Operation>| {
            let operation = operation.ok_or(Refusal::NotFound)?;
            let (worker, claim_id) = (worker.clone(), claim_id.clone());
            let holder = holder.clone();
            apply(operation, Command::Claim { worker, claim_id, holder, lease }, now)
        });
        self.store.update_due(Due::Claim { filter, now, bytes_max }, max, decide).await
    }

    pub(crate) fn assignment(&self, operation: &Operation) -> v1::Assignment {
        let api = self.apis.get(&operation.api);
        let metadata = api.and_then(|api| convert::metadata(operation, api));
        let response_type = api
            .and_then(|api| api.method(&operation.method)?.start())
            .map_or(String::new(), |start| start.response_type.full_name().to_owned());
        v1::Assignment {
            operation: operation.name.to_string(),
            epoch: operation.epoch,
            api: operation.api.to_string(),
            method: operation.method.to_string(),
            queue: operation.queue.to_string(),
            parent: operation.parent.to_string(),
            target: operation.target.to_string(),
            request: Some(convert::any(&operation.request)),
            metadata: metadata.as_ref().map(convert::any),
            response_type,
            attempt: operation.attempt,
            cleanup: matches!(operation.state, longhaul_core::State::CleaningUp { .. }),
            checkpoint: operation.checkpoint.as_deref().unwrap_or_default().to_vec(),
            external_ref: operation.external_ref.as_deref().unwrap_or_default().to_owned(),
            traceparent: operation.traceparent.to_string(),
            lease_expire_time: operation.lease().map(|lease| convert::moment(lease.expires_at)),
            deadline: operation.deadline.map(convert::moment),
            desired: Some(desired_state(&operation.desired(operation.epoch))),
        }
    }
}

/// What a worker takes, by the names in its request.
pub(crate) fn filter(methods: &[String], queues: &[String]) -> Result<ClaimFilter, Error> {
    for (field, names) in [("methods", methods), ("queues", queues)] {
        if names.len() > WANTED_MAX {
            let what = format!("has {} entries; at most {WANTED_MAX} are allowed", names.len());
            return Err(invalid(field, what));
        }
        if let Some(bytes) = names.iter().map(String::len).find(|bytes| *bytes > WANTED_BYTES_MAX) {
            let what =
                format!("has a name of {bytes} bytes; at most {WANTED_BYTES_MAX} are allowed");
            return Err(invalid(field, what));
        }
    }
    Ok(ClaimFilter {
        api: None,
        methods: methods.iter().map(|method| method.as_str().into()).collect(),
        queues: queues.iter().map(|queue| queue.as_str().into()).collect(),
    })
}

/// Runs something to its end, even if whoever asked is gone by then.
async fn to_its_end<T: Send + 'static>(
    what: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    match tokio::spawn(what).await {
        Ok(done) => done,
        Err(error) => Err(Error::new(Reason::Internal, "the claim did not end").caused_by(error)),
    }
}
