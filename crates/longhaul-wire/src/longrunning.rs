//! The messages of `google.longrunning`, typed, for the calls that never change.
//!
//! Written by hand so that building needs no proto compiler and no foreign file; a test compares
//! them with the real descriptors. Source: google/longrunning/operations.proto.

use std::collections::BTreeMap;

pub use prost_types::{Any, Duration};
pub use tonic_types::Status;

/// One operation as a client sees it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Operation {
    /// Full name, such as `projects/p/locations/l/operations/o`.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The API's own metadata message.
    #[prost(message, optional, tag = "2")]
    pub metadata: Option<Any>,
    /// Whether it has ended; then exactly one of error and response is there.
    #[prost(bool, tag = "3")]
    pub done: bool,
    /// How it ended.
    #[prost(oneof = "OperationResult", tags = "4, 5")]
    pub result: Option<OperationResult>,
}

/// How an operation ended.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum OperationResult {
    /// It failed or was cancelled.
    #[prost(message, tag = "4")]
    Error(Status),
    /// It succeeded; the declared response type.
    #[prost(message, tag = "5")]
    Response(Any),
}

/// Asks for one operation.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct GetOperationRequest {
    /// Full name of the operation.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// Asks for a page of operations.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ListOperationsRequest {
    /// The parent, with or without the collection, as the API's rule has it.
    #[prost(string, tag = "4")]
    pub name: String,
    /// Which of them; empty for all.
    #[prost(string, tag = "1")]
    pub filter: String,
    /// How many at most; 0 for the default.
    #[prost(int32, tag = "2")]
    pub page_size: i32,
    /// Where to go on, from the page before; empty for the first.
    #[prost(string, tag = "3")]
    pub page_token: String,
    /// Whether a list across collections may leave out those that do not answer.
    #[prost(bool, tag = "5")]
    pub return_partial_success: bool,
}

/// A page of operations.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListOperationsResponse {
    /// Newest first.
    #[prost(message, repeated, tag = "1")]
    pub operations: Vec<Operation>,
    /// Where to go on; empty on the last page.
    #[prost(string, tag = "2")]
    pub next_page_token: String,
    /// Collections that did not answer.
    #[prost(string, repeated, tag = "3")]
    pub unreachable: Vec<String>,
}

/// Asks for cancellation.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct CancelOperationRequest {
    /// Full name of the operation.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// Says that nobody is interested any more.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DeleteOperationRequest {
    /// Full name of the operation.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// Waits for the end, or a time.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WaitOperationRequest {
    /// Full name of the operation.
    #[prost(string, tag = "1")]
    pub name: String,
    /// How long at most; unset for as long as the call's own deadline allows.
    #[prost(message, optional, tag = "2")]
    pub timeout: Option<Duration>,
}

/// Why a call failed. Source: google/rpc/error_details.proto; AIP-193.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ErrorInfo {
    /// Such as `OPERATION_NOT_FOUND`.
    #[prost(string, tag = "1")]
    pub reason: String,
    /// The service that says so, such as `clouddeploy.googleapis.com`.
    #[prost(string, tag = "2")]
    pub domain: String,
    /// The variable parts of the message, by key; encoded in order.
    #[prost(btree_map = "string, string", tag = "3")]
    pub metadata: BTreeMap<String, String>,
}

/// The URL that `Any` carries for a type.
#[must_use]
pub fn type_url(full_name: &str) -> String {
    format!("type.googleapis.com/{full_name}")
}

/// The full type name in an `Any`'s URL: what follows the last slash.
#[must_use]
pub fn type_name(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or(url)
}
