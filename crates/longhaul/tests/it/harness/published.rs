//! A web server of a few lines that says over HTTP what a test has it say: an issuer's keys, or nonsense.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What it says.
#[derive(Clone, Debug)]
pub enum Says {
    /// 200 and this.
    Body(String),
    /// Another status, with this body.
    Status(u16, String),
    /// 302 to this address.
    Redirect(String),
    /// Nothing: the connection is closed at once.
    Nothing,
    /// Nothing for as long as somebody waits.
    Silence,
    /// 200 and a body without end.
    Endless,
    /// 200 and a body of a byte now and then.
    Drops,
}

/// The server; it ends with the test's runtime.
pub struct Published {
    /// Where it is.
    pub address: SocketAddr,
    says: Arc<Mutex<Says>>,
    asked: Arc<AtomicUsize>,
    waiting: Arc<AtomicUsize>,
}

impl Published {
    /// A server that says this.
    pub async fn saying(says: Says) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, waiting) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let says = Arc::new(Mutex::new(says));
        let (all, count, silent) = (says.clone(), asked.clone(), waiting.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, all.clone(), count.clone(), silent.clone()));
            }
        });
        Self { address, says, asked, waiting }
    }

    /// Says something else from now on.
    pub fn say(&self, says: Says) {
        *self.says.lock().unwrap() = says;
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}/keys", self.address)
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// How many wait in silence now.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }
}

async fn answer(
    mut stream: TcpStream,
    says: Arc<Mutex<Says>>,
    asked: Arc<AtomicUsize>,
    waiting: Arc<AtomicUsize>,
) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => request.push(byte),
            Err(_) => return,
        }
    }
    asked.fetch_add(1, Ordering::SeqCst);
    let says = says.lock().unwrap().clone();
    let head = |status: &str, length: usize| {
        format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n")
    };
    let text = match says {
        Says::Body(body) => head("200 OK", body.len()) + "\r\n" + &body,
        Says::Status(code, body) => head(&format!("{code} So"), body.len()) + "\r\n" + &body,
        Says::Redirect(to) => head("302 Found", 0) + &format!("location: {to}\r\n\r\n"),
        Says::Nothing => return,
        Says::Silence => {
            waiting.fetch_add(1, Ordering::SeqCst);
            // Until the other end has had enough.
            let _ = stream.read_u8().await;
            waiting.fetch_sub(1, Ordering::SeqCst);
            return;
        }
        Says::Drops => {
            let head = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"keys\": [";
            let mut sent = stream.write_all(head.as_bytes()).await;
            while sent.is_ok() {
                // tidy: sleep: the pace is what is tested
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                sent = stream.write_all(b" ").await;
            }
            return;
        }
        Says::Endless => {
            let head = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"keys\": [\"";
            let mut sent = stream.write_all(head.as_bytes()).await;
            while sent.is_ok() {
                sent = stream.write_all(&[b'a'; 16 << 10]).await;
            }
            return;
        }
    };
    // The other end may leave in the middle.
    let _ = stream.write_all(text.as_bytes()).await;
}
