//! What is due: claims in order and by filter, timers, and what the listener hears of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use longhaul_core::{Applied, Changes, Code, Command, Finish, Refusal, Status};

use super::Open;
use super::world::{
    API, OTHER_API, World, a_claim, a_start, a_success, at, command_of, ids, name, payload,
};
use crate::{ClaimFilter, ClaimHint, Decide, Due};

pub(crate) async fn the_longest_claimable_is_claimed_first(open: &Open) {
    let world = World::new(open);
    for (id, seconds, queue) in
        [("third", 3, "x"), ("first", 1, "y"), ("second", 2, "x"), ("fourth", 4, "z")]
    {
        let mut start = a_start(id);
        start.queue = queue.into();
        world.start_at(start, at(seconds)).await.unwrap();
    }
    let any = ClaimFilter::default();
    assert_eq!(ids(&world.claim(any.clone(), 2, at(9)).await), ["first", "second"]);
    assert_eq!(ids(&world.claim(any.clone(), 5, at(9)).await), ["third", "fourth"]);
    assert!(world.claim(any, 5, at(9)).await.is_empty());
}

pub(crate) async fn a_claim_filter_takes_only_its_own(open: &Open) {
    let world = World::new(open);
    for (id, api, method, queue) in [
        ("a", API, "m.A", "q1"),
        ("b", API, "m.B", "q1"),
        ("c", API, "m.A", "q2"),
        ("d", OTHER_API, "m.A", "q1"),
    ] {
        let mut start = a_start(id);
        (start.api, start.method, start.queue) = (api.into(), method.into(), queue.into());
        world.start_at(start, at(0)).await.unwrap();
    }
    let filter = |api: Option<&str>, methods: &[&str], queues: &[&str]| ClaimFilter {
        api: api.map(Into::into),
        methods: methods.iter().map(|&method| method.into()).collect(),
        queues: queues.iter().map(|&queue| queue.into()).collect(),
    };
    let none = filter(Some(OTHER_API), &["m.B"], &[]);
    assert!(world.claim(none, 9, at(1)).await.is_empty());
    let one = filter(Some(OTHER_API), &[], &[]);
    assert_eq!(ids(&world.claim(one, 9, at(1)).await), ["d"]);
    let two = filter(None, &["m.A", "m.C"], &["q2"]);
    assert_eq!(ids(&world.claim(two, 9, at(1)).await), ["c"]);
    let three = filter(Some(API), &["m.B", "m.A"], &["q1", "q9"]);
    let taken: BTreeSet<String> = world
        .claim(three, 9, at(1))
        .await
        .iter()
        .map(|operation| operation.name.id().to_owned())
        .collect();
    assert_eq!(taken, BTreeSet::from(["a".to_owned(), "b".to_owned()]));
}

fn failed(epoch: u64) -> Command {
    let status = Status { code: Code::Internal, message: "no".into(), details: Vec::new() };
    let finish = Finish::Failed { status, retryable: true, effects: None };
    Command::Finish { epoch, finish, changes: Changes::default(), jitter: 255 }
}

pub(crate) async fn a_claim_waits_for_not_before(open: &Open) {
    let world = World::new(open);
    world.started("a", at(0)).await;
    let epoch = world.run("a", at(1)).await.epoch;
    world.apply("a", failed(epoch), at(10)).await.unwrap();
    // The first wait is a second.
    assert_eq!(world.store.next_claimable(at(10)), Some(at(11)));
    assert_eq!(world.store.next_claimable(at(11)), None);
    assert!(world.claim(ClaimFilter::default(), 1, at(10)).await.is_empty());
    let claimed = world.claim(ClaimFilter::default(), 1, at(11)).await;
    assert_eq!(ids(&claimed), ["a"]);
    assert_eq!(claimed[0].epoch, epoch + 1);
}

pub(crate) async fn timers_are_due_in_order(open: &Open) {
    let world = World::new(open);
    for (id, deadline) in [("b", 20), ("a", 10), ("c", 30), ("d", 90)] {
        let mut start = a_start(id);
        start.deadline = Some(at(deadline));
        world.start_at(start, at(0)).await.unwrap();
    }
    assert_eq!(world.store.next_due(), Some(at(10)));
    assert!(world.sweep(9, at(9)).await.is_empty());
    let names = |applied: Vec<Applied>| -> Vec<String> {
        applied.iter().map(|applied| applied.operation.name.id().to_owned()).collect()
    };
    assert_eq!(names(world.sweep(2, at(40)).await), ["a", "b"]);
    assert_eq!(names(world.sweep(9, at(40)).await), ["c"]);
    assert_eq!(world.store.next_due(), Some(at(90)));
}

pub(crate) async fn refused_ones_are_skipped(open: &Open) {
    let world = World::new(open);
    for index in 0..6 {
        world.started(&format!("o{index}"), at(index)).await;
    }
    let odd: Decide = Arc::new(|operation| {
        let operation = operation.ok_or(Refusal::NotFound)?;
        if operation.name.id().ends_with(['0', '2', '4']) {
            return Err(Refusal::NotClaimable);
        }
        command_of(a_claim(), at(9))(Some(operation))
    });
    let due = Due::Claim { filter: ClaimFilter::default(), now: at(9), bytes_max: usize::MAX };
    let applied = world.store.update_due(due, 2, odd).await.unwrap();
    let taken: Vec<_> = applied.iter().map(|applied| applied.operation.name.clone()).collect();
    assert_eq!(taken, [name("o1"), name("o3")]);
    assert_eq!(world.claim(ClaimFilter::default(), 9, at(9)).await.len(), 4);
}

