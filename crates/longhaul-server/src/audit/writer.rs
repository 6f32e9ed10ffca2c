//! The thread that writes entries: many to one write, off the path of calls.
//!
//! Owns the queue and what happens when a write fails: those who wait are told, the other entries are kept
//! and tried again until there is no room for them, and what is lost is counted in the log itself.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use longhaul_core::Timestamp;
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::audit::chain::{self, Link};
use crate::audit::config::{AuditConfig, SyncPolicy};
use crate::audit::entry::Entry;
use crate::audit::file::Sink;
use crate::audit::own;
use crate::clock::Clock;

/// Entries of one write; bounds how long the first of them waits.
const BATCH: usize = 1024;
/// Pause after a write failed.
const PAUSE: Duration = Duration::from_millis(250);

/// An entry on its way, and who waits for it.
pub(crate) struct Item {
    /// The entry.
    pub(crate) entry: Entry,
    /// Told whether it was written. Entries that somebody waits for are not tried again.
    pub(crate) done: Option<oneshot::Sender<bool>>,
}

/// What waits to be written.
#[derive(Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    ready: Condvar,
    failing: AtomicBool,
    lost: AtomicU64,
    /// Calls refused since the last write that worked.
    pub(crate) refused: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    items: VecDeque<Item>,
    /// The thread has nothing to do and is to be woken.
    idle: bool,
    closed: bool,
}

impl Queue {
    /// Whether the last write failed.
    pub(crate) fn failing(&self) -> bool {
        self.failing.load(Ordering::Acquire)
    }

    /// Appends an entry if fewer than `room` wait. False when it did not.
    pub(crate) fn push(&self, item: Item, room: usize) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.items.len() >= room || waiting.closed {
            return false;
        }
        waiting.items.push_back(item);
        if std::mem::take(&mut waiting.idle) {
            drop(waiting);
            self.ready.notify_one();
        }
        true
    }

    /// Counts entries that will never be written.
    pub(crate) fn lose(&self, entries: u64) {
        if entries > 0 && self.lost.fetch_add(entries, Ordering::Relaxed) == 0 {
            tracing::error!(
                "entries of the audit log are being lost: it cannot be written fast enough, or at all"
            );
        }
    }

    /// Entries lost and not yet told of in the log.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Takes no more; the thread ends once what waits is written.
    pub(crate) fn close(&self) {
        self.waiting.lock().closed = true;
        self.ready.notify_one();
    }
}

/// What the thread has.
pub(crate) struct Writer {
    queue: Arc<Queue>,
    sink: Box<dyn Sink>,
    last: Link,
    config: AuditConfig,
    clock: Arc<dyn Clock>,
    /// Tells the entries of this run from those of others.
    run: u64,
    written: u64,
    buffer: Vec<u8>,
    /// The oldest write that is to be synced.
    unsynced: Option<Timestamp>,
    /// When writes began to fail.
    failing_since: Option<Timestamp>,
}

impl Writer {
    pub(crate) fn new(
        queue: Arc<Queue>,
        sink: Box<dyn Sink>,
        last: Link,
        config: AuditConfig,
        clock: Arc<dyn Clock>,
        run: u64,
    ) -> Self {
        Self {
            queue,
            sink,
            last,
            config,
            clock,
            run,
            written: 0,
            buffer: Vec::new(),
            unsynced: None,
            failing_since: None,
        }
    }

    /// Runs until the queue is closed and empty.
    pub(crate) fn run(mut self) {
        loop {
            let (items, closed) = self.take();
            if !items.is_empty() || self.failing_since.is_some() {
                self.write(items);
            }
            if closed
                && (self.failing_since.is_some() || self.queue.waiting.lock().items.is_empty())
            {
                break;
            }
            self.sync_when_due();
        }
        let left = self.queue.waiting.lock().items.len() as u64 + self.queue.lost();
        if left > 0 {
            tracing::error!(entries = left, "the audit log could not be written to its end");
        }
        if self.config.sync != SyncPolicy::Never
            && let Err(error) = self.sink.sync()
        {
            tracing::error!(%error, "the audit log could not be synced at its end");
        }
    }

