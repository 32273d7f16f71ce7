//! Labelled data sets from files to patches: awkward cases, stores that were stopped or changed, sampling with foreground.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::SafeTensors;
use spark3d::base::error::Result;
use spark3d::base::volume::Volume;
use spark3d::data::augment::segmentation::Settings;
use spark3d::data::dataset::{
    LabelledLoader, LabelledPatch, LabelledPatchSettings, LabelledStore, SampleKey, Source, prepare_dataset, stream,
};
use spark3d::data::preprocess::Event;
use spark3d::data::preprocess::case::{OUTSIDE, prepare};
use spark3d::data::preprocess::images::{read_images, read_label_map};
use spark3d::data::sources::RawDataset;
use spark3d::formats::nifti;
use spark3d::formats::nnunet::{Configuration, Dataset, Plans};

const AFFINE: [[f64; 4]; 4] = [[1.5, 0., 0., -20.], [0., 1.2, 0., -30.], [0., 0., 2., 5.], [0., 0., 0., 1.]];

/// Plans of two channels and the labels 1 and 2: patches of 20 x 24 x 16 voxels of 1 mm.
fn plans() -> (Plans, Configuration) {
    let folder = support::fixture("nnunet/nnUNetTrainer__nnUNetResEncTestPlans__3d_fullres");
    let plans = Plans::read(&folder.join("plans.json")).unwrap();
    let configuration = plans.configuration("3d_fullres").unwrap();
    (plans, configuration)
}

fn write(path: &Path, shape: [usize; 3], affine: &[[f64; 4]; 4], value: impl Fn([usize; 3]) -> f32) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let at = |n: usize| [n / (shape[1] * shape[2]), n / shape[2] % shape[1], n % shape[2]];
    let data = (0..shape.iter().product()).map(|n| value(at(n))).collect();
    nifti::write_grid(path, &Volume::new(shape, [2.0, 1.2, 1.5], data), affine).unwrap();
}

fn image(at: [usize; 3]) -> f32 {
    if at[0] < 2 { 0.0 } else { (10 + (at[0] * 31 + at[1] * 17 + at[2] * 7) % 50) as f32 }
}

/// A box of label 1 with a corner of label 2.
fn label(at: [usize; 3]) -> f32 {
    let inside = (6..12).contains(&at[0]) && (8..16).contains(&at[1]) && (8..14).contains(&at[2]);
    if inside { if at[0] > 10 { 2.0 } else { 1.0 } } else { 0.0 }
}

/// A data set of cases `c0`, `c1`, ... of these shapes, two channels each.
fn raw(folder: &Path, shapes: &[[usize; 3]]) -> PathBuf {
    let json = r#"{"channel_names":{"0":"a","1":"b"},"labels":{"background":0,"c1":1,"c2":2},"file_ending":".nii"}"#;
    fs::write(folder.join("dataset.json"), json).unwrap();
    for (n, &shape) in shapes.iter().enumerate() {
        for channel in 0..2 {
            let path = folder.join(format!("imagesTr/c{n}_{channel:04}.nii"));
            write(&path, shape, &AFFINE, |at| image(at) * (1.0 + channel as f32 * at[2] as f32));
        }
        write(&folder.join(format!("labelsTr/c{n}.nii")), shape, &AFFINE, label);
    }
    folder.to_path_buf()
}

fn store(raw: &Path, out: &Path) -> (Result<LabelledStore>, Vec<Event>) {
    let (plans, configuration) = plans();
    let mut events = Vec::new();
    let raw = RawDataset::open(raw).unwrap();
    (prepare_dataset(&raw, &plans, &configuration, out, &mut |e| events.push(e)), events)
}

fn settings(augment: Option<Settings>) -> LabelledPatchSettings {
    LabelledPatchSettings { patch: [20, 24, 16], batch: 3, foreground: 0.33, augment }
}

fn key(step: u64, index: u64) -> SampleKey {
    SampleKey { seed: 5, step, index }
}

