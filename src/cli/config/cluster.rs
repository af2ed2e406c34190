//! Do these configurations form one cluster? Each is valid for itself; here they are held against each other.
//!
//! Every finding names a place in two files. What most files say counts as meant, of equally many the first.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use super::{
    finding::{Finding, Severity},
    holder,
};
use crate::config::{
    Bind, BootstrapMethod, ClusterState, Form, InitialCluster, ListenUrl, Loaded, Origin, Setting, Url,
    localhost_alone, same_hosts, show::Format,
};

/// Options that all members share, and how bad it is when they do not.
const SHARED: [(&str, Severity); 21] = [
    ("initial-cluster-token", Severity::Error),
    ("discovery", Severity::Error),
    ("discovery-srv", Severity::Error),
    ("discovery-srv-name", Severity::Error),
    ("discovery-token", Severity::Error),
    ("discovery-endpoints", Severity::Error),
    ("auth-token", Severity::Error),
    ("client-cert-auth", Severity::Warning),
    ("peer-client-cert-auth", Severity::Warning),
    ("compat-version", Severity::Warning),
    ("heartbeat-interval", Severity::Warning),
    ("election-timeout", Severity::Warning),
    ("pre-vote", Severity::Warning),
    ("quota-backend-bytes", Severity::Warning),
    ("max-request-bytes", Severity::Warning),
    ("max-txn-ops", Severity::Warning),
    ("max-learners", Severity::Warning),
    ("strict-reconfig-check", Severity::Warning),
    ("auto-compaction-mode", Severity::Warning),
    ("auto-compaction-retention", Severity::Warning),
    ("feature-gates", Severity::Warning),
];

/// Where members say they are reached.
const ADVERTISED: [&str; 2] = ["initial-advertise-peer-urls", "advertise-client-urls"];
/// Where members listen.
const LISTENERS: [&str; 4] =
    ["listen-peer-urls", "listen-client-urls", "listen-client-http-urls", "listen-metrics-urls"];
/// Every name of a host for itself.
const LOOPBACK: &str = "localhost";

/// The configuration of one member.
pub(super) struct Member {
    pub(super) path: PathBuf,
    pub(super) format: Format,
    pub(super) loaded: Loaded,
}

impl Member {
    fn name(&self) -> &str {
        &self.loaded.config.member.name
    }

    /// Whether it is to stand in for members and be none. What the data directory makes of it only its own host knows.
    pub(super) fn is_proxy(&self) -> bool {
        self.loaded.config.legacy.proxy.is_some()
    }

    fn is_founder(&self) -> bool {
        self.loaded.config.bootstrap.state == ClusterState::New
    }

    fn list(&self) -> Option<&InitialCluster> {
        match &self.loaded.config.bootstrap.method {
            BootstrapMethod::Static(list) => Some(list),
            _ => None,
        }
    }

    fn setting(&self, option: &str) -> &Setting {
        self.loaded.settings.get(option).expect("only current options are compared, and settings has all of them")
    }

    /// Where the option stands, or at least which file leaves it open.
    fn place(&self, option: &str) -> Origin {
        match &self.setting(option).origin {
            Origin::Default => Origin::File(self.path.clone(), 0),
            origin => origin.clone(),
        }
    }

    fn form(&self, option: &str) -> Form {
        match self.setting(option).origin {
            Origin::Flag(_) => Form::Flag,
            _ => self.format.form(),
        }
    }

    /// The option as the file spells it.
    fn written(&self, option: &str) -> String {
        let setting = self.setting(option);
        let written = self.form(option).plain(setting.spec, &setting.value.to_text());
        if setting.origin == Origin::Default { format!("{written} (by default)") } else { written }
    }

    /// How the file would spell another value.
    fn spelled(&self, option: &str, value: &str) -> String {
        self.form(option).spell(self.setting(option).spec, value)
    }

    /// A finding about an option of this member that does not fit to one of another.
    fn against(&self, option: &str, other: (&Self, &str), severity: Severity, message: String) -> Finding {
        let (origin, there) = (self.place(option), other.0.place(other.1));
        let line = format!("{origin}: {}: {message} ({there}: {})", self.written(option), other.0.written(other.1));
        let option = Some(option.to_owned());
        Finding { severity, option, origin: Some(origin), other: Some(there), message, remedy: None, line }
    }

