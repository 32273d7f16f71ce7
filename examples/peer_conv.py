"""Times PyTorch's 3x3x3 convolutions, forward and backward, for `spark3d bench --only convolutions --baseline`.

    python examples/peer_conv.py --threads 2
    python examples/peer_conv.py --device cuda --amp float16

One JSON object a line and operator, with the names of `spark3d bench`. Operations are counted as there: 2 for each
multiply-add of the dense convolution. Needs torch alone.
"""

import argparse
import json
import platform
import statistics
import time

import torch

CASES = [(32, 64), (128, 24), (320, 10)]  # channels in and out, edge in voxels


def seconds(run, device, runs, shortest):
    """Seconds of one call, for each of `runs` measurements that last `shortest` seconds at least."""

    def measure(calls):
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    calls = 1
    measure(calls)  # warms up, and lets cuDNN choose
    while (took := measure(calls)) < shortest:
        calls = max(calls + 1, min(10 * calls, int(calls * shortest / max(took, 1e-9)) + 1))
    return [measure(calls) / calls for _ in range(runs)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    parser.add_argument("--amp", choices=["float16", "bfloat16"], help="type of tensors, as autocast gives them to cuDNN")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--shortest", type=float, default=0.1, metavar="S", help="seconds of one measurement")
    args = parser.parse_args()

    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    device = torch.device(args.device)
    dtype = getattr(torch, args.amp) if args.amp else torch.float32
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()} CPU, {args.threads} threads"

    for channels, size in CASES:
        x = torch.randn(1, channels, size, size, size, device=device, dtype=dtype)
        w = torch.randn(channels, channels, 3, 3, 3, device=device, dtype=dtype) / (27 * channels) ** 0.5
        dy = torch.randn_like(x)

        def backward(wanted, x=x, w=w, dy=dy):
            one = [1, 1, 1]
            return torch.ops.aten.convolution_backward(dy, x, w, None, one, one, one, False, [0, 0, 0], 1, wanted)

        operators = {
            "conv3d": lambda x=x, w=w: torch.nn.functional.conv3d(x, w, padding=1),
            "conv3d input gradient": lambda: backward([True, False, False]),
            "conv3d weight gradient": lambda: backward([False, True, False]),
        }
        for operator, run in operators.items():
            with torch.no_grad():
                times = seconds(run, device, args.runs, args.shortest)
            median = statistics.median(times)
            line = {
                "case": f"conv3d {channels} -> {channels} @ {size}^3",
                "operator": operator,
                "gflops": 2 * 27 * channels**2 * size**3 / median / 1e9,
                "seconds_median": median,
                "seconds_all": times,
                "device": name,
                "amp": args.amp,
                "torch": torch.__version__,
            }
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
