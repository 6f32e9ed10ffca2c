//! `longhaul store copy` as its users run it: killed again and again, repeated, and served from afterwards.

use std::time::Duration;

use tempfile::TempDir;

use crate::harness::client::{List, Wire};
use crate::harness::process::Process;
use crate::harness::samples::{Asked, DEPLOY};
use crate::harness::{Client, soon};

const STARTED: usize = 300;
/// When the copy is killed, in milliseconds after its start: while it opens, while it copies, or after.
const KILLS: [u64; 5] = [5, 20, 40, 80, 160];

fn asked(id: &str) -> Asked<'_> {
    Asked { id, request_id: id, ..Asked::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_killed_and_repeated_is_served_with_everything() {
    let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let source = Process::dev(from.path(), &["--no-practice"]).await;
    let client = Client::new(source.address, Wire::Grpc, &DEPLOY, "p");
    let mut names = Vec::new();
    for number in 0..STARTED {
        names.push(client.try_start(asked(&format!("k{number}"))).await.unwrap().name);
    }
    for name in names.iter().step_by(3) {
        client.cancel(name).await;
    }
    let (source_folder, target) = (from.path().to_str().unwrap(), to.path().join("store"));
    let copy = ["store", "copy", source_folder, target.to_str().unwrap()];
    let refused = soon("the refusal", Process::run(&copy, None)).await;
    assert_eq!(refused.code, Some(1), "its server runs: {refused:?}");
    assert!(refused.errors.contains("STORE_IN_USE"), "{refused:?}");
    source.terminate().await;

    let mut killed = KILLS.iter().map(|millis| Some(Duration::from_millis(*millis)));
    loop {
        let copied = soon("the copy", Process::run(&copy, killed.next().flatten())).await;
        match copied.code {
            Some(code) => {
                assert_eq!(code, 0, "{copied:?}");
                break;
            }
            None => println!("killed"),
        }
    }
    let again = soon("the copy again", Process::run(&copy, None)).await;
    // It is an ordinary store by now, with contents of its own.
    assert_eq!(again.code, Some(1), "{again:?}");

    let served = Process::dev(&target, &["--no-practice"]).await;
    let client = Client::new(served.address, Wire::Grpc, &DEPLOY, "p");
    for (number, name) in names.iter().enumerate() {
        let seen = client.get(name).await;
        assert_eq!(seen.code == Some(1), number % 3 == 0, "{seen:?}");
        let again = client.try_start(asked(&format!("k{number}"))).await.unwrap();
        assert_eq!(&again.name, name, "a repeated start is the first one, also in a copy");
    }
    let page = client.try_list(&List { page_size: 500, ..List::default() }).await.unwrap();
    assert_eq!(page.operations.len(), STARTED);
    assert_eq!(served.terminate().await, Some(0));
}
