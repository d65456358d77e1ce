"""The two sides of a comparison: what each is in git, its own build, and which of its code an implementation rests on.

Of a side only ``impls`` is used. It is built once by the side's own build system, with this interpreter and its packages,
into ``ULPROOF_CACHE/builds`` (default ``~/.cache/ulproof``) by content: the working tree, dirty or not, is a git tree as a
commit's is. Where the native sources, the compiler and the flags are those of an earlier build, its extensions are taken.

Both sides get two flags: functions begin on a cache line, so that one which did not change lies in its lines as it did
before, whatever grew in front of it; and no path of the build gets into a binary.
"""

from __future__ import annotations

import ast
import fcntl
import functools
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

NATIVE = (".cpp", ".cc", ".c", ".h", ".hpp", ".cmake")
NOT_INSTALLED = shutil.ignore_patterns("*.cpp", "*.h", "CMakeLists.txt", "__pycache__", "*.so")
KEPT = 16  # builds in the cache
PURE = ("reference", "numpy", "triton", "cuda")  # backends that load no extension
WITHOUT_DATA = ("reference", "numpy", "simd", "triton")  # backends that read no file but Python's and extensions
# Ends the group of processes that builds when the process that asked for it is gone, however it went.
WATCHER = "import os, signal, sys; os.read(0, 1); os.killpg(int(sys.argv[1]), signal.SIGKILL)"

Say = Callable[[str], None]


class BuildError(Exception):
    """A side that can't be built. The message names the side and the reason, and where the log lies."""


@dataclass(frozen=True)
class Source:
    """One side in git. ``commit`` is ``None`` for a working tree that differs from its HEAD; ``tree`` is a git tree."""

    name: str
    commit: str | None
    tree: str
    root: Path
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    def git(self, *command: str) -> str:
        return git(self.root, *command, environment=self.environment)

    @property
    def label(self) -> str:
        return self.name + (f" ({self.commit[:10]})" if self.commit and not self.commit.startswith(self.name) else "")


def git(root: Path, *command: str, environment: Mapping[str, str] | None = None) -> str:
    """What git prints. Raises ``ValueError`` with git's own words."""
    done = subprocess.run(
        ["git", "-C", root, *command], capture_output=True, text=True, env={**os.environ, **(environment or {})}
    )
    if done.returncode:
        raise ValueError(f"git {command[0]}: {' '.join(done.stderr.split()) or f'exit code {done.returncode}'}")
    return done.stdout.strip()


def checkout(folder: Path | None = None) -> Path:
    """The root of the git checkout that holds ``folder``, by default the current one."""
    try:
        return Path(git(folder or Path(), "rev-parse", "--show-toplevel"))
    except (ValueError, FileNotFoundError):
        raise ValueError(f"{(folder or Path()).resolve()}: not in a git checkout; compare runs in one of ulproof") from None


def sources(root: Path, spec: str, workspace: Path) -> tuple[Source, Source]:
    """Base and head from ``BASE..HEAD``, or ``BASE`` against the working tree. Raises ``ValueError`` for what git doesn't know.

    Files that git ignores are no part of the working tree. Its objects go to ``workspace``, none into the repository.
    """
    base, dots, head = spec.partition("..")
    if not base or head.startswith(".") or (dots and not head):
        raise ValueError(f"{spec!r}: give BASE or BASE..HEAD, commits, branches or tags")
    return commit(root, base), commit(root, head) if dots else working_tree(root, workspace)


def commit(root: Path, name: str) -> Source:
    try:
        found = git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    except ValueError:
        shallow = git(root, "rev-parse", "--is-shallow-repository") == "true"
        hint = "this clone is shallow: `git fetch --unshallow` brings the rest" if shallow else "`git log --all` shows them"
        raise ValueError(f"{name!r}: no commit, branch or tag here; {hint}") from None
    return Source(name, found, git(root, "rev-parse", f"{found}^{{tree}}"), root)


def working_tree(root: Path, workspace: Path) -> Source:
    """The working tree as a git tree, by way of an index and an object store of its own."""
    objects = workspace / "objects"
    objects.mkdir(parents=True, exist_ok=True)
    own = {
        "GIT_INDEX_FILE": str(workspace / "index"),
        "GIT_OBJECT_DIRECTORY": str(objects),
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(root / git(root, "rev-parse", "--git-path", "objects")),
    }
    index = root / git(root, "rev-parse", "--git-path", "index")
    if index.exists():
        shutil.copyfile(index, own["GIT_INDEX_FILE"])
    git(root, "add", "--all", environment=own)
    tree = git(root, "write-tree", environment=own)
    head = git(root, "rev-parse", "HEAD")
    clean = tree == git(root, "rev-parse", "HEAD^{tree}")
    return Source("working tree", head if clean else None, tree, root, own)


