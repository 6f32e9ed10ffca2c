//! `longhaul version`.

use serde_json::json;

use crate::cli::VersionArgs;
use crate::failure::{Exit, Failure};
use crate::output::{self, Format};

/// The version, as Cargo knows it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Prints it.
pub fn run(args: VersionArgs) -> Result<Exit, Failure> {
    let facts = json!({
        "version": VERSION,
        "os": std::env::consts::OS,
        "arch": std::env::consts::ARCH,
    });
    let text = match args.output {
        Format::Table => format!("longhaul {VERSION}\n"),
        Format::Name => format!("{VERSION}\n"),
        Format::Json => output::json(&facts)?,
        Format::Yaml => output::yaml(&facts)?,
    };
    output::print(&text)?;
    Ok(Exit::Done)
}
