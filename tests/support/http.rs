//! The smallest HTTP/1.1 client that can ask a daemon how it is.

use std::io::{Error, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longest wait for one answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Status and body of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

/// Sends one `GET` and reads the answer to its end.
///
/// # Errors
/// Whatever the socket reports, and `InvalidData` if the answer is not HTTP.
pub fn get(address: SocketAddr, path: &str) -> Result<Answer, Error> {
    exchange(address, &format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n"))
}

/// Sends one `POST` of JSON and reads the answer to its end.
///
/// # Errors
/// As [`get`].
pub fn post(address: SocketAddr, path: &str, body: &str) -> Result<Answer, Error> {
    let length = body.len();
    let head = format!("POST {path} HTTP/1.0\r\nHost: {address}\r\nContent-Type: application/json\r\n");
    exchange(address, &format!("{head}Content-Length: {length}\r\n\r\n{body}"))
}

/// Sends one `PUT` of a form and reads the answer to its end.
///
/// # Errors
/// As [`get`].
pub fn put_form(address: SocketAddr, path: &str, form: &str) -> Result<Answer, Error> {
    let length = form.len();
    let kind = "application/x-www-form-urlencoded";
    let head = format!("PUT {path} HTTP/1.0\r\nHost: {address}\r\nContent-Type: {kind}\r\n");
    exchange(address, &format!("{head}Content-Length: {length}\r\n\r\n{form}"))
}

fn exchange(address: SocketAddr, request: &str) -> Result<Answer, Error> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    parse(&String::from_utf8_lossy(&answer)).ok_or_else(|| Error::new(ErrorKind::InvalidData, "not an HTTP answer"))
}

fn parse(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, body: body.to_owned() })
}
