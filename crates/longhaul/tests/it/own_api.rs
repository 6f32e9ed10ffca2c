//! An API of somebody's own, from a folder of proto files: served like the bundled ones, with the
//! choices that its settings make.

use std::sync::Arc;
use std::time::{Duration, Instant};

use longhaul_wire::v1::Effects;
use serde_json::{Value, json};

use crate::harness::acme::{self, HOST};
use crate::harness::client::Wire;
use crate::harness::samples::Typed;
use crate::harness::{Answer, Ask, Claim, Item, Kept, Place, Say, Seen, Server, Worker, soon};

/// A client of this API over HTTP, and a worker over either wire.
struct Acme {
    server: Arc<Server>,
    worker: Worker,
}

impl Acme {
    async fn everywhere(scenario: impl AsyncFn(Self)) {
        for kept in [Kept::InMemory, Kept::OnDisk] {
            let server = Arc::new(Server::with(kept, acme::load).await);
            for wire in [Wire::Http, Wire::Grpc] {
                let worker = Place::on(server.clone(), wire).worker();
                scenario(Self { server: server.clone(), worker }).await;
            }
            server.stop().await;
        }
    }

    fn send(&self, ask: Ask) -> impl Future<Output = Answer> {
        ask.host(HOST).send(self.server.address)
    }

    async fn start(&self, verb: &str) -> String {
        let ask = Ask::post_json(format!("/v1/projects/p/clips/c:{verb}"), &json!({}));
        Seen::from_json(&self.send(ask).await.ok()).is_running().name.clone()
    }

    async fn get(&self, name: &str) -> Seen {
        Seen::from_json(&self.send(Ask::get(format!("/v1/{name}"))).await.ok())
    }

    async fn cancel(&self, name: &str) -> Answer {
        self.send(Ask::post(format!("/v1/{name}:cancel"))).await
    }

    async fn delete(&self, name: &str) -> Answer {
        self.send(Ask::delete(format!("/v1/{name}"))).await
    }

    async fn wait(&self, name: &str, body: &Value) -> Seen {
        Seen::from_json(&self.send(Ask::post_json(format!("/v1/{name}:wait"), body)).await.ok())
    }
}

