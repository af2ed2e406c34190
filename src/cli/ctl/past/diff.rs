//! `diff`: what differs between two revisions.
//!
//! Keys of both revisions are read side by side, in their order and without values; values are read of the keys that
//! differ alone.

use std::{cmp::Ordering, collections::VecDeque};

use bytes::Bytes;

use super::{
    super::{
        super::{
            failure::{Exit, Failure},
            go_text,
            output::{Change, Difference},
            parse::Call,
            table::{Command, Flag, Group, Running},
        },
        keys::Span,
        mirror::behind,
        session::Session,
    },
    COMPACTED, oldest, present,
};
use crate::{
    client::ClientError,
    pb::{etcdserverpb::RangeRequest, mvccpb::KeyValue},
};

const KEYS_ONLY: Flag = Flag::switch("keys-only", "no values");

pub(in super::super) const DIFF: Command = Command {
    name: "diff",
    is_own: true,
    arguments: "[options] <revision> <revision> [prefix]",
    about: "Shows what differs between two revisions",
    details: "Shows the keys that were added, removed or changed between two revisions, in the order of keys.\n\n\
              A revision of 0 is the present one. A key counts as changed if it was written in between, also with the value\n\
              that it had. The simple form has one line per key, which begins with +, - or ~; the json form has one object\n\
              per line.",
    group: Group::KeyValue,
    flags: &[KEYS_ONLY],
    run: Some(diff),
    ..Command::EMPTY
};

fn diff(mut call: Call) -> Running {
    Box::pin(async move {
        let words = call.argument_bytes();
        let (Some([from, to]), 2..=3) = (words.first_chunk::<2>(), words.len()) else {
            return Err(Failure::bad_arguments("diff command needs two revisions and an optional prefix"));
        };
        let (from, to) = (revision(from)?, revision(to)?);
        let span = Span::of_prefix(words.get(2).map_or(&[], Vec::as_slice));
        let session = Session::open(&mut call).await?;
        let now = present(&session, span.key.clone()).await?;
        let (from, to) = (known(from, now)?, known(to, now)?);
        let differ = Differ { session: &session, keys_only: call.flags.switch(&KEYS_ONLY), from, to };
        match differ.show(&span).await {
            Err(Broken::Compacted(revision)) => {
                let oldest = oldest(&session, span.key).await?;
                let text =
                    format!("revision {revision} has been compacted: the oldest one that can be read is {oldest}");
                Err(Failure::new(Exit::Error, text))
            }
            Err(Broken::Other(failure)) => Err(failure),
            Ok(()) => Ok(()),
        }
    })
}

fn revision(word: &[u8]) -> Result<i64, Failure> {
    let text = String::from_utf8_lossy(word);
    let refused = |why: String| Failure::bad_arguments(format_args!("bad revision ({why})"));
    let revision = go_text::parse_int(&text, 10).map_err(refused)?;
    if revision < 0 { Err(refused(format!("{revision} is negative"))) } else { Ok(revision) }
}

/// The revision that is meant, if it has been there.
fn known(revision: i64, now: i64) -> Result<i64, Failure> {
    match revision {
        0 => Ok(now),
        future if future > now => {
            let text = format_args!("revision {future} is still to come: the present one is {now}");
            Err(Failure::new(Exit::Error, text))
        }
        past => Ok(past),
    }
}

/// Why there is no more to show.
enum Broken {
    Compacted(i64),
    Other(Failure),
}

impl Broken {
    /// A read at `revision` failed.
    fn reading(revision: i64, error: ClientError) -> Self {
        if error.is_refusal(COMPACTED) { Self::Compacted(revision) } else { Self::Other(error.into()) }
    }
}

struct Differ<'a> {
    session: &'a Session,
    keys_only: bool,
    from: i64,
    to: i64,
}

