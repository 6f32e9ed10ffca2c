//! One operation as a record.

use std::sync::Arc;
use std::time::Duration;

use longhaul_core::{
    Cancel, Grants, Operation, OperationName, Parallel, Payload, Policy, Progress, RequestId,
    Retry, State, Timestamp,
};
use minicbor::bytes::ByteSlice;
use minicbor::{Decode, Encode};

use super::parts::{
    LeasePart, OutcomePart, PayloadPart, cause, cause_number, effects, effects_number, micros,
    moment, name, shared, span_micros, text,
};
use super::{ALONE_VERSION, CHILD_VERSION, CODEC_VERSION, Unreadable, body, encode_as};

/// The number of [`State::Done`].
const DONE: u8 = 4;

/// What a row keeps of an operation beside the record, and the request from its own table.
#[derive(Clone)]
pub(crate) struct Columns {
    pub name: OperationName,
    pub uid: u128,
    pub api: Arc<str>,
    pub method: Arc<str>,
    pub queue: Arc<str>,
    pub parent: Arc<str>,
    pub create_time: Timestamp,
    pub request_id: Option<Arc<str>>,
    pub request: Payload,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Record<'b> {
    #[b(0)]
    target: Option<&'b str>,
    #[b(1)]
    actor: Option<&'b str>,
    #[b(2)]
    metadata: PayloadPart<'b>,
    #[b(3)]
    state: StatePart<'b>,
    #[n(4)]
    epoch: u64,
    #[n(5)]
    attempt: u32,
    #[b(6)]
    cancel: Option<CancelPart<'b>>,
    #[n(7)]
    gate_passed: Option<i64>,
    #[n(8)]
    effects: u8,
    #[b(9)]
    progress: Option<ProgressPart<'b>>,
    #[b(10)]
    checkpoint: Option<&'b ByteSlice>,
    #[b(11)]
    external_ref: Option<&'b str>,
    #[b(12)]
    traceparent: Option<&'b str>,
    #[n(13)]
    deadline: Option<i64>,
    #[n(14)]
    request_id_until: Option<i64>,
    #[n(15)]
    start_time: Option<i64>,
    #[n(16)]
    update_time: i64,
    #[n(17)]
    revision: u64,
    #[n(18)]
    deleted: Option<i64>,
    #[n(19)]
    policy: PolicyPart,
    #[n(20)]
    start_by: Option<i64>,
    #[b(21)]
    parent_operation: Option<&'b str>,
    #[b(22)]
    holder: Option<&'b str>,
    #[b(23)]
    grants: Option<&'b ByteSlice>,
    #[n(24)]
    grants_etag: Option<u64>,
}

/// Every state's fields, side by side; `kind` says which count.
#[derive(Default, Encode, Decode)]
#[cbor(map)]
struct StatePart<'b> {
    #[n(0)]
    kind: u8,
    #[n(1)]
    not_before: Option<i64>,
    #[b(2)]
    lease: Option<LeasePart<'b>>,
    #[b(3)]
    lost: Option<LeasePart<'b>>,
    #[n(4)]
    attempts: Option<u32>,
    #[n(5)]
    budget_end: Option<i64>,
    #[b(6)]
    outcome: Option<OutcomePart<'b>>,
    #[n(7)]
    at: Option<i64>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct CancelPart<'b> {
    #[n(0)]
    cause: u8,
    #[n(1)]
    at: i64,
    #[b(2)]
    actor: Option<&'b str>,
    #[b(3)]
    reason: Option<&'b str>,
    #[n(4)]
    deadline: i64,
    #[n(5)]
    client_asked: bool,
    #[n(6)]
    delivered_at: Option<i64>,
    #[n(7)]
    acknowledged_at: Option<i64>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct ProgressPart<'b> {
    #[n(0)]
    percent: Option<f32>,
    #[n(1)]
    step: u32,
    #[n(2)]
    steps: u32,
    #[b(3)]
    message: Option<&'b str>,
}

