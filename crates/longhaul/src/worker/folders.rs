//! Checkpoint folders: one for each operation, kept between its attempts.
//!
//! A folder is as the last attempt left it if that attempt ran here; else it is empty but for the file
//! `checkpoint`, whose bytes travel with the operation. Beside each folder lies its lock, which the
//! supervisor of a command holds until nothing of the command is left, and which says who ran last; and, once
//! the command is to stop, the file that says why.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use longhaul_client::worker::Assignment;
use tokio::time::sleep;

/// The file whose bytes travel.
const FILE: &str = "checkpoint";
/// Bytes of it that do. Source: longhaul/v1/workers.proto, ReportItem.checkpoint.
pub const BYTES_MAX: u64 = 1 << 20;
/// A folder that no attempt has used for so long belongs to an operation that ended elsewhere.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// Bytes of a name in most file systems, less what is added.
const NAME_BYTES_MAX: usize = 240;
/// Pauses between two looks at a lock that another attempt holds.
const LOOKS: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));

/// Where the folders are.
#[derive(Clone, Debug)]
pub struct Folders {
    root: PathBuf,
}

/// The folder of one attempt.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    lock: PathBuf,
    why: PathBuf,
    epoch: u64,
    seen: Option<Stamp>,
    warned: bool,
}

/// Tells one content of a file from another.
type Stamp = (u64, u64, i64, i64);

impl Folders {
    /// Opens the place, which is made if need be, and clears out what nobody has used for a week.
    pub fn open(root: &Path) -> io::Result<Self> {
        make_folder(root)?;
        let folders = Self { root: fs::canonicalize(root)? };
        folders.prune()?;
        Ok(folders)
    }

    fn prune(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.root)?.flatten() {
            let lock = entry.path();
            let old = entry
                .metadata()
                .and_then(|about| about.modified())
                .is_ok_and(|modified| modified.elapsed().is_ok_and(|idle| idle > KEPT));
            if old
                && lock.extension().is_some_and(|extension| extension == "lock")
                && let Ok(file) = open_lock(&lock)
                && file.try_lock().is_ok()
            {
                remove(&lock.with_extension("d"), &lock);
            }
        }
        Ok(())
    }

    /// Takes the folder of an operation for this attempt. Waits for an earlier attempt to be gone from
    /// this machine altogether. May be dropped while it waits.
    pub async fn take(&self, assignment: &Assignment) -> io::Result<(Folder, File)> {
        let name = encode(&assignment.operation);
        let folder = Folder {
            path: self.root.join(format!("{name}.d")),
            lock: self.root.join(format!("{name}.lock")),
            why: self.root.join(format!("{name}.why")),
            epoch: assignment.epoch,
            seen: None,
            warned: false,
        };
        let mut pause = LOOKS.0;
        loop {
            let mut file = open_lock(&folder.lock)?;
            match file.try_lock() {
                // The holder before may have removed it on leaving.
                Ok(()) if is_at(&file, &folder.lock) => {
                    let folder = folder.prepare(&mut file, &assignment.checkpoint)?;
                    return Ok((folder, file));
                }
                Ok(()) => continue,
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error),
            }
            sleep(pause).await;
            pause = (pause * 2).min(LOOKS.1);
        }
    }
}

impl Folder {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file that says why the command is to stop; absent until then.
    pub fn why(&self) -> &Path {
        &self.why
    }

    /// Says why the command is to stop: a line each for the reason, who wants it, and what they said. Whoever
    /// reads the file finds all of it or none.
    pub fn say_why(&self, reason: &str, actor: &str, message: &str) -> io::Result<()> {
        let line = |text: &str| text.replace(|c: char| c.is_control(), " ");
        let text = format!("{reason}\n{}\n{}\n", line(actor), line(message));
        let half = self.why.with_extension("half");
        fs::write(&half, text)?;
        fs::rename(half, &self.why)
    }

