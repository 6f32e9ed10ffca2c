//! Checks an audit log: whether lines were changed, removed, inserted, moved or cut off, and which.
//!
//! Reads line by line and keeps no more than what it found. Trusts nothing it reads, and nothing but
//! hashes: whoever can rewrite every line and the head beside them leaves no trace here, unless a hash was
//! noted elsewhere and is expected.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::Path;

use crate::audit::chain::{self, Hash, Link, Sealed};
use crate::audit::file::{LINE_BYTES_MAX, head_of, read_head, rotated};

/// Findings kept one by one; a log with more is beyond telling apart.
const FINDINGS_MAX: usize = 1_000;

/// What the checker is told beforehand.
#[derive(Clone, Debug, Default)]
pub struct Expect {
    /// The hash of the line before the first one, where older files were moved away.
    pub after: Option<[u8; 32]>,
    /// A hash noted elsewhere, which must be that of a line; then no head is needed.
    pub contains: Option<[u8; 32]>,
}

/// One thing that is wrong. Lines are counted from 1 through all files, the oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// No line of an audit log.
    Unreadable {
        /// Which.
        line: u64,
    },
    /// Its bytes are not those that its hash was made of.
    Changed {
        /// Which.
        line: u64,
        /// As it says itself.
        sequence: u64,
    },
    /// It names another line before it than the one that stands there.
    Unlinked {
        /// Which.
        line: u64,
        /// As it says itself.
        sequence: u64,
        /// The line that stands there, which was replaced unless this one was.
        after: u64,
    },
    /// Lines are not there.
    Missing {
        /// The first one's sequence.
        from: u64,
        /// The last one's.
        to: u64,
        /// Before which line they belong.
        before: u64,
    },
    /// It stands where another belongs: inserted, repeated or moved.
    OutOfPlace {
        /// Which.
        line: u64,
        /// As it says itself.
        sequence: u64,
    },
    /// The chain does not begin with its first line, nor with what was expected.
    Beginning {
        /// The sequence it begins with.
        sequence: u64,
    },
    /// The head beside the file, or the hash expected, names lines that are not there.
    CutOff {
        /// The first one's sequence.
        from: u64,
        /// The last one's.
        to: u64,
    },
    /// There is no readable head, so nobody can say whether lines were cut off.
    NoHead,
    /// The head names another line at its place than the one that is there.
    HeadDiffers {
        /// The place.
        sequence: u64,
    },
    /// No line has the hash that was expected.
    NotContained,
    /// There was more to find than is kept.
    More,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { line } => {
                write!(f, "line {line} is no line of an audit log: it was inserted, or changed beyond reading")
            }
            Self::Changed { line, sequence } => {
                write!(f, "line {line} (sequence {sequence}) was changed: its hash is not that of its bytes")
            }
            Self::Unlinked { line, sequence, after } => write!(
                f,
                "line {line} (sequence {sequence}) does not follow from line {after}: line {after} was replaced"
            ),
            Self::Missing { from, to, before } if from == to => {
                write!(f, "the line with sequence {from} is missing before line {before}: it was removed or never written")
            }
            Self::Missing { from, to, before } => {
                write!(f, "the lines with sequences {from} to {to} are missing before line {before}: they were removed or never written")
            }
            Self::OutOfPlace { line, sequence } => {
                write!(f, "line {line} (sequence {sequence}) is out of place: it was inserted, repeated or moved")
            }
            Self::Beginning { sequence } => write!(
                f,
                "the log begins with sequence {sequence}: what came before is not here; if it was moved away in order, give the hash of its last line with --after"
            ),
            Self::CutOff { from, to } => {
                write!(f, "the lines with sequences {from} to {to} were cut off at the end, or lost with the machine's power")
            }
            Self::NoHead => f.write_str(
                "the head beside the log is missing or unreadable, so nobody can say whether lines were cut off; give a hash noted elsewhere with --contains",
            ),
            Self::HeadDiffers { sequence } => {
                write!(f, "the head names another line with sequence {sequence} than the one that is there: the log was rewritten")
            }
            Self::NotContained => f.write_str("no line has the hash given with --contains"),
            Self::More => write!(f, "and more: only {FINDINGS_MAX} findings are listed"),
        }
    }
}

/// What a check came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whole lines read.
    pub lines: u64,
    /// The place of the last one that fits.
    pub last: Link,
    /// Bytes after the last whole line: a crash while it was written. The server cuts them off and notes
    /// it when it starts again, so they are no finding.
    pub torn_bytes: u64,
    /// What is wrong; empty when nothing is.
    pub findings: Vec<Finding>,
}

/// Checks the log at `path` with its head, all rotated files beside it first.
///
/// Fails when a file cannot be read.
pub fn verify_file(path: &Path, expect: &Expect) -> io::Result<Report> {
    let head = match File::open(head_of(path)) {
        Ok(head) => read_head(&head)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let mut check = Check { head, ..Check::new(expect, false) };
    for older in rotated(path)? {
        check.read(BufReader::new(File::open(older)?))?;
        check.torn_is_unreadable();
    }
    check.read(BufReader::new(File::open(path)?))?;
    check.compare();
    Ok(check.done())
}

/// Checks collected lines, such as those of standard output: there a chain may begin anew, with each start
/// of the server, and no head says where it ends.
pub fn verify_lines(lines: impl BufRead, expect: &Expect) -> io::Result<Report> {
    let mut check = Check::new(expect, true);
    check.read(lines)?;
    Ok(check.done())
}

struct Check<'a> {
    expect: &'a Expect,
    /// A chain may begin anew.
    many: bool,
    /// Where the chain ends at least, as the head says.
    head: Option<Link>,
    line: u64,
    /// The last line in place and its number; `None` before the first.
    last: Option<(Link, u64)>,
    /// The line before was changed, so the next one cannot name its hash.
    after_change: bool,
    torn_bytes: u64,
    findings: Vec<Finding>,
    /// The line at the head's place has another hash.
    head_differs: bool,
    /// The line that was expected is there.
    contained: bool,
}

