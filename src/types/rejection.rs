//! What a member answers instead of doing what was asked. The texts are wire contract: etcd's clients compare them.

use thiserror::Error;

/// gRPC status codes, by number, without tying floor 0 to a gRPC crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are gRPC's own")]
pub enum Code {
    Canceled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

macro_rules! rejections {
    ($($(#[$doc:meta])* $name:ident = $code:ident, $text:literal;)*) => {
        /// A refusal in etcd's words. [`Rejection::code`] is the gRPC code that etcd 3.7 sends with it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
        pub enum Rejection {
            $($(#[$doc])* #[error($text)] $name,)*
        }
        impl Rejection {
            /// The code on the wire, including the two that etcd's mapping slips turn into `Unknown`.
            pub fn code(self) -> Code {
                match self { $(Self::$name => Code::$code,)* }
            }
        }
    };
}

rejections! {
    /// A request, an operation or a compare without a key.
    EmptyKey = InvalidArgument, "etcdserver: key is not provided";
    /// `ignore_value` or `ignore_lease` on a missing key; an operation with nothing set.
    KeyNotFound = InvalidArgument, "etcdserver: key not found";
    /// `ignore_value` together with a value.
    ValueProvided = InvalidArgument, "etcdserver: value is provided";
    /// `ignore_lease` together with a lease.
    LeaseProvided = InvalidArgument, "etcdserver: lease is provided";
    /// More compares or operations than `max-txn-ops`.
    TooManyOps = InvalidArgument, "etcdserver: too many operations in txn request";
    /// Two changes of one key in one branch.
    DuplicateKey = InvalidArgument, "etcdserver: duplicate key given in txn request";
    /// `client-api-version` is not UTF-8.
    InvalidClientApiVersion = InvalidArgument, "etcdserver: invalid client api version";
    /// Unknown sort order or target.
    InvalidSortOption = InvalidArgument, "etcdserver: invalid sort option";
    /// Below the compaction revision.
    Compacted = OutOfRange, "etcdserver: mvcc: required revision has been compacted";
    /// Above the current revision.
    FutureRevision = OutOfRange, "etcdserver: mvcc: required revision is a future revision";
    /// Quota exceeded, or the NOSPACE alarm is up.
    NoSpace = ResourceExhausted, "etcdserver: mvcc: database space exceeded";
    /// There is no revision left for a change.
    RevisionsUsed = ResourceExhausted, "etcdserver: mvcc: the last revision is used, and nothing can be changed any more: \
        restore an older snapshot (was --bump-revision too large?)";
    /// The encoded proposal exceeds `max-request-bytes`.
    RequestTooLarge = InvalidArgument, "etcdserver: request is too large";
    /// Commit is too far ahead of apply.
    TooManyRequests = Unknown, "etcdserver: too many requests";
    /// A key longer than this store can hold.
    KeyTooLong = InvalidArgument, "etcdserver: key is longer than the 32000 bytes this store can hold";
    /// Unknown lease.
    LeaseNotFound = NotFound, "etcdserver: requested lease not found";
    /// The lease identifier is in use.
    LeaseExists = FailedPrecondition, "etcdserver: lease already exists";
    /// TTL above nine billion seconds.
    LeaseTtlTooLarge = OutOfRange, "etcdserver: too large lease TTL";
    /// The member believes to lead but cannot prove it.
    NotPrimaryLessor = Unknown, "not a primary lessor";
    /// Ends a watch stream whose client went away.
    WatchCanceled = Canceled, "etcdserver: watch canceled";
    /// A member with that identifier exists.
    MemberExists = FailedPrecondition, "etcdserver: member ID already exist";
    /// Another member uses one of the peer URLs.
    PeerUrlExists = FailedPrecondition, "etcdserver: Peer URLs already exists";
    /// A change would leave fewer started members than a quorum.
    NotEnoughStarted = Unknown, "etcdserver: re-configuration failed due to not enough started members";
    /// No or malformed peer URLs.
    BadMemberUrls = InvalidArgument, "etcdserver: given member URLs are invalid";
    /// No such member, or one that was removed.
    MemberNotFound = NotFound, "etcdserver: member not found";
    /// Promotion of a voter.
    NotLearner = FailedPrecondition, "etcdserver: can only promote a learner member";
    /// The learner lags.
    LearnerNotReady = FailedPrecondition, "etcdserver: can only promote a learner member which is in sync with leader";
    /// The learner limit is reached.
    TooManyLearners = FailedPrecondition, "etcdserver: too many learner members in cluster";
    /// Not enough members connected for five seconds.
    UnhealthyCluster = Unavailable, "etcdserver: unhealthy cluster";
    /// `hasleader` was asked for and there is none.
    NoLeader = Unavailable, "etcdserver: no leader";
    /// Only the leader can do this.
    NotLeader = FailedPrecondition, "etcdserver: not leader";
    /// The leader changed while the answer was being made.
    LeaderChanged = Unavailable, "etcdserver: leader changed";
    /// The cluster version does not offer this call.
    NotCapable = FailedPrecondition, "etcdserver: not capable";
    /// The member is shutting down.
    Stopped = Unavailable, "etcdserver: server stopped";
    /// The outcome is unknown.
    Timeout = Unavailable, "etcdserver: request timed out";
    /// The outcome is unknown; the leader before this one failed.
    TimeoutLeaderFailure = Unavailable, "etcdserver: request timed out, possibly due to previous leader failure";
    /// The outcome is unknown; the quorum or the leader was lost.
    TimeoutConnectionLost = Unavailable, "etcdserver: request timed out, possibly due to connection lost";
    /// Apply stayed behind commit for too long.
    TimeoutApply = Unavailable, "etcdserver: request timed out, waiting for the applied index took too long";
    /// The member that was to lead did not take over in time.
    TimeoutLeaderTransfer = Unknown, "etcdserver: request timed out, leader transfer took too long";
    /// The CORRUPT alarm is up.
    Corrupt = DataLoss, "etcdserver: corrupt cluster";
    /// A learner does not serve this call.
    NotSupportedForLearner = FailedPrecondition, "etcdserver: rpc not supported for learner";
    /// Leadership cannot go there.
    BadLeaderTransferee = FailedPrecondition, "etcdserver: bad leader transferee";
    /// The downgrade target does not parse.
    BadDowngradeVersion = InvalidArgument, "etcdserver: wrong downgrade target version format";
    /// The downgrade target is not one minor below.
    InvalidDowngradeTarget = InvalidArgument, "etcdserver: invalid downgrade target version";
    /// No cluster version yet.
    ClusterVersionUnavailable = FailedPrecondition, "etcdserver: cluster version not found during downgrade";
    /// A downgrade is running.
    DowngradeInProgress = FailedPrecondition, "etcdserver: cluster has a downgrade job in progress";
    /// The caller cancelled while the proposal was on its way.
    RequestCanceled = Canceled, "etcdserver: request canceled";
    /// The proposal could not be handed to raft in time, or the client's deadline passed.
    DeadlineExceeded = DeadlineExceeded, "context deadline exceeded";
    /// Raft refused the proposal: leadership is being transferred, or there is no leader to take it.
    ProposalDropped = Unknown, "raft proposal dropped";
    /// An alarm action nobody knows.
    UnknownAlarmAction = InvalidArgument, "etcdserver: unknown alarm action";
    /// Authentication cannot be switched on without this user.
    RootUserNotFound = FailedPrecondition, "etcdserver: root user does not exist";
    /// Nor while it lacks this role.
    RootRoleNotGranted = FailedPrecondition, "etcdserver: root user does not have root role";
    /// There is a user of this name.
    UserExists = FailedPrecondition, "etcdserver: user name already exists";
    /// A user without a name, or a request of nobody where a user is needed.
    UserNameEmpty = InvalidArgument, "etcdserver: user name is empty";
    /// No such user.
    UserNotFound = FailedPrecondition, "etcdserver: user name not found";
    /// There is a role of this name.
    RoleExists = FailedPrecondition, "etcdserver: role name already exists";
    /// No such role.
    RoleNotFound = FailedPrecondition, "etcdserver: role name not found";
    /// A role without a name.
    RoleNameEmpty = InvalidArgument, "etcdserver: role name is empty";
    /// A grant that does not say of what.
    PermissionNotGiven = InvalidArgument, "etcdserver: permission not given";
    /// The user may not do this.
    PermissionDenied = PermissionDenied, "etcdserver: permission denied";
    /// The user does not have the role.
    RoleNotGranted = FailedPrecondition, "etcdserver: role is not granted to the user";
    /// The role does not have the permission.
    PermissionNotGranted = FailedPrecondition, "etcdserver: permission is not granted to the role";
    /// What would take root its place, or permit keys that are no range.
    InvalidAuthManagement = InvalidArgument, "etcdserver: invalid auth management";
    /// Users or roles have changed since the user was recognised.
    AuthOldRevision = InvalidArgument, "etcdserver: revision of auth store is old";
    /// A password where there can be none, or a hash that is none.
    NoPasswordUser = Unknown, "auth: authentication failed, password was given for no password user";
    /// Somebody to be logged in by a member that can check tokens and make none.
    TokenVerifyOnly = Unknown, "auth: token signing attempted with verify-only key";
    /// A name and a password that do not belong together.
    AuthFailed = InvalidArgument, "etcdserver: authentication failed, invalid user ID or password";
    /// A token that stands for nobody, or not any more.
    InvalidAuthToken = Unauthenticated, "etcdserver: invalid auth token";
    /// Authentication is off.
    AuthNotEnabled = FailedPrecondition, "etcdserver: authentication is not enabled";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapping_slips_of_etcd_are_kept() {
        assert_eq!(Rejection::TooManyRequests.code(), Code::Unknown);
        assert_eq!(Rejection::NotEnoughStarted.code(), Code::Unknown);
        assert_eq!(Rejection::Compacted.to_string(), "etcdserver: mvcc: required revision has been compacted");
    }
}
