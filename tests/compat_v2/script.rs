//! Requests that chance would seldom make, in the order in which they make sense.
//!
//! One line is one request: method, path with query, and the body of a form behind it. A `!` in front marks a write that
//! expires at once or whose expiry only the sweep tells; a `?` marks an answer that may come later.

use crate::exchange::Ask;
use crate::generate::{Op, escaped};

const LINES: &str = "
GET /v2/keys
GET /v2/keys?recursive=true
GET /v2/keys/?recursive=true&sorted=true
PUT /v2/keys/foo value=bar
PUT /v2/keys/foo value=baz
GET /v2/keys/foo
HEAD /v2/keys/foo
HEAD /v2/keys/missing
GET /v2/keys/x/y/z
GET /v2/keys/foo/x
PUT /v2/keys/foo/x value=1
DELETE /v2/keys/foo/x
POST /v2/keys/foo value=1
PUT /v2/keys/empty value=
PUT /v2/keys/empty
PUT /v2/keys/foo/ value=slash
PUT /v2/keys value=1
PUT /v2/keys/ value=1
PUT /v2/keys?dir=true
PUT /v2/keys?prevExist=true value=1
PUT /v2/keys?prevExist=false value=1
PUT /v2/keys?prevValue=x value=1
DELETE /v2/keys
DELETE /v2/keys/?recursive=true
DELETE /v2/keys/?prevIndex=3
POST /v2/keys value=rooted
POST /v2/keys?dir=true
PATCH /v2/keys/foo
OPTIONS /v2/keys/foo
OPTIONS /v2/nothing
TRACE /v2/keys/foo
PUT /v2/keys/d dir=true
PUT /v2/keys/d dir=true
PUT /v2/keys/d value=1
PUT /v2/keys/foo dir=true
PUT /v2/keys/foo?prevExist=true value=
PUT /v2/keys/foo?prevExist=true value=x
GET /v2/keys/foo
PUT /v2/keys/d/e/f/g value=deep
PUT /v2/keys/d/_hidden/x value=1
PUT /v2/keys/d/a10 value=1
PUT /v2/keys/d/a2 value=1
PUT /v2/keys/d/b dir=true
GET /v2/keys/d
GET /v2/keys/d?recursive=true
GET /v2/keys/d?recursive=true&sorted=true
GET /v2/keys/d?sorted=true&quorum=true
GET /v2/keys/d/_hidden
GET /v2/keys/d/_hidden/x
DELETE /v2/keys/d
DELETE /v2/keys/d?dir=true
DELETE /v2/keys/d/b?dir=true
DELETE /v2/keys/d/a2?dir=true
DELETE /v2/keys/d/a10?recursive=true
DELETE /v2/keys/d/e?recursive=true
DELETE /v2/keys/d?dir=true
DELETE /v2/keys/d?recursive=true
PUT /v2/keys/cas?prevExist=false value=one
PUT /v2/keys/cas?prevExist=false value=one
PUT /v2/keys/cas?prevExist=false&prevValue=nonsense value=one
PUT /v2/keys/cas?prevValue=two value=three
PUT /v2/keys/cas?prevValue=one value=two
PUT /v2/keys/cas?prevIndex=1 value=three
PUT /v2/keys/cas?prevIndex=1&prevValue=x value=three
PUT /v2/keys/cas?prevIndex=1&prevValue=two value=three
PUT /v2/keys/cas?prevIndex=0 value=three
PUT /v2/keys/cas?prevExist=true&prevValue=three value=four
PUT /v2/keys/cas?prevExist=true&prevValue=three value=four
PUT /v2/keys/none?prevValue=three value=four
PUT /v2/keys/none?prevExist=true&prevIndex=7 value=four
PUT /v2/keys/none?prevExist=true value=four
DELETE /v2/keys/cas?prevValue=x
DELETE /v2/keys/cas?prevIndex=1
DELETE /v2/keys/cas?prevValue=four
DELETE /v2/keys/cas?prevValue=four
PUT /v2/keys/cad dir=true
DELETE /v2/keys/cad?prevIndex=1&recursive=true
PUT /v2/keys/cad?prevIndex=1 value=x
PUT /v2/keys/noval noValueOnSuccess=true&value=1
PUT /v2/keys/noval noValueOnSuccess=true&value=1&prevExist=true
PUT /v2/keys/noval noValueOnSuccess=true&value=1&prevValue=1
PUT /v2/keys/noval noValueOnSuccess=true&value=1&prevValue=x
POST /v2/keys/noval2 noValueOnSuccess=true&value=1
DELETE /v2/keys/noval?noValueOnSuccess=true
POST /v2/keys/queue value=1
POST /v2/keys/queue value=2
PUT /v2/keys/between value=0
POST /v2/keys/queue value=3&ttl=1000
GET /v2/keys/queue?sorted=true
POST /v2/keys/_q value=3
GET /v2/keys/_q?sorted=true
PUT /v2/keys/ttl value=1&ttl=1000
PUT /v2/keys/ttl value=1&ttl=2000&prevExist=true
PUT /v2/keys/ttl ttl=3000&refresh=true
PUT /v2/keys/ttl ttl=3000&refresh=true&prevExist=true
PUT /v2/keys/ttl ttl=3000&refresh=true&prevValue=1
PUT /v2/keys/ttl ttl=3000&refresh=true&prevValue=2
PUT /v2/keys/ttl ttl=3000&refresh=true&prevExist=false
PUT /v2/keys/unborn ttl=3000&refresh=true
PUT /v2/keys/unborn ttl=3000&refresh=true&prevExist=false
GET /v2/keys/unborn
PUT /v2/keys/ttl refresh=true
PUT /v2/keys/ttl refresh=true&value=1&ttl=5000
PUT /v2/keys/ttl refresh=false&value=1
PUT /v2/keys/ttl refresh=true&ttl=5000&dir=true
PUT /v2/keys/ttl value=1&ttl=
GET /v2/keys/ttl
PUT /v2/keys/ttldir dir=true&ttl=1000
PUT /v2/keys/ttldir/x value=1
PUT /v2/keys/ttldir?prevExist=true ttl=2000
GET /v2/keys/ttldir
PUT /v2/keys/ttldir?prevExist=true ttl=2000&value=x
PUT /v2/keys/ttldir?prevExist=true
PUT /v2/keys/ttldir?refresh=true ttl=2000
PUT /v2/keys/ttldir?refresh=true&prevExist=true ttl=2000
GET /v2/keys/ttldir?recursive=true
PUT /v2/keys/ttl1 value=1&ttl=-1
PUT /v2/keys/ttl1 value=1&ttl=abc
PUT /v2/keys/ttl1 value=1&ttl=18446744073709551616
!PUT /v2/keys/ttl0 value=1&ttl=0
GET /v2/keys/ttl0
!PUT /v2/keys/ttl2 value=1&ttl=18446744073709551615
!PUT /v2/keys/ttl3 value=1&ttl=9223372037
!PUT /v2/keys/ttl4 value=1&ttl=9223372036
!PUT /v2/keys/ttl5 value=1&ttl=20000000000
!PUT /v2/keys/ttl6 dir=true&ttl=0
!PUT /v2/keys/foo?prevExist=true value=1&ttl=9223372036
GET /v2/keys?recursive=true
?GET /v2/keys/a?wait=true&waitIndex=1
?GET /v2/keys/foo?wait=true
?GET /v2/keys/foo/?wait=true
?GET /v2/keys/dir?wait=true
?GET /v2/keys/dir?wait=true&recursive=true
?GET /v2/keys/?wait=true&recursive=true
?GET /v2/keys?wait=true&recursive=true&stream=true
?GET /v2/keys/dir/_h?wait=true&recursive=true&stream=true
?GET /v2/keys/dir/sub/leaf?wait=true
?GET /v2/keys/dir/sub/leaf?wait=true&stream=true
?GET /v2/keys/foo?wait=true&quorum=true
?GET /v2/keys/foo?wait=true&waitIndex=2
?GET /v2/keys/foo?wait=true&waitIndex=5
?GET /v2/keys/foo?wait=true&waitIndex=99999
PUT /v2/keys/foo value=seen
PUT /v2/keys/dir/_h value=hidden
PUT /v2/keys/dir/sub/leaf value=1
PUT /v2/keys/dir/sub/leaf ttl=500&refresh=true&prevExist=true
PUT /v2/keys/dir/sub/leaf2 value=1
DELETE /v2/keys/dir/sub/leaf2
DELETE /v2/keys/dir?recursive=true
PUT /v2/keys/foo?wait=true value=1
HEAD /v2/keys/foo?wait=true
POST /v2/keys/foo?wait=true
PUT /v2/keys/foobar value=1
PUT /v2/keys/last value=1
GET /v2/machines
HEAD /v2/machines
POST /v2/machines
GET /v2/members
GET /v2/members/leader
GET /v2/stats/self
GET /v2/stats/leader
PUT /v2/stats/store
GET /v2/auth/enable
GET /v2/auth/users
GET /v2/auth/roles
GET /v2/auth/users/nobody
GET /v2/auth/roles/nobody
GET /v2/auth/roles/root
PUT /v2/auth/enable
DELETE /v2/auth/enable
DELETE /v2/auth/users/nobody
DELETE /v2/auth/roles/nobody
DELETE /v2/auth/roles/root
GET /v2/auth/users
GET /v2/keys?recursive=true&sorted=true
GET /v2/keys/../../2/enabled
GET /v2/keys/%2e%2e/2/enabled
GET /v2/keys/..%2F2/enabled
PUT /v2/keys/_w value=1
?GET /v2/keys/?wait=true&recursive=true
?GET /v2/keys/_w?wait=true
PUT /v2/keys/_w value=2
GET /version
GET /health
GET /v2/keys/a%zz
GET /v2/keys/a%
PUT /v2/keys/form value=a;b
GET /v2/keys/foo?recursive
GET /v2/keys/foo?recursive=false&recursive=true
GET /v2/keys/foo?waitIndex=x&prevIndex=x&recursive=x
GET /v2/keys/foo?sorted=x&recursive=x&wait=x&dir=x&quorum=x&stream=x
GET /v2/keys/foo?stream=x&quorum=x&dir=x
GET /v2/keys/foo?noValueOnSuccess=x&prevValue=
PUT /v2/keys/foo ttl=x&noValueOnSuccess=x
PUT /v2/keys/foo refresh=x&prevExist=x&ttl=x
PUT /v2/keys/foo refresh=x&prevExist=x
PUT /v2/keys/foo refresh=x
";

