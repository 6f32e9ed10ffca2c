//! Rows of the operation and history tables: how they are made, read and checked.
//!
//! Every row carries a CRC-32 over what is read back, and every read compares it.

use std::sync::Arc;

use longhaul_core::{Error, Event, Operation, OperationName, Outcome, Payload, Timestamp};
use tokio_postgres::Row;
use tokio_postgres::types::{
    FromSql, IsNull, ToSql, Type, accepts, private::BytesMut, to_sql_checked,
};

use super::faults::damaged;
use super::words::{Kind, Scope, Words};
use crate::check_sum::CheckSum;
use crate::codec::{self, Columns};
use crate::embedded::{STATE_NAMES, state_number};
use crate::{Recorded, history};

/// Bytes of events kept in an operation's own row; more move to the history table.
const EVENTS_BYTES_MAX: usize = 2_048;

/// A uid as PostgreSQL's `uuid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Uid(pub u128);

impl ToSql for Uid {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(&self.0.to_be_bytes());
        Ok(IsNull::No)
    }

    accepts!(UUID);
    to_sql_checked!();
}

impl<'a> FromSql<'a> for Uid {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(u128::from_be_bytes(raw.try_into()?)))
    }

    accepts!(UUID);
}

/// The columns that [`read`] takes, in its order, of a table called `o`.
pub(super) const READ: &str = "o.name, o.uid, o.kind, o.scope, o.create_us, o.revision, o.state, \
     o.hidden, o.claimable_us, o.due_us, o.request_id, o.history_rows, o.check_sum, o.record, \
     o.request_type, o.request, o.history";

/// An operation with what its row says beside it.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub operation: Arc<Operation>,
    /// Commits with events so far.
    pub history_rows: u32,
    /// The newest of them.
    pub events: Arc<[u8]>,
}

/// The numbers of an operation's kind and scope.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ids {
    pub kind: i32,
    pub scope: i32,
}

/// The ids in a row of [`READ`], to be looked up before it is read.
pub(super) fn ids(row: &Row) -> Ids {
    Ids { kind: row.get(2), scope: row.get(3) }
}

/// One row to write.
pub(super) struct Written {
    pub name: OperationName,
    pub uid: Uid,
    pub ids: Ids,
    pub create_us: i64,
    pub revision: i64,
    pub state: i16,
    pub hidden: bool,
    pub claimable_us: Option<i64>,
    pub due_us: Option<i64>,
    pub parent_name: Option<OperationName>,
    pub follows: bool,
    pub cancelled: bool,
    pub claim_hash: Option<i64>,
    pub alone_hash: Option<i64>,
    pub request_id: Option<Arc<str>>,
    pub history_rows: i32,
    pub check_sum: i32,
    pub record: Vec<u8>,
    pub request: Payload,
    pub events: Arc<[u8]>,
}

impl Written {
    pub fn new(kept: &Kept, ids: Ids) -> Self {
        let operation = &kept.operation;
        let mut row = Self {
            name: operation.name.clone(),
            uid: Uid(operation.uid),
            ids,
            create_us: operation.create_time.as_micros(),
            revision: signed(operation.revision),
            state: i16::from(state_number(&operation.state)),
            hidden: operation.deleted.is_some(),
            claimable_us: operation.claimable_from().map(Timestamp::as_micros),
            due_us: operation.due_at().map(Timestamp::as_micros),
            parent_name: operation.parent_operation.clone(),
            follows: operation.parent_operation.is_some() && operation.would_follow_parent(),
            cancelled: operation.cancel.is_some(),
            claim_hash: operation
                .lease()
                .filter(|lease| !lease.claim_id.is_empty())
                .map(|lease| claim_hash(&lease.worker, &lease.claim_id)),
            alone_hash: alone_hash(operation),
            request_id: operation.request_id.as_ref().map(|id| id.value.clone()),
            history_rows: i32::try_from(kept.history_rows).unwrap_or(i32::MAX),
            check_sum: 0,
            record: codec::encode_operation(operation),
            request: operation.request.clone(),
            events: kept.events.clone(),
        };
        row.check_sum = Checked {
            name: row.name.as_str(),
            uid: row.uid,
            ids: row.ids,
            numbers: [row.create_us, row.revision, i64::from(row.state), i64::from(row.hidden)],
            moments: [row.claimable_us, row.due_us],
            request_id: row.request_id.as_deref(),
            history_rows: row.history_rows,
            record: &row.record,
            request_type: &row.request.type_name,
            request: &row.request.value,
            events: &row.events,
        }
        .sum();
        row
    }
}

