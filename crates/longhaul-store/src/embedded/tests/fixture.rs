//! Data folders of every released format, opened by this version.
//!
//! A fixture is written once, by running these tests with `LONGHAUL_STORE_WRITE_FIXTURE` set, and never again
//! once its format has been released.

use std::fs;
use std::path::{Path, PathBuf};

use longhaul_core::{Code, Command, EventKind, Outcome, State};

use super::open_folder;
use crate::conformance::world::{
    World, a_query, a_start, a_success, at, name, payload, request_id,
};

fn fixture(format: u32) -> PathBuf {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_folder.join(format!("fixtures/format-{format}.db"))
}

async fn write_format_1(world: &World) {
    let mut keyed = a_start("queued");
    keyed.request_id = Some(request_id("a-key", at(3_600)));
    world.start_at(keyed, at(0)).await.unwrap();
    let mut cleaning = a_start("cleaning");
    cleaning.policy.cleanup_budget = Some(std::time::Duration::from_secs(300));
    world.start_at(cleaning, at(1)).await.unwrap();
    for id in ["running", "cancelling", "succeeded", "cancelled"] {
        world.started(id, at(1)).await;
    }
    for id in ["running", "cancelling", "succeeded", "cleaning"] {
        world.run(id, at(2)).await;
    }
    for id in ["cancelling", "cancelled", "cleaning"] {
        world.cancel(id, at(3)).await.unwrap();
    }
    world.apply("succeeded", a_success(1), at(4)).await.unwrap();
    world.sweep(10, at(33)).await;
    world.apply("running", Command::Delete { actor: "x".into() }, at(34)).await.unwrap();
}

#[tokio::test]
async fn format_1_opens() {
    if std::env::var_os("LONGHAUL_STORE_WRITE_FIXTURE").is_some() {
        let folder = tempfile::tempdir().unwrap();
        let world = open_folder(folder.path());
        write_format_1(&world).await;
        drop(world);
        fs::create_dir_all(fixture(1).parent().unwrap()).unwrap();
        fs::copy(folder.path().join("operations.db"), fixture(1)).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    fs::copy(fixture(1), folder.path().join("operations.db")).unwrap();
    let world = open_folder(folder.path());

    let list = world.list(a_query(100)).await;
    assert_eq!(list.len(), 5);
    assert_eq!(list.last().unwrap(), "queued");
    let read = async |id: &str| world.read(id).await.unwrap();
    let queued = read("queued").await;
    assert_eq!(queued.state, State::Queued { not_before: at(0), lost: None });
    assert_eq!(queued.request, payload("google.cloud.deploy.v1.CreateReleaseRequest", 200));
    assert_eq!(queued.request_id, Some(request_id("a-key", at(3_600))));
    assert_eq!(queued.actor.as_ref(), "someone@example.com");
    let running = read("running").await;
    assert_eq!((running.deleted, running.epoch), (Some(at(34)), 1));
    let succeeded = read("succeeded").await;
    let response = payload("google.cloud.deploy.v1.Release", 100);
    assert_eq!(succeeded.outcome(), Some(&Outcome::Response(response)));
    let cancelled = read("cancelled").await;
    assert!(cancelled.cancel_requested());
    assert!(matches!(cancelled.outcome(), Some(Outcome::Error(s)) if s.code == Code::Cancelled));
    let cleaning = read("cleaning").await;
    assert!(matches!(cleaning.state, State::CleaningUp { .. }), "{:?}", cleaning.state);
    let history = world.store.history(&name("cleaning"), 0, 100).await.unwrap();
    let kinds: Vec<_> = history.iter().flat_map(|r| &r.events).map(|e| e.kind.name()).collect();
    assert_eq!(kinds.first(), Some(&EventKind::Started.name()));
    assert!(kinds.contains(&EventKind::CleanupStarted.name()), "{kinds:?}");
    // It can be written, too.
    world.cancel("queued", at(40)).await.unwrap();
}
