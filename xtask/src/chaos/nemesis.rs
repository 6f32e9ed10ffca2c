//! Breaks things on purpose: kills servers and the database, cuts connections, holds back bytes. Notes
//! what it broke and when nobody could be served.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::dice::Dice;
use super::fleet::Place;
use super::history::What;
use super::{Result, Run};
use crate::rig::postgres::Postgres;
use crate::rig::{RoundRobin, ready};

/// How long things stay whole between two faults, in milliseconds.
const PEACE: (u64, u64) = (1_000, 5_000);

/// What can be broken.
pub(super) struct Nemesis {
    run: Arc<Run>,
    dice: Dice,
    servers: Vec<Place>,
    /// Before the servers; clients and workers come by here.
    door: RoundRobin,
    database: Option<Database>,
    kills: usize,
}

/// A database, and each server's way to it.
pub(super) struct Database {
    pub postgres: Postgres,
    pub ways: Vec<RoundRobin>,
}

#[derive(Clone, Copy)]
enum Fault {
    KillOne,
    KillAll,
    CutClients,
    KillDatabase,
    CutDatabase,
    HoldBackDatabase,
}

impl Nemesis {
    /// Starts the servers behind `door`.
    pub async fn start(
        run: Arc<Run>,
        door: RoundRobin,
        database: Option<Database>,
        servers: Vec<Place>,
    ) -> Result<Self> {
        let dice = Dice::new(run.seed, 1);
        let mut nemesis = Self { run, dice, servers, door, database, kills: 0 };
        for number in 0..nemesis.servers.len() {
            nemesis.raise(number).await?;
        }
        Ok(nemesis)
    }

    /// Breaks and mends until the load is over; everything is whole when this returns.
    pub async fn rage(&mut self) -> Result<()> {
        loop {
            let peace = Duration::from_millis(self.dice.between(PEACE.0, PEACE.1));
            tokio::select! {
                () = self.run.load_over.cancelled() => return Ok(()),
                () = sleep(peace) => {}
            }
            let fault = self.choose();
            self.inflict(fault).await?;
            for server in &mut self.servers {
                if !server.lives()? {
                    return Err("a server ended by itself".into());
                }
            }
        }
    }

    /// What is left to say when all is over: how often something was killed, and panics.
    pub fn close(self) -> Result<usize> {
        if self.servers.iter().any(Place::panicked) {
            return Err("a server panicked; see its log".into());
        }
        Ok(self.kills)
    }

    fn choose(&mut self) -> Fault {
        match (&self.database, self.dice.between(0, 100)) {
            (None, 0..=69) => Fault::KillOne,
            (None, _) => Fault::CutClients,
            (Some(_), 0..=34) => Fault::KillOne,
            (Some(_), 35..=44) => Fault::KillAll,
            (Some(_), 45..=59) => Fault::CutClients,
            (Some(_), 60..=79) => Fault::KillDatabase,
            (Some(_), 80..=89) => Fault::CutDatabase,
            (Some(_), _) => Fault::HoldBackDatabase,
        }
    }

    async fn inflict(&mut self, fault: Fault) -> Result<()> {
        let began = self.run.recorder.now();
        let chosen = usize::try_from(self.dice.between(0, self.servers.len() as u64))?;
        let pause = Duration::from_millis(self.dice.between(0, 2_500));
        let (kind, down) = match fault {
            Fault::KillOne => {
                self.fell(chosen).await?;
                sleep(pause).await;
                self.raise(chosen).await?;
                (format!("server {chosen} killed"), self.servers.len() == 1)
            }
            Fault::KillAll => {
                for number in 0..self.servers.len() {
                    self.fell(number).await?;
                }
                sleep(pause).await;
                for number in 0..self.servers.len() {
                    self.raise(number).await?;
                }
                ("all servers killed".to_owned(), true)
            }
            Fault::CutClients => {
                self.door.cut();
                ("clients cut off".to_owned(), false)
            }
            Fault::KillDatabase => {
                let database = self.database.as_mut().expect("chosen only where there is one");
                database.postgres.kill_9().await?;
                database.postgres.start().await?;
                self.kills += 1;
                for server in &self.servers {
                    ready(server.address().expect("all servers run")).await?;
                }
                ("database killed".to_owned(), true)
            }
            Fault::CutDatabase => {
                let database = self.database.as_ref().expect("chosen only where there is one");
                database.ways[chosen].cut();
                (format!("server {chosen} cut off from the database"), false)
            }
            Fault::HoldBackDatabase => {
                let database = self.database.as_ref().expect("chosen only where there is one");
                database.ways[chosen].block(true);
                sleep(pause).await;
                database.ways[chosen].block(false);
                ready(self.servers[chosen].address().expect("all servers run")).await?;
                // Whoever waits there hears nothing meanwhile.
                (format!("server {chosen} without answers from the database"), true)
            }
        };
        self.run.recorder.note("chaos", began, What::Fault { kind, down });
        Ok(())
    }

    async fn fell(&mut self, number: usize) -> Result<()> {
        self.servers[number].kill().await?;
        self.door.set(number, None);
        self.kills += 1;
        Ok(())
    }

    async fn raise(&mut self, number: usize) -> Result<()> {
        let address = self.servers[number].start().await?;
        ready(address).await?;
        self.door.set(number, Some(address));
        Ok(())
    }
}

/// The part of a server's configuration for the embedded store.
pub(super) fn embedded(folder: &Path) -> String {
    format!("data = {:?}", folder.join("data").display().to_string())
}
