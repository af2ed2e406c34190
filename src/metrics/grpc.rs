//! `grpc_server_*`: calls by method and outcome, as the gRPC middleware of etcd counts them.
//!
//! A streaming call counts as started when it opens and as handled when it ends: dashboards subtract the two.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{
    Counter, Described, Histogram, Unit,
    text::{float, head, histogram, label_set, sample},
};

/// The names of gRPC's status codes, in the order of their numbers.
pub const CODE_NAMES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// How many messages a method takes and gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MethodKind {
    /// One request, one response.
    Unary,
    /// One request, many responses.
    ServerStream,
    /// Many of both.
    Bidi,
}

impl MethodKind {
    /// The value of the label `grpc_type`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::ServerStream => "server_stream",
            Self::Bidi => "bidi_stream",
        }
    }
}

/// The counters of one gRPC method.
#[derive(Debug)]
pub struct GrpcMethod {
    /// `package.Service`.
    pub service: &'static str,
    /// The method's name.
    pub method: &'static str,
    /// Unary or streaming.
    pub kind: MethodKind,
    /// Whether its series exist before the first call.
    shown_unused: bool,
    started: Counter,
    received: Counter,
    sent: Counter,
    handled: [Counter; CODE_NAMES.len()],
    handling: Histogram,
}

impl GrpcMethod {
    const fn new(service: &'static str, method: &'static str, kind: MethodKind, shown_unused: bool) -> Self {
        Self {
            service,
            method,
            kind,
            shown_unused,
            started: Counter::new(),
            received: Counter::new(),
            sent: Counter::new(),
            handled: [const { Counter::new() }; CODE_NAMES.len()],
            handling: Histogram::new(&[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0], Unit::Seconds),
        }
    }

    /// Counts a call that has begun.
    pub fn on_started(&self) {
        self.started.inc();
    }

    /// Counts a request message.
    pub fn on_received(&self) {
        self.received.inc();
    }

    /// Counts response messages.
    pub fn on_sent(&self, messages: u64) {
        self.sent.add(messages);
    }

    /// Counts a call that ended with status `code` (0 to 16) after `took`, where that was measured.
    pub fn on_handled(&self, code: usize, took: Option<std::time::Duration>) {
        if let Some(counter) = self.handled.get(code) {
            counter.inc();
        }
        if let Some(took) = took {
            self.handling.observe(took);
        }
    }

    fn is_shown(&self) -> bool {
        self.shown_unused || self.started.get() > 0
    }

    fn labels(&self) -> [(&'static str, &'static str); 3] {
        [("grpc_method", self.method), ("grpc_service", self.service), ("grpc_type", self.kind.label())]
    }
}

static EXTENSIVE: AtomicBool = AtomicBool::new(false);

/// Turns the histograms of `--metrics=extensive` on or off.
pub fn set_extensive(on: bool) {
    EXTENSIVE.store(on, Ordering::Relaxed);
}

/// Whether calls are to be timed.
pub fn is_extensive() -> bool {
    EXTENSIVE.load(Ordering::Relaxed)
}

macro_rules! methods {
    ($($service:literal $shown:literal { $($constant:ident $method:literal $kind:ident,)* })*) => {
        $($(
            #[doc = concat!("Calls of `", $service, "/", $method, "`.")]
            pub static $constant: GrpcMethod = GrpcMethod::new($service, $method, MethodKind::$kind, $shown);
        )*)*
        /// Every method this server knows, by service.
        pub static METHODS: &[&GrpcMethod] = &[$($(&$constant,)*)*];
    };
}

