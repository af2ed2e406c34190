//! One request of the log, carried out.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    Error, ErrorCode, HISTORY_EVENTS, History, Method, Nanos, Path, Refused, Request, Tree,
    event::{Action, Event, Shown},
    node::{self, Node},
};
use crate::{
    storage::{Batch, Read, StorageError, Table},
    types::MemberId,
};

/// Nodes that one [`Method::Sync`] lets expire; the leader proposes others as long as more have. A directory counts once.
pub const EXPIRED_PER_SYNC_MAX: usize = 1_000;
/// A node that would have expired before the year 2000 was meant to stay (etcd's rule, of sets and creations).
const EXPIRATION_MIN: Nanos = 946_684_800_000_000_000;
/// What is said of a path that the store cannot hold.
const PATH_TOO_LONG: &str = "etcdserver: key is longer or deeper than this store can hold";
/// Digits in the name of a node that is named by its index.
const IN_ORDER_DIGITS: usize = 20;

/// What became of one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// What it asked for; of a refusal, what it would have been.
    pub action: Action,
    /// The answer. [`Method::Sync`] and [`Method::Know`] have none that anybody would read.
    pub answer: Option<Result<Arc<Event>, Error>>,
    /// Everything that happened, in order.
    pub told: Vec<Told>,
    /// Of everything that was written; zero if nothing was.
    pub digest: u64,
}

/// An event, and whom to tell besides those whom its place concerns.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// What happened.
    pub event: Arc<Event>,
    /// Every place that is gone with it.
    pub removed: Vec<Path>,
}

/// The tree, about to be changed by one request.
#[derive(Debug)]
pub struct Change<'a, R> {
    batch: &'a mut Batch<R>,
    history: &'a mut History,
    index: u64,
    now: Nanos,
    told: Vec<Told>,
    written: u32,
}

impl<'a, R: Read> Change<'a, R> {
    /// Carries out `request`. `before` is the index if no request ever was ([`Tree::new`]); `history` is that of these rows.
    ///
    /// # Errors
    /// A store that cannot be read. Refusals are answers, and leave nothing behind.
    pub fn carry_out(
        batch: &'a mut Batch<R>,
        history: &'a mut History,
        before: u64,
        request: &Request,
    ) -> Result<Outcome, StorageError> {
        let index = Tree::new(&*batch, before).index()?;
        history.open(&*batch)?;
        let mut change = Self { batch, history, index, now: request.time, told: Vec::new(), written: 0 };
        let path = Path::clean(&request.path);
        let (action, result) = match Method::named(&request.method) {
            // The member that took it from its client has refused it; whoever else has made this entry did not.
            _ if !path.is_storable() => (Action::Get, Err(change.refusal(ErrorCode::RaftInternal, PATH_TOO_LONG))),
            Some(Method::Put) => change.put(&path, request),
            Some(Method::Post) => (Action::Create, change.create_in_order(&path, request)),
            Some(Method::Delete) => change.delete(&path, request),
            Some(Method::Sync) => return change.expire(request.time),
            Some(Method::Know) => return Ok(change.know(&path)),
            None => (Action::Get, Err(change.refusal(ErrorCode::RaftInternal, "etcdserver: unknown method"))),
        };
        let answer = Refused::settle(result)?;
        let (told, digest) = (change.told, u64::from(change.written));
        Ok(Outcome { action, answer: Some(answer), told, digest })
    }

    /// The decision table of `PUT`.
    fn put(&mut self, path: &Path, request: &Request) -> (Action, Result<Arc<Event>, Refused>) {
        match request.prev_exist {
            Some(true) if !request.compares() => (Action::Update, self.update(path, request)),
            Some(false) => (Action::Create, self.create(path, request)),
            _ if request.compares() => (Action::CompareAndSwap, self.compare_and_swap(path, request)),
            _ => (Action::Set, self.set(path, request)),
        }
    }

