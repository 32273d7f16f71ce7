//! `spark3d predict` as a user runs it, with a model folder of nnU-Net: what is written, what is left alone, and what is said of
//! bad input. Whether the label maps are right is for `tests/parity.rs`.

mod support;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use spark3d::compute::device::Gpu;
use spark3d::compute::graph::{Precision, Session};
use spark3d::data::preprocess::case::interpolation;
use spark3d::data::resample::{resample, resample_labels};
use spark3d::formats::nifti;
use spark3d::formats::nnunet::{Interpolation, Resampling};
use spark3d::inference::predict::model::SegmentationModel;
use spark3d::inference::predict::segmenter::{Event, Options, Segmenter, plan_first, predict as run};
use spark3d::inference::weights::WeightFile;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::rc::Rc;
use support::{copy, gpu, stores, text};

const MODEL: &str = "nnUNetTrainer__nnUNetResEncTestPlans__3d_fullres";

fn fixture(name: &str) -> PathBuf {
    support::fixture("nnunet").join(name)
}

fn predict(arguments: &[&str]) -> Output {
    let first = ["predict", "--progress", "plain", "--step-size", "1", "--no-mirror"];
    support::spark3d(&[&first[..], arguments].concat()).output().unwrap()
}

fn path(folder: &tempfile::TempDir, name: &str) -> String {
    folder.path().join(name).to_str().unwrap().to_string()
}

/// Regions, two folds, a transposed patch of thick slices, a plain encoder, a mask, mirroring along two axes. The reference adds
/// up tiles in 32-bit floats, so nothing but the rounding of single operations differs.
#[test]
fn everything_at_once_agrees_with_nnunet() {
    let gpu = gpu();
    let (wrong, error) = compared_with_nnunet(&gpu, Precision::F32);
    assert!(wrong <= 1e-3 && error < 1e-4, "{wrong} of the voxels differ, probabilities by {error}");
    // Of a probability in the middle, 16 bits of features leave two to three decimal places.
    if stores(&gpu, Precision::F16) {
        let (wrong, error) = compared_with_nnunet(&gpu, Precision::F16);
        assert!(
            wrong <= 1e-2 && (1e-5..1e-2).contains(&error),
            "{wrong} of the voxels differ, probabilities by {error}"
        );
    }
}

/// Share of the voxels with another label, and the largest difference of probabilities.
fn compared_with_nnunet(gpu: &Rc<Gpu>, precision: Precision) -> (f64, f32) {
    let folder = support::fixture("nnunet_regions");
    let out = tempfile::tempdir().unwrap();
    let options = Options {
        model: folder.join("nnUNetTrainer__nnUNetPlans__3d_fullres"),
        input: folder.join("imagesTs"),
        out: out.path().to_path_buf(),
        folds: vec!["0".into(), "1".into()],
        checkpoint: "final".into(),
        mirror: true,
        step: 0.5,
        precision,
        probabilities: true,
        overwrite: false,
        memory: None,
    };
    let mut runs = 0;
    let summary = run(gpu, &options, &mut |event| {
        if let Event::Ran { .. } = event {
            runs += 1;
        }
    });
    assert!(summary.unwrap().failed.is_empty());
    assert_eq!(runs % 8, 0, "two folds and four mirrored variants of every tile");
    let read = |folder: &Path| nifti::read_labels(&folder.join("case.nii.gz")).unwrap().volume;
    let (got, want) = (read(out.path()), read(&folder.join("expected")));
    assert!((0..4).all(|label| want.data.contains(&(label as f32))), "every label occurs");
    let wrong = got.data.iter().zip(&want.data).filter(|(a, b)| a != b).count();
    assert_eq!(got.shape, want.shape);
    let wrong = wrong as f64 / want.data.len() as f64;
    let (got, want) = (array(&out.path().join("case.npz")), array(&folder.join("expected/case.npz")));
    let error = got.iter().zip(&want).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    assert_eq!(got.len(), want.len());
    (wrong, error)
}

