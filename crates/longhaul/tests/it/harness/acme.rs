//! An API of somebody's own, for the choices that none of the bundled ones makes.
//!
//! Its methods: `transcode` (a cancel has a second, a success after it is discarded), `render` (has a
//! cleanup), `publish` (cannot be cancelled), `preview` (strict about late cancels, a second to live), `archive`
//! (one at a time on a clip), `grade` (the newest one on a clip counts).

use std::path::Path;

use longhaul_server::Config;
use longhaul_server::config::ApiConfig;
use longhaul_wire::longrunning::Operation;
use serde_json::json;

use super::client::Wire;
use super::grpc::Connection;
use super::http::Ask;
use super::place::Place;
use super::samples::Typed;
use super::soon;
use super::view::{Failure, Seen};
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

/// A request of any of its methods.
#[derive(Clone, PartialEq, prost::Message)]
struct TranscodeRequest {
    #[prost(string, tag = "1")]
    name: String,
}

/// Starts an operation on a clip over the place's wire, if the server lets it, and gives its name.
pub async fn try_start(place: &Place, verb: &str, clip: &str) -> Result<String, Failure> {
    let name = format!("projects/{}/clips/{clip}", place.project);
    match place.wire {
        Wire::Http => {
            let ask = Ask::post_json(format!("/v1/{name}:{verb}"), &json!({})).host(HOST);
            let answer = ask.send(place.server.address).await;
            if answer.code != 200 {
                return Err(Failure::from_envelope(&answer.json()));
            }
            Ok(Seen::from_json(&answer.ok()).name)
        }
        Wire::Grpc => {
            let method = format!("{}{}", verb[..1].to_uppercase(), &verb[1..]);
            let path = format!("/acme.video.v1.Video/{method}");
            let connection = Connection::new(place.server.address, Some(HOST));
            let request = TranscodeRequest { name };
            let calling = connection.call(&path, &request, None);
            let operation: Operation = soon("a start", calling).await?;
            Ok(operation.name)
        }
    }
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
