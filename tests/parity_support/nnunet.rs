//! D_nnunet: an nnU-Net model folder, images to predict, and what nnU-Net made of them on the way. Tolerance of prepared
//! cases: 1e-3 (a float32 z-score and cubic splines).

use super::{Fixture, Report};
use spark3d::io::nnunet::{Dataset, Plans};
use spark3d::preprocess::case::{prepare, read_images};
use std::path::PathBuf;

pub fn run(f: &Fixture, report: &mut Report) {
    let folder = f.path.parent().unwrap();
    // Relative to the folder of all fixtures; the model lies beside this one.
    let model = folder.join(PathBuf::from(f.json["model_folder"].as_str().unwrap()).file_name().unwrap());
    let plans = Plans::read(&model.join("plans.json")).unwrap();
    let dataset = Dataset::read(&model.join("dataset.json")).unwrap();
    let configuration = plans.configuration("3d_fullres").unwrap();
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
    }
    report.not_run(format!("{}: logits and label maps (predicting with an nnU-Net model)", f.name()));
}
