//! What an operation that is not done waits for, in sentences.

use longhaul_core::{Lease, Operation, State, Timestamp};
use longhaul_wire::{convert, v1};

use crate::operators::state_number;

/// Explains an operation at a moment: most important sentence first, and by when it ends at the latest.
pub(crate) fn explain(operation: &Operation, now: Timestamp) -> v1::Explanation {
    let mut sentences = Vec::new();
    let done_by = match &operation.state {
        State::Queued { not_before, .. } => {
            sentences.push(if *not_before > now {
                format!("It waits {} s before its next attempt.", seconds(*not_before, now))
            } else {
                format!("It waits for a worker that claims from queue {:?}.", &*operation.queue)
            });
            if let Some(until) = operation.unclaimed_until() {
                sentences.push(format!("If none does, it ends in {} s.", seconds(until, now)));
            }
            if operation.cancel.is_some() {
                sentences.push("A cancel came after the gate was passed, so the next attempt carries the work to its end.".to_owned());
            }
            let stop = operation.cancel.as_ref().map(|cancel| cancel.deadline);
            stop.or(operation.deadline)
        }
        State::Running { lease } => {
            sentences.push(holder(lease, now));
            sentences.push("Nobody has asked to cancel it.".to_owned());
            operation.deadline
        }
        State::Cancelling { lease } => cancelling(operation, lease, now, &mut sentences),
        State::CleaningUp { lease, attempts, budget_end, .. } => {
            sentences.push(match lease {
                Some(lease) => {
                    format!("Worker {:?} cleans up, attempt {attempts}.", &*lease.worker)
                }
                None => "It waits for a worker that cleans up what the main work left behind."
                    .to_owned(),
            });
            sentences.push(format!("Cleaning up is given up in {} s.", seconds(*budget_end, now)));
            Some(*budget_end)
        }
        State::Done { .. } => {
            sentences.push("It is done; nothing is waited for.".to_owned());
            operation.end_time()
        }
    };
    v1::Explanation {
        state: state_number(&operation.state),
        sentences,
        done_by: done_by.map(convert::moment),
    }
}

fn cancelling(
    operation: &Operation,
    lease: &Lease,
    now: Timestamp,
    sentences: &mut Vec<String>,
) -> Option<Timestamp> {
    let cancel = operation.cancel.as_ref()?;
    let worker = &*lease.worker;
    sentences.push(if cancel.acknowledged_at.is_some() {
        format!("Worker {worker:?} has heard the cancel and has not stopped yet.")
    } else if cancel.delivered_at.is_some() {
        format!("The cancel was sent to worker {worker:?}, which has not said that it heard.")
    } else {
        format!(
            "Worker {worker:?} has not been reached yet; it hears the cancel with its next report."
        )
    });
    sentences.push(holder(lease, now));
    sentences.push(format!(
        "If it does not stop, the main work is given up in {} s.",
        seconds(cancel.deadline.min(lease.expires_at.max(now)), now)
    ));
    if operation.policy.cleanup_budget.is_some() {
        sentences.push("Another worker then cleans up what it left behind.".to_owned());
    }
    let cleanup = operation.policy.cleanup_budget.unwrap_or_default();
    Some(cancel.deadline + cleanup)
}

fn holder(lease: &Lease, now: Timestamp) -> String {
    let left = seconds(lease.expires_at, now);
    format!("Worker {:?} holds it; its lease ends in {left} s unless it reports.", &*lease.worker)
}

fn seconds(at: Timestamp, now: Timestamp) -> u64 {
    at.since(now).as_secs()
}
