//! Streams of callers who are known: sessions and watches begin with a permission, and end with it, or with
//! the credential, at the latest.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use longhaul_wire::v1::session_request::Request;
use longhaul_wire::v1::{self, SessionOpen};
use serde_json::Value;
use tokio::net::TcpStream;

use super::people::World;
use super::{everywhere, started};
use crate::harness::http::Ask;
use crate::harness::session::{Said, Session, open};
use crate::harness::soon;
use crate::harness::view::Failure;
use crate::harness::worker::Say;

const ABSENT: &str = "projects/p/locations/here/operations/none";

/// Tokens end when they say so.
async fn to_the_second() -> World {
    World::start(|auth| auth.leeway = Duration::ZERO).await
}

async fn session(
    world: &World,
    token: Option<&str>,
    open: SessionOpen,
) -> Result<Session, Failure> {
    let first = vec![Request::Open(open)];
    let mut session = Session::begin_as(world.address(), first, token).await?;
    loop {
        if session.try_next().await?.expect("an open session goes on") == Said::Complete {
            return Ok(session);
        }
    }
}

/// How a session ends that nobody closes; what it says until then is passed over.
async fn end(session: &mut Session) -> Failure {
    loop {
        match session.try_next().await {
            Ok(said) => drop(said.expect("it ends with a reason")),
            Err(failure) => return failure,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_opens_for_those_alone_who_may_take_what_it_asks_for() {
    let world = World::start(|_| {}).await;
    let refused = async |who: &str, methods: &[&str]| {
        let methods = methods.iter().map(|method| (*method).to_owned()).collect();
        let opening = SessionOpen { methods, ..open("w", 5) };
        session(&world, world.token(who).as_deref(), opening).await.err().expect("it is refused")
    };
    for (who, reason) in [
        ("nobody", "CREDENTIALS_MISSING"),
        ("expired", "ACCESS_TOKEN_EXPIRED"),
        ("forged", "ACCESS_TOKEN_TYPE_UNSUPPORTED"),
    ] {
        refused(who, &[]).await.is("UNAUTHENTICATED", reason);
    }
    refused("no-scope", &[]).await.is("PERMISSION_DENIED", "ACCESS_TOKEN_SCOPE_INSUFFICIENT");
    for who in ["stranger", "viewer", "operator", "admin"] {
        let refused = refused(who, &[]).await;
        refused.is("PERMISSION_DENIED", "IAM_PERMISSION_DENIED");
        refused.says(&["longhaul.workers.claim"]);
    }
    let foreign = ["google.cloud.dataproc.v1.ClusterController.CreateCluster"];
    let refused = refused("worker", &foreign).await;
    refused.is("PERMISSION_DENIED", "IAM_PERMISSION_DENIED").says(&["dataproc"]);
    let name = started(&world, "p").await;
    let mut worker = session(&world, world.token("worker").as_deref(), open("w", 5)).await.unwrap();
    worker.assigned(&name).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_its_token_and_the_work_goes_on_with_the_next_one() {
    let world = to_the_second().await;
    let name = started(&world, "p").await;
    let brief = world.brief_token("worker", 3);
    let mut first = session(&world, Some(&brief), open("w", 5)).await.unwrap();
    let held = first.assigned(&name).await;
    end(&mut first).await.is("UNAUTHENTICATED", "ACCESS_TOKEN_EXPIRED");
    let again = session(&world, Some(&brief), open("w", 5)).await.err().unwrap();
    again.is("UNAUTHENTICATED", "ACCESS_TOKEN_EXPIRED");

    let holding = SessionOpen {
        held: vec![v1::Held { operation: name.clone(), epoch: held.epoch }],
        ..open("w", 5)
    };
    // Somebody else who may work, and knows name and epoch, gets nothing of it.
    let rival = world.token("rival");
    let mut rival =
        Session::begin_as(world.address(), vec![Request::Open(holding.clone())], rival.as_deref())
            .await
            .unwrap();
    let Said::Wanted(_, _, wanted) = rival.next().await else { panic!("nothing was said of it") };
    assert_eq!(wanted.action(), v1::desired_state::Action::Stop);
    let token = world.token("worker");
    let mut second = session(&world, token.as_deref(), holding).await.unwrap();
    let verdict = second.report(held.item(Say::Alive)).await;
    assert_eq!((verdict.refused, &*verdict.desired), (None, "CONTINUE"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_when_its_permission_goes_and_gets_no_more_work() {
    let world = World::start(|_| {}).await;
    let name = started(&world, "p").await;
    let mut worker = session(&world, world.token("worker").as_deref(), open("w", 5)).await.unwrap();
    let held = worker.assigned(&name).await;
    world.write_policy("bindings: [{role: roles/owner, members: ['user:root@example.com']}]");
    let refused = end(&mut worker).await;
    refused.is("PERMISSION_DENIED", "IAM_PERMISSION_DENIED").says(&["longhaul.workers.claim"]);
    let later = started(&world, "p").await;
    let closed = session(&world, world.token("worker").as_deref(), open("w", 5)).await;
    closed.err().unwrap().is("PERMISSION_DENIED", "IAM_PERMISSION_DENIED");
    // What it has begun it may bring to its end.
    let item = v1::ReportItem {
        operation: held.operation.clone(),
        epoch: held.epoch,
        ..Default::default()
    };
    let request = v1::ReportRequest { worker: "w".into(), items: vec![item], ..Default::default() };
    let message = prost::Message::encode_to_vec(&request).into();
    let answer = world.grpc("worker", "/longhaul.v1.Workers/Report", message).await.unwrap();
    let answer: v1::ReportResponse = prost::Message::decode(answer).unwrap();
    assert_eq!(answer.results[0].error, None);
    let seen = world.http("root", Ask::get(format!("/longhaul/v1/{later}:describe"))).await;
    assert_eq!(seen.unwrap()["state"], "QUEUED");
}

/// A watch over either wire.
enum Watch {
    Grpc(tonic::Streaming<v1::WatchResponse>),
    Events(hyper::body::Incoming, String),
}

/// What is watched.
#[derive(Clone, Copy)]
enum Whom<'a> {
    Name(&'a str),
    Parent(&'a str),
}

impl Watch {
    async fn grpc(
        address: SocketAddr,
        token: Option<&str>,
        whom: Whom<'_>,
    ) -> Result<Self, Failure> {
        let endpoint =
            tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
        let mut operators = v1::operators_client::OperatorsClient::new(endpoint.connect_lazy());
        let mut request = tonic::Request::new(match whom {
            Whom::Name(name) => v1::WatchRequest { names: vec![name.into()], ..Default::default() },
            Whom::Parent(parent) => v1::WatchRequest {
                api: "clouddeploy".into(),
                parent: parent.into(),
                ..Default::default()
            },
        });
        if let Some(token) = token {
            let header = format!("Bearer {token}").parse().unwrap();
            request.metadata_mut().insert("authorization", header);
        }
        let watch = soon("a watch", operators.watch(request)).await;
        watch.map(|it| Self::Grpc(it.into_inner())).map_err(|status| Failure::from_status(&status))
    }

    async fn events(
        address: SocketAddr,
        token: Option<&str>,
        whom: Whom<'_>,
    ) -> Result<Self, Failure> {
        let query = match whom {
            Whom::Name(name) => format!("names={name}"),
            Whom::Parent(parent) => format!("api=clouddeploy&parent={parent}"),
        };
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut request = hyper::Request::get(format!("/longhaul/v1/operations:watch?{query}"))
            .header("host", address.to_string());
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let answer = soon("the head of the events", sender.send_request(request)).await.unwrap();
        if answer.status() == 200 {
            return Ok(Self::Events(answer.into_body(), String::new()));
        }
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        Err(Failure::from_envelope(&serde_json::from_slice::<Value>(&body).unwrap()))
    }

    /// The next state that is told, or the reason of the end.
    async fn next(&mut self) -> Result<String, String> {
        match self {
            Self::Grpc(stream) => match soon("a change", stream.message()).await {
                Ok(message) => {
                    let seen = message.expect("it ends with a reason");
                    Ok(seen.operation.unwrap().state().as_str_name().to_owned())
                }
                Err(status) => Err(Failure::from_status(&status).reason),
            },
            Self::Events(body, text) => loop {
                if let Some((event, rest)) = text.split_once("\n\n") {
                    let (event, rest) = (event.to_owned(), rest.to_owned());
                    *text = rest;
                    let data = event.lines().find_map(|line| line.strip_prefix("data: "));
                    let Some(data) = data else { continue };
                    if event.contains("event: error") {
                        return Err(data.split(':').next().unwrap().to_owned());
                    }
                    let json: Value = serde_json::from_str(data).unwrap();
                    return Ok(json["operation"]["state"].as_str().unwrap_or_default().to_owned());
                }
                let frame = soon("an event", body.frame()).await.expect("it ends with a reason");
                let data = frame.unwrap().into_data().unwrap();
                *text += std::str::from_utf8(&data).unwrap();
            },
        }
    }
}

/// Opens the same watch over each wire; both are refused alike, or neither.
async fn both(world: &World, token: Option<&str>, whom: Whom<'_>) -> Result<[Watch; 2], Failure> {
    let grpc = Watch::grpc(world.address(), token, whom).await;
    let events = Watch::events(world.address(), token, whom).await;
    match (grpc, events) {
        (Ok(grpc), Ok(events)) => Ok([grpc, events]),
        (Err(grpc), Err(events)) => {
            assert_eq!(grpc, events);
            Err(grpc)
        }
        (grpc, events) => panic!("{:?} over gRPC, {:?} as events", grpc.err(), events.err()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_opens_for_those_alone_who_may_read_and_tells_others_nothing() {
    let world = World::start(|_| {}).await;
    let name = started(&world, "p").await;
    let parent = Whom::Parent("projects/p/locations/here");
    for whom in [Whom::Name(&name), Whom::Name(ABSENT), parent] {
        for (who, code, reason) in [
            ("nobody", "UNAUTHENTICATED", "CREDENTIALS_MISSING"),
            ("expired", "UNAUTHENTICATED", "ACCESS_TOKEN_EXPIRED"),
            ("no-scope", "PERMISSION_DENIED", "ACCESS_TOKEN_SCOPE_INSUFFICIENT"),
            ("stranger", "PERMISSION_DENIED", "IAM_PERMISSION_DENIED"),
            ("worker", "PERMISSION_DENIED", "IAM_PERMISSION_DENIED"),
        ] {
            let refused = both(&world, world.token(who).as_deref(), whom).await;
            refused.err().expect("it is refused").is(code, reason);
        }
    }
    let stranger = world.token("stranger");
    let said = async |name: &str| {
        let refused = both(&world, stranger.as_deref(), Whom::Name(name)).await;
        format!("{:?}", refused.err().unwrap()).replace(name, "NAME")
    };
    assert_eq!(said(&name).await, said(ABSENT).await);
    let viewer = world.token("viewer");
    // Browsers can send no header with this.
    let query = format!("{name}&access_token={}", viewer.as_deref().unwrap());
    let mut watch = Watch::events(world.address(), None, Whom::Name(&query)).await.unwrap();
    assert_eq!(watch.next().await, Ok("QUEUED".to_owned()));
    for whom in [Whom::Name(&name), parent] {
        for mut watch in both(&world, viewer.as_deref(), whom).await.unwrap() {
            assert_eq!(watch.next().await, Ok("QUEUED".to_owned()));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_ends_with_its_token_whatever_it_watches() {
    let world = to_the_second().await;
    let (name, gone) = (started(&world, "p").await, started(&world, "p").await);
    world.http("root", Ask::delete(format!("/v1/{gone}"))).await.unwrap();
    let brief = world.brief_token("root", 3);
    let mut all = Vec::new();
    for whom in [
        Whom::Name(&name),
        Whom::Name(&gone),
        Whom::Name(ABSENT),
        Whom::Parent("projects/p/locations/here"),
        Whom::Parent("projects/empty/locations/here"),
    ] {
        all.extend(both(&world, Some(&brief), whom).await.unwrap());
    }
    for watch in &mut all {
        let first = watch.next().await;
        let reason = match first {
            Ok(_) => watch.next().await.expect_err("nothing is told twice"),
            Err(reason) => reason,
        };
        assert_eq!(reason, "ACCESS_TOKEN_EXPIRED");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_ends_when_its_permission_goes_and_shows_no_more() {
    let world = World::start(|_| {}).await;
    let name = started(&world, "p").await;
    let viewer = world.token("viewer");
    let mut watches = both(&world, viewer.as_deref(), Whom::Name(&name)).await.unwrap();
    for watch in &mut watches {
        assert_eq!(watch.next().await, Ok("QUEUED".to_owned()));
    }
    world.write_policy("bindings: [{role: roles/owner, members: ['user:root@example.com']}]");
    let get = || Ask::get(format!("/v1/{name}"));
    let refused = async || world.answer("viewer", get()).await.code == 403;
    everywhere("the new policy", refused).await;
    world.http("root", Ask::post(format!("/v1/{name}:cancel"))).await.unwrap();
    for watch in &mut watches {
        assert_eq!(watch.next().await, Err("IAM_PERMISSION_DENIED".to_owned()));
    }
}
