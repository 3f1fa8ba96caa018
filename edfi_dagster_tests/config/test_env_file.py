"""``.env``: a secret is what stands there, whatever its characters, line breaks and quotes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from dotenv import dotenv_values

from edfi_dagster.config import ConfigError
from edfi_dagster.config.env_file import correct_env_file, read_env_file, take_env_file


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("S='ab$cd${K}'", "ab$cd${K}"),
        ("S = 'ab$cd${K}' # a note", "ab$cd${K}"),
        ("export S='ab$cd${K}'", "ab$cd${K}"),
        ("'S'='${K}${K:-x}'", "${K}${K:-x}"),
        ("S='it\\'s ${K}'", "it's ${K}"),
        ("S='two\n${K}\nlines'", "two\n${K}\nlines"),
        ("S='a=b${K}'", "a=b${K}"),
        ("S=''", ""),
        ('S="ab$cd${K}"', "ab$cdkey"),
        ("S=\"'${K}'\"", "'key'"),
        ("S=ab$cd${K}", "ab$cdkey"),
        ("S=it's ${K}", "it's key"),
        ("S=${MISSING:-else}", "else"),
        ("export S=${K} # a note", "key"),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_values_are_read_as_a_shell_reads_them(
    line: str, value: str, end: str, mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("S", "K", "MISSING", "cd", "LAST"):
        monkeypatch.delenv(name, raising=False)
    text = f"K=key\n{line}\nLAST=1\n".replace("\n", end)
    (tmp_path / ".env").write_bytes((mark + text).encode())
    assert read_env_file(tmp_path / ".env") == {"K": "key", "S": value, "LAST": "1"}


def test_a_file_that_does_not_exist_holds_nothing(tmp_path: Path) -> None:
    assert read_env_file(tmp_path / ".env") == {}


def test_a_file_that_is_not_utf_8_is_an_error(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes("K='ä'".encode("utf-16"))
    with pytest.raises(ConfigError, match=r"\.env cannot be read; save it as UTF-8 text"):
        read_env_file(tmp_path / ".env")


def test_what_is_set_stays_and_what_dagster_dev_took_from_the_file_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", {"HOME": "/home/of/a/test"})
    file = tmp_path / ".env"
    file.write_text("EDFI_T_A='x${HOME}y'\nEDFI_T_B='b${HOME}'\nEDFI_T_C=c\nEDFI_T_D=\n")
    taken = {name: str(value) for name, value in dotenv_values(file).items()}
    assert taken["EDFI_T_A"] != "x${HOME}y"
    os.environ |= {"EDFI_T_A": taken["EDFI_T_A"], "EDFI_T_B": "of the shell"}
    correct_env_file(file)
    assert (os.environ["EDFI_T_A"], os.environ["EDFI_T_B"]) == ("x${HOME}y", "of the shell")
    assert "EDFI_T_C" not in os.environ
    take_env_file(file)
    assert (os.environ["EDFI_T_B"], os.environ["EDFI_T_C"]) == ("of the shell", "c")
    assert "EDFI_T_D" not in os.environ
