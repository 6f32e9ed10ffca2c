//! What can be said about the audit log in the configuration.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// The audit log.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuditConfig {
    /// Where entries go: `file:PATH`, `stdout` or `off`.
    pub destination: Destination,
    /// Whether starts, cancels, deletes and changes of policies are recorded, and the ends of operations.
    pub admin_activity: bool,
    /// Whether reads are recorded: get, list, wait, describe.
    pub data_access: bool,
    /// Whether calls that were not allowed are recorded.
    pub policy_denied: bool,
    /// What becomes of calls whose entry cannot be written.
    pub on_failure: OnFailure,
    /// When entries are on disk.
    pub sync: SyncPolicy,
    /// Longest time an entry may be unsynced under `sync = "interval"`.
    #[serde(deserialize_with = "crate::config::duration")]
    pub sync_interval: Duration,
    /// Bytes after which another file is begun.
    pub rotate_bytes: u64,
    /// Entries that may wait to be written, each about 1 KiB.
    pub queue_max: usize,
    /// Calls that were not allowed, recorded in one second; the rest are counted. Anybody can make them.
    pub denied_per_second: u32,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self {
            destination: Destination::Off,
            admin_activity: true,
            data_access: false,
            policy_denied: true,
            on_failure: OnFailure::Refuse,
            sync: SyncPolicy::Interval,
            sync_interval: Duration::from_secs(1),
            rotate_bytes: 256 << 20,
            queue_max: 16_384,
            denied_per_second: 100,
        }
    }
}

/// Where entries go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Destination {
    /// Nowhere.
    #[default]
    Off,
    /// To standard output, a line each.
    Stdout,
    /// To a file, which is made where it is missing.
    File(PathBuf),
}

impl<'de> Deserialize<'de> for Destination {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match (text.as_str(), text.strip_prefix("file:")) {
            ("off", _) => Ok(Self::Off),
            ("stdout", _) => Ok(Self::Stdout),
            (_, Some(path)) if !path.is_empty() => Ok(Self::File(path.into())),
            _ => Err(serde::de::Error::custom(
                "the destination is \"off\", \"stdout\", or \"file:\" and a path such as \"file:/var/log/longhaul/audit.jsonl\"",
            )),
        }
    }
}

/// What becomes of calls whose entry cannot be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// Whoever asks for a change is told UNAVAILABLE before it is made.
    #[default]
    Refuse,
    /// They are carried out; entries are lost and counted.
    Drop,
}

/// When entries are on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SyncPolicy {
    /// Before anybody is answered, also through a loss of power.
    Always,
    /// With the operating system before anybody is answered, on disk within the interval.
    #[default]
    Interval,
    /// With the operating system before anybody is answered, on disk when it sees fit.
    Never,
}