/// The script, in order.
pub(crate) fn ops() -> Vec<Op> {
    let written = LINES.lines().filter(|line| !line.is_empty()).map(op);
    written.chain(large()).chain(unusual()).collect()
}

fn op(line: &'static str) -> Op {
    let (mark, line) = line.split_at(usize::from(line.starts_with(['!', '?'])));
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let ask = Ask::new(method, target);
    let ask = words.next().map_or(ask.clone(), |form| ask.with_form(form));
    match mark {
        "!" => Op::Brief(ask, 0),
        "?" => Op::Watch(ask),
        _ => Op::Ask(ask),
    }
}

/// Values and keys of a size that nobody plans for.
fn large() -> Vec<Op> {
    let put =
        |key: &str, bytes: usize| Op::Ask(Ask::new("PUT", key).with_form(&format!("value={}", "y".repeat(bytes))));
    vec![
        put("/v2/keys/large", 1_000_000),
        Op::Ask(Ask::new("DELETE", "/v2/keys/large")),
        put("/v2/keys/larger", 2_500_000),
        Op::Ask(Ask::new("DELETE", "/v2/keys/larger")),
        put("/v2/keys/largest", 10 * 1024 * 1024),
        Op::Ask(Ask::new("GET", "/v2/keys/largest")),
        put(&format!("/v2/keys/{}", "k".repeat(5_000)), 1),
        Op::Ask(Ask::new("DELETE", &format!("/v2/keys/{}", "k".repeat(5_000)))),
        put(&format!("/v2/keys{}", "/d".repeat(200)), 1),
        Op::Ask(Ask::new("GET", "/v2/keys/d?recursive=true")),
        Op::Ask(Ask::new("DELETE", "/v2/keys/d?recursive=true")),
    ]
}

