//! Access to the fields of a message by dotted paths, such as `target.name`.
//!
//! A part may be a proto name or a JSON name. A path goes through single messages only, never
//! through a list, a map or an `Any`.

use buffa::editions::FieldPresence;
use buffa_descriptor::{
    self as pool, DynamicMessage, FieldDescriptor, FieldKind, MapKey, ReflectMessage as _,
    ReflectMessageMut as _, Value,
};
use longhaul_core::{Error, Reason, Timestamp};

use super::Message;

/// A value of a field, for those who compare rather than carry.
#[derive(Clone, Debug, PartialEq)]
pub enum FieldValue {
    /// A truth value.
    Bool(bool),
    /// A signed number.
    Int(i64),
    /// An unsigned number.
    Uint(u64),
    /// A number with a fraction; a `float` is widened.
    Float(f64),
    /// Text.
    String(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// An enum value; the name is empty for a number that the enum does not declare.
    Enum {
        /// As the proto file spells it.
        name: String,
        /// On the wire.
        number: i32,
    },
    /// A message.
    Message(Message),
    /// A list, in its order.
    List(Vec<Self>),
    /// A map by key; keys that are not text are printed.
    Map(Vec<(String, Self)>),
}

impl Message {
    /// Whether the field at `path` is set; a field without presence is, when it differs from its
    /// default.
    #[must_use]
    pub fn has(&self, path: &str) -> bool {
        self.find(path).is_some()
    }

    /// The value at `path`; `None` when it is unset or there is no such field.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<FieldValue> {
        let (descriptor, value) = self.find(path)?;
        Some(to_field_value(self.inner.pool(), descriptor.kind(), value))
    }

    /// The text at `path`; `None` when it is unset, not text, or there is no such field.
    #[must_use]
    pub fn get_str(&self, path: &str) -> Option<&str> {
        if let Some((_, Value::String(text))) = self.find(path) { Some(text) } else { None }
    }

    /// [`Self::get_str`], owned.
    #[must_use]
    pub fn get_string(&self, path: &str) -> Option<String> {
        self.get_str(path).map(Into::into)
    }

    /// The truth value at `path`; false when it is unset or there is no such field.
    #[must_use]
    pub fn get_bool(&self, path: &str) -> bool {
        matches!(self.find(path), Some((_, Value::Bool(true))))
    }

    /// The message at `path`; `None` when it is unset, not a message, or there is no such field.
    #[must_use]
    pub fn get_message(&self, path: &str) -> Option<Self> {
        let Some((_, Value::Message(inner))) = self.find(path) else { return None };
        Some(Self { inner: inner.clone() })
    }

    /// The moment at `path`, a `google.protobuf.Timestamp`, to the microsecond.
    #[must_use]
    pub fn get_timestamp(&self, path: &str) -> Option<Timestamp> {
        let Some((_, Value::Message(inner))) = self.find(path) else { return None };
        if inner.message_descriptor().full_name() != "google.protobuf.Timestamp" {
            return None;
        }
        let seconds = match inner.field_by_number(1) {
            Some(Value::I64(seconds)) => *seconds,
            _ => 0,
        };
        let nanos = match inner.field_by_number(2) {
            Some(Value::I32(nanos)) => *nanos,
            _ => 0,
        };
        let micros = seconds.saturating_mul(1_000_000).saturating_add(i64::from(nanos / 1_000));
        Some(Timestamp::from_micros(micros))
    }

    /// Writes text at `path`, making the messages on the way.
    ///
    /// Fails with `INVALID_VALUE` when there is no such field or it does not hold text.
    pub fn set_string(&mut self, path: &str, text: impl Into<String>) -> Result<(), Error> {
        self.set_value(path, Value::String(text.into()))
    }

    /// Writes a truth value at `path`, making the messages on the way.
    ///
    /// Fails with `INVALID_VALUE` when there is no such field or it does not hold a truth value.
    pub fn set_bool(&mut self, path: &str, value: bool) -> Result<(), Error> {
        self.set_value(path, Value::Bool(value))
    }

