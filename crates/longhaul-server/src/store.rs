//! Which store a server opens: memory, a folder, or a PostgreSQL database that several servers share.
//!
//! Owns the configuration of stores and nothing of what they do.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use longhaul_core::{Error, Reason};
pub use longhaul_store::postgres::Migrated;
use longhaul_store::{Listener, Store, embedded, memory, postgres};
use serde::{Deserialize, Deserializer};

use crate::config::{Config, duration, invalid};

/// Where operations are kept, and how the embedded store treats the disk.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// `postgres://user@host/database`; absent: the folder of `data`, or memory. `store = "postgres://…"`
    /// is short for it.
    pub url: Option<String>,
    /// `strict`: on disk before the answer. `relaxed`: the last moments may be lost with the machine's
    /// power, though not with the process.
    pub durability: Durability,
    /// Bytes of operations kept decoded in memory; more makes reads of old ones faster.
    pub cache_bytes: usize,
    /// Commands that may wait for the next commit. More would only wait longer than callers do.
    pub queue_max: usize,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self { url: None, durability: Durability::Strict, cache_bytes: 64 << 20, queue_max: 16_384 }
    }
}

/// When a write counts as done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// On disk before the answer.
    #[default]
    Strict,
    /// With the operating system before the answer.
    Relaxed,
}

/// How a PostgreSQL store is used.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PostgresConfig {
    /// The schema that holds the tables.
    pub schema: String,
    /// The database without a pooler in between, for `LISTEN` and migrations; absent: the store's address.
    pub session_url: Option<String>,
    /// The store's address leads to a pooler that gives connections to transactions.
    pub transaction_pooler: bool,
    /// Transactions for commands under way at a time.
    pub writers: usize,
    /// Reads under way at a time.
    pub readers: usize,
    /// Commands in one commit.
    pub batch_max: usize,
    /// A folder that operations are written to before they are forgotten.
    pub archive: Option<PathBuf>,
    /// Longest wait for a new connection.
    #[serde(deserialize_with = "duration")]
    pub connect_timeout: Duration,
    /// Longest time of one statement.
    #[serde(deserialize_with = "duration")]
    pub statement_timeout: Duration,
    /// Longest wait for a locked row.
    #[serde(deserialize_with = "duration")]
    pub lock_timeout: Duration,
    /// Longest time until a call hears that the store is away.
    #[serde(deserialize_with = "duration")]
    pub answer_timeout: Duration,
}

impl Default for PostgresConfig {
    fn default() -> Self {
        let options = postgres::Options::new("");
        Self {
            schema: options.schema,
            session_url: None,
            transaction_pooler: options.transaction_pooler,
            writers: options.writers,
            readers: options.readers,
            batch_max: options.batch_max,
            archive: None,
            connect_timeout: options.connect_timeout,
            statement_timeout: options.statement_timeout,
            lock_timeout: options.lock_timeout,
            answer_timeout: options.answer_timeout,
        }
    }
}

/// Reads `store = "postgres://…"` as well as `[store]`.
pub(crate) fn address_or_table<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<StoreConfig, D::Error> {
    struct Either;

    impl<'de> serde::de::Visitor<'de> for Either {
        type Value = StoreConfig;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("the address of a database such as \"postgres://…\", or a table")
        }

        fn visit_str<E: serde::de::Error>(self, url: &str) -> Result<StoreConfig, E> {
            Ok(StoreConfig { url: Some(url.to_owned()), ..StoreConfig::default() })
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<StoreConfig, A::Error> {
            StoreConfig::deserialize(serde::de::value::MapAccessDeserializer::new(map))
        }
    }

    deserializer.deserialize_any(Either)
}

impl StoreConfig {
    /// Refuses what contradicts itself.
    pub(crate) fn check(&self, data: Option<&Path>) -> Result<(), Error> {
        match (&self.url, data) {
            (Some(_), Some(_)) => Err(invalid(
                "both data and store are given; operations are kept in one of them".into(),
            )),
            (Some(url), None)
                if !url.starts_with("postgres://") && !url.starts_with("postgresql://") =>
            {
                Err(invalid("store takes an address that begins with postgres://".into()))
            }
            (Some(_) | None, _) => Ok(()),
        }
    }
}

