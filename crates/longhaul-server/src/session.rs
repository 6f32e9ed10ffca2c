//! One worker's session: a stream in both directions for as long as the worker lives.
//!
//! Owns what the worker holds and what it was last told. Everything it says comes from the rows, so a
//! lost stream loses nothing: the next session begins with the whole desired set again. Taking work is
//! `claimer.rs`.

mod claimer;

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, Stream, StreamExt as _};
use longhaul_auth::Identity;
use longhaul_auth::refusal::{self, Asked};
use longhaul_core::{Applied, Code, Epoch, Error, Operation, OperationName, Reason, Timestamp};
use longhaul_wire::v1;
use longhaul_wire::v1::desired_state::Action;
use prost::Message as _;
use tokio::sync::{mpsc, watch};

use self::claimer::{Claimer, Taken, give_back};
use crate::call::Caller;
use crate::watch::Subscription;
use crate::workers::{Claimant, Workers, wanted};

/// Requests of one session as they arrive; an error ends it.
pub(crate) type Requests = Pin<Box<dyn Stream<Item = Result<v1::SessionRequest, Error>> + Send>>;
type Reporting = Pin<Box<dyn Future<Output = (u64, Vec<v1::ReportResult>)> + Send>>;

/// Bytes of one request: the name and epoch of every operation in a full session fit.
pub(crate) const REQUEST_BYTES_MAX: usize = 16 << 20;
/// Most slots of one session; each held operation costs about 200 bytes here.
const SLOTS_MAX: u32 = 100_000;
/// Answers that may wait for a slow worker before the session stops working for it.
const ANSWERS_MAX: usize = 16;
/// Reports of one session that may be on their way to the store at once; further ones are not read yet.
const REPORTS_MAX: usize = 1024;
/// Updates in one answer: with reasons of 1 KiB they stay well below the 4 MiB that gRPC clients read.
const UPDATES_MAX: usize = 1_000;
/// Rows read in one go; they are in memory together.
const READ_AT_ONCE: usize = 1_000;
/// Bytes of assignments in one answer, unless a single one has more.
const ASSIGNED_BYTES_MAX: usize = 1 << 20;

/// Longest time that a silent worker gets nothing more. By then HTTP/2's keep-alive has ended the connection
/// of one that is really gone.
const SHUN_MAX: Duration = Duration::from_secs(60);

/// What the worker was last told about one operation.
struct Held {
    epoch: Epoch,
    told: i32,
    /// Until when its lease runs, as far as this session has seen.
    leased_until: Timestamp,
}

struct Session {
    workers: Arc<Workers>,
    /// Whose credential the worker showed.
    identity: Arc<Identity>,
    slots: usize,
    lease: Duration,
    /// When the worker last said something here.
    heard_at: Timestamp,
    /// Nothing is assigned until then, or until the worker is heard: it let a lease run out, and may be
    /// frozen. Its connection alone does not show that; it would cost every operation an attempt.
    shunned_until: Option<Timestamp>,
    /// How many operations were handed over by the claimer so far.
    assigned: usize,
    /// Tells the claimer how many it may take in all.
    allowed: watch::Sender<usize>,
    /// What the claimer took.
    taken: mpsc::Receiver<Taken>,
    held: HashMap<OperationName, Held>,
    changes: Subscription,
    answers: mpsc::Sender<Result<v1::SessionResponse, Error>>,
}

/// Why a session is over.
struct Over;

impl Workers {
    /// Runs a session until either side ends it; the receiver carries what goes to the worker.
    pub(crate) fn session(
        self: &Arc<Self>,
        requests: Requests,
        caller: Caller,
    ) -> mpsc::Receiver<Result<v1::SessionResponse, Error>> {
        let (answers, receiver) = mpsc::channel(ANSWERS_MAX);
        let workers = self.clone();
        tokio::spawn(async move {
            let failed = answers.clone();
            if let Err(error) = run(workers, caller.identity, requests, answers).await {
                crate::log_failure(&error);
                // The worker may be gone already; then nobody needs to hear why.
                let _ = failed.send(Err(error)).await;
            }
        });
        receiver
    }
}

