//! Messages to JSON text, straight into one buffer.
//!
//! On the way of every read of an operation, so it copies nothing it need not. Fields come in the
//! order of the proto file, map entries by key; unknown fields and extensions are left out.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use buffa_descriptor::{
    DescriptorPool, DynamicMessage, FieldDescriptor, FieldKind, MapKey, ReflectMessage as _,
    ScalarType, SingularKind, Value,
};
use longhaul_core::{Error, Reason};

use super::names::{NULL_VALUE, WellKnown};
use super::{JsonOptions, UnknownAny};
use crate::longrunning::type_name;
use crate::message::{DEPTH_MAX, TypeResolver, is_set};

/// Longest output. A body of a few megabytes stays far below, except with hostile nesting.
const OUTPUT_BYTES_MAX: usize = 64 << 20;

pub(super) struct Writer<'a> {
    pub(super) out: Vec<u8>,
    pub(super) resolver: &'a dyn TypeResolver,
    pub(super) options: JsonOptions,
    depth: usize,
    /// Whether the innermost object or list has nothing in it yet.
    fresh: bool,
}

impl<'a> Writer<'a> {
    pub(super) fn new(resolver: &'a dyn TypeResolver, options: JsonOptions) -> Self {
        Self { out: Vec::with_capacity(1_024), resolver, options, depth: 0, fresh: true }
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.out
    }

    /// A message in its JSON form, well-known ones in theirs.
    pub(super) fn message(&mut self, message: &DynamicMessage) -> Result<(), Error> {
        match WellKnown::of(message.message_descriptor().full_name()) {
            Some(kind) => self.well_known(kind, message),
            None => {
                self.open(b'{')?;
                self.fields(message)?;
                self.close(b'}');
                Ok(())
            }
        }
    }

