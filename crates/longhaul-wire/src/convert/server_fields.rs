//! The metadata fields that the server keeps true by itself, found by name once for each type.
//!
//! Source: DESIGN §3; the metadata messages of Google's APIs. Which they are is decided here; a field
//! of such a name but another kind is left to the worker.

use longhaul_core::{Code, Operation, Outcome, State, Timestamp};

use super::raw;
use crate::message::{Field, Kind, Message, MessageType, SingularKind};
use crate::settings::{MetadataSettings, StateNames, StateSettings};

const TIMESTAMP: &str = "google.protobuf.Timestamp";

/// Where a metadata type keeps what the server knows; each is a field number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServerFields {
    create_time: Option<u32>,
    start_time: Option<u32>,
    update_time: Option<u32>,
    end_time: Option<u32>,
    target: Option<u32>,
    verb: Option<u32>,
    api_version: Option<u32>,
    requested_cancellation: Option<u32>,
    status_message: Option<u32>,
    operation: Option<u32>,
    state: Option<StateFields>,
    /// Names of all fields above but `status_message`, which a worker may write too.
    owned: Vec<String>,
}

/// Where a metadata type shows the state of its operation.
#[derive(Clone, Debug, PartialEq, Eq)]
struct StateFields {
    /// The message around the state; `None` when the state is a field of the metadata itself.
    around: Option<u32>,
    state: u32,
    since: Option<u32>,
    history: Option<u32>,
    numbers: StateNumbers,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct StateNumbers {
    queued: i32,
    running: i32,
    cancelling: i32,
    done: i32,
    failed: i32,
    cancelled: i32,
}

impl ServerFields {
    /// Finds the fields of a type. Fails with a sentence when the settings name a field that is not
    /// there or of another kind.
    pub(crate) fn of(
        ty: &MessageType,
        settings: Option<&MetadataSettings>,
    ) -> Result<Self, String> {
        let mut found = Self::default();
        for field in ty.fields() {
            let slot = match (field.name(), single(field)) {
                ("create_time", Single::Timestamp) => &mut found.create_time,
                ("start_time", Single::Timestamp) => &mut found.start_time,
                ("update_time", Single::Timestamp) => &mut found.update_time,
                ("end_time" | "done_time", Single::Timestamp) => &mut found.end_time,
                ("target", Single::String) => &mut found.target,
                ("verb", Single::String) => &mut found.verb,
                ("api_version", Single::String) => &mut found.api_version,
                ("requested_cancellation" | "cancel_requested", Single::Bool) => {
                    &mut found.requested_cancellation
                }
                ("status_message", Single::String) => {
                    found.status_message = Some(field.number());
                    continue;
                }
                _ => continue,
            };
            *slot = Some(field.number());
            found.owned.push(field.name().to_owned());
        }
        let Some(settings) = settings else { return Ok(found) };
        if let Some(path) = &settings.operation_name {
            let field = ty.field(path).filter(|field| single(*field) == Single::String);
            let field = field.ok_or_else(|| format!("there is no text field {path:?}"))?;
            found.operation = Some(field.number());
            found.owned.push(path.clone());
        }
        if let Some(state) = &settings.state {
            found.state = Some(StateFields::of(ty, state)?);
            found.owned.push(state.field.clone());
            found.owned.extend(state.since.clone());
            found.owned.extend(state.history.clone());
        }
        Ok(found)
    }

    /// Drops what a worker wrote into these fields.
    pub(crate) fn clear(&self, message: &mut Message) {
        for path in &self.owned {
            message.clear(path);
        }
    }

