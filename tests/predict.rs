//! `spark3d predict` as a user runs it, with a model folder of nnU-Net: what is written, what is left alone, and what is said of
//! bad input. Whether the label maps are right is for `tests/parity.rs`.

mod support;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use spark3d::base::volume::Volume;
use spark3d::compute::device::Gpu;
use spark3d::compute::graph::{Precision, Session};
use spark3d::compute::model::predictor;
use spark3d::compute::ops::cases::noise;
use spark3d::data::preprocess::case::interpolation;
use spark3d::data::resample::{resample, resample_labels};
use spark3d::formats::affine::IDENTITY;
use spark3d::formats::nifti;
use spark3d::formats::nnunet::{
    Architecture, Configuration, Dataset, Interpolation, Layers, Normalization, Resampling,
};
use spark3d::inference::architecture::network_of;
use spark3d::inference::predict::model::SegmentationModel;
use spark3d::inference::predict::record::RECORD;
use spark3d::inference::predict::segmenter::{Event, Options, Segmenter, Summary, plan_first, predict as run};
use spark3d::inference::weights::WeightFile;
use std::io::{Read, Write};
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
    assert_eq!(
        std::fs::read_dir(&out).unwrap().count(),
        3,
        "two label maps and their record, nothing of the broken scan"
    );

    // The scan is repaired: it alone is predicted, to the same bytes as the one it is a copy of.
    for channel in 0..2 {
        let name = |case: &str| images.join(format!("{case}_{channel:04}.nii.gz"));
        std::fs::copy(name("case1"), name("broken")).unwrap();
    }
    let untouched = || std::fs::metadata(Path::new(&out).join("case0.nii.gz")).unwrap().modified().unwrap();
    let before = untouched();
    let second = predict(&arguments);
    assert!(second.status.success(), "{}", text(&second.stderr));
    assert!(text(&second.stdout).contains("1 label maps") && text(&second.stdout).contains("2 were there"));
    assert_eq!(untouched(), before);
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
    let mut written: Vec<_> = std::fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    written.sort();
    assert_eq!(written, ["case1.nii.gz", RECORD]);
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
    // Without dataset.json the checkpoint's own counts: whoever reads of its channels is told where they are from.
    let copied = changed("plans.json", "{", "{");
    let plans = copied.join("plans.json");
    let mut json: Value = serde_json::from_slice(&std::fs::read(&plans).unwrap()).unwrap();
    let configuration = &mut json["configurations"]["3d_fullres"];
    for key in ["normalization_schemes", "use_mask_for_norm"] {
        configuration[key].as_array_mut().unwrap().truncate(1);
    }
    std::fs::write(&plans, json.to_string()).unwrap();
    std::fs::remove_file(copied.join("dataset.json")).unwrap();
    let error = fails(&copied, &[]);
    assert!(error.contains("there is no dataset.json, and that within") && error.contains("has 2"), "{error}");
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

