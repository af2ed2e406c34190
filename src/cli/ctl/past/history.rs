//! `history`: what has happened to one key.

use bytes::Bytes;

use super::{
    super::{
        super::{
            failure::Failure,
            output::Occurrence,
            parse::Call,
            speak::complain,
            table::{Command, Group, Running},
        },
        session::Session,
    },
    COMPACTED, next,
};
use crate::pb::{
    etcdserverpb::{RangeRequest, RangeResponse, WatchCreateRequest},
    mvccpb::Event,
};

pub(in super::super) const HISTORY: Command = Command {
    name: "history",
    is_own: true,
    arguments: "<key>",
    about: "Shows all that has happened to a key, as far back as it is kept",
    details: "Shows every change of a key that is not compacted, the oldest first, and ends with the present one. Of what\n\
              is compacted, the last change is left unless it was a deletion.\n\n\
              The simple form has one line per change: revision, what has happened, version, lease, value. The json form\n\
              has one object per line. That older changes are compacted is told on standard error.",
    group: Group::KeyValue,
    run: Some(history),
    ..Command::EMPTY
};

fn history(mut call: Call) -> Running {
    Box::pin(async move {
        let [key] = call
            .argument_bytes()
            .try_into()
            .map_err(|_| Failure::bad_arguments("history command needs one argument as key"))?;
        let session = Session::open(&mut call).await?;
        let key = Bytes::from(key);
        let now = session.call(RangeRequest { key: key.clone(), ..RangeRequest::default() }).await?;
        let mut reader = Reader { session: &session, key, end: End::of(&now), shown: 0 };
        let mut from = 1;
        // A compaction on the way lets it begin anew, where that has left off.
        while let Some(compacted) = reader.read_from(from).await? {
            complain(format_args!("changes before revision {compacted} have been compacted"));
            let left = reader.show_left_by(compacted).await?;
            if left.is_some_and(|left| reader.end.is_last(left)) {
                break;
            }
            from = compacted;
        }
        Ok(())
    })
}

/// Where the history ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct End {
    /// The revision of the store when the command began.
    store: i64,
    /// The last change of the key, unless it is not there: then nobody knows when it was deleted.
    key: Option<i64>,
}

impl End {
    fn of(now: &RangeResponse) -> Self {
        let store = now.header.map_or(0, |header| header.revision);
        Self { store, key: now.kvs.first().map(|kv| kv.mod_revision) }
    }

    /// Whether a response leaves nothing to come. A member sends old events in portions, and each carries the revision of
    /// the store: only a response without events tells that there are none before it.
    fn is_reached(self, revision: i64, events: &[Event]) -> bool {
        let is_last = |event: &Event| self.is_last(changed_at(event));
        events.iter().any(is_last) || (events.is_empty() && revision >= self.store)
    }

    /// Whether a change at this revision leaves none to come.
    fn is_last(self, revision: i64) -> bool {
        self.key.is_some_and(|last| revision >= last)
    }
}

fn changed_at(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

struct Reader<'a> {
    session: &'a Session,
    key: Bytes,
    end: End,
    /// The last change that was shown.
    shown: i64,
}

impl Reader<'_> {
    /// Shows what a compaction at this revision has left of the changes before it, which no watch tells of any more, and
    /// says when that was; nothing if the next compaction has taken it.
    async fn show_left_by(&mut self, compacted: i64) -> Result<Option<i64>, Failure> {
        let request = RangeRequest { key: self.key.clone(), revision: compacted, ..RangeRequest::default() };
        let answer = match self.session.call(request).await {
            Err(error) if error.is_refusal(COMPACTED) => return Ok(None),
            answer => answer?,
        };
        let Some(kv) = answer.kvs.into_iter().next().filter(|kv| kv.mod_revision < compacted) else { return Ok(None) };
        let left = Event { kv: Some(kv), ..Event::default() };
        let at = changed_at(&left);
        self.show(left)?;
        Ok(Some(at))
    }

    /// Shows a change, unless it has been shown or came after the command began.
    fn show(&mut self, event: Event) -> Result<(), Failure> {
        let at = changed_at(&event);
        if at <= self.shown || at > self.end.store {
            return Ok(());
        }
        self.shown = at;
        self.session.print(&Occurrence(event))
    }

    /// Shows the history from a revision on, or tells the oldest one to begin at.
    async fn read_from(&mut self, revision: i64) -> Result<Option<i64>, Failure> {
        let mut watcher = self.session.client.watcher();
        let key = self.key.clone();
        watcher.watch(WatchCreateRequest { key, start_revision: revision, ..WatchCreateRequest::default() });
        loop {
            let delivery = next(&mut watcher, self.session.settings.command_timeout).await?;
            let response = delivery.response;
            match delivery.error {
                Some(_) if response.compact_revision > revision => return Ok(Some(response.compact_revision)),
                Some(error) => return Err(error.into()),
                None => {}
            }
            let is_reached = self.end.is_reached(response.header.map_or(0, |header| header.revision), &response.events);
            for event in response.events {
                self.show(event)?;
            }
            if is_reached || delivery.over {
                return Ok(None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::mvccpb::KeyValue;

    #[test]
    fn a_history_ends_with_the_last_change_or_with_word_of_a_later_revision() {
        let event = |revision| Event {
            kv: Some(KeyValue { mod_revision: revision, ..KeyValue::default() }),
            ..Event::default()
        };
        let there = End { store: 9, key: Some(7) };
        assert!(!there.is_reached(9, &[event(3), event(6)]), "the rest is still to come");
        assert!(there.is_reached(9, &[event(6), event(7)]));
        let gone = End { store: 9, key: None };
        assert!(!gone.is_reached(9, &[event(7)]) && !gone.is_reached(8, &[]));
        assert!(gone.is_reached(9, &[]) && there.is_reached(9, &[]));
    }
}
