//! What tests and runs of chaos stand on: a PostgreSQL of their own, a pooler before it, several servers on
//! it, and a plain TCP round robin.

pub(crate) mod command;
pub(crate) mod fleet;
mod pooler;
pub(crate) mod postgres;
mod ready;
mod tls;

#[allow(dead_code, reason = "a run uses what it needs of it; the black-box tests use the rest")]
#[path = "../../../crates/longhaul/tests/it/harness/round_robin.rs"]
mod round_robin;

pub(crate) use ready::ready;
pub(crate) use round_robin::RoundRobin;
