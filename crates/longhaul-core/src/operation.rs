//! The operation: one value, everything known about one long-running piece of work.
//!
//! Owns what an operation is and the questions that need only the value itself; what a command does
//! to it is `apply.rs`.

use std::sync::Arc;
use std::time::Duration;

use crate::error::Code;
use crate::grants::Grants;
use crate::name::OperationName;
use crate::retry::Retry;
use crate::rivals::Parallel;
use crate::time::Timestamp;

/// The fencing token: +1 on every claim, and when the server gives up what a claim left open; never reset;
/// 0 before the first claim.
pub type Epoch = u64;

/// Room for what does not vary much when an operation is told: times, numbers, lengths, the response's type.
const TOLD_BYTES_BESIDE: usize = 2048;

/// A message of a known type, in protobuf's binary form; never decoded in this room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    /// Full type name without a leading dot or URL, such as `google.protobuf.Empty`.
    pub type_name: Arc<str>,
    /// The encoded message.
    pub value: Arc<[u8]>,
}

/// A failure as an operation carries it. Source: google/rpc/status.proto.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Never [`Code::Ok`].
    pub code: Code,
    /// For the developer who reads it, English.
    pub message: String,
    /// Typed details, at most one of each type.
    pub details: Vec<Payload>,
}

/// How an operation ended: exactly one of response and error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The method's declared response.
    Response(Payload),
    /// What went wrong; `CANCELLED` when a client's cancel took effect.
    Error(Status),
}

/// The right of one worker to report, until a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Who claimed it, as the worker calls itself.
    pub worker: Arc<str>,
    /// What the worker called the claim, so that a repeat of it finds this lease; empty for none.
    pub claim_id: Arc<str>,
    /// When it was claimed.
    pub claimed_at: Timestamp,
    /// Until when reports are expected. Only a committed sweep ends a lease: a late report that comes
    /// first is still accepted.
    pub expires_at: Timestamp,
}

/// Where an operation stands in its life.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// Waits for a worker.
    Queued {
        /// No claim before this moment.
        not_before: Timestamp,
        /// The lease that ran out, if that is why it waits: its holder may still report, until the
        /// next claim.
        lost: Option<Lease>,
    },
    /// A worker has it.
    Running {
        /// The worker's right to report.
        lease: Lease,
    },
    /// A worker has it and was told, or is about to be told, to stop.
    Cancelling {
        /// The worker's right to report.
        lease: Lease,
    },
    /// The main work is over or lost; what it left behind is being undone.
    CleaningUp {
        /// No claim before this moment.
        not_before: Timestamp,
        /// The cleaning worker's right to report; `None` while it waits for one.
        lease: Option<Lease>,
        /// The cleanup lease that ran out: its holder may still report, until the next claim.
        lost: Option<Lease>,
        /// Cleanup attempts made so far.
        attempts: u32,
        /// When cleaning up is given up.
        budget_end: Timestamp,
    },
    /// Over, for ever.
    Done {
        /// Response or error.
        outcome: Outcome,
        /// When it ended.
        at: Timestamp,
    },
}

impl State {
    /// The state's name, as logs, metrics and operators see it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Queued { .. } => "QUEUED",
            Self::Running { .. } => "RUNNING",
            Self::Cancelling { .. } => "CANCELLING",
            Self::CleaningUp { .. } => "CLEANING_UP",
            Self::Done { .. } => "DONE",
        }
    }
}

/// Why an operation is being stopped. Decides the code it ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// A client asked.
    Client,
    /// Its deadline passed.
    Deadline,
    /// A newer operation took its place.
    Superseded,
}

impl Cause {
    /// 1 only if a client asked, 4 for a missed deadline, 10 for a superseded operation.
    #[must_use]
    pub const fn code(self) -> Code {
        match self {
            Self::Client => Code::Cancelled,
            Self::Deadline => Code::DeadlineExceeded,
            Self::Superseded => Code::Aborted,
        }
    }
}

