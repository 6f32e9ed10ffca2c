//! One operation, asked whether it fits a filter.

use aip_160::Comparator;
use longhaul_core::{Code, Operation, Outcome, State, Timestamp};

use super::filter::{Field, Node, Test, code};
use super::values::{self, Wanted};
use crate::api::Api;
use crate::convert;
use crate::json::parse_timestamp;
use crate::message::Message;

/// One operation, with what was decoded of it so far.
pub(super) struct Subject<'a> {
    operation: &'a Operation,
    api: &'a Api,
    metadata: Option<Option<Message>>,
    response: Option<Option<Message>>,
}

impl<'a> Subject<'a> {
    /// Nothing of the operation is decoded before a comparison needs it.
    pub(super) fn new(operation: &'a Operation, api: &'a Api) -> Self {
        Self { operation, api, metadata: None, response: None }
    }

    /// Whether the operation is wanted.
    pub(super) fn matches(&mut self, node: &Node) -> bool {
        match node {
            Node::All(nodes) => nodes.iter().all(|node| self.matches(node)),
            Node::Any(nodes) => nodes.iter().any(|node| self.matches(node)),
            Node::Not(node) => !self.matches(node),
            Node::Test(test) => self.test(test),
        }
    }

    fn test(&mut self, test: &Test) -> bool {
        let (op, wanted, operation) = (test.op, &test.wanted, self.operation);
        let time = |at: Option<Timestamp>| at.is_some_and(|at| compare_time(at, op, wanted));
        let any = op == Comparator::Has && wanted.is_any();
        let error = match operation.outcome() {
            Some(Outcome::Error(status)) => Some(status),
            Some(Outcome::Response(_)) | None => None,
        };
        match &test.field {
            Field::Name => values::compare_text(operation.name.as_str(), op, wanted),
            Field::Target => values::compare_text(&operation.target, op, wanted),
            Field::Method => values::compare_text(&operation.method, op, wanted),
            Field::Verb => {
                let method = self.api.method(&operation.method);
                let verb = method.and_then(|m| m.start()).map_or("", |start| &*start.verb);
                values::compare_text(verb, op, wanted)
            }
            Field::Done if any => operation.outcome().is_some(),
            Field::Done => {
                values::holds(op, operation.outcome().is_some() == (wanted.text == "true"))
            }
            Field::State => any || values::holds(op, has_state(operation, &wanted.text)),
            Field::CreateTime => time(Some(operation.create_time)),
            Field::StartTime => time(operation.start_time),
            Field::UpdateTime => time(Some(operation.update_time)),
            Field::EndTime => time(operation.end_time()),
            Field::Error => error.is_some(),
            Field::ErrorCode => error.is_some_and(|status| {
                let own = status.code.number();
                any || code(&wanted.text).is_some_and(|code| values::ordered(op, own.cmp(&code)))
            }),
            Field::ErrorMessage => {
                error.is_some_and(|status| values::compare_text(&status.message, op, wanted))
            }
            Field::MetadataType => is_type(&operation.metadata.type_name, op, wanted),
            Field::ResponseType => match operation.outcome() {
                Some(Outcome::Response(response)) => is_type(&response.type_name, op, wanted),
                Some(Outcome::Error(_)) | None => false,
            },
            Field::Metadata(path) => {
                let metadata = self.metadata();
                metadata.is_some_and(|m| path.is_empty() || values::test(m, path, op, wanted))
            }
            Field::Response(path) => {
                let response = self.response();
                response.is_some_and(|m| path.is_empty() || values::test(m, path, op, wanted))
            }
        }
    }

    fn metadata(&mut self) -> Option<&Message> {
        let (operation, api) = (self.operation, self.api);
        let decoded = self.metadata.get_or_insert_with(|| {
            let payload = convert::metadata(operation, api)?;
            let ty = api.descriptors().message(&payload.type_name)?;
            Message::decode(&ty, &payload.value).ok()
        });
        decoded.as_ref()
    }

    fn response(&mut self) -> Option<&Message> {
        let (operation, api) = (self.operation, self.api);
        let decoded = self.response.get_or_insert_with(|| match operation.outcome() {
            Some(Outcome::Response(payload)) => {
                let ty = api.descriptors().message(&payload.type_name)?;
                Message::decode(&ty, &payload.value).ok()
            }
            Some(Outcome::Error(_)) | None => None,
        });
        decoded.as_ref()
    }
}

/// `@type` is compared as a URL or as a bare name.
fn is_type(name: &str, op: Comparator, wanted: &Wanted) -> bool {
    let bare = Wanted { text: wanted.text.rsplit('/').next().unwrap_or_default().to_owned() };
    values::compare_text(name, op, &bare)
}

fn compare_time(at: Timestamp, op: Comparator, wanted: &Wanted) -> bool {
    if op == Comparator::Has && wanted.is_any() {
        return true;
    }
    let wanted = parse_timestamp(&wanted.text);
    wanted.is_some_and(|wanted| values::ordered(op, (at.seconds(), at.nanos()).cmp(&wanted)))
}

/// Whether one of the names of an operation's state is `name`.
fn has_state(operation: &Operation, name: &str) -> bool {
    let names: &[&str] = match &operation.state {
        State::Queued { .. } => &["QUEUED", "PENDING", "ACTIVE"],
        State::Running { .. } => &["RUNNING", "ACTIVE"],
        State::Cancelling { .. } | State::CleaningUp { .. } => &["CANCELLING", "RUNNING", "ACTIVE"],
        State::Done { outcome, .. } => match outcome {
            Outcome::Response(_) => &["SUCCEEDED", "DONE"],
            Outcome::Error(status) if status.code == Code::Cancelled => &["CANCELLED", "DONE"],
            Outcome::Error(_) => &["FAILED", "DONE"],
        },
    };
    names.iter().any(|own| own.eq_ignore_ascii_case(name))
}
