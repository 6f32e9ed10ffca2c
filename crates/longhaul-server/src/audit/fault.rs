//! A disk that is full for as long as a file exists: for tests of what then happens to the audit log.
//!
//! `LONGHAUL_AUDIT_FULL=FILE` makes every write of the log fail, as on a full disk, while FILE exists. Only
//! in builds with debug assertions; in all others there is nothing here to read or to reach.

use std::io;

/// Fails while the disk is to look full.
#[cfg(debug_assertions)]
pub(crate) fn check() -> io::Result<()> {
    use std::path::PathBuf;
    use std::sync::OnceLock;
    static FULL: OnceLock<Option<PathBuf>> = OnceLock::new();
    let full = FULL.get_or_init(|| std::env::var_os("LONGHAUL_AUDIT_FULL").map(PathBuf::from));
    if full.as_deref().is_some_and(std::path::Path::exists) {
        return Err(io::Error::from(io::ErrorKind::StorageFull));
    }
    Ok(())
}

/// Nothing.
#[cfg(not(debug_assertions))]
pub(crate) const fn check() -> io::Result<()> {
    Ok(())
}
