//! Operations for people: the line that ends a wait, the list of facts of one operation.

use longhaul_client::operations::{Operation, State};
use serde_json::Value;

use super::facts::Facts;
use crate::output::printable;

/// A JSON array of operations.
pub fn array<'a>(operations: impl Iterator<Item = &'a Operation>) -> Value {
    Value::Array(operations.map(|operation| operation.json().clone()).collect())
}

/// How a wait for one operation ended, in a line.
pub fn ending(facts: &Facts) -> String {
    let name = printable(&facts.name);
    let took = match (facts.created, facts.ended) {
        (Some(from), Some(to)) => to.duration_since(from).ok(),
        _ => None,
    };
    let took = took.map(|took| format!(" after {:.1}s", took.as_secs_f64())).unwrap_or_default();
    match (facts.state, &facts.error) {
        (State::Succeeded, _) => format!("succeeded{took}: {name}\n"),
        (State::Cancelled, Some(error)) => {
            let words = error.message.as_str();
            let words =
                if words.is_empty() { String::new() } else { format!(" ({})", printable(words)) };
            format!("cancelled{took}: {name}{words}\n")
        }
        (State::Failed, Some(error)) => {
            format!("failed{took}: {name}: {}\n", printable(&error.to_string()))
        }
        (State::Running, _) => format!("still running: {name}\n"),
        (State::Cancelling, _) => format!("still cancelling: {name}\n"),
        (state @ (State::Cancelled | State::Failed), None) => {
            format!("{}{took}: {name}\n", state.name().to_lowercase())
        }
    }
}
