//! Callers of all kinds, with real keys and a policy that knows them, and one call in two forms.

use std::net::SocketAddr;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use jsonwebtoken::{Algorithm, EncodingKey};
use longhaul_server::Config;
use longhaul_server::config::{Auth, IssuerConfig};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::grpc::Connection;
use crate::harness::http::{Answer, Ask};
use crate::harness::samples::DEPLOY;
use crate::harness::server::{Kept, Server};
use crate::harness::soon;
use crate::harness::view::Failure;

pub const CLOUD: &str = "https://www.googleapis.com/auth/cloud-platform";
const ISSUER: &str = "https://issuer.example";

/// Who may do what on the server of [`World`].
const POLICY: &str = "
policies:
- resource: projects/p
  bindings:
  - {role: roles/clouddeploy.viewer, members: ['user:viewer@example.com']}
  - {role: roles/clouddeploy.operator, members: ['user:operator@example.com', 'serviceAccount:ci@p.iam.gserviceaccount.com']}
  - {role: roles/clouddeploy.admin, members: ['user:admin@example.com']}
- resource: projects/q
  bindings: [{role: roles/owner, members: ['user:neighbour@example.com']}]
- resource: apis/clouddeploy.googleapis.com
  bindings: [{role: roles/longhaul.worker, members: ['user:worker@example.com', 'user:rival@example.com']}]
bindings:
- {role: roles/owner, members: ['user:root@example.com']}
";

/// Every caller of the table, in its order.
pub const PEOPLE: [&str; 15] = [
    "nobody",
    "expired",
    "audience",
    "alg-none",
    "hmac",
    "forged",
    "no-scope",
    "stranger",
    "neighbour",
    "viewer",
    "operator",
    "ci",
    "admin",
    "worker",
    "root",
];

/// A key of the issuer's.
pub struct Signer {
    key: EncodingKey,
    public: Value,
}

impl Signer {
    pub fn new(kid: &str) -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let (x, y) = pair.public_key_raw()[1..].split_at(32);
        let public = json!({
            "kty": "EC", "crv": "P-256", "kid": kid, "alg": "ES256",
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        });
        Self { key: EncodingKey::from_ec_der(&pair.serialize_der()), public }
    }

    pub fn key_set(&self) -> String {
        key_set(&[self])
    }

    pub fn sign(&self, claims: &Value) -> String {
        let header = json!({"alg": "ES256", "typ": "JWT", "kid": self.public["kid"]});
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(claims));
        let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &self.key, Algorithm::ES256);
        format!("{signed}.{}", signature.unwrap())
    }
}

/// What an issuer with these keys publishes.
pub fn key_set(signers: &[&Signer]) -> String {
    let keys: Vec<_> = signers.iter().map(|signer| &signer.public).collect();
    json!({ "keys": keys }).to_string()
}

/// Seconds since 1970.
pub fn now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap().as_secs()
}

/// What a good token of somebody claims.
pub fn claims(who: &str) -> Value {
    json!({
        "iss": ISSUER, "sub": who, "aud": "longhaul", "email": format!("{who}@example.com"),
        "scope": CLOUD, "exp": now() + 600,
    })
}

/// A server that asks who calls, its issuer, and the files that it reads.
pub struct World {
    pub server: Server,
    pub folder: TempDir,
    issuer: Signer,
    account: Signer,
    grpc: Connection,
}

impl World {
    pub async fn start(change: impl FnOnce(&mut Auth)) -> Self {
        Self::with(|config| change(&mut config.auth)).await
    }