/// The values of the array `probabilities` of an `.npz` file.
fn array(path: &Path) -> Vec<f32> {
    let mut zip = zip::ZipArchive::new(std::fs::File::open(path).unwrap()).unwrap();
    let mut bytes = Vec::new();
    zip.by_name("probabilities.npy").unwrap().read_to_end(&mut bytes).unwrap();
    let header = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    bytes[10 + header..].as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
}

#[test]
fn a_bad_scan_does_not_keep_the_others_and_results_stay() {
    let folder = tempfile::tempdir().unwrap();
    let (images, out) = (folder.path().join("images"), path(&folder, "out/deep"));
    copy(&fixture("imagesTs"), &images);
    for channel in 0..2 {
        let whole = std::fs::read(fixture("imagesTs").join("case1_0000.nii.gz")).unwrap();
        std::fs::write(images.join(format!("broken_{channel:04}.nii.gz")), &whole[..whole.len() / 2]).unwrap();
    }
    let model = fixture(MODEL);
    let arguments = ["-m", model.to_str().unwrap(), "-i", images.to_str().unwrap(), "-o", &out];
    let first = predict(&arguments);
    assert_eq!(first.status.code(), Some(1), "{}", text(&first.stderr));
    assert!(text(&first.stderr).contains("1 of the scans could not be predicted"), "{}", text(&first.stderr));
    assert!(text(&first.stderr).contains("broken_0000.nii.gz") && text(&first.stdout).contains("2 label maps"));
    let result = Path::new(&out).join("case1.nii.gz");
    let like = nifti::read(&images.join("case1_0000.nii.gz")).unwrap();
    let labels = nifti::read_labels(&result).unwrap();
    assert_eq!((labels.volume.shape, labels.affine), (like.volume.shape, like.affine));
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), 2, "nothing of the broken scan");

    // The scan is repaired: it alone is predicted, to the same bytes as the one it is a copy of.
    for channel in 0..2 {
        let name = |case: &str| images.join(format!("{case}_{channel:04}.nii.gz"));
        std::fs::copy(name("case1"), name("broken")).unwrap();
    }
    std::fs::write(Path::new(&out).join("case0.nii.gz"), b"kept").unwrap();
    let second = predict(&arguments);
    assert!(second.status.success(), "{}", text(&second.stderr));
    assert!(text(&second.stdout).contains("1 label maps") && text(&second.stdout).contains("2 were there"));
    assert_eq!(std::fs::read(Path::new(&out).join("case0.nii.gz")).unwrap(), b"kept");
    let (copy, original) = (Path::new(&out).join("broken.nii.gz"), std::fs::read(&result).unwrap());
    assert!(std::fs::read(&copy).unwrap() == original, "the same scan gives the same bytes");

    // One scan of two channels by its first file, to a file, again.
    let (single, file) = (images.join("case1_0000.nii.gz"), path(&folder, "one.nii"));
    let third = predict(&["-m", arguments[1], "-i", single.to_str().unwrap(), "-o", &file, "--save-probabilities"]);
    assert!(third.status.success(), "{}", text(&third.stderr));
    assert_eq!(nifti::read_labels(Path::new(&file)).unwrap().volume.data, labels.volume.data);
    assert!(folder.path().join("one.npz").exists());
    let many = predict(&["-m", arguments[1], "-i", arguments[3], "-o", &file]);
    assert_eq!(many.status.code(), Some(2), "{}", text(&many.stderr));
}

#[test]
fn a_scan_without_one_of_its_channels_does_not_keep_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let (images, out) = (folder.path().join("images"), path(&folder, "out"));
    std::fs::create_dir(&images).unwrap();
    for name in ["case1_0000.nii.gz", "case1_0001.nii.gz"] {
        std::fs::copy(fixture("imagesTs").join(name), images.join(name)).unwrap();
    }
    // The first by name, so that the other one comes after the failure.
    std::fs::copy(images.join("case1_0000.nii.gz"), images.join("alone_0000.nii.gz")).unwrap();
    let model = fixture(MODEL);
    let output = predict(&["-m", model.to_str().unwrap(), "-i", images.to_str().unwrap(), "-o", &out]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("alone_0001.nii.gz: case alone has no such image"), "{said}");
    assert!(said.contains("1 of the scans could not be predicted"), "{said}");
    let written: Vec<_> = std::fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(written, ["case1.nii.gz"]);
}

