//! What can be asked of an operation, what follows from it, and how it can be refused.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Reason};
use crate::name::OperationName;
use crate::operation::{
    Cause, Effects, Epoch, Operation, Outcome, Payload, Policy, Progress, RequestId, Status,
};
use crate::time::Timestamp;

/// Everything that makes a new operation; identifiers are drawn by the caller.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the fields are those of Operation")]
pub struct Start {
    pub name: OperationName,
    pub uid: u128,
    pub api: Arc<str>,
    pub method: Arc<str>,
    pub queue: Arc<str>,
    pub parent: Arc<str>,
    pub target: Arc<str>,
    pub actor: Arc<str>,
    pub request: Payload,
    pub metadata: Payload,
    pub traceparent: Arc<str>,
    pub parent_operation: Option<OperationName>,
    pub deadline: Option<Timestamp>,
    pub start_by: Option<Timestamp>,
    pub request_id: Option<RequestId>,
    pub policy: Policy,
}

/// One thing asked of one operation.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// A worker takes it, main work or cleanup, whichever waits.
    Claim {
        /// Who, as the worker calls itself.
        worker: Arc<str>,
        /// What the worker calls this claim; empty for none.
        claim_id: Arc<str>,
        /// Whose credential the claim came with; empty where nobody was asked.
        holder: Arc<str>,
        /// How long the worker may be silent.
        lease: Duration,
    },
    /// A worker says that it is alive, and perhaps how far it is.
    Renew {
        /// Which claim speaks.
        epoch: Epoch,
        /// How long the worker may be silent from now.
        lease: Duration,
        /// What it says.
        changes: Changes,
    },
    /// A worker asks to take an irreversible step.
    PassGate {
        /// Which claim speaks.
        epoch: Epoch,
        /// How long the worker may be silent from now.
        lease: Duration,
        /// What it says along with it.
        changes: Changes,
    },
    /// A worker has ended.
    Finish {
        /// Which claim speaks.
        epoch: Epoch,
        /// How it ended.
        finish: Finish,
        /// What it says along with it.
        changes: Changes,
        /// 0 to 255: spreads a retry.
        jitter: u8,
    },
    /// A worker gives it back unfinished, to be claimed again at once; no attempt is counted.
    Release {
        /// Which claim speaks.
        epoch: Epoch,
        /// What it says along with it.
        changes: Changes,
    },
    /// Somebody wants it stopped.
    Cancel {
        /// Why.
        cause: Cause,
        /// Who asks; may be empty.
        actor: Arc<str>,
        /// What they say; may be empty.
        reason: Arc<str>,
    },
    /// Its parent was cancelled, and so is it. Refused with [`Refusal::NotDue`] when it is not that parent's
    /// child any more, is done, was cancelled before, or cannot be cancelled: nothing is left to follow.
    Follow {
        /// The parent.
        parent: OperationName,
        /// Why the parent was cancelled.
        cause: Cause,
        /// Who asked for that; may be empty.
        actor: Arc<str>,
        /// Names the parent, and what was said there.
        reason: Arc<str>,
    },
    /// It is to go on whatever becomes of its parent; a cancel that has reached it stays.
    Detach {
        /// Who asks; may be empty.
        actor: Arc<str>,
    },
    /// A client is no longer interested. Never changes the work.
    Delete {
        /// Who asks; may be empty.
        actor: Arc<str>,
    },
    /// The server was away: whoever held a lease gets a whole new one, so that an outage of ours does not
    /// count as silence of the workers.
    Recover {
        /// How long a worker may be silent from now.
        lease: Duration,
    },
    /// Time has passed: act on whatever is due.
    Tick {
        /// 0 to 255: spreads a retry.
        jitter: u8,
    },
}

impl Command {
    /// The command's name, for logs and tables.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Claim { .. } => "Claim",
            Self::Renew { .. } => "Renew",
            Self::PassGate { .. } => "PassGate",
            Self::Finish { .. } => "Finish",
            Self::Release { .. } => "Release",
            Self::Cancel { .. } => "Cancel",
            Self::Follow { .. } => "Follow",
            Self::Detach { .. } => "Detach",
            Self::Delete { .. } => "Delete",
            Self::Recover { .. } => "Recover",
            Self::Tick { .. } => "Tick",
        }
    }
}

