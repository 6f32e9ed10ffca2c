//! Running a caller's decision: the rules' answer, or an error when the decision itself is broken.

use std::panic::{AssertUnwindSafe, catch_unwind};

use longhaul_core::{Applied, Error, Operation, Reason};

use crate::{Decide, Failure};

/// Runs a decision; a panic in one must end neither the writer nor a lock that others need.
pub(crate) fn run(decide: &Decide, operation: Option<&Operation>) -> Result<Applied, Failure> {
    catch_unwind(AssertUnwindSafe(|| decide(operation)))
        .map_err(|_| Failure::Store(internal("a decision panicked")))?
        .map_err(Failure::Refused)
}

/// A mistake of ours.
pub(crate) fn internal(what: &str) -> Error {
    Error::new(Reason::Internal, format!("{what}; the server's log has the details"))
}
