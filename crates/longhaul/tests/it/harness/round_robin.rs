//! A plain TCP round robin, as the simplest load balancer is: each new connection goes to the next
//! server that answers. Can be told to cut everything, to let nothing through, and to stay with one.
//!
//! Owns bytes on their way and nothing of what they mean, but for one thing: connections on which a given
//! word came by can be treated apart from the others.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const BUFFER_BYTES: usize = 16 << 10;

/// What happens to the bytes of open connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Connections opened before the number last changed are closed.
    pub generation: u64,
    /// Nothing passes, and nobody is told.
    pub blocked: bool,
}

/// The round robin; ends with its value.
pub struct RoundRobin {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    targets: watch::Sender<Vec<Option<SocketAddr>>>,
    next: AtomicUsize,
    /// For all connections.
    rule: watch::Sender<Rule>,
    /// For those on which `word` came by from the caller's side.
    marked_rule: watch::Sender<Rule>,
    word: Option<&'static str>,
}

impl RoundRobin {
    /// Listens on any free port of the loopback address; `None` is a place whose server is away.
    pub async fn over(targets: Vec<Option<SocketAddr>>) -> Self {
        Self::marking(targets, None).await
    }

    /// The same; connections whose caller says `word` can be treated apart.
    pub async fn marking(targets: Vec<Option<SocketAddr>>, word: Option<&'static str>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            targets: watch::channel(targets).0,
            next: AtomicUsize::new(0),
            rule: watch::channel(Rule::default()).0,
            marked_rule: watch::channel(Rule::default()).0,
            word,
        });
        let accepting = tokio::spawn(accept(listener, shared.clone()));
        Self { address, shared, accepting }
    }

    /// Puts a server in a place, or takes it away; open connections stay as they are.
    pub fn set(&self, place: usize, target: Option<SocketAddr>) {
        self.shared.targets.send_modify(|targets| targets[place] = target);
    }

    /// Closes every open connection.
    pub fn cut(&self) {
        self.shared.rule.send_modify(|rule| rule.generation += 1);
    }

    /// From now on nothing passes, or everything again.
    pub fn block(&self, blocked: bool) {
        self.shared.rule.send_modify(|rule| rule.blocked = blocked);
    }

    /// Closes the connections on which the word came by.
    pub fn cut_marked(&self) {
        self.shared.marked_rule.send_modify(|rule| rule.generation += 1);
    }

    /// Lets nothing pass on those, nor on new ones that say the word.
    pub fn block_marked(&self, blocked: bool) {
        self.shared.marked_rule.send_modify(|rule| rule.blocked = blocked);
    }
}

impl Drop for RoundRobin {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((caller, _)) = listener.accept().await {
        tokio::spawn(carry(caller, shared.clone()));
    }
}

async fn carry(caller: TcpStream, shared: Arc<Shared>) {
    let mut rule = shared.rule.subscribe();
    let mut marked_rule = shared.marked_rule.subscribe();
    let began = rule.borrow_and_update().generation;
    let Some(server) = shared.connect().await else { return };
    // Without this a small answer waits for the acknowledgement of the one before.
    let _ = (caller.set_nodelay(true), server.set_nodelay(true));
    let (from_caller, to_caller) = caller.into_split();
    let (from_server, to_server) = server.into_split();
    let (mark, marked) = watch::channel(false);
    let there = pump(from_caller, to_server, shared.clone(), marked.clone(), Some(mark));
    let back = pump(from_server, to_caller, shared.clone(), marked.clone(), None);
    let mut marked = marked;
    let cut = async {
        let mut marked_at = None;
        loop {
            if *marked.borrow_and_update() && marked_at.is_none() {
                marked_at = Some(marked_rule.borrow_and_update().generation);
            }
            let cut = rule.borrow_and_update().generation != began;
            let now = marked_rule.borrow_and_update().generation;
            if cut || marked_at.is_some_and(|then| then != now) {
                return;
            }
            tokio::select! {
                Ok(()) = rule.changed() => {}
                Ok(()) = marked_rule.changed() => {}
                Ok(()) = marked.changed() => {}
                else => return,
            }
        }
    };
    // The end of one direction is the end of both: no protocol here goes on half open.
    tokio::select! {
        () = there => {}
        () = back => {}
        () = cut => {}
    }
}

impl Shared {
    async fn connect(&self) -> Option<TcpStream> {
        let targets = self.targets.borrow().clone();
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        for place in 0..targets.len() {
            let Some(target) = targets[(first + place) % targets.len()] else { continue };
            if let Ok(stream) = TcpStream::connect(target).await {
                return Some(stream);
            }
        }
        None
    }

    /// Returns when bytes of such a connection may pass.
    async fn may_pass(&self, marked: &watch::Receiver<bool>) {
        let mut rule = self.rule.subscribe();
        let _ = rule.wait_for(|rule| !rule.blocked).await;
        if *marked.borrow() {
            let mut rule = self.marked_rule.subscribe();
            let _ = rule.wait_for(|rule| !rule.blocked).await;
        }
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: Arc<Shared>,
    marked: watch::Receiver<bool>,
    mark: Option<watch::Sender<bool>>,
) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        if let (Some(mark), Some(word)) = (&mark, shared.word)
            && buffer[..read].windows(word.len()).any(|bytes| bytes == word.as_bytes())
        {
            mark.send_replace(true);
        }
        shared.may_pass(&marked).await;
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
