//! Copies between a folder and a database, both ways, and back again.

use std::sync::Arc;

use tempfile::TempDir;

use super::options;
use crate::embedded::{self, Embedded};
use crate::postgres::{Options, Postgres, begin_move, begin_scan, end_move, end_scan};
use crate::transfer::tests::{FILLED, check, fill, led_to};
use crate::transfer::{Copied, copy};
use crate::{Deaf, Store};

async fn database(options: &Options, moving: bool) -> Postgres {
    Postgres::open(&Options { moving, ..options.clone() }, Arc::new(Deaf))
        .await
        .expect("the database opens")
}

fn folder(folder: &TempDir, moving: bool) -> Embedded {
    let options = embedded::Options { moving, ..embedded::Options::new(folder.path()) };
    Embedded::open(&options, Arc::new(Deaf)).expect("the folder opens")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_from_a_folder_to_a_database_and_back_keeps_everything() {
    let (first, last, between) = (TempDir::new().unwrap(), TempDir::new().unwrap(), options());
    let from = Arc::new(folder(&first, false));
    fill(from.clone()).await;
    begin_move(&between, from.token_key()).await.unwrap();
    let to = database(&between, true).await;
    let there = copy(&*from, &to, &mut |_| {}).await.unwrap();
    check(&*from, &to, there).await;
    to.close().await;
    let refused = Postgres::open(&between, Arc::new(Deaf)).await.err().expect("it is marked");
    assert_eq!(refused.reason.name(), "STORE_IN_USE");
    end_move(&between).await.unwrap();

    begin_scan(&between).await.unwrap();
    let between_store = database(&between, false).await;
    assert_eq!(between_store.token_key(), from.token_key());
    between_store.ready().await.unwrap();
    let served = begin_scan(&between).await.unwrap_err();
    assert_eq!(served.reason.name(), "STORE_IN_USE", "{}", served.message);
    let options = embedded::Options::new(last.path());
    embedded::begin_move(&options, between_store.token_key()).unwrap();
    let to = folder(&last, true);
    let back = copy(&between_store, &to, &mut |_| {}).await.unwrap();
    end_scan(&between).await.unwrap();
    assert_eq!(back, Copied { written: FILLED + 1, ..there }, "the same digest in every engine");
    drop(to);
    embedded::end_move(&options).unwrap();
    assert_eq!(led_to(Arc::new(folder(&last, false)), "key-0").await, "younger");
    assert_eq!(led_to(Arc::new(between_store), "key-0").await, "younger");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_filled_or_served_is_no_target() {
    let options = options();
    let served = Arc::new(database(&options, false).await);
    served.ready().await.unwrap();
    let refused = begin_move(&options, [1; 32]).await.unwrap_err();
    assert_eq!(refused.reason.name(), "STORE_IN_USE", "{}", refused.message);
    fill(served.clone()).await;
    served.close().await;
    let refused = begin_move(&options, [1; 32]).await.unwrap_err();
    assert_eq!(refused.reason.name(), "CONFIG_INVALID", "{}", refused.message);
}
