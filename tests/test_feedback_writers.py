"""Nothing acknowledged is lost or doubled: many writers at once, forms sent twice, `kill -9`, cut lines, full disks."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
from feedback_cases import filled, item, judgement
from sqlalchemy import text

from ayni.errors import AyniError, NoRoom
from ayni.feedback.store import Store, open_store

ITEMS = 40


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ayni.feedback.store", "feedback_cases", "sqlalchemy.dialects.sqlite", "psycopg"])
    return context


def work(address: str, name: str, acknowledged: Connection) -> None:
    """Judges all there is, sends every fourth form twice, and tells what was acknowledged."""
    with open_store(address) as store:
        annotator_id = store.enrol(name).id
        while (following := store.next_item(annotator_id, "week-1")) is not None:
            entry = judgement(f"{name}-{following.id}", following.id, annotator_id)
            number = store.record(entry)
            if number % 4 == 0:
                assert store.record(entry) == number
            acknowledged.send((entry.submission, number))
        acknowledged.send(None)


def whole(store: Store, acknowledged: dict[str, int], unacknowledged: int = 0) -> None:
    """All that was acknowledged is there under its id, once, and at most `unacknowledged` more."""
    assert store.check() == []
    log = {judged.entry.submission: judged.id for judged in store.log()}
    assert len(log) == len(store.log())
    assert log.items() >= acknowledged.items()
    assert len(log) - len(acknowledged) <= unacknowledged


class TestProcesses:
    def test_several_open_a_new_store_and_write_at_once(
        self, new_address: Callable[[], str], processes: ForkServerContext
    ) -> None:
        address, acknowledged = new_address(), dict[str, int]()
        started = []
        for name in ("Ann", "Bob", "Cleo"):
            ours, theirs = processes.Pipe()
            process = processes.Process(target=open_and_work, args=(address, name, theirs))
            process.start()
            theirs.close()
            started.append((process, ours))
        for process, ours in started:
            while (received := ours.recv()) is not None:
                acknowledged[received[0]] = received[1]
            process.join()
            assert process.exitcode == 0
        with open_store(address) as store:
            whole(store, acknowledged)
            progress = store.progress("week-1")
            assert progress.full
            assert progress.done + progress.beyond == len(acknowledged)

    def test_killed_at_any_moment(self, new_address: Callable[[], str], processes: ForkServerContext) -> None:
        address, acknowledged, kills = new_address(), dict[str, int](), 0
        with open_store(address) as store:
            filled(store, *(item(f"i{number}", overlap=2) for number in range(10 * ITEMS)))  # more than anybody gets to
            for patience in (7, 3, 12):
                started = []
                for name in ("Ann", "Bob"):
                    ours, theirs = processes.Pipe()
                    process = processes.Process(target=work, args=(address, name, theirs))
                    process.start()
                    theirs.close()
                    started.append((process, ours))
                for process, ours in started:
                    for _ in range(patience):
                        submission, number = ours.recv()
                        acknowledged[submission] = number
                    process.kill()
                    kills += 1
                for process, ours in started:
                    process.join()
                    assert process.exitcode == -9, "still at work"
                    acknowledged |= dict(rest(ours))
                whole(store, acknowledged, unacknowledged=kills)
            assert len(acknowledged) >= 44

    @pytest.mark.parametrize(("failpoint", "kept"), [("store-written", 0), ("store-committed", 1)])
    def test_killed_before_and_after_the_commit(
        self, new_address: Callable[[], str], processes: ForkServerContext, failpoint: str, kept: int
    ) -> None:
        address = new_address()
        with open_store(address) as store:
            filled(store, item("x"), item("y"))
            ann = store.enrol("Ann").id
            first = store.record(judgement("1", "y", ann))
            process = processes.Process(target=record_and_die, args=(address, ann, failpoint))
            process.start()
            process.join()
            assert process.exitcode == -9
            assert [judged.entry.submission for judged in store.log()] == ["1", "2"][: 1 + kept]
            assert store.check() == []
            number = store.record(judgement("2", "x", ann))
            assert number > first
            whole(store, {"1": first, "2": number})


def open_and_work(address: str, name: str, acknowledged: Connection) -> None:
    with open_store(address) as store:
        try:
            filled(store, *(item(f"i{number}", overlap=2) for number in range(ITEMS)))
        except AyniError as error:
            if "batch week-1 exists" not in str(error):  # one of us was first
                raise
    work(address, name, acknowledged)


def record_and_die(address: str, annotator_id: str, failpoint: str) -> None:
    with open_store(address) as store:
        os.environ["AYNI_FAILPOINT"] = f"kill:{failpoint}"
        store.record(judgement("2", "x", annotator_id))


def rest(pipe: Connection) -> list[tuple[str, int]]:
    """What was said before the other end died."""
    received = []
    try:
        while True:
            received.append(pipe.recv())
    except EOFError:
        return received


class TestThreads:
    def test_eight_threads_of_one_store(self, new_address: Callable[[], str]) -> None:
        def judge_all(annotator_id: str) -> dict[str, int]:
            acknowledged = {}
            while (following := store.next_item(annotator_id)) is not None:
                entry = judgement(f"{annotator_id}-{following.id}", following.id, annotator_id)
                acknowledged[entry.submission] = store.record(entry)
                assert store.record(entry) == acknowledged[entry.submission]
            return acknowledged

        with open_store(new_address()) as store:
            filled(store, *(item(f"i{number}", overlap=3) for number in range(ITEMS)))
            people = [store.enrol(f"n{number}").id for number in range(8)]
            with ThreadPoolExecutor(8) as pool:
                acknowledged = {key: number for part in pool.map(judge_all, people) for key, number in part.items()}
            whole(store, acknowledged)
            progress = store.progress("week-1")
            assert progress.done == progress.wanted == 3 * ITEMS
            assert progress.beyond <= progress.wanted // 2, "they seldom meet"

    def test_one_form_sent_by_many_threads(self, new_address: Callable[[], str]) -> None:
        with open_store(new_address()) as store:
            filled(store, item("x"))
            entry = judgement("1", "x", store.enrol("Ann").id)
            with ThreadPoolExecutor(8) as pool:
                numbers = list(pool.map(lambda _: store.record(entry), range(24)))
            whole(store, {"1": numbers[0]})
            assert len(set(numbers)) == 1

    def test_corrections_and_undos_at_once_make_one_history(self, new_address: Callable[[], str]) -> None:
        with open_store(new_address()) as store:
            filled(store, item("x"))
            ann = store.enrol("Ann").id

            def act(number: int) -> int | None:
                return (
                    store.undo(ann, f"u{number}") if number % 3 == 2 else store.record(judgement(f"{number}", "x", ann))
                )

            with ThreadPoolExecutor(8) as pool:
                acts = list(pool.map(act, range(24)))
            assert store.check() == []
            assert len(store.log()) == len([number for number in acts if number is not None])
            assert len(store.current()) <= 1

    def test_one_invitation_used_by_many(self, new_address: Callable[[], str]) -> None:
        with open_store(new_address()) as store:
            token = store.invite("Ann")

            def accept(_: int) -> bool:
                try:
                    store.accept(token)
                except AyniError:
                    return False
                return True

            with ThreadPoolExecutor(8) as pool:
                assert sum(pool.map(accept, range(16))) == 1


class TestTrouble:
    def test_a_full_disk(self, tmp_path: Path) -> None:
        with open_store(str(tmp_path / "s.db")) as store:
            filled(store, *(item(f"i{number}") for number in range(ITEMS)))
            ann = store.enrol("Ann").id
            with store._database.read() as connection:
                pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
                connection.exec_driver_sql(f"PRAGMA max_page_count={pages + 4}")
            acknowledged, failed = {}, None
            for number in range(ITEMS):
                entry = judgement(f"s{number}", f"i{number}", ann, reason="because " * 200)
                try:
                    acknowledged[entry.submission] = store.record(entry)
                except NoRoom as error:
                    if "no space left" not in str(error):
                        raise
                    failed = entry
                    break
            assert failed is not None
            whole(store, acknowledged)
            with store._database.read() as connection:
                connection.exec_driver_sql("PRAGMA max_page_count=1000000")
            acknowledged[failed.submission] = store.record(failed)
            whole(store, acknowledged)

    def test_a_store_locked_by_another_program(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("ayni.feedback.database.LOCK_WAIT", 0.05)
        path = str(tmp_path / "s.db")
        with open_store(path) as store, open_store(path) as other:
            filled(store, item("x"))
            ann = store.enrol("Ann").id
            message = r"s\.db: the database failed \(database is locked\); try again$"
            with other._database.write(), pytest.raises(AyniError, match=message):
                store.record(judgement("1", "x", ann))
            assert store.record(judgement("1", "x", ann)) == 1

    def test_lost_connections(self, new_postgresql: Callable[[], str]) -> None:
        with open_store(new_postgresql()) as store:
            filled(store, item("x"), item("y"))
            ann = store.enrol("Ann").id
            number = store.record(judgement("1", "x", ann))
            cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = pg_backend_pid()"
            with pytest.raises(AyniError, match="the database failed"), store._database.write() as connection:
                connection.execute(text(cut))
            assert store.next_item(ann).id == "y"
            assert store.record(judgement("1", "x", ann)) == number
