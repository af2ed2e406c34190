//! Members and endpoints that a domain names by SRV records.
//!
//! Servers: `_etcd-server-ssl._tcp` with https, then `_etcd-server._tcp` with http; what both name is put together.
//! Clients: `_etcd-client-ssl._tcp` and `_etcd-client._tcp`, in the same way.
//!
//! A record is this node's own if it leads to where one of its advertised peer URLs leads. The other records have no names
//! of their own, and every member would number them differently, itself left out: so that all founders write the same
//! founding entries, all of them number all members, by URL. The members give their own names once they run.
//!
//! Invariant: founders come out of what every name server and target has told, or not at all. A silence is asked again for
//! a while, and then ends the search: whoever took it for "none" would found another cluster than those who were answered.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use thiserror::Error;
use tokio::{
    net::lookup_host,
    time::{Instant, sleep, timeout},
};

use super::{
    Founders, Own,
    dns::{LookupError, Resolver, Srv},
};

/// How long an advertised peer URL that leads nowhere is looked up again (etcd's), and then, how long name servers that
/// give no answer, and targets without an address, are asked again.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause between two attempts at either (etcd's).
const PAUSE: Duration = Duration::from_secs(1);
/// Time to look up one target.
const TARGET_PATIENCE: Duration = Duration::from_secs(10);

/// No cluster can be made of what a domain says. The first words are etcd's.
#[derive(Debug, Error)]
#[error("error setting up initial cluster: {cause}: {}", cause.remedy())]
pub struct SrvError {
    /// Why.
    pub cause: SrvCause,
}

/// Why no cluster can be made of what a domain says.
#[derive(Debug, Error)]
pub enum SrvCause {
    /// Neither service is there.
    #[error("srv: too many errors querying DNS SRV records ({0:?}, {1:?})")]
    TooManyErrors(String, String),
    /// An advertised URL leads nowhere.
    #[error("failed to resolve {url} ({why})")]
    OwnUnknown {
        /// The URL.
        url: String,
        /// Why.
        why: String,
    },
    /// No record leads to this node.
    #[error("cannot find local etcd member {name:?} in SRV records")]
    OwnMissing {
        /// Its name.
        name: String,
        /// What the records name.
        found: String,
    },
    /// Nobody can say whether there is such a service, beside another that is there.
    #[error("error querying DNS SRV records for _{service} {why}")]
    ServiceUnknown {
        /// The service.
        service: String,
        /// Why.
        why: LookupError,
    },
    /// A target has no address, so that nobody can say who it is. etcd leaves it out, if there are others.
    #[error("failed to resolve the target {target} of {service} ({why})")]
    TargetUnknown {
        /// The host and port.
        target: String,
        /// The service.
        service: String,
        /// Why.
        why: String,
    },
}

impl SrvCause {
    fn remedy(&self) -> String {
        match self {
            Self::TooManyErrors(..) => {
                "check --discovery-srv and --discovery-srv-name against the records of the domain".to_owned()
            }
            Self::ServiceUnknown { .. } => {
                "it may name members, and without them this would be another cluster: start this member again when the name servers answer"
                    .to_owned()
            }
            Self::OwnUnknown { .. } => {
                "correct --initial-advertise-peer-urls, or make the host's name known".to_owned()
            }
            Self::OwnMissing { found, .. } => format!(
                "let one of the records ({found}) lead to the host and port of --initial-advertise-peer-urls, or correct that"
            ),
            Self::TargetUnknown { .. } => {
                "without it this would be another cluster than that of members who know it: give it an address, or remove its record"
                    .to_owned()
            }
        }
    }
}

/// A domain and the suffix of its services.
#[derive(Clone, Debug)]
pub struct Domain {
    /// The domain.
    pub domain: String,
    /// Behind the service's name; empty for none.
    pub suffix: String,
}

/// What a domain tells of the clients' side of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// URLs, those with TLS first.
    pub urls: Vec<String>,
    /// The records they were made of, in the same order.
    pub records: Vec<Srv>,
}

/// The founders, and whether others are to be known by the domain's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Who founds the cluster.
    pub founders: Founders,
    /// Whether any of them wants TLS.
    pub has_tls: bool,
}

