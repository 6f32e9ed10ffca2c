//! The harness on a handler that does everything right, and on the same with one bug at a time.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use longhaul_wire::v1::{Assignment, Effects, Stopped};
use parking_lot::Mutex;
use prost_types::Any;

use super::*;
use crate::worker::{Context, Unfinished};

/// What is wrong with a handler.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Bug {
    Nothing,
    IgnoresCancel,
    LeavesMachine,
    SaysNothingChanged,
    ChargesWithoutGate,
    ChargesTwice,
    NotesTooLate,
    StopsUnasked,
    PanicsWhenTold,
    AnswersWrongly,
    NeverEnds,
    CleanupMissing,
    CleanupFails,
    CleanupHangs,
}

/// Machines that run, by their names, and charges that were made.
#[derive(Default)]
struct Cloud(Mutex<(Vec<String>, Vec<String>)>);

impl Cloud {
    fn start(&self, machine: &str) {
        let machines = &mut self.0.lock().0;
        machines.retain(|running| running != machine);
        machines.push(machine.to_owned());
    }

    fn stop(&self, machine: &str) {
        self.0.lock().0.retain(|running| running != machine);
    }

    fn charge(&self, key: &str, once: bool) {
        let charges = &mut self.0.lock().1;
        if !once || !charges.iter().any(|made| made == key) {
            charges.push(key.to_owned());
        }
    }

    fn charges(&self) -> usize {
        self.0.lock().1.len()
    }

    fn machines(&self) -> usize {
        self.0.lock().0.len()
    }
}

/// Starts a machine, uses it for three steps, charges for it past the gate, stops it.
struct Rent {
    cloud: Arc<Cloud>,
    bug: Bug,
}

impl Rent {
    fn undo(&self, context: &Context) -> Unfinished {
        if self.bug == Bug::PanicsWhenTold {
            panic!("told to stop");
        }
        if self.bug != Bug::LeavesMachine {
            self.cloud.stop("m");
        }
        let effects = match (self.cloud.charges(), self.bug) {
            (1.., Bug::SaysNothingChanged) => Effects::None,
            (1.., _) => Effects::Partial,
            (0, _) => Effects::Undone,
        };
        context.cancelled_with(effects, "stopped")
    }
}

