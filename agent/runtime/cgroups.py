"""Limits of an attempt as a whole: memory, processors, processes. Control groups of version 2 or 1, below the own one.

A slot is one group (version 1: one in each hierarchy). A worker's process joins its slot before it parks, since joining
may take milliseconds, and the slot gets the limits of the call that comes; slots are kept for later workers, because
making and removing them costs more than a call.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

from cgroup_slot import CONTROLLERS, Slot, remove_group, write_file

_KEPT_SLOTS = 64
# Processes that were killed are gone by then, but for those that hang in the kernel.
_EMPTY_S = 1.0
_TRIES = 3


class Cgroups:
    """Makes, keeps and removes slots. Whoever removes groups that are not theirs makes this one make new ones."""

    def __init__(self, parents: dict[str, str], log: object) -> None:
        """``parents``: controller to the directory that slots are made in."""
        self._parents, self._log = parents, log
        self._free: list[Slot] = []
        self._busy: set[Slot] = set()
        self._ending: list[Slot] = []  # could not be removed yet
        self._number = 0
        self._failing = False  # no slot could be made the last time

    @property
    def parents(self) -> dict[str, str]:
        """Controller to the directory that slots are made in."""
        return self._parents

    @property
    def limits(self) -> list[str]:
        """What slots enforce, in words of the protocol."""
        return [name for name in CONTROLLERS if name in self._parents]

    @property
    def holding(self) -> list[str]:
        """What is enforced now: nothing while no slot can be made."""
        return [] if self._failing else self.limits

    def take(self, user: object = None) -> Slot | None:
        """A slot without processes and limits; None when there are none here, or none can be made.

        ``user``: gets slots that nobody else has had or will have. Whoever was given the descriptors of a slot can join
        it later, too, and would be limited with whoever has it then.
        """
        while (slot := self._pop_free(user)) is not None:
            try:
                if slot.make_ready():
                    self._busy.add(slot)
                    return slot
            except OSError:
                pass
            self._ending.append(slot)
        return self._make(user) if self._parents else None

    def _pop_free(self, user: object) -> Slot | None:
        for index in reversed(range(len(self._free))):
            if self._free[index].user is user:
                return self._free.pop(index)
        return None

    def take_bounded(self, memory_bytes: int, processes: int, user: object = None) -> Slot | None:
        """A slot with at most these limits, as ``take`` gives it; None when there can be none."""
        for _ in range(_TRIES):
            slot = self.take(user)
            if slot is None:
                return None
            try:
                slot.bound(memory_bytes, processes)
                return slot
            except OSError as error:
                # It may have been removed in this moment; the next one is new, or looked at.
                self._log.error("a control group cannot be limited", error=str(error))
                self._busy.discard(slot)
                self._ending.append(slot)
        return None

    def give_back(self, slot: Slot, ended: bool) -> None:
        """Its worker has no more use for it. ``ended``: its processes are gone for sure, which saves a look."""
        slot.doubtful = not ended
        self._busy.discard(slot)
        self._free.insert(0, slot)  # the one that is used next has had the most time to become empty
        if len(self._free) > _KEPT_SLOTS:
            self._ending.append(self._free.pop())
        self._remove_ending()

    def forget(self, user: object) -> None:
        """It has given back all that it had, and its processes are ending."""
        self._ending += [slot for slot in self._free if slot.user is user]
        self._free = [slot for slot in self._free if slot.user is not user]
        self._remove_ending()

    def _remove_ending(self) -> None:
        self._ending = [slot for slot in self._ending if not slot.remove()]

    def close(self) -> None:
        """Every process has been killed, and may be ending still."""
        until = time.monotonic() + _EMPTY_S
        for slot in [*self._free, *self._busy, *self._ending]:
            while not slot.remove() and time.monotonic() < until:
                time.sleep(0.005)
        for path in dict.fromkeys(self._parents.values()):
            remove_group(path)
        self._free, self._busy, self._ending, self._parents = [], set(), [], {}

    def _make(self, user: object) -> Slot | None:
        self._number += 1
        paths = {controller: os.path.join(path, str(self._number)) for controller, path in self._parents.items()}
        try:
            if not all(map(os.path.isdir, self._parents.values())):
                if not self._failing:
                    self._log.warn("control groups were removed by somebody else; they are made again")
                for path in dict.fromkeys(self._parents.values()):
                    make_parent(path, self._parents)
            for path in dict.fromkeys(paths.values()):
                os.mkdir(path)
            slot = Slot(paths, user)
        except OSError as error:
            for path in dict.fromkeys(paths.values()):
                remove_group(path)
            if not self._failing:
                self._failing = True
                self._log.error("a control group cannot be made; limits hold for each process alone", error=str(error))
            return None
        if self._failing:
            self._failing = False
            self._log.info("control groups can be made again")
        self._busy.add(slot)
        return slot


def make_parent(path: str, limits: Iterable[str]) -> None:
    """The directory that slots with these limits are made in. Raises OSError."""
    os.makedirs(path, exist_ok=True)
    control = os.path.join(path, "cgroup.subtree_control")
    if os.path.exists(control):  # version 2: what the launcher's group passes on to its slots
        write_file(control, " ".join(f"+{CONTROLLERS[name]}" for name in limits))
