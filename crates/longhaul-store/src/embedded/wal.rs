//! Looks for damage in SQLite's log before SQLite opens it.
//!
//! SQLite takes the log up to the first frame that does not check, and silently leaves out the rest. That is
//! right for a commit that a crash cut off, and wrong when commits follow that were acknowledged. Source of
//! the format: sqlite.org, "WAL-mode File Format".

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};
use std::path::Path;

use longhaul_core::Error;

use super::faults::{damaged, not_opened};

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
const MAGIC_LITTLE: u32 = 0x377F_0682;
const MAGIC_BIG: u32 = 0x377F_0683;
const PAGE_BYTES_MAX: u32 = 65_536;

/// Fails with `STORE_DAMAGED` when a frame is damaged and at least two commits come after it in the same
/// log: the writer syncs a commit before it begins the next, so the first of them was acknowledged.
pub(super) fn check(path: &Path) -> Result<(), Error> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(not_opened("read", path, error)),
    };
    let length = file.metadata().map_err(|error| not_opened("read", path, error))?.len();
    match scan(BufReader::with_capacity(1 << 20, file), length) {
        Ok(Scan::Sound) => Ok(()),
        Ok(Scan::Damaged(what)) => Err(damaged(path, what)),
        Err(error) => Err(not_opened("read", path, error)),
    }
}

enum Scan {
    Sound,
    Damaged(String),
}

fn scan(mut log: impl Read, length: u64) -> io::Result<Scan> {
    let mut header = [0; HEADER_BYTES];
    if length <= HEADER_BYTES as u64 {
        return Ok(Scan::Sound);
    }
    log.read_exact(&mut header)?;
    let big = match word(&header, 0) {
        MAGIC_LITTLE => false,
        MAGIC_BIG => true,
        _ => return Ok(Scan::Damaged("the log has no header".into())),
    };
    let page_bytes = word(&header, 8);
    let mut sums = Sums { big, one: 0, two: 0 };
    sums.add(&header[..24]);
    if sums.pair() != (word(&header, 24), word(&header, 28)) || page_bytes > PAGE_BYTES_MAX {
        return Ok(Scan::Damaged("the header of the log does not check".into()));
    }
    let salts = (word(&header, 16), word(&header, 20));
    let mut frame = vec![0; FRAME_HEADER_BYTES + page_bytes as usize];
    let mut broken_at = None;
    let mut commits_after = 0;
    let mut number = 0_u64;
    while read_whole(&mut log, &mut frame)? {
        number += 1;
        let ours = (word(&frame, 8), word(&frame, 12)) == salts;
        if broken_at.is_none() {
            sums.add(&frame[..8]);
            sums.add(&frame[FRAME_HEADER_BYTES..]);
            let checks = sums.pair() == (word(&frame, 16), word(&frame, 20));
            if !(ours && checks) {
                broken_at = Some(number);
            }
        }
        let commit = word(&frame, 4) != 0;
        if let Some(broken) = broken_at
            && ours
            && commit
        {
            commits_after += 1;
            if commits_after == 2 {
                return Ok(Scan::Damaged(format!(
                    "frame {broken} of the log does not check, and later commits depend on it"
                )));
            }
        }
    }
    Ok(Scan::Sound)
}

/// SQLite's running checksum over pairs of words.
struct Sums {
    big: bool,
    one: u32,
    two: u32,
}

impl Sums {
    fn add(&mut self, bytes: &[u8]) {
        for pair in bytes.chunks_exact(8) {
            let (first, second) = (word(pair, 0), word(pair, 4));
            let (first, second) =
                if self.big { (first, second) } else { (first.swap_bytes(), second.swap_bytes()) };
            self.one = self.one.wrapping_add(first).wrapping_add(self.two);
            self.two = self.two.wrapping_add(second).wrapping_add(self.one);
        }
    }

    fn pair(&self) -> (u32, u32) {
        (self.one, self.two)
    }
}

/// Four bytes, highest first.
fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Fills the buffer; false at the end of the file, also in the middle of a frame.
fn read_whole(log: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match log.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
