//! The committed state as readers see it: names, lists, counts and whole operations in memory.
//!
//! Changed by the writer only, after each commit. A read finds its row here without touching the disk,
//! and most often the whole operation too.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashTable;
use longhaul_core::{Operation, OperationName};

use super::cache::Cache;
use super::claims::Claims;
use super::families::Families;
use super::hash::{Map, RandomState};
use super::lists::{Lists, ListsBuilder, Place};
use super::plan::Slot;
use super::rows::{DONE, Kept, STATE_NAMES, state_number};
use super::words::{Word, Words};
use crate::{Count, Cursor, ListQuery};

/// What is known of a row without reading it. 64 bytes: there may be millions.
struct Entry {
    /// Row id; 0 when the slot is free.
    id: i64,
    name_hash: u64,
    place: Place,
    api: Word,
    method: Word,
    queue: Word,
    parent: Word,
    /// Lowest bits of the revision: tells whether a row just read is still the newest.
    revision: u32,
    history_rows: u16,
    /// A state number.
    state: u8,
    /// Deleted by a client: in no list.
    hidden: bool,
}

const _: () = assert!(size_of::<Entry>() == 64);

/// The revision of an entry whose row has not changed since the start-up scan.
const UNCHANGED: u32 = 0;

impl Entry {
    const FREE: Self = Self {
        id: 0,
        name_hash: 0,
        place: Place::FIRST,
        api: 0,
        method: 0,
        queue: 0,
        parent: 0,
        revision: UNCHANGED,
        history_rows: 0,
        state: 0,
        hidden: true,
    };

    fn done(&self) -> bool {
        self.state == DONE
    }
}

/// Where the value of an operation is.
pub(super) struct Found {
    pub slot: Slot,
    /// Row id.
    pub id: i64,
    /// The value, if it is in memory.
    pub kept: Option<Kept>,
}

pub(super) struct View {
    words: Words,
    entries: Vec<Entry>,
    names: HashTable<Slot>,
    lists: Lists,
    /// By API and method: how many in each state.
    counts: Map<(Word, Word), [u64; STATE_NAMES.len()]>,
    cache: Cache,
    /// Parents and children.
    pub families: Families,
    /// What each claim holds.
    pub claims: Claims,
    hasher: RandomState,
}

impl View {
    /// Where the operation of this name may be: in memory, or in rows to look into, because only a hash
    /// was compared. More than one place only when two names share a hash.
    pub fn find(&self, name: &OperationName) -> Vec<Found> {
        self.candidates(name)
            .map(|slot| self.at(slot))
            .filter(|found| found.kept.as_ref().is_none_or(|kept| kept.operation.name == *name))
            .collect()
    }

    /// The operation of this name, if it is in memory: the hot path of a read.
    pub fn cached(&self, name: &OperationName) -> Option<Arc<Operation>> {
        self.candidates(name)
            .filter_map(|slot| self.cache.get(slot))
            .find(|operation| operation.name == *name)
            .cloned()
    }

    fn candidates(&self, name: &OperationName) -> impl Iterator<Item = Slot> {
        let hash = self.hasher.hash_one(name.as_str());
        self.names
            .iter_hash(hash)
            .copied()
            .filter(move |&slot| self.entries[slot as usize].name_hash == hash)
    }

    /// Where the operation in a slot is.
    pub fn at(&self, slot: Slot) -> Found {
        let entry = &self.entries[slot as usize];
        let kept = self.cache.get(slot).map(|operation| Kept {
            operation: operation.clone(),
            history_rows: entry.history_rows,
        });
        Found { slot, id: entry.id, kept }
    }

    /// The row id of a slot.
    pub fn id(&self, slot: Slot) -> i64 {
        self.entries[slot as usize].id
    }

    /// A page: cursors, and where each operation is.
    pub fn list(&self, query: &ListQuery) -> Vec<(Cursor, Found)> {
        let Some(api) = self.words.find(&query.api) else { return Vec::new() };
        let page = self.lists.page(api, query);
        page.into_iter().map(|(cursor, slot)| (cursor, self.at(slot))).collect()
    }

    pub fn counts(&self) -> Vec<Count> {
        let mut counts = Vec::new();
        for (&(api, method), states) in &self.counts {
            for (state, &operations) in states.iter().enumerate().filter(|(_, n)| **n > 0) {
                counts.push(Count {
                    api: self.words.text(api).clone(),
                    method: self.words.text(method).clone(),
                    state: STATE_NAMES[state],
                    operations,
                });
            }
        }
        counts.sort_unstable();
        counts
    }

    /// Shows a committed value: of a new operation, or the next one of a known operation.
    pub fn put(&mut self, slot: Slot, id: i64, mut kept: Kept) {
        if self.entries.get(slot as usize).is_some_and(|entry| entry.id == id) {
            self.unlink(slot);
        } else {
            self.admit(slot, id, &kept.operation);
        }
        let entry = &mut self.entries[slot as usize];
        entry.revision = kept.operation.revision as u32;
        entry.history_rows = kept.history_rows;
        entry.state = state_number(&kept.operation.state);
        entry.hidden = kept.operation.deleted.is_some();
        self.link(slot);
        self.families.put(slot, &kept.operation);
        self.claims.put(slot, &kept.operation);
        if let Some(operation) = Arc::get_mut(&mut kept.operation) {
            let entry = &self.entries[slot as usize];
            operation.api = self.words.text(entry.api).clone();
            operation.method = self.words.text(entry.method).clone();
            operation.queue = self.words.text(entry.queue).clone();
            operation.parent = self.words.text(entry.parent).clone();
            self.cache.share(operation);
        }
        self.cache.put(slot, kept.operation);
    }

