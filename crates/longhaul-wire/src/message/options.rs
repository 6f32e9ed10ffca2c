//! Options of methods, services, fields and messages that Google's APIs declare as extensions.
//!
//! Read from the option's bytes, so it does not matter whether the set holds the file that declares
//! the extension. Only what Longhaul acts on is read.

use buffa::{ExtensionSet as _, UnknownFieldData, UnknownFields};
use longhaul_core::Error;

use super::descriptors::{Field, MessageType, Service, ServiceMethod};
use crate::http_rule::{AnnotatedRule, HttpRule};

// Extension numbers. Source: google/api/annotations.proto, client.proto, field_behavior.proto,
// field_info.proto, resource.proto; google/longrunning/operations.proto.
const METHOD_HTTP: u32 = 72_295_728;
const METHOD_OPERATION_INFO: u32 = 1049;
const SERVICE_DEFAULT_HOST: u32 = 1049;
const SERVICE_OAUTH_SCOPES: u32 = 1050;
const SERVICE_API_VERSION: u32 = 525_000_001;
const FIELD_BEHAVIOR: u32 = 1052;
const FIELD_RESOURCE_REFERENCE: u32 = 1055;
const FIELD_INFO: u32 = 291_403_980;
const MESSAGE_RESOURCE: u32 = 1053;

/// `FieldBehavior.REQUIRED`. Source: google/api/field_behavior.proto.
const BEHAVIOR_REQUIRED: u64 = 2;
/// `FieldBehavior.OUTPUT_ONLY`.
const BEHAVIOR_OUTPUT_ONLY: u64 = 3;

/// What a method's operation carries. Source: google/longrunning/operations.proto.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct OperationInfo {
    /// Name of the response type: full, or relative to the method's package.
    #[prost(string, tag = "1")]
    pub response_type: String,
    /// Name of the metadata type: full, or relative to the method's package.
    #[prost(string, tag = "2")]
    pub metadata_type: String,
}

/// The resource that a field names. Source: google/api/resource.proto.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ResourceReference {
    /// Type of the resource, such as `clouddeploy.googleapis.com/Target`; may be empty.
    #[prost(string, tag = "1")]
    pub kind: String,
    /// Type of the children, when the field names their parent; may be empty.
    #[prost(string, tag = "2")]
    pub child_kind: String,
}

/// The resource that a message describes. Source: google/api/resource.proto.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Resource {
    /// Type, such as `clouddeploy.googleapis.com/Target`.
    #[prost(string, tag = "1")]
    pub kind: String,
    /// Patterns of its names, such as `projects/{project}/locations/{location}/targets/{target}`.
    #[prost(string, repeated, tag = "2")]
    pub patterns: Vec<String>,
    /// Plural name, such as `targets`; may be empty.
    #[prost(string, tag = "5")]
    pub plural: String,
    /// Singular name, such as `target`; may be empty.
    #[prost(string, tag = "6")]
    pub singular: String,
}

/// The format of a string field. Source: google/api/field_info.proto.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldFormat {
    /// A UUID version 4, in lower or upper case.
    Uuid4,
    /// An IPv4 address.
    Ipv4,
    /// An IPv6 address.
    Ipv6,
    /// Either address.
    Ipv4OrIpv6,
}

#[derive(Clone, PartialEq, prost::Message)]
struct FieldInfo {
    #[prost(int32, tag = "1")]
    format: i32,
}

impl ServiceMethod {
    /// The rules of `google.api.http`: the main one first, then the additional bindings; empty when
    /// the method has none.
    ///
    /// Fails with `API_INVALID` when a rule does not parse.
    pub fn http_rules(&self) -> Result<Vec<HttpRule>, Error> {
        let Some(bytes) = self.option(METHOD_HTTP) else { return Ok(Vec::new()) };
        AnnotatedRule::decode(&self.full_name(), &bytes)
    }

    /// The types of the operation that it starts, if it declares them.
    #[must_use]
    pub fn operation_info(&self) -> Option<OperationInfo> {
        decode(&self.option(METHOD_OPERATION_INFO)?)
    }

    fn option(&self, number: u32) -> Option<Vec<u8>> {
        message_option(self.descriptor().options()?.unknown_fields(), number)
    }
}

