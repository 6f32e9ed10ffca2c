//! A client without TLS at a port with it: it gets an answer that says so, in its own protocol.

use std::time::Duration;

use bytes::BufMut as _;
use longhaul_core::{Error, Reason};
use longhaul_wire::status;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::call::DOMAIN;

/// Bytes of its request that are read before the connection is closed: a close over unread bytes is a
/// reset, and a reset may take the answer away.
const UNREAD_BYTES_MAX: u64 = 64 << 10;
/// Longest wait for them, and for a client's first request.
const UNREAD_TIME_MAX: Duration = Duration::from_secs(1);

/// What a connection of HTTP/2 begins with, and a frame. Source: RFC 9113, 3.4 and 4.1.
const PREFACE_BYTES: usize = 24;
const FRAME_HEAD_BYTES: usize = 9;
/// The frames of HTTP/2 that are used here. Source: RFC 9113, 6.2, 6.5 and 6.8.
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
/// Source: RFC 9113, 7.
const INADEQUATE_SECURITY: u32 = 0xc;

/// What is spoken instead of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plain {
    Http1,
    Http2,
}

impl Plain {
    /// What the first bytes of a connection show: a TLS record begins with neither letter.
    pub(super) fn of(first: &[u8]) -> Option<Self> {
        let letter = first.first().filter(|byte| byte.is_ascii_uppercase());
        letter.map(|_| if first.starts_with(b"PRI") { Self::Http2 } else { Self::Http1 })
    }

    /// Says that this port wants TLS, and closes. Whether the other end hears it is its own affair.
    pub(super) async fn refuse(self, mut stream: TcpStream) {
        let error = Error::new(
            Reason::TlsRequired,
            "this port speaks TLS only; use https:// or a channel with TLS credentials",
        );
        let answer = match self {
            Self::Http1 => http1(&error),
            Self::Http2 => {
                if stream.write_all(&frame(SETTINGS, &[])).await.is_err() {
                    return;
                }
                // A client that is sent away before it asked for anything only says that it gave up.
                let _ = tokio::time::timeout(UNREAD_TIME_MAX, request_of(&mut stream)).await;
                goaway(&error)
            }
        };
        if stream.write_all(&answer).await.is_err() || stream.shutdown().await.is_err() {
            return;
        }
        let mut unread = (&mut stream).take(UNREAD_BYTES_MAX);
        let mut nowhere = tokio::io::sink();
        let reading = tokio::io::copy(&mut unread, &mut nowhere);
        let _ = tokio::time::timeout(UNREAD_TIME_MAX, reading).await;
    }
}

fn http1(error: &Error) -> Vec<u8> {
    let body = status::to_http_body(error, DOMAIN, Default::default(), true);
    let code = status::http_code(error.code());
    let mut answer = format!(
        "HTTP/1.1 {code} Bad Request\r\ncontent-type: application/json; charset=UTF-8\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend_from_slice(&body);
    answer
}

/// Reads up to the head of a first request, to the end, or to the most that is read.
async fn request_of(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut frames = stream.take(UNREAD_BYTES_MAX);
    frames.read_exact(&mut [0; PREFACE_BYTES]).await?;
    loop {
        let mut head = [0; FRAME_HEAD_BYTES];
        frames.read_exact(&mut head).await?;
        let [a, b, c, kind, ..] = head;
        if kind == HEADERS {
            return Ok(());
        }
        let length = u64::from(u32::from_be_bytes([0, a, b, c]));
        tokio::io::copy(&mut (&mut frames).take(length), &mut tokio::io::sink()).await?;
    }
}

fn goaway(error: &Error) -> Vec<u8> {
    let mut payload = vec![0; 4];
    payload.put_u32(INADEQUATE_SECURITY);
    payload.extend_from_slice(error.message.as_bytes());
    payload.truncate(u8::MAX.into());
    frame(GOAWAY, &payload)
}

/// A frame of the whole connection, at most 255 bytes long.
fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("no longer than a byte counts");
    let mut frame = vec![0, 0, length, kind, 0, 0, 0, 0, 0];
    frame.extend_from_slice(payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_show_what_is_spoken() {
        assert_eq!(Plain::of(b"GET "), Some(Plain::Http1));
        assert_eq!(Plain::of(b"P"), Some(Plain::Http1));
        assert_eq!(Plain::of(b"PRI "), Some(Plain::Http2));
        assert_eq!(Plain::of(&[0x16, 3, 1, 0]), None);
        assert_eq!(Plain::of(&[0x80, 0x2e]), None);
        assert_eq!(Plain::of(b""), None);
    }

    #[test]
    fn a_goaway_has_the_length_that_it_says() {
        for message in ["short", &"x".repeat(400)] {
            let answer = goaway(&Error::new(Reason::TlsRequired, message));
            assert_eq!(answer.len(), FRAME_HEAD_BYTES + usize::from(answer[2]));
            assert!(answer[17..].starts_with(&message.as_bytes()[..5]));
        }
    }
}
