"""A virtual machine with Debian's kernel, as a host on a network of the lab.

What the kernel of the test machine lacks can be tested so. QEMU boots an installed kernel with an
initramfs made on the spot: busybox, a few programs with their libraries, and the modules asked for.
Commands go in by a virtual serial port, answers come out.

    vm = Machine(network, "kernel", modules=["wireguard"], programs=["wg"])
    vm.run("ip link add wg0 type wireguard")

Emulated, without KVM, which machines in the cloud do not have or have half: it boots in some seconds.
"""

import base64
import gzip
import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

from lab import LabError, wait_until

BOOT_SECONDS = 120  # emulated, on a busy machine
QEMU = "qemu-system-x86_64"
BUSYBOX = "/bin/busybox"
BASE_MODULES = ["virtio_pci", "virtio_net", "virtio_console"]

# Runs as process 1. Each line that comes in is a command in base64; its answer is the output in
# base64 between two marks, and the exit code. The marks cannot come from a command.
INIT = """#!/bin/sh
/bin/busybox mkdir -p /proc /sys /dev /tmp /run /sbin /usr/bin /usr/sbin
/bin/busybox --install -s
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in $(cat /modules/order); do insmod /modules/$module; done
for dad in /proc/sys/net/ipv6/conf/*/accept_dad; do echo 0 >$dad; done
ip link set lo up
exec 3<>/dev/vport0p1
echo "@ready" >&3
while read -r line <&3; do
	echo "$line" | base64 -d >/tmp/command
	sh /tmp/command >/tmp/output 2>&1
	code=$?
	echo "@begin" >&3
	base64 /tmp/output >&3
	echo "@end $code" >&3
done
poweroff -f
"""


def find_kernel(modules):
    """(vmlinuz, folder of modules) of an installed kernel that has all of them, or None."""
    for image in sorted(Path("/boot").glob("vmlinuz-*")):
        folder = Path("/lib/modules") / image.name.removeprefix("vmlinuz-")
        names = {path.name.partition(".")[0] for path in folder.glob("kernel/**/*.ko*")}
        if all(name in names for name in modules):
            return image, folder
    return None


def _with_dependencies(folder, wanted):
    """Paths of the wanted modules and of what they need, in an order to load them in."""
    needs = {}
    by_name = {}
    for line in (folder / "modules.dep").read_text().splitlines():
        path, _, rest = line.partition(":")
        needs[path] = rest.split()
        by_name[Path(path).name.partition(".")[0]] = path
    order = []

    def add(path):
        if path in order:
            return
        for need in needs[path]:
            add(need)
        order.append(path)
    for name in wanted:
        if name in by_name:  # else it is built in
            add(by_name[name])
    return [folder / path for path in order]


def _libraries(program):
    listed = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
    return re.findall(r"(/\S+) \(0x", listed)


def _copy(source, root):
    target = root / str(source).lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(os.path.realpath(source), target)
    target.chmod(0o755)


def _make_initramfs(root, image, modules, programs, plugins):
    root.mkdir()
    _copy(BUSYBOX, root)
    (root / "bin/sh").symlink_to("busybox")
    for program in programs:
        path = shutil.which(program)
        for file in [path, *_libraries(path)]:
            _copy(file, root)
        subprocess.run(["strip", root / str(path).lstrip("/")], check=True)  # its size is boot time
    for path in plugins:
        for file in [path, *_libraries(path)]:
            _copy(file, root)
    folder = root / "modules"
    folder.mkdir()
    names = []
    for path in modules:
        data = path.read_bytes()
        names.append(path.name.partition(".")[0] + ".ko")
        (folder / names[-1]).write_bytes(_unpacked(path, data))
    (folder / "order").write_text("\n".join(names) + "\n")
    (root / "init").write_text(INIT)
    (root / "init").chmod(0o755)
    files = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
    packed = subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=root, input=files.encode(),
                            capture_output=True, check=True).stdout
    image.write_bytes(gzip.compress(packed, 1))


def _unpacked(path, data):
    if path.suffix == ".xz":
        import lzma
        return lzma.decompress(data)
    if path.suffix == ".zst":
        return subprocess.run(["zstd", "-dc"], input=data, capture_output=True, check=True).stdout
    return data


