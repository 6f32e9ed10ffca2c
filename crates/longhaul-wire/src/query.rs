//! Binds the path, the query and the body of an HTTP request to its message.
//!
//! A field may be given in several places if they agree; where they differ, the call is refused
//! rather than guessed. Source: google/api/http.proto.

use std::collections::HashMap;

use buffa_descriptor::{FieldKind, SingularKind, Value};
use longhaul_core::{Error, Reason};

use crate::http_rule::{Body, HttpRule};
use crate::json::{self, from_text};
use crate::message::{Field, Message, MessageType, TypeResolver};

/// Faults that one answer names.
const FAULTS_MAX: usize = 20;

/// Where a value that a query contradicts may stand.
const ELSEWHERE: &str = "in the path or the body";

/// What an HTTP request says, cut into its places and decoded, system parameters taken out.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// Fields that the path sets: [`crate::http_rule::Found::variables`].
    pub variables: &'a [(String, String)],
    /// The query's pairs: [`crate::system::extract`].
    pub query: &'a [(String, String)],
    /// The body as it came, JSON or nothing.
    pub body: &'a [u8],
}

/// Makes the request message.
///
/// An empty query value leaves a single field unset, as Google's Rust client sends every field.
/// Without a body clause the body must be absent, blank or `{}`; where the body is one message, a blank
/// one is an empty message. Fails with `BODY_NOT_EMPTY`,
/// `UNKNOWN_FIELD`, `INVALID_VALUE` (also when two places disagree) or `INVALID_JSON`.
pub fn bind(
    rule: &HttpRule,
    ty: &MessageType,
    parts: Parts<'_>,
    resolver: &dyn TypeResolver,
) -> Result<Message, Error> {
    let mut message = bind_body(rule, ty, parts.body, resolver)?;
    for (path, text) in parts.variables {
        bind_variable(&mut message, ty, path, text)?;
    }
    if !parts.query.is_empty() {
        bind_query(&mut message, ty, parts.query)?;
    }
    Ok(message)
}

fn bind_body(
    rule: &HttpRule,
    ty: &MessageType,
    body: &[u8],
    resolver: &dyn TypeResolver,
) -> Result<Message, Error> {
    let blank = body.trim_ascii().is_empty();
    match &rule.body {
        Body::None => {
            if !blank && !is_empty_object(body) {
                return Err(Error::new(
                    Reason::BodyNotEmpty,
                    "the request body must be empty; send none, or {}",
                )
                .at_field("", "the request body must be empty"));
            }
            Ok(Message::new(ty))
        }
        Body::All if blank => Ok(Message::new(ty)),
        Body::All => json::from_json(ty, body, resolver),
        Body::Field(name) => {
            let mut message = Message::new(ty);
            let field = ty.field(name).ok_or_else(|| {
                Error::new(Reason::Internal, format!("HTTP rule {rule}: no field {name:?}"))
            })?;
            if !blank {
                json::field_from_json(&mut message, field, body, resolver)?;
            } else if let Some(inner) = field.message_type().filter(|_| !field.is_many()) {
                // As {} would: a client with nothing to say may send nothing.
                message.set_message(name, Message::new(&inner))?;
            }
            Ok(message)
        }
    }
}

/// `{}`, with blanks anywhere.
fn is_empty_object(body: &[u8]) -> bool {
    let inside = body.trim_ascii().strip_prefix(b"{").and_then(|rest| rest.strip_suffix(b"}"));
    inside.is_some_and(|inside| inside.trim_ascii().is_empty())
}

fn bind_variable(
    message: &mut Message,
    ty: &MessageType,
    path: &str,
    text: &str,
) -> Result<(), Error> {
    let field = ty.field_at(path).ok_or_else(|| {
        Error::new(Reason::Internal, format!("a path sets {path:?}, which is no field"))
    })?;
    let FieldKind::Singular(kind) = field.descriptor.kind() else {
        return Err(Error::new(Reason::Internal, format!("a path sets the list {path:?}")));
    };
    let value = from_text(&ty.pool, kind, text).map_err(|word| {
        let why = format!("Invalid value at '{path}' ({word}), {:?}", shorten(text));
        Error::new(Reason::InvalidValue, why.clone()).with("field", path).at_field(path, why)
    })?;
    set_or_agree(message, path, value, text, "in the body").map_err(|why| {
        Error::new(Reason::InvalidValue, why.clone()).with("field", path).at_field(path, why)
    })
}

/// Sets a field, or checks that it already has this value, which stands in `place`; fails with a
/// sentence.
fn set_or_agree(
    message: &mut Message,
    path: &str,
    value: Value,
    shown: &str,
    place: &str,
) -> Result<(), String> {
    if let Some((_, there)) = message.find(path) {
        if *there == value {
            return Ok(());
        }
        let there = match there {
            Value::String(text) => format!("{:?}", shorten(text)),
            Value::Bool(value) => value.to_string(),
            Value::I32(value) | Value::EnumNumber(value) => value.to_string(),
            Value::I64(value) => value.to_string(),
            Value::U32(value) => value.to_string(),
            Value::U64(value) => value.to_string(),
            Value::F32(value) => value.to_string(),
            Value::F64(value) => value.to_string(),
            Value::Bytes(_) | Value::Message(_) | Value::List(_) | Value::Map(_) => "one".into(),
        };
        return Err(format!(
            "The binding value {:?} of the field '{path}' is conflicting with the value {there} \
             {place}.",
            shorten(shown)
        ));
    }
    message.set_value(path, value).map_err(|error| error.message)
}

