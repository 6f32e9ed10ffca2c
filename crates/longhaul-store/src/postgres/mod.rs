//! The PostgreSQL engine: any number of servers on one database, and the row decides.
//!
//! Commands that wait together are decided over locked rows and written with one statement per table and
//! one commit; claims and sweeps are taken in batches. Nothing is kept in memory that a row could
//! contradict: reads read rows. What other servers commit reaches this server's listener as hints.

mod address;
mod archive;
mod batch;
mod core;
mod faults;
mod feed;
mod hints;
mod keeper;
mod migrate;
mod moving;
mod note;
mod options;
mod order;
mod queue;
mod reads;
mod rows;
mod session;
mod sql;
mod sweeps;
mod tally;
#[cfg(all(test, feature = "test-postgres"))]
mod tests;
mod words;
mod write;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use async_trait::async_trait;
use longhaul_core::{Applied, Error, Operation, OperationName, Timestamp};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use self::address::Address;
use self::core::Core;
use self::faults::{Fault, unavailable};
pub use self::migrate::{Migrated, migrate};
pub use self::moving::{begin_move, begin_scan, end_move, end_scan};
pub use self::options::Options;
use self::session::bounded;
use self::sweeps::Sweep;
use crate::admission::closed;
use crate::embedded::half_filled;
use crate::{
    Count, Cursor, Decide, Due, Failure, Key, ListQuery, Listener, Presence, Priority, Recorded,
    Store,
};

/// An open database. Dropping it abandons what waits; [`Store::close`] answers it first.
pub struct Postgres {
    core: Arc<Core>,
    token_key: [u8; 32],
    /// Tasks that end once their queue is closed and empty.
    writers: Mutex<Vec<JoinHandle<()>>>,
    /// Tasks likewise; those for claims get theirs from the writers.
    sweepers: Mutex<Vec<JoinHandle<()>>>,
    /// Tasks that end when told.
    others: Vec<JoinHandle<()>>,
}

impl Postgres {
    /// Opens a database and brings its schema up to date.
    ///
    /// Fails with `CONFIG_INVALID`, `STORE_TOO_NEW` or `STORE_UNAVAILABLE`. `listener` hears of every
    /// commit made here, and of others' as hints.
    pub async fn open(options: &Options, listener: Arc<dyn Listener>) -> Result<Self, Error> {
        let migrated = migrate(options).await?;
        Self::open_at(migrated, options, listener).await
    }

    /// Opens a database whose schema has been brought up to date.
    async fn open_at(
        migrated: Migrated,
        options: &Options,
        listener: Arc<dyn Listener>,
    ) -> Result<Self, Error> {
        if migrated.from != Some(migrated.to) {
            tracing::info!(schema = %options.schema, version = migrated.to, "the schema is up to date");
        }
        let address = Address::parse(&options.url)?;
        let ear = Address::parse(options.session_url())?;
        let sql = sql::Statements::new(&options.schema);
        let reads = session::pool(&address, options, options.readers + 2)?;
        let session = session::Session::take(&reads, options).await?;
        let known = async {
            let server = session.query(&sql.server_id, &[]).await?;
            let moving = session.query(&sql.moving, &[]).await?;
            if !options.moving && !moving.is_empty() {
                return Err(Fault::Command(half_filled("the database")));
            }
            session.query(&sql.token_key, &[]).await?;
            Ok((server, session.query(&sql.find_token_key, &[]).await?))
        };
        let (server, key) =
            bounded(options.statement_timeout, known).await.map_err(Fault::into_error)?;
        drop(session);
        let server: i64 = server.first().map_or(0, |row| row.get(0));
        let token_key = key.first().and_then(|row| row.get::<_, &[u8]>(0).try_into().ok());
        let token_key =
            token_key.ok_or_else(|| faults::damaged("meta", "token_key", "it has not 32 bytes"))?;
        let archive = match &options.archive {
            Some(folder) => {
                let archive = archive::Archive::new(folder.clone(), server).map_err(|error| {
                    faults::wrong(format!("archive {}: {error}", folder.display()))
                })?;
                Some(Arc::new(archive))
            }
            None => None,
        };
        let core = Arc::new(Core {
            archive,
            writes: session::pool(&address, options, options.writers + 2)?,
            reads,
            sql,
            words: words::Words::default(),
            queue: queue::Queue::new(options.queue_max, options.queue_reserve),
            claims: sweeps::Sweeps::default(),
            timers: sweeps::Sweeps::default(),
            gets: reads::Gets::default(),
            order: order::Order::default(),
            hints: hints::Hints::default(),
            tally: tally::Tally::default(),
            listener,
            server,
            batches: AtomicI64::new(0),
            tickets: AtomicU64::new(0),
            bell: Notify::new(),
            told: Mutex::default(),
            shared: AtomicBool::new(true),
            stop: Notify::new(),
            stopped: AtomicBool::new(false),
            options: options.clone(),
        });
        tally::refresh(&core).await?;
        keeper::first_due(&core).await?;
        keeper::backing_off(&core).await?;
        keeper::heartbeat(&core).await?;
        Ok(Self::run(core, ear, token_key))
    }

