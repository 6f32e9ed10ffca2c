//! Who may call what: one table of methods and callers, the same over both wires.
//!
//! After a change that is meant, `LONGHAUL_WRITE_TABLES=1 cargo test -p longhaul --test it access` writes the
//! table anew; what changed is then in the diff.

mod bulk;
mod jwks;
mod local_accounts;
mod mtls;
mod on_record;
mod own_policies;
pub mod people;
mod shares;
mod streams;
mod workers;

use std::fmt::Write as _;

use bytes::Bytes;
use longhaul_wire::longrunning::{
    GetOperationRequest, ListOperationsRequest, WaitOperationRequest,
};
use longhaul_wire::v1;
use prost::Message;
use serde_json::{Value, json};

use self::people::{PEOPLE, World};
use crate::harness::http::Ask;
use crate::harness::samples::{Asked, CAS, DATAPROC, DEPLOY};
use crate::harness::view::Failure;

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/access/matrix.txt");

/// One method in both forms; `None` where a wire does not have it.
struct Method {
    name: &'static str,
    http: fn(&str) -> Option<Ask>,
    grpc: fn(&str) -> (String, Bytes),
}

fn operations(method: &str, name: &str) -> (String, Bytes) {
    let request = GetOperationRequest { name: name.into() };
    (format!("/google.longrunning.Operations/{method}"), request.encode_to_vec().into())
}

fn operators(method: &str, request: &impl Message) -> (String, Bytes) {
    (format!("/longhaul.v1.Operators/{method}"), request.encode_to_vec().into())
}

fn parent(name: &str) -> &str {
    name.split("/operations/").next().unwrap()
}

const METHODS: [Method; 10] = [
    Method {
        name: "GetOperation",
        http: |name| Some(Ask::get(format!("/v1/{name}"))),
        grpc: |name| operations("GetOperation", name),
    },
    Method {
        name: "WaitOperation",
        http: |_| None,
        grpc: |name| {
            let timeout = Some(prost_types::Duration::default());
            let request = WaitOperationRequest { name: name.into(), timeout };
            ("/google.longrunning.Operations/WaitOperation".into(), request.encode_to_vec().into())
        },
    },
    Method {
        name: "ListOperations",
        http: |name| Some(Ask::get(format!("/v1/{}/operations", parent(name)))),
        grpc: |name| {
            let request = ListOperationsRequest { name: parent(name).into(), ..Default::default() };
            ("/google.longrunning.Operations/ListOperations".into(), request.encode_to_vec().into())
        },
    },
    Method {
        name: "CancelOperation",
        http: |name| Some(Ask::post(format!("/v1/{name}:cancel"))),
        grpc: |name| operations("CancelOperation", name),
    },
    Method {
        name: "CreateTarget",
        http: |name| {
            let body = json!({});
            Some(Ask::post_json(format!("/v1/{}/targets?targetId=t", parent(name)), &body))
        },
        grpc: |name| {
            let project = name.split('/').nth(1).unwrap();
            let asked = Asked { id: "t", ..Asked::default() };
            (DEPLOY.grpc_path(), DEPLOY.start_message(project, asked).into())
        },
    },
    Method {
        name: "Operators.Describe",
        http: |name| Some(Ask::get(format!("/longhaul/v1/{name}:describe"))),
        grpc: |name| operators("Describe", &v1::DescribeRequest { name: name.into() }),
    },
    Method {
        name: "Operators.Explain",
        http: |name| Some(Ask::get(format!("/longhaul/v1/{name}:explain"))),
        grpc: |name| operators("Explain", &v1::ExplainRequest { name: name.into() }),
    },
    Method {
        name: "Operators.Cancel",
        http: |name| Some(Ask::post_json(format!("/longhaul/v1/{name}:cancel"), &json!({}))),
        grpc: |name| {
            operators("Cancel", &v1::CancelRequest { name: name.into(), ..Default::default() })
        },
    },
    Method {
        name: "Operators.BulkCancel",
        http: |name| {
            let body = json!({"api": "clouddeploy", "parent": parent(name), "dryRun": true});
            Some(Ask::post_json("/longhaul/v1/operations:bulkCancel", &body))
        },
        grpc: |name| {
            let request = v1::BulkCancelRequest {
                api: "clouddeploy".into(),
                parent: parent(name).into(),
                dry_run: true,
                ..Default::default()
            };
            operators("BulkCancel", &request)
        },
    },
    // Last: it takes the operation away.
    Method {
        name: "DeleteOperation",
        http: |name| Some(Ask::delete(format!("/v1/{name}"))),
        grpc: |name| operations("DeleteOperation", name),
    },
];

