//! A PostgreSQL of one's own: made in a folder that is gone at the end, on a free port of the loopback
//! address, never as root, with `fsync` on. Ended by its own process id.

use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Who owns the database.
pub(super) const USER: &str = "longhaul";
/// How long it may take until it answers: after a crash it reads its log first.
const READY_TRIES: usize = 600;
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A PostgreSQL that runs; ends with its value.
pub(crate) struct Postgres {
    programs: PathBuf,
    /// The uid and gid that it runs as, where that is not ours.
    other: Option<(u32, u32)>,
    folder: TempDir,
    port: u16,
    server: Option<Child>,
}

impl Postgres {
    /// Makes one and waits until it answers. `None` where PostgreSQL is not installed.
    pub async fn begin() -> Result<Option<Self>, Error> {
        let Some(programs) = programs() else { return Ok(None) };
        let folder = tempfile::Builder::new().prefix("longhaul-postgres-").tempdir()?;
        let other = someone_else_than_root()?;
        if let Some((uid, gid)) = other {
            chown(folder.path(), Some(uid), Some(gid))?;
        }
        super::tls::write(folder.path(), other)?;
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let mut postgres = Self { programs, other, folder, port, server: None };
        let data = postgres.data();
        let made = postgres
            .command("initdb")
            .args([
                "--auth=trust",
                "--no-locale",
                "--encoding=UTF8",
                "--username",
                USER,
                "--pgdata",
            ])
            .arg(data)
            .output()?;
        if !made.status.success() {
            return Err(format!("initdb: {}", String::from_utf8_lossy(&made.stderr)).into());
        }
        postgres.start().await?;
        Ok(Some(postgres))
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder with `ca.pem`, which has signed its certificate, and `other-ca.pem`, which has not.
    pub fn authorities(&self) -> &Path {
        self.folder.path()
    }

    /// Makes an empty database.
    pub fn create(&self, name: &str) -> Result<(), Error> {
        let output = self.client("createdb").arg(name).output()?;
        if !output.status.success() {
            return Err(format!("createdb: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        Ok(())
    }

    /// Starts it, also after a crash, and waits until it answers.
    pub async fn start(&mut self) -> Result<(), Error> {
        for _ in 0..READY_TRIES {
            let running = match &mut self.server {
                Some(server) => server.try_wait()?.is_none(),
                None => false,
            };
            if !running {
                // After kill -9 it refuses to start until the last of its children has gone.
                self.server = Some(self.spawn()?);
            }
            tokio::time::sleep(LOOK_EVERY).await;
            let asked = self.client("psql").args(["-qAtc", "SELECT 1", "postgres"]).output()?;
            if asked.status.success() {
                return Ok(());
            }
        }
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        Err(format!("PostgreSQL does not start: {log}").into())
    }

    /// Ends it as `kill -9` does. Its children follow by themselves.
    pub async fn kill_9(&mut self) -> Result<(), Error> {
        if let Some(mut server) = self.server.take() {
            server.kill()?;
            server.wait()?;
        }
        Ok(())
    }

    fn spawn(&self) -> Result<Child, Error> {
        let log = self.folder.path().join("log");
        let log = std::fs::File::options().create(true).append(true).open(log)?;
        let sockets = self.folder.path().display().to_string();
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        for setting in [
            "listen_addresses=127.0.0.1".to_owned(),
            format!("port={}", self.port),
            format!("unix_socket_directories={sockets}"),
            "fsync=on".to_owned(),
            "ssl=on".to_owned(),
            format!("ssl_cert_file={}", self.folder.path().join("server.pem").display()),
            format!("ssl_key_file={}", self.folder.path().join("server.key").display()),
            "max_connections=300".to_owned(),
        ] {
            command.arg("-c").arg(setting);
        }
        Ok(command.spawn()?)
    }

    fn client(&self, program: &str) -> Command {
        let mut command = self.command(program);
        command.env("PGHOST", "127.0.0.1").env("PGPORT", self.port.to_string()).env("PGUSER", USER);
        command
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir(self.folder.path());
        if let Some((uid, gid)) = self.other {
            command.uid(uid).gid(gid);
        }
        command
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        // At once: what it would write before its end goes with the folder, and takes it a minute after a suite.
        // pg_ctl sends the signal to the process of this folder only.
        let data = self.data();
        let asked =
            self.command("pg_ctl").args(["stop", "-m", "immediate", "-s", "-D"]).arg(data).status();
        if !asked.is_ok_and(|status| status.success()) {
            let _ = server.kill();
        }
        let _ = server.wait();
    }
}

/// How a server reaches a database behind a port of the loopback address, as it is measured: without TLS.
pub(crate) fn url_by(port: u16, name: &str) -> String {
    format!("postgres://{USER}@127.0.0.1:{port}/{name}?sslmode=disable")
}

/// Where PostgreSQL's programs are: on the path, or where Debian keeps them, the newest first.
fn programs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).collect::<Vec<_>>();
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.parse().ok()?;
            Some((number, entry.path().join("bin")))
        })
        .collect();
    versions.sort_unstable();
    let installed = versions.into_iter().rev().map(|(_, folder)| folder);
    let whole = |folder: &PathBuf| {
        ["initdb", "postgres", "pg_ctl", "psql", "createdb"]
            .iter()
            .all(|program| folder.join(program).is_file())
    };
    on_path.into_iter().chain(installed).find(whole)
}

/// Whom to run PostgreSQL's programs as where we are root, which they refuse to be.
pub(super) fn someone_else_than_root() -> Result<Option<(u32, u32)>, Error> {
    is_root().then(someone_else).transpose()
}

fn is_root() -> bool {
    // The owner of a process's own entry is whom it runs as.
    std::fs::metadata("/proc/self").is_ok_and(|entry| entry.uid() == 0)
}

/// PostgreSQL refuses to run as root: its own user where there is one, else nobody.
fn someone_else() -> Result<(u32, u32), Error> {
    let users = std::fs::read_to_string(Path::new("/etc/passwd"))?;
    let find = |wanted: &str| {
        users.lines().find_map(|line| {
            let fields: Vec<_> = line.split(':').collect();
            let [name, _, uid, gid, ..] = fields[..] else { return None };
            (name == wanted).then_some((uid.parse().ok()?, gid.parse().ok()?))
        })
    };
    let found = find("postgres").or_else(|| find("nobody"));
    found.ok_or_else(|| "PostgreSQL does not run as root, and there is no other user".into())
}
