//! What only the embedded engine can be asked: reopening, crashes, damage, full disks, old formats.

mod crash;
mod damage;
mod fixture;
mod limits;
mod model;
mod reopen;
mod suite;

use std::path::Path;
use std::sync::Arc;

use longhaul_core::{Error, Reason};

use super::{Embedded, Options};
use crate::conformance::world::{Notes, World};

/// Opens a folder and takes notes of what happens in it.
fn open(options: &Options) -> Result<World, Error> {
    let notes = Arc::new(Notes::default());
    let store = Embedded::open(options, notes.clone())?;
    Ok(World { store: Arc::new(store), notes })
}

fn open_folder(folder: &Path) -> World {
    open(&Options::new(folder)).unwrap()
}

#[track_caller]
fn refusal_to_open(folder: &Path) -> Error {
    match Embedded::open(&Options::new(folder), Arc::new(crate::Deaf)) {
        Ok(_) => panic!("it opened"),
        Err(error) => error,
    }
}

#[track_caller]
fn check_damaged(folder: &Path, says: &str) {
    let error = refusal_to_open(folder);
    assert_eq!(error.reason, Reason::StoreDamaged, "{error}");
    assert!(error.message.contains(says), "{error}");
    assert!(error.metadata.contains_key("file"));
}
