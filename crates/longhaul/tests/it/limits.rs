//! Every limit answers in words, and a cancel still gets through.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::client::Wire;
use crate::harness::samples::{Asked, DEPLOY};
use crate::harness::{Ask, Client, Kept, Server, soon};

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_the_limit_is_refused_in_googles_envelope() {
    let server = Server::with(Kept::InMemory, |config| config.limits.body_bytes_max = 1000).await;
    let client = Client::new(server.address, Wire::Http, &DEPLOY, "p");
    let path = DEPLOY.start_path("p", Asked { id: "a", ..Asked::default() });
    let body = format!(r#"{{"description":"{}"}}"#, "x".repeat(2000));
    let answer = Ask::post(&path).host(DEPLOY.host).body(body.clone()).send(server.address).await;
    answer.failure(answer.code).is("INVALID_ARGUMENT", "BODY_TOO_LARGE").says(&["1000"]);
    assert!(matches!(answer.code, 400 | 413), "{answer:?}");

    // Of unknown length, so that only counting can tell.
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
        DEPLOY.host
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    stream.write_all(chunk.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    soon("the answer", stream.read_to_end(&mut answer)).await.unwrap();
    assert!(String::from_utf8_lossy(&answer).contains("BODY_TOO_LARGE"));

    let bytes = Bytes::from(vec![0; 4000]);
    let grpc = Client::new(server.address, Wire::Grpc, &DEPLOY, "p");
    let failure = grpc.grpc().call_bytes(&DEPLOY.grpc_path(), bytes, None).await.unwrap_err();
    assert!(
        matches!(&*failure.code, "INVALID_ARGUMENT" | "RESOURCE_EXHAUSTED" | "OUT_OF_RANGE"),
        "{failure:?}"
    );
    assert!(client.list("").await.operations.is_empty());
    client.start("a").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_over_the_limit_is_refused() {
    let server = Server::start(Kept::InMemory).await;
    let ask = Ask::get("/livez").header("x-long", "x".repeat(100_000));
    match ask.try_send(server.address).await {
        Ok(answer) => assert!(matches!(answer.code, 400 | 414 | 431), "{answer:?}"),
        Err(_cut_off) => {}
    }
    assert_eq!(Ask::get("/livez").send(server.address).await.code, 200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_are_cut_off_and_hold_up_nobody() {
    let read_timeout = Duration::from_millis(300);
    let server =
        Server::with(Kept::InMemory, |config| config.limits.read_timeout = read_timeout).await;
    let client = Client::new(server.address, Wire::Http, &DEPLOY, "p");
    let path = DEPLOY.start_path("p", Asked { id: "slow", ..Asked::default() });
    let starts = [
        "GET /livez HTTP/1.1\r\nHos".to_owned(),
        format!("POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: 100\r\n\r\n{{", DEPLOY.host),
    ];
    let mut slow = Vec::new();
    for number in 0..100 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(starts[number % starts.len()].as_bytes()).await.unwrap();
        slow.push(stream);
    }
    let before = Instant::now();
    let name = client.start("quick").await.name;
    client.cancel(&name).await;
    client.get(&name).await.is_cancelled();
    println!("between 100 slow clients three calls took {:?}", before.elapsed());
    for mut stream in slow {
        let mut answer = Vec::new();
        let _ = soon("the cut", stream.read_to_end(&mut answer)).await;
        assert!(!answer.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&answer));
    }
    assert_eq!(client.list("").await.names(), [name], "half a request starts nothing");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_limit_of_calls_a_cancel_still_gets_through() {
    let server = Server::with(Kept::InMemory, |config| config.limits.calls_max = 0).await;
    for wire in [Wire::Http, Wire::Grpc] {
        let client = Client::new(server.address, wire, &DEPLOY, "p");
        let refused = client.try_start(Asked { id: "a", ..Asked::default() }).await.unwrap_err();
        refused.is("RESOURCE_EXHAUSTED", "OVERLOADED");
        // That it answers about the operation shows that it was let in.
        let name = format!("{}/operations/gone", client.parent());
        let answered = client.try_cancel(&name).await.unwrap_err();
        answered.is("NOT_FOUND", "OPERATION_NOT_FOUND");
    }
    let answer = Ask::get(format!("/v1/{}/operations/gone", DEPLOY.parent("p"))).host(DEPLOY.host);
    let answer = answer.send(server.address).await;
    answer.failure(429).is("RESOURCE_EXHAUSTED", "OVERLOADED");
    assert!(answer.headers.contains_key("retry-after"), "{:?}", answer.headers);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_at_the_limit_of_held_calls_says_when_to_come_back() {
    let server = Server::with(Kept::InMemory, |config| config.limits.held_calls_max = 0).await;
    for wire in [Wire::Http, Wire::Grpc] {
        let worker = crate::harness::Worker::new(server.address, wire, "w");
        let wait = Duration::from_secs(5);
        let claim = crate::harness::Claim { wait, ..Default::default() };
        worker.try_claim(&claim).await.unwrap_err().is("RESOURCE_EXHAUSTED", "OVERLOADED");
    }
    server.stop().await;
}
