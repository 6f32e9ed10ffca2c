//! Servers side by side that differ in their setting alone: driven in short turns, so that whatever else the
//! machine does meanwhile meets all of them alike. Owns the turns; what a client does is `works`'.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::load::{self, Client, Measured};
use super::process::{Cpu, Server};
use super::report::Sample;
use super::works::{self, Cancel, Get, Ids, Random};
use super::{Cell, Result, Run, WARM_UP, Work};

/// How long a server is driven before the next: short beside what disturbs a machine, long beside a call.
const TURN: Duration = Duration::from_millis(250);

/// One of the servers and those who call it.
struct Seat<C> {
    cell: Cell,
    server: Server,
    clients: Vec<C>,
    latency: Histogram<u64>,
    cpu: Cpu,
    driven: Duration,
}

impl Run<'_> {
    /// Measures works on one server for each of `cells`, which differ in their setting alone.
    pub(super) async fn side_by_side(&self, round: u32, cells: &[Cell]) -> Result<Vec<Sample>> {
        let folder = tempfile::tempdir_in(&self.args.folder)?;
        let folder = folder.path();
        let samples = match cells.iter().all(|cell| cell.work == Work::Get) {
            true => self.gets(round, cells, folder).await,
            false => self.cancels_in_turns(round, cells, folder).await,
        };
        samples.map_err(|error| {
            let logs = cells.iter().map(|cell| folder.join(cell.setting.label()).join("log"));
            let logs: Vec<_> = logs.map(std::fs::read_to_string).filter_map(Result::ok).collect();
            format!("side by side: {error}\n{}", logs.concat()).into()
        })
    }

    async fn gets(&self, round: u32, cells: &[Cell], folder: &Path) -> Result<Vec<Sample>> {
        let mut seats = Vec::new();
        for &cell in cells {
            let (server, lines) = self.seat(cell, folder).await?;
            let names = Arc::new(works::fill(&server, usize::try_from(self.args.stored)?).await?);
            let clients = lines.into_iter().enumerate().map(|(client, line)| Get {
                line,
                names: names.clone(),
                random: Random(client as u64),
            });
            seats.push(Seat::of(cell, server, clients.collect())?);
        }
        in_turns(round, seats, self.span.measured).await
    }

    async fn cancels_in_turns(
        &self,
        round: u32,
        cells: &[Cell],
        folder: &Path,
    ) -> Result<Vec<Sample>> {
        let mut seats = Vec::new();
        for &cell in cells {
            let (server, lines) = self.seat(cell, folder).await?;
            let lines = lines.into_iter().enumerate();
            let clients = lines.map(|(client, line)| Cancel { line, ids: Ids::of(client) });
            seats.push(Seat::of(cell, server, clients.collect())?);
        }
        in_turns(round, seats, self.span.measured).await
    }

    /// A server on a folder of its own, and ways to it.
    async fn seat(&self, cell: Cell, folder: &Path) -> Result<(Server, Vec<works::Line>)> {
        let wire = cell.wire.ok_or("only works over a wire are compared side by side")?;
        let folder = folder.join(cell.setting.label());
        std::fs::create_dir(&folder)?;
        let server = Server::longhaul(&self.binary, &folder, cell.setting).await?;
        let lines = works::connect(wire, &server, cell.clients).await?;
        Ok((server, lines))
    }
}

impl<C: Client> Seat<C> {
    fn of(cell: Cell, server: Server, clients: Vec<C>) -> Result<Self> {
        let latency = load::histogram()?;
        let (cpu, driven) = (Cpu::default(), Duration::ZERO);
        Ok(Self { cell, server, clients, latency, cpu, driven })
    }

    /// Drives this server alone.
    async fn turn(&mut self, span: Duration) -> Result<()> {
        let meter = self.server.meter();
        let (before, begin) = (meter.read()?, load::now());
        let clients = std::mem::take(&mut self.clients);
        let turned = load::turn(clients, begin + span).await;
        let (clients, latency) =
            turned.map_err(|error| format!("{}: {error}", self.cell.setting.label()))?;
        self.cpu = self.cpu.and(meter.read()?.since(&before));
        self.driven += load::now() - begin;
        self.latency.add(latency)?;
        self.clients = clients;
        Ok(())
    }
}

/// Each in turn, until each was driven for `measured`.
async fn in_turns<C: Client>(
    round: u32,
    mut seats: Vec<Seat<C>>,
    measured: Duration,
) -> Result<Vec<Sample>> {
    for seat in &mut seats {
        seat.turn(WARM_UP).await?;
        (seat.cpu, seat.driven) = (Cpu::default(), Duration::ZERO);
        seat.latency.reset();
    }
    while seats.iter().any(|seat| seat.driven < measured) {
        for seat in &mut seats {
            seat.turn(TURN).await?;
        }
    }
    let samples = seats.into_iter().map(|seat| {
        let peak = Some(seat.server.peak_kib()?);
        let of = (round, seat.cell);
        Ok(Sample::of(of, "", seat.driven, &Measured::of(seat.latency, seat.cpu), peak))
    });
    samples.collect()
}
