//! Bulk cancels: cancelling whatever a filter fits, as an operation of Longhaul's own that this server
//! works on itself.
//!
//! Owns the pace and the record of what came of each. The record is the operation's metadata; its
//! checkpoint notes every page before it is asked, so that a crash neither forgets nor misreports one.

mod asker;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use longhaul_core::{
    Cause, Changes, Command, Desired, Effects, Error, Finish, Operation, OperationName, Payload,
    Policy, Progress, Reason, Refusal, Retry, Start, Timestamp, apply,
};
use longhaul_store::{
    ClaimFilter, Cursor, Due, Failure, Key, ListQuery, OWN_API, ParentFilter, Priority, Store,
};
use longhaul_wire::api::Api;
use longhaul_wire::apis::Apis;
use longhaul_wire::list::Filter;
use longhaul_wire::v1::cancel_response::Outcome as Came;
use longhaul_wire::v1::{self, BulkCancelProgress, BulkCancelRequest};
use prost::Message as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::audit::Audit;
use crate::bulk::asker::Asker;
use crate::call::Caller;
use crate::clock::Clock;
use crate::config::Limits;
use crate::operations::{draw, list_parent};
use crate::operators::came_of;
use crate::watch::Watch;

/// What is said of an operation that whoever asked may not cancel.
const DENIED: &str = Reason::IamPermissionDenied.name();
const METHOD: &str = "longhaul.v1.Operators.BulkCancel";
const WORKER: &str = "longhaul";
/// Silence after which another server takes over.
const LEASE: Duration = Duration::from_secs(30);
/// Operations asked at once; they share a commit.
const PAGE_MAX: usize = 100;
/// Rows read at once in the search for those that fit.
const ROWS: usize = 256;
/// Rows looked at for one page, however few fit, so that a lease is renewed in time.
const SCAN_MAX: usize = 20_000;
/// Bulk cancels worked on at a time; others wait in the queue.
const RUNNING_MAX: usize = 4;
/// Operations recorded one by one; the counts go on.
const ITEMS_MAX: usize = 1_000;
/// Names in the answer to a dry run.
const NAMES_MAX: usize = 100;
/// Longest pause between two looks for work.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Pause after the store failed.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(250);

/// What bulk cancels work with.
#[derive(Clone)]
pub struct BulkCancels {
    /// The loaded APIs.
    pub apis: Arc<Apis>,
    /// Rows.
    pub store: Arc<dyn Store>,
    /// Who hears of changes.
    pub watch: Arc<Watch>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Limits.
    pub limits: Limits,
    /// Where cancels are recorded.
    pub audit: Option<Arc<Audit>>,
    /// Who may cancel what.
    pub access: Arc<Access>,
}

/// Where a bulk cancel stands; kept in its checkpoint.
#[derive(Clone, PartialEq, prost::Message)]
struct Place {
    /// Cursor of the last row looked at.
    #[prost(bytes = "vec", tag = "1")]
    after: Vec<u8>,
    /// Those to be asked now.
    #[prost(string, repeated, tag = "2")]
    page: Vec<String>,
    /// No row comes after these.
    #[prost(bool, tag = "3")]
    last: bool,
}

/// Which operations are meant.
struct Chosen {
    api: Arc<Api>,
    parent: ParentFilter,
    filter: Filter,
}

impl Chosen {
    fn of(request: &BulkCancelRequest, api: Arc<Api>) -> Result<Self, Error> {
        let parent = match request.parent.as_str() {
            "" => ParentFilter::Any,
            parent => list_parent(&api, parent)?,
        };
        let filter = Filter::parse(&request.filter, &api)?;
        Ok(Self { api, parent, filter })
    }

