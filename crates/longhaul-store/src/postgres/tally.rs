//! How many operations there are: a sum read now and then, and what was committed here since.
//!
//! A snapshot tells which transactions a sum has counted, so that none counts twice.

use std::collections::HashMap;

use longhaul_core::Error;
use parking_lot::Mutex;

use super::core::Core;
use super::faults::damaged;
use super::words::Words;
use crate::Count;
use crate::embedded::STATE_NAMES;

/// A change of how many operations of a kind are in a state.
pub(super) type Delta = (i32, i16, i64);

/// Which transactions a read saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    xmin: u64,
    xmax: u64,
    under_way: Vec<u64>,
}

impl Snapshot {
    /// Reads PostgreSQL's text form: `xmin:xmax:xid,xid`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let (xmin, xmax) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let under_way = parts.next()?.split(',').filter(|xid| !xid.is_empty());
        let under_way = under_way.map(|xid| xid.parse().ok()).collect::<Option<_>>()?;
        Some(Self { xmin, xmax, under_way })
    }

    pub fn sees(&self, xid: u64) -> bool {
        xid < self.xmin || (xid < self.xmax && !self.under_way.contains(&xid))
    }
}

#[derive(Default)]
struct Inner {
    base: HashMap<(i32, i16), i64>,
    at: Option<Snapshot>,
    since: Vec<(u64, Vec<Delta>)>,
}

/// The counts.
#[derive(Default)]
pub(super) struct Tally {
    inner: Mutex<Inner>,
}

impl Tally {
    /// A transaction of this server was committed.
    pub fn add(&self, xid: u64, deltas: Vec<Delta>) {
        let mut inner = self.inner.lock();
        if !inner.at.as_ref().is_some_and(|at| at.sees(xid)) {
            inner.since.push((xid, deltas));
        }
    }

    fn set(&self, at: Snapshot, base: HashMap<(i32, i16), i64>) {
        let mut inner = self.inner.lock();
        inner.since.retain(|(xid, _)| !at.sees(*xid));
        (inner.base, inner.at) = (base, Some(at));
    }

    pub fn counts(&self, words: &Words) -> Vec<Count> {
        let mut sums: HashMap<_, i64> = HashMap::new();
        let mut add = |(kind, state): (i32, i16), operations: i64| {
            if let (Some(kind), Some(state)) =
                (words.kind(kind), usize::try_from(state).ok().and_then(|at| STATE_NAMES.get(at)))
            {
                *sums.entry((kind.api, kind.method, *state)).or_default() += operations;
            }
        };
        let inner = self.inner.lock();
        inner.base.iter().for_each(|(&key, &operations)| add(key, operations));
        for (kind, state, operations) in inner.since.iter().flat_map(|(_, deltas)| deltas) {
            add((*kind, *state), *operations);
        }
        drop(inner);
        let mut counts: Vec<Count> = sums
            .into_iter()
            .filter_map(|((api, method, state), operations)| {
                let operations = u64::try_from(operations).ok().filter(|n| *n > 0)?;
                Some(Count { api, method, state, operations })
            })
            .collect();
        counts.sort_unstable();
        counts
    }
}

/// Reads the sums anew.
pub(super) async fn refresh(core: &Core) -> Result<(), Error> {
    let rows = core.ask(core.patience(), &core.sql.counts, &[]).await?;
    core.words.take_in(&core.ask(core.patience(), &core.sql.kinds, &[]).await?);
    let snapshot = rows.first().and_then(|row| Snapshot::parse(row.get(0)));
    let snapshot = snapshot.ok_or_else(|| damaged("tally", "?", "no snapshot"))?;
    let base = rows.iter().filter_map(|row| {
        let kind: Option<i32> = row.get(1);
        Some(((kind?, row.get(2)), row.get(3)))
    });
    core.tally.set(snapshot, base.collect());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_sees_what_had_ended() {
        let snapshot = Snapshot::parse("10:20:12,15").unwrap();
        let seen: Vec<u64> = (8..23).filter(|&xid| snapshot.sees(xid)).collect();
        assert_eq!(seen, [8, 9, 10, 11, 13, 14, 16, 17, 18, 19]);
        assert!(Snapshot::parse("7:7:").unwrap().sees(6));
        for wrong in ["", "1", "1:2", "a:b:", "1:2:x"] {
            assert_eq!(Snapshot::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn no_transaction_counts_twice() {
        let (tally, words) = (Tally::default(), Words::default());
        tally.add(5, vec![(1, 0, 1)]);
        tally.set(Snapshot::parse("6:6:").unwrap(), HashMap::from([((1, 0), 1)]));
        tally.add(4, vec![(1, 0, 1)]);
        tally.add(6, vec![(1, 0, 1)]);
        let inner = tally.inner.lock();
        assert_eq!(inner.since, [(6, vec![(1, 0, 1)])]);
        drop(inner);
        assert!(tally.counts(&words).is_empty(), "an unknown kind is left out");
    }
}
