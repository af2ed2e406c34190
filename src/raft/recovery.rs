//! Checks what was recovered before the raft crate sees it: that crate panics on contradictions.

use ::raft::Config;

use crate::{
    pb::raftpb,
    types::{LogIndex, Term},
    wal::TermRun,
};

use super::{Options, Recovered, RecoveryError, convert, door, log::MemberLog, terms::Terms};

/// Largest batch of entries in one message to a peer, as in etcd.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;
/// Messages of entries on their way to one peer, as in etcd.
const INFLIGHT_MESSAGES_MAX: usize = 512;
/// Committed entries handed out at once: enough to fill a batch of the state machine, little enough to stay bounded.
const COMMITTED_BYTES_MAX: u64 = 4 << 20;

/// The raft crate's configuration: etcd's, and nothing etcd does not know.
pub(super) fn config(options: &Options, applied: LogIndex) -> Result<Config, RecoveryError> {
    let jitter = options.election_jitter.clone().unwrap_or(options.election_ticks..2 * options.election_ticks);
    let config = Config {
        id: options.id.0,
        election_tick: options.election_ticks,
        heartbeat_tick: options.heartbeat_ticks,
        applied: applied.0,
        max_size_per_msg: MESSAGE_BYTES_MAX,
        max_inflight_msgs: INFLIGHT_MESSAGES_MAX,
        check_quorum: true,
        pre_vote: options.pre_vote,
        min_election_tick: jitter.start,
        max_election_tick: jitter.end,
        max_committed_size_per_ready: COMMITTED_BYTES_MAX,
        ..Config::default()
    };
    config.validate().map_err(|error| RecoveryError::Options(error.to_string()))?;
    Ok(config)
}

/// Checks log and state against each other and against raft, and builds the log in memory.
pub(super) fn log(options: &Options, recovered: Recovered) -> Result<MemberLog, RecoveryError> {
    let Recovered { hard_state, conf_state, applied, start, terms, last, entries } = recovered;
    let terms = all_terms(start, &terms, last)?;
    check_positions(applied, start.0, LogIndex(terms.last()))?;
    check_entries(applied, &terms, &entries)?;
    door::check_conf_state(&conf_state).map_err(|what| RecoveryError::ConfState(what.to_owned()))?;
    let hard_state = raised(hard_state, applied, start.0, &terms);
    if hard_state.commit > terms.last() {
        let (commit, last) = (LogIndex(hard_state.commit), LogIndex(terms.last()));
        return Err(RecoveryError::CommitBeyondLog { commit, last });
    }
    Ok(MemberLog::new(
        convert::hard_state_in(hard_state),
        convert::conf_state_in(conf_state),
        applied.0,
        terms,
        entries.into_iter().map(convert::entry_in).collect(),
        options.kept_bytes_max,
    ))
}

/// The terms of all readable entries, which must be without gaps and never fall.
fn all_terms(start: (LogIndex, Term), runs: &[TermRun], last: LogIndex) -> Result<Terms, RecoveryError> {
    let mut terms = Terms::new(start);
    for (position, run) in runs.iter().enumerate() {
        let run_last = runs.get(position + 1).map_or(last.0, |next| next.first.0.saturating_sub(1));
        let what = if terms.last().checked_add(1) != Some(run.first.0) || run_last < run.first.0 {
            "there is a gap"
        } else if run.term.0 < terms.last_term().max(1) {
            "its term is lower"
        } else {
            terms.extend_to(run.first.0, run.term.0, run_last);
            continue;
        };
        return Err(RecoveryError::Entry { index: run.first, term: run.term, what });
    }
    if terms.last() == last.0 {
        return Ok(terms);
    }
    Err(RecoveryError::Entry { index: last, term: Term(0), what: "its term is unknown" })
}

fn check_positions(applied: LogIndex, start: LogIndex, last: LogIndex) -> Result<(), RecoveryError> {
    if applied > last {
        return Err(RecoveryError::LogBehindState { applied, last });
    }
    if applied < start {
        return Err(RecoveryError::StateBehindLog { applied, start });
    }
    Ok(())
}

/// Entries not yet applied must be there, in the terms the log has for them, and of types etcd's servers write.
fn check_entries(applied: LogIndex, terms: &Terms, entries: &[raftpb::Entry]) -> Result<(), RecoveryError> {
    let first = entries.first().map_or(terms.last() + 1, |entry| entry.index);
    if first > applied.0 + 1 {
        let (index, term) = (LogIndex(applied.0 + 1), Term(0));
        return Err(RecoveryError::Entry { index, term, what: "it is not applied and was not read" });
    }
    for (index, entry) in (first..).zip(entries) {
        let what = if index != entry.index || terms.at(index) != Some(entry.term) {
            "it is another than the log has there"
        } else if !matches!(entry.r#type, 0 | 1) {
            "its type is none that etcd's servers write"
        } else {
            continue;
        };
        return Err(RecoveryError::Entry { index: LogIndex(entry.index), term: Term(entry.term), what });
    }
    match entries.last() {
        Some(entry) if entry.index != terms.last() => {
            let (index, term) = (LogIndex(entry.index + 1), Term(0));
            Err(RecoveryError::Entry { index, term, what: "it was not read" })
        }
        _ => Ok(()),
    }
}

