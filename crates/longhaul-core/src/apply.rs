//! What a command makes of an operation: one function per command, each answering every state. A worker's
//! end is decided in `finish.rs`; `next.rs` has the steps that commands share.
//!
//! Everything here may run twice for one commit (a store may retry its transaction), so nothing here
//! does anything but compute.

use std::sync::Arc;
use std::time::Duration;

use crate::command::{Applied, Changes, Command, Event, EventKind, Refusal, Start};
use crate::family::{detach, follow};
use crate::finish::finish_attempt;
use crate::next::{Next, unchanged};
use crate::operation::{Cause, Effects, Epoch, Lease, Operation, State};
use crate::time::Timestamp;
use crate::tombstone::embody;

/// Makes a new operation, or finds that the caller already has one.
///
/// `existing` is the row found under the same `request_id` (and parent), or under the same name. While
/// the window of the `request_id` is open, the same request gets that row back unchanged and another
/// request is refused with [`Refusal::RequestIdReused`]; a tombstone becomes the new operation. Once the window has ended the result is a new
/// operation, whose name differs from `existing`: the store then files the key under the new one.
/// Source: AIP-155.
pub fn start(
    existing: Option<&Operation>,
    start: Start,
    now: Timestamp,
) -> Result<Applied, Refusal> {
    if let Some(existing) = existing {
        if existing.name == start.name {
            return Err(Refusal::NameTaken);
        }
        let open = existing.request_id.as_ref().is_some_and(|id| now < id.until);
        if open && existing.is_tombstone() {
            return Ok(embody(existing, start, now));
        }
        if open && existing.method == start.method && existing.request == start.request {
            return Ok(unchanged(existing, Vec::new()));
        }
        if open {
            return Err(Refusal::RequestIdReused);
        }
    }
    let events = vec![Event { at: now, kind: EventKind::Started }];
    Ok(Applied { operation: queued(start, now), events, forget: false })
}

/// A new operation that waits for its first claim.
pub(crate) fn queued(start: Start, now: Timestamp) -> Operation {
    Operation {
        name: start.name,
        uid: start.uid,
        api: start.api,
        method: start.method,
        queue: start.queue,
        parent: start.parent,
        target: start.target,
        actor: start.actor,
        request: start.request,
        metadata: start.metadata,
        state: State::Queued { not_before: now, lost: None },
        epoch: 0,
        attempt: 0,
        cancel: None,
        gate_passed: None,
        effects: Effects::NotStarted,
        progress: None,
        checkpoint: None,
        external_ref: None,
        holder: Arc::default(),
        grants: None,
        traceparent: start.traceparent,
        parent_operation: start.parent_operation,
        deadline: start.deadline,
        start_by: start.start_by,
        request_id: start.request_id,
        create_time: now,
        start_time: None,
        update_time: now,
        revision: 1,
        deleted: None,
        policy: start.policy,
    }
}

/// The whole of an operation's life after its start: the next value, or why there is none.
pub fn apply(operation: &Operation, command: Command, now: Timestamp) -> Result<Applied, Refusal> {
    match command {
        Command::Claim { worker, claim_id, holder, lease } => {
            let mut claimed = claim(operation, worker, claim_id, lease, now)?;
            claimed.operation.holder = holder;
            Ok(claimed)
        }
        Command::Renew { epoch, lease, changes } => renew(operation, epoch, lease, changes, now),
        Command::PassGate { epoch, lease, changes } => {
            pass_gate(operation, epoch, lease, changes, now)
        }
        Command::Finish { epoch, finish, changes, jitter } => {
            let next = Next::from(operation, now);
            finish_attempt(next, epoch, finish, changes, jitter)
        }
        Command::Release { epoch, changes } => release(operation, epoch, changes, now),
        Command::Cancel { cause, actor, reason } => cancel(operation, cause, actor, reason, now),
        Command::Follow { parent, cause, actor, reason } => {
            follow(operation, &parent, cause, actor, reason, now)
        }
        Command::Detach { actor } => detach(operation, actor, now),
        Command::Delete { actor } => delete(operation, actor, now),
        Command::Recover { lease } => recover(operation, lease, now),
        Command::Tick { jitter } => tick(operation, jitter, now),
    }
}

