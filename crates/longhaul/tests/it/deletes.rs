//! Delete hides an operation from clients; it never touches the work.

use crate::harness::samples::{Asked, DEPLOY};
use crate::harness::{Say, everywhere};

#[tokio::test(flavor = "multi_thread")]
async fn peers_25_delete_hides_at_once_and_the_work_goes_on() {
    everywhere(async |place| {
        let (client, worker) = (place.client(), place.worker());
        let name = client.start("a").await.name;
        let held = worker.claim(&name).await;
        client.try_delete(&name).await.unwrap();

        client.try_get(&name).await.unwrap_err().is("NOT_FOUND", "OPERATION_NOT_FOUND");
        client.try_cancel(&name).await.unwrap_err().is("NOT_FOUND", "OPERATION_NOT_FOUND");
        client.try_delete(&name).await.unwrap_err().is("NOT_FOUND", "OPERATION_NOT_FOUND");
        client
            .try_wait(&name, None, None)
            .await
            .unwrap_err()
            .is("NOT_FOUND", "OPERATION_NOT_FOUND");
        assert!(client.list("").await.operations.is_empty());

        worker.report(held.item(Say::Alive)).await.wants("CONTINUE");
        let verdict = worker.report(held.item(Say::Success(DEPLOY.response()))).await;
        verdict.wants("STOP");
        client.try_get(&name).await.unwrap_err().is("NOT_FOUND", "OPERATION_NOT_FOUND");
        assert!(client.list("").await.operations.is_empty(), "the result is dropped");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_operation_that_nobody_claimed_is_still_run() {
    everywhere(async |place| {
        let (client, worker) = (place.client(), place.worker());
        let name = client.start("a").await.name;
        client.try_delete(&name).await.unwrap();
        let held = worker.claim(&name).await;
        worker.report(held.item(Say::Success(DEPLOY.response()))).await.wants("STOP");
        client.try_get(&name).await.unwrap_err().is("NOT_FOUND", "OPERATION_NOT_FOUND");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_done_operation_is_deleted_once() {
    everywhere(async |place| {
        let client = place.client();
        let name = client.start("a").await.name;
        client.cancel(&name).await;
        client.try_delete(&name).await.unwrap();
        client.try_delete(&name).await.unwrap_err().is("NOT_FOUND", "OPERATION_NOT_FOUND");
        client.try_get(&name).await.unwrap_err().is("NOT_FOUND", "OPERATION_NOT_FOUND");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_request_id_of_a_deleted_operation_stays_taken() {
    everywhere(async |place| {
        let (client, worker) = (place.client(), place.worker());
        let asked = Asked {
            id: "a",
            request_id: "4fd8e4c2-0c5e-4c52-8f6c-0d0e5f2b7a11",
            ..Asked::default()
        };
        let first = client.try_start(asked).await.unwrap();
        client.try_delete(&first.name).await.unwrap();
        let again = client.try_start(asked).await.unwrap();
        assert_eq!(again.name, first.name, "the work is not started twice");
        let claimed = worker.claim_now().await;
        let ours = claimed.iter().filter(|held| held.operation.contains(&place.project));
        assert_eq!(ours.count(), 1);
        let other = Asked { id: "b", ..asked };
        let refused = client.try_start(other).await.unwrap_err();
        refused.is("INVALID_ARGUMENT", "REQUEST_ID_REUSED");
    })
    .await;
}
