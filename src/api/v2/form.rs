//! Parameters of a request, as the HTTP library of Go read them when etcd had this API: from the query, and of `PUT` and
//! `POST` from a form in the body, whose values come first; separated by `&` or `;`.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    body::Body,
    extract::Request,
    http::{Method, header::CONTENT_TYPE},
};
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::{
    select,
    sync::{AcquireError, Semaphore, SemaphorePermit},
    task::spawn_blocking,
    time::timeout,
};

use crate::clock::Stopwatch;

/// Longest form in a body (Go's limit).
const FORM_BYTES_MAX: usize = 10 << 20;
/// Long forms that have arrived and are not carried out yet, in bytes; what comes further waits at its sender. One form may
/// be beyond it ([`Room`]).
const FORM_BYTES_IN_FLIGHT_MAX: usize = 64 << 20;
/// Forms up to this length do not wait for others, and are read where they arrive.
const SHORT_FORM_BYTES: usize = 64 << 10;
/// Time for a form to arrive; that it waits for others does not count.
const FORM_PATIENCE: Duration = Duration::from_mins(1);
const FORM_TYPE: &str = "application/x-www-form-urlencoded";

/// Room for long forms. Each takes as much as has arrived of it, so that who announces a form and sends none takes nothing.
#[derive(Debug)]
pub(in crate::api) struct Room {
    bytes: Semaphore,
    /// Whose form needs no room any more. Without it forms that have arrived in part could wait for each other.
    overdraft: Semaphore,
}

impl Room {
    const fn new(bytes: usize) -> Self {
        Self { bytes: Semaphore::const_new(bytes), overdraft: Semaphore::const_new(1) }
    }
}

impl Default for Room {
    fn default() -> Self {
        Self::new(FORM_BYTES_IN_FLIGHT_MAX)
    }
}

/// What one form has of the room.
#[derive(Debug, Default)]
struct Share<'a> {
    bytes: Option<SemaphorePermit<'a>>,
    overdraft: Option<SemaphorePermit<'a>>,
}

impl<'a> Share<'a> {
    /// Takes room for so many bytes more, when there is some or nobody else is beyond it.
    async fn grow(&mut self, bytes: usize, room: &'a Room) -> Result<(), AcquireError> {
        if self.overdraft.is_some() {
            return Ok(());
        }
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        select! {
            biased;
            more = room.bytes.acquire_many(bytes) => match &mut self.bytes {
                Some(share) => share.merge(more?),
                none => *none = Some(more?),
            },
            turn = room.overdraft.acquire() => self.overdraft = Some(turn?),
        }
        Ok(())
    }
}

/// The first value of each parameter that somebody asks for.
#[derive(Debug)]
pub(super) struct Form<'a> {
    values: Values,
    _share: Share<'a>,
}

#[derive(Debug)]
struct Values {
    names: &'static [&'static str],
    found: BTreeMap<&'static str, Bytes>,
}

impl<'a> Form<'a> {
    /// Reads the parameters of `request`, and keeps those of these names; `room` is for long forms.
    ///
    /// # Errors
    /// What is wrong with them, in Go's words.
    pub(super) async fn read(request: Request, names: &'static [&'static str], room: &'a Room) -> Result<Self, String> {
        let (head, body) = request.into_parts();
        let mut values = Values { names, found: BTreeMap::new() };
        let (mut verdict, mut share) = (Ok(()), Share::default());
        if matches!(head.method, Method::PUT | Method::POST) {
            let media =
                head.headers.get(CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
            let (is_form, well_formed) = media.as_deref().map_or((false, Ok(())), judge_media_type);
            verdict = well_formed;
            if is_form {
                let text = receive(body, &mut share, room).await?;
                let read;
                (values, read) = values.with(text).await?;
                verdict = verdict.and(read);
            }
        }
        verdict.and(values.take(head.uri.query().unwrap_or_default().as_bytes()))?;
        Ok(Self { values, _share: share })
    }

    /// The value of a parameter that is there, even if it is empty.
    pub(super) fn get(&self, name: &str) -> Option<&[u8]> {
        self.values.get(name).map(Bytes::as_ref)
    }

    /// The value of a parameter, empty if it is not there.
    pub(super) fn text(&self, name: &str) -> Bytes {
        self.values.get(name).cloned().unwrap_or_default()
    }

    /// A switch; off if it is not there.
    pub(super) fn switch(&self, name: &str) -> Result<bool, ()> {
        Ok(self.optional_switch(name)?.unwrap_or_default())
    }

