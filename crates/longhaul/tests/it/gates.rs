//! The irreversible step, what is left behind, and who cleans it up.

use std::time::Duration;

use longhaul_wire::v1::{self, Effects};

use crate::harness::client::Wire;
use crate::harness::samples::DEPLOY;
use crate::harness::{Item, Place, Say, Worker, acme, everywhere, everywhere_with};

const SECOND: Duration = Duration::from_secs(1);

/// A worker of another name.
fn another(place: &Place) -> Worker {
    Worker::new(place.server.address, place.wire, format!("another-of-{}", place.project))
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_09_a_gate_is_passed_exactly_when_the_cancel_is_told_too_late() {
    everywhere(async |place| {
        let (client, worker, operators) = (place.client(), place.worker(), place.operators());
        let mut passed = 0;
        for round in 0..50 {
            let name = client.start(&format!("a{round}")).await.name;
            let held = worker.claim(&name).await;
            let gate = held.item(Say::Gate);
            let (came, verdict) =
                tokio::join!(operators.try_cancel(&name, "race"), worker.report(gate));
            let outcome = came.unwrap().outcome;
            match verdict.gate_passed {
                true => assert_eq!((verdict.refused, &*outcome), (None, "TOO_LATE")),
                false => {
                    verdict.refused_as("GATE_CLOSED");
                    assert_eq!(outcome, "REQUESTED");
                }
            }
            // Whatever the worker says, nobody hears "cancelled, nothing happened" past the gate.
            worker.report(held.item(Say::Stopped(Effects::None))).await.wants("STOP");
            let detail = operators.describe(&name).await;
            let expected = if verdict.gate_passed { Effects::Unknown } else { Effects::None };
            assert_eq!(detail.effects(), expected);
            assert_eq!(detail.gate_time.is_some(), verdict.gate_passed);
            passed += u32::from(verdict.gate_passed);
        }
        println!("{:?}: the gate won {passed} of 50", place.wire);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_left_behind_is_on_record() {
    everywhere(async |place| {
        let (client, worker, operators) = (place.client(), place.worker(), place.operators());
        let unclaimed = client.start("unclaimed").await.name;
        operators.cancel(&unclaimed, "").await;
        assert_eq!(operators.describe(&unclaimed).await.effects(), Effects::NotStarted);
        let cases = [
            (Effects::None, Effects::None),
            (Effects::Undone, Effects::Undone),
            (Effects::Partial, Effects::Partial),
            (Effects::Unknown, Effects::Unknown),
            (Effects::Unspecified, Effects::Unknown),
            // What was claimed cannot be said never to have started.
            (Effects::NotStarted, Effects::Unknown),
        ];
        for (said, kept) in cases {
            let name = client.start("a").await.name;
            let held = worker.claim(&name).await;
            operators.cancel(&name, "").await;
            worker.report(held.item(Say::Stopped(said))).await.wants("STOP");
            client.get(&name).await.is_cancelled();
            assert_eq!(operators.describe(&name).await.effects(), kept, "{said:?}");
        }
        let name = client.start("a").await.name;
        let held = worker.claim(&name).await;
        worker.report(held.item(Say::Success(DEPLOY.response()))).await.wants("STOP");
        assert_eq!(operators.describe(&name).await.effects(), Effects::Unspecified);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_21_a_cleanup_by_another_worker_gets_what_the_lost_one_left() {
    everywhere_with(acme::load, async |place| {
        let (lost, other, operators) = (place.worker(), another(&place), place.operators());
        let name = acme::start(&place, "render").await;
        let held = lost.claim(&name).await;
        let left = Item {
            external_ref: Some("farm-job-17".into()),
            checkpoint: Some(b"frame 250".to_vec()),
            lease: Some(SECOND),
            ..held.item(Say::Alive)
        };
        lost.report(left).await.wants("CONTINUE");
        operators.cancel(&name, "wrong clip").await;
        // The first worker is never heard of again; its lease runs out.
        let cleanup = other.claim(&name).await;
        assert!(cleanup.cleanup && cleanup.epoch > held.epoch, "{cleanup:?}");
        assert_eq!(
            (&*cleanup.external_ref, &*cleanup.checkpoint, &*cleanup.desired),
            ("farm-job-17", &b"frame 250"[..], "CONTINUE")
        );
        assert_eq!(operators.cancel(&name, "again").await, "ALREADY_REQUESTED");
        other.report(cleanup.item(Say::Alive)).await.wants("CONTINUE");
        for say in [acme::clip(), Say::Stopped(Effects::None), Say::Alive, Say::Gate] {
            lost.report(held.item(say)).await.refused_as("LEASE_LOST");
        }
        let lease = operators.describe(&name).await.lease.unwrap();
        assert_eq!(lease.worker, other.name);
        other.report(cleanup.item(Say::Stopped(Effects::Undone))).await.wants("STOP");
        acme::get(&place, &name).await.is_cancelled();
        let detail = operators.describe(&name).await;
        assert_eq!((detail.state(), detail.effects()), (v1::State::Done, Effects::Undone));
        let events: Vec<_> = detail.timeline.iter().map(|event| &*event.event).collect();
        let at = |wanted: &str| events.iter().position(|event| *event == wanted);
        assert!(at("LEASE_EXPIRED") < at("CLEANUP_STARTED"), "{events:?}");
        assert!(at("CLEANUP_STARTED") < at("FINISHED"), "{events:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cleanup_that_is_lost_or_fails_is_tried_again_by_any_worker() {
    everywhere_with(acme::load, async |place| {
        let (one, other, operators) = (place.worker(), another(&place), place.operators());
        let name = acme::start(&place, "render").await;
        let held = one.claim(&name).await;
        operators.cancel(&name, "").await;
        one.report(held.item(Say::Release)).await.wants("STOP");
        let lost = one.claim_for(&name, Some(SECOND)).await;
        let failing = other.claim(&name).await;
        assert!(lost.cleanup && failing.cleanup && failing.epoch > lost.epoch, "{failing:?}");
        one.report(lost.item(Say::Stopped(Effects::Undone))).await.refused_as("LEASE_LOST");
        let failure = Say::Failure(14, "the farm does not answer".into(), true);
        other.report(failing.item(failure)).await.wants("STOP");
        acme::get(&place, &name).await.is_running();
        let last = one.claim(&name).await;
        assert!(last.cleanup && last.epoch > failing.epoch, "{last:?}");
        one.report(last.item(Say::Stopped(Effects::Partial))).await.wants("STOP");
        acme::get(&place, &name).await.is_cancelled();
        assert_eq!(operators.describe(&name).await.effects(), Effects::Partial);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_05_a_frozen_worker_cannot_hold_up_the_end_and_is_refused_when_it_thaws() {
    everywhere_with(acme::load, async |place| {
        let (worker, operators) = (place.worker(), place.operators());
        // Its cancel has a second, its lease ten minutes: the cancel's deadline ends it.
        let name = acme::start(&place, "transcode").await;
        let held = worker.claim_for(&name, Some(600 * SECOND)).await;
        operators.cancel(&name, "").await;
        let asked = std::time::Instant::now();
        acme::done(&place, &name).await.is_cancelled();
        assert!(
            asked.elapsed() >= SECOND / 2 && asked.elapsed() < 5 * SECOND,
            "{:?}",
            asked.elapsed()
        );
        let ended = operators.describe(&name).await;
        assert_eq!((ended.state(), ended.effects()), (v1::State::Done, Effects::Unknown));
        for say in [Say::Alive, Say::Gate, acme::clip(), Say::Release, Say::Stopped(Effects::None)]
        {
            let verdict = worker.report(held.item(say)).await;
            verdict.refused_as("LEASE_LOST");
            assert_eq!((&*verdict.desired, &*verdict.because), ("STOP", "DONE"));
        }
        assert_eq!(operators.describe(&name).await, ended, "late reports change nothing");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_11_a_frozen_worker_with_a_short_lease_is_given_up_with_it() {
    everywhere(async |place| {
        let (client, worker, operators) = (place.client(), place.worker(), place.operators());
        let name = client.start("a").await.name;
        let held = worker.claim_for(&name, Some(SECOND)).await;
        operators.cancel(&name, "").await;
        let grpc = Place { wire: Wire::Grpc, ..place.clone() };
        grpc.client().done(&name).await.is_cancelled();
        assert_eq!(operators.describe(&name).await.effects(), Effects::Unknown);
        let late = held.item(Say::Stopped(Effects::None));
        worker.report(late).await.refused_as("LEASE_LOST");
    })
    .await;
}
