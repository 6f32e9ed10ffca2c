//! What to list, and one page of the answer.

use serde_json::Value;

use super::{Error, Operation};

/// What to list. Source: google/longrunning/operations.proto, ListOperationsRequest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// What the operations belong to, such as `projects/p/locations/l`. A trailing `operations` may be
    /// written or left out. Empty: the bare `operations` collection.
    pub parent: String,
    /// AIP-160, or what the API takes instead; empty: all.
    pub filter: String,
    /// Most operations in one page; 0: as many as the server likes.
    pub page_size: u32,
    /// Whether places that cannot be read may be left out.
    pub return_partial_success: bool,
}

/// One page of a list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// In the server's order.
    pub operations: Vec<Operation>,
    /// Where the next page starts; empty: there is none.
    pub next_page_token: String,
    /// Places that could not be read.
    pub unreachable: Vec<String>,
}

impl ListOptions {
    /// The collection's name.
    pub(super) fn collection(&self) -> String {
        let parent = self.parent.trim_end_matches('/');
        if parent.is_empty() {
            "operations".to_owned()
        } else if parent == "operations" || parent.ends_with("/operations") {
            parent.to_owned()
        } else {
            format!("{parent}/operations")
        }
    }

    /// The query of one page; only what is set, for servers that know fewer fields.
    pub(super) fn query(&self, page_token: &str) -> Vec<(&'static str, String)> {
        let mut query = Vec::new();
        if !self.filter.is_empty() {
            query.push(("filter", self.filter.clone()));
        }
        if self.page_size > 0 {
            query.push(("pageSize", self.page_size.to_string()));
        }
        if !page_token.is_empty() {
            query.push(("pageToken", page_token.to_owned()));
        }
        if self.return_partial_success {
            query.push(("returnPartialSuccess", "true".to_owned()));
        }
        query
    }
}

impl Page {
    /// Reads the answer of a list.
    pub(super) fn read(url: &str, value: Value) -> Result<Self, Error> {
        let wrong =
            |message: &str| Error::Reply { url: url.to_owned(), message: message.to_owned() };
        let Value::Object(mut object) = value else {
            return Err(wrong("a list must be a JSON object"));
        };
        let items = match object.remove("operations") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(items)) => items,
            Some(_) => return Err(wrong("\"operations\" must be an array")),
        };
        let operations = items
            .into_iter()
            .map(|item| {
                Operation::from_json(item).map_err(|_| wrong("an operation must be an object"))
            })
            .collect::<Result<_, _>>()?;
        let next_page_token =
            object.get("nextPageToken").and_then(Value::as_str).unwrap_or_default().to_owned();
        let unreachable = object.get("unreachable").and_then(Value::as_array);
        let unreachable = unreachable
            .into_iter()
            .flatten()
            .filter_map(|place| place.as_str().map(str::to_owned))
            .collect();
        Ok(Self { operations, next_page_token, unreachable })
    }
}