/// nnU-Net 2.8.1's DefaultPreprocessor on a case with thick oblique slices, transposed, with holes and labels outside of the
/// head: once normalised within the mask and resampled slice by slice, once as CT with interpolation between slices.
#[test]
fn cases_are_prepared_as_by_nnunet() {
    let folder = support::fixture("nnunet/prepared");
    let bytes = fs::read(folder.join("expected.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    let plans = Plans::read(&folder.join("plans.json")).unwrap();
    let known = Dataset::read(&folder.join("dataset.json")).unwrap().labels;
    let files = ["a_0000.nii.gz", "a_0001.nii.gz"].map(|f| folder.join(f));
    let images = read_images(&files, plans.reader).unwrap();
    let labels = read_label_map(&folder.join("a.nii.gz"), plans.reader, &images, &known).unwrap();
    for name in ["3d_fullres", "other"] {
        let configuration = plans.configuration(name).unwrap();
        let case = prepare(&images, Some(&labels), &plans, &configuration).unwrap();
        let tensor = |what: &str| expected.tensor(&format!("{name}/{what}")).unwrap();
        assert_eq!(tensor("data").shape()[1..], case.grid.prepared);
        let bbox: Vec<u8> = case.grid.bbox.as_flattened().iter().flat_map(|&v| (v as i32).to_le_bytes()).collect();
        assert_eq!(tensor("bbox").data(), bbox, "{name}");
        let want = tensor("data").data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
        let worst = case.data.iter().zip(want).map(|(g, w)| (g - w).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-5, "{name}: intensities differ by {worst}");
        let want = tensor("labels").data().chunks_exact(2).map(|b| i16::from_le_bytes(b.try_into().unwrap()));
        let wrong = case.labels.unwrap().iter().zip(want).filter(|(g, w)| *g != w).count();
        assert_eq!(wrong, 0, "{name}: labels differ");
    }
}

#[test]
fn a_store_holds_what_is_prepared_and_goes_on_where_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let (input, out) = (raw(folder.path(), &[[20, 30, 20], [18, 22, 30]]), folder.path().join("store"));
    let (first, events) = store(&input, &out);
    let first = first.unwrap();
    assert_eq!(events[0], Event::Found { scans: 2, done: 0 });
    let ids: Vec<&str> = first.cases().iter().map(|c| c.id.as_str()).collect();
    assert_eq!(ids, ["c0", "c1"]);
    let (plans, configuration) = plans();
    for (index, id) in ids.iter().enumerate() {
        let files: Vec<PathBuf> = (0..2).map(|c| input.join(format!("imagesTr/{id}_{c:04}.nii"))).collect();
        let images = read_images(&files, plans.reader).unwrap();
        let label = input.join(format!("labelsTr/{id}.nii"));
        let labels = read_label_map(&label, plans.reader, &images, &first.dataset().labels).unwrap();
        let want = prepare(&images, Some(&labels), &plans, &configuration).unwrap();
        let case = &first.cases()[index];
        assert_eq!(case.grid, want.grid);
        assert_eq!(case.grid.bbox[0], [2, case.grid.shape[0]], "two empty slices are cut off");
        let (data, labels) = first.region(index, [0; 3], case.size()).unwrap();
        assert_eq!(data, want.data);
        assert_eq!(Some(labels), want.labels);
    }
    // Nothing is done again, unless a file has changed or a case is lost.
    assert_eq!(store(&input, &out).1, [Event::Found { scans: 2, done: 2 }]);
    write(&input.join("labelsTr/c1.nii"), [18, 22, 30], &AFFINE, |_| 0.0);
    let (changed, events) = store(&input, &out);
    assert_eq!((&events[0], events.len()), (&Event::Found { scans: 2, done: 1 }, 2));
    let changed = changed.unwrap();
    assert_eq!(changed.cases()[1].locations, [0, 0]);
    assert!(changed.absent().is_empty(), "the other case has them");
    fs::remove_dir_all(out.join("cases/c0")).unwrap();
    fs::remove_file(out.join("manifest.json")).unwrap();
    assert!(LabelledStore::open(&out).unwrap_err().to_string().contains("not a finished store"));
    assert_eq!(store(&input, &out).1[0], Event::Found { scans: 2, done: 1 });
    assert!(LabelledStore::open(&out).is_ok());
    // A file that is lost is no zeros, and is made again.
    for file in ["image/c/0/0/0/0", "labels/c/0/0/0", "locations/c/0/0"] {
        fs::remove_file(out.join("cases/c0").join(file)).unwrap();
        let lost = LabelledStore::open(&out).unwrap();
        let error = lost.region(0, [0; 3], [4; 3]).map(drop).and_then(|()| lost.location(0, 0, 0).map(drop));
        let error = error.unwrap_err().to_string();
        assert!(error.contains("cases/c0") && error.contains("is missing"), "{error}");
        let (again, events) = store(&input, &out);
        assert_eq!(events[0], Event::Found { scans: 2, done: 1 });
        assert!(again.unwrap().region(0, [0; 3], [4; 3]).is_ok());
    }
}

/// As scores do.
#[test]
fn labels_that_float32_missed_are_labels() {
    let folder = tempfile::tempdir().unwrap();
    let input = raw(folder.path(), &[[12, 20, 20]]);
    let whole = store(&input, &folder.path().join("whole")).0.unwrap();
    write(&input.join("labelsTr/c0.nii"), [12, 20, 20], &AFFINE, |at| label(at) * 0.99999);
    let near = store(&input, &folder.path().join("near")).0.unwrap();
    assert_eq!(whole.cases()[0].locations, near.cases()[0].locations);
    assert!(whole.absent().is_empty());
    assert!(whole.cases()[0].locations[0] > 0);
    write(&input.join("labelsTr/c0.nii"), [12, 20, 20], &AFFINE, |at| label(at).min(1.0));
    assert_eq!(store(&input, &folder.path().join("one")).0.unwrap().absent(), ["c2"]);
    write(&input.join("labelsTr/c0.nii"), [12, 20, 20], &AFFINE, |at| label(at) * 0.99);
    let error = store(&input, &folder.path().join("far")).0.unwrap_err().to_string();
    assert!(error.contains("c0.nii") && error.contains("no label"), "{error}");
}

#[test]
fn other_settings_and_other_folders_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (input, out) = (raw(folder.path(), &[[12, 20, 20]]), folder.path().join("store"));
    store(&input, &out).0.unwrap();
    let (plans, mut configuration) = plans();
    configuration.spacing = [2.0; 3];
    let raw = RawDataset::open(&input).unwrap();
    let error = prepare_dataset(&raw, &plans, &configuration, &out, &mut |_| ()).unwrap_err().to_string();
    assert!(error.contains("spacing was [1.0,1.0,1.0] and is now [2.0,2.0,2.0]"), "{error}");
    let error = prepare_dataset(&raw, &plans, &configuration, &input, &mut |_| ()).unwrap_err().to_string();
    assert!(error.contains("not a store"), "{error}");
    configuration.normalization.pop();
    assert!(prepare_dataset(&raw, &plans, &configuration, &out, &mut |_| ()).is_err());
}

