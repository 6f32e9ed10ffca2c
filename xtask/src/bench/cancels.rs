//! W3: operations that run on one worker over one session are cancelled, and W3q: queued ones are.
//!
//! Owns the three moments of a cancel: the answer, the handler's signal, the waiter's end. The handler is as
//! thin as it goes: it notes the time and says that it has stopped.

use std::collections::HashMap;
use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use longhaul_wire::v1;
use longhaul_wire::v1::desired_state::Action;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::load::{histogram, now};
use super::process::Server;
use super::stream::{self, Receiver, Sender};
use super::{KIB, Result, grpc, hello, words, works};

const SESSION_PATH: &str = "/longhaul.v1.Workers/Session";
/// Clients of a burst.
const CLIENTS: usize = 64;
/// How long waits have to reach the server before the first cancel.
const SETTLE: Duration = Duration::from_millis(500);
/// How long everything may take before the run counts as stuck.
const STUCK: Duration = Duration::from_secs(120);

/// When cancels are sent.
#[derive(Clone, Copy)]
pub(super) enum Pace {
    /// One after the other, so many in a second, whatever becomes of them.
    PerSecond(u32),
    /// As fast as 64 clients get their answers.
    Burst,
}

/// What is measured of each cancel, in nanoseconds from the call.
pub(super) struct Cancelled {
    /// To the answer.
    pub answer: Histogram<u64>,
    /// To the handler's signal.
    pub handler: Histogram<u64>,
    /// Until the waiter has seen it cancelled.
    pub waiter: Histogram<u64>,
    /// From the first call until the last was done.
    pub all: Duration,
}

/// The moments of every operation, in nanoseconds since the beginning; 0: not yet.
struct Moments {
    begin: Instant,
    asked: Vec<AtomicU64>,
    answered: Vec<AtomicU64>,
    signalled: Vec<AtomicU64>,
    seen: Vec<AtomicU64>,
}

impl Moments {
    fn of(count: usize) -> Self {
        let none = || (0..count).map(|_| AtomicU64::new(0)).collect();
        Self { begin: now(), asked: none(), answered: none(), signalled: none(), seen: none() }
    }

    fn note(&self, moment: &AtomicU64) {
        let nanos = u64::try_from((now() - self.begin).as_nanos()).unwrap_or(u64::MAX);
        moment.store(nanos.max(1), Ordering::Release);
    }

    fn since_asked(&self, moments: &[AtomicU64]) -> Result<Histogram<u64>> {
        let mut spans = histogram()?;
        for (asked, moment) in self.asked.iter().zip(moments) {
            let (asked, moment) = (asked.load(Ordering::Acquire), moment.load(Ordering::Acquire));
            if moment == 0 {
                return Err("a cancel did not arrive".into());
            }
            // The signal may be noted before a slow client notes its answer, never before its call.
            spans.saturating_record(moment.saturating_sub(asked).max(1));
        }
        Ok(spans)
    }
}

/// W3 with `count` running operations.
pub(super) async fn running(server: &Server, count: usize, pace: Pace) -> Result<Cancelled> {
    let address = server.address;
    let names = Arc::new(works::fill(server, count).await?);
    let moments = Arc::new(Moments::of(count));
    let (sender, mut receiver) = stream::open(address, SESSION_PATH, &opening(count)?).await?;
    let mut held = HashMap::new();
    while held.len() < count {
        let answer: v1::SessionResponse = timeout(STUCK, receiver.next()).await??;
        held.extend(answer.assignments.into_iter().map(|one| (one.operation, one.epoch)));
    }
    let index = names.iter().enumerate().map(|(at, name)| (name.clone(), at)).collect();
    let handler = tokio::spawn(handle(sender, receiver, index, moments.clone()));
    let mut waiters: JoinSet<Result<()>> = JoinSet::new();
    for (at, mut line) in grpc::connect(address, count, None).await?.into_iter().enumerate() {
        let (names, moments) = (names.clone(), moments.clone());
        waiters.spawn(async move {
            line.until_cancelled(&names[at]).await?;
            moments.note(&moments.seen[at]);
            Ok(())
        });
    }
    sleep(SETTLE).await;
    cancel(address, &names, &moments, pace).await?;
    let ended = async {
        while let Some(ended) = waiters.join_next().await {
            ended??;
        }
        Result::<()>::Ok(())
    };
    timeout(STUCK, ended).await.map_err(|_| "waits hang")??;
    timeout(STUCK, handler).await.map_err(|_| "a cancel did not reach the handler")???;
    let load = |moments: &[AtomicU64]| {
        let loaded = moments.iter().map(|moment| moment.load(Ordering::Acquire));
        loaded.collect::<Vec<_>>()
    };
    let first = load(&moments.asked).into_iter().min().unwrap_or_default();
    let last = load(&moments.seen).into_iter().max().unwrap_or_default();
    Ok(Cancelled {
        answer: moments.since_asked(&moments.answered)?,
        handler: moments.since_asked(&moments.signalled)?,
        waiter: moments.since_asked(&moments.seen)?,
        all: Duration::from_nanos(last.saturating_sub(first)),
    })
}

