//! The events of one commit as a record.
//!
//! How an operation ended is not written again: a done operation never changes, so its own record has it.

use longhaul_core::{Event, EventKind, Outcome, Timestamp};
use minicbor::{Decode, Encode};

use super::parts::{StatusPart, cause, cause_number, name, shared, text};
use super::{Unreadable, body, encode};

/// Every kind's fields, side by side; `kind` says which count.
#[derive(Default, Encode, Decode)]
#[cbor(map)]
struct EventPart<'b> {
    #[n(0)]
    kind: u8,
    #[n(1)]
    at: i64,
    #[b(2)]
    worker: Option<&'b str>,
    #[n(3)]
    epoch: Option<u64>,
    #[n(4)]
    cleanup: Option<bool>,
    #[n(5)]
    cause: Option<u8>,
    #[b(6)]
    actor: Option<&'b str>,
    #[b(7)]
    reason: Option<&'b str>,
    #[n(8)]
    not_before: Option<i64>,
    #[b(9)]
    status: Option<StatusPart<'b>>,
    #[b(10)]
    parent: Option<&'b str>,
}

/// The record of the events of one commit.
pub(crate) fn encode_events(events: &[Event]) -> Vec<u8> {
    encode(&events.iter().map(EventPart::from).collect::<Vec<_>>())
}

/// The events of a record; `outcome` is that of the operation, if it is done.
pub(crate) fn decode_events(
    bytes: &[u8],
    outcome: Option<&Outcome>,
) -> Result<Vec<Event>, Unreadable> {
    let parts: Vec<EventPart<'_>> = minicbor::decode(body(bytes)?).map_err(Unreadable::new)?;
    parts.into_iter().map(|part| part.into_event(outcome)).collect()
}

impl<'b> From<&'b Event> for EventPart<'b> {
    fn from(event: &'b Event) -> Self {
        let part = |kind| Self { kind, at: event.at.as_micros(), ..Self::default() };
        match &event.kind {
            EventKind::Started => part(0),
            EventKind::Claimed { worker, epoch, cleanup } => Self {
                worker: text(worker),
                epoch: Some(*epoch),
                cleanup: cleanup.then_some(true),
                ..part(1)
            },
            EventKind::Progressed => part(2),
            EventKind::LeaseRegained { worker } => Self { worker: text(worker), ..part(3) },
            EventKind::GatePassed => part(4),
            EventKind::CancelRequested { cause, actor, reason } => Self {
                cause: Some(cause_number(*cause)),
                actor: text(actor),
                reason: text(reason),
                ..part(5)
            },
            EventKind::CancelRepeated { actor, reason } => {
                Self { actor: text(actor), reason: text(reason), ..part(6) }
            }
            EventKind::CancelDelivered => part(7),
            EventKind::CancelAcknowledged => part(8),
            EventKind::Retrying { not_before, status } => Self {
                not_before: Some(not_before.as_micros()),
                status: Some(status.into()),
                ..part(9)
            },
            EventKind::Released { worker } => Self { worker: text(worker), ..part(10) },
            EventKind::LeaseExpired { worker } => Self { worker: text(worker), ..part(11) },
            EventKind::CleanupStarted => part(12),
            EventKind::Finished { .. } => part(13),
            EventKind::Deleted { actor } => Self { actor: text(actor), ..part(14) },
            EventKind::Forgotten => part(15),
            EventKind::Detached { parent, actor } => {
                Self { parent: Some(parent.as_str()), actor: text(actor), ..part(16) }
            }
        }
    }
}

impl EventPart<'_> {
    fn into_event(self, outcome: Option<&Outcome>) -> Result<Event, Unreadable> {
        let part = self;
        let absent = || Unreadable::new(format!("event {} lacks a field", part.kind));
        let worker = || shared(part.worker);
        let (actor, reason) = (|| shared(part.actor), || shared(part.reason));
        let kind = match part.kind {
            0 => EventKind::Started,
            1 => EventKind::Claimed {
                worker: worker(),
                epoch: part.epoch.ok_or_else(absent)?,
                cleanup: part.cleanup.unwrap_or_default(),
            },
            2 => EventKind::Progressed,
            3 => EventKind::LeaseRegained { worker: worker() },
            4 => EventKind::GatePassed,
            5 => EventKind::CancelRequested {
                cause: cause(part.cause.ok_or_else(absent)?)?,
                actor: actor(),
                reason: reason(),
            },
            6 => EventKind::CancelRepeated { actor: actor(), reason: reason() },
            7 => EventKind::CancelDelivered,
            8 => EventKind::CancelAcknowledged,
            9 => EventKind::Retrying {
                not_before: Timestamp::from_micros(part.not_before.ok_or_else(absent)?),
                status: part.status.ok_or_else(absent)?.try_into()?,
            },
            10 => EventKind::Released { worker: worker() },
            11 => EventKind::LeaseExpired { worker: worker() },
            12 => EventKind::CleanupStarted,
            13 => EventKind::Finished { outcome: outcome.cloned().ok_or_else(absent)? },
            14 => EventKind::Deleted { actor: actor() },
            15 => EventKind::Forgotten,
            16 => EventKind::Detached {
                parent: name(part.parent)?.ok_or_else(absent)?,
                actor: actor(),
            },
            other => return Err(Unreadable::new(format!("event {other} is not known"))),
        };
        Ok(Event { at: Timestamp::from_micros(part.at), kind })
    }
}
