//! What PostgreSQL and the way to it report, as errors of ours, and what may be tried again.

use std::time::Duration;

use longhaul_core::{Error, Reason};
use tokio_postgres::error::SqlState;

use crate::trouble;

/// What a caller is told to wait when the database is away.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why an attempt at a transaction failed.
#[derive(Debug)]
pub(super) enum Fault {
    /// Lost a race with another transaction; nothing was changed. Decide again.
    Race(Error),
    /// Something in the commands themselves; nothing was changed.
    Command(Error),
    /// The database cannot be reached or does not take writes; nothing was changed.
    Away(Error),
    /// The connection was lost at the commit: it may have been made.
    Unknown(Error),
}

impl Fault {
    pub fn into_error(self) -> Error {
        match self {
            Self::Race(error) | Self::Command(error) | Self::Away(error) | Self::Unknown(error) => {
                error
            }
        }
    }
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(code) = error.code().cloned() else {
            return if error.is_closed() || is_io(&error) {
                Self::Away(unavailable(error))
            } else {
                Self::Command(odd(error))
            };
        };
        if matches!(
            code,
            SqlState::T_R_SERIALIZATION_FAILURE
                | SqlState::T_R_DEADLOCK_DETECTED
                | SqlState::UNIQUE_VIOLATION
                | SqlState::LOCK_NOT_AVAILABLE
                | SqlState::IN_FAILED_SQL_TRANSACTION
                | SqlState::INVALID_SQL_STATEMENT_NAME
        ) {
            return Self::Race(unavailable(error));
        }
        match &code.code()[..2] {
            // Data, size and program limits.
            "22" | "23" | "54" => Self::Command(odd(error)),
            // Resources, operator's doing, system, connection, read-only, idle transaction ended.
            _ => Self::Away(unavailable(error)),
        }
    }
}

fn is_io(error: &tokio_postgres::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if inner.is::<std::io::Error>() {
            return true;
        }
        source = inner.source();
    }
    false
}

/// What a caller hears when the database cannot be used just now.
pub(super) fn unavailable(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    trouble::unavailable(source).retry_after(RETRY_AFTER)
}

/// The database refused what this program wrote.
fn odd(error: tokio_postgres::Error) -> Error {
    Error::new(Reason::Internal, "the database refused a value; the server's log has the details")
        .caused_by(error)
}

/// An error while reading.
pub(super) fn read_failed(error: tokio_postgres::Error) -> Error {
    Fault::from(error).into_error()
}

/// One row is not what this program wrote.
pub(super) fn damaged(table: &'static str, row: &str, what: impl std::fmt::Display) -> Error {
    Error::new(
        Reason::StoreDamaged,
        format!("the database is damaged: table {table}, row {row}: {what}; restore a backup"),
    )
    .with("table", table)
    .with("row", row)
}

/// The configuration of the store is wrong.
pub(super) fn wrong(what: impl std::fmt::Display) -> Error {
    Error::new(Reason::ConfigInvalid, format!("store: {what}"))
}
