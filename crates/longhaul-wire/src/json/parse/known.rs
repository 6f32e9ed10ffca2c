//! Reads the messages that have a JSON form of their own, `Any` above all.
//!
//! A descriptor set may declare such a name with other fields: what does not fit is a fault.

use buffa_descriptor::{
    DynamicMessage, FieldDescriptor, FieldKind, ReflectMessage as _, SingularKind, Value,
};
use longhaul_core::Error;

use super::super::names::WellKnown;
use super::super::reader::Start;
use super::super::scalar::{kind_word, put, special_text};
use super::{Parser, shorten};
use crate::longrunning::type_name;

impl Parser<'_> {
    /// A message that has a JSON form of its own.
    pub(super) fn special(
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
}
