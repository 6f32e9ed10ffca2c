//! A command's pipes: what it is given, what it writes, and how much of that is kept.
//!
//! Everything a command writes is read at once, so it never waits for the worker; only its requests
//! on file descriptor 3 (lines that begin with `::`) are taken no faster than they are answered.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use rustix::process::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::words::{
    ERRORS_BYTES_MAX, ERRORS_LINES_MAX, LINE_BYTES_MAX, Notice, OUTPUT_BYTES_MAX, Output,
};

/// File descriptors of a command beside the first three: where it says how it goes, and where it reads
/// answers.
const SAYS: i32 = 3;
const HEARS: i32 = 4;
/// Shortest time between two lines of progress that are passed on; of several the last is.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);
/// Bytes read at once.
const CHUNK: usize = 16 << 10;

/// Our ends of a command's pipes.
pub struct Pipes {
    input: Option<ChildStdin>,
    output: Option<ChildStdout>,
    errors: Option<ChildStderr>,
    says: PipeReader,
    hears: PipeWriter,
}

/// What is being read and written.
pub struct Flow {
    /// Fires when the command wrote more than is kept.
    pub too_much: Arc<Notify>,
    hears: Option<pipe::Sender>,
    output: Arc<Mutex<Vec<u8>>>,
    errors: Arc<Mutex<Tail>>,
    reading: [JoinHandle<()>; 2],
    errors_closed: oneshot::Receiver<()>,
}

/// Starts a command in a process group of its own.
pub fn spawn(program: &OsStr, arguments: &[OsString]) -> io::Result<(Pid, Pipes)> {
    let (says, said) = io::pipe()?;
    let (heard, hears) = io::pipe()?;
    let mut command = Command::new(program);
    command.args(arguments).process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
        .fd_mappings(vec![
            FdMapping { parent_fd: said.into(), child_fd: SAYS },
            FdMapping { parent_fd: heard.into(), child_fd: HEARS },
        ])
        .map_err(io::Error::other)?;
    let mut child = command.spawn()?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("a process without an id"))?;
    let (input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    Ok((pid, Pipes { input, output, errors, says, hears }))
}

impl Pipes {
    /// Begins to read and write. Must be called within a Tokio runtime.
    pub fn flow(self, input: &str, prefix: &str, notices: mpsc::Sender<Notice>) -> Flow {
        let too_much = Arc::new(Notify::new());
        let (output, errors) = (Arc::default(), Arc::new(Mutex::new(Tail::default())));
        let sender = |end: OwnedFd| pipe::Sender::from_owned_fd(end).ok();
        let receiver = |end: OwnedFd| pipe::Receiver::from_owned_fd(end).ok();
        if let Some(pipe) = self.input.and_then(|pipe| sender(pipe.into())) {
            tokio::spawn(feed(pipe, input.as_bytes().to_vec()));
        }
        let pipe = self.output.and_then(|pipe| receiver(pipe.into()));
        let kept = keep(pipe, Arc::clone(&output), too_much.clone());
        let told = hear(receiver(self.says.into()), notices);
        let (close, errors_closed) = oneshot::channel();
        if let Some(pipe) = self.errors {
            let (tail, prefix) = (errors.clone(), prefix.to_owned());
            // A thread of its own: the worker's standard error may block, and nothing else must then.
            std::thread::spawn(move || {
                pass_on(pipe, &prefix, &tail);
                // Nobody listens any more when the command has long been given up.
                let _ = close.send(());
            });
        }
        Flow {
            too_much,
            hears: sender(self.hears.into()),
            output,
            errors,
            reading: [tokio::spawn(kept), tokio::spawn(told)],
            errors_closed,
        }
    }
}

impl Flow {
    /// Gives the command an answer. What it does not read is dropped once the pipe is full.
    pub fn answer(&self, answer: &str) {
        if let Some(pipe) = &self.hears {
            let _ = pipe.try_write(format!("{answer}\n").as_bytes());
        }
    }

    /// Returns when everything that the command wrote has been read.
    pub async fn closed(&mut self) {
        for reading in &mut self.reading {
            // It does not panic, and nobody ends it.
            let _ = reading.await;
        }
        let _ = (&mut self.errors_closed).await;
    }

