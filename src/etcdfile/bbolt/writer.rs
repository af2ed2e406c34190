//! Making a whole file from rows in order, bottom-up, each page written once.

use bytes::Bytes;

use super::{
    BUCKETS_MAX, BboltError, KEY_BYTES_MAX, PAGE_BYTES, VALUE_BYTES_MAX,
    layout::{BRANCH, BUCKET, BranchElement, ELEMENT_BYTES, HEADER_BYTES, Header, LEAF, LeafElement, bucket_value},
    meta::{FIRST_PAGE, Meta},
};
use crate::disk::DiskFile;

/// Bytes of a page that are filled before the next one is begun; the rest is left for later changes, as bbolt does.
const FILL_BYTES: usize = PAGE_BYTES / 10 * 9;
/// A bucket that takes no more, header included, lies inside the page that tells of it.
const INLINE_BYTES_MAX: usize = PAGE_BYTES / 4;
/// Elements of a page before it may be full. bbolt's pages have two at least, however long they are.
const LEAF_ELEMENTS_MIN: usize = 2;
/// Three for a branch, because the last one goes to the next page, which may get only one more.
const BRANCH_ELEMENTS_MIN: usize = 3;
/// Bytes that are collected before they are written: little, so that whoever paces the writer has short pauses.
const WRITE_BYTES: usize = 256 << 10;
/// Transaction of the first meta page; the second one has that before it. bbolt puts even ones into the first page.
const TRANSACTION: u64 = 2;

/// Writes a file from buckets in order of their names and rows in order of their keys.
///
/// The file is complete after [`Writer::finish`]: the meta pages, which stand first, are written last. Everything before
/// is written in sequence. Memory: a page for each level of the tree, two rows, and a write buffer of 256 KiB.
#[derive(Debug)]
pub struct Writer<F> {
    out: Output<F>,
    /// The tree of buckets.
    buckets: Tree,
    names: usize,
    /// The bucket that rows go to.
    bucket: Option<(Bytes, Tree)>,
}

/// What a finished file is.
#[derive(Debug)]
pub struct Written<F> {
    /// The file, synced.
    pub file: F,
    /// Its length: all pages.
    pub bytes: u64,
}

impl<F: DiskFile> Writer<F> {
    /// Begins a file in `file`, which is empty.
    pub fn new(file: F) -> Self {
        Self { out: Output::new(file), buckets: Tree::default(), names: 0, bucket: None }
    }

    /// Begins the bucket `name`; rows go there from now on.
    ///
    /// # Errors
    /// [`BboltError::Row`] if the name is not above that of the bucket before, and failures to write.
    pub fn bucket(&mut self, name: impl Into<Bytes>) -> Result<(), BboltError> {
        self.end_bucket()?;
        let name = name.into();
        self.names += 1;
        if self.names > BUCKETS_MAX {
            return Err(refused(&name, &[], "there are too many buckets"));
        }
        self.bucket = Some((name, Tree::default()));
        Ok(())
    }

    /// Writes one row of the bucket begun last.
    ///
    /// # Errors
    /// [`BboltError::Row`] if the key is not above the one before, or key or value have lengths that bbolt does not take;
    /// failures to write.
    pub fn put(&mut self, key: Bytes, value: Bytes) -> Result<(), BboltError> {
        let Some((name, tree)) = &mut self.bucket else {
            return Err(refused(&[], &key, "no bucket has been begun"));
        };
        tree.check(&key, &value).map_err(|what| refused(name, &key, what))?;
        tree.put(&mut self.out, LeafRow { flags: 0, key, value })
    }

    /// Completes the file and syncs it.
    ///
    /// # Errors
    /// Failures to write.
    pub fn finish(mut self) -> Result<Written<F>, BboltError> {
        self.end_bucket()?;
        let root = self.buckets.finish(&mut self.out)?;
        self.out.finish(root)
    }

    fn end_bucket(&mut self) -> Result<(), BboltError> {
        let Some((name, tree)) = self.bucket.take() else { return Ok(()) };
        let value = match tree.inline() {
            Some(value) => value,
            None => bucket_value(tree.finish(&mut self.out)?),
        };
        self.buckets.check(&name, &value).map_err(|what| refused(&name, &[], what))?;
        self.buckets.put(&mut self.out, LeafRow { flags: BUCKET, key: name, value })
    }
}

fn refused(bucket: &[u8], key: &[u8], what: &'static str) -> BboltError {
    BboltError::Row { bucket: bucket.escape_ascii().to_string(), key: key.escape_ascii().to_string(), what }
}

/// One row of a leaf.
#[derive(Debug)]
struct LeafRow {
    flags: u32,
    key: Bytes,
    value: Bytes,
}

