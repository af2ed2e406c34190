//! Power failures while a received snapshot is installed: at every operation of every disk, with everything, nothing, or a
//! torn part of what was not synced lost. After each of them a start finds the old state with the old log, or the new state
//! with the log that begins behind it; the new one if its installation was reported. Nothing else stays on the disk, and the
//! member goes on: it takes the snapshot again if it has to, and the entries behind it.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::sync::Mutex;

use bytes::Bytes;
use prost::Message as _;
use quorate::apply::{self, Applier, native};
use quorate::disk::{Directory, DiskFile, Loss, MemoryDirectory};
use quorate::membership::Version;
use quorate::pb::etcdserverpb::{InternalRaftRequest, PutRequest, RequestHeader};
use quorate::pb::raftpb::{ConfState, Entry, HardState, Message, MessageType, Snapshot, SnapshotMetadata};
use quorate::raft::{Effect, Input, LogBatch};
use quorate::server::durability::{self, InstallError, Mark, WalOrder, carry_out};
use quorate::server::recovery::{self, Bootstrap, Generations, Parts, PartsError, Settings};
use quorate::storage::{Engine, MemoryEngine, Read, Row, Writes};
use quorate::types::{LogIndex, Term};
use quorate::wal::{self, Wal};

/// What the follower has applied, and where its log ends, when the snapshot comes.
const APPLIED: u64 = 8;
const LAST: u64 = 12;
/// Where the snapshot stands.
const SNAPSHOT: u64 = 40;
const SNAPSHOT_TERM: u64 = 3;
/// Ways to lose torn sectors.
const TORN: u64 = 5;

/// A mistake put in on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    None,
    /// The new state becomes the live one before the log has the snapshot.
    LiveBeforeLog,
    /// The log has the snapshot before its rows are durable.
    LogBeforeRows,
}

/// Where the power fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Wal(u64),
    Snap(u64),
    Current(u64),
    Nowhere,
}

/// Everything that outlives the process.
#[derive(Default)]
struct Disk {
    wal: MemoryDirectory,
    snap: MemoryDirectory,
    /// Holds CURRENT.
    state: MemoryDirectory,
    generations: Mutex<BTreeMap<u64, MemoryEngine>>,
}

impl Generations for Disk {
    type Engine = MemoryEngine;
    type Name = u64;
    type Error = String;

    fn live(&self) -> Result<(u64, MemoryEngine), String> {
        self.state.sync().map_err(|cause| cause.to_string())?;
        let current = self.state.contents("CURRENT").ok_or("no CURRENT")?;
        let name = String::from_utf8(current).ok().and_then(|text| text.parse().ok()).ok_or("a damaged CURRENT")?;
        Ok((name, self.open(&name)?))
    }

    fn others(&self) -> Result<Vec<u64>, String> {
        let (live, _) = self.live()?;
        Ok(self
            .generations
            .lock()
            .expect("nobody panicked")
            .keys()
            .rev()
            .copied()
            .filter(|name| *name != live)
            .collect())
    }

    fn open(&self, name: &u64) -> Result<MemoryEngine, String> {
        self.generations
            .lock()
            .expect("nobody panicked")
            .get(name)
            .cloned()
            .ok_or_else(|| format!("no generation {name}"))
    }

    fn make_live(&self, name: &u64) -> Result<(), String> {
        let replace = || -> io::Result<()> {
            let file = self.state.create("CURRENT.tmp")?;
            file.write_at(name.to_string().as_bytes(), 0)?;
            file.sync()?;
            self.state.rename("CURRENT.tmp", "CURRENT")?;
            self.state.sync()
        };
        replace().map_err(|cause| cause.to_string())
    }

    fn remove(&self, name: &u64) {
        self.generations.lock().expect("nobody panicked").remove(name);
    }

    fn failed(&self, name: &u64, cause: PartsError) -> String {
        format!("generation {name}: {cause}")
    }
}

impl Disk {
    fn add(&self, engine: MemoryEngine) -> u64 {
        let mut generations = self.generations.lock().expect("nobody panicked");
        let name = generations.keys().next_back().copied().unwrap_or(0) + 1;
        generations.insert(name, engine);
        name
    }

