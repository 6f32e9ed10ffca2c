//! What a worker's end makes of an operation, in each state; the diagram's arrows into done.
//!
//! The commands of everyone else are in `apply.rs`.

use crate::command::{Applied, Changes, EventKind, Finish, Refusal};
use crate::error::Code;
use crate::next::{Next, unchanged};
use crate::operation::{Effects, Epoch, Operation, Outcome, State, Status};

pub(crate) fn finish_attempt(
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
            return if same_end(&next.operation, outcome, &finish) {
                Ok(unchanged(&next.operation, Vec::new()))
            } else {
                Err(Refusal::LeaseLost)
            };
        }
    }
    Ok(next.changed())
}

impl Next {
    fn finish_running(&mut self, finish: Finish, jitter: u8) -> Result<(), Refusal> {
        match finish {
            Finish::Succeeded(response) => self.end(Outcome::Response(response)),
            Finish::Cancelled { .. } => return Err(Refusal::CancelNotRequested),
            Finish::Failed { status, .. } if status.code == Code::Cancelled => {
                return Err(Refusal::CancelNotRequested);
            }
            Finish::Failed { status, retryable, effects } => {
                self.operation.effects = self.honest(effects.unwrap_or(Effects::Unknown));
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
        match finish {
            Finish::Succeeded(_) => self.end_cancelled(Some(Effects::Undone), String::new()),
            Finish::Cancelled { effects, message } => self.end_cancelled(Some(effects), message),
            Finish::Failed { status, retryable, effects } => {
                if !(retryable && self.clean_up_again(&status, jitter)) {
                    self.end_cancelled(Some(effects.unwrap_or(Effects::Unknown)), status.message);
                }
            }
        }
    }

    /// Waits for another cleanup attempt, if one is left.
    fn clean_up_again(&mut self, status: &Status, jitter: u8) -> bool {
        let retry = &self.operation.policy.retry;
        let again = match &mut self.operation.state {
            State::CleaningUp { not_before, lease, lost, attempts, .. }
                if retry.allows_another(*attempts) =>
            {
                *not_before = retry.not_before(*attempts, jitter, self.now);
                *lease = None;
                *lost = None;
                *not_before
            }
            State::CleaningUp { .. }
            | State::Queued { .. }
            | State::Running { .. }
            | State::Cancelling { .. }
            | State::Done { .. } => return false,
        };
        self.event(EventKind::Retrying { not_before: again, status: status.clone() });
        true
    }
}

/// Whether a repeated finish could have led to this end: its answer was lost, not its effect. The epoch is
/// already known to be the last one.
fn same_end(operation: &Operation, outcome: &Outcome, finish: &Finish) -> bool {
    // What a worker said after an accepted cancel may have been turned into the cause's code.
    let stopped = match (&operation.cancel, outcome) {
        (Some(cancel), Outcome::Error(stored)) => stored.code == cancel.cause.code(),
        (Some(_), Outcome::Response(_)) | (None, Outcome::Response(_) | Outcome::Error(_)) => false,
    };
    match (outcome, finish) {
        // A deleted operation kept no more of its response than the type.
        (Outcome::Response(stored), Finish::Succeeded(response)) if operation.deleted.is_some() => {
            stored.type_name == response.type_name
        }
        (Outcome::Response(stored), Finish::Succeeded(response)) => stored == response,
        (Outcome::Error(stored), Finish::Failed { status, retryable, .. }) => {
            let as_cancelled = *retryable || status.code == Code::Cancelled;
            let as_cleanup = stored.message == status.message;
            stored == status || (stopped && (as_cancelled || as_cleanup))
        }
        (Outcome::Error(_), Finish::Cancelled { .. }) => stopped,
        (Outcome::Error(_), Finish::Succeeded(_)) => {
            let cleaned_up = operation.effects == Effects::Undone;
            stopped && (cleaned_up || operation.policy.discard_success_after_cancel)
        }
        (Outcome::Response(_), Finish::Failed { .. } | Finish::Cancelled { .. }) => false,
    }
}
