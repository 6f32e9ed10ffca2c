//! Parents and children: a cancel reaches all that belongs to what was cancelled, also across a kill, and
//! nothing more starts under it.

use std::sync::Arc;
use std::time::Duration;

use longhaul_wire::v1::{DescribeRequest, DetachRequest, DetachResponse, Effects, OperationDetail};
use tempfile::TempDir;

use crate::harness::client::Wire;
use crate::harness::process::Process;
use crate::harness::samples::{Asked, CAS, DEPLOY};
use crate::harness::{Ask, Client, Failure, Place, Say, Seen, Worker, everywhere, soon};

const HEADER: &str = "x-longhaul-parent-operation";

/// Starts an operation under a parent.
async fn start_under(client: &Client, id: &str, parent: &str) -> Result<Seen, Failure> {
    let asked = Asked { id, ..Asked::default() };
    match client.wire {
        Wire::Http => {
            let path = client.sample.start_path(&client.project, asked);
            let body = client.sample.start_body(&client.project, asked);
            let ask = Ask::post_json(path, &body).host(client.sample.host).header(HEADER, parent);
            let answer = ask.try_send(client.address).await;
            let answer = answer.map_err(|error| Failure::unreachable(&error))?;
            match answer.code {
                200 => Ok(Seen::from_json(&answer.ok())),
                _ => Err(Failure::from_envelope(&answer.json())),
            }
        }
        Wire::Grpc => {
            let message = client.sample.start_message(&client.project, asked).into();
            let path = client.sample.grpc_path();
            let with = [(HEADER, parent)];
            let answer = soon("a start", client.grpc().call_with(&path, message, &with)).await?;
            let operation: longhaul_wire::longrunning::Operation =
                prost::Message::decode(answer).unwrap();
            Ok(Seen::from_message(&operation))
        }
    }
}

async fn child(client: &Client, id: &str, parent: &str) -> String {
    start_under(client, id, parent).await.unwrap().name
}

async fn describe(client: &Client, name: &str) -> OperationDetail {
    let request = DescribeRequest { name: name.into() };
    let path = "/longhaul.v1.Operators/Describe";
    soon("a description", client.grpc().call(path, &request, None)).await.unwrap()
}