impl Domain {
    /// `_etcd-server-ssl._tcp.example.com`, for instance.
    fn service(&self, service: &str, is_tls: bool) -> (String, String) {
        let ssl = if is_tls { "-ssl" } else { "" };
        let suffix = if self.suffix.is_empty() { String::new() } else { format!("-{}", self.suffix) };
        let service = format!("{service}{ssl}{suffix}");
        let name = format!("_{service}._tcp.{}", self.domain);
        (service, name)
    }

    /// Where the members of the cluster listen for clients.
    ///
    /// # Errors
    /// etcd's text if neither service is there.
    pub async fn endpoints(&self, resolver: &Resolver) -> Result<Endpoints, String> {
        let mut found = Endpoints { urls: Vec::new(), records: Vec::new() };
        let mut failures = Vec::new();
        for (is_tls, scheme) in SCHEMES {
            match resolver.srv(&self.service("etcd-client", is_tls).1).await {
                Ok(records) => {
                    let records = in_order(records, &mut draw);
                    // etcd keeps the dot at the end of the target.
                    found.urls.extend(records.iter().map(|one| format!("{scheme}://{}.:{}", one.target, one.port)));
                    found.records.extend(records);
                }
                Err(error) => failures.push(error),
            }
        }
        match failures.as_slice() {
            [tls, plain] => Err(format!("dns lookup errors: {tls} and {plain}")),
            _ => Ok(found),
        }
    }

    /// The peer URLs of the members, for a node that is none of them; sorted.
    ///
    /// # Errors
    /// [`SrvError`] if neither service is there.
    pub async fn peers(&self, resolver: &Resolver) -> Result<Vec<String>, SrvError> {
        let mut urls = BTreeSet::new();
        let mut failures = Vec::new();
        for (is_tls, scheme) in SCHEMES {
            let (service, name) = self.service("etcd-server", is_tls);
            match resolver.srv(&name).await {
                Ok(records) => urls.extend(records.iter().map(|one| format!("{scheme}://{}:{}", one.target, one.port))),
                Err(error) => failures.push(format!("error querying DNS SRV records for _{service} {error}")),
            }
        }
        match failures.as_slice() {
            [tls, plain] => Err(SrvCause::TooManyErrors(tls.clone(), plain.clone()).into()),
            _ => Ok(urls.into_iter().collect()),
        }
    }

    /// The founders of the cluster whose token is `token`.
    ///
    /// # Errors
    /// [`SrvError`].
    pub async fn founders(&self, resolver: &Resolver, own: &Own, token: &str) -> Result<Found, SrvError> {
        self.search(resolver, own, token, PATIENCE).await
    }

    /// The same for whoever wants to know now: nothing is asked again.
    ///
    /// # Errors
    /// [`SrvError`].
    pub async fn founders_at_once(&self, resolver: &Resolver, own: &Own, token: &str) -> Result<Found, SrvError> {
        self.search(resolver, own, token, Duration::ZERO).await
    }

    async fn search(&self, resolver: &Resolver, own: &Own, token: &str, patience: Duration) -> Result<Found, SrvError> {
        let members = Members::new(own_places(own, patience).await?, patience);
        Ok(self.gather(resolver, members).await?.founders(own, token)?)
    }

    /// What both services name, put together.
    async fn gather(&self, resolver: &Resolver, mut members: Members) -> Result<Members, SrvCause> {
        let (mut failures, mut unknown) = (Vec::new(), None);
        for (is_tls, scheme) in SCHEMES {
            let (service, name) = self.service("etcd-server", is_tls);
            let found = match asked(resolver, &name, members.deadline).await {
                Ok(records) => members.take(records, scheme, &service).await?,
                Err(why) => {
                    let said = why.to_string();
                    unknown = unknown.or_else(|| (!why.is_certain()).then(|| (service.clone(), why)));
                    Err(said)
                }
            };
            if let Err(why) = found {
                tracing::info!(service, discovery_srv = self.domain, error = why, "get cluster for SRV");
                failures.push(format!("error querying DNS SRV records for _{service} {why}"));
            }
        }
        if members.is_empty() {
            let mut failures = failures.into_iter();
            let mut next = || failures.next().unwrap_or_else(|| "no records".to_owned());
            return Err(SrvCause::TooManyErrors(next(), next()));
        }
        match unknown {
            Some((service, why)) => Err(SrvCause::ServiceUnknown { service, why }),
            None => Ok(members),
        }
    }
}

