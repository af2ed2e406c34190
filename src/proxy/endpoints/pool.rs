//! The endpoints of one proxy and their health, as a value: time and chance are handed in.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use crate::clock::Chance;

use super::ENDPOINTS_MAX;

/// Of so many picks among weighted endpoints, one goes to those of weight 0 (RFC 2782: "very small chances").
const WEIGHTLESS_ONE_IN: u64 = 100;
/// How long an endpoint that fell silent is left alone at least: a connection to it tells nothing, and every request that it
/// is tried with may cost its client all the time there is. As long as etcd's proxy leaves failed members alone.
const SILENT_WAIT: Duration = Duration::from_secs(5);
/// How long it is left alone at most where nobody else may be asked.
const SILENT_PACE: Duration = Duration::from_millis(250);

/// One place where the cluster can be reached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// What is dialled and what messages call it: `host:port`, or a URL where the proxy works with URLs.
    pub address: String,
    /// Its class; the lowest class of which anybody answers is used (that of an SRV record, else 0).
    pub priority: u16,
    /// Its share within the class (that of an SRV record, else 0: all alike, in turn).
    pub weight: u16,
}

impl Endpoint {
    /// One without class and weight.
    pub fn new(address: impl Into<String>) -> Self {
        Self { address: address.into(), priority: 0, weight: 0 }
    }
}

/// How an endpoint that failed comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// When so much time has passed, untested: the next request is the test.
    AfterWait(Duration),
    /// When a test succeeds; there is one after so much time, and again after as much.
    AfterTest(Duration),
}

impl Recovery {
    /// How long an endpoint is left alone.
    pub fn wait(self) -> Duration {
        match self {
            Self::AfterWait(wait) | Self::AfterTest(wait) => wait,
        }
    }
}

/// All endpoints, in the order they are asked.
#[derive(Debug)]
pub struct Pool {
    places: Vec<Place>,
    /// Where the next turn begins.
    next: usize,
    recovery: Recovery,
}

/// An endpoint and what is known of it. It is known by its `Arc`: one that left and came back is another.
#[derive(Debug)]
struct Place {
    endpoint: Arc<Endpoint>,
    /// When it failed last, unless it answers.
    failed: Option<Duration>,
    /// When it answered last.
    answered: Option<Duration>,
    /// Whether it took a request and said nothing, and has not answered since.
    is_silent: bool,
}

impl Place {
    fn new(endpoint: Endpoint) -> Self {
        Self { endpoint: Arc::new(endpoint), failed: None, answered: None, is_silent: false }
    }

    fn is_usable(&self, recovery: Recovery, now: Duration) -> bool {
        match (self.due(recovery), recovery) {
            (None, _) => true,
            (Some(due), Recovery::AfterWait(_)) => now >= due,
            (Some(_), Recovery::AfterTest(_)) => false,
        }
    }

    /// When its wait is over, if it failed and nobody else may be asked.
    fn last_due(&self, recovery: Recovery) -> Option<Duration> {
        let wait = if self.is_silent { recovery.wait().min(SILENT_PACE) } else { recovery.wait() };
        self.failed.map(|since| since.saturating_add(wait))
    }

    /// When its wait is over, if it failed.
    fn due(&self, recovery: Recovery) -> Option<Duration> {
        let wait = if self.is_silent { recovery.wait().max(SILENT_WAIT) } else { recovery.wait() };
        self.failed.map(|since| since.saturating_add(wait))
    }
}

impl Pool {
    /// A pool without endpoints.
    pub fn new(recovery: Recovery) -> Self {
        Self { places: Vec::new(), next: 0, recovery }
    }

    /// How failed endpoints come back from now on.
    pub fn set_recovery(&mut self, recovery: Recovery) {
        self.recovery = recovery;
    }

    /// How failed endpoints come back.
    pub fn recovery(&self) -> Recovery {
        self.recovery
    }

    /// Takes over a new list. Those that stay keep their place and their health; new ones follow in the order given.
    /// Repetitions and what exceeds [`ENDPOINTS_MAX`] are left out. `true` if anything changed.
    pub fn replace(&mut self, list: &[Endpoint]) -> bool {
        let wanted: BTreeSet<&Endpoint> = list.iter().take(ENDPOINTS_MAX).collect();
        let count = self.places.len();
        self.places.retain(|place| wanted.contains(&*place.endpoint));
        let mut changed = self.places.len() != count;
        let mut known: BTreeSet<Endpoint> = self.places.iter().map(|place| (*place.endpoint).clone()).collect();
        for endpoint in list.iter().take(ENDPOINTS_MAX) {
            if known.insert(endpoint.clone()) {
                self.places.push(Place::new(endpoint.clone()));
                changed = true;
            }
        }
        changed
    }

