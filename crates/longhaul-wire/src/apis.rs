//! The APIs that one server has, and which of them a call means.
//!
//! The wire of `google.longrunning` does not say it: several APIs share one method name and one path.
//! In this order: the listener's API, the host, a URL prefix; then only the operation's id, which the
//! store knows, or for a list the only pattern that fits. Source: DESIGN §2; CONTRACT 0.1 and 2.6.

use std::collections::HashMap;
use std::sync::Arc;

use longhaul_core::{Error, Reason};

use crate::api::{Api, HttpCall, Method};
use crate::bundled;
use crate::http_rule::HttpMethod;
use crate::message::{MessageType, TypeResolver};

/// The APIs of one server.
#[derive(Clone, Debug, Default)]
pub struct Apis {
    all: Vec<Arc<Api>>,
    native: Option<Arc<Api>>,
    by_name: HashMap<String, Arc<Api>>,
    by_prefix: HashMap<String, Arc<Api>>,
}

/// Which API a call means, as far as the call itself says.
#[derive(Clone, Debug)]
pub struct Which<'p> {
    /// The API; `None` when any may be meant.
    pub api: Option<Arc<Api>>,
    /// The path without the prefix that named the API.
    pub path: &'p str,
}

impl Apis {
    /// The set of these APIs, in this order. One of them may be Longhaul's own.
    ///
    /// Fails with `API_INVALID` when two have the same name, host or prefix.
    pub fn new(all: Vec<Arc<Api>>) -> Result<Self, Error> {
        let mut apis = Self::default();
        for api in all {
            if api.is_native() {
                apis.native = Some(api);
                continue;
            }
            let hosts = &api.settings().hosts;
            for host in std::iter::once(&**api.name()).chain(hosts.iter().map(String::as_str)) {
                let host = host.to_ascii_lowercase();
                if let Some(other) = apis.by_name.insert(host.clone(), api.clone()) {
                    return Err(twice("host", &host, &other, &api, "hosts"));
                }
            }
            if !api.prefix().is_empty() {
                let prefix = api.prefix().to_owned();
                if let Some(other) = apis.by_prefix.insert(prefix.clone(), api.clone()) {
                    return Err(twice("prefix", &prefix, &other, &api, "prefix"));
                }
            }
            apis.all.push(api);
        }
        Ok(apis)
    }

    /// Every API but Longhaul's own, in the order given.
    #[must_use]
    pub fn all(&self) -> &[Arc<Api>] {
        &self.all
    }

    /// Longhaul's own API, if it was given.
    #[must_use]
    pub fn native(&self) -> Option<&Arc<Api>> {
        self.native.as_ref()
    }

