//! An orderly end: nothing is lost, and nobody is left hanging.

use std::sync::Arc;
use std::time::Duration;

use longhaul_wire::v1::Effects;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::client::Wire;
use crate::harness::samples::DEPLOY;
use crate::harness::server::config;
use crate::harness::{Ask, Claim, Client, Kept, Place, Say, Server, Worker, soon};

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_server_answers_held_calls_with_the_current_state() {
    for kept in [Kept::InMemory, Kept::OnDisk] {
        let server = Arc::new(Server::start(kept).await);
        let place = Place::on(server.clone(), Wire::Grpc);
        let (client, worker) = (place.client(), place.worker());
        let name = client.start("a").await.name;
        let held = worker.claim(&name).await;

        let mut waits = tokio::task::JoinSet::new();
        for _ in 0..10 {
            let (client, name) = (place.client(), name.clone());
            waits.spawn(async move { client.try_wait(&name, None, None).await });
        }
        let mut reports = tokio::task::JoinSet::new();
        let mut claims = tokio::task::JoinSet::new();
        for wire in [Wire::Http, Wire::Grpc] {
            let hanging = Place { wire, ..place.clone() }.worker();
            let (other, item) = (hanging.clone(), held.item(Say::Alive));
            reports.spawn(async move { other.report_waiting(item, Duration::from_secs(15)).await });
            let claim = Claim { wait: Duration::from_secs(15), ..Claim::default() };
            claims.spawn(async move { hanging.try_claim(&claim).await });
        }
        // The connections are there once each has answered something.
        let short = Some(Duration::from_millis(100));
        client.try_wait(&name, short, None).await.unwrap().is_running();

        server.stop().await;
        for answer in soon("the waits", waits.join_all()).await {
            match answer {
                Ok(seen) => {
                    seen.is_running();
                }
                Err(failure) => assert_eq!(failure.code, "UNAVAILABLE", "{failure:?}"),
            }
        }
        for verdict in soon("the reports", reports.join_all()).await {
            verdict.wants("CONTINUE");
        }
        for claimed in soon("the claims", claims.join_all()).await {
            assert_eq!(claimed, Ok(Vec::new()));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_server_is_not_ready() {
    let server = Arc::new(Server::start(Kept::InMemory).await);
    // A request that has begun before the end begins is still answered.
    let mut probe = TcpStream::connect(server.address).await.unwrap();
    probe.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\n").await.unwrap();
    let client = Client::new(server.address, Wire::Grpc, &DEPLOY, "p");
    let name = client.start("a").await.name;
    let short = Some(Duration::from_millis(50));
    client.try_wait(&name, short, None).await.unwrap().is_running();
    let stopping = tokio::spawn({
        let server = server.clone();
        async move { server.stop().await }
    });
    // The end has begun when the idle connection is closed on us.
    let waited = client.try_wait(&name, None, None).await;
    assert!(waited.is_err() || waited.is_ok_and(|seen| !seen.done));
    probe.write_all(b"Connection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    soon("the probe", probe.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    soon("the end", stopping).await.unwrap();
    assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_balancer_can_see_the_end_coming() {
    let change = |config: &mut longhaul_server::Config| config.lame_duck = Duration::from_secs(20);
    let server = Arc::new(Server::with(Kept::InMemory, change).await);
    let client = Client::new(server.address, Wire::Http, &DEPLOY, "p");
    let name = client.start("a").await.name;
    let stopping = tokio::spawn({
        let server = server.clone();
        async move { server.stop().await }
    });
    let seen = soon("readiness to go", async {
        while Ask::get("/readyz").send(server.address).await.code == 200 {}
        Ask::get("/readyz").send(server.address).await.code
    });
    assert_eq!(seen.await, 503, "not ready");
    // New connections and calls are still served meanwhile.
    assert!(!stopping.is_finished());
    client.get(&name).await.is_running();
    stopping.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_there_after_a_restart() {
    let server = Server::start(Kept::OnDisk).await;
    let client = Client::new(server.address, Wire::Http, &DEPLOY, "p");
    let worker = Worker::new(server.address, Wire::Http, "w");
    let mut started = Vec::new();
    for id in ["queued", "running", "cancelling", "done", "cancelled", "deleted"] {
        started.push(client.start(id).await.name);
    }
    let [queued, running, cancelling, done, cancelled, deleted] =
        <[String; 6]>::try_from(started).unwrap();
    client.cancel(&cancelled).await;
    let running_held = worker.claim(&running).await;
    let cancelling_held = worker.claim(&cancelling).await;
    client.cancel(&cancelling).await;
    let held = worker.claim(&done).await;
    worker.report(held.item(Say::Success(DEPLOY.response()))).await.wants("STOP");
    client.try_delete(&deleted).await.unwrap();
    let queued_held = worker.claim(&queued).await;
    worker.report(queued_held.item(Say::Release)).await.wants("STOP");
    let before = client.list("").await;
    server.stop().await;

    let again = longhaul_server::serve(config(Some(server.folder()), |_| {})).await.unwrap();
    let client = Client::new(again.address(), Wire::Http, &DEPLOY, "p");
    let worker = Worker::new(again.address(), Wire::Http, "w");
    let after = client.list("").await;
    assert_eq!(after.operations, before.operations);
    client.try_get(&deleted).await.unwrap_err().is("NOT_FOUND", "OPERATION_NOT_FOUND");
    worker.report(running_held.item(Say::Alive)).await.wants("CONTINUE");
    let stopped = cancelling_held.item(Say::Stopped(Effects::None));
    worker.report(stopped).await.wants("STOP");
    client.get(&cancelling).await.is_cancelled();
    let reclaimed = worker.claim(&queued).await;
    assert!(reclaimed.epoch > queued_held.epoch, "epochs are never reset");
    soon("the end", again.stop()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn page_tokens_survive_a_restart() {
    let server = Server::start(Kept::OnDisk).await;
    let client = Client::new(server.address, Wire::Http, &DEPLOY, "p");
    for id in ["a", "b", "c"] {
        client.start(id).await;
    }
    let page = |token: &str| crate::harness::client::List {
        page_size: 2,
        page_token: token.into(),
        ..Default::default()
    };
    let token = client.try_list(&page("")).await.unwrap().next;
    server.stop().await;
    let again = longhaul_server::serve(config(Some(server.folder()), |_| {})).await.unwrap();
    let client = Client::new(again.address(), Wire::Http, &DEPLOY, "p");
    assert_eq!(client.try_list(&page(&token)).await.unwrap().operations.len(), 1);
    soon("the end", again.stop()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_on_the_same_folder_is_refused() {
    let server = Server::start(Kept::OnDisk).await;
    let client = Client::new(server.address, Wire::Http, &DEPLOY, "p");
    let refused = longhaul_server::serve(config(Some(server.folder()), |_| {})).await;
    let Err(error) = refused else { panic!("a second server opened the folder") };
    assert_eq!(error.reason.name(), "STORE_IN_USE", "{error}");
    assert!(error.message.contains(&*server.folder().to_string_lossy()), "{error}");
    client.start("a").await;
    server.stop().await;
    let again = longhaul_server::serve(config(Some(server.folder()), |_| {})).await.unwrap();
    let client = Client::new(again.address(), Wire::Http, &DEPLOY, "p");
    assert_eq!(client.list("").await.operations.len(), 1);
    soon("the end", again.stop()).await;
}
