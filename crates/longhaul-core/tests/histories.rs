//! Seeded random histories of one operation, held after every step to the invariants that one record can
//! show: I1 to I7, I9 to I11, and the arrows of the diagram.
//!
//! A failure prints the seed and the shortest history found that still fails. `SEED=n` plays one seed only.

mod common;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use common::*;
use longhaul_core::{
    Applied, Cause, Changes, Code, Command, Desired, Effects, Epoch, EventKind, Finish, Lease,
    Operation, Outcome, Parallel, Policy, Progress, Refusal, RequestId, Retry, Start, State,
    Timestamp, apply, start,
};

const HISTORIES: u64 = 5_000;
const STEPS: usize = 60;

/// Every arrow there is: a state, a command, and the states that it can lead to when it is accepted.
const ARROWS: &str = "
    QUEUED      Claim    RUNNING CANCELLING
    QUEUED      Renew    RUNNING CANCELLING
    QUEUED      PassGate RUNNING CANCELLING
    QUEUED      Finish   QUEUED DONE
    QUEUED      Release  QUEUED
    QUEUED      Cancel   QUEUED DONE
    QUEUED      Follow   QUEUED DONE
    QUEUED      Detach   QUEUED
    QUEUED      Delete   QUEUED
    QUEUED      Tick     QUEUED CLEANING_UP DONE
    RUNNING     Renew    RUNNING
    RUNNING     PassGate RUNNING
    RUNNING     Finish   QUEUED DONE
    RUNNING     Release  QUEUED
    RUNNING     Cancel   CANCELLING
    RUNNING     Follow   CANCELLING
    RUNNING     Detach   RUNNING
    RUNNING     Delete   RUNNING
    RUNNING     Recover  RUNNING
    RUNNING     Tick     QUEUED CANCELLING DONE
    CANCELLING  Renew    CANCELLING
    CANCELLING  PassGate CANCELLING
    CANCELLING  Finish   DONE
    CANCELLING  Release  QUEUED CLEANING_UP DONE
    CANCELLING  Cancel   CANCELLING
    CANCELLING  Detach   CANCELLING
    CANCELLING  Delete   CANCELLING
    CANCELLING  Recover  CANCELLING
    CANCELLING  Tick     QUEUED CLEANING_UP DONE
    CLEANING_UP Claim    CLEANING_UP
    CLEANING_UP Renew    CLEANING_UP
    CLEANING_UP PassGate CLEANING_UP
    CLEANING_UP Finish   CLEANING_UP DONE
    CLEANING_UP Release  CLEANING_UP
    CLEANING_UP Cancel   CLEANING_UP
    CLEANING_UP Detach   CLEANING_UP
    CLEANING_UP Delete   CLEANING_UP
    CLEANING_UP Recover  CLEANING_UP
    CLEANING_UP Tick     CLEANING_UP DONE
    DONE        Finish   DONE
    DONE        Cancel   DONE
    DONE        Detach   DONE
    DONE        Delete   DONE
    DONE        Tick     DONE
";

type Arrow = (&'static str, &'static str, &'static str);

#[test]
fn random_histories_keep_every_invariant_and_take_every_arrow() {
    let only: Option<u64> = std::env::var("SEED").ok().map(|seed| seed.parse().expect("a number"));
    let seeds = only.map_or(0..HISTORIES, |seed| seed..seed + 1);
    let mut taken = BTreeSet::new();
    for seed in seeds {
        let history = History::invent(seed);
        match history.play() {
            Ok(arrows) => taken.extend(arrows),
            Err(_) => panic!("seed {seed}:\n{}", history.shrunk().told()),
        }
    }
    if only.is_some() {
        return;
    }
    let taken: BTreeSet<_> =
        taken.iter().map(|(from, command, to)| format!("{from} {command} {to}")).collect();
    let drawn: BTreeSet<_> = ARROWS
        .lines()
        .filter_map(|line| {
            line.split_whitespace().collect::<Vec<_>>().split_first_chunk::<2>().map(
                |([from, command], to)| {
                    to.iter().map(|to| format!("{from} {command} {to}")).collect::<Vec<_>>()
                },
            )
        })
        .flatten()
        .collect();
    let undrawn: Vec<_> = taken.difference(&drawn).collect();
    let untaken: Vec<_> = drawn.difference(&taken).collect();
    assert!(undrawn.is_empty(), "arrows that nobody drew: {undrawn:?}");
    assert!(untaken.is_empty(), "arrows that no history took: {untaken:?}");
}

/// A small generator of our own (splitmix64), so that a seed means the same for ever.
struct Random(u64);

impl Random {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        let index = self.below(from.len() as u64) as usize;
        from[index].clone()
    }

    fn seconds(&mut self, from: &[u64]) -> Duration {
        Duration::from_secs(self.pick(from))
    }
}

