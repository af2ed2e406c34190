//! A directory in memory whose page cache can be lost.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Directory, DiskFile, SECTOR_BYTES};

/// What becomes of writes that were not synced when the power fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nothing of them survives.
    All,
    /// All of them survive: the page cache was written back just in time.
    Nothing,
    /// Each sector of a file survives or not, and so does its size, as this seed has it. Of the changes of names, which
    /// file systems keep in order, the first few survive.
    Torn(u64),
}

/// A directory in memory. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemoryDirectory {
    shared: Arc<Mutex<Shared>>,
}

/// A file in memory.
#[derive(Debug)]
pub struct MemoryFile {
    shared: Arc<Mutex<Shared>>,
    inode: u64,
    locked: Mutex<bool>,
}

#[derive(Debug, Default)]
struct Shared {
    names: BTreeMap<String, u64>,
    /// The names as of the last sync, and after each change since then.
    names_durable: Vec<BTreeMap<String, u64>>,
    inodes: BTreeMap<u64, Inode>,
    inode_next: u64,
    /// Writes and syncs left before the next one fails; `None` never fails.
    failing_after: Option<u64>,
    syncs: u64,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    cached: Vec<u8>,
    durable: Vec<u8>,
    locked: bool,
}

impl MemoryDirectory {
    /// Cuts the power: what was not synced is lost as `loss` says, locks are gone, and failing writes work again.
    pub fn crash(&self, loss: Loss) {
        let mut shared = self.lock();
        shared.failing_after = None;
        shared.names = shared.surviving_names(loss);
        shared.names_durable = vec![shared.names.clone()];
        for (number, inode) in &mut shared.inodes {
            inode.crash(loss, *number);
        }
    }

    /// Kills the process alone: the page cache stays as it is and can still be lost by a crash; locks are gone, and
    /// failing writes work again.
    pub fn kill(&self) {
        let mut shared = self.lock();
        shared.failing_after = None;
        for inode in shared.inodes.values_mut() {
            inode.locked = false;
        }
    }

    /// Lets the `n`-th write or sync from now, counted from 0, and all after it fail.
    pub fn fail_after(&self, n: u64) {
        self.lock().failing_after = Some(n);
    }

    /// How many syncs of files there were.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// Changes one byte of a file, in the cache and on disk, as a decaying disk would.
    pub fn corrupt(&self, name: &str, offset: usize, change: impl Fn(u8) -> u8) {
        let mut shared = self.lock();
        let Some(inode) = shared.names.get(name).copied().and_then(|number| shared.inodes.get_mut(&number)) else {
            return;
        };
        for bytes in [&mut inode.cached, &mut inode.durable] {
            if let Some(byte) = bytes.get_mut(offset) {
                *byte = change(*byte);
            }
        }
    }

    /// The contents of a file as a reader sees them.
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let shared = self.lock();
        shared.names.get(name).and_then(|number| shared.inodes.get(number)).map(|inode| inode.cached.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, inode: u64) -> MemoryFile {
        MemoryFile { shared: Arc::clone(&self.shared), inode, locked: Mutex::new(false) }
    }
}

