//! Every race that a cancel can be in, and who wins it.

use longhaul_wire::v1::Effects;

use crate::harness::samples::DEPLOY;
use crate::harness::{Place, Say, Seen, everywhere, over_both_wires};

/// Codes of google.rpc.Code that workers report here.
const FAILED_PRECONDITION: i32 = 9;
const UNAVAILABLE: i32 = 14;

#[tokio::test(flavor = "multi_thread")]
async fn cancel_before_claim_is_done_at_once() {
    everywhere(async |place| {
        let client = place.client();
        let name = client.start("a").await.name;
        client.cancel(&name).await;
        let ended = client.get(&name).await;
        assert!(ended.is_cancelled().requested_cancellation);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_08_queued_and_cancelled_never_starts() {
    everywhere(async |place| {
        let client = place.client();
        let (stopped, kept) = (client.start("a").await.name, client.start("b").await.name);
        client.cancel(&stopped).await;
        let claimed = place.worker().claim_now().await;
        assert!(claimed.iter().all(|held| held.operation != stopped));
        assert!(claimed.iter().any(|held| held.operation == kept));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_07_done_comes_only_after_the_worker_has_stopped() {
    everywhere(async |place| {
        let (client, worker) = (place.client(), place.worker());
        let name = client.start("a").await.name;
        let held = worker.claim(&name).await;
        client.cancel(&name).await;
        let moment = Some(std::time::Duration::from_millis(100));
        client.try_wait(&name, moment, None).await.unwrap().is_running();
        worker.report(held.item(Say::Alive)).await.wants("CANCEL");
        client.get(&name).await.is_running();
        worker.report(held.item(Say::Stopped(Effects::Partial))).await.wants("STOP");
        client.get(&name).await.is_cancelled();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_18_repeat_cancel_is_ok() {
    everywhere(async |place| {
        let (client, worker) = (place.client(), place.worker());
        let name = client.start("a").await.name;
        let held = worker.claim(&name).await;
        client.cancel(&name).await;
        let first = client.get(&name).await;
        for _ in 0..3 {
            client.cancel(&name).await;
            assert_eq!(client.get(&name).await, first, "later ones change nothing");
        }
        worker.report(held.item(Say::Stopped(Effects::None))).await.wants("STOP");
        client.cancel(&name).await;
        client.get(&name).await.is_cancelled();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_cancels_at_once_are_all_ok() {
    everywhere(async |place| {
        let (client, worker) = (place.client(), place.worker());
        let name = client.start("a").await.name;
        let held = worker.claim(&name).await;
        let mut cancels = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let (client, name) = (client.clone(), name.clone());
            cancels.spawn(async move { client.try_cancel(&name).await });
        }
        for answer in cancels.join_all().await {
            assert_eq!(answer, Ok(()));
        }
        worker.report(held.item(Say::Stopped(Effects::None))).await.wants("STOP");
        client.get(&name).await.is_cancelled();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_after_success_is_ok_and_changes_nothing() {
    everywhere(async |place| {
        let (client, worker) = (place.client(), place.worker());
        let name = client.start("a").await.name;
        let held = worker.claim(&name).await;
        worker.report(held.item(Say::Success(DEPLOY.response()))).await.wants("STOP");
        let ended = client.get(&name).await;
        client.cancel(&name).await;
        assert_eq!(client.get(&name).await, ended);
        assert!(!ended.requested_cancellation);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn success_after_cancel_wins_and_still_says_that_it_was_asked() {
    let ended = after_cancel(Say::Success(DEPLOY.response())).await;
    for ended in ended {
        assert_eq!(ended.response.as_deref(), Some(DEPLOY.response_type));
        assert!(ended.requested_cancellation);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failure_for_good_after_cancel_keeps_its_error() {
    let failure = Say::Failure(FAILED_PRECONDITION, "the disk is full".into(), false);
    for ended in after_cancel(failure).await {
        assert_eq!((ended.code, &*ended.message), (Some(9), "the disk is full"));
        assert!(ended.requested_cancellation);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retryable_failure_after_cancel_is_cancelled() {
    for ended in after_cancel(Say::Failure(UNAVAILABLE, "try again".into(), true)).await {
        ended.is_cancelled();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn release_after_cancel_is_cancelled() {
    for ended in after_cancel(Say::Release).await {
        ended.is_cancelled();
    }
}

/// How an operation ends that was cancelled while it ran, in each place.
async fn after_cancel(say: Say) -> Vec<Seen> {
    let ends = std::sync::Mutex::new(Vec::new());
    everywhere(async |place| {
        let (client, worker) = (place.client(), place.worker());
        let name = client.start("a").await.name;
        let held = worker.claim(&name).await;
        client.cancel(&name).await;
        worker.report(held.item(Say::Alive)).await.wants("CANCEL");
        worker.report(held.item(say.clone())).await.wants("STOP");
        let ended = client.get(&name).await;
        assert!(ended.done, "{ended:?}");
        let again = worker.claim_now().await;
        assert!(
            again.iter().all(|held| held.operation != name),
            "the main work is never run again"
        );
        ends.lock().unwrap().push(ended);
    })
    .await;
    ends.into_inner().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_04_terminal_state_never_flips() {
    everywhere(async |place| {
        let (client, worker) = (place.client(), place.worker());
        let name = client.start("a").await.name;
        let held = worker.claim(&name).await;
        client.cancel(&name).await;
        worker.report(held.item(Say::Stopped(Effects::None))).await.wants("STOP");
        let ended = client.get(&name).await;
        let late = [
            Say::Success(DEPLOY.response()),
            Say::Failure(FAILED_PRECONDITION, "too late".into(), false),
            Say::Release,
            Say::Gate,
            Say::Alive,
        ];
        for say in late {
            worker.report(held.item(say)).await.refused_as("LEASE_LOST");
            assert_eq!(client.get(&name).await, ended);
        }
        worker.report(held.item(Say::Stopped(Effects::None))).await.wants("STOP");
        assert_eq!(client.get(&name).await, ended, "the same end, said again, is no news");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_10_cancel_while_backing_off_is_done_at_once() {
    everywhere(async |place| {
        let (client, worker) = (place.client(), place.worker());
        let name = client.start("a").await.name;
        let held = worker.claim(&name).await;
        worker.report(held.item(Say::Failure(UNAVAILABLE, "try again".into(), true))).await;
        client.cancel(&name).await;
        client.get(&name).await.is_cancelled();
        worker.report(held.item(Say::Success(DEPLOY.response()))).await.refused_as("LEASE_LOST");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_is_closed_by_a_cancel_and_open_without_one() {
    everywhere(async |place| {
        let (client, worker) = (place.client(), place.worker());
        let cancelled_first = client.start("a").await.name;
        let held = worker.claim(&cancelled_first).await;
        client.cancel(&cancelled_first).await;
        let verdict = worker.report(held.item(Say::Gate)).await;
        verdict.refused_as("GATE_CLOSED");
        assert_eq!((verdict.gate_passed, &*verdict.desired), (false, "CANCEL"));
        worker.report(held.item(Say::Stopped(Effects::None))).await.wants("STOP");
        client.get(&cancelled_first).await.is_cancelled();

        let gate_first = client.start("b").await.name;
        let held = worker.claim(&gate_first).await;
        assert!(worker.report(held.item(Say::Gate)).await.wants("CONTINUE").gate_passed);
        client.cancel(&gate_first).await;
        let verdict = worker.report(held.item(Say::Gate)).await;
        assert!(verdict.gate_passed && verdict.refused.is_none(), "once passed it stays open");
        worker.report(held.item(Say::Success(DEPLOY.response()))).await.wants("STOP");
        assert!(client.get(&gate_first).await.response.is_some());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_and_a_cancel_at_once_are_never_both() {
    everywhere(async |place| {
        for round in 0..20 {
            let (client, worker) = (place.client(), place.worker());
            let name = client.start(&format!("a{round}")).await.name;
            let held = worker.claim(&name).await;
            let (cancelled, verdict) =
                tokio::join!(client.try_cancel(&name), worker.report(held.item(Say::Gate)));
            assert_eq!(cancelled, Ok(()));
            if verdict.gate_passed {
                assert_eq!(verdict.refused, None);
                worker.report(held.item(Say::Success(DEPLOY.response()))).await.wants("STOP");
                assert!(client.get(&name).await.response.is_some());
            } else {
                verdict.refused_as("GATE_CLOSED");
                worker.report(held.item(Say::Stopped(Effects::None))).await.wants("STOP");
                client.get(&name).await.is_cancelled();
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_and_success_at_once_leave_one_end() {
    everywhere(async |place| {
        for round in 0..20 {
            let (client, worker) = (place.client(), place.worker());
            let name = client.start(&format!("a{round}")).await.name;
            let held = worker.claim(&name).await;
            let success = held.item(Say::Success(DEPLOY.response()));
            let (cancelled, reported) =
                tokio::join!(client.try_cancel(&name), worker.report(success));
            assert_eq!(cancelled, Ok(()));
            reported.wants("STOP");
            let ended = client.get(&name).await;
            assert!(ended.response.is_some(), "the worker was told that it counts: {ended:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_and_claim_at_once_never_lose_the_cancel() {
    everywhere(async |place| {
        for round in 0..20 {
            let (client, worker) = (place.client(), place.worker());
            let name = client.start(&format!("a{round}")).await.name;
            let (cancelled, claimed) = tokio::join!(client.try_cancel(&name), worker.claim_now());
            assert_eq!(cancelled, Ok(()));
            match claimed.iter().find(|held| held.operation == name) {
                Some(held) => {
                    worker.report(held.item(Say::Alive)).await.wants("CANCEL");
                    worker.report(held.item(Say::Stopped(Effects::None))).await.wants("STOP");
                }
                None => assert!(client.get(&name).await.done),
            }
            client.get(&name).await.is_cancelled();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_cannot_say_cancelled_when_nobody_asked() {
    everywhere(async |place: Place| {
        let (client, worker) = (place.client(), place.worker());
        let name = client.start("a").await.name;
        let held = worker.claim(&name).await;
        let before = client.get(&name).await;
        let verdict = worker.report(held.item(Say::Stopped(Effects::None))).await;
        assert_eq!(verdict.refused_as("CANCEL_NOT_REQUESTED").desired, "CONTINUE");
        let as_code_1 = held.item(Say::Failure(1, "cancelled".into(), false));
        worker.report(as_code_1).await.refused_as("CANCEL_NOT_REQUESTED");
        assert_eq!(client.get(&name).await, before);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_over_one_wire_is_seen_over_the_other() {
    over_both_wires(async |place| {
        let other = match place.wire {
            crate::harness::client::Wire::Http => crate::harness::client::Wire::Grpc,
            crate::harness::client::Wire::Grpc => crate::harness::client::Wire::Http,
        };
        let there = Place { wire: other, ..place.clone() };
        let name = place.client().start("a").await.name;
        let held = there.worker().claim(&name).await;
        place.client().cancel(&name).await;
        assert!(there.client().get(&name).await.is_running().requested_cancellation);
        there.worker().report(held.item(Say::Alive)).await.wants("CANCEL");
        place.worker().report(held.item(Say::Stopped(Effects::None))).await.wants("STOP");
        there.client().get(&name).await.is_cancelled();
    })
    .await;
}
