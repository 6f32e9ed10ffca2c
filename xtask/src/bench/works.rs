//! The works themselves: what one client does again and again.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::load::Client;
use super::process::Server;
use super::{Result, Wire, grpc, http};

/// Starts under way while a server is filled.
const FILLERS: usize = 256;

/// One client's way to the server.
pub(super) enum Line {
    Grpc(grpc::Line),
    Http(http::Line),
}

/// Ways for `clients`, who show what the server wants to see.
pub(super) async fn connect(wire: Wire, server: &Server, clients: usize) -> Result<Vec<Line>> {
    let (address, token) = (server.address, server.authorization.as_ref());
    Ok(match wire {
        Wire::Grpc => {
            grpc::connect(address, clients, token).await?.into_iter().map(Line::Grpc).collect()
        }
        Wire::Http => {
            http::connect(address, clients, token).await?.into_iter().map(Line::Http).collect()
        }
    })
}

impl Line {
    async fn start(&mut self, id: &str) -> Result<String> {
        match self {
            Self::Grpc(line) => line.start(id).await,
            Self::Http(line) => line.start(id).await,
        }
    }

    async fn cancel(&mut self, name: &str) -> Result<()> {
        match self {
            Self::Grpc(line) => line.cancel(name).await,
            Self::Http(line) => line.cancel(name).await,
        }
    }

    async fn until_done(&mut self, name: &str) -> Result<()> {
        match self {
            Self::Grpc(line) => line.until_done(name).await,
            Self::Http(line) => line.until_done(name).await,
        }
    }
}

/// The ceiling: a call that does nothing.
pub(super) struct Hello(pub Line);

impl Client for Hello {
    async fn once(&mut self) -> Result<()> {
        match &mut self.0 {
            Line::Grpc(line) => line.hello().await,
            Line::Http(line) => line.hello().await,
        }
    }
}

/// Names for what one client creates.
pub(super) struct Ids {
    client: usize,
    count: u64,
}

impl Ids {
    pub fn of(client: usize) -> Self {
        Self { client, count: 0 }
    }

    fn next(&mut self) -> String {
        self.count += 1;
        format!("p{}-{}", self.client, self.count)
    }
}

/// W1: starts that nobody claims.
pub(super) struct Start {
    pub line: Line,
    pub ids: Ids,
}

impl Client for Start {
    async fn once(&mut self) -> Result<()> {
        self.line.start(&self.ids.next()).await.map(drop)
    }
}

/// Starts and cancels, which ends it at once.
pub(super) struct Cancel {
    pub line: Line,
    pub ids: Ids,
}

impl Client for Cancel {
    async fn once(&mut self) -> Result<()> {
        let name = self.line.start(&self.ids.next()).await?;
        self.line.cancel(&name).await
    }
}

/// W2: starts and waits for the end.
pub(super) struct Complete {
    pub line: Line,
    pub ids: Ids,
}

impl Client for Complete {
    async fn once(&mut self) -> Result<()> {
        let name = self.line.start(&self.ids.next()).await?;
        self.line.until_done(&name).await
    }
}

/// W4 get: any of the stored operations.
pub(super) struct Get {
    pub line: Line,
    pub names: Arc<Vec<String>>,
    pub random: Random,
}

impl Client for Get {
    async fn once(&mut self) -> Result<()> {
        let name = &self.names[self.random.below(self.names.len())];
        let bytes = match &mut self.line {
            Line::Grpc(line) => line.get(name).await?,
            Line::Http(line) => line.get(name).await?,
        };
        if bytes < name.len() {
            return Err(format!("{name} was answered with {bytes} bytes").into());
        }
        Ok(())
    }
}

/// W4 list: the newest 100.
pub(super) struct List {
    pub line: Line,
    /// What a full page has at least.
    pub bytes_min: usize,
}

impl Client for List {
    async fn once(&mut self) -> Result<()> {
        let bytes = match &mut self.line {
            Line::Grpc(line) => line.list().await?,
            Line::Http(line) => line.list().await?,
        };
        if bytes < self.bytes_min {
            return Err(format!("a page has only {bytes} bytes").into());
        }
        Ok(())
    }
}

/// Stores `count` operations; their names.
pub(super) async fn fill(server: &Server, count: usize) -> Result<Vec<String>> {
    let mut fillers = JoinSet::new();
    for (filler, line) in
        connect(Wire::Grpc, server, FILLERS.min(count)).await?.into_iter().enumerate()
    {
        let share = count / FILLERS + usize::from(filler < count % FILLERS);
        fillers.spawn(start_many(line, Ids::of(filler), share));
    }
    let mut names = Vec::with_capacity(count);
    while let Some(filled) = fillers.join_next().await {
        names.append(&mut filled??);
    }
    Ok(names)
}

async fn start_many(mut line: Line, mut ids: Ids, count: usize) -> Result<Vec<String>> {
    let mut names = Vec::with_capacity(count);
    for _ in 0..count {
        names.push(line.start(&ids.next()).await?);
    }
    Ok(names)
}

/// Repeatable random numbers (SplitMix64): enough to spread reads.
pub(super) struct Random(pub u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % limit as u64).expect("below a usize")
    }
}
