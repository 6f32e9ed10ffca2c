//! Every race that the design decides and one record can show, and the problems of other systems' users that
//! one record can show not to be ours (`peers_NN`, numbered as in the list of the 25 hardest).
//!
//! Each test tells one story in commands. Mixtures are the business of `histories.rs`.

mod common;

use std::time::Duration;

use common::*;
use longhaul_core::{
    Cause, Changes, Code, Command, Desired, Effects, EventKind, Finish, Operation, OperationName,
    Outcome, Policy, Refusal, RequestId, Retry, Start, State, StopReason, Timestamp, apply, start,
};

const SECOND: Duration = Duration::from_secs(1);

fn running() -> Story {
    Story::new(policy()).claimed()
}

fn cancelling() -> Story {
    running().cancelled(Cause::Client)
}

fn cleaning_up() -> Story {
    Story::new(cleanup_policy()).claimed().cancelled(Cause::Client).due().is("CLEANING_UP")
}

/// The command is put on record, and changes nothing else.
#[track_caller]
fn check_noted(story: &Story, command: Command) -> Vec<EventKind> {
    let applied = story.attempt(command).expect("it must be accepted");
    let revision = story.operation.revision + 1;
    assert_eq!(applied.operation, Operation { revision, ..story.operation.clone() });
    applied.events.into_iter().map(|event| event.kind).collect()
}

/// The command changes nothing but the audit log.
#[track_caller]
fn check_unchanged(story: &Story, command: Command) -> Vec<EventKind> {
    let applied = story.attempt(command).expect("it must be accepted");
    assert_eq!(applied.operation, story.operation);
    applied.events.into_iter().map(|event| event.kind).collect()
}

// Parents and children.

#[test]
fn peers_15_nothing_starts_under_a_parent_that_was_asked_to_stop() {
    let refused = |story: &Story| story.operation.admits_child(story.now);
    let parent = Story::new(cleanup_policy());
    assert_eq!(refused(&parent), Ok(()));
    assert_eq!(refused(&parent.clone().claimed()), Ok(()));
    let deadline = parent.clone().claimed().cancelled(Cause::Deadline);
    for stopping in [
        parent.clone().cancelled(Cause::Client),
        parent.clone().claimed().cancelled(Cause::Client),
        parent.clone().claimed().past_gate().cancelled(Cause::Client),
        parent.clone().claimed().cancelled(Cause::Client).due(),
        parent.clone().claimed().cancelled(Cause::Superseded),
        deadline,
    ] {
        assert_eq!(refused(&stopping), Err(Refusal::ParentCancelled));
    }
    let done = parent.clone().claimed().finished(succeeded());
    assert_eq!(refused(&done), Err(Refusal::ParentDone));
    assert_eq!(refused(&parent.deleted()), Err(Refusal::ParentNotFound));
}

#[test]
fn peers_15_a_parents_cancel_reaches_the_child_with_its_cause_its_actor_and_the_parents_name() {
    let cases = [(Cause::Client, "1 CANCELLED"), (Cause::Superseded, "10 ABORTED")];
    for (cause, ends) in cases {
        let facts = Start { name: parent_name(), parent_operation: None, ..facts(policy()) };
        let parent = Story::of(facts).claimed();
        assert_eq!(parent.operation.cascade(), None);
        let asked = parent.cancelled(cause).operation.cascade().expect("it was cancelled");
        let child = running().does(asked.clone()).is("CANCELLING");
        let told = child.operation.cancel.clone().expect("it was asked");
        assert_eq!((told.cause, told.client_asked), (cause, cause == Cause::Client));
        assert!(told.reason.contains(parent_name().as_str()), "{told:?}");
        assert_eq!(child.refusal(asked), Refusal::NotDue, "there is nothing left to do");
        child.finished(stopped(Effects::None)).is(&format!("DONE {ends}"));
    }
}

#[test]
fn a_reason_does_not_grow_from_generation_to_generation() {
    let mut told = Story::new(policy()).does(Command::Cancel {
        cause: Cause::Client,
        actor: "ada".into(),
        reason: "ä".repeat(500).as_str().into(),
    });
    for _ in 0..20 {
        let Some(Command::Follow { cause, actor, reason, .. }) = told.operation.cascade() else {
            panic!("a cancelled operation has something to say to its children");
        };
        assert!(reason.len() <= 1024, "{}", reason.len());
        let follow = Command::Follow { parent: parent_name(), cause, actor, reason };
        told = running().does(follow);
    }
}

#[test]
fn detach_and_the_parents_cancel_race_and_the_row_decides() {
    let free = running().does(detach());
    assert_eq!(free.refusal(follow(Cause::Client)), Refusal::NotDue);
    assert_eq!(free.operation.parent_operation, None);
    check_unchanged(&free, detach());
    let followed = running().does(follow(Cause::Client)).does(detach()).is("CANCELLING");
    followed.finished(stopped(Effects::None)).is("DONE 1 CANCELLED");
}

