"""Completion of commands, options and choices in a shell: a script with all words in it, so that
pressing Tab starts no Python.
"""

import io
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from typing import NamedTuple

from holdfast.tta import entry
from holdfast.tta.config import closest
from holdfast.tta.errors import InputError

USAGE = (
    "usage: holdfast completion bash|zsh|fish\n\n"
    "Print a script that completes commands, options and choices. Where shells look for it:\n"
    "  holdfast completion bash > ~/.local/share/bash-completion/completions/holdfast\n"
    "  holdfast completion zsh > FOLDER_OF_FPATH/_holdfast\n"
    "  holdfast completion fish > ~/.config/fish/completions/holdfast.fish"
)
_BASH = """\
# bash completion of holdfast, written by: holdfast completion bash
_holdfast() {
    local line=${COMP_LINE:0:COMP_POINT} names= inner= values= words=
    local cur=${line##*[[:space:]]} typed
    read -ra typed <<< "$line"
    if ((${#typed[@]} < 2)) || { ((${#typed[@]} == 2)) && [[ -n $cur ]]; }; then
        COMPREPLY=($(compgen -W '@COMMANDS@' -- "$cur"))
        return
    fi
    case ${typed[1]} in
@CASES@
    esac
    case $cur in
        *=*) words=$values ;;
        *.*) words=$inner ;;
        *) words=$names ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
    # Where = parts words, which it does by default, what stands before it stays as it is.
    if [[ $cur == *=* && $COMP_WORDBREAKS == *=* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${cur%%=*}="}")
    fi
    if [[ ${COMPREPLY[0]} == *[=.] ]]; then
        compopt -o nospace 2> /dev/null
    fi
}
complete -o default -F _holdfast holdfast
"""
_ZSH = """\
#compdef holdfast
# zsh completion of holdfast, written by: holdfast completion zsh
_holdfast() {
    local -a names inner values found
    if (( CURRENT == 2 )); then
        compadd -- @COMMANDS@
        return
    fi
    case ${words[2]} in
@CASES@
    esac
    case $PREFIX in
        *=*)
            found=(${(M)values:#${PREFIX}*})
            if (( ${#found} )); then
                compadd -- $found
            else
                compset -P '*=' && _files
            fi
            ;;
        *.*) compadd -S '' -- $inner ;;
        *)
            compadd -S '' -- $names
            _files
            ;;
    esac
}
if [[ $funcstack[1] == _holdfast ]]; then
    _holdfast "$@"
else
    compdef _holdfast holdfast
fi
"""
_FISH = """\
# fish completion of holdfast, written by: holdfast completion fish
function __holdfast_words
    set -l typed (commandline -opc)
    if test (count $typed) -lt 2
        printf '%s\\n' @COMMANDS@
        return
    end
    set -l names
    set -l inner
    set -l values
    switch $typed[2]
@CASES@
    end
    switch (commandline -ct)
        case '*=*'
            printf '%s\\n' $values
        case '*.*'
            printf '%s\\n' $inner
        case '*'
            printf '%s\\n' $names
    end
end
complete -c holdfast -a '(__holdfast_words)'
"""


@dataclass
class NoConfig:
    """The program takes the name of a shell, and no options."""


class Words(NamedTuple):
    """What is offered of a program's words: before a dot, behind one, and behind an equals sign."""

    names: list[str]
    inner: list[str]
    values: list[str]


def sorted_out(every: Sequence[str]) -> Words:
    """Words by where they are offered.

    >>> sorted_out(["seed=", "method=", "method=tent", "method.lr="])
    Words(names=['seed=', 'method=', 'method.'], inner=['method.lr='], values=['method=tent'])
    """
    names = [word for word in every if word.endswith("=")]
    inner = [word for word in names if "." in word]
    groups = [f"{word.split('.')[0]}." for word in inner]
    outer = [word for word in names if "." not in word]
    return Words(
        list(dict.fromkeys([*outer, *groups])),
        inner,
        [word for word in every if not word.endswith("=")],
    )


def words_of(module: str) -> Words:
    """The words that a program takes, as it says them itself."""
    said = io.StringIO()
    with redirect_stdout(said):
        import_module(module).main([entry.PRINT_WORDS])
    return sorted_out(said.getvalue().split())


def script(shell: str, programs: Mapping[str, Words]) -> str:
    """The script of a shell.

    Args:
        shell: bash, zsh or fish.
        programs: words by command.

    Raises:
        InputError: there is no script for that shell.
    """
    if shell not in _SHELLS:
        raise InputError(f"no completion of {shell!r}: {closest(shell, _SHELLS)}")
    template, before, line, after = _SHELLS[shell]
    cases = [
        part
        for command, words in programs.items()
        for part in (
            before.format(command),
            *(line.format(name, " ".join(found)) for name, found in _named(words)),
            after,
        )
    ]
    text = template.replace("@COMMANDS@", " ".join(programs))
    return text.replace("@CASES@", "\n".join(filter(None, cases)))


def _named(words: Words) -> Iterable[tuple[str, list[str]]]:
    return zip(Words._fields, words, strict=True)


#: Of each shell: its script, and how a command's case begins, sets a list, and ends.
_SHELLS = {
    "bash": (_BASH, "        {})", "            {}='{}'", "            ;;"),
    "zsh": (_ZSH, "        {})", "            {}=({})", "            ;;"),
    "fish": (_FISH, "        case {}", "            set {} {}", ""),
}


def main(argv: Sequence[str]) -> int:
    """Run from command-line words; returns the exit status."""

    def run() -> None:
        from holdfast.__main__ import COMMANDS

        if len(argv) != 1:
            raise InputError(f"name one shell: holdfast completion {'|'.join(_SHELLS)}")
        programs = {
            name: Words([*_SHELLS], [], []) if module == __spec__.name else words_of(module)
            for name, (module, _) in COMMANDS.items()
        }
        print(script(argv[0], programs), end="")

    return entry.run(run, NoConfig, {}, USAGE, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