fn clip() -> Say {
    Say::Success(Typed::named("acme.video.v1.Clip", "c"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_proto_files_is_an_api() {
    Acme::everywhere(async |acme| {
        let name = acme.start("transcode").await;
        assert!(name.starts_with("projects/p/operations/"), "{name}");
        let id = name.rsplit('/').next().unwrap();
        assert_eq!((id.len(), id.matches('-').count()), (36, 4), "the settings ask for UUIDs");
        let held = acme.worker.claim(&name).await;
        assert_eq!(held.method, "acme.video.v1.Video.Transcode");
        let metadata = Typed {
            type_name: "acme.video.v1.OperationMetadata",
            json: json!({ "framesDone": 7 }),
            bytes: vec![0x40, 7],
        };
        let item = Item { metadata: Some(metadata), ..held.item(Say::Alive) };
        acme.worker.report(item).await.wants("CONTINUE");
        let seen = acme.get(&name).await;
        assert_eq!(seen.json()["metadata"]["framesDone"], 7);
        assert_eq!(seen.json()["metadata"]["verb"], "transcode");
        acme.worker.report(held.item(clip())).await.wants("STOP");
        assert_eq!(acme.get(&name).await.response.as_deref(), Some("acme.video.v1.Clip"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mapped_wait_works_over_http() {
    Acme::everywhere(async |acme| {
        let name = acme.start("transcode").await;
        let before = Instant::now();
        acme.wait(&name, &json!({ "timeout": "0.2s" })).await.is_running();
        assert!(before.elapsed() >= Duration::from_millis(200));
        let held = acme.worker.claim(&name).await;
        let (server, waited_for) = (acme.server.clone(), name.clone());
        let wait = tokio::spawn(async move {
            let ask = Ask::post_json(format!("/v1/{waited_for}:wait"), &json!({}));
            Seen::from_json(&ask.host(HOST).send(server.address).await.ok())
        });
        acme.worker.report(held.item(clip())).await.wants("STOP");
        assert!(soon("the wait", wait).await.unwrap().done);
        assert!(acme.wait(&name, &json!({ "timeout": "600s" })).await.done);
        let wrong = Ask::post_json(format!("/v1/{name}:wait"), &json!({ "timeout": "-1s" }));
        acme.send(wrong).await.failure(400).is("INVALID_ARGUMENT", "INVALID_VALUE");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn success_after_cancel_is_discarded_where_the_method_says_so() {
    Acme::everywhere(async |acme| {
        let name = acme.start("transcode").await;
        let held = acme.worker.claim(&name).await;
        acme.cancel(&name).await.empty_object();
        acme.worker.report(held.item(clip())).await.wants("STOP");
        acme.get(&name).await.is_cancelled();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_05_a_worker_that_ignores_a_cancel_cannot_hold_up_the_end() {
    Acme::everywhere(async |acme| {
        let name = acme.start("transcode").await;
        let held = acme.worker.claim(&name).await;
        acme.cancel(&name).await.empty_object();
        // The worker lives and renews, but does not stop; its second of cancel_timeout runs out.
        let heard = Item { heard: true, ..held.item(Say::Alive) };
        acme.worker.report_waiting(heard, Duration::from_secs(15)).await;
        let ended = acme.get(&name).await;
        assert!(ended.is_cancelled().requested_cancellation);
        acme.worker.report(held.item(clip())).await.refused_as("LEASE_LOST");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_report_of_the_same_epoch_is_accepted() {
    Acme::everywhere(async |acme| {
        let name = acme.start("transcode").await;
        let second = Duration::from_secs(1);
        let held = acme.worker.claim(&name).await;
        // The lease runs out while this answer hangs; the hour of back-off keeps others away.
        let item = Item { lease: Some(second), ..held.item(Say::Alive) };
        acme.worker.report_waiting(item, second * 5 / 2).await;
        acme.get(&name).await.is_running();
        acme.worker.report(held.item(clip())).await.wants("STOP");
        assert!(acme.get(&name).await.response.is_some());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_16_any_worker_cleans_up_and_no_cancel_stops_that() {
    Acme::everywhere(async |acme| {
        let name = acme.start("render").await;
        let second = Duration::from_secs(1);
        let held = acme.worker.claim_for(&name, Some(second)).await;
        acme.cancel(&name).await.empty_object();
        // The first worker is never heard of again.
        let cleanup = acme.worker.claim(&name).await;
        assert!(cleanup.cleanup && cleanup.epoch > held.epoch, "{cleanup:?}");
        assert!(acme.get(&name).await.is_running().requested_cancellation);
        acme.cancel(&name).await.empty_object();
        acme.worker.report(cleanup.item(Say::Alive)).await.wants("CONTINUE");
        acme.worker.report(held.item(clip())).await.refused_as("LEASE_LOST");
        acme.worker.report(cleanup.item(Say::Stopped(Effects::Undone))).await.wants("STOP");
        acme.get(&name).await.is_cancelled();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retryable_failure_is_tried_again_until_the_attempts_are_used_up() {
    Acme::everywhere(async |acme| {
        let name = acme.start("render").await;
        for attempt in 1..=5 {
            let held = acme.worker.claim(&name).await;
            assert_eq!(held.attempt, attempt);
            let failure = Say::Failure(14, format!("attempt {attempt}"), true);
            let verdict = acme.worker.report(held.item(failure)).await;
            assert_eq!(verdict.refused, None);
        }
        let ended = acme.get(&name).await;
        assert_eq!((ended.code, &*ended.message), (Some(14), "attempt 5"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_06_a_method_that_cannot_be_cancelled_says_so() {
    Acme::everywhere(async |acme| {
        let name = acme.start("publish").await;
        for claimed in [false, true] {
            if claimed {
                acme.worker.claim(&name).await;
            }
            let before = acme.get(&name).await;
            let failure = acme.cancel(&name).await.failure(501);
            failure.is("UNIMPLEMENTED", "CANCEL_UNSUPPORTED");
            assert_eq!(acme.get(&name).await, before);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_method_refuses_late_cancels_and_early_deletes() {
    Acme::everywhere(async |acme| {
        let name = acme.start("preview").await;
        let failure = acme.delete(&name).await.failure(400);
        failure.is("FAILED_PRECONDITION", "OPERATION_NOT_DONE");
        acme.cancel(&name).await.empty_object();
        let ended = acme.get(&name).await;
        ended.is_cancelled();
        let failure = acme.cancel(&name).await.failure(400);
        failure.is("FAILED_PRECONDITION", "OPERATION_DONE");
        assert_eq!(acme.get(&name).await, ended);
        acme.delete(&name).await.empty_object();
        acme.get_failure(&name).await;
    })
    .await;
}

impl Acme {
    async fn get_failure(&self, name: &str) {
        let answer = self.send(Ask::get(format!("/v1/{name}"))).await;
        answer.failure(404).is("NOT_FOUND", "OPERATION_NOT_FOUND");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missed_deadline_is_no_cancellation() {
    Acme::everywhere(async |acme| {
        let queued = acme.start("preview").await;
        let ended = acme.wait(&queued, &json!({})).await;
        assert_eq!(ended.code, Some(4), "{ended:?}");
        assert!(!ended.requested_cancellation);

        let running = acme.start("preview").await;
        let held = acme.worker.claim(&running).await;
        let wait = Duration::from_secs(15);
        let verdict = acme.worker.report_waiting(held.item(Say::Alive), wait).await;
        assert_eq!(verdict.wants("CANCEL").because, "DEADLINE");
        acme.worker.report(held.item(Say::Stopped(Effects::None))).await.wants("STOP");
        let ended = acme.get(&running).await;
        assert_eq!((ended.code, ended.requested_cancellation), (Some(4), false), "{ended:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_worker_claims_by_start_by_ends_with_code_4() {
    Acme::everywhere(async |acme| {
        let claimed = acme.start("publish").await;
        let held = acme.worker.claim(&claimed).await;
        let waiting = acme.start("publish").await;
        let ended = acme.wait(&waiting, &json!({})).await;
        assert_eq!((ended.code, ended.requested_cancellation), (Some(4), false), "{ended:?}");
        acme.worker.report(held.item(Say::Alive)).await.wants("CONTINUE");
        acme.get(&claimed).await.is_running();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_workers_claim_from_its_own_queue() {
    Acme::everywhere(async |acme| {
        let name = acme.start("transcode").await;
        let claim = Claim { queues: vec!["video".into()], ..Claim::default() };
        let claimed = acme.worker.try_claim(&claim).await.unwrap();
        assert!(claimed.iter().any(|held| held.operation == name), "{claimed:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_done_operation_is_forgotten_after_its_retention() {
    Acme::everywhere(async |acme| {
        let (kept, short) = (acme.start("transcode").await, acme.start("publish").await);
        let held = acme.worker.claim(&short).await;
        let nothing = Say::Success(Typed::empty("google.protobuf.Empty"));
        acme.worker.report(held.item(nothing)).await.wants("STOP");
        assert!(acme.get(&short).await.done);
        // The second of retention passes while this waits.
        acme.wait(&kept, &json!({ "timeout": "1.3s" })).await.is_running();
        acme.get_failure(&short).await;
        let list = acme.send(Ask::get("/v1/projects/p/operations?pageSize=1000")).await.ok();
        let operations = list["operations"].as_array().cloned().unwrap_or_default();
        assert!(operations.iter().all(|operation| operation["name"] != *short));
        assert!(operations.iter().any(|operation| operation["name"] == *kept));
        acme.cancel(&short).await.failure(404).is("NOT_FOUND", "OPERATION_NOT_FOUND");
        acme.cancel(&kept).await.empty_object();
    })
    .await;
}
