//! The pieces that records and events share: payloads, statuses, leases, moments, small enums.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use longhaul_core::{
    Cause, Code, Effects, Lease, OperationName, Outcome, Payload, Status, Timestamp,
};
use minicbor::bytes::ByteSlice;
use minicbor::{Decode, Encode};

use super::Unreadable;

/// An operation's name, where there is one.
pub(super) fn name(text: Option<&str>) -> Result<Option<OperationName>, Unreadable> {
    let parse = |text| OperationName::parse(text).map_err(|error| Unreadable::new(error.message));
    text.map(parse).transpose()
}

#[derive(Encode, Decode)]
pub(super) struct PayloadPart<'b> {
    #[b(0)]
    type_name: &'b str,
    #[b(1)]
    value: &'b ByteSlice,
}

impl<'b> From<&'b Payload> for PayloadPart<'b> {
    fn from(payload: &'b Payload) -> Self {
        Self { type_name: &payload.type_name, value: (&*payload.value).into() }
    }
}

impl From<PayloadPart<'_>> for Payload {
    fn from(part: PayloadPart<'_>) -> Self {
        Self { type_name: part.type_name.into(), value: Arc::from(&**part.value) }
    }
}

#[derive(Encode, Decode)]
pub(super) struct StatusPart<'b> {
    #[n(0)]
    code: i32,
    #[b(1)]
    message: &'b str,
    #[b(2)]
    details: Vec<PayloadPart<'b>>,
}

impl<'b> From<&'b Status> for StatusPart<'b> {
    fn from(status: &'b Status) -> Self {
        Self {
            code: status.code.number(),
            message: &status.message,
            details: status.details.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<StatusPart<'_>> for Status {
    type Error = Unreadable;

    fn try_from(part: StatusPart<'_>) -> Result<Self, Unreadable> {
        let code = Code::from_number(part.code)
            .ok_or_else(|| Unreadable::new(format!("code {} is not known", part.code)))?;
        let details = part.details.into_iter().map(Into::into).collect();
        Ok(Self { code, message: part.message.into(), details })
    }
}

/// Exactly one of the two is there.
#[derive(Encode, Decode)]
#[cbor(map)]
pub(super) struct OutcomePart<'b> {
    #[b(0)]
    response: Option<PayloadPart<'b>>,
    #[b(1)]
    error: Option<StatusPart<'b>>,
}

impl<'b> From<&'b Outcome> for OutcomePart<'b> {
    fn from(outcome: &'b Outcome) -> Self {
        match outcome {
            Outcome::Response(payload) => Self { response: Some(payload.into()), error: None },
            Outcome::Error(status) => Self { response: None, error: Some(status.into()) },
        }
    }
}

impl TryFrom<OutcomePart<'_>> for Outcome {
    type Error = Unreadable;

    fn try_from(part: OutcomePart<'_>) -> Result<Self, Unreadable> {
        if let Some(payload) = part.response {
            return Ok(Self::Response(payload.into()));
        }
        match part.error {
            Some(status) => Ok(Self::Error(status.try_into()?)),
            None => Err(Unreadable::new("an outcome has neither response nor error")),
        }
    }
}

#[derive(Encode, Decode)]
pub(super) struct LeasePart<'b> {
    #[b(0)]
    worker: &'b str,
    #[n(1)]
    claimed_at: i64,
    #[n(2)]
    expires_at: i64,
    #[b(3)]
    claim_id: Option<&'b str>,
}

impl<'b> LeasePart<'b> {
    /// Worker and claim id, if that has one.
    pub(super) fn claim(self) -> Option<(&'b str, &'b str)> {
        Some((self.worker, self.claim_id?))
    }
}

impl<'b> From<&'b Lease> for LeasePart<'b> {
    fn from(lease: &'b Lease) -> Self {
        Self {
            worker: &lease.worker,
            claimed_at: lease.claimed_at.as_micros(),
            expires_at: lease.expires_at.as_micros(),
            claim_id: text(&lease.claim_id),
        }
    }
}

impl From<LeasePart<'_>> for Lease {
    fn from(part: LeasePart<'_>) -> Self {
        Self {
            worker: part.worker.into(),
            claimed_at: Timestamp::from_micros(part.claimed_at),
            expires_at: Timestamp::from_micros(part.expires_at),
            claim_id: shared(part.claim_id),
        }
    }
}

pub(super) fn moment(micros: Option<i64>) -> Option<Timestamp> {
    micros.map(Timestamp::from_micros)
}

pub(super) fn micros(at: Option<Timestamp>) -> Option<i64> {
    at.map(Timestamp::as_micros)
}

pub(super) fn span_micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// `None` for the empty text: absent fields take no room.
pub(super) fn text(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

pub(super) fn shared(text: Option<&str>) -> Arc<str> {
    text.map_or_else(empty, Into::into)
}

/// The empty text, one for all.
pub(crate) fn empty() -> Arc<str> {
    static EMPTY: LazyLock<Arc<str>> = LazyLock::new(Arc::default);
    EMPTY.clone()
}

/// Small enums and their stored numbers, both ways, each number once.
macro_rules! numbered {
    ($kind:ident, $to:ident, $from:ident: $($variant:ident = $number:literal),+) => {
        pub(super) fn $to(value: $kind) -> u8 {
            match value { $($kind::$variant => $number,)+ }
        }

        pub(super) fn $from(number: u8) -> Result<$kind, Unreadable> {
            match number {
                $($number => Ok($kind::$variant),)+
                other => Err(Unreadable::new(format!(
                    concat!(stringify!($kind), " {} is not known"), other
                ))),
            }
        }
    };
}

numbered!(Cause, cause_number, cause: Client = 0, Deadline = 1, Superseded = 2);
numbered!(Effects, effects_number, effects:
    NotStarted = 0, None = 1, Undone = 2, Partial = 3, Unknown = 4);