def cache() -> Path:
    from ulproof.impls._backends.cubin import cache_folder

    return cache_folder() / "builds"


@contextmanager
def locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold a lock file; it goes free with the process, however that ends. ``waiting`` is called when another holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def toolchain() -> str:
    """A digest of what a build depends on besides its sources."""
    compiler = os.environ.get("CXX") or shutil.which("c++") or ""
    said = ""
    if compiler:
        with suppress(OSError):
            said = subprocess.run([*compiler.split(), "--version"], capture_output=True, text=True).stdout
    versions = []
    for name in ("numpy", "nanobind", "scikit-build-core"):
        with suppress(PackageNotFoundError):
            versions.append((name, version(name)))
    names = ("CXX", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "CMAKE_ARGS", "CMAKE_PREFIX_PATH", "SKBUILD_CMAKE_ARGS")
    settings = [(name, os.environ.get(name)) for name in names]
    highway = [Path(folder, "hwy/base.h") for folder in ("/usr/include", "/usr/local/include")]
    headers = [hashlib.sha256(path.read_bytes()).hexdigest() for path in highway if path.exists()]
    return digest(said, versions, settings, headers, platform.machine(), sysconfig.get_config_var("SOABI"), simd())


def simd() -> bool:
    """Whether the ruler's own build has native kernels: the sides are then built with theirs."""
    import ulproof.impls

    families = [path.parent.name for path in Path(ulproof.impls.__file__).parent.glob("*/simd.py")]
    return any(importlib.util.find_spec(f"ulproof.impls.{family}._simd") for family in families)


def natives(folder: Path) -> str:
    """A digest of a checkout's native sources and of what configures their build."""
    files = [path for path in (folder / "impls").rglob("*") if path.suffix in NATIVE or path.name == "CMakeLists.txt"]
    settings = tomllib.loads((folder / "pyproject.toml").read_text())
    configured = [settings.get("build-system"), settings.get("tool", {}).get("scikit-build")]
    return digest(contents(folder, files), configured)


def contents(folder: Path, files: Iterable[Path]) -> list[tuple[str, str]]:
    """Each file's path below ``folder``, with a digest of what it holds."""
    return [(str(path.relative_to(folder)), _hash(path)) for path in sorted(files)]


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def build(source: Source, say: Say = lambda text: None, apart: str = "") -> Path:
    """The folder of a side's built ``impls`` package, from the cache where it was built before. Raises ``BuildError``.

    ``apart`` asks for a build that shares nothing with any other of another name, native code included.
    """
    try:
        parts = [source.git("rev-parse", f"{source.tree}:{name}") for name in ("impls", "pyproject.toml")]
    except ValueError:
        raise BuildError(f"{source.label}: not built: it has no impls/ or no pyproject.toml") from None
    tools = toolchain()
    place = cache() / digest(parts, tools, apart)
    with locked(place.with_suffix(".lock"), lambda: say(f"{source.label}: another comparison builds it; waiting")):
        if not (place / "impls").exists():
            _build(source, place, tools, say, apart)
        os.utime(place)
    _prune(cache())
    return place / "impls"


def _build(source: Source, place: Path, tools: str, say: Say, apart: str) -> None:
    draft = place.with_suffix(".part")
    shutil.rmtree(draft, ignore_errors=True)
    checked_out, prefix = draft / "source", draft / "prefix"
    checked_out.mkdir(parents=True)
    try:
        archive = subprocess.run(
            ["git", "-C", source.root, "archive", source.tree],
            capture_output=True,
            env={**os.environ, **source.environment},
        )
        unpacked = subprocess.run(["tar", "-x", "-C", checked_out], input=archive.stdout, capture_output=True)
        if archive.returncode or unpacked.returncode:
            raise BuildError(f"{source.label}: not built: {(archive.stderr + unpacked.stderr).decode().strip()}")
        try:
            native = cache() / "natives" / digest(natives(checked_out), tools)
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise BuildError(f"{source.label}: not built: pyproject.toml: {error}") from None
        package = prefix / "ulproof" / "impls"
        if native.exists() and not apart:
            shutil.copytree(checked_out / "impls", package, ignore=NOT_INSTALLED)
            shutil.copytree(native, package, dirs_exist_ok=True)
            os.utime(native)
        else:
            say(f"{source.label}: building; about a minute with native kernels, then kept")
            _install(source, checked_out, prefix, draft, place)
            if not apart:
                _keep(package, native)
        place.mkdir(exist_ok=True)
        package.rename(place / "impls")
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _keep(package: Path, native: Path) -> None:
    """Extensions of a build, for builds of the same native sources."""
    draft = native.with_suffix(f".{os.getpid()}")
    draft.mkdir(parents=True)
    for path in package.rglob("*.so"):
        to = draft / path.relative_to(package)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, to)
    with suppress(OSError):  # another build of the same was faster
        draft.rename(native)
    shutil.rmtree(draft, ignore_errors=True)


