//! gRPC server reflection, `v1` and `v1alpha`, over the descriptors of every loaded API.

use std::convert::Infallible;

use http::{Request, Response};
use hyper::body::Incoming;
use longhaul_core::{Error, Reason};
use longhaul_wire::apis::Apis;
use tonic::body::Body;
use tonic_reflection::server::Builder;
use tower::util::BoxCloneSyncService;
use tower_service::Service as _;

type Reflecting = BoxCloneSyncService<Request<Incoming>, Response<Body>, Infallible>;

/// Both versions of the service; some tools speak only the older one.
#[derive(Clone)]
pub(crate) struct Reflection {
    v1: Reflecting,
    v1alpha: Reflecting,
}

impl Reflection {
    pub(crate) fn new(apis: &Apis) -> Result<Self, Error> {
        let every = apis.native().into_iter().chain(apis.all());
        let mut sets: Vec<_> = every.map(|api| api.descriptors().raw().clone()).collect();
        sets.push(bytes::Bytes::from_static(longhaul_wire::bundled::common_descriptor_set()));
        let builder = || {
            sets.iter().fold(Builder::configure(), |builder, set| {
                builder.register_encoded_file_descriptor_set(set)
            })
        };
        let wrong = |error: tonic_reflection::server::Error| {
            Error::new(Reason::ApiInvalid, format!("the descriptors cannot be reflected: {error}"))
        };
        Ok(Self {
            v1: BoxCloneSyncService::new(builder().build_v1().map_err(wrong)?),
            v1alpha: BoxCloneSyncService::new(builder().build_v1alpha().map_err(wrong)?),
        })
    }

    pub(crate) async fn answer(mut self, request: Request<Incoming>) -> Response<Body> {
        let older = request.uri().path().starts_with("/grpc.reflection.v1alpha.");
        let service = if older { &mut self.v1alpha } else { &mut self.v1 };
        match service.call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}