#[derive(Clone)]
struct History {
    facts: Start,
    steps: Vec<(Timestamp, Command)>,
}

impl History {
    fn invent(seed: u64) -> Self {
        let mut random = Random(seed);
        let facts = invent_facts(&mut random);
        // Each history prefers some commands, so that rare mixtures come up too.
        let weights: Vec<u64> = (0..11).map(|_| random.pick(&[0, 1, 3, 9])).collect();
        let mut steps = Vec::new();
        let mut operation = begun(&facts);
        let mut now = BEGIN;
        for _ in 0..STEPS {
            now = invent_moment(&mut random, &operation, now);
            let command = invent_command(&mut random, &weights, &operation);
            steps.push((now, command.clone()));
            if let Ok(applied) = apply(&operation, command, now) {
                operation = applied.operation;
                if applied.forget {
                    break;
                }
            }
        }
        Self { facts, steps }
    }

    /// Every arrow taken, or what went wrong at which step.
    fn play(&self) -> Result<BTreeSet<Arrow>, (usize, String)> {
        let mut arrows = BTreeSet::new();
        let mut world = World::new(begun(&self.facts));
        for (index, (now, command)) in self.steps.iter().enumerate() {
            let from = world.operation.state.name();
            let result = world.step(*now, command).map_err(|wrong| (index, wrong))?;
            if result.is_ok() {
                arrows.insert((from, command.name(), world.operation.state.name()));
            }
            if result.is_ok_and(|applied| applied.forget) {
                break;
            }
        }
        Ok(arrows)
    }

    /// Leaves out whatever is not needed to fail.
    fn shrunk(&self) -> Self {
        let mut best = self.clone();
        if let Err((index, _)) = best.play() {
            best.steps.truncate(index + 1);
        }
        let mut index = 0;
        while index < best.steps.len() {
            let mut shorter = best.clone();
            shorter.steps.remove(index);
            if shorter.play().is_err() {
                best = shorter;
            } else {
                index += 1;
            }
        }
        best
    }

    fn told(&self) -> String {
        let mut text = format!("{:#?}\n", self.facts.policy);
        let deadline = self.facts.deadline.map(|at| distance(BEGIN, at));
        writeln!(text, "deadline: {deadline:?}").expect("a string can be written");
        let mut operation = begun(&self.facts);
        for (now, command) in &self.steps {
            let result = apply(&operation, command.clone(), *now);
            let answer = match &result {
                Ok(applied) => {
                    format!("{} e{}", place(&applied.operation), applied.operation.epoch)
                }
                Err(refusal) => format!("refused: {refusal}"),
            };
            writeln!(text, "{:>12}us {command:?}\n    -> {answer}", now.since(BEGIN).as_micros())
                .expect("a string can be written");
            if let Ok(applied) = result {
                operation = applied.operation;
            }
        }
        match self.play() {
            Ok(_) => text + "(does not fail when played again)",
            Err((step, wrong)) => text + &format!("step {}: {wrong}\n{operation:#?}", step + 1),
        }
    }
}

fn begun(facts: &Start) -> Operation {
    start(None, facts.clone(), BEGIN).expect("nothing is in the way of a start").operation
}

