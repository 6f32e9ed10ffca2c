//! The embedded engine: SQLite as the store of record in one folder, one writer, indexes in memory.
//!
//! Commands wait in a queue; the writing thread takes all that wait, decides, commits them with one sync,
//! shows them to readers, tells the listener and answers. Reads are answered from memory, or from the file
//! through connections of their own. The folder belongs to one server at a time.

mod batch;
mod cache;
mod checkpoint;
mod claims;
mod failpoint;
mod families;
mod faults;
mod folder;
mod hash;
mod lists;
mod moving;
mod open;
mod plan;
mod queue;
mod readers;
mod rows;
#[cfg(test)]
mod tests;
mod view;
mod wal;
mod words;
mod writer;

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use async_trait::async_trait;
use longhaul_core::{Applied, Error, Operation, OperationName, Timestamp};
use parking_lot::{Mutex, RwLock};
use tokio::sync::oneshot;

use self::batch::Sweep;
use self::checkpoint::Log;
use self::faults::not_opened;
use self::folder::Folder;
pub use self::moving::{begin_move, end_move};
pub(crate) use self::moving::{half_filled, not_empty};
use self::plan::{Plan, Slot};
use self::queue::{Queue, Waiting};
use self::readers::Readers;
use self::rows::{Kept, Reader};
pub(crate) use self::rows::{STATE_NAMES, check_size, state_number};
use self::view::{Found, View};
use self::writer::{Slots, Work};
use crate::decision::internal;
use crate::trouble::unavailable;
use crate::{
    Count, Cursor, Decide, Due, Failure, Key, ListQuery, Listener, Priority, Recorded, Store,
};

/// When a write counts as done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Once it is synced to the disk: survives a power cut.
    #[default]
    Strict,
    /// Once the operating system has it: survives the end of the process, not that of the machine.
    Relaxed,
}

impl Durability {
    /// As configuration and the lock file spell it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Relaxed => "relaxed",
        }
    }

    /// The durability of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Strict, Self::Relaxed].into_iter().find(|durability| durability.name() == name)
    }
}

/// How an embedded store is opened. Start from [`Options::new`].
#[derive(Clone, Debug)]
pub struct Options {
    /// The data folder; made, for its owner only, when it is not there.
    pub folder: PathBuf,
    /// When a write counts as done.
    pub durability: Durability,
    /// About how many bytes of whole operations are kept in memory. What does not fit is read from the
    /// file. 0 keeps none.
    pub cache_bytes: usize,
    /// Most commands that wait for the writer; more are refused with `OVERLOADED`.
    pub queue_max: usize,
    /// How many urgent commands and sweeps may wait beyond that.
    pub queue_reserve: usize,
    /// Most commands in one commit.
    pub batch_max: usize,
    /// Bytes in the log from which it is copied into the main file. Larger is faster and takes longer to
    /// open after a crash.
    pub log_bytes: u64,
    /// Most reads of the file at a time.
    pub readers_max: usize,
    /// Most bytes in the main file; writes beyond fail with `STORE_UNAVAILABLE`. `None`: what the disk
    /// has.
    pub bytes_max: Option<u64>,
    /// Opened by a copy, not by a server: also a folder that a copy has only half filled.
    pub moving: bool,
}

impl Options {
    /// The defaults, for this folder.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            durability: Durability::Strict,
            cache_bytes: 32 << 20,
            queue_max: 8_192,
            queue_reserve: 1_024,
            batch_max: 1_024,
            log_bytes: 16 << 20,
            readers_max: 4,
            bytes_max: None,
            moving: false,
        }
    }
}

/// An open data folder. Dropping it waits for the commit in progress and gives the folder free.
pub struct Embedded {
    queue: Arc<Queue>,
    view: Arc<RwLock<View>>,
    plan: Arc<Mutex<Plan>>,
    log: Arc<Log>,
    token_key: [u8; 32],
    threads: Arc<Mutex<Option<Threads>>>,
    readers: Readers,
    // Fields are dropped in this order: the folder is given free last.
    _main: Arc<File>,
    _folder: Folder,
}

struct Threads {
    writer: JoinHandle<()>,
    copier: JoinHandle<()>,
}

