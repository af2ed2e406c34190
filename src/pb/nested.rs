//! Transactions inside one another, deeper than prost goes.
//!
//! prost follows messages to a depth of 100, of which every transaction takes two. etcd goes on: whoever sends it such a
//! transaction would stop the members of ours beside it. So what prost gives up on is taken apart here, level by level, as
//! far as etcd's usual allowance of operations reaches. Everything else has prost's verdict.

use bytes::{Bytes, BytesMut};
use prost::{
    DecodeError, Message as _,
    encoding::{WireType, decode_key, decode_varint},
};
use thiserror::Error;

use super::etcdserverpb::{Compare, InternalRaftRequest, RequestOp, TxnRequest, request_op::Request};

/// Transactions inside one another: etcd's 128 operations are enough for so many below the outermost.
pub const TXN_DEPTH_MAX: usize = 127;

/// Numbers of fields.
const TXN_COMPARE: u32 = 1;
const TXN_SUCCESS: u32 = 2;
const TXN_FAILURE: u32 = 3;
const OP_TXN: u32 = 4;
const ENTRY_TXN: u32 = 6;

/// One field as found on the wire.
pub(crate) struct Found<'a> {
    /// Its number.
    pub(crate) number: u32,
    /// The contents of a length-delimited field; empty for any other.
    pub(crate) body: &'a [u8],
}

/// Takes the first field off `rest`; nothing at the end, or where the bytes are no message.
pub(crate) fn next_field<'a>(rest: &mut &'a [u8]) -> Option<Found<'a>> {
    let (number, wire_type) = decode_key(rest).ok()?;
    let skipped = match wire_type {
        WireType::Varint => decode_varint(rest).map(|_| 0).ok()?,
        WireType::SixtyFourBit => 8,
        WireType::ThirtyTwoBit => 4,
        WireType::LengthDelimited => usize::try_from(decode_varint(rest).ok()?).ok()?,
        WireType::StartGroup | WireType::EndGroup => return None,
    };
    let (body, behind) = rest.split_at_checked(skipped)?;
    *rest = behind;
    Some(Found { number, body })
}

/// Why a transaction cannot be read.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum NestedError {
    /// It is none.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// It goes deeper than [`TXN_DEPTH_MAX`].
    #[error("transactions stand inside one another, more than {TXN_DEPTH_MAX} of them")]
    TooDeep,
}

/// Decodes a transaction.
///
/// # Errors
/// [`NestedError`].
pub fn decode_txn(message: &Bytes) -> Result<TxnRequest, NestedError> {
    TxnRequest::decode(message.clone()).or_else(|error| {
        deep_txn(message, TXN_DEPTH_MAX).map_err(|stop| match stop {
            Stop::TooDeep => NestedError::TooDeep,
            Stop::Other => error.into(),
        })
    })
}

/// Decodes the request of an entry.
///
/// # Errors
/// Prost's, if it is none, or has a transaction that goes deeper than [`TXN_DEPTH_MAX`].
pub fn decode_entry(message: &Bytes) -> Result<InternalRaftRequest, DecodeError> {
    InternalRaftRequest::decode(message.clone()).or_else(|error| deep_entry(message).map_err(|_| error))
}

/// Why taking apart has ended.
enum Stop {
    TooDeep,
    /// Nothing this module knows: what prost says, counts.
    Other,
}

fn deep_entry(message: &Bytes) -> Result<InternalRaftRequest, Stop> {
    let (mut rest, mut others, mut txn) = (message.as_ref(), BytesMut::new(), None);
    while !rest.is_empty() {
        let before = rest;
        let Found { number, body } = next_field(&mut rest).ok_or(Stop::Other)?;
        if number == ENTRY_TXN && txn.is_none() {
            txn = Some(deep_txn(&message.slice_ref(body), TXN_DEPTH_MAX)?);
        } else {
            others.extend_from_slice(before.get(..before.len() - rest.len()).unwrap_or_default());
        }
    }
    let others = flat(InternalRaftRequest::decode(others.freeze()))?;
    if others.txn.is_some() { Err(Stop::Other) } else { Ok(InternalRaftRequest { txn, ..others }) }
}

