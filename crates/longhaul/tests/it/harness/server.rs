//! One server in this process, on a port of its own.
//!
//! It ends with the test's runtime at the latest; tests about its end call [`Server::stop`].

use std::net::SocketAddr;
use std::path::Path;

use longhaul_server::Config;
use tempfile::TempDir;
use tokio::sync::Mutex;

use super::soon;

/// Where a server keeps its operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Nowhere beyond its life.
    InMemory,
    /// In a folder of its own.
    OnDisk,
}

/// A server that listens.
pub struct Server {
    /// Where its main port is.
    pub address: SocketAddr,
    running: Mutex<Option<longhaul_server::Running>>,
    folder: Option<TempDir>,
}

impl Server {
    /// A server with the defaults.
    pub async fn start(kept: Kept) -> Self {
        Self::with(kept, |_| {}).await
    }

    /// A server whose configuration `change` has seen last.
    pub async fn with(kept: Kept, change: impl FnOnce(&mut Config)) -> Self {
        let folder = match kept {
            Kept::InMemory => None,
            Kept::OnDisk => Some(TempDir::new().unwrap()),
        };
        let config = config(folder.as_ref().map(TempDir::path), change);
        let running = longhaul_server::serve(config).await.expect("the server starts");
        let address = running.address();
        Self { address, running: Mutex::new(Some(running)), folder }
    }

    /// The folder of its store.
    pub fn folder(&self) -> &Path {
        self.folder.as_ref().expect("only a server on disk has a folder").path()
    }

    /// Stops it in order and waits until it has ended. Its folder stays until it is dropped.
    pub async fn stop(&self) {
        let running = self.running.lock().await.take().expect("a server is stopped once");
        soon("the end of the server", running.stop()).await;
    }

    /// The addresses of its further listeners, in the order of the configuration.
    pub async fn further_addresses(&self) -> Vec<SocketAddr> {
        let running = self.running.lock().await;
        running.as_ref().expect("it has not been stopped").addresses()[1..].to_vec()
    }
}

/// The defaults, on any free port of the loopback address.
pub fn config(folder: Option<&Path>, change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        data: folder.map(Path::to_owned),
        ..Config::default()
    };
    change(&mut config);
    config
}
