//! Bulk cancels by callers who may cancel some of what they may list: those are asked, the rest is named and
//! left alone, and nothing is told to those who may not list.

use std::collections::BTreeMap;

use longhaul_server::config::CancelRule;
use serde_json::{Value, json};

use super::people::World;
use super::{as_dataproc, replace, started};
use crate::harness::http::Ask;
use crate::harness::samples::DATAPROC;
use crate::harness::soon;
use crate::harness::view::Failure;

const PARENT: &str = "projects/p/locations/here";

async fn bulk(world: &World, who: &str, dry_run: bool) -> Result<Value, Failure> {
    let body = json!({
        "api": "clouddeploy", "parent": PARENT, "filter": "done = false", "dryRun": dry_run,
    });
    world.http(who, Ask::post_json("/longhaul/v1/operations:bulkCancel", &body)).await
}

/// What came of each, by its name, once it is over; the counts fit.
async fn outcome(world: &World, who: &str, started: &Value) -> BTreeMap<String, String> {
    let name = started["operation"].as_str().unwrap();
    let over = async {
        loop {
            let ask = Ask::get(format!("/longhaul/v1/{name}:describe"));
            let seen = world.http(who, ask).await.unwrap();
            if seen["state"] == "DONE" {
                return seen;
            }
            // tidy: sleep: a pause between two looks; the caller has a deadline
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let seen = soon("the end of a bulk cancel", over).await;
    let record = &seen["response"];
    let items: BTreeMap<_, _> = record["items"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|item| {
            let came = item["error"].as_str().or(item["outcome"].as_str()).unwrap();
            (item["name"].as_str().unwrap().to_owned(), came.to_owned())
        })
        .collect();
    let asked = items.values().filter(|came| *came != "IAM_PERMISSION_DENIED").count();
    assert_eq!(record["matched"].as_str().unwrap_or("0"), asked.to_string(), "{record}");
    let counted = record["outcomes"].as_object().into_iter().flatten();
    let counted: usize =
        counted.map(|(_, count)| count.as_str().unwrap().parse::<usize>().unwrap()).sum();
    assert_eq!(counted, items.len(), "{record}");
    items
}

async fn start_as(world: &World, who: &str) -> String {
    let path = format!("/v1/{PARENT}/targets?targetId=t");
    let started = world.http(who, Ask::post_json(path, &json!({}))).await.unwrap();
    started["name"].as_str().unwrap().to_owned()
}

async fn is_done(world: &World, name: &str) -> bool {
    world.http("root", Ask::get(format!("/v1/{name}"))).await.unwrap()["done"] == json!(true)
}

#[tokio::test(flavor = "multi_thread")]
async fn where_only_owners_cancel_a_bulk_cancel_reaches_ones_own_and_names_the_rest() {
    let world = World::start(|auth| auth.cancel = CancelRule::Owner).await;
    let theirs = started(&world, "p").await;
    let own = [start_as(&world, "operator").await, start_as(&world, "operator").await];
    let counted = bulk(&world, "operator", true).await.unwrap();
    assert_eq!(counted["matched"], "2", "those that would be asked: {counted}");
    assert!(!counted.to_string().contains(&theirs), "{counted}");

    let begun = bulk(&world, "operator", false).await.unwrap();
    let came = outcome(&world, "operator", &begun).await;
    assert_eq!(came.len(), 3);
    assert_eq!(came[&theirs], "IAM_PERMISSION_DENIED");
    assert!(own.iter().all(|name| came[name] == "CANCELLED"), "{came:?}");
    assert!(!is_done(&world, &theirs).await);
    for name in &own {
        assert!(is_done(&world, name).await);
    }
    // Who may cancel what others started reaches all of them.
    let begun = bulk(&world, "admin", false).await.unwrap();
    assert_eq!(
        outcome(&world, "admin", &begun).await,
        BTreeMap::from([(theirs, "CANCELLED".into())])
    );
}

/// Ann may cancel one of the operations, by a condition on its name, and Bob none.
fn by_name(name: &str) -> String {
    format!(
        "
policies:
- resource: projects/p
  bindings:
  - {{role: roles/clouddeploy.viewer, members: ['user:ann@example.com', 'user:bob@example.com', 'group:team@example.com']}}
  - role: roles/clouddeploy.operator
    members: ['user:ann@example.com']
    condition: {{title: one, expression: \"resource.name.endsWith('{}')\"}}
groups:
  team@example.com: ['user:viewer@example.com']
bindings:
- {{role: roles/owner, members: ['user:root@example.com']}}
- {{role: roles/dataproc.viewer, members: ['user:ann@example.com']}}
",
        name.rsplit('/').next().unwrap()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn each_operation_is_asked_for_by_itself_as_the_policy_is_now() {
    let world = World::start(|_| {}).await;
    let (one, other) = (started(&world, "p").await, started(&world, "p").await);
    replace(&world, &by_name(&one), "ann").await;
    let counted = bulk(&world, "ann", true).await.unwrap();
    assert_eq!((&counted["matched"], &counted["names"]), (&json!("1"), &json!([one])));
    for who in ["bob", "viewer"] {
        for dry_run in [true, false] {
            let refused = bulk(&world, who, dry_run).await.unwrap_err();
            refused.is("PERMISSION_DENIED", "IAM_PERMISSION_DENIED");
            refused.says(&["clouddeploy.operations.cancel", PARENT]);
        }
    }
    // Who may not even list is told the same whatever there is.
    let refused = bulk(&world, "stranger", false).await.unwrap_err();
    refused.is("PERMISSION_DENIED", "IAM_PERMISSION_DENIED");
    assert!(refused.message.contains("clouddeploy.operations.list"), "{refused:?}");

    let begun = bulk(&world, "ann", false).await.unwrap();
    let came = outcome(&world, "ann", &begun).await;
    assert_eq!(
        (came[&one].as_str(), came[&other].as_str()),
        ("CANCELLED", "IAM_PERMISSION_DENIED")
    );
    assert!(!is_done(&world, &other).await);
    let record = format!("/longhaul/v1/{}:describe", begun["operation"].as_str().unwrap());
    let refused = world.http("bob", Ask::get(record)).await.unwrap_err();
    refused.is("PERMISSION_DENIED", "IAM_PERMISSION_DENIED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permission_that_is_lost_half_way_ends_what_a_bulk_cancel_may() {
    let slow = |config: &mut longhaul_server::Config| config.limits.bulk_cancels_per_second = 1;
    let world = World::with(slow).await;
    let mut names = Vec::new();
    for _ in 0..4 {
        names.push(started(&world, "p").await);
    }
    let begun = bulk(&world, "operator", false).await.unwrap();
    // The newest is asked first; when it is done, the rest is still to come, one a second.
    let first = names.last().unwrap();
    while !is_done(&world, first).await {
        tokio::task::yield_now().await;
    }
    let policy = "
bindings:
- {role: roles/owner, members: ['user:root@example.com']}
- {role: roles/clouddeploy.viewer, members: ['user:operator@example.com']}
- {role: roles/dataproc.viewer, members: ['user:new@example.com']}
";
    replace(&world, policy, "new").await;
    let came = outcome(&world, "root", &begun).await;
    assert_eq!((came.len(), came[first].as_str()), (4, "CANCELLED"));
    assert_eq!(came[&names[0]], "IAM_PERMISSION_DENIED", "{came:?}");
    assert!(!is_done(&world, &names[0]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_by_a_group_of_the_token_may_after_the_call_is_over_too() {
    let world = World::start(|auth| auth.issuers[0].groups_claim = "groups".into()).await;
    let policy = "
bindings:
- {role: roles/owner, members: ['user:root@example.com']}
- {role: roles/dataproc.viewer, members: ['user:new@example.com']}
- {role: roles/clouddeploy.operator, members: ['group:deployers@example.com']}
";
    replace(&world, policy, "new").await;
    let name = started(&world, "p").await;
    let body = json!({"api": "clouddeploy", "parent": PARENT, "filter": "done = false"});
    let ask = async |groups: Value| {
        let token = world.token_saying("cy", "groups", groups);
        let ask = Ask::post_json("/longhaul/v1/operations:bulkCancel", &body);
        ask.header("authorization", format!("Bearer {token}")).send(world.address()).await
    };
    let refused = ask(json!(["others@example.com"])).await.failure(403);
    refused.is("PERMISSION_DENIED", "IAM_PERMISSION_DENIED");
    let begun = ask(json!(["others@example.com", "deployers@example.com"])).await.ok();
    let came = outcome(&world, "root", &begun).await;
    assert_eq!(came, BTreeMap::from([(name, "CANCELLED".to_owned())]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_cancel_asks_for_the_permission_of_each_method() {
    let world = World::start(|_| {}).await;
    let policy = "
policies:
- resource: projects/p
  bindings:
  - {role: roles/operations, members: ['user:half@example.com']}
  - {role: roles/dataproc.viewer, members: ['user:half@example.com']}
roles:
- {name: roles/operations, includedPermissions: [dataproc.operations.cancel]}
bindings: [{role: roles/owner, members: ['user:root@example.com']}]
";
    replace(&world, policy, "half").await;
    let batch = Ask::post_json(
        "/v1/projects/p/locations/here/batches?batchId=b",
        &json!({"pysparkBatch": {"mainPythonFileUri": "gs://a/b"}}),
    );
    let batch = as_dataproc(&world, "root", batch).await.unwrap();
    let cluster = json!({"projectId": "p", "clusterName": "c"});
    let cluster = Ask::post_json("/v1/projects/p/regions/r/clusters", &cluster);
    let cluster = as_dataproc(&world, "root", cluster).await.unwrap();
    for (parent, name, want) in [
        ("projects/p/locations/here", &batch["name"], None),
        ("projects/p/regions/r", &cluster["name"], Some("CANCELLED")),
    ] {
        let body = json!({"api": DATAPROC.host, "parent": parent, "filter": "done = false"});
        let ask = Ask::post_json("/longhaul/v1/operations:bulkCancel", &body);
        let begun = world.http("half", ask).await.unwrap();
        let came = outcome(&world, "half", &begun).await;
        let want = want.unwrap_or("IAM_PERMISSION_DENIED").to_owned();
        assert_eq!(came, BTreeMap::from([(name.as_str().unwrap().to_owned(), want)]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_names_what_was_left_alone_and_fails() {
    let world = World::start(|auth| auth.cancel = CancelRule::Owner).await;
    let (theirs, own) = (started(&world, "p").await, start_as(&world, "operator").await);
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_longhaul"));
    command.args(["operations", "cancel", "--api", "clouddeploy", "--filter", "done = false"]);
    command.args(["--parent", PARENT, "--server", &format!("http://{}", world.address())]);
    command.env("LONGHAUL_TOKEN", world.token("operator").unwrap()).kill_on_drop(true);
    let output = soon("the command's end", command.output()).await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}", output = output.stderr);
    for line in [format!("{own} CANCELLED"), format!("{theirs} IAM_PERMISSION_DENIED")] {
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.lines().any(|had| words(had) == line), "no {line:?} in {text}");
    }
    assert!(text.contains("asked 1: 1 CANCELLED, 1 IAM_PERMISSION_DENIED"), "{text}");
    assert!(!is_done(&world, &theirs).await);
}
