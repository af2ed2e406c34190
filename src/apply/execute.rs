//! One request, carried out on the state and the batch.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    AlarmKind, Applied, ApplyError, Effect, EntryError, Response,
    alarms::{self, to_pb},
    digest::EntryDigest,
    entry::{self, Content, Request},
    quota::{LEASE_COST_BYTES, put_cost, txn_cost},
    state::{State, speaks},
};
use crate::{
    auth::{self, Identity, Token},
    lease::LeaseRow,
    membership::{Downgrade, MemberChange, Version},
    mvcc::{Change, Changes, LeaseExists, ReadError},
    pb::{
        etcdserverpb::{self as pb, RequestOp, alarm_request::AlarmAction, request_op},
        membershippb::{ClusterMemberAttrSetRequest, DowngradeInfoSetRequest},
        raftpb::Entry,
    },
    storage::{Batch, Read, StorageError, Table},
    types::{KEY_BYTES_MAX, LEASE_TTL_SECONDS_MAX, LeaseId, LogIndex, MemberId, Rejection, Term},
};

/// The first cluster version whose members all record remaining times of leases.
const CHECKPOINTS_STORED_FROM: Version = Version::minor(3, 6);

/// What one entry leads to.
pub(super) struct Outcome {
    result: Result<Response, Rejection>,
    changes: Option<Changes>,
    effects: Vec<Effect>,
}

/// Why one request has no effect.
pub(super) enum Refused {
    /// Every member refuses alike.
    Rejected(Rejection),
    /// This member cannot go on.
    Storage(StorageError),
    /// No member may go on without understanding this.
    Entry(EntryError),
    /// This member must not go on.
    VersionTooOld(Version),
}

impl State {
    /// Applies one entry: refusals become its outcome, everything else stops the member.
    pub(super) fn apply_entry<R: Read>(&mut self, batch: &mut Batch<R>, entry: &Entry) -> Result<Applied, ApplyError> {
        let index = LogIndex(entry.index);
        self.entry = EntryDigest::of(entry);
        let content = entry::read(entry).map_err(|cause| ApplyError::Entry { index, cause })?;
        let (request, operation, outcome) = match content {
            Content::Empty => (None, None, Outcome::from(Response::NewLeader)),
            Content::Change(id, change) => {
                if self.options.learners_max.is_none() && self.cluster.depends_on_learners_max(&change) {
                    return Err(ApplyError::Entry { index, cause: EntryError::LearnersUnknown });
                }
                let outcome = self.change_members(batch, &change);
                (id, None, outcome.map_err(|cause| ApplyError::Storage { index, cause })?)
            }
            Content::Request(id, who, request) => {
                let outcome = self.carry_out(batch, &who, &request);
                (id, request.name(), outcome.or_else(|refused| self.settle(index, refused))?)
            }
        };
        let Outcome { result, changes, effects } = outcome;
        let changes = changes.map(Arc::new);
        self.entry.number(self.store.take_changed());
        self.digest.add(self.entry);
        let (term, digest) = (Term(entry.term), self.digest);
        Ok(Applied { index, term, request, operation, outcome: result, changes, effects, digest })
    }

    /// The layers around a request, outermost first: CORRUPT, NOSPACE, permissions, quota (peer-and-disk, §3.5).
    fn carry_out<R: Read>(
        &mut self,
        batch: &mut Batch<R>,
        who: &Identity,
        request: &Request,
    ) -> Result<Outcome, Refused> {
        let cost = request.cost();
        if self.alarms.is_raised(AlarmKind::Corrupt) && request.needs_sound_data() {
            return Err(Rejection::Corrupt.into());
        }
        if self.alarms.is_raised(AlarmKind::NoSpace) && cost > 0 {
            return Err(Rejection::NoSpace.into());
        }
        self.authorize(batch, who, request)?;
        let mut outcome = self.execute(batch, request)?;
        if self.exceeds_quota(cost) {
            // The write is done, on all members; only the answer of this one says otherwise.
            outcome.result = Err(Rejection::NoSpace);
            outcome.effects.push(Effect::QuotaExceeded);
        }
        Ok(outcome)
    }

