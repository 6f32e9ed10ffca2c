//! A closed store opened again: everything is there, and scheduling goes on.

use std::os::unix::fs::PermissionsExt;

use longhaul_core::{Command, Parallel, Reason, Refusal};

use super::{Options, open, open_folder, refusal_to_open};
use crate::conformance::basics::a_tombstone;
use crate::conformance::world::{World, a_query, a_start, at, ids, name, refused, request_id};
use crate::embedded::Durability;
use crate::{ClaimFilter, Store};

/// One operation in each state, one deleted, one forgotten, one with a key.
async fn fill(world: &World) {
    for id in ["queued", "running", "cancelling", "done", "deleted", "forgotten"] {
        world.started(id, at(0)).await;
    }
    for id in ["running", "cancelling"] {
        world.run(id, at(1)).await;
    }
    world.cancel("cancelling", at(2)).await.unwrap();
    world.finish("done", at(3)).await;
    let delete = Command::Delete { actor: "me".into() };
    world.apply("deleted", delete.clone(), at(4)).await.unwrap();
    world.finish("forgotten", at(4)).await;
    assert!(world.apply("forgotten", delete, at(5)).await.unwrap().forget);
    let mut keyed = a_start("keyed");
    keyed.request_id = Some(request_id("key", at(1_000)));
    world.start_at(keyed, at(6)).await.unwrap();
}

const IDS: [&str; 6] = ["queued", "running", "cancelling", "done", "deleted", "keyed"];

#[tokio::test]
async fn a_reopened_store_keeps_everything() {
    let folder = tempfile::tempdir().unwrap();
    let world = open_folder(folder.path());
    fill(&world).await;
    let mut before = Vec::new();
    for id in IDS {
        let history = world.store.history(&name(id), 0, 100).await.unwrap();
        before.push((world.read(id).await.unwrap(), history));
    }
    let list = world.list(a_query(100)).await;
    let key = world.store.token_key();
    let (counts, due) = (world.store.counts(), world.store.next_due());
    drop(world);

    let world = open_folder(folder.path());
    assert_eq!(world.list(a_query(100)).await, list);
    assert_eq!(world.store.token_key(), key);
    assert_eq!((world.store.counts(), world.store.next_due()), (counts, due));
    for (operation, history) in before {
        assert_eq!(world.store.history(&operation.name, 0, 100).await.unwrap(), history);
        assert_eq!(world.read(operation.name.id()).await, Some(operation));
    }
    assert_eq!(world.read("forgotten").await, None);
    let mut repeat = a_start("another");
    repeat.request_id = Some(request_id("key", at(2_000)));
    let repeat = world.start_at(repeat, at(7)).await.unwrap();
    assert_eq!(repeat.operation.name, name("keyed"));
    let claimed = world.claim(ClaimFilter::default(), 9, at(8)).await;
    assert_eq!(ids(&claimed), ["queued", "deleted", "keyed"]);
    // The row ids go on where they were.
    world.started("new", at(9)).await;
    assert_eq!(world.list(a_query(1)).await, ["new"]);
}

#[tokio::test]
async fn a_key_that_moved_on_stays_with_the_newer_operation() {
    let folder = tempfile::tempdir().unwrap();
    let keyed = |id: &str, until| {
        let mut start = a_start(id);
        start.request_id = Some(request_id("key", at(until)));
        start
    };
    let world = open_folder(folder.path());
    world.start_at(keyed("old", 10), at(0)).await.unwrap();
    world.start_at(keyed("new", 100), at(10)).await.unwrap();
    drop(world);
    let world = open_folder(folder.path());
    let repeat = world.start_at(keyed("other", 100), at(11)).await.unwrap();
    assert_eq!(repeat.operation.name, name("new"));
}

