//! The binary itself, killed at any moment: what it acknowledged is there afterwards.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use longhaul_wire::v1::Effects;
use tempfile::TempDir;
use tokio::sync::watch;

use crate::harness::client::{List, Wire};
use crate::harness::process::Process;
use crate::harness::samples::{ALL, Asked};
use crate::harness::{Claim, Client, Failure, Say, Seen, Worker, soon};

const CLIENTS: usize = 8;
/// A lease that outlasts every test.
const LONG: Duration = Duration::from_secs(600);
/// After how many acknowledged calls of a round the server is killed: once for each.
const MOMENTS: [usize; 24] =
    [1, 2, 3, 5, 8, 9, 10, 12, 14, 17, 20, 23, 26, 29, 33, 37, 41, 47, 53, 59, 67, 73, 83, 97];

/// What one client was told, and what it asked for without being told.
#[derive(Default)]
struct Told {
    started: Vec<(String, Seen)>,
    cancelled: Vec<String>,
    unanswered: Option<String>,
}

/// Clients alternate between the wires and the APIs.
fn client(number: usize, process: &Process) -> Client {
    let wire = if number.is_multiple_of(2) { Wire::Http } else { Wire::Grpc };
    let sample = ALL[number % ALL.len()];
    Client::new(process.address, wire, sample, format!("project-{number}"))
}

fn asked(request_id: &str) -> Asked<'_> {
    Asked { id: request_id, request_id, validate_only: false }
}

/// Starts and cancels until the line breaks.
async fn use_until_killed(client: Client, round: usize, calls: watch::Sender<usize>) -> Told {
    let mut told = Told::default();
    for number in 0.. {
        let request_id = format!("request-{round}-{number}");
        match client.try_start(asked(&request_id)).await {
            Ok(seen) => told.started.push((request_id, seen)),
            Err(failure) => {
                is_broken_line(&failure);
                told.unanswered = Some(request_id);
                break;
            }
        }
        calls.send_modify(|calls| *calls += 1);
        if number % 3 == 2 {
            continue;
        }
        let name = told.started.last().expect("one was just started").1.name.clone();
        match client.try_cancel(&name).await {
            Ok(()) => told.cancelled.push(name),
            Err(failure) => {
                is_broken_line(&failure);
                break;
            }
        }
        calls.send_modify(|calls| *calls += 1);
    }
    told
}

#[track_caller]
fn is_broken_line(failure: &Failure) {
    assert_eq!(failure.reason, "", "only the line may fail: {failure:?}");
}

