//! Several servers on one PostgreSQL, each a process of the binary: whatever one of them does, the others
//! see, and whoever waits anywhere is woken.
//!
//! Built only with the feature `test-postgres`; the database's address comes from `LONGHAUL_TEST_POSTGRES`.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use longhaul_wire::v1::desired_state::{Action, Reason};
use longhaul_wire::v1::{self, Effects};

use crate::harness::client::{List, Wire};
use crate::harness::operators::Operators;
use crate::harness::process::Process;
use crate::harness::round_robin::RoundRobin;
use crate::harness::samples::{Asked, DEPLOY};
use crate::harness::session::{Session, open};
use crate::harness::{Ask, Claim, Client, Say, Worker, soon};

static SCHEMAS: AtomicU32 = AtomicU32::new(0);
const MINUTE: Duration = Duration::from_secs(60);

/// Where a test keeps its operations: a schema that no other has.
struct Database {
    url: String,
    schema: String,
}

impl Database {
    fn new() -> Self {
        let url = std::env::var("LONGHAUL_TEST_POSTGRES")
            .expect("LONGHAUL_TEST_POSTGRES is the address of a database to test with");
        let number = SCHEMAS.fetch_add(1, Ordering::Relaxed);
        Self { url, schema: format!("fleet_{}_{number}", std::process::id()) }
    }

    /// The same behind something that can be cut.
    fn behind(&self, way: &RoundRobin) -> Self {
        let (before, after) = self.url.split_once('@').expect("the address names a user");
        let (_, name) = after.split_once('/').expect("the address names a database");
        let url = format!("{before}@{}/{name}", way.address);
        Self { url, schema: self.schema.clone() }
    }

    /// Its host and port.
    fn address(&self) -> SocketAddr {
        let (_, after) = self.url.split_once('@').expect("the address names a user");
        let (address, _) = after.split_once('/').expect("the address names a database");
        address.parse().expect("the address is one of numbers")
    }

    async fn server(&self) -> Process {
        let Self { url, schema } = self;
        Process::serve(&format!(
            "listen = \"127.0.0.1:0\"\nstore = {url:?}\n[postgres]\nschema = {schema:?}\n\
             connect_timeout = \"2s\"\nanswer_timeout = \"4s\"\nstatement_timeout = \"3s\"\n"
        ))
        .await
    }

    async fn servers(&self) -> [Process; 3] {
        [self.server().await, self.server().await, self.server().await]
    }
}

fn client(server: &Process, wire: Wire) -> Client {
    Client::new(server.address, wire, &DEPLOY, "fleet")
}

fn worker(server: &Process, wire: Wire) -> Worker {
    Worker::new(server.address, wire, "w")
}

/// Waits at a server until the operation is done, in the background.
fn waiting(server: &Process, name: &str) -> tokio::task::JoinHandle<crate::harness::Seen> {
    let (client, name) = (client(server, Wire::Grpc), name.to_owned());
    tokio::spawn(async move { client.done(&name).await })
}

