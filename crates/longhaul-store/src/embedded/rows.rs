//! Rows of the operation, request and history tables: how they are written, read and checked.
//!
//! Every row carries a CRC-32 over its other columns, and every read compares it.

use std::path::Path;
use std::sync::Arc;

use longhaul_core::{Error, Operation, OperationName, Outcome, Payload, Reason, State, Timestamp};
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, Statement, params};

use super::faults::{damaged_row, failed};
use crate::Recorded;
use crate::check_sum::CheckSum;
use crate::codec::{self, Columns};

/// Names of the columns that [`OperationRow::read`] takes, in its order.
pub(super) const OPERATION_COLUMNS: &str = "id, name, uid, api, method, queue, parent, \
     request_id, create_us, state, claimable_us, due_us, hidden, history_rows, check_sum, record";

/// An operation with what its row says beside it.
#[derive(Clone)]
pub(super) struct Kept {
    pub operation: Arc<Operation>,
    /// Rows in the history table, saturating.
    pub history_rows: u16,
}

/// One row of the operation table.
pub(super) struct OperationRow<'a> {
    pub id: i64,
    pub name: &'a str,
    pub uid: u128,
    pub api: &'a str,
    pub method: &'a str,
    pub queue: &'a str,
    pub parent: &'a str,
    pub request_id: Option<&'a str>,
    pub create_us: i64,
    pub state: u8,
    pub claimable_us: Option<i64>,
    pub due_us: Option<i64>,
    pub hidden: bool,
    pub history_rows: u16,
    pub record: &'a [u8],
}

/// The number of a state in its column.
pub(crate) const fn state_number(state: &State) -> u8 {
    match state {
        State::Queued { .. } => 0,
        State::Running { .. } => 1,
        State::Cancelling { .. } => 2,
        State::CleaningUp { .. } => 3,
        State::Done { .. } => 4,
    }
}

/// [`State::name`] by [`state_number`].
pub(crate) const STATE_NAMES: [&str; 5] =
    ["QUEUED", "RUNNING", "CANCELLING", "CLEANING_UP", "DONE"];

/// The numbers of the states in which a worker may hold an operation.
pub(super) const HOLDING: [u8; 3] = [1, 2, 3];

/// The number of [`State::Done`].
pub(super) const DONE: u8 = 4;

impl<'a> OperationRow<'a> {
    fn of(id: i64, operation: &'a Operation, history_rows: u16, record: &'a [u8]) -> Self {
        Self {
            id,
            name: operation.name.as_str(),
            uid: operation.uid,
            api: &operation.api,
            method: &operation.method,
            queue: &operation.queue,
            parent: &operation.parent,
            request_id: operation.request_id.as_ref().map(|id| &*id.value),
            create_us: operation.create_time.as_micros(),
            state: state_number(&operation.state),
            claimable_us: operation.claimable_from().map(Timestamp::as_micros),
            due_us: operation.due_at().map(Timestamp::as_micros),
            hidden: operation.deleted.is_some(),
            history_rows,
            record,
        }
    }

    /// Reads a row of [`OPERATION_COLUMNS`] and checks it; the error says what is wrong.
    pub fn read(row: &'a Row<'_>) -> Result<Self, String> {
        let (read, check_sum) = Self::columns(row).map_err(|error| error.to_string())?;
        if read.check_sum() != check_sum {
            return Err("the checksum does not match".into());
        }
        if usize::from(read.state) >= STATE_NAMES.len() {
            return Err(format!("state {} is not known", read.state));
        }
        Ok(read)
    }

    fn columns(row: &'a Row<'_>) -> rusqlite::Result<(Self, u32)> {
        let text = |index| row.get_ref(index)?.as_str().map_err(rusqlite::Error::from);
        let uid = row.get_ref(2)?.as_blob()?;
        let read = Self {
            id: row.get(0)?,
            name: text(1)?,
            uid: u128::from_be_bytes(uid.try_into().map_err(|_| {
                rusqlite::Error::FromSqlConversionFailure(
                    2,
                    rusqlite::types::Type::Blob,
                    "a uid has 16 bytes".into(),
                )
            })?),
            api: text(3)?,
            method: text(4)?,
            queue: text(5)?,
            parent: text(6)?,
            request_id: row.get_ref(7)?.as_str_or_null()?,
            create_us: row.get(8)?,
            state: row.get(9)?,
            claimable_us: row.get(10)?,
            due_us: row.get(11)?,
            hidden: row.get(12)?,
            history_rows: row.get(13)?,
            record: row.get_ref(15)?.as_blob()?,
        };
        Ok((read, row.get(14)?))
    }

    fn check_sum(&self) -> u32 {
        let mut sum = CheckSum::default();
        sum.number(self.id);
        sum.text(self.name);
        sum.bytes(&self.uid.to_be_bytes());
        for text in [self.api, self.method, self.queue, self.parent] {
            sum.text(text);
        }
        sum.text(self.request_id.unwrap_or_default());
        sum.number(self.create_us);
        sum.number(i64::from(self.state));
        sum.number(self.claimable_us.unwrap_or(i64::MIN));
        sum.number(self.due_us.unwrap_or(i64::MIN));
        sum.number(i64::from(self.hidden));
        sum.number(i64::from(self.history_rows));
        sum.bytes(self.record);
        sum.end()
    }
}

