"""What an unfinished message costs, and who may have how much."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import pytest

from mailrider.endpoint.intake import INLINE, NO_MEMORY, NO_SPACE, Intake, IntakeSpace, Memory

if TYPE_CHECKING:
    from pathlib import Path

BODY = b"\r\n" + b"x" * 1000 + b"\r\n"


def test_no_client_gets_more_than_it_leaves_to_the_others() -> None:
    memory = Memory(1000)
    assert memory.take(500, "a")
    assert not memory.take(1, "a")
    for number in range(9):
        assert memory.take(memory.left // 2, f"client {number}"), "there is always something for who comes next"
    memory.give_back(500, "a")
    assert memory.take(100, "a")


def test_what_is_given_back_leaves_nothing_behind() -> None:
    memory = Memory(1000)
    assert memory.take(0, "a")
    assert memory.take(10, "a")
    memory.give_back(4, "a")
    memory.give_back(0, "a")
    memory.give_back(6, "a")
    assert memory == Memory(1000)


@pytest.mark.parametrize("size", [1, 2, 100, 4095])
@pytest.mark.parametrize("head", [b"\r\n", b"X: "])
def test_small_pieces_cost_what_they_hold(size: int, head: bytes) -> None:
    intake = Intake(IntakeSpace(Memory(), Memory()), 1 << 20)
    intake.feed(head)
    pieces = [bytes([97]) * size for _ in range(20_000 // size)]
    tracemalloc.start()
    for piece in pieces:
        intake.feed(piece)
    cost, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert cost < 1.3 * sum(map(len, pieces))
    intake.finish()
    assert intake.size == len(head) + sum(map(len, pieces))
    intake.close()


def test_a_header_counts_as_often_as_it_is_kept() -> None:
    memory = Memory(100_000)
    intake = Intake(IntakeSpace(memory, Memory()), 1 << 20)
    header = b"X: y\r\n" * 1000
    intake.feed(header + BODY)
    assert 100_000 - memory.left == 2 * len(header) + len(BODY)
    intake.close()
    assert memory.left == 100_000


def test_on_disk_the_header_alone_counts_as_memory(tmp_path: Path) -> None:
    memory, disk = Memory(4_000_000), Memory(4_000_000)
    intake = Intake(IntakeSpace(memory, disk, tmp_path), 1 << 20)
    header = b"X: y\r\n" * 1000
    for piece in (header, *[BODY] * 400):
        intake.feed(piece)
    assert intake.size > INLINE
    assert 4_000_000 - memory.left == len(header)
    assert 4_000_000 - disk.left == intake.size
    intake.finish()
    content = intake.content(b"Y: z\r\n")
    assert b"".join(map(bytes, content.chunks())) == b"Y: z\r\n" + BODY * 400
    intake.close()
    assert (memory.left, disk.left) == (4_000_000, 4_000_000)


def test_a_header_that_fits_only_once_is_asked_to_come_again() -> None:
    intake = Intake(IntakeSpace(Memory(14_000), Memory()), 1 << 20)
    intake.feed(b"X: y\r\n" * 1000 + b"\r\n")
    assert intake.fault is NO_MEMORY


@pytest.mark.parametrize("disk", [0, 2000])
def test_without_room_on_disk_the_message_is_asked_to_come_again(tmp_path: Path, disk: int) -> None:
    memory, room_on_disk = Memory(10_000), Memory(disk)
    intake = Intake(IntakeSpace(memory, room_on_disk, tmp_path), 1 << 20)
    for _ in range(20):
        intake.feed(BODY)
    intake.finish()
    assert intake.fault is NO_MEMORY
    assert (memory.left, room_on_disk.left) == (10_000, disk)


def test_without_the_directory_there_is_no_space(tmp_path: Path) -> None:
    intake = Intake(IntakeSpace(Memory(), Memory(), tmp_path / "gone"), 1 << 20)
    for _ in range(300):
        intake.feed(BODY)
    assert intake.fault is NO_SPACE
