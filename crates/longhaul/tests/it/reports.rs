//! Reports: what they may say, what they are refused, and how they hear what clients want.

use std::time::{Duration, Instant};

use longhaul_wire::longrunning::Any;
use longhaul_wire::v1::Effects;
use serde_json::json;

use crate::harness::client::Wire;
use crate::harness::samples::{DATAPROC, DEPLOY, Typed};
use crate::harness::{Held, Item, Place, Say, Worker, everywhere, over_both_wires, soon};

const HANG: Duration = Duration::from_secs(15);

/// A running operation of Cloud Deploy: its name, and the claim.
async fn running(place: &Place) -> (String, Held) {
    let name = place.client().start("a").await.name;
    let held = place.worker().claim(&name).await;
    (name, held)
}

/// A report that hangs from now on, as far as can be told from outside.
fn hanging(worker: &Worker, item: Item) -> tokio::task::JoinHandle<crate::harness::Verdict> {
    let worker = worker.clone();
    tokio::spawn(async move { worker.report_waiting(item, HANG).await })
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_01_a_hanging_report_hears_the_cancel() {
    everywhere(async |place| {
        let (name, held) = running(&place).await;
        let report = hanging(&place.worker(), held.item(Say::Alive));
        place.client().cancel(&name).await;
        let asked = Instant::now();
        let verdict = soon("the report", report).await.unwrap();
        assert_eq!(verdict.wants("CANCEL").because, "CLIENT_CANCEL");
        assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_after_the_cancel_does_not_hang() {
    everywhere(async |place| {
        let (name, held) = running(&place).await;
        place.client().cancel(&name).await;
        let report = hanging(&place.worker(), held.item(Say::Alive));
        soon("the report", report).await.unwrap().wants("CANCEL");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_has_heard_is_left_in_peace() {
    over_both_wires(async |place| {
        let (name, held) = running(&place).await;
        place.client().cancel(&name).await;
        let heard = Item { heard: true, ..held.item(Say::Alive) };
        let before = Instant::now();
        let wait = Duration::from_millis(300);
        place.worker().report_waiting(heard, wait).await.wants("CANCEL");
        assert!(before.elapsed() >= Duration::from_millis(250), "the answer hangs");
        place.client().get(&name).await.is_running();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_report_hears_that_another_claim_has_taken_over() {
    over_both_wires(async |place| {
        let (name, held) = running(&place).await;
        let report = hanging(&place.worker(), held.item(Say::Alive));
        // The report's own renewal may come after this release; it is refused then and says the same.
        place.worker().report(held.item(Say::Release)).await;
        let verdict = soon("the report", report).await.unwrap();
        assert_eq!((&*verdict.desired, &*verdict.because), ("STOP", "LEASE_LOST"));
        place.client().cancel(&name).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_of_another_type_is_refused_and_changes_nothing() {
    everywhere(async |place| {
        let (name, held) = running(&place).await;
        let before = place.client().get(&name).await;
        let wrong = [
            Typed::named("google.cloud.deploy.v1.Release", "made"),
            Typed::empty("google.protobuf.Empty"),
        ];
        for response in wrong {
            let given = response.type_name;
            let verdict = place.worker().report(held.item(Say::Success(response))).await;
            verdict.refused_as("TYPE_MISMATCH").says(&[given, DEPLOY.response_type]);
            assert_eq!(verdict.desired, "CONTINUE");
            assert_eq!(place.client().get(&name).await, before);
        }
        place.worker().report(held.item(Say::Success(DEPLOY.response()))).await.wants("STOP");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_of_another_type_is_refused_and_changes_nothing() {
    everywhere(async |place| {
        let (name, held) = running(&place).await;
        let before = place.client().get(&name).await;
        let metadata = Typed::empty("google.cloud.dataproc.v1.ClusterOperationMetadata");
        let item = Item { metadata: Some(metadata), ..held.item(Say::Alive) };
        let verdict = place.worker().report(item).await;
        verdict
            .refused_as("TYPE_MISMATCH")
            .says(&["ClusterOperationMetadata", DEPLOY.metadata_type]);
        assert_eq!(place.client().get(&name).await, before);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_item_applies_nothing_of_itself_and_spares_its_neighbours() {
    everywhere(async |place| {
        let (client, worker) = (place.client(), place.worker());
        let (bad, good) = (client.start("a").await.name, client.start("b").await.name);
        let (bad_held, good_held) = (worker.claim(&bad).await, worker.claim(&good).await);
        let wrong = Item {
            checkpoint: Some(b"must not be kept".to_vec()),
            ..bad_held.item(Say::Success(Typed::empty("google.protobuf.Empty")))
        };
        let right = good_held.item(Say::Success(DEPLOY.response()));
        let verdicts = worker.try_report(vec![wrong, right], Duration::ZERO).await.unwrap();
        verdicts[0].refused_as("TYPE_MISMATCH");
        verdicts[1].wants("STOP");
        client.get(&bad).await.is_running();
        assert!(client.get(&good).await.done);
        worker.report(bad_held.item(Say::Release)).await.wants("STOP");
        assert_eq!(worker.claim(&bad).await.checkpoint, b"");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_mebibytes_of_progress_are_refused_and_change_nothing() {
    everywhere(async |place| {
        let (name, held) = running(&place).await;
        let before = place.client().get(&name).await;
        let progress = Some("x".repeat(2 << 20));
        let verdict = place.worker().report(Item { progress, ..held.item(Say::Alive) }).await;
        verdict.refused_as("INVALID_VALUE").says(&["progress", "2097152", "1048576"]);
        let checkpoint = Some(vec![7; 2 << 20]);
        let verdict = place.worker().report(Item { checkpoint, ..held.item(Say::Alive) }).await;
        verdict.refused_as("INVALID_VALUE").says(&["checkpoint", "2097152", "1048576"]);
        assert_eq!(place.client().get(&name).await, before);
        place.worker().report(held.item(Say::Alive)).await.wants("CONTINUE");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_on_what_is_not_there_say_so() {
    everywhere(async |place| {
        let (name, held) = running(&place).await;
        let before = place.client().get(&name).await;
        let elsewhere = name.replace("/locations/", "/regions/");
        for operation in ["projects/p/locations/l/operations/gone", &*elsewhere] {
            let item = Item { operation: operation.into(), ..held.item(Say::Alive) };
            let verdict = place.worker().report(item).await;
            verdict.refused_as("OPERATION_NOT_FOUND").says(&[operation]);
            assert_eq!((&*verdict.desired, &*verdict.because), ("STOP", "DELETED"));
        }
        for operation in ["", "/", "projects//operations/x", "a\u{0}b"] {
            let item = Item { operation: operation.into(), ..held.item(Say::Alive) };
            place.worker().report(item).await.refused_as("INVALID_NAME");
        }
        assert_eq!(place.client().get(&name).await, before);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_under_the_name_of_another_apis_operation_changes_nothing() {
    everywhere(async |place| {
        let (deploy, dataproc) = (place.client(), place.client_of(&DATAPROC));
        let own = deploy.start("a").await.name;
        let own = place.worker().claim(&own).await;
        let other = dataproc.start("a").await.name;
        let mut stranger = place.worker();
        stranger.name = format!("stranger-in-{}", place.project);
        let other = stranger.claim(&other).await;
        assert_eq!(own.epoch, other.epoch, "the epoch alone does not tell them apart");
        let before = dataproc.get(&other.operation).await;
        let mistaken = |say| Item { operation: other.operation.clone(), ..own.item(say) };
        let verdict = place.worker().report(mistaken(Say::Success(DEPLOY.response()))).await;
        verdict.refused_as("TYPE_MISMATCH").says(&[DEPLOY.response_type, DATAPROC.response_type]);
        let metadata = Some(Typed::empty(DEPLOY.metadata_type));
        let verdict = place.worker().report(Item { metadata, ..mistaken(Say::Alive) }).await;
        verdict.refused_as("TYPE_MISMATCH").says(&[DEPLOY.metadata_type, DATAPROC.metadata_type]);
        assert_eq!(dataproc.get(&other.operation).await, before);
        // Nor do clients of one API reach what is another's.
        let failure = deploy.try_cancel(&other.operation).await.unwrap_err();
        // Such a name fits no pattern of that API; over HTTP its path already fits no method.
        let (code, reason) = match place.wire {
            Wire::Grpc => ("INVALID_ARGUMENT", "INVALID_NAME"),
            Wire::Http => ("NOT_FOUND", "METHOD_NOT_FOUND"),
        };
        failure.is(code, reason).says(&[&other.operation]);
        assert_eq!(dataproc.get(&other.operation).await, before);
        place.worker().report(own.item(Say::Success(DEPLOY.response()))).await.wants("STOP");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_needs_a_code_that_exists() {
    over_both_wires(async |place| {
        let (name, held) = running(&place).await;
        let fail = |code| held.item(Say::Failure(code, "broken".into(), false));
        place.worker().report(fail(0)).await.refused_as("INVALID_OUTCOME");
        for code in [-1, 17, i32::MAX] {
            place.worker().report(fail(code)).await.refused_as("INVALID_VALUE").says(&["code"]);
        }
        place.client().get(&name).await.is_running();
        place.worker().report(fail(9)).await.wants("STOP");
        let ended = place.client().get(&name).await;
        assert_eq!((ended.code, &*ended.message), (Some(9), "broken"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finish_may_be_repeated_when_its_answer_was_lost() {
    everywhere(async |place| {
        let (name, held) = running(&place).await;
        for _ in 0..3 {
            let success = held.item(Say::Success(DEPLOY.response()));
            assert_eq!(place.worker().report(success).await.wants("STOP").because, "DONE");
        }
        let other = Typed::named(DEPLOY.response_type, "another");
        place.worker().report(held.item(Say::Success(other))).await.refused_as("LEASE_LOST");
        assert!(place.client().get(&name).await.response.is_some());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_see_the_metadata_that_workers_write() {
    let server = crate::harness::Server::start(crate::harness::Kept::InMemory).await;
    for wire in [Wire::Http, Wire::Grpc] {
        let client = crate::harness::Client::new(server.address, Wire::Http, &DATAPROC, "p");
        let worker = Worker::new(server.address, wire, "w");
        let name = client.start("a").await.name;
        let held = worker.claim(&name).await;
        let metadata = Typed {
            type_name: DATAPROC.metadata_type,
            json: json!({ "warnings": ["the disk is slow"] }),
            bytes: b"\x72\x10the disk is slow".to_vec(),
        };
        let item = Item { metadata: Some(metadata), ..held.item(Say::Alive) };
        worker.report(item).await.wants("CONTINUE");
        let seen = client.get(&name).await;
        assert_eq!(seen.json()["metadata"]["warnings"], json!(["the disk is slow"]));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_cannot_write_what_the_server_keeps_true() {
    everywhere(async |place| {
        let (name, held) = running(&place).await;
        let before = place.client().get(&name).await;
        let forged = Typed {
            type_name: DEPLOY.metadata_type,
            json: json!({ "requestedCancellation": true, "target": "elsewhere", "verb": "harm" }),
            bytes: b"\x1a\x09elsewhere\x22\x04harm\x30\x01".to_vec(),
        };
        let item = Item { metadata: Some(forged), ..held.item(Say::Alive) };
        place.worker().report(item).await.wants("CONTINUE");
        assert_eq!(place.client().get(&name).await, before);
        place.client().cancel(&name).await;
        let stopped = held.item(Say::Stopped(Effects::None));
        place.worker().report(stopped).await.wants("STOP");
        assert!(place.client().get(&name).await.is_cancelled().requested_cancellation);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_inside_an_any_is_refused() {
    over_both_wires(async |place| {
        let (name, held) = running(&place).await;
        let before = place.client().get(&name).await;
        let grpc = Place { wire: Wire::Grpc, ..place.clone() };
        let garbage =
            Typed { type_name: DEPLOY.response_type, json: json!({}), bytes: vec![0xff; 40] };
        let verdict = grpc.worker().report(held.item(Say::Success(garbage))).await;
        assert!(verdict.refused.is_some(), "{verdict:?}");
        assert_eq!(place.client().get(&name).await, before);
        // An `Any` without a type is of another type, too.
        let untyped = Any::default();
        assert_eq!(untyped.type_url, "");
        let nothing = Typed::empty("");
        let verdict = grpc.worker().report(held.item(Say::Success(nothing))).await;
        verdict.refused_as("TYPE_MISMATCH");
        assert_eq!(place.client().get(&name).await, before);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_that_no_api_has_is_named_in_the_refusal() {
    let server =
        std::sync::Arc::new(crate::harness::Server::start(crate::harness::Kept::InMemory).await);
    let place = Place::on(server.clone(), Wire::Http);
    let (name, held) = running(&place).await;
    let unknown = held.item(Say::Success(Typed::empty("acme.Unknown")));
    let failure = place.worker().try_report(vec![unknown], Duration::ZERO).await.unwrap_err();
    assert_eq!(failure.code, "INVALID_ARGUMENT");
    failure.says(&["acme.Unknown"]);
    place.client().get(&name).await.is_running();
    server.stop().await;
}
