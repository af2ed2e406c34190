//! The stream of requests: mostly sensible, often at an edge, sometimes wrong.
//!
//! Few paths, so that requests meet. What the newest answers of etcd say about keys and the index is remembered, so that a
//! comparison that holds, or an index of the past, is a choice and not luck.

use crate::accounts::Accounts;
use crate::exchange::{Answer, Ask};
use crate::support::random::Random;
use std::collections::BTreeMap;

/// Nodes remembered.
const KNOWN_MAX: usize = 400;
/// The shortest time to live of what is to expire during the test; the traffic in between must be over before.
pub(crate) const BRIEF_SECONDS_MIN: u64 = 2;

/// One step of the stream.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// Asked and answered.
    Ask(Ask),
    /// As `Ask`; what it writes may expire after so many seconds.
    Brief(Ask, u64),
    /// An answer that may come later, or go on.
    Watch(Ask),
    /// Gives up the watch that is open with this number among the open ones.
    GiveUp(usize),
    /// The counters of the store.
    Counters,
}

/// The source of requests.
pub(crate) struct Generator {
    random: Random,
    accounts: Accounts,
    index: u64,
    known: BTreeMap<String, (String, u64)>,
    /// Whether writes may be brief now.
    pub brief: bool,
}

impl Generator {
    pub(crate) fn new(random: Random) -> Self {
        Self { random, accounts: Accounts::default(), index: 0, known: BTreeMap::new(), brief: false }
    }

    /// Takes what etcd's answer says about the store.
    pub(crate) fn learn(&mut self, ask: &Ask, answer: &Answer) {
        let index = answer.header("x-etcd-index").and_then(|index| index.parse().ok()).unwrap_or(0);
        self.index = self.index.max(index);
        self.accounts.learn(ask, answer);
        let Ok(json) = serde_json::from_str::<serde_json::Value>(&answer.body) else { return };
        let text = |field| json.pointer(field).and_then(serde_json::Value::as_str);
        let modified = json.pointer("/node/modifiedIndex").and_then(serde_json::Value::as_u64);
        if let (Some(key), Some(index)) = (text("/node/key"), modified) {
            if self.known.len() >= KNOWN_MAX {
                self.known.pop_first();
            }
            self.known.insert(key.to_owned(), (text("/node/value").unwrap_or_default().to_owned(), index));
        }
    }

    pub(crate) fn next_op(&mut self) -> Op {
        if self.accounts.enabled() && self.random.chance(5) {
            return Op::Ask(Accounts::disable());
        }
        match self.random.below(1_000) {
            0..320 => self.put(),
            320..370 => self.post(),
            370..530 => Op::Ask(self.delete()),
            530..800 => Op::Ask(self.get("GET")),
            800..820 => Op::Ask(self.get("HEAD")),
            820..890 => Op::Watch(self.watch()),
            890..900 => Op::GiveUp(self.random.index(64)),
            900..930 => Op::Ask(self.malformed()),
            930..950 => Op::Ask(self.odd_path()),
            950..960 => Op::Ask(self.elsewhere()),
            960..962 => Op::Counters,
            962..975 => Op::Ask(self.members()),
            _ => Op::Ask(self.accounts.next(&mut self.random)),
        }
    }

    fn put(&mut self) -> Op {
        let path = self.path();
        let mut form = Form::default();
        let refresh = self.random.chance(5);
        if self.random.chance(if refresh { 8 } else { 85 }) {
            form.add("value", &self.value());
        }
        self.flag(&mut form, "dir", 8);
        self.flag(&mut form, "prevExist", if refresh { 70 } else { 22 });
        self.conditions(&mut form, &path, 14);
        if refresh {
            form.add("refresh", "true");
        }
        let seconds = self.ttl(&mut form, if refresh { 90 } else { 12 });
        self.flag(&mut form, "noValueOnSuccess", 5);
        for name in ["recursive", "sorted", "quorum", "stream", "wait"] {
            self.flag(&mut form, name, 1);
        }
        self.write("PUT", &path, form, seconds)
    }

    fn post(&mut self) -> Op {
        let path = self.path();
        let mut form = Form::default();
        if self.random.chance(85) {
            form.add("value", &self.value());
        }
        self.flag(&mut form, "dir", 8);
        self.flag(&mut form, "prevExist", 5);
        self.conditions(&mut form, &path, 3);
        let seconds = self.ttl(&mut form, 10);
        self.flag(&mut form, "noValueOnSuccess", 8);
        self.flag(&mut form, "refresh", 2);
        self.write("POST", &path, form, seconds)
    }

