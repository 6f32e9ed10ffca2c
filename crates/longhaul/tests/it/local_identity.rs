//! A server in `local` mode gives tokens to its own accounts, as Google's endpoints do.

use std::path::PathBuf;

use longhaul_auth::Mode;
use longhaul_auth::local::{Account, IdentityFile, ServiceAccountFile, SigningKey};
use longhaul_server::config::Auth;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Answer, Ask, Kept, Server};

const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
const URI: &str = "http://127.0.0.1:7151/token";

struct Home {
    server: Server,
    file: ServiceAccountFile,
    _folder: TempDir,
}

async fn home() -> Home {
    let folder = TempDir::new().unwrap();
    let (account, file) = Account::generate("admin", "my-project", URI).unwrap();
    let identity = serde_json::to_string(&IdentityFile::new(account).unwrap()).unwrap();
    let path: PathBuf = folder.path().join("server.json");
    std::fs::write(&path, identity).unwrap();
    let server = Server::with(Kept::InMemory, |config| {
        config.auth = Auth { mode: Some(Mode::Local), local: Some(path), ..Auth::off() };
    })
    .await;
    Home { server, file, _folder: folder }
}

impl Home {
    fn assertion(&self, claims: &Value) -> String {
        let key = longhaul_auth::Secret::new(self.file.private_key.as_str());
        let key = SigningKey::from_pem(&key).unwrap();
        key.sign(claims).unwrap().expose().to_owned()
    }

    async fn exchange(&self, form: &str) -> Answer {
        let ask = Ask::post("/token").header("content-type", "application/x-www-form-urlencoded");
        ask.body(form.to_owned()).send(self.server.address).await
    }

    async fn look_up(&self, path: &str) -> Answer {
        let ask = Ask::get(format!("/computeMetadata/v1/{path}"));
        ask.header("metadata-flavor", "Google").send(self.server.address).await
    }
}

fn text(answer: &Answer) -> String {
    String::from_utf8(answer.body.to_vec()).unwrap()
}

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_endpoint_gives_an_account_a_token_and_a_stranger_a_reason() {
    let home = home().await;
    let claims = json!({
        "iss": home.file.client_email, "aud": URI, "scope": SCOPE, "iat": now(), "exp": now() + 3600,
    });
    let jwt_bearer = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer";
    let given = home.exchange(&format!("{jwt_bearer}&assertion={}", home.assertion(&claims))).await;
    assert_eq!(given.code, 200, "{given:?}");
    assert_eq!(given.headers["cache-control"], "no-store");
    let given = given.json();
    assert_eq!((&given["expires_in"], &given["token_type"]), (&3600.into(), &"Bearer".into()));
    assert_eq!(given["access_token"].as_str().unwrap().split('.').count(), 3);

    let mut old = claims.clone();
    old["iat"] = (now() - 7200).into();
    old["exp"] = (now() - 3600).into();
    let old = home.assertion(&old);
    for (form, error) in [
        (format!("{jwt_bearer}&assertion={old}"), "invalid_grant"),
        (format!("{jwt_bearer}&assertion=x"), "invalid_grant"),
        (jwt_bearer.to_owned(), "invalid_request"),
        ("grant_type=refresh_token&refresh_token=x".to_owned(), "unsupported_grant_type"),
        (String::new(), "unsupported_grant_type"),
        (format!("{jwt_bearer}&assertion={}", "x".repeat(40_000)), "invalid_request"),
    ] {
        let refused = home.exchange(&form).await;
        assert_eq!((refused.code, &refused.json()["error"]), (400, &error.into()), "{refused:?}");
        assert!(!text(&refused).contains(&old), "what was sent is not said again");
    }
    let get = Ask::get("/token").send(home.server.address).await;
    assert_eq!(get.code, 405);
    home.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metadata_server_answers_what_clients_ask() {
    let home = home().await;
    let email = home.file.client_email.clone();
    for (path, wanted) in [
        ("project/project-id", "my-project"),
        ("instance/service-accounts/default/email", &*email),
        ("instance/service-accounts/default/scopes", &*format!("{SCOPE}\n")),
        ("instance/service-accounts/", &*format!("default/\n{email}/\n")),
        ("universe/universe-domain", "googleapis.com"),
    ] {
        let answer = home.look_up(path).await;
        assert_eq!((answer.code, &*text(&answer)), (200, wanted), "{path}");
        assert_eq!(answer.headers["metadata-flavor"], "Google", "{path}");
    }
    let number = text(&home.look_up("project/numeric-project-id").await);
    assert!(number.parse::<u64>().is_ok(), "{number}");
    for name in ["default", &*email] {
        let about =
            home.look_up(&format!("instance/service-accounts/{name}/?recursive=true")).await;
        assert_eq!(about.json()["email"], *email);
        let asked = format!("instance/service-accounts/{name}/token?scopes=a,b");
        let token = home.look_up(&asked).await.json();
        assert_eq!(token["expires_in"], 3600);
        let asked = format!("instance/service-accounts/{name}/identity?audience=https://a");
        assert_eq!(text(&home.look_up(&asked).await).split('.').count(), 3);
    }
    let without = home.look_up("instance/service-accounts/default/identity").await;
    assert_eq!(without.code, 400);
    assert_eq!(home.look_up("instance/service-accounts/other@p/token").await.code, 404);
    let ping = Ask::get("/").header("metadata-flavor", "Google").send(home.server.address).await;
    assert_eq!((ping.code, &ping.headers["metadata-flavor"]), (200, &"Google".parse().unwrap()));
    home.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_given_neither_through_proxies_nor_to_pages_nor_in_other_modes() {
    let home = home().await;
    let path = "/computeMetadata/v1/instance/service-accounts/default/token";
    let flavored = || Ask::get(path).header("metadata-flavor", "Google");
    assert_eq!(flavored().send(home.server.address).await.code, 200);
    for refused in [
        Ask::get(path),
        Ask::get(path).header("metadata-flavor", "google"),
        flavored().header("x-forwarded-for", "10.0.0.1"),
        Ask::post(path).header("metadata-flavor", "Google"),
    ] {
        let answer = refused.send(home.server.address).await;
        assert_eq!(answer.code, 403, "{answer:?}");
        assert!(!text(&answer).contains("access_token"));
    }
    home.server.stop().await;

    let off = Server::start(Kept::InMemory).await;
    flavored().send(off.address).await.failure(404);
    Ask::post("/token").send(off.address).await.failure(404);
    off.stop().await;
}
