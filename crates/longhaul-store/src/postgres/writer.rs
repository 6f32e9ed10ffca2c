//! The writers: each takes waiting commands and claims, locks their rows, decides, commits once, tells,
//! answers.
//!
//! Claims go along once; those that want more look further elsewhere. Nobody is told or answered before the
//! commit. A lost race is run again with the decisions; a command that the database does not take is parted
//! from its mates.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::{BoxFuture, join};
use longhaul_core::{Applied, Error, Operation, OperationName};
use tokio_postgres::Row;

use super::batch::{Batch, Loaded, Miss, RequestKey};
use super::core::Core;
use super::faults::Fault;
use super::queue::{Claims, Job, Turn};
use super::rows;
use super::session::{Ready, Session, Value, bounded};
use super::sweeps::{Look, Sweep, distribute};
use super::words::Scope;
use super::write::{self, Broken, Receipt};
use crate::telling::tell;
use crate::trouble::again;
use crate::{Failure, Key};

/// How often a lost race is run again before the batch is parted.
const RACES_MAX: u32 = 8;

/// First and longest pause before the next try while the database is away.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Runs until the queue is closed and empty.
pub(super) async fn run(core: Arc<Core>) {
    while let Some(mut taken) = core.queue.take(core.options.batch_max).await {
        let (claims, turn) = (taken.claims.take(), taken.turn.take());
        work(&core, std::mem::take(&mut taken.jobs), claims, turn).await;
    }
}

/// Brings commands to their answers, whatever happens.
fn work<'c>(
    core: &'c Core,
    mut jobs: Vec<Job>,
    mut claims: Option<Claims<'c>>,
    mut turn: Option<Turn<'c>>,
) -> BoxFuture<'c, ()> {
    Box::pin(async move {
        let (mut races, mut pause) = (0, PAUSES.0);
        loop {
            jobs.retain(|job| !job.given_up.load(Ordering::Relaxed));
            if jobs.is_empty() && claims.is_none() {
                return;
            }
            let sweeps = claims.as_mut().map_or(&mut [][..], |claims| &mut claims.sweeps);
            let attempted = attempt(core, &jobs, sweeps, turn.take()).await;
            if let Some(mut claims) = claims.take() {
                core.claims.go_on(std::mem::take(&mut claims.sweeps));
            }
            if jobs.is_empty() {
                return;
            }
            let fault = match attempted {
                Ok(results) => {
                    for (job, result) in jobs.into_iter().zip(results) {
                        // A caller that has gone away needs no answer.
                        drop(job.answer.send(result));
                    }
                    return;
                }
                Err(fault) => fault,
            };
            match fault {
                Fault::Race(_) if races < RACES_MAX => {
                    races += 1;
                    tokio::time::sleep(Duration::from_millis(u64::from(races * races))).await;
                }
                Fault::Race(error) | Fault::Command(error) => {
                    if jobs.len() == 1 {
                        tracing::error!(%error, source = ?error.source, "a command failed");
                        fail(jobs, &error);
                    } else {
                        let rest = jobs.split_off(jobs.len() / 2);
                        work(core, jobs, None, None).await;
                        work(core, rest, None, None).await;
                    }
                    return;
                }
                Fault::Away(error) | Fault::Unknown(error) => {
                    if core.queue.is_closed() {
                        fail(jobs, &error);
                        return;
                    }
                    tracing::warn!(%error, source = ?error.source, "the database is away");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSES.1);
                }
            }
        }
    })
}

fn fail(jobs: Vec<Job>, error: &Error) {
    for job in jobs {
        drop(job.answer.send(Err(Failure::Store(again(error)))));
    }
}

type Results = Vec<Result<Applied, Failure>>;

