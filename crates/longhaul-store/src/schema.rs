//! Every table and key of the stored form.
//!
//! Scheduling, due, list and key indexes are not here: they are kept in memory and rebuilt by one scan of
//! `operation`, because keeping them in tables costs half of the work.

/// The format that this program writes. It reads all formats up to it, and refuses newer ones.
pub const FORMAT_VERSION: u32 = 1;

/// SQLite's `application_id`: marks the file as ours ("LHst").
pub const APPLICATION_ID: i32 = 0x4C48_7374;

/// A table of the embedded engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Facts about the store itself, by [`MetaKey`].
    Meta,
    /// One row per operation: columns that the start-up scan needs, and a versioned record of the rest.
    /// `check_sum` is a CRC-32 over all other columns.
    Operation,
    /// The request of each operation, written once; apart, so that a renewal does not rewrite it.
    Request,
    /// The events of each commit of an operation, written once.
    History,
}

impl Table {
    /// Every table, in the order of creation.
    pub const ALL: [Self; 4] = [Self::Meta, Self::Operation, Self::Request, Self::History];

    /// Its name in SQL.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Operation => "operation",
            Self::Request => "request",
            Self::History => "history",
        }
    }

    /// The statement that makes it.
    #[must_use]
    pub const fn create(self) -> &'static str {
        match self {
            Self::Meta => {
                "CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"
            }
            Self::Operation => {
                "CREATE TABLE operation (\
                 id INTEGER PRIMARY KEY, \
                 name TEXT NOT NULL, \
                 uid BLOB NOT NULL, \
                 api TEXT NOT NULL, \
                 method TEXT NOT NULL, \
                 queue TEXT NOT NULL, \
                 parent TEXT NOT NULL, \
                 request_id TEXT, \
                 create_us INTEGER NOT NULL, \
                 state INTEGER NOT NULL, \
                 claimable_us INTEGER, \
                 due_us INTEGER, \
                 hidden INTEGER NOT NULL, \
                 history_rows INTEGER NOT NULL, \
                 check_sum INTEGER NOT NULL, \
                 record BLOB NOT NULL)"
            }
            Self::Request => {
                "CREATE TABLE request (\
                 operation INTEGER PRIMARY KEY, \
                 type_name TEXT NOT NULL, \
                 check_sum INTEGER NOT NULL, \
                 value BLOB NOT NULL)"
            }
            Self::History => {
                "CREATE TABLE history (\
                 operation INTEGER NOT NULL, \
                 revision INTEGER NOT NULL, \
                 check_sum INTEGER NOT NULL, \
                 record BLOB NOT NULL, \
                 PRIMARY KEY (operation, revision)) WITHOUT ROWID"
            }
        }
    }
}

/// A row of [`Table::Meta`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetaKey {
    /// [`FORMAT_VERSION`] of the file, in decimal digits.
    Format,
    /// 32 random bytes that seal page tokens.
    TokenKey,
    /// Written by the readiness probe; the value says nothing.
    Probe,
    /// There while a copy from another store has not ended; the token key of that store.
    Moving,
}

impl MetaKey {
    /// The key as it is stored.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Format => "format",
            Self::TokenKey => "token_key",
            Self::Probe => "probe",
            Self::Moving => "moving",
        }
    }
}
