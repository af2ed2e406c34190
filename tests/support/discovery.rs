//! Members that are told of no cluster but where to find one, and the real etcd's v2 keys as the service.

use super::{
    cluster::{PATIENCE, ctl},
    daemon::Daemon,
    http,
    program::Program,
    wait_for,
};

/// A node that has only its own addresses and the `arguments`, not yet started.
pub fn node(program: &Program, name: &str, arguments: &[&str]) -> Daemon {
    let mut node = Daemon::prepare(&std::env::temp_dir(), program, arguments);
    // The test's own default is taken back, as an empty variable would do it.
    node.add_argument("--initial-cluster=".to_owned());
    node.add_argument(format!("--name={name}"));
    node
}

/// The etcd 3.5.1 with its v2 keys.
pub fn v2_service() -> Daemon {
    Daemon::start(&Program::etcd_3_5_1(), &["--enable-v2"])
}

/// Makes a token for `size` members at `service`; its URL.
///
/// # Panics
/// If the service does not take it.
pub fn v2_token(service: &Daemon, token: &str, size: &str) -> String {
    let path = format!("/v2/keys/discovery/{token}");
    let made = http::put_form(service.client, &format!("{path}/_config/size"), &format!("value={size}"));
    let made = made.expect("the service answers");
    assert_eq!(made.status, 201, "{}", made.body);
    format!("{}{path}", service.endpoint())
}

/// Waits until `node` has logged `text`.
///
/// # Panics
/// If it does not.
pub fn wait_log(node: &mut Daemon, text: &str) {
    let logged = wait_for(PATIENCE, || (node.log().contains(text) || node.exited().is_some()).then_some(()));
    assert!(logged.is_some() && node.log().contains(text), "no {text:?} in\n{}", node.log());
}

/// Waits until `node` serves.
///
/// # Panics
/// If it does not.
pub fn wait_ready(node: &mut Daemon) {
    assert!(node.wait_ready(PATIENCE), "a node does not become ready:\n{}", node.log());
}

/// Waits until `node` has ended and checks that its log says why.
///
/// # Panics
/// If it does not end, or says something else.
pub fn expect_refusal(node: &mut Daemon, why: &str) {
    let ended = wait_for(PATIENCE, || node.exited());
    let log = node.log();
    assert_eq!(ended.and_then(|status| status.code()), Some(1), "{log}");
    let last = log.lines().last().unwrap_or_default();
    assert!(last.contains("\"level\":\"fatal\"") && last.contains(why), "{why:?} in\n{log}");
}

/// The lines of `member list` at `node`, sorted.
///
/// # Panics
/// If it does not answer.
pub fn member_list(node: &Daemon) -> Vec<String> {
    let printed = wait_for(PATIENCE, || ctl(&node.endpoint(), &["member", "list"]).ok());
    let mut lines: Vec<String> = printed.expect("a list").lines().map(str::to_owned).collect();
    lines.sort();
    lines
}