/// The first accepted request to stop; later ones change nothing here but `client_asked`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cancel {
    /// Why.
    pub cause: Cause,
    /// When it was committed.
    pub at: Timestamp,
    /// Who asked, as the edge knows them; empty when nobody is known.
    pub actor: Arc<str>,
    /// What they said; may be empty.
    pub reason: Arc<str>,
    /// By when the main attempt must have ended.
    pub deadline: Timestamp,
    /// A client asked, be it first or after another cause: `requested_cancellation` on the wire.
    pub client_asked: bool,
    /// When an answer that carried the request first left for the worker.
    pub delivered_at: Option<Timestamp>,
    /// When the worker first said that it has heard.
    pub acknowledged_at: Option<Timestamp>,
}

impl Cancel {
    /// Notes the first delivery, and says when it was. Servers' clocks differ a little: never before the request.
    pub(crate) fn deliver(&mut self, now: Timestamp) -> Timestamp {
        *self.delivered_at.get_or_insert(now.max(self.at))
    }
}

/// What an operation that did not succeed left behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Effects {
    /// No attempt ever started.
    #[default]
    NotStarted,
    /// The worker says: nothing was changed.
    None,
    /// The worker says: changes were made and undone.
    Undone,
    /// The worker says: changes were made and remain.
    Partial,
    /// Nobody can say.
    Unknown,
}

/// How far the work is, in a shape that every API shares.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// 0 to 100; `None` when the worker cannot say.
    pub percent: Option<f32>,
    /// Steps finished, at most `steps`.
    pub step: u32,
    /// Steps in all; 0 when unknown.
    pub steps: u32,
    /// What is being done, for people.
    pub message: Arc<str>,
}

/// A caller's idempotency key. Source: AIP-155.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestId {
    /// As the caller gave it; not empty.
    pub value: Arc<str>,
    /// Until when a repeat returns this operation.
    pub until: Timestamp,
}

/// The limits a method sets for its operations, fixed when one starts.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Whether cancellation is supported at all.
    pub cancellable: bool,
    /// A cancel or delete that comes at the wrong time is refused rather than accepted.
    pub strict_cancel_when_done: bool,
    /// Whether a running operation may not be deleted.
    pub strict_delete_when_running: bool,
    /// A success that arrives after an accepted cancel becomes code 1 all the same.
    pub discard_success_after_cancel: bool,
    /// Longest time from an accepted cancel to the end of the main attempt.
    pub cancel_timeout: Duration,
    /// Longest time for cleaning up; `None` when the method has no cleanup.
    pub cleanup_budget: Option<Duration>,
    /// How long a done operation is kept.
    pub retention: Duration,
    /// What a start means for others on the same resource.
    pub parallel: Parallel,
    /// How often and how soon it is tried again.
    pub retry: Retry,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            cancellable: true,
            strict_cancel_when_done: false,
            strict_delete_when_running: false,
            discard_success_after_cancel: false,
            cancel_timeout: Duration::from_secs(60),
            cleanup_budget: None,
            retention: Duration::from_secs(30 * 24 * 3600),
            parallel: Parallel::Allow,
            retry: Retry::default(),
        }
    }
}

/// Everything known about one operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// Full resource name.
    pub name: OperationName,
    /// UUIDv7: never given twice, ordered by creation.
    pub uid: u128,
    /// The API it belongs to, such as `clouddeploy.googleapis.com`.
    pub api: Arc<str>,
    /// The method that started it, such as `google.cloud.deploy.v1.CloudDeploy.CreateRelease`.
    pub method: Arc<str>,
    /// The queue that workers claim it from.
    pub queue: Arc<str>,
    /// What lists find it under, such as `projects/p/locations/l`; may be empty.
    pub parent: Arc<str>,
    /// The resource it acts on; may be empty.
    pub target: Arc<str>,
    /// Who started it; may be empty.
    pub actor: Arc<str>,
    /// The whole request.
    pub request: Payload,
    /// The API's own metadata message, without the fields that the server keeps true by itself.
    pub metadata: Payload,
    /// Where it stands.
    pub state: State,
    /// The fencing token.
    pub epoch: Epoch,
    /// Claims of the main work so far, less releases; shown to people.
    pub attempt: u32,
    /// The request to stop, once there is one.
    pub cancel: Option<Cancel>,
    /// When the irreversible step was allowed.
    pub gate_passed: Option<Timestamp>,
    /// What it left behind.
    pub effects: Effects,
    /// How far the work is.
    pub progress: Option<Progress>,
    /// Where the next attempt goes on; the worker's own bytes.
    pub checkpoint: Option<Arc<[u8]>>,
    /// Work outside that this operation started, noted before it was started.
    pub external_ref: Option<Arc<str>>,
    /// Whose credential the claim of this epoch came with, so that nobody else reports on it; empty where
    /// nobody was asked, and before the first claim.
    pub holder: Arc<str>,
    /// The access policy that it has of its own, beside those of what it lies under.
    pub grants: Option<Grants>,
    /// W3C trace context of the start; may be empty.
    pub traceparent: Arc<str>,
    /// The operation that this one is part of: its cancel is this one's too.
    pub parent_operation: Option<OperationName>,
    /// By when it must be done.
    pub deadline: Option<Timestamp>,
    /// By when a worker must have claimed it for the first time.
    pub start_by: Option<Timestamp>,
    /// The caller's idempotency key.
    pub request_id: Option<RequestId>,
    /// When it was started.
    pub create_time: Timestamp,
    /// When it was first claimed.
    pub start_time: Option<Timestamp>,
    /// When it changed last.
    pub update_time: Timestamp,
    /// +1 on every change; etag and watch cursor.
    pub revision: u64,
    /// When a client deleted it: hidden since, though its row may stay.
    pub deleted: Option<Timestamp>,
    /// The method's limits.
    pub policy: Policy,
}

