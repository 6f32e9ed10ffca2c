//! The facade over messages known only at run time.
//!
//! Owns decoding, encoding and field access of a [`Message`]; [`descriptors`](self) its types. The
//! library below can be changed without anybody outside `message` and `json` noticing: none of its
//! types appear here in public. Knows nothing of JSON.

mod descriptors;
mod options;
mod path;

use std::fmt;

use buffa_descriptor::{DynamicMessage, ReflectMessage as _};
use bytes::Bytes;
use longhaul_core::{Error, Reason};

pub use descriptors::{
    Descriptors, EnumType, Field, Kind, MessageType, Service, ServiceMethod, SingularKind,
};
pub use options::{FieldFormat, OperationInfo, Resource, ResourceReference};
pub use path::FieldValue;
pub(crate) use path::{is_set, key_text};

/// Levels of messages within messages, counted through `Any`: deeper input or output is refused.
pub const DEPTH_MAX: usize = 100;

/// Finds the type of the message inside a `google.protobuf.Any`.
pub trait TypeResolver: Send + Sync {
    /// The type of this full name, without a leading dot or URL; `None` if nobody declared it.
    fn message(&self, full_name: &str) -> Option<MessageType>;
}

/// A resolver that knows no type: every `Any` is foreign.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTypes;

impl TypeResolver for NoTypes {
    fn message(&self, _full_name: &str) -> Option<MessageType> {
        None
    }
}

/// One message of a type known only at run time.
///
/// Two messages are equal when type name and encoded bytes are, whichever descriptor set they came
/// from. Unknown fields survive a decode and an encode.
#[derive(Clone)]
pub struct Message {
    pub(crate) inner: DynamicMessage,
}

impl Message {
    /// An empty message of this type.
    #[must_use]
    pub fn new(ty: &MessageType) -> Self {
        Self { inner: DynamicMessage::new(ty.pool.clone(), ty.index) }
    }

    /// Reads the binary form.
    ///
    /// Fails with `INVALID_VALUE` when the bytes are not such a message or are nested deeper than
    /// [`DEPTH_MAX`]. Memory is bounded by a fixed budget whatever the bytes say.
    pub fn decode(ty: &MessageType, bytes: &[u8]) -> Result<Self, Error> {
        let inner = DynamicMessage::decode(ty.pool.clone(), ty.index, bytes).map_err(|cause| {
            Error::new(
                Reason::InvalidValue,
                format!("the bytes are not a {}: {cause}", ty.full_name()),
            )
            .with("type", ty.full_name())
        })?;
        Ok(Self { inner })
    }

    /// The binary form: fields by number, map entries by key, unknown fields last as they came.
    ///
    /// The same message always gives the same bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // Bodies are bounded to a few megabytes, so the 2 GiB limit of protobuf is out of reach.
        self.inner.try_encode_to_vec().unwrap_or_default()
    }

    /// [`Self::encode`], ready to be shared.
    #[must_use]
    pub fn encode_to_bytes(&self) -> Bytes {
        Bytes::from(self.encode())
    }

    /// Its type.
    #[must_use]
    pub fn message_type(&self) -> MessageType {
        MessageType { pool: self.inner.pool().clone(), index: self.inner.message_index() }
    }

    /// Full name of its type, such as `google.protobuf.Empty`.
    #[must_use]
    pub fn full_name(&self) -> &str {
        self.inner.message_descriptor().full_name()
    }
}

impl PartialEq for Message {
    fn eq(&self, other: &Self) -> bool {
        self.full_name() == other.full_name() && self.encode() == other.encode()
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}
