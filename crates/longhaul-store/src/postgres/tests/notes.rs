//! What servers hear of each other: at once by notes, once each, and within a second when notes are lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use longhaul_core::OperationName;

use super::servers::{Ears, server, session, until};
use super::{opened, options};
use crate::conformance::world::{a_start, at, counting, name};
use crate::{Decide, Key, Priority, Store};

/// How often each revision was heard of.
fn heard(ears: &Ears) -> BTreeMap<(OperationName, u64), usize> {
    let mut times = BTreeMap::new();
    for one in ears.elsewhere.lock().iter() {
        *times.entry(one.clone()).or_default() += 1;
    }
    times
}

/// Longer than two looks at the table of changes.
async fn after_two_looks() {
    // tidy: sleep: what must not come can only be waited for
    tokio::time::sleep(Duration::from_millis(2_300)).await;
}

/// A server that heard all the time once forgot to say that it was there. After ten seconds the others took it
/// for gone and told it nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hears_much_goes_on_saying_that_it_is_there() {
    let options = options();
    let server = opened(&options, Arc::new(Ears::default()));
    let client = session(&options).await;
    let (notify, seen) = (
        format!("NOTIFY longhaul_{}, 'look'", options.schema),
        format!(
            "SELECT count(*) FROM \"{}\".server WHERE seen > clock_timestamp() - interval '2 s'",
            options.schema
        ),
    );
    for _ in 0..60 {
        client.batch_execute(&notify).await.expect("a notification");
        // tidy: sleep: notifications come faster than the server says that it is there
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let there: i64 = client.query_one(&seen, &[]).await.expect("a count").get(0);
    assert_eq!(there, 1, "it has not said so for two seconds");
    server.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_joins_is_told_of_at_once_what_others_commit() {
    let options = options();
    let first = opened(&options, Arc::new(Ears::default()));
    until("the first to be alone", || !first.core.shared.load(Ordering::Relaxed)).await;
    let ears = Arc::new(Ears::default());
    let _second = opened(&options, ears.clone());
    until("the first to know", || first.core.shared.load(Ordering::Relaxed)).await;
    let start = a_start("a");
    let decide: Decide = Arc::new(move |found| longhaul_core::start(found, start.clone(), at(0)));
    first.update(Key::Name(name("a")), Priority::Normal, decide).await.unwrap();
    until("the start", || heard(&ears).contains_key(&(name("a"), 1))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_change_is_heard_once_also_beside_a_long_transaction() {
    let options = options();
    let ears = Arc::new(Ears::default());
    let _second = opened(&options, ears.clone());
    let first = server(&options);
    let mut client = session(&options).await;
    let open = client.transaction().await.unwrap();
    open.batch_execute("SELECT pg_current_xact_id()").await.unwrap();
    // More in one commit than fits into a note, and some that do.
    first.start_all((0..300).map(|index| a_start(&format!("o{index}"))), at(0)).await;
    for _ in 0..5 {
        first.decide(Key::Name(name("o7")), counting(at(1))).await.unwrap();
    }
    until("all changes", || heard(&ears).len() == 305).await;
    after_two_looks().await;
    let times = heard(&ears);
    assert!(times.values().all(|&times| times == 1), "{times:?}");
    open.rollback().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_note_told_is_read_within_a_second() {
    let options = options();
    let ears = Arc::new(Ears::default());
    let _second = opened(&options, ears.clone());
    let first = opened(&options, Arc::new(Ears::default()));
    for round in 0..3_u64 {
        let id = format!("o{round}");
        let start = a_start(&id);
        let decide: Decide =
            Arc::new(move |found| longhaul_core::start(found, start.clone(), at(0)));
        // It believes that it is alone, so it tells nobody.
        first.core.shared.store(false, Ordering::Relaxed);
        first.update(Key::Name(name(&id)), Priority::Normal, decide).await.unwrap();
        until("the start", || heard(&ears).contains_key(&(name(&id), 1))).await;
    }
}
