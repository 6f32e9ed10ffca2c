//! Callers known by certificates, at the real binary: whose a certificate is, what that one may, and that a
//! connection without a good one never becomes a call.

use std::fmt::Write as _;

use bytes::Bytes;
use longhaul_wire::longrunning::GetOperationRequest;
use prost::Message as _;
use rcgen::SanType;
use serde_json::json;
use tempfile::TempDir;

use super::people::{Signer, claims, now};
use crate::harness::grpc::Connection;
use crate::harness::http::{Answer, Ask};
use crate::harness::process::Process;
use crate::harness::samples::DEPLOY;
use crate::harness::soon;
use crate::harness::tls::{Authority, Dial, Pair, TlsFiles};
use crate::harness::view::Failure;

const POLICY: &str = "
policies:
- resource: projects/p
  bindings:
  - {role: roles/clouddeploy.viewer, members: ['user:viewer@example.com', 'principal://certificate/dns/reader.example']}
  - {role: roles/clouddeploy.operator, members: ['serviceAccount:ci@p.iam.gserviceaccount.com', 'user:operator@example.com']}
- resource: projects/q
  bindings: [{role: roles/clouddeploy.viewer, members: ['principalSet://certificate/*']}]
";

/// A server that wants certificates, and those who make them.
struct World {
    process: Process,
    ours: Authority,
    theirs: Authority,
    issuer: Signer,
    _files: TlsFiles,
    _folder: TempDir,
}

fn email(name: &str) -> Vec<SanType> {
    vec![SanType::Rfc822Name(name.try_into().unwrap())]
}

fn dns(name: &str) -> Vec<SanType> {
    vec![SanType::DnsName(name.try_into().unwrap())]
}

impl World {
    async fn start(mode: &str) -> Self {
        let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
        let (files, folder) = (TlsFiles::new(&ours.server()), TempDir::new().unwrap());
        let issuer = Signer::new("k1");
        let tls = files.config();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let (policy, ca) = (file("policy.yaml", POLICY), file("ca.pem", &ours.pem()));
        let keys = file("keys.json", &issuer.key_set());
        let mut text = format!(
            "listen = \"127.0.0.1:0\"\n[tls]\ncert = {:?}\nkey = {:?}\nclient_ca = {ca:?}\nclient_auth = \"required\"\n",
            tls.cert.display().to_string(),
            tls.key.display().to_string(),
        );
        let member = "serviceAccount:ci@p.iam.gserviceaccount.com";
        write!(text, "[auth]\nmode = {mode:?}\npolicy = {policy:?}\n").unwrap();
        if mode == "jwt+mtls" {
            let issuer = "name = \"https://issuer.example\"\naudiences = [\"longhaul\"]";
            write!(text, "[[auth.issuer]]\n{issuer}\njwks_file = {keys:?}\n").unwrap();
        }
        write!(text, "[auth.certificates]\n\"dns:worker-7.example\" = {member:?}\n").unwrap();
        let process = Process::serve(&text).await;
        Self { process, ours, theirs, issuer, _files: files, _folder: folder }
    }

    fn client(&self, names: Vec<SanType>) -> Pair {
        self.ours.client("somebody", names, 2099)
    }

    fn dial(&self, pair: Option<&Pair>) -> Dial {
        let dial = Dial::trusting(&self.ours);
        pair.map_or(dial.clone(), |pair| dial.showing(pair))
    }

    /// Calls over HTTP; an error is one of the connection.
    async fn http(&self, pair: Option<&Pair>, ask: Ask) -> Result<Answer, String> {
        let address = self.process.address;
        let stream = self.dial(pair).speaking(b"http/1.1").connect(address).await?;
        let ask = ask.host(DEPLOY.host);
        soon("an answer", ask.try_send_through(stream, address)).await
    }

    fn grpc(&self, pair: Option<&Pair>) -> Connection {
        Connection::over_tls(self.process.address, DEPLOY.host, self.dial(pair).speaking(b"h2"))
    }

    async fn started(&self, project: &str) -> String {
        let ci = self.client(dns("worker-7.example"));
        let path = format!("/v1/projects/{project}/locations/here/targets?targetId=t");
        let answer = self.http(Some(&ci), Ask::post_json(path, &json!({}))).await.unwrap();
        answer.ok()["name"].as_str().unwrap().to_owned()
    }

    /// What get and cancel are answered over both wires: the same, each a reason, or `ok`.
    async fn may(&self, pair: &Pair, name: &str) -> [String; 2] {
        let message = Bytes::from(GetOperationRequest { name: name.into() }.encode_to_vec());
        let grpc = self.grpc(Some(pair));
        let mut said = Vec::new();
        for (method, ask) in [
            ("GetOperation", Ask::get(format!("/v1/{name}"))),
            ("CancelOperation", Ask::post(format!("/v1/{name}:cancel"))),
        ] {
            let answer = self.http(Some(pair), ask).await.unwrap();
            let http = match answer.code {
                200 => Ok(()),
                _ => Err(Failure::from_envelope(&answer.json())),
            };
            let path = format!("/google.longrunning.Operations/{method}");
            let called = grpc.call_bytes(&path, message.clone(), None);
            let called = soon("an answer", called).await.map(drop);
            assert_eq!(http, called, "{method}");
            said.push(called.map_or_else(|failure| failure.reason, |()| "ok".to_owned()));
        }
        said.try_into().unwrap()
    }
}

