//! Commands and claims waiting for a writer: bounded, with a reserve for what must be shed last, and never
//! two writers on one key.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use longhaul_core::{Applied, Error};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::sweeps::Sweep;
use crate::admission::Admission;
use crate::{Decide, Failure, Key, Priority};

/// How long the next writer waits for the one before it to have its rows; longer than that takes when nobody
/// else has them locked.
const PATIENCE: Duration = Duration::from_millis(20);

/// Most commands looked at beyond a full batch: those on busy keys are passed over.
const PASSED_OVER_MAX: usize = 1_024;

/// One waiting command and where its answer goes.
pub(super) struct Job {
    pub key: Key,
    pub decide: Decide,
    pub answer: oneshot::Sender<Result<Applied, Failure>>,
    /// The caller was told that the store is away: what has not begun is not begun any more.
    pub given_up: Arc<AtomicBool>,
    /// Hashes of what it is about.
    on: [u64; 2],
}

/// Commands and claims that wait, and the keys that writers work on.
pub(super) struct Queue {
    inner: Mutex<Inner>,
    filled: Notify,
    hasher: RandomState,
    admission: Admission,
}

#[derive(Default)]
struct Inner {
    waiting: VecDeque<Job>,
    claims: Vec<Sweep>,
    busy: HashSet<u64>,
    /// How many writers have commands and not yet their rows.
    loading: usize,
    /// A writer has claims.
    claiming: bool,
    closed: bool,
}

/// Some commands for one writer, whose keys are busy until this is dropped, and all claims.
pub(super) struct Taken<'q> {
    queue: &'q Queue,
    pub jobs: Vec<Job>,
    pub claims: Option<Claims<'q>>,
    pub turn: Option<Turn<'q>>,
    busy: HashSet<u64>,
}

/// Claims for one writer. Until this is dropped no other gets any: it would pass over rows that are locked here,
/// and lock those that are given away here.
pub(super) struct Claims<'q> {
    queue: &'q Queue,
    pub sweeps: Vec<Sweep>,
}

impl Drop for Claims<'_> {
    fn drop(&mut self) {
        self.queue.inner.lock().claiming = false;
        self.queue.filled.notify_one();
    }
}

/// Until this is dropped, others wait a little before they take commands: the more come together, the fewer
/// commits they cost.
pub(super) struct Turn<'q>(&'q Queue);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.inner.lock().loading -= 1;
        self.0.filled.notify_one();
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut inner = self.queue.inner.lock();
        for key in &self.busy {
            inner.busy.remove(key);
        }
        drop(inner);
        self.queue.filled.notify_waiters();
    }
}

impl Queue {
    pub fn new(normal_max: usize, reserve: usize) -> Self {
        Self {
            inner: Mutex::default(),
            filled: Notify::new(),
            hasher: RandomState::new(),
            admission: Admission::new(normal_max, reserve),
        }
    }

    /// A command and where its answer will be.
    pub fn job(
        &self,
        key: Key,
        decide: Decide,
    ) -> (Job, oneshot::Receiver<Result<Applied, Failure>>) {
        let (answer, answered) = oneshot::channel();
        let on = match key.parts().1 {
            Key::Name(name) => [self.hasher.hash_one(name.as_str()); 2],
            Key::RequestId { api, parent, value, name } => [
                self.hasher.hash_one(name.as_str()),
                self.hasher.hash_one((&**api, &**parent, &**value)),
            ],
            Key::Child { key, .. } => [self.hasher.hash_one(format!("{key:?}")); 2],
        };
        (Job { key, decide, answer, given_up: Arc::default(), on }, answered)
    }

    /// Puts a command in line. Fails when its part of the queue is full, or after [`Self::close`].
    pub fn push(&self, priority: Priority, job: Job) -> Result<(), Error> {
        let mut inner = self.inner.lock();
        self.admission.admit(priority, inner.waiting.len(), inner.closed)?;
        inner.waiting.push_back(job);
        drop(inner);
        self.filled.notify_one();
        Ok(())
    }

    /// Puts a claim in line. Fails when as many wait, here and `elsewhere`, as commands may, or after
    /// [`Self::close`].
    pub fn push_claim(&self, claim: Sweep, elsewhere: usize) -> Result<(), Error> {
        let mut inner = self.inner.lock();
        let waiting = inner.claims.len() + elsewhere;
        self.admission.admit(Priority::Normal, waiting, inner.closed)?;
        inner.claims.push(claim);
        drop(inner);
        self.filled.notify_one();
        Ok(())
    }

    /// Waits for commands or claims. Takes all claims, and up to `limit` commands whose keys no other writer
    /// works on, in order for each key; `None` once the queue is closed and empty.
    pub async fn take(&self, limit: usize) -> Option<Taken<'_>> {
        let mut patient = true;
        loop {
            let filled = self.filled.notified();
            tokio::pin!(filled);
            filled.as_mut().enable();
            let wait = {
                let mut inner = self.inner.lock();
                let wait = patient && inner.loading > 0;
                if !wait && let Some(taken) = self.pick(&mut inner, limit) {
                    return Some(taken);
                }
                if inner.closed && inner.waiting.is_empty() && inner.claims.is_empty() {
                    return None;
                }
                wait && !(inner.waiting.is_empty() && inner.claims.is_empty())
            };
            if wait {
                patient = tokio::time::timeout(PATIENCE, filled).await.is_ok();
            } else {
                filled.await;
                patient = true;
            }
        }
    }

    fn pick(&self, inner: &mut Inner, limit: usize) -> Option<Taken<'_>> {
        let (jobs, busy) = pick(inner, limit);
        let mut sweeps = Vec::new();
        if !inner.claiming {
            sweeps = std::mem::take(&mut inner.claims);
            sweeps.retain(|claim| !claim.given_up.load(Ordering::Relaxed));
        }
        if jobs.is_empty() && sweeps.is_empty() {
            return None;
        }
        let claims = (!sweeps.is_empty()).then(|| Claims { queue: self, sweeps });
        inner.claiming |= claims.is_some();
        inner.loading += 1;
        Some(Taken { queue: self, jobs, claims, turn: Some(Turn(self)), busy })
    }

    /// Takes no more; what waits is still answered.
    pub fn close(&self) {
        self.inner.lock().closed = true;
        self.filled.notify_waiters();
        self.filled.notify_one();
    }

    pub fn is_closed(&self) -> bool {
        self.inner.lock().closed
    }
}

fn pick(inner: &mut Inner, limit: usize) -> (Vec<Job>, HashSet<u64>) {
    let (mut jobs, mut busy) = (Vec::new(), HashSet::new());
    let (mut passed, mut left) = (HashSet::new(), VecDeque::new());
    while jobs.len() < limit
        && left.len() < PASSED_OVER_MAX
        && let Some(job) = inner.waiting.pop_front()
    {
        if job.given_up.load(Ordering::Relaxed) {
            continue;
        }
        if job.on.iter().any(|key| inner.busy.contains(key) || passed.contains(key)) {
            passed.extend(job.on);
            left.push_back(job);
        } else {
            busy.extend(job.on);
            jobs.push(job);
        }
    }
    while let Some(job) = left.pop_back() {
        inner.waiting.push_front(job);
    }
    inner.busy.extend(busy.iter().copied());
    (jobs, busy)
}