impl Embedded {
    /// Opens a data folder, or makes a new one; blocks until the indexes are built.
    ///
    /// Fails with `STORE_IN_USE`, `STORE_TOO_NEW`, `STORE_DAMAGED`, or with `STORE_UNAVAILABLE` when the
    /// file system refuses. `listener` hears of every commit.
    pub fn open(options: &Options, listener: Arc<dyn Listener>) -> Result<Self, Error> {
        let mut folder = Folder::lock(&options.folder)?;
        folder.prepare()?;
        if folder.durability_before != Some(Durability::Relaxed) {
            wal::check(&folder.log)?;
        }
        let file = &folder.main.clone();
        let fault = |error| faults::failed(file, error);
        let main = File::options()
            .read(true)
            .write(true)
            .open(file)
            .map_err(|error| not_opened("open", file, error))?;
        let main = Arc::new(main);
        let mut connection = open::writing_connection(file, options)?;
        open::check_format(&connection, file)?;
        if !options.moving && moving::is_target(&connection, file)? {
            return Err(half_filled(&options.folder.display().to_string()));
        }
        let token_key = open::token_key(&connection, file)?;
        let (shape, scanned) = std::thread::scope(|scope| {
            let shape = scope.spawn(|| open::check_shape(file));
            let scanned = open::scan(&connection, file, options.cache_bytes);
            (shape.join(), scanned)
        });
        shape.map_err(|_| internal("checking the store file panicked"))??;
        let scanned = scanned?;
        // The log begins anew with each server, so that what a crash left in it is never taken for ours.
        checkpoint::copy(&connection, "TRUNCATE").map_err(fault)?;
        folder.note(options.durability)?;
        let log = Log::new(options.log_bytes);
        log.watch(&mut connection).map_err(fault)?;
        let copying = open::writing_connection(file, options)?;

        let queue = Arc::new(Queue::new(options.queue_max, options.queue_reserve));
        let view = Arc::new(RwLock::new(scanned.view));
        let plan = Arc::new(Mutex::new(scanned.plan));
        let work = Work {
            queue: queue.clone(),
            view: view.clone(),
            plan: plan.clone(),
            log: log.clone(),
            listener,
            file: file.clone(),
            batch_max: options.batch_max.max(1),
            next_id: scanned.next_id,
            slots: Slots::after(scanned.slots),
        };
        let io = |error| not_opened("start a thread for", file, error);
        let writer = writer::spawn(work, connection).map_err(io)?;
        let copier = checkpoint::spawn(log.clone(), copying, main.clone()).map_err(|error| {
            queue.close();
            io(error)
        })?;
        Ok(Self {
            readers: Readers::new(file, options.readers_max),
            queue,
            view,
            plan,
            log,
            token_key,
            threads: Arc::new(Mutex::new(Some(Threads { writer, copier }))),
            _main: main,
            _folder: folder,
        })
    }

    /// Looks into rows that may hold the operation of this name.
    async fn load(&self, name: &OperationName) -> Result<Option<(i64, Kept)>, Error> {
        let found = self.view.read().find(name);
        if let Some((id, kept)) =
            found.iter().find_map(|found| Some((found.id, found.kept.clone()?)))
        {
            return Ok(Some((id, kept)));
        }
        if found.is_empty() {
            return Ok(None);
        }
        let wanted = name.clone();
        let read = move |reader: &Reader<'_>| -> Result<Option<(Slot, i64, Kept)>, Error> {
            for Found { slot, id, .. } in found {
                if let Some(kept) = reader.operation(id)?
                    && kept.operation.name == wanted
                {
                    return Ok(Some((slot, id, kept)));
                }
            }
            Ok(None)
        };
        let read = self.readers.run(read).await?;
        Ok(read.map(|(slot, id, kept)| {
            self.view.write().offer(slot, id, &kept);
            (id, kept)
        }))
    }
}

/// Ends the threads; blocks until what waits is answered and committed.
fn join(threads: &Mutex<Option<Threads>>, queue: &Queue, log: &Log) {
    queue.close();
    let Some(Threads { writer, copier }) = threads.lock().take() else { return };
    if writer.thread().id() == std::thread::current().id() {
        // The last owner was a listener; the thread ends by itself.
        log.stop();
        return;
    }
    let ended = writer.join();
    log.stop();
    if ended.is_err() || copier.join().is_err() {
        tracing::error!("a thread of the store panicked");
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        join(&self.threads, &self.queue, &self.log);
    }
}

#[async_trait]
impl Store for Embedded {
    async fn update(
        &self,
        key: Key,
        priority: Priority,
        decide: Decide,
    ) -> Result<Applied, Failure> {
        let (answer, answered) = oneshot::channel();
        self.queue.push(priority, Waiting::One(key, decide, answer)).map_err(Failure::Store)?;
        answered.await.map_err(|error| Failure::Store(unavailable(error)))?
    }

    async fn update_due(
        &self,
        due: Due,
        limit: usize,
        decide: Decide,
    ) -> Result<Vec<Applied>, Error> {
        let priority = match due {
            Due::Claim { .. } => Priority::Normal,
            Due::Timer { .. } => Priority::Urgent,
        };
        let (answer, answered) = oneshot::channel();
        let sweep = Box::new(Sweep::new(due, limit, decide));
        self.queue.push(priority, Waiting::Due(sweep, answer))?;
        answered.await.map_err(unavailable)?
    }

    async fn get(&self, name: &OperationName) -> Result<Option<Arc<Operation>>, Error> {
        if let Some(operation) = self.view.read().cached(name) {
            return Ok(Some(operation));
        }
        Ok(self.load(name).await?.map(|(_, kept)| kept.operation))
    }

