//! The JSON gateway and the plain endpoints on the client port, spoken by hand over sockets. The same file runs against the
//! real etcd with `SUBJECT_BIN`.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "what fails in a helper fails the test")]

mod support;

use std::{
    io::{BufRead as _, BufReader, Read, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::{Value, json};
use support::{daemon::Daemon, program::Program};

const PATIENCE: Duration = Duration::from_secs(10);

fn member(arguments: &[&str]) -> Daemon {
    Daemon::start(&Program::subject(), arguments)
}

/// An answer with everything a browser or script could look at.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Sends one request with these further header lines and reads the answer to its end.
fn ask(address: SocketAddr, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
    let mut stream = connect(address);
    let headers = headers.iter().flat_map(|line| [line, "\r\n"]).collect::<String>();
    let host = if headers.contains("Host:") { String::new() } else { format!("Host: {address}\r\n") };
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\n{host}Connection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    parse(&text)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn parse(text: &str) -> Answer {
    let (head, body) = text.split_once("\r\n\r\n").expect("an HTTP answer");
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap().parse().unwrap();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
    Answer { status, headers, body: if chunked { unchunk(body) } else { body.to_owned() } }
}

fn unchunk(mut text: &str) -> String {
    let mut body = String::new();
    while let Some((size, rest)) = text.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        body.push_str(&rest[..size]);
        text = rest[size..].trim_start_matches("\r\n");
    }
    body
}

fn get(daemon: &Daemon, path: &str) -> Answer {
    ask(daemon.client, "GET", path, &[], "")
}

fn post(daemon: &Daemon, path: &str, body: &str) -> Answer {
    ask(daemon.client, "POST", path, &[], body)
}

/// The answer's JSON without its header, which differs from member to member.
fn post_ok(daemon: &Daemon, path: &str, body: &str) -> Value {
    let answer = post(daemon, path, body);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let mut json = answer.json();
    json.as_object_mut().unwrap().remove("header");
    json
}

fn refused(daemon: &Daemon, path: &str, body: &str) -> (u16, i64, String) {
    let answer = post(daemon, path, body);
    let json = answer.json();
    (answer.status, json["code"].as_i64().unwrap(), json["message"].as_str().unwrap().to_owned())
}

#[test]
fn json_is_the_canonical_mapping() {
    let daemon = member(&[]);
    let put = post(&daemon, "/v3/kv/put", r#"{"key":"Zm9v","value":"YmFy"}"#).json();
    let header = put["header"].as_object().unwrap();
    assert_eq!(header.keys().collect::<Vec<_>>(), ["cluster_id", "member_id", "revision", "raft_term"]);
    assert_eq!(header["revision"], "2");
    assert!(header.values().all(|value| value.as_str().is_some_and(|text| text.parse::<u64>().is_ok())));
    let kv = json!({"key": "Zm9v", "create_revision": "2", "mod_revision": "2", "version": "1", "value": "YmFy"});
    let found = json!({"kvs": [kv], "count": "1"});
    assert_eq!(post_ok(&daemon, "/v3/kv/range", r#"{"key":"Zm9v"}"#), found);
    assert_eq!(post_ok(&daemon, "/v3beta/kv/range", r#"{"key":"Zm9v"}"#), found);
    let spelled =
        r#"{"key":"Zm8","rangeEnd":"Zm_-","limit":1e1,"unknown":{"a":[1]},"sort_order":"ASCEND","revision":"2"}"#;
    assert_eq!(post_ok(&daemon, "/v3/kv/range", spelled), found);
    assert_eq!(post_ok(&daemon, "/v3/kv/range", r#"{"key":"eA==","limit":null}"#), json!({}));
    let txn = r#"{"compare":[{"target":"CREATE","key":"Zm9v","createRevision":"2"}],
                  "success":[{"requestRange":{"key":"Zm9v","keys_only":true}},{"request_put":{"key":"YQ=="}}]}"#;
    let answer = post_ok(&daemon, "/v3/kv/txn", txn);
    assert_eq!(answer["succeeded"], true);
    assert_eq!(answer["responses"][0]["response_range"]["count"], "1");
    assert_eq!(answer["responses"][1]["response_put"]["header"], json!({"revision": "3"}));
    let status = post_ok(&daemon, "/v3/maintenance/status", "");
    assert!(status["dbSize"].is_string() && status["raftAppliedIndex"].is_string(), "{status}");
    let hash = post_ok(&daemon, "/v3/maintenance/hashkv", "{}");
    assert!(hash["hash"].is_number() && hash["compact_revision"] == "-1", "{hash}");
    let list = post_ok(&daemon, "/v3/cluster/member/list", "{}");
    assert!(list["members"][0]["peerURLs"].is_array() && list["members"][0]["ID"].is_string(), "{list}");
    assert_eq!(post(&daemon, "/v3/maintenance/defragment", "{}").body, "{}");
    let lease = post_ok(&daemon, "/v3/lease/grant", r#"{"TTL":60,"ID":"7"}"#);
    assert_eq!(lease, json!({"ID": "7", "TTL": "60"}));
    let alive = post_ok(&daemon, "/v3/kv/lease/timetolive", r#"{"ID":7,"keys":true}"#);
    assert_eq!(alive["grantedTTL"], "60");
    assert_eq!(post_ok(&daemon, "/v3/lease/leases", ""), json!({"leases": [{"ID": "7"}]}));
    assert_eq!(post_ok(&daemon, "/v3/kv/lease/revoke", r#"{"ID":7}"#), json!({}));
    let compact = r#"{"revision":"3"}"#;
    assert_eq!(post_ok(&daemon, "/v3/kv/compaction", compact), json!({}));
}

#[test]
fn refusals_carry_code_message_and_http_status() {
    let daemon = member(&[]);
    let no_key = (400, 3, "etcdserver: key is not provided".to_owned());
    assert_eq!(refused(&daemon, "/v3/kv/range", "{}"), no_key);
    assert_eq!(refused(&daemon, "/v3/kv/range", ""), no_key);
    let no_lease = (404, 5, "etcdserver: requested lease not found".to_owned());
    assert_eq!(refused(&daemon, "/v3/lease/revoke", r#"{"ID":5}"#), no_lease);
    let future = (400, 11, "etcdserver: mvcc: required revision is a future revision".to_owned());
    assert_eq!(refused(&daemon, "/v3/kv/range", r#"{"key":"YQ==","revision":99}"#), future);
    let wrapped = r#"{"success":[{"RequestPut":{"key":"YQ=="}}]}"#;
    assert_eq!(refused(&daemon, "/v3/kv/txn", wrapped), (400, 3, "etcdserver: key not found".to_owned()));
    let sort = (400, 3, "etcdserver: invalid sort option".to_owned());
    assert_eq!(refused(&daemon, "/v3/kv/range", r#"{"key":"YQ==","sort_order":9}"#), sort);
    assert_eq!(refused(&daemon, "/v3/nope", "{}"), (404, 5, "Not Found".to_owned()));
    for malformed in ["{", "[]", "nonsense", r#"{"key":5}"#, r#"{"key":"?"}"#, r#"{"key":"YQ==","key":"YQ=="}"#] {
        let (status, code, _) = refused(&daemon, "/v3/kv/range", malformed);
        assert_eq!((status, code), (400, 3), "{malformed}");
    }
    let wrong_verb = get(&daemon, "/v3/kv/range");
    assert_eq!(wrong_verb.status, 501);
    assert_eq!(wrong_verb.json(), json!({"code": 12, "message": "Method Not Allowed"}));
    let timeout = ask(daemon.client, "POST", "/v3/kv/range", &["Grpc-Timeout: soon"], "{}");
    assert_eq!((timeout.status, &timeout.json()["message"]), (400, &json!("invalid grpc-timeout: soon")));
    let large = format!(r#"{{"key":"YQ==","value":"{}"}}"#, "A".repeat(2_200_000));
    assert_eq!(refused(&daemon, "/v3/kv/put", &large), (400, 3, "etcdserver: request is too large".to_owned()));
}

#[test]
fn answers_say_who_may_read_them() {
    let daemon = member(&[]);
    let answer = post(&daemon, "/v3/kv/range", r#"{"key":"YQ=="}"#);
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(answer.header("access-control-allow-methods"), Some("POST, GET, OPTIONS, PUT, DELETE"));
    assert_eq!(answer.header("access-control-allow-headers"), Some("accept, content-type, authorization"));
    assert_eq!(answer.header("grpc-metadata-content-type"), Some("application/grpc"));
    for path in ["/v3/kv/range", "/health", "/nowhere"] {
        let options = ask(daemon.client, "OPTIONS", path, &[], "");
        assert_eq!((options.status, &options.body[..]), (200, ""));
        assert!(options.header("access-control-allow-origin").is_some());
    }
}

#[test]
fn origins_and_hosts_can_be_limited() {
    let daemon = member(&["--cors=http://good:80", "--host-whitelist=127.0.0.1,good.example"]);
    let good = ask(daemon.client, "GET", "/version", &["Origin: http://good:80"], "");
    assert_eq!(good.header("access-control-allow-origin"), Some("http://good:80"));
    let bad = ask(daemon.client, "GET", "/version", &["Origin: http://bad"], "");
    assert_eq!((bad.status, bad.header("access-control-allow-origin")), (200, None));
    for (host, status) in [("good.example", 200), ("good.example:2379", 200), ("evil.example", 421), ("evil:2379", 421)]
    {
        let answer = ask(daemon.client, "GET", "/version", &[&format!("Host: {host}")], "");
        assert_eq!(answer.status, status, "{host}");
    }
}

/// An empty part of a path was answered with 404, and a request with more than 100 lines in its head with 431: a client
/// behind many proxies was not served.
#[test]
fn odd_paths_are_cleaned_and_many_headers_taken() {
    let daemon = member(&[]);
    let sent = get(&daemon, "//version?x=1");
    assert_eq!((sent.status, sent.header("location")), (307, Some("/version?x=1")));
    assert_eq!(sent.body, "<a href=\"/version?x=1\">Temporary Redirect</a>.\n\n");
    assert_eq!(sent.header("content-type"), Some("text/html; charset=utf-8"));
    let posted = post(&daemon, "/v3/./kv//put", "{}");
    assert_eq!((posted.status, posted.header("location"), &posted.body[..]), (307, Some("/v3/kv/put"), ""));
    let many: Vec<String> = (0..300).map(|number| format!("X-Hop-{number}: 1")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(ask(daemon.client, "GET", "/version", &many, "").status, 200);
}

#[test]
fn the_gateway_can_be_off() {
    let daemon = member(&["--enable-grpc-gateway=false"]);
    let answer = post(&daemon, "/v3/kv/range", r#"{"key":"YQ=="}"#);
    assert_eq!((answer.status, &answer.body[..]), (404, "404 page not found\n"));
    assert_eq!(get(&daemon, "/health").status, 200);
}

/// A call whose answer is still coming.
struct Lines {
    reader: BufReader<TcpStream>,
}

impl Lines {
    fn open(daemon: &Daemon, path: &str, body: &str) -> Self {
        let mut stream = connect(daemon.client);
        let (address, length) = (daemon.client, body.len());
        write!(stream, "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line).unwrap();
        }
        Self { reader }
    }

    /// The next line of the body, which arrives as a chunk of its own.
    fn next(&mut self) -> String {
        let mut size = String::new();
        self.reader.read_line(&mut size).unwrap();
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        let mut chunk = vec![0; size + 2];
        self.reader.read_exact(&mut chunk).unwrap();
        chunk.truncate(size);
        String::from_utf8(chunk).unwrap()
    }

    /// The next message; lines may come together with their end or before it.
    fn message(&mut self) -> Value {
        let mut line = String::new();
        while !line.ends_with('\n') {
            line.push_str(&self.next());
        }
        serde_json::from_str(&line).unwrap()
    }
}

#[test]
fn a_watch_is_lines_of_results() {
    let daemon = member(&[]);
    let mut lines =
        Lines::open(&daemon, "/v3/watch", r#"{"create_request":{"key":"Zm9v"}} {"create_request":{"key":"YQ=="}}"#);
    let first = lines.message();
    assert_eq!((&first["result"]["created"], first["result"].get("watch_id")), (&json!(true), None));
    assert_eq!(lines.message()["result"]["watch_id"], "1");
    post_ok(&daemon, "/v3/kv/put", r#"{"key":"Zm9v","value":"YmFy"}"#);
    let event = &lines.message()["result"]["events"][0];
    assert_eq!((event.get("type"), &event["kv"]["value"]), (None, &json!("YmFy")));
    post_ok(&daemon, "/v3/kv/deleterange", r#"{"key":"Zm9v"}"#);
    let event = lines.message()["result"]["events"][0].clone();
    assert_eq!(event, json!({"type": "DELETE", "kv": {"key": "Zm9v", "mod_revision": "3"}}));
}

#[test]
fn keepalives_answer_and_end() {
    let daemon = member(&[]);
    post_ok(&daemon, "/v3/lease/grant", r#"{"TTL":60,"ID":"7"}"#);
    let answer = post(&daemon, "/v3/lease/keepalive", r#"{"ID":"7"}"#);
    assert_eq!(answer.status, 200);
    assert!(answer.body.ends_with('\n'));
    let json = answer.json();
    assert_eq!((&json["result"]["ID"], &json["result"]["TTL"]), (&json!("7"), &json!("60")));
}

#[test]
fn versions_and_variables_are_json() {
    let daemon = member(&[]);
    let version = get(&daemon, "/version");
    assert_eq!(version.header("content-type"), Some("application/json"));
    let version = version.json();
    assert_eq!(version.as_object().unwrap().keys().collect::<Vec<_>>(), ["etcdserver", "etcdcluster", "storage"]);
    assert_eq!((&version["etcdcluster"], &version["storage"]), (&json!("3.7.0"), &json!("3.7.0")));
    assert!(version["etcdserver"].as_str().unwrap().starts_with("3.7."));
    assert!(get(&daemon, "/debug/vars").json().is_object());
    assert_eq!(get(&daemon, "/debug/pprof/").status, 404);
    let nowhere = get(&daemon, "/nowhere");
    assert_eq!((nowhere.status, &nowhere.body[..]), (404, "404 page not found\n"));
    for path in ["/version", "/health", "/livez", "/debug/vars"] {
        let answer = ask(daemon.client, "POST", path, &[], "");
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET")), "{path}");
    }
}

#[test]
fn health_follows_the_alarms() {
    let daemon = member(&[]);
    let well = get(&daemon, "/health");
    assert_eq!((well.status, &well.body[..]), (200, r#"{"health":"true","reason":""}"#));
    assert_eq!(get(&daemon, "/health?serializable=true").status, 200);
    post_ok(&daemon, "/v3/maintenance/alarm", r#"{"action":"ACTIVATE","memberID":"5","alarm":"NOSPACE"}"#);
    let full = get(&daemon, "/health");
    assert_eq!((full.status, full.body.trim_end()), (503, r#"{"health":"false","reason":"ALARM NOSPACE"}"#));
    assert_eq!(get(&daemon, "/health?exclude=NOSPACE").status, 200);
    assert_eq!(get(&daemon, "/health?exclude=CORRUPT").status, 503);
    assert_eq!((get(&daemon, "/livez").status, get(&daemon, "/readyz").status), (200, 200));
    post_ok(&daemon, "/v3/maintenance/alarm", r#"{"action":1,"memberID":"5","alarm":2}"#);
    assert_eq!(
        get(&daemon, "/health?exclude=NOSPACE").body.trim_end(),
        r#"{"health":"false","reason":"ALARM CORRUPT"}"#
    );
    assert_eq!(get(&daemon, "/health?exclude=NOSPACE&exclude=CORRUPT").status, 200);
    assert_eq!(get(&daemon, "/livez").status, 200);
    let ready = get(&daemon, "/readyz");
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("[-]data_corruption failed: alarm activated: CORRUPT\n"), "{ready:?}");
    assert!(ready.body.contains("[+]linearizable_read ok\n"), "{ready:?}");
    assert_eq!(get(&daemon, "/readyz?exclude=data_corruption").body, "ok\n");
    assert_eq!(get(&daemon, "/readyz/data_corruption").status, 503);
    assert_eq!(get(&daemon, "/readyz/linearizable_read").body, "ok\n");
    assert_eq!(get(&daemon, "/readyz/nonsense").status, 404);
}

#[test]
fn probes_list_their_checks_when_asked() {
    let daemon = member(&[]);
    assert_eq!(get(&daemon, "/livez?verbose").body, "[+]serializable_read ok\nok\n");
    let verbose = get(&daemon, "/readyz?verbose&exclude=non_learner&exclude=unknown");
    let mut lines: Vec<&str> = verbose.body.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["[+]data_corruption ok", "[+]linearizable_read ok", "[+]serializable_read ok", "ok"]);
}

#[test]
fn metrics_are_counted_under_etcds_names() {
    let daemon = member(&[]);
    for _ in 0..2 {
        post_ok(&daemon, "/v3/kv/put", r#"{"key":"Zm9v"}"#);
    }
    post_ok(&daemon, "/v3/kv/range", r#"{"key":"Zm9v"}"#);
    post_ok(&daemon, "/v3/kv/deleterange", r#"{"key":"Zm9v"}"#);
    let (corrupt, disarm) = (r#"{"action":"ACTIVATE","memberID":"5","alarm":"CORRUPT"}"#, r#""DEACTIVATE""#);
    post_ok(&daemon, "/v3/maintenance/alarm", corrupt);
    let refused = ask(daemon.client, "POST", "/v3/kv/put", &[], r#"{"key":"Zm9v"}"#);
    assert_eq!(refused.status, 500, "{}", refused.body);
    let raised = r#"etcd_debugging_server_alarms{alarm_type="CORRUPT",server_id="5"} "#;
    assert!(get(&daemon, "/metrics").body.contains(&format!("{raised}1")));
    post_ok(&daemon, "/v3/maintenance/alarm", &corrupt.replace(r#""ACTIVATE""#, disarm));
    let answer = get(&daemon, "/metrics");
    assert!(answer.body.contains(&format!("{raised}0")));
    assert!(answer.body.lines().any(|line| line.starts_with("etcd_network_known_peers{") && line.ends_with(" 1")));
    assert!(answer.header("content-type").unwrap().starts_with("text/plain; version=0.0.4; charset=utf-8"));
    let value = |series: &str| {
        let line = answer.body.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series}"))
    };
    assert_eq!((value("etcd_server_has_leader"), value("etcd_server_is_leader")), ("1", "1"));
    assert_eq!((value("etcd_mvcc_put_total"), value("etcd_mvcc_delete_total")), ("2", "1"));
    assert_eq!(value("etcd_debugging_mvcc_current_revision"), "4");
    let put_latency = r#"etcd_server_request_duration_seconds_count{success="true",type="Put"}"#;
    assert_eq!(value(put_latency), "3", "a put that its entry refuses was carried out");
    let applied = |op: &str, success: bool| {
        value(&format!(r#"etcd_server_apply_duration_seconds_count{{op="{op}",success="{success}",version="v3"}}"#))
    };
    assert_eq!((applied("Put", true), applied("Put", false), applied("DeleteRange", true)), ("2", "1", "1"));
    assert_ne!((applied("ClusterMemberAttrSet", true), applied("Alarm", true)), ("0", "0"));
    assert_ne!(value(r#"etcd_server_range_duration_seconds_count{success="true"}"#), "0");
    assert_eq!(value("etcd_debugging_mvcc_total_put_size_in_bytes"), "6");
    let call = |method: &str, code: &str| {
        let service = r#"grpc_service="etcdserverpb.KV",grpc_type="unary""#;
        value(&format!(r#"grpc_server_handled_total{{grpc_code="{code}",grpc_method="{method}",{service}}}"#))
    };
    assert_eq!((call("Put", "OK"), call("Range", "OK"), call("Put", "Unknown")), ("2", "1", "0"));
    assert_eq!(value(r#"etcd_server_version{server_version="3.7.1"}"#), "1");
    assert_eq!(value(r#"etcd_cluster_version{cluster_version="3.7"}"#), "1");
    assert!(value("process_resident_memory_bytes").parse::<f64>().unwrap() > 1e6);
    assert_ne!(value("etcd_disk_wal_fsync_duration_seconds_count"), "0");
    for line in answer.body.lines().filter(|line| !line.starts_with('#')) {
        let (_, number) = line.rsplit_once(' ').expect("a sample has a value");
        assert!(number.parse::<f64>().is_ok(), "{line}");
    }
}

#[test]
fn http_can_have_listeners_of_its_own() {
    let spare = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (http, metrics) = (spare.local_addr().unwrap(), std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let metrics_address = metrics.local_addr().unwrap();
    drop((spare, metrics));
    let mut daemon = Daemon::prepare(
        &std::env::temp_dir(),
        &Program::subject(),
        &[
            &format!("--listen-client-http-urls=http://{http}"),
            &format!("--listen-metrics-urls=http://{metrics_address}"),
        ],
    );
    daemon.spawn();
    let ready = support::wait_for(PATIENCE, || {
        let answer = support::http::get(http, "/health").ok()?;
        answer.body.contains("true").then_some(())
    });
    assert!(ready.is_some(), "{}", daemon.log());
    assert_eq!(ask(http, "POST", "/v3/kv/range", &[], r#"{"key":"YQ=="}"#).status, 200);
    assert_eq!(ask(metrics_address, "GET", "/health", &[], "").status, 200);
    assert_eq!(ask(metrics_address, "GET", "/readyz", &[], "").status, 200);
    assert_eq!(ask(metrics_address, "GET", "/metrics", &[], "").status, 200);
    assert_eq!(ask(metrics_address, "GET", "/version", &[], "").status, 404);
    assert!(support::http::get(daemon.client, "/health").is_err(), "the gRPC port speaks no HTTP/1");
}

/// A message of a client: short, and masked with zeros.
fn message(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap();
    assert!(length < 126, "{text}");
    [&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat()
}

/// The next message of the server.
fn receive(reader: &mut impl Read) -> (u8, String) {
    let mut head = [0; 2];
    reader.read_exact(&mut head).unwrap();
    let length = match head[1] {
        126 => {
            let mut length = [0; 2];
            reader.read_exact(&mut length).unwrap();
            u16::from_be_bytes(length)
        }
        short => u16::from(short),
    };
    let mut text = vec![0; usize::from(length)];
    reader.read_exact(&mut text).unwrap();
    (head[0] & 0xf, String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn a_browser_watches_through_a_socket() {
    let daemon = member(&[]);
    let mut socket = connect(daemon.client);
    let lines = [
        "GET /v3/watch HTTP/1.1".to_owned(),
        format!("Host: {}", daemon.client),
        "Connection: Upgrade".into(),
        "Upgrade: websocket".into(),
        "Origin: http://anywhere".into(),
        "Sec-WebSocket-Version: 13".into(),
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==".into(),
        "Sec-WebSocket-Protocol: Bearer, unused.1".into(),
    ];
    write!(socket, "{}\r\n\r\n", lines.join("\r\n")).unwrap();
    let mut reader = BufReader::new(socket.try_clone().unwrap());
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(reader.read_line(&mut head).unwrap(), 0, "{head}");
    }
    let head = head.to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
    assert!(head.contains("sec-websocket-protocol: bearer"), "{head}");

    socket.write_all(&message(r#"{"create_request":{"key":"Zm9v"}}"#)).unwrap();
    let (_, created) = receive(&mut reader);
    assert!(created.contains(r#""created":true"#), "{created}");
    post_ok(&daemon, "/v3/kv/put", r#"{"key":"Zm9v","value":"YmFy"}"#);
    let (kind, event) = receive(&mut reader);
    assert_eq!(kind, 1);
    assert!(event.contains(r#""value":"YmFy""#), "{event}");
    socket.write_all(&message(r#"{"create_request":{"key":"YQ=="}}"#)).unwrap();
    assert!(receive(&mut reader).1.contains(r#""watch_id":"1""#));
}
