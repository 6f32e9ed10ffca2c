//! The life of an operation as one table: every state, with the sub-states that matter, times every
//! command. The table is kept in `lifecycle.txt`, to be read by people; this test holds the code to it.
//!
//! After a wanted change of a rule: `UPDATE=1 cargo test -p longhaul-core --test lifecycle`, then read
//! the diff of the file as carefully as the diff of the code.

mod common;

use std::fmt::Write as _;
use std::time::Duration;

use common::*;
use longhaul_core::{
    Applied, Cause, Code, Command, Desired, Effects, Operation, Outcome, Policy, Refusal,
    RequestId, Retry, Start, State, StopReason, Timestamp,
};

const HEAD: &str = "\
The life of an operation: every state x every command. Written by tests/lifecycle.rs; see there.

Lease 30s, cancel timeout 60s, cleanup budget 300s where there is a cleanup, 600s until a first claim must
have come where that is limited, deadline 3600s after the start, retention one day, three attempts, back-off
8s then 16s. Each line: a command (reports come under the current epoch unless they say stale), the state it leads to with the code of a done operation, the
effects it leaves behind, epoch/attempt, when it is next due, and the events.
\"-\" means accepted without any change. What is refused comes last; a refusal changes nothing.
";

#[test]
fn every_state_answers_every_command_as_the_committed_table_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lifecycle.txt");
    let table = table();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &table).expect("the table must be writable to be updated");
        return;
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    if let Some(difference) = difference(&committed, &table) {
        panic!("the rules and tests/lifecycle.txt differ; UPDATE=1 rewrites it\n{difference}");
    }
}

#[test]
fn the_table_has_every_state_and_every_command() {
    let mut states: Vec<_> =
        states().iter().map(|(_, story)| story.operation.state.name()).collect();
    states.dedup();
    assert_eq!(states, ["QUEUED", "RUNNING", "CANCELLING", "CLEANING_UP", "DONE"]);

    let story = Story::with_deadline(policy()).claimed();
    let mut names: Vec<_> = commands(&story).iter().map(|row| row.2.name()).collect();
    names.dedup();
    assert_eq!(
        names,
        [
            "Claim", "Renew", "PassGate", "Finish", "Release", "Cancel", "Follow", "Detach",
            "Delete", "Recover", "Tick",
        ]
    );
}

/// Every row of the table: a name, and a story that ends in the state, told in commands.
fn states() -> Vec<(&'static str, Story)> {
    let mut states = queued();
    states.extend(running());
    states.extend(cancelling());
    states.extend(cleaning_up());
    states.extend(done());
    states
}

fn queued() -> Vec<(&'static str, Story)> {
    let fresh = || Story::with_deadline(policy());
    let retrying = || fresh().claimed().finished(failed_retryable(Code::Unavailable));
    let lost = || fresh().claimed().due();
    let past_gate = || fresh().claimed().past_gate();
    vec![
        ("QUEUED, fresh", fresh()),
        ("QUEUED, fresh, to be claimed in time", Story::with_start_by(policy())),
        ("QUEUED, released, claimed in time before", {
            Story::with_start_by(policy()).claimed().released()
        }),
        ("QUEUED, backing off", retrying()),
        ("QUEUED, lost lease", lost()),
        ("QUEUED, released", fresh().claimed().released()),
        ("QUEUED, backing off, gate passed", {
            past_gate().finished(failed_retryable(Code::Unavailable))
        }),
        ("QUEUED, backing off, gate passed, cancel asked", {
            past_gate().finished(failed_retryable(Code::Unavailable)).cancelled(Cause::Client)
        }),
        ("QUEUED, lost lease, gate passed, cancel asked", {
            past_gate().cancelled(Cause::Client).due()
        }),
        ("QUEUED, lost lease, gate passed, cancel asked, with cleanup", {
            Story::with_deadline(cleanup_policy())
                .claimed()
                .past_gate()
                .cancelled(Cause::Client)
                .due()
        }),
        ("QUEUED, fresh, deleted", fresh().deleted()),
        ("QUEUED, fresh, detached", fresh().does(detach())),
    ]
}