/// A word for the table.
fn word(answer: &Result<(), Failure>) -> &'static str {
    match answer.as_ref().map_err(|failure| failure.reason.as_str()) {
        Ok(()) => "ok",
        Err("CREDENTIALS_MISSING") => "missing",
        Err("ACCESS_TOKEN_EXPIRED") => "expired",
        Err("ACCESS_TOKEN_TYPE_UNSUPPORTED") => "invalid",
        Err("ACCESS_TOKEN_SCOPE_INSUFFICIENT") => "scope",
        Err("IAM_PERMISSION_DENIED") => "denied",
        Err("OPERATION_NOT_FOUND") => "absent",
        Err(_) => "OTHER",
    }
}

/// Starts an operation as an administrator and says its name.
async fn started(world: &World, project: &str) -> String {
    let path = format!("/v1/projects/{project}/locations/here/targets?targetId=t");
    let answer = world.http("root", Ask::post_json(path, &json!({}))).await.unwrap();
    answer["name"].as_str().unwrap().to_owned()
}

async fn ask_both(world: &World, who: &str, method: &Method, name: &str) -> Result<(), Failure> {
    let (path, message) = (method.grpc)(name);
    let grpc = world.grpc(who, &path, message).await.map(drop);
    if let Some(ask) = (method.http)(name) {
        let http = world.http(who, ask).await.map(drop);
        // A second delete finds nothing any more; everything else is told alike.
        let deleted = method.name == "DeleteOperation" && grpc.is_ok();
        if deleted {
            assert_eq!(word(&http), "absent");
        } else {
            assert_eq!(http, grpc, "{who} {}", method.name);
        }
    }
    grpc
}

#[tokio::test(flavor = "multi_thread")]
async fn every_caller_gets_the_same_answer_over_both_wires_as_the_table_says() {
    let world = World::start(|_| {}).await;
    let mut table = format!("{:<22}{:<10}", "method", "operation");
    for who in PEOPLE {
        write!(table, "{who:<11}").unwrap();
    }
    for method in &METHODS {
        for there in ["there", "absent"] {
            write!(table, "\n{:<22}{there:<10}", method.name).unwrap();
            for who in PEOPLE {
                let name = match there {
                    "there" => started(&world, "p").await,
                    _ => "projects/p/locations/here/operations/none".to_owned(),
                };
                let answer = ask_both(&world, who, method, &name).await;
                write!(table, "{:<11}", word(&answer)).unwrap();
            }
        }
    }
    let table: String = table.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    if std::env::var_os("LONGHAUL_WRITE_TABLES").is_some() {
        std::fs::write(TABLE, &table).unwrap();
    }
    let committed = std::fs::read_to_string(TABLE).unwrap_or_default();
    assert!(committed == table, "the table has changed; it is now:\n{table}");
}

