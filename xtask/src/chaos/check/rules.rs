//! The promises, one function each.

use std::collections::{BTreeMap, BTreeSet};

use super::{Facts, Life};
use crate::chaos::history::{Record, Said, What};

type OfOne = fn(&Life<'_>, &Facts<'_>, &mut dyn FnMut(String));
type OfWhole = fn(&Facts<'_>, &mut dyn FnMut(&str, String));

/// Rules about one operation at a time.
pub(super) const OF_ONE_OPERATION: &[(&str, OfOne)] = &[
    ("what_was_started_is_there", what_was_started_is_there),
    ("done_is_final", done_is_final),
    ("an_accepted_end_stays", an_accepted_end_stays),
    ("an_accepted_cancel_stays", an_accepted_cancel_stays),
    ("a_cancel_ends_in_time", a_cancel_ends_in_time),
    ("nothing_starts_after_a_cancel", nothing_starts_after_a_cancel),
    ("an_epoch_is_given_once", an_epoch_is_given_once),
    ("epochs_rise", epochs_rise),
    ("one_epoch_works_at_a_time", one_epoch_works_at_a_time),
    ("a_stale_report_is_refused", a_stale_report_is_refused),
    ("cancelled_only_if_asked", cancelled_only_if_asked),
];

/// Rules about everything.
pub(super) const OF_THE_WHOLE: &[(&str, OfWhole)] = &[
    ("one_key_one_operation", one_key_one_operation),
    ("refusals_are_honest", refusals_are_honest),
    ("no_call_hangs", no_call_hangs),
];

/// google.rpc.Code of an operation that a client cancelled.
const CANCELLED: i32 = 1;
/// Codes that say "not now": RESOURCE_EXHAUSTED and UNAVAILABLE.
const NOT_NOW: [i32; 2] = [8, 14];

fn at(record: &Record) -> String {
    let seconds = |moment: u64| moment as f64 / 1e6;
    format!("{} at {:.3}..{:.3} s", record.who, seconds(record.began), seconds(record.ended))
}

/// A start that was answered is never lost, and comes to an end once the faults are over.
fn what_was_started_is_there(life: &Life<'_>, _: &Facts<'_>, say: &mut dyn FnMut(String)) {
    let Some(first) = life.starts.iter().min_by_key(|record| record.ended) else { return };
    for missing in life.missing.iter().filter(|missing| missing.began >= first.ended) {
        say(format!("started by {}, and {} found nothing", at(first), at(missing)));
    }
    if !life.last.iter().any(|(_, seen)| seen.done) {
        say(format!("started by {}, and never seen done at the end", at(first)));
    }
}

/// All who see an operation done see the same end, and nobody sees it not done afterwards.
fn done_is_final(life: &Life<'_>, _: &Facts<'_>, say: &mut dyn FnMut(String)) {
    let mut ends = life.reads.iter().filter(|(_, seen)| seen.done);
    let Some((first, end)) = ends.clone().min_by_key(|(record, _)| record.ended) else { return };
    if end.code.is_some() == end.made_by.is_some() {
        say(format!("{} saw it done without exactly one of error and response", at(first)));
    }
    let same = |seen: &super::Seen| (seen.code, &seen.made_by) == (end.code, &end.made_by);
    if let Some((other, seen)) = ends.find(|(_, seen)| !same(seen)) {
        say(format!("{} saw {end:?}, {} saw {seen:?}", at(first), at(other)));
    }
    let back = |record: &Record, done: bool| !done && record.began >= first.ended;
    if let Some((later, _)) = life.reads.iter().find(|(record, seen)| back(record, seen.done)) {
        say(format!("{} saw it done, and later {} did not", at(first), at(later)));
    }
}

/// What a worker was told is recorded is what everybody sees.
fn an_accepted_end_stays(life: &Life<'_>, _: &Facts<'_>, say: &mut dyn FnMut(String)) {
    let Some((last, end)) = life.last.last() else { return };
    for (record, epoch, said, accepted) in &life.reports {
        let kept = match said {
            Said::Made(mark) => end.made_by.as_deref() == Some(mark),
            Said::Stopped => end.code == Some(CANCELLED),
            Said::Alive | Said::Failed => true,
        };
        if *accepted && !kept {
            say(format!(
                "{} was told that {said:?} of epoch {epoch} is accepted; {} saw {end:?}",
                at(record),
                at(last)
            ));
        }
    }
}

/// Whoever reads after an accepted cancel sees that it was asked for.
fn an_accepted_cancel_stays(life: &Life<'_>, _: &Facts<'_>, say: &mut dyn FnMut(String)) {
    let accepted = life.cancels.iter().filter(|(_, accepted)| *accepted);
    let Some((cancel, _)) = accepted.min_by_key(|(record, _)| record.ended) else { return };
    let lost = life.reads.iter().find(|(record, seen)| {
        record.began >= cancel.ended && !seen.done && !seen.cancel_requested
    });
    if let Some((read, seen)) = lost {
        say(format!("accepted of {}, and {} saw {seen:?}", at(cancel), at(read)));
    }
}

/// Every accepted cancel is seen to end within its bound.
fn a_cancel_ends_in_time(life: &Life<'_>, facts: &Facts<'_>, say: &mut dyn FnMut(String)) {
    let accepted = life.cancels.iter().filter(|(_, accepted)| *accepted);
    let Some((cancel, _)) = accepted.min_by_key(|(record, _)| record.ended) else { return };
    let until = facts.until(cancel.ended, facts.bounds.cancel);
    let done =
        life.reads.iter().filter(|(_, seen)| seen.done).map(|(record, _)| record.ended).min();
    match done {
        Some(done) if done <= until => {}
        Some(done) => say(format!(
            "accepted of {}, first seen done {:.3} s after its bound",
            at(cancel),
            (done - until) as f64 / 1e6
        )),
        None => say(format!("accepted of {}, never seen done", at(cancel))),
    }
}

/// Once a cancel was accepted nobody is given the main work any more.
fn nothing_starts_after_a_cancel(life: &Life<'_>, _: &Facts<'_>, say: &mut dyn FnMut(String)) {
    let accepted = life.cancels.iter().filter(|(_, accepted)| *accepted);
    let Some((cancel, _)) = accepted.min_by_key(|(record, _)| record.ended) else { return };
    let first_answer = first_answers(life);
    for (claim, id, given) in &life.claims {
        // A repeated claim is answered with what was taken for the first one.
        let began = first_answer.get(&(*id, given.epoch)).copied().unwrap_or(claim.began);
        if !given.cleanup && began >= cancel.ended {
            say(format!(
                "accepted of {}, and {} was given epoch {}",
                at(cancel),
                at(claim),
                given.epoch
            ));
        }
    }
}

/// When each claim was first asked for, as far as its answers show.
fn first_answers<'a>(life: &'a Life<'_>) -> BTreeMap<(&'a str, u64), u64> {
    let mut first = BTreeMap::new();
    for (claim, id, given) in &life.claims {
        let began = first.entry((*id, given.epoch)).or_insert(claim.began);
        *began = claim.began.min(*began);
    }
    first
}

