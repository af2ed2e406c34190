//! Damaged files of the engine on disk. Whatever bit flips, wherever a file ends too early, whatever is missing, opening and reading everything
//! leads to the state after one of its commits, or to an error that names a file and the way out. Never to another state.

use std::{
    collections::BTreeMap,
    fs,
    ops::Bound,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;

use super::{Engine, FjallEngine, FjallOptions, Read, Row, StorageError, Table, Writes, journal};

/// Files damaged, one in each round.
const ROUNDS: u64 = 150;
/// Commits of the state.
const COMMITS: u64 = 400;
/// Keys that are written again and again.
const KEYS: u64 = 50;
const SMALL: FjallOptions = FjallOptions { cache_bytes: 1 << 20, memtable_bytes: 16 << 10, files_max: 100 };

/// What commit `number` changes: its number, and a key or two, one of them removed now and then.
fn commit(number: u64) -> Writes {
    let mut writes = Writes::default();
    let key = |number: u64| Table::V2.key(&(number * 7 % KEYS).to_be_bytes());
    writes.put_row(Table::Meta, b"number", Bytes::copy_from_slice(&number.to_be_bytes()));
    writes.put(key(number), Bytes::from(format!("{number}-").repeat(30)));
    if number.is_multiple_of(3) {
        writes.delete(key(number + 11));
    }
    writes
}

/// The state after so many commits.
fn state_after(commits: u64) -> BTreeMap<Bytes, Bytes> {
    let mut state = BTreeMap::new();
    for (key, value) in (1..=commits).flat_map(|number| commit(number).into_rows()) {
        match value {
            Some(value) => state.insert(key, value),
            None => state.remove(&key),
        };
    }
    state
}

/// A state with table files, an older journal, and a newer one.
fn template(path: &Path) {
    let engine = FjallEngine::open(path, &SMALL).unwrap();
    for number in 1..=COMMITS {
        engine.commit(commit(number)).unwrap();
        if number == COMMITS / 2 {
            engine.reclaim().unwrap();
        }
        if number.is_multiple_of(64) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    engine.persist().unwrap();
    drop(engine);
    journal::split(path);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() { copy(&source, &target) } else { assert!(fs::copy(&source, &target).is_ok()) }
    }
}

fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            files(&path, found);
        } else if fs::metadata(&path).unwrap().len() > 0 {
            found.push(path);
        }
    }
    found.sort();
}

/// What a file is, for the table of outcomes.
fn kind(path: &Path) -> String {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    match path.extension().map(|extension| extension.to_string_lossy().into_owned()) {
        Some(extension) if extension == "jnl" => format!("journal {name}"),
        _ if path.parent().is_some_and(|parent| parent.ends_with("tables")) => "table file".to_owned(),
        _ if name.strip_prefix('v').is_some_and(|rest| rest.parse::<u64>().is_ok()) => "manifest".to_owned(),
        _ => name,
    }
}

/// Everything that can be read, or why not.
fn read_all(path: &Path) -> Result<Vec<Row>, StorageError> {
    let engine = FjallEngine::open(path, &SMALL)?;
    let snapshot = engine.snapshot();
    let scanned: Vec<Row> = snapshot.scan(Bound::Unbounded, Bound::Unbounded).collect::<Result<_, _>>()?;
    for (key, value) in &scanned {
        assert_eq!(snapshot.get(key)?.as_ref(), Some(value), "a lookup and a scan differ");
    }
    Ok(scanned)
}

/// How a round ended.
fn outcome(path: &Path, states: &[Vec<Row>]) -> &'static str {
    match std::panic::catch_unwind(|| read_all(path)) {
        Err(_) => "PANIC",
        Ok(Ok(rows)) if states.contains(&rows) => "harmless",
        Ok(Ok(_)) => "DIFFERENT",
        Ok(Err(error)) => {
            let text = error.with_causes();
            let names = text.contains(&path.to_string_lossy().into_owned());
            let helps = text.contains("restore") || text.contains("choose another data directory");
            if names && helps { "refused" } else { panic!("refused without a file or a way out: {text}") }
        }
    }
}

