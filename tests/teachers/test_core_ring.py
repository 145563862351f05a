import subprocess
import sys

OUTER = ("ray", "deepspeed", "mlflow")
"""Only the driver, the worker group and the tracking import them."""
TEACHERS = ("engine", "client", "meter", "local", "stream", "segments", "cache", "turns")
TEACHERS += ("shared", "serving")
OTHERS = ("training.loop", "training.fit", "objectives", "aggregation", "wires", "run_folder")
OTHERS += ("driver.checks.check", "driver.checks.estimate", "driver.finished", "init")
OTHERS += ("driver.evaluate.standalone", "export.prediction", "export.onnx")


def test_the_core_ring_works_without_ray_deepspeed_and_mlflow():
    names = [*(f"teachers.{name}" for name in TEACHERS), *OTHERS]
    code = "; ".join(
        [
            f"import sys; sys.modules |= dict.fromkeys({OUTER})",
            *(f"import distill.{name}" for name in names),
        ]
    )
    subprocess.run([sys.executable, "-c", code], check=True)
