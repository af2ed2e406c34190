//! Ranges: what is asked, what the answer holds, and its delivery in pieces.
//!
//! A range is answered in two passes. The survey walks the interval once and knows the exact answer's size; it keeps the
//! first pairs. An answer that is small is complete then. Of a larger one the rest is read again, piece by piece, when
//! the caller asks for it, so that memory does not grow with the answer. A sorted answer keeps the field it is sorted by
//! and the key, and fetches the pairs again in that order.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BinaryHeap, VecDeque, vec_deque},
};

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use super::{
    ReadError, View,
    rows::Version,
    state::{Pairs, State},
};
use crate::{
    codec::varint,
    pb::{
        etcdserverpb::{
            RangeRequest, RangeResponse, ResponseHeader,
            range_request::{SortOrder, SortTarget},
        },
        mvccpb::KeyValue,
    },
    storage::{Read, StorageError, Table},
    types::{KeyEnd, KeyRange, Rejection},
};

/// Encoded bytes of pairs that a survey keeps: an answer up to that size is read once.
const KEPT_BYTES_MAX: u64 = if cfg!(test) { 100 } else { 512 * 1024 };

/// The next pairs of a range, in the order of the answer.
pub type Chunk = Vec<KeyValue>;

/// A range whose exact answer is known in size but not held in memory. It owns the view it reads, so that all chunks
/// come from one state.
#[derive(Debug)]
pub struct RangePlan<S> {
    view: View<S>,
    query: Query,
    survey: Survey,
}

impl<S: Read> RangePlan<S> {
    pub(super) fn new(view: View<S>, request: &RangeRequest) -> Result<Self, ReadError> {
        let query = Query::of(view.state(), request)?;
        let survey = query.survey(view.state(), KEPT_BYTES_MAX)?;
        Ok(Self { view, query, survey })
    }

    /// The answer without its pairs: `header.revision`, `more`, `count`.
    pub fn frame(&self) -> &RangeResponse {
        &self.survey.frame
    }

    /// Number of pairs the chunks will hold.
    pub fn kvs(&self) -> u64 {
        self.survey.pairs
    }

    /// Bytes that the pairs occupy inside an encoded `RangeResponse` (field `kvs`: tags, lengths and bodies).
    pub fn kvs_bytes(&self) -> u64 {
        self.survey.bytes
    }

    /// The next chunk: at most `kvs_max` pairs, and no further pair once `bytes_max` encoded bytes are reached; empty at
    /// the end.
    ///
    /// # Errors
    /// [`ReadError::Storage`] only.
    pub fn next_chunk(&mut self, kvs_max: usize, bytes_max: usize) -> Result<Chunk, ReadError> {
        let state = self.view.state();
        let mut room = Room { pairs: kvs_max, bytes: bytes_max as u64 };
        let mut chunk = Chunk::new();
        self.survey.take_kept(&mut room, &mut chunk);
        match &mut self.survey.rest {
            Rest::Nothing => {}
            Rest::Behind(behind) => behind.read(&self.query, state, &mut room, &mut chunk)?,
            Rest::Keys(keys) => fetch(keys, &self.query, state, &mut room, &mut chunk)?,
        }
        Ok(chunk)
    }
}

/// Answers a range in one piece.
pub(super) fn answer<R: Read>(state: State<'_, R>, request: &RangeRequest) -> Result<RangeResponse, ReadError> {
    let query = Query::of(state, request)?;
    let mut survey = query.survey(state, u64::MAX)?;
    let mut response = std::mem::take(&mut survey.frame);
    let mut room = Room { pairs: usize::MAX, bytes: u64::MAX };
    response.kvs.reserve(survey.kept.len());
    survey.take_kept(&mut room, &mut response.kvs);
    if let Rest::Keys(keys) = &mut survey.rest {
        fetch(keys, &query, state, &mut room, &mut response.kvs)?;
    }
    Ok(response)
}