#[derive(Encode, Decode)]
struct PolicyPart {
    /// One bit each, from the lowest: cancellable, strict cancel, strict delete, discard success, alone on its
    /// resource, superseding.
    #[n(0)]
    switches: u8,
    #[n(1)]
    cancel_timeout: u64,
    #[n(2)]
    cleanup_budget: Option<u64>,
    #[n(3)]
    retention: u64,
    #[n(4)]
    attempts_max: u32,
    #[n(5)]
    backoff_first: u64,
    #[n(6)]
    backoff_max: u64,
}

/// The record of an operation.
pub(crate) fn encode_operation(operation: &Operation) -> Vec<u8> {
    let version = match (&operation.policy.parallel, &operation.parent_operation) {
        (Parallel::Refuse | Parallel::Supersede, _) => ALONE_VERSION,
        (Parallel::Allow, Some(_)) => CHILD_VERSION,
        (Parallel::Allow, None) => CODEC_VERSION,
    };
    encode_as(
        version,
        &Record {
            target: text(&operation.target),
            actor: text(&operation.actor),
            metadata: (&operation.metadata).into(),
            state: (&operation.state).into(),
            epoch: operation.epoch,
            attempt: operation.attempt,
            cancel: operation.cancel.as_ref().map(Into::into),
            gate_passed: micros(operation.gate_passed),
            effects: effects_number(operation.effects),
            progress: operation.progress.as_ref().map(Into::into),
            checkpoint: operation.checkpoint.as_deref().map(Into::into),
            external_ref: operation.external_ref.as_deref(),
            traceparent: text(&operation.traceparent),
            deadline: micros(operation.deadline),
            request_id_until: operation.request_id.as_ref().map(|id| id.until.as_micros()),
            start_time: micros(operation.start_time),
            update_time: operation.update_time.as_micros(),
            revision: operation.revision,
            deleted: micros(operation.deleted),
            policy: (&operation.policy).into(),
            start_by: micros(operation.start_by),
            parent_operation: operation.parent_operation.as_ref().map(OperationName::as_str),
            holder: text(&operation.holder),
            grants: operation.grants.as_ref().map(|grants| (&*grants.policy).into()),
            grants_etag: operation.grants.as_ref().map(|grants| grants.etag),
        },
    )
}

/// The operation of a record and the columns beside it.
pub(crate) fn decode_operation(bytes: &[u8], columns: Columns) -> Result<Operation, Unreadable> {
    let record: Record<'_> = minicbor::decode(body(bytes)?).map_err(Unreadable::new)?;
    let request_id = match (columns.request_id, record.request_id_until) {
        (Some(value), Some(until)) => {
            Some(RequestId { value, until: Timestamp::from_micros(until) })
        }
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            return Err(Unreadable::new("a request_id has either no value or no end"));
        }
    };
    Ok(Operation {
        name: columns.name,
        uid: columns.uid,
        api: columns.api,
        method: columns.method,
        queue: columns.queue,
        parent: columns.parent,
        target: shared(record.target),
        actor: shared(record.actor),
        request: columns.request,
        metadata: record.metadata.into(),
        state: record.state.try_into()?,
        epoch: record.epoch,
        attempt: record.attempt,
        cancel: record.cancel.map(TryInto::try_into).transpose()?,
        gate_passed: moment(record.gate_passed),
        effects: effects(record.effects)?,
        progress: record.progress.map(Into::into),
        checkpoint: record.checkpoint.map(|bytes| Arc::from(&**bytes)),
        external_ref: record.external_ref.map(Arc::from),
        holder: shared(record.holder),
        grants: record
            .grants
            .zip(record.grants_etag)
            .map(|(policy, etag)| Grants { policy: Arc::from(&**policy), etag }),
        traceparent: shared(record.traceparent),
        parent_operation: name(record.parent_operation)?,
        deadline: moment(record.deadline),
        start_by: moment(record.start_by),
        request_id,
        create_time: columns.create_time,
        start_time: moment(record.start_time),
        update_time: Timestamp::from_micros(record.update_time),
        revision: record.revision,
        deleted: moment(record.deleted),
        policy: record.policy.into(),
    })
}

