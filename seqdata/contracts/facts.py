"""What an object holds, in one line for a prompt and as a table for a notebook."""

from abc import ABC, abstractmethod
from html import escape


class Facts(ABC):
    """Base of objects that say what they hold: `_facts` lists it, `repr` and notebooks show it.

    Example:
        >>> class Drive(Facts):
        ...     def _facts(self) -> dict[str, object]:
        ...         return {"frames": 1200, "city": "<b>"}
        >>> Drive()
        <Drive: frames 1,200, city <b>>
        >>> Drive()._repr_html_()
        '<table><caption>Drive</caption><tr><th>frames</th><td>1,200</td></tr><tr><th>city</th><td>&lt;b&gt;</td></tr></table>'
    """

    @abstractmethod
    def _facts(self) -> dict[str, object]:
        """What the object holds, by name; nothing here may read files or compute long."""

    def __repr__(self) -> str:
        """One line; an object that is not set up yet shows its class alone, as a debugger meets it."""
        try:
            facts = ", ".join(f"{name} {_text(value)}" for name, value in self._facts().items())
        except AttributeError:
            return f"<{type(self).__name__}>"
        return f"<{type(self).__name__}: {facts}>"

    def _repr_html_(self) -> str:
        """A table; names come from dumps of others, so nothing in them is markup."""
        rows = "".join(
            f"<tr><th>{escape(name)}</th><td>{escape(_text(value))}</td></tr>" for name, value in self._facts().items()
        )
        return f"<table><caption>{escape(type(self).__name__)}</caption>{rows}</table>"


def _text(value: object) -> str:
    """A value for people: whole numbers with their thousands apart."""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
