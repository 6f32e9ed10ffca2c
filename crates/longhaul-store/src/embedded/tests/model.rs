//! The embedded engine beside the plain store in memory: the same seeded commands must lead to the same
//! answers, also across reopening.

use std::sync::Arc;
use std::time::Duration;

use longhaul_core::{
    Applied, Changes, Code, Command, Effects, Finish, Progress, Status, Timestamp,
};

use super::{Options, open};
use crate::conformance::world::{
    Notes, OTHER_API, World, a_cancel, a_claim, a_query, a_start, a_success, at, name, request_id,
};
use crate::memory::Memory;
use crate::{ClaimFilter, Failure, ListQuery, ParentFilter};

const STEPS: u64 = 400;
const NAMES: u64 = 40;

/// A small generator of numbers: the same seed gives the same run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % sides
    }
}

/// Two stores that must not be told apart.
struct Pair {
    plain: World,
    embedded: World,
    options: Options,
}

impl Pair {
    fn reopen(self) -> Self {
        let Self { plain, embedded, options } = self;
        drop(embedded);
        let embedded = open(&options).unwrap();
        Self { plain, embedded, options }
    }

    async fn step(&self, dice: &mut Dice, now: Timestamp) {
        let id = format!("o{}", dice.roll(NAMES));
        match dice.roll(12) {
            0..3 => {
                let start = random_start(dice, &id, now);
                let one = self.plain.start_at(start.clone(), now).await;
                same(one, self.embedded.start_at(start, now).await);
            }
            3 | 4 => {
                let filter = ClaimFilter {
                    api: (dice.roll(4) == 0).then(|| OTHER_API.into()),
                    methods: Vec::new(),
                    queues: (0..dice.roll(3)).map(|q| format!("q{q}").as_str().into()).collect(),
                };
                let limit = dice.roll(4) as usize;
                let one = self.plain.claim(filter.clone(), limit, now).await;
                assert_eq!(one, self.embedded.claim(filter, limit, now).await);
            }
            5 => {
                let by_name = |mut swept: Vec<Applied>| {
                    swept.sort_by(|a, b| a.operation.name.cmp(&b.operation.name));
                    swept
                };
                let one = by_name(self.plain.sweep(usize::MAX, now).await);
                assert_eq!(one, by_name(self.embedded.sweep(usize::MAX, now).await));
            }
            _ => {
                let epoch = self.plain.read(&id).await.map_or(0, |operation| operation.epoch);
                let command = random_command(dice, epoch);
                let one = self.plain.apply(&id, command.clone(), now).await;
                same(one, self.embedded.apply(&id, command, now).await);
            }
        }
    }

    async fn compare(&self, dice: &mut Dice, now: Timestamp) {
        let (plain, embedded) = (&self.plain, &self.embedded);
        for index in 0..NAMES {
            let id = format!("o{index}");
            assert_eq!(plain.read(&id).await, embedded.read(&id).await);
            let (after, limit) = (dice.roll(4), 1 + dice.roll(20) as usize);
            let history = plain.store.history(&name(&id), after, limit).await.unwrap();
            assert_eq!(history, embedded.store.history(&name(&id), after, limit).await.unwrap());
        }
        let claimed = async |world: &World| {
            let mut claimed = world.store.claimed("w", "c").await.unwrap();
            claimed.sort_by(|a, b| a.name.cmp(&b.name));
            claimed
        };
        assert_eq!(claimed(plain).await, claimed(embedded).await);
        let parent = match dice.roll(3) {
            0 => ParentFilter::Any,
            1 => ParentFilter::Matching("projects/-/locations/l".into()),
            _ => ParentFilter::Matching("projects/p1/locations/l".into()),
        };
        let done = [None, Some(true), Some(false)][dice.roll(3) as usize];
        let mut after = None;
        loop {
            let query = ListQuery { parent: parent.clone(), done, after, ..a_query(3) };
            let page = plain.store.list(query.clone()).await.unwrap();
            assert_eq!(page, embedded.store.list(query).await.unwrap());
            let Some((cursor, _)) = page.last() else { break };
            after = Some(*cursor);
        }
        assert_eq!(plain.store.counts(), embedded.store.counts());
        assert_eq!(plain.store.next_due(), embedded.store.next_due());
        assert_eq!(plain.store.next_claimable(now), embedded.store.next_claimable(now));
    }
}