#[test]
fn files_that_do_not_fit_are_named() {
    let shape = [12, 20, 20];
    let refused = |change: &dyn Fn(&Path)| {
        let folder = tempfile::tempdir().unwrap();
        let input = raw(folder.path(), &[shape, shape]);
        change(&input);
        let (result, events) = store(&input, &folder.path().join("store"));
        let others = events.iter().filter(|e| matches!(e, Event::Prepared { .. })).count();
        (result.unwrap_err().to_string(), others)
    };
    let (error, others) = refused(&|f| write(&f.join("imagesTr/c1_0001.nii"), [12, 20, 19], &AFFINE, image));
    assert!(error.contains("c1_0001.nii") && error.contains("c1_0000.nii") && error.contains("19"), "{error}");
    assert_eq!(others, 1, "the other case is prepared all the same");

    let mut elsewhere = AFFINE;
    elsewhere[2][3] += 4.0;
    let (error, _) = refused(&|f| write(&f.join("labelsTr/c0.nii"), shape, &elsewhere, label));
    assert!(error.contains("labelsTr") && error.contains("c0_0000.nii") && error.contains("4.00 mm"), "{error}");
    let mut larger = AFFINE;
    larger[1][1] = 2.4;
    let (error, _) = refused(&|f| write(&f.join("labelsTr/c0.nii"), shape, &larger, label));
    assert!(error.contains("2.4") && error.contains("1.2"), "{error}");

    let (error, _) = refused(&|f| write(&f.join("labelsTr/c1.nii"), shape, &AFFINE, |at| label(at) * 4.0));
    assert!(error.contains("labelsTr/c1.nii") && error.contains("label(s) 4, 8"), "{error}");
    let (error, _) = refused(&|f| write(&f.join("labelsTr/c1.nii"), shape, &AFFINE, |at| label(at) * 0.5));
    assert!(error.contains("0.5") && error.contains("no label"), "{error}");
    let (error, _) = refused(&|f| write(&f.join("imagesTr/c0_0000.nii"), shape, &AFFINE, |_| f32::NAN));
    assert!(error.contains("c0_0000.nii") && error.contains("NaN"), "{error}");
    let (error, others) = refused(&|f| {
        for case in ["c0", "c1"] {
            fs::write(f.join(format!("labelsTr/{case}.nii")), "no image").unwrap();
        }
    });
    assert!(error.contains("2 of its 2 cases") && error.contains("c0"), "{error}");
    assert_eq!(others, 0);
}

