//! Watchers: each follows a range of keys through restarts, changes of member and compactions, and compares what it is
//! told with what happened.
//!
//! A watch is ordered, unique, atomic (a revision comes whole), reliable (nothing is left out), resumable (from any
//! revision that is not compacted) and bookmarkable (a progress response is behind every event up to its revision).

use std::collections::VecDeque;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use quorate::pb::etcdserverpb::{
    WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse, watch_request::RequestUnion,
};
use quorate::pb::mvccpb::event::EventType;
use quorate::watch::{Body, Delivery, Header, Past, StreamId};

use crate::bug::Bug;
use crate::host::{Life, MS, SECOND, Time};
use crate::simulated::model::{Change, changes_of};
use crate::simulated::{Stop, Wrong};
use crate::world::{Event, World};

/// How many there are.
const WATCHERS: usize = 4;
/// Progress notifications of a stream.
const PROGRESS_MS: u64 = 3_000;
/// A connection that brings nothing for so long is given up.
const PATIENCE: Time = 4 * SECOND;
/// Fragments in a hundred at which the watcher hangs up, in the middle of a revision.
const HASTY: u64 = 3;
/// Responses that wait for one client, above which a stream counts as busy, for a bug.
const BUSY: usize = 3;

/// From a watcher to its member.
#[derive(Debug)]
pub(crate) enum WatchIn {
    /// Connects and creates the watch.
    Create { watcher: usize, connection: u64, request: Box<WatchCreateRequest> },
    /// Asks for progress.
    Progress { watcher: usize, connection: u64 },
    /// The client has taken responses with so many bytes of events.
    Taken { stream: StreamId, responses: usize, bytes: usize },
    /// The client has hung up.
    Close { watcher: usize, connection: u64 },
}

/// From a member to its watcher.
#[derive(Debug)]
pub(crate) enum WatchOut {
    /// One response, and what it takes from the room of its stream.
    Response { connection: u64, stream: StreamId, response: Box<WatchResponse>, bytes: usize },
    /// The connection is gone.
    Broken(u64),
}

/// One watcher.
#[derive(Debug)]
pub(crate) struct Watcher {
    range: (Bytes, Bytes),
    prev_kv: bool,
    fragment: bool,
    connection: u64,
    host: Option<usize>,
    created: bool,
    /// Everything up to this revision was received, or is known not to concern it.
    seen: i64,
    /// Fragments of a response that is not complete.
    fragments: Vec<quorate::pb::mvccpb::Event>,
    heard_at: Time,
    /// Responses on one connection arrive in order.
    last_out: Time,
}

impl Watcher {
    /// Whether it knows everything that happened.
    pub(crate) fn is_content(&self, world: &World) -> bool {
        self.seen >= world.oracle.model.revision
    }

    /// The revisions behind what it has seen, up to this one.
    fn after(&self, last: i64) -> Range<i64> {
        let next = self.seen + 1;
        next..next.max(last + 1)
    }

    fn concerns(&self, (key, _): &Change) -> bool {
        let (from, to) = &self.range;
        if to.is_empty() { key == from } else { key >= from && (to.as_ref() == b"\0" || key < to) }
    }
}

impl World {
    pub(crate) fn add_watchers(&mut self) {
        for watcher in 0..WATCHERS {
            let all = (Bytes::from_static(b"\0"), Bytes::from_static(b"\0"));
            let range = match watcher {
                0 | 1 => all,
                2 => (Bytes::from_static(b"alone/"), Bytes::from_static(b"alone0")),
                _ => (Bytes::from_static(b"alone/1"), Bytes::new()),
            };
            let (prev_kv, fragment) = (self.random.chance(50), self.random.chance(50));
            self.watchers.push(Watcher {
                range,
                prev_kv,
                fragment,
                connection: 0,
                host: None,
                created: false,
                seen: 1,
                fragments: Vec::new(),
                heard_at: 0,
                last_out: 0,
            });
            let delay = self.random.below(SECOND);
            self.at(delay, Event::WatchNext(watcher));
        }
    }

