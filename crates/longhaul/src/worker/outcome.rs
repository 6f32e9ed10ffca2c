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

#[cfg(test)]
mod tests {
    use longhaul_client::worker::Failure;

    use super::*;

    fn served() -> Served {
        Served::bundled("clouddeploy", "CreateTarget")
    }

    fn ended(end: End, output: &str) -> Ended {
        let output = Output::Text(output.to_owned());
        Ended { end, told: false, killed: false, output, errors: String::new() }
    }

    fn told(end: End, output: &str) -> Ended {
        Ended { told: true, ..ended(end, output) }
    }

    /// The outcome in one word, and what it left behind.
    fn word(outcome: &Result<Any, Unfinished>) -> String {
        let effects = |effects: i32| WireEffects::try_from(effects).unwrap().as_str_name();
        match outcome {
            Ok(any) => format!("response of {} bytes", any.value.len()),
            Err(Unfinished::Released) => "released".into(),
            Err(Unfinished::Stopped(stopped)) => format!("stopped {}", effects(stopped.effects)),
            Err(Unfinished::Failed(Failure { code, retryable, effects: left, .. })) => {
                format!("failed {code} {retryable} {}", effects(*left))
            }
        }
    }

    #[track_caller]
    fn check(ending: Ending, wish: Option<Why>, expected: &str) {
        let judge = Judge { retryable: vec![75], cleanup: false };
        let outcome =
            judge.work(ending, &Heard::default(), wish, &served(), &Assignment::default());
        assert_eq!(word(&outcome), expected, "{outcome:?}");
    }

    const OK: End = End::Exited(0);
    const TERM: End = End::Signalled(15);
    const NAMED: &str = "{\"name\": \"n\"}";

    #[test]
    fn by_itself_a_command_succeeds_or_fails_by_its_exit_code() {
        check(Ending::Ended(ended(OK, "")), None, "response of 0 bytes");
        check(Ending::Ended(ended(OK, NAMED)), None, "response of 3 bytes");
        check(Ending::Ended(ended(OK, "no")), None, "failed 13 false EFFECTS_UNSPECIFIED");
        check(
            Ending::Ended(ended(End::Exited(1), NAMED)),
            None,
            "failed 2 false EFFECTS_UNSPECIFIED",
        );
        check(Ending::Ended(ended(End::Exited(75), "")), None, "failed 2 true EFFECTS_UNSPECIFIED");
        check(
            Ending::Ended(ended(End::Signalled(9), "")),
            None,
            "failed 13 true EFFECTS_UNSPECIFIED",
        );
    }

    #[test]
    fn a_cancel_is_a_stop_unless_a_response_was_written() {
        for why in [Why::ClientCancel, Why::Deadline, Why::Superseded, Why::Unknown] {
            let wish = Some(why);
            check(Ending::NeverRan, wish, "stopped NONE");
            check(Ending::Ended(told(TERM, "")), wish, "stopped PARTIAL");
            check(Ending::Ended(told(OK, "")), wish, "stopped PARTIAL");
            check(Ending::Ended(told(OK, "stopping")), wish, "stopped PARTIAL");
            check(Ending::Ended(told(End::Exited(1), NAMED)), wish, "stopped PARTIAL");
            check(Ending::Ended(told(OK, NAMED)), wish, "response of 3 bytes");
            check(Ending::Lost, wish, "stopped UNKNOWN");
            let killed = Ended { killed: true, ..told(End::Signalled(9), "") };
            check(Ending::Ended(killed), wish, "stopped UNKNOWN");
            // It had ended before it could hear of the cancel.
            check(Ending::Ended(ended(OK, "")), wish, "response of 0 bytes");
            check(
                Ending::Ended(ended(End::Exited(1), "")),
                wish,
                "failed 2 false EFFECTS_UNSPECIFIED",
            );
        }
    }

    #[test]
    fn a_shutdown_gives_back_what_has_not_ended_by_itself() {
        for why in [Why::WorkerShutdown, Why::LeaseLost, Why::Done, Why::Deleted] {
            let wish = Some(why);
            check(Ending::NeverRan, wish, "released");
            check(Ending::Lost, wish, "released");
            check(Ending::Ended(told(TERM, "")), wish, "released");
            check(Ending::Ended(told(OK, "")), wish, "released");
            check(Ending::Ended(told(OK, NAMED)), wish, "response of 3 bytes");
            check(Ending::Ended(ended(OK, "")), wish, "response of 0 bytes");
        }
    }

    #[test]
    fn what_is_no_fault_of_the_work_may_be_tried_again() {
        check(Ending::Lost, None, "failed 13 true EFFECTS_UNSPECIFIED");
        let missing = Ending::NotStarted("x: not found".into());
        check(missing, None, "failed 13 true EFFECTS_UNSPECIFIED");
        // The supervisor heard nothing of the worker for too long.
        check(Ending::Ended(told(TERM, "")), None, "failed 13 true EFFECTS_UNSPECIFIED");
    }

    #[test]
    fn too_much_output_is_a_failure_whatever_ended_the_command() {
        let much = || Ended { output: Output::TooMuch, ..told(TERM, "") };
        check(Ending::Ended(much()), None, "failed 13 false EFFECTS_UNSPECIFIED");
        check(Ending::Ended(much()), Some(Why::ClientCancel), "stopped PARTIAL");
    }

    #[test]
    fn what_the_command_said_counts_unless_it_was_killed() {
        let heard = Heard {
            effects: Some(Effects::Undone),
            failure: Some((5, "no such bucket".to_owned())),
        };
        let judge = Judge::default();
        let outcome = |ended, wish| {
            let assignment = Assignment::default();
            word(&judge.work(Ending::Ended(ended), &heard, wish, &served(), &assignment))
        };
        let cancel = Some(Why::ClientCancel);
        assert_eq!(outcome(told(TERM, ""), cancel), "stopped UNDONE");
        let killed = Ended { killed: true, ..told(TERM, "") };
        assert_eq!(outcome(killed, cancel), "stopped UNKNOWN");
        assert_eq!(outcome(ended(End::Exited(1), ""), None), "failed 5 false UNDONE");
    }

    #[test]
    fn killed_work_is_given_back_where_a_cleanup_can_see_to_it() {
        let judge = Judge { cleanup: true, ..Judge::default() };
        let killed = Ended { killed: true, ..told(TERM, "") };
        let (heard, assignment) = (Heard::default(), Assignment::default());
        let wish = Some(Why::ClientCancel);
        let outcome = judge.work(Ending::Ended(killed), &heard, wish, &served(), &assignment);
        assert_eq!(word(&outcome), "released");
    }

    #[test]
    fn a_cleanup_ends_by_its_exit_code() {
        let judge = Judge { retryable: vec![75], cleanup: true };
        let cleanup = |ending, effects| {
            let heard = Heard { effects, failure: None };
            word(&judge.cleanup(ending, &heard).map_or_else(Err, |s| Err(Unfinished::Stopped(s))))
        };
        let end = |end| Ending::Ended(ended(end, "whatever"));
        assert_eq!(cleanup(end(OK), None), "stopped UNDONE");
        assert_eq!(cleanup(end(OK), Some(Effects::Partial)), "stopped PARTIAL");
        assert_eq!(cleanup(end(End::Exited(75)), None), "failed 2 true EFFECTS_UNSPECIFIED");
        assert_eq!(cleanup(Ending::Ended(told(TERM, "")), None), "released");
        assert_eq!(cleanup(Ending::NeverRan, None), "released");
    }
}
