//! From files to patches: awkward files, whole runs, runs that were stopped, and the way back into space.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use spark3d::base::volume::Volume;
use spark3d::data::dataset::{Loader, PatchSettings, Place, SampleKey, split::split, stream};
use spark3d::data::preprocess::{self, Event, Settings, Shard};
use spark3d::data::store::{Reason, Store};
use spark3d::formats::{affine, nifti};

fn fixtures() -> PathBuf {
    support::fixture("awkward")
}

/// Limits that let small files pass.
fn small(spacing: f64) -> Settings {
    Settings { spacing: [spacing; 3], min_file_bytes: 0, ..Settings::default() }
}

/// A head-like scan of `shape` voxels of 2 mm on an oblique grid, with an empty border of 2 voxels.
fn phantom(path: &Path, shape: [usize; 3], seed: usize) {
    let data = (0..shape.iter().product())
        .map(|n| {
            let at = [n / (shape[1] * shape[2]), n / shape[2] % shape[1], n % shape[2]];
            let inside = at.iter().zip(shape).all(|(&i, n)| i >= 2 && i + 2 < n);
            if inside { 100.0 + ((n * 31 + seed * 17) % 53) as f32 } else { 0.0 }
        })
        .collect();
    let (s, c) = 0.2f64.sin_cos();
    let matrix = [[2. * c, -2. * s, 0., -40.], [2. * s, 2. * c, 0., -50.], [0., 0., 2., -30.], [0., 0., 0., 1.]];
    nifti::write_grid(path, &Volume::new(shape, [2.0; 3], data), &matrix).unwrap();
}

/// Every file of the folder's `expected.json`; a folder of the same form can be named in `SPARK3D_AWKWARD`.
#[test]
fn awkward_files_are_read_or_refused_as_expected() {
    let folder = std::env::var_os("SPARK3D_AWKWARD").map_or_else(fixtures, PathBuf::from);
    let expected: BTreeMap<String, BTreeMap<String, String>> =
        serde_json::from_str(&fs::read_to_string(folder.join("expected.json")).unwrap()).unwrap();
    assert!(expected.len() >= 19);
    for (name, case) in &expected {
        let path = folder.join(name);
        let result = nifti::read(&path).and_then(|s| preprocess::scan(&s, &small(4.0)));
        match (case["expect"].as_str(), result) {
            ("ok", Ok(_)) => {}
            ("error", Err(error)) => {
                let text = error.to_string();
                assert!(text.contains(name.as_str()), "{name}: the message names no file: {text}");
                assert!(text.contains(". "), "{name}: the message has no remedy: {text}");
                println!("{text}");
            }
            (want, result) => panic!("{name} ({}): {want} expected, got {:?}", case["why"], result.map(|p| p.bbox)),
        }
    }
}

/// Random damage to a good file: refused or read, never a panic.
#[test]
fn damaged_files_do_not_panic() {
    let folder = tempfile::tempdir().unwrap();
    let mut state = 1u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for (name, header_only, rounds) in [("ok_big_endian.nii", true, 400), ("ok_oblique.nii.gz", false, 100)] {
        let good = fs::read(fixtures().join(name)).unwrap();
        let path = folder.path().join(name);
        let (mut refused, mut read) = (0, 0);
        for _ in 0..rounds {
            let mut bytes = good.clone();
            for _ in 0..1 + random(6) {
                let at = random(if header_only { 348 } else { bytes.len() });
                bytes[at] = random(256) as u8;
            }
            bytes.truncate(if random(4) == 0 { random(bytes.len()) } else { bytes.len() });
            fs::write(&path, bytes).unwrap();
            let Ok(scan) = nifti::read(&path) else {
                refused += 1;
                continue;
            };
            read += 1;
            let settings = Settings { max_voxels: 1 << 20, ..small(8.0) };
            if let Ok(case) = preprocess::scan(&scan, &settings) {
                assert!(case.volume.data.iter().all(|v| v.is_finite()), "{name}");
            }
        }
        // Of a compressed file, a checksum tells.
        assert!(refused > 10 && (read > 10) == header_only, "{name}: {refused} refused, {read} read");
    }
}

