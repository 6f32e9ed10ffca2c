//! Waiting: as long as asked and no longer, and woken at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use longhaul_wire::v1::Effects;

use crate::harness::client::Wire;
use crate::harness::samples::DEPLOY;
use crate::harness::{Client, Kept, Place, Say, Server, everywhere, soon};

/// Within what all waiters of one operation hear of its end.
const WAKE_ALL: Duration = Duration::from_millis(50);
/// How much longer a loaded machine may take in this test before it fails.
const LOADED: u32 = 4;
const WAITERS: usize = 200;

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_times_out_is_ok_and_not_done() {
    everywhere(async |place| {
        let client = place.client();
        let name = client.start("a").await.name;
        let before = Instant::now();
        let timeout = Duration::from_millis(200);
        client.try_wait(&name, Some(timeout), None).await.unwrap().is_running();
        assert!(before.elapsed() >= timeout, "{:?}", before.elapsed());
        client.try_wait(&name, Some(Duration::ZERO), None).await.unwrap().is_running();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_ends_before_its_callers_deadline() {
    everywhere(async |place| {
        let client = place.client();
        let name = client.start("a").await.name;
        let deadline = Some(Duration::from_secs(1));
        client.try_wait(&name, None, deadline).await.unwrap().is_running();
        let longer = Some(Duration::from_secs(600));
        client.try_wait(&name, longer, deadline).await.unwrap().is_running();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_on_a_done_operation_returns_at_once() {
    everywhere(async |place| {
        let client = place.client();
        let name = client.start("a").await.name;
        client.cancel(&name).await;
        client.try_wait(&name, None, None).await.unwrap().is_cancelled();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_goes_on_through_a_cancel_until_the_end() {
    everywhere(async |place| {
        let (client, worker) = (place.client(), place.worker());
        let name = client.start("a").await.name;
        let held = worker.claim(&name).await;
        let (waiting, waited_for) = (client.clone(), name.clone());
        let wait = tokio::spawn(async move { waiting.try_wait(&waited_for, None, None).await });
        client.cancel(&name).await;
        let short = Some(Duration::from_millis(100));
        let seen = client.try_wait(&name, short, None).await.unwrap();
        assert!(seen.is_running().requested_cancellation);
        assert!(!wait.is_finished(), "the cancel alone is no end");
        worker.report(held.item(Say::Stopped(Effects::None))).await.wants("STOP");
        soon("the wait", wait).await.unwrap().unwrap().is_cancelled();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_wait_cancels_nothing() {
    everywhere(async |place| {
        let (client, worker) = (place.client(), place.worker());
        let name = client.start("a").await.name;
        let held = worker.claim(&name).await;
        for _ in 0..10 {
            let gone = Client::new(client.address, Wire::Grpc, &DEPLOY, &*client.project);
            let waiting = gone.try_wait(&name, None, None);
            let cut = tokio::time::timeout(Duration::from_millis(20), waiting).await;
            assert!(cut.is_err(), "the wait was held: {cut:?}");
        }
        assert!(!client.get(&name).await.is_running().requested_cancellation);
        worker.report(held.item(Say::Alive)).await.wants("CONTINUE");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_negative_timeout_is_refused() {
    let server = Arc::new(Server::start(Kept::InMemory).await);
    let client = Place::on(server.clone(), Wire::Grpc).client();
    let name = client.start("a").await.name;
    let request = longhaul_wire::longrunning::WaitOperationRequest {
        name,
        timeout: Some(longhaul_wire::longrunning::Duration { seconds: -1, nanos: 0 }),
    };
    let path = "/google.longrunning.Operations/WaitOperation";
    let answer: Result<longhaul_wire::longrunning::Operation, _> =
        client.grpc().call(path, &request, None).await;
    answer.unwrap_err().is("INVALID_ARGUMENT", "INVALID_VALUE").says(&["timeout"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_is_never_longer_than_the_servers_limit() {
    let most = Duration::from_millis(200);
    let server = Server::with(Kept::InMemory, |config| config.limits.wait_max = most).await;
    let client = Client::new(server.address, Wire::Grpc, &DEPLOY, "p");
    let name = client.start("a").await.name;
    for timeout in [None, Some(Duration::from_secs(600))] {
        let before = Instant::now();
        client.try_wait(&name, timeout, None).await.unwrap().is_running();
        assert!(before.elapsed() >= most, "{:?}", before.elapsed());
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_beyond_the_limit_of_held_calls_answers_at_once() {
    let server = Server::with(Kept::InMemory, |config| config.limits.held_calls_max = 0).await;
    let client = Client::new(server.address, Wire::Grpc, &DEPLOY, "p");
    let name = client.start("a").await.name;
    client.try_wait(&name, Some(Duration::from_secs(600)), None).await.unwrap().is_running();
    client.cancel(&name).await;
    client.get(&name).await.is_cancelled();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_waiters_hear_the_end_at_once() {
    for kept in [Kept::InMemory, Kept::OnDisk] {
        let server = Arc::new(Server::start(kept).await);
        let place = Place::on(server.clone(), Wire::Grpc);
        let (client, worker) = (place.client(), place.worker());
        let name = client.start("a").await.name;
        let held = worker.claim(&name).await;
        let connections: Vec<_> = (0..8).map(|_| place.client()).collect();
        let mut waits = tokio::task::JoinSet::new();
        for number in 0..WAITERS {
            let (waiting, name) = (connections[number % connections.len()].clone(), name.clone());
            waits.spawn(async move {
                let seen = waiting.try_wait(&name, None, None).await.unwrap();
                (seen, Instant::now())
            });
        }
        // Calls on one connection arrive in order: once these are answered, the waits are there.
        for connection in &connections {
            let short = Some(Duration::from_millis(50));
            connection.try_wait(&name, short, None).await.unwrap().is_running();
        }
        assert!(waits.try_join_next().is_none(), "nobody returns before the end");
        worker.report(held.item(Say::Success(DEPLOY.response()))).await.wants("STOP");
        let ended = Instant::now();
        let mut slowest = Duration::ZERO;
        for (seen, at) in soon("the waits", waits.join_all()).await {
            assert!(seen.response.is_some(), "{seen:?}");
            slowest = slowest.max(at.saturating_duration_since(ended));
        }
        println!("{kept:?}: {WAITERS} waiters heard the end within {slowest:?}");
        assert!(slowest <= WAKE_ALL * LOADED, "{slowest:?}");
        server.stop().await;
    }
}
