//! Which operations a claim holds, for the repeat of a claim whose answer was lost.
//!
//! An index in memory over rows, of claims with an id only. Only hashes are kept: whoever finds an operation
//! here looks at its lease.

use std::collections::BTreeSet;
use std::hash::BuildHasher;

use longhaul_core::{Lease, Operation};

use super::hash::{Map, RandomState};
use super::plan::Slot;

/// The claims of all rows.
#[derive(Default)]
pub(super) struct Claims {
    by_slot: Map<Slot, u64>,
    held: BTreeSet<(u64, Slot)>,
    hasher: RandomState,
}

impl Claims {
    /// Takes in a committed value.
    pub fn put(&mut self, slot: Slot, operation: &Operation) {
        let lease = operation.lease().filter(|lease| !lease.claim_id.is_empty());
        if self.by_slot.is_empty() && lease.is_none() {
            return;
        }
        match lease {
            Some(lease) => self.hold(slot, &lease.worker, &lease.claim_id),
            None => self.remove(slot),
        }
    }

    /// Files an operation under the claim that holds it.
    pub fn hold(&mut self, slot: Slot, worker: &str, claim_id: &str) {
        let hash = self.hasher.hash_one((worker, claim_id));
        match self.by_slot.insert(slot, hash) {
            Some(before) if before == hash => return,
            Some(before) => drop(self.held.remove(&(before, slot))),
            None => {}
        }
        self.held.insert((hash, slot));
    }

    /// Forgets an operation, if a claim holds it.
    pub fn remove(&mut self, slot: Slot) {
        if let Some(hash) = self.by_slot.remove(&slot) {
            self.held.remove(&(hash, slot));
        }
    }

    /// Where operations may be that this claim holds.
    pub fn of(&self, worker: &str, claim_id: &str) -> Vec<Slot> {
        let hash = self.hasher.hash_one((worker, claim_id));
        self.held.range((hash, 0)..=(hash, Slot::MAX)).map(|(_, slot)| *slot).collect()
    }
}

/// Whether this lease is that of the claim.
pub(super) fn is_of(lease: &Lease, worker: &str, claim_id: &str) -> bool {
    &*lease.worker == worker && &*lease.claim_id == claim_id
}