impl Differ<'_> {
    async fn show(&self, span: &Span) -> Result<(), Broken> {
        let mut before = Keys::new(self.session, span, self.from);
        let mut after = Keys::new(self.session, span, self.to);
        loop {
            before.fill().await?;
            after.fill().await?;
            if before.page.is_empty() && after.page.is_empty() {
                return Ok(());
            }
            let Some(change) = pair(&mut before.page, &mut after.page) else { continue };
            let difference = Difference { change: self.with_values(change).await?, keys_only: self.keys_only };
            self.session.print(&difference).map_err(Broken::Other)?;
        }
    }

    async fn with_values(&self, change: Change) -> Result<Change, Broken> {
        if self.keys_only {
            return Ok(change);
        }
        Ok(match change {
            Change::Added(kv) => Change::Added(self.value(kv, self.to).await?),
            Change::Removed(kv) => Change::Removed(self.value(kv, self.from).await?),
            Change::Changed(old, new) => {
                Change::Changed(self.value(old, self.from).await?, self.value(new, self.to).await?)
            }
        })
    }

    async fn value(&self, kv: KeyValue, revision: i64) -> Result<KeyValue, Broken> {
        let request = RangeRequest { key: kv.key.clone(), revision, ..RangeRequest::default() };
        let answer = self.session.call(request).await.map_err(|error| Broken::reading(revision, error))?;
        Ok(answer.kvs.into_iter().next().unwrap_or(kv))
    }
}

/// Takes the next key off both sides, or off the one that has it first. `None` if it has not changed, or there is none.
fn pair(before: &mut VecDeque<KeyValue>, after: &mut VecDeque<KeyValue>) -> Option<Change> {
    let order = match (before.front(), after.front()) {
        (Some(old), Some(new)) => old.key.cmp(&new.key),
        (Some(_), None) => Ordering::Less,
        (None, _) => Ordering::Greater,
    };
    let old = if order.is_le() { before.pop_front() } else { None };
    let new = if order.is_ge() { after.pop_front() } else { None };
    match (old, new) {
        (Some(old), Some(new)) => (old.mod_revision != new.mod_revision).then_some(Change::Changed(old, new)),
        (Some(old), None) => Some(Change::Removed(old)),
        (None, new) => new.map(Change::Added),
    }
}

/// The keys of one revision in their order, a page at a time.
struct Keys<'a> {
    session: &'a Session,
    page: VecDeque<KeyValue>,
    /// Where the next page begins; `None` behind the last.
    next: Option<Bytes>,
    range_end: Bytes,
    revision: i64,
}

impl<'a> Keys<'a> {
    fn new(session: &'a Session, span: &Span, revision: i64) -> Self {
        let Span { key, range_end } = span.clone();
        Self { session, page: VecDeque::new(), next: Some(key), range_end, revision }
    }

    /// Reads the next page if there is none at hand.
    async fn fill(&mut self) -> Result<(), Broken> {
        let Some(key) = self.next.clone().filter(|_| self.page.is_empty()) else { return Ok(()) };
        let request = RangeRequest {
            key,
            range_end: self.range_end.clone(),
            revision: self.revision,
            limit: PAGE_KEYS,
            keys_only: true,
            ..RangeRequest::default()
        };
        let answer = self.session.call(request).await.map_err(|error| Broken::reading(self.revision, error))?;
        self.next = answer.kvs.last().filter(|_| answer.more).map(|last| behind(&last.key));
        self.page = answer.kvs.into();
        Ok(())
    }
}

/// Keys that are read at once.
const PAGE_KEYS: i64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn kv(key: &'static str, mod_revision: i64) -> KeyValue {
        KeyValue { key: key.into(), mod_revision, ..KeyValue::default() }
    }

    #[test]
    fn keys_are_paired_in_their_order() {
        let mut before: VecDeque<_> = [kv("a", 2), kv("b", 3), kv("d", 4)].into();
        let mut after: VecDeque<_> = [kv("b", 3), kv("c", 6), kv("d", 7)].into();
        let changes: Vec<_> = (0..4).filter_map(|_| pair(&mut before, &mut after)).collect();
        let expected =
            [Change::Removed(kv("a", 2)), Change::Added(kv("c", 6)), Change::Changed(kv("d", 4), kv("d", 7))];
        assert_eq!(changes, expected);
        assert_eq!(pair(&mut before, &mut after), None);
    }

    #[test]
    fn revisions_are_past_ones() {
        let said = |failure: Failure| failure.message.unwrap_or_default();
        assert_eq!((known(0, 9), known(9, 9)), (Ok(9), Ok(9)));
        assert_eq!(said(known(10, 9).unwrap_err()), "revision 10 is still to come: the present one is 9");
        assert_eq!(said(revision(b"-1").unwrap_err()), "bad revision (-1 is negative)");
        let text = "bad revision (strconv.ParseInt: parsing \"x\": invalid syntax)";
        assert_eq!(said(revision(b"x").unwrap_err()), text);
    }
}
