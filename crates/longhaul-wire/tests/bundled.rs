//! The five bundled APIs, as the contract has them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use longhaul_core::{Reason, Timestamp};
use longhaul_wire::api::{Api, MethodKind};
use longhaul_wire::bundled;
use longhaul_wire::http_rule::{Body, HttpMethod};
use longhaul_wire::json;
use longhaul_wire::message::Message;
use longhaul_wire::settings::OperationsVerb;
use longhaul_wire::start::{StartFacts, operation_id, start_facts};

fn api(name: &str) -> Arc<Api> {
    bundled::load(name).expect("a bundled API loads")
}

#[track_caller]
fn request(api: &Api, method: &str, text: &str) -> Message {
    let method = api.method(method).unwrap_or_else(|| panic!("no method {method}"));
    json::from_json(&method.input, text.as_bytes(), api).expect("the request parses")
}

#[track_caller]
fn facts(api: &Api, method: &str, text: &str) -> Result<StartFacts, longhaul_core::Error> {
    let request = request(api, method, text);
    start_facts(api, api.method(method).unwrap(), &request)
}

#[test]
fn every_start_method_has_parent_target_verb_and_types() {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let apis: HashMap<&str, Arc<Api>> = bundled::names().map(|name| (name, api(name))).collect();
    let lines = include_str!("cases/starts.txt").lines();
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let columns: Vec<&str> = line.split(" | ").collect();
        let [name, method, text, parent, target, verb, response, metadata] = columns[..] else {
            panic!("eight columns: {line}");
        };
        let api = &apis[name];
        let found = facts(api, method, text).unwrap_or_else(|error| panic!("{method}: {error}"));
        assert_eq!(found.parent, parent, "{method}");
        assert_eq!(found.target, target, "{method}");
        assert_eq!(&*found.verb, verb, "{method}");
        let start = api.method(method).unwrap().start().expect("it starts an operation");
        assert_eq!(start.response_type.full_name(), response, "{method}");
        assert_eq!(start.metadata_type.full_name(), metadata, "{method}");
        assert_eq!(&*found.metadata.type_name, metadata, "{method}");
        *seen.entry(format!("{name} {method}")).or_default() += 1;
    }
    for (name, api) in &apis {
        for method in api.start_methods() {
            assert!(seen.contains_key(&format!("{name} {}", method.full_name)), "{method:?}");
        }
    }
    let count = |name: &str| apis[name].start_methods().count();
    assert_eq!(count("clouddeploy"), 17);
    assert_eq!(count("privateca"), 14);
    assert_eq!(count("storagebatchoperations"), 1);
    assert_eq!(count("dataproc"), 15);
    assert_eq!(count("cloudaicompanion"), 21);
}

#[track_caller]
fn served(api: &Api, verb: &HttpMethod, path: &str) -> Option<(OperationsVerb, String)> {
    let call = api.find_http(verb, path)?;
    let MethodKind::Operations(verb) = call.method.kind else { panic!("{path}: {call:?}") };
    let variables = call.variables.expect("the path decodes");
    assert_eq!(variables.len(), 1, "{path}");
    assert_eq!(variables[0].0, "name");
    Some((verb, variables[0].1.clone()))
}

