//! Errors on both wires.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::time::Duration;

use longhaul_core::{Code, Error, QuotaViolation, Reason};
use longhaul_wire::status::{
    ErrorFormat, grpc_details, http_code, retry_after_seconds, to_grpc, to_http_body, to_status,
};
use prost::Message as _;
use tonic_types::StatusExt as _;

const HOST: &str = "clouddeploy.googleapis.com";

fn quota() -> QuotaViolation {
    QuotaViolation { subject: "principal:\"ann\"".into(), description: "too many".into() }
}

#[test]
fn codes_have_the_http_codes_of_google_rpc() {
    let table: Vec<(&str, u16)> =
        Code::ALL.into_iter().map(|code| (code.name(), http_code(code))).collect();
    assert_eq!(
        table,
        [
            ("OK", 200),
            ("CANCELLED", 499),
            ("UNKNOWN", 500),
            ("INVALID_ARGUMENT", 400),
            ("DEADLINE_EXCEEDED", 504),
            ("NOT_FOUND", 404),
            ("ALREADY_EXISTS", 409),
            ("PERMISSION_DENIED", 403),
            ("RESOURCE_EXHAUSTED", 429),
            ("FAILED_PRECONDITION", 400),
            ("ABORTED", 409),
            ("OUT_OF_RANGE", 400),
            ("UNIMPLEMENTED", 501),
            ("INTERNAL", 500),
            ("UNAVAILABLE", 503),
            ("DATA_LOSS", 500),
            ("UNAUTHENTICATED", 401),
        ]
    );
}

#[test]
fn every_error_has_an_envelope_with_error_info() {
    let error = Error::new(Reason::OperationNotFound, "operation \"o\" not found")
        .with("operation", "o")
        .caused_by("the disk's secret");
    let body = to_http_body(&error, HOST, ErrorFormat::V2, true);
    assert_eq!(
        String::from_utf8(body).unwrap(),
        r#"{
  "error": {
    "code": 404,
    "message": "operation \"o\" not found",
    "status": "NOT_FOUND",
    "details": [
      {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": "OPERATION_NOT_FOUND",
        "domain": "clouddeploy.googleapis.com",
        "metadata": {
          "operation": "o"
        }
      }
    ]
  }
}"#
    );
}

#[test]
fn all_details_at_once_are_json_that_reads_back() {
    let error = Error::new(Reason::Overloaded, "a\nb\u{1}é")
        .at_field("a.b", "no")
        .at_field("", "\"no\"")
        .over_quota(quota())
        .retry_after(Duration::from_millis(1_500));
    assert_eq!(retry_after_seconds(&error), Some(2));
    for format in [ErrorFormat::V1, ErrorFormat::V2] {
        for pretty in [false, true] {
            let body = to_http_body(&error, HOST, format, pretty);
            let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(value["error"]["message"], "a\nb\u{1}é");
            assert_eq!(value["error"]["details"][1]["fieldViolations"][0]["field"], "a.b");
            let quota = &value["error"]["details"][2];
            assert_eq!(quota["@type"], "type.googleapis.com/google.rpc.QuotaFailure");
            assert_eq!(quota["violations"][0]["subject"], "principal:\"ann\"");
            assert_eq!(quota["violations"][0]["description"], "too many");
            assert_eq!(value["error"]["details"][3]["retryDelay"], "1.500s");
            assert_eq!(value["error"].get("errors").is_some(), format == ErrorFormat::V1);
        }
    }
}

#[test]
fn grpc_carries_the_same_details() {
    let error = Error::new(Reason::InvalidName, "bad name")
        .with("name", "x")
        .at_field("name", "bad")
        .over_quota(quota())
        .retry_after(Duration::from_secs(3));
    let status = to_grpc(&error, HOST);
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    assert_eq!(status.message(), "bad name");
    let details = status.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.domain.as_str()), ("INVALID_NAME", HOST));
    assert_eq!(info.metadata["name"], "x");
    assert_eq!(details.bad_request().unwrap().field_violations[0].field, "name");
    assert_eq!(details.quota_failure().unwrap().violations[0].subject, "principal:\"ann\"");
    assert_eq!(details.retry_info().unwrap().retry_delay, Some(Duration::from_secs(3)));
    let status = to_status(&error, HOST);
    assert_eq!((status.code, status.details.len()), (3, 4));
}

#[test]
fn grpc_details_fit_a_trailer_however_long_the_error_is() {
    let mut error = Error::new(Reason::UnknownField, "x".repeat(100_000));
    for at in 0..20 {
        error = error.at_field(format!("field{at}"), "y".repeat(1_000));
    }
    let details = grpc_details(&error, HOST);
    assert!(details.len() <= 4_096, "{}", details.len());
    let status = tonic_types::Status::decode(details).unwrap();
    assert!(status.details.len() == 2, "the first violations stay");
    assert!(to_grpc(&error, HOST).message().len() <= 1_024);

    let error = Error::new(Reason::Internal, "x").with("name", "z".repeat(10_000));
    let status = tonic_types::Status::decode(grpc_details(&error, HOST)).unwrap();
    assert_eq!((status.code, status.message.as_str()), (13, "x"));
}

#[test]
fn details_are_encoded_in_one_order() {
    let error = || {
        let error = Error::new(Reason::Internal, "x");
        error.with("e", "1").with("a", "2").with("c", "3").with("b", "4").with("d", "5")
    };
    for _ in 0..10 {
        assert_eq!(grpc_details(&error(), HOST), grpc_details(&error(), HOST));
    }
}
