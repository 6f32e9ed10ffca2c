//! One operation at a time: writing, reading, keys, history, forgetting.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use longhaul_core::{
    Applied, Cancel, Cause, Changes, Code, Command, Effects, Event, EventKind, Lease, Operation,
    Outcome, Parallel, Payload, Policy, Progress, Reason, Refusal, Retry, State, Status, Timestamp,
};

use super::Open;
use super::world::{
    API, OTHER_API, World, a_query, a_start, a_success, at, counting, is_done, name, payload,
    refused, request_id,
};
use crate::{Deaf, Failure, Key};

pub(crate) async fn a_started_operation_can_be_read(open: &Open) {
    let world = World::new(open);
    let started = world.started("a", at(0)).await;
    assert_eq!(started.revision, 1);
    assert_eq!(world.read("a").await, Some(started.clone()));
    assert_eq!(world.read("b").await, None);
    let heard = world.notes.changes.lock().clone();
    assert_eq!(heard.len(), 1);
    assert_eq!(heard[0].operation, started);
    assert_eq!(heard[0].events, [Event { at: at(0), kind: EventKind::Started }]);
}

pub(crate) async fn an_absent_operation_is_decided_as_none(open: &Open) {
    let world = World::new(open);
    assert_eq!(refused(world.cancel("a", at(0)).await), Refusal::NotFound);
    assert!(world.notes.changes.lock().is_empty());
}

pub(crate) async fn an_unchanged_decision_writes_nothing_and_is_still_told(open: &Open) {
    let world = World::new(open);
    world.started("a", at(0)).await;
    let first = world.cancel("a", at(1)).await.unwrap();
    let second = world.cancel("a", at(2)).await.unwrap();
    assert_eq!(second.operation, first.operation);
    assert_eq!(second.events.len(), 1, "a repeated cancel is audited");
    assert_eq!(world.read("a").await, Some(first.operation));
    let heard: Vec<u64> =
        world.notes.changes.lock().iter().map(|change| change.operation.revision).collect();
    assert_eq!(heard, [1, 2, 2]);
    let history = world.store.history(&name("a"), 0, 10).await.unwrap();
    assert_eq!(history.iter().map(|recorded| recorded.revision).collect::<Vec<_>>(), [1, 2]);
}

pub(crate) async fn a_refusal_changes_nothing(open: &Open) {
    let world = World::new(open);
    let running = {
        world.started("a", at(0)).await;
        world.run("a", at(1)).await
    };
    let late = world.apply("a", a_success(running.epoch + 1), at(2)).await;
    assert_eq!(refused(late), Refusal::LeaseLost);
    assert_eq!(world.read("a").await, Some(running));
    assert_eq!(world.notes.changes.lock().len(), 2);
}

/// An operation with every field set to something else than its default.
fn full(mut applied: Applied, state: State) -> Applied {
    let operation = &mut applied.operation;
    operation.state = state;
    operation.epoch = 3;
    operation.attempt = 2;
    operation.cancel = Some(Cancel {
        cause: Cause::Superseded,
        at: at(5),
        actor: "a".into(),
        reason: "r".into(),
        deadline: at(65),
        client_asked: true,
        delivered_at: Some(at(6)),
        acknowledged_at: Some(at(7)),
    });
    operation.gate_passed = Some(at(4));
    operation.effects = Effects::Partial;
    let message = "half".into();
    operation.progress = Some(Progress { percent: Some(50.5), step: 1, steps: 2, message });
    operation.checkpoint = Some(vec![0, 255, 1].into());
    operation.external_ref = Some("ref".into());
    operation.start_time = Some(at(1));
    operation.update_time = at(8);
    operation.revision += 1;
    operation.deleted = Some(at(9));
    applied
}

