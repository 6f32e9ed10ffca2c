//! The counters of many callers, in bounded memory.
//!
//! A caller is forgotten only when nothing is lost by it: all its buckets full again, no call held. So
//! making up callers resets nobody's counters; beyond the bound new callers share one.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::time::Duration;

use foldhash::quality::RandomState;
use longhaul_core::Timestamp;
use parking_lot::Mutex;

use crate::shares::bucket::{Bucket, Rate};
use crate::shares::{Kind, Share};

/// How many locks the callers are spread over.
const SHARDS: usize = 16;
/// How often a full table looks for callers to forget.
const SWEEP_EVERY: Duration = Duration::from_millis(100);
/// The name of whoever finds no place: no caller's own, for those are not empty.
const REST: &str = "\0";

/// Why a call is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// Too fast.
    Rate {
        /// The limit.
        per_second: u32,
        /// When there is room again.
        wait: Duration,
    },
    /// Too many calls are held.
    Held {
        /// The limit.
        max: u32,
    },
}

/// The counters of all callers.
#[derive(Debug)]
pub(crate) struct Table {
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
    /// Callers in one shard.
    shard_max: usize,
}

#[derive(Debug, Default)]
struct Shard {
    callers: HashMap<Box<str>, Caller, RandomState>,
    swept_at: Timestamp,
}

/// One caller: a counter for each API that it calls.
#[derive(Debug, Default)]
struct Caller {
    counters: Vec<(Arc<str>, Counter)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counter {
    calls: Bucket,
    cancels: Bucket,
    held: u32,
}

/// A place among the held calls; given back when dropped.
#[derive(Debug)]
pub(crate) struct Held {
    table: Arc<Table>,
    shard: usize,
    name: Box<str>,
    api: Arc<str>,
}

impl Table {
    /// Nobody has called yet; about `max` callers are remembered.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::default(),
            shard_max: max.div_ceil(SHARDS).max(1),
        }
    }

    /// Counts a call, and takes a place for a held one. Nothing is counted when it is denied, or not limited.
    pub(crate) fn take(
        self: &Arc<Self>,
        name: &str,
        api: &str,
        share: &Share,
        kind: Kind,
        held: bool,
        now: Timestamp,
    ) -> Result<Option<Held>, Denied> {
        let rate = rate(share, kind);
        let held = held && share.held_max > 0;
        if rate.is_none() && !held {
            return Ok(None);
        }
        let index = self.shard(name);
        let mut shard = self.shards[index].lock();
        let name = shard.place(name, self.shard_max, now);
        let counter = shard.counter(name, api);
        if held && counter.1.held >= share.held_max {
            return Err(Denied::Held { max: share.held_max });
        }
        if let Some(rate) = rate {
            counter
                .1
                .bucket(kind)
                .take(rate, now)
                .map_err(|wait| Denied::Rate { per_second: rate.per_second, wait })?;
        }
        Ok(held.then(|| {
            counter.1.held += 1;
            Held { table: self.clone(), shard: index, name: name.into(), api: counter.0.clone() }
        }))
    }

    /// Takes back a call that was counted for nothing.
    pub(crate) fn give_back(&self, name: &str, api: &str, share: &Share, kind: Kind) {
        let Some(rate) = rate(share, kind) else { return };
        let mut shard = self.shards[self.shard(name)].lock();
        let name = if shard.callers.contains_key(name) { name } else { REST };
        shard.counter(name, api).1.bucket(kind).give_back(rate);
    }

    fn shard(&self, name: &str) -> usize {
        self.hasher.hash_one(name) as usize % SHARDS
    }

    #[cfg(test)]
    pub(crate) fn callers(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().callers.len()).sum()
    }
}

impl Shard {
    /// The name to count under: the caller's own if there is a place for it.
    fn place<'a>(&mut self, name: &'a str, max: usize, now: Timestamp) -> &'a str {
        if self.callers.contains_key(name) {
            return name;
        }
        if self.callers.len() >= max && now.since(self.swept_at) >= SWEEP_EVERY {
            self.swept_at = now;
            self.callers.retain(|_, caller| !caller.idle(now));
        }
        if self.callers.len() >= max { REST } else { name }
    }

    fn counter(&mut self, name: &str, api: &str) -> &mut (Arc<str>, Counter) {
        if !self.callers.contains_key(name) {
            self.callers.insert(name.into(), Caller::default());
        }
        let caller = self.callers.get_mut(name).expect("it was put there before");
        let index = caller.counters.iter().position(|(of, _)| **of == *api);
        let index = index.unwrap_or_else(|| {
            caller.counters.push((api.into(), Counter::default()));
            caller.counters.len() - 1
        });
        &mut caller.counters[index]
    }
}

impl Caller {
    fn idle(&self, now: Timestamp) -> bool {
        let idle = |counter: &Counter| {
            counter.held == 0 && counter.calls.is_full(now) && counter.cancels.is_full(now)
        };
        self.counters.iter().all(|(_, counter)| idle(counter))
    }
}

impl Counter {
    const fn bucket(&mut self, kind: Kind) -> &mut Bucket {
        match kind {
            Kind::Call => &mut self.calls,
            Kind::Cancel => &mut self.cancels,
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut shard = self.table.shards[self.shard].lock();
        let counter = shard.counter(&self.name, &self.api);
        counter.1.held = counter.1.held.saturating_sub(1);
    }
}

fn rate(share: &Share, kind: Kind) -> Option<Rate> {
    match kind {
        Kind::Call => Rate::of(share.calls_per_second, share.calls_burst),
        Kind::Cancel => Rate::of(share.cancels_per_second, share.cancels_burst),
    }
}
