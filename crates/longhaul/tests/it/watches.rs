//! Watching operations: over gRPC, and as server-sent events.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use longhaul_wire::v1::{self, Effects, WatchRequest};
use serde_json::Value;
use tokio::net::TcpStream;

use crate::harness::client::{Wire, escape};
use crate::harness::grpc::Connection;
use crate::harness::{Ask, Kept, Place, Say, Server, on_both_stores, soon};

/// One message of a watch, in one shape for both wires.
#[derive(Clone, Debug, PartialEq)]
struct Change {
    name: String,
    state: String,
    revision: u64,
    gone: bool,
}

/// A watch over either wire.
enum Watch {
    Grpc(tonic::Streaming<v1::WatchResponse>),
    Events { body: Incoming, rest: BytesMut },
}

impl Watch {
    async fn names(place: &Place, names: &[&str]) -> Self {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        match place.wire {
            Wire::Grpc => {
                let request = WatchRequest { names, ..Default::default() };
                Self::Grpc(place.operators().watch(request).await)
            }
            Wire::Http => {
                let query: Vec<_> =
                    names.iter().map(|name| format!("names={}", escape(name))).collect();
                Self::events(place.server.address, &query.join("&")).await
            }
        }
    }

    async fn parent(place: &Place, api: &str, parent: &str) -> Self {
        match place.wire {
            Wire::Grpc => {
                let (api, parent) = (api.to_owned(), parent.to_owned());
                let request = WatchRequest { api, parent, ..Default::default() };
                Self::Grpc(place.operators().watch(request).await)
            }
            Wire::Http => {
                let query = format!("api={api}&parent={}", escape(parent));
                Self::events(place.server.address, &query).await
            }
        }
    }

    async fn events(address: SocketAddr, query: &str) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = hyper::Request::get(format!("/longhaul/v1/operations:watch?{query}"))
            .header("host", address.to_string())
            .body(Empty::<Bytes>::new())
            .unwrap();
        let response = soon("the head of the events", sender.send_request(request)).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        Self::Events { body: response.into_body(), rest: BytesMut::new() }
    }

    /// The next change; `None` at an orderly end.
    async fn next(&mut self) -> Option<Change> {
        match self {
            Self::Grpc(stream) => {
                let message = soon("a change", stream.message()).await.unwrap()?;
                let operation = message.operation.unwrap();
                Some(Change {
                    state: operation.state().as_str_name().to_owned(),
                    revision: operation.revision,
                    name: operation.name,
                    gone: message.gone,
                })
            }
            Self::Events { body, rest } => loop {
                if let Some(end) = rest.windows(2).position(|two| two == b"\n\n") {
                    let event = rest.split_to(end + 2);
                    let event = std::str::from_utf8(&event).unwrap().trim_end();
                    if event.starts_with(':') {
                        continue;
                    }
                    return Some(change_of_event(event));
                }
                let frame = soon("an event", body.frame()).await?;
                rest.extend_from_slice(&frame.unwrap().into_data().unwrap());
            },
        }
    }

    /// The first change that is as wished; none may stand still or go back before it.
    async fn until(&mut self, wished: impl Fn(&Change) -> bool) -> Change {
        let mut last = HashMap::new();
        loop {
            let change = self.next().await.expect("the watch goes on");
            let before = last.insert(change.name.clone(), change.revision).unwrap_or(0);
            assert!(change.gone || change.revision > before, "{change:?} after {before}");
            if wished(&change) {
                return change;
            }
        }
    }
}

fn change_of_event(event: &str) -> Change {
    let field = |name: &str| {
        let line = event.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in {event:?}")).trim_start().to_owned()
    };
    assert_eq!(field("event:"), "operation", "{event}");
    let json: Value = serde_json::from_str(&field("data:")).unwrap();
    let operation = &json["operation"];
    let text = |json: &Value| json.as_str().unwrap_or_default().to_owned();
    let revision = text(&operation["revision"]);
    let gone = json["gone"] == true;
    assert!(gone || field("id:") == revision, "{event}");
    let state = match &*text(&operation["state"]) {
        "" => "STATE_UNSPECIFIED".to_owned(),
        state => state.to_owned(),
    };
    Change { name: text(&operation["name"]), state, revision: revision.parse().unwrap_or(0), gone }
}

