//! Fixtures of this room's tests: one operation, played through commands at moments of the test's choice.
//!
//! Holds no assertion about the rules beyond "was accepted" and "was refused".

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::time::Duration;

use longhaul_core::{
    Applied, Cause, Changes, Code, Command, Effects, Epoch, Event, Finish, Operation,
    OperationName, Outcome, Payload, Policy, Refusal, Retry, Start, State, Status, Timestamp,
    apply, start,
};

/// When every story begins: 2027-01-15T08:00:00Z.
pub const BEGIN: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);
/// How long a worker may be silent.
pub const LEASE: Duration = Duration::from_secs(30);
/// The default method's time from an accepted cancel to the end of the main attempt.
pub const CANCEL_TIMEOUT: Duration = Duration::from_secs(60);
/// The time for cleaning up, of methods that have a cleanup.
pub const CLEANUP_BUDGET: Duration = Duration::from_secs(300);
/// The time from start to the moment by which a worker must have claimed, of operations that have one.
pub const START_BY: Duration = Duration::from_secs(600);
/// The time from start to deadline, of operations that have one.
pub const DEADLINE: Duration = Duration::from_secs(3600);

/// The method that most tests use: cancellable, no cleanup, three attempts, lenient.
pub fn policy() -> Policy {
    Policy {
        cancel_timeout: CANCEL_TIMEOUT,
        retention: Duration::from_secs(24 * 3600),
        retry: Retry {
            attempts_max: 3,
            backoff_first: Duration::from_secs(8),
            backoff_max: Duration::from_secs(20),
        },
        ..Policy::default()
    }
}

/// The same with a cleanup.
pub fn cleanup_policy() -> Policy {
    Policy { cleanup_budget: Some(CLEANUP_BUDGET), ..policy() }
}

/// The operation that all stories' operations are children of.
pub fn parent_name() -> OperationName {
    OperationName::parse("projects/p/locations/l/operations/parent")
        .expect("the name is well formed")
}

/// The facts of a start.
pub fn facts(policy: Policy) -> Start {
    Start {
        name: OperationName::parse("projects/p/locations/l/operations/o")
            .expect("the name is well formed"),
        uid: 7,
        api: "clouddeploy.googleapis.com".into(),
        method: "google.cloud.deploy.v1.CloudDeploy.CreateRelease".into(),
        queue: "default".into(),
        parent: "projects/p/locations/l".into(),
        target: "projects/p/locations/l/releases/r".into(),
        actor: "ada".into(),
        request: payload("google.cloud.deploy.v1.CreateReleaseRequest", b"request"),
        metadata: payload("google.cloud.deploy.v1.OperationMetadata", b""),
        traceparent: "".into(),
        parent_operation: Some(parent_name()),
        deadline: None,
        start_by: None,
        request_id: None,
        policy,
    }
}

pub fn payload(type_name: &str, value: &[u8]) -> Payload {
    Payload { type_name: type_name.into(), value: value.into() }
}

pub fn response() -> Payload {
    payload("google.cloud.deploy.v1.Release", b"response")
}

pub fn status(code: Code) -> Status {
    Status { code, message: "the worker's own words".into(), details: Vec::new() }
}

pub fn succeeded() -> Finish {
    Finish::Succeeded(response())
}

pub fn failed(code: Code) -> Finish {
    Finish::Failed { status: status(code), retryable: false, effects: None }
}

pub fn failed_retryable(code: Code) -> Finish {
    Finish::Failed { status: status(code), retryable: true, effects: None }
}

pub fn stopped(effects: Effects) -> Finish {
    Finish::Cancelled { effects, message: String::new() }
}

pub fn claim() -> Command {
    Command::Claim {
        worker: "worker-1".into(),
        claim_id: "".into(),
        holder: "".into(),
        lease: LEASE,
    }
}

pub fn renew(epoch: Epoch) -> Command {
    Command::Renew { epoch, lease: LEASE, changes: Changes::default() }
}

pub fn gate(epoch: Epoch) -> Command {
    Command::PassGate { epoch, lease: LEASE, changes: Changes::default() }
}

pub fn finish(epoch: Epoch, finish: Finish) -> Command {
    Command::Finish { epoch, finish, changes: Changes::default(), jitter: 255 }
}

pub fn release(epoch: Epoch) -> Command {
    Command::Release { epoch, changes: Changes::default() }
}

pub fn cancel(cause: Cause) -> Command {
    let (actor, reason) = match cause {
        Cause::Client => ("ada", "changed my mind"),
        Cause::Deadline => ("", ""),
        Cause::Superseded => ("", "a newer one"),
    };
    Command::Cancel { cause, actor: actor.into(), reason: reason.into() }
}

pub fn follow(cause: Cause) -> Command {
    Command::Follow {
        parent: parent_name(),
        cause,
        actor: "ada".into(),
        reason: "the parent was cancelled".into(),
    }
}

pub fn detach() -> Command {
    Command::Detach { actor: "ada".into() }
}

pub fn delete() -> Command {
    Command::Delete { actor: "ada".into() }
}

pub fn recover() -> Command {
    Command::Recover { lease: LEASE }
}

pub fn tick() -> Command {
    Command::Tick { jitter: 255 }
}

/// One operation in the middle of its life.
#[derive(Clone, Debug)]
pub struct Story {
    pub operation: Operation,
    pub now: Timestamp,
    /// Everything that happened so far.
    pub events: Vec<Event>,
    /// The row is gone.
    pub forgotten: bool,
}