/// What a refusal says, with the operation's name taken out.
fn without(failure: &Failure, name: &str) -> String {
    format!("{failure:?}").replace(name, "NAME")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_says_the_same_of_what_is_there_and_what_is_not() {
    let world = World::start(|_| {}).await;
    let there = started(&world, "p").await;
    let done = started(&world, "p").await;
    world.http("root", Ask::post(format!("/v1/{done}:cancel"))).await.unwrap();
    let absent = "projects/p/locations/here/operations/none".to_owned();
    for who in ["stranger", "neighbour", "worker"] {
        for method in &METHODS {
            let mut said = Vec::new();
            for name in [&there, &done, &absent] {
                let failure = ask_both(&world, who, method, name).await.unwrap_err();
                failure.is("PERMISSION_DENIED", "IAM_PERMISSION_DENIED");
                said.push(without(&failure, name));
            }
            assert!(said.iter().all(|one| *one == said[0]), "{who} {}: {said:#?}", method.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_googles_to_the_letter() {
    let world = World::start(|_| {}).await;
    let name = started(&world, "p").await;
    let cancel = |who: &'static str| {
        let (world, name) = (&world, &name);
        async move { ask_both(world, who, &METHODS[3], name).await.unwrap_err() }
    };
    let failure = cancel("nobody").await;
    failure.is("UNAUTHENTICATED", "CREDENTIALS_MISSING");
    assert_eq!(
        failure.message,
        "Request is missing required authentication credential. Expected OAuth 2 access token, login cookie or \
         other valid authentication credential. See https://developers.google.com/identity/sign-in/web/devconsole-project."
    );
    assert_eq!(failure.domain, "googleapis.com");
    assert_eq!(failure.metadata["service"], "clouddeploy.googleapis.com");
    assert_eq!(failure.metadata["method"], "google.longrunning.Operations.CancelOperation");
    cancel("expired").await.is("UNAUTHENTICATED", "ACCESS_TOKEN_EXPIRED");
    for who in ["audience", "alg-none", "hmac", "forged"] {
        let failure = cancel(who).await;
        failure.is("UNAUTHENTICATED", "ACCESS_TOKEN_TYPE_UNSUPPORTED");
        // Why is for the log: a forger learns nothing.
        assert_eq!(failure.message, cancel("forged").await.message);
    }
    let failure = cancel("no-scope").await;
    failure.is("PERMISSION_DENIED", "ACCESS_TOKEN_SCOPE_INSUFFICIENT");
    assert_eq!(failure.message, "Request had insufficient authentication scopes.");
    let failure = cancel("viewer").await;
    failure.is("PERMISSION_DENIED", "IAM_PERMISSION_DENIED");
    assert_eq!(
        failure.message,
        format!(
            "Permission 'clouddeploy.operations.cancel' denied on resource '//clouddeploy.googleapis.com/{name}' (or it may not exist)."
        )
    );
    assert_eq!(failure.domain, "clouddeploy.googleapis.com");
    assert_eq!(failure.metadata["permission"], "clouddeploy.operations.cancel");
    assert_eq!(failure.metadata["resource"], name);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_that_names_no_api_is_refused_alike_whether_or_not_it_is_there() {
    let world = World::start(|_| {}).await;
    let there = started(&world, "p").await;
    let absent = "projects/p/locations/here/operations/none";
    let ask = async |who: &str, name: &str| {
        let token = world.token(who).unwrap();
        let ask =
            Ask::get(format!("/v1/{name}")).header("authorization", format!("Bearer {token}"));
        ask.send(world.address()).await
    };
    let pool = Ask::post_json(
        "/v1/projects/p/locations/here/caPools?caPoolId=c",
        &json!({"tier": "DEVOPS"}),
    );
    let token = world.token("root").unwrap();
    let pool = pool.header("authorization", format!("Bearer {token}")).host(CAS.host);
    let pool = pool.send(world.address()).await.ok();
    let pool = pool["name"].as_str().unwrap();
    let (one, other) = (ask("stranger", &there).await, ask("stranger", absent).await);
    let third = ask("stranger", pool).await;
    assert_eq!((one.code, other.code, third.code), (403, 403, 403));
    let text = |answer: &crate::harness::http::Answer, name: &str| {
        String::from_utf8(answer.body.to_vec()).unwrap().replace(name, "NAME")
    };
    assert_eq!(text(&one, &there), text(&other, absent));
    assert_eq!(text(&third, pool), text(&other, absent));
    // Whoever may read one API's operations reads them without naming it, and learns nothing of others.
    assert_eq!(ask("viewer", &there).await.code, 200);
    assert_eq!(ask("viewer", absent).await.code, 403);
    assert_eq!(ask("root", absent).await.code, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_needs_its_own_permission_to_be_cancelled() {
    let world = World::start(|_| {}).await;
    let policy = "
policies:
- resource: projects/p
  bindings:
  - {role: roles/operations, members: ['user:half@example.com', 'user:blind@example.com']}
  - {role: roles/dataproc.viewer, members: ['user:half@example.com']}
  - {role: roles/dataproc.operator, members: ['user:whole@example.com']}
roles:
- {name: roles/operations, includedPermissions: [dataproc.operations.cancel]}
bindings: [{role: roles/owner, members: ['user:root@example.com']}]
";
    replace(&world, policy, "whole").await;
    let start = async |path: &str, body: &Value| {
        let answer = as_dataproc(&world, "root", Ask::post_json(path, body)).await;
        answer.unwrap()["name"].as_str().unwrap().to_owned()
    };
    let batch = start(
        "/v1/projects/p/locations/here/batches?batchId=b",
        &json!({"pysparkBatch": {"mainPythonFileUri": "gs://a/b"}}),
    )
    .await;
    let cluster = json!({"projectId": "p", "clusterName": "c"});
    let cluster = start("/v1/projects/p/regions/r/clusters", &cluster).await;
    let absent = batch.rsplit_once('/').unwrap().0.to_owned() + "/none";
    let cancel = async |who: &str, name: &str| {
        let answer = as_dataproc(&world, who, Ask::post(format!("/v1/{name}:cancel"))).await;
        answer.map(drop).map_err(|failure| without(&failure, name))
    };
    for who in ["half", "blind"] {
        let refused = cancel(who, &batch).await.unwrap_err();
        assert!(refused.contains("dataproc.batches.cancel"), "{refused}");
    }
    // Who may read learns the truth; who may not learns nothing.
    assert!(cancel("half", &absent).await.unwrap_err().contains("NOT_FOUND"));
    assert_eq!(cancel("blind", &absent).await, cancel("blind", &batch).await);
    assert_eq!(cancel("half", &cluster).await, Ok(()));
    assert_eq!(cancel("whole", &batch).await, Ok(()));
}

pub async fn as_dataproc(world: &World, who: &str, ask: Ask) -> Result<Value, Failure> {
    let token = world.token(who).unwrap();
    let ask = ask.header("authorization", format!("Bearer {token}")).host(DATAPROC.host);
    let answer = ask.send(world.address()).await;
    if answer.code == 200 { Ok(answer.json()) } else { Err(Failure::from_envelope(&answer.json())) }
}

/// Looks in a row that must show a change before it counts as made: behind a round robin each server looks
/// at its files by itself.
const IN_A_ROW: usize = 6;

/// Waits until a change shows everywhere.
pub async fn everywhere(what: &'static str, shows: impl AsyncFn() -> bool) {
    let shown = async {
        let mut in_a_row = 0;
        while in_a_row < IN_A_ROW {
            in_a_row = if shows().await { in_a_row + 1 } else { 0 };
            // tidy: sleep: a pause between two looks at a file that another task reads
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    crate::harness::soon(what, shown).await;
}

/// Writes another policy and waits until `who` may list, whom the old one does not know.
pub async fn replace(world: &World, policy: &str, who: &str) {
    world.write_policy(policy);
    let list = || Ask::get("/v1/projects/p/regions/r/operations");
    everywhere("the new policy", async || as_dataproc(world, who, list()).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_policy_counts_without_a_restart_and_a_broken_one_changes_nothing() {
    let world = World::start(|_| {}).await;
    let name = started(&world, "p").await;
    let get = |who: &'static str| ask_both(&world, who, &METHODS[0], &name);
    get("viewer").await.unwrap();
    let policy = "
bindings:
- {role: roles/dataproc.viewer, members: ['user:new@example.com']}
- {role: roles/clouddeploy.viewer, members: ['user:new@example.com']}
";
    replace(&world, policy, "new").await;
    get("new").await.unwrap();
    // What was decided before is decided anew.
    get("viewer").await.unwrap_err().is("PERMISSION_DENIED", "IAM_PERMISSION_DENIED");
    let ready = async || {
        let answer = Ask::get("/readyz").send(world.address()).await;
        assert_eq!(answer.code, 200);
        String::from_utf8(answer.body.to_vec()).unwrap()
    };
    assert_eq!(ready().await, "ok\n");
    world.write_policy("bindings: [{role: roles/x}]");
    let mut looks = 0;
    while !ready().await.contains("roles/x") {
        looks += 1;
        assert!(looks < 2_000, "nobody is told of the broken policy");
        // tidy: sleep: a pause between two looks at a file that another task reads
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    get("new").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_owner_cancels_where_that_is_asked_for() {
    let owners = |auth: &mut longhaul_server::config::Auth| {
        auth.cancel = longhaul_server::config::CancelRule::Owner;
    };
    let world = World::start(owners).await;
    let by_root = started(&world, "p").await;
    let cancel = |who: &'static str, name: String| {
        let world = &world;
        async move { ask_both(world, who, &METHODS[3], &name).await }
    };
    let refused = cancel("operator", by_root.clone()).await.unwrap_err();
    refused
        .is("PERMISSION_DENIED", "IAM_PERMISSION_DENIED")
        .says(&["longhaul.operations.cancelAny"]);
    let path = "/v1/projects/p/locations/here/targets?targetId=t";
    let own = world.http("operator", Ask::post_json(path, &json!({}))).await.unwrap();
    cancel("operator", own["name"].as_str().unwrap().to_owned()).await.unwrap();
    cancel("admin", by_root).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_cannot_be_used_to_look_for_its_parent() {
    let world = World::start(|_| {}).await;
    let there = started(&world, "q").await;
    let start = async |parent: &str| {
        let ask = Ask::post_json("/v1/projects/p/locations/here/targets?targetId=t", &json!({}));
        let ask = ask.header("x-longhaul-parent-operation", parent);
        world.http("operator", ask).await.map_err(|failure| without(&failure, parent))
    };
    let absent = "projects/q/locations/here/operations/none";
    let (one, other) = (start(&there).await.unwrap_err(), start(absent).await.unwrap_err());
    assert!(one.contains("IAM_PERMISSION_DENIED"), "{one}");
    assert_eq!(one, other);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_taken_from_the_query_and_who_did_it_is_kept() {
    let world = World::start(|_| {}).await;
    let name = started(&world, "p").await;
    for parameter in ["access_token", "oauth_token"] {
        let token = world.token("operator").unwrap();
        let ask = Ask::get(format!("/v1/{name}?{parameter}={token}")).host(DEPLOY.host);
        assert_eq!(ask.send(world.address()).await.code, 200);
    }
    world.http("operator", Ask::post(format!("/v1/{name}:cancel"))).await.unwrap();
    let detail =
        world.http("root", Ask::get(format!("/longhaul/v1/{name}:describe"))).await.unwrap();
    assert_eq!(detail["actor"], "root@example.com");
    assert_eq!(detail["cancel"]["actor"], "operator@example.com");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_open_and_reflection_is_not() {
    let world = World::start(|_| {}).await;
    for path in ["/livez", "/readyz", "/healthz"] {
        assert_eq!(Ask::get(path).send(world.address()).await.code, 200, "{path}");
    }
    let health = world.grpc("nobody", "/grpc.health.v1.Health/Check", Bytes::new()).await;
    assert!(health.is_ok(), "{health:?}");
    let path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    let reflected = world.grpc("nobody", path, Bytes::new()).await.unwrap_err();
    reflected.is("UNAUTHENTICATED", "CREDENTIALS_MISSING");
}