fn every_state() -> Vec<State> {
    let lease =
        Lease { worker: "w".into(), claim_id: "c".into(), claimed_at: at(1), expires_at: at(31) };
    let details = vec![payload("google.rpc.ErrorInfo", 10), payload("google.rpc.Help", 0)];
    let status = Status { code: Code::DataLoss, message: "oh".into(), details };
    vec![
        State::Queued { not_before: at(3), lost: Some(lease.clone()) },
        State::Running { lease: lease.clone() },
        State::Cancelling { lease: lease.clone() },
        State::CleaningUp {
            not_before: at(3),
            lease: Some(lease.clone()),
            lost: Some(lease),
            attempts: 4,
            budget_end: at(99),
        },
        State::Done { outcome: Outcome::Response(payload("t.Response", 3)), at: at(8) },
        State::Done { outcome: Outcome::Error(status), at: at(8) },
    ]
}

pub(crate) async fn every_field_survives(open: &Open) {
    let world = World::new(open);
    world.started("parent", at(0)).await;
    for (index, state) in every_state().into_iter().enumerate() {
        let id = format!("o{index}");
        let mut start = a_start(&id);
        start.deadline = Some(at(1_000));
        start.start_by = Some(at(500));
        start.parent_operation = Some(name("parent"));
        start.traceparent = "00-1-2-03".into();
        let parallel = [Parallel::Allow, Parallel::Refuse, Parallel::Supersede][index % 3];
        if parallel != Parallel::Allow {
            // So that none is in another's way.
            start.target = "".into();
        }
        start.request_id = Some(request_id(&id, at(3600)));
        start.policy = Policy {
            cancellable: index % 2 == 0,
            strict_cancel_when_done: index % 2 == 1,
            strict_delete_when_running: true,
            discard_success_after_cancel: true,
            cancel_timeout: Duration::from_millis(1_500),
            cleanup_budget: Some(Duration::from_secs(77)),
            retention: Duration::from_secs(86_400),
            parallel,
            retry: Retry {
                attempts_max: 9,
                backoff_first: Duration::from_millis(10),
                backoff_max: Duration::MAX,
            },
        };
        world.start_at(start, at(0)).await.unwrap();
        let written = world
            .decide(Key::Name(name(&id)), move |operation| {
                let operation = operation.ok_or(Refusal::NotFound)?.clone();
                let applied = Applied { operation, events: Vec::new(), forget: false };
                Ok(full(applied, state.clone()))
            })
            .await
            .unwrap();
        assert_eq!(world.read(&id).await, Some(written.operation));
    }
}

pub(crate) async fn a_name_is_given_once(open: &Open) {
    let world = World::new(open);
    let first = world.started("a", at(0)).await;
    assert_eq!(refused(world.start_at(a_start("a"), at(1)).await), Refusal::NameTaken);
    let mut keyed = a_start("a");
    keyed.request_id = Some(request_id("key", at(60)));
    assert_eq!(refused(world.start_at(keyed, at(1)).await), Refusal::NameTaken);
    assert_eq!(world.read("a").await, Some(first));
}

pub(crate) async fn a_request_id_leads_to_the_first_operation(open: &Open) {
    let world = World::new(open);
    let keyed = |id: &str| {
        let mut start = a_start(id);
        start.request_id = Some(request_id("key", at(3600)));
        start
    };
    let first = world.start_at(keyed("a"), at(0)).await.unwrap();
    let repeat = world.start_at(keyed("b"), at(1)).await.unwrap();
    assert_eq!(repeat.operation, first.operation);
    assert!(repeat.events.is_empty());
    assert_eq!(world.read("b").await, None);
    let mut other = keyed("c");
    other.request = payload("google.cloud.deploy.v1.CreateReleaseRequest", 3);
    assert_eq!(refused(world.start_at(other, at(2)).await), Refusal::RequestIdReused);
    // Changes of the operation do not loosen its key.
    world.finish("a", at(3)).await;
    let late = world.start_at(keyed("d"), at(4)).await.unwrap();
    assert_eq!(late.operation.name, name("a"));
    assert!(is_done(&late.operation));
}

