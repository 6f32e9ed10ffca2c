//! Writes the messages that have a JSON form of their own.
//!
//! A descriptor set may declare such a name with other fields: what does not fit is an error.

use buffa_descriptor::{DynamicMessage, FieldKind, MapKey, ReflectMessage as _, Value};
use longhaul_core::Error;

use super::names::{WellKnown, to_camel};
use super::time;
use super::write::{Writer, broken};

impl Writer<'_> {
    pub(super) fn well_known(
        &mut self,
        kind: WellKnown,
        message: &DynamicMessage,
    ) -> Result<(), Error> {
        match kind {
            WellKnown::Any => self.any(text_at(message, 1)?, bytes_at(message, 2)?),
            WellKnown::Empty => {
                self.raw(b"{}");
                Ok(())
            }
            WellKnown::Timestamp => self.moment(message, time::write_timestamp),
            WellKnown::Duration => self.moment(message, time::write_duration),
            WellKnown::FieldMask => self.field_mask(message),
            WellKnown::Struct => self.structure(message),
            WellKnown::ListValue => self.list(message),
            WellKnown::Value => self.any_value(message),
            WellKnown::Wrapper => self.wrapped(message),
        }
    }

    fn moment(
        &mut self,
        message: &DynamicMessage,
        write: fn(&mut Vec<u8>, i64, i32) -> Option<()>,
    ) -> Result<(), Error> {
        let seconds = match message.field_by_number(1) {
            None => 0,
            Some(Value::I64(seconds)) => *seconds,
            Some(_) => return Err(misshapen(message)),
        };
        let nanos = match message.field_by_number(2) {
            None => 0,
            Some(Value::I32(nanos)) => *nanos,
            Some(_) => return Err(misshapen(message)),
        };
        self.raw(b"\"");
        write(&mut self.out, seconds, nanos).ok_or_else(|| {
            let name = message.message_descriptor().full_name();
            broken(&format!("{seconds} s and {nanos} ns are no {name}"))
        })?;
        self.raw(b"\"");
        Ok(())
    }

    fn field_mask(&mut self, message: &DynamicMessage) -> Result<(), Error> {
        let mut joined = String::new();
        for path in list_at(message, 1)? {
            let Value::String(path) = path else { return Err(misshapen(message)) };
            if !joined.is_empty() {
                joined.push(',');
            }
            joined.push_str(&to_camel(path));
        }
        self.string(&joined);
        Ok(())
    }

    fn structure(&mut self, message: &DynamicMessage) -> Result<(), Error> {
        self.open(b'{')?;
        match message.field_by_number(1) {
            None => {}
            Some(Value::Map(map)) => {
                for (key, value) in map {
                    let (MapKey::String(key), Value::Message(value)) = (key, value) else {
                        return Err(misshapen(message));
                    };
                    self.key(key)?;
                    self.message(value)?;
                }
            }
            Some(_) => return Err(misshapen(message)),
        }
        self.close(b'}');
        Ok(())
    }

    fn list(&mut self, message: &DynamicMessage) -> Result<(), Error> {
        self.open(b'[')?;
        for item in list_at(message, 1)? {
            let Value::Message(item) = item else { return Err(misshapen(message)) };
            self.item()?;
            self.message(item)?;
        }
        self.close(b']');
        Ok(())
    }

    /// A `google.protobuf.Value`: the one place where a null is meant.
    fn any_value(&mut self, message: &DynamicMessage) -> Result<(), Error> {
        let set = (2..=6).find_map(|number| message.field_by_number(number));
        match set {
            Some(Value::F64(number)) => self.double(*number),
            Some(Value::String(text)) => self.string(text),
            Some(Value::Bool(truth)) => self.raw(if *truth { b"true" } else { b"false" }),
            Some(Value::Message(inner)) => return self.message(inner),
            Some(_) => return Err(misshapen(message)),
            None => self.raw(b"null"),
        }
        Ok(())
    }

    fn wrapped(&mut self, message: &DynamicMessage) -> Result<(), Error> {
        let field = message.message_descriptor().field(1).ok_or_else(|| misshapen(message))?;
        let FieldKind::Singular(kind) = field.kind() else { return Err(misshapen(message)) };
        match message.field_by_number(1) {
            Some(value) => self.value(message.pool(), kind, value),
            None => self.field_alone(message, field),
        }
    }
}

fn text_at(message: &DynamicMessage, number: u32) -> Result<&str, Error> {
    match message.field_by_number(number) {
        None => Ok(""),
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(misshapen(message)),
    }
}

fn bytes_at(message: &DynamicMessage, number: u32) -> Result<&[u8], Error> {
    match message.field_by_number(number) {
        None => Ok(&[]),
        Some(Value::Bytes(bytes)) => Ok(bytes),
        Some(_) => Err(misshapen(message)),
    }
}

fn list_at(message: &DynamicMessage, number: u32) -> Result<&[Value], Error> {
    match message.field_by_number(number) {
        None => Ok(&[]),
        Some(Value::List(items)) => Ok(items),
        Some(_) => Err(misshapen(message)),
    }
}

fn misshapen(message: &DynamicMessage) -> Error {
    let name = message.message_descriptor().full_name();
    broken(&format!("{name} is declared with other fields than everywhere else"))
}
