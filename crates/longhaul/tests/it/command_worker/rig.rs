//! A server, a `longhaul worker` process with a command written in bash, and eyes for every process
//! that came of it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use longhaul_server::Config;
use longhaul_server::config::ApiConfig;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::harness::{Ask, Kept, Seen, Server, soon};

const HOST: &str = "video.acme.example";
/// How often something that nobody announces is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(2);

static CLIPS: AtomicU32 = AtomicU32::new(1);

/// A server, and a folder that commands write to.
pub struct Rig {
    /// The server.
    pub server: Arc<Server>,
    folder: TempDir,
}

/// A running `longhaul worker`. Killed when dropped.
pub struct CommandWorker {
    child: Child,
}

/// How a worker is started beyond what every test needs.
pub struct Start<'a> {
    /// Methods of the API.
    pub methods: &'a [&'a str],
    /// Further flags.
    pub flags: &'a [&'a str],
    /// The command, as a script for bash. `$HERE` is the rig's folder.
    pub script: &'a str,
}

fn acme() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/acme")
}

impl Rig {
    /// A server with the API of the tests.
    pub async fn new() -> Self {
        let add = |config: &mut Config| {
            config.apis.push(ApiConfig {
                proto: Some(acme()),
                service_config: Some(acme().join("service.yaml")),
                settings: Some(acme().join("settings.yaml")),
                ..ApiConfig::default()
            });
        };
        let server = Arc::new(Server::with(Kept::InMemory, add).await);
        Self { server, folder: TempDir::new().unwrap() }
    }

    /// A file of the rig's folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A worker for one method and nothing else.
    pub fn worker(&self, method: &str, script: &str) -> CommandWorker {
        self.start_worker(&Start { methods: &[method], flags: &[], script })
    }

    /// A worker.
    pub fn start_worker(&self, start: &Start<'_>) -> CommandWorker {
        let mut command = Command::new(env!("CARGO_BIN_EXE_longhaul"));
        command.args(["worker", "--log", "warn", "--server"]);
        command.arg(format!("http://{}", self.server.address));
        command.arg("--proto").arg(acme()).arg("--service-config").arg(acme().join("service.yaml"));
        if !start.flags.contains(&"--checkpoint-dir") {
            command.arg("--checkpoint-dir").arg(self.file("checkpoints"));
        }
        for method in start.methods {
            command.args(["--method", method]);
        }
        command.args(start.flags).args(["--", "bash", "-c", start.script]);
        command.env("HERE", self.folder.path()).env("TRACEPARENT", "the worker's own");
        let log =
            std::fs::File::options().create(true).append(true).open(self.file("log")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
        CommandWorker { child: command.spawn().unwrap() }
    }

    /// Starts an operation and gives its name.
    pub async fn start(&self, verb: &str) -> String {
        self.start_as(verb, |ask| ask).await
    }

    /// The same, with a trace.
    pub async fn start_traced(&self, verb: &str, traceparent: &str) -> String {
        self.start_as(verb, |ask| ask.header("traceparent", traceparent)).await
    }

    async fn start_as(&self, verb: &str, change: impl FnOnce(Ask) -> Ask) -> String {
        let clip = format!("c{}", CLIPS.fetch_add(1, Ordering::Relaxed));
        let path = format!("/v1/projects/p/clips/{clip}:{verb}");
        let ask = change(Ask::post_json(path, &json!({ "codec": "av1" })));
        Seen::from_json(&self.send(ask).await).is_running().name.clone()
    }

    /// Asks for cancellation.
    pub async fn cancel(&self, name: &str) {
        let ask = Ask::post(format!("/v1/{name}:cancel")).host(HOST);
        ask.send(self.server.address).await.empty_object();
    }

    /// The operation once it is done.
    pub async fn done(&self, name: &str) -> Seen {
        loop {
            let ask = Ask::post_json(format!("/v1/{name}:wait"), &json!({ "timeout": "10s" }));
            let seen = Seen::from_json(&self.send(ask).await);
            if seen.done {
                return seen;
            }
        }
    }

    /// Everything that operators see of an operation.
    pub async fn describe(&self, name: &str) -> Value {
        let ask = Ask::get(format!("/longhaul/v1/{name}:describe"));
        ask.send(self.server.address).await.ok()
    }

    /// The same, once it is as wished.
    pub async fn described(&self, name: &str, wished: impl Fn(&Value) -> bool) -> Value {
        let wait = async {
            loop {
                let seen = self.describe(name).await;
                if wished(&seen) {
                    return seen;
                }
                // tidy: sleep: a pause between two looks at the server; the caller has a deadline
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        soon("the wished state", wait).await
    }

    async fn send(&self, ask: Ask) -> Value {
        ask.host(HOST).send(self.server.address).await.ok()
    }

    /// What a command wrote to a file, once it ends with a line's end.
    pub async fn written(&self, name: &str) -> String {
        self.written_with(name, "").await
    }

    /// The same, once these words are in it.
    pub async fn written_with(&self, name: &str, words: &str) -> String {
        let file = self.file(name);
        let wait = async {
            loop {
                match tokio::fs::read_to_string(&file).await {
                    Ok(text) if text.ends_with('\n') && text.contains(words) => return text,
                    Ok(_) | Err(_) => {}
                }
                // tidy: sleep: a pause between two looks at a file; the wait has a deadline
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        soon("what a command writes", wait).await
    }

    /// The number that a command wrote to a file.
    pub async fn number(&self, name: &str) -> i32 {
        self.written(name).await.trim().parse().unwrap()
    }
}

impl CommandWorker {
    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child.id().unwrap() as i32
    }

    /// Its supervisors.
    pub fn supervisors(&self) -> Vec<i32> {
        let me = format!("PPid:\t{}", self.pid());
        processes()
            .filter(|pid| {
                let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
                status.is_ok_and(|status| status.lines().any(|line| line == me))
            })
            .collect()
    }

    /// Ends it as `kill -9` does.
    pub async fn kill(mut self) {
        self.child.start_kill().unwrap();
        self.child.wait().await.unwrap();
    }

    /// Asks it to end and gives its exit code.
    pub async fn terminate(mut self) -> Option<i32> {
        send_signal(self.pid(), "TERM");
        soon("the end of the worker", self.child.wait()).await.unwrap().code()
    }
}

/// Sends a signal to one process.
pub fn send_signal(pid: i32, signal: &str) {
    let kill = ["-s", signal, &pid.to_string()].map(str::to_owned);
    let sent = std::process::Command::new("kill").args(kill).status().unwrap();
    assert!(sent.success(), "kill -{signal} {pid}: {sent}");
}

/// Every process, dead ones apart, that came of an operation, however it was forked.
pub fn left_of(name: &str) -> Vec<i32> {
    let mark = format!("LONGHAUL_OPERATION={name}");
    processes()
        .filter(|pid| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
        })
        .collect()
}

/// Returns when no process is left of an operation.
pub async fn nothing_left_of(name: &str) {
    let wait = async {
        while !left_of(name).is_empty() {
            // tidy: sleep: a pause between two looks at the processes; the wait has a deadline
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    soon("the end of every process", wait).await;
}

fn processes() -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The arguments of `longhaul worker` for a run that is expected to fail at once, and how it did.
pub async fn refused(arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longhaul"));
    command.arg("worker").args(arguments).kill_on_drop(true);
    let output = soon("the refusal", command.output()).await.unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}
