//! What a descriptor set and a service configuration do not say about an API, as we write it in YAML.
//!
//! Owns the keys, their defaults and the errors for wrong ones. What the keys do is decided where they
//! are read. Every key may be left out.

mod yaml;

use std::collections::BTreeMap;
use std::time::Duration;

use longhaul_core::{Error, Parallel, Policy, Retry};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

pub(crate) use yaml::{invalid, nearest, read_yaml};

/// The settings of one API.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// First path segment that means this API, as in `/clouddeploy/v1/…`. Default: the first label of
    /// the API's name.
    pub prefix: Option<String>,
    /// Hosts that mean this API beside its name and the regional and mTLS forms of it, without port.
    pub hosts: Vec<String>,
    /// Command groups of gcloud that talk to this API, such as `gemini` or `storage.batch-operations`:
    /// gcloud names its command in `User-Agent`, and that tells lists of several APIs on one port apart.
    pub gcloud_groups: Vec<String>,
    /// `api_version` in metadata. Default: the version in the package's name, or empty.
    pub api_version: Option<String>,
    /// The Operations service.
    pub operations: Operations,
    /// Limits and choices of every method that starts an operation.
    pub defaults: MethodSettings,
    /// The same for single methods, by full name; each key set here goes before `defaults`.
    pub methods: BTreeMap<String, MethodSettings>,
    /// How metadata is filled, by full type name.
    pub metadata: BTreeMap<String, MetadataSettings>,
}

/// How the Operations service of an API behaves.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Operations {
    /// How ids of new operations look.
    pub id: IdStyle,
    /// The pattern that new names follow where no resource path of a start fits, such as
    /// `operations/*`. Default: the first pattern of the rules.
    pub name: Option<String>,
    /// The methods that this API supports; the others answer UNIMPLEMENTED.
    pub methods: Vec<OperationsVerb>,
    /// Permissions that a caller needs, by verb. Default: `PREFIX.operations.VERB`.
    pub permissions: BTreeMap<OperationsVerb, Vec<String>>,
    /// Which filters a list takes.
    pub filter: FilterDialect,
    /// Page size when a list asks for none, 1 to `page_size_max`.
    pub page_size: u32,
    /// Largest page; a larger request gets this.
    pub page_size_max: u32,
    /// Whether JSON shows scalars at their default, as in `"done": false`.
    pub print_defaults: bool,
    /// What JSON shows of an operation's `error.details`. gRPC always shows all.
    pub error_details_in_json: ErrorDetails,
}

impl Default for Operations {
    fn default() -> Self {
        Self {
            id: IdStyle::Time,
            name: None,
            methods: OperationsVerb::ALL.to_vec(),
            permissions: BTreeMap::new(),
            filter: FilterDialect::Aip160,
            page_size: 100,
            page_size_max: 1000,
            print_defaults: false,
            error_details_in_json: ErrorDetails::Declared,
        }
    }
}

/// How ids of operations look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdStyle {
    /// `operation-<milliseconds>-<13 hex>-<8 hex>-<8 hex>`.
    Time,
    /// A UUID with dashes.
    Uuid,
}

/// One method of `google.longrunning.Operations`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names are those of google.longrunning.Operations")]
pub enum OperationsVerb {
    Get,
    List,
    Wait,
    Cancel,
    Delete,
}

impl OperationsVerb {
    /// Every verb, in the order of the proto file.
    pub const ALL: [Self; 5] = [Self::List, Self::Get, Self::Delete, Self::Cancel, Self::Wait];

    /// In lower case, as permissions end.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Wait => "wait",
            Self::Cancel => "cancel",
            Self::Delete => "delete",
        }
    }

    /// The method's name, such as `GetOperation`.
    #[must_use]
    pub const fn method(self) -> &'static str {
        match self {
            Self::Get => "GetOperation",
            Self::List => "ListOperations",
            Self::Wait => "WaitOperation",
            Self::Cancel => "CancelOperation",
            Self::Delete => "DeleteOperation",
        }
    }
}

/// One method of `google.iam.v1.IAMPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names are those of google.iam.v1.IAMPolicy")]
pub enum PolicyVerb {
    Get,
    Set,
    Test,
}

impl PolicyVerb {
    /// Every verb.
    pub const ALL: [Self; 3] = [Self::Get, Self::Set, Self::Test];

