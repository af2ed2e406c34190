//! `elect`: stand for an office, or see who has it.

use bytes::Bytes;

use super::{
    super::{
        failure::Failure,
        parse::Call,
        table::{Command, Flag, Group, Running},
    },
    contest::{self, Interruption, Tenure, failure},
    session::Session,
};
use crate::{
    client::Client,
    concurrency::{self, Line, Place, TTL_SECONDS_DEFAULT},
    pb::{
        etcdserverpb::{RangeResponse, ResponseHeader, WatchResponse},
        mvccpb::{KeyValue, event::EventType},
    },
};

const LISTEN: Flag = Flag::switch("listen", "show who is elected instead of standing for election").short('l');

pub(super) const ELECT: Command = Command {
    name: "elect",
    arguments: "<election-name> [proposal]",
    about: "Stands for election, or shows who is elected",
    details: "Stands for election with a proposal: shows key and proposal once elected and resigns when it is interrupted.\n\
              With --listen it shows who is elected, with every new proposal, until it is interrupted.",
    group: Group::Concurrency,
    flags: &[LISTEN],
    run: Some(elect),
    ..Command::EMPTY
};

fn elect(mut call: Call) -> Running {
    Box::pin(async move {
        let mut words = call.argument_bytes().into_iter();
        let (Some(name), proposal, None) = (words.next(), words.next(), words.next()) else {
            let count = "elect takes one election name argument and an optional proposal argument";
            return Err(Failure::bad_arguments(count));
        };
        let line = Line::of(&name);
        match (proposal, call.flags.switch(&LISTEN)) {
            (None, false) => Err(Failure::bad_arguments("no proposal argument but -l not set")),
            (Some(_), true) => Err(Failure::bad_arguments("proposal given but -l is set")),
            (Some(proposal), false) => campaign(&Session::open(&mut call).await?, &line, proposal.into()).await,
            (None, true) => listen(&Session::open(&mut call).await?, &line).await,
        }
    })
}

async fn campaign(session: &Session, line: &Line, proposal: Bytes) -> Result<(), Failure> {
    let client = &session.client;
    let mut tenure = Tenure::begin(session, TTL_SECONDS_DEFAULT).await?;
    let mut interruption = Interruption::begin()?;
    let (entered, _) = interruption.or(contest::enter(client, line, tenure.lease, proposal)).await?;
    let place = entered.place;
    let winning = Box::pin(async {
        let answer = contest::turn(client, line, &place).await?;
        if place.is_kept(&answer) { Ok(answer) } else { Err(failure("election: not leader")) }
    });
    let elected = match tenure.during(interruption.or(winning)).await {
        Ok(elected) => elected,
        Err(why) => {
            // Why it has failed is what counts; without this the key lasts as long as the lease.
            drop(resign(client, &place).await);
            return Err(why);
        }
    };
    session.print(&elected)?;
    tokio::select! {
        () = interruption.wait() => resign(client, &place).await,
        () = tenure.lost() => Err(failure("elect: session expired")),
    }
}

async fn resign(client: &Client, place: &Place) -> Result<(), Failure> {
    Ok(client.call(place.leave(), None).await.map(drop)?)
}

/// Shows leaders until a signal.
async fn listen(session: &Session, line: &Line) -> Result<(), Failure> {
    let mut interruption = Interruption::begin()?;
    tokio::select! {
        ended = follow(session, line) => ended,
        () = interruption.wait() => Ok(()),
    }
}

async fn follow(session: &Session, line: &Line) -> Result<(), Failure> {
    loop {
        let (header, kv) = find(&session.client, line).await?;
        let changes = concurrency::changes(kv.key.clone(), header.revision + 1);
        show(session, header, kv)?;
        let mut watcher = session.client.watcher();
        watcher.watch(changes);
        while let Some(response) = contest::news(watcher.next().await)? {
            if !show_all(session, response)? {
                break;
            }
        }
    }
}

/// Who leads now, or the first one to enter an empty line.
async fn find(client: &Client, line: &Line) -> Result<(ResponseHeader, KeyValue), Failure> {
    loop {
        let mut answer = client.call(line.first(), None).await?;
        if let Some(kv) = answer.kvs.pop() {
            return Ok((answer.header.unwrap_or_default(), kv));
        }
        let mut watcher = client.watcher();
        watcher.watch(line.entries(contest::revision(answer.header)));
        while let Some(response) = contest::news(watcher.next().await)? {
            if let Some(kv) = response.events.into_iter().find_map(|event| event.kv) {
                let header = ResponseHeader { revision: kv.mod_revision, ..response.header.unwrap_or_default() };
                return Ok((header, kv));
            }
        }
    }
}

/// Shows the proposals of a leader; false once there is another one to look for.
fn show_all(session: &Session, response: WatchResponse) -> Result<bool, Failure> {
    for event in response.events {
        let is_put = event.r#type() == EventType::Put;
        match event.kv {
            Some(kv) if is_put => show(session, response.header.unwrap_or_default(), kv)?,
            _ => return Ok(false),
        }
    }
    Ok(true)
}

fn show(session: &Session, header: ResponseHeader, kv: KeyValue) -> Result<(), Failure> {
    session.print(&RangeResponse { header: Some(header), kvs: vec![kv], ..Default::default() })
}
