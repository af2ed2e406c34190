//! The rules of the tree, one by one. Where nothing else is said the store stands at 3 before the first change.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use super::*;
use crate::storage::{Batch, Engine as _, MemoryEngine};

const BEFORE: u64 = 3;
const SECOND: Nanos = 1_000_000_000;
const NOW: Nanos = 1_700_000_000 * SECOND;

/// A tree in memory, at a time of its own.
struct World {
    engine: MemoryEngine,
    history: RefCell<History>,
    now: Nanos,
}

impl World {
    fn new() -> Self {
        Self { engine: MemoryEngine::new(), history: RefCell::default(), now: NOW }
    }

    fn request(&self, method: Method, path: &str) -> Request {
        Request::new(method, &path_of(path), self.now)
    }

    fn run(&self, request: &Request) -> Outcome {
        let mut batch = Batch::new(self.engine.snapshot());
        let outcome = Change::carry_out(&mut batch, &mut self.history.borrow_mut(), BEFORE, request).unwrap();
        let refused = matches!(outcome.answer, Some(Err(_)));
        assert_eq!(refused, batch.is_empty(), "a refusal writes nothing, everything else something");
        self.engine.commit(batch.into_writes()).unwrap();
        outcome
    }

    fn ask(&self, request: &Request) -> Result<Arc<Event>, Error> {
        self.run(request).answer.unwrap()
    }

    fn put(&self, path: &str, value: &str) -> Result<Arc<Event>, Error> {
        self.put_with(path, value, |_| {})
    }

    fn put_with(&self, path: &str, value: &str, with: impl FnOnce(&mut Request)) -> Result<Arc<Event>, Error> {
        let mut request = Request { value: value.to_owned().into(), ..self.request(Method::Put, path) };
        with(&mut request);
        self.ask(&request)
    }

    fn delete_with(&self, path: &str, with: impl FnOnce(&mut Request)) -> Result<Arc<Event>, Error> {
        let mut request = self.request(Method::Delete, path);
        with(&mut request);
        self.ask(&request)
    }

    fn post(&self, path: &str) -> Result<Arc<Event>, Error> {
        self.ask(&self.request(Method::Post, path))
    }

    fn sync(&self, after: Nanos) -> Vec<Told> {
        self.run_sync(&Request { time: self.now + after, ..self.request(Method::Sync, "/") })
    }

    fn run_sync(&self, request: &Request) -> Vec<Told> {
        let mut batch = Batch::new(self.engine.snapshot());
        let outcome = Change::carry_out(&mut batch, &mut self.history.borrow_mut(), BEFORE, request).unwrap();
        self.engine.commit(batch.into_writes()).unwrap();
        outcome.told
    }

    fn get(&self, path: &str) -> Result<Found, Error> {
        self.list(path, Depth::Children)
    }

    fn list(&self, path: &str, depth: Depth) -> Result<Found, Error> {
        let rows = self.engine.snapshot();
        let (index, mut listing) = Tree::new(&rows, BEFORE).get(&path_of(path), depth, self.now).unwrap()?;
        let mut steps = Vec::new();
        // As small as pieces can be, so that the walk rests everywhere.
        while !listing.is_done() {
            steps.append(&mut listing.steps(&rows, 1).unwrap());
        }
        let (_, mut whole) = Tree::new(&rows, BEFORE).get(&path_of(path), depth, self.now).unwrap()?;
        assert_eq!(whole.steps(&rows, usize::MAX).unwrap(), steps, "the steps do not depend on where it rests");
        Ok(Found { index, steps })
    }

    fn index(&self) -> u64 {
        Tree::new(&self.engine.snapshot(), BEFORE).index().unwrap()
    }

    fn since(&self, path: &str, recursive: bool, from: u64) -> Result<Option<u64>, Error> {
        let watch = Watch { path: path_of(path), recursive, stream: false };
        let found = Tree::new(&self.engine.snapshot(), BEFORE).event_since(&watch, from, self.index()).unwrap();
        found.map(|event| event.map(|event| event.index))
    }
}

