//! The server from outside: what clients and workers see, through both wires and both stores.
//!
//! Owns no knowledge of how the server does it: everything goes over a socket. Each module is one
//! promise; each test's name is a claim.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a failed expectation ends the test; real time is what it measures"
)]

mod access;
mod all_methods;
mod audit;
mod bulk;
mod cancels;
mod cells;
mod children;
mod cli_credentials;
mod command_worker;
mod copies;
mod crashes;
mod deletes;
mod dev_access;
mod failpoints;
mod five_apis;
#[cfg(feature = "test-postgres")]
mod fleet;
mod frozen;
mod gates;
mod harness;
mod hostile;
mod http_edge;
mod identity_files;
mod leases;
mod limits;
mod lists;
mod local_identity;
mod operators;
mod own_api;
mod probes;
mod races;
mod reports;
mod rust_client;
mod rust_examples;
mod rust_worker;
mod secrets;
mod sessions;
mod shares;
mod starts;
mod stops;
mod tls;
mod waits;
mod watches;
mod which_api;
