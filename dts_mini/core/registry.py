"""What is known by name: packages beside the core add to it, imported when a name is asked for that is not there."""

from importlib import import_module

ADDING: list[str] = []  # modules that add to a registry when they are imported


class Registry(dict):
    """A dict that imports whatever may add to it before it says that a name is unknown."""

    def __init__(self, **known: object) -> None:
        super().__init__(known)

    def __contains__(self, name: object) -> bool:
        if not super().__contains__(name):
            for module in ADDING:
                import_module(module)
        return super().__contains__(name)

    def __missing__(self, name: str) -> object:
        if name in self:
            return self[name]
        raise KeyError(name)