/// The answer to a read.
struct Found {
    index: u64,
    steps: Vec<Step>,
}

impl std::fmt::Debug for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.steps.fmt(f)
    }
}

impl Found {
    fn node(&self) -> &Shown {
        match &self.steps[0] {
            Step::Node(shown) | Step::Enter(shown) => shown,
            Step::Leave(_) => panic!("nothing was entered"),
        }
    }

    /// What is shown, directories with a slash, and where they end.
    fn shape(&self) -> Vec<String> {
        let name = |shown: &Shown| String::from_utf8_lossy(&shown.key.as_bytes()[2..]).into_owned();
        let step = |step: &Step| match step {
            Step::Node(shown) => name(shown),
            Step::Enter(shown) => name(shown) + "/",
            Step::Leave(_) => "..".to_owned(),
        };
        self.steps.iter().map(step).collect()
    }
}

fn path_of(path: &str) -> Path {
    Path::below("/1", path.as_bytes())
}

/// Code, cause as clients see it, index.
fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> (u16, String, u64) {
    let Error { code, cause, index } = result.unwrap_err();
    let cause = String::from_utf8(cause.to_vec()).unwrap();
    (code.number(), cause.strip_prefix("/1").unwrap_or(&cause).to_owned(), index)
}

fn refused<T: std::fmt::Debug>(result: Result<T, Error>, code: u16, cause: &str) {
    let (found, text, _) = refusal(result);
    assert_eq!((found, text.as_str()), (code, cause));
}

fn dir(request: &mut Request) {
    request.dir = true;
}

#[test]
fn first_set_takes_the_index_behind_the_members_part() {
    let world = World::new();
    let event = world.put("/foo", "bar").unwrap();
    assert_eq!((event.action, event.node.modified, event.node.created), (Action::Set, 4, 4));
    assert!(event.is_creation() && event.previous.is_none());
    let again = world.put("/foo", "baz").unwrap();
    assert_eq!((again.node.modified, again.node.created), (5, 5));
    assert_eq!(again.previous.as_ref().unwrap().value.as_deref(), Some(b"bar".as_slice()));
    assert!(!again.is_creation());
    let found = world.get("/foo").unwrap();
    assert_eq!((found.index, found.node().value.as_deref()), (5, Some(b"baz".as_slice())));
}

#[test]
fn lookup_blames_the_first_part_that_is_wrong() {
    let world = World::new();
    world.put("/foo", "").unwrap();
    assert_eq!(refusal(world.get("/a/b/c")), (100, "/a".to_owned(), 4));
    refused(world.get("/foo/x/y"), 104, "/foo");
    refused(world.put("/foo/x", ""), 104, "/foo");
    refused(world.put_with("/foo/x", "", |request| request.prev_exist = Some(false)), 104, "/foo");
    refused(world.delete_with("/gone", |_| {}), 100, "/gone");
}

#[test]
fn roots_cannot_be_changed_but_take_children() {
    let world = World::new();
    refused(world.put("/", "x"), 107, "/");
    refused(world.put_with("/", "", |request| request.prev_exist = Some(true)), 107, "/");
    refused(world.put_with("/", "", |request| request.prev_exist = Some(false)), 107, "/");
    refused(world.put_with("/", "", |request| request.prev_index = 1), 107, "/");
    refused(world.delete_with("/", |request| request.recursive = true), 107, "/");
    assert_eq!(world.post("/").unwrap().node.key, path_of("/00000000000000000004"));
    let children = Tree::new(&world.engine.snapshot(), BEFORE).has_user_data().unwrap();
    assert!(children && world.get("/00000000000000000004").is_ok());
}

