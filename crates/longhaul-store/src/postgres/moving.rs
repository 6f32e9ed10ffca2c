//! A database as the source or the target of a move: read from end to end, and marked while it is filled.

use std::sync::Arc;

use async_trait::async_trait;
use longhaul_core::{Error, Operation, Reason, Timestamp};
use tokio_postgres::Client;

use super::address::Address;
use super::faults::unavailable;
use super::migrate::migrate;
use super::options::Options;
use super::rows::Uid;
use super::session::configure;
use super::{Postgres, reads};
use crate::embedded::not_empty;
use crate::transfer::{Place, Scan};

#[async_trait]
impl Scan for Postgres {
    async fn scan(
        &self,
        after: Option<Place>,
        limit: usize,
    ) -> Result<Vec<(Place, Arc<Operation>)>, Error> {
        let Place(create, uid) = after.unwrap_or(Place(Timestamp::MIN.as_micros() - 1, 0));
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let found = reads::scan(&self.core, create, Uid(uid), limit).await?;
        let place = |one: &Operation| Place(one.create_time.as_micros(), one.uid);
        Ok(found.into_iter().map(|one| (place(&one), one)).collect())
    }
}

/// Makes a database ready to be read from end to end: an index of the order that a move needs. Fails with
/// `STORE_IN_USE` while a server has it open.
pub async fn begin_scan(options: &Options) -> Result<(), Error> {
    migrate(options).await?;
    let s = format!("\"{}\"", options.schema);
    let index =
        format!("CREATE INDEX IF NOT EXISTS operation_age ON {s}.operation (create_us, uid)");
    let look = format!("SELECT {}", served(&s));
    directly(options, async |client| {
        if client.query_one(&look, &[]).await.map_err(unavailable)?.get(0) {
            return Err(in_use());
        }
        client.batch_execute(&index).await.map_err(unavailable)
    })
    .await
}

/// Whether a server said in the last seconds that it is there.
fn served(s: &str) -> String {
    format!("EXISTS (SELECT FROM {s}.server WHERE seen > clock_timestamp() - interval '5 seconds')")
}

/// Takes that index away again, for it would cost every start.
pub async fn end_scan(options: &Options) -> Result<(), Error> {
    let schema = &options.schema;
    let index = format!("DROP INDEX IF EXISTS \"{schema}\".operation_age");
    directly(options, async |client| client.batch_execute(&index).await.map_err(unavailable)).await
}

/// Makes a database the target of a move from the store with this token key, or finds that it is one
/// already.
///
/// Fails with `CONFIG_INVALID` when it holds operations that no such move has brought, and with
/// `STORE_IN_USE` while a server has it open.
pub async fn begin_move(options: &Options, token_key: [u8; 32]) -> Result<(), Error> {
    migrate(options).await?;
    let s = format!("\"{}\"", options.schema);
    let look = format!(
        "SELECT (SELECT value FROM {s}.meta WHERE key = 'moving'), \
         EXISTS (SELECT FROM {s}.operation), {}",
        served(&s)
    );
    let mark = format!(
        "INSERT INTO {s}.meta (key, value) VALUES ('moving', $1), ('token_key', $1) \
         ON CONFLICT (key) DO UPDATE SET value = excluded.value"
    );
    directly(options, async |client| {
        let row = client.query_one(&look, &[]).await.map_err(unavailable)?;
        let (moving, filled, served): (Option<Vec<u8>>, bool, bool) =
            (row.get(0), row.get(1), row.get(2));
        if moving.as_deref() == Some(&token_key) {
            return Ok(());
        }
        if served {
            return Err(in_use());
        }
        if filled || moving.is_some() {
            return Err(not_empty("the database"));
        }
        client.execute(&mark, &[&&token_key[..]]).await.map(drop).map_err(unavailable)
    })
    .await
}

/// Says that a move into the database is complete, so that servers may open it.
pub async fn end_move(options: &Options) -> Result<(), Error> {
    let unmark = format!("DELETE FROM \"{}\".meta WHERE key = 'moving'", options.schema);
    directly(options, async |client| client.batch_execute(&unmark).await.map_err(unavailable)).await
}

/// A database that servers have open.
fn in_use() -> Error {
    Error::new(
        Reason::StoreInUse,
        "the database is served; stop its servers, and give them a few seconds to be gone",
    )
}

/// Runs something on a connection of its own that may take its time.
async fn directly(
    options: &Options,
    work: impl AsyncFnOnce(&Client) -> Result<(), Error>,
) -> Result<(), Error> {
    let address = Address::parse(options.session_url())?;
    let mut direct = options.clone();
    direct.transaction_pooler = false;
    let mut config = configure(&address, &direct);
    config.options("-c lock_timeout=60000 -c statement_timeout=0");
    let connecting = tokio::time::timeout(options.connect_timeout, config.connect(address.tls));
    let (client, connection) = connecting.await.map_err(unavailable)?.map_err(unavailable)?;
    let driver = tokio::spawn(connection);
    let done = work(&client).await;
    drop(client);
    driver.abort();
    done
}
