"""What every page shares: the base template, its style, and the environment that renders pages offline and escaped."""

from pathlib import Path

import jinja2

SHARED = Path(__file__).parent / "templates"


def environment(templates: Path) -> jinja2.Environment:
    """The templates of `templates` over the shared ones; every value is escaped, an unknown name is an error."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([templates, SHARED]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
