//! The `fields` parameter: which parts of an answer are wanted.
//!
//! Names separated by commas; `a/b` and `a.b` go deeper, `a(b,c)` groups, `*` is any name. Names
//! may be camelCase or as in the proto file. Works on the finished JSON, since only few callers
//! use it. Source: Google's API guides on partial responses.

use longhaul_core::{Error, Reason};
use serde_json::Value;

use crate::json::to_camel;
use crate::message::MessageType;

/// Longest mask, in bytes.
const MASK_BYTES_MAX: usize = 4_096;
/// Deepest path in a mask.
const MASK_DEPTH_MAX: usize = 20;

/// A parsed mask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseMask {
    /// All of it is wanted, whatever the names say.
    whole: bool,
    /// Wanted names in JSON form, each with what is wanted below.
    children: Vec<(String, Self)>,
}

impl ResponseMask {
    /// Parses a mask such as `name,metadata(target,verb)`.
    ///
    /// Fails with `SYSTEM_PARAMETER_UNSUPPORTED`; the message repeats the mask.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut mask = Self::default();
        let mut parser = Parser { rest: text };
        let parsed = text.len() <= MASK_BYTES_MAX
            && parser.list(&mut mask, 0).is_some()
            && parser.rest.is_empty();
        if parsed { Ok(mask) } else { Err(invalid(text)) }
    }

    /// Checks the names against the type of the answer, as far as it is known before it is there:
    /// the inside of an `Any`, a map or a `Struct` is not.
    ///
    /// Fails with `SYSTEM_PARAMETER_UNSUPPORTED`, naming the first name that the type lacks.
    pub fn check(&self, ty: &MessageType) -> Result<(), Error> {
        if ty.full_name().starts_with("google.protobuf.") {
            return Ok(());
        }
        for (name, below) in self.children.iter().filter(|(name, _)| name != "*") {
            let known = ty.fields().find(|field| field.json_name() == name);
            let Some(field) = known else { return Err(invalid(name)) };
            let is_map = matches!(field.kind(), crate::message::Kind::Map(_, _));
            match field.message_type() {
                Some(inner) if !is_map => below.check(&inner)?,
                Some(_) => {}
                None if below.children.is_empty() || is_map => {}
                None => return Err(invalid(&below.children[0].0)),
            }
        }
        Ok(())
    }

    /// Keeps what is wanted of a JSON text that this server wrote.
    ///
    /// Fails with `INTERNAL` when the text is no JSON.
    pub fn apply(&self, json: &[u8], pretty: bool) -> Result<Vec<u8>, Error> {
        let internal = |cause: serde_json::Error| {
            Error::new(Reason::Internal, "the answer cannot be masked").caused_by(cause)
        };
        let mut value: Value = serde_json::from_slice(json).map_err(internal)?;
        self.filter(&mut value);
        let write = if pretty { serde_json::to_vec_pretty } else { serde_json::to_vec };
        write(&value).map_err(internal)
    }

    fn filter(&self, value: &mut Value) {
        if self.whole {
            return;
        }
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| self.filter(item)),
            Value::Object(entries) => {
                entries.retain(|name, value| {
                    let mut wanted = false;
                    for (child, below) in &self.children {
                        if child == "*" || child == name {
                            below.filter(value);
                            wanted = true;
                            break;
                        }
                    }
                    wanted
                });
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// The child of this name, made if need be.
    fn child(&mut self, name: &str) -> &mut Self {
        let at = self.children.iter().position(|(child, _)| child == name);
        let at = at.unwrap_or_else(|| {
            self.children.push((name.to_owned(), Self::default()));
            self.children.len() - 1
        });
        &mut self.children[at].1
    }
}

fn invalid(shown: &str) -> Error {
    let shown: String = shown.chars().take(100).collect();
    let why = format!("Invalid field selection {shown}");
    Error::new(Reason::InvalidSystemParameter, why.clone())
        .with("fields", shown)
        .at_field("fields", why)
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn list(&mut self, into: &mut ResponseMask, depth: usize) -> Option<()> {
        if depth > MASK_DEPTH_MAX {
            return None;
        }
        loop {
            self.path(into, depth)?;
            if !self.take(',') {
                return Some(());
            }
        }
    }

    fn path(&mut self, into: &mut ResponseMask, depth: usize) -> Option<()> {
        if depth > MASK_DEPTH_MAX {
            return None;
        }
        let word = |c: char| c.is_ascii_alphanumeric() || "_*@-$".contains(c);
        let trimmed = self.rest.trim_start();
        let end = trimmed.find(|c| !word(c)).unwrap_or(trimmed.len());
        let (name, rest) = trimmed.split_at(end);
        if name.is_empty() {
            return None;
        }
        self.rest = rest;
        let child = into.child(&to_camel(name));
        if self.take('/') || self.take('.') {
            return self.path(child, depth + 1);
        }
        if self.take('(') {
            self.list(child, depth + 1)?;
            return self.take(')').then_some(());
        }
        child.whole = true;
        Some(())
    }

    fn take(&mut self, wanted: char) -> bool {
        match self.rest.trim_start().strip_prefix(wanted) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }
}