fn claim(
    operation: &Operation,
    worker: Arc<str>,
    claim_id: Arc<str>,
    lease: Duration,
    now: Timestamp,
) -> Result<Applied, Refusal> {
    let claimable = operation.claimable_from().is_some_and(|from| from <= now);
    let over = match operation.state {
        State::Queued { .. } | State::CleaningUp { .. } => {
            operation.due_at().is_some_and(|due| due <= now)
        }
        State::Running { .. } | State::Cancelling { .. } | State::Done { .. } => true,
    };
    if !claimable || over {
        return Err(Refusal::NotClaimable);
    }
    let mut next = Next::from(operation, now);
    let expires_at = now + lease;
    let lease = Lease { worker: worker.clone(), claim_id, claimed_at: now, expires_at };
    next.operation.epoch += 1;
    let cleanup = match &mut next.operation.state {
        State::Queued { .. } => {
            next.operation.attempt += 1;
            next.operation.start_time.get_or_insert(now);
            next.operation.effects = Effects::Unknown;
            next.hold(lease);
            false
        }
        State::CleaningUp { lease: held, lost, attempts, .. } => {
            *held = Some(lease);
            *lost = None;
            *attempts += 1;
            true
        }
        State::Running { .. } | State::Cancelling { .. } | State::Done { .. } => {
            return Err(Refusal::NotClaimable);
        }
    };
    let epoch = next.operation.epoch;
    next.event(EventKind::Claimed { worker, epoch, cleanup });
    next.note_delivery();
    Ok(next.changed())
}

fn renew(
    operation: &Operation,
    epoch: Epoch,
    lease: Duration,
    changes: Changes,
    now: Timestamp,
) -> Result<Applied, Refusal> {
    let mut next = Next::from(operation, now);
    next.keep_lease(epoch, lease)?;
    next.take(changes);
    next.note_delivery();
    Ok(next.changed())
}

fn pass_gate(
    operation: &Operation,
    epoch: Epoch,
    lease: Duration,
    changes: Changes,
    now: Timestamp,
) -> Result<Applied, Refusal> {
    let mut next = Next::from(operation, now);
    next.keep_lease(epoch, lease)?;
    match next.operation.state {
        State::Running { .. } => {
            if next.operation.gate_passed.is_none() {
                next.operation.gate_passed = Some(now);
                next.event(EventKind::GatePassed);
            }
        }
        State::Cancelling { .. } if next.operation.gate_passed.is_none() => {
            return Err(Refusal::GateClosed);
        }
        // A cleanup cannot be cancelled, and a gate once passed stays open.
        State::Cancelling { .. } | State::CleaningUp { .. } => {}
        State::Queued { .. } | State::Done { .. } => return Err(Refusal::LeaseLost),
    }
    next.take(changes);
    next.note_delivery();
    Ok(next.changed())
}

fn release(
    operation: &Operation,
    epoch: Epoch,
    changes: Changes,
    now: Timestamp,
) -> Result<Applied, Refusal> {
    if epoch == 0 || epoch != operation.epoch {
        return Err(Refusal::LeaseLost);
    }
    let mut next = Next::from(operation, now);
    next.take(changes);
    let holder = match &operation.state {
        State::Queued { lost, .. } => lost.as_ref(),
        State::Running { lease } | State::Cancelling { lease } => Some(lease),
        State::CleaningUp { lease, lost, .. } => lease.as_ref().or(lost.as_ref()),
        State::Done { .. } => None,
    };
    let worker = holder.ok_or(Refusal::LeaseLost)?.worker.clone();
    next.event(EventKind::Released { worker });
    match &mut next.operation.state {
        State::Queued { .. } | State::Running { .. } => {
            next.operation.attempt = next.operation.attempt.saturating_sub(1);
            next.operation.state = State::Queued { not_before: now, lost: None };
        }
        State::Cancelling { .. } => {
            next.operation.attempt = next.operation.attempt.saturating_sub(1);
            next.main_work_lost(None);
        }
        State::CleaningUp { not_before, lease, lost, attempts, .. } => {
            *not_before = now;
            *lease = None;
            *lost = None;
            *attempts = attempts.saturating_sub(1);
        }
        State::Done { .. } => return Err(Refusal::LeaseLost),
    }
    Ok(next.changed())
}

/// Cancels as operators may: also what a client has deleted and that still runs, which stays deleted.
pub fn cancel_as_operator(
    operation: &Operation,
    actor: Arc<str>,
    reason: Arc<str>,
    now: Timestamp,
) -> Result<Applied, Refusal> {
    let shown = Operation { deleted: None, ..operation.clone() };
    let mut applied = cancel(&shown, Cause::Client, actor, reason, now)?;
    applied.operation.deleted = operation.deleted;
    Ok(applied)
}

