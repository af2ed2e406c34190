//! Events encoded once, cut into what each watcher gets.

use std::{cell::OnceCell, sync::Arc};

use bytes::{Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use crate::{
    mvcc::Changes,
    pb::mvccpb::{Event, KeyValue, event::EventType},
};

/// Field number of `events` in a `WatchResponse`.
pub(super) const EVENTS_FIELD: u32 = 11;

/// Positions of neighbouring events in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first.
    pub start: u32,
    /// The first that is not one of them.
    pub end: u32,
}

/// What a watcher does not want to hear of, and whether it wants previous pairs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cut {
    /// Not of puts.
    pub no_put: bool,
    /// Not of deletes.
    pub no_delete: bool,
    /// Previous pairs, too.
    pub prev_kv: bool,
}

/// All events of one revision, or of several that arrived together.
#[derive(Debug)]
pub struct Batch {
    changes: Arc<Changes>,
    /// Without and with previous pairs; made when first asked for.
    plain: OnceCell<Encoded>,
    full: OnceCell<Encoded>,
}

/// Events that were selected, encoded as the field `events` of a response.
#[derive(Clone, Debug, Default)]
pub struct Selected {
    /// The encoded field.
    pub bytes: Bytes,
    /// How many.
    pub events: u64,
}

/// The results of one selection of events, one for each kind of watcher.
#[derive(Debug, Default)]
pub struct Cuts {
    made: [Option<Selected>; Cut::KINDS],
}

/// Events as the field `events` of a response, one behind the other.
#[derive(Debug)]
struct Encoded {
    bytes: Bytes,
    /// Where each event ends.
    ends: Vec<usize>,
}

impl Cut {
    const KINDS: usize = 8;

    fn number(self) -> usize {
        usize::from(self.no_put) | usize::from(self.no_delete) << 1 | usize::from(self.prev_kv) << 2
    }

    fn takes_all(self) -> bool {
        !self.no_put && !self.no_delete
    }

    fn takes(self, event: &Event) -> bool {
        let unwanted = if event.r#type == EventType::Put as i32 { self.no_put } else { self.no_delete };
        !unwanted
    }
}

impl Batch {
    /// Takes events that are about to be encoded, each form at most once.
    pub fn new(changes: Arc<Changes>) -> Self {
        Self { changes, plain: OnceCell::new(), full: OnceCell::new() }
    }

    /// The revision of the last event.
    pub fn revision(&self) -> i64 {
        self.changes.revision
    }

    /// The events.
    pub fn events(&self) -> &[Event] {
        &self.changes.events
    }

    /// Bytes of keys and values held.
    pub fn weight(&self) -> usize {
        let weight = |kv: &KeyValue| kv.key.len() + kv.value.len();
        self.events().iter().flat_map(|event| [&event.kv, &event.prev_kv]).flatten().map(weight).sum()
    }

    /// The events of `runs` that `cut` takes, encoded. Shares memory with every other selection where it can.
    pub fn select(&self, runs: &[Run], cut: Cut) -> Selected {
        let encoded = self.encoded(cut.prev_kv);
        if cut.takes_all() {
            return encoded.concat(runs);
        }
        let taken = |place: &u32| self.events().get(*place as usize).is_some_and(|event| cut.takes(event));
        encoded.concat(&coalesce(runs.iter().flat_map(|run| run.start..run.end).filter(taken)))
    }

    /// As [`Batch::select`] over several batches, one behind the other.
    pub(super) fn select_all(pieces: &[(&Self, Vec<Run>)], cut: Cut) -> Selected {
        if let [(batch, runs)] = pieces {
            return batch.select(runs, cut);
        }
        let parts: Vec<Selected> = pieces.iter().map(|(batch, runs)| batch.select(runs, cut)).collect();
        let bytes: Vec<Bytes> = parts.iter().map(|part| part.bytes.clone()).collect();
        Selected { bytes: bytes.concat().into(), events: parts.iter().map(|part| part.events).sum() }
    }

    fn encoded(&self, prev_kv: bool) -> &Encoded {
        let prev_kv = prev_kv && self.events().iter().any(|event| event.prev_kv.is_some());
        let cell = if prev_kv { &self.full } else { &self.plain };
        cell.get_or_init(|| Encoded::new(self.events(), prev_kv))
    }
}

impl Cuts {
    /// What `make` makes for this kind of watcher, made at most once.
    pub fn get(&mut self, cut: Cut, make: impl FnOnce() -> Selected) -> Selected {
        match self.made.get_mut(cut.number()) {
            Some(slot) => slot.get_or_insert_with(make).clone(),
            None => make(),
        }
    }
}

impl Encoded {
    fn new(events: &[Event], prev_kv: bool) -> Self {
        let mut bytes = BytesMut::with_capacity(events.iter().map(|event| field_len(body_len(event, prev_kv))).sum());
        let mut ends = Vec::with_capacity(events.len());
        for event in events {
            encode_event(event, prev_kv, &mut bytes);
            ends.push(bytes.len());
        }
        Self { bytes: bytes.freeze(), ends }
    }

    fn concat(&self, runs: &[Run]) -> Selected {
        let bytes = match runs {
            [] => Bytes::new(),
            [run] => self.slice(*run),
            _ => runs.iter().map(|run| self.slice(*run)).collect::<Vec<_>>().concat().into(),
        };
        Selected { bytes, events: runs.iter().map(|run| u64::from(run.end - run.start)).sum() }
    }

