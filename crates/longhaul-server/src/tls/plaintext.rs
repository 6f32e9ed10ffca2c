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
/// Longest wait for them.
const UNREAD_TIME_MAX: Duration = Duration::from_secs(1);

/// The frames of HTTP/2 that are used here. Source: RFC 9113, 6.5 and 6.8.
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
            Self::Http2 => http2(&error),
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

fn http2(error: &Error) -> Vec<u8> {
    let message = error.message.as_bytes();
    let length = u8::try_from(8 + message.len()).unwrap_or(u8::MAX);
    let mut answer = vec![0, 0, 0, SETTINGS, 0, 0, 0, 0, 0];
    answer.extend_from_slice(&[0, 0, length, GOAWAY, 0, 0, 0, 0, 0]);
    answer.put_u32(0);
    answer.put_u32(INADEQUATE_SECURITY);
    answer.extend_from_slice(&message[..usize::from(length) - 8]);
    answer
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
            let answer = http2(&Error::new(Reason::TlsRequired, message));
            assert_eq!(answer.len(), 9 + 9 + usize::from(answer[9 + 2]));
            assert!(answer[26..].starts_with(&message.as_bytes()[..5]));
        }
    }
}
