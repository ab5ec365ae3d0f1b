"""One verdict on a model of several outputs, from the validation of each of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tfkd._internal.types import JsonObject, JsonRecord
from tfkd.errors import InputError

if TYPE_CHECKING:
    from tfkd.validation.contract import Status
    from tfkd.validation.validator import Validation

SCHEMA = "tfkd.outputs/1"


@dataclasses.dataclass(frozen=True)
class OutputsVerdict:
    """Whether a model of several outputs may ship.

    Args:
        status: SHIP if the contract of every output holds; NO if that of one is broken; UNKNOWN otherwise, such as
            where an output was not judged.
        model: SHA-256 (hexadecimal) of the .tflite.
        validations: The validation of each output as JSON, by its name, in the order of the outputs.
        missing: Names of the outputs that were not judged.
    """

    status: Status
    model: str
    validations: Mapping[str, JsonRecord]
    missing: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether the model may ship."""
        return self.status == "SHIP"

    def to_json(self) -> JsonObject:
        """The verdict as plain JSON values."""
        return {
            "schema": SCHEMA,
            "status": self.status,
            "model": self.model,
            "missing": list(self.missing),
            "outputs": {name: dict(record) for name, record in self.validations.items()},
        }


def judge(validations: Sequence[Validation | JsonRecord]) -> OutputsVerdict:
    """The verdict on all outputs of one .tflite.

    Args:
        validations: Results of `tfkd.validate` with `output` and a contract, one for each output of the shipped model,
            or the content of their reports in JSON.

    Raises:
        InputError: One is not of a named output, two are of the same one, or they are of different files or name the
            outputs of the file differently.
    """
    records = [dict(one) if isinstance(one, Mapping) else one.to_json() for one in validations]
    for number, record in enumerate(records, 1):
        if any(record.get(key) is None for key in ("output", "outputs", "ship", "models", "verdict")):
            raise InputError(
                "verdict: each report must be the validation of a named output of the model that is to ship. Received: "
                f"as number {number} the output {record.get('output')!r} of {record.get('ship')!r}. Validate with "
                "output=NAME, on the command line --output-name NAME."
            )
    names = [record["output"] for record in records]
    hashes = sorted({record["models"][record["ship"]]["sha256"] for record in records})
    if len(set(names)) < len(names) or len(hashes) != 1:
        raise InputError(
            "verdict: there must be one report for each output, all of one file. Received: reports of "
            f"{', '.join(names) or 'no output'}, and files of the SHA-256 {', '.join(one[:12] for one in hashes)}. "
            "Validate each output of the same file once."
        )
    if len(known_names := {", ".join(record["outputs"]) for record in records}) > 1:
        raise InputError(
            "verdict: all reports must have the same names for the outputs of the file. Received: "
            f"{'; and '.join(sorted(known_names))}. Validate each output by its name in the signature of the file, or "
            "each by that in the Keras model."
        )
    by_name = {record["output"]: record for record in records}
    known = records[0]["outputs"]
    missing = tuple(name for name in known if name not in by_name)
    statuses = {record["verdict"]["status"] for record in records}
    complete = statuses == {"SHIP"} and not missing
    status: Status = "NO" if "NO" in statuses else "SHIP" if complete else "UNKNOWN"
    return OutputsVerdict(status, hashes[0], {name: by_name[name] for name in known if name in by_name}, missing)
