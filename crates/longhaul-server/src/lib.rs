//! Where rooms meet: edges, operations, workers, sweeper, on one port.
//!
//! Owns the wiring of a running server and its orderly end. Rules are `longhaul-core`'s, words on the
//! line `longhaul-wire`'s, rows `longhaul-store`'s.

pub mod access;
pub mod audit;
pub mod bulk;
pub mod call;
pub mod cascade;
pub mod cells;
pub mod clock;
pub mod config;
pub mod copy;
mod events;
mod explain;
pub mod fleet;
mod gather;
mod grpc;
mod health;
mod http;
mod iam;
mod listener;
mod local;
pub mod operations;
pub mod operators;
mod random;
mod reflection;
mod session;
pub mod shares;
pub mod store;
pub mod sweeper;
pub mod tls;
pub mod watch;
pub mod workers;

use std::net::SocketAddr;
use std::sync::Arc;

use longhaul_auth::Mode;
use longhaul_core::{Error, Reason};
use longhaul_store::Listener;
use longhaul_wire::api::Api;
use longhaul_wire::apis::Apis;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::{Access, Oversight};
use crate::audit::{Audit, Ends};
use crate::bulk::BulkCancels;
use crate::cascade::Cascade;
use crate::cells::Cells;
use crate::clock::{Clock, SystemClock};
pub use crate::config::Config;
use crate::fleet::Fleet;
use crate::health::GrpcHealth;
use crate::listener::Listening;
pub use crate::listener::bind;
use crate::local::Local;
use crate::operations::Operations;
use crate::operators::Operators;
use crate::reflection::Reflection;
use crate::shares::Shares;
use crate::sweeper::Sweeper;
use crate::watch::Watch;
use crate::workers::{Turns, Workers};

/// Everything one running server is made of.
pub struct Server {
    pub(crate) config: Config,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) apis: Arc<Apis>,
    pub(crate) access: Arc<Access>,
    pub(crate) operations: Operations,
    pub(crate) operators: Arc<Operators>,
    pub(crate) workers: Arc<Workers>,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) local: Option<Local>,
    pub(crate) health: GrpcHealth,
    pub(crate) reflection: Reflection,
    pub(crate) calls: Arc<Semaphore>,
    /// Calls that go on although their callers may have left.
    pub(crate) finishing: TaskTracker,
    pub(crate) audit: Option<Arc<Audit>>,
    pub(crate) draining: CancellationToken,
}

/// A server that listens. Dropping it does not stop it; [`Running::stop`] does.
pub struct Running {
    server: Arc<Server>,
    listening: Vec<Listening>,
    /// The fleet, the sweeper, the cascade and the bulk cancels.
    rounds: Vec<JoinHandle<()>>,
    stop_rounds: CancellationToken,
}

/// Opens the store, recovers leases, binds, and serves until stopped.
///
/// Fails with `CONFIG_INVALID`, `API_INVALID` or one of the store's errors; nothing listens then.
pub async fn serve(config: Config) -> Result<Running, Error> {
    serve_on(config, None).await
}

/// The same on a socket that is bound already, in place of the one that [`Config::listen`] names: for
/// whoever has to know the port before there is a server.
pub async fn serve_on(mut config: Config, socket: Option<TcpListener>) -> Result<Running, Error> {
    if let Some(address) = socket.as_ref().and_then(|socket| socket.local_addr().ok()) {
        config.listen = address;
    }
    config.check()?;
    let apis = Arc::new(load_apis(&config)?);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let watch = Arc::new(Watch::new(clock.clone()));
    let audit = open_audit(&config, clock.clone()).await?;
    let store = store::open(&config, listener_of(&watch, audit.as_ref())).await?;
    let draining = CancellationToken::new();
    let identity = local::load(&config)?;
    let access = Access::new(
        &config.auth,
        identity.clone(),
        apis.clone(),
        store.clone(),
        clock.clone(),
        oversight(&config, audit.as_ref()),
    );
    let access = Arc::new(access.await?);
    let fleet = Arc::new(Fleet::new(store.clone(), clock.clone(), &config.workers));
    fleet.join().await?;
    let sweeper = Sweeper {
        store: store.clone(),
        watch: watch.clone(),
        clock: clock.clone(),
        fleet: fleet.clone(),
    };
    let cascade = Cascade {
        store: store.clone(),
        watch: watch.clone(),
        clock: clock.clone(),
        audit: audit.clone(),
    };
    let bulk = BulkCancels {
        apis: apis.clone(),
        store: store.clone(),
        watch: watch.clone(),
        clock: clock.clone(),
        limits: config.limits.clone(),
        audit: audit.clone(),
        access: access.clone(),
    };
    let server = Arc::new(Server {
        operations: Operations {
            apis: apis.clone(),
            store: store.clone(),
            watch: watch.clone(),
            clock: clock.clone(),
            limits: config.limits.clone(),
            draining: draining.clone(),
            access: access.clone(),
            cells: Cells::new(&config.cells, &apis)?,
        },
        operators: Arc::new(Operators {
            bulk: bulk.clone(),
            apis: apis.clone(),
            store: store.clone(),
            watch: watch.clone(),
            clock: clock.clone(),
            limits: config.limits.clone(),
            draining: draining.clone(),
            access: access.clone(),
        }),
        workers: Arc::new(Workers {
            apis: apis.clone(),
            store: store.clone(),
            watch,
            clock: clock.clone(),
            limits: config.limits.clone(),
            config: config.workers.clone(),
            draining: draining.clone(),
            access: access.clone(),
            turns: Arc::new(Turns::default()),
        }),
        fleet: fleet.clone(),
        local: Local::new(&config, identity, clock.clone()),
        health: GrpcHealth::new(service_names(&apis)).await,
        reflection: Reflection::new(&apis)?,
        calls: Arc::new(Semaphore::new(config.limits.calls_max)),
        access: access.clone(),
        finishing: TaskTracker::new(),
        audit,
        apis,
        clock,
        config,
        draining,
    });
    let listening = listener::listen(&server, socket).await?;
    let stop_rounds = CancellationToken::new();
    let rounds = vec![
        tokio::spawn(fleet.run(stop_rounds.clone())),
        tokio::spawn(sweeper.run(stop_rounds.clone())),
        tokio::spawn(cascade.run(stop_rounds.clone())),
        tokio::spawn(bulk.run(stop_rounds.clone())),
        tokio::spawn(access.sources().clone().run(stop_rounds.clone())),
    ];
    Ok(Running { server, listening, rounds, stop_rounds })
}