    /// Parameters in the body, in the query, or some in each.
    fn write(&mut self, method: &'static str, path: &str, form: Form, seconds: Option<u64>) -> Op {
        let (mut query, mut body) = (Form::default(), Form::default());
        let split = self.random.below(10);
        for (name, value) in form.pairs {
            let in_query = split == 0 || (split == 1 && self.random.chance(50));
            let into = if in_query { &mut query } else { &mut body };
            into.pairs.push((name, value));
        }
        if self.random.chance(2) {
            query.add("value", "the body wins");
        }
        let ask = Ask::new(method, &format!("/v2/keys{path}{}", query.as_query()));
        let ask = match self.random.below(100) {
            _ if body.pairs.is_empty() => ask,
            0 => ask.with_body("text/plain", body.text()),
            1 => Ask { body: body.text().into_bytes(), ..ask },
            2..4 => ask.with_body("application/x-www-form-urlencoded; charset=utf-8", body.text()),
            _ => ask.with_form(&body.text()),
        };
        let ask = self.signed(ask);
        match seconds {
            Some(seconds) => Op::Brief(ask, seconds),
            None => Op::Ask(ask),
        }
    }

    fn delete(&mut self) -> Ask {
        let path = self.path();
        let mut form = Form::default();
        self.flag(&mut form, "dir", 25);
        self.flag(&mut form, "recursive", 50);
        self.conditions(&mut form, &path, 12);
        self.flag(&mut form, "prevExist", 3);
        self.flag(&mut form, "noValueOnSuccess", 3);
        self.flag(&mut form, "wait", 1);
        let ask = Ask::new("DELETE", &format!("/v2/keys{path}{}", form.as_query()));
        // What stands in the body of a delete means nothing.
        let ask = if self.random.chance(4) { ask.with_form("dir=true&recursive=true") } else { ask };
        self.signed(ask)
    }

    fn get(&mut self, method: &'static str) -> Ask {
        let path = if self.random.chance(15) { String::new() } else { self.path() };
        let mut form = Form::default();
        self.flag(&mut form, "recursive", 35);
        self.flag(&mut form, "sorted", 35);
        self.flag(&mut form, "quorum", 20);
        for name in ["dir", "stream", "prevExist", "noValueOnSuccess"] {
            self.flag(&mut form, name, 2);
        }
        if method == "HEAD" && self.random.chance(5) {
            form.add("wait", "true");
        }
        self.signed(Ask::new(method, &format!("/v2/keys{path}{}", form.as_query())))
    }

    fn watch(&mut self) -> Ask {
        let path = if self.random.chance(12) { "/".to_owned() } else { self.path() };
        let mut form = Form::default();
        form.add("wait", "true");
        if self.random.chance(60) {
            form.add("recursive", "true");
        }
        if self.random.chance(20) {
            form.add("stream", "true");
        }
        if self.random.chance(4) {
            form.add("quorum", "true");
        }
        if self.random.chance(55) {
            form.add("waitIndex", &self.wait_index());
        }
        self.signed(Ask::new("GET", &format!("/v2/keys{path}{}", form.as_query())))
    }

    fn wait_index(&mut self) -> String {
        let index = self.index;
        match self.random.below(20) {
            0..8 => index.saturating_sub(self.random.below(40)),
            8..11 => index.saturating_sub(self.random.below(1_000)),
            // Around the oldest event that is kept.
            11..13 => (index + self.random.below(8)).saturating_sub(1_003),
            13..16 => index + self.random.below(12),
            16 => {
                return (*self.random.pick(&["-1", "abc", "", "1.5", "18446744073709551616", "+1", "0x1"])).to_owned();
            }
            17 => u64::MAX,
            18 => 0,
            _ => 1,
        }
        .to_string()
    }

    /// A comparison with what is there, or with something else.
    fn conditions(&mut self, form: &mut Form, path: &str, percent: u64) {
        let known = self.known.get(path.trim_end_matches('/')).cloned();
        if self.random.chance(percent) {
            let right = known.as_ref().map(|(value, _)| value.clone()).filter(|_| self.random.chance(60));
            let value = right.unwrap_or_else(|| self.value());
            form.add("prevValue", &value);
        }
        if self.random.chance(percent) {
            let right = known.map(|(_, index)| index).filter(|_| self.random.chance(60));
            let index = match right {
                Some(index) => index.to_string(),
                None if self.random.chance(70) => self.random.below(self.index + 1).to_string(),
                None => (*self.random.pick(&[
                    "0",
                    "-1",
                    "abc",
                    "",
                    "18446744073709551615",
                    "18446744073709551616",
                    "00",
                    " 1",
                ]))
                .to_owned(),
            };
            form.add("prevIndex", &index);
        }
    }