/// The parent of the operation of a record, if it has one, and whether it would follow it.
pub(crate) fn decode_link(bytes: &[u8]) -> Result<Option<(OperationName, bool)>, Unreadable> {
    if !matches!(bytes.first(), Some(&(CHILD_VERSION | ALONE_VERSION))) {
        return Ok(None);
    }
    let record: Record<'_> = minicbor::decode(body(bytes)?).map_err(Unreadable::new)?;
    let open = record.cancel.is_none() && record.state.kind != DONE;
    let would_follow = open && Policy::from(record.policy).cancellable;
    Ok(name(record.parent_operation)?.map(|parent| (parent, would_follow)))
}

/// The resource that the operation of a record has for itself, as [`Operation::claim_on`] says.
pub(crate) fn decode_target(bytes: &[u8]) -> Result<Option<&str>, Unreadable> {
    if bytes.first() != Some(&ALONE_VERSION) {
        return Ok(None);
    }
    let record: Record<'_> = minicbor::decode(body(bytes)?).map_err(Unreadable::new)?;
    Ok(record.target.filter(|_| record.state.kind != DONE))
}

/// The part of a record that says who holds the operation.
#[derive(Decode)]
#[cbor(map)]
struct Holding<'b> {
    #[b(3)]
    state: HoldingState<'b>,
}

#[derive(Decode)]
#[cbor(map)]
struct HoldingState<'b> {
    #[b(2)]
    lease: Option<LeasePart<'b>>,
}

/// Worker and claim id of the lease in a record, where it has both.
pub(crate) fn decode_claim(bytes: &[u8]) -> Result<Option<(&str, &str)>, Unreadable> {
    let record: Holding<'_> = minicbor::decode(body(bytes)?).map_err(Unreadable::new)?;
    Ok(record.state.lease.and_then(LeasePart::claim))
}

impl<'b> From<&'b State> for StatePart<'b> {
    fn from(state: &'b State) -> Self {
        match state {
            State::Queued { not_before, lost } => Self {
                kind: 0,
                not_before: Some(not_before.as_micros()),
                lost: lost.as_ref().map(Into::into),
                ..Self::default()
            },
            State::Running { lease } => {
                Self { kind: 1, lease: Some(lease.into()), ..Self::default() }
            }
            State::Cancelling { lease } => {
                Self { kind: 2, lease: Some(lease.into()), ..Self::default() }
            }
            State::CleaningUp { not_before, lease, lost, attempts, budget_end } => Self {
                kind: 3,
                not_before: Some(not_before.as_micros()),
                lease: lease.as_ref().map(Into::into),
                lost: lost.as_ref().map(Into::into),
                attempts: Some(*attempts),
                budget_end: Some(budget_end.as_micros()),
                ..Self::default()
            },
            State::Done { outcome, at } => Self {
                kind: DONE,
                outcome: Some(outcome.into()),
                at: Some(at.as_micros()),
                ..Self::default()
            },
        }
    }
}

impl TryFrom<StatePart<'_>> for State {
    type Error = Unreadable;

    fn try_from(part: StatePart<'_>) -> Result<Self, Unreadable> {
        let absent = || Unreadable::new(format!("state {} lacks a field", part.kind));
        let lost = part.lost.map(Into::into);
        match part.kind {
            0 => Ok(Self::Queued { not_before: moment(part.not_before).ok_or_else(absent)?, lost }),
            1 => Ok(Self::Running { lease: part.lease.ok_or_else(absent)?.into() }),
            2 => Ok(Self::Cancelling { lease: part.lease.ok_or_else(absent)?.into() }),
            3 => Ok(Self::CleaningUp {
                not_before: moment(part.not_before).ok_or_else(absent)?,
                lease: part.lease.map(Into::into),
                lost,
                attempts: part.attempts.unwrap_or_default(),
                budget_end: moment(part.budget_end).ok_or_else(absent)?,
            }),
            DONE => Ok(Self::Done {
                outcome: part.outcome.ok_or_else(absent)?.try_into()?,
                at: moment(part.at).ok_or_else(absent)?,
            }),
            other => Err(Unreadable::new(format!("state {other} is not known"))),
        }
    }
}