    fn slice(&self, run: Run) -> Bytes {
        let end_of = |event: Option<u32>| event.and_then(|event| self.ends.get(event as usize).copied());
        let (start, end) = (end_of(run.start.checked_sub(1)).unwrap_or(0), end_of(run.end.checked_sub(1)).unwrap_or(0));
        self.bytes.slice(start.min(end)..end)
    }
}

/// Appends `place` to ordered runs.
pub(super) fn push(runs: &mut Vec<Run>, place: u32) {
    match runs.last_mut() {
        Some(last) if last.end == place => last.end += 1,
        _ => runs.push(Run { start: place, end: place + 1 }),
    }
}

fn coalesce(places: impl Iterator<Item = u32>) -> Vec<Run> {
    let mut runs = Vec::new();
    places.for_each(|place| push(&mut runs, place));
    runs
}

fn field_len(body: usize) -> usize {
    key_len(EVENTS_FIELD) + encoded_len_varint(body as u64) + body
}

fn body_len(event: &Event, prev_kv: bool) -> usize {
    let kind = if event.r#type == 0 { 0 } else { 1 + encoded_len_varint(kind_bits(event)) };
    let pair = |kv: Option<&KeyValue>| kv.map_or(0, |kv| prost::encoding::message::encoded_len(1, kv));
    kind + pair(event.kv.as_ref()) + pair(event.prev_kv.as_ref().filter(|_| prev_kv))
}

#[expect(clippy::cast_sign_loss, reason = "protobuf writes an enum as the sign-extended varint of its number")]
fn kind_bits(event: &Event) -> u64 {
    i64::from(event.r#type) as u64
}

fn encode_event(event: &Event, prev_kv: bool, out: &mut BytesMut) {
    encode_key(EVENTS_FIELD, WireType::LengthDelimited, out);
    encode_varint(body_len(event, prev_kv) as u64, out);
    if event.r#type != 0 {
        encode_key(1, WireType::Varint, out);
        encode_varint(kind_bits(event), out);
    }
    for (field, kv) in [(2, event.kv.as_ref()), (3, event.prev_kv.as_ref().filter(|_| prev_kv))] {
        if let Some(kv) = kv {
            encode_key(field, WireType::LengthDelimited, out);
            encode_varint(kv.encoded_len() as u64, out);
            kv.encode_raw(out);
        }
    }
}

#[cfg(test)]
impl Run {
    /// The first `count` events.
    pub(super) fn first(count: usize) -> Self {
        Self { start: 0, end: u32::try_from(count).unwrap_or(u32::MAX) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::etcdserverpb::WatchResponse;

    fn pair(key: &str, value: &str) -> KeyValue {
        KeyValue { key: key.to_owned().into(), value: value.to_owned().into(), mod_revision: 7, ..KeyValue::default() }
    }

    fn event(kind: EventType, key: &str, prev: Option<&str>) -> Event {
        Event { r#type: kind.into(), kv: Some(pair(key, "v")), prev_kv: prev.map(|value| pair(key, value)) }
    }

    fn batch() -> Batch {
        let events = vec![
            event(EventType::Put, "a", None),
            event(EventType::Delete, "b", Some("old")),
            event(EventType::Put, "c", Some("older")),
        ];
        Batch::new(Arc::new(Changes { revision: 7, events }))
    }

    fn decoded(bytes: Bytes) -> Vec<Event> {
        WatchResponse::decode(bytes).unwrap().events
    }

    #[test]
    fn selection_is_the_events_field_of_a_response() {
        let batch = batch();
        let cut = Cut { prev_kv: true, ..Cut::default() };
        assert_eq!(decoded(batch.select(&[Run::first(3)], cut).bytes), batch.events());
        let response = WatchResponse { events: batch.events().to_vec(), ..WatchResponse::default() };
        assert_eq!(batch.select(&[Run::first(3)], cut).bytes, response.encode_to_vec());
    }

    #[test]
    fn previous_pairs_are_left_out_unless_asked_for() {
        let batch = batch();
        let plain = decoded(batch.select(&[Run::first(3)], Cut::default()).bytes);
        assert!(plain.iter().all(|event| event.prev_kv.is_none()));
        assert_eq!(plain.len(), 3);
    }

    #[test]
    fn filters_and_gaps_select_single_events() {
        let batch = batch();
        let keys = |runs: &[Run], cut| -> Vec<Bytes> {
            decoded(batch.select(runs, cut).bytes).into_iter().map(|event| event.kv.unwrap().key).collect()
        };
        assert_eq!(keys(&[Run::first(3)], Cut { no_delete: true, ..Cut::default() }), ["a", "c"]);
        assert_eq!(keys(&[Run::first(3)], Cut { no_put: true, ..Cut::default() }), ["b"]);
        assert_eq!(keys(&[Run::first(1), Run { start: 2, end: 3 }], Cut::default()), ["a", "c"]);
        assert!(batch.select(&[Run::first(3)], Cut { no_put: true, no_delete: true, prev_kv: false }).bytes.is_empty());
    }

    #[test]
    fn equal_selections_share_their_bytes() {
        let (batch, mut cuts) = (batch(), Cuts::default());
        let one = cuts.get(Cut::default(), || batch.select(&[Run::first(2)], Cut::default()));
        let two = cuts.get(Cut::default(), || unreachable!("made already"));
        assert_eq!((one.bytes.as_ptr(), one.events), (two.bytes.as_ptr(), 2));
        let whole = batch.select(&[Run::first(3)], Cut::default());
        assert_eq!(whole.bytes.as_ptr(), one.bytes.as_ptr(), "one encoding of the whole batch");
    }
}
