//! The Rust examples, against each other and a real server.

use longhaul_client::operations::State;
use tokio_util::sync::CancellationToken;

use crate::harness::client::Wire;
use crate::harness::operators::Operators;
use crate::harness::{Kept, Server, soon};

#[allow(dead_code, reason = "the example's own main is not run here")]
#[path = "../../../../examples/rust_client.rs"]
mod rust_client;
#[allow(dead_code, reason = "the example's own main is not run here")]
#[path = "../../../../examples/rust_worker.rs"]
mod rust_worker;

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_examples_cancel_each_other() {
    let server = Server::start(Kept::InMemory).await;
    let url = format!("http://{}", server.address);
    let shutdown = CancellationToken::new();
    let (at, stop) = (url.clone(), shutdown.clone());
    let working = tokio::spawn(async move { rust_worker::work(&at, stop).await });
    let ended = soon("the end", rust_client::start_and_cancel(&url)).await.unwrap();
    assert_eq!(ended.state(), State::Cancelled);
    let detail = Operators::new(server.address, Wire::Grpc).describe(ended.name()).await;
    assert_eq!(detail.external_ref, "scratch-web");
    assert_eq!(detail.effects(), longhaul_wire::v1::Effects::Undone);
    assert_eq!(detail.cancel.unwrap().reason, "wrong branch");
    assert!(detail.progress.unwrap().step >= 3);
    shutdown.cancel();
    soon("the worker's end", working).await.unwrap().unwrap();
}