/// A model of one channel and two labels with made-up weights, small enough to run in no time.
fn made_model(folder: &Path, seed: u64) {
    let configuration = Configuration {
        name: "3d_fullres".into(),
        batch_size: 2,
        patch_size: [8; 3],
        spacing: [1.0; 3],
        normalization: vec![Normalization::ZScore],
        use_mask_for_norm: vec![false],
        data: Resampling::splines(3),
        segmentation: Resampling::splines(1),
        probabilities: Resampling::splines(1),
        batch_dice: false,
        architecture: Architecture {
            residual: true,
            features: vec![4, 8],
            blocks: vec![1, 1],
            kernels: vec![[3; 3]; 2],
            strides: vec![[1; 3], [2; 3]],
            decoder_convs: vec![1],
            layers: Layers::default(),
        },
    };
    let dataset = json!({ "channel_names": { "0": "T1" }, "labels": { "background": 0, "a": 1, "b": 2 } });
    let outputs = Dataset::from_json(dataset.clone()).unwrap().labels.outputs();
    let plans = json!({ "configurations": { "3d_fullres": configuration.to_json("nnUNetPlans", [8; 3]) } });
    std::fs::create_dir_all(folder.join("fold_0")).unwrap();
    std::fs::write(folder.join("plans.json"), plans.to_string()).unwrap();
    std::fs::write(folder.join("dataset.json"), dataset.to_string()).unwrap();
    let network = network_of(&configuration.architecture, 1, outputs);
    let built = predictor(&network, configuration.patch_size, Precision::F32);
    let parameters = &built.graph.parameters.list;
    let values =
        |n: usize, k: usize| noise(seed + k as u64, n).into_iter().flat_map(f32::to_le_bytes).collect::<Vec<u8>>();
    let bytes: Vec<Vec<u8>> = parameters.iter().enumerate().map(|(k, p)| values(p.shape.iter().product(), k)).collect();
    let views = parameters.iter().zip(&bytes);
    let views = views.map(|(p, b)| (p.name.clone(), TensorView::new(Dtype::F32, p.shape.clone(), b).unwrap()));
    let file = safetensors::serialize(views, None).unwrap();
    std::fs::write(folder.join("fold_0/checkpoint_final.safetensors"), file).unwrap();
}

fn made_scan(path: &Path, seed: u64) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let shape = [8, 9, 10];
    write_grid(path, &Volume::new(shape, [1.0; 3], noise(seed, shape.iter().product())));
}

fn write_grid(path: &Path, volume: &Volume) {
    // The writer knows endings in small letters alone.
    let plain = path.with_file_name("made.nii.gz");
    let plain = if path.extension().is_some_and(|e| e == "nii") { path } else { &plain };
    nifti::write_grid(plain, volume, &IDENTITY).unwrap();
    if plain != path {
        std::fs::rename(plain, path).unwrap();
    }
}

fn made_options(model: &Path, input: &Path, out: &Path) -> Options {
    Options {
        model: model.into(),
        input: input.into(),
        out: out.into(),
        folds: vec![],
        checkpoint: "final".into(),
        mirror: false,
        step: 1.0,
        precision: Precision::F32,
        probabilities: false,
        overwrite: false,
        memory: None,
    }
}

/// Names of the label maps of this call; names and faults of those that failed.
fn came_of(summary: &Summary) -> (Vec<String>, String) {
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_string();
    let failed: Vec<String> = summary.failed.iter().map(|(id, error)| format!("{id}: {error}")).collect();
    (summary.written.iter().map(name).collect(), failed.join("\n"))
}

#[test]
fn results_never_share_a_name() {
    let gpu = gpu();
    let folder = tempfile::tempdir().unwrap();
    let [model, scans, out] = ["model", "scans", "out"].map(|name| folder.path().join(name));
    made_model(&model, 1);
    for (n, name) in ["scan_0001.nii.gz", "scan_0002.nii.gz", "other.nii", "CAPITAL.NII.GZ"].iter().enumerate() {
        made_scan(&scans.join(name), n as u64);
    }
    let of = |input: &Path, out: &Path| run(&gpu, &made_options(&model, input, out), &mut |_| {}).unwrap();
    // One file at a time into one folder, then the folder.
    for name in ["scan_0001", "scan_0002"] {
        let summary = of(&scans.join(format!("{name}.nii.gz")), &out);
        assert_eq!(came_of(&summary), (vec![format!("{name}.nii.gz")], String::new()));
    }
    std::fs::write(scans.join("notes.txt"), "x").unwrap();
    let summary = of(&scans, &out);
    assert_eq!(came_of(&summary), (vec!["CAPITAL.nii.gz".into(), "other.nii.gz".into()], String::new()));
    assert_eq!((summary.files, summary.skipped, summary.left_out.len()), (5, 2, 1));
    let maps = ["scan_0001", "scan_0002"].map(|name| std::fs::read(out.join(format!("{name}.nii.gz"))).unwrap());
    assert!(maps[0] != maps[1]);

    // Two files claim one case: the others are predicted.
    made_scan(&scans.join("other_0000.nii.gz"), 9);
    let summary = of(&scans, &folder.path().join("again"));
    let (written, failed) = came_of(&summary);
    assert!(written.len() == 3 && failed.contains("other_0000.nii.gz") && failed.contains("other.nii "), "{failed}");
    // Another scan of the same name, from elsewhere, into the same folder.
    let second = folder.path().join("elsewhere/scan_0001.nii.gz");
    made_scan(&second, 8);
    let (written, failed) = came_of(&of(&second, &out));
    assert!(written.is_empty() && failed.contains("of another scan") && failed.contains("scans/scan_0001"), "{failed}");
    assert!(std::fs::read(out.join("scan_0001.nii.gz")).unwrap() == maps[0]);
    // A label map of nobody knows what.
    std::fs::create_dir(folder.path().join("manual")).unwrap();
    std::fs::write(folder.path().join("manual/scan_0001.nii.gz"), &maps[0]).unwrap();
    let (_, failed) = came_of(&of(&second, &folder.path().join("manual")));
    assert!(failed.contains("does not say what made it") && failed.contains("--overwrite"), "{failed}");
}

