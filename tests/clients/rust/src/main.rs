//! Walks through the `etcd-client` crate against one fresh member and prints what it saw, without anything that differs
//! between two fresh members. Two daemons that print the same are the same to this client.

use etcd_client::{
    Client, CompactionOptions, Compare, CompareOp, DeleteOptions, Error, GetOptions, LockOptions, PutOptions,
    SortOrder, SortTarget, Txn, TxnOp, WatchOptions,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let endpoint = std::env::args().nth(1).expect("usage: rust-smoke ENDPOINT");
    let mut client = Client::connect([endpoint], None).await?;
    put_and_get(&mut client).await?;
    prefix(&mut client).await?;
    transaction(&mut client).await?;
    watch(&mut client).await?;
    lease(&mut client).await?;
    compaction(&mut client).await?;
    errors(&mut client).await;
    lock_and_election(&mut client).await?;
    refusal(client.member_remove(4_242).await);
    println!("done");
    Ok(())
}

async fn put_and_get(client: &mut Client) -> Result<(), Error> {
    client.put("greeting", "hello", None).await?;
    let again = client.put("greeting", "again", Some(PutOptions::new().with_prev_key())).await?;
    println!(
        "put {:?} {:?}",
        again.header().map(|header| header.revision()),
        again.prev_key().map(|kv| kv.value_str())
    );
    show(client, "greeting", None).await?;
    show(client, "greeting", Some(GetOptions::new().with_revision(2))).await?;
    show(client, "nothing", None).await
}

async fn prefix(client: &mut Client) -> Result<(), Error> {
    for number in 0..12 {
        client.put(format!("list/{number:02}"), "x".repeat(12 - number), None).await?;
    }
    show(client, "list/", Some(GetOptions::new().with_prefix().with_limit(3))).await?;
    let by_value = GetOptions::new().with_prefix().with_sort(SortTarget::Value, SortOrder::Ascend).with_limit(2);
    show(client, "list/", Some(by_value)).await?;
    show(client, "list/", Some(GetOptions::new().with_prefix().with_count_only())).await?;
    show(client, "list/09", Some(GetOptions::new().with_from_key().with_keys_only())).await?;
    let deleted = client.delete("list/0", Some(DeleteOptions::new().with_prefix().with_prev_key())).await?;
    println!("deleted {} {}", deleted.deleted(), deleted.prev_kvs().len());
    Ok(())
}

async fn transaction(client: &mut Client) -> Result<(), Error> {
    for _ in 0..2 {
        let txn = Txn::new()
            .when([Compare::version("once", CompareOp::Equal, 0)])
            .and_then([TxnOp::put("once", "1", None), TxnOp::get("once", None)])
            .or_else([TxnOp::get("once", None), TxnOp::delete("list/10", None)]);
        let response = client.txn(txn).await?;
        println!("txn {} {:?}", response.succeeded(), response.op_responses());
    }
    Ok(())
}

async fn watch(client: &mut Client) -> Result<(), Error> {
    let mut stream = client.watch("watched/", Some(WatchOptions::new().with_prefix().with_prev_key())).await?;
    client.put("watched/a", "1", None).await?;
    client.put("watched/a", "2", None).await?;
    client.delete("watched/a", None).await?;
    let (mut seen, mut id) = (0, 0);
    while seen < 3 {
        let Some(response) = stream.message().await? else { break };
        id = response.watch_id();
        println!("response {} {}", response.created(), id);
        for event in response.events() {
            println!("{:?} {:?} {:?}", event.event_type(), event.kv(), event.prev_kv());
            seen += 1;
        }
    }
    stream.request_progress().await?;
    let progress = stream.message().await?.and_then(|response| response.header().map(|header| header.revision()));
    println!("progress {progress:?}");
    stream.cancel(id).await?;
    println!("canceled {:?}", stream.message().await?.map(|response| response.canceled()));
    Ok(())
}

async fn lease(client: &mut Client) -> Result<(), Error> {
    let granted = client.lease_grant(60, None).await?;
    let id = granted.id();
    client.put("leased", "x", Some(PutOptions::new().with_lease(id))).await?;
    let left = client.lease_time_to_live(id, Some(etcd_client::LeaseTimeToLiveOptions::new().with_keys())).await?;
    println!("ttl {} {} {}", granted.ttl(), left.granted_ttl(), left.keys().len());
    let (mut keeper, mut renewals) = client.lease_keep_alive(id).await?;
    keeper.keep_alive().await?;
    println!("renewed {:?}", renewals.message().await?.map(|response| response.ttl()));
    println!("leases {}", client.leases().await?.leases().len());
    client.lease_revoke(id).await?;
    show(client, "leased", None).await
}

async fn lock_and_election(client: &mut Client) -> Result<(), Error> {
    let lease = client.lease_grant(30, None).await?.id();
    let locked = client.lock("lock", Some(LockOptions::new().with_lease(lease))).await?;
    println!("locked {}", String::from_utf8_lossy(locked.key()).starts_with("lock/"));
    client.unlock(locked.key()).await?;
    let campaign = client.campaign("office", "me", lease).await?;
    let leader = client.leader("office").await?;
    println!("leader {:?}", leader.kv().map(|kv| kv.value_str().map(str::to_owned)));
    if let Some(key) = campaign.leader() {
        client.resign(Some(etcd_client::ResignOptions::new().with_leader(key.clone()))).await?;
    }
    refusal(client.leader("vacant").await);
    client.lease_revoke(lease).await.map(drop)
}

async fn compaction(client: &mut Client) -> Result<(), Error> {
    client.compact(15, Some(CompactionOptions::new().with_physical())).await?;
    refusal(client.get("greeting", Some(GetOptions::new().with_revision(3))).await);
    refusal(client.compact(15, None).await);
    Ok(())
}

async fn errors(client: &mut Client) {
    refusal(client.put("", "no key", None).await);
    refusal(client.put("a", "b", Some(PutOptions::new().with_lease(4_242))).await);
    refusal(client.lease_revoke(4_242).await);
}

async fn show(client: &mut Client, key: &str, options: Option<GetOptions>) -> Result<(), Error> {
    let response = client.get(key, options).await?;
    println!("got {} {} {:?}", response.count(), response.more(), response.header().map(|header| header.revision()));
    for kv in response.kvs() {
        println!("  {:?}", kv);
    }
    Ok(())
}

fn refusal<T>(result: Result<T, Error>) {
    match result {
        Err(Error::GRpcStatus(status)) => println!("{:?}: {}", status.code(), status.message()),
        Err(error) => println!("{error}"),
        Ok(_) => println!("accepted"),
    }
}