/// CONTRACT 1.1: exactly these bindings, nothing more.
#[test]
fn operations_are_served_under_exactly_the_bindings_of_each_api() {
    for label in bundled::names() {
        let api = api(label);
        let parents: &[&str] = match label {
            "dataproc" => &["projects/p/regions/r", "projects/p/locations/r"],
            _ => &["projects/p/locations/l"],
        };
        for parent in parents {
            let name = format!("{parent}/operations/o");
            let at = |verb: &HttpMethod, rest: &str| served(&api, verb, &format!("/v1/{rest}"));
            let one = |verb| Some((verb, name.clone()));
            assert_eq!(at(&HttpMethod::Get, &name), one(OperationsVerb::Get), "{label}");
            assert_eq!(at(&HttpMethod::Delete, &name), one(OperationsVerb::Delete), "{label}");
            let cancel = format!("{name}:cancel");
            assert_eq!(at(&HttpMethod::Post, &cancel), one(OperationsVerb::Cancel), "{label}");
            assert_eq!(at(&HttpMethod::Get, &cancel), None, "a verb is always split off");
            assert_eq!(at(&HttpMethod::Post, &format!("{name}:wait")), None, "no rule for wait");
            assert_eq!(at(&HttpMethod::Put, &name), None);
            assert_eq!(at(&HttpMethod::Get, &format!("{name}/")), None);
            // CONTRACT 0.5: the list's name ends with the collection in Dataproc only.
            let listed = if label == "dataproc" {
                format!("{parent}/operations")
            } else {
                (*parent).to_owned()
            };
            let list = at(&HttpMethod::Get, &format!("{parent}/operations"));
            assert_eq!(list, Some((OperationsVerb::List, listed)), "{label}");
        }
        if label != "dataproc" {
            let regions = "/v1/projects/p/regions/r/operations/o";
            assert!(api.find_http(&HttpMethod::Get, regions).is_none(), "{label}");
        }
        assert!(api.find_http(&HttpMethod::Get, "/v1/operations/o").is_none(), "{label}");
    }
}

/// CONTRACT 0.4 and 1.1: a body where the rule has one; Dataproc's cancel has none.
#[test]
fn cancel_takes_a_body_where_its_rule_says_so() {
    for label in bundled::names() {
        let api = api(label);
        let method = api.method("google.longrunning.Operations.CancelOperation").unwrap();
        let with_body = method.rules.iter().filter(|rule| rule.body == Body::All).count();
        let expected = if label == "dataproc" { 0 } else { method.rules.len() };
        assert_eq!(with_body, expected, "{label}");
    }
}

/// CONTRACT 0.1: nothing on the wire tells the APIs apart, so one path fits several.
#[test]
fn one_operation_path_fits_five_apis() {
    for label in bundled::names() {
        let api = api(label);
        let path = "/v1/projects/p/locations/l/operations/o";
        assert!(api.find_http(&HttpMethod::Get, path).is_some(), "{label}");
        assert!(api.find_grpc("/google.longrunning.Operations/GetOperation").is_some());
        assert!(api.find_grpc("/google.longrunning.Operations/WaitOperation").is_some());
    }
}