pub(crate) async fn a_request_id_belongs_to_its_api_and_parent(open: &Open) {
    let world = World::new(open);
    let mut apart = Vec::new();
    for (id, api, parent) in [
        ("a", API, "projects/p/locations/l"),
        ("b", OTHER_API, "projects/p/locations/l"),
        ("c", API, "projects/p/locations/m"),
    ] {
        let mut start = a_start(id);
        (start.api, start.parent) = (api.into(), parent.into());
        start.request_id = Some(request_id("key", at(3600)));
        apart.push(world.start_at(start, at(0)).await.unwrap().operation.name);
    }
    assert_eq!(apart, [name("a"), name("b"), name("c")]);
}

pub(crate) async fn a_request_id_moves_on_when_its_window_is_over(open: &Open) {
    let world = World::new(open);
    let keyed = |id: &str, until| {
        let mut start = a_start(id);
        start.request_id = Some(request_id("key", at(until)));
        start
    };
    world.start_at(keyed("a", 10), at(0)).await.unwrap();
    // A free name first; one that is taken is refused though the key is free again.
    world.started("taken", at(0)).await;
    let taken = world.start_at(keyed("taken", 20), at(10)).await;
    assert_eq!(refused(taken), Refusal::NameTaken);
    world.start_at(keyed("b", 20), at(10)).await.unwrap();
    assert!(world.read("a").await.is_some());
    let repeat = world.start_at(keyed("c", 30), at(11)).await.unwrap();
    assert_eq!(repeat.operation.name, name("b"));
    // The older operation goes, and the key stays with the newer one.
    world.finish("a", at(12)).await;
    forget(&world, "a").await;
    let repeat = world.start_at(keyed("d", 30), at(13)).await.unwrap();
    assert_eq!(repeat.operation.name, name("b"));
}

/// The mark of a cancel that came before its start, under the key `key`.
pub(crate) async fn a_tombstone(world: &World, id: &str, now: Timestamp) {
    let mut unborn = a_start(id);
    unborn.method = "".into();
    unborn.request = Payload { type_name: "".into(), value: [].into() };
    unborn.request_id = Some(request_id("key", at(3600)));
    let key = Key::of_start(&unborn);
    let decide = move |existing: Option<&Operation>| {
        longhaul_core::cancel_by_request_id(existing, unborn.clone(), "late".into(), now)
    };
    world.decide(key, decide).await.unwrap();
}

pub(crate) async fn a_tombstone_becomes_the_operation_that_meets_it(open: &Open) {
    let world = World::new(open);
    a_tombstone(&world, "early", at(1)).await;
    let mut late = a_start("late");
    late.request_id = Some(request_id("key", at(3600)));
    let born = world.start_at(late.clone(), at(2)).await.unwrap().operation;
    assert_eq!((&born.name, &born.method), (&name("early"), &late.method));
    assert_eq!(world.read("early").await.as_ref(), Some(&born));
    assert_eq!(world.read("late").await, None);
    assert_eq!(world.list(a_query(10)).await, ["early"]);
    let again = world.start_at(late, at(3)).await.unwrap();
    assert_eq!(again.operation, born);
    let history = world.store.history(&born.name, 0, 10).await.unwrap();
    let revisions: Vec<_> = history.iter().map(|recorded| recorded.revision).collect();
    assert_eq!(revisions, [1, 2], "what befell the tombstone befell the operation");
    let counts = world.store.counts();
    assert_eq!(counts.len(), 1, "{counts:?}");
    assert_eq!((&counts[0].method, counts[0].operations), (&born.method, 1));
    forget(&world, "early").await;
    assert!(world.store.counts().is_empty() && world.store.next_due().is_none());
}

