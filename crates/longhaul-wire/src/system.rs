//! System parameters: what a caller may say about any call, beside the request itself.
//!
//! Taken out of the query before anything is bound, after percent-decoding, so that `$alt` and
//! `%24alt` are the same. Parameters that would change the answer in a way this server does not
//! offer are refused, never ignored. Source: cloud.google.com/apis/docs/system-parameters.

mod mask;

use std::borrow::Cow;

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use longhaul_core::{Error, Reason};

pub use mask::ResponseMask;

use crate::http_rule::HttpMethod;
use crate::status::ErrorFormat;

/// Most pairs in a query; a form body may be longer than a URL.
const PAIRS_MAX: usize = 10_000;

/// What a caller said about the call.
#[derive(Clone, PartialEq, Eq)]
pub struct SystemParameters {
    /// `alt=json;enum-encoding=int`: numbers for enum values in the answer.
    pub enums_as_ints: bool,
    /// `prettyPrint`: line breaks in the answer; true unless asked otherwise.
    pub pretty: bool,
    /// `$outputDefaults`: also writes fields that hold their default.
    pub print_defaults: bool,
    /// `fields`: which parts of the answer are wanted.
    pub fields: Option<ResponseMask>,
    /// `$.xgafv`: the layout of an error.
    pub error_format: ErrorFormat,
    /// `key`: an API key.
    pub key: Option<String>,
    /// `quotaUser`: whom a quota counts for.
    pub quota_user: Option<String>,
    /// `$userProject`: the project that pays.
    pub user_project: Option<String>,
    /// `$apiVersion`: the version of the interface that the caller was built for.
    pub api_version: Option<String>,
}

impl Default for SystemParameters {
    fn default() -> Self {
        Self {
            enums_as_ints: false,
            pretty: true,
            print_defaults: false,
            fields: None,
            error_format: ErrorFormat::default(),
            key: None,
            quota_user: None,
            user_project: None,
            api_version: None,
        }
    }
}

impl std::fmt::Debug for SystemParameters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // An API key is a secret, so the fields that callers fill are left out.
        f.debug_struct("SystemParameters").field("pretty", &self.pretty).finish_non_exhaustive()
    }
}

/// Reads the system parameters of a raw query and of the headers; gives back the other pairs of
/// the query, decoded, in their order.
///
/// The query wins over a header. Fails with `SYSTEM_PARAMETER_UNSUPPORTED`, or `INVALID_VALUE`
/// when an escape is malformed or there are too many pairs.
pub fn extract(
    raw_query: &str,
    headers: &HeaderMap,
) -> Result<(SystemParameters, Vec<(String, String)>), Error> {
    let mut parameters = SystemParameters::default();
    let mut rest = Vec::new();
    for (position, pair) in raw_query.split('&').filter(|pair| !pair.is_empty()).enumerate() {
        if position == PAIRS_MAX {
            return Err(Error::new(
                Reason::InvalidValue,
                format!("the query has more than {PAIRS_MAX} parameters"),
            ));
        }
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (key, value) = (decode(key)?, decode(value)?);
        if !parameters.take(&key, &value)? {
            rest.push((key.into_owned(), value.into_owned()));
        }
    }
    parameters.take_headers(headers)?;
    Ok((parameters, rest))
}

/// The token that a raw query carries, if it does: `access_token` or `oauth_token`, the last one.
#[must_use]
pub fn query_token(raw_query: &str) -> Option<String> {
    if !raw_query.contains("_token") {
        return None;
    }
    let mut tokens = raw_query.split('&').filter_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        let key = decode(key).ok()?;
        matches!(key.trim_start_matches('$'), "access_token" | "oauth_token").then_some(value)
    });
    tokens.next_back().and_then(|value| decode(value).ok()).map(Cow::into_owned)
}

