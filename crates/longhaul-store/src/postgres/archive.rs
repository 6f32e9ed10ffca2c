//! What is forgotten is written to files first: one line of JSON for each operation.
//!
//! Written and synced before the commit that forgets, so a line may come twice (after a lost race) and
//! never not at all. Nothing here reads the files, or removes them.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use longhaul_core::{Error, Operation, Outcome, Payload, Timestamp};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::faults::unavailable;

/// Bytes from which a new file is begun, so that old ones can be moved away.
const FILE_BYTES: u64 = 64 << 20;

/// A folder that forgotten operations are written to.
pub(super) struct Archive {
    folder: PathBuf,
    server: i64,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    file: Option<File>,
    bytes: u64,
    number: u32,
}

impl Archive {
    /// Makes the folder if it is not there.
    pub fn new(folder: PathBuf, server: i64) -> io::Result<Self> {
        std::fs::create_dir_all(&folder)?;
        Ok(Self { folder, server, open: Mutex::default() })
    }

    /// Writes these operations; ends when the disk has them.
    pub async fn keep(self: &Arc<Self>, operations: Vec<Operation>) -> Result<(), Error> {
        let archive = self.clone();
        let written = tokio::task::spawn_blocking(move || {
            let mut lines = Vec::new();
            for operation in &operations {
                lines.extend_from_slice(line(operation).to_string().as_bytes());
                lines.push(b'\n');
            }
            archive.append(&lines)
        });
        written.await.map_err(unavailable)?.map_err(unavailable)
    }

    fn append(&self, lines: &[u8]) -> io::Result<()> {
        let mut open = self.open.lock();
        if open.bytes >= FILE_BYTES {
            open.file = None;
        }
        let Open { file, bytes, number } = &mut *open;
        let file = match file {
            Some(file) => file,
            None => {
                *number += 1;
                *bytes = 0;
                let name = format!("operations-{}-{number:05}.jsonl", self.server);
                let path = self.folder.join(name);
                file.insert(OpenOptions::new().create(true).append(true).open(path)?)
            }
        };
        file.write_all(lines)?;
        *bytes += lines.len() as u64;
        file.sync_data()
    }
}

fn payload(payload: &Payload) -> Value {
    json!({ "type": &*payload.type_name, "value": STANDARD.encode(&payload.value) })
}

fn line(operation: &Operation) -> Value {
    let micros = |at: Option<Timestamp>| at.map(Timestamp::as_micros);
    let mut line = json!({
        "name": operation.name.as_str(),
        "uid": format!("{:032x}", operation.uid),
        "api": &*operation.api,
        "method": &*operation.method,
        "queue": &*operation.queue,
        "parent": &*operation.parent,
        "target": &*operation.target,
        "actor": &*operation.actor,
        "create_us": operation.create_time.as_micros(),
        "start_us": micros(operation.start_time),
        "end_us": micros(operation.end_time()),
        "delete_us": micros(operation.deleted),
        "attempt": operation.attempt,
        "revision": operation.revision,
        "cancel_requested": operation.cancel_requested(),
        "request": payload(&operation.request),
        "metadata": payload(&operation.metadata),
    });
    match operation.outcome() {
        Some(Outcome::Response(response)) => line["response"] = payload(response),
        Some(Outcome::Error(status)) => {
            line["error"] = json!({
                "code": status.code.number(),
                "message": status.message,
                "details": status.details.iter().map(payload).collect::<Vec<_>>(),
            });
        }
        None => {}
    }
    line
}
