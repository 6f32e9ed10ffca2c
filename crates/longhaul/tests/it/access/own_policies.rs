//! Policies of single operations, as Dataproc has them.

use bytes::Bytes;
use prost::Message as _;
use serde_json::{Value, json};

use super::people::World;
use super::{as_dataproc, replace};
use crate::harness::grpc::Connection;
use crate::harness::http::Ask;
use crate::harness::samples::DATAPROC;
use crate::harness::view::Failure;

const POLICY: &str = "
policies:
- resource: projects/p
  bindings: [{role: roles/dataproc.admin, members: ['user:boss@example.com']}]
bindings: [{role: roles/owner, members: ['user:root@example.com']}]
";

async fn world() -> (World, String) {
    let world = World::start(|_| {}).await;
    replace(&world, POLICY, "boss").await;
    let body = json!({"projectId": "p", "clusterName": "c"});
    let ask = Ask::post_json("/v1/projects/p/regions/r/clusters", &body);
    let started = as_dataproc(&world, "root", ask).await.unwrap();
    (world, started["name"].as_str().unwrap().to_owned())
}

async fn ask(
    world: &World,
    who: &str,
    name: &str,
    verb: &str,
    body: &Value,
) -> Result<Value, Failure> {
    as_dataproc(world, who, Ask::post_json(format!("/v1/{name}:{verb}"), body)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_can_have_a_policy_of_its_own() {
    let (world, name) = world().await;
    let cancel = async |who: &str, name: &str| {
        as_dataproc(&world, who, Ask::post(format!("/v1/{name}:cancel"))).await
    };
    cancel("guest", &name).await.unwrap_err().is("PERMISSION_DENIED", "IAM_PERMISSION_DENIED");
    let empty = ask(&world, "boss", &name, "getIamPolicy", &json!({})).await.unwrap();
    assert!(empty["etag"].is_string() && empty["bindings"].is_null(), "{empty}");
    let bindings =
        json!([{"role": "roles/dataproc.operator", "members": ["user:guest@example.com"]}]);
    let policy = json!({"policy": {"bindings": bindings, "etag": empty["etag"]}});
    let refused = ask(&world, "guest", &name, "setIamPolicy", &policy).await.unwrap_err();
    refused.is("PERMISSION_DENIED", "IAM_PERMISSION_DENIED");
    let set = ask(&world, "boss", &name, "setIamPolicy", &policy).await.unwrap();
    assert_eq!(set["bindings"], bindings);
    // Who read before that must read again.
    let late = ask(&world, "boss", &name, "setIamPolicy", &policy).await.unwrap_err();
    late.is("ABORTED", "CONCURRENT_POLICY_CHANGES");
    let asked =
        json!({"permissions": ["dataproc.operations.cancel", "dataproc.operations.delete"]});
    let has = ask(&world, "guest", &name, "testIamPermissions", &asked).await.unwrap();
    assert_eq!(has["permissions"], json!(["dataproc.operations.cancel"]));
    cancel("guest", &name).await.unwrap();
    let other = name.rsplit_once('/').unwrap().0.to_owned() + "/none";
    cancel("guest", &other).await.unwrap_err().is("PERMISSION_DENIED", "IAM_PERMISSION_DENIED");
    // The same is seen over the other wire.
    let token = world.token("boss").unwrap();
    let bearer = format!("Bearer {token}");
    let grpc = Connection::new(world.address(), Some(DATAPROC.host));
    let request = longhaul_wire::longrunning::GetOperationRequest { name: name.clone() };
    let message = Bytes::from(request.encode_to_vec());
    let metadata = [("authorization", bearer.as_str())];
    let path = "/google.iam.v1.IAMPolicy/GetIamPolicy";
    let answer = grpc.call_with(path, message, &metadata).await.unwrap();
    let role = b"roles/dataproc.operator";
    assert!(answer.windows(role.len()).any(|part| part == role));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_is_not_understood_is_refused_and_nothing_is_told_of_what_is_not_there() {
    let (world, name) = world().await;
    for (binding, word) in [
        (json!({"role": "roles/none", "members": []}), "no such role"),
        (json!({"role": "roles/viewer", "members": ["allUsers"]}), "allAuthenticatedUsers"),
        (json!({"role": "roles/viewer", "members": [], "condition": {"expression": "who"}}), "who"),
    ] {
        let policy = json!({"policy": {"bindings": [binding]}});
        let refused = ask(&world, "boss", &name, "setIamPolicy", &policy).await.unwrap_err();
        refused.is("INVALID_ARGUMENT", "INVALID_VALUE").says(&[word]);
    }
    let absent = name.rsplit_once('/').unwrap().0.to_owned() + "/none";
    for verb in ["getIamPolicy", "setIamPolicy"] {
        let body = json!({});
        let missing = ask(&world, "boss", &absent, verb, &body).await.unwrap_err();
        missing.is("NOT_FOUND", "OPERATION_NOT_FOUND");
        let said = async |name: &str| {
            let refused = ask(&world, "guest", name, verb, &body).await.unwrap_err();
            format!("{refused:?}").replace(name, "NAME")
        };
        assert_eq!(said(&absent).await, said(&name).await);
    }
    let asked = json!({"permissions": ["dataproc.operations.get"]});
    let none = ask(&world, "guest", &absent, "testIamPermissions", &asked).await.unwrap();
    assert_eq!(none, json!({}));
}