    /// Up to `limit` operations that fit and `wanted` takes, those not done only, from after a place on.
    async fn page(
        &self,
        store: &dyn Store,
        mut after: Cursor,
        limit: usize,
        now: Timestamp,
        wanted: impl Fn(&Operation) -> bool,
    ) -> Result<Place, Error> {
        let (mut page, mut scanned) = (Vec::new(), 0);
        loop {
            let query = ListQuery {
                api: self.api.name().clone(),
                parent: self.parent.clone(),
                after: Some(after),
                done: Some(false),
                limit: ROWS,
            };
            let rows = store.list(query).await?;
            let last = rows.len() < ROWS;
            scanned += rows.len();
            for (cursor, operation) in rows {
                if page.len() == limit {
                    return Ok(Place { after: after.to_bytes().to_vec(), page, last: false });
                }
                after = cursor;
                let fits = self.filter.matches(&operation, &self.api);
                if operation.visible(now) && fits && wanted(&operation) {
                    page.push(operation.name.to_string());
                }
            }
            if last || page.len() == limit || scanned >= SCAN_MAX {
                return Ok(Place { after: after.to_bytes().to_vec(), page, last });
            }
        }
    }
}

impl BulkCancels {
    /// Counts what would be asked, or starts an operation that asks.
    pub(crate) async fn start(
        &self,
        request: BulkCancelRequest,
        api: Arc<Api>,
        caller: &Caller,
    ) -> Result<v1::BulkCancelResponse, Error> {
        let now = self.clock.now();
        let request = BulkCancelRequest { api: api.name().to_string(), ..request };
        let chosen = Chosen::of(&request, api)?;
        let asker = Asker::of(&caller.identity, &self.access);
        if let Err(refused) =
            self.access.may_cancel_all(&caller.identity, &chosen.api, &request.parent)
        {
            // Some of them may still be theirs to cancel.
            let any = chosen.page(&*self.store, youngest(now), 1, now, |row| asker.may(row));
            if any.await?.page.is_empty() {
                return Err(refused);
            }
        }
        if request.dry_run {
            return self.count(&chosen, &asker, now).await;
        }
        let (uid, _) = draw(now)?;
        let id = uuid::Uuid::from_u128(uid);
        let name = OperationName::parse(&format!("longhaul/operations/{id}"))?;
        let start = Start {
            name: name.clone(),
            uid,
            api: OWN_API.into(),
            method: METHOD.into(),
            queue: OWN_API.into(),
            parent: "longhaul".into(),
            target: request.parent.as_str().into(),
            actor: caller.identity.actor(),
            request: Payload {
                type_name: "longhaul.v1.BulkCancelRequest".into(),
                value: asker.keep(&request).into(),
            },
            metadata: payload(&BulkCancelProgress::default()),
            traceparent: "".into(),
            parent_operation: None,
            deadline: None,
            start_by: None,
            request_id: None,
            policy: Policy {
                retry: Retry { attempts_max: u32::MAX, ..Retry::default() },
                ..Policy::default()
            },
        };
        let decide = Arc::new(move |existing: Option<&Operation>| {
            longhaul_core::start(existing, start.clone(), now)
        });
        let started = self.store.update(Key::Name(name.clone()), Priority::Urgent, decide).await;
        caller.made.note(&started.map_err(|failure| failure.into_error(&name))?);
        Ok(v1::BulkCancelResponse { operation: name.to_string(), ..Default::default() })
    }

    async fn count(
        &self,
        chosen: &Chosen,
        asker: &Asker,
        now: Timestamp,
    ) -> Result<v1::BulkCancelResponse, Error> {
        let mut answer = v1::BulkCancelResponse::default();
        let mut after = youngest(now);
        loop {
            let may = |row: &Operation| asker.may(row);
            let place = chosen.page(&*self.store, after, ROWS, now, may).await?;
            answer.matched += place.page.len() as u64;
            let room = NAMES_MAX - answer.names.len();
            answer.names.extend(place.page.iter().take(room).cloned());
            if place.last {
                return Ok(answer);
            }
            after = cursor(&place, now);
        }
    }