async fn run(
    workers: Arc<Workers>,
    identity: Arc<Identity>,
    mut requests: Requests,
    answers: mpsc::Sender<Result<v1::SessionResponse, Error>>,
) -> Result<(), Error> {
    let _place = workers.watch.hold(workers.limits.held_calls_max).ok_or_else(|| {
        crate::call::overloaded("too many calls are held open; open the session again shortly")
    })?;
    let first = tokio::select! {
        first = requests.next() => first,
        () = workers.draining.cancelled() => return Ok(()),
        () = workers.clock.sleep(workers.limits.read_timeout) => {
            return Err(wrong("the request that opens a session did not come in time"));
        }
    };
    let open = match first.transpose()?.and_then(|first| first.request) {
        Some(v1::session_request::Request::Open(open)) => open,
        Some(v1::session_request::Request::Report(_) | v1::session_request::Request::Slots(_)) => {
            return Err(wrong("the first request of a session must open it; send open first"));
        }
        None => return Err(wrong("the first request of a session names nothing; set open")),
    };
    let mut session = Session::open(workers, identity, &open, answers)?;
    if session.greet(open.held).await?.is_ok() {
        session.serve(requests).await?;
    }
    session.give_back_untold();
    Ok(())
}

impl Session {
    fn open(
        workers: Arc<Workers>,
        identity: Arc<Identity>,
        open: &v1::SessionOpen,
        answers: mpsc::Sender<Result<v1::SessionResponse, Error>>,
    ) -> Result<Self, Error> {
        let lease = workers.lease(open.lease.as_ref())?;
        let (allowed, allowed_now) = watch::channel(0);
        let (send_taken, taken) = mpsc::channel(1);
        let asked = crate::workers::filter(&open.methods, &open.queues)?;
        let claimer = Claimer {
            workers: workers.clone(),
            claimant: Claimant {
                identity: identity.clone(),
                worker: crate::workers::worker_name(&open.worker)?,
                claim_id: Arc::default(),
                filter: workers.access.claimable(&identity, &asked)?,
                asked,
                lease,
            },
            allowed: allowed_now,
            taken: send_taken,
        };
        let slots = slots(open.slots)?;
        if open.held.len() > SLOTS_MAX as usize {
            let count = open.held.len();
            let what = format!("has {count} entries; at most 100,000 fit into one session");
            return Err(Error::new(Reason::InvalidValue, format!("open.held {what}"))
                .at_field("open.held", what));
        }
        tokio::spawn(claimer.run());
        let changes = workers.watch.operations(Vec::new());
        Ok(Self {
            heard_at: workers.clock.now(),
            shunned_until: None,
            workers,
            identity,
            slots,
            lease,
            assigned: 0,
            allowed,
            taken,
            held: HashMap::new(),
            changes,
            answers,
        })
    }

    /// Says what is wanted of everything that the worker believes it holds. At most one claim of each
    /// operation still counts; only that one is kept in mind.
    async fn greet(&mut self, held: Vec<v1::Held>) -> Result<Result<(), Over>, Error> {
        let mut desired = Vec::with_capacity(held.len());
        for some in held.chunks(READ_AT_ONCE) {
            let names = some.iter().map(|one| OperationName::parse(&one.operation));
            let names = names.collect::<Result<Vec<_>, _>>()?;
            names.iter().for_each(|name| self.changes.add(name.clone()));
            let found = self.workers.store.get_many(&names).await?;
            for ((one, name), found) in some.iter().zip(&names).zip(found) {
                let found = found.as_deref();
                let (wanted, lease) =
                    self.workers.wanted_of(name, found, one.epoch, &self.identity);
                if wanted.action != Action::Stop as i32 {
                    let leased_until = lease.unwrap_or(self.heard_at);
                    let held = Held { epoch: one.epoch, told: wanted.action, leased_until };
                    self.held.insert(name.clone(), held);
                }
                desired.push(update(name, one.epoch, wanted));
            }
            // Only now: of two claims of one operation the later one may be the one that counts.
            for name in names.iter().filter(|name| !self.held.contains_key(*name)) {
                self.changes.remove(name);
            }
        }
        Ok(self.tell_desired(desired, true).await)
    }