impl Running {
    /// The address of the main listener; its port is a real one also when 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.listening[0].address
    }

    /// The addresses of all listeners, the main one first, then those of single APIs in the order of
    /// the configuration.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listening.iter().map(|listening| listening.address).collect()
    }

    /// The loaded APIs, Longhaul's own apart.
    #[must_use]
    pub fn apis(&self) -> Vec<Arc<Api>> {
        self.server.apis.all().to_vec()
    }

    /// Stops in order: readiness false, held calls answered with the current state, for the lame-duck time
    /// new calls still taken, connections ended
    /// once their calls are, then the store closed. Bounded by the configured drain timeout.
    pub async fn stop(self) {
        self.server.health.set(false).await;
        self.server.draining.cancel();
        self.server.clock.sleep(self.server.config.lame_duck).await;
        let timeout = self.server.config.drain_timeout;
        for listening in self.listening {
            listening.stop(timeout).await;
        }
        self.stop_rounds.cancel();
        for round in self.rounds {
            if let Err(error) = round.await {
                tracing::error!(%error, "a task in the background ended badly");
            }
        }
        self.server.finishing.close();
        if tokio::time::timeout(timeout, self.server.finishing.wait()).await.is_err() {
            tracing::warn!("calls whose callers had left did not end in time");
        }
        self.server.operations.store.close().await;
        if let Some(audit) = &self.server.audit {
            audit.close().await;
        }
    }
}

/// Opens the audit log, where one is wanted.
async fn open_audit(config: &Config, clock: Arc<dyn Clock>) -> Result<Option<Arc<Audit>>, Error> {
    let config = config.audit.clone();
    let opening = tokio::task::spawn_blocking(move || Audit::open(&config, clock));
    opening.await.unwrap_or_else(|failure| {
        let what = "opening the audit log did not end";
        Err(Error::new(Reason::Internal, what).caused_by(failure))
    })
}

/// Who hears of every commit.
fn listener_of(watch: &Arc<Watch>, audit: Option<&Arc<Audit>>) -> Arc<dyn Listener> {
    match audit {
        Some(audit) => Arc::new(Ends { audit: audit.clone(), watch: watch.clone() }),
        None => watch.clone(),
    }
}

/// Who counts and records calls: shares first, so that a call over its share leaves no record.
fn oversight(config: &Config, audit: Option<&Arc<Audit>>) -> Vec<Arc<dyn Oversight>> {
    let mut oversight: Vec<Arc<dyn Oversight>> = Vec::new();
    if config.shares.counts(config.auth.mode() == Mode::Off) {
        oversight.push(Arc::new(Shares::new(&config.shares)));
    }
    oversight.extend(audit.map(|audit| audit.clone() as Arc<dyn Oversight>));
    oversight
}

fn service_names(apis: &Apis) -> Vec<String> {
    let every = apis.native().into_iter().chain(apis.all());
    let services = every.flat_map(|api| api.descriptors().services());
    let mut names: Vec<_> = services.map(|service| service.full_name().to_owned()).collect();
    names.sort();
    names.dedup();
    names
}

fn load_apis(config: &Config) -> Result<Apis, Error> {
    let mut apis = vec![longhaul_wire::bundled::native()?];
    for api in &config.apis {
        apis.push(config::load_api(api)?);
    }
    Apis::new(apis)
}

/// Logs what a caller's message leaves out. Faults of the caller are their business, not the log's.
pub(crate) fn log_failure(error: &Error) {
    match (error.code(), &error.source) {
        (longhaul_core::Code::Internal | longhaul_core::Code::DataLoss, source) => {
            tracing::error!(reason = error.reason.name(), message = %error.message, ?source, "call failed");
        }
        (_, Some(source)) => {
            tracing::warn!(reason = error.reason.name(), message = %error.message, %source, "call failed");
        }
        (_, None) => {
            tracing::debug!(reason = error.reason.name(), message = %error.message, "call refused");
        }
    }
}
