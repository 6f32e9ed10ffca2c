//! Cancelling what may not have started yet: by the `request_id` of its start.
//!
//! A client that died between sending a start and reading its name knows only the `request_id`. If the
//! start has not arrived, a tombstone takes the key: an operation that is cancelled already, has no
//! method and is visible to nobody, until the late start meets it and becomes it.

use std::sync::Arc;

use crate::apply::{apply, queued};
use crate::command::{Applied, Command, Event, EventKind, Refusal, Start};
use crate::operation::{Cancel, Cause, Operation, Outcome, State, Status};
use crate::time::Timestamp;

/// Cancels the operation found under a `request_id`, or makes a tombstone.
///
/// `existing` is the row found under the key; `unborn` has the identity, API, parent, actor, policy and
/// `request_id` of the tombstone, and an empty method. A tombstone met again stays as it is.
pub fn cancel_by_request_id(
    existing: Option<&Operation>,
    unborn: Start,
    reason: Arc<str>,
    now: Timestamp,
) -> Result<Applied, Refusal> {
    let open = existing.filter(|found| found.request_id.as_ref().is_some_and(|id| now < id.until));
    let actor = unborn.actor.clone();
    if let Some(found) = open {
        if found.is_tombstone() {
            let kind = EventKind::CancelRepeated { actor, reason };
            let events = vec![Event { at: now, kind }];
            return Ok(Applied { operation: found.clone(), events, forget: false });
        }
        return apply(found, Command::Cancel { cause: Cause::Client, actor, reason }, now);
    }
    let mut operation = queued(unborn, now);
    operation.cancel = Some(Cancel {
        cause: Cause::Client,
        at: now,
        actor: actor.clone(),
        reason: reason.clone(),
        deadline: now,
        client_asked: true,
        delivered_at: None,
        acknowledged_at: None,
    });
    let outcome = Outcome::Error(Status {
        code: Cause::Client.code(),
        message: "the operation was cancelled before it was started".to_owned(),
        details: Vec::new(),
    });
    operation.state = State::Done { outcome: outcome.clone(), at: now };
    let kinds = [
        EventKind::CancelRequested { cause: Cause::Client, actor, reason },
        EventKind::Finished { outcome },
    ];
    let events = kinds.map(|kind| Event { at: now, kind }).into();
    Ok(Applied { operation, events, forget: false })
}

/// Makes a tombstone the operation that `start` asks for: started, and cancelled before.
pub(crate) fn embody(tombstone: &Operation, start: Start, now: Timestamp) -> Applied {
    let born = Operation {
        name: tombstone.name.clone(),
        uid: tombstone.uid,
        state: tombstone.state.clone(),
        cancel: tombstone.cancel.clone(),
        request_id: tombstone.request_id.clone(),
        create_time: tombstone.create_time,
        revision: tombstone.revision + 1,
        ..queued(start, now)
    };
    let events = vec![Event { at: now, kind: EventKind::Started }];
    Applied { operation: born, events, forget: false }
}
