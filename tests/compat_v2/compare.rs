//! What may differ between two answers, by name and with the reason, and nothing else.

use crate::exchange::{Answer, Ask};
use crate::support::mask::Mask;
use std::time::Duration;

/// Two sides' clocks start an expiry within this of each other, in seconds.
const CLOCKS_APART_SECONDS: f64 = 2.5;

/// One thing that may differ: its name, why, and how it is taken out. Times are handed back, to be held against each other.
pub(crate) struct Masked {
    pub name: &'static str,
    pub reason: &'static str,
    take_out: fn(&Ask, &mut Answer, &mut Vec<f64>),
}

/// Everything that may differ. Listings are put in order before times are taken out of them, in order.
pub(crate) const MASKED: &[Masked] = &[
    Masked { name: "date", reason: "the time of the answer", take_out: |_, answer, _| drop_headers(answer, &["date"]) },
    Masked {
        name: "framing",
        reason: "Go's server sends in chunks what its buffer of 2 kB cannot hold; where a body ends is the same",
        take_out: |_, answer, _| drop_headers(answer, &["content-length", "transfer-encoding", "connection"]),
    },
    Masked {
        name: "x-raft-index",
        reason: "the log counts the entries of start-up and one of the sweep for each half second",
        take_out: |_, answer, _| header_to(answer, "x-raft-index", "N"),
    },
    Masked {
        name: "x-raft-term",
        reason: "the term of the first leader",
        take_out: |_, answer, _| header_to(answer, "x-raft-term", "N"),
    },
    Masked {
        name: "nodes",
        reason: "without sorted=true a directory is listed in the random order of a map of Go",
        take_out: |ask, answer, _| {
            if !ask.target.contains("sorted=true") {
                answer.body = with_sorted_nodes(&answer.body);
            }
        },
    },
    Masked {
        name: "expiration",
        reason: "the clock of each member, and the time from one request to the other",
        take_out: |_, answer, times| take_times(answer, "expiration", times),
    },
    Masked {
        name: "ttl of the past",
        reason: "etcd counts it again when it reads its log at a start; ours says what it was when the event happened",
        take_out: |ask, answer, _| {
            if ask.target.contains("waitIndex=") {
                take_times(answer, "ttl", &mut Vec::new());
            }
        },
    },
    Masked {
        name: "ttl",
        reason: "what remains of it at the time of the answer",
        take_out: |_, answer, times| take_times(answer, "ttl", times),
    },
    Masked {
        name: "uptime",
        reason: "how long the process has run",
        take_out: |_, answer, _| answer.body = without_text(&answer.body, "uptime"),
    },
    Masked {
        name: "startTime",
        reason: "when the process was started",
        take_out: |_, answer, _| answer.body = without_text(&answer.body, "startTime"),
    },
    Masked {
        name: "etcdserver, etcdcluster, storage",
        reason: "the release; newer ones tell the version of the stored state, too",
        take_out: |ask, answer, _| {
            if ask.target.starts_with("/version") && answer.status == 200 {
                answer.body = answer.body.contains("etcdserver").to_string();
            }
        },
    },
];

/// An answer without what may differ, and the times that were in it, in seconds.
#[derive(Clone, Debug)]
pub(crate) struct Reduced {
    pub text: String,
    times: Vec<f64>,
}

impl Reduced {
    /// Reduces `answer` with every mask but the one called `without`.
    pub(crate) fn new(ask: &Ask, answer: &Answer, names: &Mask, without: Option<&str>) -> Self {
        let (mut answer, mut times) = (answer.clone(), Vec::new());
        for mask in MASKED.iter().filter(|mask| Some(mask.name) != without) {
            (mask.take_out)(ask, &mut answer, &mut times);
        }
        let headers: Vec<_> = answer.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
        let open = if answer.complete { "" } else { "(goes on)" };
        let text = names.apply(&format!("{}\n{}\n{}{open}", answer.status, headers.concat(), answer.body));
        Self { text, times }
    }

    /// Whether both sides said the same.
    pub(crate) fn agrees(&self, other: &Self) -> bool {
        let close = |(a, b): (&f64, &f64)| (a - b).abs() <= CLOCKS_APART_SECONDS;
        self.text == other.text
            && self.times.len() == other.times.len()
            && self.times.iter().zip(&other.times).all(close)
    }

    /// For reports.
    pub(crate) fn shown(&self) -> String {
        if self.times.is_empty() { self.text.clone() } else { format!("{}\ntimes: {:?}", self.text, self.times) }
    }
}

