//! What the audit log has of callers who are known, and of those who are not.

use bytes::Bytes;
use longhaul_server::Config;
use longhaul_server::audit::{Destination, Expect, verify_file};
use longhaul_server::config::CancelRule;
use longhaul_wire::longrunning::GetOperationRequest;
use prost::Message as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::people::World;
use super::{as_dataproc, replace, started};
use crate::harness::grpc::Connection;
use crate::harness::http::Ask;
use crate::harness::samples::DATAPROC;

/// A server of [`World`] with an audit log.
struct Audited {
    world: World,
    folder: TempDir,
}

impl Audited {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = TempDir::new().unwrap();
        let to = Destination::File(folder.path().join("audit.jsonl"));
        let world = World::alone(|config| {
            config.audit.destination = to;
            change(config);
        });
        let world = world.await;
        Self { world, folder }
    }

    /// Everything that was written, whose chain is whole; and its text.
    async fn entries(self) -> (Vec<Value>, String) {
        self.world.server.stop().await;
        let path = self.folder.path().join("audit.jsonl");
        assert_eq!(verify_file(&path, &Expect::default()).unwrap().findings, []);
        let text = std::fs::read_to_string(path).unwrap();
        (text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), text)
    }
}

/// An entry in short: the log, who, the code of its answer, and what was asked for.
fn short(entry: &Value) -> String {
    let payload = &entry["protoPayload"];
    let log = entry["logName"].as_str().unwrap().rsplit("%2F").next().unwrap();
    let who = payload["authenticationInfo"]["principalEmail"].as_str().unwrap_or("nobody");
    let code = match payload.get("status") {
        Some(status) => status["code"].as_i64().unwrap_or(0).to_string(),
        None => "asked".to_owned(),
    };
    let asked = payload["authorizationInfo"].as_array().into_iter().flatten();
    let asked: Vec<_> = asked
        .map(|one| {
            let sign = if one["granted"] == true { '+' } else { '-' };
            format!("{sign}{}", one["permission"].as_str().unwrap())
        })
        .collect();
    format!("{log} {who} {code} {}", asked.join(" "))
}

