//! The practice worker of `longhaul dev`: takes a while, tells how far it is, stops when asked, and
//! answers with what the request asked for.
//!
//! An ordinary handler of `longhaul-client`: it sees nothing that another worker does not see. It
//! changes nothing outside, so what it leaves behind after a cancel is nothing.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use longhaul_client::worker::{
    Any, Assignment, Context, Effects, Handler, Progress, Stopped, Unfinished, Why,
};
use longhaul_wire::api::{Api, StartMethod};
use longhaul_wire::json::{self, JsonOptions};
use longhaul_wire::message::{Kind, Message, MessageType, SingularKind};
use serde_json::{Map, Value};
use tokio::time::Instant;

/// google.rpc.Code INTERNAL.
const INTERNAL: i32 = 13;
/// Most steps of one operation, and the shortest.
const STEPS_MAX: u128 = 20;
const STEP_MIN: Duration = Duration::from_millis(100);
/// Metadata fields, as APIs name them, that take a percentage.
const PERCENT_FIELDS: [&str; 5] = [
    "progress_percent",
    "progress_percentage",
    "percent_complete",
    "completion_percentage",
    "percent_done",
];
/// Metadata fields that take words about the progress and are not kept by the server.
const WORDS_FIELDS: [&str; 2] = ["status.details", "progress_message"];

/// The handler.
pub struct Practice {
    apis: Vec<Arc<Api>>,
    duration: Duration,
    cancel_delay: Duration,
}

impl Practice {
    /// Practises the methods of these APIs, `duration` for each operation and `cancel_delay` for stopping.
    pub fn new(apis: &[Arc<Api>], duration: Duration, cancel_delay: Duration) -> Self {
        Self { apis: apis.to_vec(), duration, cancel_delay }
    }

    /// The API and method of an assignment.
    fn method(
        &self,
        assignment: &Assignment,
    ) -> Result<(&Api, &StartMethod, &MessageType), Unfinished> {
        let api = self.apis.iter().find(|api| **api.name() == *assignment.api);
        let method = api.and_then(|api| api.method(&assignment.method));
        let start = method.and_then(|method| Some((method.start()?, &method.input)));
        match (api, start) {
            (Some(api), Some((start, input))) => Ok((api, start, input)),
            _ => Err(Unfinished::failed(
                INTERNAL,
                format!("the practice worker does not know the method {:?}", assignment.method),
            )),
        }
    }

    /// Waits until `until`, or stops as told.
    async fn sleep(
        &self,
        until: Instant,
        context: &Context,
        begun: bool,
    ) -> Result<(), Unfinished> {
        tokio::select! {
            biased;
            () = context.cancelled() => Err(self.stop(context, begun).await),
            () = tokio::time::sleep_until(until) => Ok(()),
        }
    }

    /// Takes its time to stop, where somebody wants to see it stop.
    async fn stop(&self, context: &Context, begun: bool) -> Unfinished {
        match context.cancellation().map(|wish| wish.why) {
            Some(Why::WorkerShutdown | Why::LeaseLost | Why::Done | Why::Deleted) => {
                return Unfinished::Released;
            }
            Some(Why::ClientCancel | Why::Deadline | Why::Superseded | Why::Unknown) | None => {}
        }
        tokio::time::sleep(self.cancel_delay).await;
        Unfinished::stopped(if begun { Effects::Undone } else { Effects::None })
    }
}

#[async_trait]
impl Handler for Practice {
    async fn run(&self, assignment: Assignment, context: Context) -> Result<Any, Unfinished> {
        let (api, start, input) = self.method(&assignment)?;
        let steps = (self.duration.as_millis() / STEP_MIN.as_millis()).min(STEPS_MAX);
        let steps = u32::try_from(steps).unwrap_or_default();
        let began = Instant::now();
        for step in 1..=steps {
            let until = began + self.duration * step / steps;
            self.sleep(until, &context, step > 1).await?;
            if step < steps {
                let percent = step as f32 * 100.0 / steps as f32;
                let message = format!("step {step} of {steps}");
                if let Some(metadata) = told(api, start, &assignment, percent, &message) {
                    context.metadata(metadata);
                }
                context.progress(Progress { percent: Some(percent), step, steps, message });
            }
        }
        if steps == 0 {
            self.sleep(began + self.duration, &context, false).await?;
        }
        response(start, input, &assignment)
    }

