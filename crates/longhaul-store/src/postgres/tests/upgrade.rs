//! Servers of two versions on one database, one after the other put in the other's place.
//!
//! The older version is this program on the schema of the last release, with that release's rows in it; the
//! newer one is this program with a step more, of the kind that needs no word in the changelog: it adds.

#![allow(clippy::unwrap_used, reason = "whatever fails here fails the test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use longhaul_core::{OperationName, Reason};

use super::super::migrate::{Migrated, migrate_further};
use super::super::{Options, Postgres};
use super::fixture::load_version_1;
use super::servers::{Ears, until};
use super::{opened, options};
use crate::conformance::world::{Notes, World, a_success, at, is_done, name};
use crate::{ClaimFilter, Deaf, Listener};

const ADDED: &str = "
    ALTER TABLE operation ADD COLUMN colour text;
    ALTER TABLE history ADD COLUMN colour text NOT NULL DEFAULT 'none';
    ALTER TABLE change ADD COLUMN colour text;
    ALTER TABLE fleet ADD COLUMN colour text;
    CREATE TABLE palette (colour text PRIMARY KEY, meaning text NOT NULL);
    CREATE INDEX operation_coloured ON operation (colour) WHERE colour IS NOT NULL;
";

/// A server and what it hears of the others.
struct Seen {
    world: World,
    ears: Arc<Ears>,
}

impl Seen {
    fn of(open: impl FnOnce(Arc<dyn Listener>) -> Arc<Postgres>) -> Self {
        let ears = Arc::new(Ears::default());
        let world = World { store: open(ears.clone()), notes: Arc::new(Notes::default()) };
        Self { world, ears }
    }

    async fn hears(&self, of: &OperationName, revision: u64) {
        let heard = || self.ears.elsewhere.lock().contains(&(of.clone(), revision));
        until("a change by the other version", heard).await;
    }
}

async fn newer(migrated: Migrated, options: &Options) -> Seen {
    let ears = Arc::new(Ears::default());
    let store = Postgres::open_at(migrated, options, ears.clone()).await.expect("it opens");
    Seen { world: World { store: Arc::new(store), notes: Arc::new(Notes::default()) }, ears }
}

/// Whole lives of operations, one after the other, until told; how many.
fn working(
    world: &World,
    prefix: &'static str,
    over: &Arc<AtomicBool>,
) -> tokio::task::JoinHandle<u32> {
    let (world, over) = (world.clone(), over.clone());
    tokio::spawn(async move {
        let mut lives = 0;
        while !over.load(Ordering::Relaxed) {
            let id = format!("{prefix}{lives}");
            world.started(&id, at(10)).await;
            world.finish(&id, at(11)).await;
            lives += 1;
        }
        lives
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_server_goes_on_until_a_newer_one_has_taken_its_place() {
    let options = options();
    load_version_1(&options).await;
    let old = Seen::of(|listener| opened(&options, listener));
    let over = Arc::new(AtomicBool::new(false));
    let by_old = working(&old.world, "old", &over);
    let migrated = migrate_further(&options, ADDED).await.unwrap();
    assert!(migrated.from.is_some() && migrated.from < Some(migrated.to), "{migrated:?}");
    let new = newer(migrated, &options).await;
    let by_new = working(&new.world, "new", &over);

    // Both know what the last release has left, and one goes on with what the other has begun.
    for world in [&old.world, &new.world] {
        assert_eq!(world.read("cancelling").await.unwrap().state.name(), "CANCELLING");
        assert!(is_done(&world.read("done").await.unwrap()));
    }
    old.world.started("a", at(20)).await;
    new.hears(&name("a"), 1).await;
    let held = new.world.run("a", at(21)).await;
    old.hears(&name("a"), held.revision).await;
    let cancelled = old.world.cancel("a", at(22)).await.unwrap().operation;
    new.hears(&name("a"), cancelled.revision).await;
    let ended = new.world.apply("a", a_success(held.epoch), at(23)).await.unwrap().operation;
    assert!(is_done(&ended));
    assert_eq!(old.world.read("a").await.unwrap(), ended);

    let refused = Postgres::open(&options, Arc::new(Deaf)).await.err().expect("it is too old");
    assert_eq!(refused.reason, Reason::StoreTooNew);
    over.store(true, Ordering::Relaxed);
    let (by_old, by_new) = (by_old.await.unwrap(), by_new.await.unwrap());
    assert!(by_old > 0 && by_new > 0, "{by_old} and {by_new} lives");
    let last = format!("old{}", by_old - 1);
    assert!(is_done(&new.world.read(&last).await.unwrap()));

    // What the old one holds at its end is the new one's to go on with.
    let held = old.world.run("queued", at(24)).await;
    old.world.store.close().await;
    let ended = new.world.apply("queued", a_success(held.epoch), at(25)).await.unwrap();
    assert!(is_done(&ended.operation));
    new.world.started("b", at(26)).await;
    assert!(!new.world.claim(ClaimFilter::default(), 10, at(27)).await.is_empty());
}
