//! The v2 API over sockets: status, headers, bodies, waiting, and everything that can be wrong with a request.

#![expect(clippy::indexing_slicing, reason = "what fails in a helper fails the test")]

mod support;

use std::{fmt::Write as _, io::Write as _, net::TcpStream, time::Duration};

use support::{
    daemon::Daemon,
    now,
    program::Program,
    random::Random,
    v2::{self, Answer, Waiting},
    wait_for,
};

fn member(arguments: &[&str]) -> Daemon {
    Daemon::start(&Program::subject(), arguments)
}

fn keys(path: &str) -> String {
    format!("/v2/keys{path}")
}

fn get(daemon: &Daemon, path: &str) -> Answer {
    v2::ask(daemon.client, "GET", &keys(path), "")
}

fn put(daemon: &Daemon, path: &str, form: &str) -> Answer {
    v2::ask(daemon.client, "PUT", &keys(path), form)
}

fn delete(daemon: &Daemon, path: &str) -> Answer {
    v2::ask(daemon.client, "DELETE", &keys(path), "")
}

fn refused(answer: &Answer, status: u16, code: u64, cause: &str) {
    assert_eq!(answer.refusal(), (status, code, cause.to_owned()), "{answer:?}");
    assert_eq!(answer.json()["index"].as_u64(), Some(answer.index()), "{answer:?}");
    assert!(answer.body.ends_with("}\n"));
}

#[test]
fn first_key_of_a_member_has_the_body_that_etcd_gives_it() {
    let daemon = member(&[]);
    let first = put(&daemon, "/foo", "value=bar");
    let expected = r#"{"action":"set","node":{"key":"/foo","value":"bar","modifiedIndex":4,"createdIndex":4}}"#;
    assert_eq!((first.status, first.body.as_str()), (201, format!("{expected}\n").as_str()));
    for header in ["x-etcd-index", "x-raft-index", "x-raft-term", "x-etcd-cluster-id"] {
        assert!(first.header(header).is_some_and(|value| !value.is_empty()), "{header}: {first:?}");
    }
    assert_eq!((first.index(), first.header("content-type")), (4, Some("application/json")));
    let second = put(&daemon, "/foo/", "value=baz");
    assert_eq!((second.status, second.json()["prevNode"]["value"].as_str()), (200, Some("bar")));
    let found = get(&daemon, "/foo?quorum=true");
    assert_eq!((found.status, found.json()["node"]["value"].as_str(), found.index()), (200, Some("baz"), 5));
    let head = v2::ask(daemon.client, "HEAD", &keys("/foo"), "");
    assert_eq!((head.status, head.body.as_str(), head.index()), (200, "", 5));
    assert_eq!(v2::ask(daemon.client, "HEAD", &keys("/gone"), "").status, 404);
}

#[test]
fn empty_tree_shows_a_root_without_a_name() {
    let daemon = member(&[]);
    for path in ["", "/"] {
        assert_eq!(get(&daemon, path).body, "{\"action\":\"get\",\"node\":{\"dir\":true}}\n");
    }
    for answer in [put(&daemon, "/", "value=x"), put(&daemon, "", "dir=true"), delete(&daemon, "/?recursive=true")] {
        refused(&answer, 400, 107, "/");
    }
    let created = v2::ask(daemon.client, "POST", &keys(""), "value=x");
    assert_eq!((created.status, created.json()["node"]["key"].as_str()), (201, Some("/00000000000000000004")));
}

#[test]
fn every_refusal_of_the_store_has_its_code() {
    let daemon = member(&[]);
    put(&daemon, "/file", "value=one");
    put(&daemon, "/dir/_hidden", "value=x");
    for (answer, status, code, cause) in [
        (get(&daemon, "/a/b/c"), 404, 100, "/a"),
        (get(&daemon, "/file/x"), 400, 104, "/file"),
        (put(&daemon, "/file/x", "value=1"), 400, 104, "/file"),
        (put(&daemon, "/dir", "value=1"), 403, 102, "/dir"),
        (put(&daemon, "/dir", "dir=true"), 403, 102, "/dir"),
        (put(&daemon, "/file?prevExist=false", "value=1"), 412, 105, "/file"),
        (put(&daemon, "/gone?prevExist=true", "value=1"), 404, 100, "/gone"),
        (put(&daemon, "/file?prevValue=two&prevIndex=99", "value=1"), 412, 101, "[two != one] [99 != 4]"),
        (put(&daemon, "/file", "value=1&prevIndex=9"), 412, 101, "[9 != 4]"),
        (put(&daemon, "/dir", "prevValue=x"), 403, 102, "/dir"),
        (delete(&daemon, "/file?prevValue=two"), 412, 101, "[two != one]"),
        (delete(&daemon, "/dir"), 403, 102, "/dir"),
        (delete(&daemon, "/dir?dir=true"), 403, 108, "/dir"),
        (delete(&daemon, "/gone"), 404, 100, "/gone"),
    ] {
        refused(&answer, status, code, cause);
        assert_eq!(answer.index(), 5);
        assert!(answer.header("x-raft-index").is_none(), "refusals tell nothing of raft");
        assert!(answer.header("x-etcd-cluster-id").is_some());
    }
}

