//! The filter of a list: parsed once, asked for every operation.
//!
//! Grammar is AIP-160's, read by `aip_160`. Fields are those of an operation (`name`, `done`,
//! `error.code`, `error.message`, `metadata.…`, `response.…`), and what the server knows whatever the
//! API calls it (`state`, `create_time`, `start_time`, `update_time`, `end_time`, `target`, `verb`,
//! `method`). A field that the API does not have is an error. Source: CONTRACT 4.2.

use aip_160::{Arg, Comparable, Comparator, Expression, Member};
use longhaul_core::{Code, Error, Operation, Reason};

use super::created::Created;
use super::dataproc;
use super::subject::Subject;
use super::values::{self, Wanted};
use crate::api::{Api, StartMethod};
use crate::json::parse_timestamp;
use crate::message::MessageType;
use crate::settings::FilterDialect;

/// Longest filter, in bytes: far above what a URL carries.
const FILTER_BYTES_MAX: usize = 16 << 10;
/// Most comparisons in one filter, so that a page of a thousand operations stays cheap.
const TESTS_MAX: usize = 200;

/// Which operations a list wants.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    root: Node,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
    Test(Test),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Test {
    pub field: Field,
    pub op: Comparator,
    pub wanted: Wanted,
}

/// The left side of a comparison.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Field {
    Name,
    Done,
    State,
    Target,
    Verb,
    Method,
    CreateTime,
    StartTime,
    UpdateTime,
    EndTime,
    Error,
    ErrorCode,
    ErrorMessage,
    Metadata(Vec<String>),
    Response(Vec<String>),
    MetadataType,
    ResponseType,
}

/// The names of states that `state` is compared with; several fit one operation.
const STATES: [&str; 9] = [
    "QUEUED",
    "PENDING",
    "RUNNING",
    "CANCELLING",
    "ACTIVE",
    "DONE",
    "SUCCEEDED",
    "FAILED",
    "CANCELLED",
];

impl Filter {
    /// Reads a filter; an empty one wants everything.
    ///
    /// Fails with `INVALID_FILTER` when it does not parse, names a field that the API's operations do
    /// not have, or compares a field with what it cannot be.
    pub fn parse(text: &str, api: &Api) -> Result<Self, Error> {
        if text.len() > FILTER_BYTES_MAX {
            return Err(invalid(&format!(
                "it is longer than {FILTER_BYTES_MAX} bytes; shorten it"
            )));
        }
        let dialect = api.settings().operations.filter;
        let dataproc = dialect == FilterDialect::Dataproc;
        let root = if dataproc && text.trim_start().starts_with('{') {
            dataproc::parse(text, api)?
        } else {
            let parsed = aip_160::parse_filter(text).map_err(|error| {
                invalid(&format!("{error}; put values with colons, spaces or brackets in quotes"))
            })?;
            let compiler = Compiler { api, dataproc };
            match parsed.expression {
                Some(expression) => compiler.node(&expression)?,
                None => Node::All(Vec::new()),
            }
        };
        if root.tests() > TESTS_MAX {
            return Err(invalid(&format!("it has more than {TESTS_MAX} comparisons; use fewer")));
        }
        Ok(Self { root })
    }

    /// Whether it wants every operation.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.root == Node::All(Vec::new())
    }

    /// `Some(done)` when only operations with this `done` can match, so that a store may skip the
    /// others.
    #[must_use]
    pub fn done_hint(&self) -> Option<bool> {
        self.root.done_hint()
    }

    /// When those that can match were created, so that a list may skip the others.
    #[must_use]
    pub fn created(&self) -> Created {
        Created::of(&self.root)
    }

    /// Whether an operation of the API that this filter was read for is wanted.
    #[must_use]
    pub fn matches(&self, operation: &Operation, api: &Api) -> bool {
        Subject::new(operation, api).matches(&self.root)
    }
}

impl Node {
    fn tests(&self) -> usize {
        match self {
            Self::All(nodes) | Self::Any(nodes) => nodes.iter().map(Self::tests).sum(),
            Self::Not(node) => node.tests(),
            Self::Test(_) => 1,
        }
    }

    fn done_hint(&self) -> Option<bool> {
        match self {
            Self::All(nodes) => nodes.iter().find_map(Self::done_hint),
            Self::Any(nodes) => {
                let (first, rest) = nodes.split_first()?;
                let hint = first.done_hint()?;
                rest.iter().all(|node| node.done_hint() == Some(hint)).then_some(hint)
            }
            Self::Not(node) => match &**node {
                Self::Test(test) if test.field == Field::Done => test.done_hint().map(|done| !done),
                Self::Test(_) | Self::All(_) | Self::Any(_) | Self::Not(_) => None,
            },
            Self::Test(test) => test.done_hint(),
        }
    }
}

