//! The Rust client against a real server: starts that are safe to repeat, typed ends, cancels with a
//! reason, and watches that outlive their line.

use std::sync::Arc;
use std::time::Duration;

use longhaul_client::operations::{
    CancelOutcome, Change, Client, Error, State, Typed, WaitOptions, Watch,
};
use longhaul_client::worker::{Context, Unfinished, Worker};
use longhaul_wire::v1;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::harness::client::Wire;
use crate::harness::operators::Operators;
use crate::harness::proxy::Proxy;
use crate::harness::samples::DEPLOY;
use crate::harness::{Kept, Server, soon};

const PARENT: &str = "projects/p/locations/l";

/// google.cloud.deploy.v1.CreateTargetRequest, as far as it matters here.
#[derive(Clone, PartialEq, prost::Message)]
struct Create {
    #[prost(string, tag = "1")]
    parent: String,
    #[prost(string, tag = "2")]
    id: String,
    #[prost(message, optional, tag = "3")]
    target: Option<Target>,
    #[prost(string, tag = "4")]
    request_id: String,
}

/// google.cloud.deploy.v1.Target.
#[derive(Clone, PartialEq, prost::Message)]
struct Target {
    #[prost(string, tag = "1")]
    name: String,
}

/// google.cloud.deploy.v1.OperationMetadata.
#[derive(Clone, PartialEq, prost::Message)]
struct Metadata {
    #[prost(string, tag = "3")]
    target: String,
    #[prost(bool, tag = "6")]
    requested_cancellation: bool,
}

fn create(id: &str) -> Create {
    let (parent, target) = (PARENT.to_owned(), Some(Target::default()));
    Create { parent, id: id.to_owned(), target, request_id: String::new() }
}

async fn server() -> (Arc<Server>, Client) {
    let server = Arc::new(Server::start(Kept::InMemory).await);
    let client = client(server.address);
    (server, client)
}

fn client(address: std::net::SocketAddr) -> Client {
    Client::new(&format!("http://{address}")).unwrap().with_api("clouddeploy").unwrap()
}

async fn described(server: &Server, name: &str) -> v1::OperationDetail {
    Operators::new(server.address, Wire::Grpc).describe(name).await
}

