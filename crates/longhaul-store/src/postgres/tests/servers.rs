//! Several servers on one database, and what a database does to those who use it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use longhaul_core::{Error, OperationName, Reason};
use parking_lot::Mutex;
use tokio_postgres::NoTls;

use super::super::{Options, Postgres};
use super::{opened, options};
use crate::conformance::world::{
    Notes, World, a_claim, a_start, a_success, at, command_of, counting, name, request_id,
};
use crate::{ClaimFilter, ClaimHint, Deaf, Decide, Due, Failure, Key, Listener, Priority, Store};

/// A server that keeps what it was told of the others.
#[derive(Default)]
pub(super) struct Ears {
    notes: Notes,
    pub(super) elsewhere: Mutex<Vec<(OperationName, u64)>>,
}

impl Listener for Ears {
    fn committed(&self, change: &longhaul_core::Applied) {
        self.notes.committed(change);
    }

    fn claimable(&self, hint: &ClaimHint) {
        self.notes.claimable(hint);
    }

    fn changed_elsewhere(&self, name: &OperationName, revision: u64) {
        self.elsewhere.lock().push((name.clone(), revision));
    }
}

/// A server on the database of `options`.
pub(super) fn server(options: &Options) -> World {
    let notes = Arc::new(Notes::default());
    World { store: opened(options, notes.clone()), notes }
}

pub(super) async fn session(options: &Options) -> tokio_postgres::Client {
    let (client, connection) =
        tokio_postgres::connect(&options.url, NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client
}

/// Locks an operation's row until the transaction ends.
async fn hold<'c>(
    client: &'c mut tokio_postgres::Client,
    options: &Options,
    id: &str,
) -> tokio_postgres::Transaction<'c> {
    let held = client.transaction().await.expect("it begins");
    let lock = format!("SELECT FROM \"{}\".operation WHERE name = $1 FOR UPDATE", options.schema);
    held.execute(&lock, &[&name(id).as_str()]).await.expect("the row");
    held
}

