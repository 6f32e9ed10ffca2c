//! `longhaul store`: what is done to a store while no server has it open.

use std::io::{IsTerminal as _, Write as _};

use longhaul_server::copy::{Copied, End, copy};

use crate::cli::{CopyArgs, StoreArgs, StoreCommand};
use crate::failure::{Exit, Failure};
use crate::{output, serve};

/// Runs one of its commands.
pub fn run(args: StoreArgs) -> Result<Exit, Failure> {
    match args.command {
        StoreCommand::Copy(args) => run_copy(args),
    }
}

fn run_copy(args: CopyArgs) -> Result<Exit, Failure> {
    let (from, to) = (End::of(&args.from, &args.schema), End::of(&args.to, &args.schema));
    serve::on_all_threads(async move {
        let shown = std::io::stderr().is_terminal();
        let mut progress = |operations: u64| {
            if shown {
                // Whoever cannot be shown the progress is copied for all the same.
                let _ = write!(std::io::stderr(), "\r{operations} operations");
            }
        };
        let copied = copy(&from, &to, &mut progress).await;
        if shown {
            let _ = writeln!(std::io::stderr());
        }
        let Copied { contents, written } = copied.map_err(|error| {
            Failure::new(Exit::Failed, error.message)
                .because(error.reason.name())
                .help(error.reason.help())
        })?;
        output::print(&format!(
            "{} operations and {} commits of their histories are the same in both, digest {:016x}; {written} were written now\n",
            contents.operations, contents.commits, contents.digest
        ))?;
        Ok(Exit::Done)
    })
}
