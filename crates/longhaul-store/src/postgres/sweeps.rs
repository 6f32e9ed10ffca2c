//! Claims and sweeps: all that wait on this server are served by one statement, with the rows leased out
//! from memory.
//!
//! Claims come here from a writer that found too little for them beside its commands. Rows that another
//! transaction has locked are passed over, so two servers never wait for each other here; for that the order
//! of claims is kept only among the rows that nobody holds.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join;
use longhaul_core::{Applied, Error, Operation, OperationName, Timestamp};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio_postgres::Row;

use super::batch::{Batch, Loaded, Miss};
use super::core::Core;
use super::faults::Fault;
use super::keeper;
use super::rows::Uid;
use super::session::{Ready, Session, Sql, Value, bounded};
use super::writer::{asked, commit, give_back, look_for_children, take_in};
use crate::admission::Admission;
use crate::trouble::again;
use crate::{ClaimFilter, Decide, Due, Priority};

/// Most rows decided about in one transaction: a sweep over very many lets others commit in between.
const ROWS_MAX: usize = 1_024;

/// Rows looked at beyond those wanted, since others may hold some: first, and when that was not enough.
const BEYOND: [usize; 2] = [64, 4_096];

/// How often a lost race is run again.
const RACES_MAX: u32 = 8;

type Answer = Result<Vec<Applied>, Error>;

/// One waiting claim or sweep.
pub(super) struct Sweep {
    due: Due,
    limit: usize,
    decide: Decide,
    done: Vec<Applied>,
    /// What it has changed, which is not changed again.
    seen: HashSet<OperationName>,
    /// Bytes of what it has changed, and whether the next one had no room.
    bytes: usize,
    full: bool,
    answer: oneshot::Sender<Answer>,
    pub given_up: Arc<AtomicBool>,
}

impl Sweep {
    pub fn new(due: Due, limit: usize, decide: Decide) -> (Self, oneshot::Receiver<Answer>) {
        let (answer, answered) = oneshot::channel();
        let (done, seen) = (Vec::new(), HashSet::new());
        let given_up = Arc::default();
        (Self { due, limit, decide, done, seen, bytes: 0, full: false, answer, given_up }, answered)
    }

    fn now(&self) -> Timestamp {
        match self.due {
            Due::Claim { now, .. } | Due::Timer { now } => now,
        }
    }

    fn filter(&self) -> Option<&ClaimFilter> {
        match &self.due {
            Due::Claim { filter, .. } => Some(filter),
            Due::Timer { .. } => None,
        }
    }

    fn left(&self) -> usize {
        if self.full { 0 } else { self.limit.saturating_sub(self.done.len()) }
    }

    fn wants(&self, operation: &Operation) -> bool {
        let fits = self.filter().is_none_or(|filter| {
            filter.accepts(&operation.api, &operation.method, &operation.queue)
                && operation.claimable_from().is_some_and(|from| from <= self.now())
        });
        fits && !self.seen.contains(&operation.name)
    }

    /// Answers. What was committed before an error is told rather than the error.
    fn end(self, error: Option<&Error>) {
        let answer = match error {
            Some(error) if self.done.is_empty() => Err(again(error)),
            Some(_) | None => Ok(self.done),
        };
        drop(self.answer.send(answer));
    }
}

/// Claims, or sweeps, that wait.
#[derive(Default)]
pub(super) struct Sweeps {
    inner: Mutex<(VecDeque<Sweep>, bool)>,
    filled: Notify,
}

impl Sweeps {
    /// Puts a sweep in line. Fails when `max` wait, or after [`Self::close`].
    pub fn push(&self, sweep: Sweep, max: usize) -> Result<(), Error> {
        let mut inner = self.inner.lock();
        Admission::new(max, 0).admit(Priority::Normal, inner.0.len(), inner.1)?;
        inner.0.push_back(sweep);
        drop(inner);
        self.filled.notify_one();
        Ok(())
    }

    pub fn waiting(&self) -> usize {
        self.inner.lock().0.len()
    }

    /// Answers those that have all they wanted; the others look further. They were admitted before.
    pub fn go_on(&self, sweeps: Vec<Sweep>) {
        let open = still_open(sweeps);
        if !open.is_empty() {
            self.inner.lock().0.extend(open);
            self.filled.notify_one();
        }
    }

    async fn take(&self) -> Option<Vec<Sweep>> {
        loop {
            {
                let mut inner = self.inner.lock();
                let waiting = std::mem::take(&mut inner.0);
                let wanted = |sweep: &Sweep| !sweep.given_up.load(Ordering::Relaxed);
                let waiting: Vec<_> = waiting.into_iter().filter(wanted).collect();
                if !waiting.is_empty() {
                    return Some(waiting);
                }
                if inner.1 {
                    return None;
                }
            }
            self.filled.notified().await;
        }
    }

    pub fn close(&self) {
        self.inner.lock().1 = true;
        self.filled.notify_one();
    }
}

