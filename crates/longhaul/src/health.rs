//! `longhaul health`: whether a server is ready, for people, scripts and containers.

use longhaul_client::operations::Client;

use crate::cli::HealthArgs;
use crate::failure::{Exit, Failure};
use crate::{operations, output};

/// Asks `/readyz`.
pub fn run(args: HealthArgs) -> Result<Exit, Failure> {
    operations::on_one_thread(async {
        let client = Client::connect_with(&args.server, &args.credentials.read()?)?;
        let (status, text) = client.probe("readyz").await?;
        if status == 200 {
            output::print("ready\n")?;
            return Ok(Exit::Done);
        }
        let words: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let words = output::printable(&words.chars().take(300).collect::<String>());
        let message = format!("{} is not ready: HTTP {status}, {words}", args.server);
        let failure = Failure::new(Exit::Failed, message);
        Err(if status == 404 {
            failure.help("check --server: a Longhaul server answers /readyz")
        } else {
            failure.help("it is starting, stopping or cannot write; its log says which")
        })
    })
}
