//! Damaged, foreign, newer and missing files: refused with a message, never mended in silence.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use longhaul_core::{Operation, Reason};
use rusqlite::Connection;

use super::{check_damaged, open, open_folder, refusal_to_open};
use crate::conformance::world::{a_query, at, name};
use crate::embedded::{Durability, Options};

const MAIN: &str = "operations.db";
const LOG: &str = "operations.db-wal";

/// A folder with some operations, closed in order.
async fn closed_folder(operations: usize) -> (tempfile::TempDir, Vec<Operation>) {
    let folder = tempfile::tempdir().unwrap();
    let world = open_folder(folder.path());
    let mut kept = Vec::new();
    for index in 0..operations {
        kept.push(world.started(&format!("o{index}"), at(index as u64)).await);
    }
    (folder, kept)
}

/// A copy of a folder as a crash would leave it: with its log, and without the closing copy.
async fn crashed_folder(operations: usize) -> (tempfile::TempDir, usize) {
    let (folder, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut options = Options::new(folder.path());
    options.log_bytes = 1 << 30;
    let world = open(&options).unwrap();
    for index in 0..operations {
        world.started(&format!("o{index}"), at(index as u64)).await;
    }
    for file in [MAIN, LOG, "lock"] {
        fs::copy(folder.path().join(file), copy.path().join(file)).unwrap();
    }
    let length = fs::metadata(copy.path().join(LOG)).unwrap().len();
    (copy, usize::try_from(length).unwrap())
}

fn change(path: &Path, by: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    by(&mut bytes);
    fs::write(path, bytes).unwrap();
}

fn main_of(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join(MAIN)
}

#[tokio::test]
async fn a_foreign_or_cut_file_is_refused() {
    let (folder, _) = closed_folder(3).await;
    let main = main_of(&folder);
    let whole = fs::read(&main).unwrap();
    fs::write(&main, "hello").unwrap();
    check_damaged(folder.path(), "cut off");
    fs::write(&main, "").unwrap();
    check_damaged(folder.path(), "cut off");
    fs::write(&main, vec![b'x'; 8_192]).unwrap();
    check_damaged(folder.path(), "does not begin");
    assert_eq!(fs::read(&main).unwrap(), vec![b'x'; 8_192], "it is left as it was");
    fs::write(&main, &whole[..whole.len() - 4_096]).unwrap();
    check_damaged(folder.path(), MAIN);
    fs::write(&main, &whole[..4_096]).unwrap();
    check_damaged(folder.path(), MAIN);
    fs::write(&main, &whole).unwrap();
    assert_eq!(open_folder(folder.path()).list(a_query(9)).await.len(), 3);
}

#[tokio::test]
async fn a_database_of_another_program_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let connection = Connection::open(main_of(&folder)).unwrap();
    connection.execute_batch("CREATE TABLE t (a); INSERT INTO t VALUES (1)").unwrap();
    drop(connection);
    check_damaged(folder.path(), "another program");
}

#[tokio::test]
async fn a_newer_format_is_refused_and_left_alone() {
    let (folder, _) = closed_folder(1).await;
    let set = |value: &str| {
        let connection = Connection::open(main_of(&folder)).unwrap();
        connection.execute("UPDATE meta SET value = ? WHERE key = 'format'", [value]).unwrap();
    };
    set("2");
    let error = refusal_to_open(folder.path());
    assert_eq!(error.reason, Reason::StoreTooNew);
    assert!(error.message.contains("format 2"), "{error}");
    set("x");
    check_damaged(folder.path(), "which format");
    set("1");
    assert_eq!(open_folder(folder.path()).list(a_query(9)).await.len(), 1);
}

#[tokio::test]
async fn a_missing_main_file_beside_a_log_is_refused() {
    let (folder, _) = crashed_folder(5).await;
    fs::remove_file(main_of(&folder)).unwrap();
    check_damaged(folder.path(), "missing");
}

#[tokio::test]
async fn a_changed_row_is_named() {
    let (folder, _) = closed_folder(5).await;
    let connection = Connection::open(main_of(&folder)).unwrap();
    connection.execute("UPDATE operation SET create_us = create_us + 1 WHERE id = 3", []).unwrap();
    drop(connection);
    check_damaged(folder.path(), "table operation, row 3");
}

