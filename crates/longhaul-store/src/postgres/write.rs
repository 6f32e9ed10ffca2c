//! Writing a batch: one statement with arrays for each table, all sent together with the commit.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::future::{BoxFuture, join_all};
use longhaul_core::{Operation, OperationName, Timestamp};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::batch::{Batch, RequestKey};
use super::core::Core;
use super::faults::{Fault, unavailable};
use super::feed;
use super::note::{self, Change};
use super::rows::{Chunk, Ids, Kept, Uid, Written, commits_in_row};
use super::session::{Session, Sql, Value, bounded};
use super::sql::{COLUMN_COUNT, FIRST_CHANGING};
use super::tally::Delta;
use super::words::{Kind, Scope};
use crate::embedded::state_number;

/// How many slots the tally is spread over.
const SLOTS: i64 = 64;

/// What a commit did, for those who must know after it.
#[derive(Default)]
pub(super) struct Receipt {
    /// The transaction; `None` when it wrote nothing, or when the answer to its commit was lost.
    pub xid: Option<u64>,
    pub wrote: bool,
    pub deltas: Vec<Delta>,
    pub due_us: Vec<i64>,
    pub later_us: Vec<i64>,
    /// What is due first, read in the transaction, and when that read began.
    pub first_due: Option<(u64, Option<i64>)>,
    /// Other servers, if there are any, still have to be told that there is something to read.
    pub untold: bool,
}

/// Why a commit failed.
pub(super) enum Broken {
    /// It was not made.
    Fault(Fault),
    /// Nobody knows; the number of the batch tells.
    Unknown(i64, Receipt),
}

impl<T: Into<Fault>> From<T> for Broken {
    fn from(fault: T) -> Self {
        Self::Fault(fault.into())
    }
}

/// Everything to be written.
#[derive(Default)]
struct Plan {
    inserts: Vec<Written>,
    updates: Vec<Written>,
    replaces: Vec<Written>,
    deletes: Vec<OperationName>,
    gone: Vec<Uid>,
    moved: Vec<(Uid, Uid)>,
    chunks: Vec<Chunk>,
    new_keys: Vec<(i32, Arc<str>, OperationName)>,
    moved_keys: Vec<(i32, Arc<str>, OperationName)>,
    free_keys: Vec<(i32, Arc<str>, OperationName)>,
    tally: BTreeMap<(i32, i16), i64>,
    changed: Vec<Change>,
    was_due: Vec<i64>,
}

fn kind_of(operation: &Operation) -> Kind {
    Kind {
        api: operation.api.clone(),
        method: operation.method.clone(),
        queue: operation.queue.clone(),
    }
}

fn scope_of(operation: &Operation) -> Scope {
    Scope { api: operation.api.clone(), parent: operation.parent.clone() }
}

/// Gives numbers to the kinds and scopes of new operations, on a connection of its own.
async fn number(core: &Core, batch: &Batch<'_>) -> Result<(), Fault> {
    let (mut kinds, mut scopes) = (HashSet::new(), HashSet::new());
    for kept in batch.entries.values().filter_map(|entry| entry.now.as_ref()) {
        let (kind, scope) = (kind_of(&kept.operation), scope_of(&kept.operation));
        if core.words.kind_id(&kind).is_none() {
            kinds.insert(kind);
        }
        if core.words.scope_id(&scope).is_none() {
            scopes.insert(scope);
        }
    }
    if kinds.is_empty() && scopes.is_empty() {
        return Ok(());
    }
    let session = core.reading().await.map_err(Fault::Away)?;
    let (kinds, scopes) = (kinds.into_iter().collect(), scopes.into_iter().collect());
    core.words.number(&session, &core.sql, kinds, scopes).await
}

fn ids(core: &Core, operation: &Operation) -> Result<Ids, Fault> {
    let kind = core.words.kind_id(&kind_of(operation));
    let scope = core.words.scope_id(&scope_of(operation));
    match (kind, scope) {
        (Some(kind), Some(scope)) => Ok(Ids { kind, scope }),
        (None, _) | (_, None) => Err(Fault::Away(unavailable("a kind or scope has no number"))),
    }
}

