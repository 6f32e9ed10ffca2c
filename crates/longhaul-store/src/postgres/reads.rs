//! Reads: always from rows, so that a change by any server is seen as soon as it is committed.
//!
//! Gets that wait together share one statement.

use std::collections::HashMap;
use std::sync::Arc;

use longhaul_core::{Error, Operation, OperationName};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio_postgres::Row;

use super::core::Core;
use super::faults::{Fault, damaged, read_failed, unavailable};
use super::rows::{self, Chunk, Kept, Uid, recorded, signed};
use super::session::{Session, Sql, Value, bounded};
use crate::trouble::again;
use crate::{Cursor, ListQuery, Recorded};

/// Most gets in one statement.
const GETS_MAX: usize = 256;

/// Most rows that are read by name in one statement.
const NAMES_MAX: usize = 1_024;

/// What a get is answered.
type Got = Result<Option<Kept>, Error>;

/// Gets that wait for a reader.
#[derive(Default)]
pub(super) struct Gets {
    waiting: Mutex<Vec<(OperationName, oneshot::Sender<Got>)>>,
    /// The same for what a claim holds, by its hash.
    claimed: Mutex<Vec<(i64, oneshot::Sender<Held>)>>,
    filled: Notify,
}

/// What is answered about a claim.
type Held = Result<Vec<Arc<Operation>>, Error>;

/// Answers gets for as long as the store lives, also after it was closed.
pub(super) async fn run(core: Arc<Core>) {
    loop {
        let (named, claimed) = {
            // Not in line for more while at work: what comes then is for a reader that has nothing to do.
            let filled = core.gets.filled.notified();
            tokio::pin!(filled);
            filled.as_mut().enable();
            let taken = (some(&core.gets.waiting), some(&core.gets.claimed));
            if taken.0.is_empty() && taken.1.is_empty() {
                filled.await;
                continue;
            }
            taken
        };
        if !named.is_empty() {
            answer(&core, named).await;
        }
        if !claimed.is_empty() {
            answer_claimed(&core, claimed).await;
        }
    }
}

fn some<T>(waiting: &Mutex<Vec<T>>) -> Vec<T> {
    let mut waiting = waiting.lock();
    let take = waiting.len().min(GETS_MAX);
    waiting.drain(..take).collect()
}

async fn answer_claimed(core: &Core, waiting: Vec<(i64, oneshot::Sender<Held>)>) {
    let hashes: Vec<i64> = waiting.iter().map(|(hash, _)| *hash).collect();
    let read = fetch(core, &core.sql.claimed, &[&hashes], true).await;
    let read = read.and_then(|rows| {
        rows.iter().map(|row| Ok(rows::read(row, &core.words)?.operation)).collect::<Held>()
    });
    let hash_of = |operation: &Operation| {
        operation.lease().map(|lease| rows::claim_hash(&lease.worker, &lease.claim_id))
    };
    for (hash, to) in waiting {
        let held = match &read {
            Ok(all) => Ok(all.iter().filter(|one| hash_of(one) == Some(hash)).cloned().collect()),
            Err(error) => Err(again(error)),
        };
        drop(to.send(held));
    }
}

/// The operations that a claim holds.
pub(super) async fn claimed(core: &Core, worker: &str, claim_id: &str) -> Held {
    let (to, answered) = oneshot::channel();
    core.gets.claimed.lock().push((rows::claim_hash(worker, claim_id), to));
    core.gets.filled.notify_one();
    let mut held = match tokio::time::timeout(core.options.answer_timeout, answered).await {
        Ok(Ok(held)) => held?,
        Ok(Err(gone)) => return Err(unavailable(gone)),
        Err(elapsed) => return Err(unavailable(elapsed)),
    };
    held.retain(|operation| {
        let lease = operation.lease();
        lease.is_some_and(|lease| &*lease.worker == worker && &*lease.claim_id == claim_id)
    });
    Ok(held)
}

