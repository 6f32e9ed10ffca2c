//! A small world for the claims: operations of two APIs, a listener that takes notes, short forms.

use std::sync::Arc;
use std::time::Duration;

use longhaul_core::{
    Applied, Cause, Changes, Command, Finish, Operation, OperationName, Payload, Policy, Refusal,
    RequestId, Start, State, Timestamp, apply, start,
};
use parking_lot::Mutex;

use super::Open;
use crate::{
    ClaimFilter, ClaimHint, Decide, Due, Failure, Key, ListQuery, Listener, ParentFilter, Priority,
    Store,
};

pub(crate) const API: &str = "clouddeploy.googleapis.com";
pub(crate) const OTHER_API: &str = "dataproc.googleapis.com";
pub(crate) const PARENT: &str = "projects/p/locations/l";

/// A moment, in whole seconds of the tests' own time.
pub(crate) fn at(seconds: u64) -> Timestamp {
    Timestamp::from_micros(1_700_000_000_000_000) + Duration::from_secs(seconds)
}

pub(crate) fn name(id: &str) -> OperationName {
    OperationName::parse(&format!("{PARENT}/operations/{id}")).unwrap()
}

/// The start of an operation called `id`; change what matters before using it.
pub(crate) fn a_start(id: &str) -> Start {
    Start {
        name: name(id),
        uid: id.bytes().fold(7, |uid: u128, byte| uid * 257 + u128::from(byte)),
        api: API.into(),
        method: "google.cloud.deploy.v1.CloudDeploy.CreateRelease".into(),
        queue: "default".into(),
        parent: PARENT.into(),
        target: format!("{PARENT}/targets/t").as_str().into(),
        actor: "someone@example.com".into(),
        request: payload("google.cloud.deploy.v1.CreateReleaseRequest", 200),
        metadata: payload("google.cloud.deploy.v1.OperationMetadata", 20),
        traceparent: "".into(),
        parent_operation: None,
        deadline: None,
        start_by: None,
        request_id: None,
        policy: Policy::default(),
    }
}

pub(crate) fn payload(type_name: &str, bytes: usize) -> Payload {
    let value: Vec<u8> = (0..bytes).map(|index| index as u8).collect();
    Payload { type_name: type_name.into(), value: value.into() }
}

pub(crate) fn request_id(value: &str, until: Timestamp) -> RequestId {
    RequestId { value: value.into(), until }
}

/// A listener that takes notes.
#[derive(Default)]
pub(crate) struct Notes {
    pub changes: Mutex<Vec<Applied>>,
    pub hints: Mutex<Vec<ClaimHint>>,
}

impl Listener for Notes {
    fn committed(&self, change: &Applied) {
        self.changes.lock().push(change.clone());
    }

    fn claimable(&self, hint: &ClaimHint) {
        self.hints.lock().push(hint.clone());
    }
}

/// A fresh store and what its listener heard.
#[derive(Clone)]
pub(crate) struct World {
    pub store: Arc<dyn Store>,
    pub notes: Arc<Notes>,
}

impl World {
    pub fn new(open: &Open) -> Self {
        let notes = Arc::new(Notes::default());
        Self { store: open(notes.clone()), notes }
    }

    pub async fn decide(
        &self,
        key: Key,
        decide: impl Fn(Option<&Operation>) -> Result<Applied, Refusal> + Send + Sync + 'static,
    ) -> Result<Applied, Failure> {
        self.store.update(key, Priority::Normal, Arc::new(decide)).await
    }

    pub async fn start_at(&self, with: Start, now: Timestamp) -> Result<Applied, Failure> {
        let key = Key::of_start(&with);
        self.decide(key, move |existing| start(existing, with.clone(), now)).await
    }

    /// Starts many at once and demands that all works.
    pub async fn start_all(&self, starts: impl Iterator<Item = Start>, now: Timestamp) {
        let mut waiting = tokio::task::JoinSet::new();
        for start in starts {
            let world = self.clone();
            waiting.spawn(async move { world.start_at(start, now).await.map(drop) });
        }
        while let Some(started) = waiting.join_next().await {
            started.unwrap().unwrap();
        }
    }