/// One transaction for these commands and claims. The next writer's turn comes once all is decided.
async fn attempt(
    core: &Core,
    jobs: &[Job],
    claims: &mut [Sweep],
    turn: Option<Turn<'_>>,
) -> Result<Results, Fault> {
    let session = Session::take(&core.writes, &core.options).await.map_err(Fault::Away)?;
    let mut resources = BTreeSet::new();
    loop {
        let loading = load(core, &session, jobs, claims, &resources);
        let (mut loaded, heads) = match bounded(core.patience(), loading).await {
            Ok(loaded) => loaded,
            Err(fault) => return Err(give_back(core, session, fault).await),
        };
        let locks = loop {
            let Decided { mut batch, results, besides } = decide(&loaded, jobs);
            let locks = to_lock(&results);
            if !locks.is_empty() {
                break locks;
            }
            let given = distribute(&mut batch, claims, &heads);
            let ask = asked(results.iter().chain(given.results()));
            if ask.is_empty() {
                let mut applied = in_order(&results, &besides);
                applied.extend(given.applied());
                drop(turn);
                commit(core, session, &batch, &applied).await?;
                given.hand_out(claims);
                let answers = results.into_iter().map(|result| result.map_err(Failure::from));
                return Ok(answers.collect());
            }
            let asking = look_for_children(core, &session, &mut loaded, ask);
            if let Err(fault) = bounded(core.patience(), asking).await {
                return Err(give_back(core, session, fault).await);
            }
        };
        // From the beginning, for these locks come before those of rows: nobody waits in a circle.
        resources.extend(locks);
        if !session.roll_back(core.options.connect_timeout).await {
            session.discard();
            return Err(Fault::Away(super::faults::unavailable("a transaction did not end")));
        }
    }
}

/// What commands led to.
struct Decided<'l> {
    batch: Batch<'l>,
    results: Vec<Result<Applied, Miss>>,
    /// What they led to elsewhere, each with the place of its command.
    besides: Vec<(usize, Applied)>,
}

fn decide<'l>(loaded: &'l Loaded, jobs: &[Job]) -> Decided<'l> {
    let mut batch = Batch::new(loaded);
    let (mut results, mut besides) = (Vec::with_capacity(jobs.len()), Vec::new());
    for (at, job) in jobs.iter().enumerate() {
        results.push(batch.update(&job.key, &job.decide));
        besides.extend(batch.besides.drain(..).map(|applied| (at, applied)));
    }
    Decided { batch, results, besides }
}

/// The resources that must be locked before these commands can be decided.
fn to_lock(results: &[Result<Applied, Miss>]) -> Vec<i64> {
    let lock = results.iter().filter_map(|result| match result {
        Err(Miss::Lock(hash)) => Some(*hash),
        Ok(_) | Err(Miss::Refused(_) | Miss::Command(_) | Miss::Ask(_)) => None,
    });
    lock.collect()
}

/// What is to be told: of each command, first what it led to elsewhere.
fn in_order<'r>(
    results: &'r [Result<Applied, Miss>],
    besides: &'r [(usize, Applied)],
) -> Vec<&'r Applied> {
    let mut besides = besides.iter().peekable();
    let mut told = Vec::with_capacity(results.len());
    for (at, result) in results.iter().enumerate() {
        while let Some((_, applied)) = besides.next_if(|(of, _)| *of == at) {
            told.push(applied);
        }
        told.extend(result.as_ref().ok());
    }
    told
}

/// What must be known before these commands can be decided.
pub(super) fn asked<'r>(
    results: impl Iterator<Item = &'r Result<Applied, Miss>>,
) -> Vec<OperationName> {
    let ask = results.filter_map(|result| match result {
        Err(Miss::Ask(name)) => Some(name.clone()),
        Ok(_) | Err(Miss::Refused(_) | Miss::Command(_) | Miss::Lock(_)) => None,
    });
    ask.collect()
}

/// Ends a transaction that failed, and keeps the connection if it is still good.
pub(super) async fn give_back(core: &Core, session: Session, fault: Fault) -> Fault {
    match fault {
        Fault::Race(_) | Fault::Command(_) => {
            if !session.roll_back(core.options.connect_timeout).await {
                session.discard();
            }
        }
        Fault::Away(_) | Fault::Unknown(_) => session.discard(),
    }
    fault
}

/// Commits a decided batch, then tells of it; a commit whose answer was lost is looked for.
pub(super) async fn commit(
    core: &Core,
    session: Session,
    batch: &Batch<'_>,
    applied: &[&Applied],
) -> Result<(), Fault> {
    if let Some(archive) = &core.archive {
        let gone = applied.iter().filter(|applied| applied.forget);
        let gone: Vec<Operation> = gone.map(|applied| applied.operation.clone()).collect();
        if !gone.is_empty()
            && let Err(error) = archive.keep(gone).await
        {
            tracing::error!(%error, source = ?error.source, "the archive cannot be written");
            return Err(give_back(core, session, Fault::Away(error)).await);
        }
    }
    let names: BTreeSet<OperationName> =
        applied.iter().map(|applied| applied.operation.name.clone()).collect();
    let names: Vec<_> = names.into_iter().collect();
    let ticket = core.next_ticket();
    core.order.file(ticket, &names);
    let receipt = match write::commit(core, &session, batch).await {
        Ok(receipt) => Ok(receipt),
        Err(Broken::Fault(fault)) => Err(give_back(core, session, fault).await),
        Err(Broken::Unknown(number, receipt)) => {
            session.discard();
            settle(core, number).await.map(|()| receipt)
        }
    };
    match receipt {
        Ok(receipt) => {
            core.order.turn(ticket, &names).await;
            publish(core, receipt, applied);
            core.order.leave(ticket, &names);
            Ok(())
        }
        Err(fault) => {
            core.order.leave(ticket, &names);
            Err(fault)
        }
    }
}

