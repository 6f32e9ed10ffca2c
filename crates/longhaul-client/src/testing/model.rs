//! The server of one run: one operation under the rules of `longhaul-core`, in memory.
//!
//! Owns the translation between the rules and the workers' protocol, and what is noticed on the way;
//! the rules themselves are the server's own.

use std::sync::Arc;
use std::time::Duration;

use longhaul_core as core;
use longhaul_core::{Command, Desired, Finish, Refusal, State, StopReason, Timestamp};
use longhaul_wire::v1::desired_state::{Action as Wish, Reason};
use longhaul_wire::v1::report_item::Action;
use longhaul_wire::v1::{
    Assignment, ClaimRequest, DesiredState, Effects, ReportError, ReportItem, ReportResult,
};
use parking_lot::Mutex;
use prost_types::Any;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::findings::{Disturbance, End, Problem};

const NAME: &str = "projects/test/locations/here/operations/tested";
/// How long cleaning up may take.
const CLEANUP_BUDGET: Duration = Duration::from_secs(300);
const LEASE: Duration = Duration::from_secs(30);

/// What is worked on.
pub(super) struct Setting {
    pub(super) method: String,
    pub(super) request: Any,
    pub(super) response_type: String,
    pub(super) cleanup: bool,
    pub(super) stops_within: Duration,
}

pub(super) struct Model {
    pub(super) changed: Notify,
    row: Mutex<Row>,
    began: Instant,
    request: Any,
    response_type: String,
}

struct Row {
    operation: core::Operation,
    /// The claim whose report ended the operation.
    ended_by: Option<u64>,
    cleaned_up: bool,
    /// Whoever holds the lease is dead.
    orphaned: bool,
    problems: Vec<Problem>,
}

