//! Where a scenario takes place: each wire on each store, with a project of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use longhaul_server::Config;

use super::client::{Client, Wire};
use super::operators::Operators;
use super::samples::{DEPLOY, Sample};
use super::server::{Kept, Server};
use super::worker::Worker;

static PROJECTS: AtomicU32 = AtomicU32::new(1);

/// One wire, one store, one project.
#[derive(Clone)]
pub struct Place {
    /// The server.
    pub server: Arc<Server>,
    /// How clients and workers call it.
    pub wire: Wire,
    /// A project that no other scenario uses.
    pub project: String,
}

impl Place {
    /// A place on a server that is there.
    pub fn on(server: Arc<Server>, wire: Wire) -> Self {
        let project = format!("project-{}", PROJECTS.fetch_add(1, Ordering::Relaxed));
        Self { server, wire, project }
    }

    /// A client of Cloud Deploy, for whatever is the same in all APIs.
    pub fn client(&self) -> Client {
        self.client_of(&DEPLOY)
    }

    /// A client of one API.
    pub fn client_of(&self, sample: &'static Sample) -> Client {
        Client::new(self.server.address, self.wire, sample, &*self.project)
    }

    /// A caller of the operators' side.
    pub fn operators(&self) -> Operators {
        Operators::new(self.server.address, self.wire)
    }

    /// A worker.
    pub fn worker(&self) -> Worker {
        Worker::new(self.server.address, self.wire, format!("worker-of-{}", self.project))
    }
}

/// Runs a scenario over both wires on both stores.
pub async fn everywhere<Scenario: AsyncFn(Place)>(scenario: Scenario) {
    everywhere_with(|_| {}, scenario).await;
}

/// The same, with another configuration.
pub async fn everywhere_with<Scenario: AsyncFn(Place)>(
    change: impl Fn(&mut Config),
    scenario: Scenario,
) {
    for &kept in Kept::ways() {
        let server = Arc::new(Server::with(kept, &change).await);
        for wire in [Wire::Http, Wire::Grpc] {
            let _told = ToldOnPanic(format!("{wire:?}, {kept:?}"));
            scenario(Place::on(server.clone(), wire)).await;
        }
        server.stop().await;
    }
}

/// Runs a scenario over both wires, for what has nothing to do with stores.
pub async fn over_both_wires<Scenario: AsyncFn(Place)>(scenario: Scenario) {
    let server = Arc::new(Server::start(Kept::InMemory).await);
    for wire in [Wire::Http, Wire::Grpc] {
        let _told = ToldOnPanic(format!("{wire:?}"));
        scenario(Place::on(server.clone(), wire)).await;
    }
    server.stop().await;
}

/// Runs a scenario on both stores, each time on a server of its own.
pub async fn on_both_stores<Scenario: AsyncFn(Place)>(scenario: Scenario) {
    for &kept in Kept::ways() {
        let server = Arc::new(Server::start(kept).await);
        let _told = ToldOnPanic(format!("{kept:?}"));
        scenario(Place::on(server.clone(), Wire::Grpc)).await;
        server.stop().await;
    }
}

/// Says where a scenario failed.
struct ToldOnPanic(String);

impl Drop for ToldOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this happened over {}", self.0);
        }
    }
}
