//! A range answered in pieces.

use std::marker::PhantomData;

use super::ReadError;
use crate::{
    pb::{etcdserverpb::RangeResponse, mvccpb::KeyValue},
    storage::Read,
};

/// The next pairs of a range, in the order of the answer.
pub type Chunk = Vec<KeyValue>;

/// A range whose exact answer is known in size but not held in memory. It owns the view it reads, so that all chunks
/// come from one state.
#[derive(Debug)]
pub struct RangePlan<S> {
    _view: PhantomData<S>,
}

impl<S: Read> RangePlan<S> {
    /// The answer without its pairs: `header.revision`, `more`, `count`.
    pub fn frame(&self) -> &RangeResponse {
        todo!()
    }

    /// Number of pairs the chunks will hold.
    pub fn kvs(&self) -> u64 {
        todo!()
    }

    /// Bytes that the pairs occupy inside an encoded `RangeResponse` (field `kvs`: tags, lengths and bodies).
    pub fn kvs_bytes(&self) -> u64 {
        todo!()
    }

    /// The next chunk: at most `kvs_max` pairs, and no further pair once `bytes_max` encoded bytes are reached; empty at
    /// the end.
    ///
    /// # Errors
    /// [`ReadError::Storage`] only.
    pub fn next_chunk(&mut self, _kvs_max: usize, _bytes_max: usize) -> Result<Chunk, ReadError> {
        todo!()
    }
}
