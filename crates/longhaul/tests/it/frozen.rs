//! A real worker process that is stopped in its tracks (SIGSTOP) while it holds an operation.
//!
//! The worker is written in bash with nothing but its own sockets, so that it hides nothing and needs nothing.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use longhaul_wire::v1::{self, Effects};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::harness::client::Wire;
use crate::harness::{Kept, Place, Server, acme, soon};

/// Claims one operation and renews it until it is told anything but to go on; then says all the same that it
/// has succeeded. What it hears is in the folder: `held`, `told`, `late`.
const WORKER: &str = r#"
post() {
  exec 5<>"/dev/tcp/127.0.0.1/$PORT"
  printf 'POST /longhaul/v1/leases:%s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s' "$1" "${#2}" "$2" >&5
  answer="$(cat <&5)"
  exec 5<&-
}
report() { post report '{"worker":"frozen","items":[{"operation":"'"$name"'","epoch":"'"$epoch"'","lease":"'"$LEASE"'"'"$1"'}]}'; }
field() { grep -oE "\"$1\": *\"[^\"]*\"" <<<"$answer" | head -n 1 | cut -d '"' -f 4; }
post claim '{"worker":"frozen","wait":"10s","lease":"'"$LEASE"'"}'
name="$(field operation)" epoch="$(field epoch)" action=CONTINUE
while [[ $action == CONTINUE ]]; do
  report ''
  action="$(field action)"
  [[ -e held ]] || { echo "$name" >new && mv new held; }
done
echo "${answer#*$'\r\n\r\n'}" >new && mv new told
report ',"response":{"@type":"type.googleapis.com/'"$RESPONSE"'"}'
echo "${answer#*$'\r\n\r\n'}" >new && mv new late
"#;

/// The worker's process group, ended when dropped.
struct Frozen {
    child: Child,
    folder: TempDir,
}

impl Frozen {
    fn start(server: &Server, lease: &str, response: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let mut command = Command::new("bash");
        command.args(["-c", WORKER]).current_dir(folder.path()).process_group(0);
        command.env("PORT", server.address.port().to_string());
        command.env("LEASE", lease).env("RESPONSE", response);
        command.stdin(Stdio::null()).kill_on_drop(true);
        Self { child: command.spawn().unwrap(), folder }
    }

    /// Sends a signal to all of it.
    fn signal(&self, signal: &str) {
        let group = format!("-{}", self.child.id().expect("it has not been waited for"));
        let sent = std::process::Command::new("kill").args(["-s", signal, "--", &group]).status();
        assert!(sent.unwrap().success(), "kill -{signal} {group}");
    }

    /// What it has written to a file.
    async fn written(&self, name: &str) -> String {
        let file = self.folder.path().join(name);
        soon("what the worker writes", read_when_there(&file)).await
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if self.child.id().is_some() {
            self.signal("KILL");
        }
    }
}

async fn read_when_there(file: &Path) -> String {
    loop {
        if let Ok(text) = tokio::fs::read_to_string(file).await {
            return text;
        }
        // tidy: sleep: a pause between two looks at a file; the caller has a deadline
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Freezes a worker, cancels what it holds, and thaws it when that is done. `bound` is the longest time that
/// the cancel may take.
#[track_caller]
fn check(
    place: &Place,
    lease: &str,
    response: &str,
    bound: Duration,
    started: impl Future<Output = String>,
) -> impl Future<Output = ()> {
    let worker = Frozen::start(&place.server, lease, response);
    async move {
        let name = started.await;
        assert_eq!(worker.written("held").await.trim(), name);
        worker.signal("STOP");
        let operators = place.operators();
        operators.cancel(&name, "the worker is frozen").await;
        let ended = |detail: &v1::OperationDetail| detail.state() == v1::State::Done;
        let ended = operators.described(&name, ended).await;
        assert_eq!(ended.error.as_ref().map(|error| error.code), Some(1), "{ended:?}");
        assert_eq!(ended.effects(), Effects::Unknown);
        let moment = |at: Option<prost_types::Timestamp>| {
            let at = at.expect("the moment is known");
            Duration::new(at.seconds as u64, at.nanos as u32)
        };
        let took = moment(ended.end_time) - moment(ended.cancel.as_ref().unwrap().request_time);
        assert!(took <= bound, "{took:?}");

        worker.signal("CONT");
        for file in ["told", "late"] {
            let answer = worker.written(file).await;
            let answer: Value = serde_json::from_str(&answer).expect(&answer);
            let result = &answer["results"][0];
            assert_eq!(result["error"]["reason"], "LEASE_LOST", "{file}: {answer}");
            assert_eq!(result["desired"]["action"], "STOP", "{file}: {answer}");
            assert_eq!(result["desired"]["reason"], "DONE", "{file}: {answer}");
        }
        assert_eq!(operators.describe(&name).await, ended, "what came late changed nothing");
    }
}

/// More than the machine needs to notice that a moment has come, however busy it is.
const SLACK: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread")]
async fn peers_11_a_frozen_process_is_given_up_with_its_lease() {
    for kept in [Kept::InMemory, Kept::OnDisk] {
        let server = Arc::new(Server::with(kept, acme::load).await);
        let place = Place::on(server.clone(), Wire::Grpc);
        // Its cancel has a minute; its lease, which it renews without a pause, a second.
        let sample = &crate::harness::samples::DEPLOY;
        let client = place.client_of(sample);
        let started = async move { client.start("a").await.name };
        check(&place, "1s", sample.response_type, Duration::from_secs(1) + SLACK, started).await;
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_05_a_frozen_process_with_a_long_lease_is_given_up_at_the_cancels_deadline() {
    for kept in [Kept::InMemory, Kept::OnDisk] {
        let server = Arc::new(Server::with(kept, acme::load).await);
        let place = Place::on(server.clone(), Wire::Grpc);
        // Its cancel has a second.
        let started = acme::start(&place, "transcode");
        let bound = Duration::from_secs(1) + SLACK;
        check(&place, "600s", "acme.video.v1.Clip", bound, started).await;
        server.stop().await;
    }
}