#[test]
fn update_keeps_the_index_of_creation_and_replaces_the_value() {
    let world = World::new();
    refused(world.put_with("/a", "1", |request| request.prev_exist = Some(true)), 100, "/a");
    world.put("/a", "1").unwrap();
    let event = world.put_with("/a", "", |request| request.prev_exist = Some(true)).unwrap();
    assert_eq!((event.action, event.node.created, event.node.modified), (Action::Update, 4, 5));
    assert_eq!(world.get("/a").unwrap().node().value.as_deref(), Some(b"".as_slice()));
}

#[test]
fn creation_refuses_what_is_there() {
    let world = World::new();
    let create = |request: &mut Request| request.prev_exist = Some(false);
    assert_eq!(world.put_with("/a", "1", create).unwrap().action, Action::Create);
    refused(world.put_with("/a", "1", create), 105, "/a");
    let event = world.put_with("/b", "1", |request| {
        create(request);
        request.prev_value = "other".into();
    });
    assert_eq!(event.unwrap().action, Action::Create, "other conditions are ignored");
}

#[test]
fn comparison_tells_what_differs() {
    let world = World::new();
    world.put("/a", "one").unwrap();
    let swap = |value: &str, index: u64| {
        world.put_with("/a", "two", |request| {
            (request.prev_value, request.prev_index) = (value.to_owned().into(), index);
        })
    };
    refused(swap("two", 0), 101, "[two != one]");
    refused(swap("", 10), 101, "[10 != 4]");
    refused(swap("bad", 100), 101, "[bad != one] [100 != 4]");
    refused(swap("one", 5), 101, "[5 != 4]");
    let event = swap("one", 4).unwrap();
    assert_eq!((event.action, event.node.created, event.node.modified), (Action::CompareAndSwap, 4, 5));
    refused(world.put_with("/b", "", |request| request.prev_index = 1), 100, "/b");
    world.put_with("/dir", "", dir).unwrap();
    refused(world.put_with("/dir", "", |request| request.prev_index = 1), 102, "/dir");
}

#[test]
fn directories_are_not_replaced() {
    let world = World::new();
    assert!(world.put_with("/d", "ignored", dir).unwrap().node.value.is_none());
    refused(world.put_with("/d", "", dir), 102, "/d");
    refused(world.put("/d", "x"), 102, "/d");
    refused(world.put_with("/d", "x", |request| request.prev_exist = Some(true)), 102, "/d");
    world.put("/f", "x").unwrap();
    let event = world.put_with("/f", "", dir).unwrap();
    assert!(event.node.dir && !event.previous.as_ref().unwrap().dir);
}

#[test]
fn parents_appear_with_the_index_that_needed_them_and_keep_it() {
    let world = World::new();
    world.put("/a/b/c", "1").unwrap();
    world.put("/a/b/d", "1").unwrap();
    let found = world.get("/a").unwrap();
    assert_eq!((found.node().created, found.node().modified), (4, 4));
    assert_eq!(found.shape(), ["/a/", "/a/b", ".."], "children of children are not shown");
    assert_eq!(world.list("/a", Depth::All).unwrap().shape(), ["/a/", "/a/b/", "/a/b/c", "/a/b/d", "..", ".."]);
}

#[test]
fn listings_are_sorted_by_bytes_and_leave_hidden_nodes_out() {
    let world = World::new();
    for name in ["/r/b", "/r/a2", "/r/a10", "/r/_h", "/r/d/_h/x", "/r/a", "/r/a\0z", "/r/z"] {
        world.put(name, "").unwrap();
    }
    let children = ["/r/", "/r/a", "/r/a\0z", "/r/a10", "/r/a2", "/r/b", "/r/d", "/r/z", ".."];
    assert_eq!(world.get("/r").unwrap().shape(), children);
    let all = ["/r/", "/r/a", "/r/a\0z", "/r/a10", "/r/a2", "/r/b", "/r/d/", "..", "/r/z", ".."];
    assert_eq!(world.list("/r", Depth::All).unwrap().shape(), all);
    assert_eq!(world.get("/r/d/_h").unwrap().shape(), ["/r/d/_h/", "/r/d/_h/x", ".."]);
}

