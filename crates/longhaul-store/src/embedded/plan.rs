//! What is claimable, what is due, and which key started what: indexes in memory over row slots.
//!
//! Belongs to the writer, which changes it while it decides and undoes the changes when a commit fails.
//! Holds no operation: only moments, ages and hashes.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::hash::BuildHasher;
use std::ops::Bound;
use std::sync::Arc;

use hashbrown::HashTable;
use longhaul_core::{Operation, Timestamp};

use super::hash::RandomState;
use crate::{ClaimFilter, Due};

/// A place in the tables in memory; one per row, given again after the row went.
pub(super) type Slot = u32;

/// A place in the order of what is due: moment, age, slot.
pub(super) type Turn = (i64, i64, Slot);

/// "Never", as a moment in a slot.
const NEVER: i64 = i64::MAX;

/// Everything that scheduling needs to know of one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scheduled {
    group: u32,
    create: i64,
    claimable: i64,
    due: i64,
    /// Hash of the idempotency key that is filed under this operation; 0 when there is none.
    key: u64,
    /// Hash of the resource that the operation has for itself; 0 when there is none.
    alone: u64,
}

/// Operations that the same claims can take.
struct Group {
    api: Arc<str>,
    method: Arc<str>,
    queue: Arc<str>,
    /// By the moment from which it can be claimed, then by age.
    ready: BTreeSet<Turn>,
}

#[derive(Default)]
pub(super) struct Plan {
    slots: Vec<Option<Scheduled>>,
    groups: Vec<Group>,
    /// By API, method and queue.
    group_of: HashTable<u32>,
    timers: BTreeSet<(i64, Slot)>,
    keys: HashTable<Slot>,
    /// By hash of the resource that an operation has for itself.
    alone: BTreeSet<(u64, Slot)>,
    hasher: RandomState,
}

impl Plan {
    /// The hash of an idempotency key; never 0.
    pub fn key_hash(&self, api: &str, parent: &str, value: &str) -> u64 {
        self.hasher.hash_one((api, parent, value)).max(1)
    }

    /// The hash of a resource that an operation has for itself; never 0.
    pub fn alone_hash(&self, api: &str, target: &str) -> u64 {
        self.hasher.hash_one((api, target)).max(1)
    }

    /// The slots of operations that have some resource with this hash for themselves.
    pub fn alone(&self, hash: u64) -> Vec<Slot> {
        self.alone.range((hash, 0)..=(hash, Slot::MAX)).map(|(_, slot)| *slot).collect()
    }

    /// What the plan holds for an operation; `key` is the hash of its key while it is the one filed.
    pub fn schedule(&mut self, operation: &Operation, key: u64) -> Scheduled {
        let group = self.group(&operation.api, &operation.method, &operation.queue);
        Scheduled {
            group,
            create: operation.create_time.as_micros(),
            claimable: operation.claimable_from().map_or(NEVER, Timestamp::as_micros),
            due: operation.due_at().map_or(NEVER, Timestamp::as_micros),
            key,
            alone: operation.claim_on().map_or(0, |(api, target)| self.alone_hash(api, target)),
        }
    }

    /// The number of a group, new or known. Groups stay: there are as many as methods and queues.
    pub fn group(&mut self, api: &Arc<str>, method: &Arc<str>, queue: &Arc<str>) -> u32 {
        let Self { group_of, groups, hasher, .. } = self;
        let hash = hasher.hash_one((&**api, &**method, &**queue));
        let is =
            |group: &Group| group.api == *api && group.method == *method && group.queue == *queue;
        if let Some(&group) = group_of.find(hash, |&group| is(&groups[group as usize])) {
            return group;
        }
        let group = u32::try_from(groups.len()).expect("fewer groups than operations");
        let (api, method, queue) = (api.clone(), method.clone(), queue.clone());
        groups.push(Group { api, method, queue, ready: BTreeSet::new() });
        group_of.insert_unique(hash, group, |&group| {
            let Group { api, method, queue, .. } = &groups[group as usize];
            hasher.hash_one((&**api, &**method, &**queue))
        });
        group
    }

