//! Starts on one resource that meet on several servers.

use longhaul_core::{Parallel, Refusal, Start};

use super::options;
use super::servers::server;
use crate::Failure;
use crate::conformance::world::{a_start, at, is_done, name};

fn alone(id: &str, target: &str, parallel: Parallel) -> Start {
    let mut start = a_start(id);
    start.target = target.into();
    start.policy.parallel = parallel;
    start
}

/// Starts on a few resources through three servers at once, in batches whose resources overlap.
async fn check_leave_one(parallel: Parallel, targets: usize, started_of_each: usize) {
    let options = options();
    let servers = [server(&options), server(&options), server(&options)];
    let tasks: Vec<_> = (0..90)
        .map(|task| {
            let world = servers[task % 3].clone();
            // Each server meets the resources in an order of its own.
            let target = (task * (task % 3 + 1)) % targets;
            tokio::spawn(async move {
                let start = alone(&format!("o{task}"), &format!("targets/{target}"), parallel);
                match world.start_at(start, at(1)).await {
                    Ok(applied) => Some((target, applied.operation.name)),
                    Err(Failure::Refused(Refusal::TargetBusy)) => None,
                    Err(other) => panic!("{other}"),
                }
            })
        })
        .collect();
    let mut started = vec![Vec::new(); targets];
    for task in tasks {
        if let Some((target, name)) = task.await.expect("it does not panic") {
            started[target].push(name);
        }
    }
    for (target, started) in started.iter().enumerate() {
        let mut live = 0;
        for name in started {
            let read = servers[0].store.get(name).await.expect("a read").expect("it is there");
            live += usize::from(!is_done(&read));
        }
        assert_eq!(live, 1, "on {target}, of {} that started", started.len());
        assert!(started.len() >= started_of_each);
        assert!(parallel != Parallel::Refuse || started.len() == 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_starts_on_one_resource_through_several_servers_one_is_taken() {
    check_leave_one(Parallel::Refuse, 5, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_starts_that_supersede_each_other_through_several_servers_one_is_left() {
    check_leave_one(Parallel::Supersede, 5, 2).await;
}

/// A start waits for one on another server that is not committed yet, and then sees it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resource_is_free_again_after_an_end_on_another_server() {
    let options = options();
    let (first, second) = (server(&options), server(&options));
    let start = |id: &str| alone(id, "targets/t", Parallel::Refuse);
    first.start_at(start("a"), at(0)).await.unwrap();
    match second.start_at(start("b"), at(1)).await {
        Err(Failure::Refused(Refusal::TargetBusy)) => {}
        other => panic!("{other:?}"),
    }
    first.cancel("a", at(2)).await.unwrap();
    let b = second.start_at(start("b"), at(3)).await.unwrap();
    assert_eq!(b.operation.name, name("b"));
}
