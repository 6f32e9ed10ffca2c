//! What a table shows of an operation: read from the metadata of any API, by the names in use.

use std::time::{Duration, SystemTime};

use longhaul_client::operations::{Operation, OperationError, State};
use serde_json::Value;

/// Package names whose API goes by another name.
const RENAMED: [(&str, &str); 1] = [("deploy", "clouddeploy")];

/// What is known of one operation.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Full name.
    pub name: String,
    /// The API's short name; empty when unknown.
    pub api: String,
    /// What it does, such as `create`; empty when unknown.
    pub method: String,
    /// Where it stands.
    pub state: State,
    /// 0 to 100.
    pub percent: Option<f64>,
    /// Words about the progress; may be empty.
    pub message: String,
    /// What it acts on; empty when unknown.
    pub target: String,
    /// When it was started.
    pub created: Option<SystemTime>,
    /// When it ended.
    pub ended: Option<SystemTime>,
    /// How it failed.
    pub error: Option<OperationError>,
}

impl Facts {
    /// Reads them; `api` is the API's short name where it is known from elsewhere.
    pub fn of(operation: &Operation, api: Option<&str>) -> Self {
        let nothing = Value::Null;
        let metadata = operation.metadata().unwrap_or(&nothing);
        let text = |paths: &[&str]| first(metadata, paths, Value::as_str).unwrap_or_default();
        let moment = |paths: &[&str]| first(metadata, paths, |value| parse_time(value.as_str()?));
        let state = operation.state();
        let message = text(&["statusMessage", "status.details", "progressMessage"]);
        let percent = match state {
            State::Succeeded => Some(100.0),
            State::Running | State::Cancelling | State::Failed | State::Cancelled => {
                percent(metadata).or_else(|| percent_in_words(message))
            }
        };
        let target = text(&[
            "target",
            "clusterName",
            "batch",
            "session",
            "jobId",
            "job.name",
            "template",
            "nodeGroupId",
        ]);
        Self {
            name: operation.name().to_owned(),
            api: api.map(short_api).or_else(|| api_of(operation)).unwrap_or_default(),
            method: text(&["verb", "operationType"]).to_lowercase(),
            state,
            percent,
            message: message.to_owned(),
            target: target.to_owned(),
            created: moment(&[
                "createTime",
                "startTime",
                "statusHistory.0.stateStartTime",
                "status.stateStartTime",
            ]),
            ended: moment(&["endTime", "doneTime"]),
            error: operation.error(),
        }
    }

    /// One row of a table.
    pub fn row(&self, now: SystemTime) -> [String; 7] {
        let percent = self.percent.map(|percent| format!("{percent:.0}%")).unwrap_or_default();
        let age = self.created.map(|at| span(now.duration_since(at).unwrap_or_default()));
        [
            self.name.clone(),
            self.api.clone(),
            self.method.clone(),
            self.state.name().to_owned(),
            percent,
            age.unwrap_or_default(),
            self.short_target().to_owned(),
        ]
    }

    /// The heads of [`Self::row`].
    pub const HEADS: [&str; 7] = ["NAME", "API", "METHOD", "STATE", "PROGRESS", "AGE", "TARGET"];

    /// The target without the parent that it shares with the operation.
    pub fn short_target(&self) -> &str {
        let parent = self.name.rsplit_once("/operations/").map(|(parent, _)| parent);
        parent
            .and_then(|parent| self.target.strip_prefix(parent)?.strip_prefix('/'))
            .unwrap_or(&self.target)
    }
}

/// The first of several paths that leads to a value; paths are fields joined by dots.
fn first<'v, T>(
    value: &'v Value,
    paths: &[&str],
    read: impl Fn(&'v Value) -> Option<T>,
) -> Option<T> {
    paths.iter().find_map(|path| {
        let found = path.split('.').try_fold(value, |value, field| match field.parse::<usize>() {
            Ok(index) => value.get(index),
            Err(_) => value.get(field),
        });
        read(found?)
    })
}

/// Progress under the names in use, or from counters.
fn percent(metadata: &Value) -> Option<f64> {
    const NAMES: [&str; 6] = [
        "progressPercent",
        "progressPercentage",
        "percentComplete",
        "percentDone",
        "progress.percent",
        "progress",
    ];
    let number =
        |value: &Value| value.as_f64().or_else(|| value.as_str().and_then(|t| t.parse().ok()));
    let direct = first(metadata, &NAMES, number);
    let counted = || {
        let counters = metadata.get("job")?.get("counters")?;
        let count = |name: &str| counters.get(name).and_then(number).unwrap_or_default();
        let total = count("totalObjectCount");
        let past = count("succeededObjectCount") + count("failedObjectCount");
        (total > 0.0).then(|| past / total * 100.0)
    };
    direct.or_else(counted).filter(|percent| percent.is_finite()).map(|p| p.clamp(0.0, 100.0))
}

