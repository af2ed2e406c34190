//! Places in the tree.

use bytes::Bytes;

use super::{KEYS_PREFIX, USERS_PREFIX};

/// Longest path: with every byte escaped, and the name of an in-order key behind it, it is still a key of the engine.
pub const PATH_BYTES_MAX: usize = 32_000;
/// Deepest path. Nodes are shown inside each other, so their depth is the depth of a stack.
pub const COMPONENTS_MAX: usize = 256;

/// A place in the tree: absolute, without empty parts and dots. Any other bytes may stand in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(Bytes);

impl Path {
    /// What is always there and cannot be changed: the root, the members' part, and the users'.
    const READ_ONLY: [&[u8]; 3] = [b"/", b"/0", b"/1"];

    /// Above everything.
    pub fn root() -> Self {
        Self(Bytes::from_static(b"/"))
    }

    /// What `text` means, taken as absolute (Go's `path.Clean`).
    pub fn clean(text: &[u8]) -> Self {
        let mut parts = Vec::new();
        for part in text.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        if parts.is_empty() { Self::root() } else { Self([b"/", parts.join(&b'/').as_slice()].concat().into()) }
    }

    /// The place that `text` names below `prefix`, however many dots stand in it.
    pub fn below(prefix: &str, text: &[u8]) -> Self {
        let inner = Self::clean(text);
        if inner == Self::root() {
            Self::clean(prefix.as_bytes())
        } else {
            Self([prefix.as_bytes(), &inner.0].concat().into())
        }
    }

    /// The path itself.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether it is where the users' records are.
    pub fn is_of_users(&self) -> bool {
        is_of_users(&self.0)
    }

    /// Where a path that was stored is.
    pub(super) fn stored(path: Bytes) -> Self {
        Self(path)
    }

    pub(super) fn to_bytes(&self) -> Bytes {
        self.0.clone()
    }

    /// Whether a node can be kept here.
    pub(super) fn is_storable(&self) -> bool {
        self.obstacle().is_none()
    }

    /// Why no node can be kept here, if none can. What is told are the limits of keys, which do not see the prefix.
    pub fn obstacle(&self) -> Option<String> {
        if self.0.len() > PATH_BYTES_MAX {
            let bytes = PATH_BYTES_MAX - KEYS_PREFIX.len();
            return Some(format!("etcdserver: key is longer than the {bytes} bytes this store can hold"));
        }
        let parts = self.0.split(|byte| *byte == b'/').skip(1).count();
        let deepest = COMPONENTS_MAX - 1;
        (parts > COMPONENTS_MAX)
            .then(|| format!("etcdserver: key is deeper than the {deepest} parts this store can hold"))
    }

    /// Whether this place is always a directory, and never changes.
    pub(super) fn is_read_only(&self) -> bool {
        Self::READ_ONLY.contains(&self.as_bytes())
    }

    /// What stands before the last slash, and behind it.
    pub(super) fn split(&self) -> (&[u8], &[u8]) {
        let slash = self.0.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        let (parent, name) = self.0.split_at(slash);
        (if parent.is_empty() { b"/" } else { parent }, name.get(1..).unwrap_or_default())
    }

    /// One level up; the root stays where it is.
    #[must_use]
    pub fn parent(&self) -> Self {
        let (parent, _) = self.split();
        if parent == b"/" { Self::root() } else { Self(self.0.slice_ref(parent)) }
    }

    /// One level down.
    #[must_use]
    pub fn child(&self, name: &[u8]) -> Self {
        let parent = if self.as_bytes() == b"/" { b"" } else { self.as_bytes() };
        Self([parent, b"/", name].concat().into())
    }

