//! Where lines go: a file that rotates, with a note of the chain's head beside it, or standard output.
//!
//! Owns opening, mending the end after a crash, and what is on disk when. What lines say is not its
//! business.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::audit::chain::{self, Link, hex, unhex};
use crate::audit::fault;

/// More than any line has: texts in it are cut, and JSON makes at most six bytes of one.
pub(crate) const LINE_BYTES_MAX: usize = 256 << 10;

/// Takes whole lines.
pub(crate) trait Sink: Send {
    /// Appends lines, of which the last has the place `last`; all of them, or none and an error.
    fn append(&mut self, lines: &[u8], last: &Link) -> io::Result<()>;

    /// Returns once everything appended is on disk.
    fn sync(&mut self) -> io::Result<()>;
}

/// What was found wrong when a file was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The last line had no end and was cut off: the server was killed while it wrote.
    Torn(Vec<u8>),
    /// The head names these lines, but the file ends before them.
    Lost {
        /// The first one's sequence.
        from: u64,
        /// The last one's.
        to: u64,
    },
    /// The last line is none of ours, or was changed.
    Damaged,
}

/// The file, and its head.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    file: File,
    /// Sequence and hash of the last line, for whoever cuts lines off; locked while it is open.
    head: File,
    rotate_bytes: u64,
    /// Bytes of whole lines.
    length: u64,
    /// More than `length` may be there: an append failed half-way, and so did cutting it off.
    unclean: bool,
    /// Place of the last line, and the sequence of the first one in this file.
    last: Link,
    first: u64,
}

impl LogFile {
    /// Opens or makes the file, cuts off a torn end, and finds where the chain goes on. A file grows to
    /// about `rotate_bytes`, then another is begun.
    pub(crate) fn open(path: &Path, rotate_bytes: u64) -> io::Result<(Self, Vec<Found>)> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder)?;
        }
        let head = private().write(true).truncate(false).open(head_of(path))?;
        match head.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let what = "another server writes this audit log; give each a file of its own";
                return Err(io::Error::new(ErrorKind::ResourceBusy, what));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let noted = read_head(&head)?;
        let mut file = private().append(true).open(path)?;
        let mut found = Vec::new();
        let end = Tail::read(&mut file)?;
        if !end.torn.is_empty() {
            file.set_len(end.whole)?;
            file.sync_data()?;
            found.push(Found::Torn(end.torn));
        }
        let reached = match end.last {
            None => match rotated(path)?.pop() {
                Some(older) => Tail::read(&mut File::open(older)?)?.last.flatten(),
                None => Some(Link::START),
            },
            Some(link) => link,
        };
        let last = match (reached, noted) {
            (Some(reached), Some(noted)) if noted.sequence > reached.sequence => {
                found.push(Found::Lost { from: reached.sequence + 1, to: noted.sequence });
                noted
            }
            (Some(reached), Some(noted)) if noted.sequence == reached.sequence => {
                if noted != reached {
                    found.push(Found::Damaged);
                }
                noted
            }
            (Some(reached), _) => reached,
            (None, noted) => {
                found.push(Found::Damaged);
                noted.unwrap_or(Link::START)
            }
        };
        let first = first_sequence(&mut file)?.unwrap_or(last.sequence + 1);
        let length = end.whole;
        let path = path.to_owned();
        let opened = Self { path, file, head, rotate_bytes, length, unclean: false, last, first };
        Ok((opened, found))
    }

    /// The place of the last line.
    pub(crate) const fn last(&self) -> Link {
        self.last
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        std::fs::rename(&self.path, rotated_name(&self.path, self.first))?;
        self.file = private().append(true).open(&self.path)?;
        self.length = 0;
        self.first = self.last.sequence + 1;
        if let Some(folder) = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    }

    fn clean(&mut self) -> io::Result<()> {
        if self.unclean {
            self.file.set_len(self.length)?;
            self.unclean = false;
        }
        Ok(())
    }
}

