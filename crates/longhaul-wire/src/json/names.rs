//! Names between the proto file and JSON, and the words of Google's messages about types.

use buffa_descriptor::ScalarType;

/// Which messages have a JSON form of their own. Source: protobuf's JSON mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WellKnown {
    Any,
    Duration,
    Empty,
    FieldMask,
    ListValue,
    Struct,
    Timestamp,
    Value,
    /// `BoolValue`, `StringValue` and the like: one field, number 1, called `value`.
    Wrapper,
}

impl WellKnown {
    pub(super) fn of(full_name: &str) -> Option<Self> {
        let short = full_name.strip_prefix("google.protobuf.")?;
        match short {
            "Any" => Some(Self::Any),
            "Duration" => Some(Self::Duration),
            "Empty" => Some(Self::Empty),
            "FieldMask" => Some(Self::FieldMask),
            "ListValue" => Some(Self::ListValue),
            "Struct" => Some(Self::Struct),
            "Timestamp" => Some(Self::Timestamp),
            "Value" => Some(Self::Value),
            "BoolValue" | "BytesValue" | "DoubleValue" | "FloatValue" | "Int32Value"
            | "Int64Value" | "StringValue" | "UInt32Value" | "UInt64Value" => Some(Self::Wrapper),
            _ => None,
        }
    }
}

/// The enum whose only value is written as null.
pub(super) const NULL_VALUE: &str = "google.protobuf.NullValue";

/// The name of a scalar type in Google's messages, such as `TYPE_INT32`.
pub(super) fn type_word(scalar: ScalarType) -> &'static str {
    match scalar {
        ScalarType::Double => "TYPE_DOUBLE",
        ScalarType::Float => "TYPE_FLOAT",
        ScalarType::Int64 => "TYPE_INT64",
        ScalarType::Uint64 => "TYPE_UINT64",
        ScalarType::Int32 => "TYPE_INT32",
        ScalarType::Fixed64 => "TYPE_FIXED64",
        ScalarType::Fixed32 => "TYPE_FIXED32",
        ScalarType::Bool => "TYPE_BOOL",
        ScalarType::String => "TYPE_STRING",
        ScalarType::Bytes => "TYPE_BYTES",
        ScalarType::Uint32 => "TYPE_UINT32",
        ScalarType::Sfixed32 => "TYPE_SFIXED32",
        ScalarType::Sfixed64 => "TYPE_SFIXED64",
        ScalarType::Sint32 => "TYPE_SINT32",
        ScalarType::Sint64 => "TYPE_SINT64",
    }
}

/// `create_time` to `createTime`; dots and everything else stay.
pub(crate) fn to_camel(path: &str) -> String {
    let mut camel = String::with_capacity(path.len());
    let mut chars = path.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek().copied()) {
            ('_', Some(next)) if next.is_ascii_lowercase() => {
                camel.push(next.to_ascii_uppercase());
                chars.next();
            }
            (c, _) => camel.push(c),
        }
    }
    camel
}

/// `createTime` to `create_time`; what is already so stays.
pub(super) fn to_snake(path: &str) -> String {
    let mut snake = String::with_capacity(path.len() + 8);
    for c in path.chars() {
        if c.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}