    /// A switch that may be not there.
    pub(super) fn optional_switch(&self, name: &str) -> Result<Option<bool>, ()> {
        match self.get(name) {
            None => Ok(None),
            Some(b"1" | b"t" | b"T" | b"TRUE" | b"true" | b"True") => Ok(Some(true)),
            Some(b"0" | b"f" | b"F" | b"FALSE" | b"false" | b"False") => Ok(Some(false)),
            Some(_) => Err(()),
        }
    }

    /// A number; zero if it is not there.
    pub(super) fn number(&self, name: &str) -> Result<u64, ()> {
        let Some(digits) = self.get(name) else { return Ok(0) };
        let plain = digits.iter().all(u8::is_ascii_digit);
        let text = std::str::from_utf8(digits).ok().filter(|_| plain).ok_or(())?;
        text.parse().map_err(|_| ())
    }
}

impl Values {
    fn get(&self, name: &str) -> Option<&Bytes> {
        debug_assert!(self.names.contains(&name), "{name} is not kept");
        self.found.get(name)
    }

    /// With what the text of a form says besides. A long one takes its time, so others go on meanwhile; how many there are at
    /// a time is bounded by the room.
    async fn with(mut self, text: Vec<u8>) -> Result<(Self, Result<(), String>), String> {
        let long = text.len() > SHORT_FORM_BYTES;
        let read = move || {
            let verdict = self.take(&text);
            (self, verdict)
        };
        if long { spawn_blocking(read).await.map_err(|gone| gone.to_string()) } else { Ok(read()) }
    }

    /// Adds what `text` says, behind what is there. The first mistake is told, and everything that is right is taken.
    fn take(&mut self, text: &[u8]) -> Result<(), String> {
        let mut outcome = Ok(());
        for pair in text.split(|byte| b"&;".contains(byte)).filter(|pair| !pair.is_empty()) {
            outcome = outcome.and(self.take_pair(pair));
        }
        outcome
    }

    fn take_pair(&mut self, pair: &[u8]) -> Result<(), String> {
        let equals = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
        let (name, value) = pair.split_at(equals);
        let (name, value) = (unescaped(name)?, unescaped(value.get(1..).unwrap_or_default())?);
        if let Some(known) = self.names.iter().find(|known| known.as_bytes() == name) {
            self.found.entry(known).or_insert_with(|| value.into());
        }
        Ok(())
    }
}

/// The text of a form. What comes beyond a short one waits for room.
async fn receive<'a>(body: Body, share: &mut Share<'a>, room: &'a Room) -> Result<Vec<u8>, String> {
    let mut body = Limited::new(body, FORM_BYTES_MAX);
    let (mut text, mut patience, mut taken) = (Vec::new(), FORM_PATIENCE, 0);
    loop {
        let waited = Stopwatch::start();
        let frame = timeout(patience, body.frame()).await.map_err(|_| "the form did not arrive in time".to_owned())?;
        patience = patience.saturating_sub(waited.elapsed());
        let Some(frame) = frame else { return Ok(text) };
        let frame = frame.map_err(|error| {
            let too_long = error.is::<LengthLimitError>();
            if too_long { "http: POST too large".to_owned() } else { error.to_string() }
        })?;
        text.extend_from_slice(frame.data_ref().map(Bytes::as_ref).unwrap_or_default());
        if text.len() > SHORT_FORM_BYTES {
            share.grow(text.len() - taken, room).await.map_err(|closed| closed.to_string())?;
            taken = text.len();
        }
    }
}

/// Undoes form encoding.
fn unescaped(text: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        match first {
            b'+' => out.push(b' '),
            b'%' => {
                out.push(escape(behind).ok_or_else(|| bad_escape(behind))?);
                rest = behind.get(2..).unwrap_or_default();
            }
            byte => out.push(*byte),
        }
    }
    Ok(out)
}

fn bad_escape(behind_percent: &[u8]) -> String {
    let digits = behind_percent.get(..2).unwrap_or(behind_percent);
    format!("invalid URL escape {:?}", format!("%{}", String::from_utf8_lossy(digits)))
}