    fn exceeds_quota(&self, cost: u64) -> bool {
        cost > 0 && self.options.quota_bytes.is_some_and(|quota| self.disk_bytes.saturating_add(cost) >= quota)
    }

    fn execute<R: Read>(&mut self, batch: &mut Batch<R>, request: &Request) -> Result<Outcome, Refused> {
        match request {
            Request::Put(put) => {
                check_key(&put.key)?;
                self.key_space(batch, |change, leases| change.put(put, leases).map(Response::Put))
            }
            Request::Txn(txn) => {
                check_txn_keys(txn)?;
                self.key_space(batch, |change, leases| change.txn(txn, leases).map(Response::Txn))
            }
            Request::DeleteRange(delete) => {
                self.key_space(batch, |change, _| change.delete_range(delete).map(Response::DeleteRange))
            }
            Request::Range(range) => self.key_space(batch, |change, _| change.range(range).map(Response::Range)),
            Request::Compaction(compaction) => self.compact(batch, compaction.revision),
            Request::LeaseGrant(grant) => self.grant(batch, grant),
            Request::LeaseRevoke(revoke) => self.revoke(batch, LeaseId(revoke.id)),
            Request::LeaseCheckpoint(checkpoint) => self.checkpoint(batch, &checkpoint.checkpoints),
            Request::Alarm(alarm) => self.alarm(batch, alarm),
            Request::ClusterVersion(set) => self.set_cluster_version(batch, &set.ver),
            Request::Attributes(set) => self.publish(batch, set),
            Request::Downgrade(set) => self.set_downgrade(batch, set),
            Request::VersionTest => Ok(Response::Done.into()),
            Request::V2(request) => self.v2(batch, request),
            Request::AuthChange(change) => self.change_auth(batch, change),
            Request::Authenticate(login) => self.authenticate(login),
            _ => self.tell_auth(request),
        }
    }

    /// Carries out one request of the key space.
    fn key_space<R: Read>(
        &mut self,
        batch: &mut Batch<R>,
        run: impl FnOnce(&mut Change<'_, R>, LeaseExists<'_>) -> Result<Response, ReadError>,
    ) -> Result<Outcome, Refused> {
        let Self { store, leases, .. } = self;
        let mut change = store.begin(batch);
        let response = run(&mut change, &|id| leases.contains(&id))?;
        let changes = change.end();
        Ok(Outcome { changes, ..Outcome::from(response) })
    }

    fn compact<R: Read>(&mut self, batch: &mut Batch<R>, revision: i64) -> Result<Outcome, Refused> {
        self.store.compact(batch, revision)?;
        self.entry.number(revision.cast_unsigned());
        let response = Response::Compaction(pb::CompactionResponse { header: Some(self.header()) });
        Ok(Outcome::from(response).with(Effect::CompactionRequested { revision }))
    }

    fn grant<R: Read>(&mut self, batch: &mut Batch<R>, grant: &pb::LeaseGrantRequest) -> Result<Outcome, Refused> {
        let id = LeaseId(grant.id);
        if id.0 == 0 {
            return Err(Rejection::LeaseNotFound.into());
        }
        if grant.ttl > LEASE_TTL_SECONDS_MAX {
            return Err(Rejection::LeaseTtlTooLarge.into());
        }
        if !self.leases.insert(id) {
            return Err(Rejection::LeaseExists.into());
        }
        let ttl = grant.ttl.max(self.options.lease_ttl_min);
        write_lease(batch, LeaseRow { id, ttl, remaining: 0 });
        // The time to live depends on the options of each member, too.
        self.entry.row(Table::Lease, &LeaseRow::key_of(id), Some(&[]));
        let response = pb::LeaseGrantResponse { header: Some(self.header()), id: id.0, ttl, error: String::new() };
        Ok(Outcome::from(Response::LeaseGrant(response)).with(Effect::LeaseGranted { id, ttl }))
    }