#[test]
fn a_child_follows_only_its_own_parent_and_only_once_and_only_if_it_can_be_cancelled() {
    let stranger = OperationName::parse("operations/stranger").expect("it is well formed");
    let Command::Follow { cause, actor, reason, .. } = follow(Cause::Client) else {
        panic!("it is a follow");
    };
    let strange = Command::Follow { parent: stranger, cause, actor, reason };
    assert_eq!(running().refusal(strange), Refusal::NotDue);
    assert_eq!(cancelling().refusal(follow(Cause::Client)), Refusal::NotDue);
    let stubborn = Story::new(Policy { cancellable: false, ..policy() }).claimed();
    assert_eq!(stubborn.refusal(follow(Cause::Deadline)), Refusal::NotDue);
    // Nobody sees a deleted operation, but its work is to stop like that of its siblings.
    running().deleted().does(follow(Cause::Client)).is("CANCELLING");
}

// The table of races, row by row.

#[test]
fn nobody_claimed_by_start_by_ends_with_code_4_and_no_effects() {
    let waiting = Story::with_start_by(policy());
    let last = waiting.clone().later(START_BY - Duration::from_micros(1)).does(claim());
    last.is("RUNNING");
    let late = waiting.clone().later(START_BY);
    assert_eq!(late.refusal(claim()), Refusal::NotClaimable, "the sweep may come later");
    late.does(tick()).is("DONE 4 DEADLINE_EXCEEDED").leaves(Effects::NotStarted);
}

#[test]
fn start_by_is_over_with_the_first_claim_even_if_that_is_given_back() {
    let released = Story::with_start_by(policy()).claimed().released().later(START_BY);
    assert_eq!(released.operation.unclaimed_until(), None);
    released.does(claim()).is("RUNNING");
}

#[test]
fn complete_first_then_cancel_is_ok_and_changes_nothing() {
    let done = running().finished(succeeded());
    check_unchanged(&done, cancel(Cause::Client));
    assert!(!done.operation.cancel_requested());
}

#[test]
fn cancel_first_then_success_is_accepted_and_stays_requested() {
    let done = cancelling().finished(succeeded()).is("DONE response");
    assert_eq!(done.operation.outcome(), Some(&Outcome::Response(response())));
    assert!(done.operation.cancel_requested());
}

#[test]
fn cancel_first_then_success_becomes_code_1_where_the_method_discards() {
    let discard = Policy { discard_success_after_cancel: true, ..policy() };
    let done = Story::new(discard).claimed().cancelled(Cause::Client).finished(succeeded());
    done.is("DONE 1 CANCELLED").leaves(Effects::Unknown);
}

#[test]
fn a_success_is_never_discarded_without_a_cancel() {
    let discard = Policy { discard_success_after_cancel: true, ..policy() };
    Story::new(discard).claimed().finished(succeeded()).is("DONE response");
}

#[test]
fn cancel_first_then_failure_for_good_keeps_that_error() {
    let done = cancelling().finished(failed(Code::DataLoss)).is("DONE 15 DATA_LOSS");
    assert!(done.operation.cancel_requested());
}

#[test]
fn cancel_first_then_retryable_failure_is_not_tried_again() {
    let done = cancelling().finished(failed_retryable(Code::Unavailable)).is("DONE 1 CANCELLED");
    assert_eq!(done.refusal(claim()), Refusal::NotClaimable);
}

#[test]
fn cancel_while_queued_is_done_at_once_and_every_later_claim_is_refused() {
    let done = Story::new(policy()).cancelled(Cause::Client).is("DONE 1 CANCELLED");
    assert_eq!(done.clone().leaves(Effects::NotStarted).refusal(claim()), Refusal::NotClaimable);
    assert_eq!(done.later(SECOND * 1000).refusal(claim()), Refusal::NotClaimable);
}

#[test]
fn cancel_while_queued_past_the_gate_is_recorded_and_the_work_carried_forward() {
    let queued = running().past_gate().finished(failed_retryable(Code::Unavailable));
    let asked = queued.cancelled(Cause::Client).is("QUEUED");
    assert!(asked.operation.cancel_requested());
    let again = asked.clone().claimed().is("CANCELLING");
    again.finished(succeeded()).is("DONE response");
    // Nobody comes: it ends all the same, and does not pretend that nothing happened.
    asked.due().is("DONE 1 CANCELLED").leaves(Effects::Unknown);
}

#[test]
fn cancel_of_a_deleted_operation_is_not_found() {
    let deleted = running().deleted();
    assert_eq!(deleted.refusal(cancel(Cause::Client)), Refusal::NotFound);
    assert_eq!(deleted.refusal(delete()), Refusal::NotFound);
}

#[test]
fn cancel_of_an_expired_operation_is_not_found_to_the_microsecond() {
    let done = running().finished(succeeded());
    let end = done.operation.expire_time().expect("a done operation expires");
    let instant = Duration::from_micros(1);
    check_unchanged(&done.clone().until(end - instant), cancel(Cause::Client));
    let expired = done.until(end);
    assert_eq!(expired.refusal(cancel(Cause::Client)), Refusal::NotFound);
    assert!(expired.due().forgotten);
}

