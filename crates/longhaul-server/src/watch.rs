//! From committed changes to those who wait for them: held calls, hanging claims, the sweeper.
//!
//! Owns nobody's state. A wake-up is only a hint to read the row again; whoever waits registers first
//! and reads afterwards, so no change falls between.

use std::collections::hash_map::{DefaultHasher, Entry};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};

use longhaul_core::{Applied, Event, EventKind, OperationName, Timestamp};
use longhaul_store::{ClaimFilter, ClaimHint, Listener};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::clock::Clock;

/// How many locks the table of waiters is spread over; commits come from one thread, waiters from all.
const SHARDS: usize = 32;

type Waiters = HashMap<OperationName, Vec<Arc<Ear>>>;

/// Where one subscription hears.
#[derive(Default)]
struct Ear {
    /// What changed since the last look, each name once.
    changed: Mutex<BTreeSet<OperationName>>,
    notify: Notify,
}

/// Who waits for what.
pub struct Watch {
    clock: Arc<dyn Clock>,
    operations: Vec<Mutex<Waiters>>,
    claims: Mutex<Vec<Arc<ClaimWaiter>>>,
    /// What becomes claimable later, by moment.
    backing_off: Mutex<BTreeMap<Timestamp, Vec<ClaimHint>>>,
    /// The moment the sweeper will look next, in microseconds; an earlier due time wakes it.
    sweep_at_micros: AtomicI64,
    sweep: Notify,
    cancels: Notify,
    held: AtomicUsize,
}

struct ClaimWaiter {
    filter: ClaimFilter,
    woken: AtomicBool,
    notify: Notify,
}

impl Watch {
    /// Nobody waits yet.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            operations: (0..SHARDS).map(|_| Mutex::default()).collect(),
            claims: Mutex::default(),
            backing_off: Mutex::default(),
            sweep_at_micros: AtomicI64::new(i64::MAX),
            sweep: Notify::new(),
            cancels: Notify::new(),
            held: AtomicUsize::new(0),
        }
    }
}

impl Watch {
    /// Registers for changes of `names`; ends when dropped. Read the rows after this, not before.
    #[must_use]
    pub fn operations(self: &Arc<Self>, names: Vec<OperationName>) -> Subscription {
        let mut subscription =
            Subscription { watch: self.clone(), names: HashSet::new(), ear: Arc::default() };
        for name in names {
            subscription.add(name);
        }
        subscription
    }

    /// Registers for something claimable under `filter`; ends when dropped. Try a claim after this.
    #[must_use]
    pub fn claims(self: &Arc<Self>, filter: ClaimFilter) -> ClaimSubscription {
        let waiter =
            Arc::new(ClaimWaiter { filter, woken: AtomicBool::new(false), notify: Notify::new() });
        self.claims.lock().push(waiter.clone());
        ClaimSubscription { watch: self.clone(), waiter }
    }

    /// Takes one of `max` places for held calls; `None` when all are taken.
    #[must_use]
    pub fn hold(self: &Arc<Self>, max: usize) -> Option<Held> {
        if self.held.fetch_add(1, Ordering::Relaxed) >= max {
            self.held.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Held(self.clone()))
    }

    /// Wakes claims for whatever has waited out its back-off; returns when the next one will have.
    pub fn wake_backed_off(&self, now: Timestamp) -> Option<Timestamp> {
        let mut waiting = self.backing_off.lock();
        while let Some(entry) = waiting.first_entry() {
            if *entry.key() > now {
                return Some(*entry.key());
            }
            for hint in entry.remove() {
                self.wake_claim(&hint);
            }
        }
        None
    }

    /// Ends when something may be due before `at`, the moment the sweeper would look anyway.
    pub async fn due_before(&self, at: Timestamp) {
        self.sweep_at_micros.store(at.as_micros(), Ordering::Release);
        self.sweep.notified().await;
    }

    /// Ends after an operation was asked to stop, be it since the last call.
    pub async fn cancelled(&self) {
        self.cancels.notified().await;
    }

    fn shard(&self, name: &OperationName) -> &Mutex<Waiters> {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        &self.operations[hasher.finish() as usize % SHARDS]
    }