#[tokio::test]
async fn a_tombstone_and_what_became_of_one_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let world = open_folder(folder.path());
    a_tombstone(&world, "early", at(1)).await;
    drop(world);
    let world = open_folder(folder.path());
    let mut late = a_start("late");
    late.request_id = Some(request_id("key", at(3600)));
    let born = world.start_at(late.clone(), at(2)).await.unwrap().operation;
    assert_eq!(born.name, name("early"));
    drop(world);
    let world = open_folder(folder.path());
    assert_eq!(world.read("early").await.as_ref(), Some(&born));
    assert_eq!(world.start_at(late, at(3)).await.unwrap().operation, born);
    assert_eq!(world.store.history(&born.name, 0, 10).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_folder_belongs_to_one_server_and_to_its_owner() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made/for/us");
    let world = open_folder(&path);
    let error = refusal_to_open(&path);
    assert_eq!(error.reason, Reason::StoreInUse);
    assert!(error.message.contains(&path.display().to_string()), "{error}");
    assert!(error.message.contains(&std::process::id().to_string()), "{error}");
    let mode =
        |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    for file in std::fs::read_dir(&path).unwrap() {
        let file = file.unwrap().path();
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    world.store.close().await;
    assert_eq!(refusal_to_open(&path).reason, Reason::StoreInUse, "closed, but still read");
    drop(world);
    open_folder(&path);
}

#[tokio::test]
async fn a_relaxed_store_keeps_what_it_closed_with() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = Options::new(folder.path());
    options.durability = Durability::Relaxed;
    let world = open(&options).unwrap();
    fill(&world).await;
    let before = world.read("cancelling").await;
    drop(world);
    let world = open_folder(folder.path());
    assert_eq!(world.read("cancelling").await, before);
}

/// What a crash between the commit of a parent's cancel and those of its children leaves.
#[tokio::test]
async fn children_that_have_yet_to_follow_are_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let world = open_folder(folder.path());
    world.started("parent", at(0)).await;
    world.started("other", at(0)).await;
    for (id, parent) in [("a", "parent"), ("b", "parent"), ("c", "parent"), ("d", "other")] {
        let mut child = a_start(id);
        child.parent_operation = Some(name(parent));
        world.start_at(child, at(1)).await.unwrap();
    }
    world.cancel("parent", at(2)).await.unwrap();
    world.cancel("a", at(3)).await.unwrap();
    drop(world);

    let world = open_folder(folder.path());
    let behind = world.store.left_behind(9).await.unwrap();
    assert_eq!(behind, [(name("parent"), name("b")), (name("parent"), name("c"))]);
    let children = world.store.children(&name("parent"), 9).await.unwrap();
    assert_eq!(children, [name("a"), name("b"), name("c")]);
    assert_eq!(world.store.children(&name("other"), 9).await.unwrap(), [name("d")]);
    world.cancel("other", at(4)).await.unwrap();
    let behind = world.store.left_behind(9).await.unwrap();
    assert!(behind.contains(&(name("other"), name("d"))), "{behind:?}");
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, "not a folder").unwrap();
    let error = refusal_to_open(&path);
    assert_eq!(error.reason, Reason::StoreUnavailable);
    assert!(error.message.contains("file"), "{error}");
}

#[test]
fn the_store_can_be_shared() {
    fn shared<T: Store + 'static>() {}
    shared::<crate::embedded::Embedded>();
}

#[tokio::test]
async fn a_reopened_store_knows_who_has_a_resource_for_itself_and_what_a_claim_holds() {
    let folder = tempfile::tempdir().unwrap();
    let world = open_folder(folder.path());
    let alone = |id: &str| {
        let mut start = a_start(id);
        start.policy.parallel = Parallel::Refuse;
        start
    };
    world.start_at(alone("a"), at(0)).await.unwrap();
    world.run("a", at(1)).await;
    let mut done = alone("done");
    done.target = "elsewhere".into();
    world.start_at(done.clone(), at(0)).await.unwrap();
    world.finish("done", at(1)).await;
    drop(world);
    let world = open_folder(folder.path());
    assert_eq!(refused(world.start_at(alone("b"), at(2)).await), Refusal::TargetBusy);
    done.name = name("next");
    world.start_at(done, at(2)).await.unwrap();
    let claimed = world.store.claimed("w", "c").await.unwrap();
    assert_eq!(claimed.iter().map(|it| it.name.id()).collect::<Vec<_>>(), ["a"]);
    assert!(world.store.claimed("w", "").await.unwrap().is_empty());
}
