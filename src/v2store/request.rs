//! A request of the v2 API as it travels through the log: etcd's message, inside an entry.

use bytes::Bytes;
use prost::Message;

use super::{Nanos, Path, path};

/// What is asked for. Numbers and names of the fields are etcd's.
#[derive(Clone, PartialEq, Message)]
pub struct Request {
    /// Ties it to who waits for the answer.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// One of [`Method`].
    #[prost(bytes = "bytes", tag = "2")]
    pub method: Bytes,
    /// Where, with the prefix of the users' part.
    #[prost(bytes = "bytes", tag = "3")]
    pub path: Bytes,
    /// `value`.
    #[prost(bytes = "bytes", tag = "4")]
    pub value: Bytes,
    /// `dir`.
    #[prost(bool, tag = "5")]
    pub dir: bool,
    /// `prevValue`; empty: not asked for.
    #[prost(bytes = "bytes", tag = "6")]
    pub prev_value: Bytes,
    /// `prevIndex`; zero: not asked for.
    #[prost(uint64, tag = "7")]
    pub prev_index: u64,
    /// `prevExist`.
    #[prost(bool, optional, tag = "8")]
    pub prev_exist: Option<bool>,
    /// When the node expires; zero: never.
    #[prost(int64, tag = "9")]
    pub expiration: Nanos,
    /// `recursive`.
    #[prost(bool, tag = "12")]
    pub recursive: bool,
    /// When the request was received; of [`Method::Sync`], up to when nodes expire. etcd sets it for the latter alone.
    #[prost(int64, tag = "15")]
    pub time: Nanos,
    /// `refresh`.
    #[prost(bool, optional, tag = "17")]
    pub refresh: Option<bool>,
}

/// The methods that change the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Creates a node named by the index.
    Post,
    /// Sets, creates, updates, compares and swaps.
    Put,
    /// Deletes, compares and deletes.
    Delete,
    /// Lets nodes expire; the leader's alone.
    Sync,
    /// Takes down that the member at the path understands such requests. Not one of etcd's, no change of the tree.
    Know,
}

impl Method {
    const ALL: [Self; 5] = [Self::Post, Self::Put, Self::Delete, Self::Sync, Self::Know];

    /// As it stands in a request.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Sync => "SYNC",
            Self::Know => "KNOW",
        }
    }

    /// The method of this name.
    pub fn named(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.name().as_bytes() == name)
    }
}

impl Request {
    /// A request about `path`, received at `time`, with nothing else asked for.
    pub fn new(method: Method, path: &Path, time: Nanos) -> Self {
        let method = Bytes::from_static(method.name().as_bytes());
        Self { method, path: path.to_bytes(), time, ..Self::default() }
    }

    /// Whether what is there must be as told.
    pub(super) fn compares(&self) -> bool {
        self.prev_index > 0 || !self.prev_value.is_empty()
    }

    pub(super) fn refreshes(&self) -> bool {
        self.refresh == Some(true)
    }

    /// Whether it makes no node, and leaves the one it is about its value.
    pub fn only_refreshes(&self) -> bool {
        self.refreshes() && self.prev_exist != Some(false) && Method::named(&self.method) == Some(Method::Put)
    }

    /// Whether it is about the users' records.
    pub fn is_about_users(&self) -> bool {
        path::is_of_users(&self.path)
    }
}