    /// A watcher connects, asks for progress, hangs up, or just waits.
    pub(crate) fn watcher_acts(&mut self, watcher: usize) {
        let delay = 50 * MS + self.random.below(600 * MS);
        self.at(delay, Event::WatchNext(watcher));
        let Watcher { host, connection, heard_at, created, .. } = self.watchers[watcher];
        match host {
            None => self.connect(watcher),
            Some(_) if self.now > heard_at + PATIENCE => self.hang_up(watcher),
            Some(_) if !self.healing && self.random.chance(8) => self.hang_up(watcher),
            Some(host) if created && self.random.chance(40) => {
                let delay = self.watch_delay();
                self.at(delay, Event::WatchIn(host, WatchIn::Progress { watcher, connection }));
            }
            Some(_) => {}
        }
    }

    fn watch_delay(&mut self) -> Time {
        100 + self.random.below(5 * MS)
    }

    fn connect(&mut self, watcher: usize) {
        let hosts: Vec<usize> = (0..self.hosts.len()).filter(|host| self.hosts[*host].life.is_some()).collect();
        if hosts.is_empty() {
            return;
        }
        let host = *self.random.pick(&hosts);
        // What is not compacted can be watched from its beginning.
        let from = self.oracle.model.compacted.max(2) - 1;
        let again = !self.healing && self.random.chance(30);
        let this = &mut self.watchers[watcher];
        this.seen = if again { from.min(this.seen) } else { this.seen };
        this.connection += 1;
        (this.host, this.created, this.heard_at) = (Some(host), false, self.now);
        this.fragments.clear();
        let (connection, (key, range_end)) = (this.connection, this.range.clone());
        let request = Box::new(WatchCreateRequest {
            key,
            range_end,
            start_revision: this.seen + 1,
            progress_notify: true,
            prev_kv: this.prev_kv,
            fragment: this.fragment,
            ..Default::default()
        });
        self.note(|world| {
            format!("w{watcher} watches {} from {}", world.hosts[host].name, world.watchers[watcher].seen + 1)
        });
        let delay = self.watch_delay();
        self.at(delay, Event::WatchIn(host, WatchIn::Create { watcher, connection, request }));
    }

    fn hang_up(&mut self, watcher: usize) {
        let connection = self.watchers[watcher].connection;
        if let Some(host) = self.watchers[watcher].host.take() {
            let delay = self.watch_delay();
            self.at(delay, Event::WatchIn(host, WatchIn::Close { watcher, connection }));
        }
    }

    // ---------------------------------------------------------------------------------------- at the member's door

