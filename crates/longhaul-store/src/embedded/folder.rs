//! The data folder: made with care, locked by one server, and refused when it is not what was left.
//!
//! Files: `operations.db` and SQLite's `-wal` and `-shm` beside it, and `lock`, whose first line is the
//! holder's process id and whose second line is the durability that the log was written with.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use longhaul_core::{Error, Reason};
use rusqlite::Connection;

use super::Durability;
use super::checkpoint::PAGE_BYTES;
use super::faults::{damaged, failed, not_opened};
use crate::schema::{APPLICATION_ID, FORMAT_VERSION, MetaKey, Table};

const LOCK: &str = "lock";
const MAIN: &str = "operations.db";

/// Where SQLite keeps `application_id` in the file's header. Source: sqlite.org, Database File Format.
const APPLICATION_ID_AT: usize = 68;
const HEADER_BYTES: usize = 100;
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// A data folder that only this process has open.
pub(super) struct Folder {
    pub main: PathBuf,
    pub log: PathBuf,
    /// How the server before this one wrote; `None` when there was none.
    pub durability_before: Option<Durability>,
    /// Locked until it is dropped.
    lock: File,
    lock_path: PathBuf,
}

impl Folder {
    /// Makes the folder if it is not there, and locks it. Fails with `STORE_IN_USE` when another process
    /// has it.
    pub fn lock(path: &Path) -> Result<Self, Error> {
        if !path.exists() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(|error| not_opened("make the data folder", path, error))?;
            if let Some(parent) = path.parent() {
                sync_folder(parent)?;
            }
        }
        let lock_path = path.join(LOCK);
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(|error| not_opened("open", &lock_path, error))?;
        let mut text = String::new();
        // Whatever cannot be read as text was not written by us, and says nothing.
        let _ = lock.read_to_string(&mut text);
        let mut lines = text.lines();
        let holder = lines.next().unwrap_or_default().to_owned();
        let durability_before = lines.next().and_then(Durability::parse);
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use(path, &holder)),
            Err(TryLockError::Error(error)) => {
                return Err(not_opened("lock", &lock_path, error));
            }
        }
        let mut folder = Self {
            main: path.join(MAIN),
            log: path.join(format!("{MAIN}-wal")),
            durability_before,
            lock,
            lock_path,
        };
        folder.write_note(durability_before)?;
        Ok(folder)
    }

    /// Notes how the log is written from now on. What was in it before must be in the main file.
    pub fn note(&mut self, durability: Durability) -> Result<(), Error> {
        self.write_note(Some(durability))
    }

    fn write_note(&mut self, durability: Option<Durability>) -> Result<(), Error> {
        let note = format!("{}\n{}\n", std::process::id(), durability.map_or("", Durability::name));
        let mut write = || {
            self.lock.seek(SeekFrom::Start(0))?;
            self.lock.set_len(0)?;
            self.lock.write_all(note.as_bytes())?;
            self.lock.sync_all()
        };
        write().map_err(|error| not_opened("write", &self.lock_path, error))
    }

    /// Makes the main file where there is none, and looks at it where there is one.
    pub fn prepare(&self) -> Result<(), Error> {
        let size = match std::fs::metadata(&self.main) {
            Ok(metadata) => Some(metadata.len()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(not_opened("look at", &self.main, error)),
        };
        match size {
            Some(_) => self.check_header(),
            None if self.log.exists() => {
                Err(damaged(&self.main, "it is missing, though its log is there"))
            }
            None => self.create(),
        }
    }

    fn check_header(&self) -> Result<(), Error> {
        let mut header = [0; HEADER_BYTES];
        let read = File::open(&self.main).and_then(|mut file| file.read_exact(&mut header));
        match read {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Err(damaged(&self.main, "it is cut off before the end of its header"));
            }
            Err(error) => return Err(not_opened("read", &self.main, error)),
        }
        if &header[..MAGIC.len()] != MAGIC {
            return Err(damaged(&self.main, "it does not begin as a store file does"));
        }
        let id = &header[APPLICATION_ID_AT..APPLICATION_ID_AT + 4];
        if id != APPLICATION_ID.to_be_bytes() {
            return Err(damaged(&self.main, "it is a database of another program"));
        }
        Ok(())
    }

    /// Makes an empty store under another name and then gives it its own: a crash leaves all or nothing.
    fn create(&self) -> Result<(), Error> {
        let new = self.main.with_extension("db.new");
        let io = |error| not_opened("make", &new, error);
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
            Ok(()) | Err(_) => {}
        }
        // SQLite gives its log the rights of the main file.
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(io)?;
        fill(&new).map_err(|error| failed(&new, error))?;
        File::open(&new).and_then(|file| file.sync_all()).map_err(io)?;
        std::fs::rename(&new, &self.main).map_err(io)?;
        sync_folder(self.main.parent().unwrap_or(Path::new(".")))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Said aloud: a child process that has been forked but not yet started may hold a copy of the file.
        if let Err(error) = self.lock.unlock() {
            tracing::warn!(error = %error, "the data folder could not be unlocked");
        }
    }
}

fn fill(path: &Path) -> rusqlite::Result<()> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    for table in Table::ALL {
        connection.execute(table.create(), [])?;
    }
    let put = "INSERT INTO meta (key, value) VALUES (?, ?)";
    connection.execute(put, (MetaKey::Format.name(), FORMAT_VERSION.to_string()))?;
    let random: Vec<u8> = connection.query_row("SELECT randomblob(32)", [], |row| row.get(0))?;
    connection.execute(put, (MetaKey::TokenKey.name(), random))?;
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    connection.close().map_err(|(_, error)| error)
}

fn sync_folder(path: &Path) -> Result<(), Error> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| not_opened("sync the folder", path, error))
}

fn in_use(path: &Path, holder: &str) -> Error {
    let folder = path.display();
    let who =
        if holder.is_empty() { "another process".into() } else { format!("process {holder}") };
    Error::new(
        Reason::StoreInUse,
        format!("the data folder {folder} is in use by {who}; stop it, or choose another folder"),
    )
    .with("folder", folder.to_string())
    .with("pid", holder)
}
