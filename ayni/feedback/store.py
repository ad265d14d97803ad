"""The preference store: what people said of which answers, kept for good. `open_store` opens one or makes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from ayni.feedback import accounts, batches, check, dialogues, judgements, queue
from ayni.feedback.database import Database, open_database
from ayni.feedback.entries import AccountRole, Annotator, BatchProgress, Dialogue, Entry, Item, Judged, PreferenceBatch
from ayni.feedback.schema import items
from ayni.records import Prompt, Task

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


def open_store(address: str, *, clock: Clock = utc_now) -> Store:
    """The store at a file's path, `sqlite:///PATH` or `postgresql+psycopg://…`, brought to the newest schema.

    `clock` gives the time in UTC. Raises BadInput for what cannot be opened, is no store, or is a newer one.
    """
    return Store(open_database(address), clock)


class Store:
    """Every method is one transaction: when it returns, what it wrote is on the disk. Threads may share a store.

    All raise BadInput for ids that do not exist and for what contradicts itself, NoRoom when the disk is full, and
    AyniError when the database fails; a submission may then be sent again.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._database.close()

    # Batches and items

    def add_batch(self, batch: PreferenceBatch, items: Sequence[Item]) -> None:
        """All or nothing; BadInput when the batch's name or an item's id exists. Positions follow the order given."""
        with self._database.write() as connection:
            batches.add_batch(connection, self._clock(), batch, items)

    def batches(self) -> list[PreferenceBatch]:
        """Oldest first, closed ones too."""
        with self._database.look() as connection:
            return batches.all_batches(connection)

    def batch(self, batch_id: str) -> PreferenceBatch:
        with self._database.look() as connection:
            return batches.batch(connection, batch_id)

    def close_batch(self, batch_id: str) -> None:
        """What stands in it stays as it is: from now on it takes no judgement, correction, undo or turn."""
        with self._database.write() as connection:
            batches.close_batch(connection, self._clock(), batch_id)

    def item(self, item_id: str) -> Item:
        with self._database.look() as connection:
            return batches.item(connection, item_id)

    def items(self, batch_id: str) -> list[Item]:
        """In the batch's order, turns of dialogues too."""
        with self._database.read() as connection:
            batches.batch(connection, batch_id)
            return batches.items_where(connection, items.c.batch_id == batch_id)

    def progress(self, batch_id: str) -> BatchProgress:
        with self._database.read() as connection:
            return batches.progress(connection, batch_id)

    def done(self, batch_id: str) -> tuple[int, int]:
        """(judgements that count, judgements wanted): of `progress` what can be had quickly."""
        with self._database.look() as connection:
            return batches.done(connection, batch_id)

    def judged_by(self, batch_id: str, annotator_id: str) -> int:
        """How many of this batch's items, checks and turns of dialogues too, they have judged."""
        with self._database.look() as connection:
            return batches.judged_by(connection, batch_id, annotator_id)

    # Judging

    def next_item(self, annotator_id: str, batch_id: str | None = None) -> Item | None:
        """What the annotator should judge next; None when nothing is left for them.

        Of the items that want judgements and that they have not judged, skipped or flagged, one with the fewest. Gold
        checks come among them as often as the batch has them, at places drawn for each annotator. The same until
        somebody judges.
        """
        with self._database.read() as connection:
            return queue.next_item(connection, annotator_id, batch_id)

    def record(self, entry: Entry) -> int:
        """Appends the judgement and returns its id; sent again (same `submission`), the same id and nothing new.

        Another judgement of the same item by the same annotator corrects the one before. BadInput when it contradicts
        itself, when the submission said something else before (but for `seconds`), when the batch is closed, or when it
        changes a turn of a dialogue that later turns build on.
        """
        with self._database.write() as connection:
            return judgements.record(connection, self._clock(), entry)

    def record_all(self, entries: Iterable[Entry]) -> None:
        """As `record`, all or nothing."""
        with self._database.write() as connection:
            now = self._clock()
            for entry in entries:
                judgements.record(connection, now, entry)

    def undo(self, annotator_id: str, submission: str) -> int | None:
        """Withdraws the annotator's last standing judgement, by a new row whose id is returned; None without one.

        `judgement(id)` says which item it was. Sent again (same `submission`), it withdraws nothing more.
        BadInput when that judgement is of a dialogue's turn that later turns build on, or of a closed batch.
        """
        with self._database.write() as connection:
            return judgements.undo(connection, self._clock(), annotator_id, submission)

    def current(
        self, batch_id: str | None = None, annotator_id: str | None = None, *, texts: bool = True
    ) -> list[Judged]:
        """What stands, at most one row per (item, annotator), in the order it was said.

        Without `texts` the items come with empty answers and empty dialogues: enough to count by, and cheap however
        long the answers are.
        """
        with self._database.read() as connection:
            return judgements.current(connection, batch_id, annotator_id, texts)

    def standing(self, item_id: str, annotator_id: str) -> Judged | None:
        """What stands of this item by this annotator."""
        with self._database.read() as connection:
            return judgements.standing_of(connection, item_id, annotator_id)

    def last(self, annotator_id: str) -> Judged | None:
        """The annotator's last judgement that stands: the one that `undo` would withdraw."""
        with self._database.read() as connection:
            return judgements.last(connection, annotator_id)

    def log(self, batch_id: str | None = None, annotator_id: str | None = None) -> list[Judged]:
        """Every row ever recorded, corrected and withdrawn ones too, in order."""
        with self._database.read() as connection:
            return judgements.log(connection, batch_id, annotator_id)

    def judgement(self, number: int) -> Judged:
        """One row of the log by its id."""
        with self._database.read() as connection:
            return judgements.judgement(connection, number)

    # Dialogues that annotators write

    def start_dialogue(
        self, batch_id: str, annotator_id: str, task: Task = "helpfulness", dialogue_id: str | None = None
    ) -> Dialogue:
        """With a `dialogue_id` of the client's making, a form sent twice starts one dialogue."""
        with self._database.write() as connection:
            return dialogues.start_dialogue(connection, self._clock(), batch_id, annotator_id, task, dialogue_id)

    def next_prompt(self, dialogue_id: str, message: str) -> Prompt:
        """The dialogue so far, along the preferred answers, and the annotator's message: what the models answer.

        BadInput when the dialogue has ended or its last turn is not judged.
        """
        with self._database.read() as connection:
            return dialogues.next_prompt(connection, dialogue_id, message)

    def add_turn(
        self,
        dialogue_id: str,
        prompt: Prompt,
        answer_a: str,
        answer_b: str,
        *,
        model_a: str = "",
        model_b: str = "",
        sampling_a: dict[str, Any] | None = None,
        sampling_b: dict[str, Any] | None = None,
    ) -> Item:
        """The turn of `prompt` (from `next_prompt`), to be judged by `record`. Sent again, the first answers stay.

        A dialogue is held out as a whole, by the share that its batch's settings name.
        """
        with self._database.write() as connection:
            return dialogues.add_turn(
                connection,
                self._clock(),
                dialogue_id,
                prompt,
                answer_a,
                answer_b,
                model_a=model_a,
                model_b=model_b,
                sampling_a=sampling_a or {},
                sampling_b=sampling_b or {},
            )

    def end_dialogue(self, dialogue_id: str) -> None:
        """No more turns; the last one may still be judged."""
        with self._database.write() as connection:
            dialogues.end_dialogue(connection, self._clock(), dialogue_id)

    def dialogue(self, dialogue_id: str) -> Dialogue:
        with self._database.read() as connection:
            return dialogues.dialogue(connection, dialogue_id)

    def dialogues(self, annotator_id: str, batch_id: str | None = None) -> list[Dialogue]:
        """Oldest first, ended ones too."""
        with self._database.read() as connection:
            return dialogues.dialogues_of(connection, annotator_id, batch_id)

    # People

    def enrol(self, name: str, role: AccountRole = "annotator") -> Annotator:
        """The annotator of that name, new or not; BadInput when they have another role or are retired."""
        with self._database.write() as connection:
            return accounts.enrol(connection, self._clock(), name, role)

    def annotator(self, annotator_id: str) -> Annotator:
        with self._database.look() as connection:
            return accounts.annotator(connection, annotator_id)

    def annotators(self) -> list[Annotator]:
        """By name, retired ones too."""
        with self._database.look() as connection:
            return accounts.everyone(connection)

    def retire(self, annotator_id: str) -> None:
        """Ends what they may do; what they judged stays."""
        with self._database.write() as connection:
            accounts.retire(connection, self._clock(), annotator_id)

    def invite(self, name: str, role: AccountRole = "annotator", days: float = 7) -> str:
        """A one-use token, shown once: the store keeps its hash only. Makes the annotator where new."""
        with self._database.write() as connection:
            return accounts.invite(connection, self._clock(), name, role, days)

    def accept(self, token: str, days: float = 30) -> str:
        """Uses an invitation up: a session's token. BadInput when it was used, is out of date or never was."""
        with self._database.write() as connection:
            return accounts.accept(connection, self._clock(), token, days)

    def begin_session(self, annotator_id: str, days: float = 30) -> str:
        """A session without an invitation, for whoever is known otherwise."""
        with self._database.write() as connection:
            return accounts.begin_session(connection, self._clock(), annotator_id, days)

    def session(self, token: str) -> Annotator | None:
        """Whose session it is; None when it has ended, is out of date or never was, or they are retired."""
        with self._database.look() as connection:
            return accounts.session(connection, self._clock(), token)

    def end_session(self, token: str) -> None:
        with self._database.write() as connection:
            accounts.end_session(connection, self._clock(), token)

    def check(self) -> list[str]:
        """Problems with the store's integrity, one line each; empty when it is whole."""
        with self._database.read() as connection:
            return check.check(connection)