    /// The API of this name, such as `clouddeploy.googleapis.com`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Api>> {
        let named = self.all.iter().find(|api| &**api.name() == name);
        named.or_else(|| self.native.as_ref().filter(|api| &**api.name() == name))
    }

    /// Which API a call means: the listener's, then the host's, then the path prefix's.
    ///
    /// `listener` is the name of the API that a port was given to; `host` is `Host` or `:authority`
    /// as it came; `raw_path` is the URL's path, percent-encoded. A path of Longhaul's own API means
    /// that API, whatever the host.
    #[must_use]
    pub fn which<'p>(
        &self,
        listener: Option<&str>,
        host: Option<&str>,
        raw_path: &'p str,
    ) -> Which<'p> {
        let own = self.native.as_ref().filter(|api| !api.http_methods_at(raw_path).is_empty());
        if let Some(own) = own {
            return Which { api: Some(own.clone()), path: raw_path };
        }
        let named = listener.and_then(|name| self.get(name));
        let named = named.or_else(|| host.and_then(|host| self.by_host(host)));
        if let Some(api) = named {
            let stripped = strip_prefix(raw_path, api.prefix());
            return Which { api: Some(api.clone()), path: stripped.unwrap_or(raw_path) };
        }
        let prefix = raw_path.strip_prefix('/').and_then(|path| path.split('/').next());
        if let Some(api) = prefix.and_then(|prefix| self.by_prefix.get(prefix))
            && let Some(path) = strip_prefix(raw_path, api.prefix())
        {
            return Which { api: Some(api.clone()), path };
        }
        Which { api: None, path: raw_path }
    }

    /// The API that a host name means: its own name, one of its further hosts, or a regional
    /// (`us-central1-dataproc.googleapis.com`, `clouddeploy.us-central1.rep.googleapis.com`), mTLS
    /// (`dataproc.mtls.googleapis.com`) or local (`dataproc.localhost`) form. Case and port do not
    /// count.
    #[must_use]
    pub fn by_host(&self, host: &str) -> Option<&Arc<Api>> {
        let host = host.trim().to_ascii_lowercase();
        let host = match host.rsplit_once(':') {
            Some((name, port)) if port.chars().all(|c| c.is_ascii_digit()) => name,
            Some(_) | None => &host,
        };
        let host = host.strip_suffix('.').unwrap_or(host);
        if let Some(api) = self.by_name.get(host) {
            return Some(api);
        }
        // No API's host is as long as that, and a caller decides how long this one is.
        if host.len() > 255 {
            return None;
        }
        self.all.iter().find(|api| is_form_of(host, api.name()))
    }

    /// Every API that serves a verb and raw path, Longhaul's own first; several share the paths of
    /// operations.
    #[must_use]
    pub fn candidates_http(
        &self,
        method: &HttpMethod,
        raw_path: &str,
    ) -> Vec<(Arc<Api>, HttpCall)> {
        let every = self.native.iter().chain(&self.all);
        every.filter_map(|api| Some((api.clone(), api.find_http(method, raw_path)?))).collect()
    }

    /// Every API that has a method of this gRPC path, Longhaul's own first; all share
    /// `google.longrunning.Operations`.
    #[must_use]
    pub fn candidates_grpc(&self, path: &str) -> Vec<(Arc<Api>, Arc<Method>)> {
        let every = self.native.iter().chain(&self.all);
        every.filter_map(|api| Some((api.clone(), api.find_grpc(path)?.clone()))).collect()
    }

    /// The only API whose operations can lie under a list's `name`.
    ///
    /// Fails with `API_AMBIGUOUS` when several fit, naming the three ways to say which; with
    /// `INVALID_NAME` when none does.
    pub fn only_for_list(&self, name: &str) -> Result<&Arc<Api>, Error> {
        let fitting: Vec<&Arc<Api>> =
            self.all.iter().filter(|api| api.parent_of_list(name).is_some()).collect();
        match fitting.as_slice() {
            [only] => Ok(only),
            [] => {
                let shown: String = name.chars().take(256).collect();
                Err(Error::new(
                    Reason::InvalidName,
                    format!("no API of this server keeps operations under {shown:?}; give a parent such as \"projects/p/locations/l\""),
                )
                .with("name", shown)
                .at_field("name", "no API keeps operations there"))
            }
            several => Err(ambiguous(several)),
        }
    }
}

/// The error for a call that several APIs could mean; names the three ways to say which.
///
/// `apis` are those that fit, at least one.
#[must_use]
pub fn ambiguous(apis: &[&Arc<Api>]) -> Error {
    let names: Vec<&str> = apis.iter().map(|api| &**api.name()).collect();
    let (host, prefix) = apis
        .first()
        .map_or(("clouddeploy.googleapis.com", "clouddeploy"), |api| (&**api.name(), api.prefix()));
    let list = names.join(", ");
    Error::new(
        Reason::ApiAmbiguous,
        format!(
            "several APIs fit this request: {list}; say which by the Host header or :authority (such as {host}), by a URL prefix (such as /{prefix}/v1/...), or by a port that is given to one API"
        ),
    )
    .with("apis", list)
}