    /// Works on bulk cancels until `stop`; those under way are given back.
    pub async fn run(self, stop: CancellationToken) {
        // Where several servers share a store, what another one works on is not ours to take: its lease ends
        // by itself when it has gone.
        if !self.store.is_shared()
            && let Err(error) = self.take_back().await
        {
            tracing::error!(%error, "bulk cancels of before go on when their leases have ended");
        }
        let filter = ClaimFilter { api: Some(OWN_API.into()), ..ClaimFilter::default() };
        let mut running = JoinSet::new();
        while !stop.is_cancelled() {
            let claims = self.watch.claims(filter.clone());
            match self.claim(&filter, RUNNING_MAX - running.len()).await {
                Ok(claimed) => {
                    for operation in claimed {
                        running.spawn(self.clone().work(operation, stop.clone()));
                    }
                }
                Err(error) => tracing::error!(%error, "no bulk cancel can be taken; trying again"),
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = claims.claimable() => {}
                () = self.clock.sleep(LOOK_EVERY) => {}
                Some(_) = running.join_next() => {}
            }
        }
        while running.join_next().await.is_some() {}
    }

    /// Whatever this store's last server was at.
    async fn take_back(&self) -> Result<(), Error> {
        let query = ListQuery {
            api: OWN_API.into(),
            parent: ParentFilter::Any,
            after: None,
            done: Some(false),
            limit: ROWS,
        };
        for (_, operation) in self.store.list(query).await? {
            let release = Command::Release { epoch: operation.epoch, changes: Changes::default() };
            if let Err(Failure::Store(error)) = self.apply(&operation.name, release).await {
                return Err(error);
            }
        }
        Ok(())
    }

    async fn claim(&self, filter: &ClaimFilter, max: usize) -> Result<Vec<Operation>, Error> {
        if max == 0 {
            return Ok(Vec::new());
        }
        let now = self.clock.now();
        let decide = Arc::new(move |operation: Option<&Operation>| {
            let command = Command::Claim {
                worker: WORKER.into(),
                claim_id: "".into(),
                holder: "".into(),
                lease: LEASE,
            };
            apply(operation.ok_or(Refusal::NotFound)?, command, now)
        });
        let due = Due::Claim { filter: filter.clone(), now, bytes_max: usize::MAX };
        let claimed = self.store.update_due(due, max, decide).await?;
        Ok(claimed.into_iter().map(|applied| applied.operation).collect())
    }

    async fn apply(&self, name: &OperationName, command: Command) -> Result<Operation, Failure> {
        let now = self.clock.now();
        let decide = Arc::new(move |operation: Option<&Operation>| {
            apply(operation.ok_or(Refusal::NotFound)?, command.clone(), now)
        });
        let applied = self.store.update(Key::Name(name.clone()), Priority::Normal, decide).await?;
        Ok(applied.operation)
    }

    async fn work(self, claimed: Operation, stop: CancellationToken) {
        let mut work = match Work::resume(&self, &claimed) {
            Ok(work) => work,
            Err(error) => {
                // Checked at the start: only an API that is served no more leads here.
                let status = longhaul_core::Status {
                    code: error.code(),
                    message: error.message,
                    details: Vec::new(),
                };
                let finish = Finish::Failed { status, retryable: false, effects: None };
                let (epoch, changes) = (claimed.epoch, Changes::default());
                let finish = Command::Finish { epoch, finish, changes, jitter: 0 };
                if let Err(error) = self.apply(&claimed.name, finish).await {
                    tracing::error!(%error, "a bulk cancel that cannot go on cannot be ended");
                }
                return;
            }
        };
        loop {
            match work.step(&stop).await {
                Ok(true) => {}
                Ok(false) | Err(Failure::Refused(_)) => return,
                Err(Failure::Store(error)) => {
                    tracing::error!(%error, "a bulk cancel is held up; trying again");
                    if stop.is_cancelled() {
                        return;
                    }
                    self.clock.sleep(PAUSE_AFTER_FAILURE).await;
                }
            }
        }
    }
}

/// One bulk cancel under way.
struct Work<'a> {
    bulk: &'a BulkCancels,
    name: OperationName,
    epoch: u64,
    /// Who started it; the cancels are theirs.
    actor: Arc<str>,
    asker: Asker,
    reason: Arc<str>,
    chosen: Chosen,
    place: Place,
    progress: BulkCancelProgress,
    begun: Timestamp,
}

