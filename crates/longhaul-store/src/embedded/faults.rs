//! What SQLite and the file system report, as errors of ours.

use std::io;
use std::path::Path;

use longhaul_core::{Error, Reason};
use rusqlite::ErrorCode;

/// What a caller hears when the store cannot be read or written just now.
pub(super) fn unavailable(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(
        Reason::StoreUnavailable,
        "the store cannot be used at the moment; nothing was acknowledged, repeat the call",
    )
    .caused_by(source)
}

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

/// The same error once more, for another caller of the same batch; the source stays with the first.
pub(super) fn again(error: &Error) -> Error {
    let mut copy = Error::new(error.reason, error.message.clone());
    copy.metadata = error.metadata.clone();
    copy.retry_after = error.retry_after;
    copy
}
