//! `longhaul serve`: a server as its configuration says, until a signal ends it.
//!
//! Owns signals, the port file and the threads of a server; `dev` uses them, too.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use longhaul_server::{Config, Running};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::ServeArgs;
use crate::failure::{Exit, Failure};

/// Serves until a signal.
pub fn run(args: ServeArgs) -> Result<Exit, Failure> {
    let config = read_config(&args.config)?;
    on_all_threads(async move {
        let running = start(config).await?;
        tracing::info!(address = %running.address(), "ready");
        write_port(args.port_file.as_deref(), running.address())?;
        until_signal(running.stop()).await
    })
}

/// The configuration in a file.
pub fn read_config(file: &Path) -> Result<Config, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::usage(format!("cannot read {}: {error}", file.display())))?;
    Config::parse(&text, &file.display().to_string())
        .map_err(|error| Failure::usage(error.message).because(error.reason.name()))
}

/// Starts a server, or says why not.
pub async fn start(config: Config) -> Result<Running, Failure> {
    start_on(config, None).await
}

/// The same on a socket that is bound already.
pub async fn start_on(config: Config, socket: Option<TcpListener>) -> Result<Running, Failure> {
    longhaul_server::serve_on(config, socket).await.map_err(|error| {
        Failure::new(Exit::Failed, error.message)
            .because(error.reason.name())
            .help(error.reason.help())
    })
}

/// A port, before there is a server on it.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    longhaul_server::bind(address).await.map_err(|error| {
        Failure::new(Exit::Failed, error.message)
            .because(error.reason.name())
            .help(error.reason.help())
    })
}

/// A runtime with a thread for each core. At its end nothing that still blocks is waited for.
pub fn on_all_threads(work: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(work);
    runtime.shutdown_background();
    result
}

/// Waits for SIGINT or SIGTERM, then for `stop`; a second signal ends it at once.
pub async fn until_signal(stop: impl Future<Output = ()>) -> Result<Exit, Failure> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    tracing::info!("stopping; a second signal stops at once");
    tokio::select! {
        () = stop => Ok(Exit::Done),
        _ = interrupt.recv() => Err(at_once()),
        _ = terminate.recv() => Err(at_once()),
    }
}

fn at_once() -> Failure {
    Failure::new(Exit::Failed, "stopped at once, on a second signal")
}

/// Writes the port so that a reader never sees half of it.
pub fn write_port(file: Option<&Path>, address: SocketAddr) -> Result<(), Failure> {
    let Some(file) = file else { return Ok(()) };
    let mut half: PathBuf = file.to_owned();
    half.as_mut_os_string().push(".tmp");
    std::fs::write(&half, format!("{}\n", address.port()))
        .and_then(|()| std::fs::rename(&half, file))
        .map_err(|error| {
            Failure::new(Exit::Failed, format!("cannot write {}: {error}", file.display()))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_file_holds_the_port_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("port.txt");
        write_port(Some(&file), SocketAddr::from(([127, 0, 0, 1], 4711))).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "4711\n");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let missing = folder.path().join("no/such/folder/port");
        assert!(write_port(Some(&missing), SocketAddr::from(([127, 0, 0, 1], 1))).is_err());
    }
}