    /// The same, with what would be right.
    fn corrected(&self, option: &str, value: &str, finding: Finding) -> Finding {
        let example = self.spelled(option, value);
        Finding {
            line: format!("{}; correct: {example}", finding.line),
            remedy: Some(format!("write {example}")),
            ..finding
        }
    }
}

/// Everything that keeps the members from being one cluster, or looks like it.
pub(super) fn check(members: &[Member]) -> Vec<Finding> {
    let mut findings = Vec::new();
    names(members, &mut findings);
    for (option, severity) in SHARED {
        shared(members, option, severity, &mut findings);
    }
    lists(members, &mut findings);
    claims(members, &mut findings);
    states(members, &mut findings);
    addresses(members, &mut findings);
    for member in members {
        heard(member, "advertise-client-urls", "listen-client-urls", &mut findings);
        heard(member, "initial-advertise-peer-urls", "listen-peer-urls", &mut findings);
        loopback(member, members, &mut findings);
    }
    findings
}

/// Each pair once, the earlier file first.
fn pairs(members: &[Member]) -> impl Iterator<Item = (&Member, &Member)> {
    members.iter().enumerate().flat_map(|(index, second)| members.iter().take(index).map(move |first| (first, second)))
}

/// The member whose value most others share; of equally many values the first.
fn reference<'m, T: PartialEq>(members: &[&'m Member], value: impl Fn(&'m Member) -> T) -> Option<&'m Member> {
    let alike = |member: &'m Member| members.iter().copied().filter(|other| value(other) == value(member)).count();
    members.iter().copied().reduce(|best, member| if alike(member) > alike(best) { member } else { best })
}

fn names(members: &[Member], findings: &mut Vec<Finding>) {
    for (first, second) in pairs(members).filter(|(first, second)| first.name() == second.name()) {
        let message = format!("two members are called {:?}", second.name());
        findings.push(second.against("name", (first, "name"), Severity::Error, message));
    }
}

fn shared(members: &[Member], option: &str, severity: Severity, findings: &mut Vec<Finding>) {
    let all: Vec<&Member> = members.iter().collect();
    let Some(meant) = reference(&all, |member| &member.setting(option).value) else { return };
    let value = &meant.setting(option).value;
    for member in members.iter().filter(|member| member.setting(option).value != *value) {
        let finding = member.against(option, (meant, option), severity, "all members need the same".to_owned());
        findings.push(member.corrected(option, &value.to_text(), finding));
    }
}

/// All founders list the same members; who joins later lists at least those that it was told of.
fn lists(members: &[Member], findings: &mut Vec<Finding>) {
    let listing: Vec<&Member> = members.iter().filter(|member| member.list().is_some()).collect();
    let founders: Vec<&Member> = listing.iter().copied().filter(|member| member.is_founder()).collect();
    let Some(meant) = reference(if founders.is_empty() { &listing } else { &founders }, Member::list) else { return };
    for member in listing {
        findings.extend(list_differences(member, meant, members));
    }
    let Some(list) = meant.list() else { return };
    for (name, urls) in &list.0 {
        if !members.iter().any(|member| member.name() == name) {
            let origin = meant.place("initial-cluster");
            let message = format!("no file for the member {} was given", entry(name, urls));
            let line = format!("{origin}: initial-cluster: {message}");
            let remedy = Some("give its file, too".to_owned());
            let option = Some("initial-cluster".to_owned());
            findings.push(Finding {
                severity: Severity::Warning,
                option,
                origin: Some(origin),
                other: None,
                message,
                remedy,
                line,
            });
        }
    }
}

fn list_differences(member: &Member, meant: &Member, members: &[Member]) -> Vec<Finding> {
    const LIST: &str = "initial-cluster";
    let (Some(own), Some(list)) = (member.list(), meant.list()) else { return Vec::new() };
    let has_file = |name: &str| members.iter().any(|member| member.name() == name);
    let missing = list.0.iter().filter(|(name, _)| !own.0.contains_key(*name));
    let mut messages: Vec<String> = missing.map(|(name, urls)| format!("leaves out {}", entry(name, urls))).collect();
    // A newcomer knows more than those who founded without it.
    let extra = own.0.iter().filter(|(name, _)| !list.0.contains_key(*name) && member.is_founder());
    messages.extend(extra.map(|(name, urls)| format!("names {}, which others leave out", entry(name, urls))));
    // Whose file is there is compared with what it advertises.
    let differing = own.0.iter().filter(|(name, urls)| {
        !has_file(name) && list.0.get(*name).is_some_and(|other| !same_hosts(urls, other, &localhost_alone))
    });
    messages.extend(differing.map(|(name, urls)| format!("names {}, which others place elsewhere", entry(name, urls))));
    let right = list.to_string();
    let finding = |message| member.against(LIST, (meant, LIST), Severity::Error, message);
    messages.into_iter().map(|message| member.corrected(LIST, &right, finding(message))).collect()
}

fn entry(name: &str, urls: &[Url]) -> String {
    urls.iter().map(|url| format!("{name}={url}")).collect::<Vec<_>>().join(",")
}

/// What one lists for another is what that one advertises.
fn claims(members: &[Member], findings: &mut Vec<Finding>) {
    for member in members {
        let Some(list) = member.list() else { continue };
        for other in members.iter().filter(|other| other.path != member.path && other.name() != member.name()) {
            let Some(urls) = list.0.get(other.name()) else { continue };
            let advertised = &other.loaded.config.advertise.peer;
            if !same_hosts(urls, advertised, &localhost_alone) {
                let message = format!("expects {}, which advertises other peer URLs", entry(other.name(), urls));
                let there = (other, "initial-advertise-peer-urls");
                findings.push(member.against("initial-cluster", there, Severity::Error, message));
            }
        }
    }
}

/// Some found, some join: right only when the founders are running already.
fn states(members: &[Member], findings: &mut Vec<Finding>) {
    const STATE: &str = "initial-cluster-state";
    let founder = members.iter().find(|member| member.is_founder());
    for member in members.iter().filter(|member| !member.is_founder()) {
        let message = match founder {
            Some(_) => "joins a cluster that another file founds: right only if that one is running",
            None => "all join and nobody founds: right only if the cluster is running",
        };
        let there = (founder.unwrap_or(member), STATE);
        findings.push(member.against(STATE, there, Severity::Warning, message.to_owned()));
        if founder.is_none() {
            return;
        }
    }
}

/// No two members have one address; on one host they share nothing at all.
fn addresses(members: &[Member], findings: &mut Vec<Finding>) {
    for (first, second) in pairs(members) {
        for option in ADVERTISED {
            let theirs = advertised(first, option);
            let mut both =
                advertised(second, option).iter().filter(|url| theirs.iter().any(|other| is_one(url, other)));
            if let Some(url) = both.next() {
                let message = format!("{url} is the address of two members");
                findings.push(second.against(option, (first, option), Severity::Error, message));
            }
        }
        if on_one_host(first, second) {
            one_host(first, second, findings);
        } else {
            intrudes(second, first, findings);
            intrudes(first, second, findings);
        }
    }
}

fn advertised<'m>(member: &'m Member, option: &str) -> &'m [Url] {
    let advertise = &member.loaded.config.advertise;
    if option == "advertise-client-urls" { &advertise.client } else { &advertise.peer }
}