impl<'a> Check<'a> {
    fn new(expect: &'a Expect, many: bool) -> Self {
        Self {
            expect,
            many,
            head: None,
            line: 0,
            last: None,
            after_change: false,
            torn_bytes: 0,
            findings: Vec::new(),
            head_differs: false,
            contained: false,
        }
    }

    fn read(&mut self, mut lines: impl BufRead) -> io::Result<()> {
        let mut line = Vec::new();
        loop {
            line.clear();
            lines.by_ref().take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line)?;
            match line.pop() {
                None => return Ok(()),
                Some(b'\n') => {
                    self.line += 1;
                    self.take(chain::read(&line));
                }
                Some(_) if line.len() >= LINE_BYTES_MAX => {
                    self.line += 1;
                    self.found(Finding::Unreadable { line: self.line });
                    skip_line(&mut lines)?;
                }
                Some(_) => self.torn_bytes = line.len() as u64 + 1,
            }
        }
    }

    /// Only the newest file may end within a line.
    fn torn_is_unreadable(&mut self) {
        if std::mem::take(&mut self.torn_bytes) > 0 {
            self.line += 1;
            self.found(Finding::Unreadable { line: self.line });
        }
    }

    fn take(&mut self, sealed: Option<Sealed>) {
        let line = self.line;
        let Some(sealed) = sealed else {
            return self.found(Finding::Unreadable { line });
        };
        let Sealed { link, previous, intact } = sealed;
        let sequence = link.sequence;
        let anew = self.many && sequence == 1 && previous == Link::START.hash;
        let expected = match self.last {
            Some((last, _)) if !anew => last.sequence + 1,
            Some(_) => 1,
            None => self.begin(sequence, &previous),
        };
        if sequence < expected {
            return self.out_of_place(sequence);
        }
        if sequence > expected {
            let missing = Finding::Missing { from: expected, to: sequence - 1, before: line };
            self.found(missing);
        } else if let Some((last, after)) = self.last.filter(|_| !anew)
            && previous != last.hash
            && !self.after_change
        {
            self.found(Finding::Unlinked { line, sequence, after });
        }
        if !intact {
            self.found(Finding::Changed { line, sequence });
        }
        self.after_change = !intact;
        self.contained |= intact && self.expect.contains == Some(link.hash);
        self.head_differs |=
            self.head.is_some_and(|head| head.sequence == sequence && head.hash != link.hash);
        self.last = Some((link, line));
    }

    /// The sequence that the first line should have.
    fn begin(&mut self, sequence: u64, previous: &Hash) -> u64 {
        match &self.expect.after {
            Some(after) if after == previous => {}
            None if *previous == Link::START.hash && sequence == 1 => {}
            Some(_) | None => self.found(Finding::Beginning { sequence }),
        }
        sequence
    }

    /// A line that belongs further up. If it was missing there, it was moved, not removed.
    fn out_of_place(&mut self, sequence: u64) {
        let line = self.line;
        let mut kept = Vec::with_capacity(self.findings.len() + 2);
        for finding in std::mem::take(&mut self.findings) {
            if let Finding::Missing { from, to, before } = finding
                && (from..=to).contains(&sequence)
            {
                if from < sequence {
                    kept.push(Finding::Missing { from, to: sequence - 1, before });
                }
                if sequence < to {
                    kept.push(Finding::Missing { from: sequence + 1, to, before });
                }
            } else {
                kept.push(finding);
            }
        }
        self.findings = kept;
        self.found(Finding::OutOfPlace { line, sequence });
    }

    fn compare(&mut self) {
        let last = self.last.map_or(0, |(link, _)| link.sequence);
        match self.head {
            None if self.expect.contains.is_none() => self.found(Finding::NoHead),
            None => {}
            Some(head) if head.sequence > last => {
                self.found(Finding::CutOff { from: last + 1, to: head.sequence });
            }
            Some(head) if self.head_differs => {
                self.found(Finding::HeadDiffers { sequence: head.sequence });
            }
            Some(_) => {}
        }
    }

    fn found(&mut self, finding: Finding) {
        match self.findings.len() {
            0..FINDINGS_MAX => self.findings.push(finding),
            FINDINGS_MAX => self.findings.push(Finding::More),
            _ => {}
        }
    }

    fn done(mut self) -> Report {
        if self.expect.contains.is_some() && !self.contained {
            self.found(Finding::NotContained);
        }
        Report {
            lines: self.line,
            last: self.last.map_or(Link::START, |(link, _)| link),
            torn_bytes: self.torn_bytes,
            findings: self.findings,
        }
    }
}

fn skip_line(lines: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = lines.fill_buf()?;
        if buffer.is_empty() {
            return Ok(());
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(buffer.len(), |end| end + 1);
        lines.consume(used);
        if end.is_some() {
            return Ok(());
        }
    }
}