    fn set(&mut self, path: &Path, request: &Request) -> Result<Arc<Event>, Refused> {
        let mut value = request.value.clone();
        match self.find(path) {
            Ok(found) if request.refreshes() => value = found.value,
            Err(Refused::Rejected(error)) if error.code == ErrorCode::KeyNotFound && !request.refreshes() => {}
            found => drop(found?),
        }
        self.check_writable(path)?;
        let previous = self.tree().node(path)?;
        if previous.as_ref().is_some_and(|previous| previous.dir) {
            return Err(self.refusal(ErrorCode::NotFile, path.to_bytes()));
        }
        self.make_parents(path)?;
        let told = previous.as_ref().map(|previous| Shown::of(path, previous, self.now));
        if let Some(previous) = &previous {
            self.forget_expiry(path, previous);
        }
        Ok(self.make(Action::Set, path, value, told, request))
    }

    fn create(&mut self, path: &Path, request: &Request) -> Result<Arc<Event>, Refused> {
        self.check_writable(path)?;
        self.check_parents(path)?;
        if self.tree().node(path)?.is_some() {
            return Err(self.refusal(ErrorCode::NodeExist, path.to_bytes()));
        }
        self.make_parents(path)?;
        Ok(self.make(Action::Create, path, request.value.clone(), None, request))
    }

    /// Creates a node below `directory` that is named by its index.
    fn create_in_order(&mut self, directory: &Path, request: &Request) -> Result<Arc<Event>, Refused> {
        let name = format!("{:0width$}", self.next(), width = IN_ORDER_DIGITS);
        self.create(&directory.child(name.as_bytes()), &Request { refresh: None, ..request.clone() })
    }

    /// Puts a new node, where no directory is.
    fn make(
        &mut self,
        action: Action,
        path: &Path,
        value: Bytes,
        previous: Option<Shown>,
        request: &Request,
    ) -> Arc<Event> {
        let expiration = if request.expiration < EXPIRATION_MIN { 0 } else { request.expiration };
        let index = self.next();
        let node = if request.dir { Node::directory(index, expiration) } else { Node::file(value, index, expiration) };
        self.write_node(path, &node);
        let node = Shown::of(path, &node, self.now);
        // A creation is told of whatever it says of refreshing.
        let refresh = action == Action::Set && request.refreshes();
        self.tell(Event { action, node, previous, index, refresh }, Vec::new())
    }

    /// A directory only gets another expiry: its index in the tree stays what it was (etcd's behaviour).
    fn update(&mut self, path: &Path, request: &Request) -> Result<Arc<Event>, Refused> {
        self.check_writable(path)?;
        let found = self.find(path)?;
        if found.dir && !request.value.is_empty() {
            return Err(self.refusal(ErrorCode::NotFile, path.to_bytes()));
        }
        Ok(self.rewrite(Action::Update, path, &found, request))
    }

    fn compare_and_swap(&mut self, path: &Path, request: &Request) -> Result<Arc<Event>, Refused> {
        self.check_writable(path)?;
        let found = self.comparable(path, request)?;
        Ok(self.rewrite(Action::CompareAndSwap, path, &found, request))
    }

    /// Gives a node that is there a value and an expiry.
    fn rewrite(&mut self, action: Action, path: &Path, found: &Node, request: &Request) -> Arc<Event> {
        let index = self.next();
        let mut node = Node { expiration: request.expiration, ..found.clone() };
        if !found.dir {
            node.modified = index;
        }
        if !found.dir && !request.refreshes() {
            node.value = request.value.clone();
        }
        self.forget_expiry(path, found);
        self.write_node(path, &node);
        let previous = Some(Shown::of(path, found, self.now));
        let node = Shown { modified: index, ..Shown::of(path, &node, self.now) };
        self.tell(Event { action, node, previous, index, refresh: request.refreshes() }, Vec::new())
    }

    fn delete(&mut self, path: &Path, request: &Request) -> (Action, Result<Arc<Event>, Refused>) {
        if request.compares() {
            return (Action::CompareAndDelete, self.compare_and_delete(path, request));
        }
        (Action::Delete, self.delete_any(path, request))
    }

    fn compare_and_delete(&mut self, path: &Path, request: &Request) -> Result<Arc<Event>, Refused> {
        let found = self.comparable(path, request)?;
        Ok(self.remove(Action::CompareAndDelete, path, &found)?)
    }

