//! Cancels with Google's Rust client as somebody who may, and as everybody who must not.
//!
//! Prints one case a line, in JSON: what the client's user sees. `conformance/auth` runs it and owns what it
//! should have been.

use std::collections::BTreeMap;
use std::future::Future;

use google_cloud_auth::credentials::{
    CacheableResource, Credentials, CredentialsProvider, EntityTag, anonymous, service_account,
};
use google_cloud_auth::errors::CredentialsError;
use google_cloud_deploy_v1::client::CloudDeploy;
use google_cloud_gax::error::Error;
use google_cloud_gax::error::rpc::StatusDetails;
use http::{Extensions, HeaderMap, HeaderValue};
use serde_json::{Value, json};

/// A token that is sent as it is, good or not.
#[derive(Debug)]
struct Fixed(String);

impl CredentialsProvider for Fixed {
    async fn headers(
        &self,
        _: Extensions,
    ) -> Result<CacheableResource<HeaderMap>, CredentialsError> {
        let mut data = HeaderMap::new();
        let value = HeaderValue::from_str(&format!("Bearer {}", self.0)).expect("a token is text");
        data.insert(http::header::AUTHORIZATION, value);
        Ok(CacheableResource::New { entity_tag: EntityTag::new(), data })
    }

    async fn universe_domain(&self) -> Option<String> {
        None
    }
}

fn told(name: &str) -> String {
    let name = format!("AUTH_{name}");
    std::env::var(&name).unwrap_or_else(|_| panic!("{name} is set by conformance/auth/run"))
}

fn token(name: &str) -> Credentials {
    Credentials::from(Fixed(told(name)))
}

fn file(name: &str) -> Credentials {
    let text = std::fs::read_to_string(told(&format!("FILE_{name}"))).expect("the file is there");
    let key = serde_json::from_str(&text).expect("the file is JSON");
    service_account::Builder::new(key).build().expect("the file is an account's")
}

async fn client(who: Credentials) -> CloudDeploy {
    CloudDeploy::builder()
        .with_endpoint(told("URL"))
        .with_credentials(who)
        .build()
        .await
        .expect("a client needs no server to be built")
}

/// What comes of a call, as its caller sees it.
async fn shown<T>(call: impl Future<Output = Result<T, Error>>) -> Value {
    let Err(error) = call.await else { return json!("done") };
    let Some(status) = error.status() else {
        return json!({"class": "no status", "message": error.to_string()});
    };
    let mut shown = json!({
        "class": "Error",
        "http": error.http_status_code(),
        "code": status.code.name(),
        "message": status.message,
    });
    for detail in &status.details {
        if let StatusDetails::ErrorInfo(info) = detail {
            shown["reason"] = json!(info.reason);
            shown["domain"] = json!(info.domain);
            shown["metadata"] = json!(info.metadata.iter().collect::<BTreeMap<_, _>>());
        }
    }
    shown
}

fn print(name: &str, shown: &Value) {
    println!("{}", json!({"case": name, "shown": shown}));
}

async fn cancel(who: Credentials, name: String) -> Value {
    let client = client(who).await;
    shown(client.cancel_operation().set_name(name).send()).await
}

/// The same call for what is there and for what is not.
fn hidden(verb: &str, there: Value, absent: Value) {
    println!("{}", json!({"case": format!("hidden: {verb}"), "shown": there, "absent": absent}));
}

#[tokio::main]
async fn main() {
    let ours = || told("OPERATION");
    let refused = [
        ("no token", anonymous::Builder::new().build(), ours()),
        ("an expired token", token("EXPIRED"), ours()),
        ("another audience", token("AUDIENCE"), ours()),
        ("alg none", token("NONE"), ours()),
        ("HMAC with the public key", token("HMAC"), ours()),
        ("a token without the scope", token("SCOPE"), ours()),
        ("without the permission", file("VIEWER"), ours()),
        ("another project's operation", file("ADMIN"), told("FOREIGN")),
    ];
    for (case, who, name) in refused {
        print(case, &cancel(who, name).await);
    }

    let may = client(file("ADMIN")).await;
    let (there, absent) = (told("FOREIGN"), told("FOREIGN_ABSENT"));
    let get = |name: &String| shown(may.get_operation().set_name(name).send());
    hidden("get", get(&there).await, get(&absent).await);
    let cancel_it = |name: &String| shown(may.cancel_operation().set_name(name).send());
    hidden("cancel", cancel_it(&there).await, cancel_it(&absent).await);
    let delete = |name: &String| shown(may.delete_operation().set_name(name).send());
    hidden("delete", delete(&there).await, delete(&absent).await);
    let list = |name: String| shown(may.list_operations().set_name(name).send());
    hidden("list", list(told("FOREIGN_PARENT")).await, list(told("ABSENT_PARENT")).await);

    print("absent of one's own", &cancel(file("ADMIN"), told("ABSENT")).await);
    print("permitted, a token", &cancel(token("GOOD"), told("BY_TOKEN")).await);
    print("permitted, an account's file", &cancel(file("ADMIN"), told("BY_FILE")).await);
}
