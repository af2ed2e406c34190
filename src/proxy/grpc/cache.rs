//! Answers to reads that may be stale, until somebody who passes by changes what they tell.
//!
//! Invariants: nobody is answered from what another user was told; an answer that was under way while its keys were changed
//! is not kept, nor one that is older than a change that passed by, nor one of a cluster that was here before; entries, bytes
//! and age are bounded, the one that was not asked for the longest goes first.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use super::{identity::Identity, upstream::Token};
use crate::{
    metrics,
    types::{KeyEnd, KeyRange, Rejection},
};

/// Answers kept, as in etcd's proxy.
const ENTRIES_MAX: usize = 2_048;
/// Bytes of answers kept.
const BYTES_MAX: usize = 64 * 1024 * 1024;
/// Longest answer that is kept.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// How long an answer may be told again: somebody may have changed its keys by another way, and nobody passes by to say so.
const ANSWER_AGE_MAX: Duration = Duration::from_mins(1);
/// Changes remembered for answers that are under way; an answer that was asked for before all of them is not kept.
const CHANGES_MAX: usize = 1_024;

/// What was asked, and by whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Question {
    /// The user's token.
    pub(super) token: Option<Token>,
    /// The encoded request, in its serializable form.
    pub(super) request: Bytes,
}

/// When a question was put: which changes came later.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    change: u64,
    epoch: Epoch,
}

impl Moment {
    /// This moment, if nothing was forgotten between `since` and now; else one whose answers are not kept.
    pub(super) fn unless_forgotten_since(self, since: Self) -> Self {
        Self { epoch: since.epoch, ..self }
    }
}

/// What changes when everything is forgotten: the cluster, and what its users may see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Epoch {
    era: u64,
    rights: u64,
}

/// An answer as it is kept.
#[derive(Clone, Debug)]
pub(super) struct Told {
    /// The encoded answer.
    pub(super) answer: Bytes,
    /// The revision of the member when it answered; a member may lag.
    pub(super) revision: i64,
}

/// What an answer is about.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    /// The keys.
    pub(super) range: KeyRange,
    /// The revision that was asked for; zero for the present, which changes.
    pub(super) revision: i64,
}

/// The answers of one proxy.
#[derive(Debug, Default)]
pub(super) struct Cache {
    state: Mutex<State>,
    identity: Arc<Identity>,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<Question, Entry>,
    /// By when they were used last.
    by_use: BTreeMap<u64, Question>,
    /// Answers about the present, by what they are about.
    singles: HashMap<Bytes, HashSet<Question>>,
    ranges: HashMap<KeyRange, HashSet<Question>>,
    bytes: usize,
    uses: u64,
    epoch: Epoch,
    /// The newest change that passed by.
    changed_at: i64,
    compact_revision: i64,
    changes: VecDeque<KeyRange>,
    /// Number of the first change behind those in `changes`.
    next_change: u64,
}

#[derive(Debug)]
struct Entry {
    subject: Subject,
    told: Told,
    used: u64,
    kept: Instant,
}

impl Cache {
    /// For answers of the cluster that `identity` knows.
    pub(super) fn new(identity: Arc<Identity>) -> Self {
        Self { state: Mutex::default(), identity }
    }

    /// The answer to a question of somebody who may be told what was true some time ago.
    ///
    /// # Errors
    /// [`Rejection::Compacted`] for a revision that this proxy has seen compacted.
    pub(super) fn get(&self, question: &Question, revision: i64) -> Result<Option<Bytes>, Rejection> {
        self.get_at(question, revision, Instant::now())
    }

    fn get_at(&self, question: &Question, revision: i64, now: Instant) -> Result<Option<Bytes>, Rejection> {
        let mut state = self.lock();
        if revision > 0 && revision < state.compact_revision {
            state.remove(question);
            metrics::PROXY_CACHE_HITS.inc();
            return Err(Rejection::Compacted);
        }
        let answer = state.touch(question, now);
        let counter = if answer.is_some() { &metrics::PROXY_CACHE_HITS } else { &metrics::PROXY_CACHE_MISSES };
        counter.inc();
        Ok(answer)
    }

