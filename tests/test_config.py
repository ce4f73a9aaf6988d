"""The configuration file: what is read, what is refused, what is never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from virtualfs import ConfigError, load_config


def write(folder: Path, text: str) -> Path:
    path = folder / "virtualfs.toml"
    path.write_text(text)
    return path


def test_only_the_project_is_required(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, 'project = "p"'))
    assert config.registry_url() == f"sqlite:///{tmp_path}/.virtualfs/registry.db"
    assert config.cache.url.get_secret_value() == "memory://"
    assert (config.server.host, config.server.port) == ("127.0.0.1", 8000)
    assert config.clock is None
    assert config.definitions == ()


def test_it_is_found_upward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 'project = "p"')
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    assert load_config().folder == tmp_path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "'project' is required"),
        ('project = "p"\nregistri = "x"', "unknown setting 'registri'. Did you mean 'registry'"),
        ('project = "p"\n[cache]\nurll = "x"', r"unknown setting 'cache.urll'. Did you mean 'url'"),
        ('project = "p"\n[warehouses.a]\nurl = "x"\nreadonly = true', "Did you mean 'read_only'"),
        ('project = "p"\n[server]\nport = "x"', "server.port"),
        ('project = "p"\nfolder = "x"', "folder"),
        ('project = "p"\nclock = "noon"', "clock"),
        ("project = ", "not TOML"),
        ('project = "p"\n[cache]\nurl = "${NOT_SET_ANYWHERE}"', "NOT_SET_ANYWHERE is not set"),
    ],
)
def test_bad_settings_say_what_to_do(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        load_config(write(tmp_path, text))
    assert "virtualfs.toml" in str(error.value)


def test_secrets_are_expanded_and_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_PASSWORD", "hunter2")
    config = load_config(
        write(tmp_path, 'project = "p"\n[cache]\nurl = "redis://:${REDIS_PASSWORD}@h/0"')
    )
    assert config.cache.url.get_secret_value() == "redis://:hunter2@h/0"
    assert "hunter2" not in repr(config) + str(config) + str(config.display())
