//! Google's Rust client for Cloud Deploy against a server of this machine. Owns tests only.
#![cfg(test)]

use std::time::Duration;

use google_cloud_auth::credentials::anonymous;
use google_cloud_deploy_v1::builder::cloud_deploy::CreateDeliveryPipeline;
use google_cloud_deploy_v1::client::CloudDeploy;
use google_cloud_deploy_v1::model::DeliveryPipeline;
use google_cloud_gax::error::Error;
use google_cloud_gax::error::rpc::Code;
use google_cloud_gax::paginator::ItemPaginator;
use google_cloud_longrunning::model::operation::Result as Outcome;
use google_cloud_lro::Poller;

async fn client() -> CloudDeploy {
    let port = std::env::var("LONGHAUL_PORT").expect("LONGHAUL_PORT is set by conformance/run");
    CloudDeploy::builder()
        .with_endpoint(format!("http://127.0.0.1:{port}/clouddeploy"))
        .with_credentials(anonymous::Builder::new().build())
        .build()
        .await
        .expect("a client needs no server to be built")
}

/// A place of the test's own, so that its list holds nothing of another's.
fn parent(test: &str) -> String {
    format!("projects/rust-{test}-{}/locations/us-central1", std::process::id())
}

fn create(client: &CloudDeploy, parent: &str) -> CreateDeliveryPipeline {
    client
        .create_delivery_pipeline()
        .set_parent(parent)
        .set_delivery_pipeline_id("web")
        .set_delivery_pipeline(DeliveryPipeline::new().set_description("made by rust"))
}

fn code(error: &Error) -> Option<Code> {
    error.status().map(|status| status.code)
}

#[tokio::test]
async fn a_poller_returns_the_typed_response() {
    let client = client().await;
    let made = create(&client, &parent("poller")).poller().until_done().await.expect("succeeds");
    assert_eq!(made.description, "made by rust");
}

#[tokio::test]
async fn a_cancelled_operation_is_kept_with_code_1() {
    let (client, parent) = (client().await, parent("cancel"));
    let started = create(&client, &parent).send().await.expect("starts");
    assert!(!started.done);
    let cancel = || client.cancel_operation().set_name(&started.name).send();
    cancel().await.expect("is cancelled");
    cancel().await.expect("may be cancelled again");

    let ended = loop {
        let now = client.get_operation().set_name(&started.name).send().await.expect("is there");
        if now.done {
            break now;
        }
        // tidy: sleep: a pause between two polls; conformance/run ends a suite that takes too long
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let Some(Outcome::Error(status)) = ended.result else { panic!("{:?}", ended.result) };
    assert_eq!(status.code, Code::Cancelled as i32);
    cancel().await.expect("may be cancelled after the end");

    let mut listed = client.list_operations().set_name(&parent).by_item();
    let first = listed.next().await.expect("one is listed").expect("can be read");
    assert_eq!(first.name, started.name);
    assert!(listed.next().await.is_none());
}

#[tokio::test]
async fn what_is_deleted_or_never_was_is_not_found() {
    let (client, parent) = (client().await, parent("delete"));
    let started = create(&client, &parent).send().await.expect("starts");
    client.delete_operation().set_name(&started.name).send().await.expect("is deleted");
    for name in [started.name, format!("{parent}/operations/absent")] {
        let error = client.get_operation().set_name(name).send().await.expect_err("is gone");
        assert_eq!(code(&error), Some(Code::NotFound), "{error:?}");
    }
}