    /// Writes an enum value by its name at `path`, making the messages on the way.
    ///
    /// Fails with `INVALID_VALUE` when there is no such field, or its enum has no such name.
    pub fn set_enum(&mut self, path: &str, name: &str) -> Result<(), Error> {
        let ty = self.message_type();
        let number = ty.field_at(path).and_then(|field| match field.descriptor.kind() {
            FieldKind::Singular(pool::SingularKind::Enum(index)) => {
                Some(ty.pool.enumeration(index).value_by_name(name)?.number())
            }
            FieldKind::Singular(_) | FieldKind::List(_) | FieldKind::Map { .. } => None,
        });
        let number = number.ok_or_else(|| no_field(path, self.full_name()))?;
        self.set_value(path, Value::EnumNumber(number))
    }

    /// Writes a message at `path`, making the messages on the way.
    ///
    /// Fails with `INVALID_VALUE` when there is no such field or it holds another type.
    pub fn set_message(&mut self, path: &str, message: Self) -> Result<(), Error> {
        self.set_value(path, Value::Message(message.inner))
    }

    /// Writes a moment at `path`, a `google.protobuf.Timestamp`, making the messages on the way.
    ///
    /// Fails with `INVALID_VALUE` when there is no such field or it holds another type.
    pub fn set_timestamp(&mut self, path: &str, moment: Timestamp) -> Result<(), Error> {
        let ty = self.message_type();
        let inner = ty.field_at(path).and_then(|field| field.message_type());
        let inner = inner.filter(|ty| ty.full_name() == "google.protobuf.Timestamp");
        let inner = inner.ok_or_else(|| no_field(path, self.full_name()))?;
        let mut timestamp = Self::new(&inner);
        timestamp.set_value("seconds", Value::I64(moment.seconds()))?;
        timestamp.set_value("nanos", Value::I32(moment.nanos()))?;
        self.set_message(path, timestamp)
    }

    /// Unsets the field at `path`; nothing happens when there is no such field or it is unset.
    pub fn clear(&mut self, path: &str) {
        let (parents, last) = path.rsplit_once('.').map_or(("", path), |(p, last)| (p, last));
        let pool = self.inner.pool().clone();
        let mut message = &mut self.inner;
        for part in parents.split('.').filter(|part| !part.is_empty()) {
            let number = pool.message(message.message_index()).field_by_name(part);
            let Some(number) = number.map(FieldDescriptor::number) else { return };
            let Some(Value::Message(inner)) = message.field_by_number_mut(number) else { return };
            message = inner;
        }
        if let Some(field) = pool.message(message.message_index()).field_by_name(last) {
            // The field was just looked up in this very message's type, so it is a member.
            let _ = message.try_clear(field);
        }
    }

    /// The descriptor and value at `path`, where set.
    pub(crate) fn find(&self, path: &str) -> Option<(&FieldDescriptor, &Value)> {
        let mut message = &self.inner;
        let mut parts = path.split('.').peekable();
        while let Some(part) = parts.next() {
            let descriptor = message.pool().message(message.message_index());
            let field = descriptor.field_by_name(part)?;
            let value = message.field_by_number(field.number())?;
            if parts.peek().is_none() {
                return is_set(field, value).then_some((field, value));
            }
            let Value::Message(inner) = value else { return None };
            message = inner;
        }
        None
    }

    /// Writes a value at `path`, making the messages on the way.
    pub(crate) fn set_value(&mut self, path: &str, value: Value) -> Result<(), Error> {
        let whole = self.message_type();
        let pool = self.inner.pool().clone();
        let mut message = &mut self.inner;
        let mut parts = path.split('.').peekable();
        while let Some(part) = parts.next() {
            let field = pool.message(message.message_index()).field_by_name(part);
            let field = field.ok_or_else(|| no_field(path, whole.full_name()))?;
            if parts.peek().is_none() {
                return message.try_set(field, value).map_err(|cause| {
                    no_field(path, whole.full_name()).caused_by(cause.to_string())
                });
            }
            let FieldKind::Singular(pool::SingularKind::Message(inner)) = field.kind() else {
                return Err(no_field(path, whole.full_name()));
            };
            if message.field_by_number(field.number()).is_none() {
                let empty = DynamicMessage::new(pool.clone(), inner);
                message
                    .try_set(field, Value::Message(empty))
                    .map_err(|_| no_field(path, whole.full_name()))?;
            }
            let Some(Value::Message(inner)) = message.field_by_number_mut(field.number()) else {
                return Err(no_field(path, whole.full_name()));
            };
            message = inner;
        }
        Ok(())
    }
}