    fn prepare(mut self, lock: &mut File, checkpoint: &[u8]) -> io::Result<Self> {
        remove_file(&self.why)?;
        let mut last = String::new();
        lock.read_to_string(&mut last)?;
        let ran_here = last.trim().parse::<u64>().is_ok_and(|last| last + 1 == self.epoch);
        if !(ran_here && self.path.is_dir()) {
            remove_folder(&self.path)?;
            make_folder(&self.path)?;
            if !checkpoint.is_empty() {
                fs::write(self.path.join(FILE), checkpoint)?;
            }
            self.seen = self.stamp();
        } else if !checkpoint.is_empty() || self.stamp().is_some() {
            // The last attempt may have gone on after its last report: the file is said again.
            self.seen = Some((0, 0, 0, 0));
        }
        lock.set_len(0)?;
        lock.rewind()?;
        lock.write_all(self.epoch.to_string().as_bytes())?;
        Ok(self)
    }

    /// The bytes of the checkpoint if they are not those of the last call; empty when the file is gone.
    pub fn changed(&mut self) -> Option<Vec<u8>> {
        let stamp = self.stamp();
        if stamp == self.seen {
            return None;
        }
        let Some((_, size, ..)) = stamp else {
            self.seen = None;
            return Some(Vec::new());
        };
        if size > BYTES_MAX {
            if !std::mem::replace(&mut self.warned, true) {
                let file = self.path.join(FILE);
                tracing::warn!(
                    file = %file.display(),
                    size,
                    "the checkpoint is larger than 1 MiB and stays on this machine"
                );
            }
            return None;
        }
        let mut bytes = Vec::new();
        let file = File::open(self.path.join(FILE)).ok()?;
        file.take(BYTES_MAX + 1).read_to_end(&mut bytes).ok()?;
        if bytes.len() as u64 > BYTES_MAX {
            return None;
        }
        // Taken before the file was read: a change meanwhile shows at the next call.
        self.seen = stamp;
        Some(bytes)
    }

    fn stamp(&self) -> Option<Stamp> {
        let about = fs::metadata(self.path.join(FILE)).ok().filter(Metadata::is_file)?;
        Some((about.ino(), about.len(), about.mtime(), about.mtime_nsec()))
    }

    /// Removes it: the operation is about to end. Leaves it to whoever may have taken it since.
    pub async fn remove(self) {
        let removed = tokio::task::spawn_blocking(move || {
            let Ok(mut file) = open_lock(&self.lock) else { return };
            let mut last = String::new();
            if file.try_lock().is_ok()
                && file.read_to_string(&mut last).is_ok()
                && last.trim() == self.epoch.to_string()
            {
                remove(&self.path, &self.lock);
            }
        });
        if let Err(error) = removed.await {
            tracing::warn!(%error, "a checkpoint folder could not be removed");
        }
    }
}

fn remove(folder: &Path, lock: &Path) {
    let why = lock.with_extension("why");
    let removed = remove_folder(folder).and_then(|()| remove_file(&why));
    let removed = removed.and_then(|()| fs::remove_file(lock));
    if let Err(error) = removed {
        tracing::warn!(folder = %folder.display(), %error, "a checkpoint folder could not be removed");
    }
}