#[test]
fn a_deleted_or_expired_row_is_not_found_even_where_the_api_is_strict() {
    let strict =
        Policy { strict_cancel_when_done: true, strict_delete_when_running: true, ..policy() };
    let done = Story::new(strict).claimed().finished(succeeded());
    assert_eq!(done.refusal(cancel(Cause::Client)), Refusal::AlreadyDone);
    let end = done.operation.expire_time().expect("a done operation expires");
    assert_eq!(done.until(end).refusal(cancel(Cause::Client)), Refusal::NotFound);
}

#[test]
fn a_worker_lost_while_cancelling_ends_by_its_lease_and_the_main_work_never_runs_again() {
    let lost = cancelling().due().is("DONE 1 CANCELLED").leaves(Effects::Unknown);
    assert_eq!(lost.now, BEGIN + LEASE);
    assert_eq!(lost.refusal(claim()), Refusal::NotClaimable);

    let cleaning = cleaning_up();
    let applied = cleaning.attempt(claim()).expect("the cleanup waits for a worker");
    assert!(matches!(applied.events[0].kind, EventKind::Claimed { cleanup: true, .. }));
}

#[test]
fn a_late_report_of_the_same_epoch_counts_until_the_next_claim() {
    let lost = running().due().is("QUEUED").later(SECOND);
    assert_eq!(lost.operation.desired(1), Desired::Continue);
    lost.clone().does(renew(1)).is("RUNNING");
    lost.clone().does(gate(1)).is("RUNNING");
    lost.clone().does(finish(1, succeeded())).is("DONE response");

    let taken = lost.claimed().is("RUNNING");
    for report in [renew(1), gate(1), finish(1, succeeded()), release(1)] {
        assert_eq!(taken.refusal(report), Refusal::LeaseLost);
    }
    assert_eq!(taken.operation.desired(1), Desired::Stop(StopReason::LeaseLost));
}

#[test]
fn a_regained_lease_is_no_longer_open_to_other_workers() {
    let regained = running().due().renewed().is("RUNNING");
    assert_eq!((regained.epoch(), regained.operation.attempt), (1, 1));
    assert_eq!(regained.refusal(claim()), Refusal::NotClaimable);
}

#[test]
fn delete_while_running_hides_at_once_and_drops_only_the_result() {
    let until = BEGIN + Duration::from_secs(3600);
    let request_id = Some(RequestId { value: "r".into(), until });
    let keyed = Start { request_id, ..facts(policy()) };
    let deleted = Story::of(keyed.clone()).claimed().deleted().is("RUNNING");
    assert!(!deleted.operation.visible(deleted.now));
    assert_eq!(deleted.operation.desired(1), Desired::Continue);

    let done = deleted.renewed().finished(succeeded()).is("DONE response");
    let Some(Outcome::Response(kept)) = done.operation.outcome() else { panic!("a response") };
    assert_eq!((&*kept.type_name, kept.value.len()), ("google.cloud.deploy.v1.Release", 0));
    assert_eq!(done.operation.desired(1), Desired::Stop(StopReason::Deleted));
    check_unchanged(&done, finish(1, succeeded()));

    // The request_id stays taken until its window ends; then the row goes.
    assert_eq!(done.refusal(tick()), Refusal::NotDue);
    let repeat = Start { name: other_name(), ..keyed };
    let found = start(Some(&done.operation), repeat, done.now).expect("it is the first one again");
    assert_eq!(found.operation, done.operation);
    assert!(done.until(until).does(tick()).forgotten);
}

#[test]
fn delete_of_a_done_operation_removes_the_row_unless_its_request_id_is_still_taken() {
    let gone = running().finished(succeeded()).deleted();
    assert!(gone.forgotten);
    assert_eq!(gone.count("FORGOTTEN"), 1);
}

fn other_name() -> OperationName {
    OperationName::parse("projects/p/locations/l/operations/other")
        .expect("the name is well formed")
}

fn keyed_start() -> Start {
    let until = BEGIN + Duration::from_secs(3600);
    Start { request_id: Some(RequestId { value: "r-1".into(), until }), ..facts(policy()) }
}

#[test]
fn a_start_repeated_with_its_request_id_is_the_first_operation_whatever_became_of_it() {
    let repeat = || Start { name: other_name(), uid: 8, ..keyed_start() };
    for story in [
        Story::of(keyed_start()),
        Story::of(keyed_start()).claimed(),
        Story::of(keyed_start()).cancelled(Cause::Client),
        Story::of(keyed_start()).claimed().deleted(),
    ] {
        let again = start(Some(&story.operation), repeat(), story.now).expect("the first one");
        assert_eq!(again.operation, story.operation);
        assert!(again.events.is_empty() && !again.forget);
    }
}