#[test]
fn all_readable_fixtures_show_the_same_head() {
    let plain = nifti::read(&fixtures().join("ok_float32.nii.gz")).unwrap();
    assert_eq!(plain.volume.shape, [28, 34, 29]);
    for name in [
        "ok_big_endian.nii",
        "ok_pair.img",
        "ok_pair.hdr",
        "ok_lps_flip.nii.gz",
        "ok_permuted.nii.gz",
        "ok_oblique.nii.gz",
        "ok_4d_single.nii.gz",
    ] {
        let scan = nifti::read(&fixtures().join(name)).unwrap();
        assert_eq!(scan.volume.shape, plain.volume.shape, "{name}");
        assert_eq!(scan.volume.data, plain.volume.data, "{name}");
        for (a, b) in scan.volume.spacing.iter().zip(plain.volume.spacing) {
            assert!((a - b).abs() < 1e-4, "{name}: {:?}", scan.volume.spacing);
        }
    }
    // stored * 0.5 - 3: everything lies on a grid of halves, and the stored zeros are -3.
    let scaled = nifti::read(&fixtures().join("ok_int16_scl_slope.nii")).unwrap();
    let bytes = fs::read(fixtures().join("ok_int16_scl_slope.nii")).unwrap();
    let stored = i16::from_le_bytes([bytes[352], bytes[353]]);
    assert_eq!(scaled.volume.data[0], stored as f32 * 0.5 - 3.0);
}

#[test]
fn a_result_has_the_matrix_and_the_axes_of_its_scan() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["ok_oblique.nii.gz", "ok_lps_flip.nii.gz", "ok_permuted.nii.gz", "ok_big_endian.nii", "ok_pair.img"] {
        let scan = nifti::read(&fixtures().join(name)).unwrap();
        let mut result = scan.volume.clone();
        result.data.iter_mut().for_each(|v| *v = *v * 2.0 + 1.0);
        let path = folder.path().join("result.nii.gz");
        nifti::write_values(&path, &result.data, result.shape, &scan).unwrap();
        let again = nifti::read(&path).unwrap();
        assert_eq!(again.affine, scan.affine, "{name}");
        assert_eq!(again.volume.data, result.data, "{name}");
    }
}

