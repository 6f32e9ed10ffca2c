//! Planted violations: for each rule a history that breaks it alone, beside one that is in order.

use super::*;

const NAME: &str = "projects/chaos/operations/a";
const SECOND: u64 = 1_000_000;
const BOUNDS: Bounds = Bounds { cancel: 10 * SECOND, outage: SECOND };

fn record(who: &str, began: u64, ended: u64, what: What) -> Record {
    Record { who: who.into(), began: began * SECOND, ended: ended * SECOND, what }
}

fn name() -> String {
    NAME.to_owned()
}

fn start(began: u64) -> Record {
    let what = What::Start { request_id: "k".into(), name: Some(name()) };
    record("client", began, began + 1, what)
}

fn running(began: u64, cancel_requested: bool) -> Record {
    let seen = Seen { done: false, code: None, made_by: None, cancel_requested };
    record("client", began, began + 1, What::Read { name: name(), seen })
}

fn seen_made(mark: &str) -> Seen {
    Seen { done: true, code: None, made_by: Some(mark.into()), cancel_requested: false }
}

fn seen_cancelled() -> Seen {
    Seen { done: true, code: Some(1), made_by: None, cancel_requested: true }
}

fn read(began: u64, seen: Seen) -> Record {
    record("client", began, began + 1, What::Read { name: name(), seen })
}

fn last(began: u64, seen: Seen) -> Record {
    record("client", began, began + 1, What::Last { name: name(), seen })
}

fn cancel(began: u64) -> Record {
    record("client", began, began + 1, What::Cancel { name: name(), accepted: true })
}

fn claim(began: u64, claim_id: &str, epoch: u64, cleanup: bool) -> Record {
    let given = vec![Given { name: name(), epoch, cleanup }];
    record(claim_id, began, began + 1, What::Claim { claim_id: claim_id.into(), given })
}

fn report(began: u64, epoch: u64, said: Said, accepted: bool) -> Record {
    record("worker", began, began + 1, What::Report { name: name(), epoch, said, accepted })
}

fn made(began: u64, epoch: u64, mark: &str) -> Record {
    report(began, epoch, Said::Made(mark.into()), true)
}

fn ran(began: u64, ended: u64, epoch: u64) -> Record {
    record("worker", began, ended, What::Ran { name: name(), epoch })
}

fn outage(began: u64, ended: u64) -> Record {
    record("chaos", began, ended, What::Fault { kind: "all".into(), down: true })
}

/// Demands that exactly these rules are broken, each once.
#[track_caller]
fn finds(history: &[Record], rules: &[&str]) {
    let found = check(history, BOUNDS);
    let broken: Vec<_> = found.iter().map(|violation| violation.rule).collect();
    assert_eq!(broken, rules, "{found:#?}");
}

/// A life without a cancel, and one with: claimed, worked on, ended, seen by everybody.
fn in_order() -> [Vec<Record>; 2] {
    let good = vec![
        start(0),
        claim(1, "w1", 1, false),
        ran(2, 5, 1),
        report(3, 1, Said::Alive, true),
        made(5, 1, "m"),
        read(7, seen_made("m")),
        last(20, seen_made("m")),
    ];
    let cancelled = vec![
        start(0),
        claim(1, "w1", 1, false),
        ran(2, 5, 1),
        cancel(3),
        running(4, true),
        report(5, 1, Said::Stopped, true),
        read(7, seen_cancelled()),
        last(20, seen_cancelled()),
    ];
    [good, cancelled]
}

#[test]
fn histories_in_order_break_no_rule() {
    for history in in_order() {
        finds(&history, &[]);
    }
    // A lost lease: the second claim waits for its end, and the first worker is refused.
    let taken_over = [
        start(0),
        claim(1, "w1", 1, false),
        ran(2, 6, 1),
        claim(6, "w2", 2, false),
        report(8, 1, Said::Made("late".into()), false),
        ran(7, 9, 2),
        made(9, 2, "m"),
        last(20, seen_made("m")),
    ];
    finds(&taken_over, &[]);
    // A claim that was answered again, and a cleanup after the cancel.
    let repeated = [
        start(0),
        claim(1, "w1", 1, false),
        cancel(2),
        claim(3, "w1", 1, false),
        claim(5, "w2", 2, true),
        report(7, 2, Said::Stopped, true),
        last(20, seen_cancelled()),
    ];
    finds(&repeated, &["a_cancel_ends_in_time"]);
    let in_time = [repeated.as_slice(), &[read(8, seen_cancelled())]].concat();
    finds(&in_time, &[]);
}

#[test]
fn unanswered_calls_may_have_happened_or_not() {
    let unknown = |began| {
        record("client", began, began + 1, What::Start { request_id: "k".into(), name: None })
    };
    let [mut good, _] = in_order();
    good.push(unknown(0));
    finds(&good, &[]);
    finds(&[unknown(0), unknown(2)], &[]);
    // Asked, nobody knows with what result, and cancelled it is.
    let asked = record("client", 1, 2, What::Cancel { name: name(), accepted: false });
    finds(&[start(0), asked, read(5, seen_cancelled()), last(9, seen_cancelled())], &[]);
}

