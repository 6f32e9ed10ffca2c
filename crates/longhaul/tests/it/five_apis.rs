//! What each of the five bundled APIs promises about its operations.

use serde_json::json;

use crate::harness::client::Wire;
use crate::harness::samples::{ALL, BATCH, CAS, DATAPROC, DEPLOY};
use crate::harness::{Ask, Client, Kept, Say, Seen, Server, Worker, everywhere, over_both_wires};
use longhaul_wire::v1::Effects;

#[tokio::test(flavor = "multi_thread")]
async fn each_api_starts_an_operation_and_cancels_it() {
    everywhere(async |place| {
        for sample in ALL {
            let client = place.client_of(sample);
            let started = client.start("a").await;
            assert!(started.name.starts_with(&format!("{}/operations/", client.parent())));
            assert_eq!(started.metadata_type, sample.metadata_type);
            assert!(!started.is_running().requested_cancellation);

            let held = place.worker().claim(&started.name).await;
            assert_eq!((&*held.api, &*held.method), (sample.host, sample.method));
            assert_eq!(held.response_type, sample.response_type);
            client.cancel(&started.name).await;
            let asked = client.get(&started.name).await;
            assert_eq!(asked.is_running().requested_cancellation, sample.tells_cancellation);

            place.worker().report(held.item(Say::Stopped(Effects::None))).await.wants("STOP");
            let ended = client.get(&started.name).await;
            assert_eq!(ended.is_cancelled().requested_cancellation, sample.tells_cancellation);
            assert_eq!(ended.metadata_type, sample.metadata_type);
            assert_eq!(client.list("").await.names(), [&started.name]);

            client.cancel(&started.name).await;
            assert_eq!(client.get(&started.name).await, ended, "cancel after done changes nothing");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_api_ends_with_its_declared_response() {
    over_both_wires(async |place| {
        for sample in ALL {
            let client = place.client_of(sample);
            let started = client.start("a").await;
            let held = place.worker().claim(&started.name).await;
            place.worker().report(held.item(Say::Success(sample.response()))).await.wants("STOP");
            let ended = client.get(&started.name).await;
            assert_eq!(ended.response.as_deref(), Some(sample.response_type), "{ended:?}");
            assert!(!ended.requested_cancellation);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_takes_nothing_or_an_empty_object_and_answers_one() {
    let server = Server::start(Kept::InMemory).await;
    let json = ("content-type", "application/json");
    for sample in ALL {
        let place = Client::new(server.address, Wire::Http, sample, "p");
        let started = place.start("a").await;
        let path = format!("/v1/{}:cancel", started.name);
        let ask = || Ask::post(&path).host(sample.host);
        ask().send(server.address).await.empty_object();
        ask().body("{}").send(server.address).await.empty_object();
        ask().header(json.0, json.1).send(server.address).await.empty_object();
        ask().header(json.0, json.1).body("{}").send(server.address).await.empty_object();
        ask().body(" {\n} ").send(server.address).await.empty_object();
        let bare = Ask::post(format!("{path}?")).host(sample.host).body("{}");
        bare.send(server.address).await.empty_object();
        let alt = Ask::post(format!("{path}?%24alt=json%3Benum-encoding%3Dint")).host(sample.host);
        alt.body("{}").send(server.address).await.empty_object();
        place.get(&started.name).await.is_cancelled();
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_with_any_other_body_is_refused_and_changes_nothing() {
    let server = Server::start(Kept::InMemory).await;
    let bodies = [
        r#"{"reason":"because"}"#,
        r#"{"name":"projects/p/locations/here/operations/other"}"#,
        "[]",
        "null",
        "0",
        "\"\"",
        "{",
        "{}{}",
        "now",
        "\u{0}",
    ];
    for sample in ALL {
        let client = Client::new(server.address, Wire::Http, sample, "p");
        let started = client.start("a").await;
        for body in bodies {
            let ask = Ask::post(format!("/v1/{}:cancel", started.name)).host(sample.host);
            let failure = ask.body(body).send(server.address).await.failure(400);
            assert_eq!(
                (&*failure.code, &*failure.domain),
                ("INVALID_ARGUMENT", sample.host),
                "{body}"
            );
            assert_eq!(client.get(&started.name).await, started, "{body}");
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn absent_operations_are_not_found() {
    everywhere(async |place| {
        for sample in ALL {
            let client = place.client_of(sample);
            let name = format!("{}/operations/operation-1-2-3-4", client.parent());
            let refusals = [
                client.try_get(&name).await.unwrap_err(),
                client.try_cancel(&name).await.unwrap_err(),
                client.try_delete(&name).await.unwrap_err(),
                client.try_wait(&name, None, None).await.unwrap_err(),
            ];
            for failure in refusals {
                failure.is("NOT_FOUND", "OPERATION_NOT_FOUND").says(&[&name]);
                assert_eq!(failure.domain, sample.host);
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_operation_is_404_in_googles_envelope() {
    let server = Server::start(Kept::InMemory).await;
    for sample in ALL {
        let path = format!("/v1/{}/operations/gone", sample.parent("p"));
        for ask in [Ask::get(&path), Ask::post(format!("{path}:cancel")), Ask::delete(&path)] {
            let answer = ask.host(sample.host).send(server.address).await;
            answer.failure(404).is("NOT_FOUND", "OPERATION_NOT_FOUND");
            let json = answer.json();
            assert_eq!(json["error"]["code"], json!(404));
            assert_eq!(json["error"]["status"], json!("NOT_FOUND"));
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_api_does_not_see_the_operations_of_another() {
    over_both_wires(async |place| {
        let (deploy, cas) = (place.client_of(&DEPLOY), place.client_of(&CAS));
        let (one, other) = (deploy.start("a").await, cas.start("a").await);
        assert_eq!(deploy.list("").await.names(), [&one.name]);
        assert_eq!(cas.list("").await.names(), [&other.name]);
        deploy.try_get(&other.name).await.unwrap_err().is("NOT_FOUND", "OPERATION_NOT_FOUND");
        deploy.try_cancel(&other.name).await.unwrap_err().is("NOT_FOUND", "OPERATION_NOT_FOUND");
        deploy.try_delete(&other.name).await.unwrap_err().is("NOT_FOUND", "OPERATION_NOT_FOUND");
        assert_eq!(cas.get(&other.name).await, other);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dataproc_tells_its_state_in_its_own_words() {
    let server = Server::start(Kept::OnDisk).await;
    let client = Client::new(server.address, Wire::Http, &DATAPROC, "p");
    let worker = Worker::new(server.address, Wire::Http, "w");
    let started = client.start("one").await;
    let state = |seen: &Seen| seen.json()["metadata"]["status"]["state"].clone();
    assert_eq!(state(&started), "PENDING");
    assert_eq!(started.json()["metadata"]["clusterName"], "one");
    assert_eq!(started.json()["metadata"]["operationType"], "CREATE");
    let held = worker.claim(&started.name).await;
    assert_eq!(state(&client.get(&started.name).await), "RUNNING");
    client.cancel(&started.name).await;
    assert_eq!(state(&client.get(&started.name).await), "RUNNING");
    worker.report(held.item(Say::Stopped(Effects::None))).await.wants("STOP");
    let ended = client.get(&started.name).await;
    assert_eq!(state(ended.is_cancelled()), "DONE");
    let history = &ended.json()["metadata"]["statusHistory"];
    let states: Vec<_> =
        history.as_array().unwrap().iter().map(|earlier| earlier["state"].clone()).collect();
    assert_eq!(states, ["PENDING", "RUNNING"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_batch_operations_keeps_its_job_true() {
    let server = Server::start(Kept::InMemory).await;
    let client = Client::new(server.address, Wire::Http, &BATCH, "p");
    let worker = Worker::new(server.address, Wire::Http, "w");
    let started = client.start("one").await;
    let metadata = |seen: &Seen| seen.json()["metadata"].clone();
    assert_eq!(metadata(&started)["operation"], started.name);
    assert_eq!(metadata(&started)["job"]["name"], "projects/p/locations/here/jobs/one");
    assert_eq!(metadata(&started)["job"]["state"], "QUEUED");
    let held = worker.claim(&started.name).await;
    assert_eq!(metadata(&client.get(&started.name).await)["job"]["state"], "RUNNING");
    client.cancel(&started.name).await;
    worker.report(held.item(Say::Stopped(Effects::None))).await.wants("STOP");
    let ended = client.get(&started.name).await;
    assert_eq!(metadata(ended.is_cancelled())["job"]["state"], "CANCELED");
    assert!(metadata(&ended)["endTime"].is_string());
    server.stop().await;
}