/// Others go by a matrix that the header has, whatever it holds: one that is of no use is not handed on.
#[test]
fn a_result_has_no_matrix_that_is_of_no_use() {
    let folder = tempfile::tempdir().unwrap();
    let (path, result) = (folder.path().join("scan.nii"), folder.path().join("result.nii"));
    let volume = Volume::new([4, 5, 6], [1.0; 3], (0..120).map(|v| v as f32).collect());
    nifti::write_grid(&path, &volume, &affine::IDENTITY).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    // An sform of NaN, and a qform that holds.
    bytes[280..328].copy_from_slice(&f32::NAN.to_le_bytes().repeat(12));
    bytes[252..254].copy_from_slice(&1i16.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let scan = nifti::read(&path).unwrap();
    nifti::write_values(&result, &scan.volume.data, scan.volume.shape, &scan).unwrap();
    let written = fs::read(&result).unwrap();
    assert_eq!((&written[252..256], &written[280..328]), (&[1, 0, 0, 0][..], &[0; 48][..]));
    assert_eq!(nifti::read(&result).unwrap().affine, scan.affine);
}

/// A scan whose intensity is its own x (y, z) position in mm: after preprocessing the matrix must say the same.
#[test]
fn the_grid_of_a_prepared_scan_lies_where_its_matrix_says() {
    let folder = tempfile::tempdir().unwrap();
    let (s, c) = 0.3f64.sin_cos();
    let matrix = [[1.1 * c, -1.3 * s, 0., 400.], [1.1 * s, 1.3 * c, 0., 500.], [0., 0., 2.1, 600.], [0., 0., 0., 1.]];
    let shape = [20, 30, 40];
    for axis in 0..3 {
        let data = (0..24_000)
            .map(|n| {
                let [z, y, x] = [n / 1200, n / 40 % 30, n % 40];
                // An empty border on one side: the crop must be accounted for.
                if x < 5 || z < 3 { 0.0 } else { affine::apply(&matrix, [x as f64, y as f64, z as f64])[axis] as f32 }
            })
            .collect();
        let path = folder.path().join("position.nii.gz");
        nifti::write_grid(&path, &Volume::new(shape, [2.1, 1.3, 1.1], data), &matrix).unwrap();
        let scan = nifti::read(&path).unwrap();
        let prepared = preprocess::scan(&scan, &Settings::default()).unwrap();
        assert_eq!(prepared.bbox, [[3, 20], [0, 30], [5, 40]]);
        let v = &prepared.volume;
        for (z, y, x) in [(15, 15, 15), (20, 30, 10), (5, 8, 30)] {
            let got = prepared.denormalize(v.data[v.index(z, y, x)]) as f64;
            let want = affine::apply(&prepared.affine, [x as f64, y as f64, z as f64])[axis];
            assert!((got - want).abs() < 0.02, "axis {axis}: {got} mm for {want} mm at {:?}", (z, y, x));
        }
    }
}

#[test]
fn a_folder_becomes_a_store_and_bad_scans_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in");
    fs::create_dir_all(&input).unwrap();
    for n in 0..6 {
        phantom(&input.join(format!("sub-{n}_T1w.nii.gz")), [34, 36, 38], n);
    }
    fs::copy(fixtures().join("bad_nan.nii.gz"), input.join("bad_nan.nii.gz")).unwrap();
    fs::copy(fixtures().join("bad_huge_dims.nii"), input.join("bad_huge_dims.nii")).unwrap();
    phantom(&input.join("sub-9_thin.nii.gz"), [10, 36, 38], 1); // 20 mm

    let store = folder.path().join("store");
    let mut events = Vec::new();
    let summary =
        preprocess::run(std::slice::from_ref(&input), &store, &small(2.0), Shard::ALL, &mut |e| events.push(e))
            .unwrap();
    assert_eq!((summary.cases, summary.subjects, summary.prepared, summary.rejected.len()), (6, 6, 6, 3));
    assert_eq!(events[0], Event::Found { scans: 9, done: 0 });
    assert_eq!(events.len(), 10);
    let reasons: Vec<&str> = summary.rejected.iter().map(|r| r.reason.as_str()).collect();
    assert!(reasons.iter().any(|r| r.contains("NaN")), "{reasons:?}");
    assert!(reasons.iter().any(|r| r.contains("--min-extent-mm 50")), "{reasons:?}");

    let store = Arc::new(Store::open(&store).unwrap());
    assert_eq!(store.manifest().rejected.len(), 3);
    let case = &store.cases()[0];
    assert_eq!((case.id.as_str(), case.subject.as_str(), case.shape), ("sub-0_T1w", "sub-0", [30, 32, 34]));
    let data = store.region(0, [0; 3], case.shape).unwrap();
    let mean = data.iter().sum::<f32>() / data.len() as f32;
    assert!(mean.abs() < 1e-3, "z-scored: {mean}");
    let split = split(store.cases(), 0);
    assert_eq!((split.train.len(), split.validation.len()), (5, 1));
    let loader = Arc::new(Loader::new(
        store,
        split.train,
        PatchSettings { patch: [16; 3], augment: None, place: Place::Random },
    ));
    let batch = stream::start(loader.clone(), 1, 0, 4, 2, 2).next().unwrap().unwrap();
    assert_eq!(batch[3], loader.patch(SampleKey { seed: 1, step: 0, index: 3 }).unwrap());
}

