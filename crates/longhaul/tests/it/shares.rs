//! Fair shares: a greedy caller is told to wait and harms nobody, and a cancel gets through.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use longhaul_server::Config;
use longhaul_server::shares::Share;
use longhaul_wire::longrunning::{CancelOperationRequest, GetOperationRequest};
use prost::Message as _;

use crate::harness::client::Wire;
use crate::harness::samples::{Asked, DEPLOY};
use crate::harness::view::detail;
use crate::harness::{Answer, Ask, Client, Failure, Kept, Server, soon};

const ANN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 1));
const GREEDY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));

/// Three calls at once, then one a second; of cancels five.
fn few(config: &mut Config) {
    config.shares.per_peer = Share {
        calls_per_second: 1,
        calls_burst: 3,
        cancels_per_second: 1,
        cancels_burst: 5,
        held_max: 0,
    };
}

async fn get(server: &Server, from: IpAddr, name: &str) -> Answer {
    let ask = Ask::get(format!("/v1/{name}")).host(DEPLOY.host);
    soon("an answer", ask.try_send_from(from, server.address)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_greedy_caller_is_told_to_wait_and_harms_nobody() {
    let server = Server::with(Kept::InMemory, few).await;
    let name = format!("{}/operations/gone", DEPLOY.parent("p"));
    let mut refused = None;
    for _ in 0..200 {
        let answer = get(&server, GREEDY, &name).await;
        if answer.code == 429 {
            refused = Some(answer);
        }
    }
    let refused = refused.expect("two hundred calls are more than a few a second");
    for _ in 0..3 {
        get(&server, ANN, &name).await.failure(404).is("NOT_FOUND", "OPERATION_NOT_FOUND");
    }

    let failure = refused.failure(429);
    failure.is("RESOURCE_EXHAUSTED", "RATE_LIMIT_EXCEEDED").says(&["127.0.0.2"]);
    assert_eq!(failure.domain, "googleapis.com");
    let metadata = |key: &str| failure.metadata[key].as_str();
    assert_eq!(metadata("service"), DEPLOY.host);
    assert_eq!(metadata("quota_limit"), "callsPerPrincipal");
    assert_eq!(metadata("quota_limit_value"), "1");
    assert_eq!(metadata("quota_unit"), "1/s");
    let json = refused.json();
    let quota = &detail(&json, "QuotaFailure")["violations"][0];
    assert_eq!(quota["subject"], "principal:127.0.0.2");
    let wait = detail(&json, "RetryInfo")["retryDelay"].as_str().unwrap();
    let wait: f64 = wait.strip_suffix('s').unwrap().parse().unwrap();
    assert!(wait > 0.0 && wait <= 1.0, "{wait}");
    assert_eq!(refused.headers["retry-after"], "1");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_says_the_same_with_all_details() {
    let server = Server::with(Kept::InMemory, few).await;
    let client = Client::new(server.address, Wire::Grpc, &DEPLOY, "p");
    let name = format!("{}/operations/gone", client.parent());
    let request = GetOperationRequest { name }.encode_to_vec();
    let path = "/google.longrunning.Operations/GetOperation";
    let refused = loop {
        let status = client.grpc().status_of(path, request.clone().into()).await;
        if status.code() != tonic::Code::NotFound {
            break status;
        }
    };
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    Failure::from_status(&refused).is("RESOURCE_EXHAUSTED", "RATE_LIMIT_EXCEEDED");
    let details = longhaul_wire::longrunning::Status::decode(refused.details()).unwrap();
    let kinds: Vec<_> = details.details.iter().map(|any| &*any.type_url).collect();
    let want = ["ErrorInfo", "QuotaFailure", "RetryInfo"];
    assert_eq!(kinds, want.map(|kind| format!("type.googleapis.com/google.rpc.{kind}")));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_gets_through_at_the_limit_of_calls_and_has_one_of_its_own() {
    let server = Server::with(Kept::InMemory, few).await;
    let name = Client::new(server.address, Wire::Http, &DEPLOY, "p").start("a").await.name;
    while get(&server, ANN, &name).await.code != 429 {}
    for wire in [Wire::Http, Wire::Grpc] {
        let client = Client::new(server.address, wire, &DEPLOY, "p");
        client.cancel(&name).await;
        let refused = client.try_start(Asked { id: "b", ..Asked::default() }).await;
        if let Err(refused) = refused {
            refused.is("RESOURCE_EXHAUSTED", "RATE_LIMIT_EXCEEDED");
        }
    }
    let client = Client::new(server.address, Wire::Grpc, &DEPLOY, "p");
    let request = CancelOperationRequest { name };
    let path = "/google.longrunning.Operations/CancelOperation";
    let refused = loop {
        let cancelled: Result<(), Failure> = client.grpc().call(path, &request, None).await;
        if let Err(refused) = cancelled {
            break refused;
        }
    };
    refused.is("RESOURCE_EXHAUSTED", "RATE_LIMIT_EXCEEDED");
    assert_eq!(refused.metadata["quota_limit"], "cancelsPerPrincipal");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_wait_counts_until_it_ends() {
    let change = |config: &mut Config| {
        config.shares.per_peer = Share { held_max: 2, ..Share::default() };
    };
    let server = Server::with(Kept::InMemory, change).await;
    let client = Client::new(server.address, Wire::Grpc, &DEPLOY, "p");
    let name = client.start("a").await.name;
    let second = Duration::from_secs(1);
    // Two waits at a time, until the third is refused: then both are held. The third may have taken the place
    // of one of them for a moment, so they insist.
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let (client, name) = (client.clone(), name.clone());
            tokio::spawn(async move {
                loop {
                    match client.try_wait(&name, Some(second * 15), None).await {
                        Err(refused) if refused.reason == "RATE_LIMIT_EXCEEDED" => {
                            tokio::task::yield_now().await;
                        }
                        ended => break ended,
                    }
                }
            })
        })
        .collect();
    let refused = async {
        loop {
            match client.try_wait(&name, Some(Duration::ZERO), None).await {
                Ok(_) => tokio::task::yield_now().await,
                Err(refused) => break refused,
            }
        }
    };
    let refused = soon("a refusal", refused).await;
    refused.is("RESOURCE_EXHAUSTED", "RATE_LIMIT_EXCEEDED");
    assert_eq!(refused.metadata["quota_limit"], "held_callsPerPrincipal");
    client.get(&name).await.is_running();
    client.cancel(&name).await;
    for wait in waiting {
        wait.await.unwrap().unwrap().is_cancelled();
    }
    client.try_wait(&name, None, None).await.unwrap().is_cancelled();
    server.stop().await;
}

/// Sends a request from an address of this machine.
impl Ask {
    async fn try_send_from(self, from: IpAddr, to: SocketAddr) -> Result<Answer, String> {
        let socket = tokio::net::TcpSocket::new_v4().map_err(|error| error.to_string())?;
        socket.bind(SocketAddr::new(from, 0)).map_err(|error| error.to_string())?;
        let stream = socket.connect(to).await.map_err(|error| error.to_string())?;
        self.try_send_over(stream, to).await
    }
}