/// Hidden nodes were once walked through without a rest, however many there were.
#[test]
fn walk_rests_among_hidden_nodes() {
    const HIDDEN: usize = 50;
    let world = World::new();
    for number in 0..HIDDEN {
        world.put(&format!("/d/_{number}"), &"v".repeat(100)).unwrap();
    }
    let rows = world.engine.snapshot();
    let (_, mut listing) = Tree::new(&rows, BEFORE).get(&path_of("/d"), Depth::All, NOW).unwrap().unwrap();
    let mut rests = 0;
    while !listing.is_done() {
        let steps = listing.steps(&rows, 150).unwrap();
        assert_eq!(steps.len(), usize::from(rests == 0 || listing.is_done()), "the directory, and its end");
        rests += 1;
    }
    assert!((HIDDEN / 2..=HIDDEN / 2 + 2).contains(&rests), "{rests}");
}

#[test]
fn deletion_of_directories_has_to_be_meant() {
    let world = World::new();
    world.put("/d/_hidden", "v").unwrap();
    refused(world.delete_with("/d", |_| {}), 102, "/d");
    refused(world.delete_with("/d", dir), 108, "/d");
    let event = world.delete_with("/d", |request| request.recursive = true).unwrap();
    assert_eq!((event.action, event.node.modified, event.node.created), (Action::Delete, 5, 4));
    assert!(event.node.dir && event.previous.as_ref().unwrap().dir);
    refused(world.get("/d/_hidden"), 100, "/d");
    world.put_with("/e", "", dir).unwrap();
    world.delete_with("/e", dir).unwrap();
    world.put("/f", "v").unwrap();
    let event = world.delete_with("/f", dir).unwrap();
    assert_eq!((event.node.value.as_deref(), event.node.dir), (None, false));
    assert_eq!(event.previous.as_ref().unwrap().value.as_deref(), Some(b"v".as_slice()));
}

#[test]
fn compared_deletion_is_for_files() {
    let world = World::new();
    world.put("/f", "v").unwrap();
    world.put_with("/d", "", dir).unwrap();
    let delete = |path: &str, value: &'static str| {
        world.delete_with(path, |request| (request.prev_value, request.recursive) = (value.into(), true))
    };
    refused(delete("/d", "v"), 102, "/d");
    refused(delete("/f", "w"), 101, "[w != v]");
    assert_eq!(delete("/f", "v").unwrap().action, Action::CompareAndDelete);
    refused(delete("/", "v"), 102, "");
}

#[test]
fn keys_in_order_are_named_by_the_index() {
    let world = World::new();
    let first = world.post("/q").unwrap();
    assert_eq!((first.action, first.node.key.clone()), (Action::Create, path_of("/q/00000000000000000004")));
    world.put("/other", "").unwrap();
    assert_eq!(world.post("/q").unwrap().node.key, path_of("/q/00000000000000000006"));
    refused(world.post("/other"), 104, "/other");
}

#[test]
fn time_to_live_counts_from_the_request_and_ends_by_the_leaders_clock() {
    let world = World::new();
    let ttl = |seconds: Nanos| move |request: &mut Request| request.expiration = NOW + seconds * SECOND;
    let event = world.put_with("/a", "v", ttl(5)).unwrap();
    assert_eq!((event.node.ttl, event.node.expiration), (5, NOW + 5 * SECOND));
    world.put_with("/b", "v", ttl(3)).unwrap();
    assert!(world.sync(3 * SECOND - 1).is_empty());
    let told = world.sync(9 * SECOND);
    let expired: Vec<_> = told.iter().map(|told| (told.event.node.key.clone(), told.event.index)).collect();
    assert_eq!(expired, [(path_of("/b"), 6), (path_of("/a"), 7)], "in order of expiry, one index each");
    assert_eq!(told[0].event.action, Action::Expire);
    assert_eq!(told[0].event.previous.as_ref().unwrap().value.as_deref(), Some(b"v".as_slice()));
    refused(world.get("/a"), 100, "/a");
    assert_eq!(world.index(), 7);
}