#[test]
fn a_second_run_does_what_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let (input, store) = (folder.path().join("in"), folder.path().join("store"));
    fs::create_dir_all(&input).unwrap();
    for n in 0..3 {
        phantom(&input.join(format!("sub-{n}_T1w.nii.gz")), [34, 36, 38], n);
    }
    phantom(&input.join("sub-9_thin.nii.gz"), [20, 36, 38], 1); // 40 mm
    let run =
        |settings: &Settings| preprocess::run(std::slice::from_ref(&input), &store, settings, Shard::ALL, &mut |_| {});
    run(&small(2.0)).unwrap();
    let finished = fs::read_to_string(store.join("manifest.json")).unwrap();

    // Nothing to do.
    let again = run(&small(2.0)).unwrap();
    assert_eq!((again.prepared, again.rejected.len()), (0, 1));
    assert_eq!(fs::read_to_string(store.join("manifest.json")).unwrap(), finished);

    // As after a kill: no manifest, a journal with a torn last line, an array that is not in it, one half-written.
    let manifest: serde_json::Value = serde_json::from_str(&finished).unwrap();
    let lines = [
        serde_json::json!({"settings": manifest["settings"]}).to_string(),
        serde_json::json!({"case": manifest["cases"][0]}).to_string(),
        serde_json::json!({"case": manifest["cases"][1]}).to_string()[..50].to_string(),
    ];
    fs::write(store.join("journal.jsonl"), lines.join("\n")).unwrap();
    fs::remove_file(store.join("manifest.json")).unwrap();
    fs::create_dir_all(store.join("cases/.unfinished-sub-2_T1w/c")).unwrap();
    let untouched = store.join("cases/sub-0_T1w/zarr.json");
    let written = fs::metadata(&untouched).unwrap().modified().unwrap();
    assert!(Store::open(&store).unwrap_err().to_string().contains("run that again"));
    let resumed = run(&small(2.0)).unwrap();
    assert_eq!(resumed.prepared, 2, "one was finished");
    assert_eq!(fs::metadata(&untouched).unwrap().modified().unwrap(), written);
    assert_eq!(fs::read_to_string(store.join("manifest.json")).unwrap(), finished);
    assert!(!store.join("cases/.unfinished-sub-2_T1w").exists() && !store.join("journal.jsonl").exists());

    // A scan that changed is done again, wider limits add, other voxels are refused.
    phantom(&input.join("sub-1_T1w.nii.gz"), [35, 36, 38], 7);
    assert_eq!(run(&small(2.0)).unwrap().prepared, 1);
    let wider = run(&Settings { min_extent_mm: 30.0, ..small(2.0) }).unwrap();
    assert_eq!((wider.prepared, wider.cases, wider.rejected.len()), (1, 4, 0));
    let error = run(&small(1.0)).unwrap_err().to_string();
    assert!(error.contains("preprocess.spacing was [2.0, 2.0, 2.0] and is now [1.0, 1.0, 1.0]"), "{error}");
}

/// The bundled scans: enough subjects for a split, small enough to prepare in a second.
#[test]
fn the_demo_scans_can_be_prepared() {
    let folder = tempfile::tempdir().unwrap();
    let demo = support::repository("assets/demo");
    let settings = Settings { spacing: [2.0; 3], min_file_bytes: 100_000, ..Settings::default() };
    let summary = preprocess::run(&[demo], folder.path(), &settings, Shard::ALL, &mut |_| {}).unwrap();
    assert_eq!((summary.cases, summary.subjects, summary.rejected.len()), (30, 30, 0));
    for case in Store::open(folder.path()).unwrap().cases() {
        // A brain is about 14 cm high, 17 cm long and 14 cm wide.
        for (extent, range) in case.shape.iter().map(|&n| 2 * n).zip([110..180, 140..200, 115..170]) {
            assert!(range.contains(&extent), "{}: {:?}", case.id, case.shape);
        }
    }
}

