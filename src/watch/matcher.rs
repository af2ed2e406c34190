//! Which watchers an event concerns, at a cost that follows the matches and not the watchers.
//!
//! Watchers of the same interval form a group, so that matching and cutting of events is done once for all of them.

use std::collections::HashMap;

use bytes::Bytes;

use super::{
    encode::{Run, push},
    intervals::Intervals,
    slab::{Key, Slab},
};
use crate::{
    pb::mvccpb::Event,
    types::{KeyEnd, KeyRange},
};

/// Watchers by what they watch.
#[derive(Debug, Default)]
pub(super) struct Matcher {
    groups: Slab<Group>,
    singles: HashMap<Bytes, Key>,
    ranges: HashMap<KeyRange, Key>,
    tree: Intervals<Key>,
    /// The groups that the last [`Matcher::touch`] found.
    touched: Vec<Key>,
}

/// The watchers of one interval.
#[derive(Debug)]
pub(super) struct Group {
    range: KeyRange,
    pub(super) watchers: Vec<Key>,
    /// The events of the batch at hand that lie inside.
    pub(super) runs: Vec<Run>,
}

/// Where a watcher stands in the matcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    group: Key,
    position: usize,
}

impl Matcher {
    pub(super) fn add(&mut self, range: &KeyRange, watcher: Key) -> Place {
        let group = self.group_of(range).unwrap_or_else(|| self.new_group(range));
        let watchers = self.groups.get_mut(group).map(|group| &mut group.watchers);
        let position = watchers.map_or(0, |watchers| {
            watchers.push(watcher);
            watchers.len() - 1
        });
        Place { group, position }
    }

    /// Takes a watcher out. Another one may move into its place: that one is returned.
    pub(super) fn remove(&mut self, place: Place) -> Option<Key> {
        let group = self.groups.get_mut(place.group)?;
        if place.position < group.watchers.len() {
            group.watchers.swap_remove(place.position);
        }
        let moved = group.watchers.get(place.position).copied();
        if group.watchers.is_empty() {
            self.drop_group(place.group);
        }
        moved
    }

    /// Finds the groups that `events` concern and the events of each; read them with [`Matcher::touched`].
    pub(super) fn touch(&mut self, events: &[Event]) {
        for key in self.touched.drain(..) {
            if let Some(group) = self.groups.get_mut(key) {
                group.runs.clear();
            }
        }
        for (place, event) in (0_u32..).zip(events) {
            if let Some(kv) = &event.kv {
                self.touch_key(place, &kv.key);
            }
        }
    }

    /// The groups found, in the order of the first event that concerns each.
    pub(super) fn touched(&self) -> impl Iterator<Item = (Key, &Group)> {
        self.touched.iter().filter_map(|key| Some((*key, self.groups.get(*key)?)))
    }

    /// Every group, in the order of their making.
    pub(super) fn groups(&self) -> impl Iterator<Item = (Key, &Group)> {
        self.groups.keys().filter_map(|key| Some((key, self.groups.get(key)?)))
    }

    /// Whether anybody watches `key`.
    pub(super) fn concerns(&self, key: &[u8]) -> bool {
        self.singles.contains_key(key) || self.tree.any(key)
    }

    fn touch_key(&mut self, place: u32, key: &[u8]) {
        let Self { groups, singles, tree, touched, .. } = self;
        let mut found = |key: &Key| {
            let Some(group) = groups.get_mut(*key) else { return };
            if group.runs.is_empty() {
                touched.push(*key);
            }
            push(&mut group.runs, place);
        };
        if let Some(group) = singles.get(key) {
            found(group);
        }
        tree.holding(key, &mut found);
    }

    fn group_of(&self, range: &KeyRange) -> Option<Key> {
        match range.end {
            KeyEnd::Single => self.singles.get(&range.start).copied(),
            _ => self.ranges.get(range).copied(),
        }
    }

    fn new_group(&mut self, range: &KeyRange) -> Key {
        let group = self.groups.insert(Group { range: range.clone(), watchers: Vec::new(), runs: Vec::new() });
        if range.end == KeyEnd::Single {
            self.singles.insert(range.start.clone(), group);
        } else {
            self.ranges.insert(range.clone(), group);
            self.tree.insert(range.clone(), group);
        }
        group
    }

    fn drop_group(&mut self, group: Key) {
        let Some(Group { range, .. }) = self.groups.remove(group) else { return };
        if range.end == KeyEnd::Single {
            self.singles.remove(&range.start);
        } else {
            self.ranges.remove(&range);
            self.tree.remove(&range);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::mvccpb::KeyValue;

    fn range(start: &'static [u8], end: &'static [u8]) -> KeyRange {
        KeyRange::new(Bytes::from_static(start), &Bytes::from_static(end))
    }

    fn event(key: &'static [u8]) -> Event {
        Event { kv: Some(KeyValue { key: Bytes::from_static(key), ..KeyValue::default() }), ..Event::default() }
    }

    fn run(start: u32, end: u32) -> Run {
        Run { start, end }
    }

    fn touched(matcher: &mut Matcher, events: &[Event]) -> Vec<(Vec<Key>, Vec<Run>)> {
        matcher.touch(events);
        matcher.touched().map(|(_, group)| (group.watchers.clone(), group.runs.clone())).collect()
    }

    #[test]
    fn watchers_of_one_interval_share_a_group() {
        let (mut matcher, mut keys) = (Matcher::default(), Slab::default());
        let [a, b, c] = [(); 3].map(|()| keys.insert(()));
        matcher.add(&range(b"k", b""), a);
        matcher.add(&range(b"k", b""), b);
        matcher.add(&range(b"a", b"z"), c);
        let found = touched(&mut matcher, &[event(b"k"), event(b"b"), event(b"k")]);
        assert_eq!(found, [(vec![a, b], vec![run(0, 1), run(2, 3)]), (vec![c], vec![run(0, 3)])]);
        assert!(touched(&mut matcher, &[event(b"zz")]).is_empty());
        assert_eq!(touched(&mut matcher, &[event(b"c")]), [(vec![c], vec![run(0, 1)])]);
    }

    #[test]
    fn removal_moves_the_last_watcher_and_drops_empty_groups() {
        let (mut matcher, mut keys) = (Matcher::default(), Slab::default());
        let [a, b] = [(); 2].map(|()| keys.insert(()));
        let place_a = matcher.add(&range(b"a", b"\0"), a);
        matcher.add(&range(b"a", b"\0"), b);
        assert_eq!(matcher.remove(place_a), Some(b));
        assert_eq!(touched(&mut matcher, &[event(b"x")]), [(vec![b], vec![run(0, 1)])]);
        assert_eq!(matcher.remove(place_a), None, "b stands there now and was the last");
        assert!(touched(&mut matcher, &[event(b"x")]).is_empty());
        assert_eq!(matcher.groups.len(), 0);
    }
}
