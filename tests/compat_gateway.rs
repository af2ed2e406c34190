//! The JSON gateway and the plain HTTP endpoints, asked with curl: status, content type and body must be those of etcd,
//! byte for byte, field order included.

mod support;

use std::time::Duration;
use support::daemon::Daemon;
use support::gateway::{self, MASKED, normal};
use support::mask::Mask;
use support::program::Program;
use support::wait_for;

/// etcd looks at the version of its storage every four seconds.
const SETTLES_WITHIN: Duration = Duration::from_secs(30);

/// Whether curl sends a body, and which.
type Step = (&'static str, Option<&'static str>);

/// One fresh member answers these in order.
const STEPS: &[Step] = &[
    ("/version", None),
    ("/health", None),
    ("/health?serializable=true", None),
    ("/health?exclude=NOSPACE", None),
    ("/livez", None),
    ("/livez?verbose", None),
    ("/readyz", None),
    ("/readyz?verbose", None),
    ("/readyz/linearizable_read", None),
    ("/readyz/no_such_check", None),
    ("/no/such/path", None),
    ("//version", None),
    ("/version//", None),
    ("/v3", None),
    ("/v3", Some("{}")),
    ("/v3//kv/range?a=1&b='", Some("{}")),
    ("/v3//kv/range?a=1&b='", None),
    ("/v3/kv/put", Some(r#"{"key":"YQ==","value":"MQ=="}"#)),
    ("/v3/kv/put", Some(r#"{"key":"YQ==","value":"Mg==","prev_kv":true}"#)),
    ("/v3/kv/put", Some(r#"{"key":"YQ==","value":"Mw==","prevKv":true}"#)),
    ("/v3/kv/put", Some(r#"{"key":"Yg==","value":"Mw==","no_such_field":1}"#)),
    ("/v3/kv/range", Some(r#"{"key":"YQ=="}"#)),
    ("/v3/kv/range", Some(r#"{"key":"YQ==","range_end":"Yw=="}"#)),
    ("/v3/kv/range", Some(r#"{"key":"YQ==","range_end":"Yw==","limit":"1"}"#)),
    ("/v3/kv/range", Some(r#"{"key":"YQ==","range_end":"Yw==","limit":1,"sort_order":"DESCEND","sort_target":"MOD"}"#)),
    ("/v3/kv/range", Some(r#"{"key":"YQ==","range_end":"Yw==","sort_order":2,"keys_only":true}"#)),
    ("/v3/kv/range", Some(r#"{"key":"YQ==","range_end":"Yw==","count_only":true}"#)),
    ("/v3/kv/range", Some(r#"{"key":"YQ==","revision":"2"}"#)),
    ("/v3/kv/range", Some(r#"{"key":"YQ==","revision":"99"}"#)),
    ("/v3/kv/range", Some("{}")),
    ("/v3/kv/range", Some("")),
    ("/v3/kv/range", None),
    ("/v3/kv/range", Some(r#"{"key":"YQ==""#)),
    ("/v3/kv/range", Some(r#"{"key":"!"}"#)),
    ("/v3/kv/range", Some(r#"{"key":"YQ==","sort_order":"SIDEWAYS"}"#)),
    ("/v3/kv/range", Some(r#"{"key":"YQ==","limit":"many"}"#)),
    ("/v3/kv/range", Some("[]")),
    ("/v3/kv/range", Some("null")),
    ("/v3/kv/range", Some(r#"{"key":"YQ=="} {"key":"#)),
    ("/v3/kv/range", Some(r#"{"key":"YQ=="}x"#)),
    ("/v3/kv/range", Some(r#"{"key":"YQ==","key":"YQ=="}"#)),
    ("/v3/kv/range", Some(r#"{"key":"YQ==","serializable":1}"#)),
    ("/v3/k%76/range", Some(r#"{"key":"YQ=="}"#)),
    ("/v3/kv%2Frange", Some(r#"{"key":"YQ=="}"#)),
    ("/%763/kv/range", Some(r#"{"key":"YQ=="}"#)),
    ("/v3%2Fkv/range", Some(r#"{"key":"YQ=="}"#)),
    ("/v3/kv/range%2F", Some(r#"{"key":"YQ=="}"#)),
    ("/v3/kv/%2Frange", Some(r#"{"key":"YQ=="}"#)),
    ("/v3/kv/range%3Fx", Some(r#"{"key":"YQ=="}"#)),
    ("/v3/kv/%2e%2e/kv/range", Some(r#"{"key":"YQ=="}"#)),
    ("/v3//k%76/range?x=%76", Some(r#"{"key":"YQ=="}"#)),
    ("/v3/kv/range%zz", Some(r#"{"key":"YQ=="}"#)),
    ("/v3/kv/range%", Some(r#"{"key":"YQ=="}"#)),
    ("/v3/kv/r%C3%A4nge", Some(r#"{"key":"YQ=="}"#)),
    ("/v3/kv/r%FFnge", Some(r#"{"key":"YQ=="}"#)),
    ("/v3%62eta/kv/range", Some(r#"{"key":"YQ=="}"#)),
    ("/v3beta/k%76/range", Some(r#"{"key":"YQ=="}"#)),
    ("/%76ersion", None),
    ("/health%2F", None),
    ("/heal%zth", None),
    ("/v3/no/such/call", Some("{}")),
    ("/v3/", Some("{}")),
    ("/v3/kv/range/", Some("{}")),
    ("/health", Some("")),
    ("/livez", Some("")),
    ("/version", Some("")),
    ("/v3beta/kv/range", Some(r#"{"key":"YQ=="}"#)),
    ("/v3alpha/kv/range", Some(r#"{"key":"YQ=="}"#)),
    (
        "/v3/kv/txn",
        Some(
            r#"{"compare":[{"key":"YQ==","result":"EQUAL","target":"VERSION","version":"3"}],
                "success":[{"requestPut":{"key":"dA==","value":"MQ=="}},{"request_range":{"key":"dA=="}}],
                "failure":[{"request_delete_range":{"key":"YQ=="}}]}"#,
        ),
    ),
    (
        "/v3/kv/txn",
        Some(
            r#"{"compare":[{"key":"YQ==","target":"VALUE","value":"OQ=="}],
                "failure":[{"request_delete_range":{"key":"Yg==","prev_kv":true}},{"request_txn":{}}]}"#,
        ),
    ),
    ("/v3/kv/txn", Some(r#"{"success":[{}]}"#)),
    ("/v3/kv/txn", Some(r#"{"compare":[{"key":"YQ==","target":"CREATE","version":"3"}]}"#)),
    ("/v3/kv/deleterange", Some(r#"{"key":"dA==","prev_kv":true}"#)),
    ("/v3/kv/deleterange", Some(r#"{"key":"dA=="}"#)),
    ("/v3/kv/compaction", Some(r#"{"revision":"3","physical":true}"#)),
    ("/v3/kv/compaction", Some(r#"{"revision":"3"}"#)),
    ("/v3/kv/range", Some(r#"{"key":"YQ==","revision":"2"}"#)),
    ("/v3/lease/grant", Some(r#"{"ID":"77","TTL":"600"}"#)),
    ("/v3/lease/grant", Some(r#"{"ID":"77","TTL":"600"}"#)),
    ("/v3/lease/grant", Some(r#"{"ID":"78","TTL":"9000000001"}"#)),
    ("/v3/kv/put", Some(r#"{"key":"bA==","value":"MQ==","lease":"77"}"#)),
    ("/v3/kv/put", Some(r#"{"key":"bA==","value":"MQ==","lease":"99"}"#)),
    ("/v3/kv/range", Some(r#"{"key":"bA=="}"#)),
    ("/v3/lease/timetolive", Some(r#"{"ID":"77","keys":true}"#)),
    ("/v3/kv/lease/timetolive", Some(r#"{"ID":"99"}"#)),
    ("/v3/lease/leases", Some("{}")),
    ("/v3/kv/lease/leases", Some("{}")),
    ("/v3/lease/keepalive", Some(r#"{"ID":"77"}"#)),
    ("/v3/lease/keepalive", Some(r#"{"ID":"99"}"#)),
    ("/v3/lease/keepalive", Some(r#"{"ID":"77"} {"ID":"99"}"#)),
    ("/v3/lease/keepalive", Some(r#"{"ID":"77"}{"ID":"x"}{"ID":"99"}"#)),
    ("/v3/lease/keepalive", Some(r#"{"ID":"77"}]"#)),
    ("/v3/lease/keepalive", Some(r#"{"ID":"77"}{"#)),
    ("/v3/lease/revoke", Some(r#"{"ID":"77"}"#)),
    ("/v3/kv/lease/revoke", Some(r#"{"ID":"77"}"#)),
    ("/v3/watch", Some(r#"{"create_request":{"key":"YQ==","start_revision":"2"}}"#)),
    ("/v3/watch", Some(r#"{"create_request":{"key":"YQ==","start_revision":"4","prev_kv":true}}"#)),
    ("/v3/watch", Some(r#"{"create_request":{"key":"eg==","range_end":"YQ=="}}"#)),
    ("/v3/watch", Some(r#"{"create_request":{"key":"YQ=="}} null {"create_request":{"key":"YQ=="}}"#)),
    ("/v3/watch", Some(r#"{"create_request":{"key":"YQ=="}},{"create_request":{"key":"YQ=="}}"#)),
    ("/v3/watch", Some(r#"{}{"create_request":{"key":"YQ=="}}{"create_request":{"key":5}}"#)),
    ("/v3/cluster/member/list", Some("{}")),
    ("/v3/maintenance/alarm", Some(r#"{"action":"GET"}"#)),
    ("/v3/maintenance/status", Some("{}")),
    ("/v3/maintenance/hashkv", Some("{}")),
    ("/v3/maintenance/transfer-leadership", Some(r#"{"targetID":"1"}"#)),
    ("/v3/maintenance/defragment", Some("{}")),
    ("/v3/auth/status", Some("{}")),
    ("/v3/auth/user/add", Some(r#"{"name":"root","password":"secret"}"#)),
    ("/v3/auth/user/add", Some(r#"{"name":"root","password":"secret"}"#)),
    ("/v3/auth/user/list", Some("{}")),
    ("/v3/auth/user/get", Some(r#"{"name":"nobody"}"#)),
    ("/v3/auth/role/add", Some(r#"{"name":"root"}"#)),
    ("/v3/auth/role/grant", Some(r#"{"name":"root","perm":{"permType":"READWRITE","key":"YQ==","range_end":"Yg=="}}"#)),
    ("/v3/auth/role/get", Some(r#"{"role":"root"}"#)),
    ("/v3/auth/role/list", Some("{}")),
    ("/v3/auth/user/grant", Some(r#"{"user":"root","role":"root"}"#)),
    ("/v3/auth/authenticate", Some(r#"{"name":"root","password":"secret"}"#)),
    ("/v3/cluster/member/remove", Some(r#"{"ID":"1"}"#)),
    ("/v3/cluster/member/add", Some(r#"{"peerURLs":["not a url"]}"#)),
    ("/v3/maintenance/downgrade", Some(r#"{"action":"VALIDATE","version":"3.4"}"#)),
    ("/v3/auth/enable", Some("{}")),
    ("/v3/auth/authenticate", Some(r#"{"name":"root","password":"secret"}"#)),
    ("/v3/kv/range", Some(r#"{"key":"YQ=="}"#)),
    ("/v3/auth/authenticate", Some(r#"{"name":"root","password":"wrong"}"#)),
    ("/v3/auth/status", Some("{}")),
];

#[test]
fn answers_equal_byte_for_byte() {
    let (ours, theirs) = (Daemon::start(&Program::subject(), &[]), Daemon::start(&Program::etcd(), &[]));
    // etcd raises the version of its storage seconds after it serves.
    let settled = || ask(&theirs, "/version", None).contains(r#""storage":"3.7.0""#).then_some(());
    wait_for(SETTLES_WITHIN, settled).expect("etcd settles on a storage version");
    let (our_mask, their_mask) = (Mask::of(&ours), Mask::of(&theirs));
    let mut differences = Vec::new();
    for step in STEPS {
        let got = normal(&our_mask.apply(&ask(&ours, step.0, step.1)));
        let expected = normal(&their_mask.apply(&ask(&theirs, step.0, step.1)));
        if got != expected {
            differences.push(format!("{} {}\n  ours {got}\n  etcd {expected}", step.0, step.1.unwrap_or_default()));
        }
    }
    let names: Vec<_> = MASKED.iter().map(|(name, _)| *name).collect();
    assert!(differences.is_empty(), "masked: {names:?}\n{} differ:\n{}", differences.len(), differences.join("\n"));
}

/// As deep as etcd's usual allowance of operations reaches, and no deeper.
#[test]
fn transactions_nest_as_deep_as_those_of_etcd() {
    let (ours, theirs) = (Daemon::start(&Program::subject(), &[]), Daemon::start(&Program::etcd(), &[]));
    let (our_mask, their_mask) = (Mask::of(&ours), Mask::of(&theirs));
    for levels in [1, 42, 60, 126, 127, 128, 300] {
        let innermost = r#"{"success":[{"request_put":{"key":"YQ=="}}]}"#;
        let body = format!("{}{innermost}{}", r#"{"success":[{"request_txn":"#.repeat(levels), "}]}".repeat(levels));
        let got = normal(&our_mask.apply(&ask(&ours, "/v3/kv/txn", Some(&body))));
        let expected = normal(&their_mask.apply(&ask(&theirs, "/v3/kv/txn", Some(&body))));
        assert_eq!(got, expected, "{levels}");
        println!("{levels}: {}", expected.rsplit('\n').next().unwrap_or_default());
    }
}

#[test]
fn spaces_are_taken_out_between_tokens_only() {
    let deep = format!(r#"{}"a\\", "b \" , c""#, r#"{"x":["#.repeat(200));
    assert_eq!(gateway::compact(&deep), deep.replace(r#"\\", "b"#, r#"\\","b"#));
    assert_eq!(gateway::without_spaces("{\"a\":1, \"b\":2}\nnot a, b"), "{\"a\":1,\"b\":2}\nnot a, b");
}

/// Status, content type and body of one answer.
fn ask(daemon: &Daemon, path: &str, body: Option<&str>) -> String {
    gateway::post(&[], &format!("{}{path}", daemon.endpoint()), body)
}
