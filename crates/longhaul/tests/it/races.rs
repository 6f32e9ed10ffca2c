//! Races and promises that belong to no other module: each is named after its row.

use std::sync::Arc;
use std::time::{Duration, Instant};

use longhaul_wire::v1::Effects;

use crate::harness::client::Wire;
use crate::harness::samples::{DEPLOY, Typed};
use crate::harness::server::config;
use crate::harness::session::{Session, open};
use crate::harness::{
    Client, Kept, Place, Say, Server, Worker, acme, everywhere, everywhere_with, on_both_stores,
    soon,
};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn race_cancel_of_an_unknown_expired_or_deleted_operation_is_not_found() {
    everywhere_with(acme::load, async |place| {
        let (client, worker, operators) = (place.client(), place.worker(), place.operators());
        let unknown = format!("{}/operations/gone", client.parent());
        let deleted = client.start("deleted").await.name;
        client.cancel(&deleted).await;
        client.try_delete(&deleted).await.unwrap();
        let expired = acme::start(&place, "publish").await;
        let held = worker.claim(&expired).await;
        let nothing = Say::Success(Typed::empty("google.protobuf.Empty"));
        worker.report(held.item(nothing)).await.wants("STOP");
        // Kept for a second.
        soon("the end of the retention", async {
            while operators.try_describe(&expired).await.is_ok() {}
        })
        .await;
        for name in [&unknown, &deleted] {
            client.try_cancel(name).await.unwrap_err().is("NOT_FOUND", "OPERATION_NOT_FOUND");
        }
        for name in [&unknown, &expired] {
            let failure = operators.try_cancel(name, "").await.unwrap_err();
            failure.is("NOT_FOUND", "OPERATION_NOT_FOUND");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn race_parallel_starts_on_one_resource_are_aborted_where_the_method_says_so() {
    everywhere_with(acme::load, async |place| {
        let worker = place.worker();
        let first = acme::try_start(&place, "archive", "a").await.unwrap();
        let busy = acme::try_start(&place, "archive", "a").await.unwrap_err();
        busy.is("ABORTED", "TARGET_BUSY").says(&["under way", "repeat"]);
        acme::try_start(&place, "archive", "b").await.unwrap();
        acme::try_start(&place, "transcode", "a").await.expect("that one lets others beside it");
        let held = worker.claim(&first).await;
        acme::try_start(&place, "archive", "a").await.unwrap_err().is("ABORTED", "TARGET_BUSY");
        // Of another method, so that one is not superseded either.
        acme::try_start(&place, "grade", "a").await.unwrap_err().is("ABORTED", "TARGET_BUSY");
        worker.report(held.item(acme::clip())).await.wants("STOP");
        acme::try_start(&place, "archive", "a").await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn race_parallel_starts_on_one_resource_supersede_where_the_method_says_so() {
    everywhere_with(acme::load, async |place| {
        let (worker, operators) = (place.worker(), place.operators());
        let queued = acme::try_start(&place, "grade", "a").await.unwrap();
        let running = acme::try_start(&place, "grade", "a").await.unwrap();
        let seen = acme::get(&place, &queued).await;
        assert_eq!((seen.done, seen.code), (true, Some(10)), "{seen:?}");
        let held = worker.claim(&running).await;
        let hanging = {
            let (worker, item) = (worker.clone(), held.item(Say::Alive));
            tokio::spawn(async move { worker.report_waiting(item, 15 * SECOND).await })
        };
        let newest = acme::try_start(&place, "grade", "a").await.unwrap();
        let verdict = soon("the report", hanging).await.unwrap();
        assert_eq!(verdict.wants("CANCEL").because, "SUPERSEDED");
        assert!(verdict.words.contains(&newest), "{verdict:?}");
        worker.report(held.item(Say::Stopped(Effects::Undone))).await.wants("STOP");
        let detail = operators.describe(&running).await;
        assert_eq!(detail.error.as_ref().map(|error| error.code), Some(10), "code 1 is a client's");
        assert_eq!(detail.effects(), Effects::Undone);
        let held = worker.claim(&newest).await;
        worker.report(held.item(acme::clip())).await.wants("STOP");
        assert!(acme::get(&place, &newest).await.response.is_some());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn race_a_long_outage_gives_leases_their_time_back_and_nothing_is_run_again() {
    let short = |config: &mut longhaul_server::Config| config.workers.lease = 2 * SECOND;
    let server = Server::with(Kept::OnDisk, short).await;
    let client = Client::new(server.address, Wire::Grpc, &DEPLOY, "p");
    let worker = Worker::new(server.address, Wire::Grpc, "w");
    let mut claims = Vec::new();
    for number in 0..10 {
        let name = client.start(&format!("a{number}")).await.name;
        claims.push(worker.claim(&name).await);
    }
    client.cancel(&claims[0].operation).await;
    server.stop().await;
    let stopped = Instant::now();
    while stopped.elapsed() < 3 * SECOND {
        // tidy: sleep: this is the outage itself, longer than the leases
        tokio::time::sleep(SECOND).await;
    }
    let again = longhaul_server::serve(config(Some(server.folder()), short)).await.unwrap();
    let client = Client::new(again.address(), Wire::Grpc, &DEPLOY, "p");
    let worker = Worker::new(again.address(), Wire::Grpc, "w");
    assert_eq!(worker.claim_now().await, [], "the fleet is not run again");
    for (number, held) in claims.iter().enumerate() {
        let wanted = if number == 0 { "CANCEL" } else { "CONTINUE" };
        worker.report(held.item(Say::Alive)).await.wants(wanted);
        client.get(&held.operation).await.is_running();
    }
    soon("the end", again.stop()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_03_no_claim_comes_without_a_lease() {
    everywhere(async |place| {
        let (client, worker, operators) = (place.client(), place.worker(), place.operators());
        for lease in [None, Some(SECOND), Some(3600 * SECOND)] {
            let name = client.start("a").await.name;
            let held = worker.claim_for(&name, lease).await;
            let detail = operators.describe(&name).await;
            let lease = detail.lease.expect("a claim has a lease");
            assert_eq!(lease.worker, worker.name);
            let seconds = |at: Option<prost_types::Timestamp>| at.expect("a moment").seconds;
            assert!(seconds(lease.expire_time) > seconds(lease.claim_time), "{lease:?}");
            worker.report(held.item(Say::Success(DEPLOY.response()))).await.wants("STOP");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_14_each_caller_has_an_operation_of_its_own_to_cancel() {
    everywhere(async |place| {
        let (client, worker) = (place.client(), place.worker());
        let (mine, yours) = (client.start("same").await.name, client.start("same").await.name);
        assert_ne!(mine, yours);
        let (held_mine, held_yours) = (worker.claim(&mine).await, worker.claim(&yours).await);
        client.cancel(&mine).await;
        worker.report(held_mine.item(Say::Alive)).await.wants("CANCEL");
        worker.report(held_yours.item(Say::Alive)).await.wants("CONTINUE");
        worker.report(held_mine.item(Say::Stopped(Effects::None))).await.wants("STOP");
        worker.report(held_yours.item(Say::Success(DEPLOY.response()))).await.wants("STOP");
        client.get(&mine).await.is_cancelled();
        assert!(client.get(&yours).await.response.is_some());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_22_a_slot_is_free_with_the_end_of_its_operation_and_not_earlier() {
    on_both_stores(async |place| {
        let (client, worker) = (place.client(), place.worker());
        let (first, second) = (client.start("a").await.name, client.start("b").await.name);
        let (mut session, _) = Session::open(place.server.address, open("w", 1)).await;
        let held = session.assigned(&first).await;
        client.cancel(&first).await;
        session.report(held.item(Say::Alive)).await.wants("CANCEL");
        // Cancelled is not stopped: the slot is taken, and the second one is left to others.
        assert_eq!(worker.claim_now().await.len(), 1);
        client.cancel(&second).await;
        let third = client.start("c").await.name;
        session.report(held.item(Say::Stopped(Effects::None))).await.wants("STOP");
        session.assigned(&third).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn race_a_server_stopped_between_cancel_and_report_loses_neither() {
    let server = Arc::new(Server::start(Kept::OnDisk).await);
    let place = Place::on(server.clone(), Wire::Grpc);
    let name = place.client().start("a").await.name;
    let held = place.worker().claim(&name).await;
    place.client().cancel(&name).await;
    server.stop().await;
    let again = longhaul_server::serve(config(Some(server.folder()), |_| {})).await.unwrap();
    let worker = Worker::new(again.address(), Wire::Grpc, "w");
    worker.report(held.item(Say::Alive)).await.wants("CANCEL");
    worker.report(held.item(Say::Stopped(Effects::None))).await.wants("STOP");
    let client = Client::new(again.address(), Wire::Grpc, &DEPLOY, &*place.project);
    client.get(&name).await.is_cancelled();
    soon("the end", again.stop()).await;
}
