//! Whether the server lives and whether it can really take an operation: `/livez`, `/readyz`,
//! `/healthz`, and `grpc.health.v1`.

use std::sync::Arc;

use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use tonic::body::Body;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tower_service::Service as _;

use crate::Server;

/// `grpc.health.v1`, for the whole server and for each service.
#[derive(Clone)]
pub(crate) struct GrpcHealth {
    reporter: HealthReporter,
    service: tonic_health::pb::health_server::HealthServer<tonic_health::server::HealthService>,
    services: Arc<[String]>,
}

impl GrpcHealth {
    pub(crate) async fn new(services: Vec<String>) -> Self {
        let reporter = HealthReporter::new();
        let health = tonic_health::server::HealthService::from_health_reporter(reporter.clone());
        let service = tonic_health::pb::health_server::HealthServer::new(health);
        let this = Self { reporter, service, services: services.into() };
        this.set(true).await;
        this
    }

    pub(crate) async fn set(&self, serving: bool) {
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in self.services.iter().map(String::as_str).chain([""]) {
            self.reporter.set_service_status(service, status).await;
        }
    }

    pub(crate) async fn answer(mut self, request: Request<Incoming>) -> Response<Body> {
        match self.service.call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

impl Server {
    /// Answers a probe; `None` when the path is none.
    pub(crate) async fn probe(&self, path: &str) -> Option<Response<Body>> {
        let failure = match path {
            "/livez" => None,
            "/readyz" | "/healthz" => self.not_ready().await,
            _ => return None,
        };
        let (code, text) = match failure {
            None => {
                // Nothing is refused for it, but somebody should know.
                let faults = self.access.sources().faults();
                let faults = faults.iter().map(|fault| format!("{fault}\n"));
                (StatusCode::OK, std::iter::once("ok\n".to_owned()).chain(faults).collect())
            }
            Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        };
        let mut response = Response::new(Body::new(Full::new(text.into())));
        *response.status_mut() = code;
        let plain = http::HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, plain);
        Some(response)
    }

    /// Why an operation cannot be accepted now. Asks the store to write, since nothing less can tell.
    async fn not_ready(&self) -> Option<String> {
        if self.draining.is_cancelled() {
            return Some("the server is stopping".to_owned());
        }
        if let Some(trouble) = self.fleet.trouble() {
            return Some(trouble);
        }
        self.operations.store.ready().await.err().map(|error| error.message)
    }
}