async fn detach(client: &Client, name: &str) -> bool {
    if client.wire == Wire::Http {
        let ask = Ask::post(format!("/longhaul/v1/{name}:detach"));
        return ask.send(client.address).await.ok()["detached"] == true;
    }
    let request = DetachRequest { name: name.into() };
    let path = "/longhaul.v1.Operators/Detach";
    let answer = soon("a detach", client.grpc().call(path, &request, None)).await;
    let answer: DetachResponse = answer.unwrap();
    answer.detached
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_15_a_cancel_reaches_children_and_grandchildren() {
    everywhere(async |place: Place| {
        let (client, worker) = (place.client(), place.worker());
        let parent = client.start("parent").await.name;
        let held = worker.claim(&parent).await;
        let running = child(&client, "running", &parent).await;
        let held_child = worker.claim(&running).await;
        let queued = child(&client, "queued", &parent).await;
        // A child may be of another API.
        let grandchild = child(&place.client_of(&CAS), "grandchild", &running).await;
        let seen = describe(&client, &parent).await;
        assert_eq!(seen.children, [running.clone(), queued.clone()]);
        assert_eq!(describe(&client, &grandchild).await.parent_operation, running);

        client.cancel(&parent).await;
        client.done(&queued).await.is_cancelled();
        place.client_of(&CAS).done(&grandchild).await.is_cancelled();
        let wait = Duration::from_secs(10);
        let verdict = worker.report_waiting(held_child.item(Say::Alive), wait).await;
        assert_eq!(verdict.wants("CANCEL").because, "CLIENT_CANCEL");
        let cancel = describe(&client, &running).await.cancel.unwrap();
        assert!(cancel.reason.contains(&parent), "{cancel:?}");
        worker.report(held_child.item(Say::Stopped(Effects::None))).await.wants("STOP");
        client.get(&running).await.is_cancelled();
        worker.report(held.item(Say::Stopped(Effects::None))).await.wants("STOP");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_15_nothing_starts_under_a_cancelled_parent() {
    everywhere(async |place: Place| {
        let (client, worker) = (place.client(), place.worker());
        let refused =
            async |id: &str, parent: &str| start_under(&client, id, parent).await.unwrap_err();
        let parent = client.start("parent").await.name;
        let held = worker.claim(&parent).await;
        client.cancel(&parent).await;
        let failure = refused("late", &parent).await;
        failure.is("FAILED_PRECONDITION", "PARENT_CANCELLED").says(&[&parent]);
        worker.report(held.item(Say::Stopped(Effects::None))).await.wants("STOP");
        refused("later", &parent).await.is("FAILED_PRECONDITION", "PARENT_CANCELLED");

        let done = client.start("done").await.name;
        let held = worker.claim(&done).await;
        worker.report(held.item(Say::Success(client.sample.response()))).await.wants("STOP");
        refused("b", &done).await.is("FAILED_PRECONDITION", "PARENT_DONE").says(&[&done]);
        let nobody = format!("{}/operations/nobody", client.parent());
        refused("c", &nobody).await.is("NOT_FOUND", "OPERATION_NOT_FOUND").says(&[&nobody]);
        refused("d", "a//b").await.is("INVALID_ARGUMENT", "INVALID_NAME");
        assert_eq!(client.list("").await.operations.len(), 2, "a refused start leaves nothing");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_15_a_detached_child_outlives_its_parent() {
    everywhere(async |place: Place| {
        let client = place.client();
        let parent = client.start("parent").await.name;
        let kept = child(&client, "kept", &parent).await;
        let goes = child(&client, "goes", &parent).await;
        assert!(detach(&client, &kept).await);
        assert!(!detach(&client, &kept).await, "it has no parent any more");
        assert_eq!(describe(&client, &parent).await.children, std::slice::from_ref(&goes));
        client.cancel(&parent).await;
        client.done(&goes).await.is_cancelled();
        let seen = describe(&client, &kept).await;
        assert!(seen.cancel.is_none() && seen.parent_operation.is_empty(), "{seen:?}");
        let detached = seen.timeline.iter().find(|event| event.event == "DETACHED").unwrap();
        assert!(detached.message.contains(&parent), "{detached:?}");
        client.get(&kept).await.is_running();
        client.cancel(&kept).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_that_ends_well_leaves_its_children_alone() {
    everywhere(async |place: Place| {
        let (client, worker) = (place.client(), place.worker());
        let parent = client.start("parent").await.name;
        let held = worker.claim(&parent).await;
        let child = child(&client, "child", &parent).await;
        worker.report(held.item(Say::Success(client.sample.response()))).await.wants("STOP");
        client.cancel(&parent).await;
        client.try_delete(&parent).await.unwrap();
        let held = worker.claim(&child).await;
        worker.report(held.item(Say::Success(client.sample.response()))).await.wants("STOP");
        assert!(client.get(&child).await.response.is_some());
    })
    .await;
}

/// The server is killed at the moment the parent's cancel is acknowledged: some children have followed,
/// most have not.
#[tokio::test(flavor = "multi_thread")]
async fn peers_15_a_cascade_survives_kill_9() {
    let folder = TempDir::new().unwrap();
    let text = format!("listen = \"127.0.0.1:0\"\ndata = {:?}\n", folder.path().join("data"));
    let mut process = Process::serve(&text).await;
    for round in 0..4 {
        let client = Client::new(process.address, Wire::Http, &DEPLOY, format!("round-{round}"));
        let worker = Worker::new(process.address, Wire::Http, "w");
        let parent = client.start("parent").await.name;
        let held = worker.claim(&parent).await;
        let first = child(&client, "first", &parent).await;
        let client = Arc::new(client);
        let starts: Vec<_> = (0..300)
            .map(|number| {
                // Every third one is a grandchild.
                let under = if number % 3 == 0 { first.clone() } else { parent.clone() };
                let client = client.clone();
                tokio::spawn(async move { child(&client, &format!("c{number}"), &under).await })
            })
            .collect();
        let mut names = vec![first];
        for start in starts {
            names.push(start.await.unwrap());
        }
        client.cancel(&parent).await;
        process.kill().await;

        process = Process::serve(&text).await;
        let client = Client::new(process.address, Wire::Grpc, &DEPLOY, format!("round-{round}"));
        for name in &names {
            client.done(name).await.is_cancelled();
        }
        let worker = Worker::new(process.address, Wire::Http, "w");
        worker.report(held.item(Say::Stopped(Effects::None))).await.wants("STOP");
    }
    assert_eq!(process.terminate().await, Some(0));
}
