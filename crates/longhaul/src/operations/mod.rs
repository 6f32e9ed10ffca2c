//! `longhaul operations`: a client of any google.longrunning server.
//!
//! Owns what is asked in which order and what is printed; calls are `longhaul-client`'s.

pub mod args;
mod describe;
mod facts;
mod interrupt;
mod list;
mod many;
mod show;
mod target;
mod wait;

use std::future::Future;

use longhaul_client::operations::Operation;
use serde_json::Value;

use crate::failure::{Exit, Failure};
use crate::output::{self, Format};
use args::{CancelArgs, NamesArgs, OperationsArgs, OperationsCommand, WaitArgs};
use facts::Facts;
use target::{Named, Target};

/// Runs one of the commands.
pub fn run(args: OperationsArgs) -> Result<Exit, Failure> {
    let format = args.output;
    on_one_thread(async move {
        let mut target = Target::new(&args.target)?;
        match args.command {
            OperationsCommand::List(args) => list::run(&mut target, args, format).await,
            OperationsCommand::Describe(args) => describe::run(&target, args, format).await,
            OperationsCommand::Wait(args) => wait_for(&target, args, format).await,
            OperationsCommand::Cancel(args) => cancel(&target, args, format).await,
            OperationsCommand::Delete(args) => delete(&target, args, format).await,
        }
    })
}

/// Runs a client's future; one thread is plenty.
pub fn on_one_thread(work: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(work)
}

async fn wait_for(target: &Target, args: WaitArgs, format: Format) -> Result<Exit, Failure> {
    let named = target.find_all(&args.names).await?;
    let waited = wait::until_done(&named, &args.how).await;
    report(&waited, format)
}

async fn cancel(target: &Target, args: CancelArgs, format: Format) -> Result<Exit, Failure> {
    if let Some(filter) = &args.filter {
        return many::cancel(target, filter, &args, format).await;
    }
    let named = target.find_all(&args.names).await?;
    let mut exit = Exit::Done;
    let mut asked = Vec::new();
    for one in named {
        let came = match &args.reason {
            Some(reason) => {
                let body = serde_json::json!({ "reason": reason });
                let path = format!("{}:cancel", one.name);
                target.server().longhaul(&path, Some(&body)).await.map(drop)
            }
            None => one.client.cancel(&one.name).await,
        };
        match came {
            Ok(()) => asked.push(one),
            Err(error) => {
                let failure = Failure::from(error).about(&one.name);
                failure.print();
                exit = exit.and(failure.exit);
            }
        }
    }
    if !args.wait {
        output::print(&acknowledged(&asked, "cancellation requested", format)?)?;
        return Ok(exit);
    }
    let waited = wait::until_done(&asked, &args.how).await;
    Ok(exit.and(report(&waited, format)?))
}

async fn delete(target: &Target, args: NamesArgs, format: Format) -> Result<Exit, Failure> {
    let named = target.find_all(&args.names).await?;
    let mut exit = Exit::Done;
    let mut gone = Vec::new();
    for one in named {
        match one.client.delete(&one.name).await {
            Ok(()) => gone.push(one),
            Err(error) => {
                let failure = Failure::from(error).about(&one.name);
                failure.print();
                exit = exit.and(failure.exit);
            }
        }
    }
    output::print(&acknowledged(&gone, "deleted", format)?)?;
    Ok(exit)
}

/// What was done to which operations.
fn acknowledged(named: &[Named], what: &str, format: Format) -> Result<String, Failure> {
    let names = || named.iter().map(|one| one.name.as_str());
    let values = || Value::Array(names().map(|name| serde_json::json!({"name": name})).collect());
    match format {
        Format::Table => Ok(names().map(|name| format!("{what}: {name}\n")).collect()),
        Format::Name => Ok(names().map(|name| format!("{name}\n")).collect()),
        Format::Json => output::json(&values()),
        Format::Yaml => output::yaml(&values()),
    }
}

/// Prints what was waited for, and says how it ended.
fn report(waited: &[wait::Waited], format: Format) -> Result<Exit, Failure> {
    let mut exit = Exit::Done;
    for one in waited {
        exit = exit.and(one.exit);
        if let Some(failure) = &one.failure {
            failure.print();
        }
    }
    let seen: Vec<(&Operation, Option<&str>)> =
        waited.iter().filter_map(|one| Some((one.last.as_ref()?, one.api.as_deref()))).collect();
    let text = match format {
        Format::Json | Format::Yaml if waited.len() == 1 => match seen.first() {
            Some((operation, _)) if format == Format::Json => output::json(operation.json())?,
            Some((operation, _)) => output::yaml(operation.json())?,
            None => String::new(),
        },
        Format::Json => output::json(&show::array(seen.iter().map(|(one, _)| *one)))?,
        Format::Yaml => output::yaml(&show::array(seen.iter().map(|(one, _)| *one)))?,
        Format::Name => seen.iter().map(|(one, _)| format!("{}\n", one.name())).collect(),
        // What goes on has been told of beside the result.
        Format::Table => seen
            .iter()
            .filter(|(one, _)| one.done())
            .map(|(one, api)| show::ending(&Facts::of(one, *api)))
            .collect(),
    };
    output::print(&text)?;
    Ok(exit)
}

#[cfg(test)]
mod tests;
