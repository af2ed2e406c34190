//! `v3electionpb.Election`.

use std::convert::Infallible;

use prost::Message as _;

use super::{
    Session,
    contest::{Waiting, Watching, as_heard, change, enter, lease_of, revision, served, turn},
    kv, only_request,
};
use crate::{
    api::{
        status::Status,
        wire::{Inbound, Outbound},
    },
    concurrency::{self, Line, Place},
    pb::{
        etcdserverpb::ResponseHeader,
        mvccpb::{Event, KeyValue, event::EventType},
        v3electionpb::{
            CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
            ProclaimResponse, ResignRequest, ResignResponse,
        },
    },
    types::Code,
};

/// Waits until the caller leads.
pub(super) async fn campaign(session: Session, request: CampaignRequest) -> Result<CampaignResponse, Status> {
    served(&session, be_elected(&session, request)).await
}

async fn be_elected(session: &Session, request: CampaignRequest) -> Result<CampaignResponse, Status> {
    let lease = lease_of(session, request.lease).await?;
    let line = Line::of(&request.name);
    let (entered, header) = enter(session, &line, lease, request.value.clone()).await?;
    let place = entered.place;
    let waiting = Waiting::begin(session, &place);
    if entered.value.is_some_and(|value| value != request.value) {
        let told = change(session, place.write(lease, request.value)).await?;
        if !told.succeeded {
            return Err(not_leader());
        }
    }
    let elected = if entered.is_first { Ok(()) } else { win(session, &line, &place).await };
    waiting.keep();
    elected?;
    let leader = LeaderKey { name: request.name, key: place.key, rev: place.created, lease: lease.0 };
    Ok(CampaignResponse { header, leader: Some(leader) })
}

/// Waits for the turn of the place. etcd calls a leader whose lease has ended while it waited; that one has no key, and the
/// next one would be called as well, so here it is refused.
async fn win(session: &Session, line: &Line, place: &Place) -> Result<(), Status> {
    turn(session, line, place).await?;
    let answer = kv::read(session, place.read()).await?;
    if place.is_kept(&answer) { Ok(()) } else { Err(not_leader()) }
}

/// Gives the leader another value.
pub(super) async fn proclaim(session: Session, request: ProclaimRequest) -> Result<ProclaimResponse, Status> {
    served(&session, tell(&session, request)).await
}

async fn tell(session: &Session, request: ProclaimRequest) -> Result<ProclaimResponse, Status> {
    let leader = request.leader.ok_or_else(no_leader_key)?;
    let lease = lease_of(session, leader.lease).await?;
    let told = change(session, place_of(leader).write(lease, request.value)).await?;
    if told.succeeded { Ok(ProclaimResponse { header: told.header }) } else { Err(not_leader()) }
}

/// Gives up leadership, or the wait for it; to have lost it already is no failure.
pub(super) async fn resign(session: Session, request: ResignRequest) -> Result<ResignResponse, Status> {
    let leader = request.leader.ok_or_else(no_leader_key)?;
    let left = served(&session, change(&session, place_of(leader).leave())).await?;
    Ok(ResignResponse { header: left.header })
}

fn place_of(leader: LeaderKey) -> Place {
    Place { key: leader.key, created: leader.rev }
}

/// Tells who leads.
pub(super) async fn leader(session: Session, request: LeaderRequest) -> Result<LeaderResponse, Status> {
    let answer = kv::read(&session, Line::of(&request.name).first()).await.map_err(as_heard)?;
    let kv = answer.kvs.into_iter().next().ok_or_else(|| Status::unknown("election: no leader"))?;
    Ok(LeaderResponse { header: answer.header, kv: Some(kv) })
}

/// Tells who leads and with which value, again and again.
pub(super) async fn observe(session: &Session, mut inbound: Inbound, outbound: &mut Outbound) -> Result<(), Status> {
    let request: LeaderRequest = only_request(session, &mut inbound).await?;
    session.admit_stream()?;
    let line = Line::of(&request.name);
    tokio::select! {
        Err(why) = follow(session, &line, outbound) => ended(why),
        cut = session.cut() => Err(cut),
    }
}

/// Goes from leader to leader; tells why it cannot go on.
async fn follow(session: &Session, line: &Line, outbound: &mut Outbound) -> Result<Infallible, Status> {
    loop {
        let (header, kv) = tokio::select! {
            found = find(session, line) => found?,
            () = outbound.closed() => return Err(Status::canceled()),
        };
        let changes = concurrency::changes(kv.key.clone(), header.revision + 1);
        send(outbound, header, kv).await?;
        let mut watching = Watching::begin(session, changes).await?;
        while pass_on(&mut watching, outbound).await? {}
    }
}

/// How a stream ends that cannot go on: well, as etcd's does, where the client has not gone itself. Only the log tells why.
fn ended(why: Status) -> Result<(), Status> {
    if why.code() == Code::Canceled {
        return Err(why);
    }
    tracing::debug!(reason = why.message(), "an election cannot be observed any longer");
    Ok(())
}

/// Who leads now, or the first one to enter an empty line.
async fn find(session: &Session, line: &Line) -> Result<(ResponseHeader, KeyValue), Status> {
    loop {
        let mut answer = kv::read(session, line.first()).await?;
        if let Some(kv) = answer.kvs.pop() {
            return Ok((answer.header.unwrap_or_default(), kv));
        }
        let mut watching = Watching::begin(session, line.entries(revision(&answer))).await?;
        while let Some(response) = watching.next().await? {
            if let Some(kv) = response.events.into_iter().find_map(|event| event.kv) {
                let header = ResponseHeader { revision: kv.mod_revision, ..response.header.unwrap_or_default() };
                return Ok((header, kv));
            }
        }
    }
}

/// Sends the next values of the leader; false once there is another one to look for.
async fn pass_on(watching: &mut Watching, outbound: &mut Outbound) -> Result<bool, Status> {
    let response = tokio::select! {
        response = watching.next() => response?,
        () = outbound.closed() => return Err(Status::canceled()),
    };
    let Some(response) = response else { return Ok(false) };
    for event in response.events {
        match event {
            Event { r#type, kv: Some(kv), .. } if r#type == i32::from(EventType::Put) => {
                send(outbound, response.header.unwrap_or_default(), kv).await?;
            }
            _ => return Ok(false),
        }
    }
    Ok(true)
}

async fn send(outbound: &mut Outbound, header: ResponseHeader, kv: KeyValue) -> Result<(), Status> {
    let response = LeaderResponse { header: Some(header), kv: Some(kv) };
    Ok(outbound.send(response.encode_to_vec().into()).await?)
}

fn not_leader() -> Status {
    Status::unknown("election: not leader")
}

fn no_leader_key() -> Status {
    Status::unknown("\"leader\" field must be provided")
}