/// Headers hold float32, and some software writes them anew: a thousandth of a voxel is no other place.
#[test]
fn a_hair_of_difference_is_no_other_grid() {
    let folder = tempfile::tempdir().unwrap();
    let input = raw(folder.path(), &[[12, 20, 20]]);
    let mut near = AFFINE;
    near[0][3] += 0.02;
    write(&input.join("labelsTr/c0.nii"), [12, 20, 20], &near, label);
    store(&input, &folder.path().join("store")).0.unwrap();
}

#[test]
fn empty_label_maps_and_scans_smaller_than_a_patch_give_patches() {
    let folder = tempfile::tempdir().unwrap();
    let input = raw(folder.path(), &[[4, 5, 6]]);
    let store = Arc::new(store(&input, &folder.path().join("store")).0.unwrap());
    assert_eq!(store.cases()[0].locations, [0, 0]);
    for augment in [None, Some(Settings::default())] {
        let loader = LabelledLoader::new(store.clone(), vec![0], settings(augment)).unwrap();
        for step in 0..20 {
            let patch = loader.sample(key(step, 2)).unwrap();
            let (image, labels) = patch.apply();
            assert_eq!((image.len(), labels.len()), (2 * 20 * 24 * 16, 20 * 24 * 16));
            assert!(labels.iter().all(|&v| v == 0));
            assert!(image.iter().all(|v| v.is_finite()) && image.iter().any(|&v| v != 0.0));
        }
    }
}

#[test]
fn the_last_third_of_a_step_has_foreground() {
    let folder = tempfile::tempdir().unwrap();
    let input = raw(folder.path(), &[[60, 70, 60]]);
    let store = Arc::new(store(&input, &folder.path().join("store")).0.unwrap());
    let loader = LabelledLoader::new(store.clone(), vec![0], settings(None)).unwrap();
    let centre = (10 * 24 + 12) * 16 + 8;
    let has = |index: u64| {
        let patches = (0..60).map(|step| loader.sample(key(step, index)).unwrap());
        patches.filter(|p| p.labels[centre] > 0).count()
    };
    // A voxel of the class is the patch's centre: both classes come up, though one is six times as large.
    let forced: Vec<i16> = (0..60).map(|step| loader.sample(key(step, 2)).unwrap().labels[centre]).collect();
    assert_eq!(has(2), 60);
    assert!(forced.iter().filter(|&&v| v == 2).count() > 15 && forced.contains(&1), "{forced:?}");
    assert!(has(0) < 10 && has(1) < 10, "round(3 * 0.67) = 2 patches lie anywhere");
}

