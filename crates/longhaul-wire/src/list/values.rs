//! Comparing one value of an operation with what a filter says.

use std::cmp::Ordering;

use aip_160::Comparator;

use crate::json::{parse_duration, parse_timestamp};
use crate::message::{EnumType, FieldValue, Kind, Message, MessageType, SingularKind};

/// The right side of a comparison, as it was written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wanted {
    pub text: String,
}

impl Wanted {
    /// `*`: any value at all.
    pub(super) fn is_any(&self) -> bool {
        self.text == "*"
    }
}

/// Whether `field OP wanted` makes sense for a path of a type; a sentence says why not.
pub(super) fn check(
    ty: &MessageType,
    path: &[String],
    op: Comparator,
    wanted: &Wanted,
) -> Result<(), String> {
    let Some((first, rest)) = path.split_first() else { return Err("the path is empty".into()) };
    let field =
        ty.field(first).ok_or_else(|| format!("{} has no field {first:?}", ty.full_name()))?;
    match field.kind() {
        Kind::Single(SingularKind::Message(inner)) if !rest.is_empty() => {
            check(&inner, rest, op, wanted)
        }
        Kind::Single(kind) => {
            no_more(rest, first)?;
            check_single(&kind, op, wanted)
        }
        Kind::Repeated(SingularKind::Message(inner)) if !rest.is_empty() => {
            check(&inner, rest, op, wanted)
        }
        Kind::Repeated(kind) => {
            no_more(rest, first)?;
            if op != Comparator::Has {
                return Err(format!("{first} is a list; use {first}:VALUE"));
            }
            check_single(&kind, op, wanted)
        }
        Kind::Map(_, value) => match (rest, value) {
            ([], _) if op == Comparator::Has => Ok(()),
            ([], _) => Err(format!("{first} is a map; use {first}.KEY = VALUE or {first}:KEY")),
            ([_key], value) => check_single(&value, op, wanted),
            ([_key, rest @ ..], SingularKind::Message(inner)) => check(&inner, rest, op, wanted),
            ([_key, ..], _) => no_more(&rest[1..], first),
        },
    }
}

fn no_more(rest: &[String], field: &str) -> Result<(), String> {
    match rest.first() {
        Some(part) => Err(format!("{field} has no field {part:?}")),
        None => Ok(()),
    }
}

fn check_single(kind: &SingularKind, op: Comparator, wanted: &Wanted) -> Result<(), String> {
    if op == Comparator::Has && wanted.is_any() {
        return Ok(());
    }
    let text = &wanted.text;
    let equality = matches!(op, Comparator::Equal | Comparator::NotEqual | Comparator::Has);
    match kind {
        SingularKind::String => Ok(()),
        SingularKind::Bool if !equality => Err("truth values have no order".into()),
        SingularKind::Bool => match text.as_str() {
            "true" | "false" => Ok(()),
            _ => Err(format!("{text:?} is neither true nor false")),
        },
        SingularKind::Enum(_) if !equality => Err("enum values have no order".into()),
        SingularKind::Enum(ty) => enum_number(ty, text)
            .map(|_| ())
            .ok_or_else(|| format!("{} has no value {text:?}", ty.full_name())),
        SingularKind::Int32
        | SingularKind::Int64
        | SingularKind::Uint32
        | SingularKind::Uint64
        | SingularKind::Float
        | SingularKind::Double => {
            number(text).map(|_| ()).ok_or_else(|| format!("{text:?} is no number"))
        }
        SingularKind::Message(ty) => match ty.full_name() {
            "google.protobuf.Timestamp" => parse_timestamp(text).map(|_| ()).ok_or_else(|| {
                format!("{text:?} is no time; write one as \"2026-01-31T12:00:00Z\", in quotes")
            }),
            "google.protobuf.Duration" => parse_duration(text)
                .map(|_| ())
                .ok_or_else(|| format!("{text:?} is no duration; write one as 20s or 1.5s")),
            name => {
                Err(format!("{name} has no order and no equality; compare its fields, or use :*"))
            }
        },
        SingularKind::Bytes => Err("bytes cannot be compared; use :*".into()),
    }
}

