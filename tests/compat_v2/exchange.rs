//! HTTP/1.1 as it is on the wire, so that every header a side sends can be compared, and answers that go on can be read
//! as far as they are.

use std::io::{Error, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longest wait for one answer; a request that hangs is a difference, not a hung test.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Read at a time.
const PIECE_BYTES: usize = 64 * 1024;

/// One request. `MEMBER`, `CLIENT` and `PEER` in it stand for what the side that gets it calls so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub method: &'static str,
    pub target: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

impl Ask {
    pub(crate) fn new(method: &'static str, target: &str) -> Self {
        Self { method, target: target.to_owned(), headers: Vec::new(), body: Vec::new() }
    }

    /// With a body of the given media type.
    pub(crate) fn with_body(mut self, media_type: &str, body: impl Into<Vec<u8>>) -> Self {
        self.headers.push(("Content-Type", media_type.to_owned()));
        self.body = body.into();
        self
    }

    /// With a form as body.
    pub(crate) fn with_form(self, form: &str) -> Self {
        self.with_body("application/x-www-form-urlencoded", form)
    }

    pub(crate) fn with_header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// Whether this is, or may be, an update (`prevExist=true`) that gives no value.
    pub(crate) fn may_update_without_value(&self) -> bool {
        let is_form = self.headers.iter().any(|(name, value)| *name == "Content-Type" && value.contains("form"));
        let body = if is_form { String::from_utf8_lossy(&self.body) } else { "".into() };
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        let pairs = || body.split('&').chain(query.split('&')).filter_map(|pair| pair.split_once('='));
        let first = |wanted: &str| pairs().find(|(name, _)| *name == wanted).map(|(_, value)| value);
        let updates = first("prevExist").is_some_and(|value| ["1", "t", "T", "TRUE", "true", "True"].contains(&value));
        self.method == "PUT" && updates && first("value").is_none_or(str::is_empty)
    }

    fn bytes(&self, host: SocketAddr, fill: impl Fn(&str) -> String) -> Vec<u8> {
        // Bodies that are no text have no names in them.
        let body = std::str::from_utf8(&self.body).map_or_else(|_| self.body.clone(), |text| fill(text).into_bytes());
        let mut lines = vec![format!("{} {} HTTP/1.1", self.method, fill(&self.target)), format!("Host: {host}")];
        lines.extend(self.headers.iter().map(|(name, value)| format!("{name}: {}", fill(value))));
        lines.push(format!("Content-Length: {}\r\n\r\n", body.len()));
        let head = lines.join("\r\n");
        [head.into_bytes(), body].concat()
    }
}

/// An answer, or what has come of it so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub status: u16,
    /// Names in lower case, sorted.
    pub headers: Vec<(String, String)>,
    pub body: String,
    pub complete: bool,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// What a request was answered with instead of an answer.
    pub(crate) fn failure(error: &Error) -> Self {
        Self { status: 0, headers: Vec::new(), body: format!("no answer: {}", error.kind()), complete: true }
    }
}

/// One side's end of a conversation.
pub(crate) struct Connection {
    address: SocketAddr,
    stream: Option<TcpStream>,
}

impl Connection {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, stream: None }
    }

    /// Sends a request; what became of it shows in [`receive`](Self::receive).
    pub(crate) fn send(&mut self, ask: &Ask, fill: impl Fn(&str) -> String) {
        let stream = self.stream.take().or_else(|| TcpStream::connect_timeout(&self.address, ANSWER_LIMIT).ok());
        let Some(mut stream) = stream else { return };
        let bytes = ask.bytes(self.address, fill);
        // A server that does not want so much answers and stops reading; its answer is there all the same.
        drop(stream.set_write_timeout(Some(ANSWER_LIMIT)));
        drop(stream.set_nodelay(true));
        drop(stream.write_all(&bytes));
        self.stream = Some(stream);
    }

    /// The answer to what was sent last.
    pub(crate) fn receive(&mut self, method: &'static str) -> Answer {
        let Some(stream) = self.stream.take() else { return Answer::failure(&ErrorKind::NotConnected.into()) };
        let mut incoming = Incoming::new(stream, method);
        match incoming.read_until(ANSWER_LIMIT, |answer| answer.complete) {
            Ok(answer) => {
                let closes = answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
                self.stream = (!closes && !incoming.ended).then_some(incoming.stream);
                answer
            }
            Err(error) => Answer::failure(&error),
        }
    }

    /// The answer to what was sent last, as soon as its head is there, and a connection that is its own.
    pub(crate) fn detach(&mut self, method: &'static str) -> Result<Incoming, Error> {
        let stream = self.stream.take().ok_or(ErrorKind::NotConnected)?;
        let mut incoming = Incoming::new(stream, method);
        incoming.read_until(ANSWER_LIMIT, |_| true)?;
        Ok(incoming)
    }
}