/// The byte that the two digits at the beginning mean.
fn escape(text: &[u8]) -> Option<u8> {
    let digits = text.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Undoes the escapes of a path; what is none stays as it is.
pub(in crate::api) fn unescaped_path(text: &str) -> Vec<u8> {
    let mut parts = text.as_bytes().split(|byte| *byte == b'%');
    let mut out = parts.next().unwrap_or_default().to_vec();
    for part in parts {
        match escape(part) {
            Some(byte) => {
                out.push(byte);
                out.extend_from_slice(part.get(2..).unwrap_or_default());
            }
            None => out.extend([b"%", part].concat()),
        }
    }
    out
}

/// A path as Go writes it into an address.
pub(super) fn escaped_path(path: &[u8]) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&byte);
    let written = |byte: &u8| if plain(*byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") };
    path.iter().map(written).collect()
}

/// Whether a body of this media type is a form, and whether the type is well-formed. Go reads a form whose type has
/// malformed parameters, and refuses it all the same.
fn judge_media_type(media: &str) -> (bool, Result<(), String>) {
    let mut parts = media.split(';');
    let name = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
    let problem = match name.split_once('/') {
        _ if name.is_empty() => Some("mime: no media type"),
        None if is_token(&name) => None,
        Some((kind, _)) if !is_token(kind) => Some("mime: no media type"),
        Some((_, "")) => Some("mime: expected token after slash"),
        Some((_, sub)) if is_token(sub) => None,
        _ => Some("mime: unexpected content after media subtype"),
    };
    if let Some(problem) = problem {
        return (false, Err(problem.to_owned()));
    }
    let parameters: Vec<&str> = parts.map(str::trim).collect();
    let well_formed = parameters.iter().enumerate().all(|(number, parameter)| {
        let last = number + 1 == parameters.len();
        (last && parameter.is_empty()) || is_parameter(parameter)
    });
    let problem = if well_formed { Ok(()) } else { Err("mime: invalid media parameter".to_owned()) };
    (name == FORM_TYPE, problem)
}