    /// Deletes the attached keys in one revision, and the lease with them.
    fn revoke<R: Read>(&mut self, batch: &mut Batch<R>, id: LeaseId) -> Result<Outcome, Refused> {
        if !self.leases.contains(&id) {
            return Err(Rejection::LeaseNotFound.into());
        }
        let mut change = self.store.begin(batch);
        change.delete_lease_keys(id)?;
        let changes = change.end();
        batch.delete_row(Table::Lease, &LeaseRow::key_of(id));
        self.entry.row(Table::Lease, &LeaseRow::key_of(id), None);
        self.leases.remove(&id);
        let response = Response::LeaseRevoke(pb::LeaseRevokeResponse { header: Some(self.header()) });
        Ok(Outcome { changes, ..Outcome::from(response) }.with(Effect::LeaseRevoked(id)))
    }

    /// Records remaining times; unknown leases are skipped. They are stored once all members store them.
    fn checkpoint<R: Read>(
        &mut self,
        batch: &mut Batch<R>,
        checkpoints: &[pb::LeaseCheckpoint],
    ) -> Result<Outcome, Refused> {
        let stored = self.cluster.version().is_some_and(|version| version >= CHECKPOINTS_STORED_FROM);
        let response = Response::LeaseCheckpoint(pb::LeaseCheckpointResponse { header: Some(self.header()) });
        let mut outcome = Outcome::from(response);
        for pb::LeaseCheckpoint { id, remaining_ttl } in checkpoints {
            let (id, remaining) = (LeaseId(*id), *remaining_ttl);
            if !self.leases.contains(&id) {
                continue;
            }
            if stored {
                store_remaining(batch, id, remaining)?;
            }
            outcome.effects.push(Effect::LeaseCheckpointed { id, remaining });
        }
        Ok(outcome)
    }

    fn alarm<R: Read>(&mut self, batch: &mut Batch<R>, request: &pb::AlarmRequest) -> Result<Outcome, Refused> {
        let action = AlarmAction::try_from(request.action).map_err(|_| Rejection::UnknownAlarmAction)?;
        let member = MemberId(request.member_id);
        let none = request.alarm == i32::from(pb::AlarmType::None);
        let kind = AlarmKind::from_wire(request.alarm);
        let (alarms, changed) = match (action, kind) {
            (AlarmAction::Get, _) if none => (self.alarms.list(None), false),
            (AlarmAction::Get, Some(_)) => (self.alarms.list(kind), false),
            (AlarmAction::Activate, Some(kind)) => self.raise(batch, kind, member),
            (AlarmAction::Deactivate, Some(kind)) => self.clear(batch, kind, member),
            // etcd crashes here; an alarm nobody can act on is refused instead, by all members alike.
            (AlarmAction::Activate, None) if !none => return Err(Rejection::UnknownAlarmAction.into()),
            _ => (Vec::new(), false),
        };
        let response = Response::Alarm(pb::AlarmResponse { header: Some(self.header()), alarms });
        let effects = if changed { vec![Effect::AlarmsChanged] } else { Vec::new() };
        Ok(Outcome { effects, ..Outcome::from(response) })
    }

    fn raise<R: Read>(
        &mut self,
        batch: &mut Batch<R>,
        kind: AlarmKind,
        member: MemberId,
    ) -> (Vec<pb::AlarmMember>, bool) {
        let raised = Arc::make_mut(&mut self.alarms).raise(kind, member);
        if raised {
            let key = alarms::row_key(kind, member);
            self.entry.row(Table::Alarm, &key, Some(&[]));
            batch.put_row(Table::Alarm, &key, Bytes::new());
        }
        (vec![to_pb(kind, member)], raised)
    }