#[test]
fn malformed_requests_are_refused_in_etcds_order() {
    let daemon = member(&[]);
    let quoted = |name: &str| format!("invalid value for \"{name}\"");
    for (form, code, cause) in [
        ("value=%zz", 210, "invalid URL escape \"%zz\"".to_owned()),
        ("prevIndex=abc&waitIndex=abc", 203, quoted("prevIndex")),
        ("waitIndex=-1&recursive=x", 203, quoted("waitIndex")),
        ("prevIndex=", 203, quoted("prevIndex")),
        ("recursive=&sorted=x", 209, quoted("recursive")),
        ("sorted=x&wait=x", 209, quoted("sorted")),
        ("wait=yes", 209, quoted("wait")),
        ("dir=2", 209, quoted("dir")),
        ("quorum=on", 209, quoted("quorum")),
        ("stream=on", 209, quoted("stream")),
        ("wait=true&prevValue=", 209, "\"wait\" can only be used with GET requests".to_owned()),
        ("prevValue=&noValueOnSuccess=x", 201, "\"prevValue\" cannot be empty".to_owned()),
        ("noValueOnSuccess=x&ttl=x", 209, quoted("noValueOnSuccess")),
        ("ttl=-1&prevExist=x", 202, quoted("ttl")),
        ("prevExist=2&refresh=x", 209, "invalid value for prevExist".to_owned()),
        ("refresh=x", 209, "invalid value for refresh".to_owned()),
        ("refresh=true&value=x", 211, "A value was provided on a refresh".to_owned()),
        ("refresh=true", 212, "No TTL value set".to_owned()),
    ] {
        refused(&put(&daemon, "/a", form), 400, code, &cause);
    }
    let head = v2::ask(daemon.client, "HEAD", &keys("/a?wait=true"), "");
    assert_eq!((head.status, head.index()), (400, 0));
    assert_eq!(get(&daemon, "/a").status, 404, "nothing of it was done");
    let long = format!("value={}", "x".repeat(10 << 20));
    refused(&put(&daemon, "/a", &long), 400, 210, "http: POST too large");
}

#[test]
fn forms_are_read_as_go_reads_them() {
    let daemon = member(&[]);
    put(&daemon, "/a?value=query", "value=body+%2B");
    assert_eq!(get(&daemon, "/a").json()["node"]["value"], "body +");
    let plain = v2::ask_with(daemon.client, "PUT", &keys("/a"), "Content-Type: text/plain\r\n", "value=x");
    assert_eq!(plain.json()["node"]["value"], "", "another type is no form");
    put(&daemon, "/d/x", "value=1");
    refused(&v2::ask(daemon.client, "DELETE", &keys("/d"), "recursive=true"), 403, 102, "/d");
    let awkward = put(&daemon, "/b", "value=%3Ca%3E%26%C3%A4%00%FF");
    assert!(awkward.body.contains("\"value\":\"\\u003ca\\u003e\\u0026ä\\u0000\\ufffd\""), "{awkward:?}");
    let inside = put(&daemon, "/x%2Fy%20z", "value=1");
    assert_eq!(inside.json()["node"]["key"], "/x/y z");
    let big = "x".repeat(3 << 20);
    assert_eq!(
        put(&daemon, "/big", &format!("value={big}")).status,
        201,
        "the limit of the third API is not this one's"
    );
    assert_eq!(get(&daemon, "/big").json()["node"]["value"].as_str(), Some(big.as_str()));
}

