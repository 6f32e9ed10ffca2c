//! One entry of the audit log, in the shape of Cloud Audit Logs.
//!
//! Owns the fields and their JSON, short of the chain's labels. Requests and answers are never in it: they
//! may hold what nobody but their callers should read. Source: google/logging/v2/log_entry.proto,
//! google/cloud/audit/audit_log.proto.

use std::net::IpAddr;
use std::sync::Arc;

use longhaul_core::Timestamp;
use longhaul_wire::convert::moment;
use serde::Serialize;

/// Longest user agent kept, in bytes.
const AGENT_BYTES_MAX: usize = 256;
/// Longest status message or reason kept, in bytes.
const TEXT_BYTES_MAX: usize = 1024;
/// Longest resource name kept, in bytes.
const RESOURCE_BYTES_MAX: usize = 2048;

/// Which of Google's audit logs an entry belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Log {
    /// Changes that somebody asked for.
    Activity,
    /// Reads.
    DataAccess,
    /// Changes that nobody asked for just now: an operation's end, a cancel on its way to children.
    SystemEvent,
    /// Calls that were not allowed.
    Policy,
}

impl Log {
    /// The last part of `logName`.
    #[must_use]
    pub const fn id(self) -> &'static str {
        match self {
            Self::Activity => "cloudaudit.googleapis.com%2Factivity",
            Self::DataAccess => "cloudaudit.googleapis.com%2Fdata_access",
            Self::SystemEvent => "cloudaudit.googleapis.com%2Fsystem_event",
            Self::Policy => "cloudaudit.googleapis.com%2Fpolicy",
        }
    }
}

/// One permission that was asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Such as `clouddeploy.operations.cancel`.
    pub permission: Arc<str>,
    /// On what.
    pub resource: Arc<str>,
    /// Whether the caller has it.
    pub granted: bool,
}

/// The operation that an entry belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfOperation {
    /// Its name.
    pub id: Arc<str>,
    /// The first entry of this operation.
    pub first: bool,
    /// The last entry of this operation.
    pub last: bool,
}

/// One entry, before it has its place in the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which log.
    pub log: Log,
    /// When it happened.
    pub at: Timestamp,
    /// The API, such as `clouddeploy.googleapis.com`.
    pub service: Arc<str>,
    /// The method's full name.
    pub method: Arc<str>,
    /// What it was about: an operation, or the parent of one to come.
    pub resource: Arc<str>,
    /// Who; empty when nobody is known.
    pub principal: Arc<str>,
    /// Every permission that was asked about.
    pub asked: Vec<Asked>,
    /// Where the call came from.
    pub caller_ip: Option<IpAddr>,
    /// The program that called, as it says.
    pub user_agent: Arc<str>,
    /// How it ended: a `google.rpc` code and a message. `None` while it has not.
    pub status: Option<(i32, Arc<str>)>,
    /// The operation, where there is one.
    pub operation: Option<OfOperation>,
    /// Further facts, in `protoPayload.metadata`.
    pub facts: Vec<(&'static str, Arc<str>)>,
}

impl Entry {
    /// An entry with nothing but what each has.
    #[must_use]
    pub fn new(log: Log, at: Timestamp, service: Arc<str>, method: Arc<str>) -> Self {
        let none: Arc<str> = "".into();
        Self {
            log,
            at,
            service,
            method,
            resource: none.clone(),
            principal: none.clone(),
            asked: Vec::new(),
            caller_ip: None,
            user_agent: none,
            status: None,
            operation: None,
            facts: Vec::new(),
        }
    }

    /// Writes it as a JSON object that is still open within its `labels`; `number` makes it unique, and
    /// `lost` is how many entries could not be written since the last one.
    pub(crate) fn write(&self, out: &mut Vec<u8>, number: &str, lost: u64) {
        serde_json::to_writer(&mut *out, &self.shape(number))
            .expect("an entry is text and numbers, and a vector takes all of it");
        let brace = out.pop();
        debug_assert_eq!(brace, Some(b'}'), "an object ends with its brace");
        out.extend_from_slice(b",\"labels\":{");
        if lost > 0 {
            out.extend_from_slice(format!("\"longhaul/lost\":\"{lost}\",").as_bytes());
        }
    }

