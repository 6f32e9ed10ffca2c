//! Opening: connections with the right settings, the format check, and the scan that rebuilds the indexes.

use std::path::Path;

use longhaul_core::{Error, OperationName, Reason};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::checkpoint::PAGE_BYTES;
use super::claims::Claims;
use super::families::{Families, Link};
use super::faults::{damaged, damaged_row, failed};
use super::plan::{Plan, PlanBuilder, ScheduledRow, Slot};
use super::rows::{HOLDING, Kept, OPERATION_COLUMNS, OperationRow, Reader};
use super::view::{View, ViewBuilder, ViewRow};
use super::{Durability, Options};
use crate::schema::{FORMAT_VERSION, MetaKey, Table};
use crate::{Cursor, codec};

/// KiB of pages that the writing connection keeps.
const WRITER_CACHE_KIB: i64 = 8 << 10;

/// KiB of pages that each reading connection keeps; the operating system keeps the rest.
const READER_CACHE_KIB: i64 = 2 << 10;

/// Statements that a connection keeps ready.
const STATEMENTS_MAX: usize = 32;

fn connection(file: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(file, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    // The log is copied by us alone; a connection that closes must leave it, above all a damaged one.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    Ok(connection)
}

/// A connection that only reads.
pub(super) fn reading_connection(file: &Path) -> Result<Connection, Error> {
    let open = || {
        let connection = connection(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
        Ok(connection)
    };
    open().map_err(|error| failed(file, error))
}

/// A connection that may write; `relaxed` leaves syncing to the operating system.
pub(super) fn writing_connection(file: &Path, options: &Options) -> Result<Connection, Error> {
    let open = || {
        let connection = connection(file, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
        let synchronous = match options.durability {
            Durability::Strict => "FULL",
            Durability::Relaxed => "NORMAL",
        };
        connection.pragma_update(None, "synchronous", synchronous)?;
        if let Some(bytes) = options.bytes_max {
            let pages = i64::try_from(bytes / u64::from(PAGE_BYTES)).unwrap_or(i64::MAX);
            connection.query_row(
                &format!("PRAGMA max_page_count = {}", pages.max(1)),
                [],
                |_| Ok(()),
            )?;
        }
        Ok(connection)
    };
    open().map_err(|error| failed(file, error))
}

/// Checks that this program can read the file. Fails with `STORE_TOO_NEW` when a newer one wrote it.
pub(super) fn check_format(connection: &Connection, file: &Path) -> Result<(), Error> {
    let format: Option<String> = meta(connection, file, MetaKey::Format)?;
    let Some(format) = format.as_deref().and_then(|text| text.parse::<u32>().ok()) else {
        return Err(damaged(file, "it does not say which format it has"));
    };
    if format > FORMAT_VERSION {
        return Err(Error::new(
            Reason::StoreTooNew,
            format!(
                "the store file {} has format {format}, and this server knows formats up to \
                 {FORMAT_VERSION}; run a newer server",
                file.display()
            ),
        )
        .with("file", file.display().to_string())
        .with("format", format.to_string()));
    }
    for table in Table::ALL {
        check_table(connection, file, table)?;
    }
    Ok(())
}

/// Each table must be as this program makes it.
fn check_table(connection: &Connection, file: &Path, table: Table) -> Result<(), Error> {
    let made: Option<String> = connection
        .query_row("SELECT sql FROM sqlite_schema WHERE name = ?", [table.name()], |row| row.get(0))
        .optional()
        .map_err(|error| failed(file, error))?;
    if made.as_deref() == Some(table.create()) {
        return Ok(());
    }
    Err(damaged(file, format!("table {} is not as it was made", table.name())))
}

/// The key that seals page tokens.
pub(super) fn token_key(connection: &Connection, file: &Path) -> Result<[u8; 32], Error> {
    let key: Option<Vec<u8>> = meta(connection, file, MetaKey::TokenKey)?;
    key.and_then(|key| key.try_into().ok()).ok_or_else(|| damaged(file, "its token key is missing"))
}

fn meta<T: rusqlite::types::FromSql>(
    connection: &Connection,
    file: &Path,
    key: MetaKey,
) -> Result<Option<T>, Error> {
    connection
        .query_row("SELECT value FROM meta WHERE key = ?", [key.name()], |row| row.get(0))
        .optional()
        .map_err(|error| match error.sqlite_error_code() {
            // A table that is not there, or a value of another type: not a file of ours.
            Some(rusqlite::ErrorCode::Unknown) | None => damaged(file, error.to_string()),
            Some(_) => failed(file, error),
        })
}

/// Checks the shape of the operation table, so that no page can lose rows unseen. Runs beside the scan,
/// which checks what is in the rows.
pub(super) fn check_shape(file: &Path) -> Result<(), Error> {
    let connection = reading_connection(file)?;
    let found: String = connection
        .query_row("PRAGMA quick_check('operation')", [], |row| row.get(0))
        .map_err(|error| failed(file, error))?;
    if found == "ok" { Ok(()) } else { Err(damaged(file, found)) }
}

/// What the scan found.
pub(super) struct Scanned {
    pub view: View,
    pub plan: Plan,
    pub next_id: i64,
    pub slots: Slot,
}

/// Reads every operation row once, checks it, and builds the indexes.
pub(super) fn scan(
    connection: &Connection,
    file: &Path,
    cache_bytes: usize,
) -> Result<Scanned, Error> {
    let fault = |error| failed(file, error);
    let mut view = ViewBuilder::new(cache_bytes);
    let mut plan = PlanBuilder::default();
    let mut families = Families::default();
    let mut claims = Claims::default();
    let mut ids = Vec::new();
    let mut keyed = connection
        .prepare(
            "SELECT 1 FROM operation WHERE id = ? AND api = ? AND parent = ? AND request_id = ?",
        )
        .map_err(fault)?;
    let mut statement = connection
        .prepare(&format!("SELECT {OPERATION_COLUMNS} FROM operation ORDER BY id"))
        .map_err(fault)?;
    let mut found = statement.query([]).map_err(fault)?;
    while let Some(row) = found.next().map_err(fault)? {
        let id = row.get(0).map_err(fault)?;
        let row =
            OperationRow::read(row).map_err(|what| damaged_row(file, "operation", id, what))?;
        let slot = view.push(&viewed(&row), row.state, row.hidden, row.history_rows);
        let [api, method, queue, parent] = view.texts(slot);
        let key = row.request_id.map_or(0, |value| plan.key_hash(api, parent, value));
        let damaged = |what: String| damaged_row(file, "operation", id, what);
        let target =
            codec::decode_target(row.record).map_err(|error| damaged(error.to_string()))?;
        let scheduled = ScheduledRow {
            api,
            method,
            queue,
            create_us: row.create_us,
            claimable_us: row.claimable_us,
            due_us: row.due_us,
            key,
            alone: target.map_or(0, |target| plan.alone_hash(api, target)),
        };
        let link = codec::decode_link(row.record).map_err(|error| damaged(error.to_string()))?;
        if let Some((parent, would_follow)) = link {
            let name = OperationName::parse(row.name).map_err(|error| damaged(error.message))?;
            let cursor = viewed(&row).cursor;
            families.link(slot, Link { parent, name, cursor, would_follow });
        }
        if HOLDING.contains(&row.state) {
            let claim =
                codec::decode_claim(row.record).map_err(|error| damaged(error.to_string()))?;
            if let Some((worker, claim_id)) = claim {
                claims.hold(slot, worker, claim_id);
            }
        }
        ids.push(id);
        plan.push(&scheduled, |older| {
            let key = (ids[older as usize], row.api, row.parent, row.request_id);
            keyed.exists(key).unwrap_or(false)
        });
    }
    let next_id = ids.last().map_or(1, |last| last + 1);
    let slots = Slot::try_from(ids.len()).expect("fewer rows than slots");
    let mut view = view.build();
    for parent in families.open_parents() {
        for found in view.find(&parent) {
            let kept = Reader::new(connection, file).operation(found.id)?;
            let cancelled = kept.is_some_and(|Kept { operation, .. }| {
                operation.name == parent && operation.cancel.is_some()
            });
            if cancelled {
                families.cancelled(&parent);
            }
        }
    }
    view.families = families;
    view.claims = claims;
    Ok(Scanned { view, plan: plan.build(), next_id, slots })
}

fn viewed<'a>(row: &'a OperationRow<'_>) -> ViewRow<'a> {
    ViewRow {
        id: row.id,
        name: row.name,
        cursor: Cursor {
            create_time: longhaul_core::Timestamp::from_micros(row.create_us),
            uid: row.uid,
        },
        api: row.api,
        method: row.method,
        queue: row.queue,
        parent: row.parent,
    }
}
