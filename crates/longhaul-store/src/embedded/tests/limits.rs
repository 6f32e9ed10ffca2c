//! Full queues, full disks, long logs, small caches.

use std::pin::Pin;
use std::sync::{Arc, mpsc};
use std::task::Poll;

use longhaul_core::{Applied, Operation, Reason, Refusal};
use parking_lot::Mutex;

use super::{Options, open, open_folder};
use crate::conformance::world::{
    World, a_query, a_start, at, command_of, counting, name, payload, refused,
};
use crate::{Failure, Key, Priority};

#[track_caller]
fn store_reason(failure: Failure) -> Reason {
    match failure {
        Failure::Store(error) => error.reason,
        Failure::Refused(refusal) => panic!("refused: {refusal}"),
    }
}

type Answer<'a> = Pin<Box<dyn Future<Output = Result<Applied, Failure>> + Send + 'a>>;

/// A future after its first poll, which puts its command in line.
async fn polled_once(mut future: Answer<'_>) -> Answer<'_> {
    let early = at_once(&mut future).await;
    match early {
        Some(result) => Box::pin(std::future::ready(result)),
        None => future,
    }
}

/// What the future has to say at once, if anything.
async fn at_once(future: &mut Answer<'_>) -> Option<Result<Applied, Failure>> {
    std::future::poll_fn(|context| {
        Poll::Ready(match future.as_mut().poll(context) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        })
    })
    .await
}

/// The writer, held inside a decision until it may go on.
struct Held {
    go: mpsc::Sender<()>,
    answer: tokio::task::JoinHandle<Result<Applied, Failure>>,
}

impl Held {
    async fn go(self) {
        self.go.send(()).unwrap();
        assert_eq!(refused(self.answer.await.unwrap()), Refusal::NotFound);
    }
}

async fn held(world: &World) -> Held {
    let (go, gate) = mpsc::channel::<()>();
    let (entered, inside) = tokio::sync::oneshot::channel::<()>();
    let (gate, entered) = (Mutex::new(gate), Mutex::new(Some(entered)));
    let store = world.store.clone();
    let decide = move |_: Option<&Operation>| {
        if let Some(entered) = entered.lock().take() {
            entered.send(()).unwrap();
        }
        gate.lock().recv().unwrap();
        Err(Refusal::NotFound)
    };
    let answer = tokio::spawn(async move {
        store.update(Key::Name(name("a")), Priority::Normal, Arc::new(decide)).await
    });
    inside.await.unwrap();
    Held { go, answer }
}

async fn start_large(world: &World, id: &str) -> Result<(), Failure> {
    let mut start = a_start(id);
    start.request = payload("t.Request", 20_000);
    world.start_at(start, at(0)).await.map(drop)
}

#[tokio::test]
async fn a_full_disk_refuses_commits_until_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = Options::new(folder.path());
    options.bytes_max = Some(1 << 20);
    let world = open(&options).unwrap();
    let mut kept = 0;
    let failure = loop {
        match start_large(&world, &format!("o{kept}")).await {
            Ok(()) => kept += 1,
            Err(failure) => break failure,
        }
    };
    assert_eq!(store_reason(failure), Reason::StoreUnavailable);
    assert!((20..60).contains(&kept), "{kept}");
    let full = format!("o{kept}");
    assert_eq!(world.read(&full).await, None);
    assert_eq!(world.notes.changes.lock().len(), kept, "nothing was told of the failure");
    assert_eq!(world.list(a_query(1_000)).await.len(), kept);
    // Another failure, then room, then success: each batch tries again.
    assert!(start_large(&world, &full).await.is_err());
    world
        .decide(Key::Name(name("o0")), |operation| {
            let operation = operation.ok_or(Refusal::NotFound)?.clone();
            Ok(Applied { operation, events: Vec::new(), forget: true })
        })
        .await
        .unwrap();
    start_large(&world, &full).await.unwrap();
    drop(world);
    let world = open_folder(folder.path());
    let list = world.list(a_query(1_000)).await;
    assert_eq!(list.len(), kept);
    assert!(list.contains(&full) && !list.contains(&"o0".to_owned()));
}

