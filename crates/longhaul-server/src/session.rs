//! One worker's session: a stream in both directions for as long as the worker lives.
//!
//! Owns what the worker holds and what it was last told. Everything it says comes from the rows, so a
//! lost stream loses nothing: the next session begins with the whole desired set again.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, Stream, StreamExt as _};
use longhaul_core::{Applied, Epoch, Error, OperationName, Reason};
use longhaul_store::ClaimFilter;
use longhaul_wire::v1;
use longhaul_wire::v1::desired_state::Action;
use tokio::sync::{mpsc, watch};

use crate::watch::Subscription;
use crate::workers::Workers;

/// Requests of one session as they arrive; an error ends it.
pub(crate) type Requests = Pin<Box<dyn Stream<Item = Result<v1::SessionRequest, Error>> + Send>>;
type Reporting = Pin<Box<dyn Future<Output = (u64, Vec<v1::ReportResult>)> + Send>>;

/// Most slots of one session; each held operation costs about 200 bytes here.
const SLOTS_MAX: u32 = 100_000;
/// Answers that may wait for a slow worker before the session stops working for it.
const ANSWERS_MAX: usize = 64;
/// Reports of one session that may be on their way to the store at once.
const REPORTS_MAX: usize = 1024;
/// How often a session with free slots looks for work by itself, should a wake-up be lost.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the worker was last told about one operation.
struct Held {
    epoch: Epoch,
    told: i32,
}

