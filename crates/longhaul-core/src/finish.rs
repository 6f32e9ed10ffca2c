//! What a worker's end makes of an operation, in each state; the diagram's arrows into done.
//!
//! The commands of everyone else are in `apply.rs`.

use crate::command::{Applied, Changes, EventKind, Finish, Refusal};
use crate::error::Code;
use crate::next::{Next, unchanged};
use crate::operation::{Effects, Epoch, Outcome, State};

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
            return if same_end(outcome, &finish) {
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