methods! {
    "etcdserverpb.KV" true {
        RANGE "Range" Unary,
        RANGE_STREAM "RangeStream" ServerStream,
        PUT "Put" Unary,
        DELETE_RANGE "DeleteRange" Unary,
        TXN "Txn" Unary,
        COMPACT "Compact" Unary,
    }
    "etcdserverpb.Watch" true {
        WATCH "Watch" Bidi,
    }
    "etcdserverpb.Lease" true {
        LEASE_GRANT "LeaseGrant" Unary,
        LEASE_REVOKE "LeaseRevoke" Unary,
        LEASE_KEEP_ALIVE "LeaseKeepAlive" Bidi,
        LEASE_TIME_TO_LIVE "LeaseTimeToLive" Unary,
        LEASE_LEASES "LeaseLeases" Unary,
    }
    "etcdserverpb.Cluster" true {
        MEMBER_ADD "MemberAdd" Unary,
        MEMBER_REMOVE "MemberRemove" Unary,
        MEMBER_UPDATE "MemberUpdate" Unary,
        MEMBER_LIST "MemberList" Unary,
        MEMBER_PROMOTE "MemberPromote" Unary,
    }
    "etcdserverpb.Maintenance" true {
        ALARM "Alarm" Unary,
        STATUS "Status" Unary,
        DEFRAGMENT "Defragment" Unary,
        HASH "Hash" Unary,
        HASH_KV "HashKV" Unary,
        SNAPSHOT "Snapshot" ServerStream,
        MOVE_LEADER "MoveLeader" Unary,
        DOWNGRADE "Downgrade" Unary,
    }
    "etcdserverpb.Auth" true {
        AUTH_ENABLE "AuthEnable" Unary,
        AUTH_DISABLE "AuthDisable" Unary,
        AUTH_STATUS "AuthStatus" Unary,
        AUTHENTICATE "Authenticate" Unary,
        USER_ADD "UserAdd" Unary,
        USER_GET "UserGet" Unary,
        USER_LIST "UserList" Unary,
        USER_DELETE "UserDelete" Unary,
        USER_CHANGE_PASSWORD "UserChangePassword" Unary,
        USER_GRANT_ROLE "UserGrantRole" Unary,
        USER_REVOKE_ROLE "UserRevokeRole" Unary,
        ROLE_ADD "RoleAdd" Unary,
        ROLE_GET "RoleGet" Unary,
        ROLE_LIST "RoleList" Unary,
        ROLE_DELETE "RoleDelete" Unary,
        ROLE_GRANT_PERMISSION "RoleGrantPermission" Unary,
        ROLE_REVOKE_PERMISSION "RoleRevokePermission" Unary,
    }
    "grpc.health.v1.Health" true {
        HEALTH_RPC_CHECK "Check" Unary,
        HEALTH_RPC_LIST "List" Unary,
        HEALTH_RPC_WATCH "Watch" ServerStream,
    }
    "v3electionpb.Election" false {
        CAMPAIGN "Campaign" Unary,
        PROCLAIM "Proclaim" Unary,
        LEADER "Leader" Unary,
        OBSERVE "Observe" ServerStream,
        RESIGN "Resign" Unary,
    }
    "v3lockpb.Lock" false {
        LOCK "Lock" Unary,
        UNLOCK "Unlock" Unary,
    }
    "quorate.Insight" false {
        HOT "Hot" Unary,
    }
}

/// Every `grpc_server_*` family with its text.
/// The labels of every method, but for the code.
const LABELS: &[&str] = &["grpc_method", "grpc_service", "grpc_type"];

const fn family(name: &'static str, kind: &'static str, help: &'static str) -> Described {
    Described { name, kind, labels: LABELS, help, versions: "3.3" }
}

const STARTED: Described = family("grpc_server_started_total", "counter", "Calls begun.");
const RECEIVED: Described = family("grpc_server_msg_received_total", "counter", "Messages received by calls.");
const SENT: Described = family("grpc_server_msg_sent_total", "counter", "Messages sent by calls.");
const HANDLED: Described = Described {
    labels: &["grpc_code", "grpc_method", "grpc_service", "grpc_type"],
    ..family("grpc_server_handled_total", "counter", "Calls ended, by status code.")
};
const HANDLING: Described = family(
    "grpc_server_handling_seconds",
    "histogram",
    "Time from the begin of a call to its end; only with --metrics=extensive.",
);

/// Every name of this family.
pub(super) const FAMILIES: [Described; 5] = [STARTED, RECEIVED, SENT, HANDLED, HANDLING];

pub(super) fn collect() -> Vec<(&'static str, String)> {
    let mut families = vec![
        counts(STARTED, |method| &method.started),
        counts(RECEIVED, |method| &method.received),
        counts(SENT, |method| &method.sent),
        handled(),
    ];
    if is_extensive() {
        families.push(handling());
    }
    families
}

fn shown() -> impl Iterator<Item = &'static GrpcMethod> {
    METHODS.iter().copied().filter(|method| method.is_shown())
}

fn begin(family: Described) -> (&'static str, String) {
    let mut out = String::new();
    head(family.name, family.help, family.kind, &mut out);
    (family.name, out)
}

fn counts(family: Described, pick: fn(&GrpcMethod) -> &Counter) -> (&'static str, String) {
    let (name, mut out) = begin(family);
    for method in shown() {
        sample(name, &label_set(method.labels()), float(pick(method).get()), &mut out);
    }
    (name, out)
}

fn handled() -> (&'static str, String) {
    let (name, mut out) = begin(HANDLED);
    for method in shown() {
        for (code, counter) in CODE_NAMES.into_iter().zip(&method.handled) {
            let labels = label_set([("grpc_code", code)].into_iter().chain(method.labels()));
            sample(name, &labels, float(counter.get()), &mut out);
        }
    }
    (name, out)
}

fn handling() -> (&'static str, String) {
    let (name, mut out) = begin(HANDLING);
    for method in shown() {
        histogram(name, &method.labels(), &method.handling, &mut out);
    }
    (name, out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_of_the_core_services_exists_before_its_first_call() {
        let text: String = collect().into_iter().map(|(_, text)| text).collect();
        let line = "grpc_server_handled_total{grpc_code=\"Canceled\",grpc_method=\"Watch\",\
                    grpc_service=\"etcdserverpb.Watch\",grpc_type=\"bidi_stream\"} ";
        assert!(text.contains(line));
        assert!(!text.contains("v3lockpb.Lock"));
    }

    #[test]
    fn a_call_is_counted_under_its_code() {
        let before = RANGE_STREAM.handled[11].get();
        RANGE_STREAM.on_handled(11, None);
        assert_eq!(CODE_NAMES[11], "OutOfRange");
        assert_eq!(RANGE_STREAM.handled[11].get(), before + 1);
        RANGE_STREAM.on_handled(99, None);
    }
}