#[tokio::test(flavor = "multi_thread")]
async fn start_on_one_wait_on_the_second_cancel_on_the_third_while_the_worker_is_on_the_first() {
    let [one, two, three] = Database::new().servers().await;
    for wire in [Wire::Http, Wire::Grpc] {
        let name = client(&one, wire).start("a").await.name;
        let worker = worker(&one, wire);
        let held = worker.claim(&name).await;
        let waited = waiting(&two, &name);
        let (hanging, item) = (worker.clone(), held.item(Say::Alive));
        let heard = tokio::spawn(async move { hanging.report_waiting(item, MINUTE).await });
        client(&three, wire).cancel(&name).await;
        soon("the cancel", heard).await.unwrap().wants("CANCEL");
        worker.report(held.item(Say::Stopped(Effects::None))).await.wants("STOP");
        soon("the end", waited).await.unwrap().is_cancelled();
        client(&three, wire).get(&name).await.is_cancelled();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_on_one_server_works_for_clients_of_the_others() {
    let [one, two, three] = Database::new().servers().await;
    let (mut session, _) = Session::open(one.address, open("w", 10)).await;
    let name = client(&two, Wire::Http).start("a").await.name;
    let held = session.assigned(&name).await;
    client(&three, Wire::Grpc).cancel(&name).await;
    let wanted = session.wanted(&held).await;
    assert_eq!((wanted.action(), wanted.reason()), (Action::Cancel, Reason::ClientCancel));
    let waited = waiting(&two, &name);
    session.report(held.item(Say::Stopped(Effects::None))).await.wants("STOP");
    soon("the end", waited).await.unwrap().is_cancelled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_claim_gets_what_is_started_elsewhere() {
    let [one, two, _three] = Database::new().servers().await;
    let worker = worker(&one, Wire::Grpc);
    let claim = Claim { wait: MINUTE, ..Claim::default() };
    let claiming = tokio::spawn(async move { worker.try_claim(&claim).await });
    let name = client(&two, Wire::Grpc).start("a").await.name;
    let given = soon("the claim", claiming).await.unwrap().unwrap();
    assert_eq!(given.iter().map(|held| &*held.operation).collect::<Vec<_>>(), [name]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_sees_what_is_done_elsewhere() {
    let [one, two, three] = Database::new().servers().await;
    let name = client(&one, Wire::Grpc).start("a").await.name;
    let names = vec![name.clone()];
    let operators = Operators::new(two.address, Wire::Grpc);
    let mut watch = operators.watch(v1::WatchRequest { names, ..Default::default() }).await;
    let mut state = async || {
        let seen = soon("a change", watch.message()).await.unwrap().unwrap();
        seen.operation.unwrap().state()
    };
    assert_eq!(state().await, v1::State::Queued);
    client(&three, Wire::Grpc).cancel(&name).await;
    assert_eq!(state().await, v1::State::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_one_server_goes_on_at_another() {
    let [one, two, _three] = Database::new().servers().await;
    let first = client(&one, Wire::Http);
    let mut started = Vec::new();
    for id in ["a", "b", "c"] {
        started.push(first.start(id).await.name);
    }
    let asked = List { page_size: 2, ..List::default() };
    let page = first.try_list(&asked).await.unwrap();
    let rest = List { page_token: page.next.clone(), ..asked };
    let rest = client(&two, Wire::Http).try_list(&rest).await.unwrap();
    let listed: Vec<_> = page.names().into_iter().chain(rest.names()).collect();
    started.reverse();
    assert_eq!(listed, started);
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_20_one_request_id_at_all_servers_at_once_starts_one_operation() {
    let servers = Database::new().servers().await;
    for round in 0..5 {
        let key = format!("key-{round}");
        let starts = (0..12).map(|number| {
            let (client, key) = (client(&servers[number % 3], Wire::Grpc), key.clone());
            tokio::spawn(async move {
                let asked = Asked { id: "a", request_id: &key, ..Asked::default() };
                client.try_start(asked).await.unwrap().name
            })
        });
        let mut names = Vec::new();
        for start in starts.collect::<Vec<_>>() {
            names.push(soon("a start", start).await.unwrap());
        }
        names.dedup();
        assert_eq!(names.len(), 1, "{names:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_repeated_to_another_server_gets_the_same_leases() {
    let [one, two, three] = Database::new().servers().await;
    let name = client(&three, Wire::Grpc).start("a").await.name;
    client(&three, Wire::Grpc).start("b").await;
    let claim = Claim { max: 1, claim_id: "c-1".into(), ..Claim::default() };
    let given = worker(&one, Wire::Grpc).try_claim(&claim).await.unwrap();
    assert_eq!(given[0].operation, name);
    let again = worker(&two, Wire::Http).try_claim(&claim).await.unwrap();
    assert_eq!(again, given);
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_01_a_lost_notification_costs_about_a_second() {
    let database = Database::new();
    // Nothing that listens gets through: the second server hears of nothing by itself.
    let way = RoundRobin::marking(vec![Some(database.address())], Some("LISTEN")).await;
    let (one, two) = (database.server().await, database.behind(&way).server().await);
    way.block_marked(true);
    for round in 0..3 {
        let name = client(&one, Wire::Grpc).start("a").await.name;
        let held = worker(&two, Wire::Grpc).claim(&name).await;
        let (hanging, item) = (worker(&two, Wire::Grpc), held.item(Say::Alive));
        let heard = tokio::spawn(async move { hanging.report_waiting(item, MINUTE).await });
        let began = Instant::now();
        client(&one, Wire::Grpc).cancel(&name).await;
        soon("the cancel", heard).await.unwrap().wants("CANCEL");
        println!("round {round}: heard without a notification after {:?}", began.elapsed());
        // A second by design; the machine of a test may be slow.
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        way.cut_marked();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_is_away_a_server_says_so_and_comes_back_by_itself() {
    let database = Database::new();
    let way = RoundRobin::over(vec![Some(database.address())]).await;
    let (one, two) = (database.server().await, database.behind(&way).server().await);
    let name = client(&one, Wire::Http).start("a").await.name;
    let there = client(&two, Wire::Http);
    there.get(&name).await;
    way.set(0, None);
    way.cut();
    let ready = async || Ask::get("/readyz").send(two.address).await.code;
    assert_eq!(soon("an answer of the probe", ready()).await, 503);
    let refused = soon("a refusal", there.try_get(&name)).await.unwrap_err();
    refused.is("UNAVAILABLE", "STORE_UNAVAILABLE");
    let refused = soon("a refusal", there.try_cancel(&name)).await.unwrap_err();
    refused.is("UNAVAILABLE", "STORE_UNAVAILABLE");
    client(&one, Wire::Http).cancel(&name).await;
    way.set(0, Some(database.address()));
    soon("the way back", async { while ready().await != 200 {} }).await;
    there.get(&name).await.is_cancelled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_takes_nothing_with_it() {
    let [one, two, three] = Database::new().servers().await;
    let name = client(&one, Wire::Grpc).start("a").await.name;
    let held = worker(&one, Wire::Grpc).claim(&name).await;
    let waited = waiting(&two, &name);
    one.kill().await;
    let worker = worker(&three, Wire::Grpc);
    worker.report(held.item(Say::Success(DEPLOY.response()))).await.wants("STOP");
    assert!(soon("the end", waited).await.unwrap().response.is_some());
}
