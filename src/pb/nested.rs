//! Transactions inside one another, deeper than prost goes.
//!
//! prost follows messages to a depth of 100, of which every transaction takes two. etcd goes on: whoever sends it such a
//! transaction would stop the members of ours beside it. So what prost gives up on is taken apart here, level by level, as
//! far as etcd's usual allowance of operations reaches. Everything else has prost's verdict.

use bytes::{Bytes, BytesMut};
use prost::{
    DecodeError, Message as _,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};
use thiserror::Error;

use super::etcdserverpb::{
    Compare, InternalRaftRequest, RequestOp, ResponseOp, TxnRequest, TxnResponse, request_op::Request,
    response_op::Response,
};

/// Transactions inside one another: etcd's 128 operations are enough for so many below the outermost.
pub const TXN_DEPTH_MAX: usize = 127;

/// Numbers of fields. Those of an operation are also those of the answer to one.
const TXN_COMPARE: u32 = 1;
const TXN_SUCCESS: u32 = 2;
const TXN_FAILURE: u32 = 3;
const OP_RANGE: u32 = 1;
const OP_TXN: u32 = 4;
const ENTRY_TXN: u32 = 6;
const ANSWER_RESPONSES: u32 = 3;

/// One field as found on the wire.
pub(crate) struct Found<'a> {
    /// Its number.
    pub(crate) number: u32,
    /// The contents of a length-delimited field.
    pub(crate) body: Option<&'a [u8]>,
}

/// Takes the first field off `rest`; nothing at the end, or where the bytes are no message.
pub(crate) fn next_field<'a>(rest: &mut &'a [u8]) -> Option<Found<'a>> {
    let mut behind = *rest;
    let (number, wire_type) = decode_key(&mut behind).ok()?;
    let mut body = None;
    if wire_type == WireType::LengthDelimited {
        let length = usize::try_from(decode_varint(&mut behind).ok()?).ok()?;
        let (found, others) = behind.split_at_checked(length)?;
        (body, behind) = (Some(found), others);
    } else {
        skip_field(wire_type, number, &mut behind, DecodeContext::default()).ok()?;
    }
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

/// Decodes the answer to a transaction, as deep as transactions go.
///
/// # Errors
/// Prost's, if it is none.
pub fn decode_txn_response(message: &Bytes) -> Result<TxnResponse, DecodeError> {
    TxnResponse::decode(message.clone()).or_else(|error| deep_answer(message, TXN_DEPTH_MAX).map_err(|_| error))
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
        match body {
            Some(body) if number == ENTRY_TXN && txn.is_none() => {
                txn = Some(deep_txn(&message.slice_ref(body), TXN_DEPTH_MAX)?);
            }
            _ => others.extend_from_slice(before.get(..before.len() - rest.len()).unwrap_or_default()),
        }
    }
    let others = flat(InternalRaftRequest::decode(others.freeze()))?;
    if others.txn.is_some() { Err(Stop::Other) } else { Ok(InternalRaftRequest { txn, ..others }) }
}

fn deep_txn(message: &Bytes, levels_left: usize) -> Result<TxnRequest, Stop> {
    let (mut rest, mut txn) = (message.as_ref(), TxnRequest::default());
    while !rest.is_empty() {
        let Found { number, body } = next_field(&mut rest).ok_or(Stop::Other)?;
        if !matches!(number, TXN_COMPARE | TXN_SUCCESS | TXN_FAILURE) {
            continue;
        }
        let body = message.slice_ref(body.ok_or(Stop::Other)?);
        match number {
            TXN_COMPARE => txn.compare.push(flat(Compare::decode(body))?),
            TXN_SUCCESS => txn.success.push(deep_operation(&body, levels_left)?),
            _ => txn.failure.push(deep_operation(&body, levels_left)?),
        }
    }
    Ok(txn)
}

fn deep_operation(message: &Bytes, levels_left: usize) -> Result<RequestOp, Stop> {
    let Some(txn) = only_txn(message) else { return flat(RequestOp::decode(message.clone())) };
    let levels_left = levels_left.checked_sub(1).ok_or(Stop::TooDeep)?;
    let txn = deep_txn(&message.slice_ref(txn), levels_left)?;
    Ok(RequestOp { request: Some(Request::RequestTxn(txn)) })
}