/// Whether `message` has a value at `path` that compares so. A path was checked for some type of the
/// API; for a message of another one it may not exist, and then nothing matches.
///
/// A field that is not there matches nothing, not even `!=`; one without presence has its default.
pub(super) fn test(message: &Message, path: &[String], op: Comparator, wanted: &Wanted) -> bool {
    let Some((first, rest)) = path.split_first() else { return false };
    let ty = message.message_type();
    let Some(field) = ty.field(first) else { return false };
    let value = message.get(first);
    match (field.kind(), value) {
        (Kind::Single(SingularKind::Message(_)), Some(FieldValue::Message(inner)))
            if !rest.is_empty() =>
        {
            test(&inner, rest, op, wanted)
        }
        (Kind::Single(kind), value) if rest.is_empty() => {
            let value = value.or_else(|| if field.has_presence() { None } else { default(&kind) });
            value.is_some_and(|value| compare(&kind, &value, op, wanted))
        }
        (Kind::Repeated(_), Some(FieldValue::List(items)))
            if rest.is_empty() && wanted.is_any() =>
        {
            !items.is_empty()
        }
        (Kind::Repeated(kind), Some(FieldValue::List(items))) => {
            items.iter().any(|item| test_element(&kind, item, rest, op, wanted))
        }
        (Kind::Map(_, kind), Some(FieldValue::Map(entries))) => match rest.split_first() {
            None => wanted.is_any() || entries.iter().any(|(key, _)| *key == wanted.text),
            Some((key, rest)) => entries
                .iter()
                .any(|(own, value)| own == key && test_element(&kind, value, rest, op, wanted)),
        },
        _ => false,
    }
}

/// [`test`] for one element of a list or map.
fn test_element(
    kind: &SingularKind,
    value: &FieldValue,
    rest: &[String],
    op: Comparator,
    wanted: &Wanted,
) -> bool {
    if rest.is_empty() {
        return compare(kind, value, op, wanted);
    }
    if let FieldValue::Message(inner) = value { test(inner, rest, op, wanted) } else { false }
}

/// The default of a scalar; `None` for a message.
fn default(kind: &SingularKind) -> Option<FieldValue> {
    Some(match kind {
        SingularKind::Bool => FieldValue::Bool(false),
        SingularKind::Int32 | SingularKind::Int64 => FieldValue::Int(0),
        SingularKind::Uint32 | SingularKind::Uint64 => FieldValue::Uint(0),
        SingularKind::Float | SingularKind::Double => FieldValue::Float(0.0),
        SingularKind::String => FieldValue::String(String::new()),
        SingularKind::Bytes => FieldValue::Bytes(Vec::new()),
        SingularKind::Enum(ty) => {
            let zero = ty.values().find(|(_, number)| *number == 0);
            let name = zero.map_or("", |(name, _)| name).to_owned();
            FieldValue::Enum { name, number: 0 }
        }
        SingularKind::Message(_) => return None,
    })
}

fn compare(kind: &SingularKind, value: &FieldValue, op: Comparator, wanted: &Wanted) -> bool {
    if op == Comparator::Has && wanted.is_any() {
        return is_present(value);
    }
    match value {
        FieldValue::String(text) => compare_text(text, op, wanted),
        FieldValue::Bool(value) => holds(op, value.to_string() == wanted.text),
        FieldValue::Int(value) => compare_number(i128::from(*value).into(), op, wanted),
        FieldValue::Uint(value) => compare_number(i128::from(*value).into(), op, wanted),
        FieldValue::Float(value) => compare_number(Number::Fraction(*value), op, wanted),
        FieldValue::Enum { number, .. } => {
            let SingularKind::Enum(ty) = kind else { return false };
            enum_number(ty, &wanted.text).is_some_and(|wanted| holds(op, *number == wanted))
        }
        FieldValue::Message(inner) => {
            let wanted = match inner.full_name() {
                "google.protobuf.Timestamp" => parse_timestamp(&wanted.text),
                "google.protobuf.Duration" => parse_duration(&wanted.text),
                _ => None,
            };
            let int = |field: &str| match inner.get(field) {
                Some(FieldValue::Int(value)) => value,
                _ => 0,
            };
            let own = (int("seconds"), int("nanos"));
            wanted.is_some_and(|(s, n)| ordered(op, own.cmp(&(s, i64::from(n)))))
        }
        FieldValue::Bytes(_) | FieldValue::List(_) | FieldValue::Map(_) => false,
    }
}

fn is_present(value: &FieldValue) -> bool {
    match value {
        FieldValue::String(text) => !text.is_empty(),
        FieldValue::Bytes(bytes) => !bytes.is_empty(),
        FieldValue::List(items) => !items.is_empty(),
        FieldValue::Map(entries) => !entries.is_empty(),
        FieldValue::Bool(value) => *value,
        FieldValue::Int(value) => *value != 0,
        FieldValue::Uint(value) => *value != 0,
        FieldValue::Float(value) => *value != 0.0,
        FieldValue::Enum { number, .. } => *number != 0,
        FieldValue::Message(_) => true,
    }
}

