//! `longhaul operations describe`.

use std::fmt::Write as _;
use std::time::SystemTime;

use longhaul_client::operations::Operation;
use serde_json::Value;

use super::args::DescribeArgs;
use super::facts::{Facts, span};
use super::target::Target;
use crate::failure::{Exit, Failure};
use crate::output::{self, Format, printable};

/// Shows one operation in full.
pub async fn run(target: &Target, args: DescribeArgs, format: Format) -> Result<Exit, Failure> {
    let named = target.find(&args.name).await?;
    let operation = named.client.get(&named.name).await.map_err(Failure::from)?;
    let text = match format {
        Format::Json => output::json(operation.json())?,
        Format::Yaml => output::yaml(operation.json())?,
        Format::Name => format!("{}\n", operation.name()),
        Format::Table => {
            let facts = Facts::of(&operation, named.api.as_deref());
            // Only Longhaul's servers keep one; what others answer is no news.
            let path = format!("{}:describe", named.name);
            let detail = target.server().longhaul(&path, None).await.unwrap_or_default();
            describe(&operation, &facts, now())? + &timeline(&detail)
        }
    };
    output::print(&text)?;
    Ok(Exit::Done)
}

#[allow(clippy::disallowed_methods, reason = "an age is told by this machine's clock")]
pub fn now() -> SystemTime {
    SystemTime::now()
}

/// Facts first, then what the API says, as YAML.
fn describe(operation: &Operation, facts: &Facts, now: SystemTime) -> Result<String, Failure> {
    let mut text = String::new();
    let mut line = |label: &str, value: &str| {
        if !value.is_empty() {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{label:<10} {}", printable(value));
        }
    };
    line("Name", &facts.name);
    line("API", &facts.api);
    line("Method", &facts.method);
    line("Target", &facts.target);
    line("State", facts.state.name());
    let percent = facts.percent.map(|percent| format!("{percent:.0}%"));
    line("Progress", &percent.unwrap_or_default());
    line("Message", &facts.message);
    let age = facts.created.and_then(|at| now.duration_since(at).ok());
    line("Created", &age.map(|age| format!("{} ago", span(age))).unwrap_or_default());
    let age = facts.ended.and_then(|at| now.duration_since(at).ok());
    line("Ended", &age.map(|age| format!("{} ago", span(age))).unwrap_or_default());
    line("Error", &facts.error.as_ref().map(ToString::to_string).unwrap_or_default());
    let details = facts.error.as_ref().map(|error| Value::Array(error.details.clone()));
    let parts = [
        ("Details", details.as_ref().filter(|details| *details != &Value::Array(Vec::new()))),
        ("Metadata", operation.metadata()),
        ("Response", operation.response()),
    ];
    for (label, value) in parts {
        let Some(value) = value else { continue };
        let yaml = output::yaml(value)?;
        let _ = writeln!(text, "{label}");
        for line in yaml.lines() {
            let _ = writeln!(text, "  {line}");
        }
    }
    Ok(text)
}

/// What happened to it, a line each.
fn timeline(detail: &Value) -> String {
    let events = detail.get("timeline").and_then(Value::as_array);
    let mut text = String::new();
    for event in events.into_iter().flatten() {
        let field = |name: &str| event[name].as_str().unwrap_or_default();
        let words = [field("who"), field("message")].into_iter().filter(|words| !words.is_empty());
        let words = words.map(printable).collect::<Vec<_>>().join(": ");
        let label = if text.is_empty() { "Timeline\n" } else { "" };
        let line = format!(
            "{label}  {}  {:<20} {words}",
            printable(field("time")),
            printable(field("event"))
        );
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_timeline_tells_who_and_why() {
        let event = |event: &str, who: &str, message: &str| json!({"time": "2026-01-01T00:00:00Z", "event": event, "who": who, "message": message});
        let events = [
            event("STARTED", "", ""),
            event("CANCEL_REQUESTED", "ada", "too\u{7} dear"),
            event("CANCEL_REPEATED", "", "really"),
        ];
        assert_eq!(
            timeline(&json!({ "timeline": events })),
            "Timeline\n  2026-01-01T00:00:00Z  STARTED\n  \
             2026-01-01T00:00:00Z  CANCEL_REQUESTED     ada: too  dear\n  \
             2026-01-01T00:00:00Z  CANCEL_REPEATED      really\n"
        );
        assert_eq!(timeline(&Value::Null), "");
    }

    #[test]
    fn what_is_known_is_shown_and_nothing_else() {
        let operation = Operation::from_json(json!({
            "name": "operations/a", "done": true,
            "metadata": {"@type": "type.googleapis.com/google.cloud.deploy.v1.OperationMetadata",
                "createTime": "2026-01-01T00:00:00Z", "verb": "create"},
            "error": {"code": 1, "message": "stopped\u{7}"},
        }))
        .unwrap();
        let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_767_225_660);
        let text = describe(&operation, &Facts::of(&operation, None), now).unwrap();
        assert_eq!(
            text,
            "Name       operations/a\nAPI        clouddeploy\nMethod     create\nState      CANCELLED\n\
             Created    60s ago\nError      CANCELLED (code 1): stopped \nMetadata\n  \
             \"@type\": type.googleapis.com/google.cloud.deploy.v1.OperationMetadata\n  \
             createTime: \"2026-01-01T00:00:00Z\"\n  verb: create\n"
        );
    }
}
