//! The log file of a member gives way to another one when it is full, as etcd's option says, and what was set aside is compressed.

mod support;

use std::{fs::File, io::Read as _, time::Duration};

use flate2::read::GzDecoder;
use support::{
    daemon::Daemon,
    grpc::{Client, get},
    http,
    program::Program,
    wait_for,
};

/// Longest wait for a file that is set aside and compressed.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_full_log_file_is_set_aside_and_compressed() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let place = tempfile::tempdir().expect("a directory");
    let path = place.path().join("member.log");
    let outputs = format!("--log-outputs={}", path.display());
    let rotation = r#"--log-rotation-config-json={"maxsize": 1, "maxbackups": 1, "maxage": 1, "compress": true}"#;
    // Each call is told of.
    let flags = [&outputs, "--enable-log-rotation", rotation, "--warning-unary-request-duration=1ns"];
    let mut daemon = Daemon::prepare(place.path(), &Program::subject(), &flags);
    daemon.spawn();
    let serves = || http::get(daemon.client, "/health").is_ok().then_some(());
    assert!(wait_for(PATIENCE, serves).is_some(), "{}", daemon.log());
    let ask = |times: usize| {
        runtime.block_on(async {
            let mut client = Client::connect(&daemon.endpoint()).await.expect("it listens");
            for _ in 0..times {
                client.kv.range(get(vec![b'k'; 16_000])).await.expect("a range");
            }
        });
    };
    ask(80);
    let packed = place.path().join("member.log.1.gz");
    let is_there =
        wait_for(PATIENCE, || (packed.exists() && !place.path().join("member.log.1").exists()).then_some(()));
    assert!(is_there.is_some(), "{:?}", std::fs::read_dir(place.path()).expect("a directory").collect::<Vec<_>>());
    let mut text = String::new();
    GzDecoder::new(File::open(&packed).expect("a file")).read_to_string(&mut text).expect("it is whole");
    assert!(text.len() >= 1 << 20 && text.ends_with("}\n"), "{} bytes", text.len());
    for line in text.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
    // Goes on in a file of the old name.
    ask(1);
    let goes_on = || std::fs::read_to_string(&path).ok().filter(|text| text.contains("request stats"));
    assert!(wait_for(PATIENCE, goes_on).is_some());
}