fn cancel(
    operation: &Operation,
    cause: Cause,
    actor: Arc<str>,
    reason: Arc<str>,
    now: Timestamp,
) -> Result<Applied, Refusal> {
    let by_client = cause == Cause::Client;
    if by_client && !operation.visible(now) {
        return Err(Refusal::NotFound);
    }
    if by_client && !operation.policy.cancellable {
        return Err(Refusal::NotCancellable);
    }
    let done = match operation.state {
        State::Done { .. } => true,
        State::Queued { .. }
        | State::Running { .. }
        | State::Cancelling { .. }
        | State::CleaningUp { .. } => false,
    };
    if done && operation.policy.strict_cancel_when_done {
        return Err(Refusal::AlreadyDone);
    }
    let repeated = EventKind::CancelRepeated { actor: actor.clone(), reason: reason.clone() };
    if done {
        return Ok(unchanged(operation, vec![Event { at: now, kind: repeated }]));
    }
    let mut next = Next::from(operation, now);
    if let Some(first) = &mut next.operation.cancel {
        first.client_asked |= by_client;
        next.event(repeated);
        // A change only because the history keeps who asked; what clients read stays as it is.
        return Ok(next.noted());
    }
    next.stop(cause, actor, reason);
    Ok(next.changed())
}

fn delete(operation: &Operation, actor: Arc<str>, now: Timestamp) -> Result<Applied, Refusal> {
    if !operation.visible(now) {
        return Err(Refusal::NotFound);
    }
    if operation.policy.strict_delete_when_running && operation.outcome().is_none() {
        return Err(Refusal::NotDone);
    }
    let mut next = Next::from(operation, now);
    next.operation.deleted = Some(now);
    next.event(EventKind::Deleted { actor });
    let mut applied = next.changed();
    applied.forget = applied.operation.purge_at().is_some_and(|at| at <= now);
    if applied.forget {
        applied.events.push(Event { at: now, kind: EventKind::Forgotten });
    }
    Ok(applied)
}

fn recover(operation: &Operation, span: Duration, now: Timestamp) -> Result<Applied, Refusal> {
    let expires_at = now + span;
    let mut next = Next::from(operation, now);
    match &mut next.operation.state {
        State::Running { lease }
        | State::Cancelling { lease }
        | State::CleaningUp { lease: Some(lease), .. }
            if lease.expires_at < expires_at =>
        {
            lease.expires_at = expires_at;
        }
        State::Running { .. }
        | State::Cancelling { .. }
        | State::CleaningUp { .. }
        | State::Queued { .. }
        | State::Done { .. } => return Err(Refusal::NotDue),
    }
    Ok(next.changed())
}

fn tick(operation: &Operation, jitter: u8, now: Timestamp) -> Result<Applied, Refusal> {
    if operation.due_at().is_none_or(|due| now < due) {
        return Err(Refusal::NotDue);
    }
    let mut next = Next::from(operation, now);
    let missed = operation.deadline.is_some_and(|deadline| deadline <= now);
    match &operation.state {
        State::Queued { .. } => {
            if operation.cancel.is_some() {
                next.main_work_given_up();
            } else if missed {
                next.stop(Cause::Deadline, "".into(), "".into());
            } else {
                next.never_claimed();
            }
        }
        State::Running { lease } => {
            if missed && operation.cancel.is_none() {
                next.stop(Cause::Deadline, "".into(), "".into());
            } else {
                next.event(EventKind::LeaseExpired { worker: lease.worker.clone() });
                next.attempt_lost(lease.clone());
            }
        }
        State::Cancelling { lease } => {
            let too_late = operation.cancel.as_ref().is_some_and(|cancel| cancel.deadline <= now);
            if too_late {
                next.main_work_given_up();
            } else {
                next.event(EventKind::LeaseExpired { worker: lease.worker.clone() });
                next.main_work_lost(Some(lease.clone()));
            }
        }
        State::CleaningUp { lease, budget_end, attempts, .. } => {
            if *budget_end <= now {
                next.close_epoch();
                next.end_cancelled(Some(Effects::Unknown), String::new());
            } else if let Some(lease) = lease {
                next.event(EventKind::LeaseExpired { worker: lease.worker.clone() });
                next.operation.state = State::CleaningUp {
                    not_before: operation.policy.retry.not_before(*attempts, jitter, now),
                    lease: None,
                    lost: Some(lease.clone()),
                    attempts: *attempts,
                    budget_end: *budget_end,
                };
            }
        }
        State::Done { .. } => {
            next.event(EventKind::Forgotten);
            let mut applied = next.changed();
            applied.forget = true;
            return Ok(applied);
        }
    }
    Ok(next.changed())
}
