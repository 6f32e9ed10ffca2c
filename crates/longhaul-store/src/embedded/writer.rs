//! The one thread that writes: gathers waiting commands, decides, commits once, publishes, answers.
//!
//! Nothing is published and nobody is answered before the commit; when it fails, everybody in the batch
//! hears the same error and the indexes are as they were.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use longhaul_core::{Applied, Error};
use parking_lot::{Mutex, RwLock};
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::batch::{Batch, Miss, Sweep, Tables};
use super::checkpoint::Log;
use super::failpoint::Failpoint;
use super::plan::{Plan, Slot};
use super::queue::{Queue, Waiting};
use super::rows::Writer;
use super::view::View;
use crate::telling::tell;
use crate::trouble::again;
use crate::{Failure, Listener};

/// Bytes of records after which a batch is committed though more commands wait: bounds the time that one
/// commit takes when requests are large.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// Everything the writing thread works with.
pub(super) struct Work {
    pub queue: Arc<Queue>,
    pub view: Arc<RwLock<View>>,
    pub plan: Arc<Mutex<Plan>>,
    pub log: Arc<Log>,
    pub listener: Arc<dyn Listener>,
    pub file: PathBuf,
    pub batch_max: usize,
    pub next_id: i64,
    pub slots: Slots,
}

/// Which slots are free.
pub(super) struct Slots {
    free: Vec<Slot>,
    next: Slot,
}

impl Slots {
    /// After a scan that filled the first `used`.
    pub fn after(used: Slot) -> Self {
        Self { free: Vec::new(), next: used }
    }

    pub fn take(&mut self) -> Slot {
        self.free.pop().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        })
    }

    pub fn give_back(&mut self, slots: impl IntoIterator<Item = Slot>) {
        self.free.extend(slots);
    }
}

/// An answer that waits for the commit.
#[allow(clippy::large_enum_variant, reason = "nearly all are of the large kind")]
enum Answer {
    One(oneshot::Sender<Result<Applied, Failure>>, Result<Applied, Failure>),
    Due(Part),
    /// What a command led to elsewhere; the command's own answer follows.
    Besides(Vec<Applied>),
    Probe(oneshot::Sender<Result<(), Error>>),
}

/// What a sweep did in this batch.
struct Part {
    sweep: Box<Sweep>,
    applied: Vec<Applied>,
    /// `None` when it goes on in the next batch.
    end: Option<Result<(), Error>>,
    to: oneshot::Sender<Result<Vec<Applied>, Error>>,
}

impl Answer {
    fn applied(&self) -> &[Applied] {
        match self {
            Self::One(_, Ok(applied)) => std::slice::from_ref(applied),
            Self::Due(part) => &part.applied,
            Self::Besides(all) => all,
            Self::One(_, Err(_)) | Self::Probe(_) => &[],
        }
    }

    /// Answers after the commit; returns a sweep that goes on. A caller that has gone away needs no answer:
    /// what it asked for is committed all the same.
    fn send(self) -> Option<Waiting> {
        match self {
            Self::One(to, result) => drop(to.send(result)),
            Self::Probe(to) => drop(to.send(Ok(()))),
            Self::Besides(_) => {}
            Self::Due(Part { mut sweep, applied, end, to }) => {
                sweep.done.extend(applied);
                match end {
                    None => return Some(Waiting::Due(sweep, to)),
                    Some(end) => drop(to.send(sweep.end(end.err()))),
                }
            }
        }
        None
    }

    /// Answers when the commit has failed.
    fn fail(self, error: Error) {
        match self {
            Self::One(to, _) => drop(to.send(Err(Failure::Store(error)))),
            Self::Due(part) => drop(part.to.send(part.sweep.end(Some(error)))),
            Self::Probe(to) => drop(to.send(Err(error))),
            Self::Besides(_) => {}
        }
    }
}

/// Fails what still waits when the writer ends, however it ends, so that no caller waits for ever.
struct LastWords(Arc<Queue>);

impl Drop for LastWords {
    fn drop(&mut self) {
        self.0.close();
        while let Some(waiting) = self.0.take(usize::MAX) {
            drop(waiting);
        }
    }
}

/// Starts the writing thread. `connection` is the only one that writes.
pub(super) fn spawn(work: Work, connection: Connection) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("store-writer".into()).spawn(move || {
        let _last_words = LastWords(work.queue.clone());
        if let Err(error) = run(work, &connection) {
            tracing::error!(error = %error, "the store cannot be written");
        }
    })
}