const DENIED: &str = "IAM_PERMISSION_DENIED";

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_who_it_names_and_may_what_that_one_may() {
    let world = World::start("mtls").await;
    let name = world.started("p").await;
    for (names, get, cancel) in [
        (email("viewer@example.com"), "ok", DENIED),
        (email("operator@example.com"), "ok", "ok"),
        (email("ci@p.iam.gserviceaccount.com"), "ok", "ok"),
        (dns("worker-7.example"), "ok", "ok"),
        (dns("reader.example"), "ok", DENIED),
        (dns("worker-8.example"), DENIED, DENIED),
        (email("stranger@example.com"), DENIED, DENIED),
        (Vec::new(), DENIED, DENIED),
    ] {
        let shown = format!("{names:?}");
        let said = world.may(&world.client(names), &name).await;
        assert_eq!(said, [get, cancel], "{shown}");
    }
    // Whoever has a certificate is in the set of those who have one.
    let all = world.client(dns("worker-8.example"));
    let list = Ask::get("/v1/projects/q/locations/here/operations");
    assert_eq!(world.http(Some(&all), list).await.unwrap().code, 200);
    // Tokens say nothing here: neither good nor bad ones change who calls.
    let bearer = format!("Bearer {}", world.issuer.sign(&claims("operator")));
    for header in [bearer.as_str(), "Bearer nonsense", "Basic nonsense"] {
        let viewer = world.client(email("viewer@example.com"));
        let ask = |ask: Ask| ask.header("authorization", header);
        let got = world.http(Some(&viewer), ask(Ask::get(format!("/v1/{name}")))).await.unwrap();
        assert_eq!(got.code, 200, "{header}");
        let cancel = ask(Ask::post(format!("/v1/{name}:cancel")));
        let refused = world.http(Some(&viewer), cancel).await.unwrap().failure(403);
        refused.is("PERMISSION_DENIED", DENIED);
    }
    assert_eq!(world.process.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_good_certificate_there_is_no_connection_in_either_mode() {
    for mode in ["mtls", "jwt+mtls"] {
        let world = World::start(mode).await;
        let operator = email("operator@example.com");
        let bearer = format!("Bearer {}", world.issuer.sign(&claims("operator")));
        for (why, pair) in [
            ("none", None),
            ("another authority", Some(world.theirs.client("x", operator.clone(), 2099))),
            ("expired", Some(world.ours.client("x", operator.clone(), 2020))),
            ("a server's", Some(world.ours.server())),
        ] {
            let ask = Ask::get("/livez").header("authorization", bearer.as_str());
            let refused = world.http(pair.as_ref(), ask).await;
            assert!(refused.is_err(), "{mode}, {why}: {refused:?}");
            let grpc = world.grpc(pair.as_ref());
            let path = "/google.longrunning.Operations/GetOperation";
            let metadata = [("authorization", &*bearer)];
            let called = grpc.call_with(path, Bytes::new(), &metadata);
            let refused = soon("a refusal", called).await.unwrap_err();
            // Whatever the client makes of a line that is cut; the server says why with each of its own.
            assert!(
                refused.reason.is_empty() && refused.domain.is_empty(),
                "{mode}, {why}: {refused:?}"
            );
        }
        assert_eq!(world.process.terminate().await, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_beside_a_certificate_says_who_calls_and_a_bad_one_is_not_made_good_by_it() {
    let world = World::start("jwt+mtls").await;
    let name = world.started("p").await;
    let viewer = world.client(email("viewer@example.com"));
    let operator = world.client(email("operator@example.com"));
    assert_eq!(world.may(&viewer, &name).await, ["ok", DENIED]);
    let cancel = async |pair: &Pair, token: &str| {
        let ask = Ask::post(format!("/v1/{name}:cancel"));
        let ask = ask.header("authorization", format!("Bearer {token}"));
        let http = world.http(Some(pair), ask).await.unwrap();
        let message = Bytes::from(GetOperationRequest { name: name.clone() }.encode_to_vec());
        let bearer = format!("Bearer {token}");
        let grpc = world.grpc(Some(pair));
        let path = "/google.longrunning.Operations/CancelOperation";
        let grpc = grpc.call_with(path, message, &[("authorization", &*bearer)]).await;
        assert_eq!(http.code == 200, grpc.is_ok());
        grpc.map(drop).map_err(|failure| failure.reason)
    };
    let token = |who: &str| world.issuer.sign(&claims(who));
    assert_eq!(cancel(&viewer, &token("operator")).await, Ok(()));
    assert_eq!(cancel(&operator, &token("viewer")).await, Err(DENIED.to_owned()));
    let mut old = claims("operator");
    old["exp"] = json!(now() - 3_600);
    let expired = world.issuer.sign(&old);
    assert_eq!(cancel(&operator, &expired).await, Err("ACCESS_TOKEN_EXPIRED".to_owned()));
    let forged = Signer::new("k1").sign(&claims("operator"));
    for bad in [forged.as_str(), "nonsense"] {
        let said = cancel(&operator, bad).await;
        assert_eq!(said, Err("ACCESS_TOKEN_TYPE_UNSUPPORTED".to_owned()));
    }
    assert_eq!(world.process.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_may_outlive_its_certificate_but_what_it_may_do_does_not() {
    let world = World::start("mtls").await;
    let name = world.started("p").await;
    let names = email("viewer@example.com");
    let pair = world.ours.client_until("brief", names, now() + 3);
    let grpc = world.grpc(Some(&pair));
    let message = Bytes::from(GetOperationRequest { name: name.clone() }.encode_to_vec());
    let path = "/google.longrunning.Operations/GetOperation";
    grpc.call_bytes(path, message.clone(), None).await.unwrap();
    let ended = async {
        loop {
            if let Err(failure) = grpc.call_bytes(path, message.clone(), None).await {
                return failure;
            }
            // tidy: sleep: a pause between two looks; the caller has a deadline
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let failure = soon("the end of what it may do", ended).await;
    failure.is("UNAUTHENTICATED", "ACCESS_TOKEN_EXPIRED");
    assert_eq!(world.process.terminate().await, Some(0));
}