#[tokio::test]
async fn everybody_in_a_failed_batch_hears_it_and_indexes_are_as_before() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = Options::new(folder.path());
    options.bytes_max = Some(400 << 10);
    let world = open(&options).unwrap();
    world.started("a", at(0)).await;
    let before = world.read("a").await;
    // The writer is held until a change, a start, and a start that is too much are in line for one batch.
    let held = held(&world).await;
    let change = polled_once(world.store.update(
        Key::Name(name("a")),
        Priority::Normal,
        Arc::new(counting(at(1))),
    ));
    let change = change.await;
    let start = polled_once(Box::pin(world.start_at(a_start("b"), at(1)))).await;
    let mut large = a_start("c");
    large.request = payload("t.Request", 1 << 20);
    let too_much = polled_once(Box::pin(world.start_at(large, at(1)))).await;
    held.go().await;
    for waiting in [change, start, too_much] {
        assert_eq!(store_reason(waiting.await.unwrap_err()), Reason::StoreUnavailable);
    }
    assert_eq!(world.read("a").await, before);
    assert_eq!((world.read("b").await, world.read("c").await), (None, None));
    assert_eq!(world.list(a_query(10)).await, ["a"]);
    assert_eq!(world.notes.changes.lock().len(), 1);
    let applied = world.decide(Key::Name(name("a")), counting(at(2))).await.unwrap();
    assert_eq!(applied.operation.revision, 2);
    world.started("b", at(2)).await;
    let claimed = world.claim(crate::ClaimFilter::default(), 10, at(3)).await;
    assert_eq!(claimed.len(), 2);
}

#[tokio::test]
async fn a_full_queue_sheds_starts_before_cancels() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = Options::new(folder.path());
    (options.queue_max, options.queue_reserve) = (3, 2);
    let world = open(&options).unwrap();
    world.started("a", at(0)).await;
    let held = held(&world).await;
    let put = async |priority| {
        let update = world.store.update(Key::Name(name("a")), priority, Arc::new(counting(at(1))));
        let mut waiting = polled_once(update).await;
        match at_once(&mut waiting).await {
            Some(result) => Err(store_reason(result.unwrap_err())),
            None => Ok(waiting),
        }
    };
    let mut waiting = Vec::new();
    for _ in 0..3 {
        waiting.push(put(Priority::Normal).await.unwrap_or_else(|reason| panic!("{reason:?}")));
    }
    assert_eq!(put(Priority::Normal).await.err(), Some(Reason::Overloaded));
    assert_eq!(world.store.ready().await.unwrap_err().reason, Reason::Overloaded);
    for _ in 0..2 {
        waiting.push(put(Priority::Urgent).await.unwrap_or_else(|reason| panic!("{reason:?}")));
    }
    assert_eq!(put(Priority::Urgent).await.err(), Some(Reason::Overloaded));
    held.go().await;
    for (index, waiting) in waiting.into_iter().enumerate() {
        assert_eq!(waiting.await.unwrap().operation.revision, index as u64 + 2);
    }
    world.store.ready().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_stays_short_under_load() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = Options::new(folder.path());
    options.log_bytes = 128 << 10;
    let world = open(&options).unwrap();
    let tasks: Vec<_> = (0..16)
        .map(|task| {
            let world = world.clone();
            tokio::spawn(async move {
                for index in 0..100 {
                    world.started(&format!("o{task}-{index}"), at(index)).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let log = std::fs::metadata(folder.path().join("operations.db-wal")).unwrap().len();
    assert!(log < 5 * options.log_bytes, "{log}");
    assert_eq!(world.list(a_query(10_000)).await.len(), 1_600);
    drop(world);
    let log = std::fs::metadata(folder.path().join("operations.db-wal"));
    assert_eq!(log.map_or(0, |log| log.len()), 0, "a closed store leaves no log");
    assert_eq!(open_folder(folder.path()).list(a_query(10_000)).await.len(), 1_600);
}

#[tokio::test]
async fn a_small_cache_forgets_and_reads_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = Options::new(folder.path());
    options.cache_bytes = 20_000;
    let world = open(&options).unwrap();
    for index in 0..100 {
        world.started(&format!("o{index}"), at(index)).await;
    }
    for round in 0..3_u64 {
        for index in 0..100 {
            let id = format!("o{index}");
            assert_eq!(world.read(&id).await.unwrap().revision, round + 1);
            let counted = world.decide(Key::Name(name(&id)), counting(at(1))).await.unwrap();
            assert_eq!(counted.operation.revision, round + 2);
        }
    }
    let cancelled = command_of(crate::conformance::world::a_cancel(), at(9));
    world.decide(Key::Name(name("o7")), cancelled).await.unwrap();
}
