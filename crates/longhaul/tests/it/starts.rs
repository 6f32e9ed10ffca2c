//! Starting: what is checked, what is kept, and that a repeat starts nothing twice.

use std::collections::HashSet;

use serde_json::json;

use crate::harness::client::Wire;
use crate::harness::samples::{ALL, Asked, DATAPROC, DEPLOY};
use crate::harness::{Ask, Client, Kept, Place, Say, Server, everywhere, over_both_wires};

const REQUEST_ID: &str = "0f2cb1e4-5a45-4a0c-bb7e-3c1d1d9b0a01";

fn asked<'a>(id: &'a str, request_id: &'a str) -> Asked<'a> {
    Asked { id, request_id, validate_only: false }
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_20_a_repeated_start_returns_the_first_operation() {
    everywhere(async |place| {
        for sample in ALL {
            let client = place.client_of(sample);
            let first = client.try_start(asked("a", REQUEST_ID)).await.unwrap();
            let again = client.try_start(asked("a", REQUEST_ID)).await.unwrap();
            assert_eq!(again, first, "{}", sample.host);
            let other = client.try_start(asked("b", REQUEST_ID)).await.unwrap_err();
            other.is("INVALID_ARGUMENT", "REQUEST_ID_REUSED");
            let another =
                client.try_start(asked("a", &REQUEST_ID.replace('0', "1"))).await.unwrap();
            assert_ne!(another.name, first.name);
            assert_eq!(client.list("").await.operations.len(), 2);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_repeated_over_the_other_wire_is_the_same_start() {
    over_both_wires(async |place| {
        for sample in ALL {
            let over = |wire| Place { wire, ..place.clone() }.client_of(sample);
            let first = over(Wire::Http).try_start(asked("a", REQUEST_ID)).await.unwrap();
            let again = over(Wire::Grpc).try_start(asked("a", REQUEST_ID)).await.unwrap();
            assert_eq!(again.name, first.name, "{}", sample.host);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repeats_at_once_start_one_operation() {
    everywhere(async |place| {
        let client = place.client();
        let mut starts = tokio::task::JoinSet::new();
        for _ in 0..30 {
            let client = client.clone();
            starts
                .spawn(async move { client.try_start(asked("a", REQUEST_ID)).await.unwrap().name });
        }
        let names: HashSet<_> = starts.join_all().await.into_iter().collect();
        assert_eq!(names.len(), 1, "{names:?}");
        assert_eq!(client.list("").await.operations.len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_finds_the_operation_as_it_stands() {
    everywhere(async |place| {
        let (client, worker) = (place.client(), place.worker());
        let first = client.try_start(asked("a", REQUEST_ID)).await.unwrap();
        let held = worker.claim(&first.name).await;
        worker.report(held.item(Say::Success(DEPLOY.response()))).await.wants("STOP");
        let again = client.try_start(asked("a", REQUEST_ID)).await.unwrap();
        assert_eq!(again, client.get(&first.name).await);
        assert!(again.done);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_id_under_two_parents_is_two_requests() {
    over_both_wires(async |place| {
        let other = Place { project: format!("{}-b", place.project), ..place.clone() };
        let first = place.client().try_start(asked("a", REQUEST_ID)).await.unwrap();
        let second = other.client().try_start(asked("a", REQUEST_ID)).await.unwrap();
        assert_ne!(first.name, second.name);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_zero_uuid_is_no_request_id() {
    over_both_wires(async |place| {
        let zero = asked("a", "00000000-0000-0000-0000-000000000000");
        let failure = place.client().try_start(zero).await.unwrap_err();
        failure.is("INVALID_ARGUMENT", "INVALID_VALUE").says(&["request_id"]);
        let long = "r".repeat(129);
        let failure = place.client().try_start(asked("a", &long)).await.unwrap_err();
        failure.is("INVALID_ARGUMENT", "INVALID_VALUE").says(&["request_id"]);
        assert!(place.client().list("").await.operations.is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn validate_only_stores_nothing() {
    everywhere(async |place| {
        let client = place.client();
        let only = Asked { validate_only: true, ..asked("a", REQUEST_ID) };
        let checked = client.try_start(only).await.unwrap();
        assert!(checked.done && checked.response.as_deref() == Some(DEPLOY.response_type));
        assert!(client.list("").await.operations.is_empty());
        assert!(
            place
                .worker()
                .claim_now()
                .await
                .iter()
                .all(|held| !held.operation.contains(&*place.project))
        );
        let missing = Asked { id: "", ..only };
        client
            .try_start(missing)
            .await
            .unwrap_err()
            .is("INVALID_ARGUMENT", "REQUIRED_FIELD_MISSING");
        let real = client.try_start(asked("b", REQUEST_ID)).await.unwrap();
        assert!(!real.done, "the check has not taken the request id");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_required_field_must_be_there() {
    over_both_wires(async |place| {
        for sample in ALL {
            let client = place.client_of(sample);
            let missing = client.try_start(Asked::default()).await;
            // Dataproc's id is inside the cluster, which is not looked into.
            if sample.host == DATAPROC.host {
                missing.unwrap();
            } else {
                missing.unwrap_err().is("INVALID_ARGUMENT", "REQUIRED_FIELD_MISSING");
                assert!(client.list("").await.operations.is_empty());
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_are_unique_across_apis_and_projects() {
    over_both_wires(async |place| {
        let mut starts = tokio::task::JoinSet::new();
        for number in 0..40 {
            for sample in ALL {
                let client = place.client_of(sample);
                let id = format!("a{number}");
                starts.spawn(async move { client.try_start(asked(&id, "")).await.unwrap() });
            }
        }
        let started = starts.join_all().await;
        let ids: HashSet<_> = started.iter().map(|seen| seen.id()).collect();
        assert_eq!(ids.len(), started.len());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_is_filled_from_the_request_and_kept_true() {
    let server = Server::start(Kept::InMemory).await;
    let client = Client::new(server.address, Wire::Http, &DEPLOY, "p");
    let worker = crate::harness::Worker::new(server.address, Wire::Http, "w");
    let started = client.start("a").await;
    let metadata = &started.json()["metadata"];
    assert_eq!(metadata["target"], "projects/p/locations/here/targets/a");
    assert_eq!(metadata["verb"], "create");
    assert_eq!(metadata["apiVersion"], "v1");
    assert!(metadata["createTime"].as_str().unwrap().ends_with('Z'));
    assert!(metadata.get("endTime").is_none());
    let held = worker.claim(&started.name).await;
    worker.report(held.item(Say::Success(DEPLOY.response()))).await.wants("STOP");
    let ended = client.get(&started.name).await;
    let after = &ended.json()["metadata"];
    assert_eq!(after["createTime"], metadata["createTime"]);
    assert!(after["endTime"].as_str().unwrap() >= after["createTime"].as_str().unwrap());
    assert_eq!(ended.json()["response"]["name"], "made");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_request_reaches_the_worker() {
    let server = Server::start(Kept::OnDisk).await;
    let client = Client::new(server.address, Wire::Http, &DEPLOY, "p");
    let path = DEPLOY.start_path("p", Asked { id: "a", ..Asked::default() });
    let body = json!({
        "description": "für alle",
        "labels": { "b": "2", "a": "1" },
        "requireApproval": true,
        "executionConfigs": [{ "usages": ["RENDER", 2], "executionTimeout": "3.5s" }],
    });
    Ask::post_json(path, &body).host(DEPLOY.host).send(server.address).await.ok();
    let claim = json!({ "worker": "w", "max": 1 });
    let answer = Ask::post_json("/longhaul/v1/leases:claim", &claim).send(server.address).await;
    let request = answer.ok()["assignments"][0]["request"].clone();
    let mut target = body.clone();
    target["executionConfigs"][0]["usages"] = json!(["RENDER", "DEPLOY"]);
    target["executionConfigs"][0]["executionTimeout"] = json!("3.500s");
    assert_eq!(request["@type"], "type.googleapis.com/google.cloud.deploy.v1.CreateTargetRequest");
    assert_eq!(request["parent"], client.parent());
    assert_eq!(request["targetId"], "a");
    assert_eq!(request["target"], target);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_fields_are_refused_in_googles_words() {
    let server = Server::start(Kept::InMemory).await;
    let path = DEPLOY.start_path("p", Asked { id: "a", ..Asked::default() });
    let send = |path: String, body: serde_json::Value| {
        Ask::post_json(path, &body).host(DEPLOY.host).send(server.address)
    };
    let failure = send(path.clone(), json!({ "colour": "red" })).await.failure(400);
    failure.is("INVALID_ARGUMENT", "UNKNOWN_FIELD");
    failure.says(&["Unknown name \"colour\"", "Cannot find field"]);
    let failure = send(format!("{path}&colour=red"), json!({})).await.failure(400);
    failure.is("INVALID_ARGUMENT", "UNKNOWN_FIELD");
    failure.says(&["Unknown name \"colour\"", "Cannot bind query parameter"]);
    for (body, word) in [
        (json!({ "labels": [] }), "labels"),
        (json!({ "requireApproval": "perhaps" }), "require"),
        (json!([]), ""),
    ] {
        let failure = send(path.clone(), body).await.failure(400);
        assert_eq!(failure.code, "INVALID_ARGUMENT");
        failure.says(&[word]);
    }
    let client = Client::new(server.address, Wire::Http, &DEPLOY, "p");
    assert!(client.list("").await.operations.is_empty());
    server.stop().await;
}
