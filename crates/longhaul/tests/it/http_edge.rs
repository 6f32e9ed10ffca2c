//! The HTTP edge: paths, verbs, system parameters, and bytes that are no HTTP at all.

use serde_json::json;

use crate::harness::client::Wire;
use crate::harness::grpc::Connection;
use crate::harness::http::{exchange_bytes, exchange_last_bytes};
use crate::harness::samples::{ALL, Asked, DATAPROC, DEPLOY};
use crate::harness::{Ask, Client, Kept, Server};

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_path_is_404_in_googles_envelope() {
    let server = Server::start(Kept::InMemory).await;
    for sample in ALL {
        let parent = sample.parent("p");
        let asks = [
            Ask::get("/"),
            Ask::get("/v1"),
            Ask::get("/v2/projects/p/locations/l/operations/x"),
            Ask::get(format!("/v1/{parent}/operation")),
            Ask::get(format!("/v1/{parent}/operations/x/y")),
            Ask::get(format!("/v1/{parent}/operations/x:cancel")),
            Ask::get(format!("/v1//{parent}/operations/x")),
            Ask::post(format!("/v1/{parent}/operations/x")),
            Ask::post(format!("/v1/{parent}/operations/x:wait")),
            Ask::post(format!("/v1/{parent}/operations/x:stop")),
            Ask::delete(format!("/v1/{parent}/operations/x:cancel")),
            Ask::new("PUT", format!("/v1/{parent}/operations/x:cancel")),
            Ask::get(format!("/{}/v9/x", sample.prefix)),
        ];
        for ask in asks {
            let failure = ask.clone().host(sample.host).send(server.address).await.failure(404);
            failure.is("NOT_FOUND", "METHOD_NOT_FOUND");
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_method_that_starts_nothing_is_501() {
    let server = Server::start(Kept::InMemory).await;
    let rollout = "/v1/projects/p/locations/l/deliveryPipelines/d/releases/r/rollouts/o:cancel";
    let failure = Ask::post(rollout).host(DEPLOY.host).body("{}").send(server.address).await;
    // Not an operation, though the verb is the same.
    failure.failure(501).is("UNIMPLEMENTED", "METHOD_UNIMPLEMENTED");
    let paths = [
        (&DEPLOY, "/v1/projects/p/locations/l/targets"),
        (&DEPLOY, "/v1/projects/p/locations/l/targets/t"),
        (&DATAPROC, "/v1/projects/p/regions/r/clusters"),
    ];
    for (sample, path) in paths {
        let answer = Ask::get(path).host(sample.host).send(server.address).await;
        let failure = answer.failure(501);
        failure.is("UNIMPLEMENTED", "METHOD_UNIMPLEMENTED").says(&["does not start an operation"]);
        assert!(failure.metadata["method"].starts_with("google.cloud."), "{failure:?}");
    }
    let connection = Connection::new(server.address, Some(DEPLOY.host));
    let call = |path: &'static str| connection.call::<()>(path, &(), None);
    let failure = call("/google.cloud.deploy.v1.CloudDeploy/GetTarget").await.unwrap_err();
    failure.is("UNIMPLEMENTED", "METHOD_UNIMPLEMENTED");
    for path in ["/google.cloud.deploy.v1.CloudDeploy/Nothing", "/no.Service/Nothing", "/x"] {
        let failure = call(path).await.unwrap_err();
        failure.is("UNIMPLEMENTED", "METHOD_NOT_FOUND");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_get_may_come_as_a_form() {
    let server = Server::start(Kept::InMemory).await;
    let client = Client::new(server.address, Wire::Http, &DEPLOY, "p");
    client.start("a").await;
    let over = client.start("b").await.name;
    client.cancel(&over).await;
    let filter = vec!["done%3Dtrue"; 200].join("+OR+");
    let form = Ask::post(DEPLOY.list_path(&DEPLOY.parent("p")))
        .host(DEPLOY.host)
        .header("x-http-method-override", "GET")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(format!("filter={filter}&alt=json"));
    let json = form.send(server.address).await.ok();
    assert_eq!(json["operations"].as_array().unwrap().len(), 1);
    assert_eq!(json["operations"][0]["name"], over);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn system_parameters_are_understood() {
    let server = Server::start(Kept::InMemory).await;
    let client = Client::new(server.address, Wire::Http, &DATAPROC, "p");
    let name = client.start("a").await.name;
    let get = async |query: &str| {
        Ask::get(format!("/v1/{name}?{query}")).host(DATAPROC.host).send(server.address).await
    };
    let plain = get("").await.ok();
    for query in [
        "alt=json",
        "$alt=json",
        "%24alt=json",
        "key=k&quotaUser=u",
        "prettyPrint=false",
        "access_token=t",
    ] {
        assert_eq!(get(query).await.ok(), plain, "{query}");
    }
    let state = plain["metadata"]["status"]["state"].clone();
    assert!(state.is_string(), "{plain}");
    for query in [
        "$alt=json;enum-encoding=int",
        "$alt=json%3Benum-encoding=int",
        "%24alt=json%3Benum-encoding%3Dint",
    ] {
        let answer = get(query).await.ok();
        assert!(answer["metadata"]["status"]["state"].is_u64(), "{query}: {answer}");
    }
    let masked = get("fields=name").await.ok();
    assert_eq!(masked, json!({ "name": name }));
    get("alt=xml").await.failure(400).is("INVALID_ARGUMENT", "SYSTEM_PARAMETER_UNSUPPORTED");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_unescaped_once_and_never_taken_apart() {
    let server = Server::start(Kept::InMemory).await;
    let get = |path: &str| Ask::get(path).host(DEPLOY.host).send(server.address);
    let base = "/v1/projects/example.com:p/locations/l/operations";
    for (path, name) in [
        (format!("{base}/a%2Bb"), "a+b"),
        (format!("{base}/a+b"), "a+b"),
        (format!("{base}/op:stop"), "op:stop"),
        (format!("{base}/a%3Acancel"), "a:cancel"),
        (format!("{base}/%C3%A9"), "é"),
    ] {
        let failure = get(&path).await.failure(404);
        failure.is("NOT_FOUND", "OPERATION_NOT_FOUND").says(&[name]);
    }
    for path in
        [format!("{base}/%"), format!("{base}/%zz"), format!("{base}/%FF"), format!("{base}/%00")]
    {
        let failure = get(&path).await.failure(400);
        assert_eq!(failure.code, "INVALID_ARGUMENT", "{path}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_http_hurt_nobody() {
    let server = Server::start(Kept::InMemory).await;
    let client = Client::new(server.address, Wire::Http, &DEPLOY, "p");
    let name = client.start("a").await.name;
    let mut preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    preface.extend([0xff; 4096]);
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(1_000));
    let inputs: Vec<Vec<u8>> = vec![
        Vec::new(),
        vec![0; 10_000],
        vec![0xff; 10_000],
        b"GET".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"POST /v1/x HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n".to_vec(),
        b"POST /v1/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_vec(),
        b"POST /v1/x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef"
            .to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        preface,
        many.into_bytes(),
        [b"GET /".to_vec(), vec![b'a'; 200_000], b" HTTP/1.1\r\n\r\n".to_vec()].concat(),
    ];
    for input in inputs {
        let answer = exchange_last_bytes(server.address, &input).await;
        let first = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let is_success = first.starts_with(b"HTTP/1.1 2");
        assert!(!is_success, "{:?}", String::from_utf8_lossy(&answer));
        client.get(&name).await.is_running();
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_as_curl_sends_it_without_a_body_is_enough_to_cancel() {
    let server = Server::start(Kept::InMemory).await;
    let client = Client::new(server.address, Wire::Http, &DEPLOY, "p");
    let name = client.start("a").await.name;
    let request = format!(
        "POST /v1/{name}:cancel HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        DEPLOY.host
    );
    let answer = exchange_bytes(server.address, request.as_bytes()).await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n{}"),
        "{answer}"
    );
    client.get(&name).await.is_cancelled();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_the_same_reason_on_both_wires() {
    let server = Server::start(Kept::InMemory).await;
    let over = |wire| Client::new(server.address, wire, &DEPLOY, "p");
    for name in ["projects/p/locations/l/operations/gone", "projects/p/regions/l/operations/gone"] {
        let by_grpc = over(Wire::Grpc).try_get(name).await.unwrap_err();
        let by_http = over(Wire::Http).try_get(name).await.unwrap_err();
        if by_http.reason == "METHOD_NOT_FOUND" {
            // The path does not exist over HTTP; the name is malformed over gRPC.
            assert_eq!(by_grpc.code, "INVALID_ARGUMENT", "{by_grpc:?}");
        } else {
            assert_eq!(by_grpc, by_http);
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_come_in_their_order() {
    let server = Server::start(Kept::InMemory).await;
    let send = |ask: Ask| ask.host(DEPLOY.host).body("garbage").send(server.address);
    let gone = "/v1/projects/p/locations/l/operations/gone";
    // Path before body, body before existence.
    send(Ask::post("/v1/nothing")).await.failure(404).is("NOT_FOUND", "METHOD_NOT_FOUND");
    let failure = send(Ask::post(format!("{gone}:cancel"))).await.failure(400);
    assert_eq!(failure.code, "INVALID_ARGUMENT");
    let ask = Ask::get(format!("{gone}?alt=nonsense")).host(DEPLOY.host).send(server.address);
    ask.await.failure(400).is("INVALID_ARGUMENT", "SYSTEM_PARAMETER_UNSUPPORTED");
    let ask = Ask::get(format!("{gone}?colour=red")).host(DEPLOY.host).send(server.address);
    ask.await.failure(400).is("INVALID_ARGUMENT", "UNKNOWN_FIELD");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_answers_are_compressed_where_that_is_asked_for() {
    let server = Server::start(Kept::InMemory).await;
    let client = Client::new(server.address, Wire::Http, &DEPLOY, "p");
    for number in 0..10 {
        client.start(&format!("a{number}")).await;
    }
    let list = || Ask::get(DEPLOY.list_path(&client.parent())).host(DEPLOY.host);
    let plain = list().send(server.address).await;
    assert!(!plain.headers.contains_key("content-encoding"));
    let packed = list().header("accept-encoding", "gzip, deflate").send(server.address).await;
    assert_eq!(packed.headers["content-encoding"], "gzip");
    assert!(packed.body.len() < plain.body.len() / 2 && packed.body.starts_with(b"\x1f\x8b"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_serves_many_requests_even_after_errors() {
    let server = Server::start(Kept::InMemory).await;
    let ask = |path: &str, more: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{more}\r\n", DEPLOY.host)
    };
    let requests = [
        ask("/v1/projects/p/locations/l/operations", ""),
        ask("/nothing", ""),
        ask("/v1/projects/p/locations/l/operations/gone", ""),
        ask("/livez", "Connection: close\r\n"),
    ];
    let answer = exchange_bytes(server.address, requests.concat().as_bytes()).await;
    let answer = String::from_utf8(answer).unwrap();
    let codes: Vec<_> = answer
        .match_indices("HTTP/1.1 ")
        .map(|(at, start)| &answer[at + start.len()..at + start.len() + 3])
        .collect();
    assert_eq!(codes, ["200", "404", "404", "200"], "{answer}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn json_travels_over_http_2_as_well() {
    let server = Server::start(Kept::InMemory).await;
    for sample in ALL {
        let asked = Asked { id: "a", ..Asked::default() };
        let start = Ask::post_json(sample.start_path("p", asked), &sample.start_body("p", asked));
        let started = start.host(sample.host).send_over_http_2(server.address).await.ok();
        let path = format!("/v1/{}", started["name"].as_str().unwrap());
        let cancel = Ask::post(format!("{path}:cancel")).host(sample.host);
        cancel.send_over_http_2(server.address).await.empty_object();
        let list = Ask::get(sample.list_path(&sample.parent("p"))).host(sample.host);
        let listed = list.send_over_http_2(server.address).await.ok();
        assert_eq!(listed["operations"][0]["error"]["code"], 1, "{listed}");
        let gone = Ask::get(format!("{path}x")).host(sample.host);
        let failure = gone.send_over_http_2(server.address).await.failure(404);
        failure.is("NOT_FOUND", "OPERATION_NOT_FOUND");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_may_stand_in_the_request_line() {
    let server = Server::start(Kept::InMemory).await;
    let name = Client::new(server.address, Wire::Http, &DEPLOY, "p").start("a").await.name;
    let request = format!(
        "GET http://{}{} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        DEPLOY.host,
        DEPLOY.list_path(&DEPLOY.parent("p")),
        DEPLOY.host,
    );
    let answer = exchange_bytes(server.address, request.as_bytes()).await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(&name), "{answer}");
    server.stop().await;
}
