//! A directory as it is shown, piece by piece: it may be larger than memory.

use super::{
    Depth, Nanos, Path,
    event::Shown,
    node::{self, Node},
};
use crate::storage::{Read, StorageError};

/// One step of a walk through what is shown.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// A file, or a directory whose children are not shown.
    Node(Shown),
    /// A directory: its children follow.
    Enter(Shown),
    /// The last directory that was entered and not left has no more children.
    Leave(Shown),
}

impl Step {
    /// Keys and values that are held for it.
    pub fn bytes(&self) -> usize {
        let (Self::Node(shown) | Self::Enter(shown) | Self::Leave(shown)) = self;
        shown.bytes()
    }
}

/// A walk through a node and what is shown below it, which can rest between two steps.
#[derive(Debug)]
pub struct Listing {
    now: Nanos,
    depth: Depth,
    /// The node itself, before the first step.
    first: Option<(Path, Node)>,
    /// Directories that were entered, the innermost last.
    entered: Vec<Level>,
}

#[derive(Debug)]
struct Level {
    path: Path,
    shown: Shown,
    /// The child that was shown last.
    after: Option<Path>,
}

impl Listing {
    pub(super) fn new(path: &Path, node: Node, depth: Depth, now: Nanos) -> Self {
        Self { now, depth, first: Some((path.clone(), node)), entered: Vec::new() }
    }

    /// The next steps, until `bytes_min` of keys and values were looked at; hidden nodes are looked at as well and are no
    /// steps, so there may be none before the end ([`Self::is_done`]). `rows` must be those that the walk began with.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub fn steps(&mut self, rows: &impl Read, bytes_min: usize) -> Result<Vec<Step>, StorageError> {
        let mut steps = Vec::new();
        let mut bytes = 0;
        if let Some((path, node)) = self.first.take() {
            self.show(path, &node, true, &mut steps);
        }
        while bytes < bytes_min
            && let Some(mut level) = self.entered.pop()
        {
            let found = self.children(rows, &mut level, bytes_min - bytes, &mut steps)?;
            bytes += found.bytes;
            match found.end {
                End::Directory(path, node) => {
                    self.entered.push(level);
                    self.show(path, &node, true, &mut steps);
                }
                End::Enough => self.entered.push(level),
                End::Last => steps.push(Step::Leave(level.shown)),
            }
        }
        Ok(steps)
    }

    /// Whether everything was shown.
    pub fn is_done(&self) -> bool {
        self.first.is_none() && self.entered.is_empty()
    }

    /// Shows children of one directory, up to the first one that is to be entered.
    fn children(
        &mut self,
        rows: &impl Read,
        level: &mut Level,
        bytes_max: usize,
        steps: &mut Vec<Step>,
    ) -> Result<Found, StorageError> {
        let mut bytes = 0;
        let after = level.after.take();
        for child in node::children(rows, &level.path, after.as_ref()) {
            let (path, node) = child?;
            bytes += path.as_bytes().len() + node.value.len();
            level.after = Some(path.clone());
            if !path.is_hidden() {
                if node.dir && self.depth == Depth::All {
                    return Ok(Found { bytes, end: End::Directory(path, node) });
                }
                self.show(path, &node, false, steps);
            }
            if bytes >= bytes_max {
                return Ok(Found { bytes, end: End::Enough });
            }
        }
        Ok(Found { bytes, end: End::Last })
    }

    fn show(&mut self, path: Path, node: &Node, enter: bool, steps: &mut Vec<Step>) {
        let shown = Shown::of(&path, node, self.now);
        if !(node.dir && enter) {
            return steps.push(Step::Node(shown));
        }
        steps.push(Step::Enter(shown.clone()));
        self.entered.push(Level { path, shown, after: None });
    }
}

/// What was found among the children of a directory.
struct Found {
    bytes: usize,
    end: End,
}

enum End {
    /// One that is to be entered.
    Directory(Path, Node),
    /// As much as was asked for.
    Enough,
    /// Everything.
    Last,
}
