//! Lists: order, wildcards, filters, and pages that hold still.

use std::time::Duration;

use longhaul_core::Command;

use super::Open;
use super::world::{API, OTHER_API, World, a_query, a_start, at, name};
use crate::{Cursor, Key, ListQuery, ParentFilter};

pub(crate) async fn pages_are_newest_first(open: &Open) {
    let world = World::new(open);
    for index in [3_u64, 1, 4, 0, 2] {
        world.started(&format!("o{index}"), at(index)).await;
    }
    // Created at the same moment: the greater uid is the younger.
    for (id, uid) in [("x", 50), ("y", u128::MAX), ("z", 1)] {
        let mut start = a_start(id);
        start.uid = uid;
        world.start_at(start, at(2)).await.unwrap();
    }
    let all = world.list(a_query(100)).await;
    let (before, rest) = all.split_at(2);
    assert_eq!(before, ["o4", "o3"]);
    assert_eq!(rest.first().unwrap(), "y");
    assert_eq!(&rest[4..], ["o1", "o0"]);
    let mut pages = Vec::new();
    let mut after = None;
    loop {
        let page = world.store.list(ListQuery { after, ..a_query(3) }).await.unwrap();
        let Some((cursor, operation)) = page.last() else { break };
        assert_eq!(*cursor, Cursor::of(operation));
        after = Some(*cursor);
        pages.extend(page.iter().map(|(_, operation)| operation.name.id().to_owned()));
    }
    assert_eq!(pages, all);
}

pub(crate) async fn a_dash_lists_over_parents(open: &Open) {
    let world = World::new(open);
    let parents = [
        "projects/p/locations/l",
        "projects/p/locations/m",
        "projects/q/locations/l",
        "projects/p",
    ];
    for index in 0..12_usize {
        let mut start = a_start(&format!("o{index}"));
        start.parent = parents[index % 4].into();
        world.start_at(start, at(index as u64)).await.unwrap();
    }
    let list = |parent: ParentFilter| world.list(ListQuery { parent, ..a_query(100) });
    let matching = |pattern: &str| list(ParentFilter::Matching(pattern.into()));
    assert_eq!(matching("projects/p/locations/m").await, ["o9", "o5", "o1"]);
    assert_eq!(matching("projects/p/locations/-").await, ["o9", "o8", "o5", "o4", "o1", "o0"]);
    assert_eq!(matching("projects/-/locations/l").await, ["o10", "o8", "o6", "o4", "o2", "o0"]);
    assert_eq!(matching("projects/-").await, ["o11", "o7", "o3"]);
    assert!(matching("projects/p/locations").await.is_empty());
    assert_eq!(list(ParentFilter::Any).await.len(), 12);
    let parent = ParentFilter::Matching("projects/-/locations/-".into());
    let after = Some(Cursor::of(&world.read("o6").await.unwrap()));
    let page = world.list(ListQuery { parent, after, ..a_query(3) }).await;
    assert_eq!(page, ["o5", "o4", "o2"]);
}

pub(crate) async fn done_and_deleted_ones_are_told_apart(open: &Open) {
    let world = World::new(open);
    for index in 0..6 {
        world.started(&format!("o{index}"), at(index)).await;
    }
    for id in ["o1", "o4"] {
        world.finish(id, at(10)).await;
    }
    let delete = Command::Delete { actor: "".into() };
    for id in ["o3", "o4"] {
        world.apply(id, delete.clone(), at(11)).await.unwrap();
    }
    let list = |done| world.list(ListQuery { done, ..a_query(100) });
    assert_eq!(list(None).await, ["o5", "o2", "o1", "o0"]);
    assert_eq!(list(Some(true)).await, ["o1"]);
    assert_eq!(list(Some(false)).await, ["o5", "o2", "o0"]);
    assert!(world.read("o3").await.unwrap().deleted.is_some(), "a read still finds it");
}

pub(crate) async fn pages_hold_still_while_operations_come_and_go(open: &Open) {
    let world = World::new(open);
    for index in 0..200 {
        world.started(&format!("old{index}"), at(index)).await;
    }
    let starter = {
        let world = world.clone();
        tokio::spawn(async move {
            for index in 0..200 {
                world.started(&format!("new{index}"), at(1_000 + index)).await;
                // Every operation changes while the pages are read.
                world.finish(&format!("old{index}"), at(2_000)).await;
            }
        })
    };
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = world.store.list(ListQuery { after, ..a_query(7) }).await.unwrap();
        let Some((cursor, _)) = page.last() else { break };
        after = Some(*cursor);
        seen.extend(page.iter().map(|(_, operation)| operation.name.id().to_owned()));
    }
    starter.await.unwrap();
    let old: Vec<_> = seen.iter().filter(|id| id.starts_with("old")).cloned().collect();
    let want: Vec<_> = (0..200).rev().map(|index| format!("old{index}")).collect();
    assert_eq!(old, want, "each once and in order");
}

pub(crate) async fn apis_are_never_mixed(open: &Open) {
    let world = World::new(open);
    for (id, api) in [("a", API), ("b", OTHER_API), ("c", API)] {
        let mut start = a_start(id);
        start.api = api.into();
        world
            .start_at(start, at(0) + Duration::from_secs(u64::from(id.as_bytes()[0])))
            .await
            .unwrap();
    }
    assert_eq!(world.list(a_query(10)).await, ["c", "a"]);
    assert_eq!(world.list(ListQuery { api: OTHER_API.into(), ..a_query(10) }).await, ["b"]);
    let parent = ParentFilter::Any;
    assert!(world.list(ListQuery { api: "x".into(), parent, ..a_query(10) }).await.is_empty());
    assert!(world.list(a_query(0)).await.is_empty());
    let key = Key::Name(name("a"));
    world.decide(key, super::world::counting(at(5))).await.unwrap();
    assert_eq!(world.list(a_query(10)).await, ["c", "a"]);
}
