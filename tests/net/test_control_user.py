"""p2pcontrol run --user: what is given to that user, and what is not."""

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest


@pytest.fixture
def state():
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    folder = Path(tempfile.mkdtemp(prefix="p2p-test-user-"))
    yield folder
    shutil.rmtree(folder)


def test_only_files_of_the_folder_become_the_users(state, build):
    nobody = pwd.getpwnam("nobody")
    program = build.program("p2pcontrol")
    with tempfile.NamedTemporaryFile(prefix="p2p-test-roots-", dir=state.parent) as roots:
        subprocess.run([program, "init", "--state-dir", state, "--name", "home", "--address", "127.0.0.1"],
                       check=True, capture_output=True)
        os.chown(state, nobody.pw_uid, nobody.pw_gid)  # as after an earlier start
        os.link(roots.name, state / "a-second-name")
        (state / "a-link").symlink_to(roots.name)
        control = subprocess.Popen([program, "run", "--state-dir", state, "--user", "nobody",
                                    "--listen", "127.0.0.1:0"], stderr=subprocess.PIPE, text=True)
        try:
            says = []
            for line in control.stderr:
                says.append(line)
                if "serving" in line:
                    break
            else:
                pytest.fail("it ended: " + "".join(says))
        finally:
            control.terminate()
            control.communicate()
        assert os.stat(roots.name).st_uid == 0
        assert os.stat(state / "a-link", follow_symlinks=False).st_uid == 0
        assert os.stat(state / "admin.link").st_uid == 0
        for name in ("ca.key", "server.key", "control.db"):
            assert os.stat(state / name).st_uid == nobody.pw_uid
