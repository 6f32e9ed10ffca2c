//! The response that a start's request foretells: for `validate_only`, and for workers that only
//! practise.
//!
//! Invents nothing: what the request does not say stays unset.

use longhaul_core::Error;

use crate::api::StartMethod;
use crate::message::Message;

/// A response of the declared type: the resource that the request carries, named `target` where it
/// has no name yet; otherwise an empty message of that type.
///
/// `request` is a request of the method, `target` the resource it acts on, which may be empty.
pub fn response_from_request(
    start: &StartMethod,
    request: &Message,
    target: &str,
) -> Result<Message, Error> {
    let declared = &start.response_type;
    let carried = request.message_type().fields().find_map(|field| {
        let fits = !field.is_many() && field.message_type()?.full_name() == declared.full_name();
        if fits { request.get_message(field.name()) } else { None }
    });
    let mut response = carried.unwrap_or_else(|| Message::new(declared));
    let unnamed = response.get_str("name").is_none_or(str::is_empty);
    if unnamed && !target.is_empty() && has_text_name(&response) {
        response.set_string("name", target)?;
    }
    Ok(response)
}

fn has_text_name(message: &Message) -> bool {
    let mut probe = Message::new(&message.message_type());
    probe.set_string("name", "n").is_ok()
}
