//! Many at once: updates are linear, answers are durable, the listener hears the right order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Open;
use super::world::{World, a_start, at, counting, name, request_id};
use crate::{Key, Priority};

const TASKS: usize = 16;
const ROUNDS: usize = 25;

pub(crate) async fn updates_of_one_operation_are_linear(open: &Open) {
    let world = World::new(open);
    world.started("a", at(0)).await;
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let world = world.clone();
            tokio::spawn(async move {
                let mut seen = Vec::new();
                for _ in 0..ROUNDS {
                    let applied =
                        world.decide(Key::Name(name("a")), counting(at(1))).await.unwrap();
                    seen.push(applied.operation.revision);
                }
                assert!(seen.is_sorted());
                seen
            })
        })
        .collect();
    let mut seen = BTreeSet::new();
    for task in tasks {
        seen.extend(task.await.unwrap());
    }
    let total = (TASKS * ROUNDS) as u64;
    assert_eq!(seen, (2..=total + 1).collect(), "every revision was made once");
    let last = world.read("a").await.unwrap();
    assert_eq!((last.revision, u64::from(last.attempt)), (total + 1, total));
}

pub(crate) async fn starts_under_one_request_id_make_one_operation(open: &Open) {
    let world = World::new(open);
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let world = world.clone();
            tokio::spawn(async move {
                let mut start = a_start(&format!("o{task}"));
                start.request_id = Some(request_id("key", at(3600)));
                world.start_at(start, at(0)).await.unwrap()
            })
        })
        .collect();
    let mut names = BTreeSet::new();
    let mut events = 0;
    for task in tasks {
        let applied = task.await.unwrap();
        names.insert(applied.operation.name);
        events += applied.events.len();
    }
    assert_eq!((names.len(), events), (1, 1));
}

pub(crate) async fn the_listener_hears_each_operation_in_order(open: &Open) {
    let world = World::new(open);
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let world = world.clone();
            tokio::spawn(async move {
                let id = format!("o{}", task % 4);
                // Several tasks start the same operation; one of them does.
                let _ = world.start_at(a_start(&id), at(0)).await;
                for _ in 0..ROUNDS {
                    let applied =
                        world.decide(Key::Name(name(&id)), counting(at(1))).await.unwrap();
                    let heard = world.notes.changes.lock().iter().any(|change| {
                        change.operation.name == applied.operation.name
                            && change.operation.revision == applied.operation.revision
                    });
                    assert!(heard, "the listener hears before the caller");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let mut last = BTreeMap::new();
    for change in world.notes.changes.lock().iter() {
        let operation = &change.operation;
        let before = last.insert(operation.name.clone(), operation.revision).unwrap_or(0);
        assert_eq!(operation.revision, before + 1);
    }
    assert_eq!(last.len(), 4);
}

pub(crate) async fn a_read_sees_every_answered_write(open: &Open) {
    let world = World::new(open);
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let world = world.clone();
            tokio::spawn(async move {
                let id = format!("o{task}");
                world.started(&id, at(0)).await;
                for _ in 0..ROUNDS {
                    let key = Key::Name(name(&id));
                    let applied = world.decide(key, counting(at(1))).await.unwrap();
                    assert_eq!(world.read(&id).await, Some(applied.operation));
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

pub(crate) async fn an_abandoned_write_is_still_made(open: &Open) {
    let world = World::new(open);
    world.started("a", at(0)).await;
    let mut abandoned =
        world.store.update(Key::Name(name("a")), Priority::Urgent, Arc::new(counting(at(1))));
    // Polled once, so that it is in line; then dropped.
    let once = std::future::poll_fn(|context| {
        std::task::Poll::Ready(abandoned.as_mut().poll(context).is_ready())
    });
    let _ = once.await;
    drop(abandoned);
    let next = world.decide(Key::Name(name("a")), counting(at(2))).await.unwrap();
    assert_eq!(next.operation.revision, 3);
}