    /// To be asked before a question is passed on.
    pub(super) fn now(&self) -> Moment {
        let state = self.lock();
        Moment { change: state.next_change, epoch: state.epoch }
    }

    /// Whether nobody has changed `range` since.
    pub(super) fn is_unchanged(&self, range: &KeyRange, since: Moment) -> bool {
        self.lock().is_unchanged(range, since)
    }

    /// Keeps an answer to a question that was put at `since`.
    pub(super) fn keep(&self, question: Question, subject: &Subject, told: &Told, since: Moment) {
        let mut state = self.lock();
        let is_due = match subject.revision {
            0 => state.is_unchanged(&subject.range, since) && !state.is_outdated(&question, told),
            past => past >= state.compact_revision,
        };
        if told.answer.len() > ANSWER_BYTES_MAX || since.epoch != state.epoch || !is_due {
            return;
        }
        state.remove(&question);
        // A copy of its own: the bytes may be a part of something much longer.
        let subject = Subject { range: copied(&subject.range), revision: subject.revision };
        let told = Told { answer: Bytes::copy_from_slice(&told.answer), revision: told.revision };
        state.insert(question, subject, told);
        state.make_room();
        metrics::PROXY_CACHE_KEYS.set_count(state.entries.len() as u64);
    }

    /// Somebody changes these keys: what is kept about them is no answer any more. `revision` is that of the change, zero as
    /// long as nobody knows it; what is older is not kept from then on, whoever answers it.
    pub(super) fn invalidate(&self, range: &KeyRange, revision: i64) {
        let mut state = self.lock();
        state.changed_at = state.changed_at.max(revision);
        state.changes.push_back(copied(range));
        state.next_change += 1;
        if state.changes.len() > CHANGES_MAX {
            state.changes.pop_front();
        }
        for question in state.about(range) {
            state.remove(&question);
        }
        metrics::PROXY_CACHE_KEYS.set_count(state.entries.len() as u64);
    }

    /// Rights have changed: whoever was answered may have to be refused now. What is under way is not kept, either.
    pub(super) fn forget_all(&self) {
        let mut state = self.lock();
        let (epoch, changed_at, compact_revision) = (state.epoch, state.changed_at, state.compact_revision);
        let epoch = Epoch { rights: epoch.rights + 1, ..epoch };
        *state = State { epoch, changed_at, compact_revision, ..State::default() };
        metrics::PROXY_CACHE_KEYS.set_count(0);
    }

    /// Revisions below this one are not answered any more.
    pub(super) fn compact(&self, revision: i64) {
        let mut state = self.lock();
        state.compact_revision = state.compact_revision.max(revision);
    }

    /// What is known of the cluster that is behind the proxy now.
    fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let era = self.identity.era();
        if state.epoch.era != era {
            let epoch = Epoch { era, ..state.epoch };
            *state = State { epoch, ..State::default() };
            metrics::PROXY_CACHE_KEYS.set_count(0);
        }
        state
    }
}

impl State {
    fn touch(&mut self, question: &Question, now: Instant) -> Option<Bytes> {
        let entry = self.entries.get_mut(question)?;
        if now.saturating_duration_since(entry.kept) >= ANSWER_AGE_MAX {
            self.remove(question);
            metrics::PROXY_CACHE_KEYS.set_count(self.entries.len() as u64);
            return None;
        }
        self.uses += 1;
        let key = self.by_use.remove(&entry.used)?;
        entry.used = self.uses;
        self.by_use.insert(self.uses, key);
        Some(entry.told.answer.clone())
    }

    /// Whether the member that answered lags behind what passed by, or behind the one that answered before.
    fn is_outdated(&self, question: &Question, told: &Told) -> bool {
        let kept = self.entries.get(question).map_or(0, |entry| entry.told.revision);
        told.revision < self.changed_at.max(kept)
    }

