"""Who serves visitors is killed, or cut off from who told it of them: visitors are let go in time, with a reset where the protocol in
between tells it from an end; what does not hang on it goes on; and when it is back, so is all else, without a human.

tests/net/test_front_door_crowds.py has the crowds, test_door_restart.py the public node's own restart.
"""

import contextlib
import os
import time

import pytest

import test_diglett
import test_webgw
from lab import LabError, wait_until
from test_door_restart import SECRET, Town, agent_pair, answers, expose, is_reset, read, request
from webgw import Agent

MUCH = 300_000


@pytest.fixture
def town(lab, build):
    return Town(lab, build)


@pytest.fixture
def webgw(lab, build):
    return test_webgw.make_town(lab, build)


@pytest.fixture
def gate(lab, build):
    return test_diglett.Gate(lab, build)


def settled(look):
    """What two looks in a row agree on."""
    seen = [look(), None]
    def is_settled():
        time.sleep(0.2)
        seen[:] = [look(), seen[0]]
        return seen[0] == seen[1]
    wait_until(is_settled, 10, "that nothing changes any more")
    return seen[0]


@contextlib.contextmanager
def leaves_nothing(program, n_warm=lambda: 0):
    """As many descriptors as before, when all is served again; but for connections that wait for the next visitors."""
    def n_open():
        return len(os.listdir(f"/proc/{program.pid}/fd")) - n_warm()
    before = settled(n_open)  # who was served just now may not be gone yet
    yield
    wait_until(lambda: n_open() <= before, 15, lambda: f"no descriptor stays: {n_open()}, {before} before")


def is_cut(end):
    """After what was said before."""
    with pytest.raises(ConnectionResetError):
        while end.recv(65536):
            pass
        raise LabError("it looks whole")
    end.close()
    return True


def is_let_go(end):
    """After what was said before. What a killed process had open its kernel ends, or resets."""
    try:
        while end.recv(65536):
            pass
    except ConnectionResetError:
        pass
    end.close()
    return True


def killed_and_back(webgw, agent):
    target = test_webgw.listening(webgw)
    first = test_webgw.REQUEST
    streams = []
    for _ in range(2):
        visitor = test_webgw.visit(webgw, first)
        carried = test_webgw.accept(target)
        assert read(carried, len(first)) == first
        streams.append((visitor, carried))
    streams[0][1].sendall(b"x" * MUCH)  # in the middle of an answer; the other one waits for his
    assert read(streams[0][0], MUCH) == b"x" * MUCH
    agent.kill()
    assert all(is_cut(visitor) for visitor, _ in streams)
    assert is_cut(test_webgw.visit(webgw, first))  # nobody is there
    agent.start()
    agent.program.wait_for_log("www.example.com leads to 127.0.0.1:8080", 15)
    target.close()
    target = test_webgw.listening(webgw)
    assert test_webgw.passes_through(test_webgw.visit(webgw, first), test_webgw.accept(target), first)
    target.close()
    wait_until(lambda: test_webgw.warm_now(webgw) == 1, 15, "that one is warm")


def test_who_is_served_by_an_agent_in_tls_that_is_killed_is_reset_and_served_when_it_is_back(webgw):
    agent = test_webgw.start_agent(webgw, "warm = 1\n")
    killed_and_back(webgw, agent)  # pipes that are kept for the next visitors are there from then on
    with leaves_nothing(webgw.relay.program):
        killed_and_back(webgw, agent)


def test_who_is_served_by_a_diglett_agent_that_is_killed_is_reset_and_served_when_it_is_back(gate):
    agent = gate.agent()
    assert gate.get() == "hello\n"
    with leaves_nothing(gate.node.program):
        with gate.visit("flood") as busy, gate.visit("echo") as waiting:
            assert busy.recv(1)
            waiting.sendall(b"a question")
            since = len(gate.told())
            agent.kill()
            assert is_cut(busy) and is_cut(waiting)
        agent.start()
        assert gate.get(since) == "hello\n"


def served_by_a_member(town, listener):
    """One in the middle of an answer; the other one waits for his."""
    busy, waiting = town.pair("published.demo", listener), town.pair("published.demo", listener)
    busy[1].sendall(b"x" * MUCH)
    assert read(busy[0], MUCH) == b"x" * MUCH
    return busy, waiting


def test_who_is_served_by_a_member_that_is_killed_is_let_go_and_served_when_it_is_back(town):
    listener = expose(town)
    for pair in served_by_a_member(town, listener):  # pipes that are kept for the next visitors are there from then on
        assert answers(*pair)
        for end in pair:
            end.close()
    with leaves_nothing(town.relay.program, lambda: town.metric('p2pnode_door_warm{door="front"}')):
        busy, waiting = served_by_a_member(town, listener)
        town.alice.kill()
        town.alice.start()
        assert is_let_go(busy[0]) and is_let_go(waiting[0])
        wait_until(lambda: town.alice.rpc("node.exposures")["exposures"][0]["state"] == "live", 20, "it is published again")
        pair = town.pair("published.demo", listener)
        assert answers(*pair)
        for end in pair:
            end.close()


def test_streams_go_on_without_what_announced_them(town):
    """An agent's control connection is lost: what it has dialled back for goes on; nobody new is led to it until it is back."""
    agent = Agent(town.agents, town.relay.host.ip)
    assert "result" in agent.register("www.example.com", SECRET)
    visitor = town.visit(request("www.example.com"))
    caller = agent.dial_back(agent.next_visit())
    assert read(caller, len(request("www.example.com"))) == request("www.example.com")
    asked = town.visit(request("www.example.com"))
    told = agent.next_visit()
    agent.close()
    assert answers(visitor, caller)
    late = agent.dial_back(told)  # its visitor waits for nobody else: he is served, or reset
    try:
        assert read(late, len(request("www.example.com"))) == request("www.example.com") and answers(asked, late)
    except ConnectionError:
        assert is_reset(asked)
    assert is_reset(town.visit(request("www.example.com")))
    assert answers(*agent_pair(town)) and answers(visitor, caller)


def test_visitors_are_served_while_control_is_away(town):
    listener = expose(town)
    streams = [town.pair(), town.pair("published.demo", listener), agent_pair(town)]
    town.overlay.control.kill()
    assert all(answers(*stream) for stream in streams)
    for host, to in (("app.demo", None), ("published.demo", listener)):
        assert answers(*town.pair(host, to))
    town.relay.program.restart_in_place()  # and over a restart as well
    assert all(answers(*stream) for stream in streams)
    assert answers(*town.pair())
    town.overlay.control.start()
    town.relay.wait_for_control()
    assert all(answers(*stream) for stream in streams)
