//! What is said to the servers: the messages of the small API that chaos brings along.

use longhaul_wire::longrunning::{Any, Operation, OperationResult, type_url};
use prost::Message;

use super::history::Seen;

/// The API that is called.
pub(super) const HOST: &str = "chaos.example";
/// Where everything is started.
pub(super) const PARENT: &str = "projects/chaos";
/// Starts what leaves nothing behind.
pub(super) const WORK: &str = "/chaos.v1.Chaos/Work";
/// Starts what has a cleanup.
pub(super) const BUILD: &str = "/chaos.v1.Chaos/Build";
/// Reads an operation.
pub(super) const GET: &str = "/google.longrunning.Operations/GetOperation";
/// Waits for one.
pub(super) const WAIT: &str = "/google.longrunning.Operations/WaitOperation";
/// Asks one to stop.
pub(super) const CANCEL: &str = "/google.longrunning.Operations/CancelOperation";
/// Takes work.
pub(super) const CLAIM: &str = "/longhaul.v1.Workers/Claim";
/// Says how it goes.
pub(super) const REPORT: &str = "/longhaul.v1.Workers/Report";

/// `chaos.v1.WorkRequest`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct WorkRequest {
    #[prost(string, tag = "1")]
    pub parent: String,
    #[prost(string, tag = "2")]
    pub request_id: String,
}

/// `chaos.v1.Made`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Made {
    #[prost(string, tag = "1")]
    pub by: String,
}

/// As much of `chaos.v1.WorkMetadata` as is read.
#[derive(Clone, PartialEq, Message)]
struct WorkMetadata {
    #[prost(bool, tag = "3")]
    requested_cancellation: bool,
}

/// A good end, marked with whose it is.
pub(super) fn made(by: &str) -> Any {
    let value = Made { by: by.to_owned() }.encode_to_vec();
    Any { type_url: type_url("chaos.v1.Made"), value }
}

/// What an answer says about an operation.
pub(super) fn seen(operation: &Operation) -> Result<Seen, prost::DecodeError> {
    let metadata = operation.metadata.as_ref().map_or(&[][..], |any| &any.value);
    let (code, made_by) = match &operation.result {
        Some(OperationResult::Error(status)) => (Some(status.code), None),
        Some(OperationResult::Response(any)) => (None, Some(Made::decode(&*any.value)?.by)),
        None => (None, None),
    };
    Ok(Seen {
        done: operation.done,
        code,
        made_by,
        cancel_requested: WorkMetadata::decode(metadata)?.requested_cancellation,
    })
}
