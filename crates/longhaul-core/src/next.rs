//! The value in the making: the steps that several commands share on the way to the next operation.
//!
//! Which command takes which step is decided in `apply.rs` and `finish.rs`.

use std::sync::Arc;
use std::time::Duration;

use crate::command::{Applied, Changes, Event, EventKind, Refusal};
use crate::error::Code;
use crate::operation::{
    Cancel, Cause, Effects, Epoch, Lease, Operation, Outcome, Payload, State, Status,
};
use crate::time::Timestamp;

/// The value in the making.
pub(crate) struct Next {
    pub(crate) operation: Operation,
    pub(crate) events: Vec<Event>,
    pub(crate) now: Timestamp,
}

impl Next {
    pub(crate) fn from(operation: &Operation, now: Timestamp) -> Self {
        Self { operation: operation.clone(), events: Vec::new(), now }
    }

    pub(crate) fn event(&mut self, kind: EventKind) {
        self.events.push(Event { at: self.now, kind });
    }

    pub(crate) fn changed(mut self) -> Applied {
        self.operation.revision += 1;
        self.operation.update_time = self.now.max(self.operation.update_time);
        Applied { operation: self.operation, events: self.events, forget: false }
    }

    /// Changed for the history alone: nobody is to think that the operation has moved.
    pub(crate) fn noted(self) -> Applied {
        let update_time = self.operation.update_time;
        let mut applied = self.changed();
        applied.operation.update_time = update_time;
        applied
    }

    /// Gives the main work to whoever holds `lease`; a stop already asked for stays asked for.
    pub(crate) fn hold(&mut self, lease: Lease) {
        self.operation.state = if self.operation.cancel.is_some() {
            State::Cancelling { lease }
        } else {
            State::Running { lease }
        };
    }

    /// Extends the lease of `epoch`, or gives a lost one back if nobody claimed since.
    pub(crate) fn keep_lease(&mut self, epoch: Epoch, span: Duration) -> Result<(), Refusal> {
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
    pub(crate) fn take(&mut self, changes: Changes) {
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
                let first = cancel.acknowledged_at.is_none();
                let delivered = cancel.deliver(now);
                cancel.acknowledged_at.get_or_insert(now.max(delivered));
                first
            });
            if first {
                self.event(EventKind::CancelAcknowledged);
            }
        }
    }

    /// The answer to a report carries the desired state, so a cancel is on its way now.
    pub(crate) fn note_delivery(&mut self) {
        let now = self.now;
        let told = match self.operation.state {
            State::Cancelling { .. } => self.operation.cancel.as_mut(),
            State::Queued { .. }
            | State::Running { .. }
            | State::CleaningUp { .. }
            | State::Done { .. } => None,
        };
        let first = told.is_some_and(|cancel| {
            let first = cancel.delivered_at.is_none();
            cancel.deliver(now);
            first
        });
        if first {
            self.event(EventKind::CancelDelivered);
        }
    }

    /// Ends what waited for its first worker for too long.
    pub(crate) fn never_claimed(&mut self) {
        let reason = "no worker claimed it in time";
        self.note_stop(Cause::Deadline, "".into(), reason.into());
        let message = "no worker claimed the operation by the moment it had to start by";
        self.end_cancelled(None, message.to_owned());
    }

    fn note_stop(&mut self, cause: Cause, actor: Arc<str>, reason: Arc<str>) {
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

    /// Records the first wish to stop, and acts on it.
    pub(crate) fn stop(&mut self, cause: Cause, actor: Arc<str>, reason: Arc<str>) {
        self.note_stop(cause, actor, reason);
        match &self.operation.state {
            // Past the gate the work is carried forward, within the cancel's deadline.
            State::Queued { .. } if self.operation.gate_passed.is_some() => {}
            State::Queued { .. } => {
                self.close_epoch();
                self.end_cancelled(None, String::new());
            }
            State::Running { lease } => {
                self.operation.state = State::Cancelling { lease: lease.clone() };
            }
            State::Cancelling { .. } | State::CleaningUp { .. } | State::Done { .. } => {}
        }
    }

    /// A worker fell silent while nobody wanted it to stop.
    pub(crate) fn attempt_lost(&mut self, lease: Lease) {
        if self.operation.policy.retry.allows_another(self.operation.attempt) {
            self.operation.state = State::Queued { not_before: self.now, lost: Some(lease) };
        } else {
            let message = format!(
                "worker {:?} fell silent on attempt {}, the last one allowed",
                &*lease.worker, self.operation.attempt
            );
            self.close_epoch();
            self.end(Outcome::Error(Status { code: Code::Unavailable, message, details: vec![] }));
        }
    }

    /// A worker fell silent, or gave the work back, while it was to stop. Past the gate another attempt
    /// carries the work forward, until the cancel's deadline.
    pub(crate) fn main_work_lost(&mut self, lost: Option<Lease>) {
        let carry_on = self.operation.gate_passed.is_some()
            && self.operation.policy.retry.allows_another(self.operation.attempt);
        if carry_on {
            self.operation.state = State::Queued { not_before: self.now, lost };
        } else {
            self.main_work_given_up();
        }
    }

    /// Nobody will say how the main work ended: clean up where the method can, else end with effects
    /// unknown.
    pub(crate) fn main_work_given_up(&mut self) {
        self.close_epoch();
        match self.operation.policy.cleanup_budget {
            Some(budget) => {
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

    /// Gives up whatever the last claim left open: its worker can speak neither for a cleanup nor after an
    /// end that it did not report.
    pub(crate) fn close_epoch(&mut self) {
        if self.operation.epoch > 0 {
            self.operation.epoch += 1;
        }
    }

    /// Ends with the code of the cause; `None` keeps the effects already known.
    pub(crate) fn end_cancelled(&mut self, effects: Option<Effects>, message: String) {
        let cause = self.operation.cancel.as_ref().map_or(Cause::Client, |cancel| cancel.cause);
        let effects = effects.unwrap_or(self.operation.effects);
        self.operation.effects = self.honest(effects);
        let message = if message.is_empty() { cause_message(cause).to_owned() } else { message };
        self.end(Outcome::Error(Status { code: cause.code(), message, details: vec![] }));
    }

    /// Once the gate was passed nobody may claim that nothing happened.
    pub(crate) fn honest(&self, effects: Effects) -> Effects {
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

    pub(crate) fn end(&mut self, outcome: Outcome) {
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

pub(crate) fn unchanged(operation: &Operation, events: Vec<Event>) -> Applied {
    Applied { operation: operation.clone(), events, forget: false }
}

fn cause_message(cause: Cause) -> &'static str {
    match cause {
        Cause::Client => "the operation was cancelled at a client's request",
        Cause::Deadline => "the operation did not end before its deadline",
        Cause::Superseded => "a newer operation took the place of this one",
    }
}