fn opening(count: usize) -> Result<v1::SessionRequest> {
    let open = v1::SessionOpen {
        worker: "bench/1".to_owned(),
        slots: u32::try_from(count)?,
        // Longer than any run: renewals are not what is measured.
        lease: Some(Duration::from_secs(3600).try_into()?),
        ..Default::default()
    };
    Ok(v1::SessionRequest { request: Some(v1::session_request::Request::Open(open)) })
}

/// Hears cancels and stops what they are about, until nothing is left.
async fn handle(
    sender: Sender,
    mut receiver: Receiver,
    index: HashMap<String, usize>,
    moments: Arc<Moments>,
) -> Result<()> {
    let mut left = index.len();
    let mut id = 0;
    while left > 0 {
        let answer: v1::SessionResponse = receiver.next().await?;
        let mut items = Vec::new();
        for update in answer.desired {
            let at = index.get(&update.operation).ok_or("a cancel of something else")?;
            let action = update.desired.map_or(0, |desired| desired.action);
            let signalled = &moments.signalled[*at];
            if action != Action::Cancel as i32 || signalled.load(Ordering::Relaxed) != 0 {
                continue;
            }
            moments.note(signalled);
            left -= 1;
            let effects = v1::Effects::None as i32;
            let stopped = v1::Stopped { effects, message: String::new() };
            items.push(v1::ReportItem {
                operation: update.operation,
                epoch: update.epoch,
                action: Some(v1::report_item::Action::Stopped(stopped)),
                ..Default::default()
            });
        }
        if !items.is_empty() {
            id += 1;
            let report = v1::SessionReport { id, items };
            let request = v1::session_request::Request::Report(report);
            sender.send(&v1::SessionRequest { request: Some(request) })?;
        }
    }
    // The stream stays open until the last end was answered; the waiters see those.
    while let Ok(answer) = receiver.next::<v1::SessionResponse>().await {
        if answer.results.is_some_and(|results| results.id == id) {
            break;
        }
    }
    Ok(())
}

async fn cancel(
    address: SocketAddr,
    names: &Arc<Vec<String>>,
    moments: &Arc<Moments>,
    pace: Pace,
) -> Result<()> {
    let mut lines = grpc::connect(address, CLIENTS, None).await?;
    for line in &mut lines {
        line.hello_there(&names[0]).await?;
    }
    let mut calls: JoinSet<Result<()>> = JoinSet::new();
    match pace {
        Pace::PerSecond(rate) => {
            let (begin, gap) = (now(), Duration::from_secs(1) / rate);
            for at in 0..names.len() {
                sleep_until(begin + gap * u32::try_from(at)?).await;
                let (line, names, moments) =
                    (lines[at % lines.len()].clone(), names.clone(), moments.clone());
                calls.spawn(cancel_one(line, names, moments, at));
            }
        }
        Pace::Burst => {
            let next = Arc::new(AtomicUsize::new(0));
            for line in lines {
                let (names, moments, next) = (names.clone(), moments.clone(), next.clone());
                calls.spawn(async move {
                    loop {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        if at >= names.len() {
                            return Ok(());
                        }
                        cancel_one(line.clone(), names.clone(), moments.clone(), at).await?;
                    }
                });
            }
        }
    }
    while let Some(called) = calls.join_next().await {
        called??;
    }
    Ok(())
}

async fn cancel_one(
    mut line: grpc::Line,
    names: Arc<Vec<String>>,
    moments: Arc<Moments>,
    at: usize,
) -> Result<()> {
    moments.note(&moments.asked[at]);
    line.cancel(&names[at]).await?;
    moments.note(&moments.answered[at]);
    Ok(())
}

/// W3q: `count` queued operations, 64 clients. The time of each call, and of all.
pub(super) async fn queued(server: &Server, count: usize) -> Result<(Histogram<u64>, Duration)> {
    let address = server.address;
    let names = Arc::new(works::fill(server, count).await?);
    let moments = Arc::new(Moments::of(count));
    let begin = now();
    cancel(address, &names, &moments, Pace::Burst).await?;
    let all = now() - begin;
    Ok((moments.since_asked(&moments.answered)?, all))
}

/// The ceiling of a signal: a message over a bare stream and back, then one record on the disk.
pub(super) async fn echo(
    address: SocketAddr,
    folder: &Path,
    measured: Duration,
) -> Result<Histogram<u64>> {
    let message = words::start_request("echo");
    let (sender, mut receiver) = stream::open(address, hello::ECHO_PATH, &message).await?;
    let _first: words::StartRequest = receiver.next().await?;
    let file = File::create(folder.join("echo"))?;
    let size = 16 << 20;
    file.write_all_at(&vec![0; size], 0)?;
    file.sync_all()?;
    let record = [0x5a; KIB];
    let mut latency = histogram()?;
    let end = now() + measured;
    for number in 0_u64.. {
        let from = now();
        if from >= end {
            break;
        }
        sender.send(&message)?;
        let _back: words::StartRequest = receiver.next().await?;
        file.write_all_at(&record, number * KIB as u64 % size as u64)?;
        file.sync_data()?;
        latency.saturating_record(u64::try_from((now() - from).as_nanos())?);
    }
    Ok(latency)
}