/// Demands that everything a client was told is so, and repeats what it was not told about.
async fn check(client: &Client, told: &mut Told) {
    for (request_id, seen) in &told.started {
        let found = client.get(&seen.name).await;
        assert_eq!(found.metadata_type, seen.metadata_type);
        let again = client.try_start(asked(request_id)).await.unwrap();
        assert_eq!(again.name, seen.name, "a repeated start is the first one, also after a crash");
    }
    for name in &told.cancelled {
        let found = client.get(name).await;
        // Dataproc's metadata does not tell of the request, only of the end.
        let by_metadata = !client.sample.tells_cancellation || found.requested_cancellation;
        assert!(found.code == Some(1) || by_metadata, "an acknowledged cancel is gone: {found:?}");
    }
    if let Some(request_id) = told.unanswered.take() {
        let seen = client.try_start(asked(&request_id)).await.unwrap();
        told.started.push((request_id, seen));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_by_kill_9() {
    let began = Instant::now();
    let folder = TempDir::new().unwrap();
    let arguments = ["--duration", "150ms", "--cancel-delay", "20ms"];
    let mut names: Vec<BTreeSet<String>> = vec![BTreeSet::new(); CLIENTS];
    let mut cancels = 0;
    let mut process = Process::dev(folder.path(), &arguments).await;
    for (round, moment) in MOMENTS.into_iter().enumerate() {
        let (calls, mut enough) = watch::channel(0);
        let clients = (0..CLIENTS).map(|number| {
            tokio::spawn(use_until_killed(client(number, &process), round, calls.clone()))
        });
        let clients: Vec<_> = clients.collect();
        soon("enough calls", enough.wait_for(|calls| *calls >= moment)).await.unwrap();
        process.kill().await;
        process = Process::dev(folder.path(), &arguments).await;
        for (number, told) in clients.into_iter().enumerate() {
            let mut told = soon("the broken line", told).await.unwrap();
            check(&client(number, &process), &mut told).await;
            cancels += told.cancelled.len();
            names[number].extend(told.started.into_iter().map(|(_, seen)| seen.name));
        }
    }
    for (number, names) in names.iter().enumerate() {
        let listed = every_name(&client(number, &process)).await;
        assert_eq!(&listed, names, "each start, acknowledged or repeated, made one operation");
    }
    let starts: usize = names.iter().map(BTreeSet::len).sum();
    println!("{} kills, {starts} starts, {cancels} cancels, {:?}", MOMENTS.len(), began.elapsed());
    assert_eq!(process.terminate().await, Some(0));
}

async fn every_name(client: &Client) -> BTreeSet<String> {
    let (mut names, mut asked) = (BTreeSet::new(), List { page_size: 50, ..List::default() });
    loop {
        let page = client.try_list(&asked).await.unwrap();
        names.extend(page.operations.into_iter().map(|seen| seen.name));
        if page.next.is_empty() {
            return names;
        }
        asked.page_token = page.next;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_practice_worker_cancels_and_completes() {
    let folder = TempDir::new().unwrap();
    let arguments = ["--duration", "300ms", "--cancel-delay", "20ms"];
    let process = Process::dev(folder.path(), &arguments).await;
    for number in 0..2 * ALL.len() {
        let client = client(number, &process);
        let (finished, stopped) = (client.start("a").await.name, client.start("b").await.name);
        client.cancel(&stopped).await;
        client.done(&stopped).await.is_cancelled();
        let ended = client.done(&finished).await;
        assert_eq!(ended.response.as_deref(), Some(client.sample.response_type), "{ended:?}");
    }
    assert_eq!(process.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_same_folder_is_refused() {
    let folder = TempDir::new().unwrap();
    let process = Process::dev(folder.path(), &[]).await;
    let name = client(0, &process).start("a").await.name;
    let ended = Process::dev_that_fails(folder.path()).await;
    assert!(ended.code.is_some_and(|code| code != 0), "{ended:?}");
    let folder_name = folder.path().to_string_lossy();
    assert!(ended.errors.contains(&*folder_name), "{ended:?}");
    client(0, &process).get(&name).await;
    process.kill().await;
    // A lock that dies with its process does not keep the next one out.
    let process = Process::dev(folder.path(), &[]).await;
    client(0, &process).get(&name).await;
    assert_eq!(process.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn termination_answers_what_is_held_and_exits_with_0() {
    let folder = TempDir::new().unwrap();
    let process = Process::dev(folder.path(), &["--duration", "1h"]).await;
    let client = client(1, &process);
    let name = client.start("a").await.name;
    let waiting = client.clone();
    let wait = tokio::spawn(async move {
        let short = Some(Duration::from_millis(100));
        waiting.try_wait(&name, short, None).await.unwrap().is_running();
        waiting.try_wait(&name, None, None).await
    });
    let began = Instant::now();
    assert_eq!(process.terminate().await, Some(0));
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    if let Ok(seen) = soon("the wait", wait).await.unwrap() {
        seen.is_running();
    }
}

/// A server without a practice worker, whose leases last a second.
async fn serve(folder: &TempDir) -> Process {
    let data = folder.path().join("data");
    let text = format!(
        "listen = \"127.0.0.1:0\"\ndata = {:?}\n[workers]\nlease = \"1s\"\n",
        data.display().to_string()
    );
    Process::serve(&text).await
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_and_cancels_survive_kill_9_and_come_to_their_end() {
    let folder = TempDir::new().unwrap();
    let process = serve(&folder).await;
    let (before, worker) = (client(0, &process), Worker::new(process.address, Wire::Http, "w"));
    let claimed = async |id: &str, lease| {
        let name = before.start(id).await.name;
        worker.claim_for(&name, lease).await
    };
    let finishing = claimed("finishing", Some(LONG)).await;
    let stopping = claimed("stopping", Some(LONG)).await;
    let silent = claimed("silent", None).await;
    let taken_over = claimed("taken-over", None).await;
    before.cancel(&stopping.operation).await;
    before.cancel(&silent.operation).await;
    process.kill().await;

    let process = serve(&folder).await;
    let (after, worker) = (client(0, &process), Worker::new(process.address, Wire::Grpc, "w"));
    worker.report(stopping.item(Say::Alive)).await.wants("CANCEL");
    worker.report(stopping.item(Say::Stopped(Effects::None))).await.wants("STOP");
    after.get(&stopping.operation).await.is_cancelled();
    worker.report(finishing.item(Say::Success(after.sample.response()))).await.wants("STOP");
    assert!(after.get(&finishing.operation).await.response.is_some());
    // Nobody speaks for this one any more: the cancel is carried out when its lease is over.
    let waiting = Client::new(process.address, Wire::Grpc, after.sample, &*after.project);
    waiting.done(&silent.operation).await.is_cancelled();
    let again = worker.claim(&taken_over.operation).await;
    assert!(again.epoch > taken_over.epoch, "{again:?}");
    let late = taken_over.item(Say::Success(after.sample.response()));
    worker.report(late).await.refused_as("LEASE_LOST");
    assert_eq!(process.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_end_that_a_worker_was_told_of_is_lost_by_kill_9() {
    let folder = TempDir::new().unwrap();
    let mut process = serve(&folder).await;
    for moment in [1, 4, 9, 16, 25, 36] {
        let (ends, mut enough) = watch::channel(0);
        let workers = (0..4).map(|number| {
            let client = client(number, &process);
            let worker = Worker::new(process.address, client.wire, format!("w{number}"));
            tokio::spawn(work_until_killed(client, worker, ends.clone()))
        });
        let workers: Vec<_> = workers.collect();
        soon("enough ends", enough.wait_for(|ends| *ends >= moment)).await.unwrap();
        process.kill().await;
        process = serve(&folder).await;
        for (number, ended) in workers.into_iter().enumerate() {
            let client = client(number, &process);
            for (name, response) in soon("the broken line", ended).await.unwrap() {
                let found = client.get(&name).await;
                let kept = if response { found.response.is_some() } else { found.code == Some(9) };
                assert!(kept, "an acknowledged end is gone: {found:?}");
            }
        }
    }
    assert_eq!(process.terminate().await, Some(0));
}

/// Starts, claims and ends operations until the line breaks: every other one well. Returns the names
/// of those whose end was acknowledged, and whether it was a good one.
async fn work_until_killed(
    client: Client,
    worker: Worker,
    ends: watch::Sender<usize>,
) -> Vec<(String, bool)> {
    let (mut acknowledged, mut well) = (Vec::new(), false);
    let claim = Claim { max: 1, queues: vec![client.sample.prefix.into()], ..Claim::default() };
    loop {
        if let Err(failure) = client.try_start(Asked { id: "a", ..Asked::default() }).await {
            is_broken_line(&failure);
            return acknowledged;
        }
        let Ok(claimed) = worker.try_claim(&claim).await else { return acknowledged };
        for held in claimed {
            well = !well;
            let say = match well {
                true => Say::Success(client.sample.response()),
                false => Say::Failure(9, "no".into(), false),
            };
            let Ok(verdicts) = worker.try_report(vec![held.item(say)], Duration::ZERO).await else {
                return acknowledged;
            };
            // After a restart a lease of before may have run out meanwhile; that is a refusal.
            if verdicts[0].refused.is_none() {
                acknowledged.push((held.operation, well));
                ends.send_modify(|ends| *ends += 1);
            }
        }
    }
}
