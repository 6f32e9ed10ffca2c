//! Figures: medians with their spread, ratios to the ceilings of the same round, raw lines.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::load::Measured;
use super::setting::Setting;
use super::{Cell, Result, Work};

/// A cell of one round.
pub(super) struct Sample {
    round: u32,
    cell: Cell,
    /// What was measured of a call that has several ends; empty where it has one.
    point: &'static str,
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    /// Processor microseconds of the server for each call.
    server_us: Option<f64>,
    /// Cores that neither server nor clients used: noise.
    pub others: f64,
    peak_mib: Option<f64>,
}

impl Sample {
    /// `peak_kib` is the server's memory; a work without a server has none.
    pub fn of(
        (round, cell): (u32, Cell),
        point: &'static str,
        span: Duration,
        measured: &Measured,
        peak_kib: Option<u64>,
    ) -> Self {
        let seconds = span.as_secs_f64();
        let ms = |nanos: u64| nanos as f64 / 1e6;
        let (calls, latency) = (measured.calls as f64, &measured.latency);
        Self {
            round,
            cell,
            point,
            per_second: calls / seconds,
            p50_ms: ms(latency.value_at_quantile(0.5)),
            p99_ms: ms(latency.value_at_quantile(0.99)),
            max_ms: ms(latency.max()),
            server_us: peak_kib.map(|_| measured.cpu.server * 1e6 / calls.max(1.0)),
            others: measured.cpu.others() / seconds,
            peak_mib: peak_kib.map(|kib| kib as f64 / 1024.0),
        }
    }
}

/// Gathers samples.
pub(super) struct Report {
    samples: Vec<Sample>,
    raw: Option<File>,
}

impl Report {
    pub fn new(raw: Option<&Path>) -> Result<Self> {
        let open = |path| OpenOptions::new().create(true).append(true).open(path);
        Ok(Self { samples: Vec::new(), raw: raw.map(open).transpose()? })
    }

    /// Says on the error stream what is being measured; the table alone goes to the output.
    pub fn progress(&self, round: u32, rounds: u32, cell: Cell) -> Result<()> {
        let wire = cell.wire.map_or(String::new(), |wire| format!(", {wire}"));
        let clients = cell.clients;
        let (work, setting) = (cell.work, cell.setting);
        Ok(writeln!(
            std::io::stderr(),
            "round {round}/{rounds}: {work}{setting}{wire}, clients: {clients}"
        )?)
    }

    pub fn add(&mut self, sample: Sample) -> Result<()> {
        if let Some(raw) = &mut self.raw {
            let line = json!({
                "round": sample.round,
                "work": sample.cell.work.to_string(),
                "point": sample.point,
                "setting": sample.cell.setting.to_string(),
                "wire": sample.cell.wire.map(|wire| wire.to_string()),
                "clients": sample.cell.clients,
                "per_second": sample.per_second,
                "p50_ms": sample.p50_ms,
                "p99_ms": sample.p99_ms,
                "max_ms": sample.max_ms,
                "server_cpu_us_per_call": sample.server_us,
                "cores_used_by_others": sample.others,
                "server_peak_mib": sample.peak_mib,
            });
            writeln!(raw, "{line}")?;
        }
        self.samples.push(sample);
        Ok(())
    }