fn same(one: Result<Applied, Failure>, other: Result<Applied, Failure>) {
    match (one, other) {
        (Ok(one), Ok(other)) => assert_eq!(one, other),
        (Err(Failure::Refused(one)), Err(Failure::Refused(other))) => assert_eq!(one, other),
        (one, other) => panic!("{one:?} beside {other:?}"),
    }
}

fn random_start(dice: &mut Dice, id: &str, now: Timestamp) -> longhaul_core::Start {
    let mut start = a_start(id);
    // Unique and growing, as the server's are: a forgotten name comes back with another uid.
    start.uid = u128::from(now.as_micros().unsigned_abs()) << 64;
    start.queue = format!("q{}", dice.roll(3)).as_str().into();
    start.parent = format!("projects/p{}/locations/l", dice.roll(3)).as_str().into();
    if dice.roll(4) == 0 {
        start.api = OTHER_API.into();
    }
    if dice.roll(3) == 0 {
        let until = now + Duration::from_secs(dice.roll(100));
        start.request_id = Some(request_id(&format!("key{}", dice.roll(5)), until));
    }
    if dice.roll(3) == 0 {
        start.deadline = Some(now + Duration::from_secs(dice.roll(100)));
    }
    start.policy.retention = Duration::from_secs(dice.roll(200));
    start.policy.cleanup_budget = (dice.roll(2) == 0).then_some(Duration::from_secs(40));
    start.policy.retry.attempts_max = 3;
    start
}

fn random_command(dice: &mut Dice, epoch: u64) -> Command {
    let lease = Duration::from_secs(1 + dice.roll(40));
    let step = dice.roll(9) as u32;
    let progress = (dice.roll(2) == 0).then(|| Progress { step, ..Progress::default() });
    let changes = Changes { progress, acknowledged: dice.roll(2) == 0, ..Changes::default() };
    let finish = |finish| Command::Finish { epoch, finish, changes: Changes::default(), jitter: 9 };
    match dice.roll(9) {
        0 | 1 => a_cancel(),
        2 => a_claim(),
        3 => Command::Renew { epoch, lease, changes },
        4 => Command::Release { epoch, changes },
        5 => a_success(epoch),
        6 => {
            let status = Status { code: Code::Internal, message: "x".into(), details: Vec::new() };
            let retryable = dice.roll(2) == 0;
            finish(Finish::Failed { status, retryable, effects: None })
        }
        7 => finish(Finish::Cancelled { effects: Effects::Undone, message: String::new() }),
        _ => Command::Delete { actor: "d".into() },
    }
}

async fn run(seed: u64, cache_bytes: usize) {
    let folder = tempfile::tempdir().unwrap();
    let notes = Arc::new(Notes::default());
    let store = Arc::new(Memory::new([1; 32], notes.clone()));
    let mut options = Options::new(folder.path());
    options.cache_bytes = cache_bytes;
    let embedded = open(&options).unwrap();
    let mut pair = Pair { plain: World { store, notes }, embedded, options };
    let mut dice = Dice(seed);
    for step in 0..STEPS {
        let now = at(step * 3) + Duration::from_micros(step);
        pair.step(&mut dice, now).await;
        if dice.roll(20) == 0 {
            pair.compare(&mut dice, now).await;
        }
        if dice.roll(80) == 0 {
            pair = pair.reopen();
            pair.compare(&mut dice, now).await;
        }
    }
    pair.compare(&mut dice, at(STEPS * 3)).await;
}

#[tokio::test]
async fn both_stores_answer_alike() {
    for seed in 0..12 {
        let _named = Seed(seed);
        run(seed, if seed % 3 == 0 { 0 } else { 20_000 }).await;
    }
}

/// Says which seed failed.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let line = format!("seed {}\n", self.0);
            let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
        }
    }
}
