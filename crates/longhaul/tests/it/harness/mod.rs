//! What every scenario uses: a server on its own port, clients and hand-driven workers of both
//! wires, and one sample of each bundled API.
//!
//! Nothing here sleeps to let something happen: time is awaited by waits, hanging claims and hanging
//! reports, as clients and workers do it.

pub mod acme;
pub mod client;
pub mod grpc;
pub mod http;
pub mod operators;
pub mod place;
pub mod process;
pub mod proxy;
pub mod published;
#[allow(
    dead_code,
    reason = "what is left over is for the tests on PostgreSQL and for runs of chaos"
)]
pub mod round_robin;
pub mod samples;
pub mod server;
pub mod session;
pub mod tls;
pub mod view;
pub mod worker;

pub use client::Client;
pub use http::{Answer, Ask};
pub use operators::Operators;
pub use place::{Place, everywhere, everywhere_with, on_both_stores, over_both_wires};
pub use server::{Kept, Server};
pub use view::{Failure, Seen};
pub use worker::{Claim, Held, Item, Say, Verdict, Worker};

/// Longest time that anything may take before a test calls it lost.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

/// Waits for `what`, but not for ever.
#[track_caller]
pub fn soon<F: Future>(what: &'static str, future: F) -> impl Future<Output = F::Output> {
    let place = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(PATIENCE, future).await {
            Ok(output) => output,
            Err(_) => panic!("{what} did not come within {PATIENCE:?} at {place}"),
        }
    }
}
