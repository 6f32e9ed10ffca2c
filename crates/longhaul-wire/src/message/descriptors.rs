//! Types of messages and services, read from a descriptor set.
//!
//! Refuses a broken set with an error that says what is wrong; never panics on one.

use std::fmt;
use std::sync::Arc;

use buffa::DecodeOptions;
use buffa::editions::FieldPresence;
use buffa_descriptor as pool;
use buffa_descriptor::{DescriptorPool, EnumIndex, FieldDescriptor, MessageIndex, ScalarType};
use bytes::Bytes;
use longhaul_core::{Error, Reason};

use super::TypeResolver;

/// Bytes of a descriptor set: all of Google's published APIs together are below 64 MiB.
const SET_BYTES_MAX: usize = 64 << 20;

/// A set of types and services, as a compiler wrote it. Cheap to clone.
#[derive(Clone)]
pub struct Descriptors {
    pub(super) pool: Arc<DescriptorPool>,
    raw: Bytes,
}

impl Descriptors {
    /// Reads an encoded `google.protobuf.FileDescriptorSet` (proto2, proto3, editions to 2024).
    ///
    /// Fails with `API_INVALID` when the bytes are no such set, a type is missing, or a name or
    /// number is used twice; never panics.
    pub fn parse(file_descriptor_set: &[u8]) -> Result<Self, Error> {
        let invalid = |why: String| {
            Error::new(
                Reason::ApiInvalid,
                format!(
                    "the descriptor set cannot be read: {why}; compile it again, with all its imports"
                ),
            )
            .with("cause", why)
        };
        if file_descriptor_set.len() > SET_BYTES_MAX {
            return Err(invalid(format!("it is larger than {SET_BYTES_MAX} bytes")));
        }
        // Descriptors are wide structs: a set takes many times its encoded size in memory.
        let memory = file_descriptor_set.len().saturating_mul(64).max(32 << 20);
        let options = DecodeOptions::new().with_element_memory_limit(memory);
        let pool = DescriptorPool::decode_with_options(file_descriptor_set, &options)
            .map_err(|cause| invalid(cause.to_string()))?;
        if pool.files().is_empty() {
            return Err(invalid("it holds no file".into()));
        }
        Ok(Self { pool: Arc::new(pool), raw: Bytes::copy_from_slice(file_descriptor_set) })
    }

    /// The message type of this full name, without a leading dot.
    #[must_use]
    pub fn message(&self, full_name: &str) -> Option<MessageType> {
        let index = self.pool.message_index(full_name)?;
        Some(MessageType { pool: self.pool.clone(), index })
    }

    /// The message type that `name` means inside `scope` (a package or a type), innermost first.
    ///
    /// A leading dot makes the name absolute. Source: descriptor.proto, `type_name`;
    /// google/longrunning/operations.proto, `OperationInfo`.
    #[must_use]
    pub fn resolve(&self, name: &str, scope: &str) -> Option<MessageType> {
        if let Some(absolute) = name.strip_prefix('.') {
            return self.message(absolute);
        }
        let mut scope = scope;
        while !scope.is_empty() {
            if let Some(found) = self.message(&format!("{scope}.{name}")) {
                return Some(found);
            }
            scope = scope.rsplit_once('.').map_or("", |(outer, _)| outer);
        }
        self.message(name)
    }

    /// Every service of the set, in the order of the files.
    pub fn services(&self) -> impl Iterator<Item = Service> + '_ {
        self.pool.services().iter().filter_map(|service| {
            Some(Service {
                descriptors: self.clone(),
                index: self.pool.service_index(service.full_name())?,
            })
        })
    }

    /// The service of this full name.
    #[must_use]
    pub fn service(&self, full_name: &str) -> Option<Service> {
        let index = self.pool.service_index(full_name)?;
        Some(Service { descriptors: self.clone(), index })
    }

    /// The descriptor set as it was read.
    #[must_use]
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }
}

impl fmt::Debug for Descriptors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Descriptors").field("bytes", &self.raw.len()).finish_non_exhaustive()
    }
}

impl TypeResolver for Descriptors {
    fn message(&self, full_name: &str) -> Option<MessageType> {
        Self::message(self, full_name)
    }
}

/// The type of a message. Cheap to clone.
#[derive(Clone)]
pub struct MessageType {
    pub(crate) pool: Arc<DescriptorPool>,
    pub(crate) index: MessageIndex,
}

impl MessageType {
    /// Full name without a leading dot, such as `google.protobuf.Empty`.
    #[must_use]
    pub fn full_name(&self) -> &str {
        self.descriptor().full_name()
    }

