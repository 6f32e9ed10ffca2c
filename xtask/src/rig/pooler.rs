//! A PgBouncer of one's own before a PostgreSQL of one's own: it gives a connection to a transaction, and to
//! somebody else after it. Ended by its own process id.

use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::postgres::{USER, someone_else_than_root};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Connections to the database: few, so that hardly two transactions of a caller in turn get the same one.
const CONNECTIONS: u32 = 8;
const READY_TRIES: usize = 200;
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A pooler that runs; ends with its value.
pub(crate) struct Pooler {
    port: u16,
    server: Child,
    folder: TempDir,
}

impl Pooler {
    /// Starts one before the database at `port` and waits until it listens. `None` where PgBouncer is not
    /// installed.
    pub async fn begin(port: u16) -> Result<Option<Self>, Error> {
        let Some(program) = program() else { return Ok(None) };
        let folder = tempfile::Builder::new().prefix("longhaul-pooler-").tempdir()?;
        let own = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let (config, users) = (folder.path().join("pooler.ini"), folder.path().join("users"));
        std::fs::write(&users, format!("\"{USER}\" \"\"\n"))?;
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {own}\nunix_socket_dir =\nauth_type = trust\nauth_file = {}\n\
             pool_mode = transaction\nmax_client_conn = 1000\ndefault_pool_size = {CONNECTIONS}\n",
            users.display()
        );
        std::fs::write(&config, text)?;
        let log = std::fs::File::create(folder.path().join("log"))?;
        let mut command = Command::new(program);
        command.arg(&config).current_dir(folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        if let Some((uid, gid)) = someone_else_than_root()? {
            for path in [folder.path(), &config, &users] {
                chown(path, Some(uid), Some(gid))?;
            }
            command.uid(uid).gid(gid);
        }
        let mut pooler = Self { port: own, server: command.spawn()?, folder };
        for _ in 0..READY_TRIES {
            if TcpStream::connect(("127.0.0.1", own)).await.is_ok() {
                return Ok(Some(pooler));
            }
            if pooler.server.try_wait()?.is_some() {
                break;
            }
            sleep(LOOK_EVERY).await;
        }
        let log = pooler.folder.path().join("log");
        Err(format!("PgBouncer does not start: {}", std::fs::read_to_string(log)?).into())
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// On the path, or where Debian keeps it, which is not on everybody's path.
fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<_> = std::env::split_paths(&path).collect();
    folders.push("/usr/sbin".into());
    folders.into_iter().map(|folder| folder.join("pgbouncer")).find(|file| file.is_file())
}