    /// Works until either side ends the session. Reports that had come by then are still applied.
    async fn serve(&mut self, mut requests: Requests) -> Result<(), Error> {
        let mut reporting: FuturesUnordered<Reporting> = FuturesUnordered::new();
        let served = loop {
            match self.step(&mut requests, &mut reporting).await {
                Ok(Ok(())) => {}
                Ok(Err(Over)) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        while let Some((id, results)) = reporting.next().await {
            // Nobody may be there to hear it; what was reported counts all the same.
            let _ = self.answer(id, results).await?;
        }
        served
    }

    async fn step(
        &mut self,
        requests: &mut Requests,
        reporting: &mut FuturesUnordered<Reporting>,
    ) -> Result<Result<(), Over>, Error> {
        let shunned_for = self.shunned_for();
        let slots = if shunned_for.is_some() { 0 } else { self.slots };
        let allowed = self.assigned + slots.saturating_sub(self.held.len());
        self.allowed.send_if_modified(|told| std::mem::replace(told, allowed) != allowed);
        let draining = self.workers.draining.clone();
        let clock = self.workers.clock.clone();
        let over = self.identity.expires_at;
        let over_in = over.map(|over| over.since(clock.now()));
        let has_room = reporting.len() < REPORTS_MAX;
        tokio::select! {
            biased;
            changed = self.changes.changed() => self.look_at(changed).await,
            Some((id, results)) = reporting.next(), if !reporting.is_empty() => {
                self.answer(id, results).await
            }
            taken = self.taken.recv() => self.assign(taken).await,
            () = draining.cancelled() => Ok(Err(Over)),
            () = clock.sleep(over_in.unwrap_or_default()), if over_in.is_some() => {
                let method = "longhaul.v1.Workers.Session";
                let asked = Asked { service: crate::call::DOMAIN, method };
                Err(refusal::credentials_expired(asked))
            }
            request = requests.next(), if has_room => self.hear(request, reporting),
            () = clock.sleep(shunned_for.unwrap_or_default()), if shunned_for.is_some() => Ok(Ok(())),
        }
    }

    /// How long nothing is to be assigned.
    fn shunned_for(&self) -> Option<Duration> {
        let left = self.shunned_until?.since(self.workers.clock.now());
        (!left.is_zero()).then_some(left)
    }

    fn shun(&mut self) {
        if self.shunned_for().is_none() {
            self.shunned_until = Some(self.workers.clock.now() + SHUN_MAX);
        }
    }

    /// Whether the worker has said nothing in the whole of a lease that is over now.
    fn let_run_out(&self, held: &Held) -> bool {
        self.heard_at + self.lease <= held.leased_until
    }

    /// One request of the worker. [`Over`] when it has no more.
    fn hear(
        &mut self,
        request: Option<Result<v1::SessionRequest, Error>>,
        reporting: &mut FuturesUnordered<Reporting>,
    ) -> Result<Result<(), Over>, Error> {
        let Some(request) = request.transpose()? else { return Ok(Err(Over)) };
        self.heard_at = self.workers.clock.now();
        self.shunned_until = None;
        match request.request {
            Some(v1::session_request::Request::Report(report)) => {
                let count = i64::try_from(report.items.len()).unwrap_or(i64::MAX);
                self.workers.batch("report.items", count)?;
                let (workers, id) = (self.workers.clone(), report.id);
                let identity = self.identity.clone();
                reporting.push(Box::pin(async move {
                    let items = report.items.into_iter();
                    let applying = items.map(|item| workers.apply_item(item, &identity));
                    (id, futures_util::future::join_all(applying).await)
                }));
            }
            Some(v1::session_request::Request::Slots(new)) => self.slots = slots(new.slots)?,
            Some(v1::session_request::Request::Open(_)) => {
                return Err(wrong("a session is opened once; send report or slots"));
            }
            None => return Err(wrong("a session request names nothing; set report or slots")),
        }
        Ok(Ok(()))
    }

    async fn look_at(
        &mut self,
        changed: BTreeSet<OperationName>,
    ) -> Result<Result<(), Over>, Error> {
        let names: Vec<_> =
            changed.into_iter().filter(|name| self.held.contains_key(name)).collect();
        let mut desired = Vec::new();
        for names in names.chunks(READ_AT_ONCE) {
            let found = self.workers.store.get_many(names).await?;
            for (name, found) in names.iter().zip(found) {
                desired.extend(self.look(name, found.as_deref()));
            }
        }
        if desired.is_empty() {
            return Ok(Ok(()));
        }
        Ok(self.tell_desired(desired, false).await)
    }

    /// What the worker is to be told about one operation, if it is not what it was told last.
    fn look(
        &mut self,
        name: &OperationName,
        found: Option<&Operation>,
    ) -> Option<v1::DesiredUpdate> {
        let held = self.held.get(name)?;
        let epoch = held.epoch;
        let (desired, lease) = wanted(found, epoch);
        let stop = desired.action == Action::Stop as i32;
        let stopped_as_lost = desired.reason == v1::desired_state::Reason::LeaseLost as i32;
        let lost = if stop { stopped_as_lost } else { lease.is_none() };
        if lost && self.let_run_out(held) {
            self.shun();
        }
        let held = self.held.get_mut(name)?;
        held.leased_until = lease.unwrap_or(held.leased_until);
        if desired.action == held.told {
            return None;
        }
        held.told = desired.action;
        if stop {
            self.drop_hold(name);
        }
        Some(update(name, epoch, desired))
    }

    async fn answer(
        &mut self,
        id: u64,
        mut results: Vec<v1::ReportResult>,
    ) -> Result<Result<(), Over>, Error> {
        for result in &mut results {
            let Ok(name) = OperationName::parse(&result.operation) else { continue };
            let told = self.held.get(&name).filter(|held| held.epoch == result.epoch);
            let told = told.map(|held| held.told);
            // What was said since this report was decided is newer; it must not be taken back.
            if told != Some(action(result)) && action(result) != Action::Stop as i32 {
                self.workers.refresh(result).await?;
            }
            if told.is_none() {
                continue;
            }
            if action(result) == Action::Stop as i32 {
                self.drop_hold(&name);
            } else if let Some(held) = self.held.get_mut(&name) {
                held.told = action(result);
                held.leased_until = self.workers.clock.now() + self.lease;
            }
        }
        let cancels = cancels(results.iter().filter_map(|result| {
            Some((&*result.operation, result.epoch, result.desired.as_ref()?))
        }));
        let results = Some(v1::SessionResults { id, results });
        Ok(self.tell(v1::SessionResponse { results, ..Default::default() }, cancels).await)
    }

    async fn assign(&mut self, taken: Option<Taken>) -> Result<Result<(), Over>, Error> {
        let taken = match taken {
            Some(Ok(taken)) => taken,
            Some(Err(error)) if is_refusal(&error) => return Err(error),
            Some(Err(error)) => {
                // The claimer tries again by itself; the worker has nothing to do about it.
                crate::log_failure(&error);
                return Ok(Ok(()));
            }
            None => return Ok(Err(Over)),
        };
        self.assigned += taken.len();
        // Claimed again before this session saw that the lease had run out.
        let held_before = |one: &Applied| self.held.get(&one.operation.name);
        if taken.iter().filter_map(held_before).any(|held| self.let_run_out(held)) {
            self.shun();
        }
        if self.shunned_for().is_some() {
            give_back(&self.workers, taken);
            return Ok(Ok(()));
        }
        let mut names = BTreeSet::new();
        let mut replaced = Vec::new();
        let mut assignments = Vec::with_capacity(taken.len());
        for one in &taken {
            let (name, epoch) = (&one.operation.name, one.operation.epoch);
            let assignment = self.workers.assignment(&one.operation);
            let told = assignment.desired.as_ref().map_or(0, |desired| desired.action);
            let lease = one.operation.lease().map(|lease| lease.expires_at);
            let leased_until = lease.unwrap_or(self.heard_at);
            let held = Held { epoch, told, leased_until };
            if let Some(older) = self.held.insert(name.clone(), held) {
                // Its lease had run out, and the worker gets it anew before it was told so.
                let stop = self.workers.desired(name, older.epoch).await?;
                replaced.push(update(name, older.epoch, stop));
            }
            self.changes.add(name.clone());
            names.insert(name.clone());
            assignments.push(assignment);
        }
        if !replaced.is_empty() && self.tell_desired(replaced, false).await.is_err() {
            give_back(&self.workers, taken);
            return Ok(Err(Over));
        }
        if self.hand_over(taken, assignments).await.is_err() {
            return Ok(Err(Over));
        }
        // Between the claim and the registration above a change may have gone by unheard.
        self.look_at(names).await
    }

    /// Sends assignments in answers of a bearable size; gives back what could not be sent.
    async fn hand_over(
        &mut self,
        mut taken: Vec<Applied>,
        assignments: Vec<v1::Assignment>,
    ) -> Result<(), Over> {
        let mut rest = assignments.into_iter().peekable();
        while rest.peek().is_some() {
            let (mut assignments, mut bytes) = (Vec::new(), 0);
            while let Some(next) = rest.next_if(|next| {
                bytes += next.encoded_len();
                bytes <= ASSIGNED_BYTES_MAX || bytes == next.encoded_len()
            }) {
                assignments.push(next);
            }
            let told = cancels(assignments.iter().filter_map(|assignment| {
                Some((&*assignment.operation, assignment.epoch, assignment.desired.as_ref()?))
            }));
            let count = assignments.len();
            let response = v1::SessionResponse { assignments, ..Default::default() };
            if self.tell(response, told).await.is_err() {
                give_back(&self.workers, taken);
                return Err(Over);
            }
            taken.drain(..count);
        }
        Ok(())
    }

    /// Sends updates in answers of a bearable size; with `complete` the last one says so.
    async fn tell_desired(
        &mut self,
        mut desired: Vec<v1::DesiredUpdate>,
        complete: bool,
    ) -> Result<(), Over> {
        loop {
            let rest = desired.split_off(desired.len().min(UPDATES_MAX));
            let told = cancels(desired.iter().filter_map(|update| {
                Some((&*update.operation, update.epoch, update.desired.as_ref()?))
            }));
            let complete = complete && rest.is_empty();
            let response = v1::SessionResponse { desired, complete, ..Default::default() };
            self.tell(response, told).await?;
            if rest.is_empty() {
                return Ok(());
            }
            desired = rest;
        }
    }

    /// Sends one answer, and records that the cancels in it are on their way.
    async fn tell(&mut self, response: v1::SessionResponse, told: Told) -> Result<(), Over> {
        let draining = self.workers.draining.clone();
        tokio::select! {
            biased;
            sent = self.answers.send(Ok(response)) => sent.map_err(|_| Over)?,
            // A worker that reads too slowly must not hold up the end of the server.
            () = draining.cancelled() => return Err(Over),
        }
        for (name, epoch, desired) in told {
            self.workers.note_delivery(&name, epoch, &desired);
        }
        Ok(())
    }

    fn drop_hold(&mut self, name: &OperationName) {
        self.held.remove(name);
        self.changes.remove(name);
    }

    fn give_back_untold(&mut self) {
        self.taken.close();
        while let Ok(taken) = self.taken.try_recv() {
            give_back(&self.workers, taken.unwrap_or_default());
        }
    }
}

/// Whether a claim failed because the worker may not, or no longer.
fn is_refusal(error: &Error) -> bool {
    matches!(error.code(), Code::PermissionDenied | Code::Unauthenticated)
}

/// Cancels in one answer: operation, epoch, and what was said.
type Told = Vec<(String, Epoch, v1::DesiredState)>;

fn cancels<'a>(said: impl Iterator<Item = (&'a str, Epoch, &'a v1::DesiredState)>) -> Told {
    said.filter(|(_, _, desired)| desired.action == Action::Cancel as i32)
        .map(|(name, epoch, desired)| (name.to_owned(), epoch, desired.clone()))
        .collect()
}

fn update(name: &OperationName, epoch: Epoch, desired: v1::DesiredState) -> v1::DesiredUpdate {
    v1::DesiredUpdate { operation: name.to_string(), epoch, desired: Some(desired) }
}

fn action(result: &v1::ReportResult) -> i32 {
    result.desired.as_ref().map_or(0, |desired| desired.action)
}

fn slots(asked: u32) -> Result<usize, Error> {
    if asked > SLOTS_MAX {
        let what = format!("is {asked}; at most 100,000 are allowed, open more sessions");
        return Err(
            Error::new(Reason::InvalidValue, format!("slots {what}")).at_field("slots", what)
        );
    }
    Ok(asked as usize)
}

fn wrong(message: &str) -> Error {
    Error::new(Reason::InvalidValue, message)
}
