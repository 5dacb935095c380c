"""Runs commands of the published dstack's command line, unmodified, without loading it each time.

Each line of standard input is {"dir": …, "args": […], "input": …}; the answer is {"code": …, "out": …, "err": …}. Every
command runs in a process of its own, a copy of one that has only imported the command line.
"""

import json
import os
import sys
import tempfile

import dstack._internal.cli.main as cli
import dstack.api  # noqa: F401


def run(request):
    stdin, out, err = tempfile.TemporaryFile(), tempfile.TemporaryFile(), tempfile.TemporaryFile()
    stdin.write(request["input"].encode())
    stdin.seek(0)
    child = os.fork()
    if child == 0:
        for file, number in ((stdin, 0), (out, 1), (err, 2)):
            os.dup2(file.fileno(), number)
        os.chdir(request["dir"])
        sys.argv = ["dstack", *request["args"]]
        code = 0
        try:
            cli.main()
        except SystemExit as e:
            code = e.code if isinstance(e.code, int) else int(e.code is not None)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    _, status = os.waitpid(child, 0)
    texts = []
    for file in (out, err):
        file.seek(0)
        texts.append(file.read().decode(errors="replace"))
    return {"code": os.waitstatus_to_exitcode(status), "out": texts[0], "err": texts[1]}


for line in sys.stdin:
    print(json.dumps(run(json.loads(line))), flush=True)