/// CONTRACT 1.1 and 1.3.
#[test]
fn scopes_deadlines_and_permissions_are_those_of_the_api() {
    const CLOUD: &str = "https://www.googleapis.com/auth/cloud-platform";
    const DATAPROC: &str = "https://www.googleapis.com/auth/dataproc";
    const READ_ONLY: &str = "https://www.googleapis.com/auth/dataproc.read-only";
    let method = |api: &Api, name: &str| {
        api.method(&format!("google.longrunning.Operations.{name}")).unwrap().clone()
    };
    for label in bundled::names() {
        let api = api(label);
        for verb in OperationsVerb::ALL {
            let found = method(&api, verb.method());
            let read = matches!(verb, OperationsVerb::Get | OperationsVerb::List);
            let expected: &[&str] = match (label, read) {
                ("dataproc", true) => &[CLOUD, DATAPROC, READ_ONLY],
                ("dataproc", false) => &[CLOUD, DATAPROC],
                _ => &[CLOUD],
            };
            assert_eq!(found.scopes, expected, "{label} {verb:?}");
            let seconds = match (label, verb) {
                ("privateca", OperationsVerb::Get) => Some(5),
                ("privateca", _) => Some(60),
                _ => None,
            };
            assert_eq!(found.deadline, seconds.map(Duration::from_secs), "{label} {verb:?}");
            // Waiting is reading.
            let word = if verb == OperationsVerb::Wait { "get" } else { verb.name() };
            let permission = format!("{label}.operations.{word}");
            assert_eq!(api.permissions(verb, None), [permission], "{label}");
            assert!(api.supports(verb));
        }
    }
    let dataproc = api("dataproc");
    let batch = Some("google.cloud.dataproc.v1.BatchController.CreateBatch");
    assert_eq!(
        dataproc.permissions(OperationsVerb::Cancel, batch),
        ["dataproc.operations.cancel", "dataproc.batches.cancel"]
    );
    assert_eq!(dataproc.permissions(OperationsVerb::Get, batch), ["dataproc.operations.get"]);
    assert_eq!(dataproc.further_permissions(OperationsVerb::Cancel), ["dataproc.batches.cancel"]);
    for (label, method, want) in [
        ("clouddeploy", "google.cloud.deploy.v1.CloudDeploy.CreateRelease", "releases.create"),
        ("clouddeploy", "google.cloud.deploy.v1.CloudDeploy.UpdateTarget", "targets.update"),
        ("dataproc", "google.cloud.dataproc.v1.ClusterController.StopCluster", "clusters.stop"),
        ("dataproc", "google.cloud.dataproc.v1.ClusterController.DeleteCluster", "clusters.delete"),
        ("dataproc", "google.cloud.dataproc.v1.JobController.SubmitJobAsOperation", "jobs.create"),
    ] {
        let api = api(label);
        let start = api.method(method).unwrap().start().unwrap();
        assert_eq!(start.start_permissions, [format!("{label}.{want}")], "{method}");
    }
}

/// CONTRACT 1.5: other methods share words and verbs with operations, but start none.
#[test]
fn methods_that_start_nothing_are_known_as_such() {
    for (label, method) in [
        ("clouddeploy", "google.cloud.deploy.v1.CloudDeploy.CancelRollout"),
        ("clouddeploy", "google.cloud.deploy.v1.CloudDeploy.CancelAutomationRun"),
        ("clouddeploy", "google.cloud.deploy.v1.CloudDeploy.GetRelease"),
        (
            "privateca",
            "google.cloud.security.privateca.v1.CertificateAuthorityService.CreateCertificate",
        ),
        (
            "storagebatchoperations",
            "google.cloud.storagebatchoperations.v1.StorageBatchOperations.CancelJob",
        ),
        ("dataproc", "google.cloud.dataproc.v1.JobController.SubmitJob"),
        (
            "cloudaicompanion",
            "google.cloud.cloudaicompanion.v1.CloudAiCompanion.UpdateLoggingSetting",
        ),
    ] {
        let api = api(label);
        let method = api.method(method).unwrap_or_else(|| panic!("{method}"));
        assert!(matches!(method.kind, MethodKind::Other), "{method:?}");
        assert!(!method.rules.is_empty(), "{method:?}");
    }
    let deploy = api("clouddeploy");
    let path = "/v1/projects/p/locations/l/deliveryPipelines/d/releases/r/rollouts/o:cancel";
    let call = deploy.find_http(&HttpMethod::Post, path).unwrap();
    assert_eq!(call.method.name(), "CancelRollout");
}

#[track_caller]
fn refuses(label: &str, method: &str, text: &str, reason: Reason, field: &str) {
    let api = api(label);
    let full = api.start_methods().map(|m| m.full_name.clone()).find(|m| m.ends_with(method));
    let error = facts(&api, &full.unwrap(), text).unwrap_err();
    assert_eq!(error.reason, reason, "{error}");
    assert!(error.violations.iter().any(|v| v.field == field), "{:?}", error.violations);
}

