#!/usr/bin/python3
"""
check_man.py PROGRAM PAGE: every option and command of --help is in the manual page;
check_man.py --settings PROGRAM PAGE: every section, key and default of --show-defaults is;
check_man.py --methods SOURCE PAGE: every method of a table in C is, with an underscore escaped or not.
"""

import re
import subprocess
import sys


def said(*argv):
    done = subprocess.run(argv, capture_output=True, text=True, timeout=10)
    if done.returncode != 0:
        sys.exit(f"{' '.join(argv)}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout


def commands_of(text):
    """The names below "Commands:", up to the first argument."""
    block = re.search(r"^Commands:\n((?:  .*\n)+)", text, re.M)
    if not block:
        return []
    return [re.match(r"  ([a-z][a-z -]*[a-z])(?= |$)", line)[1].split("  ")[0].strip()
            for line in block[1].splitlines()]


def options(program):
    text = said(program, "--help")
    commands = commands_of(text)
    texts = [text] + [said(program, *command.split(), "--help") for command in commands]
    wanted = {f"*{option}*" for t in texts for option in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", t)}
    return [*wanted, *(f"*{command}" for command in commands)]


def settings(program):
    text = said(program, "--show-defaults")
    keys = re.findall(r"^#?(\w+) =[ ]*(.*)$", text, re.M)
    wanted = [f"# {section}" for section in re.findall(r"^#?(\[\w+\])$", text, re.M)]
    wanted += [f"*{key}* = _" for key, _ in keys]
    return wanted + [f"*{default}*" for _, default in keys if default]


def methods(source):
    """Those of the local API: `{ "node.status", …` in the table that decodes them."""
    with open(source, encoding="utf-8") as f:
        return [f"*{name}*" for name in re.findall(r'= \{ "([a-z]+\.[a-z_]+)",', f.read())]


def main(what, program, page):
    with open(page, encoding="utf-8") as f:
        manual = f.read().replace("\\_", "_")
    wanted = what(program)
    missing = [text for text in wanted if text not in manual]
    if not wanted or missing:
        sys.exit(f"{page}: not there: {', '.join(missing) or 'nothing was found to look for'}")
    print(f"{len(wanted)} described")


if sys.argv[1] == "--settings":
    main(settings, *sys.argv[2:])
elif sys.argv[1] == "--methods":
    main(methods, *sys.argv[2:])
else:
    main(options, *sys.argv[1:])
