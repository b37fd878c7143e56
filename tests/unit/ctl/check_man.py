#!/usr/bin/python3
"""check_man.py PROGRAM PAGE [COMMAND...]: every option and command of --help is in the manual page."""

import re
import subprocess
import sys


def help_of(*argv):
    done = subprocess.run([*argv, "--help"], capture_output=True, text=True, timeout=10)
    if done.returncode != 0:
        sys.exit(f"{' '.join(argv)} --help: exit code {done.returncode}\n{done.stderr}")
    return done.stdout


def commands_of(text):
    """The names below "Commands:", up to the first argument."""
    block = re.search(r"^Commands:\n((?:  .*\n)+)", text, re.M)
    if not block:
        return []
    return [re.match(r"  ([a-z][a-z -]*[a-z])(?= |$)", line)[1].split("  ")[0].strip()
            for line in block[1].splitlines()]


def main(program, page):
    with open(page, encoding="utf-8") as f:
        manual = f.read()
    text = help_of(program)
    commands = commands_of(text)
    texts = [text] + [help_of(program, *command.split()) for command in commands]
    options = {option for t in texts for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", t)}
    missing = [option for option in sorted(options) if f"*{option}*" not in manual]
    missing += [command for command in commands if f"*{command}" not in manual]
    if not options or missing:
        sys.exit(f"{page}: not described: {', '.join(missing) or 'nothing found in --help'}")
    print(f"{len(options)} options, {len(commands)} commands described")


main(*sys.argv[1:])
