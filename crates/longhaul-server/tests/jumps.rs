//! The sweeper on a clock of the test's own: what a jump of the calendar does to leases.

#![allow(clippy::unwrap_used, reason = "a failed expectation ends the test")]

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use longhaul_core::{
    Applied, Command, Operation, OperationName, Payload, Policy, Refusal, Start, State, Timestamp,
    apply, start,
};
use longhaul_server::clock::Clock;
use longhaul_server::sweeper::Sweeper;
use longhaul_server::watch::Watch;
use longhaul_store::{Key, Priority, Store, memory::Memory};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

const LEASE: Duration = Duration::from_secs(30);
const HOUR_MICROS: i64 = 3_600_000_000;

/// A clock that stands still, and jumps when the sweeper looks.
#[derive(Default)]
struct Still {
    now_micros: AtomicI64,
    jump_micros: AtomicI64,
    /// The sweeper has done what there was to do.
    idle: Notify,
}

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.now_micros.load(Ordering::SeqCst))
    }

    fn sleep(&self, _: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.idle.notify_one();
        Box::pin(std::future::pending())
    }

    fn follow_calendar(&self) -> Duration {
        let jump = self.jump_micros.swap(0, Ordering::SeqCst);
        self.now_micros.fetch_add(jump, Ordering::SeqCst);
        Duration::from_micros(jump.unsigned_abs())
    }
}

/// A store with one running operation, and a sweeper for it.
async fn running(clock: &Arc<Still>) -> (Arc<dyn Store>, OperationName, Sweeper) {
    let watch = Arc::new(Watch::new(clock.clone()));
    let store: Arc<dyn Store> = Arc::new(Memory::new([0; 32], watch.clone()));
    let name = OperationName::parse("operations/a").unwrap();
    let nothing = Payload { type_name: "google.protobuf.Empty".into(), value: [].into() };
    let facts = Start {
        name: name.clone(),
        uid: 1,
        api: "a".into(),
        method: "a.B.C".into(),
        queue: "a".into(),
        parent: "".into(),
        target: "".into(),
        actor: "".into(),
        request: nothing.clone(),
        metadata: nothing,
        traceparent: "".into(),
        parent_operation: None,
        deadline: None,
        start_by: None,
        request_id: None,
        policy: Policy::default(),
    };
    let now = clock.now();
    let key = Key::of_start(&facts);
    let starting = Arc::new(move |found: Option<&Operation>| start(found, facts.clone(), now));
    update(&store, key, starting).await;
    let claiming = Arc::new(move |found: Option<&Operation>| {
        let claim = Command::Claim { worker: "w".into(), claim_id: "".into(), lease: LEASE };
        apply(found.ok_or(Refusal::NotFound)?, claim, now)
    });
    update(&store, Key::Name(name.clone()), claiming).await;
    let sweeper = Sweeper {
        store: store.clone(),
        watch,
        clock: clock.clone(),
        lease: LEASE,
        lease_max: Duration::from_secs(3600),
    };
    (store, name, sweeper)
}

async fn update(store: &Arc<dyn Store>, key: Key, decide: longhaul_store::Decide) -> Applied {
    match store.update(key, Priority::Normal, decide).await {
        Ok(applied) => applied,
        Err(failure) => panic!("{:?}", failure.into_error(&OperationName::parse("o/a").unwrap())),
    }
}

/// Runs the sweeper until it has nothing more to do.
async fn sweep(clock: &Arc<Still>, sweeper: Sweeper) {
    let stop = CancellationToken::new();
    let sweeping = tokio::spawn(sweeper.run(stop.clone()));
    clock.idle.notified().await;
    stop.cancel();
    sweeping.await.unwrap();
}

#[tokio::test]
async fn race_a_jump_of_the_clock_is_no_silence_of_the_workers() {
    let clock = Arc::new(Still::default());
    let (store, name, sweeper) = running(&clock).await;
    clock.jump_micros.store(HOUR_MICROS, Ordering::SeqCst);
    sweep(&clock, sweeper).await;
    let operation = store.get(&name).await.unwrap().unwrap();
    let State::Running { lease } = &operation.state else { panic!("{operation:?}") };
    assert_eq!(lease.expires_at, clock.now() + LEASE, "a whole lease from now");
}

#[tokio::test]
async fn an_hour_of_silence_ends_a_lease() {
    let clock = Arc::new(Still::default());
    let (store, name, sweeper) = running(&clock).await;
    clock.now_micros.store(HOUR_MICROS, Ordering::SeqCst);
    sweep(&clock, sweeper).await;
    let operation = store.get(&name).await.unwrap().unwrap();
    assert_eq!(operation.state.name(), "QUEUED", "{operation:?}");
}