/// Whether both lead to one place.
fn is_one(one: &Url, other: &Url) -> bool {
    (one.scheme(), address(one), one.port()) == (other.scheme(), address(other), other.port())
}

/// The host as it is dialled: of the many loopback addresses `localhost` is one.
fn address(url: &Url) -> &str {
    if url.host() == "localhost" { "127.0.0.1" } else { url.host() }
}

/// The host, under one name whatever it is called by itself.
fn host(url: &Url) -> &str {
    if is_loopback(url) { LOOPBACK } else { url.host() }
}

fn on_one_host(first: &Member, second: &Member) -> bool {
    let hosts = |member: &Member| -> Vec<String> {
        member.loaded.config.advertise.peer.iter().map(|url| host(url).to_owned()).collect()
    };
    hosts(first) == hosts(second)
}

/// A member of another host cannot listen where this one is to be reached. That both advertise the address is told already.
fn intrudes(member: &Member, owner: &Member, findings: &mut Vec<Finding>) {
    for listen in LISTENERS {
        for url in listened(member, listen) {
            let Bind::Address(ip, port) = url.bind else { continue };
            let is_told = |member, option| {
                advertised(member, option).iter().any(|url| url.ip() == Some(ip) && url.port() == port)
            };
            let is_own = ADVERTISED.into_iter().any(|option| is_told(member, option));
            if ip.is_loopback() || ip.is_unspecified() || is_own {
                continue;
            }
            if let Some(option) = ADVERTISED.into_iter().find(|option| is_told(owner, option)) {
                let message = format!("{url} is the address of another member");
                findings.push(member.against(listen, (owner, option), Severity::Error, message));
            }
        }
    }
}