    fn delete_any(&mut self, path: &Path, request: &Request) -> Result<Arc<Event>, Refused> {
        self.check_writable(path)?;
        let found = self.find(path)?;
        if found.dir && !request.dir && !request.recursive {
            return Err(self.refusal(ErrorCode::NotFile, path.to_bytes()));
        }
        if found.dir && !request.recursive && node::children(&*self.batch, path, None).next().transpose()?.is_some() {
            return Err(self.refusal(ErrorCode::DirNotEmpty, path.to_bytes()));
        }
        Ok(self.remove(Action::Delete, path, &found)?)
    }

    /// Lets what has run out by `time` expire, in that order.
    fn expire(mut self, time: Nanos) -> Result<Outcome, StorageError> {
        for _ in 0..EXPIRED_PER_SYNC_MAX {
            let Some((expiration, path)) = node::expiries(&*self.batch).next().transpose()? else { break };
            if expiration > time {
                break;
            }
            let key = node::node_key(&path);
            let found = self.tree().node(&path)?.ok_or_else(|| node::damaged(&key))?;
            self.remove(Action::Expire, &path, &found)?;
        }
        Ok(Outcome { action: Action::Expire, answer: None, told: self.told, digest: self.written.into() })
    }

    /// The last part of the path is a member, in hexadecimal.
    fn know(mut self, path: &Path) -> Outcome {
        let name = std::str::from_utf8(path.split().1).ok();
        if let Some(member) = name.and_then(|name| u64::from_str_radix(name, 16).ok()) {
            self.write(&node::member_key(MemberId(member)), Some(Bytes::new()));
        }
        Outcome { action: Action::Get, answer: None, told: Vec::new(), digest: self.written.into() }
    }

    /// Takes a node out of the tree, with everything below it.
    fn remove(&mut self, action: Action, path: &Path, found: &Node) -> Result<Arc<Event>, StorageError> {
        let index = self.next();
        let event = Event {
            action,
            node: Shown::gone(path, found, index),
            previous: Some(Shown::of(path, found, self.now)),
            index,
            refresh: false,
        };
        let mut removed = Vec::new();
        let mut waiting = vec![(path.clone(), found.clone())];
        while let Some((path, node)) = waiting.pop() {
            if node.dir {
                // Values stay on the disk: a directory may be larger than memory.
                let children = node::children(&*self.batch, &path, None);
                let children = children.map(|child| child.map(|(path, node)| (path, node.without_value())));
                waiting.extend(children.collect::<Result<Vec<_>, _>>()?);
            }
            self.forget_expiry(&path, &node);
            self.write(&node::node_key(&path), None);
            removed.push(path);
        }
        Ok(self.tell(event, removed))
    }

    /// The file at `path`, if it is as the request wants it.
    fn comparable(&self, path: &Path, request: &Request) -> Result<Node, Refused> {
        let found = self.find(path)?;
        if found.dir {
            return Err(self.refusal(ErrorCode::NotFile, path.to_bytes()));
        }
        let Request { prev_value, prev_index, .. } = request;
        let differs = |given: &[u8], actual: &[u8]| [b"[", given, b" != ", actual, b"]"].concat();
        let mut causes = Vec::new();
        if !prev_value.is_empty() && *prev_value != found.value {
            causes.push(differs(prev_value, &found.value));
        }
        if *prev_index > 0 && *prev_index != found.modified {
            causes.push(differs(prev_index.to_string().as_bytes(), found.modified.to_string().as_bytes()));
        }
        if causes.is_empty() { Ok(found) } else { Err(self.refusal(ErrorCode::TestFailed, causes.join(&b' '))) }
    }

    fn check_writable(&self, path: &Path) -> Result<(), Refused> {
        if path.is_read_only() { Err(self.refusal(ErrorCode::RootReadOnly, "/")) } else { Ok(()) }
    }

    /// Every place on the way to `path` is a directory, or free.
    fn check_parents(&self, path: &Path) -> Result<(), Refused> {
        for step in path.parent().way() {
            if self.tree().node(&step)?.is_some_and(|node| !node.dir) {
                return Err(self.refusal(ErrorCode::NotDir, step.to_bytes()));
            }
        }
        Ok(())
    }

