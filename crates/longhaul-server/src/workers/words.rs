//! What the rules say about a worker's operations, in the words of the wire, and back.

use longhaul_core::{Cause, Desired, Effects, Error, Finish, Status};
use longhaul_wire::{convert, v1};

use super::invalid;

/// Whether some result asks for something that its worker has not yet said it heard.
pub(super) fn news(results: &[v1::ReportResult], heard: &[bool]) -> bool {
    results.iter().zip(heard).any(|(result, heard)| {
        let action = result.desired.as_ref().map_or(0, |desired| desired.action);
        let expected = if *heard {
            v1::desired_state::Action::Cancel
        } else {
            v1::desired_state::Action::Continue
        };
        result.error.is_some() || action != expected as i32
    })
}

/// A cause as the wire numbers it.
pub(crate) fn cause_number(cause: Cause) -> i32 {
    let reason = match cause {
        Cause::Client => v1::desired_state::Reason::ClientCancel,
        Cause::Deadline => v1::desired_state::Reason::Deadline,
        Cause::Superseded => v1::desired_state::Reason::Superseded,
    };
    reason as i32
}

/// Effects as the wire numbers them.
pub(crate) fn effects_number(effects: Effects) -> i32 {
    let effects = match effects {
        Effects::NotStarted => v1::Effects::NotStarted,
        Effects::None => v1::Effects::None,
        Effects::Undone => v1::Effects::Undone,
        Effects::Partial => v1::Effects::Partial,
        Effects::Unknown => v1::Effects::Unknown,
    };
    effects as i32
}

pub(super) fn desired_state(desired: &Desired) -> v1::DesiredState {
    use longhaul_core::StopReason;
    use v1::desired_state::{Action, Reason};
    match desired {
        Desired::Continue => {
            v1::DesiredState { action: Action::Continue as i32, ..Default::default() }
        }
        Desired::Cancel(cancel) => v1::DesiredState {
            action: Action::Cancel as i32,
            reason: cause_number(cancel.cause),
            actor: cancel.actor.to_string(),
            message: cancel.reason.to_string(),
            deadline: Some(convert::moment(cancel.deadline)),
            request_time: Some(convert::moment(cancel.at)),
        },
        Desired::Stop(stop) => {
            let reason = match stop {
                StopReason::LeaseLost => Reason::LeaseLost,
                StopReason::Done => Reason::Done,
                StopReason::Deleted => Reason::Deleted,
            };
            v1::DesiredState {
                action: Action::Stop as i32,
                reason: reason as i32,
                ..Default::default()
            }
        }
    }
}

pub(super) fn failed(failure: v1::Failure) -> Result<Finish, Error> {
    let code = longhaul_core::Code::from_number(failure.code).ok_or_else(|| {
        invalid("failure.code", format!("is {}; codes go from 1 to 16", failure.code))
    })?;
    let details = failure.details.into_iter().map(convert::payload).collect();
    let status = Status { code, message: failure.message, details };
    let effects = effects(failure.effects)?;
    Ok(Finish::Failed { status, retryable: failure.retryable, effects })
}

pub(super) fn effects(number: i32) -> Result<Option<Effects>, Error> {
    match v1::Effects::try_from(number) {
        Ok(v1::Effects::Unspecified) => Ok(None),
        Ok(v1::Effects::NotStarted) => Ok(Some(Effects::NotStarted)),
        Ok(v1::Effects::None) => Ok(Some(Effects::None)),
        Ok(v1::Effects::Undone) => Ok(Some(Effects::Undone)),
        Ok(v1::Effects::Partial) => Ok(Some(Effects::Partial)),
        Ok(v1::Effects::Unknown) => Ok(Some(Effects::Unknown)),
        Err(_) => Err(invalid("effects", format!("is {number}, which is no value of Effects"))),
    }
}

/// What is wanted of whoever reports on something that its credential did not claim: to let go, whatever has
/// become of it.
pub(crate) fn not_yours() -> v1::DesiredState {
    desired_state(&Desired::Stop(longhaul_core::StopReason::LeaseLost))
}