async fn answer(core: &Core, waiting: Vec<(OperationName, oneshot::Sender<Got>)>) {
    match read_named(core, &waiting).await {
        Ok(mut found) => {
            for (name, to) in waiting {
                let got = match found.get_mut(name.as_str()) {
                    Some(Ok(kept)) => Ok(Some(kept.clone())),
                    Some(Err(error)) => Err(again(error)),
                    None => Ok(None),
                };
                drop(to.send(got));
            }
        }
        Err(error) => {
            for (_, to) in waiting {
                drop(to.send(Err(again(&error))));
            }
        }
    }
}

async fn read_named<T>(
    core: &Core,
    waiting: &[(OperationName, T)],
) -> Result<HashMap<String, Result<Kept, Error>>, Error> {
    let mut names: Vec<&str> = waiting.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let rows = fetch(core, &core.sql.get, &[&names], true).await?;
    let read = |row: &Row| (row.get(0), rows::read(row, &core.words));
    Ok(rows.iter().map(read).collect())
}

/// Runs a read, once more when its connection turned out to be dead; `operations` when the rows are of
/// the operation table.
async fn fetch(
    core: &Core,
    sql: &Sql,
    values: &[Value<'_>],
    operations: bool,
) -> Result<Vec<Row>, Error> {
    let mut again = true;
    loop {
        let session = core.reading().await?;
        let work = read(core, &session, sql, values, operations);
        match bounded(core.patience(), work).await {
            Ok(rows) => return Ok(rows),
            Err(fault @ (Fault::Race(_) | Fault::Command(_))) => return Err(fault.into_error()),
            Err(fault @ (Fault::Away(_) | Fault::Unknown(_))) => {
                session.discard();
                if !std::mem::take(&mut again) {
                    return Err(fault.into_error());
                }
            }
        }
    }
}

async fn read(
    core: &Core,
    session: &Session,
    sql: &Sql,
    values: &[Value<'_>],
    operations: bool,
) -> Result<Vec<Row>, Fault> {
    let rows = session.query(sql, values).await?;
    if operations {
        core.words.learn(session, &core.sql, &rows).await?;
    }
    Ok(rows)
}

/// The operation of this name, with what its row says beside it.
pub(super) async fn get(core: &Core, name: &OperationName) -> Got {
    let (to, answered) = oneshot::channel();
    core.gets.waiting.lock().push((name.clone(), to));
    core.gets.filled.notify_one();
    match tokio::time::timeout(core.options.answer_timeout, answered).await {
        Ok(Ok(got)) => got,
        Ok(Err(gone)) => Err(unavailable(gone)),
        Err(elapsed) => Err(unavailable(elapsed)),
    }
}

/// The operations of these names, in their order.
pub(super) async fn get_many(
    core: &Core,
    names: &[OperationName],
) -> Result<Vec<Option<Arc<Operation>>>, Error> {
    if let [name] = names {
        return Ok(vec![get(core, name).await?.map(|kept| kept.operation)]);
    }
    let mut found = HashMap::with_capacity(names.len());
    for some in names.chunks(NAMES_MAX) {
        let texts: Vec<&str> = some.iter().map(OperationName::as_str).collect();
        for row in fetch(core, &core.sql.get, &[&texts], true).await? {
            let operation = rows::read(&row, &core.words)?.operation;
            found.insert(operation.name.clone(), operation);
        }
    }
    Ok(names.iter().map(|name| found.get(name).cloned()).collect())
}

/// A page, newest first.
pub(super) async fn list(
    core: &Core,
    query: &ListQuery,
) -> Result<Vec<(Cursor, Arc<Operation>)>, Error> {
    if query.limit == 0 {
        return Ok(Vec::new());
    }
    let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
    let end = Cursor { create_time: longhaul_core::Timestamp::MAX, uid: u128::MAX };
    let after = query.after.unwrap_or(end);
    let (create, uid) = (after.create_time.as_micros(), Uid(after.uid));
    let which = match query.done {
        None => 0,
        Some(true) => 1,
        Some(false) => 2,
    };
    let scopes = scopes(core, query).await?;
    let rows = match scopes[..] {
        [] => return Ok(Vec::new()),
        [one] => fetch(core, &core.sql.list[which], &[&one, &create, &uid, &limit], true).await?,
        [..] => {
            fetch(core, &core.sql.list_many[which], &[&scopes, &create, &uid, &limit], true).await?
        }
    };
    let read = |row: &Row| {
        let operation = rows::read(row, &core.words)?.operation;
        Ok((Cursor::of(&operation), operation))
    };
    rows.iter().map(read).collect()
}

/// Operations in the order of their creation, deleted ones too, after a place.
pub(super) async fn scan(
    core: &Core,
    create_us: i64,
    uid: Uid,
    limit: i64,
) -> Result<Vec<Arc<Operation>>, Error> {
    let rows = fetch(core, &core.sql.scan, &[&create_us, &uid, &limit], true).await?;
    rows.iter().map(|row| Ok(rows::read(row, &core.words)?.operation)).collect()
}

/// The scopes that a list covers.
async fn scopes(core: &Core, query: &ListQuery) -> Result<Vec<i32>, Error> {
    if let Some(parent) = query.parent.exact() {
        let scope = super::words::Scope { api: query.api.clone(), parent: parent.into() };
        if let Some(id) = core.words.scope_id(&scope) {
            return Ok(vec![id]);
        }
    }
    let prefix = query.parent.literal_prefix();
    let rows = fetch(core, &core.sql.scopes_under, &[&&*query.api, &prefix], false).await?;
    let wanted = rows.iter().filter(|row| query.parent.accepts(row.get(1)));
    Ok(wanted.map(|row| row.get(0)).collect())
}

/// The history of an operation.
pub(super) async fn history(
    core: &Core,
    name: &OperationName,
    after: u64,
    limit: usize,
) -> Result<Vec<Recorded>, Error> {
    let Some(kept) = get(core, name).await? else { return Ok(Vec::new()) };
    let outcome = kept.operation.outcome();
    let newest = recorded(name, &kept.events, outcome)?;
    let first = newest.first().map_or(u64::MAX, |recorded| recorded.revision);
    let mut all = Vec::new();
    if kept.history_rows > rows::commits_in_row(&kept) {
        let uid = Uid(kept.operation.uid);
        for row in fetch(core, &core.sql.history, &[&uid, &signed(after)], false).await? {
            let (from, to): (i64, i64) = (row.get(0), row.get(1));
            let record: &[u8] = row.get(3);
            if Chunk::check_sum(uid, from, to, record) != row.get::<_, i32>(2) {
                return Err(damaged("history", name.as_str(), "the checksum does not match"));
            }
            // Moved out of the row since it was read.
            all.extend(
                recorded(name, record, outcome)?.into_iter().filter(|one| one.revision < first),
            );
        }
    }
    all.extend(newest);
    all.retain(|recorded| recorded.revision > after);
    all.truncate(limit);
    Ok(all)
}

fn parsed(row: &Row, index: usize) -> Result<OperationName, Error> {
    let name: &str = row.try_get(index).map_err(read_failed)?;
    OperationName::parse(name).map_err(|error| damaged("operation", name, error.message))
}

/// Children, oldest first.
pub(super) async fn children(
    core: &Core,
    parent: &OperationName,
    limit: usize,
) -> Result<Vec<OperationName>, Error> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = fetch(core, &core.sql.children, &[&parent.as_str(), &limit], false).await?;
    rows.iter().map(|row| parsed(row, 0)).collect()
}

/// Parents and children that have yet to follow.
pub(super) async fn left_behind(
    core: &Core,
    limit: usize,
) -> Result<Vec<(OperationName, OperationName)>, Error> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = fetch(core, &core.sql.left_behind, &[&limit], false).await?;
    rows.iter().map(|row| Ok((parsed(row, 0)?, parsed(row, 1)?))).collect()
}