#[test]
fn writes_without_a_time_to_live_make_nodes_stay() {
    let world = World::new();
    let ttl = |request: &mut Request| request.expiration = NOW + SECOND;
    for path in ["/set", "/update", "/swap"] {
        world.put_with(path, "v", ttl).unwrap();
    }
    world.put("/set", "v").unwrap();
    world.put_with("/update", "v", |request| request.prev_exist = Some(true)).unwrap();
    world.put_with("/swap", "v", |request| request.prev_value = "v".into()).unwrap();
    assert!(world.sync(9 * SECOND).is_empty());
    assert_eq!(world.get("/swap").unwrap().node().expiration, 0);
    let ancient = world.put_with("/ancient", "v", |request| request.expiration = 1).unwrap();
    assert_eq!(ancient.node.expiration, 0, "what would have expired before the year 2000 was meant to stay");
}

#[test]
fn what_expires_at_a_time_is_bounded_in_bytes_and_one_moment_is_not_parted() {
    let world = World::new();
    for (path, after) in [("/a", 1), ("/b", 2), ("/c", 2), ("/d", 3)] {
        world.put_with(path, &"v".repeat(1_000), |request| request.expiration = NOW + after * SECOND).unwrap();
    }
    let snapshot = world.engine.snapshot();
    let until = |after: Nanos, bytes_max: usize| {
        Tree::new(&snapshot, BEFORE).expired_until(NOW + after, bytes_max).unwrap().map(|until| until - NOW)
    };
    assert_eq!(until(0, 10_000), None);
    assert_eq!((until(9 * SECOND, 1), until(9 * SECOND, 1_500)), (Some(SECOND), Some(2 * SECOND)));
    assert_eq!((until(2 * SECOND, 10_000), until(9 * SECOND, 10_000)), (Some(2 * SECOND), Some(3 * SECOND)));
}

#[test]
fn directory_expires_as_a_whole_and_keeps_its_index_when_updated() {
    let world = World::new();
    world.put("/d/a/b", "v").unwrap();
    let event = world.put_with("/d", "", |request| {
        (request.prev_exist, request.expiration) = (Some(true), NOW + SECOND);
    });
    assert_eq!(event.unwrap().node.modified, 5);
    assert_eq!(world.get("/d").unwrap().node().modified, 4);
    world.put_with("/d/c", "", |request| request.expiration = NOW + 5 * SECOND).unwrap();
    let told = world.sync(SECOND);
    assert_eq!((told.len(), told[0].removed.len()), (1, 4));
    assert!(told[0].removed.contains(&path_of("/d/a/b")));
    assert!(world.sync(9 * SECOND).is_empty(), "what was inside expires no more");
}

#[test]
fn refresh_keeps_the_value_and_is_told_to_nobody() {
    let world = World::new();
    let refresh = |request: &mut Request| (request.refresh, request.expiration) = (Some(true), NOW + SECOND);
    refused(world.put_with("/a", "", refresh), 100, "/a");
    world.put("/a", "v").unwrap();
    for with in [None, Some(true)] {
        let event = world.put_with("/a", "", |request| {
            refresh(request);
            request.prev_exist = with;
        });
        let event = event.unwrap();
        assert!(event.refresh && event.node.value.as_deref() == Some(b"v"));
    }
    assert_eq!(world.since("/a", false, 5).unwrap(), None);
    assert_eq!(world.index(), 6);
    let event = world.ask(&Request { refresh: Some(true), ..world.request(Method::Post, "/q") }).unwrap();
    assert!(!event.refresh, "creation in order knows no refresh");
}