/// What a report may change beside its main purpose. `None` leaves a value as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// New metadata, of the declared type.
    pub metadata: Option<Payload>,
    /// New progress.
    pub progress: Option<Progress>,
    /// New checkpoint.
    pub checkpoint: Option<Arc<[u8]>>,
    /// Work outside that is about to be started.
    pub external_ref: Option<Arc<str>>,
    /// The worker has heard the cancel.
    pub acknowledged: bool,
}

/// How a worker says that it ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Finish {
    /// Done, with the declared response.
    Succeeded(Payload),
    /// Failed.
    Failed {
        /// With what; its code is not OK.
        status: Status,
        /// Whether another attempt may succeed.
        retryable: bool,
        /// What it left behind, where the worker knows.
        effects: Option<Effects>,
    },
    /// Stopped because it was told to; or, in a cleanup, cleaned up.
    Cancelled {
        /// What it left behind.
        effects: Effects,
        /// A word for whoever reads the error; may be empty.
        message: String,
    },
}

/// What a command led to.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The whole new value; equal to the old one, revision included, when nothing changed.
    pub operation: Operation,
    /// What others must hear. May be non-empty though nothing changed: a repeated cancel is audited.
    pub events: Vec<Event>,
    /// The row is to be removed instead of written.
    pub forget: bool,
}

/// Something that happened, in the past tense; becomes history, watch message, metric and log line.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// What.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum EventKind {
    /// A client started it.
    Started,
    /// A worker claimed it.
    Claimed {
        /// Who.
        worker: Arc<str>,
        /// Under which token.
        epoch: Epoch,
        /// For cleaning up rather than for the main work.
        cleanup: bool,
    },
    /// A worker said how far it is.
    Progressed,
    /// A worker that had lost its lease came back before anyone else claimed.
    LeaseRegained {
        /// Who.
        worker: Arc<str>,
    },
    /// The irreversible step was allowed.
    GatePassed,
    /// A cancel was accepted.
    CancelRequested {
        /// Why.
        cause: Cause,
        /// Who.
        actor: Arc<str>,
        /// What they said.
        reason: Arc<str>,
    },
    /// A cancel came after another, or after the end; it is noted, and changes nothing else.
    CancelRepeated {
        /// Who.
        actor: Arc<str>,
        /// What they said.
        reason: Arc<str>,
    },
    /// An answer that carries the cancel went to the worker.
    CancelDelivered,
    /// The worker has heard the cancel.
    CancelAcknowledged,
    /// It waits to be tried again.
    Retrying {
        /// Not before this moment.
        not_before: Timestamp,
        /// What the last attempt failed with.
        status: Status,
    },
    /// A worker gave it back.
    Released {
        /// Who.
        worker: Arc<str>,
    },
    /// A worker was silent for too long.
    LeaseExpired {
        /// Who.
        worker: Arc<str>,
    },
    /// The main work is over or lost; cleaning up begins.
    CleanupStarted,
    /// It ended.
    Finished {
        /// How.
        outcome: Outcome,
    },
    /// It has no parent any more.
    Detached {
        /// Whose child it was.
        parent: OperationName,
        /// Who asked.
        actor: Arc<str>,
    },
    /// A client deleted it.
    Deleted {
        /// Who.
        actor: Arc<str>,
    },
    /// Its row went.
    Forgotten,
}

impl EventKind {
    /// The event's name, for history, logs and metrics.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Started => "STARTED",
            Self::Claimed { .. } => "CLAIMED",
            Self::Progressed => "PROGRESSED",
            Self::LeaseRegained { .. } => "LEASE_REGAINED",
            Self::GatePassed => "GATE_PASSED",
            Self::CancelRequested { .. } => "CANCEL_REQUESTED",
            Self::CancelRepeated { .. } => "CANCEL_REPEATED",
            Self::CancelDelivered => "CANCEL_DELIVERED",
            Self::CancelAcknowledged => "CANCEL_ACKNOWLEDGED",
            Self::Retrying { .. } => "RETRYING",
            Self::Released { .. } => "RELEASED",
            Self::LeaseExpired { .. } => "LEASE_EXPIRED",
            Self::CleanupStarted => "CLEANUP_STARTED",
            Self::Finished { .. } => "FINISHED",
            Self::Detached { .. } => "DETACHED",
            Self::Deleted { .. } => "DELETED",
            Self::Forgotten => "FORGOTTEN",
        }
    }
}

