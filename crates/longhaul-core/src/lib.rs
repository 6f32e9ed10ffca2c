//! The rules of an operation's life, as plain values and pure functions.
//!
//! This room reads no clock, draws no random number, does no input or output, and is never
//! `async`. Time, identifiers and jitter come in as arguments, so any history can be replayed.

pub mod apply;
pub mod command;
pub mod error;
mod family;
mod finish;
mod grants;
pub mod name;
mod next;
pub mod operation;
pub mod retry;
pub mod rivals;
pub mod time;
pub mod tombstone;

pub use apply::{apply, cancel_as_operator, start};
pub use command::{Applied, Changes, Command, Event, EventKind, Finish, Refusal, Start};
pub use error::{Code, Error, QuotaViolation, Reason};
pub use grants::{Grants, set_grants};
pub use name::OperationName;
pub use operation::{
    Cancel, Cause, Desired, Effects, Epoch, Lease, Operation, Outcome, Payload, Policy, Progress,
    RequestId, State, Status, StopReason,
};
pub use retry::Retry;
pub use rivals::{Parallel, meet};
pub use time::Timestamp;
pub use tombstone::cancel_by_request_id;
