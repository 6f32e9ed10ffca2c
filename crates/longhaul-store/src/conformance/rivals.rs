//! Parallel starts on one resource: decided with the start, in one transaction.

use longhaul_core::{Cause, Code, Outcome, Parallel, Refusal, Start, State};

use super::Open;
use super::world::{OTHER_API, World, a_start, at, is_done, refused, request_id};
use crate::Failure;

fn alone(id: &str, parallel: Parallel) -> Start {
    let mut start = a_start(id);
    start.policy.parallel = parallel;
    start
}

pub(crate) async fn a_start_is_refused_while_another_is_under_way_on_its_resource(open: &Open) {
    let world = World::new(open);
    let refuse = |id| alone(id, Parallel::Refuse);
    let mut keyed = refuse("a");
    keyed.request_id = Some(request_id("key", at(1_000)));
    let first = world.start_at(keyed.clone(), at(0)).await.unwrap().operation;
    assert_eq!(refused(world.start_at(refuse("b"), at(1)).await), Refusal::TargetBusy);
    assert_eq!(world.read("b").await, None);
    let again = Start { name: super::world::name("c"), ..keyed };
    assert_eq!(world.start_at(again, at(1)).await.unwrap().operation, first, "a repeat is none");
    let mut elsewhere = refuse("elsewhere");
    elsewhere.target = "projects/p/locations/l/targets/other".into();
    world.start_at(elsewhere, at(1)).await.unwrap();
    let mut stranger = refuse("stranger");
    stranger.api = OTHER_API.into();
    world.start_at(stranger, at(1)).await.unwrap();
    let mut nowhere = refuse("nowhere");
    nowhere.target = "".into();
    world.start_at(nowhere.clone(), at(1)).await.unwrap();
    nowhere.name = super::world::name("nowhere-else");
    world.start_at(nowhere, at(1)).await.unwrap();
    world.started("beside", at(1)).await;

    world.run("a", at(2)).await;
    assert_eq!(refused(world.start_at(refuse("b"), at(3)).await), Refusal::TargetBusy);
    world.cancel("a", at(3)).await.unwrap();
    assert_eq!(refused(world.start_at(refuse("b"), at(4)).await), Refusal::TargetBusy);
    world.apply("a", super::world::a_success(1), at(5)).await.unwrap();
    world.start_at(refuse("b"), at(6)).await.unwrap();
}

pub(crate) async fn a_newer_start_supersedes_what_is_under_way_on_its_resource(open: &Open) {
    let world = World::new(open);
    let newer = |id| alone(id, Parallel::Supersede);
    world.start_at(newer("queued"), at(0)).await.unwrap();
    world.start_at(newer("running"), at(1)).await.unwrap();
    let queued = world.read("queued").await.unwrap();
    assert!(is_done(&queued));
    let code = |outcome: Option<&Outcome>| match outcome {
        Some(Outcome::Error(status)) => Some(status.code),
        Some(Outcome::Response(_)) | None => None,
    };
    assert_eq!(code(queued.outcome()), Some(Code::Aborted));
    world.run("running", at(2)).await;

    world.notes.changes.lock().clear();
    let third = world.start_at(newer("third"), at(3)).await.unwrap().operation;
    assert!(matches!(third.state, State::Queued { .. }), "it waits for nobody");
    let running = world.read("running").await.unwrap();
    assert!(matches!(running.state, State::Cancelling { .. }));
    let cancel = running.cancel.clone().unwrap();
    assert_eq!((cancel.cause, cancel.at, cancel.client_asked), (Cause::Superseded, at(3), false));
    assert!(cancel.reason.contains(third.name.as_str()), "{}", cancel.reason);
    let told: Vec<_> = world.notes.changes.lock().iter().map(|it| it.operation.clone()).collect();
    assert_eq!(told, [running.clone(), third], "the listener hears of both");
    let history = world.store.history(&running.name, 0, 100).await.unwrap();
    assert_eq!(history.last().unwrap().revision, running.revision);

    // One that is stopping already is left to it.
    world.start_at(newer("fourth"), at(4)).await.unwrap();
    assert_eq!(world.read("running").await.unwrap(), running);
    assert!(is_done(&world.read("third").await.unwrap()));

    let mut other = newer("other");
    other.method = "google.cloud.deploy.v1.CloudDeploy.DeleteTarget".into();
    assert_eq!(refused(world.start_at(other, at(5)).await), Refusal::TargetBusy);
    assert!(!is_done(&world.read("fourth").await.unwrap()), "a refusal changes nothing");
}

pub(crate) async fn parallel_starts_on_one_resource_leave_one(open: &Open) {
    let world = World::new(open);
    for (round, parallel) in [Parallel::Refuse, Parallel::Supersede].into_iter().enumerate() {
        let starts: Vec<_> = (0..24)
            .map(|number| {
                let mut start = alone(&format!("r{round}n{number}"), parallel);
                start.target = format!("targets/{round}").as_str().into();
                let world = world.clone();
                tokio::spawn(async move { world.start_at(start, at(1)).await })
            })
            .collect();
        let mut started = Vec::new();
        for start in starts {
            match start.await.unwrap() {
                Ok(applied) => started.push(applied.operation.name),
                Err(Failure::Refused(Refusal::TargetBusy)) => {}
                Err(other) => panic!("{other}"),
            }
        }
        let mut live = 0;
        for name in &started {
            live += usize::from(!is_done(&world.store.get(name).await.unwrap().unwrap()));
        }
        assert_eq!(live, 1, "of {} that started", started.len());
        assert_eq!(started.len(), if parallel == Parallel::Refuse { 1 } else { 24 });
    }
}
