//! Walking a file from its root, believing nothing.

use bytes::Bytes;

use super::{
    BUCKETS_MAX, BboltError, KEY_BYTES_MAX, Row, VALUE_BYTES_MAX,
    layout::{
        self, BRANCH, BUCKET, BUCKET_BYTES, BranchElement, ELEMENT_BYTES, HEADER_BYTES, Header, LEAF, LeafElement,
    },
    meta::{FIRST_PAGE, Meta},
};
use crate::disk::DiskFile;

/// Levels a tree may have: pages of two elements each reach 2^32 rows with them.
const DEPTH_MAX: usize = 32;
/// Bytes of a page and its overflow that are read at once; of a longer run only the table is, and each row when it is due.
const RUN_BYTES: usize = 256 << 10;

/// A file, opened at the newest of its two states.
#[derive(Debug)]
pub struct Reader<F> {
    file: F,
    meta: Meta,
}

/// The rows of a file, or of one of its buckets, in order. Ends after the first error.
#[derive(Debug)]
pub struct Rows<'a, F> {
    source: Source<'a, F>,
    /// The tree of buckets.
    buckets: Walk,
    /// How many of them were met.
    met: usize,
    /// The bucket being walked.
    bucket: Option<(Bytes, Walk)>,
    /// The only bucket that is wanted; all if there is none.
    only: Option<Bytes>,
}

impl<F: DiskFile> Reader<F> {
    /// Opens `file`, which must not change as long as it is read. Bytes behind its last page are not looked at.
    ///
    /// # Errors
    /// [`BboltError::NoMeta`], [`BboltError::Truncated`], and failures to read.
    pub fn open(file: F) -> Result<Self, BboltError> {
        let meta = Meta::find(&file)?;
        Ok(Self { file, meta })
    }

    /// The file.
    pub fn file(&self) -> &F {
        &self.file
    }

    /// Bytes of all pages: where a whole file ends, unless a checksum follows.
    pub fn bytes(&self) -> u64 {
        self.meta.pages * u64::from(self.meta.page_bytes)
    }

    /// All rows of all buckets. A page that two buckets share is an error.
    ///
    /// # Errors
    /// [`BboltError`] if the root cannot be read.
    pub fn rows(&self) -> Result<Rows<'_, F>, BboltError> {
        self.walk(None)
    }

    /// The rows of one bucket; none if there is no such bucket.
    ///
    /// # Errors
    /// [`BboltError`] if the root cannot be read.
    pub fn bucket(&self, name: &[u8]) -> Result<Rows<'_, F>, BboltError> {
        self.walk(Some(Bytes::copy_from_slice(name)))
    }

    /// The names of the buckets, in order.
    ///
    /// # Errors
    /// [`BboltError`] for what is not a sound tree of buckets.
    pub fn bucket_names(&self) -> Result<Vec<Bytes>, BboltError> {
        let mut rows = self.walk(Some(Bytes::new()))?;
        std::iter::from_fn(|| rows.next_bucket().transpose()).map(|found| Ok(found?.0)).collect()
    }

    fn walk(&self, only: Option<Bytes>) -> Result<Rows<'_, F>, BboltError> {
        let mut source = Source { file: &self.file, meta: self.meta, visited: Visited::new(self.meta.pages) };
        let buckets = Walk::new(source.load(self.meta.root)?);
        Ok(Rows { source, buckets, met: 0, bucket: None, only })
    }
}

impl<F: DiskFile> Rows<'_, F> {
    fn step(&mut self) -> Result<Option<Row>, BboltError> {
        loop {
            if let Some((name, walk)) = &mut self.bucket {
                if let Some(Element { page, flags, key, value }) = walk.next(&mut self.source)? {
                    let plain = flags == 0;
                    let row = Row { bucket: name.clone(), key, value };
                    return if plain { Ok(Some(row)) } else { Err(damaged(page, "a bucket inside a bucket")) };
                }
                self.bucket = None;
            }
            let Some((name, page, value)) = self.next_bucket()? else { return Ok(None) };
            if self.only.as_ref().is_none_or(|only| *only == name) {
                self.bucket = Some((name, Walk::new(self.source.bucket(page, &value)?)));
            }
        }
    }

    /// The next bucket: its name, the page that tells of it, and where it is.
    fn next_bucket(&mut self) -> Result<Option<(Bytes, u64, Bytes)>, BboltError> {
        let Some(Element { page, flags, key, value }) = self.buckets.next(&mut self.source)? else { return Ok(None) };
        self.met += 1;
        match flags {
            BUCKET if self.met > BUCKETS_MAX => Err(damaged(page, "more buckets than any file of etcd has")),
            BUCKET => Ok(Some((key, page, value))),
            _ => Err(damaged(page, "a row outside of any bucket")),
        }
    }

    fn stop(&mut self) {
        self.bucket = None;
        self.buckets.stack.clear();
    }
}