#[test]
fn patches_without_augmentation_are_the_stores_voxels() {
    let folder = tempfile::tempdir().unwrap();
    let input = raw(folder.path(), &[[30, 40, 30]]);
    let store = Arc::new(store(&input, &folder.path().join("store")).0.unwrap());
    let loader = LabelledLoader::new(store.clone(), vec![0], settings(None)).unwrap();
    let shape = store.cases()[0].size();
    let (image, labels) = store.region(0, [0; 3], shape).unwrap();
    let patch = loader.sample(key(3, 0)).unwrap();
    // Where does it lie? The first row of the image says so.
    let voxels: usize = shape.iter().product();
    let row = &patch.image[..16];
    let at = (0..voxels - 16).find(|&n| image[n..n + 16] == *row).expect("the patch is not in the image");
    let start = [at / (shape[1] * shape[2]), at / shape[2] % shape[1], at % shape[2]].map(|v| v as i64);
    let (image, mut labels_there) = store.region(0, start, [20, 24, 16]).unwrap();
    labels_there.iter_mut().filter(|v| **v == OUTSIDE).for_each(|v| *v = 0);
    assert_eq!(patch.start, start);
    assert_eq!(patch.apply(), (image, labels_there));
    assert!(labels.contains(&2));
}

#[test]
fn any_number_of_threads_gives_the_same_batches() {
    let folder = tempfile::tempdir().unwrap();
    let input = raw(folder.path(), &[[20, 30, 20], [18, 22, 30]]);
    write(&input.join("labelsTr/c1.nii"), [18, 22, 30], &AFFINE, |_| 0.0);
    let store = Arc::new(store(&input, &folder.path().join("store")).0.unwrap());
    let loader = Arc::new(LabelledLoader::new(store, vec![0, 1], settings(Some(Settings::default()))).unwrap());
    let batches = |threads| -> Vec<Vec<LabelledPatch>> {
        stream::start(loader.clone(), 5, 7, 3, threads, 2).take(12).collect::<Result<_>>().unwrap()
    };
    let one = batches(1);
    assert_eq!(one, batches(2));
    assert_eq!(one[1][2], loader.sample(key(8, 2)).unwrap());
    // The last patch of a batch is centred on foreground, which one of the cases alone has: both are sampled from.
    let labelled = one.iter().filter(|batch| batch[2].labels.contains(&1)).count();
    assert!((1..12).contains(&labelled), "{labelled} of 12");
}

#[test]
fn settings_that_cannot_be_meant_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let input = raw(folder.path(), &[[12, 20, 20]]);
    let store = Arc::new(store(&input, &folder.path().join("store")).0.unwrap());
    let with = |cases: Vec<usize>, s: LabelledPatchSettings| LabelledLoader::new(store.clone(), cases, s);
    assert!(with(vec![0], settings(None)).is_ok());
    assert!(with(vec![], settings(None)).is_err());
    assert!(with(vec![1], settings(None)).is_err());
    assert!(with(vec![0], LabelledPatchSettings { patch: [4, 0, 4], ..settings(None) }).is_err());
    assert!(with(vec![0], LabelledPatchSettings { foreground: f64::NAN, ..settings(None) }).is_err());
    let wrong = Settings { noise_probability: 2.0, ..Settings::default() };
    assert!(with(vec![0], settings(Some(wrong))).is_err());
    assert!(store.indices(&["c0".into()]).is_ok() && store.indices(&["c9".into()]).is_err());
}
