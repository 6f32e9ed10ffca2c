//! What a request to start an operation says: parent, target, idempotency key, first metadata.
//!
//! Reads any request by its method's HTTP rule and declared types, whichever edge it came through.
//! Draws no id and stores nothing.

mod metadata;

use std::sync::Arc;

use longhaul_core::{Error, OperationName, Payload, Reason, Timestamp};

pub(crate) use metadata::MetadataSource;
use metadata::SourceFacts;

use crate::api::{Api, Method, NamePattern, StartMethod, resource_path};
use crate::http_rule::{HttpRule, Variable};
use crate::message::{FieldValue, Kind, Message, MessageType, SingularKind};
use crate::settings::{IdStyle, RequestIdFormat};

/// Longest `request_id`, in bytes. Google's are UUIDs (36) or at most 40 characters.
const REQUEST_ID_BYTES_MAX: usize = 128;
/// The UUID that Google's APIs refuse as a `request_id`.
const ZERO_UUID: &str = "00000000-0000-0000-0000-000000000000";

/// What a request to start an operation says.
#[derive(Clone, Debug, PartialEq)]
pub struct StartFacts {
    /// What lists find the operation under, such as `projects/p/locations/l`; may be empty.
    pub parent: String,
    /// The resource that it acts on, such as `projects/p/locations/l/targets/t`; may be empty.
    pub target: String,
    /// What is done, such as `create`.
    pub verb: Arc<str>,
    /// The caller's idempotency key, checked; `None` when absent or empty.
    pub request_id: Option<String>,
    /// Whether the request only wants to know if it would be accepted.
    pub validate_only: bool,
    /// The whole request in its one binary form: equal requests have equal bytes.
    pub request: Payload,
    /// The first metadata, without the fields that the server keeps true by itself.
    pub metadata: Payload,
    pattern: NamePattern,
}

impl StartFacts {
    /// The full name of the operation with this id.
    ///
    /// Fails with `INVALID_NAME` when parent and id together are too long.
    pub fn operation_name(&self, id: &str) -> Result<OperationName, Error> {
        OperationName::parse(&self.pattern.name(&self.parent, id))
    }
}

/// Reads a request of a method that starts operations.
///
/// Fails with `REQUIRED_FIELD_MISSING` when a field that the API marks as required is unset, with
/// `INVALID_VALUE` when a name in the request has not the shape of the method's path or the
/// `request_id` is not acceptable, and with `INTERNAL` when the method starts no operation.
pub fn start_facts(api: &Api, method: &Method, request: &Message) -> Result<StartFacts, Error> {
    let Some(start) = method.start() else {
        return Err(Error::new(
            Reason::Internal,
            format!("{} does not start an operation", method.full_name),
        ));
    };
    check_required(&method.input, request)?;
    let request_id = request_id(start, request)?;
    let resource = resource(method, request)?;
    let (pattern, parent) = parent(api, &resource.path)?;
    let target = match resource.is_collection {
        true => created(start, request, &resource.path),
        false => resource.path,
    };
    let facts = SourceFacts { request, start, parent: &parent, target: &target };
    let mut metadata = Message::new(&start.metadata_type);
    for source in &start.metadata_sources {
        source.fill(&mut metadata, &facts)?;
    }
    Ok(StartFacts {
        verb: start.verb.clone(),
        request_id,
        validate_only: request.get_bool("validate_only"),
        request: payload(request),
        metadata: payload(&metadata),
        parent,
        target,
        pattern,
    })
}

/// The resource that a request is about, such as `projects/p/locations/l/targets/t` or, for a create,
/// the collection; `None` where the request does not say it in the shape of the method's path.
#[must_use]
pub fn resource_of(method: &Method, request: &Message) -> Option<String> {
    resource(method, request).ok().map(|resource| resource.path)
}

/// The id of a new operation, in the style of its API. Unique as long as `uid` or `random` is.
///
/// `uid` is a UUID as a number, `now` the time of the start, `random` from a secure source.
#[must_use]
pub fn operation_id(style: IdStyle, uid: u128, now: Timestamp, random: [u8; 8]) -> String {
    match style {
        IdStyle::Time => {
            let micros = now.as_micros();
            let [a, b, c, d, e, f, g, h] = random;
            let first = u32::from_be_bytes([a, b, c, d]);
            let second = u32::from_be_bytes([e, f, g, h]);
            format!("operation-{}-{micros:013x}-{first:08x}-{second:08x}", micros / 1000)
        }
        IdStyle::Uuid => {
            let hex = format!("{uid:032x}");
            let (a, b, c) = (&hex[..8], &hex[8..12], &hex[12..16]);
            format!("{a}-{b}-{c}-{}-{}", &hex[16..20], &hex[20..])
        }
    }
}

