//! Fair shares among callers who are known: one who floods is told to wait, by name, and harms nobody.

use std::time::Duration;

use longhaul_server::shares::Share;
use longhaul_wire::longrunning::{GetOperationRequest, WaitOperationRequest};
use prost::Message as _;
use serde_json::json;

use super::people::World;
use super::started;
use crate::harness::http::Ask;
use crate::harness::soon;
use crate::harness::view::detail;

/// Five calls at once, then one a second; of cancels thirty; two calls held.
fn few(config: &mut longhaul_server::Config) {
    config.shares.per_principal = Share {
        calls_per_second: 1,
        calls_burst: 5,
        cancels_per_second: 1,
        cancels_burst: 30,
        held_max: 2,
    };
}

fn start() -> Ask {
    Ask::post_json("/v1/projects/p/locations/here/targets?targetId=t", &json!({}))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_floods_starts_is_told_to_wait_by_name_and_still_cancels_while_others_are_served() {
    let world = World::with(few).await;
    let mut own = Vec::new();
    let refused = loop {
        let answer = world.answer("operator", start()).await;
        match answer.code {
            200 => own.push(answer.json()["name"].as_str().unwrap().to_owned()),
            _ => break answer,
        }
        assert!(own.len() < 100, "a hundred starts are more than a few a second");
    };
    assert!(own.len() >= 5, "the burst is there: {}", own.len());
    refused.failure(429).is("RESOURCE_EXHAUSTED", "RATE_LIMIT_EXCEEDED");
    let json = refused.json();
    let quota = &detail(&json, "QuotaFailure")["violations"][0];
    assert_eq!(quota["subject"], "principal:operator@example.com", "{json}");
    let wait = detail(&json, "RetryInfo")["retryDelay"].as_str().unwrap();
    let wait: f64 = wait.strip_suffix('s').unwrap().parse().unwrap();
    assert!(wait > 0.0 && wait <= 1.0, "{wait}");

    // The other wire has the same account of it: another second's call at most gets through.
    let get = GetOperationRequest { name: own[0].clone() }.encode_to_vec();
    let path = "/google.longrunning.Operations/GetOperation";
    let mut served = 0;
    while world.grpc("operator", path, get.clone().into()).await.is_ok() {
        served += 1;
        assert!(served < 5, "each wire has a budget of its own");
    }
    // Another caller has all of theirs, over either wire, in the same project, of the same operation.
    for _ in 0..2 {
        world.http("admin", Ask::get(format!("/v1/{}", own[0]))).await.unwrap();
        world.grpc("admin", path, get.clone().into()).await.unwrap();
    }
    // Stopping what one has begun is the last thing that is refused.
    for name in &own {
        world.http("operator", Ask::post(format!("/v1/{name}:cancel"))).await.unwrap();
        let message = GetOperationRequest { name: name.clone() }.encode_to_vec();
        let cancel = "/google.longrunning.Operations/CancelOperation";
        world.grpc("operator", cancel, message.into()).await.unwrap();
    }
    let done = world.http("root", Ask::get(format!("/v1/{}", own[0]))).await.unwrap();
    assert_eq!(done["error"]["code"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_floods_waits_keeps_those_there_are_and_nobody_else_from_nothing() {
    let plenty = |config: &mut longhaul_server::Config| {
        few(config);
        config.shares.per_principal.calls_burst = 1_000_000;
    };
    let world = World::with(plenty).await;
    let name = started(&world, "p").await;
    let path = "/google.longrunning.Operations/WaitOperation";
    let wait = |who: &'static str, seconds: i64| {
        let timeout = Some(prost_types::Duration { seconds, nanos: 0 });
        let request = WaitOperationRequest { name: name.clone(), timeout };
        world.grpc(who, path, request.encode_to_vec().into())
    };
    let flooded = async {
        // Held waits are there once one more is refused; a wait of no time is held for none.
        let refused = loop {
            match wait("operator", 0).await {
                Ok(_) => tokio::task::yield_now().await,
                Err(refused) => break refused,
            }
        };
        refused.is("RESOURCE_EXHAUSTED", "RATE_LIMIT_EXCEEDED");
        assert_eq!(refused.metadata["quota_limit"], "held_callsPerPrincipal");
        // Somebody else still waits, and the flooder's cancel ends it all.
        let (other, cancelled) = tokio::join!(wait("admin", 15), async {
            tokio::time::timeout(Duration::from_millis(100), wait("viewer", 15)).await.unwrap_err();
            world.http("operator", Ask::post(format!("/v1/{name}:cancel"))).await
        });
        cancelled.unwrap();
        other.unwrap();
    };
    let all = async { tokio::join!(wait("operator", 15), wait("operator", 15), flooded) };
    let (one, other, ()) = soon("the end of all waits", all).await;
    for answer in [one, other] {
        let operation = longhaul_wire::longrunning::Operation::decode(answer.unwrap()).unwrap();
        assert!(operation.done);
    }
}
