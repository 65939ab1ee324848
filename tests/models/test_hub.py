"""Weights by name: what counts as one, what is fetched, and every refusal in one sentence."""

import json
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
from hub_parts import CopyingApi, FakeHub, copying_api, httpx, offline, publish, served, write
from huggingface_hub import errors

from earwitness.config import Strict, validate
from earwitness.errors import CheckpointError, ConfigError
from earwitness.models.hub import HubName, WeightsName, hub_name, hub_part, push, resolve, resolved
from earwitness.models.names import model_folder

FILES = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": b"weights",
    "tokenizer.model": b"pieces",
    "merges.txt": b"a b",
    "chat_template.jinja": b"{{ x }}",
    "pytorch_model.bin": b"pickle",
    "model.pt": b"pickle",
    "modeling_llama.py": b"import os",
    "consolidated.safetensors": b"again",
    "original/params.json": b"{}",
    "README.md": b"read me",
}


class Recipe(Strict):
    weights: WeightsName | None = None


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with served(FakeHub(), tmp_path / "cache", monkeypatch) as hub:
        yield hub


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


def refused(name: str, *words: str) -> str:
    with pytest.raises(CheckpointError) as caught:
        resolve(name)
    message = str(caught.value)
    assert "\n" not in message
    for word in (name, *words):
        assert word in message, message
    return message


@pytest.mark.parametrize(
    ("name", "repo", "revision"),
    [
        ("mispeech/ced-base", "mispeech/ced-base", None),
        ("Qwen/Qwen3-0.6B@main", "Qwen/Qwen3-0.6B", "main"),
        ("a/b@refs/pr/3", "a/b", "refs/pr/3"),
        ("a/b@v1.0+cpu", "a/b", "v1.0+cpu"),
        (Path("lmsys/vicuna-7b-v1.5"), "lmsys/vicuna-7b-v1.5", None),
    ],
)
def test_names_of_the_hub_are_told_from_paths(name, repo, revision):
    assert hub_name(name) == HubName(repo, revision)


@pytest.mark.parametrize(
    "name",
    ["pocket-lamb", "/a/b", "./a/b", "../a/b", "a/b/c", "a/b@", "a/b@x y", "a/", "", "~/a", "-a/b"],
)
def test_everything_else_can_only_be_a_path(name):
    assert hub_name(name) is None


@pytest.mark.parametrize("name", ["a/b", "a/b@v1", "runs/x/best", "/data/llama", "here"])
def test_a_recipe_takes_folders_and_names(name):
    assert validate(Recipe, {"weights": name}, "recipe").weights == Path(name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("https://huggingface.co/a/b", "owner/name"),
        ("", "owner/name"),
        ("a/b@", "after '@'"),
        ("a/b@x y", "after '@'"),
    ],
)
def test_a_recipe_refuses_what_is_neither(name, words):
    with pytest.raises(ConfigError, match=f"key 'weights'.*{words}"):
        validate(Recipe, {"weights": name}, "recipe")


def test_weights_settings_and_tokenizer_are_fetched_and_nothing_that_could_run(hub, capsys):
    commit = hub.add("ada/llm", FILES)
    folder = resolve("ada/llm")
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*")} == {
        "config.json",
        "model.safetensors",
        "tokenizer.model",
        "merges.txt",
        "chat_template.jinja",
    }
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert not [path for path in hub.asked if path.endswith((".bin", ".pt", ".py"))]
    part = hub_part(folder)
    assert part is not None
    assert (part.hub, part.revision) == ("ada/llm", commit)
    assert f"ada/llm resolves to commit {commit}" in capsys.readouterr().err


def test_a_revision_is_taken_and_a_commit_is_not_told_again(hub, capsys):
    hub.add("ada/llm", FILES)
    old = hub.add("ada/llm", {**FILES, "model.safetensors": b"old"}, "v1")
    assert (resolve("ada/llm@v1") / "model.safetensors").read_bytes() == b"old"
    capsys.readouterr()
    assert (resolve(f"ada/llm@{old}") / "model.safetensors").read_bytes() == b"old"
    assert "resolves to" not in capsys.readouterr().err


