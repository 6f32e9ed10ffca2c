//! The servers of a run: processes of the longhaul binary on one store, started, killed and started again.
//! Each is ended by its own handle.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use super::{LEASE, Result};

/// How long a server may take until it listens.
const START_MAX: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// One server's place: what it needs to start, and the process while there is one.
pub(super) struct Place {
    binary: PathBuf,
    config: PathBuf,
    port_file: PathBuf,
    log: PathBuf,
    running: Option<(Child, SocketAddr)>,
}

impl Place {
    /// Prepares a server in `folder`; `store` is the part of its configuration that says where to keep
    /// operations.
    pub fn new(binary: &Path, folder: &Path, number: usize, store: &str) -> Result<Self> {
        let api = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/chaos/api");
        let file = |name: &str| api.join(name).display().to_string();
        let config = folder.join(format!("server-{number}.toml"));
        let text = format!(
            "listen = \"127.0.0.1:0\"\n{store}\n\
             [[api]]\nproto = {:?}\nservice_config = {:?}\nsettings = {:?}\n\
             [workers]\nlease = \"{}s\"\n[auth]\nmode = \"off\"\n",
            file(""),
            file("service.yaml"),
            file("settings.yaml"),
            LEASE.as_secs(),
        );
        std::fs::write(&config, text)?;
        Ok(Self {
            binary: binary.to_owned(),
            config,
            port_file: folder.join(format!("server-{number}.port")),
            log: folder.join(format!("server-{number}.log")),
            running: None,
        })
    }

    /// Starts it and waits until it listens.
    pub async fn start(&mut self) -> Result<SocketAddr> {
        let _ = std::fs::remove_file(&self.port_file);
        let log = std::fs::File::options().create(true).append(true).open(&self.log)?;
        let mut child = Command::new(&self.binary)
            .args(["serve", "--log", "warn", "-c"])
            .arg(&self.config)
            .arg("--port-file")
            .arg(&self.port_file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", self.binary.display()))?;
        let until = now() + START_MAX;
        loop {
            if let Ok(text) = std::fs::read_to_string(&self.port_file)
                && let Ok(port) = text.trim().parse()
            {
                let address = SocketAddr::from(([127, 0, 0, 1], port));
                self.running = Some((child, address));
                return Ok(address);
            }
            if let Some(status) = child.try_wait()? {
                return Err(
                    format!("a server ended by itself ({status}): {}", self.log_end()).into()
                );
            }
            if now() > until {
                return Err(format!("a server does not listen: {}", self.log_end()).into());
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Where it listens, while it runs.
    pub fn address(&self) -> Option<SocketAddr> {
        self.running.as_ref().map(|(_, address)| *address)
    }

    /// Ends it as `kill -9` does, and waits until the system has taken it away.
    pub async fn kill(&mut self) -> Result<()> {
        if let Some((mut child, _)) = self.running.take() {
            child.start_kill()?;
            child.wait().await?;
        }
        Ok(())
    }

    /// Whether it still runs, though nobody has killed it.
    pub fn lives(&mut self) -> Result<bool> {
        Ok(match &mut self.running {
            Some((child, _)) => child.try_wait()?.is_none(),
            None => false,
        })
    }

    /// Whether its log tells of a panic.
    pub fn panicked(&self) -> bool {
        std::fs::read_to_string(&self.log).is_ok_and(|text| text.contains("panicked at"))
    }

    fn log_end(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(10).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

#[allow(clippy::disallowed_methods, reason = "a run of chaos measures real time")]
fn now() -> Instant {
    Instant::now()
}