    /// The method's name, such as `GetIamPolicy`.
    #[must_use]
    pub const fn method(self) -> &'static str {
        match self {
            Self::Get => "GetIamPolicy",
            Self::Set => "SetIamPolicy",
            Self::Test => "TestIamPermissions",
        }
    }

    /// The permission that a caller needs on an operation of the API with this first label; `None` when
    /// anybody may ask.
    #[must_use]
    pub fn permission(self, label: &str) -> Option<String> {
        match self {
            Self::Get => Some(format!("{label}.operations.getIamPolicy")),
            Self::Set => Some(format!("{label}.operations.setIamPolicy")),
            Self::Test => None,
        }
    }
}

/// Which filters a list takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FilterDialect {
    /// AIP-160 over the fields of an operation.
    Aip160,
    /// The same, and Dataproc's own: a JSON object, `status.state = ACTIVE`, fields of the metadata
    /// without `metadata.` before them.
    Dataproc,
}

/// What JSON shows of an operation's `error.details`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorDetails {
    /// Those whose type belongs to the API itself. Some official clients fail on any other.
    Declared,
    /// All whose type is known.
    All,
    /// None.
    None,
}

/// Which `request_id` a start takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestIdFormat {
    /// Any printable text up to 128 bytes but the zero UUID.
    Any,
    /// A UUID, but not the zero UUID.
    Uuid,
}

/// What happens to a cancel or delete that comes at the wrong time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It succeeds.
    Accept,
    /// It answers FAILED_PRECONDITION.
    Refuse,
}

/// What a success means that comes after an accepted cancel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SuccessAfterCancel {
    /// The operation ends with the response.
    Keep,
    /// The operation ends with code 1 all the same.
    Discard,
}

/// What a start means for the operations of the API that are under way on the same resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParallelStarts {
    /// Nothing: they go on side by side.
    Allow,
    /// The start is refused with ABORTED while there is one.
    Refuse,
    /// Those of the same method end with code 10; one of another method refuses the start.
    Supersede,
}

/// Limits and choices of methods that start an operation. What is not set comes from the API's
/// `defaults`, then from [`Policy::default`].
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MethodSettings {
    /// Whether operations can be cancelled.
    pub cancellable: Option<bool>,
    /// A cancel of a done operation.
    pub cancel_when_done: Option<Answer>,
    /// A delete of a running operation.
    pub delete_when_running: Option<Answer>,
    /// A success after an accepted cancel.
    pub success_after_cancel: Option<SuccessAfterCancel>,
    /// A start while another operation is under way on the same resource. Operations of methods that allow it
    /// take no part.
    pub parallel_starts: Option<ParallelStarts>,
    /// Longest time from an accepted cancel to the end of the work.
    pub cancel_timeout: Option<Span>,
    /// Longest time for cleaning up after a lost or cancelled attempt; unset: there is no cleanup.
    pub cleanup_budget: Option<Span>,
    /// Longest time from start to end; unset: none.
    pub deadline: Option<Span>,
    /// Longest time from start until a worker claims it; unset: none.
    pub start_by: Option<Span>,
    /// How long a done operation is kept.
    pub retention: Option<Span>,
    /// How often and how soon an operation is tried again.
    pub retry: Option<RetrySettings>,
    /// The queue that workers claim from. Default: the API's prefix.
    pub queue: Option<String>,
    /// `verb` in metadata. Default: the first word of the method's name, in lower case.
    pub verb: Option<String>,
    /// Which `request_id` is taken.
    pub request_id_format: Option<RequestIdFormat>,
    /// How long a repeated `request_id` returns the first operation; at least 60 minutes.
    pub request_id_window: Option<Span>,
    /// Path of the request field that holds the id of a resource to create.
    pub resource_id: Option<String>,
    /// Permissions that a caller needs to start, all of them. Default: `PREFIX.COLLECTION.VERB`, from the
    /// method's path.
    pub start_permissions: Option<Vec<String>>,
    /// Permissions that a caller needs for the operations of this method, by verb, beside the API's.
    pub permissions: BTreeMap<OperationsVerb, Vec<String>>,
}