fn invent_facts(random: &mut Random) -> Start {
    let cleanup_budget = random.pick(&[None, None, Some(0), Some(45), Some(300), Some(300)]);
    let policy = Policy {
        cancellable: random.percent(92),
        strict_cancel_when_done: random.percent(10),
        strict_delete_when_running: random.percent(10),
        discard_success_after_cancel: random.percent(20),
        cancel_timeout: random.seconds(&[0, 10, 60, 60, 60]),
        cleanup_budget: cleanup_budget.map(Duration::from_secs),
        retention: random.seconds(&[0, 100, 86_400]),
        parallel: Parallel::Allow,
        retry: Retry {
            attempts_max: random.pick(&[1, 2, 3, 5]),
            backoff_first: random.seconds(&[0, 1, 8]),
            backoff_max: random.seconds(&[0, 20, 60]),
        },
    };
    let deadline = random.pick(&[None, None, Some(0), Some(20), Some(100), Some(3600)]);
    let until = random.pick(&[None, None, Some(0), Some(100), Some(7200)]);
    let start_by = random.pick(&[None, None, Some(0), Some(20), Some(50)]);
    let after = |seconds| BEGIN + Duration::from_secs(seconds);
    Start {
        deadline: deadline.map(after),
        start_by: start_by.map(after),
        request_id: until.map(|until| RequestId { value: "r".into(), until: after(until) }),
        ..facts(policy)
    }
}

/// The next moment, never before `now`; often exactly when something becomes possible or due.
fn invent_moment(random: &mut Random, operation: &Operation, now: Timestamp) -> Timestamp {
    let due = operation.due_at().unwrap_or(now);
    let moment = match random.below(100) {
        0..40 => now,
        40..70 => now + Duration::from_millis(random.below(4000)),
        70..80 => due,
        80..86 => due - Duration::from_micros(1),
        86..95 => operation.claimable_from().unwrap_or(now),
        95..99 => now + Duration::from_secs(random.below(200)),
        _ => now + Duration::from_secs(2 * 86_400),
    };
    // Rows to be forgotten are far away; most histories should not jump there.
    let far = moment.since(now) > Duration::from_secs(4000);
    if far && random.percent(70) { now } else { moment.max(now) }
}

fn invent_command(random: &mut Random, weights: &[u64], operation: &Operation) -> Command {
    let mut ticket = random.below(weights.iter().sum::<u64>().max(1));
    let kind = weights.iter().position(|weight| {
        let hit = ticket < *weight;
        ticket = ticket.saturating_sub(*weight);
        hit
    });
    let epoch = match random.below(100) {
        0..80 => operation.epoch,
        80..92 => operation.epoch.saturating_sub(1),
        _ => random.below(operation.epoch + 2),
    };
    let lease = random.seconds(&[0, 1, 30, 30, 30]);
    let changes = invent_changes(random);
    let jitter = random.draw() as u8;
    match kind {
        Some(0) => Command::Claim {
            worker: random.pick(&["w1", "w2"]).into(),
            claim_id: "".into(),
            holder: "".into(),
            lease,
        },
        Some(1) => Command::Renew { epoch, lease, changes },
        Some(2) => Command::PassGate { epoch, lease, changes },
        Some(3) => Command::Finish { epoch, finish: invent_finish(random), changes, jitter },
        Some(4) => Command::Release { epoch, changes },
        Some(5) => Command::Cancel {
            cause: random.pick(&[Cause::Client, Cause::Client, Cause::Deadline, Cause::Superseded]),
            actor: random.pick(&["ada", "bob"]).into(),
            reason: random.pick(&["", "too slow"]).into(),
        },
        Some(6) => Command::Delete { actor: "ada".into() },
        Some(7) => Command::Recover { lease },
        Some(8) => follow(random.pick(&[Cause::Client, Cause::Deadline, Cause::Superseded])),
        Some(9) => detach(),
        Some(_) | None => Command::Tick { jitter },
    }
}

fn invent_changes(random: &mut Random) -> Changes {
    if random.percent(60) {
        return Changes::default();
    }
    Changes {
        metadata: random.percent(40).then(|| payload("m", &random.draw().to_le_bytes())),
        progress: random
            .percent(40)
            .then(|| Progress { percent: Some(random.below(101) as f32), ..Progress::default() }),
        checkpoint: random.percent(40).then(|| random.draw().to_le_bytes().into()),
        external_ref: random.percent(20).then(|| "external".into()),
        acknowledged: random.percent(50),
    }
}

fn invent_finish(random: &mut Random) -> Finish {
    let effects = random.pick(&[
        Effects::NotStarted,
        Effects::None,
        Effects::Undone,
        Effects::Partial,
        Effects::Unknown,
    ]);
    match random.below(4) {
        0 => Finish::Succeeded(payload("response", random.pick(&["a", "b"]).as_bytes())),
        1 => stopped(effects),
        _ => Finish::Failed {
            status: status(random.pick(&Code::ALL)),
            retryable: random.percent(60),
            effects: random.percent(50).then_some(effects),
        },
    }
}