#[test]
fn past_is_kept_for_a_thousand_events() {
    let world = World::new();
    assert_eq!(world.since("/a", false, 1).unwrap(), None);
    assert_eq!(world.since("/a", false, 99).unwrap(), None, "the future");
    world.put("/a", "").unwrap();
    for _ in 0..999 {
        world.put("/b", "").unwrap();
    }
    assert_eq!(world.index(), 1_003);
    assert_eq!(world.since("/a", false, 4).unwrap(), Some(4));
    world.put("/b", "").unwrap();
    let outdated = world.since("/a", false, 4);
    assert_eq!(refusal(outdated), (401, "the requested history has been cleared [5/4]".to_owned(), 1_004));
    assert_eq!(world.since("/b", false, 5).unwrap(), Some(5));
    let rows = world.engine.snapshot();
    assert_eq!(node::events(&rows, 0).count(), 1_000);
}

/// The indexes of the events that are kept.
fn kept(world: &World) -> Vec<u64> {
    let rows = world.engine.snapshot();
    node::events(&rows, 0).map(|row| node::event_index(&row.unwrap().0).unwrap()).collect()
}

#[test]
fn past_is_bounded_in_bytes() {
    let world = World::new();
    let value = "v".repeat(HISTORY_BYTES_MAX / 4);
    for path in ["/a", "/b", "/c", "/d"] {
        world.put(path, &value).unwrap();
    }
    assert_eq!(kept(&world), [5, 6, 7], "what stands around a value counts, too");
    refused(world.since("/b", false, 4), 401, "the requested history has been cleared [5/4]");
    assert_eq!(world.since("/b", false, 5).unwrap(), Some(5));
    // An event with the value before it, and one that holds hardly anything.
    world.put("/d", &value).unwrap();
    world.put("/e", "").unwrap();
    assert_eq!((kept(&world), world.since("/a", false, 7).unwrap()), (vec![7, 8, 9], None));
    refused(world.since("/a", false, 6), 401, "the requested history has been cleared [7/6]");
    assert_eq!(world.get("/a").unwrap().node().value.as_deref(), Some(value.as_bytes()), "the tree itself stays");
}

#[test]
fn what_is_kept_does_not_depend_on_restarts() {
    let (steady, restarted) = (World::new(), World::new());
    for number in 0..40_usize {
        let value = "v".repeat((number % 7) << 20);
        for world in [&steady, &restarted] {
            world.put(&format!("/{}", number % 5), &value).unwrap();
        }
        restarted.history.take();
        assert_eq!(kept(&steady), kept(&restarted), "{number}");
    }
    assert!(kept(&steady).len() < 40);
}

#[test]
fn past_that_was_kept_without_a_bound_goes_with_the_next_change() {
    let world = World::new();
    world.put("/a", "").unwrap();
    let mut batch = Batch::new(world.engine.snapshot());
    let long = bytes::Bytes::from(vec![0; HISTORY_BYTES_MAX / 2]);
    for index in [1, 2, 3] {
        batch.put_row(crate::storage::Table::V2, &node::event_key(index), long.clone());
    }
    world.engine.commit(batch.into_writes()).unwrap();
    world.history.take();
    world.put("/a", "").unwrap();
    assert_eq!(kept(&world), [3, 4, 5]);
    refused(world.since("/a", false, 2), 401, "the requested history has been cleared [3/2]");
}

#[test]
fn past_is_matched_by_etcds_rule() {
    let world = World::new();
    world.put("/a/b", "").unwrap();
    world.put("/a/_h", "").unwrap();
    world.delete_with("/a", |request| request.recursive = true).unwrap();
    assert_eq!(world.since("/a", false, 1).unwrap(), Some(6), "a change of a child is none of the directory");
    assert_eq!(world.since("/a", true, 1).unwrap(), Some(4));
    assert_eq!(world.since("/a", true, 5).unwrap(), Some(5), "hidden nodes are told of");
    assert_eq!(world.since("/a/b/c", false, 5).unwrap(), Some(6), "a directory above went");
    assert_eq!(world.since("/ab", false, 5).unwrap(), Some(6), "as the text of the path goes");
}

