//! The committed state as readers see it: names, lists, counts and a cache of whole operations.
//!
//! Changed by the writer only, after each commit. A read finds its row here without touching the disk,
//! and most often the whole operation too.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::mem::size_of;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hashbrown::HashTable;
use longhaul_core::{Operation, OperationName, Outcome};

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
    /// State number, and [`HIDDEN`] when a client has deleted it.
    state: u8,
    /// Read since the cache's hand last passed.
    touched: AtomicBool,
}

const HIDDEN: u8 = 0x80;

/// The revision of an entry whose row has not changed since the start-up scan.
const UNCHANGED: u32 = 0;

/// A place in a list: a [`Cursor`] in 24 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    create: i64,
    uid: [u64; 2],
}

impl Place {
    fn of(cursor: Cursor) -> Self {
        let (high, low) = ((cursor.uid >> 64) as u64, cursor.uid as u64);
        Self { create: cursor.create_time.as_micros(), uid: [high, low] }
    }

    fn cursor(self) -> Cursor {
        let create_time = longhaul_core::Timestamp::from_micros(self.create);
        Cursor { create_time, uid: u128::from(self.uid[0]) << 64 | u128::from(self.uid[1]) }
    }
}

/// The operations under one parent, apart by whether they are done.
#[derive(Default)]
struct Shelf {
    live: BTreeSet<(Place, Slot)>,
    done: BTreeSet<(Place, Slot)>,
}

/// Where the value of an operation is.
pub(super) enum Found {
    /// In memory.
    Kept(Slot, Kept),
    /// In this row, if it is the right one: only a hash was compared.
    Row(Slot, i64),
}

pub(super) struct View {
    words: Words,
    entries: Vec<Entry>,
    names: HashTable<Slot>,
    shelves: HashMap<Word, BTreeMap<Arc<str>, Shelf>>,
    counts: HashMap<(Word, Word), [u64; STATE_NAMES.len()]>,
    /// By slot.
    cached: Vec<Option<Arc<Operation>>>,
    cached_bytes: usize,
    cached_bytes_max: usize,
    hand: usize,
    hasher: RandomState,
}

impl View {
    pub fn new(cached_bytes_max: usize) -> Self {
        Self {
            words: Words::default(),
            entries: Vec::new(),
            names: HashTable::new(),
            shelves: HashMap::new(),
            counts: HashMap::new(),
            cached: Vec::new(),
            cached_bytes: 0,
            cached_bytes_max,
            hand: 0,
            hasher: RandomState::new(),
        }
    }

    /// Where operations of this name may be. Either one that is in memory, or rows to look into; more
    /// than one row only when two names share a hash.
    pub fn find(&self, name: &OperationName) -> Vec<Found> {
        let hash = self.hasher.hash_one(name.as_str());
        let mut rows = Vec::new();
        for &slot in self.names.iter_hash(hash) {
            let entry = &self.entries[slot as usize];
            if entry.name_hash != hash {
                continue;
            }
            match &self.cached[slot as usize] {
                Some(operation) if operation.name == *name => {
                    return vec![Found::Kept(slot, self.touch(slot, operation))];
                }
                Some(_) => {}
                None => rows.push(Found::Row(slot, entry.id)),
            }
        }
        rows
    }

    /// The cached operation of this name, without allocating: the hot path of a read.
    pub fn cached(&self, name: &OperationName) -> Option<Arc<Operation>> {
        let hash = self.hasher.hash_one(name.as_str());
        self.names.iter_hash(hash).find_map(|&slot| {
            let operation = self.cached[slot as usize].as_ref()?;
            (operation.name == *name).then(|| self.touch(slot, operation).operation)
        })
    }

    /// Where the operation in a slot is.
    pub fn at(&self, slot: Slot) -> Found {
        match &self.cached[slot as usize] {
            Some(operation) => Found::Kept(slot, self.touch(slot, operation)),
            None => Found::Row(slot, self.entries[slot as usize].id),
        }
    }

    /// The row id of a slot.
    pub fn id(&self, slot: Slot) -> i64 {
        self.entries[slot as usize].id
    }

    fn touch(&self, slot: Slot, operation: &Arc<Operation>) -> Kept {
        let entry = &self.entries[slot as usize];
        if !entry.touched.load(Ordering::Relaxed) {
            entry.touched.store(true, Ordering::Relaxed);
        }
        Kept { operation: operation.clone(), history_rows: entry.history_rows }
    }

    /// A page: cursors, and where each operation is.
    pub fn list(&self, query: &ListQuery) -> Vec<(Cursor, Found)> {
        let Some(parents) = self.words.find(&query.api).and_then(|api| self.shelves.get(&api))
        else {
            return Vec::new();
        };
        let prefix = query.parent.literal_prefix();
        let exact = query.parent.exact();
        let shelves: Vec<&Shelf> = match exact {
            Some(parent) => parents.get(parent).into_iter().collect(),
            None => parents
                .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
                .take_while(|(parent, _)| parent.starts_with(prefix))
                .filter(|(parent, _)| query.parent.accepts(parent))
                .map(|(_, shelf)| shelf)
                .collect(),
        };
        let (live, done) = (query.done != Some(true), query.done != Some(false));
        let boards = shelves.into_iter().flat_map(|shelf| {
            [live.then_some(&shelf.live), done.then_some(&shelf.done)].into_iter().flatten()
        });
        newest(boards, query.after.map(Place::of), query.limit)
            .into_iter()
            .map(|(place, slot)| (place.cursor(), self.at(slot)))
            .collect()
    }

