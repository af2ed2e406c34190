"""Walks through the `etcd` package (python-etcd, the v2 API) against one fresh member and prints what it saw, without
anything that differs between two fresh members. Two daemons that print the same are the same to this client."""

import logging
import sys
import threading
import time

import etcd
import etcd.auth

logging.disable(logging.CRITICAL)


def show(label, result):
    nodes = sorted((n.key, n.value, n.dir, n.modifiedIndex) for n in result.children)
    previous = getattr(result, "_prev_node", None)
    previous = previous and (previous.key, previous.value)
    print(label, result.action, result.key, result.value, result.dir, result.newKey, result.createdIndex,
          result.modifiedIndex, getattr(result, "etcd_index", None), nodes, previous)


def refused(label, call, *args, **kwargs):
    try:
        print(label, call(*args, **kwargs))
    except etcd.EtcdWatchTimedOut:  # its text names the port
        print(label, "timed out")
    except etcd.EtcdException as error:
        print(label, type(error).__name__, error, getattr(error, "payload", None))


def keys(client):
    show("write", client.write("/greeting", "hello"))
    show("write", client.write("/greeting", "hello again"))
    show("read", client.read("/greeting"))
    show("set", client.set("/sub/dir/key", "1"))
    show("get", client.get("/sub"))
    show("recursive", client.read("/sub", recursive=True, sorted=True))
    print("leaves", sorted(leaf.key for leaf in client.read("/", recursive=True).leaves))
    print("contains", "/greeting" in client, "/nothing" in client)
    show("quorum", client.read("/greeting", quorum=True))
    show("mkdir", client.write("/directory", None, dir=True))
    for number in range(3):
        show("append", client.write("/queue", number, append=True))
    show("queue", client.read("/queue", sorted=True))
    refused("missing", client.read, "/nothing/here")
    refused("file as directory", client.write, "/greeting/x", 1)
    refused("directory as file", client.write, "/directory", 1)
    refused("root", client.delete, "/", recursive=True)
    refused("exists", client.write, "/greeting", 1, prevExist=False)
    refused("is not there", client.write, "/nothing", 1, prevExist=True)
    show("cas", client.test_and_set("/greeting", "swapped", "hello again"))
    refused("cas", client.test_and_set, "/greeting", "swapped", "wrong")
    refused("cas index", client.write, "/greeting", "x", prevIndex=1)
    changed = client.read("/greeting")
    changed.value = "updated"
    show("update", client.update(changed))
    refused("update", client.update, changed)
    refused("not empty", client.delete, "/queue", dir=True)
    refused("not a file", client.delete, "/queue")
    refused("cad", client.delete, "/greeting", prevValue="wrong")
    show("cad", client.delete("/greeting", prevValue="updated"))
    show("delete", client.delete("/queue", recursive=True))
    show("rmdir", client.delete("/directory", dir=True))
    show("unicode", client.write("/b\u00fccher/<&>", "\u4e2d\u6587 <&> \"quoted\""))
    show("pop", client.pop("/b\u00fccher/<&>"))


def times(client):
    result = client.write("/brief", "x", ttl=2)
    print("ttl", result.ttl, result.expiration is not None)
    result = client.refresh("/brief", ttl=1)
    print("refresh", result.ttl, result.value)
    show("expired", client.watch("/brief", timeout=20))
    refused("gone", client.read, "/brief")
    result = client.write("/lasting", "x", ttl=600)
    print("lasts", result.ttl, client.read("/lasting").ttl in (599, 600))


def watches(client):
    index = client.write("/watched/a", "1").modifiedIndex
    show("past", client.watch("/watched", index=index, recursive=True, timeout=10))
    late = threading.Thread(target=lambda: (time.sleep(0.5), client.write("/watched/b", "2")))
    late.start()
    show("future", client.read("/watched", wait=True, recursive=True, timeout=10))
    late.join()
    events = client.eternal_watch("/watched", index=index, recursive=True)
    for _ in range(2):
        show("eternal", next(events))
    for number in range(1100):
        client.write("/watched/many", number)
    refused("cleared", client.watch, "/watched", index=index, timeout=10)
    refused("timeout", client.watch, "/watched", timeout=1)


def locks(client):
    lock = etcd.Lock(client, "mutex")
    print("acquired", lock.acquire(blocking=True, lock_ttl=60), lock.is_acquired)
    other = etcd.Lock(client, "mutex")
    print("busy", other.acquire(blocking=False), other.is_acquired)
    lock.release()
    print("released", lock.is_acquired)
    print("acquired", other.acquire(blocking=True, lock_ttl=60))
    other.release()


def cluster(client, host, port):
    mine = f"http://{host}:{port}"
    print("machines", [machine == mine for machine in client.machines])
    members = client.members
    print("members", [(sorted(member), member["name"], member["clientURLs"] == [mine]) for member in members.values()])
    print("leader", client.leader["id"] in members, client.leader["name"])
    stats = client.stats
    print("self", sorted(stats), stats["name"], stats["state"], stats["leaderInfo"]["leader"] in members)
    print("leader", sorted(client.leader_stats), client.leader_stats["followers"])
    print("store", sorted(client.store_stats))
    print("versions", client.version.count("."), client.cluster_version.count("."))


def users(client, connect):
    role = etcd.auth.EtcdRole(client, "app")
    role.grant("/app/*", "RW")
    role.grant("/shared", "R")
    role.write()
    role.revoke("/shared", "R")
    role.write()
    role.read()
    print("role", role.name, role.acls)
    for name, roles in (("root", []), ("worker", ["app"])):
        user = etcd.auth.EtcdUser(client, name)
        user.password = "secret"
        user.roles = roles
        try:
            user.write()
        except (etcd.EtcdException, TypeError) as error:  # the library trips over the answer to a user it has made
            print("user", name, type(error).__name__)
    print("names", [name["user"] for name in etcd.auth.EtcdUser(client, "x").names])
    print("names", [name["role"] for name in etcd.auth.EtcdRole(client, "x").names])
    refused("nobody", etcd.auth.EtcdUser(client, "nobody").read)
    auth = etcd.auth.Auth(client)
    print("enabled", auth.active)
    auth.active = True
    root, worker = connect("root", "secret"), connect("worker", "secret")
    guest = etcd.auth.EtcdRole(root, "guest")
    guest.read()
    print("guest", guest.acls)
    guest.revoke("/*", "RW")
    guest.write()
    show("worker", worker.write("/app/key", "1"))
    refused("worker", worker.write, "/other", "1")
    refused("guest", client.read, "/app/key")
    refused("wrong", connect("worker", "wrong").read, "/app/key")
    refused("worker", etcd.auth.EtcdUser(worker, "root").delete)
    auth = etcd.auth.Auth(root)
    auth.active = False
    print("enabled", auth.active)


def main(endpoint):
    host, port = endpoint.rsplit("/", 1)[-1].rsplit(":", 1)

    def connect(name=None, password=None):
        return etcd.Client(host=host, port=int(port), username=name, password=password, read_timeout=20)

    client = connect()
    keys(client)
    times(client)
    watches(client)
    locks(client)
    cluster(client, host, port)
    users(client, connect)
    print("done")


main(sys.argv[1])
