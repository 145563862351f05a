"""A cluster that is not there, in a process that has no Ray of its own."""

import pickle
import subprocess
import sys

import pytest

from distill.errors import UnreachableError


@pytest.mark.slow
def test_an_address_that_does_not_answer_is_named():
    """Instead of waiting for it: what hangs, the session's timeout would end."""
    code = (
        "from distill.cluster.connect import connect\n"
        "from distill.config import Cluster\n"
        "import pickle, sys\n"
        "try:\n"
        "    with connect(Cluster(address='127.0.0.1:1')): pass\n"
        "except Exception as error: sys.stdout.buffer.write(pickle.dumps(error))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    error = pickle.loads(done.stdout)
    assert isinstance(error, UnreachableError)
    assert "cluster.address '127.0.0.1:1'" in str(error)
