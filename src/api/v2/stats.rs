//! `/v2/stats`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    extract::Request,
    http::{Method, StatusCode},
    response::Response,
};
use serde_json::{Map, Value, json};

use super::{json::rfc3339, json_body, message, wrong_method};
use crate::{
    api::Api,
    raft::Role,
    server::v2::{FollowerStats, SelfStats, StoreStats, Tally},
    types::MemberId,
};

/// How this member stands.
pub(super) async fn own(api: Arc<Api>, request: Request) -> Response {
    if let Some(refusal) = wrong_method(&request, &[Method::GET]) {
        return refusal;
    }
    let stats = api.server().v2_self_stats();
    let wall = Duration::from_nanos(u64::try_from(api.server().v2_now()).unwrap_or_default());
    json_body(StatusCode::OK, own_json(api.identity().member, &stats, wall).to_string())
}

/// What was done to this member's tree.
pub(super) async fn store(api: Arc<Api>, request: Request) -> Response {
    if let Some(refusal) = wrong_method(&request, &[Method::GET]) {
        return refusal;
    }
    let watchers = api.server().v2_watchers();
    json_body(StatusCode::OK, store_json(api.server().v2_stats(), watchers).to_string())
}

/// How followers answer; the leader alone knows.
pub(super) async fn leader(api: Arc<Api>, request: Request) -> Response {
    if let Some(refusal) = wrong_method(&request, &[Method::GET]) {
        return refusal;
    }
    match api.server().v2_leader_stats() {
        Some(followers) => json_body(StatusCode::OK, leader_json(api.identity().member, &followers).to_string()),
        None => message(StatusCode::FORBIDDEN, "not current leader"),
    }
}

fn own_json(member: MemberId, stats: &SelfStats, wall: Duration) -> Value {
    let SelfStats { name, role, leader, runs_for, led_for, sent, received } = stats;
    let leader = leader.map(|leader| leader.to_string()).unwrap_or_default();
    let since = |time: &Duration| rfc3339(i64::try_from(wall.saturating_sub(*time).as_nanos()).unwrap_or(i64::MAX));
    let mut fields = Map::new();
    let mut field = |name: &str, value: Value| drop(fields.insert(name.to_owned(), value));
    field("name", json!(name));
    field("id", json!(member.to_string()));
    field("state", json!(state_name(*role)));
    field("startTime", json!(since(runs_for)));
    field("leaderInfo", json!({ "leader": leader, "uptime": go_duration(*led_for), "startTime": since(led_for) }));
    for (flow, [count, messages, bytes]) in [
        (received, ["recvAppendRequestCnt", "recvPkgRate", "recvBandwidthRate"]),
        (sent, ["sendAppendRequestCnt", "sendPkgRate", "sendBandwidthRate"]),
    ] {
        field(count, json!(flow.messages));
        for (name, rate) in [(messages, flow.messages_rate), (bytes, flow.bytes_rate)] {
            if rate > 0.0 {
                field(name, json!(rate));
            }
        }
    }
    Value::Object(fields)
}

fn state_name(role: Role) -> &'static str {
    match role {
        Role::Follower => "StateFollower",
        Role::PreCandidate => "StatePreCandidate",
        Role::Candidate => "StateCandidate",
        Role::Leader => "StateLeader",
    }
}

fn store_json(stats: &StoreStats, watchers: usize) -> Value {
    let StoreStats { gets, sets, deletes, updates, creates, swaps, compared_deletes, .. } = stats;
    let mut fields = Map::new();
    let mut pair = |name: &str, tally: &Tally| {
        let (succeeded, failed) = tally.get();
        fields.insert(format!("{name}Success"), json!(succeeded));
        fields.insert(format!("{name}Fail"), json!(failed));
    };
    pair("gets", gets);
    pair("sets", sets);
    pair("delete", deletes);
    pair("update", updates);
    pair("create", creates);
    pair("compareAndSwap", swaps);
    pair("compareAndDelete", compared_deletes);
    fields.insert("expireCount".to_owned(), json!(stats.expired()));
    fields.insert("watchers".to_owned(), json!(watchers));
    Value::Object(fields)
}