fn is_parameter(text: &str) -> bool {
    let quoted = |value: &str| value.len() > 1 && value.starts_with('"') && value.ends_with('"');
    text.split_once('=').is_some_and(|(name, value)| is_token(name.trim()) && (is_token(value) || quoted(value)))
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`{|}~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    static ROOM: Room = Room::new(FORM_BYTES_IN_FLIGHT_MAX);

    const NAMES: [&str; 9] = ["a", "b", "c", "d", "e", "k", "m", "n", "none"];

    async fn form(method: Method, uri: &str, media: Option<&str>, body: &'static str) -> Result<Form<'static>, String> {
        let mut request = Request::builder().method(method).uri(uri);
        if let Some(media) = media {
            request = request.header(CONTENT_TYPE, media);
        }
        Form::read(request.body(Body::from(body)).unwrap(), &NAMES, &ROOM).await
    }

    async fn put(uri: &str, body: &'static str) -> Result<Form<'static>, String> {
        form(Method::PUT, uri, Some(FORM_TYPE), body).await
    }

    #[tokio::test]
    async fn body_comes_before_the_query_and_first_values_count() {
        let found = put("/?a=query&b=query;a=second", "a=body%20+x;c").await.unwrap();
        assert_eq!(
            (found.get("a"), found.get("b"), found.get("c")),
            (Some(&b"body  x"[..]), Some(&b"query"[..]), Some(&b""[..]))
        );
        assert_eq!(found.get("d"), None);
        assert_eq!(put("/", "a=1&other=2").await.unwrap().values.found.len(), 1, "what nobody asks for is not kept");
    }

    #[tokio::test]
    async fn only_forms_are_read_and_only_of_puts_and_posts() {
        for (method, media) in [
            (Method::GET, Some(FORM_TYPE)),
            (Method::DELETE, Some(FORM_TYPE)),
            (Method::PUT, None),
            (Method::PUT, Some("text/plain")),
        ] {
            assert_eq!(form(method, "/", media, "a=1").await.unwrap().get("a"), None, "{media:?}");
        }
        let typed = form(Method::POST, "/", Some("Application/X-www-form-urlencoded; charset=utf-8;"), "a=1").await;
        assert_eq!(typed.unwrap().get("a"), Some(&b"1"[..]));
        let malformed = form(Method::PUT, "/", Some("application/x-www-form-urlencoded; x"), "a=1").await;
        assert_eq!(malformed.unwrap_err(), "mime: invalid media parameter");
    }

    #[tokio::test]
    async fn mistakes_are_told_in_gos_words() {
        for (query, told) in [
            ("a=%zz", "invalid URL escape \"%zz\""),
            ("a=%z", "invalid URL escape \"%z\""),
            ("%=1", "invalid URL escape \"%\""),
        ] {
            assert_eq!(put(&format!("/?{query}"), "").await.unwrap_err(), told);
        }
        let long = Body::from(vec![b'a'; FORM_BYTES_MAX + 1]);
        let request = Request::put("/").header(CONTENT_TYPE, FORM_TYPE).body(long).unwrap();
        assert_eq!(Form::read(request, &NAMES, &ROOM).await.unwrap_err(), "http: POST too large");
    }

    fn long_form(announced: usize, body: Body) -> Request {
        let request = Request::put("/").header(CONTENT_TYPE, FORM_TYPE);
        request.header(axum::http::header::CONTENT_LENGTH, announced).body(body).unwrap()
    }

    /// Whoever announced long forms and sent nothing once kept everybody else's from being read.
    #[tokio::test]
    async fn form_that_does_not_come_takes_no_room() {
        let room = Room::default();
        let silent =
            || long_form(FORM_BYTES_MAX, Body::from_stream(futures_util::stream::pending::<Result<Bytes, String>>()));
        let mut waiting: Vec<_> = (0..10).map(|_| Box::pin(Form::read(silent(), &NAMES, &room))).collect();
        for form in &mut waiting {
            assert!(futures_util::poll!(form).is_pending());
        }
        assert_eq!(room.bytes.available_permits(), FORM_BYTES_IN_FLIGHT_MAX);
        let body = format!("a={}", "x".repeat(SHORT_FORM_BYTES));
        let form = Form::read(long_form(body.len(), body.clone().into()), &NAMES, &room).await.unwrap();
        assert_eq!(room.bytes.available_permits(), FORM_BYTES_IN_FLIGHT_MAX - body.len());
        drop(form);
        assert_eq!(room.bytes.available_permits(), FORM_BYTES_IN_FLIGHT_MAX);
    }

    #[tokio::test]
    async fn forms_that_have_come_in_part_do_not_wait_for_each_other() {
        const FORMS: usize = 10;
        let piece = || Bytes::from(vec![b'x'; SHORT_FORM_BYTES + 1]);
        // Room for the first pieces of all and the second one of nobody.
        let room = Room::new(FORMS * piece().len());
        let (arrived, pieces) = (tokio::sync::Barrier::new(FORMS), [piece(), piece(), piece()]);
        let read = async |_| {
            let first = std::iter::once(Bytes::from_static(b"a=")).chain(pieces.clone());
            let body = futures_util::stream::iter(first.map(Ok::<_, String>));
            arrived.wait().await;
            let form = Form::read(long_form(FORM_BYTES_MAX, Body::from_stream(body)), &NAMES, &room).await.unwrap();
            form.text("a").len()
        };
        let lengths = futures_util::future::join_all((0..FORMS).map(read)).await;
        assert_eq!(lengths, [3 * piece().len(); FORMS]);
        assert_eq!((room.bytes.available_permits(), room.overdraft.available_permits()), (FORMS * piece().len(), 1));
    }

    #[tokio::test]
    async fn long_forms_are_read_beside_others() {
        let long = format!("a={}", "%20".repeat(SHORT_FORM_BYTES));
        let mut read = Box::pin(Form::read(long_form(long.len(), long.into()), &NAMES, &ROOM));
        assert!(futures_util::poll!(&mut read).is_pending(), "a worker of many was held up by it once");
        assert_eq!(read.await.unwrap().text("a").len(), SHORT_FORM_BYTES);
        let mut short = Box::pin(put("/", "a=1"));
        assert!(futures_util::poll!(&mut short).is_ready());
    }

    #[tokio::test]
    async fn switches_and_numbers_have_gos_spellings() {
        let found = put("/?a=T&b=False&c=&d=yes&n=18446744073709551615&m=+1&k=-1&e=", "").await.unwrap();
        assert_eq!((found.switch("a"), found.switch("b"), found.switch("none")), (Ok(true), Ok(false), Ok(false)));
        assert_eq!((found.switch("c"), found.switch("d")), (Err(()), Err(())));
        assert_eq!((found.number("n"), found.number("none")), (Ok(u64::MAX), Ok(0)));
        assert_eq!((found.number("m"), found.number("k"), found.number("e")), (Err(()), Err(()), Err(())));
    }

    #[test]
    fn paths_keep_what_is_no_escape() {
        assert_eq!(unescaped_path("/a%2Fb%00%ff%zz+"), b"/a/b\0\xff%zz+");
    }
}
