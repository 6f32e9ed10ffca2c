//! Bulk cancel by filter: counted before, an operation while it runs, accounted for afterwards.

use std::collections::BTreeSet;

use longhaul_wire::v1::{
    self, BulkCancelProgress, BulkCancelRequest, BulkCancelResponse, OperationDetail,
};
use prost::Message as _;
use serde_json::json;
use tempfile::TempDir;

use crate::harness::client::Wire;
use crate::harness::place::everywhere_with;
use crate::harness::process::Process;
use crate::harness::samples::DEPLOY;
use crate::harness::{Ask, Client, Failure, Kept, Place, Server, everywhere, soon};

async fn try_bulk(
    client: &Client,
    filter: &str,
    dry_run: bool,
) -> Result<BulkCancelResponse, Failure> {
    let (api, parent) = (client.sample.host.to_owned(), client.parent());
    if client.wire == Wire::Http {
        let body = json!({ "api": api, "parent": parent, "filter": filter, "reason": "spring cleaning", "dryRun": dry_run });
        let ask = Ask::post_json("/longhaul/v1/operations:bulkCancel", &body);
        let answer = ask.send(client.address).await;
        if answer.code != 200 {
            return Err(Failure::from_envelope(&answer.json()));
        }
        let json = answer.ok();
        let names = json["names"].as_array().cloned().unwrap_or_default();
        return Ok(BulkCancelResponse {
            matched: json["matched"].as_str().map_or(0, |text| text.parse().unwrap()),
            names: names.iter().map(|name| name.as_str().unwrap().to_owned()).collect(),
            operation: json["operation"].as_str().unwrap_or_default().to_owned(),
        });
    }
    let (filter, reason) = (filter.to_owned(), "spring cleaning".to_owned());
    let request = BulkCancelRequest { api, parent, filter, reason, dry_run };
    let path = "/longhaul.v1.Operators/BulkCancel";
    soon("a bulk cancel", client.grpc().call(path, &request, None)).await
}

async fn describe(client: &Client, name: &str) -> OperationDetail {
    let request = v1::DescribeRequest { name: name.into() };
    let path = "/longhaul.v1.Operators/Describe";
    soon("a description", client.grpc().call(path, &request, None)).await.unwrap()
}

fn progress(detail: &OperationDetail) -> BulkCancelProgress {
    let any = detail.response.clone().or(detail.metadata.clone()).unwrap();
    assert!(any.type_url.ends_with("/longhaul.v1.BulkCancelProgress"), "{any:?}");
    BulkCancelProgress::decode(&*any.value).unwrap()
}

/// Follows an operation by the operators' watch until it fits.
async fn until(
    client: &Client,
    name: &str,
    fits: impl Fn(&OperationDetail) -> bool,
) -> OperationDetail {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", client.address));
    let channel = endpoint.unwrap().connect_lazy();
    let mut operators = v1::operators_client::OperatorsClient::new(channel);
    let request = v1::WatchRequest { names: vec![name.into()], ..Default::default() };
    let mut changes = operators.watch(request).await.unwrap().into_inner();
    loop {
        let change = soon("a change", changes.message()).await.unwrap().expect("it goes on");
        let seen = change.operation.unwrap();
        if fits(&seen) {
            return seen;
        }
    }
}

fn is_done(detail: &OperationDetail) -> bool {
    detail.state() == v1::State::Done
}

async fn start_many(client: &Client, prefix: &str, count: usize) -> BTreeSet<String> {
    let starts = (0..count).map(|number| {
        let (client, id) = (client.clone(), format!("{prefix}{number}"));
        tokio::spawn(async move { client.start(&id).await.name })
    });
    let starts: Vec<_> = starts.collect();
    let mut names = BTreeSet::new();
    for start in starts {
        names.insert(start.await.unwrap());
    }
    names
}