/// Text: `=` takes `*` for any run of characters, `:` finds a part, the rest goes by code points.
pub(super) fn compare_text(text: &str, op: Comparator, wanted: &Wanted) -> bool {
    match op {
        Comparator::Equal => glob(&wanted.text, text),
        Comparator::NotEqual => !glob(&wanted.text, text),
        Comparator::Has if wanted.is_any() => !text.is_empty(),
        Comparator::Has if wanted.text.contains('*') => glob(&wanted.text, text),
        Comparator::Has => text.contains(&wanted.text),
        Comparator::GreaterThan
        | Comparator::GreaterThanOrEqual
        | Comparator::LessThan
        | Comparator::LessThanOrEqual => ordered(op, text.cmp(&wanted.text)),
    }
}

/// Whether a comparator that asks for equality holds; the others never do.
pub(super) fn holds(op: Comparator, equal: bool) -> bool {
    match op {
        Comparator::Equal | Comparator::Has => equal,
        Comparator::NotEqual => !equal,
        Comparator::GreaterThan
        | Comparator::GreaterThanOrEqual
        | Comparator::LessThan
        | Comparator::LessThanOrEqual => false,
    }
}

/// Whether a comparator holds for the order of value to wanted.
pub(super) fn ordered(op: Comparator, order: Ordering) -> bool {
    match op {
        Comparator::Equal | Comparator::Has => order == Ordering::Equal,
        Comparator::NotEqual => order != Ordering::Equal,
        Comparator::GreaterThan => order == Ordering::Greater,
        Comparator::GreaterThanOrEqual => order != Ordering::Less,
        Comparator::LessThan => order == Ordering::Less,
        Comparator::LessThanOrEqual => order != Ordering::Greater,
    }
}

/// A number, exact where it is whole.
#[derive(Clone, Copy, Debug)]
pub(super) enum Number {
    Whole(i128),
    Fraction(f64),
}

impl From<i128> for Number {
    fn from(value: i128) -> Self {
        Self::Whole(value)
    }
}

/// Reads a finite decimal number.
pub(super) fn number(text: &str) -> Option<Number> {
    if let Ok(whole) = text.parse::<i64>() {
        return Some(Number::Whole(whole.into()));
    }
    if let Ok(whole) = text.parse::<u64>() {
        return Some(Number::Whole(whole.into()));
    }
    let plain = |c: char| c.is_ascii_digit() || "+-.eE".contains(c);
    let fraction: f64 = text.parse().ok().filter(|_| text.chars().all(plain))?;
    fraction.is_finite().then_some(Number::Fraction(fraction))
}

pub(super) fn compare_number(own: Number, op: Comparator, wanted: &Wanted) -> bool {
    let Some(wanted) = number(&wanted.text) else { return false };
    let order = match (own, wanted) {
        (Number::Whole(own), Number::Whole(wanted)) => Some(own.cmp(&wanted)),
        (own, wanted) => own.as_f64().partial_cmp(&wanted.as_f64()),
    };
    order.is_some_and(|order| ordered(op, order))
}

impl Number {
    fn as_f64(self) -> f64 {
        match self {
            #[allow(clippy::cast_precision_loss, reason = "compared with a fraction")]
            Self::Whole(value) => value as f64,
            Self::Fraction(value) => value,
        }
    }
}

/// An enum value by name, in any case, or by number.
fn enum_number(ty: &EnumType, text: &str) -> Option<i32> {
    let named = ty.values().find(|(name, _)| name.eq_ignore_ascii_case(text));
    named.map(|(_, number)| number).or_else(|| text.parse().ok())
}

/// Whether `text` has the shape of `pattern`, where `*` stands for any run of characters. Linear in
/// practice and quadratic at worst: each star is tried leftmost first and never revisited.
fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, text, matches) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("", "", true),
            ("*", "", true),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*c", "abc", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "ac", false),
            ("ab*ba", "aba", false),
            ("*é*", "caféx", true),
        ] {
            assert_eq!(glob(pattern, text), matches, "{pattern} {text}");
        }
    }

    #[test]
    fn numbers_are_exact_where_they_are_whole() {
        let wanted = |text: &str| Wanted { text: text.into() };
        let big = Number::Whole(i64::MAX.into());
        assert!(compare_number(big, Comparator::Equal, &wanted("9223372036854775807")));
        assert!(compare_number(big, Comparator::GreaterThan, &wanted("9223372036854775806")));
        assert!(compare_number(1.into(), Comparator::LessThan, &wanted("1.5")));
        assert!(!compare_number(1.into(), Comparator::Equal, &wanted("NaN")));
        assert!(number("inf").is_none());
        assert!(number("1e5").is_some());
    }
}