#[test]
fn a_request_id_with_another_request_is_refused_until_its_window_ends() {
    let first = Story::of(keyed_start()).operation;
    let other_request = Start {
        name: other_name(),
        request: payload("google.cloud.deploy.v1.CreateReleaseRequest", b"another"),
        ..keyed_start()
    };
    let other_method = Start { name: other_name(), method: "another".into(), ..keyed_start() };
    let last = BEGIN + Duration::from_secs(3600) - Duration::from_micros(1);
    for repeat in [other_request.clone(), other_method] {
        assert_eq!(start(Some(&first), repeat, last), Err(Refusal::RequestIdReused));
    }
    let after = BEGIN + Duration::from_secs(3600);
    let new = start(Some(&first), other_request.clone(), after).expect("the window has ended");
    assert_eq!(new.operation.name, other_request.name);
    assert_eq!(place(&new.operation), "QUEUED");
}

#[test]
fn a_name_is_never_given_twice() {
    let first = Story::of(keyed_start()).operation;
    assert_eq!(start(Some(&first), keyed_start(), BEGIN), Err(Refusal::NameTaken));
}

#[test]
fn a_superseded_operation_ends_as_aborted_in_every_state() {
    Story::new(policy()).cancelled(Cause::Superseded).is("DONE 10 ABORTED");
    let told = running().cancelled(Cause::Superseded).is("CANCELLING");
    assert!(!told.operation.cancel_requested(), "no client asked");
    told.clone().finished(stopped(Effects::Undone)).is("DONE 10 ABORTED");
    told.due().is("DONE 10 ABORTED");
}

#[test]
fn a_missed_deadline_ends_as_deadline_exceeded_and_a_lost_worker_as_unavailable() {
    Story::with_deadline(policy()).due().is("DONE 4 DEADLINE_EXCEEDED");
    let late = Story::with_deadline(policy()).claimed().until(BEGIN + DEADLINE - SECOND).renewed();
    let told = late.due().is("CANCELLING");
    assert!(!told.operation.cancel_requested(), "no client asked");
    told.clone().finished(stopped(Effects::None)).is("DONE 4 DEADLINE_EXCEEDED");
    told.clone().finished(failed(Code::Cancelled)).is("DONE 4 DEADLINE_EXCEEDED");
    told.due().is("DONE 4 DEADLINE_EXCEEDED");

    let third = running().due().claimed().due().claimed();
    assert_eq!(third.operation.attempt, 3);
    third.due().is("DONE 14 UNAVAILABLE").leaves(Effects::Unknown);
}

#[test]
fn a_client_who_asks_after_the_deadline_is_on_record_but_does_not_change_the_code() {
    let late = Story::with_deadline(policy()).claimed().until(BEGIN + DEADLINE - SECOND).renewed();
    let both = late.due().cancelled(Cause::Client);
    assert!(both.operation.cancel_requested());
    both.finished(stopped(Effects::None)).is("DONE 4 DEADLINE_EXCEEDED");
}

#[test]
fn a_missed_deadline_past_the_gate_carries_the_work_forward_like_a_cancel() {
    let waiting = Story::with_deadline(policy()).claimed().past_gate();
    let waiting = waiting.finished(failed_retryable(Code::Unavailable));
    let missed = waiting.until(BEGIN + DEADLINE).does(tick()).is("QUEUED");
    missed.clone().claimed().finished(succeeded()).is("DONE response");
    missed.due().is("DONE 4 DEADLINE_EXCEEDED").leaves(Effects::Unknown);
}

#[test]
fn a_restart_is_only_a_late_sweep() {
    // Nothing but the row is carried over an outage; whatever was due is due still.
    let week = Duration::from_secs(7 * 24 * 3600);
    cancelling().later(week).does(tick()).is("DONE 1 CANCELLED");
    let cleaning = Story::new(cleanup_policy()).claimed().cancelled(Cause::Client);
    let cleaning = cleaning.later(week).does(tick()).is("CLEANING_UP");
    assert_eq!(cleaning.operation.due_at(), Some(cleaning.now + CLEANUP_BUDGET));
    running().later(week).does(tick()).is("QUEUED");
}

#[test]
fn an_outage_of_the_server_is_not_the_workers_silence() {
    let hour = Duration::from_secs(3600);
    let back = running().later(hour).does(recover()).is("RUNNING");
    assert_eq!(back.refusal(tick()), Refusal::NotDue);
    assert_eq!(back.operation.due_at(), Some(back.now + LEASE));
    back.renewed().finished(succeeded()).is("DONE response");

    let short = Command::Recover { lease: SECOND };
    assert_eq!(running().refusal(short), Refusal::NotDue, "a lease never gets shorter");
    assert_eq!(Story::new(policy()).refusal(recover()), Refusal::NotDue);
}

#[test]
fn a_clock_that_goes_back_does_not_take_update_time_with_it() {
    let story = running().later(SECOND * 10).renewed();
    let applied = story.try_at(BEGIN, renew(1)).expect("the holder reports");
    assert_eq!(applied.operation.update_time, BEGIN + SECOND * 10);
}

