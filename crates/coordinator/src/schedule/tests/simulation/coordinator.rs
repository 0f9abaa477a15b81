//! The coordinator as its keeper runs it: groups of requests, one commit, then the answers; it dies at every point of
//! that, and comes back from its disk.

use std::collections::BTreeMap;

use isoloss_store::StoreError;
use isoloss_store::journal::JournalError;

use super::coverage::{Fault, standing};
use super::network::{Asked, Letter, Told};
use super::planted::Bug;
use super::*;

/// A living coordinator.
pub(super) struct Node {
    pub(super) store: Store,
    pub(super) state: State,
    /// Its monotonic clock when it started.
    began: Millis,
}

/// Where it dies within a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Death {
    BeforeRecords,
    BeforeCommit,
    InCommit,
    BeforeAnswers,
    AmongAnswers,
}

impl Death {
    fn fault(self) -> Fault {
        match self {
            Self::BeforeRecords => Fault::DiesBeforeRecords,
            Self::BeforeCommit => Fault::DiesBeforeCommit,
            Self::InCommit => Fault::DiesInCommit,
            Self::BeforeAnswers => Fault::DiesBeforeAnswers,
            Self::AmongAnswers => Fault::DiesAmongAnswers,
        }
    }
}

/// What a group owes.
#[derive(Default)]
struct Group {
    records: Vec<Record>,
    answers: Vec<Answer>,
}

impl Group {
    /// What leaves once the group is durable. A run that is retried in the same group has no outcome any more.
    fn answers(&mut self) -> Vec<Answer> {
        let mut retried: Vec<RunId> = Vec::new();
        for record in &self.records {
            if let Record::Retried { runs } = record {
                retried.extend(runs);
            }
        }
        let mut answers = std::mem::take(&mut self.answers);
        for answer in &mut answers {
            answer.stamp = answer.stamp.filter(|_| !answer.told.settled.is_some_and(|(id, _)| retried.contains(&id)));
        }
        answers
    }
}

struct Answer {
    told: Told,
    stamp: Option<u64>,
}

impl World {
    pub(super) fn mono(&self) -> Millis {
        self.clock.read(self.t)
    }

    /// What the scheduler is told.
    fn now(&self, node: &Node) -> Millis {
        let mono = self.mono();
        match self.bug {
            // The time of day, which people and NTP change.
            Some(Bug::WrongClock) => mono.saturating_add_signed(self.wall_ms).saturating_sub(node.began),
            _ => mono - node.began,
        }
    }

    /// One quantum: what arrived, orders, and a look at the time; all in one group.
    pub(super) fn coordinate(&mut self, mut requests: Vec<Asked>) {
        if self.trouble() {
            self.trouble_coordinator();
        }
        if self.down_until > self.t {
            // Nobody listens: connections are refused. A stopped one finds them when it goes on.
            if self.node.is_some() {
                let letters = requests.into_iter().map(|asked| (self.down_until, Letter::Request(asked)));
                self.letters.extend(letters);
            }
            return;
        }
        let Some(mut node) = self.node.take().or_else(|| self.start()) else {
            return;
        };
        let orders = self.orders();
        let tick = (0..1).map(|_| Event::Tick);
        let own = orders.into_iter().chain(tick).map(|event| Asked {
            worker: usize::MAX,
            life: 0,
            at: 0,
            events: vec![event],
            stamp: None,
        });
        requests.extend(own);
        let death = self.death();
        let mut group = Group::default();
        match self.serve(&mut node, requests, death, &mut group) {
            Ok(()) => {
                let (ledger, mono) = (node.state.ledger(), self.mono());
                self.history.tick(ledger, mono);
                self.node = Some(node);
            }
            Err(power) => self.die(&node, group.records, power),
        }
    }

