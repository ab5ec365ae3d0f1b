"""Child processes: results, each cause of failure, and that none outlives its parent."""

import ctypes
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tfkd import errors
from tfkd._internal import isolation

# What the children run; they import this module as this process does.
HERE = __name__


def double(array):
    print("chatter on stdout")
    os.write(2, b"chatter from C\n")
    return array * 2


def raise_value_error():
    os.write(2, b"the library said so\n")
    raise ValueError("scale must be > 0. Received: 0.")


def raise_lookup_error():
    raise LookupError("no such op")


class LibraryError(Exception):
    """What a library raises that has exceptions of its own."""


def raise_library_error():
    raise LibraryError("no such op")


def raise_of_tfkd(name):
    os.write(2, b"chatter\n")
    raise getattr(errors, name)("temperature must be > 0, got -1.0.")


def return_what_does_not_pickle():
    return lambda: None


def die(number):
    os.write(2, b"last words\n")
    os.kill(os.getpid(), number)


def abort():
    os.abort()


def leave(status):
    os._exit(status)


def reply_and_leave_badly():
    import atexit

    atexit.register(os.abort)
    return "a whole result"


def sleep(path=None, seconds=60):
    if path:
        grandchild = subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({seconds})"])
        Path(path).write_text(f"{os.getpid()} {grandchild.pid}")
    os.write(2, b"waiting\n")
    time.sleep(seconds)


def sleep_with_the_lock(path):
    """Sleeps in native code that keeps the interpreter's lock, so that no thread of this process runs."""
    grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(path).write_text(f"{os.getpid()} {grandchild.pid}")
    ctypes.PyDLL(None).sleep(600)


prepared_by = []


def prepare():
    prepared_by.append(os.getpid())


def who_prepared():
    return prepared_by, os.getpid(), os.environ.get("WORD"), os.getcwd()


def environment(name):
    return os.environ.get(name), os.getcwd()


def run(function, **kwargs):
    return isolation.run(f"{HERE}:{function}", **{"timeout_s": 60, "what": "testing", **kwargs})


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition):
    for _ in range(600):
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_run_gives_the_result_and_stays_silent(capfd):
    array = np.arange(6, dtype=np.int8).reshape(2, 3)
    result = run("double", array=array)
    np.testing.assert_array_equal(result, array * 2)
    assert result.dtype == np.int8
    assert capfd.readouterr() == ("", "")


def test_run_hands_on_environment_and_working_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    monkeypatch.chdir(tmp_path)
    assert run("environment", name="TF_CPP_MIN_LOG_LEVEL") == ("3", str(tmp_path))


def test_run_ignores_modules_in_the_working_directory(monkeypatch, tmp_path):
    (tmp_path / "pickle.py").write_text("raise SystemExit('a stranger was imported')")
    monkeypatch.chdir(tmp_path)
    assert run("double", array=2) == 4


@pytest.mark.parametrize("name", ["InputError", "ModelError", "ToolMissingError", "DeviceError"])
def test_run_error_of_tfkd_keeps_its_class_and_message(name):
    with pytest.raises(errors.TfkdError, match=r"^temperature must be > 0, got -1.0.$") as raised:
        run("raise_of_tfkd", name=name)
    assert raised.type is getattr(errors, name)


def test_run_value_error_of_a_library_is_a_refused_model():
    with pytest.raises(isolation.ChildRefused, match=r"^scale must be > 0. Received: 0.\n.*\nthe library said so$"):
        run("raise_value_error")
    assert issubclass(isolation.ChildRefused, errors.ModelError)


def test_run_exception_class_of_a_library_is_a_refused_model():
    with pytest.raises(isolation.ChildRefused, match=r"^LibraryError: no such op$"):
        run("raise_library_error")


