//! Moves committed pages from SQLite's log into the main file, so that the log stays small and no commit
//! has to wait long for it.
//!
//! A background thread copies and syncs while commits go on. Only the last few pages are copied while the
//! writer waits; after that the log begins again from its start.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use longhaul_core::Error;
use parking_lot::{Condvar, Mutex, MutexGuard};
use rusqlite::Connection;

use super::faults::failed;
use crate::trouble::unavailable;

/// Size of a page of the file, in bytes.
pub(super) const PAGE_BYTES: u32 = 4096;

/// How many pages may be left for the moment in which the writer waits: about a millisecond of copying.
const LEFT_PAGES: i64 = 256;

/// How often copying is repeated before the writer must wait for whatever is left.
const PASSES_MAX: usize = 4;

/// The log may grow to this many times its bound before commits wait.
const GROWTH_MAX: u32 = 4;

/// Wait after a pass that could not finish, because a reader was in the way or the disk is full.
const PAUSE: Duration = Duration::from_millis(20);

/// Starts the copying thread.
pub(super) fn spawn(
    log: Arc<Log>,
    connection: Connection,
    main: Arc<File>,
) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("store-copier".into()).spawn(move || {
        log.keep_short(&connection, &main);
        if let Err(error) = copy(&connection, "TRUNCATE") {
            tracing::warn!(error = %error, "the log stays for the next start");
        }
    })
}

/// How long the log is, and whose turn it is.
pub(super) struct Log {
    /// Pages in the log after the last commit.
    pages: AtomicU32,
    /// Pages from which the log is copied and begun again.
    bound: u32,
    /// A commit failed: what it left in the log must not be followed by another.
    broken: AtomicBool,
    /// Held while the writer is in a transaction, or while it must not be.
    gate: Mutex<()>,
    /// Held while somebody copies: SQLite refuses a second one instead of waiting. Taken after the gate.
    copying: Mutex<()>,
    stop: Mutex<bool>,
    wake: Condvar,
}

/// The writer's turn: nobody copies the rest of the log meanwhile.
pub(super) struct Turn<'l> {
    guard: MutexGuard<'l, ()>,
    log: &'l Log,
}

impl Turn<'_> {
    /// Ends the turn, and wakes the copying thread when the log has grown past its bound.
    pub fn end(self) {
        MutexGuard::unlock_fair(self.guard);
        if self.log.pages.load(Ordering::Relaxed) >= self.log.bound {
            self.log.wake.notify_one();
        }
    }
}

impl Log {
    pub fn new(bytes: u64) -> Arc<Self> {
        let bound = u32::try_from(bytes / u64::from(PAGE_BYTES)).unwrap_or(u32::MAX);
        Arc::new(Self {
            pages: AtomicU32::new(0),
            broken: AtomicBool::new(false),
            bound: bound.clamp(16, u32::MAX / GROWTH_MAX),
            gate: Mutex::new(()),
            copying: Mutex::new(()),
            stop: Mutex::new(false),
            wake: Condvar::new(),
        })
    }

    /// Notes the length of the log after each commit of this connection.
    pub fn watch(self: &Arc<Self>, connection: &mut Connection) -> rusqlite::Result<()> {
        let log = self.clone();
        connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages| {
            log.pages.store(u32::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))
    }

    /// Notes that a commit failed; the log begins again before the next one, which also makes room where
    /// the disk is full.
    pub fn broke(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    /// Takes the writer's turn. When the log is far past its bound, first copies it: commits then go as
    /// fast as the disk takes them. Fails when it cannot be copied.
    pub fn turn(&self, connection: &Connection, file: &Path) -> Result<Turn<'_>, Error> {
        let guard = self.gate.lock();
        let limit = self.bound * GROWTH_MAX;
        let broken = self.broken.swap(false, Ordering::Relaxed);
        if broken || self.pages.load(Ordering::Relaxed) >= limit {
            let left = self.copy(connection).map_err(|error| failed(file, error))?;
            match left {
                Some(0) => self.pages.store(0, Ordering::Relaxed),
                Some(left) if left < i64::from(limit) => {}
                Some(_) | None => {
                    return Err(unavailable("the log cannot be copied into the main file"));
                }
            }
        }
        Ok(Turn { guard, log: self })
    }

    /// Copies whenever the log has reached its bound, until told to stop. `main` is the open main file.
    pub fn keep_short(&self, connection: &Connection, main: &File) {
        let mut pause = false;
        loop {
            let mut stop = self.stop.lock();
            if pause && !*stop {
                self.wake.wait_for(&mut stop, PAUSE);
            }
            while !*stop && self.pages.load(Ordering::Relaxed) < self.bound {
                self.wake.wait(&mut stop);
            }
            if *stop {
                return;
            }
            drop(stop);
            pause = match self.shorten(connection, main) {
                Ok(done) => !done,
                Err(error) => {
                    tracing::error!(error = %error, "the log could not be copied");
                    true
                }
            };
        }
    }

    /// Copies the log; true when it can begin again.
    fn shorten(
        &self,
        connection: &Connection,
        main: &File,
    ) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
        for _ in 0..PASSES_MAX {
            let left = self.copy(connection)?;
            // The main file is synced here, so that little is left to sync while the writer waits.
            main.sync_data()?;
            if left.is_some_and(|left| left <= LEFT_PAGES) {
                break;
            }
        }
        let gate = self.gate.lock();
        let done = self.copy(connection)? == Some(0);
        if done {
            self.pages.store(0, Ordering::Relaxed);
        }
        MutexGuard::unlock_fair(gate);
        Ok(done)
    }

    fn copy(&self, connection: &Connection) -> rusqlite::Result<Option<i64>> {
        let _copying = self.copying.lock();
        copy(connection, "PASSIVE")
    }

    pub fn stop(&self) {
        *self.stop.lock() = true;
        self.wake.notify_all();
    }
}

/// Copies what can be copied; returns how many pages are left, or `None` when somebody else is copying.
pub(super) fn copy(connection: &Connection, mode: &'static str) -> rusqlite::Result<Option<i64>> {
    let sql = format!("PRAGMA wal_checkpoint({mode})");
    connection.query_row(&sql, [], |row| {
        let (pages, copied): (i64, i64) = (row.get(1)?, row.get(2)?);
        Ok((pages >= 0).then_some(pages - copied))
    })
}
