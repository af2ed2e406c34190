//! What spans say of requests: etcd's names, keys and numbers, never values.

use opentelemetry::KeyValue;

use crate::pb::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest,
    PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest, request_op::Request,
};

/// Bytes of a key that a span shows.
const KEY_BYTES_MAX: usize = 1_024;

/// The name of what a request asks of the store, and its fields.
pub type Operation = (&'static str, Vec<KeyValue>);

/// A request for which etcd has a span.
pub trait Traced {
    /// What it asks of the store.
    fn operation(&self) -> Operation;
}

/// A key as text; what is no text is replaced.
fn key(name: &'static str, bytes: &[u8]) -> KeyValue {
    let shown = bytes.get(..KEY_BYTES_MAX).unwrap_or(bytes);
    KeyValue::new(name, String::from_utf8_lossy(shown).into_owned())
}

fn count(name: &'static str, items: usize) -> KeyValue {
    KeyValue::new(name, i64::try_from(items).unwrap_or(i64::MAX))
}

impl Traced for RangeRequest {
    fn operation(&self) -> Operation {
        let fields = vec![
            key("range_begin", &self.key),
            key("range_end", &self.range_end),
            KeyValue::new("rev", self.revision),
            KeyValue::new("limit", self.limit),
            KeyValue::new("count_only", self.count_only),
            KeyValue::new("keys_only", self.keys_only),
        ];
        ("range", fields)
    }
}

impl Traced for PutRequest {
    fn operation(&self) -> Operation {
        ("put", vec![key("key", &self.key)])
    }
}

impl Traced for DeleteRangeRequest {
    fn operation(&self) -> Operation {
        ("delete_range", vec![key("range_begin", &self.key), key("range_end", &self.range_end)])
    }
}

impl Traced for TxnRequest {
    fn operation(&self) -> Operation {
        let fields = vec![
            key("compare_first_key", first_compared(&self.compare)),
            key("success_first_key", first_key(&self.success)),
            KeyValue::new("success_first_type", first_kind(&self.success)),
            KeyValue::new("success_first_lease", first_lease(&self.success)),
            count("compare_len", self.compare.len()),
            count("success_len", self.success.len()),
            count("failure_len", self.failure.len()),
            KeyValue::new("read_only", self.success.iter().chain(&self.failure).all(reads)),
        ];
        ("txn", fields)
    }
}

/// The first key that is none of nothing.
fn first_compared(compares: &[Compare]) -> &[u8] {
    compares.iter().map(|compare| compare.key.as_ref()).find(|key: &&[u8]| !key.is_empty()).unwrap_or_default()
}

fn first_key(operations: &[RequestOp]) -> &[u8] {
    operations.iter().filter_map(key_of).find(|key| !key.is_empty()).unwrap_or_default()
}

fn key_of(operation: &RequestOp) -> Option<&[u8]> {
    match operation.request.as_ref()? {
        Request::RequestPut(put) => Some(&put.key),
        Request::RequestRange(range) => Some(&range.key),
        Request::RequestDeleteRange(delete) => Some(&delete.key),
        Request::RequestTxn(_) => None,
    }
}

fn first_kind(operations: &[RequestOp]) -> &'static str {
    let first = operations.iter().find_map(|operation| operation.request.as_ref());
    first.map_or("", |request| match request {
        Request::RequestPut(_) => "put",
        Request::RequestRange(_) => "range",
        Request::RequestDeleteRange(_) => "delete_range",
        Request::RequestTxn(_) => "txn",
    })
}

/// The lease of the first put, -1 where there is none.
fn first_lease(operations: &[RequestOp]) -> i64 {
    let lease = |operation: &RequestOp| match operation.request.as_ref()? {
        Request::RequestPut(put) => Some(put.lease),
        _ => None,
    };
    operations.iter().find_map(lease).unwrap_or(-1)
}

/// Whether an operation reads; transactions within count as reading if all of theirs do.
fn reads(operation: &RequestOp) -> bool {
    match operation.request.as_ref() {
        Some(Request::RequestRange(_)) | None => true,
        Some(Request::RequestTxn(txn)) => txn.success.iter().chain(&txn.failure).all(reads),
        Some(_) => false,
    }
}

impl Traced for CompactionRequest {
    fn operation(&self) -> Operation {
        ("compact", vec![KeyValue::new("is_physical", self.physical), KeyValue::new("rev", self.revision)])
    }
}

impl Traced for LeaseGrantRequest {
    fn operation(&self) -> Operation {
        ("lease_grant", vec![KeyValue::new("id", self.id), KeyValue::new("ttl", self.ttl)])
    }
}

impl Traced for LeaseRevokeRequest {
    fn operation(&self) -> Operation {
        ("lease_revoke", vec![KeyValue::new("id", self.id)])
    }
}

impl Traced for LeaseKeepAliveRequest {
    fn operation(&self) -> Operation {
        ("lease_renew", vec![KeyValue::new("id", self.id)])
    }
}

impl Traced for WatchCreateRequest {
    fn operation(&self) -> Operation {
        let fields = vec![
            key("key", &self.key),
            key("range_end", &self.range_end),
            KeyValue::new("start_rev", self.start_revision),
            KeyValue::new("progress_notify", self.progress_notify),
            KeyValue::new("prev_kv", self.prev_kv),
            KeyValue::new("fragment", self.fragment),
        ];
        ("watch", fields)
    }
}
