//! A client of google.longrunning.Operations over HTTP and JSON, and of what comes before and beside it
//! over gRPC.
//!
//! Reading, waiting, cancelling and starting work against any server that speaks the contract, also
//! Google's; cancels with a reason and watches are Longhaul's own. Owns requests, retries, paging and
//! waiting; refuses to know any API's own types: an operation stays the JSON it came as, until a caller
//! names its types.
//!
//! ```no_run
//! use longhaul_client::operations::{Client, Error, WaitOptions};
//!
//! # async fn example() -> Result<(), Error> {
//! let client = Client::new("http://127.0.0.1:7151")?;
//! let name = "projects/p/locations/l/operations/o";
//! client.cancel(name).await?;
//! let done = client.wait(name, &WaitOptions::default(), &mut |_| {}).await?;
//! println!("{}: {:?}", done.state().name(), done.error());
//! # Ok(())
//! # }
//! ```

mod client;
mod error;
mod grpc;
mod handle;
mod list;
mod name;
mod operation;
mod operators;
mod start;
mod wait;

pub use client::Client;
pub use error::{Error, ErrorInfo, StatusError, TransportError, TransportKind};
pub use handle::Handle;
pub use list::{ListOptions, Page};
pub use operation::{Operation, OperationError, State};
pub use operators::{CancelOutcome, Change, OperationDetail, Watch};
pub use start::Typed;
pub use wait::WaitOptions;

#[cfg(test)]
mod tests;