/// The PostgreSQL store that the configuration names, if it names one.
#[must_use]
pub fn postgres_options(config: &Config) -> Option<postgres::Options> {
    let with = &config.postgres;
    Some(postgres::Options {
        session_url: with.session_url.clone(),
        schema: with.schema.clone(),
        transaction_pooler: with.transaction_pooler,
        writers: with.writers,
        readers: with.readers,
        queue_max: config.store.queue_max,
        batch_max: with.batch_max,
        archive: with.archive.clone(),
        connect_timeout: with.connect_timeout,
        statement_timeout: with.statement_timeout,
        lock_timeout: with.lock_timeout,
        answer_timeout: with.answer_timeout,
        ..postgres::Options::new(config.store.url.clone()?)
    })
}

/// Brings the configured database up to this version, as a start would. Fails with `CONFIG_INVALID` when
/// no database is configured, and with the store's errors.
pub async fn migrate(config: &Config) -> Result<Migrated, Error> {
    let Some(options) = postgres_options(config) else {
        return Err(invalid(
            "no database is configured; only store = \"postgres://…\" needs migrating".into(),
        ));
    };
    postgres::migrate(&options).await
}

/// Opens the configured store. Fails with the store's errors.
pub(crate) async fn open(
    config: &Config,
    listener: Arc<dyn Listener>,
) -> Result<Arc<dyn Store>, Error> {
    if let Some(options) = postgres_options(config) {
        return Ok(Arc::new(postgres::Postgres::open(&options, listener).await?));
    }
    match &config.data {
        Some(folder) => open_folder(config, folder.clone(), listener).await,
        None => open_memory(listener),
    }
}

fn open_memory(listener: Arc<dyn Listener>) -> Result<Arc<dyn Store>, Error> {
    let mut token_key = [0; 32];
    getrandom::fill(&mut token_key).map_err(|error| {
        Error::new(Reason::Internal, "no random number could be drawn").caused_by(error.to_string())
    })?;
    Ok(Arc::new(memory::Memory::new(token_key, listener)))
}

async fn open_folder(
    config: &Config,
    folder: PathBuf,
    listener: Arc<dyn Listener>,
) -> Result<Arc<dyn Store>, Error> {
    let options = embedded::Options {
        durability: match config.store.durability {
            Durability::Strict => embedded::Durability::Strict,
            Durability::Relaxed => embedded::Durability::Relaxed,
        },
        cache_bytes: config.store.cache_bytes,
        queue_max: config.store.queue_max,
        ..embedded::Options::new(folder)
    };
    let opening = tokio::task::spawn_blocking(move || embedded::Embedded::open(&options, listener));
    match opening.await {
        Ok(opened) => Ok(Arc::new(opened?)),
        Err(error) => {
            Err(Error::new(Reason::Internal, "opening the store did not end").caused_by(error))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A configuration that says no more than how callers are identified.
    fn parsed(text: &str) -> Result<Config, Error> {
        Config::parse(&format!("{text}\n[auth]\nmode = \"off\"\n"), "test.toml")
    }

    #[track_caller]
    fn check_refused(text: &str, word: &str) {
        let error = parsed(text).unwrap_err();
        assert_eq!(error.reason, Reason::ConfigInvalid);
        assert!(error.message.contains(word), "{}", error.message);
    }

    #[test]
    fn a_store_is_an_address_or_a_table() {
        let url = |text: &str| parsed(text).unwrap().store.url;
        let address = Some("postgres://h/d".to_owned());
        assert_eq!(url("store = \"postgres://h/d\""), address);
        assert_eq!(url("[store]\nurl = \"postgres://h/d\"\nqueue_max = 7"), address);
        assert_eq!(url("[store]\nqueue_max = 7"), None);
        check_refused("store = \"mysql://h/d\"", "postgres://");
        check_refused("data = \"d\"\nstore = \"postgres://h/d\"", "both");
        check_refused("store = 7", "address of a database");
    }

    #[test]
    fn the_table_reaches_the_store() {
        let text = "store = \"postgres://h/d\"\n[postgres]\nschema = \"s\"\nwriters = 3\n\
                    answer_timeout = \"3s\"";
        let options = postgres_options(&parsed(text).unwrap()).unwrap();
        assert_eq!((options.schema.as_str(), options.writers), ("s", 3));
        assert_eq!(options.answer_timeout, Duration::from_secs(3));
        assert!(postgres_options(&Config::default()).is_none());
    }
}