#[test]
fn the_gate_and_cancelled_without_effects_never_both() {
    let gated = running().past_gate().cancelled(Cause::Client);
    for effects in [Effects::None, Effects::NotStarted] {
        gated.clone().finished(stopped(effects)).leaves(Effects::Unknown);
    }
    gated.finished(stopped(Effects::Partial)).leaves(Effects::Partial);

    let cancelled = cancelling();
    assert_eq!(cancelled.refusal(gate(1)), Refusal::GateClosed);
    cancelled.finished(stopped(Effects::None)).is("DONE 1 CANCELLED").leaves(Effects::None);
}

#[test]
fn a_plain_failure_past_the_gate_cannot_say_that_nothing_happened_either() {
    let gated = running().past_gate();
    for effects in [Effects::None, Effects::NotStarted] {
        let how = Finish::Failed {
            status: status(Code::Internal),
            retryable: false,
            effects: Some(effects),
        };
        gated.clone().finished(how).is("DONE 13 INTERNAL").leaves(Effects::Unknown);
    }
}

#[test]
fn a_finish_whose_answer_was_lost_can_be_repeated() {
    check_unchanged(&running().finished(succeeded()), finish(1, succeeded()));
    let error = running().finished(failed(Code::Internal));
    check_unchanged(&error, finish(1, failed(Code::Internal)));
    let stopped_once = cancelling().finished(stopped(Effects::None));
    check_unchanged(&stopped_once, finish(1, stopped(Effects::None)));
    let superseded = running().cancelled(Cause::Superseded).finished(stopped(Effects::None));
    check_unchanged(&superseded, finish(1, stopped(Effects::None)));
    let retryable = cancelling().finished(failed_retryable(Code::Unavailable));
    check_unchanged(&retryable, finish(1, failed_retryable(Code::Unavailable)));
    let cleaned = cleaning_up().claimed().finished(succeeded());
    check_unchanged(&cleaned, finish(cleaned.epoch(), succeeded()));
    let uncleaned = cleaning_up().claimed().finished(failed(Code::Internal));
    check_unchanged(&uncleaned, finish(uncleaned.epoch(), failed(Code::Internal)));
    let discard = Policy { discard_success_after_cancel: true, ..policy() };
    let discarded = Story::new(discard).claimed().cancelled(Cause::Client).finished(succeeded());
    check_unchanged(&discarded, finish(1, succeeded()));

    // Another end under the same epoch is not a repeat.
    assert_eq!(error.refusal(finish(1, succeeded())), Refusal::LeaseLost);
    assert_eq!(stopped_once.refusal(finish(1, succeeded())), Refusal::LeaseLost);
}

// What users of other systems suffer from.

#[test]
fn peers_01_a_lost_signal_is_heard_at_the_next_report() {
    let told = cancelling();
    let Desired::Cancel(first) = told.operation.desired(1) else { panic!("a cancel") };
    let later = told.renewed();
    let Desired::Cancel(second) = later.operation.desired(1) else { panic!("still a cancel") };
    assert_eq!(first.at, second.at);
    assert_eq!(second.delivered_at, Some(later.now));
    assert_eq!(
        (later.clone().count("CANCEL_DELIVERED"), later.renewed().count("CANCEL_DELIVERED")),
        (1, 1)
    );
}

#[test]
fn peers_02_a_cancel_is_heard_within_a_lease_whatever_the_handler_does() {
    // The bound is the row's own: either the worker reports and hears, or its lease ends.
    let told = cancelling();
    assert!(told.operation.due_at() <= Some(told.now + LEASE));
    let deaf = told.due();
    assert!(deaf.operation.outcome().is_some() && deaf.now <= BEGIN + LEASE);
}

#[test]
fn peers_03_every_claim_has_a_lease() {
    for story in [running(), cleaning_up().claimed()] {
        let lease = story.operation.lease().expect("a claim gives a lease");
        assert_eq!(lease.expires_at, story.now + LEASE);
        assert!(story.operation.due_at() <= Some(lease.expires_at));
    }
}

#[test]
fn peers_04_terminal_state_never_flips() {
    for done in [
        running().finished(succeeded()),
        running().finished(failed(Code::Internal)),
        Story::new(policy()).cancelled(Cause::Client),
        cancelling().finished(stopped(Effects::None)),
        cancelling().due(),
        cleaning_up().claimed().finished(succeeded()),
    ] {
        let epoch = done.epoch();
        let reports = (0..=epoch + 1).flat_map(|epoch| {
            [
                renew(epoch),
                gate(epoch),
                release(epoch),
                finish(epoch, succeeded()),
                finish(epoch, failed(Code::Internal)),
                finish(epoch, failed_retryable(Code::Internal)),
                finish(epoch, stopped(Effects::None)),
            ]
        });
        let causes = [Cause::Client, Cause::Deadline, Cause::Superseded].map(cancel);
        let others = [claim(), recover(), delete(), tick()].into_iter().chain(causes);
        for command in reports.chain(others) {
            if let Ok(applied) = done.attempt(command) {
                assert_eq!(applied.operation.state, done.operation.state);
            }
        }
    }
}

