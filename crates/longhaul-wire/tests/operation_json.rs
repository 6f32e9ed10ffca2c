//! Operations on the wire: our typed messages against the real descriptors, and their fast JSON.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use longhaul_wire::bundled;
use longhaul_wire::json::{self, JsonOptions};
use longhaul_wire::longrunning::{
    Any, CancelOperationRequest, DeleteOperationRequest, Duration, ErrorInfo, GetOperationRequest,
    ListOperationsRequest, ListOperationsResponse, Operation, OperationResult, Status,
    WaitOperationRequest, type_url,
};
use longhaul_wire::message::{Descriptors, Message};
use prost::Message as _;

const METADATA: &str = "google.cloud.deploy.v1.OperationMetadata";

fn deploy() -> Descriptors {
    bundled::load("clouddeploy").unwrap().descriptors().clone()
}

fn any(full_name: &str, value: &[u8]) -> Any {
    Any { type_url: type_url(full_name), value: value.to_vec() }
}

/// create_time 1 s, target `t`, requested_cancellation true.
fn metadata() -> Any {
    any(METADATA, &[0x0a, 2, 8, 1, 0x1a, 1, b't', 0x30, 1])
}

fn operations() -> Vec<Operation> {
    let named = |done, result| Operation {
        name: "projects/p/locations/l/operations/o".into(),
        metadata: Some(metadata()),
        done,
        result,
    };
    let detail = any("google.protobuf.Duration", &[8, 3]);
    let cancelled = Status { code: 1, message: "cancelled".into(), details: Vec::new() };
    let failed = Status { code: 9, message: "\"no\"".into(), details: vec![detail] };
    let target = [0x0a, 1, b'n', 0x22, 6, 0x0a, 1, b'k', 0x12, 1, b'v'];
    vec![
        Operation::default(),
        named(false, None),
        named(true, Some(OperationResult::Error(cancelled))),
        named(true, Some(OperationResult::Error(failed))),
        named(true, Some(OperationResult::Error(Status::default()))),
        named(true, Some(OperationResult::Response(any("google.protobuf.Empty", &[])))),
        named(true, Some(OperationResult::Response(any("google.cloud.deploy.v1.Target", &target)))),
    ]
}

/// Every way to ask for JSON.
fn all_options() -> impl Iterator<Item = JsonOptions> {
    (0..8).map(|bits| JsonOptions {
        enums_as_ints: bits & 1 > 0,
        pretty: bits & 2 > 0,
        always_print_defaults: bits & 4 > 0,
        ..JsonOptions::default()
    })
}

#[test]
fn the_fast_json_of_an_operation_is_the_general_one() {
    let types = deploy();
    let general = |short_name: &str, bytes: &[u8], options: &JsonOptions| {
        let ty = types.message(&format!("google.longrunning.{short_name}")).unwrap();
        let message = Message::decode(&ty, bytes).unwrap();
        String::from_utf8(json::to_json(&message, &types, options).unwrap()).unwrap()
    };
    let full = ListOperationsResponse {
        operations: operations(),
        next_page_token: "t".into(),
        unreachable: Vec::new(),
    };
    for options in all_options() {
        for operation in operations() {
            let fast = json::operation_to_json(&operation, &types, &options).unwrap();
            let bytes = operation.encode_to_vec();
            assert_eq!(String::from_utf8(fast).unwrap(), general("Operation", &bytes, &options));
        }
        for page in [ListOperationsResponse::default(), full.clone()] {
            let fast = json::operations_to_json(&page, &types, &options).unwrap();
            let bytes = page.encode_to_vec();
            assert_eq!(
                String::from_utf8(fast).unwrap(),
                general("ListOperationsResponse", &bytes, &options)
            );
        }
    }
}

#[test]
fn an_operation_that_is_not_done_has_neither_result_nor_null() {
    let options = JsonOptions::default();
    let written = json::operation_to_json(&operations()[1], &deploy(), &options).unwrap();
    assert_eq!(
        String::from_utf8(written).unwrap(),
        concat!(
            r#"{"name":"projects/p/locations/l/operations/o","#,
            r#""metadata":{"@type":"type.googleapis.com/google.cloud.deploy.v1.OperationMetadata","#,
            r#""createTime":"1970-01-01T00:00:01Z","target":"t","requestedCancellation":true}}"#
        )
    );
    let page = ListOperationsResponse::default();
    assert_eq!(json::operations_to_json(&page, &deploy(), &options).unwrap(), b"{}");
}

#[test]
fn an_operation_that_deleted_something_answers_with_a_bare_empty() {
    let options = JsonOptions::default();
    let written = json::operation_to_json(&operations()[5], &deploy(), &options).unwrap();
    let written = String::from_utf8(written).unwrap();
    let end = r#""done":true,"response":{"@type":"type.googleapis.com/google.protobuf.Empty"}}"#;
    assert!(written.ends_with(end), "{written}");
}

#[test]
fn the_typed_messages_have_the_fields_of_the_real_ones() {
    #[track_caller]
    fn check(short_name: &str, message: &impl prost::Message, json: &str) {
        let types = deploy();
        let ty = types.message(&format!("google.longrunning.{short_name}")).unwrap();
        let real = Message::decode(&ty, &message.encode_to_vec()).unwrap();
        let written = json::to_json(&real, &types, &JsonOptions::default()).unwrap();
        assert_eq!(String::from_utf8(written).unwrap(), json);
    }
    let name = || "n".to_owned();
    check("GetOperationRequest", &GetOperationRequest { name: name() }, r#"{"name":"n"}"#);
    check("CancelOperationRequest", &CancelOperationRequest { name: name() }, r#"{"name":"n"}"#);
    check("DeleteOperationRequest", &DeleteOperationRequest { name: name() }, r#"{"name":"n"}"#);
    let timeout = Some(Duration { seconds: 1, nanos: 500_000_000 });
    check(
        "WaitOperationRequest",
        &WaitOperationRequest { name: name(), timeout },
        r#"{"name":"n","timeout":"1.500s"}"#,
    );
    let request = ListOperationsRequest {
        name: name(),
        filter: "f".into(),
        page_size: 3,
        page_token: "t".into(),
        return_partial_success: true,
    };
    check(
        "ListOperationsRequest",
        &request,
        r#"{"name":"n","filter":"f","pageSize":3,"pageToken":"t","returnPartialSuccess":true}"#,
    );
    let page = ListOperationsResponse {
        operations: Vec::new(),
        next_page_token: "t".into(),
        unreachable: vec!["u".into()],
    };
    check("ListOperationsResponse", &page, r#"{"nextPageToken":"t","unreachable":["u"]}"#);
}

#[test]
fn error_info_is_encoded_in_the_order_of_its_keys() {
    let info = ErrorInfo {
        reason: "X".into(),
        domain: "d".into(),
        metadata: [("b".to_owned(), "2".to_owned()), ("a".to_owned(), "1".to_owned())].into(),
    };
    let a = info.encode_to_vec().windows(4).position(|w| w == b"\x0a\x01a\x12").unwrap();
    let b = info.encode_to_vec().windows(4).position(|w| w == b"\x0a\x01b\x12").unwrap();
    assert!(a < b);
}
