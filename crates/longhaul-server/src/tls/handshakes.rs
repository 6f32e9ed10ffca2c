//! The handshakes under way: bounded, and at the bound the oldest gives way.
//!
//! An honest handshake takes milliseconds, so whoever has been at it for longest is the one to cut; if new
//! ones had to wait instead, a few that never go on would keep everybody out.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// The handshakes under way, by the order of their beginning.
pub(super) struct Handshakes {
    max: usize,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    by_age: BTreeMap<u64, CancellationToken>,
}

/// One handshake; over when it is dropped.
pub(super) struct Place<'a> {
    all: &'a Handshakes,
    number: u64,
    /// Fires when it has to give way.
    pub(super) gone: CancellationToken,
}

impl Handshakes {
    /// Room for `max`, at least one.
    pub(super) fn new(max: usize) -> Self {
        Self { max: max.max(1), waiting: Mutex::default() }
    }

    /// A place for one more.
    pub(super) fn begin(&self) -> Place<'_> {
        let gone = CancellationToken::new();
        let mut waiting = self.waiting.lock();
        if waiting.by_age.len() >= self.max
            && let Some((_, oldest)) = waiting.by_age.pop_first()
        {
            oldest.cancel();
        }
        let number = waiting.next;
        waiting.next += 1;
        waiting.by_age.insert(number, gone.clone());
        Place { all: self, number, gone }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.all.waiting.lock().by_age.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_the_bound_the_oldest_gives_way() {
        let handshakes = Handshakes::new(2);
        let (first, second) = (handshakes.begin(), handshakes.begin());
        assert!(!first.gone.is_cancelled());
        let third = handshakes.begin();
        assert!(first.gone.is_cancelled() && !second.gone.is_cancelled());
        drop(second);
        let fourth = handshakes.begin();
        assert!(!third.gone.is_cancelled() && !fourth.gone.is_cancelled());
        drop((first, third, fourth));
        assert!(handshakes.waiting.lock().by_age.is_empty());
    }
}