    /// The last part of the full name.
    #[must_use]
    pub fn short_name(&self) -> &str {
        self.full_name().rsplit('.').next().unwrap_or_default()
    }

    /// Its fields, in the order of the source.
    pub fn fields(&self) -> impl Iterator<Item = Field<'_>> {
        self.descriptor().fields().iter().map(|descriptor| Field { pool: &self.pool, descriptor })
    }

    /// The field of this name, as in the proto file or as in JSON.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<Field<'_>> {
        let descriptor = self.descriptor().field_by_name(name)?;
        Some(Field { pool: &self.pool, descriptor })
    }

    /// The field that a dotted path ends in; `None` when a part is unknown or, before the last
    /// part, is not a single message.
    #[must_use]
    pub fn field_at(&self, path: &str) -> Option<Field<'_>> {
        let mut descriptor = self.descriptor();
        let mut parts = path.split('.').peekable();
        while let Some(part) = parts.next() {
            let field = descriptor.field_by_name(part)?;
            if parts.peek().is_none() {
                return Some(Field { pool: &self.pool, descriptor: field });
            }
            let pool::FieldKind::Singular(pool::SingularKind::Message(inner)) = field.kind() else {
                return None;
            };
            descriptor = self.pool.message(inner);
        }
        None
    }

    pub(crate) fn descriptor(&self) -> &pool::MessageDescriptor {
        self.pool.message(self.index)
    }
}

impl PartialEq for MessageType {
    /// Same full name.
    fn eq(&self, other: &Self) -> bool {
        self.full_name() == other.full_name()
    }
}

impl Eq for MessageType {}

impl fmt::Debug for MessageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MessageType").field(&self.full_name()).finish()
    }
}

/// One field of a message type.
#[derive(Clone, Copy)]
pub struct Field<'a> {
    pub(crate) pool: &'a Arc<DescriptorPool>,
    pub(crate) descriptor: &'a FieldDescriptor,
}

impl<'a> Field<'a> {
    /// The name in the proto file, such as `create_time`.
    #[must_use]
    pub fn name(&self) -> &'a str {
        self.descriptor.name()
    }

    /// The name in JSON, such as `createTime`.
    #[must_use]
    pub fn json_name(&self) -> &'a str {
        self.descriptor.json_name()
    }

    /// The number on the wire.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.descriptor.number()
    }

    /// What it holds, and how many.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self.descriptor.kind() {
            pool::FieldKind::Singular(kind) => Kind::Single(self.singular(kind)),
            pool::FieldKind::List(kind) => Kind::Repeated(self.singular(kind)),
            pool::FieldKind::Map { key, value } => {
                Kind::Map(SingularKind::scalar(key), self.singular(value))
            }
        }
    }

    /// Whether it is repeated or a map.
    #[must_use]
    pub fn is_many(&self) -> bool {
        !matches!(self.descriptor.kind(), pool::FieldKind::Singular(_))
    }

    /// The message type it holds, whether one or many; a map's values count.
    #[must_use]
    pub fn message_type(&self) -> Option<MessageType> {
        match self.kind() {
            Kind::Single(kind) | Kind::Repeated(kind) | Kind::Map(_, kind) => match kind {
                SingularKind::Message(ty) => Some(ty),
                SingularKind::Bool
                | SingularKind::Int32
                | SingularKind::Int64
                | SingularKind::Uint32
                | SingularKind::Uint64
                | SingularKind::Float
                | SingularKind::Double
                | SingularKind::String
                | SingularKind::Bytes
                | SingularKind::Enum(_) => None,
            },
        }
    }

    /// Whether unset differs from the default value on the wire.
    #[must_use]
    pub fn has_presence(&self) -> bool {
        !self.is_many() && self.descriptor.presence() != FieldPresence::Implicit
    }

    /// Number of its oneof within the message, if it is a member of one.
    #[must_use]
    pub fn oneof(&self) -> Option<u16> {
        self.descriptor.oneof_index()
    }

    fn singular(&self, kind: pool::SingularKind) -> SingularKind {
        match kind {
            pool::SingularKind::Scalar(scalar) => SingularKind::scalar(scalar),
            pool::SingularKind::Enum(index) => {
                SingularKind::Enum(EnumType { pool: self.pool.clone(), index })
            }
            pool::SingularKind::Message(index) => {
                SingularKind::Message(MessageType { pool: self.pool.clone(), index })
            }
        }
    }
}

impl fmt::Debug for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Field")
            .field("name", &self.name())
            .field("number", &self.number())
            .field("kind", &self.kind())
            .finish()
    }
}