impl<'a> Work<'a> {
    fn resume(bulk: &'a BulkCancels, claimed: &Operation) -> Result<Self, Error> {
        let unreadable = |error: prost::DecodeError| {
            Error::new(Reason::Internal, "a bulk cancel cannot be read").caused_by(error)
        };
        let request = BulkCancelRequest::decode(&*claimed.request.value).map_err(unreadable)?;
        let progress = BulkCancelProgress::decode(&*claimed.metadata.value).map_err(unreadable)?;
        let place = match &claimed.checkpoint {
            Some(bytes) => Place::decode(&**bytes).map_err(unreadable)?,
            None => Place::default(),
        };
        let api = bulk.apis.get(&request.api).cloned().ok_or_else(|| {
            Error::new(
                Reason::MethodNotFound,
                format!("API {} is not served any more; configure it again", request.api),
            )
        })?;
        // The name tells those that this one reached before a crash from those that others cancelled.
        let reason = match request.reason.as_str() {
            "" => format!("bulk cancel {}", claimed.name),
            reason => format!("{reason} (bulk cancel {})", claimed.name),
        };
        Ok(Self {
            bulk,
            name: claimed.name.clone(),
            epoch: claimed.epoch,
            actor: claimed.actor.clone(),
            asker: Asker::kept(&claimed.request.value, &bulk.access).map_err(unreadable)?,
            reason: reason.into(),
            chosen: Chosen::of(&request, api)?,
            place,
            progress,
            begun: claimed.create_time,
        })
    }

    /// Asks one page and notes the next. False when there is nothing more to do.
    async fn step(&mut self, stop: &CancellationToken) -> Result<bool, Failure> {
        let bulk = self.bulk;
        let row = bulk.store.get(&self.name).await.map_err(Failure::Store)?;
        match row.map(|row| row.desired(self.epoch)) {
            Some(Desired::Continue) => {}
            Some(Desired::Cancel(_)) => return self.end_cancelled().await,
            Some(Desired::Stop(_)) | None => return Ok(false),
        }
        if stop.is_cancelled() {
            let (epoch, changes) = (self.epoch, Changes::default());
            bulk.apply(&self.name, Command::Release { epoch, changes }).await?;
            return Ok(false);
        }
        let began = bulk.clock.now();
        let asked = self.place.page.len();
        let progress = self.ask().await?;
        if self.place.last {
            let finish = Finish::Succeeded(payload(&progress));
            self.finish(finish, told(&progress)).await?;
            return Ok(false);
        }
        let rate = bulk.limits.bulk_cancels_per_second.max(1);
        let limit = PAGE_MAX.min(rate as usize);
        let after = cursor(&self.place, self.begun);
        let next = self.chosen.page(&*bulk.store, after, limit, began, |_| true).await;
        let place = next.map_err(Failure::Store)?;
        let changes = Changes { checkpoint: Some(place.encode_to_vec().into()), ..told(&progress) };
        let (epoch, lease) = (self.epoch, LEASE);
        bulk.apply(&self.name, Command::Renew { epoch, lease, changes }).await?;
        (self.place, self.progress) = (place, progress);
        let pace = Duration::from_secs_f64(asked as f64 / f64::from(rate));
        self.pause(began + pace, stop).await?;
        Ok(true)
    }

    /// Asks those of the page at once; what came of it is added to a copy of the record.
    async fn ask(&self) -> Result<BulkCancelProgress, Failure> {
        let names = self.place.page.iter().filter_map(|name| OperationName::parse(name).ok());
        let asked = join_all(names.map(|name| self.cancel(name))).await;
        let mut progress = self.progress.clone();
        for item in asked {
            let item = item?;
            if item.error != DENIED {
                progress.matched += 1;
            }
            let what = match item.error.as_str() {
                "" => item.outcome().as_str_name(),
                reason => reason,
            };
            *progress.outcomes.entry(what.to_owned()).or_insert(0) += 1;
            if progress.items.len() < ITEMS_MAX {
                progress.items.push(item);
            }
        }
        Ok(progress)
    }