impl Plan {
    fn new(core: &Core, batch: &Batch<'_>) -> Result<Self, Fault> {
        let mut plan = Self::default();
        for (name, entry) in &batch.entries {
            let before = batch.loaded.rows.get(name);
            if let Some(before) = before {
                plan.count(core, before, -1)?;
                plan.was_due.extend(before.operation.due_at().map(Timestamp::as_micros));
            }
            plan.chunks.extend(entry.chunks.iter().cloned());
            match (before, &entry.now) {
                (None, None) => {}
                (Some(before), None) => plan.delete(core, before)?,
                (before, Some(now)) => {
                    plan.count(core, now, 1)?;
                    let written = Written::new(now, ids(core, &now.operation)?);
                    plan.changed.push(Change {
                        name: name.clone(),
                        revision: written.revision,
                        kind: written.ids.kind,
                        claimable_us: written.claimable_us,
                    });
                    match before {
                        None => plan.inserts.push(written),
                        Some(before) if entry.replaced => {
                            let (from, to) = (Uid(before.operation.uid), written.uid);
                            if from != to && before.history_rows > commits_in_row(before) {
                                plan.moved.push((from, to));
                            }
                            plan.replaces.push(written);
                        }
                        Some(_) => plan.updates.push(written),
                    }
                }
            }
        }
        for (key, now) in &batch.keys {
            plan.key(core, batch, key, now.as_ref())?;
        }
        plan.sort();
        Ok(plan)
    }

    /// In one order everywhere, so that two transactions never wait for each other in a circle.
    fn sort(&mut self) {
        self.inserts.sort_by(|a, b| a.name.cmp(&b.name));
        self.new_keys.sort();
        self.moved_keys.sort();
        self.free_keys.sort();
        self.tally.retain(|_, operations| *operations != 0);
    }

    fn count(&mut self, core: &Core, kept: &Kept, by: i64) -> Result<(), Fault> {
        let state = i16::from(state_number(&kept.operation.state));
        let ids = ids(core, &kept.operation)?;
        *self.tally.entry((ids.kind, state)).or_default() += by;
        Ok(())
    }

    fn delete(&mut self, core: &Core, before: &Kept) -> Result<(), Fault> {
        let operation = &before.operation;
        self.deletes.push(operation.name.clone());
        if before.history_rows > commits_in_row(before) {
            self.gone.push(Uid(operation.uid));
        }
        let kind = ids(core, operation)?.kind;
        let revision = super::rows::signed(operation.revision).saturating_add(1);
        let name = operation.name.clone();
        self.changed.push(Change { name, revision, kind, claimable_us: None });
        Ok(())
    }

    fn key(
        &mut self,
        core: &Core,
        batch: &Batch<'_>,
        key: &RequestKey,
        now: Option<&OperationName>,
    ) -> Result<(), Fault> {
        let (api, parent, value) = key;
        let scope = core
            .words
            .scope_id(&Scope { api: api.clone(), parent: parent.clone() })
            .ok_or_else(|| Fault::Away(unavailable("a scope has no number")))?;
        let before = batch.loaded.keys.get(key);
        match (before, now) {
            (None, Some(now)) => self.new_keys.push((scope, value.clone(), now.clone())),
            (Some(before), Some(now)) if before != now => {
                self.moved_keys.push((scope, value.clone(), now.clone()));
            }
            (Some(_), Some(_)) => {}
            (Some(before), None) => {
                self.free_keys.push((scope, value.clone(), before.clone()));
            }
            // The key was not looked up: it goes with the rows that are forgotten, if it is theirs.
            (None, None) => {
                let filed =
                    |kept: &&Kept| super::batch::request_key(&kept.operation).as_ref() == Some(key);
                let gone = batch.loaded.rows.values().find(filed);
                if let Some(kept) = gone {
                    self.free_keys.push((scope, value.clone(), kept.operation.name.clone()));
                }
            }
        }
        Ok(())
    }