fn remove_folder(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn remove_file(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// For its owner only: checkpoints may hold what requests hold.
fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn open_lock(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path)
}

fn is_at(file: &File, path: &Path) -> bool {
    let here = file.metadata().map(|about| (about.dev(), about.ino()));
    let there = fs::metadata(path).map(|about| (about.dev(), about.ino()));
    matches!((here, there), (Ok(here), Ok(there)) if here == there)
}

/// A file's name for an operation's: different for different operations.
fn encode(operation: &str) -> String {
    let mut name = String::new();
    for byte in operation.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => name.push(char::from(byte)),
            _ => name.push_str(&format!("%{byte:02X}")),
        }
    }
    if name.len() > NAME_BYTES_MAX {
        // FNV-1a, twice with different beginnings: 128 bits that no two operations share by chance.
        let hash = |start: u64| {
            operation
                .bytes()
                .fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
        };
        let (one, two) = (hash(0xcbf2_9ce4_8422_2325), hash(0x6c62_272e_07bb_0142));
        name = format!("{}-{one:016x}{two:016x}", &name[..NAME_BYTES_MAX - 40]);
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assignment(epoch: u64, checkpoint: &[u8]) -> Assignment {
        let operation = "projects/p/locations/l/operations/o".to_owned();
        Assignment { operation, epoch, checkpoint: checkpoint.to_vec(), ..Assignment::default() }
    }

    /// Takes the folder and gives what is in it.
    async fn take(folders: &Folders, epoch: u64, checkpoint: &[u8]) -> (Folder, File, Vec<String>) {
        let (folder, lock) = folders.take(&assignment(epoch, checkpoint)).await.unwrap();
        let names = fs::read_dir(folder.path()).unwrap();
        let mut names: Vec<_> =
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        (folder, lock, names)
    }

    #[tokio::test]
    async fn a_folder_stays_as_it_was_only_for_the_very_next_attempt() {
        let scratch = tempfile::tempdir().unwrap();
        let folders = Folders::open(scratch.path()).unwrap();
        let (mut folder, lock, names) = take(&folders, 1, b"").await;
        assert!(names.is_empty() && folder.changed().is_none());
        fs::write(folder.path().join("part"), "x").unwrap();
        fs::write(folder.path().join(FILE), "one").unwrap();
        assert_eq!(folder.changed(), Some(b"one".to_vec()));
        assert_eq!(folder.changed(), None);
        drop(lock);
        let (mut folder, lock, names) = take(&folders, 2, b"").await;
        assert_eq!(names, [FILE, "part"]);
        assert_eq!(folder.changed(), Some(b"one".to_vec()), "it may never have been reported");
        drop(lock);
        // The third attempt ran elsewhere.
        let (mut folder, lock, names) = take(&folders, 4, b"three").await;
        assert_eq!((names, folder.changed()), (vec![FILE.to_owned()], None));
        assert_eq!(fs::read(folder.path().join(FILE)).unwrap(), b"three");
        fs::remove_file(folder.path().join(FILE)).unwrap();
        assert_eq!(folder.changed(), Some(Vec::new()));
        drop(lock);
    }

    #[tokio::test]
    async fn an_attempt_waits_for_the_one_before_and_does_not_take_its_folder_away() {
        let scratch = tempfile::tempdir().unwrap();
        let folders = Folders::open(scratch.path()).unwrap();
        let (first, lock, _) = take(&folders, 1, b"").await;
        let next = assignment(2, b"");
        let mut second = Box::pin(folders.take(&next));
        let early = tokio::time::timeout(Duration::from_millis(30), &mut second).await;
        assert!(early.is_err(), "the first is still there");
        drop(lock);
        let (second, lock) = second.await.unwrap();
        drop(lock);
        first.remove().await;
        assert!(second.path().is_dir());
        second.remove().await;
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn why_is_said_in_three_lines_and_only_to_the_attempt_that_it_concerns() {
        let scratch = tempfile::tempdir().unwrap();
        let folders = Folders::open(scratch.path()).unwrap();
        let (folder, lock, _) = take(&folders, 1, b"").await;
        assert!(!folder.why().exists());
        folder.say_why("CLIENT_CANCEL", "", "two\nlines\u{7}").unwrap();
        assert_eq!(fs::read_to_string(folder.why()).unwrap(), "CLIENT_CANCEL\n\ntwo lines \n");
        drop(lock);
        let (folder, lock, _) = take(&folders, 2, b"").await;
        assert!(!folder.why().exists());
        folder.say_why("WORKER_SHUTDOWN", "", "").unwrap();
        drop(lock);
        folder.remove().await;
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_large_checkpoint_stays_here() {
        let scratch = tempfile::tempdir().unwrap();
        let folders = Folders::open(scratch.path()).unwrap();
        let (mut folder, _lock, _) = take(&folders, 1, b"").await;
        let file = folder.path().join(FILE);
        fs::write(&file, vec![0; BYTES_MAX as usize + 1]).unwrap();
        assert_eq!(folder.changed(), None);
        fs::write(&file, vec![7; BYTES_MAX as usize]).unwrap();
        assert_eq!(folder.changed().map(|bytes| bytes.len()), Some(BYTES_MAX as usize));
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        assert_eq!(folder.changed(), Some(Vec::new()), "a folder is no file");
    }

    #[test]
    fn names_are_safe_and_different() {
        assert_eq!(encode("operations/a.b"), "operations%2Fa%2Eb");
        let long = |end: &str| encode(&format!("{}{end}", "x/".repeat(500)));
        assert!(long("a").len() <= NAME_BYTES_MAX && long("a") != long("b"));
        assert!(!encode("../..").contains(['.', '/']));
    }
}
