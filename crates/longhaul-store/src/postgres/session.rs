//! Connections and statements: pools, timeouts, and statements prepared or not.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime, Timeouts};
use longhaul_core::Error;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Row, Statement};

use super::address::Address;
use super::faults::{Fault, unavailable, wrong};
use super::options::Options;

/// A value of a statement.
pub(super) type Value<'a> = &'a (dyn ToSql + Sync);

/// A statement with the types of its values.
#[derive(Debug)]
pub(super) struct Sql {
    pub text: String,
    pub types: Vec<Type>,
}

impl Sql {
    pub fn new(text: String, types: &[Type]) -> Self {
        Self { text, types: types.to_vec() }
    }
}

/// How queries are not to be run. A scan of a whole table is a plan for a small one, and was made while the
/// table was small; a bitmap reads everything that fits before it gives the first row of a page.
pub(super) const NOT_SO: [&str; 2] = ["enable_seqscan", "enable_bitmapscan"];

/// What every session is told.
fn settings(options: &Options) -> String {
    let millis = |span: Duration| span.as_millis();
    format!(
        "-c statement_timeout={} -c lock_timeout={} -c idle_in_transaction_session_timeout={} \
         -c jit=off{}",
        millis(options.statement_timeout),
        millis(options.lock_timeout),
        millis(options.statement_timeout),
        NOT_SO.map(|way| format!(" -c {way}=off")).concat(),
    )
}

/// The driver's configuration for a pooled connection.
pub(super) fn configure(address: &Address, options: &Options) -> tokio_postgres::Config {
    let mut config = address.config.clone();
    if config.get_application_name().is_none() {
        config.application_name("longhaul");
    }
    config.connect_timeout(options.connect_timeout);
    // A database that vanished without a word is noticed, rather than waited for.
    config.tcp_user_timeout(options.statement_timeout);
    if !options.transaction_pooler {
        let given = config.get_options().unwrap_or_default().to_owned();
        config.options(format!("{} {given}", settings(options)).trim());
    }
    config
}

/// A pool of at most `size` connections; none is made before it is needed.
pub(super) fn pool(address: &Address, options: &Options, size: usize) -> Result<Pool, Error> {
    let manager = Manager::from_config(
        configure(address, options),
        address.tls.clone(),
        ManagerConfig { recycling_method: RecyclingMethod::Fast },
    );
    Pool::builder(manager)
        .max_size(size.max(1))
        .runtime(Runtime::Tokio1)
        .timeouts(Timeouts {
            wait: Some(options.answer_timeout),
            create: Some(options.connect_timeout),
            recycle: Some(options.connect_timeout),
        })
        .build()
        .map_err(wrong)
}

/// One connection, taken from a pool for one transaction or read.
pub(super) struct Session {
    client: Option<Object>,
    prepares: bool,
    /// Statements that were sent and not yet answered.
    under_way: AtomicU32,
}

/// A connection that was left in the middle of something is closed, not given to the next.
impl Drop for Session {
    fn drop(&mut self) {
        if *self.under_way.get_mut() > 0
            && let Some(client) = self.client.take()
        {
            drop(Object::take(client));
        }
    }
}

impl Session {
    pub async fn take(pool: &Pool, options: &Options) -> Result<Self, Error> {
        let client = pool.get().await.map_err(unavailable)?;
        let prepares = !options.transaction_pooler;
        Ok(Self { client: Some(client), prepares, under_way: AtomicU32::new(0) })
    }

    fn client(&self) -> &Object {
        self.client.as_ref().expect("taken only when the session is gone")
    }

    /// Waits for an answer; a wait that is given up leaves its mark.
    async fn answer<T>(&self, answer: impl Future<Output = T>) -> T {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        let answer = answer.await;
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        answer
    }

    /// Makes a statement ready to be sent without waiting.
    pub async fn ready<'s>(&self, sql: &'s Sql) -> Result<Ready<'s>, tokio_postgres::Error> {
        if !self.prepares {
            return Ok(Ready::Typed(sql));
        }
        let client = self.client();
        let prepared = self.answer(client.prepare_typed_cached(&sql.text, &sql.types)).await;
        prepared.map(Ready::Prepared)
    }

    /// Sends a statement when first polled; rows in the answer.
    pub async fn send(
        &self,
        ready: &Ready<'_>,
        values: &[Value<'_>],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        match ready {
            Ready::Prepared(statement) => self.answer(self.client().query(statement, values)).await,
            Ready::Typed(sql) => {
                let typed: Vec<_> = values.iter().copied().zip(sql.types.iter().cloned()).collect();
                self.answer(self.client().query_typed(&sql.text, &typed)).await
            }
        }
    }

    pub async fn query(
        &self,
        sql: &Sql,
        values: &[Value<'_>],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        let ready = self.ready(sql).await?;
        self.send(&ready, values).await
    }

    /// Runs a statement without values, sent when first polled.
    pub async fn run(&self, text: &str) -> Result<(), tokio_postgres::Error> {
        self.answer(self.client().batch_execute(text)).await
    }

    /// Ends a failed transaction; false when the connection is of no more use.
    pub async fn roll_back(&self, limit: Duration) -> bool {
        matches!(tokio::time::timeout(limit, self.run("ROLLBACK")).await, Ok(Ok(())))
    }

    /// Closes the connection instead of giving it back.
    pub fn discard(mut self) {
        if let Some(client) = self.client.take() {
            drop(Object::take(client));
        }
    }
}

/// A statement that can be sent at once.
pub(super) enum Ready<'s> {
    Prepared(Statement),
    Typed(&'s Sql),
}

/// Runs something on the database; a time without an answer counts as being away.
pub(super) async fn bounded<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(elapsed) => Err(Fault::Away(unavailable(elapsed))),
    }
}
