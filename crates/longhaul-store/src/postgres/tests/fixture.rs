//! The schema of each released version, with rows in it, opened by this one.
//!
//! `fixtures/postgres-v1.sql` is what `pg_dump --schema` gave after [`fill`]; the same is asked of rows that
//! this version has written itself, so the fixture can be made again for a later version.

#![allow(clippy::unwrap_used, reason = "whatever fails here fails the test")]

use std::sync::Arc;

use longhaul_core::{Parallel, Refusal, Start};
use tokio_postgres::NoTls;

use super::super::{Migrated, Options, migrate};
use super::{opened, options};
use crate::conformance::world::{Notes, World, a_start, a_success, at, name, refused, request_id};

const VERSION_1: &str = include_str!("../../../fixtures/postgres-v1.sql");

fn keyed(id: &str) -> Start {
    let mut start = a_start(id);
    start.request_id = Some(request_id("key", at(3_600)));
    start
}

/// An operation in each state that a version can leave behind.
async fn fill(world: &World) {
    for id in ["queued", "running", "cancelling", "done", "cancelled"] {
        world.started(id, at(0)).await;
    }
    world.run("running", at(1)).await;
    world.run("cancelling", at(1)).await;
    world.cancel("cancelling", at(2)).await.unwrap();
    world.finish("done", at(1)).await;
    world.cancel("cancelled", at(1)).await.unwrap();
    world.start_at(keyed("keyed"), at(3)).await.unwrap();
    let mut child = a_start("child");
    child.parent_operation = Some(name("running"));
    world.start_at(child, at(4)).await.unwrap();
}

/// What is there after [`fill`], and that work goes on with it.
async fn check(world: &World) {
    let state = async |id: &str| world.read(id).await.unwrap().state.name();
    assert_eq!(state("queued").await, "QUEUED");
    assert_eq!(state("cancelling").await, "CANCELLING");
    assert_eq!(state("done").await, "DONE");
    assert_eq!(world.store.history(&name("done"), 0, 10).await.unwrap().len(), 3);
    assert_eq!(world.store.children(&name("running"), 10).await.unwrap(), [name("child")]);
    assert_eq!(world.start_at(keyed("again"), at(5)).await.unwrap().operation.name, name("keyed"));
    let total: u64 = world.store.counts().iter().map(|count| count.operations).sum();
    assert_eq!(total, 7);
    assert_eq!(world.store.next_due(), Some(at(31)), "the end of the first lease");
    let ended = world.apply("running", a_success(1), at(6)).await.unwrap();
    assert_eq!(ended.operation.revision, 3);
    assert_eq!(world.store.claimed("w", "c").await.unwrap().len(), 1, "cancelling");
    let alone = |id: &str| {
        let mut start = a_start(id);
        start.policy.parallel = Parallel::Refuse;
        start
    };
    world.start_at(alone("alone"), at(7)).await.unwrap();
    assert_eq!(refused(world.start_at(alone("rival"), at(8)).await), Refusal::TargetBusy);
}

fn server(options: &Options) -> World {
    let notes = Arc::new(Notes::default());
    World { store: opened(options, notes.clone()), notes }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_this_version_are_as_the_fixture_has_them() {
    let options = options();
    let first = server(&options);
    fill(&first).await;
    first.store.close().await;
    check(&server(&options)).await;
}

/// Loads the schema of version 1 and its rows.
pub(super) async fn load_version_1(options: &Options) {
    let (client, connection) =
        tokio_postgres::connect(&options.url, NoTls).await.expect("a connection");
    tokio::spawn(connection);
    // psql's own commands are not the server's.
    let lines = VERSION_1.lines().filter(|line| !line.starts_with('\\'));
    let dump =
        lines.collect::<Vec<_>>().join("\n").replace("fixture.", &format!("{}.", options.schema));
    let dump = dump.replace("CREATE SCHEMA fixture", &format!("CREATE SCHEMA {}", options.schema));
    client.batch_execute(&dump).await.expect("the fixture is loaded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_version_1_are_opened() {
    let options = options();
    load_version_1(&options).await;
    let migrated = migrate(&options).await.expect("it is brought up to date");
    assert_eq!(migrated, Migrated { from: Some(1), to: 2 });
    check(&server(&options)).await;
}
