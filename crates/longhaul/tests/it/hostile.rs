//! Input that means harm, or nothing: every answer is in words, and nobody else notices.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use crate::harness::client::Wire;
use crate::harness::grpc::Connection;
use crate::harness::http::exchange_bytes;
use crate::harness::samples::{ALL, Asked, DEPLOY};
use crate::harness::{Client, Failure, Kept, Server};

const SEED: u64 = 0x5eed_0f10_c64a_0001;
const HTTP_REQUESTS: usize = 1_500;
const GRPC_MESSAGES: usize = 1_500;

/// A small generator of numbers; the same seed gives the same inputs.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }

    /// Replaces, removes or inserts a few bytes, mostly those that mean something.
    fn spoil(&mut self, bytes: &mut Vec<u8>) {
        const TELLING: &[u8] = b"/:%*?&=#{}[]\",\\.+-_~;@ \0\x01\x7f\xff\xc3(09azAZ$";
        for _ in 0..self.below(4) {
            let byte = TELLING[self.below(TELLING.len())];
            let at = self.below(bytes.len() + 1);
            match self.below(3) {
                0 => bytes.insert(at, byte),
                1 if at < bytes.len() => bytes[at] = byte,
                _ if at < bytes.len() => {
                    bytes.remove(at);
                }
                _ => bytes.push(byte),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn spoilt_http_requests_are_answered_in_words() {
    let server = Server::start(Kept::InMemory).await;
    let client = Client::new(server.address, Wire::Http, &DEPLOY, "p");
    let name = client.start("a").await.name;
    let mut random = Random(SEED);
    for number in 0..HTTP_REQUESTS {
        let request = spoilt_request(&mut random, &name);
        let answer = exchange_bytes(server.address, &request).await;
        if let Err(why) = in_words(&answer) {
            panic!(
                "request {number} of seed {SEED:#x}: {why}\n{}\n-> {}",
                String::from_utf8_lossy(&request),
                String::from_utf8_lossy(&answer)
            );
        }
    }
    let after = client.start("z").await;
    client.cancel(&after.name).await;
    client.get(&after.name).await.is_cancelled();
    server.stop().await;
}

fn spoilt_request(random: &mut Random, name: &str) -> Vec<u8> {
    let sample = ALL[random.below(ALL.len())];
    let asked = Asked { id: "a", request_id: "r", validate_only: false };
    let start = sample.start_path("p", asked);
    let list = format!("/v1/{}/operations?filter=done=true&pageSize=3", sample.parent("p"));
    let get = format!("/v1/{name}");
    let cancel = format!("/v1/{name}:cancel");
    let mut path = random
        .pick(&[
            &*start,
            &list,
            &get,
            &cancel,
            "/longhaul/v1/leases:claim",
            "/longhaul/v1/leases:report",
        ])
        .as_bytes()
        .to_vec();
    random.spoil(&mut path);
    // A blank or a line's end would make another request of it, which is HTTP's business.
    path.retain(|byte| !byte.is_ascii_whitespace());
    let mut query = random
        .pick(&[
            "",
            "&alt=json",
            "&$alt=json;enum-encoding=int",
            "&fields=name,metadata(verb)",
            "&$.xgafv=1",
            "&prettyPrint=false",
        ])
        .as_bytes()
        .to_vec();
    random.spoil(&mut query);
    query.retain(|byte| !byte.is_ascii_whitespace());
    let mut body = random
        .pick(&[
            "",
            "{}",
            r#"{"name":"x"}"#,
            r#"{"worker":"w","max":1,"claimId":"c"}"#,
            r#"{"worker":"w","items":[{"operation":"a/b","epoch":"1","gate":{}}]}"#,
            r#"{"labels":{"a":"b"},"executionConfigs":[{"usages":["RENDER"],"executionTimeout":"3s"}]}"#,
        ])
        .as_bytes()
        .to_vec();
    random.spoil(&mut body);
    let verb = random.pick(&["GET", "POST", "DELETE", "PATCH", "PUT", "HEAD", "OPTIONS", "X"]);
    let host = random.pick(&[sample.host, "localhost", "", "x:y:z", "evil.googleapis.com"]);
    let mark: &[u8] = if path.contains(&b'?') { b"" } else { b"?" };
    let mut request = format!("{verb} ").into_bytes();
    request.extend([&path[..], mark, &query].concat());
    let head = format!(
        " HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    request.extend(head.into_bytes());
    request.extend(body);
    request
}

/// Whether an answer is a success, one of the HTTP library's own refusals, or Google's envelope; an
/// error of our own making is neither.
fn in_words(answer: &[u8]) -> Result<(), String> {
    let split = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or("no answer")?;
    let (head, body) = (String::from_utf8_lossy(&answer[..split]), &answer[split + 4..]);
    let code: u16 = head.get(9..12).and_then(|code| code.parse().ok()).ok_or("no status")?;
    match code {
        200 => return Ok(()),
        // Not even HTTP, or only the head was asked for.
        400..=499 if body.is_empty() => return Ok(()),
        501 if body.is_empty() => return Ok(()),
        400..=499 | 501 => {}
        _ => return Err(format!("status {code}")),
    }
    let json: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let failure = Failure::from_envelope(&json);
    let said = !failure.message.is_empty() && !failure.reason.is_empty();
    said.then_some(()).ok_or_else(|| "an envelope without words".to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn spoilt_grpc_messages_are_refused_in_words() {
    let server = Server::start(Kept::InMemory).await;
    let client = Client::new(server.address, Wire::Grpc, &DEPLOY, "p");
    let name = client.start("a").await.name;
    let operations =
        ["GetOperation", "ListOperations", "CancelOperation", "DeleteOperation", "WaitOperation"];
    let mut paths: Vec<_> = operations
        .iter()
        .map(|method| format!("/google.longrunning.Operations/{method}"))
        .collect();
    paths.extend(ALL.iter().map(|sample| sample.grpc_path()));
    paths.extend(["Claim", "Report"].map(|method| format!("/longhaul.v1.Workers/{method}")));
    let connections = [Connection::new(server.address, None), client.grpc().clone()];
    let mut random = Random(SEED);
    for number in 0..GRPC_MESSAGES {
        let path = &paths[random.below(paths.len())];
        let sample = ALL[random.below(ALL.len())];
        let asked = Asked { id: "a", request_id: "r", validate_only: false };
        let mut message = match random.below(3) {
            0 => sample.start_message("p", asked),
            1 => [&[0x0a, name.len() as u8][..], name.as_bytes()].concat(),
            _ => (0..random.below(40)).map(|_| random.next() as u8).collect(),
        };
        random.spoil(&mut message);
        let connection = &connections[random.below(connections.len())];
        let deadline = Some(Duration::from_millis(500));
        let shown = format!("message {number} of seed {SEED:#x} to {path}: {message:?}");
        if let Err(failure) = connection.call_bytes(path, Bytes::from(message), deadline).await {
            let ran_out = matches!(&*failure.code, "DEADLINE_EXCEEDED" | "CANCELLED");
            let ours = !failure.reason.is_empty()
                && !matches!(&*failure.code, "INTERNAL" | "UNKNOWN" | "DATA_LOSS" | "UNAVAILABLE");
            assert!(ran_out || ours, "{shown}\n-> {failure:?}");
        }
    }
    let after = client.start("z").await;
    client.cancel(&after.name).await;
    client.get(&after.name).await.is_cancelled();
    server.stop().await;
}