/// Looks further for claims until the queue is closed and empty.
pub(super) async fn run_claims(core: Arc<Core>) {
    while let Some(sweeps) = core.claims.take().await {
        serve(&core, sweeps).await;
    }
}

/// Serves sweeps likewise.
pub(super) async fn run_timers(core: Arc<Core>) {
    while let Some(sweeps) = core.timers.take().await {
        // Each has its own moment and its own idea of what to do: one after the other.
        for sweep in sweeps {
            serve(&core, vec![sweep]).await;
        }
    }
}

/// How far a scan has come: the row that was last, by moment, creation and uid.
#[derive(Clone, Copy)]
struct Place(i64, i64, u128);

impl Place {
    const FIRST: Self = Self(i64::MIN, i64::MIN, 0);
}

/// Answers those that have all they wanted, and gives back the others.
fn still_open(sweeps: Vec<Sweep>) -> Vec<Sweep> {
    let (open, ended): (Vec<_>, Vec<_>) = sweeps.into_iter().partition(|one| one.left() > 0);
    ended.into_iter().for_each(|sweep| sweep.end(None));
    open
}

async fn serve(core: &Core, mut sweeps: Vec<Sweep>) {
    let (mut place, mut races, mut beyond) = (Place::FIRST, 0, 0);
    loop {
        sweeps = still_open(sweeps);
        if sweeps.is_empty() {
            return;
        }
        let wanted = wanted(&sweeps);
        match round(core, &mut sweeps, place, wanted, BEYOND[beyond]).await {
            Ok((last, rows)) => {
                races = 0;
                place = last.unwrap_or(place);
                if rows == wanted {
                    beyond = 0;
                } else if beyond == 0 && heard_of_more(core, &sweeps).await {
                    place = Place::FIRST;
                } else if beyond == 0 && (rows > 0 || core.shared.load(Ordering::Relaxed)) {
                    beyond = 1;
                } else {
                    if sweeps[0].filter().is_none()
                        && let Err(error) = keeper::first_due(core).await
                    {
                        tracing::warn!(%error, "what is due first cannot be read");
                    }
                    sweeps.into_iter().for_each(|sweep| sweep.end(None));
                    return;
                }
            }
            Err(Fault::Race(_)) if races < RACES_MAX => {
                races += 1;
                tokio::time::sleep(Duration::from_millis(u64::from(races * races))).await;
            }
            Err(fault) => {
                let error = fault.into_error();
                tracing::warn!(%error, source = ?error.source, "a sweep failed");
                sweeps.into_iter().for_each(|sweep| sweep.end(Some(&error)));
                return;
            }
        }
    }
}

/// Where a claim found nothing, looks for kinds that another server has just begun; whether there are some.
async fn heard_of_more(core: &Core, sweeps: &[Sweep]) -> bool {
    if !sweeps.iter().any(|one| one.filter().is_some() && one.done.is_empty()) {
        return false;
    }
    let known = core.words.kinds().len();
    match core.ask(core.patience(), &core.sql.kinds, &[]).await {
        Ok(rows) => core.words.take_in(&rows),
        Err(error) => tracing::warn!(%error, "kinds cannot be read"),
    }
    core.words.kinds().len() > known
}

/// One transaction: up to `wanted` rows from `place` on, given to those who want them. Says where the last
/// row was, and how many there were.
async fn round(
    core: &Core,
    sweeps: &mut [Sweep],
    place: Place,
    wanted: usize,
    beyond: usize,
) -> Result<(Option<Place>, usize), Fault> {
    let session = Session::take(&core.writes, &core.options).await.map_err(Fault::Away)?;
    let locking = locked(core, &session, sweeps, place, wanted, beyond);
    let (mut loaded, names, rows) = match bounded(core.patience(), locking).await {
        Ok(locked) => locked,
        Err(fault) => return Err(give_back(core, session, fault).await),
    };
    let last = rows.last().map(|row| {
        let moment: Option<i64> = row.get(if sweeps[0].filter().is_some() { 8 } else { 9 });
        Place(moment.unwrap_or(i64::MAX), row.get(4), row.get::<_, Uid>(1).0)
    });
    loop {
        let mut batch = Batch::new(&loaded);
        let given = distribute(&mut batch, sweeps, &names);
        let ask = asked(given.results());
        if ask.is_empty() {
            let applied: Vec<_> = given.applied().collect();
            commit(core, session, &batch, &applied).await?;
            given.hand_out(sweeps);
            return Ok((last, rows.len()));
        }
        let asking = look_for_children(core, &session, &mut loaded, ask);
        if let Err(fault) = bounded(core.patience(), asking).await {
            return Err(give_back(core, session, fault).await);
        }
    }
}

type Locked = (Loaded, Vec<OperationName>, Vec<Row>);

async fn locked(
    core: &Core,
    session: &Session,
    sweeps: &[Sweep],
    place: Place,
    wanted: usize,
    beyond: usize,
) -> Result<Locked, Fault> {
    let look = Look::new(core, sweeps, place, wanted, beyond);
    let ready = session.ready(look.sql(core)).await?;
    let begin = core.begin();
    let (begun, rows) = join(session.run(&begin), look.send(session, &ready)).await;
    begun?;
    let rows = rows?;
    let mut loaded = Loaded::default();
    let names = take_in(core, session, &mut loaded, &rows).await?;
    Ok((loaded, names, rows))
}

