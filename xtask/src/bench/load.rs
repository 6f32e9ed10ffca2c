//! Closed-loop clients: each starts its next call when the last was answered. Owns timing and
//! counting; refuses to know what a call does.

use std::future::Future;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::process::{Cpu, Meter};
use super::{Error, Result};

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
    let mut running = JoinSet::new();
    for client in clients {
        running.spawn(repeat(client, begin, end));
    }
    sleep_until(begin).await;
    let before = meter.read()?;
    sleep_until(end).await;
    let after = meter.read()?;
    let mut latency = histogram()?;
    while let Some(ended) = timeout_at(end + GRACE, running.join_next())
        .await
        .map_err(|_| Error::from("calls hang: some are not answered long after the run's end"))?
    {
        latency.add(ended??)?;
    }
    Ok(Measured { calls: latency.len(), latency, cpu: after.since(&before) })
}

/// Lets all `clients` call until `end`; they come back with every call that they made. Any failed call fails
/// the run.
pub(super) async fn turn<C: Client>(
    clients: Vec<C>,
    end: Instant,
) -> Result<(Vec<C>, Histogram<u64>)> {
    let (mut running, mut back) = (JoinSet::new(), Vec::with_capacity(clients.len()));
    for mut client in clients {
        running.spawn(async move {
            let mut latency = histogram()?;
            let mut from = now();
            while from < end {
                client.once().await?;
                let to = now();
                latency.saturating_record(u64::try_from((to - from).as_nanos())?);
                from = to;
            }
            Ok::<_, Error>((client, latency))
        });
    }
    let mut latency = histogram()?;
    while let Some(ended) = timeout_at(end + GRACE, running.join_next()).await.map_err(|_| {
        let seconds = GRACE.as_secs();
        format!("{} calls are not answered {seconds} s after a turn's end", running.len())
    })? {
        let (client, of_one) = ended??;
        latency.add(of_one)?;
        back.push(client);
    }
    Ok((back, latency))
}

async fn repeat<C: Client>(mut client: C, begin: Instant, end: Instant) -> Result<Histogram<u64>> {
    let mut latency = histogram()?;
    let mut from = now();
    while from < end {
        client.once().await?;
        let to = now();
        if from >= begin && to <= end {
            latency.saturating_record(u64::try_from((to - from).as_nanos())?);
        }
        from = to;
    }
    Ok(latency)
}

#[allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
pub(super) fn now() -> Instant {
    Instant::now()
}
