//! `longhaul dev` with tokens and TLS: what it tells people to do is what works.

use std::path::Path;
use std::process::Stdio;

use longhaul_client::operations::{Client, Error, WaitOptions};
use longhaul_client::{Credentials, Token};
use serde_json::json;
use tempfile::TempDir;
use tokio::process::Command;

use crate::harness::process::Process;
use crate::harness::soon;

const QUICK: [&str; 4] = ["--duration", "10ms", "--cancel-delay", "10ms"];

/// The lines of a banner below its first hint.
fn hints(said: &str) -> Vec<&str> {
    let tries = said.split("  Try      ").nth(1).unwrap_or_else(|| panic!("no hints in {said}"));
    tries.lines().map(str::trim).collect()
}

/// Runs lines of a banner as a person would, with this binary as `longhaul`.
async fn shell(folder: &Path, lines: &str) -> String {
    let binary = Path::new(env!("CARGO_BIN_EXE_longhaul")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("sh");
    command.args(["-e", "-c", lines]).current_dir(folder).env("PATH", path).env("SHELL", "/bin/sh");
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = soon("the end of the hints", command.output()).await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{lines}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn client(url: &str, home: &Path, token: bool) -> Client {
    let mut credentials = Credentials::default();
    if url.starts_with("https://") {
        credentials = credentials.with_ca_file(home.join("longhaul-tls/ca.pem")).unwrap();
    }
    if token {
        let token = Token::file(home.join("longhaul-auth/token")).unwrap();
        credentials = credentials.with_token(token);
    }
    Client::connect_with(&format!("{url}/clouddeploy"), &credentials).unwrap()
}

/// Starts what the banner's first hint starts, and gives the operation's name once the practice worker has
/// done it.
async fn practised(client: &Client) -> Result<String, Error> {
    let path = "projects/demo/locations/us-central1/deliveryPipelines";
    let handle = client.start_json(path, &[("deliveryPipelineId", "first")], &json!({})).await?;
    let done = soon("the end of the work", handle.wait(&WaitOptions::default())).await?;
    assert!(done.done(), "{done:?}");
    Ok(handle.name().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_asks_for_tokens_over_tls_and_its_hints_work() {
    let folder = TempDir::new().unwrap();
    let flags = [&["--auth", "local", "--tls"][..], &QUICK].concat();
    let (process, said) = Process::dev_in(folder.path(), &flags).await;
    let url = format!("https://{}", process.address);
    let (home, hints) = (folder.path(), hints(&said));
    let whole = home.canonicalize().unwrap();
    for part in [
        format!("--cacert {}", whole.join("longhaul-tls/ca.pem").display()),
        format!("$(cat {})", whole.join("longhaul-auth/token").display()),
        format!("{url}/clouddeploy/v1/projects/demo/"),
    ] {
        assert!(hints[0].contains(&part), "{part}: {}", hints[0]);
    }
    let name = practised(&client(&url, home, true)).await.unwrap();
    let refused = practised(&client(&url, home, false)).await.unwrap_err();
    assert!(refused.to_string().contains("authentication"), "{refused}");
    let listed = shell(home, &format!("{}\n{} -o name", hints[1], hints[2])).await;
    assert_eq!(listed, format!("{name}\n"), "{hints:?}");
    assert_eq!(process.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_speaks_tls_alone_with_the_authority_that_is_there() {
    let folder = TempDir::new().unwrap();
    let home = folder.path();
    shell(home, "unset LONGHAUL_TLS_DIR; longhaul tls init").await;
    let read = || std::fs::read_to_string(home.join("longhaul-tls/ca.pem")).unwrap();
    let ca = read();
    let (process, said) = Process::dev_in(home, &[&["--tls"][..], &QUICK].concat()).await;
    assert_eq!(read(), ca, "an authority that is there is kept");
    let url = format!("https://{}", process.address);
    let name = practised(&client(&url, home, false)).await.unwrap();
    let hints = hints(&said);
    let listed = shell(home, &format!("{}\n{} -o name", hints[1], hints[2])).await;
    assert_eq!(listed, format!("{name}\n"));
    let plain = client(&format!("http://{}", process.address), home, false);
    assert!(practised(&plain).await.is_err(), "a port with TLS speaks nothing else");
    assert!(!home.join("longhaul-auth").exists(), "nothing is made that nobody asked for");
    assert_eq!(process.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_takes_the_accounts_that_are_there_and_those_of_another_address_not() {
    let folder = TempDir::new().unwrap();
    let home = folder.path();
    let flags = [&["--auth", "local"][..], &QUICK].concat();
    let (process, _) = Process::dev_in(home, &flags).await;
    let port = process.address.port().to_string();
    practised(&client(&format!("http://{}", process.address), home, true)).await.unwrap();
    let token = || std::fs::read_to_string(home.join("longhaul-auth/token")).unwrap();
    let first = token();
    assert_eq!(process.terminate().await, Some(0));

    let ended = Process::dev_in_fails(home, &[&["--port", "0"][..], &flags].concat()).await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    let theirs = format!("http://127.0.0.1:{port}");
    assert!(ended.errors.contains(&theirs) && ended.errors.contains("--auth-dir"), "{ended:?}");
    assert_eq!(token(), first, "a server that does not start changes nothing");

    let (process, _) = Process::dev_in(home, &[&flags[..], &["--port", &port]].concat()).await;
    practised(&client(&format!("http://{}", process.address), home, true)).await.unwrap();
    assert_eq!(process.terminate().await, Some(0));
    let ended = Process::dev_in_fails(home, &["--auth", "jwt"]).await;
    assert_eq!(ended.code, Some(2));
    assert!(ended.errors.contains("local"), "{ended:?}");
}
