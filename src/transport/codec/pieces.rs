//! Bytes to be written, long ones without copying them.

use bytes::{BufMut as _, Bytes, BytesMut};

/// Data of at least this length is handed on as it is; shorter data is copied next to its neighbours, which costs less
/// than one more buffer in the write call.
pub(super) const SHARED_BYTES_MIN: usize = 4 * 1024;

/// What one write is to consist of, in order.
#[derive(Debug, Default)]
pub(in crate::transport) struct Pieces {
    whole: Vec<Bytes>,
    tail: BytesMut,
    length: usize,
}

impl Pieces {
    /// Bytes added so far.
    pub(in crate::transport) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn byte(&mut self, byte: u8) {
        self.length += 1;
        self.tail.put_u8(byte);
    }

    pub(super) fn number(&mut self, number: u64) {
        self.length += 8;
        self.tail.put_u64(number);
    }

    /// Room for `length` more copied bytes, which the caller fills completely.
    pub(super) fn room(&mut self, length: usize) -> &mut BytesMut {
        self.length += length;
        self.tail.reserve(length);
        &mut self.tail
    }

    /// Adds `data`, without a copy if it is long.
    pub(super) fn data(&mut self, data: &Bytes) {
        self.length += data.len();
        if data.len() < SHARED_BYTES_MIN {
            self.tail.extend_from_slice(data);
            return;
        }
        self.close_tail();
        self.whole.push(data.clone());
    }

    /// Everything added since the last call.
    pub(in crate::transport) fn take(&mut self) -> Vec<Bytes> {
        self.close_tail();
        self.length = 0;
        std::mem::take(&mut self.whole)
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.whole.push(self.tail.split().freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_data_is_shared_and_short_data_gathered() {
        let long = Bytes::from(vec![7; SHARED_BYTES_MIN]);
        let mut pieces = Pieces::default();
        pieces.byte(1);
        pieces.data(&Bytes::from_static(b"short"));
        pieces.data(&long);
        pieces.number(2);
        assert_eq!(pieces.len(), 1 + 5 + SHARED_BYTES_MIN + 8);
        let taken = pieces.take();
        assert_eq!(taken.iter().map(Bytes::len).collect::<Vec<_>>(), [6, SHARED_BYTES_MIN, 8]);
        assert_eq!(taken[1].as_ptr(), long.as_ptr());
        assert_eq!((pieces.len(), pieces.take().len()), (0, 0));
    }
}
