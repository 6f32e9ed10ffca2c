//! The only place that reads a clock. Everything else is handed a [`Timestamp`].

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use longhaul_core::Timestamp;

/// Tells and waits for time.
pub trait Clock: Send + Sync {
    /// The present moment; never earlier than an answer given before.
    fn now(&self) -> Timestamp;

    /// Ends when `span` has passed.
    fn sleep(&self, span: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>>;

    /// Follows the machine's calendar after a jump of it, forwards only. Returns by how much time jumped,
    /// zero when it did not: leases must then be renewed, for no worker was silent that long.
    fn follow_calendar(&self) -> Duration;
}

/// Smallest difference between calendar and steady clock that counts as a jump. Ordinary slewing stays
/// below; a suspended machine or a corrected calendar lies above.
const JUMP_MIN: Duration = Duration::from_secs(2);

/// The machine's clock: the calendar read once, then carried on by the steady clock, so that a corrected
/// calendar neither ends leases nor turns time back.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
    /// Microseconds to add to the time since `started`.
    base_micros: AtomicI64,
}

impl SystemClock {
    /// Reads the calendar now.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "this file is where clocks are read")]
    pub fn new() -> Self {
        Self { started: Instant::now(), base_micros: AtomicI64::new(calendar_micros()) }
    }

    #[allow(clippy::disallowed_methods, reason = "this file is where clocks are read")]
    fn steady_micros(&self) -> i64 {
        i64::try_from(self.started.elapsed().as_micros()).unwrap_or(i64::MAX)
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

#[allow(clippy::disallowed_methods, reason = "this file is where clocks are read")]
fn calendar_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let base = self.base_micros.load(Ordering::Relaxed);
        Timestamp::from_micros(base.saturating_add(self.steady_micros()))
    }

    fn sleep(&self, span: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(tokio::time::sleep(span))
    }

    fn follow_calendar(&self) -> Duration {
        let ahead = calendar_micros().saturating_sub(self.now().as_micros());
        let ahead = Duration::from_micros(u64::try_from(ahead).unwrap_or(0));
        if ahead < JUMP_MIN {
            return Duration::ZERO;
        }
        let micros = i64::try_from(ahead.as_micros()).unwrap_or(i64::MAX);
        self.base_micros.fetch_add(micros, Ordering::Relaxed);
        ahead
    }
}
