//! A cancel that comes before its start: the client knows only the `request_id`.

mod common;

use std::time::Duration;

use common::{BEGIN, facts, payload, policy};
use longhaul_core::{
    Code, Event, EventKind, Operation, OperationName, Outcome, Refusal, RequestId, Start,
    cancel_by_request_id, start,
};

const WINDOW: Duration = Duration::from_secs(3600);

fn with_key(name: &str) -> Start {
    let request_id = Some(RequestId { value: "r".into(), until: BEGIN + WINDOW });
    let name = OperationName::parse(name).expect("well formed");
    Start { name, request_id, ..facts(policy()) }
}

fn unborn() -> Start {
    let nothing = payload("", b"");
    let method = "".into();
    Start { method, request: nothing.clone(), metadata: nothing, ..with_key("operations/t") }
}

fn tombstone() -> Operation {
    let applied = cancel_by_request_id(None, unborn(), "too slow".into(), BEGIN);
    applied.expect("nothing stands in its way").operation
}

#[track_caller]
fn code(operation: &Operation) -> Option<Code> {
    match operation.outcome() {
        Some(Outcome::Error(status)) => Some(status.code),
        Some(Outcome::Response(_)) | None => None,
    }
}

#[test]
fn peers_20_a_late_start_meets_the_cancel_that_came_before() {
    let mark = tombstone();
    assert!(mark.is_tombstone());
    assert!(!mark.visible(BEGIN));
    assert_eq!(mark.claimable_from(), None);

    let late = with_key("operations/late");
    let born = start(Some(&mark), late.clone(), BEGIN).expect("it is embodied").operation;
    assert_eq!(born.name, mark.name);
    assert_eq!(code(&born), Some(Code::Cancelled));
    assert!(born.visible(BEGIN) && born.cancel_requested());
    assert_eq!(born.request, late.request);
    assert_eq!(born.revision, mark.revision + 1);

    let repeated = start(Some(&born), with_key("operations/again"), BEGIN).expect("the same");
    assert_eq!(repeated.operation, born);
    let other = Start { request: payload("x", b"y"), ..with_key("operations/other") };
    assert_eq!(start(Some(&born), other, BEGIN), Err(Refusal::RequestIdReused));
}

#[test]
fn a_tombstone_met_again_stays_as_it_is() {
    let mark = tombstone();
    let again = cancel_by_request_id(Some(&mark), unborn(), "again".into(), BEGIN).expect("ok");
    assert_eq!(again.operation, mark);
    let kinds: Vec<_> = again.events.into_iter().map(|Event { kind, .. }| kind.name()).collect();
    let repeated = EventKind::CancelRepeated { actor: "".into(), reason: "".into() };
    assert_eq!(kinds, [repeated.name()]);
}

#[test]
fn a_start_that_came_first_is_cancelled_like_any_other() {
    let first = start(None, with_key("operations/first"), BEGIN).expect("ok").operation;
    let applied = cancel_by_request_id(Some(&first), unborn(), "".into(), BEGIN).expect("ok");
    assert_eq!(applied.operation.name, first.name);
    assert_eq!(code(&applied.operation), Some(Code::Cancelled));
}

#[test]
fn once_the_window_is_over_the_key_is_free_again() {
    let mark = tombstone();
    let after = BEGIN + WINDOW;
    let fresh = start(Some(&mark), with_key("operations/late"), after).expect("ok").operation;
    assert_eq!(fresh.name.as_str(), "operations/late");
    assert_eq!(code(&fresh), None);
    assert!(mark.purge_at().is_some_and(|at| at >= after));
}