    fn shape<'a>(&'a self, number: &'a str) -> LogEntry<'a> {
        let project = project_of(&self.resource);
        let name = match project {
            Some(project) => format!("projects/{project}/logs/{}", self.log.id()),
            None => format!("longhaul/logs/{}", self.log.id()),
        };
        let failed = self.status.as_ref().is_some_and(|(code, _)| *code != 0);
        LogEntry {
            log_name: name,
            timestamp: moment(self.at).to_string(),
            severity: match (failed, self.log) {
                (true, _) => "ERROR",
                (false, Log::DataAccess) => "INFO",
                (false, Log::Activity | Log::SystemEvent | Log::Policy) => "NOTICE",
            },
            insert_id: number,
            resource: Monitored {
                kind: "audited_resource",
                labels: MonitoredLabels {
                    project_id: project.unwrap_or_default(),
                    service: &self.service,
                    method: &self.method,
                },
            },
            operation: self.operation.as_ref().map(|operation| WireOperation {
                id: &operation.id,
                producer: &self.service,
                first: operation.first,
                last: operation.last,
            }),
            proto_payload: self.payload(),
        }
    }

    fn payload(&self) -> AuditLog<'_> {
        AuditLog {
            kind: "type.googleapis.com/google.cloud.audit.AuditLog",
            service_name: &self.service,
            method_name: &self.method,
            resource_name: cut(&self.resource, RESOURCE_BYTES_MAX),
            authentication_info: Authentication::of(&self.principal),
            authorization_info: self
                .asked
                .iter()
                .map(|asked| Authorization {
                    resource: cut(&asked.resource, RESOURCE_BYTES_MAX),
                    permission: &asked.permission,
                    granted: asked.granted,
                })
                .collect(),
            request_metadata: self.caller_ip.map(|ip| RequestMetadata {
                caller_ip: ip.to_canonical().to_string(),
                user_agent: cut(&self.user_agent, AGENT_BYTES_MAX),
            }),
            status: self.status.as_ref().map(|(code, message)| WireStatus {
                code: *code,
                message: cut(message, TEXT_BYTES_MAX),
            }),
            metadata: Facts(&self.facts),
        }
    }
}

/// The project in a resource's name, which may begin with its service.
fn project_of(resource: &str) -> Option<&str> {
    let project = resource.strip_prefix("projects/")?.split('/').next()?;
    (!project.is_empty()).then_some(project)
}

/// The longest beginning of at most `max` bytes.
fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LogEntry<'a> {
    log_name: String,
    timestamp: String,
    severity: &'static str,
    insert_id: &'a str,
    resource: Monitored<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<WireOperation<'a>>,
    proto_payload: AuditLog<'a>,
}

#[derive(Serialize)]
struct Monitored<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    labels: MonitoredLabels<'a>,
}

#[derive(Serialize)]
struct MonitoredLabels<'a> {
    project_id: &'a str,
    service: &'a str,
    method: &'a str,
}

#[derive(Serialize)]
struct WireOperation<'a> {
    id: &'a str,
    producer: &'a str,
    #[serde(skip_serializing_if = "is_false")]
    first: bool,
    #[serde(skip_serializing_if = "is_false")]
    last: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the form that serde calls")]
const fn is_false(value: &bool) -> bool {
    !*value
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AuditLog<'a> {
    #[serde(rename = "@type")]
    kind: &'static str,
    service_name: &'a str,
    method_name: &'a str,
    resource_name: &'a str,
    authentication_info: Authentication<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    authorization_info: Vec<Authorization<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_metadata: Option<RequestMetadata<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<WireStatus<'a>>,
    #[serde(skip_serializing_if = "Facts::is_empty")]
    metadata: Facts<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Authentication<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    principal_email: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    principal_subject: &'a str,
}

