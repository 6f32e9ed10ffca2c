//! The right to report: who has it, how it is lost, and what a lost worker may still say.

use std::time::Duration;

use longhaul_wire::v1::Effects;
use serde_json::json;

use crate::harness::client::Wire;
use crate::harness::process::Process;
use crate::harness::samples::{Asked, DEPLOY};
use crate::harness::{
    Ask, Claim, Client, Held, Item, Place, Say, Seen, Worker, everywhere, everywhere_with,
    over_both_wires, soon,
};

const SECOND: Duration = Duration::from_secs(1);

/// A start whose request has a description of so many bytes.
fn described_start(place: &Place, bytes: usize) -> Ask {
    let asked = Asked { id: "large", ..Asked::default() };
    let path = DEPLOY.start_path(&place.project, asked);
    Ask::post_json(path, &json!({ "description": "x".repeat(bytes) }))
}

/// The operation of such a start.
async fn described(place: &Place, bytes: usize) -> Seen {
    let answer = place.client().http(described_start(place, bytes)).await.unwrap();
    Seen::from_json(&answer.ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_13_a_stale_epoch_is_refused_and_changes_nothing() {
    everywhere(async |place| {
        let (client, worker) = (place.client(), place.worker());
        let name = client.start("a").await.name;
        let first = worker.claim(&name).await;
        worker.report(first.item(Say::Release)).await.wants("STOP");
        let second = worker.claim(&name).await;
        assert!(second.epoch > first.epoch, "{second:?}");
        let before = client.get(&name).await;
        for say in [
            Say::Alive,
            Say::Gate,
            Say::Release,
            Say::Success(DEPLOY.response()),
            Say::Failure(9, "no".into(), false),
            Say::Stopped(Effects::None),
        ] {
            for epoch in [0, first.epoch, second.epoch + 1, u64::MAX] {
                let item = Item { epoch, ..first.item(say.clone()) };
                let verdict = worker.report(item).await;
                assert_eq!(verdict.refused_as("LEASE_LOST").desired, "STOP");
                assert_eq!(verdict.because, "LEASE_LOST");
            }
        }
        assert_eq!(client.get(&name).await, before);
        worker.report(second.item(Say::Success(DEPLOY.response()))).await.wants("STOP");
        assert!(client.get(&name).await.done);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_12_a_release_counts_no_attempt_and_keeps_the_checkpoint() {
    everywhere(async |place| {
        let (client, worker) = (place.client(), place.worker());
        let name = client.start("a").await.name;
        let first = worker.claim(&name).await;
        assert_eq!((first.attempt, first.cleanup, &*first.checkpoint), (1, false, &[][..]));
        let item = Item { checkpoint: Some(b"step 3".to_vec()), ..first.item(Say::Release) };
        worker.report(item).await.wants("STOP");
        let second = worker.claim(&name).await;
        assert_eq!(
            (second.attempt, &*second.checkpoint),
            (1, &b"step 3"[..]),
            "no attempt is counted"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_worker_is_replaced_and_fenced() {
    everywhere(async |place| {
        let (client, worker) = (place.client(), place.worker());
        let name = client.start("a").await.name;
        let first = worker.claim_for(&name, Some(SECOND)).await;
        let second = worker.claim(&name).await;
        assert!(second.epoch > first.epoch && second.attempt == 2, "{second:?}");
        worker.report(first.item(Say::Success(DEPLOY.response()))).await.refused_as("LEASE_LOST");
        client.get(&name).await.is_running();
        worker.report(second.item(Say::Success(DEPLOY.response()))).await.wants("STOP");
        assert!(client.get(&name).await.response.is_some());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_21_the_next_worker_learns_of_work_outside() {
    everywhere(async |place| {
        let (client, worker) = (place.client(), place.worker());
        let name = client.start("a").await.name;
        let first = worker.claim_for(&name, Some(SECOND)).await;
        assert_eq!(first.external_ref, "");
        let external_ref = Some("batch-job-17".to_owned());
        let item = Item { external_ref, lease: Some(SECOND), ..first.item(Say::Alive) };
        worker.report(item).await.wants("CONTINUE");
        assert_eq!(worker.claim(&name).await.external_ref, "batch-job-17");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_11_a_worker_lost_while_cancelling_cannot_hold_up_the_end() {
    everywhere(async |place| {
        let (client, worker) = (place.client(), place.worker());
        let name = client.start("a").await.name;
        let held = worker.claim_for(&name, Some(SECOND)).await;
        client.cancel(&name).await;
        client.done(&name).await.is_cancelled();
        worker.report(held.item(Say::Success(DEPLOY.response()))).await.refused_as("LEASE_LOST");
        let claimed = worker.claim_now().await;
        assert!(claimed.iter().all(|held| held.operation != name));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn renewing_keeps_the_lease() {
    over_both_wires(async |place| {
        let (client, worker) = (place.client(), place.worker());
        let name = client.start("a").await.name;
        let held = worker.claim_for(&name, Some(SECOND)).await;
        let renew = Item { lease: Some(Duration::from_secs(60)), ..held.item(Say::Alive) };
        worker.report(renew.clone()).await.wants("CONTINUE");
        // Longer than the first lease would have lasted.
        let claim = Claim { wait: SECOND * 2, ..Claim::default() };
        let claimed = worker.try_claim(&claim).await.unwrap();
        assert!(claimed.iter().all(|held| held.operation != name), "{claimed:?}");
        worker.report(held.item(Say::Success(DEPLOY.response()))).await.wants("STOP");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_claim_id_returns_the_same_leases() {
    everywhere(async |place| {
        let (client, worker) = (place.client(), place.worker());
        worker.claim_now().await;
        for id in ["a", "b", "c"] {
            client.start(id).await;
        }
        let claim = Claim { max: 2, claim_id: place.project.clone(), ..Claim::default() };
        // In any order.
        let claimed = async || {
            let mut held = worker.try_claim(&claim).await.unwrap();
            held.sort_by(|one, other| one.operation.cmp(&other.operation));
            held
        };
        let first = claimed().await;
        assert_eq!(first.len(), 2);
        assert_eq!(claimed().await, first, "a lost answer costs nothing");
        worker.report(first[0].item(Say::Success(DEPLOY.response()))).await.wants("STOP");
        assert_eq!(claimed().await, first[1..], "what is over is not given again");
        let new = Claim { claim_id: format!("{}-2", place.project), ..claim.clone() };
        assert_eq!(worker.try_claim(&new).await.unwrap().len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_claim_takes_the_place_of_the_one_that_hangs() {
    everywhere(async |place| {
        let (client, worker) = (place.client(), place.worker());
        worker.claim_now().await;
        let hanging = Claim {
            wait: SECOND * 15,
            claim_id: place.project.clone(),
            queues: vec![place.project.clone()],
            ..Claim::default()
        };
        let (first, claim) = (worker.clone(), hanging.clone());
        let given_up = tokio::spawn(async move { first.try_claim(&claim).await.unwrap() });
        // One of the two is the newer one, whichever the server sees first; the other ends with nothing.
        let repeat = tokio::spawn(async move { worker.try_claim(&hanging).await.unwrap() });
        let (ended, left) = match futures_util::future::select(given_up, repeat).await {
            futures_util::future::Either::Left(both) => both,
            futures_util::future::Either::Right((ended, left)) => (ended, left),
        };
        assert_eq!(ended.unwrap(), [], "the older one ends at once, with nothing");
        left.abort();
        let name = client.start("a").await.name;
        place.worker().claim(&name).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_whose_answer_kill_9_has_lost_is_answered_again_with_the_same_leases() {
    let folder = tempfile::TempDir::new().unwrap();
    let server = Process::dev(folder.path(), &["--no-practice"]).await;
    for wire in [Wire::Http, Wire::Grpc] {
        let client = Client::new(server.address, wire, &DEPLOY, format!("{wire:?}").to_lowercase());
        for id in ["a", "b", "c"] {
            client.start(id).await;
        }
    }
    let claim = Claim { max: 2, claim_id: "claim-1".into(), ..Claim::default() };
    let before = Worker::new(server.address, Wire::Grpc, "w").try_claim(&claim).await.unwrap();
    assert_eq!(before.len(), 2);
    server.kill().await;
    let server = Process::dev(folder.path(), &["--no-practice"]).await;
    let sorted = |mut held: Vec<Held>| {
        held.sort_by(|one, other| one.operation.cmp(&other.operation));
        held
    };
    for wire in [Wire::Http, Wire::Grpc] {
        let worker = Worker::new(server.address, wire, "w");
        let again = worker.try_claim(&claim).await.unwrap();
        assert_eq!(sorted(again), sorted(before.clone()), "epochs are the same, too");
        let stranger = Worker::new(server.address, wire, "another");
        let others = stranger.try_claim(&claim).await.unwrap();
        assert!(others.iter().all(|held| !before.contains(held)), "an id is its worker's own");
    }
    let worker = Worker::new(server.address, Wire::Http, "w");
    for held in &before {
        worker.report(held.item(Say::Success(DEPLOY.response()))).await.wants("STOP");
    }
    server.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_answers_no_more_than_a_client_reads_and_the_rest_waits() {
    everywhere(async |place| {
        let worker = place.worker();
        worker.claim_now().await;
        let mut names = Vec::new();
        for _ in 0..9 {
            names.push(described(&place, 900 << 10).await.name);
        }
        let mut rounds = Vec::new();
        let mut given = Vec::new();
        while given.len() < names.len() {
            // The tests' gRPC client reads no more than 4 MiB.
            let claimed = worker.claim_now().await;
            assert!(!claimed.is_empty(), "{} of {} came", given.len(), names.len());
            rounds.push(claimed.len());
            given.extend(claimed.into_iter().map(|held| held.operation));
        }
        assert_eq!(rounds, [4, 4, 1]);
        assert_eq!(given, names, "nothing is skipped");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_operation_grows_beyond_what_an_answer_can_carry() {
    let change = |config: &mut longhaul_server::Config| config.limits.claim_bytes_max = 64 << 10;
    everywhere_with(change, async |place| {
        let (client, worker) = (place.client(), place.worker());
        let refused = client.http(described_start(&place, 64 << 10)).await.unwrap_err();
        refused.is("INVALID_ARGUMENT", "BODY_TOO_LARGE").says(&["claim_bytes_max"]);
        let name = described(&place, 20 << 10).await.name;
        let held = worker.claim(&name).await;
        let large = Item { checkpoint: Some(vec![7; 50 << 10]), ..held.item(Say::Alive) };
        worker.report(large).await.refused_as("BODY_TOO_LARGE").says(&["claim_bytes_max"]);
        let small = Item { checkpoint: Some(vec![7; 10 << 10]), ..held.item(Say::Release) };
        worker.report(small).await.wants("STOP");
        assert_eq!(worker.claim(&name).await.checkpoint.len(), 10 << 10);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_claim_gets_what_is_started() {
    everywhere(async |place| {
        let (client, worker) = (place.client(), place.worker());
        worker.claim_now().await;
        let waiting = worker.clone();
        let claim = Claim { wait: SECOND * 15, ..Claim::default() };
        let claiming = tokio::spawn(async move { waiting.try_claim(&claim).await.unwrap() });
        let name = client.start("a").await.name;
        let claimed = soon("the claim", claiming).await.unwrap();
        let names: Vec<_> = claimed.iter().map(|held| &*held.operation).collect();
        assert_eq!(names, [name]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_finds_nothing_is_empty_in_time() {
    over_both_wires(async |place| {
        let worker = place.worker();
        worker.claim_now().await;
        let claim = Claim { wait: Duration::from_millis(200), ..Claim::default() };
        let before = std::time::Instant::now();
        assert_eq!(worker.try_claim(&claim).await.unwrap(), []);
        assert!(before.elapsed() >= Duration::from_millis(150), "it hangs that long");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_operation_is_given_to_two_workers() {
    everywhere(async |place| {
        let client = place.client();
        let mut names = Vec::new();
        for number in 0..60 {
            names.push(client.start(&format!("a{number}")).await.name);
        }
        let mut claims = tokio::task::JoinSet::new();
        for number in 0..6 {
            let mut worker = place.worker();
            worker.name = format!("{}-{number}", worker.name);
            claims.spawn(async move {
                let claim = Claim { max: 7, ..Claim::default() };
                let mut all = Vec::new();
                loop {
                    let claimed = worker.try_claim(&claim).await.unwrap();
                    assert!(claimed.len() <= 7);
                    if claimed.is_empty() {
                        return all;
                    }
                    all.extend(claimed.into_iter().map(|held| held.operation));
                }
            });
        }
        let mut given: Vec<_> = claims.join_all().await.concat();
        given.retain(|name| name.contains(&format!("/{}/", place.project)));
        given.sort();
        names.sort();
        assert_eq!(given, names, "each one once");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_takes_only_from_its_queues() {
    over_both_wires(async |place| {
        let (client, worker) = (place.client(), place.worker());
        let name = client.start("a").await.name;
        let of = |queue: &str| Claim { queues: vec![queue.into()], ..Claim::default() };
        let other = worker.try_claim(&of("privateca")).await.unwrap();
        assert!(other.iter().all(|held| held.operation != name));
        let own = worker.try_claim(&of("clouddeploy")).await.unwrap();
        assert!(own.iter().any(|held| held.operation == name));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_claim_is_refused_with_its_field() {
    over_both_wires(async |place| {
        let worker = place.worker();
        let mut nameless = worker.clone();
        nameless.name = String::new();
        let mut long = worker.clone();
        long.name = "n".repeat(257);
        let cases = [
            (&nameless, Claim::default(), "worker"),
            (&long, Claim::default(), "worker"),
            (&worker, Claim { max: 1001, ..Claim::default() }, "max"),
            (&worker, Claim { max: -1, ..Claim::default() }, "max"),
            (&worker, Claim { claim_id: "c".repeat(129), ..Claim::default() }, "claim_id"),
            (&worker, Claim { queues: vec!["q".repeat(513)], ..Claim::default() }, "queues"),
            (&worker, Claim { queues: vec!["q".into(); 1001], ..Claim::default() }, "queues"),
            (&worker, Claim { lease: Some(Duration::ZERO), ..Claim::default() }, "lease"),
            (&worker, Claim { lease: Some(SECOND * 4000), ..Claim::default() }, "lease"),
        ];
        for (worker, claim, field) in cases {
            let failure = worker.try_claim(&claim).await.unwrap_err();
            failure.is("INVALID_ARGUMENT", "INVALID_VALUE").says(&[field]);
        }
    })
    .await;
}
