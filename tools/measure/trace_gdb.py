"""Runs inside gdb: follows the calls that the driver marks, and writes them down as JSON.

The environment says: TRACE_TREE, the sources whose functions count; TRACE_SYMBOLS, the program's
functions, an address and a name a line; TRACE_OUT, what to write.
"""

import json
import os

import gdb

TREE = os.environ["TRACE_TREE"] + "/"
calls = []  # of dictionaries: name, events, published (events until then), frames_published
active = None


def own_file(symtab):
    """The path within the tree, or None for code of other crates."""
    path = symtab.fullname() if symtab else ""
    return path.removeprefix(TREE) if path.startswith(TREE) else None


def own_depth():
    """The tree's frames on the stack, down to the driver's."""
    depth = 0
    frame = gdb.newest_frame()
    while frame is not None and not (frame.name() or "").startswith("driver::traced"):
        depth += own_file(frame.find_sal().symtab) is not None
        frame = frame.older()
    return depth


class Entry(gdb.Breakpoint):
    """The entry of one of the tree's functions."""

    def __init__(self, address, **what):
        super().__init__(f"*{address:#x}", internal=True)
        self.silent = True
        self.what = what

    def stop(self):
        # Only the thread that calls: not the library's own.
        if active is not None and gdb.selected_thread().num == 1:
            active["events"].append({**self.what, "depth": own_depth()})
        return False


class Published(gdb.Breakpoint):
    """A change of the word that publishes."""

    def stop(self):
        if active is not None:
            active["published"] = len(active["events"])
            active["frames_published"] = own_depth()
        return False


def break_on_own_functions(base):
    for line in open(os.environ["TRACE_SYMBOLS"]):
        address, name = line.rstrip("\n").split(" ", 1)
        address = base + int(address, 16)
        file = own_file(gdb.find_pc_line(address).symtab)
        block = gdb.block_for_pc(address)
        if file and block and block.function:
            Entry(address, name=name, file=file, line=block.function.line)


def argument(name):
    value = gdb.selected_frame().read_var(name)
    if value.type.code == gdb.TYPE_CODE_INT:
        return int(value)
    return bytes(gdb.selected_inferior().read_memory(value["data_ptr"], int(value["length"]))).decode()


def at_marker(marker):
    global active
    if marker == "driver::watch":
        word = f"*({argument('address')} as *const u64)"
        Published(word, gdb.BP_WATCHPOINT, gdb.WP_WRITE, internal=True).silent = True
        return
    active = None
    if call := argument("name"):
        active = {"name": call, "events": [], "published": None, "frames_published": None}
        calls.append(active)


def load_address():
    program = gdb.current_progspace().filename
    maps = open(f"/proc/{gdb.selected_inferior().pid}/maps").read().splitlines()
    return min(int(line.split("-")[0], 16) for line in maps if line.endswith(program))


def run():
    for setting in ["pagination off", "confirm off", "breakpoint always-inserted on", "language rust"]:
        gdb.execute(f"set {setting}", to_string=True)
    # The library's signals are its own affair; gdb's are SIGTRAP.
    gdb.execute("handle all nostop noprint pass", to_string=True)
    gdb.execute("handle SIGTRAP stop noprint nopass", to_string=True)
    gdb.execute("starti", to_string=True)
    gdb.Breakpoint("driver::mark")
    gdb.Breakpoint("driver::watch")
    break_on_own_functions(load_address())
    while True:
        gdb.execute("continue", to_string=True)
        if not gdb.selected_inferior().pid:
            break
        at_marker(gdb.selected_frame().name())
    if int(gdb.parse_and_eval("$_exitcode")) != 0:
        raise gdb.GdbError("the driver failed")


run()
with open(os.environ["TRACE_OUT"], "w") as out:
    json.dump(calls, out)
