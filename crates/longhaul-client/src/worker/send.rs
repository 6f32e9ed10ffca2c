//! Carries what handlers say: gathers it into reports that are answered at once.
//!
//! At most one report of an operation is under way, so what is said first arrives first. Batches
//! form by themselves: while calls are under way, more operations get in line.

use std::sync::Arc;

use longhaul_wire::v1::{ReportItem, ReportRequest, ReportResult};
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tonic::Status;

use super::Shared;
use super::context::{Cancellation, Why};
use super::link::{Backoff, permanent, to_wire, within};
use super::live::{Answer, Live, Outbox, Refused};

/// Most items in a report; the protocol allows 1000.
const ITEMS_MAX: usize = 500;
/// A report takes no further item beyond this size, in bytes; servers read 4 MiB by default.
const BYTES_ENOUGH: usize = 1 << 20;
/// A larger report does not go over the session, in bytes: one that the server cannot take would end
/// the stream for all operations, again and again.
const LANE_BYTES_MAX: usize = 2 << 20;
/// Most calls at once: enough to hide the round trip, few enough for batches to form.
const CALLS_MAX: usize = 4;

/// One operation's part of a report.
struct Part {
    live: Arc<Live>,
    outbox: Outbox,
}

/// Sends until the worker ends.
pub(super) async fn run(shared: Arc<Shared>, mut dirty: mpsc::UnboundedReceiver<Arc<Live>>) {
    let calls = Arc::new(Semaphore::new(CALLS_MAX));
    while let Some(first) = dirty.recv().await {
        let Ok(permit) = calls.clone().acquire_owned().await else { return };
        let mut parts = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(live) = next {
            if let Some(outbox) = live.take() {
                bytes += outbox.item.encoded_len() + live.operation.len();
                parts.push(Part { live, outbox });
            }
            next = if parts.len() < ITEMS_MAX && bytes < BYTES_ENOUGH {
                dirty.try_recv().ok()
            } else {
                None
            };
        }
        tokio::spawn(send(shared.clone(), parts, permit));
    }
}

/// Sends one report until it is answered, or until none of its operations is ours any more.
async fn send(shared: Arc<Shared>, mut parts: Vec<Part>, _permit: OwnedSemaphorePermit) {
    let mut backoff = Backoff::new();
    loop {
        parts.retain(|part| !part.live.over().is_cancelled());
        if parts.is_empty() {
            return;
        }
        let sent_at = Instant::now();
        let status = match call(&shared, &parts).await {
            Ok(results) => {
                for (part, result) in parts.into_iter().zip(results) {
                    settle(&shared, part, &result, sent_at);
                }
                return;
            }
            Err(status) => status,
        };
        if permanent(&status) {
            refuse(&shared, parts, &status).await;
            return;
        }
        tracing::debug!(%status, items = parts.len(), "a report got no answer; repeating it");
        tokio::time::sleep(backoff.pause()).await;
    }
}

async fn call(shared: &Shared, parts: &[Part]) -> Result<Vec<ReportResult>, Status> {
    let items = parts.iter().map(|part| item(shared, &part.live, part.outbox.item.clone()));
    let items: Vec<_> = items.collect();
    let timeout = shared.options.call_timeout();
    let lane = shared.lane.lock().clone();
    let small = || items.iter().map(Message::encoded_len).sum::<usize>() <= LANE_BYTES_MAX;
    let results = match lane {
        Some(lane) if small() => within(timeout, lane.report(items)).await?,
        Some(_) | None => {
            let request = ReportRequest { worker: shared.options.name.clone(), items, wait: None };
            within(timeout, shared.link.report(request, timeout)).await?.results
        }
    };
    if results.len() == parts.len() {
        return Ok(results);
    }
    Err(Status::internal("the server answered another number of items than were sent"))
}

/// Fills in whose item it is.
pub(super) fn item(shared: &Shared, live: &Live, mut item: ReportItem) -> ReportItem {
    item.operation = live.operation.clone();
    item.epoch = live.epoch;
    item.lease = Some(to_wire(shared.options.lease));
    item
}

/// A report was refused as a whole: finds the item at fault by sending each alone.
async fn refuse(shared: &Arc<Shared>, mut parts: Vec<Part>, status: &Status) {
    if parts.len() > 1 {
        for part in parts {
            let alone = vec![part];
            let sent_at = Instant::now();
            match call(shared, &alone).await {
                Ok(results) => {
                    for (part, result) in alone.into_iter().zip(results) {
                        settle(shared, part, &result, sent_at);
                    }
                }
                Err(status) => {
                    for part in alone {
                        settle_refused(shared, part, &status);
                    }
                }
            }
        }
    } else if let Some(part) = parts.pop() {
        settle_refused(shared, part, status);
    }
}

fn settle_refused(shared: &Shared, part: Part, status: &Status) {
    let refused = Refused {
        code: i32::from(status.code()),
        reason: String::new(),
        message: status.message().to_owned(),
    };
    answer(shared, part, Err(refused));
}

/// Takes in the server's answer to one item.
fn settle(shared: &Shared, part: Part, result: &ReportResult, sent_at: Instant) {
    hear_result(shared, &part.live, result, sent_at);
    let outcome = match &result.error {
        None => Ok(Answer { gate_passed: result.gate_passed }),
        Some(error) => Err(Refused {
            code: error.code,
            reason: error.reason.clone(),
            message: error.message.clone(),
        }),
    };
    answer(shared, part, outcome);
}

/// What an answer means beyond the item: the lease, and what is wanted.
pub(super) fn hear_result(
    shared: &Shared,
    live: &Arc<Live>,
    result: &ReportResult,
    sent_at: Instant,
) {
    match &result.error {
        None => live.renewed(sent_at + shared.options.lease),
        Some(error) if error.reason == "LEASE_LOST" || error.reason == "OPERATION_NOT_FOUND" => {
            live.tell(Cancellation::new(Why::LeaseLost));
        }
        Some(_) => {}
    }
    if result.desired.as_ref().is_some_and(|desired| live.heed(desired)) {
        shared.report(live);
    }
}

/// Tells whoever waits, and puts the operation in line again if it has more to say.
fn answer(shared: &Shared, part: Part, outcome: Result<Answer, Refused>) {
    if let Err(refused) = &outcome {
        let operation = part.live.operation.as_str();
        tracing::debug!(
            operation,
            reason = refused.reason,
            refused.message,
            "a report was refused"
        );
    }
    part.outbox.answer(&outcome);
    if part.live.through() {
        shared.report(&part.live);
    }
}