impl Test {
    fn done_hint(&self) -> Option<bool> {
        let wants_equal = matches!(self.op, Comparator::Equal | Comparator::Has);
        match &self.field {
            Field::Done if self.wanted.is_any() => Some(true),
            Field::Done => Some((self.wanted.text == "true") == wants_equal),
            Field::State if wants_equal && !self.wanted.is_any() => {
                let done = ["DONE", "SUCCEEDED", "FAILED", "CANCELLED"];
                Some(done.iter().any(|state| self.wanted.text.eq_ignore_ascii_case(state)))
            }
            Field::Error | Field::ErrorCode | Field::ErrorMessage | Field::EndTime => Some(true),
            Field::Response(_) | Field::ResponseType => Some(true),
            Field::State
            | Field::Name
            | Field::Target
            | Field::Verb
            | Field::Method
            | Field::CreateTime
            | Field::StartTime
            | Field::UpdateTime
            | Field::Metadata(_)
            | Field::MetadataType => None,
        }
    }
}

/// Reads an expression for one API.
struct Compiler<'a> {
    api: &'a Api,
    dataproc: bool,
}

impl Compiler<'_> {
    fn node(&self, expression: &Expression) -> Result<Node, Error> {
        let nodes = |parts: &[Expression]| {
            parts.iter().map(|part| self.node(part)).collect::<Result<_, _>>()
        };
        match expression {
            // Operations are matched exactly, so words side by side all have to fit.
            Expression::And(parts) | Expression::Sequence(parts) => Ok(Node::All(nodes(parts)?)),
            Expression::Or(parts) => Ok(Node::Any(nodes(parts)?)),
            Expression::Not(part) => Ok(Node::Not(Box::new(self.node(part)?))),
            Expression::Restriction(restriction) => {
                let Comparable::Member(member) = &restriction.comparable else {
                    return Err(no_function());
                };
                let path = path_of(member);
                self.argument(&path, restriction.comparator, &restriction.arg)
            }
            Expression::Global(Comparable::Member(member)) => {
                let word = path_of(member).join(".");
                Err(invalid(&format!(
                    "{word:?} stands alone; write a comparison such as {word} = VALUE or {word}:*"
                )))
            }
            Expression::Global(Comparable::Function(_)) => Err(no_function()),
        }
    }

    /// `field = (a OR b)` means `field = a OR field = b`.
    fn argument(&self, path: &[String], op: Comparator, arg: &Arg) -> Result<Node, Error> {
        match arg {
            Arg::Comparable(Comparable::Member(member)) => {
                self.test(path, op, Wanted { text: path_of(member).join(".") })
            }
            Arg::Comparable(Comparable::Function(_)) => Err(no_function()),
            Arg::Composite(expression) => self.composite(path, op, expression),
        }
    }

    fn composite(
        &self,
        path: &[String],
        op: Comparator,
        expression: &Expression,
    ) -> Result<Node, Error> {
        let nodes = |parts: &[Expression]| {
            parts.iter().map(|part| self.composite(path, op, part)).collect::<Result<_, _>>()
        };
        match expression {
            Expression::And(parts) | Expression::Sequence(parts) => Ok(Node::All(nodes(parts)?)),
            Expression::Or(parts) => Ok(Node::Any(nodes(parts)?)),
            Expression::Not(part) => Ok(Node::Not(Box::new(self.composite(path, op, part)?))),
            Expression::Global(Comparable::Member(member)) => {
                self.test(path, op, Wanted { text: path_of(member).join(".") })
            }
            Expression::Restriction(_) | Expression::Global(Comparable::Function(_)) => {
                Err(invalid(
                    "the brackets after a comparator may hold only values joined by AND, OR and NOT",
                ))
            }
        }
    }

    fn test(&self, path: &[String], op: Comparator, wanted: Wanted) -> Result<Node, Error> {
        if self.dataproc
            && let Some(node) = dataproc::test(path, op, &wanted, self.api)?
        {
            return Ok(node);
        }
        test(path, op, wanted, self.api).map(Node::Test)
    }
}

