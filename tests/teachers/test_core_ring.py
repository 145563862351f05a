import subprocess
import sys

OUTER = ("ray", "deepspeed", "mlflow")
"""Only the driver, the worker group and the tracking import them."""
TEACHERS = ("engine", "wires", "client", "meter", "local", "stream", "segments", "cache", "turns")
TEACHERS += ("shared", "serving")
OTHERS = ("loop", "fit", "objectives", "aggregation", "check", "finished", "run_folder")
OTHERS += ("prediction", "student.onnx", "evaluation.standalone", "check_estimate", "init")


def test_the_core_ring_works_without_ray_deepspeed_and_mlflow():
    names = [*(f"teachers.{name}" for name in TEACHERS), *OTHERS]
    code = "; ".join(
        [
            f"import sys; sys.modules |= dict.fromkeys({OUTER})",
            *(f"import distill.{name}" for name in names),
        ]
    )
    subprocess.run([sys.executable, "-c", code], check=True)
