"""Walks through the `etcd3` package against one fresh member and prints what it saw, without anything that differs
between two fresh members. Two daemons that print the same are the same to this client."""

import sys

import etcd3


def show(label, found):
    value, meta = found
    print(label, value, meta and (meta.key, meta.create_revision, meta.mod_revision, meta.version))


def main(endpoint):
    host, port = endpoint.rsplit("/", 1)[-1].rsplit(":", 1)
    client = etcd3.client(host=host, port=int(port), timeout=20)

    print("put", client.put("greeting", "hello").header.revision)
    print("put", client.put("greeting", "again", prev_kv=True).prev_kv.value)
    show("get", client.get("greeting"))
    show("get", client.get("nothing"))
    print("once", client.put_if_not_exists("once", "1"), client.put_if_not_exists("once", "2"))
    print("replace", client.replace("once", "1", "3"), client.replace("once", "1", "4"))

    for number in range(12):
        client.put(f"list/{number:02}", "x" * (12 - number))
    for found in client.get_prefix("list/", sort_order="descend", sort_target="mod"):
        show("prefix", found)
    print("range", [meta.key for _, meta in client.get_range("list/03", "list/06")])
    print("deleted", client.delete_prefix("list/0").deleted, client.delete("nothing"))

    for _ in range(2):
        print("txn", client.transaction(
            compare=[client.transactions.version("counter") == 0, client.transactions.value("greeting") == "again"],
            success=[client.transactions.put("counter", "1"), client.transactions.get("counter")],
            failure=[client.transactions.get("greeting"), client.transactions.delete("counter")],
        )[0])

    events, cancel = client.watch_prefix("watched/", prev_kv=True)
    client.put("watched/a", "1")
    client.put("watched/a", "2")
    client.delete("watched/a")
    for _, event in zip(range(3), events):
        print(type(event).__name__, event.key, event.value, event.prev_value)
    cancel()

    lease = client.lease(60)
    client.put("leased", "x", lease=lease)
    print("lease", lease.granted_ttl, lease.remaining_ttl > 50, lease.keys)
    print("renewed", [response.TTL for response in lease.refresh()])
    lease.revoke()
    show("leased", client.get("leased"))

    with client.lock("lock", ttl=30) as lock:
        print("locked", lock.is_acquired())

    client.compact(10, physical=True)
    try:
        client.compact(10)
    except Exception as error:  # the client wraps some refusals and passes others on
        print("refused", getattr(error, "details", lambda: error)())
    status = client.status()
    print("status", status.leader.name, status.raft_index > 0, [member.name for member in client.members])
    print("alarms", list(client.list_alarms()))
    client.defragment()
    print("done")


main(sys.argv[1])
