//! Operations as clients of the bundled APIs see them, at every point of their lives.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[path = "support/walk.rs"]
mod walk;

use std::sync::Arc;

use longhaul_core::{Code, Operation, Payload, Progress, Reason};
use longhaul_wire::api::Api;
use longhaul_wire::bundled;
use longhaul_wire::convert::{Edge, accept_metadata, accept_response, metadata, to_wire};
use longhaul_wire::json::{JsonOptions, operation_to_json};
use longhaul_wire::longrunning::OperationResult;
use longhaul_wire::message::{FieldValue, Message};
use walk::{cancelled, cancelling, failed, running, started, succeeded};

fn api(name: &str) -> Arc<Api> {
    bundled::load(name).unwrap()
}

/// What a client gets over HTTP.
#[track_caller]
fn check(api: &Api, operation: &Operation, expected: &str) {
    let options = JsonOptions {
        always_print_defaults: api.settings().operations.print_defaults,
        ..JsonOptions::default()
    };
    let text = operation_to_json(&to_wire(operation, api, Edge::Json), api, &options).unwrap();
    let text = String::from_utf8(text).unwrap();
    let squeezed: String = expected.lines().map(str::trim).collect();
    assert_eq!(text, squeezed);
}

#[test]
fn deploy_shows_the_request_to_cancel_at_once_and_code_1_at_the_end() {
    let api = api("clouddeploy");
    let queued = started(
        &api,
        "CreateTarget",
        "o",
        r#"{"parent":"projects/p/locations/l","targetId":"t","target":{}}"#,
    );
    let common = r#""@type":"type.googleapis.com/google.cloud.deploy.v1.OperationMetadata","createTime":"2026-01-01T00:00:00Z","#;
    let target = r#""target":"projects/p/locations/l/targets/t","verb":"create","#;
    let name = r#""name":"projects/p/locations/l/operations/o""#;
    check(
        &api,
        &queued,
        &format!(r#"{{{name},"metadata":{{{common}{target}"apiVersion":"v1"}}}}"#),
    );
    let running = running(&queued);
    let cancelling = cancelling(&running);
    check(
        &api,
        &cancelling,
        &format!(
            r#"{{{name},"metadata":{{{common}{target}"requestedCancellation":true,"apiVersion":"v1"}}}}"#
        ),
    );
    let end = r#""endTime":"2026-01-01T00:00:30Z","#;
    let cancelled = cancelled(&cancelling);
    let message = match to_wire(&cancelled, &api, Edge::Grpc).result {
        Some(OperationResult::Error(status)) => {
            assert_eq!(status.code, 1);
            status.message
        }
        other => panic!("{other:?}"),
    };
    check(
        &api,
        &cancelled,
        &format!(
            r#"{{{name},"metadata":{{{common}{end}{target}"requestedCancellation":true,"apiVersion":"v1"}},"done":true,"error":{{"code":1,"message":{message:?}}}}}"#
        ),
    );
    // It may also complete despite the request, which stays visible.
    check(
        &api,
        &succeeded(&api, &cancelling),
        &format!(
            r#"{{{name},"metadata":{{{common}{end}{target}"requestedCancellation":true,"apiVersion":"v1"}},"done":true,"response":{{"@type":"type.googleapis.com/google.cloud.deploy.v1.Target"}}}}"#
        ),
    );
}

#[test]
fn gemini_prints_defaults_in_full() {
    let api = api("cloudaicompanion");
    let queued = started(
        &api,
        "CreateCodeRepositoryIndex",
        "o",
        r#"{"parent":"projects/p/locations/l","codeRepositoryIndexId":"i","codeRepositoryIndex":{}}"#,
    );
    check(
        &api,
        &queued,
        r#"{"name":"projects/p/locations/l/operations/o","metadata":{
            "@type":"type.googleapis.com/google.cloud.cloudaicompanion.v1.OperationMetadata",
            "createTime":"2026-01-01T00:00:00Z",
            "target":"projects/p/locations/l/codeRepositoryIndexes/i","verb":"create",
            "statusMessage":"","requestedCancellation":false,"apiVersion":"v1"},"done":false}"#,
    );
}