#[tokio::test]
async fn a_changed_request_or_history_is_refused_when_it_is_read() {
    let (folder, _) = closed_folder(5).await;
    let connection = Connection::open(main_of(&folder)).unwrap();
    connection.execute("UPDATE request SET type_name = 'other' WHERE operation = 3", []).unwrap();
    connection.execute("DELETE FROM request WHERE operation = 4", []).unwrap();
    connection.execute("UPDATE history SET revision = 9 WHERE operation = 5", []).unwrap();
    drop(connection);
    let world = open_folder(folder.path());
    for (id, says) in [("o2", "table request, row 3"), ("o3", "table request, row 4")] {
        let error = world.store.get(&name(id)).await.unwrap_err();
        assert_eq!(error.reason, Reason::StoreDamaged);
        assert!(error.message.contains(says), "{error}");
        assert!(world.cancel(id, at(9)).await.is_err(), "nothing is decided on it either");
    }
    let error = world.store.list(a_query(9)).await.unwrap_err();
    assert_eq!(error.reason, Reason::StoreDamaged);
    assert!(world.read("o4").await.is_some());
    world.cancel("o0", at(9)).await.unwrap();
}

/// Reads everything; true when something said that it is damaged. What is read must be right.
async fn all_right_or_damaged(folder: &Path, kept: &[Operation]) -> bool {
    let store = match crate::embedded::Embedded::open(&Options::new(folder), Arc::new(crate::Deaf))
    {
        Ok(store) => store,
        Err(error) => {
            assert_eq!(error.reason, Reason::StoreDamaged, "{error} {:?}", error.source);
            return true;
        }
    };
    let mut damaged = false;
    for operation in kept {
        match crate::Store::get(&store, &operation.name).await {
            Ok(read) => assert_eq!(read.as_deref(), Some(operation)),
            Err(error) => {
                assert_eq!(error.reason, Reason::StoreDamaged, "{error}");
                damaged = true;
            }
        }
    }
    damaged
}

#[tokio::test]
async fn a_flipped_bit_is_never_read_as_a_value() {
    let (folder, kept) = closed_folder(40).await;
    let main = main_of(&folder);
    let whole = fs::read(&main).unwrap();
    let (mut seen, mut flips) = (0, 0);
    // A stride that visits every kind of place: headers, cell pointers, columns, records, free room.
    for at in (100..whole.len()).step_by(151) {
        change(&main, |bytes| bytes[at] ^= 1 << (at % 8));
        flips += 1;
        seen += usize::from(all_right_or_damaged(folder.path(), &kept).await);
        fs::write(&main, &whole).unwrap();
    }
    assert!(seen * 3 > flips, "{seen} of {flips} flips were seen");
}

#[tokio::test]
async fn a_log_with_a_torn_end_opens_and_one_damaged_inside_is_refused() {
    let (folder, length) = crashed_folder(30).await;
    let log = folder.path().join(LOG);
    let whole = fs::read(&log).unwrap();
    let main = fs::read(main_of(&folder)).unwrap();
    let restore = || {
        fs::write(main_of(&folder), &main).unwrap();
        fs::write(&log, &whole).unwrap();
        let _ = fs::remove_file(folder.path().join("operations.db-shm"));
    };
    // The last commit is cut off, as a power cut would: it counts as never made.
    change(&log, |bytes| bytes.truncate(length - 100));
    assert_eq!(open_folder(folder.path()).list(a_query(99)).await.len(), 29);
    restore();
    // Zeroed instead of cut.
    change(&log, |bytes| bytes[length - 100..].fill(0));
    assert_eq!(open_folder(folder.path()).list(a_query(99)).await.len(), 29);
    restore();
    for at in [40, length / 4, length / 2] {
        change(&log, |bytes| bytes[at] ^= 16);
        check_damaged(folder.path(), "frame");
        restore();
    }
    change(&log, |bytes| bytes[20] ^= 1);
    check_damaged(folder.path(), "header of the log");
    restore();
    change(&log, |bytes| bytes[0] = 0);
    check_damaged(folder.path(), "no header");
    restore();
    assert_eq!(open_folder(folder.path()).list(a_query(99)).await.len(), 30);
}

#[tokio::test]
async fn a_log_of_a_relaxed_server_may_have_holes() {
    let (folder, length) = crashed_folder(30).await;
    let lock = format!("1\n{}\n", Durability::Relaxed.name());
    fs::write(folder.path().join("lock"), lock).unwrap();
    change(&folder.path().join(LOG), |bytes| bytes[length / 2] ^= 16);
    let listed = open_folder(folder.path()).list(a_query(99)).await.len();
    assert!((1..30).contains(&listed), "{listed}");
}