fn running() -> Vec<(&'static str, Story)> {
    let first = |policy| Story::with_deadline(policy).claimed();
    let once = Policy { retry: Retry { attempts_max: 1, ..policy().retry }, ..policy() };
    vec![
        ("RUNNING", first(policy())),
        ("RUNNING, last attempt", first(once)),
        ("RUNNING, second attempt after a lost lease", first(policy()).due().claimed()),
        ("RUNNING, gate passed", first(policy()).past_gate()),
        ("RUNNING, method not cancellable", { first(Policy { cancellable: false, ..policy() }) }),
        ("RUNNING, strict about delete", {
            first(Policy { strict_delete_when_running: true, ..policy() })
        }),
        ("RUNNING, deleted", first(policy()).deleted()),
    ]
}

fn cancelling() -> Vec<(&'static str, Story)> {
    let first = |policy| Story::with_deadline(policy).claimed();
    let once = Policy { retry: Retry { attempts_max: 1, ..policy().retry }, ..policy() };
    let discard = Policy { discard_success_after_cancel: true, ..policy() };
    vec![
        ("CANCELLING, a client asked", first(policy()).cancelled(Cause::Client)),
        ("CANCELLING, told and heard", {
            let story = first(policy()).cancelled(Cause::Client);
            let heard = Command::Renew {
                epoch: story.epoch(),
                lease: LEASE,
                changes: longhaul_core::Changes { acknowledged: true, ..Default::default() },
            };
            story.does(heard)
        }),
        ("CANCELLING, deadline missed", {
            // Renewed just before, so that only the deadline is due.
            let story = first(policy());
            let almost = BEGIN + DEADLINE - Duration::from_secs(5);
            story.until(almost).renewed().due()
        }),
        ("CANCELLING, superseded", first(policy()).cancelled(Cause::Superseded)),
        ("CANCELLING, superseded, then a client asked", {
            first(policy()).cancelled(Cause::Superseded).cancelled(Cause::Client)
        }),
        ("CANCELLING, gate passed", first(policy()).past_gate().cancelled(Cause::Client)),
        ("CANCELLING, gate passed, last attempt", {
            first(once).past_gate().cancelled(Cause::Client)
        }),
        ("CANCELLING, with cleanup", first(cleanup_policy()).cancelled(Cause::Client)),
        ("CANCELLING, with cleanup, gate passed", {
            first(cleanup_policy()).past_gate().cancelled(Cause::Client)
        }),
        ("CANCELLING, success discarded", first(discard).cancelled(Cause::Client)),
        ("CANCELLING, deleted", first(policy()).cancelled(Cause::Client).deleted()),
    ]
}

fn cleaning_up() -> Vec<(&'static str, Story)> {
    let begun = || Story::with_deadline(cleanup_policy()).claimed().cancelled(Cause::Client).due();
    vec![
        ("CLEANING_UP, waiting", begun()),
        ("CLEANING_UP, held", begun().claimed()),
        ("CLEANING_UP, lost lease", begun().claimed().due()),
        ("CLEANING_UP, backing off", {
            begun().claimed().finished(failed_retryable(Code::Unavailable))
        }),
        ("CLEANING_UP, held, last attempt", {
            let once = Retry { attempts_max: 1, ..policy().retry };
            Story::with_deadline(Policy { retry: once, ..cleanup_policy() })
                .claimed()
                .cancelled(Cause::Client)
                .due()
                .claimed()
        }),
        ("CLEANING_UP, held, superseded", {
            Story::with_deadline(cleanup_policy())
                .claimed()
                .cancelled(Cause::Superseded)
                .due()
                .claimed()
        }),
        ("CLEANING_UP, held, gate passed", {
            Story::with_deadline(cleanup_policy())
                .claimed()
                .past_gate()
                .cancelled(Cause::Client)
                .until(BEGIN + CANCEL_TIMEOUT)
                .due()
                .claimed()
        }),
        ("CLEANING_UP, held, deleted", begun().claimed().deleted()),
    ]
}

