//! `longhaul auth` and `longhaul tls`: what they make is whole, private, and fits together.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

fn longhaul(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longhaul"));
    let variables =
        ["LONGHAUL_AUTH_DIR", "LONGHAUL_TLS_DIR", "LONGHAUL_TOKEN", "LONGHAUL_TOKEN_FILE"];
    variables.iter().for_each(|name| {
        command.env_remove(name);
    });
    command.current_dir(folder).args(arguments).output().unwrap()
}

#[track_caller]
fn done(output: Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?}: {errors}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

fn mode(file: &Path) -> u32 {
    std::fs::metadata(file).unwrap().permissions().mode() & 0o777
}

#[test]
fn auth_init_makes_an_account_once_with_secrets_for_its_owner_alone() {
    let folder = TempDir::new().unwrap();
    let server = "http://127.0.0.1:4711/";
    let told =
        done(longhaul(folder.path(), &["auth", "init", "--project", "p", "--server", server]));
    assert!(told.contains("admin@p.iam.gserviceaccount.com"), "{told}");
    let home = folder.path().join("longhaul-auth");
    for secret in ["server.json", "service-account.json", "token"] {
        assert_eq!(mode(&home.join(secret)), 0o600, "{secret}");
        let text = std::fs::read_to_string(home.join(secret)).unwrap();
        assert!(!told.contains(text.trim()), "{secret} was printed");
    }
    let account: serde_json::Value =
        serde_json::from_slice(&std::fs::read(home.join("service-account.json")).unwrap()).unwrap();
    assert_eq!(account["token_uri"], "http://127.0.0.1:4711/token");
    assert_eq!(account["type"], "service_account");
    let gcloud =
        std::fs::read_to_string(home.join("gcloud/configurations/config_longhaul")).unwrap();
    assert!(gcloud.contains("dataproc = http://127.0.0.1:4711/dataproc/\n"), "{gcloud}");

    let again = longhaul(folder.path(), &["auth", "init", "--project", "p"]);
    assert_eq!(again.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&again.stderr).contains("there already"));
    done(longhaul(folder.path(), &["auth", "account", "ci"]));
    assert_eq!(mode(&home.join("service-account-ci.json")), 0o600);
    assert_eq!(mode(&home.join("server.json")), 0o600);

    let token = done(longhaul(folder.path(), &["auth", "token"]));
    assert_eq!(token.trim().split('.').count(), 3);
    let who = done(longhaul(folder.path(), &["auth", "whoami"]));
    assert_eq!(who, "serviceAccount:admin@p.iam.gserviceaccount.com\n");
    let file = home.join("token").display().to_string();
    let who = done(longhaul(folder.path(), &["auth", "whoami", "--token-file", &file]));
    assert!(who.contains("admin@p") && who.contains("expires"), "{who}");

    let env =
        done(longhaul(folder.path(), &["env", "--auth-dir", "longhaul-auth", "--shell", "json"]));
    let env: serde_json::Value = serde_json::from_str(&env).unwrap();
    let file = env["GOOGLE_APPLICATION_CREDENTIALS"].as_str().unwrap();
    assert!(Path::new(file).is_absolute() && Path::new(file).exists(), "{file}");
    assert_eq!(env["GOOGLE_CLOUD_PROJECT"], "p");
    assert_eq!(env["GCE_METADATA_HOST"], env["GCE_METADATA_IP"]);
}

#[test]
fn tls_init_makes_an_authority_once_that_signs_more_clients_later() {
    let folder = TempDir::new().unwrap();
    let arguments = ["tls", "init", "--host", "build.example", "--client", "ann@example.com"];
    let told = done(longhaul(folder.path(), &arguments));
    assert!(told.contains("REQUESTS_CA_BUNDLE") && told.contains("client_ca"), "{told}");
    let home = folder.path().join("longhaul-tls");
    for secret in ["ca-key.pem", "server-key.pem", "client-ann@example.com-key.pem"] {
        assert_eq!(mode(&home.join(secret)), 0o600, "{secret}");
    }
    let again = longhaul(folder.path(), &["tls", "init"]);
    assert_eq!(again.status.code(), Some(2));
    done(longhaul(folder.path(), &["tls", "client", "spiffe://example/worker"]));
    assert!(home.join("client-spiffe___example_worker.pem").exists());
}
