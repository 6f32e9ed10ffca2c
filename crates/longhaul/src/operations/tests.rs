//! Whole commands against a small server that knows some paths: what is asked, and how it ends.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use clap::Parser as _;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use longhaul_client::operations::ListOptions;
use serde_json::json;
use tokio::net::TcpListener;

use super::*;
use crate::cli::{Cli, Command};

const PARENT: &str = "projects/-/locations/-";

/// Answers by method and path; everything else is not found.
struct Server {
    url: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn knowing(answers: &[(&str, u16, Value)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answers = answers.iter().cloned();
        let answers: HashMap<String, (u16, Value)> =
            answers.map(|(line, http, value)| (line.to_owned(), (http, value))).collect();
        let (answers, seen) = (Arc::new(answers), Arc::new(Mutex::new(Vec::new())));
        let log = seen.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answers, log) = (answers.clone(), log.clone());
                let service =
                    service_fn(move |request| answer(request, answers.clone(), log.clone()));
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { url, seen }
    }

    /// Runs `longhaul operations …` against it.
    async fn run(&self, line: &str) -> Result<Exit, Failure> {
        let OperationsArgs { command, target, output } = self.parse(line);
        let target = Target::new(&target)?;
        match command {
            OperationsCommand::Wait(args) => wait_for(&target, args, output).await,
            OperationsCommand::Cancel(args) => cancel(&target, args, output).await,
            OperationsCommand::Delete(args) => delete(&target, args, output).await,
            OperationsCommand::Describe(args) => describe::run(&target, args, output).await,
            OperationsCommand::List(_) => panic!("lists are tested one level below"),
        }
    }