fn done() -> Vec<(&'static str, Story)> {
    let first = || Story::with_deadline(policy()).claimed();
    let strict = Policy { strict_cancel_when_done: true, ..policy() };
    let keyed = || {
        let until = BEGIN + Duration::from_secs(7200);
        let request_id = Some(RequestId { value: "r-1".into(), until });
        Story::of(Start { request_id, ..facts(policy()) })
    };
    vec![
        ("DONE, response", first().finished(succeeded())),
        ("DONE, error", first().finished(failed(Code::Internal))),
        ("DONE, cancelled while queued", {
            Story::with_deadline(policy()).cancelled(Cause::Client)
        }),
        ("DONE, cancelled, the worker stopped", {
            first().cancelled(Cause::Client).finished(stopped(Effects::None))
        }),
        ("DONE, cancelled, the worker fell silent", first().cancelled(Cause::Client).due()),
        ("DONE, deadline missed while queued", Story::with_deadline(policy()).due()),
        ("DONE, nobody claimed it in time", Story::with_start_by(policy()).due()),
        ("DONE, response, strict about cancel", {
            Story::new(strict).claimed().finished(succeeded())
        }),
        ("DONE, response, request_id still taken", keyed().claimed().finished(succeeded())),
        ("DONE, response, request_id still taken, deleted", {
            keyed().claimed().finished(succeeded()).deleted()
        }),
        ("DONE, response, deleted before it was done", first().deleted().finished(succeeded())),
    ]
}

/// Every column: what it is called, when it comes, and the command.
fn commands(story: &Story) -> Vec<(&'static str, Timestamp, Command)> {
    let (now, epoch) = (story.now, story.epoch());
    let stale = epoch.wrapping_sub(1);
    let mut commands = vec![("claim", now, claim())];
    if let Some(from) = story.operation.claimable_from().filter(|from| now < *from) {
        commands.push(("claim, back-off over", from, claim()));
    }
    commands.extend(
        [
            ("renew", renew(epoch)),
            ("renew, stale", renew(stale)),
            ("gate", gate(epoch)),
            ("gate, stale", gate(stale)),
            ("finish: succeeded", finish(epoch, succeeded())),
            ("finish: failed", finish(epoch, failed(Code::Internal))),
            ("finish: failed, retryable", finish(epoch, failed_retryable(Code::Internal))),
            ("finish: failed with CANCELLED", finish(epoch, failed(Code::Cancelled))),
            ("finish: failed with OK", finish(epoch, failed(Code::Ok))),
            ("finish: stopped, NONE", finish(epoch, stopped(Effects::None))),
            ("finish: stopped, PARTIAL", finish(epoch, stopped(Effects::Partial))),
            ("finish: succeeded, stale", finish(stale, succeeded())),
            ("finish: stopped, stale", finish(stale, stopped(Effects::None))),
            ("release", release(epoch)),
            ("release, stale", release(stale)),
            ("cancel: client", cancel(Cause::Client)),
            ("cancel: deadline", cancel(Cause::Deadline)),
            ("cancel: superseded", cancel(Cause::Superseded)),
            ("parent: cancelled", follow(Cause::Client)),
            ("parent: deadline missed", follow(Cause::Deadline)),
            ("detach", detach()),
            ("delete", delete()),
        ]
        .map(|(name, command)| (name, now, command)),
    );
    commands.push(("recover after an hour", now + Duration::from_secs(3600), recover()));
    commands.push(("tick, nothing due", now, tick()));
    commands.extend(moments(&story.operation).into_iter().map(|(name, at)| (name, at, tick())));
    commands
}

/// The moments at which a tick has something to do, as far as this state has them.
fn moments(operation: &Operation) -> Vec<(&'static str, Timestamp)> {
    let lease = operation.lease().map(|lease| lease.expires_at);
    let open = operation.outcome().is_none();
    let deadline = operation.deadline.filter(|_| open && operation.cancel.is_none());
    let (stop, budget) = match &operation.state {
        State::CleaningUp { budget_end, .. } => (None, Some(*budget_end)),
        State::Queued { .. } | State::Running { .. } | State::Cancelling { .. } => {
            (operation.cancel.as_ref().map(|cancel| cancel.deadline), None)
        }
        State::Done { .. } => (None, None),
    };
    [
        ("tick, lease due", lease),
        ("tick, nobody claimed in time", operation.unclaimed_until()),
        ("tick, deadline due", deadline),
        ("tick, cancel deadline due", stop),
        ("tick, cleanup budget due", budget),
        ("tick, row no longer needed", operation.purge_at()),
    ]
    .into_iter()
    .filter_map(|(name, at)| at.map(|at| (name, at)))
    .collect()
}