    fn death(&mut self) -> Option<Death> {
        if !self.trouble() || self.dice.roll(100) != 0 {
            return None;
        }
        let deaths =
            [Death::BeforeRecords, Death::BeforeCommit, Death::InCommit, Death::BeforeAnswers, Death::AmongAnswers];
        let death = *self.dice.pick(&deaths);
        self.strike(death.fault());
        Some(death)
    }

    /// Serves a group; an error means that the process has ended, with the power or without.
    fn serve(
        &mut self,
        node: &mut Node,
        requests: Vec<Asked>,
        death: Option<Death>,
        group: &mut Group,
    ) -> Result<(), bool> {
        let dies_at = (death == Some(Death::BeforeRecords)).then(|| self.dice.roll(requests.len() as u64));
        for (at, asked) in requests.into_iter().enumerate() {
            let dies = dies_at == Some(at as u64);
            self.take(node, asked, dies, group)?;
        }
        if self.bug == Some(Bug::AckBeforeFsync) {
            group.answers().into_iter().for_each(|answer| self.answer(answer));
        }
        if death == Some(Death::BeforeCommit) {
            return Err(self.dice.chance(50));
        }
        if death == Some(Death::InCommit) {
            // Written, perhaps in part; the fsync never returned.
            let room = self.dice.chance(50).then(|| usize::try_from(self.dice.roll(2000)).unwrap());
            let was_full = self.disk.is_full();
            self.disk.fill(room.or(was_full.then_some(0)));
            self.disk.fail_next_sync(room.is_none());
            drop(node.store.commit());
            self.disk.fail_next_sync(false);
            self.disk.fill(was_full.then_some(0));
            return Err(self.dice.chance(50));
        }
        if node.store.commit().is_err() {
            // As the keeper does: nothing is acknowledged, the process ends.
            return Err(self.dice.chance(30));
        }
        let (now, mono) = (self.now(node), self.mono());
        let answers = group.answers();
        for record in group.records.drain(..) {
            self.history.record(&record, now, mono);
        }
        self.groups += 1;
        if self.groups.is_multiple_of(64) {
            let alike = node.store.ledger() == node.state.ledger();
            self.history.must(alike, || "store and scheduler disagree".to_owned());
            let mut counted = BTreeMap::new();
            for (_, row) in node.store.ledger().runs() {
                *counted.entry(node.store.ledger().status(row)).or_default() += 1;
            }
            let counts = node.state.counts();
            self.history.must(counts == counted, || format!("counts: {counts:?}, there are {counted:?}"));
        }
        if death == Some(Death::BeforeAnswers) {
            return Err(self.dice.chance(50));
        }
        let told = if death.is_some() { answers.len() / 2 } else { answers.len() };
        answers.into_iter().take(told).for_each(|answer| self.answer(answer));
        if death.is_some() { Err(self.dice.chance(50)) } else { Ok(()) }
    }

    /// One request: its steps, their records staged.
    fn take(&mut self, node: &mut Node, asked: Asked, dies: bool, group: &mut Group) -> Result<(), bool> {
        let Asked { worker, life, at, events, stamp } = asked;
        let mut told = Told { worker, life, asked: at, is_renewal: false, settled: None, effects: Vec::new() };
        for event in events {
            told.is_renewal |= matches!(event, Event::Renew { .. } | Event::Join { .. });
            if let Event::Settle { run_id, attempt, .. } = &event {
                told.settled = Some((*run_id, *attempt));
            }
            let now = self.now(node);
            self.log(|| format!("{now} {event:?}"));
            let effects = step(&mut node.state, event, now);
            if dies {
                return Err(self.dice.chance(50));
            }
            for effect in effects {
                self.log(|| format!("{now}   {effect:?}"));
                match effect {
                    Effect::Record(record) => {
                        let taken = node.store.append(&record);
                        self.history.must(taken.is_ok(), || format!("the store refuses {record:?}: {taken:?}"));
                        group.records.push(record);
                    }
                    Effect::Freed { ms, .. } => self.history.freed(ms),
                    // As the keeper does.
                    Effect::Changed { run_id } => node.state.share(run_id, node.store.ledger()),
                    effect => told.effects.push(effect),
                }
            }
        }
        let taken = told
            .effects
            .iter()
            .all(|effect| !matches!(effect, Effect::Refused(refusal) if *refusal != Refusal::AlreadyRecorded));
        let stale = |effect: &&Effect| matches!(effect, Effect::Refused(Refusal::Stale { .. }));
        self.history.stale += told.effects.iter().filter(stale).count() as u64;
        for effect in &told.effects {
            match effect {
                Effect::Grant(grant) => self.history.keep(grant.run_id, self.clock.read(self.t)),
                Effect::Keep { run_id, .. } => self.history.keep(*run_id, self.clock.read(self.t)),
                _ => {}
            }
        }
        if worker != usize::MAX {
            group.answers.push(Answer { told, stamp: stamp.filter(|_| taken) });
        }
        Ok(())
    }