/// Progress that an API without a field for it puts into words: `40%`, or `step 4 of 10`.
fn percent_in_words(message: &str) -> Option<f64> {
    let bare = |word: &'_ str| word.trim_matches(['(', ')', ',', '.', ';', ':']).to_owned();
    let words: Vec<String> = message.split_whitespace().map(bare).collect();
    let number = |word: &str| word.parse::<f64>().ok();
    let direct = words.iter().find_map(|word| number(word.strip_suffix('%')?));
    let counted = || {
        words.windows(3).find_map(|three| match three {
            [past, of, all] if of == "of" => Some((number(past)?, number(all)?)),
            _ => None,
        })
    };
    let percent = direct.or_else(|| counted().map(|(past, all)| past / all * 100.0))?;
    (0.0..=100.0).contains(&percent).then_some(percent)
}

/// The API that declared the metadata's type: `google.cloud.deploy.v1.OperationMetadata`.
fn api_of(operation: &Operation) -> Option<String> {
    let package = operation.metadata_type()?.rsplit_once('.')?.0;
    let is_version = |part: &str| {
        part.strip_prefix('v').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let part = package.rsplit('.').find(|part| !is_version(part))?;
    let renamed = RENAMED.iter().find(|(from, _)| *from == part);
    Some(renamed.map_or(part, |(_, to)| to).to_owned())
}

/// `clouddeploy` for `clouddeploy.googleapis.com`.
pub fn short_api(api: &str) -> String {
    api.split('.').next().unwrap_or(api).to_owned()
}

/// Reads RFC 3339.
fn parse_time(text: &str) -> Option<SystemTime> {
    text.parse::<prost_types::Timestamp>().ok()?.try_into().ok()
}

/// A span as people say it, in its largest unit: `5s`, `3m`, `2h`, `4d`.
pub fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(operation: Value, row: [&str; 7]) {
        let now = parse_time("2026-01-01T00:10:00Z").unwrap();
        let operation = Operation::from_json(operation).unwrap();
        assert_eq!(Facts::of(&operation, None).row(now), row);
    }

    #[test]
    fn a_row_is_read_from_the_metadata_of_each_api() {
        check(
            json!({"name": "projects/p/locations/l/operations/o", "metadata": {
                "@type": "type.googleapis.com/google.cloud.deploy.v1.OperationMetadata",
                "createTime": "2026-01-01T00:00:30.5Z", "verb": "create",
                "target": "projects/p/locations/l/deliveryPipelines/d",
                "requestedCancellation": true}}),
            [
                "projects/p/locations/l/operations/o",
                "clouddeploy",
                "create",
                "CANCELLING",
                "",
                "9m",
                "deliveryPipelines/d",
            ],
        );
        check(
            json!({"name": "projects/p/regions/r/operations/o", "metadata": {
                "@type": "type.googleapis.com/google.cloud.dataproc.v1.ClusterOperationMetadata",
                "clusterName": "c", "operationType": "CREATE",
                "status": {"state": "RUNNING", "stateStartTime": "2026-01-01T00:09:59Z"}}}),
            ["projects/p/regions/r/operations/o", "dataproc", "create", "RUNNING", "", "1s", "c"],
        );
        check(
            json!({"name": "o", "metadata": {
                "@type": "type.googleapis.com/google.cloud.storagebatchoperations.v1.OperationMetadata",
                "createTime": "2025-12-25T00:00:00Z", "job": {"name": "jobs/j", "counters":
                    {"totalObjectCount": "200", "succeededObjectCount": "50", "failedObjectCount": 10}}}}),
            ["o", "storagebatchoperations", "", "RUNNING", "30%", "7d", "jobs/j"],
        );
        check(
            json!({"name": "o", "done": true, "response": {}}),
            ["o", "", "", "SUCCEEDED", "100%", "", ""],
        );
        check(
            json!({"name": "o", "metadata": {"progressPercent": 250, "createTime": "yesterday"}}),
            ["o", "", "", "RUNNING", "100%", "", ""],
        );
    }

    #[test]
    fn progress_is_found_in_words() {
        for (message, percent) in [
            ("step 4 of 20", Some(20.0)),
            ("copied 3 of 4, 1 to go", Some(75.0)),
            ("at 40% (step 1 of 2)", Some(40.0)),
            ("done (12.5%)", Some(12.5)),
            ("one of them", None),
            ("5 of 0", None),
            ("9 of 3", None),
            ("", None),
        ] {
            assert_eq!(percent_in_words(message), percent, "{message}");
        }
    }

    #[test]
    fn spans_are_said_in_their_largest_unit() {
        for (seconds, said) in
            [(0, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (172_800, "2d")]
        {
            assert_eq!(span(Duration::from_secs(seconds)), said);
        }
    }
}
