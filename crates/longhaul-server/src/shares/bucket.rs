//! A bucket that fills at a steady rate; each call takes one from it.
//!
//! All there is to keep is the moment at which it will be full again: a full bucket is as good as none, so
//! forgetting one changes nothing.

use std::time::Duration;

use longhaul_core::Timestamp;

const NANOS: u64 = 1_000_000_000;

/// How fast a bucket fills, and how much it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    /// At least 1.
    pub(crate) per_second: u32,
    /// At least 1.
    pub(crate) burst: u32,
}

impl Rate {
    /// `None` without a limit; a burst of zero is as many as in a second.
    pub(crate) fn of(per_second: u32, burst: u32) -> Option<Self> {
        let burst = if burst == 0 { per_second } else { burst };
        (per_second > 0).then_some(Self { per_second, burst })
    }

    /// Nanoseconds for one.
    fn interval(self) -> i128 {
        (NANOS / u64::from(self.per_second)).into()
    }
}

/// One bucket; full at first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bucket {
    /// Nanoseconds since 1970.
    full_at: i128,
}

impl Bucket {
    /// Takes one, or says how long until there is one.
    pub(crate) fn take(&mut self, rate: Rate, now: Timestamp) -> Result<(), Duration> {
        let now = nanos(now);
        let full_at = self.full_at.max(now) + rate.interval();
        let room = rate.interval() * i128::from(rate.burst);
        let over = full_at - now - room;
        if over > 0 {
            return Err(Duration::from_nanos(u64::try_from(over).unwrap_or(u64::MAX)));
        }
        self.full_at = full_at;
        Ok(())
    }

    /// Puts back what was taken for nothing.
    pub(crate) fn give_back(&mut self, rate: Rate) {
        self.full_at -= rate.interval();
    }

    /// Whether it is full, and may be forgotten.
    pub(crate) fn is_full(self, now: Timestamp) -> bool {
        self.full_at <= nanos(now)
    }
}

fn nanos(at: Timestamp) -> i128 {
    i128::from(at.as_micros()) * 1000
}