fn deep_txn(message: &Bytes, levels_left: usize) -> Result<TxnRequest, Stop> {
    let (mut rest, mut txn) = (message.as_ref(), TxnRequest::default());
    while !rest.is_empty() {
        let Found { number, body } = next_field(&mut rest).ok_or(Stop::Other)?;
        let body = message.slice_ref(body);
        match number {
            TXN_COMPARE => txn.compare.push(flat(Compare::decode(body))?),
            TXN_SUCCESS => txn.success.push(deep_operation(&body, levels_left)?),
            TXN_FAILURE => txn.failure.push(deep_operation(&body, levels_left)?),
            _ => return Err(Stop::Other),
        }
    }
    Ok(txn)
}

fn deep_operation(message: &Bytes, levels_left: usize) -> Result<RequestOp, Stop> {
    let mut rest = message.as_ref();
    match next_field(&mut rest) {
        Some(Found { number: OP_TXN, body }) if rest.is_empty() => {
            let levels_left = levels_left.checked_sub(1).ok_or(Stop::TooDeep)?;
            let txn = deep_txn(&message.slice_ref(body), levels_left)?;
            Ok(RequestOp { request: Some(Request::RequestTxn(txn)) })
        }
        _ => flat(RequestOp::decode(message.clone())),
    }
}

fn flat<M>(decoded: Result<M, DecodeError>) -> Result<M, Stop> {
    decoded.map_err(|_| Stop::Other)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pb::etcdserverpb::{DeleteRangeRequest, PutRequest, RequestHeader};

    fn operation(request: Request) -> RequestOp {
        RequestOp { request: Some(request) }
    }

    /// So many transactions below the outermost, in both branches by turns.
    fn nest(levels: usize) -> TxnRequest {
        let put = PutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
        let innermost = TxnRequest { success: vec![operation(Request::RequestPut(put))], ..Default::default() };
        (0..levels).fold(innermost, |inner, level| {
            let delete = DeleteRangeRequest { key: level.to_string().into(), ..Default::default() };
            let other = vec![operation(Request::RequestDeleteRange(delete)), RequestOp::default()];
            let inner = vec![operation(Request::RequestTxn(inner))];
            let compare = vec![Compare { key: "c".into(), ..Default::default() }];
            let (success, failure) = if level % 2 == 0 { (inner, other) } else { (other, inner) };
            TxnRequest { compare, success, failure }
        })
    }

    #[test]
    fn transactions_of_every_depth_are_read_back() {
        for levels in [0, 1, 48, 49, 50, 100, TXN_DEPTH_MAX] {
            let txn = nest(levels);
            assert_eq!(decode_txn(&txn.encode_to_vec().into()), Ok(txn.clone()), "{levels}");
            let header = Some(RequestHeader { id: 7, username: "u".into(), auth_revision: 1 });
            let entry = InternalRaftRequest { header, id: 5, txn: Some(txn), ..Default::default() };
            assert_eq!(decode_entry(&entry.encode_to_vec().into()), Ok(entry), "{levels}");
        }
    }

    #[test]
    fn deeper_ones_and_other_bytes_are_told_apart() {
        let refused = |error: &DecodeError| error.to_string().ends_with("recursion limit reached");
        let txn = nest(TXN_DEPTH_MAX + 1);
        assert_eq!(decode_txn(&txn.encode_to_vec().into()), Err(NestedError::TooDeep));
        let entry = InternalRaftRequest { txn: Some(txn), ..Default::default() };
        assert!(decode_entry(&entry.encode_to_vec().into()).is_err_and(|error| refused(&error)));
        let groups = decode_txn(&[0x9b, 6].repeat(100_000).into());
        assert!(matches!(groups, Err(NestedError::Decode(error)) if refused(&error)));
    }

    proptest! {
        /// A damaged one is refused, or says the same to prost, or is too deep for it.
        #[test]
        fn damage_is_survived(levels in 0..70_usize, at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = nest(levels).encode_to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let bytes = Bytes::from(bytes);
            let found = deep_txn(&bytes, TXN_DEPTH_MAX);
            if let (Ok(found), Ok(read)) = (found, TxnRequest::decode(bytes)) {
                prop_assert_eq!(found, read);
            }
        }
    }
}
