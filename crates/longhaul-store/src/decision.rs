//! Running a caller's decision: the rules' answer, or an error when the decision itself is broken.

use std::panic::{AssertUnwindSafe, catch_unwind};

use longhaul_core::{Applied, Error, EventKind, Operation, Reason, Refusal};

use crate::{Decide, Failure};

/// Runs a decision; a panic in one must end neither the writer nor a lock that others need.
pub(crate) fn run(decide: &Decide, operation: Option<&Operation>) -> Result<Applied, Failure> {
    catch_unwind(AssertUnwindSafe(|| decide(operation)))
        .map_err(|_| Failure::Store(internal("a decision panicked")))?
        .map_err(Failure::Refused)
}

/// Whether the parent of a new child lets it start.
pub(crate) fn admit(parent: Option<&Operation>, child: &Applied) -> Result<(), Refusal> {
    parent.ok_or(Refusal::ParentNotFound)?.admits_child(child.operation.create_time)
}

/// What remains of a decision to forget an operation whose children have yet to follow its cancel: a
/// delete hides it, and its row stays.
pub(crate) fn keep_for_children(
    before: &Operation,
    mut applied: Applied,
) -> Result<Applied, Refusal> {
    if before.deleted == applied.operation.deleted {
        return Err(Refusal::NotDue);
    }
    applied.forget = false;
    applied.events.retain(|event| !matches!(event.kind, EventKind::Forgotten));
    Ok(applied)
}

/// A mistake of ours.
pub(crate) fn internal(what: &str) -> Error {
    Error::new(Reason::Internal, format!("{what}; the server's log has the details"))
}