fn request_check_sum(id: i64, request: &Payload) -> u32 {
    let mut sum = CheckSum::default();
    sum.number(id);
    sum.text(&request.type_name);
    sum.bytes(&request.value);
    sum.end()
}

fn history_check_sum(id: i64, revision: i64, record: &[u8]) -> u32 {
    let mut sum = CheckSum::default();
    sum.number(id);
    sum.number(revision);
    sum.bytes(record);
    sum.end()
}

fn signed(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

/// Reads rows on one connection; the connection keeps its statements ready.
pub(super) struct Reader<'c> {
    connection: &'c Connection,
    file: &'c Path,
}

const OPERATION_SQL: &str = "SELECT id, name, uid, api, method, queue, parent, request_id, create_us, \
     state, claimable_us, due_us, hidden, history_rows, check_sum, record \
     FROM operation WHERE id = ?";
const REQUEST_SQL: &str = "SELECT type_name, value, check_sum FROM request WHERE operation = ?";
const IDS_SQL: &str = "SELECT id FROM operation WHERE id > ? ORDER BY id LIMIT ?";
const HISTORY_SQL: &str = "SELECT revision, record, check_sum FROM history \
     WHERE operation = ? AND revision > ? AND revision <= ? ORDER BY revision LIMIT ?";

impl<'c> Reader<'c> {
    pub fn new(connection: &'c Connection, file: &'c Path) -> Self {
        Self { connection, file }
    }

    fn statement(&self, sql: &str) -> Result<CachedStatement<'c>, Error> {
        self.connection.prepare_cached(sql).map_err(|error| failed(self.file, error))
    }

    /// The numbers of rows after one, in order.
    pub fn ids(&self, after: i64, limit: usize) -> Result<Vec<i64>, Error> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let fault = |error| failed(self.file, error);
        let mut statement = self.statement(IDS_SQL)?;
        let found = statement.query_map([after, limit], |row| row.get(0)).map_err(fault)?;
        found.collect::<rusqlite::Result<_>>().map_err(fault)
    }

    /// The operation in row `id`; `None` when the row is gone.
    pub fn operation(&self, id: i64) -> Result<Option<Kept>, Error> {
        let Some(request) = self.request(id)? else {
            return self.operation_without_request(id);
        };
        let mut statement = self.statement(OPERATION_SQL)?;
        let mut rows = statement.query([id]).map_err(|error| failed(self.file, error))?;
        let Some(row) = rows.next().map_err(|error| failed(self.file, error))? else {
            return Ok(None);
        };
        let wrong = |what: String| damaged_row(self.file, "operation", id, what);
        let row = OperationRow::read(row).map_err(wrong)?;
        let name = OperationName::parse(row.name).map_err(|error| wrong(error.message))?;
        let columns = Columns {
            name,
            uid: row.uid,
            api: row.api.into(),
            method: row.method.into(),
            queue: row.queue.into(),
            parent: row.parent.into(),
            create_time: Timestamp::from_micros(row.create_us),
            request_id: row.request_id.map(Into::into),
            request,
        };
        let operation = codec::decode_operation(row.record, columns)
            .map_err(|error| wrong(error.to_string()))?;
        Ok(Some(Kept { operation: Arc::new(operation), history_rows: row.history_rows }))
    }

    /// Without a request there must be no operation either.
    fn operation_without_request(&self, id: i64) -> Result<Option<Kept>, Error> {
        let mut statement = self.statement(OPERATION_SQL)?;
        let exists = statement.exists([id]).map_err(|error| failed(self.file, error))?;
        if exists && self.request(id)?.is_none() {
            return Err(damaged_row(self.file, "request", id, "the row is missing".into()));
        }
        if exists { self.operation(id) } else { Ok(None) }
    }

    fn request(&self, id: i64) -> Result<Option<Payload>, Error> {
        let read = self
            .statement(REQUEST_SQL)?
            .query_row([id], |row| {
                let type_name = Arc::from(row.get_ref(0)?.as_str()?);
                let value = Arc::from(row.get_ref(1)?.as_blob()?);
                Ok((Payload { type_name, value }, row.get::<_, u32>(2)?))
            })
            .optional()
            .map_err(|error| failed(self.file, error))?;
        match read {
            Some((request, sum)) if request_check_sum(id, &request) != sum => {
                let what = "the checksum does not match".into();
                Err(damaged_row(self.file, "request", id, what))
            }
            Some((request, _)) => Ok(Some(request)),
            None => Ok(None),
        }
    }

    /// The history of row `id` up to the revision that `outcome` belongs to.
    pub fn history(
        &self,
        id: i64,
        after: u64,
        upto: u64,
        limit: usize,
        outcome: Option<&Outcome>,
    ) -> Result<Vec<Recorded>, Error> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut statement = self.statement(HISTORY_SQL)?;
        let mut rows = statement
            .query(params![id, signed(after), signed(upto), limit])
            .map_err(|error| failed(self.file, error))?;
        let mut recorded = Vec::new();
        while let Some(row) = rows.next().map_err(|error| failed(self.file, error))? {
            let read = || -> rusqlite::Result<(i64, &[u8], u32)> {
                Ok((row.get(0)?, row.get_ref(1)?.as_blob()?, row.get(2)?))
            };
            let wrong = |what: String| damaged_row(self.file, "history", id, what);
            let (revision, record, sum) = read().map_err(|error| wrong(error.to_string()))?;
            if history_check_sum(id, revision, record) != sum {
                return Err(wrong(format!("the checksum of revision {revision} does not match")));
            }
            let events =
                codec::decode_events(record, outcome).map_err(|error| wrong(error.to_string()))?;
            recorded.push(Recorded { revision: revision.unsigned_abs(), events });
        }
        Ok(recorded)
    }
}

