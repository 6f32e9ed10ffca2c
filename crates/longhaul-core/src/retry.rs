//! When a failed or lost attempt may run again: attempt number to earliest start.

use std::time::Duration;

use crate::time::Timestamp;

/// How often and how soon an operation is tried again.
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// Most claims in all, the first included; at least 1. A release does not count.
    pub attempts_max: u32,
    /// Wait before the second attempt.
    pub backoff_first: Duration,
    /// Longest wait between attempts; each wait is twice the one before, up to this.
    pub backoff_max: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts_max: 5,
            backoff_first: Duration::from_secs(1),
            backoff_max: Duration::from_secs(60),
        }
    }
}

impl Retry {
    /// The earliest start of the attempt after `attempt` (counted from 1), with `jitter` in 0..=255
    /// spreading it over the upper half of the wait, so that many failures do not return at once.
    #[must_use]
    pub fn not_before(&self, attempt: u32, jitter: u8, now: Timestamp) -> Timestamp {
        let doublings = attempt.saturating_sub(1).min(31);
        let wait = self.backoff_first.saturating_mul(1 << doublings).min(self.backoff_max);
        let half = wait / 2;
        now + half + half.saturating_mul(u32::from(jitter)) / 255
    }

    /// Whether an operation that has made `attempt` attempts may make another.
    #[must_use]
    pub fn allows_another(&self, attempt: u32) -> bool {
        attempt < self.attempts_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_stay_in_the_upper_half() {
        let retry = Retry {
            attempts_max: 3,
            backoff_first: Duration::from_secs(2),
            backoff_max: Duration::from_secs(7),
        };
        let wait = |attempt, jitter| {
            retry.not_before(attempt, jitter, Timestamp::default()).since(Timestamp::default())
        };
        assert_eq!(wait(1, 0), Duration::from_secs(1));
        assert_eq!(wait(1, 255), Duration::from_secs(2));
        assert_eq!(wait(2, 255), Duration::from_secs(4));
        assert_eq!(wait(3, 255), Duration::from_secs(7));
        assert_eq!(wait(u32::MAX, 255), Duration::from_secs(7));
        let endless =
            Retry { attempts_max: 1, backoff_first: Duration::MAX, backoff_max: Duration::MAX };
        assert_eq!(endless.not_before(1, 255, Timestamp::default()), Timestamp::MAX);
        assert!(retry.allows_another(2));
        assert!(!retry.allows_another(3));
    }
}
