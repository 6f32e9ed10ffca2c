//! Single values from JSON tokens and from plain text (query and path).
//!
//! Source: protobuf's JSON mapping: numbers as numbers or texts, `NaN` and `Infinity` as texts,
//! base64 of either alphabet with or without padding, enum values by name or number.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use buffa::editions::EnumType;
use buffa_descriptor::{
    DescriptorPool, DynamicMessage, EnumIndex, FieldDescriptor, MapKey, ReflectMessage as _,
    ReflectMessageMut as _, ScalarType, SingularKind, Value,
};

use super::names::{NULL_VALUE, WellKnown, to_snake, type_word};
use super::time;

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// A scalar token of JSON.
#[derive(Clone, Copy, Debug)]
pub(super) enum Token<'a> {
    Text(&'a str),
    Number(&'a str),
    Bool(bool),
}

/// The value that a token means for a scalar; `None` when it means none.
pub(super) fn scalar(scalar: ScalarType, token: Token<'_>) -> Option<Value> {
    Some(match scalar {
        ScalarType::Bool => match token {
            Token::Bool(value) => Value::Bool(value),
            Token::Text(_) | Token::Number(_) => return None,
        },
        ScalarType::String => match token {
            Token::Text(text) => Value::String(text.to_owned()),
            Token::Bool(_) | Token::Number(_) => return None,
        },
        ScalarType::Bytes => match token {
            Token::Text(text) => Value::Bytes(bytes(text)?),
            Token::Bool(_) | Token::Number(_) => return None,
        },
        ScalarType::Int32 | ScalarType::Sint32 | ScalarType::Sfixed32 => {
            Value::I32(i32::try_from(integer(token)?).ok()?)
        }
        ScalarType::Int64 | ScalarType::Sint64 | ScalarType::Sfixed64 => {
            Value::I64(i64::try_from(integer(token)?).ok()?)
        }
        ScalarType::Uint32 | ScalarType::Fixed32 => {
            Value::U32(u32::try_from(integer(token)?).ok()?)
        }
        ScalarType::Uint64 | ScalarType::Fixed64 => {
            Value::U64(u64::try_from(integer(token)?).ok()?)
        }
        ScalarType::Double => Value::F64(float(token)?),
        ScalarType::Float => {
            let wide = float(token)?;
            #[allow(clippy::cast_possible_truncation, reason = "overflow is checked below")]
            let narrow = wide as f32;
            if narrow.is_infinite() && !wide.is_infinite() {
                return None;
            }
            Value::F32(narrow)
        }
    })
}

/// The value that a token means for an enum; `None` when it has no such value.
pub(super) fn enum_value(
    pool: &DescriptorPool,
    index: EnumIndex,
    token: Token<'_>,
) -> Option<Value> {
    let descriptor = pool.enumeration(index);
    let number = match token {
        Token::Text(name) => descriptor.value_by_name(name)?.number(),
        Token::Number(_) => {
            let number = i32::try_from(integer(token)?).ok()?;
            if descriptor.enum_type() == EnumType::Closed {
                descriptor.value(number)?;
            }
            number
        }
        Token::Bool(_) => return None,
    };
    Some(Value::EnumNumber(number))
}

/// The key that a JSON name means in a map.
pub(super) fn map_key(kind: ScalarType, text: &str) -> Option<MapKey> {
    if kind == ScalarType::Bool {
        return text.parse().ok().map(MapKey::Bool);
    }
    match scalar(kind, Token::Text(text))? {
        Value::String(v) => Some(MapKey::String(v)),
        Value::I32(v) => Some(MapKey::I32(v)),
        Value::I64(v) => Some(MapKey::I64(v)),
        Value::U32(v) => Some(MapKey::U32(v)),
        Value::U64(v) => Some(MapKey::U64(v)),
        Value::Bool(_)
        | Value::F32(_)
        | Value::F64(_)
        | Value::Bytes(_)
        | Value::EnumNumber(_)
        | Value::Message(_)
        | Value::List(_)
        | Value::Map(_) => None,
    }
}

/// The value that plain text means for a field, as a query or a path gives it.
///
/// Messages are taken where their JSON form is one text or one scalar. Fails with a sentence that
/// says what was expected.
pub(crate) fn from_text(
    pool: &std::sync::Arc<DescriptorPool>,
    kind: SingularKind,
    text: &str,
) -> Result<Value, String> {
    match kind {
        SingularKind::Scalar(ScalarType::Bool) => match text {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => Err(kind_word(pool, kind)),
        },
        SingularKind::Scalar(ty) => {
            scalar(ty, Token::Text(text)).ok_or_else(|| kind_word(pool, kind))
        }
        SingularKind::Enum(index) => enum_value(pool, index, Token::Text(text))
            .or_else(|| enum_value(pool, index, Token::Number(text)))
            .ok_or_else(|| kind_word(pool, kind)),
        SingularKind::Message(index) => {
            let mut message = DynamicMessage::new(pool.clone(), index);
            let name = pool.message(index).full_name();
            let set = match WellKnown::of(name) {
                Some(WellKnown::Wrapper) => match message.message_descriptor().field(1) {
                    Some(field) => match field.kind() {
                        buffa_descriptor::FieldKind::Singular(inner) => {
                            let value = from_text(pool, inner, text)?;
                            put(&mut message, 1, value)
                        }
                        buffa_descriptor::FieldKind::List(_)
                        | buffa_descriptor::FieldKind::Map { .. } => None,
                    },
                    None => None,
                },
                Some(known) => special_text(&mut message, known, text),
                None => None,
            };
            set.map(|()| Value::Message(message)).ok_or_else(|| kind_word(pool, kind))
        }
    }
}

/// Fills a well-known message whose JSON form is a text; `None` when the text is not of that form.
pub(super) fn special_text(
    message: &mut DynamicMessage,
    known: WellKnown,
    text: &str,
) -> Option<()> {
    match known {
        WellKnown::Timestamp | WellKnown::Duration => {
            let parse = if known == WellKnown::Timestamp {
                time::parse_timestamp
            } else {
                time::parse_duration
            };
            let (seconds, nanos) = parse(text)?;
            // Zero is the default of both, and is left out of the bytes.
            if seconds != 0 {
                put(message, 1, Value::I64(seconds))?;
            }
            if nanos != 0 {
                put(message, 2, Value::I32(nanos))?;
            }
            Some(())
        }
        WellKnown::FieldMask => {
            let paths: Vec<_> =
                text.split(',').map(str::trim).filter(|path| !path.is_empty()).collect();
            if paths.is_empty() {
                return Some(());
            }
            let paths = paths.into_iter().map(|path| Value::String(to_snake(path))).collect();
            put(message, 1, Value::List(paths))
        }
        WellKnown::Value => put(message, 3, Value::String(text.to_owned())),
        WellKnown::Any
        | WellKnown::Empty
        | WellKnown::ListValue
        | WellKnown::Struct
        | WellKnown::Wrapper => None,
    }
}

/// Sets a field by number; `None` when the type has no such field of this shape.
pub(super) fn put(message: &mut DynamicMessage, number: u32, value: Value) -> Option<()> {
    let pool = message.pool().clone();
    let field: &FieldDescriptor = pool.message(message.message_index()).field(number)?;
    message.try_set(field, value).ok()
}

/// The type of a value in Google's messages: `TYPE_INT32` or `type.googleapis.com/pkg.Name`.
pub(super) fn kind_word(pool: &DescriptorPool, kind: SingularKind) -> String {
    match kind {
        SingularKind::Scalar(scalar) => type_word(scalar).to_owned(),
        SingularKind::Enum(index) => {
            format!("type.googleapis.com/{}", pool.enumeration(index).full_name())
        }
        SingularKind::Message(index) => {
            format!("type.googleapis.com/{}", pool.message(index).full_name())
        }
    }
}

/// Whether a null is a value of this kind rather than the absence of one.
pub(super) fn takes_null(pool: &DescriptorPool, kind: SingularKind) -> bool {
    match kind {
        SingularKind::Scalar(_) => false,
        SingularKind::Enum(index) => pool.enumeration(index).full_name() == NULL_VALUE,
        SingularKind::Message(index) => {
            WellKnown::of(pool.message(index).full_name()) == Some(WellKnown::Value)
        }
    }
}

/// Whether the JSON form of this kind is one text or one scalar, so that a query can give it.
pub(crate) fn reads_text(pool: &DescriptorPool, kind: SingularKind) -> bool {
    let SingularKind::Message(index) = kind else { return true };
    match WellKnown::of(pool.message(index).full_name()) {
        Some(
            WellKnown::Timestamp
            | WellKnown::Duration
            | WellKnown::FieldMask
            | WellKnown::Value
            | WellKnown::Wrapper,
        ) => true,
        Some(WellKnown::Any | WellKnown::Empty | WellKnown::ListValue | WellKnown::Struct) => false,
        None => false,
    }
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    let engine = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
    engine.decode(text).ok()
}

/// A whole number, also when it is written with a fraction of zero or an exponent.
fn integer(token: Token<'_>) -> Option<i128> {
    let text = number_text(token)?;
    if let Ok(value) = text.parse::<i128>() {
        return Some(value);
    }
    let value: f64 = text.parse().ok()?;
    let in_range = value.fract() == 0.0 && value.abs() < 2_f64.powi(64);
    #[allow(clippy::cast_possible_truncation, reason = "whole and in range")]
    in_range.then_some(value as i128)
}

fn float(token: Token<'_>) -> Option<f64> {
    if let Token::Text(text) = token {
        match text {
            "NaN" => return Some(f64::NAN),
            "Infinity" => return Some(f64::INFINITY),
            "-Infinity" => return Some(f64::NEG_INFINITY),
            _ => {}
        }
    }
    let value: f64 = number_text(token)?.parse().ok()?;
    value.is_finite().then_some(value)
}

/// The text of a number, checked: Rust would also read `+1`, `1.`, `.5` and `inf`.
fn number_text<'a>(token: Token<'a>) -> Option<&'a str> {
    let text = match token {
        Token::Number(text) | Token::Text(text) => text,
        Token::Bool(_) => return None,
    };
    let figures = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let unsigned = mantissa.strip_prefix('-').unwrap_or(mantissa);
    let (whole, fraction) = match unsigned.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (unsigned, None),
    };
    let plain = figures(whole) && fraction.is_none_or(figures);
    let raised = exponent.is_none_or(|text| figures(text.strip_prefix(['+', '-']).unwrap_or(text)));
    (plain && raised && text.len() <= 400).then_some(text)
}
