//! W5: `kill -9` with many live operations and starts in flight, then a restart. Nothing that was answered
//! may be lost; how long until the first answer is what is measured.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::load::now;
use super::process::Server;
use super::setting::Setting;
use super::{Result, grpc, works};

/// Clients that start while the server is killed.
const STARTERS: usize = 64;
/// How long they do so before the kill.
const STARTING: Duration = Duration::from_millis(500);

/// What a crash led to.
pub(super) struct Crashed {
    /// From the start of the new process to the first operation read.
    pub first_answer: Duration,
    /// … to the first operation started.
    pub first_start: Duration,
    /// The new server, for its memory.
    pub server: Server,
}

/// Kills a server that has `live` operations, and starts it again. Fails when anything was lost.
pub(super) async fn crash(
    binary: &Path,
    folder: &Path,
    server: Server,
    live: usize,
) -> Result<Crashed> {
    let mut names = works::fill(&server, live).await?;
    let mut starters = JoinSet::new();
    for (client, mut line) in
        grpc::connect(server.address, STARTERS, None).await?.into_iter().enumerate()
    {
        starters.spawn(async move {
            let mut answered = Vec::new();
            // Ends when the server does: what was not answered may be there or not.
            for number in 0_u64.. {
                match line.start(&format!("inflight{client}-{number}")).await {
                    Ok(name) => answered.push(name),
                    Err(_) => break,
                }
            }
            answered
        });
    }
    sleep(STARTING).await;
    drop(server);
    while let Some(answered) = starters.join_next().await {
        names.append(&mut answered?);
    }
    let begin = now();
    let server = Server::longhaul(binary, folder, Setting::Plain).await?;
    let mut line = grpc::connect(server.address, 1, None).await?.remove(0);
    line.get(&names[0]).await?;
    let first_answer = now() - begin;
    line.start("after-the-crash").await?;
    let first_start = now() - begin;
    let lost = lost(&server, names).await?;
    if lost > 0 {
        return Err(format!("{lost} operations that were answered are lost").into());
    }
    Ok(Crashed { first_answer, first_start, server })
}

async fn lost(server: &Server, names: Vec<String>) -> Result<usize> {
    let names = Arc::new(names);
    let next = Arc::new(AtomicUsize::new(0));
    let mut readers = JoinSet::new();
    for mut line in grpc::connect(server.address, STARTERS, None).await? {
        let (names, next) = (names.clone(), next.clone());
        readers.spawn(async move {
            let mut lost = 0;
            while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                lost += usize::from(line.get(name).await.is_err());
            }
            lost
        });
    }
    let mut lost = 0;
    while let Some(read) = readers.join_next().await {
        lost += read?;
    }
    Ok(lost)
}
