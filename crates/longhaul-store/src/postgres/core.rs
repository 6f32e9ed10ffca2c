//! What all parts of an open store share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use deadpool_postgres::Pool;
use longhaul_core::Error;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_postgres::Row;

use super::archive::Archive;
use super::faults::{Fault, unavailable};
use super::feed::Told;
use super::hints::Hints;
use super::options::Options;
use super::order::Order;
use super::queue::Queue;
use super::reads::Gets;
use super::session::{NOT_SO, Session, Sql, Value};
use super::sql::Statements;
use super::sweeps::Sweeps;
use super::tally::Tally;
use super::words::Words;
use crate::Listener;

/// An open store.
pub(super) struct Core {
    pub options: Options,
    pub sql: Statements,
    pub writes: Pool,
    pub reads: Pool,
    pub words: Words,
    pub queue: Queue,
    pub claims: Sweeps,
    pub timers: Sweeps,
    pub gets: Gets,
    pub order: Order,
    pub hints: Hints,
    pub tally: Tally,
    pub archive: Option<Arc<Archive>>,
    pub listener: Arc<dyn Listener>,
    /// This run of this server.
    pub server: i64,
    /// The newest commit's number; told to other servers.
    pub batches: AtomicI64,
    pub tickets: AtomicU64,
    /// Rung when other servers should look, because a commit could not tell them itself.
    pub bell: Notify,
    /// What other servers' notes have told.
    pub told: Mutex<Told>,
    /// Whether other servers have the store open.
    pub shared: AtomicBool,
    /// Ends the tasks in the background.
    pub stop: Notify,
    pub stopped: AtomicBool,
}

impl Core {
    pub async fn reading(&self) -> Result<Session, Error> {
        Session::take(&self.reads, &self.options).await
    }

    /// Reads something on a connection of its own; one that did not answer is not used again.
    pub async fn ask(
        &self,
        limit: Duration,
        sql: &Sql,
        values: &[Value<'_>],
    ) -> Result<Vec<Row>, Error> {
        let asked = tokio::time::timeout(limit, async {
            let session = self.reading().await.map_err(Fault::Away)?;
            match session.query(sql, values).await.map_err(Fault::from) {
                Err(fault @ (Fault::Away(_) | Fault::Unknown(_))) => {
                    session.discard();
                    Err(fault)
                }
                other => other,
            }
        });
        match asked.await {
            Ok(answer) => answer.map_err(Fault::into_error),
            Err(elapsed) => Err(unavailable(elapsed)),
        }
    }

    pub fn next_batch(&self) -> i64 {
        self.batches.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub fn next_ticket(&self) -> u64 {
        self.tickets.fetch_add(1, Ordering::Relaxed)
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Ends the tasks in the background, but for readers, which go on.
    pub fn halt(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.stop.notify_waiters();
        self.bell.notify_one();
    }

    /// Ends when the tasks in the background must.
    pub async fn stopping(&self) {
        let stop = self.stop.notified();
        tokio::pin!(stop);
        stop.as_mut().enable();
        if !self.is_stopped() {
            stop.await;
        }
    }

    /// How long the database may take for the statements of one half of a transaction.
    pub fn patience(&self) -> Duration {
        self.options.statement_timeout + self.options.lock_timeout
    }

    /// How a transaction begins.
    pub fn begin(&self) -> String {
        if self.options.transaction_pooler {
            format!(
                "BEGIN; SET LOCAL statement_timeout = {}; SET LOCAL lock_timeout = {}{}",
                self.options.statement_timeout.as_millis(),
                self.options.lock_timeout.as_millis(),
                NOT_SO.map(|way| format!("; SET LOCAL {way} = off")).concat(),
            )
        } else {
            "BEGIN".to_owned()
        }
    }
}