@pytest.mark.parametrize(
    ("function", "kwargs", "traceback"),
    [
        ("raise_lookup_error", {}, r"raise LookupError\(.no such op.\)"),  # which no library raises on purpose
        ("double", {"wrong": 1}, "TypeError: double\\(\\) got an unexpected keyword argument"),
        ("return_what_does_not_pickle", {}, "pickle"),
    ],
)
def test_run_unexpected_error_has_the_traceback_of_the_child(function, kwargs, traceback):
    with pytest.raises(
        isolation.ChildFailed, match=rf"^testing: unexpected (.|\n)*Traceback(.|\n)*{traceback}"
    ) as raised:
        run(function, **kwargs)
    assert not isinstance(raised.value, errors.TfkdError)


def test_run_value_error_in_frames_of_tfkd_is_a_bug():
    # Unpacking three values into two, as an example of a bug.
    with pytest.raises(isolation.ChildFailed, match="unexpected ValueError: too many values to unpack"):
        isolation.run("tfkd._internal.worker:_find", timeout_s=60, what="testing", function="a:b:c")


@pytest.mark.parametrize(
    ("number", "name"), [(signal.SIGSEGV, "SIGSEGV"), (signal.SIGABRT, "SIGABRT"), (signal.SIGFPE, "SIGFPE")]
)
def test_run_child_that_dies_of_a_signal_is_a_crash(number, name):
    with pytest.raises(
        isolation.ChildCrashed, match=rf"testing: the process crashed \(signal {name}\)(.|\n)*\nlast words$"
    ):
        run("die", number=int(number))


@pytest.mark.parametrize("status", [0, 1, 3])
def test_run_child_that_exits_without_a_result_is_a_crash(status):
    with pytest.raises(isolation.ChildCrashed, match=rf"the process crashed \(exit status {status}\)"):
        run("leave", status=status)


def test_run_result_is_not_lost_to_a_bad_exit():
    assert run("reply_and_leave_badly") == "a whole result"


def test_run_child_that_hangs_is_killed_with_what_it_started(tmp_path):
    path = tmp_path / "pids"
    with pytest.raises(isolation.ChildTimedOut, match=r"testing: timed out after 5 s(.|\n)*waiting$"):
        run("sleep", path=str(path), timeout_s=5)
    for pid in path.read_text().split():
        assert wait_for(lambda pid=pid: not alive(pid))


def started(script):
    """A Python process that runs lines which use `isolation`."""
    return subprocess.Popen(
        [sys.executable, "-c", f"from tfkd._internal import isolation\n{script}"],
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )


def started_by_another_process(function, path):
    """A process that runs a function in two children, once both children and what they started live; and their ids."""
    paths = [f"{path}-{i}" for i in range(2)]
    parent = started(
        f"isolation.run_all('{HERE}:{function}', [dict(path=p) for p in {paths!r}], timeout_s=600, what='testing')"
    )
    assert wait_for(lambda: all(Path(p).exists() and len(Path(p).read_text().split()) == 2 for p in paths))
    return parent, [pid for p in paths for pid in Path(p).read_text().split()]