#[test]
fn a_start_with_a_wrong_name_or_a_missing_field_is_refused() {
    use Reason::{InvalidValue, RequiredFieldMissing};
    let release = "CreateRelease";
    let full =
        r#"{"parent":"projects/p/locations/l/deliveryPipelines/d","releaseId":"r","release":{}}"#;
    let wrong = full.replace("/deliveryPipelines/d", "");
    refuses("clouddeploy", release, &wrong, InvalidValue, "parent");
    refuses("clouddeploy", release, &full.replace("/d\"", "/\""), InvalidValue, "parent");
    refuses(
        "clouddeploy",
        release,
        &full.replace(r#""parent":"projects/p/locations/l/deliveryPipelines/d","#, ""),
        RequiredFieldMissing,
        "parent",
    );
    refuses(
        "clouddeploy",
        release,
        &full.replace(r#""releaseId":"r","#, ""),
        RequiredFieldMissing,
        "release_id",
    );
    refuses(
        "clouddeploy",
        release,
        &full.replace(r#","release":{}"#, ""),
        RequiredFieldMissing,
        "release",
    );
    refuses(
        "clouddeploy",
        "UpdateTarget",
        r#"{"target":{},"updateMask":"labels"}"#,
        RequiredFieldMissing,
        "target.name",
    );
    refuses(
        "clouddeploy",
        "DeleteTarget",
        r#"{"name":"projects/p/locations/l/targets/t/x"}"#,
        InvalidValue,
        "name",
    );
    let cluster = r#"{"projectId":"p","region":"r","clusterName":"c"}"#;
    refuses(
        "dataproc",
        "StopCluster",
        &cluster.replace("\"p\"", "\"p/q\""),
        InvalidValue,
        "project_id",
    );
    refuses(
        "dataproc",
        "StopCluster",
        &cluster.replace("\"r\"", "\"\""),
        RequiredFieldMissing,
        "region",
    );
    refuses(
        "dataproc",
        "InstantiateWorkflowTemplate",
        r#"{"name":"projects/p/zones/z/workflowTemplates/w"}"#,
        InvalidValue,
        "name",
    );
}

#[test]
fn a_request_id_is_any_text_but_the_zero_uuid() {
    let api = api("clouddeploy");
    let method = "google.cloud.deploy.v1.CloudDeploy.DeleteTarget";
    let text =
        |id: &str| format!(r#"{{"name":"projects/p/locations/l/targets/t","requestId":{id:?}}}"#);
    let id = |id: &str| facts(&api, method, &text(id)).map(|facts| facts.request_id);
    assert_eq!(id("").unwrap(), None, "empty is unset: T5");
    assert_eq!(id("try-1").unwrap().as_deref(), Some("try-1"));
    let uuid = "8c8a2c0e-3f39-4a6e-8d62-1d6d4ad7c5b1";
    assert_eq!(id(uuid).unwrap().as_deref(), Some(uuid));
    assert_eq!(id(&"x".repeat(128)).unwrap().unwrap().len(), 128);
    for wrong in ["00000000-0000-0000-0000-000000000000", &"x".repeat(129)] {
        assert_eq!(id(wrong).unwrap_err().reason, Reason::InvalidValue);
    }
}

#[test]
fn equal_requests_have_equal_bytes_and_validate_only_is_seen() {
    let api = api("clouddeploy");
    let method = "google.cloud.deploy.v1.CloudDeploy.CreateTarget";
    let one = r#"{"parent":"projects/p/locations/l","targetId":"t","target":{"labels":{"a":"1","b":"2"}},"validateOnly":false,"requestId":""}"#;
    let same = r#"{"target":{"labels":{"b":"2","a":"1"}},"target_id":"t","parent":"projects/p/locations/l"}"#;
    let other = same.replace("\"2\"", "\"3\"");
    let one = facts(&api, method, one).unwrap();
    let same = facts(&api, method, same).unwrap();
    assert_eq!(one.request, same.request);
    assert_ne!(one.request, facts(&api, method, &other).unwrap().request);
    assert!(!one.validate_only);
    let only =
        r#"{"target":{},"target_id":"t","parent":"projects/p/locations/l","validateOnly":true}"#;
    assert!(facts(&api, method, only).unwrap().validate_only);
}

/// CONTRACT 1.4: shapes of ids.
#[test]
fn ids_look_like_those_of_the_api() {
    let now = Timestamp::from_micros(1_737_646_069_712_059);
    let random = [0x49, 0x26, 0x12, 0x30, 0x43, 0x70, 0x1d, 0xaf];
    let uid = 0x0194_9452_64d0_7000_8000_0000_0000_0001;
    for (label, id) in [
        ("clouddeploy", "operation-1737646069712-62c6140bb04bb-49261230-43701daf"),
        ("cloudaicompanion", "operation-1737646069712-62c6140bb04bb-49261230-43701daf"),
        ("dataproc", "01949452-64d0-7000-8000-000000000001"),
    ] {
        let style = api(label).settings().operations.id;
        assert_eq!(operation_id(style, uid, now, random), id, "{label}");
    }
    let api = api("dataproc");
    let text = r#"{"projectId":"p","region":"r","clusterName":"c"}"#;
    let facts =
        facts(&api, "google.cloud.dataproc.v1.ClusterController.StopCluster", text).unwrap();
    let name = facts.operation_name("o").unwrap();
    assert_eq!(name.as_str(), "projects/p/regions/r/operations/o");
    assert_eq!(api.parent_of_name(name.as_str()), Some("projects/p/regions/r"));
}

/// CONTRACT 1.4: the numbers of the metadata families.
#[test]
fn metadata_fields_have_the_numbers_of_the_contract() {
    let family = [
        ("create_time", 1),
        ("end_time", 2),
        ("target", 3),
        ("verb", 4),
        ("status_message", 5),
        ("requested_cancellation", 6),
        ("api_version", 7),
    ];
    let batch = [
        ("operation", 1),
        ("create_time", 2),
        ("end_time", 3),
        ("requested_cancellation", 7),
        ("api_version", 8),
        ("job", 10),
    ];
    let cluster =
        [("cluster_name", 7), ("status", 9), ("status_history", 10), ("child_operation_ids", 15)];
    for (label, ty, fields) in [
        ("clouddeploy", "google.cloud.deploy.v1.OperationMetadata", &family[..]),
        ("privateca", "google.cloud.security.privateca.v1.OperationMetadata", &family),
        ("cloudaicompanion", "google.cloud.cloudaicompanion.v1.OperationMetadata", &family),
        (
            "storagebatchoperations",
            "google.cloud.storagebatchoperations.v1.OperationMetadata",
            &batch,
        ),
        ("dataproc", "google.cloud.dataproc.v1.ClusterOperationMetadata", &cluster),
    ] {
        let ty = api(label).descriptors().message(ty).expect("the type is there");
        for (name, number) in fields {
            assert_eq!(ty.field(name).expect(name).number(), *number, "{label} {name}");
        }
    }
}

#[test]
fn gcloud_tells_by_its_command_which_api_a_list_is_for() {
    let agent = |command: &str| format!("google-cloud-sdk gcloud/528.0.0 command/{command} x/y");
    let check = |name: &str, command: &str, want: bool| {
        let api = bundled::load(name).unwrap();
        assert_eq!(
            longhaul_wire::apis::is_gcloud_of(&api, &agent(command)),
            want,
            "{name} {command}"
        );
    };
    check("cloudaicompanion", "gcloud.gemini.operations.list", true);
    check("cloudaicompanion", "gcloud.beta.gemini.operations.list", true);
    check("cloudaicompanion", "gcloud.geminis.list", false);
    check("clouddeploy", "gcloud.gemini.operations.list", false);
    check("clouddeploy", "gcloud.deploy.apply", true);
    check("storagebatchoperations", "gcloud.storage.batch-operations.jobs.list", true);
    check("storagebatchoperations", "gcloud.storage.buckets.list", false);
    let api = bundled::load("dataproc").unwrap();
    assert!(!longhaul_wire::apis::is_gcloud_of(&api, "curl/8 command gcloud.dataproc"));
}
