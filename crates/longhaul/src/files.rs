//! Files that are made once: whole, never over another, and private where they hold secrets.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::failure::{Exit, Failure};

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Its owner alone: keys, tokens.
    Owner,
    /// Everybody who may read the folder.
    All,
}

impl Readers {
    const fn mode(self) -> u32 {
        match self {
            Self::Owner => 0o600,
            Self::All => 0o644,
        }
    }
}

/// A file to make.
#[derive(Clone, Debug)]
pub struct NewFile {
    /// Where.
    pub path: PathBuf,
    /// What it holds.
    pub text: String,
    /// Who may read it.
    pub readers: Readers,
}

/// Makes all of them, or none if one is there already.
pub fn make(files: &[NewFile]) -> Result<(), Failure> {
    let there: Vec<String> = files
        .iter()
        .filter(|file| file.path.symlink_metadata().is_ok())
        .map(|file| file.path.display().to_string())
        .collect();
    if !there.is_empty() {
        return Err(Failure::usage(format!("{} is there already", there.join(", "))).help(
            "nothing was changed; choose another folder with --dir, or move what is there away",
        ));
    }
    for file in files {
        if let Some(folder) = file.path.parent() {
            make_folder(folder)?;
        }
        let mut options = OpenOptions::new();
        let made = options.write(true).create_new(true).mode(file.readers.mode()).open(&file.path);
        made.and_then(|mut made| {
            made.write_all(file.text.as_bytes()).and_then(|()| made.sync_all())
        })
        .map_err(|error| unwritable(&file.path, &error))?;
    }
    Ok(())
}

/// Puts a file in the place of another, whole at once.
pub fn replace(file: &NewFile) -> Result<(), Failure> {
    let mut half = file.path.clone();
    half.as_mut_os_string().push(format!(".{}.half", std::process::id()));
    let written = make(&[NewFile { path: half.clone(), ..file.clone() }]);
    written.and_then(|()| {
        std::fs::rename(&half, &file.path).map_err(|error| unwritable(&file.path, &error))
    })
}

/// Reads a text that has to be there.
pub fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))
}

/// A path that means the same from everywhere.
pub fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    Ok(std::path::absolute(path)?)
}

/// A folder for its owner alone; one that is there stays as it is.
fn make_folder(folder: &Path) -> Result<(), Failure> {
    if folder.as_os_str().is_empty() {
        return Ok(());
    }
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| unwritable(folder, &error))
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Failed, format!("cannot write {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn file(folder: &Path, name: &str, readers: Readers) -> NewFile {
        NewFile { path: folder.join(name), text: name.to_owned(), readers }
    }

    #[test]
    fn secrets_are_their_owner_s_and_nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        let files = [file(&inner, "key", Readers::Owner), file(&inner, "cert", Readers::All)];
        make(&files).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&files[0].path), mode(&inner)), (0o600, 0o700));
        let more = [file(&inner, "new", Readers::All), files[0].clone()];
        let failure = make(&more).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.text().contains("key is there already"), "{}", failure.text());
        assert!(!more[0].path.exists(), "nothing is made when one is there");
        replace(&NewFile { text: "other".to_owned(), ..files[0].clone() }).unwrap();
        assert_eq!(std::fs::read_to_string(&files[0].path).unwrap(), "other");
        assert_eq!(std::fs::read_dir(&inner).unwrap().count(), 2);
    }
}