#[test]
fn bad_models_and_options_are_told_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let (images, out) = (fixture("imagesTs"), path(&folder, "out"));
    let fails = |model: &Path, more: &[&str]| {
        let mut arguments = vec!["-m", model.to_str().unwrap(), "-i", images.to_str().unwrap(), "-o", &out];
        arguments.extend(more);
        let output = predict(&arguments);
        assert!(!output.status.success() && !Path::new(&out).exists());
        assert!(!text(&output.stderr).contains("panicked"), "{}", text(&output.stderr));
        text(&output.stderr)
    };
    let good = fixture(MODEL);
    assert!(fails(&good, &["--fold", "3"]).contains("fold_3"));
    assert!(fails(&good, &["--checkpoint", "best"]).contains("checkpoint_best"));
    let onto = images.to_str().unwrap();
    assert!(
        text(&predict(&["-m", good.to_str().unwrap(), "-i", onto, "-o", onto]).stderr).contains("another one with -o")
    );
    let error = fails(&good, &["--dry-run", "--memory", "100KiB"]);
    assert!(error.contains("Give --memory"), "{error}");

    let changed = |file: &str, from: &str, to: &str| {
        let copied = folder.path().join("model");
        _ = std::fs::remove_dir_all(&copied);
        copy(&good, &copied);
        let before = std::fs::read_to_string(copied.join(file)).unwrap();
        assert!(before.contains(from), "{file} has no {from}");
        std::fs::write(copied.join(file), before.replacen(from, to, 1)).unwrap();
        copied
    };
    let error = fails(&changed("dataset.json", "\"c2\": 2", "\"c2\": 2, \"c3\": 3"), &[]);
    assert!(error.contains("another architecture") && error.contains("decoder.seg_layers.1.weight"), "{error}");
    let error = fails(&changed("dataset.json", "\"0\": \"mr0\",", "\"0\": \"mr0\", \"2\": \"mr2\","), &[]);
    assert!(error.contains("2 channels") && error.contains("has 3"), "{error}");
    let error = fails(&changed("plans.json", "ResidualEncoderUNet", "PlainConvUNet"), &[]);
    assert!(error.contains("n_conv_per_stage"), "{error}");
    let copied = changed("plans.json", "{", "{");
    let checkpoint = copied.join("fold_0/checkpoint_final.pth");
    let bytes = std::fs::read(&checkpoint).unwrap();
    std::fs::write(&checkpoint, &bytes[..bytes.len() / 2]).unwrap();
    assert!(fails(&copied, &[]).contains("checkpoint_final.pth"));
    std::fs::remove_file(copied.join("plans.json")).unwrap();
    assert!(fails(&copied, &[]).contains("plans.json"));
}

#[test]
fn the_checkpoint_alone_is_a_model_and_its_memory_is_what_was_planned() {
    let gpu = gpu();
    let file = fixture(MODEL).join("fold_0/checkpoint_final.pth");
    let (alone, folder) = (
        SegmentationModel::open(&file, &[], "final").unwrap(),
        SegmentationModel::open(&fixture(MODEL), &[], "final").unwrap(),
    );
    assert_eq!(alone.plans, folder.plans);
    assert_eq!((&alone.network, &alone.mirror_axes), (&folder.network, &vec![0, 1, 2]));
    let options = Options {
        model: file,
        input: fixture("imagesTs"),
        out: PathBuf::from("/nowhere/at/all"),
        folds: vec![],
        checkpoint: "final".into(),
        mirror: true,
        step: 0.5,
        precision: Precision::F32,
        probabilities: false,
        overwrite: false,
        memory: None,
    };
    let (segmenter, id, grid, planned) = plan_first(&gpu, &options).unwrap();
    // As many tiles as the fixture says of case0, each in 8 variants.
    assert_eq!((id.as_str(), segmenter.runs(&grid)), ("case0", 48 * 8));
    let model = SegmentationModel::open(&options.model, &[], "final").unwrap();
    let patch = model.configuration.patch_size;
    let built = spark3d::compute::model::predictor(&model.network, patch, Precision::F32);
    assert!(Segmenter::new(gpu.clone(), model, true, 1.5).is_err());
    let session = Session::new(gpu.clone(), vec![built.graph], None).unwrap();
    assert_eq!(session.memory().total(), planned.device());
}