/// An answer on its way, read piece by piece.
pub(crate) struct Incoming {
    stream: TcpStream,
    method: &'static str,
    /// Read, and not understood yet.
    bytes: Vec<u8>,
    head: Option<(u16, Vec<(String, String)>)>,
    body: Vec<u8>,
    complete: bool,
    ended: bool,
    /// Whether something has come since [`settled`](Self::settled) was called.
    pub fresh: bool,
}

impl Incoming {
    fn new(stream: TcpStream, method: &'static str) -> Self {
        let (bytes, body) = (Vec::new(), Vec::new());
        Self { stream, method, bytes, head: None, body, complete: false, ended: false, fresh: true }
    }

    fn read_until(&mut self, limit: Duration, enough: impl Fn(&Answer) -> bool) -> Result<Answer, Error> {
        self.stream.set_read_timeout(Some(limit))?;
        loop {
            // Answers are whole in most cases, and copied only then.
            if let Some(answer) = self.head.is_some().then(|| self.so_far()).flatten()
                && enough(&answer)
            {
                return Ok(answer);
            }
            if self.ended {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            self.read_piece()?;
        }
    }

    /// Reads what is there.
    pub(crate) fn poll(&mut self) {
        // Waiting is left to the caller: the shortest time-out of a socket is several milliseconds.
        if !self.ended && self.stream.set_nonblocking(true).is_ok() {
            while self.read_piece().is_ok() && !self.ended {}
        }
    }

    /// The answer so far, once its head is there.
    pub(crate) fn so_far(&self) -> Option<Answer> {
        let (status, headers) = self.head.clone()?;
        let body = String::from_utf8_lossy(&self.body).into_owned();
        Some(Answer { status, headers, body, complete: self.complete })
    }

    /// What has come was looked at; with `forget` its body does not count any more.
    pub(crate) fn settled(&mut self, forget: bool) {
        self.fresh = false;
        if forget {
            self.body.clear();
        }
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    fn read_piece(&mut self) -> Result<(), Error> {
        let mut piece = vec![0; PIECE_BYTES];
        let length = self.stream.read(&mut piece)?;
        self.ended = length == 0;
        self.fresh = true;
        self.bytes.extend_from_slice(piece.get(..length).unwrap_or_default());
        self.understand();
        Ok(())
    }

    fn understand(&mut self) {
        // An answer that only announces another one is passed over.
        while self.head.as_ref().is_none_or(|(status, _)| *status == 100) {
            let Some(end) = self.bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return };
            let head: Vec<u8> = self.bytes.drain(..end + 4).collect();
            self.head = parse_head(&String::from_utf8_lossy(&head));
            if self.head.is_none() {
                return;
            }
        }
        let Some((status, headers)) = &self.head else { return };
        let header = |name: &str| headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
        if self.method == "HEAD" || matches!(status, 204 | 304) {
            self.complete = true;
        } else if header("transfer-encoding") == Some("chunked") {
            self.complete |= take_chunks(&mut self.bytes, &mut self.body);
        } else {
            let length = header("content-length").and_then(|length| length.parse::<usize>().ok());
            self.body.append(&mut self.bytes);
            self.complete = length.map_or(self.ended, |length| self.body.len() >= length);
        }
    }
}

fn parse_head(head: &str) -> Option<(u16, Vec<(String, String)>)> {
    let mut lines = head.trim_end().split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let pair = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    };
    let mut headers: Vec<_> = lines.filter_map(pair).collect();
    headers.sort();
    Some((status, headers))
}

/// Moves whole chunks from `bytes` into `body`; whether the last one was among them.
fn take_chunks(bytes: &mut Vec<u8>, body: &mut Vec<u8>) -> bool {
    let (mut at, mut last) = (0, false);
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty() && !last) {
        let Some(end) = rest.windows(2).position(|window| window == b"\r\n") else { break };
        let size = rest.get(..end).and_then(|digits| std::str::from_utf8(digits).ok());
        let Some(size) = size.and_then(|digits| usize::from_str_radix(digits, 16).ok()) else { break };
        let Some(chunk) = rest.get(end + 2..end + 2 + size).filter(|_| rest.len() >= end + size + 4) else { break };
        body.extend_from_slice(chunk);
        last = size == 0;
        at += end + size + 4;
    }
    bytes.drain(..at);
    last
}

#[test]
fn answers_are_read_as_far_as_they_are() {
    let read = |text: &[u8]| {
        let (mut bytes, mut body) = (text.to_vec(), Vec::new());
        let last = take_chunks(&mut bytes, &mut body);
        (body, bytes, last)
    };
    assert_eq!(read(b"3\r\nabc\r\n2\r\nd"), (b"abc".to_vec(), b"2\r\nd".to_vec(), false));
    assert_eq!(read(b"3\r\nabc\r\n0\r\n\r\n"), (b"abc".to_vec(), Vec::new(), true));
    let (status, headers) = parse_head("HTTP/1.1 201 Created\r\nX-Etcd-Index: 7\r\nDate: x\r\n\r\n").expect("a head");
    assert_eq!(status, 201);
    assert_eq!(headers, [("date".to_owned(), "x".to_owned()), ("x-etcd-index".to_owned(), "7".to_owned())]);
}