impl<'b> From<&'b Cancel> for CancelPart<'b> {
    fn from(cancel: &'b Cancel) -> Self {
        Self {
            cause: cause_number(cancel.cause),
            at: cancel.at.as_micros(),
            actor: text(&cancel.actor),
            reason: text(&cancel.reason),
            deadline: cancel.deadline.as_micros(),
            client_asked: cancel.client_asked,
            delivered_at: micros(cancel.delivered_at),
            acknowledged_at: micros(cancel.acknowledged_at),
        }
    }
}

impl TryFrom<CancelPart<'_>> for Cancel {
    type Error = Unreadable;

    fn try_from(part: CancelPart<'_>) -> Result<Self, Unreadable> {
        Ok(Self {
            cause: cause(part.cause)?,
            at: Timestamp::from_micros(part.at),
            actor: shared(part.actor),
            reason: shared(part.reason),
            deadline: Timestamp::from_micros(part.deadline),
            client_asked: part.client_asked,
            delivered_at: moment(part.delivered_at),
            acknowledged_at: moment(part.acknowledged_at),
        })
    }
}

impl<'b> From<&'b Progress> for ProgressPart<'b> {
    fn from(progress: &'b Progress) -> Self {
        Self {
            percent: progress.percent,
            step: progress.step,
            steps: progress.steps,
            message: text(&progress.message),
        }
    }
}

impl From<ProgressPart<'_>> for Progress {
    fn from(part: ProgressPart<'_>) -> Self {
        Self {
            percent: part.percent,
            step: part.step,
            steps: part.steps,
            message: shared(part.message),
        }
    }
}

impl From<&Policy> for PolicyPart {
    fn from(policy: &Policy) -> Self {
        Self {
            switches: u8::from(policy.cancellable)
                | u8::from(policy.strict_cancel_when_done) << 1
                | u8::from(policy.strict_delete_when_running) << 2
                | u8::from(policy.discard_success_after_cancel) << 3
                | u8::from(policy.parallel != Parallel::Allow) << 4
                | u8::from(policy.parallel == Parallel::Supersede) << 5,
            cancel_timeout: span_micros(policy.cancel_timeout),
            cleanup_budget: policy.cleanup_budget.map(span_micros),
            retention: span_micros(policy.retention),
            attempts_max: policy.retry.attempts_max,
            backoff_first: span_micros(policy.retry.backoff_first),
            backoff_max: span_micros(policy.retry.backoff_max),
        }
    }
}

impl From<PolicyPart> for Policy {
    fn from(part: PolicyPart) -> Self {
        Self {
            cancellable: part.switches & 1 != 0,
            strict_cancel_when_done: part.switches & 2 != 0,
            strict_delete_when_running: part.switches & 4 != 0,
            discard_success_after_cancel: part.switches & 8 != 0,
            cancel_timeout: Duration::from_micros(part.cancel_timeout),
            cleanup_budget: part.cleanup_budget.map(Duration::from_micros),
            retention: Duration::from_micros(part.retention),
            parallel: match (part.switches & 16 != 0, part.switches & 32 != 0) {
                (false, _) => Parallel::Allow,
                (true, false) => Parallel::Refuse,
                (true, true) => Parallel::Supersede,
            },
            retry: Retry {
                attempts_max: part.attempts_max,
                backoff_first: Duration::from_micros(part.backoff_first),
                backoff_max: Duration::from_micros(part.backoff_max),
            },
        }
    }
}