    /// Starts an operation called `id` at `now` and demands that it works.
    pub async fn started(&self, id: &str, now: Timestamp) -> Operation {
        self.start_at(a_start(id), now).await.unwrap().operation
    }

    pub async fn apply(
        &self,
        id: &str,
        command: Command,
        now: Timestamp,
    ) -> Result<Applied, Failure> {
        self.decide(Key::Name(name(id)), command_of(command, now)).await
    }

    pub async fn cancel(&self, id: &str, now: Timestamp) -> Result<Applied, Failure> {
        self.apply(id, a_cancel(), now).await
    }

    pub async fn claim(&self, filter: ClaimFilter, limit: usize, now: Timestamp) -> Vec<Operation> {
        let due = Due::Claim { filter, now, bytes_max: usize::MAX };
        let decide: Decide = Arc::new(command_of(a_claim(), now));
        let applied = self.store.update_due(due, limit, decide).await.unwrap();
        applied.into_iter().map(|applied| applied.operation).collect()
    }

    /// Claims one operation by name, at once.
    pub async fn run(&self, id: &str, now: Timestamp) -> Operation {
        self.apply(id, a_claim(), now).await.unwrap().operation
    }

    /// Runs and finishes an operation.
    pub async fn finish(&self, id: &str, now: Timestamp) -> Operation {
        let epoch = self.run(id, now).await.epoch;
        self.apply(id, a_success(epoch), now).await.unwrap().operation
    }

    pub async fn sweep(&self, limit: usize, now: Timestamp) -> Vec<Applied> {
        let decide: Decide = Arc::new(command_of(Command::Tick { jitter: 0 }, now));
        self.store.update_due(Due::Timer { now }, limit, decide).await.unwrap()
    }

    pub async fn read(&self, id: &str) -> Option<Operation> {
        self.store.get(&name(id)).await.unwrap().map(|operation| (*operation).clone())
    }

    pub async fn list(&self, query: ListQuery) -> Vec<String> {
        let page = self.store.list(query).await.unwrap();
        page.into_iter().map(|(_, operation)| operation.name.id().to_owned()).collect()
    }
}

pub(crate) fn a_query(limit: usize) -> ListQuery {
    ListQuery {
        api: API.into(),
        parent: ParentFilter::Matching(PARENT.into()),
        after: None,
        done: None,
        limit,
    }
}

pub(crate) fn a_claim() -> Command {
    Command::Claim {
        worker: "w".into(),
        claim_id: "c".into(),
        holder: "".into(),
        lease: Duration::from_secs(30),
    }
}

pub(crate) fn a_cancel() -> Command {
    Command::Cancel { cause: Cause::Client, actor: "someone".into(), reason: "".into() }
}

pub(crate) fn a_success(epoch: u64) -> Command {
    let response = payload("google.cloud.deploy.v1.Release", 100);
    let finish = Finish::Succeeded(response);
    Command::Finish { epoch, finish, changes: Changes::default(), jitter: 0 }
}

pub(crate) fn command_of(
    command: Command,
    now: Timestamp,
) -> impl Fn(Option<&Operation>) -> Result<Applied, Refusal> + Send + Sync + 'static {
    move |operation| apply(operation.ok_or(Refusal::NotFound)?, command.clone(), now)
}

/// A change that only counts: the simplest thing that raises the revision.
pub(crate) fn counting(
    now: Timestamp,
) -> impl Fn(Option<&Operation>) -> Result<Applied, Refusal> + Send + Sync + 'static {
    move |operation| {
        let mut operation = operation.ok_or(Refusal::NotFound)?.clone();
        operation.attempt += 1;
        operation.revision += 1;
        operation.update_time = now;
        Ok(Applied { operation, events: Vec::new(), forget: false })
    }
}

pub(crate) fn ids(operations: &[Operation]) -> Vec<&str> {
    operations.iter().map(|operation| operation.name.id()).collect()
}

pub(crate) fn is_done(operation: &Operation) -> bool {
    matches!(operation.state, State::Done { .. })
}

#[track_caller]
pub(crate) fn refused(result: Result<Applied, Failure>) -> Refusal {
    match result {
        Err(Failure::Refused(refusal)) => refusal,
        Err(Failure::Store(error)) => panic!("the store failed: {error}"),
        Ok(applied) => panic!("not refused: {applied:?}"),
    }
}
