# The native core for the type checker; its functions are documented where they are bound, below native/.
from typing import Any

def __getattr__(name: str) -> Any: ...
