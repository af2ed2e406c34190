//! A member's disk: the real log over files in memory that can lose power, and a state machine's own durable copy.

use crate::{
    disk::{Loss, MemoryDirectory},
    pb::{raftpb, walpb},
    raft::{LogBatch, Recovered},
    types::{ClusterId, LogIndex, MemberId, Term},
    wal::{Metadata, Options, Wal, WalError},
};

use super::world::{Chance, Machine};

/// Small enough for several segments in one story.
const OPTIONS: Options = Options { segment_bytes: 1024, unsafe_no_fsync: false };

/// What survives a crash, and what is known of it.
#[derive(Debug)]
pub(super) struct Disk {
    directory: MemoryDirectory,
    /// `None` while the member does not run.
    wal: Option<Wal<MemoryDirectory>>,
    /// The state machine's durable copy.
    pub(super) machine: Machine,
    /// A received state, durable, that takes the copy's place once the log knows of it.
    prepared: Option<Machine>,
    /// Entries known to be durable, in order, as far back as anybody asks.
    durable: Vec<raftpb::Entry>,
}

impl Disk {
    /// A new log with these entries.
    pub(super) fn new(member: u64, entries: &[raftpb::Entry], hard_state: raftpb::HardState) -> Self {
        let directory = MemoryDirectory::default();
        let metadata = Metadata { member: MemberId(member), cluster: ClusterId(1) };
        let mut wal = Wal::create(directory.clone(), metadata, &OPTIONS).unwrap();
        // A joiner has none yet, and the log knows none without a term.
        wal.append(entries, Some(&hard_state).filter(|state| state.term > 0)).unwrap();
        wal.sync().unwrap();
        let machine = Machine::default();
        Self { directory, wal: None, machine, prepared: None, durable: entries.to_vec() }
    }

    fn wal(&mut self) -> &mut Wal<MemoryDirectory> {
        self.wal.as_mut().unwrap()
    }

    /// Opens the log behind the state machine's copy, finishing the installation of a received state if need be, and
    /// checks that nothing durable is missing.
    pub(super) fn recover(&mut self) -> Recovered {
        let position = |machine: &Machine| (LogIndex(machine.applied), Term(machine.term));
        let (wal, log) = match Wal::open(self.directory.clone(), position(&self.machine), &OPTIONS) {
            Err(WalError::SnapshotAhead { index, .. }) => {
                self.machine = self.prepared.take().unwrap();
                assert_eq!(self.machine.applied, index.0);
                self.durable.clear();
                Wal::open(self.directory.clone(), position(&self.machine), &OPTIONS).unwrap()
            }
            opened => opened.unwrap(),
        };
        self.prepared = None;
        let first = LogIndex(log.start.0.0 + 1);
        let entries = wal.reader().entries(first, log.last, usize::MAX).unwrap();
        for entry in self.durable.iter().filter(|entry| entry.index >= first.0) {
            assert!(entries.contains(entry), "{entry:?} was durable and is gone");
        }
        self.durable.clone_from(&entries);
        self.wal = Some(wal);
        let applied = self.machine.applied;
        Recovered {
            hard_state: log.hard_state,
            conf_state: self.machine.conf_state(),
            applied: LogIndex(applied),
            start: log.start,
            terms: log.terms,
            last: log.last,
            entries: entries.into_iter().filter(|entry| entry.index > applied).collect(),
        }
    }

    /// Puts batches into the page cache, a received state ahead of them on disk.
    fn write(&mut self, batches: &[LogBatch], received: &dyn Fn(&raftpb::Snapshot) -> Machine) {
        for batch in batches {
            if let Some(snapshot) = &batch.snapshot {
                let machine = received(snapshot);
                let (index, term) = (machine.applied, machine.term);
                let conf_state = Some(machine.conf_state());
                self.prepared = Some(machine);
                self.wal().mark_snapshot(&walpb::Snapshot { index, term, conf_state }).unwrap();
            }
            self.wal().append(&batch.entries, batch.hard_state.as_ref()).unwrap();
        }
    }

    /// Makes batches durable. Returns the position of a received state among them.
    pub(super) fn sync(
        &mut self,
        batches: &[LogBatch],
        received: &dyn Fn(&raftpb::Snapshot) -> Machine,
    ) -> Option<Machine> {
        self.write(batches, received);
        self.wal().sync().unwrap();
        for batch in batches {
            self.forget_replaced(batch);
            self.durable.extend(batch.entries.iter().cloned());
        }
        let installed = self.prepared.take();
        self.machine = installed.clone().unwrap_or_else(|| self.machine.clone());
        installed
    }

    fn forget_replaced(&mut self, batch: &LogBatch) {
        if batch.snapshot.is_some() {
            self.durable.clear();
        }
        if let Some(first) = batch.entries.first() {
            self.durable.retain(|entry| entry.index < first.index);
        }
    }

    /// Loses power while `batches` are on their way.
    pub(super) fn crash(
        &mut self,
        batches: &[LogBatch],
        received: &dyn Fn(&raftpb::Snapshot) -> Machine,
        chance: &mut Chance,
    ) {
        self.write(batches, received);
        self.wal().flush().unwrap();
        self.wal = None;
        let loss = match chance.below(4) {
            0 => Loss::All,
            1 => Loss::Nothing,
            _ => Loss::Torn(chance.below(u64::MAX)),
        };
        self.directory.crash(loss);
        for batch in batches {
            self.forget_replaced(batch);
        }
    }

    /// The state machine's copy is durable at `machine`: marks it and lets go of segments behind `release`.
    pub(super) fn persist(&mut self, machine: &Machine, release: u64) {
        self.machine = machine.clone();
        let (index, term) = (machine.applied, machine.term);
        let conf_state = Some(machine.conf_state());
        self.wal().mark_snapshot(&walpb::Snapshot { index, term, conf_state }).unwrap();
        self.wal().release(LogIndex(release), 1).unwrap();
    }

    /// Whether this entry is durable, as far as anybody remembers.
    pub(super) fn holds(&self, entry: &raftpb::Entry) -> bool {
        self.durable.first().is_none_or(|first| entry.index < first.index) || self.durable.contains(entry)
    }

    /// Reads entries back, as for a peer that lags.
    pub(super) fn fetch(&self, first: LogIndex, last: LogIndex, bytes_max: usize) -> Option<Vec<raftpb::Entry>> {
        self.wal.as_ref().and_then(|wal| wal.reader().entries(first, last, bytes_max).ok())
    }
}
