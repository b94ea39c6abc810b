"""`handrail completion`: the script with which a shell completes command lines."""

from __future__ import annotations

import argparse

from handrail.cli.exit_codes import Exit

_SHELLS = ("bash", "zsh", "fish")


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    parser.description = (
        "Print the script with which a shell completes commands and options. Load it when the shell starts: "
        'eval "$(handrail completion bash)" in ~/.bashrc or, with zsh, in ~/.zshrc after compinit; '
        "handrail completion fish > ~/.config/fish/completions/handrail.fish."
    )
    parser.add_argument("shell", choices=_SHELLS, metavar="SHELL", help=f"one of {', '.join(_SHELLS)}")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Exit:
    from argcomplete.shell_integration import shellcode

    print(shellcode(["handrail"], shell=arguments.shell))
    return Exit.OK
