//! What happened, or was found, as clients see it.

use bytes::Bytes;
use prost::{Message, Oneof};

use super::{Nanos, Path, node::Node};

const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Action {
    /// Read.
    Get = 0,
    /// Put without a condition.
    Set = 1,
    /// Put where nothing was.
    Create = 2,
    /// Put where something was.
    Update = 3,
    /// Put where something certain was.
    CompareAndSwap = 4,
    /// Deleted.
    Delete = 5,
    /// Deleted where something certain was.
    CompareAndDelete = 6,
    /// Ran out.
    Expire = 7,
}

impl Action {
    /// As clients know it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Set => "set",
            Self::Create => "create",
            Self::Update => "update",
            Self::CompareAndSwap => "compareAndSwap",
            Self::Delete => "delete",
            Self::CompareAndDelete => "compareAndDelete",
            Self::Expire => "expire",
        }
    }
}

/// One change.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// What was done.
    pub action: Action,
    /// The node afterwards.
    pub node: Shown,
    /// The node before, where that is told.
    pub previous: Option<Shown>,
    /// The index of the store: of a change its own.
    pub index: u64,
    /// Only a time to live changed; nobody is told.
    pub refresh: bool,
}

/// A node as clients see it, without its children.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    /// Where it is.
    pub key: Path,
    /// Of a file that is there.
    pub value: Option<Bytes>,
    /// Whether it is a directory.
    pub dir: bool,
    /// When it expires; zero: never.
    pub expiration: Nanos,
    /// Seconds until then, rounded up.
    pub ttl: i64,
    /// The index of its last change.
    pub modified: u64,
    /// The index at which it was made.
    pub created: u64,
}

impl Event {
    /// Whether something is there that was not.
    pub fn is_creation(&self) -> bool {
        self.action == Action::Create || (self.action == Action::Set && self.previous.is_none())
    }

    /// Keys and values that are held for it.
    pub fn bytes(&self) -> usize {
        self.node.bytes() + self.previous.as_ref().map_or(0, Shown::bytes)
    }

    /// Whether a directory went.
    pub(super) fn removes_directory(&self) -> bool {
        matches!(self.action, Action::Delete | Action::Expire)
            && self.previous.as_ref().is_some_and(|previous| previous.dir)
    }
}

impl Shown {
    /// Its key and value.
    pub(super) fn bytes(&self) -> usize {
        self.key.as_bytes().len() + self.value.as_ref().map_or(0, Bytes::len)
    }

    /// `node` without its children, at `now`.
    pub(super) fn of(path: &Path, node: &Node, now: Nanos) -> Self {
        Self {
            key: path.clone(),
            value: (!node.dir).then(|| node.value.clone()),
            dir: node.dir,
            expiration: node.expiration,
            ttl: seconds_left(node.expiration, now),
            modified: node.modified,
            created: node.created,
        }
    }

    /// What is told of a node that is gone since `index`.
    pub(super) fn gone(path: &Path, node: &Node, index: u64) -> Self {
        let key = path.clone();
        let (dir, created) = (node.dir, node.created);
        Self { key, value: None, dir, expiration: 0, ttl: 0, modified: index, created }
    }
}

/// Rounded up; past its expiry a node has none or fewer (Go's division, which cuts towards zero).
fn seconds_left(expiration: Nanos, now: Nanos) -> i64 {
    if expiration == 0 {
        return 0;
    }
    let left = expiration.saturating_sub(now);
    left / NANOS_PER_SECOND + i64::from(left % NANOS_PER_SECOND > 0)
}

/// An event as it is stored.
#[derive(Clone, PartialEq, Message)]
struct StoredEvent {
    #[prost(enumeration = "Action", tag = "1")]
    action: i32,
    #[prost(message, optional, tag = "2")]
    node: Option<StoredNode>,
    #[prost(message, optional, tag = "3")]
    previous: Option<StoredNode>,
    #[prost(bool, tag = "4")]
    refresh: bool,
}

#[derive(Clone, PartialEq, Message)]
struct StoredNode {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(oneof = "Content", tags = "2, 3")]
    content: Option<Content>,
    #[prost(sint64, tag = "4")]
    expiration: Nanos,
    #[prost(sint64, tag = "5")]
    ttl: i64,
    #[prost(uint64, tag = "6")]
    modified: u64,
    #[prost(uint64, tag = "7")]
    created: u64,
}

#[derive(Clone, PartialEq, Oneof)]
enum Content {
    #[prost(bytes = "bytes", tag = "2")]
    Value(Bytes),
    #[prost(bool, tag = "3")]
    Dir(bool),
}

impl From<&Shown> for StoredNode {
    fn from(shown: &Shown) -> Self {
        let Shown { key, value, dir, expiration, ttl, modified, created } = shown;
        let content = value.clone().map(Content::Value).or(dir.then_some(Content::Dir(true)));
        let (expiration, ttl, modified, created) = (*expiration, *ttl, *modified, *created);
        Self { key: key.to_bytes(), content, expiration, ttl, modified, created }
    }
}

impl From<StoredNode> for Shown {
    fn from(stored: StoredNode) -> Self {
        let StoredNode { key, content, expiration, ttl, modified, created } = stored;
        let (value, dir) = match content {
            Some(Content::Value(value)) => (Some(value), false),
            Some(Content::Dir(dir)) => (None, dir),
            None => (None, false),
        };
        Self { key: Path::stored(key), value, dir, expiration, ttl, modified, created }
    }
}

impl Event {
    pub(super) fn encode(&self) -> Bytes {
        let Self { action, node, previous, index: _, refresh } = self;
        let (node, previous) = (Some(node.into()), previous.as_ref().map(StoredNode::from));
        StoredEvent { action: (*action).into(), node, previous, refresh: *refresh }.encode_to_vec().into()
    }

    /// Reads the event of `index`.
    pub(super) fn decode(index: u64, row: Bytes) -> Option<Self> {
        let StoredEvent { action, node, previous, refresh } = StoredEvent::decode(row).ok()?;
        let action = Action::try_from(action).ok()?;
        Some(Self { action, node: node?.into(), previous: previous.map(Shown::from), index, refresh })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_rounded_up_and_may_be_negative() {
        let second = NANOS_PER_SECOND;
        for (left, seconds) in [(5 * second, 5), (4 * second + 1, 5), (1, 1), (0, 0), (-1, 0), (-second - 1, -1)] {
            assert_eq!(seconds_left(100 * second + left, 100 * second), seconds, "{left}");
        }
        assert_eq!(seconds_left(0, 100), 0, "permanent");
    }

    #[test]
    fn event_is_read_as_it_was_written() {
        let node = Node::file("v".into(), 7, 99);
        let path = Path::clean(b"/1/a");
        let event = Event {
            action: Action::Set,
            node: Shown::of(&path, &node, 1),
            previous: Some(Shown::of(&path, &Node::directory(3, 0), 1)),
            index: 7,
            refresh: true,
        };
        assert_eq!(Event::decode(7, event.encode()), Some(event));
        let gone = Event {
            action: Action::Delete,
            node: Shown::gone(&path, &node, 8),
            previous: None,
            index: 8,
            refresh: false,
        };
        assert_eq!(Event::decode(8, gone.encode()), Some(gone));
        assert_eq!(Event::decode(8, Bytes::from_static(b"\xff")), None);
    }
}
