//! The chain that ties the lines of an audit log together: each names the one before, and has a SHA-256
//! of its own.
//!
//! Owns the end of a line, byte for byte. What stands before it is `entry.rs`'s; files are `file.rs`'s.
//!
//! A line ends with `"labels":{…,"longhaul/sequence":"N","longhaul/previous":"HEX","longhaul/hash":"HEX"}}`.
//! The hash is that of all bytes of the line before `,"longhaul/hash"`, so any tool can check it.

use std::io::Write as _;

use aws_lc_rs::digest::{SHA256, digest};

/// A SHA-256.
pub(crate) type Hash = [u8; 32];

const SEQUENCE: &[u8] = b"\"longhaul/sequence\":\"";
const PREVIOUS: &[u8] = b"\",\"longhaul/previous\":\"";
const HASH: &[u8] = b"\",\"longhaul/hash\":\"";
const END: &[u8] = b"\"}}";
/// Digits of a hash in a line.
const DIGITS: usize = 64;

/// One line's place in the chain, as the next one names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Counted from 1.
    pub sequence: u64,
    /// SHA-256 of the line up to its own hash.
    pub hash: Hash,
}

impl Link {
    /// What the first line names as the one before it.
    pub const START: Self = Self { sequence: 0, hash: [0; 32] };
}

/// What a line says of its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sealed {
    /// Its place and the hash it states.
    pub(crate) link: Link,
    /// The hash it states for the line before.
    pub(crate) previous: Hash,
    /// Whether the hash it states is that of its bytes.
    pub(crate) intact: bool,
}

/// Ends the line that begins at `start` of `out` and is a JSON object open within its `labels`: adds place,
/// hashes, both braces and the line's end.
pub(crate) fn seal(out: &mut Vec<u8>, start: usize, last: &Link) -> Link {
    let sequence = last.sequence + 1;
    out.extend_from_slice(SEQUENCE);
    write!(out, "{sequence}").expect("writing into a vector cannot fail");
    out.extend_from_slice(PREVIOUS);
    out.extend_from_slice(hex(&last.hash).as_bytes());
    out.push(b'"');
    let hash = sha256(&out[start..]);
    out.push(b',');
    out.extend_from_slice(&HASH[2..]);
    out.extend_from_slice(hex(&hash).as_bytes());
    out.extend_from_slice(END);
    out.push(b'\n');
    Link { sequence, hash }
}

/// Reads the end of a line, without its line end. `None` when it is not one of an audit log.
pub(crate) fn read(line: &[u8]) -> Option<Sealed> {
    let rest = line.strip_suffix(END)?;
    let (rest, hash) = last_hash(rest)?;
    let rest = rest.strip_suffix(HASH)?;
    // The quote that ends `previous` belongs to what is hashed.
    let hashed = &line[..=rest.len()];
    let (rest, previous) = last_hash(rest)?;
    let rest = rest.strip_suffix(PREVIOUS)?;
    let digits = rest.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let (rest, number) = rest.split_at(rest.len() - digits);
    rest.strip_suffix(SEQUENCE)?;
    let sequence = std::str::from_utf8(number).ok()?.parse().ok()?;
    let intact = sha256(hashed) == hash;
    Some(Sealed { link: Link { sequence, hash }, previous, intact })
}

fn last_hash(text: &[u8]) -> Option<(&[u8], Hash)> {
    let (rest, digits) = text.split_at_checked(text.len().checked_sub(DIGITS)?)?;
    Some((rest, unhex(digits)?))
}

/// The SHA-256 of some bytes.
pub(crate) fn sha256(bytes: &[u8]) -> Hash {
    let digest = digest(&SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// A hash in 64 digits.
#[must_use]
pub fn hex(hash: &[u8; 32]) -> String {
    const DIGITS_OF_16: &[u8; 16] = b"0123456789abcdef";
    let digits = hash.iter().flat_map(|byte| {
        let digit = |value: u8| char::from(DIGITS_OF_16[usize::from(value)]);
        [digit(byte >> 4), digit(byte & 15)]
    });
    digits.collect()
}

/// Reads a hash of 64 digits; `None` for anything else.
#[must_use]
pub fn unhex(digits: &[u8]) -> Option<[u8; 32]> {
    if digits.len() != DIGITS {
        return None;
    }
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value_of(pair[0])? << 4 | value_of(pair[1])?;
    }
    Some(hash)
}

const fn value_of(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(last: &Link, text: &str) -> (Vec<u8>, Link) {
        let mut out = format!("{{\"text\":\"{text}\",\"labels\":{{").into_bytes();
        let link = seal(&mut out, 0, last);
        assert_eq!(out.pop(), Some(b'\n'));
        (out, link)
    }

    #[test]
    fn a_line_says_its_place_and_that_it_is_whole() {
        let (first, link) = line(&Link::START, "a");
        let read_back = read(&first).unwrap();
        assert_eq!(read_back, Sealed { link, previous: [0; 32], intact: true });
        let (second, next) = line(&link, "b");
        let read_back = read(&second).unwrap();
        assert_eq!((read_back.link, read_back.previous), (next, link.hash));
        let json: serde_json::Value = serde_json::from_slice(&second).unwrap();
        assert_eq!(json["labels"]["longhaul/sequence"], "2");
        assert_eq!(json["labels"]["longhaul/previous"], hex(&link.hash));
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let (line, _) = line(&Link::START, "a text of some length");
        for index in 0..line.len() {
            for flip in [1, 0x20, 0x80] {
                let mut changed = line.clone();
                changed[index] ^= flip;
                assert!(read(&changed).is_none_or(|sealed| !sealed.intact), "byte {index}");
            }
        }
    }

    #[test]
    fn what_is_no_line_is_told_apart() {
        for text in ["", "{}", "\"}}", "{\"labels\":{}}", &"0".repeat(200)] {
            assert_eq!(read(text.as_bytes()), None, "{text}");
        }
        let (line, _) = line(&Link::START, "a");
        for length in 0..line.len() {
            assert_eq!(read(&line[..length]), None, "{length}");
        }
    }
}