/// Runs a scenario over both wires on both stores.
async fn both_ways(scenario: impl AsyncFn(Place)) {
    on_both_stores(async |place| {
        for wire in [Wire::Http, Wire::Grpc] {
            let project = format!("{}-{wire:?}", place.project).to_lowercase();
            scenario(Place { wire, project, ..place.clone() }).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_begins_with_what_is_and_goes_on_to_the_end() {
    both_ways(async |place| {
        let (client, worker) = (place.client(), place.worker());
        let name = client.start("a").await.name;
        let gone = format!("{}/operations/gone", client.parent());
        let mut watch = Watch::names(&place, &[&name, &gone]).await;
        let mut first = [watch.next().await.unwrap(), watch.next().await.unwrap()];
        first.sort_by_key(|change| change.gone);
        assert_eq!((&*first[0].name, &*first[0].state, first[0].gone), (&*name, "QUEUED", false));
        assert_eq!((&*first[1].name, first[1].gone), (&*gone, true));

        let held = worker.claim(&name).await;
        watch.until(|change| change.state == "RUNNING").await;
        client.cancel(&name).await;
        watch.until(|change| change.state == "CANCELLING").await;
        worker.report(held.item(Say::Stopped(Effects::None))).await.wants("STOP");
        let done = watch.until(|change| change.state == "DONE").await;
        assert_eq!(done.revision, place.operators().describe(&name).await.revision);
        client.try_delete(&name).await.unwrap();
        assert!(watch.until(|change| change.gone).await.gone);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_may_be_watched_and_a_dash_means_any() {
    both_ways(async |place| {
        let client = place.client();
        let mut names = vec![client.start("a").await.name, client.start("b").await.name];
        let any = format!("projects/{}/locations/-", place.project);
        for parent in [client.parent(), any] {
            let mut watch = Watch::parent(&place, "clouddeploy", &parent).await;
            let mut seen = vec![watch.next().await.unwrap().name, watch.next().await.unwrap().name];
            seen.sort();
            names.sort();
            assert_eq!(seen, names);
        }
        let mut watch = Watch::parent(&place, "clouddeploy", &client.parent()).await;
        client.cancel(&names[0]).await;
        let done = watch.until(|change| change.state == "DONE").await;
        assert_eq!(done.name, names[0]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_misses_no_end_however_many_end_at_once() {
    both_ways(async |place| {
        let client = place.client();
        let mut names = Vec::new();
        for number in 0..100 {
            names.push(client.start(&format!("a{number}")).await.name);
        }
        let borrowed: Vec<_> = names.iter().map(|name| &**name).collect();
        let mut watch = Watch::names(&place, &borrowed[..60]).await;
        let cancelling = {
            let (client, names) = (client.clone(), names.clone());
            tokio::spawn(async move {
                for name in names {
                    client.cancel(&name).await;
                }
            })
        };
        let mut left: std::collections::BTreeSet<_> = names[..60].iter().cloned().collect();
        while !left.is_empty() {
            let change = watch.next().await.unwrap();
            if change.state == "DONE" {
                left.remove(&change.name);
            }
        }
        soon("the cancels", cancelling).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_server_ends_its_watches_in_order() {
    for kept in [Kept::InMemory, Kept::OnDisk] {
        let server = Arc::new(Server::start(kept).await);
        let mut watches = Vec::new();
        for wire in [Wire::Http, Wire::Grpc] {
            let place = Place::on(server.clone(), wire);
            let name = place.client().start("a").await.name;
            let mut watch = Watch::names(&place, &[&name]).await;
            watch.next().await.unwrap();
            watches.push(watch);
        }
        let began = std::time::Instant::now();
        server.stop().await;
        assert!(began.elapsed() < std::time::Duration::from_secs(5), "{:?}", began.elapsed());
        for watch in &mut watches {
            assert_eq!(watch.next().await, None);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_watch_is_refused_before_it_begins() {
    let server = Server::start(Kept::InMemory).await;
    let connection = Connection::new(server.address, None);
    let many: Vec<_> = (0..1001).map(|number| format!("o/{number}")).collect();
    let cases = [
        (WatchRequest::default(), "INVALID_VALUE", "api"),
        (WatchRequest { api: "no-such-api".into(), ..Default::default() }, "INVALID_VALUE", "api"),
        (WatchRequest { names: many.clone(), ..Default::default() }, "INVALID_VALUE", "1000"),
        (WatchRequest { names: vec!["/".into()], ..Default::default() }, "INVALID_NAME", ""),
    ];
    for (request, reason, says) in cases {
        let bytes = prost::Message::encode_to_vec(&request).into();
        let watching = connection.stream("/longhaul.v1.Operators/Watch", bytes);
        let failure = soon("the refusal", watching).await.unwrap_err();
        failure.is("INVALID_ARGUMENT", reason).says(&[says]);
    }
    let many: Vec<_> = many.iter().map(|name| format!("names={name}")).collect();
    let many = many.join("&");
    let queries = [
        ("", "INVALID_VALUE"),
        ("api=no-such-api", "INVALID_VALUE"),
        ("names=%2F", "INVALID_NAME"),
        ("name=projects", "UNKNOWN_FIELD"),
        (&*many, "INVALID_VALUE"),
    ];
    for (query, reason) in queries {
        let ask = Ask::get(format!("/longhaul/v1/operations:watch?{query}"));
        let failure = ask.send(server.address).await.failure(400);
        failure.is("INVALID_ARGUMENT", reason);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_over_the_limit_of_held_calls_says_when_to_come_back() {
    let server = Server::with(Kept::InMemory, |config| config.limits.held_calls_max = 0).await;
    let request = WatchRequest { names: vec!["o/a".into()], ..Default::default() };
    let bytes = prost::Message::encode_to_vec(&request).into();
    let connection = Connection::new(server.address, None);
    let watching = connection.stream("/longhaul.v1.Operators/Watch", bytes);
    let failure = soon("the refusal", watching).await.unwrap_err();
    failure.is("RESOURCE_EXHAUSTED", "OVERLOADED");
    let ask = Ask::get("/longhaul/v1/operations:watch?names=o/a");
    let answer = ask.send(server.address).await;
    answer.failure(429).is("RESOURCE_EXHAUSTED", "OVERLOADED");
    server.stop().await;
}
