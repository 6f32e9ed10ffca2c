//! JSON text to messages, driven by the type.
//!
//! Collects every field at fault and goes on, so that a caller can mend all of them at once; a
//! text that is no JSON ends it at once. The sentences are Google's.

use std::fmt::Write as _;
use std::sync::Arc;

use buffa_descriptor::{
    DescriptorPool, DynamicMessage, FieldDescriptor, FieldKind, MapValue, ReflectMessage as _,
    ReflectMessageMut as _, SingularKind, Value,
};
use longhaul_core::{Error, Reason};

use super::names::WellKnown;
use super::reader::{Reader, Start};
use super::scalar::{Token, enum_value, kind_word, map_key, put, scalar, special_text, takes_null};
use crate::longrunning::type_name;
use crate::message::{Field, Message, MessageType, TypeResolver};

/// Faults that one answer names; more would not fit a gRPC trailer.
const FAULTS_MAX: usize = 20;
/// Items and map entries of one text: each takes some 80 bytes in memory, however short it is.
const VALUES_MAX: usize = 400_000;
/// Levels of messages on the wire, with map entries counted: what a decoder accepts again.
const LEVELS_MAX: usize = 96;
/// How often the text may be scanned over for the types of nested `Any`s.
const SCANS_MAX: usize = 8;
/// Characters of the caller's own text that a message repeats.
const SHOWN_CHARS_MAX: usize = 100;

pub(super) fn message(
    ty: &MessageType,
    text: &[u8],
    resolver: &dyn TypeResolver,
) -> Result<Message, Error> {
    let mut parser = Parser::new(text, resolver)?;
    let inner = parser.message(&ty.pool, ty.index, 0)?;
    parser.finish()?;
    Ok(Message { inner: inner.unwrap_or_else(|| DynamicMessage::new(ty.pool.clone(), ty.index)) })
}

pub(super) fn field(
    message: &mut Message,
    field: Field<'_>,
    text: &[u8],
    resolver: &dyn TypeResolver,
) -> Result<(), Error> {
    let mut parser = Parser::new(text, resolver)?;
    parser.path.push_str(field.name());
    parser.field(&mut message.inner, field.descriptor, 1)?;
    parser.finish()
}

struct Parser<'a> {
    reader: Reader<'a>,
    resolver: &'a dyn TypeResolver,
    /// Where we are, such as `release.targets[2].name`.
    path: String,
    faults: Vec<Fault>,
    values_left: usize,
    scan_left: usize,
}

struct Fault {
    reason: Reason,
    path: String,
    description: String,
}

impl<'a> Parser<'a> {
    fn new(text: &'a [u8], resolver: &'a dyn TypeResolver) -> Result<Self, Error> {
        Ok(Self {
            reader: Reader::new(text)?,
            resolver,
            path: String::new(),
            faults: Vec::new(),
            values_left: VALUES_MAX,
            scan_left: text.len().saturating_mul(SCANS_MAX),
        })
    }

    fn finish(mut self) -> Result<(), Error> {
        self.reader.end()?;
        let Some(first) = self.faults.first() else { return Ok(()) };
        let lines: Vec<&str> = self.faults.iter().map(|f| f.description.as_str()).collect();
        let mut error =
            Error::new(first.reason, lines.join("\n")).with("field", first.path.as_str());
        for fault in self.faults {
            error = error.at_field(fault.path, fault.description);
        }
        Err(error)
    }

    /// A message in its JSON form; `None` after a fault.
    fn message(
        &mut self,
        pool: &Arc<DescriptorPool>,
        index: buffa_descriptor::MessageIndex,
        level: usize,
    ) -> Result<Option<DynamicMessage>, Error> {
        if level > LEVELS_MAX {
            return Err(self.reader.invalid_here("Too many messages within messages"));
        }
        let mut message = DynamicMessage::new(pool.clone(), index);
        let known = WellKnown::of(pool.message(index).full_name());
        let good = match known {
            None => self.object(&mut message, level, false)?,
            Some(known) => self.special(&mut message, known, level)?,
        };
        if !good {
            return Ok(None);
        }
        Ok(Some(message))
    }