def test_a_commit_in_the_cache_is_not_asked_for_again(hub):
    commit = hub.add("ada/llm", FILES)
    resolve("ada/llm")
    hub.asked.clear()
    resolve(f"ada/llm@{commit}")
    assert hub.asked == []


def test_a_folder_of_that_name_comes_first(hub):
    hub.add("ada/llm", FILES)
    Path("ada/llm").mkdir(parents=True)
    assert resolve("ada/llm") == Path("ada/llm")
    assert hub.asked == []


def test_a_run_stays_at_the_commit_that_it_began_with(hub, tmp_path):
    record = tmp_path / "run" / "weights.json"
    first = hub.add("ada/llm", FILES)
    recipe = Recipe(weights=Path("ada/llm"))
    begun = resolved(recipe, ("weights",), record).weights
    assert json.loads(record.read_text()) == {"ada/llm": first}
    second = hub.add("ada/llm", {**FILES, "model.safetensors": b"newer"})
    assert resolved(recipe, ("weights",), record).weights == begun
    assert str(hub_part(resolve("ada/llm"))) == f"ada/llm@{second}"
    assert resolved(Recipe(), ("weights",), record) == Recipe()


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (403, "GatedRepo", ("accept the license at https://huggingface.co/ada/llm", "hf auth")),
        (401, "RepoNotFound", ("neither a folder here nor a repository", "hf auth login")),
        (404, "RepoNotFound", ("neither a folder here nor a repository",)),
        (418, "", ("not (or not completely) in the cache", "huggingface.co answers HTTP 418")),
    ],
)
def test_what_the_hub_refuses_is_told(hub, status, code, words):
    hub.add("ada/llm", FILES)
    hub.problems["/api/models/ada/llm"] = (status, code)
    refused("ada/llm", *words)


def test_files_behind_a_gate_are_refused_though_the_repository_is_seen(hub):
    hub.add("meta/llama", FILES)
    hub.problems["/meta/llama/resolve"] = (403, "GatedRepo")
    refused("meta/llama", "accept the license at https://huggingface.co/meta/llama")


def test_an_unknown_repository_and_revision_are_told_apart(hub):
    refused("ada/llm", "neither a folder here nor a repository")
    hub.add("ada/llm", FILES)
    refused("ada/llm@v9", "has no revision 'v9'; expected a branch, a tag or a commit")


def test_a_repository_of_pickles_is_refused(hub):
    pickles = {k: v for k, v in FILES.items() if not k.endswith(".safetensors")}
    hub.add("ada/llm", pickles)
    refused("ada/llm", "holds no safetensors", "ada/llm@refs/pr/")


def test_offline_what_is_in_the_cache_is_found_and_what_is_not_is_told(tmp_path, monkeypatch):
    cache = offline(tmp_path / "cache", monkeypatch)
    source = write(tmp_path / "source", config__json={}, model__safetensors=b"weights")
    commit = publish(cache, "ada/llm", source)
    publish(cache, "ada/llm", source, "v1")
    expected = cache / "models--ada--llm" / "snapshots" / commit
    for name in ("ada/llm", "ada/llm@v1", f"ada/llm@{commit}"):
        assert resolve(name) == expected
    words = ("HF_HUB_OFFLINE is set", str(cache), "hf download")
    refused("ada/llm@v2", *words, "hf download ada/llm --revision v2")
    refused("ada/other", *words)