fn leader_json(leader: MemberId, followers: &BTreeMap<MemberId, FollowerStats>) -> Value {
    let followers: Map<String, Value> =
        followers.iter().map(|(id, stats)| (id.to_string(), follower_json(stats))).collect();
    json!({ "leader": leader.to_string(), "followers": followers })
}

fn follower_json(stats: &FollowerStats) -> Value {
    let FollowerStats { current, average, standard_deviation, minimum, maximum, failed, succeeded } = stats;
    json!({
        "latency": {
            "current": current,
            "average": average,
            "standardDeviation": standard_deviation,
            "minimum": minimum,
            "maximum": maximum,
        },
        "counts": { "fail": failed, "success": succeeded },
    })
}

/// As Go shows it: hours, minutes and seconds, or a smaller unit below a second.
fn go_duration(time: Duration) -> String {
    let (seconds, nanos) = (time.as_secs(), time.subsec_nanos());
    let fraction = |digits: String| {
        let digits = digits.trim_end_matches('0');
        if digits.is_empty() { String::new() } else { format!(".{digits}") }
    };
    match (seconds, nanos) {
        (0, 0) => "0s".to_owned(),
        (0, 1..=999) => format!("{nanos}ns"),
        (0, 1_000..=999_999) => format!("{}{}µs", nanos / 1_000, fraction(format!("{:03}", nanos % 1_000))),
        (0, _) => format!("{}{}ms", nanos / 1_000_000, fraction(format!("{:06}", nanos % 1_000_000))),
        _ => {
            let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
            let before = match (hours, minutes) {
                (0, 0) => String::new(),
                (0, _) => format!("{minutes}m"),
                _ => format!("{hours}h{minutes}m"),
            };
            format!("{before}{}{}s", seconds % 60, fraction(format!("{nanos:09}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::v2::FlowStats;

    #[test]
    fn durations_are_gos() {
        for (time, shown) in [
            (Duration::ZERO, "0s"),
            (Duration::from_nanos(322_358_947), "322.358947ms"),
            (Duration::from_nanos(1_500), "1.5µs"),
            (Duration::new(659, 322_358_947), "10m59.322358947s"),
            (Duration::from_secs(3_605), "1h0m5s"),
        ] {
            assert_eq!(go_duration(time), shown);
        }
    }

    #[test]
    fn numbers_have_etcds_names_and_order() {
        let store = store_json(&StoreStats::default(), 3).to_string();
        assert!(store.starts_with(
            r#"{"getsSuccess":0,"getsFail":0,"setsSuccess":0,"setsFail":0,"deleteSuccess":0,"deleteFail":0,"#
        ));
        assert!(store.ends_with(r#""compareAndDeleteFail":0,"expireCount":0,"watchers":3}"#));
        let flow = FlowStats { messages: 2, messages_rate: 1.5, bytes_rate: 0.0 };
        let stats = SelfStats {
            name: "m".to_owned(),
            role: Role::Leader,
            leader: Some(MemberId(10)),
            runs_for: Duration::from_secs(2),
            led_for: Duration::from_secs(1),
            sent: flow,
            received: FlowStats::default(),
        };
        let own = own_json(MemberId(10), &stats, Duration::from_secs(10)).to_string();
        let expected = r#"{"name":"m","id":"a","state":"StateLeader","startTime":"1970-01-01T00:00:08Z","leaderInfo":{"leader":"a","uptime":"1s","startTime":"1970-01-01T00:00:09Z"},"recvAppendRequestCnt":0,"sendAppendRequestCnt":2,"sendPkgRate":1.5}"#;
        assert_eq!(own, expected);
        assert_eq!(leader_json(MemberId(10), &BTreeMap::new()).to_string(), r#"{"leader":"a","followers":{}}"#);
    }
}
