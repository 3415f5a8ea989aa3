"""The house rules: who may import whom, and that every module says what it is.

The table is ARCHITECTURE.md's; a room may always import itself, `tsm.errors` and `tsm.identifiers`.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("tsm", "api", "projections")

EVERYBODY = {"tsm.errors", "tsm.identifiers"}
MAY_IMPORT: dict[str, set[str]] = {
    "tsm.errors": set(),
    "tsm.identifiers": set(),
    "tsm.globalplatform": set(),
    "tsm.keys": {"tsm.globalplatform"},
    "tsm.channels": {"tsm.globalplatform", "tsm.keys"},
    "tsm.model": {"tsm.globalplatform"},
    "tsm.store": {"tsm.model", "tsm.keys"},
    "tsm.application": {"tsm.model", "tsm.store", "tsm.keys.vault"},
    "tsm.mas": {"tsm.globalplatform", "tsm.keys.primitives"},
    "tsm.mno": {"tsm.model"},
    "tsm.jpki": {"tsm.globalplatform", "tsm.keys"},
    "tsm.flows": {
        "tsm.application", "tsm.channels", "tsm.globalplatform", "tsm.jpki", "tsm.keys", "tsm.mas", "tsm.model",
    },
    "tsm.uicc": {"tsm.globalplatform", "tsm.channels", "tsm.keys.primitives"},
    "projections": {"tsm.model", "tsm.store", "tsm.application"},
    "api": {"tsm", "projections"},
}  # fmt: skip
MAY_HOLD_A_CARD = ("api.demo", "api.cli", "api.bench")  # all others speak to cards through a phone
DEMO_IS_FOR = ("api.demo", "api.cli", "api.bench")


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path, root: Path) -> set[str]:
    """Every module that a file imports, by whole dotted name: absolute, relative, `from package import module`."""
    module = module_name(path, root)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base]) if base else ".".join(parents)
            names = [f"{base}.{alias.name}" for alias in node.names]
            found.update(name if is_module(name, root) else base for name in names)
    return found


def is_module(name: str, root: Path) -> bool:
    path = root.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def within(module: str, room: str) -> bool:
    """Dotted boundaries: `tsm.storefront` is not within `tsm.store`."""
    return module == room or module.startswith(room + ".")


def room_of(module: str) -> str | None:
    rooms = [room for room in MAY_IMPORT if within(module, room)]
    return max(rooms, key=len) if rooms else None


def breaches(root: Path) -> list[str]:
    found = []
    for path in sorted(p for room in ROOMS for p in (root / room).rglob("*.py")):
        module = module_name(path, root)
        room = room_of(module)
        for imported in sorted(i for i in imports_of(path, root) if any(within(i, r) for r in ROOMS)):
            if not allowed(module, room, imported):
                found.append(f"{module} imports {imported}")
    return found


def allowed(module: str, room: str | None, imported: str) -> bool:
    if room is None:  # a package's own __init__ above the rooms imports nothing
        return False
    if within(imported, "tsm.uicc") and not within(module, "tsm.uicc"):
        return any(within(module, holder) for holder in MAY_HOLD_A_CARD)
    if within(imported, "api.demo") and not any(within(module, d) for d in DEMO_IS_FOR):
        return False
    return any(within(imported, other) for other in MAY_IMPORT[room] | EVERYBODY | {room})


def test_imports_point_inward() -> None:
    assert breaches(ROOT) == []


def test_the_server_process_never_loads_a_simulated_card() -> None:
    """What `tsm serve` imports, asked of a process of its own: the command line's card commands import late."""
    look = "import sys, api.cli, api.app; print([m for m in sys.modules if m.startswith(('tsm.uicc', 'api.demo'))])"
    loaded = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True, cwd=ROOT)
    assert loaded.stdout.strip() == "[]"


def test_every_module_has_a_room() -> None:
    homeless = [
        name
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        if room_of(name := module_name(path, ROOT)) is None and name != "tsm"
    ]
    assert homeless == []


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("tsm/model/card.py", "import tsm.store.recorder"),
        ("tsm/model/card.py", "from tsm.store import recorder"),
        ("tsm/model/card.py", "from ..store import recorder"),
        ("tsm/model/card.py", "from .. import application"),
        ("tsm/globalplatform/tlv.py", "from tsm.keys.primitives import kcv"),
        ("tsm/flows/session.py", "import tsm.uicc"),
        ("api/app.py", "from tsm.uicc.card import SimulatedUicc"),
        ("api/app.py", "from api.demo import story"),
        ("projections/runner.py", "from api import app"),
    ],
)
def test_the_rule_catches_a_breach(tmp_path: Path, place: str, line: str) -> None:
    """A check that cannot fail is no check."""
    for module in ("tsm/store/recorder", "tsm/application", "tsm/keys/primitives", "tsm/uicc/card", "api/demo/story"):
        (tmp_path / module).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / module).parent.joinpath("__init__.py").touch()
        (tmp_path / f"{module}.py").touch()
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).write_text(line)
    assert len(breaches(tmp_path)) == 1


def test_similar_names_are_not_the_same_room() -> None:
    assert not within("tsm.storefront", "tsm.store")
    assert not within("tsm.uicc_like", "tsm.uicc")


def test_every_module_opens_with_a_docstring() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for room in (*ROOMS, "tests")
        for path in (ROOT / room).rglob("*.py")
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert silent == []


def test_only_the_given_names_stand_at_the_top_level() -> None:
    folders = {p.name for p in ROOT.iterdir() if p.is_dir() and not p.name.startswith(".") and p.suffix != ".egg-info"}
    assert folders - {"data"} == {"tsm", "api", "projections", "tests", "docs"}
