import subprocess
import sys

CORE = ("engine", "wires", "client", "meter", "local", "stream", "segments", "cache", "turns")
CORE += ("shared", "serving")


def test_the_core_ring_works_without_ray():
    code = "import sys; sys.modules['ray'] = None; " + "; ".join(
        f"import distill.teachers.{name}" for name in CORE
    )
    subprocess.run([sys.executable, "-c", code], check=True)
