//! The Rust worker against a real server, over lines that hold, break, or swallow everything.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use longhaul_client::worker::{Context, Effects, Error, Worker};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::harness::client::Wire;
use crate::harness::proxy::Proxy;
use crate::harness::samples::DEPLOY;
use crate::harness::{Client, Kept, Place, Server, soon};

/// Renewed every 1.2 s.
const LEASE: Duration = Duration::from_secs(6);
const RENEWAL: Duration = Duration::from_millis(1200);
/// Longest silence of a session before it is left.
const SILENCE: Duration = Duration::from_secs(1);

/// A worker whose handlers run until they are told to stop, and what they were told.
struct Listening {
    claimed: mpsc::UnboundedReceiver<String>,
    told: mpsc::UnboundedReceiver<(String, Instant)>,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), Error>>,
}

impl Listening {
    fn at(address: std::net::SocketAddr, slots: usize) -> Self {
        let (claims, claimed) = mpsc::unbounded_channel();
        let (tell, told) = mpsc::unbounded_channel();
        let worker = Worker::builder(format!("http://{address}"))
            .slots(slots)
            .lease(LEASE)
            .handle(DEPLOY.method, move |(): (), cx: Context| {
                let (claims, tell) = (claims.clone(), tell.clone());
                async move {
                    claims.send(cx.operation().to_owned()).unwrap();
                    cx.cancelled().await;
                    tell.send((cx.operation().to_owned(), Instant::now())).unwrap();
                    Err::<(), _>(cx.cancelled_with(Effects::Undone, "as asked"))
                }
            })
            .build()
            .unwrap();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(worker.run(shutdown.clone()));
        Self { claimed, told, shutdown, task }
    }

    async fn claims(&mut self, count: usize) {
        for _ in 0..count {
            soon("a claim", self.claimed.recv()).await.unwrap();
        }
    }

    async fn told(&mut self) -> (String, Instant) {
        soon("the cancel", self.told.recv()).await.unwrap()
    }

    async fn stop(self) {
        self.shutdown.cancel();
        soon("the worker's end", self.task).await.unwrap().unwrap();
    }
}

async fn server() -> (Arc<Server>, Client) {
    let server = Arc::new(Server::start(Kept::InMemory).await);
    let client = Place::on(server.clone(), Wire::Grpc).client();
    (server, client)
}

/// Starts one operation over a line, does something to the line, cancels, and says how long it took
/// until the handler heard.
async fn heard_after(break_line: impl FnOnce(&Proxy)) -> Duration {
    let (server, client) = server().await;
    let proxy = Proxy::to(server.address).await;
    let mut worker = Listening::at(proxy.address, 10);
    let name = client.start("a").await.name;
    worker.claims(1).await;
    break_line(&proxy);
    let asked = Instant::now();
    client.cancel(&name).await;
    let (told, at) = worker.told().await;
    assert_eq!(told, name);
    let ended = client.done(&name).await;
    assert_eq!(ended.code, Some(1));
    worker.stop().await;
    at - asked
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_01_a_cut_line_delays_the_cancel_by_less_than_a_renewal() {
    let delay = heard_after(Proxy::cut).await;
    assert!(delay < RENEWAL, "{delay:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_swallows_everything_is_left_for_a_new_one() {
    let delay = heard_after(Proxy::swallow).await;
    assert!(delay < RENEWAL + 2 * SILENCE, "{delay:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_operations_of_one_rust_worker_each_hear_their_cancel() {
    const COUNT: usize = 1000;
    let (server, client) = server().await;
    let mut worker = Listening::at(server.address, COUNT);
    let ids: Vec<String> = (0..COUNT).map(|n| format!("op-{n}")).collect();
    let names = join_all(ids.iter().map(|id| client.start(id))).await;
    worker.claims(COUNT).await;
    let mut delays = Vec::with_capacity(COUNT);
    for one in &names {
        let asked = Instant::now();
        client.cancel(&one.name).await;
        let (told, at) = worker.told().await;
        assert_eq!(told, one.name);
        delays.push(at - asked);
    }
    delays.sort_unstable();
    // How fast it is, the bench says; here only that nobody waits for a renewal.
    assert!(delays[COUNT / 2] < RENEWAL / 10, "{:?}", delays[COUNT / 2]);
    for one in &names {
        let ended = client.done(&one.name).await;
        assert_eq!(ended.code, Some(1), "{}", one.name);
    }
    worker.stop().await;
}
