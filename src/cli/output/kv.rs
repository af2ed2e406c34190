//! Pairs, transactions and watches.

use std::fmt::Write;

use prost::Message;

use super::{Page, Shown, json};
use crate::pb::{
    etcdserverpb::{
        DeleteRangeResponse, PutResponse, RangeResponse, ResponseOp, TxnResponse, WatchResponse, response_op::Response,
    },
    mvccpb::{Event, KeyValue},
};

impl Shown for RangeResponse {
    fn simple(&self, page: &mut Page) {
        self.kvs.iter().for_each(|kv| pair(page, kv));
    }

    fn fields(&self, page: &mut Page) {
        page.header_fields(self.header.as_ref());
        self.kvs.iter().for_each(|kv| pair_fields(page, "", kv));
        page.field("More", self.more);
        page.field("Count", self.count);
    }

    fn json(&self, page: &mut Page) {
        page.object(|object| {
            object.header(self.header.as_ref());
            object.array_if_set("kvs", &self.kvs, json::key_value);
            object.plain_if_set("more", self.more);
            object.plain_if_set("count", self.count);
        });
    }

    fn protobuf(&self) -> Option<Vec<u8>> {
        Some(self.encode_to_vec())
    }
}

impl Shown for PutResponse {
    fn simple(&self, page: &mut Page) {
        page.line("OK");
        self.prev_kv.iter().for_each(|kv| pair(page, kv));
    }

    fn fields(&self, page: &mut Page) {
        page.header_fields(self.header.as_ref());
        self.prev_kv.iter().for_each(|kv| pair_fields(page, "Prev", kv));
    }

    fn json(&self, page: &mut Page) {
        page.object(|object| {
            object.header(self.header.as_ref());
            object.key_value_if_set("prev_kv", self.prev_kv.as_ref());
        });
    }

    fn protobuf(&self) -> Option<Vec<u8>> {
        Some(self.encode_to_vec())
    }
}

impl Shown for DeleteRangeResponse {
    fn simple(&self, page: &mut Page) {
        page.line(self.deleted);
        self.prev_kvs.iter().for_each(|kv| pair(page, kv));
    }

    fn fields(&self, page: &mut Page) {
        page.header_fields(self.header.as_ref());
        page.field("Deleted", self.deleted);
        self.prev_kvs.iter().for_each(|kv| pair_fields(page, "Prev", kv));
    }

    fn json(&self, page: &mut Page) {
        page.object(|object| {
            object.header(self.header.as_ref());
            object.plain_if_set("deleted", self.deleted);
            object.array_if_set("prev_kvs", &self.prev_kvs, json::key_value);
        });
    }

    fn protobuf(&self) -> Option<Vec<u8>> {
        Some(self.encode_to_vec())
    }
}

impl Shown for TxnResponse {
    fn simple(&self, page: &mut Page) {
        page.line(if self.succeeded { "SUCCESS" } else { "FAILURE" });
        for answer in self.responses.iter().filter_map(of_operation) {
            page.end_line();
            answer.simple(page);
        }
    }

    fn fields(&self, page: &mut Page) {
        page.header_fields(self.header.as_ref());
        page.field("Succeeded", self.succeeded);
        self.responses.iter().filter_map(of_operation).for_each(|answer| answer.fields(page));
    }

    fn json(&self, page: &mut Page) {
        page.object(|object| {
            object.header(self.header.as_ref());
            object.plain_if_set("succeeded", self.succeeded);
            object.array_if_set("responses", &self.responses, operation_json);
        });
    }

    fn protobuf(&self) -> Option<Vec<u8>> {
        Some(self.encode_to_vec())
    }
}

/// The answer to one operation of a transaction.
fn of_operation(answer: &ResponseOp) -> Option<&dyn Shown> {
    Some(match answer.response.as_ref()? {
        Response::ResponseRange(range) => range,
        Response::ResponsePut(put) => put,
        Response::ResponseDeleteRange(delete) => delete,
        Response::ResponseTxn(txn) => txn,
    })
}

