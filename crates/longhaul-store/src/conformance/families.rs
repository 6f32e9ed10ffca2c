//! Parents and children: no child without its parent's leave, and no child forgotten by a cascade.

use std::sync::Arc;

use longhaul_core::{Command, Operation, Refusal, Timestamp};

use super::Open;
use super::world::{World, a_start, at, is_done, name, refused, request_id};
use crate::{Failure, Key, Priority};

fn a_child(id: &str, parent: &str) -> longhaul_core::Start {
    let mut start = a_start(id);
    start.parent_operation = Some(name(parent));
    start
}

impl World {
    async fn children(&self, parent: &str) -> Vec<String> {
        let found = self.store.children(&name(parent), 100).await.unwrap();
        found.iter().map(|child| child.id().to_owned()).collect()
    }

    /// Parent and child of those that have yet to follow.
    async fn left_behind(&self) -> Vec<(String, String)> {
        let found = self.store.left_behind(100).await.unwrap();
        found.iter().map(|(of, child)| (of.id().to_owned(), child.id().to_owned())).collect()
    }

    /// One step of a cascade: what the server does for one child.
    async fn follow(&self, parent: &str, child: &str, now: Timestamp) -> Result<(), Failure> {
        let command = self.read(parent).await.and_then(|parent| parent.cascade()).unwrap();
        self.apply(child, command, now).await.map(drop)
    }
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(of, child)| ((*of).to_owned(), (*child).to_owned())).collect()
}

pub(crate) async fn a_child_starts_only_with_its_parents_leave(open: &Open) {
    let world = World::new(open);
    let nobody = world.start_at(a_child("a", "nobody"), at(0)).await;
    assert_eq!(refused(nobody), Refusal::ParentNotFound);
    world.started("parent", at(0)).await;
    let child = world.start_at(a_child("b", "parent"), at(1)).await.unwrap().operation;
    assert_eq!(child.parent_operation, Some(name("parent")));
    assert_eq!(world.read("b").await, Some(child));
    world.cancel("parent", at(2)).await.unwrap();
    let late = world.start_at(a_child("c", "parent"), at(3)).await;
    assert_eq!(refused(late), Refusal::ParentCancelled);
    assert_eq!(world.read("c").await, None);
    world.started("done", at(4)).await;
    world.finish("done", at(5)).await;
    let late = world.start_at(a_child("d", "done"), at(6)).await;
    assert_eq!(refused(late), Refusal::ParentDone);
    assert_eq!(world.children("parent").await, ["b"]);
    assert!(world.children("done").await.is_empty());
}

pub(crate) async fn a_repeated_start_of_a_child_needs_no_leave(open: &Open) {
    let world = World::new(open);
    world.started("parent", at(0)).await;
    let keyed = |id: &str| {
        let mut start = a_child(id, "parent");
        start.request_id = Some(request_id("key", at(1_000)));
        start
    };
    let first = world.start_at(keyed("a"), at(1)).await.unwrap().operation;
    world.cancel("parent", at(2)).await.unwrap();
    let again = world.start_at(keyed("b"), at(3)).await.unwrap().operation;
    assert_eq!(again, first, "the caller learns the name of what was started");
    // Once the key is free a start is a new one, and that is refused.
    assert_eq!(refused(world.start_at(keyed("c"), at(1_001)).await), Refusal::ParentCancelled);
}

pub(crate) async fn children_are_listed_in_the_order_of_their_age(open: &Open) {
    let world = World::new(open);
    world.started("parent", at(0)).await;
    for (index, id) in ["c", "a", "b"].into_iter().enumerate() {
        world.start_at(a_child(id, "parent"), at(index as u64)).await.unwrap();
    }
    world.start_at(a_child("grandchild", "a"), at(5)).await.unwrap();
    assert_eq!(world.children("parent").await, ["c", "a", "b"]);
    assert_eq!(world.store.children(&name("parent"), 2).await.unwrap().len(), 2);
    assert_eq!(world.children("a").await, ["grandchild"]);
    world.apply("a", Command::Detach { actor: "me".into() }, at(6)).await.unwrap();
    assert_eq!(world.children("parent").await, ["c", "b"]);
    assert_eq!(world.read("a").await.unwrap().parent_operation, None);
    world.finish("b", at(7)).await;
    let delete = Command::Delete { actor: "me".into() };
    assert!(world.apply("b", delete, at(8)).await.unwrap().forget);
    assert_eq!(world.children("parent").await, ["c"]);
}