/// What the query says about one field.
struct Given<'a> {
    path: String,
    kind: FieldKind,
    texts: Vec<&'a str>,
    values: Vec<Value>,
}

fn bind_query(
    message: &mut Message,
    ty: &MessageType,
    query: &[(String, String)],
) -> Result<(), Error> {
    let mut faults: Vec<(Reason, String, String)> = Vec::new();
    let mut given: Vec<Given<'_>> = Vec::new();
    let mut position: HashMap<String, usize> = HashMap::new();
    for (key, text) in query {
        if faults.len() == FAULTS_MAX {
            break;
        }
        let Some((path, field)) = resolve(ty, key) else {
            let key = shorten(key);
            let why = format!("Field '{key}' could not be found in request message.");
            faults.push((Reason::UnknownField, key.clone(), cannot_bind(&key, &why)));
            continue;
        };
        let at = *position.entry(path.clone()).or_insert_with(|| {
            given.push(Given {
                path,
                kind: field.descriptor.kind(),
                texts: Vec::new(),
                values: Vec::new(),
            });
            given.len() - 1
        });
        if let Err((reason, why)) = given[at].add(ty, key, text) {
            faults.push((reason, given[at].path.clone(), why));
        }
    }
    for field in given {
        let path = field.path.clone();
        if faults.is_empty()
            && let Err(why) = field.set(message)
        {
            faults.push((Reason::InvalidValue, path, why));
        }
    }
    let Some((reason, first, _)) = faults.first() else { return Ok(()) };
    let lines: Vec<&str> = faults.iter().map(|(_, _, why)| why.as_str()).collect();
    let mut error = Error::new(*reason, lines.join("\n")).with("field", first.as_str());
    for (_, path, why) in faults {
        error = error.at_field(path, why);
    }
    Err(error)
}

impl<'a> Given<'a> {
    /// Reads one more value of this field.
    fn add(&mut self, ty: &MessageType, key: &str, text: &'a str) -> Result<(), (Reason, String)> {
        let (kind, single) = match self.kind {
            FieldKind::Singular(kind) => (kind, true),
            FieldKind::List(kind) => (kind, false),
            FieldKind::Map { .. } => {
                let why = format!("Field '{key}' is a map; give it in the body.");
                return Err((Reason::UnknownField, cannot_bind(key, &why)));
            }
        };
        if single && text.is_empty() {
            return Ok(());
        }
        let value = from_text(&ty.pool, kind, text).map_err(|word| {
            let plain_message =
                matches!(kind, SingularKind::Message(_)) && !json::reads_text(&ty.pool, kind);
            if plain_message {
                let why = format!(
                    "'{key}' is a message type. Parameters can only be bound to primitive types."
                );
                return (Reason::UnknownField, cannot_bind(key, &why));
            }
            let path = &self.path;
            let why = format!("Invalid value at '{path}' ({word}), {:?}", shorten(text));
            (Reason::InvalidValue, why)
        })?;
        if single && self.values.first().is_some_and(|there| *there != value) {
            let why = format!("Invalid value at '{}', the field is given twice", self.path);
            return Err((Reason::InvalidValue, why));
        }
        if !single || self.values.is_empty() {
            self.values.push(value);
            self.texts.push(text);
        }
        Ok(())
    }

    fn set(self, message: &mut Message) -> Result<(), String> {
        let shown = self.texts.join(",");
        match self.kind {
            FieldKind::Singular(_) => match self.values.into_iter().next() {
                Some(value) => set_or_agree(message, &self.path, value, &shown, ELSEWHERE),
                None => Ok(()),
            },
            FieldKind::List(_) => {
                set_or_agree(message, &self.path, Value::List(self.values), &shown, ELSEWHERE)
            }
            FieldKind::Map { .. } => Ok(()),
        }
    }
}

/// The field that a key means and its path in proto names, whichever names the key uses.
fn resolve<'t>(ty: &'t MessageType, key: &str) -> Option<(String, Field<'t>)> {
    let field = ty.field_at(key)?;
    if !key.contains('.') {
        return Some((field.name().to_owned(), field));
    }
    let mut path = String::with_capacity(key.len());
    for (end, _) in key.match_indices('.') {
        path.push_str(ty.field_at(&key[..end])?.name());
        path.push('.');
    }
    path.push_str(field.name());
    Some((path, field))
}

fn cannot_bind(name: &str, why: &str) -> String {
    format!(
        "Invalid JSON payload received. Unknown name \"{name}\": Cannot bind query parameter. {why}"
    )
}

/// The caller's own text, cut so that an answer stays short.
fn shorten(text: &str) -> String {
    match text.char_indices().nth(100) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
