//! The order of lists: by API and parent, youngest first, done ones apart from live ones.
//!
//! A page walks from its cursor, so its cost does not depend on how much is kept.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::ops::Bound;
use std::sync::Arc;

use longhaul_core::Timestamp;

use super::hash::Map;
use super::plan::Slot;
use super::words::Word;
use crate::{Cursor, ListQuery};

/// A place in a list: a [`Cursor`] in 24 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    create: i64,
    uid: [u64; 2],
}

impl Place {
    pub const FIRST: Self = Self { create: i64::MIN, uid: [0; 2] };
    const LAST: Self = Self { create: i64::MAX, uid: [u64::MAX; 2] };

    pub fn of(cursor: Cursor) -> Self {
        let (high, low) = ((cursor.uid >> 64) as u64, cursor.uid as u64);
        Self { create: cursor.create_time.as_micros(), uid: [high, low] }
    }

    pub fn cursor(self) -> Cursor {
        Cursor {
            create_time: Timestamp::from_micros(self.create),
            uid: u128::from(self.uid[0]) << 64 | u128::from(self.uid[1]),
        }
    }
}

/// The operations under one parent.
#[derive(Default)]
struct Shelf {
    live: Board,
    done: Board,
}

type Board = BTreeSet<(Place, Slot)>;

impl Shelf {
    fn board(&mut self, done: bool) -> &mut Board {
        if done { &mut self.done } else { &mut self.live }
    }
}

#[derive(Default)]
pub(super) struct Lists {
    apis: Map<Word, BTreeMap<Arc<str>, Shelf>>,
}

impl Lists {
    pub fn insert(&mut self, api: Word, parent: &Arc<str>, done: bool, place: Place, slot: Slot) {
        let parents = self.apis.entry(api).or_default();
        let shelf = match parents.get_mut(parent) {
            Some(shelf) => shelf,
            None => parents.entry(parent.clone()).or_default(),
        };
        shelf.board(done).insert((place, slot));
    }

    pub fn remove(&mut self, api: Word, parent: &str, done: bool, place: Place, slot: Slot) {
        let Some(parents) = self.apis.get_mut(&api) else { return };
        let Some(shelf) = parents.get_mut(parent) else { return };
        shelf.board(done).remove(&(place, slot));
        if shelf.live.is_empty() && shelf.done.is_empty() {
            parents.remove(parent);
            if parents.is_empty() {
                self.apis.remove(&api);
            }
        }
    }

    /// A page of one API.
    pub fn page(&self, api: Word, query: &ListQuery) -> Vec<(Cursor, Slot)> {
        let Some(parents) = self.apis.get(&api) else { return Vec::new() };
        let prefix = query.parent.literal_prefix();
        let shelves: Vec<&Shelf> = match query.parent.exact() {
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
    }
}

/// The youngest of several boards, younger first, from before `after`.
fn newest<'a>(
    boards: impl Iterator<Item = &'a Board>,
    after: Option<Place>,
    limit: usize,
) -> Vec<(Cursor, Slot)> {
    let end = match after {
        Some(place) => Bound::Excluded((place, Slot::MIN)),
        None => Bound::Included((Place::LAST, Slot::MAX)),
    };
    let mut boards: Vec<_> =
        boards.map(|board| board.range((Bound::Unbounded, end)).rev().copied()).collect();
    let mut heads: BinaryHeap<((Place, Slot), usize)> = boards
        .iter_mut()
        .enumerate()
        .filter_map(|(index, board)| board.next().map(|head| (head, index)))
        .collect();
    let mut found = Vec::new();
    while found.len() < limit
        && let Some(((place, slot), index)) = heads.pop()
    {
        found.push((place.cursor(), slot));
        if let Some(head) = boards[index].next() {
            heads.push((head, index));
        }
    }
    found
}

/// One side of a shelf, not sorted yet.
type Heap = Vec<(Place, Slot)>;

/// Gathers lists in one go: sorted once instead of one insertion at a time.
#[derive(Default)]
pub(super) struct ListsBuilder {
    /// By API and parent: what is live, what is done.
    heaps: Map<(Word, Word), [Heap; 2]>,
}

impl ListsBuilder {
    pub fn push(&mut self, api: Word, parent: Word, done: bool, place: Place, slot: Slot) {
        self.heaps.entry((api, parent)).or_default()[usize::from(done)].push((place, slot));
    }

    pub fn build<'t>(self, text: impl Fn(Word) -> &'t Arc<str>) -> Lists {
        let mut lists = Lists::default();
        for ((api, parent), [live, done]) in self.heaps {
            let shelf =
                Shelf { live: live.into_iter().collect(), done: done.into_iter().collect() };
            lists.apis.entry(api).or_default().insert(text(parent).clone(), shelf);
        }
        lists
    }
}
