//! The APIs that come with the program, and the definitions that all APIs share.
//!
//! Loaded through the same door as a user's own API; nothing here knows what an API does. The files
//! are made by `cargo xtask codegen`.

use std::sync::{Arc, OnceLock};

use longhaul_core::{Error, Reason};

use crate::api::{Api, ApiSource};
use crate::message::{Descriptors, MessageType};
use crate::v1;

macro_rules! bundle {
    ($($folder:literal)*) => {
        &[$(Bundle {
            name: $folder,
            descriptor_set: include_bytes!(concat!("../../../apis/", $folder, "/descriptor_set.binpb")),
            service_config: include_str!(concat!("../../../apis/", $folder, "/service.yaml")),
            settings: include_str!(concat!("../../../apis/", $folder, "/settings.yaml")),
        }),*]
    };
}

struct Bundle {
    name: &'static str,
    descriptor_set: &'static [u8],
    service_config: &'static str,
    settings: &'static str,
}

const BUNDLES: &[Bundle] = bundle![
    "clouddeploy"
    "privateca"
    "storagebatchoperations"
    "dataproc"
    "cloudaicompanion"
];

const COMMON: &[u8] = include_bytes!("../../../apis/common/descriptor_set.binpb");

/// The names by which a configuration asks for bundled APIs, such as `clouddeploy`.
pub fn names() -> impl Iterator<Item = &'static str> {
    BUNDLES.iter().map(|bundle| bundle.name)
}

/// Every bundled API, in the order of [`names`].
///
/// Fails only when a bundled file is wrong, which a test rules out.
pub fn load_all() -> Result<Vec<Arc<Api>>, Error> {
    BUNDLES.iter().map(Bundle::load).collect()
}

/// One bundled API. Fails with `CONFIG_INVALID` when there is none of this name.
pub fn load(name: &str) -> Result<Arc<Api>, Error> {
    let bundle = BUNDLES.iter().find(|bundle| bundle.name == name).ok_or_else(|| {
        let known = names().collect::<Vec<_>>().join(", ");
        Error::new(
            Reason::ConfigInvalid,
            format!("there is no bundled API {name:?}; bundled are {known}"),
        )
        .with("name", name)
    })?;
    bundle.load()
}

/// Longhaul's own API.
pub fn native() -> Result<Arc<Api>, Error> {
    Api::load(&ApiSource {
        descriptor_set: v1::DESCRIPTOR_SET,
        descriptor_set_file: "proto/longhaul/v1",
        service_config: v1::SERVICE_CONFIG,
        service_config_file: "proto/longhaul/v1/longhaul.yaml",
        native: true,
        ..ApiSource::default()
    })
}

/// The definitions that all APIs share: `google.longrunning`, `google.rpc`, `google.api`,
/// `google.type` and the well-known types.
pub fn common() -> Result<&'static Descriptors, Error> {
    static PARSED: OnceLock<Result<Descriptors, String>> = OnceLock::new();
    let parsed = PARSED.get_or_init(|| Descriptors::parse(COMMON).map_err(|error| error.message));
    parsed.as_ref().map_err(|why| Error::new(Reason::ApiInvalid, format!("apis/common: {why}")))
}

/// The same, encoded: for reflection and for imports of a user's `.proto` files.
#[must_use]
pub const fn common_descriptor_set() -> &'static [u8] {
    COMMON
}

/// A well-known type, `google.protobuf.…`, which every API may use without importing it.
pub(crate) fn well_known(full_name: &str) -> Option<MessageType> {
    if !full_name.starts_with("google.protobuf.") {
        return None;
    }
    common().ok()?.message(full_name)
}

impl Bundle {
    fn load(&self) -> Result<Arc<Api>, Error> {
        let name = self.name;
        Api::load(&ApiSource {
            descriptor_set: self.descriptor_set,
            descriptor_set_file: &format!("apis/{name}/descriptor_set.binpb"),
            service_config: self.service_config,
            service_config_file: &format!("apis/{name}/service.yaml"),
            settings: self.settings,
            settings_file: &format!("apis/{name}/settings.yaml"),
            native: false,
        })
    }
}