fn soon_done() -> WaitOptions {
    let first_interval = Duration::from_millis(5);
    WaitOptions { first_interval, max_interval: 10 * first_interval, ..WaitOptions::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_typed_start_gets_a_request_id_and_its_end_is_read_typed() {
    let (server, client) = server().await;
    let handle = client.start(DEPLOY.method, &create("a")).await.unwrap();
    let other = client.start(DEPLOY.method, &create("b")).await.unwrap();
    let drawn = described(&server, handle.name()).await.request_id;
    assert_eq!(drawn.len(), 36, "{drawn:?}");
    assert_ne!(drawn, described(&server, other.name()).await.request_id);
    let again = Create { request_id: drawn, ..create("a") };
    assert_eq!(client.start(DEPLOY.method, &again).await.unwrap().name(), handle.name());

    let worker = Worker::builder(format!("http://{}", server.address))
        .handle(DEPLOY.method, |request: Create, _: Context| async move {
            match request.id.as_str() {
                "a" => Ok(Target { name: "made".into() }),
                _ => Err(Unfinished::failed(9, "no room")),
            }
        })
        .build()
        .unwrap();
    let shutdown = CancellationToken::new();
    let working = tokio::spawn(worker.run(shutdown.clone()));
    let done: Typed<Metadata, Target> =
        soon("the end", handle.wait_typed(&soon_done())).await.unwrap();
    assert_eq!(done.metadata.unwrap().target, format!("{PARENT}/targets/a"));
    assert_eq!(done.result, Some(Ok(Target { name: "made".into() })));
    let failed: Typed<Metadata, Target> =
        soon("the end", other.wait_typed(&soon_done())).await.unwrap();
    let error = failed.result.unwrap().unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (9, "no room"));
    shutdown.cancel();
    soon("the worker's end", working).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_as_json_gets_a_request_id_unless_told_otherwise() {
    let (server, client) = server().await;
    let path = format!("{PARENT}/targets");
    let start = async |query: &[(&str, &str)]| {
        let handle = client.start_json(&path, query, &json!({})).await.unwrap();
        described(&server, handle.name()).await
    };
    assert_eq!(start(&[("targetId", "a")]).await.request_id.len(), 36);
    let own = "0d0b45a3-54d2-4cc3-a5c6-cbe8bd0ee78a";
    let given = start(&[("targetId", "b"), ("requestId", own)]).await;
    assert_eq!(given.request_id, own);
    assert_eq!(start(&[("targetId", "c"), ("requestId", "")]).await.request_id, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_start_is_refused_with_its_reason() {
    let (_server, client) = server().await;
    let error = client.start("nonsense", &create("a")).await.unwrap_err();
    assert!(matches!(error, Error::InvalidArgument(_)), "{error:?}");
    let error = client.start("library.v1.Library.Import", &create("a")).await.unwrap_err();
    let Error::Status(status) = &error else { panic!("{error:?}") };
    assert_eq!((status.http, status.status.as_str()), (501, "UNIMPLEMENTED"));
    let nowhere = Create { parent: "projects".into(), ..create("a") };
    let error = client.start(DEPLOY.method, &nowhere).await.unwrap_err();
    assert!(error.reason().is_some(), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_says_why_and_hears_what_came_of_it() {
    let (server, client) = server().await;
    let handle = client.start(DEPLOY.method, &create("a")).await.unwrap();
    assert_eq!(handle.cancel_because("typo").await.unwrap(), CancelOutcome::Cancelled);
    assert_eq!(handle.cancel_because("again").await.unwrap(), CancelOutcome::AlreadyDone);
    let cancel = described(&server, handle.name()).await.cancel.unwrap();
    assert_eq!(cancel.reason, "typo");
    assert_eq!(handle.poll().await.unwrap().state(), State::Cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_20_the_rust_client_cancels_before_the_name_is_known() {
    let (_server, client) = server().await;
    let request_id = "3f1b2fb8-4b4e-4b6a-9d5b-0d7f6f1c5a11";
    let (handle, _) =
        client.cancel_by_request_id("clouddeploy", PARENT, request_id, "late").await.unwrap();
    let request = Create { request_id: request_id.into(), ..create("a") };
    let started = client.start(DEPLOY.method, &request).await.unwrap();
    assert_eq!(started.name(), handle.name());
    assert_eq!(started.poll().await.unwrap().state(), State::Cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_after_its_line_was_cut_and_tells_nothing_twice() {
    let (server, direct) = server().await;
    let proxy = Proxy::to(server.address).await;
    let through = client(proxy.address);
    let handle = direct.start(DEPLOY.method, &create("a")).await.unwrap();
    let mut watch = through.watch(&[handle.name()]).await.unwrap();
    let first = next(&mut watch).await;
    assert_eq!(first.state(), v1::State::Queued);
    for _ in 0..3 {
        proxy.cut();
        // Nothing has changed, so nothing may be told again.
        let quiet = tokio::time::timeout(Duration::from_millis(500), watch.next()).await;
        assert!(quiet.is_err(), "{quiet:?}");
    }
    proxy.cut();
    handle.cancel().await.unwrap();
    let last = next(&mut watch).await;
    assert_eq!(last.state(), v1::State::Done);
    assert!(last.revision > first.revision);
    direct.delete(handle.name()).await.unwrap();
    let gone = soon("the end", watch.next()).await.unwrap();
    assert_eq!(gone, Change::Gone(handle.name().to_owned()));
}

async fn next(watch: &mut Watch) -> v1::OperationDetail {
    match soon("a change", watch.next()).await.unwrap() {
        Change::Now(operation) => *operation,
        Change::Gone(name) => panic!("{name} is gone"),
    }
}
