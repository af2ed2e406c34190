//! The digests of recent entries, where peers may stand.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

use crate::{
    apply::{Applied, DIGEST_FORM, Digest},
    types::{LogIndex, MemberId},
};

use super::Handle;

/// Entries whose digests are remembered one by one: a second's worth of a busy cluster.
const RECENT_MAX: usize = 16 * 1024;
/// Of older entries every so many are remembered, for peers that lag.
const SPARSE_EVERY: u64 = 1024;
/// So many of them.
const SPARSE_MAX: usize = 4 * 1024;
/// Where a member tells its digests.
const PATH: &str = "/members/digest";
/// Entries that a peer may ask about in one question; it asks about the oldest three that it remembers.
const ASKED_MAX: usize = 8;

/// What a member says of itself at one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Point {
    /// The entry.
    pub(super) index: u64,
    /// [`Digest::since`].
    since: u64,
    /// [`Digest::sum`].
    sum: u64,
}

impl Point {
    pub(super) fn new(index: LogIndex, digest: Digest) -> Self {
        Self { index: index.0, since: digest.since.0, sum: digest.sum }
    }

    pub(super) fn digest(self) -> Digest {
        Digest { since: LogIndex(self.since), sum: self.sum }
    }
}

/// The answer to `GET /members/digest`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Testimony {
    /// [`DIGEST_FORM`].
    form: u32,
    /// Who says so.
    member: u64,
    /// The newest entries, the oldest that are remembered, and those that were asked about.
    points: Vec<Point>,
}

impl Testimony {
    /// What `member` said in an answer; nothing if it is not its own or says nothing that we understand.
    pub(super) fn read(answer: &[u8], member: MemberId) -> Option<Vec<Point>> {
        let said: Self = serde_json::from_slice(answer).ok()?;
        (said.form == DIGEST_FORM && said.member == member.0).then_some(said.points)
    }
}

/// The digests a member remembers; in memory only.
#[derive(Debug, Default)]
pub(super) struct Digests(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    /// Where this state began: at the start of the process, or where a received snapshot stood.
    first: Option<Point>,
    recent: VecDeque<Point>,
    sparse: VecDeque<Point>,
}

impl Digests {
    /// The state stands at `index`, and what was remembered was of another one. Called by whoever applies.
    pub(super) fn begin(&self, index: LogIndex, digest: Digest) {
        *self.lock() = Memory { first: Some(Point::new(index, digest)), ..Memory::default() };
    }

    /// Takes down a group of entries. Called by whoever applies, before they are published.
    pub(super) fn note(&self, applied: &[Applied]) {
        let mut memory = self.lock();
        for entry in applied {
            memory.note(Point::new(entry.index, entry.digest));
        }
    }

    /// The digest at `index`, if it is remembered.
    pub(super) fn at(&self, index: u64) -> Option<Digest> {
        self.lock().at(index)
    }

    fn oldest(&self) -> Vec<Point> {
        self.lock().oldest().collect()
    }

    /// What to tell a peer that asked about these entries.
    fn told(&self, asked: &[u64]) -> Vec<Point> {
        let memory = self.lock();
        let asked = asked.iter().filter_map(|index| Some(Point::new(LogIndex(*index), memory.at(*index)?)));
        memory.sparse.back().copied().into_iter().chain(memory.oldest()).chain(asked).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    fn note(&mut self, point: Point) {
        push(&mut self.recent, point, RECENT_MAX);
        if point.index.is_multiple_of(SPARSE_EVERY) {
            push(&mut self.sparse, point, SPARSE_MAX);
        }
    }

    /// The oldest of each kind.
    fn oldest(&self) -> impl Iterator<Item = Point> {
        [self.first.as_ref(), self.sparse.front(), self.recent.front()].into_iter().flatten().copied()
    }

    fn at(&self, index: u64) -> Option<Digest> {
        let first = self.first.filter(|first| first.index == index).map(Point::digest);
        first.or_else(|| self.noted_at(index))
    }

    fn noted_at(&self, index: u64) -> Option<Digest> {
        [&self.recent, &self.sparse].into_iter().find_map(|points| {
            let place = points.binary_search_by_key(&index, |point| point.index).ok()?;
            Some(points.get(place)?.digest())
        })
    }
}

fn push(points: &mut VecDeque<Point>, point: Point, most: usize) {
    if points.len() >= most {
        points.pop_front();
    }
    points.push_back(point);
}

impl Handle {
    /// What this member says of its state to peers of its kind, in JSON; `query` is that of the question.
    pub fn digest_json(&self, query: &str) -> String {
        let state = self.published();
        let newest = Point::new(state.applied, state.digest);
        let told = self.shared.digests.told(&asked_in(query));
        let mut points = vec![newest];
        points.extend(told.into_iter().filter(|point| point.index != newest.index));
        let testimony = Testimony { form: DIGEST_FORM, member: self.member_id().0, points };
        serde_json::to_string(&testimony).unwrap_or_default()
    }

