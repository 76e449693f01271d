"""Whatever bytes a supplied file holds, it is refused in one line or read; nothing else is ever raised."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from estimate_cases import DIGIT, SOUND
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from sepbench.data.estimates.opening import open_estimates
from sepbench.data.estimates.png import png_bytes
from sepbench.data.estimates.problems import EstimatesError, Problems
from sepbench.errors import SepbenchError
from sepbench.protocols import TaskSpec

RNG = np.random.Generator(np.random.PCG64(0))
VALUES = RNG.random((2, 2, 8, 8)).astype(np.float32)


def _bytes(write: Callable[[BytesIO], object]) -> bytes:
    stream = BytesIO()
    write(stream)
    return stream.getvalue()


def _wav(stream: BytesIO) -> None:
    pytest.importorskip("soundfile").write(stream, 0.1 * np.sin(np.arange(400)), 8000, format="WAV", subtype="PCM_16")


KINDS: dict[str, tuple[str, TaskSpec, Callable[[], bytes]]] = {
    "npy": ("mine.npy", DIGIT, lambda: _bytes(lambda stream: np.save(stream, VALUES))),
    "npz": ("mine.npz", DIGIT, lambda: _bytes(lambda stream: np.savez_compressed(stream, values=VALUES, example_ids=np.arange(2)))),
    "safetensors": ("mine.safetensors", DIGIT, lambda: save({"values": VALUES})),
    "parquet": (
        "mine.parquet",
        DIGIT,
        lambda: _bytes(lambda stream: pq.write_table(pa.table({"example": [0, 1], "source": ["1", "2"], "path": ["a.png", "b.png"]}), stream)),
    ),
    "png of 8 bits": ("folder/0_1.png", DIGIT, lambda: _bytes(lambda stream: PIL.Image.fromarray((VALUES[0, 0] * 255).astype(np.uint8)).save(stream, "PNG"))),
    "png of 16 bits": ("folder/0_1.png", DIGIT, lambda: png_bytes((VALUES[0, :1] * 65_535).astype(np.uint16))),
    "one npy": ("folder/0_1.npy", DIGIT, lambda: _bytes(lambda stream: np.save(stream, VALUES[0, 0]))),
    "wav": ("folder/0_1.wav", SOUND, lambda: _bytes(_wav)),
}


def _read(path: Path, spec: TaskSpec) -> str:
    """Everything that evaluating does before it scores; what is wrong, in words."""
    problems = Problems()
    try:
        supplied = open_estimates(path, spec, 2, problems)
        found = supplied.inspect(2, problems, lambda done, total: None)
        problems.check(path)
        values = supplied.load(found.examples.tolist())
        assert values.shape[1:] == (2, *spec.source_shape)
    except SepbenchError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("kind", KINDS)
def test_any_bytes(kind: str, tmp_path: Path) -> None:
    name, spec, make = KINDS[kind]
    path, data = tmp_path / name, make()
    path.parent.mkdir(exist_ok=True)
    asked = path.parent if path.parent != tmp_path else path

    @settings(max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def try_it(draw: st.DataObject) -> None:
        spoilt = bytearray(data)
        for _ in range(draw.draw(st.integers(1, 4))):
            at = draw.draw(st.integers(0, len(spoilt) - 1))
            spoilt[at] = draw.draw(st.integers(0, 255))
        stop = draw.draw(st.sampled_from([len(spoilt), len(spoilt), draw.draw(st.integers(0, len(spoilt)))]))
        path.write_bytes(bytes(spoilt[:stop]))
        told = _read(asked, spec)
        assert "\n" not in told
        assert len(told) < 2_000

    path.write_bytes(data)
    told = _read(asked, spec)
    whole = kind in ("npy", "npz", "safetensors")
    assert (told == "") if whole else ("missing" in told and "unreadable" not in told and "another" not in told), told
    try_it()


def test_a_name_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "0_1.png")
    problems = Problems()
    open_estimates(tmp_path, DIGIT, 2, problems)
    with pytest.raises(EstimatesError, match=r"1 misnamed \(0_1\.png\)"):
        problems.check(tmp_path)
