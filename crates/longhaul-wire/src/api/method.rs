//! Methods of an API: what each is, what it takes, and how it is called over HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use longhaul_core::Policy;

use crate::http_rule::HttpRule;
use crate::message::MessageType;
use crate::settings::{OperationsVerb, PolicyVerb, RequestIdFormat};
use crate::start::MetadataSource;

/// One method of an API.
#[derive(Debug)]
pub struct Method {
    /// Full name, such as `google.cloud.deploy.v1.CloudDeploy.CreateRelease`.
    pub full_name: Arc<str>,
    /// Path of gRPC calls, such as `/google.cloud.deploy.v1.CloudDeploy/CreateRelease`.
    pub grpc_path: String,
    /// What it does here.
    pub kind: MethodKind,
    /// Type of the request.
    pub input: MessageType,
    /// Type of the answer.
    pub output: MessageType,
    /// Its HTTP rules, main one first; empty when it is served over gRPC only.
    pub rules: Vec<HttpRule>,
    /// Whether the request is a stream.
    pub client_streaming: bool,
    /// Whether the answer is a stream.
    pub server_streaming: bool,
    /// OAuth scopes of which a caller needs one; empty when none is asked for.
    pub scopes: Vec<String>,
    /// Longest time that a call may take, where the API sets one.
    pub deadline: Option<Duration>,
}

/// What a method does on this server.
#[derive(Debug)]
pub enum MethodKind {
    /// A method of `google.longrunning.Operations`.
    Operations(OperationsVerb),
    /// Starts an operation.
    Start(Box<StartMethod>),
    /// A method of `google.iam.v1.IAMPolicy`, about operations.
    Policy(PolicyVerb),
    /// A method of Longhaul's own API.
    Native,
    /// Declared by the API but not served: it starts no operation.
    Other,
}

/// What is known of a method that starts operations.
#[derive(Debug)]
pub struct StartMethod {
    /// Type that a response must have.
    pub response_type: MessageType,
    /// Type that metadata must have.
    pub metadata_type: MessageType,
    /// Limits of its operations.
    pub policy: Policy,
    /// Longest time from start to end, where there is one.
    pub deadline: Option<Duration>,
    /// Longest time from start until a worker claims it, where there is one.
    pub start_by: Option<Duration>,
    /// The queue that workers claim from.
    pub queue: Arc<str>,
    /// `verb` of the metadata, such as `create`.
    pub verb: Arc<str>,
    /// What it does, in words: `Create release`.
    pub summary: String,
    /// Which `request_id` is taken.
    pub request_id_format: RequestIdFormat,
    /// How long a repeated `request_id` returns the first operation.
    pub request_id_window: Duration,
    /// Permissions, all of them, that a caller needs to start.
    pub start_permissions: Vec<String>,
    /// Permissions by verb that a caller needs for its operations, in place of the API's.
    pub permissions: BTreeMap<OperationsVerb, Vec<String>>,
    /// Paths of request fields that may hold the id of the resource it creates, most likely first;
    /// empty when it creates none.
    pub(crate) resource_id: Vec<String>,
    /// Metadata fields that are filled at the start.
    pub(crate) metadata_sources: Vec<MetadataSource>,
}

impl Method {
    /// The last part of the full name, such as `CreateRelease`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.full_name.rsplit('.').next().unwrap_or_default()
    }

    /// The start, if it is one.
    #[must_use]
    pub fn start(&self) -> Option<&StartMethod> {
        match &self.kind {
            MethodKind::Start(start) => Some(start),
            MethodKind::Operations(_)
            | MethodKind::Policy(_)
            | MethodKind::Native
            | MethodKind::Other => None,
        }
    }
}

/// The words of a method's name: `CreateCaPool` gives `create`, `ca`, `pool`.
pub(crate) fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut previous = '_';
    for c in name.chars() {
        let starts = c.is_ascii_uppercase() && !previous.is_ascii_uppercase();
        if starts || words.is_empty() {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut() {
            word.push(c.to_ascii_lowercase());
        }
        previous = c;
    }
    words
}

/// `CreateCaPool` gives `Create ca pool`.
pub(crate) fn summary(name: &str) -> String {
    let text = words(name).join(" ");
    let mut letters = text.chars();
    letters
        .next()
        .map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + letters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_split_into_words() {
        assert_eq!(words("CreateCaPool"), ["create", "ca", "pool"]);
        assert_eq!(words("submitJobAsOperation"), ["submit", "job", "as", "operation"]);
        assert_eq!(words("ResetVM"), ["reset", "vm"]);
        assert_eq!(summary("InstantiateWorkflowTemplate"), "Instantiate workflow template");
        assert_eq!(summary(""), "");
    }
}