    /// The stored metadata with every server field as it is now.
    pub(crate) fn complete(
        &self,
        stored: &[u8],
        operation: &Operation,
        verb: &str,
        version: &str,
    ) -> Vec<u8> {
        let mut out = match &self.state {
            Some(state) => state.write(stored, operation),
            None => stored.to_vec(),
        };
        let times = [
            (self.create_time, Some(operation.create_time)),
            (self.start_time, operation.start_time),
            (self.update_time, Some(operation.update_time)),
            (self.end_time, operation.end_time()),
        ];
        for (number, at) in times {
            if let (Some(number), Some(at)) = (number, at) {
                raw::put_timestamp(&mut out, number, at);
            }
        }
        let progress = operation.progress.as_ref().map_or("", |progress| &*progress.message);
        let texts = [
            (self.target, &*operation.target),
            (self.verb, verb),
            (self.api_version, version),
            (self.status_message, progress),
            (self.operation, operation.name.as_str()),
        ];
        for (number, text) in texts {
            if let Some(number) = number {
                raw::put_str(&mut out, number, text);
            }
        }
        if let Some(number) = self.requested_cancellation {
            raw::put_bool(&mut out, number, operation.cancel_requested());
        }
        out
    }
}

impl StateFields {
    fn of(ty: &MessageType, settings: &StateSettings) -> Result<Self, String> {
        let no_field = |path: &str| format!("{} has no fitting field {path:?}", ty.full_name());
        let (around, leaf) = match settings.field.split_once('.') {
            Some((around, leaf)) => (Some(around), leaf),
            None => (None, settings.field.as_str()),
        };
        let around_field = match around {
            Some(name) => Some(ty.field(name).ok_or_else(|| no_field(name))?),
            None => None,
        };
        let holder = match around_field {
            Some(field) if !field.is_many() => {
                field.message_type().ok_or_else(|| no_field(&settings.field))?
            }
            Some(field) => return Err(no_field(field.name())),
            None => ty.clone(),
        };
        let state = holder.field(leaf).ok_or_else(|| no_field(&settings.field))?;
        let Kind::Single(SingularKind::Enum(names)) = state.kind() else {
            return Err(format!("{:?} is no enum", settings.field));
        };
        let number = |name: &str| {
            let mut values = names.values();
            let known = values.find(|(known, _)| *known == name).map(|(_, number)| number);
            known.ok_or_else(|| format!("{} has no value {name:?}", names.full_name()))
        };
        let since = match &settings.since {
            Some(path) => {
                let leaf = match around {
                    Some(around) => path.strip_prefix(around).and_then(|p| p.strip_prefix('.')),
                    None => Some(path.as_str()),
                };
                let field = leaf.and_then(|leaf| holder.field(leaf));
                let field = field.filter(|field| single(*field) == Single::Timestamp);
                Some(field.ok_or_else(|| no_field(path))?.number())
            }
            None => None,
        };
        let history = match &settings.history {
            Some(path) => {
                let field = ty.field(path).filter(|field| {
                    matches!(field.kind(), Kind::Repeated(SingularKind::Message(ref element)) if *element == holder)
                });
                Some(field.ok_or_else(|| no_field(path))?.number())
            }
            None => None,
        };
        Ok(Self {
            around: around_field.map(|field| field.number()),
            state: state.number(),
            since,
            history,
            numbers: StateNumbers::of(&settings.names, &number)?,
        })
    }

    /// The stored metadata with the state in its place, and the states before it.
    fn write(&self, stored: &[u8], operation: &Operation) -> Vec<u8> {
        let steps = self.steps(operation);
        let Some(((state, since), earlier)) = steps.split_last() else { return stored.to_vec() };
        let mut out = match self.around {
            Some(around) => {
                let (mut rest, inner) = raw::take_message(stored, around);
                let mut inner = inner.unwrap_or_default();
                self.put(&mut inner, *state, *since);
                raw::put_bytes(&mut rest, around, &inner);
                rest
            }
            None => {
                let mut out = stored.to_vec();
                self.put(&mut out, *state, *since);
                out
            }
        };
        if let Some(history) = self.history {
            for (state, since) in earlier {
                let mut element = Vec::new();
                self.put(&mut element, *state, *since);
                raw::put_bytes(&mut out, history, &element);
            }
        }
        out
    }

    fn put(&self, out: &mut Vec<u8>, state: i32, since: Timestamp) {
        raw::put_enum(out, self.state, state);
        if let Some(number) = self.since {
            raw::put_timestamp(out, number, since);
        }
    }

    /// The states an operation went through as this type names them, with their starts; the last one
    /// is the present one.
    fn steps(&self, operation: &Operation) -> Vec<(i32, Timestamp)> {
        let numbers = &self.numbers;
        let mut steps = vec![(numbers.queued, operation.create_time)];
        if let Some(at) = operation.start_time {
            steps.push((numbers.running, at));
        }
        let now = match &operation.state {
            State::Queued { .. } => numbers.queued,
            State::Running { .. } => numbers.running,
            State::Cancelling { .. } | State::CleaningUp { .. } => numbers.cancelling,
            State::Done { outcome, .. } => match outcome {
                Outcome::Response(_) => numbers.done,
                Outcome::Error(status) if status.code == Code::Cancelled => numbers.cancelled,
                Outcome::Error(_) => numbers.failed,
            },
        };
        if steps.last().is_none_or(|(last, _)| *last != now) {
            let asked = operation.cancel.as_ref().map(|cancel| cancel.at);
            let since = operation.end_time().or(asked).unwrap_or(operation.update_time);
            steps.push((now, since));
        }
        steps
    }
}

impl StateNumbers {
    fn of(
        names: &StateNames,
        number: &impl Fn(&str) -> Result<i32, String>,
    ) -> Result<Self, String> {
        let or = |name: &Option<String>, other: &str| number(name.as_deref().unwrap_or(other));
        Ok(Self {
            queued: number(&names.queued)?,
            running: number(&names.running)?,
            cancelling: or(&names.cancelling, &names.running)?,
            done: number(&names.done)?,
            failed: or(&names.failed, &names.done)?,
            cancelled: or(&names.cancelled, &names.done)?,
        })
    }
}

/// Kinds that server fields can have.
#[derive(PartialEq)]
enum Single {
    Bool,
    String,
    Timestamp,
    Other,
}

fn single(field: Field<'_>) -> Single {
    match field.kind() {
        Kind::Single(SingularKind::Bool) => Single::Bool,
        Kind::Single(SingularKind::String) => Single::String,
        Kind::Single(SingularKind::Message(ty)) if ty.full_name() == TIMESTAMP => Single::Timestamp,
        Kind::Single(_) | Kind::Repeated(_) | Kind::Map(_, _) => Single::Other,
    }
}
