//! Writing and rearranging single fields of encoded messages, without decoding them.
//!
//! Broken input is copied as far as it can be read; nothing here fails or panics.

use longhaul_core::Timestamp;
use prost::encoding::{WireType, decode_varint, encode_key, encode_varint, key_len};

/// Appends a text field; nothing for an empty one.
pub(super) fn put_str(out: &mut Vec<u8>, number: u32, text: &str) {
    if !text.is_empty() {
        put_bytes(out, number, text.as_bytes());
    }
}

/// Appends a truth value; nothing for false.
pub(super) fn put_bool(out: &mut Vec<u8>, number: u32, value: bool) {
    if value {
        put_varint(out, number, 1);
    }
}

/// Appends an enum value; nothing for 0.
pub(super) fn put_enum(out: &mut Vec<u8>, number: u32, value: i32) {
    if value != 0 {
        // A negative number is sign-extended to ten bytes. Source: protobuf encoding, varints.
        put_varint(out, number, i64::from(value).cast_unsigned());
    }
}

/// Appends a `google.protobuf.Timestamp`.
pub(super) fn put_timestamp(out: &mut Vec<u8>, number: u32, at: Timestamp) {
    let mut inner = Vec::with_capacity(16);
    if at.seconds() != 0 {
        put_varint(&mut inner, 1, at.seconds().cast_unsigned());
    }
    if at.nanos() != 0 {
        put_varint(&mut inner, 2, i64::from(at.nanos()).cast_unsigned());
    }
    put_bytes(out, number, &inner);
}

/// Appends bytes, text or an encoded message, even when empty.
pub(super) fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    out.reserve(key_len(number) + 10 + bytes.len());
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn put_varint(out: &mut Vec<u8>, number: u32, value: u64) {
    encode_key(number, WireType::Varint, out);
    encode_varint(value, out);
}

/// Takes a message field out of an encoded message: everything else, and the field's own bytes, or
/// `None` when the field is not there. Several occurrences are merged, as decoding would.
pub(super) fn take_message(encoded: &[u8], number: u32) -> (Vec<u8>, Option<Vec<u8>>) {
    let mut rest = Vec::with_capacity(encoded.len());
    let mut taken: Option<Vec<u8>> = None;
    let mut left = encoded;
    while !left.is_empty() {
        let Some(RawField { number: field, content, after }) = next_field(left) else {
            rest.extend_from_slice(left);
            break;
        };
        match content {
            Some(content) if field == number => {
                taken.get_or_insert_default().extend_from_slice(content);
            }
            Some(_) | None => rest.extend_from_slice(&left[..left.len() - after.len()]),
        }
        left = after;
    }
    (rest, taken)
}

/// The first field of an encoded message.
struct RawField<'a> {
    number: u32,
    /// Its content, if it is length-delimited.
    content: Option<&'a [u8]>,
    /// What follows it.
    after: &'a [u8],
}

fn next_field(encoded: &[u8]) -> Option<RawField<'_>> {
    let mut after = encoded;
    let key = decode_varint(&mut after).ok()?;
    let number = u32::try_from(key >> 3).ok()?;
    let skip = match key & 7 {
        0 => {
            decode_varint(&mut after).ok()?;
            0
        }
        1 => 8,
        2 => {
            let length = usize::try_from(decode_varint(&mut after).ok()?).ok()?;
            let content = after.get(..length)?;
            return Some(RawField { number, content: Some(content), after: &after[length..] });
        }
        5 => 4,
        _ => return None,
    };
    Some(RawField { number, content: None, after: after.get(skip..)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_field_is_taken_out_and_merged() {
        let mut encoded = Vec::new();
        put_str(&mut encoded, 1, "a");
        put_bytes(&mut encoded, 9, b"xy");
        put_bool(&mut encoded, 3, true);
        put_bytes(&mut encoded, 9, b"z");
        let (rest, taken) = take_message(&encoded, 9);
        assert_eq!(taken.unwrap(), b"xyz");
        assert_eq!(rest, [&[0x0a, 1][..], b"a", &[0x18, 1]].concat());
        assert_eq!(take_message(&rest, 9), (rest.clone(), None));
    }

    #[test]
    fn broken_bytes_are_copied_as_they_are() {
        for broken in [&[0x4a, 0xff][..], &[0xff; 11], &[0x4a, 0x05, 1], &[0x0b], &[0x0d, 1]] {
            assert_eq!(take_message(broken, 9), (broken.to_vec(), None));
        }
    }

    #[test]
    fn defaults_are_not_written() {
        let mut out = Vec::new();
        put_str(&mut out, 1, "");
        put_bool(&mut out, 2, false);
        put_enum(&mut out, 3, 0);
        assert!(out.is_empty());
        put_timestamp(&mut out, 1, Timestamp::from_micros(-1_500_000));
        let inner = prost_types::Timestamp { seconds: -2, nanos: 500_000_000 };
        let inner = prost::Message::encode_to_vec(&inner);
        assert_eq!(out, [&[0x0a, inner.len() as u8][..], &inner].concat());
    }
}