fn deep_answer(message: &Bytes, levels_left: usize) -> Result<TxnResponse, Stop> {
    let (mut rest, mut others, mut responses) = (message.as_ref(), BytesMut::new(), Vec::new());
    while !rest.is_empty() {
        let before = rest;
        match next_field(&mut rest).ok_or(Stop::Other)? {
            Found { number: ANSWER_RESPONSES, body: Some(body) } => {
                responses.push(deep_response(&message.slice_ref(body), levels_left)?);
            }
            _ => others.extend_from_slice(before.get(..before.len() - rest.len()).unwrap_or_default()),
        }
    }
    Ok(TxnResponse { responses, ..flat(TxnResponse::decode(others.freeze()))? })
}

fn deep_response(message: &Bytes, levels_left: usize) -> Result<ResponseOp, Stop> {
    let Some(txn) = only_txn(message) else { return flat(ResponseOp::decode(message.clone())) };
    let levels_left = levels_left.checked_sub(1).ok_or(Stop::TooDeep)?;
    let txn = deep_answer(&message.slice_ref(txn), levels_left)?;
    Ok(ResponseOp { response: Some(Response::ResponseTxn(txn)) })
}

/// The transaction of an operation, or of the answer to one, if of all fields that are known it is the only one.
fn only_txn(operation: &[u8]) -> Option<&[u8]> {
    let (mut rest, mut txn) = (operation, None);
    while !rest.is_empty() {
        match next_field(&mut rest)? {
            Found { number: OP_TXN, body } if txn.is_none() => txn = Some(body?),
            Found { number: OP_RANGE..=OP_TXN, .. } => return None,
            _ => {}
        }
    }
    txn
}

fn flat<M>(decoded: Result<M, DecodeError>) -> Result<M, Stop> {
    decoded.map_err(|_| Stop::Other)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::encoding::{encode_key, encode_varint};

    use super::*;
    use crate::pb::etcdserverpb::{DeleteRangeRequest, PutRequest, PutResponse, RequestHeader, ResponseHeader};

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

    /// Field 15 as a number, and as a group with a number in it.
    const UNKNOWN: &[u8] = b"\x78\x01\x7b\x08\x01\x7c";

    fn field(number: u32, body: &[u8]) -> Vec<u8> {
        let mut field = Vec::new();
        encode_key(number, WireType::LengthDelimited, &mut field);
        encode_varint(body.len() as u64, &mut field);
        [&field, body].concat()
    }

    /// The transaction as somebody writes it who has fields of which nobody here knows.
    fn newer(txn: &TxnRequest) -> Vec<u8> {
        let mut bytes = UNKNOWN.to_vec();
        for compare in &txn.compare {
            bytes.extend(field(TXN_COMPARE, &[UNKNOWN, &compare.encode_to_vec()].concat()));
        }
        for (number, operations) in [(TXN_SUCCESS, &txn.success), (TXN_FAILURE, &txn.failure)] {
            for operation in operations {
                let known = match &operation.request {
                    Some(Request::RequestTxn(inner)) => field(OP_TXN, &newer(inner)),
                    _ => operation.encode_to_vec(),
                };
                bytes.extend(field(number, &[&known, UNKNOWN].concat()));
            }
        }
        bytes
    }

    #[test]
    fn unknown_fields_are_left_alone_at_every_depth() {
        for levels in [0, 1, 60, TXN_DEPTH_MAX] {
            let txn = nest(levels);
            assert_eq!(decode_txn(&newer(&txn).into()), Ok(txn), "{levels}");
        }
    }

    #[test]
    fn answers_of_every_depth_are_read_back() {
        let header = Some(ResponseHeader { revision: 7, ..Default::default() });
        let response = |response| ResponseOp { response: Some(response) };
        for levels in [0, 1, 49, 50, TXN_DEPTH_MAX] {
            let innermost = TxnResponse { header, succeeded: true, responses: Vec::new() };
            let answer = (0..levels).fold(innermost, |inner, level| {
                let responses = vec![
                    response(Response::ResponsePut(PutResponse { header, prev_kv: None })),
                    response(Response::ResponseTxn(inner)),
                    ResponseOp::default(),
                ];
                TxnResponse { header, succeeded: level % 2 == 0, responses }
            });
            assert_eq!(decode_txn_response(&answer.encode_to_vec().into()), Ok(answer), "{levels}");
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