#[cfg(target_os = "linux")]
#[test]
fn names_that_are_not_utf8_do_not_stop_the_others() {
    use std::os::unix::ffi::OsStrExt;
    let folder = tempfile::tempdir().unwrap();
    let [model, scans, out] = ["model", "scans", "out"].map(|name| folder.path().join(name));
    made_model(&model, 1);
    made_scan(&scans.join("good.nii.gz"), 1);
    std::fs::copy(scans.join("good.nii.gz"), scans.join(std::ffi::OsStr::from_bytes(b"b\xe9b\xe9.nii.gz"))).unwrap();
    let summary = run(&gpu(), &made_options(&model, &scans, &out), &mut |_| {}).unwrap();
    assert_eq!(came_of(&summary), (vec!["b_b_.nii.gz".into(), "good.nii.gz".into()], String::new()));
    let summary = run(&gpu(), &made_options(&model, &scans, &out), &mut |_| {}).unwrap();
    assert_eq!((summary.skipped, summary.written.len()), (2, 0));
}

#[test]
fn a_folder_remembers_what_made_its_label_maps() {
    let gpu = gpu();
    let folder = tempfile::tempdir().unwrap();
    let [first, second, scans, out] = ["first", "second", "scans", "out"].map(|name| folder.path().join(name));
    made_model(&first, 1);
    made_model(&second, 100);
    for (n, name) in ["a.nii.gz", "b.nii.gz"].iter().enumerate() {
        made_scan(&scans.join(name), n as u64);
    }
    let of = |model: &Path, out: &Path| {
        let mut told = Vec::new();
        let mut event = |event: Event| {
            if let Event::Stale { id, why } = event {
                told.push(format!("{id}: {why}"));
            }
        };
        let summary = run(&gpu, &made_options(model, &scans, out), &mut event).unwrap();
        (came_of(&summary).0, summary, told)
    };
    let read = |out: &Path, name: &str| std::fs::read(out.join(name)).unwrap();
    assert_eq!(of(&first, &out).0.len(), 2);
    assert_eq!(of(&first, &out).1.skipped, 2);

    // Another model: both again, and said; as if the folder had been empty.
    let (written, summary, told) = of(&second, &out);
    assert_eq!((written.len(), summary.skipped), (2, 0));
    assert_eq!(told, ["a: the model is another one", "b: the model is another one"]);
    let fresh = folder.path().join("fresh");
    of(&second, &fresh);
    assert!(read(&out, "a.nii.gz") == read(&fresh, "a.nii.gz"));

    // A scan that changed, one label map that was cut.
    made_scan(&scans.join("a.nii.gz"), 7);
    let whole = read(&out, "b.nii.gz");
    std::fs::write(out.join("b.nii.gz"), &whole[..20]).unwrap();
    let (_, _, told) = of(&second, &out);
    assert_eq!(told, ["a: the scan changed", "b: its label map was empty or cut off"]);
    assert!(read(&out, "b.nii.gz") == whole);
    // A scan that changed for the worse: what is there is not passed over in silence.
    std::fs::write(scans.join("a.nii.gz"), "no scan").unwrap();
    let (_, summary, _) = of(&second, &out);
    assert!(summary.failed[0].0.contains("from before is still there") && summary.skipped == 1);
    made_scan(&scans.join("a.nii.gz"), 7);
    assert_eq!(of(&second, &out).0, ["a.nii.gz"]);

    // Somebody corrected a label map: it stays, and another model does not replace it.
    nifti::write_grid(&out.join("a.nii.gz"), &Volume::new([8, 9, 10], [1.0; 3], vec![1.0; 720]), &IDENTITY).unwrap();
    let corrected = read(&out, "a.nii.gz");
    let (_, summary, _) = of(&second, &out);
    assert_eq!((summary.edited, summary.skipped), (vec![out.join("a.nii.gz")], 1));
    let (written, summary, _) = of(&first, &out);
    assert!(written == ["b.nii.gz"] && summary.failed[0].1.to_string().contains("somebody changed it"));
    assert!(read(&out, "a.nii.gz") == corrected);
    let mut options = made_options(&first, &scans.join("b.nii.gz"), &out);
    options.step = 0.5;
    let summary = run(&gpu, &options, &mut |_| {}).unwrap();
    assert_eq!((summary.stale[0].1.as_str(), summary.others), ("the step is 0.5 and was 1", 1));
    options.probabilities = true;
    assert_eq!(run(&gpu, &options, &mut |_| {}).unwrap().written.len(), 1);
    assert_eq!(run(&gpu, &options, &mut |_| {}).unwrap().skipped, 1);
}