pub(crate) async fn a_long_sweep_reaches_all_once(open: &Open) {
    let world = World::new(open);
    let starts = (0..2_500).map(|index| {
        let mut start = a_start(&format!("o{index}"));
        start.deadline = Some(at(10 + index % 7));
        start
    });
    world.start_all(starts, at(0)).await;
    // Each gets a later moment that has come, too: it is not swept a second time.
    let later: Decide = Arc::new(|operation| {
        let mut operation = operation.ok_or(Refusal::NotFound)?.clone();
        if operation.name.id().ends_with('9') {
            return Err(Refusal::NotDue);
        }
        operation.deadline = Some(at(50));
        operation.revision += 1;
        Ok(Applied { operation, events: Vec::new(), forget: false })
    });
    let swept =
        world.store.update_due(Due::Timer { now: at(99) }, usize::MAX, later).await.unwrap();
    assert_eq!(swept.len(), 2_250);
    assert!(swept.iter().all(|applied| applied.operation.revision == 2));
    assert_eq!(world.store.next_due(), Some(at(10)));
    assert_eq!(world.claim(ClaimFilter::default(), 1_100, at(1)).await.len(), 1_100);
    assert_eq!(world.claim(ClaimFilter::default(), 5_000, at(1)).await.len(), 1_400);
}

pub(crate) async fn parallel_claims_never_share(open: &Open) {
    let world = World::new(open);
    for index in 0..60 {
        world.started(&format!("o{index}"), at(0)).await;
    }
    let claims: Vec<_> = (0..20)
        .map(|_| {
            let world = world.clone();
            tokio::spawn(async move { world.claim(ClaimFilter::default(), 4, at(1)).await })
        })
        .collect();
    let mut taken = Vec::new();
    for claim in claims {
        taken.extend(claim.await.unwrap());
    }
    assert_eq!(taken.len(), 60);
    assert!(taken.iter().all(|operation| operation.epoch == 1));
    let apart: BTreeSet<_> = taken.iter().map(|operation| operation.name.clone()).collect();
    assert_eq!(apart.len(), 60);
}

pub(crate) async fn hints_tell_what_became_claimable(open: &Open) {
    let world = World::new(open);
    let operation = world.started("a", at(0)).await;
    let epoch = world.run("a", at(1)).await.epoch;
    let hint = |from| ClaimHint {
        api: operation.api.clone(),
        method: operation.method.clone(),
        queue: operation.queue.clone(),
        from,
    };
    assert_eq!(*world.notes.hints.lock(), [hint(at(0))]);
    let release = Command::Release { epoch, changes: Changes::default() };
    world.apply("a", release, at(2)).await.unwrap();
    assert_eq!(*world.notes.hints.lock(), [hint(at(0)), hint(at(2))]);
    let epoch = world.run("a", at(3)).await.epoch;
    world.apply("a", failed(epoch), at(4)).await.unwrap();
    let last = world.notes.hints.lock().last().cloned().unwrap();
    assert!(last.from > at(4) && last.from <= at(4) + Duration::from_secs(2));
}

pub(crate) async fn a_claim_takes_no_more_bytes_than_it_may(open: &Open) {
    let world = World::new(open);
    for (index, id) in ["a", "b", "c", "d"].into_iter().enumerate() {
        let mut start = a_start(id);
        start.request = payload("google.cloud.deploy.v1.CreateReleaseRequest", 10_000);
        world.start_at(start, at(index as u64)).await.unwrap();
    }
    let one = world.read("a").await.unwrap().bytes_told();
    let take = async |bytes_max| {
        let due = Due::Claim { filter: ClaimFilter::default(), now: at(9), bytes_max };
        let decide: Decide = Arc::new(command_of(a_claim(), at(9)));
        let applied = world.store.update_due(due, 10, decide).await.unwrap();
        applied.into_iter().map(|it| it.operation.name.id().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(take(1).await, ["a"], "the first one always");
    assert_eq!(take(2 * one + 200).await, ["b", "c"]);
    assert_eq!(take(usize::MAX).await, ["d"]);
}

pub(crate) async fn a_claim_id_leads_to_the_leases_it_was_given(open: &Open) {
    let world = World::new(open);
    for id in ["a", "b", "c"] {
        world.started(id, at(0)).await;
    }
    let claim = |worker: &str, claim_id: &str| Command::Claim {
        worker: worker.into(),
        claim_id: claim_id.into(),
        holder: "".into(),
        lease: Duration::from_secs(30),
    };
    let held = async |worker: &str, claim_id: &str| {
        let held = world.store.claimed(worker, claim_id).await.unwrap();
        let mut held: Vec<_> = held.iter().map(|it| it.name.id().to_owned()).collect();
        held.sort();
        held
    };
    let epoch = world.apply("a", claim("w", "1"), at(1)).await.unwrap().operation.epoch;
    world.apply("b", claim("w", "1"), at(1)).await.unwrap();
    world.apply("c", claim("v", "1"), at(1)).await.unwrap();
    assert_eq!(held("w", "1").await, ["a", "b"]);
    assert_eq!(held("v", "1").await, ["c"]);
    assert!(held("w", "2").await.is_empty() && held("x", "1").await.is_empty());
    let renew =
        Command::Renew { epoch, lease: Duration::from_secs(9), changes: Changes::default() };
    world.apply("a", renew, at(2)).await.unwrap();
    world.apply("b", a_success(1), at(2)).await.unwrap();
    assert_eq!(held("w", "1").await, ["a"]);
    let release = Command::Release { epoch, changes: Changes::default() };
    world.apply("a", release, at(3)).await.unwrap();
    assert!(held("w", "1").await.is_empty());
    world.apply("a", claim("w", "2"), at(4)).await.unwrap();
    assert_eq!((held("w", "1").await, held("w", "2").await), (vec![], vec!["a".to_owned()]));
}
