//! Which intervals hold a key: a balanced tree of intervals that knows how far each subtree reaches.
//!
//! An AVL tree ordered by interval, so that no choice of intervals by clients makes it deep. Asking costs about the
//! logarithm of the number of intervals plus the number found.

use std::cmp::Ordering;

use crate::types::{KeyEnd, KeyRange};

/// Distinct intervals of more than one key, each with a value.
#[derive(Debug)]
pub(super) struct Intervals<T> {
    root: Link<T>,
}

type Link<T> = Option<Box<Node<T>>>;

#[derive(Debug)]
struct Node<T> {
    range: KeyRange,
    value: T,
    /// The farthest end in this subtree. [`KeyEnd`] orders as needed: `Before` by key, `Open` last.
    reach: KeyEnd,
    height: u8,
    left: Link<T>,
    right: Link<T>,
}

impl<T> Default for Intervals<T> {
    fn default() -> Self {
        Self { root: None }
    }
}

impl<T> Intervals<T> {
    /// Adds an interval; replaces the value of an equal one.
    pub(super) fn insert(&mut self, range: KeyRange, value: T) {
        self.root = Some(insert(self.root.take(), range, value));
    }

    pub(super) fn remove(&mut self, range: &KeyRange) {
        self.root = remove(self.root.take(), range);
    }

    /// Whether any interval holds `key`.
    pub(super) fn any(&self, key: &[u8]) -> bool {
        let mut any = false;
        self.holding(key, &mut |_| any = true);
        any
    }

    /// Calls `found` with the value of every interval that holds `key`, in the order of the intervals.
    pub(super) fn holding<'a>(&'a self, key: &[u8], found: &mut impl FnMut(&'a T)) {
        visit(self.root.as_deref(), key, found);
    }
}

fn visit<'a, T>(node: Option<&'a Node<T>>, key: &[u8], found: &mut impl FnMut(&'a T)) {
    let Some(node) = node.filter(|node| is_below(key, &node.reach)) else { return };
    visit(node.left.as_deref(), key, found);
    if node.range.start.as_ref() <= key {
        if is_below(key, &node.range.end) {
            found(&node.value);
        }
        visit(node.right.as_deref(), key, found);
    }
}

fn is_below(key: &[u8], end: &KeyEnd) -> bool {
    match end {
        KeyEnd::Before(end) => key < end.as_ref(),
        KeyEnd::Open => true,
        KeyEnd::Single => false,
    }
}

fn insert<T>(link: Link<T>, range: KeyRange, value: T) -> Box<Node<T>> {
    let Some(mut node) = link else {
        return Box::new(Node { reach: range.end.clone(), range, value, height: 1, left: None, right: None });
    };
    match range.cmp(&node.range) {
        Ordering::Less => node.left = Some(insert(node.left.take(), range, value)),
        Ordering::Greater => node.right = Some(insert(node.right.take(), range, value)),
        Ordering::Equal => node.value = value,
    }
    balance(node)
}

fn remove<T>(link: Link<T>, range: &KeyRange) -> Link<T> {
    let mut node = link?;
    match range.cmp(&node.range) {
        Ordering::Less => node.left = remove(node.left.take(), range),
        Ordering::Greater => node.right = remove(node.right.take(), range),
        Ordering::Equal => return join(node.left.take(), node.right.take()),
    }
    Some(balance(node))
}

/// One tree of two whose heights differ by at most one.
fn join<T>(left: Link<T>, right: Link<T>) -> Link<T> {
    let Some(right) = right else { return left };
    let (mut first, rest) = take_first(right);
    (first.left, first.right) = (left, rest);
    Some(balance(first))
}

fn take_first<T>(mut node: Box<Node<T>>) -> (Box<Node<T>>, Link<T>) {
    match node.left.take() {
        None => {
            let rest = node.right.take();
            (node, rest)
        }
        Some(left) => {
            let (first, rest) = take_first(left);
            node.left = rest;
            (first, Some(balance(node)))
        }
    }
}

