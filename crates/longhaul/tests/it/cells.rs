//! Lists over all locations whose operations are in several cells.

use std::net::SocketAddr;
use std::time::Duration;

use longhaul_server::config::{Auth, CellConfig};
use longhaul_wire::longrunning::{ListOperationsRequest, ListOperationsResponse};
use serde_json::{Value, json};

use crate::access::people::{self, World};
use crate::harness::grpc::Connection;
use crate::harness::http::{Answer, Ask};
use crate::harness::samples::DEPLOY;
use crate::harness::view::{Failure, detail};
use crate::harness::{Kept, Server, soon};

const EVERYWHERE: &str = "/v1/projects/p/locations/-/operations";

fn cell(location: &str, address: SocketAddr) -> CellConfig {
    let url = format!("http://{address}");
    CellConfig { location: location.into(), url, ca: None, timeout: Duration::from_secs(10) }
}

/// A server whose lists go on in these cells.
fn home(cells: Vec<CellConfig>) -> impl Future<Output = Server> {
    Server::with(Kept::InMemory, |config| config.cells = cells)
}

async fn send(server: &Server, ask: Ask) -> Answer {
    soon("an answer", ask.host(DEPLOY.host).send(server.address)).await
}

/// Starts an operation for each target and gives the names, the newest first.
async fn start(server: &Server, location: &str, targets: &[&str]) -> Vec<String> {
    let mut names = Vec::new();
    for target in targets {
        let path = format!("/v1/projects/p/locations/{location}/targets?targetId={target}");
        let started = send(server, Ask::post_json(path, &json!({}))).await.ok();
        names.insert(0, started["name"].as_str().unwrap().to_owned());
    }
    names
}

fn names(page: &Value) -> Vec<String> {
    let operations = page["operations"].as_array().map_or(&[][..], Vec::as_slice);
    operations.iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_over_all_locations_goes_on_in_the_other_cells() {
    let (east, west) = (Server::start(Kept::InMemory).await, Server::start(Kept::InMemory).await);
    let cells = vec![cell("east", east.address), cell("west", west.address)];
    let server = home(cells).await;
    let mut wanted = start(&server, "here", &["a", "b", "c"]).await;
    wanted.extend(start(&east, "east", &["d", "e", "f", "g"]).await);
    wanted.extend(start(&west, "west", &["h"]).await);
    // What a cell has under other locations is not its own to tell.
    start(&west, "elsewhere", &["i"]).await;

    for size in 1..=10 {
        let (mut seen, mut token) = (Vec::new(), String::new());
        loop {
            let path = format!("{EVERYWHERE}?pageSize={size}&pageToken={token}");
            let page = send(&server, Ask::get(path)).await.ok();
            assert!(names(&page).len() <= size, "{page}");
            assert!(page.get("unreachable").is_none(), "{page}");
            seen.extend(names(&page));
            token = page["nextPageToken"].as_str().unwrap_or_default().to_owned();
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(seen, wanted, "{size} at a time");
    }
    // A single location is told by this server alone.
    let path = "/v1/projects/p/locations/east/operations";
    assert_eq!(names(&send(&server, Ask::get(path)).await.ok()), [""; 0]);

    // A filter and the other wire.
    send(&east, Ask::post(format!("/v1/{}:cancel", wanted[3]))).await.empty_object();
    let request = ListOperationsRequest {
        name: "projects/p/locations/-".into(),
        filter: "metadata.requested_cancellation = true".into(),
        return_partial_success: true,
        ..ListOperationsRequest::default()
    };
    let grpc = Connection::new(server.address, Some(DEPLOY.host));
    let path = "/google.longrunning.Operations/ListOperations";
    let page: ListOperationsResponse = grpc.call(path, &request, None).await.unwrap();
    let seen: Vec<_> = page.operations.iter().map(|one| &one.name).collect();
    assert_eq!((seen, page.unreachable), (vec![&wanted[3]], vec![]));
    for server in [server, east, west] {
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_that_is_down_is_an_error_or_is_named() {
    let (east, west) = (Server::start(Kept::InMemory).await, Server::start(Kept::InMemory).await);
    let cells = vec![cell("east", east.address), cell("west", west.address)];
    let server = home(cells).await;
    let mut wanted = start(&server, "here", &["a"]).await;
    wanted.extend(start(&west, "west", &["b"]).await);
    east.stop().await;

    let answer = send(&server, Ask::get(EVERYWHERE)).await;
    answer.failure(503).is("UNAVAILABLE", "CELL_UNREACHABLE").says(&["location east"]);
    assert_eq!(detail(&answer.json(), "RetryInfo")["retryDelay"], "1s");

    let path = format!("{EVERYWHERE}?returnPartialSuccess=true");
    let page = send(&server, Ask::get(path)).await.ok();
    assert_eq!(names(&page), wanted);
    assert_eq!(page["unreachable"], json!(["projects/p/locations/east"]));

    // Only what crosses locations can be partial.
    let path = "/v1/projects/p/locations/here/operations?returnPartialSuccess=true";
    let refused = send(&server, Ask::get(path)).await.failure(400);
    refused.is("INVALID_ARGUMENT", "INVALID_VALUE").says(&["return_partial_success"]);
    for server in [server, west] {
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_cell_decides_what_the_caller_sees() {
    // Both know the same people; the cell lets "viewer" read, and this server "stranger" as well.
    let east = World::with(|_| {}).await;
    start_as(&east, "operator").await;
    let policy = east.folder.path().join("home.yaml");
    let members = "['user:viewer@example.com', 'user:stranger@example.com']";
    let text = format!("bindings:\n- {{role: roles/clouddeploy.viewer, members: {members}}}\n");
    std::fs::write(&policy, text).unwrap();
    let auth = Auth { policy: Some(policy), ..people::auth(east.folder.path()) };
    let server = Server::with(Kept::InMemory, |config| {
        config.auth = auth;
        config.cells = vec![cell("east", east.address())];
    });
    let server = server.await;
    let list = async |who: &str, partial: bool| {
        let path = format!("{EVERYWHERE}?returnPartialSuccess={partial}");
        let token = east.token(who).unwrap();
        let ask = Ask::get(path).header("authorization", format!("Bearer {token}"));
        send(&server, ask).await
    };
    assert_eq!(names(&list("viewer", false).await.ok()).len(), 1);
    for partial in [false, true] {
        let refused: Failure = list("stranger", partial).await.failure(403);
        refused.is("PERMISSION_DENIED", "IAM_PERMISSION_DENIED").says(&["location east"]);
    }
    east.server.stop().await;
    let page = list("stranger", true).await.ok();
    assert_eq!(page["unreachable"], json!(["projects/p/locations/east"]));
    server.stop().await;
}

async fn start_as(world: &World, who: &str) {
    let path = "/v1/projects/p/locations/east/targets?targetId=t";
    world.http(who, Ask::post_json(path, &json!({}))).await.unwrap();
}
