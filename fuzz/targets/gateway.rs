//! Any path and body are a message of that path or a named refusal; a message decodes as what its path takes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message;
use quorate::api::gateway::decode_json;
use quorate::pb::etcdserverpb as pb;

fuzz_target!(|input: &[u8]| {
    let end = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (path, body) = input.split_at(end);
    let Ok(path) = std::str::from_utf8(path) else { return };
    let Ok(message) = decode_json(path, body) else { return };
    match path {
        "kv/range" => check::<pb::RangeRequest>(message),
        "kv/put" => check::<pb::PutRequest>(message),
        "kv/txn" => check::<pb::TxnRequest>(message),
        "watch" => check::<pb::WatchRequest>(message),
        "lease/grant" => check::<pb::LeaseGrantRequest>(message),
        "auth/role/grant" => check::<pb::AuthRoleGrantPermissionRequest>(message),
        _ => {}
    }
});

fn check<M: Message + Default>(bytes: bytes::Bytes) {
    M::decode(bytes).expect("the gateway encodes what the method decodes");
}