#[test]
fn dataproc_says_cluster_type_and_status_with_its_history() {
    let api = api("dataproc");
    let queued = started(
        &api,
        "CreateCluster",
        "o",
        r#"{"projectId":"p","region":"r","cluster":{"clusterName":"c","labels":{"env":"prod"}}}"#,
    );
    let start = r#"{"name":"projects/p/regions/r/operations/o","metadata":{
        "@type":"type.googleapis.com/google.cloud.dataproc.v1.ClusterOperationMetadata",
        "clusterName":"c","status":"#;
    let pending = r#"{"state":"PENDING","stateStartTime":"2026-01-01T00:00:00Z"}"#;
    let run = r#"{"state":"RUNNING","stateStartTime":"2026-01-01T00:00:10Z"}"#;
    let end = r#""operationType":"CREATE","description":"Create cluster","labels":{"env":"prod"}}"#;
    check(&api, &queued, &format!("{start}{pending},{end}}}"));
    let running = running(&queued);
    let history = format!(r#","statusHistory":[{pending}],"#);
    check(&api, &running, &format!("{start}{run}{history}{end}}}"));
    check(&api, &cancelling(&running), &format!("{start}{run}{history}{end}}}"));
    let done = r#"{"state":"DONE","stateStartTime":"2026-01-01T00:00:30Z"}"#;
    let history = format!(r#","statusHistory":[{pending},{run}],"#);
    let response = r#""done":true,"response":{"@type":"type.googleapis.com/google.cloud.dataproc.v1.Cluster"}"#;
    check(&api, &succeeded(&api, &running), &format!("{start}{done}{history}{end},{response}}}"));
}

#[test]
fn dataproc_batches_sessions_and_workflows_speak_their_own_words() {
    let api = api("dataproc");
    let batch = started(
        &api,
        "CreateBatch",
        "o",
        r#"{"parent":"projects/p/locations/l","batchId":"b","batch":{"labels":{"a":"b"}}}"#,
    );
    check(
        &api,
        &succeeded(&api, &running(&batch)),
        r#"{"name":"projects/p/locations/l/operations/o","metadata":{
            "@type":"type.googleapis.com/google.cloud.dataproc.v1.BatchOperationMetadata",
            "batch":"projects/p/locations/l/batches/b","createTime":"2026-01-01T00:00:00Z",
            "doneTime":"2026-01-01T00:00:30Z","operationType":"BATCH",
            "description":"Create batch","labels":{"a":"b"}},"done":true,
            "response":{"@type":"type.googleapis.com/google.cloud.dataproc.v1.Batch"}}"#,
    );
    let session =
        started(&api, "TerminateSession", "o", r#"{"name":"projects/p/locations/l/sessions/s"}"#);
    check(
        &api,
        &session,
        r#"{"name":"projects/p/locations/l/operations/o","metadata":{
            "@type":"type.googleapis.com/google.cloud.dataproc.v1.SessionOperationMetadata",
            "session":"projects/p/locations/l/sessions/s","createTime":"2026-01-01T00:00:00Z",
            "operationType":"TERMINATE","description":"Terminate session"}}"#,
    );
    let workflow = started(
        &api,
        "InstantiateWorkflowTemplate",
        "o",
        r#"{"name":"projects/p/regions/r/workflowTemplates/w","version":3,"parameters":{"x":"1"}}"#,
    );
    check(
        &api,
        &running(&workflow),
        r#"{"name":"projects/p/regions/r/operations/o","metadata":{
            "@type":"type.googleapis.com/google.cloud.dataproc.v1.WorkflowMetadata",
            "template":"projects/p/regions/r/workflowTemplates/w","version":3,"state":"RUNNING",
            "parameters":{"x":"1"},"startTime":"2026-01-01T00:00:10Z"}}"#,
    );
    let job = started(
        &api,
        "SubmitJobAsOperation",
        "o",
        r#"{"projectId":"p","region":"r","job":{"reference":{"jobId":"j"}}}"#,
    );
    check(
        &api,
        &cancelling(&running(&job)),
        r#"{"name":"projects/p/regions/r/operations/o","metadata":{
            "@type":"type.googleapis.com/google.cloud.dataproc.v1.JobMetadata","jobId":"j",
            "status":{"state":"CANCEL_STARTED","stateStartTime":"2026-01-01T00:00:20Z"},
            "operationType":"SUBMIT","startTime":"2026-01-01T00:00:10Z"}}"#,
    );
}

#[test]
fn storage_batch_shows_its_job_with_the_state_inside() {
    let api = api("storagebatchoperations");
    let queued = started(
        &api,
        "CreateJob",
        "o",
        r#"{"parent":"projects/p/locations/global","jobId":"j","job":{"description":"d"}}"#,
    );
    let end = cancelled(&cancelling(&running(&queued)));
    let value = metadata(&end, &api).unwrap();
    let ty = api.descriptors().message(&value.type_name).unwrap();
    let message = Message::decode(&ty, &value.value).unwrap();
    assert_eq!(message.get_str("operation"), Some("projects/p/locations/global/operations/o"));
    assert_eq!(message.get_str("job.name"), Some("projects/p/locations/global/jobs/j"));
    assert_eq!(message.get_str("job.description"), Some("d"));
    assert!(message.get_bool("requested_cancellation"));
    let text = format!("{:?}", message.get("job.state").unwrap());
    assert!(text.contains("CANCELED"), "{text}");
}

