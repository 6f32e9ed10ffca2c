//! When something is due or claimable next: hints in memory, corrected by what commits and reads find.

use std::collections::BTreeSet;

use longhaul_core::Timestamp;
use parking_lot::Mutex;

/// Most moments kept; later ones are found again when their time comes near.
const LATER_MAX: usize = 4_096;

/// What is known of moments to come.
#[derive(Default)]
pub(super) struct Hints {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Nothing is due before this; it may be too early, never too late but for other servers' commits.
    next_due: Option<i64>,
    /// Raised whenever `next_due` may have become earlier.
    lowered: u64,
    /// Moments at which something becomes claimable.
    later: BTreeSet<i64>,
}

impl Hints {
    pub fn next_due(&self) -> Option<Timestamp> {
        self.inner.lock().next_due.map(Timestamp::from_micros)
    }

    pub fn next_claimable(&self, now: Timestamp) -> Option<Timestamp> {
        let mut inner = self.inner.lock();
        let past = now.as_micros();
        // What has come is no longer to come; a clock that jumps back costs a hint.
        if inner.later.len() > LATER_MAX / 2 {
            inner.later = inner.later.split_off(&past);
        }
        inner.later.range(past.saturating_add(1)..).next().copied().map(Timestamp::from_micros)
    }

    /// Whether a row that was due at this moment may have been the first.
    pub fn may_be_first(&self, due_us: i64) -> bool {
        self.inner.lock().next_due.is_none_or(|first| due_us <= first)
    }

    /// To be kept until [`Self::found`].
    pub fn mark(&self) -> u64 {
        self.inner.lock().lowered
    }

    /// Rows with these moments were committed.
    pub fn add(&self, due_us: impl Iterator<Item = i64>, claimable_us: impl Iterator<Item = i64>) {
        let mut inner = self.inner.lock();
        if let Some(first) = due_us.min() {
            inner.lowered += 1;
            inner.next_due = Some(inner.next_due.map_or(first, |due| due.min(first)));
        }
        inner.later.extend(claimable_us);
        while inner.later.len() > LATER_MAX {
            inner.later.pop_last();
        }
    }

    /// A read that began at `mark` found this to be the first; what was added meanwhile counts too.
    pub fn found(&self, mark: u64, first: Option<i64>) {
        let mut inner = self.inner.lock();
        if inner.lowered == mark {
            inner.next_due = first;
        } else if let Some(first) = first {
            inner.next_due = Some(inner.next_due.map_or(first, |due| due.min(first)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(hints: &Hints) -> Option<i64> {
        hints.next_due().map(Timestamp::as_micros)
    }

    #[test]
    fn what_was_added_during_a_read_is_not_lost() {
        let hints = Hints::default();
        hints.add([50].into_iter(), std::iter::empty());
        let mark = hints.mark();
        hints.add([10].into_iter(), std::iter::empty());
        hints.found(mark, Some(90));
        assert_eq!(due(&hints), Some(10));
        hints.found(hints.mark(), Some(90));
        assert_eq!(due(&hints), Some(90));
        hints.found(hints.mark(), None);
        assert_eq!(due(&hints), None);
    }

    #[test]
    fn only_moments_to_come_are_told() {
        let hints = Hints::default();
        hints.add(std::iter::empty(), [5, 9].into_iter());
        let next =
            |now| hints.next_claimable(Timestamp::from_micros(now)).map(Timestamp::as_micros);
        assert_eq!((next(4), next(5), next(9)), (Some(5), Some(9), None));
    }
}