/// Fails the history, with a reason, unless the condition holds.
macro_rules! hold {
    ($condition:expr, $($reason:tt)+) => {
        if !$condition {
            return Err(format!($($reason)+));
        }
    };
}

type Verdict = Result<(), String>;

/// The operation, its twin that nobody ever deletes, and what is remembered to judge them.
struct World {
    operation: Operation,
    twin: Operation,
    ends: usize,
    client_asked: bool,
}

impl World {
    fn new(operation: Operation) -> Self {
        Self { twin: operation.clone(), operation, ends: 0, client_asked: false }
    }

    fn step(
        &mut self,
        now: Timestamp,
        command: &Command,
    ) -> Result<Result<Applied, Refusal>, String> {
        let before = self.operation.clone();
        let result = apply(&before, command.clone(), now);
        hold!(result == apply(&before, command.clone(), now), "I7: the same command, two results");
        reports_count_only_from_the_holder(&before, command, &result)?;
        moments_are_kept(&before, command, now, &result)?;
        if let Ok(applied) = &result {
            let after = &applied.operation;
            self.ends += applied.events.iter().filter(|event| is_end(&event.kind)).count();
            let by_client = matches!(
                command,
                Command::Cancel { cause: Cause::Client, .. }
                    | Command::Follow { cause: Cause::Client, .. }
            );
            self.client_asked |= by_client && before.outcome().is_none();
            revision_counts_changes(&before, command, applied)?;
            reports_are_taken(&before, command, after)?;
            facts_stay(&before, after)?;
            done_is_final(&before, applied)?;
            cancel_stays_and_holds(&before, command, applied)?;
            gate_is_honest(&before, command, applied)?;
            epochs_and_attempts_count(&before, command, applied)?;
            ends_have_the_right_code(&before, command, after)?;
            self.operation = after.clone();
        }
        let operation = &self.operation;
        hold!(
            self.ends == usize::from(operation.outcome().is_some()),
            "I2: {} ends, state {}",
            self.ends,
            operation.state.name()
        );
        hold!(
            operation.cancel_requested() == self.client_asked,
            "requested_cancellation is {}",
            operation.cancel_requested()
        );
        shape_is_possible(operation)?;
        workers_hear_what_holds(operation, now)?;
        silence_leads_to_an_end(operation, now)?;
        self.twin_goes_the_same_way(&before, now, command)?;
        Ok(result)
    }

    /// I9: delete never changes the run.
    fn twin_goes_the_same_way(
        &mut self,
        before: &Operation,
        now: Timestamp,
        command: &Command,
    ) -> Verdict {
        let by_client = matches!(command, Command::Cancel { cause: Cause::Client, .. });
        let unheard = before.deleted.is_some() && by_client;
        let skipped = unheard || matches!(command, Command::Delete { .. });
        if !skipped && let Ok(applied) = apply(&self.twin, command.clone(), now) {
            self.twin = applied.operation;
        }
        let run = |operation: &Operation| {
            let mut run = operation.clone();
            (run.deleted, run.revision, run.update_time) = (None, 0, BEGIN);
            if let State::Done { outcome: Outcome::Response(response), .. } = &mut run.state {
                response.value = [].into();
            }
            run
        };
        hold!(
            run(&self.operation) == run(&self.twin),
            "I9: a delete changed the run; without it: {:#?}",
            self.twin
        );
        Ok(())
    }
}

fn is_end(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Finished { .. })
}

fn reported_epoch(command: &Command) -> Option<Epoch> {
    match command {
        Command::Renew { epoch, .. }
        | Command::PassGate { epoch, .. }
        | Command::Finish { epoch, .. }
        | Command::Release { epoch, .. } => Some(*epoch),
        Command::Claim { .. }
        | Command::Cancel { .. }
        | Command::Follow { .. }
        | Command::Detach { .. }
        | Command::Delete { .. }
        | Command::Recover { .. }
        | Command::Tick { .. } => None,
    }
}