    fn lose_power(&self, loss: Option<Loss>) {
        for directory in [&self.wal, &self.snap, &self.state] {
            loss.map_or_else(|| directory.kill(), |loss| directory.crash(loss));
        }
        for engine in self.generations.lock().expect("nobody panicked").values_mut() {
            *engine = match loss {
                None => engine.kill(),
                Some(Loss::Nothing) => engine.crash_keeping(u64::MAX),
                Some(_) => engine.crash(),
            };
        }
    }

    fn arm(&self, place: Place) {
        match place {
            Place::Wal(n) => self.wal.fail_after(n),
            Place::Snap(n) => self.snap.fail_after(n),
            Place::Current(n) => self.state.fail_after(n),
            Place::Nowhere => {}
        }
    }
}

fn settings() -> Settings {
    let wal = wal::Options { segment_bytes: 2048, unsafe_no_fsync: false };
    Settings { wal, ..Settings::new(Version::minor(3, 7)) }
}

fn bootstrap() -> Bootstrap {
    let member = |name: &str| (name.to_owned(), vec![format!("http://{name}:2380")]);
    Bootstrap::new(["a", "b", "c"].map(member).into(), "t")
}

fn entry(index: u64, term: u64) -> Entry {
    let put = PutRequest { key: format!("key{}", index % 7).into(), value: vec![7; 200].into(), ..Default::default() };
    let header = Some(RequestHeader { id: index, ..Default::default() });
    let request = InternalRaftRequest { header, put: Some(put), ..Default::default() };
    Entry { index, term, data: request.encode_to_vec().into(), ..Default::default() }
}

/// A state that has applied everything up to `last`, as every member but the follower has.
fn leader_state(last: u64) -> Applier<MemoryEngine> {
    let parts = recovery::found(MemoryEngine::new(), MemoryDirectory::default(), &settings(), &bootstrap(), "a");
    let mut parts = parts.expect("a disk that works");
    let founding = parts.wal.reader().entries(LogIndex(1), LogIndex(3), usize::MAX).expect("a disk that works");
    parts.applier.apply(&founding).expect("a disk that works");
    let entries: Vec<Entry> =
        (4..=last).map(|index| entry(index, if index < 20 { 2 } else { SNAPSHOT_TERM })).collect();
    parts.applier.apply(&entries).expect("a disk that works");
    parts.applier
}

/// A follower that has applied a little, with a log that goes a little further.
fn follower() -> Disk {
    let disk = Disk::default();
    let engine = MemoryEngine::new();
    disk.make_live(&disk.add(engine.clone())).expect("a disk that works");
    let mut parts =
        recovery::found(engine.clone(), disk.wal.clone(), &settings(), &bootstrap(), "b").expect("a disk that works");
    let founding = parts.wal.reader().entries(LogIndex(1), LogIndex(3), usize::MAX).expect("a disk that works");
    let entries: Vec<Entry> = (4..=LAST).map(|index| entry(index, 2)).collect();
    let hard_state = HardState { term: 2, vote: parts.identity.member.0, commit: APPLIED };
    parts.wal.append(&entries, Some(&hard_state)).expect("a disk that works");
    parts.wal.sync().expect("a disk that works");
    parts.applier.apply(&founding).expect("a disk that works");
    parts
        .applier
        .apply(&entries.iter().take_while(|entry| entry.index <= APPLIED).cloned().collect::<Vec<_>>())
        .expect("a disk that works");
    engine.persist().expect("a disk that works");
    disk
}

fn start(disk: &Disk) -> Result<Parts<MemoryEngine, MemoryDirectory>, String> {
    recovery::resume(disk, disk.wal.clone(), &settings(), &bootstrap()).map(|(parts, _)| parts)
}

fn rows(engine: &MemoryEngine) -> Vec<Row> {
    engine.snapshot().scan(Bound::Unbounded, Bound::Unbounded).collect::<Result<_, _>>().expect("a disk that works")
}