    /// A time to live; the seconds are told if it may be over while the test runs.
    fn ttl(&mut self, form: &mut Form, percent: u64) -> Option<u64> {
        if self.brief && self.random.chance(40) {
            let seconds = BRIEF_SECONDS_MIN + self.random.below(2);
            form.add("ttl", &seconds.to_string());
            return Some(seconds);
        }
        if !self.random.chance(percent) {
            return None;
        }
        if self.random.chance(1) {
            form.add("ttl", "0");
            return Some(0);
        }
        let text = match self.random.below(20) {
            0 => (*self.random.pick(&["-1", "abc", "1.5", "1s", " 5", "18446744073709551616", "%"])).to_owned(),
            1 => String::new(),
            2 => "5000000000".to_owned(),
            _ => (1_000 + self.random.below(100_000)).to_string(),
        };
        form.add("ttl", &text);
        None
    }

    /// A boolean parameter, `percent` times in a hundred, spelt in any way.
    fn flag(&mut self, form: &mut Form, name: &'static str, percent: u64) {
        if self.random.chance(percent) {
            let text = match self.random.below(40) {
                0..22 => "true",
                22..31 => "false",
                31..38 => *self.random.pick(&["1", "t", "T", "TRUE", "True", "0", "f", "F", "FALSE", "False"]),
                _ => *self.random.pick(&["", "yes", "2", "tRue", " true", "null"]),
            };
            form.add(name, text);
        }
    }

    fn path(&mut self) -> String {
        match self.random.below(100) {
            0 => String::new(),
            1 => "/".to_owned(),
            2 => format!("/{}", self.random.pick(&ODD_NAMES)),
            3 => format!("/{}/", self.random.pick(&NAMES)),
            4 => "/deep".repeat(1 + self.random.index(20)),
            _ => (0..=self.random.index(3)).flat_map(|_| ["/", *self.random.pick(&NAMES)]).collect(),
        }
    }

    fn value(&mut self) -> String {
        match self.random.below(100) {
            0..6 => String::new(),
            6..75 => format!("v{}", self.random.below(6)),
            75..90 => (*self.random.pick(&ODD_VALUES)).to_owned(),
            90..98 => "x".repeat(self.random.index(400)),
            98 => "long ".repeat(self.random.index(2_000)),
            _ => format!("{{\"json\": [{}, \"\\\\\"]}}", self.random.bits()),
        }
    }

    /// A user's name and password, if users are asked for.
    fn signed(&mut self, ask: Ask) -> Ask {
        self.accounts.sign(&mut self.random, ask)
    }

    /// Forms and queries that no library writes.
    fn malformed(&mut self) -> Ask {
        let path = self.path();
        let text = *self.random.pick(&BROKEN_FORMS);
        let method = *self.random.pick(&["PUT", "PUT", "PUT", "POST", "GET", "DELETE", "HEAD"]);
        let in_body = matches!(method, "PUT" | "POST") && self.random.chance(60);
        if in_body {
            return Ask::new(method, &format!("/v2/keys{path}")).with_form(text);
        }
        Ask::new(method, &format!("/v2/keys{path}?{}", text.replace(' ', "+")))
    }

    fn odd_path(&mut self) -> Ask {
        let method = *self.random.pick(&["GET", "GET", "PUT", "DELETE", "POST", "HEAD"]);
        Ask::new(method, *self.random.pick(&ODD_PATHS))
    }

    /// Everything beside the keys.
    fn elsewhere(&mut self) -> Ask {
        let method = *self.random.pick(&["GET", "GET", "GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"]);
        let target = *self.random.pick(&[
            "/v2/machines",
            "/v2/machines/",
            "/v2/stats/self",
            "/v2/stats/leader",
            "/v2/stats/self/",
            "/v2/stats",
            "/v2/stats/nothing",
            "/version",
            "/health",
            "/v2/keys/a",
            "/v2/auth",
            "/v2/auth/enable",
            "/v2/auth/nothing",
        ]);
        // Redirects and refusals of other methods at /health are those of the newer etcd.
        let method = if target == "/health" { "GET" } else { method };
        if target == "/v2/auth/enable" { Ask::new("GET", target) } else { Ask::new(method, target) }
    }

    fn members(&mut self) -> Ask {
        let method = *self.random.pick(&["GET", "GET", "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"]);
        let target = match method {
            "DELETE" => *self.random.pick(&["", "/", "/4242", "/no-hex", "/0", "/ffffffffffffffffff", "/a/b"]),
            "GET" => *self.random.pick(&["", "/", "/leader", "/leader/", "/MEMBER", "/4242"]),
            _ => *self.random.pick(&["", "/", "/MEMBER", "/MEMBER", "/MEMBER", "/4242", "/no-hex"]),
        };
        let ask = Ask::new(method, &format!("/v2/members{target}"));
        let ask = match method {
            "POST" | "PUT" => {
                let media = *self.random.pick(&MEDIA_TYPES);
                // A member that is really added would cost the quorum.
                let bodies: &[&str] = if method == "POST" { &BROKEN_MEMBERS } else { &MEMBERS };
                ask.with_body(media, *self.random.pick(bodies))
            }
            _ => ask,
        };
        self.signed(ask)
    }
}

