//! The sweeper on a clock of the test's own: what a jump of the calendar does to leases, and what an
//! outage of one server and of all does.

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
use longhaul_server::config::Workers;
use longhaul_server::fleet::Fleet;
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
    let name = run_one(clock, &store).await;
    let fleet = fleet(clock, &store);
    (store.clone(), name, Sweeper { store, watch, clock: clock.clone(), fleet })
}

fn fleet(clock: &Arc<Still>, store: &Arc<dyn Store>) -> Arc<Fleet> {
    let workers = Workers { lease: LEASE, ..Workers::default() };
    Arc::new(Fleet::new(store.clone(), clock.clone(), &workers))
}

/// Starts an operation and gives it to a worker.
async fn run_one(clock: &Arc<Still>, store: &Arc<dyn Store>) -> OperationName {
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
    update(store, key, starting).await;
    let claiming = Arc::new(move |found: Option<&Operation>| {
        let claim = Command::Claim {
            worker: "w".into(),
            claim_id: "".into(),
            holder: "".into(),
            lease: LEASE,
        };
        apply(found.ok_or(Refusal::NotFound)?, claim, now)
    });
    update(store, Key::Name(name.clone()), claiming).await;
    name
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

/// A shared store on which an operation runs, and two servers that have said that they are there.
async fn two_servers(clock: &Arc<Still>) -> (Arc<dyn Store>, OperationName, [Arc<Fleet>; 2]) {
    let watch = Arc::new(Watch::new(clock.clone()));
    let store: Arc<dyn Store> = Arc::new(Memory::shared([0; 32], watch));
    let servers = [fleet(clock, &store), fleet(clock, &store)];
    for server in &servers {
        server.join().await.unwrap();
    }
    let name = run_one(clock, &store).await;
    (store, name, servers)
}

fn pass(clock: &Still, span: Duration) {
    let micros = i64::try_from(span.as_micros()).unwrap();
    clock.now_micros.fetch_add(micros, Ordering::SeqCst);
}

async fn lease_end(store: &Arc<dyn Store>, name: &OperationName) -> Timestamp {
    let operation = store.get(name).await.unwrap().unwrap();
    operation.lease().unwrap().expires_at
}

#[tokio::test]
async fn a_restart_of_one_server_of_two_renews_no_lease() {
    let clock = Arc::new(Still::default());
    let (store, name, [stays, _gone]) = two_servers(&clock).await;
    let before = lease_end(&store, &name).await;
    for _ in 0..10 {
        pass(&clock, Duration::from_secs(1));
        stays.say().await.unwrap();
    }
    let back = fleet(&clock, &store);
    back.say().await.unwrap();
    assert_eq!(lease_end(&store, &name).await, before);
    assert!(back.may_end_leases(clock.now()));
}

#[tokio::test]
async fn after_an_outage_of_all_servers_nobody_ends_a_lease_before_it_is_renewed() {
    let clock = Arc::new(Still::default());
    let (store, name, [one, other]) = two_servers(&clock).await;
    pass(&clock, Duration::from_secs(60));
    assert!(!one.may_end_leases(clock.now()), "it has not been heard for a minute");
    // The first to come back has found the outage and not yet made up for it.
    let found = store.present(clock.now()).await.unwrap();
    assert!(found.outage.is_some());
    other.say().await.unwrap();
    assert!(other.may_end_leases(clock.now()));
    assert_eq!(lease_end(&store, &name).await, clock.now() + LEASE, "the second did it as well");
    one.say().await.unwrap();
    assert_eq!(store.present(clock.now()).await.unwrap().outage, None, "it counts once");
}