/// Asks until it is known whether a batch was committed; the error says that it was not.
async fn settle(core: &Core, number: i64) -> Result<(), Fault> {
    let mut pause = PAUSES.0;
    loop {
        match write::was_committed(core, number).await {
            Ok(true) => return Ok(()),
            Ok(false) => {
                return Err(Fault::Race(super::faults::unavailable("a commit was not made")));
            }
            Err(fault) => {
                let error = fault.into_error();
                if core.queue.is_closed() {
                    return Err(Fault::Unknown(error));
                }
                tracing::warn!(%error, source = ?error.source, "it is not known yet whether a commit was made");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSES.1);
            }
        }
    }
}

fn publish(core: &Core, receipt: Receipt, applied: &[&Applied]) {
    if receipt.wrote {
        if let Some((mark, first)) = receipt.first_due {
            core.hints.found(mark, first);
        }
        core.hints.add(receipt.due_us.into_iter(), receipt.later_us.into_iter());
        if let Some(xid) = receipt.xid {
            core.tally.add(xid, receipt.deltas);
        }
        if receipt.untold {
            core.bell.notify_one();
        }
    }
    for applied in applied {
        tell(&*core.listener, applied);
    }
}

/// Finds out which of these have children that would follow them.
pub(super) async fn look_for_children(
    core: &Core,
    session: &Session,
    loaded: &mut Loaded,
    ask: Vec<OperationName>,
) -> Result<(), Fault> {
    let names: Vec<&str> = ask.iter().map(OperationName::as_str).collect();
    let rows = session.query(&core.sql.open_parents, &[&names]).await?;
    let open: BTreeSet<&str> = rows.iter().map(|row| row.get(0)).collect();
    loaded.open.extend(ask.iter().filter(|name| open.contains(name.as_str())).cloned());
    loaded.asked.extend(ask);
    Ok(())
}

