//! What a PostgreSQL store can be told.

use std::path::PathBuf;
use std::time::Duration;

/// How a PostgreSQL store is opened. Start from [`Options::new`].
#[derive(Clone, Debug)]
pub struct Options {
    /// `postgres://user:password@host:port/database?sslmode=…`.
    pub url: String,
    /// The same database without a pooler in between, for `LISTEN` and migrations; `None`: `url`.
    pub session_url: Option<String>,
    /// The schema that holds the tables; made when it is not there.
    pub schema: String,
    /// `url` leads to a pooler that gives a connection to a transaction, not to a session: no statement is
    /// prepared and nothing is set for a whole session.
    pub transaction_pooler: bool,
    /// Transactions under way at a time for commands and claims; sweeps, and claims that must look further, have
    /// one more each.
    pub writers: usize,
    /// Connections for reads.
    pub readers: usize,
    /// Most commands that wait for a writer; more are refused with `OVERLOADED`.
    pub queue_max: usize,
    /// How many urgent commands and sweeps may wait beyond that.
    pub queue_reserve: usize,
    /// Most commands in one commit.
    pub batch_max: usize,
    /// A folder that every operation is written to before it is forgotten, as a line of JSON.
    pub archive: Option<PathBuf>,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest time of one statement, and of a commit.
    pub statement_timeout: Duration,
    /// Longest wait for a row that somebody else has locked.
    pub lock_timeout: Duration,
    /// Longest time that a caller waits for an answer; then `STORE_UNAVAILABLE`.
    pub answer_timeout: Duration,
    /// Opened by a copy, not by a server: also a database that a copy has only half filled.
    pub moving: bool,
}

impl Options {
    /// The defaults, for this database.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            session_url: None,
            schema: "longhaul".into(),
            transaction_pooler: false,
            writers: 3,
            readers: 4,
            queue_max: 16_384,
            queue_reserve: 1_024,
            batch_max: 512,
            archive: None,
            connect_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(10),
            lock_timeout: Duration::from_secs(2),
            answer_timeout: Duration::from_secs(10),
            moving: false,
        }
    }

    /// Where `LISTEN` and migrations connect to.
    pub(super) fn session_url(&self) -> &str {
        self.session_url.as_deref().unwrap_or(&self.url)
    }
}
