//! What a handler can say and hear while it works.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use longhaul_wire::v1::desired_state::Reason;
use longhaul_wire::v1::{DesiredState, Effects, Gate, Progress, Stopped, report_item::Action};
use prost_types::Any;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::Unfinished;
use super::live::{Live, Outbox};

/// One operation's side of the worker. Cheap to clone; may outlive the handler, then says nothing.
#[derive(Clone)]
pub struct Context {
    pub(super) live: Arc<Live>,
    pub(super) shared: Arc<Shared>,
    /// Checkpoint and outside work of the attempts before.
    pub(super) earlier: Arc<(Vec<u8>, String)>,
}

/// Why work is not wanted any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// The worker itself is shutting down.
    WorkerShutdown,
    /// A client asked.
    ClientCancel,
    /// The operation's deadline passed.
    Deadline,
    /// A newer operation took its place.
    Superseded,
    /// The server asked, for a reason that this version does not know.
    Unknown,
    /// The lease ran out or another claim holds the operation: reports are not accepted any more.
    LeaseLost,
    /// The operation is done without this worker.
    Done,
    /// The operation is gone.
    Deleted,
}

/// The wish to stop, in full.
#[derive(Clone, Debug, PartialEq)]
pub struct Cancellation {
    /// What made it so.
    pub why: Why,
    /// Who asked; may be empty.
    pub actor: String,
    /// What they said; may be empty.
    pub message: String,
    /// When it was asked, by the server's clock.
    pub asked_at: Option<SystemTime>,
    /// By when the handler must have stopped, by the server's clock.
    pub deadline: Option<SystemTime>,
}

/// Why something that a handler wanted kept was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReportError {
    /// The operation is no longer this worker's.
    Lost,
    /// The server refused; nothing was changed.
    Refused {
        /// A google.rpc.Code.
        code: i32,
        /// Upper-case reason, such as `GATE_CLOSED`.
        reason: String,
        /// What was wrong.
        message: String,
    },
}

impl Context {
    /// Full name of the operation.
    #[must_use]
    pub fn operation(&self) -> &str {
        &self.live.operation
    }

    /// Where the last attempt was; empty at first.
    #[must_use]
    pub fn earlier_checkpoint(&self) -> &[u8] {
        &self.earlier.0
    }

    /// Work outside that an earlier attempt started; empty if none.
    #[must_use]
    pub fn earlier_ref(&self) -> &str {
        &self.earlier.1
    }

    /// What a handler answers when it stopped as asked: what it left behind, and a word on it.
    pub fn cancelled_with(&self, effects: Effects, message: impl Into<String>) -> Unfinished {
        Unfinished::Stopped(Stopped { effects: effects.into(), message: message.into() })
    }

    /// Says that `step` of `of` steps are finished. Never waits.
    pub fn step(&self, step: u32, of: u32) {
        self.progress(Progress { step, steps: of, ..Progress::default() });
    }

    /// Resolves when the work is not wanted any more; at once if it already is not.
    pub async fn cancelled(&self) {
        self.live.told().cancelled().await;
    }

    /// A token that fires when the work is not wanted any more. Cancelling it cancels nothing else.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.live.told().child_token()
    }

    /// Why the work is not wanted any more; `None` while it is. The gravest reason heard so far.
    #[must_use]
    pub fn cancellation(&self) -> Option<Cancellation> {
        self.live.cancellation()
    }

    /// Says how far the work is. Never waits; of several in quick succession the last is sent.
    /// A percentage that is no number from 0 to 100 is brought into that range.
    pub fn progress(&self, mut progress: Progress) {
        progress.percent =
            progress.percent.filter(|percent| !percent.is_nan()).map(|p| p.clamp(0.0, 100.0));
        self.say(|outbox| outbox.item.progress = Some(progress));
    }

    /// Replaces the operation's metadata; must be of the method's declared type. Never waits; of several
    /// in quick succession the last is sent.
    pub fn metadata(&self, metadata: Any) {
        self.say(|outbox| outbox.item.metadata = Some(metadata));
    }

    /// Keeps where a later attempt should go on, up to 1 MiB. Returns when it is durable.
    pub async fn checkpoint(&self, checkpoint: Vec<u8>) -> Result<(), ReportError> {
        let kept = self.live.ask(&self.shared, |outbox| outbox.item.checkpoint = Some(checkpoint));
        kept.await.map(|_| ())
    }

    /// Notes work that is about to be started outside, up to 1 KiB, so that a later attempt or cleanup
    /// can find it. Returns when it is durable.
    pub async fn external_ref(&self, reference: impl Into<String>) -> Result<(), ReportError> {
        let reference = reference.into();
        let kept = self.live.ask(&self.shared, |outbox| outbox.item.external_ref = Some(reference));
        kept.await.map(|_| ())
    }

    /// Asks whether an irreversible step may be taken. `Ok`: it may, and a cancel that comes later will
    /// not undo it. An error: it may not; stop and say so.
    pub async fn gate(&self) -> Result<(), ReportError> {
        let gate = Action::Gate(Gate {});
        let answer = self.live.ask(&self.shared, |outbox| outbox.item.action = Some(gate)).await?;
        if answer.gate_passed {
            return Ok(());
        }
        Err(ReportError::Refused {
            code: 10,
            reason: "GATE_CLOSED".to_owned(),
            message: "the server did not let the step through the gate".to_owned(),
        })
    }

    fn say(&self, change: impl FnOnce(&mut Outbox)) {
        if self.live.change(change) {
            self.shared.report(&self.live);
        }
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("operation", &self.live.operation).finish_non_exhaustive()
    }
}

impl Why {
    /// How grave: a graver reason replaces a lighter one.
    pub(super) const fn gravity(self) -> u8 {
        match self {
            Self::WorkerShutdown => 0,
            Self::ClientCancel | Self::Deadline | Self::Superseded | Self::Unknown => 1,
            Self::LeaseLost | Self::Done | Self::Deleted => 2,
        }
    }
}

impl Cancellation {
    /// A wish of nobody in particular.
    pub(super) fn new(why: Why) -> Self {
        let (actor, message) = (String::new(), String::new());
        Self { why, actor, message, asked_at: None, deadline: None }
    }

    /// What the server wrote. `fallback` stands for a reason that was left out.
    pub(super) fn read(desired: &DesiredState, fallback: Why) -> Self {
        let why = match desired.reason() {
            Reason::Unspecified => fallback,
            Reason::ClientCancel => Why::ClientCancel,
            Reason::Deadline => Why::Deadline,
            Reason::Superseded => Why::Superseded,
            Reason::LeaseLost => Why::LeaseLost,
            Reason::Done => Why::Done,
            Reason::Deleted => Why::Deleted,
        };
        let moment = |at: &Option<prost_types::Timestamp>| (*at)?.try_into().ok();
        Self {
            why,
            actor: desired.actor.clone(),
            message: desired.message.clone(),
            asked_at: moment(&desired.request_time),
            deadline: moment(&desired.deadline),
        }
    }
}

impl fmt::Display for ReportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost => f.write_str("the operation is no longer this worker's"),
            Self::Refused { reason, message, .. } => write!(f, "{reason}: {message}"),
        }
    }
}

impl std::error::Error for ReportError {}