/// What records name, as far as it is known.
#[derive(Debug)]
struct Members {
    urls: BTreeSet<String>,
    own: BTreeSet<String>,
    /// Where this node's own URLs lead.
    places: BTreeMap<SocketAddr, String>,
    /// Until when what is not known is asked for again.
    deadline: Instant,
}

impl Members {
    fn new(places: BTreeMap<SocketAddr, String>, patience: Duration) -> Self {
        Self { urls: BTreeSet::new(), own: BTreeSet::new(), places, deadline: Instant::now() + patience }
    }

    fn is_empty(&self) -> bool {
        self.urls.is_empty() && self.own.is_empty()
    }

    /// Takes the members of one service; the inner error is why there is none.
    async fn take(
        &mut self,
        records: Vec<Srv>,
        scheme: &'static str,
        service: &str,
    ) -> Result<Result<(), String>, SrvCause> {
        let mut none = Err("no records".to_owned());
        for record in records {
            let target = format!("{}:{}", record.target, record.port);
            let url = format!("{scheme}://{target}");
            let place = target_place(&target, self.deadline).await;
            let place = place.map_err(|why| SrvCause::TargetUnknown { target, service: format!("_{service}"), why })?;
            match self.places.get(&place) {
                None => self.urls.insert(url.clone()),
                Some(expected) if !expected.starts_with(&format!("{scheme}://")) => {
                    let what = format!(
                        "bootstrap at {url} from DNS for {service} has scheme mismatch with expected peer {expected}"
                    );
                    tracing::warn!("{what}");
                    none = Err(what);
                    continue;
                }
                Some(_) => self.own.insert(url.clone()),
            };
            tracing::info!(node = url, "got bootstrap from DNS for etcd-server");
        }
        Ok(if self.is_empty() { none } else { Ok(()) })
    }

    /// All members under numbers, in the order of their URLs.
    fn founders(self, own: &Own, token: &str) -> Result<Found, SrvCause> {
        let all = || self.urls.iter().chain(&self.own).cloned().collect::<Vec<_>>();
        if self.own.is_empty() {
            return Err(SrvCause::OwnMissing { name: own.name.clone(), found: all().join(", ") });
        }
        let has_tls = all().iter().any(|url| url.starts_with("https://"));
        let mut lists: Vec<Vec<String>> = self.urls.into_iter().map(|url| vec![url]).collect();
        let own: Vec<String> = self.own.into_iter().collect();
        lists.push(own.clone());
        lists.sort();
        let number = lists.iter().position(|list| *list == own).unwrap_or(0);
        let members = lists.into_iter().enumerate().map(|(number, urls)| (number.to_string(), urls)).collect();
        let founders = Founders { members, token: token.to_owned(), own: number.to_string() };
        Ok(Found { founders, has_tls })
    }
}

/// Where the advertised peer URLs lead, each with its URL. Names are given so much time to become known.
async fn own_places(own: &Own, patience: Duration) -> Result<BTreeMap<SocketAddr, String>, SrvCause> {
    let mut places = BTreeMap::new();
    for url in &own.peer_urls {
        let place = own_place(url, Instant::now() + patience).await;
        let place = place.map_err(|why| SrvCause::OwnUnknown { url: url.clone(), why })?;
        places.insert(place, url.clone());
    }
    Ok(places)
}

/// Where an advertised peer URL leads; its name is given until `deadline` to become known.
async fn own_place(url: &str, deadline: Instant) -> Result<SocketAddr, String> {
    let host = url.split_once("://").map_or(url, |(_, host)| host);
    loop {
        match place(host).await {
            Err(error) if Instant::now() < deadline => {
                tracing::warn!(url, error, "failed to resolve an advertised peer URL; retrying");
            }
            looked_up => return looked_up,
        }
        sleep(PAUSE).await;
    }
}

/// The records of `name`, asked for until the name servers know or `deadline` has passed.
async fn asked(resolver: &Resolver, name: &str, deadline: Instant) -> Result<Vec<Srv>, LookupError> {
    loop {
        match resolver.srv(name).await {
            Err(error) if !error.is_certain() && Instant::now() < deadline => {
                tracing::warn!(%error, "the name servers do not tell whether a service is there; asking again");
            }
            answered => return answered,
        }
        sleep(PAUSE).await;
    }
}