    fn receipt(&self) -> Receipt {
        let written = || self.inserts.iter().chain(&self.updates).chain(&self.replaces);
        Receipt {
            xid: None,
            wrote: true,
            deltas: self.tally.iter().map(|(&(kind, state), &by)| (kind, state, by)).collect(),
            due_us: written().filter_map(|row| row.due_us).collect(),
            later_us: written().filter_map(|row| row.claimable_us).collect(),
            first_due: None,
            untold: false,
        }
    }
}

/// An array of values of one column.
type Array<'r> = Box<dyn ToSql + Sync + Send + 'r>;

/// One column of many rows; the numbers are places in the statements' list of columns.
fn array(rows: &[Written], column: usize) -> Array<'_> {
    fn of<'r, T: ToSql + Sync + Send + 'r>(
        rows: &'r [Written],
        value: impl Fn(&'r Written) -> T,
    ) -> Array<'r> {
        Box::new(rows.iter().map(value).collect::<Vec<T>>())
    }
    match column {
        0 => of(rows, |row| row.name.as_str()),
        1 => of(rows, |row| row.uid),
        2 => of(rows, |row| row.ids.kind),
        3 => of(rows, |row| row.ids.scope),
        4 => of(rows, |row| row.create_us),
        5 => of(rows, |row| row.request_id.as_deref()),
        6 => of(rows, |row| &*row.request.type_name),
        7 => of(rows, |row| &*row.request.value),
        8 => of(rows, |row| row.revision),
        9 => of(rows, |row| row.state),
        10 => of(rows, |row| row.hidden),
        11 => of(rows, |row| row.claimable_us),
        12 => of(rows, |row| row.due_us),
        13 => of(rows, |row| row.parent_name.as_ref().map(OperationName::as_str)),
        14 => of(rows, |row| row.follows),
        15 => of(rows, |row| row.cancelled),
        16 => of(rows, |row| row.claim_hash),
        17 => of(rows, |row| row.history_rows),
        18 => of(rows, |row| row.check_sum),
        19 => of(rows, |row| row.record.as_slice()),
        20 => of(rows, |row| &*row.events),
        21 => of(rows, |row| row.alone_hash),
        other => unreachable!("there is no column {other}"),
    }
}

/// All columns of these rows, or the key and those that an ordinary change can touch.
fn arrays(rows: &[Written], first: usize) -> impl Iterator<Item = Array<'_>> {
    std::iter::once(0).chain(first..COLUMN_COUNT).map(|column| array(rows, column))
}

/// Statements that are sent together.
#[derive(Default)]
struct Pipeline<'p>(Vec<(&'p Sql, Vec<Array<'p>>)>);

