"""The base of every stored model, and its faults in one line."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, ValidationError, model_serializer


class Frozen(BaseModel):
    """Base of every stored model: immutable, and an unknown field is an error.

    Fields named in `later` were added after the first release. At their default they are left out of everything that
    is stored or hashed, so that older files keep their bytes, their hashes and their ids.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    later: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Serialising is where stored files and hashes come from, so leaving a field out here keeps both.
        values: dict[str, Any] = handler(self)
        fields = type(self).model_fields
        defaults = {name: fields[name].get_default(call_default_factory=True) for name in self.later}
        unused = {name for name, default in defaults.items() if getattr(self, name) == default}
        return {name: value for name, value in values.items() if name not in unused}


def describe_first(error: ValidationError) -> str:
    """Describe the first fault of a pydantic error in one line: field, what is wrong, and how many more there are."""
    faults = error.errors()
    field = ".".join(str(part) for part in faults[0]["loc"])
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"field '{field}': {faults[0]['msg']}{more}"