/// Whose reports still count.
fn holder(operation: &Operation) -> Option<&Lease> {
    match &operation.state {
        State::Queued { lost, .. } => lost.as_ref(),
        State::Running { lease } | State::Cancelling { lease } => Some(lease),
        State::CleaningUp { lease, lost, .. } => lease.as_ref().or(lost.as_ref()),
        State::Done { .. } => None,
    }
}

fn reports_count_only_from_the_holder(
    before: &Operation,
    command: &Command,
    result: &Result<Applied, Refusal>,
) -> Verdict {
    let Some(epoch) = reported_epoch(command) else { return Ok(()) };
    let holds = epoch == before.epoch && holder(before).is_some();
    match result {
        Ok(applied) if !holds => {
            let same = applied.operation == *before && applied.events.is_empty();
            let repeated_end = matches!(command, Command::Finish { .. })
                && before.outcome().is_some()
                && epoch == before.epoch
                && epoch > 0;
            hold!(same && repeated_end, "I3: a report of epoch {epoch} counted");
        }
        Ok(_) => {}
        Err(Refusal::LeaseLost) => hold!(!holds, "the holder was told that it lost its lease"),
        Err(refusal) => {
            let known = [Refusal::GateClosed, Refusal::CancelNotRequested, Refusal::InvalidOutcome];
            hold!(known.contains(refusal), "a report was refused with {refusal}");
        }
    }
    Ok(())
}

fn moments_are_kept(
    before: &Operation,
    command: &Command,
    now: Timestamp,
    result: &Result<Applied, Refusal>,
) -> Verdict {
    let due = before.due_at().is_some_and(|due| due <= now);
    let claimable = before.claimable_from().is_some_and(|from| from <= now);
    let accepted = result.is_ok();
    match command {
        Command::Tick { .. } => hold!(accepted == due, "due: {due}, but tick accepted: {accepted}"),
        Command::Claim { .. } => hold!(
            accepted == (claimable && !due),
            "claimable: {claimable}, due: {due}, but claim accepted: {accepted}"
        ),
        Command::Renew { .. }
        | Command::PassGate { .. }
        | Command::Finish { .. }
        | Command::Release { .. }
        | Command::Cancel { .. }
        | Command::Follow { .. }
        | Command::Detach { .. }
        | Command::Delete { .. }
        | Command::Recover { .. } => {}
    }
    if let (Ok(applied), Command::Renew { lease, .. } | Command::PassGate { lease, .. }) =
        (result, command)
    {
        let until = applied.operation.lease().map(|lease| lease.expires_at);
        hold!(until == Some(now + *lease), "a report did not renew the lease: {until:?}");
    }
    if let (Ok(applied), Command::Recover { lease }) = (result, command) {
        let (old, new) = (before.lease(), applied.operation.lease());
        let longer = old.is_some_and(|old| old.expires_at < now + *lease);
        let until = new.map(|new| new.expires_at);
        hold!(longer && until == Some(now + *lease), "recovery set the lease to {until:?}");
    }
    if let (Ok(applied), Command::Release { .. }) = (result, command) {
        hold!(holder(&applied.operation).is_none(), "released, yet held");
    }
    let in_time = result.iter().flat_map(|applied| &applied.events).all(|event| event.at == now);
    hold!(in_time, "an event carries another moment");
    Ok(())
}

fn revision_counts_changes(before: &Operation, command: &Command, applied: &Applied) -> Verdict {
    let after = &applied.operation;
    let grown = after.revision - before.revision;
    hold!(grown <= 1, "the revision grew by {grown}");
    if grown == 0 {
        hold!(after == before, "changed without a new revision");
        let audit = |kind: &EventKind| matches!(kind, EventKind::CancelRepeated { .. });
        hold!(applied.events.iter().all(|event| audit(&event.kind)), "nothing changed, yet events");
        hold!(!applied.forget, "forgotten without a new revision");
    }
    if grown == 1 {
        let same = Operation {
            revision: after.revision,
            update_time: after.update_time,
            ..before.clone()
        };
        // A lease renewed twice at one moment is the same lease.
        let renewal = matches!(command, Command::Renew { .. } | Command::PassGate { .. });
        // A repeated cancel is on record, and nothing else.
        let repeated = |kind: &EventKind| matches!(kind, EventKind::CancelRepeated { .. });
        let on_record = applied.events.iter().any(|event| repeated(&event.kind));
        hold!(
            same != *after || renewal || on_record || applied.forget,
            "a new revision without a change"
        );
    }
    hold!(after.update_time >= before.update_time, "update_time went back");
    Ok(())
}