impl<'p> Pipeline<'p> {
    fn add<const N: usize>(&mut self, sql: &'p Sql, values: [Array<'p>; N]) {
        self.0.push((sql, values.into()));
    }

    fn keys(&mut self, sql: &'p Sql, keys: &'p [(i32, Arc<str>, OperationName)]) {
        if !keys.is_empty() {
            let scopes: Vec<i32> = keys.iter().map(|key| key.0).collect();
            let values: Vec<&str> = keys.iter().map(|key| &*key.1).collect();
            let names: Vec<&str> = keys.iter().map(|key| key.2.as_str()).collect();
            self.add(sql, [Box::new(scopes), Box::new(values), Box::new(names)]);
        }
    }

    /// Makes everything ready, then sends it all, the commit, and what `note` says, if anything: it comes
    /// after the commit without waiting for its answer. Not in the transaction, for commits with a
    /// notification wait for each other in the whole database until they are on disk.
    async fn send(
        &self,
        session: &Session,
        note: Option<(&Sql, &[Value<'_>])>,
    ) -> Result<Sent, tokio_postgres::Error> {
        let mut ready = Vec::with_capacity(self.0.len());
        let mut values: Vec<Vec<Value<'_>>> = Vec::with_capacity(self.0.len());
        for (sql, arrays) in &self.0 {
            ready.push(session.ready(sql).await?);
            values.push(arrays.iter().map(|array| &**array as Value<'_>).collect());
        }
        let ready_note = match note {
            Some((sql, values)) => Some((session.ready(sql).await?, values)),
            None => None,
        };
        let mut sent: Vec<BoxFuture<'_, Result<Vec<Row>, tokio_postgres::Error>>> = Vec::new();
        for (ready, values) in ready.iter().zip(&values) {
            sent.push(Box::pin(session.send(ready, values)));
        }
        sent.push(Box::pin(async { session.run("COMMIT").await.map(|()| Vec::new()) }));
        if let Some((ready, values)) = &ready_note {
            sent.push(Box::pin(session.send(ready, values)));
        }
        let mut answers = join_all(sent).await;
        let noted = ready_note.is_some() && answers.pop().is_some_and(|answer| answer.is_ok());
        Ok(Sent { answers, noted })
    }
}

/// What came back.
struct Sent {
    /// The answer to each statement, then to the commit.
    answers: Vec<Result<Vec<Row>, tokio_postgres::Error>>,
    /// The note was taken.
    noted: bool,
}

fn pipeline<'p>(core: &'p Core, plan: &'p Plan, number: i64, ask_due: bool) -> Pipeline<'p> {
    let sql = &core.sql;
    let mut pipe = Pipeline::default();
    pipe.keys(&sql.delete_keys, &plan.free_keys);
    pipe.keys(&sql.move_keys, &plan.moved_keys);
    pipe.keys(&sql.insert_keys, &plan.new_keys);
    if !plan.deletes.is_empty() {
        let names: Vec<&str> = plan.deletes.iter().map(OperationName::as_str).collect();
        pipe.add(&sql.delete, [Box::new(names)]);
    }
    if !plan.gone.is_empty() {
        pipe.add(&sql.delete_history, [Box::new(plan.gone.clone())]);
    }
    for &(from, to) in &plan.moved {
        pipe.add(&sql.move_history, [Box::new(from), Box::new(to)]);
    }
    if !plan.replaces.is_empty() {
        pipe.0.push((&sql.replace, arrays(&plan.replaces, 1).collect()));
    }
    if !plan.chunks.is_empty() {
        let of =
            |chunk: &Chunk| Chunk::check_sum(chunk.uid, chunk.first, chunk.last, &chunk.record);
        let chunks = &plan.chunks;
        pipe.add(
            &sql.insert_history,
            [
                Box::new(chunks.iter().map(|chunk| chunk.uid).collect::<Vec<_>>()),
                Box::new(chunks.iter().map(|chunk| chunk.first).collect::<Vec<_>>()),
                Box::new(chunks.iter().map(|chunk| chunk.last).collect::<Vec<_>>()),
                Box::new(chunks.iter().map(of).collect::<Vec<_>>()),
                Box::new(chunks.iter().map(|chunk| &*chunk.record).collect::<Vec<_>>()),
            ],
        );
    }
    pipe.0.push((&sql.write, written(core, plan, number)));
    if ask_due {
        pipe.add(&sql.first_due, []);
    }
    pipe
}

/// The values of the statement that every commit has.
fn written<'p>(core: &'p Core, plan: &'p Plan, number: i64) -> Vec<Array<'p>> {
    let mut values: Vec<Array<'p>> = Vec::with_capacity(2 * COLUMN_COUNT);
    values.extend(arrays(&plan.inserts, 1));
    values.extend(arrays(&plan.updates, FIRST_CHANGING));
    let slot = i16::try_from((core.server + number).rem_euclid(SLOTS)).unwrap_or(0);
    let (tally, changed) = (&plan.tally, &plan.changed);
    values.push(Box::new(slot));
    values.push(Box::new(tally.keys().map(|key| key.0).collect::<Vec<_>>()));
    values.push(Box::new(tally.keys().map(|key| key.1).collect::<Vec<_>>()));
    values.push(Box::new(tally.values().copied().collect::<Vec<_>>()));
    values.push(Box::new(core.server));
    values.push(Box::new(number));
    values.push(Box::new(changed.iter().map(|change| change.name.as_str()).collect::<Vec<_>>()));
    values.push(Box::new(changed.iter().map(|change| change.revision).collect::<Vec<_>>()));
    values.push(Box::new(changed.iter().map(|change| change.kind).collect::<Vec<_>>()));
    values.push(Box::new(changed.iter().map(|change| change.claimable_us).collect::<Vec<_>>()));
    values
}

/// Commits what a batch has decided. The transaction has begun and holds the locks of all its rows.
pub(super) async fn commit(
    core: &Core,
    session: &Session,
    batch: &Batch<'_>,
) -> Result<Receipt, Broken> {
    let limit = core.patience();
    if batch.entries.is_empty() && batch.keys.is_empty() {
        bounded(limit, async { Ok(session.run("COMMIT").await?) }).await?;
        return Ok(Receipt::default());
    }
    bounded(limit, number(core, batch)).await?;
    let plan = Plan::new(core, batch)?;
    let (number, mark) = (core.next_batch(), core.hints.mark());
    let ask_due = plan.was_due.iter().any(|&due_us| core.hints.may_be_first(due_us));
    let mut receipt = plan.receipt();
    let pipe = pipeline(core, &plan, number, ask_due);
    let (channel, text) = (feed::channel(core), note::write(core.server, number, &plan.changed));
    let note: [Value<'_>; 2] = [&channel, &text];
    let note = core.shared.load(Ordering::Relaxed).then_some((&core.sql.notify, &note[..]));
    receipt.untold = note.is_some();
    let answers = match tokio::time::timeout(limit, pipe.send(session, note)).await {
        Ok(Ok(sent)) => {
            receipt.untold &= !sent.noted;
            sent.answers
        }
        Ok(Err(error)) => return Err(error.into()),
        Err(_) => return Err(Broken::Unknown(number, receipt)),
    };
    let mut rows = Vec::with_capacity(answers.len());
    let last = answers.len() - 1;
    for (at, answer) in answers.into_iter().enumerate() {
        match answer {
            Ok(answer) => rows.push(answer),
            Err(error) => {
                return Err(match Fault::from(error) {
                    Fault::Away(error) => {
                        tracing::warn!(%error, source = ?error.source, "a commit was not answered");
                        Broken::Unknown(number, receipt)
                    }
                    Fault::Command(error) if at == last => {
                        tracing::warn!(%error, source = ?error.source, "a commit failed oddly");
                        Broken::Unknown(number, receipt)
                    }
                    fault @ (Fault::Race(_) | Fault::Command(_) | Fault::Unknown(_)) => {
                        Broken::Fault(fault)
                    }
                });
            }
        }
    }
    let read = |answer: &[Row]| answer.first().map(|row| row.get::<_, String>(0));
    let change = last - 1 - usize::from(ask_due);
    receipt.xid = read(&rows[change]).and_then(|xid| xid.parse().ok());
    if ask_due {
        let first = rows[last - 1].first().map(|row| row.get::<_, i64>(0));
        receipt.first_due = Some((mark, first));
    }
    Ok(receipt)
}

/// Finds out whether a batch was committed, and makes sure that it is not committed later.
///
/// Each commit leaves a row under its number. Putting one there waits for a commit under way; whoever is
/// second knows of the first, and a transaction that comes second cannot commit.
pub(super) async fn was_committed(core: &Core, number: i64) -> Result<bool, Fault> {
    let session = Session::take(&core.writes, &core.options).await.map_err(Fault::Away)?;
    let fence = async { Ok(session.query(&core.sql.fence, &[&core.server, &number]).await?) };
    match bounded(core.patience(), fence).await {
        Ok(rows) => Ok(rows.is_empty()),
        Err(fault) => {
            session.discard();
            Err(fault)
        }
    }
}
