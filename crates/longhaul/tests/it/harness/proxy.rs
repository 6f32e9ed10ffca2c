//! A line between a worker and the server that a test can cut or make swallow everything.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What becomes of the connections that are open.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Carry,
    /// Closed at once.
    Cut(u32),
    /// Left open; nothing goes through any more, and nobody is told.
    Swallow(u32),
}

/// Carries connections to the server; new ones always.
pub struct Proxy {
    /// Where the worker connects.
    pub address: SocketAddr,
    fate: Arc<watch::Sender<Fate>>,
}

impl Proxy {
    /// A line to `server`.
    pub async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let fate = Arc::new(watch::Sender::new(Fate::Carry));
        let told = fate.clone();
        tokio::spawn(async move {
            while let Ok((worker, _)) = listener.accept().await {
                tokio::spawn(carry(worker, server, told.subscribe()));
            }
        });
        Self { address, fate }
    }

    /// Closes every connection.
    pub fn cut(&self) {
        self.fate.send_modify(|fate| *fate = Fate::Cut(fate.times() + 1));
    }

    /// Lets nothing through on the connections of now.
    pub fn swallow(&self) {
        self.fate.send_modify(|fate| *fate = Fate::Swallow(fate.times() + 1));
    }
}

impl Fate {
    fn times(self) -> u32 {
        match self {
            Self::Carry => 0,
            Self::Cut(times) | Self::Swallow(times) => times,
        }
    }
}

async fn carry(mut worker: TcpStream, server: SocketAddr, mut fate: watch::Receiver<Fate>) {
    let mut server = TcpStream::connect(server).await.unwrap();
    let carried = tokio::io::copy_bidirectional(&mut worker, &mut server);
    let fate = tokio::select! {
        _ = carried => return,
        changed = fate.changed() => changed.map(|()| *fate.borrow()),
    };
    if let Ok(Fate::Swallow(_)) = fate {
        std::future::pending::<()>().await;
    }
}