/// The rules say no; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// There is none, or none that clients may see.
    NotFound,
    /// Another operation already has this name.
    NameTaken,
    /// The same `request_id` came with a different request.
    RequestIdReused,
    /// It cannot be claimed now.
    NotClaimable,
    /// The report's epoch does not hold it.
    LeaseLost,
    /// A cancel came before the gate.
    GateClosed,
    /// A worker said cancelled, but nobody asked.
    CancelNotRequested,
    /// A failure without an error code.
    InvalidOutcome,
    /// The method cannot be cancelled.
    NotCancellable,
    /// It is done, and the API is strict about it.
    AlreadyDone,
    /// It is not done, and the API is strict about it.
    NotDone,
    /// Nothing is due.
    NotDue,
    /// It would have more bytes than one answer can carry to a worker.
    TooLarge,
    /// Another operation is under way on its resource.
    TargetBusy,
    /// The operation named as parent does not exist, or clients cannot see it.
    ParentNotFound,
    /// The operation named as parent was asked to stop.
    ParentCancelled,
    /// The operation named as parent is done.
    ParentDone,
    /// Its own access policy was set since the writer read it.
    PolicyChanged,
}

impl Refusal {
    /// The refusal as a caller hears it, about the operation called `name`: of the three about a parent,
    /// the parent's name.
    #[must_use]
    pub fn into_error(self, name: &OperationName) -> Error {
        let (reason, message) = match self {
            Self::PolicyChanged => (
                Reason::PolicyChanged,
                format!(
                    "the policy of operation \"{name}\" was changed since it was read; read it again and repeat the change"
                ),
            ),
            Self::NotFound => (
                Reason::OperationNotFound,
                format!(
                    "operation \"{name}\" does not exist; it may have been deleted or have expired"
                ),
            ),
            Self::NameTaken => {
                (Reason::Internal, format!("operation \"{name}\" already exists; repeat the call"))
            }
            Self::RequestIdReused => (
                Reason::RequestIdReused,
                format!(
                    "the request_id was already used for operation \"{name}\" with a different request; use a new request_id"
                ),
            ),
            Self::NotClaimable | Self::LeaseLost | Self::NotDue => (
                Reason::LeaseLost,
                format!(
                    "operation \"{name}\" is not held under the given epoch; stop working on it"
                ),
            ),
            Self::GateClosed => (
                Reason::GateClosed,
                format!(
                    "operation \"{name}\" is being cancelled; do not take the irreversible step, stop and report cancelled"
                ),
            ),
            Self::CancelNotRequested => (
                Reason::CancelNotRequested,
                format!(
                    "nobody asked to cancel operation \"{name}\"; report a response or another error"
                ),
            ),
            Self::InvalidOutcome => (
                Reason::InvalidOutcome,
                format!(
                    "the error reported for operation \"{name}\" has code 0 (OK); give a code from 1 to 16"
                ),
            ),
            Self::NotCancellable => (
                Reason::CancelUnsupported,
                format!("operation \"{name}\" cannot be cancelled: its method does not support it"),
            ),
            Self::AlreadyDone => (
                Reason::OperationDone,
                format!("operation \"{name}\" is already done; read it with GetOperation"),
            ),
            Self::NotDone => (
                Reason::OperationNotDone,
                format!(
                    "operation \"{name}\" is still running; cancel it or wait before deleting it"
                ),
            ),
            Self::TooLarge => (
                Reason::BodyTooLarge,
                format!(
                    "with this, operation \"{name}\" would have more bytes than limits.claim_bytes_max lets one answer carry to a worker; keep large data elsewhere and refer to it"
                ),
            ),
            Self::TargetBusy => (
                Reason::TargetBusy,
                "another operation is under way on the same resource; wait for it or cancel it, then repeat"
                    .to_owned(),
            ),
            Self::ParentNotFound => (
                Reason::OperationNotFound,
                format!(
                    "operation \"{name}\", named as parent, does not exist; it may have been deleted or have expired"
                ),
            ),
            Self::ParentCancelled => (
                Reason::ParentCancelled,
                format!(
                    "operation \"{name}\", named as parent, is cancelled; do not start more of its work"
                ),
            ),
            Self::ParentDone => (
                Reason::ParentDone,
                format!("operation \"{name}\", named as parent, is done; start without a parent"),
            ),
        };
        Error::new(reason, message).with("operation", name.as_str())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