/// Waits for something that another task brings about.
pub(super) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        // tidy: sleep: another server is waited for, and only its effect can be seen
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} did not come");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_server_commits_another_reads_at_once_and_is_told_of() {
    let options = options();
    let ears = Arc::new(Ears::default());
    let second = opened(&options, ears.clone());
    let first = server(&options);
    first.started("a", at(0)).await;
    let read = second.get(&name("a")).await.unwrap().unwrap();
    assert_eq!(read.revision, 1);
    let heard = |revision| ears.elsewhere.lock().contains(&(name("a"), revision));
    until("the start", || heard(1)).await;
    until("the hint", || !ears.notes.hints.lock().is_empty()).await;
    assert_eq!(ears.notes.hints.lock()[0].from, at(0));
    first.cancel("a", at(1)).await.unwrap();
    until("the cancel", || heard(2)).await;
    assert!(ears.notes.changes.lock().is_empty(), "what others commit is a hint only");
    // And the other way, with the count that both agree on.
    let start = a_start("b");
    let decide: Decide = Arc::new(move |found| longhaul_core::start(found, start.clone(), at(2)));
    second.update(Key::Name(name("b")), Priority::Normal, decide).await.unwrap();
    let total =
        |store: &dyn Store| store.counts().iter().map(|count| count.operations).sum::<u64>();
    assert_eq!(first.read("b").await.unwrap().revision, 1);
    until("the count", || total(&*first.store) == 2 && total(&*second) == 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_change_one_operation_one_after_the_other() {
    let options = options();
    let servers = [server(&options), server(&options)];
    servers[0].started("a", at(0)).await;
    let tasks: Vec<_> = (0..16)
        .map(|task| {
            let world = servers[task % 2].clone();
            tokio::spawn(async move {
                let mut seen = Vec::new();
                for _ in 0..10 {
                    let applied = world.decide(Key::Name(name("a")), counting(at(1))).await;
                    seen.push(applied.unwrap().operation.revision);
                }
                seen
            })
        })
        .collect();
    let mut seen = BTreeSet::new();
    for task in tasks {
        seen.extend(task.await.unwrap());
    }
    assert_eq!(seen, (2..=161).collect(), "every revision was made once");
    for world in servers {
        assert!(world.notes.changes.lock().is_sorted_by_key(|change| change.operation.revision));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_operation_is_claimed_on_two_servers() {
    let options = options();
    let servers = [server(&options), server(&options), server(&options)];
    servers[0].start_all((0..300).map(|index| a_start(&format!("o{index}"))), at(0)).await;
    // The others know the new kind after a second at the latest.
    for world in &servers {
        let hinted = || !world.notes.hints.lock().is_empty();
        until("the hint", hinted).await;
    }
    let claims: Vec<_> = (0..60)
        .map(|task| {
            let world = servers[task % 3].clone();
            tokio::spawn(async move { world.claim(ClaimFilter::default(), 7, at(1)).await })
        })
        .collect();
    let mut taken = Vec::new();
    for claim in claims {
        taken.extend(claim.await.unwrap());
    }
    assert!(taken.iter().all(|operation| operation.epoch == 1));
    let apart: BTreeSet<_> = taken.iter().map(|operation| operation.name.clone()).collect();
    assert_eq!((taken.len(), apart.len()), (300, 300));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_finds_at_once_what_another_server_has_begun_of_a_new_kind() {
    let options = options();
    let servers = [server(&options), server(&options)];
    for round in 0..10 {
        let mut start = a_start(&format!("o{round}"));
        start.queue = format!("queue-{round}").as_str().into();
        servers[round % 2].start_at(start, at(0)).await.unwrap();
        let claimed = servers[1 - round % 2].claim(ClaimFilter::default(), 7, at(1)).await;
        let claimed: Vec<_> = claimed.iter().map(|operation| operation.name.clone()).collect();
        assert_eq!(claimed, [name(&format!("o{round}"))]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_request_id_on_two_servers_makes_one_operation() {
    let options = options();
    let servers = [server(&options), server(&options)];
    for round in 0..10 {
        let tasks: Vec<_> = (0..8)
            .map(|task| {
                let world = servers[task % 2].clone();
                tokio::spawn(async move {
                    let mut start = a_start(&format!("o{round}-{task}"));
                    start.request_id = Some(request_id(&format!("key{round}"), at(3_600)));
                    world.start_at(start, at(0)).await.unwrap().operation.name
                })
            })
            .collect();
        let mut names = BTreeSet::new();
        for task in tasks {
            names.insert(task.await.unwrap());
        }
        assert_eq!(names.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_the_database_refuses_harms_only_its_own_command() {
    let options = Options { writers: 1, ..options() };
    let world = server(&options);
    world.start_all((100..130).map(|index| a_start(&format!("o{index}"))), at(0)).await;
    let claims: Vec<_> = (0..30)
        .map(|_| {
            let world = world.clone();
            tokio::spawn(async move { world.claim(ClaimFilter::default(), 1, at(1)).await })
        })
        .collect();
    let tasks: Vec<_> = (0..20)
        .map(|task| {
            let world = world.clone();
            tokio::spawn(async move {
                let mut start = a_start(&format!("o{task}"));
                let value = if task == 7 { "no\0text" } else { "text" };
                start.request_id = Some(request_id(&format!("{value}{task}"), at(3_600)));
                world.start_at(start, at(0)).await
            })
        })
        .collect();
    for (task, started) in tasks.into_iter().enumerate() {
        match started.await.unwrap() {
            Err(Failure::Store(error)) => assert_eq!((task, error.reason), (7, Reason::Internal)),
            Err(Failure::Refused(refusal)) => panic!("{refusal}"),
            Ok(applied) => assert_eq!(applied.operation.name, name(&format!("o{task}"))),
        }
    }
    let mut claimed = BTreeSet::new();
    for claim in claims {
        claimed.extend(claim.await.unwrap().into_iter().map(|operation| operation.name));
    }
    assert_eq!(claimed.len(), 30, "claims that shared its transaction were served all the same");
}

/// The others are not kept waiting for the writer whose turn it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_writer_waits_for_a_row_the_others_start_and_claim() {
    let options = Options { lock_timeout: Duration::from_secs(60), ..options() };
    let world = server(&options);
    world.started("held", at(0)).await;
    let mut client = session(&options).await;
    let held = hold(&mut client, &options, "held").await;
    let stuck = {
        let world = world.clone();
        tokio::spawn(async move { world.cancel("held", at(1)).await })
    };
    let watcher = session(&options).await;
    let waiting =
        "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND strpos(query, $1) > 0";
    while watcher.query(waiting, &[&options.schema]).await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    for round in 0..3 {
        world.started(&format!("free{round}"), at(1)).await;
        let claimed = world.claim(ClaimFilter::default(), 1, at(1)).await;
        let claimed: Vec<_> = claimed.iter().map(|operation| operation.name.clone()).collect();
        assert_eq!(claimed, [name(&format!("free{round}"))]);
    }
    assert!(!stuck.is_finished());
    held.rollback().await.unwrap();
    stuck.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_somebody_holds_stops_nobody_else_and_no_caller_for_ever() {
    let options = Options {
        lock_timeout: Duration::from_millis(100),
        answer_timeout: Duration::from_secs(2),
        ..options()
    };
    let world = server(&options);
    world.started("held", at(0)).await;
    world.started("free", at(0)).await;
    let mut client = session(&options).await;
    let held = hold(&mut client, &options, "held").await;
    let stuck = {
        let world = world.clone();
        tokio::spawn(async move { world.cancel("held", at(1)).await })
    };
    for _ in 0..5 {
        world.decide(Key::Name(name("free")), counting(at(1))).await.unwrap();
    }
    match stuck.await.unwrap() {
        Err(Failure::Store(error)) => {
            assert_eq!(error.reason, Reason::StoreUnavailable);
            assert!(error.retry_after.is_some());
        }
        other => panic!("{other:?}"),
    }
    held.rollback().await.unwrap();
    world.cancel("held", at(2)).await.unwrap();
}

/// Ends every connection of the tests' stores, again and again.
async fn cut_connections(options: &Options, times: usize) {
    let client = session(options).await;
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE application_name = $1 AND pid <> pg_backend_pid()";
    for _ in 0..times {
        // tidy: sleep: the load goes on meanwhile
        tokio::time::sleep(Duration::from_millis(150)).await;
        client.execute(cut, &[&options.schema]).await.expect("the cut");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_cut_lose_nothing_and_do_nothing_twice() {
    let mut options = options();
    let joint = if options.url.contains('?') { '&' } else { '?' };
    options.url = format!("{}{joint}application_name={}", options.url, options.schema);
    let world = server(&options);
    for task in 0..8 {
        world.started(&format!("o{task}"), at(0)).await;
    }
    let cutting = {
        let options = options.clone();
        tokio::spawn(async move { cut_connections(&options, 12).await })
    };
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let (world, id) = (world.clone(), format!("o{task}"));
            tokio::spawn(async move {
                let mut made = 0;
                for _ in 0..300 {
                    match world.decide(Key::Name(name(&id)), counting(at(1))).await {
                        Ok(_) => made += 1,
                        Err(Failure::Store(error)) => {
                            assert_eq!(error.reason, Reason::StoreUnavailable);
                        }
                        Err(Failure::Refused(refusal)) => panic!("{refusal}"),
                    }
                }
                (id, made)
            })
        })
        .collect();
    let mut failed = 0;
    for task in tasks {
        let (id, made) = task.await.unwrap();
        let read = world.read(&id).await.unwrap();
        failed += 300 - made;
        assert_eq!(read.revision, u64::from(read.attempt) + 1);
        assert_eq!(u64::from(read.attempt), made, "{id}: each was made once, and none was lost");
    }
    cutting.await.unwrap();
    assert_eq!(failed, 0, "a cut connection is the store's business, not the caller's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_that_two_servers_share_reaches_all_once() {
    let options = options();
    let servers = [server(&options), server(&options)];
    let starts = (0..600).map(|index| {
        let mut start = a_start(&format!("o{index}"));
        start.deadline = Some(at(10));
        start
    });
    servers[0].start_all(starts, at(0)).await;
    let (one, two) = tokio::join!(servers[0].sweep(600, at(20)), servers[1].sweep(600, at(20)));
    let names: BTreeSet<_> =
        one.iter().chain(&two).map(|applied| applied.operation.name.clone()).collect();
    let rest = servers[0].sweep(600, at(20)).await;
    assert_eq!(one.len() + two.len() + rest.len(), 600);
    assert_eq!(names.len() + rest.len(), 600);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_forgotten_is_in_the_archive() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { archive: Some(folder.path().join("archive")), ..options() };
    let world = server(&options);
    for id in ["a", "b", "c"] {
        let mut start = a_start(id);
        start.policy.retention = Duration::from_secs(10);
        world.start_at(start, at(0)).await.unwrap();
    }
    world.finish("a", at(1)).await;
    world.cancel("b", at(1)).await.unwrap();
    assert_eq!(world.sweep(10, at(20)).await.len(), 2);
    let mut lines = Vec::new();
    for file in std::fs::read_dir(folder.path().join("archive")).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let parsed = text.lines().map(serde_json::from_str::<serde_json::Value>);
        lines.extend(parsed.map(Result::unwrap));
    }
    lines.sort_by_key(|line| line["name"].to_string());
    let ends: Vec<_> = lines
        .iter()
        .map(|line| (line["name"].as_str().unwrap(), line["error"]["code"].as_i64()))
        .collect();
    let (a, b) = (name("a"), name("b"));
    assert_eq!(ends, [(a.as_str(), None), (b.as_str(), Some(1))]);
    assert_eq!(lines[0]["response"]["type"], "google.cloud.deploy.v1.Release");
}

fn error(opened: Result<Postgres, Error>) -> Error {
    opened.err().expect("it does not open")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_schema_is_refused() {
    let options = options();
    server(&options).started("a", at(0)).await;
    let client = session(&options).await;
    let newer = format!(
        "INSERT INTO \"{}\".migration (version, name, applied_on, checksum) \
         VALUES (999, 'later', '2030-01-01T00:00:00Z', '1')",
        options.schema
    );
    client.batch_execute(&newer).await.unwrap();
    let refused = error(Postgres::open(&options, Arc::new(Deaf)).await);
    assert_eq!(refused.reason, Reason::StoreTooNew);
    assert!(refused.message.contains("999"), "{}", refused.message);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_start_together_make_one_schema() {
    let options = options();
    let (one, two) = tokio::join!(
        Postgres::open(&options, Arc::new(Deaf)),
        Postgres::open(&options, Arc::new(Deaf))
    );
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one.token_key(), two.token_key());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_kept_is_there_after_a_restart() {
    let options = options();
    let first = server(&options);
    let mut start = a_start("a");
    start.deadline = Some(at(50));
    first.start_at(start, at(0)).await.unwrap();
    let epoch = first.run("a", at(1)).await.epoch;
    let key = first.store.token_key();
    first.store.close().await;
    let second = server(&options);
    assert_eq!(second.store.token_key(), key);
    assert_eq!(second.store.next_due(), Some(at(31)), "the end of the lease");
    assert_eq!(second.store.counts()[0].state, "RUNNING");
    let done = second.apply("a", a_success(epoch), at(2)).await.unwrap();
    assert_eq!(done.operation.revision, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_is_one_until_leases_got_their_time_back() {
    let options = options();
    let servers = [server(&options), server(&options)];
    let present = async |which: usize| servers[which].store.present(at(0)).await.unwrap();
    assert_eq!(present(0).await.outage, Some(1), "nobody was there before");
    assert_eq!(present(1).await.outage, Some(1));
    assert!(present(1).await.clock.is_some());
    servers[1].store.recovered(1).await.unwrap();
    assert_eq!(present(0).await.outage, None);
    let client = session(&options).await;
    let away = format!("UPDATE \"{}\".fleet SET seen = seen - interval '3 s'", options.schema);
    client.batch_execute(&away).await.unwrap();
    assert_eq!(present(1).await.outage, Some(2));
    assert_eq!(present(0).await.outage, Some(2), "every server hears of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_row_is_told_and_stops_no_claim_of_others() {
    let options = options();
    let world = server(&options);
    world.started("bad", at(0)).await;
    world.started("good", at(1)).await;
    let client = session(&options).await;
    let damage = format!(
        "UPDATE \"{}\".operation SET record = '\\x00' WHERE name = '{}'",
        options.schema,
        name("bad")
    );
    client.batch_execute(&damage).await.unwrap();
    let read = world.store.get(&name("bad")).await.unwrap_err();
    assert_eq!(read.reason, Reason::StoreDamaged);
    match world.cancel("bad", at(2)).await {
        Err(Failure::Store(error)) => assert_eq!(error.reason, Reason::StoreDamaged),
        other => panic!("{other:?}"),
    }
    let decide: Decide = Arc::new(command_of(a_claim(), at(3)));
    let due = Due::Claim { filter: ClaimFilter::default(), now: at(3), bytes_max: usize::MAX };
    let claimed = world.store.update_due(due, 5, decide).await.unwrap();
    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0].operation.name, name("good"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_database_the_store_says_so_soon() {
    let mut options = options();
    options.url = "postgres://nobody@127.0.0.1:1/nothing?sslmode=disable".into();
    let refused = error(Postgres::open(&options, Arc::new(Deaf)).await);
    assert_eq!(refused.reason, Reason::StoreUnavailable);
    assert!(refused.retry_after.is_some());
    options.schema = "Robert'); DROP".into();
    let refused = error(Postgres::open(&options, Arc::new(Deaf)).await);
    assert_eq!(refused.reason, Reason::ConfigInvalid);
}