/// A page and the first key in it or beneath it.
#[derive(Debug)]
struct Child {
    key: Bytes,
    page: u64,
}

/// A tree in the making.
#[derive(Debug, Default)]
struct Tree {
    /// The leaf that is being filled, and its length.
    leaf: Vec<LeafRow>,
    leaf_bytes: usize,
    /// The branch that is being filled on each level, lowest first.
    branches: Vec<Branch>,
    last: Option<Bytes>,
}

/// A branch page that is being filled, and the length of its elements.
#[derive(Debug, Default)]
struct Branch {
    children: Vec<Child>,
    bytes: usize,
}

impl Tree {
    fn check(&self, key: &Bytes, value: &Bytes) -> Result<(), &'static str> {
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err("bbolt takes keys of 1 to 32768 bytes");
        }
        if value.len() > VALUE_BYTES_MAX {
            return Err("the value is too long");
        }
        if self.last.as_ref().is_some_and(|last| key <= last) {
            return Err("it is not above the one before it");
        }
        Ok(())
    }

    fn put<F: DiskFile>(&mut self, out: &mut Output<F>, row: LeafRow) -> Result<(), BboltError> {
        let bytes = ELEMENT_BYTES + row.key.len() + row.value.len();
        let full = HEADER_BYTES + self.leaf_bytes + bytes > FILL_BYTES;
        if full && self.leaf.len() >= LEAF_ELEMENTS_MIN {
            self.end_leaf(out)?;
        }
        self.leaf_bytes += bytes;
        self.last = Some(row.key.clone());
        self.leaf.push(row);
        Ok(())
    }

    /// Writes the leaf and tells the branch above it.
    fn end_leaf<F: DiskFile>(&mut self, out: &mut Output<F>) -> Result<(), BboltError> {
        let leaf = std::mem::take(&mut self.leaf);
        self.leaf_bytes = 0;
        let page = out.leaf(&leaf)?;
        let key = leaf.into_iter().next().map(|row| row.key).unwrap_or_default();
        self.add_child(out, 0, Child { key, page })
    }

    fn add_child<F: DiskFile>(&mut self, out: &mut Output<F>, level: usize, child: Child) -> Result<(), BboltError> {
        let mut rising = Some((level, child));
        while let Some((level, child)) = rising.take() {
            if self.branches.len() == level {
                self.branches.push(Branch::default());
            }
            let Some(branch) = self.branches.get_mut(level) else { break };
            rising = branch.add(out, child)?.map(|full| (level + 1, full));
        }
        Ok(())
    }

    /// Writes what is left and returns the root.
    fn finish<F: DiskFile>(mut self, out: &mut Output<F>) -> Result<u64, BboltError> {
        if self.branches.is_empty() {
            return out.leaf(&self.leaf);
        }
        if !self.leaf.is_empty() {
            self.end_leaf(out)?;
        }
        let mut level = 0;
        loop {
            let branch = self.branches.get_mut(level).map(std::mem::take).unwrap_or_default();
            level += 1;
            let page = branch.write(out)?;
            if level == self.branches.len() {
                return Ok(page);
            }
            let key = branch.children.into_iter().next().map(|child| child.key).unwrap_or_default();
            self.add_child(out, level, Child { key, page })?;
        }
    }

    /// The whole tree as the value of an element, if it is small.
    fn inline(&self) -> Option<Bytes> {
        let bytes = HEADER_BYTES + self.leaf_bytes;
        if !self.branches.is_empty() || bytes > INLINE_BYTES_MAX {
            return None;
        }
        let mut value = bucket_value(0).to_vec();
        value.extend_from_slice(&leaf_table(&self.leaf, 0));
        for row in &self.leaf {
            value.extend_from_slice(&row.key);
            value.extend_from_slice(&row.value);
        }
        Some(value.into())
    }
}

impl Branch {
    /// Adds a child; a full page is written first, and handed up. Its last child goes to the next page, so that none is
    /// left with a single one.
    fn add<F: DiskFile>(&mut self, out: &mut Output<F>, child: Child) -> Result<Option<Child>, BboltError> {
        let full = HEADER_BYTES + self.bytes + child.bytes() > FILL_BYTES;
        let mut written = None;
        if full && self.children.len() >= BRANCH_ELEMENTS_MIN {
            let kept = self.children.pop();
            let page = self.write(out)?;
            written = self.children.drain(..).next().map(|first| Child { key: first.key, page });
            self.children.extend(kept);
            self.bytes = self.children.iter().map(Child::bytes).sum();
        }
        self.bytes += child.bytes();
        self.children.push(child);
        Ok(written)
    }

    fn write<F: DiskFile>(&self, out: &mut Output<F>) -> Result<u64, BboltError> {
        out.branch(&self.children)
    }
}