fn drop_headers(answer: &mut Answer, names: &[&str]) {
    answer.headers.retain(|(name, _)| !names.contains(&name.as_str()));
}

/// Replaces the number in a header; anything else stays and is a difference.
fn header_to(answer: &mut Answer, name: &str, text: &str) {
    for (found, value) in &mut answer.headers {
        if found == name && value.parse::<u64>().is_ok() {
            text.clone_into(value);
        }
    }
}

/// Replaces every value of `field` that is a number of seconds or a time by a mark. A text that is neither stays.
fn take_times(answer: &mut Answer, field: &str, times: &mut Vec<f64>) {
    let mark = format!("\"{field}\":");
    let mut parts = answer.body.split(&mark);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find([',', '}']).unwrap_or(part.len());
        let (value, rest) = part.split_at(end);
        out += &mark;
        if let Some(time) = seconds(value) {
            times.push(time);
            out += "TIME";
        } else {
            out += value;
        }
        out += rest;
    }
    answer.body = out;
}

/// A JSON number, or a string with a time as Go writes it: UTC, at most nine digits of a second, none of them a zero at
/// the end.
fn seconds(json: &str) -> Option<f64> {
    let Some(text) = json.strip_prefix('"') else { return json.parse::<i64>().ok().and(json.parse().ok()) };
    let text = text.strip_suffix("Z\"")?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 9 || fraction.ends_with('0') || (text.contains('.') && fraction.is_empty()) {
        return None;
    }
    let since: Duration =
        humantime::parse_rfc3339(&format!("{whole}Z")).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(since.as_secs_f64() + format!("0.{fraction}0").parse::<f64>().ok()?)
}

/// Empties every string that is the value of `field`.
fn without_text(json: &str, field: &str) -> String {
    let mark = format!("\"{field}\":\"");
    let mut parts = json.split(&mark);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out = out + &mark + part.find('"').and_then(|end| part.get(end..)).unwrap_or_default();
    }
    out
}

/// Puts the elements of every array called `nodes` into the order of their text, which begins with the key.
pub(crate) fn with_sorted_nodes(json: &str) -> String {
    const MARK: &str = "\"nodes\":[";
    let Some((before, array)) = json.split_once(MARK) else { return json.to_owned() };
    let (mut elements, length) = elements(array);
    for element in &mut elements {
        *element = with_sorted_nodes(element);
    }
    elements.sort();
    let behind = with_sorted_nodes(array.get(length..).unwrap_or_default());
    format!("{before}{MARK}{}{behind}", elements.join(","))
}

/// The elements of the array whose inside begins `text`, and where its closing bracket is.
fn elements(text: &str) -> (Vec<String>, usize) {
    let (mut found, mut depth, mut from, mut quoted, mut escaped) = (Vec::new(), 0_usize, 0, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'{' | b'[' => depth += 1,
            b'}' => depth -= 1,
            b']' if depth > 0 => depth -= 1,
            b',' if depth == 0 => {
                found.push(text.get(from..at).unwrap_or_default().to_owned());
                from = at + 1;
            }
            b']' => {
                found.push(text.get(from..at).unwrap_or_default().to_owned());
                return (found, at);
            }
            _ => {}
        }
    }
    (vec![text.to_owned()], text.len())
}

#[test]
fn listings_are_compared_as_sets() {
    let one =
        r#"{"node":{"nodes":[{"key":"/b","value":"]},{"},{"key":"/a","nodes":[{"key":"/a/2"},{"key":"/a/1"}]}]}}"#;
    let two =
        r#"{"node":{"nodes":[{"key":"/a","nodes":[{"key":"/a/1"},{"key":"/a/2"}]},{"key":"/b","value":"]},{"}]}}"#;
    assert_eq!(with_sorted_nodes(one), two);
    assert_eq!(with_sorted_nodes(r#"{"node":{"dir":true}}"#), r#"{"node":{"dir":true}}"#);
}

#[test]
fn times_are_times_as_go_writes_them() {
    assert_eq!(seconds("12"), Some(12.0));
    assert_eq!(seconds("\"1970-01-01T00:00:01.5Z\""), Some(1.5));
    assert_eq!(seconds("\"1970-01-01T00:00:01Z\""), Some(1.0));
    for wrong in ["\"1970-01-01T00:00:01.50Z\"", "\"1970-01-01T00:00:01.Z\"", "\"1970-01-01T00:00:01\"", "\"x\"", "x"] {
        assert_eq!(seconds(wrong), None, "{wrong}");
    }
}
