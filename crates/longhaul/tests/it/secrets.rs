//! What a caller proves itself with is nowhere in what the server writes: not in its log at its most
//! talkative, not in the audit log, not in an answer, not in its data, not in a panic.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use longhaul_wire::longrunning::GetOperationRequest;
use prost::Message as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::access::people::{CLOUD, Signer, claims, now};
use crate::harness::Ask;
use crate::harness::grpc::Connection;
use crate::harness::process::Process;
use crate::harness::samples::{Asked, DEPLOY};

const PASSWORD: &str = "correct horse battery staple";

/// Everything that was sent to prove something, by name.
struct Sent(Vec<(&'static str, String)>);

impl Sent {
    fn new(issuer: &Signer) -> Self {
        let with = |name: &str, value: Value| {
            let mut claims = claims("root");
            claims[name] = value;
            issuer.sign(&claims)
        };
        let body = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(json!({"alg": "none", "kid": "k1"}).to_string()),
            URL_SAFE_NO_PAD.encode(claims("root").to_string())
        );
        Self(vec![
            ("good", issuer.sign(&claims("root"))),
            ("of a stranger", issuer.sign(&claims("stranger"))),
            ("expired", with("exp", json!(now() - 3_600))),
            ("for another audience", with("aud", json!("somebody else"))),
            ("without the scope", with("scope", json!(CLOUD.replace("cloud", "cl0ud")))),
            ("forged", Signer::new("k1").sign(&claims("root"))),
            ("unsigned", format!("{body}.")),
            ("not a token", "ya29.a0AfH6SMBx-not-a-token-of-this-server".to_owned()),
        ])
    }

    fn good(&self) -> &str {
        &self.0[0].1
    }

    /// What must not be found: each credential, and each part of it that would give it away.
    fn secrets(&self) -> Vec<String> {
        let mut secrets: Vec<String> = self.0.iter().map(|(_, token)| token.clone()).collect();
        for (_, token) in &self.0 {
            let parts = token.split('.').skip(1).filter(|part| part.len() > 16);
            secrets.extend(parts.map(str::to_owned));
        }
        secrets.push(STANDARD.encode(format!("ann:{PASSWORD}")));
        secrets.push(PASSWORD.to_owned());
        secrets
    }
}

/// Calls of all kinds with one credential; everything that came back.
async fn call(address: SocketAddr, header: &str, token: &str) -> String {
    let mut heard = String::new();
    let parent = DEPLOY.parent("p");
    let asked = Asked { id: "a", ..Asked::default() };
    let operation = format!("/v1/{parent}/operations/o");
    let asks = [
        Ask::post_json(DEPLOY.start_path("p", asked), &DEPLOY.start_body("p", asked)),
        Ask::get(&operation),
        Ask::get(format!("/v1/{parent}/operations?pageSize=1&pageToken={token}")),
        Ask::get(format!("/v1/{parent}/operations?filter=name=%22nothing%22")),
        Ask::post(format!("{operation}:cancel")),
        Ask::delete(&operation),
        Ask::get(format!("/longhaul/v1/{parent}/operations/o:describe")),
        Ask::get("/no/such/path"),
        Ask::post_json(format!("{operation}:cancel"), &json!({ "nosuch": 1 })),
    ];
    for ask in asks {
        let answer = ask.host(DEPLOY.host).header("authorization", header).send(address).await;
        heard += &format!("{:?} {}\n", answer.headers, String::from_utf8_lossy(&answer.body));
    }
    for name in ["access_token", "oauth_token"] {
        let path = format!("{operation}?{name}={token}");
        let answer = Ask::get(path).host(DEPLOY.host).send(address).await;
        heard += &format!("{:?} {}\n", answer.headers, String::from_utf8_lossy(&answer.body));
    }
    let grpc = Connection::new(address, Some(DEPLOY.host));
    for method in ["GetOperation", "CancelOperation", "DeleteOperation", "NoSuchMethod"] {
        let path = format!("/google.longrunning.Operations/{method}");
        let request = GetOperationRequest { name: format!("{parent}/operations/o") };
        let metadata = [("authorization", header)];
        let answer = grpc.call_with(&path, request.encode_to_vec().into(), &metadata).await;
        heard += &format!("{answer:?}\n");
    }
    heard
}

fn configuration(folder: &Path) -> String {
    let file = |name: &str| folder.join(name).display().to_string();
    format!(
        "listen = \"127.0.0.1:0\"\ndata = {:?}\n\n[auth]\nmode = \"jwt\"\npolicy = {:?}\n\n[[auth.issuer]]\nname = \"https://issuer.example\"\naudiences = [\"longhaul\"]\njwks_file = {:?}\n\n[audit]\ndestination = \"file:{}\"\ndata_access = true\ndenied_per_second = 100000\n\n[shares]\nper_principal = {{ calls_per_second = 30, cancels_per_second = 100 }}\n",
        file("written/data"),
        file("policy.yaml"),
        file("keys.json"),
        file("written/audit.jsonl"),
    )
}

/// All files below a folder.
fn files(folder: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_callers_prove_themselves_with_is_nowhere_in_what_the_server_writes() {
    let folder = TempDir::new().unwrap();
    let issuer = Signer::new("k1");
    let written = folder.path().join("written");
    fs::create_dir(&written).unwrap();
    fs::write(folder.path().join("keys.json"), issuer.key_set()).unwrap();
    let policy = "bindings: [{role: roles/owner, members: ['user:root@example.com']}]";
    fs::write(folder.path().join("policy.yaml"), policy).unwrap();
    let sent = Sent::new(&issuer);

    let configuration = configuration(folder.path());
    let none: [(&str, &std::ffi::OsStr); 0] = [];
    let process = Process::serve_logged(&configuration, &written.join("first"), &none).await;
    let mut heard = String::new();
    for (_, token) in &sent.0 {
        heard += &call(process.address, &format!("Bearer {token}"), token).await;
        // As people get it wrong.
        heard += &call(process.address, token, token).await;
    }
    let basic = STANDARD.encode(format!("ann:{PASSWORD}"));
    heard += &call(process.address, &format!("Basic {basic}"), &basic).await;
    let alone = Ask::get("/v1/projects/p/locations/here/operations").host(DEPLOY.host);
    assert_eq!(alone.send(process.address).await.code, 401);
    assert_eq!(process.terminate().await, Some(0));

    // And a bug of ours, in the middle of a call that shows a good token.
    let cancel = "google.longrunning.Operations.CancelOperation";
    let panics = [("LONGHAUL_PANIC", cancel.as_ref())];
    let process = Process::serve_logged(&configuration, &written.join("second"), &panics).await;
    heard += &call(process.address, &format!("Bearer {}", sent.good()), sent.good()).await;
    assert_eq!(process.terminate().await, Some(0));

    let mut all = vec![("an answer".to_owned(), heard.into_bytes())];
    files(&written, &mut all);
    let holds = |name: &str, words: &str| {
        let (_, bytes) = all.iter().find(|(path, _)| path.ends_with(name)).unwrap();
        assert!(find(bytes, words.as_bytes()), "{name} does not say {words:?}");
    };
    // That everything was looked at shows in what is there.
    holds("an answer", "ACCESS_TOKEN_EXPIRED");
    holds("first.err", "\"DEBUG\"");
    holds("second.err", "panicked");
    holds("audit.jsonl", "root@example.com");
    holds("audit.jsonl", "CREDENTIALS_MISSING\"");
    assert!(all.iter().any(|(path, _)| path.contains("/data/")), "the data folder");
    for secret in sent.secrets() {
        for (place, bytes) in &all {
            let line =
                bytes.split(|byte| *byte == b'\n').find(|line| find(line, secret.as_bytes()));
            if let Some(line) = line {
                let shown: String = String::from_utf8_lossy(line).chars().take(2_000).collect();
                panic!("{place} has {secret:?}: {shown}");
            }
        }
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> bool {
    let Some((first, _)) = wanted.split_first() else { return true };
    bytes
        .iter()
        .enumerate()
        .filter(|(_, byte)| *byte == first)
        .any(|(at, _)| bytes[at..].starts_with(wanted))
}