    /// As [`Pool::replace`], but everybody takes the place that `list` gives; health is kept.
    pub fn rearrange(&mut self, list: &[Endpoint]) -> bool {
        let changed = self.replace(list);
        let order: BTreeMap<&Endpoint, usize> = list.iter().rev().zip((0..list.len()).rev()).collect();
        self.places.sort_by_key(|place| order.get(&*place.endpoint).copied());
        changed
    }

    /// Whom to ask in turn: round robin or by weight, in the lowest class of which anybody is usable. Where nobody is, those
    /// that fell silent are asked in turn: a cluster without quorum is silent, and still has answers to some requests.
    pub fn pick(&mut self, now: Duration, chance: &mut dyn Chance) -> Option<Arc<Endpoint>> {
        let picked = self.pick_usable(now, chance);
        let Some(place) = picked.as_ref().and_then(|picked| self.find(picked)) else {
            return self.pick_silent(now);
        };
        if place.is_silent {
            // One request is the test; the others leave it alone until that has an answer.
            place.failed = Some(now);
        }
        picked
    }

    fn pick_silent(&mut self, now: Duration) -> Option<Arc<Endpoint>> {
        let recovery = self.recovery;
        let picked =
            self.first_in_turn(|place| place.is_silent && place.last_due(recovery).is_some_and(|due| now >= due));
        picked.map(|place| Arc::clone(&place.endpoint))
    }

    fn pick_usable(&mut self, now: Duration, chance: &mut dyn Chance) -> Option<Arc<Endpoint>> {
        let class = self.usable(now).map(|place| place.endpoint.priority).min()?;
        let weights: u64 = self.of_class(class, now).map(|place| u64::from(place.endpoint.weight)).sum();
        let picked = if weights == 0 { self.in_turn(class, now) } else { self.by_weight(class, weights, now, chance) };
        picked.map(|place| Arc::clone(&place.endpoint))
    }

    fn in_turn(&mut self, class: u16, now: Duration) -> Option<&Place> {
        let recovery = self.recovery;
        self.first_in_turn(|place| place.endpoint.priority == class && place.is_usable(recovery, now))
    }

    fn first_in_turn(&mut self, fits: impl Fn(&Place) -> bool) -> Option<&Place> {
        let count = self.places.len();
        let turns = (0..count).map(|step| (self.next + step) % count);
        let at = turns.into_iter().find(|at| self.places.get(*at).is_some_and(&fits))?;
        self.next = (at + 1) % count;
        self.places.get(at)
    }

    fn by_weight(&self, class: u16, weights: u64, now: Duration, chance: &mut dyn Chance) -> Option<&Place> {
        let weightless: Vec<&Place> = self.of_class(class, now).filter(|place| place.endpoint.weight == 0).collect();
        if !weightless.is_empty() && chance.below(WEIGHTLESS_ONE_IN) == 0 {
            let at = usize::try_from(chance.below(weightless.len() as u64)).unwrap_or_default();
            return weightless.get(at).copied();
        }
        let mut drawn = chance.below(weights);
        self.of_class(class, now).find(|place| {
            let weight = u64::from(place.endpoint.weight);
            let is_it = drawn < weight;
            drawn = drawn.saturating_sub(weight);
            is_it
        })
    }

    fn usable(&self, now: Duration) -> impl Iterator<Item = &Place> {
        self.places.iter().filter(move |place| place.is_usable(self.recovery, now))
    }

    fn of_class(&self, class: u16, now: Duration) -> impl Iterator<Item = &Place> {
        self.usable(now).filter(move |place| place.endpoint.priority == class)
    }

    /// Everybody who may be asked, always in the same order: for those who stay with the first as long as it answers. Whoever
    /// fell silent comes last, and while nobody else may be asked even before its wait is over.
    pub fn available(&self, now: Duration) -> Vec<Arc<Endpoint>> {
        let mut places: Vec<&Place> = self.usable(now).collect();
        if places.is_empty() {
            places = self.places.iter().filter(|place| place.is_silent).collect();
        }
        places.sort_by_key(|place| place.is_silent);
        places.into_iter().map(|place| Arc::clone(&place.endpoint)).collect()
    }

