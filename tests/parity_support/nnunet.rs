//! D_nnunet: an nnU-Net model folder, images to predict, and what nnU-Net made of them on the way.
//!
//! Tolerances: prepared cases 1e-3 (a float32 z-score and cubic splines), logits 1e-3 with 32-bit sums. nnU-Net adds up tiles in
//! 16-bit floats, so its label maps and probabilities differ: by 0.3 % of the voxels and a Dice of 0.995 at most.

use super::{Fixture, Report};
use spark3d::compute::device::Gpu;
use spark3d::compute::graph::Precision;
use spark3d::data::preprocess::case::{Grid, Prepared, prepare};
use spark3d::data::preprocess::images::read_images;
use spark3d::formats::nifti;
use spark3d::formats::nnunet::{Dataset, Plans};
use spark3d::inference::predict::model::SegmentationModel;
use spark3d::inference::predict::restore::{Decision, Restorer};
use spark3d::inference::predict::segmenter::{Options, Segmenter, predict};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::rc::Rc;

pub fn run(gpu: &Rc<Gpu>, f: &Fixture, report: &mut Report) {
    let folder = f.path.parent().unwrap();
    // Relative to the folder of all fixtures; the model lies beside this one.
    let model = folder.join(PathBuf::from(f.json["model_folder"].as_str().unwrap()).file_name().unwrap());
    let plans = Plans::read(&model.join("plans.json")).unwrap();
    let dataset = Dataset::read(&model.join("dataset.json")).unwrap();
    let configuration = plans.configuration("3d_fullres").unwrap();
    let mut cases = Vec::new();
    for (case, properties) in f.json["properties"].as_object().unwrap() {
        let files: Vec<PathBuf> = (0..dataset.channels.len())
            .map(|c| folder.join("imagesTs").join(format!("{case}_{c:04}{}", dataset.file_ending)))
            .collect();
        let images = read_images(&files, plans.reader).unwrap();
        report
            .check(&format!("{case}: spacing"), serde_json::to_value(images.spacing).unwrap() == properties["spacing"]);
        let prepared = prepare(&images, None, &plans, &configuration).unwrap();
        let bbox = serde_json::to_value(prepared.grid.bbox).unwrap();
        report.check(&format!("{case}: crop"), bbox == properties["bbox_used_for_cropping"]);
        let want = f.get(&format!("{case}/preprocessed"));
        report.check(&format!("{case}: shape"), want.dims() == prepared.grid.prepared);
        report.compare_within(&format!("{case}/preprocessed"), &prepared.data, &want.data, 1e-3);
        cases.push((case.clone(), prepared));
    }
    for mirror in [false, true] {
        let results = folder.join(format!("pred_mirror{}", u8::from(mirror)));
        logits(gpu, f, &model, mirror, &cases, &results, report);
        label_maps(gpu, f, &model, mirror, &cases, &results, report);
    }
}

/// The network's logits on the prepared grid, and nnU-Net's own logits through our way back.
fn logits(
    gpu: &Rc<Gpu>,
    f: &Fixture,
    model: &Path,
    mirror: bool,
    cases: &[(String, Prepared)],
    results: &Path,
    report: &mut Report,
) {
    let model = SegmentationModel::open(model, &[], "final").unwrap();
    let decision = Decision::new(&model.dataset.labels);
    let how = model.configuration.probabilities;
    let mut segmenter = Segmenter::new(gpu.clone(), model, mirror, 0.5).unwrap();
    for (case, prepared) in cases {
        let key = format!("{case}/logits_mirror{}", u8::from(mirror));
        if let Some(want) = f.find(&format!("{key}_f32acc")) {
            let [pz, py, px] = prepared.grid.prepared;
            let mut got = vec![0.0; want.data.len()];
            let mut sink = |z: usize, slice: &[f32]| {
                for (c, plane) in slice.chunks_exact(py * px).enumerate() {
                    got[(c * pz + z) * py * px..][..py * px].copy_from_slice(plane);
                }
                Ok(())
            };
            segmenter.logits(prepared, &mut |_| {}, &mut sink).unwrap();
            report.compare_within(&format!("{key}_f32acc"), &got, &want.data, 1e-3);
        }
        let npz = results.join(format!("{case}.npz"));
        if let (Some(own), true) = (f.find(&key), npz.exists()) {
            let got = restored(&own.data, &prepared.grid, &decision, &how);
            // nnU-Net rounds resampled logits to 16 bits, by 2^-11 of their size at most; of a difference d between logits
            // a quarter at most reaches a probability, and two logits make the difference.
            let largest = own.data.iter().fold(0f64, |m, &v| m.max(f64::from(v).abs()));
            let tolerance = largest / 2048.0 / 2.0 + 1e-6;
            report.compare_within(&format!("{key}: restored"), &got, &probabilities(&npz), tolerance);
        }
    }
}

