//! JSON text to messages, driven by the type.
//!
//! Collects every field at fault and goes on, so that a caller can mend all of them at once; a
//! text that is no JSON ends it at once. The sentences are Google's.

mod known;

use std::fmt::Write as _;
use std::sync::Arc;

use buffa_descriptor::{
    DescriptorPool, DynamicMessage, FieldDescriptor, FieldKind, MapValue, ReflectMessage as _,
    ReflectMessageMut as _, SingularKind, Value,
};
use longhaul_core::{Error, Reason};

use super::names::WellKnown;
use super::reader::{Reader, Start};
use super::scalar::{Token, enum_value, kind_word, map_key, scalar, takes_null};
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
        let mut error = Error::new(first.reason, lines.join("\n"));
        if !first.path.is_empty() {
            error = error.with("field", first.path.as_str());
        }
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
            Start::List if self.path.is_empty() => {
                let why = unknown_name("", "", "Root element must be a message.");
                self.fault(Reason::InvalidValue, why);
                return Ok(false);
            }
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