/// Networks with other layers than those that nnU-Net plans, and scans that PyTorch resamples: `make.py` of the fixture has the list.
#[test]
fn networks_with_other_layers_agree_with_nnunet() {
    let (gpu, folder) = (gpu(), support::fixture("nnunet_layers"));
    for model in [
        "batch",
        "batch_residual",
        "batch_trainer",
        "batch_nonlin_first",
        "tracked",
        "nonlin_first",
        "no_norm",
        "not_affine",
    ] {
        let out = tempfile::tempdir().unwrap();
        let options = Options {
            model: folder.join(model),
            input: folder.join("imagesTs"),
            out: out.path().to_path_buf(),
            folds: vec![],
            checkpoint: "final".into(),
            mirror: true,
            step: 0.5,
            precision: Precision::F32,
            probabilities: true,
            overwrite: false,
            memory: None,
        };
        let summary = run(&gpu, &options, &mut |_| {}).unwrap_or_else(|e| panic!("{model}: {e}"));
        assert!(summary.failed.is_empty(), "{model}: {:?}", summary.failed);
        let read = |path: PathBuf| nifti::read_labels(&path).unwrap().volume.data;
        let got = read(out.path().join("case.nii.gz"));
        let want = read(folder.join(model).join("expected/case.nii.gz"));
        let wrong = got.iter().zip(&want).filter(|(a, b)| a != b).count();
        assert!(got.len() == want.len() && 1000 * wrong <= 3 * want.len(), "{model}: {wrong} voxels differ");
        let got = array(&out.path().join("case.npz"));
        let want = array(&folder.join(model).join("expected/case.npz"));
        let error = got.iter().zip(&want).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(got.len() == want.len() && error < 1e-5, "{model}: probabilities differ by {error}");
    }
}