impl Sink for LogFile {
    fn append(&mut self, lines: &[u8], last: &Link) -> io::Result<()> {
        self.clean()?;
        if self.length >= self.rotate_bytes
            && let Err(error) = self.rotate()
        {
            // The old file takes more: growing too large is better than losing anything.
            tracing::warn!(%error, file = %self.path.display(), "the audit log could not be rotated");
        }
        if let Err(error) = fault::check().and_then(|()| self.file.write_all(lines)) {
            self.unclean = true;
            let _ = self.clean();
            return Err(error);
        }
        self.length += lines.len() as u64;
        self.last = *last;
        let head = format!("{:020} {}\n", last.sequence, hex(&last.hash));
        if let Err(error) = self.head.write_all_at(head.as_bytes(), 0) {
            // A head that lags behind only notices less.
            tracing::warn!(%error, "the head of the audit log could not be written");
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Standard output, for whatever collects it.
#[derive(Debug)]
pub(crate) struct Stdout;

impl Sink for Stdout {
    fn append(&mut self, lines: &[u8], _last: &Link) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(lines)?;
        out.flush()
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Readable by nobody else: it tells who did what.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).create(true).mode(0o600);
    options
}

/// The file with the head, beside the log.
pub(crate) fn head_of(path: &Path) -> PathBuf {
    with_suffix(path, ".head")
}

fn rotated_name(path: &Path, first: u64) -> PathBuf {
    with_suffix(path, &format!(".{first:020}"))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The files that a log has left behind, oldest first.
pub(crate) fn rotated(path: &Path) -> io::Result<Vec<PathBuf>> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let Some(name) = path.file_name() else { return Ok(Vec::new()) };
    let mut older = Vec::new();
    for entry in std::fs::read_dir(folder.unwrap_or(Path::new(".")))? {
        let entry = entry?;
        let fits = entry
            .file_name()
            .as_encoded_bytes()
            .strip_prefix(name.as_encoded_bytes())
            .and_then(|rest| rest.strip_prefix(b"."))
            .is_some_and(|rest| rest.len() == 20 && rest.iter().all(u8::is_ascii_digit));
        if fits {
            older.push(entry.path());
        }
    }
    older.sort();
    Ok(older)
}

/// What the head says; `None` when nothing was noted yet or what is there is no head.
pub(crate) fn read_head(head: &File) -> io::Result<Option<Link>> {
    let mut text = [0; 86];
    match head.read_exact_at(&mut text, 0) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let parse = || {
        let sequence = std::str::from_utf8(&text[..20]).ok()?.parse().ok()?;
        let hash = unhex(&text[21..85])?;
        (text[20] == b' ' && text[85] == b'\n').then_some(Link { sequence, hash })
    };
    Ok(parse())
}

/// The end of a file.
struct Tail {
    /// Bytes up to the end of the last whole line.
    whole: u64,
    /// What comes after it.
    torn: Vec<u8>,
    /// The last whole line's place: `None` when there is no line, `Some(None)` when it is damaged.
    last: Option<Option<Link>>,
}

impl Tail {
    fn read(file: &mut File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        let from = length.saturating_sub(2 * LINE_BYTES_MAX as u64);
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        (&*file).take(length - from).read_to_end(&mut bytes)?;
        let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') else {
            if from > 0 {
                return Ok(Self { whole: length, torn: Vec::new(), last: Some(None) });
            }
            return Ok(Self { whole: 0, torn: bytes, last: None });
        };
        let torn = bytes.split_off(end + 1);
        let line = bytes[..end].rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
        let link = chain::read(line).filter(|sealed| sealed.intact).map(|sealed| sealed.link);
        Ok(Self { whole: from + end as u64 + 1, torn, last: Some(link) })
    }
}

/// The sequence of the first line, as it says itself.
fn first_sequence(file: &mut File) -> io::Result<Option<u64>> {
    file.seek(SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    (&*file).take(LINE_BYTES_MAX as u64).read_to_end(&mut bytes)?;
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(chain::read(line).map(|sealed| sealed.link.sequence))
}
