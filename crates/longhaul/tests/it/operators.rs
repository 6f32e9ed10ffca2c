//! The operators' side: everything about an operation, cancels with a reason and what came of them,
//! and what is waited for.

use std::time::Duration;

use longhaul_wire::v1::{self, Effects};

use crate::harness::samples::{Asked, DEPLOY};
use crate::harness::worker::Item;
use crate::harness::{
    Failure, Place, Say, acme, everywhere, everywhere_with, over_both_wires, soon,
};

const SECOND: Duration = Duration::from_secs(1);

/// Names of the events, in their order.
fn events(detail: &v1::OperationDetail) -> Vec<&str> {
    detail.timeline.iter().map(|event| &*event.event).collect()
}

fn moment(at: Option<prost_types::Timestamp>) -> (i64, i32) {
    at.map(|at| (at.seconds, at.nanos)).expect("the moment is known")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_four_times_of_a_cancel_are_on_record_in_their_order() {
    everywhere(async |place| {
        let (client, worker, operators) = (place.client(), place.worker(), place.operators());
        let name = client.start("a").await.name;
        let held = worker.claim(&name).await;
        let hanging = {
            let (worker, item) = (worker.clone(), held.item(Say::Alive));
            tokio::spawn(async move { worker.report_waiting(item, 15 * SECOND).await })
        };
        assert_eq!(operators.cancel(&name, "the budget is spent").await, "REQUESTED");
        let asked = operators.describe(&name).await.cancel.unwrap();
        assert_eq!((asked.acknowledged_time, asked.stopped_time), (None, None));
        soon("the report", hanging).await.unwrap().wants("CANCEL");
        let told = |detail: &v1::OperationDetail| {
            detail.cancel.as_ref().is_some_and(|cancel| cancel.delivered_time.is_some())
        };
        operators.described(&name, told).await;
        let heard = Item { heard: true, ..held.item(Say::Alive) };
        worker.report(heard).await.wants("CANCEL");
        let heard = operators.describe(&name).await.cancel.unwrap();
        assert!(heard.acknowledged_time.is_some() && heard.stopped_time.is_none(), "{heard:?}");
        worker.report(held.item(Say::Stopped(Effects::Undone))).await.wants("STOP");

        let detail = operators.describe(&name).await;
        assert_eq!((detail.state(), detail.effects()), (v1::State::Done, Effects::Undone));
        let cancel = detail.cancel.clone().unwrap();
        assert_eq!((&*cancel.reason, cancel.requested_by_client), ("the budget is spent", true));
        let times = [
            moment(detail.create_time),
            moment(detail.start_time),
            moment(cancel.request_time),
            moment(cancel.delivered_time),
            moment(cancel.acknowledged_time),
            moment(cancel.stopped_time),
        ];
        assert!(times.is_sorted(), "{times:?}");
        assert_eq!(cancel.stopped_time, detail.end_time);
        assert!(moment(cancel.deadline) > moment(cancel.request_time));
        let expected = [
            "STARTED",
            "CLAIMED",
            "CANCEL_REQUESTED",
            "CANCEL_DELIVERED",
            "CANCEL_ACKNOWLEDGED",
            "FINISHED",
        ];
        assert_eq!(events(&detail), expected);
        assert_eq!(detail.timeline[1].who, worker.name);
        assert_eq!(detail.timeline[2].message, "the budget is spent");
        assert!(detail.timeline.iter().map(|event| moment(event.time)).is_sorted());
        assert!(detail.timeline.iter().map(|event| event.revision).is_sorted());

        let json = operators.describe_json(&name).await;
        assert_eq!(json["state"], "DONE");
        assert_eq!(json["effects"], "UNDONE");
        assert_eq!(json["cancel"]["reason"], "the budget is spent");
        for time in ["requestTime", "deliveredTime", "acknowledgedTime", "stoppedTime"] {
            assert!(json["cancel"][time].is_string(), "{json}");
        }
        assert_eq!(json["timeline"].as_array().map(Vec::len), Some(expected.len()), "{json}");
        assert_eq!(json["epoch"], held.epoch.to_string());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_to_cancel_is_on_record_and_the_first_one_stays() {
    everywhere(async |place| {
        let (client, worker, operators) = (place.client(), place.worker(), place.operators());
        let name = client.start("a").await.name;
        let held = worker.claim(&name).await;
        assert_eq!(operators.cancel(&name, "first").await, "REQUESTED");
        let before = client.get(&name).await;
        assert_eq!(operators.cancel(&name, "second").await, "ALREADY_REQUESTED");
        client.cancel(&name).await;
        assert_eq!(client.get(&name).await, before, "clients see no difference");
        let detail = operators.describe(&name).await;
        assert_eq!(detail.cancel.as_ref().unwrap().reason, "first");
        let asked = |detail: &v1::OperationDetail| {
            let asked = detail.timeline.iter().filter(|event| event.event.starts_with("CANCEL_RE"));
            asked.map(|it| (it.event.clone(), it.message.clone())).collect::<Vec<_>>()
        };
        let on_record = [
            ("CANCEL_REQUESTED".to_owned(), "first".to_owned()),
            ("CANCEL_REPEATED".to_owned(), "second".to_owned()),
            ("CANCEL_REPEATED".to_owned(), String::new()),
        ];
        assert_eq!(asked(&detail), on_record);
        worker.report(held.item(Say::Stopped(Effects::None))).await.wants("STOP");
        let done = operators.describe(&name).await;
        assert_eq!(operators.cancel(&name, "third").await, "ALREADY_DONE");
        assert_eq!(operators.describe(&name).await, done, "what is done changes no more");
        assert_eq!(asked(&done), on_record);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_09_the_caller_is_told_what_became_of_a_cancel() {
    everywhere(async |place| {
        let (client, worker, operators) = (place.client(), place.worker(), place.operators());
        let queued = client.start("queued").await.name;
        assert_eq!(operators.cancel(&queued, "").await, "CANCELLED");
        assert_eq!(operators.cancel(&queued, "").await, "ALREADY_DONE");

        let running = client.start("running").await.name;
        let held = worker.claim(&running).await;
        assert_eq!(operators.cancel(&running, "first").await, "REQUESTED");
        assert_eq!(operators.cancel(&running, "second").await, "ALREADY_REQUESTED");
        worker.report(held.item(Say::Stopped(Effects::None))).await.wants("STOP");
        assert_eq!(operators.cancel(&running, "third").await, "ALREADY_DONE");
        let detail = operators.describe(&running).await;
        assert_eq!(detail.cancel.as_ref().unwrap().reason, "first", "the first reason stays");

        let past = client.start("past-the-gate").await.name;
        let held = worker.claim(&past).await;
        assert!(worker.report(held.item(Say::Gate)).await.gate_passed);
        assert_eq!(operators.cancel(&past, "").await, "TOO_LATE");
        worker.report(held.item(Say::Success(DEPLOY.response()))).await.wants("STOP");

        let done = client.start("done").await.name;
        let held = worker.claim(&done).await;
        worker.report(held.item(Say::Success(DEPLOY.response()))).await.wants("STOP");
        let before = client.get(&done).await;
        assert_eq!(operators.cancel(&done, "").await, "ALREADY_DONE");
        assert_eq!(client.get(&done).await, before);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_23_the_reason_reaches_the_worker_and_the_first_one_stays() {
    everywhere(async |place| {
        let (client, worker, operators) = (place.client(), place.worker(), place.operators());
        let name = client.start("a").await.name;
        let held = worker.claim(&name).await;
        operators.cancel(&name, "wrong region: \"eu\" \u{1F6D1}").await;
        operators.cancel(&name, "another reason").await;
        let verdict = worker.report(held.item(Say::Alive)).await;
        assert_eq!(verdict.wants("CANCEL").because, "CLIENT_CANCEL");
        assert_eq!(verdict.words, "wrong region: \"eu\" \u{1F6D1}");
        worker.report(held.item(Say::Stopped(Effects::None))).await.wants("STOP");
    })
    .await;
}

fn by_request_id(place: &Place, request_id: &str) -> v1::CancelByRequestIdRequest {
    v1::CancelByRequestIdRequest {
        api: DEPLOY.prefix.into(),
        parent: place.client().parent(),
        request_id: request_id.into(),
        reason: "the caller died".into(),
    }
}

/// Some `request_id` that no other scenario uses.
fn new_id(place: &Place, number: u32) -> String {
    let project: u32 = place.project.rsplit('-').next().unwrap().parse().unwrap();
    format!("00000000-0000-4000-8000-{project:06}{number:06}")
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_20_a_late_start_meets_the_cancel_that_came_before_it() {
    everywhere(async |place| {
        let (client, worker, operators) = (place.client(), place.worker(), place.operators());
        let id = new_id(&place, 1);
        let asked = Asked { id: "late", request_id: &id, ..Asked::default() };
        let request = by_request_id(&place, &id);
        let came = operators.try_cancel_by_request_id(&request).await.unwrap();
        assert_eq!(came.outcome, "CANCELLED");
        client.try_get(&came.name).await.unwrap_err().is("NOT_FOUND", "OPERATION_NOT_FOUND");
        assert!(client.list("").await.operations.is_empty(), "nobody started it yet");
        let again = operators.try_cancel_by_request_id(&request).await.unwrap();
        assert_eq!((&*again.outcome, again.name), ("ALREADY_DONE", came.name.clone()));

        for _ in 0..2 {
            let seen = client.try_start(asked).await.unwrap();
            assert_eq!(seen.is_cancelled().name, came.name);
            assert!(seen.requested_cancellation);
        }
        client.get(&came.name).await.is_cancelled();
        let claimed = worker.claim_now().await;
        assert!(claimed.iter().all(|held| held.operation != came.name), "it never starts");
        let detail = operators.describe(&came.name).await;
        assert_eq!(detail.effects(), Effects::NotStarted);
        assert_eq!(detail.cancel.unwrap().reason, "the caller died");

        // Another parent, and another key, are other requests.
        let other = Place { project: format!("{}-other", place.project), ..place.clone() };
        other.client().try_start(asked).await.unwrap().is_running();
        let key = new_id(&place, 2);
        let asked = Asked { id: "other", request_id: &key, ..Asked::default() };
        client.try_start(asked).await.unwrap().is_running();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_20_a_start_that_came_first_is_cancelled_by_its_request_id() {
    everywhere(async |place| {
        let (client, worker, operators) = (place.client(), place.worker(), place.operators());
        let id = new_id(&place, 1);
        let asked = Asked { id: "a", request_id: &id, ..Asked::default() };
        let name = client.try_start(asked).await.unwrap().name;
        let held = worker.claim(&name).await;
        let request = by_request_id(&place, &id);
        let came = operators.try_cancel_by_request_id(&request).await.unwrap();
        assert_eq!((&*came.outcome, &came.name), ("REQUESTED", &name));
        assert_eq!(
            worker.report(held.item(Say::Alive)).await.wants("CANCEL").words,
            request.reason
        );
        worker.report(held.item(Say::Stopped(Effects::None))).await.wants("STOP");
        client.get(&name).await.is_cancelled();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_20_a_start_and_its_cancel_at_once_leave_one_cancelled_operation() {
    everywhere(async |place| {
        let (client, operators) = (place.client(), place.operators());
        for number in 0..30 {
            let id = new_id(&place, number);
            let asked = Asked { id: "a", request_id: &id, ..Asked::default() };
            let request = by_request_id(&place, &id);
            let (started, came) =
                tokio::join!(client.try_start(asked), operators.try_cancel_by_request_id(&request));
            let (started, came) = (started.unwrap(), came.unwrap());
            assert_eq!((&*came.outcome, &came.name), ("CANCELLED", &started.name));
            client.get(&came.name).await.is_cancelled();
            assert_eq!(client.try_start(asked).await.unwrap().name, came.name);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_cancel_by_request_id_is_refused_with_its_field() {
    over_both_wires(async |place| {
        let operators = place.operators();
        let right = by_request_id(&place, &new_id(&place, 1));
        let cases = [
            (v1::CancelByRequestIdRequest { api: "no-such-api".into(), ..right.clone() }, "api"),
            (v1::CancelByRequestIdRequest { api: String::new(), ..right.clone() }, "api"),
            (v1::CancelByRequestIdRequest { parent: "projects".into(), ..right.clone() }, "parent"),
            (v1::CancelByRequestIdRequest { parent: String::new(), ..right.clone() }, "parent"),
            (
                v1::CancelByRequestIdRequest { request_id: String::new(), ..right.clone() },
                "request_id",
            ),
            (
                v1::CancelByRequestIdRequest {
                    request_id: "00000000-0000-0000-0000-000000000000".into(),
                    ..right.clone()
                },
                "request_id",
            ),
            (
                v1::CancelByRequestIdRequest { request_id: "x".repeat(129), ..right.clone() },
                "request_id",
            ),
            (v1::CancelByRequestIdRequest { reason: "x".repeat(1025), ..right.clone() }, "reason"),
        ];
        for (request, field) in cases {
            let failure = operators.try_cancel_by_request_id(&request).await.unwrap_err();
            failure.is("INVALID_ARGUMENT", "INVALID_VALUE").says(&[field]);
        }
        let edge = v1::CancelByRequestIdRequest { reason: "x".repeat(1024), ..right };
        operators.try_cancel_by_request_id(&edge).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_are_refused_precisely() {
    everywhere_with(acme::load, async |place| {
        let operators = place.operators();
        let gone = "projects/p/locations/l/operations/gone";
        let check = |failure: Failure, code, reason| drop(failure.is(code, reason).clone());
        check(operators.try_describe(gone).await.unwrap_err(), "NOT_FOUND", "OPERATION_NOT_FOUND");
        check(
            operators.try_cancel(gone, "").await.unwrap_err(),
            "NOT_FOUND",
            "OPERATION_NOT_FOUND",
        );
        check(operators.try_explain(gone).await.unwrap_err(), "NOT_FOUND", "OPERATION_NOT_FOUND");
        for wrong in ["projects//operations/a", "a%20b", "operations"] {
            let failure = operators.try_cancel(wrong, "").await.unwrap_err();
            assert!(matches!(&*failure.code, "INVALID_ARGUMENT" | "NOT_FOUND"), "{failure:?}");
        }
        let name = place.client().start("a").await.name;
        let failure = operators.try_cancel(&name, &"x".repeat(1025)).await.unwrap_err();
        failure.is("INVALID_ARGUMENT", "INVALID_VALUE").says(&["reason", "1024"]);
        place.client().get(&name).await.is_running();

        let uncancellable = acme::start(&place, "publish").await;
        let failure = operators.try_cancel(&uncancellable, "").await.unwrap_err();
        check(failure, "UNIMPLEMENTED", "CANCEL_UNSUPPORTED");
        let strict = acme::start(&place, "preview").await;
        assert_eq!(operators.cancel(&strict, "").await, "CANCELLED");
        let failure = operators.try_cancel(&strict, "").await.unwrap_err();
        check(failure, "FAILED_PRECONDITION", "OPERATION_DONE");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_state_says_what_it_waits_for() {
    everywhere_with(acme::load, async |place| {
        let (client, worker, operators) = (place.client(), place.worker(), place.operators());
        let name = client.start("a").await.name;
        operators.explains(&name, "QUEUED", &["waits for a worker", "clouddeploy"], false).await;
        let held = worker.claim(&name).await;
        let who = &*worker.name;
        operators.explains(&name, "RUNNING", &[who, "lease", "Nobody has asked"], false).await;
        operators.cancel(&name, "").await;
        operators.explains(&name, "CANCELLING", &[who, "not been reached"], true).await;
        worker.report(held.item(Say::Alive)).await.wants("CANCEL");
        operators.explains(&name, "CANCELLING", &[who, "was sent", "not said"], true).await;
        worker.report(Item { heard: true, ..held.item(Say::Alive) }).await.wants("CANCEL");
        operators.explains(&name, "CANCELLING", &[who, "has heard", "not stopped"], true).await;
        worker.report(held.item(Say::Stopped(Effects::None))).await.wants("STOP");
        operators.explains(&name, "DONE", &["done"], true).await;

        let again = client.start("again").await.name;
        let held = worker.claim(&again).await;
        worker.report(held.item(Say::Failure(14, "later".into(), true))).await;
        operators.explains(&again, "QUEUED", &["next attempt"], false).await;

        let cleaned = acme::start(&place, "render").await;
        let held = worker.claim(&cleaned).await;
        operators.cancel(&cleaned, "").await;
        operators.explains(&cleaned, "CANCELLING", &["cleans up"], true).await;
        worker.report(held.item(Say::Release)).await.wants("STOP");
        operators.explains(&cleaned, "CLEANING_UP", &["waits for a worker"], true).await;
        let cleanup = worker.claim(&cleaned).await;
        operators.explains(&cleaned, "CLEANING_UP", &[who, "cleans up"], true).await;
        worker.report(cleanup.item(Say::Stopped(Effects::Undone))).await.wants("STOP");

        let past = client.start("past").await.name;
        let held = worker.claim(&past).await;
        assert!(worker.report(held.item(Say::Gate)).await.gate_passed);
        operators.cancel(&past, "").await;
        worker.report(held.item(Say::Release)).await.wants("STOP");
        operators.explains(&past, "QUEUED", &["after the gate"], true).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_25_a_deleted_operation_that_still_runs_is_seen_and_cancelled_by_operators() {
    everywhere(async |place| {
        let (client, worker, operators) = (place.client(), place.worker(), place.operators());
        let name = client.start("a").await.name;
        let held = worker.claim(&name).await;
        client.try_delete(&name).await.unwrap();
        client.try_get(&name).await.unwrap_err().is("NOT_FOUND", "OPERATION_NOT_FOUND");
        worker.report(held.item(Say::Alive)).await.wants("CONTINUE");
        let detail = operators.describe(&name).await;
        assert_eq!(detail.state(), v1::State::Running);
        assert!(detail.delete_time.is_some() && detail.lease.is_some(), "{detail:?}");
        operators.explains(&name, "RUNNING", &[&*worker.name], false).await;
        client.try_cancel(&name).await.unwrap_err().is("NOT_FOUND", "OPERATION_NOT_FOUND");
        assert_eq!(operators.cancel(&name, "nobody needs it").await, "REQUESTED");
        assert_eq!(
            worker.report(held.item(Say::Alive)).await.wants("CANCEL").words,
            "nobody needs it"
        );
        worker.report(held.item(Say::Stopped(Effects::None))).await.wants("STOP");
        client.try_get(&name).await.unwrap_err().is("NOT_FOUND", "OPERATION_NOT_FOUND");
    })
    .await;
}