def test_without_a_network_the_sentence_says_so(tmp_path, monkeypatch):
    def unreachable(request):
        raise httpx.ConnectError("no route", request=request)

    hub = FakeHub()
    monkeypatch.setattr(hub, "answer", unreachable)
    with served(hub, tmp_path / "cache", monkeypatch):
        refused("ada/llm", "huggingface.co cannot be reached", "hf download ada/llm")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (errors.HFValidationError("Repo id must not end so"), "Repo id must not end so"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (httpx.ProxyError("the proxy\nsays no"), "the proxy says no"),
    ],
)
def test_other_failures_of_the_client_keep_their_words(monkeypatch, error, words):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    refused("ada/llm", words)


def test_a_missing_path_is_no_business_of_the_hub(hub):
    refused("/no/such/folder", "no such folder; expected a folder, or a name on the Hugging Face")
    refused("./ada/llm", "no such folder")
    assert hub.asked == []


@pytest.mark.parametrize("name", ["ada/b@c d", "nowhere"])
def test_a_model_that_is_neither_folder_nor_name_is_told(name):
    with pytest.raises(CheckpointError, match="no such model folder.*pocket-lamb.*owner/name"):
        model_folder(name)


@pytest.mark.parametrize(
    "path",
    [
        "models--a--b/snapshots/main",
        "datasets--a--b/snapshots/" + "0" * 40,
        "models--a/snapshots/" + "0" * 40,
        "models--a--b/snapshots/" + "0" * 40 + "/decoder",
        "runs/best",
    ],
)
def test_other_folders_have_no_origin(path):
    assert hub_part(Path("/cache") / path) is None


def test_push_makes_the_repository_and_the_branch_and_names_the_commit(tmp_path, monkeypatch):
    calls = copying_api(tmp_path / "cache", monkeypatch)
    model = write(tmp_path / "model", earwitness__json={}, prefix__safetensors=b"weights")
    name = push(model, "ada/model", private=True, revision="v1")
    assert [call for call, _ in calls] == ["create_repo", "create_branch", "upload_folder"]
    assert calls[0][1] == {"repo_id": "ada/model", "private": True, "exist_ok": True}
    assert calls[1][1]["branch"] == "v1"
    assert resolve(name) == resolve("ada/model@v1")
    assert (resolve(name) / "prefix.safetensors").read_bytes() == b"weights"


@pytest.mark.parametrize("repo", ["model", "ada/model@v1", "https://huggingface.co/ada/model"])
def test_push_wants_owner_and_name(tmp_path, repo):
    with pytest.raises(ConfigError, match="expected owner/name"):
        push(tmp_path, repo)


def test_push_refuses_a_folder_that_is_no_model(tmp_path, monkeypatch):
    calls = copying_api(tmp_path / "cache", monkeypatch)
    with pytest.raises(CheckpointError, match=r"earwitness\.json: no such file"):
        push(tmp_path, "ada/model")
    assert calls == []


def response(status):
    return httpx.Response(status, request=httpx.Request("POST", "https://huggingface.co/api"))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (errors.LocalTokenNotFoundError("no token"), "not logged in.*hf auth login"),
        (errors.HfHubHTTPError("no", response=response(403)), r"refuses this login \(HTTP 403\)"),
        (errors.OfflineModeIsEnabled("no"), "HF_HUB_OFFLINE is set"),
        (httpx.ConnectError("no route"), "no route"),
    ],
)
def test_what_keeps_an_upload_back_is_told(tmp_path, monkeypatch, error, words):
    def fail(*_, **__):
        raise error

    copying_api(tmp_path / "cache", monkeypatch)
    monkeypatch.setattr(CopyingApi, "create_repo", fail)
    model = write(tmp_path / "model", earwitness__json={})
    with pytest.raises(CheckpointError, match=f"ada/model: {words}|ada/model: not.*{words}"):
        push(model, "ada/model")


def test_folders_are_found_without_the_client_of_the_hub(tmp_path):
    code = (
        "import sys; from earwitness.models.hub import resolve\n"
        "from earwitness.models.names import model_folder\n"
        f"resolve({str(tmp_path)!r}); model_folder({str(tmp_path)!r});"
        "print([m for m in ('huggingface_hub', 'transformers') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
