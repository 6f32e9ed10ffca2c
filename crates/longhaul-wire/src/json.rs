//! Protobuf JSON, both ways, for messages known only at run time.
//!
//! Owns the options and the two entries; `write` and `parse` do the work, `reader` cuts JSON text
//! into tokens, `time` and `names` hold the well-known texts. All of it is bounded: depth, output
//! size and the number of values. Source: protobuf's JSON mapping.

mod names;
mod operation;
mod parse;
mod reader;
mod scalar;
mod time;
mod well_known;
mod write;

use longhaul_core::{Error, Reason};

pub use operation::{operation_to_json, operations_to_json};

use crate::message::{Field, Message, MessageType, TypeResolver};

pub(crate) use names::to_camel;
pub(crate) use scalar::{from_text, reads_text};
pub(crate) use time::{parse_duration, parse_timestamp, write_duration};
pub(crate) use write::write_string;

/// Levels of objects and lists that are accepted from a caller. Lower than what is written
/// ([`crate::message::DEPTH_MAX`]), so that what was accepted also fits inside an operation.
pub const DEPTH_READ_MAX: usize = 90;

/// How to write JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonOptions {
    /// Numbers instead of names for enum values, inside `Any` too.
    pub enums_as_ints: bool,
    /// Line breaks and two spaces of indentation.
    pub pretty: bool,
    /// Also writes fields without presence that hold their default, empty lists and empty maps.
    pub always_print_defaults: bool,
    /// What to do with an `Any` of a type that nobody declared.
    pub unknown_any: UnknownAny,
}

/// What to do with an `Any` of a type that nobody declared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownAny {
    /// Fail: no client could read it.
    #[default]
    Error,
    /// Write `{"@type": …, "value": base64}`: for people, never for Google's clients.
    Raw,
}

impl Default for JsonOptions {
    /// One line, enum names, no defaults, unknown types fail.
    fn default() -> Self {
        Self {
            enums_as_ints: false,
            pretty: false,
            always_print_defaults: false,
            unknown_any: UnknownAny::Error,
        }
    }
}

/// Writes a message as JSON.
///
/// A null is never written, except for a `google.protobuf.Value` that holds one. Fails with
/// `INTERNAL` when an `Any` is of an undeclared type or does not decode, or the message is deeper
/// than [`crate::message::DEPTH_MAX`], longer than 64 MiB, or holds a moment outside of years 1 to
/// 9999.
pub fn to_json(
    message: &Message,
    resolver: &dyn TypeResolver,
    options: &JsonOptions,
) -> Result<Vec<u8>, Error> {
    let mut writer = write::Writer::new(resolver, *options);
    writer.message(&message.inner)?;
    Ok(writer.finish())
}

/// Writes only the field `name` of a message: what `response_body` asks for.
///
/// Fails as [`to_json`] does, and with `INTERNAL` when there is no such field.
pub fn field_to_json(
    message: &Message,
    name: &str,
    resolver: &dyn TypeResolver,
    options: &JsonOptions,
) -> Result<Vec<u8>, Error> {
    let ty = message.message_type();
    let field = ty.field(name).ok_or_else(|| {
        Error::new(Reason::Internal, format!("{} has no field {name:?}", ty.full_name()))
            .with("field", name)
    })?;
    let mut writer = write::Writer::new(resolver, *options);
    writer.field_alone(&message.inner, field.descriptor)?;
    Ok(writer.finish())
}

/// Reads a message from JSON.
///
/// Takes field names in camelCase and as in the proto file, 64-bit numbers as texts or numbers,
/// `Any` with its type anywhere in the object, `Any` of `Empty` with or without `value`. A null is
/// an unset field. Fails with `INVALID_JSON` for what is no JSON, nested deeper than
/// [`DEPTH_READ_MAX`] or of too many values; with `UNKNOWN_FIELD` or `INVALID_VALUE`, naming every
/// field at fault (the first 20), for the rest.
pub fn from_json(
    ty: &MessageType,
    text: &[u8],
    resolver: &dyn TypeResolver,
) -> Result<Message, Error> {
    parse::message(ty, text, resolver)
}

/// Reads one field of a message from JSON and sets it: what `body: "field"` asks for.
///
/// `field` is a field of the type of `message`. Fails as [`from_json`] does; paths begin with the
/// field's name.
pub(crate) fn field_from_json(
    message: &mut Message,
    field: Field<'_>,
    text: &[u8],
    resolver: &dyn TypeResolver,
) -> Result<(), Error> {
    parse::field(message, field, text, resolver)
}