fn no_field(path: &str, message: &str) -> Error {
    Error::new(Reason::InvalidValue, format!("{message} has no field {path:?} of this type"))
        .with("field", path)
        .at_field(path, "no such field, or of another type")
}

/// Whether a stored value counts as set: a field without presence does not at its default.
pub(crate) fn is_set(field: &FieldDescriptor, value: &Value) -> bool {
    match value {
        Value::List(list) => !list.is_empty(),
        Value::Map(map) => !map.is_empty(),
        Value::Message(_) => true,
        Value::Bool(_)
        | Value::I32(_)
        | Value::I64(_)
        | Value::U32(_)
        | Value::U64(_)
        | Value::F32(_)
        | Value::F64(_)
        | Value::String(_)
        | Value::Bytes(_)
        | Value::EnumNumber(_) => field.presence() != FieldPresence::Implicit || !is_default(value),
    }
}

/// Whether a scalar is the default of its type; negative zero is not.
fn is_default(value: &Value) -> bool {
    match value {
        Value::Bool(v) => !v,
        Value::I32(v) | Value::EnumNumber(v) => *v == 0,
        Value::I64(v) => *v == 0,
        Value::U32(v) => *v == 0,
        Value::U64(v) => *v == 0,
        Value::F32(v) => v.to_bits() == 0,
        Value::F64(v) => v.to_bits() == 0,
        Value::String(v) => v.is_empty(),
        Value::Bytes(v) => v.is_empty(),
        Value::Message(_) | Value::List(_) | Value::Map(_) => false,
    }
}

fn to_field_value(pool: &pool::DescriptorPool, kind: FieldKind, value: &Value) -> FieldValue {
    let single = match kind {
        FieldKind::Singular(kind) | FieldKind::List(kind) => kind,
        FieldKind::Map { value, .. } => value,
    };
    match value {
        Value::Bool(v) => FieldValue::Bool(*v),
        Value::I32(v) => FieldValue::Int(i64::from(*v)),
        Value::I64(v) => FieldValue::Int(*v),
        Value::U32(v) => FieldValue::Uint(u64::from(*v)),
        Value::U64(v) => FieldValue::Uint(*v),
        Value::F32(v) => FieldValue::Float(f64::from(*v)),
        Value::F64(v) => FieldValue::Float(*v),
        Value::String(v) => FieldValue::String(v.clone()),
        Value::Bytes(v) => FieldValue::Bytes(v.clone()),
        Value::EnumNumber(number) => {
            let name = match single {
                pool::SingularKind::Enum(index) => {
                    pool.enumeration(index).value(*number).map_or("", |value| value.name())
                }
                pool::SingularKind::Scalar(_) | pool::SingularKind::Message(_) => "",
            };
            FieldValue::Enum { name: name.into(), number: *number }
        }
        Value::Message(inner) => FieldValue::Message(Message { inner: inner.clone() }),
        Value::List(items) => {
            FieldValue::List(items.iter().map(|item| to_field_value(pool, kind, item)).collect())
        }
        Value::Map(map) => FieldValue::Map(
            map.iter()
                .map(|(key, value)| (key_text(key), to_field_value(pool, kind, value)))
                .collect(),
        ),
    }
}

/// A map key as text, as JSON writes it.
pub(crate) fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(v) => v.to_string(),
        MapKey::I32(v) => v.to_string(),
        MapKey::I64(v) => v.to_string(),
        MapKey::U32(v) => v.to_string(),
        MapKey::U64(v) => v.to_string(),
        MapKey::String(v) => v.clone(),
    }
}