/// A range request, read.
#[derive(Debug)]
struct Query {
    range: KeyRange,
    revision: i64,
    /// No limit is the largest number.
    limit: u64,
    count_only: bool,
    fields: Fields,
    filters: Filters,
    order: Order,
}

/// What of a pair is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fields {
    All,
    /// Without value.
    NoValue,
    /// Without value and lease, as etcd answers from its index.
    Index,
}

/// Inclusive bounds of revisions; what is not bounded is at the end of the numbers.
#[derive(Debug)]
struct Filters {
    modified: (i64, i64),
    created: (i64, i64),
    active: bool,
}

/// The order of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// By key.
    Key,
    /// By key, descending, and nothing else asked: read backwards.
    KeyBack,
    /// By a field; pairs with equal fields by key.
    Field { field: Field, descending: bool },
    /// etcd's way with a field but no order: one pair more than the limit is taken by key, then sorted.
    CutThenField(Field),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Key,
    Version,
    Create,
    Modified,
    Value,
}

impl Query {
    fn of<R>(state: State<'_, R>, request: &RangeRequest) -> Result<Self, ReadError> {
        let revision = match request.revision {
            revision if revision > state.revision => return Err(Rejection::FutureRevision.into()),
            revision if revision <= 0 => state.revision,
            revision if revision < state.compact_revision => return Err(Rejection::Compacted.into()),
            revision => revision,
        };
        let filters = Filters::of(request);
        let limit = u64::try_from(request.limit).ok().filter(|limit| *limit > 0).unwrap_or(u64::MAX);
        let newest = revision == state.revision;
        let order = Order::of(request, newest && !filters.active)?;
        Ok(Self {
            range: KeyRange::new(request.key.clone(), &request.range_end),
            revision,
            limit,
            count_only: request.count_only,
            fields: Fields::of(request),
            filters,
            order,
        })
    }

    /// Walks the interval and keeps the first pairs, up to `kept_max` encoded bytes.
    fn survey<R: Read>(&self, state: State<'_, R>, kept_max: u64) -> Result<Survey, ReadError> {
        let mut survey = Survey::new(state.revision, kept_max);
        if self.count_only {
            survey.frame.count = signed(state.count(&self.range, self.revision)?);
            return Ok(survey);
        }
        match self.order {
            _ if self.range.end == KeyEnd::Single => self.survey_single(state, &mut survey)?,
            Order::Key | Order::KeyBack => self.survey_by_key(state, &mut survey)?,
            Order::Field { field, descending } => {
                let top = Top { field, descending, most: self.limit };
                self.survey_by_field(state, &top, &mut survey)?;
            }
            Order::CutThenField(field) => self.survey_cut(state, field, &mut survey)?,
        }
        Ok(survey)
    }

    /// One key has no order and reaches no limit.
    fn survey_single<R: Read>(&self, state: State<'_, R>, survey: &mut Survey) -> Result<(), ReadError> {
        let Some(version) = state.at(&self.range.start, self.revision)? else { return Ok(()) };
        survey.frame.count = 1;
        if self.filters.pass(&version) {
            survey.keep(self.show(self.range.start.clone(), version));
        }
        Ok(())
    }

    fn survey_by_key<R: Read>(&self, state: State<'_, R>, survey: &mut Survey) -> Result<(), ReadError> {
        let mut count = 0;
        let mut pairs = self.pairs(state, &self.range);
        while let Some(pair) = pairs.next() {
            let (key, version) = pair?;
            count += 1;
            if !self.filters.pass(&version) {
                continue;
            }
            if survey.pairs < self.limit {
                survey.keep(self.show(key, version));
                continue;
            }
            survey.frame.more = true;
            if !self.filters.active {
                count = self.count_all(state, count, &key, pairs)?;
                break;
            }
        }
        survey.frame.count = signed(count);
        Ok(())
    }

