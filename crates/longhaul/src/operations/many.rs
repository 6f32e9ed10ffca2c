//! `longhaul operations cancel --filter`: many at once, counted before and told one by one afterwards.
//!
//! The server does the work, as an operation of its own; this follows it. Leaving early ends nothing.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget};
use serde_json::{Value, json};

use super::args::CancelArgs;
use super::report;
use super::target::{Named, Target};
use super::wait;
use crate::failure::{Exit, Failure};
use crate::output::{self, Format, printable};

/// Pause between two looks at how far it is: a person is watching.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What a bulk cancel did, as its metadata or response tells it.
struct Done {
    progress: Value,
    exit: Exit,
}

/// Asks everything that fits to stop, or only counts it.
pub async fn cancel(
    target: &Target,
    filter: &str,
    args: &CancelArgs,
    format: Format,
) -> Result<Exit, Failure> {
    let Some(api) = &target.api else {
        return Err(Failure::usage("a filter is one API's; say which with --api"));
    };
    let parents = args.parent.as_ref().map_or_else(|| target.parents(), |one| vec![one.clone()]);
    let mut answers = Vec::new();
    for parent in &parents {
        let mut body = json!({ "api": api, "parent": parent, "filter": filter });
        body["reason"] = json!(args.reason.as_deref().unwrap_or_default());
        body["dryRun"] = json!(args.dry_run);
        answers.push(target.server().longhaul("operations:bulkCancel", Some(&body)).await?);
    }
    if args.dry_run {
        return counted(&answers, format);
    }
    let mut exit = Exit::Done;
    let mut all = Vec::new();
    for answer in &answers {
        let name = text(answer, "operation");
        let done = follow(target, name, args.how.quiet).await?;
        exit = exit.and(done.exit);
        all.push(done.progress);
    }
    if !args.wait {
        output::print(&told(&all, format)?)?;
        return Ok(exit);
    }
    let going_on =
        |item: &&Value| !matches!(text(item, "outcome"), "" | "CANCELLED" | "ALREADY_DONE");
    let named = items(&all).filter(going_on).map(|item| Named {
        name: text(item, "name").to_owned(),
        client: target.client.clone(),
        api: target.api.clone(),
    });
    let waited = wait::until_done(&named.collect::<Vec<_>>(), &args.how).await;
    Ok(exit.and(report(&waited, format)?))
}

/// What would be asked.
fn counted(answers: &[Value], format: Format) -> Result<Exit, Failure> {
    let names =
        || answers.iter().flat_map(|answer| list(answer, "names")).filter_map(Value::as_str);
    let text = match format {
        Format::Json => output::json(&one_or_all(answers))?,
        Format::Yaml => output::yaml(&one_or_all(answers))?,
        Format::Name => names().map(|name| format!("{name}\n")).collect(),
        Format::Table => {
            let matched = answers.iter().map(|answer| number(answer, "matched")).sum::<u64>();
            let shown = names().count() as u64;
            let more = matched.saturating_sub(shown);
            let rest = if more > 0 { format!("and {more} more\n") } else { String::new() };
            let names: String = names().map(|name| format!("{}\n", printable(name))).collect();
            format!("{matched} would be asked to stop\n{names}{rest}")
        }
    };
    output::print(&text)?;
    Ok(Exit::Done)
}

/// Follows a bulk cancel to its end, showing how far it is.
async fn follow(target: &Target, name: &str, quiet: bool) -> Result<Done, Failure> {
    let terminal = std::io::stderr().is_terminal();
    let hidden = quiet || !terminal;
    let bar = ProgressBar::with_draw_target(
        None,
        if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() },
    );
    bar.enable_steady_tick(Duration::from_millis(120));
    let mut said = String::new();
    let path = format!("{name}:describe");
    let detail = loop {
        let detail = target.server().longhaul(&path, None).await?;
        let line = summary(progress(&detail));
        if !quiet && !terminal && line != said {
            // Progress that cannot be written is not missed.
            let _ = writeln!(std::io::stderr(), "{line}");
        }
        bar.set_message(line.clone());
        said = line;
        if text(&detail, "state") == "DONE" {
            break detail;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            _ = tokio::signal::ctrl_c() => {
                bar.finish_and_clear();
                return Err(Failure::new(Exit::Detached, format!("detached; {name} goes on")).help(
                    format!("stop it with: longhaul operations cancel {name} --reason enough"),
                ));
            }
        }
    };
    bar.finish_and_clear();
    let mut exit = Exit::Done;
    if let Some(error) = detail.get("error") {
        exit = if error["code"] == 1 { Exit::Cancelled } else { Exit::Failed };
        let message = text(error, "message");
        Failure::new(exit, format!("it ended before everything was asked: {message}")).print();
    }
    let progress = progress(&detail).clone();
    let refused =
        items(std::slice::from_ref(&progress)).any(|item| !text(item, "error").is_empty());
    if refused {
        exit = exit.and(Exit::Failed);
    }
    Ok(Done { progress, exit })
}

/// How far it is: the response of one that is done, else the metadata.
fn progress(detail: &Value) -> &Value {
    detail.get("response").or_else(|| detail.get("metadata")).unwrap_or(&Value::Null)
}

/// `asked 12: 10 REQUESTED, 2 CANCELLED`.
fn summary(progress: &Value) -> String {
    let mut line = format!("asked {}", number(progress, "matched"));
    let outcomes = progress.get("outcomes").and_then(Value::as_object);
    for (index, outcome) in outcomes.into_iter().flatten().map(|(name, _)| name).enumerate() {
        let joint = if index == 0 { ":" } else { "," };
        line += &format!("{joint} {} {outcome}", number(&progress["outcomes"], outcome));
    }
    line
}

/// What came of each.
fn told(all: &[Value], format: Format) -> Result<String, Failure> {
    Ok(match format {
        Format::Json => output::json(&one_or_all(all))?,
        Format::Yaml => output::yaml(&one_or_all(all))?,
        Format::Name => items(all).map(|item| format!("{}\n", text(item, "name"))).collect(),
        Format::Table => {
            let row = |item: &Value| {
                let came = match text(item, "error") {
                    "" => text(item, "outcome"),
                    error => error,
                };
                [printable(text(item, "name")), came.to_owned()]
            };
            let lines: String = all.iter().map(|one| format!("{}\n", summary(one))).collect();
            if items(all).next().is_none() {
                lines
            } else {
                output::table(&["NAME", "OUTCOME"], items(all).map(row)) + &lines
            }
        }
    })
}

fn one_or_all(values: &[Value]) -> Value {
    match values {
        [one] => one.clone(),
        all => Value::Array(all.to_vec()),
    }
}

fn items(all: &[Value]) -> impl Iterator<Item = &Value> {
    all.iter().flat_map(|progress| list(progress, "items"))
}

fn list<'v>(value: &'v Value, field: &str) -> &'v [Value] {
    value.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// A 64-bit number, which JSON writes as text.
fn number(value: &Value, field: &str) -> u64 {
    text(value, field).parse().unwrap_or_default()
}