    async fn get_many(
        &self,
        names: &[OperationName],
    ) -> Result<Vec<Option<Arc<Operation>>>, Error> {
        let (mut all, mut missing) = (Vec::with_capacity(names.len()), Vec::new());
        {
            let view = self.view.read();
            for name in names {
                let cached = view.cached(name);
                if cached.is_none() {
                    let ids: Vec<_> = view.find(name).iter().map(|found| found.id).collect();
                    missing.push((all.len(), name.clone(), ids));
                }
                all.push(cached);
            }
        }
        missing.retain(|(_, _, ids)| !ids.is_empty());
        if missing.is_empty() {
            return Ok(all);
        }
        let read = move |reader: &Reader<'_>| -> Result<Vec<(usize, Arc<Operation>)>, Error> {
            let mut read = Vec::with_capacity(missing.len());
            for (at, name, ids) in missing {
                for id in ids {
                    let kept = reader.operation(id)?.map(|kept| kept.operation);
                    read.extend(kept.filter(|found| found.name == name).map(|found| (at, found)));
                }
            }
            Ok(read)
        };
        for (at, found) in self.readers.run(read).await? {
            all[at] = Some(found);
        }
        Ok(all)
    }

    async fn claimed(&self, worker: &str, claim_id: &str) -> Result<Vec<Arc<Operation>>, Error> {
        let found: Vec<_> = {
            let view = self.view.read();
            view.claims.of(worker, claim_id).into_iter().map(|slot| view.at(slot)).collect()
        };
        let mut held = Vec::with_capacity(found.len());
        for Found { id, kept, .. } in found {
            let kept = match kept {
                Some(kept) => Some(kept),
                None => self.readers.run(move |reader| reader.operation(id)).await?,
            };
            // A row may have changed between the index and the file.
            held.extend(kept.map(|kept| kept.operation).filter(|operation| {
                operation.lease().is_some_and(|lease| claims::is_of(lease, worker, claim_id))
            }));
        }
        Ok(held)
    }

    async fn list(&self, query: ListQuery) -> Result<Vec<(Cursor, Arc<Operation>)>, Error> {
        let found = self.view.read().list(&query);
        let mut page = Vec::with_capacity(found.len());
        let mut missing = Vec::new();
        for (cursor, found) in found {
            if found.kept.is_none() {
                missing.push((page.len(), found.id));
            }
            page.push((cursor, found.kept.map(|kept| kept.operation)));
        }
        if !missing.is_empty() {
            let read = move |reader: &Reader<'_>| -> Result<Vec<(usize, Option<Kept>)>, Error> {
                missing.into_iter().map(|(at, id)| Ok((at, reader.operation(id)?))).collect()
            };
            for (at, kept) in self.readers.run(read).await? {
                page[at].1 = kept.map(|kept| kept.operation);
            }
        }
        let wanted = |operation: &Operation| {
            operation.deleted.is_none()
                && query.done.is_none_or(|done| operation.outcome().is_some() == done)
        };
        // A row may have changed or gone between the index and the file.
        Ok(page
            .into_iter()
            .filter_map(|(cursor, operation)| operation.map(|operation| (cursor, operation)))
            .filter(|(_, operation)| wanted(operation))
            .collect())
    }

    async fn children(
        &self,
        parent: &OperationName,
        limit: usize,
    ) -> Result<Vec<OperationName>, Error> {
        Ok(self.view.read().families.children(parent, limit))
    }

    async fn left_behind(
        &self,
        limit: usize,
    ) -> Result<Vec<(OperationName, OperationName)>, Error> {
        Ok(self.view.read().families.left_behind(limit))
    }

    async fn history(
        &self,
        name: &OperationName,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Recorded>, Error> {
        let Some((id, kept)) = self.load(name).await? else { return Ok(Vec::new()) };
        self.readers
            .run(move |reader| {
                let outcome = kept.operation.outcome();
                reader.history(id, after, kept.operation.revision, limit, outcome)
            })
            .await
    }

    fn next_due(&self) -> Option<Timestamp> {
        self.plan.lock().next_due()
    }

    fn next_claimable(&self, now: Timestamp) -> Option<Timestamp> {
        self.plan.lock().next_claimable(now)
    }

    fn counts(&self) -> Vec<Count> {
        self.view.read().counts()
    }

    async fn ready(&self) -> Result<(), Error> {
        let (answer, answered) = oneshot::channel();
        self.queue.push(Priority::Normal, Waiting::Probe(answer))?;
        answered.await.map_err(unavailable)?
    }

    fn token_key(&self) -> [u8; 32] {
        self.token_key
    }

    async fn close(&self) {
        let (threads, queue, log) = (self.threads.clone(), self.queue.clone(), self.log.clone());
        if tokio::task::spawn_blocking(move || join(&threads, &queue, &log)).await.is_err() {
            tracing::error!("the store could not be closed in order");
        }
    }
}