    fn run(core: Arc<Core>, ear: Address, token_key: [u8; 32]) -> Self {
        let writers: Vec<_> = (0..core.options.writers.max(1))
            .map(|_| tokio::spawn(writer::run(core.clone())))
            .collect();
        let sweepers = vec![
            tokio::spawn(sweeps::run_claims(core.clone())),
            tokio::spawn(sweeps::run_timers(core.clone())),
        ];
        let heard = Arc::new(Notify::new());
        let mut others: Vec<_> = (0..core.options.readers.max(1))
            .map(|_| tokio::spawn(reads::run(core.clone())))
            .collect();
        others.push(tokio::spawn(feed::run_bell(core.clone())));
        others.push(tokio::spawn(feed::run_ear(core.clone(), ear, heard.clone())));
        others.push(tokio::spawn(feed::run_feed(core.clone(), heard)));
        others.push(tokio::spawn(keeper::run(core.clone())));
        let (writers, sweepers) = (Mutex::new(writers), Mutex::new(sweepers));
        Self { core, token_key, writers, sweepers, others }
    }
}

async fn ended(tasks: Vec<JoinHandle<()>>) {
    for task in tasks {
        if task.await.is_err() {
            tracing::error!("a task of the store panicked");
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.core.queue.close();
        self.core.claims.close();
        self.core.timers.close();
        self.core.halt();
        self.others.iter().for_each(JoinHandle::abort);
    }
}

#[async_trait]
impl Store for Postgres {
    async fn update(
        &self,
        key: Key,
        priority: Priority,
        decide: Decide,
    ) -> Result<Applied, Failure> {
        let (job, answered) = self.core.queue.job(key, decide);
        let given_up = job.given_up.clone();
        self.core.queue.push(priority, job).map_err(Failure::Store)?;
        match tokio::time::timeout(self.core.options.answer_timeout, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(gone)) => Err(Failure::Store(unavailable(gone))),
            Err(elapsed) => {
                given_up.store(true, Ordering::Relaxed);
                Err(Failure::Store(unavailable(elapsed)))
            }
        }
    }

    async fn update_due(
        &self,
        due: Due,
        limit: usize,
        decide: Decide,
    ) -> Result<Vec<Applied>, Error> {
        let patience = match due {
            Due::Claim { .. } => Some(self.core.options.answer_timeout),
            // As long as it takes: there may be very many.
            Due::Timer { .. } => None,
        };
        let (sweep, answered) = Sweep::new(due, limit, decide);
        let given_up = sweep.given_up.clone();
        let Some(patience) = patience else {
            self.core.timers.push(sweep, self.core.options.queue_reserve.max(1))?;
            return answered.await.map_err(unavailable)?;
        };
        self.core.queue.push_claim(sweep, self.core.claims.waiting())?;
        match tokio::time::timeout(patience, answered).await {
            Ok(answer) => answer.map_err(unavailable)?,
            Err(elapsed) => {
                given_up.store(true, Ordering::Relaxed);
                Err(unavailable(elapsed))
            }
        }
    }

    async fn get(&self, name: &OperationName) -> Result<Option<Arc<Operation>>, Error> {
        Ok(reads::get(&self.core, name).await?.map(|kept| kept.operation))
    }

    async fn get_many(
        &self,
        names: &[OperationName],
    ) -> Result<Vec<Option<Arc<Operation>>>, Error> {
        reads::get_many(&self.core, names).await
    }

    async fn claimed(&self, worker: &str, claim_id: &str) -> Result<Vec<Arc<Operation>>, Error> {
        reads::claimed(&self.core, worker, claim_id).await
    }

    async fn list(&self, query: ListQuery) -> Result<Vec<(Cursor, Arc<Operation>)>, Error> {
        reads::list(&self.core, &query).await
    }

    async fn children(
        &self,
        parent: &OperationName,
        limit: usize,
    ) -> Result<Vec<OperationName>, Error> {
        reads::children(&self.core, parent, limit).await
    }

    async fn left_behind(
        &self,
        limit: usize,
    ) -> Result<Vec<(OperationName, OperationName)>, Error> {
        reads::left_behind(&self.core, limit).await
    }

    async fn history(
        &self,
        name: &OperationName,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Recorded>, Error> {
        reads::history(&self.core, name, after, limit).await
    }

    fn next_due(&self) -> Option<Timestamp> {
        self.core.hints.next_due()
    }

    fn next_claimable(&self, now: Timestamp) -> Option<Timestamp> {
        self.core.hints.next_claimable(now)
    }

    fn counts(&self) -> Vec<Count> {
        self.core.tally.counts(&self.core.words)
    }

    /// The servers find out together: see [`Store::present`].
    fn was_unattended(&self) -> bool {
        false
    }

    fn is_shared(&self) -> bool {
        true
    }

    /// By the database's clock, which is the only one that all servers share.
    async fn present(&self, _now: Timestamp) -> Result<Presence, Error> {
        keeper::present(&self.core).await
    }

    async fn recovered(&self, outage: u64) -> Result<(), Error> {
        keeper::recovered(&self.core, outage).await
    }

    async fn ready(&self) -> Result<(), Error> {
        if self.core.queue.is_closed() {
            return Err(closed());
        }
        keeper::heartbeat(&self.core).await
    }

    fn token_key(&self) -> [u8; 32] {
        self.token_key
    }

    async fn close(&self) {
        self.core.queue.close();
        self.core.timers.close();
        let writers = std::mem::take(&mut *self.writers.lock());
        if writers.is_empty() {
            return;
        }
        ended(writers).await;
        // Not before: a writer may have handed a claim on.
        self.core.claims.close();
        let sweepers = std::mem::take(&mut *self.sweepers.lock());
        ended(sweepers).await;
        self.core.halt();
        keeper::leave(&self.core).await;
    }
}
