//! What the audit log is told of requests.
//!
//! Every request of a client comes by here once, through whichever door: calls of the v3 services, also those in JSON, where
//! methods begin and end ([`Session`](super::v3)) or already where JSON is read, requests of the v2 API in front of its routes,
//! those of the discovery service where it is called ([`guest`](super::guest)). What of a request is told stands in [`Audited`] alone, field by
//! field: values, passwords and tokens are left out there, and what is new does not compile until somebody decides. Requests
//! that cannot be told from noise, because they name no method, leave no line: metrics count them.

mod http;
mod told;

use std::{
    borrow::Cow,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use prost::{
    Message as _,
    encoding::{WireType, decode_key, decode_varint},
};

use super::status::Status;
use crate::{
    audit::{Audit, Fields, Weight},
    clock::{self, Clock as _, Stopwatch},
    pb::{
        etcdserverpb::{Member, ResponseHeader},
        nested::{Found, next_field},
    },
    types::{Code, LeaseId, MemberId},
};

pub(super) use http::{Refused, audited};
pub(super) use told::{Audited, Subject, WatchEnded};

/// Who speaks, and through which door.
#[derive(Clone, Debug, Default)]
pub(super) struct Caller {
    /// The other end of the connection; nothing on a socket file.
    pub(super) from: Option<SocketAddr>,
    /// This end of it.
    pub(super) at: Option<SocketAddr>,
    /// The common name of the certificate that it has shown.
    pub(super) common_name: Option<Arc<str>>,
    pub(super) via: Via,
}

/// The doors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Via {
    #[default]
    Grpc,
    /// v3 as JSON.
    Gateway,
    V2,
    /// The discovery service.
    Discovery,
}

impl Via {
    fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Gateway => "gateway",
            Self::V2 => "v2",
            Self::Discovery => "discovery",
        }
    }
}

/// The line of one request, until it is written: at its end, or when it is dropped, because its client has gone away.
#[derive(Debug)]
pub(super) struct Entry {
    audit: Arc<Audit>,
    caller: Caller,
    method: Cow<'static, str>,
    begun: Stopwatch,
    draft: Mutex<Draft>,
}

/// What is known so far.
#[derive(Debug)]
struct Draft {
    user: String,
    /// Who the caller says he is, where that may be wrong.
    claimed: String,
    subject: Subject,
    weight: Weight,
    /// The request came in pieces, each of which has a line of its own.
    in_steps: bool,
    ended: bool,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, Default)]
struct Outcome<'a> {
    code: Option<Code>,
    error: &'a str,
    took: Option<Duration>,
}

impl<'a> Outcome<'a> {
    fn of<T>(outcome: &'a Result<T, Status>) -> Self {
        let status = outcome.as_ref().err();
        Self { code: status.map(Status::code), error: status.map_or("", Status::message), took: None }
    }

    /// A client that gives up what it wanted to read has done no harm, and was not kept from anything.
    fn is_failure(&self, weight: Weight) -> bool {
        match self.code {
            None => false,
            Some(Code::Canceled) => weight == Weight::Always,
            Some(_) => true,
        }
    }
}

impl Entry {
    /// A request begins.
    pub(super) fn begin(audit: &Arc<Audit>, caller: Caller, method: impl Into<Cow<'static, str>>) -> Arc<Self> {
        let draft = Draft {
            user: String::new(),
            claimed: String::new(),
            subject: Subject::default(),
            weight: Weight::Always,
            in_steps: false,
            ended: false,
        };
        let audit = Arc::clone(audit);
        Arc::new(Self { audit, caller, method: method.into(), begun: Stopwatch::start(), draft: Mutex::new(draft) })
    }

    /// The caller has been recognised.
    pub(super) fn recognised(&self, user: &str) {
        let mut draft = self.draft();
        if draft.user != user {
            user.clone_into(&mut draft.user);
        }
    }

    /// Whether nobody has said yet who the caller is.
    pub(super) fn is_nobodys(&self) -> bool {
        self.draft().user.is_empty()
    }

    /// The caller says that he is this one, and has to prove it. Told like the name of whoever logs in to the third API.
    pub(super) fn claimed(&self, user: &str) {
        user.clone_into(&mut self.draft().claimed);
    }

    /// The request has been read.
    pub(super) fn tell(&self, request: &impl Audited) {
        let mut draft = self.draft();
        draft.weight = request.tell(&mut draft.subject);
    }

    /// One of several requests that the call carries has been read; its line is written at its own end.
    pub(super) fn step(self: &Arc<Self>, request: &impl Audited) -> Step {
        let mut subject = Subject::default();
        let weight = request.tell(&mut subject);
        let mut draft = self.draft();
        if weight == Weight::Always || !draft.in_steps {
            draft.weight = weight;
        }
        draft.in_steps = true;
        drop(draft);
        Step { entry: Arc::clone(self), subject, weight }
    }

    /// The call has ended. `answer` is the encoded answer, or as much of it as holds the header.
    pub(super) fn end<T>(&self, outcome: &Result<T, Status>, answer: &[u8]) {
        self.finish(Outcome::of(outcome), |subject| subject.tell_answer(answer));
    }

