"""The peer of `spark3d bench --only loader`: nnssl's augmentation of pre-training patches with batchgenerators, from the same
store.

    python examples/peer_augment.py STORE [--threads 2] [--seconds 30] [--patch 160]

Needs `pip install zarr batchgenerators`. Prints one JSON line. The arrays are copied to uncompressed memory maps first (in a
temporary folder, removed at the end; up to --cases of them) and read once, which is kinder to the peer than its own compressed
files. Each worker is a process of its own that counts its patches and hands none over, so that nothing is lost between processes.

The transforms are those of nnssl's BaseMAETrainer.get_training_transforms: SpatialTransform (rotation of up to 30 degrees about
each axis with p 0.2, isotropic scale 0.7-1.4 with p 0.2, cubic splines, zeros around) of a crop of 257 voxels to 160, and
MirrorTransform.
"""

import argparse
import json
import multiprocessing
import os
import tempfile
import time

# One core a worker: set before numpy is imported.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np

DEGREES = 30.0


def crop_size(patch):
    """nnU-Net's get_patch_size for rotations about single axes, enlarged by 1 / 0.85 for the scale."""
    from batchgenerators.augmentations.utils import rotate_coords_3d

    angle = DEGREES / 360 * 2 * np.pi
    size = np.array([patch] * 3, dtype=float)
    largest = size.copy()
    for angles in ((angle, 0, 0), (0, angle, 0), (0, 0, angle)):
        largest = np.max(np.vstack((np.abs(rotate_coords_3d(size, *angles)), largest)), axis=0)
    return (largest / 0.85).astype(int)


def crop(image, start, size):
    """A box of the image, with zeros beyond it."""
    out = np.zeros(size, np.float32)
    low = np.clip(start, 0, image.shape)
    high = np.clip(start + size, low, image.shape)
    at = low - start
    inside = tuple(slice(a, a + h - l) for a, l, h in zip(at, low, high))
    out[inside] = image[tuple(slice(l, h) for l, h in zip(low, high))]
    return out


def worker(seed, files, patch, seconds, ready, results):
    from batchgenerators.transforms.abstract_transforms import Compose
    from batchgenerators.transforms.spatial_transforms import MirrorTransform, SpatialTransform

    radians = (-DEGREES / 360 * 2 * np.pi, DEGREES / 360 * 2 * np.pi)
    transforms = Compose(
        [
            SpatialTransform(
                [patch] * 3, patch_center_dist_from_border=None, do_elastic_deform=False, alpha=(0, 0), sigma=(0, 0),
                do_rotation=True, angle_x=radians, angle_y=radians, angle_z=radians, p_rot_per_axis=1, do_scale=True,
                scale=(0.7, 1.4), border_mode_data="constant", border_cval_data=0, order_data=3, random_crop=False,
                p_el_per_sample=0, p_scale_per_sample=0.2, p_rot_per_sample=0.2, independent_scale_for_each_axis=False,
            ),
            MirrorTransform((0, 1, 2)),
        ]
    )
    np.random.seed(seed)
    images = [np.load(file, mmap_mode="r") for file in files]
    size = crop_size(patch)

    def one():
        image = images[np.random.choice(len(images))]
        pad = np.maximum(size - patch, size - np.array(image.shape))
        low = -pad // 2
        high = np.array(image.shape) + pad // 2 + pad % 2 - size
        start = np.array([np.random.randint(l, max(l, h) + 1) for l, h in zip(low, high)])
        data = transforms(data=crop(image, start, size)[None, None])["data"]
        assert data.shape == (1, 1, patch, patch, patch)

    one()
    ready.wait()
    begin = time.perf_counter()
    patches = 0
    while time.perf_counter() - begin < seconds:
        one()
        patches += 1
    results.put((patches, time.perf_counter() - begin))


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("store")
    arguments.add_argument("--threads", type=int, default=os.cpu_count())
    arguments.add_argument("--seconds", type=float, default=30.0)
    arguments.add_argument("--patch", type=int, default=160)
    arguments.add_argument("--cases", type=int, default=24)
    arguments = arguments.parse_args()

    import zarr

    with open(os.path.join(arguments.store, "manifest.json")) as file:
        cases = json.load(file)["cases"][: arguments.cases]
    group = zarr.open(arguments.store, mode="r")
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for n, case in enumerate(cases):
            files.append(os.path.join(folder, f"{n}.npy"))
            np.save(files[-1], group[case["array"]][:].astype(np.float32))
        for file in files:
            np.load(file).sum()
        context = multiprocessing.get_context("spawn")
        ready, results = context.Barrier(arguments.threads), context.Queue()
        workers = [
            context.Process(target=worker, args=(n, files, arguments.patch, arguments.seconds, ready, results))
            for n in range(arguments.threads)
        ]
        for process in workers:
            process.start()
        counts = [results.get() for _ in workers]
        for process in workers:
            process.join()
    import batchgenerators

    version = getattr(batchgenerators, "__version__", None)
    if version is None:
        from importlib.metadata import version as installed

        version = installed("batchgenerators")
    rate = sum(patches / seconds for patches, seconds in counts)
    report = {
        "peer": "batchgenerators", "version": version, "patches_per_s": rate, "threads": arguments.threads,
        "patch": arguments.patch, "crop": [int(n) for n in crop_size(arguments.patch)],
        "patches": sum(patches for patches, _ in counts), "seconds": arguments.seconds,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
