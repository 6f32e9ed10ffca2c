//! What clients and workers asked and were answered, with the times on their side: all that the checker
//! gets to know. Owns the record and its file, and no opinion about it.

use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::Result;

/// One thing that happened, from the moment it was asked for to the moment of its answer. Both in
/// microseconds since the run began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Which client or worker.
    pub who: String,
    pub began: u64,
    pub ended: u64,
    #[serde(flatten)]
    pub what: What,
}

/// What it was. Where an answer is missing the line broke: it may have happened or not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub(super) enum What {
    /// An operation was started under an idempotency key.
    Start { request_id: String, name: Option<String> },
    /// An operation was read or waited for.
    Read { name: String, seen: Seen },
    /// An operation was read last, after everything.
    Last { name: String, seen: Seen },
    /// A read answered that there is no such operation.
    Missing { name: String },
    /// An operation was asked to stop.
    Cancel { name: String, accepted: bool },
    /// Work was taken.
    Claim { claim_id: String, given: Vec<Given> },
    /// A worker reported and was answered.
    Report { name: String, epoch: u64, said: Said, accepted: bool },
    /// A worker was at work on an operation.
    Ran { name: String, epoch: u64 },
    /// A call was refused other than by a worker's verdict.
    Refused { call: String, name: String, code: i32, message: String },
    /// A call was neither answered nor broken off for far too long.
    Hung { call: String, name: String },
    /// Something was broken on purpose; while `down` nobody could be served.
    Fault { kind: String, down: bool },
}

/// An operation as a client saw it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Seen {
    pub done: bool,
    /// Of its error.
    pub code: Option<i32>,
    /// The mark in its response.
    pub made_by: Option<String>,
    pub cancel_requested: bool,
}

/// An operation as a worker was given it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Given {
    pub name: String,
    pub epoch: u64,
    pub cleanup: bool,
}

/// What a worker said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Said {
    /// That it is alive.
    Alive,
    /// That it ended well, with this mark.
    Made(String),
    /// That it stopped as asked, or has cleaned up.
    Stopped,
    /// That it failed and may be tried again.
    Failed,
}

/// Collects records from everywhere.
pub(super) struct Recorder {
    began: Instant,
    records: Mutex<Vec<Record>>,
}

impl Recorder {
    #[allow(clippy::disallowed_methods, reason = "a run of chaos measures real time")]
    pub fn new() -> Self {
        Self { began: Instant::now(), records: Mutex::default() }
    }

    /// The present moment.
    pub fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// The moment as timers want it.
    pub fn instant(&self, moment: u64) -> Instant {
        self.began + Duration::from_micros(moment)
    }

    /// Notes what began then and ended now.
    pub fn note(&self, who: &str, began: u64, what: What) {
        let record = Record { who: who.to_owned(), began, ended: self.now(), what };
        self.records.lock().expect("nobody panics while holding it").push(record);
    }

    /// Everything so far.
    pub fn take(&self) -> Vec<Record> {
        self.records.lock().expect("nobody panics while holding it").clone()
    }
}

/// Writes a history, one record a line.
pub(super) fn write(file: &Path, records: &[Record]) -> Result<()> {
    let mut out = BufWriter::new(std::fs::File::create(file)?);
    for record in records {
        serde_json::to_writer(&mut out, record)?;
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

/// Reads what [`write`] wrote.
pub(super) fn read(file: &Path) -> Result<Vec<Record>> {
    let lines = BufReader::new(std::fs::File::open(file)?).lines();
    lines.map(|line| Ok(serde_json::from_str(&line?)?)).collect()
}
