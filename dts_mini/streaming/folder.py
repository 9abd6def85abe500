"""A model's folder, written in one step: whoever opens it meanwhile, or after a kill, finds one model and never two
halves.

The new shards get names that the folder does not hold, and nobody reads them until the index, which says what is the
model, is replaced; a rename is all or nothing. What is being made, and a list of what goes when it is done, lie in
``.new`` within the folder, where the next run finds what a kill left, and sweeps it.
"""

import itertools
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from contextlib import contextmanager
from pathlib import Path

from dts_mini.core.errors import FileError
from dts_mini.core.file import opened, read_json, write_json
from dts_mini.core.state import State, outline

INDEX = ".safetensors.index.json"
WHOLE = "model.safetensors"  # which from_pretrained takes before any index: a model that is saved anew may leave one
_STEMS = ("diffusion_pytorch_model", "open_clip_model")  # other libraries' own
_NEW, _LIST = ".new", "files.json"
_TEXTS = {".json", ".txt", ".model", ".spm", ".jinja", ".tiktoken", ".py", ".yaml"}
_OTHERS = {"trainer_state.json", "adapter_config.json", "all_results.json", "train_results.json", "eval_results.json"}


def pretrained_names(shards: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """The same shards under names that ``from_pretrained`` finds: a single one has a fixed name, several stand in an
    index.

    >>> pretrained_names({"theta_0.safetensors": ["w"]})
    {'model.safetensors': ['w']}
    """
    return {f"{_stem(shards)}.safetensors" if len(shards) == 1 else file: names for file, names in shards.items()}


def companions(folder: Path) -> dict[str, Path]:
    """What a model's own class reads beside its weights, by its place in the folder: configuration, tokenizer,
    generation and pooling files, and the modules that sentence-transformers lists; none where there is no
    ``config.json``, nor open_clip's.
    """
    if not any((folder / name).is_file() for name in ("config.json", "open_clip_config.json")):
        return {}
    found = [path for path in sorted(folder.iterdir()) if path.suffix in _TEXTS and path.name not in _OTHERS]
    found = [path for path in found if path.is_file() and not path.name.endswith(".index.json")]
    if (folder / "modules.json").is_file():
        try:
            modules = read_json(folder / "modules.json", "list of modules")
            listed = [Path(str(module["path"])) for module in modules]
        except (TypeError, KeyError) as error:
            raise FileError(f"{folder / 'modules.json'}: is no list of modules ({error!r}); copy it again") from error
        names = [path.name for path in listed if path.name and len(path.parts) == 1]
        found += [path for name in names for path in sorted((folder / name).glob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path for path in found}


def write_folder(
    state: State,
    folder: Path,
    shards: Mapping[str, list[str]],
    write: Callable[[list[str], Path], object],
    beside: Mapping[str, Path],
) -> None:
    """Puts a model into a folder, new or in place of its old one, in one step; what else lies there stays.

    ``write(names, path)`` writes the tensors of a shard; ``beside`` is copied there.
    """
    if not folder.exists():  # made beside, and put there at once
        with _staged(folder.with_name(f".{folder.name}.new")) as made:
            _fill(state, made, {file: file for file in shards}, shards, write, beside)
            if len(shards) > 1:
                write_json(_index(state, shards), made / f"{_stem(shards)}{INDEX}", indent=2)
            os.rename(made, folder)
        return
    sweep(folder)
    old, index = _model(folder)
    names = {file: _free(folder, file) for file in shards}
    with _staged(folder / _NEW) as made:
        _fill(state, made, names, shards, write, beside)
        write_json([*old, *names.values()], made / _LIST)
        if index or len(shards) > 1:
            if index is None:
                index = folder / f"{_stem(shards)}{INDEX}"
                if old:  # the old model is what an index says, too, until the new index takes its place
                    with opened(folder / old[0]) as handle:
                        placed = dict.fromkeys(handle.keys(), old[0])
                    os.replace(write_json({"metadata": {}, "weight_map": placed}, made / index.name), index)
            write_json(_index(state, {names[file]: held for file, held in shards.items()}), made / index.name, indent=2)
            for name in names.values():
                os.replace(made / name, folder / name)
            _flush(folder)
            os.replace(made / index.name, index)
            if WHOLE not in names.values():
                (folder / WHOLE).unlink(missing_ok=True)
        else:
            ((file, name),) = names.items()
            names[file] = old[0] if old else file
            os.replace(made / name, folder / names[file])
        _flush(folder)
        for name in beside:
            (folder / name).parent.mkdir(exist_ok=True)
            os.replace(made / name, folder / name)
        sweep(folder)
    if len(shards) == 1:  # which needs no index
        if index:
            index.unlink()
        ((file, name),) = names.items()
        os.replace(folder / name, folder / file)


def sweep(folder: Path) -> None:
    """Removes what a killed run left in a folder: what belongs to no model, or to the one that was replaced."""
    made = folder / _NEW
    if (made / _LIST).is_file():
        current = _model(folder)[0]
        for name in read_json(made / _LIST):
            if name not in current:
                (folder / Path(name).name).unlink(missing_ok=True)
    shutil.rmtree(made, ignore_errors=True)


@contextmanager
def _staged(made: Path):
    """An empty folder to make things in, gone at the end, and at the next beginning where there was no end."""
    shutil.rmtree(made, ignore_errors=True)
    try:
        made.mkdir()
        yield made
    except OSError as error:
        raise FileError(
            f"{made.parent}: cannot be written ({error.strerror}); see to the disk and run it again"
        ) from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _fill(state: State, made: Path, names: Mapping[str, str], shards, write, beside: Mapping[str, Path]) -> None:
    """Writes the shards under those names, and copies what goes beside them."""
    for file, held in shards.items():
        write(held, made / names[file])
    for name, path in beside.items():
        (made / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(path, made / name)


def _stem(files: Collection[str]) -> str:
    """How the names of a model's files begin: as a library's own do, where all of them do."""
    return next((stem for stem in _STEMS if all(file.startswith(stem) for file in files)), "model")


def _index(state: State, shards: Mapping[str, list[str]]) -> dict:
    placed = {name: file for file, names in shards.items() for name in names}
    size = sum(tensor.nbytes for tensor in outline(state).values())
    return {"metadata": {"total_size": size}, "weight_map": dict(sorted(placed.items()))}


def _model(folder: Path) -> tuple[list[str], Path | None]:
    """The files of the folder's model, the one that opens first, and its index, if it has one, with what that lists;
    none where it is not clear which they are.
    """
    whole = [WHOLE] if (folder / WHOLE).is_file() else []
    if indexes := sorted(folder.glob(f"*{INDEX}")):
        try:
            listed = {Path(file).name for file in read_json(indexes[0])["weight_map"].values()}
        except (FileError, KeyError, TypeError, AttributeError):
            listed = set()
        return [*whole, *sorted(listed.difference(whole))], indexes[0]
    found = whole or [path.name for path in folder.glob("*.safetensors")]
    return (found, None) if len(found) == 1 else ([], None)


def _free(folder: Path, file: str) -> str:
    """The name, or one like it, that nothing in the folder has."""
    stem = file.removesuffix(".safetensors")
    names = itertools.chain([file], (f"{stem}.{number}.safetensors" for number in itertools.count(1)))
    return next(name for name in names if not (folder / name).exists())


def _flush(folder: Path) -> None:
    """Makes sure that the disk has the folder's names as they are now."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