#[test]
fn progress_becomes_the_status_message_where_the_api_has_one() {
    let api = api("privateca");
    let mut operation = running(&started(
        &api,
        "CreateCaPool",
        "o",
        r#"{"parent":"projects/p/locations/l","caPoolId":"c","caPool":{}}"#,
    ));
    operation.progress = Some(Progress { message: "half way".into(), ..Progress::default() });
    let value = metadata(&operation, &api).unwrap();
    let ty = api.descriptors().message(&value.type_name).unwrap();
    let message = Message::decode(&ty, &value.value).unwrap();
    assert_eq!(message.get_str("status_message"), Some("half way"));
}

/// CONTRACT 0.3 and T3: one official client fails on any `google.rpc` detail in JSON.
#[test]
fn error_details_of_foreign_types_leave_by_grpc_only() {
    let api = api("clouddeploy");
    let queued =
        started(&api, "DeleteTarget", "o", r#"{"name":"projects/p/locations/l/targets/t"}"#);
    let detail = |name: &str| Payload { type_name: name.into(), value: Arc::from([]) };
    let details = vec![detail("google.rpc.ErrorInfo"), detail("google.cloud.deploy.v1.Target")];
    let end = failed(&running(&queued), Code::NotFound, "no such target", details);
    let shown = |edge| match to_wire(&end, &api, edge).result {
        Some(OperationResult::Error(status)) => {
            assert_eq!(status.code, 5, "the rpc code, not that of HTTP");
            status.details.into_iter().map(|any| any.type_url).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(shown(Edge::Json), ["type.googleapis.com/google.cloud.deploy.v1.Target"]);
    assert_eq!(shown(Edge::Grpc).len(), 2);
    assert_eq!(shown(Edge::Native).len(), 2);
}

/// CONTRACT T1 and 3.3: another type in metadata or response breaks whole pages.
#[test]
fn a_worker_may_write_only_the_declared_types() {
    let api = api("clouddeploy");
    let method = api.method("google.cloud.deploy.v1.CloudDeploy.CreateRelease").unwrap();
    let release = "type.googleapis.com/google.cloud.deploy.v1.Release";
    assert!(accept_response(method, release, b"").is_ok());
    assert!(accept_response(method, "google.cloud.deploy.v1.Release", b"").is_ok());
    for (url, bytes, reason) in [
        ("type.googleapis.com/google.cloud.deploy.v1.Rollout", &b""[..], Reason::TypeMismatch),
        ("", b"", Reason::TypeMismatch),
        (release, b"\xff\xff", Reason::InvalidValue),
    ] {
        assert_eq!(accept_response(method, url, bytes).unwrap_err().reason, reason, "{url}");
    }
    let current = Payload { type_name: "x".into(), value: Arc::from([]) };
    let wrong = accept_metadata(&api, method, &current, release, b"").unwrap_err();
    assert_eq!(wrong.reason, Reason::TypeMismatch);
}

#[test]
fn what_the_server_keeps_a_worker_cannot_write() {
    let deploy = api("clouddeploy");
    let method = deploy.method("google.cloud.deploy.v1.CloudDeploy.CreateRelease").unwrap();
    let ty = method.start().unwrap().metadata_type.clone();
    let mut written = Message::new(&ty);
    written.set_bool("requested_cancellation", true).unwrap();
    written.set_string("target", "elsewhere").unwrap();
    written.set_string("status_message", "building").unwrap();
    let current = Payload { type_name: ty.full_name().into(), value: Arc::from([]) };
    let kept =
        accept_metadata(&deploy, method, &current, ty.full_name(), &written.encode()).unwrap();
    let kept = Message::decode(&ty, &kept.value).unwrap();
    assert!(!kept.has("requested_cancellation"));
    assert!(!kept.has("target"));
    assert_eq!(kept.get_str("status_message"), Some("building"), "the worker's own field");

    // Fields filled at the start come back where the worker leaves them out.
    let dataproc = api("dataproc");
    let request = r#"{"projectId":"p","region":"r","clusterName":"c"}"#;
    let mut operation = running(&started(&dataproc, "StopCluster", "o", request));
    let method = dataproc.method(&operation.method).unwrap();
    let ty = method.start().unwrap().metadata_type.clone();
    let shown = metadata(&operation, &dataproc).unwrap();
    let mut written = Message::decode(&ty, &shown.value).unwrap();
    written.clear("cluster_name");
    written.set_string("description", "stopping nodes").unwrap();
    let bytes = written.encode();
    operation.metadata =
        accept_metadata(&dataproc, method, &operation.metadata, ty.full_name(), &bytes).unwrap();
    let shown = metadata(&operation, &dataproc).unwrap();
    let shown = Message::decode(&ty, &shown.value).unwrap();
    assert_eq!(shown.get_str("cluster_name"), Some("c"));
    assert_eq!(shown.get_str("description"), Some("stopping nodes"));
    match shown.get("status_history") {
        Some(FieldValue::List(states)) => assert_eq!(states.len(), 1, "history is not doubled"),
        other => panic!("{other:?}"),
    }
}
