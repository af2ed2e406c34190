//! Reads every key under a prefix, then follows the changes from exactly there on: nothing is missed, nothing comes
//! twice, whatever happens in between. The way a program should load its configuration.
//!
//! `cargo run --example follow_config -- [PREFIX [CHANGES]]` against a daemon on port 2379, or `ENDPOINT=host:port`.

use bytes::Bytes;
use quorate::client::{Client, ClientError, Options};
use quorate::pb::etcdserverpb::{RangeRequest, WatchCreateRequest};
use quorate::pb::mvccpb::event::EventType;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), ClientError> {
    let mut arguments = std::env::args().skip(1);
    let prefix = Bytes::from(arguments.next().unwrap_or_else(|| "config/".to_owned()));
    let mut changes_left: usize = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(usize::MAX);
    let client = Client::connect(options()).await?;

    let list = RangeRequest { key: prefix.clone(), range_end: end_of(&prefix), ..Default::default() };
    let found = client.call(list, None).await?;
    for kv in &found.kvs {
        println!("{} = {}", text(&kv.key), text(&kv.value));
    }

    // The header tells the revision of the list; what happened later is what the watch has to tell.
    let start_revision = found.header.map_or(0, |header| header.revision) + 1;
    let mut watcher = client.watcher();
    let range_end = end_of(&prefix);
    watcher.watch(WatchCreateRequest { key: prefix, range_end, start_revision, ..Default::default() });
    while changes_left > 0 {
        let delivery = watcher.next().await;
        for event in delivery.response.events {
            let kv = event.kv.unwrap_or_default();
            match EventType::try_from(event.r#type) {
                Ok(EventType::Delete) => println!("{} is gone", text(&kv.key)),
                _ => println!("{} = {}", text(&kv.key), text(&kv.value)),
            }
            changes_left = changes_left.saturating_sub(1);
        }
        if delivery.over {
            return delivery.error.map_or(Ok(()), Err);
        }
    }
    Ok(())
}

fn options() -> Options {
    let endpoint = std::env::var_os("ENDPOINT").and_then(|endpoint| endpoint.into_string().ok());
    Options { endpoints: vec![endpoint.unwrap_or_else(|| "127.0.0.1:2379".to_owned())], ..Options::default() }
}

/// The end of the interval of keys that begin with `prefix`: the prefix with its last byte raised.
fn end_of(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return end.into();
        }
    }
    Bytes::from_static(b"\0")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
