//! The suite that every back end runs, over a real server.
//!
//! Built only with the feature `test-postgres`; the server's address comes from `LONGHAUL_TEST_POSTGRES`,
//! and without one every test here fails rather than pass unseen. Each test has a schema of its own.

mod fixture;
mod moves;
mod notes;
mod plans;
mod rivals;
mod servers;
mod tls;
mod upgrade;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Options, Postgres};
use crate::conformance::conformance;
use crate::{Listener, Store};

static SCHEMAS: AtomicU32 = AtomicU32::new(0);

/// A store in a schema that no other test has.
pub(super) fn options() -> Options {
    let url = std::env::var("LONGHAUL_TEST_POSTGRES")
        .expect("LONGHAUL_TEST_POSTGRES is the address of a server to test with");
    let schema = format!("test_{}_{}", std::process::id(), SCHEMAS.fetch_add(1, Ordering::Relaxed));
    Options { schema, ..Options::new(url) }
}

pub(super) fn opened(options: &Options, listener: Arc<dyn Listener>) -> Arc<Postgres> {
    tokio::task::block_in_place(|| {
        let opening = Postgres::open(options, listener);
        Arc::new(tokio::runtime::Handle::current().block_on(opening).expect("it opens"))
    })
}

fn open(_folder: &Path, listener: Arc<dyn Listener>) -> Arc<dyn Store> {
    opened(&options(), listener)
}

conformance!(open);

/// The same behind a pooler that gives connections to transactions: that of `LONGHAUL_TEST_POOLER`, and
/// else only as a store behaves there.
mod pooled {
    use super::*;

    fn open(_folder: &Path, listener: Arc<dyn Listener>) -> Arc<dyn Store> {
        let mut options = Options { transaction_pooler: true, ..options() };
        if let Ok(pooler) = std::env::var("LONGHAUL_TEST_POOLER") {
            options.session_url = Some(std::mem::replace(&mut options.url, pooler));
        }
        opened(&options, listener)
    }

    conformance!(open);
}