@pytest.mark.parametrize("function", ["sleep", "sleep_with_the_lock"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_run_ends_with_its_parent(function, number, tmp_path):
    parent, pids = started_by_another_process(function, tmp_path / "pids")
    parent.send_signal(number)
    words = parent.communicate(timeout=30)[1]
    assert (b"KeyboardInterrupt" in words) == (number == signal.SIGINT)
    for pid in pids:
        assert wait_for(lambda pid=pid: not alive(pid))


def test_child_without_a_supervisor_ends_with_its_parent(tmp_path):
    """Platforms other than Linux watch the parent in a thread."""
    request, pids = tmp_path / "request", tmp_path / "pids"
    request.write_bytes(pickle.dumps((f"{HERE}:sleep", {"path": str(pids), "seconds": 600})))
    script = (
        "import sys; from pathlib import Path; from tfkd._internal import worker\n"
        "sys.platform = 'darwin'\n"
        f"worker.serve(Path({str(request)!r}), Path({str(tmp_path / 'reply')!r}), '')"
    )
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    child = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    child.stdin.write(b"\n")
    child.stdin.flush()
    assert wait_for(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    child.stdin.close()  # as the end of the parent does
    assert child.wait(timeout=30) == -signal.SIGKILL
    for pid in pids.read_text().split():
        assert wait_for(lambda pid=pid: not alive(pid))


def call_prepared(function, first="prepare", **kwargs):
    with isolation.prepared(f"{HERE}:{first}") as call:
        return call(f"{HERE}:{function}", **{"timeout_s": 60, "what": "testing", **kwargs})


def test_prepared_child_is_new_for_each_call_and_its_preparations_are_not(monkeypatch, tmp_path):
    (preparer, *_), first, *_ = call_prepared("who_prepared")
    monkeypatch.setenv("WORD", "later")
    monkeypatch.chdir(tmp_path)
    (again, *_), second, word, folder = call_prepared("who_prepared")
    assert (word, folder) == ("later", str(tmp_path))
    assert len({first, second, os.getpid()}) == 3
    assert sys.platform != "linux" or preparer == again != first


def test_prepared_child_has_an_environment_of_any_size(monkeypatch):
    for number in range(8):
        monkeypatch.setenv(f"LARGE_{number}", "x" * 100_000)
    monkeypatch.setenv("WORD", "small")
    assert call_prepared("who_prepared")[2] == "small"


def test_prepared_child_reads_import_variables_anew(monkeypatch):
    (first, *_), *_ = call_prepared("who_prepared")
    monkeypatch.setenv("TF_TEST", "1")
    (second, *_), *_ = call_prepared("who_prepared")
    assert first != second


def test_prepared_child_reports_failed_preparations():
    with pytest.raises(isolation.ChildRefused, match="scale must be > 0"):
        call_prepared("who_prepared", first="raise_value_error")


def test_prepared_child_whose_preparations_crash_is_a_crash():
    with pytest.raises(isolation.ChildCrashed, match=r"testing: the process crashed \(while it started\)"):
        call_prepared("who_prepared", first="abort")


def test_prepared_child_keeps_exit_status_and_output_of_a_crash():
    with pytest.raises(isolation.ChildCrashed, match=r"the process crashed \(signal SIGSEGV\)(.|\n)*last words$"):
        call_prepared("die", number=int(signal.SIGSEGV))
    assert call_prepared("double", array=2) == 4


def test_prepared_child_that_hangs_is_killed_with_what_it_started(tmp_path):
    path = tmp_path / "pids"
    with pytest.raises(isolation.ChildTimedOut, match=r"testing: timed out after 5 s(.|\n)*waiting$"):
        call_prepared("sleep", path=str(path), timeout_s=5)
    for pid in path.read_text().split():
        assert wait_for(lambda pid=pid: not alive(pid))


def test_prepared_child_that_gets_no_request_does_no_harm():
    with isolation.prepared(f"{HERE}:prepare"):
        pass
    assert call_prepared("double", array=2) == 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_prepared_child_ends_with_its_parent(number, tmp_path):
    pids = tmp_path / "pids"
    parent = started(
        f"with isolation.prepared('{HERE}:prepare') as call:\n"
        f"    call('{HERE}:sleep', path='{pids}', seconds=600, timeout_s=600, what='testing')"
    )
    assert wait_for(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    templates = children.read_text().split() if children.exists() else []
    parent.send_signal(number)
    parent.communicate(timeout=30)
    for pid in [*pids.read_text().split(), *templates]:
        assert wait_for(lambda pid=pid: not alive(pid))


def test_run_all_gives_results_in_order():
    assert isolation.run_all(f"{HERE}:double", [{"array": n} for n in (3, 1, 2)], timeout_s=60, what="testing") == [
        6,
        2,
        4,
    ]


def test_run_all_stops_the_others_at_the_first_failure():
    calls = [{"seconds": "not a number"}, {"seconds": 300}]
    with pytest.raises(isolation.ChildFailed, match="TypeError: 'str' object cannot be"):
        isolation.run_all(f"{HERE}:sleep", calls, timeout_s=600, what="testing")