#[test]
fn nothing_is_where_nothing_can_be() {
    let daemon = member(&[]);
    put(&daemon, "/a/file", "value=1");
    let (deep, long) = ("/a".repeat(300), format!("/a/{}", "x".repeat(32_000)));
    for (place, cause) in [
        (&deep, "etcdserver: key is deeper than the 255 parts this store can hold"),
        (&long, "etcdserver: key is longer than the 31998 bytes this store can hold"),
    ] {
        refused(&put(&daemon, place, "value=1"), 400, 209, cause);
        refused(&v2::ask(daemon.client, "POST", &keys(place), "value=1"), 400, 209, cause);
    }
    for answer in [get(&daemon, &deep), delete(&daemon, &deep), delete(&daemon, &format!("{deep}?prevValue=x"))] {
        refused(&answer, 404, 100, "/a/a");
    }
    for answer in [get(&daemon, &long), delete(&daemon, &long)] {
        refused(&answer, 404, 100, &long);
    }
    refused(&delete(&daemon, &format!("/a/file{deep}")), 400, 104, "/a/file");
}

#[test]
fn answers_without_values_tell_what_was_done_alone() {
    let daemon = member(&[]);
    let brief = put(&daemon, "/a?noValueOnSuccess=true", "value=1");
    assert_eq!((brief.status, brief.body.as_str()), (201, "{\"action\":\"set\"}\n"));
    let refused_in_full = put(&daemon, "/a?noValueOnSuccess=true&prevExist=false", "value=1");
    refused(&refused_in_full, 412, 105, "/a");
    let deleted = delete(&daemon, "/a?noValueOnSuccess=true");
    assert!(deleted.body.contains("prevNode"), "{deleted:?}");
}