fn one_host(first: &Member, second: &Member, findings: &mut Vec<Finding>) {
    let dir = |member: &Member| member.loaded.config.member.data_dir.clone();
    if dir(first) == dir(second) {
        let message = "two members of one host have one data directory".to_owned();
        findings.push(second.against("data-dir", (first, "data-dir"), Severity::Error, message));
    }
    for (option, other) in LISTENERS.iter().flat_map(|option| LISTENERS.map(|other| (*option, other))) {
        let theirs = listened(first, other);
        if let Some(url) = listened(second, option).iter().find(|url| theirs.iter().any(|other| clash(url, other))) {
            let message = format!("{url} is taken by another member of this host");
            findings.push(second.against(option, (first, other), Severity::Error, message));
        }
    }
}

fn listened<'m>(member: &'m Member, option: &str) -> &'m [ListenUrl] {
    let listen = &member.loaded.config.listen;
    match option {
        "listen-client-urls" => &listen.client,
        "listen-client-http-urls" => &listen.client_http,
        "listen-metrics-urls" => &listen.metrics,
        _ => &listen.peer,
    }
}

/// Whether one host cannot have both listeners.
fn clash(one: &ListenUrl, other: &ListenUrl) -> bool {
    match (place(&one.bind), place(&other.bind)) {
        (Some(one), Some(other)) => one.port() != 0 && holder::clash(one, other),
        _ => one.bind == other.bind,
    }
}

/// Where it binds on every usual host, which need not be this one; none for a socket file.
fn place(bind: &Bind) -> Option<SocketAddr> {
    match bind {
        Bind::Any(port) => Some((Ipv6Addr::UNSPECIFIED, *port).into()),
        Bind::Address(ip, port) => Some((*ip, *port).into()),
        Bind::Localhost(port) => Some((Ipv4Addr::LOCALHOST, *port).into()),
        Bind::Unix(_) => None,
    }
}

/// Somebody listens where others are told to call.
fn heard(member: &Member, advertise: &str, listen: &str, findings: &mut Vec<Finding>) {
    for url in advertised(member, advertise).iter().filter(|url| !url.scheme().is_unix()) {
        let why = match listened(member, listen).iter().map(|listener| deafness(url, listener)).min() {
            Some(Deafness::None) | None => continue,
            Some(Deafness::Scheme) => format!("{url} is listened to with the other of http and https"),
            Some(Deafness::Host) => format!("{url} is not listened to, only its port at other addresses"),
            Some(Deafness::Port) => format!("{url} is not listened to; right only if something forwards the port"),
        };
        findings.push(member.against(advertise, (member, listen), Severity::Warning, why));
    }
}

/// What keeps a listener from hearing who calls a URL; the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Deafness {
    None,
    Scheme,
    Host,
    Port,
}

fn deafness(url: &Url, listener: &ListenUrl) -> Deafness {
    let (hears, port) = match listener.bind {
        Bind::Any(port) => (true, port),
        Bind::Address(ip, port) => (ip.is_unspecified() || url.ip().is_none_or(|called| called == ip), port),
        Bind::Localhost(port) => (is_loopback(url), port),
        Bind::Unix(_) => (false, 0),
    };
    match (port == url.port(), hears) {
        (false, _) => Deafness::Port,
        (true, false) => Deafness::Host,
        (true, true) if url.scheme() != listener.url.scheme() => Deafness::Scheme,
        (true, true) => Deafness::None,
    }
}

fn is_loopback(url: &Url) -> bool {
    url.host() == "localhost" || url.ip().is_some_and(|ip| ip.is_loopback())
}

/// An address that means every host's own, among members of several hosts, reaches the wrong one.
fn loopback(member: &Member, members: &[Member], findings: &mut Vec<Finding>) {
    let elsewhere = |url: &Url| !is_loopback(url) && !url.scheme().is_unix();
    for option in ADVERTISED {
        let far = members.iter().find(|other| advertised(other, option).iter().any(elsewhere));
        let near = advertised(member, option).iter().find(|url| is_loopback(url) || is_any(url));
        let (Some(far), Some(url)) = (far, near) else { continue };
        let severity = if option == "advertise-client-urls" { Severity::Warning } else { Severity::Error };
        let message = format!("{url} is no address at which another host reaches this one");
        findings.push(member.against(option, (far, option), severity, message));
    }
}

fn is_any(url: &Url) -> bool {
    url.ip().is_some_and(|ip: IpAddr| ip.is_unspecified())
}