    /// Every endpoint, usable or not.
    pub fn all(&self) -> Vec<Arc<Endpoint>> {
        self.places.iter().map(|place| Arc::clone(&place.endpoint)).collect()
    }

    /// `endpoint` did not answer. `true` if that is news; the wait begins anew in any case.
    pub fn failed(&mut self, endpoint: &Arc<Endpoint>, now: Duration) -> bool {
        self.find(endpoint).is_some_and(|place| place.failed.replace(now).is_none())
    }

    /// `endpoint` was asked at `since` and is silent. `true` if that is news. Nothing if it answered somebody else meanwhile:
    /// what was asked takes its time then.
    pub fn silent(&mut self, endpoint: &Arc<Endpoint>, since: Duration, now: Duration) -> bool {
        let unanswered = |place: &&mut Place| place.answered.is_none_or(|answered| answered < since);
        let Some(place) = self.find(endpoint).filter(unanswered) else { return false };
        place.is_silent = true;
        place.failed.replace(now).is_none()
    }

    /// `endpoint` answered. `true` if it was known as failed.
    pub fn answered(&mut self, endpoint: &Arc<Endpoint>, now: Duration) -> bool {
        self.find(endpoint).is_some_and(|place| {
            (place.answered, place.is_silent) = (Some(now), false);
            place.failed.take().is_some()
        })
    }

    /// `endpoint` took a connection, which the system does for a process that stands still, too. `true` if it was known as
    /// failed and is not any more.
    pub fn reached(&mut self, endpoint: &Arc<Endpoint>) -> bool {
        let place = self.find(endpoint).filter(|place| !place.is_silent);
        place.is_some_and(|place| place.failed.take().is_some())
    }

    /// Forgets every failure: what is known of them is older than the list. Who fell silent has to answer first.
    pub fn forgive(&mut self) {
        self.places.iter_mut().for_each(|place| place.failed = None);
    }

    /// Failed endpoints whose wait is over and that a test may bring back; none where time alone does.
    pub fn due(&self, now: Duration) -> Vec<Arc<Endpoint>> {
        let recovery @ Recovery::AfterTest(_) = self.recovery else { return Vec::new() };
        let is_due = |place: &&Place| place.due(recovery).is_some_and(|due| now >= due);
        self.places.iter().filter(is_due).map(|place| Arc::clone(&place.endpoint)).collect()
    }

    /// When the next failed endpoint's wait is over where nobody else may be asked.
    pub fn next_due(&self) -> Option<Duration> {
        self.places.iter().filter_map(|place| place.last_due(self.recovery)).min()
    }