    fn parse(&self, line: &str) -> OperationsArgs {
        let line = format!("longhaul operations {line} -o name --server {}", self.url);
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        let Command::Operations(args) = cli.command else { panic!("{line}") };
        args
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

async fn answer(
    request: Request<Incoming>,
    answers: Arc<HashMap<String, (u16, Value)>>,
    log: Arc<Mutex<Vec<String>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let host = request.headers()["host"].to_str().unwrap();
    let host = if host.starts_with("127.") { String::new() } else { format!(" {host}") };
    let line = format!("{} {}{host}", request.method(), request.uri().path());
    log.lock().unwrap().push(line.clone());
    let missing = (404, envelope("NOT_FOUND", "OPERATION_NOT_FOUND", json!({})));
    let (http, value) = answers.get(&line).unwrap_or(&missing);
    let response = Response::builder().status(*http).header("content-type", "application/json");
    Ok(response.body(Full::new(Bytes::from(value.to_string()))).unwrap())
}

fn envelope(status: &str, reason: &str, metadata: Value) -> Value {
    json!({"error": {"code": 400, "message": "no", "status": status, "details": [
        {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "longhaul",
         "metadata": metadata}]}})
}

fn created(name: &str, second: u32) -> Value {
    json!({"name": name, "metadata": {"createTime": format!("2026-01-01T00:00:{second:02}Z")}})
}

#[tokio::test]
async fn the_exit_code_says_how_the_operation_ended() {
    let server = Server::knowing(&[
        (
            "GET /v1/operations/good",
            200,
            json!({"name": "operations/good", "done": true, "response": {}}),
        ),
        (
            "GET /v1/operations/bad",
            200,
            json!({"name": "operations/bad", "done": true, "error": {"code": 9}}),
        ),
        (
            "GET /v1/operations/gone",
            200,
            json!({"name": "operations/gone", "done": true, "error": {"code": 1}}),
        ),
        ("GET /v1/operations/slow", 200, json!({"name": "operations/slow"})),
    ])
    .await;
    for (line, exit) in [
        ("wait operations/good", Exit::Done),
        ("wait operations/bad", Exit::Failed),
        ("wait operations/gone", Exit::Cancelled),
        ("wait operations/slow --timeout 50ms", Exit::Deadline),
        ("wait operations/missing", Exit::Failed),
        ("wait operations/good operations/gone operations/bad", Exit::Failed),
        ("wait operations/good operations/gone", Exit::Cancelled),
    ] {
        assert_eq!(server.run(&format!("{line} --quiet")).await.unwrap(), exit, "{line}");
    }
    assert_eq!(server.run("describe operations/missing").await.unwrap_err().exit, Exit::Failed);
    assert_eq!(server.run("describe operations//x").await.unwrap_err().exit, Exit::Usage);
}

#[tokio::test]
async fn one_operation_that_cannot_be_cancelled_does_not_spare_the_others() {
    let server = Server::knowing(&[
        ("POST /v1/operations/a:cancel", 200, json!({})),
        ("POST /v1/operations/c:cancel", 200, json!({})),
    ])
    .await;
    let exit =
        server.run("cancel operations/a operations/b operations/c operations/a").await.unwrap();
    assert_eq!(exit, Exit::Failed);
    assert_eq!(
        server.seen(),
        [
            "POST /v1/operations/a:cancel",
            "POST /v1/operations/b:cancel",
            "POST /v1/operations/c:cancel"
        ]
    );
}

#[tokio::test]
async fn a_reason_goes_to_the_server_that_keeps_reasons() {
    let server = Server::knowing(&[(
        "POST /longhaul/v1/operations/a:cancel",
        200,
        json!({"outcome": "REQUESTED"}),
    )])
    .await;
    assert_eq!(server.run("cancel operations/a --reason dear").await.unwrap(), Exit::Done);
    assert_eq!(server.run("cancel operations/b --reason dear").await.unwrap(), Exit::Failed);
    assert_eq!(server.seen()[1], "POST /longhaul/v1/operations/b:cancel");
}

#[tokio::test]
async fn a_filter_needs_an_api_and_its_end_is_that_of_each() {
    let bulk = "POST /longhaul/v1/operations:bulkCancel";
    let detail = |items: Value| {
        let outcomes = json!({"REQUESTED": "1", "CANCEL_UNSUPPORTED": "1"});
        json!({"state": "DONE", "response": {"matched": "2", "outcomes": outcomes, "items": items}})
    };
    let good = json!([{"name": "operations/a", "outcome": "REQUESTED"}]);
    let mixed = json!([{"name": "operations/a", "outcome": "REQUESTED"},
        {"name": "operations/b", "error": "CANCEL_UNSUPPORTED"}]);
    let line = "cancel --api clouddeploy --parent projects/p/locations/l --filter x";
    for (items, exit) in [(good, Exit::Done), (mixed, Exit::Failed)] {
        let server = Server::knowing(&[
            (bulk, 200, json!({"operation": "operations/bulk"})),
            ("GET /longhaul/v1/operations/bulk:describe", 200, detail(items)),
        ])
        .await;
        assert_eq!(server.run(&format!("{line} --quiet")).await.unwrap(), exit);
        assert_eq!(server.run(&format!("{line} --dry-run")).await.unwrap(), Exit::Done);
        assert_eq!(server.seen().len(), 3, "a dry run is followed by nothing");
        let unsaid = server.run("cancel --filter x").await.unwrap_err();
        assert_eq!(unsaid.exit, Exit::Usage);
    }
    let stopped = json!({"state": "DONE", "error": {"code": 1, "message": "x"}, "metadata": {}});
    let server = Server::knowing(&[
        (bulk, 200, json!({"operation": "operations/bulk"})),
        ("GET /longhaul/v1/operations/bulk:describe", 200, stopped),
    ])
    .await;
    assert_eq!(server.run(&format!("{line} --quiet")).await.unwrap(), Exit::Cancelled);
}

#[tokio::test]
async fn cancel_and_wait_ends_as_the_operation_does() {
    let done = json!({"name": "operations/a", "done": true, "error": {"code": 1}});
    let server = Server::knowing(&[
        ("POST /v1/operations/a:cancel", 200, json!({})),
        ("GET /v1/operations/a", 200, done),
    ])
    .await;
    assert_eq!(server.run("cancel operations/a --wait --quiet").await.unwrap(), Exit::Cancelled);
    assert_eq!(server.run("cancel operations/a").await.unwrap(), Exit::Done);
}

#[tokio::test]
async fn a_list_that_several_apis_fit_is_made_of_each() {
    let here = format!("GET /v1/{PARENT}/operations");
    let regions = "GET /v1/projects/-/regions/-/operations dataproc.googleapis.com";
    let which = json!({"apis": "clouddeploy.googleapis.com, dataproc.googleapis.com"});
    let page = |operations: &[Value]| json!({"operations": operations});
    let server = Server::knowing(&[
        (&here, 400, envelope("INVALID_ARGUMENT", "API_AMBIGUOUS", which)),
        (
            &format!("{here} clouddeploy.googleapis.com"),
            200,
            page(&[created("d/2", 2), created("d/1", 1)]),
        ),
        (&format!("{here} dataproc.googleapis.com"), 200, json!({})),
        (regions, 200, page(&[created("c/3", 3)])),
    ])
    .await;
    let target = Target::new(&server.parse("list").target).unwrap();
    let found = list::everywhere(&target, &ListOptions::default(), 10).await.unwrap();
    let found: Vec<_> =
        found.operations.iter().map(|(one, api)| (one.name(), api.as_deref())).collect();
    let (deploy, dataproc) = (Some("clouddeploy.googleapis.com"), Some("dataproc.googleapis.com"));
    assert_eq!(found, [("c/3", dataproc), ("d/2", deploy), ("d/1", deploy)]);
}

#[tokio::test]
async fn an_id_alone_is_looked_for_and_must_be_one_operations() {
    let list = format!("GET /v1/{PARENT}/operations");
    let (one, two) = (
        created("projects/p/locations/l/operations/o", 1),
        created("projects/q/locations/l/operations/o", 2),
    );
    let server = Server::knowing(&[
        (&list, 200, json!({"operations": [one.clone(), created("projects/p/locations/l/operations/x-o", 3)]})),
        ("DELETE /v1/projects/p/locations/l/operations/o", 200, json!({})),
    ])
    .await;
    assert_eq!(server.run("delete o").await.unwrap(), Exit::Done);
    assert_eq!(server.run("delete nothing").await.unwrap_err().exit, Exit::Failed);
    let server = Server::knowing(&[(&list, 200, json!({"operations": [one, two]}))]).await;
    assert_eq!(server.run("delete o").await.unwrap_err().exit, Exit::Usage);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let server = Server { url, seen: Arc::default() };
    let waiting = server.run("wait operations/a --quiet");
    let exit = tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap();
    assert_eq!(exit, Exit::Failed);
}
