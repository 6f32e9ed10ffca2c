//! Commands waiting for a writer: bounded, with a reserve for what must be shed last, and never two
//! writers on one key.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use longhaul_core::{Applied, Error};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::admission::Admission;
use crate::{Decide, Failure, Key, Priority};

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

/// Commands that wait, and the keys that writers work on.
pub(super) struct Queue {
    inner: Mutex<Inner>,
    filled: Notify,
    hasher: RandomState,
    admission: Admission,
}

#[derive(Default)]
struct Inner {
    waiting: VecDeque<Job>,
    busy: HashSet<u64>,
    closed: bool,
}

/// Some commands for one writer; their keys are busy until this is dropped.
pub(super) struct Taken<'q> {
    queue: &'q Queue,
    pub jobs: Vec<Job>,
    busy: HashSet<u64>,
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

    /// Waits for commands and takes up to `limit` whose keys no other writer works on, in order for each
    /// key; `None` once the queue is closed and empty.
    pub async fn take(&self, limit: usize) -> Option<Taken<'_>> {
        loop {
            let filled = self.filled.notified();
            tokio::pin!(filled);
            filled.as_mut().enable();
            {
                let mut inner = self.inner.lock();
                let (jobs, busy) = pick(&mut inner, limit);
                if !jobs.is_empty() {
                    return Some(Taken { queue: self, jobs, busy });
                }
                if inner.closed && inner.waiting.is_empty() {
                    return None;
                }
            }
            filled.await;
        }
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