    fn is_unchanged(&self, range: &KeyRange, since: Moment) -> bool {
        let Ok(later) = usize::try_from(self.next_change.saturating_sub(since.change)) else { return false };
        since.epoch == self.epoch
            && later <= self.changes.len()
            && !self.changes.iter().rev().take(later).any(|change| overlap(change, range))
    }

    fn insert(&mut self, question: Question, subject: Subject, told: Told) {
        self.uses += 1;
        self.bytes += told.answer.len() + question.request.len();
        self.by_use.insert(self.uses, question.clone());
        if subject.revision == 0 {
            match subject.range.end {
                KeyEnd::Single => self.singles.entry(subject.range.start.clone()).or_default().insert(question.clone()),
                _ => self.ranges.entry(subject.range.clone()).or_default().insert(question.clone()),
            };
        }
        self.entries.insert(question, Entry { subject, told, used: self.uses, kept: Instant::now() });
    }

    fn remove(&mut self, question: &Question) {
        let Some(Entry { subject, told, used, .. }) = self.entries.remove(question) else { return };
        self.bytes -= told.answer.len() + question.request.len();
        self.by_use.remove(&used);
        match subject.range.end {
            KeyEnd::Single => take_out(&mut self.singles, &subject.range.start, question),
            _ => take_out(&mut self.ranges, &subject.range, question),
        }
    }

    fn make_room(&mut self) {
        while self.entries.len() > ENTRIES_MAX || self.bytes > BYTES_MAX {
            let Some(oldest) = self.by_use.first_key_value().map(|(_, question)| question.clone()) else { return };
            self.remove(&oldest);
        }
    }

    /// The answers about the present that a change of `range` concerns. One key, the common case, is looked up.
    fn about(&self, range: &KeyRange) -> Vec<Question> {
        let wide = self.ranges.iter().filter(|(kept, _)| overlap(kept, range)).flat_map(|(_, questions)| questions);
        let mut found: Vec<Question> = wide.cloned().collect();
        match range.end {
            KeyEnd::Single => found.extend(self.singles.get(&range.start).into_iter().flatten().cloned()),
            _ => found.extend(self.singles.iter().filter(|(key, _)| range.contains(key)).flat_map(|(_, q)| q).cloned()),
        }
        found
    }
}

fn take_out<K: Eq + std::hash::Hash>(index: &mut HashMap<K, HashSet<Question>>, key: &K, question: &Question) {
    let Some(questions) = index.get_mut(key) else { return };
    questions.remove(question);
    if questions.is_empty() {
        index.remove(key);
    }
}

/// The same interval in memory of its own: keys are parts of the messages they came in, which may be long.
pub(super) fn copied(range: &KeyRange) -> KeyRange {
    let end = match &range.end {
        KeyEnd::Before(end) => KeyEnd::Before(Bytes::copy_from_slice(end)),
        other => other.clone(),
    };
    KeyRange { start: Bytes::copy_from_slice(&range.start), end }
}

/// Whether two intervals have a key in common.
pub(super) fn overlap(one: &KeyRange, other: &KeyRange) -> bool {
    reaches(one, &other.start) && reaches(other, &one.start)
}