fn operation_json(page: &mut Page, answer: &ResponseOp) {
    let name = match answer.response {
        Some(Response::ResponseRange(_)) => "response_range",
        Some(Response::ResponsePut(_)) => "response_put",
        Some(Response::ResponseDeleteRange(_)) => "response_delete_range",
        Some(Response::ResponseTxn(_)) | None => "response_txn",
    };
    page.object(|object| {
        object.object("Response", |object| {
            if let Some(shown) = of_operation(answer) {
                shown.json(object.member(name));
            }
        });
    });
}

impl Shown for WatchResponse {
    fn simple(&self, page: &mut Page) {
        for event in &self.events {
            page.line(event.r#type().as_str_name());
            event.prev_kv.iter().chain(&event.kv).for_each(|kv| pair(page, kv));
        }
    }

    fn fields(&self, page: &mut Page) {
        page.header_fields(self.header.as_ref());
        for event in &self.events {
            page.field("Type", event.r#type().as_str_name());
            event.prev_kv.iter().for_each(|kv| pair_fields(page, "Prev", kv));
            event.kv.iter().for_each(|kv| pair_fields(page, "", kv));
        }
    }

    /// The client's own struct, whose members have capitals and are never left out.
    fn json(&self, page: &mut Page) {
        page.object(|object| {
            object.object("Header", |object| object.header_members(&self.header.unwrap_or_default()));
            let events = object.member("Events");
            if self.events.is_empty() {
                events.text(format_args!("null"));
            } else {
                events.array(&self.events, event_json);
            }
            object.plain("CompactRevision", self.compact_revision);
            object.plain("Canceled", self.canceled);
            object.plain("Created", self.created);
            object.text("CancelReason", &self.cancel_reason);
        });
    }

    /// Without what only concerns the stream it came over.
    fn protobuf(&self) -> Option<Vec<u8>> {
        let kept = Self { watch_id: 0, fragment: false, cancel_reason: String::new(), ..self.clone() };
        Some(kept.encode_to_vec())
    }
}

/// An event as it stands in the answers of a watch.
pub(super) fn event_json(page: &mut Page, event: &Event) {
    page.object(|object| {
        object.plain_if_set("type", event.r#type);
        object.key_value_if_set("kv", event.kv.as_ref());
        object.key_value_if_set("prev_kv", event.prev_kv.as_ref());
    });
}

/// Key and value on lines of their own.
fn pair(page: &mut Page, kv: &KeyValue) {
    if !page.values_only() {
        byte_line(page, &kv.key);
    }
    byte_line(page, &kv.value);
}

fn byte_line(page: &mut Page, bytes: &[u8]) {
    if page.hex() { page.line(escaped(bytes)) } else { page.byte_line(bytes) }
}

fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 4);
    // Writing to a string cannot fail.
    for byte in bytes {
        write!(text, "\\x{byte:02x}").unwrap_or_default();
    }
    text
}

pub(super) fn pair_fields(page: &mut Page, prefix: &str, kv: &KeyValue) {
    let name = |field: &str| format!("{prefix}{field}");
    page.quoted_field(&name("Key"), &kv.key);
    page.field(&name("CreateRevision"), kv.create_revision);
    page.field(&name("ModRevision"), kv.mod_revision);
    page.field(&name("Version"), kv.version);
    page.quoted_field(&name("Value"), &kv.value);
    page.lease_field(&name("Lease"), kv.lease);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::output::{
            Format,
            tests::{printed, refused},
        },
        pb::etcdserverpb::ResponseHeader,
    };

    fn header(revision: i64) -> ResponseHeader {
        ResponseHeader { cluster_id: 17, member_id: 18, revision, raft_term: 2 }
    }

    fn kv(key: &'static [u8], value: &'static [u8]) -> KeyValue {
        KeyValue { key: key.into(), value: value.into(), create_revision: 2, mod_revision: 3, version: 2, lease: 31 }
    }

    fn range() -> RangeResponse {
        RangeResponse { header: Some(header(3)), kvs: vec![kv(b"foo", b"b\xffr")], more: true, count: 5 }
    }

    fn transaction() -> TxnResponse {
        let inner = |response| ResponseOp { response: Some(response) };
        let sub = Some(ResponseHeader { revision: 4, ..ResponseHeader::default() });
        TxnResponse {
            header: Some(header(4)),
            succeeded: true,
            responses: vec![
                inner(Response::ResponsePut(PutResponse { header: sub, prev_kv: None })),
                inner(Response::ResponseDeleteRange(DeleteRangeResponse { header: sub, deleted: 1, prev_kvs: vec![] })),
                inner(Response::ResponseTxn(TxnResponse {
                    header: Some(ResponseHeader::default()),
                    ..Default::default()
                })),
            ],
        }
    }