#[test]
fn a_lost_start_is_found() {
    let missing = record("client", 4, 5, What::Missing { name: name() });
    let end = last(20, seen_made("m"));
    finds(&[start(0), missing, end], &["what_was_started_is_there"]);
    finds(&[start(0), running(3, false)], &["what_was_started_is_there"]);
    // It may not have been there before the start was answered.
    let early = record("client", 0, 1, What::Missing { name: name() });
    finds(&[start(0), early, last(20, seen_made("m"))], &[]);
}

#[test]
fn an_end_that_changes_is_found() {
    let flips = [start(0), cancel(1), read(4, seen_cancelled()), last(20, seen_made("m"))];
    finds(&flips, &["done_is_final"]);
    let goes_back = [start(0), read(4, seen_made("m")), running(6, false), last(9, seen_made("m"))];
    finds(&goes_back, &["done_is_final"]);
    let both = Seen { code: Some(13), ..seen_made("m") };
    finds(&[start(0), last(9, both)], &["done_is_final"]);
}

#[test]
fn an_accepted_end_that_is_gone_is_found() {
    let [mut good, _] = in_order();
    good.push(made(6, 1, "other"));
    finds(&good, &["an_accepted_end_stays"]);
    let stopped = [start(0), report(3, 1, Said::Stopped, true), last(9, seen_made("m"))];
    finds(&stopped, &["an_accepted_end_stays"]);
}

#[test]
fn a_cancel_that_is_gone_is_found() {
    let lost = [
        start(0),
        cancel(1),
        running(5, false),
        read(6, seen_cancelled()),
        last(9, seen_cancelled()),
    ];
    finds(&lost, &["an_accepted_cancel_stays"]);
}

#[test]
fn a_cancel_that_takes_too_long_is_found() {
    let history = |end: u64, more: &[Record]| {
        let base = [start(0), cancel(1), read(end, seen_cancelled()), last(99, seen_cancelled())];
        [base.as_slice(), more].concat()
    };
    // Accepted at 2, bound at 12.
    finds(&history(11, &[]), &[]);
    finds(&history(12, &[]), &["a_cancel_ends_in_time"]);
    // Four seconds of outage, and the second that one costs.
    finds(&history(16, &[outage(5, 9)]), &[]);
    finds(&history(17, &[outage(5, 9)]), &["a_cancel_ends_in_time"]);
    // Two that overlap count once each and together as long as they last; one of before not at all.
    finds(&history(19, &[outage(5, 9), outage(8, 11)]), &[]);
    finds(&history(20, &[outage(5, 9), outage(8, 11)]), &["a_cancel_ends_in_time"]);
    finds(&history(12, &[outage(0, 1)]), &["a_cancel_ends_in_time"]);
    let never = [start(0), cancel(1)];
    finds(&never, &["what_was_started_is_there", "a_cancel_ends_in_time"]);
}

#[test]
fn work_given_after_a_cancel_is_found() {
    let [_, mut cancelled] = in_order();
    cancelled.push(claim(9, "w2", 2, false));
    finds(&cancelled, &["nothing_starts_after_a_cancel"]);
}

#[test]
fn an_epoch_given_twice_is_found() {
    let [mut good, _] = in_order();
    good.push(claim(1, "w2", 1, false));
    finds(&good, &["an_epoch_is_given_once"]);
}

#[test]
fn an_epoch_that_sinks_is_found() {
    let history =
        [start(0), claim(1, "w1", 2, false), claim(4, "w2", 1, false), last(9, seen_made("m"))];
    finds(&history, &["epochs_rise"]);
}

#[test]
fn two_epochs_at_work_at_once_are_found() {
    let [mut good, _] = in_order();
    good.push(ran(4, 6, 2));
    finds(&good, &["one_epoch_works_at_a_time"]);
    let [mut touching, _] = in_order();
    touching.push(ran(5, 6, 2));
    finds(&touching, &[]);
}

#[test]
fn a_stale_report_that_counts_is_found() {
    let [mut good, _] = in_order();
    good.push(claim(8, "w2", 2, false));
    good.push(report(10, 1, Said::Alive, true));
    finds(&good, &["a_stale_report_is_refused"]);
}

#[test]
fn a_cancelled_operation_that_nobody_cancelled_is_found() {
    finds(&[start(0), last(9, seen_cancelled())], &["cancelled_only_if_asked"]);
    let too_late = [start(0), read(2, seen_cancelled()), cancel(4), last(9, seen_cancelled())];
    finds(&too_late, &["cancelled_only_if_asked"]);
}

#[test]
fn one_key_with_two_operations_is_found() {
    let [mut good, _] = in_order();
    let other =
        What::Start { request_id: "k".into(), name: Some("projects/chaos/operations/b".into()) };
    good.push(record("client", 2, 3, other));
    let end = What::Last { name: "projects/chaos/operations/b".into(), seen: seen_made("n") };
    good.push(record("client", 21, 22, end));
    finds(&good, &["one_key_one_operation"]);
}

#[test]
fn a_refusal_other_than_not_now_is_found() {
    let refused = |code| {
        let (call, message) = ("get".to_owned(), "why".to_owned());
        record("client", 2, 3, What::Refused { call, name: name(), code, message })
    };
    finds(&[refused(14), refused(8)], &[]);
    finds(&[refused(13)], &["refusals_are_honest"]);
}

#[test]
fn a_call_without_an_answer_is_found() {
    let hung = record("client", 2, 30, What::Hung { call: "get".into(), name: name() });
    finds(&[hung], &["no_call_hangs"]);
}
