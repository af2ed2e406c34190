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
    /// The newest first.
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
    recent: VecDeque<Point>,
    sparse: VecDeque<Point>,
}

impl Digests {
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

    fn newest_sparse(&self) -> Option<Point> {
        self.lock().sparse.back().copied()
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

    fn at(&self, index: u64) -> Option<Digest> {
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
    /// What this member says of its state to peers of its kind, in JSON.
    pub fn digest_json(&self) -> String {
        let state = self.published();
        let newest = Point::new(state.applied, state.digest);
        let points = std::iter::once(newest).chain(self.shared.digests.newest_sparse()).collect();
        let testimony = Testimony { form: DIGEST_FORM, member: self.member_id().0, points };
        serde_json::to_string(&testimony).unwrap_or_default()
    }

    /// This member's digest at `index`, if it is remembered.
    pub(super) fn digest_at(&self, index: u64) -> Option<Digest> {
        let state = self.published();
        if state.applied.0 == index { Some(state.digest) } else { self.shared.digests.at(index) }
    }
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
}