    /// An object whose names are the fields of `message`. `inside_any`: `@type` is passed over.
    fn object(
        &mut self,
        message: &mut DynamicMessage,
        level: usize,
        inside_any: bool,
    ) -> Result<bool, Error> {
        if self.reader.peek()? != Start::Object {
            let kind = SingularKind::Message(message.message_index());
            return self.wrong_value(message.pool().clone().as_ref(), kind);
        }
        self.reader.open()?;
        let pool = message.pool().clone();
        let descriptor = pool.message(message.message_index());
        let mut first = true;
        while let Some(key) = self.reader.key(first)? {
            first = false;
            if inside_any && key == "@type" {
                self.reader.skip()?;
                continue;
            }
            match descriptor.field_by_name(&key) {
                Some(field) => {
                    let end = self.path.len();
                    self.enter(field.name());
                    self.field(message, field, level + 1)?;
                    self.path.truncate(end);
                }
                None => self.unknown(&key, "Cannot find field.")?,
            }
        }
        Ok(true)
    }

    /// The value of one field, and sets it. A null leaves it unset.
    fn field(
        &mut self,
        message: &mut DynamicMessage,
        field: &FieldDescriptor,
        level: usize,
    ) -> Result<(), Error> {
        let pool = message.pool().clone();
        let null = self.reader.peek()? == Start::Null;
        let value = match field.kind() {
            FieldKind::Singular(kind) if !null || takes_null(&pool, kind) => {
                self.check_single(message, field)?;
                self.value(&pool, kind, level)?
            }
            _ if null => {
                self.reader.word("null")?;
                None
            }
            FieldKind::Singular(_) => None,
            FieldKind::List(kind) => self.list(&pool, kind, level)?.map(Value::List),
            FieldKind::Map { key, value } => self.map(&pool, key, value, level)?.map(Value::Map),
        };
        let Some(value) = value else { return Ok(()) };
        if message.field_by_number(field.number()).is_some() {
            let why = format!("Invalid value at '{}', the field is given twice", self.path);
            self.fault(Reason::InvalidValue, why);
            return Ok(());
        }
        if message.try_set(field, value).is_err() {
            let why = format!("Invalid value at '{}', of another type", self.path);
            self.fault(Reason::InvalidValue, why);
        }
        Ok(())
    }

    /// Notes a fault when another member of the field's oneof is already there.
    fn check_single(
        &mut self,
        message: &DynamicMessage,
        field: &FieldDescriptor,
    ) -> Result<(), Error> {
        let Some(oneof) = field.oneof_index() else { return Ok(()) };
        let descriptor = message.message_descriptor();
        let taken = descriptor.fields().iter().any(|other| {
            other.oneof_index() == Some(oneof)
                && other.number() != field.number()
                && message.field_by_number(other.number()).is_some()
        });
        if taken {
            let name = descriptor.oneofs().get(usize::from(oneof)).map_or("", |o| o.name());
            let why = format!(
                "Invalid value at '{}' (oneof), oneof field '{name}' is already set. Cannot set '{}'",
                self.path,
                field.json_name()
            );
            self.fault(Reason::InvalidValue, why);
        }
        Ok(())
    }

    fn list(
        &mut self,
        pool: &Arc<DescriptorPool>,
        kind: SingularKind,
        level: usize,
    ) -> Result<Option<Vec<Value>>, Error> {
        if self.reader.peek()? != Start::List {
            self.wrong_value(pool, kind)?;
            return Ok(None);
        }
        self.reader.open()?;
        let mut items = Vec::new();
        while self.reader.item(items.is_empty())? {
            let end = self.path.len();
            // Writing to a String cannot fail.
            let _ = write!(self.path, "[{}]", items.len());
            self.count()?;
            // After a fault something must stand in, so that the next index is right.
            let item = self.value(pool, kind, level)?;
            items.push(item.unwrap_or(Value::Bool(false)));
            self.path.truncate(end);
        }
        Ok(self.faults.is_empty().then_some(items))
    }