/// Whether the `User-Agent` of a gcloud command belongs to one of an API's command groups.
///
/// gcloud writes `command/gcloud.gemini.operations.list` there, with `alpha` or `beta` before the group
/// in those tracks. Any other program's text says nothing.
#[must_use]
pub fn is_gcloud_of(api: &Api, user_agent: &str) -> bool {
    let Some(command) = user_agent.split(' ').find_map(|part| part.strip_prefix("command/gcloud."))
    else {
        return false;
    };
    let command =
        command.strip_prefix("alpha.").or_else(|| command.strip_prefix("beta.")).unwrap_or(command);
    api.settings().gcloud_groups.iter().any(|group| {
        command
            .strip_prefix(group.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

/// Whether a host is a regional, mTLS or local form of an API's name.
fn is_form_of(host: &str, name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let Some((service, domain)) = name.split_once('.') else { return false };
    if host.strip_suffix(".localhost") == Some(service) {
        return true;
    }
    let Some(front) = host.strip_suffix(domain).and_then(|front| front.strip_suffix('.')) else {
        return false;
    };
    let front = front.strip_suffix(".mtls").unwrap_or(front);
    if front == service {
        return true;
    }
    if let Some(region) = front.strip_suffix(service).and_then(|r| r.strip_suffix('-')) {
        return is_location(region);
    }
    let rep = front.strip_prefix(service).and_then(|rest| rest.strip_prefix('.'));
    rep.and_then(|rest| rest.strip_suffix(".rep")).is_some_and(is_location)
}

/// `us-central1`, `eu`, `global`.
fn is_location(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && text.len() <= 63 && text.chars().all(plain)
}

/// What follows `/prefix` in a path, if it starts with it.
fn strip_prefix<'p>(raw_path: &'p str, prefix: &str) -> Option<&'p str> {
    if prefix.is_empty() {
        return None;
    }
    let rest = raw_path.strip_prefix('/')?.strip_prefix(prefix)?;
    rest.starts_with('/').then_some(rest)
}

fn twice(what: &str, value: &str, one: &Api, other: &Api, key: &str) -> Error {
    Error::new(
        Reason::ApiInvalid,
        format!(
            "{} and {} both have the {what} {value:?}; change {key} in the settings of one",
            one.name(),
            other.name()
        ),
    )
    .with("value", value)
}

impl TypeResolver for Apis {
    fn message(&self, full_name: &str) -> Option<MessageType> {
        let every = self.all.iter().chain(&self.native);
        let declared = every.into_iter().find_map(|api| api.descriptors().message(full_name));
        declared.or_else(|| bundled::common().ok()?.message(full_name))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn apis() -> Apis {
        let mut all = bundled::load_all().unwrap();
        all.push(bundled::native().unwrap());
        Apis::new(all).unwrap()
    }

    #[test]
    fn the_call_itself_says_which_api_by_listener_host_or_prefix() {
        let apis = apis();
        let ops = "/v1/projects/p/locations/l/operations";
        /// Listener, host, path; label of the API, rest of the path.
        type Row<'a> = (Option<&'a str>, Option<&'a str>, &'a str, Option<&'a str>, &'a str);
        let table: &[Row<'_>] = &[
            // A port given to one API goes before everything.
            (
                Some("dataproc.googleapis.com"),
                Some("clouddeploy.googleapis.com"),
                ops,
                Some("dataproc"),
                ops,
            ),
            // Host: exact, with port, any case, with a final dot.
            (None, Some("clouddeploy.googleapis.com"), ops, Some("clouddeploy"), ops),
            (None, Some("clouddeploy.googleapis.com:7151"), ops, Some("clouddeploy"), ops),
            (None, Some("CloudDeploy.GoogleAPIs.com."), ops, Some("clouddeploy"), ops),
            // Regional, mTLS and local forms.
            (None, Some("us-central1-dataproc.googleapis.com"), ops, Some("dataproc"), ops),
            (
                None,
                Some("clouddeploy.us-central1.rep.googleapis.com"),
                ops,
                Some("clouddeploy"),
                ops,
            ),
            (None, Some("privateca.mtls.googleapis.com"), ops, Some("privateca"), ops),
            (
                None,
                Some("us-central1-dataproc.mtls.googleapis.com:443"),
                ops,
                Some("dataproc"),
                ops,
            ),
            (None, Some("cloudaicompanion.localhost:7151"), ops, Some("cloudaicompanion"), ops),
            // Host goes before prefix, but a prefix of the same API is taken off.
            (
                None,
                Some("dataproc.googleapis.com"),
                "/clouddeploy/v1/x",
                Some("dataproc"),
                "/clouddeploy/v1/x",
            ),
            (None, Some("dataproc.googleapis.com"), "/dataproc/v1/x", Some("dataproc"), "/v1/x"),
            // Prefix.
            (None, Some("localhost:7151"), "/clouddeploy/v1/x", Some("clouddeploy"), "/v1/x"),
            (
                None,
                None,
                "/storagebatchoperations/v1/x:cancel",
                Some("storagebatchoperations"),
                "/v1/x:cancel",
            ),
            (None, None, "/clouddeployment/v1/x", None, "/clouddeployment/v1/x"),
            (None, None, "/clouddeploy", None, "/clouddeploy"),
            // Our own API, whatever the host.
            (
                None,
                Some("dataproc.googleapis.com"),
                "/longhaul/v1/leases:claim",
                Some("longhaul"),
                "/longhaul/v1/leases:claim",
            ),
            // Nothing says it.
            (None, Some("localhost"), ops, None, ops),
            (None, Some("127.0.0.1:7151"), ops, None, ops),
            (None, Some("[::1]:7151"), ops, None, ops),
            (None, Some(""), ops, None, ops),
            (None, Some("googleapis.com"), ops, None, ops),
            (None, Some("evilclouddeploy.googleapis.com"), ops, None, ops),
            (None, Some("a.b-dataproc.googleapis.com"), ops, None, ops),
            (None, Some("-dataproc.googleapis.com"), ops, None, ops),
            (None, Some("clouddeploy.googleapis.com.evil.com"), ops, None, ops),
        ];
        for (listener, host, path, label, rest) in table {
            let which = apis.which(*listener, *host, path);
            let found = which.api.as_ref().map(|api| api.service_label().to_owned());
            assert_eq!(found.as_deref(), *label, "{listener:?} {host:?} {path}");
            assert_eq!(which.path, *rest, "{listener:?} {host:?} {path}");
        }
    }

    #[test]
    fn a_list_that_several_apis_fit_is_refused_naming_the_three_ways() {
        let apis = apis();
        let error = apis.only_for_list("projects/p/locations/l").unwrap_err();
        assert_eq!(error.reason, Reason::ApiAmbiguous);
        for part in
            ["clouddeploy.googleapis.com", "dataproc.googleapis.com", "Host", "prefix", "port"]
        {
            assert!(error.message.contains(part), "{} lacks {part}", error.message);
        }
        let only = apis.only_for_list("projects/p/regions/r/operations").unwrap();
        assert_eq!(only.service_label(), "dataproc");
        assert_eq!(apis.only_for_list("nowhere").unwrap_err().reason, Reason::InvalidName);
    }

    #[test]
    fn one_path_is_served_by_several_apis() {
        let apis = apis();
        let path = "/v1/projects/p/locations/l/operations/o:cancel";
        let labels: Vec<String> = apis
            .candidates_http(&HttpMethod::Post, path)
            .iter()
            .map(|(api, _)| api.service_label().to_owned())
            .collect();
        assert_eq!(
            labels,
            ["clouddeploy", "privateca", "storagebatchoperations", "dataproc", "cloudaicompanion"]
        );
        let native = apis.candidates_http(&HttpMethod::Post, "/longhaul/v1/leases:claim");
        assert_eq!(native.len(), 1);
        assert!(native[0].0.is_native());
        let get = "/google.longrunning.Operations/GetOperation";
        assert_eq!(apis.candidates_grpc(get).len(), 5);
    }

    #[test]
    fn two_apis_with_one_name_are_refused() {
        let twice = vec![bundled::load("dataproc").unwrap(), bundled::load("dataproc").unwrap()];
        assert_eq!(Apis::new(twice).unwrap_err().reason, Reason::ApiInvalid);
    }

    #[test]
    fn types_of_all_apis_and_common_ones_resolve() {
        let apis = apis();
        for name in [
            "google.cloud.deploy.v1.Release",
            "google.cloud.dataproc.v1.Cluster",
            "google.rpc.ErrorInfo",
            "google.protobuf.Empty",
            "longhaul.v1.ClaimRequest",
        ] {
            assert!(TypeResolver::message(&apis, name).is_some(), "{name}");
        }
        assert!(TypeResolver::message(&apis, "no.such.Type").is_none());
    }
}