    /// Counts all candidates when no more pairs are wanted: `count` were read, `key` was the last of them.
    fn count_all<'a, R: Read>(
        &self,
        state: State<'a, R>,
        count: u64,
        key: &[u8],
        pairs: Pairs<'a>,
    ) -> Result<u64, StorageError> {
        if self.order == Order::Key && self.revision == state.revision {
            return Ok(count + state.count_behind(&self.range, key, pairs)?);
        }
        state.count(&self.range, self.revision)
    }

    fn survey_by_field<R: Read>(&self, state: State<'_, R>, top: &Top, survey: &mut Survey) -> Result<(), ReadError> {
        let (mut count, mut passed) = (0, 0);
        let mut ranked = BinaryHeap::new();
        for pair in state.pairs(&self.range, self.revision) {
            let (key, version) = pair?;
            count += 1;
            if self.filters.pass(&version) {
                passed += 1;
                top.rank(self, passed, key, &version, &mut ranked);
            }
        }
        survey.frame.count = signed(count);
        survey.frame.more = passed > self.limit;
        survey.set_order(ranked.into_sorted_vec());
        Ok(())
    }

    fn survey_cut<R: Read>(&self, state: State<'_, R>, field: Field, survey: &mut Survey) -> Result<(), ReadError> {
        let cut = usize::try_from(self.limit.saturating_add(1)).unwrap_or(usize::MAX);
        let all = Top { field, descending: false, most: u64::MAX };
        let mut ranked = BinaryHeap::new();
        let mut count = 0;
        for pair in state.pairs(&self.range, self.revision).take(cut) {
            let (key, version) = pair?;
            count += 1;
            all.rank(self, count, key, &version, &mut ranked);
        }
        survey.frame.more = count > self.limit;
        survey.frame.count = signed(if survey.frame.more { state.count(&self.range, self.revision)? } else { count });
        let mut order = ranked.into_sorted_vec();
        order.truncate(usize::try_from(self.limit).unwrap_or(usize::MAX));
        survey.set_order(order);
        Ok(())
    }

    /// The pairs of `range` in the order they are read.
    fn pairs<'a, R: Read>(&self, state: State<'a, R>, range: &KeyRange) -> Pairs<'a> {
        match self.order {
            Order::KeyBack => state.pairs_back(range),
            _ => state.pairs(range, self.revision),
        }
    }

    fn show(&self, key: Bytes, version: Version) -> KeyValue {
        let mut pair = version.into_key_value(key);
        if self.fields != Fields::All {
            pair.value = Bytes::new();
        }
        if self.fields == Fields::Index {
            pair.lease = 0;
        }
        pair
    }

    /// The part of the interval behind `key`, in the direction it is read.
    fn behind(&self, key: &[u8]) -> KeyRange {
        if self.order == Order::KeyBack {
            return KeyRange { start: self.range.start.clone(), end: KeyEnd::Before(Bytes::copy_from_slice(key)) };
        }
        let mut start = BytesMut::with_capacity(key.len() + 1);
        start.put_slice(key);
        start.put_u8(0);
        KeyRange { start: start.freeze(), end: self.range.end.clone() }
    }
}

impl Fields {
    fn of(request: &RangeRequest) -> Self {
        match (request.keys_only, request.sort_target == SortTarget::Value as i32) {
            (false, _) => Self::All,
            (true, false) => Self::Index,
            (true, true) => Self::NoValue,
        }
    }
}

impl Filters {
    fn of(request: &RangeRequest) -> Self {
        let bounds =
            |min: i64, max: i64| (if min == 0 { i64::MIN } else { min }, if max == 0 { i64::MAX } else { max });
        let modified = bounds(request.min_mod_revision, request.max_mod_revision);
        let created = bounds(request.min_create_revision, request.max_create_revision);
        let open = (i64::MIN, i64::MAX);
        Self { modified, created, active: modified != open || created != open }
    }

