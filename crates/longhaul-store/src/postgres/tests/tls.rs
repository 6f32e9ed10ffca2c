//! TLS to a database that runs with a certificate: encrypted where asked, and nobody is believed who should
//! not be.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use longhaul_core::{Error, Reason};

use super::super::{Options, Postgres};
use super::options;
use super::servers::{server, session};
use crate::Deaf;
use crate::conformance::world::at;

/// The authority that has signed the server's certificate, and one that has not.
fn authorities() -> (PathBuf, PathBuf) {
    let folder = std::env::var("LONGHAUL_TEST_POSTGRES_TLS")
        .expect("LONGHAUL_TEST_POSTGRES_TLS is the folder with the server's ca.pem");
    (Path::new(&folder).join("ca.pem"), Path::new(&folder).join("other-ca.pem"))
}

/// The test's server by this host name, with this mode, in a schema of its own that its connections name.
fn by(host: &str, mode: &str, root: Option<&Path>) -> Options {
    let mut options = options();
    let plain = options.url.split('?').next().expect("there is a first part");
    let (before, after) = plain.split_once('@').expect("the address names a user");
    let (place, database) = after.split_once('/').expect("the address names a database");
    let (_, port) = place.rsplit_once(':').expect("the address has a port");
    let root = root.map_or_else(String::new, |file| format!("&sslrootcert={}", file.display()));
    options.url = format!(
        "{before}@{host}:{port}/{database}?sslmode={mode}&application_name={}{root}",
        options.schema
    );
    options
}

async fn refused(options: &Options) -> Error {
    let error = Postgres::open(options, Arc::new(Deaf)).await.err().expect("it does not open");
    assert_eq!(error.reason, Reason::StoreUnavailable);
    error
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_connection_is_encrypted_where_the_address_asks_for_it() {
    let (ca, _) = authorities();
    for (mode, root) in [
        ("require", None),
        ("require", Some(&*ca)),
        ("verify-ca", Some(&*ca)),
        ("verify-full", Some(&*ca)),
    ] {
        let options = by("127.0.0.1", mode, root);
        let world = server(&options);
        world.started("a", at(0)).await;
        let client = session(&super::options()).await;
        let connections = "SELECT count(*), count(*) FILTER (WHERE s.ssl) FROM pg_stat_ssl AS s \
                           JOIN pg_stat_activity AS a USING (pid) WHERE a.application_name = $1";
        let row = client.query_one(connections, &[&options.schema]).await.expect("a count");
        let (all, encrypted): (i64, i64) = (row.get(0), row.get(1));
        assert!(all > 1, "{mode}: {all} connections");
        assert_eq!(encrypted, all, "{mode}");
        world.store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_another_authority_is_refused() {
    let (_, other) = authorities();
    for mode in ["require", "verify-ca", "verify-full"] {
        let error = refused(&by("127.0.0.1", mode, Some(&other))).await;
        let mut causes = Vec::new();
        let mut cause = error.source.as_deref().map(|cause| cause as &dyn std::error::Error);
        while let Some(one) = cause {
            causes.push(one.to_string());
            cause = one.source();
        }
        let said = |text: &String| text.contains("invalid peer certificate");
        assert!(causes.iter().any(said), "{mode}: {causes:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_verify_full_asks_whose_certificate_it_is() {
    let (ca, _) = authorities();
    // The certificate is for the address, not for the name.
    let world = server(&by("localhost", "verify-ca", Some(&ca)));
    world.started("a", at(0)).await;
    world.store.close().await;
    refused(&by("localhost", "verify-full", Some(&ca))).await;
}