    fn clear<R: Read>(
        &mut self,
        batch: &mut Batch<R>,
        kind: AlarmKind,
        member: MemberId,
    ) -> (Vec<pb::AlarmMember>, bool) {
        if !Arc::make_mut(&mut self.alarms).clear(kind, member) {
            return (Vec::new(), false);
        }
        let key = alarms::row_key(kind, member);
        self.entry.row(Table::Alarm, &key, None);
        batch.delete_row(Table::Alarm, &key);
        (vec![to_pb(kind, member)], true)
    }

    fn set_cluster_version<R: Read>(&mut self, batch: &mut Batch<R>, text: &str) -> Result<Outcome, Refused> {
        let version: Version = text.parse().map_err(EntryError::Version)?;
        if !speaks(self.options.server_version, version) {
            return Err(Refused::VersionTooOld(version));
        }
        let lowered = self.cluster.version().is_some_and(|before| version < before);
        let cluster = Arc::make_mut(&mut self.cluster);
        cluster.set_version(version);
        let row = cluster.version_row();
        self.write_cluster(batch, [row]);
        self.note_members_part(batch)?;
        Ok(Outcome::from(Response::Done).with(Effect::ClusterVersionChanged { lowered }))
    }

    fn set_downgrade<R: Read>(
        &mut self,
        batch: &mut Batch<R>,
        set: &DowngradeInfoSetRequest,
    ) -> Result<Outcome, Refused> {
        let target = set.enabled.then(|| set.ver.parse()).transpose().map_err(EntryError::Version)?;
        let cluster = Arc::make_mut(&mut self.cluster);
        cluster.set_downgrade(Downgrade { target });
        let row = cluster.downgrade_row();
        self.write_cluster(batch, [row]);
        Ok(Outcome::from(Response::Done).with(Effect::DowngradeChanged))
    }

    /// Records what a member says about itself. Of a removed member that is too late and changes nothing; a member
    /// nobody has heard of is refused, by all members alike.
    fn publish<R: Read>(
        &mut self,
        batch: &mut Batch<R>,
        set: &ClusterMemberAttrSetRequest,
    ) -> Result<Outcome, Refused> {
        let id = MemberId(set.member_id);
        if self.cluster.is_removed(id) {
            return Ok(Response::Done.into());
        }
        let cluster = Arc::make_mut(&mut self.cluster);
        if !cluster.publish(id, set.member_attributes.clone().unwrap_or_default().into()) {
            return Err(Rejection::MemberNotFound.into());
        }
        let row = cluster.member_row(id);
        self.write_cluster(batch, [row]);
        self.note_members_part(batch)?;
        Ok(Outcome::from(Response::Done).with(Effect::MembersChanged))
    }

    /// Judges an agreed configuration change and carries it out. Raft is told in any case.
    fn change_members<R: Read>(
        &mut self,
        batch: &mut Batch<R>,
        change: &MemberChange,
    ) -> Result<Outcome, StorageError> {
        if let Err(rejection) = self.cluster.check(change, self.options.learners_max.unwrap_or(usize::MAX)) {
            return Ok(Outcome::from(rejection).with(Effect::ConfChange(None)));
        }
        let id = change.id();
        let cluster = Arc::make_mut(&mut self.cluster);
        cluster.apply(change);
        let rows = cluster.change_rows(id);
        self.write_cluster(batch, rows);
        self.note_members_part(batch)?;
        let outcome = Outcome::from(Response::Members(self.cluster.clone()))
            .with(Effect::ConfChange(change.for_raft()))
            .with(Effect::MembersChanged);
        let removed_self = *change == MemberChange::Remove(self.options.member);
        Ok(if removed_self { outcome.with(Effect::RemovedSelf(id)) } else { outcome })
    }