fn payload(message: &Message) -> Payload {
    Payload { type_name: message.full_name().into(), value: message.encode().into() }
}

/// Numbers, truth values and enums without presence cannot be told from unset, so they pass.
fn check_required(input: &MessageType, request: &Message) -> Result<(), Error> {
    let mut missing: Vec<&str> = Vec::new();
    for field in input.fields().filter(|field| field.is_required() && !request.has(field.name())) {
        let told_apart = match field.kind() {
            Kind::Repeated(_) | Kind::Map(_, _) => true,
            Kind::Single(kind) => match kind {
                SingularKind::String | SingularKind::Bytes | SingularKind::Message(_) => true,
                SingularKind::Bool
                | SingularKind::Int32
                | SingularKind::Int64
                | SingularKind::Uint32
                | SingularKind::Uint64
                | SingularKind::Float
                | SingularKind::Double
                | SingularKind::Enum(_) => field.has_presence(),
            },
        };
        if told_apart {
            missing.push(field.name());
        }
    }
    let [first, ..] = missing.as_slice() else { return Ok(()) };
    let mut error = Error::new(
        Reason::RequiredFieldMissing,
        format!("required field {first} of {} is unset; set it", input.full_name()),
    )
    .with("field", *first)
    .with("type", input.full_name());
    for field in missing {
        error = error.at_field(field, "this field is required; set it");
    }
    Err(error)
}

fn request_id(start: &StartMethod, request: &Message) -> Result<Option<String>, Error> {
    let Some(id) = request.get_string("request_id").filter(|id| !id.is_empty()) else {
        return Ok(None);
    };
    check_request_id(start.request_id_format, &id)?;
    Ok(Some(id))
}

/// Whether some start of this API could have come with this `request_id`.
///
/// Fails with `INVALID_VALUE`, in the words that a start is refused with.
pub fn known_request_id(api: &Api, id: &str) -> Result<(), Error> {
    let starts = api.start_methods().filter_map(|method| method.start());
    let mut refused = check_request_id(RequestIdFormat::Any, id);
    for start in starts {
        refused = check_request_id(start.request_id_format, id);
        if refused.is_ok() {
            break;
        }
    }
    refused
}

fn check_request_id(format: RequestIdFormat, id: &str) -> Result<(), Error> {
    let printable = id.len() <= REQUEST_ID_BYTES_MAX && id.chars().all(|c| !c.is_control());
    let accepted = printable
        && !id.is_empty()
        && id != ZERO_UUID
        && match format {
            RequestIdFormat::Any => true,
            RequestIdFormat::Uuid => is_uuid(id),
        };
    if accepted {
        return Ok(());
    }
    let wanted = match format {
        RequestIdFormat::Any => {
            format!("printable text of at most {REQUEST_ID_BYTES_MAX} bytes, not the zero UUID")
        }
        RequestIdFormat::Uuid => "a UUID other than the zero UUID".into(),
    };
    let shown: String = id.chars().take(64).collect();
    Err(Error::new(
        Reason::InvalidValue,
        format!("request_id {shown:?} is not acceptable; give {wanted}"),
    )
    .with("field", "request_id")
    .with("value", shown)
    .at_field("request_id", format!("must be {wanted}")))
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.char_indices().all(|(position, c)| match position {
            8 | 13 | 18 | 23 => c == '-',
            _ => c.is_ascii_hexdigit(),
        })
}

/// The resource that a request names.
struct Resource {
    /// Such as `projects/p/locations/l/targets` or `projects/p/locations/l/targets/t`.
    path: String,
    /// The path ends in a collection, so a create adds an id.
    is_collection: bool,
}