    pub fn counts(&self) -> Vec<Count> {
        let mut counts: Vec<Count> = self
            .counts
            .iter()
            .flat_map(|(&(api, method), states)| {
                states.iter().enumerate().filter(|(_, operations)| **operations > 0).map(
                    move |(state, &operations)| Count {
                        api: self.words.text(api).clone(),
                        method: self.words.text(method).clone(),
                        state: STATE_NAMES[state],
                        operations,
                    },
                )
            })
            .collect();
        counts.sort_unstable();
        counts
    }

    /// Shows a committed value: of a new operation, or the next one of a known operation.
    pub fn put(&mut self, slot: Slot, id: i64, mut kept: Kept) {
        let known = self.entries.get(slot as usize).is_some_and(|entry| entry.id == id);
        if known {
            self.unlink(slot);
        } else {
            self.admit(slot, id, &kept.operation);
        }
        let entry = &mut self.entries[slot as usize];
        entry.revision = kept.operation.revision as u32;
        entry.history_rows = kept.history_rows;
        entry.state = state_number(&kept.operation.state);
        if kept.operation.deleted.is_some() {
            entry.state |= HIDDEN;
        }
        self.link(slot);
        if let Some(operation) = Arc::get_mut(&mut kept.operation) {
            // One text for all, instead of the copy that came with the request.
            let entry = &self.entries[slot as usize];
            operation.api = self.words.text(entry.api).clone();
            operation.method = self.words.text(entry.method).clone();
            operation.queue = self.words.text(entry.queue).clone();
            operation.parent = self.words.text(entry.parent).clone();
        }
        self.cache(slot, kept.operation);
    }

    /// Gives a slot to a new row.
    fn admit(&mut self, slot: Slot, id: i64, operation: &Operation) {
        let row = ViewRow {
            id,
            name: operation.name.as_str(),
            cursor: Cursor::of(operation),
            api: &operation.api,
            method: &operation.method,
            queue: &operation.queue,
            parent: &operation.parent,
        };
        let entry = self.entry(&row);
        let index = slot as usize;
        while self.entries.len() <= index {
            self.entries.push(Entry::free());
            self.cached.push(None);
        }
        let hash = entry.name_hash;
        self.entries[index] = entry;
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
            revision: UNCHANGED,
            history_rows: 0,
            state: 0,
            touched: AtomicBool::new(false),
        }
    }

    /// Removes a row that went.
    pub fn forget(&mut self, slot: Slot) {
        self.unlink(slot);
        self.uncache(slot);
        let entry = std::mem::replace(&mut self.entries[slot as usize], Entry::free());
        if let Ok(found) = self.names.find_entry(entry.name_hash, |&other| other == slot) {
            found.remove();
        }
        for word in [entry.api, entry.method, entry.queue, entry.parent] {
            self.words.release(word);
        }
    }

    fn link(&mut self, slot: Slot) {
        let entry = &self.entries[slot as usize];
        let state = entry.state & !HIDDEN;
        self.counts.entry((entry.api, entry.method)).or_default()[usize::from(state)] += 1;
        if entry.state & HIDDEN == 0 {
            let parents = self.shelves.entry(entry.api).or_default();
            let parent = self.words.text(entry.parent);
            let shelf = match parents.get_mut(parent) {
                Some(shelf) => shelf,
                None => parents.entry(parent.clone()).or_default(),
            };
            let board = if state == DONE { &mut shelf.done } else { &mut shelf.live };
            board.insert((entry.place, slot));
        }
    }

    fn unlink(&mut self, slot: Slot) {
        let entry = &self.entries[slot as usize];
        let state = entry.state & !HIDDEN;
        let key = (entry.api, entry.method);
        if let Some(states) = self.counts.get_mut(&key) {
            states[usize::from(state)] -= 1;
            if *states == [0; STATE_NAMES.len()] {
                // The words may be given to other texts once no row uses them.
                self.counts.remove(&key);
            }
        }
        if entry.state & HIDDEN == 0
            && let Some(parents) = self.shelves.get_mut(&entry.api)
        {
            let parent = self.words.text(entry.parent);
            if let Some(shelf) = parents.get_mut(parent) {
                let board = if state == DONE { &mut shelf.done } else { &mut shelf.live };
                board.remove(&(entry.place, slot));
                if shelf.live.is_empty() && shelf.done.is_empty() {
                    parents.remove(parent);
                }
            }
            if parents.is_empty() {
                self.shelves.remove(&entry.api);
            }
        }
    }
}