/// Whether `range` ends behind `start`.
fn reaches(range: &KeyRange, start: &Bytes) -> bool {
    match &range.end {
        KeyEnd::Single => range.start >= *start,
        KeyEnd::Before(end) => end > start,
        KeyEnd::Open => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::etcdserverpb::ResponseHeader;

    fn range(start: &'static str, end: &'static str) -> KeyRange {
        KeyRange::new(Bytes::from_static(start.as_bytes()), &Bytes::from_static(end.as_bytes()))
    }

    fn question(text: &'static str) -> Question {
        Question { token: None, request: Bytes::from_static(text.as_bytes()) }
    }

    fn keep(cache: &Cache, name: &'static str, range: KeyRange, revision: i64) {
        keep_told(cache, name, &Subject { range, revision }, i64::MAX);
    }

    /// An answer of a member that is at `revision`.
    fn keep_told(cache: &Cache, name: &'static str, subject: &Subject, revision: i64) {
        cache.keep(question(name), subject, &told(b"answer", revision), cache.now());
    }

    fn told(answer: &'static [u8], revision: i64) -> Told {
        Told { answer: Bytes::from_static(answer), revision }
    }

    fn present(start: &'static str) -> Subject {
        Subject { range: range(start, ""), revision: 0 }
    }

    fn has(cache: &Cache, name: &'static str) -> bool {
        cache.get(&question(name), 0).unwrap().is_some()
    }

    #[test]
    fn intervals_overlap_where_they_share_a_key() {
        for (one, other, expected) in [
            (range("a", ""), range("a", ""), true),
            (range("a", ""), range("b", ""), false),
            (range("a", "c"), range("b", ""), true),
            (range("a", "c"), range("c", ""), false),
            (range("a", "c"), range("b", "d"), true),
            (range("a", "b"), range("b", "c"), false),
            (range("x", "\0"), range("zz", ""), true),
            (range("x", "\0"), range("a", ""), false),
        ] {
            assert_eq!((overlap(&one, &other), overlap(&other, &one)), (expected, expected), "{one:?} {other:?}");
        }
    }

    #[test]
    fn what_was_answered_before_rights_changed_is_forgotten_and_what_is_under_way_is_not_kept() {
        let cache = Cache::default();
        keep(&cache, "key", range("k", ""), 0);
        let since = cache.now();
        cache.forget_all();
        cache.keep(question("late"), &present("l"), &told(b"", 1), since);
        cache.keep(question("late past"), &Subject { revision: 7, ..present("l") }, &told(b"", 1), since);
        assert!(!has(&cache, "key") && !has(&cache, "late") && !has(&cache, "late past"));
        keep(&cache, "key", range("k", ""), 0);
        assert!(has(&cache, "key"));
    }

    #[test]
    fn a_change_takes_what_it_concerns_and_nothing_else() {
        let cache = Cache::default();
        for (name, range, revision) in [
            ("key", range("k", ""), 0),
            ("other", range("l", ""), 0),
            ("list", range("a", "z"), 0),
            ("all", range("\0", "\0"), 0),
            ("past", range("k", ""), 7),
        ] {
            keep(&cache, name, range, revision);
        }
        cache.invalidate(&range("k", ""), 0);
        let left = ["key", "other", "list", "all", "past"].map(|name| has(&cache, name));
        assert_eq!(left, [false, true, false, false, true]);
        cache.invalidate(&range("a", "\0"), 0);
        assert!(!has(&cache, "other"));
        assert!(cache.lock().singles.is_empty() && cache.lock().ranges.is_empty());
    }

    #[test]
    fn an_answer_under_way_while_its_keys_change_is_not_kept() {
        let cache = Cache::default();
        let (before, subject) = (cache.now(), Subject { range: range("k", ""), revision: 0 });
        cache.invalidate(&range("other", ""), 0);
        cache.keep(question("kept"), &subject, &told(b"", 1), before);
        cache.invalidate(&range("a", "z"), 0);
        cache.keep(question("stale"), &subject, &told(b"", 1), before);
        assert_eq!((has(&cache, "kept"), has(&cache, "stale")), (false, false));
        for _ in 0..=CHANGES_MAX {
            cache.invalidate(&range("other", ""), 0);
        }
        let later = cache.now();
        cache.keep(question("forgotten"), &subject, &told(b"", 1), before);
        cache.keep(question("fresh"), &subject, &told(b"", 1), later);
        assert_eq!((has(&cache, "forgotten"), has(&cache, "fresh")), (false, true));
    }

    #[test]
    fn an_answer_that_is_older_than_a_change_that_passed_by_is_not_kept() {
        let cache = Cache::default();
        keep_told(&cache, "before", &present("k"), 5);
        cache.invalidate(&range("k", ""), 9);
        keep_told(&cache, "lags", &present("k"), 8);
        keep_told(&cache, "follows", &present("k"), 9);
        keep_told(&cache, "past", &Subject { revision: 3, ..present("k") }, 8);
        let kept = ["before", "lags", "follows", "past"].map(|name| has(&cache, name));
        assert_eq!(kept, [false, false, true, true]);
        // Of two members the one that lags does not take the place of the other.
        cache.keep(question("twice"), &present("l"), &told(b"new", 12), cache.now());
        cache.keep(question("twice"), &present("l"), &told(b"old", 10), cache.now());
        assert_eq!(cache.get(&question("twice"), 0), Ok(Some(Bytes::from_static(b"new"))));
    }

    #[test]
    fn an_answer_is_told_for_a_while_only() {
        let cache = Cache::default();
        let before = Instant::now();
        keep(&cache, "key", range("k", ""), 0);
        let at = |now| cache.get_at(&question("key"), 0, now).unwrap().is_some();
        assert!(at(before + ANSWER_AGE_MAX / 2));
        assert!(!at(Instant::now() + ANSWER_AGE_MAX));
        assert!(cache.lock().entries.is_empty() && cache.lock().by_use.is_empty(), "nothing is left of it");
    }

    #[test]
    fn nothing_of_one_cluster_is_told_of_another() {
        let identity = Arc::new(Identity::default());
        let cache = Cache::new(Arc::clone(&identity));
        let header = |cluster_id| ResponseHeader { cluster_id, revision: 9, ..ResponseHeader::default() };
        identity.see(&header(1));
        keep(&cache, "key", range("k", ""), 0);
        cache.invalidate(&range("other", ""), 1_000);
        cache.compact(500);
        let since = cache.now();
        assert!(has(&cache, "key"));
        identity.see(&header(2));
        assert!(!has(&cache, "key"));
        cache.keep(question("late"), &present("k"), &told(b"", 2_000), since);
        cache.keep(question("late"), &present("k"), &told(b"", 2_000), cache.now().unless_forgotten_since(since));
        assert!(!has(&cache, "late"));
        keep_told(&cache, "new", &present("k"), 9);
        keep_told(&cache, "past", &Subject { revision: 3, ..present("k") }, 9);
        assert!(has(&cache, "new"), "revisions of the other one count no more");
        assert!(cache.get(&question("past"), 3).unwrap().is_some(), "nor what it has compacted");
    }

    #[test]
    fn a_compacted_revision_is_refused_and_the_present_is_kept() {
        let cache = Cache::default();
        keep(&cache, "past", range("k", ""), 7);
        keep(&cache, "present", range("k", ""), 0);
        cache.compact(8);
        assert_eq!(cache.get(&question("past"), 7), Err(Rejection::Compacted));
        assert!(has(&cache, "present"));
        keep(&cache, "later", range("l", ""), 0);
        assert!(has(&cache, "later"));
    }

    #[test]
    fn entries_and_bytes_are_bounded_and_the_least_used_goes_first() {
        let cache = Cache::default();
        keep(&cache, "first", range("k", ""), 0);
        let fill = |names: std::ops::Range<usize>, bytes: usize| {
            for name in names {
                let question = Question { token: None, request: name.to_string().into() };
                let subject = Subject { range: range("x", ""), revision: 0 };
                cache.keep(question, &subject, &Told { answer: vec![0; bytes].into(), revision: 1 }, cache.now());
            }
        };
        fill(0..ENTRIES_MAX - 1, 1);
        assert!(has(&cache, "first"));
        fill(ENTRIES_MAX..ENTRIES_MAX + 10, 1);
        assert!(has(&cache, "first") && cache.lock().entries.len() == ENTRIES_MAX);
        fill(0..200, ANSWER_BYTES_MAX);
        assert!(!has(&cache, "first") && cache.lock().bytes <= BYTES_MAX);
        let tokens = ["a", "b"].map(|token| {
            let headers = http::HeaderMap::from_iter([(
                http::HeaderName::from_static("token"),
                http::HeaderValue::from_static(token),
            )]);
            Question { token: Token::of(&headers), request: Bytes::new() }
        });
        let subject = Subject { range: range("k", ""), revision: 0 };
        cache.keep(tokens[0].clone(), &subject, &told(b"secret", 1), cache.now());
        assert_eq!(cache.get(&tokens[1], 0), Ok(None), "nobody is told what another user was told");
    }
}