impl<'a> Authentication<'a> {
    /// Who has no address has a name in another system. Source: audit_log.proto, `AuthenticationInfo`.
    fn of(principal: &'a str) -> Self {
        if principal.starts_with("principal://") {
            return Self { principal_email: "", principal_subject: principal };
        }
        Self { principal_email: principal, principal_subject: "" }
    }
}

#[derive(Serialize)]
struct Authorization<'a> {
    resource: &'a str,
    permission: &'a str,
    granted: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RequestMetadata<'a> {
    caller_ip: String,
    #[serde(rename = "callerSuppliedUserAgent", skip_serializing_if = "str::is_empty")]
    user_agent: &'a str,
}

/// An empty one says success, as Google writes it.
#[derive(Serialize)]
struct WireStatus<'a> {
    #[serde(skip_serializing_if = "is_zero")]
    code: i32,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the form that serde calls")]
const fn is_zero(value: &i32) -> bool {
    *value == 0
}

struct Facts<'a>(&'a [(&'static str, Arc<str>)]);

impl Facts<'_> {
    const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Facts<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, cut(value, TEXT_BYTES_MAX))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_the_shape_of_cloud_audit_logs() {
        let name: Arc<str> = "projects/p/locations/l/operations/o".into();
        let entry = Entry {
            resource: name.clone(),
            principal: "ada@example.com".into(),
            asked: vec![Asked {
                permission: "clouddeploy.operations.cancel".into(),
                resource: name.clone(),
                granted: true,
            }],
            caller_ip: "::ffff:10.1.2.3".parse().ok(),
            user_agent: "x".repeat(300).into(),
            status: Some((0, "".into())),
            operation: Some(OfOperation { id: name, first: false, last: true }),
            facts: vec![("reason", "wrong \"target\"\n".into())],
            ..Entry::new(
                Log::Activity,
                Timestamp::from_micros(1_700_000_000_123_456),
                "clouddeploy.googleapis.com".into(),
                "google.longrunning.Operations.CancelOperation".into(),
            )
        };
        let mut out = Vec::new();
        entry.write(&mut out, "n1", 3);
        out.extend_from_slice(b"\"end\":\"\"}}");
        let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
        let want = serde_json::json!({
            "logName": "projects/p/logs/cloudaudit.googleapis.com%2Factivity",
            "timestamp": "2023-11-14T22:13:20.123456Z",
            "severity": "NOTICE",
            "insertId": "n1",
            "resource": {"type": "audited_resource", "labels": {
                "project_id": "p",
                "service": "clouddeploy.googleapis.com",
                "method": "google.longrunning.Operations.CancelOperation",
            }},
            "operation": {
                "id": "projects/p/locations/l/operations/o",
                "producer": "clouddeploy.googleapis.com",
                "last": true,
            },
            "protoPayload": {
                "@type": "type.googleapis.com/google.cloud.audit.AuditLog",
                "serviceName": "clouddeploy.googleapis.com",
                "methodName": "google.longrunning.Operations.CancelOperation",
                "resourceName": "projects/p/locations/l/operations/o",
                "authenticationInfo": {"principalEmail": "ada@example.com"},
                "authorizationInfo": [{
                    "resource": "projects/p/locations/l/operations/o",
                    "permission": "clouddeploy.operations.cancel",
                    "granted": true,
                }],
                "requestMetadata": {
                    "callerIp": "10.1.2.3",
                    "callerSuppliedUserAgent": "x".repeat(256),
                },
                "status": {},
                "metadata": {"reason": "wrong \"target\"\n"},
            },
            "labels": {"longhaul/lost": "3", "end": ""},
        });
        assert_eq!(json, want);
    }

    #[test]
    fn who_has_no_address_is_named_as_a_subject_and_nobody_not_at_all() {
        let json = |who: &str| serde_json::to_value(Authentication::of(who)).unwrap();
        let subject = "principal://certificate/dns/worker-7.example";
        assert_eq!(json(subject), serde_json::json!({"principalSubject": subject}));
        let email = "ada@example.com";
        assert_eq!(json(email), serde_json::json!({"principalEmail": email}));
        assert_eq!(json(""), serde_json::json!({}));
    }
}