#[test]
fn what_cannot_work_is_said_first() {
    let folder = tempfile::tempdir().unwrap();
    let (input, store) = (folder.path().join("in"), folder.path().join("store"));
    fs::create_dir_all(&input).unwrap();
    let run = |input: &Path, store: &Path| {
        let mut events = 0;
        let error = preprocess::run(&[input.to_path_buf()], store, &small(2.0), Shard::ALL, &mut |_| events += 1)
            .unwrap_err()
            .to_string();
        (error, events)
    };
    assert!(run(&input, &store).0.contains("no scan was found"));
    phantom(&input.join("a.nii.gz"), [10, 36, 38], 0);
    assert!(run(&input, &store).0.contains("none of its 1 scans can be used"));
    phantom(&input.join("b.nii.gz"), [34, 36, 38], 0);
    // The output is a file, or lies below one, or holds something else.
    fs::write(folder.path().join("file"), "x").unwrap();
    assert_eq!(run(&input, &folder.path().join("file")).1, 0);
    assert_eq!(run(&input, &folder.path().join("file/store")).1, 0);
    let (error, events) = run(&input, folder.path());
    assert!(error.contains("not a store") && events == 0, "{error}");
    // The scans of one folder and a store within it do not mix.
    let inside = input.join("store");
    preprocess::run(std::slice::from_ref(&input), &inside, &small(2.0), Shard::ALL, &mut |_| {}).unwrap();
    let again = preprocess::run(std::slice::from_ref(&input), &inside, &small(2.0), Shard::ALL, &mut |_| {}).unwrap();
    assert_eq!((again.cases, again.prepared), (1, 0));
}

/// Every awkward file of the fixtures is in the manifest: as a case, or with the reason why not.
#[test]
fn the_manifest_says_why_scans_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let input = std::env::var_os("SPARK3D_AWKWARD").map_or_else(fixtures, PathBuf::from);
    let settings = Settings { min_extent_mm: 0.0, ..small(4.0) };
    preprocess::run(std::slice::from_ref(&input), folder.path(), &settings, Shard::ALL, &mut |_| {}).unwrap();
    let store = Store::open(folder.path()).unwrap();
    let manifest = store.manifest();
    let expected: BTreeMap<String, BTreeMap<String, String>> =
        serde_json::from_str(&fs::read_to_string(input.join("expected.json")).unwrap()).unwrap();
    let named = |path: &Path, name: &str| path.file_name().is_some_and(|n| n == name);
    for (name, case) in &expected {
        // A pair is listed by its header.
        let name = name.replace(".img", ".hdr");
        let kept = manifest.cases.iter().any(|c| named(&c.source, &name));
        let rejected = manifest.rejected.iter().find(|r| named(&r.source, &name));
        assert_eq!(kept, case["expect"] == "ok", "{name}");
        assert_eq!(rejected.is_some(), case["expect"] == "error", "{name}");
        let Some(rejected) = rejected else { continue };
        let kind = match name.split('.').next().unwrap() {
            "bad_nan" | "bad_inf" => Reason::NotFinite,
            "bad_constant" => Reason::Empty,
            _ => Reason::Unreadable,
        };
        assert_eq!(rejected.kind, Some(kind), "{name}: {}", rejected.reason);
        assert!(rejected.reason.len() > 20, "{name}: {}", rejected.reason);
        println!("{name}: {}", rejected.reason);
    }
    let fingerprint = &manifest.fingerprint;
    assert_eq!(fingerprint.rejected.values().sum::<usize>(), manifest.rejected.len());
    assert_eq!((fingerprint.scans, fingerprint.rejected[&Reason::NotFinite]), (manifest.cases.len(), 2));
    assert!(fingerprint.spacing_before.as_ref().unwrap().median[0] > 1.0);
}

