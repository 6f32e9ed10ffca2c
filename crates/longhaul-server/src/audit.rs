//! The audit log: who asked for what, whether they might, and what came of it, on record for good.
//!
//! Owns which entries are written, and what happens to calls when they cannot be. The lines' form is
//! `entry.rs`'s, their chain `chain.rs`'s, files and their ends `file.rs`'s, checking `verify.rs`'s.
//!
//! With `on_failure = "refuse"` a change is on record before it is made: first that it was asked for,
//! then what came of it. With `"drop"` calls never wait for the log, and what it loses is counted in it.

mod calls;
mod chain;
mod config;
mod ends;
mod entry;
mod fault;
mod file;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use longhaul_core::{Error, Reason, Timestamp};
use parking_lot::Mutex;

pub use self::chain::{Link, hex, unhex};
pub use self::config::{AuditConfig, Destination, OnFailure, SyncPolicy};
pub(crate) use self::ends::Ends;
pub use self::entry::{Asked, Entry, Log, OfOperation};
use self::file::{Found, LogFile, Sink, Stdout};
pub use self::verify::{Expect, Finding, Report, verify_file, verify_lines};
use self::writer::{Item, Queue, Writer};
use crate::clock::Clock;

/// What the log's own entries are about.
const OWN_SERVICE: &str = "longhaul";
/// When a call that was refused for the log's sake is worth repeating.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The audit log of a running server.
pub struct Audit {
    config: AuditConfig,
    clock: Arc<dyn Clock>,
    queue: Arc<Queue>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
    denied: Mutex<Denied>,
}

/// Denials of the present second.
#[derive(Default)]
struct Denied {
    second: i64,
    written: u32,
    /// Left out since the last one that was written.
    left_out: u64,
}

impl Audit {
    /// Opens the log, mends what a crash left, and notes that it did. `None` when it is off.
    ///
    /// Fails with `CONFIG_INVALID` when the file cannot be written or another server has it open. Blocks.
    pub fn open(config: &AuditConfig, clock: Arc<dyn Clock>) -> Result<Option<Arc<Self>>, Error> {
        let (sink, last, found): (Box<dyn Sink>, _, _) = match &config.destination {
            Destination::Off => return Ok(None),
            Destination::Stdout => (Box::new(Stdout), Link::START, Vec::new()),
            Destination::File(path) => {
                let (file, found) = LogFile::open(path, config.rotate_bytes).map_err(|error| {
                    Error::new(
                        Reason::ConfigInvalid,
                        format!("the audit log {} cannot be opened: {error}", path.display()),
                    )
                })?;
                let last = file.last();
                (Box::new(file), last, found)
            }
        };
        let audit = Self::over(config, clock, sink, last)?;
        audit.note(audit.opened(&found));
        Ok(Some(audit))
    }

    fn over(
        config: &AuditConfig,
        clock: Arc<dyn Clock>,
        sink: Box<dyn Sink>,
        last: Link,
    ) -> Result<Arc<Self>, Error> {
        let queue = Arc::new(Queue::default());
        let run = u64::from_be_bytes(crate::random::bytes()?);
        let writer = Writer::new(queue.clone(), sink, last, config.clone(), clock.clone(), run);
        let thread = std::thread::Builder::new().name("audit".into()).spawn(|| writer.run());
        let thread = thread.map_err(|error| {
            Error::new(Reason::Internal, "no thread could be started for the audit log")
                .caused_by(error)
        })?;
        Ok(Arc::new(Self {
            config: config.clone(),
            clock,
            queue,
            thread: Mutex::new(Some(thread)),
            denied: Mutex::default(),
        }))
    }

    fn opened(&self, found: &[Found]) -> Entry {
        let mut entry = own(self.clock.now(), "Open");
        for found in found {
            match found {
                Found::Torn(bytes) => {
                    let text = String::from_utf8_lossy(bytes);
                    tracing::warn!(
                        bytes = bytes.len(),
                        "the audit log's last line was torn and is cut off"
                    );
                    entry.facts.push(("tornBytes", bytes.len().to_string().into()));
                    entry.facts.push(("tornSha256", hex(&chain::sha256(bytes)).into()));
                    entry.facts.push(("tornText", text.into()));
                }
                Found::Lost { from, to } => {
                    tracing::error!(
                        from,
                        to,
                        "the audit log ends before its head: entries are missing"
                    );
                    entry.facts.push(("missing", format!("{from} to {to}").into()));
                }
                Found::Damaged => {
                    tracing::error!(
                        "the audit log's last line is damaged; run longhaul audit verify"
                    );
                    entry.facts.push(("damaged", "the last line".into()));
                }
            }
        }
        entry
    }

    /// What is written, and when.
    #[must_use]
    pub const fn config(&self) -> &AuditConfig {
        &self.config
    }

    /// Puts an entry on record before what it tells of is done, and returns once it is written, on disk
    /// too with `sync = "always"`. `urgent` for cancels: they find room when others no longer do.
    ///
    /// Fails with `AUDIT_UNAVAILABLE`; what it tells of must then not be done.
    pub async fn ask(&self, entry: Entry, urgent: bool) -> Result<(), Error> {
        let room =
            if urgent { self.config.queue_max / 8 * 7 } else { self.config.queue_max / 4 * 3 };
        let (done, written) = tokio::sync::oneshot::channel();
        if self.queue.failing() || !self.queue.push(Item { entry, done: Some(done) }, room) {
            self.queue.refused.fetch_add(1, Ordering::Relaxed);
            return Err(unavailable());
        }
        match written.await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => {
                self.queue.refused.fetch_add(1, Ordering::Relaxed);
                Err(unavailable())
            }
        }
    }

    /// Puts an entry on record without waiting. When the queue is full it is lost, and counted in the next
    /// entry that is written.
    pub fn note(&self, entry: Entry) {
        if !self.queue.push(Item { entry, done: None }, self.config.queue_max) {
            self.queue.lose(1);
        }
    }

    /// The same for a call that was not allowed; of these only so many a second, and the rest counted, for
    /// anybody can make them.
    pub fn note_denied(&self, mut entry: Entry) {
        let mut denied = self.denied.lock();
        if denied.second != entry.at.seconds() {
            denied.second = entry.at.seconds();
            denied.written = 0;
        }
        if denied.written >= self.config.denied_per_second {
            denied.left_out += 1;
            return;
        }
        denied.written += 1;
        let left_out = std::mem::take(&mut denied.left_out);
        drop(denied);
        if left_out > 0 {
            entry.facts.push(("deniedBeforeAndNotWritten", left_out.to_string().into()));
        }
        self.note(entry);
    }

    /// Entries lost and not yet told of in the log.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.queue.lost()
    }

    /// Writes what waits, notes that the log ends in order, and syncs it. Safe to repeat.
    pub async fn close(&self) {
        let Some(thread) = self.thread.lock().take() else { return };
        let entry = own(self.clock.now(), "Close");
        self.queue.push(Item { entry, done: None }, usize::MAX);
        self.queue.close();
        let joined = tokio::task::spawn_blocking(|| thread.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("the audit log's thread ended badly");
        }
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// An entry about the log itself.
fn own(at: Timestamp, what: &str) -> Entry {
    Entry::new(Log::SystemEvent, at, OWN_SERVICE.into(), format!("longhaul.Audit.{what}").into())
}

fn unavailable() -> Error {
    Error::new(
        Reason::AuditUnavailable,
        "the audit log cannot be written at the moment, and this server changes nothing that is not on record; nothing was changed, repeat the call",
    )
    .retry_after(RETRY_AFTER)
}
