//! An API of somebody's own, for the choices that none of the bundled ones makes.
//!
//! Its methods: `transcode` (a cancel has a second, a success after it is discarded), `render` (has a
//! cleanup), `publish` (cannot be cancelled), `preview` (strict about late cancels, a second to live).

use std::path::Path;

use longhaul_server::Config;
use longhaul_server::config::ApiConfig;
use serde_json::json;

use super::http::Ask;
use super::place::Place;
use super::samples::Typed;
use super::view::Seen;
use super::worker::Say;

/// What it is called by.
pub const HOST: &str = "video.acme.example";

/// Serves it beside the others.
pub fn load(config: &mut Config) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/acme");
    config.apis.push(ApiConfig {
        proto: Some(folder.clone()),
        service_config: Some(folder.join("service.yaml")),
        settings: Some(folder.join("settings.yaml")),
        ..ApiConfig::default()
    });
}

/// Starts an operation by one of its verbs and gives its name.
pub async fn start(place: &Place, verb: &str) -> String {
    let path = format!("/v1/projects/{}/clips/c:{verb}", place.project);
    let ask = Ask::post_json(path, &json!({})).host(HOST);
    Seen::from_json(&ask.send(place.server.address).await.ok()).is_running().name.clone()
}

/// Reads an operation.
pub async fn get(place: &Place, name: &str) -> Seen {
    let ask = Ask::get(format!("/v1/{name}")).host(HOST);
    Seen::from_json(&ask.send(place.server.address).await.ok())
}

/// Waits for an operation's end and gives it.
pub async fn done(place: &Place, name: &str) -> Seen {
    let ask = Ask::post_json(format!("/v1/{name}:wait"), &json!({})).host(HOST);
    let seen = Seen::from_json(&ask.send(place.server.address).await.ok());
    assert!(seen.done, "{seen:?}");
    seen
}

/// The end of a good run.
pub fn clip() -> Say {
    Say::Success(Typed::named("acme.video.v1.Clip", "c"))
}
