//! Accounts of a local identity: made while the server runs, and taken as a whole or not at all.

use std::path::{Path, PathBuf};
use std::time::Duration;

use longhaul_auth::Mode;
use longhaul_auth::local::{Account, IdentityFile, ServiceAccountFile, Timestamp};
use longhaul_server::config::Auth;
use tempfile::TempDir;
use tokio::process::Command;

use super::people::{CLOUD, now};
use crate::harness::http::Ask;
use crate::harness::samples::DEPLOY;
use crate::harness::{Kept, Server, soon};

const OWNERS: &str =
    "bindings: [{role: roles/owner, members: ['domain:p.iam.gserviceaccount.com']}]";

struct Home {
    server: Server,
    folder: TempDir,
}

/// A folder of `longhaul auth init`, and a server on it that looks often.
async fn home() -> Home {
    let folder = TempDir::new().unwrap();
    longhaul(folder.path(), &["auth", "init", "--project", "p"]).await;
    let file = |name: &str| folder.path().join("longhaul-auth").join(name);
    std::fs::write(file("policy.json"), OWNERS).unwrap();
    let auth = Auth {
        mode: Some(Mode::Local),
        local: Some(file("server.json")),
        policy: Some(file("policy.json")),
        reload_every: Duration::from_millis(20),
        ..Auth::default()
    };
    let server = Server::alone(Kept::InMemory, |config| config.auth = auth).await;
    Home { server, folder }
}

async fn longhaul(folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longhaul"));
    for name in ["AUTH_DIR", "PROJECT", "SERVER", "TOKEN_FILE", "TOKEN"] {
        command.env_remove(format!("LONGHAUL_{name}"));
    }
    let output = command.current_dir(folder).args(arguments).output();
    let output = soon("the end of a command", output).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

impl Home {
    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("longhaul-auth").join(name)
    }

    /// The status of a read with a token that an account signs for itself; 404 where that counts.
    async fn asked(&self, account: &str) -> u16 {
        let text = std::fs::read_to_string(self.file(account)).unwrap();
        let account: ServiceAccountFile = serde_json::from_str(&text).unwrap();
        let began = Timestamp::from_micros(i64::try_from(now()).unwrap() * 1_000_000);
        let token = account.self_signed(CLOUD, began, Duration::from_secs(600)).unwrap();
        let ask = Ask::get("/v1/projects/p/locations/here/operations/none").host(DEPLOY.host);
        let ask = ask.header("authorization", format!("Bearer {}", token.expose()));
        ask.send(self.server.address).await.code
    }

    async fn ready(&self) -> String {
        let answer = Ask::get("/readyz").send(self.server.address).await;
        String::from_utf8(answer.body.to_vec()).unwrap()
    }

    async fn until(&self, what: &'static str, reached: impl AsyncFn() -> bool) {
        let looking = async {
            while !reached().await {
                // tidy: sleep: a pause between two looks; the caller has a deadline
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        soon(what, looking).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_is_made_now_counts_without_a_restart_and_one_that_is_taken_away_no_more() {
    let home = home().await;
    assert_eq!(home.asked("service-account.json").await, 404);
    let before = std::fs::read_to_string(home.file("server.json")).unwrap();
    longhaul(home.folder.path(), &["auth", "account", "ci"]).await;
    home.until("the new account", async || home.asked("service-account-ci.json").await == 404)
        .await;
    // The token endpoint knows it, too.
    let text = std::fs::read_to_string(home.file("service-account-ci.json")).unwrap();
    let account: serde_json::Value = serde_json::from_str(&text).unwrap();
    let key = longhaul_auth::Secret::new(account["private_key"].as_str().unwrap());
    let key = longhaul_auth::local::SigningKey::from_pem(&key).unwrap();
    let assertion = key.sign(&serde_json::json!({
        "iss": account["client_email"], "aud": account["token_uri"], "scope": CLOUD,
        "iat": now(), "exp": now() + 600,
    }));
    let form = format!(
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={}",
        assertion.unwrap().expose()
    );
    let ask = Ask::post("/token").header("content-type", "application/x-www-form-urlencoded");
    assert_eq!(ask.body(form).send(home.server.address).await.code, 200);

    std::fs::write(home.file("server.json"), before).unwrap();
    home.until("its end", async || home.asked("service-account-ci.json").await == 401).await;
    assert_eq!(home.asked("service-account.json").await, 404);
    home.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_identity_keeps_the_old_one_and_is_told_without_its_secrets() {
    let home = home().await;
    let good = std::fs::read_to_string(home.file("server.json")).unwrap();
    let mut other: IdentityFile = serde_json::from_str(&good).unwrap();
    let (account, _) = Account::generate("other", "p", "http://127.0.0.1:7151/token").unwrap();
    other.accounts.push(account);
    other.issuer = "somebody else".to_owned();
    let strange = serde_json::to_string(&other).unwrap();
    for (broken, word) in [
        (&good[..good.len() / 2], "no identity file"),
        ("", "no identity file"),
        (strange.as_str(), "issuer"),
    ] {
        std::fs::write(home.file("server.json"), broken).unwrap();
        home.until("a word about it", async || {
            let ready = home.ready().await;
            ready.contains("auth.local") && ready.contains(word)
        })
        .await;
        let ready = home.ready().await;
        assert!(!ready.contains("PRIVATE") && !ready.contains("MII"), "{ready}");
        assert_eq!(home.asked("service-account.json").await, 404);
    }
    std::fs::write(home.file("server.json"), good).unwrap();
    home.until("the end of the trouble", async || home.ready().await == "ok\n").await;
    home.server.stop().await;
}