impl<F: DiskFile> Iterator for Rows<'_, F> {
    type Item = Result<Row, BboltError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().inspect_err(|_| self.stop()).transpose()
    }
}

/// Where pages come from.
#[derive(Debug)]
struct Source<'a, F> {
    file: &'a F,
    meta: Meta,
    visited: Visited,
}

impl<F: DiskFile> Source<'_, F> {
    /// The page `id` and those that belong to it, visited for the first time.
    fn load(&mut self, id: u64) -> Result<Run, BboltError> {
        let page_bytes = self.meta.page_bytes as usize;
        if id < FIRST_PAGE || id >= self.meta.pages {
            return Err(damaged(id, "it is pointed at, but is not among the pages"));
        }
        let offset = id * u64::from(self.meta.page_bytes);
        let first = self.read(id, offset, page_bytes)?;
        let header = Header::read(&first).ok_or_else(|| damaged(id, "it is shorter than its header"))?;
        if header.id != id {
            return Err(damaged(id, "it carries the number of another page"));
        }
        self.visited.mark(id, u64::from(header.overflow) + 1)?;
        let run = Run { page: id, header, offset, len: page_bytes * (header.overflow as usize + 1), head: first };
        if header.overflow == 0 {
            return run.check();
        }
        let head = run.len.min(RUN_BYTES.max(header.table_end()));
        Run { head: self.read(id, offset, head)?, ..run }.check()
    }

    /// The root of the bucket that an element of `page` tells of.
    fn bucket(&mut self, page: u64, value: &Bytes) -> Result<Run, BboltError> {
        match layout::bucket_root(value) {
            None => Err(damaged(page, "a bucket is shorter than its header")),
            Some(0) => Run::inline(page, value.slice(BUCKET_BYTES..)),
            Some(root) => self.load(root),
        }
    }

    /// Exactly `len` bytes at `offset`.
    fn read(&self, page: u64, offset: u64, len: usize) -> Result<Bytes, BboltError> {
        let mut bytes = vec![0; len];
        let read = self.file.read_at(&mut bytes, offset).map_err(BboltError::io("read"))?;
        if read == len { Ok(bytes.into()) } else { Err(damaged(page, "the file ends inside of it")) }
    }

    /// `len` bytes of `run`, `at` bytes from its beginning.
    fn piece(&self, run: &Run, at: usize, len: usize) -> Result<Bytes, BboltError> {
        let end = at.checked_add(len).filter(|end| at >= run.header.table_end() && *end <= run.len);
        let end = end.ok_or_else(|| damaged(run.page, "an element lies outside of it"))?;
        if end <= run.head.len() {
            return Ok(run.head.slice(at..end));
        }
        self.read(run.page, run.offset + at as u64, len)
    }
}

/// The pages met so far.
#[derive(Debug)]
struct Visited {
    bits: Vec<u64>,
    pages: u64,
}

impl Visited {
    /// One bit for each page of the file.
    fn new(pages: u64) -> Self {
        Self { bits: Vec::new(), pages }
    }

    fn mark(&mut self, first: u64, count: u64) -> Result<(), BboltError> {
        let end = first.saturating_add(count);
        if end > self.pages {
            return Err(damaged(first, "it is longer than the file"));
        }
        for page in first..end {
            let (word, bit) = (usize::try_from(page / 64).unwrap_or(usize::MAX), 1 << (page % 64));
            if self.bits.len() <= word {
                self.bits.resize(word + 1, 0);
            }
            let word = self.bits.get_mut(word).filter(|word| **word & bit == 0);
            *word.ok_or_else(|| damaged(page, "it is pointed at twice"))? |= bit;
        }
        Ok(())
    }
}

/// A page with those that belong to it.
#[derive(Debug)]
struct Run {
    page: u64,
    header: Header,
    /// Where it begins in the file; nothing is read from there for an inline bucket.
    offset: u64,
    len: usize,
    /// Its beginning, its table at least.
    head: Bytes,
}

impl Run {
    /// The page inside an element of `page`.
    fn inline(page: u64, head: Bytes) -> Result<Self, BboltError> {
        let header = Header::read(&head).ok_or_else(|| damaged(page, "an inline bucket is shorter than its header"))?;
        if header.flags != LEAF || header.overflow != 0 {
            return Err(damaged(page, "an inline bucket is not a single leaf"));
        }
        Self { page, header, offset: 0, len: head.len(), head }.check()
    }