/// What the check sum covers.
struct Checked<'a> {
    name: &'a str,
    uid: Uid,
    ids: Ids,
    numbers: [i64; 4],
    moments: [Option<i64>; 2],
    request_id: Option<&'a str>,
    history_rows: i32,
    record: &'a [u8],
    request_type: &'a str,
    request: &'a [u8],
    events: &'a [u8],
}

impl Checked<'_> {
    fn sum(&self) -> i32 {
        let mut sum = CheckSum::default();
        sum.text(self.name);
        sum.bytes(&self.uid.0.to_be_bytes());
        sum.number(i64::from(self.ids.kind));
        sum.number(i64::from(self.ids.scope));
        self.numbers.iter().for_each(|&number| sum.number(number));
        self.moments.iter().for_each(|moment| sum.number(moment.unwrap_or(i64::MIN)));
        sum.text(self.request_id.unwrap_or_default());
        sum.number(i64::from(self.history_rows));
        sum.bytes(self.record);
        sum.text(self.request_type);
        sum.bytes(self.request);
        sum.bytes(self.events);
        sum.end().cast_signed()
    }
}

/// Reads a row of [`READ`]; its ids must be known.
pub(super) fn read(row: &Row, words: &Words) -> Result<Kept, Error> {
    let name: &str = row.try_get(0).map_err(|error| damaged("operation", "?", error))?;
    let wrong = |what: String| damaged("operation", name, what);
    let read = columns(row).map_err(|error| wrong(error.to_string()))?;
    if read.sum() != row.get::<_, i32>(12) {
        return Err(wrong("the checksum does not match".into()));
    }
    let [create_us, _, state, _] = read.numbers;
    if usize::try_from(state).map_or(true, |state| state >= STATE_NAMES.len()) {
        return Err(wrong(format!("state {state} is not known")));
    }
    let unknown = |what: &str, id: i32| wrong(format!("{what} {id} is not known"));
    let Kind { api, method, queue } =
        words.kind(read.ids.kind).ok_or_else(|| unknown("kind", read.ids.kind))?;
    let Scope { parent, .. } =
        words.scope(read.ids.scope).ok_or_else(|| unknown("scope", read.ids.scope))?;
    let columns = Columns {
        name: OperationName::parse(name).map_err(|error| wrong(error.message))?,
        uid: read.uid.0,
        api,
        method,
        queue,
        parent,
        create_time: Timestamp::from_micros(create_us),
        request_id: read.request_id.map(Into::into),
        request: Payload { type_name: read.request_type.into(), value: read.request.into() },
    };
    let operation =
        codec::decode_operation(read.record, columns).map_err(|error| wrong(error.to_string()))?;
    Ok(Kept {
        operation: Arc::new(operation),
        history_rows: read.history_rows.unsigned_abs(),
        events: read.events.into(),
    })
}

fn columns(row: &Row) -> Result<Checked<'_>, tokio_postgres::Error> {
    Ok(Checked {
        name: row.try_get(0)?,
        uid: row.try_get(1)?,
        ids: Ids { kind: row.try_get(2)?, scope: row.try_get(3)? },
        numbers: [
            row.try_get(4)?,
            row.try_get(5)?,
            i64::from(row.try_get::<_, i16>(6)?),
            i64::from(row.try_get::<_, bool>(7)?),
        ],
        moments: [row.try_get(8)?, row.try_get(9)?],
        request_id: row.try_get(10)?,
        history_rows: row.try_get(11)?,
        record: row.try_get(13)?,
        request_type: row.try_get(14)?,
        request: row.try_get(15)?,
        events: row.try_get(16)?,
    })
}