/// Whatever an accepted report says is in the row, unless the row was done before.
fn reports_are_taken(before: &Operation, command: &Command, after: &Operation) -> Verdict {
    let changes = match command {
        Command::Renew { changes, .. }
        | Command::PassGate { changes, .. }
        | Command::Finish { changes, .. }
        | Command::Release { changes, .. } => changes,
        Command::Claim { .. }
        | Command::Cancel { .. }
        | Command::Follow { .. }
        | Command::Detach { .. }
        | Command::Delete { .. }
        | Command::Recover { .. }
        | Command::Tick { .. } => &Changes::default(),
    };
    if before.outcome().is_some() {
        return Ok(());
    }
    let metadata = changes.metadata.as_ref().unwrap_or(&before.metadata);
    hold!(after.metadata == *metadata, "metadata: {:?}", after.metadata);
    let progress = changes.progress.as_ref().or(before.progress.as_ref());
    hold!(after.progress.as_ref() == progress, "progress: {:?}", after.progress);
    let checkpoint = changes.checkpoint.as_ref().or(before.checkpoint.as_ref());
    hold!(after.checkpoint.as_ref() == checkpoint, "checkpoint: {:?}", after.checkpoint);
    let external = changes.external_ref.as_ref().or(before.external_ref.as_ref());
    hold!(after.external_ref.as_ref() == external, "external_ref: {:?}", after.external_ref);
    let heard = |operation: &Operation| {
        operation.cancel.as_ref().is_some_and(|cancel| cancel.acknowledged_at.is_some())
    };
    let acknowledged = changes.acknowledged && before.cancel.is_some();
    hold!(heard(after) == (heard(before) || acknowledged), "heard: {}", heard(after));
    Ok(())
}

/// What a start sets stays; what is set once stays.
fn facts_stay(before: &Operation, after: &Operation) -> Verdict {
    let living = Operation {
        metadata: after.metadata.clone(),
        state: after.state.clone(),
        epoch: after.epoch,
        attempt: after.attempt,
        cancel: after.cancel.clone(),
        gate_passed: before.gate_passed.or(after.gate_passed),
        effects: after.effects,
        progress: after.progress.clone(),
        checkpoint: after.checkpoint.clone(),
        external_ref: after.external_ref.clone(),
        holder: after.holder.clone(),
        parent_operation: before.parent_operation.clone().and(after.parent_operation.clone()),
        start_time: before.start_time.or(after.start_time),
        update_time: after.update_time,
        revision: after.revision,
        deleted: before.deleted.or(after.deleted),
        ..before.clone()
    };
    hold!(living == *after, "a fact of the start, or one that is set once, changed");
    hold!(after.start_time.is_some() == (after.epoch > 0), "started: {:?}", after.start_time);
    Ok(())
}

fn done_is_final(before: &Operation, applied: &Applied) -> Verdict {
    if before.outcome().is_some() {
        let after = &applied.operation;
        let same = Operation {
            deleted: after.deleted,
            revision: after.revision,
            update_time: after.update_time,
            ..before.clone()
        };
        hold!(same == *after, "I1: a done operation changed");
    }
    hold!(!applied.forget || applied.operation.outcome().is_some(), "forgotten before it was done");
    Ok(())
}

fn cancel_stays_and_holds(before: &Operation, command: &Command, applied: &Applied) -> Verdict {
    let after = &applied.operation;
    match (&before.cancel, &after.cancel) {
        (Some(first), Some(later)) => {
            hold!(later.client_asked || !first.client_asked, "a client's wish was forgotten");
            let first = longhaul_core::Cancel {
                client_asked: later.client_asked,
                delivered_at: first.delivered_at.or(later.delivered_at),
                acknowledged_at: first.acknowledged_at.or(later.acknowledged_at),
                ..first.clone()
            };
            hold!(first == *later, "the first cancel's cause, actor, time or deadline changed");
        }
        (Some(_), None) => return Err("a cancel vanished".into()),
        (None, Some(_)) => {
            let asked = matches!(
                command,
                Command::Cancel { .. } | Command::Follow { .. } | Command::Tick { .. }
            );
            hold!(asked, "a cancel came from {}", command.name());
        }
        (None, None) => {}
    }
    let main_claim = |kind: &EventKind| matches!(kind, EventKind::Claimed { cleanup: false, .. });
    let claimed = applied.events.iter().any(|event| main_claim(&event.kind));
    hold!(
        !claimed || before.cancel.is_none() || before.gate_passed.is_some(),
        "I4: a main attempt started after a committed cancel"
    );
    Ok(())
}