/// What `nnUNetv2_export_model_to_zip` leaves: folders, and more files than are needed. `more` come from somewhere else.
fn zipped(path: &Path, models: &[(&str, &Path)], more: &[&str]) {
    let mut zip = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    let options = zip::write::SimpleFileOptions::default();
    for (prefix, model) in models {
        for name in ["fold_0/checkpoint_final.safetensors", "plans.json", "dataset.json"] {
            zip.start_file(format!("{prefix}{name}"), options).unwrap();
            zip.write_all(&std::fs::read(model.join(name)).unwrap()).unwrap();
        }
        zip.start_file(format!("{prefix}fold_0/progress.png"), options).unwrap();
    }
    for name in more {
        zip.start_file(*name, options).unwrap();
        zip.write_all(b"from elsewhere").unwrap();
    }
    zip.finish().unwrap();
}

#[test]
fn a_zipped_model_is_read_as_it_is() {
    let gpu = gpu();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    made_model(&path("model"), 1);
    made_scan(&path("scans/a.nii.gz"), 1);
    let prefix = "Dataset001_X/nnUNetTrainer__nnUNetPlans__3d_fullres/";
    let up = "../../up/fold_0/checkpoint_final.pth";
    zipped(&path("m.zip"), &[(prefix, &path("model"))], &[up, "/abs/fold_1/checkpoint_final.pth", "a\\..\\b.json"]);
    run(&gpu, &made_options(&path("model"), &path("scans"), &path("out")), &mut |_| {}).unwrap();
    // The same model: nothing is to be done.
    let summary = run(&gpu, &made_options(&path("m.zip"), &path("scans"), &path("out")), &mut |_| {}).unwrap();
    assert_eq!((summary.skipped, summary.written.len()), (1, 0));
    run(&gpu, &made_options(&path("m.zip"), &path("scans"), &path("other")), &mut |_| {}).unwrap();
    let read = |name: &str| std::fs::read(path(name).join("a.nii.gz")).unwrap();
    assert!(read("out") == read("other"));

    let error =
        |file: &str, checkpoint: &str| SegmentationModel::open(&path(file), &[], checkpoint).err().unwrap().to_string();
    let said = error("m.zip", "best");
    assert!(said.contains("m.zip") && said.contains("fold_0/checkpoint_final.safetensors"), "{said}");
    zipped(&path("two.zip"), &[("D/a__b__3d_fullres/", &path("model")), ("D/a__b__2d/", &path("model"))], &[]);
    let said = error("two.zip", "final");
    assert!(said.contains("2 models: D/a__b__2d, D/a__b__3d_fullres"), "{said}");
    zipped(&path("none.zip"), &[], &["readme.txt"]);
    assert!(error("none.zip", "final").contains("without a model"));
    zipped(
        &path("v1.zip"),
        &[],
        &["3d_fullres/Task001/plans.pkl", "3d_fullres/Task001/fold_0/model_final_checkpoint.model"],
    );
    assert!(error("v1.zip", "final").contains("nnU-Net v1"));
    // Zeros shrink more than any weights do.
    std::fs::write(path("model/fold_0/checkpoint_final.safetensors"), vec![0; 1 << 24]).unwrap();
    zipped(&path("bomb.zip"), &[(prefix, &path("model"))], &[]);
    let said = error("bomb.zip", "final");
    assert!(said.contains("64 times as large") && said.contains("Unpack it"), "{said}");
    std::fs::write(path("model/fold_0/checkpoint_final.safetensors"), "nothing").unwrap();
    zipped(&path("bad.zip"), &[(prefix, &path("model"))], &[]);
    let said = error("bad.zip", "final");
    assert!(said.contains("bad.zip") && said.contains("fold_0/checkpoint_final.safetensors"), "{said}");
    std::fs::write(path("m.tar.gz"), b"\x1f\x8b\x08x").unwrap();
    assert!(error("m.tar.gz", "final").contains("gzip"));
    assert!(error("model/plans.json", "final").contains("the folder that it lies in"));
    let whole = std::fs::read(path("m.zip")).unwrap();
    std::fs::write(path("cut.zip"), &whole[..whole.len() / 2]).unwrap();
    assert!(error("cut.zip", "final").contains("cut.zip"));
}