fn of<'a>(entries: &'a [Value], method: &str) -> Vec<&'a Value> {
    let fits =
        |entry: &&Value| entry["protoPayload"]["methodName"].as_str().unwrap().ends_with(method);
    entries.iter().filter(fits).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_changes_a_policy_is_on_record_with_what_came_of_it() {
    let audited = Audited::start().await;
    let world = &audited.world;
    let policy = "
policies:
- resource: projects/p
  bindings: [{role: roles/dataproc.admin, members: ['user:boss@example.com']}]
bindings: [{role: roles/owner, members: ['user:root@example.com']}]
";
    replace(world, policy, "boss").await;
    let body = json!({"projectId": "p", "clusterName": "c"});
    let ask = Ask::post_json("/v1/projects/p/regions/r/clusters", &body);
    let name = as_dataproc(world, "root", ask).await.unwrap()["name"].as_str().unwrap().to_owned();
    let set = async |who: &str, etag: &Value| {
        let binding =
            json!({"role": "roles/dataproc.viewer", "members": ["user:guest@example.com"]});
        let policy = json!({"policy": {"bindings": [binding], "etag": etag}});
        let ask = Ask::post_json(format!("/v1/{name}:setIamPolicy"), &policy);
        as_dataproc(world, who, ask).await
    };
    let ask = Ask::post_json(format!("/v1/{name}:getIamPolicy"), &json!({}));
    let etag = as_dataproc(world, "boss", ask).await.unwrap()["etag"].clone();
    set("guest", &etag).await.unwrap_err().is("PERMISSION_DENIED", "IAM_PERMISSION_DENIED");
    set("boss", &etag).await.unwrap();
    set("boss", &etag).await.unwrap_err().is("ABORTED", "CONCURRENT_POLICY_CHANGES");
    let grpc = Connection::new(world.address(), Some(DATAPROC.host));
    let bearer = format!("Bearer {}", world.token("boss").unwrap());
    let request = Bytes::from(GetOperationRequest { name: name.clone() }.encode_to_vec());
    let path = "/google.iam.v1.IAMPolicy/SetIamPolicy";
    grpc.call_with(path, request, &[("authorization", &*bearer)]).await.unwrap();

    let (entries, text) = audited.entries().await;
    let sets = of(&entries, "SetIamPolicy");
    let may = "dataproc.operations.setIamPolicy";
    let told: Vec<_> = sets.iter().map(|entry| short(entry)).collect();
    assert_eq!(
        told,
        [
            format!("policy guest@example.com 7 -{may}"),
            format!("activity boss@example.com asked +{may}"),
            format!("activity boss@example.com 0 +{may}"),
            format!("activity boss@example.com asked +{may}"),
            format!("activity boss@example.com 10 +{may}"),
            format!("activity boss@example.com asked +{may}"),
            format!("activity boss@example.com 0 +{may}"),
        ]
    );
    for entry in sets {
        assert_eq!(entry["protoPayload"]["resourceName"], *name);
        assert_eq!(entry["protoPayload"]["serviceName"], DATAPROC.host);
        assert_eq!(entry["operation"]["id"], *name);
    }
    assert_eq!(of(&entries, "GetIamPolicy"), Vec::<&Value>::new(), "reads are not asked for");
    assert!(!text.contains("roles/dataproc.viewer"), "what was set is not in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_proves_nothing_is_on_record_as_nobody_with_nothing_that_was_sent() {
    let audited = Audited::start().await;
    let world = &audited.world;
    let name = started(world, "p").await;
    let people = ["nobody", "expired", "audience", "alg-none", "hmac", "forged"];
    let tokens: Vec<_> = people.iter().filter_map(|who| world.token(who)).collect();
    let message = Bytes::from(GetOperationRequest { name: name.clone() }.encode_to_vec());
    for who in people {
        let http = world.http(who, Ask::post(format!("/v1/{name}:cancel"))).await.unwrap_err();
        let path = "/google.longrunning.Operations/CancelOperation";
        let grpc = world.grpc(who, path, message.clone()).await.unwrap_err();
        assert_eq!((&*http.code, &http), ("UNAUTHENTICATED", &grpc));
    }
    // Who is known and may not is on record by name.
    world.http("viewer", Ask::post(format!("/v1/{name}:cancel"))).await.unwrap_err();

    let (entries, text) = audited.entries().await;
    let cancels = of(&entries, "CancelOperation");
    let told: Vec<_> = cancels.iter().map(|entry| short(entry)).collect();
    let mut want = vec!["policy nobody 16 ".to_owned(); 2 * people.len()];
    want.push("policy viewer@example.com 7 -clouddeploy.operations.cancel".to_owned());
    assert_eq!(told, want);
    let why = |entry: &&Value| {
        entry["protoPayload"]["metadata"]["refused"].as_str().unwrap_or_default().to_owned()
    };
    let reasons: Vec<_> = cancels.iter().step_by(2).map(why).collect();
    let unsupported = "ACCESS_TOKEN_TYPE_UNSUPPORTED";
    let mut want = vec!["CREDENTIALS_MISSING", "ACCESS_TOKEN_EXPIRED"];
    want.extend([unsupported; 4]);
    assert_eq!(reasons[..6], want);
    for entry in &cancels[..2 * people.len()] {
        let payload = &entry["protoPayload"];
        assert_eq!(
            payload["authenticationInfo"],
            json!({}),
            "a claim that nobody checked is no name"
        );
        assert_eq!(payload["requestMetadata"]["callerIp"], "127.0.0.1");
        assert_eq!(entry["severity"], "ERROR");
    }
    for token in tokens {
        let parts = token.split('.').filter(|part| part.len() > 16);
        assert!(parts.skip(1).all(|part| !text.contains(part)), "a part of a token is in the log");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_bulk_cancel_left_alone_is_on_record_with_the_permission_that_was_missing() {
    let audited = Audited::with(|config| config.auth.cancel = CancelRule::Owner).await;
    let world = &audited.world;
    let theirs = started(world, "p").await;
    let path = "/v1/projects/p/locations/here/targets?targetId=t";
    let own = world.http("operator", Ask::post_json(path, &json!({}))).await.unwrap();
    let parent = "projects/p/locations/here";
    let body = json!({"api": "clouddeploy", "parent": parent, "filter": "done = false"});
    let ask = Ask::post_json("/longhaul/v1/operations:bulkCancel", &body);
    let bulk = world.http("operator", ask).await.unwrap()["operation"].as_str().unwrap().to_owned();
    let over = async {
        let ask = || Ask::get(format!("/longhaul/v1/{bulk}:describe"));
        while world.http("operator", ask()).await.unwrap()["state"] != "DONE" {
            tokio::task::yield_now().await;
        }
    };
    crate::harness::soon("the end of the bulk cancel", over).await;

    let (entries, _) = audited.entries().await;
    let carried: Vec<_> = of(&entries, "CancelOperation")
        .into_iter()
        .map(|entry| {
            assert_eq!(entry["protoPayload"]["metadata"]["bulkCancel"], *bulk);
            (entry["operation"]["id"].as_str().unwrap(), short(entry))
        })
        .collect();
    let missing = "longhaul.operations.cancelAny";
    let mut want = [
        (&*theirs, format!("policy operator@example.com 7 -{missing}")),
        (own["name"].as_str().unwrap(), "system_event operator@example.com 0 ".to_owned()),
    ];
    want.sort_by_key(|(name, _)| carried.iter().position(|(had, _)| had == name));
    assert_eq!(carried, want);
}
