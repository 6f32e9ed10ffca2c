//! Operations and events as bytes: a version byte, then CBOR with numbered fields.
//!
//! Owns the stored form. A field number is never given a second meaning; a reader skips numbers it does
//! not know, and takes the default for those that are absent. Row columns (name, uid, API, method, queue,
//! parent, creation, key) and the request are kept beside the record, not in it.

mod event;
mod parts;
mod record;

use std::fmt;

pub(crate) use event::{decode_events, encode_events};
pub(crate) use parts::empty;
pub(crate) use record::{
    Columns, decode_claim, decode_link, decode_operation, decode_target, encode_operation,
};

/// The version byte that this program writes; it reads all up to [`ALONE_VERSION`].
pub(crate) const CODEC_VERSION: u8 = 1;

/// The version byte of an operation that has a parent: otherwise the same, but found without a look
/// inside, and refused by programs that would not keep the rules of children.
pub(crate) const CHILD_VERSION: u8 = 2;

/// The version byte of an operation that lets none act beside it on its resource, with or without a parent: for the
/// same reasons.
pub(crate) const ALONE_VERSION: u8 = 3;

/// Bytes that are not a record of a known version.
#[derive(Debug)]
pub(crate) struct Unreadable(String);

impl Unreadable {
    fn new(what: impl fmt::Display) -> Self {
        Self(what.to_string())
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unreadable {}

fn body(bytes: &[u8]) -> Result<&[u8], Unreadable> {
    match bytes.split_first() {
        Some((&(CODEC_VERSION | CHILD_VERSION | ALONE_VERSION), body)) => Ok(body),
        Some((version, _)) => Err(Unreadable(format!("record version {version} is not known"))),
        None => Err(Unreadable("the record is empty".into())),
    }
}

fn encode<T: minicbor::Encode<()>>(value: &T) -> Vec<u8> {
    encode_as(CODEC_VERSION, value)
}

fn encode_as<T: minicbor::Encode<()>>(version: u8, value: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(512);
    bytes.push(version);
    minicbor::encode(value, &mut bytes).expect("writing to a vector cannot fail");
    bytes
}