struct Session {
    workers: Arc<Workers>,
    slots: usize,
    /// Tells the claimer how many slots are free.
    free: watch::Sender<usize>,
    /// What the claimer took.
    taken: mpsc::Receiver<Result<Vec<Applied>, Error>>,
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
    ) -> mpsc::Receiver<Result<v1::SessionResponse, Error>> {
        let (answers, receiver) = mpsc::channel(ANSWERS_MAX);
        let workers = self.clone();
        tokio::spawn(async move {
            let failed = answers.clone();
            if let Err(error) = run(workers, requests, answers).await {
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
    mut requests: Requests,
    answers: mpsc::Sender<Result<v1::SessionResponse, Error>>,
) -> Result<(), Error> {
    let _place = workers.watch.hold(workers.limits.held_calls_max).ok_or_else(|| {
        crate::call::overloaded("too many calls are held open; open the session again shortly")
    })?;
    let open = match requests.next().await.transpose()?.and_then(|first| first.request) {
        Some(v1::session_request::Request::Open(open)) => open,
        Some(_) => return Err(wrong("the first request of a session must open it")),
        None => return Ok(()),
    };
    let mut session = Session::open(workers, &open, answers)?;
    if session.greet(open.held).await?.is_err() {
        return Ok(());
    }
    session.serve(requests).await
}

impl Session {
    fn open(
        workers: Arc<Workers>,
        open: &v1::SessionOpen,
        answers: mpsc::Sender<Result<v1::SessionResponse, Error>>,
    ) -> Result<Self, Error> {
        let (free, free_slots) = watch::channel(0);
        let (send_taken, taken) = mpsc::channel(1);
        let claimer = Claimer {
            workers: workers.clone(),
            worker: crate::workers::worker_name(&open.worker)?,
            filter: ClaimFilter {
                api: None,
                methods: open.methods.iter().map(|method| method.as_str().into()).collect(),
                queues: open.queues.iter().map(|queue| queue.as_str().into()).collect(),
            },
            lease: workers.lease(open.lease.as_ref())?,
            free: free_slots,
            taken: send_taken,
        };
        let slots = slots(open.slots)?;
        tokio::spawn(claimer.run());
        let changes = workers.watch.operations(Vec::new());
        Ok(Self { workers, slots, free, taken, held: HashMap::new(), changes, answers })
    }

    /// Says what is wanted of everything that the worker believes it holds.
    async fn greet(&mut self, held: Vec<v1::Held>) -> Result<Result<(), Over>, Error> {
        if held.len() > SLOTS_MAX as usize {
            return Err(wrong("held has more entries than a session may have slots"));
        }
        let mut desired = Vec::new();
        for one in held {
            let name = OperationName::parse(&one.operation)?;
            self.changes.add(name.clone());
            self.held.insert(name.clone(), Held { epoch: one.epoch, told: 0 });
            desired.extend(self.look(&name).await?);
        }
        Ok(self.tell(v1::SessionResponse { desired, complete: true, ..Default::default() }).await)
    }

    async fn serve(mut self, mut requests: Requests) -> Result<(), Error> {
        let mut reporting: FuturesUnordered<Reporting> = FuturesUnordered::new();
        let draining = self.workers.draining.clone();
        loop {
            self.free.send_replace(self.slots.saturating_sub(self.held.len()));
            let alive = tokio::select! {
                biased;
                changed = self.changes.changed() => self.look_at(changed).await?,
                Some((id, results)) = reporting.next(), if !reporting.is_empty() => {
                    self.answer(id, results).await
                }
                taken = self.taken.recv() => self.assign(taken).await,
                request = requests.next() => self.hear(request, &mut reporting)?,
                () = draining.cancelled() => Err(Over),
            };
            if alive.is_err() {
                return Ok(());
            }
        }
    }

    /// One request of the worker. `Err` when it has no more.
    fn hear(
        &mut self,
        request: Option<Result<v1::SessionRequest, Error>>,
        reporting: &mut FuturesUnordered<Reporting>,
    ) -> Result<Result<(), Over>, Error> {
        let Some(request) = request.transpose()? else { return Ok(Err(Over)) };
        match request.request {
            Some(v1::session_request::Request::Report(report)) => {
                if reporting.len() >= REPORTS_MAX {
                    return Err(crate::call::overloaded(
                        "too many reports of this session wait for their answers; send them slower",
                    ));
                }
                self.workers
                    .batch("items", i64::try_from(report.items.len()).unwrap_or(i64::MAX))?;
                let (workers, id) = (self.workers.clone(), report.id);
                reporting.push(Box::pin(async move {
                    let applying = report.items.into_iter().map(|item| workers.apply_item(item));
                    (id, futures_util::future::join_all(applying).await)
                }));
            }
            Some(v1::session_request::Request::Slots(new)) => self.slots = slots(new.slots)?,
            Some(v1::session_request::Request::Open(_)) => {
                return Err(wrong("a session is opened once"));
            }
            None => return Err(wrong("a session request names nothing; set report or slots")),
        }
        Ok(Ok(()))
    }

    async fn look_at(
        &mut self,
        changed: BTreeSet<OperationName>,
    ) -> Result<Result<(), Over>, Error> {
        let mut desired = Vec::new();
        for name in changed {
            desired.extend(self.look(&name).await?);
        }
        if desired.is_empty() {
            return Ok(Ok(()));
        }
        Ok(self.tell(v1::SessionResponse { desired, ..Default::default() }).await)
    }

    /// What the worker is to be told about one operation, if it is not what it was told last.
    async fn look(&mut self, name: &OperationName) -> Result<Option<v1::DesiredUpdate>, Error> {
        let Some(held) = self.held.get_mut(name) else { return Ok(None) };
        let epoch = held.epoch;
        let desired = self.workers.desired(name, epoch).await?;
        if desired.action == held.told {
            return Ok(None);
        }
        held.told = desired.action;
        if desired.action == Action::Stop as i32 {
            self.drop_hold(name);
        }
        Ok(Some(v1::DesiredUpdate { operation: name.to_string(), epoch, desired: Some(desired) }))
    }

    async fn answer(&mut self, id: u64, results: Vec<v1::ReportResult>) -> Result<(), Over> {
        for result in &results {
            let Ok(name) = OperationName::parse(&result.operation) else { continue };
            let action = result.desired.as_ref().map_or(0, |desired| desired.action);
            let Some(held) = self.held.get_mut(&name).filter(|held| held.epoch == result.epoch)
            else {
                continue;
            };
            held.told = action;
            if action == Action::Stop as i32 {
                self.drop_hold(&name);
            }
        }
        let results = Some(v1::SessionResults { id, results });
        self.tell(v1::SessionResponse { results, ..Default::default() }).await
    }

    async fn assign(&mut self, taken: Option<Result<Vec<Applied>, Error>>) -> Result<(), Over> {
        let taken = match taken {
            Some(Ok(taken)) => taken,
            Some(Err(error)) => {
                // The claimer tries again by itself; the worker has nothing to do about it.
                crate::log_failure(&error);
                return Ok(());
            }
            None => return Err(Over),
        };
        let mut assignments = Vec::with_capacity(taken.len());
        let mut names = BTreeSet::new();
        for one in &taken {
            let operation = &one.operation;
            let assignment = self.workers.assignment(operation);
            let told = assignment.desired.as_ref().map_or(0, |desired| desired.action);
            self.held.insert(operation.name.clone(), Held { epoch: operation.epoch, told });
            self.changes.add(operation.name.clone());
            names.insert(operation.name.clone());
            assignments.push(assignment);
        }
        self.tell(v1::SessionResponse { assignments, ..Default::default() }).await?;
        // Between the claim and the registration above a change may have gone by unheard.
        match self.look_at(names).await {
            Ok(alive) => alive,
            Err(error) => {
                crate::log_failure(&error);
                Err(Over)
            }
        }
    }

    async fn tell(&mut self, response: v1::SessionResponse) -> Result<(), Over> {
        let updates = response.desired.clone();
        self.answers.send(Ok(response)).await.map_err(|_| Over)?;
        for update in &updates {
            if let Some(desired) = &update.desired {
                self.workers.note_delivery(&update.operation, update.epoch, desired);
            }
        }
        Ok(())
    }

    fn drop_hold(&mut self, name: &OperationName) {
        self.held.remove(name);
        self.changes.remove(name);
    }
}

/// Takes work for one session whenever it has free slots.
struct Claimer {
    workers: Arc<Workers>,
    worker: Arc<str>,
    filter: ClaimFilter,
    lease: Duration,
    free: watch::Receiver<usize>,
    taken: mpsc::Sender<Result<Vec<Applied>, Error>>,
}

impl Claimer {
    async fn run(mut self) {
        loop {
            let claims = self.workers.watch.claims(self.filter.clone());
            let free = *self.free.borrow_and_update();
            let mut found = false;
            if free > 0 {
                let max = free.min(self.workers.config.batch_max);
                let taken =
                    self.workers.take(&self.filter, max, &self.worker, self.lease, None).await;
                found = taken.as_ref().is_ok_and(|taken| !taken.is_empty());
                let news = found || taken.is_err();
                if news && self.taken.send(taken).await.is_err() {
                    return;
                }
            }
            // After a find the session says how many slots are left before more is taken.
            let waits_for_work = free > 0 && !found;
            tokio::select! {
                () = claims.claimable(), if waits_for_work => {}
                () = self.workers.clock.sleep(LOOK_EVERY), if waits_for_work => {}
                changed = self.free.changed() => if changed.is_err() { return },
                () = self.taken.closed() => return,
            }
        }
    }
}

fn slots(asked: u32) -> Result<usize, Error> {
    if asked > SLOTS_MAX {
        return Err(wrong("slots is above 100,000; open more sessions"));
    }
    Ok(asked as usize)
}

fn wrong(message: &str) -> Error {
    Error::new(Reason::InvalidValue, message)
}