    /// Where to ask a peer for its digests, those included at which this member's memory begins.
    pub(super) fn digest_path(&self) -> String {
        let oldest = self.shared.digests.oldest();
        let oldest: Vec<String> = oldest.iter().map(|point| point.index.to_string()).collect();
        format!("{PATH}?at={}", oldest.join(","))
    }

    /// This member's digest at `index`, if it is remembered.
    pub(super) fn digest_at(&self, index: u64) -> Option<Digest> {
        let state = self.published();
        if state.applied.0 == index { Some(state.digest) } else { self.shared.digests.at(index) }
    }
}

fn asked_in(query: &str) -> Vec<u64> {
    let list = query.split('&').find_map(|part| part.strip_prefix("at=")).unwrap_or_default();
    list.split(',').take(ASKED_MAX).filter_map(|index| index.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(index: u64) -> Point {
        Point { index, since: 0, sum: index + 7 }
    }

    #[test]
    fn every_recent_entry_and_some_older_ones_are_remembered() {
        let mut memory = Memory::default();
        let last = 5 * SPARSE_EVERY + u64::try_from(RECENT_MAX).unwrap();
        (1..=last).for_each(|index| memory.note(point(index)));
        let remembered = |index| memory.at(index) == Some(point(index).digest());
        assert!((5 * SPARSE_EVERY + 1..=last).all(remembered));
        assert!((1..=5).all(|number| remembered(number * SPARSE_EVERY)));
        assert!(!remembered(SPARSE_EVERY + 1) && !remembered(last + 1));
        assert_eq!(memory.recent.len(), RECENT_MAX);
    }

    #[test]
    fn only_a_members_own_words_in_our_form_count() {
        let said = Testimony { form: DIGEST_FORM, member: 5, points: vec![point(3)] };
        let json = serde_json::to_vec(&said).unwrap();
        assert_eq!(Testimony::read(&json, MemberId(5)), Some(vec![point(3)]));
        assert_eq!(Testimony::read(&json, MemberId(6)), None);
        let later = serde_json::to_vec(&Testimony { form: DIGEST_FORM + 1, ..said }).unwrap();
        assert_eq!(Testimony::read(&later, MemberId(5)), None);
        assert_eq!(Testimony::read(b"<html>", MemberId(5)), None);
    }
    #[test]
    fn oldest_entries_are_told_and_those_asked_about() {
        let digests = Digests::default();
        digests.begin(LogIndex(900), point(900).digest());
        (901..=3_000).for_each(|index| digests.lock().note(point(index)));
        let told: Vec<u64> = digests.told(&[2_000, 5]).iter().map(|point| point.index).collect();
        assert_eq!(told, [2_048, 900, 1_024, 901, 2_000]);
        assert!(digests.told(&[2_000, 5]).iter().all(|told| *told == point(told.index)));
        assert_eq!((asked_in("at=900,1024,x,901"), asked_in("")), (vec![900, 1024, 901], vec![]));
        assert_eq!(asked_in(&format!("at={}", "1,".repeat(99))).len(), ASKED_MAX);
    }

    /// The digests of a state that a snapshot has replaced may be wrong; they were once told as if they were this state's.
    #[test]
    fn digests_of_a_replaced_state_are_forgotten() {
        let digests = Digests::default();
        digests.begin(LogIndex(0), Digest::default());
        (1..=2_000).for_each(|index| digests.lock().note(point(index)));
        digests.begin(LogIndex(5_000), point(5_000).digest());
        assert_eq!((digests.told(&[1_024]), digests.at(1_024)), (vec![point(5_000)], None));
    }
}