/// What a worker should be doing, from the row alone.
#[derive(Clone, Debug, PartialEq)]
pub enum Desired {
    /// Go on.
    Continue,
    /// Stop and say so; until when is in the cancel.
    Cancel(Cancel),
    /// Stop, nobody listens any more.
    Stop(StopReason),
}

/// Why a worker's reports are no longer wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StopReason {
    /// Another epoch holds it, or nobody.
    LeaseLost,
    /// It is done.
    Done,
    /// It is gone.
    Deleted,
}

impl Operation {
    /// The end, if it has come.
    #[must_use]
    pub fn outcome(&self) -> Option<&Outcome> {
        match &self.state {
            State::Done { outcome, .. } => Some(outcome),
            State::Queued { .. }
            | State::Running { .. }
            | State::Cancelling { .. }
            | State::CleaningUp { .. } => None,
        }
    }

    /// When it ended.
    #[must_use]
    pub fn end_time(&self) -> Option<Timestamp> {
        match &self.state {
            State::Done { at, .. } => Some(*at),
            State::Queued { .. }
            | State::Running { .. }
            | State::Cancelling { .. }
            | State::CleaningUp { .. } => None,
        }
    }

    /// When a done operation is forgotten.
    #[must_use]
    pub fn expire_time(&self) -> Option<Timestamp> {
        self.end_time().map(|at| at + self.policy.retention)
    }

    /// Whether it is only the mark of a cancel that came before its start.
    #[must_use]
    pub fn is_tombstone(&self) -> bool {
        self.method.is_empty()
    }

    /// Whether clients may see it: started, neither deleted nor past its retention.
    #[must_use]
    pub fn visible(&self, now: Timestamp) -> bool {
        !self.is_tombstone()
            && self.deleted.is_none()
            && self.expire_time().is_none_or(|end| now < end)
    }

    /// Whether a client asked for cancellation: `requested_cancellation` on the wire.
    #[must_use]
    pub fn cancel_requested(&self) -> bool {
        self.cancel.as_ref().is_some_and(|cancel| cancel.client_asked)
    }

    /// Bytes that it takes to tell a worker everything about it; never less than they really are.
    #[must_use]
    pub fn bytes_told(&self) -> usize {
        let texts = [&self.api, &self.method, &self.queue, &self.parent, &self.target];
        // Some are told twice: by themselves and in the metadata.
        let texts = texts.iter().map(|text| text.len()).sum::<usize>() + self.name.as_str().len();
        let payloads = [&self.request, &self.metadata];
        let payloads = payloads.iter().map(|it| it.type_name.len() + it.value.len()).sum::<usize>();
        let progress = self.progress.as_ref().map_or(0, |progress| progress.message.len());
        let cancel = self.cancel.as_ref().map_or(0, |it| it.actor.len() + it.reason.len());
        let checkpoint = self.checkpoint.as_ref().map_or(0, |bytes| bytes.len());
        let external_ref = self.external_ref.as_ref().map_or(0, |text| text.len());
        let words = self.traceparent.len() + external_ref + cancel + 2 * texts;
        TOLD_BYTES_BESIDE + payloads + progress + checkpoint + words
    }

