//! Decides from a history alone whether the servers kept their promises.
//!
//! Knows nothing of how they work: it has only what clients and workers asked and were answered, and
//! when. A call that was not answered may have happened at any later moment, or never. Each rule is one
//! function; each has a planted violation in `tests.rs` that it must find.

mod rules;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::history::{Given, Record, Said, Seen, What};

/// What the history is held to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// From an accepted cancel to its end being seen, in microseconds, while a server is up.
    pub cancel: u64,
    /// What an outage may cost beyond its own length, in microseconds: a lease and a start.
    pub outage: u64,
}

/// A promise that was not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Violation {
    /// Of which rule, as its function is called.
    pub rule: &'static str,
    /// About which operation, or which call.
    pub about: String,
    /// In words, with the records that show it.
    pub what: String,
}

/// Everything that is known of one operation, in the order of the history.
#[derive(Default)]
struct Life<'a> {
    /// Starts that were answered with it.
    starts: Vec<&'a Record>,
    /// Reads and waits, the last one included.
    reads: Vec<(&'a Record, &'a Seen)>,
    /// The reads after everything.
    last: Vec<(&'a Record, &'a Seen)>,
    missing: Vec<&'a Record>,
    /// Cancels, and whether they were accepted.
    cancels: Vec<(&'a Record, bool)>,
    claims: Vec<(&'a Record, &'a str, &'a Given)>,
    /// Reports that were answered: epoch, what was said, whether it was accepted.
    reports: Vec<(&'a Record, u64, &'a Said, bool)>,
    /// Times at work, by epoch.
    ran: Vec<(&'a Record, u64)>,
}

/// A history in the form that rules read.
struct Facts<'a> {
    lives: BTreeMap<&'a str, Life<'a>>,
    /// Starts by their idempotency key; `None` where the line broke.
    keys: BTreeMap<&'a str, Vec<(&'a Record, Option<&'a str>)>>,
    /// When nobody could be served: from, to.
    outages: Vec<(u64, u64)>,
    rest: Vec<&'a Record>,
    bounds: Bounds,
}

/// Every promise that the history shows broken.
pub(super) fn check(history: &[Record], bounds: Bounds) -> Vec<Violation> {
    let facts = Facts::of(history, bounds);
    let mut found = Vec::new();
    for (rule, judge) in rules::OF_ONE_OPERATION {
        for (name, life) in &facts.lives {
            let mut say = |what: String| {
                found.push(Violation { rule, about: (*name).to_owned(), what });
            };
            judge(life, &facts, &mut say);
        }
    }
    for (rule, judge) in rules::OF_THE_WHOLE {
        judge(&facts, &mut |about: &str, what: String| {
            found.push(Violation { rule, about: about.to_owned(), what });
        });
    }
    found
}

impl<'a> Facts<'a> {
    fn of(history: &'a [Record], bounds: Bounds) -> Self {
        let mut facts = Self {
            lives: BTreeMap::new(),
            keys: BTreeMap::new(),
            outages: Vec::new(),
            rest: Vec::new(),
            bounds,
        };
        let mut order: Vec<_> = history.iter().collect();
        order.sort_by_key(|record| (record.began, record.ended));
        for record in order {
            facts.add(record);
        }
        facts
    }

    fn add(&mut self, record: &'a Record) {
        match &record.what {
            What::Start { request_id, name } => {
                self.keys.entry(request_id).or_default().push((record, name.as_deref()));
                if let Some(name) = name {
                    self.life(name).starts.push(record);
                }
            }
            What::Read { name, seen } => self.life(name).reads.push((record, seen)),
            What::Last { name, seen } => {
                let life = self.life(name);
                life.reads.push((record, seen));
                life.last.push((record, seen));
            }
            What::Missing { name } => self.life(name).missing.push(record),
            What::Cancel { name, accepted } => self.life(name).cancels.push((record, *accepted)),
            What::Claim { claim_id, given } => {
                for one in given {
                    self.life(&one.name).claims.push((record, claim_id, one));
                }
            }
            What::Report { name, epoch, said, accepted } => {
                self.life(name).reports.push((record, *epoch, said, *accepted));
            }
            What::Ran { name, epoch } => self.life(name).ran.push((record, *epoch)),
            What::Fault { down, .. } => {
                if *down {
                    self.outages.push((record.began, record.ended));
                }
            }
            What::Refused { .. } | What::Hung { .. } => self.rest.push(record),
        }
    }

    fn life(&mut self, name: &'a str) -> &mut Life<'a> {
        self.lives.entry(name).or_default()
    }

    /// Until when something must have happened that may take `span` from `from` on: outages do not count,
    /// and each may cost a little more.
    fn until(&self, from: u64, span: u64) -> u64 {
        let mut until = from + span;
        let mut outages = self.outages.clone();
        outages.sort_unstable();
        let mut counted_to = from;
        for (began, ended) in outages {
            if ended <= counted_to || began > until {
                continue;
            }
            until += ended - began.max(counted_to) + self.bounds.outage;
            counted_to = ended;
        }
        until
    }
}