impl Story {
    /// A fresh operation without a deadline.
    pub fn new(policy: Policy) -> Self {
        Self::of(facts(policy))
    }

    /// A fresh operation that must be done within [`DEADLINE`].
    pub fn with_deadline(policy: Policy) -> Self {
        Self::of(Start { deadline: Some(BEGIN + DEADLINE), ..facts(policy) })
    }

    /// The same, and a worker must claim it within [`START_BY`].
    pub fn with_start_by(policy: Policy) -> Self {
        let (deadline, start_by) = (Some(BEGIN + DEADLINE), Some(BEGIN + START_BY));
        Self::of(Start { deadline, start_by, ..facts(policy) })
    }

    pub fn of(facts: Start) -> Self {
        let applied = start(None, facts, BEGIN).expect("nothing is in the way of a start");
        Self { operation: applied.operation, now: BEGIN, events: applied.events, forgotten: false }
    }

    pub fn try_at(&self, now: Timestamp, command: Command) -> Result<Applied, Refusal> {
        apply(&self.operation, command, now)
    }

    pub fn attempt(&self, command: Command) -> Result<Applied, Refusal> {
        self.try_at(self.now, command)
    }

    #[track_caller]
    pub fn refusal(&self, command: Command) -> Refusal {
        let what = format!("{command:?}");
        match self.attempt(command) {
            Err(refusal) => refusal,
            Ok(applied) => panic!("{what} was accepted and led to {:#?}", applied.operation),
        }
    }

    #[track_caller]
    pub fn does(mut self, command: Command) -> Self {
        let what = format!("{command:?}");
        match self.attempt(command) {
            Ok(applied) => {
                self.operation = applied.operation;
                self.events.extend(applied.events);
                self.forgotten = applied.forget;
                self
            }
            Err(refusal) => panic!("{what} was refused with {refusal:?} by {:#?}", self.operation),
        }
    }

    /// Lets time pass; nothing looks at the clock.
    pub fn later(mut self, span: Duration) -> Self {
        self.now = self.now + span;
        self
    }

    /// Lets time pass until the moment, if it has not passed yet.
    pub fn until(mut self, moment: Timestamp) -> Self {
        self.now = self.now.max(moment);
        self
    }

    /// Lets time pass until something is due, and the server act on it.
    #[track_caller]
    pub fn due(self) -> Self {
        let due = self.operation.due_at().expect("something must become due");
        self.until(due).does(tick())
    }

    pub fn epoch(&self) -> Epoch {
        self.operation.epoch
    }

    /// A worker claims it, as soon as that is allowed.
    #[track_caller]
    pub fn claimed(self) -> Self {
        let from = self.operation.claimable_from().expect("it must wait for a claim");
        self.until(from).does(claim())
    }

    #[track_caller]
    pub fn renewed(self) -> Self {
        let command = renew(self.epoch());
        self.does(command)
    }

    #[track_caller]
    pub fn past_gate(self) -> Self {
        let command = gate(self.epoch());
        self.does(command)
    }

    #[track_caller]
    pub fn finished(self, how: Finish) -> Self {
        let command = finish(self.epoch(), how);
        self.does(command)
    }

    #[track_caller]
    pub fn released(self) -> Self {
        let command = release(self.epoch());
        self.does(command)
    }

    #[track_caller]
    pub fn cancelled(self, cause: Cause) -> Self {
        self.does(cancel(cause))
    }

    #[track_caller]
    pub fn deleted(self) -> Self {
        self.does(delete())
    }

    /// Events of this name so far.
    pub fn count(&self, event: &str) -> usize {
        self.events.iter().filter(|one| one.kind.name() == event).count()
    }

    /// Whether it is where `expected` says, in the words of [`place`].
    #[track_caller]
    pub fn is(self, expected: &str) -> Self {
        assert_eq!(place(&self.operation), expected, "{:#?}", self.operation);
        self
    }

    /// Whether it left behind what `expected` says.
    #[track_caller]
    pub fn leaves(self, expected: Effects) -> Self {
        assert_eq!(self.operation.effects, expected, "{:#?}", self.operation);
        self
    }
}

/// The state's name; for a done operation followed by `response`, or by the error's number and name.
pub fn place(operation: &Operation) -> String {
    match &operation.state {
        State::Done { outcome: Outcome::Response(_), .. } => "DONE response".into(),
        State::Done { outcome: Outcome::Error(status), .. } => {
            format!("DONE {} {}", status.code.number(), status.code.name())
        }
        State::Queued { .. }
        | State::Running { .. }
        | State::Cancelling { .. }
        | State::CleaningUp { .. } => operation.state.name().into(),
    }
}

/// As operators spell it.
pub fn effects_name(effects: Effects) -> &'static str {
    match effects {
        Effects::NotStarted => "NOT_STARTED",
        Effects::None => "NONE",
        Effects::Undone => "UNDONE",
        Effects::Partial => "PARTIAL",
        Effects::Unknown => "UNKNOWN",
    }
}

/// Whole seconds from `from` to `to`, with a sign.
pub fn distance(from: Timestamp, to: Timestamp) -> String {
    if to < from {
        format!("-{}s", from.since(to).as_secs())
    } else {
        format!("+{}s", to.since(from).as_secs())
    }
}