#[test]
fn peers_05_cancelling_ends_at_its_deadline_however_lively_the_worker() {
    let mut story = cancelling();
    while story.now < BEGIN + CANCEL_TIMEOUT {
        story = story.later(SECOND * 5).renewed();
        assert!(story.operation.due_at() <= Some(BEGIN + CANCEL_TIMEOUT));
    }
    let ended = story.due().is("DONE 1 CANCELLED").leaves(Effects::Unknown);
    assert_eq!(ended.now, BEGIN + CANCEL_TIMEOUT);
    assert_eq!(ended.epoch(), 2, "the epoch moves with the end");
    assert_eq!(ended.refusal(finish(1, stopped(Effects::None))), Refusal::LeaseLost);
}

#[test]
fn peers_05_cleaning_up_ends_at_its_budget_however_lively_the_worker() {
    let mut story = cleaning_up().claimed();
    let limit = story.now + CLEANUP_BUDGET;
    while story.now < limit {
        story = story.later(SECOND * 20).renewed();
    }
    let ended = story.due().is("DONE 1 CANCELLED").leaves(Effects::Unknown);
    assert_eq!(ended.now, limit);
}

#[test]
fn peers_06_a_cancel_that_cannot_happen_is_refused_not_accepted() {
    let fixed = || Story::new(Policy { cancellable: false, ..policy() });
    for story in [fixed(), fixed().claimed(), fixed().claimed().finished(succeeded())] {
        assert_eq!(story.refusal(cancel(Cause::Client)), Refusal::NotCancellable);
    }
    let unseen = fixed().claimed().deleted();
    assert_eq!(unseen.refusal(cancel(Cause::Client)), Refusal::NotFound, "existence comes first");
}

#[test]
fn peers_07_done_only_after_the_worker_stopped_or_nobody_can_say_what_is_left() {
    let told = cancelling().is("CANCELLING");
    assert!(told.operation.outcome().is_none());
    told.clone().finished(stopped(Effects::Undone)).is("DONE 1 CANCELLED").leaves(Effects::Undone);
    told.clone().due().leaves(Effects::Unknown);
    told.released().is("DONE 1 CANCELLED").leaves(Effects::Unknown);
    // Queued again after a lost lease: its old worker may have changed something.
    running().due().cancelled(Cause::Client).is("DONE 1 CANCELLED").leaves(Effects::Unknown);
}

#[test]
fn peers_08_queued_and_cancelled_never_starts() {
    let done = Story::new(policy()).cancelled(Cause::Client);
    assert_eq!(done.refusal(claim()), Refusal::NotClaimable);
    // Even a row that should not exist, queued though cancelled, is given to nobody.
    let odd = Operation { state: Story::new(policy()).operation.state, ..done.operation };
    assert_eq!(apply(&odd, claim(), BEGIN), Err(Refusal::NotClaimable));
}

#[test]
fn peers_09_a_caller_can_be_told_what_became_of_the_cancel() {
    let words = |story: &Story| {
        let applied = story.attempt(cancel(Cause::Client)).expect("a cancel is accepted");
        let first = applied.events.first().map(|event| event.kind.name());
        let gated = applied.operation.gate_passed.is_some();
        (first, applied.operation.outcome().is_some(), gated)
    };
    let (asked, again) = (Some("CANCEL_REQUESTED"), Some("CANCEL_REPEATED"));
    assert_eq!(words(&running()), (asked, false, false), "requested");
    assert_eq!(words(&Story::new(policy())), (asked, true, false), "cancelled");
    assert_eq!(words(&running().finished(succeeded())), (again, true, false), "already done");
    assert_eq!(words(&cancelling()), (again, false, false), "already requested");
    assert_eq!(words(&running().past_gate()), (asked, false, true), "too late");
}

#[test]
fn peers_10_cancel_while_backing_off_is_done_at_once() {
    let waiting = running().finished(failed_retryable(Code::Unavailable)).is("QUEUED");
    assert!(waiting.operation.claimable_from() > Some(waiting.now));
    let done = waiting.cancelled(Cause::Client).is("DONE 1 CANCELLED");
    assert_eq!(done.later(SECOND * 1000).refusal(claim()), Refusal::NotClaimable);
}

#[test]
fn peers_11_a_dead_worker_does_not_hold_up_a_cancel_and_any_worker_cleans_up() {
    let cleaning = cleaning_up();
    let other = Command::Claim {
        worker: "worker-2".into(),
        claim_id: "".into(),
        holder: "".into(),
        lease: LEASE,
    };
    let cleaned = cleaning.does(other).finished(succeeded());
    cleaned.is("DONE 1 CANCELLED").leaves(Effects::Undone);

    let untended = cleaning_up().due();
    assert!(untended.now <= BEGIN + CANCEL_TIMEOUT + CLEANUP_BUDGET + LEASE);
    untended.is("DONE 1 CANCELLED").leaves(Effects::Unknown);
}