/// The path of the first HTTP rule that the request's own fields fill. Without rules, the fields
/// that AIP-131 to 135 give a meaning.
fn resource(method: &Method, request: &Message) -> Result<Resource, Error> {
    for rule in &method.rules {
        if let Some(path) = expand(rule, request) {
            let path = resource_path(&path, &rule.template).to_owned();
            let text = rule.template.as_str();
            let verb = rule.template.verb().map_or(0, |verb| verb.len() + 1);
            let is_collection = !text[..text.len() - verb].ends_with(['}', '*']);
            return Ok(Resource { path, is_collection });
        }
    }
    let Some(rule) = method.rules.first() else {
        let named = ["name", "parent", "resource"].iter().find_map(|field| {
            request.get_string(field).filter(|text| !text.is_empty()).map(|text| (*field, text))
        });
        let (field, path) = named.unwrap_or_default();
        return Ok(Resource { path, is_collection: field == "parent" });
    };
    let mut variables = rule.template.variables().iter();
    match variables.find(|variable| !fits(variable, &text_at(request, variable.field_path()))) {
        Some(variable) => Err(misshapen(method, variable, request)),
        None => Err(Error::new(
            Reason::Internal,
            format!("the path {} of {} cannot be filled", rule.template, method.full_name),
        )),
    }
}

fn expand(rule: &HttpRule, request: &Message) -> Option<String> {
    rule.template.expand(|path| {
        let text = text_at(request, path)?;
        let variable = rule.template.variable(path)?;
        fits(variable, &Some(text.clone())).then_some(text)
    })
}

/// Whether a value has the variable's shape; one of a single segment has no slash here, though a
/// path may carry an escaped one: names of resources have none.
fn fits(variable: &Variable, value: &Option<String>) -> bool {
    value.as_ref().is_some_and(|value| {
        variable.matches(value) && (variable.is_multi_segment() || !value.contains('/'))
    })
}

/// The value of a field as a path carries it.
fn text_at(request: &Message, path: &str) -> Option<String> {
    match request.get(path)? {
        FieldValue::String(text) => Some(text),
        FieldValue::Bool(value) => Some(value.to_string()),
        FieldValue::Int(value) => Some(value.to_string()),
        FieldValue::Uint(value) => Some(value.to_string()),
        FieldValue::Enum { name, .. } => Some(name),
        FieldValue::Float(_)
        | FieldValue::Bytes(_)
        | FieldValue::Message(_)
        | FieldValue::List(_)
        | FieldValue::Map(_) => None,
    }
}

fn misshapen(method: &Method, variable: &Variable, request: &Message) -> Error {
    let field = variable.field_path();
    let mut patterns: Vec<String> = Vec::new();
    for rule in &method.rules {
        if let Some(other) = rule.template.variable(field) {
            patterns.push(format!("{:?}", other.pattern()));
        }
    }
    patterns.dedup();
    let wanted = patterns.join(" or ");
    let Some(value) = text_at(request, field).filter(|value| !value.is_empty()) else {
        let error = Error::new(
            Reason::RequiredFieldMissing,
            format!("{field} is unset; give a value of the form {wanted}"),
        );
        return error.with("field", field).at_field(field, "this field is required; set it");
    };
    let shown: String = value.chars().take(256).collect();
    Error::new(Reason::InvalidValue, format!("{field} {shown:?} has not the form {wanted}"))
        .with("field", field)
        .with("value", shown)
        .with("pattern", wanted.clone())
        .at_field(field, format!("must have the form {wanted}"))
}

/// The longest start of a resource path that operations can live under, and their pattern.
fn parent(api: &Api, resource: &str) -> Result<(NamePattern, String), Error> {
    let mut best: Option<(&NamePattern, &str)> = None;
    for pattern in api.name_patterns() {
        if let Some(parent) = pattern.parent_of(resource)
            && best.is_none_or(|(other, _)| pattern.parent_len() > other.parent_len())
        {
            best = Some((pattern, parent));
        }
    }
    if let Some((pattern, parent)) = best {
        return Ok((pattern.clone(), parent.to_owned()));
    }
    let patterns: Vec<String> =
        api.name_patterns().iter().map(NamePattern::parent_pattern).collect();
    let shown: String = resource.chars().take(256).collect();
    Err(Error::new(
        Reason::InvalidValue,
        format!(
            "{shown:?} does not lie under {}, where this API keeps its operations",
            patterns.join(" or ")
        ),
    )
    .with("resource", shown))
}

/// The name of the resource that a create makes, where the request says its id.
fn created(start: &StartMethod, request: &Message, collection: &str) -> String {
    let ids = start.resource_id.iter().filter_map(|path| request.get_string(path));
    match ids.into_iter().find(|id| !id.is_empty()) {
        Some(id) => format!("{collection}/{id}"),
        None => collection.to_owned(),
    }
}