    async fn cancel(&self, name: OperationName) -> Result<v1::BulkCancelItem, Failure> {
        let now = self.bulk.clock.now();
        let (actor, reason) = (self.actor.clone(), self.reason.clone());
        let decide = Arc::new(move |operation: Option<&Operation>| {
            let (actor, reason) = (actor.clone(), reason.clone());
            let command = Command::Cancel { cause: Cause::Client, actor, reason };
            apply(operation.ok_or(Refusal::NotFound)?, command, now)
        });
        let mut item = v1::BulkCancelItem { name: name.to_string(), ..Default::default() };
        let row = self.bulk.store.get(&name).await.map_err(Failure::Store)?;
        if let Some(row) = row
            && let Err(refused) = self.asker.check(&row)
        {
            if let Some(audit) = &self.bulk.audit {
                audit.note_withheld(&row, &self.actor, &refused, ("bulkCancel", &self.name));
            }
            item.error = DENIED.to_owned();
            return Ok(item);
        }
        match self.bulk.store.update(Key::Name(name.clone()), Priority::Normal, decide).await {
            Ok(applied) => {
                if let Some(audit) = &self.bulk.audit {
                    audit.note_carried(&applied, ("bulkCancel", &self.name));
                }
                let operation = &applied.operation;
                let ours = operation.cancel.as_ref().is_some_and(|it| it.reason == self.reason);
                let came = came_of(&applied).outcome();
                item.set_outcome(match came {
                    Came::AlreadyDone if ours => Came::Cancelled,
                    Came::AlreadyRequested if ours => Came::Requested,
                    Came::AlreadyDone
                    | Came::AlreadyRequested
                    | Came::Requested
                    | Came::Cancelled
                    | Came::TooLate
                    | Came::Unspecified => came,
                });
            }
            Err(Failure::Refused(refusal)) => {
                item.error = refusal.into_error(&name).reason.name().to_owned();
            }
            Err(failure @ Failure::Store(_)) => return Err(failure),
        }
        Ok(item)
    }

    async fn end_cancelled(&self) -> Result<bool, Failure> {
        let asked = self.progress.matched;
        let effects = if asked == 0 { Effects::None } else { Effects::Partial };
        let message = format!("stopped after {asked} operations had been asked to stop");
        self.finish(Finish::Cancelled { effects, message }, Changes::default()).await?;
        Ok(false)
    }

    async fn finish(&self, finish: Finish, changes: Changes) -> Result<(), Failure> {
        let finish = Command::Finish { epoch: self.epoch, finish, changes, jitter: 0 };
        self.bulk.apply(&self.name, finish).await.map(drop)
    }

    /// Keeps the pace, but no longer than until somebody cancels or the server stops.
    async fn pause(&self, until: Timestamp, stop: &CancellationToken) -> Result<(), Failure> {
        let bulk = self.bulk;
        let changes = bulk.watch.operations(vec![self.name.clone()]);
        loop {
            let row = bulk.store.get(&self.name).await.map_err(Failure::Store)?;
            let go_on = row.is_some_and(|row| row.desired(self.epoch) == Desired::Continue);
            let left = until.since(bulk.clock.now());
            if !go_on || left.is_zero() || stop.is_cancelled() {
                return Ok(());
            }
            tokio::select! {
                () = bulk.clock.sleep(left) => {}
                _ = changes.changed() => {}
                () = stop.cancelled() => {}
            }
        }
    }
}

/// Before all that exist at a moment: what starts later is never reached.
fn youngest(now: Timestamp) -> Cursor {
    Cursor { create_time: now, uid: u128::MAX }
}

fn cursor(place: &Place, begun: Timestamp) -> Cursor {
    place.after.as_slice().try_into().map_or_else(|_| youngest(begun), Cursor::from_bytes)
}

fn told(progress: &BulkCancelProgress) -> Changes {
    let message = format!("{} operations asked", progress.matched).as_str().into();
    Changes {
        metadata: Some(payload(progress)),
        progress: Some(Progress { message, ..Progress::default() }),
        ..Changes::default()
    }
}

fn payload(progress: &BulkCancelProgress) -> Payload {
    Payload {
        type_name: "longhaul.v1.BulkCancelProgress".into(),
        value: progress.encode_to_vec().into(),
    }
}