impl Service {
    /// The host it is served under, such as `clouddeploy.googleapis.com`.
    #[must_use]
    pub fn default_host(&self) -> Option<String> {
        self.string_option(SERVICE_DEFAULT_HOST)
    }

    /// The OAuth scopes of which a caller needs one.
    #[must_use]
    pub fn oauth_scopes(&self) -> Vec<String> {
        let scopes = self.string_option(SERVICE_OAUTH_SCOPES).unwrap_or_default();
        scopes.split(',').map(str::trim).filter(|s| !s.is_empty()).map(Into::into).collect()
    }

    /// The version of the interface, such as `2024-09-01`, where it declares one.
    #[must_use]
    pub fn api_version(&self) -> Option<String> {
        self.string_option(SERVICE_API_VERSION)
    }

    fn string_option(&self, number: u32) -> Option<String> {
        let unknown = self.descriptor().options()?.unknown_fields();
        let last = occurrences(unknown, number).last()?;
        let UnknownFieldData::LengthDelimited(bytes) = last else { return None };
        String::from_utf8(bytes.clone()).ok()
    }
}

impl MessageType {
    /// The resource that the message describes, if it is one.
    #[must_use]
    pub fn resource(&self) -> Option<Resource> {
        let unknown = self.descriptor().options()?.unknown_fields();
        decode(&message_option(unknown, MESSAGE_RESOURCE)?)
    }
}

impl Field<'_> {
    /// Whether the API marks it as required.
    #[must_use]
    pub fn is_required(&self) -> bool {
        self.behaves(BEHAVIOR_REQUIRED)
    }

    /// Whether the API says that only the server writes it.
    #[must_use]
    pub fn is_output_only(&self) -> bool {
        self.behaves(BEHAVIOR_OUTPUT_ONLY)
    }

    /// The declared format of its text, if any.
    #[must_use]
    pub fn format(&self) -> Option<FieldFormat> {
        let info: FieldInfo = decode(&self.option(FIELD_INFO)?)?;
        match info.format {
            1 => Some(FieldFormat::Uuid4),
            2 => Some(FieldFormat::Ipv4),
            3 => Some(FieldFormat::Ipv6),
            4 => Some(FieldFormat::Ipv4OrIpv6),
            _ => None,
        }
    }

    /// The resource that it names, if any.
    #[must_use]
    pub fn resource_reference(&self) -> Option<ResourceReference> {
        decode(&self.option(FIELD_RESOURCE_REFERENCE)?)
    }

    fn behaves(&self, behavior: u64) -> bool {
        let Some(options) = self.descriptor.options() else { return false };
        occurrences(options.unknown_fields(), FIELD_BEHAVIOR).any(|data| match data {
            UnknownFieldData::Varint(value) => *value == behavior,
            UnknownFieldData::LengthDelimited(packed) => packed_contains(packed, behavior),
            UnknownFieldData::Fixed32(_)
            | UnknownFieldData::Fixed64(_)
            | UnknownFieldData::Group(_) => false,
        })
    }

    fn option(&self, number: u32) -> Option<Vec<u8>> {
        message_option(self.descriptor.options()?.unknown_fields(), number)
    }
}

fn occurrences(unknown: &UnknownFields, number: u32) -> impl Iterator<Item = &UnknownFieldData> {
    unknown.iter().filter(move |field| field.number == number).map(|field| &field.data)
}

/// The bytes of a message option; several occurrences merge, which is what appending them does.
fn message_option(unknown: &UnknownFields, number: u32) -> Option<Vec<u8>> {
    let mut merged: Option<Vec<u8>> = None;
    for data in occurrences(unknown, number) {
        if let UnknownFieldData::LengthDelimited(bytes) = data {
            merged.get_or_insert_default().extend_from_slice(bytes);
        }
    }
    merged
}

/// A damaged option counts as absent: the checks at load then name what is missing.
fn decode<M: prost::Message + Default>(bytes: &[u8]) -> Option<M> {
    M::decode(bytes).ok()
}

fn packed_contains(mut packed: &[u8], wanted: u64) -> bool {
    while !packed.is_empty() {
        match prost::encoding::decode_varint(&mut packed) {
            Ok(value) if value == wanted => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
    false
}
