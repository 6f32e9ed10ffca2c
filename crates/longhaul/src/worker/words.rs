//! What the worker and a command's supervisor say to each other: one JSON value a line, both ways.
//!
//! Both ends are this program, of one version, so the words may change with it.

use serde::{Deserialize, Serialize};

/// First argument of a supervisor's command line; the second names the operation, for whoever looks at
/// the list of processes.
pub const SUPERVISOR: &str = "__supervise";
/// Bytes of a command's standard output that are kept: a report takes 4 MiB with everything in it.
pub const OUTPUT_BYTES_MAX: usize = 3 << 20;
/// Bytes of one line on file descriptor 3; the rest of a longer line is dropped.
pub const LINE_BYTES_MAX: usize = 16 << 10;
/// Bytes of the end of standard error that are kept, and lines of them.
pub const ERRORS_BYTES_MAX: usize = 2 << 10;
/// See [`ERRORS_BYTES_MAX`].
pub const ERRORS_LINES_MAX: usize = 20;

/// What the worker says.
#[derive(Debug, Deserialize, Serialize)]
pub enum Order {
    /// Run the command. Comes first, once.
    Start(Start),
    /// The worker lives.
    Alive,
    /// An answer for the command, on its file descriptor 4.
    Answer(String),
    /// End the command: SIGTERM, this many milliseconds, SIGKILL. A shorter span replaces a longer one.
    Stop(u64),
    /// SIGKILL at once.
    Kill,
}

/// How to run the command.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Start {
    /// Its standard input.
    pub input: String,
    /// What each line of its standard error begins with in the worker's.
    pub prefix: String,
    /// How long what the command leaves running may take to end after SIGTERM, in milliseconds.
    pub grace_ms: u64,
    /// After this much silence of the worker it counts as dead, in milliseconds.
    pub silence_ms: u64,
    /// How long the command may take to end once the worker is dead, in milliseconds.
    pub orphan_grace_ms: u64,
}

/// What the supervisor says.
#[derive(Debug, Deserialize, Serialize)]
pub enum Notice {
    /// A line of the command's file descriptor 3.
    Said(String),
    /// The command could not be started; nothing ran. The last word.
    NotStarted(String),
    /// No process of the command is left. The last word.
    Ended(Ended),
}

/// How a command ended.
#[derive(Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Ended {
    /// What became of the command itself.
    pub end: End,
    /// Whether it was told to stop before it ended.
    pub told: bool,
    /// Whether it, or anything that it started, had to be killed.
    pub killed: bool,
    /// Its standard output.
    pub output: Output,
    /// The last lines of its standard error.
    pub errors: String,
}

/// What became of a process.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum End {
    /// It exited, with this code.
    Exited(i32),
    /// A signal ended it.
    Signalled(i32),
}

/// What a command wrote to its standard output.
#[derive(Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum Output {
    /// All of it.
    Text(String),
    /// It is not UTF-8.
    NotText,
    /// More than [`OUTPUT_BYTES_MAX`].
    TooMuch,
}

/// One line of the conversation, with its end.
pub fn line<T: Serialize>(words: &T) -> std::io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(words)?;
    line.push(b'\n');
    Ok(line)
}
