//! The audit log: what was asked for and what came of it is on record, and stays as it was written.

use std::path::{Path, PathBuf};
use std::process::Output;

use longhaul_server::Config;
use longhaul_server::audit::{Destination, Expect, OnFailure, verify_file};
use longhaul_wire::v1::Effects;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::harness::client::Wire;
use crate::harness::process::Process;
use crate::harness::samples::{Asked, DEPLOY};
use crate::harness::{Ask, Client, Failure, Kept, Operators, Say, Server, Worker, soon};

const START: &str = "google.cloud.deploy.v1.CloudDeploy.CreateTarget";
const CANCEL: &str = "google.longrunning.Operations.CancelOperation";
const DELETE: &str = "google.longrunning.Operations.DeleteOperation";

/// A server that keeps an audit log, and the log.
struct Audited {
    server: Server,
    path: PathBuf,
    _folder: TempDir,
}

impl Audited {
    async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("logs/audit.jsonl");
        let to = Destination::File(path.clone());
        let change = |config: &mut Config| {
            config.audit.destination = to;
            change(config);
        };
        Self { server: Server::with(Kept::OnDisk, change).await, path, _folder: folder }
    }

    fn client(&self, wire: Wire) -> Client {
        Client::new(self.server.address, wire, &DEPLOY, format!("project-{wire:?}"))
    }

    /// Everything that was written; the log is sound.
    async fn entries(self) -> Vec<Value> {
        self.server.stop().await;
        read(&self.path)
    }
}

/// The entries of a log, which is sound.
fn read(path: &Path) -> Vec<Value> {
    let report = verify_file(path, &Expect::default()).unwrap();
    assert_eq!(report.findings, []);
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn method(entry: &Value) -> &str {
    entry["protoPayload"]["methodName"].as_str().unwrap()
}

fn fact<'a>(entry: &'a Value, key: &str) -> &'a str {
    entry["protoPayload"]["metadata"][key].as_str().unwrap_or_default()
}