    pub(crate) fn watch_in(&mut self, life: &mut Life, order: WatchIn) {
        let mut deliveries = Vec::new();
        let find = |life: &Life, wanted: (usize, u64)| {
            life.streams.iter().find(|(_, owner)| **owner == wanted).map(|(stream, _)| *stream)
        };
        match order {
            WatchIn::Create { watcher, connection, request } => {
                let now = self.hosts[life.host].clock(self.now);
                let stream = life.hub.open(now, PROGRESS_MS);
                life.streams.insert(stream, (watcher, connection));
                let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(*request)) };
                life.hub.request(stream, request, &mut deliveries);
            }
            WatchIn::Progress { watcher, connection } => {
                if let Some(stream) = find(life, (watcher, connection)) {
                    let request = RequestUnion::ProgressRequest(WatchProgressRequest {});
                    life.hub.request(stream, WatchRequest { request_union: Some(request) }, &mut deliveries);
                }
            }
            WatchIn::Taken { stream, responses, bytes } => life.hub.return_room(stream, responses, bytes),
            WatchIn::Close { watcher, connection } => {
                if let Some(stream) = find(life, (watcher, connection)) {
                    life.streams.remove(&stream);
                    life.hub.close(stream);
                }
            }
        }
        self.deliver(life, deliveries, false);
    }

    /// Serves watchers that are behind: one round of reading the past.
    pub(crate) fn catch_up(&mut self, life: &mut Life) -> Result<(), Stop> {
        let mut deliveries = Vec::new();
        let round = life.hub.plan(&mut deliveries);
        let view = life.process.applier.published().view;
        for item in round {
            self.count("pieces of the past read");
            let mut past = item.read(&view).map_err(|error| Stop::Wrong(error.to_string()))?;
            self.bug_in_past(&mut past, view.compact_revision());
            life.hub.caught_up(item, past, &mut deliveries);
        }
        self.deliver(life, deliveries, false);
        Ok(())
    }

    /// Responses go out, those of one connection in order.
    pub(crate) fn deliver(&mut self, life: &mut Life, mut deliveries: Vec<Delivery>, compacts: bool) {
        self.bug_in_deliveries(life, &mut deliveries, compacts);
        let header = Header {
            cluster_id: life.process.identity.cluster.0,
            member_id: life.process.identity.member.0,
            raft_term: life.process.applier.published().term.0,
        };
        for delivery in deliveries {
            let Some((watcher, connection)) = life.streams.get(&delivery.stream).copied() else { continue };
            let (stream, bytes) = (delivery.stream, delivery.event_bytes());
            let overtakes = self.bug == Some(Bug::ProgressAheadOfEvents) && delivery.body == Body::Progress;
            let delay = self.watch_delay();
            let mut time = self.now + delay;
            if !overtakes {
                time = time.max(self.watchers[watcher].last_out);
                self.watchers[watcher].last_out = time;
            }
            // A response that is split takes its room with the last of its frames.
            let frames: Vec<_> = delivery.frames(header, 600).collect();
            for frame in frames {
                let mut encoded = BytesMut::new();
                frame.encode(&mut encoded);
                let response = Box::new(WatchResponse::decode(encoded.freeze()).expect("a frame is a response"));
                let bytes = if response.fragment { 0 } else { bytes };
                self.at_time(
                    time,
                    Event::WatchOut(watcher, WatchOut::Response { connection, stream, response, bytes }),
                );
            }
        }
    }

    // ------------------------------------------------------------------------------------------ back at the watcher

    pub(crate) fn watch_out(&mut self, watcher: usize, out: WatchOut) -> Result<(), Wrong> {
        match out {
            WatchOut::Broken(connection) => {
                if self.watchers[watcher].connection == connection {
                    self.watchers[watcher].host = None;
                }
                Ok(())
            }
            WatchOut::Response { connection, stream, response, bytes } => {
                let Watcher { host, connection: current, .. } = self.watchers[watcher];
                let Some(host) = host.filter(|_| current == connection) else { return Ok(()) };
                self.watchers[watcher].heard_at = self.now;
                if !response.fragment {
                    let delay = self.watch_delay();
                    self.at(delay, Event::WatchIn(host, WatchIn::Taken { stream, responses: 1, bytes }));
                }
                self.note(|_| {
                    let WatchResponse { header, created, canceled, compact_revision, events, .. } = response.as_ref();
                    let revision = header.as_ref().map_or(0, |header| header.revision);
                    let first = events.first().and_then(|event| event.kv.as_ref()).map_or(0, |kv| kv.mod_revision);
                    let count = events.len();
                    format!("w{watcher} hears {count} events from {first} at {revision} {created} {canceled} {compact_revision}")
                });
                let heard = self.hear_watch(watcher, *response);
                heard.map_err(|wrong| format!("watcher {watcher} of {}: {wrong}", self.hosts[host].name))
            }
        }
    }

    fn hear_watch(&mut self, watcher: usize, response: WatchResponse) -> Result<(), Wrong> {
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        let seen = self.watchers[watcher].seen;
        if response.created {
            self.watchers[watcher].created = true;
            return if response.canceled { Err(format!("refused: {}", response.cancel_reason)) } else { Ok(()) };
        }
        if response.canceled {
            return self.hear_compacted(watcher, response.compact_revision);
        }
        if response.events.is_empty() {
            self.count("progress responses");
            self.check_nothing_between(watcher, revision)?;
            self.watchers[watcher].seen = seen.max(revision);
            return Ok(());
        }
        let this = &mut self.watchers[watcher];
        let fragment = response.fragment;
        this.fragments.extend(response.events);
        if fragment {
            self.count("responses in fragments");
            if !self.healing && self.random.chance(HASTY) {
                self.count("watches given up between fragments");
                self.hang_up(watcher);
            }
            return Ok(());
        }
        let events = std::mem::take(&mut this.fragments);
        self.hear_events(watcher, events)
    }

    fn hear_compacted(&mut self, watcher: usize, compact_revision: i64) -> Result<(), Wrong> {
        self.count("watches cancelled by compaction");
        let (seen, compacted) = (self.watchers[watcher].seen, self.oracle.model.compacted);
        if seen + 1 >= compact_revision || compact_revision > compacted {
            return Err(format!("cancelled for compaction {compact_revision} of {compacted}, and has seen {seen}"));
        }
        self.watchers[watcher].seen = compact_revision - 1;
        self.hang_up(watcher);
        Ok(())
    }

    /// A bookmark: nothing that concerns the watcher lies between what it has seen and the bookmark.
    fn check_nothing_between(&self, watcher: usize, revision: i64) -> Result<(), Wrong> {
        let this = &self.watchers[watcher];
        let missed = self.oracle.history.range(this.after(revision));
        let missed =
            missed.filter(|(_, changes)| changes.iter().any(|change| this.concerns(change))).map(|(at, _)| *at);
        let missed: Vec<i64> = missed.collect();
        if missed.is_empty() { Ok(()) } else { Err(format!("progress up to {revision} without {missed:?}")) }
    }

    fn hear_events(&mut self, watcher: usize, events: Vec<quorate::pb::mvccpb::Event>) -> Result<(), Wrong> {
        let mut revisions: VecDeque<(i64, Vec<_>)> = VecDeque::new();
        let mut last = self.watchers[watcher].seen;
        for event in events {
            let at = event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
            if at < last || (at == last && revisions.is_empty()) {
                return Err(format!("an event of revision {at} comes after those of {last}"));
            }
            last = at;
            self.check_previous(watcher, &event, at)?;
            match revisions.back_mut().filter(|(revision, _)| *revision == at) {
                Some((_, events)) => events.push(event),
                None => revisions.push_back((at, vec![event])),
            }
        }
        let this = &self.watchers[watcher];
        for (revision, changes) in self.oracle.history.range(this.after(last)) {
            let wanted: Vec<Change> = changes.iter().filter(|change| this.concerns(change)).cloned().collect();
            if wanted.is_empty() {
                continue;
            }
            let found = revisions.pop_front().map(|(at, events)| (at, changes_of(&events)));
            if found != Some((*revision, wanted.clone())) {
                return Err(format!("revision {revision} was {wanted:?}, it hears {found:?}"));
            }
        }
        if let Some(more) = revisions.front() {
            return Err(format!("nobody has seen {more:?}"));
        }
        self.watchers[watcher].seen = last;
        self.count("responses with events");
        Ok(())
    }

    /// The pair before a change, where it is asked for and not compacted away.
    fn check_previous(&self, watcher: usize, event: &quorate::pb::mvccpb::Event, at: i64) -> Result<(), Wrong> {
        let (Some(kv), true) = (&event.kv, self.watchers[watcher].prev_kv) else { return Ok(()) };
        let before = self.oracle.model.range_at(&kv.key, &Bytes::new(), at - 1).pop();
        if event.prev_kv.is_none() || event.prev_kv == before {
            return Ok(());
        }
        Err(format!("before revision {at} there was {before:?}, it hears {:?}", event.prev_kv))
    }
}

/// Takes the deletions of a revision out of a piece of the past.
pub(crate) fn deletions_at(past: &mut Past, revision: i64) {
    if let Past::Read(history) = past {
        for events in history.revisions.iter_mut().filter(|events| events.revision == revision) {
            events.events.retain(|event| event.r#type != EventType::Delete as i32);
        }
        history.revisions.retain(|events| !events.events.is_empty());
    }
}

/// Whether a stream is so busy that a bug shows.
pub(crate) fn is_busy(deliveries: &[Delivery]) -> bool {
    deliveries.len() >= BUSY
}
