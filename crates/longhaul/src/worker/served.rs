//! Which methods a worker serves, and their messages as the JSON that commands read and write.

use std::sync::Arc;

use longhaul_client::worker::{Any, Assignment};
use longhaul_server::config::{ApiConfig, load_api};
use longhaul_wire::api::{Api, Method, StartMethod};
use longhaul_wire::bundled;
use longhaul_wire::json::{self, JsonOptions, UnknownAny};
use longhaul_wire::message::{Message, MessageType};
use longhaul_wire::respond::response_from_request;
use serde_json::{Map, Value};

use super::Args;
use crate::failure::{Exit, Failure};
use crate::practice;

/// One method that starts operations, and its API.
#[derive(Clone, Debug)]
pub struct Served {
    api: Arc<Api>,
    method: Arc<Method>,
}

/// Finds the methods that the command line names.
pub fn find(args: &Args) -> Result<Vec<Served>, Failure> {
    let api = api(args)?;
    args.method.iter().map(|name| method(&api, name)).collect()
}

fn api(args: &Args) -> Result<Arc<Api>, Failure> {
    let own = ApiConfig {
        descriptor_set: args.api_descriptor.clone(),
        proto: args.proto.clone(),
        service_config: args.service_config.clone(),
        ..ApiConfig::default()
    };
    if own.descriptor_set.is_some() || own.proto.is_some() {
        let api = load_api(&own)
            .map_err(|error| Failure::usage(error.message).because(error.reason.name()))?;
        return match &args.api {
            Some(name) if !is_called(&api, name) => Err(Failure::usage(format!(
                "the API is called {:?} or {:?}, not {name:?}",
                api.prefix(),
                &**api.name()
            ))),
            Some(_) | None => Ok(api),
        };
    }
    let name = args.api.as_deref().unwrap_or_default();
    let apis = bundled::load_all()
        .map_err(|error| Failure::new(Exit::Failed, error.message).because(error.reason.name()))?;
    let known: Vec<&str> = bundled::names().collect();
    apis.iter().find(|api| is_called(api, name)).cloned().ok_or_else(|| {
        let said = if name.is_empty() { "no API is named" } else { "there is no such API" };
        Failure::usage(format!("{said}; bundled are {}", known.join(", ")))
            .help("name one with --api, or bring your own with --proto or --api-descriptor")
    })
}

fn is_called(api: &Api, name: &str) -> bool {
    [api.prefix(), api.name(), api.service_label()].contains(&name)
}

/// `CreateRelease`, `CloudDeploy.CreateRelease`, the full name, or one of them as gRPC writes it.
fn method(api: &Arc<Api>, name: &str) -> Result<Served, Failure> {
    let dotted = name.trim_start_matches('/').replace('/', ".");
    let fits = |full: &str| {
        full.strip_suffix(dotted.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    let found: Vec<_> = api.start_methods().filter(|method| fits(&method.full_name)).collect();
    match found.as_slice() {
        [method] => Ok(Served { api: api.clone(), method: (*method).clone() }),
        [] => {
            let names: Vec<_> = api.start_methods().map(|method| method.name()).collect();
            let message = format!("no method {name:?} of {} starts an operation", api.name());
            Err(Failure::usage(message).help(format!("these do: {}", names.join(", "))))
        }
        several => {
            let names: Vec<_> = several.iter().map(|method| &*method.full_name).collect();
            Err(Failure::usage(format!("{name:?} may be {}; say which", names.join(" or "))))
        }
    }
}

impl Served {
    /// A method of a bundled API, for tests of what is done with it.
    #[cfg(test)]
    pub fn bundled(api: &str, name: &str) -> Self {
        let api = bundled::load(api).expect("it is bundled");
        method(&api, name).expect("it has this method")
    }

    /// Full name of the method.
    pub fn full_name(&self) -> &str {
        &self.method.full_name
    }

    /// Name of the API, such as `clouddeploy.googleapis.com`.
    pub fn api_name(&self) -> &str {
        self.api.name()
    }

    fn start(&self) -> Result<&StartMethod, String> {
        self.method.start().ok_or_else(|| format!("{} starts no operation", self.full_name()))
    }

    fn request(&self, assignment: &Assignment) -> Result<Message, String> {
        let bytes = assignment.request.as_ref().map(|request| request.value.as_slice());
        Message::decode(&self.method.input, bytes.unwrap_or_default())
            .map_err(|error| error.message)
    }

    /// The request of the start, as JSON on one line.
    pub fn input(&self, assignment: &Assignment) -> Result<String, String> {
        let options = JsonOptions { unknown_any: UnknownAny::Raw, ..JsonOptions::default() };
        let text = json::to_json(&self.request(assignment)?, &*self.api, &options);
        let mut text = text.map_err(|error| error.message)?;
        text.push(b'\n');
        String::from_utf8(text).map_err(|error| error.to_string())
    }

    /// The response that a command wrote, or the one that the request foretells when it wrote none.
    pub fn response(&self, output: &str, assignment: &Assignment) -> Result<Any, String> {
        let start = self.start()?;
        let response = if output.trim().is_empty() {
            let request = self.request(assignment)?;
            response_from_request(start, &request, &assignment.target)
        } else {
            json::from_json(&start.response_type, output.as_bytes(), &*self.api)
        };
        let response = response.map_err(|error| {
            format!(
                "standard output is not a {}: {}",
                start.response_type.full_name(),
                error.message
            )
        })?;
        Ok(any(&start.response_type, &response))
    }

    /// The stored metadata with these fields set. `None` when its type does not take them.
    pub fn metadata(&self, stored: Option<&Any>, fields: Map<String, Value>) -> Option<Any> {
        let ty = &self.start().ok()?.metadata_type;
        let stored = Message::decode(ty, &stored?.value).ok()?;
        let text = json::to_json(&stored, &*self.api, &JsonOptions::default()).ok()?;
        let mut json: Map<String, Value> = serde_json::from_slice(&text).ok()?;
        for (name, value) in fields {
            let field = ty.field(&name)?.json_name().to_owned();
            json.insert(field, value);
        }
        let text = serde_json::to_vec(&json).ok()?;
        Some(any(ty, &json::from_json(ty, &text, &*self.api).ok()?))
    }

    /// The stored metadata with the progress in it, where its type has a field for that.
    pub fn progress(&self, assignment: &Assignment, percent: f32, message: &str) -> Option<Any> {
        practice::told(&self.api, self.start().ok()?, assignment, percent, message)
    }
}

fn any(ty: &MessageType, message: &Message) -> Any {
    let type_url = format!("type.googleapis.com/{}", ty.full_name());
    Any { type_url, value: message.encode() }
}

/// Fails unless the program can be found and run.
pub fn check_program(program: &std::ffi::OsStr) -> Result<(), Failure> {
    use std::os::unix::fs::PermissionsExt;
    let runs = |file: &std::path::Path| {
        file.metadata()
            .is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
    };
    let path = std::path::Path::new(program);
    let found = if path.components().count() > 1 || program.as_encoded_bytes().contains(&b'/') {
        runs(path)
    } else {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&folders).any(|folder| runs(&folder.join(path)))
    };
    if found {
        return Ok(());
    }
    let shown = path.display();
    Err(Failure::new(Exit::Usage, format!("there is no program {shown} that could be run"))
        .help("name one on PATH, or give its path, such as ./import.sh; it must be executable"))
}