/// Loads the snapshot into a generation of its own, beside one that an earlier transfer has left half full.
fn stage(disk: &Disk, leader: &Applier<MemoryEngine>, mistake: Mistake) -> (u64, Mark) {
    let half = MemoryEngine::new();
    let mut writes = Writes::default();
    writes.put(Bytes::from_static(&[0x10, b'k']), Bytes::from_static(b"half"));
    half.commit(writes).expect("a disk that works");
    half.persist().expect("a disk that works");
    disk.add(half);
    let published = leader.published();
    let engine = MemoryEngine::new();
    let blocks = native::write(&published, 0).map(|block| block.map_err(io::Error::other));
    let (_, mut stream) = native::read(blocks).expect("a disk that works");
    if mistake == Mistake::LogBeforeRows {
        let mut writes = Writes::default();
        stream.for_each(|row| {
            let (key, value) = row.expect("a disk that works");
            writes.put(key, value);
        });
        engine.commit(writes).expect("a disk that works");
    } else {
        engine.ingest(&mut stream).expect("a disk that works");
    }
    let mark = Mark { index: published.applied, term: published.term, cluster: published.cluster.clone() };
    (disk.add(engine), mark)
}

/// The batch with which raft takes the snapshot.
fn batch(parts: &mut Parts<MemoryEngine, MemoryDirectory>, configuration: &ConfState) -> LogBatch {
    let from = *configuration.voters.iter().find(|id| **id != parts.identity.member.0).expect("a disk that works");
    let conf_state = Some(configuration.clone());
    let metadata = SnapshotMetadata { conf_state, index: SNAPSHOT, term: SNAPSHOT_TERM };
    let message = Message {
        r#type: MessageType::MsgSnap.into(),
        to: parts.identity.member.0,
        from,
        term: SNAPSHOT_TERM,
        snapshot: Some(Snapshot { data: Bytes::new(), metadata: Some(metadata) }),
        ..Message::default()
    };
    let mut effects = Vec::new();
    parts.member.handle(Input::FromPeer(Box::new(message)), &mut effects);
    let batch = effects.into_iter().find_map(|effect| match effect {
        Effect::Persist(batch) if batch.snapshot.is_some() => Some(batch),
        _ => None,
    });
    batch.expect("raft takes the snapshot")
}

fn install(disk: &Disk, leader: &Applier<MemoryEngine>, place: Place, mistake: Mistake) -> Result<(), InstallError> {
    let mut parts = start(disk).expect("a disk that works");
    let (name, mark) = stage(disk, leader, mistake);
    let batch = batch(&mut parts, mark.cluster.configuration());
    disk.arm(place);
    let live = || disk.make_live(&name).map_err(io::Error::other);
    if mistake == Mistake::LiveBeforeLog {
        live().map_err(|cause| InstallError::Live(Box::new(cause)))?;
    }
    let synced = durability::install(&mut parts.wal, &disk.snap, &batch, &mark, Some(2), Wal::sync, live)?;
    assert_eq!(synced, Some(batch.number));
    Ok(())
}

/// What must be true after the power has come back.
fn check(disk: &Disk, leader: &Applier<MemoryEngine>, reported: bool) -> Result<bool, String> {
    let parts = start(disk)?;
    let applied = parts.applier.published().applied;
    if !disk.others().expect("a disk that works").is_empty() {
        return Err("a generation that is not live stays".to_owned());
    }
    let standing = parts.member.standing();
    match applied.0 {
        SNAPSHOT => {
            if rows(parts.applier.engine()) != rows(leader.engine()) {
                return Err("the state is not the one that was sent".to_owned());
            }
            let log = (parts.member.last_index(), parts.member.committed(), standing.term);
            if log != (LogIndex(SNAPSHOT), LogIndex(SNAPSHOT), Term(SNAPSHOT_TERM)) {
                return Err(format!("a log {log:?} with the state of the snapshot"));
            }
            Ok(true)
        }
        APPLIED if reported => Err("an installation that was reported is undone".to_owned()),
        APPLIED if parts.member.last_index() == LogIndex(LAST) && standing.term == Term(2) => Ok(false),
        _ => Err(format!("a state at {applied} with a log to {}", parts.member.last_index())),
    }
}