#[test]
fn peers_12_a_worker_that_shuts_down_is_no_cancel_and_counts_no_attempt() {
    let kept = Changes { checkpoint: Some((*b"half way").into()), ..Changes::default() };
    let mut story = running();
    for _ in 0..10 {
        let epoch = story.epoch();
        story = story.does(Command::Release { epoch, changes: kept.clone() }).is("QUEUED");
        assert!(story.operation.cancel.is_none());
        assert_eq!(story.operation.claimable_from(), Some(story.now), "at once");
        story = story.claimed();
        assert_eq!(story.operation.attempt, 1);
        assert_eq!(story.operation.checkpoint.as_deref(), Some(&b"half way"[..]));
    }
    // Past the gate and told to stop, a shutdown still leaves the attempt to the next worker.
    let once = Policy { retry: Retry { attempts_max: 1, ..policy().retry }, ..policy() };
    let gated = Story::new(once).claimed().past_gate().cancelled(Cause::Client);
    gated.released().is("QUEUED").claimed().is("CANCELLING");
}

#[test]
fn peers_12_every_cause_reaches_the_worker_by_name() {
    for cause in [Cause::Client, Cause::Deadline, Cause::Superseded] {
        let told = running().cancelled(cause);
        let Desired::Cancel(cancel) = told.operation.desired(1) else { panic!("a cancel") };
        assert_eq!(cancel.cause, cause);
    }
    assert_eq!(running().operation.desired(0), Desired::Stop(StopReason::LeaseLost));
    let done = running().finished(succeeded());
    assert_eq!(done.operation.desired(1), Desired::Stop(StopReason::Done));
}

#[test]
fn peers_13_a_cancel_is_meant_for_one_epoch_only() {
    let second = running().due().claimed().cancelled(Cause::Client);
    assert!(matches!(second.operation.desired(2), Desired::Cancel(_)));
    for other in [0, 1, 3] {
        let desired = second.operation.desired(other);
        assert_eq!(desired, Desired::Stop(StopReason::LeaseLost), "epoch {other}");
    }
}

#[test]
fn peers_16_a_cleanup_cannot_be_cancelled_and_has_its_own_budget_and_attempts() {
    let cleaning = cleaning_up().claimed();
    for cause in [Cause::Client, Cause::Deadline, Cause::Superseded] {
        check_noted(&cleaning, cancel(cause));
    }
    assert_eq!(cleaning.operation.desired(cleaning.epoch()), Desired::Continue);

    let second = cleaning.finished(failed_retryable(Code::Unavailable)).is("CLEANING_UP").claimed();
    let third = second.finished(failed_retryable(Code::Unavailable)).is("CLEANING_UP").claimed();
    assert_eq!(third.operation.attempt, 1, "attempts of the main work are not touched");
    third.finished(failed_retryable(Code::Unavailable)).is("DONE 1 CANCELLED");
}

#[test]
fn peers_16_the_main_worker_cannot_speak_for_the_cleanup() {
    let cleaning = cleaning_up();
    for report in [renew(1), gate(1), release(1), finish(1, stopped(Effects::None))] {
        assert_eq!(cleaning.refusal(report), Refusal::LeaseLost);
    }
}

#[test]
fn peers_18_a_repeated_cancel_is_ok_and_the_first_actor_time_and_reason_stay() {
    let first = cancelling().later(SECOND);
    let second =
        Command::Cancel { cause: Cause::Client, actor: "bob".into(), reason: "me too".into() };
    let repeated = EventKind::CancelRepeated { actor: "bob".into(), reason: "me too".into() };
    assert_eq!(check_noted(&first, second.clone()), std::slice::from_ref(&repeated));

    let done = first.finished(stopped(Effects::None));
    assert_eq!(check_unchanged(&done, second.clone()), std::slice::from_ref(&repeated));

    let strict = Policy { strict_cancel_when_done: true, ..policy() };
    let strict = Story::new(strict).claimed().cancelled(Cause::Client);
    check_noted(&strict, second.clone());
    assert_eq!(strict.finished(succeeded()).refusal(second), Refusal::AlreadyDone);
}

#[test]
fn peers_20_a_start_whose_answer_was_lost_is_found_by_its_request_id() {
    let first = Story::of(keyed_start()).cancelled(Cause::Client);
    let repeat = Start { name: other_name(), uid: 8, ..keyed_start() };
    let found = start(Some(&first.operation), repeat, first.now).expect("the first one");
    assert_eq!(place(&found.operation), "DONE 1 CANCELLED");
}

#[test]
fn peers_21_work_outside_is_on_record_before_it_starts_and_reaches_the_cleanup() {
    let noted = Changes { external_ref: Some("jobs/42".into()), ..Changes::default() };
    let story = Story::new(cleanup_policy()).claimed();
    let story = story.does(Command::Renew { epoch: 1, lease: LEASE, changes: noted });
    let cleaning = story.cancelled(Cause::Client).due().claimed();
    assert_eq!(cleaning.operation.external_ref.as_deref(), Some("jobs/42"));
}