    fn map(
        &mut self,
        pool: &Arc<DescriptorPool>,
        key_kind: buffa_descriptor::ScalarType,
        kind: SingularKind,
        level: usize,
    ) -> Result<Option<MapValue>, Error> {
        if self.reader.peek()? != Start::Object {
            self.wrong_value(pool, kind)?;
            return Ok(None);
        }
        self.reader.open()?;
        let mut entries = Vec::new();
        let mut first = true;
        while let Some(text) = self.reader.key(first)? {
            first = false;
            self.count()?;
            let end = self.path.len();
            let _ = write!(self.path, "[{:?}]", shorten(&text));
            let key = map_key(key_kind, &text);
            if key.is_none() {
                let why = format!("Invalid value at '{}' (map key)", self.path);
                self.fault(Reason::InvalidValue, why);
            }
            let value = self.value(pool, kind, level + 1)?;
            entries.extend(key.zip(value));
            self.path.truncate(end);
        }
        let given = entries.len();
        let map = MapValue::from_entries(entries);
        if map.len() < given {
            let why = format!("Invalid value at '{}' (map), a key is given twice", self.path);
            self.fault(Reason::InvalidValue, why);
        }
        Ok(Some(map))
    }

    /// One value; `None` after a fault.
    fn value(
        &mut self,
        pool: &Arc<DescriptorPool>,
        kind: SingularKind,
        level: usize,
    ) -> Result<Option<Value>, Error> {
        if let SingularKind::Message(index) = kind {
            return Ok(self.message(pool, index, level)?.map(Value::Message));
        }
        if self.reader.peek()? == Start::Null && takes_null(pool, kind) {
            self.reader.word("null")?;
            return Ok(Some(Value::EnumNumber(0)));
        }
        let start = self.reader.position();
        let read = |token: Token<'_>| match kind {
            SingularKind::Scalar(ty) => scalar(ty, token),
            SingularKind::Enum(index) => enum_value(pool, index, token),
            SingularKind::Message(_) => None,
        };
        let value = match self.reader.peek()? {
            Start::String => read(Token::Text(&self.reader.string()?)),
            Start::Number => read(Token::Number(self.reader.number()?)),
            Start::True => {
                self.reader.word("true")?;
                read(Token::Bool(true))
            }
            Start::False => {
                self.reader.word("false")?;
                read(Token::Bool(false))
            }
            Start::Null | Start::Object | Start::List => {
                self.wrong_value(pool, kind)?;
                return Ok(None);
            }
        };
        if value.is_none() {
            let shown = shorten(self.reader.since(start));
            self.wrong(&kind_word(pool, kind), &shown);
        }
        Ok(value)
    }

    /// A message that has a JSON form of its own.
    fn special(
        &mut self,
        message: &mut DynamicMessage,
        known: WellKnown,
        level: usize,
    ) -> Result<bool, Error> {
        let kind = SingularKind::Message(message.message_index());
        let pool = message.pool().clone();
        match known {
            WellKnown::Any => self.any(message, level),
            WellKnown::Empty => self.object(message, level, false),
            WellKnown::Timestamp | WellKnown::Duration | WellKnown::FieldMask => {
                if self.reader.peek()? != Start::String {
                    return self.wrong_value(&pool, kind);
                }
                let start = self.reader.position();
                let text = self.reader.string()?;
                if special_text(message, known, &text).is_some() {
                    return Ok(true);
                }
                let shown = shorten(self.reader.since(start));
                self.wrong(&kind_word(&pool, kind), &shown);
                Ok(false)
            }
            WellKnown::Struct => match self.field_of(message, 1) {
                Some(FieldKind::Map { key, value }) => {
                    let map = self.map(&pool, key, value, level + 1)?;
                    Ok(map.is_some_and(|map| self.put(message, 1, Value::Map(map))))
                }
                Some(FieldKind::Singular(_) | FieldKind::List(_)) | None => {
                    self.wrong_value(&pool, kind)
                }
            },
            WellKnown::ListValue => match self.field_of(message, 1) {
                Some(FieldKind::List(item)) => {
                    let items = self.list(&pool, item, level + 1)?;
                    Ok(items.is_some_and(|items| self.put(message, 1, Value::List(items))))
                }
                Some(FieldKind::Singular(_) | FieldKind::Map { .. }) | None => {
                    self.wrong_value(&pool, kind)
                }
            },
            WellKnown::Value => self.any_value(message, level),
            WellKnown::Wrapper => match self.field_of(message, 1) {
                Some(FieldKind::Singular(inner)) => {
                    let value = self.value(&pool, inner, level + 1)?;
                    Ok(value.is_some_and(|value| self.put(message, 1, value)))
                }
                Some(FieldKind::List(_) | FieldKind::Map { .. }) | None => {
                    self.wrong_value(&pool, kind)
                }
            },
        }
    }

    /// A `google.protobuf.Value`: any JSON at all.
    fn any_value(&mut self, message: &mut DynamicMessage, level: usize) -> Result<bool, Error> {
        let pool = message.pool().clone();
        let (number, value) = match self.reader.peek()? {
            Start::Null => {
                self.reader.word("null")?;
                (1, Value::EnumNumber(0))
            }
            Start::True => {
                self.reader.word("true")?;
                (4, Value::Bool(true))
            }
            Start::False => {
                self.reader.word("false")?;
                (4, Value::Bool(false))
            }
            Start::String => (3, Value::String(self.reader.string()?.into_owned())),
            Start::Number => {
                let text = self.reader.number()?;
                let number = text.parse().ok().filter(|number: &f64| number.is_finite());
                let Some(number) = number else {
                    let kind = SingularKind::Message(message.message_index());
                    self.wrong(&kind_word(&pool, kind), &shorten(text));
                    return Ok(false);
                };
                (2, Value::F64(number))
            }
            start @ (Start::Object | Start::List) => {
                let number = if start == Start::Object { 5 } else { 6 };
                let kind = self.field_of(message, number);
                let Some(FieldKind::Singular(SingularKind::Message(index))) = kind else {
                    return self.wrong_value(&pool, SingularKind::Message(message.message_index()));
                };
                let Some(inner) = self.message(&pool, index, level + 1)? else {
                    return Ok(false);
                };
                (number, Value::Message(inner))
            }
        };
        Ok(self.put(message, number, value))
    }

    /// An `Any`: finds its type wherever it stands in the object, then reads the object as such.
    fn any(&mut self, message: &mut DynamicMessage, level: usize) -> Result<bool, Error> {
        let kind = SingularKind::Message(message.message_index());
        let pool = message.pool().clone();
        if self.reader.peek()? != Start::Object {
            return self.wrong_value(&pool, kind);
        }
        let Some(url) = self.any_type()? else {
            let start = self.reader.position();
            self.reader.skip()?;
            let text = self.reader.since(start);
            let empty = text.strip_prefix('{').and_then(|t| t.strip_suffix('}'));
            if empty.is_some_and(|inside| inside.trim().is_empty()) {
                return Ok(true);
            }
            self.wrong(&kind_word(&pool, kind), "an object without @type");
            return Ok(false);
        };
        let named = url.rsplit_once('/').is_some_and(|(_, name)| !name.is_empty());
        let Some(ty) = self.resolver.message(type_name(&url)).filter(|_| named) else {
            self.reader.skip()?;
            let shown = format!("an unknown @type, {:?}", shorten(&url));
            self.wrong(&kind_word(&pool, kind), &shown);
            return Ok(false);
        };
        let mut inner = DynamicMessage::new(ty.pool.clone(), ty.index);
        let good = match WellKnown::of(ty.full_name()) {
            None => self.object(&mut inner, 0, true)?,
            Some(known) => self.any_special(&mut inner, known, level)?,
        };
        if !good {
            return Ok(false);
        }
        let bytes = inner.try_encode_to_vec().unwrap_or_default();
        let url_set = self.put(message, 1, Value::String(url));
        Ok(url_set && (bytes.is_empty() || self.put(message, 2, Value::Bytes(bytes))))
    }

    /// Inside an `Any`, a message with a JSON form of its own stands under `value`.
    fn any_special(
        &mut self,
        inner: &mut DynamicMessage,
        known: WellKnown,
        level: usize,
    ) -> Result<bool, Error> {
        self.reader.open()?;
        let mut found = known == WellKnown::Empty;
        let mut first = true;
        while let Some(key) = self.reader.key(first)? {
            first = false;
            match key.as_ref() {
                "@type" => self.reader.skip()?,
                "value" => {
                    let end = self.path.len();
                    self.enter("value");
                    found = self.special(inner, known, level + 1)?;
                    self.path.truncate(end);
                }
                _ => self.unknown(&key, "Cannot find field.")?,
            }
        }
        if !found && self.faults.is_empty() {
            self.wrong(inner.message_descriptor().full_name(), "no value");
        }
        Ok(found)
    }

    /// The `@type` of the object that comes next, which is not taken.
    fn any_type(&mut self) -> Result<Option<String>, Error> {
        let mut ahead = self.reader.clone();
        let start = ahead.position();
        let mut found = None;
        ahead.open()?;
        let mut first = true;
        while let Some(key) = ahead.key(first)? {
            first = false;
            if key == "@type" && ahead.peek()? == Start::String {
                found = Some(ahead.string()?.into_owned());
                break;
            }
            ahead.skip()?;
        }
        let scanned = ahead.position() - start;
        let Some(left) = self.scan_left.checked_sub(scanned) else {
            return Err(self.reader.invalid_here("Too many Anys whose @type does not come first"));
        };
        self.scan_left = left;
        Ok(found)
    }

    fn field_of(&self, message: &DynamicMessage, number: u32) -> Option<FieldKind> {
        message.message_descriptor().field(number).map(FieldDescriptor::kind)
    }

    /// Sets a field of a well-known message; false when the set declares it with other fields.
    fn put(&mut self, message: &mut DynamicMessage, number: u32, value: Value) -> bool {
        let done = put(message, number, value).is_some();
        if !done {
            let name = message.message_descriptor().full_name().to_owned();
            self.wrong(&name, "a value for a type that this API declares otherwise");
        }
        done
    }

    fn enter(&mut self, name: &str) {
        if !self.path.is_empty() {
            self.path.push('.');
        }
        self.path.push_str(name);
    }

    fn count(&mut self) -> Result<(), Error> {
        let left = self.values_left.checked_sub(1);
        self.values_left = left.ok_or_else(|| {
            self.reader.invalid_here(&format!("More than {VALUES_MAX} list items and map entries"))
        })?;
        Ok(())
    }

    /// Passes over a value of the wrong kind and notes it. Always false: nothing was read.
    fn wrong_value(&mut self, pool: &DescriptorPool, kind: SingularKind) -> Result<bool, Error> {
        let start = self.reader.position();
        let what = self.reader.peek()?;
        self.reader.skip()?;
        let scalar = !matches!(kind, SingularKind::Message(_));
        let shown = match what {
            Start::Object if scalar => "Starting an object on a scalar field".to_owned(),
            Start::List => {
                let name = self.path.rsplit('.').next().unwrap_or_default().to_owned();
                let parent = self.path.rsplit_once('.').map_or("", |(p, _)| p).to_owned();
                let why = unknown_name(
                    &name,
                    &parent,
                    "Proto field is not repeating, cannot start list.",
                );
                self.fault(Reason::InvalidValue, why);
                return Ok(false);
            }
            Start::Object
            | Start::String
            | Start::Number
            | Start::True
            | Start::False
            | Start::Null => shorten(self.reader.since(start)),
        };
        self.wrong(&kind_word(pool, kind), &shown);
        Ok(false)
    }

    fn wrong(&mut self, kind: &str, shown: &str) {
        let why = format!("Invalid value at '{}' ({kind}), {shown}", self.path);
        self.fault(Reason::InvalidValue, why);
    }

    /// Passes over the value of a name that the message does not have, and notes it.
    fn unknown(&mut self, name: &str, why: &str) -> Result<(), Error> {
        let why = unknown_name(&shorten(name), &self.path, why);
        self.fault(Reason::UnknownField, why);
        self.reader.skip()
    }

    fn fault(&mut self, reason: Reason, description: String) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(Fault { reason, path: self.path.clone(), description });
        }
    }
}

/// Google's sentence about a name that cannot be bound.
fn unknown_name(name: &str, parent: &str, why: &str) -> String {
    let at = if parent.is_empty() { String::new() } else { format!(" at '{parent}'") };
    format!("Invalid JSON payload received. Unknown name \"{name}\"{at}: {why}")
}

/// The caller's own text, cut so that an answer stays short.
fn shorten(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
