//! An error in the words of each wire: `google.rpc.Status`, an HTTP body, gRPC trailers.
//!
//! Every error carries an `ErrorInfo`; fields at fault a `BadRequest`; exceeded limits a `QuotaFailure`;
//! where repeating helps, a `RetryInfo`. The cause kept for our own log never leaves. Source: AIP-193.

use bytes::Bytes;
pub use longhaul_core::Code;
use longhaul_core::{Error, Reason};
use prost::Message as _;

use crate::json::{write_duration, write_string};
use crate::longrunning::{Any, Duration, ErrorInfo, Status, type_url};

/// Largest details in a gRPC trailer: clients refuse header blocks from 8 KiB on, and base64 takes
/// a third more.
const GRPC_DETAILS_BYTES_MAX: usize = 4_096;
/// Longest message in a gRPC trailer, in characters, before its escaping.
const GRPC_MESSAGE_CHARS_MAX: usize = 1_024;

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct BadRequest {
    #[prost(message, repeated, tag = "1")]
    field_violations: Vec<BadField>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct BadField {
    #[prost(string, tag = "1")]
    field: String,
    #[prost(string, tag = "2")]
    description: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct QuotaFailure {
    #[prost(message, repeated, tag = "1")]
    violations: Vec<OverQuota>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct OverQuota {
    #[prost(string, tag = "1")]
    subject: String,
    #[prost(string, tag = "2")]
    description: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Duration>,
}

/// How an HTTP error body is laid out: the `$.xgafv` of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ErrorFormat {
    /// `1`: with the list `errors` of the older format beside the rest.
    V1,
    /// `2`, and without the parameter.
    #[default]
    V2,
}

/// The HTTP code for a canonical code. Source: google/rpc/code.proto.
#[must_use]
pub const fn http_code(code: Code) -> u16 {
    match code {
        Code::Ok => 200,
        Code::Cancelled => 499,
        Code::Unknown | Code::Internal | Code::DataLoss => 500,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
        Code::DeadlineExceeded => 504,
        Code::NotFound => 404,
        Code::AlreadyExists | Code::Aborted => 409,
        Code::PermissionDenied => 403,
        Code::ResourceExhausted => 429,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
        Code::Unauthenticated => 401,
    }
}

/// The error as `google.rpc.Status`; `host` is the API's, such as `clouddeploy.googleapis.com`.
#[must_use]
pub fn to_status(error: &Error, host: &str) -> Status {
    status_with(error, host, error.violations.len())
}

fn status_with(error: &Error, host: &str, violations: usize) -> Status {
    let info = ErrorInfo {
        reason: error.reason.name().into(),
        domain: error.domain().unwrap_or(host).into(),
        metadata: error.metadata.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect(),
    };
    let mut details = vec![pack("google.rpc.ErrorInfo", &info)];
    if violations > 0 {
        let fields = error.violations.iter().take(violations);
        let field_violations = fields
            .map(|v| BadField { field: v.field.clone(), description: v.description.clone() })
            .collect();
        details.push(pack("google.rpc.BadRequest", &BadRequest { field_violations }));
    }
    if !error.quota().is_empty() {
        let violations = error.quota().iter().map(|quota| OverQuota {
            subject: quota.subject.clone(),
            description: quota.description.clone(),
        });
        let failure = QuotaFailure { violations: violations.collect() };
        details.push(pack("google.rpc.QuotaFailure", &failure));
    }
    if let Some(wait) = error.retry_after {
        let retry_delay = Duration {
            seconds: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(wait.subsec_nanos()).unwrap_or(0),
        };
        let info = RetryInfo { retry_delay: Some(retry_delay) };
        details.push(pack("google.rpc.RetryInfo", &info));
    }
    Status { code: error.code().number(), message: error.message.clone(), details }
}

/// The error as gRPC sends it, with `grpc-status-details-bin`.
///
/// Message and details are cut to what every client accepts in a trailer.
#[must_use]
pub fn to_grpc(error: &Error, host: &str) -> tonic::Status {
    let message: String = error.message.chars().take(GRPC_MESSAGE_CHARS_MAX).collect();
    tonic::Status::with_details(grpc_code(error), message, grpc_details(error, host))
}

/// The code that gRPC says: an unknown method is `UNIMPLEMENTED` there, where HTTP says 404.
fn grpc_code(error: &Error) -> tonic::Code {
    if error.reason == Reason::MethodNotFound {
        return tonic::Code::Unimplemented;
    }
    tonic::Code::from_i32(error.code().number())
}

/// The encoded `google.rpc.Status` of a `grpc-status-details-bin` trailer, before base64.
///
/// Leaves out field violations, then everything but code and message, until it fits.
#[must_use]
pub fn grpc_details(error: &Error, host: &str) -> Bytes {
    let cut: String = error.message.chars().take(GRPC_MESSAGE_CHARS_MAX).collect();
    let mut violations = error.violations.len();
    loop {
        let mut status = status_with(error, host, violations);
        status.message.clone_from(&cut);
        status.code = grpc_code(error) as i32;
        if status.encoded_len() <= GRPC_DETAILS_BYTES_MAX {
            return status.encode_to_vec().into();
        }
        if violations == 0 {
            status.details.clear();
            return status.encode_to_vec().into();
        }
        violations /= 2;
    }
}

/// The body of an HTTP error: `{"error":{code, message, status, details}}`.
///
/// Here `code` is the HTTP code, unlike in an operation's error.
#[must_use]
pub fn to_http_body(error: &Error, host: &str, format: ErrorFormat, pretty: bool) -> Vec<u8> {
    let mut body = Body { out: Vec::with_capacity(512), pretty, depth: 0, fresh: true };
    body.open(b'{');
    body.key("error");
    body.open(b'{');
    body.key("code");
    body.out.extend_from_slice(http_code(error.code()).to_string().as_bytes());
    body.text("message", &error.message);
    if format == ErrorFormat::V1 {
        body.key("errors");
        body.open(b'[');
        body.item();
        body.open(b'{');
        body.text("message", &error.message);
        body.text("domain", "global");
        body.text("reason", old_reason(error.code()));
        body.close(b'}');
        body.close(b']');
    }
    body.text("status", error.code().name());
    body.details(error, host);
    body.close(b'}');
    body.close(b'}');
    body.out
}

/// Whole seconds for a `Retry-After` header, rounded up.
#[must_use]
pub fn retry_after_seconds(error: &Error) -> Option<u64> {
    let wait = error.retry_after?;
    Some(wait.as_secs() + u64::from(wait.subsec_nanos() > 0))
}

/// The reason of the older error format.
const fn old_reason(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "cancelled",
        Code::Unknown | Code::Internal | Code::DataLoss | Code::Unavailable => "backendError",
        Code::InvalidArgument => "badRequest",
        Code::DeadlineExceeded => "deadlineExceeded",
        Code::NotFound => "notFound",
        Code::AlreadyExists => "alreadyExists",
        Code::PermissionDenied => "forbidden",
        Code::ResourceExhausted => "rateLimitExceeded",
        Code::FailedPrecondition => "failedPrecondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "outOfRange",
        Code::Unimplemented => "notImplemented",
        Code::Unauthenticated => "authError",
    }
}

fn pack(full_name: &str, message: &impl prost::Message) -> Any {
    Any { type_url: type_url(full_name), value: message.encode_to_vec() }
}

/// The error body while it is being written.
struct Body {
    out: Vec<u8>,
    pretty: bool,
    depth: usize,
    fresh: bool,
}

impl Body {
    fn details(&mut self, error: &Error, host: &str) {
        self.key("details");
        self.open(b'[');
        self.detail("google.rpc.ErrorInfo");
        self.text("reason", error.reason.name());
        self.text("domain", error.domain().unwrap_or(host));
        if !error.metadata.is_empty() {
            self.key("metadata");
            self.open(b'{');
            for (key, value) in &error.metadata {
                self.text(key, value);
            }
            self.close(b'}');
        }
        self.close(b'}');
        if !error.violations.is_empty() {
            self.detail("google.rpc.BadRequest");
            self.key("fieldViolations");
            self.open(b'[');
            for violation in &error.violations {
                self.item();
                self.open(b'{');
                if !violation.field.is_empty() {
                    self.text("field", &violation.field);
                }
                self.text("description", &violation.description);
                self.close(b'}');
            }
            self.close(b']');
            self.close(b'}');
        }
        if !error.quota().is_empty() {
            self.detail("google.rpc.QuotaFailure");
            self.key("violations");
            self.open(b'[');
            for quota in error.quota() {
                self.item();
                self.open(b'{');
                self.text("subject", &quota.subject);
                self.text("description", &quota.description);
                self.close(b'}');
            }
            self.close(b']');
            self.close(b'}');
        }
        if let Some(wait) = error.retry_after {
            self.detail("google.rpc.RetryInfo");
            self.key("retryDelay");
            self.out.push(b'"');
            let seconds = i64::try_from(wait.as_secs()).unwrap_or(i64::MAX);
            let nanos = i32::try_from(wait.subsec_nanos()).unwrap_or(0);
            if write_duration(&mut self.out, seconds, nanos).is_none() {
                self.out.extend_from_slice(b"315576000000s");
            }
            self.out.push(b'"');
            self.close(b'}');
        }
        self.close(b']');
    }

    /// Opens a detail of this type.
    fn detail(&mut self, full_name: &str) {
        self.item();
        self.open(b'{');
        self.text("@type", &type_url(full_name));
    }

    fn text(&mut self, key: &str, text: &str) {
        self.key(key);
        write_string(&mut self.out, text);
    }

    fn key(&mut self, key: &str) {
        self.item();
        write_string(&mut self.out, key);
        self.out.extend_from_slice(if self.pretty { b": " } else { b":" });
    }

    fn item(&mut self) {
        if !self.fresh {
            self.out.push(b',');
        }
        self.fresh = false;
        self.line();
    }

    fn open(&mut self, bracket: u8) {
        self.out.push(bracket);
        self.depth += 1;
        self.fresh = true;
    }

    fn close(&mut self, bracket: u8) {
        self.depth -= 1;
        if !self.fresh {
            self.line();
        }
        self.fresh = false;
        self.out.push(bracket);
    }

    fn line(&mut self) {
        if self.pretty {
            self.out.push(b'\n');
            self.out.resize(self.out.len() + 2 * self.depth, b' ');
        }
    }
}
