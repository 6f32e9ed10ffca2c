//! From commits to entries: the last one of each operation, and cancels that nobody called for just now.

use std::sync::Arc;

use longhaul_core::{Applied, Error, EventKind, Operation, OperationName, Outcome};
use longhaul_store::{ClaimHint, Listener};

use crate::access::Facts;
use crate::audit::{Asked, Audit, Entry, Log, OfOperation};
use crate::watch::Watch;

/// The method of a cancel that came by way of another operation.
const CANCEL: &str = "google.longrunning.Operations.CancelOperation";

/// Hears of every commit, and passes it on.
pub(crate) struct Ends {
    pub(crate) audit: Arc<Audit>,
    pub(crate) watch: Arc<Watch>,
}

impl Listener for Ends {
    fn committed(&self, change: &Applied) {
        for event in &change.events {
            if let EventKind::Finished { outcome } = &event.kind {
                self.audit.note_end(change, outcome);
            }
        }
        self.watch.committed(change);
    }

    fn claimable(&self, hint: &ClaimHint) {
        self.watch.claimable(hint);
    }

    fn changed_elsewhere(&self, name: &OperationName, revision: u64) {
        self.watch.changed_elsewhere(name, revision);
    }

    fn missed(&self) {
        self.watch.missed();
    }
}

impl Audit {
    /// The last entry of an operation: how it ended, under the name of whoever started it.
    fn note_end(&self, change: &Applied, outcome: &Outcome) {
        let operation = &change.operation;
        if !self.config().admin_activity || operation.is_tombstone() {
            return;
        }
        let at = operation.end_time().unwrap_or(operation.update_time);
        let (service, method) = (operation.api.clone(), operation.method.clone());
        let mut entry = Entry::new(Log::Activity, at, service, method);
        let name: Arc<str> = operation.name.as_str().into();
        entry.resource = name.clone();
        entry.principal = operation.actor.clone();
        entry.operation = Some(OfOperation { id: name, first: false, last: true });
        entry.status = Some(match outcome {
            Outcome::Response(_) => (0, "".into()),
            Outcome::Error(status) => (status.code.number(), status.message.as_str().into()),
        });
        if let Some(cancel) = &operation.cancel {
            entry.facts.push(("cancelActor", cancel.actor.clone()));
            entry.facts.push(("cancelReason", cancel.reason.clone()));
        }
        self.note(entry);
    }

    /// A cancel that another operation carried here: its parent's, under `parent`, or a bulk cancel, under
    /// `bulkCancel`.
    pub(crate) fn note_carried(&self, change: &Applied, by: (&'static str, &OperationName)) {
        let operation = &change.operation;
        let facts = Facts::of(change);
        let Some(came) = facts.cancel.filter(|_| self.config().admin_activity) else { return };
        let at = operation.update_time.max(self.clock.now());
        let mut entry = Entry::new(Log::SystemEvent, at, facts.api, CANCEL.into());
        let name: Arc<str> = operation.name.as_str().into();
        entry.resource = name.clone();
        entry.principal = facts.actor;
        entry.operation = Some(OfOperation { id: name, first: false, last: false });
        entry.status = Some((0, "".into()));
        entry.facts = vec![
            ("cancel", came.name().into()),
            ("reason", facts.reason),
            (by.0, by.1.as_str().into()),
        ];
        self.note(entry);
    }

    /// Records that a cancel was not carried to an operation, for want of a permission of who began it.
    pub(crate) fn note_withheld(
        &self,
        operation: &Operation,
        actor: &Arc<str>,
        refused: &Error,
        by: (&'static str, &OperationName),
    ) {
        if !self.config().policy_denied {
            return;
        }
        let (at, name) = (self.clock.now(), Arc::<str>::from(operation.name.as_str()));
        let mut entry = Entry::new(Log::Policy, at, operation.api.clone(), CANCEL.into());
        entry.principal = actor.clone();
        entry.operation = Some(OfOperation { id: name.clone(), first: false, last: false });
        entry.status = Some((refused.code().number(), refused.message.as_str().into()));
        entry.facts = vec![(by.0, by.1.as_str().into())];
        if let Some(permission) = refused.metadata.get("permission") {
            let (permission, resource) = (permission.as_str().into(), name.clone());
            entry.asked = vec![Asked { permission, resource, granted: false }];
        }
        entry.resource = name;
        self.note_denied(entry);
    }
}
