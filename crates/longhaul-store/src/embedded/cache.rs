//! Whole operations in memory, up to a bound of bytes: a clock that passes over what was read since it last
//! came by.

use std::mem::size_of;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use longhaul_core::{Operation, Outcome};

use super::hash::Set;
use super::plan::Slot;
use crate::codec;

/// Most names of message types that are shared; APIs have fewer types.
const TYPE_NAMES_MAX: usize = 4_096;

pub(super) struct Cache {
    /// By slot.
    operations: Vec<Option<Arc<Operation>>>,
    /// By slot: read since the hand last passed.
    touched: Vec<AtomicBool>,
    bytes: usize,
    bytes_max: usize,
    hand: usize,
    /// Names of message types, which all operations of a method share.
    type_names: Set<Arc<str>>,
}

impl Cache {
    pub fn new(bytes_max: usize) -> Self {
        Self {
            operations: Vec::new(),
            touched: Vec::new(),
            bytes: 0,
            bytes_max,
            hand: 0,
            type_names: Set::default(),
        }
    }

    /// Makes room for slots below `slots`.
    pub fn grow(&mut self, slots: usize) {
        if self.operations.len() < slots {
            self.operations.resize(slots, None);
            self.touched.resize_with(slots, AtomicBool::default);
        }
    }

    /// The operation in a slot, if it is in memory. Counts as a read.
    pub fn get(&self, slot: Slot) -> Option<&Arc<Operation>> {
        let operation = self.operations[slot as usize].as_ref()?;
        let touched = &self.touched[slot as usize];
        // Looked at first: most reads then leave the line alone that other readers share.
        if !touched.load(Ordering::Relaxed) {
            touched.store(true, Ordering::Relaxed);
        }
        Some(operation)
    }

    pub fn put(&mut self, slot: Slot, operation: Arc<Operation>) {
        self.remove(slot);
        self.bytes += weight(&operation);
        self.operations[slot as usize] = Some(operation);
        self.touched[slot as usize].store(true, Ordering::Relaxed);
        while self.bytes > self.bytes_max {
            self.evict();
        }
    }

    pub fn remove(&mut self, slot: Slot) {
        if let Some(operation) = self.operations[slot as usize].take() {
            self.bytes -= weight(&operation);
        }
    }

    fn evict(&mut self) {
        self.hand = if self.hand + 1 < self.operations.len() { self.hand + 1 } else { 0 };
        let touched = &self.touched[self.hand];
        if self.operations[self.hand].is_some() && touched.load(Ordering::Relaxed) {
            touched.store(false, Ordering::Relaxed);
        } else {
            self.remove(self.hand as Slot);
        }
    }

    /// Lets an operation share the texts that many have, instead of the copies that came with its request.
    pub fn share(&mut self, operation: &mut Operation) {
        for text in [&mut operation.target, &mut operation.actor, &mut operation.traceparent] {
            if text.is_empty() {
                *text = codec::empty();
            }
        }
        for type_name in [&mut operation.request.type_name, &mut operation.metadata.type_name] {
            if let Some(known) = self.type_names.get(type_name) {
                *type_name = known.clone();
            } else if self.type_names.len() < TYPE_NAMES_MAX {
                self.type_names.insert(type_name.clone());
            }
        }
    }
}

/// About how many bytes a cached operation takes.
fn weight(operation: &Operation) -> usize {
    let outcome = match operation.outcome() {
        Some(Outcome::Response(payload)) => payload.value.len(),
        Some(Outcome::Error(status)) => {
            status.message.len()
                + status.details.iter().map(|detail| detail.value.len()).sum::<usize>()
        }
        None => 0,
    };
    // Each text of its own costs two counts and the allocator's share beside its bytes.
    const TEXTS: usize = 8 * 32;
    size_of::<Operation>()
        + TEXTS
        + operation.name.as_str().len()
        + operation.target.len()
        + operation.request.value.len()
        + operation.metadata.value.len()
        + operation.checkpoint.as_ref().map_or(0, |bytes| bytes.len())
        + outcome
}
