"""Walks through the `aetcd` package against one fresh member and prints what it saw, without anything that differs
between two fresh members. Two daemons that print the same are the same to this client."""

import asyncio
import sys

import aetcd


def show(label, kv):
    print(label, kv and (kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version))


async def watch(client):
    watch = await client.watch_prefix(b"watched/", prev_kv=True)
    await client.put(b"watched/a", b"1")
    await client.put(b"watched/a", b"2")
    await client.delete(b"watched/a")
    seen = 0
    async for event in watch:
        print(str(event.kind), event.kv.key, event.kv.value, event.prev_kv and event.prev_kv.value)
        seen += 1
        if seen == 3:
            break
    await watch.cancel()


async def lease(client):
    lease = await client.lease(60)
    await client.put(b"leased", b"x", lease=lease)
    print("lease", await lease.granted_ttl(), await lease.remaining_ttl() > 50, await lease.keys())
    await lease.refresh()
    await lease.revoke()
    show("leased", await client.get(b"leased"))
    async with client.lock(b"lock", ttl=30) as lock:
        print("locked", await lock.is_acquired())


async def main(endpoint):
    host, port = endpoint.rsplit("/", 1)[-1].rsplit(":", 1)
    async with aetcd.Client(host=host, port=int(port), timeout=20) as client:
        print("put", (await client.put(b"greeting", b"hello")).header.revision)
        show("before", (await client.put(b"greeting", b"again", prev_kv=True)).prev_kv)
        show("get", await client.get(b"greeting"))
        show("get", await client.get(b"nothing"))
        print("replace", await client.replace(b"greeting", b"again", b"new"), await client.replace(b"greeting", b"no", b""))
        for number in range(12):
            await client.put(b"list/%02d" % number, b"x" * (12 - number))
        found = await client.get_prefix(b"list/", sort_order="descend", sort_target="value")
        print("prefix", found.count, found.more)
        for kv in found:
            show("  ", kv)
        print("deleted", (await client.delete_prefix(b"list/0", prev_kv=True)).deleted)
        for _ in range(2):
            done, answers = await client.transaction(
                compare=[client.transactions.version(b"once") == 0],
                success=[client.transactions.put(b"once", b"1"), client.transactions.get(b"once")],
                failure=[client.transactions.get(b"once"), client.transactions.delete(b"once")],
            )
            print("txn", done, len(answers))
        await watch(client)
        await lease(client)
        await client.compact(10, physical=True)
        try:
            await client.compact(10)
        except Exception as error:
            print("refused", type(error).__name__, getattr(error, "details", None) or error)
        status = await client.status()
        print("status", status.raft_index > 0, [member.name async for member in client.members()])
        await client.defragment()
    print("done")


asyncio.run(main(sys.argv[1]))