    /// Gives a slot to a new row.
    fn admit(&mut self, slot: Slot, id: i64, operation: &Operation) {
        let entry = self.entry(&ViewRow {
            id,
            name: operation.name.as_str(),
            cursor: Cursor::of(operation),
            api: &operation.api,
            method: &operation.method,
            queue: &operation.queue,
            parent: &operation.parent,
        });
        let slots = slot as usize + 1;
        while self.entries.len() < slots {
            self.entries.push(Entry::FREE);
        }
        self.cache.grow(slots);
        let hash = entry.name_hash;
        self.entries[slot as usize] = entry;
        let entries = &self.entries;
        self.names.insert_unique(hash, slot, |&slot| entries[slot as usize].name_hash);
    }

    fn entry(&mut self, row: &ViewRow<'_>) -> Entry {
        Entry {
            id: row.id,
            name_hash: self.hasher.hash_one(row.name),
            place: Place::of(row.cursor),
            api: self.words.take(row.api),
            method: self.words.take(row.method),
            queue: self.words.take(row.queue),
            parent: self.words.take(row.parent),
            ..Entry::FREE
        }
    }

    /// Removes a row that went.
    pub fn forget(&mut self, slot: Slot) {
        self.unlink(slot);
        self.families.remove(slot);
        self.claims.remove(slot);
        self.cache.remove(slot);
        let entry = std::mem::replace(&mut self.entries[slot as usize], Entry::FREE);
        if let Ok(found) = self.names.find_entry(entry.name_hash, |&other| other == slot) {
            found.remove();
        }
        for word in [entry.api, entry.method, entry.queue, entry.parent] {
            self.words.release(word);
        }
    }

    fn link(&mut self, slot: Slot) {
        let entry = &self.entries[slot as usize];
        let states = self.counts.entry((entry.api, entry.method)).or_default();
        states[usize::from(entry.state)] += 1;
        if !entry.hidden {
            let parent = self.words.text(entry.parent);
            self.lists.insert(entry.api, parent, entry.done(), entry.place, slot);
        }
    }

    fn unlink(&mut self, slot: Slot) {
        let entry = &self.entries[slot as usize];
        let key = (entry.api, entry.method);
        if let Some(states) = self.counts.get_mut(&key) {
            states[usize::from(entry.state)] -= 1;
            if *states == [0; STATE_NAMES.len()] {
                // The words may be given to other texts once no row uses them.
                self.counts.remove(&key);
            }
        }
        if !entry.hidden {
            let parent = self.words.text(entry.parent);
            self.lists.remove(entry.api, parent, entry.done(), entry.place, slot);
        }
    }

    /// Keeps an operation read from its row in memory, unless the row has changed since.
    pub fn offer(&mut self, slot: Slot, id: i64, kept: &Kept) {
        let revision = kept.operation.revision as u32;
        let newest = self.entries.get(slot as usize).is_some_and(|entry| {
            entry.id == id && (entry.revision == UNCHANGED || entry.revision == revision)
        });
        if newest && self.cache.get(slot).is_none() {
            self.cache.put(slot, kept.operation.clone());
        }
    }
}

/// The columns of a row that readers need.
pub(super) struct ViewRow<'a> {
    pub id: i64,
    pub name: &'a str,
    pub cursor: Cursor,
    pub api: &'a str,
    pub method: &'a str,
    pub queue: &'a str,
    pub parent: &'a str,
}

/// Gathers a view from rows in one go.
pub(super) struct ViewBuilder {
    view: View,
    lists: ListsBuilder,
}

impl ViewBuilder {
    pub fn new(cache_bytes_max: usize) -> Self {
        let view = View {
            words: Words::default(),
            entries: Vec::new(),
            names: HashTable::new(),
            lists: Lists::default(),
            counts: Map::default(),
            cache: Cache::new(cache_bytes_max),
            families: Families::default(),
            claims: Claims::default(),
            hasher: RandomState::default(),
        };
        Self { view, lists: ListsBuilder::default() }
    }

    /// Adds the row of the next slot.
    pub fn push(&mut self, row: &ViewRow<'_>, state: u8, hidden: bool, history_rows: u16) -> Slot {
        let view = &mut self.view;
        let slot = Slot::try_from(view.entries.len()).expect("fewer rows than slots");
        let entry = Entry { history_rows, state, hidden, ..view.entry(row) };
        if !hidden {
            self.lists.push(entry.api, entry.parent, entry.done(), entry.place, slot);
        }
        view.counts.entry((entry.api, entry.method)).or_default()[usize::from(state)] += 1;
        let hash = entry.name_hash;
        view.entries.push(entry);
        let entries = &view.entries;
        view.names.insert_unique(hash, slot, |&slot| entries[slot as usize].name_hash);
        slot
    }

    /// The shared texts of a slot: API, method, queue, parent.
    pub fn texts(&self, slot: Slot) -> [&Arc<str>; 4] {
        let entry = &self.view.entries[slot as usize];
        [entry.api, entry.method, entry.queue, entry.parent].map(|word| self.view.words.text(word))
    }

    pub fn build(self) -> View {
        let mut view = self.view;
        view.cache.grow(view.entries.len());
        view.lists = self.lists.build(|word| view.words.text(word));
        view
    }
}
