//! Workers driven by hand, good and bad: quick ones, slow ones, silent ones, some that fail, some that
//! listen late. Whatever they are, they stop when their lease ends, as every worker must.

use std::sync::Arc;
use std::time::Duration;

use longhaul_wire::v1::{self, desired_state::Action, report_item};
use tokio::time::{sleep, sleep_until};

use super::dice::Dice;
use super::history::{Given, Said, What};
use super::line::{Fault, Lines};
use super::{LEASE, Run, words};

/// How long before the end of its lease a worker stops, for clocks and timers are not exact.
const MARGIN: Duration = Duration::from_millis(1_000);
/// How long a claim hangs; the lease may begin at any moment of it.
const CLAIM_WAIT: Duration = Duration::from_millis(1_000);
/// How long a report hangs.
const REPORT_WAIT: Duration = Duration::from_millis(800);
/// Tries of a claim, and of an end; afterwards the lease has to run out.
const TRIES: usize = 4;

/// One worker, which does one thing at a time.
pub(super) struct Worker {
    who: String,
    lines: Lines,
    dice: Dice,
    run: Arc<Run>,
}

/// What one attempt does.
struct Plan {
    /// In milliseconds.
    work: u64,
    /// Says nothing until its lease is over.
    silent: bool,
    /// Works on for this long after it heard a cancel, in milliseconds, and then ends well.
    deaf: Option<u64>,
    fails: bool,
}

/// How the work itself came to its end.
enum Ended {
    Made,
    Told,
    /// Nobody listens any more.
    Gone,
    Fenced,
}

impl Worker {
    pub fn new(number: u64, run: Arc<Run>) -> Self {
        Self {
            who: format!("worker {number}"),
            lines: Lines::new(run.door),
            dice: Dice::new(run.seed, 2_000 + number),
            run,
        }
    }

    /// Works until the run is over.
    pub async fn live(mut self) {
        for number in 0_u64.. {
            if self.run.over.is_cancelled() {
                return;
            }
            if let Some((given, since)) = self.claim(number).await {
                self.work(given, since).await;
            }
        }
    }

    /// One claim, repeated under the same id when its answer is lost. Since when the lease may run.
    async fn claim(&mut self, number: u64) -> Option<(Given, u64)> {
        let claim_id = format!("{number}");
        let request = v1::ClaimRequest {
            worker: self.who.clone(),
            max: 1,
            wait: CLAIM_WAIT.try_into().ok(),
            claim_id: claim_id.clone(),
            ..Default::default()
        };
        let since = self.run.recorder.now();
        for _ in 0..TRIES {
            let began = self.run.recorder.now();
            let answer = self.lines.call::<v1::ClaimResponse>(words::CLAIM, &request, CLAIM_WAIT);
            match answer.await {
                Ok(answer) => {
                    let given: Vec<_> = answer.assignments.into_iter().map(given).collect();
                    let claim_id = format!("{}-{claim_id}", self.who);
                    // What a repeat is given may have been taken for the first try, which was not answered.
                    self.note(since, What::Claim { claim_id, given: given.clone() });
                    return given.into_iter().next().map(|given| (given, since));
                }
                Err(fault) => self.note_fault(began, "claim", "", fault),
            }
            self.rest(20, 200).await;
        }
        None
    }

    fn plan(&mut self) -> Plan {
        let work = match self.dice.between(0, 10) {
            0..=6 => self.dice.between(0, 400),
            7..=8 => self.dice.between(400, 2_000),
            _ => self.dice.between(2_000, 8_000),
        };
        Plan {
            work,
            silent: self.dice.chance(3),
            deaf: self.dice.chance(10).then(|| self.dice.between(0, 1_500)),
            fails: self.dice.chance(8),
        }
    }

    async fn work(&mut self, given: Given, since: u64) {
        let plan = self.plan();
        let mut fence = fence(since);
        let began = self.run.recorder.now();
        if began >= fence {
            return;
        }
        let ended = if plan.silent {
            sleep_until(self.run.recorder.instant(fence)).await;
            Ended::Fenced
        } else {
            self.work_aloud(&given, &plan, &mut fence).await
        };
        // Nothing is done for the operation from here on.
        let (name, epoch) = (given.name.clone(), given.epoch);
        self.note(began, What::Ran { name, epoch });
        let mark = format!("{}#{}#{}", given.name, given.epoch, self.who);
        let said = match ended {
            Ended::Gone => return,
            // Some wake up late and do not know that they are too late.
            Ended::Fenced if self.dice.chance(50) => return,
            Ended::Fenced => {
                self.rest(0, 3_000).await;
                if given.cleanup { Said::Stopped } else { Said::Made(mark) }
            }
            Ended::Told => Said::Stopped,
            Ended::Made if plan.fails => Said::Failed,
            Ended::Made if given.cleanup => Said::Stopped,
            Ended::Made => Said::Made(mark),
        };
        self.end(&given, said).await;
    }

