//! `longhaul operations list`: one API's operations, or those of every API that fits.

use longhaul_client::operations::{Error, ListOptions, Operation};

use super::args::ListArgs;
use super::describe::now;
use super::facts::Facts;
use super::show;
use super::target::Target;
use crate::failure::{Exit, Failure};
use crate::output::{self, Format};

/// Lists operations, newest first.
pub async fn run(target: &mut Target, args: ListArgs, format: Format) -> Result<Exit, Failure> {
    if let Some(api) = &args.api {
        target.choose(api)?;
    }
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let options = ListOptions {
        filter: args.filter,
        page_size: args.page_size,
        return_partial_success: args.partial,
        ..ListOptions::default()
    };
    let mut found = everywhere(target, &options, limit).await?;
    let more = found.more || found.operations.len() > limit;
    found.operations.truncate(limit);
    let operations = || found.operations.iter().map(|(operation, _)| operation);
    let text = match format {
        Format::Json => output::json(&show::array(operations()))?,
        Format::Yaml => output::yaml(&show::array(operations()))?,
        Format::Name => operations().map(|one| format!("{}\n", one.name())).collect(),
        Format::Table if found.operations.is_empty() => String::new(),
        Format::Table => {
            let now = now();
            let facts = found.operations.iter().map(|(one, api)| Facts::of(one, api.as_deref()));
            output::table(&Facts::HEADS, facts.map(|facts| facts.row(now)))
        }
    };
    output::print(&text)?;
    if format == Format::Table && found.operations.is_empty() {
        tell("no operations");
    }
    if more {
        tell(&format!("only the newest {limit} are shown; --limit shows more"));
    }
    for place in &found.unreachable {
        tell(&format!("could not be read: {place}"));
    }
    Ok(Exit::Done)
}

/// A remark beside the result.
fn tell(remark: &str) {
    use std::io::Write as _;
    // A remark that cannot be written is not missed.
    let _ = writeln!(std::io::stderr(), "{remark}");
}

/// What was found, each with the API it is of where that is known.
#[derive(Default)]
pub struct Found {
    /// Newest first.
    pub operations: Vec<(Operation, Option<String>)>,
    /// Whether there is more than was asked for.
    pub more: bool,
    /// Places that could not be read.
    pub unreachable: Vec<String>,
}

/// Lists one API, or, when none is chosen and several fit, each of them.
pub async fn everywhere(
    target: &Target,
    options: &ListOptions,
    limit: usize,
) -> Result<Found, Failure> {
    let mut found = Found::default();
    let ambiguous = match of_target(target, options, limit, &mut found).await {
        Ok(()) => return Ok(found),
        Err(error) => error,
    };
    let fitting = match &ambiguous {
        Error::Status(status) if target.api.is_none() => {
            let info = status.info.as_ref().filter(|info| info.reason == "API_AMBIGUOUS");
            info.and_then(|info| info.metadata.get("apis"))
        }
        Error::Status(_)
        | Error::InvalidArgument(_)
        | Error::Transport(_)
        | Error::Reply { .. }
        | Error::Token(_)
        | Error::Timeout { .. }
        | Error::Detached { .. } => None,
    };
    let Some(fitting) = fitting else { return Err(ambiguous.into()) };
    found = Found::default();
    for api in fitting.split(',').map(str::trim).filter(|api| !api.is_empty()) {
        let mut one = target.clone();
        one.choose(api)?;
        of_target(&one, options, limit, &mut found).await?;
    }
    let created = |operation: &Operation| Facts::of(operation, None).created;
    found.operations.sort_by_key(|(operation, _)| std::cmp::Reverse(created(operation)));
    Ok(found)
}

async fn of_target(
    target: &Target,
    options: &ListOptions,
    limit: usize,
    found: &mut Found,
) -> Result<(), Error> {
    for parent in target.parents() {
        let options = ListOptions { parent, ..options.clone() };
        let page = target.client.list(&options, limit).await?;
        found.more |= !page.next_page_token.is_empty();
        found.unreachable.extend(page.unreachable);
        let api = target.api.clone();
        found.operations.extend(page.operations.into_iter().map(|one| (one, api.clone())));
    }
    Ok(())
}