    fn wake_sweeper(&self, due: Timestamp) {
        if due.as_micros() < self.sweep_at_micros.load(Ordering::Acquire) {
            self.sweep.notify_one();
        }
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn forget(&self, name: &OperationName, ear: &Arc<Ear>) {
        if let Entry::Occupied(mut entry) = self.shard(name).lock().entry(name.clone()) {
            entry.get_mut().retain(|other| !Arc::ptr_eq(other, ear));
            if entry.get().is_empty() {
                entry.remove();
            }
        }
    }

    fn wake_operation(&self, name: &OperationName) {
        if let Some(waiters) = self.shard(name).lock().get(name) {
            for ear in waiters {
                ear.changed.lock().insert(name.clone());
                ear.notify.notify_one();
            }
        }
    }

    /// Wakes the longest waiting claim that fits; one operation needs only one.
    fn wake_claim(&self, hint: &ClaimHint) {
        let mut claims = self.claims.lock();
        let fits = claims
            .iter()
            .position(|waiter| waiter.filter.accepts(&hint.api, &hint.method, &hint.queue));
        if let Some(index) = fits {
            wake(&claims.remove(index));
        }
    }

    /// Wakes any claim: a woken one left without taking what it was woken for.
    fn pass_on(&self) {
        for waiter in self.claims.lock().drain(..) {
            wake(&waiter);
        }
    }
}

fn wake(waiter: &ClaimWaiter) {
    waiter.woken.store(true, Ordering::Release);
    waiter.notify.notify_one();
}

impl Listener for Watch {
    fn committed(&self, applied: &Applied) {
        let operation = &applied.operation;
        self.wake_operation(&operation.name);
        if let Some(due) = operation.due_at() {
            self.wake_sweeper(due);
        }
        let asked = |event: &Event| matches!(event.kind, EventKind::CancelRequested { .. });
        if applied.events.iter().any(asked) {
            self.cancels.notify_one();
        }
    }

    fn claimable(&self, hint: &ClaimHint) {
        // A hint for a moment that has come is for now; the claim itself looks at the clock.
        if hint.from <= self.now() {
            self.wake_claim(hint);
        } else {
            self.backing_off.lock().entry(hint.from).or_default().push(hint.clone());
            self.wake_sweeper(hint.from);
        }
    }

    fn changed_elsewhere(&self, name: &OperationName, _revision: u64) {
        self.wake_operation(name);
    }

    fn missed(&self) {
        for shard in &self.operations {
            for (name, waiters) in &*shard.lock() {
                for ear in waiters {
                    ear.changed.lock().insert(name.clone());
                    ear.notify.notify_one();
                }
            }
        }
        self.pass_on();
        self.cancels.notify_one();
        self.wake_sweeper(Timestamp::MIN);
    }
}

/// One caller's interest in some operations.
pub struct Subscription {
    watch: Arc<Watch>,
    names: HashSet<OperationName>,
    ear: Arc<Ear>,
}

impl Subscription {
    /// Also hears of `name` from now on. Read its row after this, not before.
    pub fn add(&mut self, name: OperationName) {
        if self.names.insert(name.clone()) {
            let mut shard = self.watch.shard(&name).lock();
            shard.entry(name).or_default().push(self.ear.clone());
        }
    }

    /// Hears no more of `name`.
    pub fn remove(&mut self, name: &OperationName) {
        if self.names.remove(name) {
            self.watch.forget(name, &self.ear);
        }
    }

    /// Ends after a change since the last call, or since the registration; says what changed.
    pub async fn changed(&self) -> BTreeSet<OperationName> {
        loop {
            let changed = std::mem::take(&mut *self.ear.changed.lock());
            if !changed.is_empty() {
                return changed;
            }
            self.ear.notify.notified().await;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        for name in &self.names {
            self.watch.forget(name, &self.ear);
        }
    }
}

/// One hanging claim.
pub struct ClaimSubscription {
    watch: Arc<Watch>,
    waiter: Arc<ClaimWaiter>,
}

impl ClaimSubscription {
    /// Ends when something fitting may be claimable. The registration is used up; make another to go on.
    pub async fn claimable(&self) {
        self.waiter.notify.notified().await;
        self.waiter.woken.store(false, Ordering::Release);
    }
}

impl Drop for ClaimSubscription {
    fn drop(&mut self) {
        self.watch.claims.lock().retain(|other| !Arc::ptr_eq(other, &self.waiter));
        if self.waiter.woken.load(Ordering::Acquire) {
            self.watch.pass_on();
        }
    }
}

/// A place among the held calls; given back when dropped.
pub struct Held(Arc<Watch>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::Relaxed);
    }
}
