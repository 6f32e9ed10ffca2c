//! A folder as the source or the target of a move: read from end to end, and marked while it is filled.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use longhaul_core::{Error, Operation, Reason};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::faults::failed;
use super::folder::Folder;
use super::open::{check_format, writing_connection};
use super::{Embedded, Options};
use crate::schema::MetaKey;
use crate::transfer::{Place, Scan};

#[async_trait]
impl Scan for Embedded {
    async fn scan(
        &self,
        after: Option<Place>,
        limit: usize,
    ) -> Result<Vec<(Place, Arc<Operation>)>, Error> {
        let after = after.map_or(0, |Place(id, _)| id);
        self.readers
            .run(move |reader| {
                let ids = reader.ids(after, limit)?;
                let mut page = Vec::with_capacity(ids.len());
                for id in ids {
                    if let Some(kept) = reader.operation(id)? {
                        page.push((Place(id, 0), kept.operation));
                    }
                }
                Ok(page)
            })
            .await
    }
}

/// Makes a folder the target of a move from the store with this token key, or finds that it is one already.
///
/// Fails with `CONFIG_INVALID` when it holds operations that no such move has brought, and with
/// `STORE_IN_USE` while a server has it open.
pub fn begin_move(options: &Options, token_key: [u8; 32]) -> Result<(), Error> {
    with_file(options, |connection, file| {
        let fault = |error| failed(file, error);
        let mark: Option<Vec<u8>> = connection
            .query_row("SELECT value FROM meta WHERE key = ?", [MetaKey::Moving.name()], |row| {
                row.get(0)
            })
            .optional()
            .map_err(fault)?;
        if mark.as_deref() == Some(&token_key) {
            return Ok(());
        }
        let filled: bool = connection
            .query_row("SELECT EXISTS (SELECT 1 FROM operation)", [], |row| row.get(0))
            .map_err(fault)?;
        if filled || mark.is_some() {
            return Err(not_empty(&options.folder.display().to_string()));
        }
        let put = "INSERT INTO meta (key, value) VALUES (?, ?) \
                   ON CONFLICT (key) DO UPDATE SET value = excluded.value";
        let both = connection.unchecked_transaction().map_err(fault)?;
        both.execute(put, params![MetaKey::TokenKey.name(), token_key]).map_err(fault)?;
        both.execute(put, params![MetaKey::Moving.name(), token_key]).map_err(fault)?;
        both.commit().map_err(fault)
    })
}

/// Says that a move into the folder is complete, so that servers may open it.
pub fn end_move(options: &Options) -> Result<(), Error> {
    with_file(options, |connection, file| {
        let removed =
            connection.execute("DELETE FROM meta WHERE key = ?", [MetaKey::Moving.name()]);
        removed.map(drop).map_err(|error| failed(file, error))
    })
}

/// Whether a move into the store was begun and has not ended.
pub(super) fn is_target(connection: &Connection, file: &Path) -> Result<bool, Error> {
    connection
        .query_row(
            "SELECT EXISTS (SELECT 1 FROM meta WHERE key = ?)",
            [MetaKey::Moving.name()],
            |row| row.get(0),
        )
        .map_err(|error| failed(file, error))
}

fn with_file(
    options: &Options,
    work: impl FnOnce(&Connection, &Path) -> Result<(), Error>,
) -> Result<(), Error> {
    let folder = Folder::lock(&options.folder)?;
    folder.prepare()?;
    let connection = writing_connection(&folder.main, options)?;
    check_format(&connection, &folder.main)?;
    work(&connection, &folder.main)
}

/// A target that already has contents of its own.
pub(crate) fn not_empty(what: &str) -> Error {
    Error::new(
        Reason::ConfigInvalid,
        format!(
            "{what} is not empty; copy into a new store, or into one that a copy from the same store was begun into"
        ),
    )
}

/// A store that is only half filled.
pub(crate) fn half_filled(what: &str) -> Error {
    Error::new(
        Reason::StoreInUse,
        format!("a copy into {what} has not ended; run longhaul store copy again until it says so"),
    )
}