    /// What waits, once something does, a sync is due, or a failed write is to be tried again.
    fn take(&self) -> (Vec<Item>, bool) {
        let mut waiting = self.queue.waiting.lock();
        if self.failing_since.is_some() {
            // Nobody wakes a thread that is not idle, so this is a pause.
            if !waiting.closed {
                self.queue.ready.wait_for(&mut waiting, PAUSE);
            }
        } else if waiting.items.is_empty() && !waiting.closed {
            waiting.idle = true;
            match self.unsynced {
                Some(since) => {
                    let left = (since + self.config.sync_interval).since(self.clock.now());
                    self.queue.ready.wait_for(&mut waiting, left);
                }
                None => self.queue.ready.wait(&mut waiting),
            }
            waiting.idle = false;
        }
        let count = waiting.items.len().min(BATCH);
        (waiting.items.drain(..count).collect(), waiting.closed)
    }

    fn write(&mut self, items: Vec<Item>) {
        let now = self.clock.now();
        let lost = self.queue.lost.swap(0, Ordering::Relaxed);
        let resumed = self.failing_since.map(|since| {
            let mut entry = own(now, "Resume");
            entry.facts.push(("since", longhaul_wire::convert::moment(since).to_string().into()));
            let refused = self.queue.refused.load(Ordering::Relaxed);
            entry.facts.push(("callsRefused", refused.to_string().into()));
            entry
        });
        self.buffer.clear();
        let mut last = self.last;
        let mut told = lost;
        for entry in resumed.iter().chain(items.iter().map(|item| &item.entry)) {
            let start = self.buffer.len();
            self.written += 1;
            let number = format!("{:016x}-{:x}", self.run, self.written);
            entry.write(&mut self.buffer, &number, std::mem::take(&mut told));
            last = chain::seal(&mut self.buffer, start, &last);
        }
        if let Err(error) = self.sink.append(&self.buffer, &last) {
            self.queue.lost.fetch_add(lost, Ordering::Relaxed);
            self.failed(&error, now);
            self.keep(items);
            return;
        }
        self.last = last;
        if self.config.sync == SyncPolicy::Interval {
            self.unsynced.get_or_insert(now);
        }
        if self.config.sync == SyncPolicy::Always
            && let Err(error) = self.sink.sync()
        {
            // They are written, and perhaps on disk; nobody may count on it.
            self.failed(&error, now);
            tell(items, false);
            return;
        }
        if let Some(since) = self.failing_since.take() {
            let seconds = now.since(since).as_secs();
            tracing::info!(seconds, "the audit log is written again");
            self.queue.refused.store(0, Ordering::Relaxed);
            self.queue.failing.store(false, Ordering::Release);
        }
        tell(items, true);
    }

    fn failed(&mut self, error: &std::io::Error, now: Timestamp) {
        self.queue.failing.store(true, Ordering::Release);
        if self.failing_since.is_none() {
            tracing::error!(%error, "the audit log cannot be written; trying again");
            self.failing_since = Some(now);
        }
    }

    /// Puts back what nobody waits for, as far as there is room, and tells the others.
    fn keep(&self, items: Vec<Item>) {
        let (waited_for, kept): (Vec<_>, Vec<_>) =
            items.into_iter().partition(|item| item.done.is_some());
        tell(waited_for, false);
        let mut waiting = self.queue.waiting.lock();
        for item in kept.into_iter().rev() {
            waiting.items.push_front(item);
        }
        let most = self.config.queue_max;
        let mut lost = 0;
        while waiting.items.len() > most
            && let Some(item) = waiting.items.pop_back()
        {
            match item.done {
                Some(done) => drop(done),
                None => lost += 1,
            }
        }
        drop(waiting);
        self.queue.lose(lost);
    }

    fn sync_when_due(&mut self) {
        let now = self.clock.now();
        if self.unsynced.is_none_or(|since| now.since(since) < self.config.sync_interval) {
            return;
        }
        self.unsynced = None;
        if let Err(error) = self.sink.sync() {
            tracing::error!(%error, "the audit log could not be synced; trying again");
            self.unsynced = Some(now);
        }
    }
}

fn tell(items: Vec<Item>, written: bool) {
    for done in items.into_iter().filter_map(|item| item.done) {
        // Whoever waited may have gone.
        let _ = done.send(written);
    }
}