    /// Prints medians and ratios as tables.
    pub fn print(&self) -> Result<()> {
        let mut out = std::io::stdout().lock();
        writeln!(
            out,
            "| work | wire | clients | per second [spread] | p50 ms | p99 ms | max ms | server µs each | server MiB | others' cores |\n\
             |---|---|---|---|---|---|---|---|---|---|"
        )?;
        for (cell, point) in self.cells() {
            let spread = |pick: &dyn Fn(&Sample) -> Option<f64>| self.spread(cell, point, pick);
            let rate = spread(&|sample| Some(sample.per_second));
            let show = |pick: fn(&Sample) -> Option<f64>, digits: usize| {
                spread(&pick).map_or("–".into(), |of| format!("{:.digits$}", of.median))
            };
            writeln!(
                out,
                "| {}{} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                if point.is_empty() {
                    cell.work.to_string()
                } else {
                    format!("{}: {point}", cell.work)
                },
                cell.setting,
                cell.wire.map_or("–".into(), |wire| wire.to_string()),
                cell.clients,
                rate.map_or("–".into(), |rate| rate.show(0)),
                show(|sample| Some(sample.p50_ms), 3),
                show(|sample| Some(sample.p99_ms), 3),
                show(|sample| Some(sample.max_ms), 1),
                show(|sample| sample.server_us, 1),
                show(|sample| sample.peak_mib, 0),
                show(|sample| Some(sample.others), 2),
            )?;
        }
        writeln!(out, "\n| ratio | wire | clients | median [spread] |\n|---|---|---|---|")?;
        for (cell, point) in self.cells() {
            let (ceiling, name) = match cell.work {
                Work::Start => (Work::Fdatasync, "starts/s ÷ fdatasync/s"),
                Work::Get => (Work::Hello, "gets/s ÷ hello-world/s"),
                Work::List
                | Work::Complete
                | Work::Cancel
                | Work::Fdatasync
                | Work::Hello
                | Work::Echo
                | Work::CancelPaced
                | Work::CancelBurst
                | Work::CancelQueued
                | Work::Crash => continue,
            };
            let ratio = self.spread(cell, point, |sample| {
                Some(sample.per_second / self.ceiling(sample, ceiling)?.per_second)
            });
            if let (Some(ratio), Some(wire)) = (ratio, cell.wire) {
                let (set, clients, shown) = (cell.setting, cell.clients, ratio.show(2));
                writeln!(out, "| {name}{set} | {wire} | {clients} | {shown} |")?;
            }
        }
        for (cell, point) in self.cells() {
            for &(setting, called) in cell.setting.beside() {
                let ratio = self.spread(cell, point, |sample| {
                    Some(sample.server_us? / self.beside(sample, setting)?.server_us?)
                });
                if let (Some(ratio), Some(wire)) = (ratio, cell.wire) {
                    let (what, clients) = (format!("{}{}", cell.work, cell.setting), cell.clients);
                    let shown = ratio.show(3);
                    writeln!(
                        out,
                        "| server µs: {what} ÷ {called} | {wire} | {clients} | {shown} |"
                    )?;
                }
            }
        }
        Ok(())
    }

    /// The same work of the same round on a server of another setting.
    fn beside(&self, sample: &Sample, setting: Setting) -> Option<&Sample> {
        let wanted = Cell { setting, ..sample.cell };
        self.samples.iter().find(|other| other.round == sample.round && other.cell == wanted)
    }

    /// Every cell once, in the order measured.
    fn cells(&self) -> Vec<(Cell, &'static str)> {
        let mut cells = Vec::new();
        for sample in &self.samples {
            let cell = (sample.cell, sample.point);
            if !cells.contains(&cell) {
                cells.push(cell);
            }
        }
        cells
    }

    /// The ceiling measured in the same round: over the same wire with as many clients, or the disk's.
    fn ceiling(&self, sample: &Sample, ceiling: Work) -> Option<&Sample> {
        self.samples.iter().find(|other| {
            let other_cell = other.cell;
            other.round == sample.round
                && other_cell.work == ceiling
                && (ceiling == Work::Fdatasync
                    || (other_cell.wire == sample.cell.wire
                        && other_cell.clients == sample.cell.clients))
        })
    }

    fn spread(
        &self,
        cell: Cell,
        point: &str,
        pick: impl Fn(&Sample) -> Option<f64>,
    ) -> Option<Spread> {
        let of_cell = self.samples.iter();
        let of_cell = of_cell.filter(|sample| sample.cell == cell && sample.point == point);
        Spread::of(of_cell.filter_map(pick).collect())
    }
}

/// A median between the least and the greatest value.
#[derive(Debug, PartialEq)]
struct Spread {
    median: f64,
    least: f64,
    greatest: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (least, greatest) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Self { median, least, greatest })
    }

    fn show(&self, digits: usize) -> String {
        let Self { median, least, greatest } = self;
        format!("{median:.digits$} [{least:.digits$}–{greatest:.digits$}]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_stands_between_the_extremes() {
        let spread = Spread::of(vec![3.0, 1.0, 2.0]).unwrap();
        assert_eq!(spread.show(0), "2 [1–3]");
        assert_eq!(Spread::of(vec![4.0, 1.0]).unwrap().median, 2.5);
        assert_eq!(Spread::of(Vec::new()), None);
    }
}
