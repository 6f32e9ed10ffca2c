//! A client: starts an operation, follows it, says why it is not wanted any more, and reads how it ended.
//!
//! Run it with `cargo run --example rust_client -- http://127.0.0.1:7151`.
#![allow(clippy::print_stdout, missing_docs, reason = "it is a program")]

use longhaul_client::operations::{Change, Client, Error, Operation, WaitOptions};

const METHOD: &str = "google.cloud.deploy.v1.CloudDeploy.CreateDeliveryPipeline";

/// google.cloud.deploy.v1.CreateDeliveryPipelineRequest; prost-build makes such types from `.proto` files.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Create {
    #[prost(string, tag = "1")]
    pub parent: String,
    #[prost(string, tag = "2")]
    pub id: String,
    /// The pipeline itself, which the API requires; its fields do not matter here.
    #[prost(message, optional, tag = "3")]
    pub pipeline: Option<()>,
}

/// Starts a pipeline, and cancels it once three steps are done.
pub async fn start_and_cancel(url: &str) -> Result<Operation, Error> {
    let client = Client::new(url)?.with_api("clouddeploy")?;
    let request =
        Create { parent: "projects/p/locations/l".into(), id: "web".into(), pipeline: Some(()) };
    // A request_id is drawn, so that this may be repeated. Keep the name: `client.resume(name)` goes on.
    let operation = client.start(METHOD, &request).await?;
    println!("started {}", operation.name());
    let mut watch = operation.watch().await?;
    while let Change::Now(seen) = watch.next().await? {
        let step = seen.progress.as_ref().map_or(0, |progress| progress.step);
        println!("{:?}, step {step}", seen.state());
        if step >= 3 || seen.end_time.is_some() {
            break;
        }
    }
    println!("asked to cancel: {:?}", operation.cancel_because("wrong branch").await?);
    operation.wait(&WaitOptions::default()).await
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::args().nth(1).unwrap_or("http://127.0.0.1:7151".into());
    let ended = start_and_cancel(&url).await?;
    println!("{}: {:?}", ended.state().name(), ended.error());
    Ok(())
}