class Machine:
    """A virtual machine plugged into a network of the lab. .ip and .ip6 are its addresses there."""

    def __init__(self, network, name, modules=(), programs=(), kernel=None, plugins=(), megabytes=256):
        """plugins: shared objects that a program loads by itself."""
        self.network, self.name = network, name
        image, folder = kernel or find_kernel(modules)
        work = network.folder / name
        work.mkdir()
        _make_initramfs(work / "root", work / "initramfs.gz",
                        _with_dependencies(folder, [*BASE_MODULES, *modules]), programs, plugins)
        shutil.rmtree(work / "root")
        self._line = b""
        self._listen(work / "line")
        self._make_tap()
        self.program = network.start(self._qemu(image, work, megabytes), name=name)
        self._accept()
        self._address()

    def _listen(self, path):
        # A socket's path has 108 bytes; a link keeps it short.
        self._folder_fd = os.open(path.parent, os.O_PATH)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"/proc/self/fd/{self._folder_fd}/{path.name}")
        self._listener.listen(1)
        self._listener.settimeout(1)
        self._path = f"/proc/{os.getpid()}/fd/{self._folder_fd}/{path.name}"

    def _make_tap(self):
        self.tap = self.name[:12]
        self.network._commands([f"tuntap add dev {self.tap} mode tap",
                                f"link set {self.tap} master br0 mtu {self.network.mtu} up"])

    def _qemu(self, image, work, megabytes):
        return [QEMU, "-accel", "tcg", "-cpu", "max", "-m", str(megabytes), "-nodefaults",
                "-display", "none", "-no-reboot", "-kernel", image, "-initrd", work / "initramfs.gz",
                "-append", "console=ttyS0 panic=-1 quiet",
                "-serial", "stdio",
                "-chardev", f"socket,id=line,path={self._path}", "-device", "virtio-serial-pci",
                "-device", "virtserialport,chardev=line",
                "-netdev", f"tap,id=net,ifname={self.tap},script=no,downscript=no",
                "-device", "virtio-net-pci,netdev=net,romfile="]

    def _accept(self):
        def connected():
            if not self.program.running:
                raise LabError(f"{QEMU} ended\n{self.program.tail()}")
            try:
                return self._listener.accept()[0]
            except TimeoutError:
                return None
        self._socket = wait_until(connected, 20, f"{QEMU} connects")
        self._socket.settimeout(BOOT_SECONDS)
        self._listener.close()
        while self._read_line() != b"@ready":
            pass

    def _read_line(self):
        while b"\n" not in self._line:
            try:
                more = self._socket.recv(65536)
            except TimeoutError:
                more = b""
            if not more:
                raise LabError(f"{self.name}: the machine does not answer\n{self.program.tail()}")
            self._line += more
        line, _, self._line = self._line.partition(b"\n")
        return line.strip()

    def run(self, command, check=True, timeout=60.0):
        """A line of shell; its output. LabError when it fails, unless check is False."""
        self._socket.settimeout(timeout)
        self._socket.sendall(base64.b64encode(command.encode()) + b"\n")
        lines = []
        while (line := self._read_line()) != b"@begin":
            pass
        while not (line := self._read_line()).startswith(b"@end"):
            lines.append(line)
        output = base64.b64decode(b"".join(lines)).decode(errors="replace")
        code = int(line.split()[1])
        with open(self.network.folder / f"{self.name}-run.log", "a") as log:
            log.write(f"# {command}\n{output}[{code}]\n")
        if check and code != 0:
            raise LabError(f"{self.name}: {command}: exit code {code}\n{output}")
        return output

    def succeeds(self, command):
        return self.run(f"{command} >/dev/null 2>&1; echo $?").strip() == "0"

    def _address(self):
        self.move(self.network.next_number())

    def move(self, number):
        """Takes the addresses of this number in the network, and gives up those it had."""
        v4, v6 = self.network.v4, self.network.v6
        self.run("ip addr flush dev eth0 scope global")
        if v4:
            self.ip = str(v4[number])
            self.run(f"ip addr add {self.ip}/{v4.prefixlen} dev eth0")
        if v6:
            self.ip6 = str(v6[number])
            self.run(f"ip -6 addr add {self.ip6}/{v6.prefixlen} dev eth0")
        self.run("ip link set eth0 up")

    def close(self):
        if self.program.running:
            self.program.kill()
        self._socket.close()
        os.close(self._folder_fd)