    /// The set fields of a message, inside an object that is already open.
    pub(super) fn fields(&mut self, message: &DynamicMessage) -> Result<(), Error> {
        let pool = message.pool();
        for field in message.message_descriptor().fields() {
            match message.field_by_number(field.number()) {
                Some(value) if is_set(field, value) => {
                    self.key(field.json_name())?;
                    self.field_value(pool, field.kind(), value)?;
                }
                Some(_) | None => {
                    if self.options.always_print_defaults {
                        self.default_of(pool, field)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// One field's value without its key; `null`-free: an unset one is written as its default.
    pub(super) fn field_alone(
        &mut self,
        message: &DynamicMessage,
        field: &FieldDescriptor,
    ) -> Result<(), Error> {
        let pool = message.pool();
        if let Some(value) = message.field_by_number(field.number()) {
            return self.field_value(pool, field.kind(), value);
        }
        match field.kind() {
            FieldKind::List(_) => self.raw(b"[]"),
            FieldKind::Map { .. } => self.raw(b"{}"),
            FieldKind::Singular(SingularKind::Message(index)) => {
                return self.message(&DynamicMessage::new(Arc::clone(pool), index));
            }
            FieldKind::Singular(SingularKind::Scalar(scalar)) => self.default_scalar(scalar),
            FieldKind::Singular(SingularKind::Enum(index)) => self.enum_value(pool, index, 0),
        }
        Ok(())
    }

    fn default_of(&mut self, pool: &DescriptorPool, field: &FieldDescriptor) -> Result<(), Error> {
        match field.kind() {
            FieldKind::List(_) => {
                self.key(field.json_name())?;
                self.raw(b"[]");
            }
            FieldKind::Map { .. } => {
                self.key(field.json_name())?;
                self.raw(b"{}");
            }
            FieldKind::Singular(kind) => {
                if field.presence() != buffa::editions::FieldPresence::Implicit {
                    return Ok(());
                }
                match kind {
                    SingularKind::Message(_) => {}
                    SingularKind::Scalar(scalar) => {
                        self.key(field.json_name())?;
                        self.default_scalar(scalar);
                    }
                    SingularKind::Enum(index) => {
                        if pool.enumeration(index).full_name() != NULL_VALUE {
                            self.key(field.json_name())?;
                            self.enum_value(pool, index, 0);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn default_scalar(&mut self, scalar: ScalarType) {
        self.raw(match scalar {
            ScalarType::Bool => b"false",
            ScalarType::String | ScalarType::Bytes => b"\"\"",
            ScalarType::Int64
            | ScalarType::Uint64
            | ScalarType::Fixed64
            | ScalarType::Sfixed64
            | ScalarType::Sint64 => b"\"0\"",
            ScalarType::Double
            | ScalarType::Float
            | ScalarType::Int32
            | ScalarType::Fixed32
            | ScalarType::Uint32
            | ScalarType::Sfixed32
            | ScalarType::Sint32 => b"0",
        });
    }

    fn field_value(
        &mut self,
        pool: &DescriptorPool,
        kind: FieldKind,
        value: &Value,
    ) -> Result<(), Error> {
        match (kind, value) {
            (FieldKind::List(kind), Value::List(items)) => {
                self.open(b'[')?;
                for item in items {
                    self.item()?;
                    self.value(pool, kind, item)?;
                }
                self.close(b']');
                Ok(())
            }
            (FieldKind::Map { value: kind, .. }, Value::Map(map)) => {
                self.open(b'{')?;
                for (key, value) in map {
                    self.map_key(key)?;
                    self.value(pool, kind, value)?;
                }
                self.close(b'}');
                Ok(())
            }
            (
                FieldKind::Singular(kind)
                | FieldKind::List(kind)
                | FieldKind::Map { value: kind, .. },
                value,
            ) => self.value(pool, kind, value),
        }
    }

    /// One value: a scalar, an enum value or a message.
    pub(super) fn value(
        &mut self,
        pool: &DescriptorPool,
        kind: SingularKind,
        value: &Value,
    ) -> Result<(), Error> {
        match value {
            Value::Bool(v) => self.raw(if *v { b"true" } else { b"false" }),
            Value::I32(v) => self.integer(i64::from(*v)),
            Value::U32(v) => self.integer(i64::from(*v)),
            Value::I64(v) => self.quoted(|writer| writer.integer(*v)),
            Value::U64(v) => self.quoted(|writer| {
                writer.raw(v.to_string().as_bytes());
            }),
            Value::F32(v) => self.float(f64::from(*v), format!("{v:?}").as_bytes()),
            Value::F64(v) => self.double(*v),
            Value::String(v) => self.string(v),
            Value::Bytes(v) => self.base64(v),
            Value::EnumNumber(number) => match kind {
                SingularKind::Enum(index) => self.enum_value(pool, index, *number),
                SingularKind::Scalar(_) | SingularKind::Message(_) => {
                    self.integer(i64::from(*number));
                }
            },
            Value::Message(message) => return self.message(message),
            Value::List(_) | Value::Map(_) => return Err(broken("a list within a list")),
        }
        Ok(())
    }

    fn enum_value(
        &mut self,
        pool: &DescriptorPool,
        index: buffa_descriptor::EnumIndex,
        number: i32,
    ) {
        let descriptor = pool.enumeration(index);
        if descriptor.full_name() == NULL_VALUE {
            return self.raw(b"null");
        }
        match descriptor.value(number).filter(|_| !self.options.enums_as_ints) {
            Some(value) => self.string(value.name()),
            None => self.integer(i64::from(number)),
        }
    }

    /// An `Any`: the type, then the fields of the message inside.
    pub(super) fn any(&mut self, url: &str, bytes: &[u8]) -> Result<(), Error> {
        self.open(b'{')?;
        if url.is_empty() && bytes.is_empty() {
            self.close(b'}');
            return Ok(());
        }
        self.key("@type")?;
        self.string(url);
        let Some(ty) = self.resolver.message(type_name(url)) else {
            if self.options.unknown_any == UnknownAny::Error {
                return Err(broken(&format!("the type {url:?} of an Any is declared by no API")));
            }
            self.key("value")?;
            self.base64(bytes);
            self.close(b'}');
            return Ok(());
        };
        let inner = DynamicMessage::decode(ty.pool, ty.index, bytes)
            .map_err(|cause| broken(&format!("an Any holds no {url:?}: {cause}")))?;
        match WellKnown::of(inner.message_descriptor().full_name()) {
            // Google's servers write no "value" for Empty, and every client reads it either way.
            None | Some(WellKnown::Empty) => self.fields(&inner)?,
            Some(kind) => {
                self.key("value")?;
                self.well_known(kind, &inner)?;
            }
        }
        self.close(b'}');
        Ok(())
    }

    /// Opens an object or a list.
    pub(super) fn open(&mut self, bracket: u8) -> Result<(), Error> {
        if self.depth >= DEPTH_MAX {
            return Err(broken(&format!("a message is nested deeper than {DEPTH_MAX} levels")));
        }
        self.depth += 1;
        self.fresh = true;
        self.out.push(bracket);
        Ok(())
    }

    pub(super) fn close(&mut self, bracket: u8) {
        self.depth -= 1;
        if self.options.pretty && !self.fresh {
            self.line();
        }
        self.fresh = false;
        self.out.push(bracket);
    }

    /// Begins an entry of the innermost object.
    pub(super) fn key(&mut self, name: &str) -> Result<(), Error> {
        self.item()?;
        self.string(name);
        self.colon();
        Ok(())
    }

    fn map_key(&mut self, key: &MapKey) -> Result<(), Error> {
        if let MapKey::String(text) = key {
            return self.key(text);
        }
        self.key(&crate::message::key_text(key))
    }

    fn colon(&mut self) {
        self.raw(if self.options.pretty { b": " } else { b":" });
    }

    /// Begins an item of the innermost list.
    pub(super) fn item(&mut self) -> Result<(), Error> {
        if self.out.len() > OUTPUT_BYTES_MAX {
            return Err(broken(&format!("its JSON is larger than {OUTPUT_BYTES_MAX} bytes")));
        }
        if !self.fresh {
            self.out.push(b',');
        }
        self.fresh = false;
        if self.options.pretty {
            self.line();
        }
        Ok(())
    }

    fn line(&mut self) {
        self.out.push(b'\n');
        self.out.resize(self.out.len() + 2 * self.depth, b' ');
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    pub(super) fn string(&mut self, text: &str) {
        write_string(&mut self.out, text);
    }

    pub(super) fn integer(&mut self, value: i64) {
        let mut digits = [0_u8; 20];
        let mut at = digits.len();
        let mut rest = value.unsigned_abs();
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if value < 0 {
            self.out.push(b'-');
        }
        self.out.extend_from_slice(&digits[at..]);
    }

    fn quoted(&mut self, write: impl FnOnce(&mut Self)) {
        self.out.push(b'"');
        write(self);
        self.out.push(b'"');
    }

    pub(super) fn double(&mut self, value: f64) {
        // The debug form is the shortest that reads back, with an exponent when it is long.
        self.float(value, format!("{value:?}").as_bytes());
    }

    fn float(&mut self, value: f64, text: &[u8]) {
        if value.is_nan() {
            self.raw(b"\"NaN\"");
        } else if value.is_infinite() {
            self.raw(if value > 0.0 { b"\"Infinity\"" } else { b"\"-Infinity\"" });
        } else {
            self.raw(text.strip_suffix(b".0").unwrap_or(text));
        }
    }

    fn base64(&mut self, bytes: &[u8]) {
        self.out.push(b'"');
        let start = self.out.len();
        let length = bytes.len().div_ceil(3) * 4;
        self.out.resize(start + length, 0);
        let written = STANDARD.encode_slice(bytes, &mut self.out[start..]).unwrap_or(0);
        self.out.truncate(start + written);
        self.out.push(b'"');
    }
}

/// What cannot be written although it was stored: our own state is wrong, not the request.
pub(super) fn broken(why: &str) -> Error {
    Error::new(Reason::Internal, format!("a message cannot be written as JSON: {why}"))
}

/// Writes a JSON string: quotes, backslashes and control characters escaped, the rest as it is.
pub(crate) fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut plain = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if byte >= b' ' && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[plain..at]);
        plain = at + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(control >> 4)]);
                out.push(HEX[usize::from(control & 15)]);
            }
        }
    }
    out.extend_from_slice(&bytes[plain..]);
    out.push(b'"');
}