    fn pass(&self, version: &Version) -> bool {
        let inside = |(min, max): (i64, i64), revision: i64| min <= revision && revision <= max;
        !self.active || (inside(self.modified, version.modified.main) && inside(self.created, version.put.create))
    }
}

impl Order {
    /// `plain` says that nothing stands against reading backwards: no filter, and the newest revision.
    fn of(request: &RangeRequest, plain: bool) -> Result<Self, Rejection> {
        let order = SortOrder::try_from(request.sort_order).map_err(|_| Rejection::InvalidSortOption)?;
        let target = SortTarget::try_from(request.sort_target).map_err(|_| Rejection::InvalidSortOption)?;
        let field = match target {
            SortTarget::Key => Field::Key,
            SortTarget::Version => Field::Version,
            SortTarget::Create => Field::Create,
            SortTarget::Mod => Field::Modified,
            SortTarget::Value => Field::Value,
        };
        let filtered = Filters::of(request).active;
        Ok(match (order, field) {
            (SortOrder::None | SortOrder::Ascend, Field::Key) => Self::Key,
            // etcd cuts first only when there is nothing to filter.
            (SortOrder::None, field) if !filtered => Self::CutThenField(field),
            (SortOrder::None | SortOrder::Ascend, field) => Self::Field { field, descending: false },
            (SortOrder::Descend, Field::Key) if plain => Self::KeyBack,
            (SortOrder::Descend, field) => Self::Field { field, descending: true },
        })
    }
}

/// What a survey found.
#[derive(Debug)]
struct Survey {
    frame: RangeResponse,
    pairs: u64,
    bytes: u64,
    kept: VecDeque<KeyValue>,
    kept_max: u64,
    rest: Rest,
}

/// Where the pairs are that were not kept.
#[derive(Debug)]
enum Rest {
    Nothing,
    Behind(Behind),
    /// To be fetched one by one.
    Keys(vec_deque::IntoIter<Bytes>),
}

/// Pairs to be read again.
#[derive(Debug)]
struct Behind {
    /// The last key that was kept or handed out.
    key: Bytes,
    left: u64,
}

impl Survey {
    fn new(revision: i64, kept_max: u64) -> Self {
        let header = Some(ResponseHeader { revision, ..ResponseHeader::default() });
        let frame = RangeResponse { header, ..RangeResponse::default() };
        Self { frame, pairs: 0, bytes: 0, kept: VecDeque::new(), kept_max, rest: Rest::Nothing }
    }

    /// Takes the next pair of the answer into account.
    fn keep(&mut self, pair: KeyValue) {
        self.pairs += 1;
        self.bytes += encoded_len(&pair);
        match &mut self.rest {
            Rest::Behind(behind) => behind.left += 1,
            _ if self.bytes <= self.kept_max => self.kept.push_back(pair),
            rest => {
                let key = self.kept.back().map_or_else(Bytes::new, |last| last.key.clone());
                *rest = Rest::Behind(Behind { key, left: 1 });
            }
        }
    }

    fn set_order(&mut self, ranked: Vec<Ranked>) {
        self.pairs = ranked.len() as u64;
        self.bytes = ranked.iter().map(|ranked| ranked.bytes).sum();
        let keys: VecDeque<_> = ranked.into_iter().map(|ranked| ranked.key).collect();
        self.rest = Rest::Keys(keys.into_iter());
    }

    fn take_kept(&mut self, room: &mut Room, chunk: &mut Chunk) {
        while room.is_left() {
            let Some(pair) = self.kept.pop_front() else { return };
            room.take(&pair);
            chunk.push(pair);
        }
    }
}

