"""One at a time, the newest of a tab, and an end to what nobody wants."""

import asyncio
import threading
import time

from lens_interventions.app.worker import MOST_WAITING, Worker


async def heard(worker, slot, work):
    return [event async for event in worker.events(slot, work)]


def run(scenario):
    worker = Worker()

    async def whole():
        try:
            return await asyncio.wait_for(scenario(worker), 30)
        finally:
            worker.close()

    return asyncio.run(whole())


def test_requests_take_turns():
    running, most = [], []

    def work(emit):
        running.append(1)
        most.append(len(running))
        time.sleep(0.01)  # as long as others need to come in
        emit("done", {})
        running.pop()

    async def scenario(worker):
        return await asyncio.gather(*(heard(worker, str(i), work) for i in range(8)))

    assert run(scenario) == [[("done", {})]] * 8
    assert max(most) == 1


def test_a_waiting_request_that_nobody_wants_gives_up_its_place():
    done = threading.Event()

    async def scenario(worker):
        first = asyncio.create_task(heard(worker, "first", lambda _: done.wait(30)))
        waiting = [
            asyncio.create_task(heard(worker, str(i), lambda _: None)) for i in range(MOST_WAITING)
        ]
        await asyncio.sleep(0)
        assert worker.full
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        await asyncio.sleep(0.05)  # the event loop hears of it in its next rounds
        assert not worker.full
        done.set()
        await first

    run(scenario)


def test_a_newer_request_of_a_tab_ends_the_older():
    begun, newer = threading.Event(), threading.Event()

    def older(emit):
        begun.set()
        newer.wait(30)
        emit("view", {"of": "older"})

    async def scenario(worker):
        first = asyncio.create_task(heard(worker, "tab/read", older))
        await asyncio.to_thread(begun.wait, 30)
        second = asyncio.create_task(heard(worker, "tab/read", lambda emit: emit("view", {})))
        other = asyncio.create_task(heard(worker, "other/read", lambda emit: emit("view", {})))
        await asyncio.sleep(0)
        newer.set()
        return await asyncio.gather(first, second, other)

    assert run(scenario) == [[("cancelled", {})], [("view", {})], [("view", {})]]


def test_work_ends_when_nobody_listens():
    ended = threading.Event()

    def endless(emit):
        try:
            while True:
                emit("progress", {})
        finally:
            ended.set()

    async def scenario(worker):
        listening = worker.events("tab/read", endless)
        await anext(listening)
        await listening.aclose()
        return await asyncio.to_thread(ended.wait, 30), await heard(
            worker, "tab/read", lambda emit: emit("view", {})
        )

    assert run(scenario) == (True, [("view", {})])


def test_it_is_full_when_enough_waits_and_takes_more_later():
    go = threading.Event()

    def work(emit):
        go.wait(30)

    async def scenario(worker):
        tasks = [asyncio.create_task(heard(worker, str(i), work)) for i in range(MOST_WAITING)]
        await asyncio.sleep(0.05)
        full = worker.full
        go.set()
        await asyncio.gather(*tasks)
        await asyncio.sleep(0.05)
        return full, worker.full

    assert run(scenario) == (True, False)


def test_it_is_full_before_anybody_listens():
    go = threading.Event()

    async def scenario(worker):
        for slot in range(MOST_WAITING):
            worker.events(str(slot), lambda _emit: go.wait(30))
        full = worker.full
        go.set()
        return full

    assert run(scenario)


def test_the_newest_request_ends_the_one_before_it_after_an_older_has_ended():
    begun, go = ([threading.Event() for _ in range(2)] for _ in range(2))

    def waits(number):
        def work(emit):
            begun[number].set()
            go[number].wait(30)
            emit("view", {})

        return work

    async def scenario(worker):
        first = asyncio.create_task(heard(worker, "tab/read", waits(0)))
        await asyncio.to_thread(begun[0].wait, 30)
        second = asyncio.create_task(heard(worker, "tab/read", waits(1)))
        await asyncio.sleep(0)
        go[0].set()
        ended = await first
        await asyncio.to_thread(begun[1].wait, 30)
        third = asyncio.create_task(heard(worker, "tab/read", lambda emit: emit("view", {})))
        await asyncio.sleep(0)
        go[1].set()
        return [ended, *await asyncio.gather(second, third)]

    assert run(scenario) == [[("cancelled", {})], [("cancelled", {})], [("view", {})]]
