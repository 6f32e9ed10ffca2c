//! Closed-loop clients: each starts its next call when the last was answered. Owns timing and
//! counting; refuses to know what a call does.

use std::future::Future;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::Result;
use super::process::{Cpu, Meter};

/// How long calls under way at the end may still take before the run counts as stuck.
const GRACE: Duration = Duration::from_secs(20);

/// One closed-loop client.
pub(super) trait Client: Send + 'static {
    /// Makes one call and waits for its answer.
    fn once(&mut self) -> impl Future<Output = Result<()>> + Send;
}

/// How long to run.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub warm_up: Duration,
    pub measured: Duration,
}

/// What one run gave.
pub(super) struct Measured {
    /// Calls begun and answered within the measured time.
    pub calls: u64,
    /// Of those calls, in nanoseconds.
    pub latency: Histogram<u64>,
    /// Processor time used meanwhile.
    pub cpu: Cpu,
}

impl Measured {
    /// What these calls took.
    pub fn of(latency: Histogram<u64>, cpu: Cpu) -> Self {
        Self { calls: latency.len(), latency, cpu }
    }
}

/// An empty histogram: 1 ns to a minute, three digits.
pub(super) fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000_000, 3)?)
}

/// Runs all `clients` at once. Any failed call fails the run: a rate of errors is no result.
pub(super) async fn drive<C: Client>(
    clients: Vec<C>,
    span: Span,
    meter: &Meter,
) -> Result<Measured> {
    let start = now();
    let begin = start + span.warm_up;
    let end = begin + span.measured;
    let counts = move |from, to| from >= begin && to <= end;
    let running = begun(clients, end, counts);
    sleep_until(begin).await;
    let before = meter.read()?;
    sleep_until(end).await;
    let after = meter.read()?;
    let (_, latency) = ended(running, end).await?;
    Ok(Measured::of(latency, after.since(&before)))
}

/// Lets all `clients` call until `end`; they come back with every call that they made. Any failed call fails
/// the run.
pub(super) async fn turn<C: Client>(
    clients: Vec<C>,
    end: Instant,
) -> Result<(Vec<C>, Histogram<u64>)> {
    ended(begun(clients, end, |_, _| true), end).await
}

type Running<C> = JoinSet<Result<(C, Histogram<u64>)>>;

/// Lets each call until `end`; a call from one moment to another is recorded if it counts.
fn begun<C: Client>(
    clients: Vec<C>,
    end: Instant,
    counts: impl Fn(Instant, Instant) -> bool + Copy + Send + 'static,
) -> Running<C> {
    let mut running = JoinSet::new();
    for mut client in clients {
        running.spawn(async move {
            let mut latency = histogram()?;
            let mut from = now();
            while from < end {
                client.once().await?;
                let to = now();
                if counts(from, to) {
                    latency.saturating_record(u64::try_from((to - from).as_nanos())?);
                }
                from = to;
            }
            Ok((client, latency))
        });
    }
    running
}

/// Waits for the last calls; the clients come back with what was recorded of all.
async fn ended<C: Client>(
    mut running: Running<C>,
    end: Instant,
) -> Result<(Vec<C>, Histogram<u64>)> {
    let (mut back, mut latency) = (Vec::with_capacity(running.len()), histogram()?);
    while let Some(ended) = timeout_at(end + GRACE, running.join_next()).await.map_err(|_| {
        let seconds = GRACE.as_secs();
        format!("calls hang: {} are not answered {seconds} s after the end", running.len())
    })? {
        let (client, of_one) = ended??;
        latency.add(of_one)?;
        back.push(client);
    }
    Ok((back, latency))
}

#[allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
pub(super) fn now() -> Instant {
    Instant::now()
}