async fn forget(world: &World, id: &str) {
    world
        .decide(Key::Name(name(id)), |operation| {
            let operation = operation.ok_or(Refusal::NotFound)?.clone();
            Ok(Applied { operation, events: Vec::new(), forget: true })
        })
        .await
        .unwrap();
}

pub(crate) async fn a_forgotten_operation_leaves_nothing_behind(open: &Open) {
    let world = World::new(open);
    let mut start = a_start("a");
    start.request_id = Some(request_id("key", at(5)));
    start.policy.retention = Duration::from_secs(10);
    world.start_at(start.clone(), at(0)).await.unwrap();
    world.cancel("a", at(1)).await.unwrap();
    let swept = world.sweep(10, at(11)).await;
    assert_eq!(swept.len(), 1);
    assert!(swept[0].forget);
    assert_eq!(world.read("a").await, None);
    assert!(world.list(a_query(10)).await.is_empty());
    assert!(world.store.history(&name("a"), 0, 10).await.unwrap().is_empty());
    assert!(world.store.counts().is_empty());
    assert_eq!(world.store.next_due(), None);
    assert!(world.notes.changes.lock().last().unwrap().forget);
    start.name = name("b");
    let again = world.start_at(start, at(2)).await.unwrap();
    assert_eq!(again.operation.name, name("b"), "its key went with it");
}

pub(crate) async fn a_forgotten_name_can_be_used_again(open: &Open) {
    let world = World::new(open);
    for round in 0..3 {
        world.started("a", at(round)).await;
        world.started(&format!("other{round}"), at(round)).await;
        forget(&world, "a").await;
        assert_eq!(world.read("a").await, None);
    }
    let last = world.started("a", at(9)).await;
    assert_eq!(world.read("a").await, Some(last));
    assert_eq!(world.list(a_query(10)).await, ["a", "other2", "other1", "other0"]);
}

pub(crate) async fn history_is_kept_in_order_and_paged(open: &Open) {
    let world = World::new(open);
    world.started("a", at(0)).await;
    let epoch = world.run("a", at(1)).await.epoch;
    world.cancel("a", at(2)).await.unwrap();
    world.apply("a", a_success(epoch), at(3)).await.unwrap();
    let all = world.store.history(&name("a"), 0, 100).await.unwrap();
    let told: Vec<_> = world
        .notes
        .changes
        .lock()
        .iter()
        .map(|change| (change.operation.revision, change.events.clone()))
        .collect();
    let kept: Vec<_> =
        all.iter().map(|recorded| (recorded.revision, recorded.events.clone())).collect();
    assert_eq!(kept, told);
    assert_eq!(kept.len(), 4);
    let middle = world.store.history(&name("a"), 1, 2).await.unwrap();
    assert_eq!(middle, all[1..3]);
    assert!(world.store.history(&name("a"), 4, 2).await.unwrap().is_empty());
    assert!(world.store.history(&name("b"), 0, 2).await.unwrap().is_empty());
}

pub(crate) async fn history_is_bounded_but_keeps_the_end(open: &Open) {
    let world = World::new(open);
    world.started("a", at(0)).await;
    let epoch = world.run("a", at(0)).await.epoch;
    for step in 0..300 {
        let progress = Some(Progress { step, ..Progress::default() });
        let changes = Changes { progress, ..Changes::default() };
        let command = Command::Renew { epoch, lease: Duration::from_secs(30), changes };
        world.apply("a", command, at(1)).await.unwrap();
    }
    world.apply("a", a_success(epoch), at(2)).await.unwrap();
    let history = world.store.history(&name("a"), 0, 1_000).await.unwrap();
    assert_eq!(history.len(), crate::history::HISTORY_PROGRESS_ROWS_MAX + 1);
    let last = history.last().unwrap();
    assert!(last.events.iter().any(|event| matches!(event.kind, EventKind::Finished { .. })));
}

