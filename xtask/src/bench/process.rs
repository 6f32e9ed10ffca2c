//! The processes measured: started here, ended here by their own handle. Owns processor accounting
//! from /proc.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use http::HeaderValue;

use super::load::now;
use super::setting::Setting;
use super::{Error, Result};

/// How long a server may take until it listens.
const START_MAX: Duration = Duration::from_secs(20);
/// Ticks per second in /proc; the same on every Linux that matters.
const TICKS: f64 = 100.0;

/// A server process. Killed and waited for when dropped.
pub(super) struct Server {
    child: Child,
    pub address: SocketAddr,
    /// What clients show with each call.
    pub authorization: Option<HeaderValue>,
}

impl Server {
    /// Starts the release binary on a data folder, as its users do, and waits until it listens.
    pub async fn longhaul(binary: &Path, folder: &Path, setting: Setting) -> Result<Self> {
        let config = folder.join("bench.toml");
        let port_file = folder.join("port");
        let data = folder.join("data");
        // Of an earlier server on this folder.
        if port_file.exists() {
            std::fs::remove_file(&port_file)?;
        }
        let prepared = setting.prepare(folder)?;
        std::fs::write(
            &config,
            format!(
                "listen = \"127.0.0.1:0\"\ndata = {:?}\n\n[[api]]\nbundle = \"clouddeploy\"\n\n{}",
                data.display().to_string(),
                prepared.configuration
            ),
        )?;
        let log = std::fs::File::create(folder.join("log"))?;
        let child = Command::new(binary)
            .arg("serve")
            .arg("-c")
            .arg(&config)
            .arg("--port-file")
            .arg(&port_file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| {
                Error::from(format!(
                    "cannot start {}: {error}; build it with cargo build --release -p longhaul",
                    binary.display()
                ))
            })?;
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Self { child, address, authorization: prepared.authorization };
        let deadline = now() + START_MAX;
        loop {
            if let Ok(text) = std::fs::read_to_string(&port_file)
                && let Ok(port) = text.trim().parse()
            {
                server.address.set_port(port);
                return Ok(server);
            }
            if let Some(status) = server.child.try_wait()? {
                let log = std::fs::read_to_string(folder.join("log"))?;
                return Err(format!("the server ended at once ({status}): {log}").into());
            }
            if now() > deadline {
                return Err("the server does not listen after 20 s".into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Starts this program again as the hello-world server; its first line is its port.
    pub fn hello() -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(super::HELLO_COMMAND)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let out = child.stdout.take().expect("stdout is piped just above");
        let read = BufReader::new(out).read_line(&mut line);
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Self { child, address, authorization: None };
        read?;
        server.address.set_port(line.trim().parse()?);
        Ok(server)
    }

    /// Accounts for this server's processor time.
    pub fn meter(&self) -> Meter {
        Meter { server: Some(self.child.id()) }
    }

    /// Most memory it ever held, in KiB.
    pub fn peak_kib(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        Ok(number.ok_or("no VmHWM in /proc")?.parse()?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The handle is ours until the child is waited for: its id cannot belong to another process.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads processor time.
pub(super) struct Meter {
    server: Option<u32>,
}

/// Cores that other programs use, listening for `span`.
pub(super) async fn busy_others(span: Duration) -> Result<f64> {
    let meter = Meter::of_nobody();
    let before = meter.read()?;
    tokio::time::sleep(span).await;
    Ok(meter.read()?.since(&before).others() / span.as_secs_f64())
}

/// Processor seconds of the server, of this program, and of everybody.
#[derive(Clone, Copy, Default)]
pub(super) struct Cpu {
    pub server: f64,
    pub bench: f64,
    pub all: f64,
}

impl Cpu {
    /// What was used since `before`.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            server: self.server - before.server,
            bench: self.bench - before.bench,
            all: self.all - before.all,
        }
    }

    /// Both together.
    pub fn and(&self, more: Self) -> Self {
        Self {
            server: self.server + more.server,
            bench: self.bench + more.bench,
            all: self.all + more.all,
        }
    }

    /// What neither the server nor this program used.
    pub fn others(&self) -> f64 {
        (self.all - self.server - self.bench).max(0.0)
    }
}

impl Meter {
    /// Accounts for no server.
    pub fn of_nobody() -> Self {
        Self { server: None }
    }

    pub fn read(&self) -> Result<Cpu> {
        let all = std::fs::read_to_string("/proc/stat")?;
        let first = all.lines().next().ok_or("/proc/stat is empty")?;
        let fields: Vec<f64> = first.split_whitespace().filter_map(|f| f.parse().ok()).collect();
        let [user, nice, system, _, _, irq, softirq, ..] = fields[..] else {
            return Err("/proc/stat has an unknown form".into());
        };
        Ok(Cpu {
            server: self.server.map_or(Ok(0.0), |id| used(&format!("/proc/{id}/stat")))?,
            bench: used("/proc/self/stat")?,
            all: (user + nice + system + irq + softirq) / TICKS,
        })
    }
}

/// User and system seconds of a process. The name in brackets may hold anything: read after it.
fn used(path: &str) -> Result<f64> {
    let text = std::fs::read_to_string(path)?;
    let rest = text.rsplit(')').next().unwrap_or_default();
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let user: f64 = fields.get(11).ok_or("no user time")?.parse()?;
    let system: f64 = fields.get(12).ok_or("no system time")?.parse()?;
    Ok((user + system) / TICKS)
}