    /// An answer leaves.
    fn answer(&mut self, answer: Answer) {
        let Answer { told, stamp } = answer;
        if let (Some(stamp), Some((run_id, _))) = (stamp, told.settled) {
            self.history.acknowledge(run_id, stamp);
        }
        let mono = self.mono();
        for effect in &told.effects {
            if let Effect::Grant(grant) = effect {
                self.history.tell(grant, told.life, mono);
            }
        }
        self.post(Letter::Answer(told));
    }

    /// The process has ended; `open` are records that may or may not have reached the disk.
    fn die(&mut self, node: &Node, open: Vec<Record>, power: bool) {
        self.log(|| format!("the coordinator ends, power cut: {power}"));
        self.standing = standing(node.state.ledger());
        self.open.extend(open);
        if power {
            self.strike(Fault::PowerCut);
            self.disk.cut_power(&mut self.dice);
        }
        self.down_until = self.t + self.dice.roll(15_000);
    }

    /// The daemon starts; where it cannot for a full disk it is tried again.
    fn start(&mut self) -> Option<Node> {
        match Store::open_on(Box::new(self.disk.clone())) {
            Ok(store) => {
                let mono = self.mono();
                let open = std::mem::take(&mut self.open);
                self.history.reopen(store.ledger(), &open, mono);
                let state = State::restore(self.config, store.ledger().clone(), 0);
                Some(Node { store, state, began: mono })
            }
            Err(error) => {
                // A full disk, or one more fsync that fails: it ends, and starts again.
                let excused = matches!(error, StoreError::Journal(JournalError::Io(_)));
                self.history.must(excused, || format!("lost: the store does not open: {error}"));
                self.down_until = self.t + 1_000;
                None
            }
        }
    }

    fn trouble_coordinator(&mut self) {
        let (t, for_ms) = (self.t, 1_000 + self.dice.roll(60_000));
        match self.dice.roll(1_000) {
            0..=1 if self.node.is_some() => {
                self.strike(Fault::CoordinatorStopped);
                self.down_until = t + for_ms;
            }
            2..=3 if self.node.is_some() => {
                self.strike(Fault::CoordinatorSuspended);
                self.clock.stand(t, for_ms);
                self.down_until = t + for_ms;
            }
            4..=9 => {
                self.strike(Fault::WallClockJumps);
                let ms = i64::try_from(for_ms * self.dice.pick(&[1, 1, 60])).unwrap();
                self.wall_ms += if self.dice.chance(50) { ms } else { -ms };
            }
            10..=12 if !self.disk.is_full() => {
                self.strike(Fault::DiskFull);
                self.disk.fill(Some(usize::try_from(self.dice.roll(3_000)).unwrap()));
                self.full_until = t + for_ms / 3;
            }
            13..=15 if self.node.is_some() => {
                self.strike(Fault::FsyncFails);
                self.disk.fail_next_sync(true);
            }
            _ => {}
        }
        if self.full_until <= t && self.disk.is_full() {
            self.disk.fill(None);
        }
    }
}