fn item_names(progress: &BulkCancelProgress) -> BTreeSet<String> {
    progress.items.iter().map(|item| item.name.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_24_a_dry_run_counts_and_the_real_one_says_what_became_of_each() {
    everywhere(async |place: Place| {
        let (client, worker) = (place.client(), place.worker());
        let running = client.start("run").await.name;
        let _held = worker.claim(&running).await;
        let mut wanted = start_many(&client, "a", 120).await;
        wanted.insert(running.clone());
        let gone = client.start("gone").await.name;
        client.cancel(&gone).await;

        let counted = try_bulk(&client, "", true).await.unwrap();
        assert_eq!((counted.matched, counted.names.len()), (121, 100));
        assert!(
            counted.names.iter().all(|name| wanted.contains(name)) && counted.operation.is_empty()
        );
        assert_eq!(client.list("done = false").await.operations.len(), 100, "nothing was changed");

        let one = try_bulk(&client, &format!("name = \"{running}\""), true).await.unwrap();
        assert_eq!(one.names, std::slice::from_ref(&running));

        let bulk = try_bulk(&client, "", false).await.unwrap().operation;
        let after = client.start("after").await.name;
        let seen = until(&client, &bulk, is_done).await;
        assert!(seen.error.is_none(), "{seen:?}");
        assert_eq!(seen.progress.as_ref().unwrap().message, "121 operations asked");
        let seen = progress(&seen);
        assert_eq!((seen.matched, item_names(&seen)), (121, wanted));
        let outcomes: Vec<_> = ["CANCELLED", "REQUESTED"].map(|what| seen.outcomes[what]).into();
        assert_eq!((outcomes, seen.outcomes.len()), (vec![120, 1], 2));
        client.get(&after).await.is_running();
        let cancel = describe(&client, &running).await.cancel.unwrap();
        assert!(cancel.reason.contains("spring cleaning") && cancel.reason.contains(&bulk));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_24_a_bulk_cancel_can_be_cancelled_half_way() {
    let slowly = |config: &mut longhaul_server::Config| config.limits.bulk_cancels_per_second = 20;
    everywhere_with(slowly, async |place: Place| {
        let (client, worker) = (place.client(), place.worker());
        let all = start_many(&client, "a", 100).await;
        let bulk = try_bulk(&client, "", false).await.unwrap().operation;
        assert!(worker.claim_now().await.iter().all(|held| held.operation != bulk));
        until(&client, &bulk, |seen| progress(seen).matched > 0).await;
        let ask = Ask::post_json(format!("/longhaul/v1/{bulk}:cancel"), &json!({"reason": "oh"}));
        assert_eq!(ask.send(client.address).await.ok()["outcome"], "REQUESTED");
        let seen = until(&client, &bulk, is_done).await;
        assert_eq!(seen.error.as_ref().map(|error| error.code), Some(1), "{seen:?}");
        let seen = progress(&seen);
        let asked = item_names(&seen);
        assert_eq!(seen.matched as usize, asked.len());
        assert!((20..100).contains(&asked.len()), "{}", asked.len());
        for name in &all {
            let cancelled = describe(&client, name).await.cancel.is_some();
            assert_eq!(cancelled, asked.contains(name), "the record tells the truth about {name}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_cancel_that_cannot_be_meant_is_refused_with_a_reason() {
    everywhere(async |place: Place| {
        let client = place.client();
        let refused = async |filter: &str| try_bulk(&client, filter, false).await.unwrap_err();
        refused("done =").await.is("INVALID_ARGUMENT", "INVALID_FILTER");
        refused("nonsense = 1").await.is("INVALID_ARGUMENT", "INVALID_FILTER");
        let mut strange = client.clone();
        strange.project = "a/b".into();
        let failure = try_bulk(&strange, "", true).await.unwrap_err();
        failure.is("INVALID_ARGUMENT", "INVALID_NAME");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_24_a_bulk_cancel_goes_on_after_kill_9_and_counts_each_once() {
    let folder = TempDir::new().unwrap();
    let text = format!(
        "listen = \"127.0.0.1:0\"\ndata = {:?}\n[limits]\nbulk_cancels_per_second = 100\n",
        folder.path().join("data")
    );
    let mut process = Process::serve(&text).await;
    let client = Client::new(process.address, Wire::Grpc, &DEPLOY, "p");
    let all = start_many(&client, "a", 400).await;
    let bulk = try_bulk(&client, "", false).await.unwrap().operation;
    for least in [1, 101, 201] {
        let client = Client::new(process.address, Wire::Grpc, &DEPLOY, "p");
        until(&client, &bulk, |seen| progress(seen).matched >= least).await;
        process.kill().await;
        process = Process::serve(&text).await;
    }
    let client = Client::new(process.address, Wire::Grpc, &DEPLOY, "p");
    let seen = progress(&until(&client, &bulk, is_done).await);
    assert_eq!((seen.matched, item_names(&seen)), (400, all.clone()));
    assert_eq!((seen.outcomes["CANCELLED"], seen.outcomes.len()), (400, 1));
    for name in &all {
        client.get(name).await.is_cancelled();
    }
    assert_eq!(process.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_24_the_command_line_counts_first_and_then_tells_what_came_of_each() {
    let server = std::sync::Arc::new(Server::start(Kept::OnDisk).await);
    let place = Place::on(server.clone(), Wire::Http);
    let (client, worker) = (place.client(), place.worker());
    let running = client.start("running").await.name;
    let _held = worker.claim(&running).await;
    let queued = client.start("queued").await.name;
    let run = async |flags: &[&str]| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_longhaul"));
        command.args(["operations", "cancel", "--api", "clouddeploy", "--filter", "done = false"]);
        command.args(["--parent", &client.parent(), "--server"]);
        command.arg(format!("http://{}", server.address)).args(flags).kill_on_drop(true);
        let output = soon("the command's end", command.output()).await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, out, _) = run(&["--dry-run", "-o", "name"]).await;
    assert_eq!((code, &*out), (Some(0), &*format!("{queued}\n{running}\n")));
    client.get(&queued).await.is_running();

    let (code, out, errors) = run(&["--reason", "spring cleaning"]).await;
    assert_eq!(code, Some(0), "{errors}");
    for line in [format!("{queued} CANCELLED"), format!("{running} REQUESTED")] {
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(out.lines().any(|had| words(had) == line), "no {line:?} in {out}");
    }
    assert!(out.contains("asked 2: 1 CANCELLED, 1 REQUESTED"), "{out}");
    client.get(&queued).await.is_cancelled();
    let cancel = place.operators().describe(&running).await.cancel.unwrap();
    assert!(cancel.reason.starts_with("spring cleaning"), "{cancel:?}");
    server.stop().await;
}