/// A row of the history table to write.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    pub uid: Uid,
    pub first: i64,
    pub last: i64,
    pub record: Arc<[u8]>,
}

impl Chunk {
    pub fn check_sum(uid: Uid, first: i64, last: i64, record: &[u8]) -> i32 {
        let mut sum = CheckSum::default();
        sum.bytes(&uid.0.to_be_bytes());
        sum.number(first);
        sum.number(last);
        sum.bytes(record);
        sum.end().cast_signed()
    }
}

/// The next value's row, with the events of its commit; a chunk when the row has grown too long.
pub(super) fn next(
    before: Option<&Kept>,
    operation: &Operation,
    events: &[Event],
) -> (Kept, Option<Chunk>) {
    let (rows, earlier) = match before {
        Some(kept) => (kept.history_rows, kept.events.clone()),
        None => (0, Arc::default()),
    };
    let mut kept =
        Kept { operation: Arc::new(operation.clone()), history_rows: rows, events: earlier };
    let events = history::worth_keeping(events, usize::try_from(rows).unwrap_or(usize::MAX));
    if events.is_empty() {
        return (kept, None);
    }
    let record = codec::encode_events(&events);
    let mut chunk = None;
    if !kept.events.is_empty() && kept.events.len() + record.len() > EVENTS_BYTES_MAX {
        let commits = split(&kept.events).unwrap_or_default();
        if let (Some((first, _)), Some((last, _))) = (commits.first(), commits.last()) {
            let (first, last) = (signed(*first), signed(*last));
            chunk =
                Some(Chunk { uid: Uid(operation.uid), first, last, record: kept.events.clone() });
            kept.events = Arc::default();
        }
    }
    let mut bytes = Vec::with_capacity(kept.events.len() + 12 + record.len());
    bytes.extend_from_slice(&kept.events);
    bytes.extend_from_slice(&operation.revision.to_le_bytes());
    bytes.extend_from_slice(&u32::try_from(record.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(&record);
    kept.events = bytes.into();
    kept.history_rows = rows.saturating_add(1);
    (kept, chunk)
}

/// Revisions and event records, oldest first; `None` when the bytes are not what [`next`] wrote.
fn split(mut bytes: &[u8]) -> Option<Vec<(u64, &[u8])>> {
    let mut commits = Vec::new();
    while !bytes.is_empty() {
        let (revision, rest) = bytes.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let (record, rest) = rest.split_at_checked(length)?;
        commits.push((u64::from_le_bytes(*revision), record));
        bytes = rest;
    }
    Some(commits)
}

/// The events in a row, or in a chunk.
pub(super) fn recorded(
    name: &OperationName,
    bytes: &[u8],
    outcome: Option<&Outcome>,
) -> Result<Vec<Recorded>, Error> {
    let wrong = |what: &dyn std::fmt::Display| damaged("history", name.as_str(), what);
    let commits = split(bytes).ok_or_else(|| wrong(&"the events are cut short"))?;
    let read = |(revision, record)| {
        let events = codec::decode_events(record, outcome).map_err(|error| wrong(&error))?;
        Ok(Recorded { revision, events })
    };
    commits.into_iter().map(read).collect()
}

/// How many commits the row itself has the events of.
pub(super) fn commits_in_row(kept: &Kept) -> u32 {
    split(&kept.events).map_or(0, |commits| u32::try_from(commits.len()).unwrap_or(u32::MAX))
}

/// The hash that operations of a claim are found by; the same in every version, since it is stored.
pub(super) fn claim_hash(worker: &str, claim_id: &str) -> i64 {
    hash(worker, claim_id)
}

/// The hash that an operation is found by which has a resource for itself; as lasting.
pub(super) fn alone_hash(operation: &Operation) -> Option<i64> {
    operation.claim_on().map(|(api, target)| hash(api, target))
}

fn hash(first: &str, second: &str) -> i64 {
    // FNV-1a, with a byte between the two that is in no text.
    let bytes = first.bytes().chain([0xFF]).chain(second.bytes());
    let mix = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.fold(0xcbf2_9ce4_8422_2325, mix).cast_signed()
}

/// A revision as a column has it.
pub(super) fn signed(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}