    /// What was read.
    pub fn take(&self) -> (Output, String) {
        let output = std::mem::take(&mut *lock(&self.output));
        let output = match output.len() {
            0..=OUTPUT_BYTES_MAX => String::from_utf8(output).map_or(Output::NotText, Output::Text),
            _ => Output::TooMuch,
        };
        (output, lock(&self.errors).text())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn feed(mut pipe: pipe::Sender, input: Vec<u8>) {
    // A command may close its input without reading it.
    let _ = pipe.write_all(&input).await;
}

/// Keeps the output up to one byte beyond its limit; reads on all the same.
async fn keep(pipe: Option<pipe::Receiver>, output: Arc<Mutex<Vec<u8>>>, too_much: Arc<Notify>) {
    let Some(mut pipe) = pipe else { return };
    let mut chunk = vec![0; CHUNK];
    while let Ok(read @ 1..) = pipe.read(&mut chunk).await {
        let mut output = lock(&output);
        let room = (OUTPUT_BYTES_MAX + 1).saturating_sub(output.len());
        output.extend_from_slice(&chunk[..read.min(room)]);
        if output.len() > OUTPUT_BYTES_MAX {
            too_much.notify_one();
        }
    }
}

/// Passes on what the command says, progress no faster than it is of use.
async fn hear(pipe: Option<pipe::Receiver>, notices: mpsc::Sender<Notice>) {
    let Some(mut pipe) = pipe else { return };
    let mut chunk = vec![0; CHUNK];
    let mut cutter = Cutter::default();
    let mut latest = Latest::default();
    let mut next = Instant::now();
    loop {
        let read = tokio::select! {
            read = pipe.read(&mut chunk) => read.unwrap_or(0),
            () = sleep_until(next), if !latest.lines.is_empty() => {
                latest.pass(&notices).await;
                next = Instant::now() + PROGRESS_EVERY;
                continue;
            }
        };
        let lines = if read == 0 { cutter.rest() } else { cutter.cut(&chunk[..read]) };
        for line in lines {
            if line.starts_with("::") {
                latest.pass(&notices).await;
                pass(&notices, line).await;
            } else if !line.trim().is_empty() {
                latest.add(line);
            }
        }
        if read == 0 {
            latest.pass(&notices).await;
            return;
        }
    }
}

async fn pass(notices: &mpsc::Sender<Notice>, line: String) {
    // The writer ends only with the supervisor.
    let _ = notices.send(Notice::Said(line)).await;
}

/// The last line of each form, the latest at the end: JSON may hold what words do not, and the other way
/// round, so neither takes the other's place.
#[derive(Default)]
struct Latest {
    lines: Vec<String>,
}

impl Latest {
    fn add(&mut self, line: String) {
        let is_json = |line: &String| line.starts_with('{');
        let form = is_json(&line);
        self.lines.retain(|other| is_json(other) != form);
        self.lines.push(line);
    }

    async fn pass(&mut self, notices: &mpsc::Sender<Notice>) {
        for line in self.lines.drain(..) {
            pass(notices, line).await;
        }
    }
}

/// Copies standard error, whole lines at a time, and keeps its end.
fn pass_on(mut pipe: ChildStderr, prefix: &str, tail: &Mutex<Tail>) {
    let mut chunk = vec![0; CHUNK];
    let mut cutter = Cutter::default();
    loop {
        let read = match pipe.read(&mut chunk) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read.unwrap_or(0),
        };
        let lines = if read == 0 { cutter.rest() } else { cutter.cut(&chunk[..read]) };
        let mut copied = String::new();
        for line in lines {
            copied.extend([prefix, &line, "\n"]);
            lock(tail).add(line);
        }
        // Nobody may be reading; what counts is kept.
        let _ = io::stderr().write_all(copied.as_bytes());
        if read == 0 {
            return;
        }
    }
}

/// Cuts bytes into lines, and lines to their longest length.
#[derive(Default)]
struct Cutter {
    part: Vec<u8>,
}

impl Cutter {
    fn cut(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (piece, ends) = match piece.split_last() {
                Some((b'\n', line)) => (line, true),
                Some(_) | None => (piece, false),
            };
            let room = LINE_BYTES_MAX.saturating_sub(self.part.len());
            self.part.extend_from_slice(&piece[..piece.len().min(room)]);
            if ends {
                lines.push(self.line());
            }
        }
        lines
    }

    /// The last line, if it has no end.
    fn rest(&mut self) -> Vec<String> {
        if self.part.is_empty() { Vec::new() } else { vec![self.line()] }
    }

    fn line(&mut self) -> String {
        let line = std::mem::take(&mut self.part);
        String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(&line)).into_owned()
    }
}

/// The last lines of a text.
#[derive(Default)]
struct Tail {
    lines: VecDeque<String>,
    bytes: usize,
}

impl Tail {
    fn add(&mut self, mut line: String) {
        if line.trim().is_empty() {
            return;
        }
        line.truncate(line.floor_char_boundary(ERRORS_BYTES_MAX));
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.lines.len() > ERRORS_LINES_MAX || self.bytes > ERRORS_BYTES_MAX {
            self.bytes -= self.lines.pop_front().map_or(0, |line| line.len());
        }
    }

    fn text(&self) -> String {
        self.lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_however_the_bytes_come() {
        let mut cutter = Cutter::default();
        let mut lines = Vec::new();
        for byte in b"one\r\n\ntwo \xff\nthree" {
            lines.extend(cutter.cut(&[*byte]));
        }
        lines.extend(cutter.rest());
        assert_eq!(lines, ["one", "", "two \u{fffd}", "three"]);
        assert!(cutter.rest().is_empty());
    }

    #[test]
    fn a_line_without_end_takes_no_more_memory_than_a_line() {
        let mut cutter = Cutter::default();
        for _ in 0..100 {
            assert!(cutter.cut(&[b'x'; LINE_BYTES_MAX]).is_empty());
        }
        assert!(cutter.part.len() == LINE_BYTES_MAX);
        assert_eq!(cutter.cut(b"y\nz\n"), ["x".repeat(LINE_BYTES_MAX), "z".to_owned()]);
    }

    #[test]
    fn the_tail_is_the_end_of_the_text() {
        let mut tail = Tail::default();
        (0..1000).for_each(|n| tail.add(format!("line {n}")));
        assert_eq!(tail.text().lines().count(), ERRORS_LINES_MAX);
        assert!(tail.text().ends_with("line 999"));
        tail.add("é".repeat(ERRORS_BYTES_MAX));
        assert!(tail.text().len() <= ERRORS_BYTES_MAX && tail.text().starts_with('é'));
    }
}