    /// The same with a say in everything else, too.
    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::on(change, false).await
    }

    /// The same, and one server wherever several are tested: for what each does by itself.
    pub async fn alone(change: impl FnOnce(&mut Config)) -> Self {
        Self::on(change, true).await
    }

    async fn on(change: impl FnOnce(&mut Config), alone: bool) -> Self {
        let folder = TempDir::new().unwrap();
        let (issuer, account) = (Signer::new("k1"), Signer::new("sa1"));
        let file = |name: &str| folder.path().join(name);
        std::fs::write(file("policy.yaml"), POLICY).unwrap();
        std::fs::write(file("keys.json"), issuer.key_set()).unwrap();
        let email = "ci@p.iam.gserviceaccount.com";
        let accounts = json!({"accounts": [{"email": email, "keys": [account.public]}]});
        std::fs::write(file("accounts.json"), accounts.to_string()).unwrap();
        let auth = auth(folder.path());
        let change = |config: &mut Config| {
            config.auth = auth;
            change(config);
        };
        let server = match alone {
            true => Server::alone(Kept::InMemory, change).await,
            false => Server::with(Kept::InMemory, change).await,
        };
        let grpc = Connection::new(server.address, Some(DEPLOY.host));
        Self { server, folder, issuer, account, grpc }
    }

    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// What somebody sends; `None` for nobody.
    pub fn token(&self, who: &str) -> Option<String> {
        let with = |name: &str, value: Value| {
            let mut claims = claims("operator");
            claims[name] = value;
            self.issuer.sign(&claims)
        };
        let unsigned = |alg: &str| {
            let header = URL_SAFE_NO_PAD.encode(json!({"alg": alg, "kid": "k1"}).to_string());
            format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims("operator").to_string()))
        };
        Some(match who {
            "nobody" => return None,
            "expired" => with("exp", json!(now() - 3_600)),
            "audience" => with("aud", json!("somebody else")),
            "no-scope" => with("scope", json!("openid email")),
            "alg-none" => format!("{}.", unsigned("none")),
            "hmac" => {
                let body = unsigned("HS256");
                let secret = EncodingKey::from_secret(self.issuer.key_set().as_bytes());
                let signature =
                    jsonwebtoken::crypto::sign(body.as_bytes(), &secret, Algorithm::HS256);
                format!("{body}.{}", signature.unwrap())
            }
            "forged" => Signer::new("k1").sign(&claims("operator")),
            // As the Python libraries do with a service account's file.
            "ci" => {
                let email = "ci@p.iam.gserviceaccount.com";
                self.account.sign(&json!({
                    "iss": email, "sub": email, "aud": "https://clouddeploy.googleapis.com/",
                    "iat": now(), "exp": now() + 3_600,
                }))
            }
            who => self.issuer.sign(&claims(who)),
        })
    }

    /// A token of somebody's that ends `seconds` from now.
    pub fn brief_token(&self, who: &str, seconds: u64) -> String {
        self.token_saying(who, "exp", json!(now() + seconds))
    }

    /// A token of somebody's with one claim of another value.
    pub fn token_saying(&self, who: &str, claim: &str, value: Value) -> String {
        let mut claims = claims(who);
        claims[claim] = value;
        self.issuer.sign(&claims)
    }

    /// Puts another policy into the file that the server looks at.
    pub fn write_policy(&self, policy: &str) {
        let half = self.folder.path().join("policy.half");
        std::fs::write(&half, policy).unwrap();
        std::fs::rename(half, self.folder.path().join("policy.yaml")).unwrap();
    }

    /// Calls over HTTP, and gives the whole answer.
    pub async fn answer(&self, who: &str, ask: Ask) -> Answer {
        let ask = match self.token(who) {
            Some(token) => ask.header("authorization", format!("Bearer {token}")),
            None => ask,
        };
        soon("an answer", ask.host(DEPLOY.host).send(self.address())).await
    }

    /// Calls over HTTP.
    pub async fn http(&self, who: &str, ask: Ask) -> Result<Value, Failure> {
        let answer = self.answer(who, ask).await;
        read(&answer)
    }

    /// Calls over gRPC.
    pub async fn grpc(&self, who: &str, path: &str, message: Bytes) -> Result<Bytes, Failure> {
        let token = self.token(who).map(|token| format!("Bearer {token}"));
        let metadata: Vec<_> =
            token.iter().map(|token| ("authorization", token.as_str())).collect();
        soon("an answer", self.grpc.call_with(path, message, &metadata)).await
    }
}

/// Reads an answer, and that one without credentials says what to send.
fn read(answer: &Answer) -> Result<Value, Failure> {
    if answer.code == 200 {
        return Ok(answer.json());
    }
    assert_eq!(
        answer.code == 401,
        answer.headers.contains_key("www-authenticate") && answer.code != 403
    );
    Err(Failure::from_envelope(&answer.json()))
}

/// Who is asked, and by which of the files in a world's folder.
pub fn auth(folder: &Path) -> Auth {
    Auth {
        mode: Some("jwt".parse().unwrap()),
        policy: Some(folder.join("policy.yaml")),
        issuers: vec![IssuerConfig {
            name: ISSUER.into(),
            audiences: vec!["longhaul".into()],
            jwks_file: Some(folder.join("keys.json")),
            jwks_url: None,
            jwks_refresh: std::time::Duration::from_secs(3_600),
            groups_claim: String::new(),
            scopes_default: Vec::new(),
        }],
        service_accounts: vec![folder.join("accounts.json")],
        reload_every: std::time::Duration::from_millis(20),
        ..Auth::default()
    }
}