#[test]
fn members_part_counts_once_the_tree_has_begun() {
    let world = World::new();
    let note = || {
        let mut batch = Batch::new(world.engine.snapshot());
        let digest = note_internal(&mut batch).unwrap();
        world.engine.commit(batch.into_writes()).unwrap();
        digest
    };
    assert_eq!((note(), world.index()), (0, 3));
    world.put("/a", "").unwrap();
    assert_ne!(note(), 0);
    assert_eq!(world.put("/b", "").unwrap().index, 6);
}

#[test]
fn known_members_are_no_change_of_the_tree() {
    let world = World::new();
    let outcome = world.run(&Request::new(Method::Know, &Path::clean(b"/8e9e05c52164694d"), NOW));
    assert!(outcome.answer.is_none() && outcome.digest != 0);
    let rows = world.engine.snapshot();
    let tree = Tree::new(&rows, BEFORE);
    assert!(tree.knows(crate::types::MemberId(0x8e9e_05c5_2164_694d)).unwrap());
    assert!(!tree.knows(crate::types::MemberId(1)).unwrap() && !tree.has_user_data().unwrap());
    assert_eq!(tree.index().unwrap(), BEFORE);
    world.put("/a", "").unwrap();
    assert!(Tree::new(&world.engine.snapshot(), BEFORE).has_user_data().unwrap());
}

#[test]
fn unknown_methods_are_refused() {
    let world = World::new();
    let request = Request { method: "PATCH".into(), ..world.request(Method::Put, "/a") };
    refused(world.ask(&request), 300, "etcdserver: unknown method");
}

#[test]
fn paths_that_the_store_cannot_hold_are_refused() {
    let world = World::new();
    let cause = "etcdserver: key is longer or deeper than this store can hold";
    for path in ["/\0".repeat(200), format!("/{}", "x".repeat(PATH_BYTES_MAX)), "/a".repeat(COMPONENTS_MAX)] {
        let outcome = world.put(&path, "");
        if path.len() == 400 {
            outcome.unwrap();
        } else {
            refused(outcome, 300, cause);
        }
    }
    let longest = format!("/{}", "\0".repeat(PATH_BYTES_MAX - 3));
    world.put_with(&longest, "", dir).unwrap();
    assert_eq!(world.post(&longest[..PATH_BYTES_MAX - 30]).unwrap().action, Action::Create);
}

#[test]
fn one_sync_has_bounded_work() {
    let world = World::new();
    for number in 0..EXPIRED_PER_SYNC_MAX + 5 {
        world.put_with(&format!("/{number}"), "", |request| request.expiration = NOW).unwrap();
    }
    assert_eq!(world.sync(0).len(), EXPIRED_PER_SYNC_MAX);
    assert_eq!(world.sync(0).len(), 5);
}

/// What a watcher was told, and for how many events it has room.
#[derive(Clone, Default)]
struct Ear {
    heard: Rc<RefCell<Vec<u64>>>,
    deaf: bool,
}

impl Sink for Ear {
    fn offer(&self, event: &Arc<Event>) -> bool {
        self.heard.borrow_mut().push(event.index);
        !self.deaf
    }
}

/// Watchers at these places hear of what `act` does to a tree with `/d/a/b`, at 4.
fn heard(watches: &[(&str, bool, bool)], act: impl FnOnce(&World) -> Vec<Told>) -> Vec<Vec<u64>> {
    let world = World::new();
    world.put("/d/a/b", "").unwrap();
    let mut hub = Hub::default();
    let ears: Vec<Ear> = watches.iter().map(|_| Ear::default()).collect();
    for ((path, recursive, stream), ear) in watches.iter().zip(&ears) {
        let watch = Watch { path: path_of(path), recursive: *recursive, stream: *stream };
        hub.register(&watch, 5, ear.clone()).unwrap();
    }
    for told in act(&world) {
        hub.tell(&told);
    }
    ears.into_iter().map(|ear| ear.heard.take()).collect()
}

