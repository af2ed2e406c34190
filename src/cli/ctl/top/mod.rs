//! `top`: members at work, on a terminal.
//!
//! Each member is asked by a task of its own (`asking`), so that one which does not answer holds up nobody; what the last
//! two answers of each come to is text (`frame`, and `hot` for what requests are about); the terminal shows it and hears keys (`screen`). Of each member two
//! answers are kept, however long it is watched.

mod asking;
mod frame;
mod hot;
mod screen;

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;

use super::{
    super::{
        failure::Failure,
        parse::Call,
        speak::say,
        table::{Command, Flag, Group, Running, Values},
    },
    contest::Interruption,
    endpoint, global, session,
};
use asking::Answers;
use frame::{Order, View};
use screen::{Key, Screen};

const INTERVAL: Flag = Flag::duration("interval", "2s", "time between two looks at a member, at least 250ms");
const ONCE: Flag = Flag::switch("once", "show one frame as plain text and end");
const SORT: Flag = Flag::text("sort", "endpoint", "what to order by: endpoint, size, index, puts, ranges or requests")
    .values(Values::Words(&Order::NAMES));

pub(super) const TOP: Command = Command {
    name: "top",
    is_own: true,
    arguments: "[options]",
    about: "Shows members at work: roles, sizes, rates and latencies",
    details: "Shows members at work: roles, sizes, positions, rates and latencies, until q is pressed.\n\n\
              Rates are each second's since the last look; latencies are what half and 99 in a hundred did not exceed since\n\
              then, of syncs of the log, commits of the database and requests. Below stand the prefixes of keys, up to their\n\
              last slash (of keys of the v2 API of their path, /v2/keys/...), and the clients with most requests about keys\n\
              in the last seconds, of all members together; with authentication on, users with the role of root are told. Keys: s orders by the next column, r turns\n\
              the order around, q ends. With --once, or where standard output is no terminal, one frame is shown as text.",
    group: Group::Maintenance,
    flags: &[INTERVAL, ONCE, SORT, endpoint::CLUSTER],
    run: Some(top),
    ..Command::EMPTY
};

fn top(mut call: Call) -> Running {
    Box::pin(async move {
        let order = Order::named(call.flags.text(&SORT))?;
        let interval = call.flags.duration(&INTERVAL).max(INTERVAL_MIN);
        let settings = session::settings_without_calls_logged(&mut call)?;
        global::check_limits(&call.flags)?;
        let endpoints = endpoint::endpoints(&call, &settings).await?;
        let mut view = View::new(&endpoints, order);
        let mut answers = asking::begin(&Arc::new(settings), &endpoints, interval);
        if call.flags.switch(&ONCE) || !screen::is_possible() {
            return once(&mut view, &mut answers).await;
        }
        watch(&mut view, &mut answers).await
    })
}

/// Waits until every member has answered twice, or failed, and shows that.
async fn once(view: &mut View, answers: &mut Answers) -> Result<(), Failure> {
    while !view.is_whole() {
        let Some((place, answer)) = answers.next().await else { break };
        view.take(place, answer);
    }
    Ok(view.lines().into_iter().try_for_each(|line| say(format_args!("{}\n", line.text)))?)
}

/// Shows every answer as it comes, until a key ends it.
async fn watch(view: &mut View, answers: &mut Answers) -> Result<(), Failure> {
    let mut interruption = Interruption::begin()?;
    let mut screen = Screen::begin()?;
    let (sender, mut keys) = mpsc::channel(KEYS_AHEAD);
    screen::listen(sender);
    loop {
        screen.show(&view.lines())?;
        tokio::select! {
            () = interruption.wait() => return Ok(()),
            key = keys.recv() => match key {
                Some(Key::Order) => view.order_by_next(),
                Some(Key::Reverse) => view.reverse(),
                Some(Key::Redraw) => {}
                Some(Key::End) | None => return Ok(()),
            },
            answer = answers.next() => match answer {
                Some((place, answer)) => view.take(place, answer),
                None => return Ok(()),
            }
        }
    }
}

/// A shorter time between looks would be work for the members themselves.
const INTERVAL_MIN: Duration = Duration::from_millis(250);
/// Keys heard before they can be obeyed.
const KEYS_AHEAD: usize = 8;