#[test]
fn modalities_are_recorded_and_chosen() {
    let folder = tempfile::tempdir().unwrap();
    let (input, store) = (folder.path().join("in"), folder.path().join("store"));
    fs::create_dir_all(&input).unwrap();
    for (n, name) in ["sub-0_T1w", "sub-0_FLAIR", "sub-1_T2w", "scan"].iter().enumerate() {
        phantom(&input.join(format!("{name}.nii.gz")), [34, 36, 38], n);
    }
    let run = |modality: &[&str]| {
        let settings = Settings { modality: modality.iter().map(|m| m.to_string()).collect(), ..small(2.0) };
        preprocess::run(std::slice::from_ref(&input), &store, &settings, Shard::ALL, &mut |_| {}).unwrap();
        let manifest = Store::open(&store).unwrap().manifest().clone();
        let kept = manifest.cases.iter().map(|c| c.modality.clone().unwrap_or_default()).collect::<Vec<_>>();
        (kept, manifest.rejected.iter().filter(|r| r.kind == Some(Reason::Modality)).count())
    };
    assert_eq!(run(&["T1w", "FLAIR"]), (vec!["FLAIR".into(), "T1w".into()], 2));
    assert_eq!(run(&["T1w", "FLAIR", "T2w"]).1, 1);
    assert_eq!(run(&[]), (vec!["".into(), "FLAIR".into(), "T1w".into(), "T2w".into()], 0));
}

/// The same batches whatever the number of threads; and a report that accounts for what was read.
#[test]
fn threads_change_nothing_and_reads_are_accounted_for() {
    let folder = tempfile::tempdir().unwrap();
    let (input, path) = (folder.path().join("in"), folder.path().join("store"));
    fs::create_dir_all(&input).unwrap();
    for n in 0..3 {
        phantom(&input.join(format!("sub-{n}_T1w.nii.gz")), [68, 72, 76], n);
    }
    preprocess::run(&[input], &path, &small(2.0), Shard::ALL, &mut |_| {}).unwrap();
    let store = Arc::new(Store::open(&path).unwrap());
    let loader = |patch, augment| {
        Arc::new(Loader::new(store.clone(), vec![0, 1, 2], PatchSettings { patch, augment, place: Place::Random }))
    };
    let augmented = loader([24, 20, 28], Some(Default::default()));
    let batches = |threads| {
        let stream = stream::start(augmented.clone(), 7, 0, 4, threads, 3);
        stream.take(6).collect::<Result<Vec<_>, _>>().unwrap()
    };
    let one = batches(1);
    for threads in [2, 4, 8] {
        assert_eq!(one, batches(threads), "{threads} threads");
    }

    // A patch as large as the image reads the two files of its case; a small one the chunks that it touches.
    let shape = store.cases()[0].shape;
    let size = |file: &str| fs::metadata(path.join(&store.cases()[0].array).join(file)).unwrap().len();
    let (metadata, shard) = (size("zarr.json"), size("c/0/0/0"));
    let read_of = |patch| {
        let whole =
            Arc::new(Loader::new(store.clone(), vec![0], PatchSettings { patch, augment: None, place: Place::Random }));
        let mut stream = stream::start(whole, 1, 0, 1, 1, 1);
        stream.next().unwrap().unwrap();
        drop(stream.next().unwrap().unwrap());
        let report = stream.report();
        assert!(report.samples >= 2 && report.work_s >= report.read_s + report.decode_s, "{report:?}");
        assert!(report.read_s > 0.0 && report.decode_s > 0.0 && report.wait_s > 0.0, "{report:?}");
        report.bytes_read / report.samples
    };
    assert_eq!(read_of(shape), metadata + shard);
    let small = read_of([8; 3]);
    assert!(small > metadata && small < metadata + shard / 2, "{small} of {shard} bytes");
}

/// A scan of 30 x 32 x 34 voxels of 2 mm with this matrix.
fn made(path: &Path, matrix: &affine::Affine, value: impl Fn([usize; 3]) -> f32) {
    let shape = [30, 32, 34];
    let at = |n: usize| [n / (shape[1] * shape[2]), n / shape[2] % shape[1], n % shape[2]];
    let data = (0..shape.iter().product()).map(|n| value(at(n))).collect();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    nifti::write_grid(path, &Volume::new(shape, [2.0; 3], data), matrix).unwrap();
}