/// A commit index that was not synced is raised to what is known to be committed. A term that was torn off with the
/// hard state is the one of the last entry; no vote can have left in it, for a vote leaves after its hard state.
fn raised(hard: raftpb::HardState, applied: LogIndex, start: LogIndex, terms: &Terms) -> raftpb::HardState {
    let commit = hard.commit.max(applied.0).max(start.0);
    if hard.term < terms.last_term() {
        return raftpb::HardState { term: terms.last_term(), vote: 0, commit };
    }
    raftpb::HardState { commit, ..hard }
}

#[cfg(test)]
mod tests {
    use ::raft::Storage as _;

    use super::*;
    use crate::types::MemberId;

    fn entry(index: u64, term: u64) -> raftpb::Entry {
        raftpb::Entry { index, term, ..Default::default() }
    }

    fn recovered(applied: u64, commit: u64, entries: &[(u64, u64)]) -> Recovered {
        Recovered {
            hard_state: raftpb::HardState { term: 3, vote: 1, commit },
            conf_state: raftpb::ConfState { voters: vec![1, 2], ..Default::default() },
            applied: LogIndex(applied),
            start: (LogIndex(4), Term(1)),
            terms: vec![
                TermRun { first: LogIndex(5), term: Term(1) },
                TermRun { first: LogIndex(7), term: Term(2) },
                TermRun { first: LogIndex(10), term: Term(3) },
            ],
            last: LogIndex(10),
            entries: entries.iter().map(|(index, term)| entry(*index, *term)).collect(),
        }
    }

    fn load(recovered: Recovered) -> Result<MemberLog, RecoveryError> {
        log(&Options::new(MemberId(1)), recovered)
    }

    const ENTRIES: [(u64, u64); 3] = [(8, 2), (9, 2), (10, 3)];

    #[test]
    fn commit_is_raised_to_what_is_applied() {
        let log = load(recovered(9, 2, &ENTRIES)).unwrap();
        assert_eq!(log.initial_state().unwrap().hard_state.commit, 9);
        assert_eq!((log.first_index().unwrap(), log.last_index().unwrap()), (5, 10));
        assert_eq!((log.term(4), log.term(6), log.term(7), log.term(10)), (Ok(1), Ok(1), Ok(2), Ok(3)));
    }

    #[test]
    fn a_torn_off_hard_state_gives_up_its_term_and_vote() {
        let mut torn = recovered(9, 9, &ENTRIES);
        torn.hard_state.term = 2;
        let hard_state = load(torn).unwrap().initial_state().unwrap().hard_state;
        assert_eq!((hard_state.term, hard_state.vote), (3, 0));
    }

    #[test]
    fn state_log_and_commit_must_overlap() {
        let (applied, last) = (LogIndex(11), LogIndex(10));
        assert_eq!(load(recovered(11, 9, &ENTRIES)).unwrap_err(), RecoveryError::LogBehindState { applied, last });
        let (applied, start) = (LogIndex(3), LogIndex(4));
        assert_eq!(load(recovered(3, 9, &ENTRIES)).unwrap_err(), RecoveryError::StateBehindLog { applied, start });
        let commit = LogIndex(11);
        assert_eq!(load(recovered(9, 11, &ENTRIES)).unwrap_err(), RecoveryError::CommitBeyondLog { commit, last });
    }

    fn refused_entry(recovered: Recovered) -> (u64, &'static str) {
        match load(recovered).unwrap_err() {
            RecoveryError::Entry { index, what, .. } => (index.0, what),
            error => panic!("{error}"),
        }
    }

    #[test]
    fn entries_are_those_of_the_log_from_what_is_applied() {
        let other = "it is another than the log has there";
        for (applied, entries, expected) in [
            (9, &[(8, 2), (10, 3)][..], (10, other)),
            (9, &[(8, 2), (9, 1), (10, 3)], (9, other)),
            (9, &[(8, 2), (9, 2)], (10, "it was not read")),
            (6, &ENTRIES, (7, "it is not applied and was not read")),
        ] {
            assert_eq!(refused_entry(recovered(applied, 9, entries)), expected);
        }
    }

    #[test]
    fn terms_leave_no_gap_and_never_fall() {
        for (runs, expected) in [
            (&[(5, 1), (7, 0)][..], (7, "its term is lower")),
            (&[(6, 1)], (6, "there is a gap")),
            (&[(5, 1), (5, 2)], (5, "there is a gap")),
            (&[], (10, "its term is unknown")),
        ] {
            let terms = runs.iter().map(|(first, term)| TermRun { first: LogIndex(*first), term: Term(*term) });
            assert_eq!(refused_entry(Recovered { terms: terms.collect(), ..recovered(9, 9, &ENTRIES) }), expected);
        }
    }

    #[test]
    fn types_no_server_of_etcd_writes_are_refused() {
        let mut joint = recovered(9, 9, &ENTRIES);
        joint.entries[2].r#type = 2;
        assert_eq!(refused_entry(joint), (10, "its type is none that etcd's servers write"));
    }

    #[test]
    fn joint_configurations_are_refused() {
        let mut joint = recovered(9, 9, &ENTRIES);
        joint.conf_state.voters_outgoing = vec![1];
        assert!(matches!(load(joint).unwrap_err(), RecoveryError::ConfState(_)));
    }

    #[test]
    fn options_that_cannot_work_are_refused() {
        let options = Options { election_ticks: 1, ..Options::new(MemberId(1)) };
        assert!(matches!(config(&options, LogIndex(0)), Err(RecoveryError::Options(_))));
        config(&Options::new(MemberId(1)), LogIndex(0)).unwrap();
    }
}