/// The youngest of several sorted boards, younger first, from before `after`.
fn newest<'a>(
    boards: impl Iterator<Item = &'a BTreeSet<(Place, Slot)>>,
    after: Option<Place>,
    limit: usize,
) -> Vec<(Place, Slot)> {
    let end = after.unwrap_or(Place { create: i64::MAX, uid: [u64::MAX; 2] });
    let last = if after.is_some() { 0 } else { Slot::MAX };
    let mut boards: Vec<_> =
        boards.map(|board| board.range(..(end, last)).rev().copied()).collect();
    let mut heads: BinaryHeap<((Place, Slot), usize)> = boards
        .iter_mut()
        .enumerate()
        .filter_map(|(index, board)| board.next().map(|place| (place, index)))
        .collect();
    let mut found = Vec::new();
    while found.len() < limit
        && let Some((place, index)) = heads.pop()
    {
        found.push(place);
        if let Some(place) = boards[index].next() {
            heads.push((place, index));
        }
    }
    found
}

impl Entry {
    const fn free() -> Self {
        Self {
            id: 0,
            name_hash: 0,
            place: Place { create: 0, uid: [0; 2] },
            api: 0,
            method: 0,
            queue: 0,
            parent: 0,
            revision: 0,
            history_rows: 0,
            state: HIDDEN,
            touched: AtomicBool::new(false),
        }
    }
}

/// The cache of whole operations: a clock that passes over what was read since it last came by.
impl View {
    /// Keeps an operation read from its row, unless the row has changed since.
    pub fn offer(&mut self, slot: Slot, id: i64, kept: &Kept) {
        let newest = self.entries.get(slot as usize).is_some_and(|entry| {
            entry.id == id
                && (entry.revision == UNCHANGED || entry.revision == kept.operation.revision as u32)
        });
        if newest && self.cached[slot as usize].is_none() {
            self.cache(slot, kept.operation.clone());
        }
    }

    fn cache(&mut self, slot: Slot, operation: Arc<Operation>) {
        self.uncache(slot);
        self.cached_bytes += weight(&operation);
        self.cached[slot as usize] = Some(operation);
        self.entries[slot as usize].touched.store(true, Ordering::Relaxed);
        while self.cached_bytes > self.cached_bytes_max {
            self.evict();
        }
    }

    fn uncache(&mut self, slot: Slot) {
        if let Some(operation) = self.cached[slot as usize].take() {
            self.cached_bytes -= weight(&operation);
        }
    }

    fn evict(&mut self) {
        self.hand = if self.hand + 1 < self.cached.len() { self.hand + 1 } else { 0 };
        let touched = &self.entries[self.hand].touched;
        if self.cached[self.hand].is_some() && touched.load(Ordering::Relaxed) {
            touched.store(false, Ordering::Relaxed);
        } else {
            self.uncache(self.hand as Slot);
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
    // Each text of its own costs its bytes, two counts and the allocator's share.
    const TEXTS: usize = 8 * 24;
    size_of::<Operation>()
        + TEXTS
        + operation.name.as_str().len()
        + operation.target.len()
        + operation.request.value.len()
        + operation.metadata.value.len()
        + operation.checkpoint.as_ref().map_or(0, |bytes| bytes.len())
        + outcome
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

/// One side of a [`Shelf`], not sorted yet.
type Board = Vec<(Place, Slot)>;

/// Gathers a view from rows in one go.
pub(super) struct ViewBuilder {
    view: View,
    /// By API and parent: what is live, what is done.
    boards: HashMap<(Word, Word), [Board; 2]>,
}

impl ViewBuilder {
    pub fn new(cached_bytes_max: usize) -> Self {
        Self { view: View::new(cached_bytes_max), boards: HashMap::new() }
    }

    /// Adds the row of the next slot.
    pub fn push(&mut self, row: &ViewRow<'_>, state: u8, hidden: bool, history_rows: u16) -> Slot {
        let view = &mut self.view;
        let slot = Slot::try_from(view.entries.len()).expect("fewer rows than slots");
        let mut entry = view.entry(row);
        entry.history_rows = history_rows;
        entry.state = state | if hidden { HIDDEN } else { 0 };
        if !hidden {
            let boards = self.boards.entry((entry.api, entry.parent)).or_default();
            boards[usize::from(state == DONE)].push((entry.place, slot));
        }
        view.counts.entry((entry.api, entry.method)).or_default()[usize::from(state)] += 1;
        let hash = entry.name_hash;
        view.entries.push(entry);
        view.cached.push(None);
        let entries = &view.entries;
        view.names.insert_unique(hash, slot, |&slot| entries[slot as usize].name_hash);
        slot
    }

    /// The shared texts of a slot: API, method, queue, parent.
    pub fn texts(&self, slot: Slot) -> [&Arc<str>; 4] {
        let entry = &self.view.entries[slot as usize];
        [entry.api, entry.method, entry.queue, entry.parent].map(|word| self.view.words.text(word))
    }

    pub fn build(mut self) -> View {
        for ((api, parent), [live, done]) in self.boards {
            let parent = self.view.words.text(parent).clone();
            let shelf =
                Shelf { live: live.into_iter().collect(), done: done.into_iter().collect() };
            self.view.shelves.entry(api).or_default().insert(parent, shelf);
        }
        self.view
    }
}