impl Child {
    fn bytes(&self) -> usize {
        ELEMENT_BYTES + self.key.len()
    }
}

/// Header and table of a leaf of these rows that begins at `page`; an inline one says zero.
fn leaf_table(rows: &[LeafRow], page: u64) -> Vec<u8> {
    let bytes = rows.iter().map(|row| ELEMENT_BYTES + row.key.len() + row.value.len()).sum();
    let mut table = header(page, LEAF, rows.len(), bytes);
    let mut at = ELEMENT_BYTES * rows.len();
    for row in rows {
        let (key_len, value_len) = (number(row.key.len()), number(row.value.len()));
        LeafElement { flags: row.flags, at: number(at), key_len, value_len }.put(&mut table);
        at = at + row.key.len() + row.value.len() - ELEMENT_BYTES;
    }
    table
}

fn branch_table(children: &[Child], page: u64) -> Vec<u8> {
    let mut table = header(page, BRANCH, children.len(), children.iter().map(Child::bytes).sum());
    let mut at = ELEMENT_BYTES * children.len();
    for child in children {
        BranchElement { at: number(at), key_len: number(child.key.len()), child: child.page }.put(&mut table);
        at = at + child.key.len() - ELEMENT_BYTES;
    }
    table
}

/// The header of a page whose elements, keys and values take `bytes`.
fn header(page: u64, flags: u16, count: usize, bytes: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES + count * ELEMENT_BYTES);
    let overflow = number((HEADER_BYTES + bytes).div_ceil(PAGE_BYTES).max(1) - 1);
    let count = u16::try_from(count).expect("a page is full long before it has 65536 elements");
    Header { id: page, flags, count, overflow }.put(&mut out);
    out
}

/// Lengths and positions inside a page.
fn number(length: usize) -> u32 {
    u32::try_from(length).expect("two keys and two values of the greatest lengths fit into 4 GiB")
}

/// Pages one behind the other.
#[derive(Debug)]
struct Output<F> {
    file: F,
    /// Not yet written.
    buffer: Vec<u8>,
    /// Where the buffer goes.
    offset: u64,
}

impl<F: DiskFile> Output<F> {
    fn new(file: F) -> Self {
        Self { file, buffer: Vec::with_capacity(WRITE_BYTES), offset: FIRST_PAGE * PAGE_BYTES as u64 }
    }

    /// Where the next byte goes.
    fn end(&self) -> u64 {
        self.offset + self.buffer.len() as u64
    }

    fn next_page(&self) -> u64 {
        self.end() / PAGE_BYTES as u64
    }

    fn leaf(&mut self, rows: &[LeafRow]) -> Result<u64, BboltError> {
        let page = self.next_page();
        self.write(&leaf_table(rows, page))?;
        for row in rows {
            self.write(&row.key)?;
            self.write(&row.value)?;
        }
        self.end_page()?;
        Ok(page)
    }

    fn branch(&mut self, children: &[Child]) -> Result<u64, BboltError> {
        let page = self.next_page();
        self.write(&branch_table(children, page))?;
        children.iter().try_for_each(|child| self.write(&child.key))?;
        self.end_page()?;
        Ok(page)
    }

    fn write(&mut self, mut bytes: &[u8]) -> Result<(), BboltError> {
        while !bytes.is_empty() {
            let room = WRITE_BYTES.saturating_sub(self.buffer.len()).min(bytes.len());
            let (now, later) = bytes.split_at(room);
            self.buffer.extend_from_slice(now);
            bytes = later;
            if self.buffer.len() >= WRITE_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Fills the page with zeros.
    fn end_page(&mut self) -> Result<(), BboltError> {
        let over = usize::try_from(self.end() % PAGE_BYTES as u64).unwrap_or_default();
        let missing = (PAGE_BYTES - over) % PAGE_BYTES;
        self.write([0; PAGE_BYTES].get(..missing).unwrap_or_default())
    }

    fn flush(&mut self) -> Result<(), BboltError> {
        self.file.write_at(&self.buffer, self.offset).map_err(BboltError::io("write"))?;
        self.offset += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn finish(mut self, root: u64) -> Result<Written<F>, BboltError> {
        self.flush()?;
        let page_bytes = u32::try_from(PAGE_BYTES).expect("a page of 4 KiB");
        let older = TRANSACTION - 1;
        for transaction in [TRANSACTION, older] {
            let meta = Meta { page_bytes, root, pages: self.next_page(), transaction };
            let at = (transaction % 2) * PAGE_BYTES as u64;
            self.file.write_at(&meta.to_page(), at).map_err(BboltError::io("write"))?;
        }
        self.file.sync().map_err(BboltError::io("sync"))?;
        Ok(Written { bytes: self.offset, file: self.file })
    }
}