    /// Puts an operation where it belongs, or takes it out; returns what was there.
    pub fn set(&mut self, slot: Slot, next: Option<Scheduled>) -> Option<Scheduled> {
        let index = slot as usize;
        if self.slots.len() <= index {
            self.slots.resize(index + 1, None);
        }
        let before = self.slots[index];
        if before == next {
            return before;
        }
        if let Some(old) = before {
            self.unlink(slot, old, next);
        }
        self.slots[index] = next;
        if let Some(new) = next {
            self.link(slot, new, before);
        }
        before
    }

    fn unlink(&mut self, slot: Slot, old: Scheduled, next: Option<Scheduled>) {
        if old.claimable != NEVER
            && next.is_none_or(|new| new.claimable != old.claimable || new.group != old.group)
        {
            self.groups[old.group as usize].ready.remove(&(old.claimable, old.create, slot));
        }
        if old.due != NEVER && next.is_none_or(|new| new.due != old.due) {
            self.timers.remove(&(old.due, slot));
        }
        if old.key != 0
            && next.is_none_or(|new| new.key != old.key)
            && let Ok(filed) = self.keys.find_entry(old.key, |&other| other == slot)
        {
            filed.remove();
        }
        if old.alone != 0 {
            self.alone.remove(&(old.alone, slot));
        }
    }

    fn link(&mut self, slot: Slot, new: Scheduled, before: Option<Scheduled>) {
        if new.claimable != NEVER
            && before.is_none_or(|old| old.claimable != new.claimable || old.group != new.group)
        {
            self.groups[new.group as usize].ready.insert((new.claimable, new.create, slot));
        }
        if new.due != NEVER && before.is_none_or(|old| old.due != new.due) {
            self.timers.insert((new.due, slot));
        }
        if new.key != 0 && before.is_none_or(|old| old.key != new.key) {
            let slots = &self.slots;
            self.keys.insert_unique(new.key, slot, |&slot| key_of(slots, slot));
        }
        if new.alone != 0 {
            self.alone.insert((new.alone, slot));
        }
    }

    /// The key hash that is filed under a slot; 0 when there is none.
    pub fn key(&self, slot: Slot) -> u64 {
        key_of(&self.slots, slot)
    }

    /// The slots that some key with this hash is filed under; nearly always one or none.
    pub fn filed(&self, key: u64) -> Vec<Slot> {
        self.keys.iter_hash(key).copied().filter(|&slot| self.key(slot) == key).collect()
    }

    /// Takes the key away from a slot; returns what was there.
    pub fn unfile(&mut self, slot: Slot) -> Option<Scheduled> {
        let next = self.slots[slot as usize].map(|old| Scheduled { key: 0, ..old });
        self.set(slot, next)
    }

    /// The next `limit` that are due, in order, from behind `after`.
    pub fn due(&self, due: &Due, after: Option<Turn>, limit: usize) -> Vec<Turn> {
        match due {
            Due::Claim { filter, now, .. } => self.claimable(filter, *now, after, limit),
            Due::Timer { now } => {
                let begin =
                    after.map_or(Bound::Unbounded, |(due, _, slot)| Bound::Excluded((due, slot)));
                let end = Bound::Included((now.as_micros(), Slot::MAX));
                if after.is_some_and(|(due, _, _)| due > now.as_micros()) {
                    return Vec::new();
                }
                let due = self.timers.range((begin, end)).take(limit);
                due.map(|&(due, slot)| (due, 0, slot)).collect()
            }
        }
    }