const PLAIN: affine::Affine = [[2., 0., 0., 1.], [0., 2., 0., 2.], [0., 0., 2., 3.], [0., 0., 0., 1.]];

fn noise([z, y, x]: [usize; 3]) -> f32 {
    ((z * 7919 + y * 104_729 + x * 1_299_709) % 1009) as f32
}

/// The summary of preparing `input`, what was kept by its name, and what was left out, and why.
fn outcome(
    input: &Path,
    store: &Path,
    settings: &Settings,
) -> (preprocess::Summary, Vec<String>, BTreeMap<String, (Reason, String)>) {
    let summary = preprocess::run(&[input.to_path_buf()], store, settings, Shard::ALL, &mut |_| {}).unwrap();
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    let kept = Store::open(store).unwrap().cases().iter().map(|c| name(&c.source)).collect();
    let left_out = summary.rejected.iter().map(|r| (name(&r.source), (r.kind.unwrap(), r.reason.clone()))).collect();
    (summary, kept, left_out)
}

#[test]
fn a_lost_file_is_named_and_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let (input, store) = (folder.path().join("in"), folder.path().join("store"));
    for name in ["a", "b"] {
        made(&input.join(format!("{name}.nii.gz")), &PLAIN, noise);
    }
    outcome(&input, &store, &small(2.0));
    let manifest = fs::read(store.join("manifest.json")).unwrap();
    let lost = store.join("cases/a/c/0/0/0");
    let shard = fs::read(&lost).unwrap();
    fs::remove_file(&lost).unwrap();
    let error = Store::open(&store).unwrap().region(0, [0; 3], [4; 3]).unwrap_err().to_string();
    assert!(error.contains("cases/a") && error.contains("missing") && error.contains("preprocess"), "{error}");
    assert_eq!(outcome(&input, &store, &small(2.0)).0.prepared, 1);
    assert!(fs::read(&lost).unwrap() == shard && fs::read(store.join("manifest.json")).unwrap() == manifest);
}

#[test]
fn label_maps_are_left_out_by_name_and_by_content() {
    let folder = tempfile::tempdir().unwrap();
    let (input, store) = (folder.path().join("in"), folder.path().join("store"));
    let block = |[z, y, x]: [usize; 3]| ((z / 10) + 3 * (y / 8) + x / 17) as f32;
    for name in ["sub-1_T1w.nii.gz", "x/unmasked_T1.nii"] {
        made(&input.join(name), &PLAIN, noise);
    }
    // By their names, whatever they hold; by what they hold, whatever they are called.
    for name in ["T1_brain_mask.nii", "masks/T1_a.nii", "fs/aparc+aseg.nii"] {
        made(&input.join(name), &PLAIN, noise);
    }
    made(&input.join("result_T1.nii.gz"), &PLAIN, block);
    for modality in [vec![], vec!["T1w".to_string()]] {
        let store = store.with_extension(modality.len().to_string());
        let (summary, kept, left_out) = outcome(&input, &store, &Settings { modality, ..small(2.0) });
        assert_eq!(kept, ["sub-1_T1w.nii.gz", "unmasked_T1.nii"]);
        assert_eq!((left_out.len(), summary.files.scans), (4, 6));
        assert!(left_out.values().all(|(kind, why)| *kind == Reason::LabelMap && why.contains("--keep-label-maps")));
        assert!(left_out["result_T1.nii.gz"].1.contains("whole numbers"), "{left_out:?}");
    }
    let keep = Settings { keep_label_maps: true, ..small(2.0) };
    assert_eq!(outcome(&input, &store, &keep).1.len(), 6);
}

