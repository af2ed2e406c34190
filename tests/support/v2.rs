//! A client of the v2 API that shows everything of an answer, and can wait for events.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "what fails in a helper fails the test")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// Longest wait for one answer or event.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// What browsers and `curl -d` say of a form.
const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";

/// An answer with everything a client could look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// If it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Status, `errorCode` and `cause` of a refusal.
    pub fn refusal(&self) -> (u16, u64, String) {
        let json = self.json();
        (self.status, json["errorCode"].as_u64().unwrap_or(0), json["cause"].as_str().unwrap_or("").to_owned())
    }

    /// The store's index that the header tells.
    ///
    /// # Panics
    /// If there is none.
    pub fn index(&self) -> u64 {
        self.header("x-etcd-index").and_then(|index| index.parse().ok()).unwrap_or_else(|| panic!("no index: {self:?}"))
    }
}

/// Sends one request; `body` is a form if it is not empty.
pub fn ask(address: SocketAddr, method: &str, path: &str, body: &str) -> Answer {
    ask_with(address, method, path, if body.is_empty() { "" } else { FORM }, body)
}

/// Sends one request with these further header lines, each of them ended.
pub fn ask_with(address: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    let mut stream = send(address, method, path, headers, body);
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let text = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP answer: {text:?}"));
    let (status, headers) = parse_head(head);
    Answer { status, headers, body: body.to_owned() }
}

/// HTTP/1.0, so that an answer ends with its connection and comes without chunks.
fn send(address: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\n{headers}Content-Length: {length}\r\n\r\n");
    stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).unwrap();
    stream
}

fn parse_head(head: &str) -> (u16, Vec<(String, String)>) {
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap().parse().unwrap();
    let named = lines.filter_map(|line| line.split_once(": "));
    (status, named.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect())
}

/// An answer that comes line by line.
pub struct Waiting {
    /// Status and headers, which came at once.
    pub head: Answer,
    lines: BufReader<TcpStream>,
}

impl Waiting {
    /// Begins to wait; returns when the headers have come.
    pub fn begin(address: SocketAddr, path: &str) -> Self {
        let mut lines = BufReader::new(send(address, "GET", path, "", ""));
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(lines.read_line(&mut head).unwrap(), 0, "headers come at once");
        }
        let (status, headers) = parse_head(head.trim_end());
        Self { head: Answer { status, headers, body: String::new() }, lines }
    }

    /// The next event; nothing if the answer has ended.
    ///
    /// # Panics
    /// If neither comes in time.
    pub fn next(&mut self) -> Option<Value> {
        let mut line = String::new();
        let read = self.lines.read_line(&mut line).expect("an event, or the end, in time");
        (read > 0).then(|| serde_json::from_str(&line).unwrap())
    }

    /// Whether nothing comes for so long.
    pub fn is_silent(&mut self, time: Duration) -> bool {
        self.lines.get_ref().set_read_timeout(Some(time)).unwrap();
        let mut line = String::new();
        let silent = self.lines.read_line(&mut line).is_err();
        self.lines.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
        silent
    }
}
