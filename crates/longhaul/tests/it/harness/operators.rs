//! The operators' side over either wire, in one shape.

use std::net::SocketAddr;

use longhaul_wire::v1;
use longhaul_wire::v1::operators_client::OperatorsClient;
use serde_json::{Value, json};
use tonic::transport::Endpoint;

use super::client::Wire;
use super::grpc::Connection;
use super::http::Ask;
use super::soon;
use super::view::Failure;

/// What came of a cancel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Came {
    /// Name of the outcome.
    pub outcome: String,
    /// The operation it is about.
    pub name: String,
}

/// What an operation waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// Name of the state.
    pub state: String,
    /// The sentences, one to a line.
    pub text: String,
    /// Whether its end is bounded.
    pub bounded: bool,
}

/// A caller of `longhaul.v1.Operators`.
#[derive(Clone)]
pub struct Operators {
    address: SocketAddr,
    wire: Wire,
    grpc: Connection,
}

impl Operators {
    /// Connects when first used.
    pub fn new(address: SocketAddr, wire: Wire) -> Self {
        Self { address, wire, grpc: Connection::new(address, None) }
    }

    /// Everything about an operation, over gRPC.
    pub async fn try_describe(&self, name: &str) -> Result<v1::OperationDetail, Failure> {
        self.call("Describe", &v1::DescribeRequest { name: name.into() }).await
    }

    /// Everything about an operation that is there.
    #[track_caller]
    pub fn describe(&self, name: &str) -> impl Future<Output = v1::OperationDetail> {
        let place = std::panic::Location::caller();
        let (this, name) = (self.clone(), name.to_owned());
        async move {
            this.try_describe(&name).await.unwrap_or_else(|error| panic!("{error:?} at {place}"))
        }
    }

    /// The description once it is as `wished`; for what the server writes down after it has answered.
    pub async fn described(
        &self,
        name: &str,
        wished: impl Fn(&v1::OperationDetail) -> bool,
    ) -> v1::OperationDetail {
        soon("the description", async {
            loop {
                let detail = self.describe(name).await;
                if wished(&detail) {
                    return detail;
                }
            }
        })
        .await
    }

    /// The same as HTTP shows it.
    pub async fn describe_json(&self, name: &str) -> Value {
        Ask::get(format!("/longhaul/v1/{name}:describe")).send(self.address).await.ok()
    }

    /// Asks for cancellation with a reason.
    pub async fn try_cancel(&self, name: &str, reason: &str) -> Result<Came, Failure> {
        match self.wire {
            Wire::Http => {
                let body = json!({ "reason": reason });
                let path = format!("/longhaul/v1/{name}:cancel");
                Ok(came(&self.http(Ask::post_json(path, &body)).await?))
            }
            Wire::Grpc => {
                let request = v1::CancelRequest { name: name.into(), reason: reason.into() };
                Ok(Came::of(self.call("Cancel", &request).await?))
            }
        }
    }

    /// Asks for cancellation, which must be accepted, and says what came of it.
    #[track_caller]
    pub fn cancel(&self, name: &str, reason: &str) -> impl Future<Output = String> {
        let place = std::panic::Location::caller();
        let (this, name, reason) = (self.clone(), name.to_owned(), reason.to_owned());
        async move {
            let came = this.try_cancel(&name, &reason).await;
            let came = came.unwrap_or_else(|error| panic!("{error:?} at {place}"));
            assert_eq!(came.name, name);
            came.outcome
        }
    }

    /// Asks for cancellation by the `request_id` of the start.
    pub async fn try_cancel_by_request_id(
        &self,
        request: &v1::CancelByRequestIdRequest,
    ) -> Result<Came, Failure> {
        match self.wire {
            Wire::Http => {
                let body = json!({
                    "api": request.api,
                    "parent": request.parent,
                    "requestId": request.request_id,
                    "reason": request.reason,
                });
                let ask = Ask::post_json("/longhaul/v1/operations:cancelByRequestId", &body);
                Ok(came(&self.http(ask).await?))
            }
            Wire::Grpc => Ok(Came::of(self.call("CancelByRequestId", request).await?)),
        }
    }

    /// What an operation waits for.
    pub async fn try_explain(&self, name: &str) -> Result<Explained, Failure> {
        match self.wire {
            Wire::Http => {
                let json = self.http(Ask::get(format!("/longhaul/v1/{name}:explain"))).await?;
                let sentences = json["sentences"].as_array().cloned().unwrap_or_default();
                let sentences: Vec<_> = sentences.iter().filter_map(Value::as_str).collect();
                Ok(Explained {
                    state: text(&json["state"]),
                    text: sentences.join("\n"),
                    bounded: json["doneBy"].is_string(),
                })
            }
            Wire::Grpc => {
                let request = v1::ExplainRequest { name: name.into() };
                let explanation: v1::Explanation = self.call("Explain", &request).await?;
                Ok(Explained {
                    state: explanation.state().as_str_name().to_owned(),
                    text: explanation.sentences.join("\n"),
                    bounded: explanation.done_by.is_some(),
                })
            }
        }
    }

    /// Demands a state, words of the explanation, and whether the end is bounded.
    pub async fn explains(&self, name: &str, state: &str, words: &[&str], bounded: bool) {
        let explained = self.try_explain(name).await.unwrap();
        assert_eq!((&*explained.state, explained.bounded), (state, bounded), "{explained:?}");
        for word in words {
            assert!(explained.text.contains(word), "no {word:?} in {explained:?}");
        }
    }

    /// Begins to watch over gRPC.
    pub async fn watch(&self, request: v1::WatchRequest) -> tonic::Streaming<v1::WatchResponse> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        let mut client = OperatorsClient::new(endpoint.connect_lazy());
        soon("a watch", client.watch(request)).await.unwrap().into_inner()
    }

    async fn call<Answer: prost::Message + Default>(
        &self,
        method: &str,
        request: &impl prost::Message,
    ) -> Result<Answer, Failure> {
        let path = format!("/longhaul.v1.Operators/{method}");
        soon("an operator's answer", self.grpc.call(&path, request, None)).await
    }

    async fn http(&self, ask: Ask) -> Result<Value, Failure> {
        let answer = ask.send(self.address).await;
        if answer.code == 200 {
            Ok(answer.json())
        } else {
            Err(Failure::from_envelope(&answer.json()))
        }
    }
}

impl Came {
    fn of(response: v1::CancelResponse) -> Self {
        let outcome = response.outcome().as_str_name().to_owned();
        Self { outcome, name: response.name }
    }
}

fn came(json: &Value) -> Came {
    Came { outcome: text(&json["outcome"]), name: text(&json["name"]) }
}

fn text(json: &Value) -> String {
    json.as_str().unwrap_or_default().to_owned()
}
