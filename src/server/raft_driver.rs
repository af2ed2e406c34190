//! What the raft thread decides by itself: which orders share an append, and when a round of reads begins.
//!
//! One value for the thread and for the simulator: it is told what happened, and lists what to do next. Whoever drives it
//! performs each list, in order, before asking for the next one.

use std::mem;

use crate::raft::{Effect, Input, Member, Proposal};

use super::reads::Started;

/// The member, and what its next list depends on.
#[derive(Debug)]
pub struct RaftDriver {
    member: Member,
    effects: Vec<Effect>,
    proposals: Vec<Proposal>,
    /// The member has something to draw conclusions from.
    told: bool,
    /// Readers may wait for a round that can start now.
    round_due: bool,
}

impl RaftDriver {
    /// Drives `member`, which may have committed entries to hand out.
    pub fn new(member: Member) -> Self {
        Self { member, effects: Vec::new(), proposals: Vec::new(), told: true, round_due: false }
    }

    /// The member as it is.
    pub fn member(&self) -> &Member {
        &self.member
    }

    /// Something to append. Everything proposed before the next input becomes one append.
    pub fn propose(&mut self, proposal: Proposal) {
        self.proposals.push(proposal);
        self.told = true;
    }

    /// Anything else raft can be told.
    pub fn accept(&mut self, input: Input) {
        self.flush_proposals();
        self.member.accept(input, &mut self.effects);
        self.told = true;
    }

    /// So many ticks are due. A round of reads that got lost is made up for.
    pub fn tick(&mut self, ticks: u32) {
        for _ in 0..ticks {
            self.accept(Input::Tick);
        }
        self.round_due |= ticks > 0;
    }

    /// Somebody has joined an empty list of readers.
    pub fn readers_wait(&mut self) {
        self.round_due = true;
    }

    /// What to do next; `None` once nothing is left. `start_round` takes those who wait into a round, if there are any and
    /// none is under way.
    pub fn next(&mut self, start_round: impl FnOnce() -> Started) -> Option<Vec<Effect>> {
        self.flush_proposals();
        let started = mem::take(&mut self.round_due) && self.start(start_round());
        if !mem::take(&mut self.told) && !started {
            return None;
        }
        self.member.settle(&mut self.effects);
        let effects = mem::take(&mut self.effects);
        // Whoever waits may go on, or has to ask somebody else.
        self.round_due = effects
            .iter()
            .any(|effect| matches!(effect, Effect::ReadReady { .. } | Effect::ReadLost(_) | Effect::Standing { .. }));
        Some(effects)
    }

    /// False if there is nothing to start.
    fn start(&mut self, Started { round, abandoned }: Started) -> bool {
        for round in abandoned {
            self.accept(Input::CancelRead(round));
        }
        let Some(round) = round else { return false };
        self.accept(Input::ReadIndex(round));
        true
    }

    fn flush_proposals(&mut self) {
        if !self.proposals.is_empty() {
            let proposals = mem::take(&mut self.proposals);
            self.member.accept(Input::Propose(proposals), &mut self.effects);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        disk::MemoryDirectory,
        membership::Version,
        raft::{Change, Role},
        server::{
            reads::Rounds,
            recovery::{self, Bootstrap, Settings},
        },
        storage::MemoryEngine,
        types::{LogIndex, MemberId, RequestId},
    };

    /// A lone voter with its disk, its readers, and the rounds that were confirmed.
    struct Alone {
        driver: RaftDriver,
        id: MemberId,
        rounds: Rounds<&'static str>,
        started: u64,
        confirmed: Vec<(u64, Vec<&'static str>)>,
        /// Entries in each batch.
        batches: Vec<usize>,
    }

    impl Alone {
        fn new() -> Self {
            let founding = Bootstrap::new([("a".to_owned(), vec!["http://a:2380".to_owned()])].into(), "t");
            let (engine, log) = (MemoryEngine::new(), MemoryDirectory::default());
            let parts = recovery::found(engine, log, &Settings::new(Version::minor(3, 7)), &founding, "a").unwrap();
            let mut alone = Self {
                driver: RaftDriver::new(parts.member),
                id: parts.identity.member,
                rounds: Rounds::default(),
                started: 0,
                confirmed: Vec::new(),
                batches: Vec::new(),
            };
            alone.settle();
            alone
        }

        fn join(&mut self, reader: &'static str) {
            if self.rounds.join(reader) {
                self.driver.readers_wait();
            }
            self.settle();
        }

        fn settle(&mut self) {
            while let Some(effects) = self.driver.next(|| {
                self.started += 1;
                self.rounds.start(RequestId(self.started), |_| false)
            }) {
                for effect in effects {
                    self.perform(effect);
                }
            }
        }

        fn perform(&mut self, effect: Effect) {
            match effect {
                Effect::Persist(batch) => {
                    self.batches.push(batch.entries.len());
                    self.driver.accept(Input::Synced(batch.number));
                }
                Effect::Apply(entries) => {
                    let last = LogIndex(entries.last().unwrap().index);
                    for founder in entries.iter().filter(|entry| entry.r#type == 1) {
                        let (index, change) = (LogIndex(founder.index), Change::AddVoter(self.id));
                        self.driver.accept(Input::ApplyConfChange { index, change });
                    }
                    self.driver.accept(Input::Applied(last));
                }
                Effect::ReadReady { context, index } => {
                    let readers = self.rounds.confirm(context, index, index);
                    self.confirmed.push((context.0, readers));
                }
                _ => {}
            }
        }
    }

    #[test]
    fn who_comes_during_a_round_shares_the_next_which_begins_with_its_end() {
        let mut alone = Alone::new();
        alone.join("first");
        let round = alone.started;
        alone.join("second");
        alone.join("third");
        alone.driver.tick(1);
        alone.settle();
        assert_eq!(alone.confirmed, [], "nobody leads");
        alone.driver.accept(Input::Campaign);
        alone.settle();
        assert_eq!(alone.driver.member().standing().role, Role::Leader);
        let [(one, first), (_, rest)] = alone.confirmed.as_slice() else { panic!("{:?}", alone.confirmed) };
        assert_eq!(
            (*one, first.as_slice(), rest.as_slice()),
            (round, ["first"].as_slice(), ["second", "third"].as_slice())
        );
        assert!(alone.driver.next(|| unreachable!("nobody waits")).is_none());
    }

    #[test]
    fn proposals_of_one_moment_are_one_append() {
        let mut alone = Alone::new();
        alone.driver.accept(Input::Campaign);
        alone.settle();
        alone.batches.clear();
        for id in 1..=3 {
            alone.driver.propose(Proposal::new(RequestId(id), vec![7; 10]));
        }
        alone.settle();
        assert_eq!(alone.batches, [3]);
    }
}