    fn find(&mut self, endpoint: &Arc<Endpoint>) -> Option<&mut Place> {
        self.places.iter_mut().find(|place| Arc::ptr_eq(&place.endpoint, endpoint))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::clock::SeededChance;

    const WAIT: Duration = Duration::from_secs(5);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn list(names: &[&str]) -> Vec<Endpoint> {
        names.iter().map(|name| Endpoint::new(*name)).collect()
    }

    fn pool(recovery: Recovery, names: &[&str]) -> Pool {
        let mut pool = Pool::new(recovery);
        assert!(pool.replace(&list(names)));
        pool
    }

    fn picks(pool: &mut Pool, now: Duration, count: usize) -> Vec<String> {
        let mut chance = SeededChance::new(1);
        (0..count).filter_map(|_| pool.pick(now, &mut chance)).map(|endpoint| endpoint.address.clone()).collect()
    }

    fn names(endpoints: &[Arc<Endpoint>]) -> Vec<&str> {
        endpoints.iter().map(|endpoint| endpoint.address.as_str()).collect()
    }

    #[test]
    fn a_failed_endpoint_is_passed_over_until_its_wait_is_over() {
        let mut pool = pool(Recovery::AfterWait(WAIT), &["a", "b", "c"]);
        assert_eq!(picks(&mut pool, at(0), 4), ["a", "b", "c", "a"]);
        let b = Arc::clone(&pool.all()[1]);
        assert!(pool.failed(&b, at(1)), "news");
        assert!(!pool.failed(&b, at(2)), "known already, but the wait begins anew");
        assert_eq!(picks(&mut pool, at(6), 3), ["c", "a", "c"]);
        assert_eq!(names(&pool.available(at(6))), ["a", "c"]);
        assert_eq!(names(&pool.available(at(7))), ["a", "b", "c"]);
        assert!(pool.answered(&b, at(7)) && !pool.answered(&b, at(7)));
    }

    #[test]
    fn where_a_test_is_wanted_time_alone_brings_nobody_back() {
        let mut pool = pool(Recovery::AfterTest(WAIT), &["a", "b"]);
        let a = Arc::clone(&pool.all()[0]);
        pool.failed(&a, at(1));
        assert_eq!(picks(&mut pool, at(1000), 2), ["b", "b"]);
        assert_eq!((pool.next_due(), pool.due(at(5)).len()), (Some(at(6)), 0));
        assert_eq!(names(&pool.due(at(6))), ["a"]);
        pool.failed(&a, at(6));
        assert!(pool.due(at(10)).is_empty(), "a failed test is followed by a wait");
        assert!(pool.answered(&a, at(11)));
        assert_eq!((pool.next_due(), names(&pool.available(at(11)))), (None, vec!["a", "b"]));
    }

    #[test]
    fn nobody_is_picked_when_all_failed_and_all_come_back() {
        let mut pool = pool(Recovery::AfterWait(WAIT), &["a", "b"]);
        for endpoint in pool.all() {
            pool.failed(&endpoint, at(1));
        }
        assert!(picks(&mut pool, at(2), 1).is_empty());
        pool.forgive();
        assert_eq!(picks(&mut pool, at(2), 2).len(), 2);
    }

    #[test]
    fn who_stays_in_the_list_keeps_place_and_health() {
        let mut pool = pool(Recovery::AfterWait(WAIT), &["a", "b", "c"]);
        let (a, b) = (Arc::clone(&pool.all()[0]), Arc::clone(&pool.all()[1]));
        pool.failed(&b, at(1));
        assert!(pool.replace(&list(&["d", "c", "b", "d"])));
        assert_eq!(names(&pool.all()), ["b", "c", "d"]);
        assert_eq!(names(&pool.available(at(2))), ["c", "d"]);
        assert!(!pool.failed(&a, at(2)), "who has left is not spoken of");
        assert!(!pool.replace(&list(&["b", "c", "d"])), "nothing changed");
        assert!(pool.replace(&[]) && pool.all().is_empty());
    }

    #[test]
    fn a_new_order_moves_everybody_and_keeps_their_health() {
        let mut pool = pool(Recovery::AfterWait(WAIT), &["a", "b", "c"]);
        let b = Arc::clone(&pool.all()[1]);
        pool.failed(&b, at(1));
        assert!(pool.rearrange(&list(&["d", "c", "b", "d"])));
        assert_eq!(names(&pool.all()), ["d", "c", "b"]);
        assert_eq!(names(&pool.available(at(2))), ["d", "c"]);
        assert!(!pool.rearrange(&list(&["c", "b", "d"])), "nobody came or went");
        assert_eq!(names(&pool.all()), ["c", "b", "d"]);
    }

    #[test]
    fn who_falls_silent_is_tried_by_one_at_a_time_until_it_answers() {
        let mut pool = pool(Recovery::AfterWait(at(1)), &["a", "b"]);
        let a = Arc::clone(&pool.all()[0]);
        assert!(pool.silent(&a, at(8), at(10)), "news");
        assert_eq!(picks(&mut pool, at(14), 2), ["b", "b"]);
        assert_eq!(picks(&mut pool, at(15), 3), ["a", "b", "b"]);
        assert_eq!(names(&pool.available(at(20))), ["b", "a"]);
        assert!(!pool.reached(&a), "a connection is no answer");
        pool.forgive();
        assert_eq!(names(&pool.available(at(20))), ["b", "a"]);
        pool.answered(&a, at(21));
        assert_eq!(names(&pool.available(at(21))), ["a", "b"]);
        assert_eq!(picks(&mut pool, at(21), 2), ["a", "b"]);
    }

    #[test]
    fn who_answers_others_meanwhile_is_not_silent() {
        let mut pool = pool(Recovery::AfterWait(WAIT), &["a", "b"]);
        let a = Arc::clone(&pool.all()[0]);
        pool.answered(&a, at(9));
        assert!(!pool.silent(&a, at(8), at(10)));
        assert_eq!(names(&pool.available(at(10))), ["a", "b"]);
        assert!(pool.silent(&a, at(10), at(12)));
    }

    #[test]
    fn where_all_are_silent_they_are_asked_nevertheless() {
        let mut pool = pool(Recovery::AfterWait(WAIT), &["a", "b", "c"]);
        let all = pool.all();
        pool.silent(&all[0], at(1), at(2));
        pool.silent(&all[1], at(1), at(2));
        pool.failed(&all[2], at(2));
        assert!(picks(&mut pool, at(2), 1).is_empty(), "not without any pause");
        assert_eq!(pool.next_due(), Some(at(2) + SILENT_PACE));
        assert_eq!(picks(&mut pool, at(3), 3), ["a", "b", "a"]);
        assert_eq!(names(&pool.available(at(3))), ["a", "b"]);
    }

    #[test]
    fn an_endpoint_that_came_back_is_another() {
        let mut pool = pool(Recovery::AfterWait(WAIT), &["a"]);
        let old = Arc::clone(&pool.all()[0]);
        pool.replace(&[]);
        pool.replace(&list(&["a"]));
        assert!(!pool.failed(&old, at(1)));
        assert_eq!(picks(&mut pool, at(1), 1), ["a"]);
    }

    #[test]
    fn the_lowest_class_that_answers_is_used() {
        let mut pool = Pool::new(Recovery::AfterWait(WAIT));
        let of_class = |address: &str, priority| Endpoint { priority, ..Endpoint::new(address) };
        pool.replace(&[of_class("far", 2), of_class("near", 1), of_class("near too", 1)]);
        assert_eq!(picks(&mut pool, at(0), 3), ["near", "near too", "near"]);
        for endpoint in pool.all().iter().filter(|endpoint| endpoint.priority == 1) {
            pool.failed(endpoint, at(0));
        }
        assert_eq!(picks(&mut pool, at(1), 2), ["far", "far"]);
    }

    #[test]
    fn weights_are_shares_and_weight_zero_gets_little() {
        let mut pool = Pool::new(Recovery::AfterWait(WAIT));
        let weighted = |address: &str, weight| Endpoint { weight, ..Endpoint::new(address) };
        pool.replace(&[weighted("three", 3), weighted("one", 1), weighted("none", 0)]);
        let mut counts = BTreeMap::<String, usize>::new();
        for name in picks(&mut pool, at(0), 10_000) {
            *counts.entry(name).or_default() += 1;
        }
        assert!((7_200..7_700).contains(&counts["three"]), "{counts:?}");
        assert!((2_200..2_700).contains(&counts["one"]), "{counts:?}");
        assert!((50..200).contains(&counts["none"]), "{counts:?}");
    }

    #[test]
    fn a_list_is_bounded() {
        let many: Vec<Endpoint> = (0..2 * ENDPOINTS_MAX).map(|number| Endpoint::new(number.to_string())).collect();
        let mut pool = Pool::new(Recovery::AfterWait(WAIT));
        pool.replace(&many);
        assert_eq!(pool.all().len(), ENDPOINTS_MAX);
    }

    proptest! {
        /// Whatever happens: nobody is picked who failed and whose wait is not over, and somebody is whenever anybody may be.
        #[test]
        fn picks_are_usable(steps in proptest::collection::vec((0_u8..4, 0_usize..5, 0_u64..4), 1..60)) {
            let mut pool = pool(Recovery::AfterWait(WAIT), &["a", "b", "c", "d", "e"]);
            let (mut chance, mut now) = (SeededChance::new(3), Duration::ZERO);
            for (what, which, later) in steps {
                now += at(later);
                let all = pool.all();
                match (what, all.get(which)) {
                    (0, Some(endpoint)) => drop(pool.failed(endpoint, now)),
                    (1, Some(endpoint)) => drop(pool.answered(endpoint, now)),
                    (2, _) => drop(pool.replace(&list(&["a", "b", "c", "d", "e"][which..]))),
                    _ => {}
                }
                let available = pool.available(now);
                let picked = pool.pick(now, &mut chance);
                prop_assert_eq!(picked.is_some(), !available.is_empty());
                prop_assert!(picked.is_none_or(|picked| available.iter().any(|one| Arc::ptr_eq(one, &picked))));
            }
        }
    }
}
