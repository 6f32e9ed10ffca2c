//! The schema's steps, forward only: one server at a time takes them, guarded by an advisory lock.

use longhaul_core::{Error, Reason};
use refinery::Runner;
use tokio_postgres::Client;

use super::address::Address;
use super::faults::{unavailable, wrong};
use super::options::Options;
use super::session::configure;

mod steps {
    refinery::embed_migrations!("migrations");
}

/// What [`migrate`] found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// The schema's version before; `None` when there was none.
    pub from: Option<u32>,
    /// Its version now.
    pub to: u32,
}

/// A name that needs no quoting, so that it cannot be anything but a name.
pub(super) fn check_schema(schema: &str) -> Result<(), Error> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let first = schema.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    if first && schema.len() <= 48 && schema.bytes().all(plain) && !schema.starts_with("pg_") {
        return Ok(());
    }
    Err(wrong(format!(
        "schema {schema:?} is not 1 to 48 of a-z, 0-9 and _, a letter first, and not pg_ before"
    )))
}

/// Brings the schema to this program's version. Fails with `STORE_TOO_NEW` when a newer program has been
/// here, and with `STORE_UNAVAILABLE`.
///
/// Safe to run from several servers at once: they take turns.
pub async fn migrate(options: &Options) -> Result<Migrated, Error> {
    migrate_by(options, steps::migrations::runner()).await
}

/// The same as a program of the next version does it, with one step more.
#[cfg(all(test, feature = "test-postgres"))]
pub(super) async fn migrate_further(options: &Options, step: &str) -> Result<Migrated, Error> {
    let mut steps = steps::migrations::runner().get_migrations().clone();
    steps.push(refinery::Migration::unapplied("V1000__next", step).expect("its name is one"));
    migrate_by(options, Runner::new(&steps)).await
}

async fn migrate_by(options: &Options, runner: Runner) -> Result<Migrated, Error> {
    check_schema(&options.schema)?;
    let address = Address::parse(options.session_url())?;
    let mut direct = options.clone();
    direct.transaction_pooler = false;
    let mut config = configure(&address, &direct);
    // A step may take longer than a statement of a request may.
    config.options("-c lock_timeout=60000 -c statement_timeout=0");
    let connected =
        tokio::time::timeout(options.connect_timeout, config.connect(address.tls)).await;
    let (mut client, connection) = connected.map_err(unavailable)?.map_err(unavailable)?;
    let driver = tokio::spawn(connection);
    let migrated = run(&mut client, &options.schema, runner).await;
    drop(client);
    driver.abort();
    migrated
}

async fn run(client: &mut Client, schema: &str, mut runner: Runner) -> Result<Migrated, Error> {
    let lock = format!("longhaul:{schema}");
    client
        .execute("SELECT pg_advisory_lock(hashtextextended($1, 0))", &[&lock])
        .await
        .map_err(unavailable)?;
    let exists = client
        .query_one("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)", &[&schema])
        .await
        .map_err(unavailable)?;
    if !exists.get::<_, bool>(0) {
        let create = format!("CREATE SCHEMA \"{schema}\"");
        client.batch_execute(&create).await.map_err(unavailable)?;
    }
    client.batch_execute(&format!("SET search_path TO \"{schema}\"")).await.map_err(unavailable)?;
    runner.set_migration_table_name("migration");
    let versions = runner.get_migrations().iter().map(|step| step.version().unsigned_abs());
    let known = versions.max().unwrap_or(0);
    let from = found(client, schema).await?;
    if let Some(from) = from
        && from > known
    {
        return Err(too_new(schema, from, known));
    }
    runner.run_async(client).await.map_err(|error| {
        Error::new(
            Reason::StoreUnavailable,
            format!("the schema {schema:?} cannot be brought up to date; the log has the details"),
        )
        .caused_by(error)
    })?;
    Ok(Migrated { from, to: known })
}

/// The schema's version; `None` when there is none.
async fn found(client: &Client, schema: &str) -> Result<Option<u32>, Error> {
    let table = client
        .query_one("SELECT to_regclass($1)::text", &[&format!("\"{schema}\".migration")])
        .await
        .map_err(unavailable)?;
    if table.get::<_, Option<String>>(0).is_none() {
        return Ok(None);
    }
    let query = format!("SELECT max(version)::bigint FROM \"{schema}\".migration");
    let row = client.query_one(&query, &[]).await.map_err(unavailable)?;
    Ok(row.get::<_, Option<i64>>(0).and_then(|version| u32::try_from(version).ok()))
}

fn too_new(schema: &str, found: u32, known: u32) -> Error {
    Error::new(
        Reason::StoreTooNew,
        format!(
            "schema {schema:?} has version {found}; this program knows versions up to {known}: \
             run the newer Longhaul"
        ),
    )
    .with("schema", schema)
}