    fn finish(&self, outcome: Outcome<'_>, tell_answer: impl FnOnce(&mut Subject)) {
        let mut draft = self.draft();
        if std::mem::replace(&mut draft.ended, true) {
            return;
        }
        let mut subject = std::mem::take(&mut draft.subject);
        if draft.in_steps {
            subject.fields.shown("op", "end");
        }
        let (user, weight) = (std::mem::take(&mut draft.user), draft.weight);
        if user.is_empty() {
            subject.fields.some_text("name", &draft.claimed);
        }
        drop(draft);
        let outcome = Outcome { took: Some(self.begun.elapsed()), ..outcome };
        self.write(&user, weight, outcome, || {
            tell_answer(&mut subject);
            subject.fields
        });
    }

    /// Writes the line, unless it is of a read that is not kept.
    fn write(&self, user: &str, weight: Weight, outcome: Outcome<'_>, fields: impl FnOnce() -> Fields) {
        let failed = outcome.is_failure(weight);
        if weight == Weight::Read && !failed && !self.audit.keeps_read() {
            return;
        }
        let is_stranger = user.is_empty() && self.caller.common_name.is_none();
        let weight = match failed {
            true if is_stranger => Weight::Stranger,
            true => Weight::Always,
            false => weight,
        };
        self.audit.record(&self.line(user, outcome, &fields()), weight);
    }

    fn line(&self, user: &str, outcome: Outcome<'_>, fields: &Fields) -> String {
        let Caller { from, at: _, common_name, via } = &self.caller;
        let mut line = Fields::default();
        line.shown("ts", timestamp());
        line.text("user", user);
        match from {
            Some(from) => line.shown("from", SocketAddr::new(from.ip().to_canonical(), from.port())),
            // What Go's programs show of a socket file.
            None => line.shown("from", "@"),
        }
        line.some_text("certificate", common_name.as_deref().unwrap_or_default());
        line.shown("via", via.name());
        line.text("method", &self.method);
        line.append(fields);
        match outcome.code {
            None => line.shown("code", "OK"),
            Some(code) => line.shown("code", format_args!("{code:?}")),
        }
        line.some_text("error", outcome.error);
        if let Some(took) = outcome.took {
            line.shown("took", format_args!("{took:?}"));
        }
        line.into_line()
    }

    fn draft(&self) -> MutexGuard<'_, Draft> {
        self.draft.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.end(&Err::<(), _>(Status::canceled()), &[]);
    }
}

/// The line of one of the requests that a call carries. Dropped before its end it is not written: the end of the call is.
#[derive(Debug)]
pub(super) struct Step {
    entry: Arc<Entry>,
    subject: Subject,
    weight: Weight,
}

impl Step {
    /// The request has been answered.
    pub(super) fn end<T>(self, outcome: &Result<T, Status>) {
        let Self { entry, subject, weight } = self;
        let user = entry.draft().user.clone();
        entry.write(&user, weight, Outcome::of(outcome), || subject.fields);
    }

    /// The watch has been created, under this number.
    pub(super) fn created(mut self, watch: i64) {
        if self.subject.second == Second::Watch {
            self.subject.fields.number("watch", watch);
        }
        self.end(&Ok(()));
    }
}

impl Subject {
    /// What the answer says in its first fields: all of the third API's begin with the header, and where the second one tells
    /// something, the request knows what.
    fn tell_answer(&mut self, answer: &[u8]) {
        let mut rest = answer;
        let Some(Found { number: 1, body: Some(header) }) = next_field(&mut rest) else { return };
        let Ok(ResponseHeader { revision, .. }) = ResponseHeader::decode(Bytes::copy_from_slice(header)) else {
            return;
        };
        match self.second {
            Second::Nothing | Second::Watch => {}
            Second::Succeeded => self.fields.switch("succeeded", number_in_second(rest) != 0),
            Second::Lease => self.fields.shown("lease", LeaseId(number_in_second(rest).cast_signed())),
            Second::Member => {
                if let Some(Member { id, .. }) = member_in_second(rest) {
                    self.fields.shown("member", MemberId(id));
                }
            }
        }
        if revision != 0 {
            self.fields.number("revision", revision);
        }
    }
}

/// What the second field of an answer is. One that is zero is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Second {
    /// Nothing that is told.
    #[default]
    Nothing,
    /// Whether the comparisons of a transaction held.
    Succeeded,
    /// The lease that was granted.
    Lease,
    /// The member that was added.
    Member,
    /// The watch that was created. Answers of watches have no bytes here, but are told by [`Step::created`].
    Watch,
}

fn number_in_second(mut rest: &[u8]) -> u64 {
    match decode_key(&mut rest) {
        Ok((2, WireType::Varint)) => decode_varint(&mut rest).unwrap_or_default(),
        _ => 0,
    }
}

fn member_in_second(mut rest: &[u8]) -> Option<Member> {
    let Found { number: 2, body: Some(member) } = next_field(&mut rest)? else { return None };
    Member::decode(Bytes::copy_from_slice(member)).ok()
}

/// As the log shows the time.
fn timestamp() -> humantime::Rfc3339Timestamp {
    humantime::format_rfc3339_micros(SystemTime::UNIX_EPOCH + clock::system().wall())
}

#[cfg(test)]
mod tests;