/// A generator without a dependency: the same rounds every time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit.max(1)
    }
}

/// Flips a bit of a file, cuts it off, or removes it; says which.
fn damage(path: &Path, random: &mut Random) -> &'static str {
    let mut bytes = fs::read(path).unwrap();
    let length = bytes.len() as u64;
    let how = random.below(6);
    if how == 0 {
        fs::remove_file(path).unwrap();
        return "removed";
    }
    if how == 1 {
        bytes.truncate(usize::try_from(random.below(length)).unwrap());
        fs::write(path, bytes).unwrap();
        return "truncated";
    }
    let bit = random.below(length * 8);
    bytes[usize::try_from(bit / 8).unwrap()] ^= 1 << (bit % 8);
    fs::write(path, bytes).unwrap();
    "flipped"
}

#[test]
fn damage_is_refused_or_leads_to_an_earlier_state() {
    let directory = tempfile::tempdir().unwrap();
    let original = directory.path().join("original");
    template(&original);
    let states: Vec<Vec<Row>> = (0..=COMMITS).map(|commits| state_after(commits).into_iter().collect()).collect();
    let whole = directory.path().join("whole");
    copy(&original, &whole);
    assert_eq!(&read_all(&whole).unwrap(), states.last().unwrap(), "nothing is damaged");

    let mut kinds: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    let mut found = Vec::new();
    files(&original, &mut found);
    for path in found {
        kinds.entry(kind(&path)).or_default().push(path.strip_prefix(&original).unwrap().to_owned());
    }
    let kinds: Vec<_> = kinds.into_iter().collect();
    let mut random = Random(1);
    let mut table: BTreeMap<(String, &str, &str), u64> = BTreeMap::new();
    for round in 0..ROUNDS {
        let (kind, paths) = &kinds[usize::try_from(round).unwrap() % kinds.len()];
        let path = &paths[usize::try_from(random.below(paths.len() as u64)).unwrap()];
        let copied = directory.path().join(format!("round-{round}"));
        copy(&original, &copied);
        let how = damage(&copied.join(path), &mut random);
        let outcome = outcome(&copied, &states);
        *table.entry((kind.clone(), how, outcome)).or_default() += 1;
        assert!(!["DIFFERENT", "PANIC"].contains(&outcome), "round {round}: {how} {}: {outcome}", path.display());
        fs::remove_dir_all(&copied).unwrap();
    }
    for ((kind, how, outcome), count) in table {
        println!("{kind:<14} {how:<9} {outcome:<9} {count:>5}");
    }
}

/// The engine looks for the end of a table file by seeking back from it, which a file shorter than that answers with EINVAL; the member then said
/// "opening it failed: Invalid argument", and nothing of a way out.
#[test]
fn table_file_without_its_end_is_damage() {
    let directory = tempfile::tempdir().unwrap();
    let original = directory.path().join("original");
    template(&original);
    let mut found = Vec::new();
    files(&original, &mut found);
    let tables: Vec<_> = found.iter().filter(|path| kind(path) == "table file").collect();
    assert!(!tables.is_empty(), "a state with table files");
    let states = [state_after(COMMITS).into_iter().collect()];
    for (path, bytes) in tables.into_iter().flat_map(|path| [0, 1, 11].map(|bytes| (path, bytes))) {
        let copied = directory.path().join("copied");
        copy(&original, &copied);
        let cut = fs::OpenOptions::new().write(true).open(copied.join(path.strip_prefix(&original).unwrap())).unwrap();
        cut.set_len(bytes).unwrap();
        assert!(["refused", "harmless"].contains(&outcome(&copied, &states)), "{bytes} bytes");
        fs::remove_dir_all(&copied).unwrap();
    }
}