def _install(source: Source, checked_out: Path, prefix: Path, draft: Path, place: Path) -> None:
    flags = f"-falign-functions=64 -ffile-prefix-map={checked_out}=."
    settings = {
        **os.environ,
        "CXXFLAGS": f"{os.environ.get('CXXFLAGS', '')} {flags}".strip(),
        "PIP_ROOT_USER_ACTION": "ignore",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    command = [sys.executable, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "--no-index", "--no-input"]
    command += ["--no-compile", "--target", str(prefix), "-C", f"build-dir={draft / 'cmake'}"]
    if not simd():
        command += ["-C", "cmake.define.ULPROOF_SIMD=OFF"]
    log = place.with_suffix(".log")
    with open(log, "wb") as out:
        code = _in_a_group([*command, str(checked_out)], settings, out)
    if code or not (prefix / "ulproof" / "impls" / "__init__.py").exists():
        tail = log.read_text(errors="replace").rstrip().splitlines()
        wrong = [line for line in tail if re.search(r"error: |CMake Error", line)] or tail
        shown = "\n".join(tail[-20:])
        raise BuildError(f"{source.label}: does not build: {wrong[0].strip()[:300] if wrong else code}; log: {log}\n{shown}")


def _in_a_group(command: list[str], settings: Mapping[str, str], out: object) -> int:
    """Run a build; nothing of it outlives this process, nor an exception here."""
    process = subprocess.Popen(
        command, env=dict(settings), stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
    )  # type: ignore[call-overload]
    watcher = subprocess.Popen([sys.executable, "-S", "-c", WATCHER, str(process.pid)], stdin=subprocess.PIPE)
    try:
        return process.wait()
    finally:
        watcher.kill()
        watcher.communicate()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _prune(folder: Path) -> None:
    """Leave the builds that were used last."""
    for kind in (folder, folder / "natives"):
        if not kind.exists():
            continue
        found = [path for path in kind.iterdir() if path.is_dir() and not path.suffix and path.name != "natives"]
        for old in sorted(found, key=lambda path: path.stat().st_mtime)[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)
            for ending in (".lock", ".log"):
                old.with_suffix(ending).unlink(missing_ok=True)


def placed(built: Path, folder: Path) -> Path:
    """A copy of a build: one file loaded twice is mapped once, and would share its place in memory."""
    shutil.copytree(built, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def code(impls: Path, family: str, module: str, backend: str) -> str:
    """A digest of the code that an implementation rests on: its module, the modules that those import, the registry, the
    family's extension (of a backend that loads one) and the family's other files (of one that reads them).

    The card, ``<family>/__init__.py``, is compared as data unless a module imports from it.
    """
    folder = impls / family
    start = [folder.joinpath(*module.split(".")).with_suffix(".py"), impls / "registry.py"]
    files = _reached(impls, [path for path in start if path.exists()])
    for near in (folder, impls / "_backends"):
        for path in near.rglob("*"):
            if not path.is_file() or path.suffix in (".py", ".pyc"):
                continue
            if backend not in (PURE if path.suffix == ".so" else WITHOUT_DATA):
                files.add(path)
    return digest(contents(impls, files))


def _reached(impls: Path, files: list[Path]) -> set[Path]:
    """These files and all that they import from within ``impls``, at once or later."""
    found: set[Path] = set()
    while files:
        path = files.pop()
        if path not in found:
            found.add(path)
            files += _imports(impls, path)
    return found


@functools.cache
def _imports(impls: Path, path: Path) -> tuple[Path, ...]:
    """The files that relative imports in one file may load; none where it has a syntax error."""
    try:
        parsed = ast.parse(path.read_bytes())
    except SyntaxError:
        return ()
    files: list[Path] = []
    for node in ast.walk(parsed):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        package = path.parent if node.level == 1 else path.parents[node.level - 1]
        if not package.is_relative_to(impls):
            continue
        target = package.joinpath(*node.module.split(".")) if node.module else package
        inner = [target / name.name for name in node.names]
        files += [each.with_suffix(".py") for each in (target, *inner)] + [each / "__init__.py" for each in inner]
        if not all(each.with_suffix(".py").exists() or each.is_dir() for each in inner):
            files.append(target / "__init__.py")  # a name that this package itself defines
    return tuple(each for each in files if each.exists() and each != impls / "__init__.py")
