"""Everything a user can set: one dataclass, and the only reader of environment and files.

`option` says what an option is, `kinds` and `particular` what values it can have, `fields` lists
them all, `sources` finds their values in flags, variables and files, `dotenv` reads an env file.
"""

from tidegate.config.fields import Config
from tidegate.config.sources import Resolved, describe, resolve

__all__ = ["Config", "Resolved", "describe", "resolve"]