/// Logits (outputs, z, y, x) of the prepared grid to probabilities of the image as read.
fn restored(logits: &[f32], grid: &Grid, decision: &Decision, how: &spark3d::formats::nnunet::Resampling) -> Vec<f32> {
    let ([pz, py, px], outputs) = (grid.prepared, decision.outputs());
    let voxels: usize = grid.shape.iter().product();
    let mut image: Vec<f32> = (0..outputs * voxels).map(|n| decision.outside(n / voxels)).collect();
    let mut restorer = Restorer::new(outputs, grid, how).unwrap();
    for z in 0..pz {
        let planes = (0..outputs).flat_map(|c| &logits[(c * pz + z) * py * px..][..py * px]);
        let mut sink = |i: usize, slice: &[f32]| {
            let mut slice = slice.to_vec();
            decision.probabilities(&mut slice);
            let planes = slice.chunks_exact(slice.len() / outputs);
            planes.zip(image.chunks_exact_mut(voxels)).for_each(|(plane, image)| grid.place(i, plane, image));
            Ok(())
        };
        restorer.push(&planes.copied().collect::<Vec<_>>(), &mut sink).unwrap();
    }
    image
}

/// What the command writes, from the folders as they are.
fn label_maps(
    gpu: &Rc<Gpu>,
    f: &Fixture,
    model: &Path,
    mirror: bool,
    cases: &[(String, Prepared)],
    results: &Path,
    report: &mut Report,
) {
    let out = tempfile::tempdir().unwrap();
    let options = Options {
        model: model.to_path_buf(),
        input: f.path.parent().unwrap().join("imagesTs"),
        out: out.path().to_path_buf(),
        folds: vec![],
        checkpoint: "final".into(),
        mirror,
        step: 0.5,
        precision: Precision::F32,
        probabilities: true,
        overwrite: false,
        memory: None,
    };
    let summary = predict(gpu, &options, &mut |_| {}).unwrap();
    report.check("all cases are predicted", summary.failed.is_empty() && summary.written.len() == cases.len());
    let again = predict(gpu, &options, &mut |_| {}).unwrap();
    report.check("results that are there stay", again.written.is_empty() && again.skipped == cases.len());
    for (case, _) in cases {
        let what = format!("{case}: label map, mirror {mirror}");
        let read = |folder: &Path| nifti::read_labels(&folder.join(format!("{case}.nii.gz"))).unwrap();
        let (got, want) = (read(out.path()), read(results));
        report
            .check(&format!("{what}: grid"), got.volume.shape == want.volume.shape && close(&got.affine, &want.affine));
        let pairs = || got.volume.data.iter().zip(&want.volume.data);
        let (voxels, wrong) = (want.volume.data.len(), pairs().filter(|(a, b)| a != b).count());
        report.check(&format!("{what}: {wrong} of {voxels} voxels differ"), wrong * 1000 <= voxels * 3);
        for class in 0..3 {
            let is = |v: &f32| *v == class as f32;
            let (both, each) = pairs().fold((0, 0), |(both, each), (a, b)| {
                (both + usize::from(is(a) && is(b)), each + usize::from(is(a)) + usize::from(is(b)))
            });
            let dice = 2.0 * both as f64 / each as f64;
            report.check(&format!("{what}: Dice of class {class} is {dice:.4}"), dice >= 0.995);
        }
        let npz = results.join(format!("{case}.npz"));
        if npz.exists() {
            let (got, want) = (probabilities(&out.path().join(format!("{case}.npz"))), probabilities(&npz));
            // Beyond the voxels whose logits 16-bit sums change by more than 0.05 (the fixture counts them), probabilities
            // differ by 0.025 and their rounding at most. On the way back each voxel is made of 8 at most.
            let noted = &f.json["properties"][case][format!("mirror{}", u8::from(mirror))];
            let share = noted["voxels_with_abs_diff_over_0.05"].as_f64().unwrap() / noted["voxels"].as_f64().unwrap();
            let far = got.iter().zip(&want).filter(|(a, b)| (**a - **b).abs() > 0.03).count() as f64;
            let found = far / want.len() as f64;
            report.check(
                &format!("{what}: {found:.5} of the probabilities differ by more than 0.03"),
                got.len() == want.len() && found <= 8.0 * share,
            );
        }
    }
}

fn close(a: &[[f64; 4]; 4], b: &[[f64; 4]; 4]) -> bool {
    a.as_flattened().iter().zip(b.as_flattened()).all(|(a, b)| (a - b).abs() < 1e-5)
}

/// The array `probabilities` of an `.npz` file.
fn probabilities(path: &Path) -> Vec<f32> {
    let mut zip = zip::ZipArchive::new(std::fs::File::open(path).unwrap()).unwrap();
    let mut bytes = Vec::new();
    zip.by_name("probabilities.npy").unwrap().read_to_end(&mut bytes).unwrap();
    let header = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    assert!(String::from_utf8_lossy(&bytes[10..10 + header]).contains("<f4"));
    bytes[10 + header..].as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
}