    fn check(self) -> Result<Self, BboltError> {
        if self.header.flags != BRANCH && self.header.flags != LEAF {
            return Err(damaged(self.page, "it is neither a branch nor a leaf"));
        }
        if self.header.table_end() > self.head.len() {
            return Err(damaged(self.page, "it is shorter than its table"));
        }
        Ok(self)
    }

    /// The bytes of element `number`, and where they begin.
    fn element(&self, number: u16) -> (usize, &[u8]) {
        let at = HEADER_BYTES + ELEMENT_BYTES * usize::from(number);
        (at, self.head.get(at..at + ELEMENT_BYTES).unwrap_or_default())
    }
}

/// One element of a leaf.
#[derive(Debug)]
struct Element {
    page: u64,
    flags: u32,
    key: Bytes,
    value: Bytes,
}

/// A walk through one tree.
#[derive(Debug)]
struct Walk {
    /// From the root down, each with the number of its next element.
    stack: Vec<(Run, u16)>,
    /// The last key met in a leaf.
    last: Option<Bytes>,
    /// What the branches say the next key must reach.
    floor: Bytes,
}

impl Walk {
    fn new(root: Run) -> Self {
        Self { stack: vec![(root, 0)], last: None, floor: Bytes::new() }
    }

    fn next<F: DiskFile>(&mut self, source: &mut Source<'_, F>) -> Result<Option<Element>, BboltError> {
        while let Some((run, number)) = self.stack.last_mut() {
            if *number == run.header.count {
                self.stack.pop();
                continue;
            }
            let at = *number;
            *number += 1;
            if run.header.flags == LEAF {
                let element = leaf_element(source, run, at)?;
                return self.in_order(element).map(Some);
            }
            let (page, key, child) = branch_element(source, run, at)?;
            self.descend(source, page, key, child)?;
        }
        Ok(None)
    }

    /// A key of a leaf is above the one before it and reaches what the branches have said of it.
    fn in_order(&mut self, element: Element) -> Result<Element, BboltError> {
        if self.last.as_ref().is_some_and(|last| element.key <= *last) {
            return Err(damaged(element.page, "its keys do not ascend"));
        }
        if element.key < self.floor {
            return Err(damaged(element.page, "a key lies below what the branch above says"));
        }
        self.last = Some(element.key.clone());
        Ok(element)
    }

    /// Goes on in the page `child`, all of whose keys reach `key`.
    fn descend<F: DiskFile>(
        &mut self,
        source: &mut Source<'_, F>,
        page: u64,
        key: Bytes,
        child: u64,
    ) -> Result<(), BboltError> {
        if self.last.as_ref().is_some_and(|last| key <= *last) || key < self.floor {
            return Err(damaged(page, "its keys do not ascend, or lie below those before it"));
        }
        if self.stack.len() >= DEPTH_MAX {
            return Err(damaged(page, "the tree is too deep"));
        }
        self.floor = key;
        let run = source.load(child)?;
        if run.header.count == 0 {
            return Err(damaged(child, "it is empty and not a root"));
        }
        self.stack.push((run, 0));
        Ok(())
    }
}

fn leaf_element<F: DiskFile>(source: &Source<'_, F>, run: &Run, number: u16) -> Result<Element, BboltError> {
    let (start, bytes) = run.element(number);
    let element = LeafElement::read(bytes).ok_or_else(|| damaged(run.page, "it is shorter than its table"))?;
    let LeafElement { flags, at, key_len, value_len } = element;
    let (at, key_len, value_len) = (start + at as usize, key_len as usize, value_len as usize);
    if key_len == 0 || key_len > KEY_BYTES_MAX || value_len > VALUE_BYTES_MAX {
        return Err(damaged(run.page, "a key or a value has an impossible length"));
    }
    let mut value = source.piece(run, at, key_len + value_len)?;
    let key = value.split_to(key_len);
    Ok(Element { page: run.page, flags, key, value })
}

/// The page it is on, its key and its child.
fn branch_element<F: DiskFile>(
    source: &Source<'_, F>,
    run: &Run,
    number: u16,
) -> Result<(u64, Bytes, u64), BboltError> {
    let (start, bytes) = run.element(number);
    let element = BranchElement::read(bytes).ok_or_else(|| damaged(run.page, "it is shorter than its table"))?;
    let BranchElement { at, key_len, child } = element;
    if key_len as usize > KEY_BYTES_MAX {
        return Err(damaged(run.page, "a key has an impossible length"));
    }
    Ok((run.page, source.piece(run, start + at as usize, key_len as usize)?, child))
}

fn damaged(page: u64, what: &'static str) -> BboltError {
    BboltError::Page { page, what }
}