impl SystemParameters {
    /// Takes one pair of the query; false when it is no system parameter.
    fn take(&mut self, key: &str, value: &str) -> Result<bool, Error> {
        match key {
            "$alt" | "alt" => self.take_alt(key, value)?,
            "$prettyPrint" | "prettyPrint" => self.pretty = truth(key, value, true)?,
            "$outputDefaults" => self.print_defaults = truth(key, value, false)?,
            "$fields" | "fields" => {
                if !value.is_empty() {
                    self.fields = Some(ResponseMask::parse(value)?);
                }
            }
            "$.xgafv" => {
                self.error_format = match value {
                    "1" => ErrorFormat::V1,
                    "2" | "" => ErrorFormat::V2,
                    _ => return Err(unsupported(key, value, "it takes 1 or 2")),
                };
            }
            "$key" | "key" => set(&mut self.key, value),
            "access_token" | "$access_token" | "oauth_token" | "$oauth_token" => {
                // Read by `query_token`, before anything else; kept nowhere.
            }
            "$quotaUser" | "quotaUser" => set(&mut self.quota_user, value),
            "$userProject" => set(&mut self.user_project, value),
            "$apiVersion" => set(&mut self.api_version, value),
            "uploadType" | "$uploadType" | "upload_protocol" | "$upload_protocol" => {
                if !matches!(value, "" | "json") {
                    return Err(unsupported(key, value, "this server takes no uploads"));
                }
            }
            "$ct" => {
                if !value.is_empty() && !value.starts_with("application/json") {
                    return Err(unsupported(key, value, "bodies are application/json"));
                }
            }
            "$callback" | "callback" | "$httpMethod" | "$httpHeaders" | "$req" => {
                if !value.is_empty() {
                    return Err(unsupported(key, value, "send a plain request instead"));
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn take_alt(&mut self, key: &str, value: &str) -> Result<(), Error> {
        let mut words = value.split(';').map(str::trim);
        match words.next() {
            Some("json" | "") | None => {}
            Some(_) => return Err(unsupported(key, value, "this server answers with json")),
        }
        for word in words {
            match word {
                "enum-encoding=int" => self.enums_as_ints = true,
                "enum-encoding=string" | "" => {}
                _ => return Err(unsupported(key, value, "the only option is enum-encoding=int")),
            }
        }
        Ok(())
    }

    fn take_headers(&mut self, headers: &HeaderMap) -> Result<(), Error> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        if self.fields.is_none()
            && let Some(mask) = text("x-goog-fieldmask").filter(|mask| !mask.is_empty())
        {
            self.fields = Some(ResponseMask::parse(mask)?);
        }
        let named = [
            (&mut self.key, "x-goog-api-key"),
            (&mut self.quota_user, "x-goog-quota-user"),
            (&mut self.user_project, "x-goog-user-project"),
            (&mut self.api_version, "x-goog-api-version"),
        ];
        for (parameter, name) in named {
            if parameter.is_none() {
                set(parameter, text(name).unwrap_or_default());
            }
        }
        Ok(())
    }
}

/// A request as it is meant, after a method override.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective<'a> {
    /// The verb to look up.
    pub method: HttpMethod,
    /// The raw query, with a form body appended.
    pub query: Cow<'a, str>,
    /// What is left as the body.
    pub body: &'a [u8],
}

/// Applies `X-HTTP-Method-Override`: a client sends a long GET as a POST with a form body.
///
/// Only a POST is overridden. Fails with `INVALID_VALUE` when a form body is not UTF-8, and with
/// `SYSTEM_PARAMETER_UNSUPPORTED` when the header is no verb.
pub fn effective<'a>(
    method: &http::Method,
    raw_query: &'a str,
    headers: &HeaderMap,
    body: &'a [u8],
) -> Result<Effective<'a>, Error> {
    let sent = || Effective {
        method: HttpMethod::parse(method.as_str()),
        query: Cow::Borrowed(raw_query),
        body,
    };
    let Some(wanted) = headers.get("x-http-method-override") else { return Ok(sent()) };
    if method != http::Method::POST {
        return Ok(sent());
    }
    let wanted = wanted.to_str().ok().map(str::trim).unwrap_or_default().to_ascii_uppercase();
    if wanted.is_empty() || !wanted.bytes().all(|byte| byte.is_ascii_uppercase()) {
        let name = "X-HTTP-Method-Override";
        return Err(unsupported(name, &wanted, "it takes a verb such as GET"));
    }
    let mut effective = Effective { method: HttpMethod::parse(&wanted), ..sent() };
    if is_form(headers) {
        let form = std::str::from_utf8(body).map_err(|_| {
            Error::new(Reason::InvalidValue, "the form in the request body is not UTF-8")
        })?;
        if !form.is_empty() {
            let joined =
                if raw_query.is_empty() { form.into() } else { format!("{raw_query}&{form}") };
            effective.query = Cow::Owned(joined);
        }
        effective.body = &[];
    }
    Ok(effective)
}

fn is_form(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// Decodes a key or a value of a query: a plus is a blank, escapes must be whole and UTF-8.
fn decode(text: &str) -> Result<Cow<'_, str>, Error> {
    if !text.contains(['%', '+']) {
        return Ok(Cow::Borrowed(text));
    }
    let malformed = || {
        let shown: String = text.chars().take(100).collect();
        let why = format!("the query has {shown:?}, which is not valid percent-encoded UTF-8");
        Error::new(Reason::InvalidValue, why).with("text", shown)
    };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                let value = digit().zip(digit()).map(|(high, low)| high * 16 + low);
                let value = value.and_then(|value| u8::try_from(value).ok());
                bytes.push(value.ok_or_else(malformed)?);
            }
            plain => bytes.push(plain),
        }
    }
    String::from_utf8(bytes).map(Cow::Owned).map_err(|_| malformed())
}

fn truth(key: &str, value: &str, default: bool) -> Result<bool, Error> {
    match value {
        "" => Ok(default),
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(unsupported(key, value, "it takes true or false")),
    }
}

fn set(parameter: &mut Option<String>, value: &str) {
    if !value.is_empty() {
        *parameter = Some(value.to_owned());
    }
}

fn unsupported(key: &str, value: &str, why: &str) -> Error {
    let shown: String = value.chars().take(100).collect();
    Error::new(
        Reason::InvalidSystemParameter,
        format!("system parameter {key} cannot be {shown:?}: {why}"),
    )
    .with("parameter", key)
    .with("value", shown)
    .at_field(key, why)
}