impl MethodSettings {
    /// These settings, completed from `defaults`.
    #[must_use]
    pub fn over(&self, defaults: &Self) -> Self {
        fn first<T: Clone>(own: &Option<T>, other: &Option<T>) -> Option<T> {
            own.clone().or_else(|| other.clone())
        }
        let mut permissions = defaults.permissions.clone();
        permissions.extend(self.permissions.clone());
        Self {
            cancellable: first(&self.cancellable, &defaults.cancellable),
            cancel_when_done: first(&self.cancel_when_done, &defaults.cancel_when_done),
            delete_when_running: first(&self.delete_when_running, &defaults.delete_when_running),
            success_after_cancel: first(&self.success_after_cancel, &defaults.success_after_cancel),
            parallel_starts: first(&self.parallel_starts, &defaults.parallel_starts),
            cancel_timeout: first(&self.cancel_timeout, &defaults.cancel_timeout),
            cleanup_budget: first(&self.cleanup_budget, &defaults.cleanup_budget),
            deadline: first(&self.deadline, &defaults.deadline),
            start_by: first(&self.start_by, &defaults.start_by),
            retention: first(&self.retention, &defaults.retention),
            retry: first(&self.retry, &defaults.retry),
            queue: first(&self.queue, &defaults.queue),
            verb: first(&self.verb, &defaults.verb),
            request_id_format: first(&self.request_id_format, &defaults.request_id_format),
            request_id_window: first(&self.request_id_window, &defaults.request_id_window),
            resource_id: first(&self.resource_id, &defaults.resource_id),
            start_permissions: first(&self.start_permissions, &defaults.start_permissions),
            permissions,
        }
    }

    /// The limits that an operation of such a method gets.
    #[must_use]
    pub fn policy(&self) -> Policy {
        let base = Policy::default();
        let retry = self.retry.clone().unwrap_or_default();
        let base_retry = base.retry.clone();
        Policy {
            cancellable: self.cancellable.unwrap_or(base.cancellable),
            strict_cancel_when_done: self.cancel_when_done == Some(Answer::Refuse),
            strict_delete_when_running: self.delete_when_running == Some(Answer::Refuse),
            discard_success_after_cancel: self.success_after_cancel
                == Some(SuccessAfterCancel::Discard),
            cancel_timeout: self.cancel_timeout.map_or(base.cancel_timeout, |span| span.0),
            cleanup_budget: self.cleanup_budget.map(|span| span.0),
            retention: self.retention.map_or(base.retention, |span| span.0),
            parallel: match self.parallel_starts {
                None | Some(ParallelStarts::Allow) => Parallel::Allow,
                Some(ParallelStarts::Refuse) => Parallel::Refuse,
                Some(ParallelStarts::Supersede) => Parallel::Supersede,
            },
            retry: Retry {
                attempts_max: retry.attempts.unwrap_or(base_retry.attempts_max).max(1),
                backoff_first: retry.first_wait.map_or(base_retry.backoff_first, |span| span.0),
                backoff_max: retry.longest_wait.map_or(base_retry.backoff_max, |span| span.0),
            },
        }
    }
}

/// How often and how soon an operation is tried again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetrySettings {
    /// Most attempts in all, at least 1.
    pub attempts: Option<u32>,
    /// Wait before the second attempt; doubles from there.
    pub first_wait: Option<Span>,
    /// Longest wait.
    pub longest_wait: Option<Span>,
}

/// How the metadata of one type is filled beside the fields that the server keeps by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetadataSettings {
    /// Fields set at the start, by path. A value is `request.PATH`, one of `$verb`, `$VERB`, `$summary`,
    /// `$target`, `$target_id`, `$parent`, or a constant; of several, the first that is not empty.
    pub fields: BTreeMap<String, OneOrMany>,
    /// The text field that holds the operation's own name, for types that have one.
    pub operation_name: Option<String>,
    /// Where the state is shown, for types that show it.
    pub state: Option<StateSettings>,
}

/// Where and under which names a metadata type shows the state of its operation.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateSettings {
    /// Path of the enum field, such as `status.state`.
    pub field: String,
    /// Path of the timestamp of its last change.
    #[serde(default)]
    pub since: Option<String>,
    /// Path of the list of earlier states, whose elements are of the type that holds `field`.
    #[serde(default)]
    pub history: Option<String>,
    /// The enum's names.
    pub names: StateNames,
}

/// Names of states in one metadata type. What is left out is as the one before it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateNames {
    /// Waits for a worker.
    pub queued: String,
    /// A worker has it.
    pub running: String,
    /// It was asked to stop. Default: as running.
    #[serde(default)]
    pub cancelling: Option<String>,
    /// Over.
    pub done: String,
    /// Over with an error other than code 1. Default: as done.
    #[serde(default)]
    pub failed: Option<String>,
    /// Over with code 1. Default: as done.
    #[serde(default)]
    pub cancelled: Option<String>,
}

/// One value, or several to choose from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    /// A single value.
    One(String),
    /// The first that is not empty counts.
    Many(Vec<String>),
}