    /// The lease in force, if a worker has it.
    #[must_use]
    pub fn lease(&self) -> Option<&Lease> {
        match &self.state {
            State::Running { lease } | State::Cancelling { lease } => Some(lease),
            State::CleaningUp { lease, .. } => lease.as_ref(),
            State::Queued { .. } | State::Done { .. } => None,
        }
    }

    /// From when a worker may claim it; `None` while it may not be claimed.
    #[must_use]
    pub fn claimable_from(&self) -> Option<Timestamp> {
        match &self.state {
            State::Queued { not_before, .. } => {
                (self.cancel.is_none() || self.gate_passed.is_some()).then_some(*not_before)
            }
            State::CleaningUp { not_before, lease: None, .. } => Some(*not_before),
            State::CleaningUp { lease: Some(_), .. }
            | State::Running { .. }
            | State::Cancelling { .. }
            | State::Done { .. } => None,
        }
    }

    /// When [`crate::Command::Tick`] has something to do: a lease, deadline or budget that runs out, or a
    /// row to forget. `None` when nothing will ever be due by itself.
    #[must_use]
    pub fn due_at(&self) -> Option<Timestamp> {
        let stop_at = self.cancel.as_ref().map(|cancel| cancel.deadline);
        let deadline = if self.cancel.is_none() { self.deadline } else { None };
        match &self.state {
            State::Queued { .. } => earliest([deadline, stop_at, self.unclaimed_until()]),
            State::Running { lease } => earliest([deadline, Some(lease.expires_at)]),
            State::Cancelling { lease } => earliest([stop_at, Some(lease.expires_at)]),
            State::CleaningUp { lease, budget_end, .. } => {
                earliest([Some(*budget_end), lease.as_ref().map(|lease| lease.expires_at)])
            }
            State::Done { .. } => self.purge_at(),
        }
    }

    /// When it ends because nobody has claimed it; `None` once somebody has, or when it may wait for ever.
    #[must_use]
    pub fn unclaimed_until(&self) -> Option<Timestamp> {
        let waits = self.start_time.is_none() && self.cancel.is_none();
        self.start_by.filter(|_| waits && self.outcome().is_none())
    }

    /// When the row may go: after retention, or after a delete, but never before the window of its
    /// `request_id` has ended.
    #[must_use]
    pub fn purge_at(&self) -> Option<Timestamp> {
        let hidden_at = match self.deleted {
            Some(at) => Some(at),
            None => self.expire_time(),
        }?;
        let end = self.end_time()?;
        let window_end = self.request_id.as_ref().map_or(end, |id| id.until);
        Some(hidden_at.max(end).max(window_end))
    }

    /// What the holder of `epoch` should do. Level-triggered: every channel to a worker asks this.
    #[must_use]
    pub fn desired(&self, epoch: Epoch) -> Desired {
        if epoch != self.epoch {
            return match &self.state {
                State::Done { .. } => Desired::Stop(StopReason::Done),
                State::Queued { .. }
                | State::Running { .. }
                | State::Cancelling { .. }
                | State::CleaningUp { .. } => Desired::Stop(StopReason::LeaseLost),
            };
        }
        match &self.state {
            State::Done { .. } if self.deleted.is_some() => Desired::Stop(StopReason::Deleted),
            State::Done { .. } => Desired::Stop(StopReason::Done),
            State::Queued { lost: None, .. }
            | State::CleaningUp { lease: None, lost: None, .. } => {
                Desired::Stop(StopReason::LeaseLost)
            }
            State::CleaningUp { .. } => Desired::Continue,
            State::Queued { .. } | State::Running { .. } | State::Cancelling { .. } => {
                match &self.cancel {
                    Some(cancel) => Desired::Cancel(cancel.clone()),
                    None => Desired::Continue,
                }
            }
        }
    }
}

fn earliest<const N: usize>(moments: [Option<Timestamp>; N]) -> Option<Timestamp> {
    moments.into_iter().flatten().min()
}
