//! Copies from folder to folder: whole, killed half-way, and refused. The PostgreSQL engine's tests copy both
//! ways with the same helpers.

use std::path::Path;
use std::sync::Arc;

use longhaul_core::Command;
use tempfile::TempDir;

use super::{Contents, Copied, Scan, contents, copy};
use crate::conformance::world::{Notes, World, a_start, at, command_of, name, request_id};
use crate::embedded::{Embedded, Options, begin_move, end_move};
use crate::{Deaf, Key, Store};

/// Operations that [`fill`] makes.
pub(crate) const FILLED: u64 = 700;

/// Fills a store with operations in every state, with idempotency keys, a family, and deleted ones.
pub(crate) async fn fill(store: Arc<dyn Store>) {
    let world = World { store, notes: Arc::new(Notes::default()) };
    let id = |number: u64| format!("o{number}");
    let start_of = |number: u64| {
        let mut start = a_start(&id(number));
        if number.is_multiple_of(3) {
            start.request_id = Some(request_id(&format!("key-{number}"), at(3_600)));
        }
        if number % 50 == 1 {
            start.parent_operation = Some(name(&id(number - 1)));
        }
        start
    };
    let (children, others): (Vec<_>, Vec<_>) = (0..FILLED).partition(|number| number % 50 == 1);
    world.start_all(others.into_iter().map(start_of), at(0)).await;
    world.start_all(children.into_iter().map(start_of), at(0)).await;
    for number in 0..FILLED {
        let id = id(number);
        match number % 7 {
            1 => drop(world.run(&id, at(1)).await),
            2 => drop(world.finish(&id, at(2)).await),
            3 => drop(world.cancel(&id, at(3)).await),
            4 => {
                world.run(&id, at(1)).await;
                world.cancel(&id, at(4)).await.unwrap();
            }
            5 => {
                let delete = Command::Delete { actor: "someone".into() };
                world.decide(Key::Name(name(&id)), command_of(delete, at(5))).await.unwrap();
            }
            _ => {}
        }
    }
    // A key whose window is over leads to the younger of two.
    let mut younger = a_start("younger");
    younger.request_id = Some(request_id("key-0", at(9_000)));
    world.start_at(younger, at(4_000)).await.unwrap();
}

fn open(folder: &Path, moving: bool) -> Embedded {
    Embedded::open(&Options { moving, ..Options::new(folder) }, Arc::new(Deaf)).unwrap()
}

/// A filled folder.
async fn filled() -> (TempDir, Embedded) {
    let folder = TempDir::new().unwrap();
    let store = Arc::new(open(folder.path(), false));
    fill(store.clone()).await;
    store.close().await;
    drop(store);
    let store = open(folder.path(), false);
    (folder, store)
}

/// Copies until `enough` operations are there, then drops everything, as a kill does.
async fn copy_until(from: &dyn Scan, to: &dyn Scan, enough: u64) {
    let stop = tokio::sync::Notify::new();
    let mut progress = |seen| {
        if seen >= enough {
            stop.notify_one();
        }
    };
    tokio::select! {
        biased;
        () = stop.notified() => {}
        done = copy(from, to, &mut progress) => panic!("it was to be stopped: {done:?}"),
    }
}

/// Demands that the target leads to the same operations by name and by idempotency key.
pub(crate) async fn check(from: &dyn Scan, to: &dyn Scan, copied: Copied) {
    assert_eq!(copied.contents.operations, FILLED + 1);
    assert_eq!(contents(from).await.unwrap(), copied.contents);
    assert!(copied.contents.commits > FILLED, "{copied:?}");
    for id in ["o0", "o51", "o5", "younger"] {
        let (one, other) = (from.get(&name(id)).await.unwrap(), to.get(&name(id)).await.unwrap());
        assert_eq!(one.unwrap(), other.unwrap());
        let history = from.history(&name(id), 0, 100).await.unwrap();
        assert_eq!(to.history(&name(id), 0, 100).await.unwrap(), history);
    }
    assert_eq!(to.children(&name("o50"), 10).await.unwrap(), [name("o51")]);
}

/// Who a repeated start under this key leads to.
pub(crate) async fn led_to(store: Arc<dyn Store>, key: &str) -> String {
    let world = World { store, notes: Arc::new(Notes::default()) };
    let mut again = a_start("again");
    again.request_id = Some(request_id(key, at(9_000)));
    world.start_at(again, at(10)).await.unwrap().operation.name.id().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_holds_everything_and_leads_to_it() {
    let (_source, from) = filled().await;
    let target = TempDir::new().unwrap();
    begin_move(&Options::new(target.path()), from.token_key()).unwrap();
    let to = open(target.path(), true);
    let copied = copy(&from, &to, &mut |_| {}).await.unwrap();
    assert_eq!(copied.written, FILLED + 1);
    check(&from, &to, copied).await;
    drop(to);
    end_move(&Options::new(target.path())).unwrap();
    let to = Arc::new(open(target.path(), false));
    assert_eq!(to.token_key(), from.token_key(), "page tokens go on");
    assert_eq!(led_to(to.clone(), "key-0").await, "younger");
    assert_eq!(led_to(to.clone(), "key-3").await, "o3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_killed_half_way_goes_on_where_it_was() {
    let (_source, from) = filled().await;
    let target = TempDir::new().unwrap();
    let options = Options::new(target.path());
    begin_move(&options, from.token_key()).unwrap();
    let to = open(target.path(), true);
    copy_until(&from, &to, 256).await;
    drop(to);
    let refused = Embedded::open(&options, Arc::new(Deaf)).err().expect("it is half filled");
    assert_eq!(refused.reason.name(), "STORE_IN_USE");
    begin_move(&options, from.token_key()).unwrap();
    let to = open(target.path(), true);
    let copied = copy(&from, &to, &mut |_| {}).await.unwrap();
    assert!((1..=FILLED + 1 - 256).contains(&copied.written), "{copied:?}");
    check(&from, &to, copied).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_with_contents_of_its_own_is_refused() {
    let (source, from) = filled().await;
    let key = from.token_key();
    let in_use = begin_move(&Options::new(source.path()), [1; 32]).unwrap_err();
    assert_eq!(in_use.reason.name(), "STORE_IN_USE");
    drop(from);
    let refused = begin_move(&Options::new(source.path()), [1; 32]).unwrap_err();
    assert_eq!(refused.reason.name(), "CONFIG_INVALID", "{}", refused.message);
    assert_eq!(open(source.path(), false).token_key(), key, "and left as it was");
    // A target that belongs to a copy from elsewhere.
    let other = TempDir::new().unwrap();
    begin_move(&Options::new(other.path()), [1; 32]).unwrap();
    let refused = begin_move(&Options::new(other.path()), [2; 32]).unwrap_err();
    assert_eq!(refused.reason.name(), "CONFIG_INVALID", "{}", refused.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_in_one_field_changes_the_digest() {
    let (_source, from) = filled().await;
    let before = contents(&from).await.unwrap();
    let from = Arc::new(from);
    let world = World { store: from.clone(), notes: Arc::new(Notes::default()) };
    world.cancel("o0", at(20)).await.unwrap();
    let after = contents(&*from).await.unwrap();
    assert_eq!(after.operations, before.operations);
    assert_ne!(after.digest, before.digest);
    assert_ne!(Contents::default(), before);
}
