"""``dts-mini export-lora`` and ``import-lora``, on a model that transformers saved."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from dts_mini import compress, load, rebuild
from dts_mini.cli import main
from dts_mini.core.file import save_tensors
from dts_mini.streaming.checkpoint import open_checkpoint

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

EXPORT = "export-lora --base base --delta a.dts.safetensors --out adapter"
IMPORT = "import-lora adapter --base base --out again.dts.safetensors"


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs a command line in a folder with a tiny BERT as base and the delta of an expert of it."""
    monkeypatch.chdir(tmp_path)
    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(transformers.BertConfig(vocab_size=50, **size))
    model.save_pretrained("base")
    base = open_checkpoint("base")
    compress(base, {name: x + 0.02 * torch.randn(x.shape) for name, x in base.items()}).save("a.dts.safetensors")

    def call(line: str) -> tuple[int, str, str]:
        capsys.readouterr()
        return main(line.split()), *capsys.readouterr()

    return call


@pytest.fixture
def refused(run):
    def call(line: str) -> str:
        before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
        code, out, err = run(line)
        assert code == 1 and out == "" and err.count("\n") == 1
        assert err.startswith(f"dts-mini {line.split()[0]}: ")
        assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before
        return err

    return call


def test_an_adapter_exported_and_imported_again_is_the_same_expert(run):
    code, out, _ = run(EXPORT)
    assert code == 0
    assert out.startswith("adapter: ") and "modules as factors" in out
    model = transformers.BertForSequenceClassification.from_pretrained("base")
    merged = peft.PeftModel.from_pretrained(model, "adapter").merge_and_unload().state_dict()
    assert run(IMPORT)[0] == 0
    base = open_checkpoint("base")
    again, wanted = rebuild(base, load("again.dts.safetensors")), rebuild(base, load("a.dts.safetensors"))
    for name, tensor in wanted.items():
        assert torch.allclose(again[name], tensor, atol=1e-6)
        assert torch.allclose(merged[name], tensor, atol=1e-6)


def test_export_tells_the_bytes_before_it_writes_and_without_writing_and_takes_a_cap_and_sixteen_bits(run):
    sizes = {}
    for options in ("", "--rank 2", "--dtype bfloat16", "--rank 2 --dtype float16"):
        code, told, err = run(f"{EXPORT} --dry-run {options}")
        assert (code, err) == (0, "") and not Path("adapter").exists()
        code, out, err = run(f"{EXPORT} {options}")
        assert (code, err) == (0, "") and out.startswith(told)
        assert ("of what the factors hold" in out) is ("rank" in options)
        sizes[options] = int(told.split()[1].replace(",", ""))
        assert 0 < Path("adapter/adapter_model.safetensors").stat().st_size - sizes[options] < 2**14
        shutil.rmtree("adapter")
    assert sizes[""] == 2 * sizes["--dtype bfloat16"] > sizes["--rank 2"] == 2 * sizes["--rank 2 --dtype float16"]


def test_import_tells_the_files_bytes_and_inspect_shows_the_factors(run):
    run(EXPORT)
    code, out, err = run(IMPORT)
    assert (code, err) == (0, "")
    assert f"again.dts.safetensors: {Path('again.dts.safetensors').stat().st_size:,} bytes" in out
    code, out, _ = run("inspect again.dts.safetensors")
    assert code == 0 and "a lora delta" in out and "Factors" in out


def test_import_says_of_which_base_the_adapter_is_unless_that_is_the_one_given(run):
    run(EXPORT)
    config = Path("adapter/adapter_config.json")
    for name, said in (
        ("base", ""),
        (None, ""),
        ("some/other", "adapter: names some/other as the model it was trained"),
    ):
        config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": name}))
        code, _, err = run(f"{IMPORT} --overwrite")
        assert code == 0 and err.startswith(said) and bool(err) == bool(said)


def test_no_adapter_is_put_into_the_folder_of_a_model(refused):
    """transformers would load it with that model from then on."""
    line = EXPORT.replace("--out adapter", "--out base --overwrite")
    assert "base: holds a model (config.json); name a folder of its own" in refused(line)
    assert not Path("base/adapter_config.json").exists()


def test_outputs_that_exist_are_kept_unless_they_may_be_replaced(run, refused):
    run(EXPORT)
    run(IMPORT)
    assert "adapter_config.json: exists already; pass --overwrite" in refused(EXPORT)
    assert "again.dts.safetensors: exists already; pass --overwrite" in refused(IMPORT)
    assert run(f"{EXPORT} --overwrite")[0] == run(f"{IMPORT} --overwrite")[0] == 0


def test_what_no_adapter_can_hold_is_refused_or_left_out(run, refused):
    class Owner(transformers.BertModel):
        def __init__(self, config) -> None:
            super().__init__(config)
            self.shift = torch.nn.Parameter(torch.zeros(3))

    transformers.OwnerModel = Owner
    try:
        config = transformers.AutoConfig.from_pretrained("base")
        Owner(config).save_pretrained("owner")
        settings = json.loads(Path("owner/config.json").read_text())
        Path("owner/config.json").write_text(json.dumps(settings | {"architectures": ["OwnerModel"]}))
        base = open_checkpoint("owner")
        compress(base, {name: x + 0.02 * torch.randn(x.shape) for name, x in base.items()}).save("o.dts.safetensors")
        line = "export-lora --base owner --delta o.dts.safetensors --out part"
        assert "no LoRA adapter can hold 'shift', which the model itself owns; pass --partial" in refused(line)
        code, out, _ = run(f"{line} --partial")
        assert code == 0 and out.endswith("written, without shift\n")
    finally:
        del transformers.OwnerModel


@pytest.mark.parametrize(
    ("spoil", "line", "message"),
    [
        (lambda: Path("base/config.json").unlink(), EXPORT, "base/config.json: cannot be read"),
        (lambda: Path("base/config.json").write_text("{"), EXPORT, "base/config.json: is no JSON"),
        (lambda: Path("base/config.json").write_text("[]"), EXPORT, "base/config.json: holds no settings"),
        (lambda: Path("base/config.json").write_text("{}"), EXPORT, "names no architecture that transformers has"),
        (lambda: Path("base/model.safetensors").unlink(), EXPORT, "base: transformers cannot load it"),
        (lambda: Path("a.dts.safetensors").unlink(), EXPORT, "a.dts.safetensors: cannot be read"),
        (lambda: Path("adapter").write_text(""), EXPORT, "adapter: is a file; name a folder"),
        (lambda: None, IMPORT, "adapter/adapter_config.json: cannot be read"),
    ],
    ids=["no config", "no JSON", "no settings", "no model", "no weights", "no delta", "in the way", "no adapter"],
)
def test_bad_input_is_refused_by_its_name(refused, spoil, line, message):
    spoil()
    assert message in refused(line)


def test_a_delta_of_another_base_is_refused(run, refused):
    base = open_checkpoint("base")
    other = {name: x + 1 for name, x in base.items()}
    save_tensors(other, "other.safetensors")
    compress(other, {name: x + 0.1 for name, x in other.items()}).save("a.dts.safetensors", overwrite=True)
    assert "are not those that the delta was made for" in refused(EXPORT)
    assert not Path("adapter").exists()