/// What a field holds, and how many.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// At most one value.
    Single(SingularKind),
    /// A list.
    Repeated(SingularKind),
    /// A map from the first to the second.
    Map(SingularKind, SingularKind),
}

/// What one value is. The encodings of a number on the wire are not told apart.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names are those of the protobuf language")]
pub enum SingularKind {
    Bool,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Float,
    Double,
    String,
    Bytes,
    Enum(EnumType),
    Message(MessageType),
}

impl SingularKind {
    fn scalar(scalar: ScalarType) -> Self {
        match scalar {
            ScalarType::Bool => Self::Bool,
            ScalarType::Int32 | ScalarType::Sint32 | ScalarType::Sfixed32 => Self::Int32,
            ScalarType::Int64 | ScalarType::Sint64 | ScalarType::Sfixed64 => Self::Int64,
            ScalarType::Uint32 | ScalarType::Fixed32 => Self::Uint32,
            ScalarType::Uint64 | ScalarType::Fixed64 => Self::Uint64,
            ScalarType::Float => Self::Float,
            ScalarType::Double => Self::Double,
            ScalarType::String => Self::String,
            ScalarType::Bytes => Self::Bytes,
        }
    }
}

/// The type of an enum field. Cheap to clone.
#[derive(Clone)]
pub struct EnumType {
    pool: Arc<DescriptorPool>,
    index: EnumIndex,
}

impl EnumType {
    /// Full name without a leading dot.
    #[must_use]
    pub fn full_name(&self) -> &str {
        self.pool.enumeration(self.index).full_name()
    }

    /// Every value as (name, number), in the order of the source.
    pub fn values(&self) -> impl Iterator<Item = (&str, i32)> {
        self.pool.enumeration(self.index).values().iter().map(|v| (v.name(), v.number()))
    }
}

impl PartialEq for EnumType {
    /// Same full name.
    fn eq(&self, other: &Self) -> bool {
        self.full_name() == other.full_name()
    }
}

impl fmt::Debug for EnumType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EnumType").field(&self.full_name()).finish()
    }
}

/// One service of a descriptor set.
#[derive(Clone, Debug)]
pub struct Service {
    pub(super) descriptors: Descriptors,
    pub(super) index: pool::ServiceIndex,
}

impl Service {
    /// Full name, such as `google.longrunning.Operations`.
    #[must_use]
    pub fn full_name(&self) -> &str {
        self.descriptor().full_name()
    }

    /// The package that declares it, such as `google.longrunning`.
    #[must_use]
    pub fn package(&self) -> &str {
        self.full_name().rsplit_once('.').map_or("", |(package, _)| package)
    }

    /// Its methods, in the order of the source.
    pub fn methods(&self) -> impl Iterator<Item = ServiceMethod> + '_ {
        (0..self.descriptor().methods().len())
            .map(|position| ServiceMethod { service: self.clone(), position })
    }

    /// The method of this short name.
    #[must_use]
    pub fn method(&self, name: &str) -> Option<ServiceMethod> {
        self.methods().find(|method| method.name() == name)
    }

    pub(super) fn descriptor(&self) -> &pool::ServiceDescriptor {
        self.descriptors.pool.service(self.index)
    }
}

/// One method of a service.
#[derive(Clone, Debug)]
pub struct ServiceMethod {
    service: Service,
    position: usize,
}

impl ServiceMethod {
    /// Short name, such as `CancelOperation`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.descriptor().name()
    }

    /// Full name, such as `google.longrunning.Operations.CancelOperation`.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.service.full_name(), self.name())
    }

    /// The path of a gRPC call, such as `/google.longrunning.Operations/CancelOperation`.
    #[must_use]
    pub fn grpc_path(&self) -> String {
        format!("/{}/{}", self.service.full_name(), self.name())
    }

    /// The service it belongs to.
    #[must_use]
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// Type of the request.
    #[must_use]
    pub fn input(&self) -> MessageType {
        self.message_type(self.descriptor().input())
    }

    /// Type of the response.
    #[must_use]
    pub fn output(&self) -> MessageType {
        self.message_type(self.descriptor().output())
    }

    /// Whether the caller sends a stream.
    #[must_use]
    pub fn client_streaming(&self) -> bool {
        self.descriptor().is_client_streaming()
    }

    /// Whether the server answers with a stream.
    #[must_use]
    pub fn server_streaming(&self) -> bool {
        self.descriptor().is_server_streaming()
    }

    fn message_type(&self, index: MessageIndex) -> MessageType {
        MessageType { pool: self.service.descriptors.pool.clone(), index }
    }

    pub(super) fn descriptor(&self) -> &pool::MethodDescriptor {
        &self.service.descriptor().methods()[self.position]
    }
}
