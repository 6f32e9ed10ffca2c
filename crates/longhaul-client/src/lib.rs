//! What callers and worker authors import.
//!
//! [`operations`] talks to any server of google.longrunning, Google's own included; [`worker`] does
//! the work that Longhaul hands out; [`Credentials`] are for both; `testing`, a feature, disturbs
//! handlers at every point of their work. Owns neither a server nor a store, and never decides what an
//! operation becomes: it asks, waits and reports.

mod channel;
mod credentials;
pub mod operations;
#[cfg(feature = "testing")]
pub mod testing;
pub mod worker;

pub use credentials::{Credentials, CredentialsError, Identity, Token};