impl Model {
    pub(super) fn new(setting: &Setting) -> Self {
        let policy = core::Policy {
            cancel_timeout: setting.stops_within,
            cleanup_budget: setting.cleanup.then_some(CLEANUP_BUDGET),
            ..core::Policy::default()
        };
        let start = core::Start {
            name: core::OperationName::parse(NAME).expect("the name is well-formed"),
            uid: 1,
            api: "test".into(),
            method: setting.method.as_str().into(),
            queue: "".into(),
            parent: "".into(),
            target: "".into(),
            actor: "".into(),
            request: payload(&setting.request),
            metadata: core::Payload::default(),
            traceparent: "".into(),
            parent_operation: None,
            deadline: None,
            start_by: None,
            request_id: None,
            policy,
        };
        let started = core::start(None, start, Timestamp::default());
        let operation = started.expect("nothing is there that could be in its way").operation;
        let row = Row {
            operation,
            ended_by: None,
            cleaned_up: false,
            orphaned: false,
            problems: Vec::new(),
        };
        Self {
            changed: Notify::new(),
            row: Mutex::new(row),
            began: Instant::now(),
            request: setting.request.clone(),
            response_type: setting.response_type.clone(),
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::default() + self.began.elapsed()
    }

    fn apply(&self, row: &mut Row, command: Command) -> Result<(), Refusal> {
        row.operation = core::apply(&row.operation, command, self.now())?.operation;
        self.changed.notify_waiters();
        Ok(())
    }

    pub(super) fn note(&self, problem: Problem) {
        let mut row = self.row.lock();
        if !row.problems.contains(&problem) {
            row.problems.push(problem);
        }
    }

    pub(super) fn problems(&self) -> Vec<Problem> {
        self.row.lock().problems.clone()
    }

    pub(super) fn done(&self) -> bool {
        self.row.lock().operation.outcome().is_some()
    }

    /// A client cancels. Too late is no mistake.
    pub(super) fn cancel(&self) {
        let (actor, reason) = ("harness".into(), "the harness cancels".into());
        let cancel = Command::Cancel { cause: core::Cause::Client, actor, reason };
        // Refused only by methods that cannot be cancelled or are strict; this one is neither.
        let _ = self.apply(&mut self.row.lock(), cancel);
    }

    /// The worker that holds the lease has died.
    pub(super) fn orphan(&self) {
        self.row.lock().orphaned = true;
    }

    /// When time alone changes something.
    pub(super) fn due(&self) -> Instant {
        let due = self.row.lock().operation.due_at();
        let due = due.map_or(Duration::from_secs(3600), |due| due.since(Timestamp::default()));
        // Never at once again, so that time goes on whatever the rules say.
        (self.began + due).max(Instant::now() + Duration::from_millis(1))
    }

    /// Time has passed. A deadline that ends the work of a worker that lives is its handler's fault.
    pub(super) fn tick(&self) {
        let now = self.now();
        let before = self.row.lock().operation.clone();
        let orphaned = self.row.lock().orphaned;
        // Refused when nothing is due yet.
        let _ = self.apply(&mut self.row.lock(), Command::Tick { jitter: 0 });
        match &before.state {
            State::Cancelling { .. } if !orphaned => {
                let deadline = before.cancel.as_ref().map(|cancel| cancel.deadline);
                if deadline.is_some_and(|end| end <= now) {
                    self.note(Problem::IgnoresCancel);
                }
            }
            State::CleaningUp { .. } if self.done() => {
                self.note(Problem::CleanupFails("it was not done within its budget".to_owned()));
            }
            State::Cancelling { .. }
            | State::CleaningUp { .. }
            | State::Queued { .. }
            | State::Running { .. }
            | State::Done { .. } => {}
        }
    }

    pub(super) fn claim(&self, request: &ClaimRequest) -> Option<Assignment> {
        let mut row = self.row.lock();
        let claim = Command::Claim {
            worker: request.worker.as_str().into(),
            claim_id: request.claim_id.as_str().into(),
            holder: "".into(),
            lease: LEASE,
        };
        self.apply(&mut row, claim).ok()?;
        let operation = &row.operation;
        let cleanup = matches!(operation.state, State::CleaningUp { .. });
        let assignment = Assignment {
            operation: operation.name.to_string(),
            epoch: operation.epoch,
            method: operation.method.to_string(),
            request: Some(self.request.clone()),
            response_type: self.response_type.clone(),
            attempt: operation.attempt,
            cleanup,
            checkpoint: operation.checkpoint.as_deref().unwrap_or_default().to_vec(),
            external_ref: operation.external_ref.as_deref().unwrap_or_default().to_owned(),
            desired: Some(wish(&operation.desired(operation.epoch))),
            ..Assignment::default()
        };
        row.cleaned_up |= cleanup;
        row.orphaned = false;
        Some(assignment)
    }

    /// Whether an answer asks for nothing.
    pub(super) fn goes_on(result: &ReportResult) -> bool {
        let action = result.desired.as_ref().map(DesiredState::action);
        result.error.is_none() && action == Some(Wish::Continue)
    }

    /// What is wanted now of whoever reported; changes nothing.
    pub(super) fn look(&self, item: &ReportItem) -> ReportResult {
        ReportResult {
            operation: item.operation.clone(),
            epoch: item.epoch,
            desired: Some(wish(&self.row.lock().operation.desired(item.epoch))),
            ..ReportResult::default()
        }
    }

    /// Applies one item, and notices what is wrong about it.
    pub(super) fn report(&self, item: &ReportItem) -> ReportResult {
        let said_before = self.row.lock().operation.clone();
        self.judge(item, &said_before);
        let mut row = self.row.lock();
        let applied = match self.command(item) {
            Ok(command) => self.apply(&mut row, command).map_err(|refusal| {
                let error = refusal.into_error(&row.operation.name);
                (error.code().number(), error.reason.name().to_owned(), error.message)
            }),
            Err(message) => Err((3, "INVALID_VALUE".to_owned(), message)),
        };
        let operation = &row.operation;
        let mut result = ReportResult {
            operation: item.operation.clone(),
            epoch: item.epoch,
            desired: Some(wish(&operation.desired(item.epoch))),
            ..ReportResult::default()
        };
        match applied {
            Ok(()) => {
                let asked = matches!(item.action, Some(Action::Gate(_)));
                result.gate_passed = asked && operation.gate_passed.is_some();
                if said_before.outcome().is_none() && operation.outcome().is_some() {
                    row.ended_by = Some(item.epoch);
                }
            }
            Err((code, reason, message)) => {
                drop(row);
                if !matches!(&*reason, "LEASE_LOST" | "GATE_CLOSED") {
                    let (reason, message) = (reason.clone(), message.clone());
                    self.note(Problem::Refused { reason, message });
                }
                result.error = Some(ReportError { code, reason, message });
            }
        }
        result
    }

    /// Notices what no honest handler says.
    fn judge(&self, item: &ReportItem, before: &core::Operation) {
        let ended = self.row.lock().ended_by == Some(item.epoch);
        let says = item.progress.is_some()
            || item.metadata.is_some()
            || item.checkpoint.is_some()
            || item.external_ref.is_some();
        let cleaning = matches!(before.state, State::CleaningUp { .. });
        match &item.action {
            Some(Action::Gate(_)) if ended => self.note(Problem::SpeaksAfterItsEnd),
            None if ended && says => self.note(Problem::SpeaksAfterItsEnd),
            Some(_) if ended => self.note(Problem::SecondEnd),
            Some(Action::Stopped(stopped)) if before.epoch == item.epoch => {
                let nothing = matches!(stopped.effects(), Effects::None | Effects::NotStarted);
                if nothing && before.gate_passed.is_some() && !cleaning {
                    self.note(Problem::NoEffectsPastTheGate);
                }
                let unknown = matches!(stopped.effects(), Effects::Unknown | Effects::Unspecified);
                if cleaning && unknown {
                    self.note(Problem::CleanupKnowsNothing);
                }
            }
            Some(Action::Failure(failure)) if cleaning && !failure.retryable => {
                self.note(Problem::CleanupFails(failure.message.clone()));
            }
            Some(
                Action::Stopped(_)
                | Action::Failure(_)
                | Action::Response(_)
                | Action::Release(_)
                | Action::Gate(_),
            )
            | None => {}
        }
    }

    /// The command that an item asks for. Fails with what is wrong about it.
    fn command(&self, item: &ReportItem) -> Result<Command, String> {
        let progress = item.progress.as_ref().map(|progress| core::Progress {
            percent: progress.percent,
            step: progress.step,
            steps: progress.steps,
            message: progress.message.as_str().into(),
        });
        if progress.as_ref().is_some_and(|it| it.steps > 0 && it.step > it.steps) {
            return Err("progress.step is above progress.steps".to_owned());
        }
        let changes = core::Changes {
            metadata: item.metadata.as_ref().map(payload),
            progress,
            checkpoint: item.checkpoint.as_deref().map(Arc::from),
            external_ref: item.external_ref.as_deref().map(Arc::from),
            acknowledged: item.acknowledge_cancel,
        };
        let (epoch, lease, jitter) = (item.epoch, LEASE, 0);
        let finish = match &item.action {
            None => return Ok(Command::Renew { epoch, lease, changes }),
            Some(Action::Gate(_)) => return Ok(Command::PassGate { epoch, lease, changes }),
            Some(Action::Release(_)) => return Ok(Command::Release { epoch, changes }),
            Some(Action::Response(any)) => {
                let payload = payload(any);
                if !self.response_type.is_empty() && *payload.type_name != *self.response_type {
                    let (found, wanted) = (&payload.type_name, &self.response_type);
                    return Err(format!("the response is of type {found:?}, not {wanted:?}"));
                }
                Finish::Succeeded(payload)
            }
            Some(Action::Failure(failure)) => Finish::Failed {
                status: core::Status {
                    code: core::Code::from_number(failure.code)
                        .ok_or_else(|| format!("failure.code is {}", failure.code))?,
                    message: failure.message.clone(),
                    details: failure.details.iter().map(payload).collect(),
                },
                retryable: failure.retryable,
                effects: effects(failure.effects()),
            },
            Some(Action::Stopped(stopped)) => Finish::Cancelled {
                effects: effects(stopped.effects()).unwrap_or(core::Effects::Unknown),
                message: stopped.message.clone(),
            },
        };
        Ok(Command::Finish { epoch, finish, changes, jitter })
    }

    pub(super) fn end(&self, disturbance: Option<Disturbance>) -> Option<End> {
        let row = self.row.lock();
        let operation = &row.operation;
        let (code, message, response) = match operation.outcome()? {
            core::Outcome::Response(payload) => {
                let type_url = format!("type.googleapis.com/{}", payload.type_name);
                (0, String::new(), Some(Any { type_url, value: payload.value.to_vec() }))
            }
            core::Outcome::Error(status) => (status.code.number(), status.message.clone(), None),
        };
        let effects = match operation.effects {
            core::Effects::NotStarted => Effects::NotStarted,
            core::Effects::None => Effects::None,
            core::Effects::Undone => Effects::Undone,
            core::Effects::Partial => Effects::Partial,
            core::Effects::Unknown => Effects::Unknown,
        };
        let (gate_passed, cleaned_up) = (operation.gate_passed.is_some(), row.cleaned_up);
        Some(End { code, message, response, effects, gate_passed, cleaned_up, disturbance })
    }
}

fn payload(any: &Any) -> core::Payload {
    let type_name = any.type_url.rsplit('/').next().unwrap_or_default();
    core::Payload { type_name: type_name.into(), value: any.value.as_slice().into() }
}

fn effects(said: Effects) -> Option<core::Effects> {
    match said {
        Effects::Unspecified => None,
        Effects::NotStarted => Some(core::Effects::NotStarted),
        Effects::None => Some(core::Effects::None),
        Effects::Undone => Some(core::Effects::Undone),
        Effects::Partial => Some(core::Effects::Partial),
        Effects::Unknown => Some(core::Effects::Unknown),
    }
}

/// What is wanted, in the words of the wire.
fn wish(desired: &Desired) -> DesiredState {
    let said = |action: Wish, reason: Reason| DesiredState {
        action: action.into(),
        reason: reason.into(),
        ..DesiredState::default()
    };
    match desired {
        Desired::Continue => said(Wish::Continue, Reason::Unspecified),
        Desired::Cancel(cancel) => {
            let reason = match cancel.cause {
                core::Cause::Client => Reason::ClientCancel,
                core::Cause::Deadline => Reason::Deadline,
                core::Cause::Superseded => Reason::Superseded,
            };
            let (actor, message) = (cancel.actor.to_string(), cancel.reason.to_string());
            DesiredState { actor, message, ..said(Wish::Cancel, reason) }
        }
        Desired::Stop(StopReason::LeaseLost) => said(Wish::Stop, Reason::LeaseLost),
        Desired::Stop(StopReason::Done) => said(Wish::Stop, Reason::Done),
        Desired::Stop(StopReason::Deleted) => said(Wish::Stop, Reason::Deleted),
    }
}
