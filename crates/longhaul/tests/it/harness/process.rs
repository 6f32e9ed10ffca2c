//! The `longhaul` binary as a child process, for what only a process can show: being killed.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::soon;

/// How often a file that another process writes is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// A running server. Killed when dropped.
pub struct Process {
    /// Where it listens.
    pub address: SocketAddr,
    child: Child,
    _scratch: TempDir,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to its error stream.
    pub errors: String,
}

impl Process {
    /// Starts `longhaul dev` on `folder` and waits until it says where it listens.
    pub async fn dev(folder: &Path, arguments: &[&str]) -> Self {
        let scratch = TempDir::new().unwrap();
        let port_file = scratch.path().join("port");
        Self::start(dev_command(folder, &port_file, arguments), port_file, scratch).await
    }

    /// Starts `longhaul dev` in `folder`, with everything in memory there, and gives what it says to people.
    pub async fn dev_in(folder: &Path, arguments: &[&str]) -> (Self, String) {
        let scratch = TempDir::new().unwrap();
        let (port_file, said) = (scratch.path().join("port"), scratch.path().join("said"));
        let mut command = alone(command());
        let port = if arguments.contains(&"--port") { &[][..] } else { &["--port", "0"] };
        command.arg("dev").args(port).arg("--port-file").arg(&port_file).args(arguments);
        command.current_dir(folder).stdout(std::fs::File::create(&said).unwrap());
        let process = Self::start(command, port_file, scratch).await;
        let whole = async {
            loop {
                let text = tokio::fs::read_to_string(&said).await.unwrap();
                if text.contains("operations list") {
                    return text;
                }
                // tidy: sleep: a pause between two looks at a file; the caller has a deadline
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let said = soon("the banner", whole).await;
        (process, said)
    }

    /// Runs `longhaul dev` in `folder` where it is expected to give up by itself.
    pub async fn dev_in_fails(folder: &Path, arguments: &[&str]) -> Ended {
        let mut command = alone(command());
        command.arg("dev").args(arguments).current_dir(folder).stderr(Stdio::piped());
        let output = soon("the end of the server", command.output()).await.unwrap();
        Ended {
            code: output.status.code(),
            errors: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Starts `longhaul serve` with this configuration and waits until it says where it listens. Nobody is
    /// asked who they are, unless the configuration says so.
    pub async fn serve(configuration: &str) -> Self {
        Self::serve_until(configuration, "").await
    }

    /// The same, with a failpoint at which it ends by itself; empty for none.
    pub async fn serve_until(configuration: &str, failpoint: &str) -> Self {
        let scratch = TempDir::new().unwrap();
        let (file, port_file) = (scratch.path().join("longhaul.toml"), scratch.path().join("port"));
        let mode = "\n[auth]\nmode = \"off\"\n";
        let mode = if configuration.contains("[auth]") { "" } else { mode };
        std::fs::write(&file, format!("{configuration}{mode}")).unwrap();
        let mut command = command();
        if !failpoint.is_empty() {
            // What it says when it ends is no news to a test that wanted that.
            command.env("LONGHAUL_FAILPOINT", failpoint).stderr(Stdio::null());
        }
        command.args(["serve", "--log", "warn", "-c"]).arg(file).arg("--port-file").arg(&port_file);
        Self::start(command, port_file, scratch).await
    }

    /// The same in an environment of its own; what it logs is thrown away.
    pub async fn serve_in(configuration: &str, environment: &[(&str, &std::ffi::OsStr)]) -> Self {
        let scratch = TempDir::new().unwrap();
        let (file, port_file) = (scratch.path().join("longhaul.toml"), scratch.path().join("port"));
        std::fs::write(&file, configuration).unwrap();
        let mut command = command();
        // What it says of a disk that is made to be full is no news to the test.
        command.envs(environment.iter().copied()).stderr(Stdio::null());
        command.args(["serve", "-c"]).arg(file).arg("--port-file").arg(&port_file);
        Self::start(command, port_file, scratch).await
    }

    /// The same, logging everything there is to say: to `log` with `.out` and `.err` added.
    pub async fn serve_logged(
        configuration: &str,
        log: &Path,
        environment: &[(&str, &std::ffi::OsStr)],
    ) -> Self {
        let scratch = TempDir::new().unwrap();
        let (file, port_file) = (scratch.path().join("longhaul.toml"), scratch.path().join("port"));
        std::fs::write(&file, configuration).unwrap();
        let open = |end: &str| std::fs::File::create(log.with_extension(end)).unwrap();
        let mut command = command();
        command.envs(environment.iter().copied()).stdout(open("out")).stderr(open("err"));
        command
            .args(["serve", "--log", "trace", "-c"])
            .arg(file)
            .arg("--port-file")
            .arg(&port_file);
        Self::start(command, port_file, scratch).await
    }

    async fn start(mut command: Command, port_file: PathBuf, scratch: TempDir) -> Self {
        let mut child = command.spawn().unwrap();
        let address = tokio::select! {
            address = soon("the port file", port_in(port_file)) => address,
            ended = child.wait() => panic!("it ended before it listened: {ended:?}"),
        };
        Self { address, child, _scratch: scratch }
    }

    /// Runs `longhaul dev` where it is expected to give up by itself.
    pub async fn dev_that_fails(folder: &Path) -> Ended {
        let scratch = TempDir::new().unwrap();
        let mut command = dev_command(folder, &scratch.path().join("port"), &[]);
        let output = soon("the end of the second server", command.output()).await.unwrap();
        Ended {
            code: output.status.code(),
            errors: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs a command of the binary to its end, or kills it after a while.
    pub async fn run(arguments: &[&str], kill_after: Option<Duration>) -> Ended {
        let mut command = command();
        let mut child = command.args(arguments).stderr(Stdio::piped()).spawn().unwrap();
        if let Some(span) = kill_after {
            tokio::select! {
                ended = child.wait() => drop(ended.unwrap()),
                // tidy: sleep: the kill has to come at some moment of the command's life
                () = tokio::time::sleep(span) => child.start_kill().unwrap(),
            }
        }
        let output = child.wait_with_output().await.unwrap();
        Ended {
            code: output.status.code(),
            errors: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Ends it as `kill -9` does and waits until the system has taken it away.
    pub async fn kill(mut self) {
        self.child.start_kill().unwrap();
        self.child.wait().await.unwrap();
    }

    /// Waits until it has ended by itself.
    pub async fn died(mut self) {
        let ended =
            soon("the end of the server at its failpoint", self.child.wait()).await.unwrap();
        assert_eq!(ended.code(), None, "it was not killed: {ended}");
    }

    /// Asks it to end as a service manager does, and says how it went.
    pub async fn terminate(mut self) -> Option<i32> {
        let pid = self.child.id().expect("it has not been waited for").to_string();
        let asked = Command::new("kill").args(["-TERM", &pid]).status().await.unwrap();
        assert!(asked.success(), "kill -TERM {pid}: {asked}");
        soon("the end of the server", self.child.wait()).await.unwrap().code()
    }
}

fn dev_command(folder: &Path, port_file: &Path, arguments: &[&str]) -> Command {
    let mut command = command();
    command.args(["dev", "--port", "0", "--port-file"]).arg(port_file);
    command.arg("--data").arg(folder).args(arguments);
    command
}

/// Without what the environment of the tests says of servers and identities.
fn alone(mut command: Command) -> Command {
    for name in ["PORT", "AUTH_DIR", "TLS_DIR", "PROJECT", "SERVER", "TOKEN_FILE", "CA_FILE"] {
        command.env_remove(format!("LONGHAUL_{name}"));
    }
    command
}

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longhaul"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    command
}

async fn port_in(file: PathBuf) -> SocketAddr {
    loop {
        if let Ok(text) = tokio::fs::read_to_string(&file).await
            && let Ok(port) = text.trim().parse()
        {
            return SocketAddr::from(([127, 0, 0, 1], port));
        }
        // tidy: sleep: a pause between two looks at a file; the caller has a deadline
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
