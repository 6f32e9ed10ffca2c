//! Operations of bundled APIs at chosen points of their lives, made by the real rules.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::sync::Arc;
use std::time::Duration;

use longhaul_core::{
    Cause, Changes, Code, Command, Finish, Operation, Payload, Start, Status, Timestamp, apply,
};
use longhaul_wire::api::Api;
use longhaul_wire::json;
use longhaul_wire::start::start_facts;

/// The moment of every start: 2026-01-01T00:00:00Z.
pub const T0: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);

/// `T0` and some seconds.
pub fn at(seconds: u64) -> Timestamp {
    T0 + Duration::from_secs(seconds)
}

/// A queued operation, started by a request in JSON.
#[track_caller]
pub fn started(api: &Api, method: &str, id: &str, request: &str) -> Operation {
    let method = api.start_methods().find(|m| m.full_name.ends_with(method)).expect("a method");
    let message = json::from_json(&method.input, request.as_bytes(), api).expect("a request");
    let facts = start_facts(api, method, &message).expect("a start");
    let start = method.start().expect("it starts");
    let applied = longhaul_core::start(
        None,
        Start {
            name: facts.operation_name(id).expect("a name"),
            uid: 1,
            api: api.name().clone(),
            method: method.full_name.clone(),
            queue: start.queue.clone(),
            parent: facts.parent.into(),
            target: facts.target.into(),
            actor: "tester".into(),
            request: facts.request,
            metadata: facts.metadata,
            traceparent: "".into(),
            parent_operation: None,
            deadline: None,
            start_by: None,
            request_id: None,
            policy: start.policy.clone(),
        },
        T0,
    );
    applied.expect("a start is accepted").operation
}

#[track_caller]
fn then(operation: &Operation, command: Command, now: Timestamp) -> Operation {
    apply(operation, command, now).expect("the command is accepted").operation
}

/// Claimed at second 10.
#[track_caller]
pub fn running(queued: &Operation) -> Operation {
    let claim = Command::Claim {
        worker: "w".into(),
        claim_id: "".into(),
        holder: "".into(),
        lease: Duration::from_secs(600),
    };
    then(queued, claim, at(10))
}

/// Cancel asked for at second 20.
#[track_caller]
pub fn cancelling(running: &Operation) -> Operation {
    let cancel = Command::Cancel { cause: Cause::Client, actor: "a".into(), reason: "".into() };
    then(running, cancel, at(20))
}

/// Stopped as asked at second 30.
#[track_caller]
pub fn cancelled(cancelling: &Operation) -> Operation {
    let effects = longhaul_core::Effects::None;
    finish(cancelling, Finish::Cancelled { effects, message: String::new() })
}

/// Ended well at second 30, with an empty response of the declared type.
#[track_caller]
pub fn succeeded(api: &Api, running: &Operation) -> Operation {
    let start = api.method(&running.method).and_then(|method| method.start()).expect("a start");
    let type_name = Arc::from(start.response_type.full_name());
    finish(running, Finish::Succeeded(Payload { type_name, value: Arc::from([]) }))
}

/// Ended with an error at second 30.
#[track_caller]
pub fn failed(running: &Operation, code: Code, message: &str, details: Vec<Payload>) -> Operation {
    let status = Status { code, message: message.into(), details };
    finish(running, Finish::Failed { status, retryable: false, effects: None })
}

#[track_caller]
fn finish(operation: &Operation, finish: Finish) -> Operation {
    let epoch = operation.epoch;
    let changes = Changes::default();
    then(operation, Command::Finish { epoch, finish, changes, jitter: 0 }, at(30))
}
