"""The command ``holdfast``: one word for each program, then its options."""

import sys
from importlib import import_module

import holdfast

#: What may follow ``holdfast``: the module with its ``main``, and what it does.
COMMANDS = {
    "train": ("holdfast.programs.train", "train a source model, or adopt weights"),
    "adapt": ("holdfast.programs.adapt", "adapt it to a stream of unlabelled images, guarded"),
    "serve": ("holdfast.programs.serve", "answer to images by HTTP, adapting as they come"),
    "benchmark": ("holdfast.programs.benchmark", "measure methods and guards on shifted streams"),
    "replay": ("holdfast.callbacks.replay", "judge a recorded run again under other levels"),
    "audit": ("holdfast.callbacks.audit", "say whether a run's records fit together"),
    "compare": ("holdfast.programs.compare", "compare finished runs: means, tests, LaTeX"),
    "completion": ("holdfast.programs.completion", "print a script that completes in your shell"),
    "export": ("holdfast.programs.export", "write an adapted network for other programs"),
    "demo": ("holdfast.programs.demo", "see collapse and guard on embedded data"),
}
#: Exit status of words that are not understood, as the programs have it.
_MISUSED = 2


def usage() -> str:
    """The commands, one a line."""
    lines = [f"  {name:<10} {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(
        ["usage: holdfast COMMAND [config.yaml ...] [key=value ...]", "", *lines, "", _MORE]
    )


_MORE = "holdfast COMMAND --help has the options of each."


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns its exit status."""
    words = sys.argv[1:] if argv is None else argv
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if words else _MISUSED
    if words[0] == "--version":
        print(holdfast.__version__)
        return 0
    if words[0] not in COMMANDS:
        print(f"holdfast: there is no command {words[0]!r}\n\n{usage()}", file=sys.stderr)
        return _MISUSED
    module, _ = COMMANDS[words[0]]
    status: int = import_module(module).main(words[1:])
    return status


if __name__ == "__main__":
    sys.exit(main())