/// The entries about one operation, short: method, log, phase, cancel, first and last, code.
fn story(entries: &[Value], operation: &str) -> Vec<String> {
    let about = entries.iter().filter(|entry| entry["operation"]["id"] == operation);
    about
        .map(|entry| {
            let method = method(entry).rsplit('.').next().unwrap().to_owned();
            let log = entry["logName"].as_str().unwrap().rsplit("%2F").next().unwrap();
            let status = entry["protoPayload"].get("status");
            let code = status
                .map_or("-".to_owned(), |status| status["code"].as_i64().unwrap_or(0).to_string());
            let mut words = vec![method, log.to_owned(), code];
            words.extend(["phase", "cancel"].map(|key| fact(entry, key).to_owned()));
            for key in ["first", "last"] {
                if entry["operation"][key] == true {
                    words.push(key.to_owned());
                }
            }
            words.retain(|word| !word.is_empty());
            words.join(" ")
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_18_every_cancel_is_on_record_repeated_ones_and_those_after_the_end_too() {
    let audited = Audited::with(|_| {}).await;
    let mut names = Vec::new();
    for wire in [Wire::Http, Wire::Grpc] {
        let client = audited.client(wire);
        let worker = Worker::new(audited.server.address, wire, "w");
        let name = client.start("a").await.name;
        let held = worker.claim(&name).await;
        client.cancel(&name).await;
        let operators = Operators::new(audited.server.address, wire);
        operators.cancel(&name, "too slow").await;
        worker.report(held.item(Say::Stopped(Effects::None))).await;
        client.cancel(&name).await;
        client.try_delete(&name).await.unwrap();
        names.push(name);
    }
    let entries = audited.entries().await;
    for name in names {
        assert_eq!(
            story(&entries, &name),
            [
                "CreateTarget activity 0 ANSWERED first",
                "CancelOperation activity - ASKED",
                "CancelOperation activity 0 ANSWERED ACCEPTED",
                "Cancel activity - ASKED",
                "Cancel activity 0 ANSWERED REPEATED",
                "CreateTarget activity 1 last",
                "CancelOperation activity - ASKED",
                "CancelOperation activity 0 ANSWERED AFTER_DONE",
                "DeleteOperation activity - ASKED",
                "DeleteOperation activity 0 ANSWERED",
            ]
        );
    }
    assert!(entries.iter().any(|entry| fact(entry, "reason") == "too slow"));
    assert!(entries.iter().all(|entry| !method(entry).ends_with("GetOperation")));
    let asked = |entry: &&Value| fact(entry, "phase") == "ASKED";
    let counted =
        |of: &str| entries.iter().filter(asked).filter(|entry| method(entry) == of).count();
    assert_eq!([START, CANCEL, DELETE].map(counted), [2, 4, 2]);
    for entry in entries.iter().filter(asked) {
        let call = fact(entry, "call");
        let both = entries.iter().filter(|entry| fact(entry, "call") == call);
        assert_eq!(both.count(), 2, "asked and answered: {entry}");
        let from = &entry["protoPayload"]["requestMetadata"];
        assert_eq!(from["callerIp"], "127.0.0.1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_are_on_record_only_where_that_is_wanted() {
    for data_access in [false, true] {
        let audited = Audited::with(|config| config.audit.data_access = data_access).await;
        for wire in [Wire::Http, Wire::Grpc] {
            let client = audited.client(wire);
            let name = client.start("a").await.name;
            client.cancel(&name).await;
            client.get(&name).await;
            client.list("").await;
            client.try_wait(&name, None, None).await.unwrap();
            client.try_get("projects/p/locations/l/operations/none").await.unwrap_err();
        }
        let entries = audited.entries().await;
        let reads = entries.iter().filter(|entry| {
            entry["logName"].as_str().unwrap().ends_with("cloudaudit.googleapis.com%2Fdata_access")
        });
        let mut reads: Vec<_> = reads
            .map(|entry| {
                let code = entry["protoPayload"]["status"]["code"].as_i64().unwrap_or(0);
                (method(entry).rsplit('.').next().unwrap(), code)
            })
            .collect();
        reads.sort_unstable();
        let once =
            [("GetOperation", 0), ("GetOperation", 5), ("ListOperations", 0), ("WaitOperation", 0)];
        let want: Vec<_> = once.into_iter().flat_map(|read| [read, read]).collect();
        assert_eq!(reads, if data_access { want } else { Vec::new() });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cancels_that_were_carried_on_name_who_began_them() {
    let audited = Audited::with(|_| {}).await;
    let client = audited.client(Wire::Http);
    let parent = client.start("parent").await.name;
    let asked = Asked { id: "child", ..Asked::default() };
    let path = DEPLOY.start_path(&client.project, asked);
    let body = DEPLOY.start_body(&client.project, asked);
    let ask = Ask::post_json(path, &body).host(DEPLOY.host);
    let child = ask.header("x-longhaul-parent-operation", &*parent).send(client.address).await.ok();
    let child = child["name"].as_str().unwrap();
    client.cancel(&parent).await;
    client.done(child).await.is_cancelled();

    let other = client.start("other").await.name;
    let body = serde_json::json!({ "api": DEPLOY.host, "parent": client.parent(), "filter": "done = false", "reason": "cleaning" });
    let bulk =
        Ask::post_json("/longhaul/v1/operations:bulkCancel", &body).send(client.address).await;
    let bulk = bulk.ok()["operation"].as_str().unwrap().to_owned();
    client.done(&other).await.is_cancelled();

    let entries = audited.entries().await;
    let carried = |name: &str| {
        let fits = |entry: &&Value| {
            entry["operation"]["id"] == name
                && entry["logName"].as_str().unwrap().ends_with("system_event")
        };
        entries.iter().find(fits).unwrap_or_else(|| panic!("{name} in {entries:#?}"))
    };
    assert_eq!(fact(carried(child), "parent"), parent);
    assert_eq!(fact(carried(child), "cancel"), "ACCEPTED");
    assert_eq!(fact(carried(&other), "bulkCancel"), bulk);
    assert!(fact(carried(&other), "reason").starts_with("cleaning"));
}

fn configuration(folder: &Path, more: &str) -> String {
    let [data, log] = ["data", "audit.jsonl"].map(|name| folder.join(name).display().to_string());
    format!(
        "listen = \"127.0.0.1:0\"\ndata = {data:?}\n[auth]\nmode = \"off\"\n[audit]\ndestination = \"file:{log}\"\n{more}"
    )
}

/// Starts and cancels, and says what was answered.
async fn use_it(process: &Process, rounds: usize) -> Vec<String> {
    let mut names = Vec::new();
    for round in 0..rounds {
        let wire = if round.is_multiple_of(2) { Wire::Http } else { Wire::Grpc };
        let client = Client::new(process.address, wire, &DEPLOY, "p");
        let name = client.start("a").await.name;
        client.cancel(&name).await;
        names.push(name);
    }
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_answered_is_missing_after_kill_9() {
    let folder = TempDir::new().unwrap();
    let log = folder.path().join("audit.jsonl");
    let mut names = Vec::new();
    for _ in 0..3 {
        let process = Process::serve(&configuration(folder.path(), "")).await;
        names.extend(use_it(&process, 10).await);
        process.kill().await;
        // What a kill in the middle of a write leaves behind.
        let mut torn = std::fs::read(&log).unwrap();
        torn.extend_from_slice(b"{\"logName\":\"half a li");
        std::fs::write(&log, torn).unwrap();
        let report = verify_file(&log, &Expect::default()).unwrap();
        assert_eq!((report.findings, report.torn_bytes), (vec![], 21));
    }
    let process = Process::serve(&configuration(folder.path(), "")).await;
    assert_eq!(process.terminate().await, Some(0));
    let entries = read(&log);
    for name in names {
        let cancels = entries.iter().filter(|entry| {
            method(entry) == CANCEL && entry["protoPayload"]["resourceName"] == *name
        });
        assert!(cancels.into_iter().any(|entry| fact(entry, "phase") == "ASKED"), "{name}");
    }
    let starts = entries.iter().filter(|entry| method(entry) == START);
    assert!(starts.filter(|entry| fact(entry, "phase") == "ASKED").count() >= 30);
    let torn = entries.iter().filter(|entry| fact(entry, "tornBytes") == "21").count();
    assert_eq!(torn, 3, "each torn line is on record");
    let closed = entries.last().map(method);
    assert_eq!(closed, Some("longhaul.Audit.Close"));
}

/// A server whose audit log lies on a disk that is full while a file exists.
async fn on_a_disk(folder: &Path, more: &str) -> (Process, PathBuf) {
    let full = folder.join("full");
    let environment = [("LONGHAUL_AUDIT_FULL", full.as_os_str())];
    (Process::serve_in(&configuration(folder, more), &environment).await, full)
}

fn is_refused(failure: &Failure) {
    failure.is("UNAVAILABLE", "AUDIT_UNAVAILABLE").says(&["nothing was changed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_full_disk_nothing_is_changed_that_is_not_on_record() {
    let folder = TempDir::new().unwrap();
    let (process, full) = on_a_disk(folder.path(), "on_failure = \"refuse\"").await;
    let client = |wire| Client::new(process.address, wire, &DEPLOY, "p");
    let name = client(Wire::Http).start("before").await.name;
    std::fs::write(&full, "").unwrap();
    for wire in [Wire::Http, Wire::Grpc] {
        let client = client(wire);
        is_refused(&client.try_start(Asked { id: "no", ..Asked::default() }).await.unwrap_err());
        is_refused(&client.try_cancel(&name).await.unwrap_err());
        is_refused(&client.try_delete(&name).await.unwrap_err());
        client.get(&name).await.is_running();
        assert_eq!(client.list("").await.names(), [&*name], "reads go on");
    }
    let answer =
        Ask::post(format!("/v1/{name}:cancel")).host(DEPLOY.host).send(process.address).await;
    assert_eq!(answer.code, 503);
    assert!(answer.headers.contains_key("retry-after"));
    std::fs::remove_file(&full).unwrap();
    let client = client(Wire::Grpc);
    let cancelled = async { while client.try_cancel(&name).await.is_err() {} };
    soon("a cancel after there is room again", cancelled).await;
    client.get(&name).await.is_cancelled();
    assert_eq!(process.terminate().await, Some(0));

    let entries = read(&folder.path().join("audit.jsonl"));
    let resumed = entries.iter().find(|entry| method(entry) == "longhaul.Audit.Resume").unwrap();
    assert!(fact(resumed, "callsRefused").parse::<u64>().unwrap() >= 7, "{resumed}");
    assert!(
        story(&entries, &name).contains(&"CancelOperation activity 0 ANSWERED ACCEPTED".into())
    );
    assert!(entries.iter().all(|entry| entry["labels"]["longhaul/lost"].is_null()));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_full_disk_calls_go_on_where_that_is_wanted_and_losses_are_counted() {
    let folder = TempDir::new().unwrap();
    let more = "on_failure = \"drop\"\nqueue_max = 8";
    let (process, full) = on_a_disk(folder.path(), more).await;
    std::fs::write(&full, "").unwrap();
    let names = use_it(&process, 20).await;
    std::fs::remove_file(&full).unwrap();
    assert_eq!(process.terminate().await, Some(0));
    let entries = read(&folder.path().join("audit.jsonl"));
    let told = entries.iter().filter_map(|entry| entry["labels"]["longhaul/lost"].as_str());
    let lost: usize = told.map(|count| count.parse::<usize>().unwrap()).sum();
    let kept = entries.iter().filter(|entry| !method(entry).starts_with("longhaul.Audit.")).count();
    // Of each: started, cancelled, ended.
    assert_eq!(kept + lost, 3 * names.len(), "kept {kept}, lost {lost}");
    assert!(lost > 0);
}

async fn verify(path: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longhaul"));
    command.args(["audit", "verify"]).arg(path).args(more);
    soon("the verdict", command.output()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_names_the_line_that_was_changed() {
    let audited = Audited::with(|_| {}).await;
    let client = audited.client(Wire::Http);
    for id in ["a", "b"] {
        let name = client.start(id).await.name;
        client.cancel(&name).await;
    }
    audited.server.stop().await;
    let path = &audited.path;
    let said = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    let sound = verify(path, &[]).await;
    assert_eq!(sound.status.code(), Some(0), "{sound:?}");
    assert!(said(&sound).starts_with("sound: "), "{sound:?}");
    let json = verify(path, &["-o", "json"]).await;
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    let hash = json["lastHash"].as_str().unwrap();
    assert_eq!(verify(path, &["--contains", hash]).await.status.code(), Some(0));

    let text = std::fs::read_to_string(path).unwrap();
    let changed = text.replacen("127.0.0.1", "127.0.0.9", 1);
    let line = 1 + text.lines().zip(changed.lines()).position(|(was, is)| was != is).unwrap();
    std::fs::write(path, changed).unwrap();
    let unsound = verify(path, &[]).await;
    assert_eq!(unsound.status.code(), Some(1), "{unsound:?}");
    assert!(said(&unsound).starts_with(&format!("line {line} ")), "{unsound:?}");

    let whole: Vec<_> = text.lines().collect();
    std::fs::write(path, whole[..whole.len() - 2].join("\n") + "\n").unwrap();
    let cut = verify(path, &[]).await;
    assert_eq!(cut.status.code(), Some(1));
    assert!(said(&cut).contains("were cut off"), "{cut:?}");
    let none = verify(&path.with_extension("none"), &[]).await;
    assert_eq!(none.status.code(), Some(2), "{none:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_caller_leaves_is_on_record_with_its_end() {
    let audited = Audited::with(|config| config.audit.on_failure = OnFailure::Drop).await;
    let path = DEPLOY.start_path("p", Asked { id: "a", ..Asked::default() });
    let body = DEPLOY.start_body("p", Asked { id: "a", ..Asked::default() }).to_string();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        DEPLOY.host,
        body.len()
    );
    for _ in 0..20 {
        use tokio::io::AsyncWriteExt as _;
        let mut stream = tokio::net::TcpStream::connect(audited.server.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        // Closed with unread data: the server sees a reset, at whatever it is just doing.
        stream.set_zero_linger().unwrap();
    }
    let client = Client::new(audited.server.address, Wire::Http, &DEPLOY, "p");
    client.start("b").await;
    let kept: Vec<String> =
        client.list("").await.operations.into_iter().map(|operation| operation.name).collect();
    let entries = audited.entries().await;
    for name in kept {
        let story = story(&entries, &name);
        assert_eq!(story, ["CreateTarget activity 0 ANSWERED first"], "{name}");
    }
}
