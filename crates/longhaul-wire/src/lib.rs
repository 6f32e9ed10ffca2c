//! Words on the line: descriptors, HTTP rules, protobuf JSON, queries, system parameters, errors.
//!
//! Turns bytes into values and values into bytes, for any API loaded at run time. Owns no socket
//! and no store, and decides nothing about an operation: that is `longhaul-core`.

pub mod api;
pub mod apis;
pub mod bundled;
pub mod codec;
pub mod convert;
pub mod http_rule;
pub mod json;
pub mod list;
pub mod longrunning;
pub mod message;
pub mod protos;
pub mod query;
pub mod respond;
pub mod settings;
pub mod start;
pub mod status;
pub mod system;
pub mod v1;
