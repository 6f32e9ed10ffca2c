//! What SQLite and the file system report, as errors of ours.

use std::io;
use std::path::Path;

use longhaul_core::{Error, Reason};
use rusqlite::ErrorCode;

use crate::trouble::unavailable;

/// An error of SQLite on this file.
pub(super) fn failed(file: &Path, error: rusqlite::Error) -> Error {
    match error.sqlite_error_code() {
        // Without a code of SQLite's, a value was not of the type that this program writes.
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) | None => {
            damaged(file, error.to_string()).caused_by(error)
        }
        Some(_) => unavailable(error),
    }
}

/// The file is not what this program wrote.
pub(super) fn damaged(file: &Path, what: impl AsRef<str>) -> Error {
    let (what, file) = (what.as_ref(), file.display());
    Error::new(
        Reason::StoreDamaged,
        format!("the store file {file} is damaged: {what}; restore a copy of the data folder"),
    )
    .with("file", file.to_string())
}

/// One row is not what this program wrote.
pub(super) fn damaged_row(file: &Path, table: &'static str, id: i64, what: String) -> Error {
    damaged(file, format!("table {table}, row {id}: {what}"))
        .with("table", table)
        .with("row", id.to_string())
}

/// The file system refused something while the store was opened.
pub(super) fn not_opened(doing: &str, path: &Path, error: io::Error) -> Error {
    Error::new(
        Reason::StoreUnavailable,
        format!("cannot {doing} {}: {error}; check the data folder and its rights", path.display()),
    )
    .with("file", path.display().to_string())
    .caused_by(error)
}
