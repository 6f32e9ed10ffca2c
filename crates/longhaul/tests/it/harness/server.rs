//! One server in this process, on a port of its own; or, where `LONGHAUL_TEST_SERVERS` says how many,
//! several on the PostgreSQL of `LONGHAUL_TEST_POSTGRES`, behind a plain round robin. They reach it through
//! the pooler of `LONGHAUL_TEST_POOLER` where there is one.
//!
//! It ends with the test's runtime at the latest; tests about its end call [`Server::stop`].

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use longhaul_server::Config;
use tempfile::TempDir;
use tokio::sync::Mutex;

use super::round_robin::RoundRobin;
use super::soon;

static SCHEMAS: AtomicU32 = AtomicU32::new(0);

/// Where a server keeps its operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Nowhere beyond its life.
    InMemory,
    /// In a folder of its own.
    OnDisk,
}

impl Kept {
    /// The ways that a scenario is run: both stores, or the shared one when that is what is tested.
    pub fn ways() -> &'static [Self] {
        if fleet().is_some() { &[Self::OnDisk] } else { &[Self::InMemory, Self::OnDisk] }
    }
}

/// A server that listens.
pub struct Server {
    /// Where its main port is, or the round robin before several.
    pub address: SocketAddr,
    running: Mutex<Vec<longhaul_server::Running>>,
    folder: Option<TempDir>,
    _door: Option<RoundRobin>,
}

/// The database and the number of servers on it, where several are to be tested.
fn fleet() -> Option<(String, usize)> {
    let servers = std::env::var("LONGHAUL_TEST_SERVERS").ok()?.parse().ok()?;
    Some((std::env::var("LONGHAUL_TEST_POSTGRES").ok()?, servers))
}

impl Server {
    /// A server with the defaults.
    pub async fn start(kept: Kept) -> Self {
        Self::with(kept, |_| {}).await
    }

    /// A server whose configuration `change` has seen last.
    pub async fn with(kept: Kept, change: impl FnOnce(&mut Config)) -> Self {
        if let Some((url, servers)) = fleet() {
            return Self::fleet(url, servers, change).await;
        }
        Self::alone(kept, change).await
    }

    /// The same and never several, for what each server does by itself.
    pub async fn alone(kept: Kept, change: impl FnOnce(&mut Config)) -> Self {
        let folder = match kept {
            Kept::InMemory => None,
            Kept::OnDisk => Some(TempDir::new().unwrap()),
        };
        let config = config(folder.as_ref().map(TempDir::path), change);
        let running = longhaul_server::serve(config).await.expect("the server starts");
        let address = running.address();
        Self { address, running: Mutex::new(vec![running]), folder, _door: None }
    }

    /// Several servers in a schema of their own.
    async fn fleet(url: String, servers: usize, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = config(None, change);
        let number = SCHEMAS.fetch_add(1, Ordering::Relaxed);
        config.data = None;
        config.store.url = Some(url);
        if let Ok(pooler) = std::env::var("LONGHAUL_TEST_POOLER") {
            config.postgres.session_url = config.store.url.replace(pooler);
            config.postgres.transaction_pooler = true;
        }
        config.postgres.schema = format!("it_{}_{number}", std::process::id());
        (config.postgres.writers, config.postgres.readers) = (1, 1);
        let mut running = Vec::new();
        for _ in 0..servers {
            let server = longhaul_server::serve(config.clone()).await;
            running.push(server.expect("the server starts"));
        }
        let targets = running.iter().map(|server| Some(server.address())).collect();
        let door = RoundRobin::over(targets).await;
        let (address, running) = (door.address, Mutex::new(running));
        Self { address, running, folder: None, _door: Some(door) }
    }

    /// The folder of its store.
    pub fn folder(&self) -> &Path {
        self.folder.as_ref().expect("only a server on disk has a folder").path()
    }

    /// Stops it in order and waits until it has ended. Its folder stays until it is dropped.
    pub async fn stop(&self) {
        let running = std::mem::take(&mut *self.running.lock().await);
        assert!(!running.is_empty(), "a server is stopped once");
        for server in running {
            soon("the end of the server", server.stop()).await;
        }
    }

    /// The addresses of its further listeners, in the order of the configuration.
    pub async fn further_addresses(&self) -> Vec<SocketAddr> {
        let running = self.running.lock().await;
        running.first().expect("it has not been stopped").addresses()[1..].to_vec()
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
