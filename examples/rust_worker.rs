//! A cancellable worker: builds a delivery pipeline in steps, asks before the step that cannot be taken
//! back, and cleans up after workers that were lost.
//!
//! Run it with `cargo run --example rust_worker -- http://127.0.0.1:7151`.
#![allow(missing_docs, reason = "it is a program")]

use std::time::Duration;

use longhaul_client::worker::{Context, Effects, Error, Stopped, Unfinished, Worker};
use tokio_util::sync::CancellationToken;

const METHOD: &str = "google.cloud.deploy.v1.CloudDeploy.CreateDeliveryPipeline";
const STEPS: u32 = 10;

/// The method's request and response; prost-build makes such types from `.proto` files.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Create {
    #[prost(string, tag = "2")]
    pub id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Pipeline {
    #[prost(string, tag = "1")]
    pub name: String,
}

async fn create(request: Create, cx: Context) -> Result<Pipeline, Unfinished> {
    let undone = || cx.cancelled_with(Effects::Undone, "the scratch space is gone");
    // Noted before it is made: whatever becomes of this process, the cleanup finds it.
    cx.external_ref(format!("scratch-{}", request.id)).await.map_err(|_| undone())?;
    for step in 1..=STEPS {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(100)) => cx.step(step, STEPS),
            () = cx.cancelled() => return Err(undone()),
        }
    }
    // Either this passes and the step below is taken, or the operation is cancelled. Never both.
    cx.gate().await.map_err(|_| undone())?;
    Ok(Pipeline { name: request.id })
}

async fn clean_up(_: Create, cx: Context) -> Result<Stopped, Unfinished> {
    let message = format!("removed {}", cx.earlier_ref());
    Ok(Stopped { effects: Effects::Undone.into(), message })
}

pub async fn work(url: &str, shutdown: CancellationToken) -> Result<(), Error> {
    let worker = Worker::builder(url).slots(100).handle(METHOD, create).cleanup(METHOD, clean_up);
    worker.build()?.run(shutdown).await
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    tokio::spawn(async move { tokio::signal::ctrl_c().await.map(|()| stop.cancel()) });
    work(&std::env::args().nth(1).unwrap_or("http://127.0.0.1:7151".into()), shutdown).await
}
