//! What a harness reports: where it disturbed, how runs ended, what was wrong.

use std::fmt;

use longhaul_wire::v1::Effects;
use prost_types::Any;

/// What happens to a handler at one point of its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Disturbance {
    /// A client cancels.
    Cancel,
    /// The worker dies, as by `kill -9`; another takes over when the lease has run out.
    Crash,
    /// A client cancels, and the worker dies before it can do anything about it.
    CancelAndCrash,
    /// The worker is asked to shut down.
    Shutdown,
}

impl Disturbance {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Cancel, Self::Crash, Self::CancelAndCrash, Self::Shutdown];
}

/// A moment of a handler's work, counted from 0 in the undisturbed run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Point {
    /// Which, from 0.
    pub number: usize,
    /// What was going on.
    pub said: Said,
}

/// What goes on at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Said {
    /// The handler is about to begin.
    Begin,
    /// The handler waits for something.
    Await,
    /// Progress or metadata is about to arrive.
    BeforeProgress,
    /// Progress or metadata has arrived; the answer has not.
    AfterProgress,
    /// A checkpoint is about to arrive.
    BeforeCheckpoint,
    /// A checkpoint is kept; the answer has not arrived.
    AfterCheckpoint,
    /// The note of work outside is about to arrive.
    BeforeExternalRef,
    /// The note of work outside is kept; the answer has not arrived.
    AfterExternalRef,
    /// The handler asks for the gate.
    BeforeGate,
    /// The gate is passed; the answer has not arrived.
    AfterGate,
    /// The handler's end is about to arrive.
    BeforeEnd,
    /// The handler's end is kept; the answer has not arrived.
    AfterEnd,
}

/// How the operation of one run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct End {
    /// A google.rpc.Code; 0 for a success, 1 for a cancel that took effect.
    pub code: i32,
    /// The error's message; empty for a success.
    pub message: String,
    /// The response of a success.
    pub response: Option<Any>,
    /// What is on record as left behind.
    pub effects: Effects,
    /// Whether the gate was passed.
    pub gate_passed: bool,
    /// Whether a cleanup attempt was made.
    pub cleaned_up: bool,
    /// What happened; `None` in the undisturbed run.
    pub disturbance: Option<Disturbance>,
}

impl End {
    /// Whether the work was done.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.code == 0
    }

    /// Whether it is on record that nothing was left behind.
    #[must_use]
    pub fn says_clean(&self) -> bool {
        match self.effects {
            Effects::NotStarted | Effects::None | Effects::Undone => true,
            Effects::Partial | Effects::Unknown | Effects::Unspecified => false,
        }
    }
}

/// Something wrong with a handler.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Problem {
    /// The operation did not end within a day of simulated time and ten workers.
    NeverEnds,
    /// After a cancel it went on until the cancel's deadline.
    IgnoresCancel,
    /// The handler panicked.
    Panics(String),
    /// The server refused what it said.
    Refused {
        /// Upper-case reason, such as `CANCEL_NOT_REQUESTED`.
        reason: String,
        /// What was wrong.
        message: String,
    },
    /// It passed the gate, and then said that nothing was changed.
    NoEffectsPastTheGate,
    /// It ended twice.
    SecondEnd,
    /// It said something after its end.
    SpeaksAfterItsEnd,
    /// The cleanup was not made, or does not know what it left behind.
    CleanupKnowsNothing,
    /// The cleanup failed for good or was not done within its budget.
    CleanupFails(String),
    /// Something does not hold that the harness was told to check.
    Broken(String),
}

/// A problem and where it came up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Finding {
    /// Where, and what was done there; `None` in the undisturbed run.
    pub at: Option<(Point, Disturbance)>,
    /// What is wrong.
    pub problem: Problem,
}

/// Everything that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Findings {
    /// How many runs were made.
    pub runs: usize,
    /// The points of the undisturbed run.
    pub points: Vec<Point>,
    /// Points at which nothing was tried, since there were too many.
    pub left_out: usize,
    /// What is wrong, in the order of the points.
    pub problems: Vec<Finding>,
}

impl Findings {
    pub(super) fn add(&mut self, at: Option<(Point, Disturbance)>, problems: Vec<Problem>) {
        self.problems.extend(problems.into_iter().map(|problem| Finding { at, problem }));
    }

    /// Panics with a list of everything that is wrong, if anything is, or if points were left out.
    #[track_caller]
    pub fn assert_none(&self) {
        assert!(self.problems.is_empty() && self.left_out == 0, "{self}");
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, points) = (self.problems.len(), self.points.len());
        write!(f, "{count} problems in {} runs over {points} points", self.runs)?;
        if self.left_out > 0 {
            write!(f, "; {} points were left out, raise points_max", self.left_out)?;
        }
        for found in &self.problems {
            write!(f, "\n  {found}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.at {
            None => write!(f, "undisturbed: {}", self.problem),
            Some((point, disturbance)) => {
                let Point { number, said } = point;
                write!(f, "{disturbance:?} at point {number} ({said:?}): {}", self.problem)
            }
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverEnds => f.write_str("the operation never ends"),
            Self::IgnoresCancel => f.write_str("the handler goes on although it was told to stop"),
            Self::Panics(message) => write!(f, "the handler panics: {message}"),
            Self::Refused { reason, message } => {
                write!(f, "the server refuses what was said: {reason}: {message}")
            }
            Self::NoEffectsPastTheGate => {
                f.write_str("the gate was passed, and then nothing is said to be changed")
            }
            Self::SecondEnd => f.write_str("it ended twice"),
            Self::SpeaksAfterItsEnd => f.write_str("it said something after its end"),
            Self::CleanupKnowsNothing => {
                f.write_str("no cleanup was made, or it does not know what is left behind")
            }
            Self::CleanupFails(message) => write!(f, "the cleanup failed: {message}"),
            Self::Broken(what) => write!(f, "does not hold: {what}"),
        }
    }
}