#[test]
fn places_that_cannot_take_label_maps_are_refused_and_nothing_is_made() {
    let gpu = gpu();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    made_model(&path("model"), 1);
    made_scan(&path("scans/a.nii.gz"), 1);
    std::fs::write(path("file"), "x").unwrap();
    let said = |input: &str, out: &str| {
        let options = made_options(&path("model"), &path(input), &path(out));
        run(&gpu, &options, &mut |_| {}).err().unwrap().to_string()
    };
    for out in ["x.mgz", "x.nrrd", "x.NII.GZ", "x.nii.GZ", "x.img", "x.tar.gz", "file"] {
        let error = said("scans/a.nii.gz", out);
        assert!(error.contains(".nii.gz or .nii") && error.contains(out), "{error}");
        assert!(out == "file" || !path(out).exists());
    }
    assert!(said("scans", "scans").contains("folder of the scans"));
    assert!(said("scans/a.nii.gz", "scans").contains("would replace the scan"));
    std::fs::create_dir(path("empty")).unwrap();
    assert!(said("empty", "out").contains("it is empty"));
    std::fs::create_dir_all(path("data/imagesTs")).unwrap();
    assert!(said("data", "out").contains("imagesTs (a folder"));
    let options = made_options(&path("model"), Path::new("hf://datasets/a/b"), &path("out"));
    assert!(run(&gpu, &options, &mut |_| {}).err().unwrap().to_string().contains("--repo-type dataset a/b"));
    assert!(!path("out").exists());
    let options = made_options(Path::new("https://zenodo.org/m.zip"), &path("scans"), &path("out"));
    assert!(run(&gpu, &options, &mut |_| {}).err().unwrap().to_string().contains("nothing is downloaded"));
    // A folder within that of the scans is no fault, nor a surprise.
    for skipped in [0, 1] {
        let summary = run(&gpu, &made_options(&path("model"), &path("scans"), &path("scans/out.v1")), &mut |_| {});
        let summary = summary.unwrap();
        assert_eq!((summary.skipped, summary.files, summary.left_out.len()), (skipped, 1, 0));
    }
    let file = made_options(&path("model"), &path("scans"), &path("one/map.nii"));
    assert_eq!(came_of(&run(&gpu, &file, &mut |_| {}).unwrap()).0, ["map.nii"]);
}

