//! What Dataproc's lists take beyond AIP-160: a JSON object, as its command-line client sends, and
//! fields of the metadata without `metadata.` before them.
//!
//! Source: CONTRACT 4.2 and T8; the help of the client's list command.

use aip_160::Comparator;
use longhaul_core::Error;
use serde_json::Value;

use super::filter::{Field, Node, Test, invalid, test as plain_test};
use super::values::Wanted;
use crate::api::Api;

/// Reads a filter that is a JSON object; `{}` wants everything.
pub(super) fn parse(text: &str, api: &Api) -> Result<Node, Error> {
    let parsed: Value = serde_json::from_str(text)
        .map_err(|error| invalid(&format!("it is no JSON object: {error}")))?;
    let Value::Object(entries) = parsed else {
        return Err(invalid("it is no JSON object"));
    };
    let mut nodes = Vec::new();
    for (key, value) in &entries {
        match key.as_str() {
            "operation_state_matcher" | "operationStateMatcher" => match value.as_str() {
                Some("ALL") => {}
                Some("ACTIVE") => nodes.push(done(false)),
                Some("NON_ACTIVE") => nodes.push(done(true)),
                _ => {
                    return Err(invalid("operation_state_matcher is ACTIVE, NON_ACTIVE or ALL"));
                }
            },
            // The project is that of the list's name.
            "project_id" | "projectId" => {}
            "labels" => {
                let Value::Object(labels) = value else {
                    return Err(invalid("labels is an object of texts"));
                };
                for (label, value) in labels {
                    nodes.push(field(&["labels".into(), label.clone()], value, api)?);
                }
            }
            _ => nodes.push(field(std::slice::from_ref(key), value, api)?),
        }
    }
    Ok(Node::All(nodes))
}

fn field(path: &[String], value: &Value, api: &Api) -> Result<Node, Error> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Bool(value) => value.to_string(),
        Value::Number(value) => value.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => {
            return Err(invalid(&format!(
                "{} is neither text, number nor truth value",
                path.join(".")
            )));
        }
    };
    let wanted = Wanted { text };
    match test(path, Comparator::Equal, &wanted, api)? {
        Some(node) => Ok(node),
        None => plain_test(path, Comparator::Equal, wanted, api).map(Node::Test),
    }
}

/// A comparison as Dataproc means it; `None` leaves it to the common rules.
pub(super) fn test(
    path: &[String],
    op: Comparator,
    wanted: &Wanted,
    api: &Api,
) -> Result<Option<Node>, Error> {
    let parts: Vec<&str> = path.iter().map(String::as_str).collect();
    match parts.as_slice() {
        ["status", "state"] => {
            let test = Test { field: Field::State, op, wanted: wanted.clone() };
            // Only its own words for it, and only equality.
            let known = ["PENDING", "RUNNING", "ACTIVE", "DONE", "INACTIVE", "NON_ACTIVE", "*"];
            if !known.contains(&wanted.text.as_str()) {
                return Err(invalid(&format!(
                    "status.state is {:?}; known are PENDING, RUNNING, ACTIVE, DONE",
                    wanted.text
                )));
            }
            if !matches!(op, Comparator::Equal | Comparator::NotEqual | Comparator::Has) {
                return Err(invalid("status.state: states have no order"));
            }
            let node = match wanted.text.as_str() {
                "*" => Node::All(Vec::new()),
                "INACTIVE" | "NON_ACTIVE" if op == Comparator::NotEqual => done(false),
                "INACTIVE" | "NON_ACTIVE" => done(true),
                _ => Node::Test(test),
            };
            Ok(Some(node))
        }
        ["name" | "done" | "state" | "target" | "verb" | "method", ..]
        | ["metadata" | "response" | "error", ..]
        | ["create_time" | "createTime" | "update_time" | "updateTime"]
        | ["start_time" | "startTime" | "end_time" | "endTime"] => Ok(None),
        _ => {
            let mut path = path.to_vec();
            path.insert(0, "metadata".into());
            // A label may be asked for at all: `labels.env = *`.
            let op = if wanted.is_any() && op == Comparator::Equal { Comparator::Has } else { op };
            plain_test(&path, op, wanted.clone(), api).map(|test| Some(Node::Test(test)))
        }
    }
}

fn done(done: bool) -> Node {
    let wanted = Wanted { text: done.to_string() };
    Node::Test(Test { field: Field::Done, op: Comparator::Equal, wanted })
}