/// Bodies in other forms.
fn unusual() -> Vec<Op> {
    let put = || Ask::new("PUT", "/v2/keys/unusual");
    let part =
        |name: &str, value: &str| format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
    let parts = [part("value", "v1"), part("ttl", "5000"), part("dir", "true"), part("prevExist", "false")].concat();
    let asks = vec![
        put().with_body("text/plain", "value=x"),
        Ask { body: b"value=x".to_vec(), ..put() },
        put().with_body("APPLICATION/X-WWW-FORM-URLENCODED", "value=upper"),
        put().with_body("application/x-www-form-urlencoded; charset", "value=y"),
        put().with_body(";", "value=y"),
        Ask::new("PUT", "/v2/keys/unusual?value=query").with_form("value=body"),
        Ask::new("PUT", "/v2/keys/unusual?value=query").with_form("other=body"),
        Ask::new("DELETE", "/v2/keys/unusual"),
        put().with_body("multipart/form-data; boundary=XX", parts.clone() + "--XX--\r\n"),
        put().with_body("multipart/form-data", parts),
        Ask::new("PUT", "/v2/keys/odd").with_form(&format!("value={}", escaped("<&>\u{2028}\u{7f}\u{1}\"\\\u{1f600}"))),
        Ask::new("GET", "/v2/keys/odd"),
        Ask::new("POST", "/v2/members").with_body("application/json", "{\"peerURLs\":[\"http://PEER\"]}"),
        Ask::new("PUT", "/v2/members/MEMBER").with_body("application/json", "{\"peerURLs\":[\"http://127.0.0.1:1\"]}"),
        Ask::new("GET", "/v2/members"),
        Ask::new("PUT", "/v2/members/MEMBER").with_body("application/json", "{\"peerURLs\":[\"http://PEER\"]}"),
        Ask::new("PUT", "/v2/keys/after").with_form("value=members"),
        Ask::new("GET", "/v2/auth/users").with_header("Authorization", "Basic cm9vdDpzZWNyZXQ="),
    ];
    asks.into_iter().map(Op::Ask).collect()
}