fn balance<T>(mut node: Box<Node<T>>) -> Box<Node<T>> {
    match lean(&node) {
        2.. => {
            node.left = node.left.take().map(|left| if lean(&left) < 0 { rotate_left(left) } else { left });
            rotate_right(node)
        }
        ..=-2 => {
            node.right = node.right.take().map(|right| if lean(&right) > 0 { rotate_right(right) } else { right });
            rotate_left(node)
        }
        _ => {
            node.measure();
            node
        }
    }
}

fn rotate_right<T>(mut node: Box<Node<T>>) -> Box<Node<T>> {
    let Some(mut top) = node.left.take() else { return node };
    node.left = top.right.take();
    node.measure();
    top.right = Some(node);
    top.measure();
    top
}

fn rotate_left<T>(mut node: Box<Node<T>>) -> Box<Node<T>> {
    let Some(mut top) = node.right.take() else { return node };
    node.right = top.left.take();
    node.measure();
    top.left = Some(node);
    top.measure();
    top
}

/// How much higher the left side is.
fn lean<T>(node: &Node<T>) -> i16 {
    i16::from(height(node.left.as_deref())) - i16::from(height(node.right.as_deref()))
}

fn height<T>(link: Option<&Node<T>>) -> u8 {
    link.map_or(0, |node| node.height)
}

impl<T> Node<T> {
    fn measure(&mut self) {
        self.height = height(self.left.as_deref()).max(height(self.right.as_deref())) + 1;
        let children = [&self.left, &self.right].into_iter().flatten().map(|child| &child.reach);
        self.reach = children.fold(&self.range.end, |far, reach| far.max(reach)).clone();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(start: &[u8], end: &[u8]) -> KeyRange {
        KeyRange::new(start.to_vec().into(), &end.to_vec().into())
    }

    fn found(tree: &Intervals<u32>, key: &[u8]) -> Vec<u32> {
        let mut values = Vec::new();
        tree.holding(key, &mut |value| values.push(*value));
        values.sort_unstable();
        values
    }

    #[test]
    fn key_is_found_in_every_interval_that_holds_it() {
        let mut tree = Intervals::default();
        tree.insert(range(b"a", b"c"), 1);
        tree.insert(range(b"b", b"\0"), 2);
        tree.insert(range(b"\0", b"\0"), 3);
        assert_eq!(found(&tree, b"a"), [1, 3]);
        assert_eq!(found(&tree, b"bb"), [1, 2, 3]);
        assert_eq!(found(&tree, b"c"), [2, 3]);
        tree.remove(&range(b"\0", b"\0"));
        assert_eq!(found(&tree, b"c"), [2]);
    }

    #[test]
    fn ordered_insertion_stays_flat() {
        let mut tree = Intervals::default();
        for number in 0..10_000_u32 {
            tree.insert(range(&number.to_be_bytes(), b"\xff\xff\xff\xff"), number);
        }
        assert!(height(tree.root.as_deref()) <= 20, "1.44 times the logarithm of ten thousand");
    }

    proptest! {
        #[test]
        fn tree_agrees_with_a_list(
            steps in prop::collection::vec((any::<bool>(), 0_u8..24, 0_u8..24), 1..200),
            keys in prop::collection::vec(0_u8..26, 1..20),
        ) {
            let (mut tree, mut list) = (Intervals::default(), Vec::<(KeyRange, u32)>::new());
            for (number, (add, a, b)) in (0_u32..).zip(steps) {
                let (start, end) = (a.min(b), a.max(b) + 1);
                let range = if end == 24 { range(&[start], b"\0") } else { range(&[start], &[end]) };
                list.retain(|(known, _)| *known != range);
                if add {
                    tree.insert(range.clone(), number);
                    list.push((range, number));
                } else {
                    tree.remove(&range);
                }
            }
            for key in keys {
                let mut expected: Vec<u32> =
                    list.iter().filter(|(range, _)| range.contains(&[key])).map(|(_, value)| *value).collect();
                expected.sort_unstable();
                prop_assert_eq!(found(&tree, &[key]), expected);
            }
        }
    }
}
