//! bbolt files: etcd's database, read and written a page at a time.
//!
//! A bbolt file is a B+ tree of buckets, each a B+ tree of its own, in pages of one size. Two meta pages at its beginning
//! say where the tree begins; the valid one with the newer transaction counts. This is neither bbolt's locking nor its
//! transactions: [`Reader`] walks a file that nobody changes, [`Writer`] makes a whole file from rows in order.
//!
//! Invariants:
//! - whatever the bytes of a file are, reading them ends in rows or in an error: each page is visited once, keys ascend,
//!   and everything a page points at lies where it may;
//! - neither side holds more than a few pages and one row in memory, whatever the size of the file.

mod layout;
mod meta;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

use std::io;

use bytes::Bytes;
use thiserror::Error;

pub use reader::{Reader, Rows};
pub use writer::{Writer, Written};

/// Longest key bbolt takes.
pub const KEY_BYTES_MAX: usize = 32_768;
/// Longest value that is read or written: 1 GiB. bbolt would take nearly twice as much, but no request can carry it.
pub const VALUE_BYTES_MAX: usize = 1 << 30;
/// The page size of files written here: that of nearly every machine. bbolt takes the size from the file.
pub const PAGE_BYTES: usize = 4_096;
/// Buckets a file may hold; etcd's has ten.
pub const BUCKETS_MAX: usize = 64;

/// A row, with the name of its bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The bucket's name.
    pub bucket: Bytes,
    /// Not empty in etcd's buckets.
    pub key: Bytes,
    /// May be empty.
    pub value: Bytes,
}

/// A file could not be read or written.
#[derive(Debug, Error)]
pub enum BboltError {
    /// The operating system refuses.
    #[error("cannot {action} the database file")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Its answer.
        #[source]
        cause: io::Error,
    },
    /// Neither meta page is valid.
    #[error("not a bbolt file, or one whose two meta pages are both damaged")]
    NoMeta,
    /// The file ends before the pages it tells of.
    #[error("the database file is cut off: it has {have} bytes, its pages take {need}")]
    Truncated {
        /// Bytes of the file.
        have: u64,
        /// Bytes of all pages.
        need: u64,
    },
    /// A page that is not what it should be.
    #[error("page {page} of the database file is damaged: {what}")]
    Page {
        /// Its number; that of the page around it for a bucket that lies inside another page.
        page: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A row that cannot be written.
    #[error("row {key} of bucket {bucket} cannot be written: {what}")]
    Row {
        /// The bucket's name.
        bucket: String,
        /// The row's key, escaped for printing.
        key: String,
        /// Why.
        what: &'static str,
    },
}

impl BboltError {
    /// What becomes of the answer to `action`.
    pub(super) fn io(action: &'static str) -> impl Fn(io::Error) -> Self {
        move |cause| Self::Io { action, cause }
    }
}