pub(crate) async fn a_large_payload_survives(open: &Open) {
    let world = World::new(open);
    let mut start = a_start("a");
    start.request = payload("google.cloud.deploy.v1.CreateReleaseRequest", 20 << 20);
    let request: Payload = start.request.clone();
    world.start_at(start, at(0)).await.unwrap();
    let epoch = world.run("a", at(1)).await.epoch;
    let renew =
        Command::Renew { epoch, lease: Duration::from_secs(1), changes: Changes::default() };
    world.apply("a", renew, at(2)).await.unwrap();
    let read = world.read("a").await.unwrap();
    assert_eq!(read.request, request);
    assert_eq!(read.revision, 3);
}

pub(crate) async fn a_panicking_decision_harms_nobody_else(open: &Open) {
    let world = World::new(open);
    world.started("a", at(0)).await;
    let failure = world.decide(Key::Name(name("a")), |_| panic!("a bug")).await;
    match failure {
        Err(Failure::Store(error)) => assert_eq!(error.reason, Reason::Internal),
        other => panic!("{other:?}"),
    }
    world.cancel("a", at(1)).await.unwrap();
}

pub(crate) async fn counts_follow_every_change(open: &Open) {
    let world = World::new(open);
    for id in ["a", "b", "c", "d"] {
        world.started(id, at(0)).await;
    }
    world.run("a", at(1)).await;
    world.finish("b", at(1)).await;
    let delete = Command::Delete { actor: "".into() };
    world.apply("c", delete, at(1)).await.unwrap();
    let counted: BTreeMap<_, _> = world
        .store
        .counts()
        .into_iter()
        .map(|count| {
            assert_eq!(&*count.api, API);
            (count.state, count.operations)
        })
        .collect();
    assert_eq!(counted, BTreeMap::from([("DONE", 1), ("QUEUED", 2), ("RUNNING", 1)]));
}

pub(crate) async fn many_are_read_as_one_by_one(open: &Open) {
    let world = World::new(open);
    world.start_all((0..1_100).map(|index| a_start(&format!("o{index}"))), at(0)).await;
    world.finish("o7", at(1)).await;
    world.apply("o8", Command::Delete { actor: "".into() }, at(1)).await.unwrap();
    let mut ids: Vec<String> = (0..1_100).rev().map(|index| format!("o{index}")).collect();
    ids.extend(["absent", "o7", "o7"].map(str::to_owned));
    let names: Vec<_> = ids.iter().map(|id| name(id)).collect();
    let many = world.store.get_many(&names).await.unwrap();
    assert_eq!(many.len(), names.len());
    for (id, one) in ids.iter().zip(many) {
        assert_eq!(one.as_deref(), world.read(id).await.as_ref(), "{id}");
    }
    assert_eq!(world.store.get_many(&[]).await.unwrap(), []);
    let one = world.store.get_many(&[name("o9")]).await.unwrap();
    assert_eq!(one[0].as_deref(), world.read("o9").await.as_ref());
}

pub(crate) async fn the_token_key_stays(open: &Open) {
    let store = open(Arc::new(Deaf));
    assert_eq!(store.token_key(), store.token_key());
    assert_ne!(store.token_key(), [0; 32]);
}

pub(crate) async fn a_closed_store_refuses_writes(open: &Open) {
    let world = World::new(open);
    world.started("a", at(0)).await;
    world.store.ready().await.unwrap();
    world.store.close().await;
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let failure = world
        .decide(Key::Name(name("a")), move |operation| {
            counted.fetch_add(1, Ordering::Relaxed);
            counting(at(1))(operation)
        })
        .await;
    match failure {
        Err(Failure::Store(error)) => assert_eq!(error.reason, Reason::ShuttingDown),
        other => panic!("{other:?}"),
    }
    assert_eq!(calls.load(Ordering::Relaxed), 0);
    assert_eq!(world.store.ready().await.unwrap_err().reason, Reason::ShuttingDown);
    assert!(world.read("a").await.is_some());
    world.store.close().await;
}