/// The entries behind the snapshot follow, and survive.
fn go_on(disk: &Disk, leader: &Applier<MemoryEngine>) -> Result<(), String> {
    let mut parts = start(disk)?;
    let entries: Vec<Entry> = (SNAPSHOT + 1..SNAPSHOT + 30).map(|index| entry(index, SNAPSHOT_TERM)).collect();
    let hard_state = Some(HardState { term: SNAPSHOT_TERM, vote: 0, commit: SNAPSHOT + 20 });
    let last = LogIndex(SNAPSHOT + 29);
    let batch = LogBatch { number: 1, entries: entries.clone(), hard_state, must_sync: true, ..LogBatch::default() };
    carry_out(&mut parts.wal, &mut vec![WalOrder::Batch(batch)], Wal::sync).map_err(|error| error.to_string())?;
    parts.applier.apply(entries.get(..20).unwrap_or_default()).map_err(|error| error.to_string())?;
    drop(parts);
    disk.lose_power(Some(Loss::All));
    let parts = start(disk)?;
    let found =
        parts.wal.reader().entries(LogIndex(SNAPSHOT + 1), last, usize::MAX).map_err(|error| error.to_string())?;
    let position = apply::position(&parts.applier.engine().snapshot()).map_err(|error| error.to_string())?;
    if found != entries || position.index.0 < SNAPSHOT || leader.published().applied.0 != SNAPSHOT {
        return Err("entries behind the snapshot are lost".to_owned());
    }
    Ok(())
}

/// One failure; whether the snapshot was there afterwards, and whether the failure came before the installation was done.
fn live(
    leader: &Applier<MemoryEngine>,
    place: Place,
    loss: Option<Loss>,
    mistake: Mistake,
) -> Result<(bool, bool), String> {
    let disk = follower();
    let installed = install(&disk, leader, place, mistake);
    disk.lose_power(loss);
    let there = check(&disk, leader, installed.is_ok())?;
    if !there {
        install(&disk, leader, Place::Nowhere, Mistake::None).map_err(|error| error.to_string())?;
        disk.lose_power(Some(Loss::All));
        check(&disk, leader, true)?;
    }
    go_on(&disk, leader)?;
    Ok((there, installed.is_err()))
}

fn losses() -> impl Iterator<Item = Option<Loss>> {
    [None, Some(Loss::All), Some(Loss::Nothing)].into_iter().chain((0..TORN).map(|seed| Some(Loss::Torn(seed))))
}

/// Every place at which the power fails before the installation is done, and what came of each, up to the first wrong.
fn lives(mistake: Mistake) -> Vec<(Place, Option<Loss>, Result<bool, String>)> {
    let (leader, mut ended) = (leader_state(SNAPSHOT), Vec::new());
    for place in [Place::Wal as fn(u64) -> Place, Place::Snap, Place::Current] {
        for loss in losses() {
            for n in 0.. {
                let (place, outcome) = (place(n), live(&leader, place(n), loss, mistake));
                let done = matches!(outcome, Ok((_, false)));
                let noticed = outcome.is_err();
                ended.push((place, loss, outcome.map(|(there, _)| there)));
                if noticed {
                    return ended;
                }
                if done {
                    break;
                }
            }
        }
    }
    ended
}

#[test]
fn snapshot_is_installed_or_was_never_there() {
    let ended = lives(Mistake::None);
    for (place, loss, outcome) in &ended {
        assert!(outcome.is_ok(), "{place:?}, {loss:?}: {outcome:?}");
    }
    let there = ended.iter().filter(|(.., outcome)| *outcome == Ok(true)).count();
    println!("{} failures of the power, {there} after which the snapshot was there", ended.len());
    assert!(ended.len() > 80 && there > 30 && there < ended.len() - 30, "{there} of {}", ended.len());
    // From the sync of the log on there is no way back, although CURRENT still names the old state.
    let finished = |place: &Place| matches!(place, Place::Current(_));
    assert!(ended.iter().filter(|(place, ..)| finished(place)).all(|(.., outcome)| *outcome == Ok(true)));
}

#[test]
fn mistakes_in_the_order_are_noticed() {
    for mistake in [Mistake::LiveBeforeLog, Mistake::LogBeforeRows] {
        assert!(lives(mistake).iter().any(|(.., outcome)| outcome.is_err()), "{mistake:?}");
    }
}
