//! What a call came to, for its record: filled in where the store has answered, read where the call ends.

use std::sync::Arc;

use longhaul_core::{Applied, EventKind, OperationName};
use parking_lot::Mutex;

/// What a call came to. Cheap to clone; all clones are one. Keeps nothing unless somebody wants to know.
#[derive(Clone, Debug, Default)]
pub struct Made(Option<Arc<Mutex<Option<Facts>>>>);

/// What a commit came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The operation it was about.
    pub operation: OperationName,
    /// Its API.
    pub api: Arc<str>,
    /// It was started by this call, and not found by its `request_id`.
    pub started: bool,
    /// What became of a cancel; `None` for other calls.
    pub cancel: Option<CancelCame>,
    /// Who asked for the cancel; empty for other calls.
    pub actor: Arc<str>,
    /// What was said along with the cancel.
    pub reason: Arc<str>,
}

/// What became of a cancel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelCame {
    /// It is the one that counts.
    Accepted,
    /// One was accepted before.
    Repeated,
    /// The operation had ended.
    AfterDone,
}

impl CancelCame {
    /// As records spell it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "ACCEPTED",
            Self::Repeated => "REPEATED",
            Self::AfterDone => "AFTER_DONE",
        }
    }
}

impl Made {
    /// For a call whose record is kept.
    #[must_use]
    pub fn wanted() -> Self {
        Self(Some(Arc::default()))
    }

    /// The store has answered.
    pub fn note(&self, applied: &Applied) {
        if let Some(facts) = &self.0 {
            *facts.lock() = Some(Facts::of(applied));
        }
    }

    /// What was noted; `None` when nothing was.
    #[must_use]
    pub fn facts(&self) -> Option<Facts> {
        self.0.as_ref()?.lock().clone()
    }
}

impl Facts {
    /// Reads them from a commit.
    #[must_use]
    pub fn of(applied: &Applied) -> Self {
        let operation = &applied.operation;
        let mut facts = Self {
            operation: operation.name.clone(),
            api: operation.api.clone(),
            started: false,
            cancel: None,
            actor: "".into(),
            reason: "".into(),
        };
        for event in &applied.events {
            match &event.kind {
                EventKind::Started => facts.started = true,
                EventKind::CancelRequested { actor, reason, .. } => {
                    facts.cancel = Some(CancelCame::Accepted);
                    (facts.actor, facts.reason) = (actor.clone(), reason.clone());
                }
                EventKind::CancelRepeated { actor, reason } => {
                    let done = operation.outcome().is_some();
                    let came = if done { CancelCame::AfterDone } else { CancelCame::Repeated };
                    facts.cancel = Some(came);
                    (facts.actor, facts.reason) = (actor.clone(), reason.clone());
                }
                EventKind::Claimed { .. }
                | EventKind::Progressed
                | EventKind::LeaseRegained { .. }
                | EventKind::GatePassed
                | EventKind::CancelDelivered
                | EventKind::CancelAcknowledged
                | EventKind::Retrying { .. }
                | EventKind::Released { .. }
                | EventKind::LeaseExpired { .. }
                | EventKind::CleanupStarted
                | EventKind::Finished { .. }
                | EventKind::Detached { .. }
                | EventKind::Deleted { .. }
                | EventKind::Forgotten => {}
            }
        }
        facts
    }
}
