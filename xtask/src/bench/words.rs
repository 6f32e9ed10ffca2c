//! What the calls say: one API's start with 200 bytes of request and a 100-byte result.

use bytes::Bytes;
use longhaul_wire::longrunning::{Any, Operation, OperationResult, type_url};
use prost::Message;

use super::Result;

/// The API that is called.
pub(super) const HOST: &str = "clouddeploy.googleapis.com";
/// Where everything is started and listed.
pub(super) const PARENT: &str = "projects/bench/locations/local";
/// The method that starts an operation.
pub(super) const START_PATH: &str = "/google.cloud.deploy.v1.CloudDeploy/CreateDeliveryPipeline";
/// Operations on a page.
pub(super) const PAGE_SIZE: i32 = 100;

const RESPONSE_TYPE: &str = "google.cloud.deploy.v1.DeliveryPipeline";
/// Encoded size of a start's request.
const REQUEST_BYTES: usize = 200;
/// Encoded size of a result.
const RESULT_BYTES: usize = 100;

/// The fields of `google.cloud.deploy.v1.CreateDeliveryPipelineRequest` that are used.
#[derive(Clone, PartialEq, Message)]
pub(super) struct StartRequest {
    #[prost(string, tag = "1")]
    parent: String,
    #[prost(string, tag = "2")]
    delivery_pipeline_id: String,
    #[prost(message, optional, tag = "3")]
    delivery_pipeline: Option<DeliveryPipeline>,
}

/// The fields of `google.cloud.deploy.v1.DeliveryPipeline` that are used.
#[derive(Clone, PartialEq, Message)]
struct DeliveryPipeline {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "3")]
    description: String,
}

/// A start of 200 bytes.
pub(super) fn start_request(id: &str) -> StartRequest {
    StartRequest {
        parent: PARENT.to_owned(),
        delivery_pipeline_id: id.to_owned(),
        delivery_pipeline: Some(DeliveryPipeline {
            name: String::new(),
            description: description(id),
        }),
    }
}

/// The same start's body over HTTP; parent and id are in the URL.
pub(super) fn start_json(id: &str) -> Bytes {
    Bytes::from(format!("{{\"description\":\"{}\"}}", description(id)))
}

/// Fills the request up: tags and lengths around parent, id and text take ten bytes.
fn description(id: &str) -> String {
    "d".repeat(REQUEST_BYTES.saturating_sub(10 + PARENT.len() + id.len()))
}

/// A worker's result of 100 bytes.
pub(super) fn result() -> Any {
    let name = format!("{PARENT}/deliveryPipelines/p");
    let description = "r".repeat(RESULT_BYTES - 4 - name.len());
    let value = DeliveryPipeline { name, description }.encode_to_vec();
    Any { type_url: type_url(RESPONSE_TYPE), value }
}

/// Whether an operation ended with a response.
pub(super) fn check_done(operation: &Operation) -> Result<()> {
    match &operation.result {
        Some(OperationResult::Response(_)) if operation.done => Ok(()),
        Some(OperationResult::Response(_) | OperationResult::Error(_)) | None => {
            Err(format!("{} did not end well: {:?}", operation.name, operation.result).into())
        }
    }
}

/// Whether an operation ended as cancelled.
pub(super) fn check_cancelled(operation: &Operation) -> Result<()> {
    match &operation.result {
        Some(OperationResult::Error(status)) if operation.done && status.code == 1 => Ok(()),
        Some(OperationResult::Response(_) | OperationResult::Error(_)) | None => {
            let result = &operation.result;
            Err(format!("{} was not cancelled: {result:?}", operation.name).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_results_have_the_sizes_that_are_announced() {
        for id in ["p1-1", "p255-1000000"] {
            assert_eq!(start_request(id).encoded_len(), REQUEST_BYTES, "{id}");
        }
        assert_eq!(result().value.len(), RESULT_BYTES);
    }
}
