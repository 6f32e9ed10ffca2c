//! What a command makes of an operation: one function per command, each answering every state.
//!
//! Everything here may run twice for one commit (a store may retry its transaction), so nothing here
//! does anything but compute.

use std::sync::Arc;
use std::time::Duration;

use crate::command::{Applied, Changes, Command, Event, EventKind, Finish, Refusal, Start};
use crate::error::Code;
use crate::operation::{
    Cancel, Cause, Effects, Epoch, Lease, Operation, Outcome, Payload, State, Status,
};
use crate::time::Timestamp;

/// Makes a new operation, or finds that the caller already has one.
///
/// `existing` is the row found under the same `request_id` (and parent), or under the same name. While
/// the window of the `request_id` is open, the same request gets that row back unchanged and another
/// request is refused with [`Refusal::RequestIdReused`]. Once the window has ended the result is a new
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
        if open && existing.method == start.method && existing.request == start.request {
            return Ok(unchanged(existing, Vec::new()));
        }
        if open {
            return Err(Refusal::RequestIdReused);
        }
    }
    let operation = Operation {
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
        traceparent: start.traceparent,
        deadline: start.deadline,
        request_id: start.request_id,
        create_time: now,
        start_time: None,
        update_time: now,
        revision: 1,
        deleted: None,
        policy: start.policy,
    };
    let events = vec![Event { at: now, kind: EventKind::Started }];
    Ok(Applied { operation, events, forget: false })
}

/// The whole of an operation's life after its start: the next value, or why there is none.
pub fn apply(operation: &Operation, command: Command, now: Timestamp) -> Result<Applied, Refusal> {
    match command {
        Command::Claim { worker, lease } => claim(operation, worker, lease, now),
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
        Command::Delete { actor } => delete(operation, actor, now),
        Command::Recover { lease } => recover(operation, lease, now),
        Command::Tick { jitter } => tick(operation, jitter, now),
    }
}