/// One comparison, checked against the fields that operations of the API have.
pub(super) fn test(
    path: &[String],
    op: Comparator,
    wanted: Wanted,
    api: &Api,
) -> Result<Test, Error> {
    let parts: Vec<&str> = path.iter().map(String::as_str).collect();
    let field = match parts.as_slice() {
        ["name"] => Field::Name,
        ["done"] => Field::Done,
        ["state"] => Field::State,
        ["target"] => Field::Target,
        ["verb"] => Field::Verb,
        ["method"] => Field::Method,
        ["create_time" | "createTime"] => Field::CreateTime,
        ["start_time" | "startTime"] => Field::StartTime,
        ["update_time" | "updateTime"] => Field::UpdateTime,
        ["end_time" | "endTime"] => Field::EndTime,
        ["error"] => Field::Error,
        ["error", "code"] => Field::ErrorCode,
        ["error", "message"] => Field::ErrorMessage,
        ["metadata", "@type"] => Field::MetadataType,
        ["response", "@type"] => Field::ResponseType,
        ["metadata", ..] => Field::Metadata(path[1..].to_vec()),
        ["response", ..] => Field::Response(path[1..].to_vec()),
        _ => return Err(unknown_field(&parts.join("."))),
    };
    let test = Test { field, op, wanted };
    check(&test, api).map_err(|why| invalid(&format!("{}: {why}", parts.join("."))))?;
    Ok(test)
}

/// Whether a comparison can ever make sense.
fn check(test: &Test, api: &Api) -> Result<(), String> {
    let text = &test.wanted.text;
    let equality = matches!(test.op, Comparator::Equal | Comparator::NotEqual | Comparator::Has);
    let any = test.op == Comparator::Has && test.wanted.is_any();
    match &test.field {
        Field::Name
        | Field::Target
        | Field::Verb
        | Field::Method
        | Field::ErrorMessage
        | Field::MetadataType
        | Field::ResponseType => Ok(()),
        Field::Done if !equality => Err("it is true or false and has no order".into()),
        Field::Done if any || text == "true" || text == "false" => Ok(()),
        Field::Done => Err(format!("{text:?} is neither true nor false")),
        Field::State if !equality => Err("states have no order".into()),
        Field::State if any || STATES.iter().any(|state| state.eq_ignore_ascii_case(text)) => {
            Ok(())
        }
        Field::State => Err(format!("{text:?} is no state; known are {}", STATES.join(", "))),
        Field::CreateTime | Field::StartTime | Field::UpdateTime | Field::EndTime => {
            if any || parse_timestamp(text).is_some() {
                return Ok(());
            }
            Err(format!("{text:?} is no time; write one as \"2026-01-31T12:00:00Z\", in quotes"))
        }
        Field::Error if any => Ok(()),
        Field::Error => Err("compare error.code or error.message, or use error:*".into()),
        Field::ErrorCode if any || code(text).is_some() => Ok(()),
        Field::ErrorCode => {
            Err(format!("{text:?} is no code; give a number or a name such as CANCELLED"))
        }
        Field::Metadata(path) | Field::Response(path) if path.is_empty() && any => Ok(()),
        Field::Metadata(path) | Field::Response(path) if path.is_empty() => {
            Err("compare one of its fields, or use :*".into())
        }
        Field::Metadata(path) => check_path(path, test, api, |start| &start.metadata_type),
        Field::Response(path) => check_path(path, test, api, |start| &start.response_type),
    }
}

/// A path is known when some method of the API has it.
fn check_path(
    path: &[String],
    test: &Test,
    api: &Api,
    role: impl Fn(&StartMethod) -> &MessageType,
) -> Result<(), String> {
    let mut why = String::from("this API starts no operations");
    let mut seen: Vec<&str> = Vec::new();
    for start in api.start_methods().filter_map(|method| method.start()) {
        let ty = role(start);
        if seen.contains(&ty.full_name()) {
            continue;
        }
        seen.push(ty.full_name());
        match values::check(ty, path, test.op, &test.wanted) {
            Ok(()) => return Ok(()),
            // What is wrong with a field that exists says more than that another type lacks it.
            Err(sentence) if ty.field(&path[0]).is_some() || seen.len() == 1 => why = sentence,
            Err(_) => {}
        }
    }
    Err(why)
}

/// A code by name, in any case, or by number.
pub(super) fn code(text: &str) -> Option<i32> {
    let named = Code::ALL.into_iter().find(|code| code.name().eq_ignore_ascii_case(text));
    named.map(Code::number).or_else(|| text.parse().ok())
}

fn path_of(member: &Member) -> Vec<String> {
    std::iter::once(&member.value)
        .chain(&member.fields)
        .map(|part| part.as_str().to_owned())
        .collect()
}

fn no_function() -> Error {
    invalid("functions are not supported; compare fields")
}

fn unknown_field(path: &str) -> Error {
    invalid(&format!(
        "{path} is no field of an operation; known are name, done, error.code, error.message, metadata.FIELD, response.FIELD, state, target, verb, method, create_time, start_time, update_time, end_time"
    ))
}

/// An `INVALID_FILTER` that says why.
pub(super) fn invalid(why: &str) -> Error {
    Error::new(Reason::InvalidFilter, format!("the filter is not valid: {why}"))
        .with("cause", why)
        .at_field("filter", why)
}