/// Writes rows on the writing connection, with statements kept ready.
pub(super) struct Writer<'c> {
    insert: Statement<'c>,
    update: Statement<'c>,
    insert_request: Statement<'c>,
    insert_history: Statement<'c>,
    forget: [Statement<'c>; 3],
}

/// Largest record or request that is written, below SQLite's own limit.
const BLOB_BYTES_MAX: usize = 512 << 20;

impl<'c> Writer<'c> {
    pub fn new(connection: &'c Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            insert: connection.prepare(&format!(
                "INSERT INTO operation ({OPERATION_COLUMNS}) \
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            ))?,
            update: connection.prepare(
                "UPDATE operation SET state = ?, claimable_us = ?, due_us = ?, hidden = ?, \
                 history_rows = ?, check_sum = ?, record = ? WHERE id = ?",
            )?,
            insert_request: connection.prepare(
                "INSERT INTO request (operation, type_name, check_sum, value) VALUES (?, ?, ?, ?)",
            )?,
            insert_history: connection.prepare(
                "INSERT INTO history (operation, revision, check_sum, record) VALUES (?, ?, ?, ?)",
            )?,
            forget: [
                connection.prepare("DELETE FROM history WHERE operation = ?")?,
                connection.prepare("DELETE FROM request WHERE operation = ?")?,
                connection.prepare("DELETE FROM operation WHERE id = ?")?,
            ],
        })
    }

    /// Writes a new row and its request; returns how many bytes of records that was.
    pub fn insert(&mut self, id: i64, kept: &Kept) -> rusqlite::Result<usize> {
        let record = codec::encode_operation(&kept.operation);
        let row = OperationRow::of(id, &kept.operation, kept.history_rows, &record);
        let uid = row.uid.to_be_bytes();
        self.insert.execute(params![
            id,
            row.name,
            &uid[..],
            row.api,
            row.method,
            row.queue,
            row.parent,
            row.request_id,
            row.create_us,
            row.state,
            row.claimable_us,
            row.due_us,
            row.hidden,
            row.history_rows,
            row.check_sum(),
            row.record,
        ])?;
        let request = &kept.operation.request;
        let sum = request_check_sum(id, request);
        self.insert_request.execute(params![id, &*request.type_name, sum, &*request.value])?;
        Ok(record.len() + request.value.len())
    }

    /// Rewrites what can change in a row; returns how many bytes of records that was.
    pub fn update(&mut self, id: i64, kept: &Kept) -> rusqlite::Result<usize> {
        let record = codec::encode_operation(&kept.operation);
        let row = OperationRow::of(id, &kept.operation, kept.history_rows, &record);
        self.update.execute(params![
            row.state,
            row.claimable_us,
            row.due_us,
            row.hidden,
            row.history_rows,
            row.check_sum(),
            row.record,
            id,
        ])?;
        Ok(record.len())
    }

    /// Adds the events of one commit; returns how many bytes of records that was.
    pub fn record(&mut self, id: i64, recorded: &Recorded) -> rusqlite::Result<usize> {
        let record = codec::encode_events(&recorded.events);
        let revision = signed(recorded.revision);
        let sum = history_check_sum(id, revision, &record);
        self.insert_history.execute(params![id, revision, sum, record])?;
        Ok(record.len())
    }

    /// Removes a row and all that belongs to it.
    pub fn forget(&mut self, id: i64) -> rusqlite::Result<()> {
        for statement in &mut self.forget {
            statement.execute([id])?;
        }
        Ok(())
    }
}

/// Refuses an operation that no row can hold, before anything is written.
pub(crate) fn check_size(operation: &Operation) -> Result<(), Error> {
    let outcome = match operation.outcome() {
        Some(Outcome::Response(payload)) => payload.value.len(),
        Some(Outcome::Error(_)) | None => 0,
    };
    let checkpoint = operation.checkpoint.as_ref().map_or(0, |bytes| bytes.len());
    let record = operation.metadata.value.len() + outcome + checkpoint;
    if record > BLOB_BYTES_MAX || operation.request.value.len() > BLOB_BYTES_MAX {
        return Err(Error::new(
            Reason::BodyTooLarge,
            format!("an operation holds at most {BLOB_BYTES_MAX} bytes; send less"),
        ));
    }
    Ok(())
}