fn claim(
    operation: &Operation,
    worker: Arc<str>,
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
    let lease = Lease { worker: worker.clone(), claimed_at: now, expires_at: now + lease };
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

fn finish_attempt(
    mut next: Next,
    epoch: Epoch,
    finish: Finish,
    changes: Changes,
    jitter: u8,
) -> Result<Applied, Refusal> {
    if epoch == 0 || epoch != next.operation.epoch {
        return Err(Refusal::LeaseLost);
    }
    let failed_without_code = match &finish {
        Finish::Failed { status, .. } => status.code == Code::Ok,
        Finish::Succeeded(_) | Finish::Cancelled { .. } => false,
    };
    if failed_without_code {
        return Err(Refusal::InvalidOutcome);
    }
    let told_to_stop = next.operation.cancel.is_some();
    match &next.operation.state {
        State::Queued { lost: None, .. } | State::CleaningUp { lease: None, lost: None, .. } => {
            return Err(Refusal::LeaseLost);
        }
        State::Queued { .. } | State::Running { .. } | State::Cancelling { .. } => {
            next.take(changes);
            if told_to_stop {
                next.finish_cancelling(finish);
            } else {
                next.finish_running(finish, jitter)?;
            }
        }
        State::CleaningUp { .. } => {
            next.take(changes);
            next.finish_cleanup(finish, jitter);
        }
        State::Done { outcome, .. } => {
            return if same_end(outcome, &finish) {
                Ok(unchanged(&next.operation, Vec::new()))
            } else {
                Err(Refusal::LeaseLost)
            };
        }
    }
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
        State::Cancelling { .. } => next.main_work_lost(None),
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
        let newly_asked = by_client && !first.client_asked;
        first.client_asked |= by_client;
        next.event(repeated);
        return Ok(if newly_asked { next.changed() } else { next.revert_to(operation) });
    }
    next.stop(cause, actor, reason);
    match &next.operation.state {
        // Past the gate the work is carried forward, within the cancel's deadline.
        State::Queued { .. } if next.operation.gate_passed.is_some() => {}
        State::Queued { .. } => next.end_cancelled(None, String::new()),
        State::Running { lease } => {
            next.operation.state = State::Cancelling { lease: lease.clone() };
        }
        State::Cancelling { .. } | State::CleaningUp { .. } | State::Done { .. } => {}
    }
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
            if operation.cancel.is_none() {
                next.stop(Cause::Deadline, "".into(), "".into());
                next.end_cancelled(None, String::new());
            } else {
                next.main_work_given_up();
            }
        }
        State::Running { lease } => {
            if missed && operation.cancel.is_none() {
                next.stop(Cause::Deadline, "".into(), "".into());
                next.operation.state = State::Cancelling { lease: lease.clone() };
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

/// The value in the making.
struct Next {
    operation: Operation,
    events: Vec<Event>,
    now: Timestamp,
}

impl Next {
    fn from(operation: &Operation, now: Timestamp) -> Self {
        Self { operation: operation.clone(), events: Vec::new(), now }
    }

    fn event(&mut self, kind: EventKind) {
        self.events.push(Event { at: self.now, kind });
    }

    fn changed(mut self) -> Applied {
        self.operation.revision += 1;
        self.operation.update_time = self.now.max(self.operation.update_time);
        Applied { operation: self.operation, events: self.events, forget: false }
    }

    fn revert_to(self, operation: &Operation) -> Applied {
        unchanged(operation, self.events)
    }

    /// Gives the main work to whoever holds `lease`; a stop already asked for stays asked for.
    fn hold(&mut self, lease: Lease) {
        self.operation.state = if self.operation.cancel.is_some() {
            State::Cancelling { lease }
        } else {
            State::Running { lease }
        };
    }

    /// Extends the lease of `epoch`, or gives a lost one back if nobody claimed since.
    fn keep_lease(&mut self, epoch: Epoch, span: Duration) -> Result<(), Refusal> {
        if epoch == 0 || epoch != self.operation.epoch {
            return Err(Refusal::LeaseLost);
        }
        let expires_at = self.now + span;
        let regained = match &mut self.operation.state {
            State::Running { lease } | State::Cancelling { lease } => {
                lease.expires_at = expires_at;
                None
            }
            State::Queued { lost, .. } => Some(lost.take().ok_or(Refusal::LeaseLost)?),
            State::CleaningUp { lease: Some(lease), .. } => {
                lease.expires_at = expires_at;
                None
            }
            State::CleaningUp { lost, .. } => Some(lost.take().ok_or(Refusal::LeaseLost)?),
            State::Done { .. } => return Err(Refusal::LeaseLost),
        };
        let Some(mut regained) = regained else { return Ok(()) };
        regained.expires_at = expires_at;
        self.event(EventKind::LeaseRegained { worker: regained.worker.clone() });
        match &mut self.operation.state {
            State::CleaningUp { lease, .. } => *lease = Some(regained),
            State::Queued { .. }
            | State::Running { .. }
            | State::Cancelling { .. }
            | State::Done { .. } => self.hold(regained),
        }
        Ok(())
    }

    /// Takes over what a report says beside its main purpose.
    fn take(&mut self, changes: Changes) {
        let told = changes.metadata.is_some() || changes.progress.is_some();
        if let Some(metadata) = changes.metadata {
            self.operation.metadata = metadata;
        }
        if let Some(progress) = changes.progress {
            self.operation.progress = Some(progress);
        }
        if let Some(checkpoint) = changes.checkpoint {
            self.operation.checkpoint = Some(checkpoint);
        }
        if let Some(external_ref) = changes.external_ref {
            self.operation.external_ref = Some(external_ref);
        }
        if told {
            self.event(EventKind::Progressed);
        }
        if changes.acknowledged {
            let now = self.now;
            let first = self.operation.cancel.as_mut().is_some_and(|cancel| {
                cancel.delivered_at.get_or_insert(now);
                cancel.acknowledged_at.replace(cancel.acknowledged_at.unwrap_or(now)).is_none()
            });
            if first {
                self.event(EventKind::CancelAcknowledged);
            }
        }
    }

    /// The answer to a report carries the desired state, so a cancel is on its way now.
    fn note_delivery(&mut self) {
        let now = self.now;
        let first = match (&self.operation.state, &mut self.operation.cancel) {
            (State::Cancelling { .. }, Some(cancel)) if cancel.delivered_at.is_none() => {
                cancel.delivered_at = Some(now);
                true
            }
            _ => false,
        };
        if first {
            self.event(EventKind::CancelDelivered);
        }
    }

    /// Records the first wish to stop.
    fn stop(&mut self, cause: Cause, actor: Arc<str>, reason: Arc<str>) {
        self.operation.cancel = Some(Cancel {
            cause,
            at: self.now,
            actor: actor.clone(),
            reason: reason.clone(),
            deadline: self.now + self.operation.policy.cancel_timeout,
            client_asked: cause == Cause::Client,
            delivered_at: None,
            acknowledged_at: None,
        });
        self.event(EventKind::CancelRequested { cause, actor, reason });
    }

    fn finish_running(&mut self, finish: Finish, jitter: u8) -> Result<(), Refusal> {
        match finish {
            Finish::Succeeded(response) => self.end(Outcome::Response(response)),
            Finish::Cancelled { .. } => return Err(Refusal::CancelNotRequested),
            Finish::Failed { status, .. } if status.code == Code::Cancelled => {
                return Err(Refusal::CancelNotRequested);
            }
            Finish::Failed { status, retryable, effects } => {
                self.operation.effects = effects.unwrap_or(Effects::Unknown);
                let retry = &self.operation.policy.retry;
                let not_before = retry.not_before(self.operation.attempt, jitter, self.now);
                if retryable && retry.allows_another(self.operation.attempt) {
                    self.operation.state = State::Queued { not_before, lost: None };
                    self.event(EventKind::Retrying { not_before, status });
                } else {
                    self.end(Outcome::Error(status));
                }
            }
        }
        Ok(())
    }

    fn finish_cancelling(&mut self, finish: Finish) {
        match finish {
            Finish::Succeeded(_) if self.operation.policy.discard_success_after_cancel => {
                self.end_cancelled(Some(Effects::Unknown), String::new());
            }
            Finish::Succeeded(response) => self.end(Outcome::Response(response)),
            Finish::Cancelled { effects, message } => self.end_cancelled(Some(effects), message),
            Finish::Failed { status, retryable, effects } => {
                let effects = effects.unwrap_or(Effects::Unknown);
                if retryable || status.code == Code::Cancelled {
                    self.end_cancelled(Some(effects), status.message);
                } else {
                    self.operation.effects = self.honest(effects);
                    self.end(Outcome::Error(status));
                }
            }
        }
    }

    fn finish_cleanup(&mut self, finish: Finish, jitter: u8) {
        let (effects, message, again) = match finish {
            Finish::Succeeded(_) => (Effects::Undone, String::new(), false),
            Finish::Cancelled { effects, message } => (effects, message, false),
            Finish::Failed { status, retryable, effects } => {
                (effects.unwrap_or(Effects::Unknown), status.message, retryable)
            }
        };
        let now = self.now;
        let retry = self.operation.policy.retry.clone();
        match &mut self.operation.state {
            State::CleaningUp { not_before, lease, lost, attempts, .. }
                if again && retry.allows_another(*attempts) =>
            {
                *not_before = retry.not_before(*attempts, jitter, now);
                *lease = None;
                *lost = None;
            }
            State::CleaningUp { .. }
            | State::Queued { .. }
            | State::Running { .. }
            | State::Cancelling { .. }
            | State::Done { .. } => self.end_cancelled(Some(effects), message),
        }
    }

    /// A worker fell silent while nobody wanted it to stop.
    fn attempt_lost(&mut self, lease: Lease) {
        if self.operation.policy.retry.allows_another(self.operation.attempt) {
            self.operation.state = State::Queued { not_before: self.now, lost: Some(lease) };
        } else {
            let message = format!(
                "worker {:?} fell silent on attempt {}, the last one allowed",
                &*lease.worker, self.operation.attempt
            );
            self.end(Outcome::Error(Status { code: Code::Unavailable, message, details: vec![] }));
        }
    }

    /// A worker fell silent, or gave the work back, while it was to stop. Past the gate another attempt
    /// carries the work forward, until the cancel's deadline.
    fn main_work_lost(&mut self, lost: Option<Lease>) {
        let carry_on = self.operation.gate_passed.is_some()
            && self.operation.policy.retry.allows_another(self.operation.attempt);
        if carry_on {
            self.operation.state = State::Queued { not_before: self.now, lost };
        } else {
            self.main_work_given_up();
        }
    }

    /// Nobody will say how the main work ended: clean up where the method can, else end with effects
    /// unknown. Raises the epoch, so that the old worker cannot speak for the cleanup.
    fn main_work_given_up(&mut self) {
        match self.operation.policy.cleanup_budget {
            Some(budget) => {
                self.operation.epoch += 1;
                self.operation.state = State::CleaningUp {
                    not_before: self.now,
                    lease: None,
                    lost: None,
                    attempts: 0,
                    budget_end: self.now + budget,
                };
                self.event(EventKind::CleanupStarted);
            }
            None => self.end_cancelled(Some(Effects::Unknown), String::new()),
        }
    }

    /// Ends with the code of the cause; `None` keeps the effects already known.
    fn end_cancelled(&mut self, effects: Option<Effects>, message: String) {
        let cause = self.operation.cancel.as_ref().map_or(Cause::Client, |cancel| cancel.cause);
        let effects = effects.unwrap_or(self.operation.effects);
        self.operation.effects = self.honest(effects);
        let message = if message.is_empty() { cause_message(cause).to_owned() } else { message };
        self.end(Outcome::Error(Status { code: cause.code(), message, details: vec![] }));
    }

    /// Once the gate was passed nobody may claim that nothing happened.
    fn honest(&self, effects: Effects) -> Effects {
        match effects {
            Effects::NotStarted | Effects::None if self.operation.gate_passed.is_some() => {
                Effects::Unknown
            }
            Effects::NotStarted if self.operation.epoch > 0 => Effects::Unknown,
            Effects::NotStarted
            | Effects::None
            | Effects::Undone
            | Effects::Partial
            | Effects::Unknown => effects,
        }
    }

    fn end(&mut self, outcome: Outcome) {
        // A deleted operation's result has no reader; its row only guards the request_id.
        let outcome = match outcome {
            Outcome::Response(response) if self.operation.deleted.is_some() => {
                Outcome::Response(Payload { type_name: response.type_name, value: Arc::from([]) })
            }
            Outcome::Response(_) | Outcome::Error(_) => outcome,
        };
        self.event(EventKind::Finished { outcome: outcome.clone() });
        self.operation.state = State::Done { outcome, at: self.now };
    }
}

fn unchanged(operation: &Operation, events: Vec<Event>) -> Applied {
    Applied { operation: operation.clone(), events, forget: false }
}

fn cause_message(cause: Cause) -> &'static str {
    match cause {
        Cause::Client => "the operation was cancelled at a client's request",
        Cause::Deadline => "the operation did not end before its deadline",
        Cause::Superseded => "a newer operation took the place of this one",
    }
}

/// Whether a repeated finish says what the first one said: its answer was lost, not its effect.
fn same_end(outcome: &Outcome, finish: &Finish) -> bool {
    match (outcome, finish) {
        (Outcome::Response(stored), Finish::Succeeded(response)) => stored == response,
        (Outcome::Error(stored), Finish::Failed { status, .. }) => stored == status,
        (Outcome::Error(stored), Finish::Cancelled { .. }) => stored.code == Code::Cancelled,
        (Outcome::Response(_), Finish::Failed { .. } | Finish::Cancelled { .. })
        | (Outcome::Error(_), Finish::Succeeded(_)) => false,
    }
}
