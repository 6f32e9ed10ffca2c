//! A table of a bounded size that forgets what was not asked for lately.
//!
//! Two halves: what is new or was found again is in the young one; when that is full, it becomes the old one
//! and the old one is forgotten. So a lookup is one or two probes, and nothing is ever searched for victims.

use hashbrown::HashTable;
use parking_lot::Mutex;

/// Locks that a table is spread over.
const SHARDS: usize = 16;

/// A table of about `entries_max` entries. Callers bring the hash and say what is equal, so that looking
/// something up needs no copy of its key.
pub(crate) struct Bounded<T> {
    shards: Vec<Mutex<Halves<T>>>,
    half_max: usize,
}

struct Halves<T> {
    young: HashTable<(u64, T)>,
    old: HashTable<(u64, T)>,
}

impl<T> Bounded<T> {
    pub(crate) fn new(entries_max: usize) -> Self {
        let halves = || Mutex::new(Halves { young: HashTable::new(), old: HashTable::new() });
        Self {
            shards: (0..SHARDS).map(|_| halves()).collect(),
            half_max: (entries_max / SHARDS / 2).max(1),
        }
    }

    fn shard(&self, hash: u64) -> &Mutex<Halves<T>> {
        // The table itself uses the low and the highest bits.
        &self.shards[(hash >> 32) as usize % SHARDS]
    }

    /// What `read` takes from the value that is kept under this hash and fits.
    pub(crate) fn get<R>(
        &self,
        hash: u64,
        fits: impl Fn(&T) -> bool,
        read: impl FnOnce(&T) -> R,
    ) -> Option<R> {
        let mut halves = self.shard(hash).lock();
        let same = |entry: &(u64, T)| entry.0 == hash && fits(&entry.1);
        if let Some((_, found)) = halves.young.find(hash, same) {
            return Some(read(found));
        }
        let (entry, _) = halves.old.find_entry(hash, same).ok()?.remove();
        let found = read(&entry.1);
        halves.keep(entry, self.half_max);
        Some(found)
    }

    /// Keeps a value; what `fits` says is the same is replaced.
    pub(crate) fn put(&self, hash: u64, fits: impl Fn(&T) -> bool, value: T) {
        let mut halves = self.shard(hash).lock();
        let same = |entry: &(u64, T)| entry.0 == hash && fits(&entry.1);
        if let Ok(entry) = halves.young.find_entry(hash, same) {
            entry.remove();
        }
        halves.keep((hash, value), self.half_max);
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        let lens = self.shards.iter().map(|shard| {
            let halves = shard.lock();
            halves.young.len() + halves.old.len()
        });
        lens.sum()
    }
}

impl<T> Halves<T> {
    fn keep(&mut self, entry: (u64, T), half_max: usize) {
        if self.young.len() >= half_max {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert_unique(entry.0, entry, |entry| entry.0);
    }
}

impl<T> std::fmt::Debug for Bounded<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bounded").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u64) -> u64 {
        n.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    #[test]
    fn it_never_outgrows_its_bound_and_keeps_what_is_asked_for() {
        let table = Bounded::new(320);
        table.put(hash(0), |&v: &u64| v == 0, 0);
        for n in 1..100_000 {
            table.put(hash(n), |&v| v == n, n);
            assert_eq!(table.get(hash(n), |&v| v == n, |&v| v), Some(n));
            assert_eq!(table.get(hash(0), |&v| v == 0, |&v| v), Some(0), "after {n}");
        }
        assert!(table.len() <= 320, "{}", table.len());
        assert_eq!(table.get(hash(1), |&v| v == 1, |&v| v), None);
    }

    #[test]
    fn the_newest_value_of_a_key_is_found() {
        let table = Bounded::new(64);
        for value in 0..10 {
            table.put(7, |&(key, _)| key == 'a', ('a', value));
            assert_eq!(table.get(7, |&(key, _)| key == 'a', |kept| *kept), Some(('a', value)));
        }
        assert_eq!(table.get(7, |&(key, _)| key == 'b', |kept| *kept), None);
    }
}
