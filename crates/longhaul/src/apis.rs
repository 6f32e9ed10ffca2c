//! `longhaul apis`: what comes with the program.

use longhaul_wire::bundled;
use serde_json::{Value, json};

use crate::cli::{ApisArgs, ApisCommand};
use crate::failure::{Exit, Failure};
use crate::output::{self, Format};

/// Shows the bundled APIs.
pub fn run(args: ApisArgs) -> Result<Exit, Failure> {
    let ApisCommand::List = args.command;
    let apis =
        bundled::load_all().map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
    let facts: Vec<Value> = apis
        .iter()
        .map(|api| {
            let starts: Vec<&str> = api.start_methods().map(|method| &*method.full_name).collect();
            json!({
                "name": api.prefix(),
                "host": &**api.name(),
                "title": api.title(),
                "version": api.version(),
                "operationMethods": starts,
            })
        })
        .collect();
    let text = |fact: &Value, key: &str| fact[key].as_str().unwrap_or_default().to_owned();
    let printed = match args.output {
        Format::Json => output::json(&Value::Array(facts))?,
        Format::Yaml => output::yaml(&Value::Array(facts))?,
        Format::Name => facts.iter().map(|fact| text(fact, "name") + "\n").collect(),
        Format::Table => {
            let rows = facts.iter().map(|fact| {
                let starts = fact["operationMethods"].as_array().map_or(0, Vec::len);
                let [name, host, title] = ["name", "host", "title"].map(|key| text(fact, key));
                [name, host, starts.to_string(), title]
            });
            output::table(&["NAME", "HOST", "METHODS", "TITLE"], rows)
        }
    };
    output::print(&printed)?;
    Ok(Exit::Done)
}
