//! Killed in the middle of its work, the store has everything that it had acknowledged.
//!
//! The child is this test binary again, told by an environment variable which folder to work in.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use longhaul_core::Reason;

use super::{Options, open, open_folder};
use crate::Failure;
use crate::conformance::world::{World, a_query, at, is_done};

const FOLDER: &str = "LONGHAUL_STORE_TEST_FOLDER";
const CLIENTS: usize = 8;

fn child(test: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([&format!("embedded::tests::crash::{test}"), "--exact", "--nocapture"]);
    command.env(FOLDER, folder).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

/// Tells the parent what was acknowledged; one write, so that lines never mix.
fn tell(line: &str) {
    std::io::stdout().write_all(line.as_bytes()).unwrap();
    std::io::stdout().flush().unwrap();
}

/// Not a test by itself: works until it is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn works_until_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let mut options = Options::new(folder);
    // Small, so that kills also hit the copying of the log.
    options.log_bytes = 256 << 10;
    let world = open(&options).unwrap();
    let begun = world.list(a_query(usize::MAX)).await.len();
    let tasks: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let world = world.clone();
            tokio::spawn(async move {
                for turn in begun.. {
                    let id = format!("o{client}-{turn}");
                    let now = at(turn as u64);
                    world.started(&id, now).await;
                    tell(&format!("\nack {id} 1\n"));
                    if turn % 3 == 0 {
                        world.run(&id, now).await;
                        tell(&format!("\nack {id} 2\n"));
                    }
                    let cancelled = world.cancel(&id, now).await.unwrap().operation;
                    tell(&format!("\nack {id} {}\n", cancelled.revision));
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

/// Reads acknowledgements until there were `limit`, then kills; returns the last revision of each.
fn kill_after(mut child: Child, limit: usize, acknowledged: &mut BTreeMap<String, u64>) {
    let output = BufReader::new(child.stdout.take().unwrap());
    let mut seen = 0;
    for line in output.lines() {
        let line = line.unwrap();
        let mut words = line.split(' ');
        if words.next() != Some("ack") {
            continue;
        }
        let (Some(id), Some(revision)) = (words.next(), words.next()) else { continue };
        // The last line may be cut off.
        let Ok(revision) = revision.parse() else { continue };
        acknowledged.insert(id.to_owned(), revision);
        seen += 1;
        if seen == limit {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(seen >= limit, "the child ended by itself after {seen}");
}

#[tokio::test]
async fn a_killed_store_has_everything_it_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeMap::new();
    for round in 0..20_usize {
        let before = acknowledged.len();
        let child = child("works_until_killed", folder.path()).spawn().unwrap();
        kill_after(child, 1 + round * round * 3, &mut acknowledged);
        assert!(acknowledged.len() > before);
        let world = open_folder(folder.path());
        for (id, revision) in &acknowledged {
            let operation = world.read(id).await.unwrap_or_else(|| panic!("{id} is lost"));
            assert!(operation.revision >= *revision, "{id} went back");
            let history = world.store.history(&operation.name, 0, 100).await.unwrap();
            assert_eq!(history.last().unwrap().revision, operation.revision);
        }
        let listed = world.list(a_query(usize::MAX)).await.len();
        // Each client may have had one more committed, and not yet told.
        let most = acknowledged.len() + CLIENTS * (round + 1);
        assert!((acknowledged.len()..=most).contains(&listed), "{listed}, at most {most}");
    }
}

/// Not a test by itself: runs with a bound on the size of files, as if the disk were full.
#[tokio::test]
async fn works_until_files_may_not_grow() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let mut options = Options::new(folder);
    options.log_bytes = 1 << 30;
    let world = open(&options).unwrap();
    let mut kept = 0;
    let failed = loop {
        match world.start_at(crate::conformance::world::a_start(&format!("o{kept}")), at(0)).await {
            Ok(_) => kept += 1,
            Err(Failure::Store(error)) => break error.reason,
            Err(Failure::Refused(refusal)) => panic!("{refusal}"),
        }
    };
    assert_eq!(failed, Reason::StoreUnavailable);
    assert_eq!(world.read(&format!("o{kept}")).await, None);
    // The log begins again, which needs no room: changes of what is there go on.
    for index in 0..kept {
        assert!(is_done(&cancelled(&world, &format!("o{index}")).await));
    }
    tell(&format!("\nkept {kept}\n"));
}

async fn cancelled(world: &World, id: &str) -> longhaul_core::Operation {
    world.cancel(id, at(1)).await.unwrap().operation
}

#[tokio::test]
async fn files_that_may_not_grow_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let run = child("works_until_files_may_not_grow", folder.path());
    // 512-byte blocks: a megabyte.
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 2048; exec \"$@\"", "sh"])
        .arg(run.get_program())
        .args(run.get_args())
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let kept: usize = said
        .lines()
        .find_map(|line| line.strip_prefix("kept "))
        .unwrap_or_else(|| panic!("{said}\n{}", String::from_utf8_lossy(&output.stderr)))
        .parse()
        .unwrap();
    assert!(kept > 50, "{kept}");
    let world = open_folder(folder.path());
    assert_eq!(world.list(a_query(usize::MAX)).await.len(), kept);
    for index in 0..kept {
        assert!(is_done(&world.read(&format!("o{index}")).await.unwrap()));
    }
}
