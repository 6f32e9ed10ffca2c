//! What the end of a command means for its operation.
//!
//! A pure decision; `docs/command-worker.md` has it as a table.

use longhaul_client::worker::{Any, Assignment, Effects, Failure, Stopped, Unfinished, Why};
use longhaul_wire::v1::Effects as WireEffects;

use super::served::Served;
use super::words::{End, Ended, OUTPUT_BYTES_MAX, Output};

/// google.rpc.Code UNKNOWN and INTERNAL.
const UNKNOWN: i32 = 2;
const INTERNAL: i32 = 13;

/// How an attempt went.
#[derive(Debug)]
pub enum Ending {
    /// Nothing of the command ran: the work was not wanted any more before it began.
    NeverRan,
    /// Nothing of the command ran: it could not be started.
    NotStarted(String),
    /// Its supervisor was killed; nothing is left of it all the same.
    Lost,
    /// It ended, and nothing is left of it.
    Ended(Ended),
}

/// What the command said that matters for its end.
#[derive(Debug, Default)]
pub struct Heard {
    /// What it leaves behind.
    pub effects: Option<Effects>,
    /// How it failed, in its own words.
    pub failure: Option<(i32, String)>,
}

/// How ends are judged.
#[derive(Clone, Debug, Default)]
pub struct Judge {
    /// Exit codes after which another attempt may succeed.
    pub retryable: Vec<i32>,
    /// Whether the command cleans up when it is asked to.
    pub cleanup: bool,
}

impl Judge {
    /// What to report of main work. `wish`: why it was not wanted any more, if it was not.
    pub fn work(
        &self,
        ending: Ending,
        heard: &Heard,
        wish: Option<Why>,
        served: &Served,
        assignment: &Assignment,
    ) -> Result<Any, Unfinished> {
        let to_cancel = match wish {
            Some(Why::ClientCancel | Why::Deadline | Why::Superseded | Why::Unknown) => true,
            // It is given back; whoever does not listen any more does not mind.
            Some(Why::WorkerShutdown | Why::LeaseLost | Why::Done | Why::Deleted) | None => false,
        };
        let ended = match (ending, wish) {
            (Ending::Ended(ended), _) => ended,
            (Ending::NeverRan, _) if to_cancel => {
                return Err(Unfinished::stopped(Effects::None));
            }
            (Ending::Lost, Some(_)) if to_cancel => {
                return Err(self.killed("its supervisor was killed"));
            }
            (Ending::NeverRan, _) | (Ending::Lost, Some(_)) => return Err(Unfinished::Released),
            (Ending::Lost, None) => {
                return Err(Unfinished::retryable(INTERNAL, "the command's supervisor was killed"));
            }
            (Ending::NotStarted(error), _) => {
                return Err(Unfinished::retryable(INTERNAL, format!("cannot start {error}")));
            }
        };
        if let Some(response) = answer(&ended, served, assignment) {
            return response.map_err(|message| failed(INTERNAL, message, false, heard));
        }
        if ended.told && to_cancel {
            return Err(self.stopped(&ended, heard));
        }
        if ended.told && wish.is_some() {
            return Err(Unfinished::Released);
        }
        Err(self.failure(&ended, heard))
    }

    /// What to report of a cleanup.
    pub fn cleanup(&self, ending: Ending, heard: &Heard) -> Result<Stopped, Unfinished> {
        let ended = match ending {
            Ending::Ended(ended) => ended,
            Ending::NeverRan | Ending::Lost => return Err(Unfinished::Released),
            Ending::NotStarted(error) => {
                return Err(Unfinished::retryable(INTERNAL, format!("cannot start {error}")));
            }
        };
        if ended.told {
            return Err(Unfinished::Released);
        }
        if ended.end != End::Exited(0) {
            return Err(self.failure(&ended, heard));
        }
        let effects = heard.effects.unwrap_or(Effects::Undone);
        Ok(Stopped { effects: effects.into(), message: String::new() })
    }

    /// It stopped as asked.
    fn stopped(&self, ended: &Ended, heard: &Heard) -> Unfinished {
        if ended.killed {
            return self.killed("it had to be killed");
        }
        let message = heard.failure.as_ref().map(|(_, message)| message.clone());
        Unfinished::Stopped(Stopped {
            effects: heard.effects.unwrap_or(Effects::Partial).into(),
            message: message.unwrap_or_default(),
        })
    }

    /// Nobody knows what it left behind. A cleanup of the command's own is asked for if there is one: work
    /// that is given back while it is being cancelled is cleaned up and never run again.
    fn killed(&self, how: &str) -> Unfinished {
        if self.cleanup {
            return Unfinished::Released;
        }
        let message = format!("{how}, so what it left behind is not known");
        Unfinished::Stopped(Stopped { effects: Effects::Unknown.into(), message })
    }

    fn failure(&self, ended: &Ended, heard: &Heard) -> Unfinished {
        let errors = match ended.errors.as_str() {
            "" => String::new(),
            errors => format!(": {errors}"),
        };
        if ended.output == Output::TooMuch {
            let message = format!(
                "the command wrote more than {OUTPUT_BYTES_MAX} bytes to its standard output"
            );
            return failed(INTERNAL, message, false, heard);
        }
        match ended.end {
            End::Exited(code) => {
                let retryable = self.retryable.contains(&code);
                let said = heard.failure.clone();
                let (code, message) = said.unwrap_or_else(|| {
                    (UNKNOWN, format!("the command exited with code {code}{errors}"))
                });
                failed(code, message, retryable, heard)
            }
            // Killed from outside, such as for want of memory: another attempt may do better.
            End::Signalled(signal) => {
                let message = format!("the command was ended by signal {signal}{errors}");
                failed(INTERNAL, message, true, heard)
            }
        }
    }
}

/// The response, if there is one: exit code 0, and after a SIGTERM of ours also something on standard
/// output, since commands that stop often exit with 0 as well.
fn answer(ended: &Ended, served: &Served, assignment: &Assignment) -> Option<Result<Any, String>> {
    if ended.end != End::Exited(0) {
        return None;
    }
    match &ended.output {
        Output::TooMuch => None,
        Output::NotText if ended.told => None,
        Output::NotText => Some(Err("standard output is not UTF-8 text".to_owned())),
        Output::Text(text) if ended.told => {
            let said = !text.trim().is_empty();
            said.then(|| served.response(text, assignment)).filter(Result::is_ok)
        }
        Output::Text(text) => Some(served.response(text, assignment)),
    }
}

fn failed(code: i32, message: String, retryable: bool, heard: &Heard) -> Unfinished {
    let effects = heard.effects.unwrap_or(WireEffects::Unspecified).into();
    Unfinished::Failed(Failure { code, message, retryable, effects, ..Failure::default() })
}