/// Where a target leads; its name is given until `deadline` to become known.
async fn target_place(target: &str, deadline: Instant) -> Result<SocketAddr, String> {
    loop {
        match place(target).await {
            Err(error) if Instant::now() < deadline => {
                tracing::warn!(target, error, "failed to resolve a target of an SRV record; retrying");
            }
            looked_up => return looked_up,
        }
        sleep(PAUSE).await;
    }
}

/// The address of `host:port`, the IPv4 one if there are several kinds, as etcd chooses.
async fn place(host: &str) -> Result<SocketAddr, String> {
    let looked_up = timeout(TARGET_PATIENCE, lookup_host(host)).await;
    let addresses = looked_up.map_err(|_| "i/o timeout".to_owned())?.map_err(|error| error.to_string())?;
    let best = addresses.min_by_key(|address| (address.is_ipv6(), *address));
    best.ok_or_else(|| "no such host".to_owned())
}

/// Records by priority, and those of one priority by chance according to their weights (RFC 2782).
fn in_order(mut records: Vec<Srv>, draw: &mut impl FnMut(u64) -> u64) -> Vec<Srv> {
    let mut ordered = Vec::with_capacity(records.len());
    records.sort();
    while let Some(priority) = records.first().map(|record| record.priority) {
        let class: Vec<u64> = records
            .iter()
            .take_while(|record| record.priority == priority)
            .map(|record| u64::from(record.weight))
            .collect();
        let mut left = draw(class.iter().sum::<u64>() + 1);
        let chosen = class.iter().position(|weight| {
            let is_it = left <= *weight;
            left = left.saturating_sub(*weight);
            is_it
        });
        ordered.push(records.remove(chosen.unwrap_or(0)));
    }
    ordered
}

/// A number below `bound`, by chance.
fn draw(bound: u64) -> u64 {
    getrandom::u64().map_or(0, |drawn| drawn % bound)
}

impl From<SrvCause> for SrvError {
    fn from(cause: SrvCause) -> Self {
        Self { cause }
    }
}