    /// Works and renews its lease, and hears what is wanted.
    async fn work_aloud(&mut self, given: &Given, plan: &Plan, fence: &mut u64) -> Ended {
        let mut until = self.run.recorder.now() + plan.work * 1_000;
        let mut heard = false;
        loop {
            let stop = self.run.recorder.instant(until.min(*fence));
            let asked = self.run.recorder.now();
            let reporting = self.say(given, Said::Alive, heard);
            let verdict = tokio::select! {
                verdict = reporting => verdict,
                () = sleep_until(stop) => {
                    let made = until <= *fence;
                    return if made { Ended::Made } else { Ended::Fenced };
                }
            };
            match verdict {
                Some((true, action)) if action == Action::Cancel as i32 => {
                    *fence = self::fence(asked);
                    match plan.deaf {
                        Some(longer) if !given.cleanup && !heard => {
                            until = self.run.recorder.now() + longer * 1_000;
                        }
                        Some(_) => {}
                        None => return Ended::Told,
                    }
                    heard = true;
                }
                Some((_, action)) if action == Action::Stop as i32 => return Ended::Gone,
                Some((accepted, _)) if accepted => *fence = self::fence(asked),
                Some(_) | None => self.rest(20, 100).await,
            }
        }
    }

    /// Reports an end until there is an answer, a few times at most.
    async fn end(&mut self, given: &Given, said: Said) {
        for _ in 0..TRIES {
            if self.say(given, said.clone(), true).await.is_some() {
                return;
            }
            self.rest(20, 300).await;
        }
    }

    /// One report: whether it was accepted, and what is wanted now.
    async fn say(&mut self, given: &Given, said: Said, heard: bool) -> Option<(bool, i32)> {
        let began = self.run.recorder.now();
        let wait = if said == Said::Alive { REPORT_WAIT } else { Duration::ZERO };
        let item = v1::ReportItem {
            operation: given.name.clone(),
            epoch: given.epoch,
            acknowledge_cancel: heard && !given.cleanup,
            action: action(&said),
            ..Default::default()
        };
        let worker = self.who.clone();
        let request = v1::ReportRequest { worker, items: vec![item], wait: wait.try_into().ok() };
        match self.lines.call::<v1::ReportResponse>(words::REPORT, &request, wait).await {
            Ok(answer) => {
                let result = answer.results.into_iter().next()?;
                let accepted = result.error.is_none();
                if let Some(error) = result.error.filter(|error| error.code == 14) {
                    let refused = Fault::Refused { code: error.code, message: error.message };
                    self.note_fault(began, "report", &given.name, refused);
                    return None;
                }
                let (name, epoch) = (given.name.clone(), given.epoch);
                self.note(began, What::Report { name, epoch, said, accepted });
                Some((accepted, result.desired.map_or(0, |desired| desired.action)))
            }
            Err(fault) => {
                self.note_fault(began, "report", &given.name, fault);
                None
            }
        }
    }

    fn note_fault(&self, began: u64, call: &str, name: &str, fault: Fault) {
        let (call, name) = (call.to_owned(), name.to_owned());
        match fault {
            Fault::Broken => {}
            Fault::Hung => self.note(began, What::Hung { call, name }),
            Fault::Refused { code, message } => {
                self.note(began, What::Refused { call, name, code, message });
            }
        }
    }

    fn note(&self, began: u64, what: What) {
        self.run.recorder.note(&self.who, began, what);
    }

    async fn rest(&mut self, from_ms: u64, to_ms: u64) {
        sleep(Duration::from_millis(self.dice.between(from_ms, to_ms))).await;
    }
}

/// Until when one works under a lease that may have begun at `since`.
fn fence(since: u64) -> u64 {
    since + u64::try_from((LEASE - MARGIN).as_micros()).expect("seconds fit")
}

fn given(assignment: v1::Assignment) -> Given {
    Given { name: assignment.operation, epoch: assignment.epoch, cleanup: assignment.cleanup }
}

fn action(said: &Said) -> Option<report_item::Action> {
    Some(match said {
        Said::Alive => return None,
        Said::Made(mark) => report_item::Action::Response(words::made(mark)),
        Said::Stopped => report_item::Action::Stopped(v1::Stopped {
            effects: v1::Effects::Undone as i32,
            message: String::new(),
        }),
        Said::Failed => report_item::Action::Failure(v1::Failure {
            code: 13,
            message: "it failed on purpose".to_owned(),
            retryable: true,
            ..Default::default()
        }),
    })
}