fn gate_is_honest(before: &Operation, command: &Command, applied: &Applied) -> Verdict {
    let after = &applied.operation;
    let granted = applied.events.iter().any(|event| event.kind == EventKind::GatePassed);
    hold!(
        granted == (before.gate_passed.is_none() && after.gate_passed.is_some()),
        "the gate's event and field differ"
    );
    hold!(!granted || after.cancel.is_none(), "I10: the gate was granted after a cancel");
    let asked = matches!(command, Command::PassGate { .. });
    hold!(granted <= asked, "the gate was granted though nobody asked");
    let main_work = matches!(after.state, State::Running { .. } | State::Cancelling { .. });
    hold!(!asked || !main_work || after.gate_passed.is_some(), "the gate's yes was not recorded");
    if after.gate_passed.is_some() && matches!(after.outcome(), Some(Outcome::Error(_))) {
        let nothing = matches!(after.effects, Effects::None | Effects::NotStarted);
        hold!(!nothing, "I10: the gate was granted, yet it says {:?}", after.effects);
    }
    hold!(
        (after.effects == Effects::NotStarted) == (after.epoch == 0),
        "effects {:?} under epoch {}",
        after.effects,
        after.epoch
    );
    Ok(())
}

fn epochs_and_attempts_count(before: &Operation, command: &Command, applied: &Applied) -> Verdict {
    let after = &applied.operation;
    let has = |test: fn(&EventKind) -> bool| applied.events.iter().any(|event| test(&event.kind));
    let claimed = has(|kind| matches!(kind, EventKind::Claimed { .. }));
    let given_up = has(|kind| matches!(kind, EventKind::CleanupStarted));
    let unreported = has(is_end) && reported_finish(command).is_none() && before.epoch > 0;
    let moved = claimed || given_up || unreported;
    hold!(
        after.epoch == before.epoch + u64::from(moved),
        "epoch {} -> {}",
        before.epoch,
        after.epoch
    );

    let main_claim = has(|kind| matches!(kind, EventKind::Claimed { cleanup: false, .. }));
    let cleaning = matches!(before.state, State::CleaningUp { .. });
    let released = has(|kind| matches!(kind, EventKind::Released { .. })) && !cleaning;
    let attempt = before.attempt + u32::from(main_claim) - u32::from(released);
    hold!(after.attempt == attempt, "attempt {} -> {}", before.attempt, after.attempt);
    hold!(
        after.attempt <= after.policy.retry.attempts_max,
        "attempt {} of {:?}",
        after.attempt,
        after.policy.retry
    );
    Ok(())
}

fn reported_finish(command: &Command) -> Option<&Finish> {
    match command {
        Command::Finish { finish, .. } => Some(finish),
        Command::Claim { .. }
        | Command::Renew { .. }
        | Command::PassGate { .. }
        | Command::Release { .. }
        | Command::Cancel { .. }
        | Command::Follow { .. }
        | Command::Detach { .. }
        | Command::Delete { .. }
        | Command::Recover { .. }
        | Command::Tick { .. } => None,
    }
}

