//! The disk's ceiling: how often one writer can append 1 KiB and have it on disk.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::load::{histogram, now};
use super::{KIB, Result};

/// Written once before, so that the syncs measured carry data and no new blocks.
const FILE_BYTES: usize = 16 << 20;

/// Appends and syncs for `measured`, one at a time; the latency of each in nanoseconds.
pub(super) fn fdatasync(folder: &Path, measured: Duration) -> Result<Histogram<u64>> {
    let path = folder.join("fdatasync");
    let file = File::create(&path)?;
    file.write_all_at(&vec![0; FILE_BYTES], 0)?;
    file.sync_all()?;
    let record = [0x5a; KIB];
    let mut latency = histogram()?;
    let end = now() + measured;
    let mut from = now();
    for number in 0.. {
        if from >= end {
            break;
        }
        file.write_all_at(&record, (number * KIB as u64) % FILE_BYTES as u64)?;
        file.sync_data()?;
        let to = now();
        latency.saturating_record(u64::try_from((to - from).as_nanos())?);
        from = to;
    }
    std::fs::remove_file(path)?;
    Ok(latency)
}