impl OneOrMany {
    /// All of them, in order.
    #[must_use]
    pub fn as_slice(&self) -> &[String] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Many(values) => values,
        }
    }
}

/// A span of time, written as a number and a unit: `250ms`, `60s`, `90m`, `24h`, `30d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl Span {
    /// Reads such a text; whole numbers only, at most 10,000 years.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit())?;
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().ok()?;
        let millis = match unit.trim_start() {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        let millis = number.checked_mul(millis)?;
        (millis <= 10_000 * 366 * 86_400_000).then_some(Self(Duration::from_millis(millis)))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            D::Error::custom(format!(
                "{text:?} is not a span of time; write a whole number and a unit, such as 60s, 90m, 24h or 30d"
            ))
        })
    }
}

impl Settings {
    /// Reads settings from YAML; an empty text gives the defaults. `file` names them in errors.
    ///
    /// Fails with `API_INVALID` on a wrong value and on an unknown key, with the nearest known one.
    pub fn parse(text: &str, file: &str) -> Result<Self, Error> {
        if text.lines().all(|line| line.trim().is_empty() || line.trim().starts_with('#')) {
            return Ok(Self::default());
        }
        let settings: Self = read_yaml(text, file)?;
        let operations = &settings.operations;
        if operations.page_size == 0 || operations.page_size > operations.page_size_max {
            return Err(invalid(
                file,
                "operations.page_size must be 1 to page_size_max; change one of the two".into(),
            ));
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use longhaul_core::Reason;

    use super::*;

    #[track_caller]
    fn refuses(text: &str, parts: &[&str]) {
        let error = Settings::parse(text, "settings.yaml").unwrap_err();
        assert_eq!(error.reason, Reason::ApiInvalid);
        for part in parts {
            assert!(error.message.contains(part), "{} lacks {part:?}", error.message);
        }
    }

    #[test]
    fn nothing_written_means_the_defaults() {
        for text in ["", "# only a comment\n", "{}"] {
            let settings = Settings::parse(text, "settings.yaml").unwrap();
            assert_eq!(settings.operations.page_size, 100);
            assert_eq!(settings.operations.page_size_max, 1000);
            assert_eq!(settings.defaults.policy(), Policy::default());
        }
    }

    #[test]
    fn an_unknown_key_is_an_error_with_a_suggestion() {
        refuses("prefx: a", &["settings.yaml", "line 1", "\"prefx\"", "did you mean \"prefix\"?"]);
        refuses("defaults:\n  cancelable: true", &["line 2", "did you mean \"cancellable\"?"]);
        refuses("zzz: 1", &["known here are", "operations"]);
        refuses("operations: {id: uid}", &["unknown value", "time", "uuid"]);
        refuses("defaults: {retention: 3 weeks}", &["not a span of time"]);
        refuses("operations: {page_size: 5, page_size_max: 2}", &["page_size"]);
        refuses("a: [", &["settings.yaml"]);
    }

    #[test]
    fn a_method_goes_before_the_defaults() {
        let text = "
defaults: {retention: 2d, cancel_timeout: 5s, start_by: 10m, retry: {attempts: 3}}
methods:
  a.B.C: {retention: 3h, cancellable: false, cancel_when_done: refuse, parallel_starts: supersede}
";
        let settings = Settings::parse(text, "settings.yaml").unwrap();
        let completed = settings.methods["a.B.C"].over(&settings.defaults);
        assert_eq!(completed.start_by, Some(Span(Duration::from_secs(600))));
        let policy = completed.policy();
        assert!(!policy.cancellable);
        assert!(policy.strict_cancel_when_done);
        assert_eq!(policy.parallel, Parallel::Supersede);
        assert_eq!(policy.retention, Duration::from_secs(3 * 3600));
        assert_eq!(policy.cancel_timeout, Duration::from_secs(5));
        assert_eq!(policy.retry.attempts_max, 3);
        assert_eq!(settings.defaults.policy().retention, Duration::from_secs(2 * 86_400));
    }

    #[test]
    fn spans_have_a_unit() {
        assert_eq!(Span::parse("250ms"), Some(Span(Duration::from_millis(250))));
        assert_eq!(Span::parse("30d"), Some(Span(Duration::from_secs(30 * 86_400))));
        assert_eq!(Span::parse("1 h"), Some(Span(Duration::from_secs(3600))));
        for wrong in ["", "5", "s", "-1s", "1.5s", "99999999999999999999s", "18446744073709551615d"]
        {
            assert_eq!(Span::parse(wrong), None, "{wrong}");
        }
    }
}