/// A search for rows that all of some claims, or of some sweeps, want.
pub(super) struct Look {
    claims: bool,
    kinds: Vec<i32>,
    now: i64,
    place: (i64, i64, Uid),
    heads: i64,
    limit: i64,
}

impl Look {
    /// From the beginning, as far as is usual; `None` when nobody wants anything.
    pub fn first(core: &Core, sweeps: &[Sweep]) -> Option<Self> {
        let wanted = wanted(sweeps);
        (wanted > 0).then(|| Self::new(core, sweeps, Place::FIRST, wanted, BEYOND[0]))
    }

    fn new(core: &Core, sweeps: &[Sweep], place: Place, wanted: usize, beyond: usize) -> Self {
        let filters = sweeps.iter().filter_map(Sweep::filter);
        let mut kinds: Vec<i32> = filters.flat_map(|one| core.words.accepted(one)).collect();
        kinds.sort_unstable();
        kinds.dedup();
        Self {
            claims: sweeps.iter().any(|one| one.filter().is_some()),
            kinds,
            now: sweeps.iter().map(Sweep::now).max().unwrap_or_default().as_micros(),
            place: (place.0, place.1, Uid(place.2)),
            heads: i64::try_from(wanted + beyond).unwrap_or(i64::MAX),
            limit: i64::try_from(wanted).unwrap_or(i64::MAX),
        }
    }

    pub fn sql<'c>(&self, core: &'c Core) -> &'c Sql {
        if self.claims { &core.sql.claimable } else { &core.sql.due }
    }

    pub async fn send(
        &self,
        session: &Session,
        ready: &Ready<'_>,
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        let (moment, create, uid) = &self.place;
        let claim: [Value<'_>; 7] =
            [&self.kinds, &self.now, moment, create, uid, &self.heads, &self.limit];
        let timer: [Value<'_>; 5] = [&self.now, moment, uid, &self.heads, &self.limit];
        session.send(ready, if self.claims { &claim } else { &timer }).await
    }
}

/// How many rows these still want, as many as one transaction takes.
fn wanted(sweeps: &[Sweep]) -> usize {
    sweeps.iter().fold(0, |sum: usize, one| sum.saturating_add(one.left())).min(ROWS_MAX)
}

/// What was given to sweeps: to which of them a row was offered, and what came of it.
pub(super) struct Given {
    results: Vec<(usize, Result<Applied, Miss>)>,
    rooms: Vec<Room>,
}

impl Given {
    pub fn results(&self) -> impl Iterator<Item = &Result<Applied, Miss>> {
        self.results.iter().map(|(_, result)| result)
    }

    pub fn applied(&self) -> impl Iterator<Item = &Applied> {
        self.results().filter_map(|result| result.as_ref().ok())
    }

    /// Gives it, once it is committed.
    pub fn hand_out(self, sweeps: &mut [Sweep]) {
        for (sweep, result) in self.results {
            if let Ok(applied) = result {
                sweeps[sweep].seen.insert(applied.operation.name.clone());
                sweeps[sweep].done.push(applied);
            }
        }
        for (sweep, room) in sweeps.iter_mut().zip(self.rooms) {
            (sweep.bytes, sweep.full) = (room.bytes, room.full);
        }
    }
}

/// How much more a sweep can take.
struct Room {
    left: usize,
    taken: usize,
    bytes: usize,
    full: bool,
}

/// Gives each row to the first who wants it, can take it, and has room.
pub(super) fn distribute(
    batch: &mut Batch<'_>,
    sweeps: &[Sweep],
    names: &[OperationName],
) -> Given {
    let mut results = Vec::new();
    let room = |sweep: &Sweep| Room {
        left: sweep.left(),
        taken: sweep.done.len(),
        bytes: sweep.bytes,
        full: sweep.full,
    };
    let mut rooms: Vec<Room> = sweeps.iter().map(room).collect();
    for name in names {
        let Some(kept) = batch.loaded.rows.get(name) else { continue };
        let operation = kept.operation.clone();
        for (at, (sweep, room)) in sweeps.iter().zip(&mut rooms).enumerate() {
            if room.left == 0 || room.full || !sweep.wants(&operation) {
                continue;
            }
            let bytes = room.bytes.saturating_add(operation.bytes_told());
            if room.taken > 0 && bytes > sweep.due.bytes_max() {
                room.full = true;
                continue;
            }
            let result = batch.update_row(name, &sweep.decide);
            if let Err(Miss::Command(error)) = &result {
                tracing::error!(%error, operation = %name, "a due operation cannot be changed");
            }
            let taken = result.is_ok();
            results.push((at, result));
            if taken {
                (room.left, room.taken, room.bytes) = (room.left - 1, room.taken + 1, bytes);
                break;
            }
        }
    }
    Given { results, rooms }
}
