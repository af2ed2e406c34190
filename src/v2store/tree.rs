//! What can be read: nodes, and events of the past.

use bytes::Bytes;

use super::{
    Error, ErrorCode, Event, HISTORY_EVENTS, Listing, Nanos, Path, Refused, Watch,
    node::{self, Node, damaged},
};
use crate::{
    storage::{Read, StorageError, Table},
    types::MemberId,
};

/// How much of a directory is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Its children.
    Children,
    /// Everything below it.
    All,
}

/// The tree as it is in some rows.
#[derive(Debug)]
pub struct Tree<'a, R> {
    rows: &'a R,
    before: u64,
}

impl<'a, R: Read> Tree<'a, R> {
    /// The tree in `rows`. `before` is the index as long as no request was carried out: what the members' part, which is
    /// kept elsewhere, has come to.
    pub fn new(rows: &'a R, before: u64) -> Self {
        Self { rows, before }
    }

    /// The index of the last change.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub fn index(&self) -> Result<u64, StorageError> {
        Ok(node::index(self.rows)?.unwrap_or(self.before))
    }

    /// Whether users keep anything here.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub fn has_user_data(&self) -> Result<bool, StorageError> {
        let first = |prefix: &[u8]| {
            let path = Path::clean(prefix);
            node::children(self.rows, &path, None).next().transpose().map(|found| found.is_some())
        };
        Ok(first(super::KEYS_PREFIX.as_bytes())? || first(super::USERS_PREFIX.as_bytes())?)
    }

    /// Whether `member` is known to understand requests of the v2 API.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub fn knows(&self, member: MemberId) -> Result<bool, StorageError> {
        Ok(self.rows.row(Table::V2, &node::member_key(member))?.is_some())
    }

    /// Up to when nodes that have run out by `now` may be let expire at once: as long as they and their values have less than
    /// `bytes_max`; nothing if none has. What runs out at one moment is not parted.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub fn expired_until(&self, now: Nanos, bytes_max: usize) -> Result<Option<Nanos>, StorageError> {
        let (mut until, mut bytes) = (None, 0);
        for expiry in node::expiries(self.rows) {
            let (expiration, path) = expiry?;
            if expiration > now || (bytes >= bytes_max && until != Some(expiration)) {
                break;
            }
            bytes += path.as_bytes().len() + self.node(&path)?.map_or(0, |node| node.value.len());
            until = Some(expiration);
        }
        Ok(until)
    }

    /// The node at `path`, as it is at `now`, and where the store stands; hidden children are left out.
    ///
    /// # Errors
    /// A store that cannot be read; refusals ([`ErrorCode::KeyNotFound`], [`ErrorCode::NotDir`]) are an answer.
    pub fn get(&self, path: &Path, depth: Depth, now: Nanos) -> Result<Result<(u64, Listing), Error>, StorageError> {
        let index = self.index()?;
        let found = Refused::settle(self.find(path, index))?;
        Ok(found.map(|node| (index, Listing::new(path, node, depth, now))))
    }

    /// The rows that this tree is in.
    pub fn rows(&self) -> &'a R {
        self.rows
    }

    /// The node at `path`, of a store that stands at `index`.
    pub(super) fn find(&self, path: &Path, index: u64) -> Result<Node, Refused> {
        match self.node(path)? {
            Some(node) => Ok(node),
            None => Err(self.missing(path, index)?.into()),
        }
    }

    /// The node at `path`, if there is one.
    pub(super) fn node(&self, path: &Path) -> Result<Option<Node>, StorageError> {
        if path.is_read_only() {
            return Ok(Some(Node::directory(0, 0)));
        }
        let key = node::node_key(path);
        self.rows.row(Table::V2, &key)?.map(|row| Node::read(&key, row)).transpose()
    }

    /// Why there is no node at `path`.
    fn missing(&self, path: &Path, index: u64) -> Result<Error, StorageError> {
        for step in path.way() {
            let code = match self.node(&step)? {
                Some(node) if node.dir => continue,
                Some(_) => ErrorCode::NotDir,
                None => ErrorCode::KeyNotFound,
            };
            return Ok(Error::new(code, step.to_bytes(), index));
        }
        Ok(Error::new(ErrorCode::KeyNotFound, path.to_bytes(), index))
    }

    /// The first event from `from` up to `last` that `watch` is about.
    ///
    /// # Errors
    /// A store that cannot be read; [`ErrorCode::EventIndexCleared`], of a store that stands at `last`, is an answer.
    pub fn event_since(
        &self,
        watch: &Watch,
        from: u64,
        last: u64,
    ) -> Result<Result<Option<Event>, Error>, StorageError> {
        // What was removed from the rows since `last` was looked up is missing, too.
        let oldest = oldest_event(self.index()?.max(last)).max(node::oldest(self.rows)?);
        if from < oldest {
            let cause = format!("the requested history has been cleared [{}/{from}]", oldest_event(last).max(oldest));
            return Ok(Err(Error::new(ErrorCode::EventIndexCleared, cause, last)));
        }
        for row in node::events(self.rows, from) {
            let (key, row) = row?;
            let event = read_event(&key, row)?;
            if event.index > last {
                break;
            }
            if watch.matched(&event) {
                return Ok(Ok(Some(event)));
            }
        }
        Ok(Ok(None))
    }
}

/// The oldest index that can be watched from when the store stands at `last`, if events are not too many bytes.
pub(super) fn oldest_event(last: u64) -> u64 {
    if last == 0 { 0 } else { last.saturating_sub(HISTORY_EVENTS - 1).max(1) }
}

fn read_event(key: &[u8], row: Bytes) -> Result<Event, StorageError> {
    node::event_index(key).and_then(|index| Event::decode(index, row)).ok_or_else(|| damaged(key))
}
