//! What both measuring programs do: operations that are started, claimed and finished, by many clients at once.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use longhaul_core::{
    Applied, Changes, Command, Finish, Operation, OperationName, Payload, Policy, Refusal, Start,
    Timestamp, apply, start,
};
use longhaul_store::{ClaimFilter, Due, Key, Priority, Store};

/// The same as the server has.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

pub type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

pub const API: &str = "clouddeploy.googleapis.com";
pub const PARENT: &str = "projects/p/locations/us-central1";

pub fn name_of(id: u64) -> Outcome<OperationName> {
    Ok(OperationName::parse(&format!("{PARENT}/operations/operation-1700000000000-{id:016x}"))?)
}

pub fn now() -> Timestamp {
    let micros = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_micros());
    Timestamp::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
}

pub async fn start_one(store: &dyn Store, id: u64) -> Outcome<()> {
    let now = now();
    let with = Start {
        name: name_of(id)?,
        uid: (now.as_micros() as u128) << 64 | u128::from(id),
        api: API.into(),
        method: "google.cloud.deploy.v1.CloudDeploy.CreateRelease".into(),
        queue: "clouddeploy".into(),
        parent: PARENT.into(),
        target: format!("{PARENT}/releases/r{id}").into(),
        actor: "".into(),
        request: payload("google.cloud.deploy.v1.CreateReleaseRequest", 200),
        metadata: payload("google.cloud.deploy.v1.OperationMetadata", 0),
        traceparent: "".into(),
        parent_operation: None,
        deadline: None,
        start_by: None,
        request_id: None,
        policy: Policy::default(),
    };
    let key = Key::Name(with.name.clone());
    let decide = Arc::new(move |existing: Option<&_>| start(existing, with.clone(), now));
    store.update(key, Priority::Normal, decide).await?;
    Ok(())
}

pub async fn change(store: &dyn Store, name: OperationName, command: Command) -> Outcome<Applied> {
    let now = now();
    let decide = Arc::new(move |operation: Option<&Operation>| {
        apply(operation.ok_or(Refusal::NotFound)?, command.clone(), now)
    });
    Ok(store.update(Key::Name(name), Priority::Normal, decide).await?)
}

pub async fn claim_one(store: &dyn Store) -> Outcome<Vec<Applied>> {
    let now = now();
    let claim = Command::Claim {
        worker: "w".into(),
        claim_id: "".into(),
        holder: "".into(),
        lease: Duration::from_secs(30),
    };
    let due = Due::Claim { filter: ClaimFilter::default(), now, bytes_max: usize::MAX };
    let decide = Arc::new(move |operation: Option<&Operation>| {
        apply(operation.ok_or(Refusal::NotFound)?, claim.clone(), now)
    });
    Ok(store.update_due(due, 1, decide).await?)
}

pub async fn finish_one(store: &dyn Store) -> Outcome<()> {
    for claimed in claim_one(store).await? {
        let finish = Command::Finish {
            epoch: claimed.operation.epoch,
            finish: Finish::Succeeded(payload("google.cloud.deploy.v1.Release", 100)),
            changes: Changes::default(),
            jitter: 0,
        };
        change(store, claimed.operation.name, finish).await?;
    }
    Ok(())
}

/// Clients that start operations, or see them through whole lives, as fast as they are answered.
pub struct Load {
    pub clients: usize,
    pub life: bool,
    /// Number of the first operation.
    pub first: u64,
    pub warm_up: Duration,
    pub span: Duration,
}

/// What came of a load.
pub struct Measured {
    /// Operations a second, once warmed up.
    pub rate: f64,
    /// How long each took, the shortest first.
    pub waits: Vec<Duration>,
}

impl Load {
    pub async fn run(self, store: &Arc<dyn Store>) -> Outcome<Measured> {
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let Self { clients, life, first, warm_up, span } = self;
        let tasks: Vec<_> = (0..clients as u64)
            .map(|client| {
                let (store, stop, count) = (store.clone(), stop.clone(), count.clone());
                tokio::spawn(async move {
                    let mut waits = Vec::new();
                    let ids = (first + client..).step_by(clients);
                    for id in ids.take_while(|_| !stop.load(Ordering::Relaxed)) {
                        let begun = Instant::now();
                        start_one(&*store, id).await?;
                        if life {
                            finish_one(&*store).await?;
                        }
                        waits.push(begun.elapsed());
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    Outcome::Ok(waits)
                })
            })
            .collect();
        tokio::time::sleep(warm_up).await;
        let (before, begun) = (count.load(Ordering::Relaxed), Instant::now());
        tokio::time::sleep(span).await;
        let rate = (count.load(Ordering::Relaxed) - before) as f64 / begun.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        let mut waits = Vec::new();
        for task in tasks {
            waits.extend(task.await??);
        }
        waits.sort_unstable();
        Ok(Measured { rate, waits })
    }
}

impl Measured {
    /// What this share of all took at most, in milliseconds.
    pub fn at(&self, share: f64) -> f64 {
        self.waits[((self.waits.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3
    }
}

fn payload(type_name: &str, bytes: usize) -> Payload {
    Payload { type_name: type_name.into(), value: vec![7; bytes].into() }
}