pub(crate) async fn those_left_behind_by_a_cancel_are_found_until_none_is_left(open: &Open) {
    let world = World::new(open);
    world.started("parent", at(0)).await;
    for id in ["queued", "running", "done", "cancelled", "detached"] {
        world.start_at(a_child(id, "parent"), at(1)).await.unwrap();
    }
    let mut stubborn = a_child("stubborn", "parent");
    stubborn.policy.cancellable = false;
    world.start_at(stubborn, at(1)).await.unwrap();
    world.start_at(a_child("grandchild", "running"), at(1)).await.unwrap();
    world.run("running", at(2)).await;
    world.finish("done", at(2)).await;
    world.cancel("cancelled", at(2)).await.unwrap();
    world.apply("detached", Command::Detach { actor: "".into() }, at(2)).await.unwrap();
    assert_eq!(world.left_behind().await, []);

    world.cancel("parent", at(3)).await.unwrap();
    let mut found = world.left_behind().await;
    found.sort();
    assert_eq!(found, pairs(&[("parent", "queued"), ("parent", "running")]));
    assert_eq!(world.store.left_behind(1).await.unwrap().len(), 1);
    world.follow("parent", "queued", at(4)).await.unwrap();
    assert!(is_done(&world.read("queued").await.unwrap()));
    assert_eq!(world.left_behind().await, pairs(&[("parent", "running")]));
    world.follow("parent", "running", at(4)).await.unwrap();
    assert_eq!(world.left_behind().await, pairs(&[("running", "grandchild")]));
    world.follow("running", "grandchild", at(5)).await.unwrap();
    assert_eq!(world.left_behind().await, []);
    let again = world.follow("parent", "running", at(6)).await;
    assert!(matches!(again, Err(Failure::Refused(Refusal::NotDue))));
}

pub(crate) async fn a_cancelled_parent_stays_until_its_children_have_followed(open: &Open) {
    let world = World::new(open);
    world.started("parent", at(0)).await;
    world.start_at(a_child("child", "parent"), at(1)).await.unwrap();
    world.cancel("parent", at(2)).await.unwrap();
    let delete = Command::Delete { actor: "me".into() };
    let deleted = world.apply("parent", delete.clone(), at(3)).await.unwrap();
    assert!(!deleted.forget);
    assert_eq!(deleted.operation.deleted, Some(at(3)));
    assert!(world.sweep(10, at(4)).await.is_empty(), "it is not forgotten yet");
    assert_eq!(world.left_behind().await, pairs(&[("parent", "child")]));
    world.follow("parent", "child", at(5)).await.unwrap();
    let swept = world.sweep(10, at(6)).await;
    assert!(swept.iter().any(|one| one.forget && one.operation.name == name("parent")));
    assert_eq!(world.read("parent").await, None);
    assert_eq!(world.children("parent").await, ["child"]);
}

pub(crate) async fn no_child_slips_past_the_cancel_of_its_parent(open: &Open) {
    let world = World::new(open);
    for round in 0..20 {
        let parent = format!("parent{round}");
        world.started(&parent, at(0)).await;
        let starts: Vec<_> = (0..8)
            .map(|child| {
                let (world, parent) = (world.clone(), parent.clone());
                tokio::spawn(async move {
                    let id = format!("child{round}-{child}");
                    match world.start_at(a_child(&id, &parent), at(1)).await {
                        Ok(applied) => Some(applied.operation.name),
                        Err(Failure::Refused(Refusal::ParentCancelled)) => None,
                        Err(other) => panic!("{other}"),
                    }
                })
            })
            .collect();
        let cancel = Arc::new(|operation: Option<&Operation>| {
            let command = super::world::a_cancel();
            longhaul_core::apply(operation.ok_or(Refusal::NotFound)?, command, at(2))
        });
        let key = Key::Name(name(&parent));
        world.store.update(key, Priority::Urgent, cancel).await.unwrap();
        let mut started = Vec::new();
        for start in starts {
            started.extend(start.await.unwrap());
        }
        let mut behind: Vec<_> = world.store.left_behind(1_000).await.unwrap();
        behind.retain(|(of, _)| *of == name(&parent));
        let mut behind: Vec<_> = behind.into_iter().map(|(_, child)| child).collect();
        behind.sort();
        started.sort();
        assert_eq!(behind, started, "whatever was started is found by the cascade");
    }
}
