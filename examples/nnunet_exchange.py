"""The part of nnunet_exchange.sh that needs nnU-Net: predicts with its own predictor, and compares label maps.

    python nnunet_exchange.py predict MODEL IMAGES OUT CHECKPOINT
    python nnunet_exchange.py compare OUT_NNUNET OUT_SPARK3D

`compare` prints the Dice of every class of every case and the share of voxels that differ. Exit code 1: a Dice below 0.995.
"""

import json
import sys
from pathlib import Path

LIMIT = 0.995


def predict(model, images, out, checkpoint):
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(
        tile_step_size=0.5, use_gaussian=True, use_mirroring=True, device=torch.device("cpu"), perform_everything_on_device=False
    )
    # Loads the weights strictly: every name must be there, and no other.
    predictor.initialize_from_trained_model_folder(model, None, checkpoint)
    predictor.predict_from_files(images, out, num_processes_preprocessing=1, num_processes_segmentation_export=1)


def compare(theirs, ours):
    import numpy as np
    import SimpleITK as sitk

    ending = json.loads((Path(theirs) / "dataset.json").read_text())["file_ending"]
    files = sorted(Path(theirs).glob("*" + ending))
    lowest, missing = 1.0, not files
    for file in files:
        other = Path(ours) / file.name
        if not other.exists():
            print(f"{file.name}: spark3d wrote none")
            missing = True
            continue
        a, b = sitk.ReadImage(str(file)), sitk.ReadImage(str(other))
        for get in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
            np.testing.assert_allclose(getattr(a, get)(), getattr(b, get)(), atol=1e-4, err_msg=f"{file.name}: {get}")
        a, b = sitk.GetArrayFromImage(a), sitk.GetArrayFromImage(b)
        dice = {}
        for label in np.union1d(a, b):
            if label != 0:
                dice[int(label)] = 2 * np.sum((a == label) & (b == label)) / (np.sum(a == label) + np.sum(b == label))
        lowest = min([lowest, *dice.values()])
        shown = ", ".join(f"class {label} {value:.5f}" for label, value in dice.items()) or "no foreground"
        print(f"{file.name}: Dice {shown}; {100 * np.mean(a != b):.4f} % of the voxels differ")
    print(f"lowest Dice {lowest:.5f}, required {LIMIT}")
    return 1 if missing or lowest < LIMIT else 0


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    sys.exit({"predict": predict, "compare": compare}[command](*arguments))