    fn change_auth<R: Read>(&mut self, batch: &mut Batch<R>, change: &auth::Change) -> Result<Outcome, Refused> {
        let was_enabled = self.auth.enabled();
        for auth::Row { table, key, value } in Arc::make_mut(&mut self.auth).change(change)? {
            self.entry.row(table, &key, value.as_deref());
            match value {
                Some(value) => batch.put_row(table, &key, value),
                None => batch.delete_row(table, &key),
            }
        }
        let outcome = Outcome::from(Response::AuthChanged);
        Ok(match change {
            auth::Change::UserDelete(pb::AuthUserDeleteRequest { name })
            | auth::Change::UserChangePassword(pb::AuthUserChangePasswordRequest { name, .. }) => {
                outcome.with(Effect::UserForgotten(name.clone()))
            }
            auth::Change::Disable if was_enabled => outcome.with(Effect::TokensForgotten),
            _ => outcome,
        })
    }

    /// The password was checked by the member that proposed this. What is not a request for a simple token has none.
    fn authenticate(&self, login: &pb::InternalAuthenticateRequest) -> Result<Outcome, Refused> {
        let [user, prefix] = [&login.name, &login.simple_token].map(|text| String::from_utf8_lossy(text));
        self.auth.check_login(&user)?;
        let token = Token::assigned(&prefix, self.applied);
        let outcome = Outcome::from(Response::Authenticated(token.clone()));
        let assigned = Effect::TokenAssigned { user: user.into_owned(), token };
        Ok(if prefix.is_empty() { outcome } else { outcome.with(assigned) })
    }

    /// What requests want to know of users and roles. They travel through the log as in etcd.
    fn tell_auth(&self, request: &Request) -> Result<Outcome, Refused> {
        let (header, auth) = (Some(self.header()), &self.auth);
        Ok(Outcome::from(match request {
            Request::AuthStatus => {
                let (enabled, auth_revision) = (auth.enabled(), auth.revision());
                Response::AuthStatus(pb::AuthStatusResponse { header, enabled, auth_revision })
            }
            Request::AuthUserList => {
                Response::AuthUserList(pb::AuthUserListResponse { header, users: auth.user_names() })
            }
            Request::AuthRoleList => {
                Response::AuthRoleList(pb::AuthRoleListResponse { header, roles: auth.role_names() })
            }
            Request::AuthUserGet(get) => {
                let roles = auth.roles_of(&get.name).ok_or(Rejection::UserNotFound)?.to_vec();
                Response::AuthUserGet(pb::AuthUserGetResponse { header, roles })
            }
            Request::AuthRoleGet(get) => {
                let perm = auth.permissions_of(&get.role).ok_or(Rejection::RoleNotFound)?;
                Response::AuthRoleGet(pb::AuthRoleGetResponse { header, perm })
            }
            _ => return Err(Rejection::AuthNotEnabled.into()),
        }))
    }

    fn header(&self) -> pb::ResponseHeader {
        pb::ResponseHeader { revision: self.store.revision(), ..pb::ResponseHeader::default() }
    }

    /// A refusal that all members share is an outcome; anything else stops this one.
    fn settle(&self, index: LogIndex, refused: Refused) -> Result<Outcome, ApplyError> {
        match refused {
            Refused::Rejected(rejection) => Ok(rejection.into()),
            Refused::Storage(cause) => Err(ApplyError::Storage { index, cause }),
            Refused::Entry(cause) => Err(ApplyError::Entry { index, cause }),
            Refused::VersionTooOld(cluster) => {
                Err(ApplyError::VersionTooOld { index, cluster, own: self.options.server_version })
            }
        }
    }
}

