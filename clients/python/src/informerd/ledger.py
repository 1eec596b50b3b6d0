"""What a watch has told, in numbers: enough to notice that something was not.

Marks carry the digest of what informerd holds of the scope (docs/digest.md), and what was told has to add up to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from informerd.model import Freshness

__all__ = ["Ledger", "number"]

_MASK = 0xFFFF_FFFF_FFFF_FFFF


def number(key: str, uid: str, resource_version: str) -> int:
    """What an object adds to the digest of its set; the key is ``namespace/name``, or ``name``."""
    value = 0xCBF2_9CE4_8422_2325
    for byte in f"{key}\0{uid}\0{resource_version}".encode():
        value = ((value ^ byte) * 0x100_0000_01B3) & _MASK
    value = ((value ^ (value >> 33)) * 0xFF51_AFD7_ED55_8CCD) & _MASK
    value = ((value ^ (value >> 33)) * 0xC4CE_B9FE_1A85_EC53) & _MASK
    return value ^ (value >> 33)


@dataclass
class _Account:
    """Of one namespace: what is held by name, as its uid and number, and the sum of those."""

    entries: dict[str, tuple[str, int]] = field(default_factory=dict)
    digest: int = 0


class Ledger:
    """See the module's documentation."""

    def __init__(self) -> None:
        self._held: dict[str, _Account] = {}
        self._resets: dict[tuple[str, ...], dict[str, _Account]] = {}
        # All that is held was told here: not where the watch began with a token of its caller's.
        self._whole = False
        # It did not agree the last time, and to begin anew again would be of no use.
        self._doubted = False

    def upsert(self, namespace: str, name: str, uid: str, resource_version: str) -> None:
        """An object is told."""
        of = self._parts(namespace).setdefault(namespace, _Account())
        key = f"{namespace}/{name}" if namespace else name
        now = number(key, uid, resource_version)
        _, old = of.entries.get(name, ("", 0))
        of.entries[name] = (uid, now)
        of.digest = (of.digest + now - old) & _MASK

    def delete(self, namespace: str, name: str, uid: str) -> None:
        """It is told that an object left; only the one with this uid."""
        of = self._parts(namespace).get(namespace)
        if of is not None and name in of.entries and of.entries[name][0] == uid:
            _, old = of.entries.pop(name)
            of.digest = (of.digest - old) & _MASK

    def begin(self, covers: tuple[str, ...]) -> None:
        """A reset begins."""
        self._resets.pop(covers, None)
        self._resets[covers] = {}

    def end(self, covers: tuple[str, ...]) -> None:
        """It is complete."""
        told = self._resets.pop(covers, None)
        if told is None:
            return
        self._held = {it: of for it, of in self._held.items() if covers and it not in covers}
        self._held.update(told)
        self._whole = self._whole or not covers

    def cut(self) -> None:
        """A reset that was open is void."""
        self._resets.clear()

    def forget(self) -> None:
        """Nothing is known of what is held, until it is told anew."""
        self._held, self._resets, self._whole = {}, {}, False

    def differs(self, freshness: Mapping[str, Freshness]) -> tuple[bool, bool]:
        """Whether what was told is not what informerd holds, as far as that can be said; and whether it is worth to
        begin anew for it, which it is once, until they have agreed again."""
        positions = [it for kind in freshness.values() for it in kind.positions.items() if it[1].digest is not None]
        if not self._whole or self._resets or not positions:
            return False, False
        differs = any(self._digest(namespace) != position.digest for namespace, position in positions)
        anew = differs and not self._doubted
        self._doubted = differs
        return differs, anew

    def _digest(self, namespace: str) -> int:
        """Of a shard's namespace; of everything where that is empty."""
        of: Iterable[_Account] = self._held.values()
        if namespace:
            of = [self._held[namespace]] if namespace in self._held else []
        return sum(it.digest for it in of) & _MASK

    def _parts(self, namespace: str) -> dict[str, _Account]:
        for covers in reversed(self._resets):
            if not covers or namespace in covers:
                return self._resets[covers]
        return self._held
