//! Keys that an issuer publishes: fetched, changed, withdrawn, out of reach, and not worth believing.

use std::time::Duration;

use longhaul_server::config::Auth;
use serde_json::json;

use super::people::{Signer, World, claims, key_set};
use crate::harness::http::Ask;
use crate::harness::process::Process;
use crate::harness::published::{Published, Says};
use crate::harness::samples::DEPLOY;
use crate::harness::soon;

/// Asks the URL for keys instead of the file.
fn from(published: &Published) -> impl FnOnce(&mut Auth) {
    let url = published.url();
    move |auth| {
        auth.issuers[0].jwks_file = None;
        auth.issuers[0].jwks_url = Some(url);
        auth.refetch_wait = Duration::from_millis(20);
    }
}

/// A server of its own: each asks for keys by itself.
async fn started(change: impl FnOnce(&mut Auth)) -> World {
    World::alone(|config| change(&mut config.auth)).await
}

/// The status that a token is answered with: 404, for nothing is there, where it counts.
async fn asked(world: &World, token: &str) -> u16 {
    let ask = Ask::get("/v1/projects/p/locations/here/operations/none").host(DEPLOY.host);
    ask.header("authorization", format!("Bearer {token}")).send(world.address()).await.code
}

async fn until(what: &'static str, reached: impl AsyncFn() -> bool) {
    let looking = async {
        while !reached().await {
            // tidy: sleep: a pause between two looks; the caller has a deadline
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(what, looking).await;
}

async fn ready(world: &World) -> String {
    let answer = Ask::get("/readyz").send(world.address()).await;
    assert_eq!(answer.code, 200, "keys that do not come are no reason to take no calls");
    String::from_utf8(answer.body.to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_counts_as_soon_as_a_token_names_it() {
    let (first, second) = (Signer::new("k1"), Signer::new("k2"));
    let published = Published::saying(Says::Body(first.key_set())).await;
    let world = started(from(&published)).await;
    assert_eq!(published.asked(), 1, "once, at the start");
    let (old, new) = (first.sign(&claims("root")), second.sign(&claims("root")));
    assert_eq!(asked(&world, &old).await, 404);
    assert_eq!(asked(&world, &new).await, 401);
    published.say(Says::Body(key_set(&[&first, &second])));
    // The next look at the URL by the clock is an hour away: the token itself makes the server ask.
    until("the new key", async || asked(&world, &new).await == 404).await;
    assert_eq!(asked(&world, &old).await, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_with_made_up_keys_cost_the_issuer_one_request() {
    let issuer = Signer::new("k1");
    let published = Published::saying(Says::Body(issuer.key_set())).await;
    let seldom = |auth: &mut Auth| {
        from(&published)(auth);
        auth.refetch_wait = Duration::from_secs(3_600);
    };
    let world = started(seldom).await;
    for number in 0..30 {
        let token = Signer::new(&format!("made-up-{number}")).sign(&claims("root"));
        assert_eq!(asked(&world, &token).await, 401);
    }
    assert_eq!(published.asked(), 1);
    assert_eq!(asked(&world, &issuer.sign(&claims("root"))).await, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_withdrawn_counts_no_more_not_even_for_tokens_seen_before() {
    let (first, second) = (Signer::new("k1"), Signer::new("k2"));
    let published = Published::saying(Says::Body(key_set(&[&first, &second]))).await;
    let often = |auth: &mut Auth| {
        from(&published)(auth);
        auth.issuers[0].jwks_refresh = Duration::from_millis(30);
    };
    let world = started(often).await;
    let (old, new) = (first.sign(&claims("root")), second.sign(&claims("root")));
    assert_eq!((asked(&world, &old).await, asked(&world, &new).await), (404, 404));
    published.say(Says::Body(second.key_set()));
    until("the end of the old key", async || asked(&world, &old).await == 401).await;
    assert_eq!(asked(&world, &new).await, 404);
    assert_eq!(ready(&world).await, "ok\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_issuer_says_instead_of_keys_the_ones_before_go_on_counting() {
    let (issuer, stranger, next) = (Signer::new("k1"), Signer::new("k2"), Signer::new("k3"));
    let published = Published::saying(Says::Body(issuer.key_set())).await;
    let elsewhere = Published::saying(Says::Body(stranger.key_set())).await;
    let often = |auth: &mut Auth| {
        from(&published)(auth);
        auth.issuers[0].jwks_refresh = Duration::from_millis(30);
        auth.jwks_timeout = Duration::from_millis(300);
    };
    let world = started(often).await;
    let (good, bad) = (issuer.sign(&claims("root")), stranger.sign(&claims("root")));
    let half = issuer.key_set()[..60].to_owned();
    let many: Vec<_> = (0..1_001).map(|n| json!({"kty": "oct", "kid": n.to_string()})).collect();
    for (says, word) in [
        (Says::Nothing, "request"),
        (Says::Status(500, stranger.key_set()), "500"),
        (Says::Status(404, String::new()), "404"),
        (Says::Body(half), "no JSON Web Key Set"),
        (Says::Body("<html>sign in</html>".to_owned()), "no JSON Web Key Set"),
        (Says::Body("{\"keys\": []}".to_owned()), "no key"),
        (Says::Body(json!({"keys": [{"kty": "EC", "crv": "P-256"}]}).to_string()), "has no x"),
        (Says::Body(json!({ "keys": many }).to_string()), "more than 1000 keys"),
        (Says::Redirect(elsewhere.url()), "302"),
        (Says::Endless, "more than 1048576 bytes"),
        (Says::Silence, "timed out"),
        (Says::Status(500, String::new()), "500"),
        (Says::Drops, "timed out"),
    ] {
        published.say(says.clone());
        until("a word about it", async || {
            let ready = ready(&world).await;
            ready.contains("auth.issuer https://issuer.example") && ready.contains(word)
        })
        .await;
        assert_eq!(asked(&world, &good).await, 404, "{says:?}");
        assert_eq!(asked(&world, &issuer.sign(&claims("admin"))).await, 404, "{says:?}");
        assert_eq!(asked(&world, &bad).await, 401, "{says:?}");
    }
    assert_eq!(elsewhere.asked(), 0, "nobody is sent elsewhere");
    published.say(Says::Body(next.key_set()));
    until("the end of the trouble", async || ready(&world).await == "ok\n").await;
    assert_eq!(asked(&world, &next.sign(&claims("root"))).await, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_starts_without_its_issuer_and_finds_it_later() {
    let issuer = Signer::new("k1");
    let published = Published::saying(Says::Silence).await;
    let quick = |auth: &mut Auth| {
        from(&published)(auth);
        auth.jwks_timeout = Duration::from_millis(100);
    };
    let world = soon("a start without keys", started(quick)).await;
    let token = issuer.sign(&claims("root"));
    assert_eq!(asked(&world, &token).await, 401);
    published.say(Says::Body(issuer.key_set()));
    // An hour is how long keys are current, not how long their absence is.
    until("the keys", async || ready(&world).await == "ok\n").await;
    assert_eq!(asked(&world, &token).await, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_once_and_loudly_that_the_keys_do_not_come_and_that_they_do_again() {
    let (issuer, folder) = (Signer::new("k1"), tempfile::TempDir::new().unwrap());
    let published = Published::saying(Says::Body(issuer.key_set())).await;
    let configuration = format!(
        "listen = \"127.0.0.1:0\"\n[auth]\nmode = \"jwt\"\nreload_every = \"20ms\"\nrefetch_wait = \"20ms\"\n\n\
         [[auth.issuer]]\nname = \"https://issuer.example\"\naudiences = [\"longhaul\"]\n\
         jwks_refresh = \"20ms\"\njwks_url = {:?}\n",
        published.url()
    );
    let log = folder.path().join("log");
    let process = Process::serve_logged(&configuration, &log, &[]).await;
    let logged = || std::fs::read_to_string(log.with_extension("err")).unwrap();
    published.say(Says::Status(503, String::new()));
    until("a word in the log", async || logged().contains("still counts")).await;
    let asked = published.asked();
    until("further requests", async || published.asked() > asked + 5).await;
    published.say(Says::Body(issuer.key_set()));
    until("the end of the trouble", async || logged().contains("is good again")).await;
    assert_eq!(process.terminate().await, Some(0));
    let told: Vec<_> =
        logged().lines().filter(|it| it.contains("still counts")).map(str::to_owned).collect();
    assert_eq!(told.len(), 1, "{told:#?}");
    for word in ["ERROR", "https://issuer.example", "503", &published.url()] {
        assert!(told[0].contains(word), "{word}: {told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_issuer_keeps_no_new_policy_waiting() {
    let issuer = Signer::new("k1");
    let published = Published::saying(Says::Body(issuer.key_set())).await;
    let patient = |auth: &mut Auth| {
        from(&published)(auth);
        auth.issuers[0].jwks_refresh = Duration::from_millis(30);
        auth.jwks_timeout = Duration::from_secs(3_600);
    };
    let world = started(patient).await;
    published.say(Says::Silence);
    until("a request that is not answered", async || published.waiting() == 1).await;
    let token = issuer.sign(&claims("viewer"));
    assert_eq!(asked(&world, &token).await, 404);
    world.write_policy("bindings: [{role: roles/owner, members: ['user:root@example.com']}]");
    until("the new policy", async || asked(&world, &token).await == 403).await;
    assert_eq!(published.waiting(), 1, "the server still waits for keys");
    world.server.stop().await;
}