/// Begins a transaction and locks all that these commands are about: resources, then keys, then rows, each in
/// one order everywhere; and rows for the claims, past those that somebody else has locked. Says which rows
/// these are, in their order.
async fn load(
    core: &Core,
    session: &Session,
    jobs: &[Job],
    claims: &[Sweep],
    resources: &BTreeSet<i64>,
) -> Result<(Loaded, Vec<OperationName>), Fault> {
    let mut loaded = Loaded::default();
    let mut names = BTreeSet::new();
    let mut keys = BTreeSet::new();
    for job in jobs {
        let (parent, key) = job.key.parts();
        names.extend(parent.cloned());
        match key {
            Key::Name(name) => drop(names.insert(name.clone())),
            Key::RequestId { api, parent, value, name } => {
                names.insert(name.clone());
                keys.insert((api.clone(), parent.clone(), value.clone()));
            }
            Key::Child { .. } => {}
        }
    }
    let keys = numbered(core, session, &keys).await?;
    let ready = session.ready(&core.sql.lock_rows).await?;
    let mut begin = Some(core.begin());
    if !resources.is_empty() {
        lock_resources(core, session, &mut begin, resources, &mut loaded).await?;
        names.extend(loaded.rivals.values().flatten().cloned());
    }
    if !keys.is_empty() {
        let scopes: Vec<i32> = keys.iter().map(|(scope, _)| *scope).collect();
        let values: Vec<&str> = keys.iter().map(|(_, key)| &*key.2).collect();
        let lock_keys = session.ready(&core.sql.lock_keys).await?;
        for row in send(session, &mut begin, &lock_keys, &[&scopes, &values]).await? {
            let (scope, value, name): (i32, &str, &str) = (row.get(0), row.get(1), row.get(2));
            let key = keys.iter().find(|(id, key)| *id == scope && &*key.2 == value);
            if let (Some((_, key)), Ok(name)) = (key, OperationName::parse(name)) {
                names.insert(name.clone());
                loaded.keys.insert(key.clone(), name);
            }
        }
    }
    let texts: Vec<&str> = names.iter().map(OperationName::as_str).collect();
    let texts: [Value<'_>; 1] = [&texts];
    let look = match Look::first(core, claims) {
        Some(look) => Some((session.ready(look.sql(core)).await?, look)),
        None => None,
    };
    let locking = async {
        if !names.is_empty() {
            return send(session, &mut begin, &ready, &texts).await;
        }
        if let Some(begin) = begin.take() {
            session.run(&begin).await?;
        }
        Ok(Vec::new())
    };
    let looking = async {
        match &look {
            Some((ready, look)) => look.send(session, ready).await,
            None => Ok(Vec::new()),
        }
    };
    // Both are sent at once, and in this order.
    let (rows, heads) = join(locking, looking).await;
    take_in(core, session, &mut loaded, &rows?).await?;
    let heads = take_in(core, session, &mut loaded, &heads?).await?;
    Ok((loaded, heads))
}

/// Sends a statement, behind the beginning of the transaction if that is still to come.
async fn send(
    session: &Session,
    begin: &mut Option<String>,
    ready: &Ready<'_>,
    values: &[Value<'_>],
) -> Result<Vec<Row>, Fault> {
    let Some(begin) = begin.take() else { return Ok(session.send(ready, values).await?) };
    let (begun, rows) = join(session.run(&begin), session.send(ready, values)).await;
    begun?;
    Ok(rows?)
}

/// Keys with the numbers of their scopes, which are given to those that have none.
async fn numbered(
    core: &Core,
    session: &Session,
    keys: &BTreeSet<RequestKey>,
) -> Result<Vec<(i32, RequestKey)>, Fault> {
    let scope = |key: &RequestKey| Scope { api: key.0.clone(), parent: key.1.clone() };
    let unknown = keys.iter().map(scope).filter(|scope| core.words.scope_id(scope).is_none());
    let unknown: HashSet<Scope> = unknown.collect();
    if !unknown.is_empty() {
        core.words.number(session, &core.sql, Vec::new(), unknown.into_iter().collect()).await?;
    }
    let with_id = |key: &RequestKey| Some((core.words.scope_id(&scope(key))?, key.clone()));
    Ok(keys.iter().filter_map(with_id).collect())
}

/// Locks resources against the starts of all servers, and finds who has them.
async fn lock_resources(
    core: &Core,
    session: &Session,
    begin: &mut Option<String>,
    resources: &BTreeSet<i64>,
    loaded: &mut Loaded,
) -> Result<(), Fault> {
    let hashes: Vec<i64> = resources.iter().copied().collect();
    // Such locks are the whole database's: another schema has others.
    let ours = rows::claim_hash("longhaul", &core.options.schema);
    let mut keys: Vec<i64> = hashes.iter().map(|hash| hash ^ ours).collect();
    keys.sort_unstable();
    let lock = session.ready(&core.sql.lock_resources).await?;
    let find = session.ready(&core.sql.rivals).await?;
    send(session, begin, &lock, &[&keys]).await?;
    // A statement of its own, so that it sees what was committed while the lock was waited for.
    let found = session.send(&find, &[&hashes]).await?;
    loaded.rivals = hashes.into_iter().map(|hash| (hash, Vec::new())).collect();
    for row in found {
        if let Ok(name) = OperationName::parse(row.get(1)) {
            loaded.rivals.entry(row.get(0)).or_default().push(name);
        }
    }
    Ok(())
}

/// Reads locked rows; the names in their order, but for those that cannot be read.
pub(super) async fn take_in(
    core: &Core,
    session: &Session,
    loaded: &mut Loaded,
    rows: &[Row],
) -> Result<Vec<OperationName>, Fault> {
    core.words.learn(session, &core.sql, rows).await?;
    let mut names = Vec::with_capacity(rows.len());
    for row in rows {
        match rows::read(row, &core.words) {
            Ok(kept) => {
                names.push(kept.operation.name.clone());
                loaded.rows.insert(kept.operation.name.clone(), kept);
            }
            Err(error) => {
                tracing::error!(%error, "a row cannot be read");
                if let Ok(name) = OperationName::parse(row.get(0)) {
                    loaded.damaged.insert(name, error);
                }
            }
        }
    }
    Ok(names)
}
