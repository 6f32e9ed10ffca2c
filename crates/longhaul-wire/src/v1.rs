//! Our own API, `longhaul.v1`, as Rust types with client and server code, and as data to be loaded
//! like any other API. Generated from `proto/longhaul/v1`; owns nothing else.

/// Messages, client and server of `longhaul.v1`.
#[allow(
    missing_docs,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    reason = "generated"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/longhaul.v1.rs"));
}

pub use generated::*;

/// The encoded descriptor set of `longhaul.v1`, imports included.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/longhaul_v1.binpb"));

/// The service configuration of `longhaul.v1`: its HTTP rules.
pub const SERVICE_CONFIG: &str = include_str!("../../../proto/longhaul/v1/longhaul.yaml");