impl Behind {
    /// Reads on where the last piece ended.
    fn read<R: Read>(
        &mut self,
        query: &Query,
        state: State<'_, R>,
        room: &mut Room,
        chunk: &mut Chunk,
    ) -> Result<(), ReadError> {
        if self.left == 0 || !room.is_left() {
            return Ok(());
        }
        // Nothing was kept of an interval whose first pair is too large already.
        let range = if self.key.is_empty() { query.range.clone() } else { query.behind(&self.key) };
        for pair in query.pairs(state, &range) {
            let (key, version) = pair?;
            if !query.filters.pass(&version) {
                continue;
            }
            self.key.clone_from(&key);
            self.left -= 1;
            let pair = query.show(key, version);
            room.take(&pair);
            chunk.push(pair);
            if self.left == 0 || !room.is_left() {
                break;
            }
        }
        Ok(())
    }
}

/// Fetches the next pairs of a sorted answer.
fn fetch<R: Read>(
    keys: &mut vec_deque::IntoIter<Bytes>,
    query: &Query,
    state: State<'_, R>,
    room: &mut Room,
    chunk: &mut Chunk,
) -> Result<(), ReadError> {
    while room.is_left() {
        let Some(key) = keys.next() else { return Ok(()) };
        let Some(version) = state.at(&key, query.revision)? else {
            return Err(StorageError::corrupt(Table::Live, &key, "the key was listed and is not there").into());
        };
        let pair = query.show(key, version);
        room.take(&pair);
        chunk.push(pair);
    }
    Ok(())
}

/// What a chunk may still take.
struct Room {
    pairs: usize,
    bytes: u64,
}

impl Room {
    fn is_left(&self) -> bool {
        self.pairs > 0 && self.bytes > 0
    }

    fn take(&mut self, pair: &KeyValue) {
        self.pairs = self.pairs.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(encoded_len(pair));
    }
}

/// Bytes of a pair inside an encoded answer: tag, length and body.
fn encoded_len(pair: &KeyValue) -> u64 {
    let body = pair.encoded_len() as u64;
    1 + varint::len(body) as u64 + body
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The first `most` pairs in the order of a field.
struct Top {
    field: Field,
    descending: bool,
    most: u64,
}

impl Top {
    /// Takes a pair in, and drops the last one when there are too many.
    fn rank(&self, query: &Query, index: u64, key: Bytes, version: &Version, ranked: &mut BinaryHeap<Ranked>) {
        let rank = self.rank_of(&key, version);
        if ranked.len() as u64 >= self.most
            && ranked.peek().is_some_and(|last| (&last.rank, last.index) < (&rank, index))
        {
            return;
        }
        let bytes = encoded_len(&query.show(key.clone(), version.clone()));
        ranked.push(Ranked { rank, index, key, bytes });
        if ranked.len() as u64 > self.most {
            ranked.pop();
        }
    }

    fn rank_of(&self, key: &Bytes, version: &Version) -> Rank {
        let number =
            |number: i64| if self.descending { Rank::NumberBack(Reverse(number)) } else { Rank::Number(number) };
        // A copy, because the bytes at hand may keep a whole block of rows in memory.
        let bytes = |bytes: &Bytes| {
            let copy = Bytes::copy_from_slice(bytes);
            if self.descending { Rank::BytesBack(Reverse(copy)) } else { Rank::Bytes(copy) }
        };
        match self.field {
            Field::Key => bytes(key),
            Field::Version => number(version.put.version),
            Field::Create => number(version.put.create),
            Field::Modified => number(version.modified.main),
            Field::Value => bytes(&version.put.value),
        }
    }
}

/// A pair's place: by rank, and by key where ranks are equal.
#[derive(Debug)]
struct Ranked {
    rank: Rank,
    /// Position by key.
    index: u64,
    key: Bytes,
    /// Its bytes in the encoded answer.
    bytes: u64,
}

/// A field to sort by. All ranks of one answer are of one kind.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Number(i64),
    NumberBack(Reverse<i64>),
    Bytes(Bytes),
    BytesBack(Reverse<Bytes>),
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        (&self.rank, self.index).cmp(&(&other.rank, other.index))
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ranked {}
