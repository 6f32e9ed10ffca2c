//! Parents and children: who may have a child, and what a parent's cancel means for one.
//!
//! An operation knows its parent; nobody keeps a list in the parent, so a parent never changes because of
//! a child. A cancel spreads by a look at rows (see [`Operation::would_follow_parent`]), one transaction
//! for each child.

use std::sync::Arc;

use crate::command::{Applied, Command, EventKind, Refusal};
use crate::name::OperationName;
use crate::next::{Next, unchanged};
use crate::operation::{Cause, Operation};
use crate::time::Timestamp;

/// Longest reason that a child is given, in bytes: what the parent was told may be cut.
const REASON_BYTES_MAX: usize = 1024;

impl Operation {
    /// Whether an operation may start as a child of this one. Asked in the transaction of that start.
    pub fn admits_child(&self, now: Timestamp) -> Result<(), Refusal> {
        if !self.visible(now) {
            return Err(Refusal::ParentNotFound);
        }
        if self.cancel.is_some() {
            return Err(Refusal::ParentCancelled);
        }
        if self.outcome().is_some() {
            return Err(Refusal::ParentDone);
        }
        Ok(())
    }

    /// Whether a cancel of its parent would still stop it: a child that goes on, that nobody has cancelled
    /// yet, and whose method can be cancelled.
    #[must_use]
    pub fn would_follow_parent(&self) -> bool {
        self.parent_operation.is_some()
            && self.cancel.is_none()
            && self.policy.cancellable
            && self.outcome().is_none()
    }

    /// What each child is to be asked once this operation is cancelled; `None` while it is not.
    #[must_use]
    pub fn cascade(&self) -> Option<Command> {
        let cancel = self.cancel.as_ref()?;
        let what = match cancel.cause {
            Cause::Client => "was cancelled",
            Cause::Deadline => "missed its deadline",
            Cause::Superseded => "was superseded",
        };
        let mut reason = format!("parent operation \"{}\" {what}", self.name);
        if !cancel.reason.is_empty() {
            reason = format!("{reason}: {}", cancel.reason);
        }
        let mut end = reason.len().min(REASON_BYTES_MAX);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        reason.truncate(end);
        Some(Command::Follow {
            parent: self.name.clone(),
            cause: cancel.cause,
            actor: cancel.actor.clone(),
            reason: reason.into(),
        })
    }
}

pub(crate) fn follow(
    operation: &Operation,
    parent: &OperationName,
    cause: Cause,
    actor: Arc<str>,
    reason: Arc<str>,
    now: Timestamp,
) -> Result<Applied, Refusal> {
    let child = operation.parent_operation.as_ref() == Some(parent);
    if !child || !operation.would_follow_parent() {
        return Err(Refusal::NotDue);
    }
    let mut next = Next::from(operation, now);
    next.stop(cause, actor, reason);
    Ok(next.changed())
}

pub(crate) fn detach(
    operation: &Operation,
    actor: Arc<str>,
    now: Timestamp,
) -> Result<Applied, Refusal> {
    let mut next = Next::from(operation, now);
    match next.operation.parent_operation.take() {
        Some(parent) if operation.outcome().is_none() => {
            next.event(EventKind::Detached { parent, actor });
            Ok(next.changed())
        }
        Some(_) | None => Ok(unchanged(operation, Vec::new())),
    }
}