    /// Makes the directories on the way to `path` that are missing.
    fn make_parents(&mut self, path: &Path) -> Result<(), StorageError> {
        let directory = path.parent();
        for step in directory.way() {
            if self.tree().node(&step)?.is_none() {
                let node = Node::directory(self.next(), 0);
                self.write_node(&step, &node);
            }
        }
        Ok(())
    }

    fn tree(&self) -> Tree<'_, Batch<R>> {
        Tree::new(&*self.batch, self.index)
    }

    fn find(&self, path: &Path) -> Result<Node, Refused> {
        self.tree().find(path, self.index)
    }

    fn refusal(&self, code: ErrorCode, cause: impl Into<Bytes>) -> Refused {
        Error::new(code, cause, self.index).into()
    }

    /// The index that the next change takes.
    fn next(&self) -> u64 {
        self.index + 1
    }

    /// Ends a change: it has taken its index.
    fn tell(&mut self, event: Event, removed: Vec<Path>) -> Arc<Event> {
        self.index = event.index;
        for (key, value) in advance(self.index) {
            self.write(&key, value);
        }
        self.remember(event.index, event.encode());
        let event = Arc::new(event);
        self.told.push(Told { event: Arc::clone(&event), removed });
        event
    }

    /// Keeps an event, and lets go those that are too many bytes now. That these go is left out of the digest: members of
    /// earlier versions keep them, and differ in nothing else.
    fn remember(&mut self, index: u64, row: Bytes) {
        let gone = self.history.push(index, row.len());
        self.write(&node::event_key(index), Some(row));
        if gone.is_empty() {
            return;
        }
        let oldest = Bytes::copy_from_slice(&gone.end.to_be_bytes());
        for index in gone {
            self.batch.delete_row(Table::V2, &node::event_key(index));
        }
        self.batch.put_row(Table::V2, node::OLDEST, oldest);
    }

    fn write_node(&mut self, path: &Path, node: &Node) {
        if node.expiration != 0 {
            self.write(&node::expiry_key(node.expiration, path), Some(Bytes::new()));
        }
        self.write(&node::node_key(path), Some(prost::Message::encode_to_vec(node).into()));
    }

    fn forget_expiry(&mut self, path: &Path, node: &Node) {
        if node.expiration != 0 {
            self.write(&node::expiry_key(node.expiration, path), None);
        }
    }

    fn write(&mut self, key: &[u8], value: Option<Bytes>) {
        let lengths = [key.len(), value.as_ref().map_or(usize::MAX, Bytes::len)];
        for part in [&lengths.map(usize::to_be_bytes).concat(), key, value.as_deref().unwrap_or_default()] {
            self.written = crc32c::crc32c_append(self.written, part);
        }
        match value {
            Some(value) => self.batch.put_row(Table::V2, key, value),
            None => self.batch.delete_row(Table::V2, key),
        }
    }
}

/// The rows of a store that has come to `index`: the position, and the event that is no longer kept.
fn advance(index: u64) -> impl Iterator<Item = (Vec<u8>, Option<Bytes>)> {
    let position = (node::INDEX.to_vec(), Some(Bytes::copy_from_slice(&index.to_be_bytes())));
    let forgotten = index.checked_sub(HISTORY_EVENTS).filter(|oldest| *oldest > 0);
    std::iter::once(position).chain(forgotten.map(|index| (node::event_key(index), None)))
}

/// Counts a change of the members' part, which is kept elsewhere. Without any request of the v2 API so far there is
/// nothing to do: the count then follows from that part itself. The digest of what was written, or zero.
///
/// # Errors
/// A store that cannot be read.
pub fn note_internal<R: Read>(batch: &mut Batch<R>) -> Result<u64, StorageError> {
    let Some(index) = node::index(&*batch)? else { return Ok(0) };
    let mut change = Change { batch, history: &mut History::default(), index, now: 0, told: Vec::new(), written: 0 };
    for (key, value) in advance(index + 1) {
        change.write(&key, value);
    }
    Ok(change.written.into())
}
