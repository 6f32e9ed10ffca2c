//! The command line over TLS: what it believes, what it shows, and what it says when that does not do.

use std::process::Output;

use longhaul_server::tls::{ClientAuth, TlsConfig};
use tokio::process::Command;

use crate::harness::tls::{Authority, TlsFiles};
use crate::harness::{Kept, Server, soon};

async fn longhaul(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longhaul"));
    for name in ["TOKEN", "TOKEN_FILE", "CA_FILE", "CLIENT_CERT_FILE", "CLIENT_KEY_FILE", "SERVER"]
    {
        command.env_remove(format!("LONGHAUL_{name}"));
    }
    soon("the end of a command", command.args(arguments).output()).await.unwrap()
}

#[track_caller]
fn failed(output: &Output, word: &str) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && errors.contains(word), "{word}: {errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_believes_the_authority_it_is_given_and_shows_its_certificate() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let files = TlsFiles::new(&ours.server());
    let file = |name: &str, text: &str| files.write(name, text).display().to_string();
    let (ca, other) = (file("ca.pem", &ours.pem()), file("other.pem", &theirs.pem()));
    let pair = ours.client("ann", Vec::new(), 2099);
    let (cert, key) = (file("ann.pem", &pair.cert), file("ann-key.pem", &pair.key));
    let tls = TlsConfig {
        client_ca: Some(ca.clone().into()),
        client_auth: ClientAuth::Required,
        ..files.config()
    };
    let server = Server::with(Kept::InMemory, |config| config.tls = Some(tls)).await;
    let url = format!("https://{}", server.address);
    let shown = ["--ca", &ca, "--cert", &cert, "--key", &key, "--server", &url];

    let ready = longhaul(&[&["health"][..], &shown].concat()).await;
    assert_eq!(String::from_utf8_lossy(&ready.stdout), "ready\n", "{ready:?}");
    let listed = longhaul(&[&["operations", "list", "clouddeploy"][..], &shown].concat()).await;
    assert!(listed.status.success(), "{listed:?}");

    let health = async |arguments: &[&str]| longhaul(&[&["health"][..], arguments].concat()).await;
    failed(&health(&["--server", &url, "--ca", &other]).await, "--ca FILE");
    failed(&health(&["--server", &url, "--ca", &ca]).await, "--cert FILE");
    failed(&health(&["--server", &url, "--ca", &ca, "--cert", &cert]).await, "has no key");
    let plain = format!("http://{}", server.address);
    failed(&health(&["--server", &plain]).await, "TLS");
    let listed = longhaul(&["operations", "list", "clouddeploy", "--server", &plain]).await;
    failed(&listed, "https://");
    server.stop().await;

    let without = Server::start(Kept::InMemory).await;
    let url = format!("https://{}", without.address);
    failed(&health(&["--server", &url, "--ca", &ca]).await, "http://");
    without.stop().await;
}