/// No two claims are given the same epoch.
fn an_epoch_is_given_once(life: &Life<'_>, _: &Facts<'_>, say: &mut dyn FnMut(String)) {
    let mut given_to: BTreeMap<u64, (&str, &Record)> = BTreeMap::new();
    for (claim, id, given) in &life.claims {
        let (first_id, first) = given_to.entry(given.epoch).or_insert((id, claim));
        if first_id != id {
            say(format!("epoch {} was given to {} and to {}", given.epoch, at(first), at(claim)));
        }
    }
}

/// A claim that began after another was answered gets the higher epoch.
fn epochs_rise(life: &Life<'_>, _: &Facts<'_>, say: &mut dyn FnMut(String)) {
    for (earlier, first_id, first) in &life.claims {
        let sank = life.claims.iter().find(|(later, id, second)| {
            id != first_id && later.began >= earlier.ended && second.epoch < first.epoch
        });
        if let Some((later, _, second)) = sank {
            say(format!(
                "{} was given epoch {}, later {} epoch {}",
                at(earlier),
                first.epoch,
                at(later),
                second.epoch
            ));
        }
    }
}

/// Two epochs are never at work at once.
fn one_epoch_works_at_a_time(life: &Life<'_>, _: &Facts<'_>, say: &mut dyn FnMut(String)) {
    for (number, (one, epoch)) in life.ran.iter().enumerate() {
        for (other, other_epoch) in &life.ran[number + 1..] {
            if epoch != other_epoch && one.began < other.ended && other.began < one.ended {
                say(format!(
                    "epoch {epoch} by {} and epoch {other_epoch} by {}",
                    at(one),
                    at(other)
                ));
            }
        }
    }
}

/// A report of an epoch that was overtaken changes nothing.
fn a_stale_report_is_refused(life: &Life<'_>, _: &Facts<'_>, say: &mut dyn FnMut(String)) {
    for (record, epoch, said, accepted) in &life.reports {
        let overtaken = life
            .claims
            .iter()
            .find(|(claim, _, given)| given.epoch > *epoch && claim.ended <= record.began);
        if let Some((claim, _, given)) = overtaken.filter(|_| *accepted) {
            say(format!(
                "{:?} of epoch {epoch} by {} was accepted after {} had epoch {}",
                said,
                at(record),
                at(claim),
                given.epoch
            ));
        }
    }
}

/// Code 1 means that a client had asked.
fn cancelled_only_if_asked(life: &Life<'_>, _: &Facts<'_>, say: &mut dyn FnMut(String)) {
    let asked = life.cancels.iter().map(|(record, _)| record.began).min();
    for (record, seen) in life.reads.iter().filter(|(_, seen)| seen.code == Some(CANCELLED)) {
        if asked.is_none_or(|asked| asked > record.ended) {
            say(format!("{} saw {seen:?}, and nobody had asked", at(record)));
        }
    }
}

/// A start and its repeats are one operation.
fn one_key_one_operation(facts: &Facts<'_>, say: &mut dyn FnMut(&str, String)) {
    for (key, starts) in &facts.keys {
        let names: BTreeSet<_> = starts.iter().filter_map(|(_, name)| *name).collect();
        if names.len() > 1 {
            let who = starts.iter().map(|(record, _)| at(record)).collect::<Vec<_>>().join(", ");
            say(key, format!("answered with {names:?} to {who}"));
        }
    }
}

/// Whoever cannot be served is told to come again, and nothing else.
fn refusals_are_honest(facts: &Facts<'_>, say: &mut dyn FnMut(&str, String)) {
    for record in &facts.rest {
        if let What::Refused { call, name, code, message } = &record.what
            && !NOT_NOW.contains(code)
        {
            say(name, format!("{call} of {} was refused with {code}: {message}", at(record)));
        }
    }
}

/// Every call is answered or broken off.
fn no_call_hangs(facts: &Facts<'_>, say: &mut dyn FnMut(&str, String)) {
    for record in &facts.rest {
        if let What::Hung { call, name } = &record.what {
            say(name, format!("{call} of {} got no answer", at(record)));
        }
    }
}