#[test]
fn peers_22_a_lease_is_free_in_the_transaction_that_ends_it_and_never_earlier() {
    for held in [running(), cancelling(), cleaning_up().claimed()] {
        assert!(held.operation.lease().is_some());
        assert_eq!(held.refusal(claim()), Refusal::NotClaimable);
        let done = held.finished(succeeded());
        assert!(done.operation.lease().is_none() && done.operation.outcome().is_some());
    }
}

#[test]
fn peers_23_who_when_and_why_are_kept_and_told_to_the_worker() {
    let asked_at = BEGIN + SECOND * 7;
    let told = running().until(asked_at).cancelled(Cause::Client);
    let Desired::Cancel(cancel) = told.operation.desired(1) else { panic!("a cancel") };
    assert_eq!((&*cancel.actor, &*cancel.reason), ("ada", "changed my mind"));
    assert_eq!((cancel.cause, cancel.at), (Cause::Client, asked_at));
    assert_eq!(cancel.deadline, asked_at + CANCEL_TIMEOUT);

    let heard = Changes { acknowledged: true, ..Changes::default() };
    let heard = told.later(SECOND).does(Command::Renew { epoch: 1, lease: LEASE, changes: heard });
    let kept = heard.operation.cancel.as_ref().expect("the cancel stays");
    assert_eq!(kept.acknowledged_at, Some(heard.now));
    let done = heard.finished(stopped(Effects::None));
    assert_eq!(&*done.operation.cancel.expect("the cancel stays").actor, "ada");
}

#[test]
fn a_cancel_is_heard_no_earlier_than_it_was_asked_whatever_a_servers_clock_says() {
    let asked_at = BEGIN + SECOND * 7;
    let told = running().until(asked_at).cancelled(Cause::Client);
    let heard = Changes { acknowledged: true, ..Changes::default() };
    let heard = Command::Renew { epoch: 1, lease: LEASE, changes: heard };
    let behind = told.try_at(asked_at - SECOND, heard).expect("the lease is held");
    let cancel = behind.operation.cancel.expect("the cancel stays");
    assert_eq!((cancel.delivered_at, cancel.acknowledged_at), (Some(asked_at), Some(asked_at)));
}

#[test]
fn peers_25_delete_never_cancels_and_a_strict_api_refuses_it_while_running() {
    let deleted = Story::new(policy()).deleted().claimed().is("RUNNING");
    assert!(deleted.operation.cancel.is_none());
    let done = deleted.finished(failed(Code::Internal)).is("DONE 13 INTERNAL");
    assert!(done.due().forgotten, "purged after it finished");

    let strict = Policy { strict_delete_when_running: true, ..policy() };
    let story = Story::new(strict).claimed();
    assert_eq!(story.refusal(delete()), Refusal::NotDone);
    assert!(story.finished(succeeded()).deleted().forgotten);
}

#[test]
fn peers_25_an_operator_cancels_what_a_client_deleted_and_it_stays_deleted() {
    let deleted = Story::new(policy()).claimed().deleted();
    let cancel = |story: &Story| {
        longhaul_core::cancel_as_operator(&story.operation, "op".into(), "why".into(), story.now)
    };
    let told = cancel(&deleted).expect("an operator may").operation;
    assert_eq!((told.state.name(), told.deleted), ("CANCELLING", deleted.operation.deleted));
    let queued = Story::new(policy()).deleted();
    let ended = cancel(&queued).expect("an operator may").operation;
    assert_eq!((ended.state.name(), ended.deleted), ("DONE", queued.operation.deleted));
    let retention = Duration::from_secs(1);
    let expired = Story::new(Policy { retention, ..policy() }).cancelled(Cause::Client);
    assert_eq!(cancel(&expired.later(retention)), Err(Refusal::NotFound));
}

#[test]
fn a_moment_at_the_end_of_time_does_not_panic() {
    let forever = Policy {
        cancel_timeout: Duration::MAX,
        cleanup_budget: Some(Duration::MAX),
        retention: Duration::MAX,
        retry: Retry {
            attempts_max: u32::MAX,
            backoff_first: Duration::MAX,
            backoff_max: Duration::MAX,
        },
        ..policy()
    };
    let claim = || Command::Claim {
        worker: "w".into(),
        claim_id: "".into(),
        holder: "".into(),
        lease: Duration::MAX,
    };
    let story = Story::new(forever).does(claim());
    assert_eq!(story.operation.due_at(), Some(Timestamp::MAX));
    let waiting = story.clone().finished(failed_retryable(Code::Unavailable)).is("QUEUED");
    assert_eq!(waiting.operation.claimable_from(), Some(Timestamp::MAX));
    let told = story.cancelled(Cause::Client);
    let cleaning = told.until(Timestamp::MAX).does(tick()).is("CLEANING_UP");
    assert!(matches!(
        cleaning.operation.state,
        State::CleaningUp { budget_end: Timestamp::MAX, .. }
    ));
    cleaning.does(tick()).is("DONE 1 CANCELLED");
}
