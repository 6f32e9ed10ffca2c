//! Parallel starts on one resource: who may start while another operation is under way there.
//!
//! Asked in the transaction of the start, about each operation that the store finds on the same resource.

use std::sync::Arc;

use crate::apply::apply;
use crate::command::{Applied, Command, Refusal};
use crate::operation::{Cause, Operation};
use crate::time::Timestamp;

/// What a start means for the operations that are under way on the same resource. Those whose method says
/// [`Parallel::Allow`] take no part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Parallel {
    /// Nothing: they go on side by side.
    #[default]
    Allow,
    /// The start is refused while there is one.
    Refuse,
    /// Those of the same method are superseded; one of another method refuses the start.
    Supersede,
}

impl Operation {
    /// The resource that this operation has for itself, by API and name; `None` when it is done, acts on no
    /// resource, or lets others act beside it.
    #[must_use]
    pub fn claim_on(&self) -> Option<(&Arc<str>, &Arc<str>)> {
        let alone = match self.policy.parallel {
            Parallel::Allow => false,
            Parallel::Refuse | Parallel::Supersede => true,
        };
        let live = self.outcome().is_none() && !self.target.is_empty();
        (alone && live).then_some((&self.api, &self.target))
    }
}

/// Whether `new` may start beside `rival`, and what becomes of the rival: `None` when it stays as it is.
/// Refused with [`Refusal::TargetBusy`].
pub fn meet(
    rival: &Operation,
    new: &Operation,
    now: Timestamp,
) -> Result<Option<Applied>, Refusal> {
    if rival.name == new.name || rival.claim_on().is_none() || rival.claim_on() != new.claim_on() {
        return Ok(None);
    }
    let may_be_superseded = rival.method == new.method && rival.policy.cancellable;
    if new.policy.parallel != Parallel::Supersede || !may_be_superseded {
        return Err(Refusal::TargetBusy);
    }
    if rival.cancel.is_some() {
        return Ok(None);
    }
    let reason = format!("superseded by operation \"{}\"", new.name).into();
    let actor = new.actor.clone();
    apply(rival, Command::Cancel { cause: Cause::Superseded, actor, reason }, now).map(Some)
}