    fn claimable(
        &self,
        filter: &ClaimFilter,
        now: Timestamp,
        after: Option<Turn>,
        limit: usize,
    ) -> Vec<Turn> {
        let begin = after.map_or(Bound::Unbounded, Bound::Excluded);
        let end = Bound::Included((now.as_micros(), i64::MAX, Slot::MAX));
        let mut queues: Vec<_> = self
            .groups
            .iter()
            .filter(|group| !group.ready.is_empty())
            .filter(|group| filter.accepts(&group.api, &group.method, &group.queue))
            .map(|group| group.ready.range((begin, end)).copied())
            .collect();
        let mut heads: BinaryHeap<_> = queues
            .iter_mut()
            .enumerate()
            .filter_map(|(index, queue)| queue.next().map(|turn| Reverse((turn, index))))
            .collect();
        let mut found = Vec::new();
        while found.len() < limit
            && let Some(Reverse((turn, index))) = heads.pop()
        {
            found.push(turn);
            if let Some(turn) = queues[index].next() {
                heads.push(Reverse((turn, index)));
            }
        }
        found
    }

    pub fn next_due(&self) -> Option<Timestamp> {
        self.timers.first().map(|&(due, _)| Timestamp::from_micros(due))
    }

    pub fn next_claimable(&self, now: Timestamp) -> Option<Timestamp> {
        let later = (now.as_micros().saturating_add(1), i64::MIN, 0);
        self.groups
            .iter()
            .filter_map(|group| group.ready.range(later..).next())
            .map(|&(from, _, _)| from)
            .min()
            .map(Timestamp::from_micros)
    }
}

fn key_of(slots: &[Option<Scheduled>], slot: Slot) -> u64 {
    slots.get(slot as usize).copied().flatten().map_or(0, |scheduled| scheduled.key)
}

/// Gathers a plan from rows in one go: sorted once instead of one insertion at a time.
#[derive(Default)]
pub(super) struct PlanBuilder {
    plan: Plan,
    ready: Vec<Vec<Turn>>,
    timers: Vec<(i64, Slot)>,
}

/// The columns of a row that scheduling needs.
pub(super) struct ScheduledRow<'a> {
    pub api: &'a Arc<str>,
    pub method: &'a Arc<str>,
    pub queue: &'a Arc<str>,
    pub create_us: i64,
    pub claimable_us: Option<i64>,
    pub due_us: Option<i64>,
    pub key: u64,
    pub alone: u64,
}

impl PlanBuilder {
    /// As [`Plan::key_hash`].
    pub fn key_hash(&self, api: &str, parent: &str, value: &str) -> u64 {
        self.plan.key_hash(api, parent, value)
    }

    /// As [`Plan::alone_hash`].
    pub fn alone_hash(&self, api: &str, target: &str) -> u64 {
        self.plan.alone_hash(api, target)
    }

    /// Adds the row of the next slot. A later row takes over the key of an earlier one; `same` says
    /// whether the operation in a slot has this very key.
    pub fn push(&mut self, row: &ScheduledRow<'_>, mut same: impl FnMut(Slot) -> bool) {
        let slot = Slot::try_from(self.plan.slots.len()).expect("fewer rows than slots");
        let group = self.plan.group(row.api, row.method, row.queue);
        let claimable = row.claimable_us.unwrap_or(NEVER);
        let due = row.due_us.unwrap_or(NEVER);
        if claimable != NEVER {
            self.ready.resize_with(self.plan.groups.len(), Vec::new);
            self.ready[group as usize].push((claimable, row.create_us, slot));
        }
        if due != NEVER {
            self.timers.push((due, slot));
        }
        if row.key != 0 {
            for older in self.plan.filed(row.key).into_iter().filter(|&older| same(older)) {
                self.plan.unfile(older);
            }
        }
        let (create, key, alone) = (row.create_us, row.key, row.alone);
        let scheduled = Scheduled { group, create, claimable, due, key, alone };
        if alone != 0 {
            self.plan.alone.insert((alone, slot));
        }
        self.plan.slots.push(Some(scheduled));
        if row.key != 0 {
            let slots = &self.plan.slots;
            self.plan.keys.insert_unique(row.key, slot, |&slot| key_of(slots, slot));
        }
    }

    pub fn build(mut self) -> Plan {
        for (group, ready) in self.ready.into_iter().enumerate() {
            self.plan.groups[group].ready = ready.into_iter().collect();
        }
        self.plan.timers = self.timers.into_iter().collect();
        self.plan
    }
}