#[test]
fn listings_show_what_they_should() {
    let daemon = member(&[]);
    for key in ["/d/b", "/d/a10", "/d/a2", "/d/_h", "/d/s/x"] {
        put(&daemon, key, "value=1");
    }
    let listed = |path: &str| -> Vec<String> {
        let nodes = get(&daemon, path).json()["node"]["nodes"].as_array().unwrap().clone();
        nodes.iter().map(|node| node["key"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(listed("/d?sorted=true"), ["/d/a10", "/d/a2", "/d/b", "/d/s"]);
    let all = get(&daemon, "/?recursive=true&sorted=true").json();
    assert_eq!(all["node"]["nodes"][0]["nodes"][3]["nodes"][0]["key"], "/d/s/x");
    assert!(get(&daemon, "/d").json()["node"]["nodes"][3].get("nodes").is_none());
    assert_eq!(get(&daemon, "/d/_h").status, 200);
    let removed = delete(&daemon, "/d?recursive=true");
    assert_eq!((removed.status, removed.json()["node"]["modifiedIndex"].as_u64()), (200, Some(9)));
    // Several pieces of an answer that show nothing.
    let long = format!("value={}", "x".repeat(200_000));
    for key in ["/p/_1", "/p/_2", "/p/_3", "/p/a", "/p/z"] {
        put(&daemon, key, if key.contains('_') { &long } else { "value=1" });
    }
    assert_eq!(listed("/p?recursive=true"), ["/p/a", "/p/z"]);
    delete(&daemon, "/p/z");
    delete(&daemon, "/p/a");
    assert!(get(&daemon, "/p").json()["node"].get("nodes").is_none());
}

#[test]
fn other_methods_and_paths_are_refused() {
    let daemon = member(&[]);
    let patch = v2::ask(daemon.client, "PATCH", &keys("/a"), "value=1");
    assert_eq!((patch.status, patch.header("allow")), (405, Some("HEAD,GET,PUT,POST,DELETE")));
    assert_eq!((patch.body.as_str(), patch.header("x-etcd-cluster-id")), ("Method Not Allowed\n", None));
    let options = v2::ask(daemon.client, "OPTIONS", &keys("/a"), "");
    assert_eq!((options.status, options.body.as_str()), (200, ""));
    for path in ["/v2", "/v2/", "/v2/machines/", "/v2/stats/store/", "/v2/stats"] {
        let answer = v2::ask(daemon.client, "GET", path, "");
        assert_eq!((answer.status, answer.body.as_str()), (404, "404 page not found\n"), "{path}");
    }
    let unclean = v2::ask(daemon.client, "PUT", "/v2//keys/a%2F..%2Fb?x=1", "value=1");
    assert_eq!((unclean.status, unclean.header("location")), (301, Some("/v2/keys/b?x=1")));
    let without = member(&["--enable-v2=false"]);
    assert_eq!(get(&without, "/").status, 404);
}

#[test]
fn watchers_get_the_next_event_or_one_of_the_past() {
    let daemon = member(&[]);
    put(&daemon, "/a", "value=1");
    let mut next = Waiting::begin(daemon.client, &keys("/a?wait=true"));
    assert_eq!((next.head.status, next.head.index()), (200, 4));
    assert!(next.head.header("x-raft-term").is_some());
    let mut below = Waiting::begin(daemon.client, &keys("/?wait=true&recursive=true"));
    let mut exact = Waiting::begin(daemon.client, &keys("/?wait=true"));
    let mut future = Waiting::begin(daemon.client, &keys("/a?wait=true&waitIndex=6"));
    put(&daemon, "/a", "value=2");
    assert_eq!(next.next().unwrap()["node"]["modifiedIndex"], 5);
    assert_eq!(next.next(), None, "one event, then the end");
    assert_eq!(below.next().unwrap()["action"], "set");
    assert!(exact.is_silent(Duration::from_millis(300)), "a change of a child is none of the directory");
    put(&daemon, "/a", "value=3");
    assert_eq!(future.next().unwrap()["node"]["value"], "3");
    let mut past = Waiting::begin(daemon.client, &keys("/a?wait=true&waitIndex=1"));
    assert_eq!((past.next().unwrap()["node"]["modifiedIndex"].as_u64(), past.next()), (Some(4), None));
    let at_once = get(&daemon, "/a?wait=true&quorum=true");
    assert_eq!(at_once.json()["action"], "get");
}

#[test]
fn streams_tell_the_past_and_go_on() {
    let daemon = member(&[]);
    put(&daemon, "/d/a", "value=1");
    put(&daemon, "/d/b", "value=1");
    let mut stream = Waiting::begin(daemon.client, &keys("/d?wait=true&recursive=true&stream=true&waitIndex=4"));
    let indexes: Vec<_> = (0..2).map(|_| stream.next().unwrap()["node"]["modifiedIndex"].clone()).collect();
    assert_eq!(indexes, [4, 5]);
    put(&daemon, "/d/_hidden", "value=1");
    put(&daemon, "/d/c", "value=1");
    assert_eq!(stream.next().unwrap()["node"]["key"], "/d/c");
    delete(&daemon, "/d?recursive=true");
    for _ in 0..2 {
        assert_eq!(stream.next().unwrap()["action"], "delete", "twice, as by etcd");
    }
    assert!(stream.is_silent(Duration::from_millis(300)));
}

#[test]
fn history_has_an_end() {
    let daemon = member(&[]);
    put(&daemon, "/a", "value=1");
    for _ in 0..1_000 {
        put(&daemon, "/b", "value=1");
    }
    refused(&get(&daemon, "/a?wait=true&waitIndex=4"), 400, 401, "the requested history has been cleared [5/4]");
    let mut oldest = Waiting::begin(daemon.client, &keys("/b?wait=true&waitIndex=5"));
    assert_eq!(oldest.next().unwrap()["node"]["modifiedIndex"], 5);
}

/// Values of this API once cost nothing, and the past kept a thousand of them: both could fill the disk behind the back of
/// the quota.
#[test]
fn writes_without_space_are_refused_until_there_is_some() {
    const QUOTA_MIB: usize = 192;
    let daemon = member(&[&format!("--quota-backend-bytes={}", QUOTA_MIB << 20), "--nospace-disarm=manual"]);
    let json =
        |path: &str, body: &str| v2::ask_with(daemon.client, "POST", path, "Content-Type: application/json\r\n", body);
    let no_space = "etcdserver: mvcc: database space exceeded";
    assert_eq!(put(&daemon, "/kept", "value=1&ttl=1000").status, 201);
    // As many as would fit if events were no rows.
    let form = random_form(8 << 20);
    let full = (0..QUOTA_MIB / 8).find_map(|number| {
        let answer = put(&daemon, &format!("/d/{number}"), &form);
        (answer.status != 201).then_some(answer)
    });
    refused(&full.expect("the quota is asked"), 500, 300, no_space);
    refused(&v2::ask(daemon.client, "POST", &keys("/d"), "value=1"), 500, 300, no_space);
    refused(&put(&daemon, "/d/0?prevIndex=4", "value=1"), 500, 300, no_space);
    refused(&get(&daemon, "/d/0?wait=true&waitIndex=4"), 400, 401, &cleared(&daemon));
    let kept = ["", "?prevExist=true"].map(|how| put(&daemon, &format!("/kept{how}"), "refresh=true&ttl=5000"));
    for node in kept.map(|answer| answer.json()["node"].clone()) {
        let stays = node["ttl"].as_u64().is_some_and(|ttl| ttl > 1_000);
        assert_eq!((node["value"].as_str(), stays), (Some("1"), true), "{node}");
    }
    refused(&put(&daemon, "/new?prevExist=false", "refresh=true&ttl=100"), 500, 300, no_space);
    refused(&put(&daemon, "/lost", "refresh=true&ttl=100"), 404, 100, "/lost");
    users_can_be_changed(&daemon);
    let third = json("/v3/kv/put", r#"{"key":"YQ==","value":"YQ=="}"#);
    assert!(third.body.contains(no_space), "{third:?}");
    assert_eq!((get(&daemon, "/d/0").status, delete(&daemon, "/d?recursive=true").status), (200, 200));
    assert_eq!(json("/v3/maintenance/defragment", "{}").status, 200);
    let size =
        || json("/v3/maintenance/status", "{}").json()["dbSize"].as_str().and_then(|size| size.parse::<usize>().ok());
    let small = wait_for(v2::PATIENCE, || size().filter(|size| *size < (QUOTA_MIB << 20) / 2));
    assert!(small.is_some(), "{:?} bytes of deleted nodes are kept", size());
    let alarms = json("/v3/maintenance/alarm", "{}").json();
    let member = &alarms["alarms"][0]["memberID"];
    assert_eq!(alarms["alarms"], serde_json::json!([{ "memberID": member, "alarm": "NOSPACE" }]));
    let disarm = serde_json::json!({ "action": "DEACTIVATE", "memberID": member, "alarm": "NOSPACE" });
    assert_eq!(json("/v3/maintenance/alarm", &disarm.to_string()).json()["alarms"], alarms["alarms"]);
    let written = put(&daemon, "/d/0", "value=1");
    assert_eq!(written.status, 201, "{written:?}");
}

/// Who has become a danger must be shut out even where nothing else can be written.
fn users_can_be_changed(daemon: &Daemon) {
    let ask = |method: &str, path: &str, body: &str| {
        let root = "Authorization: Basic cm9vdDp4\r\n";
        v2::ask_with(daemon.client, method, &format!("/v2/auth/{path}"), root, body).status
    };
    assert_eq!(ask("PUT", "users/root", r#"{"user":"root","password":"x"}"#), 201);
    assert_eq!(ask("PUT", "roles/r", r#"{"role":"r"}"#), 201);
    // Who is made with roles is told as who was there, by etcd as well.
    assert_eq!(ask("PUT", "users/u", r#"{"user":"u","password":"x","roles":["r"]}"#), 200);
    assert_eq!(ask("PUT", "enable", ""), 200);
    assert_eq!(ask("PUT", "users/u", r#"{"user":"u","revoke":["r"]}"#), 200);
    assert_eq!(ask("DELETE", "enable", ""), 200);
}

/// What is said of the first index if the past does not reach back to it any more.
fn cleared(daemon: &Daemon) -> String {
    let index = get(daemon, "/").index();
    let answer = get(daemon, "/d/0?wait=true&waitIndex=4");
    let (_, _, cause) = answer.refusal();
    let oldest = (5..=index).find(|oldest| cause == format!("the requested history has been cleared [{oldest}/4]"));
    assert!(oldest.is_some(), "{answer:?}");
    cause
}

/// A form with a value of so many digits, which no compression shortens much.
fn random_form(bytes: usize) -> String {
    Random::new(bytes as u64).bytes(bytes / 2).iter().fold("value=".to_owned(), |mut form, byte| {
        write!(form, "{byte:02x}").expect("a string takes everything");
        form
    })
}

#[test]
fn nodes_expire_and_watchers_hear_of_it() {
    let daemon = member(&[]);
    let made = put(&daemon, "/a", "value=1&ttl=1").json();
    assert_eq!(made["node"]["ttl"], 1);
    assert!(made["node"]["expiration"].as_str().is_some_and(|time| time.ends_with('Z')));
    put(&daemon, "/d/x", "value=1");
    put(&daemon, "/d", "prevExist=true&ttl=1");
    put(&daemon, "/kept", "value=1&ttl=1");
    let refreshed = put(&daemon, "/kept", "refresh=true&ttl=100&prevExist=true");
    assert_eq!((refreshed.status, refreshed.json()["node"]["value"].as_str()), (200, Some("1")));
    let mut inside = Waiting::begin(daemon.client, &keys("/d/x?wait=true"));
    let event = inside.next().unwrap();
    assert_eq!((event["action"].as_str(), event["node"]["key"].as_str()), (Some("expire"), Some("/d")));
    wait_for(v2::PATIENCE, || (get(&daemon, "/a").status == 404).then_some(())).expect("it expires");
    let kept = get(&daemon, "/kept").json();
    assert!(kept["node"]["ttl"].as_u64().is_some_and(|ttl| ttl > 90), "{kept}");
    put(&daemon, "/kept", "value=2");
    assert!(get(&daemon, "/kept").json()["node"].get("ttl").is_none(), "a set without a time makes it stay");
    let stats = v2::ask(daemon.client, "GET", "/v2/stats/store", "").json();
    assert_eq!(stats["expireCount"], 2);
}

#[test]
fn restart_keeps_the_tree_its_index_and_the_past() {
    let mut daemon = member(&[]);
    put(&daemon, "/a", "value=1");
    put(&daemon, "/t", "value=1&ttl=2");
    delete(&daemon, "/a");
    let mut waiting = Waiting::begin(daemon.client, &keys("/b?wait=true"));
    daemon.terminate();
    assert_eq!(waiting.next(), None, "an empty answer, which clients take for: try again");
    daemon.restart();
    let index = get(&daemon, "/").index();
    assert!(index >= 6, "{index}");
    let mut past = Waiting::begin(daemon.client, &keys("/a?wait=true&waitIndex=5"));
    assert_eq!(past.next().unwrap()["prevNode"]["value"], "1");
    assert_eq!(put(&daemon, "/b", "value=1").index(), get(&daemon, "/").index());
    wait_for(v2::PATIENCE, || (get(&daemon, "/t").status == 404).then_some(())).expect("it still expires");
    daemon.kill();
    daemon.restart();
    assert_eq!(get(&daemon, "/b").json()["node"]["value"], "1");
}

#[test]
fn slow_readers_and_those_who_leave_cost_nothing_for_long() {
    let daemon = member(&[]);
    let watchers = || v2::ask(daemon.client, "GET", "/v2/stats/store", "").json()["watchers"].as_u64().unwrap();
    let waiting: Vec<_> = (0..200).map(|_| Waiting::begin(daemon.client, &keys("/a?wait=true"))).collect();
    assert_eq!(watchers(), 200);
    drop(waiting);
    wait_for(v2::PATIENCE, || (watchers() == 0).then_some(())).expect("those who have left are forgotten");
    // Nobody reads here: what the connection does not take fills the queue, and then the watch ends.
    let stream = Waiting::begin(daemon.client, &keys("/a?wait=true&stream=true"));
    let value = format!("value={}", "x".repeat(100_000));
    let begun = now();
    while watchers() > 0 {
        assert!(begun.elapsed() < v2::PATIENCE * 3, "a stream that nobody reads ends");
        (0..50).for_each(|_| drop(put(&daemon, "/a", &value)));
    }
    drop(stream);
}

/// A second request behind the one that waits once hid the end of the connection.
#[test]
fn who_leaves_behind_a_second_request_is_forgotten_too() {
    let daemon = member(&[]);
    let watchers = || v2::ask(daemon.client, "GET", "/v2/stats/store", "").json()["watchers"].as_u64().unwrap();
    let two = b"GET /v2/keys/never?wait=true HTTP/1.1\r\nHost: x\r\n\r\nGET /version HTTP/1.1\r\nHost: x\r\n\r\n";
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let mut client = TcpStream::connect(daemon.client).unwrap();
            client.write_all(two).unwrap();
            client
        })
        .collect();
    wait_for(v2::PATIENCE, || (watchers() == 20).then_some(())).expect("they wait");
    drop(clients);
    wait_for(v2::PATIENCE, || (watchers() == 0).then_some(())).expect("those who have left are forgotten");
}

#[test]
fn members_and_machines_are_told() {
    let daemon = member(&[]);
    let members = v2::ask(daemon.client, "GET", "/v2/members", "");
    let list = members.json()["members"].as_array().unwrap().clone();
    assert_eq!(list.len(), 1);
    let id = list[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(
        (list[0]["name"].as_str(), list[0]["clientURLs"][0].as_str()),
        (Some("m1"), Some(daemon.endpoint().as_str()))
    );
    assert!(members.body.ends_with("}\n") && members.header("x-etcd-cluster-id").is_some());
    assert_eq!(v2::ask(daemon.client, "GET", "/v2/members/leader", "").json()["id"], id.as_str());
    let other = v2::ask(daemon.client, "GET", &format!("/v2/members/{id}"), "");
    assert_eq!((other.status, other.body.as_str()), (404, r#"{"message":"Not found"}"#));
    let machines = v2::ask(daemon.client, "GET", "/v2/machines", "");
    assert_eq!((machines.status, machines.body.as_str()), (200, daemon.endpoint().as_str()));
    assert_eq!(v2::ask(daemon.client, "PUT", "/v2/machines", "").header("allow"), Some("GET,HEAD"));
}

#[test]
fn members_are_added_moved_and_removed() {
    let daemon = member(&["--strict-reconfig-check=false"]);
    let json = "Content-Type: application/json\r\n";
    let ask = |method: &str, path: &str, headers: &str, body: &str| {
        v2::ask_with(daemon.client, method, &format!("/v2/members{path}"), headers, body)
    };
    let message = |answer: &Answer| (answer.status, answer.json()["message"].as_str().unwrap_or("").to_owned());
    for (body, headers, status, text) in [
        (r#"{"peerURLs":["http://a:1"]}"#, "", 415, "Bad Content-Type , accept application/json"),
        (
            r#"{"peerURLs":["http://a:1"]}"#,
            "Content-Type: Text/Plain; a=b\r\n",
            415,
            "Bad Content-Type text/plain, accept application/json",
        ),
        (r#"{"peerURLs":[]}"#, json, 400, "no valid URLs given"),
        (r#"{"peerURLs":["http://a"]}"#, json, 400, "URL address does not have the form \"host:port\": http://a"),
        (r#"{"peerURLs":["http://a:b"]}"#, json, 400, "parse \"http://a:b\": invalid port \":b\" after host"),
        (r#"{"peerURLs":["http://a b:1"]}"#, json, 400, "parse \"http://a b:1\": invalid character \" \" in host name"),
        (r#"{"peerURLs":["http://%zz:1"]}"#, json, 400, "parse \"http://%zz:1\": invalid URL escape \"%zz\""),
        (r#"{"peerURLs":["unix://a"]}"#, json, 400, "URL address does not have the form \"host:port\": unix://a"),
        (r#"{"peerURLs":["http://a:1?b c"]}"#, json, 400, "etcdserver: given member URLs are invalid"),
        ("{", json, 400, "unexpected end of JSON input"),
    ] {
        assert_eq!(message(&ask("POST", "", headers, body)), (status, text.to_owned()), "{body}");
    }
    for id in ["/zz", "/123"] {
        let text = format!("No such member: {}", &id[1..]);
        assert_eq!(message(&ask("DELETE", id, "", "")), (404, text));
    }
    assert_eq!(ask("DELETE", "", "", "").status, 405);
    let own = format!(r#"{{"peerURLs":["http://{}"]}}"#, daemon.peer);
    assert_eq!(message(&ask("POST", "", json, &own)), (409, "membership: peerURL exists".to_owned()));
    let added = ask("POST", "/", json, r#"{"peerURLs":["http://127.0.0.1:1"]}"#);
    assert_eq!(added.status, 201, "{added:?}");
    let added = added.json();
    assert_eq!((added["name"].as_str(), added["clientURLs"].as_array().map(Vec::len)), (Some(""), Some(0)));
}

/// Users and roles were once read, changed and written back without a condition: of two changes at a time one was lost.
#[test]
fn administrators_at_the_same_time_lose_no_change() {
    const CHANGES: usize = 8;
    let daemon = member(&[]);
    let ask = |path: &str, body: &str| v2::ask(daemon.client, "PUT", &format!("/v2/auth/{path}"), body);
    let created = [ask("roles/r", r#"{"role":"r"}"#).status, ask("users/u", r#"{"user":"u","password":"x"}"#).status];
    assert_eq!(created, [201, 201]);
    let change = |number: usize| {
        let role = format!(r#"{{"role":"r","grant":{{"kv":{{"read":["/{number}"]}}}}}}"#);
        let user = format!(r#"{{"user":"u","grant":["r{number}"]}}"#);
        [ask("roles/r", &role), ask("users/u", &user)].map(|answer| answer.status)
    };
    let statuses: Vec<_> = std::thread::scope(|scope| {
        let changes: Vec<_> = (0..CHANGES).map(|number| scope.spawn(move || change(number))).collect();
        changes.into_iter().map(|change| change.join().expect("an answer")).collect()
    });
    assert_eq!(statuses, [[200, 200]; CHANGES]);
    let role = v2::ask(daemon.client, "GET", "/v2/auth/roles/r", "").json();
    let paths: Vec<_> = (0..CHANGES).map(|number| format!("/{number}")).collect();
    assert_eq!(role["permissions"]["kv"]["read"], serde_json::json!(paths));
    let last = ask("users/u", r#"{"user":"u","grant":["z"]}"#).json();
    let roles: Vec<_> = (0..CHANGES).map(|number| format!("r{number}")).chain(["z".to_owned()]).collect();
    assert_eq!(last["roles"], serde_json::json!(roles));
}

#[test]
fn statistics_have_all_their_fields() {
    let daemon = member(&[]);
    put(&daemon, "/a", "value=1");
    get(&daemon, "/a");
    get(&daemon, "/gone");
    delete(&daemon, "/gone");
    let stats = |name: &str| v2::ask(daemon.client, "GET", &format!("/v2/stats/{name}"), "");
    let store = stats("store").json();
    let number = |name: &str| store[name].as_u64().unwrap_or_else(|| panic!("{name}: {store}"));
    assert_eq!((number("setsSuccess"), number("getsSuccess"), number("getsFail"), number("deleteFail")), (1, 1, 1, 1));
    let own = stats("self").json();
    assert_eq!((own["name"].as_str(), own["state"].as_str()), (Some("m1"), Some("StateLeader")));
    assert_eq!(own["leaderInfo"]["leader"], own["id"]);
    let leader = stats("leader");
    assert!(leader.json()["followers"].as_object().unwrap().is_empty());
    assert!(leader.header("x-etcd-cluster-id").is_none());
    assert_eq!(v2::ask(daemon.client, "POST", "/v2/stats/self", "").header("allow"), Some("GET"));
}

/// Who has no password of the third API's root could else fill the disk that both share, or make himself root here.
#[test]
fn while_users_of_the_third_api_are_asked_for_nobody_else_is_let_in() {
    let daemon = member(&[]);
    assert_eq!(put(&daemon, "/a", "value=1").status, 201);
    let tool = Program::quoratectl();
    let run = |words: &[&str]| {
        let output = tool.command().arg(format!("--endpoints={}", daemon.client)).args(words).output();
        assert!(output.is_ok_and(|output| output.status.success()), "{words:?}");
    };
    for words in ["user add root:secret", "user grant-role root root", "user add guest:secret", "auth enable"] {
        if words.contains("grant-role") {
            run(&["role", "add", "root"]);
        }
        run(&words.split(' ').collect::<Vec<_>>());
    }
    let as_user = |user: &str, method: &str, path: &str| {
        let mut command = std::process::Command::new("curl");
        command.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", method, "-d", "value=2"]);
        if !user.is_empty() {
            command.args(["-u", user]);
        }
        let output = command.arg(format!("{}{path}", daemon.endpoint())).output().expect("apt-get install curl");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let paths = [("PUT", keys("/a")), ("GET", keys("/a")), ("PUT", "/v2/auth/enable".to_owned())];
    for user in ["", "guest:secret", "root:wrong", "nobody:secret"] {
        for (method, path) in &paths {
            assert_eq!(as_user(user, method, path), "401", "{user} {method} {path}");
        }
    }
    assert_eq!(as_user("root:secret", "PUT", &keys("/a")), "200");
    assert_eq!(as_user("root:secret", "GET", &keys("/a")), "200");
}