/// Intensities within the rounding of 32-bit floats, labels exactly.
#[test]
fn resampling_by_pytorch_is_as_there() {
    let bytes = std::fs::read(support::fixture("nnunet_layers").join("resampling.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let floats = |name: String| -> Vec<f32> {
        let (chunks, _) = file.tensor(&name).unwrap().data().as_chunks();
        chunks.iter().map(|&b| f32::from_le_bytes(b)).collect()
    };
    let separate = (None, false);
    for (k, shape, target, current, new, (force_separate_z, linear_z)) in [
        (0, [6, 9, 8], [11, 7, 12], [1.0; 3], [0.6, 1.3, 0.7], separate),
        (1, [6, 9, 8], [15, 7, 12], [4.0, 1.0, 1.1], [1.6, 1.3, 0.7], separate),
        (2, [9, 8, 15], [7, 12, 6], [1.0, 1.1, 1.0], [1.3, 0.7, 4.0], (None, true)),
        (3, [6, 9, 8], [15, 7, 12], [4.0, 1.0, 1.1], [1.6, 1.3, 0.7], (Some(false), false)),
    ] {
        let function = Interpolation::Torch { linear_z };
        let how = Resampling { function, force_separate_z, ..Resampling::splines(1) };
        let (order, separate) = interpolation(&how, current, new).unwrap();
        assert_eq!(separate.is_some(), k == 1 || k == 2);
        let got = resample(&floats(format!("{k}/data")), shape, target, order, separate);
        let want = floats(format!("{k}/data_out"));
        let error = got.iter().zip(&want).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(got.len() == want.len() && error < 1e-6, "{k}: {error}");
        let labels: Vec<i16> = floats(format!("{k}/labels")).iter().map(|&v| v as i16).collect();
        let got = resample_labels(&labels, shape, target, order, separate);
        let want: Vec<i16> = floats(format!("{k}/labels_out")).iter().map(|&v| v as i16).collect();
        let wrong = got.iter().zip(&want).filter(|(a, b)| a != b).count();
        assert!(got.len() == want.len() && wrong == 0, "{k}: {wrong} labels differ");
    }
}

#[test]
fn whatever_is_unknown_in_a_model_is_refused_by_its_name() {
    let (gpu, folder) = (gpu(), tempfile::tempdir().unwrap());
    let good = fixture(MODEL);
    let weights = WeightFile::open(&good.join("fold_0/checkpoint_final.pth")).unwrap();
    let plans: Value = serde_json::from_slice(&std::fs::read(good.join("plans.json")).unwrap()).unwrap();
    // A model whose plans have this value, and whose checkpoint these tensors beside its own.
    let opened = |pointer: &str, value: Value, more: &[&str]| {
        let model = folder.path().join("model");
        _ = std::fs::remove_dir_all(&model);
        copy(&good, &model);
        let mut plans = plans.clone();
        if let Some((table, key)) = pointer.rsplit_once('/') {
            plans.pointer_mut(table).unwrap()[key] = value;
        }
        std::fs::write(model.join("plans.json"), plans.to_string()).unwrap();
        let zeros = [0u8; 4];
        let own = weights.tensors().map(|(name, shape)| {
            let values = weights.read(name).unwrap().iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
            (name.to_string(), shape.to_vec(), values)
        });
        let more = more.iter().map(|name| (name.to_string(), vec![1], zeros.to_vec()));
        let tensors: Vec<_> = own.chain(more).collect();
        let views = tensors
            .iter()
            .map(|(name, shape, bytes)| (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
        let bytes = safetensors::serialize(views, None).unwrap();
        std::fs::write(model.join("fold_0/checkpoint_final.safetensors"), bytes).unwrap();
        SegmentationModel::open(&model, &[], "final")
            .and_then(|model| Segmenter::new(gpu.clone(), model, false, 0.5).map(|_| ()))
            .map_err(|error| error.to_string())
    };
    let stem = "encoder.stem.convs.0";
    let (count, counted) = (format!("{stem}.norm.num_batches_tracked"), format!("{stem}.norm.running_mean"));
    let (head, harmless) = ("decoder.seg_layers.7.weight", [count.as_str(), "projector.0.weight", "mask_token"]);
    opened("", Value::Null, &[]).unwrap();
    opened("", Value::Null, &harmless).unwrap();
    let (c, kwargs) = ("/configurations/3d_fullres", "/configurations/3d_fullres/architecture/arch_kwargs");
    for (pointer, value, tensor, named) in [
        ("/label_manager", json!("CustomLabelManager"), "", "CustomLabelManager"),
        (&format!("{c}/preprocessor_name"), json!("MyPreprocessor"), "", "MyPreprocessor"),
        (&format!("{c}/padding_mode"), json!("reflect"), "", "padding_mode"),
        (&format!("{c}/resampling_fn_data_kwargs/clip"), json!(true), "", "clip"),
        (&format!("{c}/resampling_fn_probabilities"), json!("my_resampling"), "", "my_resampling"),
        (&format!("{c}/architecture/network_class_name"), json!("mine.ResidualEncoderUNet"), "", "mine."),
        (&format!("{kwargs}/squeeze_excitation"), json!(true), "", "squeeze_excitation"),
        (&format!("{kwargs}/norm_op_kwargs/groups"), json!(2), "", "groups"),
        ("", Value::Null, &format!("{stem}.se.fc.weight"), ".se.fc.weight"),
        ("", Value::Null, &counted, "running_mean"),
        ("", Value::Null, "gate.weight", "gate.weight"),
        ("", Value::Null, head, head),
    ] {
        let tensors = if tensor.is_empty() { vec![] } else { vec![tensor] };
        let error = opened(pointer, value, &tensors).expect_err(named);
        assert!(error.contains(named), "{named}: {error}");
    }
}
