//! Takes work by claims: as much as there are free slots, and nothing that could be lost on the way.

use std::sync::Arc;

use longhaul_wire::v1::{
    Assignment, ClaimRequest, Release, ReportItem, ReportRequest, report_item::Action,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use uuid::Uuid;

use super::link::{Backoff, permanent, to_wire, within};
use super::live::Live;
use super::supervise::supervise;
use super::{Error, Shared};

/// Most operations of one claim. Source: longhaul/v1/workers.proto, ClaimRequest.
const CLAIM_MAX: usize = 1000;

/// Claims until the shutdown, or until the server refuses for good.
pub(super) async fn run(
    shared: &Arc<Shared>,
    slots: &Arc<Semaphore>,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    loop {
        let Some(permits) = free_slots(slots, shutdown).await else { return Ok(()) };
        let request = request(shared, permits.num_permits());
        let first_sent = Instant::now();
        let claimed = tokio::select! {
            biased;
            () = shutdown.cancelled() => None,
            claimed = claim(shared, &request) => Some(claimed),
        };
        match claimed {
            Some(Ok(assignments)) => start(shared, assignments, permits, first_sent).await,
            Some(Err(status)) => return Err(Error::Refused(Box::new(status))),
            None => {
                give_back(shared, request).await;
                return Ok(());
            }
        }
    }
}

/// Waits for a free slot and takes all that are free; `None` at the shutdown.
async fn free_slots(
    slots: &Arc<Semaphore>,
    shutdown: &CancellationToken,
) -> Option<OwnedSemaphorePermit> {
    let mut permits = tokio::select! {
        biased;
        () = shutdown.cancelled() => return None,
        permit = slots.clone().acquire_owned() => permit.ok()?,
    };
    let more = slots.available_permits().min(CLAIM_MAX - 1);
    let more = u32::try_from(more).unwrap_or_default();
    if let Ok(more) = slots.clone().try_acquire_many_owned(more) {
        permits.merge(more);
    }
    Some(permits)
}

fn request(shared: &Shared, max: usize) -> ClaimRequest {
    let options = &shared.options;
    ClaimRequest {
        worker: options.name.clone(),
        methods: options.methods.clone(),
        queues: options.queues.clone(),
        max: i32::try_from(max).unwrap_or(i32::MAX),
        wait: Some(to_wire(options.claim_wait())),
        claim_id: Uuid::now_v7().to_string(),
        lease: Some(to_wire(options.lease)),
    }
}

/// Repeats one claim until it is answered: the same id brings the same leases, so an answer that was
/// lost on the way loses nothing.
async fn claim(shared: &Shared, request: &ClaimRequest) -> Result<Vec<Assignment>, Status> {
    let timeout = shared.options.claim_wait() + shared.options.call_timeout();
    let mut backoff = Backoff::new();
    loop {
        match within(timeout, shared.link.claim(request.clone(), timeout)).await {
            Ok(response) => return Ok(response.assignments),
            Err(status) if permanent(&status) => return Err(status),
            Err(status) => {
                tracing::debug!(%status, "a claim got no answer; repeating it");
                tokio::time::sleep(backoff.pause()).await;
            }
        }
    }
}

/// Runs what was claimed, one slot each. What came too late or too many is given back.
async fn start(
    shared: &Arc<Shared>,
    assignments: Vec<Assignment>,
    mut permits: OwnedSemaphorePermit,
    first_sent: Instant,
) {
    let fence = first_sent + shared.options.lease;
    let too_late = Instant::now() + shared.options.margin() >= fence;
    let mut unwanted = Vec::new();
    for assignment in assignments {
        let key = (assignment.operation.clone(), assignment.epoch);
        if shared.book.lock().contains_key(&key) {
            continue;
        }
        let slot = if too_late { None } else { permits.split(1) };
        let Some(slot) = slot else {
            unwanted.push(key);
            continue;
        };
        let live = Live::new(key.0.clone(), key.1, fence);
        shared.book.lock().insert(key, live.clone());
        if assignment.desired.as_ref().is_some_and(|desired| live.heed(desired)) {
            shared.report(&live);
        }
        // The receiver ends only together with the worker.
        let _ = shared.fresh.send(live.clone());
        tokio::spawn(supervise(shared.clone(), live, assignment, slot));
    }
    release(shared, unwanted).await;
}

/// At the shutdown a claim may have been granted without our knowing: asks again under the same id,
/// without waiting, and gives back whatever comes.
async fn give_back(shared: &Shared, mut request: ClaimRequest) {
    request.wait = None;
    let timeout = shared.options.call_timeout();
    match within(timeout, shared.link.claim(request, timeout)).await {
        Ok(response) => {
            let book = shared.book.lock().keys().cloned().collect::<Vec<_>>();
            let granted = response.assignments.into_iter();
            let keys = granted.map(|assignment| (assignment.operation, assignment.epoch));
            release(shared, keys.filter(|key| !book.contains(key)).collect()).await;
        }
        Err(status) => tracing::debug!(%status, "the last claim could not be given back"),
    }
}

/// Gives leases back at once; those that cannot be given back run out.
pub(super) async fn release(shared: &Shared, keys: Vec<(String, u64)>) {
    if keys.is_empty() {
        return;
    }
    let items = keys.into_iter().map(|(operation, epoch)| ReportItem {
        operation,
        epoch,
        action: Some(Action::Release(Release {})),
        ..ReportItem::default()
    });
    let request =
        ReportRequest { worker: shared.options.name.clone(), items: items.collect(), wait: None };
    let timeout = shared.options.call_timeout();
    if let Err(status) = within(timeout, shared.link.report(request, timeout)).await {
        tracing::warn!(%status, "leases could not be given back; they will run out");
    }
}