    fn watched() -> WatchResponse {
        let put = Event { r#type: 0, kv: Some(kv(b"k", b"v")), prev_kv: Some(kv(b"k", b"u")) };
        let delete = Event {
            r#type: 1,
            kv: Some(KeyValue { key: "k".into(), mod_revision: 4, ..Default::default() }),
            prev_kv: None,
        };
        WatchResponse { header: Some(header(4)), events: vec![put, delete], watch_id: 3, ..Default::default() }
    }

    #[test]
    fn a_range_in_all_forms() {
        let json = r#"{"header":{"cluster_id":17,"member_id":18,"revision":3,"raft_term":2},"kvs":[{"key":"Zm9v","create_revision":2,"mod_revision":3,"version":2,"value":"Yv9y","lease":31}],"more":true,"count":5}"#;
        assert_eq!(printed(Format::Json, true, &range()), format!("{json}\n"));
        let hex = "\\x66\\x6f\\x6f\n\\x62\\xff\\x72\n";
        assert_eq!(printed(Format::Simple, true, &range()), hex);
        let fields = "\"ClusterID\" : 17\n\"MemberID\" : 18\n\"Revision\" : 3\n\"RaftTerm\" : 2\n\"Key\" : \"foo\"\n\
                      \"CreateRevision\" : 2\n\"ModRevision\" : 3\n\"Version\" : 2\n\"Value\" : \"b\\xffr\"\n\
                      \"Lease\" : 31\n\"More\" : true\n\"Count\" : 5\n";
        assert_eq!(printed(Format::Fields, false, &range()), fields);
        assert!(printed(Format::Fields, true, &range()).contains("\"ClusterID\" : 11\n"));
        assert!(printed(Format::Fields, true, &range()).contains("\"Lease\" : 000000000000001f\n"));
        assert_eq!(range().protobuf(), Some(range().encode_to_vec()));
        let failure = refused(Format::Table, &range());
        assert_eq!(failure.message.as_deref(), Some("table not supported as output format"));
    }

    #[test]
    fn a_transaction_shows_its_answers_in_order() {
        assert_eq!(printed(Format::Simple, false, &transaction()), "SUCCESS\n\nOK\n\n1\n\nFAILURE\n");
        let json = r#"{"header":{"cluster_id":17,"member_id":18,"revision":4,"raft_term":2},"succeeded":true,"responses":[{"Response":{"response_put":{"header":{"revision":4}}}},{"Response":{"response_delete_range":{"header":{"revision":4},"deleted":1}}},{"Response":{"response_txn":{"header":{}}}}]}"#;
        assert_eq!(printed(Format::Json, false, &transaction()), format!("{json}\n"));
    }

    #[test]
    fn a_watch_shows_previous_pairs_first() {
        assert_eq!(printed(Format::Simple, false, &watched()), "PUT\nk\nu\nk\nv\nDELETE\nk\n\n");
        let json = r#"{"Header":{"cluster_id":17,"member_id":18,"revision":4,"raft_term":2},"Events":[{"kv":{"key":"aw==","create_revision":2,"mod_revision":3,"version":2,"value":"dg==","lease":31},"prev_kv":{"key":"aw==","create_revision":2,"mod_revision":3,"version":2,"value":"dQ==","lease":31}},{"type":1,"kv":{"key":"aw==","mod_revision":4}}],"CompactRevision":0,"Canceled":false,"Created":false,"CancelReason":""}"#;
        assert_eq!(printed(Format::Json, false, &watched()), format!("{json}\n"));
        let idle = WatchResponse { canceled: true, compact_revision: 8, ..Default::default() };
        let json =
            r#"{"Header":{},"Events":null,"CompactRevision":8,"Canceled":true,"Created":false,"CancelReason":""}"#;
        assert_eq!(printed(Format::Json, false, &idle), format!("{json}\n"));
        let kept = WatchResponse::decode(watched().protobuf().unwrap().as_slice()).unwrap();
        assert_eq!((kept.watch_id, kept.events.len()), (0, 2));
    }
}