#[async_trait]
impl Handler for Rent {
    async fn run(&self, assignment: Assignment, context: Context) -> Result<Any, Unfinished> {
        if self.bug == Bug::StopsUnasked {
            return Err(Unfinished::stopped(Effects::None));
        }
        if self.bug == Bug::NotesTooLate {
            self.cloud.start("m");
            // tidy: sleep: the work itself, on simulated time
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        context.external_ref("m").await.map_err(|_| self.undo(&context))?;
        self.cloud.start("m");
        for step in 1..=3 {
            context.step(step, 3);
            // tidy: sleep: the work itself, on simulated time
            let working = tokio::time::sleep(Duration::from_secs(60));
            if self.bug == Bug::IgnoresCancel {
                working.await;
                continue;
            }
            tokio::select! {
                () = working => {}
                () = context.cancelled() => return Err(self.undo(&context)),
            }
            context.checkpoint(vec![1]).await.map_err(|_| self.undo(&context))?;
        }
        if self.bug == Bug::NeverEnds {
            context.cancelled().await;
            return Err(self.undo(&context));
        }
        let gate = context.gate().await;
        if self.bug != Bug::ChargesWithoutGate {
            gate.map_err(|_| self.undo(&context))?;
        }
        self.cloud.charge(&assignment.operation, self.bug != Bug::ChargesTwice);
        tokio::select! {
            // tidy: sleep: the work itself, on simulated time
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            () = context.cancelled() => return Err(self.undo(&context)),
        }
        self.cloud.stop("m");
        let type_name = if self.bug == Bug::AnswersWrongly { "test.Other" } else { "test.Bill" };
        Ok(Any { type_url: format!("type.googleapis.com/{type_name}"), value: Vec::new() })
    }

    async fn clean_up(&self, _: Assignment, context: Context) -> Result<Stopped, Unfinished> {
        if self.bug == Bug::CleanupFails {
            return Err(Unfinished::failed(13, "no access"));
        }
        if self.bug == Bug::CleanupHangs {
            std::future::pending::<()>().await;
        }
        self.cloud.stop(context.earlier_ref());
        let effects = match (self.bug, self.cloud.charges()) {
            (Bug::CleanupMissing, _) => Effects::Unknown,
            (_, 0) => Effects::Undone,
            (_, _) => Effects::Partial,
        };
        Ok(Stopped { effects: effects.into(), message: String::new() })
    }
}

fn run(bug: Bug) -> Findings {
    Harness::new(move |cloud: Arc<Cloud>| Rent { cloud, bug })
        .response_type("test.Bill")
        .holds("charged only past the gate", |cloud: &Cloud, end| {
            cloud.charges() == 0 || end.gate_passed
        })
        .holds("charged at most once", |cloud: &Cloud, _| cloud.charges() <= 1)
        .holds("what is clean on record is clean", |cloud: &Cloud, end| {
            !end.says_clean()
                || (end.succeeded() && cloud.charges() == 1)
                || (cloud.machines() == 0 && cloud.charges() == 0)
        })
        .holds("no machine runs on", |cloud: &Cloud, _| cloud.machines() == 0)
        .run()
}

#[track_caller]
fn check(bug: Bug, found: impl Fn(&Finding) -> bool) {
    let findings = run(bug);
    assert!(findings.problems.iter().any(found), "{bug:?} was not found; {findings}");
}

fn broken(what: &'static str) -> impl Fn(&Finding) -> bool {
    move |found| found.problem == Problem::Broken(what.to_owned())
}

fn refused(with: &'static str) -> impl Fn(&Finding) -> bool {
    move |found| matches!(&found.problem, Problem::Refused { reason, .. } if reason == with)
}

#[test]
fn a_correct_handler_passes_at_every_point() {
    let findings = run(Bug::Nothing);
    findings.assert_none();
    let said: Vec<_> = findings.points.iter().map(|point| point.said).collect();
    for wanted in [
        Said::Begin,
        Said::Await,
        Said::BeforeProgress,
        Said::AfterCheckpoint,
        Said::BeforeExternalRef,
        Said::BeforeGate,
        Said::AfterGate,
        Said::BeforeEnd,
        Said::AfterEnd,
    ] {
        assert!(said.contains(&wanted), "{wanted:?} is not among {said:?}");
    }
    assert_eq!(findings.runs, 1 + findings.points.len() * Disturbance::ALL.len());
}

#[test]
fn the_same_handler_gives_the_same_findings() {
    assert_eq!(run(Bug::LeavesMachine), run(Bug::LeavesMachine));
}

#[test]
fn a_handler_that_does_not_listen_is_found() {
    check(Bug::IgnoresCancel, |found| {
        found.problem == Problem::IgnoresCancel
            && matches!(found.at, Some((_, Disturbance::Cancel)))
    });
}

#[test]
fn what_is_left_behind_is_found() {
    check(Bug::LeavesMachine, broken("what is clean on record is clean"));
    check(Bug::NotesTooLate, |found| {
        broken("no machine runs on")(found)
            && matches!(found.at, Some((_, Disturbance::CancelAndCrash)))
    });
}

#[test]
fn a_step_without_its_gate_and_a_lie_past_it_are_found() {
    check(Bug::ChargesWithoutGate, broken("charged only past the gate"));
    check(Bug::SaysNothingChanged, |found| found.problem == Problem::NoEffectsPastTheGate);
}

#[test]
fn a_step_that_a_second_attempt_repeats_is_found() {
    check(Bug::ChargesTwice, |found| {
        broken("charged at most once")(found) && matches!(found.at, Some((_, Disturbance::Crash)))
    });
}

#[test]
fn what_the_server_refuses_is_found_undisturbed() {
    check(Bug::StopsUnasked, |found| found.at.is_none() && refused("CANCEL_NOT_REQUESTED")(found));
    check(Bug::AnswersWrongly, |found| found.at.is_none() && refused("INVALID_VALUE")(found));
    check(Bug::NeverEnds, |found| found.at.is_none() && found.problem == Problem::NeverEnds);
}

#[test]
fn a_panic_is_found_with_its_words() {
    check(Bug::PanicsWhenTold, |found| found.problem == Problem::Panics("told to stop".into()));
}

#[test]
fn cleanups_that_do_not_clean_are_found() {
    check(Bug::CleanupMissing, |found| found.problem == Problem::CleanupKnowsNothing);
    check(Bug::CleanupFails, |found| found.problem == Problem::CleanupFails("no access".into()));
    check(
        Bug::CleanupHangs,
        |found| matches!(&found.problem, Problem::CleanupFails(why) if why.contains("budget")),
    );
}

#[test]
fn points_that_were_left_out_are_told() {
    let harness = Harness::new(|cloud: Arc<Cloud>| Rent { cloud, bug: Bug::Nothing });
    let findings = harness.response_type("test.Bill").points_max(2).run();
    assert_eq!((findings.runs, findings.left_out), (9, findings.points.len() - 2));
    assert!(findings.to_string().contains("were left out"), "{findings}");
}