/// Whether a service is that with TLS, and its scheme; in the order in which they are asked for.
const SCHEMES: [(bool, &str); 2] = [(true, "https"), (false, "http")];

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use domain::base::iana::Rcode;

    use super::{
        super::dns::{
            Settings,
            tests::{Given, answer, server},
        },
        *,
    };

    /// How long a name server has for its answer, and how long it is asked again.
    const SHORT: Duration = Duration::from_millis(300);

    fn own(url: &str) -> Own {
        Own { name: "infra1".to_owned(), peer_urls: vec![url.to_owned()] }
    }

    fn record(target: &str, port: u16) -> Srv {
        Srv { priority: 0, weight: 0, target: target.to_owned(), port }
    }

    async fn found(own: &Own, records: Vec<Srv>) -> Result<Found, SrvCause> {
        let mut members = Members::new(own_places(own, SHORT).await?, SHORT);
        drop(members.take(records, "http", "etcd-server").await?);
        members.founders(own, "t")
    }

    /// What is gathered at a name server that answers the question for the service with TLS like this.
    async fn gathered(of_tls: impl Fn(usize) -> Option<Rcode> + Send + 'static) -> Result<Members, SrvCause> {
        let count = AtomicUsize::new(0);
        let (address, _server) = server(move |question| {
            let is_tls = question.windows(4).any(|word| word == b"-ssl");
            let refused = is_tls.then(|| of_tls(count.fetch_add(1, Ordering::Relaxed))).flatten();
            let owner = if is_tls { "_etcd-server-ssl._tcp.example.com." } else { "_etcd-server._tcp.example.com." };
            let records = [Given::Srv(owner, 2380, if is_tls { "127.0.0.2" } else { "127.0.0.1" })];
            let records = if refused.is_some() { &records[..0] } else { &records[..] };
            vec![answer(question, records, |header| header.set_rcode(refused.unwrap_or(Rcode::NOERROR)))]
        })
        .await;
        let settings = Settings { timeout: SHORT, attempts: 1, ..Settings::new(vec![address]) };
        let domain = Domain { domain: "example.com".to_owned(), suffix: String::new() };
        domain.gather(&Resolver::new(settings), Members::new(BTreeMap::new(), SHORT)).await
    }

    #[tokio::test]
    async fn a_name_server_that_fails_is_not_taken_for_one_that_knows_of_nothing() {
        let told = gathered(|_| Some(Rcode::SERVFAIL)).await.unwrap_err().to_string();
        let expected =
            "error querying DNS SRV records for _etcd-server-ssl lookup _etcd-server-ssl._tcp.example.com on ";
        assert!(told.starts_with(expected) && told.ends_with("server misbehaving"), "{told}");
        let known = gathered(|_| Some(Rcode::NXDOMAIN)).await.unwrap();
        assert_eq!(known.urls.into_iter().collect::<Vec<_>>(), ["http://127.0.0.1:2380"]);
    }

    #[tokio::test]
    async fn a_name_server_that_has_failed_is_asked_again() {
        let members = gathered(|before| (before == 0).then_some(Rcode::SERVFAIL)).await.unwrap();
        let expected = ["http://127.0.0.1:2380", "https://127.0.0.2:2380"];
        assert_eq!(members.urls.into_iter().collect::<Vec<_>>(), expected);
    }

    #[tokio::test]
    async fn a_target_without_an_address_leaves_no_cluster() {
        let records = vec![record("127.0.0.1", 2), record("gone.invalid", 2)];
        let error = SrvError::from(found(&own("http://127.0.0.1:2"), records).await.unwrap_err()).to_string();
        let expected =
            "error setting up initial cluster: failed to resolve the target gone.invalid:2 of _etcd-server (";
        assert!(error.starts_with(expected), "{error}");
    }

    #[tokio::test]
    async fn all_members_number_all_members_alike() {
        let records = || vec![record("127.0.0.3", 2), record("127.0.0.1", 2), record("127.0.0.2", 2)];
        let one = found(&own("http://127.0.0.1:2"), records()).await.unwrap().founders;
        let three = found(&own("http://127.0.0.3:2"), records()).await.unwrap().founders;
        assert_eq!(one.members, three.members);
        assert_eq!((one.own.as_str(), three.own.as_str()), ("0", "2"));
        assert_eq!(one.members.get("1"), Some(&vec!["http://127.0.0.2:2".to_owned()]));
    }

    #[tokio::test]
    async fn who_is_not_named_is_told_who_is() {
        let error = found(&own("http://127.0.0.9:2"), vec![record("127.0.0.1", 2)]).await.unwrap_err();
        let error = SrvError::from(error);
        let expected = "error setting up initial cluster: cannot find local etcd member \"infra1\" in SRV records: ";
        assert!(error.to_string().starts_with(expected), "{error}");
        assert!(error.to_string().contains("http://127.0.0.1:2"), "{error}");
    }

    #[tokio::test]
    async fn a_record_of_the_other_scheme_does_not_count_for_this_node() {
        let error = found(&own("https://127.0.0.1:2"), vec![record("127.0.0.1", 2), record("127.0.0.2", 2)]).await;
        assert!(matches!(error, Err(SrvCause::OwnMissing { .. })), "{error:?}");
    }

    #[test]
    fn services_have_suffixes() {
        let domain = |suffix: &str| Domain { domain: "example.com".to_owned(), suffix: suffix.to_owned() };
        assert_eq!(domain("").service("etcd-server", true).1, "_etcd-server-ssl._tcp.example.com");
        assert_eq!(domain("prod").service("etcd-client", false).1, "_etcd-client-prod._tcp.example.com");
    }

    #[test]
    fn records_are_ordered_by_priority_and_drawn_by_weight() {
        let one = |priority, weight, target: &str| Srv { priority, weight, ..record(target, 1) };
        let records = vec![one(2, 0, "c"), one(1, 10, "b"), one(1, 0, "a")];
        let names = |records: Vec<Srv>| records.into_iter().map(|one| one.target).collect::<String>();
        assert_eq!(names(in_order(records.clone(), &mut |_| 0)), "abc");
        assert_eq!(names(in_order(records, &mut |bound| bound - 1)), "bac");
    }
}