    async fn clean_up(&self, _: Assignment, _: Context) -> Result<Stopped, Unfinished> {
        tokio::time::sleep(self.cancel_delay).await;
        Ok(Stopped { effects: Effects::Undone.into(), message: String::new() })
    }
}

/// The metadata with the progress in it, where its type has a field for that.
pub fn told(
    api: &Api,
    start: &StartMethod,
    assignment: &Assignment,
    percent: f32,
    message: &str,
) -> Option<Any> {
    let ty = &start.metadata_type;
    let number = PERCENT_FIELDS
        .iter()
        .find(|name| ty.field(name).is_some_and(|field| is_number(field.kind())));
    let words = WORDS_FIELDS
        .iter()
        .find(|path| ty.field_at(path).is_some_and(|field| is_text(field.kind())));
    if number.is_none() && words.is_none() {
        return None;
    }
    let stored = assignment.metadata.as_ref()?;
    let mut metadata = Message::decode(ty, &stored.value).ok()?;
    if let Some(path) = words {
        metadata.set_string(path, message).ok()?;
    }
    if let Some(name) = number {
        metadata = with_number(api, ty, &metadata, name, percent)?;
    }
    Some(Any { type_url: stored.type_url.clone(), value: metadata.encode() })
}

/// Sets a field of any numeric type, by way of JSON, which knows how.
fn with_number(
    api: &Api,
    ty: &MessageType,
    message: &Message,
    name: &str,
    number: f32,
) -> Option<Message> {
    let text = json::to_json(message, api, &JsonOptions::default()).ok()?;
    let mut fields: Map<String, Value> = serde_json::from_slice(&text).ok()?;
    fields.insert(ty.field(name)?.json_name().to_owned(), Value::from(number.floor() as i64));
    json::from_json(ty, &serde_json::to_vec(&fields).ok()?, api).ok()
}

/// What the request asked for: the message of the response's type that it carries, else an empty
/// one; with what the request says of its names.
fn response(
    start: &StartMethod,
    input: &MessageType,
    assignment: &Assignment,
) -> Result<Any, Unfinished> {
    let ty = &start.response_type;
    let bytes = assignment.request.as_ref().map(|request| request.value.as_slice());
    let request = Message::decode(input, bytes.unwrap_or_default())
        .map_err(|error| Unfinished::failed(INTERNAL, error.message))?;
    let carried = input.fields().find(|field| match field.kind() {
        Kind::Single(SingularKind::Message(inner)) => inner.full_name() == ty.full_name(),
        Kind::Single(_) | Kind::Repeated(_) | Kind::Map(..) => false,
    });
    let mut response = carried
        .and_then(|field| request.get_message(field.name()))
        .unwrap_or_else(|| Message::new(ty));
    for field in ty.fields().filter(|field| is_text(field.kind())) {
        let said = if field.name() == "name" && !assignment.target.is_empty() {
            Some(assignment.target.clone())
        } else {
            request.get_string(field.name())
        };
        if let Some(said) = said.filter(|_| !response.has(field.name())) {
            response
                .set_string(field.name(), said)
                .map_err(|error| Unfinished::failed(INTERNAL, error.message))?;
        }
    }
    let type_url = format!("type.googleapis.com/{}", ty.full_name());
    Ok(Any { type_url, value: response.encode() })
}

fn is_text(kind: Kind) -> bool {
    matches!(kind, Kind::Single(SingularKind::String))
}

fn is_number(kind: Kind) -> bool {
    match kind {
        Kind::Single(
            SingularKind::Bool
            | SingularKind::String
            | SingularKind::Bytes
            | SingularKind::Enum(_)
            | SingularKind::Message(_),
        )
        | Kind::Repeated(_)
        | Kind::Map(..) => false,
        Kind::Single(_) => true,
    }
}

#[cfg(test)]
mod tests;