    /// The root, every place on the way, and this one.
    pub fn way(&self) -> impl Iterator<Item = Self> + '_ {
        let ends = (1..self.0.len()).filter(|at| self.0.get(*at) == Some(&b'/')).chain([self.0.len()]);
        let steps = ends.filter(|end| *end > 1).map(|end| Self(self.0.slice(..end)));
        std::iter::once(Self::root()).chain(steps)
    }

    /// Whether the last part begins with an underscore, so that listings leave the node out.
    pub(super) fn is_hidden(&self) -> bool {
        self.split().1.first() == Some(&b'_')
    }

    /// Whether this place is below `directory`.
    pub(super) fn is_below(&self, directory: &Self) -> bool {
        directory.as_bytes() == b"/"
            || self.0.strip_prefix(directory.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'/'))
    }

    /// Whether something on the way from `watched` down to this place is hidden.
    pub(super) fn is_hidden_from(&self, watched: &Self) -> bool {
        let Some(behind) = self.0.get(watched.0.len()..) else { return false };
        let first_is_part = watched.as_bytes() == b"/" && behind.first() == Some(&b'_');
        first_is_part || behind.windows(2).any(|pair| pair == b"/_")
    }
}

/// Whether a path, clean or not, begins with the name of the users' part.
pub(super) fn is_of_users(path: &[u8]) -> bool {
    let behind = path.strip_prefix(USERS_PREFIX.as_bytes());
    behind.is_some_and(|rest| rest.first().is_none_or(|byte| *byte == b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Path {
        Path::clean(text.as_bytes())
    }

    #[test]
    fn paths_are_cleaned() {
        for (text, clean) in
            [("", "/"), ("/", "/"), ("a", "/a"), ("/a//b/", "/a/b"), ("/a/./b/../c", "/a/c"), ("/../x", "/x")]
        {
            assert_eq!(path(text).as_bytes(), clean.as_bytes(), "{text}");
        }
        assert_eq!(Path::below("/1", b"/a/../../2/users"), path("/1/2/users"), "nobody leaves the prefix");
        assert_eq!(Path::below("/1", b"/"), path("/1"));
    }

    #[test]
    fn what_cannot_be_kept_is_told_by_the_limit_that_it_is_beyond() {
        let obstacle = |text: &str| Path::below(KEYS_PREFIX, text.as_bytes()).obstacle();
        assert_eq!(obstacle(&"/a".repeat(255)), None);
        let deep = "etcdserver: key is deeper than the 255 parts this store can hold";
        assert_eq!(obstacle(&"/a".repeat(256)).as_deref(), Some(deep));
        assert_eq!(obstacle(&format!("/{}", "a".repeat(31_997))), None);
        let long = "etcdserver: key is longer than the 31998 bytes this store can hold";
        assert_eq!(obstacle(&format!("/{}", "a".repeat(31_998))).as_deref(), Some(long));
    }

    #[test]
    fn way_leads_from_the_root_to_the_place() {
        let steps = |text: &str| {
            path(text).way().map(|step| String::from_utf8(step.to_bytes().to_vec()).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(steps("/1/a/b"), ["/", "/1", "/1/a", "/1/a/b"]);
        assert_eq!(steps("/"), ["/"]);
        assert_eq!(path("/1/a").parent(), path("/1"));
        assert_eq!((path("/1").parent(), Path::root().parent()), (Path::root(), Path::root()));
        assert_eq!((Path::root().child(b"x"), path("/1").child(b"y")), (path("/x"), path("/1/y")));
    }

    #[test]
    fn hidden_is_what_begins_with_an_underscore_below_the_watcher() {
        assert!(path("/1/_a").is_hidden() && !path("/1/_a/b").is_hidden());
        assert!(path("/1/_a/b").is_hidden_from(&path("/1")));
        assert!(!path("/1/_a/b").is_hidden_from(&path("/1/_a")));
        assert!(path("/_a").is_hidden_from(&Path::root()));
        assert!(!path("/1/a").is_hidden_from(&path("/1/a/b/c")), "a directory above what is watched was removed");
    }

    #[test]
    fn below_ends_at_whole_parts() {
        assert!(path("/1/a/b").is_below(&path("/1/a")) && path("/1").is_below(&Path::root()));
        assert!(!path("/1/ab").is_below(&path("/1/a")) && !path("/1/a").is_below(&path("/1/a")));
    }
}