/// Runs until the queue is closed and empty.
fn run(mut work: Work, connection: &Connection) -> rusqlite::Result<()> {
    let queue = work.queue.clone();
    let log = work.log.clone();
    let mut tables = Tables {
        connection,
        begin: connection.prepare("BEGIN IMMEDIATE")?,
        commit: connection.prepare("COMMIT")?,
        probe: connection
            .prepare("INSERT OR REPLACE INTO meta (key, value) VALUES ('probe', randomblob(8))")?,
        writer: Writer::new(connection)?,
        failpoint: Failpoint::of_environment(),
    };
    while let Some(waiting) = queue.take(work.batch_max) {
        match log.turn(connection, &work.file) {
            Ok(turn) => {
                let rest = batch(&mut work, &mut tables, waiting);
                turn.end();
                queue.put_back(rest);
            }
            Err(error) => {
                tracing::error!(error = %error, source = ?error.source, "the log is full");
                waiting.into_iter().for_each(|waiting| waiting.fail(again(&error)));
            }
        }
    }
    Ok(())
}

/// Decides and commits one batch; returns the commands that it had no room for.
fn batch(
    work: &mut Work,
    tables: &mut Tables<'_>,
    mut waiting: VecDeque<Waiting>,
) -> VecDeque<Waiting> {
    let (listener, log) = (work.listener.clone(), work.log.clone());
    let mut answers = Vec::with_capacity(waiting.len());
    let mut batch = Batch::new(work);
    let mut broken = None;
    while broken.is_none()
        && batch.bytes <= BATCH_BYTES_MAX
        && let Some(command) = waiting.pop_front()
    {
        broken = decide(&mut batch, tables, command, &mut answers).err();
    }
    let committed = match broken {
        None => batch.commit(tables),
        Some(error) => Err(error),
    };
    if let Err(error) = committed {
        batch.undo(tables);
        log.broke();
        tracing::error!(error = %error, source = ?error.source, "a commit failed");
        answers.into_iter().for_each(|answer| answer.fail(again(&error)));
        return waiting;
    }
    batch.publish();
    for applied in answers.iter().flat_map(Answer::applied) {
        tell(&*listener, applied);
    }
    let mut rest: VecDeque<Waiting> = answers.into_iter().filter_map(Answer::send).collect();
    // Behind those that wait already: a long sweep holds nobody up.
    waiting.append(&mut rest);
    waiting
}

/// Decides one command and files its answer; the error is one that breaks the whole batch.
fn decide(
    batch: &mut Batch<'_>,
    tables: &mut Tables<'_>,
    command: Waiting,
    answers: &mut Vec<Answer>,
) -> Result<(), Error> {
    let (answer, broken) = match command {
        Waiting::One(key, decide, to) => match batch.update(tables, &key, &decide) {
            Ok(applied) => (Answer::One(to, Ok(applied)), None),
            Err(Miss::Refused(refusal)) => (Answer::One(to, Err(Failure::Refused(refusal))), None),
            Err(Miss::Command(error)) => (Answer::One(to, Err(Failure::Store(error))), None),
            Err(Miss::Batch(error)) => {
                (Answer::One(to, Err(Failure::Store(again(&error)))), Some(error))
            }
        },
        Waiting::Due(mut sweep, to) => {
            let mut applied = Vec::new();
            let (end, broken) = match batch.update_due(tables, &mut sweep, &mut applied) {
                Ok(true) | Err(Miss::Refused(_)) => (Some(Ok(())), None),
                Ok(false) => (None, None),
                Err(Miss::Command(error)) => (Some(Err(error)), None),
                Err(Miss::Batch(error)) => (Some(Err(again(&error))), Some(error)),
            };
            (Answer::Due(Part { sweep, applied, end, to }), broken)
        }
        Waiting::Probe(to) => match batch.probe(tables) {
            Ok(()) => (Answer::Probe(to), None),
            Err(Miss::Batch(error)) => (Answer::Probe(to), Some(error)),
            Err(Miss::Refused(_) | Miss::Command(_)) => (Answer::Probe(to), None),
        },
    };
    let besides = std::mem::take(&mut batch.besides);
    if !besides.is_empty() {
        answers.push(Answer::Besides(besides));
    }
    answers.push(answer);
    broken.map_or(Ok(()), Err)
}