/// I6, and the diagram's arrows into done.
fn ends_have_the_right_code(before: &Operation, command: &Command, after: &Operation) -> Verdict {
    let Some(outcome) = after.outcome() else { return Ok(()) };
    let cause = after.cancel.as_ref().map(|cancel| cancel.cause);
    if let Outcome::Error(status) = outcome {
        hold!(status.code != Code::Ok, "I2: an error without a code");
        hold!(!status.message.is_empty(), "an error without a word");
        let by_client = cause == Some(Cause::Client) && after.cancel_requested();
        hold!(status.code != Code::Cancelled || by_client, "I6: code 1, but no client asked first");
    }
    if before.outcome().is_some() {
        return Ok(());
    }
    let cleaning = matches!(before.state, State::CleaningUp { .. });
    let stopped = cause.map(Cause::code);
    let expected = match reported_finish(command) {
        Some(Finish::Succeeded(_)) if cleaning => stopped,
        Some(Finish::Succeeded(_)) => stopped.filter(|_| after.policy.discard_success_after_cancel),
        Some(Finish::Cancelled { .. }) => {
            hold!(stopped.is_some(), "I6: stopped, though nobody asked");
            stopped
        }
        Some(Finish::Failed { status, retryable, .. }) => {
            let as_stopped = cleaning || *retryable || status.code == Code::Cancelled;
            stopped.filter(|_| as_stopped).or(Some(status.code))
        }
        // No worker said how it ended.
        None => stopped.or(Some(Code::Unavailable)),
    };
    let code = match outcome {
        Outcome::Response(_) => None,
        Outcome::Error(status) => Some(status.code),
    };
    hold!(code == expected, "ended with {code:?} instead of {expected:?}");
    Ok(())
}

fn shape_is_possible(operation: &Operation) -> Verdict {
    let stopping = operation.cancel.is_some();
    let possible = match &operation.state {
        State::Queued { lost, .. } => {
            (!stopping || operation.gate_passed.is_some())
                && (lost.is_none() || operation.epoch > 0)
        }
        State::Running { .. } => !stopping,
        State::Cancelling { .. } => stopping,
        State::CleaningUp { lease, lost, .. } => {
            stopping
                && operation.policy.cleanup_budget.is_some()
                && (lease.is_none() || lost.is_none())
        }
        State::Done { at, .. } => {
            let kept_until = operation.purge_at();
            let window_end = operation.request_id.as_ref().map(|id| id.until);
            kept_until.is_some_and(|until| until >= *at) && kept_until >= window_end
        }
    };
    hold!(
        possible,
        "{} cannot be, with cancel {stopping} and gate {:?}",
        operation.state.name(),
        operation.gate_passed
    );
    Ok(())
}

/// I11, and: whoever is told to go on or to cancel can still report, whoever is told to stop cannot.
fn workers_hear_what_holds(operation: &Operation, now: Timestamp) -> Verdict {
    let cleaning = matches!(operation.state, State::CleaningUp { .. });
    for epoch in 0..operation.epoch + 2 {
        let counts = apply(operation, renew(epoch), now).is_ok();
        let desired = operation.desired(epoch);
        let consistent = match &desired {
            Desired::Stop(_) => !counts,
            Desired::Cancel(cancel) => {
                counts && !cleaning && Some(cancel) == operation.cancel.as_ref()
            }
            Desired::Continue => counts && (cleaning || operation.cancel.is_none()),
        };
        hold!(
            consistent,
            "I11: epoch {epoch} is told {desired:?}, and its reports count: {counts}"
        );
    }
    Ok(())
}

/// I5: with no worker left, acting on whatever is due ends every operation that must end, in time.
fn silence_leads_to_an_end(operation: &Operation, now: Timestamp) -> Verdict {
    let (mut silent, mut at) = (operation.clone(), now);
    for _ in 0..10 {
        let Some(due) = silent.due_at().filter(|_| silent.outcome().is_none()) else { break };
        at = at.max(due);
        silent = apply(&silent, tick(), at)
            .map_err(|refusal| format!("I5: something is due, but tick says {refusal}"))?
            .operation;
    }
    if operation.outcome().is_some() {
        return Ok(());
    }
    let budget = operation.policy.cleanup_budget.unwrap_or_default();
    let stop_by = match (&operation.cancel, operation.deadline) {
        (Some(cancel), _) => Some(cancel.deadline.max(now)),
        (None, Some(deadline)) => Some(deadline.max(now) + operation.policy.cancel_timeout),
        (None, None) => None,
    };
    match silent.outcome() {
        Some(_) => {
            let limit = stop_by.map(|by| by + budget);
            hold!(limit.is_none_or(|limit| at <= limit), "I5: done at {at:?}, limit {limit:?}");
            let started = operation.epoch > 0;
            let honest = if started { silent.effects != Effects::NotStarted } else { true };
            let unsaid = operation.cancel.is_none() || silent.effects == Effects::Unknown;
            hold!(honest && unsaid, "I5: silence, yet effects {:?}", silent.effects);
        }
        None => hold!(stop_by.is_none(), "I5: never done: {silent:#?}"),
    }
    Ok(())
}