impl Inode {
    fn crash(&mut self, loss: Loss, number: u64) {
        match loss {
            Loss::All => {}
            Loss::Nothing => self.durable = self.cached.clone(),
            Loss::Torn(seed) => self.tear(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        }
        self.cached = self.durable.clone();
        self.locked = false;
    }

    /// Decides sector by sector, and once for the size, whether the cached or the durable contents survive.
    fn tear(&mut self, mut seed: u64) {
        let size = if coin(&mut seed) { self.cached.len() } else { self.durable.len() };
        self.durable.resize(size, 0);
        for (old, new) in self.durable.chunks_mut(SECTOR_BYTES).zip(self.cached.chunks(SECTOR_BYTES)) {
            if coin(&mut seed) {
                for (old, new) in old.iter_mut().zip(new) {
                    *old = *new;
                }
            }
        }
    }
}

fn coin(seed: &mut u64) -> bool {
    chance(seed) >> 63 == 1
}

/// One step of splitmix64.
fn chance(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*seed ^ (*seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb)
}

impl Shared {
    /// Counts one write or sync; fails if its turn to fail has come.
    fn attempt(&mut self) -> io::Result<()> {
        match &mut self.failing_after {
            Some(0) => Err(io::Error::other("injected failure")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// What is called what after a power failure.
    fn surviving_names(&self, loss: Loss) -> BTreeMap<String, u64> {
        let states = self.names_durable.len().max(1);
        let survives = match loss {
            Loss::All => 0,
            Loss::Nothing => return self.names.clone(),
            Loss::Torn(mut seed) => usize::try_from(chance(&mut seed)).unwrap_or(0) % states,
        };
        self.names_durable.get(survives).cloned().unwrap_or_default()
    }

    /// Changes names; the change is not durable yet.
    fn rename(&mut self, change: impl FnOnce(&mut BTreeMap<String, u64>)) {
        if self.names_durable.is_empty() {
            self.names_durable.push(self.names.clone());
        }
        change(&mut self.names);
        self.names_durable.push(self.names.clone());
    }

    fn number(&self, name: &str) -> io::Result<u64> {
        self.names.get(name).copied().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

impl Directory for MemoryDirectory {
    type File = MemoryFile;

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.lock().names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<MemoryFile> {
        let inode = self.lock().number(name)?;
        Ok(self.handle(inode))
    }

    fn create(&self, name: &str) -> io::Result<MemoryFile> {
        let mut shared = self.lock();
        shared.attempt()?;
        shared.inode_next += 1;
        let inode = shared.inode_next;
        shared.inodes.insert(inode, Inode::default());
        shared.rename(|names| {
            names.insert(name.to_owned(), inode);
        });
        drop(shared);
        Ok(self.handle(inode))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut shared = self.lock();
        shared.attempt()?;
        let inode = shared.number(from)?;
        shared.rename(|names| {
            names.remove(from);
            names.insert(to.to_owned(), inode);
        });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut shared = self.lock();
        shared.attempt()?;
        shared.number(name)?;
        shared.rename(|names| {
            names.remove(name);
        });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut shared = self.lock();
        shared.attempt()?;
        shared.names_durable = vec![shared.names.clone()];
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("/memory").join(name)
    }
}

impl MemoryFile {
    fn with<T>(&self, change: impl FnOnce(&mut Inode) -> T) -> io::Result<T> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let inode = shared.inodes.get_mut(&self.inode).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(change(inode))
    }

    fn attempt(&self) -> io::Result<()> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).attempt()
    }
}

fn position(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(io::Error::other)
}

impl DiskFile for MemoryFile {
    fn size(&self) -> io::Result<u64> {
        self.with(|inode| inode.cached.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let offset = position(offset)?;
        self.with(|inode| {
            let rest = inode.cached.get(offset..).unwrap_or_default();
            let read = rest.len().min(buffer.len());
            for (to, from) in buffer.iter_mut().zip(rest) {
                *to = *from;
            }
            read
        })
    }

    /// A write that fails on order leaves whole sectors of its first half behind, as one that is cut off does.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let offset = position(offset)?;
        let outcome = self.attempt();
        let cut_off = (offset + bytes.len() / 2) / SECTOR_BYTES * SECTOR_BYTES;
        let kept = if outcome.is_ok() { bytes.len() } else { cut_off.saturating_sub(offset) };
        let bytes = bytes.get(..kept).unwrap_or_default();
        let end = offset.checked_add(bytes.len()).ok_or_else(|| io::Error::other("file too large"))?;
        self.with(|inode| {
            if inode.cached.len() < end && !bytes.is_empty() {
                inode.cached.resize(end, 0);
            }
            if let Some(place) = inode.cached.get_mut(offset..end) {
                place.copy_from_slice(bytes);
            }
        })?;
        outcome
    }

    fn allocate(&self, size: u64) -> io::Result<()> {
        self.set_size(size)
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.attempt()?;
        let size = position(size)?;
        self.with(|inode| inode.cached.resize(size, 0))
    }

    fn sync(&self) -> io::Result<()> {
        self.attempt()?;
        self.with(|inode| inode.durable.clone_from(&inode.cached))?;
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).syncs += 1;
        Ok(())
    }

    fn try_lock(&self) -> io::Result<bool> {
        let mut held = self.locked.lock().unwrap_or_else(PoisonError::into_inner);
        if *held {
            return Ok(true);
        }
        *held = self.with(|inode| !std::mem::replace(&mut inode.locked, true))?;
        Ok(*held)
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        if *self.locked.get_mut().unwrap_or_else(PoisonError::into_inner) {
            let _released = self.with(|inode| inode.locked = false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_forgets_what_was_not_synced() {
        let directory = MemoryDirectory::default();
        let file = directory.create("a").unwrap();
        file.write_at(b"old", 0).unwrap();
        file.sync().unwrap();
        directory.sync().unwrap();
        file.write_at(b"new", 0).unwrap();
        directory.create("b").unwrap();
        directory.crash(Loss::All);
        assert_eq!(directory.names().unwrap(), ["a"]);
        assert_eq!(directory.contents("a").unwrap(), b"old");
    }

    #[test]
    fn a_torn_write_mixes_whole_sectors() {
        let directory = MemoryDirectory::default();
        let file = directory.create("a").unwrap();
        directory.sync().unwrap();
        file.write_at(&[1; 8 * SECTOR_BYTES], 0).unwrap();
        directory.crash(Loss::Torn(3));
        let contents = directory.contents("a").unwrap();
        let sectors: Vec<_> = contents.chunks(SECTOR_BYTES).map(|sector| sector.iter().all(|b| *b == 1)).collect();
        assert!(contents.chunks(SECTOR_BYTES).all(|sector| sector.windows(2).all(|pair| pair[0] == pair[1])));
        assert!(sectors.contains(&true) && sectors.contains(&false), "{sectors:?}");
    }

    #[test]
    fn names_survive_a_torn_crash_in_the_order_of_their_changes() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..50 {
            let directory = MemoryDirectory::default();
            directory.create("a").unwrap();
            directory.sync().unwrap();
            directory.create("b").unwrap();
            directory.rename("a", "c").unwrap();
            directory.remove("b").unwrap();
            directory.crash(Loss::Torn(seed));
            seen.insert(directory.names().unwrap());
        }
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(seen, [names(&["a"]), names(&["a", "b"]), names(&["b", "c"]), names(&["c"])].into());
    }

    #[test]
    fn a_killed_process_leaves_its_page_cache_to_the_next_power_failure() {
        let directory = MemoryDirectory::default();
        let file = directory.create("a").unwrap();
        assert!(file.try_lock().unwrap());
        file.write_at(b"new", 0).unwrap();
        directory.kill();
        assert_eq!(directory.contents("a").unwrap(), b"new");
        assert!(directory.open("a").unwrap().try_lock().unwrap());
        directory.crash(Loss::All);
        assert_eq!(directory.names().unwrap(), Vec::<String>::new());
    }

    #[test]
    fn the_nth_write_fails_and_all_after_it() {
        let directory = MemoryDirectory::default();
        let file = directory.create("a").unwrap();
        directory.fail_after(1);
        file.write_at(b"a", 0).unwrap();
        file.sync().unwrap_err();
        file.write_at(b"a", 0).unwrap_err();
    }

    #[test]
    fn a_write_that_fails_is_cut_off_between_two_sectors() {
        let directory = MemoryDirectory::default();
        let file = directory.create("a").unwrap();
        directory.fail_after(0);
        file.write_at(&[1; 4 * SECTOR_BYTES], 100).unwrap_err();
        assert_eq!(file.size().unwrap(), 2 * SECTOR_BYTES as u64);
    }

    #[test]
    fn a_lock_has_one_holder() {
        let directory = MemoryDirectory::default();
        let first = directory.create("a").unwrap();
        let second = directory.open("a").unwrap();
        assert!(first.try_lock().unwrap());
        assert!(!second.try_lock().unwrap());
        drop(first);
        assert!(second.try_lock().unwrap());
    }
}