#[test]
fn what_is_of_no_use_is_left_out_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let (input, store) = (folder.path().join("in"), folder.path().join("store"));
    let path = |name: &str| input.join(name);
    made(&path("good.nii"), &PLAIN, noise);
    made(&path("box.nii"), &PLAIN, |at| f32::from(at.iter().all(|&i| i > 4 && i < 20)));
    made(&path("one_voxel.nii"), &PLAIN, |at| if at == [9; 3] { 0.5 } else { 0.0 });
    let tilted = |degrees: f64| {
        let mut matrix = PLAIN;
        matrix[1][2] = 2.0 * degrees.to_radians().tan();
        matrix
    };
    made(&path("gantry.nii"), &tilted(25.0), noise);
    made(&path("slightly.nii"), &tilted(2.0), noise);
    let scan = fs::read(path("good.nii")).unwrap();
    let with = |name: &str, at: usize, bytes: &[u8]| {
        let mut changed = scan.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        fs::write(path(name), changed).unwrap();
    };
    with("metres.nii", 123, &[1]);
    with("micrometres.nii", 123, &[3]);
    with("no_unit.nii", 123, &[0]);
    with("labels_by_intent.nii", 68, &1002i16.to_le_bytes());
    fs::write(path("pointer.nii.gz"), "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n").unwrap();
    fs::create_dir(path("folder.nii.gz")).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(".git/annex/objects/MD5E-s9--0.nii.gz", path("annexed.nii.gz")).unwrap();
    let (summary, kept, left_out) = outcome(&input, &store, &small(2.0));
    assert_eq!(kept, ["good.nii", "no_unit.nii", "slightly.nii"]);
    let mut want = vec![
        ("box.nii", Reason::Empty, "no contrast"),
        ("one_voxel.nii", Reason::Empty, "no contrast"),
        ("gantry.nii", Reason::Shear, "25.0 degrees"),
        ("metres.nii", Reason::Spacing, "lengths in metres"),
        ("micrometres.nii", Reason::FieldOfView, "lengths in micrometres"),
        ("labels_by_intent.nii", Reason::LabelMap, "intent"),
        ("pointer.nii.gz", Reason::Unreadable, "git lfs pull"),
        ("folder.nii.gz", Reason::Unreadable, "folder"),
    ];
    if cfg!(unix) {
        want.push(("annexed.nii.gz", Reason::Unreadable, "datalad get"));
    }
    assert_eq!((left_out.len(), summary.files.scans), (want.len(), want.len() + 3));
    for (name, kind, words) in want {
        assert!(left_out[name].0 == kind && left_out[name].1.contains(words), "{name}: {:?}", left_out[name]);
    }
}

/// Names that other software takes are no reason to stop.
#[test]
fn odd_names_stop_no_run() {
    let folder = tempfile::tempdir().unwrap();
    let (input, store) = (folder.path().join("in"), folder.path().join("store"));
    let deep = ["a_rather_long_name_of_a_folder"; 9].join("/");
    for name in [&format!("{deep}/scan.nii"), "患者乙.nii", "患者甲.nii", "A.NII.GZ", "a.nii", "a b (copy).nii"] {
        let plain = folder.path().join("scan.nii");
        made(&plain, &PLAIN, noise);
        fs::create_dir_all(input.join(name).parent().unwrap()).unwrap();
        fs::copy(plain, input.join(name)).unwrap();
    }
    let (_, kept, _) = outcome(&input, &store, &small(2.0));
    assert_eq!(kept.len(), 6);
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::ffi::OsStrExt;
        for byte in [b'\xfc', b'\xe9'] {
            let name = [b"M".as_slice(), &[byte], b".nii"].concat();
            fs::copy(input.join("a.nii"), input.join(std::ffi::OsStr::from_bytes(&name))).unwrap();
        }
        for _ in 0..2 {
            let (summary, kept, left_out) = outcome(&input, &store, &small(2.0));
            assert_eq!((summary.prepared, kept.len(), left_out.len()), (0, 6, 2));
            assert!(left_out["M\\xFC.nii"].1.contains("not UTF-8"), "{left_out:?}");
        }
    }
}