fn table() -> String {
    let mut text = String::from(HEAD);
    for (name, story) in states() {
        text += "\n";
        text += &title(name, &story);
        let mut refused: Vec<(Refusal, Vec<&str>)> = Vec::new();
        for (command, at, value) in commands(&story) {
            match story.try_at(at, value) {
                Ok(applied) => {
                    let cell = became(&story.operation, &applied, at);
                    writeln!(text, "  {command:<30} {cell}").expect("a string can be written");
                }
                Err(refusal) => match refused.iter_mut().find(|(seen, _)| *seen == refusal) {
                    Some((_, commands)) => commands.push(command),
                    None => refused.push((refusal, vec![command])),
                },
            }
        }
        for (refusal, commands) in refused {
            text += &wrapped(&format!("  refused, {refusal}: "), &commands);
        }
    }
    text
}

/// The words after the head, separated by dots, in lines of at most 110 characters.
fn wrapped(head: &str, words: &[&str]) -> String {
    let mut text = String::new();
    let mut line = String::from(head);
    for (index, word) in words.iter().enumerate() {
        if index > 0 {
            line += " · ";
        }
        if line.chars().count() + word.len() > 110 {
            text += line.trim_end();
            text += "\n";
            line = "      ".into();
        }
        line += word;
    }
    text + &line + "\n"
}

fn title(name: &str, story: &Story) -> String {
    let operation = &story.operation;
    let moment = |at: Option<Timestamp>| match at {
        Some(at) => distance(story.now, at),
        None => "never".into(),
    };
    let told = match operation.desired(operation.epoch) {
        Desired::Continue => "CONTINUE",
        Desired::Cancel(_) => "CANCEL",
        Desired::Stop(StopReason::LeaseLost) => "STOP, LEASE_LOST",
        Desired::Stop(StopReason::Done) => "STOP, DONE",
        Desired::Stop(StopReason::Deleted) => "STOP, DELETED",
    };
    format!(
        "## {name}\n   {}; effects {}; epoch/attempt {}/{}; claimable {}; due {}; {}{}\n   \
         the worker is told {told}\n",
        place(operation),
        effects_name(operation.effects),
        operation.epoch,
        operation.attempt,
        moment(operation.claimable_from()),
        moment(operation.due_at()),
        if operation.visible(story.now) { "visible" } else { "hidden" },
        if operation.cancel_requested() { "; requested_cancellation" } else { "" },
    )
}

fn became(before: &Operation, applied: &Applied, at: Timestamp) -> String {
    let after = &applied.operation;
    let events: Vec<_> = applied.events.iter().map(|event| event.kind.name()).collect();
    let events = events.join(" ");
    if after == before {
        return format!("{:<57} {events}", "-").trim_end().into();
    }
    let due = after.due_at().map_or("never".into(), |due| distance(at, due));
    let forgotten = if applied.forget { " (row removed)" } else { "" };
    format!(
        "{:<26} {:<12} {:<7} {:<9} {events}{forgotten}",
        place(after),
        left_behind(after),
        format!("{}/{}", after.epoch, after.attempt),
        due,
    )
    .trim_end()
    .into()
}

/// Only what did not succeed leaves effects to speak of.
fn left_behind(operation: &Operation) -> &'static str {
    match operation.outcome() {
        Some(Outcome::Response(_)) => "",
        Some(Outcome::Error(_)) | None => effects_name(operation.effects),
    }
}

/// The lines that differ, under the state they belong to; `None` when nothing differs.
fn difference(committed: &str, now: &str) -> Option<String> {
    if committed == now {
        return None;
    }
    let lines = |text: &str| -> Vec<String> {
        let mut state = String::new();
        let mut lines = Vec::new();
        for line in text.lines() {
            if line.starts_with("##") {
                state = line.into();
            }
            lines.push(format!("{state} | {line}"));
        }
        lines
    };
    let (old, new) = (lines(committed), lines(now));
    let mut shown = String::new();
    for line in old.iter().filter(|line| !new.contains(line)) {
        shown += &format!("- {line}\n");
    }
    for line in new.iter().filter(|line| !old.contains(line)) {
        shown += &format!("+ {line}\n");
    }
    Some(if shown.is_empty() { "(only the order of lines differs)".into() } else { shown })
}
