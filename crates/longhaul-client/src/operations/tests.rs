//! The client against a small server that answers what a test tells it to and keeps what it was sent.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::json;
use tokio::net::TcpListener;

use super::*;

const NAME: &str = "projects/p/locations/l/operations/o";

/// One request as it arrived.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    line: String,
    body: String,
    content_type: Option<String>,
    host: Option<String>,
    authorization: Option<String>,
}

/// One answer to give.
#[derive(Clone)]
enum Answer {
    Send(u16, &'static str, String),
    /// Close the connection instead.
    Drop,
}

fn json_answer(http: u16, value: serde_json::Value) -> Answer {
    Answer::Send(http, "application/json; charset=UTF-8", value.to_string())
}

struct Server {
    url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    /// Gives the answers in order, then 404 for ever.
    async fn answering(answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let answers = Arc::new(Mutex::new(VecDeque::from(answers)));
        let log = seen.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (log, answers) = (log.clone(), answers.clone());
                let service = service_fn(move |request| {
                    let (log, answers) = (log.clone(), answers.clone());
                    async move { answer(request, &log, &answers).await }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { url, seen }
    }

    fn client(&self) -> Client {
        Client::new(&self.url).unwrap()
    }

    fn lines(&self) -> Vec<String> {
        self.seen.lock().iter().map(|seen| seen.line.clone()).collect()
    }
}

async fn answer(
    request: Request<Incoming>,
    log: &Mutex<Vec<Seen>>,
    answers: &Mutex<VecDeque<Answer>>,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let header =
        |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let mut seen = Seen {
        line: format!("{} {}", request.method(), request.uri()),
        body: String::new(),
        content_type: header("content-type"),
        host: header("host"),
        authorization: header("authorization"),
    };
    let body = request.into_body().collect().await.unwrap().to_bytes();
    seen.body = String::from_utf8(body.to_vec()).unwrap();
    log.lock().push(seen);
    let next = answers.lock().pop_front();
    match next.unwrap_or_else(|| json_answer(404, json!({}))) {
        Answer::Send(http, content_type, body) => Ok(Response::builder()
            .status(http)
            .header("content-type", content_type)
            .body(Full::new(Bytes::from(body)))
            .unwrap()),
        Answer::Drop => Err(std::io::Error::other("the test says so")),
    }
}

fn running() -> Answer {
    json_answer(200, json!({"name": NAME}))
}

fn status(error: &Error) -> &StatusError {
    let Error::Status(status) = error else { panic!("not a status: {error:?}") };
    status
}

#[tokio::test]
async fn cancel_posts_exactly_an_empty_object() {
    let server = Server::answering(vec![json_answer(200, json!({}))]).await;
    server.client().cancel(NAME).await.unwrap();
    let seen = server.seen.lock().clone();
    assert_eq!(seen[0].line, format!("POST /v1/{NAME}:cancel"));
    assert_eq!(seen[0].body, "{}");
    assert_eq!(seen[0].content_type.as_deref(), Some("application/json"));
}

#[tokio::test]
async fn an_empty_answer_to_cancel_and_delete_is_success() {
    let empty = || Answer::Send(200, "application/json", String::new());
    let server = Server::answering(vec![empty(), empty()]).await;
    server.client().cancel(NAME).await.unwrap();
    server.client().delete(NAME).await.unwrap();
    let seen = server.seen.lock().clone();
    assert_eq!(
        (seen[1].line.as_str(), seen[1].body.as_str()),
        (&*format!("DELETE /v1/{NAME}"), "")
    );
}

#[tokio::test]
async fn get_carries_prefix_host_and_token_and_keeps_every_field() {
    let operation = json!({"name": NAME, "metadata": {"@type": "type.googleapis.com/a.v1.M",
        "requestedCancellation": true}, "somethingNew": 1});
    let server = Server::answering(vec![json_answer(200, operation.clone())]).await;
    let client = server.client().with_api("dataproc").unwrap().with_host("h.example").unwrap();
    let got = client.with_token("secret").unwrap().get(NAME).await.unwrap();
    assert_eq!(got.json(), &operation);
    assert_eq!((got.state(), got.metadata_type()), (State::Cancelling, Some("a.v1.M")));
    let seen = server.seen.lock()[0].clone();
    assert_eq!(seen.line, format!("GET /dataproc/v1/{NAME}"));
    assert_eq!(seen.host.as_deref(), Some("h.example"));
    assert_eq!(seen.authorization.as_deref(), Some("Bearer secret"));
}

#[tokio::test]
async fn list_follows_page_tokens_until_there_is_none() {
    let page = |ids: &[u32], token: &str| {
        let operations: Vec<_> =
            ids.iter().map(|id| json!({"name": format!("operations/{id}")})).collect();
        json_answer(200, json!({"operations": operations, "nextPageToken": token}))
    };
    let server =
        Server::answering(vec![page(&[1, 2], "a b+/="), page(&[], "second"), page(&[3], "")]).await;
    let options = ListOptions {
        parent: "projects/p/locations/-".into(),
        filter: "done = false".into(),
        page_size: 2,
        return_partial_success: true,
    };
    let all = server.client().list(&options, usize::MAX).await.unwrap();
    let names: Vec<_> = all.operations.iter().map(Operation::name).collect();
    assert_eq!(names, ["operations/1", "operations/2", "operations/3"]);
    let query = "GET /v1/projects/p/locations/-/operations?filter=done+%3D+false&pageSize=2";
    assert_eq!(
        server.lines(),
        [
            format!("{query}&returnPartialSuccess=true"),
            format!("{query}&pageToken=a+b%2B%2F%3D&returnPartialSuccess=true"),
            format!("{query}&pageToken=second&returnPartialSuccess=true"),
        ]
    );
}

#[tokio::test]
async fn list_asks_for_no_more_than_the_limit() {
    let page = json!({"operations": [{"name": "operations/1"}, {"name": "operations/2"}],
        "nextPageToken": "more"});
    let server = Server::answering(vec![json_answer(200, page)]).await;
    let options = ListOptions { parent: "operations".into(), ..ListOptions::default() };
    let some = server.client().list(&options, 2).await.unwrap();
    assert_eq!((some.operations.len(), some.next_page_token.as_str()), (2, "more"));
    assert_eq!(server.lines(), ["GET /v1/operations?pageSize=2"]);
}

#[tokio::test]
async fn an_empty_list_may_be_an_empty_object_and_a_stuck_token_is_an_error() {
    let stuck = || json_answer(200, json!({"nextPageToken": "again"}));
    let server = Server::answering(vec![json_answer(200, json!({})), stuck(), stuck()]).await;
    let client = server.client();
    let options = ListOptions { parent: "projects/p".into(), ..ListOptions::default() };
    assert_eq!(client.list(&options, usize::MAX).await.unwrap(), Page::default());
    let error = client.list(&options, usize::MAX).await.unwrap_err();
    assert!(matches!(error, Error::Reply { .. }), "{error:?}");
}

#[tokio::test]
async fn googles_envelope_is_read_in_full() {
    let body = json!({"error": {"code": 404, "message": "no such operation", "status": "NOT_FOUND",
        "details": [
            {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "OPERATION_NOT_FOUND",
             "domain": "longhaul", "metadata": {"name": NAME}},
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1.5s"}]}});
    let server = Server::answering(vec![json_answer(404, body)]).await;
    let error = server.client().get(NAME).await.unwrap_err();
    assert_eq!(error.reason(), Some("OPERATION_NOT_FOUND"));
    let status = status(&error);
    assert_eq!((status.http, status.status.as_str(), status.envelope), (404, "NOT_FOUND", true));
    assert_eq!(status.message, "no such operation");
    assert_eq!(status.retry_after, Some(Duration::from_millis(1500)));
    assert_eq!(status.info.as_ref().unwrap().metadata["name"], NAME);
    assert_eq!(status.details.len(), 2);
}

#[tokio::test]
async fn a_page_of_html_is_an_error_with_a_code_and_without_the_page() {
    let html = "<!DOCTYPE html><title>Error 404 (Not Found)!!1</title>".to_owned();
    let server = Server::answering(vec![
        Answer::Send(404, "text/html; charset=UTF-8", html),
        Answer::Send(200, "text/html", "<p>Welcome".to_owned()),
        Answer::Send(403, "text/plain", "not\n  allowed".to_owned()),
        Answer::Send(302, "", String::new()),
    ])
    .await;
    let client = server.client();
    let error = client.get(NAME).await.unwrap_err();
    let (found, message) = (status(&error), "the server answered HTTP 404 with a text/html page");
    assert_eq!((found.status.as_str(), found.envelope), ("NOT_FOUND", false));
    assert_eq!(found.message, message);
    assert!(matches!(client.get(NAME).await.unwrap_err(), Error::Reply { .. }));
    let error = client.get(NAME).await.unwrap_err();
    assert_eq!(status(&error).message, "not allowed");
    let error = client.get(NAME).await.unwrap_err();
    assert_eq!(status(&error).status, "UNKNOWN");
}

#[tokio::test]
async fn an_answer_that_is_no_operation_is_said_to_be_none() {
    let answers = vec![json_answer(200, json!([])), json_answer(200, json!({"kind": "x"}))];
    let server = Server::answering(answers).await;
    for _ in 0..2 {
        let error = server.client().get(NAME).await.unwrap_err();
        assert!(error.to_string().contains("not an operation"), "{error}");
    }
}

#[tokio::test]
async fn a_cancel_is_repeated_while_the_server_is_unavailable_or_hangs_up() {
    let unavailable =
        json!({"error": {"code": 503, "status": "UNAVAILABLE", "message": "stopping"}});
    let server = Server::answering(vec![
        json_answer(503, unavailable),
        Answer::Drop,
        json_answer(200, json!({})),
    ])
    .await;
    server.client().cancel(NAME).await.unwrap();
    // A connection that breaks before its first answer may be repeated below this client, too.
    assert!(server.seen.lock().len() >= 3);
    assert!(server.seen.lock().iter().all(|seen| seen.body == "{}"));
}

#[tokio::test]
async fn an_unavailable_server_is_given_up_after_five_tries() {
    let unavailable = || Answer::Send(503, "", String::new());
    let server = Server::answering((0..9).map(|_| unavailable()).collect()).await;
    let error = server.client().delete(NAME).await.unwrap_err();
    assert!(error.transient());
    assert_eq!(server.seen.lock().len(), 5);
}

#[tokio::test]
async fn nobody_listening_is_told_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = Client::new(&url).unwrap().get(NAME).await.unwrap_err();
    let Error::Transport(transport) = &error else { panic!("{error:?}") };
    assert_eq!(transport.kind, TransportKind::Connect);
    assert!(error.to_string().starts_with("cannot connect to http://127.0.0.1:"), "{error}");
}

#[tokio::test]
async fn wait_polls_with_get_until_done_and_shows_every_state() {
    let done = json_answer(200, json!({"name": NAME, "done": true, "error": {"code": 1}}));
    let server = Server::answering(vec![running(), running(), done]).await;
    let options =
        WaitOptions { first_interval: Duration::from_millis(1), ..WaitOptions::default() };
    let mut states = Vec::new();
    let client = server.client();
    let last = client.wait(NAME, &options, &mut |seen| states.push(seen.state())).await.unwrap();
    assert_eq!(last.error().unwrap().code_name(), "CANCELLED");
    assert_eq!(states, [State::Running, State::Running, State::Cancelled]);
    assert_eq!(server.lines(), vec![format!("GET /v1/{NAME}"); 3]);
}

#[tokio::test]
async fn wait_uses_the_wait_method_only_when_told() {
    let done = json_answer(200, json!({"name": NAME, "done": true}));
    let server = Server::answering(vec![done]).await;
    let options = WaitOptions { hold: Some(Duration::from_secs(30)), ..WaitOptions::default() };
    server.client().wait(NAME, &options, &mut |_| {}).await.unwrap();
    let seen = server.seen.lock()[0].clone();
    assert_eq!(seen.line, format!("POST /v1/{NAME}:wait"));
    assert_eq!(seen.body, r#"{"timeout":"30.000s"}"#);
}

#[tokio::test]
async fn a_malformed_name_is_refused_before_anything_is_sent() {
    let server = Server::answering(Vec::new()).await;
    let client = server.client();
    for name in ["", "/operations/a", "operations/../../secret", "a//b"] {
        let error = client.cancel(name).await.unwrap_err();
        assert!(matches!(error, Error::InvalidArgument(_)), "{name}: {error:?}");
    }
    assert_eq!(server.lines(), Vec::<String>::new());
}

#[tokio::test]
async fn peers_19_only_cancel_cancels_and_a_timeout_is_no_cancel() {
    let cancelled = json!({"name": NAME, "done": true, "error": {"code": 1, "message": "c"}});
    let answers = vec![running(), json_answer(200, json!({})), json_answer(200, cancelled)];
    let server = Server::answering(answers).await;
    let handle = server.client().resume(NAME);
    let short = Duration::from_millis(300);
    let options = WaitOptions { timeout: Some(short), ..WaitOptions::default() };
    let error = handle.wait(&options).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
    assert!(server.lines().iter().all(|line| line.starts_with("GET ")), "{:?}", server.lines());
    let again = server.client().resume(handle.name());
    drop(handle);
    again.cancel().await.unwrap();
    let done = again.wait(&WaitOptions::default()).await.unwrap();
    assert_eq!(done.state(), State::Cancelled);
    assert_eq!(server.lines()[1], format!("POST /v1/{NAME}:cancel"));
}

#[tokio::test]
async fn peers_19_to_stop_waiting_ends_the_waits_and_sends_nothing() {
    let server = Server::answering(vec![running(), running(), running()]).await;
    let handle = server.client().resume(NAME);
    let waiting = [handle.clone(), handle.clone()]
        .map(|handle| tokio::spawn(async move { handle.wait(&WaitOptions::default()).await }));
    while server.lines().len() < 2 {
        tokio::task::yield_now().await;
    }
    handle.stop_waiting();
    for wait in waiting {
        let error = wait.await.unwrap().unwrap_err();
        assert!(matches!(error, Error::Detached { .. }), "{error:?}");
        assert!(!error.transient(), "{error}");
    }
    assert_eq!(server.lines(), vec![format!("GET /v1/{NAME}"); 2]);
    let options =
        WaitOptions { timeout: Some(Duration::from_millis(50)), ..WaitOptions::default() };
    let error = handle.wait(&options).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { last: Some(_) }), "a later wait waits: {error:?}");
}