/// The parts that paths are made of. Some begin others, some are hidden.
const NAMES: [&str; 7] = ["a", "b", "ab", "_h", "c", "a_b", "1"];

/// Parts of paths as they are written in a URL.
const ODD_NAMES: [&str; 14] = [
    "sp%20ace",
    "plus+",
    "%C3%BC",
    "x.y",
    "...",
    "%E2%80%A8",
    "a%26b%3Cc%3E",
    "%22quoted%22",
    "~tilde",
    "a:b@c",
    "a=b",
    "%5Cback",
    "_",
    "__",
];

const ODD_VALUES: [&str; 10] = [
    "<b>&\"'</b>",
    "\u{fc}\u{4e2d}\u{1f600}",
    "line\nline\r\n\ttab",
    "\u{1}\u{7f}\u{8}\u{c}",
    "\u{2028}\u{2029}",
    "a=b&c;d+e%20f",
    " ",
    "\\",
    "0",
    "/a/b",
];

const BROKEN_FORMS: [&str; 22] = [
    "value=%zz",
    "value=%",
    "value=%4",
    "%zz=1",
    "value",
    "value=a=b",
    "&&value=1&",
    "=x&value=2",
    "value=a;prevExist=false",
    "value=1&value=2",
    "dir=&value=1",
    "ttl=&value=1",
    "prevIndex=&value=1",
    "prevValue=&value=1",
    "prevExist=&value=1",
    "refresh=&value=1",
    "refresh=true&value=1&ttl=5000",
    "refresh=true",
    "noValueOnSuccess=&value=1",
    "Value=1&DIR=true",
    "value=%00null",
    "unknown=%41&value=+",
];

const ODD_PATHS: [&str; 25] = [
    "/v2/keys//a",
    "/v2/keys/a//b?recursive=true",
    "/v2/keys/./a",
    "/v2/keys/a/../b",
    "/v2/keys/..",
    "/v2/keys/a/..",
    "/v2/keys/a/.",
    "/v2//keys/a",
    "//v2/keys/a",
    "/v2/keys/a%2Fb",
    "/v2/keys/%2Fa",
    "/v2/keys/%61",
    "/v2/keys/%2e%2e/a",
    "/v2/keys/a%2F..%2Fb",
    "/v2/keysa",
    "/v2/Keys/a",
    "/v2",
    "/v2/",
    "/",
    "/favicon.ico",
    "/v2/stats/store/",
    "/v2/stats//self",
    "/v2/members//leader",
    "/v2/keys/a?",
    "/v2/keys/a??recursive=true",
];

const MEDIA_TYPES: [&str; 6] = [
    "application/json",
    "application/json",
    "application/json; charset=utf-8",
    " APPLICATION/JSON ;",
    "text/plain",
    "application/x-www-form-urlencoded",
];

const MEMBERS: [&str; 3] = [
    "{\"peerURLs\":[\"http://PEER\"]}",
    "{\"PeerUrls\":[\"http://PEER\",\"http://127.0.0.1:1\"]}",
    "{\"peerURLs\":[]}",
];

const BROKEN_MEMBERS: [&str; 12] = [
    "{\"peerURLs\":[\"http://PEER\"]}",
    "{\"peerURLs\":[]}",
    "{}",
    "null",
    "",
    "{",
    "[]",
    "{\"peerURLs\":\"http://PEER\"}",
    "{\"peerURLs\":[\"ftp://127.0.0.1:1\"]}",
    "{\"peerURLs\":[\"http://127.0.0.1\"]}",
    "{\"peerURLs\":[\"http://127.0.0.1:1/path\"]}",
    "{\"peerURLs\":[\"not a url\"]}",
];

/// Parameters in order.
#[derive(Default)]
struct Form {
    pairs: Vec<(&'static str, String)>,
}

impl Form {
    fn add(&mut self, name: &'static str, value: &str) {
        self.pairs.push((name, value.to_owned()));
    }

    fn text(&self) -> String {
        let pair = |(name, value): &(&str, String)| format!("{name}={}", escaped(value));
        self.pairs.iter().map(pair).collect::<Vec<_>>().join("&")
    }

    fn as_query(&self) -> String {
        if self.pairs.is_empty() { String::new() } else { format!("?{}", self.text()) }
    }
}

/// A value as forms hold it.
pub(crate) fn escaped(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/' => char::from(byte).to_string(),
        b' ' => "+".to_owned(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}
