"""What every store promises, one test for each promise.

Subclass `BackendContract` in your tests, write the one method that opens your store, and let your test runner collect
it. There is no pytest in here; a test that does not apply raises `unittest.SkipTest`, which every runner understands.

    class TestMyBackend(BackendContract):
        def open_backend(self):
            return MyBackend.open(self.somewhere_that_is_empty_for_each_test)

`open_backend` is called once or more in a test and opens the same store each time. What a store cannot do is taken
from its class (`survives_reopen`, `shared`, `several`); override `damage_event` as well to have damage tested.
"""

from __future__ import annotations

import threading
from unittest import SkipTest

from dalsegno.core.errors import StoreDamaged, StoreInUse, StoreUnusable
from dalsegno.core.store import (
    Applied,
    Backend,
    DueTimer,
    Message,
    MessageKind,
    Refusal,
    Refused,
    RunRecord,
    Sent,
    Status,
)
from dalsegno.testing.queue_promises import QueuePromises
from dalsegno.testing.run_promises import (
    apply,
    begin,
    end,
    everything,
    new_run,
    raises,
    refused,
    signal,
    step,
)


class BackendContract(QueuePromises):
    """Subclass this in a file of tests, and write `open_backend`: pytest then tests a store by every promise.

    >>> from dalsegno.backends.memory import MemoryBackend
    >>> class TestMyStore(BackendContract):
    ...     def open_backend(self) -> Backend:
    ...         return MemoryBackend()
    >>> TestMyStore().test_messages_wait_in_the_order_accepted()
    """

    # --- the inbox -------------------------------------------------------------------------------------------------

    def test_messages_wait_in_the_order_accepted(self) -> None:
        """An inbox holds its messages in the order they were sent, numbered by the store over all runs."""
        with self.open_backend() as store:
            one, two = begin(store, "one"), begin(store, "two")
            sent = store.send([signal("one", b"1"), signal("two", b"2"), signal("one", b"3")], 30)
            assert sent == [(Sent.ACCEPTED, one.number), (Sent.ACCEPTED, two.number), (Sent.ACCEPTED, one.number)]
            store.send([signal("one", b"4", name="é\0", failed=True, kind="callback")], 20)
            inbox = store.inbox(one.number)
            assert [(m.payload, m.at_us) for m in inbox] == [(b"1", 30), (b"3", 30), (b"4", 20)]
            assert (inbox[2].kind, inbox[2].name, inbox[2].failed) == ("callback", "é\0", True)
            seqs = [seq for seq, _ in store.news()]
            assert seqs == sorted(set(seqs))
            assert [run for _, run in store.news()] == [one.number, two.number, one.number, one.number]
            assert store.inbox(one.number, after=inbox[0].seq, limit=1) == [inbox[1]]
            assert store.news(after=seqs[1], limit=1) == [(seqs[2], one.number)]

    def test_every_kind_of_message_is_kept(self) -> None:
        """What a message is comes back as it was sent."""
        kinds: tuple[MessageKind, ...] = (
            "signal",
            "cancel",
            "terminate",
            "pause",
            "resume",
            "child",
            "callback",
            "wake",
            "step",
        )
        with self.open_backend() as store:
            run = begin(store)
            store.send([Message(workflow_id="order-1", kind=kind) for kind in kinds], 1)
            assert tuple(message.kind for message in store.inbox(run.number)) == kinds

    def test_messages_to_nobody_are_told(self) -> None:
        """A message to no run, or to a closed one, is not stored, and its sender is told which."""
        with self.open_backend() as store:
            run = begin(store)
            assert store.send([signal("nobody"), signal(generation=run.generation + 1)], 1) == [(Sent.NOT_FOUND, 0)] * 2
            apply(store, end(run))
            assert store.send([signal()], 1) == [(Sent.CLOSED, run.number)]
            assert store.news() == []

    def test_a_generation_can_be_named(self) -> None:
        """A message goes to the newest run of an id, unless it names a generation."""
        with self.open_backend() as store:
            old = begin(store)
            (now,) = apply(store, end(old, status=Status.CONTINUED, continued=new_run())).created
            named = [signal(generation=old.generation), signal(generation=now.generation), signal()]
            expected = [(Sent.CLOSED, old.number), (Sent.ACCEPTED, now.number), (Sent.ACCEPTED, now.number)]
            assert store.send(named, 1) == expected

    def test_a_repeated_message_is_stored_once(self) -> None:
        """A deduplication key is used up by the first message with it, for its workflow id only."""
        with self.open_backend() as store:
            run, other = begin(store), begin(store, "other")
            keyed = [signal(dedup="k"), signal(payload=b"no", dedup="k"), signal("other", dedup="k"), signal(dedup="")]
            kinds = [sent for sent, _ in store.send([*keyed, signal(dedup="")], 1)]
            assert kinds == [Sent.ACCEPTED, Sent.DUPLICATE, Sent.ACCEPTED, Sent.ACCEPTED, Sent.DUPLICATE]
            assert len(store.inbox(run.number)) == 2
            assert len(store.inbox(other.number)) == 1

    def test_deduplication_holds_after_consumption_close_and_restart(self) -> None:
        """A key that was used stays used when its message is read, its run closed, and the id has a new run."""
        with self.open_backend() as store:
            run = begin(store)
            store.send([signal(dedup="k" * 2000)], 1)
            (message,) = store.inbox(run.number)
            again = [signal(dedup="k" * 2000)]
            apply(store, step(run, 1, b"e", consumed=(message.seq,)))
            assert store.send(again, 1) == [(Sent.DUPLICATE, run.number)]
            apply(store, end(run, 2))
            assert store.send(again, 1) == [(Sent.DUPLICATE, run.number)]
            store.create([new_run(on_conflict="restart_closed")])
            assert store.send(again, 1) == [(Sent.DUPLICATE, run.number)]
            assert store.news() == []

    def test_a_refused_message_uses_no_key_up(self) -> None:
        """A message that reached nobody may be sent again with its key."""
        with self.open_backend() as store:
            assert store.send([signal(dedup="k")], 1) == [(Sent.NOT_FOUND, 0)]
            run = begin(store)
            assert store.send([signal(dedup="k")], 1) == [(Sent.ACCEPTED, run.number)]

    def test_no_run_closes_over_an_unseen_message(self) -> None:
        """A closing transition is refused while a message newer than `seen` waits, of any kind but a wake."""
        with self.open_backend() as store:
            run = begin(store, owner="")
            apply(store, end(begin(store, "awake", owner="")))
            for kind in ("signal", "cancel", "child", "pause"):
                store.send([Message(workflow_id="order-1", kind=kind)], 1)
                seqs = [message.seq for message in store.inbox(run.number)]
                assert refused(store, end(run, seen=seqs[-1] - 1)) == Refused(Refusal.UNSEEN)
                assert refused(store, end(run, status=Status.CONTINUED, seen=seqs[-2])) == Refused(Refusal.UNSEEN)
            apply(store, end(run, seen=seqs[-1]))
            assert store.news() == []

    def test_only_signals_insist_on_their_target(self) -> None:
        """Other messages of a transition to a run that is gone or closed are dropped."""
        with self.open_backend() as store:
            run, closed = begin(store), begin(store, "closed")
            apply(store, end(closed))
            kinds: tuple[MessageKind, ...] = ("child", "cancel", "terminate", "callback")
            messages = [Message(workflow_id=to, kind=kind) for kind in kinds for to in ("nobody", "closed")]
            assert apply(store, step(run, 1, b"e", messages=tuple(messages))) == Applied()
            assert store.news() == []

    def test_a_message_leaves_only_its_own_inbox(self) -> None:
        """Naming a message as consumed touches no other run's, and one that is gone is no error."""
        with self.open_backend() as store:
            run, other = begin(store), begin(store, "other")
            store.send([signal("other")], 1)
            (message,) = store.inbox(other.number)
            apply(store, step(run, 1, b"e", consumed=(message.seq, 10**9)))
            assert store.inbox(other.number) == [message]
            assert store.news() == [(message.seq, other.number)]

    def test_signals_racing_a_close_are_delivered_or_told(self) -> None:
        """Whatever is accepted while a run closes is seen by it; whatever is not is answered CLOSED."""
        with self.open_backend() as store:
            run = begin(store)
            answers: list[Sent] = []

            def sender() -> None:
                for _ in range(30):
                    answers.extend(sent for sent, _ in store.send([signal()], 1))

            threads = [threading.Thread(target=sender) for _ in range(3)]
            for thread in threads:
                thread.start()
            seen, head, closed = 0, 1, False
            while not closed:
                seqs = tuple(message.seq for message in store.inbox(run.number))
                seen = max((seen, *seqs))
                (verdict,) = store.commit([end(run, head, seen=seen, consumed=seqs)])
                closed = isinstance(verdict, Applied)
                if not closed and seqs:
                    apply(store, step(run, head, *(b"signal" for _ in seqs), consumed=seqs))
                    head += len(seqs)
            taken = head - 1 + len(seqs)
            for thread in threads:
                thread.join()
            assert len(answers) == 90
            assert answers.count(Sent.ACCEPTED) == taken
            assert set(answers) <= {Sent.ACCEPTED, Sent.CLOSED}
            assert store.news() == []

    # --- timers ----------------------------------------------------------------------------------------------------

    def test_timers_come_due_in_order(self) -> None:
        """`due` lists what is not after now, earliest first, until it is cleared."""
        with self.open_backend() as store:
            run, other = begin(store), begin(store, "other")
            apply(store, step(run, 1, b"e", timers_set=((300, "c"), (-5, "a"), (2**62, "z"))))
            apply(store, step(other, 1, b"e", timers_set=((200, "3.2.1"), (200, "k" * 3000))))
            assert store.next_deadline_us() == -5
            assert store.due(199) == [DueTimer(-5, run.number, "a")]
            due = store.due(300)
            assert [timer.deadline_us for timer in due] == [-5, 200, 200, 300]
            assert store.due(300, limit=2) == due[:2]
            assert {timer.key for timer in due[1:3]} == {"3.2.1", "k" * 3000}
            apply(store, step(other, 2, b"e", timers_cleared=((200, "k" * 3000), (7, "unknown"))))
            apply(store, step(run, 2, b"e", timers_cleared=((-5, "a"),), timers_set=((250, "a"),)))
            assert [(timer.deadline_us, timer.key) for timer in store.due(299)] == [(200, "3.2.1"), (250, "a")]
            assert store.next_deadline_us() == 200

    # --- claims ----------------------------------------------------------------------------------------------------

    def test_a_claim_shuts_out_the_one_before(self) -> None:
        """Each claim raises the epoch, and a transition of an earlier epoch changes nothing."""
        with self.open_backend() as store:
            run = begin(store, owner="one")
            (claimed,) = store.claim([run.number], "two")
            assert claimed.epoch == run.epoch + 1
            assert claimed.owner == "two"
            assert store.record(run.number) == claimed
            assert refused(store, step(run, 1, b"late")) == Refused(Refusal.EPOCH)
            apply(store, step(claimed, 1, b"mine"))
            (again,) = store.claim([run.number], "two")
            assert again.epoch == claimed.epoch + 1

    def test_only_open_runs_can_be_claimed(self) -> None:
        """Runs that are closed or gone are left out; paused and blocked ones are not."""
        with self.open_backend() as store:
            run, closed, paused = begin(store), begin(store, "closed"), begin(store, "paused", status=Status.PAUSED)
            apply(store, end(closed))
            claimed = store.claim([closed.number, paused.number, 10**6, run.number, 0], "two")
            assert [record.number for record in claimed] == [paused.number, run.number]
            assert store.claim([], "two") == []

    def test_a_death_is_counted_until_a_transition_gets_through(self) -> None:
        """`deaths` grows when an active run is taken from another owner, and a transition resets it."""
        with self.open_backend() as store:
            run = begin(store, owner="one")
            deaths = [store.claim([run.number], owner)[0].deaths for owner in ("two", "three", "three", "four")]
            assert deaths == [1, 2, 2, 3]
            (claimed,) = store.claim([run.number], "four")
            apply(store, step(claimed, 1, b"e"))
            found = store.record(run.number)
            assert found is not None
            assert found.deaths == 0
            apply(store, step(claimed, 2, b"e", active=False))
            assert store.claim([run.number], "five")[0].deaths == 0

    def test_a_released_run_counts_no_death(self) -> None:
        """Giving a run back leaves it without an owner; only its owner can."""
        with self.open_backend() as store:
            run = begin(store, owner="one")
            store.release([run.number, 10**6], "two")
            assert store.record(run.number) == run
            store.release([run.number], "one")
            found = store.record(run.number)
            assert found is not None
            assert found.owner == ""
            assert found.epoch == run.epoch
            assert store.claim([run.number], "two")[0].deaths == 0

    def test_nobody_takes_the_runs_of_an_owner_with_a_lease(self) -> None:
        """A claim leaves out what another owner has whose lease is there, takes what is nobody's or its own, and takes
        the rest when that lease has ended."""
        with self._several() as store:
            store.join("one", 5_000_000, 10)
            kept, free, own = begin(store, "kept", owner="one"), begin(store, "free"), begin(store, "own", owner="two")
            asked = [kept.number, free.number, own.number]
            assert [record.number for record in store.claim(asked, "two")] == asked[1:]
            assert store.record(kept.number) == kept
            apply(store, step(kept, 1, b"mine"))
            assert store.leave("one")
            assert not store.leave("one")
            (taken,) = store.claim([kept.number], "two")
            assert (taken.owner, taken.epoch, taken.deaths) == ("two", kept.epoch + 1, 1)
            assert refused(store, step(kept, 2, b"late")) == Refused(Refusal.EPOCH)

    def test_a_lease_has_another_number_after_each_renewal(self) -> None:
        """By its number others see that it was renewed; none is given twice, also when somebody joins anew."""
        with self._several() as store:
            assert store.leases() == []
            seen: list[int] = []
            store.join("two", 7, -5)
            store.join("one", 5_000_000, 10)
            for now_us in (20, 30):
                one, two = store.leases()
                assert (one.owner, one.length_us, one.ended) == ("one", 5_000_000, False)
                assert (two.owner, two.length_us, two.renewed_us) == ("two", 7, -5)
                seen.append(one.number)
                assert store.renew("one", now_us)
                assert store.leases()[0].renewed_us == now_us
            assert store.leave("one")
            assert not store.renew("one", 40)
            store.join("one", 5_000_000, 50)
            assert len({*seen, store.leases()[0].number}) == 3

    def test_a_lease_that_was_renewed_does_not_expire(self) -> None:
        """`expire` ends a lease only if it still has the number that was seen; its owner then hears of it."""
        with self._several() as store:
            store.join("one", 5_000_000, 10)
            (seen,) = store.leases()
            assert store.renew("one", 20)
            assert not store.expire(seen)
            assert [lease.owner for lease in store.leases()] == ["one"]
            (seen,) = store.leases()
            assert store.expire(seen)
            assert not store.expire(seen)
            assert store.leases() == []
            assert not store.renew("one", 30)

    def test_claims_of_many_have_one_winner(self) -> None:
        """Of several owners with leases who claim the same runs at once, each run goes to one, and to no other."""
        with self._several() as store:
            runs = [begin(store, str(n)).number for n in range(20)]
            won: list[RunRecord] = []
            owners = [f"owner {n}" for n in range(4)]
            for owner in owners:
                store.join(owner, 5_000_000, 10)
            threads = [threading.Thread(target=lambda me=me: won.extend(store.claim(runs, me))) for me in owners]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert sorted(record.number for record in won) == runs
            assert {record.number: record for record in won} == {r.number: r for r in store.look_up(runs)}

    def test_engines_share_a_store_that_nobody_holds(self) -> None:
        """Others may join while some have joined; none may while somebody holds it, and nobody can hold it meanwhile.
        Whose handle is closed is seen to have ended."""
        with self._several() as store, self.open_backend() as second, self.open_backend() as third:
            store.join("one", 5_000_000, 10)
            second.join("two", 5_000_000, 10)
            with raises(StoreInUse) as caught:
                third.hold("three")
            assert getattr(caught[0], "owner", None) in ("one", "two")
            store.close()
            assert [(lease.owner, lease.ended) for lease in third.leases()] == [("one", True), ("two", False)]
            assert third.expire(third.leases()[0])
            assert second.leave("two")
            third.hold("three")
            with raises(StoreInUse) as caught:
                second.join("two", 5_000_000, 20)
            assert getattr(caught[0], "owner", None) == "three"

    def _several(self) -> Backend:
        store = self.open_backend()
        if not store.several:
            store.close()
            raise SkipTest("one engine at a time can work on a store of this kind")
        return store

    def test_one_store_has_one_engine(self) -> None:
        """Only one handle can hold a store; when it is closed, another can."""
        with self.open_backend() as store:
            store.hold("first")
            try:
                another = self.open_backend()
            except StoreInUse:
                assert not store.shared  # one handle at a time: nobody else gets as far as holding it
                return
            with another as second:
                with raises(StoreInUse) as caught:
                    second.hold("second")
                assert getattr(caught[0], "owner", None) == "first"
                assert len(second.create([new_run()])) == 1
                store.close()
                second.hold("second")

    # --- many at once ----------------------------------------------------------------------------------------------

    def test_one_flush_takes_all_kinds_of_work(self) -> None:
        """`write` creates, then applies, then sends, each seeing what came before it."""
        with self.open_backend() as store:
            run = begin(store)
            created, verdicts, sent = store.write(
                [new_run("fresh")],
                [step(run, 1, b"e", messages=(signal("fresh"),)), end(run, 2)],
                [signal(), signal("fresh")],
                5,
            )
            fresh = created[0].record.number
            assert verdicts == [Applied(sent=(fresh,)), Applied()]
            assert sent == [(Sent.CLOSED, run.number), (Sent.ACCEPTED, fresh)]
            assert len(store.inbox(fresh)) == 2

    def test_threads_share_a_store(self) -> None:
        """Commits from many threads are all applied, each run's in its order."""
        with self.open_backend() as store:
            runs = [begin(store, f"run-{index}") for index in range(4)]

            def work(run: RunRecord) -> None:
                for head in range(1, 26):
                    apply(store, step(run, head, b"%d" % head))

            threads = [threading.Thread(target=work, args=(run,)) for run in runs]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            for run in runs:
                assert store.history(run.number) == [b"started", *(b"%d" % head for head in range(1, 26))]

    # --- listing and keeping house ---------------------------------------------------------------------------------

    def test_runs_are_listed_newest_first(self) -> None:
        """`runs` filters by status, workflow and tags, and `before` gives the next page."""
        with self.open_backend() as store:
            made = [
                begin(
                    store, f"run-{index}", workflow="even" if index % 2 == 0 else "odd", tags={"third": str(index % 3)}
                )
                for index in range(12)
            ]
            numbers = [record.number for record in made]
            apply(store, end(made[4]))
            apply(store, step(made[7], 1, b"e", active=False))
            assert [record.number for record in store.runs()] == numbers[::-1]
            page = store.runs(limit=5)
            rest = store.runs(before=page[-1].number)
            assert [record.number for record in (*page, *rest)] == numbers[::-1]
            assert [record.number for record in store.runs(status=[Status.COMPLETED])] == [numbers[4]]
            running = [record.number for record in store.runs(status=[Status.RUNNING], limit=5)]
            assert running == numbers[:6:-1]
            both = store.runs(status=[Status.RUNNING, Status.COMPLETED], workflow="even", tags={"third": "1"})
            assert [record.workflow_id for record in both] == ["run-10", "run-4"]
            assert store.runs(tags={"third": "1", "no": "such"}) == [] == store.runs(before=numbers[0])

    def test_statistics_count_by_status(self) -> None:
        """`stats` has the number of runs, one number for each status, and sizes."""
        with self.open_backend() as store:
            apply(store, end(begin(store, "one")))
            begin(store, "two")
            stats = store.stats()
            assert (stats["runs"], stats["running"], stats["completed"], stats["failed"]) == (2, 1, 1, 0)
            assert {"events_bytes", "file_bytes", *(status.value for status in Status)} <= set(stats)

    def test_a_write_is_noticed(self) -> None:
        """`changes` differs after anything was written, and stays as it is in a calm."""
        with self.open_backend() as store:
            seen = [store.changes()]
            assert store.changes() == seen[0]
            run = begin(store)
            seen.append(store.changes())
            apply(store, step(run, 1, b"e"))
            seen.append(store.changes())
            store.send([signal()], 1)
            seen.append(store.changes())
            assert len(set(map(repr, seen))) == 4

    def test_purging_removes_closed_runs_only(self) -> None:
        """A purged run is gone with all of its own, and open runs are left as they are."""
        with self.open_backend() as store:
            run, gone = (
                begin(store),
                begin(store, "gone", published={"p": b"v"}, events=(b"e",) * 300, timers=((5, "t"),)),
            )
            store.send([signal(), signal("gone", dedup="k")], 1)
            seq = store.inbox(gone.number)[0].seq
            apply(store, end(gone, 300, seen=seq))
            before = everything(store, run.number)
            assert store.purge([run.number, gone.number, gone.number, 10**6]) == 1
            assert everything(store, gone.number) == (None, [], [], {}, [])
            assert store.find("gone") is None
            assert everything(store, run.number) == before
            assert store.stats()["runs"] == 1
            assert store.check() == []
            assert store.purge([gone.number]) == 0
            again = begin(store, "gone")
            assert again.number > gone.number
            assert store.send([signal("gone", dedup="k")], 1)[0][0] is Sent.ACCEPTED

    def test_purging_one_generation_leaves_the_others(self) -> None:
        """The other runs of an id stay, and so do the deduplication keys they accepted."""
        with self.open_backend() as store:
            old = begin(store)
            apply(store, end(old))
            (now,) = store.create([new_run(on_conflict="restart_closed")])
            store.send([signal(dedup="k")], 1)
            assert store.purge([old.number]) == 1
            assert store.find("order-1") == now.record
            assert store.find("order-1", old.generation) is None
            assert store.send([signal(dedup="k")], 1) == [(Sent.DUPLICATE, now.record.number)]

    # --- what lasts ------------------------------------------------------------------------------------------------

    def test_what_was_acknowledged_is_there_after_reopening(self) -> None:
        """Closing a store and opening it again changes nothing in it, and numbers go on where they were."""
        store = self.open_backend()
        run = begin(store, tags={"a": "b"}, timers=((5, "t"),), published={"p": b"v"})
        apply(store, end(begin(store, "closed")))
        store.send([signal(dedup="k")], 7)
        before = everything(store, run.number), store.news(), store.runs(), store.due(9)
        with self._reopened(store) as again:
            assert (everything(again, run.number), again.news(), again.runs(), again.due(9)) == before
            assert again.send([signal(dedup="k")], 1) == [(Sent.DUPLICATE, run.number)]
            assert begin(again, "next").number > run.number + 1
            assert again.check() == []

    def test_large_values_are_kept(self) -> None:
        """Events, payloads and published values of several megabytes come back whole."""
        large = bytes(range(256)) * (3 * 4096)
        with self.open_backend() as store:
            run = begin(store, events=(large, b"small"), published={"p": large})
            store.send([signal(payload=large)], 1)
            assert store.history(run.number) == [large, b"small"]
            assert store.published(run.number) == {"p": large}
            assert store.inbox(run.number)[0].payload == large
            assert store.check() == []

    def test_a_closed_store_says_so(self) -> None:
        """After `close`, which may be called twice, everything raises `StoreUnusable`."""
        store = self.open_backend()
        store.close()
        store.close()
        with raises(StoreUnusable):
            store.record(1)
        with raises(StoreUnusable):
            store.create([new_run()])

    def test_damage_is_found_and_stays_where_it_is(self) -> None:
        """A changed event is named with run and index, never handed out, and other runs go on."""
        with self.open_backend() as store:
            run, other = begin(store, events=(b"zero", b"one" * 20, b"two")), begin(store, "other")
            self.damage_event(store, run.number, 1)
            with raises(StoreDamaged) as caught:
                store.history(run.number)
            assert (getattr(caught[0], "run", None), getattr(caught[0], "event", None)) == (run.number, 1)
            assert store.history(run.number, 0, 1) == [b"zero"]
            assert store.history(other.number) == [b"started"]
            assert len(store.runs()) == 2
            assert [(problem.run, problem.event) for problem in store.check()] == [(run.run_id, 1)]
            apply(store, step(other, 1, b"e"))