#[cfg(target_os = "linux")]
#[test]
fn full_disks_and_closed_pipes_are_errors() {
    use std::process::Stdio;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    made_model(&path("model"), 1);
    made_scan(&path("scans/a.nii.gz"), 1);
    std::fs::write(path("scans/notes.txt"), "x").unwrap();
    let command = |out: &str| {
        let arguments = ["predict", "--no-mirror", "--step-size", "1"].map(std::ffi::OsString::from).to_vec();
        let paths = [("-m", "model"), ("-i", "scans"), ("-o", out)];
        let paths = paths.into_iter().flat_map(|(option, name)| [option.into(), path(name).into_os_string()]);
        support::spark3d(&arguments.into_iter().chain(paths).collect::<Vec<_>>())
    };
    let full = || Stdio::from(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let failed = command("out").stdout(full()).output().unwrap();
    let said = text(&failed.stderr);
    assert!(
        failed.status.code() == Some(1) && said.contains("No space left") && said.contains("2 files seen"),
        "{said}"
    );
    assert!(path("out/a.nii.gz").exists());
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let failed = command("out").stdout(writer).output().unwrap();
    let said = text(&failed.stderr);
    assert!(failed.status.code() == Some(1) && said.contains("1 were there already and unchanged"), "{said}");
    // The last bytes of an uncompressed label map do not fit: 352 bytes of header, 720 voxels, a limit of 1024 bytes.
    let program = command("small/a.nii");
    let limited = ["-c", "trap '' XFSZ; ulimit -f 1; exec \"$0\" \"$@\""].map(std::ffi::OsString::from);
    let mut bash = std::process::Command::new("bash");
    let failed = bash.args(limited).arg(program.get_program()).args(program.get_args()).output().unwrap();
    let said = text(&failed.stderr);
    assert!(failed.status.code() == Some(1) && said.contains("only 1024 bytes"), "{said}");
    assert!(!path("small/a.nii").exists());
    let failed = command("out").arg("--fold").arg("3").stderr(full()).output().unwrap();
    assert_eq!(failed.status.code(), Some(1));
    let done = command("out").output().unwrap();
    assert!(text(&done.stdout).contains("1 left out: notes.txt (its name"), "{}", text(&done.stdout));
}

/// The next scan would meet the same disk: it is not computed in vain, and the same command goes on.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_stops_a_run_that_then_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    made_model(&path("model"), 1);
    for (n, name) in ["a", "b", "c"].iter().enumerate() {
        made_scan(&path(&format!("scans/{name}.nii.gz")), n as u64);
    }
    let [model, scans, out] = ["model", "scans", "full/out"].map(|name| path(name).display().to_string());
    let arguments = ["predict", "--no-mirror", "--step-size", "1", "-m", &model, "-i", &scans, "-o", &out];
    let command = support::quoted(&support::spark3d(&arguments));
    // Room for the folder and a file that fills it.
    let full = path("full").display().to_string();
    let script = format!(
        "dd if=/dev/zero of='{full}/filling' bs=4k count=64 2>/dev/null
        {command} >&2; code=$?
        [ $code = 1 ] || {{ echo \"code $code on a full disk\"; exit 1; }}
        mount -o remount,size=64m '{full}' && {command} 2>/dev/null && ls '{full}/out'"
    );
    let Some(done) = support::on_a_small_disk(&path("full"), "64k", &script) else { return };
    let (said, shown) = (text(&done.stderr), text(&done.stdout));
    assert!(done.status.success(), "{said}{shown}");
    assert!(said.contains("the disk is full") && said.contains("give the same command again"), "{said}");
    assert!(!said.contains("b: ") && !said.contains("panicked"), "{said}");
    assert!(["a.nii.gz", "b.nii.gz", "c.nii.gz"].iter().all(|name| shown.contains(name)), "{shown}");
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