fn told(world: &World, request: &Request) -> Vec<Told> {
    world.run(request).told
}

#[test]
fn watchers_hear_of_their_place_and_recursive_ones_of_what_is_below() {
    let watches = [
        ("/d", false, false),
        ("/d", true, false),
        ("/d/a/b", false, false),
        ("/", true, false),
        ("/d/a/b/c", true, false),
    ];
    let heard = heard(&watches, |world| told(world, &world.request(Method::Put, "/d/a/b")));
    assert_eq!(heard, [vec![], vec![5], vec![5], vec![5], vec![]]);
}

#[test]
fn watchers_above_do_not_hear_of_hidden_nodes() {
    let watches = [("/", true, false), ("/d", true, false), ("/d/_x", true, false), ("/d/_x/y", false, false)];
    let heard = heard(&watches, |world| told(world, &world.request(Method::Put, "/d/_x/y")));
    assert_eq!(heard, [vec![], vec![], vec![5], vec![5]]);
}

#[test]
fn removal_wakes_everybody_below_and_streams_at_its_place_twice() {
    let watches = [("/d/a/b", false, false), ("/d/a", false, true), ("/d", false, true), ("/d/gone", false, false)];
    let heard =
        heard(&watches, |world| told(world, &Request { recursive: true, ..world.request(Method::Delete, "/d") }));
    assert_eq!(heard, [vec![5], vec![5], vec![5, 5], vec![]]);
}

#[test]
fn streams_go_on_and_others_end_with_the_first_event() {
    let watches = [("/d", true, true), ("/d", true, false)];
    let heard =
        heard(&watches, |world| (0..3).flat_map(|_| told(world, &world.request(Method::Put, "/d/x"))).collect());
    assert_eq!(heard, [vec![5, 6, 7], vec![5]]);
}

#[test]
fn refreshes_wake_nobody() {
    let heard = heard(&[("/d", true, false)], |world| {
        told(world, &Request { refresh: Some(true), expiration: NOW, ..world.request(Method::Put, "/d/a/b") })
    });
    assert_eq!(heard, [Vec::<u64>::new()]);
}

#[test]
fn watcher_of_a_future_index_waits_for_it() {
    let world = World::new();
    let (mut hub, ear) = (Hub::default(), Ear::default());
    let watch = Watch { path: path_of("/a"), recursive: false, stream: true };
    hub.register(&watch, 6, ear.clone()).unwrap();
    for _ in 0..3 {
        for told in &told(&world, &world.request(Method::Put, "/a")) {
            hub.tell(told);
        }
    }
    assert_eq!(ear.heard.take(), [6]);
}

#[test]
fn watcher_without_room_is_dropped_and_others_can_leave() {
    let world = World::new();
    let mut hub = Hub::default();
    let watch = Watch { path: path_of("/a"), recursive: false, stream: true };
    hub.register(&watch, 0, Ear { deaf: true, ..Ear::default() }).unwrap();
    let id = hub.register(&watch, 0, Ear::default()).unwrap();
    assert_eq!(hub.len(), 2);
    for told in &told(&world, &world.request(Method::Put, "/a")) {
        hub.tell(told);
    }
    assert_eq!(hub.len(), 1);
    hub.remove(&watch.path, id);
    hub.remove(&watch.path, id);
    assert!(hub.is_empty());
}

#[test]
fn watchers_are_bounded() {
    let mut hub = Hub::default();
    let watch = Watch { path: path_of("/a"), recursive: false, stream: false };
    for _ in 0..WATCHERS_MAX {
        hub.register(&watch, 0, Ear::default()).unwrap();
    }
    assert_eq!(hub.register(&watch, 0, Ear::default()), Err(Full));
    hub.clear();
    assert!(hub.is_empty());
}
