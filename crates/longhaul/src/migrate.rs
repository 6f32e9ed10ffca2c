//! `longhaul migrate`: brings a database up to this version before its servers do.

use crate::cli::MigrateArgs;
use crate::failure::{Exit, Failure};
use crate::{output, serve};

/// Migrates and says what was done.
pub fn run(args: MigrateArgs) -> Result<Exit, Failure> {
    let config = serve::read_config(&args.config)?;
    serve::on_all_threads(async move {
        let migrated = longhaul_server::store::migrate(&config).await.map_err(|error| {
            Failure::new(Exit::Failed, error.message)
                .because(error.reason.name())
                .help(error.reason.help())
        })?;
        output::print(&match migrated.from {
            Some(from) if from == migrated.to => format!("version {from}, up to date\n"),
            Some(from) => format!("version {from} brought to version {}\n", migrated.to),
            None => format!("made, version {}\n", migrated.to),
        })?;
        Ok(Exit::Done)
    })
}
