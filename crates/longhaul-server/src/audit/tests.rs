//! The audit log on a disk that fails, is cut, is changed, and is opened again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::clock::SystemClock;

fn config(path: &Path) -> AuditConfig {
    AuditConfig { destination: Destination::File(path.into()), ..AuditConfig::default() }
}

fn entry(text: &str) -> Entry {
    let service = "library.example.com".into();
    let mut entry = Entry::new(Log::Activity, Timestamp::from_micros(0), service, "m".into());
    entry.resource = text.into();
    entry
}

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn open(path: &Path) -> Arc<Audit> {
    Audit::open(&config(path), Arc::new(SystemClock::new())).unwrap().unwrap()
}

/// A log of `count` entries between those of its opening and its closing.
fn written(path: &Path, count: usize) {
    let audit = open(path);
    block(async {
        for number in 0..count {
            audit.ask(entry(&format!("entry {number}")), false).await.unwrap();
        }
        audit.close().await;
    });
}

fn place() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    (folder, path)
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

fn put(path: &Path, lines: &[String]) {
    fs::write(path, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
}

fn findings(path: &Path) -> Vec<Finding> {
    verify_file(path, &Expect::default()).unwrap().findings
}

/// Changes the lines of a sound log of 8 lines and looks at what is then found.
#[track_caller]
fn check(change: impl FnOnce(&mut Vec<String>), want: &[Finding]) {
    let (_folder, path) = place();
    written(&path, 6);
    assert_eq!(findings(&path), [], "before the change");
    let mut lines = lines(&path);
    assert_eq!(lines.len(), 8);
    change(&mut lines);
    put(&path, &lines);
    assert_eq!(findings(&path), want);
}

#[test]
fn a_changed_line_is_named() {
    let changed = [Finding::Changed { line: 4, sequence: 4 }];
    check(|lines| lines[3] = lines[3].replace("entry 2", "entry 9"), &changed);
    check(|lines| lines[3].insert(1, ' '), &changed);
    let first = [Finding::Changed { line: 1, sequence: 1 }];
    check(|lines| lines[0] = lines[0].replace("Open", "Shut"), &first);
    let last = [Finding::Changed { line: 8, sequence: 8 }];
    check(|lines| lines[7] = lines[7].replace("Close", "Crash"), &last);
}

#[test]
fn a_line_that_was_replaced_with_a_new_hash_is_named() {
    let replace = |lines: &mut Vec<String>| {
        let before = chain::read(lines[2].as_bytes()).unwrap().link;
        let mut forged = Vec::new();
        entry("nothing happened").write(&mut forged, "n", 0);
        chain::seal(&mut forged, 0, &before);
        lines[3] = String::from_utf8(forged).unwrap().trim_end().to_owned();
    };
    check(replace, &[Finding::Unlinked { line: 5, sequence: 5, after: 4 }]);
}

#[test]
fn removed_lines_are_named() {
    let missing = |from, to, before| Finding::Missing { from, to, before };
    check(|lines| drop(lines.remove(3)), &[missing(4, 4, 4)]);
    check(|lines| drop(lines.drain(2..5)), &[missing(3, 5, 3)]);
    check(|lines| drop(lines.remove(0)), &[Finding::Beginning { sequence: 2 }]);
    check(|lines| lines.truncate(6), &[Finding::CutOff { from: 7, to: 8 }]);
    check(Vec::clear, &[Finding::CutOff { from: 1, to: 8 }]);
}

#[test]
fn inserted_and_moved_lines_are_named() {
    let out = |line, sequence| Finding::OutOfPlace { line, sequence };
    check(|lines| lines.insert(5, lines[2].clone()), &[out(6, 3)]);
    check(|lines| lines.swap(3, 4), &[out(5, 4)]);
    check(|lines| lines.insert(5, "{}".into()), &[Finding::Unreadable { line: 6 }]);
    check(|lines| lines.insert(0, String::new()), &[Finding::Unreadable { line: 1 }]);
    let moved_up = |lines: &mut Vec<String>| {
        let line = lines.remove(6);
        lines.insert(2, line);
    };
    check(moved_up, &[out(4, 3), out(5, 4), out(6, 5), out(7, 6)]);
}

#[test]
fn a_log_without_its_head_is_sound_only_with_a_hash_from_elsewhere() {
    let (_folder, path) = place();
    written(&path, 6);
    fs::remove_file(file::head_of(&path)).unwrap();
    assert_eq!(findings(&path), [Finding::NoHead]);
    let last = chain::read(lines(&path)[7].as_bytes()).unwrap().link.hash;
    let expect = Expect { contains: Some(last), after: None };
    assert_eq!(verify_file(&path, &expect).unwrap().findings, []);
    let mut fewer = lines(&path);
    fewer.pop();
    put(&path, &fewer);
    assert_eq!(verify_file(&path, &expect).unwrap().findings, [Finding::NotContained]);
}

#[test]
fn the_chain_goes_on_after_a_restart_and_over_files() {
    let (_folder, path) = place();
    let config = AuditConfig { rotate_bytes: 1500, ..config(&path) };
    for _ in 0..3 {
        let audit = Audit::open(&config, Arc::new(SystemClock::new())).unwrap().unwrap();
        block(async {
            for number in 0..4 {
                audit.ask(entry(&format!("entry {number}")), false).await.unwrap();
            }
            audit.close().await;
        });
    }
    let older = file::rotated(&path).unwrap();
    assert!(older.len() >= 3, "{older:?}");
    let report = verify_file(&path, &Expect::default()).unwrap();
    assert_eq!((report.lines, report.last.sequence, report.findings), (18, 18, vec![]));
    // Without the oldest file the log begins late, unless that is expected.
    let last = chain::read(lines(&older[0]).last().unwrap().as_bytes()).unwrap().link;
    fs::remove_file(&older[0]).unwrap();
    assert_eq!(findings(&path), [Finding::Beginning { sequence: last.sequence + 1 }]);
    let expect = Expect { after: Some(last.hash), contains: None };
    assert_eq!(verify_file(&path, &expect).unwrap().findings, []);
    // A file from the middle leaves a gap.
    fs::remove_file(&older[1]).unwrap();
    assert!(!verify_file(&path, &expect).unwrap().findings.is_empty());
}

#[test]
fn a_torn_end_is_told_apart_and_mended_with_a_record() {
    let (_folder, path) = place();
    written(&path, 3);
    let whole = fs::read(&path).unwrap();
    for torn in [1, 40, 300] {
        fs::write(&path, [&whole[..], &whole[..torn]].concat()).unwrap();
        let report = verify_file(&path, &Expect::default()).unwrap();
        assert_eq!((report.findings, report.torn_bytes), (vec![], torn as u64));
    }
    written(&path, 1);
    let report = verify_file(&path, &Expect::default()).unwrap();
    assert_eq!((report.findings, report.torn_bytes, report.lines), (vec![], 0, 8));
    let opened: serde_json::Value = serde_json::from_str(&lines(&path)[5]).unwrap();
    let facts = &opened["protoPayload"]["metadata"];
    assert_eq!(facts["tornBytes"], "300");
    assert_eq!(facts["tornSha256"], hex(&chain::sha256(&whole[..300])));
}

#[test]
fn a_restart_does_not_hide_lines_that_were_cut_off() {
    let (_folder, path) = place();
    written(&path, 6);
    let mut fewer = lines(&path);
    fewer.truncate(5);
    put(&path, &fewer);
    written(&path, 1);
    assert_eq!(findings(&path), [Finding::Missing { from: 6, to: 8, before: 6 }]);
    let opened: serde_json::Value = serde_json::from_str(&lines(&path)[5]).unwrap();
    assert_eq!(opened["protoPayload"]["metadata"]["missing"], "6 to 8");
}

#[test]
fn two_servers_do_not_write_one_log() {
    let (_folder, path) = place();
    let first = open(&path);
    let second = Audit::open(&config(&path), Arc::new(SystemClock::new()));
    let error = second.err().unwrap();
    assert_eq!(error.reason, Reason::ConfigInvalid);
    assert!(error.message.contains("another server"), "{}", error.message);
    block(first.close());
}

#[test]
fn collected_lines_of_several_starts_are_several_chains() {
    let (_folder, path) = place();
    let mut collected = String::new();
    for _ in 0..2 {
        written(&path, 2);
        collected += &fs::read_to_string(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::remove_file(file::head_of(&path)).unwrap();
    }
    let report = verify_lines(collected.as_bytes(), &Expect::default()).unwrap();
    assert_eq!((report.lines, report.findings), (8, vec![]));
    let changed = collected.replacen("entry 1", "entry 7", 2);
    let report = verify_lines(changed.as_bytes(), &Expect::default()).unwrap();
    let changed = |line| Finding::Changed { line, sequence: 3 };
    assert_eq!(report.findings, [changed(3), changed(7)]);
}

/// A disk that is full while it is told to be.
struct Disk {
    file: LogFile,
    full: Arc<AtomicBool>,
}

impl Sink for Disk {
    fn append(&mut self, lines: &[u8], last: &Link) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.append(lines, last)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync()
    }
}

fn on_disk(path: &Path, config: &AuditConfig) -> (Arc<Audit>, Arc<AtomicBool>) {
    let (file, found) = LogFile::open(path, u64::MAX).unwrap();
    assert_eq!(found, []);
    let full = Arc::new(AtomicBool::new(false));
    let last = file.last();
    let disk = Disk { file, full: full.clone() };
    let audit = Audit::over(config, Arc::new(SystemClock::new()), Box::new(disk), last).unwrap();
    (audit, full)
}

#[test]
fn on_a_full_disk_whoever_asks_is_refused_and_nothing_else_is_lost() {
    let (_folder, path) = place();
    let (audit, full) = on_disk(&path, &config(&path));
    block(async {
        audit.ask(entry("before"), false).await.unwrap();
        full.store(true, Ordering::SeqCst);
        for urgent in [false, true, false] {
            let error = audit.ask(entry("refused"), urgent).await.unwrap_err();
            assert_eq!(error.reason, Reason::AuditUnavailable);
            assert!(error.retry_after.is_some());
        }
        // Ends that happen by themselves wait for better times.
        for number in 0..50 {
            audit.note(entry(&format!("end {number}")));
        }
        full.store(false, Ordering::SeqCst);
        while audit.ask(entry("after"), false).await.is_err() {
            // tidy: sleep: the writer tries again after a pause of its own
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        audit.close().await;
    });
    assert_eq!(findings(&path), []);
    let text = fs::read_to_string(&path).unwrap();
    assert!(!text.contains("refused\""), "a call that was refused left an entry");
    for number in 0..50 {
        assert!(text.contains(&format!("\"end {number}\"")), "{number}");
    }
    assert!(text.contains("longhaul.Audit.Resume"), "the outage is on record");
}

#[test]
fn what_finds_no_room_is_counted_in_the_log() {
    let (_folder, path) = place();
    let config = AuditConfig { queue_max: 8, on_failure: OnFailure::Drop, ..config(&path) };
    let (audit, full) = on_disk(&path, &config);
    block(async {
        full.store(true, Ordering::SeqCst);
        for number in 0..1000 {
            audit.note(entry(&format!("end {number}")));
        }
        assert!(audit.lost() > 0);
        full.store(false, Ordering::SeqCst);
        while audit.ask(entry("after"), false).await.is_err() {
            // tidy: sleep: the writer tries again after a pause of its own
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        audit.close().await;
    });
    let lines = lines(&path);
    let kept = lines.iter().filter(|line| line.contains("\"end ")).count();
    let told: usize = lines
        .iter()
        .filter_map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["labels"]["longhaul/lost"].as_str()?.parse::<usize>().ok()
        })
        .sum();
    assert_eq!(kept + told, 1000);
    assert_eq!(findings(&path), []);
}

#[test]
fn denied_calls_cannot_fill_the_log() {
    let (_folder, path) = place();
    let audit = Audit::open(
        &AuditConfig { denied_per_second: 3, ..config(&path) },
        Arc::new(SystemClock::new()),
    );
    let audit = audit.unwrap().unwrap();
    for second in 0..2 {
        for _ in 0..10 {
            let mut denied = entry("denied");
            denied.at = Timestamp::from_micros(second * 1_000_000);
            audit.note_denied(denied);
        }
    }
    block(audit.close());
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.matches("\"denied\"").count(), 6);
    assert!(text.contains("\"deniedBeforeAndNotWritten\":\"7\""));
}