impl Request {
    /// What etcd's metrics call it, if it is one of its third API.
    fn name(&self) -> Option<&'static str> {
        Some(match self {
            Self::ClusterVersion(_) => "ClusterVersionSet",
            Self::Attributes(_) => "ClusterMemberAttrSet",
            Self::Downgrade(_) => "DowngradeInfoSet",
            Self::VersionTest => "DowngradeVersionTest",
            Self::Range(_) => "Range",
            Self::Put(_) => "Put",
            Self::DeleteRange(_) => "DeleteRange",
            Self::Txn(_) => "Txn",
            Self::Compaction(_) => "Compaction",
            Self::LeaseGrant(_) => "LeaseGrant",
            Self::LeaseRevoke(_) => "LeaseRevoke",
            Self::LeaseCheckpoint(_) => "LeaseCheckpoint",
            Self::Alarm(_) => "Alarm",
            Self::Authenticate(_) => "Authenticate",
            Self::AuthChange(change) => change.name(),
            // etcd has forgotten to name this one.
            Self::AuthStatus => "unknown",
            Self::AuthUserGet(_) => "AuthUserGet",
            Self::AuthUserList => "AuthUserList",
            Self::AuthRoleGet(_) => "AuthRoleGet",
            Self::AuthRoleList => "AuthRoleList",
            Self::V2(_) => return None,
        })
    }

    fn cost(&self) -> u64 {
        match self {
            Self::Put(put) => put_cost(put),
            Self::Txn(txn) => txn_cost(txn),
            Self::LeaseGrant(_) => LEASE_COST_BYTES,
            _ => 0,
        }
    }

    /// What the CORRUPT alarm refuses.
    fn needs_sound_data(&self) -> bool {
        matches!(
            self,
            Self::Put(_)
                | Self::Range(_)
                | Self::DeleteRange(_)
                | Self::Txn(_)
                | Self::Compaction(_)
                | Self::LeaseGrant(_)
                | Self::LeaseRevoke(_)
        )
    }
}

impl Outcome {
    fn with(mut self, effect: Effect) -> Self {
        self.effects.push(effect);
        self
    }
}

impl From<Response> for Outcome {
    fn from(response: Response) -> Self {
        Self { result: Ok(response), changes: None, effects: Vec::new() }
    }
}

impl From<Rejection> for Outcome {
    fn from(rejection: Rejection) -> Self {
        Self { result: Err(rejection), changes: None, effects: Vec::new() }
    }
}

impl From<Rejection> for Refused {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl From<EntryError> for Refused {
    fn from(error: EntryError) -> Self {
        Self::Entry(error)
    }
}

impl From<auth::Refused> for Refused {
    fn from(refused: auth::Refused) -> Self {
        match refused {
            auth::Refused::Rejected(rejection) => Self::Rejected(rejection),
            auth::Refused::PlainPassword => Self::Entry(EntryError::PlainPassword),
        }
    }
}

impl From<StorageError> for Refused {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

impl From<ReadError> for Refused {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Rejected(rejection) => Self::Rejected(rejection),
            ReadError::Storage(error) => Self::Storage(error),
        }
    }
}

fn write_lease<R: Read>(batch: &mut Batch<R>, row: LeaseRow) {
    batch.put_row(Table::Lease, &LeaseRow::key_of(row.id), row.value());
}

fn store_remaining<R: Read>(batch: &mut Batch<R>, id: LeaseId, remaining: i64) -> Result<(), StorageError> {
    let key = LeaseRow::key_of(id);
    let damaged = || StorageError::corrupt(Table::Lease, &key, "a granted lease has no readable row");
    let value = batch.row(Table::Lease, &key)?.ok_or_else(damaged)?;
    let row = LeaseRow::read(&key, &value).map_err(|_| damaged())?;
    write_lease(batch, LeaseRow { remaining, ..row });
    Ok(())
}

/// Own clients never get this far with a longer key; a foreign member's could.
fn check_key(key: &Bytes) -> Result<(), EntryError> {
    if key.len() > KEY_BYTES_MAX { Err(EntryError::KeyTooLong(key.len())) } else { Ok(()) }
}

fn check_txn_keys(txn: &pb::TxnRequest) -> Result<(), EntryError> {
    txn.success.iter().chain(&txn.failure).try_for_each(|RequestOp { request }| match request {
        Some(request_op::Request::RequestPut(put)) => check_key(&put.key),
        Some(request_op::Request::RequestTxn(txn)) => check_txn_keys(txn),
        _ => Ok(()),
    })
}
